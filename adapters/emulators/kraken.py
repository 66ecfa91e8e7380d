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
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.kraken_rest import KrakenRest
from mdring.adapters.emulators.kraken_streams import TRIGGERS, Key, Product, Subscription, venue_name
from mdring.emulator.limits import RollingLimit
from mdring.emulator.listing import ListedVenue, named
from mdring.emulator.market import Event, Market
from mdring.emulator.rhythm import Silence
from mdring.emulator.stream import StreamSession
from mdring.emulator.text import compact, rfc3339
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, Wire
from mdring.record import DataType

SECOND: Final = 1_000_000_000
DEPTHS: Final = (10, 25, 100, 500, 1000)


class KrakenOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own, or what is known to be safe."""

    book_interval_s: float = 0.0  # 0: every change at once
    heartbeat_s: float = 1.0
    idle_s: float = 60.0
    messages_per_second: int = 20  # of one connection
    connections_per_10min: int = 150
    rest_calls_per_10s: int = 10


# ---- connections ------------------------------------------------------------------------------------------


class RequestError(Exception):
    """The client's request, or one symbol of it, is answered by an error; the connection stays open."""


class KrakenSession(StreamSession[Subscription]):
    """The protocol on one connection."""

    def __init__(self, emulator: KrakenEmulator, wire: Wire) -> None:
        super().__init__(wire, emulator.sessions)
        self._emulator = emulator
        self._knows_pairs = False  # instrument is subscribed to
        options = emulator.settings
        self._requests = RollingLimit(options.messages_per_second, SECOND)
        self._heartbeat = Silence(wire, options.heartbeat_s, self._beat)
        self._idle = Silence(wire, options.idle_s, self._give_up)

    @property
    def _has_subscribed(self) -> bool:
        return bool(self.streams) or self._knows_pairs

    def on_open(self) -> None:
        super().on_open()
        self.tell_status("online")
        self._heartbeat.start()
        self._idle.start()

    def on_text(self, payload: bytes) -> None:
        self._idle.note()
        identity: dict[str, Any] = {}
        try:
            request = _parse(payload)
            method = request["method"]
            identity = {"method": method, **({"req_id": request["req_id"]} if "req_id" in request else {})}
            if not self._requests.allows(self.wire.now_ns()):
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
        self._idle.note()

    def deliver(self, stream: str, frame: bytes) -> None:
        self._heartbeat.note()
        super().deliver(stream, frame)

    def tell_status(self, system: str) -> None:
        """``{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":13834774380200032777}]}``"""
        connection = 13_834_774_380_200_032_768 + self.wire.number
        row = {"version": "2.0.10", "system": system, "api_version": "v2", "connection_id": connection}
        self._reply({"channel": "status", "type": "update", "data": [row]})

    def _beat(self) -> None:
        """``{"channel":"heartbeat"}``, in a second in which nothing else was sent."""
        if self._has_subscribed:
            self._reply({"channel": "heartbeat"})

    def _give_up(self) -> None:
        if not self._has_subscribed:
            self.wire.close(1001, "idle")

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
        if str(stream.key) in self.streams:
            raise RequestError(f"Already subscribed to {channel} {symbol}")
        self._answer({**identity, "result": {**result, **_details(stream.key), "symbol": symbol}})
        self.streams[str(stream.key)] = stream
        stream.join(self)
        if snapshot:
            stream.tell_first(self)

    def _unsubscribe(self, params: Mapping[str, Any], symbol: str, identity: Mapping[str, Any]) -> None:
        if params.get("channel") == "instrument" and self._knows_pairs:
            self._knows_pairs = False
            self._answer({**identity, "result": {"channel": "instrument"}})
            return
        key = self._emulator.stream(params, symbol).key
        stream = self.streams.pop(str(key), None)
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
        now_ns = self.wire.now_ns()
        return {"time_in": rfc3339(now_ns), "time_out": rfc3339(now_ns)}

    def _reply(self, message: Mapping[str, Any]) -> None:
        self._heartbeat.note()
        self.reply(compact(message))


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


class KrakenEmulator(ListedVenue[Product]):
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
        listed = named(market.books, venue_name)
        super().__init__(Product(name, book, host, options.book_interval_s) for name, book in listed)
        self.settings = options
        self._host = host
        self._rest = KrakenRest(self.by_name, host, options.rest_calls_per_10s)
        # All clients are on one machine, so they count together.
        self._connections = RollingLimit(options.connections_per_10min, 600 * SECOND)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if path != "/v2":
            return Refusal(404)
        if not self._connections.allows(self._host.now_ns()):
            return Refusal(429)
        return KrakenSession(self, wire)

    def stream(self, params: Mapping[str, Any], symbol: str) -> Subscription:
        """What a request means. Raises RequestError."""
        product = self.by_name.get(symbol)
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
        symbols = [product.symbol for product in self.by_name.values()]
        assets = dict.fromkeys(asset for symbol in symbols for asset in (symbol.base, symbol.quote))
        rows = [
            {"id": asset, "status": "enabled", "precision": 10, "precision_display": 5, "borrowable": False}
            for asset in assets
        ]
        return {"assets": rows, "pairs": [product.pair_row() for product in self.by_name.values()]}

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def on_events(self, events: Sequence[Event]) -> None:
        super().on_events(events)
        for product in self.by_name.values():  # of a taker order that left the best levels as they were
            product.tell_trades()

    def announce_shutdown(self) -> None:
        """The engine goes into maintenance; who connects after it finds it online."""
        for session in self.sessions:
            session.tell_status("maintenance")
