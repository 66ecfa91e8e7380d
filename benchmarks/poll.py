"""One instrument of a thousand: what is left to do when a consumer wants a thousandth of the tape.

::

    tape ──▶ Reader.poll, native filter             ──▶ records of the instrument
         ──▶ Reader.poll, everything ──▶ numpy mask ──▶ the same
                                     ──▶ numba      ──▶ the same

The ring is full and warm; the times are CPU time of one core for each record on the tape.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks import limits
from benchmarks._harness import Part, Result, measure, require
from benchmarks.ring import SharedRing
from mdring.record import RECORD, Flags, Kind, offset_of
from mdring.ring._ring import Reader

INSTRUMENTS: Final = 1000
SLOTS: Final = 65_536
WANTED: Final = 7
CONTEST: Final = "filter"
TARGET_NS: Final = 50.0
"""20 M records/s of one core."""
_BATCH: Final = 4096

Batch = npt.NDArray[np.void]
Filter = Callable[[Batch], Batch]


def tape() -> SharedRing:
    """A full ring with the instruments in random order."""
    ring = SharedRing(SLOTS)
    records = np.zeros(SLOTS, dtype=RECORD)
    records["kind"] = Kind.TRADE
    records["flags"] = Flags.LAST
    records["instrument_id"] = np.random.default_rng(1).integers(1, INSTRUMENTS + 1, SLOTS)
    writer = ring.writer()
    for start in range(0, SLOTS, SLOTS // 4):
        writer.publish(records[start : start + SLOTS // 4].copy())
    return ring


def _read(reader: Reader, filtered: Filter) -> tuple[int, int]:
    """Everything that the reader has: how many records pass, and the sum of their seqs."""
    out = np.zeros(_BATCH, dtype=RECORD)
    count = total = 0
    while polled := reader.poll(out):
        chosen = filtered(out[:polled])
        count += len(chosen)
        total += int(chosen["seq"].sum())
    return count, total


def _timed(ring: SharedRing, make_reader: Callable[[], Reader], filtered: Filter, rounds: int) -> float:
    """ns for each record on the tape."""
    everything = np.zeros(SLOTS, dtype=RECORD)
    ring.reader().poll(everything)
    wanted = everything["seq"][everything["instrument_id"] == WANTED]
    times = []
    for _ in range(rounds + 1):
        reader = make_reader()
        start = time.thread_time_ns()
        count, total = _read(reader, filtered)
        times.append((time.thread_time_ns() - start) / SLOTS)
        require((count, total) == (len(wanted), int(wanted.sum())), "the wrong records pass the filter")
        require(reader.position == SLOTS, "the tape was not read to its end")
    return float(np.median(times[1:]))


def native(ring: SharedRing, rounds: int) -> Result:
    """The filter of the ring."""
    mask = np.zeros(INSTRUMENTS + 1, dtype=np.uint8)
    mask[WANTED] = 1

    def make_reader() -> Reader:
        reader = ring.reader()
        reader.set_filter(2**64 - 1, mask, kind_offset=offset_of("kind"), instrument_offset=offset_of("instrument_id"))
        return reader

    copied = RECORD.itemsize / limits.copy_bandwidth(SLOTS * RECORD.itemsize)
    return Result(name="native filter while polling", value=_timed(ring, make_reader, lambda batch: batch, rounds),
                  unit="ns a record", contest=CONTEST, limit=copied, limit_name="memcpy of it",
                  target=TARGET_NS)  # fmt: skip


def with_numpy(ring: SharedRing, rounds: int) -> Result:
    """Poll everything, then a mask."""
    taken = _timed(ring, ring.reader, lambda batch: batch[batch["instrument_id"] == WANTED], rounds)
    return Result(name="poll everything, numpy mask", value=taken, unit="ns a record", contest=CONTEST, is_peer=True,
                  series="numpy")  # fmt: skip


def with_numba(ring: SharedRing, rounds: int) -> Result:
    """Poll everything, then a compiled loop."""
    numba: Any = importlib.import_module("numba")

    @numba.njit  # type: ignore[untyped-decorator]
    def places(instruments: npt.NDArray[np.uint32], found: npt.NDArray[np.int64]) -> int:
        count = 0
        for index in range(len(instruments)):
            if instruments[index] == WANTED:
                found[count] = index
                count += 1
        return count

    found = np.zeros(_BATCH, dtype=np.int64)

    def filtered(batch: Batch) -> Batch:
        return batch[found[: places(batch["instrument_id"], found)]]

    return Result(name="poll everything, numba kernel", value=_timed(ring, ring.reader, filtered, rounds),
                  unit="ns a record", contest=CONTEST, is_peer=True, series="numba", target=TARGET_NS)  # fmt: skip


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of the filter."""
    ring, rounds = tape(), max(3, int(100 * options.scale))
    parts: list[Part] = [("native", lambda: native(ring, rounds)), ("numpy", lambda: with_numpy(ring, rounds))]
    if importlib.util.find_spec("numba") is not None:
        parts.append(("numba", lambda: with_numba(ring, rounds)))
    return measure("poll", parts)
