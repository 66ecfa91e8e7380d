"""SIGKILL of sequencer and worker at random moments under load: promises 1, 2, 3, 5 and 7, held against the wire.

Every record that a consumer sees is judged as it comes (``stream.py``); what the worker wrote into its venue ring is
compared with the tape, record by record; and in the end the tape with all that the emulator says it sent.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

import mdring
from mdring.counters import Counter
from mdring.record import Kind, Reason, State
from tests.e2e.recorder import assert_same_records
from tests.e2e.stream import of_kind
from tests.e2e.system import WATCHDOG_S, System, of_venue

KILLS = [
    pytest.param(50, id="50"),
    pytest.param(2_000, id="2000", marks=[pytest.mark.long, pytest.mark.timeout(7_200)]),
]


@pytest.mark.parametrize("kills", KILLS)
def test_sequencer_killed__all_that_was_sent_is_on_the_tape_once(directory: Path, kills: int) -> None:
    moments = random.Random(1)
    with System(directory, rate=1_000) as system:
        system.start().wait_until_up()
        with system.recorder() as tape, system.ring_recorder("alpha") as ring:
            pids = set()
            for _ in range(kills):
                time.sleep(moments.uniform(0.0, 0.4))  # from its first instruction to well at work
                pid = system.kill("sequencer")
                system.wait_until_gone("sequencer", pid)
                pids.add(pid)
                tape.raise_error()
            system.settle(tape)
            records = system.audit(tape, complete=True)
            assert len(pids) == kills
            assert system.counter("supervisor", Counter.RESTARTS) == kills
            assert system.counter("worker-alpha", Counter.STARTS) == 1
            assert system.stop() == 0
            tape.join()
        assert_same_records(ring.records(), tape.records())
    assert tape.ended is None
    clears = records[(records["kind"] == Kind.CLEAR) & (records["channel_seq"] > 1)]
    assert not len(clears), "a restart of the sequencer has cleared a book"


@pytest.mark.parametrize("kills", KILLS)
def test_worker_killed__books_heal_and_no_record_is_lost_untold_or_doubled(directory: Path, kills: int) -> None:
    moments = random.Random(2)
    with System(directory, rate=1_000) as system:
        system.start().wait_until_up()
        with system.recorder() as tape, system.ring_recorder("alpha") as ring:
            pids = set()
            for number in range(kills):
                if number % 2:
                    system.wait_until_synced()
                    time.sleep(moments.uniform(0.0, 0.15))
                else:
                    time.sleep(moments.uniform(0.0, 0.6))
                pid = system.kill("worker-alpha")
                system.wait_until_gone("worker-alpha", pid)
                pids.add(pid)
                tape.raise_error()
            system.wait_until_synced()
            system.settle(tape)
            records = system.audit(tape)
            assert len(pids) == kills
            assert system.counter("supervisor", Counter.RESTARTS) == kills
            assert system.counter("sequencer", Counter.STARTS) == 1
            assert system.stop() == 0
            tape.join()
        assert_same_records(ring.records(), of_venue(tape.records(), 1))
    statuses = of_kind(records, Kind.STATUS)
    farewells = (statuses["state"] == State.DISCONNECTED) & (statuses["reason"] == Reason.WORKER_RESTART)
    assert farewells.sum() >= kills // 2, "the stream was not told of the deaths"


@pytest.mark.parametrize(
    "kills",
    [pytest.param(15, id="15"), pytest.param(1_000, id="1000", marks=[pytest.mark.long, pytest.mark.timeout(7_200)])],
)
def test_book_keeper_killed__late_joiners_get_the_true_books_all_the_same(directory: Path, kills: int) -> None:
    moments = random.Random(4)
    with System(directory, rate=1_000) as system:
        system.start().wait_until_up()
        with system.recorder() as tape:
            instruments = tape.instruments("alpha")
            for _ in range(kills):
                time.sleep(moments.uniform(0.0, 0.4))
                system.wait_until_gone("books", system.kill("books"))
                with mdring.attach(system.name, directory=system.runs, books=True, wait_s=WATCHDOG_S) as late:
                    assert late.books is not None
                    joined = late.position
                    assert all(late.books[row.id].seq <= joined for row in instruments)
            system.settle(tape)
            system.audit(tape, complete=True)
            with mdring.attach(system.name, directory=system.runs, books=True, wait_s=WATCHDOG_S) as late:
                assert late.books is not None
                assert late.position == tape.last_seq
                for instrument in instruments:
                    book, ours = late.books[instrument.id], tape.book(instrument)
                    assert book.valid
                    assert (book.bids() == ours.bids).all() and (book.asks() == ours.asks).all()
            assert system.counter("supervisor", Counter.RESTARTS) == kills
            assert system.stop() == 0
