"""The source as a whole: lint, types, stubs, size of files, and rules that no tool knows."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mdring import record

ROOT: Final = Path(__file__).parents[1]
RING: Final = ROOT / "mdring" / "ring"
# What is longer is split by role: a venue by its book, its channels, its requests, its metadata.
MAX_LINES: Final = {
    "mdring": 500, "adapters": 520, "adapters/emulators": 500, "tests": 800, "benchmarks": 600, "examples": 100,
}  # fmt: skip
# What stubtest cannot compare: names that Cython adds, and constructors, whose signature Cython does not tell.
ALLOWLIST: Final = r"""
.*\.__pyx_capi__
.*\.__pyx_unpickle_.*
.*\.__pyx_vtable__
.*\.__reduce_cython__
.*\.__setstate_cython__
.*\.__test__
.*\.__init__
"""


def tool(*arguments: str, cwd: Path = ROOT) -> None:
    """Run a Python tool over the repository; AssertionError with what it says if it is not content."""
    ended = subprocess.run([sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def files(*suffixes: str, below: tuple[str, ...] = ("mdring", "adapters", "tests", "benchmarks")) -> Iterator[Path]:
    """The repository's own source files, none that a build has made."""
    for folder in below:
        for path in sorted((ROOT / folder).rglob("*")):
            made_by_cython = path.suffix == ".c" and path.with_suffix(".pyx").exists()
            if path.suffix in suffixes and path.is_file() and not made_by_cython:
                yield path


def test_ruff_finds_nothing() -> None:
    tool("ruff", "check", ".")


def test_the_source_is_formatted() -> None:
    tool("ruff", "format", "--check", ".")


def test_types_are_complete_and_right(tmp_path: Path) -> None:
    # As installed: adapters/ is mdring.adapters, which mypy finds only where it lies in the package.
    package = tmp_path / "mdring"
    package.mkdir()
    for entry in (ROOT / "mdring").iterdir():
        if entry.name != "adapters":
            (package / entry.name).symlink_to(entry)
    (package / "adapters").symlink_to(ROOT / "adapters")
    tool("mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), "-p", "mdring", cwd=tmp_path)


def test_the_stubs_say_what_the_native_modules_have(tmp_path: Path) -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files(".pyx", below=("mdring",))]
    assert "mdring.ring._ring" in modules
    assert [module for module in modules if importlib.util.find_spec(module) is None] == [], "not built"
    allowlist = tmp_path / "allowlist"
    taken_from_record = [f"{re.escape(module)}\\.{name}\n" for module in modules for name in vars(record)]
    allowlist.write_text(ALLOWLIST + "".join(taken_from_record))
    options = ("--allowlist", str(allowlist), "--ignore-unused-allowlist", "--ignore-disjoint-bases")
    tool("mypy.stubtest", *modules, *options)


def most_lines(path: Path) -> int:
    """The ceiling of the innermost folder that has one."""
    return next(MAX_LINES[folder] for parent in path.parents if (folder := parent.as_posix()) in MAX_LINES)


def test_no_file_is_too_long_to_be_read() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in files(".py", ".pyx", ".pxd", ".pyi", ".h", ".c")
        if (lines := len(path.read_text().splitlines())) > most_lines(path.relative_to(ROOT))
    }
    assert not long, "split them by role"


def catches_everything(handler: ast.ExceptHandler) -> bool:
    names = [node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)] if handler.type else []
    return handler.type is None or not {"Exception", "BaseException"}.isdisjoint(names)


def test_only_the_supervisor_catches_whatever_goes_wrong() -> None:
    broad = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files(".py", below=("mdring", "adapters"))
        if path.name != "supervisor.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and catches_everything(node)
        # Cleaning up and raising the same again catches nothing.
        and not (isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None)
    ]
    broad += [
        str(path.relative_to(ROOT))
        for path in files(".pyx", below=("mdring",))
        for indented, block in re.findall(
            r"^( *)except\s*(?::|(?:Base)?Exception)[^\n]*\n((?:\1 +[^\n]*\n)*)", path.read_text(), re.MULTILINE
        )
        if block.split("\n")[-2:] != [f"{indented}    raise", ""]
    ]
    assert not broad, "name the exceptions: anything else is our bug and must end the process"


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in files(".py", below=("mdring", "adapters"))
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not silent


def test_every_header_and_c_file_says_what_it_is() -> None:
    assert [str(path) for path in files(".h", ".c") if not path.read_text().startswith("/* ")] == []


# ---- memory orders ----


def code_of(path: Path) -> str:
    """A C or Cython file without its comments."""
    return re.sub(r"/\*.*?\*/|//[^\n]*|#[^\n]*|\"\"\".*?\"\"\"", "", path.read_text(), flags=re.DOTALL)


def test_only_one_header_spells_memory_orders() -> None:
    spelled = re.compile(r"\b__atomic_|\b__sync_|\b__ATOMIC_|\b_Atomic\b|\bvolatile\b|stdatomic|_mm_[ms]fence|\bdmb\b")
    found = {str(path.relative_to(ROOT)) for path in files(".h", ".c", ".pyx", ".pxd") if spelled.search(code_of(path))}
    assert found == {"mdring/ring/atomics.h"}


def test_every_sync_point_names_a_row_of_the_protocols_table_and_every_row_is_named() -> None:
    table = re.findall(r"^ \*   (P\d)   ", (RING / "ring.h").read_text(), re.MULTILINE)
    assert table == ["P1", "P2", "P3", "P4", "P5", "P6"]
    named: dict[str, set[str]] = {}
    for path in files(".h", ".pyx", ".py", below=("mdring",)):
        for rows in re.findall(r"sync: (P\d(?:, P\d)*)", path.read_text()):
            for row in rows.split(", "):
                named.setdefault(row, set()).add(path.name)
    assert named.keys() == set(table)


def test_a_python_segment_is_never_multiprocessings_shared_memory() -> None:
    found = [
        path.name for path in files(".py", below=("mdring", "adapters")) if "import shared_memory" in path.read_text()
    ]
    assert found == []
