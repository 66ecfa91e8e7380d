"""A book whose snapshots are fetched by REST while its deltas come by WebSocket.

One object per instrument, in the worker's adapter. It brings together what all such venues share: when to fetch,
how to wait between fetches, what to write into the stream at a gap, a failure, a snapshot. The venue gives a
:class:`BookSource`: its sync rules, its fetch, its decoding::

    book = SnapshotBook(channel, source, counts)
    requests = book.on_delta(first, last, 0, message, len(payload), ts_recv, emit)
    requests = book.on_response(response, ts_recv, emit)     # of the Fetch among those requests

What a consumer sees: STATUS(GAP) and CLEAR in one event group when deltas are missing; later CLEAR|SNAPSHOT with
all levels in one group, the held deltas as a group each, then STATUS(SYNCED).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from mdring.feed.adapter import NOTHING, AdapterCounts, Fetch, Request, Response
from mdring.feed.book_sync import BookSync, Held, SyncRules, SyncState, Verdict
from mdring.feed.chain import Chain
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import DataType, Reason, State

Message = TypeVar("Message")
Image = TypeVar("Image")

DELAY_NS: Final = 250_000_000
"""Waited before the second fetch for a book that stays invalid; doubles with each further one."""
MAX_DELAY_NS: Final = 30_000_000_000
HEALTHY_NS: Final = 30_000_000_000
"""A book that was valid for so long begins with no delay again."""
PAUSE_S: Final = {429: 60, 418: 120}
"""HTTP statuses that mean "too often", and how long to pause if the answer does not say."""
MAX_PAUSE_S: Final = 3 * 24 * 3600

_APPLY: Final = Verdict.APPLY


class BookSource(ABC, Generic[Message, Image]):
    """What a venue knows of the book of one instrument. Its methods may raise VenueProtocolError."""

    rules: SyncRules

    @abstractmethod
    def fetch(self, tag: str, delay_ns: int) -> Fetch:
        """The request for a snapshot."""

    @abstractmethod
    def decode_snapshot(self, body: bytes) -> tuple[int, Image]:
        """The id and the content of a snapshot."""

    @abstractmethod
    def stage_snapshot(self, image: Image, emit: Emit) -> None:
        """Stage a snapshot as one event group that begins with CLEAR|SNAPSHOT."""

    @abstractmethod
    def stage_delta(self, message: Message, emit: Emit) -> None:
        """Stage a delta as one event group, none if it is empty."""


class SnapshotBook(Generic[Message, Image]):
    """The book of one instrument, from the first subscription on."""

    __slots__ = (
        "_attempts",
        "_channel",
        "_counts",
        "_fetching",
        "_generation",
        "_source",
        "_stage_delta",
        "_sync",
        "_synced_at_ns",
    )

    def __init__(self, channel: Channel, source: BookSource[Message, Image], counts: AdapterCounts) -> None:
        self._channel = channel
        self._source = source
        self._stage_delta = source.stage_delta
        self._counts = counts
        self._sync = BookSync[Message](source.rules)
        self._generation = 0  # of fetches: an answer to an earlier one is of no use
        self._fetching = False
        self._attempts = 0  # fetches since the book was last healthy
        self._synced_at_ns = 0

    @property
    def valid(self) -> bool:
        """Whether consumers have a book."""
        return self._sync.valid

    @property
    def chain(self) -> Chain:
        """The ids of the deltas, for a direct route."""
        return self._sync

    def catch_up(self, last: int) -> None:
        """Deltas up to ``last`` have been applied by a direct route whose chain is another one."""
        sync = self._sync
        if sync.live:
            sync.first = sync.last = last
            sync.due = last if sync.chained else last + 1

    def await_snapshot(self, now_ns: int) -> Sequence[Request]:
        """Fetch a snapshot if the book needs one and none is under way."""
        if self._sync.valid or self._fetching:
            return NOTHING
        return self._fetch(now_ns)

    def on_delta(
        self, first: int, last: int, previous: int, message: Message, payload_bytes: int, ts_recv: int, emit: Emit
    ) -> Sequence[Request]:
        """One delta, with the numbers that the rules speak of; ``payload_bytes`` bounds what is held back."""
        verdict = self._sync.on_delta(first, last, previous)
        if verdict is _APPLY:
            self._stage_delta(message, emit)
            return NOTHING
        if verdict is Verdict.DROP:
            # After a snapshot it is what was to be expected.
            self._counts.repeated += self._sync.state is SyncState.LIVE
            return NOTHING
        if verdict is Verdict.GAP:
            self._note_gap(first, previous, emit)
        self._hold(Held(first, last, previous, ts_recv, message), payload_bytes, emit)
        return self.await_snapshot(ts_recv)

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The answer to the fetch. Raises VenueProtocolError; ``resync`` then starts anew."""
        if not self._fetching or response.tag != self._tag():
            return NOTHING
        self._fetching = False
        if response.status != 200:
            self._note_failure(response, emit)
            return self._fetch(ts_recv, pause_s(response) * 1_000_000_000)
        snapshot_id, image = self._source.decode_snapshot(response.body)
        if not self._sync.on_snapshot(snapshot_id):
            return self._fetch(ts_recv)
        self._counts.books_valid += 1
        self._source.stage_snapshot(image, emit)
        self._replay(emit)
        self._counts.snapshots += 1
        emit.begin(ts_recv)
        if not self._sync.valid:
            return self._fetch(ts_recv)
        emit.status(self._channel, State.SYNCED, Reason.NONE, DataType.BOOK)
        emit.end()
        self._synced_at_ns = ts_recv
        return NOTHING

    def resync(self, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Give the book up, say so, and build it anew."""
        self._counts.resyncs += 1
        emit.status(self._channel, State.RESYNCING, reason, DataType.BOOK)
        if self._sync.valid:
            emit.clear(self._channel, reason)
        emit.end()
        self._reset()
        return self.await_snapshot(now_ns)

    def on_disconnect(self, reason: Reason, emit: Emit) -> None:
        """CLEAR: neither deltas nor an answer under way can be relied on any more."""
        emit.clear(self._channel, reason)
        emit.end()
        self._reset()
        self._fetching = False

    def _replay(self, emit: Emit) -> None:
        """Judge what was held once more; each delta keeps the time when it came."""
        for held in self._sync.take_held():
            emit.begin(held.ts_recv)
            verdict = self._sync.on_delta(held.first, held.last, held.previous)
            if verdict is Verdict.APPLY:
                self._stage_delta(held.message, emit)
                continue
            if verdict is Verdict.GAP:
                self._note_gap(held.first, held.previous, emit)
            if verdict is not Verdict.DROP:
                self._hold(held, 0, emit)

    def _hold(self, held: Held[Message], payload_bytes: int, emit: Emit) -> None:
        if not self._sync.hold(held, payload_bytes):
            emit.status(self._channel, State.RESYNCING, Reason.BUFFER_FULL, DataType.BOOK)
            emit.end()

    def _note_gap(self, first: int, previous: int, emit: Emit) -> None:
        """Say which id was due and which came."""
        self._counts.gaps += 1
        self._counts.resyncs += 1
        self._counts.books_valid -= 1
        found = previous if self._sync.chained else first
        emit.status(self._channel, State.GAP, Reason.SEQUENCE_GAP, DataType.BOOK, expected=self._sync.due, found=found)
        emit.clear(self._channel, Reason.SEQUENCE_GAP)
        emit.end()

    def _note_failure(self, response: Response, emit: Emit) -> None:
        emit.status(
            self._channel,
            State.RESYNCING,
            Reason.SNAPSHOT_FAILED,
            DataType.BOOK,
            self._attempts,
            found=response.status,
            detail=response.body[:64].decode(errors="replace"),
        )
        emit.end()

    def _reset(self) -> None:
        self._counts.books_valid -= self._sync.valid
        self._sync.reset()

    def _tag(self) -> str:
        return f"{self._channel.instrument} {self._generation}"

    def _fetch(self, now_ns: int, pause_ns: int = 0) -> Sequence[Request]:
        if self._synced_at_ns and now_ns - self._synced_at_ns > HEALTHY_NS:
            self._attempts = 0
        self._synced_at_ns = 0
        delay_ns = min(DELAY_NS << min(self._attempts - 1, 16), MAX_DELAY_NS) if self._attempts else 0
        self._attempts += 1
        self._generation += 1
        self._fetching = True
        fetch = self._source.fetch(self._tag(), max(delay_ns, pause_ns))
        return (msgspec.structs.replace(fetch, instrument=self._channel.instrument),)


def pause_s(response: Response) -> int:
    """How long the venue wants to be left alone after this answer."""
    if response.status not in PAUSE_S:
        return 0
    told = next((value for name, value in response.headers.items() if name.lower() == "retry-after"), "")
    return min(int(told), MAX_PAUSE_S) if told.isascii() and told.isdecimal() else PAUSE_S[response.status]
