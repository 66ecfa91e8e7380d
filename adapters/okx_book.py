"""OKX v5, the book: its rules, and how it is subscribed to.

Documentation (read November 2026): okx.com/docs-v5, "Order book channel", "Sequence ID". ``okx.py`` makes one object
per instrument, which then gets its decoded messages::

    book = OkxBook(channel, request, counts)         # (op, delay_ns) -> the frame that asks for it
    book.sync.on_subscribe(now_ns)
    book.on_push(push, ts_recv, emit)

The venue's rules:

1. The first message after the subscription is the snapshot, prevSeqId -1. One that comes later replaces the book.
2. prevSeqId of each update is seqId of the message before; else unsubscribe and subscribe again.
3. Legal: no levels, seqId == prevSeqId (nothing has changed for 60 s); seqId < prevSeqId (maintenance).
4. Size 0 deletes. Levels that enter or leave the window of 400 are told as any other.
5. The checksum, where it is not 0, is that of the best 25 levels after the message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Raw, Struct, field

from mdring.adapters.okx_channels import Push, SeqId, time_ns
from mdring.feed.adapter import NOTHING, AdapterCounts, Request, Send, VenueProtocolError
from mdring.feed.emit import Emit
from mdring.feed.local_book import LocalBook
from mdring.feed.socket_book import FrameWire, SocketBook
from mdring.feed.stage import Channel
from mdring.record import Flags, Reason, Side

# ---- wire schema ------------------------------------------------------------------------------------------


class Levels(Struct, gc=False):
    """{"asks":[["30249.4","0","0","0"],["30261","4","0","1"],["30310.3","19","0","1"]],"bids":[["30182.6","452","0","1"]],"ts":"1652459225464","checksum":-914047754}"""

    asks: Raw
    bids: Raw
    ts: str
    checksum: int = 0
    seq_id: SeqId | None = field(name="seqId", default=None)
    previous: int | None = field(name="prevSeqId", default=None)


# The form of an update as the venue writes it (``feed/template.pyx``); the name of the instrument is put in. A checksum
# that is not 0 is none of it.
UPDATE_FORM: Final = (
    '{"arg":{"channel":"books","instId":"%s"},"action":"update","data":[{"asks":<asks>,"bids":<bids>,"ts":"<time>",'
    '"checksum":0,"seqId":<last>,"prevSeqId":<previous>}]}'
)
ORDERS_AT: Final = 3
"""Which element of a level is its number of orders."""
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)
_SNAPSHOT: Final = int(Flags.SNAPSHOT)

# ---- book sync --------------------------------------------------------------------------------------------

CHECKED_LEVELS: Final = 25
BOOK_LEVELS: Final = 400


class OkxBook:
    """The book of one instrument: its rules, and how it is subscribed to."""

    def __init__(self, channel: Channel, request: Callable[[str, int], Send], counts: AdapterCounts) -> None:
        """``request``: (op, delay_ns) to the frame that asks for it."""
        self._channel = channel
        self._counts = counts
        self._levels = LocalBook(channel)
        self._is_checked = False  # since the last snapshot: nothing has to be kept where nothing is to be compared
        self.sync = SocketBook(channel, FrameWire(request), counts)

    def on_push(self, push: Push[Levels], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot or an update."""
        if len(push.data) != 1:
            raise VenueProtocolError(f"a message of {len(push.data)} books")
        message = push.data[0]
        if push.action == "update":
            return self._on_update(message, ts_recv, emit) if self.sync.valid else NOTHING
        if push.action != "snapshot":
            raise VenueProtocolError(f"the action of a book is {push.action!r}")
        return self._on_snapshot(message, ts_recv, emit) if self.sync.takes_snapshots else NOTHING

    def _on_snapshot(self, message: Levels, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rule 1."""
        mark = emit.mark()
        last = message.seq_id or 0
        self._is_checked = message.checksum != 0
        self._levels.clear()
        emit.clear(self._channel, Reason.SNAPSHOT, time_ns(message.ts), last, _SNAPSHOT)
        self._stage(message, _SNAPSHOT, emit)
        failed = self._check(message, mark, ts_recv, emit)
        if failed is not None:
            return failed
        requests = self.sync.synced(last, ts_recv, emit)
        self.sync.first = -1
        self.sync.live = not self._is_checked  # a direct route knows no checksum
        return requests

    def _on_update(self, message: Levels, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rules 2 and 3."""
        sync, previous = self.sync, message.previous
        if previous != sync.last:
            if previous is None:
                if not (self._is_checked and message.checksum):
                    raise VenueProtocolError("an update with neither sequence id nor checksum")
            elif previous == sync.first and message.seq_id == sync.last:  # the last one once more
                self._counts.repeated += 1
                return NOTHING
            else:
                return sync.gap(sync.last, max(previous, 0), ts_recv, emit)  # -1: it claims to be the first
        mark = emit.mark()
        self._stage(message, 0, emit)
        failed = self._check(message, mark, ts_recv, emit)
        if failed is not None:
            return failed
        if message.seq_id is not None and previous is not None:
            sync.first, sync.last = previous, message.seq_id
        return NOTHING

    def _stage(self, message: Levels, flags: int, emit: Emit) -> None:
        """Rule 4."""
        ts_event, last = time_ns(message.ts), message.seq_id or 0
        emit.levels(self._channel, _ASK, message.asks, ts_event, last, flags, ORDERS_AT)
        emit.levels(self._channel, _BID, message.bids, ts_event, last, flags, ORDERS_AT)

    def _check(self, message: Levels, mark: int, ts_recv: int, emit: Emit) -> Sequence[Request] | None:
        """Rule 5: close the group, or take it back. None if nothing is wrong."""
        if self._is_checked:
            self._levels.apply(emit, mark)
            if message.checksum:
                self._counts.checksums += 1
                found, expected = self._levels.crc32_of_pairs(CHECKED_LEVELS), message.checksum & 0xFFFF_FFFF
                if found != expected:
                    emit.rollback(mark)
                    return self.sync.checksum_failed(expected, found, ts_recv, emit)
        emit.end()
        return None
