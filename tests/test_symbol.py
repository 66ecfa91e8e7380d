"""Canonical symbols: the form of each product, and that nothing is lost in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.symbol import Product, Symbol, asset, date_of, future, option, parse, perpetual, plain_decimal, spot

ASSETS = st.text(st.characters(exclude_characters="-@:*", exclude_categories=("Z", "C")), min_size=1, max_size=12)
DATES = st.dates().map(lambda date: f"{date:%Y%m%d}".rjust(8, "0"))
STRIKES = st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=6).map(str)


@pytest.mark.parametrize(
    ("symbol", "text"),
    [
        (spot("BTC", "USDT"), "BTC-USDT"),
        (spot("PERP", "USDT"), "PERP-USDT"),  # there is an asset of that name
        (perpetual("BTC", "USDT"), "BTC-USDT-PERP"),
        (perpetual("BTC", "USD", settle="BTC"), "BTC-USD-PERP@BTC"),
        (perpetual("BTC", "USD", settle="USD"), "BTC-USD-PERP"),
        (perpetual("ETH", "BTC", settle="USDT"), "ETH-BTC-PERP@USDT"),
        (perpetual("1000PEPE", "USDT"), "1000PEPE-USDT-PERP"),
        (future("BTC", "USDT", "20261225"), "BTC-USDT-20261225"),
        (future("BTC", "USD", "20261225", settle="BTC"), "BTC-USD-20261225@BTC"),
        (option("BTC", "USD", "20261225", "90000", "C", settle="BTC"), "BTC-USD-20261225-90000-C@BTC"),
        (option("XRP", "USDC", "20260630", "0.6250", "P"), "XRP-USDC-20260630-0.625-P"),
    ],
)
def test_each_product_has_its_form(symbol: Symbol, text: str) -> None:
    assert str(symbol) == text
    assert parse(text) == symbol


@given(
    st.one_of(
        st.builds(spot, ASSETS, ASSETS),
        st.builds(perpetual, ASSETS, ASSETS, st.just("") | ASSETS),
        st.builds(future, ASSETS, ASSETS, DATES, st.just("") | ASSETS),
        st.builds(option, ASSETS, ASSETS, DATES, STRIKES, st.sampled_from("CP"), st.just("") | ASSETS),
    )
)
def test_what_is_written_is_read_back(symbol: Symbol) -> None:
    assert parse(str(symbol)) == symbol


@given(st.text(max_size=30) | st.from_regex(r"[A-Z]{2,4}-[A-Z]{3}(-[0-9A-Z.]{1,8}){0,3}(@[A-Z]*)?", fullmatch=True))
def test_what_is_read_is_written_the_same_or_refused(text: str) -> None:
    try:
        symbol = parse(text)
    except ValueError:
        return
    assert str(symbol) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "BTC", "BTC-", "-USDT", "BTC-USDT-", "BTC-USDT-PERP-", "BTC-USDT@BTC", "BTC-USDT-PERP@",
        "BTC-USDT-PERP@USDT", "BTC-USDT-261225", "BTC-USDT-20261301", "BTC-USDT-20261225-9e4-C",
        "BTC-USDT-20261225-90000.0-C",
        "BTC-USDT-20261225-090000-C", "BTC-USDT-20261225-90000-X", "BTC-USDT-20261225-90000", "BTC-USD-PERP@B@C",
        "BTC USDT", "BTC-US DT", "*-USDT", "okx:BTC-USDT",
    ],
)  # fmt: skip
def test_what_is_no_symbol_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: spot("A-B", "USD"),
        lambda: perpetual("BTC", ""),
        lambda: future("BTC", "USD", "2026122"),
        lambda: future("BTC", "USD", "٢٠٢٦١٢٢٥"),
        lambda: option("BTC", "USD", "20261225", "-1", "C"),
        lambda: option("BTC", "USD", "20261225", "NaN", "C"),
        lambda: option("BTC", "USD", "20261225", "1e99", "C"),
        lambda: option("BTC", "USD", "20261225", "1", "c"),
    ],
)
def test_what_the_form_cannot_hold_is_refused(make: Callable[[], Symbol]) -> None:
    with pytest.raises(ValueError):
        make()


def test_inverse_is_what_is_settled_in_its_base() -> None:
    assert perpetual("BTC", "USD", "BTC").is_inverse
    assert not perpetual("BTC", "USD").is_inverse and not spot("BTC", "USD").is_inverse
    assert spot("BTC", "USD").product is Product.SPOT


def test_venues_own_names_of_assets_are_translated() -> None:
    assert [asset("kraken", code) for code in ("XBT", "XDG", "ETH")] == ["BTC", "DOGE", "ETH"]
    assert asset("okx", "XBT") == "XBT"


@pytest.mark.parametrize(
    ("text", "plain"), [("90000.0", "90000"), ("1e3", "1000"), ("0.0010", "0.001"), ("100", "100"), ("0", "0")]
)
def test_plain_decimals_have_neither_exponent_nor_superfluous_zeros(text: str, plain: str) -> None:
    assert plain_decimal(text) == plain


def test_dates_are_those_of_utc() -> None:
    assert date_of(1_798_156_800_000) == "20261225"
    assert date_of(1_798_156_800_000 - 1) == "20261224"
    with pytest.raises(ValueError):
        date_of(10**20)
