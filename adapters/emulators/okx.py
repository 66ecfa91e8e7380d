"""OKX v5, the venue's side: the public WebSocket and the REST calls that a feed handler needs.

Written from the venue's documentation (okx.com/docs-v5, its change log and notices to November 2026), not from any
client. Runs in the emulator process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/ws/v5/public      {"id":"1","op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}
    http://HOST/api/v5/public/instruments?instType=SPOT

Integrity: ``seqId`` counts every change of a book, each message names the one before it (``prevSeqId``). The checksum
is 0, as since June 2026, unless the option ``checksums`` brings the old one back.

Quirks kept: each argument is acknowledged, or refused, by itself; a second subscription is acknowledged and brings no
snapshot; ``ping`` and ``pong`` are bare text; who gets no data and sends no ping for 30 s is cut; a book without
change says so every 60 s; numbers are not padded; sizes of contracts count contracts.

Not emulated, hence refused: candles, trades-all, books5, books-rpi, and what needs a login.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.okx_rest import OkxRest
from mdring.adapters.emulators.okx_streams import (
    LIQUIDATIONS,
    Channel,
    Product,
    StreamIntervals,
    index_channel,
    kind_of,
    venue_name,
)
from mdring.emulator.derivatives import Contract
from mdring.emulator.limits import RollingLimit
from mdring.emulator.listing import ListedVenue, named
from mdring.emulator.market import Market
from mdring.emulator.rhythm import Silence
from mdring.emulator.stream import StreamSession
from mdring.emulator.text import compact
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, Wire
from mdring.record import DataType

SECOND: Final = 1_000_000_000


class OkxOptions(StreamIntervals, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    silence_s: float = 30.0  # without data or ping: cut
    requests_per_hour: int = 480  # per connection
    max_message_bytes: int = 65_536
    connections_per_second: int = 3


# ---- connections ------------------------------------------------------------------------------------------


class RequestError(Exception):
    """The client's request, or one argument of it, is answered by an error; the connection stays open."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OkxSession(StreamSession[Channel]):
    """The protocol on one connection."""

    def __init__(self, emulator: OkxEmulator, wire: Wire) -> None:
        super().__init__(wire, emulator.sessions)
        self._emulator = emulator
        self._options = emulator.settings
        self._requests = RollingLimit(self._options.requests_per_hour, 3600 * SECOND)
        self._silence = Silence(wire, self._options.silence_s, self._give_up)

    def on_open(self) -> None:
        super().on_open()
        self._silence.start()

    def on_text(self, payload: bytes) -> None:
        if len(payload) > self._options.max_message_bytes:
            self.wire.close(1009, "Message too big")
        elif payload == b"ping":
            self._silence.note()
            self.reply("pong")
        else:
            self._on_request(payload)

    def deliver(self, stream: str, frame: bytes) -> None:
        self._silence.note()
        super().deliver(stream, frame)

    def announce_shutdown(self) -> None:
        """``{"event":"notice","code":"64008","msg":"The connection will soon be closed …","connId":"a4d3ae55"}``"""
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        self._reply({"event": "notice", "code": "64008", "msg": text})

    def _give_up(self) -> None:
        self.wire.close(4004, "No data received in 30s.")

    def _on_request(self, payload: bytes) -> None:
        identity: dict[str, Any] = {}
        try:
            request = _parse(payload)
            if "id" in request:
                identity = {"id": request["id"]}
            if not self._requests.allows(self.wire.now_ns()):
                raise RequestError("60014", "Requests too frequent")
            operate = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe}.get(request["op"])
            if operate is None:
                raise RequestError("60019", f"Invalid op: {request['op']}")
        except RequestError as error:
            self._reply({**identity, "event": "error", "msg": str(error), "code": error.code})
            return
        for argument in request["args"]:
            try:
                operate(argument, identity)
            except RequestError as error:
                self._reply({**identity, "event": "error", "msg": str(error), "code": error.code})

    def _subscribe(self, argument: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        channel = self._emulator.channel(argument)
        self._reply({**identity, "event": "subscribe", "arg": argument})
        if channel.title not in self.streams:
            self.streams[channel.title] = channel
            channel.join(self)

    def _unsubscribe(self, argument: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        channel = self._emulator.channel(argument)
        if self.streams.pop(channel.title, None) is not None:
            channel.leave(self)
        self._reply({**identity, "event": "unsubscribe", "arg": argument})

    def _reply(self, message: Mapping[str, Any]) -> None:
        connection = {"connId": f"{self.wire.number:08x}"}
        self.reply(compact({**message, **connection}))


def _parse(payload: bytes) -> dict[str, Any]:
    """A request that has the form of one. Raises RequestError."""
    text = payload.decode(errors="replace")
    try:
        request = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RequestError("60012", f"Invalid request: {text}") from error
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise RequestError("60012", f"Invalid request: {text}")
    arguments = request.get("args")
    if not isinstance(arguments, list) or not all(isinstance(argument, dict) for argument in arguments):
        raise RequestError("60013", "Invalid args")
    return request


# ---- the venue --------------------------------------------------------------------------------------------


class OkxEmulator(ListedVenue[Product]):
    """OKX v5 over the simulated market."""

    venue: ClassVar[str] = "okx"
    options: ClassVar[type[Struct]] = OkxOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "trades:",
        DataType.BBO: "bbo-tbt:",
        DataType.BOOK: "books:",
        DataType.FUNDING: "funding-rate:",
        DataType.MARK: "mark-price:",
        DataType.OPEN_INTEREST: "open-interest:",
        DataType.LIQUIDATION: "liquidation-orders:",
    }
    refuses_unknown: ClassVar[bool] = True

    def __init__(self, market: Market, host: Host, options: OkxOptions) -> None:
        liquidations = {kind: Channel(LIQUIDATIONS, kind) for kind in ("SPOT", "SWAP", "FUTURES")}
        super().__init__(
            Product(name, market, book, host, options, liquidations[kind_of(book.spec.symbol)])
            for name, book in named(market.books, venue_name)
        )
        del liquidations["SPOT"]  # there are none
        self.settings = options
        self._host = host
        channels = [channel for product in self.by_name.values() for channel in product.channels()]
        contracts = [product for product in self.by_name.values() if not product.symbol.is_spot]
        indices = {f"{product.symbol.base}-{product.symbol.quote}": product for product in contracts}
        channels += [index_channel(name, Contract(market, product.book), host) for name, product in indices.items()]
        self._channels = {(one.channel, one.key, one.name): one for one in (*channels, *liquidations.values())}
        self._rest = OkxRest(self.by_name, host)
        self._accepted_ns: list[int] = []  # connections of the last second; refused ones do not count

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if path != "/ws/v5/public":
            return Refusal(404)
        now_ns = self._host.now_ns()
        self._accepted_ns = [accepted for accepted in self._accepted_ns if now_ns - accepted < SECOND]
        if len(self._accepted_ns) >= self.settings.connections_per_second:
            return Refusal(429)
        self._accepted_ns.append(now_ns)
        return OkxSession(self, wire)

    def channel(self, argument: Mapping[str, Any]) -> Channel:
        """The one that an argument means. Raises RequestError."""
        kind = argument.get("channel", "")
        key = "instType" if kind == LIQUIDATIONS else "instId"
        name = argument.get(key, "")
        found = self._channels.get((kind, key, name))
        if found is None:
            raise RequestError(
                "60018",
                f"Subscribe failed, wrong URL or channel:{kind},{key}:{name} doesn't exist. "
                "Please use the correct URL, channel and parameters referring to API document.",
            )
        return found

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def announce_shutdown(self) -> None:
        for session in self.sessions:
            session.announce_shutdown()
