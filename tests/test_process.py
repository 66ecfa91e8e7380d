"""How long a thread's turns of the processor are: what waits on the way of a frame takes short ones."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mdring
from mdring.process import short_turns, turn_ns
from mdring.ring.segment import RunState
from tests.e2e.system import System
from tests.runs import temporary_run

SHORT_NS = 100_000

pytestmark = pytest.mark.skipif(turn_ns() is None, reason="this kernel has turns of one length")


def test_turns_are_short_within_the_block_and_then_as_they_were_before() -> None:
    before = turn_ns()
    with short_turns():
        assert turn_ns() == SHORT_NS
    assert turn_ns() == before != SHORT_NS


def test_a_thread_with_another_scheduling_policy_is_left_alone() -> None:
    def policy_within() -> int:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        with short_turns():
            return os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(policy_within).result() == os.SCHED_BATCH


def test_a_strategy_takes_short_turns_as_long_as_it_is_driven() -> None:
    class Looking(mdring.Strategy):
        found: int | None = None

        def on_start(self) -> None:
            self.found = turn_ns()

    strategy, before = Looking(), turn_ns()
    with temporary_run() as run:
        run.tape.end(RunState.CLOSED)
        mdring.run(strategy, "test", directory=run.folder.path.parent)
    assert strategy.found == SHORT_NS
    assert turn_ns() == before


def test_worker_and_sequencer_take_short_turns_and_the_keeper_of_the_books_usual_ones(run_folder: Path) -> None:
    with System(run_folder, rate=0) as system:
        system.start().wait_until_up()
        turns = {name: turn_ns(system.pid(name) or 0) for name in ("worker-alpha", "sequencer", "books")}
        assert system.stop() == 0
    assert turns == {"worker-alpha": SHORT_NS, "sequencer": SHORT_NS, "books": turn_ns()}
