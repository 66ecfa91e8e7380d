"""Kraken Spot, the venue's side: WebSocket v2 and the REST calls that a feed handler needs.

Written from the venue's documentation (docs.kraken.com, WebSocket v2 and REST, to July 2026) and from messages of the
real venue of 2026, not from any client. Runs in the emulator process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/v2    {"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":10},"req_id":1}
    http://HOST/0/public/AssetPairs

Integrity: every book message has the CRC-32 of the best 10 levels after it. Trades are numbered per pair.

Quirks kept: a status comes first; every symbol of a request is acknowledged, or refused, by itself, the refused one
named in the text only; levels that leave the window of a depth are not deleted; prices and sizes are JSON numbers with
all their decimals; heartbeats in idle seconds once anything is subscribed to; who subscribes to nothing and is silent
for a minute is cut; to end a subscription its depth, or its trigger, must be named.

Not known from the venue, hence chosen here: the texts of errors but for unknown pairs and message rates, the close code
of idle connections, what the ticker says of an empty side (zeros). Prices of the day in the ticker are made up.

Not emulated, hence refused: ohlc, and what needs a token.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, NamedTuple

from msgspec import Struct

from mdring.adapters.emulators.kraken_rest import LOTS, KrakenRest
from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.limits import RollingLimit
from mdring.emulator.market import Change, Event, Market, Top
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, VenueEmulator, Wire
from mdring.emulator.window import Delta, DepthWindow
from mdring.record import Aggressor, DataType

SECOND: Final = 1_000_000_000
DEPTHS: Final = (10, 25, 100, 500, 1000)
CHECKED_LEVELS: Final = 10
TRIGGERS: Final = ("bbo", "trades")
HISTORY: Final = 50  # trades of a snapshot


class KrakenOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own, or what is known to be safe."""

    book_interval_s: float = 0.0  # 0: every change at once
    heartbeat_s: float = 1.0
    idle_s: float = 60.0
    messages_per_second: int = 20  # of one connection
    connections_per_10min: int = 150
    rest_calls_per_10s: int = 10


def time_text(now_ns: int) -> str:
    """``2026-08-24T22:21:57.110183Z``"""
    seconds, rest_ns = divmod(now_ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


def venue_name(book: Book) -> str | None:
    """``BTC/USD``; None for what the venue does not list: contracts."""
    symbol = book.spec.symbol
    return f"{symbol.base}/{symbol.quote}" if symbol.is_spot else None


# ---- streams ----------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """What identifies a subscription: the depth of a book, the trigger of a ticker."""

    channel: str
    name: str
    detail: str = ""


class Stream:
    """One subscription that is to be had, and who has it."""

    def __init__(self, product: Product, key: Key) -> None:
        self.product = product
        self.key = key
        self.sessions: list[KrakenSession] = []

    def join(self, session: KrakenSession, snapshot: bool) -> None:
        """A new listener; what there is to begin with goes to it alone, if it wants it."""
        self.sessions.append(session)
        rows = self.first() if snapshot else ""
        if rows:
            session.deliver(self.title, self._frame("snapshot", rows))

    def leave(self, session: KrakenSession) -> None:
        self.sessions.remove(session)

    @property
    def title(self) -> str:
        """For faults and the log."""
        return f"{self.key.channel}:{self.key.name}"

    def first(self) -> str:
        """The rows of the snapshot; none if there is nothing to be told."""
        return ""

    def publish(self, rows: str) -> None:
        """To all."""
        frame = self._frame("update", rows)
        for session in self.sessions:
            session.deliver(self.title, frame)

    def _frame(self, kind: str, rows: str) -> bytes:
        return f'{{"channel":"{self.key.channel}","type":"{kind}","data":[{rows}]}}'.encode()


class BookStream(Stream):
    """A book of one depth: a snapshot, then what changes in its window."""

    def __init__(self, product: Product, key: Key, host: Host, interval_s: float) -> None:
        super().__init__(product, key)
        self._host = host
        self.window = DepthWindow(product.book, host, interval_s, int(key.detail), self._on_delta)

    def join(self, session: KrakenSession, snapshot: bool) -> None:
        self.window.flush()  # the snapshot is as new as the last change
        self.window.open = True
        super().join(session, snapshot)

    def leave(self, session: KrakenSession) -> None:
        super().leave(session)
        self.window.open = bool(self.sessions)

    def first(self) -> str:
        _, bids, asks = self.window.image()
        return self._row(bids, asks)

    def _on_delta(self, delta: Delta) -> None:
        """Levels that are only out of sight are not told."""
        if delta.bids or delta.asks:
            self.publish(self._row(delta.bids, delta.asks))

    def _row(self, bids: Sequence[Level], asks: Sequence[Level]) -> str:
        """``{"symbol":"BTC/USD","bids":[{"price":78858.8,"qty":0.00000000}],"asks":[],"checksum":2416540570,"timestamp":"2026-08-24T22:21:58.343688Z"}``"""
        levels, (_, all_bids, all_asks) = self.product.levels, self.window.image()
        return (
            f'{{"symbol":"{self.key.name}","bids":{levels(bids)},"asks":{levels(asks)},'
            f'"checksum":{self.product.checksum(all_bids, all_asks)},"timestamp":"{time_text(self._host.now_ns())}"}}'
        )


class TickerStream(Stream):
    """The best levels, and what was traded of late."""

    def __init__(self, product: Product, key: Key, host: Host) -> None:
        super().__init__(product, key)
        self._host = host

    def first(self) -> str:
        """``{"symbol":"ALGO/USD","bid":0.10025,"bid_qty":740.0,"ask":0.10035,"ask_qty":740.0,"last":0.10035,"volume":997038.98383185,"vwap":0.10148,"low":0.09979,"high":0.10285,"change":-0.00017,"change_pct":-0.17,"timestamp":"2023-09-25T09:04:31.742648Z"}``"""
        product = self.product
        _, bids, asks = product.book.depth(1)
        (bid, bid_size), (ask, ask_size) = (side[0] if side else (0, 0) for side in (bids, asks))
        last = product.price(product.book.trades[-1].price if product.book.trades else bid)
        nothing = product.price(0)
        return (
            f'{{"symbol":"{self.key.name}","bid":{product.price(bid)},"bid_qty":{product.size(bid_size)},'
            f'"ask":{product.price(ask)},"ask_qty":{product.size(ask_size)},"last":{last},"volume":0.00000000,'
            f'"vwap":{last},"low":{last},"high":{last},"change":{nothing},"change_pct":0.00,'
            f'"timestamp":"{time_text(self._host.now_ns())}"}}'
        )


class TradeStream(Stream):
    """Every fill; the last 50 as the snapshot."""

    def first(self) -> str:
        return self.product.trade_rows(list(self.product.book.trades)[-HISTORY:])


# ---- products ---------------------------------------------------------------------------------------------


class Product:
    """One pair as this venue lists it, with its streams."""

    def __init__(self, name: str, book: Book, host: Host, options: KrakenOptions) -> None:
        spec = book.spec
        self.name = name
        self.book = book
        self.symbol = spec.symbol
        self.price_decimals = max(-spec.price_exponent, 0)
        self.price = decimal_formatter(spec.price_exponent, self.price_decimals)
        self.size = decimal_formatter(spec.size_exponent, LOTS)
        self.fills: list[Trade] = []  # of the taker order that is not complete yet
        self.trades = TradeStream(self, Key("trade", name))
        self.tickers = {trigger: TickerStream(self, Key("ticker", name, trigger), host) for trigger in TRIGGERS}
        self.books: dict[int, BookStream] = {}  # by depth; made when they are first asked for
        self._host = host
        self._options = options

    def book_stream(self, depth: int) -> BookStream:
        """The book of this depth."""
        if depth not in self.books:
            key = Key("book", self.name, str(depth))
            self.books[depth] = BookStream(self, key, self._host, self._options.book_interval_s)
        return self.books[depth]

    def levels(self, levels: Sequence[Level]) -> str:
        """``[{"price":78871.5,"qty":0.01266503},…]``"""
        price, size = self.price, self.size
        return "[" + ",".join([f'{{"price":{price(at)},"qty":{size(much)}}}' for at, much in levels]) + "]"

    def checksum(self, bids: Sequence[Level], asks: Sequence[Level]) -> int:
        """CRC-32 of the best 10 asks, then bids, best first: digits of price and size without leading zeros."""
        best = (*asks[:CHECKED_LEVELS], *bids[:CHECKED_LEVELS])
        texts = [text for price, size in best for text in (self.price(price), self.size(size))]
        return zlib.crc32("".join([text.replace(".", "").lstrip("0") for text in texts]).encode())

    def trade_rows(self, trades: Sequence[Trade]) -> str:
        """``{"symbol":"BTC/USD","side":"buy","price":105944.2,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"},…``"""
        return ",".join(
            [
                f'{{"symbol":"{self.name}","side":"{"sell" if trade.aggressor == Aggressor.SELL else "buy"}",'
                f'"price":{self.price(trade.price)},"qty":{self.size(trade.size)},"ord_type":"market",'
                f'"trade_id":{trade.trade_id},"timestamp":"{time_text(trade.ts_event)}"}}'
                for trade in trades
            ]
        )

    def on_change(self) -> None:
        """The book has changed."""
        for book in self.books.values():
            book.window.on_change()

    def on_top(self) -> None:
        """The best bid or ask has changed, after whatever was traded."""
        self.tell_trades()
        self._tell_ticker("bbo")

    def tell_trades(self) -> None:
        """What a taker order has filled goes out together."""
        fills, self.fills = self.fills, []
        if fills:
            if self.trades.sessions:
                self.trades.publish(self.trade_rows(fills))
            self._tell_ticker("trades")

    def _tell_ticker(self, trigger: str) -> None:
        ticker = self.tickers[trigger]
        if ticker.sessions:
            ticker.publish(ticker.first())

    def pair_row(self) -> dict[str, Any]:
        """One row of ``pairs`` of the channel ``instrument``."""
        tick, spec = float(self.price(self.book.spec.tick)), self.book.spec
        return {
            "symbol": self.name,
            "base": spec.base,
            "quote": spec.quote,
            "status": "online",
            "qty_precision": LOTS,
            "qty_increment": 10.0**-LOTS,
            "price_precision": self.price_decimals,
            "cost_precision": 5,
            "marginable": False,
            "has_index": True,
            "cost_min": 0.5,
            "tick_size": tick,
            "price_increment": tick,
            "qty_min": float(self.size(spec.step)),
        }


# ---- connections ------------------------------------------------------------------------------------------


class RequestError(Exception):
    """The client's request, or one symbol of it, is answered by an error; the connection stays open."""


class KrakenSession(Session):
    """The protocol on one connection."""

    def __init__(self, emulator: KrakenEmulator, wire: Wire) -> None:
        self._emulator = emulator
        self._options = emulator.settings
        self._wire = wire
        self._streams: dict[Key, Stream] = {}
        self._knows_pairs = False  # instrument is subscribed to
        self._requests = RollingLimit(self._options.messages_per_second, SECOND)
        self._heard_ns = self._sent_ns = wire.now_ns()

    def on_open(self) -> None:
        self._emulator.sessions.add(self)
        self.tell_status("online")
        self._wire.after(self._options.heartbeat_s, self._beat)
        self._wire.after(self._options.idle_s, self._check_idle)

    def on_text(self, payload: bytes) -> None:
        self._heard_ns = self._wire.now_ns()
        identity: dict[str, Any] = {}
        try:
            request = _parse(payload)
            method = request["method"]
            identity = {"method": method, **({"req_id": request["req_id"]} if "req_id" in request else {})}
            if not self._requests.allows(self._wire.now_ns()):
                raise RequestError("Exceeded msg rate")
            if method == "ping":
                self._answer({**identity, "method": "pong"})
                return
            operate = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe}.get(method)
            if operate is None:
                raise RequestError(f"Unsupported method {method}")
            params, symbols = _parameters(request)
        except RequestError as error:
            self._refuse(identity, error)
            return
        for symbol in symbols:
            try:
                operate(params, symbol, identity)
            except RequestError as error:
                self._refuse(identity, error)

    def on_ping(self, payload: bytes) -> None:
        """The server has answered it; it holds the connection as any other traffic."""
        self._heard_ns = self._wire.now_ns()

    def on_pong(self, payload: bytes) -> None:
        """Nothing to be done: the venue sends no ping frames."""

    def on_close(self) -> None:
        self._emulator.sessions.discard(self)
        for stream in self._streams.values():
            stream.leave(self)
        self._streams.clear()

    def deliver(self, title: str, frame: bytes) -> None:
        """Market data."""
        self._sent_ns = self._wire.now_ns()
        self._wire.deliver(title, frame)

    def tell_status(self, system: str) -> None:
        """``{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":13834774380200032777}]}``"""
        connection = 13_834_774_380_200_032_768 + self._wire.number
        row = {"version": "2.0.10", "system": system, "api_version": "v2", "connection_id": connection}
        self._reply({"channel": "status", "type": "update", "data": [row]})

    def _beat(self) -> None:
        """``{"channel":"heartbeat"}``, in a second in which nothing else was sent."""
        period_ns = round(self._options.heartbeat_s * SECOND)
        silent_ns = self._wire.now_ns() - self._sent_ns
        if silent_ns >= period_ns:
            silent_ns = 0
            if self._streams or self._knows_pairs:
                self._reply({"channel": "heartbeat"})
        self._wire.after((period_ns - silent_ns) / SECOND, self._beat)

    def _check_idle(self) -> None:
        idle_ns = round(self._options.idle_s * SECOND)
        idle_since_ns = self._heard_ns
        if self._streams or self._knows_pairs:
            idle_since_ns = self._wire.now_ns()
        rest_ns = idle_since_ns + idle_ns - self._wire.now_ns()
        if rest_ns <= 0:
            self._wire.close(1001, "idle")
        else:
            self._wire.after(rest_ns / SECOND, self._check_idle)

    def _subscribe(self, params: Mapping[str, Any], symbol: str, identity: Mapping[str, Any]) -> None:
        channel, snapshot = params.get("channel"), params.get("snapshot", params.get("channel") != "trade")
        result = {"channel": channel, "snapshot": snapshot}
        if channel == "instrument":
            self._knows_pairs = True
            self._answer(
                {**identity, "result": {**result, "warnings": ["tick_size is deprecated, use price_increment"]}}
            )
            if snapshot:
                self._reply({"channel": "instrument", "type": "snapshot", "data": self._emulator.reference()})
            return
        stream = self._emulator.stream(params, symbol)
        if stream.key in self._streams:
            raise RequestError(f"Already subscribed to {channel} {symbol}")
        self._answer({**identity, "result": {**result, **_details(stream.key), "symbol": symbol}})
        self._streams[stream.key] = stream
        stream.join(self, bool(snapshot))

    def _unsubscribe(self, params: Mapping[str, Any], symbol: str, identity: Mapping[str, Any]) -> None:
        if params.get("channel") == "instrument" and self._knows_pairs:
            self._knows_pairs = False
            self._answer({**identity, "result": {"channel": "instrument"}})
            return
        key = self._emulator.stream(params, symbol).key
        stream = self._streams.pop(key, None)
        if stream is None:
            raise RequestError(f"Subscription Not Found {key.channel} {symbol}")
        stream.leave(self)
        self._answer({**identity, "result": {"channel": key.channel, **_details(key), "symbol": symbol}})

    def _refuse(self, identity: Mapping[str, Any], error: RequestError) -> None:
        """``{"error":"Currency pair not supported BTC/INVALID","method":"subscribe","success":false,"time_in":"2026-03-27T12:17:06.298588Z","time_out":"2026-03-27T12:17:06.298626Z"}``"""  # noqa: E501
        self._reply({"error": str(error), **identity, "success": False, **self._times()})

    def _answer(self, message: Mapping[str, Any]) -> None:
        """``{"method":"subscribe","req_id":1,"result":{"channel":"book","depth":10,"snapshot":true,"symbol":"BTC/USD"},"success":true,"time_in":"2026-08-24T22:21:56.724795Z","time_out":"2026-08-24T22:21:56.724853Z"}``"""
        done = {} if message["method"] == "pong" else {"success": True}
        self._reply({**message, **done, **self._times()})

    def _times(self) -> dict[str, str]:
        now_ns = self._wire.now_ns()
        return {"time_in": time_text(now_ns), "time_out": time_text(now_ns)}

    def _reply(self, message: Mapping[str, Any]) -> None:
        self._sent_ns = self._wire.now_ns()
        self._wire.reply(json.dumps(message, separators=(",", ":")))


def _details(key: Key) -> dict[str, Any]:
    """What an answer repeats of a request."""
    match key.channel:
        case "book":
            return {"depth": int(key.detail)}
        case "ticker":
            return {"event_trigger": key.detail}
    return {}


def _parse(payload: bytes) -> dict[str, Any]:
    """A request that has the form of one. Raises RequestError."""
    try:
        request = json.loads(payload.decode(errors="replace"))
    except (json.JSONDecodeError, RecursionError) as error:
        raise RequestError("Malformed request") from error
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        raise RequestError("Malformed request")
    if not isinstance(request.get("req_id", 0), int):
        raise RequestError("Malformed request: req_id is an integer")
    return request


def _parameters(request: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The parameters, and the symbols; one that is empty for the channel without any. Raises RequestError."""
    params = request.get("params")
    if not isinstance(params, dict):
        raise RequestError("Malformed request: no params")
    channel = params.get("channel")
    if channel == "instrument":
        return params, [""]
    if channel not in ("book", "ticker", "trade"):
        raise RequestError("Symbol(s) not found" if channel == "status" else f"Channel not supported {channel}")
    symbols = params.get("symbol")
    if not isinstance(symbols, list) or not symbols or not all(isinstance(symbol, str) for symbol in symbols):
        raise RequestError("Malformed request: symbol is a list of pairs")
    return params, symbols


# ---- the venue --------------------------------------------------------------------------------------------


class KrakenEmulator(VenueEmulator):
    """Kraken Spot v2 over the simulated market."""

    venue: ClassVar[str] = "kraken"
    options: ClassVar[type[Struct]] = KrakenOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "trade:",
        DataType.BBO: "ticker:",
        DataType.BOOK: "book:",
    }
    refuses_unknown: ClassVar[bool] = True

    def __init__(self, market: Market, host: Host, options: KrakenOptions) -> None:
        self.settings = options
        self.sessions: set[KrakenSession] = set()
        self._host = host
        named = [(venue_name(book), book) for book in market.books]
        self._by_name = {name: Product(name, book, host, options) for name, book in named if name is not None}
        self._products = {product.book.index: product for product in self._by_name.values()}
        self._rest = KrakenRest(self._by_name, host, options.rest_calls_per_10s)
        # All clients are on one machine, so they count together.
        self._connections = RollingLimit(options.connections_per_10min, 600 * SECOND)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if path != "/v2":
            return Refusal(404)
        if not self._connections.allows(self._host.now_ns()):
            return Refusal(429)
        return KrakenSession(self, wire)

    def stream(self, params: Mapping[str, Any], symbol: str) -> Stream:
        """The stream that a request means. Raises RequestError."""
        product = self._by_name.get(symbol)
        if product is None:
            raise RequestError(f"Currency pair not supported {symbol}")
        match params["channel"]:
            case "book":
                depth = params.get("depth", 10)
                if depth not in DEPTHS:
                    raise RequestError(f"Subscription depth not supported {depth} {symbol}")
                return product.book_stream(depth)
            case "ticker":
                trigger = params.get("event_trigger", "trades")
                if trigger not in TRIGGERS:
                    raise RequestError(f"Event trigger not supported {trigger} {symbol}")
                return product.tickers[trigger]
        return product.trades

    def reference(self) -> dict[str, Any]:
        """``data`` of the channel ``instrument``: an object, not an array."""
        symbols = [product.symbol for product in self._by_name.values()]
        assets = dict.fromkeys(asset for symbol in symbols for asset in (symbol.base, symbol.quote))
        rows = [
            {"id": asset, "status": "enabled", "precision": 10, "precision_display": 5, "borrowable": False}
            for asset in assets
        ]
        return {"assets": rows, "pairs": [product.pair_row() for product in self._by_name.values()]}

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def on_events(self, events: Sequence[Event]) -> None:
        products = self._products
        moved: dict[int, Product] = {}
        for event in events:
            product = products.get(event.instrument)
            if product is None:
                continue
            if type(event) is Trade:
                product.fills.append(event)
                moved[event.instrument] = product
            elif type(event) is Top:
                product.on_top()
            elif type(event) is Change:
                product.on_change()
        for product in moved.values():  # a taker order that left the best levels as they were
            product.tell_trades()

    def is_drained(self) -> bool:
        return not any(
            book.window.is_collecting for product in self._products.values() for book in product.books.values()
        )

    def announce_shutdown(self) -> None:
        """The engine goes into maintenance; who connects after it finds it online."""
        for session in self.sessions:
            session.tell_status("maintenance")

    def instruments(self) -> Mapping[str, str]:
        return {product.book.spec.canonical_symbol: name for name, product in self._by_name.items()}

    def book_of(self, instrument: str) -> Book:
        return self._by_name[instrument].book

    def level_text(self, book: Book, level: Level) -> list[str]:
        product = self._products[book.index]
        return [product.price(level[0]), product.size(level[1])]
