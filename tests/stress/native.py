"""Builds of the C programs beside this file over the ring's real headers, or over a mutant of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCES = Path(__file__).parent
HEADERS = SOURCES.parents[1] / "mdring" / "ring"


@dataclass(frozen=True)
class Mutation:
    """A step of the protocol, as ``header`` spells it, and what stands there instead."""

    header: str
    original: str
    replacement: str


def tool(name: str) -> str:
    """The path of a program that the test needs; skips the test, saying so, where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"NOT PROVEN HERE: there is no {name} on this machine")
    return path


def build(
    folder: Path, program: str, flags: Sequence[str], *, compiler: str = "gcc", mutation: Mutation | None = None
) -> Path:
    """Compile ``program``.c into ``folder``, without a warning; returns the executable."""
    headers = HEADERS
    if mutation is not None:
        headers = folder / "headers"
        shutil.copytree(HEADERS, headers, ignore=shutil.ignore_patterns("[!.]*[!h]"))
        _mutate(headers / mutation.header, mutation)
    executable = folder / program
    command = [tool(compiler), "-std=gnu11", "-Wall", "-Wextra", "-Werror", f"-I{headers}", *flags]
    compiled = subprocess.run(
        [*command, str(SOURCES / f"{program}.c"), "-o", str(executable), "-pthread"], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr
    return executable


def _mutate(header: Path, mutation: Mutation) -> None:
    text = header.read_text()
    assert text.count(mutation.original) == 1, f"{header.name} has no longer exactly one {mutation.original!r}"
    header.write_text(text.replace(mutation.original, mutation.replacement))


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program and capture what it prints."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)
