"""Writer and Reader of ``mdring.ring._ring`` within one process; concurrency is proved in ``tests/stress``."""

from __future__ import annotations

import gc
import mmap

import numpy as np
import pytest

from mdring.ring._ring import Reader, Writer
from tests.ring.small_ring import LAST, RECORD, SmallRing, make_records, set_filter


@pytest.fixture
def ring() -> SmallRing:
    return SmallRing(16)


def poll(reader: Reader, room: int = 64) -> list[int]:
    """The values that one poll delivers."""
    out = np.zeros(room, dtype=RECORD)
    return [int(value) for value in out[: reader.poll(out)]["value"]]


# ---- the empty ring ----


def test_a_zeroed_segment_is_a_valid_empty_ring(ring: SmallRing) -> None:
    assert ring.writer().cursor == 0
    reader = ring.reader()
    assert poll(reader) == []
    assert (reader.position, reader.cursor, reader.lost, reader.laps) == (0, 0, 0, 0)


def test_the_first_record_has_seq_1(ring: SmallRing) -> None:
    assert ring.writer().publish(make_records(1)) == 1
    out = np.zeros(4, dtype=RECORD)
    assert ring.reader().poll(out) == 1
    assert out["seq"].tolist() == [1, 0, 0, 0]


# ---- publishing ----


def test_publish_returns_the_last_seq_and_moves_the_cursor(ring: SmallRing) -> None:
    writer = ring.writer()
    assert [writer.publish(make_records(2, 1)), writer.publish(make_records(4))] == [3, 7]
    assert writer.cursor == ring.reader().cursor == 7


def test_publish_takes_the_first_count_records(ring: SmallRing) -> None:
    writer, batch = ring.writer(), make_records(1, 1, 1)
    assert [writer.publish(batch, 1), writer.publish(batch, 2), writer.publish(batch)] == [1, 3, 6]
    assert poll(ring.reader()) == [1, 1, 2, 1, 2, 3]


def test_publish_sees_what_the_caller_changed_in_the_same_array(ring: SmallRing) -> None:
    writer, batch = ring.writer(), make_records(1)
    for value in (10, 20):
        batch["value"] = value
        writer.publish(batch)
    writer.publish(make_records(1, first_value=30))
    assert poll(ring.reader()) == [10, 20, 30]


def test_publishing_nothing_changes_nothing(ring: SmallRing) -> None:
    writer = ring.writer()
    assert writer.publish(make_records(1), 0) == 0
    assert writer.publish(np.zeros(0, dtype=RECORD)) == 0


def test_the_seq_of_the_callers_records_is_ignored(ring: SmallRing) -> None:
    batch = make_records(2)
    batch["seq"] = 99
    ring.writer().publish(batch)
    out = np.zeros(2, dtype=RECORD)
    assert ring.reader().poll(out) == 2
    assert out["seq"].tolist() == [1, 2]


def test_a_batch_must_end_with_the_end_of_a_group(ring: SmallRing) -> None:
    writer = ring.writer()
    with pytest.raises(ValueError, match="flags lack LAST"):
        writer.publish(make_records(3), 2)
    assert writer.cursor == 0


def test_a_batch_is_at_most_half_a_ring(ring: SmallRing) -> None:
    writer = ring.writer()
    assert writer.publish(make_records(8)) == 8
    with pytest.raises(ValueError, match=r"cannot publish 9 records.*half the ring is 8"):
        writer.publish(make_records(9))
    with pytest.raises(ValueError, match="cannot publish 3 records: the array holds 2"):
        writer.publish(make_records(2), 3)


@pytest.mark.parametrize("array", [make_records(4)[::2], np.zeros((2, 2), dtype=RECORD).T], ids=["strided", "2-D"])
def test_records_must_be_contiguous(ring: SmallRing, array: np.ndarray[tuple[int], np.dtype[np.void]]) -> None:
    with pytest.raises((ValueError, BufferError)):
        ring.writer().publish(array)
    with pytest.raises((ValueError, BufferError)):
        ring.reader().poll(array)


def test_try_publish_refuses_to_overwrite_what_is_not_read(ring: SmallRing) -> None:
    writer, batch = ring.writer(), make_records(8)
    assert [writer.try_publish(batch, 8, 0), writer.try_publish(batch, 8, 0)] == [8, 16]
    assert writer.try_publish(batch, 8, 7) == 0
    assert writer.cursor == 16
    assert writer.try_publish(batch, 8, 8) == 24


def test_try_publish_refuses_a_reader_that_is_ahead(ring: SmallRing) -> None:
    assert ring.writer().try_publish(make_records(1), 1, read_position=5) == 0


# ---- polling ----


def test_poll_delivers_all_that_is_there_in_order_and_once(ring: SmallRing) -> None:
    writer, reader = ring.writer(), ring.reader()
    writer.publish(make_records(1, 3, 2))
    assert poll(reader) == [1, 2, 3, 4, 5, 6]
    assert poll(reader) == []
    writer.publish(make_records(1, first_value=7))
    assert poll(reader) == [7]
    assert (reader.position, reader.lost) == (7, 0)


def test_a_reader_begins_after_its_position(ring: SmallRing) -> None:
    ring.writer().publish(make_records(2, 1, 1))
    assert poll(ring.reader(position=2)) == [3, 4]


def test_readers_do_not_disturb_each_other(ring: SmallRing) -> None:
    ring.writer().publish(make_records(1, 1))
    first, second = ring.reader(), ring.reader()
    assert poll(first) == poll(second) == [1, 2]


def test_poll_never_splits_a_group_that_fits(ring: SmallRing) -> None:
    ring.writer().publish(make_records(2, 3, 1))
    reader = ring.reader()
    assert [poll(reader, room=4), poll(reader, room=4)] == [[1, 2], [3, 4, 5, 6]]
    assert not reader.partial


def test_a_group_larger_than_the_array_comes_in_parts_and_says_so(ring: SmallRing) -> None:
    ring.writer().publish(make_records(5, 1))
    reader = ring.reader()
    parts = []
    while values := poll(reader, room=2):
        parts.append((values, reader.partial))
    assert parts == [([1, 2], True), ([3, 4], True), ([5, 6], False)]


def test_poll_into_an_empty_array_delivers_nothing_and_loses_nothing(ring: SmallRing) -> None:
    ring.writer().publish(make_records(1))
    reader = ring.reader()
    assert poll(reader, room=0) == []
    assert (reader.position, reader.partial) == (0, False)
    assert poll(reader) == [1]


def test_poll_refuses_a_read_only_array(ring: SmallRing) -> None:
    out = np.zeros(2, dtype=RECORD)
    out.flags.writeable = False
    with pytest.raises((BufferError, ValueError)):
        ring.reader().poll(out)


# ---- being lapped ----


def test_a_lapped_reader_knows_exactly_how_many_it_lost_and_resumes(ring: SmallRing) -> None:
    writer, reader = ring.writer(), ring.reader()
    for first in range(1, 41, 8):
        writer.publish(make_records(*[1] * 8, first_value=first))
    assert poll(reader) == []
    # Of 40 records 16 are kept; the reader resumes an eighth of the ring above the oldest, at record 27.
    assert (reader.lost, reader.laps, reader.position) == (26, 1, 26)
    assert poll(reader) == list(range(27, 41))


def test_a_lapped_reader_resumes_at_the_begin_of_a_group(ring: SmallRing) -> None:
    writer, reader = ring.writer(), ring.reader()
    for first in range(1, 41, 8):
        writer.publish(make_records(5, 3, first_value=first))
    assert poll(reader) == []
    assert reader.lost == 29  # record 27 lies in the group 25..29
    assert poll(reader) == list(range(30, 41))


def test_a_group_that_is_half_overwritten_is_lost_as_a_whole(ring: SmallRing) -> None:
    writer, reader = ring.writer(), ring.reader()
    writer.publish(make_records(8))
    writer.publish(make_records(8))
    writer.publish(make_records(1))  # over record 1
    assert poll(reader) == []
    assert reader.lost == 8


def test_groups_before_the_lap_are_delivered_first(ring: SmallRing) -> None:
    writer, reader = ring.writer(), ring.reader()
    writer.publish(make_records(1, 1, 1, 1))
    ring.slots["seq"][2] = 0  # a writer died while it overwrote record 2
    assert (poll(reader), reader.lost) == ([1], 0)
    # Whether record 3 begins a group can no longer be known.
    assert (poll(reader), reader.lost) == ([], 2)
    assert poll(reader) == [4]


def test_oldest_is_the_end_of_a_group_that_is_still_there(ring: SmallRing) -> None:
    writer = ring.writer()
    assert ring.reader().oldest() == 0
    for first in range(1, 41, 8):
        writer.publish(make_records(5, 3, first_value=first))
    oldest = ring.reader().oldest()
    assert oldest == 29
    assert poll(ring.reader(oldest))[0] == 30


# ---- filter ----


def test_a_filter_by_kind_and_instrument_skips_but_keeps_counting(ring: SmallRing) -> None:
    batch = make_records(1, 1, 1, 1)
    batch["kind"] = [1, 2, 1, 1]
    batch["instrument"] = [0, 0, 1, 0]
    ring.writer().publish(batch)
    reader = ring.reader()
    set_filter(reader, kinds=1 << 1, instruments=[1, 0])
    assert poll(reader) == [1, 4]
    assert (reader.position, reader.lost) == (4, 0)


def test_the_last_wanted_record_of_a_group_carries_last(ring: SmallRing) -> None:
    batch = make_records(3, 2)
    batch["kind"] = [1, 1, 2, 2, 2]
    ring.writer().publish(batch)
    reader = ring.reader()
    set_filter(reader, kinds=1 << 1)
    out = np.zeros(5, dtype=RECORD)
    assert reader.poll(out) == 2
    assert (out["flags"] & LAST).tolist() == [0, 1, 0, 0, 0]
    assert reader.position == 5


def test_an_instrument_newer_than_the_filter_is_delivered(ring: SmallRing) -> None:
    batch = make_records(1, 1)
    batch["instrument"] = [1, 2]
    ring.writer().publish(batch)
    reader = ring.reader()
    set_filter(reader, kinds=2**64 - 1, instruments=[0, 0])
    assert poll(reader) == [2]


def test_a_filter_keeps_its_own_copy_of_the_instruments(ring: SmallRing) -> None:
    ring.writer().publish(make_records(1))
    reader = ring.reader()
    chosen = np.ones(1, dtype=np.uint8)
    reader.set_filter(2**64 - 1, chosen, kind_offset=16, instrument_offset=20)
    chosen[0] = 0
    assert poll(reader) == [1]


def test_kinds_that_no_bit_stands_for_are_not_delivered(ring: SmallRing) -> None:
    batch = make_records(1, 1)
    batch["kind"] = [64, 63]
    ring.writer().publish(batch)
    reader = ring.reader()
    set_filter(reader, kinds=2**64 - 1)
    assert poll(reader) == [2]


@pytest.mark.parametrize(("kind_offset", "instrument_offset"), [(32, 20), (-1, 20), (16, 22), (16, 32), (16, -4)])
def test_a_filter_must_lie_in_the_record(ring: SmallRing, kind_offset: int, instrument_offset: int) -> None:
    with pytest.raises(ValueError, match="do not lie in the record"):
        ring.reader().set_filter(1, None, kind_offset=kind_offset, instrument_offset=instrument_offset)


# ---- a writer's death ----


def test_a_successor_takes_over_a_batch_that_shows_though_the_cursor_does_not_say_so(ring: SmallRing) -> None:
    ring.writer().publish(make_records(2))
    ring.cursor_word.store(0, 0)
    assert poll(ring.reader()) == [1, 2]
    assert ring.writer().cursor == ring.cursor_word.load(0) == 2


def test_a_successor_erases_records_of_a_batch_that_never_showed(ring: SmallRing) -> None:
    ring.writer().publish(make_records(1))
    ring.slots["seq"][3], ring.slots["flags"][3], ring.slots["value"][3] = 3, LAST, 666
    successor = ring.writer()
    assert successor.cursor == 1
    assert ring.slots["seq"].tolist() == [0, 1, *[0] * 14]
    successor.publish(make_records(1, first_value=2))
    assert poll(ring.reader()) == [1, 2]


# ---- parameters ----


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"slot_size": 8}, "slot_size must be"),
        ({"slot_size": 20}, "slot_size must be"),
        ({"slot_size": 520}, "slot_size must be"),
        ({"slot_count": 4}, "slot_count must be a power of two"),
        ({"slot_count": 24}, "slot_count must be a power of two"),
        ({"flags_offset": 7}, "flags byte"),
        ({"flags_offset": 32}, "flags byte"),
        ({"last_flag": 0}, "flags byte"),
        ({"last_flag": 256}, "flags byte"),
        ({"slot_count": 32}, "cannot hold 32 slots"),
        ({"cursor_offset": 256}, "cannot hold"),
    ],
)
def test_parameters_that_make_no_ring_are_refused(changed: dict[str, int], message: str) -> None:
    memory = mmap.mmap(-1, 256 + 16 * 32)
    parameters = {"cursor_offset": 128, "data_offset": 256, "slot_size": 32, "slot_count": 16, "flags_offset": 17,
                  "last_flag": 1} | changed  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Writer(memory, **parameters)
    with pytest.raises(ValueError, match=message):
        Reader(memory, **parameters, position=0)
    memory.close()  # raises BufferError if the memory is still held


def test_a_writer_needs_writable_memory() -> None:
    with pytest.raises((BufferError, TypeError)):
        Writer(bytes(1024), 128, 256, 32, 16, 17, 1)


def test_objects_in_a_reference_cycle_give_their_memory_back() -> None:
    ring = SmallRing(16)
    memory = ring.memory
    writer, reader = ring.writer(), ring.reader()
    writer.publish(make_records(1))
    poll(reader)
    cycle: list[object] = [writer, reader, ring.cursor_word, ring]
    cycle.append(cycle)
    del cycle, writer, reader, ring
    gc.collect()
    memory.close()  # raises BufferError if the memory is still held
