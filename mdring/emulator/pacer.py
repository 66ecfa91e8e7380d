"""Keeps the market's pace: calls back with the number of steps that are due, from a kernel timer.

asyncio's own timers are rounded up to milliseconds; at 20,000 steps a second that would put twenty frames on
the wire in one burst, and a receiver's latency would measure the burst. A timerfd wakes the loop every
``MIN_INTERVAL_NS`` at most, and not at all at rate 0. Used by ``server.py`` alone::

    pacer = Pacer(loop, emit)
    pacer.set_rate(200)
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Final

MIN_INTERVAL_NS: Final = 200_000
MAX_LATE_NS: Final = 100_000_000
"""Steps that are later than this are left out: a machine that cannot keep the pace must not spiral."""

_CLOCK_MONOTONIC: Final = 1


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("first", _Timespec)]


class Pacer:
    """Calls ``emit(count)`` so that the counts add up to ``rate`` a second. ``shed`` counts the left out."""

    def __init__(self, loop: asyncio.AbstractEventLoop, emit: Callable[[int], None]) -> None:
        """Raises OSError if the kernel gives no timer."""
        self.shed = 0
        self._loop = loop
        self._emit = emit
        self._rate = 0
        self._origin_ns = 0
        self._emitted = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        loop.add_reader(self._fd, self._on_timer)

    @property
    def rate(self) -> int:
        """Steps per second."""
        return self._rate

    def set_rate(self, rate: int) -> None:
        """Go on at this pace from now; 0 stops. Raises ValueError for a negative rate."""
        if rate < 0:
            raise ValueError(f"rate is {rate}, it cannot be negative")
        self._rate = rate
        self._restart()
        self._arm(max(10**9 // rate, MIN_INTERVAL_NS) if rate else 0)

    def close(self) -> None:
        """Stop and free the timer; idempotent."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _restart(self) -> None:
        self._origin_ns = time.monotonic_ns()
        self._emitted = 0

    def _arm(self, interval_ns: int) -> None:
        interval = _Timespec(*divmod(interval_ns, 10**9))
        setting = _Itimerspec(interval, interval)
        if self._libc.timerfd_settime(self._fd, 0, ctypes.byref(setting), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")

    def _on_timer(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # the timer was set anew between the wake-up and this call
            return
        due = (time.monotonic_ns() - self._origin_ns) * self._rate // 10**9 - self._emitted
        most = max(self._rate * MAX_LATE_NS // 10**9, 1)
        if due > most:
            self.shed += due - most
            self._restart()
            self._emit(most)
        elif due > 0:
            self._emitted += due
            self._emit(due)
