"""The publisher: what was staged goes onto the venue ring, and what does not fit is a loss that is told.

Part of the worker; ``driver.py`` stages through ``emit`` and commits. A full ring never blocks the socket: the
sequencer's position is only looked at. From the first group that the ring refuses nothing is published any more,
until half of the ring is free again (an image of a book takes up to that much) and the loss has been told::

    publisher.commit()
    if publisher.losing and publisher.has_room():
        loss = publisher.end_loss()       # now stage STATUS(DROPPED) and a CLEAR for each of loss.books, commit
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from msgspec import Struct

from mdring.counters import POSITIONS_WORD, WAITING_WORD, Counter, Counters, Histogram
from mdring.feed.channels import ChannelStore
from mdring.feed.direct import DirectPath, DirectRoutes
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import DataType, Flags, offset_of
from mdring.ring import segment
from mdring.ring._ring import Words

# A position that no ring has, far above every cursor: the room left is then negative, and every group refused.
_NO_ROOM: Final = np.array([1 << 63], dtype=np.uint64)


class Loss(Struct, frozen=True):
    """What the full ring has cost."""

    records: int
    books: tuple[Channel, ...]  # records of these books are missing
    statuses: bool  # STATUS records are missing


class Publisher:
    """The way from the stage to the venue ring of one venue."""

    def __init__(
        self, ring: segment.Segment, venue_id: int, sequencer: Words, counters: Counters, store: ChannelStore
    ) -> None:
        """``ring`` is mapped writable and not yet locked; ``sequencer`` are the sequencer's counters.

        Raises AlreadyWritten if another worker lives. ``store`` is restored from the ring.
        """
        self.emit = Emit()
        self.emit.attach_counters(
            counters.words,
            Counter.FRAMES,
            Counter.BYTES,
            Counter.RECORDS,
            counters.histogram_word(Histogram.VENUE_TO_RECEIVE),
        )
        self.losing = False
        """Whether records are being dropped, or were and it has not been told yet."""
        self._writer = ring.writer(flags_offset=offset_of("flags"), last_flag=int(Flags.LAST))
        self._slots = ring.slot_count
        self._sequencer = sequencer
        self._position_word = POSITIONS_WORD + venue_id
        self._no_room = Words(_NO_ROOM, 0, 1)
        self._counters = counters
        self._store = store
        self._channels: list[Channel] = []
        self._saved_at = self._writer.cursor
        self._save_after = self._slots // ChannelStore.SAVE_SHARE
        self._lost = 0
        self._lost_books: dict[int, Channel] = {}
        self._lost_statuses = False
        self._path: DirectPath | None = None
        store.restore(ring)

    @property
    def cursor(self) -> int:
        """The ring's highest seq; not 0 if this worker has had predecessors."""
        return self._writer.cursor

    def add(self, channels: Iterable[Channel]) -> None:
        """Have these channels go on where they were, and keep their channel_seqs across restarts from now on."""
        for channel in channels:
            self._store.resume(channel)
            self._channels.append(channel)

    def direct_path(self, routes: DirectRoutes) -> DirectPath:
        """The native way of messages that these routes take."""
        self._path = DirectPath(
            routes, self.emit, self._writer, self._sequencer, self._position_word, WAITING_WORD, self.save_channels,
            self._note_loss,
        )  # fmt: skip
        self._path.save_at = self._saved_at + self._save_after
        return self._path

    def commit(self) -> None:
        """Publish what is staged, all or from some event group on none of it, and wake the sequencer if it sleeps."""
        emit, writer = self.emit, self._writer
        if not emit.staged:
            return
        if self.losing:
            published = emit.commit(writer, self._no_room, 0)
        else:
            published = emit.commit(writer, self._sequencer, self._position_word)
        if published:
            writer.wake_if(self._sequencer, WAITING_WORD)
            if writer.cursor - self._saved_at >= self._save_after:
                self.save_channels()
        if emit.refused:
            self._note_loss()

    def has_room(self) -> bool:
        """Whether half of the ring is free."""
        return self._writer.cursor - self._sequencer.load(self._position_word) <= self._slots // 2

    def end_loss(self) -> Loss:
        """Let records through again. The first ones must tell the loss."""
        loss = Loss(self._lost, tuple(self._lost_books.values()), self._lost_statuses)
        self.losing = False
        if self._path is not None:
            self._path.enabled = True
        self._lost = 0
        self._lost_books = {}
        self._lost_statuses = False
        return loss

    def save_channels(self) -> None:
        """Store the channel_seqs, if anything was published since the last time."""
        if self._writer.cursor != self._saved_at:
            self._store.save(self._channels)
            self._saved_at = self._writer.cursor
            if self._path is not None:
                self._path.save_at = self._saved_at + self._save_after

    def _note_loss(self) -> None:
        self.losing = True
        if self._path is not None:
            self._path.enabled = False
        self._lost += self.emit.refused
        self._counters.add(Counter.DROPS, self.emit.refused)
        for channel, data_type, _ in self.emit.refused_channels():
            if data_type is DataType.BOOK:
                self._lost_books[channel.instrument_id] = channel
            elif data_type is DataType.STATUS:
                self._lost_statuses = True
