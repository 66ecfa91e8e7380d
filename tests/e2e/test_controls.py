"""Negative controls: what the end-to-end proofs rely on notices every way of breaking a promise that is tried here.

A short run is recorded, with a worker killed and a diff dropped on its way, and found in order. Then its records are
tampered with, one promise at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from msgspec import Struct

from mdring.instrument import Instrument
from mdring.record import STATUS, TRADE, DataType, Flags, Kind, State
from tests.e2e.audit import Audit
from tests.e2e.recorder import assert_same_records
from tests.e2e.stream import Records, StreamChecker, digest
from tests.e2e.system import VENUE, System
from tests.e2e.wire import Sent


class Recording(Struct, frozen=True):
    """A run as it was recorded, and what was sent to it."""

    records: Records
    instruments: list[Instrument]
    sent: list[Sent]

    def audit(self, records: Records) -> None:
        """Hold these records against what was sent."""
        Audit(records, self.instruments, self.sent).check()


@pytest.fixture(scope="module")
def recording(module_directory: Path) -> Iterator[Recording]:
    """A run with a killed worker and a gap in a book, and in the trades."""
    with System(module_directory, instruments=["BTC-USDT"], rate=500) as system:
        system.start().wait_until_up()
        with system.recorder() as tape:
            (instrument,) = tape.instruments("alpha")
            pid = system.kill("worker-alpha")
            system.wait_until_gone("worker-alpha", pid)
            system.wait_until_synced()
            system.emulators["alpha"].inject(VENUE, "drop", match="@depth")
            system.emulators["alpha"].inject(VENUE, "drop", match="@trade")
            for data_type in (DataType.BOOK, DataType.TRADE):
                system.wait_until(lambda data_type=data_type: _gaps(tape.records(), data_type), "the gap is told")  # type: ignore[misc]
            system.wait_until_synced()
            enough = tape.last_seq + 600
            system.wait_until(lambda: tape.last_seq > enough, "some more records")
            system.settle(tape)
            recorded = Recording(system.audit(tape), [instrument], system.sent("alpha"))
        assert system.stop() == 0
    yield recorded


def _gaps(records: Records, data_type: DataType) -> int:
    statuses = records[records["kind"] == Kind.STATUS].view(STATUS)
    return int(((statuses["state"] == State.GAP) & (statuses["data_type"] == data_type)).sum())


def where(records: Records, kind: Kind, flags: Flags = Flags.NONE) -> int:
    """Index of a record of this kind with these flags, of no snapshot; late in the run, but not at its end."""
    chosen = (records["kind"] == kind) & ((records["flags"] & (flags | Flags.SNAPSHOT)) == flags)
    found = np.flatnonzero(chosen)
    return int(found[len(found) * 7 // 8])


def without(records: Records, at: int) -> Records:
    """The records but for one."""
    return np.delete(records, at)


def again(records: Records, at: int) -> Records:
    """One record twice."""
    return np.insert(records, at, records[at])


def swapped(records: Records, at: int) -> Records:
    """Two neighbours in the other order."""
    records[[at, at + 1]] = records[[at + 1, at]]
    return records


def altered(records: Records, at: int, field: str, by: int) -> Records:
    """One field of one record changed."""
    records[field][at] = int(records[field][at]) + by
    return records


Tampering = Callable[[Records], Records]

OF_ANY_STREAM: dict[str, Tampering] = {
    "a record is missing": lambda r: without(r, where(r, Kind.TRADE)),
    "a record stands twice": lambda r: again(r, where(r, Kind.TRADE)),
    "seq falls": lambda r: swapped(r, where(r, Kind.TRADE)),
    "seq does not rise": lambda r: altered(r, where(r, Kind.BBO), "seq", -1),
    "channel_seq is one too high": lambda r: altered(r, where(r, Kind.TRADE), "channel_seq", 1),
    "channel_seq is one too low": lambda r: altered(r, where(r, Kind.LEVEL), "channel_seq", -1),
    "a group never ends": lambda r: altered(r, len(r) - 1, "flags", -1),
    "two groups are one": lambda r: altered(r, before_a_quote(r), "flags", -1),
    "another venue in a group": lambda r: altered(r, where(r, Kind.LEVEL), "venue_id", 1),
    "a record of no instrument": lambda r: altered(r, where(r, Kind.TRADE), "instrument_id", -1),
    "sequenced before it was received": lambda r: altered(r, where(r, Kind.BBO), "ts_seq", -(10**15)),
    "a trade of nothing": lambda r: altered(r, where(r, Kind.TRADE), "size", -r["size"][where(r, Kind.TRADE)]),
    "an unknown kind": lambda r: altered(r, where(r, Kind.LEVEL), "kind", 77),
}

OF_THE_WIRE: dict[str, Tampering] = {
    "a trade is missing": lambda r: without(r, where(r, Kind.TRADE)),
    "a trade stands twice": lambda r: again(r, where(r, Kind.TRADE)),
    "a price is one too high": lambda r: altered(r, where(r, Kind.TRADE), "price", 1),
    "a size is one too low": lambda r: altered(r, where(r, Kind.TRADE), "size", -1),
    "a wrong time": lambda r: altered(r, where(r, Kind.TRADE), "ts_event", 1),
    "the wrong aggressor": lambda r: altered(r, where(r, Kind.TRADE), "side", 1),
    "a trade that never was": lambda r: invented(r),
    "a quote is missing": lambda r: without(r, where(r, Kind.BBO)),
    "a quote stands twice": lambda r: again(r, where(r, Kind.BBO)),
    "a quote is one too low": lambda r: altered(r, where(r, Kind.BBO), "price", -1),
    "a level is missing": lambda r: without(r, where(r, Kind.LEVEL)),
    "a level is one too high": lambda r: altered(r, where(r, Kind.LEVEL), "price", 1),
    "a level on the other side": lambda r: altered(r, where(r, Kind.LEVEL), "side", 1),
    "a delta is missing": lambda r: without_delta(r),
    "a gap in the trades is not told": lambda r: without_statuses(r, DataType.TRADE),
    "a gap in the book is not told": lambda r: without_statuses(r, DataType.BOOK),
    "a death is not told": lambda r: without_statuses(r, DataType.STATUS),
    "a book is not cleared": lambda r: without(r, int(np.flatnonzero(unforced_clears(r))[-1])),
}


def invented(records: Records) -> Records:
    """A trade with an id far away from all others."""
    trade = records.view(TRADE)[where(records, Kind.TRADE)]
    trade["trade_id"] += np.uint64(10**9)
    trade["venue_seq"] += np.uint64(10**9)
    return records


def without_delta(records: Records) -> Records:
    """All levels of one delta are gone, which is neither the first nor the last after the last snapshot."""
    levels = records["kind"] == Kind.LEVEL
    snapshot = int(np.flatnonzero(levels & ((records["flags"] & Flags.SNAPSHOT) != 0))[-1])
    updates = np.unique(records["venue_seq"][snapshot + 1 :][levels[snapshot + 1 :]])
    return np.delete(records, np.flatnonzero(levels & (records["venue_seq"] == updates[len(updates) // 2])))


def without_statuses(records: Records, data_type: DataType) -> Records:
    """Nothing is told of these data."""
    statuses = records.view(STATUS)
    return np.delete(records, np.flatnonzero((records["kind"] == Kind.STATUS) & (statuses["data_type"] == data_type)))


def before_a_quote(records: Records) -> int:
    """Index of a trade that a quote follows."""
    kinds = records["kind"]
    return int(np.flatnonzero((kinds[:-1] == Kind.TRADE) & (kinds[1:] == Kind.BBO))[-1])


def unforced_clears(records: Records) -> npt.NDArray[np.bool_]:
    """Where a book is said to be invalid, as opposed to the beginning of a snapshot."""
    chosen: npt.NDArray[np.bool_] = (records["kind"] == Kind.CLEAR) & ((records["flags"] & Flags.SNAPSHOT) == 0)
    return chosen


def test_the_recording_itself_is_found_in_order(recording: Recording) -> None:
    StreamChecker().take(recording.records)
    recording.audit(recording.records)
    assert unforced_clears(recording.records).any()


@pytest.mark.parametrize("name", OF_ANY_STREAM)
def test_the_checker_of_streams_notices_when(recording: Recording, name: str) -> None:
    tampered = OF_ANY_STREAM[name](recording.records.copy())
    with pytest.raises(AssertionError):
        StreamChecker().take(tampered)


@pytest.mark.parametrize("name", OF_THE_WIRE)
def test_the_audit_notices_when(recording: Recording, name: str) -> None:
    tampered = OF_THE_WIRE[name](recording.records.copy())
    with pytest.raises(AssertionError):
        recording.audit(tampered)


def test_the_checker_of_streams_notices_a_hole_between_batches(recording: Recording) -> None:
    ends = np.flatnonzero(recording.records["flags"] & Flags.LAST) + 1
    first, second, third = np.split(recording.records, [ends[50], ends[60]])
    checker = StreamChecker()
    checker.take(first)
    with pytest.raises(AssertionError, match="is due"):
        checker.take(third)
    assert len(second)


@pytest.mark.parametrize("tamper", [without, again, swapped, lambda r, at: altered(r, at, "size", 1)])
def test_the_comparison_of_ring_and_tape_notices(
    recording: Recording, tamper: Callable[[Records, int], Records]
) -> None:
    records = recording.records
    tape = tamper(records.copy(), where(records, Kind.TRADE))
    with pytest.raises(AssertionError):
        assert_same_records(records, tape)


@pytest.mark.parametrize("tamper", [without, again, lambda r, at: altered(r, at, "size", 1)])
def test_the_digest_of_records_tells_tampered_ones(
    recording: Recording, tamper: Callable[[Records, int], Records]
) -> None:
    records = recording.records
    assert digest(tamper(records.copy(), where(records, Kind.TRADE))) != digest(records)
    half = len(records) // 2
    assert (digest(records[:half]) + digest(records[half:])) % 2**64 == digest(records)
