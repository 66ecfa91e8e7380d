"""One to one through a ring.

::

    process 0 ── Writer.publish ──▶ ring ──▶ Reader.poll ── process 1      one way
        ▲                                                      │
        └───────── Reader.poll ◀── ring ◀── Writer.publish ────┘           round trip

Limits in the same run: a bare cache line sent to and fro in C, and memcpy over the same working set.
"""

from __future__ import annotations

import argparse
import mmap
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks import limits
from benchmarks._harness import Result, cores_for, peer, pin, quantiles, require
from mdring.record import RECORD, Flags, offset_of
from mdring.ring._ring import Reader, Writer

_CURSOR, _DATA = 0, 4096
_LAST: Final = {"flags_offset": offset_of("flags"), "last_flag": int(Flags.LAST)}


class SharedRing:
    """An anonymous ring that a forked process shares."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.memory = mmap.mmap(-1, _DATA + slots * RECORD.itemsize)

    def writer(self) -> Writer:
        """Its writer."""
        return Writer(self.memory, _CURSOR, _DATA, RECORD.itemsize, self.slots, **_LAST)

    def reader(self, position: int = 0) -> Reader:
        """A reader after ``position``."""
        return Reader(self.memory, _CURSOR, _DATA, RECORD.itemsize, self.slots, **_LAST, position=position)


def _records(count: int) -> npt.NDArray[np.void]:
    made = np.zeros(count, dtype=RECORD)
    made["flags"] = Flags.LAST
    made["price"] = np.arange(count)
    return made


def publish_one(count: int) -> Result:
    """ns per ``publish`` of one record."""
    writer, record = SharedRing(4096).writer(), _records(1)
    publish = writer.publish
    start = time.perf_counter_ns()
    for _ in range(count):
        publish(record)
    elapsed = time.perf_counter_ns() - start
    require(writer.cursor == count, "not every record was published")
    return Result(name="publish, one record", value=elapsed / count / 1000, unit="µs", target=0.2)


def batches(batch: int, rounds: int) -> list[Result]:
    """GB/s of publishing and polling batches, against memcpy over a working set as large as the ring."""
    ring = SharedRing(16 * batch)
    writer, reader = ring.writer(), ring.reader()
    source, out = _records(batch), np.zeros(batch, dtype=RECORD)
    publish_ns = poll_ns = 0
    for _ in range(rounds):
        start = time.perf_counter_ns()
        writer.publish(source)
        middle = time.perf_counter_ns()
        count = reader.poll(out)
        poll_ns += time.perf_counter_ns() - middle
        publish_ns += middle - start
        require(count == batch, "a poll did not return the whole batch")
    require(bool((out["price"] == source["price"]).all()) and reader.lost == 0, "the batch came out changed")
    copied = RECORD.itemsize * batch * rounds
    bandwidth = limits.copy_bandwidth(RECORD.itemsize * ring.slots)
    return [
        Result(name=f"{name}, batches of {batch}", value=copied / ns, unit="GB/s", more_is_better=True, limit=bandwidth,
               limit_name="memcpy", target=bandwidth / 2)
        for name, ns in (("publish", publish_ns), ("poll", poll_ns))
    ]  # fmt: skip


def one_way(count: int, cores: list[int | None]) -> Result:
    """From before ``publish`` to after the ``poll`` that delivered the record, both processes spinning in Python."""
    ring, back = SharedRing(4096), SharedRing(4096)
    results = SharedRing(1 << (count - 1).bit_length() + 1)

    def consume() -> None:
        pin(cores[1])
        reader, answer = ring.reader(), back.writer()
        out, ready = np.zeros(1, dtype=RECORD), _records(1)
        sent = out["ts_recv"]
        poll, clock = reader.poll, time.perf_counter_ns
        delays = np.zeros(count, dtype=np.int64)
        for index in range(count):
            while not poll(out):
                pass
            delays[index] = clock() - sent[0]
            answer.publish(ready)  # the next one is sent only now: no queueing is measured
        keep = _records(count)
        keep["price"] = delays
        writer = results.writer()
        for start in range(0, count, 1024):
            writer.publish(keep[start : start + 1024].copy())

    with peer(consume):
        pin(cores[0])
        writer, answers = ring.writer(), back.reader()
        record, out = _records(1), np.zeros(1, dtype=RECORD)
        stamp, clock = record["ts_recv"], time.perf_counter_ns
        for _ in range(count):
            stamp[0] = clock()
            writer.publish(record)
            while not answers.poll(out):
                pass
    delays = np.zeros(count, dtype=RECORD)
    reader = results.reader()
    require(reader.poll(delays) == count, "not every record arrived")
    values = delays["price"][count // 10 :] / 1000
    return Result(name="one way, Python to Python, spinning", value=float(np.median(values)), unit="µs", target=0.4,
                  quantiles=quantiles(values))  # fmt: skip


def round_trip(count: int, cores: list[int | None]) -> Result:
    """There and back, both processes spinning in Python."""
    there, back = SharedRing(4096), SharedRing(4096)

    def echo() -> None:
        pin(cores[1])
        reader, writer = there.reader(), back.writer()
        out = np.zeros(1, dtype=RECORD)
        poll, publish = reader.poll, writer.publish
        for _ in range(count):
            while not poll(out):
                pass
            publish(out)

    times = np.zeros(count, dtype=np.int64)
    with peer(echo):
        pin(cores[0])
        writer, reader = there.writer(), back.reader()
        record, out = _records(1), np.zeros(1, dtype=RECORD)
        poll, publish, clock = reader.poll, writer.publish, time.perf_counter_ns
        for index in range(count):
            start = clock()
            publish(record)
            while not poll(out):
                pass
            times[index] = clock() - start
        require(reader.position == count, "not every record came back")
    values = times[count // 10 :] / 1000
    return Result(name="round trip, Python to Python, spinning", value=float(np.median(values)), unit="µs",
                  quantiles=quantiles(values))  # fmt: skip


def native(rounds: int, cores: list[int | None]) -> list[Result]:
    """The native core against the bare cache line."""
    line = limits.line_round_trips(rounds, cores) / 1000
    ring = limits.native_ring_round_trips(rounds, cores) / 1000
    bare = float(np.median(line))
    return [
        Result(name="round trip, bare cache line (C)", value=bare, unit="µs", quantiles=quantiles(line)),
        Result(name="round trip, native core (C)", value=float(np.median(ring)), unit="µs", limit=bare,
               limit_name="cache line", target=1.3 * bare, quantiles=quantiles(ring)),
    ]  # fmt: skip


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of the ring."""
    scale: float = options.scale
    cores = options.cores or cores_for(2)
    count = int(200_000 * scale)
    measured: list[Any] = [publish_one(count), *batches(1024, int(2000 * scale) or 1)]
    measured += [one_way(count, cores), round_trip(count, cores), *native(count, cores)]
    return measured
