"""Binance Spot, the trade channels: ``@trade``, one message per fill, and ``@aggTrade``, which merges the fills of
one taker order at one price.

Documentation (read November 2026): github.com/binance/binance-spot-api-docs, web-socket-streams.md. Integrity:
``t``, or ``a``, rises by one per instrument, over reconnects too. A missing id becomes STATUS(GAP) with the id
that was due and the one that came; ids that come again are dropped.

``binance.py`` makes one object per instrument and channel, which then decodes its messages::

    Trades(channel, unit_ns, counts).on_message(trade, len(payload), ts_recv, emit)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from mdring.feed.adapter import NOTHING, AdapterCounts, Request, VenueProtocolError
from mdring.feed.emit import Channel, Emit
from mdring.feed.id_sequence import IdSequence, Step
from mdring.record import Aggressor, DataType, Flags, Reason, State

# Numbers beyond 64 bits are refused when they are to be stored: OverflowError.
Id = Annotated[int, Meta(ge=0)]
Time = Annotated[int, Meta(ge=0)]  # in ms, or in µs if the connection's URL asks for it

_BUY: Final = int(Aggressor.BUY)
_SELL: Final = int(Aggressor.SELL)
_AGGREGATED: Final = int(Flags.AGGREGATED)
_RECOVERED: Final = int(Flags.RECOVERED)

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


# As ``DEPTH_FORM`` of ``binance.py``.
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
        self._counts = counts
        self.sequence = IdSequence()

    def on_message(self, trade: Trade, payload_bytes: int, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One fill."""
        number = trade.t
        sequence = self.sequence
        flags = 0
        if number != sequence.due:
            step = judge(self._channel, sequence, number, self._counts, emit)
            if step is Step.REPEAT:
                return NOTHING
            flags = _RECOVERED if step is Step.LATE else 0
        emit.trade(
            self._channel,
            trade.p,
            trade.q,
            _SELL if trade.m else _BUY,
            number,
            trade.T * self._unit_ns,
            number,
            flags,
        )
        emit.end()
        sequence.take(number)
        return NOTHING


class AggTrades:
    """The aggregated trades of one instrument. ``trade_id`` is ``a``, ``venue_seq`` is ``l``: the fills are
    ``venue_seq - trade_count + 1`` to ``venue_seq``."""

    def __init__(self, channel: Channel, unit_ns: int, counts: AdapterCounts) -> None:
        self._channel = channel
        self._unit_ns = unit_ns
        self._counts = counts
        self.sequence = IdSequence()

    def on_message(self, trade: AggTrade, payload_bytes: int, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One taker order at one price."""
        number = trade.a
        sequence = self.sequence
        flags = _AGGREGATED
        fills = trade.l - trade.f + 1
        if not 0 < fills < 2**32:
            raise VenueProtocolError(f"aggregated trade {number} covers trades {trade.f} to {trade.l}")
        if number != sequence.due:
            step = judge(self._channel, sequence, number, self._counts, emit)
            if step is Step.REPEAT:
                return NOTHING
            flags = _AGGREGATED | _RECOVERED if step is Step.LATE else _AGGREGATED
        emit.trade(
            self._channel,
            trade.p,
            trade.q,
            _SELL if trade.m else _BUY,
            number,
            trade.T * self._unit_ns,
            trade.l,
            flags,
            fills,
        )
        emit.end()
        sequence.take(number)
        return NOTHING


def judge(channel: Channel, sequence: IdSequence, number: int, counts: AdapterCounts, emit: Emit) -> Step:
    """An id other than the one due: count a repeat, say in the stream what is missing."""
    step = sequence.judge(number)
    if step is Step.REPEAT:
        counts.repeated += 1
    elif step is Step.GAP:
        counts.gaps += 1
        due = sequence.due
        missing = min(max(number - due, 0), 2**32 - 1)
        emit.status(channel, State.GAP, Reason.SEQUENCE_GAP, DataType.TRADE, missing, due, number)
        emit.end()
    return step
