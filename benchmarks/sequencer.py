"""N venue rings to the tape.

::

    venue ring 1 ─┐
    venue ring 2 ─┼─▶ Sequencer.do_work ──▶ tape
    venue ring N ─┘

How many records a second one core merges, when the rings are full and when a writer on another core fills them; and
what the way through the sequencer adds to a round trip whose other end is a bare native echo.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import signal
import time
from collections.abc import Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks import limits
from benchmarks._harness import Part, Result, cores_for, latency, measure, peer, pin, require
from benchmarks._run_folder import open_reader, open_writer, run_folder
from mdring.record import RECORD, Flags, offset_of
from mdring.ring._ring import Reader, Writer
from mdring.ring.idle import idle_strategy
from mdring.run_folder import RunFolder
from mdring.sequencer import Sequencer

RING_SLOTS: Final = 65_536
BATCH: Final = 1024
TARGET_M_PER_S: Final = 20.0
TARGET_ADDED_US: Final = 0.2
_ECHO_SLOTS: Final = 1024


def _venues(count: int) -> dict[str, int]:
    return {f"venue{number}": number for number in range(1, count + 1)}


def _batch(group: int) -> npt.NDArray[np.void]:
    """Records in event groups of ``group``, numbered in ``price``."""
    made = np.zeros(BATCH - BATCH % group, dtype=RECORD)
    made["kind"] = 1
    made["flags"][group - 1 :: group] = Flags.LAST
    made["price"] = np.arange(len(made))
    return made


def _fill(writer: Writer, records: npt.NDArray[np.void], count: int) -> None:
    """Publish ``count`` records, stamped with times that are ahead of the time of the one before."""
    for _ in range(0, count, len(records)):
        records["ts_recv"] = time.time_ns() + np.arange(len(records))
        writer.publish(records)


def drain(venue_count: int, group: int, rounds: int) -> Result:
    """M records/s of one core that finds every ring three quarters full; by CPU time, so others do not count."""
    venues = _venues(venue_count)
    records = _batch(group)
    each = RING_SLOTS * 3 // 4 // len(records) * len(records)
    elapsed = 0
    with run_folder(list(venues), tape_slots=2 * RING_SLOTS, ring_slots=RING_SLOTS) as folder:
        sequencer = Sequencer(folder, venues)
        writers = [open_writer(folder.venue_ring(venue)) for venue in venues]
        for _ in range(rounds):
            for writer in writers:
                _fill(writer, records, each)
            start = time.thread_time_ns()
            while sequencer.do_work():
                pass
            elapsed += time.thread_time_ns() - start
        merged = rounds * each * venue_count
        _check_tape(folder, sequencer, merged, records)
    rate = merged / elapsed * 1000
    return Result(name=f"{venue_count} full rings, event groups of {group}", value=rate, unit="M records/s",
                  more_is_better=True, target=TARGET_M_PER_S, limit=_copy_limit(), limit_name="memcpy twice",
                  axis="venue rings", series=f"groups of {group}", at=venue_count)  # fmt: skip


def _copy_limit() -> float:
    """M records/s of a core that does nothing but copy each record into place and out again."""
    return limits.copy_bandwidth(RECORD.itemsize * RING_SLOTS) / (2 * RECORD.itemsize) * 1000


def _check_tape(folder: RunFolder, sequencer: Sequencer, merged: int, records: npt.NDArray[np.void]) -> None:
    """All is on the tape: seqs without a hole, and the records that were put in."""
    require(sequencer.cursor == merged, f"{merged} records went in, {sequencer.cursor} came out")
    reader = open_reader(folder.tape, max(0, merged - RING_SLOTS))
    out = np.zeros(RING_SLOTS, dtype=RECORD)
    count = reader.poll(out)
    require(count > 0 and reader.lost == 0, "the tape cannot be read")
    require(bool((np.diff(out["seq"][:count]) == 1).all()), "the tape's seqs have holes")
    counts = np.bincount(out["price"][:count], minlength=len(records))
    require(len(counts) == len(records) and counts.max() - counts.min() <= 4 * 255, "records are missing or doubled")


def with_writer(venue_count: int, group: int, seconds: float, cores: list[int | None]) -> Result:
    """M records/s while a process on another core fills the rings as fast as the sequencer empties them."""
    venues = _venues(venue_count)
    with run_folder(list(venues), tape_slots=2 * RING_SLOTS, ring_slots=RING_SLOTS) as folder:

        def write() -> None:
            pin(cores[1])
            writers = [open_writer(folder.venue_ring(venue)) for venue in venues]
            records, tape = _batch(group), open_reader(folder.tape)
            end = time.monotonic() + seconds
            written = 0
            while time.monotonic() < end:
                for writer in writers:
                    while written - tape.cursor > RING_SLOTS // 2:
                        pass
                    records["ts_recv"] = time.time_ns()
                    writer.publish(records)
                    written += len(records)

        with peer(write) as process:
            pin(cores[0])
            sequencer = Sequencer(folder, venues)
            while not sequencer.do_work():
                pass
            start = time.perf_counter_ns()
            while process.is_alive():
                sequencer.do_work()
            elapsed = time.perf_counter_ns() - start
        while sequencer.do_work():
            pass
        written = sum(open_reader(folder.venue_ring(venue)).cursor for venue in venues)
        require(sequencer.cursor == written, f"{written} records went in, {sequencer.cursor} came out")
    return Result(name=f"{venue_count} rings, filled from another core", value=sequencer.cursor / elapsed * 1000,
                  unit="M records/s", more_is_better=True)  # fmt: skip


def _round_trips(writer: Writer, reader: Reader, count: int) -> npt.NDArray[np.float64]:
    """µs from before ``publish`` to after the ``poll`` that brought the record back."""
    record, out = _batch(1)[:1].copy(), np.zeros(1, dtype=RECORD)
    poll, publish, clock = reader.poll, writer.publish, time.perf_counter_ns
    times = np.zeros(count)
    for index in range(count):
        start = clock()
        publish(record)
        while not poll(out):
            pass
        times[index] = clock() - start
    require(int(out["seq"][0]) == count and reader.lost == 0, "not every record came back")
    return times[count // 10 :] / 1000


def through_sequencer(count: int, cores: list[int | None]) -> npt.NDArray[np.float64]:
    """Round trips venue ring → sequencer, spinning on another core → tape."""
    with run_folder(["alpha"]) as folder:

        def sequence() -> None:
            pin(cores[1])
            sequencer = Sequencer(folder, {"alpha": 1})
            signal.signal(signal.SIGTERM, lambda *_: sequencer.stop())
            sequencer.run(idle_strategy("spin"))

        with peer(sequence) as process:
            pin(cores[0])
            times = _round_trips(open_writer(folder.venue_ring("alpha")), open_reader(folder.tape), count)
            process.terminate()
        return times


def through_echo(count: int, cores: list[int | None]) -> npt.NDArray[np.float64]:
    """The same round trips with a native echo on the other core that does nothing but copy."""
    ring_bytes = 128 + _ECHO_SLOTS * RECORD.itemsize
    shared = mmap.mmap(-1, 2 * ring_bytes)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    fields = {"flags_offset": offset_of("flags"), "last_flag": int(Flags.LAST)}

    def echo() -> None:
        pin(cores[1])
        limits.library().pingpong_ring(
            ctypes.c_void_p(address), ctypes.c_uint64(_ECHO_SLOTS), ctypes.c_uint64(count), 1, None
        )

    with peer(echo):
        pin(cores[0])
        writer = Writer(shared, 0, 128, RECORD.itemsize, _ECHO_SLOTS, **fields)
        reader = Reader(shared, ring_bytes, ring_bytes + 128, RECORD.itemsize, _ECHO_SLOTS, **fields, position=0)
        return _round_trips(writer, reader, count)


def added(count: int, cores: list[int | None]) -> list[Result]:
    """What the sequencer adds when it spins."""
    through, bare = through_sequencer(count, cores), through_echo(count, cores)
    return [
        latency("round trip through a native echo", bare),
        latency("round trip through the sequencer, spinning", through),
        Result(name="  added by the sequencer, p50", value=float(np.median(through) - np.median(bare)), unit="µs",
               target=TARGET_ADDED_US),
    ]  # fmt: skip


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of N to one."""
    scale: float = options.scale
    cores = options.cores or cores_for(2)
    rounds = max(1, int(20 * scale))
    parts: list[Part] = [
        (f"{venues} rings", partial(drain, venues, group, max(1, rounds // venues)))
        for group in (1, 10)
        for venues in (1, 4, 16)
    ]
    parts.append(("filled from another core", lambda: with_writer(4, 10, 2 * scale, cores)))
    parts.append(("added", lambda: added(max(1000, int(100_000 * scale)), cores)))
    return measure("sequencer", parts)
