"""Binance futures, what is no book: trades, best bid and ask, mark prices and funding, liquidations, open interest.

Documentation (read November 2026): developers.binance.com, derivatives, USD-M futures, "Websocket Market Streams".

* ``@aggTrade``: the fills of one taker order at one price, within 100 ms. ``a`` rises by one per instrument, over
  reconnects too; a missing one becomes STATUS(GAP). The size is ``q``, with those fills that met retail-only orders;
  ``nq``, without them, is not kept.
* ``@trade``: a fill a message, ``t`` rises by one. ``X`` is what kind of fill: MARKET, RPI (against a retail-only
  order, which no book shows), and INSURANCE_FUND, ADL, NA (a placeholder of size 0): those three are nobody's trade on
  the market, so only their ids are taken.
* ``@bookTicker``: ``u`` is an id of the same count as the book's, and never falls.
* ``@markPrice``: comes every second or third one, whether or not something has changed; of the funding rate in it, the
  changes are told. A dated contract has none: ``r`` is "", ``T`` is 0.
* ``@forceOrder``: the largest liquidation of an instrument within a second, so a sample. The size is that of the order.
* ``!contractInfo``: a contract of whatever name is listed, halted, settled or has other margin rules.
* Open interest comes by REST only, so it is asked for again and again.

``binance_usdm.py`` makes one object per instrument and channel, which then gets its decoded messages::

    AggTrades(channel, counts).on_message(trade, ts_recv, emit)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from mdring.feed.adapter import (
    NOTHING,
    AdapterCounts,
    Fetch,
    Rejected,
    Request,
    Response,
    UnknownMessages,
    VenueProtocolError,
)
from mdring.feed.emit import Emit
from mdring.feed.rising_ids import RisingIds
from mdring.feed.snapshot_book import pause_s
from mdring.feed.stage import Channel
from mdring.feed.trade_sequence import TradeSequence
from mdring.record import Aggressor, DataType, Flags, Reason, State

# Numbers beyond 64 bits are refused when they are to be stored: OverflowError.
Id = Annotated[int, Meta(ge=0)]
Time = Annotated[int, Meta(ge=0)]  # in ms

MS: Final = 1_000_000  # ns
SECOND: Final = 1_000_000_000
HOUR_NS: Final = 3_600 * SECOND

_BUY: Final = int(Aggressor.BUY)
_SELL: Final = int(Aggressor.SELL)
_AGGREGATED: Final = int(Flags.AGGREGATED)

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; the fields that are kept are named as the venue names them.


class AggTrade(Struct, gc=False):
    """{"e":"aggTrade","E":1771263510195,"a":3141966230,"s":"BTCUSDT","p":"68005.00","q":"2.695","nq":"2.695","f":7297376181,"l":7297376207,"T":1771263510041,"m":true}"""

    s: str
    a: Id
    p: str
    q: str
    f: Id  # first fill
    l: Id  # last fill  # noqa: E741
    T: Time
    m: bool  # the buyer is the maker, so the taker sold


class Trade(Struct, gc=False):
    """{"e":"trade","E":1785685177439,"T":1785685177439,"s":"BTCUSDT","t":7947325360,"p":"63113.20","q":"0.001","X":"MARKET","m":false,"st":1}"""

    s: str
    t: Id
    p: str
    q: str
    T: Time
    m: bool
    X: str = "MARKET"


class BookTicker(Struct, gc=False):
    """{"e":"bookTicker","u":11331904350110,"s":"BTCUSDT","ps":"BTCUSDT","b":"72009.00","B":"3.065","a":"72009.10","A":"2.180","T":1787231293915,"E":1787231293915,"st":1}"""

    u: Id
    s: str
    b: str
    B: str
    a: str
    A: str
    T: Time


class MarkUpdate(Struct, gc=False):
    """{"e":"markPriceUpdate","E":1789461999000,"s":"BTCUSDT","p":"76888.10000000","ap":"76888.10000000","P":"77018.80267750","i":"76935.00826087","r":"0.00008900","T":1789488000000,"st":1}"""

    E: Time
    s: str
    p: str
    i: str = ""
    r: str = ""
    T: Time = 0  # when the rate is paid


class LiquidationOrder(Struct, gc=False):
    """{"s":"STGUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"5","p":"0.1336000","ap":"0.1355000","X":"FILLED","l":"5","z":"5","T":1786172556607,"ps":"STGUSDT","st":1}"""

    s: str
    S: Literal["BUY", "SELL"]
    q: str
    p: str
    ap: str
    T: Time


class ForceOrder(Struct, gc=False):
    """{"e":"forceOrder","E":1786172557615,"o":{"s":"STGUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"5","p":"0.1336000","ap":"0.1355000","X":"FILLED","l":"5","z":"5","T":1786172556607,"ps":"STGUSDT","st":1}}"""

    o: LiquidationOrder

    @property
    def s(self) -> str:
        """The symbol, where all other messages have it."""
        return self.o.s


class ContractInfo(Struct, gc=False):
    """{"e":"contractInfo","E":1669356423908,"s":"IOTAUSDT","ps":"IOTAUSDT","ct":"PERPETUAL","dt":4133404800000,"ot":1569398400000,"cs":"TRADING","bks":[{"bs":1,"bnf":0,"bnc":5000,"mmr":0.01,"cf":0,"mi":21,"ma":50}]}"""

    s: str
    cs: str


class OpenInterest(Struct):
    """{"openInterest":"10659.509","symbol":"BTCUSDT","time":1589437530011}"""

    open_interest: str = field(name="openInterest")
    symbol: str
    time: Time


_OPEN_INTEREST: Final = msgspec.json.Decoder(OpenInterest)

# The forms of the messages as the venue writes them: of what is like these, to the letter, nothing needs to be decoded
# (``feed/template.pyx``). The stream's name and the symbol are put in.
AGG_TRADE_FORM: Final = (
    '{"stream":"%s","data":{"e":"aggTrade","E":<any>,"a":<id>,"s":"%s","p":"<price>","q":"<size>","nq":<any>,'
    '"f":<first_fill>,"l":<last_fill>,"T":<time>,"m":<buyer_is_maker>,"st":<any>}}'
)
TRADE_FORM: Final = (
    '{"stream":"%s","data":{"e":"trade","E":<any>,"T":<time>,"s":"%s","t":<id>,"p":"<price>","q":"<size>",'
    '"X":"MARKET","m":<buyer_is_maker>,"st":<any>}}'
)
BOOK_TICKER_FORM: Final = (
    '{"stream":"%s","data":{"e":"bookTicker","u":<last>,"s":"%s","ps":<any>,"b":"<bid_price>","B":"<bid_size>",'
    '"a":"<ask_price>","A":"<ask_size>","T":<time>,"E":<any>,"st":<any>}}'
)

# ---- trades -----------------------------------------------------------------------------------------------


class AggTrades:
    """The aggregated trades of one instrument. ``trade_id`` is ``a``, ``venue_seq`` is ``l``: the fills are
    ``venue_seq - trade_count + 1`` to ``venue_seq``."""

    def __init__(self, channel: Channel, counts: AdapterCounts) -> None:
        self._channel = channel
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
        side = _SELL if trade.m else _BUY
        emit.trade(self._channel, trade.p, trade.q, side, number, trade.T * MS, trade.l, flags | _AGGREGATED, fills)
        emit.end()
        self.sequence.take(number)
        return NOTHING


ON_THE_MARKET: Final = ("MARKET", "RPI")
NOBODYS: Final = ("NA", "INSURANCE_FUND", "ADL")


class Trades:
    """The fills of one instrument. ``trade_id`` and ``venue_seq`` are ``t``."""

    def __init__(self, channel: Channel, counts: AdapterCounts, unknown: UnknownMessages) -> None:
        self._channel = channel
        self._unknown = unknown
        self.sequence = TradeSequence(channel, counts)

    def on_message(self, trade: Trade, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One fill."""
        number = trade.t
        flags = self.sequence.admit(number, emit)
        if flags is None:
            return NOTHING
        if trade.X in ON_THE_MARKET:
            side = _SELL if trade.m else _BUY
            emit.trade(self._channel, trade.p, trade.q, side, number, trade.T * MS, number, flags)
            emit.end()
        elif trade.X not in NOBODYS:
            self._unknown.note(f"trade of kind {trade.X[:20]}", msgspec.json.encode(trade))
        self.sequence.take(number)
        return NOTHING


# ---- quotes -----------------------------------------------------------------------------------------------

# An older quote is dropped if its id lies at most so far back (some seconds: all instruments share the count); else
# the venue numbers anew.
QUOTE_OVERLAP: Final = 1_000_000


class Quotes:
    """The best bid and ask of one instrument. Ids skip."""

    def __init__(self, channel: Channel, counts: AdapterCounts) -> None:
        self._channel = channel
        self._counts = counts
        self.ids = RisingIds(QUOTE_OVERLAP)

    def on_message(self, ticker: BookTicker, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The quote as it is now."""
        if self.ids.repeats(ticker.u):
            self._counts.repeated += 1
            return NOTHING
        emit.bbo(self._channel, ticker.b, ticker.B, ticker.a, ticker.A, ticker.T * MS, ticker.u)
        emit.end()
        self.ids.last = ticker.u
        return NOTHING


# ---- what contracts tell besides --------------------------------------------------------------------------


class Marks:
    """Mark and index price, and the funding rate, of one instrument."""

    def __init__(self, channel: Channel, connection: int, data_types: Sequence[DataType]) -> None:
        """``data_types``: which of MARK and FUNDING are wanted."""
        self.instrument = channel.instrument
        self.wants_funding = DataType.FUNDING in data_types
        self.interval_ns = 0  # between two payments; 0: not known yet
        self._channel = channel
        self._connection = connection
        self._wants_mark = DataType.MARK in data_types
        self._told: tuple[str, int] | None = None
        self._is_refused = False

    def reset(self) -> None:
        """After a pause the rate is told again, changed or not."""
        self._told = None
        self._is_refused = False

    def on_message(self, update: MarkUpdate, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """All of them as they are now."""
        ts_event = update.E * MS
        if self._wants_mark:
            emit.mark_price(self._channel, update.p, update.i or None, ts_event)
            emit.end()
        if not self.wants_funding:
            return NOTHING
        if not (update.r and update.T):
            return self._refuse()
        funding = update.r, update.T
        if funding != self._told:
            self._note_interval(update.T)
            due_ns = update.T * MS
            emit.funding(self._channel, update.r, due_ns, ts_event, interval_ns=self.interval_ns)
            emit.end()
            self._told = funding
        return NOTHING

    def _note_interval(self, due: int) -> None:
        """The venue changes the interval of an instrument now and then; how far the time of payment moves tells."""
        step_ns = 0 if self._told is None else (due - self._told[1]) * MS
        if 0 < step_ns <= 24 * HOUR_NS and step_ns % HOUR_NS == 0:
            self.interval_ns = step_ns

    def _refuse(self) -> Sequence[Request]:
        """A subscription to what the venue does not tell is acknowledged like any other."""
        if self._is_refused:
            return NOTHING
        self._is_refused = True
        why = "the venue tells no funding rate of it"
        return (Rejected(self._connection, self.instrument, why, DataType.FUNDING),)


class Liquidations:
    """Orders that close positions of one instrument by force."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def on_message(self, message: ForceOrder, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The largest of a second."""
        order = message.o
        side = _SELL if order.S == "SELL" else _BUY
        average = order.ap if order.ap.strip("0.") else None  # nothing is filled yet
        emit.liquidation(self._channel, order.p, order.q, side, order.T * MS, average)
        emit.end()
        return NOTHING


class ContractStates:
    """Which contracts are not traded for the time being: told when it changes."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels
        self.halted: set[str] = set()

    def on_message(self, info: ContractInfo, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Something of a contract has changed, its state or not."""
        self.on_status(info.s, info.cs, emit)
        return NOTHING

    def on_status(self, instrument: str, status: str, emit: Emit) -> None:
        """The state that a contract is in, in the venue's word."""
        channel, is_halted = self._channels.get(instrument), status != "TRADING"
        if channel is None or is_halted == (instrument in self.halted):
            return
        if is_halted:
            self.halted.add(instrument)
            emit.status(channel, State.HALTED, Reason.NONE, detail=status)
        else:
            self.halted.remove(instrument)
            emit.status(channel, State.TRADING, Reason.NONE)
        emit.end()


REFUSALS: Final = (400, 404)
"""HTTP statuses that say that a request is of no use, now or later: there is no such instrument."""


class InterestPoll:
    """Asks for the open interest of one instrument, every so often."""

    TAG: Final = "openInterest"
    WEIGHT: Final = 1

    def __init__(self, channel: Channel, connection: int, url: str) -> None:
        self._channel = channel
        self._connection = connection
        self._url = url
        self._interval_ns = 0
        self._due_ns = 0
        self._is_asking = False
        self._is_refused = False
        self._told_ms = -1

    def begin(self, first_ns: int, interval_ns: int) -> None:
        """The connection is open: ask at ``first_ns`` and every ``interval_ns`` from then on."""
        self._interval_ns = interval_ns
        self._due_ns = first_ns
        self._is_asking = self._is_refused = False

    def on_timer(self, now_ns: int) -> Sequence[Request]:
        """Ask if it is time to. Who is late does not ask twice."""
        if now_ns < self._due_ns or self._is_asking or self._is_refused:
            return NOTHING
        self._is_asking = True
        self._due_ns = max(self._due_ns + self._interval_ns, now_ns)
        tag = f"{self.TAG} {self._channel.instrument}"
        return (Fetch(tag, self._url, self.WEIGHT, connection=self._connection),)

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The answer. Raises VenueProtocolError. One that is no newer than the last is dropped."""
        self._is_asking = False
        symbol = self._channel.instrument
        if response.status in REFUSALS:
            self._is_refused = True
            why = f"HTTP {response.status} {response.body[:64].decode(errors='replace')}"
            return (Rejected(self._connection, symbol, why, DataType.OPEN_INTEREST),)
        if response.status != 200:
            self._due_ns = max(self._due_ns, ts_recv + pause_s(response) * SECOND)
            return NOTHING
        answer = _OPEN_INTEREST.decode(response.body)
        if answer.symbol != symbol:
            raise VenueProtocolError(f"open interest of {answer.symbol[:80]!r}")
        if answer.time != self._told_ms:
            emit.open_interest(self._channel, answer.open_interest, answer.time * MS)
            emit.end()
            self._told_ms = answer.time
        return NOTHING
