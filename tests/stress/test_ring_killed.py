"""The ring's writer, killed by SIGKILL at random moments under load, and its successors.

Readers go on all the time. They must see no torn record, no ghost, none twice; the seq goes on by exactly 1; and a
reader that the writers wait for must get every record of every one of them.
"""

from __future__ import annotations

import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from mdring.record import RECORD, Kind
from mdring.ring._ring import Words
from mdring.ring.segment import HEADER_SIZE, RunState, Segment, is_locked
from tests.runs import create_ring
from tests.stress.processes import Children, ended_well
from tests.stress.ring_load import ReaderPlan, Scoreboard, Wanted, publish_until, read_until_closed

SLOTS = 8192  # large batches: more of the writer's time is spent amid one
SOME = Wanted(frozenset({Kind.BBO, Kind.CLEAR, Kind.STATUS}), frozenset({1, 2, 5, 6}))
PLANS = [ReaderPlan(idle="block", room=SLOTS), ReaderPlan(idle="backoff", room=1000, wanted=SOME)]
KILLS = pytest.mark.parametrize(
    "kills",
    [
        pytest.param(100, id="quick"),
        pytest.param(2000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)


def wait_until_it_publishes(ring: Segment, writer: BaseProcess, scoreboard: Scoreboard, epoch: int) -> None:
    # The cursor alone does not tell: to resume may move it, too.
    while not 0 < scoreboard.begin_of(epoch) <= ring.cursor:
        assert writer.is_alive(), f"the writer ended with {writer.exitcode}"
        time.sleep(0.0005)


def wait_for_half_a_batch(ring: Segment, slots: Words, timeout_s: float) -> None:
    """Until the second record of a batch that is not published stands in its slot."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        second = ring.cursor + 2
        if slots.load(second % ring.slot_count * (RECORD.itemsize // 8)) == second:
            return


def died_amid_a_batch(ring: Segment) -> bool:
    """Whether records stand in the slots that have not been published."""
    slots = np.frombuffer(ring.mapping, dtype=RECORD, count=ring.slot_count, offset=HEADER_SIZE)
    return bool((slots["seq"] > ring.cursor).any())


def kill_writers(
    path: Path, ring: Segment, scoreboard: Scoreboard, children: Children, kills: int, *, lossless: bool
) -> int:
    """Start a writer and kill it, again and again; returns how many died amid a batch."""
    generator = random.Random(kills)
    slots = Words(ring.mapping, HEADER_SIZE, ring.slot_count * RECORD.itemsize // 8)
    amid = 0
    for epoch in range(1, kills + 1):
        writer = children.start(
            publish_until, path, None, scoreboard, lossless=lossless, max_batch=SLOTS // 2, pause=0.0
        )
        wait_until_it_publishes(ring, writer, scoreboard, epoch)
        if epoch % 2:  # at random, or well aimed
            time.sleep(generator.uniform(0, 0.01))
        else:
            wait_for_half_a_batch(ring, slots, timeout_s=0.1)
        writer.kill()
        writer.join()
        assert ring.epoch == epoch
        assert not is_locked(path), "the dead writer's lock is still held"
        amid += died_amid_a_batch(ring)
    return amid


@KILLS
@pytest.mark.parametrize("lossless", [False, True], ids=["lapping", "lossless"])
def test_writer_killed_and_restarted__readers_see_no_ghost_and_seq_goes_on(
    run_folder: Path, kills: int, lossless: bool
) -> None:
    path = run_folder / "ring"
    scoreboard = Scoreboard(len(PLANS))
    with create_ring(path, SLOTS) as ring, Children() as children:
        readers = [
            children.start(read_until_closed, path, number, plan, scoreboard) for number, plan in enumerate(PLANS)
        ]
        amid = kill_writers(path, ring, scoreboard, children, kills, lossless=lossless)
        published = ring.cursor + SLOTS
        ended_well(children.start(publish_until, path, published, scoreboard, lossless=lossless, max_batch=SLOTS // 2))
        ring.end(RunState.CLOSED)
        ended_well(*readers)
        assert ring.cursor == published
    begins = [scoreboard.begin_of(epoch) for epoch in range(1, kills + 2)]
    assert begins == sorted(set(begins)), "a writer did not go on after its predecessor"
    assert amid > 0, "no writer died amid a batch: this run has proved little"
    if lossless:
        results = [scoreboard.result(number) for number in range(len(PLANS))]
        assert all(result["lost"] == 0 for result in results)
        assert results[0]["received"] == published
