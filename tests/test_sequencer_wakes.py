"""However many consumers sleep, a batch costs the sequencer two wake-ups at most, and none of them delays the others.

With the real processes, and consumers that really sleep: the kernel tells each call how many it woke. ``futex_log.c``
takes the place of libc's ``syscall``: it writes down the sequencer's calls, and stops or kills consumers between being
woken and waking others. What a batch costs in CPU time is measured by ``bin/bench fanout``, every interleaving is tried
in ``stress/test_wake_tree_model.py``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from mdring.config import Config, VenueConfig, to_json
from mdring.ring._ring import Writer
from mdring.ring.segment import RunState
from tests.runs import TestRun, open_writer, records, temporary_run
from tests.stress.native import HEADERS, tool
from tests.supervised import wait_until

LIMIT = 2  # MDRING_WAKE_LIMIT of wait.h
EVERYBODY = 2**31 - 1
FULL_WAKES = 30
"""Batches that found every consumer asleep."""

# Consumers in forked processes, for twenty interpreters start slowly.
CONSUMERS = """
import os, sys, mdring
import numpy as np
pids = []
for number in range(int(sys.argv[2])):
    pids.append(os.fork())
    if pids[-1] == 0:
        positions = np.memmap(sys.argv[3], dtype=np.uint64, mode="r+")
        received = 0
        with mdring.attach("test", directory=sys.argv[1], start="oldest", idle="block") as tape:
            for batch in tape:
                received += len(batch)
                positions[number] = tape.position
            os._exit((received, tape.lost) != (tape.position, 0))
print(*pids, flush=True)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in pids))
"""

# Dies when it has published, and has not yet woken anybody.
PREDECESSOR = """
import os, signal, sys
from pathlib import Path
from mdring.run_folder import RunFolder
from mdring.sequencer import Sequencer
assert Sequencer(RunFolder(Path(sys.argv[1])), {"alpha": 1}).do_work() == 1
os.kill(os.getpid(), signal.SIGKILL)
"""


class Wake(NamedTuple):
    """A FUTEX_WAKE call of the sequencer: how many it might wake, and how many it woke."""

    limit: int
    woken: int


class Consumers(NamedTuple):
    """Processes that follow a tape."""

    pids: list[int]
    positions: npt.NDArray[np.uint64]

    def with_state(self, states: str) -> list[int]:
        """Pids of those in one of these states, as ps shows them: S sleeps, T is stopped, Z and X are dead."""
        return [pid for pid in self.pids if state_of(pid) in states]

    def wait_until_asleep(self, but: int = 0) -> None:
        wait_until(lambda: len(self.with_state("S")) >= len(self.pids) - but, "the consumers sleep")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to preload."""
    library = tmp_path_factory.mktemp("futex") / "futex_log.so"
    source = Path(__file__).with_name("futex_log.c")
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{HEADERS}"]
    built = subprocess.run([tool("gcc"), *flags, source, "-o", library, "-ldl"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return library


@contextmanager
def logged_sequencer(run: TestRun, library: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The real process."""
    config = Config(venues=tuple(VenueConfig(id=venue, adapter="binance") for venue in run.venue_ids))
    run.folder.config.write_bytes(to_json(config))
    log.write_bytes(bytes(1 << 20))
    process = subprocess.Popen(
        [sys.executable, "-m", "mdring.sequencer", "--run-folder", run.folder.path],
        env=os.environ | {"LD_PRELOAD": str(library), "MDRING_FUTEX_LOG": str(log)},
        stderr=subprocess.DEVNULL,
    )
    try:
        # It might have died before it woke those who sleep: it tells all when it begins.
        wait_until(lambda: len(wakes(log)) == 1, "the sequencer has begun")
        assert wakes(log)[0].limit == EVERYBODY
        yield process
    finally:
        process.kill()
        process.wait()


def wakes(log: Path) -> list[Wake]:
    words = np.fromfile(log, dtype=np.uint64).tolist()
    return [Wake(*words[at : at + 2]) for at in range(1, 2 * words[0], 2)]


def is_over(told: list[Wake]) -> bool:
    """Whether the sequencer has nothing more to do for its newest batch than ``told``."""
    return bool(told) and told[-1].woken < told[-1].limit


@contextmanager
def sleeping_consumers(run: TestRun, count: int, positions: Path, **environment: str) -> Iterator[Consumers]:
    """Consumers that follow the tape until they are killed or the run ends."""
    positions.write_bytes(bytes(8 * count + 8))
    command = [sys.executable, "-c", CONSUMERS, str(run.folder.path.parent), str(count), str(positions)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
    pids: list[int] = []
    try:
        assert process.stdout is not None
        pids += map(int, process.stdout.readline().split())
        yield Consumers(pids, np.memmap(positions, dtype=np.uint64, mode="r")[:count])
        if run.tape.state is RunState.CLOSED:
            assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            for pid in (*pids, process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()


def state_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def publish_one(writer: Writer) -> int:
    writer.publish(records(1, venue_id=1))
    writer.wake()
    return writer.cursor


@pytest.mark.parametrize(("count", "stopped"), [(0, 0), (1, 0), (20, 0), (20, 5), (20, 19)])
def test_a_batch_wakes_two_at_most_whoever_sleeps_and_all_get_it(
    count: int, stopped: int, library: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    full_wakes = 0
    with (
        temporary_run(tape_slots=1 << 14) as run,
        logged_sequencer(run, library, log) as sequencer,
        sleeping_consumers(run, count, tmp_path / "positions") as consumers,
    ):
        writer = open_writer(run.rings["alpha"])
        stopped_pids: list[int] = []
        while full_wakes < FULL_WAKES:
            assert writer.cursor < run.tape.slot_count, "the consumers never sleep all at once"
            consumers.wait_until_asleep(but=len(stopped_pids))
            before = len(wakes(log))
            seq = publish_one(writer)

            def has_come(seq: int, running: int) -> bool:
                return int((consumers.positions >= seq).sum()) >= running

            wait_until(partial(has_come, seq, count - len(stopped_pids)), "all have the record")
            wait_until(lambda before=before: is_over(wakes(log)[before:]), "the batch is told")
            told = wakes(log)[before:]
            # A reminder comes only after a call that woke as many as it might; the last one may wake everybody.
            assert [wake.limit for wake in told] in (
                [LIMIT],
                [LIMIT] * 2,
                [LIMIT] * 2 + [EVERYBODY],
                [LIMIT, EVERYBODY],
            )
            assert all(wake.woken == LIMIT for wake in told[:-1])
            # Who is stopped has left the kernel's queue, and takes no wake-up from the others.
            assert sum(wake.woken for wake in told) <= count - len(stopped_pids)
            full_wakes += told[0].woken == min(LIMIT, count - len(stopped_pids))
            if full_wakes == 1 and not stopped_pids:
                stopped_pids = consumers.pids[:stopped]
                for pid in stopped_pids:
                    os.kill(pid, signal.SIGSTOP)
                wait_until(lambda: len(consumers.with_state("T")) == stopped, "they are stopped")
        for pid in stopped_pids:
            os.kill(pid, signal.SIGCONT)
        before = len(wakes(log))
        sequencer.terminate()
        assert sequencer.wait(60) == 0
        assert [wake.limit for wake in wakes(log)[before:]] == [EVERYBODY]
        run.tape.end(RunState.CLOSED)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["stopped", "killed"])
@pytest.mark.parametrize("lost", [1, 2, 3, 4, 5, 19])
def test_consumers_that_end_between_being_woken_and_waking_others_leave_nobody_asleep(
    lost: int, number: signal.Signals, library: Path, tmp_path: Path
) -> None:
    log, signals, count = tmp_path / "log", tmp_path / "signals", 20
    signals.mkdir()
    with (
        temporary_run() as run,
        logged_sequencer(run, library, log),
        # Nothing but a wake-up ends the sleep of these.
        sleeping_consumers(
            run, count, tmp_path / "positions", LD_PRELOAD=str(library), MDRING_FUTEX_SIGNALS=str(signals)
        ) as consumers,
    ):
        writer = open_writer(run.rings["alpha"])
        publish_one(writer)
        wait_until(lambda: bool((consumers.positions == 1).all()), "all have the first record")
        consumers.wait_until_asleep()
        wait_until(lambda: is_over(wakes(log)), "the first record is told")
        before = len(wakes(log))
        for i in range(lost):
            (signals / f"{int(number)}.{i}").touch()
        publish_one(writer)
        wait_until(lambda: len(consumers.with_state("TZX")) == lost, "the first that were woken ended")
        wait_until(lambda: int((consumers.positions == 2).sum()) == count - lost, "all others have the second record")
        assert not list(signals.iterdir())
        wait_until(lambda: is_over(wakes(log)[before:]), "the second record is told")
        told = wakes(log)[before:]
        assert [wake.limit for wake in told if wake.limit != EVERYBODY] in ([LIMIT], [LIMIT] * 2)
        assert len(told) <= 3


@pytest.mark.parametrize("count", [1, 3, 20])
def test_consumers_asleep_when_the_sequencer_is_killed_get_what_it_published_from_its_successor(
    count: int, library: Path, tmp_path: Path
) -> None:
    log, signals = tmp_path / "log", tmp_path / "signals"
    signals.mkdir()
    with (
        temporary_run() as run,
        sleeping_consumers(
            run, count, tmp_path / "positions", LD_PRELOAD=str(library), MDRING_FUTEX_SIGNALS=str(signals)
        ) as consumers,
    ):

        def publish_and_die() -> None:
            publish_one(writer)
            died = subprocess.run([sys.executable, "-c", PREDECESSOR, str(run.folder.path)])
            assert (died.returncode, run.tape.cursor) == (-signal.SIGKILL, writer.cursor)

        def woken_all_have_it() -> bool:
            run.tape.writer_block.wake(0)
            return bool((consumers.positions == 1).all())

        writer = open_writer(run.rings["alpha"])
        publish_and_die()
        wait_until(woken_all_have_it, "all have the first record")
        consumers.wait_until_asleep()
        publish_and_die()
        assert bool((consumers.positions == 1).all())
        with logged_sequencer(run, library, log):
            wait_until(lambda: bool((consumers.positions == 2).all()), "all have the second record")
