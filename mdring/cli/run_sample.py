"""One look at a run: everything its counters say at one time, and the rates between two looks.

Used by ``mdring stat``. Looking maps the segments read-only for a moment and touches no process::

    before = take_sample(run); time.sleep(1); now = take_sample(run)
    rates(before, now, "worker-binance")[Counter.FRAMES]  # frames per second
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil
from msgspec import Struct

from mdring.counters import MAX_VENUES, POSITIONS_WORD, Counter, Counters, Histogram, Quantiles, quantiles_of
from mdring.instrument import InstrumentTable
from mdring.record import FINGERPRINT, LAYOUT_VERSION
from mdring.ring import segment
from mdring.ring.segment import SegmentKind, SegmentNotFound, is_locked
from mdring.run_folder import RunFolder, RunInfo


class RingSample(Struct, frozen=True):
    """A venue ring or the tape. ``waiting`` records have not been taken by the sequencer (0 for the tape)."""

    slots: int
    cursor: int
    epoch: int
    waiting: int = 0


class ProcessSample(Struct, frozen=True):
    """One process. ``error`` is time in ns and text of its last one; all is 0 of a process that has not begun."""

    alive: bool
    counters: dict[Counter, int]
    buckets: dict[Histogram, npt.NDArray[np.uint64]]
    error: tuple[int, str] | None
    resident_bytes: int
    cpu_ns: int


class RunSample(Struct, frozen=True):
    """The whole run at ``ts_ns``. ``rings`` by venue, ``processes`` by name."""

    ts_ns: int
    info: RunInfo
    alive: bool
    instruments: int
    tape: RingSample | None
    rings: dict[str, RingSample]
    processes: dict[str, ProcessSample]


def take_sample(run: RunFolder) -> RunSample:
    """Look at the run now. Raises FileNotFoundError if it is gone, SegmentError if it is none of ours."""
    info = run.read_info()
    processes = {name: _sample_process(run, name) for name in run.processes()}
    # Before the rings: a position read first is never above the cursor read after it.
    positions = _sequencer_positions(run)
    rings = {
        venue: ring
        for venue, venue_id in info.venues.items()
        if (ring := _sample_ring(run.venue_ring(venue), positions.get(venue_id))) is not None
    }
    return RunSample(
        ts_ns=time.time_ns(),
        info=info,
        alive=run.alive(),
        instruments=_count_instruments(run),
        tape=_sample_ring(run.tape, None),
        rings=rings,
        processes=processes,
    )


def seconds_between(before: RunSample, now: RunSample) -> float:
    """Time between two looks."""
    return max(now.ts_ns - before.ts_ns, 1) / 1e9


def rates(before: RunSample, now: RunSample, process: str) -> dict[Counter, float]:
    """How much each counter of the process rose per second; empty if it was not there before."""
    earlier, later = before.processes.get(process), now.processes[process]
    if earlier is None:
        return {}
    seconds = seconds_between(before, now)
    return {counter: (value - earlier.counters[counter]) / seconds for counter, value in later.counters.items()}


def recent_quantiles(before: RunSample, now: RunSample, process: str, histogram: Histogram) -> Quantiles:
    """Latency of what was counted between the two looks, in ns."""
    earlier, later = before.processes.get(process), now.processes[process].buckets[histogram]
    return quantiles_of(later if earlier is None else later - earlier.buckets[histogram])


def _sample_process(run: RunFolder, name: str) -> ProcessSample:
    path = run.counters(name)
    counters = Counters.attach(path)
    with counters.segment:
        words = counters.words.snapshot(0, len(Counter))
        values = {counter: int(words[counter]) for counter in Counter}
        alive = is_locked(path)
        resident_bytes, cpu_ns = _resources(values[Counter.PID]) if alive else (0, 0)
        return ProcessSample(
            alive=alive,
            counters=values,
            buckets={histogram: counters.buckets(histogram) for histogram in Histogram},
            error=counters.error(),
            resident_bytes=resident_bytes,
            cpu_ns=cpu_ns,
        )


def _resources(pid: int) -> tuple[int, int]:
    """Resident memory in bytes and CPU time in ns; zeros if the process ends meanwhile."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        return process.memory_info().rss, round((times.user + times.system) * 1e9)
    except psutil.Error:
        return 0, 0


def _sequencer_positions(run: RunFolder) -> dict[int, int]:
    """venue_id → the last position that the sequencer consumed in the venue's ring."""
    try:
        counters = Counters.attach(run.counters("sequencer"))
    except SegmentNotFound:
        return {}
    with counters.segment:
        return dict(enumerate(counters.words.snapshot(POSITIONS_WORD, MAX_VENUES).tolist()))


def _sample_ring(path: Path, position: int | None) -> RingSample | None:
    try:
        ring = segment.attach(path, SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT)
    except SegmentNotFound:
        return None
    with ring:
        cursor = ring.cursor
        waiting = 0 if position is None else max(cursor - position, 0)
        return RingSample(slots=ring.slot_count, cursor=cursor, epoch=ring.epoch, waiting=waiting)


def _count_instruments(run: RunFolder) -> int:
    try:
        table = InstrumentTable.attach(run.instruments)
    except SegmentNotFound:
        return 0
    with table.segment:
        return len(table)
