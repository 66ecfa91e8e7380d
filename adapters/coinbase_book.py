"""Coinbase Exchange, the book of one product: the channels ``level2_batch`` and ``level2``.

Documentation (read November 2026): docs.cdp.coinbase.com/exchange, WebSocket channels and best practices. Integrity:
the order of one connection, from the snapshot on. The venue's numbered rules stand at "Book sync" below.

Quirks: neither ids nor a checksum. Prices and sizes have more or fewer zeros than the product's increments. A message
of ``level2_batch`` holds all changes of 50 ms in their order, a price perhaps more than once. Snapshots of 2021 have no
time.

``coinbase.py`` makes one object per product that takes the frames as they come::

    book = CoinbaseBook(channel, data_types, request, counts)
    book.take_update(message, ts_recv, emit)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Raw, Struct

from mdring.feed.adapter import (
    NOTHING,
    UNREADABLE,
    AdapterCounts,
    Request,
    Send,
    VenueProtocolError,
    blamed,
)
from mdring.feed.book_routes import QuotedRoute
from mdring.feed.emit import Emit
from mdring.feed.fixed import time_ns
from mdring.feed.local_book import LocalBook
from mdring.feed.socket_book import BookWire, SocketBook
from mdring.feed.stage import Channel
from mdring.record import DataType, Flags, Reason, Side, State

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload.


class Snapshot(Struct, gc=False):
    """{"type":"snapshot","product_id":"BAND-GBP","asks":[["14.8024","12.77"],["14.8060","56.4"]],"bids":[["14.7550","12.5"]]}"""

    asks: Raw
    bids: Raw
    time: str = ""


class L2Update(Struct, gc=False):
    """{"type":"l2update","product_id":"SKL-BTC","changes":[["sell","0.00001306","660.5"]],"time":"2021-04-17T16:43:37.075687Z"}"""

    changes: Raw
    time: str


# The form of what comes most, as the venue writes it (``feed/template.pyx``); the product is put in.
UPDATE_FORM: Final = '{"type":"l2update","product_id":"%s","changes":<changes>,"time":"<utc>"}'
Op = Literal["subscribe", "unsubscribe"]
_SNAPSHOT: Final = msgspec.json.Decoder(Snapshot)
_UPDATE: Final = msgspec.json.Decoder(L2Update)
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)
_IMAGE: Final = int(Flags.SNAPSHOT)


# ---- book sync --------------------------------------------------------------------------------------------
# The venue's rules (channels "level2" and "level2_batch", best practices):
#   1. Subscribe and wait for the snapshot; an update before it says nothing.
#   2. An update has absolute sizes, to be applied in their order; 0 deletes, also what is not there.
#   3. Nothing tells that an update is missing. On any doubt end the subscription and subscribe again, which brings a
#      new snapshot; so does a new connection.

CROSSED_NS: Final = 1_000_000_000
"""A book crossed for so long has missed something; unless its snapshot was, as in an auction."""
_AS_TOLD: Final = -1


class CoinbaseBook(BookWire):
    """The book of one product: its rules, how it is subscribed to, and the quotes that are made of it."""

    def __init__(
        self,
        channel: Channel,
        data_types: Sequence[DataType],
        request: Callable[[Op, int], Send],
        counts: AdapterCounts,
    ) -> None:
        """``data_types``: what is wanted, BOOK, BBO or both; ``request``: (op, delay_ns) to the frame that asks."""
        self._channel = channel
        self._request = request
        self._tells_levels = DataType.BOOK in data_types
        self._tells_quotes = DataType.BBO in data_types
        self._levels = LocalBook(channel)
        self.sync = SocketBook(channel, self, counts)
        self.route = QuotedRoute(
            UPDATE_FORM % channel.instrument,
            channel,
            self.sync,
            self._levels,
            levels=self._tells_levels,
            quotes=self._tells_quotes,
        )

    def unsubscribe(self) -> Sequence[Request]:
        """End it."""
        return (self._request("unsubscribe", 0),)

    def subscribe(self, delay_ns: int) -> Sequence[Request]:
        """Begin it."""
        return (self._request("subscribe", delay_ns),)

    # Messages

    def take_snapshot(self, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The whole book."""
        if not self.sync.takes_snapshots:
            return NOTHING
        try:
            return self._on_snapshot(_SNAPSHOT.decode(message), ts_recv, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, self._channel.instrument, DataType.BOOK) from error

    def take_update(self, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """What has changed."""
        if not self.sync.valid:
            return NOTHING
        try:
            return self._on_update(_UPDATE.decode(message), ts_recv, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, self._channel.instrument, DataType.BOOK) from error

    def _on_snapshot(self, snapshot: Snapshot, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rule 1."""
        mark, ts_event = emit.mark(), time_ns(snapshot.time) if snapshot.time else 0
        self._levels.clear()
        emit.clear(self._channel, Reason.SNAPSHOT, ts_event, 0, _IMAGE)
        emit.levels(self._channel, _BID, snapshot.bids, ts_event, 0, _IMAGE)
        emit.levels(self._channel, _ASK, snapshot.asks, ts_event, 0, _IMAGE)
        emit.end()
        self._levels.apply(emit, mark)
        self._levels.crossed_ns = _AS_TOLD if self._levels.is_crossed else 0
        requests = self.sync.synced(0, ts_recv, emit)
        self._conclude(mark, ts_event, emit)
        return requests

    def _on_update(self, update: L2Update, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rule 2."""
        mark, ts_event = emit.mark(), time_ns(update.time)
        emit.sided_levels(self._channel, update.changes, ts_event)
        emit.end()
        self._levels.apply(emit, mark)
        self._conclude(mark, ts_event, emit)
        return self._look_crossed(ts_recv, emit)

    def _conclude(self, mark: int, ts_event: int, emit: Emit) -> None:
        """What of a message is wanted: its levels, the quote that they make, or both."""
        if not self._tells_levels:
            emit.rollback(mark)
        if self._tells_quotes and self._levels.stage_bbo(emit, ts_event):
            emit.end()

    def _look_crossed(self, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Rule 3: a book may not stay crossed."""
        since_ns = self._levels.crossed_since(now_ns)
        if since_ns > 0 and now_ns - since_ns > CROSSED_NS:
            return self.resync(now_ns, Reason.CROSSED, emit)
        return NOTHING

    # What the connection brings

    def on_timer(self, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Look for a snapshot that is late, and for a book that stays crossed."""
        if self.sync.valid:
            return self._look_crossed(now_ns, emit)
        mark = emit.mark()
        requests = self.sync.on_timer(now_ns, emit)
        self._tell_of_quotes(mark, Reason.SNAPSHOT_FAILED, emit)
        return requests

    def resync(self, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rule 3."""
        mark = emit.mark()
        requests = self.sync.resync(now_ns, reason, emit)
        self._tell_of_quotes(mark, reason, emit)
        return requests

    def on_rejected(self, emit: Emit) -> None:
        """The venue refuses it."""
        mark = emit.mark()
        self.sync.on_rejected(Reason.SUBSCRIBE_REJECTED, emit)
        if not self._tells_levels:
            emit.rollback(mark)

    def on_disconnect(self, reason: Reason, emit: Emit) -> None:
        """It ends with its connection."""
        mark = emit.mark()
        self.sync.on_disconnect(reason, emit)
        if not self._tells_levels:
            emit.rollback(mark)

    def _tell_of_quotes(self, mark: int, reason: Reason, emit: Emit) -> None:
        """Where nobody wants the book itself: say that it is the quotes which are not kept up."""
        if not self._tells_levels and emit.mark() != mark:
            emit.rollback(mark)
            emit.status(self._channel, State.RESYNCING, reason, DataType.BBO)
            emit.end()
