"""Binance Spot, the trade channels: ``@trade``, one message per fill, and ``@aggTrade``, which merges the fills of
one taker order at one price.

Documentation (read November 2026): github.com/binance/binance-spot-api-docs, web-socket-streams.md. Integrity:
``t``, or ``a``, rises by one per instrument, over reconnects too. A missing id becomes STATUS(GAP) with the id
that was due and the one that came; ids that come again are dropped.

``binance.py`` makes one object per instrument and channel, which then decodes its messages::

    Trades(channel, unit_ns, counts).on_message(trade, ts_recv, emit)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from mdring.feed.adapter import NOTHING, AdapterCounts, Request, VenueProtocolError
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.feed.trade_sequence import TradeSequence
from mdring.record import Aggressor, Flags

# Numbers beyond 64 bits are refused when they are to be stored: OverflowError.
Id = Annotated[int, Meta(ge=0)]
Time = Annotated[int, Meta(ge=0)]  # in ms, or in µs if the connection's URL asks for it

_BUY: Final = int(Aggressor.BUY)
_SELL: Final = int(Aggressor.SELL)
_AGGREGATED: Final = int(Flags.AGGREGATED)

# ---- wire schema ------------------------------------------------------------------------------------------


class Trade(Struct, gc=False):
    """{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782136,"m":true,"M":true}"""

    s: str
    t: Id
    p: str
    q: str
    T: Time
    m: bool  # the buyer is the maker, so the taker sold


class AggTrade(Struct, gc=False):
    """{"e":"aggTrade","E":1633998523963,"s":"NKNUSDT","a":15683430,"p":"0.35280000","q":"58.00000000","f":19862790,"l":19862790,"T":1633998523963,"m":false,"M":true}"""

    s: str
    a: Id
    p: str
    q: str
    f: Id  # first fill
    l: Id  # last fill  # noqa: E741
    T: Time
    m: bool


# As ``BOOK_TICKER_FORM`` of ``binance.py``.
TRADE_FORM: Final = (
    '{"stream":"%s","data":{"e":"trade","E":<any>,"s":"%s","t":<id>,"p":"<price>","q":"<size>","T":<time>,'
    '"m":<buyer_is_maker>,"M":true}}'
)
AGG_TRADE_FORM: Final = (
    '{"stream":"%s","data":{"e":"aggTrade","E":<any>,"s":"%s","a":<id>,"p":"<price>","q":"<size>","f":<first_fill>,'
    '"l":<last_fill>,"T":<time>,"m":<buyer_is_maker>,"M":true}}'
)

# ---- decode -----------------------------------------------------------------------------------------------


class Trades:
    """The fills of one instrument. ``trade_id`` and ``venue_seq`` are ``t``."""

    def __init__(self, channel: Channel, unit_ns: int, counts: AdapterCounts) -> None:
        self._channel = channel
        self._unit_ns = unit_ns
        self.sequence = TradeSequence(channel, counts)

    def on_message(self, trade: Trade, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One fill."""
        number = trade.t
        flags = self.sequence.admit(number, emit)
        if flags is None:
            return NOTHING
        side, ts_event = _SELL if trade.m else _BUY, trade.T * self._unit_ns
        emit.trade(self._channel, trade.p, trade.q, side, number, ts_event, number, flags)
        emit.end()
        self.sequence.take(number)
        return NOTHING


class AggTrades:
    """The aggregated trades of one instrument. ``trade_id`` is ``a``, ``venue_seq`` is ``l``: the fills are
    ``venue_seq - trade_count + 1`` to ``venue_seq``."""

    def __init__(self, channel: Channel, unit_ns: int, counts: AdapterCounts) -> None:
        self._channel = channel
        self._unit_ns = unit_ns
        self.sequence = TradeSequence(channel, counts)

    def on_message(self, trade: AggTrade, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One taker order at one price."""
        number = trade.a
        fills = trade.l - trade.f + 1
        if not 0 < fills < 2**32:
            raise VenueProtocolError(f"aggregated trade {number} covers trades {trade.f} to {trade.l}")
        flags = self.sequence.admit(number, emit)
        if flags is None:
            return NOTHING
        side, ts_event = _SELL if trade.m else _BUY, trade.T * self._unit_ns
        emit.trade(self._channel, trade.p, trade.q, side, number, ts_event, trade.l, flags | _AGGREGATED, fills)
        emit.end()
        self.sequence.take(number)
        return NOTHING
