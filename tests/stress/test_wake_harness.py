"""The real ``wait.h`` between threads that sleep (``wake_harness.c``): natively, under sanitizers, and on aarch64."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stress.native import Mutation, build, run
from tests.stress.test_ring_harness import BUILDS, QUICK_OR_LONG, build_and_run

READERS = 20
NATIVE = BUILDS["native"]


@QUICK_OR_LONG
@pytest.mark.parametrize("name", BUILDS)
def test_two_are_woken_and_wake_the_others__all_have_it__never_asleep_with_a_record(
    tmp_path: Path, name: str, long: bool
) -> None:
    how = BUILDS[name]
    ended = build_and_run(tmp_path, "wake_harness", how, str(how.long // 1000 if long else 1000), str(READERS))
    assert (ended.returncode, ended.stderr) == (0, "")


CONTROLS = {
    "nothing is passed on": (
        Mutation("wait.h", "if (result == 0) mdring_pass_on(cursor, seen);", "(void)result;"),
        1000,
    ),
    "bits that others contain": (Mutation("wait.h", "return low << 5 | (uint32_t)", "return low << 5; (void)"), 0),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_leaving_a_step_out_is_noticed_by_the_harness(tmp_path: Path, control: str) -> None:
    mutation, records = CONTROLS[control]
    program = build(tmp_path, "wake_harness", [*NATIVE.flags, "-DPATIENCE_S=1"], mutation=mutation)
    ended = run(program, str(records), str(READERS))
    assert ended.returncode == 1
    assert ended.stderr.startswith("FORBIDDEN: ")
