"""One emulated venue on its two ports: who connects, who is refused, which REST call goes wrong.

Made by ``server.py``, one per venue. It is the :class:`~mdring.emulator.venue.Host` of the venue's emulator
and the owner of its connections::

    await host.start("127.0.0.1", 0, context=None)
    host.inject(Fault(fault=FaultKind.CLOSE, code=1001))
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from aiohttp import web
from msgspec import Struct
from picows import WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener, ws_create_server

from mdring.emulator.connection import Connection
from mdring.emulator.faults import Fault, FaultInjector, FaultKind
from mdring.emulator.market import Market
from mdring.emulator.truth import TruthLog
from mdring.emulator.venue import Refusal, RestRequest, RestResponse, Timer, VenueEmulator

DISCONNECT_GRACE_S: Final = 1.0  # for the last bytes to a client when the server stops


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
        self._reservation: socket.socket | None = None
        self._ssl: ssl.SSLContext | None = None
        self._listener: asyncio.Server | None = None
        self._listening: asyncio.Task[None] | None = None
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
        self._reservation = _reserve(host, port)
        await self._start_listening()
        self._rest = web.AppRunner(_rest_application(self), access_log=None, handle_signals=False)
        await self._rest.setup()
        site = web.TCPSite(self._rest, host, port + 1 if port else 0, ssl_context=context)
        await site.start()
        secure = "s" if context else ""
        self.websocket_url = f"ws{secure}://{_bracketed(host)}:{self._reservation.getsockname()[1]}"
        self.rest_url = f"http{secure}://{_bracketed(host)}:{self._rest.addresses[0][1]}"

    async def stop(self) -> None:
        """Say good-bye to the clients and free both ports."""
        self._stop_listening()
        connections = list(self.connections.values())
        for connection in connections:
            connection.close(1001, "emulator ends")
        if self._rest is not None:
            await self._rest.cleanup()
        for connection in connections:
            await connection.end(DISCONNECT_GRACE_S)
        if self._reservation is not None:
            self._reservation.close()

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

    async def clear_faults(self) -> None:
        """Disarm everything, end stalls, listen again."""
        self.injector.clear()
        for connection in self.connections.values():
            connection.end_stall()
        await self._start_listening()

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
        if fault.duration_ms:
            loop = asyncio.get_running_loop()
            self._refusal = loop.call_later(fault.duration_ms / 1000, self._start_listening)

    def _start_listening(self) -> asyncio.Task[None]:
        """Listen if nobody does; the task is done when clients can connect."""
        if self._listening is None:
            self._listening = asyncio.get_running_loop().create_task(self._listen())
        return self._listening

    async def _listen(self) -> None:
        assert self._reservation is not None
        host, port = self._reservation.getsockname()[:2]
        self._listener = await ws_create_server(
            self._on_upgrade,
            host,
            port,
            ssl=self._ssl,
            reuse_port=True,
            enable_auto_pong=False,  # the venue counts the client's pings
            logger_name="emulator",
        )

    def _stop_listening(self) -> None:
        """Existing connections stay, new ones get ECONNREFUSED; the reservation keeps the port ours."""
        if self._refusal is not None:
            self._refusal.cancel()
            self._refusal = None
        if self._listening is not None:
            self._listening.cancel()
            self._listening = None
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
        session = self.emulator.accept(unquote(url.path), dict(parse_qsl(url.query)), connection)
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


def _reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the port and does not listen: while nobody else does, connecting is refused."""
    reservation = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind((host, port))
    except OSError:
        reservation.close()
        raise
    return reservation


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _refused(refusal: Refusal) -> WSUpgradeResponseWithListener:
    response = WSUpgradeResponse.create_error_response(refusal.status, refusal.body, extra_headers=refusal.headers)
    return WSUpgradeResponseWithListener(response, None)


def _retry_after(fault: Fault) -> dict[str, str]:
    return {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s else {}
