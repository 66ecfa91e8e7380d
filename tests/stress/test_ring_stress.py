"""One writing process and several reading ones on a small ring, through the Python API, every record checked.

Allowed outcomes of a poll: whole groups without a hole, a part of a group that is larger than the array, an exact
loss, nothing. Everything else ends a reader with an AssertionError (``ring_load.py``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mdring.record import Kind
from mdring.ring.segment import RunState
from tests.runs import create_ring
from tests.stress.processes import Children, ended_well
from tests.stress.ring_load import ReaderPlan, Scoreboard, Wanted, publish_until, read_until_closed

SLOTS = 1024
SOME = Wanted(frozenset({Kind.TRADE, Kind.LEVEL}), frozenset({0, 2, 3, 7}))
PLANS = [
    ReaderPlan(idle="block", room=SLOTS),
    ReaderPlan(idle="yield", room=300),
    ReaderPlan(idle="backoff", room=512, wanted=SOME),
    ReaderPlan(idle="spin", room=3, wanted=SOME),
]
QUICK_OR_LONG = pytest.mark.parametrize(
    "records",
    [
        pytest.param(1_000_000, id="quick"),
        pytest.param(200_000_000, id="long", marks=[pytest.mark.long, pytest.mark.timeout(7200)]),
    ],
)


def run(path: Path, records: int, *, lossless: bool) -> list[dict[str, int]]:
    """One writer, a reader per plan; returns what the readers counted."""
    scoreboard = Scoreboard(len(PLANS))
    with create_ring(path, SLOTS) as ring, Children() as children:
        readers = [
            children.start(read_until_closed, path, number, plan, scoreboard) for number, plan in enumerate(PLANS)
        ]
        ended_well(children.start(publish_until, path, records, scoreboard, lossless=lossless, max_batch=SLOTS // 2))
        assert ring.cursor == records
        ring.end(RunState.CLOSED)
        ended_well(*readers)
    return [scoreboard.result(number) for number in range(len(PLANS))]


@QUICK_OR_LONG
def test_lapped_readers_get_whole_groups_and_exact_losses(run_folder: Path, records: int) -> None:
    results = run(run_folder / "ring", records, lossless=False)
    for plan, result in zip(PLANS, results, strict=True):
        assert result["received"] > 0
        if plan.wanted is None:
            assert result["received"] + result["lost"] == records
    assert sum(result["laps"] for result in results) > 0
    assert sum(result["parts"] for result in results) > 0


@QUICK_OR_LONG
def test_readers_that_the_writer_waits_for_lose_nothing(run_folder: Path, records: int) -> None:
    records //= 8
    for plan, result in zip(PLANS, run(run_folder / "ring", records, lossless=True), strict=True):
        assert (result["lost"], result["laps"]) == (0, 0)
        if plan.wanted is None:
            assert result["received"] == records
