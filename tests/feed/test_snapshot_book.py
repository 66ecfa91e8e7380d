"""A book whose snapshots are fetched, for a venue whose deltas name the one before (``test_binance.py`` has the
other kind)."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from mdring.feed.adapter import AdapterCounts, Fetch, Request, Response, VenueProtocolError
from mdring.feed.book_sync import SyncRules, Verdict
from mdring.feed.emit import Emit
from mdring.feed.snapshot_book import MAX_PAUSE_S, BookSource, SnapshotBook, pause_s
from mdring.feed.stage import Channel
from mdring.record import STATUS, Flags, Kind, Reason, Side, State

NOW = 1_700_000_000_000_000_000
CHAINED = SyncRules(
    chained=True,
    reaches=lambda snapshot, first, previous: previous <= snapshot,
    after_snapshot=lambda snapshot, first, last, previous: (
        Verdict.DROP if last <= snapshot else Verdict.APPLY if previous <= snapshot else Verdict.GAP
    ),
    after_delta=lambda begun, applied, first, last, previous: Verdict.DROP if last <= applied else Verdict.GAP,
)


class PaperBook(BookSource[int, int]):
    """Deltas and snapshots are nothing but their id, and become one level at that price."""

    rules = CHAINED

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def fetch(self, tag: str, delay_ns: int) -> Fetch:
        return Fetch(tag, "https://paper/book", 1, delay_ns)

    def decode_snapshot(self, body: bytes) -> tuple[int, int]:
        if not body.isdigit():
            raise VenueProtocolError("no number")
        return int(body), int(body)

    def stage_snapshot(self, image: int, emit: Emit) -> None:
        emit.clear(self._channel, Reason.SNAPSHOT, 0, image, Flags.SNAPSHOT)
        emit.level(self._channel, Side.BID, str(image), "1", 0, image, Flags.SNAPSHOT)
        emit.end()

    def stage_delta(self, message: int, emit: Emit) -> None:
        emit.levels(self._channel, Side.BID, json.dumps([[message, 1]]).encode(), 0, message)
        emit.end()


class Paper:
    """A book and what it staged."""

    def __init__(self) -> None:
        self.counts = AdapterCounts()
        self.emit = Emit()
        channel = Channel("PAPER", 1, 1, 0, 0)
        self.book = SnapshotBook(channel, PaperBook(channel), self.counts)

    def delta(self, previous: int, last: int, now_ns: int = NOW) -> Sequence[Request]:
        self.emit.begin(now_ns)
        return self.book.on_delta(last, last, previous, last, 100, now_ns, self.emit)

    def answer(self, requests: Sequence[Request], body: bytes, status: int = 200) -> Sequence[Request]:
        (fetch,) = requests
        assert isinstance(fetch, Fetch)
        self.emit.begin(NOW)
        return self.book.on_response(Response(fetch.tag, fetch.url, status, body), NOW, self.emit)

    def drain(self) -> npt.NDArray[np.void]:
        return self.emit.drain()


def test_chain_is_followed_from_the_snapshot_on() -> None:
    paper = Paper()
    fetch = paper.delta(10, 20)
    assert paper.delta(20, 30) == ()
    assert paper.answer(fetch, b"15") == ()
    assert paper.drain()["venue_seq"].tolist() == [15, 15, 20, 30, 0]
    assert paper.delta(30, 40) == ()
    assert paper.drain()["kind"].tolist() == [Kind.LEVEL]
    assert paper.book.valid and paper.counts.books_valid == 1


def test_broken_chain_tells_the_id_that_was_due_as_previous() -> None:
    paper = Paper()
    paper.answer(paper.delta(10, 20), b"15")
    paper.drain()
    assert len(paper.delta(25, 40)) == 1
    rows = paper.drain()
    assert rows["kind"].tolist() == [Kind.STATUS, Kind.CLEAR] and rows["flags"].tolist() == [0, Flags.LAST]
    row = rows.view(STATUS)[0]
    assert (row["state"], row["expected"], row["found"]) == (State.GAP, 20, 25)


def test_quiet_book_is_fetched_on_demand_and_only_once() -> None:
    paper = Paper()
    requests = paper.book.await_snapshot(NOW)
    assert len(requests) == 1 and paper.book.await_snapshot(NOW) == ()
    paper.answer(requests, b"7")
    assert paper.book.valid and paper.book.await_snapshot(NOW) == ()


def test_answer_of_another_fetch_or_after_a_disconnect_changes_nothing() -> None:
    paper = Paper()
    requests = paper.book.await_snapshot(NOW)
    assert paper.book.on_response(Response("PAPER 99", "", 200, b"7"), NOW, paper.emit) == ()
    paper.book.on_disconnect(Reason.STALE, paper.emit)
    paper.drain()
    assert paper.answer(requests, b"7") == ()
    assert not paper.book.valid and len(paper.drain()) == 0


def test_unusable_snapshot_raises_and_leaves_the_book_to_be_resynced() -> None:
    paper = Paper()
    requests = paper.delta(10, 20)
    with pytest.raises(VenueProtocolError):
        paper.answer(requests, b"x")
    paper.emit.rollback()
    (again,) = paper.book.resync(NOW, Reason.BAD_MESSAGE, paper.emit)
    assert isinstance(again, Fetch) and again.delay_ns > 0
    assert paper.drain()["kind"].tolist() == [Kind.STATUS]  # no CLEAR: there was no book


def test_resync_of_a_valid_book_clears_it() -> None:
    paper = Paper()
    paper.answer(paper.delta(10, 20), b"15")
    paper.drain()
    assert len(paper.book.resync(NOW, Reason.CROSSED, paper.emit)) == 1
    assert paper.drain()["kind"].tolist() == [Kind.STATUS, Kind.CLEAR]
    assert (paper.counts.books_valid, paper.counts.resyncs) == (0, 1)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (500, {"Retry-After": "9"}, 0),
        (429, {"RETRY-AFTER": "9"}, 9),
        (429, {}, 60),
        (418, {"Retry-After": "soon"}, 120),
        (418, {"Retry-After": "²"}, 120),
        (429, {"Retry-After": "9" * 30}, MAX_PAUSE_S),
    ],
)
def test_pause_is_what_the_venue_says_within_reason(status: int, headers: dict[str, str], seconds: int) -> None:
    assert pause_s(Response("", "", status, b"", headers)) == seconds
