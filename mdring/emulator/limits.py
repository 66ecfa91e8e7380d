"""Limits that venues put on their clients, as the emulators enforce them.

Pure objects: the caller brings the time. ``adapters/emulators/*.py`` hold one per connection or address::

    limit = RollingLimit(count=5, period_ns=10**9)
    if not limit.allows(now_ns): wire.close(1008, "Too many requests")
"""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec import Struct

MINUTE_NS: Final = 60 * 10**9


class RollingLimit:
    """At most ``count`` uses within any ``period_ns``."""

    def __init__(self, count: int, period_ns: int) -> None:
        self._count = count
        self._period_ns = period_ns
        self._uses: deque[int] = deque()

    def allows(self, now_ns: int) -> bool:
        """Count one use at ``now_ns``; False if it is one too many."""
        uses = self._uses
        while uses and now_ns - uses[0] >= self._period_ns:
            uses.popleft()
        uses.append(now_ns)
        return len(uses) <= self._count


class Verdict(Struct, frozen=True):
    """What a budget says of one request: ``status`` 200, 429 or 418, and the seconds to stay away."""

    status: int
    used: int
    retry_after_s: int = 0


class WeightBudget:
    """Weights per calendar minute; who ignores the refusals of that minute is banned."""

    def __init__(self, per_minute: int, strikes: int, ban_s: int) -> None:
        """``strikes``: refused requests within a minute that lead to a ban of ``ban_s`` seconds."""
        self._per_minute = per_minute
        self._strikes_allowed = strikes
        self._ban_s = ban_s
        self._minute = 0
        self._used = 0
        self._strikes = 0
        self._banned_until_ns = 0

    def spend(self, weight: int, now_ns: int) -> Verdict:
        """Book a request of this weight."""
        if now_ns < self._banned_until_ns:
            return Verdict(418, self._used, _seconds_up(self._banned_until_ns - now_ns))
        minute = now_ns // MINUTE_NS
        if minute != self._minute:
            self._minute, self._used, self._strikes = minute, 0, 0
        self._used += weight
        if self._used <= self._per_minute:
            return Verdict(200, self._used)
        self._strikes += 1
        if self._strikes > self._strikes_allowed:
            self._banned_until_ns = now_ns + self._ban_s * 10**9
            return Verdict(418, self._used, self._ban_s)
        return Verdict(429, self._used, _seconds_up((minute + 1) * MINUTE_NS - now_ns))


def _seconds_up(ns: int) -> int:
    return -(-ns // 10**9)
