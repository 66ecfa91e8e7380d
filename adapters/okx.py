"""OKX v5: trades, best bid and ask, books, funding, mark and index price, open interest, liquidations.

Documentation (read November 2026): okx.com/docs-v5 (WebSocket, "Order book channel" and its neighbours, error codes),
change log and notices of 2026. Other addresses in the config serve the regions and the demo.

Integrity:

* book: each message names the one before it (``prevSeqId``); the snapshot comes on the socket. A CRC-32 of the best
  25 levels came with each message until June 2026; since then the field is 0. It is verified wherever it is not 0.
* trades: ``tradeId`` is the last of ``count`` merged fills, so ``tradeId - count`` is the id before.

Quirks:

* Text ``ping`` and ``pong`` are no JSON. A connection on which nothing moves for 30 s without one is cut.
* Every argument of a request is acknowledged by itself; an error names it in its text only. To subscribe again to what
  is subscribed already brings no snapshot: unsubscribe first.
* A book message without levels says that the book lives (60 s). ``seqId`` may fall once, at a maintenance.
* Numbers and times are text, not padded; "" is no value. A side of a quote may be empty, a book crossed in an auction.
* The first trade after a subscription may be one of long ago.
* Liquidations are samples, and not in the order of time. The index is known by its name, not the instrument's.

Records: sizes of derivatives count contracts. ``venue_seq`` of TRADE, BBO and LEVEL is ``seqId``, one count for all of
an instrument (0 where none is sent). ``ts_event`` of LEVEL is the time of publication, of BBO that of the match.

Runs in the worker of the venue (``feed/worker.py``) and in ``capture.py``::

    adapter = OkxAdapter(OkxAdapter.endpoints, OkxOptions(), subscriptions)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct, field

from mdring.adapters.okx_book import BOOK_LEVELS, ORDERS_AT, UPDATE_FORM, Levels, OkxBook
from mdring.adapters.okx_channels import (
    MS,
    Funding,
    Index,
    Liquidation,
    Mark,
    OpenInterest,
    Push,
    Quote,
    Ticker,
    Trade,
    Trades,
    fundings,
    indices,
    liquidations,
    marks,
    open_interests,
    quotes,
    tickers,
)
from mdring.adapters.okx_metadata import decode_instruments, instruments_fetches
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
    Rejected,
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
from mdring.feed.message_route import Handler, MessageRoute
from mdring.feed.stage import Channel
from mdring.record import DataType, Flags, Reason

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; those of the channels stand in ``okx_channels.py`` and ``okx_book.py``.


class Arg(Struct):
    """{"channel":"books","instId":"BTC-USDT"}"""

    channel: str = ""
    inst_id: str = field(name="instId", default="")
    inst_type: str = field(name="instType", default="")


class Notice(Struct):
    """{"event":"notice","code":"64008","msg":"The connection will soon be closed.","connId":"a4d3ae55"}

    Answers, errors and notices have ``event``; what has data has none.
    """

    event: str = ""
    arg: Arg | None = None
    code: str = ""
    msg: str = ""
    id: str = ""
    data: Raw = Raw()


# The forms of what comes most, as the venue writes them (``feed/template.pyx``); the name of the instrument is put in.
QUOTE_FORM: Final = (
    '{"arg":{"channel":"bbo-tbt","instId":"%s"},"data":[{"asks":[["<ask_price>","<ask_size>",<text>,<text>]],'
    '"bids":[["<bid_price>","<bid_size>",<text>,<text>]],"ts":"<time>","seqId":<last>}]}'
)
TRADE_FORM: Final = (
    '{"arg":{"channel":"trades","instId":"%s"},"data":[{"instId":"%s","tradeId":"<id>","px":"<price>","sz":"<size>",'
    '"side":"<taker>","ts":"<time>","count":"<count>","source":<any>,"seqId":<last>}]}'
)
_NOTICE: Final = msgspec.json.Decoder(Notice)
_PREFIX: Final = b'{"arg":{'


# ---- endpoints and limits ---------------------------------------------------------------------------------

BOOKS_PER_CONNECTION: Final = 29  # the venue advises fewer than 30
INSTRUMENTS_PER_CONNECTION: Final = 100  # a request each, of 480 in an hour; what resyncs need is left
PING_INTERVAL_S: Final = 15.0  # the venue cuts after 30 s


class OkxOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.options]``. ``option_families`` names options to be listed beside those subscribed to, as BTC-USD."""

    bbo_channel: Literal["bbo-tbt", "tickers"] = "bbo-tbt"  # every 10 ms, or every 100 ms
    option_families: tuple[str, ...] = ()


def websocket_url(base: str) -> str:
    """The public endpoint, unless ``base`` names a path itself."""
    url = base.rstrip("/")
    return url if "/ws/" in url else f"{url}/ws/v5/public"


# ---- subscribe --------------------------------------------------------------------------------------------


class Topic(NamedTuple):
    """What one argument of a request asks for. ``name`` is an instId, or the instType of liquidations."""

    channel: str
    name: str

    def argument(self) -> dict[str, str]:
        """As it is sent."""
        key = "instType" if self.channel == LIQUIDATIONS else "instId"
        return {"channel": self.channel, key: self.name}

    def key(self) -> str:
        """How its messages name it, behind their first key."""
        return f'{self.channel}","instId":"{self.name}"'

    def prefix(self) -> bytes:
        """How its messages begin."""
        return b'{"arg":' + msgspec.json.encode(self.argument())


LIQUIDATIONS: Final = "liquidation-orders"
INDEX: Final = "index-tickers"


def topics(instrument: str, data_type: DataType, options: OkxOptions) -> list[Topic]:
    """What carries these data of an instrument. Whether the venue has them is left to its answer."""
    match data_type:
        case DataType.TRADE:
            return [Topic("trades", instrument)]
        case DataType.BBO:
            return [Topic(options.bbo_channel, instrument)]
        case DataType.BOOK:
            return [Topic("books", instrument)]
        case DataType.FUNDING:
            return [Topic("funding-rate", instrument)]
        case DataType.MARK:
            return [Topic("mark-price", instrument), Topic(INDEX, index_of(instrument))]
        case DataType.OPEN_INTEREST:
            return [Topic("open-interest", instrument)]
        case DataType.LIQUIDATION:
            return [Topic(LIQUIDATIONS, type_of(instrument))]
    return []


def index_of(instrument: str) -> str:
    """BTC-USD of BTC-USD-SWAP, and of BTC-USD_UM-SWAP."""
    return "-".join(part.partition("_")[0] for part in instrument.split("-")[:2])


def type_of(instrument: str) -> str:
    """The instType, which the form of a name tells."""
    parts = instrument.split("-")
    if parts[-1] == "SWAP":
        return "SWAP"
    return {3: "FUTURES", 5: "OPTION"}.get(len(parts), "SPOT")


# An error says only in its text which argument it means, and the text has changed over time.
_REFUSED: Final = re.compile(r"channel:([\w-]+),inst(?:Id|Type):([\w.-]+)")


# ---- the adapter ------------------------------------------------------------------------------------------


DECODERS: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    "trades": msgspec.json.Decoder(Push[Trade]),
    "bbo-tbt": msgspec.json.Decoder(Push[Quote]),
    "tickers": msgspec.json.Decoder(Push[Ticker]),
    "books": msgspec.json.Decoder(Push[Levels]),
    "mark-price": msgspec.json.Decoder(Push[Mark]),
    INDEX: msgspec.json.Decoder(Push[Index]),
    "funding-rate": msgspec.json.Decoder(Push[Funding]),
    "open-interest": msgspec.json.Decoder(Push[OpenInterest]),
    LIQUIDATIONS: msgspec.json.Decoder(Push[Liquidation]),
}


class Line:
    """One connection: what is subscribed to on it, and where its messages go."""

    def __init__(self) -> None:
        self.instruments: list[str] = []
        self.watchers: dict[Topic, list[tuple[Channel, DataType]]] = {}
        self.topics: dict[str, list[Topic]] = {}  # by instrument that was the first to ask for them
        self.routes: dict[bytes, MessageRoute] = {}  # by how the messages begin
        self.books: dict[str, OkxBook] = {}
        self.awaited: dict[tuple[str, Topic], str] = {}  # (op, topic) of arguments to be answered -> id of the request


class OkxAdapter(Adapter):
    """OKX v5. One object serves all connections of one worker."""

    venue: ClassVar[str] = "okx"
    data_types: ClassVar[tuple[DataType, ...]] = (
        DataType.TRADE,
        DataType.BBO,
        DataType.BOOK,
        DataType.FUNDING,
        DataType.MARK,
        DataType.OPEN_INTEREST,
        DataType.LIQUIDATION,
    )
    integrity: ClassVar[str] = "book: prevSeqId chain, snapshot on the socket, CRC-32 if not 0; trades: ids and counts"
    endpoints: ClassVar[Endpoints] = Endpoints("wss://ws.okx.com", "https://www.okx.com")
    limits: ClassVar[Limits] = Limits(
        connect_interval_s=0.4,  # 3 in a second
        fetch_interval_s=0.1,  # 20 in two seconds
        stale_after_s=120.0,  # a book without change says so every 60 s
        timer_interval_s=PING_INTERVAL_S,
    )
    options: ClassVar[type[Struct]] = OkxOptions
    direct: DirectRoutes

    def __init__(self, endpoints: Endpoints, options: OkxOptions, subscriptions: Sequence[Subscription]) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._options = options
        self._endpoints = endpoints
        self._url = websocket_url(endpoints.websocket_url)
        self._subscriptions = {subscription.instrument: subscription for subscription in subscriptions}
        self._lines: list[Line] = []
        self._line_of: dict[str, int] = {}
        self.direct = DirectRoutes('{"arg":{"channel":"', "}")
        self._last_id = 0

    # Metadata

    def metadata_requests(self) -> Sequence[Fetch]:
        """A list for each type; of options, those of the families that are asked for."""
        options = [name for name in self._subscriptions if type_of(name) == "OPTION"]
        families = {*self._options.option_families, *("-".join(name.split("-")[:2]) for name in options)}
        return instruments_fetches(self._endpoints.rest_url, sorted(families))

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo]:
        """All instruments of one list."""
        if response.status != 200:
            raise VenueProtocolError(f"instruments: HTTP {response.status} {response.body[:200]!r}")
        return decode_instruments(response.body, self.unknown)

    # Connections

    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Spread the instruments over connections and lay the routes of their topics."""
        line, books = Line(), 0
        for name, subscription in self._subscriptions.items():
            if name not in channels:
                continue
            has_book = DataType.BOOK in subscription.data_types
            is_full = books + has_book > BOOKS_PER_CONNECTION or len(line.instruments) == INSTRUMENTS_PER_CONNECTION
            if not self._lines or is_full:
                line, books = Line(), 0
                self._lines.append(line)
            books += has_book
            number = len(self._lines) - 1
            self._line_of[name] = number
            line.instruments.append(name)
            for data_type in subscription.data_types:
                for topic in topics(name, data_type, self._options):
                    if topic not in line.watchers:
                        line.topics.setdefault(name, []).append(topic)
                    line.watchers.setdefault(topic, []).append((channels[name], data_type))
        for number, line in enumerate(self._lines):
            for topic in line.watchers:
                self._lay_route(number, line, topic)

    def _lay_route(self, number: int, line: Line, topic: Topic) -> None:
        """Quotes are read from whichever of their channels comes."""
        channels = [channel for channel, _ in line.watchers[topic]]
        channel, data_type = line.watchers[topic][0]
        handle: Handler
        form: Route
        match topic.channel:
            case "trades":
                trades = Trades(channel, self.counts)
                handle = trades.on_push
                form = TradeRoute(
                    TRADE_FORM % (topic.name, topic.name), channel, trades.sequence, unit_ns=MS, flags=Flags.AGGREGATED
                )
                self.direct.add(topic.key(), form)
            case "bbo-tbt" | "tickers":
                ids = Chain()
                ids.live = True
                quote = Topic("bbo-tbt", topic.name)
                self._lay(line, quote, quotes(channel, ids), channel, data_type)
                self.direct.add(quote.key(), QuoteRoute(QUOTE_FORM % topic.name, channel, ids, unit_ns=MS))
                self._lay(line, Topic("tickers", topic.name), tickers(channel), channel, data_type)
                return
            case "books":
                book = OkxBook(channel, lambda op, delay_ns: self._request(number, op, [topic], delay_ns), self.counts)
                line.books[topic.name] = book
                self.counts.books += 1
                handle = book.on_push
                form = DeltaRoute(
                    UPDATE_FORM % topic.name, channel, book.sync, unit_ns=MS, count_at=ORDERS_AT
                )  # fmt: skip
                self.direct.add(topic.key(), form)
            case "mark-price":
                handle = marks(channel)
            case "funding-rate":
                handle = fundings(channel)
            case "open-interest":
                handle = open_interests(channel)
            case _ if topic.channel == INDEX:
                handle = indices(channels)
            case _:
                handle = liquidations({channel.instrument: channel for channel in channels})
        self._lay(line, topic, handle, channel if len(channels) == 1 else None, data_type)

    def _lay(self, line: Line, topic: Topic, handle: Handler, channel: Channel | None, data_type: DataType) -> None:
        instrument = None if channel is None else channel.instrument
        line.routes[topic.prefix()] = MessageRoute(DECODERS[topic.channel].decode, handle, instrument, data_type)

    def connections(self) -> Sequence[Connection]:
        """As ``bind`` has spread them."""
        return [Connection(number, self._url, tuple(line.instruments)) for number, line in enumerate(self._lines)]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Subscribe: a request for each instrument, so that a refusal that names nothing costs one only."""
        line = self._lines[connection]
        for book in line.books.values():
            book.sync.on_subscribe(now_ns)
        return [self._request(connection, "subscribe", wanted) for wanted in line.topics.values()]

    def _request(self, connection: int, op: str, wanted: Sequence[Topic], delay_ns: int = 0) -> Send:
        self._last_id += 1
        number = str(self._last_id)
        for topic in wanted:
            self._lines[connection].awaited[op, topic] = number
        request = {"id": number, "op": op, "args": [topic.argument() for topic in wanted]}
        return Send(connection, msgspec.json.encode(request).decode(), ack=number, delay_ns=delay_ns)

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """CLEAR the books. Ids of trades are kept: the next one tells how many were missed."""
        line = self._lines[connection]
        line.awaited.clear()
        for book in line.books.values():
            book.sync.on_disconnect(reason, emit)
        return NOTHING

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Ping, and look for books that are late."""
        requests: list[Request] = [Send(connection, "ping", ack="pong", urgent=True)]
        for book in self._lines[connection].books.values():
            requests.extend(book.sync.on_timer(now_ns, emit))
        return requests

    # Messages

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One frame is one message. Its topic, at its beginning, says what it holds."""
        message = payload if type(payload) is bytes else bytes(payload)
        route = self._lines[connection].routes.get(message[: message.find(b"}") + 1])
        if route is None:
            return self._on_other(connection, message, ts_recv, emit)
        return route.take(message, ts_recv, emit)

    def _on_other(self, connection: int, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Answers, errors, notices, topics that nobody asked for, or that are written in another way."""
        if message == b"pong":
            return (Acknowledged(connection, "pong"),)
        try:
            notice = _NOTICE.decode(message)
        except UNREADABLE as error:
            raise blamed(error, None, DataType.STATUS) from error
        arg = notice.arg
        topic = None if arg is None else Topic(arg.channel, arg.inst_id or arg.inst_type)
        match notice.event:
            case "" if topic is not None and bytes(notice.data):
                route = self._lines[connection].routes.get(topic.prefix())
                if route is not None:
                    return route.take(message, ts_recv, emit)
                self.unknown.note(f"channel {topic.channel}", message)
                return NOTHING
            case "subscribe" | "unsubscribe" if topic is not None:
                return self._on_answer(connection, notice.event, topic, ts_recv)
            case "error":
                return self._on_error(connection, notice, ts_recv, emit)
            case "notice" if notice.code == SERVICE_UPGRADE:
                return (Reconnect(connection, Reason.PLANNED_RECONNECT, notice.msg),)
            case "":
                raise VenueProtocolError(f"a message of no known shape: {message[:80]!r}")
        self.unknown.note(f"event {notice.event} {notice.code}", message)
        return NOTHING

    def _on_answer(self, connection: int, op: str, topic: Topic, ts_recv: int) -> Sequence[Request]:
        """One argument is acknowledged; the request is, with the last of them. What was not awaited says nothing."""
        requests = self._answered(connection, op, topic)
        book = self._lines[connection].books.get(topic.name)
        if op == "unsubscribe" and topic.channel == "books" and book is not None:
            requests.extend(book.sync.on_unsubscribed(ts_recv))
        return requests

    def _answered(self, connection: int, op: str, topic: Topic) -> list[Request]:
        awaited = self._lines[connection].awaited
        number = awaited.pop((op, topic), None)
        if number is None or number in awaited.values():
            return []
        return [Acknowledged(connection, number)]

    def _on_error(self, connection: int, notice: Notice, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """An argument is refused: that topic is lost, no other. Too many requests: a new connection may ask again."""
        text = f"{notice.code} {notice.msg}"
        if notice.code == TOO_FREQUENT:
            return (Reconnect(connection, Reason.SUBSCRIBE_REJECTED, text),)
        line = self._lines[connection]
        named = _REFUSED.search(notice.msg)
        meant = [key for key in line.awaited if named is not None and key[1] == named.groups()]
        if not meant:
            meant = [key for key, number in line.awaited.items() if number == notice.id]
        if not meant:
            raise VenueProtocolError(f"the venue answered with an error: {text}", reason=Reason.SUBSCRIBE_REJECTED)
        requests: list[Request] = []
        for op, topic in meant:
            if op == "unsubscribe":  # there is nothing to end
                requests.extend(self._on_answer(connection, op, topic, ts_recv))
                continue
            requests.extend(self._answered(connection, op, topic))
            for channel, data_type in line.watchers[topic]:
                requests.append(Rejected(connection, channel.instrument, text, data_type))
            if topic.channel == "books":
                line.books[topic.name].sync.on_rejected(Reason.SUBSCRIBE_REJECTED, emit)
        return requests

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Nothing but metadata is fetched."""
        return NOTHING

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rebuild one book; no other is touched."""
        number = self._line_of.get(instrument)
        book = None if number is None else self._lines[number].books.get(instrument)
        return NOTHING if book is None else book.sync.resync(now_ns, reason, emit)

    def book_depth(self, instrument: str) -> int | None:
        """The window of the channel ``books``."""
        return BOOK_LEVELS

    def is_data(self, payload: bytes | memoryview) -> bool:
        """Everything but answers, notices and pongs."""
        return bytes(payload[: len(_PREFIX)]) == _PREFIX


SERVICE_UPGRADE: Final = "64008"
TOO_FREQUENT: Final = "60014"
