"""SIGKILL of the supervisor at random moments, from its first instruction to a system under load.

Its children die with it; its consumers learn it, and find the next run by ``reattach``; the next supervisor of that
name clears the stale run away; what consumers had until then is right to the last record. Runs in several lanes at
once, each a system of its own.
"""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import mdring
from tests.e2e.audit import Audit
from tests.e2e.recorder import Recorder
from tests.e2e.system import WATCHDOG_S, System

LANES = 2


@pytest.mark.parametrize(
    "kills",
    [
        pytest.param(26, id="52"),
        pytest.param(500, id="1000", marks=[pytest.mark.long, pytest.mark.timeout(14_400)]),
    ],
)
def test_supervisor_killed__children_die_consumers_learn_it_and_the_next_run_starts_clean(
    run_folder: Path, kills: int
) -> None:
    directories = [run_folder / f"lane-{number}" for number in range(LANES)]
    with ThreadPoolExecutor(LANES) as pool:
        lanes = [pool.submit(_lane, directory, kills, seed) for seed, directory in enumerate(directories)]
        tapes = [lane.result() for lane in lanes]
    for directory, of_lane in zip(directories, tapes, strict=True):
        assert of_lane >= kills // 2, "hardly any run lived long enough to be read"
        assert not (directory / "runs").exists(), "something of the runs is left"


def _lane(directory: Path, kills: int, seed: int) -> int:
    """Kill the supervisors of one system, then let a last one run and end in order; how many runs were read."""
    directory.mkdir()
    moments = random.Random(seed)
    instruments, books = ["BTC-USDT", "ETH-USDT"], bool(seed % 2)
    with System(directory, instruments=instruments, rate=300, tape_slots=1 << 15, books=books) as system:
        tapes: list[Recorder] = []
        orphan: mdring.Consumer | None = None
        for number in range(kills):
            system.start()
            tape = _grow(system, moments, old=number % 2 == 1)
            if orphan is not None and system.is_announced():
                _assert_learns_of_the_replacement(orphan)
                orphan = None
            system.kill_supervisor()
            if tape is not None:
                _assert_learned_of_the_death(tape)
                tapes.append(tape)
                orphan = tape.consumer
        system.start().wait_until_up()
        assert orphan is not None
        _assert_learns_of_the_replacement(orphan)
        with system.recorder() as tape:
            system.settle(tape)
            system.audit(tape)
            sent = system.sent("alpha")
            assert system.stop() == 0
        for killed in tapes:
            Audit(killed.records(), killed.instruments("alpha"), sent).check()
        return len(tapes)


def _grow(system: System, moments: random.Random, *, old: bool) -> Recorder | None:
    """Let the run live for a random time: a short one from its start on, or until it works and a bit longer."""
    if old:
        system.wait_until_up()
        tape = system.recorder()
        tape.start()
        time.sleep(moments.uniform(0.0, 0.3))
        return tape
    time.sleep(moments.uniform(0.0, 0.6))
    return None


def _assert_learned_of_the_death(tape: Recorder) -> None:
    tape.join(WATCHDOG_S)
    tape.raise_error()
    assert tape.ended is not None, "the consumer was not told that the supervisor is dead"
    assert "is dead" in str(tape.ended)


def _assert_learns_of_the_replacement(orphan: mdring.Consumer) -> None:
    """The consumer of a dead run is told that another one is in its place, and can follow that one from its tail."""
    dead = orphan.run.run_id
    with pytest.raises(mdring.RunEnded, match="replaced by another one"):
        orphan.wait()
    orphan.reattach(wait_s=WATCHDOG_S)
    assert orphan.run.run_id > dead
    assert orphan.lost == 0
    assert orphan.ended() is False
