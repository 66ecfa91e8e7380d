"""A venue's list of instruments, row by row, and the exponents made from its steps."""

from __future__ import annotations

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.adapter import AdapterCounts, InstrumentInfo, UnknownMessages, VenueProtocolError
from mdring.feed.instrument_rows import (
    FINEST_EXPONENT,
    FINEST_SIZE,
    decoded,
    digits_of,
    infos_of,
    price_exponent,
    size_exponent,
)

ROWS = msgspec.json.Decoder(list[msgspec.Raw])


def info(row: msgspec.Raw) -> InstrumentInfo | None:
    name = msgspec.json.decode(row, type=str)
    if name == "passed over":
        return None
    if name == "ValueError":
        raise ValueError("no such asset")
    if name == "VenueProtocolError":
        raise VenueProtocolError("no such filter")
    return InstrumentInfo(name, f"{name}-USD", -2, -2)


def test_row_that_no_record_could_be_made_for_costs_itself_alone() -> None:
    unknown = UnknownMessages(AdapterCounts())
    body = b'["A", 7, "ValueError", "passed over", "VenueProtocolError", "B"]'
    infos = infos_of(decoded(ROWS, body, "rows"), info, unknown)
    assert [one.instrument for one in infos] == ["A", "B"]
    noted = unknown.take_new()
    assert [sample for _, sample in noted] == [b"7", b'"ValueError"', b'"VenueProtocolError"']
    assert [what for what, _ in noted[1:]] == ["instrument: no such asset", "instrument: no such filter"]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'["\xff"', b"[" * 100_000])
def test_list_that_cannot_be_read_is_the_venues_fault(body: bytes) -> None:
    with pytest.raises(VenueProtocolError, match=r"^the rows: "):
        decoded(ROWS, body, "the rows")


@pytest.mark.parametrize(
    ("step", "digits"),
    [("1", 0), ("10", 0), ("0.5", -1), ("0.010", -2), ("1e-8", -8), ("0.00000001", -8), ("1E+3", 0), ("1e-18", -18)],
)
def test_digits_of_a_step_are_those_that_its_multiples_need(step: str, digits: int) -> None:
    assert digits_of(step) == digits


@pytest.mark.parametrize("step", ["", "0", "-1", "x", "1e-19", "NaN", "Infinity", "1e40"])
def test_what_is_no_step_is_refused(step: str) -> None:
    for made in (digits_of, lambda text: price_exponent(text, 2), lambda text: size_exponent(text, 2)):
        with pytest.raises(ValueError, match=r"step|number"):
            made(step)


def test_exponents_leave_room_for_more_digits_as_far_as_sizes_have_to_fit() -> None:
    assert [price_exponent(tick, 2) for tick in ("1", "0.01", "1e-17")] == [-2, -4, FINEST_EXPONENT]
    assert [size_exponent(lot, 2) for lot in ("1", "0.01", "1e-7", "1e-8", "1e-10")] == [-2, -4, FINEST_SIZE, -8, -10]


@given(st.integers(0, 18), st.integers(1, 999), st.integers(0, 6))
def test_multiples_of_the_step_are_whole(places: int, units: int, more: int) -> None:
    step = Decimal(units).scaleb(-places)
    for exponent in (price_exponent(str(step), more), size_exponent(str(step), more)):
        assert -18 <= exponent <= 0
        assert step.scaleb(-exponent) % 1 == 0
