"""Streams that clients name, in the URL or by requests with a method: what the servers of spot and futures markets of
one operator, Binance, have in common.

A stream is asked for by its name, and so much of it is exact that one which does not exist is acknowledged, too. Each
message comes bare or, on a combined connection, wrapped in the name of its stream::

    ws://HOST/ws/btcusdt@trade
    ws://HOST/stream?streams=btcusdt@trade/btcusdt@depth
    {"method":"SUBSCRIBE","params":["btcusdt@trade"],"id":1}

A venue's face finds the streams, and says how they are limited::

    session = NamedStreamSession(wire, options, streams.get, names, Form(combined=True, unit_ns=MS), self.sessions)
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from msgspec import Struct

from mdring.emulator.book import Book
from mdring.emulator.limits import RollingLimit
from mdring.emulator.rhythm import Pings
from mdring.emulator.stream import FormedStream
from mdring.emulator.text import compact
from mdring.emulator.venue import Host, Session, Wire
from mdring.emulator.window import ChangeWindow, Delta

SECOND: Final = 1_000_000_000
METHODS: Final = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")


class StreamLimits(Struct, frozen=True, kw_only=True):
    """What a connection may do, and for how long."""

    ping_interval_s: float
    pong_timeout_s: float
    messages_per_second: int  # of the client: text, ping and pong frames
    life_s: float = 24 * 3600.0
    max_streams: int = 1024  # per connection
    max_message_bytes: int = 4096  # longer ones are cut


class Form(NamedTuple):
    """How a connection wants its payloads."""

    combined: bool
    unit_ns: int  # of times


class NamedStream(FormedStream[Form]):
    """One stream and who listens to it."""

    def publish(self, encode: Callable[[int], str]) -> None:
        """``encode`` gets the unit of times in ns."""

        def make(form: Form) -> str:
            message = encode(form.unit_ns)
            return f'{{"stream":"{self.title}","data":{message}}}' if form.combined else message

        self.broadcast(make)


def asked_in_url(path: str, query: Mapping[str, str]) -> tuple[list[str], bool] | None:
    """The streams that a URL names, and whether their messages are wrapped; None for a path that is no stream's."""
    if path == "/stream":
        return _split(query.get("streams", "")), True
    if path == "/ws" or path.startswith("/ws/"):
        return _split(path.removeprefix("/ws")), False
    return None


def _split(names: str) -> list[str]:
    return [name for name in names.split("/") if name]


class RequestError(Exception):
    """The client's request is answered by an error object; the connection stays open."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class NamedStreamSession(Session):
    """The protocol on one connection."""

    def __init__(
        self,
        wire: Wire,
        limits: StreamLimits,
        find: Callable[[str], NamedStream | None],
        names: Sequence[str],
        form: Form,
        sessions: set[Any],
    ) -> None:
        """``find`` knows a stream by its name, or None; ``names`` were asked for in the URL."""
        self._wire = wire
        self._limits = limits
        self._find = find
        self._asked_in_url = names
        self._form = form
        self._sessions = sessions
        self._streams: dict[str, NamedStream | None] = {}  # also what stays silent, with None
        self._inbound = RollingLimit(limits.messages_per_second, SECOND)
        self._pings = Pings(wire, limits.ping_interval_s, limits.pong_timeout_s)

    def on_open(self) -> None:
        self._sessions.add(self)
        self._subscribe(self._asked_in_url)
        self._pings.start()
        self._wire.after(self._limits.life_s, self._end_of_life)

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
            self._wire.reply(compact({"result": result, "id": request.get("id")}))

    def on_ping(self, payload: bytes) -> None:
        self._is_allowed()

    def on_pong(self, payload: bytes) -> None:
        if self._is_allowed():
            self._pings.on_pong(payload)

    def on_close(self) -> None:
        self._sessions.discard(self)
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

    def _end_of_life(self) -> None:
        self._wire.close(1001, "Connection has reached its maximum life")

    def _parse(self, payload: bytes) -> dict[str, Any]:
        limit = self._limits.max_message_bytes
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
        if len(self._streams) + len(new) > self._limits.max_streams:
            raise RequestError(4, "Too many subscriptions")
        for name in new:
            stream = self._streams[name] = self._find(name)
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
        self._form = self._form._replace(combined=params[1])
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
    return compact(text)


# ---- books ------------------------------------------------------------------------------------------------

PARTIAL_LEVELS: Final = (5, 10, 20)
AnyNamedStream = TypeVar("AnyNamedStream", bound=NamedStream)


class DepthStreams(ABC, Generic[AnyNamedStream]):
    """The diff and the partial books of one instrument and one speed: ``btcusdt@depth@100ms``, ``…@depth5@100ms``."""

    def __init__(self, name: str, suffix: str, period_s: float, book: Book, host: Host) -> None:
        """``name``: the instrument's, in lower case; ``suffix``: what the speed is called."""
        self.diff = self.make(f"{name}@depth{suffix}")
        self.partial = {count: self.make(f"{name}@depth{count}{suffix}") for count in PARTIAL_LEVELS}
        self.window = ChangeWindow(book, host, period_s, self.on_delta)

    @abstractmethod
    def make(self, title: str) -> AnyNamedStream:
        """One of the streams, which calls ``on_audience``."""

    def streams(self) -> list[AnyNamedStream]:
        """All of them."""
        return [self.diff, *self.partial.values()]

    @abstractmethod
    def on_delta(self, delta: Delta) -> None:
        """The changes of a window: to be published to whoever listens."""

    def on_audience(self) -> None:
        """Listeners have come or gone."""
        self.window.open = any(stream.audiences for stream in self.streams())
