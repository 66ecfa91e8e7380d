"""The real ``ring.h``, its reader interrupted by writers before any two of its accesses (``ring_interleave.c``).

Outcomes as in ``test_ring_model.py``, which explores more interleavings, but of a mirror of the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from tests.stress.native import Mutation, build, run

EVERYDAY = {"GROUPS", "NOTHING", "LAPPED", "CAUGHT_UP"}


class Scenario(NamedTuple):
    """What is explored; the plan's letters are explained in ``ring_interleave.c``."""

    slot_count: int
    room: int
    filtered: bool
    switches: int
    plan: str


SCENARIOS = {
    "single records, two laps and a half": (Scenario(2, 4, False, 2, "A,A,A,A,A"), EVERYDAY),
    "groups, and a batch of two groups": (Scenario(4, 4, False, 2, "aA,A,aA,AA,aA"), EVERYDAY),
    "groups larger than the array": (Scenario(4, 1, False, 2, "aA,A,aA,AA,aA"), EVERYDAY | {"PART"}),
    "a resume point above the oldest record": (Scenario(8, 8, False, 2, "AaA,aaaA,aAAA"), EVERYDAY),
    "a filter, groups that just fit": (Scenario(4, 1, True, 2, "B,B,B,aB"), EVERYDAY),
    "a filter, groups larger than the array": (Scenario(4, 1, True, 2, "B,aB,bA,aA,A"), EVERYDAY | {"PART"}),
    "a killed writer, single records over its ghosts": (Scenario(4, 4, False, 1, "A,AA,aA/A,A,A"), EVERYDAY),
    "a killed writer, and a filter": (Scenario(4, 1, True, 1, "A,aB,bA/bA,B"), EVERYDAY),
    "a killed writer, and a resume point above the oldest": (Scenario(8, 8, False, 1, "aaA,aaaA/A,aA"), EVERYDAY),
}


def outcomes_of(program: Path, scenario: Scenario) -> set[str]:
    ended = run(program, *(str(int(part)) if not isinstance(part, str) else part for part in scenario))
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


@pytest.fixture(scope="module")
def interleave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("interleave"), "ring_interleave", ["-O2"])


@pytest.mark.parametrize("name", SCENARIOS)
def test_writer_runs_amid_a_poll__groups_or_exact_loss__never_torn_nor_ghost(interleave: Path, name: str) -> None:
    scenario, outcomes = SCENARIOS[name]
    assert outcomes_of(interleave, scenario) == outcomes


CONTROLS = {
    "no invalidate": (
        Mutation("ring.h", "    store_relaxed_u64(slot, 0); /* sync: P2 */\n", ""),
        Scenario(4, 4, False, 2, "aA,A,aA,AA,aA"),
        "TORN",
    ),
    "no validate": (
        Mutation("ring.h", "return load_relaxed_u64(mdring_slot(ring, seq)) == seq;", "return ring && seq > 0;"),
        Scenario(4, 4, False, 2, "aA,A,aA,AA,aA"),
        "TORN",
    ),
    "no ghost erasing": (
        Mutation("ring.h", "if (load_relaxed_u64(slot) > cursor) store_relaxed_u64(slot, 0);", "(void)slot;"),
        Scenario(4, 4, False, 1, "A,AA,aA/A,A,A"),
        "GHOST",
    ),
    "no second look at word 0 after the cursor": (
        Mutation("ring.h", "return load_acquire_u64(slot) == seq ? MDRING_PRESENT : MDRING_LAPPED;",
                 "return MDRING_LAPPED;"),
        Scenario(2, 4, False, 2, "A,A,A,A,A"),
        "FALSE_LAP",
    ),
    "the first record of a batch shown first": (
        Mutation("ring.h", "    for (uint64_t i = 1; i < count; i++) {",
                 "    mdring_show(ring, first);\n    for (uint64_t i = 1; i < count; i++) {"),
        Scenario(4, 4, False, 1, "A,aA,A"),
        "HALF_GROUP",
    ),
    "a resume point amid a group": (
        Mutation("ring.h", "if (mdring_validate(ring, before) && flags & ring->last_flag) return",
                 "if (mdring_validate(ring, before) && flags < 255) return"),
        Scenario(8, 8, False, 2, "AaA,aaaA,aAAA"),
        "HALF_GROUP",
    ),
    "a poll that ends amid a group": (
        Mutation("ring.h", "looked < ring->slot_count || seq != group_next;", "looked < ring->slot_count;"),
        Scenario(4, 1, True, 2, "B,B,B,aB"),
        "HALF_GROUP",
    ),
    "a record believed to be wanted before it is validated": (
        Mutation("ring.h", "        if (!mdring_validate(ring, seq)) {\n            lapped = true;",
                 "        if (wanted && taken == room) break;\n"
                 "        if (!mdring_validate(ring, seq)) {\n            lapped = true;"),
        Scenario(4, 1, True, 2, "B,aB,bA,aA,A"),
        "HALF_GROUP",
    ),
}  # fmt: skip


@pytest.mark.parametrize("control", CONTROLS)
def test_leaving_a_step_out_shows_the_outcome_that_it_forbids(tmp_path: Path, control: str) -> None:
    mutation, scenario, forbidden = CONTROLS[control]
    program = build(tmp_path, "ring_interleave", ["-O1"], mutation=mutation)
    assert forbidden in outcomes_of(program, scenario)
