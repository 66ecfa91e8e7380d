"""Deribit: trades, best bid and ask, books, funding, mark and index price, open interest, liquidations.

JSON-RPC 2.0 over WebSocket, API v2: spot pairs, perpetuals, futures, options. Documentation (read November 2026):
docs.deribit.com (JSON-RPC overview, "Notifications", the channels' pages, "Connection management", "Rate limits",
"Market data collection best practices", error codes). Another address in the config serves the test network.

Integrity:

* book: each change names the one before it (``prev_change_id``); the snapshot comes on the socket. The ids rise, but
  by any amount: they are one count for many instruments. There is no checksum.
* trades: ``trade_seq`` counts those of an instrument.

Quirks:

* Whatever cannot be subscribed to is missing in the list that answers the request, without an error. To subscribe again
  to what is subscribed already brings no snapshot: unsubscribe first.
* The channels ``raw`` want a login since 2022; one of them among others has the whole request refused. They are decoded
  nevertheless, for recordings have them.
* The keep-alive is asked for (``public/set_heartbeat``); each ``test_request`` then wants a ``public/test``, or the
  connection is closed (4000). A quiet book sends nothing, so a heartbeat is all that says that the venue lives.
* Numbers are bare JSON numbers, some in scientific notation. An empty side of a quote is null, or 0.
* Each leg of a combo's trade is a trade of its instrument, too, at a price that need not be on its ticks.
* ``platform_state`` tells when maintenance begins, and which index is locked, over and over: HALTED and TRADING.

Records: ``venue_seq`` of LEVEL is ``change_id``, of TRADE and LIQUIDATION ``trade_seq``. Sizes of inverse futures are
USD, all others coins. FUNDING is the rate at which funding accrues, for 8 h. A liquidation is known by the trade that
it made, whose price stands as ``order_price``.

Runs in the worker of the venue (``feed/worker.py``) and in ``capture.py``::

    adapter = DeribitAdapter(DeribitAdapter.endpoints, DeribitOptions(), subscriptions)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple

import msgspec
from msgspec import Raw, Struct

from mdring.adapters.deribit_book import CHANGE_FORM, DeribitBook, Levels
from mdring.adapters.deribit_channels import (
    MS,
    QUOTE_FORM,
    TICKER_PARTS,
    TRADES_FORM,
    Halts,
    Params,
    PlatformState,
    Push,
    Quote,
    Ticker,
    Tickers,
    Trade,
    Trades,
    quotes,
)
from mdring.adapters.deribit_metadata import ANY, currency_of, decode_instruments, instruments_fetch
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
from mdring.feed.fixed import quoted_after
from mdring.feed.message_route import Handler, MessageRoute
from mdring.feed.stage import Channel
from mdring.record import DataType, Reason

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; those of the channels stand in ``deribit_channels.py`` and ``deribit_book.py``.


class Error(Struct):
    """{"code":13778,"message":"raw_subscriptions_not_available_for_unauthorized"}"""

    code: int
    message: str
    data: Raw = Raw()


class HeartbeatParams(Struct):
    """{"type":"test_request"}"""

    type: str


class Message(Struct):
    """{"jsonrpc":"2.0","id":3,"result":["book.BTC-PERPETUAL.100ms"],"usIn":1790133840888348,"usOut":1790133840889867,"usDiff":1519,"testnet":false}

    Answers have ``id``, and ``result`` or ``error``; what the venue says of itself has ``method`` and ``params``.
    """

    method: str = ""
    params: Raw = Raw()
    id: int | str | None = None
    result: Raw = Raw()
    error: Error | None = None


_MESSAGE: Final = msgspec.json.Decoder(Message)
_HEARTBEAT: Final = msgspec.json.Decoder(HeartbeatParams)
_PARAMS: Final = msgspec.json.Decoder(Params[Raw])
_CHANNELS: Final = msgspec.json.Decoder(list[str])
_PREFIX: Final = b'{"jsonrpc":"2.0","method":"'
_PUSH: Final = b'{"jsonrpc":"2.0","method":"subscription","params":{"channel":"'

TRY_AGAIN: Final = (10028, 10066, 11051, 13028)
"""Errors that pass: too_many_requests (which ends the session), too_many_concurrent_requests, system_maintenance,
temporarily_unavailable."""


# ---- endpoints and limits ---------------------------------------------------------------------------------

CHANNELS_PER_REQUEST: Final = 200
CHANNELS_PER_CONNECTION: Final = 500  # "Market data collection best practices"; an address may have 32 connections
REQUEST_INTERVAL_S: Final = 0.3  # subscriptions: 10 at once, 3.3 in a second ("Rate limits")
HEARTBEAT_INTERVAL_S: Final = 10  # the least that the venue accepts
INTERVALS: Final = ("100ms", "agg2", "raw")


class DeribitOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.options]``"""

    interval: Literal["100ms", "agg2"] = "100ms"  # agg2: about a second, for links that are slow
    bbo_channel: Literal["quote", "ticker"] = "quote"  # every change, or at that interval


def websocket_url(base: str) -> str:
    """The endpoint, unless ``base`` names a path itself."""
    url = base.rstrip("/")
    return url if "/ws/" in url else f"{url}/ws/api/v2"


# ---- subscribe --------------------------------------------------------------------------------------------

PLATFORM_STATE: Final = "platform_state"


class Topic(NamedTuple):
    """A channel of an instrument, whatever its interval: ``kind`` is book, trades, ticker or quote."""

    kind: str
    instrument: str

    def channel(self, interval: str) -> str:
        """Its name on the wire."""
        return f"quote.{self.instrument}" if self.kind == "quote" else f"{self.kind}.{self.instrument}.{interval}"


def topic_of(channel: str) -> Topic:
    """What a name on the wire means. Names of instruments have no point."""
    kind, _, rest = channel.partition(".")
    return Topic(kind, rest.partition(".")[0])


def kind_of(data_type: DataType, options: DeribitOptions) -> str:
    """Which channel carries these data."""
    match data_type:
        case DataType.TRADE | DataType.LIQUIDATION:
            return "trades"
        case DataType.BBO:
            return options.bbo_channel
        case DataType.BOOK:
            return "book"
    return "ticker"


class Asked(NamedTuple):
    """A request that is to be answered."""

    method: str
    topics: tuple[Topic, ...] = ()


# ---- the adapter ------------------------------------------------------------------------------------------


DECODERS: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    "book": msgspec.json.Decoder(Push[Levels]),
    "trades": msgspec.json.Decoder(Push[list[Trade]]),
    "quote": msgspec.json.Decoder(Push[Quote]),
    "ticker": msgspec.json.Decoder(Push[Ticker]),
    PLATFORM_STATE: msgspec.json.Decoder(Push[PlatformState]),
}


class Line:
    """One connection: what is subscribed to on it, and where its messages go."""

    def __init__(self) -> None:
        self.instruments: list[str] = []
        self.topics: dict[Topic, list[DataType]] = {}  # with what is wanted of each
        self.routes: dict[bytes, MessageRoute] = {}  # by channel
        self.books: dict[str, DeribitBook] = {}
        self.tickers: list[Tickers] = []
        self.halts = Halts()
        self.asked: dict[int | str | None, Asked] = {}  # by id


class DeribitAdapter(Adapter):
    """Deribit. One object serves all connections of one worker."""

    venue: ClassVar[str] = "deribit"
    data_types: ClassVar[tuple[DataType, ...]] = (
        DataType.TRADE,
        DataType.BBO,
        DataType.BOOK,
        DataType.FUNDING,
        DataType.MARK,
        DataType.OPEN_INTEREST,
        DataType.LIQUIDATION,
    )
    integrity: ClassVar[str] = "book: prev_change_id chain, snapshot on the socket; trades: consecutive trade_seq"
    endpoints: ClassVar[Endpoints] = Endpoints("wss://www.deribit.com", "https://www.deribit.com")
    limits: ClassVar[Limits] = Limits(
        send_interval_s=REQUEST_INTERVAL_S,
        weight_per_minute=60,  # lists of instruments: one in a second
        stale_after_s=60.0,  # a heartbeat comes every 11 s
        timer_interval_s=10.0,
    )
    options: ClassVar[type[Struct]] = DeribitOptions
    direct: DirectRoutes

    def __init__(self, endpoints: Endpoints, options: DeribitOptions, subscriptions: Sequence[Subscription]) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._options = options
        self._endpoints = endpoints
        self._url = websocket_url(endpoints.websocket_url)
        self._subscriptions = {subscription.instrument: subscription for subscription in subscriptions}
        self._lines: list[Line] = []
        self._line_of: dict[str, int] = {}
        self.direct = DirectRoutes(_PUSH.decode(), '"')
        self._last_id = 0

    # Metadata

    def metadata_requests(self) -> Sequence[Fetch]:
        """The list of all instruments."""
        return (instruments_fetch(self._endpoints.rest_url),)

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo | Fetch]:
        """All instruments of one list; or where else there are lists of those subscribed to."""
        currencies = sorted({currency_of(name) for name in self._subscriptions})
        if response.status == 404 and response.tag == ANY and currencies:
            return [instruments_fetch(self._endpoints.rest_url, currency) for currency in currencies]
        if response.status != 200:
            raise VenueProtocolError(f"instruments: HTTP {response.status} {response.body[:200]!r}")
        return decode_instruments(response.body, self.unknown)

    # Connections

    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Spread the instruments over connections and lay the routes of their channels."""
        for name, subscription in self._subscriptions.items():
            if name not in channels:
                continue
            topics: dict[Topic, list[DataType]] = {}
            for data_type in (one for one in self.data_types if one in subscription.data_types):
                topics.setdefault(Topic(kind_of(data_type, self._options), name), []).append(data_type)
            if not self._lines or len(self._lines[-1].topics) + len(topics) >= CHANNELS_PER_CONNECTION:
                self._lines.append(Line())
                self._lay_platform_state(self._lines[-1])
            number = len(self._lines) - 1
            line = self._lines[number]
            line.instruments.append(name)
            line.halts.channels.append(channels[name])
            line.topics.update(topics)
            self._line_of[name] = number
            self._lay_routes(number, channels[name], subscription.data_types)

    def _lay_platform_state(self, line: Line) -> None:
        route = MessageRoute(DECODERS[PLATFORM_STATE].decode, line.halts.on_push, None, DataType.STATUS)
        line.routes[PLATFORM_STATE.encode()] = route

    def _lay_routes(self, number: int, channel: Channel, wanted: Sequence[DataType]) -> None:
        """Quotes are read from whichever of their channels comes."""
        line, name = self._lines[number], channel.instrument
        if DataType.BOOK in wanted:
            topic = Topic("book", name)
            book = DeribitBook(
                channel, lambda method, delay_ns: self._change(number, method, [topic], delay_ns), self.counts
            )
            line.books[name] = book
            self.counts.books += 1
            self._lay(line, topic, book.on_push, DataType.BOOK)
            self._lay_direct(topic, DeltaRoute, CHANGE_FORM, channel, book.sync)
        trades = [data_type for data_type in (DataType.TRADE, DataType.LIQUIDATION) if data_type in wanted]
        if trades:
            fills = Trades(channel, trades, self.counts)
            self._lay(line, Topic("trades", name), fills.on_push, trades[0])
            if DataType.TRADE in trades:
                self._lay_direct(Topic("trades", name), TradeRoute, TRADES_FORM, channel, fills.sequence)
        told = [data_type for data_type in TICKER_PARTS if data_type in wanted]
        if told:
            tickers = Tickers(channel, told)
            line.tickers.append(tickers)
            self._lay(line, Topic("ticker", name), tickers.on_push, told[0])
            if DataType.BBO in wanted:
                self._lay(line, Topic("quote", name), quotes(channel, tickers), DataType.BBO)
                self._lay_direct(Topic("quote", name), QuoteRoute, QUOTE_FORM, channel, tickers.quotes)

    def _lay(self, line: Line, topic: Topic, handle: Handler, data_type: DataType) -> None:
        """For every interval, so that a recording may have another one."""
        route = MessageRoute(DECODERS[topic.kind].decode, handle, topic.instrument, data_type)
        for interval in INTERVALS:
            line.routes[topic.channel(interval).encode()] = route

    def _lay_direct(self, topic: Topic, route: type[Route], form: str, channel: Channel, chain: Chain) -> None:
        laid = route(form % channel.instrument, channel, chain, unit_ns=MS)
        for carrier in dict.fromkeys(topic.channel(interval) for interval in INTERVALS):
            self.direct.add(carrier, laid)

    def connections(self) -> Sequence[Connection]:
        """As ``bind`` has spread them."""
        return [Connection(number, self._url, tuple(line.instruments)) for number, line in enumerate(self._lines)]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Ask for heartbeats, then subscribe."""
        line = self._lines[connection]
        for book in line.books.values():
            book.sync.on_subscribe(now_ns)
        for tickers in line.tickers:
            tickers.restart()
        heartbeat = {"interval": HEARTBEAT_INTERVAL_S}
        wanted = [Topic(PLATFORM_STATE, ""), *line.topics]
        requests = [self._send(connection, Asked("public/set_heartbeat"), heartbeat, urgent=True)]
        parts = [wanted[at : at + CHANNELS_PER_REQUEST] for at in range(0, len(wanted), CHANNELS_PER_REQUEST)]
        return requests + [self._change(connection, "subscribe", part) for part in parts]

    def _change(self, connection: int, method: str, topics: Sequence[Topic], delay_ns: int = 0) -> Send:
        """``method``: subscribe or unsubscribe."""
        channels = [topic.channel(self._options.interval) if topic.instrument else topic.kind for topic in topics]
        asked = Asked(f"public/{method}", tuple(topics))
        return self._send(connection, asked, {"channels": channels}, delay_ns=delay_ns)

    def _send(
        self, connection: int, asked: Asked, params: Mapping[str, Any], *, delay_ns: int = 0, urgent: bool = False
    ) -> Send:
        self._last_id += 1
        self._lines[connection].asked[self._last_id] = asked
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": asked.method, "params": params}
        text = msgspec.json.encode(request).decode()
        return Send(connection, text, ack=str(self._last_id), delay_ns=delay_ns, urgent=urgent)

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """CLEAR the books. Numbers of trades are kept: the next one tells how many were missed."""
        line = self._lines[connection]
        line.asked.clear()
        for book in line.books.values():
            book.sync.on_disconnect(reason, emit)
        return NOTHING

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Look for books that are late."""
        requests: list[Request] = []
        for book in self._lines[connection].books.values():
            requests.extend(book.sync.on_timer(now_ns, emit))
        return requests

    # Messages

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One frame is one message. Its channel, near its beginning, says what it holds."""
        message = payload if type(payload) is bytes else bytes(payload)
        route = self._lines[connection].routes.get(quoted_after(message, _PUSH) or b"")
        if route is None:
            return self._on_other(connection, message, ts_recv, emit)
        return route.take(message, ts_recv, emit)

    def _on_other(self, connection: int, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Heartbeats, answers, channels that nobody asked for, or messages that are written in another way."""
        try:
            other = _MESSAGE.decode(message)
            match other.method:
                case "subscription":
                    channel = _PARAMS.decode(other.params).channel
                    route = self._lines[connection].routes.get(channel.encode())
                    if route is not None:
                        return route.take(message, ts_recv, emit)
                    self.unknown.note(f"channel {channel.partition('.')[0]}", message)
                case "heartbeat":
                    if _HEARTBEAT.decode(other.params).type == "test_request":
                        return (self._send(connection, Asked("public/test"), {}, urgent=True),)
                case "" if other.error is not None:
                    return self._on_error(connection, other.id, other.error, ts_recv, emit)
                case "" if bytes(other.result):
                    return self._on_answer(connection, other.id, other.result, ts_recv, emit)
                case "":
                    raise VenueProtocolError(f"a message of no known shape: {message[:80]!r}")
                case _:
                    self.unknown.note(f"method {other.method}", message)
        except UNREADABLE as error:
            raise blamed(error, None, DataType.STATUS) from error
        return NOTHING

    def _on_answer(
        self, connection: int, number: int | str | None, result: Raw, ts_recv: int, emit: Emit
    ) -> Sequence[Request]:
        """A request is granted, or those of its channels that the answer names. What was not asked says nothing."""
        line = self._lines[connection]
        asked = line.asked.pop(number, None)
        if asked is None:
            return NOTHING
        requests: list[Request] = [Acknowledged(connection, str(number))]
        if asked.method == "public/unsubscribe":
            requests.extend(self._on_ended(line, asked, ts_recv))
        elif asked.method == "public/subscribe":
            accepted = {topic_of(channel) for channel in _CHANNELS.decode(result)}
            if accepted <= set(asked.topics):  # else it is the answer to a request of a recording
                if Topic(PLATFORM_STATE, "") in asked.topics:
                    line.halts.on_subscribed(emit)
                for topic in asked.topics:
                    if topic not in accepted:
                        text = f"the venue's answer lacks {topic.channel(self._options.interval)}"
                        requests.extend(self._on_refused(connection, topic, text, emit))
        return requests

    def _on_error(
        self, connection: int, number: int | str | None, error: Error, ts_recv: int, emit: Emit
    ) -> Sequence[Request]:
        """A request is refused as a whole."""
        text = f"{error.code} {error.message} {bytes(error.data).decode(errors='replace')}".rstrip()
        if error.code in TRY_AGAIN:
            return (Reconnect(connection, Reason.SUBSCRIBE_REJECTED, text),)
        line = self._lines[connection]
        asked = line.asked.pop(number, None)
        if asked is None or not asked.topics:
            raise VenueProtocolError(f"the venue answered with an error: {text}", reason=Reason.SUBSCRIBE_REJECTED)
        requests: list[Request] = [Acknowledged(connection, str(number))]
        if asked.method == "public/unsubscribe":  # there is nothing to end
            requests.extend(self._on_ended(line, asked, ts_recv))
        else:
            for topic in asked.topics:
                requests.extend(self._on_refused(connection, topic, text, emit))
        return requests

    def _on_ended(self, line: Line, asked: Asked, ts_recv: int) -> list[Request]:
        requests: list[Request] = []
        for topic in asked.topics:
            requests.extend(line.books[topic.instrument].sync.on_unsubscribed(ts_recv))
        return requests

    def _on_refused(self, connection: int, topic: Topic, text: str, emit: Emit) -> list[Request]:
        """One channel cannot be had; the others go on."""
        line = self._lines[connection]
        if topic.kind == "book":
            line.books[topic.instrument].sync.on_rejected(Reason.SUBSCRIBE_REJECTED, emit)
        return [Rejected(connection, topic.instrument, text, data_type) for data_type in line.topics.get(topic, ())]

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Nothing but metadata is fetched."""
        return NOTHING

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rebuild one book; no other is touched."""
        number = self._line_of.get(instrument)
        book = None if number is None else self._lines[number].books.get(instrument)
        return NOTHING if book is None else book.sync.resync(now_ns, reason, emit)

    def is_data(self, payload: bytes | memoryview) -> bool:
        """What the venue sends of itself, heartbeats among it: a quiet instrument has nothing else."""
        return bytes(payload[: len(_PREFIX)]) == _PREFIX
