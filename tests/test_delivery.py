"""Conflation against the whole stream: the same books, the same newest values, nothing else dropped."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from mdring.book import BookSet
from mdring.delivery import conflate
from mdring.record import BBO, RECORD, Flags, Kind, Reason, Side, State
from tests.book.records import Record, ask, batch, bid, clear, level, snapshot, status, trade

LAST, SNAPSHOT = Flags.LAST, Flags.SNAPSHOT
INSTRUMENTS = (1, 2, 3)


def bbo(price: int, instrument_id: int) -> Record:
    record = trade(LAST, instrument_id)
    record = record.view(RECORD).copy()
    record["kind"] = Kind.BBO
    quote = record.view(BBO)
    quote["bid_price"], quote["ask_price"] = price, price + 1
    return record


instruments = st.sampled_from(INSTRUMENTS)
sides = st.dictionaries(st.integers(1, 8), st.integers(1, 9), max_size=5)


@st.composite
def delta_groups(draw: st.DrawFn) -> list[Record]:
    instrument_id = draw(instruments)
    changes = draw(
        st.lists(
            st.tuples(st.sampled_from([Side.BID, Side.ASK]), st.integers(1, 8), st.integers(0, 3)),
            min_size=1,
            max_size=5,
        )
    )
    group = [level(side, price, size, instrument_id=instrument_id) for side, price, size in changes]
    group[-1]["flags"] |= np.uint8(LAST)
    return group


groups = st.one_of(
    delta_groups(),
    delta_groups(),
    st.builds(snapshot, sides, sides, instruments),
    st.builds(lambda instrument_id: [clear(Reason.SEQUENCE_GAP, LAST, instrument_id)], instruments),
    st.builds(lambda instrument_id: [trade(LAST, instrument_id)], instruments),
    st.builds(lambda price, instrument_id: [bbo(price, instrument_id)], st.integers(1, 99), instruments),
    st.just([status(State.CONNECTED, Reason.STARTED)]),
)


def content(books: BookSet) -> list[tuple[bool, list[object], list[object]]]:
    return [(books[i].valid, books[i].bids().tolist(), books[i].asks().tolist()) for i in INSTRUMENTS]


def whole_groups(records: npt.NDArray[np.void]) -> None:
    assert len(records) == 0 or records["flags"][-1] & LAST


@given(st.lists(groups, max_size=12), st.lists(groups, max_size=12))
@settings(deadline=None, max_examples=300)
def test_a_conflated_batch_leaves_exactly_the_books_of_the_whole_one(
    first: list[list[Record]], second: list[list[Record]]
) -> None:
    plain, conflated = BookSet(INSTRUMENTS), BookSet(INSTRUMENTS)
    seq = 1
    for chosen in (first, second):
        every = batch([record for group in chosen for record in group], seq)
        seq += len(every)
        plain.apply(every)
        newest = conflate(every)
        whole_groups(newest)
        conflated.apply(newest)
        assert content(conflated) == content(plain)
        assert not conflated.in_group


@given(st.lists(groups, max_size=20), st.booleans())
@settings(deadline=None, max_examples=300)
def test_what_is_kept_is_the_newest_and_trades_only_go_when_asked(chosen: list[list[Record]], trades: bool) -> None:
    every = batch([record for group in chosen for record in group])
    newest = conflate(every, trades=trades)
    for kind in (Kind.BBO, Kind.TRADE, Kind.STATUS):
        all_of, kept = every[every["kind"] == kind], newest[newest["kind"] == kind]
        if kind is Kind.STATUS or (kind is Kind.TRADE and not trades):
            assert kept["seq"].tolist() == all_of["seq"].tolist()
        else:
            last = {row["instrument_id"]: row["seq"] for row in all_of}
            assert sorted(kept["seq"].tolist()) == sorted(last.values())
    places = [tuple(row) for row in newest[newest["kind"] == Kind.LEVEL][["instrument_id", "side", "price"]].tolist()]
    assert len(places) == len(set(places))


def test_the_book_records_of_an_instrument_become_one_group() -> None:
    every = batch(
        [bid(10, 5, LAST), trade(), ask(12, 1, LAST, 2), bid(10, 6), bid(9, 1, LAST), ask(12, 2, LAST, 2), bbo(3, 1)]
    )
    newest = conflate(every)
    assert newest["seq"].tolist() == [2, 4, 5, 6, 7]
    assert (newest["flags"] & LAST).tolist() == [1, 0, 1, 1, 1]


def test_an_image_stays_an_image_when_deltas_replace_all_its_levels() -> None:
    every = batch([*snapshot({10: 1}, {}), bid(10, 2, LAST)])
    books = BookSet([1])
    books.apply(conflate(every))
    assert books[1].valid
    assert books[1].best_bid == (10, 2)


def test_nothing_becomes_nothing() -> None:
    assert len(conflate(np.zeros(0, dtype=RECORD))) == 0
