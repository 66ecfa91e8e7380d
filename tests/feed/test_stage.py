"""The stage: event groups, marks, numbering, what a full ring does, and what is counted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import RECORD, DataType, Flags, Kind, Reason, Side, State, offset_of
from mdring.ring import segment
from mdring.ring._ring import HISTOGRAM_BUCKETS, Words, Writer, histogram_bucket
from tests.feed.times import TS_EVENT, TS_RECV

# ---- groups, marks, numbers -------------------------------------------------------------------------------


def stage_group(emit: Emit, channel: Channel, levels: int, price: int = 1) -> None:
    emit.levels(channel, Side.BID, json.dumps([[price, 1]] * levels).encode(), TS_EVENT)
    emit.end()


def test_each_group_ends_with_last_and_an_empty_group_is_none(emit: Emit, channel: Channel) -> None:
    emit.end()
    stage_group(emit, channel, 3)
    stage_group(emit, channel, 0)
    stage_group(emit, channel, 1)
    emit.end()
    assert emit.drain()["flags"].tolist() == [0, 0, Flags.LAST, Flags.LAST]


def test_rollback_drops_what_was_staged_since_the_mark_and_reopens_nothing(emit: Emit, channel: Channel) -> None:
    stage_group(emit, channel, 2)
    mark = emit.mark()
    stage_group(emit, channel, 5)
    emit.clear(channel, Reason.CHECKSUM)
    emit.rollback(mark)
    assert emit.staged == 2
    rows = emit.drain()
    assert rows["flags"].tolist() == [0, Flags.LAST]
    assert rows["channel_seq"].tolist() == [1, 2]


def test_rollback_into_a_group_leaves_it_open(emit: Emit, channel: Channel) -> None:
    emit.clear(channel, Reason.SNAPSHOT)
    mark = emit.mark()
    stage_group(emit, channel, 2)
    emit.rollback(mark)
    with pytest.raises(RuntimeError, match="open"):
        emit.drain()
    emit.end()
    assert emit.drain()["flags"].tolist() == [Flags.LAST]


@pytest.mark.parametrize("mark", [-1, 1])
def test_rollback_to_a_place_that_is_none_is_our_bug(emit: Emit, mark: int) -> None:
    with pytest.raises(ValueError, match="mark"):
        emit.rollback(mark)


def test_channel_seq_counts_per_channel_and_data_type(emit: Emit) -> None:
    one, two = Channel("A", 1, 1, 0, 0), Channel("B", 2, 1, 0, 0)
    for channel in (one, two, one):
        emit.clear(channel, Reason.SNAPSHOT)
        emit.levels(channel, Side.BID, b"[[1,1],[2,1]]", TS_EVENT)
        emit.end()
        emit.status(channel, State.SYNCED, Reason.NONE)
        emit.end()
    rows = emit.drain()
    book = rows[rows["kind"] != Kind.STATUS]
    assert book[book["instrument_id"] == 1]["channel_seq"].tolist() == [1, 2, 3, 4, 5, 6]
    assert book[book["instrument_id"] == 2]["channel_seq"].tolist() == [1, 2, 3]
    assert rows[rows["kind"] == Kind.STATUS]["channel_seq"].tolist() == [1, 1, 2]
    assert (one.channel_seq(DataType.BOOK), one.channel_seq(DataType.STATUS), one.channel_seq(DataType.TRADE)) == (
        6,
        2,
        0,
    )


def test_restored_channel_goes_on_where_it_was(emit: Emit, channel: Channel) -> None:
    channel.restore(DataType.BOOK, 41)
    stage_group(emit, channel, 1)
    assert emit.drain()["channel_seq"].tolist() == [42]


def test_stage_lets_go_of_the_channels_that_it_held(channel: Channel, ring: Ring) -> None:
    before = sys.getrefcount(channel)

    def use_a_stage() -> None:
        emit = Emit(1)
        for finish in (emit.drain, emit.rollback, lambda: emit.commit(ring.writer)):
            stage_group(emit, channel, 3)
            stage_group(emit, channel, 2)
            assert sys.getrefcount(channel) == before + 2
            finish()
            assert sys.getrefcount(channel) == before
        stage_group(emit, channel, 3)

    use_a_stage()
    assert sys.getrefcount(channel) == before


def test_unknown_data_type_of_a_channel_is_our_bug(channel: Channel) -> None:
    with pytest.raises(KeyError):
        channel.restore(99, 1)


# ---- committing to a ring ---------------------------------------------------------------------------------


class Ring:
    """A real ring of 32 slots in a file, with its writer, a reader, and the word of the sequencer's position."""

    def __init__(self, path: Path) -> None:
        self.segment = segment.create(
            path, segment.SegmentKind.RING, version=1, fingerprint=1, run_id=1, slot_size=RECORD.itemsize, slot_count=32
        )
        layout = {"flags_offset": offset_of("flags"), "last_flag": int(Flags.LAST)}
        self.writer: Writer = self.segment.writer(**layout)
        self.reader = self.segment.reader(**layout, position=0)
        self.positions = Words(bytearray(64), 0, 8)

    def poll(self) -> npt.NDArray[np.void]:
        out = np.zeros(64, dtype=RECORD)
        return out[: self.reader.poll(out)]


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    ring = Ring(tmp_path / "ring")
    yield ring
    ring.segment.close()


def test_committed_groups_stand_on_the_ring_in_order(emit: Emit, channel: Channel, ring: Ring) -> None:
    stage_group(emit, channel, 3, price=1)
    stage_group(emit, channel, 1, price=2)
    assert emit.commit(ring.writer, ring.positions, 1) == 4
    assert emit.staged == 0 and emit.refused == 0
    rows = ring.poll()
    assert rows["price"].tolist() == [100, 100, 100, 200]
    assert rows["seq"].tolist() == [1, 2, 3, 4]
    assert rows["channel_seq"].tolist() == [1, 2, 3, 4]


def test_commit_of_nothing_publishes_nothing(emit: Emit, ring: Ring) -> None:
    assert emit.commit(ring.writer, ring.positions) == 0
    assert ring.writer.cursor == 0


def test_full_ring_refuses_whole_groups_and_all_that_follow(emit: Emit, ring: Ring) -> None:
    one, two = Channel("A", 1, 1, 0, 0), Channel("B", 2, 1, 0, 0)
    stage_group(emit, one, 14)
    assert emit.commit(ring.writer, ring.positions) == 14
    stage_group(emit, one, 10, price=5)
    stage_group(emit, two, 10, price=6)  # 34 of 32 slots: refused
    stage_group(emit, one, 1, price=7)  # would fit, but must not overtake
    assert emit.commit(ring.writer, ring.positions) == 10
    assert emit.refused == 11
    assert emit.refused_channels() == [(two, DataType.BOOK, 10), (one, DataType.BOOK, 1)]
    assert emit.refused_instruments() == [1, 2]
    assert ring.writer.cursor == 24
    assert (one.channel_seq(DataType.BOOK), two.channel_seq(DataType.BOOK)) == (24, 0)


def test_refused_records_leave_no_hole_in_channel_seq(emit: Emit, channel: Channel, ring: Ring) -> None:
    stage_group(emit, channel, 16)
    emit.commit(ring.writer, ring.positions)
    stage_group(emit, channel, 15)
    emit.commit(ring.writer, ring.positions)
    stage_group(emit, channel, 15)
    assert emit.commit(ring.writer, ring.positions) == 0
    seen = ring.poll()["channel_seq"].tolist()
    ring.positions.store(0, 31)
    stage_group(emit, channel, 2)
    assert emit.commit(ring.writer, ring.positions) == 2
    assert emit.refused == 0 and emit.refused_channels() == []
    assert seen + ring.poll()["channel_seq"].tolist() == list(range(1, 34))


def test_batch_larger_than_half_the_ring_goes_group_by_group(emit: Emit, channel: Channel, ring: Ring) -> None:
    for _ in range(3):
        stage_group(emit, channel, 8)
    assert emit.commit(ring.writer, ring.positions) == 24
    assert emit.refused == 0
    assert len(ring.poll()) == 24


def test_group_larger_than_half_the_ring_is_refused(emit: Emit, channel: Channel, ring: Ring) -> None:
    stage_group(emit, channel, 17)
    assert emit.commit(ring.writer) == 0
    assert emit.refused == 17 and ring.writer.cursor == 0


def test_without_a_reading_sequencer_the_ring_is_never_full(emit: Emit, channel: Channel, ring: Ring) -> None:
    for _ in range(10):
        stage_group(emit, channel, 16)
        assert emit.commit(ring.writer) == 16
    assert ring.writer.cursor == 160


def test_open_group_cannot_be_committed(emit: Emit, channel: Channel, ring: Ring) -> None:
    emit.clear(channel, Reason.SNAPSHOT)
    with pytest.raises(RuntimeError, match="open"):
        emit.commit(ring.writer)


# ---- counters ---------------------------------------------------------------------------------------------


def test_counters_hold_frames_bytes_records_and_one_latency_per_live_group(
    emit: Emit, channel: Channel, ring: Ring
) -> None:
    words = Words(bytearray(8 * (8 + HISTOGRAM_BUCKETS)), 0, 8 + HISTOGRAM_BUCKETS)
    emit.attach_counters(words, 0, 1, 2, 8)
    emit.observe(2, 300)
    emit.observe(1, 50)
    stage_group(emit, channel, 3)
    emit.levels(channel, Side.BID, b"[[1,1]]", TS_RECV + 1_000)  # the venue's clock is ahead
    emit.end()
    emit.levels(channel, Side.BID, b"[[1,1]]", TS_EVENT, flags=Flags.SNAPSHOT)
    emit.end()
    emit.clear(channel, Reason.SNAPSHOT)
    emit.end()
    emit.commit(ring.writer, ring.positions)
    assert [words.load(index) for index in range(3)] == [3, 350, 6]
    buckets = words.snapshot(8)
    assert buckets.sum() == 2
    assert buckets[histogram_bucket(5_000_000)] == 1 and buckets[0] == 1


def test_refused_records_are_not_counted_as_published(emit: Emit, channel: Channel, ring: Ring) -> None:
    words = Words(bytearray(8 * (8 + HISTOGRAM_BUCKETS)), 0, 8 + HISTOGRAM_BUCKETS)
    emit.attach_counters(words, 0, 1, 2, 8)
    stage_group(emit, channel, 2)
    stage_group(emit, channel, 17)
    emit.commit(ring.writer, ring.positions)
    assert words.load(2) == 2 and words.snapshot(8).sum() == 1


def test_counters_of_another_process_or_beyond_the_segment_are_refused(emit: Emit) -> None:
    with pytest.raises(TypeError):
        emit.attach_counters(Words(bytes(16384), 0, 2048), 0, 1, 2, 8)
    with pytest.raises(IndexError):
        emit.attach_counters(Words(bytearray(8 * HISTOGRAM_BUCKETS), 0, HISTOGRAM_BUCKETS), 0, 1, 2, 8)
