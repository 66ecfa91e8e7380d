"""Binance Spot: trades, best bid and ask, and the book, from the public market streams.

Documentation (read November 2026): github.com/binance/binance-spot-api-docs, web-socket-streams.md, rest-api.md,
errors.md, changelog.md. With other addresses in the config the same protocol serves the test network and
Binance.US.

Integrity:

* book: depth diffs carry ``U`` and ``u``, the first and last update id that they cover; ``U`` is the previous
  ``u`` + 1. A REST snapshot states its ``lastUpdateId`` of the same count. No checksum. The venue's numbered
  rules stand in ``binance_book.py``.
* trades: consecutive ids (``binance_trades.py``).
* bookTicker: ``u`` is an update id of the same count as the book's, and never falls.

Quirks:

* A misspelt stream is acknowledged and silent for ever; so instruments are checked against exchangeInfo.
* bookTicker has neither event type nor time. Acks and errors are never wrapped in ``{"stream": …, "data": …}``.
* Diffs and bookTicker travel separately; bookTicker runs ahead by up to one window of the diffs.
* REST snapshots come from a cache and may be older than the first diff: fetch again, with growing delay.
* A quiet instrument sends nothing at all; the venue's ping frames show that the connection lives.

Records: ``venue_seq`` of BBO and LEVEL is ``u``; ``ts_event`` of LEVEL is ``E``, of TRADE ``T``, BBO has none.

Runs in the worker of the venue (``feed/worker.py``) and in ``capture.py``::

    adapter = BinanceAdapter(BinanceAdapter.endpoints, BinanceOptions(), subscriptions)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from mdring.adapters.binance_book import DEPTH_FORM, DepthUpdate, Snapshot, SpotBook
from mdring.adapters.binance_metadata import decode_exchange_info, exchange_info_fetch
from mdring.adapters.binance_trades import (
    AGG_TRADE_FORM,
    TRADE_FORM,
    AggTrade,
    AggTrades,
    Id,
    Trade,
    Trades,
)
from mdring.feed.adapter import (
    NOTHING,
    UNREADABLE,
    Acknowledged,
    Adapter,
    AdapterCounts,
    Connection,
    Endpoints,
    Fetch,
    InstrumentInfo,
    Limits,
    Reconnect,
    Request,
    Response,
    Send,
    Subscription,
    UnknownMessages,
    VenueProtocolError,
    blamed,
)
from mdring.feed.chain import Chain
from mdring.feed.direct import DeltaRoute, DirectRoutes, QuoteRoute, Route, TradeRoute
from mdring.feed.emit import Emit
from mdring.feed.fixed import quoted_after
from mdring.feed.message_route import Decode, Handler, MessageRoute
from mdring.feed.portions import portions
from mdring.feed.rising_ids import RisingIds
from mdring.feed.snapshot_book import SnapshotBook
from mdring.feed.stage import Channel
from mdring.record import DataType, Flags, Reason, State

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; the fields that are kept are named as the venue names them.

M = TypeVar("M")


class Combined(Struct, Generic[M], gc=False):
    """{"stream":"nknusdt@bookTicker","data":{"u":499869768,"s":"NKNUSDT","b":"0.35210000","B":"672.00000000","a":"0.35260000","A":"3199.00000000"}}"""

    data: M


class BookTicker(Struct, gc=False):
    """{"u":499869768,"s":"NKNUSDT","b":"0.35210000","B":"672.00000000","a":"0.35260000","A":"3199.00000000"}"""

    u: Id
    s: str
    b: str
    B: str
    a: str
    A: str


class ErrorDetail(Struct):
    """{"code":2,"msg":"Invalid request: unknown variant `NOT_A_METHOD`, expected one of ..."}"""

    code: int
    msg: str


class Notice(Struct):
    """{"result":null,"id":1}

    Whatever does not begin like a message of a stream that is wanted: answers, errors, the raw form of ``/ws``.
    """

    stream: str = ""
    e: str = ""
    s: str = ""
    u: int | None = None
    id: int | str | None = None
    result: Raw = Raw()
    error: ErrorDetail | None = None
    code: int | None = None
    msg: str = ""


_NOTICE: Final = msgspec.json.Decoder(Notice)
_ENVELOPE: Final = b'{"stream":"'

# The forms of the combined messages as the venue writes them: of what is like these, to the letter, nothing needs to be
# decoded (``feed/template.pyx``). The stream's name and the symbol are put in.
BOOK_TICKER_FORM: Final = (
    '{"stream":"%s","data":{"u":<last>,"s":"%s","b":"<bid_price>","B":"<bid_size>","a":"<ask_price>","A":"<ask_size>"}}'
)


# ---- endpoints and limits ---------------------------------------------------------------------------------

MAX_STREAMS: Final = 1024  # of a connection
STREAMS_PER_FRAME: Final = 80
FRAME_BYTES: Final = 4_000  # the venue cuts frames at 4096 bytes


class BinanceOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.options]``. A larger snapshot knows more of the book's depth and costs more of the REST budget."""

    trade_stream: Literal["trade", "aggTrade"] = "trade"
    depth_speed: Literal["100ms", "1000ms"] = "100ms"
    snapshot_limit: Literal[100, 500, 1000, 5000] = 1000
    time_unit: Literal["ms", "us"] = "ms"


def websocket_url(base: str, options: BinanceOptions) -> str:
    """The combined form, unless ``base`` names a form itself. Times are in ms unless the URL says otherwise."""
    url = base.rstrip("/")
    if not url.endswith(("/stream", "/ws")):
        url += "/stream"
    return url + ("?timeUnit=MICROSECOND" if options.time_unit == "us" else "")


# ---- subscribe --------------------------------------------------------------------------------------------


def streams(instrument: str, data_types: Sequence[DataType], options: BinanceOptions) -> list[str]:
    """Names of the streams that carry these data. Upper-case symbols would be acknowledged and silent."""
    depth = "depth" if options.depth_speed == "1000ms" else f"depth@{options.depth_speed}"
    names = {DataType.TRADE: options.trade_stream, DataType.BBO: "bookTicker", DataType.BOOK: depth}
    return [f"{instrument.lower()}@{names[data_type]}" for data_type in data_types if data_type in names]


# ---- decode -----------------------------------------------------------------------------------------------

# An older quote is dropped if its id lies at most so far back; else the venue numbers anew.
QUOTE_OVERLAP: Final = 1_000


class Quotes:
    """The best bid and ask of one instrument. Ids skip, for most changes of a book do not touch its top."""

    def __init__(self, channel: Channel, counts: AdapterCounts) -> None:
        self._channel = channel
        self._counts = counts
        self.ids = RisingIds(QUOTE_OVERLAP)

    def on_message(self, ticker: BookTicker, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The quote as it is now."""
        if self.ids.repeats(ticker.u):
            self._counts.repeated += 1
            return NOTHING
        emit.bbo(self._channel, ticker.b, ticker.B, ticker.a, ticker.A, 0, ticker.u)
        emit.end()
        self.ids.last = ticker.u
        return NOTHING


# ---- the adapter ------------------------------------------------------------------------------------------


class Instrument:
    """What one instrument is subscribed to, and where."""

    def __init__(self, channel: Channel, connection: int, streams: Sequence[str]) -> None:
        self.channel = channel
        self.symbol = channel.instrument
        self.connection = connection
        self.streams = streams
        self.quotes: Quotes | None = None
        self.book: SnapshotBook[DepthUpdate, Snapshot] | None = None


class Format(Generic[M]):
    """How one kind of message is decoded: wrapped in the combined form, bare in the raw one."""

    def __init__(self, combined: type[Combined[M]], bare: type[M]) -> None:
        self._combined = msgspec.json.Decoder(combined)
        self._bare = msgspec.json.Decoder(bare)

    def combined_of(self, symbol: str) -> Decode:
        """That of a message with its envelope, which must be of this symbol."""
        return lambda message: of_symbol(symbol, self._combined.decode(message).data)

    def bare_of(self, symbol: str) -> Decode:
        """That of a message without."""
        return lambda message: of_symbol(symbol, self._bare.decode(message))


def of_symbol(symbol: str, data: Any) -> Any:
    """``data``, unless they are of another instrument."""
    if data.s != symbol:
        raise VenueProtocolError(f"a message of {data.s!r}")
    return data


TRADE: Final = Format(Combined[Trade], Trade)
AGG_TRADE: Final = Format(Combined[AggTrade], AggTrade)
BOOK_TICKER: Final = Format(Combined[BookTicker], BookTicker)
DEPTH: Final = Format(Combined[DepthUpdate], DepthUpdate)


class BinanceAdapter(Adapter):
    """Binance Spot. One object serves all connections of one worker."""

    venue: ClassVar[str] = "binance"
    data_types: ClassVar[tuple[DataType, ...]] = (DataType.TRADE, DataType.BBO, DataType.BOOK)
    integrity: ClassVar[str] = "book: U == previous u + 1, REST snapshot; trades: consecutive ids"
    endpoints: ClassVar[Endpoints] = Endpoints("wss://stream.binance.com:9443", "https://api.binance.com")
    limits: ClassVar[Limits] = Limits(
        max_connection_life_s=23.5 * 3600,  # the venue cuts at 24 h
        send_interval_s=0.3,  # 5 frames in a rolling second, our pongs among them
        connect_interval_s=1.0,  # 300 attempts in 5 minutes
        weight_per_minute=6_000,
        weight_by_clock=True,
        weight_header="X-MBX-USED-WEIGHT-1M",
        stale_after_s=120.0,  # instruments may be quiet; that the connection lives is the transport's to know
    )
    options: ClassVar[type[Struct]] = BinanceOptions
    direct: DirectRoutes

    def __init__(self, endpoints: Endpoints, options: BinanceOptions, subscriptions: Sequence[Subscription]) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._options = options
        self._endpoints = endpoints
        self._url = websocket_url(endpoints.websocket_url, options)
        self._unit_ns = 1_000_000 if options.time_unit == "ms" else 1_000
        self._subscriptions = {subscription.instrument: subscription for subscription in subscriptions}
        self._instruments: dict[str, Instrument] = {}
        self._combined: dict[bytes, MessageRoute] = {}  # by name of the stream
        self._bare: dict[tuple[str, str], MessageRoute] = {}  # by type of the event and symbol
        self.direct = DirectRoutes('{"stream":"', '"')
        self._last_id = 0
        self._unanswered: dict[int, tuple[int, list[Instrument]]] = {}  # SUBSCRIBE frames, by id

    # Metadata

    def metadata_requests(self) -> Sequence[Fetch]:
        """One list holds everything."""
        return (exchange_info_fetch(self._endpoints.rest_url),)

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo]:
        """All instruments that the venue lists."""
        if response.status != 200:
            raise VenueProtocolError(f"exchangeInfo: HTTP {response.status} {response.body[:200]!r}")
        return decode_exchange_info(response.body, self.unknown)

    # Connections

    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Spread the instruments over connections and lay the routes of their streams."""
        connection = used = 0
        for name, subscription in self._subscriptions.items():
            if name not in channels:
                continue
            wanted = streams(name, subscription.data_types, self._options)
            if used + len(wanted) > MAX_STREAMS:
                connection, used = connection + 1, 0
            used += len(wanted)
            instrument = Instrument(channels[name], connection, wanted)
            self._instruments[name] = instrument
            for data_type in subscription.data_types:
                self._lay_routes(instrument, data_type)

    def _lay_routes(self, instrument: Instrument, data_type: DataType) -> None:
        """Both kinds of trades and both speeds of diffs are read, whichever is subscribed to."""
        channel, unit_ns, counts = instrument.channel, self._unit_ns, self.counts
        match data_type:
            case DataType.TRADE:
                trades, agg_trades = Trades(channel, unit_ns, counts), AggTrades(channel, unit_ns, counts)
                self._lay("trade", ["trade"], TRADE, trades.on_message, channel, data_type)
                self._lay_direct("trade", TradeRoute, TRADE_FORM, channel, trades.sequence)
                self._lay("aggTrade", ["aggTrade"], AGG_TRADE, agg_trades.on_message, channel, data_type)
                self._lay_direct("aggTrade", TradeRoute, AGG_TRADE_FORM, channel, agg_trades.sequence, Flags.AGGREGATED)
            case DataType.BBO:
                quotes = instrument.quotes = Quotes(channel, counts)
                self._lay("", ["bookTicker"], BOOK_TICKER, quotes.on_message, channel, data_type)
                self._lay_direct("bookTicker", QuoteRoute, BOOK_TICKER_FORM, channel, quotes.ids)
            case DataType.BOOK:
                rest_url, limit = self._endpoints.rest_url, self._options.snapshot_limit
                spot = SpotBook(channel, instrument.connection, rest_url, limit, unit_ns, counts)
                instrument.book = spot.book
                counts.books += 1
                self._lay("depthUpdate", ["depth", "depth@100ms"], DEPTH, spot.on_message, channel, data_type)
                for name in ("depth", "depth@100ms"):
                    self._lay_direct(name, DeltaRoute, DEPTH_FORM, channel, spot.book.chain)

    def _lay_direct(
        self, name: str, route: type[Route], form: str, channel: Channel, ids: Chain, flags: int = 0
    ) -> None:
        stream = f"{channel.instrument.lower()}@{name}"
        whole = form % (stream, channel.instrument)
        self.direct.add(stream, route(whole, channel, ids, unit_ns=self._unit_ns, flags=flags))

    def _lay(
        self, event: str, names: list[str], wire: Format[Any], handle: Handler, channel: Channel, data_type: DataType
    ) -> None:
        symbol = channel.instrument
        self._bare[event, symbol] = MessageRoute(wire.bare_of(symbol), handle, symbol, data_type)
        route = MessageRoute(wire.combined_of(symbol), handle, symbol, data_type)
        for name in names:
            self._combined[f"{symbol.lower()}@{name}".encode()] = route

    def connections(self) -> Sequence[Connection]:
        """As ``bind`` has spread them."""
        numbers = sorted({instrument.connection for instrument in self._instruments.values()})
        return [
            Connection(number, self._url, tuple(one.symbol for one in self._on_connection(number)))
            for number in numbers
        ]

    def _on_connection(self, connection: int) -> list[Instrument]:
        return [instrument for instrument in self._instruments.values() if instrument.connection == connection]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Rule 1: subscribe. Snapshots are fetched when the venue acknowledges, or when the first diff comes."""
        by_stream = {}
        for instrument in self._on_connection(connection):
            if instrument.quotes is not None:
                instrument.quotes.ids.restart()
            for name in instrument.streams:
                by_stream[name] = instrument
        requests = []
        for names in portions(list(by_stream), STREAMS_PER_FRAME, FRAME_BYTES):
            self._last_id += 1
            self._unanswered[self._last_id] = (connection, list({by_stream[name]: None for name in names}))
            text = msgspec.json.encode({"method": "SUBSCRIBE", "params": names, "id": self._last_id}).decode()
            requests.append(Send(connection, text, ack=str(self._last_id)))
        return requests

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """CLEAR the books. Ids of trades are kept: the next one tells how many were missed."""
        self._unanswered = {number: sent for number, sent in self._unanswered.items() if sent[0] != connection}
        for instrument in self._on_connection(connection):
            if instrument.book is not None:
                instrument.book.on_disconnect(reason, emit)
        return NOTHING

    # Messages

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One frame is one message. The stream's name, at its beginning, says what it holds."""
        message = payload if type(payload) is bytes else bytes(payload)
        route = self._combined.get(quoted_after(message, _ENVELOPE) or b"")
        if route is None:
            return self._on_other(connection, message, ts_recv, emit)
        return route.take(message, ts_recv, emit)

    def _on_other(self, connection: int, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Answers, errors, shutdown, the raw form, streams that nobody asked for."""
        try:
            notice = _NOTICE.decode(message)
        except UNREADABLE as error:
            raise blamed(error, None, DataType.STATUS) from error
        if notice.e == "serverShutdown" or notice.stream == "!serverShutdown":
            return (Reconnect(connection, Reason.PLANNED_RECONNECT, "serverShutdown"),)
        if notice.stream:
            route = self._combined.get(notice.stream.encode(errors="replace"))
            if route is not None:
                return route.take(message, ts_recv, emit)
        elif notice.error is not None or notice.code is not None:
            return self._on_error(connection, notice, emit)
        elif notice.result:
            return self._on_acknowledged(connection, notice, ts_recv)
        elif notice.e or notice.u is not None:
            route = self._bare.get((notice.e, notice.s))
            if route is not None:
                return route.take(message, ts_recv, emit)
        else:
            raise VenueProtocolError(f"a message of no known shape: {message[:80]!r}")
        self.unknown.note(f"stream {notice.stream.partition('@')[2] or notice.e or 'without a name'}", message)
        return NOTHING

    def _on_acknowledged(self, connection: int, notice: Notice, ts_recv: int) -> Sequence[Request]:
        sent = self._answered(connection, notice)
        if sent is None:
            self.unknown.note("answer to no request", b"")
            return NOTHING
        requests: list[Request] = [Acknowledged(connection, str(notice.id))]
        for instrument in sent:
            if instrument.book is not None:
                requests.extend(instrument.book.await_snapshot(ts_recv))
        return requests

    def _on_error(self, connection: int, notice: Notice, emit: Emit) -> Sequence[Request]:
        """The whole SUBSCRIBE frame is refused; without its streams the connection is of no use."""
        text = notice.msg if notice.error is None else f"{notice.error.code} {notice.error.msg}"
        sent = self._answered(connection, notice)
        if sent is None:
            raise VenueProtocolError(f"the venue answered with an error: {text}", reason=Reason.SUBSCRIBE_REJECTED)
        for instrument in sent:
            emit.status(instrument.channel, State.REJECTED, Reason.SUBSCRIBE_REJECTED, detail=text)
            emit.end()
        return (Reconnect(connection, Reason.SUBSCRIBE_REJECTED, text),)

    def _answered(self, connection: int, notice: Notice) -> list[Instrument] | None:
        """The instruments of the SUBSCRIBE frame that is answered."""
        if not isinstance(notice.id, int) or notice.id not in self._unanswered:
            return None
        sent_on, instruments = self._unanswered[notice.id]
        if sent_on != connection:
            return None
        del self._unanswered[notice.id]
        return instruments

    # Books

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot, or why there is none."""
        instrument = self._instruments.get(response.tag.rpartition(" ")[0])
        if instrument is None or instrument.book is None:
            return NOTHING
        try:
            return instrument.book.on_response(response, ts_recv, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, instrument.symbol, DataType.BOOK) from error

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rebuild one book; no other is touched."""
        known = self._instruments.get(instrument)
        if known is None or known.book is None:
            return NOTHING
        return known.book.resync(now_ns, reason, emit)

    def is_data(self, payload: bytes | memoryview) -> bool:
        """Everything but answers and the shutdown notice."""
        message = bytes(payload[:40])
        return b"serverShutdown" not in message and message.startswith((_ENVELOPE, b'{"e":', b'{"u":'))
