"""When venues speak and when they lose patience: at every beat, at once but not too often, after a silence.

Each is made with the host (or the wire) whose timers it uses::

    beat = Beat(host, 1.0, lambda: stream.sessions, stream.send);  beat.start()
    pace = Pace(host, 0.01, stream.send);                          pace.due()
    silence = Silence(wire, 30.0, lambda: wire.close(4004));       silence.start(); silence.note()
    pings = Pings(wire, 20.0, 60.0);                               pings.start(); pings.on_pong(payload)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mdring.emulator.venue import Host, Wire

SECOND: Final = 1_000_000_000
MS: Final = 1_000_000


def _always() -> bool:
    return True


class Beat:
    """Acts every so often for as long as it is wanted; ``start`` it when it may have become so."""

    def __init__(
        self, host: Host, period_s: float, act: Callable[[], None], is_wanted: Callable[[], object] = _always
    ) -> None:
        self._host = host
        self._period_s = period_s
        self._act = act
        self._is_wanted = is_wanted
        self._is_running = False

    def start(self) -> None:
        """The first beat is a period from now, unless it beats already."""
        if not self._is_running:
            self._is_running = True
            self._host.after(self._period_s, self._beat)

    def _beat(self) -> None:
        self._is_running = bool(self._is_wanted())
        if self._is_running:
            self._act()
            self._host.after(self._period_s, self._beat)


class Pace:
    """Acts at once when something is due, but not again before the interval is over. What acts calls ``mark``."""

    def __init__(self, host: Host, interval_s: float, act: Callable[[], None]) -> None:
        self.is_waiting = False
        self._host = host
        self._interval_ns = round(interval_s * SECOND)
        self._act = act
        self._marked_ns = 0

    def due(self) -> None:
        """Something is to be told."""
        if self.is_waiting:
            return
        rest_ns = self._marked_ns + self._interval_ns - self._host.now_ns()
        if rest_ns <= 0:
            self._act()
        else:
            self.is_waiting = True
            self._host.after(rest_ns / SECOND, self._end)

    def mark(self) -> None:
        """It is told: the interval begins."""
        self._marked_ns = self._host.now_ns()

    def _end(self) -> None:
        self.is_waiting = False
        self._act()


class Silence:
    """Acts whenever nothing was noted for so long, for as long as it is wanted."""

    def __init__(
        self, host: Host, patience_s: float, act: Callable[[], None], is_wanted: Callable[[], object] = _always
    ) -> None:
        self._host = host
        self._patience_ns = round(patience_s * SECOND)
        self._act = act
        self._is_wanted = is_wanted
        self._is_running = False
        self._noted_ns = 0

    def start(self) -> None:
        """From now on, unless it runs already."""
        if not self._is_running:
            self._is_running = True
            self.note()
            self._host.after(self._patience_ns / SECOND, self._look)

    def note(self) -> None:
        """Something was said."""
        self._noted_ns = self._host.now_ns()

    def _look(self) -> None:
        self._is_running = bool(self._is_wanted())
        if not self._is_running:
            return
        rest_ns = self._noted_ns + self._patience_ns - self._host.now_ns()
        if rest_ns <= 0:
            self.note()
            self._act()
            rest_ns = self._patience_ns
        self._host.after(rest_ns / SECOND, self._look)


class Pings:
    """Pings a client every so often, and ends the connection if one is not answered in time."""

    def __init__(self, wire: Wire, interval_s: float, timeout_s: float) -> None:
        self._wire = wire
        self._timeout_s = timeout_s
        self._unanswered: list[bytes] = []  # payloads, oldest first
        self._beat = Beat(wire, interval_s, self._ping)

    def start(self) -> None:
        """The first ping is an interval from now."""
        self._beat.start()

    def on_pong(self, payload: bytes) -> None:
        """It answers all pings before it, too."""
        if payload in self._unanswered:
            del self._unanswered[: self._unanswered.index(payload) + 1]

    def _ping(self) -> None:
        payload = str(self._wire.now_ns() // MS).encode()
        self._unanswered.append(payload)
        self._wire.ping(payload)
        self._wire.after(self._timeout_s, lambda: self._look(payload))

    def _look(self, payload: bytes) -> None:
        if payload in self._unanswered:
            self._wire.close(1008, "Pong timeout")
