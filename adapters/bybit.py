"""Bybit v5: trades, best bid and ask, books, funding, mark and index price, open interest, liquidations; of spot pairs
and of linear contracts (perpetuals and futures in USDT and USDC).

Documentation (read November 2026): bybit-exchange.github.io/docs/v5 (Websocket Stream: Connect, and the public topics;
Rate Limit; Changelog). Other addresses in the config serve the test network and the regions.

Names: the venue has one address for each category, and calls a spot pair and a perpetual alike. So an instrument is
called ``BTCUSDT-SPOT`` or ``BTCUSDT-LINEAR``; one venue of a config may have both. A bare ``BTCUSDT`` is of the
category that the canonical symbol of its subscription tells (``BTC-USDT-PERP``: linear), or else the option
``category`` does.

Integrity:

* book: the update id ``u`` rises by 1 from message to message of a topic; the snapshot comes on the socket. There is no
  checksum. After a restart of the venue's service a snapshot with ``u`` 1 replaces the book; that is no gap.
* trades are not numbered: ids are UUIDs (contracts) or whole numbers with holes (spot pairs).

Quirks:

* One bad topic fails its whole request, so what was refused is asked for again topic by topic.
* The answer to a ping has the ``op`` of the question. Answers name no topic, only the id of the request.
* To subscribe to what is subscribed already is an error that brings no snapshot; unsubscribe first.
* ``type`` of trades is always snapshot. Quotes come again after 3 s without change; these make no record.
* The side of a liquidation is that of the position, not of the order that closes it.
* Block trades (``BT``) and fills of orders that improve the price for retail (``RPI``) are trades as any other in the
  records; neither were in the book.
* Maintenance is not announced on these sockets. A contract before its launch is silent.

Records: sizes are of the base asset. ``venue_seq`` is ``seq``, one count of the matching engine for all of an
instrument, which does not rise by 1. ``ts_event`` of LEVEL and BBO is that of the match.

Runs in the worker of the venue (``feed/worker.py``) and in ``capture.py``::

    adapter = BybitAdapter(BybitAdapter.endpoints, BybitOptions(), subscriptions)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple

import msgspec
from msgspec import Struct

from mdring.adapters.bybit_book import DELTA_FORM, BybitBook, Levels
from mdring.adapters.bybit_channels import (
    MS,
    QUOTE_FORM,
    TRADES_FORM,
    Liquidation,
    Liquidations,
    Push,
    Quote,
    Quotes,
    Ticker,
    Tickers,
    TopicHandler,
    Trade,
    Trades,
    head_of,
)
from mdring.adapters.bybit_metadata import (
    CATEGORIES,
    Product,
    decode_instruments,
    instruments_fetch,
    product_of,
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
    Rejected,
    Request,
    Response,
    Send,
    Subscription,
    UnknownMessages,
    VenueProtocolError,
    blamed,
)
from mdring.feed.direct import DeltaRoute, DirectRoutes, QuoteRoute, Route, TradeRoute
from mdring.feed.emit import Emit
from mdring.feed.fixed import quoted_after
from mdring.feed.message_route import MessageRoute
from mdring.feed.stage import Channel
from mdring.record import DataType, Reason

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; those of topics stand in ``bybit_channels.py`` and
# ``bybit_book.py``.


class Answer(Struct):
    """{"success":true,"ret_msg":"subscribe","conn_id":"d9avrao7pl3bpiuoku0g-7tmms","req_id":"test","op":"subscribe"}

    If it is refused, ``ret_msg`` says why. Answers have ``op``; data has ``topic``, which is not bound to stand first.
    """

    op: str = ""
    success: bool = True  # the pong of options says nothing of it
    ret_msg: str = ""
    req_id: str = ""
    topic: str = ""


_ANSWER: Final = msgspec.json.Decoder(Answer)
_PREFIX: Final = b'{"topic":"'


# ---- endpoints and limits ---------------------------------------------------------------------------------

ARGUMENTS_PER_REQUEST: Final = 10  # of spot; contracts may have more
CHARACTERS_PER_CONNECTION: Final = 20_000  # of 21,000 for all that is subscribed to
PING_INTERVAL_S: Final = 20.0  # as the venue recommends
_PATH: Final = "/v5/public"


class BybitOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.options]``. ``category`` is that of names that do not tell theirs."""

    category: Literal["spot", "linear"] = "spot"
    book_depth: Literal[50, 200, 1000] = 200  # levels a side; told every 20, 100, 200 ms


def websocket_url(base: str, category: str) -> str:
    """The endpoint of a category. ``base`` may be that of any, too."""
    return f"{base.partition(_PATH)[0].rstrip('/')}{_PATH}/{category}"


# ---- subscribe --------------------------------------------------------------------------------------------


def topic_of(symbol: str, data_type: DataType, book_depth: int) -> str:
    """What carries these data."""
    match data_type:
        case DataType.TRADE:
            return f"publicTrade.{symbol}"
        case DataType.BBO:
            return f"orderbook.1.{symbol}"
        case DataType.BOOK:
            return f"orderbook.{book_depth}.{symbol}"
        case DataType.LIQUIDATION:
            return f"allLiquidation.{symbol}"
    return f"tickers.{symbol}"


def characters(topics: Sequence[str]) -> int:
    """How long these arguments are, each in quotes, with a comma."""
    return sum(len(topic) + 3 for topic in topics)


class Asked(NamedTuple):
    """A request that was sent and is not answered."""

    op: str
    topics: tuple[str, ...]


# ---- the adapter ------------------------------------------------------------------------------------------


_TRADES: Final = msgspec.json.Decoder(Push[list[Trade]])
_QUOTES: Final = msgspec.json.Decoder(Push[Quote])
_BOOKS: Final = msgspec.json.Decoder(Push[Levels])
_TICKERS: Final = msgspec.json.Decoder(Push[Ticker])
_LIQUIDATIONS: Final = msgspec.json.Decoder(Push[list[Liquidation]])


class Line:
    """One connection: what is subscribed to on it, and where its messages go."""

    def __init__(self, category: str) -> None:
        self.category = category
        self.instruments: dict[str, str] = {}  # by symbol
        self.watchers: dict[str, list[tuple[str, DataType]]] = {}  # (instrument, data type) by topic
        self.characters = 0  # of all topics
        self.routes: dict[bytes, MessageRoute] = {}  # by topic
        self.handlers: list[TopicHandler] = []
        self.books: dict[str, BybitBook] = {}  # by topic
        self.tickers: dict[str, Tickers] = {}  # by topic
        self.asked: dict[str, Asked] = {}  # by id of the request

    def has_room(self, symbol: str, topics: Sequence[str]) -> bool:
        """Whether this instrument fits. The same under two names takes two connections."""
        fits = self.characters + characters(topics) <= CHARACTERS_PER_CONNECTION
        return fits and symbol not in self.instruments


class BybitAdapter(Adapter):
    """Bybit v5, spot and linear. One object serves all connections of one worker, of both categories."""

    venue: ClassVar[str] = "bybit"
    data_types: ClassVar[tuple[DataType, ...]] = (
        DataType.TRADE,
        DataType.BBO,
        DataType.BOOK,
        DataType.FUNDING,
        DataType.MARK,
        DataType.OPEN_INTEREST,
        DataType.LIQUIDATION,
    )
    integrity: ClassVar[str] = "book: update id + 1, snapshot on the socket; trades: none"
    endpoints: ClassVar[Endpoints] = Endpoints("wss://stream.bybit.com", "https://api.bybit.com")
    limits: ClassVar[Limits] = Limits(
        connect_interval_s=0.6,  # 500 in 5 minutes
        weight_per_minute=7_200,  # 600 calls in 5 s
        stale_after_s=120.0,  # quotes come every 3 s; books and trades of a quiet instrument may be silent for long
        timer_interval_s=PING_INTERVAL_S,
    )
    options: ClassVar[type[Struct]] = BybitOptions
    direct: DirectRoutes

    def __init__(self, endpoints: Endpoints, options: BybitOptions, subscriptions: Sequence[Subscription]) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._options = options
        self._endpoints = endpoints
        self._subscriptions = {subscription.instrument: subscription for subscription in subscriptions}
        self._products = {
            name: product_of(name, subscription.canonical_symbol, options.category)
            for name, subscription in self._subscriptions.items()
        }
        self._names: dict[str, list[str]] = {}  # subscribed to, by the name that tells the category
        for name, product in self._products.items():
            self._names.setdefault(product.name, []).append(name)
        self._lines: list[Line] = []
        self.direct = DirectRoutes(_PREFIX.decode())
        self._line_of: dict[str, int] = {}
        self._last_id = 0

    # Metadata

    def metadata_requests(self) -> Sequence[Fetch]:
        """The lists of all categories: patterns may mean instruments of any."""
        return [instruments_fetch(self._endpoints.rest_url, category) for category in CATEGORIES]

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo | Fetch]:
        """All instruments of one page, and the next one to fetch. What is subscribed to by a bare name has that."""
        if response.status != 200:
            raise VenueProtocolError(f"instruments: HTTP {response.status} {response.body[:200]!r}")
        category, _, cursor = response.tag.partition(" ")
        infos, next_cursor = decode_instruments(category, response.body, self.unknown)
        if next_cursor and next_cursor == cursor:
            raise VenueProtocolError(f"instruments: the page after {cursor} is itself")
        found = [named for info in infos for named in self._as_subscribed(info)]
        return [*found, *([instruments_fetch(self._endpoints.rest_url, category, next_cursor)] if next_cursor else [])]

    def _as_subscribed(self, info: InstrumentInfo) -> list[InstrumentInfo]:
        """The instrument under the names by which it is subscribed to; under its own if it is not."""
        names = self._names.get(info.instrument, (info.instrument,))
        return [msgspec.structs.replace(info, instrument=name) for name in names]

    # Connections

    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Spread the instruments over connections, each of one category, and lay the routes of their topics."""
        for name, subscription in self._subscriptions.items():
            if name in channels:
                self._place(channels[name], subscription.data_types, self._products[name])

    def _place(self, channel: Channel, data_types: Sequence[DataType], product: Product) -> None:
        topics: dict[str, list[DataType]] = {}
        for data_type in data_types:
            topics.setdefault(topic_of(product.symbol, data_type, self._options.book_depth), []).append(data_type)
        number = self._line_with_room(product, list(topics))
        line, name = self._lines[number], channel.instrument
        self._line_of[name] = number
        line.instruments[product.symbol] = name
        line.characters += characters(list(topics))
        for topic, carried in topics.items():
            line.watchers[topic] = [(name, data_type) for data_type in carried]
            self._lay_route(number, topic, channel, carried)

    def _line_with_room(self, product: Product, topics: Sequence[str]) -> int:
        for number, line in enumerate(self._lines):
            if line.category == product.category and line.has_room(product.symbol, topics):
                return number
        self._lines.append(Line(product.category))
        return len(self._lines) - 1

    def _lay_route(self, number: int, topic: str, channel: Channel, data_types: Sequence[DataType]) -> None:
        line, data_type = self._lines[number], data_types[0]
        if data_type is DataType.BOOK:
            book = BybitBook(channel, lambda op, delay_ns: self._request(number, op, (topic,), delay_ns), self.counts)
            line.books[topic] = book
            self.counts.books += 1
            line.routes[topic.encode()] = MessageRoute(_BOOKS.decode, book.on_push, channel.instrument, data_type)
            form = DELTA_FORM % (topic, head_of(line.category, "delta"))
            self.direct.add(topic, DeltaRoute(form, channel, book.sync, unit_ns=MS), connection=number)
            return
        head = topic.rpartition(".")[2], head_of(line.category, "snapshot")
        handler: TopicHandler
        decoder: msgspec.json.Decoder[Any]
        direct: Route | None = None
        match data_type:
            case DataType.TRADE:
                trades = Trades(channel)
                handler, decoder = trades, _TRADES
                direct = TradeRoute(TRADES_FORM % head, channel, trades.ids, unit_ns=MS, consecutive=False)
            case DataType.BBO:
                quotes = Quotes(channel)
                handler, decoder = quotes, _QUOTES
                direct = QuoteRoute(QUOTE_FORM % head, channel, quotes.ids, unit_ns=MS)
            case DataType.LIQUIDATION:
                handler, decoder = Liquidations(channel), _LIQUIDATIONS
            case _:
                handler = line.tickers[topic] = Tickers(channel, data_types)
                decoder = _TICKERS
        line.handlers.append(handler)
        line.routes[topic.encode()] = MessageRoute(decoder.decode, handler.on_push, channel.instrument, data_type)
        if direct is not None:
            self.direct.add(topic, direct, connection=number)

    def connections(self) -> Sequence[Connection]:
        """As ``bind`` has spread them."""
        base = self._endpoints.websocket_url
        return [
            Connection(number, websocket_url(base, line.category), tuple(line.instruments.values()))
            for number, line in enumerate(self._lines)
        ]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Subscribe, as many topics in a request as the venue takes."""
        line = self._lines[connection]
        for handler in line.handlers:
            handler.on_connect()
        for book in line.books.values():
            book.sync.on_subscribe(now_ns)
        topics = tuple(line.watchers)
        return [
            self._request(connection, "subscribe", topics[first : first + ARGUMENTS_PER_REQUEST])
            for first in range(0, len(topics), ARGUMENTS_PER_REQUEST)
        ]

    def _request(self, connection: int, op: str, topics: tuple[str, ...], delay_ns: int = 0) -> Send:
        self._last_id += 1
        number = str(self._last_id)
        self._lines[connection].asked[number] = Asked(op, topics)
        request = {"req_id": number, "op": op, "args": topics}
        return Send(connection, msgspec.json.encode(request).decode(), ack=number, delay_ns=delay_ns)

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """CLEAR the books."""
        line = self._lines[connection]
        line.asked.clear()
        for book in line.books.values():
            book.sync.on_disconnect(reason, emit)
        return NOTHING

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Ping, and look for books that are late."""
        requests: list[Request] = [Send(connection, PING, ack="pong", urgent=True)]
        for book in self._lines[connection].books.values():
            requests.extend(book.sync.on_timer(now_ns, emit))
        return requests

    # Messages

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One frame is one message. Its topic, most often at its beginning, says what it holds."""
        message = payload if type(payload) is bytes else bytes(payload)
        topic = quoted_after(message, _PREFIX)
        route = None if topic is None else self._lines[connection].routes.get(topic)
        if route is None:
            return self._on_other(connection, message, ts_recv, emit)
        return route.take(message, ts_recv, emit)

    def _on_other(self, connection: int, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Answers, pongs, topics that nobody asked for, or that stand elsewhere in the message."""
        try:
            answer = _ANSWER.decode(message)
        except UNREADABLE as error:
            raise blamed(error, None, DataType.STATUS) from error
        if answer.topic:
            route = self._lines[connection].routes.get(answer.topic.encode())
            if route is not None:
                return route.take(message, ts_recv, emit)
            self.unknown.note(f"topic {answer.topic.partition('.')[0]}", message)
            return NOTHING
        match answer.op:
            case "ping" | "pong":
                return (Acknowledged(connection, "pong"),)
            case "subscribe" | "unsubscribe":
                return self._on_answer(connection, answer, ts_recv, emit)
        if not answer.success:
            raise VenueProtocolError(f"the venue answers: {answer.ret_msg}", reason=Reason.SUBSCRIBE_REJECTED)
        if not answer.op:
            raise VenueProtocolError(f"a message of no known shape: {message[:80]!r}")
        self.unknown.note(f"op {answer.op}", message)
        return NOTHING

    def _on_answer(self, connection: int, answer: Answer, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A request is done, or refused as a whole. What was not awaited says nothing."""
        line = self._lines[connection]
        asked = line.asked.pop(answer.req_id, None)
        if asked is None:
            if answer.success:
                return NOTHING
            raise VenueProtocolError(f"the venue answers: {answer.ret_msg}", reason=Reason.SUBSCRIBE_REJECTED)
        requests: list[Request] = [Acknowledged(connection, answer.req_id)]
        if asked.op == "unsubscribe":  # if refused, there was nothing to end
            for topic in asked.topics:
                requests.extend(self._on_unsubscribed(connection, topic, ts_recv))
        elif not answer.success and len(asked.topics) > 1:
            requests.extend(self._request(connection, "subscribe", (topic,)) for topic in asked.topics)
        elif not answer.success and ALREADY_SUBSCRIBED not in answer.ret_msg:
            (topic,) = asked.topics
            for name, data_type in line.watchers[topic]:
                requests.append(Rejected(connection, name, answer.ret_msg, data_type))
            if topic in line.books:
                line.books[topic].sync.on_rejected(Reason.SUBSCRIBE_REJECTED, emit)
        return requests

    def _on_unsubscribed(self, connection: int, topic: str, ts_recv: int) -> Sequence[Request]:
        """What was ended begins anew."""
        book = self._lines[connection].books.get(topic)
        return (
            (self._request(connection, "subscribe", (topic,)),) if book is None else book.sync.on_unsubscribed(ts_recv)
        )

    def on_reject(self, connection: int, error: VenueProtocolError, now_ns: int, emit: Emit) -> Sequence[Request]:
        """A ticker that was refused may have been its only snapshot, or have told what is not told again: ask for
        another snapshot."""
        if (
            error.data_type in (DataType.FUNDING, DataType.MARK, DataType.OPEN_INTEREST)
            and error.instrument is not None
        ):
            topic = topic_of(self._products[error.instrument].symbol, error.data_type, self._options.book_depth)
            ticker = self._lines[connection].tickers.get(topic)
            if ticker is not None and ticker.may_begin_anew(now_ns):
                return (self._request(connection, "unsubscribe", (topic,)),)
        return super().on_reject(connection, error, now_ns, emit)

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Nothing but metadata is fetched."""
        return NOTHING

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rebuild one book; no other is touched."""
        number = self._line_of.get(instrument)
        if number is None:
            return NOTHING
        topic = topic_of(self._products[instrument].symbol, DataType.BOOK, self._options.book_depth)
        book = self._lines[number].books.get(topic)
        return NOTHING if book is None else book.sync.resync(now_ns, reason, emit)

    def book_depth(self, instrument: str) -> int | None:
        """The window of the topic."""
        return self._options.book_depth

    def is_data(self, payload: bytes | memoryview) -> bool:
        """Everything that has a topic; answers have none."""
        return b'"topic":' in bytes(payload)


PING: Final = '{"req_id":"ping","op":"ping"}'
ALREADY_SUBSCRIBED: Final = "already subscribed"
