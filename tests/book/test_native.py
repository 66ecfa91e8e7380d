"""The C of the books under sanitizers: memory errors, undefined behaviour, leaks, and the promises of its headers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HEADERS = HERE.parents[1] / "mdring" / "book"
SANITIZED = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]


def compiled(name: str, folder: Path, *options: str) -> Path:
    """The harness ``name`` as a program. Skips where there is no compiler with sanitizers."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("NOT RUN: no C compiler")
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    if subprocess.run([compiler, *SANITIZED, probe, "-o", folder / "probe"], capture_output=True).returncode:
        pytest.skip("NOT RUN: this compiler has no sanitizers")
    program = folder / name
    source = HERE / f"{name}.c"
    command = [compiler, *SANITIZED, *WARNINGS, *options, f"-I{HEADERS}", str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def run(program: Path, *arguments: int) -> None:
    """Run a harness; what it found is the test's failure."""
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("leaf_levels", [4, 8, 64])
def test_a_side_keeps_its_promises_through_any_changes(leaf_levels: int, tmp_path: Path) -> None:
    program = compiled("side_harness", tmp_path, f"-DMDRING_LEAF_LEVELS={leaf_levels}")
    for seed, depth in enumerate([1, 3, 100, 1000], 1):
        run(program, seed, 50_000, depth)


@pytest.mark.parametrize("leaf_levels", [4, 64])
def test_books_survive_any_records(leaf_levels: int, tmp_path: Path) -> None:
    program = compiled("books_harness", tmp_path, f"-DMDRING_LEAF_LEVELS={leaf_levels}")
    for seed in range(1, 4):
        run(program, seed, 1000)
