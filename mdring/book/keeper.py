"""The book keeper, a process of every run: keeps all books, the book table and the checkpoints from the tape.

It is a consumer like any other, only that it writes segments of its own: rows for whoever wants newest values
without following the stream (``last_value.py``), and checkpoints for late joiners (``late_join.py``). It never asks
anybody for anything: killed at any moment, it goes on from its own rows and checkpoints and the tape.

The supervisor starts it::

    python -m mdring.book.keeper --run-folder /dev/shm/mdring/demo --parent 4711
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from mdring import log
from mdring.book._book import BookSet
from mdring.book._keeper import Keeper
from mdring.book.table import CURRENT_WORD, POSITION_WORD, BookTable, CheckpointStore
from mdring.config import from_json
from mdring.counters import Counter, Counters
from mdring.process import accept_stop, die_with_parent, pin_to_core
from mdring.record import FINGERPRINT, LAYOUT_VERSION, Flags, offset_of
from mdring.ring import segment
from mdring.ring.idle import IdleStrategy, idle_strategy
from mdring.run_folder import RunFolder

logger = logging.getLogger(__name__)

PROCESS: Final = "books"
"""The keeper's name among the processes of a run."""

_SLICE_NS: Final = 100_000_000  # between two heartbeats; signals interrupt it
_SPAN_SHARE: Final = 8  # the checkpoints lag behind at most by the tape's slots divided by this
_BATCH_RECORDS: Final = 4096  # taken at once by a keeper that is behind: each row is then written once for many
_DRAIN_NS: Final = 1_000_000


class BookKeeper:
    """Owns the book table and the checkpoints of a run. ``run`` until ``stop``."""

    def __init__(self, folder: RunFolder) -> None:
        """Take both segments over and bring them up to the tape.

        Raises SegmentError, AlreadyWritten if another keeper lives; RuntimeError if they are damaged.
        """
        self.counters = Counters.open_as_writer(folder.counters(PROCESS), os.getpid())
        self._tape = segment.attach(
            folder.tape, segment.SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT
        )
        self._table = BookTable.open_as_writer(folder.books)
        self._store = CheckpointStore.open_as_writer(folder.checkpoints)
        self._keeper = Keeper(
            BookSet(),
            self._tape.reader(flags_offset=offset_of("flags"), last_flag=int(Flags.LAST), position=0),
            self._table.rows,
            self._store.checkpoints,
            self._table.segment.writer_block,
            position_word=POSITION_WORD,
            current_word=CURRENT_WORD,
            span=self._tape.slot_count // _SPAN_SHARE,
            room=_BATCH_RECORDS,
        )
        self._counted = {Counter.RECORDS: 0, Counter.LOST: 0, Counter.CHECKPOINTS: 0}
        self._told_rowless = False
        self._stopping = False
        self.report()

    @property
    def position(self) -> int:
        """The table contains all that the tape says up to this seq."""
        return self._keeper.position

    @property
    def floor(self) -> int:
        """The checkpoints contain all that the tape says up to this seq."""
        return self._keeper.floor

    def do_work(self) -> int:
        """One duty cycle; returns the number of records taken."""
        return self._keeper.do_work()

    def stop(self) -> None:
        """Have ``run`` take what the tape still has, and return."""
        self._stopping = True

    def close(self) -> None:
        """Give the segments up."""
        for mapped in (self.counters.segment, self._tape, self._table.segment, self._store.segment):
            mapped.close()

    def run(self, idle: IdleStrategy, pause_ns: int = 0) -> None:
        """Keep the books until ``stop``, then up to the end of the tape."""
        while not self._stopping:
            self._keeper.run(idle.native, idle.spin_ns, pause_ns, _SLICE_NS)
            self.report()
        while self._keeper.position < self._tape.cursor:
            self._keeper.run(idle.native, 0, 0, _DRAIN_NS)
        self.report()

    def report(self) -> None:
        """Bring the counters up to date."""
        keeper, counters = self._keeper, self.counters
        self._count(Counter.RECORDS, keeper.records)
        self._count(Counter.CHECKPOINTS, keeper.checkpoints_written)
        if self._count(Counter.LOST, keeper.lost):
            self._tell(f"the tape lapped the book keeper: {keeper.lost} records lost, all books invalid until their "
                       "next snapshot; configure more [tape] slots, or give it a cpu")  # fmt: skip
        if keeper.rowless and not self._told_rowless:
            self._told_rowless = True
            self._tell("there are instruments beyond the rows of the book table: nobody can read their newest values "
                       "or join them late; subscribe to them from the start of the run")  # fmt: skip
        if keeper.without_checkpoint > counters.load(Counter.BOOKS_WITHOUT_CHECKPOINT):
            self._tell(f"books that do not fit into the checkpoints: {keeper.without_checkpoint}; nobody can join them "
                       "late; configure a larger [books] checkpoint_bytes")  # fmt: skip
        books, valid = keeper.count_books()
        counters.store(Counter.BOOKS_WITHOUT_CHECKPOINT, keeper.without_checkpoint)
        counters.store(Counter.BOOKS, books)
        counters.store(Counter.BOOKS_VALID, valid)
        counters.store(Counter.LAG, max(0, self._tape.cursor - keeper.position))
        counters.store(Counter.CHECKPOINT_LAG, keeper.position - keeper.floor)
        counters.store(Counter.POSITION, keeper.position)
        counters.heartbeat()

    def _count(self, counter: Counter, value: int) -> int:
        """Count what has come since the last time; returns how much."""
        more = value - self._counted[counter]
        self._counted[counter] = value
        if more:
            self.counters.add(counter, more)
        return more

    def _tell(self, text: str) -> None:
        logger.warning("%s", text)
        self.counters.set_error(text)


def main(arguments: list[str] | None = None) -> int:
    """Keep the books of a run folder until SIGTERM."""
    parser = argparse.ArgumentParser(prog="mdring.book.keeper", description="Keep the books of a run.")
    parser.add_argument("--run-folder", type=Path, required=True)
    parser.add_argument("--parent", type=int, help="end when this process does")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        die_with_parent(options.parent)
    folder = RunFolder(options.run_folder)
    config = from_json(folder.config.read_bytes())
    log.configure(PROCESS, config.log.level)
    pin_to_core(config.books.cpu)
    started_ns = time.monotonic_ns()
    keeper = BookKeeper(folder)
    signal.signal(signal.SIGTERM, lambda *_: keeper.stop())
    accept_stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the supervisor orders the stop
    recovered_ms = (time.monotonic_ns() - started_ns) / 1e6
    logger.info("keeping books from seq %d", keeper.position + 1, extra={"recovered_ms": round(recovered_ms, 1)})
    keeper.run(idle_strategy(config.books.idle, config.books.spin_us), config.books.pause_us * 1000)
    logger.info("stopped at seq %d", keeper.position)
    return 0


if __name__ == "__main__":
    sys.exit(main())
