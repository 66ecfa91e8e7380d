"""Coinbase Exchange (once Coinbase Pro): trades, best bid and ask, books, from the public WebSocket feed.

Documentation (read November 2026): docs.cdp.coinbase.com/exchange, WebSocket feed (overview, channels, errors, rate
limits, best practices) and REST. Advanced Trade is another protocol. Another address in the config serves the sandbox.

Integrity:

* book (``coinbase_book.py``): neither ids nor a checksum. The order of one connection is all there is: a subscription
  brings a snapshot, and what follows on the same connection leads on from it. So a message of a book that cannot be
  read costs the book, and one that cannot be told whose it is costs the connection. A book that stays crossed is not
  believed, either.
* trades: consecutive ids, checked by the heartbeats too; what is missing is fetched (``coinbase_channels.py``).

Quirks:

* ``level2`` needs a login. ``level2_batch`` does not; it has the same messages, every 50 ms, and is acknowledged as
  ``level2_50``.
* An error refuses the whole request and carries no id. Hence a request for each product and kind of data; the error
  means the one whose product or channel its text names, else the oldest that waits.
* The answer to a request is the state of the whole connection, and may come after the data that it announces.
* ``ticker`` comes with matches only. Quotes are made of the book, unless the option asks for ``ticker``.
* Who does not subscribe within 5 s is cut.

Records: ``venue_seq`` of TRADE is ``sequence``; LEVEL, and BBO of the book, have none. ``ts_event`` of a snapshot is 0
where it has no time, as it had none in 2021.

Runs in the worker of the venue (``feed/worker.py``) and in ``capture.py``::

    adapter = CoinbaseAdapter(CoinbaseAdapter.endpoints, CoinbaseOptions(), subscriptions)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final, Literal

import msgspec
from msgspec import Struct

from mdring.adapters.coinbase_book import CoinbaseBook, Op
from mdring.adapters.coinbase_channels import (
    MATCH_FORM,
    TICKER_FORM,
    Heartbeat,
    Match,
    Statuses,
    Ticker,
    Tickers,
    Trades,
    Trading,
)
from mdring.adapters.coinbase_metadata import decode_products, products_fetch
from mdring.adapters.coinbase_requests import ALIASES, LEVEL2, Asked, Topic, wishes
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
from mdring.feed.direct import DirectRoutes, Place, QuoteRoute, TradeRoute
from mdring.feed.emit import Emit
from mdring.feed.fixed import quoted_after
from mdring.feed.stage import Channel
from mdring.record import DataType, Reason

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; those of data stand in ``coinbase_book.py`` and ``coinbase_channels.py``.


class ChannelState(Struct):
    """{"name":"level2_50","product_ids":["ETH-USD","ETH-EUR"],"account_ids":null}"""

    name: str
    product_ids: list[str] | None = None


class ConnectionState(Struct):
    """{"type":"subscriptions","channels":[{"name":"level2","product_ids":["BAND-GBP","BAND-BTC"]},{"name":"ticker","product_ids":["YFI-BTC"]}]}"""

    channels: list[ChannelState]


class Notice(Struct):
    """{"type":"error","message":"Failed to subscribe","reason":"GIBBERISH-USD is not a valid product"}

    What a message is, and of which product, wherever in it that stands; and what an error says.
    """

    type: str = ""
    product_id: str = ""
    message: str = ""
    reason: str = ""


_STATE_DECODER: Final = msgspec.json.Decoder(ConnectionState)
_NOTICE_DECODER: Final = msgspec.json.Decoder(Notice)
_MATCH_DECODER: Final = msgspec.json.Decoder(Match)
_HEARTBEAT_DECODER: Final = msgspec.json.Decoder(Heartbeat)
_TICKER_DECODER: Final = msgspec.json.Decoder(Ticker)
_STATUSES_DECODER: Final = msgspec.json.Decoder(Statuses)
_WORD: Final = re.compile(r"[\w-]+")
_TYPE: Final = b'{"type":"'
_UPDATE: Final = b'{"type":"l2update","product_id":"'
_SNAPSHOT: Final = b'{"type":"snapshot","product_id":"'
_DATA: Final = frozenset({b"l2update", b"snapshot", b"match", b"last_match", b"ticker"})

# ---- endpoints and limits ---------------------------------------------------------------------------------

BOOKS_PER_CONNECTION: Final = 10  # the venue names no number, and cuts who is slow: it advises to spread them
PRODUCTS_PER_CONNECTION: Final = 50
TIMER_S: Final = 5.0
HEARTBEAT_NS: Final = 5_000_000_000
"""Heartbeats come every second, of each product. None for so long: the connection is of no use."""


class CoinbaseOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.options]``. ``ticker`` costs less where no book is wanted, and is as old as the last match.
    ``status`` tells halts; the message is that of all products, every 5 s."""

    bbo_channel: Literal["level2_batch", "ticker"] = "level2_batch"
    status: bool = True


# ---- the adapter ------------------------------------------------------------------------------------------


class Line:
    """One connection: what is subscribed to on it, and where its messages go."""

    def __init__(self, connection: int) -> None:
        self.connection = connection
        self.wishes: dict[str, list[Asked]] = {}  # by product
        self.books: dict[bytes, CoinbaseBook] = {}
        self.trades: dict[str, Trades] = {}
        self.tickers: dict[str, Tickers] = {}
        self.sequences: dict[str, int] = {}  # of the last heartbeat, by product
        self.asked: dict[str, Asked] = {}  # what waits for an answer, the oldest first
        self.heard_ns = 0  # when a heartbeat came last; 0: none has

    def answered(self, state: set[Topic]) -> list[str]:
        """Names of the requests that an answer answers. There is one for each, so that one which shows nothing that
        was asked for is of the oldest subscription."""
        done = [name for name, asked in self.asked.items() if asked.is_done(state)]
        oldest = next(iter(self.asked), None)
        if done or oldest is None or self.asked[oldest].op != "subscribe":
            return done
        return [oldest]

    def refused(self, error: Notice) -> str | None:
        """Name of the request that an error means; None if it is about something else."""
        words = {ALIASES.get(word, word) for word in _WORD.findall(error.reason)}
        for name, asked in self.asked.items():
            if asked.product in words:
                return name
        for name, asked in self.asked.items():
            if not words.isdisjoint(asked.channels):
                return name
        return next(iter(self.asked), None) if "subscribe" in error.message.lower() else None


Take = Callable[[Line, bytes, int, Emit], Sequence[Request]]  # line, message, ts_recv, emit


class CoinbaseAdapter(Adapter):
    """Coinbase Exchange. One object serves all connections of one worker."""

    venue: ClassVar[str] = "coinbase"
    data_types: ClassVar[tuple[DataType, ...]] = (DataType.TRADE, DataType.BBO, DataType.BOOK)
    integrity: ClassVar[str] = "book: snapshot and order of one connection, never crossed; trades: ids, heartbeats"
    detects_loss: ClassVar[bool] = False
    endpoints: ClassVar[Endpoints] = Endpoints(
        "wss://ws-feed.exchange.coinbase.com", "https://api.exchange.coinbase.com"
    )
    limits: ClassVar[Limits] = Limits(
        send_interval_s=0.03,  # 100 messages in a second from one address, by all connections
        connect_interval_s=0.15,  # 8 in a second
        fetch_interval_s=0.1,  # 10 requests in a second from one address
        timer_interval_s=TIMER_S,
    )
    options: ClassVar[type[Struct]] = CoinbaseOptions
    direct: DirectRoutes

    def __init__(self, endpoints: Endpoints, options: CoinbaseOptions, subscriptions: Sequence[Subscription]) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._options = options
        self._endpoints = endpoints
        self._subscriptions = {subscription.instrument: subscription for subscription in subscriptions}
        self._lines: list[Line] = []
        self._line_of: dict[str, Line] = {}
        self._trading = Trading({})
        self._direct_books = Place(_UPDATE.decode())
        self._direct_trades = Place('{"type":"match",', behind='"product_id":"')
        self._direct_tickers = Place('{"type":"ticker",', behind='"product_id":"')
        self.direct = DirectRoutes(self._direct_books, self._direct_trades, self._direct_tickers)
        self._last_number = 0
        self._is_idle = False  # of the last heartbeat: nothing has happened to its product
        self._takes: dict[bytes, Take] = {
            b"match": self._on_match,
            b"last_match": self._on_last_match,
            b"heartbeat": self._on_heartbeat,
            b"ticker": self._on_ticker,
            b"snapshot": self._on_snapshot,
            b"l2update": self._on_update,
            b"status": self._on_status,
            b"subscriptions": self._on_answer,
            b"error": self._on_error,
        }

    # Metadata

    def metadata_requests(self) -> Sequence[Fetch]:
        """One list holds everything."""
        return (products_fetch(self._endpoints.rest_url),)

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo]:
        """All products that the venue lists."""
        if response.status != 200:
            raise VenueProtocolError(f"products: HTTP {response.status} {response.body[:200]!r}")
        return decode_products(response.body, self.unknown)

    # Connections

    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Spread the products over connections."""
        for name, subscription in self._subscriptions.items():
            wanted = wishes(name, subscription.data_types, self._options.bbo_channel)
            if name not in channels or not wanted:
                continue
            has_book = any(LEVEL2 in asked.channels for asked in wanted)
            line = self._lines[-1] if self._lines else None
            if (
                line is None
                or len(line.wishes) == PRODUCTS_PER_CONNECTION
                or (has_book and len(line.books) == BOOKS_PER_CONNECTION)
            ):
                line = Line(len(self._lines))
                self._lines.append(line)
            line.wishes[name] = wanted
            line.sequences[name] = -1
            self._line_of[name] = line
            for asked in wanted:
                self._lay(line, channels[name], asked)
        self._trading = Trading({name: channels[name] for name in self._line_of})

    def _lay(self, line: Line, channel: Channel, asked: Asked) -> None:
        """Make what takes the messages of a subscription."""
        name = channel.instrument
        if "matches" in asked.channels:
            trades = Trades(channel, line.connection, self._endpoints.rest_url, self.counts)
            line.trades[name] = trades
            self._direct_trades.add(name, TradeRoute(MATCH_FORM % name, channel, trades.sequence))
        elif "ticker" in asked.channels:
            tickers = Tickers(channel, self.counts, self.unknown)
            line.tickers[name] = tickers
            self._direct_tickers.add(name, QuoteRoute(TICKER_FORM % name, channel, tickers.sequence))
        else:
            self.counts.books += 1
            anew = asked._replace(channels=(LEVEL2,))

            def request(op: Op, delay_ns: int) -> Send:
                return self._ask(line, anew._replace(op=op), delay_ns)

            book = CoinbaseBook(channel, asked.data_types, request, self.counts)
            line.books[name.encode()] = book
            self._direct_books.add(name, book.route)

    def connections(self) -> Sequence[Connection]:
        """As ``bind`` has spread them."""
        url = self._endpoints.websocket_url
        return [Connection(line.connection, url, tuple(line.wishes)) for line in self._lines]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Subscribe. The first connection tells of all products whether they are traded."""
        line = self._lines[connection]
        line.heard_ns = 0
        for book in line.books.values():
            book.sync.on_subscribe(now_ns)
        for trades in line.trades.values():
            trades.on_connect()
        for tickers in line.tickers.values():
            tickers.on_connect()
        requests = [self._ask(line, asked) for wanted in line.wishes.values() for asked in wanted]
        if connection == 0 and self._options.status:
            requests.append(self._ask(line, Asked("subscribe", "", ("status",), ())))
        return requests

    def _ask(self, line: Line, asked: Asked, delay_ns: int = 0) -> Send:
        self._last_number += 1
        name = f"{asked.op} {self._last_number}"
        line.asked[name] = asked
        return Send(line.connection, asked.text(), ack=name, delay_ns=delay_ns)

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """CLEAR the books. Ids of trades are kept: the next one tells how many were missed."""
        line = self._lines[connection]
        line.asked.clear()
        for book in line.books.values():
            book.on_disconnect(reason, emit)
        return NOTHING

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Look for heartbeats that have ended, and for books that are late."""
        line = self._lines[connection]
        if line.heard_ns and now_ns - line.heard_ns > HEARTBEAT_NS:
            return (Reconnect(connection, Reason.STALE, "no heartbeat"),)
        return [request for book in line.books.values() for request in book.on_timer(now_ns, emit)]

    # Messages

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One frame is one message. Its type, at its beginning, says what it holds."""
        message = payload if type(payload) is bytes else bytes(payload)
        line = self._lines[connection]
        product = quoted_after(message, _UPDATE)
        if product is not None:
            book = line.books.get(product)
            if book is not None:
                return book.take_update(message, ts_recv, emit)
        take = self._takes.get(quoted_after(message, _TYPE) or b"")
        if take is None:
            return self._on_other(line, message, ts_recv, emit)
        return take(line, message, ts_recv, emit)

    def _on_other(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Types that nobody asked for, or a message that begins otherwise."""
        kind = _notice(message).type
        take = self._takes.get(kind.encode(errors="replace"))
        if take is not None:
            return take(line, message, ts_recv, emit)
        if not kind:
            raise VenueProtocolError(f"a message of no known shape: {message[:80]!r}")
        self.unknown.note(f"type {kind}", message)
        return NOTHING

    def _on_update(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Of a product that nobody asked for, or written in another way."""
        book = line.books.get(_notice(message).product_id.encode(errors="replace"))
        if book is None:
            self.unknown.note("l2update of another product", message)
            return NOTHING
        return book.take_update(message, ts_recv, emit)

    def _on_snapshot(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        product = quoted_after(message, _SNAPSHOT)
        book = line.books.get(_notice(message).product_id.encode(errors="replace") if product is None else product)
        if book is None:
            self.unknown.note("snapshot of another product", message)
            return NOTHING
        return book.take_snapshot(message, ts_recv, emit)

    def _on_match(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        return self._take_match(line, message, Trades.on_match, emit)

    def _on_last_match(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        return self._take_match(line, message, Trades.on_last_match, emit)

    def _take_match(
        self, line: Line, message: bytes, handle: Callable[[Trades, Match, Emit], Sequence[Request]], emit: Emit
    ) -> Sequence[Request]:
        product = None
        try:
            match = _MATCH_DECODER.decode(message)
            product = match.product_id
            trades = line.trades.get(product)
            if trades is not None:
                return handle(trades, match, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, product, DataType.TRADE) from error
        self.unknown.note("match of another product", message)
        return NOTHING

    def _on_ticker(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The book tells the same, and more, unless the option asks for it."""
        if not line.tickers:
            return NOTHING
        product = None
        try:
            ticker = _TICKER_DECODER.decode(message)
            product = ticker.product_id
            tickers = line.tickers.get(product)
            if tickers is not None:
                return tickers.on_ticker(ticker, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, product, DataType.BBO) from error
        self.unknown.note("ticker of another product", message)
        return NOTHING

    def _on_heartbeat(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A sign of life of a product, with the count of its trades and of everything else."""
        try:
            heartbeat = _HEARTBEAT_DECODER.decode(message)
        except UNREADABLE:
            self.unknown.note("heartbeat that cannot be read", message)
            return NOTHING
        product = heartbeat.product_id
        if product not in line.sequences:
            self.unknown.note("heartbeat of another product", message)
            return NOTHING
        line.heard_ns = ts_recv
        self._is_idle = line.sequences[product] == heartbeat.sequence
        line.sequences[product] = heartbeat.sequence
        trades = line.trades.get(product)
        try:
            return NOTHING if trades is None else trades.on_heartbeat(heartbeat, emit)
        except UNREADABLE as error:
            raise blamed(error, product, DataType.TRADE) from error

    def _on_status(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Nothing else depends on it, so a form that is new costs nothing else."""
        try:
            statuses = _STATUSES_DECODER.decode(message)
        except UNREADABLE:
            self.unknown.note("status that cannot be read", message)
            return NOTHING
        return self._trading.on_status(statuses, emit)

    # Answers

    def _on_answer(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The state of the connection, after a request."""
        try:
            channels = _STATE_DECODER.decode(message).channels
        except UNREADABLE as error:
            raise blamed(error, None, DataType.STATUS) from error
        state: set[Topic] = set()
        for channel in channels:
            name = ALIASES.get(channel.name, channel.name)
            state.update((name, product) for product in channel.product_ids or ())
            state.add((name, ""))
        requests: list[Request] = []
        for number in line.answered(state):
            asked = line.asked.pop(number)
            requests.append(Acknowledged(line.connection, number))
            if asked.op == "unsubscribe":
                requests.extend(line.books[asked.product.encode()].sync.on_unsubscribed(ts_recv))
        return requests

    def _on_error(self, line: Line, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A request is refused as a whole; or the venue complains, mostly before it closes the connection."""
        error = _notice(message)
        text = f"{error.message}: {error.reason}" if error.reason else error.message
        number = line.refused(error)
        if number is None:
            raise VenueProtocolError(f"the venue answered with an error: {text}", reason=Reason.SUBSCRIBE_REJECTED)
        asked = line.asked.pop(number)
        requests: list[Request] = [Acknowledged(line.connection, number)]
        if not asked.product:
            self.unknown.note("refusal of a channel of all products", message)
            return requests
        book = line.books.get(asked.product.encode()) if LEVEL2 in asked.channels else None
        if asked.op == "unsubscribe":  # there is nothing to end
            assert book is not None
            return [*requests, *book.sync.on_unsubscribed(ts_recv)]
        requests += [Rejected(line.connection, asked.product, text, data_type) for data_type in asked.data_types]
        if book is not None:
            book.on_rejected(emit)
        return requests

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Trades that were missing."""
        product = response.tag.rsplit(" ", 2)[0]
        line = self._line_of.get(product)
        trades = None if line is None else line.trades.get(product)
        try:
            return NOTHING if trades is None else trades.on_response(response, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, product, DataType.TRADE) from error

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rebuild one book; no other is touched."""
        line = self._line_of.get(instrument)
        book = None if line is None else line.books.get(instrument.encode())
        return NOTHING if book is None else book.resync(now_ns, reason, emit)

    def is_data(self, payload: bytes | memoryview) -> bool:
        """Market data, and heartbeats that say that there is none. One that counts more than the one before, while
        nothing else comes, speaks of data that the venue does not deliver."""
        kind = quoted_after(bytes(payload[:40]), _TYPE)
        return kind in _DATA or (kind == b"heartbeat" and self._is_idle)


def _notice(message: bytes) -> Notice:
    """What a message is. Raises VenueProtocolError."""
    try:
        return _NOTICE_DECODER.decode(message)
    except UNREADABLE as error:
        raise blamed(error, None, DataType.STATUS) from error
