"""Coinbase Exchange, the venue's side: the public WebSocket feed and the REST calls that a feed handler needs.

Written from the venue's documentation (docs.cdp.coinbase.com/exchange: WebSocket feed, rate limits, REST; read
November 2026) and from recordings of 2021, not from any client. Runs in the emulator process;
``mdring/emulator/server.py`` gives it sockets::

    ws://HOST     {"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches","level2_batch"]}
    http://HOST/products/BTC-USD/book?level=2

Integrity: none of books, but the order of the connection: a subscription begins with a snapshot. Trades have
consecutive ids, and each heartbeat has the last one. ``sequence`` counts all that happens to a product.

Quirks kept: who does not subscribe within 5 s is cut; one bad product or channel refuses the whole request; the answer
is the state of the connection, in which ``level2_batch`` is called ``level2_50``; to subscribe again to what is
subscribed to brings no snapshot; ``level2`` wants a login; a match tells the maker's side, a ticker the taker's; the
last match, and a ticker of it, come with the subscription; a ticker comes with a match and never with a quote.

Changes of a book are sent every 50 ms, matches at once, so a match precedes the update of its fill. With the option
``batch_interval_s`` 0 each change is a message, and comes before its match, as in the feed of 2021.

Not emulated, hence silent: auctionfeed, ticker_batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final
from uuid import UUID

from msgspec import Struct

from mdring.adapters.emulators.coinbase_rest import CoinbaseRest, encode, maker_side, rfc3339
from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.limits import RollingLimit
from mdring.emulator.market import Change, Event, Market
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, VenueEmulator, Wire
from mdring.record import Aggressor, DataType, Side

SECOND: Final = 1_000_000_000
LEVEL2: Final = "level2_batch"
STATUS: Final = "status"
NAMES: Final = {LEVEL2: "level2_50"}
"""What a channel is called in answers, where that is not its name."""
SILENT: Final = ("auctionfeed", "ticker_batch")
WITH_LOGIN: Final = {
    "level2": "level2, level3, and full channels now require authentication.",
    "level3": "level2, level3, and full channels now require authentication.",
    "full": "level2, level3, and full channels now require authentication.",
    "user": "user channel requires authentication.",
    "balance": "balance channel requires authentication.",
    "rfq_matches": "rfq_matches channel requires authentication.",
}


class CoinbaseOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    batch_interval_s: float = 0.05
    heartbeat_interval_s: float = 1.0
    status_interval_s: float = 5.0
    first_subscription_s: float = 5.0
    messages_per_second: int = 100
    connection_burst: int = 20  # in the time in which 8 a second would be so many
    subscriptions: int = 10  # of one product to one channel, by all connections
    requests_per_second: int = 10  # REST, per address
    request_burst: int = 15


def plain(text: str) -> str:
    """A number without superfluous zeros."""
    return text.rstrip("0").rstrip(".") if "." in text else text


# ---- channels ---------------------------------------------------------------------------------------------


class Channel:
    """One channel of one product (of all, if that is "") and who listens to it."""

    def __init__(self, name: str, product: str, first: Callable[[], bytes] | None = None) -> None:
        """``first`` makes what a new listener gets at once."""
        self.name = name
        self.product = product
        self.sessions: list[CoinbaseSession] = []
        self._title = f"{name}:{product}"
        self._first = first

    def join(self, session: CoinbaseSession) -> None:
        """A new listener; what there is to begin with goes to it alone."""
        self.sessions.append(session)
        if self._first is not None:
            session.deliver(self._title, self._first())

    def leave(self, session: CoinbaseSession) -> None:
        self.sessions.remove(session)

    def publish(self, frame: bytes) -> None:
        for session in self.sessions:
            session.deliver(self._title, frame)


class BookChannel(Channel):
    """``level2_batch``: a snapshot, then what has changed, all of it in its order, every so often."""

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(LEVEL2, product.name, self._snapshot)
        self.is_collecting = False
        self._source = product
        self._host = host
        self._interval_s = interval_s
        self._changes: list[Change] = []

    def join(self, session: CoinbaseSession) -> None:
        self._send()  # the snapshot is as new as the last change
        super().join(session)

    def on_change(self, change: Change) -> None:
        """A level has another size."""
        if not self.sessions:
            return
        self._changes.append(change)
        if self._interval_s == 0:
            self._send()
        elif not self.is_collecting:
            self.is_collecting = True
            self._host.after(self._interval_s, self._close)

    def _close(self) -> None:
        self.is_collecting = False
        self._send()

    def _send(self) -> None:
        changes, self._changes = self._changes, []
        if changes and self.sessions:
            self.publish(self._update(changes))

    def _snapshot(self) -> bytes:
        """``{"type":"snapshot","product_id":"BAND-GBP","asks":[["14.8024","12.77"]],"bids":[["14.7550","12.5"]],"time":"2026-09-01T12:00:00.123456Z"}``"""
        product = self._source
        _, bids, asks = product.book.depth()
        return encode(
            {
                "type": "snapshot",
                "product_id": product.name,
                "asks": [product.row(level) for level in asks],
                "bids": [product.row(level) for level in bids],
                "time": rfc3339(self._host.now_ns()),
            }
        )

    def _update(self, changes: Sequence[Change]) -> bytes:
        """``{"type":"l2update","product_id":"SKL-BTC","changes":[["sell","0.00001306","660.5"]],"time":"2021-04-17T16:43:37.075687Z"}``"""
        row = self._source.row
        rows = ",".join(
            f'["{"buy" if change.side is Side.BID else "sell"}","{price}","{size}"]'
            for change in changes
            for price, size in [row((change.price, change.size))]
        )
        now = rfc3339(self._host.now_ns())
        return f'{{"type":"l2update","product_id":"{self.product}","changes":[{rows}],"time":"{now}"}}'.encode()


class PeriodicChannel(Channel):
    """A message every so often, also if nothing happens; no market data."""

    def __init__(self, name: str, product: str, host: Host, interval_s: float, message: Callable[[], bytes]) -> None:
        super().__init__(name, product)
        self._host = host
        self._interval_s = interval_s
        self._message = message
        self._is_running = False

    def join(self, session: CoinbaseSession) -> None:
        super().join(session)
        if not self._is_running:
            self._is_running = True
            self._host.after(self._interval_s, self._tell)

    def _tell(self) -> None:
        self._is_running = bool(self.sessions)
        if self._is_running:
            text = self._message().decode()
            for session in self.sessions:
                session.reply(text)
            self._host.after(self._interval_s, self._tell)


# ---- products ---------------------------------------------------------------------------------------------


class Product:
    """One product as this venue lists it, with its channels."""

    def __init__(self, book: Book, host: Host, options: CoinbaseOptions) -> None:
        spec = book.spec
        self.name = spec.canonical_symbol
        self.book = book
        self.is_halted = False
        self.sequence = book.update_id
        self.price = decimal_formatter(spec.price_exponent, max(-spec.price_exponent, 0))
        self.padded_size = decimal_formatter(spec.size_exponent, max(-spec.size_exponent, 0))
        self.fills: list[Trade] = []  # whose change has not come yet
        self._host = host
        # What was traded before the market opened.
        first = Trade(
            book.index, book.trade_id, book.run, Aggressor.BUY, spec.reference_price, spec.step, host.now_ns()
        )
        self._last = first
        self._last_sequence = self.sequence
        self.level2 = BookChannel(self, host, options.batch_interval_s)
        self.matches = Channel("matches", self.name, lambda: self._match(self._last, "last_match"))
        self.ticker = Channel("ticker", self.name, self._ticker)
        heartbeat = PeriodicChannel("heartbeat", self.name, host, options.heartbeat_interval_s, self._heartbeat)
        silent = [Channel(name, self.name) for name in SILENT]
        self.channels: list[Channel] = [self.level2, self.matches, self.ticker, heartbeat, *silent]

    def row(self, level: Level) -> list[str]:
        """``["14.8060","56.4"]``"""
        price, size = level
        return [self.price(price), self.size(size)]

    def size(self, size: int) -> str:
        """``56.4``; 0, which deletes a level, has its eight decimals."""
        return plain(self.padded_size(size)) if size else "0.00000000"

    def on_trade(self, trade: Trade) -> None:
        """A fill; it is told when its change is."""
        self.sequence += 1
        self.fills.append(trade)

    def on_change(self, change: Change) -> None:
        """A change, of a quote or of a fill."""
        self.sequence += 1
        self.level2.on_change(change)
        for number, fill in enumerate(self.fills):
            self._last, self._last_sequence = fill, self.sequence - len(self.fills) + number
            if self.matches.sessions:
                self.matches.publish(self._match(fill, "match"))
            if self.ticker.sessions:
                self.ticker.publish(self._ticker())
        self.fills.clear()

    def _match(self, trade: Trade, kind: str) -> bytes:
        """``{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16","taker_order_id":"3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}``"""
        return encode(
            {
                "type": kind,
                "trade_id": trade.trade_id,
                "maker_order_id": str(UUID(int=trade.trade_id << 64, version=4)),
                "taker_order_id": str(UUID(int=trade.run << 64 | 1, version=4)),
                "side": maker_side(trade),
                "size": self.size(trade.size),
                "price": self.price(trade.price),
                "product_id": self.name,
                "sequence": self._last_sequence,
                "time": rfc3339(trade.ts_event),
            }
        )

    def _ticker(self) -> bytes:
        """``{"type":"ticker","sequence":333938798,"product_id":"BAND-GBP","price":"14.7775",…,"best_bid":"14.7550","best_bid_size":"12.5","best_ask":"14.8060","best_ask_size":"56.4","side":"buy","time":"2021-04-17T16:43:30.244075Z","trade_id":881613,"last_size":"0.04"}``

        Figures of the day are left to the imagination.
        """
        trade = self._last
        _, bids, asks = self.book.depth(1)
        bid, bid_size = self.row(bids[0]) if bids else ("0", "0.00000000")
        ask, ask_size = self.row(asks[0]) if asks else ("0", "0.00000000")
        price = self.price(trade.price)
        return encode(
            {
                "type": "ticker",
                "sequence": self._last_sequence,
                "product_id": self.name,
                "price": price,
                "open_24h": price,
                "volume_24h": "94381.28000000",
                "low_24h": price,
                "high_24h": price,
                "volume_30d": "2295579.57000000",
                "best_bid": bid,
                "best_bid_size": bid_size,
                "best_ask": ask,
                "best_ask_size": ask_size,
                "side": "sell" if maker_side(trade) == "buy" else "buy",
                "time": rfc3339(trade.ts_event),
                "trade_id": trade.trade_id,
                "last_size": self.size(trade.size),
            }
        )

    def _heartbeat(self) -> bytes:
        """``{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}``"""
        return encode(
            {
                "type": "heartbeat",
                "sequence": self.sequence,
                "last_trade_id": self._last.trade_id,
                "product_id": self.name,
                "time": rfc3339(self._host.now_ns()),
            }
        )


# ---- connections ------------------------------------------------------------------------------------------


class RequestError(Exception):
    """The client's request is answered by an error, and nothing of it is done."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class CoinbaseSession(Session):
    """The protocol on one connection."""

    def __init__(self, emulator: CoinbaseEmulator, wire: Wire) -> None:
        self._emulator = emulator
        self._wire = wire
        self._channels: list[Channel] = []
        self._has_subscribed = False
        self._messages = RollingLimit(emulator.settings.messages_per_second, SECOND)

    def on_open(self) -> None:
        def look() -> None:
            if not self._has_subscribed:
                self._wire.close(1000, "no subscription")

        self._wire.after(self._emulator.settings.first_subscription_s, look)

    def on_text(self, payload: bytes) -> None:
        if not self._messages.allows(self._wire.now_ns()):
            self._refuse(RequestError("ErrSlowRead"))
            self._wire.close(1008, "ErrSlowRead")
            return
        try:
            self._on_request(payload)
        except RequestError as error:
            self._refuse(error)
            return
        self._has_subscribed = True

    def on_ping(self, payload: bytes) -> None:
        """The server's answer is all."""

    def on_pong(self, payload: bytes) -> None:
        """Nothing to be done: the venue demands no pongs."""

    def on_close(self) -> None:
        for channel in self._channels:
            channel.leave(self)
        self._channels.clear()

    def deliver(self, title: str, frame: bytes) -> None:
        """Market data."""
        self._wire.deliver(title, frame)

    def reply(self, text: str) -> None:
        """Anything else."""
        self._wire.reply(text)

    def _on_request(self, payload: bytes) -> None:
        try:
            request = json.loads(payload)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError("Malformed JSON") from error
        kind = request.get("type") if isinstance(request, dict) else None
        if kind == "subscribe":
            self._subscribe(request)
        elif kind == "unsubscribe":
            self._unsubscribe(request)
        else:
            raise RequestError("Type has to be either subscribe or unsubscribe")

    def _subscribe(self, request: Mapping[str, Any]) -> None:
        wanted = self._emulator.channels_of(request, "Failed to subscribe")
        new = [channel for channel in dict.fromkeys(wanted) if channel not in self._channels]
        for channel in new:
            if len(channel.sessions) >= self._emulator.settings.subscriptions:
                raise RequestError("Failed to subscribe", f"Too many subscriptions to {channel.product}")
        self._channels += new
        self._tell_state()
        for channel in new:
            channel.join(self)

    def _unsubscribe(self, request: Mapping[str, Any]) -> None:
        """From channels of some products, from channels as a whole, or from all channels of some products."""
        names, products = names_of(request.get("channels")), request.get("product_ids") or []
        if names and any(own for own in names.values()):
            left = self._emulator.channels_of(request, "Failed to unsubscribe")
        else:
            left = [
                channel
                for channel in self._channels
                if (not names or channel.name in names) and (not products or channel.product in products)
            ]
        for channel in left:
            if channel in self._channels:
                self._channels.remove(channel)
                channel.leave(self)
        self._tell_state()

    def _tell_state(self) -> None:
        """``{"type":"subscriptions","channels":[{"name":"level2_50","product_ids":["ETH-USD","ETH-EUR"],"account_ids":null}]}``"""
        state: dict[str, list[str]] = {}
        for channel in self._channels:
            products = state.setdefault(NAMES.get(channel.name, channel.name), [])
            products += [channel.product] if channel.product else []
        channels = [{"name": name, "product_ids": products, "account_ids": None} for name, products in state.items()]
        self.reply(encode({"type": "subscriptions", "channels": channels}).decode())

    def _refuse(self, error: RequestError) -> None:
        """``{"type":"error","message":"Failed to subscribe","reason":"GIBBERISH-USD is not a valid product"}``"""
        reason = {"reason": error.reason} if error.reason else {}
        self.reply(encode({"type": "error", "message": str(error), **reason}).decode())


def names_of(channels: Any) -> dict[str, list[Any]]:
    """The products that a request names at each channel itself; a channel is a name or an object."""
    found: dict[str, list[Any]] = {}
    for channel in channels if isinstance(channels, list) else []:
        name = channel.get("name") if isinstance(channel, dict) else channel
        products = channel.get("product_ids") if isinstance(channel, dict) else None
        found[str(name)] = products if isinstance(products, list) else []
    return found


# ---- the venue --------------------------------------------------------------------------------------------


class CoinbaseEmulator(VenueEmulator):
    """Coinbase Exchange over the simulated market: its spot pairs."""

    venue: ClassVar[str] = "coinbase"
    options: ClassVar[type[Struct]] = CoinbaseOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "matches:",
        DataType.BBO: f"{LEVEL2}:",
        DataType.BOOK: f"{LEVEL2}:",
    }
    refuses_unknown: ClassVar[bool] = True

    def __init__(self, market: Market, host: Host, options: CoinbaseOptions) -> None:
        self.settings = options
        self._host = host
        pairs = [Product(book, host, options) for book in market.books if book.spec.symbol.is_spot]
        self.products = {product.name: product for product in pairs}
        self._by_index = {product.book.index: product for product in pairs}
        self._rest = CoinbaseRest(self.products, host, options.requests_per_second, options.request_burst)
        status = PeriodicChannel(STATUS, "", host, options.status_interval_s, self._rest.status_message)
        channels = [status, *(channel for product in pairs for channel in product.channels)]
        self._channels = {(channel.name, channel.product): channel for channel in channels}
        self._names = {channel.name for channel in channels}
        burst = options.connection_burst
        self._upgrades = RollingLimit(burst, burst * SECOND // 8)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if path not in ("", "/"):
            return Refusal(404)
        if not self._upgrades.allows(self._host.now_ns()):
            return Refusal(429)
        return CoinbaseSession(self, wire)

    def channels_of(self, request: Mapping[str, Any], failure: str) -> list[Channel]:
        """What a request names. Raises RequestError if there is no such thing, or nothing is named."""
        names, common = names_of(request.get("channels")), request.get("product_ids") or []
        if not names:
            raise RequestError(failure, "No channels provided")
        found = []
        for name, own in names.items():
            if name in WITH_LOGIN:
                raise RequestError(failure, WITH_LOGIN[name])
            if name not in self._names:
                raise RequestError(failure, f"{name} is not a valid channel")
            products = [""] if name == STATUS else own or common
            if not products:
                raise RequestError(failure, " is not a valid product")
            for product in products:
                if (name, product) not in self._channels:
                    raise RequestError(failure, f"{product} is not a valid product")
                found.append(self._channels[name, product])
        return found

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def on_events(self, events: Sequence[Event]) -> None:
        products = self._by_index
        for event in events:
            product = products.get(event.instrument)
            if product is None:
                continue
            if type(event) is Trade:
                product.on_trade(event)
            elif type(event) is Change:
                product.on_change(event)

    def is_drained(self) -> bool:
        return not any(product.level2.is_collecting for product in self._by_index.values())

    def announce_shutdown(self) -> None:
        """The venue announces nothing."""

    def instruments(self) -> Mapping[str, str]:
        return {name: name for name in self.products}

    def book_of(self, instrument: str) -> Book:
        return self.products[instrument].book

    def level_text(self, book: Book, level: Level) -> list[str]:
        return self._by_index[book.index].row(level)
