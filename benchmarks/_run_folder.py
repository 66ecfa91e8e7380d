"""A run folder without a supervisor: the real segments, with this process in the supervisor's place."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mdring.config import BooksConfig, Config, RunConfig, SubscriptionConfig, TapeConfig, VenueConfig
from mdring.record import FINGERPRINT, LAYOUT_VERSION, Flags, offset_of
from mdring.ring import segment
from mdring.ring._ring import Reader, Writer
from mdring.run_folder import RunFolder, RunInfo
from mdring.supervisor.folder import RunSegments, claim_run, write_config, write_info

_FIELDS = {"flags_offset": offset_of("flags"), "last_flag": int(Flags.LAST)}
_NO_BOOKS: Final = BooksConfig(enabled=False)


@contextmanager
def temporary_folder(parent: str | None = "/dev/shm") -> Iterator[Path]:
    """A folder as long as the block, in memory unless ``parent`` says otherwise (None: where the system has such). It
    is named after this process, so that whoever finds it knows whether it is still needed."""
    with tempfile.TemporaryDirectory(prefix=f"mdring-bench-{os.getpid()}-", dir=parent) as name:
        yield Path(name)


@contextmanager
def run_folder(
    venues: Sequence[str],
    *,
    tape_slots: int = 65_536,
    ring_slots: int = 65_536,
    books: BooksConfig = _NO_BOOKS,
    instruments: int = 0,
) -> Iterator[RunFolder]:
    """The folder of a run with these venues, and so many instruments each, as long as the block."""
    with temporary_folder() as directory:
        subscriptions = tuple(
            SubscriptionConfig(instrument=f"I{number}", data_types=("book",)) for number in range(instruments)
        )
        config = Config(
            run=RunConfig(name="bench", directory=str(directory), state_directory=f"{directory}-state"),
            tape=TapeConfig(slots=tape_slots),
            books=books,
            venues=tuple(
                VenueConfig(id=venue, adapter="binance", ring_slots=ring_slots, subscriptions=subscriptions)
                for venue in venues
            ),
        )
        claim = claim_run(directory / "bench")
        run_id = time.time_ns()
        segments = RunSegments.create(claim.folder, config, run_id)
        for venue, venue_id in config.venue_ids.items():
            for number in range(instruments):
                segments.instruments.append(venue_id, venue, f"I{number}", f"I{number}-USD", -2, -8)
        write_config(claim.folder, config)
        write_info(claim.folder, RunInfo("bench", run_id, os.getpid(), "bench", config.venue_ids))
        try:
            yield claim.folder
        finally:
            del segments
            claim.release()
            directory.mkdir(exist_ok=True)  # the last run's release takes it away


def attach_ring(path: Path, *, writable: bool = False) -> segment.Segment:
    """Map a ring of records."""
    return segment.attach(
        path, segment.SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, writable=writable
    )


def open_writer(path: Path) -> Writer:
    """Become a ring's writer."""
    return attach_ring(path, writable=True).writer(**_FIELDS)


def open_reader(path: Path, position: int = 0) -> Reader:
    """Read a ring after ``position``."""
    return attach_ring(path).reader(**_FIELDS, position=position)
