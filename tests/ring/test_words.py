"""Words: atomic 64-bit words in a mapping, waiting on them, and the histogram's buckets."""

from __future__ import annotations

import mmap
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.ring._ring import HISTOGRAM_BUCKETS, Words, histogram_bucket

SECOND_NS = 1_000_000_000
U64 = st.integers(0, 2**64 - 1)


@pytest.fixture
def words() -> Words:
    return Words(mmap.mmap(-1, 16384), 64, 8)


def read_only(content: bytes, count: int) -> Words:
    return Words(content, 0, count)


@given(value=U64)
def test_a_word_holds_any_64_bits(value: int) -> None:
    words = Words(bytearray(16), 8, 1)
    words.store(0, value)
    assert words.load(0) == value


@pytest.mark.parametrize("value", [-1, 2**64])
def test_a_value_that_does_not_fit_is_refused(words: Words, value: int) -> None:
    with pytest.raises(OverflowError):
        words.store(0, value)


def test_words_lie_at_their_offset_little_endian() -> None:
    memory = bytearray(32)
    Words(memory, 8, 2).store(1, 0x0102030405060708)
    assert memory == bytes(16) + bytes([8, 7, 6, 5, 4, 3, 2, 1]) + bytes(8)


def test_add_counts_up(words: Words) -> None:
    words.add(3)
    words.add(3, 41)
    assert words.snapshot().tolist() == [0, 0, 0, 42, 0, 0, 0, 0]


def test_a_snapshot_is_a_copy_of_a_part(words: Words) -> None:
    for index in range(8):
        words.store(index, index * 10)
    part = words.snapshot(2, 3)
    words.store(2, 99)
    assert part.dtype == np.uint64
    assert part.tolist() == [20, 30, 40]
    assert words.snapshot(6).tolist() == [60, 70]
    assert words.snapshot(8).tolist() == []


@pytest.mark.parametrize("index", [-1, 8, 2**62])
def test_there_is_no_word_outside(words: Words, index: int) -> None:
    for access in (words.load, words.add, words.wake):
        with pytest.raises(IndexError):
            access(index)
    with pytest.raises(IndexError):
        words.store(index, 0)
    with pytest.raises(IndexError):
        words.wait(index, 0, 0)
    with pytest.raises(IndexError):
        words.snapshot(index, 1)


@pytest.mark.parametrize(("offset", "count"), [(4, 1), (-8, 1), (0, 3), (16, 1), (0, -1)])
def test_words_must_lie_in_the_buffer(offset: int, count: int) -> None:
    with pytest.raises(ValueError, match="do not lie in a buffer of 16 bytes"):
        Words(bytearray(16), offset, count)


def test_read_only_words_can_be_read_but_not_stored() -> None:
    words = read_only(b"\1" + bytes(15), 2)
    assert words.load(0) == 1
    with pytest.raises(TypeError, match="mapped read-only"):
        words.store(0, 2)
    with pytest.raises(TypeError, match="mapped read-only"):
        words.add(0)
    with pytest.raises(TypeError, match="mapped read-only"):
        words.record_latency(0, 1)


# ---- waiting ----


def test_wait_returns_at_once_if_the_word_differs_already(words: Words) -> None:
    words.store(0, 7)
    words.wait(0, 6, 3600 * SECOND_NS)


def test_wait_is_over_after_its_time(words: Words) -> None:
    words.wait(0, 0, 60_000_000)
    words.wait(0, 0, 0)


def test_wake_ends_a_wait(words: Words) -> None:
    def wake_until_noticed() -> None:
        while not ended.wait(0.001):
            words.wake(0)

    ended = threading.Event()
    waker = threading.Thread(target=wake_until_noticed)
    waker.start()
    words.wait(0, 0, 3600 * SECOND_NS)
    ended.set()
    waker.join()


def test_who_may_only_read_a_word_can_wait_for_it_and_wake_others(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_bytes(bytes(mmap.PAGESIZE))
    with path.open("rb") as file:
        readers = [Words(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), 0, 1) for _ in range(2)]
    with pytest.raises(TypeError):
        readers[1].store(0, 1)
    ended = threading.Event()

    def wake_until_noticed() -> None:
        while not ended.wait(0.001):
            readers[1].wake(0)

    waker = threading.Thread(target=wake_until_noticed)
    waker.start()
    readers[0].wait(0, 0, 3600 * SECOND_NS)
    ended.set()
    waker.join()


# ---- histogram ----


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0, 0), (1, 1), (15, 15), (16, 16), (17, 17), (31, 31), (32, 32), (33, 32), (34, 33), (63, 47), (64, 48),
     (2**20, 272), (2**63 - 1, 959), (2**63, 960), (2**64 - 1, 975)],
)  # fmt: skip
def test_the_edges_of_the_buckets(value: int, bucket: int) -> None:
    assert histogram_bucket(value) == bucket


def test_there_are_976_buckets() -> None:
    assert HISTOGRAM_BUCKETS == 976


@given(value=U64, more=U64)
def test_a_larger_value_never_has_a_smaller_bucket(value: int, more: int) -> None:
    small, large = sorted((value, more))
    assert 0 <= histogram_bucket(small) <= histogram_bucket(large) < HISTOGRAM_BUCKETS


@given(value=st.integers(16, 2**64 - 1))
def test_a_bucket_is_at_most_a_sixteenth_of_its_value_wide(value: int) -> None:
    beyond = value + value // 16 + 1
    assert beyond >= 2**64 or histogram_bucket(beyond) > histogram_bucket(value)


def test_a_latency_counts_in_its_bucket_and_a_negative_one_as_0() -> None:
    words = Words(mmap.mmap(-1, 16384), 0, 1024)
    for latency in (-5, 0, 16, 16, 2**40):
        words.record_latency(7, latency)
    counts = words.snapshot(7, HISTOGRAM_BUCKETS)
    assert {int(bucket): int(counts[bucket]) for bucket in np.flatnonzero(counts)} == {
        0: 2, 16: 2, histogram_bucket(2**40): 1,
    }  # fmt: skip


def test_a_histogram_must_lie_within_the_words() -> None:
    words = Words(mmap.mmap(-1, 16384), 0, HISTOGRAM_BUCKETS)
    words.record_latency(0, 1)
    with pytest.raises(IndexError):
        words.record_latency(1, 1)
