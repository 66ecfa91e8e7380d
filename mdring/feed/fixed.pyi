"""Exact decimal text to scaled 64-bit integers. The rules stand at the top of ``fixed.pyx``."""

from decimal import Decimal

from mdring.feed.adapter import VenueProtocolError

class DecimalError(VenueProtocolError):
    """Text that is not a decimal number, or a number that the scaled 64-bit integer cannot hold exactly.

    ``reason`` is BAD_MESSAGE for the former, VALUE_OUT_OF_RANGE for the latter.
    """

def scale(text: str | bytes, exponent: int) -> int:
    """The integer ``scaled`` with ``scaled * 10**exponent`` equal to decimal ``text``.

    Raises DecimalError if the text is malformed or cannot be held exactly.
    """

def split(text: str | bytes) -> tuple[int, int]:
    """The number as (value, exponent), ``value * 10**exponent`` being equal to decimal ``text``.

    The exponent is the one nearest to 0, and never above it. Raises DecimalError.
    """

def text(value: int, exponent: int) -> str:
    """Decimal text of ``value * 10**exponent``, with ``-exponent`` digits behind the point (none if positive)."""

def to_decimal(value: int, exponent: int) -> Decimal:
    """``value * 10**exponent`` as a Decimal, exact whatever the decimal context."""

def quoted_after(message: bytes, prefix: bytes) -> bytes | None:
    """The bytes between ``prefix``, with which ``message`` begins, and the next quote; None if there are none."""

def time_ns(text: str) -> int:
    """ns since the epoch of a time of RFC 3339 in UTC, ``2023-10-06T17:35:55.440295Z`` with any number of digits.

    Digits beyond the ninth are cut. Raises DecimalError.
    """
