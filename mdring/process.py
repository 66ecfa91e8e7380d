"""What every process of a run does at its start: end with its parent, and turn signals into an orderly stop."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_PDEATHSIG = 1


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
