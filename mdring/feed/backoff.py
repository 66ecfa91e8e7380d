"""Delays before reconnecting: capped exponential backoff with full jitter.

Pure, runs in the worker: one object for each connection of the venue, one for its metadata, asked by
``life_cycle.py`` and ``metadata.py``. The delay is uniform in 0..min(maximum, first * 2**n), so clients that
lost a venue together do not come back together ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015:
of the variants measured there, full jitter makes the least calls)::

    backoff = Backoff(first_ms=500, maximum_ms=30_000)
    while not backoff.exhausted:
        if not connect():
            sleep_ns(backoff.next_delay_ns())
        elif data_flowed_for_a_while():
            backoff.reset()

A connection that is merely established resets nothing: only a healthy period of data does, else a venue that
accepts and hangs up would be hammered.
"""

from __future__ import annotations

from random import Random, SystemRandom
from typing import Final

_NS_PER_MS: Final = 1_000_000


class Backoff:
    """Counts the failed attempts since the last healthy period and draws the delay before the next one."""

    def __init__(self, first_ms: int, maximum_ms: int, max_attempts: int = 0, random: Random | None = None) -> None:
        """``first_ms`` bounds the first delay, ``maximum_ms`` every one; after ``max_attempts`` delays (0: never)
        there is no other. ``random`` is for tests; by default the system's entropy is drawn on.
        """
        self._first_ns = first_ms * _NS_PER_MS
        self._maximum_ns = maximum_ms * _NS_PER_MS
        self._max_attempts = max_attempts
        self._random = SystemRandom() if random is None else random
        self.attempts = 0
        """Attempts that failed since the last healthy period."""

    @property
    def exhausted(self) -> bool:
        """Whether no other attempt is to be made."""
        return 0 < self._max_attempts <= self.attempts

    def next_delay_ns(self) -> int:
        """Count a failed attempt; the time to wait before the next one."""
        bound = self._bound_ns(self.attempts)
        self.attempts += 1
        return self._random.randrange(bound + 1)

    def reset(self) -> None:
        """A healthy period of data is behind us: begin anew."""
        self.attempts = 0

    def _bound_ns(self, exponent: int) -> int:
        # A shift beyond the maximum's width cannot matter, and would build ever larger integers.
        return min(self._maximum_ns, self._first_ns << min(exponent, self._maximum_ns.bit_length()))
