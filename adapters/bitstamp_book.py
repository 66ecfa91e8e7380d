"""Bitstamp v2, the book: diffs by WebSocket, put in order against a REST snapshot by time stamps alone.

Documentation (read November 2026): bitstamp.net/websocket/v2, "Live full order book"; bitstamp.net/api, "Order book".
``bitstamp.py`` makes one object per market whose book or quotes are subscribed to::

    book = BitstampBook(channel, connection, rest_url, DataType.BOOK in wanted, DataType.BBO in wanted, counts, unknown)
    book.on_message(diff, ts_recv, emit)

The venue's rules, and what follows from them where it says nothing:

1. Subscribe to the diffs and hold them; then fetch the snapshot, S = its ``microtimestamp``.
2. Discard diffs with ``microtimestamp`` <= S, apply the others in the order in which they come.
3. A snapshot is up to 2.6 s old when it comes. It counts if no diff can be missing between S and the oldest one held:
   S is not below the diff before that, or, if nothing came before, not below that one itself. If nothing has come at
   all, it counts if it was asked for long enough after the subscription (``QUIET_NS``). A diff whose stamp cannot be
   read is as a new subscription. One of which the rest is of no use was seen as any other: a snapshot has to know it.
4. ``microtimestamp`` never falls. Two diffs may have the same one.
5. Size 0 deletes. A diff never deletes what is not there, and leaves no book crossed.

There is neither sequence number nor checksum, so that a diff is lost does not show when the next one comes. It is TCP
that keeps them; how long the book would be wrong if one was lost all the same is bounded: each book is audited, that
is, held against another snapshot, when it has been subscribed to, then every so often, and soon after a diff that
breaks rule 5. A book that stays crossed is given up at once. What an audit finds missing is told as any gap is.

Quotes are the best levels of this book, for the venue has no channel of them (``order_book`` sends 100 levels a side
for each, of other moments). Where they alone are wanted the levels stay here; CLEAR is told, and means the quotes, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct

from mdring.adapters.bitstamp_channels import US, Push
from mdring.feed.adapter import (
    NOTHING,
    UNREADABLE,
    AdapterCounts,
    Fetch,
    Request,
    Response,
    UnknownMessages,
    VenueProtocolError,
)
from mdring.feed.book_routes import QuotedRoute
from mdring.feed.book_sync import BookSync, Held, SyncRules, Verdict
from mdring.feed.chain import Chain
from mdring.feed.emit import Emit
from mdring.feed.local_book import LocalBook
from mdring.feed.number_text import whole
from mdring.feed.snapshot_book import BookSource, SnapshotBook
from mdring.feed.stage import Channel
from mdring.record import Flags, Reason, Side

# ---- wire schema ------------------------------------------------------------------------------------------


class Diff(Struct, gc=False):
    """{"timestamp":"1641343721","microtimestamp":"1641343721663333","bids":[],"asks":[["0.38142","1163.70962488"]]}"""

    microtimestamp: str
    bids: Raw
    asks: Raw


class Snapshot(Struct, gc=False):
    """{"timestamp":"1641343695","microtimestamp":"1641343695572693","bids":[["0.14695","4567.41344936"]],"asks":[["0.14745","2009.07442349"]]}"""

    microtimestamp: str
    bids: Raw
    asks: Raw


# The form of a diff as the venue writes it (``feed/template.pyx``); the market is put in.
DIFF_FORM: Final = (
    '{"data":{"timestamp":<any>,"microtimestamp":"<stamp>","bids":<bids>,"asks":<asks>},'
    '"channel":"diff_order_book_%s","event":"data"}'
)
_DIFF: Final = msgspec.json.Decoder(Push[Diff])
_SNAPSHOT: Final = msgspec.json.Decoder(Snapshot)
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)

# ---- book sync --------------------------------------------------------------------------------------------

SETTLE_NS: Final = 750_000_000
"""From the first diff to the fetch: the snapshots are so old that one asked for at once would most often not count."""
QUIET_NS: Final = 3_000_000_000
"""No snapshot was found older than 2.6 s: one asked for so long after the subscription is newer than that."""
OLDEST_US: Final = 60_000_000
"""A snapshot that lies so far behind the diffs, or a diff behind the one before, shows that a stamp was wrong."""
CROSSED_US: Final = 1_000_000
"""A book crossed for so long lacks a diff. For a moment it may be: two diffs may have the same stamp."""
AUDIT_REST_NS: Final = 60_000_000_000
"""Least distance of two audits of a book."""
IN_FLIGHT_NS: Final = 2_000_000_000
"""What a snapshot knows has come as diffs, too, after so long."""


def reaches(snapshot: int, first: int, previous: int) -> bool:
    """Rule 3. ``previous`` is the highest stamp before the oldest diff held, 0 if there is none."""
    return snapshot >= (previous if 0 < previous < first + OLDEST_US else first)


def after_snapshot(snapshot: int, first: int, last: int, previous: int) -> Verdict:
    """Rule 2."""
    return Verdict.DROP if last <= snapshot else Verdict.APPLY


def after_delta(begun: int, applied: int, first: int, last: int, previous: int) -> Verdict:
    """Rule 4."""
    return Verdict.APPLY if first >= applied else Verdict.GAP


STAMP_RULES: Final = SyncRules(False, reaches, after_snapshot, after_delta)

_NO_CHANGE: Final = Diff("0", Raw(b"[]"), Raw(b"[]"))


class Audit:
    """Another snapshot on its way, and the diffs since it was asked for."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.sync = BookSync[Diff](STAMP_RULES)
        self.image: Snapshot | None = None  # once it has come
        self.stamp = 0  # its
        self.come_ns = 0

    def hold(self, stamp: int, previous: int, diff: Diff, payload_bytes: int) -> bool:
        """Keep a diff. False if there is no room: the audit is of no use any more."""
        return self.sync.hold(Held(stamp, stamp, previous, 0, diff), payload_bytes)


class BitstampBook(BookSource[Diff, Snapshot]):
    """The book of one market: its rules, its wire, and the object that keeps it in sync."""

    rules = STAMP_RULES

    def __init__(
        self,
        channel: Channel,
        connection: int,
        rest_url: str,
        tells_levels: bool,
        tells_quotes: bool,
        counts: AdapterCounts,
        unknown: UnknownMessages,
    ) -> None:
        self.book = SnapshotBook(channel, self, counts)
        self.audited_ns = 0  # when the last audit began
        self._has_failed = False  # the last audit
        self._channel = channel
        self._connection = connection
        self._url = f"{rest_url.rstrip('/')}/api/v2/order_book/{channel.instrument}/?group=1"
        self._tells_levels = tells_levels
        self._tells_quotes = tells_quotes
        self._counts = counts
        self._unknown = unknown
        self._levels = LocalBook(channel)
        self._orphans = 0  # ``orphans`` of the levels when there was no doubt
        self._crossed_at = 0  # stamp of the diff that crossed the book; 0: it is not crossed
        # ``last`` is the highest stamp on this connection; 0: none yet. While nothing else than to apply them has to be
        # done with diffs it is ``live``, and the route may take them.
        self.seen = Chain()
        self.route = QuotedRoute(
            DIFF_FORM % channel.instrument,
            channel,
            self.seen,
            self._levels,
            levels=tells_levels,
            quotes=tells_quotes,
            unit_ns=US,
        )
        self._quiet_tag = ""  # of the fetch that was put off because no diff had come
        self._audit: Audit | None = None
        self._audits = 0

    # What comes

    def on_subscribed(self, now_ns: int) -> Sequence[Request]:
        """The venue has acknowledged: from here on no diff is missed. The audit is what a book without any diff is
        begun with."""
        return NOTHING if self.book.valid or self._audit is not None else self.begin_audit(now_ns)

    def decode(self, message: bytes) -> Push[Diff]:
        """A message of the channel, to the stamp of its diff. One that cannot be read so far may have had any."""
        try:
            push = _DIFF.decode(message)
            whole(push.data.microtimestamp)
        except (*UNREADABLE, VenueProtocolError):
            self._lose_place()
            raise
        return push

    def on_message(self, diff: Diff, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One diff, as decoded here."""
        seen, audit = self.seen, self._audit
        stamp, previous = int(diff.microtimestamp), seen.last
        seen.live = False  # until all is well
        self.book.catch_up(previous)
        if self._levels.crossed_ns and not self._crossed_at:  # the route has taken the diff that crossed it
            self._crossed_at = previous
        if stamp > previous:
            seen.last = stamp
        size = len(diff.bids) + len(diff.asks)
        if audit is not None and not audit.hold(stamp, previous, diff, size):
            self._audit, self._has_failed, audit = None, True, None
        requests = self.book.on_delta(stamp, stamp, previous, diff, size, ts_recv, emit)
        if not self.book.valid:
            if stamp < previous:  # a gap
                self._audit = None
            return requests
        if audit is not None and audit.image is not None and stamp > audit.stamp:
            return self._judge(audit.image, ts_recv, emit)
        return self._look(stamp, ts_recv, emit)

    def _look(self, stamp: int, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Rule 5, after a diff on a book that is valid."""
        if not self._levels.crossed_since(ts_recv):
            self._crossed_at = 0
        elif self._crossed_at == 0:
            self._crossed_at = stamp
        elif stamp - self._crossed_at >= CROSSED_US:
            return self.resync(ts_recv, Reason.CROSSED, emit)
        self.seen.live = self._audit is None and self.book.chain.live
        return NOTHING

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot, or why there is none."""
        audit = self._audit
        if audit is None or response.tag != audit.tag:
            if self.seen.last == 0 and response.tag != self._quiet_tag:  # asked for before a diff was lost
                response = Response(response.tag, response.url, 0, b"may lack a diff that was lost")
            return self.book.on_response(response, ts_recv, emit)
        if self.book.valid:
            return self._on_audit(audit, response, ts_recv, emit)
        self._audit = None
        if self.seen.last:  # then a snapshot is under way that waited for the first diff
            self._has_failed = True
            return NOTHING
        fetch = next(iter(self.book.await_snapshot(ts_recv)), None)
        if not isinstance(fetch, Fetch):
            return NOTHING
        # What it would ask for is here already.
        return self.book.on_response(msgspec.structs.replace(response, tag=fetch.tag), ts_recv, emit)

    def on_timer(self, now_ns: int, emit: Emit) -> Sequence[Request]:
        """In a quiet market an audit waits for no diff."""
        audit = self._audit
        if audit is None or audit.image is None or now_ns < audit.come_ns + IN_FLIGHT_NS:
            return NOTHING
        return self._judge(audit.image, now_ns, emit)

    def resync(self, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Give the book up, say so, and build it anew. What was seen stays so, of use or not."""
        self._forget()
        self.seen.live = False
        requests = self.book.resync(now_ns, reason, emit)
        if self.seen.last:
            # From here on no diff is missed: the newest one stands for that among those held, and is then dropped.
            self.book.on_delta(self.seen.last, self.seen.last, self.seen.last, _NO_CHANGE, 0, now_ns, emit)
        return requests

    def _lose_place(self) -> None:
        """A diff was lost of which nothing is known: those before it prove nothing about a snapshot any more, nor does
        the time when one was asked for."""
        self.seen.live, self.seen.last, self._quiet_tag = False, 0, ""

    def on_disconnect(self, reason: Reason, emit: Emit) -> None:
        """CLEAR: diffs will be missed."""
        self._forget()
        self._lose_place()
        self.book.on_disconnect(reason, emit)

    def _forget(self) -> None:
        self._audit = None
        self._trust()
        self._crossed_at = 0
        self._levels.clear()

    # Audits

    @property
    def is_doubtful(self) -> bool:
        """Whether an audit is due soon: one has failed, or what was not there was to be deleted."""
        return self._has_failed or self._levels.orphans != self._orphans

    def _trust(self) -> None:
        """There is no doubt any more."""
        self._has_failed, self._orphans = False, self._levels.orphans

    def is_due(self, now_ns: int, interval_ns: int) -> bool:
        """Whether an audit should begin; ``interval_ns`` 0: only if there is doubt."""
        if self._audit is not None or not self.book.valid:
            return False
        age_ns = now_ns - self.audited_ns
        return age_ns >= AUDIT_REST_NS if self.is_doubtful else 0 < interval_ns <= age_ns

    def begin_audit(self, now_ns: int) -> Sequence[Request]:
        """Ask for another snapshot, late enough for it to be newer than this moment."""
        self.audited_ns = now_ns
        self._trust()
        self.seen.live = False  # diffs are held for it
        self._audits += 1
        self._audit = Audit(f"{self._channel.instrument} audit {self._audits}")
        if self.seen.last:
            self._audit.hold(self.seen.last, self.seen.last, _NO_CHANGE, 0)
        waits = "" if self.book.valid else self._channel.instrument
        return (Fetch(self._audit.tag, self._url, 1, QUIET_NS, self._connection, waits),)

    def _on_audit(self, audit: Audit, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Its snapshot is there. What is newer in it than the newest diff is waited for. An audit that fails says
        nothing."""
        try:
            usable = response.status == 200
            if usable:
                audit.stamp, image = self.decode_snapshot(response.body)
                usable = audit.sync.on_snapshot(audit.stamp)
        except (*UNREADABLE, VenueProtocolError) as error:
            self._note(error, response.body)
            usable = False
        if not usable:
            self._audit, self._has_failed = None, True
            return NOTHING
        audit.image, audit.come_ns = image, ts_recv
        return self._judge(image, ts_recv, emit) if audit.stamp <= self.seen.last else NOTHING

    def _judge(self, image: Snapshot, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Hold the book against the snapshot of the audit and the diffs after it."""
        audit, self._audit = self._audit, None
        assert audit is not None
        mark = emit.mark()
        try:
            theirs = self._book_of(image, audit, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            self._note(error, image.bids)
            self._has_failed = True
            return NOTHING
        finally:
            emit.rollback(mark)
        if theirs.has_levels_of(self._levels):
            self._trust()
            return NOTHING
        self._counts.gaps += 1
        return self.resync(ts_recv, Reason.SEQUENCE_GAP, emit)

    def _note(self, error: Exception, sample: bytes | Raw) -> None:
        self._unknown.note(f"audit of {self._channel.instrument}: {type(error).__name__}", bytes(sample))

    def _book_of(self, image: Snapshot, audit: Audit, emit: Emit) -> LocalBook:
        """The book as snapshot and held diffs have it; what is staged for it is of no other use."""
        mark = emit.mark()
        self._stage_levels(image.bids, image.asks, 0, 0, 0, emit)
        for held in audit.sync.take_held():
            if audit.sync.on_delta(held.first, held.last, held.previous) is Verdict.APPLY:
                self._stage_levels(held.message.bids, held.message.asks, 0, 0, 0, emit)
        theirs = LocalBook(self._channel)
        theirs.apply(emit, mark)
        return theirs

    # What the object that keeps it in sync asks for

    def fetch(self, tag: str, delay_ns: int) -> Fetch:
        """Rules 1 and 3."""
        settle_ns = SETTLE_NS
        if self.seen.last == 0:
            settle_ns, self._quiet_tag = QUIET_NS, tag
        return Fetch(tag, self._url, 1, max(delay_ns, settle_ns), self._connection)

    def decode_snapshot(self, body: bytes) -> tuple[int, Snapshot]:
        """Its stamp, and itself."""
        snapshot = _SNAPSHOT.decode(body)
        stamp = whole(snapshot.microtimestamp)
        if self.seen.last - stamp > OLDEST_US:
            seen, self.seen.last = self.seen.last, 0
            raise VenueProtocolError(f"a snapshot of {stamp}, after a diff of {seen}")
        return stamp, snapshot

    def stage_snapshot(self, image: Snapshot, emit: Emit) -> None:
        """Load it, the whole as one event group."""
        stamp, mark = whole(image.microtimestamp), emit.mark()
        self._levels.clear()
        self._crossed_at = 0
        emit.clear(self._channel, Reason.SNAPSHOT, stamp * US, stamp, Flags.SNAPSHOT)
        self._stage_levels(image.bids, image.asks, stamp * US, stamp, int(Flags.SNAPSHOT), emit)
        self._follow(mark, stamp, emit)

    def stage_delta(self, message: Diff, emit: Emit) -> None:
        """Rule 5."""
        stamp, mark = int(message.microtimestamp), emit.mark()
        self._stage_levels(message.bids, message.asks, stamp * US, stamp, 0, emit)
        self._follow(mark, stamp, emit)

    def _stage_levels(self, bids: Raw, asks: Raw, ts_event: int, stamp: int, flags: int, emit: Emit) -> None:
        emit.levels(self._channel, _BID, bids, ts_event, stamp, flags)
        emit.levels(self._channel, _ASK, asks, ts_event, stamp, flags)

    def _follow(self, mark: int, stamp: int, emit: Emit) -> None:
        """Take what was staged into the book; tell of it what is wanted."""
        self._levels.apply(emit, mark)
        if self._tells_levels:
            emit.end()
        else:
            emit.rollback(mark)
        if self._tells_quotes and self._levels.stage_bbo(emit, stamp * US, stamp):
            emit.end()
