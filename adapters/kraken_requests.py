"""Kraken Spot v2, requests: what carries which data, how it is asked for, and what an answer says.

Documentation (read November 2026): docs.kraken.com, WebSocket v2. For ``kraken.py``::

    request = {"method": "subscribe", "params": {"channel": BOOK, **parameters(BOOK, "subscribe", 10, True), …}}
    asked[number] = Asked("subscribe", BOOK, symbols)
    refused = named(notice, asked[notice.req_id].symbols)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Raw, Struct

from mdring.record import DataType

# ---- wire schema ------------------------------------------------------------------------------------------


class Result(Struct):
    """{"channel":"book","depth":10,"snapshot":true,"symbol":"BTC/USD"}"""

    channel: str = ""
    symbol: str = ""  # none of the channel instrument


class Notice(Struct):
    """{"error":"Currency pair not supported BTC/INVALID","method":"subscribe","req_id":3,"success":false,"time_in":"2026-03-27T12:17:06.298588Z","time_out":"2026-03-27T12:17:06.298626Z"}

    Any message: answers have ``method``, all others have ``channel``.
    """  # noqa: E501

    channel: str = ""
    data: Raw = Raw()
    method: str = ""
    success: bool = True
    error: str = ""
    req_id: int | None = None
    result: Result | None = None
    symbol: str = ""


# ---- requests ---------------------------------------------------------------------------------------------

TRADE: Final = "trade"
TICKER: Final = "ticker"
BOOK: Final = "book"
INSTRUMENT: Final = "instrument"
CHANNELS: Final[Mapping[DataType, str]] = {DataType.TRADE: TRADE, DataType.BBO: TICKER, DataType.BOOK: BOOK}
DATA_TYPES: Final[Mapping[str, DataType]] = {channel: data_type for data_type, channel in CHANNELS.items()}


class Asked(Struct, frozen=True):
    """A request, and of which symbols the answer is due. The channel instrument has none: ""."""

    method: str
    channel: str
    symbols: list[str]


def parameters(channel: str, method: str, depth: int, trade_history: bool) -> dict[str, Any]:
    """What a request says besides symbols. To end a subscription, what identifies it is enough."""
    subscribes = method == "subscribe"
    match channel:
        case "trade":
            return {"snapshot": trade_history} if subscribes else {}
        case "ticker":
            return {"event_trigger": "bbo"}
        case "book":
            return {"depth": depth, **({"snapshot": True} if subscribes else {})}
    return {"snapshot": True} if subscribes else {}


# An error says only in its text which symbol it means.
_WORDS: Final = re.compile(r"[^\s,;\"'\[\]()]+")


def named(notice: Notice, symbols: Sequence[str]) -> list[str]:
    """Those of ``symbols`` that an error names."""
    words = {notice.symbol, *_WORDS.findall(notice.error)} - {""}
    return [symbol for symbol in symbols if symbol in words]
