"""A sequencer that stands still: the venue ring fills, the worker goes on reading its socket, the loss is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from mdring.counters import Counter
from mdring.record import DataType, Flags, Kind, Reason, State
from tests.e2e.recorder import assert_same_records
from tests.e2e.stream import Records, of_kind
from tests.e2e.system import VENUE, System, of_venue

WORKER: Final = "worker-alpha"
STEPS: Final = 10_000  # of the market, at once


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param(2, id="2"),
        pytest.param(50, id="50", marks=[pytest.mark.long, pytest.mark.timeout(3_600)]),
    ],
)
def test_full_venue_ring__the_loss_is_told_books_heal_and_the_socket_is_never_blocked(
    directory: Path, stops: int
) -> None:
    with System(directory, rate=500, connection={"stale_after_ms": 60_000}) as system:
        system.start().wait_until_up()
        emulator = system.emulators["alpha"]
        with system.recorder() as tape, system.ring_recorder("alpha") as ring:
            for number in range(stops):
                sequencer = system.pid("sequencer")
                assert sequencer is not None
                os.kill(sequencer, signal.SIGSTOP)
                drops = system.counter(WORKER, Counter.DROPS)
                while system.counter(WORKER, Counter.DROPS) == drops:
                    emulator.advance(STEPS)
                    _wait_until_all_was_read(system)
                emulator.advance(STEPS)
                _wait_until_all_was_read(system)
                assert system.pid("sequencer") == sequencer
                os.kill(sequencer, signal.SIGCONT)
                system.wait_until(lambda due=number + 1: len(_told(tape.records())) >= due, "the loss is told")  # type: ignore[misc]
                system.wait_until_synced()
            system.settle(tape)
            records = system.audit(tape, lossy_ring=True)
            drops = system.counter(WORKER, Counter.DROPS)
            assert system.counter(WORKER, Counter.CONNECTS) == 1, "the venue had to cut a slow reader off"
            assert system.counter("supervisor", Counter.RESTARTS) == 0
            instruments = {row.id for row in tape.instruments("alpha")}
            assert system.stop() == 0
            tape.join()
        assert_same_records(ring.records(), of_venue(tape.records(), 1))
    told = _told(records)
    assert told["count"].sum() == drops, "the stream tells another number of records than were refused"
    for status in told:
        after = records[records["seq"] > status["seq"]]
        clears = of_kind(after, Kind.CLEAR)
        forced = (clears["flags"] & Flags.SNAPSHOT) == 0
        of_loss = clears[forced & (clears["reason"] == Reason.RING_FULL)]
        assert set(of_loss["instrument_id"].tolist()) == instruments, "not all books that lost records were cleared"
        of_books = after[np.isin(after["kind"], [Kind.LEVEL, Kind.CLEAR])]
        first = {number: of_books[of_books["instrument_id"] == number][0]["kind"] for number in instruments}
        assert set(first.values()) == {Kind.CLEAR}, "a book went on over the hole"


def _told(records: Records) -> Records:
    """The STATUS(DROPPED) records."""
    statuses = of_kind(records, Kind.STATUS)
    told: Records = statuses[statuses["state"] == State.DROPPED]
    assert (told["reason"] == Reason.RING_FULL).all() and (told["data_type"] == DataType.STATUS).all()
    return told


def _wait_until_all_was_read(system: System) -> None:
    """Return when the worker has taken from its socket whatever the emulator had sent when this was called."""
    connections = system.emulators["alpha"].statistics()["venues"][VENUE]["connections"]
    sent = sum(connections.values())
    system.wait_until(lambda: system.counter(WORKER, Counter.FRAMES) >= sent, "the worker has read its socket empty")
