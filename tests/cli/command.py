"""The real ``mdring`` command as a child process, and a run for it to look at, made by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdring.counters import POSITIONS_WORD, Counter, Counters, Histogram
from mdring.record import RECORD, VIEW_OF_KIND, Flags, Kind, State
from tests.runs import TestRun, open_writer, records

MDRING = (sys.executable, "-m", "mdring.cli.main")


def mdring(
    *arguments: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the ``mdring`` command to its end."""
    return subprocess.run(
        [*MDRING, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | (env or {}),
        check=False,
    )


def start_mdring(*arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start the ``mdring`` command; its output comes through pipes."""
    return subprocess.Popen([*MDRING, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)


def options(run: TestRun) -> tuple[str, ...]:
    """The options by which a command finds the run."""
    return ("--directory", str(run.folder.path.parent), "--run", run.folder.name)


def record(kind: Kind, *, last: bool = True, **fields: Any) -> np.void:
    """One record of a kind; an event group of its own unless ``last`` is false."""
    row = np.zeros(1, dtype=VIEW_OF_KIND[kind])
    row["kind"] = kind
    row["flags"] = Flags.LAST if last else Flags.NONE
    for name, value in fields.items():
        row[name] = value
    view: np.void = row.view(RECORD)[0]
    return view


class Tape:
    """The tape of a run, and this process its writer."""

    def __init__(self, run: TestRun) -> None:
        self._writer = open_writer(run.tape)

    def publish(self, *rows: np.void) -> None:
        """Publish these records and wake who waits for them."""
        self._writer.publish(np.array([*rows], dtype=RECORD))
        self._writer.wake()


class BusyRun:
    """A run of one venue, ``binance``, whose counters have something to say; this process is all its processes."""

    def __init__(self, run: TestRun) -> None:
        self.run = run
        self.folder = run.folder
        self.worker = Counters.open_as_writer(run.folder.counters("worker-binance"), os.getpid())
        self.sequencer = Counters.open_as_writer(run.folder.counters("sequencer"), os.getpid())
        for counter, value in {
            Counter.STATE: State.CONNECTED,
            Counter.STATE_SINCE_NS: time.time_ns(),
            Counter.FRAMES: 1000,
            Counter.RECORDS: 3000,
            Counter.RECONNECTS: 2,
            Counter.GAPS: 5,
            Counter.RESYNCS: 6,
            Counter.REJECTS: 7,
            Counter.DROPS: 11,
            Counter.BOOKS: 2,
            Counter.BOOKS_VALID: 1,
        }.items():
            self.worker.store(counter, value)
        self.record_latency(15)
        self.worker.set_error("checksum of \x1b[31mBTCUSDT")
        open_writer(run.rings["binance"]).publish(records(10))
        self.sequencer.words.store(POSITIONS_WORD + run.venue_ids["binance"], 4)

    def record_latency(self, nanoseconds: int) -> None:
        """Count one venue → receive latency."""
        self.worker.words.record_latency(self.worker.histogram_word(Histogram.VENUE_TO_RECEIVE), nanoseconds)

    def close(self) -> None:
        """End the worker and the sequencer."""
        self.worker.segment.close()
        self.sequencer.segment.close()
