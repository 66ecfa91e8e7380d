"""Books whose snapshots come on the socket: what the stream says, and how one is rebuilt alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mdring.feed.adapter import AdapterCounts, Request, Send
from mdring.feed.emit import Emit
from mdring.feed.socket_book import DELAY_NS, HEALTHY_NS, MAX_DELAY_NS, PATIENCE_NS, BookState, FrameWire, SocketBook
from mdring.feed.stage import Channel
from mdring.record import CLEAR, STATUS, Kind, Reason, State

NOW = 1_700_000_000_000_000_000


WORDS = {"unsubscribe": "off", "subscribe": "on"}


class Wire(FrameWire):
    """Sends words."""

    def __init__(self, *, acknowledges_end: bool = True) -> None:
        super().__init__(lambda op, delay_ns: Send(0, WORDS[op], delay_ns=delay_ns))
        self.acknowledges_end = acknowledges_end


class Case:
    """A book that awaits its first snapshot, and what it says."""

    def __init__(self, *, acknowledges_end: bool = True) -> None:
        self.counts = AdapterCounts(books=1)
        self.emit = Emit(8)
        self.book = SocketBook(Channel("X", 5, 1, 0, 0), Wire(acknowledges_end=acknowledges_end), self.counts)
        self.book.on_subscribe(NOW)

    def told(self) -> list[tuple[Kind, int, Reason]]:
        """(kind, state or 0, reason) of what was staged since the last call; the groups must be closed."""
        return said(self.emit.drain())


def said(rows: npt.NDArray[np.void]) -> list[tuple[Kind, int, Reason]]:
    told = []
    for row in rows:
        if row["kind"] == Kind.CLEAR:
            told.append((Kind.CLEAR, 0, Reason(int(row.reshape(1).view(CLEAR)[0]["reason"]))))
        else:
            status = row.reshape(1).view(STATUS)[0]
            told.append((Kind.STATUS, State(int(status["state"])), Reason(int(status["reason"]))))
    return told


def words(requests: Sequence[Request]) -> list[tuple[str, int]]:
    return [(request.text, request.delay_ns) for request in requests if isinstance(request, Send)]


def test_first_snapshot_makes_the_book_valid_and_says_so() -> None:
    case = Case()
    assert not case.book.valid and case.book.takes_snapshots
    assert case.book.synced(7, NOW, case.emit) == ()
    assert case.book.valid and case.book.last == 7
    assert case.told() == [(Kind.STATUS, State.SYNCED, Reason.NONE)]
    assert (case.counts.books_valid, case.counts.snapshots) == (1, 1)


def test_snapshot_nobody_asked_for_replaces_the_book_silently() -> None:
    case = Case()
    case.book.synced(7, NOW, case.emit)
    case.told()
    case.book.synced(1, NOW, case.emit)
    assert case.told() == [] and case.book.last == 1 and case.counts.books_valid == 1 and case.counts.snapshots == 2


@pytest.mark.parametrize("reason", [Reason.SEQUENCE_GAP, Reason.CHECKSUM])
def test_gap_is_told_cleared_and_mended_once(reason: Reason) -> None:
    case = Case()
    case.book.synced(7, NOW, case.emit)
    case.told()
    lose = case.book.gap if reason is Reason.SEQUENCE_GAP else case.book.checksum_failed
    assert words(lose(7, 9, NOW, case.emit)) == [("off", 0)]
    rows = case.emit.drain()
    assert said(rows) == [(Kind.STATUS, State.GAP, reason), (Kind.CLEAR, 0, reason)]
    assert rows[:1].view(STATUS)[0][["expected", "found"]].tolist() == (7, 9)
    assert rows["flags"].tolist() == [0, 1]  # one event group
    assert lose(7, 10, NOW, case.emit) == () and case.told() == []
    assert not case.book.valid and not case.book.takes_snapshots
    assert words(case.book.on_unsubscribed(NOW)) == [("on", 0)]
    assert case.book.on_unsubscribed(NOW) == ()
    case.book.synced(20, NOW, case.emit)
    assert case.told() == [(Kind.STATUS, State.SYNCED, Reason.NONE)]
    assert (case.counts.gaps, case.counts.resyncs, case.counts.books_valid) == (1, 1, 1)


def test_wrong_checksum_of_a_snapshot_clears_nothing_and_subscribes_anew() -> None:
    case = Case()
    assert words(case.book.checksum_failed(1, 2, NOW, case.emit)) == [("off", 0)]
    assert case.told() == [(Kind.STATUS, State.GAP, Reason.CHECKSUM)]
    assert case.counts.books_valid == 0


def test_resync_clears_a_valid_book_only() -> None:
    case = Case()
    assert words(case.book.resync(NOW, Reason.BAD_MESSAGE, case.emit)) == [("off", 0)]
    assert case.told() == [(Kind.STATUS, State.RESYNCING, Reason.BAD_MESSAGE)]
    case.book.on_unsubscribed(NOW)
    case.book.synced(1, NOW, case.emit)
    case.told()
    case.book.resync(NOW, Reason.CROSSED, case.emit)
    assert case.told() == [(Kind.STATUS, State.RESYNCING, Reason.CROSSED), (Kind.CLEAR, 0, Reason.CROSSED)]


def test_venue_that_does_not_acknowledge_gets_both_frames_in_order() -> None:
    case = Case(acknowledges_end=False)
    case.book.synced(1, NOW, case.emit)
    assert words(case.book.gap(1, 3, NOW, case.emit)) == [("off", 0), ("on", 0)]
    assert case.book.takes_snapshots and not case.book.valid


def test_delay_doubles_while_the_book_stays_bad_and_begins_anew_when_it_was_healthy() -> None:
    case = Case(acknowledges_end=False)
    now, delays = NOW, []
    for _ in range(12):
        case.book.synced(1, now, case.emit)
        delays.append(words(case.book.gap(1, 3, now, case.emit))[1][1])
    assert delays[:4] == [0, DELAY_NS, 2 * DELAY_NS, 4 * DELAY_NS] and delays[-1] == MAX_DELAY_NS
    case.book.synced(1, now, case.emit)
    now += HEALTHY_NS + 1
    assert words(case.book.gap(1, 3, now, case.emit)) == [("off", 0), ("on", 0)]


def test_what_is_late_is_asked_for_anew() -> None:
    case = Case()
    assert case.book.on_timer(NOW + PATIENCE_NS - 1, case.emit) == ()
    assert words(case.book.on_timer(NOW + PATIENCE_NS, case.emit)) == [("off", 0)]
    assert case.told() == [(Kind.STATUS, State.RESYNCING, Reason.SNAPSHOT_FAILED)]
    assert case.book.on_timer(NOW + 2 * PATIENCE_NS - 1, case.emit) == ()
    assert words(case.book.on_timer(NOW + 2 * PATIENCE_NS, case.emit)) == [("on", 0)]
    case.book.synced(1, NOW, case.emit)
    assert case.book.on_timer(NOW + 100 * PATIENCE_NS, case.emit) == ()


def test_refused_book_stays_off_until_the_next_connection() -> None:
    case = Case()
    case.book.on_rejected(Reason.SUBSCRIBE_REJECTED, case.emit)
    assert case.told() == [] and case.book.state is BookState.OFF
    assert case.book.on_timer(NOW + 100 * PATIENCE_NS, case.emit) == ()
    assert case.book.resync(NOW, Reason.STALE, case.emit) == ()
    case.book.on_subscribe(NOW)
    assert case.book.takes_snapshots


def test_disconnect_clears_and_forgets() -> None:
    case = Case()
    case.book.synced(7, NOW, case.emit)
    case.told()
    case.book.on_disconnect(Reason.STALE, case.emit)
    assert case.told() == [(Kind.CLEAR, 0, Reason.STALE)]
    assert (case.book.state, case.book.last, case.counts.books_valid) == (BookState.OFF, 0, 0)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: the counts agree with the state, and a book that is lost is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.case = Case()
        self.now = NOW
        self.asked = True  # a subscription is under way or there is a book

    def take(self, requests: Sequence[Request]) -> None:
        self.asked |= bool(words(requests))

    @rule(last=st.integers(0, 9))
    def snapshot(self, last: int) -> None:
        if self.case.book.takes_snapshots:
            self.take(self.case.book.synced(last, self.now, self.case.emit))

    @rule()
    def gap(self) -> None:
        self.take(self.case.book.gap(1, 2, self.now, self.case.emit))

    @rule()
    def resync(self) -> None:
        self.take(self.case.book.resync(self.now, Reason.STALE, self.case.emit))

    @rule()
    def unsubscribed(self) -> None:
        self.take(self.case.book.on_unsubscribed(self.now))

    @rule()
    def disconnect(self) -> None:
        self.case.book.on_disconnect(Reason.STALE, self.case.emit)
        self.case.book.on_subscribe(self.now)

    @rule(wait=st.sampled_from([1, HEALTHY_NS + 1, PATIENCE_NS + MAX_DELAY_NS]))
    def timer(self, wait: int) -> None:
        self.now += wait
        before = self.case.book.state
        requests = self.case.book.on_timer(self.now, self.case.emit)
        assert wait < PATIENCE_NS + MAX_DELAY_NS or before is BookState.LIVE or requests

    @invariant()
    def counts_agree(self) -> None:
        assert self.case.counts.books_valid == (1 if self.case.book.valid else 0)
        self.case.told()


AnyOrder.TestCase.settings = settings(deadline=None, max_examples=60)
TestAnyOrder = AnyOrder.TestCase
