"""Segments: files of a run folder that processes map, each with one writing process.

A segment is a plain file, opened with ``os.open`` and mapped with ``mmap`` (never
``multiprocessing.shared_memory``, whose tracker unlinks what others still use). It begins with a header of
4096 bytes, in which blocks of 128 bytes belong to one writing process each::

    byte 0    CREATOR  magic, version, fingerprint, kind, size, run_id, slot_size, slot_count, state
    byte 128  WRITER   cursor, epoch, heartbeat_ns, pid         (a ring's writer)
    byte 4096 data

Attach is a staged handshake: the version word is stored last, with release, so a reader that sees it sees
the whole header. One writer per segment is enforced by the kernel: an open-file-description lock on the
file, which ends with the process however that ends.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mdring.ring._ring import Reader, Words, Writer

MAGIC: Final = int.from_bytes(b"MDRING\x00\x01", "little")
HEADER_SIZE: Final = 4096
CREATOR_OFFSET: Final = 0
WRITER_OFFSET: Final = 128

# Words of the CREATOR block.
_MAGIC, _VERSION, _FINGERPRINT, _KIND, _SIZE, _RUN_ID, _SLOT_SIZE, _SLOT_COUNT, _STATE = range(9)
# Words of the WRITER block; the cursor is the first, for the ring counts on its place.
_CURSOR, _EPOCH, _HEARTBEAT, _PID = range(4)


class SegmentKind(IntEnum):
    """What a segment holds."""

    RING = 1
    INSTRUMENTS = 2
    COUNTERS = 3
    CHANNELS = 4
    BOOKS = 5
    CHECKPOINTS = 6


class RunState(IntEnum):
    """Whether the run that a segment belongs to still goes on."""

    OPEN = 0
    CLOSED = 1  # its supervisor shut it down in order
    REPLACED = 2  # its supervisor died, and another one cleaned up


_OPEN: Final = int(RunState.OPEN)  # a number: an enum's member takes longer to compare with


class SegmentError(Exception):
    """A segment cannot be used; the message says which, why, and what to do."""


class SegmentNotFound(SegmentError):
    """There is no such file, or it is not ready yet."""


class LayoutMismatch(SegmentError):
    """The segment was made by another layout version of mdring."""


class AlreadyWritten(SegmentError):
    """Another living process holds the writer's lock."""


class Segment:
    """A mapped segment. Closing it ends the mapping as soon as no object uses it any more."""

    def __init__(self, path: Path, descriptor: int, mapping: mmap.mmap, *, writable: bool) -> None:
        self.path = path
        self.writable = writable
        self.mapping = mapping
        self._descriptor = descriptor
        self.creator = Words(mapping, CREATOR_OFFSET, 16)
        self.writer_block = Words(mapping, WRITER_OFFSET, 16)
        self.slot_size = self.creator.load(_SLOT_SIZE)
        self.slot_count = self.creator.load(_SLOT_COUNT)
        self.run_id = self.creator.load(_RUN_ID)
        self.inode = os.fstat(descriptor).st_ino

    @property
    def state(self) -> RunState:
        """Whether the run still goes on."""
        return RunState(self.creator.load(_STATE))

    @property
    def is_over(self) -> bool:
        """Whether ``state`` is no longer OPEN; cheaper to ask."""
        return self.creator.load(_STATE) != _OPEN

    def end(self, state: RunState) -> None:
        """Tell all who mapped the segment that its run is over, and wake those who wait."""
        self.creator.store(_STATE, state)
        self.writer_block.wake(_CURSOR)

    @property
    def epoch(self) -> int:
        """How many writers have opened the ring so far: rises by one with each restart."""
        return self.writer_block.load(_EPOCH)

    @property
    def cursor(self) -> int:
        """The highest published seq of the ring."""
        return self.writer_block.load(_CURSOR)

    def lock(self) -> None:
        """Take the writer's lock, held until ``close`` or the end of the process. Raises AlreadyWritten."""
        if not try_lock(self._descriptor):
            pid = self.writer_block.load(_PID)
            raise AlreadyWritten(
                f"{self.path}: another process (pid {pid}) is writing this segment; a segment has one writer"
            )
        self.writer_block.store(_PID, os.getpid())

    def writer(self, *, flags_offset: int, last_flag: int) -> Writer:
        """Become the ring's writer: lock, resume after the predecessor, begin a new epoch. Raises AlreadyWritten."""
        self.lock()
        writer = Writer(
            self.mapping, WRITER_OFFSET, HEADER_SIZE, self.slot_size, self.slot_count, flags_offset, last_flag
        )
        self.writer_block.add(_EPOCH, 1)
        return writer

    def reader(self, *, flags_offset: int, last_flag: int, position: int) -> Reader:
        """A reader whose first poll begins after ``position``."""
        return Reader(
            self.mapping,
            WRITER_OFFSET,
            HEADER_SIZE,
            self.slot_size,
            self.slot_count,
            flags_offset,
            last_flag,
            position,
        )

    def replaced(self) -> bool:
        """Whether the path now names another file, or none."""
        try:
            return self.path.stat().st_ino != self.inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        """Give the lock up. The mapping itself lives until the last object on it is gone."""
        if self._descriptor >= 0:
            if self.writable:  # the mapping keeps a duplicate of the descriptor, so closing alone would not unlock
                fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_UNLCK))
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _flock(kind: int) -> bytes:
    """``struct flock`` over the whole file."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def try_lock(descriptor: int) -> bool:
    """Take the writer's lock of an open file; False if another open file has it.

    The lock belongs to the open file, not to the process: it ends when the last duplicate of the descriptor is closed.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(fcntl.F_WRLCK))
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a living process holds the writer's lock of ``path``; asks without taking it, so it disturbs nobody."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_RDLCK))
        return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(descriptor)


def create(
    path: Path,
    kind: SegmentKind,
    *,
    version: int,
    fingerprint: int,
    run_id: int,
    slot_size: int,
    slot_count: int,
) -> Segment:
    """Make a segment of ``slot_count`` zeroed slots and map it writable.

    Its memory is reserved at once: a full ``/dev/shm`` is an OSError (ENOSPC) here, not a SIGBUS later.
    Raises FileExistsError.
    """
    size = HEADER_SIZE + slot_size * slot_count
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, size)
        mapping = mmap.mmap(descriptor, size)
    except OSError as error:
        os.close(descriptor)
        path.unlink()
        raise OSError(
            error.errno,
            f"cannot reserve {size / 2**20:.0f} MiB ({error.strerror}); free some, or configure fewer slots",
            str(path),
        ) from None
    header = Words(mapping, CREATOR_OFFSET, 16)
    for word, value in (
        (_FINGERPRINT, fingerprint),
        (_KIND, kind),
        (_SIZE, size),
        (_RUN_ID, run_id),
        (_SLOT_SIZE, slot_size),
        (_SLOT_COUNT, slot_count),
        (_STATE, RunState.OPEN),
        (_MAGIC, MAGIC),
    ):
        header.store(word, value)
    header.store(_VERSION, version)  # last: the header is whole
    return Segment(path, descriptor, mapping, writable=True)


def end_run(path: Path, state: RunState) -> bool:
    """Tell all who mapped ``path`` that its run is over, whatever layout version made it and whoever wrote it.

    For the supervisor, just before it unlinks the file. False if the file is no segment of ours, or not ready.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size < HEADER_SIZE:
            return False
        mapping = mmap.mmap(descriptor, HEADER_SIZE)
    finally:
        os.close(descriptor)
    creator = Words(mapping, CREATOR_OFFSET, 16)
    if creator.load(_VERSION) == 0 or creator.load(_MAGIC) != MAGIC:
        return False
    creator.store(_STATE, state)
    Words(mapping, WRITER_OFFSET, 16).wake(_CURSOR)
    return True


def attach(
    path: Path,
    kind: SegmentKind,
    *,
    version: int,
    fingerprint: int,
    writable: bool = False,
    wait_s: float = 0.0,
) -> Segment:
    """Map an existing segment, read-only unless ``writable``; wait up to ``wait_s`` for it to be ready.

    Raises SegmentNotFound (absent, or not ready), LayoutMismatch, SegmentError (no segment of ours).
    """
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return _attach_once(path, kind, version, fingerprint, writable)
        except SegmentNotFound:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.005)


def _attach_once(path: Path, kind: SegmentKind, version: int, fingerprint: int, writable: bool) -> Segment:
    try:
        descriptor = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    except FileNotFoundError:
        raise SegmentNotFound(f"{path}: no such segment") from None
    try:
        length = os.fstat(descriptor).st_size
        if length < HEADER_SIZE:
            raise SegmentNotFound(f"{path}: not ready: {length} bytes, its header has {HEADER_SIZE}")
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        mapping = mmap.mmap(descriptor, length, prot=protection)
        _check_header(path, Words(mapping, CREATOR_OFFSET, 16), length, kind, version, fingerprint)
    except BaseException:
        os.close(descriptor)
        raise
    return Segment(path, descriptor, mapping, writable=writable)


def _check_header(path: Path, header: Words, length: int, kind: SegmentKind, version: int, fingerprint: int) -> None:
    found_version = header.load(_VERSION)
    if found_version == 0:
        raise SegmentNotFound(f"{path}: not ready: its creator has not finished the header")
    if header.load(_MAGIC) != MAGIC:
        raise SegmentError(f"{path}: not a segment of mdring (wrong magic)")
    if found_version != version:
        raise LayoutMismatch(
            f"{path}: has layout version {found_version}, this process has {version}; "
            "run the supervisor and the consumer from the same version of mdring"
        )
    if header.load(_FINGERPRINT) != fingerprint:
        raise LayoutMismatch(
            f"{path}: layout fingerprint {header.load(_FINGERPRINT):016x}, this process has {fingerprint:016x}; "
            "run the supervisor and the consumer from the same build of mdring"
        )
    if header.load(_KIND) != kind:
        raise SegmentError(f"{path}: a segment of kind {header.load(_KIND)}, not {kind.name}")
    if header.load(_SIZE) > length:
        raise SegmentError(f"{path}: cut short: {length} bytes, its header says {header.load(_SIZE)}")
