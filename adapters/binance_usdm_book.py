"""Binance futures, the book: depth diffs by WebSocket, put in order against a REST snapshot by update ids.

Documentation (read November 2026): developers.binance.com, derivatives, USD-M futures, "How to manage a local order
book correctly". ``binance_usdm.py`` makes one object per instrument, which then gets its decoded messages::

    book = FuturesBook(channel, connection, url, weight, counts)
    book.on_message(update, ts_recv, emit)
    book.on_response(response, ts_recv, emit)

The venue's rules:

1. Subscribe to the diffs and buffer them.
2. Fetch a snapshot, L = lastUpdateId.
3. Drop diffs with u < L.
4. The first one applied has U <= L <= u (not L + 1, as on spot).
5. pu of each one is u of the one before; else go to 2.
6. Sizes are absolute, 0 deletes. Deleting an unknown price is normal.

U is not needed: between pu and U nothing has happened to the instrument, so a diff with pu <= L < u is the first
that tells anything new, and nothing is missing before it. That takes rule 4 in, and the diff with pu == L of an
instrument that was quiet since its snapshot, to which rule 4 would never come.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec import Raw, Struct, field

from mdring.adapters.binance_usdm_channels import MS, Id, Time
from mdring.feed.adapter import AdapterCounts, Fetch, Request, Response, VenueProtocolError
from mdring.feed.book_sync import SyncRules, Verdict
from mdring.feed.emit import Emit
from mdring.feed.snapshot_book import BookSource, SnapshotBook
from mdring.feed.stage import Channel
from mdring.record import Flags, Reason, Side

# ---- wire schema ------------------------------------------------------------------------------------------


class DepthUpdate(Struct, gc=False):
    """{"e":"depthUpdate","E":1780563845145,"T":1780563845143,"s":"BTCUSDT","U":10708445053618,"u":10708445072904,"pu":10708445053562,"b":[["50746.30","0.000"],["50748.80","0.002"]],"a":[["63436.10","1.801"]]}"""

    T: Time
    s: str
    U: Id
    u: Id
    pu: Id  # u of the message before
    b: Raw
    a: Raw


class Snapshot(Struct, gc=False):
    """{"lastUpdateId":1027024,"E":1589436922972,"T":1589436922959,"bids":[["4.00000000","431.00000000"]],"asks":[["4.00000200","12.00000000"]]}"""

    last_update_id: Id = field(name="lastUpdateId")
    bids: Raw
    asks: Raw
    T: Time = 0


_SNAPSHOT: Final = msgspec.json.Decoder(Snapshot)
# As ``AGG_TRADE_FORM`` of ``binance_usdm_channels.py``.
DEPTH_FORM: Final = (
    '{"stream":"%s","data":{"e":"depthUpdate","E":<any>,"T":<time>,"s":"%s","U":<first>,"u":<last>,"pu":<previous>,'
    '"b":<bids>,"a":<asks>,"ps":<any>,"st":<any>}}'
)
SNAPSHOT_WEIGHT: Final = {100: 5, 500: 10, 1000: 20}  # by limit
_BID: Final = int(Side.BID)
_ASK: Final = int(Side.ASK)

# ---- book sync --------------------------------------------------------------------------------------------


def reaches(snapshot: int, first: int, previous: int) -> bool:
    """Rule 4: whether no diff is missing between the snapshot and the oldest that is held."""
    return previous <= snapshot


def after_snapshot(snapshot: int, first: int, last: int, previous: int) -> Verdict:
    """Rules 3 and 4. The diff that ends with the snapshot has nothing that the snapshot has not."""
    if last <= snapshot:
        return Verdict.DROP
    return Verdict.APPLY if previous <= snapshot else Verdict.GAP


def after_delta(begun: int, applied: int, first: int, last: int, previous: int) -> Verdict:
    """Rule 5. A diff that came before comes again: nothing is lost. One that begins within the ids applied last
    contradicts them, and is no repetition."""
    return Verdict.DROP if last <= applied and first <= begun else Verdict.GAP


FUTURES_RULES: Final = SyncRules(True, reaches, after_snapshot, after_delta)


class FuturesBook(BookSource[DepthUpdate, Snapshot]):
    """The book of one instrument: its rules, its wire, and the object that keeps it in sync."""

    rules = FUTURES_RULES

    def __init__(self, channel: Channel, connection: int, url: str, weight: int, counts: AdapterCounts) -> None:
        self._channel = channel
        self._url = url
        self._weight = weight
        self.connection = connection
        self.sync = SnapshotBook(channel, self, counts)

    def on_message(self, update: DepthUpdate, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One diff."""
        first, last = update.U, update.u
        if last < first:
            raise VenueProtocolError(f"a diff from {first} to {last}")
        size = len(update.b) + len(update.a)
        return self.sync.on_delta(first, last, update.pu, update, size, ts_recv, emit)

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The answer to a fetch."""
        return self.sync.on_response(response, ts_recv, emit)

    def fetch(self, tag: str, delay_ns: int) -> Fetch:
        """Rule 2."""
        return Fetch(tag, self._url, self._weight, delay_ns, self.connection)

    def decode_snapshot(self, body: bytes) -> tuple[int, Snapshot]:
        """Its lastUpdateId, and itself."""
        snapshot = _SNAPSHOT.decode(body)
        return snapshot.last_update_id, snapshot

    def stage_snapshot(self, image: Snapshot, emit: Emit) -> None:
        """Load it, the whole as one event group."""
        ts_event, last = image.T * MS, image.last_update_id
        emit.clear(self._channel, Reason.SNAPSHOT, ts_event, last, Flags.SNAPSHOT)
        emit.levels(self._channel, _BID, image.bids, ts_event, last, Flags.SNAPSHOT)
        emit.levels(self._channel, _ASK, image.asks, ts_event, last, Flags.SNAPSHOT)
        emit.end()

    def stage_delta(self, message: DepthUpdate, emit: Emit) -> None:
        """Rule 6. Without levels it is no event, yet its ids count."""
        ts_event, last = message.T * MS, message.u
        emit.levels(self._channel, _BID, message.b, ts_event, last)
        emit.levels(self._channel, _ASK, message.a, ts_event, last)
        emit.end()
