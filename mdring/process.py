"""What every process of a run does at its start: end with its parent, turn signals into an orderly stop, and take
short turns of the processor if frames go through it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_PR_SET_PDEATHSIG = 1
_SHORT_TURN_NS: Final = 100_000  # the least that the kernel accepts
# sched_setattr(2), sched_getattr(2): the C library has no function for them.
_SCHEDULING_CALLS: Final = {"x86_64": (314, 315), "aarch64": (274, 275)}
_SCHEDULING: Final = struct.Struct("IIQiIQQQ")  # size, policy, flags, nice, priority, runtime, deadline, period


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, however that ends (prctl(2), PR_SET_PDEATHSIG).

    ``parent_pid`` is the parent as it knows itself: if it is already gone, this process exits at once.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:
        sys.exit(f"parent process {parent_pid} has ended")


@contextmanager
def stop_held_back() -> Iterator[None]:
    """Processes that are started herein keep SIGTERM pending until they call ``accept_stop``.

    So an order to stop that comes before its handler is there neither kills the process nor gets lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def accept_stop() -> None:
    """The handler of SIGTERM is there: let it have what was held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def pin_to_core(core: int | None) -> None:
    """Run on one core only, if one is given. Raises OSError if there is no such core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


@contextmanager
def short_turns() -> Iterator[None]:
    """Have this thread take turns of the processor of 0.1 ms, in place of some milliseconds, as long as the block.

    For processes on the way of a frame that share few cores. One that waits yields to the others on its core, and its
    next turn then comes when each of them has had one: that is how long a record may lie there. Nobody gets more of a
    core than before. Kernels before 6.12 have turns of one length; there, and where the process has another scheduling
    policy than the usual one, nothing changes.
    """
    before = _set_turn_ns(_SHORT_TURN_NS)
    try:
        yield
    finally:
        if before is not None:
            _set_turn_ns(before)


def turn_ns(pid: int = 0) -> int | None:
    """How long the turns of a process' main thread are, or of this thread (0); None where that cannot be told."""
    found = _scheduling(pid)
    return found[5] if found is not None and found[5] else None


def _scheduling(pid: int) -> tuple[int, ...] | None:
    """The fields of ``_SCHEDULING`` of a thread, if it has the usual policy."""
    if platform.machine() not in _SCHEDULING_CALLS:
        return None
    room = ctypes.create_string_buffer(_SCHEDULING.size)
    _, get = _SCHEDULING_CALLS[platform.machine()]
    if ctypes.CDLL(None).syscall(get, pid, room, _SCHEDULING.size, 0) != 0:
        return None
    found = _SCHEDULING.unpack(room.raw)
    return found if found[1] == os.SCHED_OTHER else None


def _set_turn_ns(length_ns: int) -> int | None:
    """Set it; what it was before, None if that could not be told and nothing was set."""
    found = _scheduling(0)
    if found is None or not found[5]:
        return None
    size, policy, flags, nice, priority, before, deadline, period = found
    wanted = _SCHEDULING.pack(size, policy, flags, nice, priority, length_ns, deadline, period)
    set_, _ = _SCHEDULING_CALLS[platform.machine()]
    return before if ctypes.CDLL(None).syscall(set_, 0, wanted, 0) == 0 else None
