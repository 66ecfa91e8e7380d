"""OKX v5, the channels without state of their own to keep in sync: trades, quotes, and what contracts tell besides.

Documentation (read November 2026): okx.com/docs-v5. Integrity: ``tradeId`` is the last of ``count`` merged fills, so
``tradeId - count`` is the id before; a missing one becomes STATUS(GAP), one that comes again is dropped.

``okx.py`` makes a handler per topic, which then gets its decoded messages::

    handle = quotes(channel)
    handle(push, ts_recv, emit)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Generic, Literal, TypeVar

from msgspec import Meta, Struct, field

from mdring.feed.adapter import NOTHING, AdapterCounts, Request, VenueProtocolError
from mdring.feed.chain import Chain
from mdring.feed.emit import Emit
from mdring.feed.message_route import Handler
from mdring.feed.number_text import whole, without_noise
from mdring.feed.stage import Channel
from mdring.feed.trade_sequence import TradeSequence
from mdring.record import Aggressor, Flags

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload. Whole numbers, but for the sequence ids, come as text.

M = TypeVar("M")
SeqId = Annotated[int, Meta(ge=0)]
TakerSide = Literal["buy", "sell"]


class Push(Struct, Generic[M], gc=False):
    """{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"338476307","px":"30236","sz":"0.0002","side":"buy","ts":"1652459224818"}]}"""

    data: list[M]
    action: str = ""  # of books: snapshot or update


class Trade(Struct, gc=False):
    """{"instId":"BTC-USDT-SWAP","tradeId":"2978601964","px":"83725.9","sz":"5","side":"buy","ts":"1791369350776","count":"1","source":"0","seqId":344430848209}"""

    trade_id: str = field(name="tradeId")
    px: str
    sz: str
    side: TakerSide
    ts: str
    count: str = ""  # absent in old recordings: a fill each
    seq_id: SeqId = field(name="seqId", default=0)


class Quote(Struct, gc=False):
    """{"asks":[["13643522","0.03682508","0","2"]],"bids":[["13615496","0.03452263","0","2"]],"ts":"1790133525304","seqId":27270896}"""

    asks: list[tuple[str, str, str, str]]
    bids: list[tuple[str, str, str, str]]
    ts: str
    seq_id: SeqId = field(name="seqId", default=0)


class Ticker(Struct, gc=False):
    """{"instType":"FUTURES","instId":"BTC-USD-220527","last":"30218.8","lastSz":"1","askPx":"30220.1","askSz":"3","bidPx":"30210.4","bidSz":"4","open24h":"29571.4","high24h":"31003.3","low24h":"27930.8","sodUtc0":"28935.3","sodUtc8":"30320.5","volCcy24h":"2620.289","vol24h":"779573","ts":"1652459223003"}"""

    ask_px: str = field(name="askPx")
    ask_sz: str = field(name="askSz")
    bid_px: str = field(name="bidPx")
    bid_sz: str = field(name="bidSz")
    ts: str


class Mark(Struct, gc=False):
    """{"instId":"BTC-USDT-SWAP","instType":"SWAP","markPx":"83679.8","ts":"1790358817778"}"""

    price: str = field(name="markPx")
    ts: str


class Index(Struct, gc=False):
    """{"instId":"BTC-USDT","idxPx":"83700.1","high24h":"85258.8","low24h":"83174.7","open24h":"84180.1","sodUtc0":"84409.9","sodUtc8":"83800","ts":"1790358817778"}"""

    price: str = field(name="idxPx")
    ts: str


class Funding(Struct, gc=False):
    """{"formulaType":"withRate","fundingRate":"0.0000263463215391","fundingTime":"1790380800000","instId":"BTC-USDT-SWAP","instType":"SWAP","method":"current_period","nextFundingRate":"","nextFundingTime":"1790409600000","prevFundingTime":"1790352000000","ts":"1790358563915"}"""

    rate: str = field(name="fundingRate")
    at: str = field(name="fundingTime")
    ts: str
    next_rate: str = field(name="nextFundingRate", default="")
    previous_at: str = field(name="prevFundingTime", default="")


class OpenInterest(Struct, gc=False):
    """{"instId":"BTC-USDT-SWAP","instType":"SWAP","oi":"2216113.01000000309","oiCcy":"22161.1301000000309","oiUsd":"1939251795.54769270396321","ts":"1743041250440"}"""

    contracts: str = field(name="oi")
    ts: str


class LiquidationDetail(Struct, gc=False):
    """{"bkLoss":"0","bkPx":"0.007831","ccy":"","posSide":"short","side":"buy","sz":"13","ts":"1692266434010"}"""

    bankruptcy_price: str = field(name="bkPx")
    side: TakerSide
    sz: str
    ts: str


class Liquidation(Struct):
    """{"details":[{"bkLoss":"0","bkPx":"0.007831","ccy":"","posSide":"short","side":"buy","sz":"13","ts":"1692266434010"}],"instFamily":"IOST-USDT","instId":"IOST-USDT-SWAP","instType":"SWAP","uly":"IOST-USDT"}"""

    inst_id: str = field(name="instId")
    details: list[LiquidationDetail]


_TAKER: Final = {"buy": int(Aggressor.BUY), "sell": int(Aggressor.SELL)}
_AGGREGATED: Final = int(Flags.AGGREGATED)
MS: Final = 1_000_000  # ns


def time_ns(text: str) -> int:
    """A time, which is told in ms."""
    return whole(text) * MS


# ---- decode -----------------------------------------------------------------------------------------------


class Trades:
    """The trades of one instrument."""

    def __init__(self, channel: Channel, counts: AdapterCounts) -> None:
        self._channel = channel
        self.sequence = TradeSequence(channel, counts)

    def on_push(self, push: Push[Trade], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Fills of one taker order at one price, merged; an event group each."""
        for trade in push.data:
            self._on_trade(trade, emit)
        return NOTHING

    def _on_trade(self, trade: Trade, emit: Emit) -> None:
        sequence, last = self.sequence, whole(trade.trade_id)
        count = whole(trade.count or "1")
        first = last - count + 1
        if first < 0 or not 0 < count < 2**32:
            raise VenueProtocolError(f"trade {last} merges {count}")
        flags = sequence.admit(first, emit)
        if flags is None:
            return
        if trade.count:
            flags |= _AGGREGATED
        ts_event = time_ns(trade.ts)
        emit.trade(self._channel, trade.px, trade.sz, _TAKER[trade.side], last, ts_event, trade.seq_id, flags, count)
        emit.end()
        sequence.take(first)
        sequence.due = max(sequence.due, last + 1)


def quotes(channel: Channel, ids: Chain) -> Handler:
    """bbo-tbt: the best levels, each a side of none or one. ``ids`` are those of the direct route: a seqId may fall."""

    def on_push(push: Push[Quote], ts_recv: int, emit: Emit) -> Sequence[Request]:
        for quote in push.data:
            bid = quote.bids[0] if quote.bids else (None, None)
            ask = quote.asks[0] if quote.asks else (None, None)
            emit.bbo(channel, bid[0], bid[1], ask[0], ask[1], time_ns(quote.ts), quote.seq_id)
            emit.end()
            ids.last = quote.seq_id or -1
        return NOTHING

    return on_push


def tickers(channel: Channel) -> Handler:
    """tickers: the best levels among other things."""

    def on_push(push: Push[Ticker], ts_recv: int, emit: Emit) -> Sequence[Request]:
        for one in push.data:
            emit.bbo(
                channel, one.bid_px or None, one.bid_sz or None, one.ask_px or None, one.ask_sz or None, time_ns(one.ts)
            )
            emit.end()
        return NOTHING

    return on_push


def marks(channel: Channel) -> Handler:
    """mark-price."""

    def on_push(push: Push[Mark], ts_recv: int, emit: Emit) -> Sequence[Request]:
        for mark in push.data:
            emit.mark_price(channel, mark.price, None, time_ns(mark.ts))
            emit.end()
        return NOTHING

    return on_push


def indices(channels: Sequence[Channel]) -> Handler:
    """index-tickers, for all instruments that follow the index."""

    def on_push(push: Push[Index], ts_recv: int, emit: Emit) -> Sequence[Request]:
        for index in push.data:
            for channel in channels:
                emit.mark_price(channel, None, index.price, time_ns(index.ts))
                emit.end()
        return NOTHING

    return on_push


def fundings(channel: Channel) -> Handler:
    """funding-rate. The rate is paid at fundingTime, for the time since prevFundingTime."""

    def on_push(push: Push[Funding], ts_recv: int, emit: Emit) -> Sequence[Request]:
        for funding in push.data:
            at_ns = time_ns(funding.at)
            interval_ns = at_ns - time_ns(funding.previous_at) if funding.previous_at else 0
            emit.funding(
                channel,
                funding.rate,
                at_ns,
                time_ns(funding.ts),
                predicted_rate=funding.next_rate or None,
                interval_ns=max(interval_ns, 0),
            )
            emit.end()
        return NOTHING

    return on_push


def open_interests(channel: Channel) -> Handler:
    """open-interest, in contracts."""

    def on_push(push: Push[OpenInterest], ts_recv: int, emit: Emit) -> Sequence[Request]:
        for one in push.data:
            emit.open_interest(channel, without_noise(one.contracts), time_ns(one.ts))
            emit.end()
        return NOTHING

    return on_push


def liquidations(channels: Mapping[str, Channel]) -> Handler:
    """liquidation-orders of a whole type; those of other instruments are passed over."""

    def on_push(push: Push[Liquidation], ts_recv: int, emit: Emit) -> Sequence[Request]:
        for liquidation in push.data:
            channel = channels.get(liquidation.inst_id)
            if channel is None:
                continue
            for detail in liquidation.details:
                side, ts_event = _TAKER[detail.side], time_ns(detail.ts)
                emit.liquidation(channel, detail.bankruptcy_price, detail.sz, side, ts_event)
                emit.end()
        return NOTHING

    return on_push
