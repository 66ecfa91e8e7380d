"""The rows of a venue's list of instruments: read, and made into metadata one by one.

For adapters, in ``on_metadata``. A row that no record could be made for costs itself alone::

    answer = decoded(_ANSWER, response.body, "instruments")
    return infos_of(answer.rows, lambda raw: instrument_info(_ROW.decode(raw)), unknown)

Exponents of prices and sizes are made from the venue's steps. Most venues' own prices may be finer than the step of new
orders, so that many digits more are asked for; what they are for, each adapter says::

    price_exponent=price_exponent(row.tick, MORE_DIGITS), size_exponent=size_exponent(row.lot, MORE_DIGITS)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Final, TypeVar

import msgspec

from mdring.feed.adapter import UNREADABLE, InstrumentInfo, UnknownMessages, VenueProtocolError
from mdring.symbol import plain_decimal

List = TypeVar("List")
Row = TypeVar("Row")

FINEST_EXPONENT: Final = -18
FINEST_SIZE: Final = -8
"""A size has no more digits than these, unless its lot does: whole supplies of cheap coins have to fit."""


def decoded(decoder: msgspec.json.Decoder[List], body: bytes, what: str) -> List:
    """The list, called ``what`` in the message of the VenueProtocolError that is raised if it cannot be read."""
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        raise VenueProtocolError(f"{what}: {error}") from error


def infos_of(
    rows: Iterable[Row], make: Callable[[Row], InstrumentInfo | None], unknown: UnknownMessages
) -> list[InstrumentInfo]:
    """The metadata of all rows of which ``make`` makes any; it may pass one over with None.

    A row for which it raises, be it ValueError, VenueProtocolError or what decoding raises, is noted and left out.
    """
    infos = []
    for row in rows:
        try:
            info = make(row)
        except (*UNREADABLE, ValueError, VenueProtocolError) as error:
            unknown.note(f"instrument: {error}", msgspec.json.encode(row))
        else:
            if info is not None:
                infos.append(info)
    return infos


def digits_of(step: str) -> int:
    """The exponent with which multiples of ``step`` are whole numbers, at most 0. Raises ValueError."""
    number = Decimal(plain_decimal(step))
    exponent = number.as_tuple().exponent
    if number <= 0 or not isinstance(exponent, int) or exponent < FINEST_EXPONENT:
        raise ValueError(f"a step is {step!r}")
    return min(exponent, 0)


def price_exponent(tick: str, more_digits: int) -> int:
    """That of prices which may be finer than multiples of ``tick`` by so many digits. Raises ValueError."""
    return max(digits_of(tick) - more_digits, FINEST_EXPONENT)


def size_exponent(lot: str, more_digits: int) -> int:
    """That of sizes which may be finer than multiples of ``lot`` by so many digits. Raises ValueError."""
    digits = digits_of(lot)
    return min(digits, max(digits - more_digits, FINEST_SIZE))
