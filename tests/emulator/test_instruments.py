from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.emulator.instruments import KNOWN, decimal_formatter, decimal_text, universe


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


@pytest.mark.parametrize("symbols", [["BTCUSDT"], ["-USDT"], ["BTC-USDT", "BTC-USDT"]])
def test_universe_refuses_what_is_no_pair_or_comes_twice(symbols: list[str]) -> None:
    with pytest.raises(ValueError, match="instrument"):
        universe(symbols)
