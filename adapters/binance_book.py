"""Binance Spot, the book: depth diffs by WebSocket, put in order against a REST snapshot by update ids.

Documentation (read November 2026): github.com/binance/binance-spot-api-docs, web-socket-streams.md, "How to manage a
local order book correctly", text of 2025-11-12. ``binance.py`` makes one object per instrument, which then gets its
decoded messages::

    spot = SpotBook(channel, connection, rest_url, 1000, unit_ns, counts)
    spot.on_message(update, ts_recv, emit)
    spot.book.on_response(response, ts_recv, emit)

The venue's rules:

1. Subscribe to the diffs and buffer them; remember U of the first one.
2. Fetch a snapshot, L = lastUpdateId. If L < that U, it is too old: fetch again (strictly: if L + 1 < U).
3. Discard buffered events with u <= L.
4. The first event kept must satisfy U <= L + 1 <= u. Load the snapshot; local id = L.
5. Each event: u < local: ignore. U > local + 1: gap, go to 1. Else apply; local = u. In steady state
   U == local + 1.
6. Deleting an unknown price is normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct, field

from mdring.adapters.binance_trades import Id, Time
from mdring.feed.adapter import AdapterCounts, Fetch, Request, VenueProtocolError
from mdring.feed.book_sync import SyncRules, Verdict
from mdring.feed.emit import Emit
from mdring.feed.snapshot_book import BookSource, SnapshotBook
from mdring.feed.stage import Channel
from mdring.record import Flags, Reason, Side

# ---- wire schema ------------------------------------------------------------------------------------------


class DepthUpdate(Struct, gc=False):
    """{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":499869750,"u":499869752,"b":[["0.35130000","6195.00000000"],["0.34750000","5548.00000000"],["0.34640000","6222.00000000"]],"a":[]}"""

    E: Time
    s: str
    U: Id
    u: Id
    b: Raw
    a: Raw


class Snapshot(Struct, gc=False):
    """{"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[["4.00000200","12.00000000"]]}"""

    last_update_id: Id = field(name="lastUpdateId")
    bids: Raw
    asks: Raw


_SNAPSHOT: Final = msgspec.json.Decoder(Snapshot)
# As ``BOOK_TICKER_FORM`` of ``binance.py``.
DEPTH_FORM: Final = (
    '{"stream":"%s","data":{"e":"depthUpdate","E":<time>,"s":"%s","U":<first>,"u":<last>,"b":<bids>,"a":<asks>}}'
)
SNAPSHOT_WEIGHT: Final = {100: 5, 500: 25, 1000: 50, 5000: 250}  # by limit
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)

# ---- book sync --------------------------------------------------------------------------------------------


def reaches(snapshot: int, first: int, previous: int) -> bool:
    """Rule 2."""
    return first <= snapshot + 1


def after_snapshot(snapshot: int, first: int, last: int, previous: int) -> Verdict:
    """Rules 3 and 4."""
    if last <= snapshot:
        return Verdict.DROP
    return Verdict.APPLY if first <= snapshot + 1 else Verdict.GAP


def after_delta(begun: int, applied: int, first: int, last: int, previous: int) -> Verdict:
    """Rule 5 for an event whose U is not local + 1. Stricter than the venue's text: one that begins within the
    ids that were applied last contradicts them. To ignore it for its low ``u`` would hide that the applied one
    had a wrong ``u``."""
    return Verdict.DROP if last <= applied and first <= begun else Verdict.GAP


SPOT_RULES: Final = SyncRules(False, reaches, after_snapshot, after_delta)


class SpotBook(BookSource[DepthUpdate, Snapshot]):
    """The book of one instrument: its rules, its wire, and the object that keeps it in sync."""

    rules = SPOT_RULES

    def __init__(
        self, channel: Channel, connection: int, rest_url: str, limit: int, unit_ns: int, counts: AdapterCounts
    ) -> None:
        self._channel = channel
        self._connection = connection
        self._url = f"{rest_url.rstrip('/')}/api/v3/depth?symbol={quote(channel.instrument)}&limit={limit}"
        self._weight = SNAPSHOT_WEIGHT[limit]
        self._unit_ns = unit_ns
        self.book = SnapshotBook(channel, self, counts)

    def on_message(self, update: DepthUpdate, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One diff."""
        first, last = update.U, update.u
        if last < first:
            raise VenueProtocolError(f"a diff from {first} to {last}")
        return self.book.on_delta(first, last, 0, update, len(update.b) + len(update.a), ts_recv, emit)

    def fetch(self, tag: str, delay_ns: int) -> Fetch:
        """Rule 2."""
        return Fetch(tag, self._url, self._weight, delay_ns, self._connection)

    def decode_snapshot(self, body: bytes) -> tuple[int, Snapshot]:
        """Its lastUpdateId, and itself."""
        snapshot = _SNAPSHOT.decode(body)
        return snapshot.last_update_id, snapshot

    def stage_snapshot(self, image: Snapshot, emit: Emit) -> None:
        """Rule 4: load it, the whole as one event group."""
        last = image.last_update_id
        emit.clear(self._channel, Reason.SNAPSHOT, 0, last, Flags.SNAPSHOT)
        emit.levels(self._channel, Side.BID, image.bids, 0, last, Flags.SNAPSHOT)
        emit.levels(self._channel, Side.ASK, image.asks, 0, last, Flags.SNAPSHOT)
        emit.end()

    def stage_delta(self, message: DepthUpdate, emit: Emit) -> None:
        """Rule 5: apply it. Without levels it is no event, yet its ids count."""
        ts_event, last = message.E * self._unit_ns, message.u
        emit.levels(self._channel, _BID, message.b, ts_event, last)
        emit.levels(self._channel, _ASK, message.a, ts_event, last)
        emit.end()
