"""Consumers come, die, stop and fall behind: the run and the other consumers never notice (promises 1, 3 and 4)."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import mdring
from mdring.counters import Counter
from tests.e2e.consumers import Consumers
from tests.e2e.stream import StreamChecker, digest
from tests.e2e.system import System

CONSUMERS: Final = 20
STEPS: Final = 10_000  # of the market, at once


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(60, id="60"),
        pytest.param(5_000, id="5000", marks=[pytest.mark.long, pytest.mark.timeout(7_200)]),
    ],
)
def test_consumers_killed__the_run_and_the_other_consumers_never_notice(directory: Path, kills: int) -> None:
    choice = random.Random(3)
    with System(directory, rate=1_000) as system:
        system.start().wait_until_up()
        with (
            system.recorder() as tape,
            Consumers(system.runs, system.name, CONSUMERS, directory / "results") as consumers,
        ):
            consumers.wait_until_all_there()
            first = set(consumers.pids())
            killed = set()
            for _ in range(kills):
                time.sleep(choice.uniform(0.0, 0.06))
                killed.add(consumers.kill_one(choice))
            consumers.wait_until_all_there()
            survivors = set(consumers.pids())
            system.settle(tape)
            records = system.audit(tape, complete=True)
            had = consumers.stop()
            assert system.counter("supervisor", Counter.RESTARTS) == 0
            assert system.counter("worker-alpha", Counter.DROPS) == 0
            assert system.stop() == 0
    assert len(killed) == kills
    assert set(had) == survivors and not survivors & killed
    assert first & killed, "none of the first was killed"
    for one in had.values():
        assert (one.wrong, one.lost) == ("", 0)
        if one.first_seq:  # it came before the market stood still
            assert one.last_seq == records["seq"][-1]
            assert one.digest == digest(records[records["seq"] >= one.first_seq]), "it had other records than we"
    assert sum(one.first_seq == 1 for one in had.values()) >= 1


def test_a_consumer_that_stands_still_learns_exactly_what_it_lost_and_hinders_nobody(directory: Path) -> None:
    with System(directory, rate=500, tape_slots=1 << 15, connection={"stale_after_ms": 60_000}) as system:
        system.start().wait_until_up()
        with system.recorder() as tape, mdring.attach(system.name, directory=system.runs, start=1) as idle:
            before = idle.poll().copy()
            while idle.lag <= 1 << 15:
                system.emulators["alpha"].advance(STEPS)
                enough = tape.last_seq + 100
                system.wait_until(lambda enough=enough: tape.last_seq >= enough, "records go on")  # type: ignore[misc]
            system.settle(tape)
            records = system.audit(tape, complete=True)
            batches = [before]
            while idle.lag:  # a poll that finds out that it was lapped gives none: who asks sees ``lost`` first
                batches.append(idle.poll().copy())
            statistics = idle.statistics()
            assert system.stop() == 0
    read = np.concatenate(batches)
    resumed = read["seq"][len(before)]
    assert statistics.laps >= 1
    assert statistics.lost == int(resumed) - int(before["seq"][-1]) - 1
    assert statistics.lost + len(read) == len(records)
    StreamChecker().take(read[len(before) :])
    assert (read == records[np.isin(records["seq"], read["seq"])]).all(), "it read other records than were there"


def test_a_stopped_consumer_goes_on_where_it_was(directory: Path) -> None:
    with System(directory, rate=500) as system:
        system.start().wait_until_up()
        with system.recorder() as tape, Consumers(system.runs, system.name, 2, directory / "results") as consumers:
            consumers.wait_until_all_there()
            stopped = consumers.pids()[0]
            os.kill(stopped, signal.SIGSTOP)
            enough = tape.last_seq + 500
            system.wait_until(lambda: tape.last_seq >= enough, "records go on")
            os.kill(stopped, signal.SIGCONT)
            system.settle(tape)
            records = tape.records()
            had = consumers.stop()[stopped]
            assert system.stop() == 0
    assert (had.wrong, had.lost, had.last_seq) == ("", 0, records["seq"][-1])
    assert had.digest == digest(records[records["seq"] >= had.first_seq])
