"""The watchdog of one connection: which silence is too long, and what is due next.

Pure, runs in the worker; ``session.py`` tells it what happens and asks it when to look again, and when anything came
last stands in the intake (``intake.pyx``). Times are CLOCK_MONOTONIC, ns. What it watches, from the handshake on:

====================  =========================================================================================
every ``Send.ack``    answered within ``subscribe_ns`` of being sent, else SUBSCRIBE_TIMEOUT
the first data        within ``first_data_ns`` of the last subscription's answer, else NO_DATA
data                  never missing for ``stale_ns``, else STALE. Keep-alives, acks and pings are no data: a venue
                      that only says that it lives has stopped delivering
any frame             none for ``ping_interval_ns``: a ping is due; none for ``pong_ns`` after it: STALE
data for              ``healthy_ns``: the connection counts as healthy
the connection        older than ``life_ns``: to be replaced before the venue cuts it
====================  =========================================================================================
"""

from __future__ import annotations

from msgspec import Struct

from mdring.feed.intake import Intake
from mdring.record import Reason


class WatchdogSettings(Struct, frozen=True, kw_only=True):
    """Bounds in ns; see above."""

    subscribe_ns: int
    first_data_ns: int
    stale_ns: int
    ping_interval_ns: int
    pong_ns: int
    healthy_ns: int
    life_ns: int = 0  # 0: for ever


class Verdict(Struct, frozen=True):
    """Why the connection is to be given up."""

    reason: Reason
    detail: str


class Watchdog:
    """Watches one connection. When what came last stands in its intake, and changes with every read."""

    def __init__(self, settings: WatchdogSettings, intake: Intake, now_ns: int) -> None:
        """The handshake was done at ``now_ns``."""
        self._settings = settings
        self._intake = intake
        self._acks: dict[str, int] = {}  # name -> when it is late
        self._subscribed_ns = now_ns
        self._ping_sent_ns = 0
        self._replace_at_ns = now_ns + settings.life_ns if settings.life_ns else 0
        intake.last_heard_ns = now_ns

    def on_sent(self, now_ns: int, ack: str | None) -> None:
        """A frame was sent; an answer named ``ack`` is due, if that is given."""
        if ack is not None:
            self._subscribed_ns = now_ns
            self._acks[ack] = now_ns + self._settings.subscribe_ns

    def on_acknowledged(self, now_ns: int, ack: str) -> None:
        """That answer has come; what nobody waits for is ignored."""
        if self._acks.pop(ack, None) is not None:
            self._subscribed_ns = now_ns

    def on_ping_sent(self, now_ns: int) -> None:
        """A ping was sent, because ``ping_due`` asked for it."""
        self._ping_sent_ns = now_ns

    def ping_due(self, now_ns: int) -> bool:
        """Whether silence lasts so long that the venue must be asked for a sign of life."""
        return not self._awaits_pong() and now_ns >= self._intake.last_heard_ns + self._settings.ping_interval_ns

    def replace_due(self, now_ns: int) -> bool:
        """Whether a replacement of the connection is to be opened."""
        return 0 < self._replace_at_ns <= now_ns

    def replace_at(self, now_ns: int) -> None:
        """Open a replacement at this time."""
        self._replace_at_ns = now_ns

    def is_healthy(self) -> bool:
        """Whether data has flowed for the healthy period."""
        first_ns, last_ns = self._intake.first_data_ns, self._intake.last_data_ns
        return last_ns != 0 and last_ns - first_ns >= self._settings.healthy_ns

    def verdict(self, now_ns: int) -> Verdict | None:
        """Why the connection is to be given up, if it is."""
        for ack, late_ns in self._acks.items():
            if now_ns >= late_ns:
                return Verdict(Reason.SUBSCRIBE_TIMEOUT, f"no answer to {ack}")
        if self._awaits_pong() and now_ns >= self._ping_sent_ns + self._settings.pong_ns:
            return Verdict(Reason.STALE, f"no pong for {_ms(self._settings.pong_ns)}")
        if now_ns < self._data_late_ns():
            return None
        if self._intake.last_data_ns:
            return Verdict(Reason.STALE, f"no data for {_ms(self._settings.stale_ns)}")
        return Verdict(Reason.NO_DATA, f"no first data for {_ms(self._settings.first_data_ns)}")

    def next_look_ns(self, now_ns: int) -> int:
        """When something may be due next. Look again after every call, and after the first data; what else comes
        only puts things off."""
        due = [self._data_late_ns(), *self._acks.values()]
        due.append(max(self._intake.last_heard_ns, self._ping_sent_ns) + self._settings.ping_interval_ns)
        if self._awaits_pong():
            due.append(self._ping_sent_ns + self._settings.pong_ns)
        if self._replace_at_ns:
            due.append(self._replace_at_ns)
        if self._intake.last_data_ns and not self.is_healthy():
            # The data that completes the period may come any time after it.
            healthy_ns = self._settings.healthy_ns
            due.append(max(self._intake.first_data_ns + healthy_ns, now_ns + healthy_ns // 8))
        return min(due)

    def _awaits_pong(self) -> bool:
        """Any frame will do as an answer: it too shows that the venue lives."""
        return self._ping_sent_ns > self._intake.last_heard_ns

    def _data_late_ns(self) -> int:
        if self._intake.last_data_ns:
            return self._intake.last_data_ns + self._settings.stale_ns
        # Data may well precede the answer, but nobody must wait for it before the answer is there.
        begun = max([self._subscribed_ns, *self._acks.values()])
        return begun + self._settings.first_data_ns


def _ms(nanoseconds: int) -> str:
    return f"{nanoseconds // 1_000_000} ms"
