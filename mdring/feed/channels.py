"""The channel store: keeps every ``channel_seq`` of a venue across restarts of its worker.

Part of the worker, which is the only writer of the segment ``channels.<venue>``: one slot of 64 bytes per
instrument_id, in it one word per DataType with the last ``channel_seq``. Saving costs time, so it is done now and
then, never before the records are published, and at the latest when an eighth of the ring is filled anew. Hence a
stored number never lies above the published one, and whatever it lies below is still in the venue ring, also
where a worker died amid a batch of half a ring: the truth is the larger of the two::

    store = ChannelStore.attach(folder.channels("binance"))
    store.restore(ring)                   # once, after the ring's writer was opened
    store.resume(channel)                 # each channel goes on where it was
    store.save(channels)                  # at least each time ``ChannelStore.SAVE_SHARE`` of the ring was filled
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from mdring.feed.stage import Channel
from mdring.record import DATA_TYPE_OF_KIND, FINGERPRINT, LAYOUT_VERSION, RECORD, DataType, Flags, offset_of
from mdring.ring import segment
from mdring.ring._ring import Words

_WORDS_PER_INSTRUMENT: Final = 8
assert max(DataType) < _WORDS_PER_INSTRUMENT
_SCAN_BATCH: Final = 4096


class ChannelStore:
    """The venue's channel_seqs, as mapped by its worker."""

    SAVE_SHARE: Final = 8
    """A save is due when the ring's slots divided by this were filled since the last one."""

    def __init__(self, mapped: segment.Segment) -> None:
        self._segment = mapped
        self._count = mapped.slot_count * _WORDS_PER_INSTRUMENT
        self._words = Words(mapped.mapping, segment.HEADER_SIZE, self._count)

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Become the segment's writer. Raises SegmentError (AlreadyWritten if another worker lives)."""
        mapped = segment.attach(
            path, segment.SegmentKind.CHANNELS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, writable=True
        )
        mapped.lock()
        return cls(mapped)

    def restore(self, ring: segment.Segment) -> None:
        """Save what the ring holds that was not saved; its writer must have resumed already."""
        found = _scan(ring, self._count)
        for index in np.flatnonzero(found > self._words.snapshot()):
            self._words.store(int(index), int(found[index]))

    def last(self, instrument_id: int, data_type: DataType) -> int:
        """The last channel_seq published so far: by predecessors, or up to the last save."""
        return self._words.load(instrument_id * _WORDS_PER_INSTRUMENT + data_type)

    def resume(self, channel: Channel) -> None:
        """Have ``channel`` go on after the last channel_seqs of its instrument."""
        for data_type in DataType:
            channel.restore(data_type, self.last(channel.instrument_id, data_type))

    def save(self, channels: Iterable[Channel]) -> None:
        """Store what the channels have published."""
        words = self._words
        for channel in channels:
            channel.save(words, channel.instrument_id * _WORDS_PER_INSTRUMENT, _WORDS_PER_INSTRUMENT)

    def close(self) -> None:
        """Give the writer's lock up."""
        self._segment.close()


def _scan(ring: segment.Segment, count: int) -> npt.NDArray[np.uint64]:
    """The highest channel_seq in the ring's records of each instrument and data type, indexed as the segment is."""
    highest = np.zeros(count, dtype=np.uint64)
    data_types = np.zeros(256, dtype=np.uint64)
    for kind, data_type in DATA_TYPE_OF_KIND.items():
        data_types[kind] = data_type
    fields = {"flags_offset": offset_of("flags"), "last_flag": int(Flags.LAST)}
    reader = ring.reader(**fields, position=ring.reader(**fields, position=0).oldest())
    batch = np.empty(_SCAN_BATCH, dtype=RECORD)
    while found := reader.poll(batch):
        records = batch[:found]
        index = records["instrument_id"] * np.uint64(_WORDS_PER_INSTRUMENT) + data_types[records["kind"]]
        np.maximum.at(highest, index, records["channel_seq"])
    return highest
