"""Binance USD-M futures, the venue's side: WebSocket market streams and the REST calls that a feed handler needs.

Written from the venue's documentation (developers.binance.com, derivatives, USD-M futures, its notices and change log
to 2026-10-23, read November 2026) and from what was seen of it in 2026, not from any client. Runs in the emulator
process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/public/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker
    ws://HOST/market/ws/btcusdt@aggTrade
    http://HOST/fapi/v1/depth?symbol=BTCUSDT&limit=1000

Integrity: ``pu`` of a depth diff is ``u`` of the one before; ``lastUpdateId`` of a snapshot and ``u`` of bookTicker are
of the same count, which skips. No checksum.

Quirks kept: each stream is on one of two paths; asked for on the other, or misspelt (upper case is), it is
acknowledged and silent for ever. A path without a route still opens, and delivers what is public only. Of an instrument
that does not change, nothing is sent but its mark price. Placeholders among single trades; retail-only fills.

The option ``coin_margined`` makes it the sister venue: inverse contracts, ``/dapi/v1``, no routes.

Not emulated, hence silent like a misspelt stream: klines, tickers, rpiDepth, streams of all instruments; no contract is
ever halted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.binance_usdm_rest import BinanceUsdmRest
from mdring.adapters.emulators.binance_usdm_streams import MARKET, MS, PUBLIC, Product, Stream, venue_name
from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.limits import RollingLimit
from mdring.emulator.market import Change, Event, Market, Top
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, VenueEmulator, Wire
from mdring.record import DataType


class BinanceUsdmOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    ping_interval_s: float = 180.0
    pong_timeout_s: float = 600.0
    life_s: float = 24 * 3600.0
    messages_per_second: int = 10  # of the client: text, ping and pong frames
    max_streams: int = 1024  # per connection
    max_message_bytes: int = 4096  # longer ones are cut
    connections_per_5min: int = 300  # all clients are on one machine, so they count together
    weight_per_minute: int = 2400  # per address
    strikes_before_ban: int = 10  # answers 429 that are ignored within a minute
    ban_s: int = 120
    demo_host: bool = False  # without a route everything is delivered, as the venue's demo does
    coin_margined: bool = False  # COIN-M in place of USD-M


METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class RequestError(Exception):
    """The client's request is answered by an error object; the connection stays open."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BinanceUsdmSession(Session):
    """The protocol on one connection. ``streams`` holds names that deliver nothing too, with None."""

    def __init__(
        self, emulator: BinanceUsdmEmulator, wire: Wire, groups: Sequence[str], names: Sequence[str], combined: bool
    ) -> None:
        """``groups``: of the streams that are delivered here."""
        self._emulator = emulator
        self._options = emulator.settings
        self._wire = wire
        self._groups = groups
        self._combined = combined
        self._streams: dict[str, Stream | None] = {}
        self._asked_in_url = names
        self._inbound = RollingLimit(self._options.messages_per_second, 10**9)
        self._unanswered: list[bytes] = []  # payloads of pings, oldest first

    def on_open(self) -> None:
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
        self._unsubscribe(list(self._streams))

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
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError(3, "Invalid JSON: expected value at line 1 column 1") from error
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
                return self._combined
            case method:
                expected = ", ".join(f"`{name}`" for name in METHODS)
                raise RequestError(2, f"Invalid request: unknown variant `{method}`, expected one of {expected}")
        return None

    def _subscribe(self, names: Sequence[str]) -> None:
        new = [name for name in dict.fromkeys(names) if name not in self._streams]
        if len(self._streams) + len(new) > self._options.max_streams:
            raise RequestError(4, "Too many subscriptions")
        for name in new:
            stream = self._emulator.by_name.get(name)
            if stream is not None and stream.group not in self._groups:
                stream = None
            self._streams[name] = stream
            if stream is not None:
                stream.join(self._wire, self._combined)

    def _unsubscribe(self, names: Sequence[str]) -> None:
        for name in names:
            stream = self._streams.pop(name, None)
            if stream is not None:
                stream.leave(self._wire, self._combined)

    def _set_property(self, params: Any) -> None:
        _check_property(params)
        if len(params) != 2 or not isinstance(params[1], bool):
            raise RequestError(1, "Invalid value type: expected Boolean")
        names = list(self._streams)
        self._unsubscribe(names)
        self._combined = params[1]
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
    """``{"error":{"code":2,"msg":"Invalid request: …"},"id":4}``; without ``id`` if none could be read."""
    text: dict[str, Any] = {"error": {"code": error.code, "msg": str(error)}}
    if request is not None:
        text["id"] = request.get("id")
    return _compact(text)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


# ---- the venue --------------------------------------------------------------------------------------------


class BinanceUsdmEmulator(VenueEmulator):
    """Binance USD-M futures over the simulated market."""

    venue: ClassVar[str] = "binance_usdm"
    options: ClassVar[type[Struct]] = BinanceUsdmOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "rade",  # @trade, @aggTrade
        DataType.BBO: "@bookTicker",
        DataType.BOOK: "@depth",
        DataType.FUNDING: "@markPrice",
        DataType.MARK: "@markPrice",
        DataType.LIQUIDATION: "@forceOrder",
    }
    refuses_unknown: ClassVar[bool] = False

    def __init__(self, market: Market, host: Host, options: BinanceUsdmOptions) -> None:
        self.settings = options
        self._host = host
        named = [(venue_name(book.spec.symbol, options.coin_margined), book) for book in market.books]
        self._by_symbol = {name: Product(name, market, book, host, options) for name, book in named if name is not None}
        self._products = {product.book.index: product for product in self._by_symbol.values()}
        self.by_name = {name: stream for one in self._products.values() for name, stream in one.streams.items()}
        self._rest = BinanceUsdmRest(self._by_symbol, host, options)
        self._attempts = RollingLimit(options.connections_per_5min, 300 * 10**9)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if not self._attempts.allows(self._host.now_ns()):
            return Refusal(429)
        route, rest = "", path
        for group in (PUBLIC, MARKET):
            if path.startswith(f"/{group}/") and not self.settings.coin_margined:
                route, rest = group, path.removeprefix(f"/{group}")
        if rest == "/stream":
            names, combined = _split(query.get("streams", "")), True
        elif rest == "/ws" or rest.startswith("/ws/"):
            names, combined = _split(rest.removeprefix("/ws")), False
        else:
            return Refusal(404)
        if len(names) > self.settings.max_streams:
            return Refusal(400, b"Too many subscriptions")
        return BinanceUsdmSession(self, wire, self._groups(route), names, combined)

    def _groups(self, route: str) -> Sequence[str]:
        """What is delivered on a path."""
        if route:
            return (route,)
        return (PUBLIC, MARKET) if self.settings.demo_host or self.settings.coin_margined else (PUBLIC,)

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def on_events(self, events: Sequence[Event]) -> None:
        products = self._products
        for event in events:
            product = products.get(event.instrument)
            if product is None:
                continue
            if type(event) is Trade:
                product.on_trade(event)
            elif type(event) is Top:
                product.on_top(event)
            elif type(event) is Change:
                product.on_change()

    def is_drained(self) -> bool:
        return all(product.is_drained for product in self._products.values())

    def announce_shutdown(self) -> None:
        """The venue announces nothing: it closes."""

    def instruments(self) -> Mapping[str, str]:
        return {product.book.spec.canonical_symbol: name for name, product in self._by_symbol.items()}

    def book_of(self, instrument: str) -> Book:
        return self._by_symbol[instrument].book

    def level_text(self, book: Book, level: Level) -> list[str]:
        product = self._products[book.index]
        return [product.price(level[0]), product.size(level[1])]


def _split(names: str) -> list[str]:
    return [name for name in names.split("/") if name]
