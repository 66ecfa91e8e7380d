"""What all tests share: the ``--long`` option, folders for segments, and a look at what the tests leave behind.

Segments lie in ``/dev/shm/mdring-tests-<pid>/``, one folder per test, removed after it. At the end of the session
nothing that appeared during it may be left in shared memory, but for what other living processes have mapped.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mdring.run_folder import RUNS_DIRECTORY, rest_budgets

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "mdring-tests-"
OWNER = re.compile(r"mdring-(?:tests|test|bench)-(\d+)(?:-|$)")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long versions of the proofs (hours)")


def pytest_configure() -> None:
    """Ctrl-C must reach what the tests start, too, when a shell has started them in the background, ignoring it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="the long version of a proof: needs --long")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _remove_folders_of_dead_sessions() -> None:
    for folder in SHARED_MEMORY.glob("mdring-*"):
        owner = OWNER.match(folder.name)
        if owner is not None and not _is_alive(int(owner[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _is_of_another_process(name: str) -> bool:
    """Whether a folder is named for a process that is not this one: of a session or a bench beside this one."""
    owner = OWNER.match(name)
    return owner is not None and int(owner[1]) != os.getpid()


def _folders() -> set[Path]:
    """The folders of all runs and tests in shared memory, but for those of other sessions, and for REST budgets."""
    found = {*SHARED_MEMORY.glob("mdring-*"), *RUNS_DIRECTORY.glob("*")}
    return {
        path
        for path in found
        if not path.name.startswith(PREFIX)
        and not _is_of_another_process(path.name)
        and path != rest_budgets(path.with_suffix(""))
    }


def _mapped_files() -> str:
    """What living processes have mapped (those that may be looked at)."""
    maps = []
    for process in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            maps.append(process.read_text())
    return "\n".join(maps)


def _abandoned_since(before: set[Path]) -> set[Path]:
    """Folders that have appeared and that no living process has mapped, neither now nor a few seconds later."""
    abandoned = _folders() - before
    for _ in range(10):  # another session's process may just be starting, or ending
        mapped = _mapped_files()
        abandoned = {path for path in abandoned if f"{path}/" not in mapped and path.exists()}
        if not abandoned:
            break
        time.sleep(0.5)
    return abandoned


@pytest.fixture(scope="session", autouse=True)
def session_folder() -> Iterator[Path]:
    """The session's folder in ``/dev/shm``; its teardown fails if the tests left anything of theirs behind."""
    _remove_folders_of_dead_sessions()
    before = _folders()
    folder = SHARED_MEMORY / f"{PREFIX}{os.getpid()}"
    folder.mkdir()
    yield folder
    left = set(folder.iterdir())
    shutil.rmtree(folder)
    assert not left | _abandoned_since(before), "the tests left this in shared memory"


@pytest.fixture
def run_folder(session_folder: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty folder in ``/dev/shm`` for the segments of one test, removed with all its files after the test."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:60]
    folder = session_folder / name
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
    shutil.rmtree(rest_budgets(folder), ignore_errors=True)  # they outlive the runs
