"""Segments: the handshake of attach, the one writer's lock, protection of the mapping, the end of a run."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mdring.ring import segment
from mdring.ring._ring import Writer
from mdring.ring.segment import (
    AlreadyWritten,
    LayoutMismatch,
    RunState,
    Segment,
    SegmentError,
    SegmentKind,
    SegmentNotFound,
)

ROOT = Path(__file__).parents[2]
VERSION, FINGERPRINT = 3, 0xFEED
MAGIC_WORD, VERSION_WORD, FINGERPRINT_WORD, KIND_WORD, SIZE_WORD = range(5)


def create(path: Path, *, slot_size: int = 64, slot_count: int = 16) -> Segment:
    return segment.create(path, SegmentKind.RING, version=VERSION, fingerprint=FINGERPRINT, run_id=77,
                          slot_size=slot_size, slot_count=slot_count)  # fmt: skip


def attach(path: Path, *, kind: SegmentKind = SegmentKind.RING, writable: bool = False, wait_s: float = 0.0) -> Segment:
    return segment.attach(path, kind, version=VERSION, fingerprint=FINGERPRINT, writable=writable, wait_s=wait_s)


@pytest.fixture
def path(run_folder: Path) -> Path:
    return run_folder / "segment"


# ---- create ----


def test_create_makes_a_zeroed_segment_with_its_parameters(path: Path) -> None:
    with create(path) as made:
        assert path.stat().st_size == 4096 + 16 * 64
        assert (made.slot_size, made.slot_count, made.run_id, made.state) == (64, 16, 77, RunState.OPEN)
        assert (made.cursor, made.epoch) == (0, 0)
        assert made.mapping[4096:] == bytes(16 * 64)


def test_the_header_is_laid_out_as_documented(path: Path) -> None:
    create(path).close()
    header = path.read_bytes()[:4096]
    assert header[:8] == b"MDRING\x00\x01"
    assert struct.unpack_from("<8Q", header, 8) == (VERSION, FINGERPRINT, SegmentKind.RING, 4096 + 1024, 77, 64, 16, 0)
    assert header[72:] == bytes(4096 - 72)


def test_create_never_replaces_a_file(path: Path) -> None:
    path.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        create(path)
    assert path.read_bytes() == b"precious"


def test_a_full_shared_memory_is_a_clear_error_and_leaves_no_file(path: Path) -> None:
    filesystem = os.statvfs(path.parent)
    capacity = filesystem.f_blocks * filesystem.f_frsize
    if capacity == 0:
        pytest.skip("NOT PROVEN HERE: this /dev/shm has no limit")
    with pytest.raises(OSError, match=r"cannot reserve \d+ MiB .*free some, or configure fewer slots") as failure:
        create(path, slot_size=4096, slot_count=capacity // 4096 + 1)
    assert failure.value.errno == errno.ENOSPC
    assert failure.value.filename == str(path)
    assert not path.exists()


# ---- attach ----


def test_attach_sees_what_the_creator_wrote(path: Path) -> None:
    with create(path) as made, attach(path) as attached:
        assert (attached.slot_size, attached.slot_count, attached.run_id) == (64, 16, 77)
        made.mapping[4096] = 5
        assert attached.mapping[4096] == 5


def test_an_absent_segment_is_not_found(path: Path) -> None:
    with pytest.raises(SegmentNotFound, match="no such segment"):
        attach(path)


@pytest.mark.parametrize("length", [0, 1, 4095])
def test_a_short_segment_is_not_ready(path: Path, length: int) -> None:
    path.write_bytes(bytes(length))
    with pytest.raises(SegmentNotFound, match=f"not ready: {length} bytes"):
        attach(path)


def test_a_segment_without_its_version_is_not_ready(path: Path) -> None:
    path.write_bytes(bytes(8192))
    with pytest.raises(SegmentNotFound, match="its creator has not finished the header"):
        attach(path)


def spoil_word(word: int, value: int) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        struct.pack_into("<Q", content, 8 * word, value)
        path.write_bytes(content)

    return spoil


def cut_short(path: Path) -> None:
    os.truncate(path, 4096 + 512)


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (spoil_word(MAGIC_WORD, 0x1234), SegmentError, "not a segment of mdring"),
        (spoil_word(VERSION_WORD, 4), LayoutMismatch, "has layout version 4, this process has 3"),
        (spoil_word(FINGERPRINT_WORD, 1), LayoutMismatch, "0000000000000001, this process has 000000000000feed"),
        (spoil_word(KIND_WORD, SegmentKind.BOOKS), SegmentError, "a segment of kind 5, not RING"),
        (spoil_word(SIZE_WORD, 2**40), SegmentError, "cut short: 5120 bytes, its header says 1099511627776"),
        (cut_short, SegmentError, "cut short: 4608 bytes, its header says 5120"),
    ],
    ids=["magic", "version", "fingerprint", "kind", "size", "truncated"],
)
def test_a_segment_that_does_not_fit_is_a_named_error(
    path: Path, spoil: Callable[[Path], None], error: type[SegmentError], message: str
) -> None:
    create(path).close()
    spoil(path)
    with pytest.raises(error, match=message) as failure:
        attach(path)
    assert str(path) in str(failure.value)
    assert not isinstance(failure.value, SegmentNotFound), "waiting would not help"


def open_descriptors() -> int:
    gc.collect()  # or that of an earlier test's garbage may close some meanwhile
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_refused_attach_leaves_no_descriptor_open(path: Path) -> None:
    create(path).close()
    spoil_word(VERSION_WORD, 4)(path)
    before = open_descriptors()
    for _ in range(3):
        with pytest.raises(LayoutMismatch):
            attach(path)
    assert open_descriptors() == before


def test_attach_waits_until_the_segment_is_ready(path: Path) -> None:
    made: list[Segment] = []
    timer = threading.Timer(0.05, lambda: made.append(create(path)))
    timer.start()
    with attach(path, wait_s=3600) as attached:
        assert attached.slot_count == 16
    timer.join()
    made[0].close()


def test_attach_waits_no_longer_than_told(path: Path) -> None:
    with pytest.raises(SegmentNotFound):
        attach(path, wait_s=0.02)


# ---- protection ----


def test_a_read_only_mapping_cannot_be_written_through_python(path: Path) -> None:
    with create(path), attach(path) as attached:
        with pytest.raises(TypeError):
            attached.mapping[0] = 1
        array = np.frombuffer(attached.mapping, dtype=np.uint64)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
        with pytest.raises(TypeError, match="not writable"):
            ctypes.c_char.from_buffer(attached.mapping)
        with pytest.raises(TypeError, match="mapped read-only"):
            attached.writer_block.store(0, 1)
        with pytest.raises(BufferError):
            Writer(attached.mapping, 128, 4096, 64, 16, 29, 1)


WRITE_BY_POINTER = """
import ctypes, sys
import numpy as np
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mdring.ring import segment
attached = segment.attach(Path(sys.argv[2]), segment.SegmentKind.RING, version=3, fingerprint=0xFEED)
address = np.frombuffer(attached.mapping, dtype=np.uint8).ctypes.data
assert ctypes.string_at(address, 6) == b"MDRING"
print("writing", flush=True)
ctypes.memset(address + 4096, 255, 8)
print("written")
"""


def test_the_kernel_stops_a_write_through_a_raw_pointer(path: Path) -> None:
    with create(path) as made:
        command = [sys.executable, "-c", WRITE_BY_POINTER, str(ROOT), str(path)]
        ended = subprocess.run(command, capture_output=True, text=True)
        assert (ended.returncode, ended.stdout) == (-signal.SIGSEGV, "writing\n")
        assert made.mapping[4096:4104] == bytes(8)


# ---- the writer's lock ----


def test_a_segment_has_one_writer_within_a_process_too(path: Path) -> None:
    create(path).close()
    with attach(path, writable=True) as first, attach(path, writable=True) as second:
        first.lock()
        with pytest.raises(AlreadyWritten, match=rf"another process \(pid {os.getpid()}\) is writing"):
            second.lock()


def test_the_lock_is_free_again_after_close(path: Path) -> None:
    with create(path) as first:
        first.lock()
        assert segment.is_locked(path)
    assert not segment.is_locked(path)
    with attach(path, writable=True) as second:
        second.lock()


def test_readers_need_no_lock(path: Path) -> None:
    with create(path) as made:
        made.lock()
        with attach(path), attach(path):
            assert segment.is_locked(path)


def test_nothing_is_locked_where_nothing_is(path: Path) -> None:
    assert not segment.is_locked(path)


HOLD_THE_LOCK = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mdring.ring import segment
held = segment.attach(Path(sys.argv[2]), segment.SegmentKind.RING, version=3, fingerprint=0xFEED, writable=True)
held.writer(flags_offset=29, last_flag=1)
print("locked", flush=True)
time.sleep(3600)
"""


def test_a_second_process_is_refused_and_the_lock_is_freed_when_the_first_is_killed(path: Path) -> None:
    with create(path) as mine:
        command = [sys.executable, "-c", HOLD_THE_LOCK, str(ROOT), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "locked\n"
                assert segment.is_locked(path)
                with pytest.raises(AlreadyWritten, match=rf"pid {holder.pid}\b.*a segment has one writer"):
                    mine.writer(flags_offset=29, last_flag=1)
                assert mine.epoch == 1
            finally:
                holder.kill()
        assert not segment.is_locked(path)
        mine.writer(flags_offset=29, last_flag=1)
        assert mine.epoch == 2, "each writer begins an epoch"


# ---- the end of a run ----


@pytest.mark.parametrize("state", [RunState.CLOSED, RunState.REPLACED])
def test_whoever_mapped_a_segment_learns_that_its_run_is_over(path: Path, state: RunState) -> None:
    with create(path) as made, attach(path) as attached:
        made.end(state)
        assert attached.state is state


def test_a_run_of_another_version_can_be_ended(path: Path) -> None:
    with create(path) as made:
        spoil_in_place(made, VERSION_WORD, 99)
        assert segment.end_run(path, RunState.REPLACED)
        assert made.state is RunState.REPLACED


def spoil_in_place(mapped: Segment, word: int, value: int) -> None:
    mapped.creator.store(word, value)


@pytest.mark.parametrize("content", [b"", b"a log file\n", bytes(8192), b"x" * 8192])
def test_what_is_no_segment_cannot_be_ended(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert not segment.end_run(path, RunState.REPLACED)
    assert path.read_bytes() == content


def test_a_replaced_or_removed_file_is_noticed(path: Path) -> None:
    with create(path) as made:
        assert not made.replaced()
        path.unlink()
        assert made.replaced()
        with create(path) as successor:
            assert made.replaced()
            assert not successor.replaced()
