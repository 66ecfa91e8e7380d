"""Bybit v5, the topics beside the book: trades, quotes, and what contracts tell besides.

Documentation (read November 2026): bybit-exchange.github.io/docs/v5, "Websocket Stream", public: Trade, Orderbook
(level 1), Ticker, All Liquidation. Integrity: none. Trades are not numbered; quotes are whole; a delta of a ticker
names what has changed, and that one is missing does not show.

``bybit.py`` makes a handler per topic, which then gets its decoded messages::

    handler = Quotes(channel)
    handler.on_connect()                    # the connection is new: what was known is of another one
    handler.on_push(push, ts_recv, emit)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

from msgspec import Meta, Struct, field, structs

from mdring.adapters.bybit_metadata import SPOT
from mdring.feed import fixed
from mdring.feed.adapter import NOTHING, Request, VenueProtocolError
from mdring.feed.chain import Chain
from mdring.feed.emit import Emit
from mdring.feed.number_text import whole
from mdring.feed.stage import Channel
from mdring.feed.trade_id import trade_id_of
from mdring.record import Aggressor, DataType

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload. Prices, sizes and rates are text; times of messages numbers, of tickers text.

M = TypeVar("M")
Whole = Annotated[int, Meta(ge=0)]
BuyOrSell = Literal["Buy", "Sell"]


class Push(Struct, Generic[M], gc=False):
    """{"topic":"orderbook.50.AAPLUSDT","type":"delta","ts":1790134716101,"data":{"s":"AAPLUSDT","b":[["340.82","3.37"]],"a":[],"u":29443257,"seq":301632783305},"cts":1790134716094}"""

    type: Literal["snapshot", "delta"]
    ts: Whole  # ms, of sending
    data: M
    cts: Whole = 0  # ms, of the match; of books only
    cs: Whole = 0  # of tickers only; the count that others call seq

    def matched_ns(self) -> int:
        """When the matching engine made it."""
        return (self.cts or self.ts) * MS


class Trade(Struct, gc=False):
    """{"T":1672304486865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,"RPI":false,"seq":1783284617}"""

    time: Whole = field(name="T")
    side: BuyOrSell = field(name="S")  # of the taker
    size: str = field(name="v")
    price: str = field(name="p")
    id: str = field(name="i")
    seq: Whole = 0


class Quote(Struct, gc=False):
    """{"s":"BTCUSDT","b":[["78716.30","0.306"]],"a":[],"u":173678160,"seq":814547787693}"""

    bids: list[tuple[str, str]] = field(name="b")
    asks: list[tuple[str, str]] = field(name="a")
    update_id: Whole = field(name="u")
    seq: Whole = 0


class Ticker(Struct, gc=False):
    """{"symbol":"BTCUSDT","markPrice":"86716.30","indexPrice":"86756.70","openInterestValue":"5250990127.10","singleOpenInterestValue":"2625495106.91"}

    A key that is missing says that its value is what it was; "" that there is none.
    """

    mark: str | None = field(name="markPrice", default=None)
    index: str | None = field(name="indexPrice", default=None)
    rate: str | None = field(name="fundingRate", default=None)
    funding_at: str | None = field(name="nextFundingTime", default=None)  # ms
    funding_hours: str | None = field(name="fundingIntervalHour", default=None)
    both_sides: str | None = field(name="openInterest", default=None)
    both_sides_value: str | None = field(name="openInterestValue", default=None)
    one_side: str | None = field(name="singleOpenInterest", default=None)  # since June 2026
    one_side_value: str | None = field(name="singleOpenInterestValue", default=None)


class Liquidation(Struct, gc=False):
    """{"T":1739502302929,"s":"ROSEUSDT","S":"Sell","v":"20000","p":"0.04499"}"""

    time: Whole = field(name="T")
    side: BuyOrSell = field(name="S")  # of the position: Buy is a long
    size: str = field(name="v")
    bankruptcy_price: str = field(name="p")


# The forms of what comes most, as the venue writes it (``feed/template.pyx``); the symbol is put in, and the head.
TRADES_FORM: Final = (
    '{"topic":"publicTrade.%s",%s,"data":<rows>[<members>{"T":<time>,"s":<any>,"S":"<Taker>","v":"<size>",'
    '"p":"<price>","L":<maybe>,"i":"<text_id>","BT":<maybe>,"RPI":<maybe>,"seq":<last>}]}'
)
QUOTE_FORM: Final = (
    '{"topic":"orderbook.1.%s",%s,"data":{"s":<any>,"b":[["<bid_price>","<bid_size>"]],'
    '"a":[["<ask_price>","<ask_size>"]],"u":<number>,"seq":<last>},"cts":<time>}'
)


def head_of(category: str, kind: str) -> str:
    """What stands behind the topic of a snapshot or a delta, in a form."""
    return f'"ts":<whole>,"type":"{kind}"' if category == SPOT else f'"type":"{kind}","ts":<whole>'


MS: Final = 1_000_000  # ns
HOUR: Final = 3_600_000_000_000  # ns
AGAIN_NS: Final = 60_000_000_000
_TAKER: Final = {"Buy": int(Aggressor.BUY), "Sell": int(Aggressor.SELL)}
_CLOSES: Final = {"Buy": int(Aggressor.SELL), "Sell": int(Aggressor.BUY)}
_FUNDING: Final = ("rate", "funding_at", "funding_hours")
_OPEN_INTEREST: Final = ("both_sides", "both_sides_value", "one_side", "one_side_value")


def whole_or_none(text: str | None) -> int:
    """A whole number; 0 for none."""
    return whole(text) if text else 0


def half(text: str) -> str:
    """Half of a decimal number, exactly."""
    value, exponent = fixed.split(text)
    return fixed.text(value * 5, exponent - 1)


# ---- decode -----------------------------------------------------------------------------------------------


class TopicHandler(ABC):
    """Makes records of the messages of one topic."""

    @abstractmethod
    def on_push(self, push: Any, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One decoded message."""

    def on_connect(self) -> None:  # noqa: B027 (most know nothing that they could forget)
        """The topic is subscribed to on a new connection."""


class Trades(TopicHandler):
    """publicTrade. ``type`` is always snapshot and means nothing: what comes has just been traded."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.ids = Chain()  # tell no order
        self.ids.live = True

    def on_push(self, push: Push[list[Trade]], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Fills of one moment, an event group."""
        channel = self._channel
        for fill in push.data:
            low, high, form = trade_id_of(fill.id)
            emit.trade(
                channel, fill.price, fill.size, _TAKER[fill.side], low, fill.time * MS, fill.seq,
                trade_id_high=high, trade_id_format=form,
            )  # fmt: skip
        emit.end()
        return NOTHING


class Quotes(TopicHandler):
    """orderbook.1: the best levels, a side of none or one. After 3 s without change the last message comes again."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.ids = Chain()
        self.ids.live = True
        self.on_connect()

    def on_connect(self) -> None:
        """The first quote counts, whatever was known."""
        self.ids.last = -1

    def on_push(self, push: Push[Quote], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A whole quote. Ids begin again with 1 when the venue has restarted."""
        quote = push.data
        if push.type != "snapshot":
            raise VenueProtocolError("a quote is a delta")
        if quote.update_id == self.ids.last != 1:
            return NOTHING
        bid = quote.bids[0] if quote.bids else (None, None)
        ask = quote.asks[0] if quote.asks else (None, None)
        emit.bbo(self._channel, bid[0], bid[1], ask[0], ask[1], push.matched_ns(), quote.seq)
        emit.end()
        self.ids.last = quote.update_id
        return NOTHING


class Tickers(TopicHandler):
    """tickers of a contract: mark and index price, funding, open interest; whole at first, then what changes.

    Each record holds all that is known of its kind, also what the message left out because it is as before.
    """

    def __init__(self, channel: Channel, wanted: Container[DataType]) -> None:
        self._channel = channel
        self._wants_mark = DataType.MARK in wanted
        self._wants_funding = DataType.FUNDING in wanted
        self._wants_open_interest = DataType.OPEN_INTEREST in wanted
        self._known: Ticker | None = None  # None: until the snapshot has come a delta says nothing
        self._begun_ns = -AGAIN_NS

    def on_connect(self) -> None:
        """What was known is out of date."""
        self._known = None

    def may_begin_anew(self, now_ns: int) -> bool:
        """Whether the topic may be subscribed to anew, for the sake of a snapshot; not more than once a minute."""
        if now_ns - self._begun_ns < AGAIN_NS:
            return False
        self._begun_ns = now_ns
        self._known = None
        return True

    def on_push(self, push: Push[Ticker], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Records of those kinds of which the message brings something."""
        told = push.data
        if push.type == "snapshot":
            known = told
        elif self._known is None:
            return NOTHING
        else:
            changed = {name: value for name, value in structs.asdict(told).items() if value is not None}
            known = structs.replace(self._known, **changed)
        ts_event = push.ts * MS
        if self._wants_mark and (told.mark or told.index):
            emit.mark_price(self._channel, known.mark or None, known.index or None, ts_event, push.cs)
            emit.end()
        if self._wants_funding and known.rate and _tells(told, _FUNDING):
            self._stage_funding(known, known.rate, ts_event, push.cs, emit)
        if self._wants_open_interest and _tells(told, _OPEN_INTEREST):
            self._stage_open_interest(known, ts_event, push.cs, emit)
        self._known = known
        return NOTHING

    def _stage_funding(self, known: Ticker, rate: str, ts_event: int, venue_seq: int, emit: Emit) -> None:
        emit.funding(
            self._channel,
            rate,
            whole_or_none(known.funding_at) * MS,
            ts_event,
            interval_ns=whole_or_none(known.funding_hours) * HOUR,
            venue_seq=venue_seq,
        )
        emit.end()

    def _stage_open_interest(self, known: Ticker, ts_event: int, venue_seq: int, emit: Emit) -> None:
        """One side. Where the venue counts both only, that is half of it."""
        size, value = known.one_side, known.one_side_value
        if not size and known.both_sides:
            size = half(known.both_sides)
        if not value and known.both_sides_value:
            value = half(known.both_sides_value)
        if size:
            emit.open_interest(self._channel, size, ts_event, value or None, venue_seq)
            emit.end()


def _tells(ticker: Ticker, names: Sequence[str]) -> bool:
    return any(getattr(ticker, name) for name in names)


class Liquidations(TopicHandler):
    """allLiquidation: every one, told each 500 ms."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def on_push(self, push: Push[list[Liquidation]], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Positions that were closed by force, an event group. Who closes a long sells."""
        for one in push.data:
            emit.liquidation(self._channel, one.bankruptcy_price, one.size, _CLOSES[one.side], one.time * MS)
        emit.end()
        return NOTHING
