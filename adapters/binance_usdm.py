"""Binance USD-M futures: trades, best bid and ask, books, funding, mark and index price, open interest, liquidations.

Documentation (read November 2026): developers.binance.com, derivatives, USD-M futures: "Websocket Market Streams" with
"Important WebSocket Change Notice", market data of REST, change log to 2026-10-23. The same protocol serves the demo,
and COIN-M futures, with the addresses ``wss://dstream.binance.com/stream`` and ``https://dapi.binance.com/dapi/v1``:
a path in an address is kept, and a host that has ``/stream`` behind it has no routes.

Integrity:

* book: each diff names the one before it, ``pu`` is its ``u``. A REST snapshot states its ``lastUpdateId`` of the same
  count, which all instruments share, so ids skip. No checksum. The venue's rules
  stand in ``binance_usdm_book.py``.
* trades: consecutive ids (``binance_usdm_channels.py``).

Quirks:

* Streams are spread over two paths, since April 2026: ``/public`` has books, quotes and single trades, ``/market`` the
  rest. One that is asked for on the wrong path, like one that is misspelt, is acknowledged and silent for ever; so
  instruments are checked against exchangeInfo, and on each connection is a stream that is never silent for long.
* Acks and errors are never wrapped in ``{"stream": …, "data": …}``. New fields come without notice.
* Books and quotes leave out retail-only orders (RPI), so trades may print within the spread.
* Open interest comes by REST only. Liquidations are samples. Spot's notice of a shutdown does not exist here.

Records: ``venue_seq`` of BBO and LEVEL is ``u``. ``ts_event`` is ``T``, the time of the matching engine, but of MARK
and FUNDING ``E``. Sizes are of the base asset, those of COIN-M count contracts.

Runs in the worker of the venue (``feed/worker.py``) and in ``capture.py``::

    adapter = BinanceUsdmAdapter(BinanceUsdmAdapter.endpoints, BinanceUsdmOptions(), subscriptions)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta, Raw, Struct

from mdring.adapters.binance_usdm_book import DEPTH_FORM, SNAPSHOT_WEIGHT, FuturesBook
from mdring.adapters.binance_usdm_channels import (
    AGG_TRADE_FORM,
    BOOK_TICKER_FORM,
    HOUR_NS,
    MS,
    SECOND,
    TRADE_FORM,
    AggTrades,
    ContractStates,
    InterestPoll,
    Liquidations,
    Marks,
    Quotes,
    Trades,
)
from mdring.adapters.binance_usdm_metadata import (
    EXCHANGE_INFO,
    EXCHANGE_INFO_WEIGHT,
    FUNDING_INFO,
    FUNDING_INFO_WEIGHT,
    USUAL_FUNDING_HOURS,
    decode_exchange_info,
    decode_funding_info,
)
from mdring.adapters.binance_usdm_streams import (
    CONTRACT_INFO,
    IS_STEADY,
    MARKET,
    OTHER_NAMES,
    PUBLIC,
    STEADY,
    UNROUTED,
    Topic,
    pass_over,
    stream_name,
    with_speed,
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
from mdring.feed.message_route import MessageRoute
from mdring.feed.portions import portions
from mdring.feed.stage import Channel
from mdring.record import DataType, Flags, Reason, State

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; those of the streams stand in ``binance_usdm_channels.py`` and
# ``binance_usdm_book.py``.


class ErrorDetail(Struct):
    """{"code":2,"msg":"Invalid request: unknown variant `NOT_A_METHOD`, expected one of ..."}"""

    code: int
    msg: str


class Notice(Struct):
    """{"result":null,"id":1}

    Whatever does not begin like a message of a stream that is wanted: answers, errors, other streams.
    """

    stream: str = ""
    e: str = ""
    id: int | str | None = None
    result: Raw = Raw()
    error: ErrorDetail | None = None
    code: int | None = None
    msg: str = ""


_NOTICE: Final = msgspec.json.Decoder(Notice)
_ENVELOPE: Final = b'{"stream":"'


# ---- endpoints and limits ---------------------------------------------------------------------------------

MAX_STREAMS: Final = {PUBLIC: 1024, MARKET: 1024, UNROUTED: 200}  # of a connection; COIN-M keeps to the former limit
STREAMS_PER_FRAME: Final = 80
FRAME_BYTES: Final = 4_000  # the venue cuts frames at 4096 bytes
POLLS_PER_SECOND: Final = 10
"""Open interest may cost a quarter of the REST budget; of more instruments it is asked for less often."""


class BinanceUsdmOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.options]``. A larger snapshot knows more of the book's depth and costs more of the REST budget."""

    trade_stream: Literal["aggTrade", "trade"] = "aggTrade"
    depth_speed: Literal["100ms", "250ms", "500ms"] = "100ms"
    mark_speed: Literal["1s", "3s"] = "1s"
    snapshot_limit: Literal[100, 500, 1000] = 1000
    open_interest_s: Annotated[int, Meta(ge=1, le=3600)] = 10  # how often it is asked for


def is_routed(base: str) -> bool:
    """Whether the host has the paths of 2026."""
    return not base.rstrip("/").endswith("/stream")


def websocket_url(base: str, route: str) -> str:
    """The combined form. Raw forms cannot be had: their messages do not say whose they are."""
    url = base.rstrip("/")
    return f"{url}/{route}/stream" if route else url


def rest_url(base: str, call: str) -> str:
    """The URL of a call, with the version of USD-M unless ``base`` names one itself."""
    url = base.rstrip("/")
    return f"{url}/{call}" if urlsplit(url).path else f"{url}/fapi/v1/{call}"


# ---- subscribe --------------------------------------------------------------------------------------------


def place_of(data_type: DataType, options: BinanceUsdmOptions) -> tuple[str, str]:
    """(route, kind of stream) that carries these data; of open interest no stream does."""
    match data_type:
        case DataType.BOOK:
            return PUBLIC, with_speed("depth", options.depth_speed)
        case DataType.BBO:
            return PUBLIC, "bookTicker"
        case DataType.TRADE:
            return PUBLIC if options.trade_stream == "trade" else MARKET, options.trade_stream
        case DataType.MARK | DataType.FUNDING:
            return MARKET, with_speed("markPrice", options.mark_speed)
        case DataType.LIQUIDATION:
            return MARKET, "forceOrder"
    return MARKET, ""


# ---- the adapter ------------------------------------------------------------------------------------------


class Line:
    """One connection: what travels on it."""

    def __init__(self, number: int, route: str) -> None:
        self.number = number
        self.route = route
        self.is_open = False
        self.instruments: list[str] = []
        self.topics: dict[str, Topic] = {}  # by name of the stream
        self.quotes: list[Quotes] = []
        self.marks: list[Marks] = []
        self.polls: list[InterestPoll] = []

    @property
    def books(self) -> list[FuturesBook]:
        """All books on it."""
        return [topic.book for topic in self.topics.values() if topic.book is not None]


class BinanceUsdmAdapter(Adapter):
    """Binance USD-M futures. One object serves all connections of one worker."""

    venue: ClassVar[str] = "binance_usdm"
    data_types: ClassVar[tuple[DataType, ...]] = (
        DataType.TRADE,
        DataType.BBO,
        DataType.BOOK,
        DataType.FUNDING,
        DataType.MARK,
        DataType.OPEN_INTEREST,
        DataType.LIQUIDATION,
    )
    integrity: ClassVar[str] = "book: pu == previous u, REST snapshot; trades: consecutive ids"
    endpoints: ClassVar[Endpoints] = Endpoints("wss://fstream.binance.com", "https://fapi.binance.com")
    limits: ClassVar[Limits] = Limits(
        max_connection_life_s=23.5 * 3600,  # the venue cuts at 24 h
        send_interval_s=0.3,  # 10 frames in a second are documented; connections were closed above 5
        connect_interval_s=1.0,  # 300 in 5 minutes: that of spot, for futures state none
        weight_per_minute=2_400,
        weight_by_clock=True,
        weight_header="X-MBX-USED-WEIGHT-1M",
        stale_after_s=120.0,
        timer_interval_s=1.0,  # for open interest
    )
    options: ClassVar[type[Struct]] = BinanceUsdmOptions
    direct: DirectRoutes

    def __init__(
        self, endpoints: Endpoints, options: BinanceUsdmOptions, subscriptions: Sequence[Subscription]
    ) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._options = options
        self._endpoints = endpoints
        self._is_routed = is_routed(endpoints.websocket_url)
        self._subscriptions = {subscription.instrument: subscription for subscription in subscriptions}
        self._lines: list[Line] = []
        self._routes: dict[bytes, MessageRoute] = {}  # by name of the stream
        self.direct = DirectRoutes('{"stream":"', '"')
        self._books: dict[str, FuturesBook] = {}
        self._polls: dict[str, InterestPoll] = {}
        self._states = ContractStates({})
        self._last_id = 0
        self._unanswered: dict[int, tuple[Line, Sequence[str]]] = {}  # SUBSCRIBE frames, by id

    # Metadata

    def metadata_requests(self) -> Sequence[Fetch]:
        """One list holds everything."""
        return (Fetch(EXCHANGE_INFO, rest_url(self._endpoints.rest_url, EXCHANGE_INFO), EXCHANGE_INFO_WEIGHT),)

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo]:
        """All instruments that the venue lists."""
        if response.status != 200:
            raise VenueProtocolError(f"exchangeInfo: HTTP {response.status} {response.body[:200]!r}")
        return decode_exchange_info(response.body, self.unknown)

    # Connections

    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Spread the streams over connections, those of an instrument over one for each route."""
        current: dict[str, Line] = {}
        for name, subscription in self._subscriptions.items():
            if name not in channels:
                continue
            wanted: dict[str, dict[str, list[DataType]]] = {}  # route -> kind of stream -> what it carries
            for data_type in subscription.data_types:
                route, kind = place_of(data_type, self._options)
                if data_type in self.data_types:
                    kinds = wanted.setdefault(route if self._is_routed else UNROUTED, {})
                    kinds.setdefault(kind, []).append(data_type)
            for route, kinds in sorted(wanted.items(), reverse=True):  # that of the books first
                line = current.get(route)
                if line is None or len(line.topics) + len(kinds) > MAX_STREAMS[route] - 2:  # so many may have to join
                    line = current[route] = Line(len(self._lines), route)
                    self._lines.append(line)
                line.instruments.append(name)
                for kind, data_types in kinds.items():
                    self._lay(line, kind, channels[name], data_types)
        for line in self._lines:
            if not any(steady in name for name in line.topics for steady in IS_STEADY):
                channel = channels[line.instruments[0]]
                self._listen(line, STEADY[line.route], Topic(STEADY[line.route], pass_over, channel, DataType.STATUS))
        self._watch_states(channels)

    def _watch_states(self, channels: Mapping[str, Channel]) -> None:
        """On the first connection that delivers them. Books and quotes alone do not make one."""
        line = next((one for one in self._lines if one.route != PUBLIC), None)
        if line is not None:
            self._states = ContractStates(channels)
            channel = channels[line.instruments[0]]
            topic = Topic(CONTRACT_INFO, self._states.on_message, channel, DataType.STATUS)
            line.topics[CONTRACT_INFO] = topic
            self._routes[CONTRACT_INFO.encode()] = topic.route

    def _lay(self, line: Line, kind: str, channel: Channel, data_types: Sequence[DataType]) -> None:
        symbol, data_type, rest = channel.instrument, data_types[0], self._endpoints.rest_url
        match kind.partition("@")[0]:
            case "aggTrade" | "trade":  # both are read, whichever is subscribed to
                merged, single = AggTrades(channel, self.counts), Trades(channel, self.counts, self.unknown)
                topics = {
                    "aggTrade": Topic("aggTrade", merged.on_message, channel, data_type),
                    "trade": Topic("trade", single.on_message, channel, data_type),
                }
                for name, topic in topics.items():
                    self._routes[stream_name(symbol, name).encode()] = topic.route
                self._lay_direct("aggTrade", TradeRoute, AGG_TRADE_FORM, channel, merged.sequence, Flags.AGGREGATED)
                self._lay_direct("trade", TradeRoute, TRADE_FORM, channel, single.sequence)
                line.topics[stream_name(symbol, kind)] = topics[kind]
            case "bookTicker":
                quotes = Quotes(channel, self.counts)
                line.quotes.append(quotes)
                self._listen(line, kind, Topic(kind, quotes.on_message, channel, data_type))
                self._lay_direct(kind, QuoteRoute, BOOK_TICKER_FORM, channel, quotes.ids)
            case "markPrice":
                marks = Marks(channel, line.number, data_types)
                line.marks.append(marks)
                self._listen(line, kind, Topic(kind, marks.on_message, channel, data_type))
            case "forceOrder":
                self._listen(line, kind, Topic(kind, Liquidations(channel).on_message, channel, data_type))
            case "depth":
                limit = self._options.snapshot_limit
                url = rest_url(rest, f"depth?symbol={quote(symbol)}&limit={limit}")
                book = FuturesBook(channel, line.number, url, SNAPSHOT_WEIGHT[limit], self.counts)
                self._books[symbol] = book
                self.counts.books += 1
                self._listen(line, kind, Topic(kind, book.on_message, channel, data_type, book))
                self._lay_direct(kind, DeltaRoute, DEPTH_FORM, channel, book.sync.chain)
            case _:
                poll = InterestPoll(channel, line.number, rest_url(rest, f"openInterest?symbol={quote(symbol)}"))
                self._polls[symbol] = poll
                line.polls.append(poll)

    def _listen(self, line: Line, kind: str, topic: Topic) -> None:
        line.topics[stream_name(topic.channel.instrument, kind)] = topic
        for name in OTHER_NAMES.get(kind.partition("@")[0], (kind,)):
            self._routes[stream_name(topic.channel.instrument, name).encode()] = topic.route

    def _lay_direct(
        self, kind: str, route: type[Route], form: str, channel: Channel, ids: Chain, flags: int = 0
    ) -> None:
        stream = stream_name(channel.instrument, kind)
        self.direct.add(stream, route(form % (stream, channel.instrument), channel, ids, unit_ns=MS, flags=flags))

    def connections(self) -> Sequence[Connection]:
        """As ``bind`` has spread them."""
        base = self._endpoints.websocket_url
        return [
            Connection(line.number, websocket_url(base, line.route), tuple(line.instruments)) for line in self._lines
        ]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Rule 1: subscribe. Snapshots are fetched when the venue acknowledges, or when the first diff comes."""
        line = self._lines[connection]
        line.is_open = True
        for quotes in line.quotes:
            quotes.ids.restart()
        for marks in line.marks:
            marks.reset()
        every = len(self._polls)
        interval_ns = max(self._options.open_interest_s * SECOND, every * SECOND // POLLS_PER_SECOND)
        for number, poll in enumerate(line.polls):
            poll.begin(now_ns + number * interval_ns // len(line.polls), interval_ns)
        requests: list[Request] = []
        for names in portions(list(line.topics), STREAMS_PER_FRAME, FRAME_BYTES):
            self._last_id += 1
            self._unanswered[self._last_id] = line, names
            text = msgspec.json.encode({"method": "SUBSCRIBE", "params": names, "id": self._last_id}).decode()
            requests.append(Send(connection, text, ack=str(self._last_id)))
        if any(marks.wants_funding for marks in line.marks):
            url = rest_url(self._endpoints.rest_url, FUNDING_INFO)
            requests.append(Fetch(FUNDING_INFO, url, FUNDING_INFO_WEIGHT, connection=connection))
        if CONTRACT_INFO in line.topics and self._states.halted:  # the end of it may have been missed
            url = rest_url(self._endpoints.rest_url, EXCHANGE_INFO)
            requests.append(Fetch(EXCHANGE_INFO, url, EXCHANGE_INFO_WEIGHT, connection=connection))
        return requests

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """CLEAR the books. Ids of trades are kept: the next one tells how many were missed."""
        line = self._lines[connection]
        line.is_open = False
        self._unanswered = {number: sent for number, sent in self._unanswered.items() if sent[0] is not line}
        for book in line.books:
            book.sync.on_disconnect(reason, emit)
        return NOTHING

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Ask for open interest."""
        return [request for poll in self._lines[connection].polls for request in poll.on_timer(now_ns)]

    # Messages

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One frame is one message. The stream's name, at its beginning, says what it holds."""
        message = payload if type(payload) is bytes else bytes(payload)
        route = self._routes.get(quoted_after(message, _ENVELOPE) or b"")
        if route is None:
            return self._on_other(connection, message, ts_recv, emit)
        return route.take(message, ts_recv, emit)

    def _on_other(self, connection: int, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Answers, errors, streams that nobody asked for, or that are written in another way."""
        try:
            notice = _NOTICE.decode(message)
        except UNREADABLE as error:
            raise blamed(error, None, DataType.STATUS) from error
        if notice.stream:
            route = self._routes.get(notice.stream.encode(errors="replace"))
            if route is not None:
                return route.take(message, ts_recv, emit)
        elif notice.error is not None or notice.code is not None:
            return self._on_error(connection, notice, emit)
        elif bytes(notice.result):
            return self._on_acknowledged(connection, notice, ts_recv)
        elif not notice.e:
            raise VenueProtocolError(f"a message of no known shape: {message[:80]!r}")
        self.unknown.note(f"stream {notice.stream.partition('@')[2] or notice.e or 'without a kind'}", message)
        return NOTHING

    def _on_acknowledged(self, connection: int, notice: Notice, ts_recv: int) -> Sequence[Request]:
        topics = self._answered(connection, notice)
        if topics is None:
            self.unknown.note("answer to no request", b"")
            return NOTHING
        requests: list[Request] = [Acknowledged(connection, str(notice.id))]
        for topic in topics:
            if topic.book is not None:
                requests.extend(topic.book.sync.await_snapshot(ts_recv))
        return requests

    def _on_error(self, connection: int, notice: Notice, emit: Emit) -> Sequence[Request]:
        """The whole SUBSCRIBE frame is refused; without its streams the connection is of no use."""
        text = notice.msg if notice.error is None else f"{notice.error.code} {notice.error.msg}"
        topics = self._answered(connection, notice)
        if topics is None:
            raise VenueProtocolError(f"the venue answered with an error: {text}", reason=Reason.SUBSCRIBE_REJECTED)
        for topic in topics:
            emit.status(topic.channel, State.REJECTED, Reason.SUBSCRIBE_REJECTED, topic.data_type, detail=text)
            emit.end()
        return (Reconnect(connection, Reason.SUBSCRIBE_REJECTED, text),)

    def _answered(self, connection: int, notice: Notice) -> list[Topic] | None:
        """The topics of the SUBSCRIBE frame that is answered."""
        if not isinstance(notice.id, int) or notice.id not in self._unanswered:
            return None
        line, names = self._unanswered[notice.id]
        if line.number != connection:
            return None
        del self._unanswered[notice.id]
        return [line.topics[name] for name in names]

    # What is fetched

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot, an open interest, the funding intervals or the states; or why there is none."""
        if response.tag == FUNDING_INFO:
            return self._on_funding_info(response)
        if response.tag == EXCHANGE_INFO:
            return self._on_states(response, emit)
        first, _, second = response.tag.partition(" ")
        taker: InterestPoll | FuturesBook | None
        if first == InterestPoll.TAG:
            symbol, data_type, taker = second, DataType.OPEN_INTEREST, self._polls.get(second)
        else:
            symbol, data_type, taker = first, DataType.BOOK, self._books.get(first)
        if taker is None:
            return NOTHING
        try:
            return taker.on_response(response, ts_recv, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, symbol, data_type) from error

    def _on_states(self, response: Response, emit: Emit) -> Sequence[Request]:
        """What the list says of those that were halted."""
        if response.status == 200:
            for info in decode_exchange_info(response.body, UnknownMessages(AdapterCounts())):
                self._states.on_status(info.instrument, info.status, emit)
        return NOTHING

    def _on_funding_info(self, response: Response) -> Sequence[Request]:
        """Intervals of those that have another than the usual one. Without an answer none is known."""
        if response.status != 200:
            return NOTHING
        try:
            hours = decode_funding_info(response.body)
        except VenueProtocolError as error:
            raise blamed(error, None, DataType.FUNDING) from error
        for line in self._lines:
            for marks in line.marks:
                marks.interval_ns = hours.get(marks.instrument, USUAL_FUNDING_HOURS) * HOUR_NS
        return NOTHING

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rebuild one book; no other is touched. While its connection is closed there is none to rebuild."""
        book = self._books.get(instrument)
        if book is None or not self._lines[book.connection].is_open:
            return NOTHING
        return book.sync.resync(now_ns, reason, emit)

    def is_data(self, payload: bytes | memoryview) -> bool:
        """Everything but answers."""
        return bytes(payload[: len(_ENVELOPE)]) == _ENVELOPE
