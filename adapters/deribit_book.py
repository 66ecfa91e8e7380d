"""Deribit, the book: its rules, and how it is subscribed to.

Documentation (read November 2026): docs.deribit.com, "book.{instrument_name}.{interval}". ``deribit.py`` makes one
object per instrument, which then gets its decoded messages::

    book = DeribitBook(channel, request, counts)         # (method, delay_ns) -> the frame that asks for it
    book.sync.on_subscribe(now_ns)
    book.on_push(push, ts_recv, emit)

The venue's rules:

1. The first message is a snapshot, all levels "new", without prev_change_id. What comes before it says nothing; one
   that comes later replaces the book.
2. prev_change_id of each change is change_id of the message before; else unsubscribe and subscribe again.
3. A level has a new absolute amount ("new", "change"), or is gone ("delete"; or its amount is 0).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

from msgspec import Raw, Struct

from mdring.adapters.deribit_channels import MS, Count, Push
from mdring.feed.adapter import NOTHING, AdapterCounts, Request, Send, VenueProtocolError
from mdring.feed.emit import Emit
from mdring.feed.socket_book import FrameWire, SocketBook
from mdring.feed.stage import Channel
from mdring.record import Flags, Reason, Side

# ---- wire schema ------------------------------------------------------------------------------------------


class Levels(Struct, gc=False):
    """{"timestamp":1790133845258,"type":"change","change_id":193809650259,"instrument_name":"NVDA_USDC-PERPETUAL","bids":[],"asks":[["change",228.58,91.89]],"prev_change_id":193809644396}"""

    timestamp: Count
    type: Literal["snapshot", "change"]
    change_id: Count
    bids: Raw
    asks: Raw
    prev_change_id: Count | None = None  # of changes


# As ``QUOTE_FORM`` of ``deribit_channels.py``.
CHANGE_FORM: Final = (
    '{"jsonrpc":"2.0","method":"subscription","params":{"channel":<any>,"data":<members>{"timestamp":<time>,'
    '"type":"change","change_id":<last>,"instrument_name":"%s","bids":<action_bids>,"asks":<action_asks>,'
    '"prev_change_id":<previous>}}}'
)
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)
_SNAPSHOT: Final = int(Flags.SNAPSHOT)

# ---- book sync --------------------------------------------------------------------------------------------


class DeribitBook:
    """The book of one instrument: its rules, and how it is subscribed to."""

    def __init__(self, channel: Channel, request: Callable[[str, int], Send], counts: AdapterCounts) -> None:
        """``request``: (method, delay_ns) to the frame that asks for it."""
        self._channel = channel
        self._counts = counts
        self.sync = SocketBook(channel, FrameWire(request), counts)

    def on_push(self, push: Push[Levels], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot or a change."""
        message = push.params.data
        if message.type == "change":
            return self._on_change(message, ts_recv, emit) if self.sync.valid else NOTHING
        return self._on_snapshot(message, ts_recv, emit) if self.sync.takes_snapshots else NOTHING

    def _on_snapshot(self, message: Levels, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rule 1."""
        emit.clear(self._channel, Reason.SNAPSHOT, message.timestamp * MS, message.change_id, _SNAPSHOT)
        self._stage(message, _SNAPSHOT, emit)
        requests = self.sync.synced(message.change_id, ts_recv, emit)
        self.sync.first = -1
        return requests

    def _on_change(self, message: Levels, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rule 2."""
        sync, previous = self.sync, message.prev_change_id
        if previous != sync.last:
            if previous is None:
                raise VenueProtocolError("a change does not say which one it follows")
            if previous == sync.first and message.change_id == sync.last:  # the last one once more
                self._counts.repeated += 1
                return NOTHING
            return sync.gap(sync.last, previous, ts_recv, emit)
        self._stage(message, 0, emit)
        sync.first, sync.last = previous, message.change_id
        return NOTHING

    def _stage(self, message: Levels, flags: int, emit: Emit) -> None:
        """Rule 3."""
        ts_event, last = message.timestamp * MS, message.change_id
        emit.action_levels(self._channel, _BID, message.bids, ts_event, last, flags)
        emit.action_levels(self._channel, _ASK, message.asks, ts_event, last, flags)
        emit.end()
