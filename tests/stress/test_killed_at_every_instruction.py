"""kill_harness.c over the real headers, and over headers with one line broken: then it must find the damage."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = Path(__file__).with_name("kill_harness.c")
PTRACE_REFUSED = 77

BROKEN = {
    "ghosts_are_not_erased": (
        "publish",
        "ring.h",
        "if (load_relaxed_u64(slot) > cursor) store_relaxed_u64(slot, 0);",
        ";",
    ),
    "a_batch_that_shows_is_not_finished": ("publish", "ring.h", "!= cursor + 1) break;", "!= 0) break;"),
    "the_first_record_shows_first": (
        "publish",
        "ring.h",
        "uint64_t first = cursor + 1;",
        "uint64_t first = cursor + 1; mdring_write_hidden(ring, first, records); mdring_show(ring, first);",
    ),
    "the_intent_comes_after_the_batch": (
        "merge",
        "merge.h",
        "    mdring_store_intent(merge, first, count);\n    mdring_show(&merge->tape, first); /* sync: P3 */",
        "    mdring_show(&merge->tape, first);\n    mdring_store_intent(merge, first, count);",
    ),
    "a_batch_shows_record_by_record": ("merge", "merge.h", "if (seq + i != hidden) mdring_show", "mdring_show"),
    "the_newest_intent_is_always_believed": ("merge", "merge.h", "truth = before;", "(void)before;"),
}


def play(directory: Path, which: str) -> subprocess.CompletedProcess[str]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None
    program = directory / "kill_harness"
    source = directory / "tests" / "stress" / HARNESS.name
    source.parent.mkdir(parents=True)
    shutil.copy(HARNESS, source)
    subprocess.run([compiler, "-O2", "-Wall", str(source), "-o", str(program)], check=True)
    result = subprocess.run([program, which], capture_output=True, text=True, check=False)
    if result.returncode == PTRACE_REFUSED:
        pytest.skip(f"NOT PROVEN HERE: {result.stderr.strip()}")
    return result


def copy_headers(directory: Path) -> Path:
    headers = directory / "mdring" / "ring"
    headers.mkdir(parents=True)
    for header in (ROOT / "mdring" / "ring").glob("*.h"):
        shutil.copy(header, headers)
    return headers


@pytest.mark.parametrize("which", ["publish", "merge"])
def test_killed_after_any_instruction__every_record_once_in_order__never_torn_never_twice(
    which: str, tmp_path: Path
) -> None:
    copy_headers(tmp_path)
    result = play(tmp_path, which)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout.split()[2]) > 50  # different deaths


@pytest.mark.parametrize("name", BROKEN)
def test_the_harness_finds_what_is_broken(name: str, tmp_path: Path) -> None:
    which, header, original, broken = BROKEN[name]
    path = copy_headers(tmp_path) / header
    text = path.read_text()
    assert text.count(original) == 1, "the line that this control breaks has changed"
    path.write_text(text.replace(original, broken))
    result = play(tmp_path, which)
    assert result.returncode != 0
    assert "FORBIDDEN" in result.stderr
