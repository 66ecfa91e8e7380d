"""Late join: from nothing to consistent books of 1,000 instruments, while the tape runs.

::

    process 1 ── deltas ──▶ tape ──▶ process 2, the book keeper ──▶ checkpoints
                             └───────────────────┬───────────────────────┘
                                                join() ── this process

The answer is checked: a joiner that follows the tape to its end has the books of one who joins there, and those of
one who was there from the start.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks._harness import FORK, Result, latency, measure, peer, require
from benchmarks._run_folder import attach_ring, open_reader, open_writer, run_folder
from mdring.book import BookSet
from mdring.book.keeper import BookKeeper
from mdring.book.late_join import Joined, join
from mdring.config import BooksConfig
from mdring.record import RECORD, Flags, Kind, Side
from mdring.ring.idle import idle_strategy
from mdring.run_folder import RunFolder

INSTRUMENTS: Final = 1000
TAPE_SLOTS: Final = 1 << 19
RATE: Final = 100_000
"""Deltas per second while others join: many times what the busiest venues send."""
_PACE_S: Final = 0.005
_SECONDS_OF_LOAD: Final = 6.0


def snapshots(levels: int) -> npt.NDArray[np.void]:
    """A snapshot of every book, one event group each, ``levels`` a side."""
    group = 1 + 2 * levels
    made = np.zeros(INSTRUMENTS * group, dtype=RECORD)
    made["instrument_id"] = np.repeat(np.arange(1, INSTRUMENTS + 1), group)
    made["kind"] = Kind.LEVEL
    made["flags"] = Flags.SNAPSHOT
    made["size"] = 10
    place = np.tile(np.arange(group), INSTRUMENTS)
    made["kind"][place == 0] = Kind.CLEAR
    made["side"] = np.where(place <= levels, Side.BID, Side.ASK)
    made["price"] = np.where(place <= levels, 100_000 - place, 100_000 + place - levels)
    made["flags"][place == group - 1] |= np.uint8(Flags.LAST)
    made["venue_id"] = 1
    return made


def deltas(count: int, levels: int, seed: int) -> npt.NDArray[np.void]:
    """Random changes of sizes, deletions among them, each an event group."""
    draw = np.random.default_rng(seed)
    made = np.zeros(count, dtype=RECORD)
    made["kind"], made["flags"], made["venue_id"] = Kind.LEVEL, Flags.LAST, 1
    made["instrument_id"] = draw.integers(1, INSTRUMENTS + 1, count)
    bids = draw.integers(0, 2, count) == 0
    distance = 1 + draw.geometric(0.1, count) % levels
    made["side"] = np.where(bids, Side.BID, Side.ASK)
    made["price"] = np.where(bids, 100_000 - distance, 100_000 + distance)
    made["size"] = draw.integers(0, 100, count)
    return made


def write(folder: RunFolder, levels: int, seconds: float) -> None:
    """Process 1."""
    writer = open_writer(folder.tape)
    image = snapshots(levels)
    group = 1 + 2 * levels
    whole_groups = max(1, 8192 // group) * group
    for begin in range(0, len(image), whole_groups):
        writer.publish(image[begin : begin + whole_groups].copy())
        time.sleep(0.001)  # the keeper shares the machine's cores
    per_step = int(RATE * _PACE_S)
    for step in range(int(seconds / _PACE_S)):
        writer.publish(deltas(per_step, levels, step))
        writer.wake()
        time.sleep(_PACE_S)


@contextmanager
def keeper(folder: RunFolder) -> Iterator[None]:
    """Process 2, as long as the block."""

    def keep() -> None:
        BookKeeper(folder).run(idle_strategy("block"), 250_000)

    process = FORK.Process(target=keep, daemon=True)
    process.start()
    try:
        yield
        require(process.is_alive(), "the book keeper has ended")
    finally:
        process.kill()
        process.join()


def content(books: BookSet) -> list[tuple[bool, bytes, bytes]]:
    """All that the books say."""
    return [(books[i].valid, books[i].bids().tobytes(), books[i].asks().tobytes()) for i in range(1, INSTRUMENTS + 1)]


def joins(levels: int, scale: float) -> Result:
    """Times of joins under load, ms."""
    with (
        run_folder(["venue"], tape_slots=TAPE_SLOTS, books=BooksConfig(), instruments=INSTRUMENTS) as folder,
        keeper(folder),
    ):
        tape = attach_ring(folder.tape)
        witness, everything = BookSet(), open_reader(folder.tape)
        batch = np.zeros(1 << 16, dtype=RECORD)
        times: list[float] = []
        kept: list[Joined] = []
        seconds = _SECONDS_OF_LOAD * scale
        with peer(write, folder, levels, seconds) as writer:
            while writer.is_alive():
                while count := everything.poll(batch):
                    witness.apply(batch, count)
                if not (1 in witness and INSTRUMENTS in witness and witness[INSTRUMENTS].valid):
                    continue
                start = time.perf_counter_ns()
                joined = join(folder, tape, wait_s=10.0)
                times.append((time.perf_counter_ns() - start) / 1e6)
                require(sum(joined.books[i].valid for i in joined.books) == INSTRUMENTS, "a joined book is invalid")
                if len(kept) < 3:
                    kept.append(joined)
                time.sleep(0.02)
        while count := everything.poll(batch):
            witness.apply(batch, count)
        require(everything.lost == 0, "the witness was lapped")
        expected = content(witness)
        require(content(join(folder, tape, wait_s=10.0).books) == expected, "a joined book is not the witness's")
        for joined in kept:
            reader = open_reader(folder.tape, joined.seq)
            while count := reader.poll(batch):
                joined.books.apply(batch, count)
            if reader.lost == 0:  # the tape still had all that came since
                require(content(joined.books) == expected, "a book that was followed is not the witness's")
    name = f"join {INSTRUMENTS:,} books of 2 x {levels} levels, {RATE:,} deltas/s"
    return latency(name, np.array(times), "ms", target=10.0 if levels <= 100 else None)


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of late joins."""
    parts = [(f"{levels} levels", partial(joins, levels, options.scale)) for levels in (50, 100)]
    return measure("latejoin", parts)
