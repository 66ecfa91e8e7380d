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

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec
from msgspec import Struct

from mdring.adapters.kraken_book import CHECKED_LEVELS, KrakenBook, Levels
from mdring.adapters.kraken_channels import (
    TICKER_FORM,
    TRADE_FORM,
    Push,
    System,
    Ticker,
    Trade,
    Trades,
    Trading,
    quotes,
)
from mdring.adapters.kraken_metadata import PairRow, Reference, asset_pairs_fetch, decode_asset_pairs
from mdring.adapters.kraken_requests import (
    BOOK,
    CHANNELS,
    DATA_TYPES,
    INSTRUMENT,
    TICKER,
    TRADE,
    Asked,
    Notice,
    Result,
    named,
    parameters,
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
from mdring.feed.direct import DirectRoutes, Place, QuoteRoute, Route, TradeRoute
from mdring.feed.emit import Emit
from mdring.feed.message_route import Handler, MessageRoute
from mdring.feed.stage import Channel
from mdring.record import DataType, Reason

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; those of the channels stand in ``kraken_channels.py`` and ``kraken_book.py``.


class Row(Struct):
    """{"symbol":"BTC/USD"}"""

    symbol: str


_NOTICE: Final = msgspec.json.Decoder(Notice)
_ROWS: Final = msgspec.json.Decoder(list[Row])
_SYSTEMS: Final = msgspec.json.Decoder(list[System])
_REFERENCE: Final = msgspec.json.Decoder(Reference)
_PAIR: Final = msgspec.json.Decoder(PairRow)
_HEARTBEAT: Final = b'{"channel":"heartbeat"}'
_SYMBOL: Final = b'"symbol":"'
_HEAD_BYTES: Final = 80  # within which a message of data names its symbol


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


# ---- the adapter ------------------------------------------------------------------------------------------


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
        self.routes: dict[bytes, MessageRoute] = {}  # by how the messages begin
        self.books: dict[str, KrakenBook] = {}
        self.direct: list[Route] = []
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
        direct: Route
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
        route = MessageRoute(DECODERS[channel_name].decode, handle, name, DATA_TYPES[channel_name])
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
        options = self._options
        params = {"channel": channel, **parameters(channel, method, options.depth, options.trade_history)}
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
