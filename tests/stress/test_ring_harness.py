"""The real ``ring.h`` between threads (``ring_harness.c``): natively, under sanitizers, and on aarch64.

ThreadSanitizer sees every racing access that is not atomic (it does not model fences, which the native build and
the model cover). qemu runs aarch64's instructions, so it proves that build, but a processor may reorder more.
"""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.stress.native import Mutation, build, run, tool

LONG = pytest.param(True, id="long", marks=[pytest.mark.long, pytest.mark.timeout(7200)])
QUICK_OR_LONG = pytest.mark.parametrize("long", [pytest.param(False, id="quick"), LONG])
MODE = pytest.mark.parametrize("mode", ["lapping", "lossless"])
SLOTS = 64


class Build(NamedTuple):
    """How a harness is made and run, and how many records it takes in the quick and in the long run."""

    flags: tuple[str, ...]
    quick: int
    long: int
    compiler: str = "gcc"
    runner: str | None = None


BUILDS = {
    "native": Build(("-O3",), 300_000, 200_000_000),
    "thread sanitizer": Build(("-O1", "-g", "-fsanitize=thread", "-Wno-tsan"), 60_000, 50_000_000),
    "address and undefined behaviour sanitizers": Build(
        ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"), 100_000, 100_000_000
    ),
    "aarch64": Build(("-O3", "-static"), 100_000, 100_000_000, "aarch64-linux-gnu-gcc", "qemu-aarch64"),
}
TSAN = BUILDS["thread sanitizer"]


def build_harness(folder: Path, how: Build, *flags: str, mutation: Mutation | None = None) -> Path:
    return build(folder, "ring_harness", [*how.flags, *flags], compiler=how.compiler, mutation=mutation)


def run_harness(program: Path, how: Build, mode: str, records: int, seed: int = 1) -> subprocess.CompletedProcess[str]:
    return run_program(how, program, mode, str(records), "4", str(SLOTS), str(seed))


def run_program(how: Build, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run what was built so."""
    ended = run(tool(how.runner), *command) if how.runner else run(*command)
    if "unexpected memory mapping" in ended.stderr:  # ThreadSanitizer where addresses are very random
        ended = run(tool("setarch"), platform.machine(), "--addr-no-randomize", *command)
    return ended


def build_and_run(folder: Path, harness: str, how: Build, *words: str) -> subprocess.CompletedProcess[str]:
    """Of a harness as it is, without a mutation. Skips where what runs it is missing, before anything is built."""
    if how.runner:
        tool(how.runner)
    return run_program(how, build(folder, harness, how.flags, compiler=how.compiler), *words)


@QUICK_OR_LONG
@MODE
@pytest.mark.parametrize("name", BUILDS)
def test_readers_beside_a_dying_writer__groups_or_exact_loss__never_torn_nor_ghost(
    tmp_path: Path, name: str, mode: str, long: bool
) -> None:
    how = BUILDS[name]
    if how.runner:
        tool(how.runner)
    records = how.long if long else how.quick
    ended = run_harness(build_harness(tmp_path, how), how, mode, records)
    assert (ended.returncode, ended.stderr) == (0, "")
    readers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(readers) == 4
    for reader in readers:
        assert reader["received"] + reader["skipped"] + reader["lost"] == records
        assert reader["received"] > 0
    if mode == "lossless":
        assert all(reader["lost"] == 0 for reader in readers)
    else:
        assert any(reader["laps"] > 0 for reader in readers)
    assert any(reader["parts"] > 0 for reader in readers), "no group was larger than its reader's array"


def test_thread_sanitizer_reports_a_plain_memcpy(tmp_path: Path) -> None:
    # -fno-builtin-memcpy: inlined, the copy would escape ThreadSanitizer's eyes.
    program = build_harness(tmp_path, TSAN, "-DPLAIN_COPY", "-fno-builtin-memcpy", "-Wno-unused-function")
    ended = run_harness(program, TSAN, "lapping", 20_000)
    assert ended.returncode != 0
    assert "WARNING: ThreadSanitizer: data race" in ended.stderr


CONTROLS = {
    "no invalidate": Mutation("ring.h", "    store_relaxed_u64(slot, 0); /* sync: P2 */\n", ""),
    "no validate": Mutation(
        "ring.h", "return load_relaxed_u64(mdring_slot(ring, seq)) == seq;", "return ring && seq > 0;"
    ),
    "no ghost erasing": Mutation(
        "ring.h", "if (load_relaxed_u64(slot) > cursor) store_relaxed_u64(slot, 0);", "(void)slot;"
    ),
    "a resume point amid a group": Mutation(
        "ring.h",
        "if (mdring_validate(ring, before) && flags & ring->last_flag) return",
        "if (mdring_validate(ring, before) && flags < 255) return",
    ),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_leaving_a_step_out_is_noticed_by_the_harness(tmp_path: Path, control: str) -> None:
    native = BUILDS["native"]
    program = build_harness(tmp_path, native, mutation=CONTROLS[control])
    ended = run_harness(program, native, "lapping", 50_000_000)
    assert ended.returncode == 1
    assert ended.stderr.startswith("FORBIDDEN: ")
