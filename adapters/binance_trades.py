"""Binance Spot, the trade channels: ``@trade``, one message per fill, and ``@aggTrade``, which merges the fills of
one taker order at one price.

Documentation (read November 2026): github.com/binance/binance-spot-api-docs, web-socket-streams.md. Integrity:
``t``, or ``a``, rises by one per instrument, over reconnects too. A missing id becomes STATUS(GAP) with the id
that was due and the one that came; ids that come again are dropped.

``binance.py`` makes one object per instrument and channel, which then decodes its messages::

    Trades(channel, unit_ns).on_message(trade, emit)
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mdring.feed.adapter import VenueProtocolError
from mdring.feed.emit import Channel, Emit
from mdring.feed.id_sequence import IdSequence, Step
from mdring.record import Aggressor, DataType, Flags, Reason, State

Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Time = Annotated[int, Meta(ge=0, le=2**63 // 1_000)]  # in ms or µs; the bound is that of µs


def to_ns(time: int, unit_ns: int) -> int:
    """The venue's time in ns. Raises VenueProtocolError for one that can only be meant in a smaller unit."""
    ns = time * unit_ns
    if ns >= 2**63:
        raise VenueProtocolError(f"a time of {time} in units of {unit_ns} ns")
    return ns


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


# ---- decode -----------------------------------------------------------------------------------------------


class Trades:
    """The fills of one instrument. ``trade_id`` and ``venue_seq`` are ``t``."""

    def __init__(self, channel: Channel, unit_ns: int) -> None:
        self._channel = channel
        self._unit_ns = unit_ns
        self._sequence = IdSequence()

    def on_message(self, trade: Trade, emit: Emit) -> Step:
        """One fill."""
        step = self._sequence.judge(trade.t)
        if step is Step.REPEAT:
            return step
        if step is Step.GAP:
            stage_gap(self._channel, self._sequence.due, trade.t, emit)
        emit.trade(
            self._channel,
            trade.p,
            trade.q,
            Aggressor.SELL if trade.m else Aggressor.BUY,
            trade.t,
            to_ns(trade.T, self._unit_ns),
            trade.t,
            Flags.RECOVERED if step is Step.LATE else 0,
        )
        emit.end()
        self._sequence.take(trade.t)
        return step


class AggTrades:
    """The aggregated trades of one instrument. ``trade_id`` is ``a``, ``venue_seq`` is ``l``: the fills are
    ``venue_seq - trade_count + 1`` to ``venue_seq``."""

    def __init__(self, channel: Channel, unit_ns: int) -> None:
        self._channel = channel
        self._unit_ns = unit_ns
        self._sequence = IdSequence()

    def on_message(self, trade: AggTrade, emit: Emit) -> Step:
        """One taker order at one price."""
        step = self._sequence.judge(trade.a)
        if step is Step.REPEAT:
            return step
        count = trade.l - trade.f + 1
        if not 0 < count < 2**32:
            raise VenueProtocolError(f"aggregated trade {trade.a} covers trades {trade.f} to {trade.l}")
        if step is Step.GAP:
            stage_gap(self._channel, self._sequence.due, trade.a, emit)
        emit.trade(
            self._channel,
            trade.p,
            trade.q,
            Aggressor.SELL if trade.m else Aggressor.BUY,
            trade.a,
            to_ns(trade.T, self._unit_ns),
            trade.l,
            Flags.AGGREGATED | Flags.RECOVERED if step is Step.LATE else Flags.AGGREGATED,
            count,
        )
        emit.end()
        self._sequence.take(trade.a)
        return step


def stage_gap(channel: Channel, due: int, found: int, emit: Emit) -> None:
    """Say in the stream which trade was due, and which one came."""
    missing = min(max(found - due, 0), 2**32 - 1)
    emit.status(channel, State.GAP, Reason.SEQUENCE_GAP, DataType.TRADE, missing, due, found)
    emit.end()
