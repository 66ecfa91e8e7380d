"""Kraken Spot v2, the channels without state of their own to keep in sync: trades, quotes, whether a pair is traded.

Documentation (read November 2026): docs.kraken.com, WebSocket v2, "Trades", "Ticker (L1)", "Status", "Instruments".
Integrity: ``trade_id`` rises by one per pair, over reconnects too. A missing one becomes STATUS(GAP), one that comes
again is dropped. A subscription brings the last 50 trades: after a reconnect they close the hole, if it is no deeper.
Quotes have no id.

Numbers are bare JSON numbers, in places quoted: they are kept as the text that came. ``kraken.py`` makes a handler per
channel and pair, which then gets its decoded messages::

    handle = quotes(channel)
    handle(push, ts_recv, emit)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Generic, Literal, TypeVar

from msgspec import Meta, Raw, Struct

from mdring.feed.adapter import NOTHING, AdapterCounts, Request, VenueProtocolError
from mdring.feed.emit import Emit
from mdring.feed.fixed import time_ns
from mdring.feed.message_route import Handler
from mdring.feed.stage import Channel
from mdring.feed.trade_sequence import TradeSequence
from mdring.record import Aggressor, DataType, Flags, Reason, State

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload.

M = TypeVar("M")


class Push(Struct, Generic[M], gc=False):
    """{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.2,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"},{"symbol":"BTC/USD","side":"sell","price":105910.5,"qty":0.0001246,"ord_type":"market","trade_id":10218209,"timestamp":"2023-10-06T17:35:55.440295Z"}]}"""

    type: Literal["snapshot", "update"]
    data: list[M]


class Trade(Struct, gc=False):
    """{"symbol":"BTC/USD","side":"buy","price":105944.2,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"}"""

    symbol: str
    side: Literal["buy", "sell"]  # the taker's
    price: Raw
    qty: Raw
    trade_id: Annotated[int, Meta(ge=0)]
    timestamp: str


class Ticker(Struct, gc=False):
    """{"symbol":"ALGO/USD","bid":0.10025,"bid_qty":740.0,"ask":0.10035,"ask_qty":740.0,"last":0.10035,"volume":997038.98383185,"vwap":0.10148,"low":0.09979,"high":0.10285,"change":-0.00017,"change_pct":-0.17,"timestamp":"2023-09-25T09:04:31.742648Z"}"""

    bid: Raw
    bid_qty: Raw
    ask: Raw
    ask_qty: Raw
    timestamp: str = ""  # older servers have none


class System(Struct):
    """{"version":"2.0.10","system":"online","api_version":"v2","connection_id":13834774380200032777}"""

    system: str


# The forms of what comes most, as the venue writes it (``feed/template.pyx``); the symbol is put in.
TRADE_FORM: Final = (
    '{"channel":"trade","type":"update","data":<rows>[{"symbol":"%s","side":"<taker>","price":<price>,"qty":<size>,'
    '"ord_type":<any>,"trade_id":<id>,"timestamp":"<utc>"}]}'
)
TICKER_FORM: Final = (
    '{"channel":"ticker","type":"update","data":[{"symbol":"%s","bid":<bid_price>,"bid_qty":<bid_size>,'
    '"ask":<ask_price>,"ask_qty":<ask_size>,"last":<any>,"volume":<any>,"vwap":<any>,"low":<any>,"high":<any>,'
    '"change":<any>,"change_pct":<any>,"timestamp":"<utc>"}]}'
)
_TAKER: Final = {"buy": int(Aggressor.BUY), "sell": int(Aggressor.SELL)}
_SNAPSHOT: Final = int(Flags.SNAPSHOT)
_HISTORY: Final = int(Flags.SNAPSHOT | Flags.RECOVERED)


def number(raw: Raw) -> bytes:
    """The text of a number, which may be quoted."""
    return bytes(raw).strip(b'"')


def number_or_none(raw: Raw) -> bytes | None:
    """The same, of a side that may be missing."""
    text = number(raw)
    return None if text == b"null" else text


def only(push: Push[M]) -> M:
    """The one row of a message."""
    if len(push.data) != 1:
        raise VenueProtocolError(f"a message of {len(push.data)} rows")
    return push.data[0]


# ---- decode -----------------------------------------------------------------------------------------------


class Trades:
    """The trades of one pair. ``trade_id`` and ``venue_seq`` are the venue's trade_id."""

    def __init__(self, channel: Channel, counts: AdapterCounts) -> None:
        self._channel = channel
        self.sequence = TradeSequence(channel, counts)

    def on_push(self, push: Push[Trade], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Trades of one or several taker orders, one event group; the oldest first."""
        flags = _HISTORY if push.type == "snapshot" else 0
        mark = self.sequence.mark()
        try:
            for trade in push.data:
                self._on_trade(trade, flags, emit)
        except (VenueProtocolError, OverflowError):
            self.sequence.rollback(mark)  # none of the message is published
            raise
        emit.end()
        return NOTHING

    def _on_trade(self, trade: Trade, flags: int, emit: Emit) -> None:
        channel, sequence, last = self._channel, self.sequence, trade.trade_id
        if trade.symbol != channel.instrument:
            raise VenueProtocolError(f"a trade of {trade.symbol} among those of {channel.instrument}")
        how = sequence.admit(last, emit, counts_repeats=not flags)  # of a snapshot they are to be expected
        if how is None:
            return
        side, ts_event, flags = _TAKER[trade.side], time_ns(trade.timestamp), flags | how
        emit.trade(channel, number(trade.price), number(trade.qty), side, last, ts_event, last, flags)
        sequence.take(last)


def quotes(channel: Channel) -> Handler:
    """The ticker: the best levels among other things. A side without orders has size 0, or null."""

    def on_push(push: Push[Ticker], ts_recv: int, emit: Emit) -> Sequence[Request]:
        one = only(push)
        emit.bbo(
            channel,
            number_or_none(one.bid),
            number_or_none(one.bid_qty),
            number_or_none(one.ask),
            number_or_none(one.ask_qty),
            time_ns(one.timestamp) if one.timestamp else 0,
            0,
            _SNAPSHOT if push.type == "snapshot" else 0,
        )
        emit.end()
        return NOTHING

    return on_push


# ---- whether a pair is traded -----------------------------------------------------------------------------

ONLINE: Final = "online"
HALTED: Final = frozenset({"maintenance", "cancel_only", "post_only", "delisted", "work_in_progress"})
"""Words, of the engine or of a pair, with which no order is matched. With others (limit_only, reduce_only) some are."""


class Trading:
    """Whether one pair is traded: as the engine is, and the pair itself. Said when it changes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._system = ONLINE
        self._status = ONLINE
        self._is_halted = False

    def on_system(self, word: str, emit: Emit) -> None:
        """The state of the engine."""
        self._system = word
        self._look(emit)

    def on_status(self, word: str, emit: Emit) -> None:
        """The state of the pair."""
        self._status = word
        self._look(emit)

    def _look(self, emit: Emit) -> None:
        word = self._status if self._system == ONLINE else self._system
        is_halted = not HALTED.isdisjoint((self._system, self._status))
        if is_halted == self._is_halted:
            return
        self._is_halted = is_halted
        state = State.HALTED if is_halted else State.TRADING
        emit.status(self._channel, state, Reason.NONE, DataType.STATUS, detail=word)
        emit.end()
