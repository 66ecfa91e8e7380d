"""A session: one WebSocket connection of the worker from its opening to its end.

Gives the driver what the intake leaves of what the transport brings, paces what the adapter sends, and watches over
silence. ``life_cycle.py`` opens one session after the other::

    session = Session(connection, driver, settings, on_healthy)
    await session.open()                   # raises TransportError
    while (ended := await session.watch()) is None:
        ...                                # a replacement is due; the session goes on meanwhile
    ended.reason, ended.detail             # the stream has been told already

A session ends at once, from inside whatever showed that it must: what the socket still holds is not looked at.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import msgspec
from msgspec import Struct

from mdring.feed.adapter import Connection, Send
from mdring.feed.driver import Driver
from mdring.feed.intake import Intake
from mdring.feed.states import Announcement
from mdring.feed.transport import Timeouts, WebSocket, open_websocket
from mdring.feed.watchdog import Verdict, Watchdog, WatchdogSettings
from mdring.record import Reason, State


class SessionSettings(Struct, frozen=True):
    """What the sessions of a venue have in common."""

    timeouts: Timeouts
    watchdog: WatchdogSettings
    send_interval_ns: int  # least distance of two frames that we send
    tls: ssl.SSLContext
    timer_interval_ns: int = 0  # of the adapter's timer; 0: it wants none


class Session:
    """The transport's receiver, and the driver's link."""

    def __init__(
        self,
        connection: Connection,
        driver: Driver,
        settings: SessionSettings,
        on_healthy: Callable[[], None],
        replaces: Session | None = None,
    ) -> None:
        """``on_healthy`` is called when data has flowed for the healthy period. The session that this one
        ``replaces`` is ended the moment this one is open."""
        self.ended: Verdict | None = None
        self.is_healthy = False
        self._connection = connection
        self._number = connection.connection
        self._driver = driver
        self._settings = settings
        self._on_healthy = on_healthy
        self._replaces = replaces
        self._changed = asyncio.Event()  # the watchdog must look again
        self.intake = Intake(self._number, driver.path, self._changed.set)
        """What the transport asks first."""
        self._watchdog = Watchdog(settings.watchdog, self.intake, 0)
        self._websocket: WebSocket | None = None
        self._error: BaseException | None = None
        self._unsent: deque[Send] = deque()
        self._may_send_ns = 0
        self._send_timer: asyncio.TimerHandle | None = None
        self._timer_due_ns = 0  # the adapter's; 0: it wants none

    @property
    def is_open(self) -> bool:
        """Whether messages are taken, and requests sent."""
        return self.intake.is_open

    @property
    def last_data_ns(self) -> int:
        """When market data came last, CLOCK_MONOTONIC; 0: not yet."""
        return self.intake.last_data_ns

    async def open(self) -> None:
        """Open the connection and subscribe. Raises TransportError."""
        await open_websocket(self._connection.url, self, self._settings.timeouts, self._settings.tls)

    async def watch(self) -> Verdict | None:
        """Wait until the session has ended, and say why; or None when a replacement is due.

        Raises what the driver raised: our bug.
        """
        while True:
            if self._error is not None:
                raise self._error
            if self.ended is not None:
                return self.ended
            now_ns = time.monotonic_ns()
            if self._watchdog.replace_due(now_ns):
                return None
            self._look(now_ns)
            self._changed.clear()
            if self.ended is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout((self._next_look_ns(now_ns) - now_ns) / 1e9):
                        await self._changed.wait()

    def end(self, reason: Reason, detail: str = "") -> None:
        """End now: tell the stream, then close the socket. Does nothing a second time."""
        if self.ended is not None or not self.is_open:
            return
        self.ended = Verdict(reason, detail)
        self.intake.is_open = False
        self._changed.set()
        if self._send_timer is not None:
            self._send_timer.cancel()
        self._driver.on_disconnect(self._number, Announcement(State.DISCONNECTED, reason, detail=detail))
        assert self._websocket is not None
        self._websocket.close()

    def abandon(self) -> None:
        """Of a session that is still being opened: never mind."""
        self.ended = Verdict(Reason.SHUTDOWN, "")

    def replace_at(self, when_ns: int) -> None:
        """Have ``watch`` say that a replacement is due, at this time and not before."""
        self._watchdog.replace_at(when_ns)
        self._changed.set()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        if self._websocket is not None:
            await self._websocket.wait_closed()

    # ---- what the transport brings -----------------------------------------------------------------------

    def on_open(self, websocket: WebSocket) -> None:
        """The handshake is done."""
        self._websocket = websocket
        if self.ended is not None:  # abandoned
            websocket.close()
            return
        if self._replaces is not None:
            self._replaces.end(Reason.PLANNED_RECONNECT)
            self._replaces = None
        self._watchdog = Watchdog(self._settings.watchdog, self.intake, time.monotonic_ns())
        self.intake.is_open = True
        if self._settings.timer_interval_ns:
            self._timer_due_ns = time.monotonic_ns() + self._settings.timer_interval_ns
        self._driver.on_connect(self._number, self)

    def on_message(self, payload: bytes, last_in_read: int) -> None:
        """A whole message that the intake has not taken."""
        intake = self.intake
        if not intake.is_open:
            return
        if self._driver.on_frame(self._number, payload, intake.hear()):
            intake.note_data()
        if last_in_read:
            intake.end_read()

    def on_control(self, last_in_read: int) -> None:
        """The venue lives, which is no data."""
        self.intake.hear()
        if last_in_read:
            self.intake.end_read()

    def on_closed(self, reason: Reason, detail: str) -> None:
        """The connection is gone."""
        self.end(reason, detail)

    def on_error(self, error: BaseException) -> None:
        """Our bug: ``watch`` raises it."""
        self._error = error
        self.intake.is_open = False
        self._changed.set()

    # ---- what the adapter wants --------------------------------------------------------------------------

    def send(self, request: Send) -> None:
        """Send a frame after its delay, as soon as the venue's limits allow it."""
        if request.delay_ns:
            undelayed = msgspec.structs.replace(request, delay_ns=0)
            asyncio.get_running_loop().call_later(request.delay_ns / 1e9, self._send_delayed, undelayed)
            return
        if request.urgent:
            self._unsent.appendleft(request)
        else:
            self._unsent.append(request)
        if self._send_timer is None:
            self._send_next()

    def acknowledge(self, ack: str) -> None:
        """The answer to a frame has come."""
        self._watchdog.on_acknowledged(time.monotonic_ns(), ack)
        self._changed.set()

    def reconnect(self, reason: Reason, detail: str) -> None:
        """End and be opened anew; if the venue has announced its end, a replacement is opened first."""
        if reason is Reason.PLANNED_RECONNECT:
            self.replace_at(time.monotonic_ns())
        else:
            self.end(reason, detail)

    def _send_delayed(self, request: Send) -> None:
        if self.is_open:
            self.send(request)

    def _send_next(self) -> None:
        now_ns = time.monotonic_ns()
        self._send_timer = None
        if now_ns >= self._may_send_ns:
            request = self._unsent.popleft()
            assert self._websocket is not None
            self._websocket.send(request.text)
            self._watchdog.on_sent(now_ns, request.ack)
            self._may_send_ns = now_ns + self._settings.send_interval_ns
            self._changed.set()
        if self._unsent:
            loop = asyncio.get_running_loop()
            self._send_timer = loop.call_later((self._may_send_ns - now_ns) / 1e9, self._send_next)

    def _look(self, now_ns: int) -> None:
        """Do what is due."""
        watchdog = self._watchdog
        if not self.is_healthy and watchdog.is_healthy():
            self.is_healthy = True
            self._on_healthy()
        verdict = watchdog.verdict(now_ns)
        if verdict is not None:
            self.end(verdict.reason, verdict.detail)
        elif watchdog.ping_due(now_ns):
            assert self._websocket is not None
            self._websocket.ping()
            watchdog.on_ping_sent(now_ns)
            if not self._unsent:  # a ping is one of the frames that count, yet many must not hold all others up
                self._may_send_ns = now_ns + self._settings.send_interval_ns
        if self.is_open and 0 < self._timer_due_ns <= now_ns:
            self._timer_due_ns = now_ns + self._settings.timer_interval_ns
            self._driver.on_timer(self._number)

    def _next_look_ns(self, now_ns: int) -> int:
        """When something may be due next: of the watchdog, or the adapter's timer."""
        look_ns = self._watchdog.next_look_ns(now_ns)
        return min(look_ns, self._timer_due_ns) if self._timer_due_ns else look_ns
