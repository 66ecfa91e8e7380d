"""What the hot operations cost in instructions: counted by callgrind, so the same on a busy machine as on an idle one.

The recorded values stand in ``instruction_counts.json``, by kind of processor and version of Python, for both change
what is executed. After a change that is meant to cost (or to save), take over what was counted::

    MDRING_RECORD_COUNTS=1 .venv/bin/python -m pytest tests/benchmarks/test_instruction_counts.py
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

RECORDED: Final = Path(__file__).with_name("instruction_counts.json")
MARGIN: Final = 0.15
"""Compilers and patch versions of Python differ by less; a regression worth a look is larger."""

HERE: Final = f"{platform.machine()}, Python {sys.version_info.major}.{sys.version_info.minor}"
ROOT: Final = Path(__file__).parents[2]


def _recorded() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(RECORDED.read_text())
    return found


OPERATIONS: Final = list(next(iter(_recorded().values())))


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Instructions of each operation, as executed here."""
    folder = tmp_path_factory.mktemp("callgrind")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if shutil.which("valgrind") is None or compiler is None:
        pytest.skip("INSTRUCTIONS ARE NOT COUNTED: valgrind or a C compiler is missing (Debian: valgrind, gcc)")
    library = folder / "toggle.so"
    source = Path(__file__).with_name("toggle.c")
    built = subprocess.run([compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], capture_output=True)
    if built.returncode:
        pytest.skip("INSTRUCTIONS ARE NOT COUNTED: valgrind's headers are missing")
    done = subprocess.run(
        ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/count",
         sys.executable, "-P", "-m", "tests.benchmarks.counted_operations", str(library)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    names = [json.loads(line) for line in done.stdout.splitlines()]
    counts = {}
    for number, operation in enumerate(names):
        once, twice = (_total(folder / f"count.{2 * number + part}") for part in (1, 2))
        counts[operation["name"]] = round((twice - once) / operation["times"])
    if "MDRING_RECORD_COUNTS" in os.environ:
        RECORDED.write_text(json.dumps({**_recorded(), HERE: counts}, indent=2) + "\n")
    return counts


def _total(file: Path) -> int:
    (line,) = (line for line in file.read_text().splitlines() if line.startswith("totals:"))
    return int(line.split()[1])


def test_every_operation_is_counted(counted: dict[str, int]) -> None:
    assert list(counted) == OPERATIONS
    assert all(count > 0 for count in counted.values()), counted


@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_takes_no_more_instructions_than_recorded(operation: str, counted: dict[str, int]) -> None:
    if HERE not in _recorded():
        pytest.skip(f"NO COUNTS ARE RECORDED for {HERE}; there are: {', '.join(_recorded())}")
    recorded = _recorded()[HERE][operation]
    assert counted[operation] <= recorded * (1 + MARGIN), f"{counted[operation]} instructions, recorded are {recorded}"
