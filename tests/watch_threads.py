"""The threads of watches (``mdring/ring/watch.h``) in this process, as the kernel shows them."""

from __future__ import annotations

import time
from pathlib import Path


def watch_threads() -> list[Path]:
    """Those that run now, below /proc."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        try:
            name = (task / "comm").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if name == "mdring-watch\n":
            found.append(task)
    return found


def state_of(thread: Path) -> str:
    """The kernel's letter: R, S (it sleeps), ..."""
    return (thread / "stat").read_text().rpartition(") ")[2][0]


def sleeping_watch_threads() -> list[Path]:
    """Those that sleep on their cursor or their owner's question: a wake-up finds them."""
    return [thread for thread in watch_threads() if state_of(thread) == "S"]


def await_no_watch_thread() -> None:
    """Return when there is none: the kernel shows one that has ended and was joined a moment longer."""
    while watch_threads():
        time.sleep(0.001)
