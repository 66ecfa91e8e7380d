"""Run folders with a book table and checkpoints, and keepers on them: in this process, or real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdring.book.keeper import PROCESS, BookKeeper
from mdring.book.table import BookTable, create_checkpoints, create_table
from mdring.config import BooksConfig, Config, to_json
from mdring.counters import Counter, Counters
from mdring.ring import segment
from mdring.ring._ring import Writer
from mdring.run_folder import RunFolder
from tests.book.market import Records
from tests.runs import TestRun, attach_ring, open_writer, temporary_run

LEVELS = 5
WATCHDOG_S = 60.0


class BookRun:
    """A run whose tape this process writes."""

    def __init__(self, run: TestRun, levels: int, checkpoint_bytes: int, instruments: int) -> None:
        self.run = run
        self.folder: RunFolder = run.folder
        create_table(self.folder.books, run_id=run.run_id, levels=levels, instruments=instruments).close()
        create_checkpoints(self.folder.checkpoints, run_id=run.run_id, size_bytes=checkpoint_bytes).close()
        Counters.create(self.folder.counters(PROCESS), run_id=run.run_id).segment.close()
        config = Config(books=BooksConfig(levels=levels, pause_us=50))
        self.folder.config.write_bytes(to_json(config))
        self.table = BookTable.attach(self.folder.books)
        self.tape: segment.Segment = attach_ring(self.folder.tape)
        self._writer: Writer | None = None

    def publish(self, records: Records) -> None:
        """Put whole event groups on the tape."""
        if self._writer is None:
            self._writer = open_writer(self.run.tape)
        self._writer.publish(records)

    def wake(self) -> None:
        """Wake a keeper that sleeps."""
        assert self._writer is not None
        self._writer.wake()

    @property
    def counters(self) -> Counters:
        """The keeper's counters."""
        return Counters.attach(self.folder.counters(PROCESS))

    @contextmanager
    def keeper(self) -> Iterator[BookKeeper]:
        """A keeper of this process, which dies after the block without a word."""
        keeper = BookKeeper(self.folder)
        try:
            yield keeper
        finally:
            keeper.close()


def follow(keeper: BookKeeper) -> None:
    """Have the keeper take all that the tape has."""
    while keeper.do_work():
        pass


@contextmanager
def book_run(
    *, tape_slots: int = 4096, levels: int = LEVELS, checkpoint_bytes: int = 1 << 20, instruments: int = 64
) -> Iterator[BookRun]:
    """A run with books that lives as long as the block."""
    with temporary_run(("alpha", "beta"), tape_slots=tape_slots) as run:
        yield BookRun(run, levels, checkpoint_bytes, instruments)


class KeeperProcess:
    """A real keeper."""

    def __init__(self, folder: RunFolder) -> None:
        command = [sys.executable, "-m", "mdring.book.keeper", "--run-folder", str(folder.path)]
        root = Path(__file__).parents[2]
        self._starts = Counters.attach(folder.counters(PROCESS))
        self.process = subprocess.Popen(
            [*command, "--parent", str(os.getpid())], cwd=root, stderr=subprocess.PIPE, text=True
        )

    def wait_until_up(self) -> KeeperProcess:
        """Return when it has opened its counters."""
        deadline = time.monotonic() + WATCHDOG_S
        while self._starts.load(Counter.PID) != self.process.pid:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline, "the keeper does not come up"
            time.sleep(0.005)
        return self

    def kill(self) -> int:
        """End it with SIGKILL; its return code, which is another if it had ended by itself."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        return self.process.returncode


@contextmanager
def keeper_process(folder: RunFolder) -> Iterator[KeeperProcess]:
    """A real keeper that is up, and killed after the block."""
    keeper = KeeperProcess(folder)
    try:
        yield keeper.wait_until_up()
    finally:
        keeper.kill()
