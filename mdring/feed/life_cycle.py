"""The life cycle of one connection of the worker: connect, read, reconnect, for as long as the worker runs.

::

    RECONNECTING --open--> CONNECTED --ended--> DISCONNECTED --delay--> RECONNECTING ...
         \\--------- failed ---------------------/     \\--breaker open--> CIRCUIT_OPEN --open_ms--/

Each arrow is a STATUS record and shows in the counters. The delay is the backoff's, which like the breaker counts
failures until a session was healthy. After ``max_reconnect_attempts`` of them the connection stays DISCONNECTED,
with the reason ATTEMPTS_EXHAUSTED; the worker goes on idle, for if it ended its supervisor would start it again,
and with it the counting.

Before the venue's maximum life of a connection (or when it announces a shutdown) a replacement is opened while the
old session still delivers; the moment it is open it takes over: DISCONNECTED with PLANNED_RECONNECT, then CONNECTED.
Meanwhile the old one's silence is not judged: that would be for a few seconds at most, the time-outs of opening.
"""

from __future__ import annotations

import asyncio
import logging
import time

from mdring.counters import Counter, Counters
from mdring.feed.adapter import Connection
from mdring.feed.backoff import Backoff
from mdring.feed.breaker import BreakerState, CircuitBreaker
from mdring.feed.driver import Driver
from mdring.feed.session import Session, SessionSettings
from mdring.feed.states import Announcement
from mdring.feed.transport import TransportError
from mdring.feed.watchdog import Verdict
from mdring.record import Reason, State

logger = logging.getLogger(__name__)


class ConnectPace:
    """Spaces the attempts to connect of all connections of a worker, as venues want it."""

    def __init__(self, interval_ns: int = 0) -> None:
        """``interval_ns`` 0: no bound."""
        self._interval_ns = interval_ns
        self._next_ns = 0

    async def turn(self) -> None:
        """Wait until one more attempt may be made."""
        now_ns = time.monotonic_ns()
        wait_ns = max(self._next_ns - now_ns, 0)
        self._next_ns = now_ns + wait_ns + self._interval_ns
        if wait_ns:
            await asyncio.sleep(wait_ns / 1e9)


class LifeCycle:
    """One connection, session after session."""

    def __init__(
        self,
        connection: Connection,
        driver: Driver,
        settings: SessionSettings,
        counters: Counters,
        breaker: CircuitBreaker,
        backoff: Backoff,
        replacement_backoff: Backoff,
        pace: ConnectPace | None = None,
    ) -> None:
        """``replacement_backoff`` paces the opening of replacements; what it counts is no failure. ``pace`` is common
        to all connections of the worker."""
        self.breaker = breaker
        self._connection = connection
        self._number = connection.connection
        self._driver = driver
        self._settings = settings
        self._counters = counters
        self._backoff = backoff
        self._replacement_backoff = replacement_backoff
        self._pace = pace or ConnectPace()
        self._session: Session | None = None
        self._replacement: Session | None = None  # while it is being opened

    @property
    def last_data_ns(self) -> int:
        """When market data came last, CLOCK_MONOTONIC; 0 if none has yet on the current session."""
        return 0 if self._session is None else self._session.last_data_ns

    @property
    def is_healthy(self) -> bool:
        """Whether data has flowed on the current session for the healthy period."""
        return self._session is not None and self._session.is_healthy

    async def run(self) -> None:
        """Keep the connection up until cancelled, or until the attempts are exhausted."""
        reason = Reason.STARTED
        while True:
            reason = await self._attempt(reason)
            if self._backoff.exhausted:
                break
            await self._wait()
        detail = f"after {self._backoff.attempts} attempts"
        logger.error("connection %d is given up %s", self._number, detail)
        self._announce(State.DISCONNECTED, Reason.ATTEMPTS_EXHAUSTED, detail)

    def shut_down(self) -> None:
        """Tell the stream that the worker stops. ``run`` is to be cancelled, then ``wait_closed`` awaited."""
        if self._replacement is not None:
            self._replacement.abandon()
        if self._session is not None and self._session.is_open:
            self._session.end(Reason.SHUTDOWN)
            return
        if self._session is not None:
            self._session.abandon()
        self._announce(State.DISCONNECTED, Reason.SHUTDOWN)

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        if self._session is not None:
            await self._session.wait_closed()

    async def _attempt(self, reason: Reason) -> Reason:
        """Open a session and stay with it, and with what replaces it, to the end; returns why that came."""
        await self._pace.turn()
        self.breaker.on_attempt(time.monotonic_ns())
        if reason is not Reason.STARTED:
            self._counters.add(Counter.RECONNECTS)
        self._announce(State.RECONNECTING, reason)
        self._session = self._new_session()
        try:
            await self._session.open()
            ended = await self._stay()
        except TransportError as error:
            ended = Verdict(error.reason, str(error))
            self._announce(State.DISCONNECTED, ended.reason, ended.detail)
        self._note_end(ended)
        return ended.reason

    async def _stay(self) -> Verdict:
        assert self._session is not None
        delayed = False
        while True:
            ended = await self._session.watch()
            if ended is not None:
                return ended
            if not (self._session.is_healthy or delayed):
                # A venue that announces the end of every connection must not be answered at its own pace.
                self._session.replace_at(time.monotonic_ns() + self._replacement_backoff.next_delay_ns())
                delayed = True
                continue
            delayed = False
            await self._replace(self._session)

    async def _replace(self, old: Session) -> None:
        await self._pace.turn()
        if old.ended is not None:
            return
        self._counters.add(Counter.RECONNECTS)
        self._replacement = self._new_session(replaces=old)
        try:
            await self._replacement.open()
        except TransportError as error:
            logger.warning("no replacement for connection %d: %s", self._number, error)
            old.replace_at(time.monotonic_ns() + self._replacement_backoff.next_delay_ns())
        else:
            logger.info("connection %d replaced as planned", self._number)
            self._session = self._replacement
        self._replacement = None

    async def _wait(self) -> None:
        """Wait until the next attempt may be made."""
        delay_ns = self._backoff.next_delay_ns()
        if self.breaker.state is BreakerState.OPEN:
            delay_ns = max(delay_ns, self.breaker.wait_ns(time.monotonic_ns()))
            detail = f"{self.breaker.failures} failures, open for {delay_ns // 1_000_000} ms"
            logger.error("connection %d: the circuit breaker is open after %s", self._number, detail)
            self._announce(State.CIRCUIT_OPEN, Reason.BREAKER_OPEN, detail)
        await asyncio.sleep(delay_ns / 1e9)
        while still_ns := self.breaker.wait_ns(time.monotonic_ns()):  # the event loop's clock is coarser than ours
            await asyncio.sleep(still_ns / 1e9)

    def _new_session(self, replaces: Session | None = None) -> Session:
        return Session(self._connection, self._driver, self._settings, self._on_healthy, replaces)

    def _on_healthy(self) -> None:
        self._backoff.reset()
        self._replacement_backoff.reset()
        self.breaker.on_success()

    def _note_end(self, ended: Verdict) -> None:
        text = f"connection {self._number}: {ended.reason.name}: {ended.detail}"
        logger.warning(text)
        self._counters.set_error(text)
        assert self._session is not None
        if not self._session.is_healthy:
            self.breaker.on_failure(time.monotonic_ns())

    def _announce(self, state: State, reason: Reason, detail: str = "") -> None:
        self._driver.announce(self._number, Announcement(state, reason, self._backoff.attempts, detail))
