"""A run: the folder of segments that one supervisor owns, and the names in it.

Every process of a run finds its segments by these names; nothing else in mdring spells a path::

    folder = RunFolder(Path("/dev/shm/mdring/demo"))
    folder.tape, folder.venue_ring("binance"), folder.counters("sequencer")
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from mdring.ring.segment import is_locked

RUNS_DIRECTORY: Final = Path(os.environ.get("MDRING_DIRECTORY", "/dev/shm/mdring"))
"""Where runs live unless the config, or the environment variable MDRING_DIRECTORY, says otherwise."""


class RunInfo(msgspec.Struct, frozen=True):
    """What ``run.json`` says of a run; written once, when all its segments are there."""

    name: str
    run_id: int  # the supervisor's start in ns since the epoch: tells two runs of one name apart
    supervisor_pid: int
    version: str
    venues: dict[str, int]  # venue -> venue_id
    demo: bool = False


@dataclass(frozen=True)
class RunFolder:
    """The names of a run's files."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def info(self) -> Path:
        """``run.json``, a RunInfo; the last file to appear."""
        return self.path / "run.json"

    @property
    def config(self) -> Path:
        """The resolved configuration, JSON."""
        return self.path / "config.json"

    @property
    def lock(self) -> Path:
        """Locked by the living supervisor."""
        return self.path / "supervisor.lock"

    @property
    def instruments(self) -> Path:
        """The instrument table."""
        return self.path / "instruments"

    @property
    def tape(self) -> Path:
        """The tape."""
        return self.path / "tape"

    @property
    def books(self) -> Path:
        """The book table."""
        return self.path / "books"

    @property
    def checkpoints(self) -> Path:
        """Complete books for late joiners."""
        return self.path / "books.checkpoints"

    def venue_ring(self, venue: str) -> Path:
        """The venue's ring."""
        return self.path / f"ring.{venue}"

    def channels(self, venue: str) -> Path:
        """The last channel_seq of each channel of the venue."""
        return self.path / f"channels.{venue}"

    def counters(self, process: str) -> Path:
        """The counters of ``supervisor``, ``sequencer``, ``books`` or ``worker-<venue>``."""
        return self.path / f"counters.{process}"

    def processes(self) -> list[str]:
        """The processes that have counters."""
        return sorted(path.name.removeprefix("counters.") for path in self.path.glob("counters.*"))

    def alive(self) -> bool:
        """Whether the supervisor of the run lives."""
        return is_locked(self.lock)

    def read_info(self) -> RunInfo:
        """The content of ``run.json``. Raises FileNotFoundError while the run is not up."""
        return msgspec.json.decode(self.info.read_bytes(), type=RunInfo)


def rest_budgets(directory: Path) -> Path:
    """The folder of the REST budgets that all runs of a directory share: beside it, for they outlive the runs."""
    return directory.with_name(f"{directory.name}.budgets")


class RunError(Exception):
    """A run cannot be read; the message says which, why, and what to do."""


class RunNotFound(RunError):
    """There is no such run, or none at all, or more than one and no name was given."""


def list_runs(directory: Path = RUNS_DIRECTORY) -> list[RunFolder]:
    """The runs below a directory whose ``run.json`` is there, living or not, by name."""
    return sorted((RunFolder(info.parent) for info in directory.glob("*/run.json")), key=lambda run: run.name)


def find_run(name: str | None, directory: Path = RUNS_DIRECTORY, wait_s: float = 0.0) -> RunFolder:
    """The run called ``name``, or the only one there is (living ones first). Raises RunNotFound after ``wait_s``."""
    deadline = time.monotonic() + wait_s
    while True:
        runs = [run for run in list_runs(directory) if name is None or run.name == name]
        if len(runs) > 1:
            runs = [run for run in runs if run.alive()] or runs
        if len(runs) == 1:
            return runs[0]
        if runs:
            raise RunNotFound(f"several runs are up: {', '.join(run.name for run in runs)}; name the one you want")
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    others = ", ".join(run.name for run in list_runs(directory)) or "none"
    what = "no run is up" if name is None else f"no run {name!r} is up (up: {others})"
    raise RunNotFound(f"{what} in {directory}; start one, for example with: bin/supervisor --demo")
