"""Kraken Spot v2, the book: its rules, and how it is subscribed to.

Documentation (read November 2026): docs.kraken.com, WebSocket v2, "Book", guide "Book checksum". ``kraken.py`` makes
one object per pair, which then gets its decoded messages::

    book = KrakenBook(channel, depth, request, counts)         # (method, delay_ns) -> the frame that asks for it
    book.sync.on_subscribe(now_ns)
    book.on_push(push, ts_recv, emit)

The venue's rules:

1. The first message after the subscription is the snapshot. Updates before it say nothing; one that comes later
   replaces the book.
2. Sizes are absolute, 0 deletes; a price may come twice in a message: in order.
3. After each message the book is cut to the depth subscribed to.
4. The checksum is that of the best 10 levels after rule 3: asks, then bids, best first, of each the digits of price
   and size as they are written, without point and leading zeros.
5. It differs: unsubscribe and subscribe again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Final

from msgspec import Meta, Raw, Struct

from mdring.adapters.kraken_channels import Push, only
from mdring.feed.adapter import NOTHING, AdapterCounts, Request, Send
from mdring.feed.book_routes import CheckedRoute
from mdring.feed.emit import Emit
from mdring.feed.fixed import time_ns
from mdring.feed.local_book import LocalBook
from mdring.feed.socket_book import FrameWire, SocketBook
from mdring.feed.stage import Channel
from mdring.record import Flags, Reason, Side

# ---- wire schema ------------------------------------------------------------------------------------------


class Levels(Struct, gc=False):
    """{"symbol":"BTC/USD","bids":[{"price":78858.8,"qty":0.00000000},{"price":78857.0,"qty":0.34775324}],"asks":[],"checksum":2416540570,"timestamp":"2026-08-24T22:21:58.343688Z"}"""

    bids: Raw
    asks: Raw
    checksum: Annotated[int, Meta(ge=0)]
    timestamp: str = ""  # older servers have none


# The form of what comes most, as the venue writes it (``feed/template.pyx``); the symbol is put in.
UPDATE_FORM: Final = (
    '{"channel":"book","type":"update","data":[{"symbol":"%s","bids":<object_bids>,"asks":<object_asks>,'
    '"checksum":<checksum>,"timestamp":"<utc>"}]}'
)
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)
_SNAPSHOT: Final = int(Flags.SNAPSHOT)

# ---- book sync --------------------------------------------------------------------------------------------

CHECKED_LEVELS: Final = 10


class KrakenBook:
    """The book of one pair: its rules, and how it is subscribed to."""

    def __init__(
        self, channel: Channel, depth: int, request: Callable[[str, int], Send], counts: AdapterCounts
    ) -> None:
        """``request``: (method, delay_ns) to the frame that asks for it."""
        self._channel = channel
        self._depth = depth
        self._counts = counts
        self._levels = LocalBook(channel)
        self.sync = SocketBook(channel, FrameWire(request), counts)
        self.route = CheckedRoute(
            UPDATE_FORM % channel.instrument,
            channel,
            self.sync,
            self._levels,
            counts,
            depth=depth,
            levels=CHECKED_LEVELS,
            price_decimals=-channel.price_exponent,
            size_decimals=-channel.size_exponent,
        )

    def on_precision(self, price_decimals: int, size_decimals: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """How the venue writes numbers. After a change the book is begun anew; numbers finer than the records of this
        pair can hold are then refused one by one."""
        route = self.route
        if (price_decimals, size_decimals) == (route.price_decimals, route.size_decimals):
            return NOTHING
        route.price_decimals, route.size_decimals = price_decimals, size_decimals
        return self.sync.resync(now_ns, Reason.SNAPSHOT, emit) if self.sync.valid else NOTHING

    def on_push(self, push: Push[Levels], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot or an update."""
        message = only(push)
        if push.type == "update":
            return self._on_update(message, ts_recv, emit) if self.sync.valid else NOTHING
        return self._on_snapshot(message, ts_recv, emit) if self.sync.takes_snapshots else NOTHING

    def _on_snapshot(self, message: Levels, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rule 1."""
        mark = emit.mark()
        ts_event = time_ns(message.timestamp) if message.timestamp else 0
        emit.clear(self._channel, Reason.SNAPSHOT, ts_event, 0, _SNAPSHOT)
        self._stage(message, ts_event, _SNAPSHOT, emit)
        self._levels.apply(emit, mark)
        failed = self._check(message, mark, ts_recv, emit)
        return self.sync.synced(0, ts_recv, emit) if failed is None else failed

    def _on_update(self, message: Levels, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rules 2 and 3."""
        mark = emit.mark()
        ts_event = time_ns(message.timestamp) if message.timestamp else 0
        self._stage(message, ts_event, 0, emit)
        self._levels.apply(emit, mark)
        self._levels.trim(emit, self._depth, ts_event)
        failed = self._check(message, mark, ts_recv, emit)
        return NOTHING if failed is None else failed

    def _stage(self, message: Levels, ts_event: int, flags: int, emit: Emit) -> None:
        emit.object_levels(self._channel, _BID, message.bids, ts_event, 0, flags)
        emit.object_levels(self._channel, _ASK, message.asks, ts_event, 0, flags)

    def _check(self, message: Levels, mark: int, ts_recv: int, emit: Emit) -> Sequence[Request] | None:
        """Rules 4 and 5: close the group, or take it back. None if nothing is wrong."""
        self._counts.checksums += 1
        route = self.route
        found = self._levels.crc32_of_digits(CHECKED_LEVELS, route.price_decimals, route.size_decimals)
        if found != message.checksum:
            emit.rollback(mark)
            return self.sync.checksum_failed(message.checksum, found, ts_recv, emit)
        emit.end()
        return None
