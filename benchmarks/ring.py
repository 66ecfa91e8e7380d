"""One to one through a ring.

::

    process 0 ── Writer.publish ──▶ ring ──▶ Reader.poll ── process 1      one way
        ▲                                                      │
        └───────── Reader.poll ◀── ring ◀── Writer.publish ────┘           round trip

Limits in the same run: one bare cache line sent to and fro in C, the two lines that a record has, walking through
memory as a ring does, and memcpy over the same working set.
"""

from __future__ import annotations

import argparse
import mmap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks import limits
from benchmarks._harness import Part, Result, cores_for, latency, measure, peer, pin, require
from benchmarks.peers import environment
from mdring.record import RECORD, Flags, offset_of
from mdring.ring._ring import Reader, Words, Writer

_CURSOR, _DATA = 0, 4096
MAX_BATCH: Final = 1024
BATCHES: Final = (1, 8, 64, 512)
PEER_BATCHES: Final = (1, 64)
NATIVE_TURNS: Final = 5
TARGET_TO_LINE: Final = 1.3
BATCH_AXIS: Final = "records in a batch"
ZEROMQ: Final = ("zeromq-pair", "zeromq-pair-spinning", "zeromq-pub-sub")
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


def records(count: int) -> npt.NDArray[np.void]:
    """Event groups of one record each, numbered in ``price``."""
    made = np.zeros(count, dtype=RECORD)
    made["flags"] = Flags.LAST
    made["price"] = np.arange(count)
    return made


def publish_one(count: int) -> Result:
    """µs per ``publish`` of one record: the median of many times that a hundred take."""
    writer, record = SharedRing(4096).writer(), records(1)
    publish, clock = writer.publish, time.perf_counter_ns
    times = np.zeros(count // 100)
    for index in range(len(times)):
        start = clock()
        for _ in range(100):
            publish(record)
        times[index] = (clock() - start) / 100_000
    require(writer.cursor == 100 * len(times), "not every record was published")
    return Result(name="publish, one record", value=float(np.median(times)), unit="µs", target=0.2)


def batches(batch: int, rounds: int) -> list[Result]:
    """GB/s of publishing and polling batches, against memcpy over a working set as large as the ring."""
    ring = SharedRing(16 * batch)
    writer, reader = ring.writer(), ring.reader()
    source, out = records(batch), np.zeros(batch, dtype=RECORD)
    publish_ns, poll_ns = np.zeros(rounds), np.zeros(rounds)
    for index in range(rounds):
        start = time.perf_counter_ns()
        writer.publish(source)
        middle = time.perf_counter_ns()
        count = reader.poll(out)
        poll_ns[index] = time.perf_counter_ns() - middle
        publish_ns[index] = middle - start
        require(count == batch, "a poll did not return the whole batch")
    require(bool((out["price"] == source["price"]).all()) and reader.lost == 0, "the batch came out changed")
    copied = RECORD.itemsize * batch
    bandwidth = limits.copy_bandwidth(RECORD.itemsize * ring.slots)
    return [
        Result(name=f"{name}, batches of {batch}", value=copied / float(np.median(times)), unit="GB/s",
               more_is_better=True, limit=bandwidth, limit_name="memcpy", target=bandwidth / 2)
        for name, times in (("publish", publish_ns), ("poll", poll_ns))
    ]  # fmt: skip


def throughput(readers: int, count: int, batch: int, cores: list[int | None]) -> float:
    """Records per second that each of ``readers`` processes gets, in batches of at most ``batch``.

    The ring's writer never waits, so here it looks at how far the slowest reader is: nothing may be lost.
    """
    ring = SharedRing(max(4096, 16 * batch))
    progress = Words(mmap.mmap(-1, 128 * readers), 0, 16 * readers)  # of reader n in word 16 * n
    count -= count % batch

    def consume(number: int) -> None:
        pin(cores[1 + number])
        reader, out = ring.reader(), np.zeros(batch, dtype=RECORD)
        seqs, poll, told, taken = out["seq"], reader.poll, 16 * number, 0
        while taken < count:
            polled = poll(out)
            if polled:
                taken += polled
                require(seqs[polled - 1] == taken, "a record is missing, or out of order")
                progress.store(told, taken)
        require(reader.lost == 0, "records were lost")

    with ExitStack() as processes:
        for number in range(readers):
            processes.enter_context(peer(consume, number))
        pin(cores[0])
        writer, source = ring.writer(), records(batch)
        start, sent = time.perf_counter_ns(), 0
        while sent < count:
            taken = min(progress.load(16 * number) for number in range(readers))
            until = min(count, taken + ring.slots - batch)
            while sent < until:
                sent = writer.publish(source)
        while min(progress.load(16 * number) for number in range(readers)) < count:
            pass
        elapsed = time.perf_counter_ns() - start
    return count / elapsed * 1e9


def one_to_one(count: int, batch: int, cores: list[int | None]) -> Result:
    """M records/s from one process to another."""
    return Result(name=f"throughput, batches of {batch}", value=throughput(1, count, batch, cores) / 1e6,
                  unit="M records/s", more_is_better=True, contest=f"throughput {batch}", axis=BATCH_AXIS,
                  series="mdring", at=batch)  # fmt: skip


def one_way(count: int, cores: list[int | None]) -> Result:
    """From before ``publish`` to after the ``poll`` that delivered the record, both processes spinning in Python."""
    ring, back = SharedRing(4096), SharedRing(4096)
    results = SharedRing(1 << (count - 1).bit_length() + 1)

    def consume() -> None:
        pin(cores[1])
        reader, answer = ring.reader(), back.writer()
        out, ready = np.zeros(1, dtype=RECORD), records(1)
        sent = out["ts_recv"]
        poll, clock = reader.poll, time.perf_counter_ns
        delays = np.zeros(count, dtype=np.int64)
        for index in range(count):
            while not poll(out):
                pass
            delays[index] = clock() - sent[0]
            answer.publish(ready)  # the next one is sent only now: no queueing is measured
        keep = records(count)
        keep["price"] = delays
        writer = results.writer()
        for start in range(0, count, 1024):
            writer.publish(keep[start : start + 1024].copy())

    with peer(consume):
        pin(cores[0])
        writer, answers = ring.writer(), back.reader()
        record, out = records(1), np.zeros(1, dtype=RECORD)
        stamp, clock = record["ts_recv"], time.perf_counter_ns
        for _ in range(count):
            stamp[0] = clock()
            writer.publish(record)
            while not answers.poll(out):
                pass
    delays = np.zeros(count, dtype=RECORD)
    reader = results.reader()
    require(reader.poll(delays) == count, "not every record arrived")
    return latency("one way, Python to Python, spinning", delays["price"][count // 10 :] / 1000, target=0.4,
                   contest="one way")  # fmt: skip


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
        record, out = records(1), np.zeros(1, dtype=RECORD)
        poll, publish, clock = reader.poll, writer.publish, time.perf_counter_ns
        for index in range(count):
            start = clock()
            publish(record)
            while not poll(out):
                pass
            times[index] = clock() - start
        require(reader.position == count, "not every record came back")
    return latency("round trip, Python to Python, spinning", times[count // 10 :] / 1000)


def native(rounds: int, cores: list[int | None]) -> list[Result]:
    """The native core against bare cache lines: one, and the two that a record has. By turns, as two virtual cores may
    be near one another at one time and far at another; the ratios are those of turns."""
    few = max(rounds // NATIVE_TURNS, 100)
    turns = [
        tuple(
            measured(few, cores) / 1000
            for measured in (limits.line_round_trips, limits.two_lines_round_trips, limits.native_ring_round_trips)
        )
        for _ in range(NATIVE_TURNS)
    ]
    line, lines, ring = (np.concatenate(measured) for measured in zip(*turns, strict=True))
    medians = np.array([[float(np.median(times)) for times in turn] for turn in turns])
    to_line, to_lines = np.median(medians[:, 2:] / medians[:, :2], axis=0).tolist()
    tcp = limits.tcp_round_trips(max(rounds // 10, 100), cores) / 1000
    return [
        latency("round trip, bare cache line (C)", line),
        latency("round trip, two bare lines, each time others (C)", lines, limit=float(np.median(line)),
                limit_name="cache line"),
        latency("round trip, native core (C)", ring, limit=float(np.median(lines)), limit_name="two lines"),
        Result(name="  ÷ bare cache line", value=to_line, unit="×", target=TARGET_TO_LINE),
        Result(name="  ÷ two bare lines", value=to_lines, unit="×"),
        latency("round trip, bare loopback TCP, 200 bytes", tcp),
    ]  # fmt: skip


def peer_one_way(name: str, count: int, cores: list[int | None]) -> Result:
    """The same one-way time through another library."""
    delays = np.array(environment.run("transports", "one-way", name, count, cores=cores), dtype=np.int64)
    require(len(delays) == count and bool((delays > 0).all()), f"{name}: not every record arrived")
    return latency(f"one way, {name}", delays[count // 10 :] / 1000, contest="one way", is_peer=True, series=name)


def peer_throughput(name: str, count: int, batch: int, cores: list[int | None]) -> Result:
    """M records/s through another library."""
    rate = environment.run("transports", "throughput", name, count, batch, cores=cores)
    require(rate > 0, f"{name}: not every record arrived")
    return Result(name=f"throughput, {name}, batches of {batch}", value=rate / 1e6, unit="M records/s",
                  more_is_better=True, contest=f"throughput {batch}", is_peer=True, axis=BATCH_AXIS, series=name,
                  at=batch)  # fmt: skip


def present_peers() -> list[str]:
    """The transports of the other libraries that can be measured here."""
    needs = {"faster-fifo": "faster-fifo", "iceoryx2": "iceoryx2"} | dict.fromkeys(ZEROMQ, "pyzmq")
    present = ["multiprocessing.Queue", *(name for name, needed in needs.items() if environment.has(needed))]
    return [*present, *(["redis-stream"] if environment.has_redis() else [])]


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of the ring."""
    scale: float = options.scale
    cores = options.cores or cores_for(2)
    count, few = max(1000, int(200_000 * scale)), max(1000, int(20_000 * scale))
    parts: list[Part] = [
        ("publish one", lambda: publish_one(count)),
        ("batches", lambda: batches(MAX_BATCH, max(1, int(2000 * scale)))),
        ("one way", lambda: one_way(count, cores)),
        ("round trip", lambda: round_trip(count, cores)),
        ("native", lambda: native(count, cores)),
        *((f"batch {batch}", partial(one_to_one, count * min(batch, 16), batch, cores)) for batch in BATCHES),
    ]
    for name in present_peers():
        parts.append((name, partial(peer_one_way, name, few, cores)))
        parts += [(name, partial(peer_throughput, name, few * min(batch, 16), batch, cores)) for batch in PEER_BATCHES]
    return measure("ring", parts)
