"""Binance futures, the streams: what they are called, which are never silent for long, how their messages are decoded.

Documentation (read November 2026): developers.binance.com, derivatives, USD-M futures, "Websocket Market Streams". A
stream is called ``btcusdt@depth@100ms``: the instrument, then its kind, which may have a speed. All speeds of a kind
are read, whichever is subscribed to. For ``binance_usdm.py``::

    kind = with_speed("depth", "100ms")
    topics[stream_name("BTCUSDT", kind)] = Topic(kind, book.on_message, channel, DataType.BOOK, book)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from mdring.adapters.binance_usdm_book import DepthUpdate, FuturesBook
from mdring.adapters.binance_usdm_channels import AggTrade, BookTicker, ContractInfo, ForceOrder, MarkUpdate, Trade
from mdring.feed.adapter import NOTHING, Request, VenueProtocolError
from mdring.feed.emit import Emit
from mdring.feed.message_route import Decode, Handler, MessageRoute
from mdring.feed.stage import Channel
from mdring.record import DataType

# ---- names ------------------------------------------------------------------------------------------------

PUBLIC: Final = "public"
MARKET: Final = "market"
UNROUTED: Final = ""
"""Routes: the paths of 2026, and none."""
USUAL_SPEED: Final = {"depth": "250ms", "markPrice": "3s"}
OTHER_NAMES: Final = {
    "depth": ("depth", "depth@100ms", "depth@500ms"),
    "markPrice": ("markPrice", "markPrice@1s"),
}
"""Kinds of stream, by their kind without speed: all are read, whichever is subscribed to."""


def with_speed(kind: str, speed: str) -> str:
    """What a kind of stream is called at this speed."""
    return kind if speed == USUAL_SPEED[kind] else f"{kind}@{speed}"


def stream_name(instrument: str, kind: str) -> str:
    """Upper-case symbols would be acknowledged and silent."""
    return f"{instrument.lower()}@{kind}"


CONTRACT_INFO: Final = "!contractInfo"  # of all instruments at once
STEADY: Final = {PUBLIC: "bookTicker", MARKET: "markPrice@1s", UNROUTED: "markPrice@1s"}
"""By route: what is never silent for long; listened to on a connection that would have nothing of the kind."""
IS_STEADY: Final = ("@depth", "@bookTicker", "@markPrice")
"""What the names of such streams have in them."""


# ---- decode -----------------------------------------------------------------------------------------------

M = TypeVar("M")


class Combined(Struct, Generic[M], gc=False):
    """{"stream":"btcusdt@trade","data":{"e":"trade","E":1785685177439,"T":1785685177439,"s":"BTCUSDT","t":7947325360,"p":"63113.20","q":"0.001","X":"MARKET","m":false,"st":1}}"""

    data: M


DECODERS: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    "aggTrade": msgspec.json.Decoder(Combined[AggTrade]),
    "trade": msgspec.json.Decoder(Combined[Trade]),
    "bookTicker": msgspec.json.Decoder(Combined[BookTicker]),
    "depth": msgspec.json.Decoder(Combined[DepthUpdate]),
    "markPrice": msgspec.json.Decoder(Combined[MarkUpdate]),
    "forceOrder": msgspec.json.Decoder(Combined[ForceOrder]),
    CONTRACT_INFO: msgspec.json.Decoder(Combined[ContractInfo]),
}
"""By kind of stream, its speed left away."""


def decode_of(kind: str, symbol: str | None) -> Decode:
    """How the messages of a stream are decoded, with their envelope; all must be of this symbol, if there is one."""
    decoder = DECODERS[kind.partition("@")[0]]

    def decode(message: bytes) -> Any:
        data = decoder.decode(message).data
        if data.s != symbol and symbol is not None:
            raise VenueProtocolError(f"a message of {data.s!r}")
        return data

    return decode


# ---- what is subscribed to --------------------------------------------------------------------------------


def pass_over(message: Any, ts_recv: int, emit: Emit) -> Sequence[Request]:
    """Of a stream that only shows that the connection lives."""
    return NOTHING


class Topic:
    """One stream that is subscribed to."""

    def __init__(
        self, kind: str, handle: Handler, channel: Channel, data_type: DataType, book: FuturesBook | None = None
    ) -> None:
        self.channel = channel
        self.data_type = data_type
        self.book = book
        symbol = None if kind == CONTRACT_INFO else channel.instrument
        self.route = MessageRoute(decode_of(kind, symbol), handle, symbol, data_type)
