"""CPU and memory of a run in which nothing happens.

``mdring up`` with the default settings on an emulated venue that falls silent: the connection is up, eight books are
synchronised, and no data comes. Measured is what the kernel says of each process of the run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks._harness import Result, console, measure
from benchmarks._run_folder import temporary_folder
from benchmarks.e2e import DEFAULT_IDLE, load_venue, run_up, wait_for_books
from mdring.counters import Counter, Counters
from mdring.run_folder import RunFolder

SECONDS: Final = 10.0
TARGET_CPU_PERCENT: Final = 2.0
TARGET_WORKER_MB: Final = 70.0


def at_rest(seconds: float) -> list[Result]:
    """CPU in per cent of one core, and resident memory, of each process and in all."""
    with temporary_folder() as folder, load_venue(folder) as venue, run_up(venue, DEFAULT_IDLE, folder) as runs:
        venue.join()
        wait_for_books(runs)
        time.sleep(1)
        return _measured(RunFolder(runs / "bench"), seconds)


def _measured(folder: RunFolder, seconds: float) -> list[Result]:
    processes = {
        name: psutil.Process(Counters.attach(folder.counters(name)).load(Counter.PID)) for name in folder.processes()
    }
    before = {name: _cpu_s(process) for name, process in processes.items()}
    start = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - start
    percent = {name: (_cpu_s(process) - before[name]) / elapsed * 100 for name, process in processes.items()}
    whole = Result(
        name="CPU, the whole run", value=sum(percent.values()), unit="% of a core", target=TARGET_CPU_PERCENT
    )
    results = [whole]
    for name, process in processes.items():
        target = TARGET_WORKER_MB if name.startswith("worker") else None
        megabytes = process.memory_info().rss / 1e6
        results += [
            Result(name=f"CPU, {name}", value=percent[name], unit="% of a core"),
            Result(name=f"memory, {name}", value=megabytes, unit="MB RSS", target=target),
        ]
    return results


def _cpu_s(process: psutil.Process) -> float:
    """CPU seconds of all its threads, to the nanosecond: /proc/PID/stat counts in hundredths."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures at rest."""
    console.print("[dim]idle: a run is started and left alone[/]")
    return measure("idle", [("at rest", lambda: at_rest(max(2.0, SECONDS * options.scale)))])
