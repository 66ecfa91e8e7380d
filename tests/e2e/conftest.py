"""What the end-to-end proofs share: a folder for one system, and the look at what it leaves behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory(run_folder: Path) -> Iterator[Path]:
    """A folder in shared memory for one system. At the end of the test nothing of its runs may be left."""
    yield run_folder
    assert_no_run_is_left(run_folder)


@pytest.fixture(scope="module")
def module_directory(session_folder: Path) -> Iterator[Path]:
    """The same for a system that several tests share."""
    directory = session_folder / "module"
    directory.mkdir()
    try:
        yield directory
        assert_no_run_is_left(directory)
    finally:
        shutil.rmtree(directory)


def assert_no_run_is_left(directory: Path) -> None:
    """A run that ended in order takes all of its files along."""
    left = sorted(str(path) for path in (directory / "runs").rglob("*"))
    assert not left, f"the runs of this test left: {left}"
