"""``mdring stat``: what a run does now, refreshed each second; ``--json`` prints it once for programs.

It maps the run's counters read-only, so looking costs the run nothing. Rates and latencies are those of the
last interval, all other numbers count from the start of the run. The JSON has counts and latencies since the
start only: a program has rates from two readings and their ``ts``. Ctrl-C ends it with exit code 0.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from msgspec import to_builtins
from rich.console import RenderableType
from rich.live import Live

from mdring.cli.arguments import add_run, chosen_run, positive_count, positive_seconds
from mdring.cli.failure import CommandFailed
from mdring.cli.output import make_console, print_json
from mdring.cli.run_sample import ProcessSample, RunSample, take_sample
from mdring.cli.stat_view import render, state_name
from mdring.counters import Counter, quantiles_of
from mdring.ring.segment import SegmentNotFound
from mdring.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and exit")
    parser.add_argument(
        "--interval", type=positive_seconds, default=1.0, metavar="SECONDS", help="between refreshes (%(default)s)"
    )
    parser.add_argument(
        "--count", type=positive_count, metavar="N", help="refresh N times (without end on a terminal, else 1)"
    )


def run(arguments: argparse.Namespace) -> int:
    folder = chosen_run(arguments)
    if arguments.json:
        print_json(as_json(_look(folder)))
        return 0
    count = arguments.count or (None if sys.stdout.isatty() else 1)
    with suppress(KeyboardInterrupt):
        _watch(folder, arguments.interval, count)
    return 0


def as_json(sample: RunSample) -> dict[str, Any]:
    """The sample as JSON values; counters by their names in lower case, latencies in ns since the start."""
    return {
        "ts": sample.ts_ns,
        "run": {
            "name": sample.info.name,
            "run_id": sample.info.run_id,
            "alive": sample.alive,
            "demo": sample.info.demo,
            "version": sample.info.version,
            "supervisor_pid": sample.info.supervisor_pid,
            "instruments": sample.instruments,
        },
        "tape": None if sample.tape is None else to_builtins(sample.tape),
        "venues": {venue: _venue_json(sample, venue) for venue in sample.info.venues},
        "processes": {name: _process_json(process) for name, process in sample.processes.items()},
    }


def _venue_json(sample: RunSample, venue: str) -> dict[str, Any]:
    worker, ring = sample.processes.get(f"worker-{venue}"), sample.rings.get(venue)
    return {
        "venue_id": sample.info.venues[venue],
        "process": f"worker-{venue}",
        "state": None if worker is None else state_name(worker.counters[Counter.STATE]),
        "ring": None if ring is None else to_builtins(ring),
    }


def _process_json(process: ProcessSample) -> dict[str, Any]:
    return {
        "alive": process.alive,
        "resident_bytes": process.resident_bytes,
        "cpu_ns": process.cpu_ns,
        "counters": {counter.name.lower(): value for counter, value in process.counters.items()},
        "latency_ns": {
            histogram.name.lower(): to_builtins(quantiles_of(buckets)) for histogram, buckets in process.buckets.items()
        },
        "last_error": None if process.error is None else {"ts": process.error[0], "text": process.error[1]},
    }


def _watch(folder: RunFolder, interval_s: float, count: int | None) -> None:
    """Draw ``count`` times (None: until the run is gone), each time after an interval."""
    console = make_console()
    if not console.is_terminal:
        for view in _views(folder, interval_s, count):
            console.print(view)
        return
    with Live(console=console, auto_refresh=False, screen=count is None) as live:
        for view in _views(folder, interval_s, count):
            live.update(view, refresh=True)


def _views(folder: RunFolder, interval_s: float, count: int | None) -> Iterator[RenderableType]:
    before = _look(folder)
    for _ in itertools.count() if count is None else range(count):
        time.sleep(interval_s)
        now = _look(folder)
        if now.info.run_id != before.info.run_id:  # the run was started anew: no differences to the old one
            before = now
        yield render(before, now)
        before = now


def _look(folder: RunFolder) -> RunSample:
    try:
        return take_sample(folder)
    except (FileNotFoundError, SegmentNotFound):
        raise CommandFailed(f"run '{folder.name}' is gone from {folder.path.parent}") from None
