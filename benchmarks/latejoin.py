"""Late join: from nothing to consistent books of 1,000 instruments, at random moments while the tape runs.

::

    process 1 ── deltas ──▶ tape ──▶ process 2, the book keeper ──▶ checkpoints
                             └───────────────────┬───────────────────────┘
                                            attach(books=True) ── this process

The answer is checked: each time, every book equals the one of a consumer that was there from the start, at the very
seq of the join, or, every other time, at a later one to which the joiner has followed the tape.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.synchronize import Event
from typing import Final

import numpy as np
import numpy.typing as npt

import mdring
from benchmarks._harness import FORK, Result, latency, measure, peer, require
from benchmarks._run_folder import open_reader, open_writer, run_folder
from mdring.book import BookSet
from mdring.book.keeper import BookKeeper
from mdring.config import BooksConfig
from mdring.record import RECORD, Flags, Kind, Side
from mdring.ring.idle import idle_strategy
from mdring.run_folder import RunFolder

INSTRUMENTS: Final = 1000
TAPE_SLOTS: Final = 1 << 19
RATE: Final = 100_000
"""Deltas per second while others join: many times what the busiest venues send."""
_PACE_S: Final = 0.005


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


def write(folder: RunFolder, levels: int, is_over: Event) -> None:
    """Process 1."""
    writer = open_writer(folder.tape)
    image = snapshots(levels)
    group = 1 + 2 * levels
    whole_groups = max(1, 8192 // group) * group
    for begin in range(0, len(image), whole_groups):
        writer.publish(image[begin : begin + whole_groups].copy())
        time.sleep(0.001)  # the keeper shares the machine's cores
    per_step = int(RATE * _PACE_S)
    for step in itertools.count():
        writer.publish(deltas(per_step, levels, step))
        writer.wake()
        if is_over.wait(_PACE_S):
            return


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


class Witness:
    """A consumer that is there from the start."""

    def __init__(self, folder: RunFolder) -> None:
        self._books, self._reader = BookSet(), open_reader(folder.tape)
        self._batch = np.zeros(1 << 16, dtype=RECORD)

    def follow(self, seq: int) -> bool:
        """Go on to ``seq``; whether all books are valid then."""
        while self._reader.position < seq:
            missing = seq - self._reader.position
            self._books.apply(self._batch, self._reader.poll(self._batch[: min(missing, len(self._batch))]))
        require(self._reader.lost == 0, "the witness was lapped")
        return len(self._books) == INSTRUMENTS and all(self._books[i].valid for i in self._books)

    def check(self, books: BookSet, seq: int) -> None:
        """Require that ``books``, as of ``seq``, are the witness's."""
        require(self.follow(seq), "a book of the witness is invalid")
        require(content(books) == content(self._books), f"a joined book is not the witness's at seq {seq}")


def joins(levels: int, count: int) -> Result:
    """ms from ``attach`` to consistent books, under load and at random moments; each time all books are checked.

    Every other joiner follows the tape for a while before it is.
    """
    draw = np.random.default_rng(levels)
    over = FORK.Event()
    with (
        run_folder(["venue"], tape_slots=TAPE_SLOTS, books=BooksConfig(), instruments=INSTRUMENTS) as folder,
        keeper(folder),
        peer(write, folder, levels, over),
    ):
        witness, tape = Witness(folder), open_reader(folder.tape)
        while not witness.follow(tape.cursor):
            time.sleep(_PACE_S)
        times = np.zeros(count)
        for index in range(count):
            time.sleep(draw.uniform(0.0, 0.01))
            start = time.perf_counter_ns()
            joined = mdring.attach("bench", directory=folder.path.parent, books=True)
            times[index] = (time.perf_counter_ns() - start) / 1e6
            with joined:
                books = joined.books
                require(books is not None and len(books) == INSTRUMENTS, "not every book was joined")
                assert books is not None
                require(all(books[i].valid for i in books), "a joined book is invalid")
                for _ in range(index % 2 * int(draw.integers(1, 4))):
                    joined.wait(1.0)
                    joined.poll()
                require(joined.lost == 0, "a joiner was lapped")
                witness.check(books, joined.position)
            del joined, books  # or the next join would be measured with the freeing of these books
        over.set()
    name = f"attach to {INSTRUMENTS:,} books of 2 x {levels} levels, {RATE:,} deltas/s, {count:,} times"
    return latency(name, times, "ms", target=10.0 if levels <= 100 else None)


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of late joins."""
    wanted = ((50, 200), (100, 1000))
    parts = [
        (f"{levels} levels", partial(joins, levels, max(4, int(count * options.scale)))) for levels, count in wanted
    ]
    return measure("latejoin", parts)
