"""Load for keepers and joiners: processes that write the tape of a market and that keep its books."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from multiprocessing.sharedctypes import Synchronized
from random import Random

from mdring.book.keeper import BookKeeper
from mdring.ring.idle import IDLE_STRATEGIES
from mdring.run_folder import RunFolder
from tests.book.keeper_run import BookRun
from tests.book.market import Market
from tests.runs import attach_ring, open_writer

FORK = multiprocessing.get_context("fork")


def _write(run: BookRun, market: Market, stop: Synchronized[int]) -> None:
    """Publish some 50,000 records a second, in bursts, but never more than half a tape ahead of the book table."""
    tape = attach_ring(run.folder.tape, writable=True)
    writer, generator = open_writer(tape), Random(1)
    last, ends = 0, market.ends
    index = cycle = 0
    while not stop.value:
        if last - run.table.position > tape.slot_count // 2:
            time.sleep(0.0005)
            continue
        index += generator.choice((1, 1, 2, 5, 10, 100))
        if index >= len(ends):
            index, cycle = 0, cycle + 1
        until = cycle * len(market) + ends[index]
        writer.publish(market.records(last + 1, until))
        writer.wake()
        last = until
        if generator.random() < 0.5:
            time.sleep(0.0005)


def _keep(folder: RunFolder) -> None:
    keeper = BookKeeper(folder)
    keeper.run(IDLE_STRATEGIES["block"], pause_ns=20_000)


class Load:
    """A market that is written to the tape of a run, until the block ends."""

    def __init__(self, run: BookRun, market: Market) -> None:
        self.run, self.market = run, market
        self._stop = FORK.Value("i", 0)
        self._keeper: ForkProcess | None = None
        self._writer = FORK.Process(target=_write, args=(run, market, self._stop))

    def start_keeper(self) -> None:
        """Have a keeper, in a process of its own."""
        self._keeper = FORK.Process(target=_keep, args=(self.run.folder,))
        self._keeper.start()

    def kill_keeper(self) -> None:
        """Kill it with SIGKILL, wherever it is."""
        assert self._keeper is not None
        assert self._keeper.pid is not None
        os.kill(self._keeper.pid, signal.SIGKILL)
        self._keeper.join()
        assert self._keeper.exitcode == -signal.SIGKILL, "the keeper failed before it was killed"

    def start(self) -> None:
        """Begin to write."""
        self._writer.start()

    def stop(self) -> None:
        """End the processes."""
        self._stop.value = 1
        for process in (self._writer, self._keeper):
            if process is not None and process.is_alive():
                process.kill()
                process.join()


@contextmanager
def under_load(run: BookRun, market: Market) -> Iterator[Load]:
    """A run with a writer and a keeper at work; all books have been there once."""
    run.run.tape.close()
    load = Load(run, market)
    try:
        load.start_keeper()
        load.start()
        deadline = time.monotonic() + 60
        while run.table.position < len(market):
            assert time.monotonic() < deadline, "the keeper does not keep up"
            time.sleep(0.001)
        yield load
    finally:
        load.stop()
