"""``mdring up --demo`` with the shipped configuration, as a user starts it; and what is left when it ends anyhow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np

import mdring
from mdring.book import BookSet
from mdring.config import load
from mdring.record import STATUS, Kind, Reason
from mdring.run_folder import rest_budgets
from tests.e2e.recorder import Recorder
from tests.e2e.stream import StreamChecker
from tests.e2e.system import WATCHDOG_S, pids_with
from tests.supervised import wait_until

CONFIG: Final = Path(__file__).parents[2] / "config.toml"
INSTRUMENTS: Final = sum(len(venue.subscriptions) for venue in load(CONFIG).enabled_venues)
RUN: Final = "demo"


def any_venue() -> StreamChecker:
    """The rules that hold of every venue."""
    return StreamChecker(venue_counts_trades=False)


@contextmanager
def demo(directory: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo below ``directory``; killed after the block if it still runs."""
    runs, state = directory / "runs", directory / "state"
    words = [sys.executable, "-P", "-m", "mdring", "up", "--demo", "--config", str(CONFIG), *arguments]
    words += ["--set", f'run.directory="{runs}"', "--set", f'run.state_directory="{state}"']
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_demo_streams_every_kind_of_record_of_every_instrument_and_ends_by_itself(directory: Path) -> None:
    with demo(directory, "--duration", "12", "--demo-rate", "1000") as process:
        with Recorder(RUN, directory / "runs", wait_s=WATCHDOG_S, checker=any_venue()) as tape:
            tape.join(WATCHDOG_S)
            records = tape.records()
        assert process.wait(WATCHDOG_S) == 0
    assert tape.ended is None
    seen = set(zip(records["instrument_id"].tolist(), records["kind"].tolist(), strict=True))
    kinds = (Kind.TRADE, Kind.BBO, Kind.LEVEL, Kind.CLEAR)
    assert seen >= {(number, kind) for number in range(1, INSTRUMENTS + 1) for kind in kinds}
    books = BookSet()
    shutdown = (records["kind"] == Kind.STATUS) & (records.view(STATUS)["reason"] == Reason.SHUTDOWN)
    of_shutdown = int(np.flatnonzero(shutdown)[0])  # each connection tells it
    books.apply(records[:of_shutdown])
    assert all(books[number].valid and not books[number].is_crossed for number in range(1, INSTRUMENTS + 1))
    books.apply(records[of_shutdown:])
    assert not any(books[number].valid for number in range(1, INSTRUMENTS + 1)), "a book outlived its worker"
    assert not (directory / "runs").exists() and not rest_budgets(directory / "runs").exists()


def test_a_killed_demo_takes_its_emulator_along_and_the_next_one_clears_away(directory: Path) -> None:
    with demo(directory) as process:
        with Recorder(RUN, directory / "runs", wait_s=WATCHDOG_S, checker=any_venue()) as tape:
            wait_until(lambda: tape.last_seq > 0, "records flow")
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            assert len(children) >= 3, "emulator, sequencer and worker are children of the supervisor"
            process.kill()
            wait_until(lambda: not pids_with(str(directory)), "the children of the run are dead")
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "the emulator is dead")
            tape.join(WATCHDOG_S)
        assert tape.ended is not None and "is dead" in str(tape.ended)
    assert (directory / "runs" / RUN).exists()
    with demo(directory, "--duration", "1") as process:
        assert process.wait(WATCHDOG_S) == 0
    assert not (directory / "runs").exists()
    assert isinstance(tape.ended, mdring.RunEnded)
