"""Trade ids of any venue as the record's 16 bytes: an integer, a UUID, or a short text.

Used by adapters of venues whose ids are text; where they are JSON integers, they go to ``emit.trade`` as they are::

    low, high, format = trade_id_of("20f43950-d8dd-5b31-9112-a178eb6023af")
    emit.trade(channel, price, size, aggressor, low, ts_event, trade_id_high=high, trade_id_format=format)

``record.trade_id`` is the way back.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from mdring.feed.adapter import VenueProtocolError
from mdring.record import TRADE_ID_BYTES, TradeIdFormat

_LOW: Final = (1 << 64) - 1
_LARGEST: Final = 1 << 128
_UUID_CHARACTERS: Final = 36
_INTEGER: Final = int(TradeIdFormat.INTEGER)
_UUID: Final = int(TradeIdFormat.UUID)
_TEXT: Final = int(TradeIdFormat.TEXT)


def trade_id_of(text: str) -> tuple[int, int, int]:
    """Low half, high half and TradeIdFormat. Raises VenueProtocolError for text that is none of the three.

    Decimal digits without a leading zero are an integer; what else is ASCII and short enough is kept as it is.
    """
    if text.isdecimal() and text.isascii() and (text[0] != "0" or text == "0"):
        number = int(text)
        if number < _LARGEST:
            return number & _LOW, number >> 64, _INTEGER
    if len(text) == _UUID_CHARACTERS:
        try:
            number = UUID(text).int
        except ValueError:
            raise VenueProtocolError(f"a trade id is {text!r}") from None
        return number & _LOW, number >> 64, _UUID
    if not text or not text.isascii() or len(text) > TRADE_ID_BYTES or "\0" in text:
        raise VenueProtocolError(f"a trade id is {text[:80]!r}")
    number = int.from_bytes(text.encode().ljust(TRADE_ID_BYTES, b"\0"), "little")
    return number & _LOW, number >> 64, _TEXT
