"""The emulator server: real sockets for the emulated venues, and the clock of their market.

One event loop in one process (``python -m mdring.emulator``, or any test that awaits it) holds the market,
one WebSocket and one REST port per venue, and the control endpoint::

    async with EmulatorServer(EmulatorConfig(venues=("binance",), seed=7, rate=200)) as server:
        server.endpoints  # {"binance": {"websocket_url": "ws://127.0.0.1:…", "rest_url": …}, "control_url": …}
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web
from msgspec import Struct
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server

from mdring.emulator.connection import Connection
from mdring.emulator.control import control_application
from mdring.emulator.faults import Fault, FaultInjector, FaultKind
from mdring.emulator.instruments import universe
from mdring.emulator.market import Market
from mdring.emulator.pacer import Pacer
from mdring.emulator.truth import TruthLog
from mdring.emulator.venue import (
    Refusal,
    RestRequest,
    RestResponse,
    Timer,
    VenueEmulator,
    load_emulator,
)

TRUTH_FLUSH_S: Final = 0.1
_DRAIN_POLL_S: Final = 0.02


class EmulatorConfig(Struct, frozen=True, kw_only=True):
    """What an emulator process is to be. Ports 0: chosen by the kernel, told in the endpoints."""

    venues: tuple[str, ...] = ("binance",)
    seed: int = 1
    rate: int = 100  # market steps per second, all instruments together; 0: quiet
    instruments: tuple[str, ...] = ()  # canonical symbols; empty: the known ones
    depth: int = 200  # levels a side
    trade_share: float = 0.3  # share of steps that are taker orders
    history_limit: int = 10_000  # changes and trades that an instrument remembers
    host: str = "127.0.0.1"
    port: int = 0  # WebSocket port of the first venue; then REST, and so on upwards
    control_port: int = 0
    tls_cert: Path | None = None  # PEM files; both or none
    tls_key: Path | None = None
    truth: Path | None = None
    options: Mapping[str, Mapping[str, Any]] = {}  # by venue: its own options


class VenueHost:
    """One emulated venue on its two ports."""

    def __init__(
        self,
        emulator_type: type[VenueEmulator],
        market: Market,
        options: Struct,
        truth: TruthLog | None,
        numbers: Callable[[], int],
    ) -> None:
        self.venue_name = emulator_type.venue
        self.injector = FaultInjector(market.seed, emulator_type.venue)
        self.truth = truth
        self.connections: dict[int, Connection] = {}
        self.opened_total = 0
        self.emulator = emulator_type(market, self, options)
        self.websocket_url = ""
        self.rest_url = ""
        self._next_number = numbers
        self._address = ("", 0)
        self._ssl: ssl.SSLContext | None = None
        self._listener: asyncio.Server | None = None
        self._rest: web.AppRunner | None = None
        self._refusal: asyncio.TimerHandle | None = None

    # venue.Host, for the emulator.

    def now_ns(self) -> int:
        return time.time_ns()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    # connection.Owner, for the connections.

    def opened(self, connection: Connection) -> None:
        self.connections[connection.number] = connection
        self.opened_total += 1

    def closed(self, connection: Connection) -> None:
        self.connections.pop(connection.number, None)

    # For the server.

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Listen. Raises OSError if a port is taken."""
        self._ssl = context
        self._address = (host, port)
        self._address = (host, await self._listen())
        self._rest = web.AppRunner(_rest_application(self), access_log=None, handle_signals=False)
        await self._rest.setup()
        site = web.TCPSite(self._rest, host, port + 1 if port else 0, ssl_context=context)
        await site.start()
        secure = "s" if context else ""
        self.websocket_url = f"ws{secure}://{host}:{self._address[1]}"
        self.rest_url = f"http{secure}://{host}:{self._rest.addresses[0][1]}"

    async def stop(self) -> None:
        """Say good-bye to the clients and free both ports."""
        if self._refusal is not None:
            self._refusal.cancel()
        self._stop_listening()
        for connection in list(self.connections.values()):
            connection.close(1001, "emulator ends")
        if self._rest is not None:
            await self._rest.cleanup()
        for connection in list(self.connections.values()):
            connection.reset()

    def inject(self, fault: Fault) -> int:
        """Carry out or arm a fault; how many connections it has already befallen.

        Raises ValueError for a fault whose parameters make no sense.
        """
        if fault.fault is FaultKind.SHUTDOWN_NOTICE:
            self.emulator.announce_shutdown()
        elif fault.fault is FaultKind.REFUSE and fault.status == 0:
            self._refuse(fault)
        elif fault.acts_at_once:
            return self._strike(fault)
        else:
            self.injector.arm(fault)
        return 0

    def clear_faults(self) -> None:
        """Disarm everything, end stalls, listen again."""
        self.injector.clear()
        for connection in self.connections.values():
            connection.end_stall()
        self._end_refusal()

    def _strike(self, fault: Fault) -> int:
        targets = [
            connection for connection in self.connections.values() if fault.connection in (None, connection.number)
        ]
        for connection in targets:
            connection.strike(fault)
        self.injector.fired[fault.fault] += len(targets)
        return len(targets)

    def _refuse(self, fault: Fault) -> None:
        self._stop_listening()
        self.injector.fired[fault.fault] += 1
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None
        if fault.duration_ms:
            loop = asyncio.get_running_loop()
            self._refusal = loop.call_later(fault.duration_ms / 1000, self._end_refusal)

    def _end_refusal(self) -> None:
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None
        if self._listener is None:
            asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> int:
        host, port = self._address
        self._listener = await ws_create_server(
            self._on_upgrade,
            host,
            port,
            ssl=self._ssl,
            enable_auto_pong=False,  # the venue counts the client's pings
            logger_name="emulator",
        )
        return int(self._listener.sockets[0].getsockname()[1])

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _on_upgrade(self, request: WSUpgradeRequest) -> Any:
        refused = self.injector.due_on_upgrade()
        if refused is not None:
            return _refused(Refusal(refused.status, headers=_retry_after(refused)))
        target = request.path.decode("utf-8", "replace")
        url = urlsplit(target)
        connection = Connection(self._next_number(), target, self)
        session = self.emulator.accept(url.path, dict(parse_qsl(url.query)), connection)
        if isinstance(session, Refusal):
            return _refused(session)
        connection.session = session
        return connection

    async def on_rest(self, request: web.Request) -> web.StreamResponse:
        """Answer one REST call, as the armed faults have it."""
        lag = 0
        for fault in self.injector.due_on_rest(request.path_qs):
            match fault.fault:
                case FaultKind.REST_SLOW:
                    await asyncio.sleep(fault.delay_ms / 1000)
                case FaultKind.REST_RESET:
                    assert request.transport is not None
                    request.transport.abort()
                case FaultKind.REST_ERROR:
                    return web.Response(
                        status=fault.status or 500,
                        body=fault.body.encode(),
                        headers=_retry_after(fault),
                    )
                case FaultKind.STALE_SNAPSHOT:
                    lag = fault.lag
        answer = self._answer(request, lag)
        return web.Response(status=answer.status, body=answer.body, headers=dict(answer.headers))

    def _answer(self, request: web.Request, lag: int) -> RestResponse:
        return self.emulator.rest(
            RestRequest(
                path=request.path,
                query=dict(request.query),
                headers={name.lower(): value for name, value in request.headers.items()},
                client=request.remote or "",
                snapshot_lag=lag,
            )
        )


def _rest_application(host: VenueHost) -> web.Application:
    application = web.Application()
    application.router.add_get("/{path:.*}", host.on_rest)
    return application


def _refused(refusal: Refusal) -> WSUpgradeResponseWithListener:
    response = WSUpgradeResponse.create_error_response(refusal.status, refusal.body, extra_headers=refusal.headers)
    return WSUpgradeResponseWithListener(response, None)


def _retry_after(fault: Fault) -> dict[str, str]:
    return {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s else {}


class EmulatorServer:
    """All emulated venues of one process, their common market, and the control endpoint."""

    def __init__(self, config: EmulatorConfig) -> None:
        """Raises KeyError for an unknown venue, ValueError for an impossible universe or option."""
        self.config = config
        self.market = Market(
            universe(config.instruments),
            config.seed,
            config.depth,
            config.trade_share,
            config.history_limit,
        )
        self.truth = TruthLog(config.truth) if config.truth is not None else None
        self._connections = 0
        self.venues = {name: self._host(name) for name in config.venues}
        self.control_url = ""
        self._pacer: Pacer | None = None
        self._rate = config.rate
        self._paused = False
        self._control: web.AppRunner | None = None
        self._truth_flush: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def endpoints(self) -> dict[str, Any]:
        """Where everything listens; what the process announces."""
        urls: dict[str, Any] = {
            name: {"websocket_url": host.websocket_url, "rest_url": host.rest_url} for name, host in self.venues.items()
        }
        return {**urls, "control_url": self.control_url}

    async def start(self) -> None:
        """Open all ports, then let the market run. Raises OSError if a port is taken."""
        config = self.config
        context = _server_context(config)
        port = config.port
        for host in self.venues.values():
            await host.start(config.host, port, context)
            port += 2 if port else 0
        self._control = web.AppRunner(control_application(self), access_log=None, handle_signals=False)
        await self._control.setup()
        await web.TCPSite(self._control, config.host, config.control_port).start()
        self.control_url = f"http://{config.host}:{self._control.addresses[0][1]}"
        self._pacer = Pacer(asyncio.get_running_loop(), self.advance)
        self._pacer.set_rate(self._rate)

    async def stop(self) -> None:
        """Close everything; idempotent."""
        if self._pacer is not None:
            self._pacer.close()
        if self._truth_flush is not None:
            self._truth_flush.cancel()
        for host in self.venues.values():
            await host.stop()
        if self._control is not None:
            await self._control.cleanup()
        if self.truth is not None:
            self.truth.close()

    def advance(self, count: int) -> None:
        """Let the market make ``count`` steps now."""
        now_ns = time.time_ns()
        events = self.market.advance(count, now_ns)
        for host in self.venues.values():
            host.emulator.on_events(events, now_ns)
        if self.truth is not None and self._truth_flush is None:
            loop = asyncio.get_running_loop()
            self._truth_flush = loop.call_later(TRUTH_FLUSH_S, self._flush_truth)

    def set_rate(self, rate: int) -> None:
        """Steps per second from now on; a paused market stays paused. Raises ValueError if negative."""
        assert self._pacer is not None, "the server has not been started"
        if rate < 0:
            raise ValueError(f"rate is {rate}, it cannot be negative")
        self._rate = rate
        self._pacer.set_rate(0 if self._paused else rate)

    async def pause(self) -> None:
        """Stop the market; returns when all that has happened in it is on the wire and in the truth log."""
        self._paused = True
        self.set_rate(self._rate)
        while not all(host.emulator.is_drained() for host in self.venues.values()):
            await asyncio.sleep(_DRAIN_POLL_S)
        self._flush_truth()

    def resume(self) -> None:
        """Let the market run again."""
        self._paused = False
        self.set_rate(self._rate)

    def statistics(self) -> dict[str, Any]:
        """Numbers for tests and for whoever judges a benchmark's offered load."""
        assert self._pacer is not None, "the server has not been started"
        return {
            "rate": self._rate,
            "paused": self._paused,
            "steps": self.market.steps,
            "steps_shed": self._pacer.shed,
            "venues": {
                name: {
                    "opened": host.opened_total,
                    "connections": {str(c.number): c.sent for c in host.connections.values()},
                    "faults": {str(kind): count for kind, count in host.injector.fired.items()},
                }
                for name, host in self.venues.items()
            },
        }

    def _host(self, name: str) -> VenueHost:
        emulator_type = load_emulator(name)
        options = _options(emulator_type, self.config.options.get(name, {}))
        return VenueHost(emulator_type, self.market, options, self.truth, self._number)

    def _number(self) -> int:
        self._connections += 1
        return self._connections

    def _flush_truth(self) -> None:
        self._truth_flush = None
        if self.truth is not None:
            self.truth.flush()


def _options(emulator_type: type[VenueEmulator], values: Mapping[str, Any]) -> Struct:
    known = emulator_type.options.__struct_fields__
    for key in values:
        if key not in known:
            raise ValueError(f"{emulator_type.venue} has no option {key!r}; it has: {', '.join(known)}")
    return emulator_type.options(**values)


def _server_context(config: EmulatorConfig) -> ssl.SSLContext | None:
    if config.tls_cert is None or config.tls_key is None:
        if config.tls_cert is not config.tls_key:
            raise ValueError("TLS needs both a certificate and a key")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(config.tls_cert, config.tls_key)
    return context
