"""adapters/README.md: its blocks make a venue in a package of its own, which passes the conformance suite and runs."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from mdring.config import load
from mdring.feed.adapter import adapter_names
from tests.adapters.loopback import Loopback
from tests.runs import temporary_directory

ROOT: Final = Path(__file__).parents[2]
GUIDE: Final = (ROOT / "adapters" / "README.md").read_text()
BLOCKS: Final[list[tuple[str, str]]] = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL)
FILE: Final = re.compile(r"# (\w+\.py)\n")


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


def modules() -> dict[str, str]:
    """The files that the blocks make, those of one file put together."""
    found: dict[str, str] = {}
    for text in blocks("python"):
        named = FILE.match(text)
        if named:
            before, part = found.get(named[1], ""), text[named.end() :]
            found[named[1]] = before + ("\n\n" if part.startswith("class ") else "\n" if before else "") + part
    return found


def tomls() -> tuple[dict[str, Any], str]:
    """The package's pyproject.toml and the configuration."""
    package, configuration = blocks("toml")
    return tomllib.loads(package), configuration


def commands() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that is what ``pip install -e .`` makes of the guide's package."""
    with temporary_directory() as folder:
        for name, text in modules().items():
            (folder / name).write_text(text)
        package, configuration = tomls()
        project = package["project"]
        groups = [
            "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items())])
            for group, points in project["entry-points"].items()
        ]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        (info / "entry_points.txt").write_text("\n".join(groups))
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        )
        (folder / "acme.toml").write_text(configuration)
        yield folder


def execute(folder: Path, *words: str, cwd: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "MDRING_DIRECTORY": str(folder / "runs"),
        "HOME": str(folder),
        "MYPYPATH": str(ROOT),
    }
    ended = subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-10_000:]
    return ended.stdout + ended.stderr


def test_every_block_says_what_it_is() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python", "toml"}
    assert set(modules()) == {"acme.py", "acme_emulator.py"}
    package, _ = tomls()
    assert package["tool"]["setuptools"]["py-modules"] == [name.removesuffix(".py") for name in modules()]


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("pytest")])
def test_the_venue_of_the_guide_passes_the_conformance_suite(folder: Path, command: str) -> None:
    words = command.split()
    assert words[0] == "pytest" and words[-2:] == ["-k", "acme"]
    if "-x" not in words:  # the same tests; once is enough
        return
    said = execute(folder, *words, "-q", "-p", "no:cacheprovider", cwd=ROOT)
    assert int(re.search(r"(\d+) passed", said)[1]) > 50  # type: ignore[index]


@pytest.mark.parametrize("command", [command for command in commands() if command.startswith("mdring")])
def test_the_commands_of_the_guide_succeed(folder: Path, command: str) -> None:
    said = execute(folder, *command.split(), cwd=folder)
    if command == "mdring venues":
        assert "Acme Exchange" in said
    if command.startswith("mdring up"):
        over = next(line for line in map(json.loads, said.splitlines()) if line["message"] == "run is over")
        assert over["records"] > 1000 and over["venues"]["acme"]["rejects"] == 0


def test_every_command_is_executed() -> None:
    assert {command.split()[0] for command in commands()} == {"pytest", "mdring"}


def test_python_blocks_that_are_no_file_run_as_they_stand() -> None:
    alone = [text for text in blocks("python") if not FILE.match(text)]
    assert alone
    for text in alone:
        exec(compile(text, "adapters/README.md", "exec"), {})


def test_code_of_the_guide_is_as_ours(folder: Path) -> None:
    options = ("--config", str(ROOT / "pyproject.toml"))
    execute(folder, "ruff", "check", *options, *modules(), cwd=folder)
    execute(folder, "ruff", "format", "--check", *options, *modules(), cwd=folder)
    execute(folder, "mypy", "--config-file", str(ROOT / "pyproject.toml"), *modules(), cwd=folder)


def test_configuration_of_the_guide_is_strict_about_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(folder))
    config = load(folder / "acme.toml")
    assert config.has_patterns and "acme" in adapter_names()


def rows(columns: int) -> list[list[str]]:
    """The rows of the tables with so many columns, without their heads."""
    lines = [line for line in GUIDE.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if len(row) == columns]


def test_helpers_and_files_that_the_guide_names_are_there() -> None:
    named = [name for row in rows(3) for name in re.findall(r"`(\w+)\.(\w+)`", row[1])]
    assert len(named) >= 7
    for module, name in named:
        assert hasattr(importlib.import_module(f"mdring.feed.{module}"), name)
    files = {name for row in rows(3) for name in re.findall(r"`(\w+\.py)`", row[2])}
    assert files and all((ROOT / "adapters" / name).is_file() for name in files)


SYMBOLS: Final = [row for row in rows(3) if row[0].startswith("`")]


@pytest.mark.parametrize(("adapter", "name", "symbol"), SYMBOLS)
def test_symbols_of_the_guide_are_those_that_the_adapters_make(adapter: str, name: str, symbol: str) -> None:
    assert Loopback(adapter.strip("`")).infos[name].canonical_symbol == symbol
