"""Kraken Spot, WebSocket v2: trades, best bid and ask, books.

Documentation (read November 2026): docs.kraken.com, WebSocket v2 ("Book", "Trades", "Ticker (L1)", "Status",
"Heartbeat", "Ping", "Instruments"), guide "Book checksum"; REST "Get Tradable Asset Pairs".

Integrity:

* book: no ids. Each message brings a CRC-32 of the best 10 levels a side, of the book as it is after it, which is
  compared every time; the snapshot comes on the socket. It sees nothing beyond the tenth level: of the depths that the
  venue offers, 10 alone is proven whole, hence the default. With a deeper book a message that is lost, and not known
  whose it was, costs the connection.
* trades: ``trade_id`` rises by one per pair. Quotes: none.

Quirks:

* Levels that better ones push out of the window are never deleted by a message: the book is cut to the depth after
  each one, and what was cut is staged as deleted.
* Numbers are bare JSON numbers, whose digits the checksum is of: with as many decimals as the pair has, zeros too.
* Every symbol of a request is acknowledged by itself. An error names the symbol in its text only, and not always.
* To end a subscription its depth must be named; to subscribe to what is subscribed already is an error.
* A heartbeat comes each second in which nothing else does, as soon as anything is subscribed to. It is no data: pairs
  may be quiet for minutes, but ten seconds without either are the end of a connection.
* The ticker tells of "a change in the best-bid-offer price levels".
* ``connection_id`` of a status message outgrows 64 bits with a sign, and is not read. Timestamps of books and tickers
  are missing on older servers.

Records: ``venue_seq`` of TRADE is the trade's id, else 0. Whether a pair is traded is told as STATUS(HALTED) and
STATUS(TRADING), by the channels ``status`` and ``instrument``. Trades of the history that a subscription brings have
SNAPSHOT and RECOVERED.

Runs in the worker of the venue (``feed/worker.py``) and in ``capture.py``::

    adapter = KrakenAdapter(KrakenAdapter.endpoints, KrakenOptions(), subscriptions)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from mdring.adapters.kraken_channels import (
    TICKER_FORM,
    TRADE_FORM,
    Handler,
    Push,
    System,
    Ticker,
    Trade,
    Trades,
    Trading,
    only,
    quotes,
)
from mdring.adapters.kraken_metadata import PairRow, Reference, asset_pairs_fetch, decode_asset_pairs
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
from mdring.feed.book_routes import CheckedRoute
from mdring.feed.chain import Chain
from mdring.feed.direct import DirectRoutes, Place, QuoteRoute, TradeRoute
from mdring.feed.direct import Route as DirectRoute
from mdring.feed.emit import Channel, Emit
from mdring.feed.fixed import time_ns
from mdring.feed.local_book import LocalBook
from mdring.feed.socket_book import BookWire, SocketBook
from mdring.record import DataType, Flags, Reason, Side

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; those of the other channels stand in ``kraken_channels.py``.


class Levels(Struct, gc=False):
    """{"symbol":"BTC/USD","bids":[{"price":78858.8,"qty":0.00000000},{"price":78857.0,"qty":0.34775324}],"asks":[],"checksum":2416540570,"timestamp":"2026-08-24T22:21:58.343688Z"}"""

    bids: Raw
    asks: Raw
    checksum: Annotated[int, Meta(ge=0)]
    timestamp: str = ""  # older servers have none


class Result(Struct):
    """{"channel":"book","depth":10,"snapshot":true,"symbol":"BTC/USD"}"""

    channel: str = ""
    symbol: str = ""  # none of the channel instrument


class Notice(Struct):
    """{"error":"Currency pair not supported BTC/INVALID","method":"subscribe","req_id":3,"success":false,"time_in":"2026-03-27T12:17:06.298588Z","time_out":"2026-03-27T12:17:06.298626Z"}

    Any message: answers have ``method``, all others have ``channel``.
    """  # noqa: E501

    channel: str = ""
    data: Raw = Raw()
    method: str = ""
    success: bool = True
    error: str = ""
    req_id: int | None = None
    result: Result | None = None
    symbol: str = ""


class Row(Struct):
    """{"symbol":"BTC/USD"}"""

    symbol: str


# The form of what comes most, as the venue writes it (``feed/template.pyx``); the symbol is put in.
UPDATE_FORM: Final = (
    '{"channel":"book","type":"update","data":[{"symbol":"%s","bids":<object_bids>,"asks":<object_asks>,'
    '"checksum":<checksum>,"timestamp":"<utc>"}]}'
)
_NOTICE: Final = msgspec.json.Decoder(Notice)
_ROWS: Final = msgspec.json.Decoder(list[Row])
_SYSTEMS: Final = msgspec.json.Decoder(list[System])
_REFERENCE: Final = msgspec.json.Decoder(Reference)
_PAIR: Final = msgspec.json.Decoder(PairRow)
_HEARTBEAT: Final = b'{"channel":"heartbeat"}'
_SYMBOL: Final = b'"symbol":"'
_HEAD_BYTES: Final = 80  # within which a message of data names its symbol
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)
_SNAPSHOT: Final = int(Flags.SNAPSHOT)


# ---- endpoints and limits ---------------------------------------------------------------------------------

INSTRUMENTS_PER_CONNECTION: Final = 100  # the venue sets no limit; all books of one anew must not take long
TIMER_INTERVAL_S: Final = 10.0
SILENCE_NS: Final = 10_000_000_000
"""With neither data nor a heartbeat, which comes every second, for so long a connection is dead."""
RATE_DELAY_NS: Final = 1_000_000_000  # the venue does not say how long to wait


class KrakenOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.options]``."""

    depth: Literal[10, 25, 100, 500, 1000] = 10  # levels a side; the checksum is of the best 10
    trade_history: bool = True  # the last 50 trades with each subscription


def websocket_url(base: str) -> str:
    """The endpoint of v2, unless ``base`` names it itself."""
    url = base.rstrip("/")
    return url if url.endswith("/v2") else f"{url}/v2"


# ---- subscribe --------------------------------------------------------------------------------------------

TRADE: Final = "trade"
TICKER: Final = "ticker"
BOOK: Final = "book"
INSTRUMENT: Final = "instrument"
CHANNELS: Final[Mapping[DataType, str]] = {DataType.TRADE: TRADE, DataType.BBO: TICKER, DataType.BOOK: BOOK}
DATA_TYPES: Final[Mapping[str, DataType]] = {channel: data_type for data_type, channel in CHANNELS.items()}


class Asked(Struct, frozen=True):
    """A request, and of which symbols the answer is due. The channel instrument has none: ""."""

    method: str
    channel: str
    symbols: list[str]


def parameters(channel: str, method: str, options: KrakenOptions) -> dict[str, Any]:
    """What a request says besides symbols. To end a subscription, what identifies it is enough."""
    subscribes = method == "subscribe"
    match channel:
        case "trade":
            return {"snapshot": options.trade_history} if subscribes else {}
        case "ticker":
            return {"event_trigger": "bbo"}
        case "book":
            return {"depth": options.depth, **({"snapshot": True} if subscribes else {})}
    return {"snapshot": True} if subscribes else {}


# An error says only in its text which symbol it means.
_WORDS: Final = re.compile(r"[^\s,;\"'\[\]()]+")


def named(notice: Notice, symbols: Sequence[str]) -> list[str]:
    """Those of ``symbols`` that an error names."""
    words = {notice.symbol, *_WORDS.findall(notice.error)} - {""}
    return [symbol for symbol in symbols if symbol in words]


# ---- book sync --------------------------------------------------------------------------------------------
# The venue's rules ("Book", guide "Book checksum"):
#   1. The first message after the subscription is the snapshot. Updates before it say nothing; one that comes later
#      replaces the book.
#   2. Sizes are absolute, 0 deletes; a price may come twice in a message: in order.
#   3. After each message the book is cut to the depth subscribed to.
#   4. The checksum is that of the best 10 levels after rule 3: asks, then bids, best first, of each the digits of price
#      and size as they are written, without point and leading zeros.
#   5. It differs: unsubscribe and subscribe again.

CHECKED_LEVELS: Final = 10


class KrakenBook(BookWire):
    """The book of one pair: its rules, and how it is subscribed to."""

    def __init__(
        self, channel: Channel, depth: int, request: Callable[[str, int], Send], counts: AdapterCounts
    ) -> None:
        """``request``: (method, delay_ns) to the frame that asks for it."""
        self._channel = channel
        self._depth = depth
        self._request = request
        self._counts = counts
        self._levels = LocalBook(channel)
        self.sync = SocketBook(channel, self, counts)
        self.route = CheckedRoute(
            UPDATE_FORM % channel.instrument,
            channel,
            self.sync,
            self._levels,
            counts,
            depth=depth,
            levels=CHECKED_LEVELS,
            price_decimals=-channel.price_exponent,
            size_decimals=-channel.size_exponent,
        )

    def unsubscribe(self) -> Sequence[Request]:
        """End it."""
        return (self._request("unsubscribe", 0),)

    def subscribe(self, delay_ns: int) -> Sequence[Request]:
        """Begin it."""
        return (self._request("subscribe", delay_ns),)

    def on_precision(self, price_decimals: int, size_decimals: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """How the venue writes numbers. After a change the book is begun anew; numbers finer than the records of this
        pair can hold are then refused one by one."""
        route = self.route
        if (price_decimals, size_decimals) == (route.price_decimals, route.size_decimals):
            return NOTHING
        route.price_decimals, route.size_decimals = price_decimals, size_decimals
        return self.sync.resync(now_ns, Reason.SNAPSHOT, emit) if self.sync.valid else NOTHING

    def on_push(self, push: Push[Levels], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot or an update."""
        message = only(push)
        if push.type == "update":
            return self._on_update(message, ts_recv, emit) if self.sync.valid else NOTHING
        return self._on_snapshot(message, ts_recv, emit) if self.sync.takes_snapshots else NOTHING

    def _on_snapshot(self, message: Levels, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rule 1."""
        mark = emit.mark()
        ts_event = time_ns(message.timestamp) if message.timestamp else 0
        emit.clear(self._channel, Reason.SNAPSHOT, ts_event, 0, _SNAPSHOT)
        self._stage(message, ts_event, _SNAPSHOT, emit)
        self._levels.apply(emit, mark)
        failed = self._check(message, mark, ts_recv, emit)
        return self.sync.synced(0, ts_recv, emit) if failed is None else failed

    def _on_update(self, message: Levels, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rules 2 and 3."""
        mark = emit.mark()
        ts_event = time_ns(message.timestamp) if message.timestamp else 0
        self._stage(message, ts_event, 0, emit)
        self._levels.apply(emit, mark)
        self._levels.trim(emit, self._depth, ts_event)
        failed = self._check(message, mark, ts_recv, emit)
        return NOTHING if failed is None else failed

    def _stage(self, message: Levels, ts_event: int, flags: int, emit: Emit) -> None:
        emit.object_levels(self._channel, _BID, message.bids, ts_event, 0, flags)
        emit.object_levels(self._channel, _ASK, message.asks, ts_event, 0, flags)

    def _check(self, message: Levels, mark: int, ts_recv: int, emit: Emit) -> Sequence[Request] | None:
        """Rules 4 and 5: close the group, or take it back. None if nothing is wrong."""
        self._counts.checksums += 1
        route = self.route
        found = self._levels.crc32_of_digits(CHECKED_LEVELS, route.price_decimals, route.size_decimals)
        if found != message.checksum:
            emit.rollback(mark)
            return self.sync.checksum_failed(message.checksum, found, ts_recv, emit)
        emit.end()
        return None


# ---- the adapter ------------------------------------------------------------------------------------------


class Route:
    """Takes the messages of one channel and pair to what handles them. Whatever is wrong with one is the venue's
    fault."""

    __slots__ = ("_data_type", "_decode", "_handle", "_instrument")

    def __init__(
        self, decoder: msgspec.json.Decoder[Any], handle: Handler, instrument: str, data_type: DataType
    ) -> None:
        self._decode = decoder.decode
        self._handle = handle
        self._instrument = instrument
        self._data_type = data_type

    def take(self, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One message."""
        try:
            return self._handle(self._decode(message), ts_recv, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, self._instrument, self._data_type) from error


DECODERS: Final[Mapping[str, msgspec.json.Decoder[Any]]] = {
    TRADE: msgspec.json.Decoder(Push[Trade]),
    TICKER: msgspec.json.Decoder(Push[Ticker]),
    BOOK: msgspec.json.Decoder(Push[Levels]),
}


def head(channel: str, kind: str, symbol: str) -> bytes:
    """How the messages of a channel and pair begin, up to the end of the symbol's name."""
    return b'{"channel":"%b","type":"%b","data":[{"symbol":"%b' % (channel.encode(), kind.encode(), symbol.encode())


class Line:
    """One connection: what is subscribed to on it, and where its messages go."""

    def __init__(self) -> None:
        self.instruments: list[str] = []
        self.symbols: dict[str, list[str]] = {}  # by channel
        self.routes: dict[bytes, Route] = {}  # by how the messages begin
        self.books: dict[str, KrakenBook] = {}
        self.direct: list[DirectRoute] = []
        self.asked: dict[int, Asked] = {}  # by req_id
        self.heard_ns = 0  # when data that were decoded, or a heartbeat, came last; 0: none is due

    def is_silent(self, now_ns: int) -> bool:
        """Whether neither has come for too long, nor what direct routes take."""
        if not self.heard_ns or now_ns - self.heard_ns <= SILENCE_NS:
            return False
        return all(now_ns - route.taken_ns > SILENCE_NS for route in self.direct)


class KrakenAdapter(Adapter):
    """Kraken Spot v2. One object serves all connections of one worker."""

    venue: ClassVar[str] = "kraken"
    data_types: ClassVar[tuple[DataType, ...]] = (DataType.TRADE, DataType.BBO, DataType.BOOK)
    integrity: ClassVar[str] = "book: checksum of the best 10 levels, snapshot on the socket; trades: consecutive ids"
    endpoints: ClassVar[Endpoints] = Endpoints("wss://ws.kraken.com", "https://api.kraken.com")
    limits: ClassVar[Limits] = Limits(
        send_interval_s=0.1,  # "Exceeded msg rate" depends on the load; no figure is published
        connect_interval_s=1.0,  # some 150 in ten minutes; the backoff sees to the rest
        stale_after_s=300.0,  # pairs may be quiet; heartbeats show that the feed lives (SILENCE_NS)
        timer_interval_s=TIMER_INTERVAL_S,
    )
    options: ClassVar[type[Struct]] = KrakenOptions
    direct: DirectRoutes

    def __init__(self, endpoints: Endpoints, options: KrakenOptions, subscriptions: Sequence[Subscription]) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._options = options
        self._endpoints = endpoints
        self._url = websocket_url(endpoints.websocket_url)
        self._subscriptions = {subscription.instrument: subscription for subscription in subscriptions}
        self._lines: list[Line] = []
        self._line_of: dict[str, int] = {}
        self._trading: dict[str, Trading] = {}
        self._places = {channel: Place(head(channel, "update", "").decode()) for channel in DATA_TYPES}
        self.direct = DirectRoutes(*self._places.values())
        self._last_id = 0

    # Metadata

    def metadata_requests(self) -> Sequence[Fetch]:
        """One list has all pairs."""
        return (asset_pairs_fetch(self._endpoints.rest_url),)

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo]:
        """All pairs of the list."""
        if response.status != 200:
            raise VenueProtocolError(f"AssetPairs: HTTP {response.status} {response.body[:200]!r}")
        return decode_asset_pairs(response.body, self.unknown)

    # Connections

    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Spread the pairs over connections and lay the routes of their channels."""
        for name, subscription in self._subscriptions.items():
            if name not in channels:
                continue
            if not self._lines or len(self._lines[-1].instruments) == INSTRUMENTS_PER_CONNECTION:
                self._lines.append(Line())
            number = len(self._lines) - 1
            self._line_of[name] = number
            self._lines[number].instruments.append(name)
            self._trading[name] = Trading(channels[name])
            for data_type in subscription.data_types:
                if data_type in CHANNELS:
                    self._lay_route(number, CHANNELS[data_type], channels[name])

    def _lay_route(self, number: int, channel_name: str, channel: Channel) -> None:
        line, name = self._lines[number], channel.instrument
        handle: Handler
        direct: DirectRoute
        if channel_name == TRADE:
            trades = Trades(channel, self.counts)
            handle, direct = trades.on_push, TradeRoute(TRADE_FORM % name, channel, trades.sequence)
        elif channel_name == TICKER:
            always = Chain()
            always.live = True
            handle, direct = quotes(channel), QuoteRoute(TICKER_FORM % name, channel, always)
        else:
            book = KrakenBook(
                channel,
                self._options.depth,
                lambda method, delay_ns: self._request(number, method, BOOK, [name], delay_ns),
                self.counts,
            )
            line.books[name] = book
            self.counts.books += 1
            handle, direct = book.on_push, book.route
        self._places[channel_name].add(name, direct)
        line.direct.append(direct)
        line.symbols.setdefault(channel_name, []).append(name)
        route = Route(DECODERS[channel_name], handle, name, DATA_TYPES[channel_name])
        for kind in ("snapshot", "update"):
            line.routes[head(channel_name, kind, name)] = route

    def connections(self) -> Sequence[Connection]:
        """As ``bind`` has spread them."""
        return [Connection(number, self._url, tuple(line.instruments)) for number, line in enumerate(self._lines)]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Subscribe: a request for each channel. The first connection also learns what becomes of the pairs."""
        line = self._lines[connection]
        for book in line.books.values():
            book.sync.on_subscribe(now_ns)
        requests = [
            self._request(connection, "subscribe", channel, symbols) for channel, symbols in line.symbols.items()
        ]
        if connection == 0:
            requests.append(self._request(connection, "subscribe", INSTRUMENT, [""]))
        return requests

    def _request(self, connection: int, method: str, channel: str, symbols: Sequence[str], delay_ns: int = 0) -> Send:
        self._last_id += 1
        self._lines[connection].asked[self._last_id] = Asked(method, channel, list(symbols))
        params: dict[str, Any] = {"channel": channel, **parameters(channel, method, self._options)}
        if channel != INSTRUMENT:
            params["symbol"] = symbols
        request = {"method": method, "params": params, "req_id": self._last_id}
        return Send(connection, msgspec.json.encode(request).decode(), ack=str(self._last_id), delay_ns=delay_ns)

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """CLEAR the books. Ids of trades are kept: the next one tells how many were missed."""
        line = self._lines[connection]
        line.asked.clear()
        line.heard_ns = 0
        for book in line.books.values():
            book.sync.on_disconnect(reason, emit)
        return NOTHING

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Ping, which also holds a connection on which nothing is subscribed to; look for heartbeats, and for books
        that are late."""
        line = self._lines[connection]
        if line.is_silent(now_ns):
            return (Reconnect(connection, Reason.STALE, "neither data nor heartbeats"),)
        self._last_id += 1
        ping = msgspec.json.encode({"method": "ping", "req_id": self._last_id}).decode()
        requests: list[Request] = [Send(connection, ping, ack="pong", urgent=True)]
        for book in line.books.values():
            requests.extend(book.sync.on_timer(now_ns, emit))
        return requests

    # Messages

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One frame is one message. Channel and symbol, at its beginning, say what it holds."""
        message = payload if type(payload) is bytes else bytes(payload)
        line = self._lines[connection]
        begin = message.find(_SYMBOL, 0, _HEAD_BYTES) + len(_SYMBOL)
        route = line.routes.get(message[: message.find(b'"', begin)])
        if route is not None:
            line.heard_ns = ts_recv
            return route.take(message, ts_recv, emit)
        if message == _HEARTBEAT:
            line.heard_ns = ts_recv
            return NOTHING
        try:
            return self._on_other(connection, _NOTICE.decode(message), message, ts_recv, emit)
        except UNREADABLE as error:
            raise blamed(error, None, DataType.STATUS) from error

    def _on_other(self, connection: int, notice: Notice, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Answers, states, and data that nobody asked for, or that are written in another way."""
        line = self._lines[connection]
        match notice.channel:
            case "heartbeat":
                line.heard_ns = ts_recv
            case "trade" | "ticker" | "book":
                for row in _ROWS.decode(notice.data)[:1]:
                    route = line.routes.get(head(notice.channel, "update", row.symbol))
                    if route is not None:
                        line.heard_ns = ts_recv
                        return route.take(message, ts_recv, emit)
                    self.unknown.note(f"{notice.channel} that was not asked for", message)
            case "status":
                for system in _SYSTEMS.decode(notice.data):
                    for name in line.instruments:
                        self._trading[name].on_system(system.system, emit)
            case "instrument":
                return self._on_reference(_REFERENCE.decode(notice.data), ts_recv, emit)
            case "":
                return self._on_answer(connection, notice, message, ts_recv, emit)
            case _:
                self.unknown.note(f"channel {notice.channel}", message)
        return NOTHING

    def _on_reference(self, reference: Reference, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """What has become of the pairs; at first, of all. A row that cannot be read costs no other."""
        requests: list[Request] = []
        for row in reference.pairs:
            try:
                pair = _PAIR.decode(row)
            except UNREADABLE as error:
                self.unknown.note(f"pair: {error}", bytes(row))
                continue
            trading = self._trading.get(pair.symbol)
            if trading is None:
                continue
            trading.on_status(pair.status, emit)
            book = self._lines[self._line_of[pair.symbol]].books.get(pair.symbol)
            if book is not None:
                requests.extend(book.on_precision(pair.price_precision, pair.qty_precision, ts_recv, emit))
        return requests

    # Answers

    def _on_answer(
        self, connection: int, notice: Notice, message: bytes, ts_recv: int, emit: Emit
    ) -> Sequence[Request]:
        match notice.method:
            case "pong":
                return (Acknowledged(connection, "pong"),)
            case "subscribe" | "unsubscribe" if notice.success and notice.result is not None:
                return self._on_acknowledged(connection, notice.method, notice, notice.result, ts_recv)
            case _ if notice.error or not notice.success:
                return self._on_error(connection, notice, message, ts_recv, emit)
            case "":
                raise VenueProtocolError(f"a message of no known shape: {message[:80]!r}")
        self.unknown.note(f"method {notice.method}", message)
        return NOTHING

    def _on_acknowledged(
        self, connection: int, method: str, notice: Notice, result: Result, ts_recv: int
    ) -> Sequence[Request]:
        """One symbol is acknowledged; the request is, with the last of them. What was not awaited says nothing."""
        line = self._lines[connection]
        if method == "subscribe":
            line.heard_ns = ts_recv  # from now on heartbeats are due
        asked = self._asked(line, notice, method, result)
        requests = [] if asked is None else self._answered(connection, asked, result.symbol)
        if method == "unsubscribe" and result.channel == BOOK and result.symbol in line.books:
            requests.extend(line.books[result.symbol].sync.on_unsubscribed(ts_recv))
        return requests

    def _asked(self, line: Line, notice: Notice, method: str, result: Result) -> int | None:
        """The request that is answered: by its number, else by what it says."""
        if notice.req_id in line.asked:
            return notice.req_id
        wanted = (method, result.channel)
        return next(
            (
                number
                for number, asked in line.asked.items()
                if (asked.method, asked.channel) == wanted and result.symbol in asked.symbols
            ),
            None,
        )

    def _answered(self, connection: int, number: int, symbol: str) -> list[Request]:
        """One symbol less is due of a request."""
        line = self._lines[connection]
        symbols = line.asked[number].symbols
        if symbol in symbols:
            symbols.remove(symbol)
        if symbols:
            return []
        del line.asked[number]
        return [Acknowledged(connection, str(number))]

    def _on_error(self, connection: int, notice: Notice, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A symbol is refused: that one is lost, no other."""
        line = self._lines[connection]
        number = notice.req_id if notice.req_id in line.asked else None
        if number is None:
            number = next((one for one, asked in line.asked.items() if named(notice, asked.symbols)), None)
        if number is None or notice.method not in ("", line.asked[number].method):
            raise VenueProtocolError(
                f"the venue answered with an error: {notice.error}", reason=Reason.SUBSCRIBE_REJECTED
            )
        asked = line.asked[number]
        if "msg rate" in notice.error:
            return self._ask_again(connection, number, [asked.symbols], RATE_DELAY_NS)
        symbols = named(notice, asked.symbols) or asked.symbols[:]
        if len(symbols) > 1:  # of each alone the venue will say which it is
            return self._ask_again(connection, number, [[symbol] for symbol in asked.symbols])
        requests: list[Request] = []
        for symbol in symbols:
            requests.extend(self._answered(connection, number, symbol))
            if asked.method == "unsubscribe":  # there is nothing to end
                requests.extend(line.books[symbol].sync.on_unsubscribed(ts_recv))
            elif asked.channel == INSTRUMENT:
                self.unknown.note(f"{INSTRUMENT} is refused", message)
            elif "already" not in notice.error.lower():
                requests.append(Rejected(connection, symbol, notice.error, DATA_TYPES[asked.channel]))
                if asked.channel == BOOK:
                    line.books[symbol].sync.on_rejected(Reason.SUBSCRIBE_REJECTED, emit)
        return requests

    def _ask_again(
        self, connection: int, number: int, parts: Sequence[Sequence[str]], delay_ns: int = 0
    ) -> Sequence[Request]:
        """The rest of a request, once more, in these parts."""
        asked = self._lines[connection].asked.pop(number)
        return [
            Acknowledged(connection, str(number)),
            *(self._request(connection, asked.method, asked.channel, part, delay_ns) for part in parts),
        ]

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Nothing but metadata is fetched."""
        return NOTHING

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rebuild one book; no other is touched."""
        number = self._line_of.get(instrument)
        book = None if number is None else self._lines[number].books.get(instrument)
        return NOTHING if book is None else book.sync.resync(now_ns, reason, emit)

    def on_reject(self, connection: int, error: VenueProtocolError, now_ns: int, emit: Emit) -> Sequence[Request]:
        """A message was refused. One that may have been any book's shows in the next checksum, unless books are deeper
        than what that is of."""
        is_lost = error.instrument is None and error.data_type in (DataType.BOOK, DataType.STATUS)
        if is_lost and self._options.depth > CHECKED_LEVELS and error.reason is not Reason.SUBSCRIBE_REJECTED:
            return (Reconnect(connection, error.reason, "whose message was lost cannot be told"),)
        return super().on_reject(connection, error, now_ns, emit)

    def book_depth(self, instrument: str) -> int | None:
        """As subscribed to."""
        return self._options.depth

    def is_data(self, payload: bytes | memoryview) -> bool:
        """Trades, quotes and books: everything but answers, states and heartbeats."""
        return bytes(payload[:20]).startswith((b'{"channel":"trade"', b'{"channel":"ticker"', b'{"channel":"book"'))
