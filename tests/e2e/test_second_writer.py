"""A second writer, of whatever kind, on a run that is up: refused by the kernel's locks, and nobody is harmed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mdring.counters import Counter
from mdring.record import FINGERPRINT, LAYOUT_VERSION
from mdring.ring import segment
from mdring.ring.segment import AlreadyWritten, SegmentKind
from tests.e2e.recorder import Recorder
from tests.e2e.system import WATCHDOG_S, System


@pytest.fixture(scope="module")
def system(module_directory: Path) -> Iterator[System]:
    """A system under load."""
    with System(module_directory, rate=500) as system:
        system.start().wait_until_up()
        yield system
        assert system.stop() == 0


@pytest.fixture
def tape(system: System) -> Iterator[Recorder]:
    """A consumer; after the test everything must have gone on as if nothing had been tried."""
    with system.recorder() as tape:
        enough = tape.last_seq + 200
        yield tape
        system.wait_until(lambda: tape.last_seq >= enough, "records go on")
        system.wait_until_synced()
        system.settle(tape)
        system.audit(tape, complete=True)
        system.resume()
    assert system.counter("supervisor", Counter.RESTARTS) == 0
    assert [system.counter(process, Counter.STARTS) for process in ("sequencer", "worker-alpha")] == [1, 1]


def _second_sequencer(system: System) -> list[str]:
    folder = str(system.folder.path)
    return [sys.executable, "-P", "-m", "mdring.sequencer", "--run-folder", folder, "--parent", str(os.getpid())]


def _second_worker(system: System) -> list[str]:
    words = ["--run-folder", str(system.folder.path), "--venue", "alpha", "--parent", str(os.getpid())]
    return [sys.executable, "-P", "-m", "mdring.feed.worker", *words]


@pytest.mark.parametrize("command", [_second_sequencer, _second_worker])
def test_a_second_process_of_a_kind_ends_at_once_and_says_why(
    system: System, tape: Recorder, command: Callable[[System], list[str]]
) -> None:
    ours, theirs = socket.socketpair()
    words = command(system)
    if command is _second_worker:
        words += ["--control-fd", str(theirs.fileno())]
    with ours, theirs:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=WATCHDOG_S, pass_fds=[theirs.fileno()])
    assert ended.returncode != 0
    assert "AlreadyWritten" in ended.stderr
    assert "is writing this segment" in ended.stderr


def test_a_second_supervisor_of_the_run_is_refused_in_one_sentence(system: System, tape: Recorder) -> None:
    config = system.directory / "config.toml"
    words = [sys.executable, "-P", "-m", "mdring", "up", "--config", str(config)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=WATCHDOG_S)
    assert ended.returncode == 1
    assert system.process is not None
    assert f"is already up, with supervisor {system.process.pid}" in ended.stderr


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tape", SegmentKind.RING), ("ring.alpha", SegmentKind.RING), ("channels.alpha", SegmentKind.CHANNELS)],
)
def test_the_writers_lock_of_a_segment_is_taken(system: System, tape: Recorder, name: str, kind: SegmentKind) -> None:
    mapped = segment.attach(
        system.folder.path / name, kind, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, writable=True
    )
    with mapped, pytest.raises(AlreadyWritten):
        mapped.lock()
