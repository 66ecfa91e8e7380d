"""The channel store: channel_seqs across workers, from what was saved and what the ring still holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mdring.feed.channels import ChannelStore
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import FINGERPRINT, LAYOUT_VERSION, DataType, Reason, State
from mdring.ring import segment
from mdring.ring._ring import Words, Writer
from mdring.ring.segment import AlreadyWritten, SegmentKind
from tests.runs import create_ring, open_writer

SLOTS = 64


@pytest.fixture
def path(run_folder: Path) -> Path:
    found = run_folder / "channels.x"
    segment.create(
        found, SegmentKind.CHANNELS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, run_id=1, slot_size=64,
        slot_count=16,
    ).close()  # fmt: skip
    return found


@pytest.fixture
def ring(run_folder: Path) -> Iterator[segment.Segment]:
    made = create_ring(run_folder / "ring.x", SLOTS)
    yield made
    made.close()


def publish(writer: Writer, channel: Channel, trades: int = 0, clears: int = 0, statuses: int = 0) -> None:
    """Publish so many records, each an event group of its own."""
    emit = Emit()
    for _ in range(trades):
        emit.trade(channel, "1", "1", 1, 1, 1)
        emit.end()
    for _ in range(clears):
        emit.clear(channel, Reason.NONE)
        emit.end()
    for _ in range(statuses):
        emit.status(channel, State.NONE, Reason.NONE)
        emit.end()
    emit.commit(writer)


def last(store: ChannelStore, instrument_id: int) -> list[int]:
    """Of STATUS, TRADE, BBO, BOOK."""
    return [store.last(instrument_id, data_type) for data_type in list(DataType)[:4]]


def test_channel_is_saved_within_the_words_only(path: Path) -> None:
    channel = Channel("A", 1, 1, 0, 0)
    channel.restore(DataType.TRADE, 7)
    mapped = segment.attach(
        path, SegmentKind.CHANNELS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, writable=True
    )  # fmt: skip
    words = Words(mapped.mapping, segment.HEADER_SIZE, 16)
    channel.save(words, 8, 8)
    assert words.snapshot().tolist() == [0] * (8 + DataType.TRADE) + [7] + [0] * (7 - DataType.TRADE)
    for first, count in ((-1, 8), (9, 8), (16, 1), (0, 17), (0, -1)):
        with pytest.raises(IndexError):
            channel.save(words, first, count)
    mapped.close()
    read_only = segment.attach(path, SegmentKind.CHANNELS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT)
    with pytest.raises(IndexError):
        channel.save(Words(read_only.mapping, segment.HEADER_SIZE, 16), 8, 8)
    read_only.close()


def test_first_worker_begins_at_nothing(path: Path, ring: segment.Segment) -> None:
    store = ChannelStore.attach(path)
    open_writer(ring)
    store.restore(ring)
    assert last(store, 3) == [0, 0, 0, 0]
    store.close()


def test_ring_alone_tells_what_was_never_saved(path: Path, ring: segment.Segment) -> None:
    writer = open_writer(ring)
    publish(writer, Channel("A", 3, 1, 0, 0), trades=5, clears=2, statuses=1)
    publish(writer, Channel("B", 4, 1, 0, 0), trades=7)
    store = ChannelStore.attach(path)
    store.restore(ring)
    assert last(store, 3) == [1, 5, 0, 2]
    assert last(store, 4) == [0, 7, 0, 0]
    store.close()


def test_saved_numbers_outlive_the_ring(path: Path, ring: segment.Segment) -> None:
    writer = open_writer(ring)
    old, new = Channel("A", 3, 1, 0, 0), Channel("B", 4, 1, 0, 0)
    publish(writer, old, trades=9)
    store = ChannelStore.attach(path)
    store.save([old, new])
    store.close()
    for _ in range(10):  # the ring forgets the old one
        publish(writer, new, trades=20)
    successor = ChannelStore.attach(path)
    successor.restore(ring)
    assert successor.last(3, DataType.TRADE) == 9
    assert successor.last(4, DataType.TRADE) == 200
    successor.close()


def test_save_that_is_due_is_early_enough_whatever_batch_is_published_before_it(
    path: Path, ring: segment.Segment
) -> None:
    """Just short of a due save, then half a ring at once, then death: the other channel must still be found."""
    writer = open_writer(ring)
    quiet, busy = Channel("A", 3, 1, 0, 0), Channel("B", 4, 1, 0, 0)
    for _ in range(5):
        publish(writer, busy, trades=17)
    store = ChannelStore.attach(path)
    store.save([quiet, busy])
    store.close()
    publish(writer, quiet, trades=1)
    publish(writer, busy, trades=SLOTS // ChannelStore.SAVE_SHARE - 2)
    publish(writer, busy, trades=SLOTS // 2)
    successor = ChannelStore.attach(path)
    successor.restore(ring)
    assert successor.last(3, DataType.TRADE) == 1
    successor.close()


def test_channel_resumes_after_what_was_published(path: Path, ring: segment.Segment) -> None:
    writer = open_writer(ring)
    publish(writer, Channel("A", 3, 1, 0, 0), trades=5, clears=2)
    store = ChannelStore.attach(path)
    store.restore(ring)
    channel = Channel("A", 3, 1, 0, 0)
    store.resume(channel)
    assert [channel.channel_seq(data_type) for data_type in list(DataType)[:4]] == [0, 5, 0, 2]
    store.save([channel])
    store.close()
    again = ChannelStore.attach(path)
    assert last(again, 3) == [0, 5, 0, 2]
    again.close()


def test_second_worker_cannot_have_the_store(path: Path) -> None:
    store = ChannelStore.attach(path)
    with pytest.raises(AlreadyWritten):
        ChannelStore.attach(path)
    store.close()
    ChannelStore.attach(path).close()


def test_every_instrument_has_words_of_its_own(path: Path, ring: segment.Segment) -> None:
    writer = open_writer(ring)
    for number in range(16):
        publish(writer, Channel(str(number), number, 1, 0, 0), trades=number % 3 + 1, statuses=1)
    store = ChannelStore.attach(path)
    store.restore(ring)
    assert [last(store, number) for number in range(16)] == [[1, number % 3 + 1, 0, 0] for number in range(16)]
    store.close()


def test_what_was_found_in_the_ring_is_saved_at_once(path: Path, ring: segment.Segment) -> None:
    """A worker that publishes nothing on a channel never saves it again, and the ring forgets."""
    writer = open_writer(ring)
    publish(writer, Channel("A", 3, 1, 0, 0), trades=5)
    for _ in range(3):
        store = ChannelStore.attach(path)
        store.restore(ring)
        assert store.last(3, DataType.TRADE) == 5
        store.close()
        publish(writer, Channel("B", 4, 1, 0, 0), trades=SLOTS // 2)
        publish(writer, Channel("B", 4, 1, 0, 0), trades=SLOTS // 2)
