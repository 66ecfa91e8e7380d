"""The circuit breaker: after too many failures in a row, leave the venue alone for a while.

Pure, runs in the worker, one object for each connection; ``life_cycle.py`` asks it before every attempt. Time
is passed in (any clock in ns that never falls)::

    CLOSED --failure_threshold failures in a row--> OPEN --open_ns have passed--> HALF_OPEN
    HALF_OPEN --a success--> CLOSED
    HALF_OPEN --half_open_attempts failures--> OPEN

    while wait_ns := breaker.wait_ns(now):
        sleep_ns(wait_ns)
    breaker.on_attempt(now)
    breaker.on_success() or breaker.on_failure(now)

A success is a healthy period of data, as for the backoff; an established connection alone is none.
"""

from __future__ import annotations

from enum import IntEnum


class BreakerState(IntEnum):
    """As shown by ``Counter.BREAKER``; a larger value is a worse state."""

    CLOSED = 0  # attempts are made
    HALF_OPEN = 1  # a few attempts are made to see whether the venue is back
    OPEN = 2  # no attempt is made


class CircuitBreaker:
    """One connection's breaker."""

    def __init__(self, failure_threshold: int, open_ns: int, half_open_attempts: int = 1, *, enabled: bool = True):
        """A breaker that is not ``enabled`` stays closed."""
        self._failure_threshold = failure_threshold
        self._open_ns = open_ns
        self._half_open_attempts = half_open_attempts
        self._enabled = enabled
        self._opened_at_ns = 0
        self.failures = 0
        """Failures in a row: of a closed breaker since the last success, of a half-open one since it is so."""
        self.state = BreakerState.CLOSED

    def wait_ns(self, now_ns: int) -> int:
        """How long no attempt may be made yet; 0 if one may be made now."""
        if self.state is not BreakerState.OPEN:
            return 0
        return max(0, self._opened_at_ns + self._open_ns - now_ns)

    def on_attempt(self, now_ns: int) -> None:
        """An attempt is made: an open breaker whose time is over becomes half-open.

        Raises ValueError if it may not be made yet.
        """
        if self.wait_ns(now_ns):
            raise ValueError("the breaker is open: no attempt may be made yet")
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN
            self.failures = 0

    def on_success(self) -> None:
        """The venue is healthy: close."""
        self.state = BreakerState.CLOSED
        self.failures = 0

    def on_failure(self, now_ns: int) -> None:
        """An attempt failed, or the connection that it made did before it was healthy."""
        self.failures += 1
        limit = self._half_open_attempts if self.state is BreakerState.HALF_OPEN else self._failure_threshold
        if self._enabled and self.failures >= limit:
            self.state = BreakerState.OPEN
            self._opened_at_ns = now_ns
