"""The run folder as its supervisor handles it: claimed, filled with segments, and taken away again.

Part of the supervisor. A living supervisor holds a lock on ``supervisor.lock``; a folder whose lock nobody holds
is the stale run of a dead supervisor, and whoever claims a run next clears it away. Claiming, clearing and
releasing are done one at a time, under a lock on the directory of all runs, so no two can meet::

    claim = claim_run(Path("/dev/shm/mdring/demo"))
    segments = RunSegments.create(claim.folder, config, run_id=time.time_ns())
    write_info(claim.folder, info)     # from here on consumers find the run
    claim.release()                    # nothing is left
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import msgspec

from mdring.book.table import create_checkpoints, create_table
from mdring.config import Config, to_json
from mdring.counters import Counters
from mdring.instrument import InstrumentTable
from mdring.record import FINGERPRINT, LAYOUT_VERSION, RECORD_SIZE
from mdring.ring import segment
from mdring.ring.segment import RunState, SegmentKind
from mdring.run_folder import RunFolder, RunInfo

logger = logging.getLogger(__name__)

SUPERVISOR: Final = "supervisor"
SEQUENCER: Final = "sequencer"
BOOK_KEEPER: Final = "books"
_CHANNEL_SLOT_SIZE: Final = 64  # one word per DataType of an instrument
_MIN_BOOK_ROWS: Final = 256


class StartError(Exception):
    """The run cannot start; the message is one sentence that says why and what to do."""


@contextmanager
def readable_by_all() -> Iterator[None]:
    """What is made herein gets the modes asked for (folders 0755, files 0644), whatever the user's umask."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _one_at_a_time(directory: Path) -> Iterator[None]:
    """Hold the directory of the runs, made if it is absent, against all other supervisors."""
    while True:
        try:
            with readable_by_all():
                directory.mkdir(parents=True, exist_ok=True)
        except FileExistsError:  # a file is in the way; or a directory was, and was removed before it was looked at
            if directory.exists() and not directory.is_dir():
                raise
            continue
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # another supervisor released the last run just now
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_same_file(descriptor, directory):
            break
        os.close(descriptor)
    try:
        yield
    finally:
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


class RunClaim:
    """A run folder that is ours until ``release``, or until this process ends."""

    def __init__(self, folder: RunFolder, lock: int) -> None:
        self.folder = folder
        self._lock = lock

    def holds(self) -> bool:
        """Whether the folder is still the one that was claimed; not so if somebody removed it."""
        return _is_same_file(self._lock, self.folder.lock)

    def release(self) -> None:
        """Tell all attached that the run is over, remove its folder, and the directory of runs if it is empty now."""
        directory = self.folder.path.parent
        with _one_at_a_time(directory):
            if self.holds():
                _remove_run(self.folder, RunState.CLOSED)
            os.close(self._lock)
            _remove_if_empty(directory)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):  # it has runs, or is not ours to remove
        directory.rmdir()


def claim_run(path: Path) -> RunClaim:
    """Make the run folder ``path`` ours, after the stale runs beside it, and at its place, were cleared away.

    Raises StartError if a living supervisor has it, if it is no run folder, or if it cannot be made.
    """
    folder = RunFolder(path)
    try:
        with _one_at_a_time(path.parent):
            _clear_stale_runs(path.parent)
            try:
                return RunClaim(folder, _make_folder(folder))
            finally:
                _remove_if_empty(path.parent)
    except OSError as error:
        raise StartError(f"cannot make the run folder {path}: {error}") from error


def _make_folder(folder: RunFolder) -> int:
    """The locked descriptor of a new folder's ``supervisor.lock``."""
    if folder.alive():
        raise StartError(
            f"run {folder.name!r} is already up, with supervisor {_holder(folder)}, in {folder.path}; "
            "stop that one, or choose another run.name"
        )
    if folder.path.exists() and any(folder.path.iterdir()):
        raise StartError(f"{folder.path} is in the way: it is no run folder of mdring, or a stale one of another user")
    with readable_by_all():
        folder.path.mkdir(exist_ok=True)
        try:
            return _make_lock(folder.lock)
        except OSError:  # a full file system
            folder.lock.unlink(missing_ok=True)
            folder.path.rmdir()
            raise


def _make_lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        segment.try_lock(descriptor)  # nobody else has it: the file is new, and we hold the directory
        os.write(descriptor, b"%d\n" % os.getpid())
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _holder(folder: RunFolder) -> str:
    """The pid of the living supervisor, as its lock file tells it."""
    with suppress(OSError):
        return folder.lock.read_text().strip()
    return "unknown"


def _clear_stale_runs(directory: Path) -> None:
    for lock in sorted(directory.glob("*/supervisor.lock")):
        folder = RunFolder(lock.parent)
        try:
            if folder.alive():
                continue
            _remove_run(folder, RunState.REPLACED)
        except OSError as error:
            logger.warning("cannot clear the stale run %s away: %s", folder.path, error)
        else:
            logger.warning("cleared the stale run %s away: its supervisor had died", folder.path)


def _remove_run(folder: RunFolder, state: RunState) -> None:
    """End the run's segments with ``state`` and unlink all files; the lock last, so a rest stays a stale run."""
    folder.info.unlink(missing_ok=True)
    files = [path for path in folder.path.iterdir() if path != folder.lock]
    for path in files:
        if path.is_file() and not path.is_symlink():
            segment.end_run(path, state)
    for path in files:
        path.unlink()
    folder.lock.unlink()
    folder.path.rmdir()


@dataclass(frozen=True)
class RunSegments:
    """The segments as the supervisor has them mapped. It writes the instrument table and its own counters only."""

    tape: segment.Segment
    instruments: InstrumentTable
    counters: Mapping[str, Counters]  # by process

    @property
    def own(self) -> Counters:
        """The supervisor's counters."""
        return self.counters[SUPERVISOR]

    @classmethod
    def create(cls, folder: RunFolder, config: Config, run_id: int) -> Self:
        """Make every segment of the run and write ``config.json``.

        Raises OSError; ENOSPC if the file system, mostly ``/dev/shm``, has no room for them.
        """
        with readable_by_all():
            tape = _create_ring(folder.tape, config.tape.slots, run_id)
            for venue in config.enabled_venues:
                _create_ring(folder.venue_ring(venue.id), venue.ring_slots, run_id).close()
                _create_channels(folder.channels(venue.id), config.instrument_rows, run_id).close()
            instruments = InstrumentTable.create(folder.instruments, run_id=run_id, capacity=config.instrument_rows)
            names = [SEQUENCER, *(worker_name(venue.id) for venue in config.enabled_venues)]
            if config.books.enabled:
                _create_books(folder, config, run_id)
                names.append(BOOK_KEEPER)
            counters = {name: Counters.create(folder.counters(name), run_id=run_id) for name in names}
            Counters.create(folder.counters(SUPERVISOR), run_id=run_id).segment.close()
            own = Counters.open_as_writer(folder.counters(SUPERVISOR), os.getpid())
        return cls(tape, instruments, {**counters, SUPERVISOR: own})


def worker_name(venue: str) -> str:
    """The name of the venue's worker process."""
    return f"worker-{venue}"


def _create_ring(path: Path, slots: int, run_id: int) -> segment.Segment:
    return segment.create(path, SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, run_id=run_id,
                          slot_size=RECORD_SIZE, slot_count=slots)  # fmt: skip


def _create_channels(path: Path, rows: int, run_id: int) -> segment.Segment:
    return segment.create(path, SegmentKind.CHANNELS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, run_id=run_id,
                          slot_size=_CHANNEL_SLOT_SIZE, slot_count=rows)  # fmt: skip


def _create_books(folder: RunFolder, config: Config, run_id: int) -> None:
    # An instrument takes a second id if its venue changes the tick size beyond the exponents.
    wanted = max(_MIN_BOOK_ROWS, 2 * config.subscription_count + 1)
    rows = config.instrument_rows
    if not config.has_patterns:
        rows = min(rows, 1 << (wanted - 1).bit_length())
    create_table(folder.books, run_id=run_id, levels=config.books.levels, instruments=rows).close()
    create_checkpoints(folder.checkpoints, run_id=run_id, size_bytes=config.checkpoint_bytes).close()


def write_config(folder: RunFolder, config: Config) -> None:
    """Write ``config.json``, from which the children learn everything."""
    _write_at_once(folder.config, to_json(config))


def write_info(folder: RunFolder, info: RunInfo) -> None:
    """Write ``run.json``: from here on the run is there for consumers."""
    _write_at_once(folder.info, msgspec.json.encode(info))


def _write_at_once(path: Path, content: bytes) -> None:
    """Let the file appear with all of its content."""
    unfinished = path.with_name(f".{path.name}")
    with readable_by_all():
        unfinished.write_bytes(content)
    unfinished.rename(path)
