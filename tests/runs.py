"""Run folders for tests that need no supervisor: real segments below /dev/shm, removed afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from mdring.counters import Counters
from mdring.instrument import InstrumentTable
from mdring.record import FINGERPRINT, LAYOUT_VERSION, RECORD, Flags, Kind, offset_of
from mdring.ring import segment
from mdring.ring._ring import Reader, Writer
from mdring.run_folder import RunFolder, RunInfo

RING_FIELDS = {"flags_offset": offset_of("flags"), "last_flag": int(Flags.LAST)}


def create_ring(path: Path, slots: int, run_id: int = 1) -> segment.Segment:
    """An empty ring of records."""
    return segment.create(
        path,
        segment.SegmentKind.RING,
        version=LAYOUT_VERSION,
        fingerprint=FINGERPRINT,
        run_id=run_id,
        slot_size=RECORD.itemsize,
        slot_count=slots,
    )


def attach_ring(path: Path, *, writable: bool = False) -> segment.Segment:
    """Map a ring of records."""
    return segment.attach(
        path, segment.SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, writable=writable
    )


def open_writer(mapped: segment.Segment) -> Writer:
    """Become the writer of a ring of records."""
    return mapped.writer(**RING_FIELDS)


def open_reader(mapped: segment.Segment, position: int = 0) -> Reader:
    """Read a ring of records after ``position``."""
    return mapped.reader(**RING_FIELDS, position=position)


class TestRun:
    """A run folder as the supervisor would make it, with this process in the supervisor's place."""

    __test__ = False

    def __init__(self, path: Path, venues: Sequence[str], tape_slots: int, ring_slots: int) -> None:
        path.mkdir(parents=True)
        self.folder = RunFolder(path)
        self.run_id = time.time_ns()
        self.venue_ids = {venue: number for number, venue in enumerate(venues, 1)}
        self.tape = create_ring(self.folder.tape, tape_slots, self.run_id)
        self.rings = {venue: create_ring(self.folder.venue_ring(venue), ring_slots, self.run_id) for venue in venues}
        self.instruments = InstrumentTable.create(self.folder.instruments, run_id=self.run_id, capacity=64)
        for process in ("supervisor", "sequencer", *(f"worker-{venue}" for venue in venues)):
            Counters.create(self.folder.counters(process), run_id=self.run_id).segment.close()
        self.lock = segment.create(
            self.folder.lock,
            segment.SegmentKind.COUNTERS,
            version=LAYOUT_VERSION,
            fingerprint=0,
            run_id=self.run_id,
            slot_size=8,
            slot_count=8,
        )
        self.lock.lock()
        info = RunInfo(path.name, self.run_id, os.getpid(), "test", self.venue_ids)
        self.folder.info.write_bytes(msgspec.json.encode(info))

    def close(self) -> None:
        """Give all locks up, as the end of the process would."""
        for mapped in (self.tape, self.instruments.segment, self.lock, *self.rings.values()):
            mapped.close()


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """A directory in shared memory, named for this process."""
    path = Path(tempfile.mkdtemp(prefix=f"mdring-test-{os.getpid()}-", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def temporary_run(
    venues: Sequence[str] = ("alpha",), *, tape_slots: int = 4096, ring_slots: int = 1024
) -> Iterator[TestRun]:
    """A run that lives as long as the block."""
    with temporary_directory() as directory:
        run = TestRun(directory / "test", venues, tape_slots, ring_slots)
        try:
            yield run
        finally:
            run.close()


def records(count: int, *, group: int = 1, **fields: object) -> npt.NDArray[np.void]:
    """TRADE records in event groups of ``group``; other fields as given, scalars or arrays."""
    made = np.zeros(count, dtype=RECORD)
    made["kind"] = Kind.TRADE
    made["flags"][group - 1 :: group] = Flags.LAST
    made["flags"][-1:] = Flags.LAST
    for name, value in fields.items():
        made[name] = value
    return made
