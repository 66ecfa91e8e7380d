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
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web
from msgspec import Struct

from mdring.emulator.control import control_application
from mdring.emulator.host import VenueHost
from mdring.emulator.instruments import universe
from mdring.emulator.market import Market
from mdring.emulator.pacer import Pacer
from mdring.emulator.truth import TruthLog
from mdring.emulator.venue import VenueEmulator, load_emulator

TRUTH_FLUSH_S: Final = 0.1
STEPS_PER_HISTORY: Final = 10  # parts of the history that are made without telling the venues
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
        try:
            await self._open()
        except (OSError, ValueError):
            await self.stop()
            raise

    async def _open(self) -> None:
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
        """Let the market make ``count`` steps now.

        Not many at once: a venue must have seen the changes before the books forget them.
        """
        now_ns = time.time_ns()
        while count > 0:
            some = min(count, max(self.config.history_limit // STEPS_PER_HISTORY, 1))
            events = self.market.advance(some, now_ns)
            for host in self.venues.values():
                host.emulator.on_events(events)
            count -= some
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
