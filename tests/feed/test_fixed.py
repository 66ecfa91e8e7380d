"""Decimal text to scaled integers: exact, or an error."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdring.feed.adapter import VenueProtocolError
from mdring.feed.fixed import DecimalError, quoted_after, scale, text, to_decimal
from mdring.record import UNDEFINED_PRICE, Reason

LARGEST = 2**63 - 1

numbers = st.from_regex(
    r"[+-]?(\d{1,25}(\.\d{1,25})?|\.\d{1,25})([eE][+-]?\d{1,3})?", fullmatch=True, alphabet="0123456789+-.eE"
)
exponents = st.integers(-24, 12)


@pytest.mark.parametrize(
    ("number", "exponent", "scaled"),
    [
        ("0.35130000", -4, 3513),
        ("0.35130000", -8, 35130000),
        ("77381.36000000", -2, 7738136),
        ("1.00000000", 0, 1),
        ("-0.5", -1, -5),
        ("+1.5", -8, 150000000),
        ("007", 0, 7),
        (".5", -1, 5),
        ("1e-7", -8, 10),
        ("1.5E+3", 0, 1500),
        ("1500", 2, 15),
        ("0", -8, 0),
        ("-0.000", -2, 0),
        ("0e999999999999", -8, 0),
        ("0.10000000000000000000000000000000", -1, 1),
        ("9223372036854775807", 0, LARGEST),
        ("-9223372036854775807", 0, -LARGEST),
        ("922337203685477580700e-10", -8, LARGEST),
        (b"46116860414.00", -2, 4611686041400),
    ],
)
def test_text_that_fits_is_scaled_exactly(number: str | bytes, exponent: int, scaled: int) -> None:
    assert scale(number, exponent) == scaled


@pytest.mark.parametrize(
    "number",
    ["", ".", "1.", "-", "+", "+-1", "--1", "1..2", "1.2.3", "e5", "1e", "1e+", "1e5.", "1e5e5", " 1", "1 ", "1\n",
     "NaN", "nan", "Infinity", "inf", "0x10", "1_000", "1,5", "٣", "１", "é", "1\0", "\0", "\ud800"],
)  # fmt: skip
@pytest.mark.parametrize("exponent", [-20, -8, 0, 3])
def test_text_that_is_no_number_is_refused_as_a_bad_message(number: str, exponent: int) -> None:
    with pytest.raises(DecimalError) as caught:
        scale(number, exponent)
    assert caught.value.reason is Reason.BAD_MESSAGE


@pytest.mark.parametrize(
    ("number", "exponent"),
    [
        ("0.35135", -4),
        ("1e-9", -8),
        ("1.000000000000000000000000000001", -8),
        ("15", 1),
        ("9223372036854775808", 0),
        ("-9223372036854775808", 0),  # is record.UNDEFINED_PRICE
        ("92233720369", -8),
        ("1e19", 0),
        ("1e400", 0),
        ("99999999999999999999999999999999999999", 0),
    ],
)
def test_number_that_does_not_fit_is_refused_as_out_of_range(number: str, exponent: int) -> None:
    with pytest.raises(DecimalError) as caught:
        scale(number, exponent)
    assert caught.value.reason is Reason.VALUE_OUT_OF_RANGE


def test_error_is_the_venues_fault_and_shows_the_text() -> None:
    with pytest.raises(VenueProtocolError, match=r"'0\.123'"):
        scale("0.123", -2)


def test_error_message_stays_short_whatever_the_text() -> None:
    with pytest.raises(DecimalError) as caught:
        scale("9" * 100_000, 0)
    assert len(str(caught.value)) < 200


def test_text_of_another_type_is_our_bug() -> None:
    with pytest.raises(TypeError):
        scale(1.5, -8)  # type: ignore[arg-type]


def test_exponent_beyond_reason_is_our_bug() -> None:
    with pytest.raises(ValueError, match="exponent"):
        scale("1", -5000)


def outcome(number: str, exponent: int) -> int | None:
    """What ``scale`` must return by the rules; None if it must refuse."""
    with localcontext() as context:
        context.prec = 2000
        scaled = Decimal(number).scaleb(-exponent)
        if scaled != scaled.to_integral_value() or abs(scaled) > LARGEST:
            return None
        return int(scaled)


@given(numbers, exponents)
@example("00000000000000000000000000000000000001.5", -1)
@example("1234567890123456789", 0)
@example("123456789012345678.9", -1)
@example("18446744073709551616e-20", -20)
@example("10000000000000000000001", -8)
def test_scale_agrees_with_decimal_arithmetic(number: str, exponent: int) -> None:
    expected = outcome(number, exponent)
    if expected is None:
        with pytest.raises(DecimalError) as caught:
            scale(number, exponent)
        assert caught.value.reason is Reason.VALUE_OUT_OF_RANGE
    else:
        assert scale(number, exponent) == expected
    if expected is not None:
        assert scale(number.encode(), exponent) == expected


@given(st.text(alphabet="0123456789+-.eE \0é", max_size=12) | st.binary(max_size=12), exponents)
def test_any_text_is_scaled_exactly_or_refused(garbage: str | bytes, exponent: int) -> None:
    try:
        scaled = scale(garbage, exponent)
    except DecimalError:
        return
    shown = garbage if isinstance(garbage, str) else garbage.decode()
    assert to_decimal(scaled, exponent) == Decimal(shown)


@given(st.integers(-LARGEST, LARGEST), exponents)
def test_text_is_the_inverse_of_scale(scaled: int, exponent: int) -> None:
    assert scale(text(scaled, exponent), exponent) == scaled
    assert Decimal(text(scaled, exponent)) == to_decimal(scaled, exponent)


@pytest.mark.parametrize(
    ("scaled", "exponent", "shown"),
    [(3513, -4, "0.3513"), (0, -2, "0.00"), (-5, -1, "-0.5"), (-123456, -2, "-1234.56"), (7, 0, "7"), (15, 2, "1500")],
)
def test_text_has_as_many_decimals_as_the_exponent_says(scaled: int, exponent: int, shown: str) -> None:
    assert text(scaled, exponent) == shown


def test_decimal_is_exact_whatever_the_context_says() -> None:
    with localcontext() as context:
        context.prec = 3
        assert str(to_decimal(UNDEFINED_PRICE + 1, -8)) == "-92233720368.54775807"


PREFIX = b'{"stream":"'


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (b'{"stream":"btcusdt@trade","data":{}}', b"btcusdt@trade"),
        (b'{"stream":""', b""),
        (b'{"stream":"x', None),
        (b'{"stream":"', None),
        (b'{"stream":', None),
        (b'{"result":"x"}', None),
        (b"", None),
    ],
)
def test_text_in_quotes_after_a_prefix_is_found_if_it_is_whole(message: bytes, found: bytes | None) -> None:
    assert quoted_after(message, PREFIX) == found
