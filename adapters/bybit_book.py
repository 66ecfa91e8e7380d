"""Bybit v5, the book: its rules, and how it is subscribed to.

Documentation (read November 2026): bybit-exchange.github.io/docs/v5, "Orderbook", "Process snapshot/delta".
``bybit.py`` makes one object per instrument, which then gets its decoded messages::

    book = BybitBook(channel, request, counts)         # (op, delay_ns) -> the frame that asks for it
    book.sync.on_subscribe(now_ns)
    book.on_push(push, ts_recv, emit)

The venue's rules:

1. The first message after the subscription is a snapshot. Deltas before it say nothing.
2. u of each delta is that of the message before plus 1; else messages are missing: unsubscribe, subscribe again.
3. A snapshot that comes later, also one with u 1 after a restart of the service, replaces the book.
4. Size 0 deletes. Levels that enter or leave the window are told as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Raw, Struct, field

from mdring.adapters.bybit_channels import Push, Whole
from mdring.feed.adapter import NOTHING, AdapterCounts, Request, Send
from mdring.feed.emit import Emit
from mdring.feed.socket_book import FrameWire, SocketBook
from mdring.feed.stage import Channel
from mdring.record import Flags, Reason, Side

# ---- wire schema ------------------------------------------------------------------------------------------


class Levels(Struct, gc=False):
    """{"s":"BTCUSDT","b":[],"a":[["78716.4","0"],["78717.6","0.036091"],["78717.8","0"],["78748.5","0.001"],["78748.7","0.001"]],"u":217107088,"seq":113099229683}"""

    bids: Raw = field(name="b")
    asks: Raw = field(name="a")
    update_id: Whole = field(name="u")
    seq: Whole = 0


# The form of a delta as the venue writes it (``feed/template.pyx``); the topic is put in, and the head.
DELTA_FORM: Final = '{"topic":"%s",%s,"data":{"s":<any>,"b":<bids>,"a":<asks>,"u":<number>,"seq":<last>},"cts":<time>}'
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)
_SNAPSHOT: Final = int(Flags.SNAPSHOT)

# ---- book sync --------------------------------------------------------------------------------------------


class BybitBook:
    """The book of one instrument: its rules, and how it is subscribed to."""

    def __init__(self, channel: Channel, request: Callable[[str, int], Send], counts: AdapterCounts) -> None:
        """``request``: (op, delay_ns) to the frame that asks for it."""
        self._channel = channel
        self._counts = counts
        self.sync = SocketBook(channel, FrameWire(request), counts)

    def on_push(self, push: Push[Levels], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot or a delta."""
        sync, message = self.sync, push.data
        if push.type == "snapshot":
            return self._on_snapshot(push, ts_recv, emit) if sync.takes_snapshots else NOTHING
        if not sync.valid:  # rule 1
            return NOTHING
        if message.update_id != sync.last + 1:  # rule 2
            if message.update_id == sync.last:  # the last one once more
                self._counts.repeated += 1
                return NOTHING
            return sync.gap(sync.last + 1, message.update_id, ts_recv, emit)
        self._stage(message, push.matched_ns(), 0, emit)
        emit.end()
        sync.last = message.update_id
        return NOTHING

    def _on_snapshot(self, push: Push[Levels], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rules 1 and 3."""
        message, ts_event = push.data, push.matched_ns()
        emit.clear(self._channel, Reason.SNAPSHOT, ts_event, message.seq, _SNAPSHOT)
        self._stage(message, ts_event, _SNAPSHOT, emit)
        emit.end()
        return self.sync.synced(message.update_id, ts_recv, emit)

    def _stage(self, message: Levels, ts_event: int, flags: int, emit: Emit) -> None:
        """Rule 4."""
        emit.levels(self._channel, _BID, message.bids, ts_event, message.seq, flags)
        emit.levels(self._channel, _ASK, message.asks, ts_event, message.seq, flags)
