"""However many consumers wait for the tape, the sequencer makes one system call per batch to wake them.

Counted in the sequencer's own process (``futex_counter.c`` takes the place of libc's ``syscall``), with consumers that
really sleep: the kernel tells each call how many it woke. What such a call costs is measured by ``bin/bench fanout``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mdring.config import Config, VenueConfig, to_json
from mdring.ring.segment import RunState
from tests.runs import TestRun, open_writer, records, temporary_run
from tests.stress.native import HEADERS, tool
from tests.supervised import wait_until

FULL_WAKES = 30
"""Batches that found every consumer asleep."""

# Consumers in forked processes, for twenty interpreters start slowly.
CONSUMERS = """
import os, sys, mdring
pids = []
for _ in range(int(sys.argv[2])):
    pids.append(os.fork())
    if pids[-1] == 0:
        with mdring.attach("test", directory=sys.argv[1], start="oldest", idle="block") as tape:
            received = sum(len(batch) for batch in tape)
            os._exit((received, tape.lost) != (tape.position, 0))
print(*pids, flush=True)
sys.exit(any(os.waitpid(pid, 0)[1] for pid in pids))
"""


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to preload."""
    library = tmp_path_factory.mktemp("futex") / "futex_counter.so"
    source = Path(__file__).with_name("futex_counter.c")
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{HEADERS}"]
    built = subprocess.run([tool("gcc"), *flags, source, "-o", library, "-ldl"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return library


@contextmanager
def counted_sequencer(run: TestRun, counter: Path, counts: Path) -> Iterator[None]:
    """The real process."""
    config = Config(venues=tuple(VenueConfig(id=venue, adapter="binance") for venue in run.venue_ids))
    run.folder.config.write_bytes(to_json(config))
    counts.write_bytes(bytes(16))
    process = subprocess.Popen(
        [sys.executable, "-m", "mdring.sequencer", "--run-folder", run.folder.path],
        env=os.environ | {"LD_PRELOAD": str(counter), "MDRING_FUTEX_COUNTS": str(counts)},
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
        process.terminate()
        assert process.wait(60) == 0
    finally:
        process.kill()


@contextmanager
def sleeping_consumers(run: TestRun, count: int) -> Iterator[list[int]]:
    """Pids of consumers that follow the tape until the run ends, and then have received every record."""
    command = [sys.executable, "-c", CONSUMERS, str(run.folder.path.parent), str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pids: list[int] = []
    try:
        assert process.stdout is not None
        pids += map(int, process.stdout.readline().split())
        yield pids
        run.tape.end(RunState.CLOSED)
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            for pid in (*pids, process.pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def state_of(pid: int) -> str:
    """As ps shows it: S sleeps, T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.parametrize(("consumers", "stopped"), [(0, 0), (1, 0), (20, 0), (20, 5)])
def test_a_batch_costs_one_system_call_whoever_waits(
    consumers: int, stopped: int, counter: Path, tmp_path: Path
) -> None:
    counts = tmp_path / "counts"
    published = full_wakes = 0

    def calls_and_woken() -> tuple[int, int]:
        calls, woken = np.fromfile(counts, dtype=np.uint64).tolist()
        return calls, woken

    def is_told(batches: int) -> bool:
        return calls_and_woken()[0] >= batches

    with temporary_run(tape_slots=1 << 14) as run:
        with counted_sequencer(run, counter, counts), sleeping_consumers(run, consumers) as pids:
            writer = open_writer(run.rings["alpha"])
            while full_wakes < FULL_WAKES:
                assert published < run.tape.slot_count, "the consumers never sleep all at once"
                wait_until(lambda: all(state_of(pid) in "ST" for pid in pids), "the consumers sleep")
                _, before = calls_and_woken()
                writer.publish(records(1, venue_id=1))
                writer.wake()
                published += 1
                wait_until(partial(is_told, published), "the batch is told")
                calls, woken = calls_and_woken()
                assert calls == published
                assert woken - before <= consumers
                if woken - before == consumers - (stopped if full_wakes else 0):
                    full_wakes += 1
                if full_wakes == 1:
                    for pid in pids[:stopped]:
                        os.kill(pid, signal.SIGSTOP)
            for pid in pids[:stopped]:
                assert state_of(pid) == "T"
                os.kill(pid, signal.SIGCONT)
        assert calls_and_woken()[0] == published
