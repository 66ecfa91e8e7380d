"""Numbers that come as text and are neither price nor size: ids and times; and text that has to be made to fit.

For adapters. Prices and sizes go to ``Emit`` as the venue wrote them; what times in words are is ``fixed.time_ns``::

    ts_event = whole(trade.ts) * 1_000_000
    emit.open_interest(channel, without_noise(row.open_interest), ts_event)
"""

from __future__ import annotations

from typing import Final

from mdring.feed.adapter import VenueProtocolError

_LARGEST: Final = 2**63 - 1
_LARGEST_DIGITS: Final = len(str(_LARGEST))
_DIGITS_THAT_FIT: Final = 18


def whole(text: str) -> int:
    """A whole number in decimal digits, that fits in 63 bits. Raises VenueProtocolError for any other text."""
    if text.isascii() and text.isdecimal() and len(text) <= _LARGEST_DIGITS:
        number = int(text)
        if number <= _LARGEST:
            return number
    raise VenueProtocolError(f"a whole number is {text[:80]!r}")


def without_noise(text: str) -> str:
    """A number that the venue has calculated with binary fractions, 2216113.01000000309: behind the point, digits
    beyond the 18th are cut, for they say nothing and would not fit."""
    digits, point, fraction = text.partition(".")
    room = _DIGITS_THAT_FIT - len(digits)
    return f"{digits}.{fraction[:room]}" if point and room > 0 else text
