"""What a named consumer tells of itself: position, lag, losses, CPU, in a counters segment of its own.

A consumer is invisible unless it is named when it attaches; then ``mdring stat`` shows it, dead or alive. The segment
goes when the consumer closes, or with the run. The name is held by a lock, so two consumers never share it.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import Final

from mdring.counters import Counter, Counters
from mdring.ring.segment import AlreadyWritten
from mdring.run_folder import RunError, RunFolder

_INTERVAL_NS: Final = 100_000_000
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
PREFIX: Final = "consumer-"
"""Before the name in the name of the process that stat shows."""


class NamedConsumer:
    """The counters of one named consumer, written at most ten times a second."""

    def __init__(self, folder: RunFolder, name: str, run_id: int) -> None:
        """Take the name in this run. Raises ValueError for a bad name, RunError if a living consumer has it."""
        if not _NAME.fullmatch(name):
            raise ValueError(f"a consumer's name has 1 to 64 letters, digits, '_', '.' or '-', not {name!r}")
        self.name = name
        self._path = folder.counters(PREFIX + name)
        with suppress(FileExistsError):
            Counters.create(self._path, run_id=run_id).segment.close()
        try:
            self._counters = Counters.open_as_writer(self._path, os.getpid())
        except AlreadyWritten as error:
            raise RunError(f"another consumer of run {folder.name!r} is named {name!r}: {error}") from error
        self._due_ns = 0

    def report(self, *, position: int, lag: int, lost: int, records: int) -> None:
        """Tell where the consumer stands, if it is time to."""
        now = time.monotonic_ns()
        if now < self._due_ns:
            return
        self._due_ns = now + _INTERVAL_NS
        for counter, value in (
            (Counter.POSITION, position),
            (Counter.LAG, lag),
            (Counter.LOST, lost),
            (Counter.RECORDS, records),
            (Counter.CPU_NS, time.process_time_ns()),
        ):
            self._counters.store(counter, value)
        self._counters.heartbeat()

    def close(self) -> None:
        """Give the name up."""
        self._path.unlink(missing_ok=True)
        self._counters.segment.close()
