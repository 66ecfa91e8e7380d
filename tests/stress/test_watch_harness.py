"""The real ``watch.h`` between owners that wait for a descriptor (``watch_harness.c``): as ``wait.h`` is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress.native import Mutation, build, run
from tests.stress.test_ring_harness import BUILDS, QUICK_OR_LONG, build_and_run

OWNERS = 6
NATIVE = BUILDS["native"]


@QUICK_OR_LONG
@pytest.mark.parametrize("name", BUILDS)
def test_the_cursor_moves_while_owners_ask_rest_and_give_up__all_are_told__never_asleep_with_news(
    tmp_path: Path, name: str, long: bool
) -> None:
    how = BUILDS[name]
    ended = build_and_run(tmp_path, "watch_harness", how, str(how.long // 1000 if long else 1000), str(OWNERS))
    assert (ended.returncode, ended.stderr) == (0, "")


CONTROLS = {
    "a thread that sleeps on the question is not woken by it": (
        "if (load_acquire_u64(&watch->parked)) mdring_futex_wake_all(&watch->asked);",
        "",
    ),
    "the owner does not look at the cursor again": ("return load_acquire_u64(watch->cursor) == seen;", "return true;"),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_leaving_a_step_out_is_noticed_by_the_harness(tmp_path: Path, control: str) -> None:
    mutation = Mutation("watch.h", *CONTROLS[control])
    program = build(tmp_path, "watch_harness", [*NATIVE.flags, "-DPATIENCE_S=1"], mutation=mutation)
    ended = run(program, "100000", str(OWNERS))
    assert ended.returncode == 1
    assert ended.stderr.startswith("FORBIDDEN: ")
