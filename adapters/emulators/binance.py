"""Binance Spot, the venue's side: WebSocket market streams and the REST calls a feed handler needs.

Written from the venue's documentation (github.com/binance/binance-spot-api-docs: web-socket-streams.md,
rest-api.md, errors.md, changelog.md to 2026-07-17, read November 2026) and from live probes of 2026, not
from any client. Runs in the emulator process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/stream?streams=btcusdt@trade/btcusdt@depth@100ms&timeUnit=MICROSECOND
    http://HOST/api/v3/depth?symbol=BTCUSDT&limit=1000

Integrity: ``U``/``u`` of depth diffs count every change of a book, ``U == previous u + 1``; a REST snapshot
has ``lastUpdateId`` of the same space, and so has ``bookTicker``'s ``u``. No checksum.

Quirks kept: a misspelt stream (upper case too) is acknowledged and silent for ever; nothing is sent before
the first change; a diff holds the last value only of what changed in its window; ``bookTicker`` runs ahead
of the diffs; ``bookTicker`` and partial depth carry no ``e``; acks are never wrapped.

Not emulated, hence silent like a misspelt stream: klines, tickers, avgPrice, block trades.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, NamedTuple

from msgspec import Struct

from mdring.adapters.emulators.binance_rest import BinanceRest
from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.limits import RollingLimit
from mdring.emulator.market import Change, Event, Market, Top
from mdring.emulator.venue import (
    Host,
    Refusal,
    RestRequest,
    RestResponse,
    Session,
    VenueEmulator,
    Wire,
)
from mdring.record import Aggressor, DataType, Side

DECIMALS: Final = 8  # of prices and sizes on the wire, whatever the tick
MS: Final = 1_000_000
US: Final = 1_000


class BinanceOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    ping_interval_s: float = 20.0
    pong_timeout_s: float = 60.0
    life_s: float = 24 * 3600.0
    messages_per_second: int = 5  # of the client: text, ping and pong frames
    max_streams: int = 1024  # per connection
    max_message_bytes: int = 4096  # longer ones are cut
    connections_per_5min: int = 300  # all clients are on one machine, so they count together
    weight_per_minute: int = 6000  # per address
    strikes_before_ban: int = 10  # answers 429 that are ignored within a minute
    ban_s: int = 120


def trade_message(product: Product, trade: Trade, now_ns: int, unit_ns: int) -> str:
    """``{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.00100000","q":"100.00000000","T":1672515782136,"m":true,"M":true}``"""
    return (
        f'{{"e":"trade","E":{now_ns // unit_ns},"s":"{product.symbol}","t":{trade.trade_id},'
        f'"p":"{product.price(trade.price)}","q":"{product.size(trade.size)}",'
        f'"T":{trade.ts_event // unit_ns},"m":{_buyer_is_maker(trade)},"M":true}}'
    )


def aggregate_message(product: Product, fills: Sequence[Trade], now_ns: int, unit_ns: int) -> str:
    """``{"e":"aggTrade","E":1633998523963,"s":"NKNUSDT","a":15683430,"p":"0.35280000","q":"58.00000000","f":19862790,"l":19862790,"T":1633998523963,"m":false,"M":true}``"""
    first, last = fills[0], fills[-1]
    return (
        f'{{"e":"aggTrade","E":{now_ns // unit_ns},"s":"{product.symbol}","a":{first.run},'
        f'"p":"{product.price(first.price)}","q":"{product.size(sum(fill.size for fill in fills))}",'
        f'"f":{first.trade_id},"l":{last.trade_id},"T":{last.ts_event // unit_ns},'
        f'"m":{_buyer_is_maker(first)},"M":true}}'
    )


def book_ticker_message(product: Product, top: Top) -> str:
    """``{"u":499869768,"s":"NKNUSDT","b":"0.35210000","B":"672.00000000","a":"0.35260000","A":"3199.00000000"}``"""
    price, size = product.price, product.size
    return (
        f'{{"u":{top.update_id},"s":"{product.symbol}","b":"{price(top.bid_price)}",'
        f'"B":"{size(top.bid_size)}","a":"{price(top.ask_price)}","A":"{size(top.ask_size)}"}}'
    )


def depth_message(product: Product, first: int, last: int, now_ns: int, unit_ns: int) -> str:
    """``{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":499869750,"u":499869752,"b":[["0.35130000","6195.00000000"]],"a":[]}``"""
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    for side, price, size in product.book.changes_since(first - 1):
        (bids if side is Side.BID else asks).setdefault(price, size)  # newest first: the last value stays
    return (
        f'{{"e":"depthUpdate","E":{now_ns // unit_ns},"s":"{product.symbol}","U":{first},"u":{last},'
        f'"b":{product.levels(sorted(bids.items(), reverse=True))},'
        f'"a":{product.levels(sorted(asks.items()))}}}'
    )


def snapshot_message(product: Product, update_id: int, bids: Sequence[Level], asks: Sequence[Level]) -> str:
    """``{"lastUpdateId":160,"bids":[["0.00240000","10.00000000"]],"asks":[["0.00260000","100.00000000"]]}``"""
    return f'{{"lastUpdateId":{update_id},"bids":{product.levels(bids)},"asks":{product.levels(asks)}}}'


def _buyer_is_maker(trade: Trade) -> str:
    return "true" if trade.aggressor == Aggressor.SELL else "false"


class Form(NamedTuple):
    """How a connection wants its payloads; one encoding serves all connections of the same form."""

    combined: bool
    unit_ns: int  # of times: MS or US


class Stream:
    """One stream and who listens to it."""

    __slots__ = ("audiences", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.audiences: dict[Form, list[Wire]] = {}

    def join(self, wire: Wire, form: Form) -> None:
        self.audiences.setdefault(form, []).append(wire)

    def leave(self, wire: Wire, form: Form) -> None:
        self.audiences[form].remove(wire)
        if not self.audiences[form]:
            del self.audiences[form]

    def publish(self, encode: Callable[[int], str]) -> None:
        """Encode once per form, send to all. ``encode`` gets the unit of times in ns."""
        for form, wires in self.audiences.items():
            message = encode(form.unit_ns)
            text = f'{{"stream":"{self.name}","data":{message}}}' if form.combined else message
            frame = text.encode()
            for wire in wires:
                wire.deliver(self.name, frame)


class Window:
    """Collects the changes of one book for the streams of one update speed."""

    def __init__(self, product: Product, host: Host, suffix: str, period_s: float) -> None:
        name = f"{product.symbol.lower()}@depth"
        self.diff = Stream(f"{name}{suffix}")
        self.partial = {levels: Stream(f"{name}{levels}{suffix}") for levels in (5, 10, 20)}
        self.is_open = False
        self._product = product
        self._host = host
        self._period_s = period_s
        self._sent_id = product.book.update_id
        self._sent_partial: dict[int, tuple[list[Level], list[Level]]] = {}

    def on_change(self, change: Change) -> None:
        """Open the window; close it early if the book is about to forget where it began."""
        if change.update_id <= self._sent_id:
            return
        if not self.is_open:
            if self._is_heard():
                self.is_open = True
                self._host.after(self._period_s, self._close)
            else:
                self._sent_id = change.update_id
        elif change.update_id - self._sent_id >= self._product.book.history_limit // 2:
            self._send()

    def _is_heard(self) -> bool:
        return bool(self.diff.audiences) or any(stream.audiences for stream in self.partial.values())

    def _close(self) -> None:
        self.is_open = False
        self._send()

    def _send(self) -> None:
        product, now_ns = self._product, self._host.now_ns()
        first, last = self._sent_id + 1, product.book.update_id
        self._sent_id = last
        if self.diff.audiences and first <= last:
            self.diff.publish(lambda unit: depth_message(product, first, last, now_ns, unit))
        for levels, stream in self.partial.items():
            if stream.audiences:
                self._send_partial(levels, stream)

    def _send_partial(self, levels: int, stream: Stream) -> None:
        update_id, bids, asks = self._product.book.depth(levels)
        if self._sent_partial.get(levels) != (bids, asks):
            self._sent_partial[levels] = (bids, asks)
            stream.publish(lambda _: snapshot_message(self._product, update_id, bids, asks))


class Product:
    """One instrument as this venue lists it, with its streams."""

    def __init__(self, book: Book, host: Host) -> None:
        self.book = book
        self.base, self.quote = book.spec.base, book.spec.quote
        self.symbol = self.base + self.quote
        self.price = decimal_formatter(book.spec.price_exponent, DECIMALS)
        self.size = decimal_formatter(book.spec.size_exponent, DECIMALS)
        name = self.symbol.lower()
        self.trade = Stream(f"{name}@trade")
        self.aggregate = Stream(f"{name}@aggTrade")
        self.book_ticker = Stream(f"{name}@bookTicker")
        self.windows = (Window(self, host, "", 1.0), Window(self, host, "@100ms", 0.1))
        self.fills: list[Trade] = []  # of the run that is not complete yet

    def streams(self) -> list[Stream]:
        """All streams of the instrument."""
        depth = [stream for window in self.windows for stream in (window.diff, *window.partial.values())]
        return [self.trade, self.aggregate, self.book_ticker, *depth]

    def levels(self, levels: Sequence[Level]) -> str:
        """``[["0.35130000","6195.00000000"],…]``"""
        price, size = self.price, self.size
        return "[" + ",".join([f'["{price(level[0])}","{size(level[1])}"]' for level in levels]) + "]"


METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class RequestError(Exception):
    """The client's request is answered by an error object; the connection stays open."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BinanceSession(Session):
    """The protocol on one connection. ``streams`` holds misspelt names too, with None."""

    def __init__(
        self, emulator: BinanceEmulator, wire: Wire, names: Sequence[str], combined: bool, unit_ns: int
    ) -> None:
        self._emulator = emulator
        self._options = emulator.settings
        self._wire = wire
        self._form = Form(combined, unit_ns)
        self._streams: dict[str, Stream | None] = {}
        self._asked_in_url = names
        self._inbound = RollingLimit(self._options.messages_per_second, 10**9)
        self._unanswered: list[bytes] = []  # payloads of pings, oldest first

    def on_open(self) -> None:
        self._emulator.sessions.add(self)
        self._subscribe(self._asked_in_url)
        self._wire.after(self._options.ping_interval_s, self._ping)
        self._wire.after(self._options.life_s, self._end_of_life)

    def on_text(self, payload: bytes) -> None:
        if not self._is_allowed():
            return
        try:
            request = self._parse(payload)
        except RequestError as error:
            self._wire.reply(_error_text(error))
            return
        try:
            result = self._execute(request)
        except RequestError as error:
            self._wire.reply(_error_text(error, request))
        else:
            self._wire.reply(_compact({"result": result, "id": request.get("id")}))

    def on_ping(self, payload: bytes) -> None:
        self._is_allowed()

    def on_pong(self, payload: bytes) -> None:
        if self._is_allowed() and payload in self._unanswered:
            del self._unanswered[: self._unanswered.index(payload) + 1]

    def on_close(self) -> None:
        self._emulator.sessions.discard(self)
        self._unsubscribe(list(self._streams))

    def announce_shutdown(self) -> None:
        """``{"e":"serverShutdown","E":1770123456789}``"""
        notice = f'{{"e":"serverShutdown","E":{self._wire.now_ns() // self._form.unit_ns}}}'
        combined = f'{{"stream":"!serverShutdown","data":{notice}}}'
        self._wire.reply(combined if self._form.combined else notice)

    def _is_allowed(self) -> bool:
        allowed = self._inbound.allows(self._wire.now_ns())
        if not allowed:
            self._wire.close(1008, "Too many requests")
        return allowed

    def _ping(self) -> None:
        payload = str(self._wire.now_ns() // MS).encode()
        self._unanswered.append(payload)
        self._wire.ping(payload)
        self._wire.after(self._options.pong_timeout_s, lambda: self._check_pong(payload))
        self._wire.after(self._options.ping_interval_s, self._ping)

    def _check_pong(self, payload: bytes) -> None:
        if payload in self._unanswered:
            self._wire.close(1008, "Pong timeout")

    def _end_of_life(self) -> None:
        self._wire.close(1001, "Connection has reached its maximum life")

    def _parse(self, payload: bytes) -> dict[str, Any]:
        limit = self._options.max_message_bytes
        if len(payload) > limit:
            raise RequestError(3, f"Invalid JSON: EOF while parsing a string at line 1 column {limit}")
        try:
            request = json.loads(payload)
        except json.JSONDecodeError as error:
            message = f"Invalid JSON: expected value at line {error.lineno} column {error.colno}"
            raise RequestError(3, message) from error
        except UnicodeDecodeError as error:
            raise RequestError(3, "Invalid JSON: invalid unicode code point at line 1 column 1") from error
        except RecursionError as error:
            raise RequestError(3, "Invalid JSON: recursion limit exceeded at line 1 column 128") from error
        if not isinstance(request, dict):
            raise RequestError(2, "Invalid request: expected an object")
        identifier = request.get("id")
        if isinstance(identifier, bool | float | list | dict) or len(str(identifier)) > 36:
            raise RequestError(2, "Invalid request: request ID must be an integer or a string")
        return request

    def _execute(self, request: dict[str, Any]) -> Any:
        if "method" not in request:
            raise RequestError(2, "Invalid request: missing field `method`")
        params = request.get("params", [])
        match request["method"]:
            case "SUBSCRIBE":
                self._subscribe(_stream_names(params))
            case "UNSUBSCRIBE":
                self._unsubscribe(_stream_names(params))
            case "LIST_SUBSCRIPTIONS":
                return list(self._streams)
            case "SET_PROPERTY":
                self._set_property(params)
            case "GET_PROPERTY":
                _check_property(params)
                return self._form.combined
            case method:
                expected = ", ".join(f"`{name}`" for name in METHODS)
                raise RequestError(2, f"Invalid request: unknown variant `{method}`, expected one of {expected}")
        return None

    def _subscribe(self, names: Sequence[str]) -> None:
        new = [name for name in dict.fromkeys(names) if name not in self._streams]
        if len(self._streams) + len(new) > self._options.max_streams:
            raise RequestError(4, "Too many subscriptions")
        for name in new:
            stream = self._streams[name] = self._emulator.by_name.get(name)
            if stream is not None:
                stream.join(self._wire, self._form)

    def _unsubscribe(self, names: Sequence[str]) -> None:
        for name in names:
            stream = self._streams.pop(name, None)
            if stream is not None:
                stream.leave(self._wire, self._form)

    def _set_property(self, params: Any) -> None:
        _check_property(params)
        if len(params) != 2 or not isinstance(params[1], bool):
            raise RequestError(1, "Invalid value type: expected Boolean")
        names = list(self._streams)
        self._unsubscribe(names)
        self._form = Form(params[1], self._form.unit_ns)
        self._subscribe(names)


def _stream_names(params: Any) -> list[str]:
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        raise RequestError(2, "Invalid request: params must be an array of strings")
    return params


def _check_property(params: Any) -> None:
    if not isinstance(params, list) or not params or not isinstance(params[0], str):
        raise RequestError(2, "Invalid request: property name must be a string")
    if params[0] != "combined":
        raise RequestError(0, "Unknown property")


def _error_text(error: RequestError, request: Mapping[str, Any] | None = None) -> str:
    """``{"error":{"code":2,"msg":"Invalid request: …"},"id":2}``; without ``id`` if none could be read."""
    text: dict[str, Any] = {"error": {"code": error.code, "msg": str(error)}}
    if request is not None:
        text["id"] = request.get("id")
    return _compact(text)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class BinanceEmulator(VenueEmulator):
    """Binance Spot over the simulated market."""

    venue: ClassVar[str] = "binance"
    options: ClassVar[type[Struct]] = BinanceOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "rade",  # @trade, @aggTrade
        DataType.BBO: "@bookTicker",
        DataType.BOOK: "@depth",
    }
    refuses_unknown: ClassVar[bool] = False

    def __init__(self, market: Market, host: Host, options: BinanceOptions) -> None:
        self.settings = options
        self.sessions: set[BinanceSession] = set()
        self._host = host
        spot = [book for book in market.books if book.spec.symbol.is_spot]
        self._products = {book.index: Product(book, host) for book in spot}
        self._by_symbol = {product.symbol: product for product in self._products.values()}
        self.by_name = {stream.name: stream for product in self._products.values() for stream in product.streams()}
        self._rest = BinanceRest(self._by_symbol, host, options)
        self._attempts = RollingLimit(options.connections_per_5min, 300 * 10**9)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if not self._attempts.allows(self._host.now_ns()):
            return Refusal(429)
        unit_ns = US if query.get("timeUnit", "").upper() == "MICROSECOND" else MS
        if path == "/stream":
            names, combined = _split(query.get("streams", "")), True
        elif path == "/ws" or path.startswith("/ws/"):
            names, combined = _split(path.removeprefix("/ws")), False
        else:
            return Refusal(404)
        if len(names) > self.settings.max_streams:
            return Refusal(400, b"Too many subscriptions")
        return BinanceSession(self, wire, names, combined, unit_ns)

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def on_events(self, events: Sequence[Event]) -> None:
        products = self._products
        for event in events:
            product = products.get(event.instrument)
            if product is None:
                continue
            if type(event) is Trade:
                self._on_trade(product, event)
            elif type(event) is Top:
                if product.book_ticker.audiences:
                    message = book_ticker_message(product, event)
                    product.book_ticker.publish(lambda _, message=message: message)  # type: ignore[misc]
            elif type(event) is Change:
                for window in product.windows:
                    window.on_change(event)
                if product.fills:
                    self._end_run(product)

    def is_drained(self) -> bool:
        return not any(window.is_open for product in self._products.values() for window in product.windows)

    def announce_shutdown(self) -> None:
        for session in self.sessions:
            session.announce_shutdown()

    def instruments(self) -> Mapping[str, str]:
        return {p.book.spec.canonical_symbol: p.symbol for p in self._products.values()}

    def book_of(self, instrument: str) -> Book:
        return self._by_symbol[instrument].book

    def level_text(self, book: Book, level: Level) -> list[str]:
        product = self._products[book.index]
        return [product.price(level[0]), product.size(level[1])]

    def _on_trade(self, product: Product, trade: Trade) -> None:
        if product.trade.audiences:
            now_ns = self._host.now_ns()  # as close to the sending as can be: clients measure by it
            product.trade.publish(lambda unit: trade_message(product, trade, now_ns, unit))
        if product.aggregate.audiences:
            product.fills.append(trade)

    def _end_run(self, product: Product) -> None:
        fills, now_ns = product.fills, self._host.now_ns()
        product.fills = []
        product.aggregate.publish(lambda unit: aggregate_message(product, fills, now_ns, unit))


def _split(names: str) -> list[str]:
    return [name for name in names.split("/") if name]
