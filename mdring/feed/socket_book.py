"""A book whose snapshots come on the WebSocket, in answer to its subscription.

One object per instrument, in the worker's adapter, for the venues that need no REST: it says when deltas count, what
stands in the stream at a gap, and rebuilds one book without touching another, by subscribing anew. How deltas follow
one another is the venue's: the adapter compares, and calls::

    if not book.valid: return NOTHING                           # before its snapshot a delta says nothing
    if delta.previous != book.last:
        return book.gap(book.last, delta.previous, ts_recv, emit)
    emit.levels(…); emit.end(); book.last = delta.id

    emit.clear(…, Flags.SNAPSHOT); emit.levels(…); emit.end()   # a snapshot, at any time
    return book.synced(snapshot.id, ts_recv, emit)

States::

                     +------------------------------ gap, checksum, resync ------------------------------+
                     v                                                                                   |
    OFF --on_subscribe--> AWAIT_SNAPSHOT --synced--> LIVE --------------------------------------------->-+
                              ^                        |  (synced again: a snapshot that nobody asked for)
                              +--- on_unsubscribed --- UNSUBSCRIBING

Most venues answer a second subscription with nothing, so the old one has to end first: ``unsubscribe`` of the wire is
sent at once, ``subscribe`` when ``on_unsubscribed`` is told, after a delay that doubles while the book stays invalid.
Where the end of a subscription is not acknowledged, both are sent in this order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from mdring.feed.adapter import NOTHING, AdapterCounts, Request
from mdring.feed.chain import Chain
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import DataType, Reason, State

DELAY_NS: Final = 250_000_000
"""Waited before the second subscription for a book that stays invalid; doubles with each further one."""
MAX_DELAY_NS: Final = 60_000_000_000
HEALTHY_NS: Final = 30_000_000_000
"""A book that was valid for so long begins with no delay again."""
PATIENCE_NS: Final = 30_000_000_000
"""A snapshot, or the end of a subscription, that has not come within this time (and the delay) is asked for anew."""


class BookState(Enum):
    """How far a book is."""

    OFF = "off"  # not subscribed: no connection, or the venue refuses
    UNSUBSCRIBING = "unsubscribing"
    AWAIT_SNAPSHOT = "await_snapshot"
    LIVE = "live"


_LIVE: Final = BookState.LIVE


class BookWire(ABC):
    """How a venue's subscription to one book is ended and begun."""

    acknowledges_end: bool = True
    """Whether the venue says when a subscription has ended (the adapter then calls ``on_unsubscribed``)."""

    @abstractmethod
    def unsubscribe(self) -> Sequence[Request]:
        """End the subscription."""

    @abstractmethod
    def subscribe(self, delay_ns: int) -> Sequence[Request]:
        """Begin it, after a delay."""


class FrameWire(BookWire):
    """The wire where one frame ends the subscription to a book and another begins it."""

    def __init__(self, request: Callable[[str, int], Request]) -> None:
        """``request``: ("unsubscribe" or "subscribe", delay_ns) to the request that sends the frame."""
        self._request = request

    def unsubscribe(self) -> Sequence[Request]:
        """End it."""
        return (self._request("unsubscribe", 0),)

    def subscribe(self, delay_ns: int) -> Sequence[Request]:
        """Begin it."""
        return (self._request("subscribe", delay_ns),)


class SocketBook(Chain):
    """The book of one instrument. ``last`` is the venue's id up to which it is complete."""

    __slots__ = ("_attempts", "_channel", "_counts", "_delay_ns", "_due_ns", "_synced_at_ns", "_wire", "state")

    def __init__(self, channel: Channel, wire: BookWire, counts: AdapterCounts) -> None:
        self._channel = channel
        self._wire = wire
        self._counts = counts
        self._attempts = 0  # subscriptions anew since the book was last healthy
        self._delay_ns = 0
        self._due_ns = 0  # when what is awaited is late
        self._synced_at_ns = 0
        self.chained = True
        self._enter(BookState.OFF)
        self.last = 0

    @property
    def valid(self) -> bool:
        """Whether consumers have a book; deltas count only then."""
        return self.state is _LIVE

    @property
    def takes_snapshots(self) -> bool:
        """Whether a snapshot that comes now is of the subscription that counts."""
        return self.state is _LIVE or self.state is BookState.AWAIT_SNAPSHOT

    def on_subscribe(self, now_ns: int) -> None:
        """The adapter subscribes to it, on a new connection."""
        self._await(BookState.AWAIT_SNAPSHOT, now_ns)

    def synced(self, last: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """A snapshot was staged, as an event group; the book is complete up to ``last``."""
        self._counts.snapshots += 1
        self.last = last
        if self.state is not _LIVE:
            self._counts.books_valid += 1
            self._enter(_LIVE)
            self._synced_at_ns = now_ns
            emit.status(self._channel, State.SYNCED, Reason.NONE, DataType.BOOK)
            emit.end()
        return NOTHING

    def gap(self, expected: int, found: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Messages are missing: ``found`` came where ``expected`` was due."""
        return self._lose(Reason.SEQUENCE_GAP, expected, found, now_ns, emit)

    def checksum_failed(self, expected: int, found: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Our checksum is ``found``, the venue's ``expected``. What the message staged was rolled back before."""
        return self._lose(Reason.CHECKSUM, expected, found, now_ns, emit)

    def resync(self, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """The book cannot be trusted, or its snapshot could not be used: give it up, say so, and subscribe anew."""
        if not self.takes_snapshots:  # under way already, or of no use
            return NOTHING
        self._counts.resyncs += 1
        emit.status(self._channel, State.RESYNCING, reason, DataType.BOOK)
        if self.valid:
            emit.clear(self._channel, reason)
        emit.end()
        return self._subscribe_anew(now_ns)

    def on_unsubscribed(self, now_ns: int) -> Sequence[Request]:
        """The venue acknowledges the end of the subscription; others than ours are ignored."""
        if self.state is not BookState.UNSUBSCRIBING:
            return NOTHING
        self._await(BookState.AWAIT_SNAPSHOT, now_ns)
        return self._wire.subscribe(self._delay_ns)

    def on_rejected(self, reason: Reason, emit: Emit) -> None:
        """The venue refuses the subscription: nothing more is done for this book on this connection."""
        if self.valid:
            self._counts.books_valid -= 1
            emit.clear(self._channel, reason)
            emit.end()
        self._enter(BookState.OFF)

    def on_timer(self, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Ask anew for what is late."""
        if self.state is _LIVE or self.state is BookState.OFF or now_ns < self._due_ns:
            return NOTHING
        if self.state is BookState.UNSUBSCRIBING:
            return self.on_unsubscribed(now_ns)
        return self.resync(now_ns, Reason.SNAPSHOT_FAILED, emit)

    def on_disconnect(self, reason: Reason, emit: Emit) -> None:
        """CLEAR: what comes next is another subscription's."""
        emit.clear(self._channel, reason)
        emit.end()
        self._counts.books_valid -= self.valid
        self._enter(BookState.OFF)
        self.last = 0

    def _lose(self, reason: Reason, expected: int, found: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        if not self.takes_snapshots:
            return NOTHING
        self._counts.gaps += 1
        self._counts.resyncs += 1
        emit.status(self._channel, State.GAP, reason, DataType.BOOK, expected=expected, found=found)
        if self.valid:
            emit.clear(self._channel, reason)
        emit.end()
        return self._subscribe_anew(now_ns)

    def _subscribe_anew(self, now_ns: int) -> Sequence[Request]:
        self._counts.books_valid -= self.valid
        if self._synced_at_ns and now_ns - self._synced_at_ns > HEALTHY_NS:
            self._attempts = 0
        self._synced_at_ns = 0
        self._delay_ns = min(DELAY_NS << min(self._attempts - 1, 16), MAX_DELAY_NS) if self._attempts else 0
        self._attempts += 1
        self.last = 0
        self._await(BookState.UNSUBSCRIBING, now_ns)
        requests = list(self._wire.unsubscribe())
        if not self._wire.acknowledges_end:
            requests += self.on_unsubscribed(now_ns)
        return requests

    def _enter(self, state: BookState) -> None:
        self.state = state
        self.live = state is _LIVE

    def _await(self, state: BookState, now_ns: int) -> None:
        self._enter(state)
        self._due_ns = now_ns + PATIENCE_NS + (self._delay_ns if state is BookState.AWAIT_SNAPSHOT else 0)
