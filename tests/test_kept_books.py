"""Books that a consumer joins with and keeps, against a demo run under load."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mdring
from mdring.book import BookSet
from mdring.config import load
from mdring.record import Flags, Kind
from tests.runs import temporary_directory

ROOT = Path(__file__).parents[1]
SYMBOLS = ["binance:BTC-USDT", "binance:ETH-USDT"]
BOOKS = sum(len(venue.subscriptions) for venue in load(ROOT / "config.toml").enabled_venues)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """A demo run called ``kept`` with a small tape, 2,000 market steps a second, and all its books valid."""
    with temporary_directory() as folder:
        command = [sys.executable, "-m", "mdring", "up", "--demo", "--run", "kept", "--demo-rate", "2000"]
        command += [
            "--set",
            "tape.slots=65536",
            "--set",
            f"run.directory={folder / 'runs'}",
            "--config",
            str(ROOT / "config.toml"),
        ]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            with mdring.attach("kept", directory=folder / "runs", books=True, wait_s=60) as tape:
                until_valid(tape)
            yield folder / "runs"
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def until_valid(tape: mdring.Consumer, count: int = BOOKS) -> None:
    assert tape.books is not None
    while sum(tape.books[i].valid for i in tape.books) < count:
        tape.poll()
        assert tape.wait(60)


def content(books: BookSet) -> dict[int, tuple[object, ...]]:
    return {i: (books[i].valid, books[i].bids().tolist(), books[i].asks().tolist()) for i in books}


def test_a_joiner_has_the_books_of_one_who_was_there_before(directory: Path) -> None:
    with mdring.attach("kept", directory=directory, books=True) as early:
        assert early.books is not None
        until_valid(early)
        for _ in range(20):
            early.wait(10)
            early.poll()
            with mdring.attach("kept", directory=directory, books=True) as late:
                assert late.books is not None
                while early.position < late.position:
                    early.wait(10)
                    early.poll(max_records=1)
                while late.position < early.position:
                    late.wait(10)
                    late.poll(max_records=1)
                assert late.position == early.position
                assert content(late.books) == content(early.books)


def test_books_of_chosen_instruments_stay_in_step_with_the_batches(directory: Path) -> None:
    with mdring.attach("kept", directory=directory, books=SYMBOLS, kinds=[Kind.TRADE]) as tape:
        assert tape.books is not None
        assert len(tape.books) == 2
        for batch, _ in zip(tape, range(20), strict=False):
            assert (batch["kind"] == Kind.TRADE).all()
            assert batch["flags"][-1] & Flags.LAST
            for symbol in SYMBOLS:
                book = tape.book(symbol)
                assert book.valid
                assert 0 < book.best_bid[0] < book.best_ask[0]
        with pytest.raises(KeyError):
            tape.book("binance:SOL-USDT")


def test_a_lapped_consumer_counts_its_loss_and_has_whole_books_again(directory: Path) -> None:
    with (
        mdring.attach("kept", directory=directory, books=True) as slow,
        mdring.attach("kept", directory=directory, books=True) as fast,
    ):
        assert slow.books is not None
        assert fast.books is not None
        until_valid(slow)
        btc = slow.book(SYMBOLS[0])
        before = slow.position
        while slow.lag < 70_000:  # more than the tape has
            fast.wait(10)
            fast.poll()
        received = 0
        while slow.position < fast.position:
            received += len(slow.poll())
        assert slow.lost > 0
        assert received + slow.lost == slow.position - before
        while fast.position < slow.position:
            fast.wait(10)
            fast.poll(max_records=1)
        while slow.position < fast.position:
            slow.wait(10)
            slow.poll(max_records=1)
        assert content(slow.books) == content(fast.books)
        assert btc.valid


@pytest.mark.parametrize("delivery", ["conflated", "sampled"])
def test_conflated_books_equal_those_of_every_record(directory: Path, delivery: mdring.Delivery) -> None:
    with mdring.attach("kept", directory=directory, books=True, delivery=delivery, interval_s=0.05) as tape:
        assert tape.books is not None
        mirror = BookSet()
        for instrument_id in tape.books:
            mirror.load(instrument_id, *tape.books[instrument_id].snapshot())
        arrivals = []
        for batch, _ in zip(tape, range(10), strict=False):
            arrivals.append(time.monotonic())
            mirror.apply(batch)
            assert content(mirror) == content(tape.books)
            assert set(np.unique(batch["instrument_id"][batch["kind"] == Kind.LEVEL])) <= set(tape.changed_books)
        if delivery == "sampled":
            assert arrivals[-1] - arrivals[0] >= 9 * 0.05 - 0.01


def test_on_book_sees_the_book_after_each_event_group(directory: Path) -> None:
    class Tops(mdring.Strategy):
        changes = 0
        last_seq = 0

        def on_start(self) -> None:
            self.joined = self.tape.position

        def on_trade(self, trade: mdring.Trade) -> None:
            assert trade.seq > self.last_seq
            self.last_seq = trade.seq

        def on_book(self, book: mdring.Book) -> None:
            assert book.seq > self.last_seq
            assert book.seq > self.joined
            self.last_seq = book.seq
            self.changes += 1
            if self.changes == 200:
                self.stop()

    strategy = Tops()
    mdring.run(strategy, "kept", directory=directory, instruments=SYMBOLS)
    assert strategy.changes == 200


def test_async_for_delivers_without_a_busy_loop(directory: Path) -> None:
    async def count(minimum: int) -> tuple[int, int]:
        seqs: list[int] = []
        with mdring.attach("kept", directory=directory) as tape:
            async for batch in tape:
                seqs += batch["seq"].tolist()
                if len(seqs) >= minimum:
                    break
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        return len(seqs), seqs[0]

    async def both() -> list[tuple[int, int]]:
        return await asyncio.gather(count(2000), count(3000))

    results = asyncio.run(both())
    assert [length >= minimum for (length, _), minimum in zip(results, (2000, 3000), strict=True)] == [True, True]


def test_an_idle_async_consumer_uses_no_cpu(directory: Path) -> None:
    async def idle() -> float:
        with mdring.attach("kept", directory=directory, kinds=[Kind.CLEAR]) as tape:
            os.kill(sequencer := sequencer_pid(tape), signal.SIGSTOP)
            try:
                waiting = asyncio.ensure_future(anext(aiter(tape)))
                before = time.process_time()
                await asyncio.sleep(2)
                used = time.process_time() - before
                waiting.cancel()
            finally:
                os.kill(sequencer, signal.SIGCONT)
            return used

    assert asyncio.run(idle()) < 0.2


def sequencer_pid(tape: mdring.Consumer) -> int:
    from mdring.counters import Counter, Counters
    from mdring.run_folder import find_run

    folder = find_run(tape.name, Path(tape._folder.path.parent))
    return Counters.attach(folder.counters("sequencer")).load(Counter.PID)
