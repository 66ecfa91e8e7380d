"""Two venues on one tape: whatever befalls one of them never delays the other (promise 9)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import pytest

from mdring.counters import Counter
from mdring.record import Flags, Kind
from tests.e2e.audit import Audit
from tests.e2e.recorder import Recorder
from tests.e2e.stream import of_kind
from tests.e2e.system import VENUE, System, of_venue

BETA: Final = 2  # venue_id: the second in the configuration
ENOUGH: Final = 300  # records

Trouble = Callable[[System], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def system(module_directory: Path) -> Iterator[System]:
    """Two venues, each with an emulator of its own."""
    with System(module_directory, venues=["alpha", "beta"], instruments=["BTC-USDT", "ETH-USDT"]) as system:
        system.start().wait_until_up()
        yield system
        assert system.stop() == 0


@pytest.fixture(scope="module")
def tape(system: System) -> Iterator[Recorder]:
    """A consumer of both."""
    with system.recorder() as tape:
        yield tape


@contextmanager
def _connection_is_silent(system: System) -> Iterator[None]:
    system.emulators["alpha"].inject(VENUE, "stall", pings=False)
    yield
    system.emulators["alpha"].clear_faults()


@contextmanager
def _nobody_listens(system: System) -> Iterator[None]:
    system.emulators["alpha"].inject(VENUE, "refuse")
    system.emulators["alpha"].inject(VENUE, "reset")
    yield
    system.emulators["alpha"].clear_faults()


@contextmanager
def _host_is_gone(system: System) -> Iterator[None]:
    with _stopped(system.emulators["alpha"].process.pid):
        yield


@contextmanager
def _worker_hangs(system: System) -> Iterator[None]:
    pid = system.pid("worker-alpha")
    assert pid is not None
    with _stopped(pid):
        yield


@contextmanager
def _worker_keeps_dying(system: System) -> Iterator[None]:
    for _ in range(5):
        system.wait_until_gone("worker-alpha", system.kill("worker-alpha"))
    yield


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "trouble", [_connection_is_silent, _nobody_listens, _host_is_gone, _worker_hangs, _worker_keeps_dying]
)
def test_a_venue_goes_on_in_full_while_the_other(system: System, tape: Recorder, trouble: Trouble) -> None:
    system.wait_until_synced()
    with trouble(system):
        begun = tape.last_seq
        system.wait_until(lambda: len(of_venue(tape.records(begun), BETA)) >= ENOUGH, "records of the other go on")
        system.settle(tape, ["beta"])
        records = tape.records()
        Audit(records, tape.instruments("beta"), system.sent("beta"), complete=True).check()
        clears = of_kind(records, Kind.CLEAR)
        of_beta = clears[(clears["venue_id"] == BETA) & ((clears["flags"] & Flags.SNAPSHOT) == 0)]
        assert not len(of_beta), "a book of the other venue was cleared"
        assert system.counter("worker-beta", Counter.STARTS) == 1
        assert system.counter("worker-beta", Counter.CONNECTS) == 1
        system.emulators["beta"].resume()
    system.wait_until_synced()
    system.settle(tape)
    system.audit(tape)
    system.resume()
