from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.emulator.instruments import KNOWN, InstrumentSpec, decimal_formatter, decimal_text, universe
from mdring.emulator.market import Market


@given(st.integers(-(2**70), 2**70), st.integers(-12, 4), st.integers(0, 14))
def test_decimal_text_is_exact_and_has_the_asked_decimals(value: int, exponent: int, decimals: int) -> None:
    if decimals + exponent < 0:
        with pytest.raises(ValueError, match="does not fit"):
            decimal_text(value, exponent, decimals)
        return
    text = decimal_text(value, exponent, decimals)
    assert Decimal(text) == Decimal(value).scaleb(exponent)
    assert len(text.partition(".")[2]) == decimals


@given(st.integers(0, 2**70), st.integers(-8, 4))
def test_formatter_equals_decimal_text(value: int, exponent: int) -> None:
    assert decimal_formatter(exponent, 8)(value) == decimal_text(value, exponent, 8)


def test_decimal_text_without_decimals_takes_those_of_the_exponent() -> None:
    assert decimal_text(7_000_012, -2) == "70000.12"
    assert decimal_text(7, 3) == "7000"


def test_universe_is_all_plausible_instruments_by_default() -> None:
    specs = universe()
    assert len(specs) == len(KNOWN) > 20
    btc = KNOWN["BTC-USDT"]
    assert decimal_text(btc.reference_price, btc.price_exponent) == "70000.00"
    assert (btc.base, btc.quote) == ("BTC", "USDT")


def test_universe_keeps_the_order_and_takes_unknown_symbols() -> None:
    specs = universe(["FOO1-USDT", "BTC-USDT", "FOO2-USDT"])
    assert [spec.canonical_symbol for spec in specs] == ["FOO1-USDT", "BTC-USDT", "FOO2-USDT"]
    assert specs[0].reference_price != specs[2].reference_price


def price(spec: InstrumentSpec) -> Decimal:
    return Decimal(spec.reference_price).scaleb(spec.price_exponent)


def test_what_is_not_known_trades_at_what_its_assets_are_worth() -> None:
    solana, in_bitcoin, foo, foo_in_euro, euro = universe(
        ["SOL-USDC-PERP", "SOL-BTC", "FOO-USDT", "FOO-EUR-PERP", "EUR-USDC"]
    )
    assert price(solana) == 170
    assert price(in_bitcoin) == pytest.approx(Decimal(170) / 70_000, rel=Decimal("0.001"))
    assert price(foo) == pytest.approx(price(foo_in_euro) * price(euro), rel=Decimal("0.001"))


@pytest.mark.parametrize("symbol", ["SHIB-BTC", "FOO-1000PEPE", "BTC-SHIB", "SHIB-USD-PERP@SHIB"])
def test_no_price_is_too_small_or_too_large_for_a_book(symbol: str) -> None:
    (spec,) = universe([symbol])
    assert spec.price_exponent >= -8 and spec.reference_price >= 100 and spec.typical_size >= 1
    Market([spec], seed=1, depth=20).advance(2_000, now_ns=1)


def test_options_cost_a_share_of_their_underlying_in_their_own_unit() -> None:
    linear, inverse = universe(["BTC-USDC-20261225-90000-C", "BTC-USD-20261225-90000-C@BTC"])
    assert price(linear) == 3_500 and price(inverse) == Decimal("0.05")


@pytest.mark.parametrize("symbols", [["BTCUSDT"], ["-USDT"], ["BTC-USDT", "BTC-USDT"]])
def test_universe_refuses_what_is_no_pair_or_comes_twice(symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="instrument"):
        universe(symbols)
