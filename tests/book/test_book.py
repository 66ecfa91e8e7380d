"""The native books against a book of dicts, and the rules of validity one by one."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdring.book import PRICE_LEVEL, Book, BookSet, Fill
from mdring.record import LEVEL, RECORD, UNDEFINED_PRICE, DataType, Flags, Reason, Side, State
from tests.book.model import ModelBooks, Phase
from tests.book.records import (
    BROKEN_STATES,
    Record,
    ask,
    batch,
    bid,
    clear,
    level,
    rows,
    snapshot,
    status,
    trade,
)

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
LAST, SNAPSHOT = Flags.LAST, Flags.SNAPSHOT


def book_of(*groups: Iterable[Record]) -> Book:
    """Instrument 1 after these records."""
    books = BookSet()
    books.apply(batch([record for group in groups for record in group]))
    return books[1]


def assert_same(books: BookSet, model: ModelBooks) -> None:
    """Every book says of itself what its model says."""
    for instrument_id, expected in model.books.items():
        book = books[instrument_id]
        valid = expected.phase is Phase.VALID
        assert (book.valid, book.invalid_reason) == (valid, model.reason(instrument_id))
        assert (book.seq, book.ignored) == (expected.seq, expected.ignored)
        assert (book.crossed, book.is_crossed) == (expected.crossed, expected.is_crossed)
        assert (book.best_bid, book.best_ask) == (expected.best(Side.BID), expected.best(Side.ASK))
        for side, levels in ((Side.BID, book.bids()), (Side.ASK, book.asks())):
            assert rows(levels) == expected.side(side)
            assert book.depth(side) == len(expected.levels[side])


# Few prices, so that levels meet again, and both ends of the integers.
prices = st.one_of(st.integers(-6, 6), st.sampled_from([INT64_MIN, INT64_MIN + 1, INT64_MAX - 1, INT64_MAX]))
sizes = st.one_of(st.just(0), st.integers(1, 3), st.just(INT64_MAX))
instrument_ids = st.integers(1, 3)
venue_ids = st.integers(1, 2)
flags = st.sampled_from([Flags.NONE, Flags.NONE, LAST, SNAPSHOT, SNAPSHOT | LAST])
good_levels = st.builds(level, st.sampled_from([Side.BID, Side.ASK]), prices, sizes, flags, instrument_ids)
bad_levels = st.builds(level, st.integers(0, 4), prices, st.integers(-2, 1), flags, instrument_ids)
clears = st.builds(clear, st.sampled_from(Reason), flags, instrument_ids, venue_ids)
statuses = st.builds(
    status, st.sampled_from(State), st.sampled_from(Reason), flags, st.integers(0, 3), venue_ids,
    st.sampled_from(DataType),
)  # fmt: skip
records = st.one_of(good_levels, good_levels, good_levels, clears, statuses, bad_levels, st.builds(trade, flags))


@given(
    st.lists(st.lists(records, max_size=25), max_size=8),
    st.sampled_from([None, [1, 2, 3], [2]]),
    st.integers(1, 4),
)
@settings(max_examples=400, deadline=None)
def test_any_records_in_any_batches_leave_the_books_that_the_model_has(
    batches: list[list[Record]], instruments: list[int] | None, max_levels: int
) -> None:
    books, model = BookSet(instruments, max_levels=max_levels), ModelBooks(instruments, max_levels)
    seq = 1
    for records_of_batch in batches:
        applied = batch(records_of_batch, seq)
        seq += len(applied)
        expected = model.apply(applied)
        assert books.apply(applied) == len(expected)
        assert books.changed == expected
        assert books.in_group == bool(model.touched)
        assert_same(books, model)


@given(
    st.dictionaries(prices, st.integers(1, INT64_MAX), max_size=12),
    st.dictionaries(prices, st.integers(1, INT64_MAX), max_size=12),
    st.integers(0, INT64_MAX),
    st.integers(0, 14),
)
@settings(deadline=None)
def test_what_is_computed_from_a_book_is_exact(
    bids: dict[int, int], asks: dict[int, int], size: int, limit: int
) -> None:
    model = ModelBooks()
    applied = batch(snapshot(bids, asks))
    model.apply(applied)
    expected = model.books[1]
    book = book_of(snapshot(bids, asks))
    assert book.cost_to_buy(size) == expected.take(Side.ASK, size)
    assert book.cost_to_sell(size) == expected.take(Side.BID, size)
    assert rows(book.bids(limit)) == expected.side(Side.BID)[:limit]
    assert rows(book.asks(limit)) == expected.side(Side.ASK)[:limit]
    for price in {*bids, *asks, 7}:
        assert book.size_at(Side.BID, price) == bids.get(price, 0)
        assert book.size_at(Side.ASK, price) == asks.get(price, 0)
    bid_size = sum(there for _, there in expected.side(Side.BID)[:limit])
    ask_size = sum(there for _, there in expected.side(Side.ASK)[:limit])
    total = bid_size + ask_size
    assert book.imbalance(limit) == (float(Fraction(bid_size - ask_size, total)) if total else None)
    if bids and asks:
        best_bid, best_ask = max(bids), min(asks)
        weighted = best_bid * asks[best_ask] + best_ask * bids[best_bid]
        assert book.mid_doubled == best_bid + best_ask
        assert book.mid_float == float(Fraction(best_bid + best_ask, 2))
        assert book.microprice == float(Fraction(weighted, bids[best_bid] + asks[best_ask]))
    else:
        assert (book.mid_doubled, book.mid_float, book.microprice) == (None, None, None)


def random_deltas(seed: int, count: int, depth: int, step: int) -> npt.NDArray[np.void]:
    """LEVEL records, each its own group: half near the top and half anywhere, a third of them deletions."""
    generator = np.random.default_rng(seed)
    deltas = np.zeros(count, dtype=RECORD)
    near = generator.geometric(0.02, count)
    anywhere = generator.integers(1, depth + 1, count)
    distance = np.minimum(np.where(generator.random(count) < 0.5, near, anywhere), depth) * step
    is_bid = generator.random(count) < 0.5
    filled = batch([bid(0, 1, LAST)])[0]
    deltas[:] = filled
    deltas["seq"] = np.arange(2, count + 2)
    deltas["side"] = np.where(is_bid, Side.BID, Side.ASK)
    deltas["price"] = np.where(is_bid, -distance, distance)
    deltas["size"] = np.where(generator.random(count) < 0.34, 0, generator.integers(1, INT64_MAX, count))
    return deltas


@pytest.mark.parametrize(("depth", "step"), [(50, 1), (300, 3), (6000, 1), (6000, 10**15)])
def test_a_deep_book_is_the_models_after_each_of_many_batches(depth: int, step: int) -> None:
    books, model = BookSet([1]), ModelBooks([1])
    opening = batch([clear(flags=SNAPSHOT | LAST)])
    books.apply(opening)
    model.apply(opening)
    deltas = random_deltas(depth, 20_000, depth, step)
    for start in range(0, len(deltas), 1000):
        part = deltas[start : start + 1000]
        books.apply(part)
        model.apply(part)
        assert_same(books, model)


def test_a_deep_book_is_emptied_level_by_level_from_either_end() -> None:
    depth = 5000
    for order in (range(depth), range(depth - 1, -1, -1)):
        bids = {-price: 1 + price for price in range(depth)}
        books = BookSet()
        books.apply(batch(snapshot(bids, {})))
        assert books[1].depth(Side.BID) == depth
        for price in order:
            assert books[1].size_at(Side.BID, -price) == 1 + price
            books.apply(batch([bid(-price, 0, LAST)], 2 * depth))
            del bids[-price]
            assert books[1].best_bid == ((max(bids), bids[max(bids)]) if bids else (UNDEFINED_PRICE, 0))
        assert books[1].valid


def test_a_price_far_from_all_others_is_one_level_like_any() -> None:
    book = book_of(
        snapshot(dict.fromkeys(range(1000), 1), dict.fromkeys(range(1000, 2000), 2)),
        [bid(INT64_MIN, 7), ask(INT64_MAX, 8, LAST)],
    )
    assert rows(book.bids())[-1] == (INT64_MIN, 7)
    assert rows(book.asks())[-1] == (INT64_MAX, 8)
    assert (book.best_bid, book.best_ask) == ((999, 1), (1000, 2))


def test_negative_prices_are_prices() -> None:
    book = book_of(snapshot({-30: 1, -20: 2}, {-10: 3, 5: 4}))
    assert (book.best_bid, book.best_ask, book.mid_doubled) == ((-20, 2), (-10, 3), -30)
    assert book.cost_to_buy(4) == Fill(notional=-30 + 5, filled=4, worst_price=5)


def test_a_new_book_is_invalid_empty_and_without_a_reason() -> None:
    book = BookSet([4])[4]
    assert (book.valid, book.invalid_reason, book.seq) == (False, Reason.NONE, 0)
    assert (book.best_bid, book.best_ask) == ((UNDEFINED_PRICE, 0), (UNDEFINED_PRICE, 0))
    assert len(book.bids()) == len(book.asks()) == 0


def test_a_snapshot_makes_the_book_valid_at_its_last_record_and_not_before() -> None:
    books = BookSet()
    group = batch(snapshot({99: 1, 98: 2}, {101: 3}))
    assert books.apply(group[:-1]) == 0
    assert (books[1].valid, books.in_group, books.changed) == (False, True, [])
    assert books.apply(group[-1:]) == 1
    assert (books[1].valid, books.in_group, books.changed) == (True, False, [1])
    assert (books[1].best_bid, books[1].best_ask, books[1].seq) == ((99, 1), (101, 3), 4)


def test_an_empty_snapshot_makes_a_valid_empty_book() -> None:
    book = book_of([clear(flags=SNAPSHOT | LAST)])
    assert (book.valid, book.depth(Side.BID), book.depth(Side.ASK)) == (True, 0, 0)


def test_a_clear_empties_the_book_and_gives_its_reason() -> None:
    book = book_of(snapshot({99: 1}, {101: 1}), [clear(Reason.SEQUENCE_GAP, LAST)])
    assert (book.valid, book.invalid_reason) == (False, Reason.SEQUENCE_GAP)
    assert len(book.bids()) == len(book.asks()) == 0


def test_deltas_between_clear_and_snapshot_are_ignored_and_counted() -> None:
    book = book_of(
        snapshot({99: 1}, {}),
        [clear(Reason.CHECKSUM, LAST), bid(99, 5, LAST), bid(98, 5, LAST)],
        snapshot({90: 1}, {}),
    )
    assert (book.valid, book.ignored, rows(book.bids())) == (True, 2, [(90, 1)])


def test_a_snapshot_of_which_the_beginning_was_not_seen_is_not_taken_for_one() -> None:
    book = book_of(snapshot({99: 1, 98: 1}, {101: 1})[2:])
    assert (book.valid, book.ignored) == (False, 2)


def test_a_snapshot_may_follow_its_clear_in_a_later_group() -> None:
    book = book_of([clear(Reason.CLOSED_BY_VENUE, LAST)], [bid(99, 1, SNAPSHOT), ask(101, 1, SNAPSHOT | LAST)])
    assert (book.valid, book.best_bid, book.best_ask) == (True, (99, 1), (101, 1))


def test_deltas_behind_a_snapshot_in_its_own_group_are_applied() -> None:
    book = book_of([clear(flags=SNAPSHOT), bid(99, 1, SNAPSHOT), bid(99, 0), bid(97, 4, LAST)])
    assert (book.valid, rows(book.bids())) == (True, [(97, 4)])


def test_a_group_that_ends_with_another_kind_or_instrument_ends_for_every_book_in_it() -> None:
    books = BookSet([1, 2])
    group = [
        clear(flags=SNAPSHOT, instrument_id=1),
        clear(flags=SNAPSHOT, instrument_id=2),
        status(State.SYNCED, Reason.NONE, LAST, instrument_id=3),
    ]
    assert books.apply(batch(group)) == 2
    assert (books.changed, books[1].valid, books[2].valid) == ([1, 2], True, True)


def test_deleting_an_unknown_level_changes_nothing() -> None:
    book = book_of(snapshot({99: 1}, {}), [bid(98, 0), ask(98, 0, LAST)])
    assert (book.valid, rows(book.bids()), len(book.asks())) == (True, [(99, 1)], 0)


def test_a_crossed_book_is_counted_per_group_and_flagged_until_it_is_not() -> None:
    books = BookSet()
    books.apply(batch(snapshot({99: 1}, {101: 1})))
    assert (books[1].crossed, books[1].is_crossed) == (0, False)
    books.apply(batch([bid(101, 1), ask(105, 1, LAST), ask(106, 1, LAST)], 10))
    assert (books[1].crossed, books[1].is_crossed) == (2, True)
    books.apply(batch([ask(101, 0, LAST)], 20))
    assert (books[1].crossed, books[1].is_crossed, books[1].valid) == (2, False, True)


def test_a_book_that_crosses_only_inside_a_group_is_not_crossed() -> None:
    book = book_of(snapshot({99: 1}, {101: 1}), [bid(101, 1), ask(101, 0), ask(102, 1, LAST)])
    assert (book.crossed, book.is_crossed) == (0, False)


@pytest.mark.parametrize("record", [level(Side.NONE, 5, 1), level(3, 5, 1), bid(5, -1)])
def test_a_level_that_cannot_be_makes_the_book_invalid_until_the_next_snapshot(record: Record) -> None:
    books = BookSet()
    books.apply(batch([*snapshot({99: 1}, {}), record, bid(98, 1, LAST)]))
    assert (books[1].valid, books[1].invalid_reason, len(books[1].bids())) == (False, Reason.BAD_MESSAGE, 0)
    books.apply(batch(snapshot({97: 1}, {}), 10))
    assert books[1].valid


def test_more_levels_than_allowed_make_the_book_invalid() -> None:
    books = BookSet(max_levels=3)
    books.apply(batch(snapshot({1: 1, 2: 1, 3: 1}, {4: 1, 5: 1, 6: 1})))
    assert books[1].valid
    books.apply(batch([bid(0, 1, LAST)], 10))
    assert (books[1].valid, books[1].invalid_reason) == (False, Reason.BUFFER_FULL)


@pytest.mark.parametrize("state", BROKEN_STATES)
def test_status_says_anew_why_an_invalid_book_is_invalid(state: State) -> None:
    book = book_of([clear(Reason.STALE, LAST), status(state, Reason.CONNECT_FAILED, instrument_id=1)])
    assert book.invalid_reason is Reason.CONNECT_FAILED


def test_status_of_a_venue_explains_its_books_and_no_others() -> None:
    books = BookSet()
    books.apply(
        batch([
            clear(Reason.STALE, instrument_id=1, venue_id=1),
            clear(Reason.STALE, LAST, instrument_id=2, venue_id=2),
            status(State.CIRCUIT_OPEN, Reason.BREAKER_OPEN, venue_id=2),
        ])
    )  # fmt: skip
    assert (books[1].invalid_reason, books[2].invalid_reason) == (Reason.STALE, Reason.BREAKER_OPEN)
    books.apply(batch([clear(Reason.SNAPSHOT, LAST, instrument_id=2, venue_id=2)], 10))
    assert books[2].invalid_reason is Reason.SNAPSHOT


def test_status_leaves_a_valid_book_alone() -> None:
    book = book_of(snapshot({99: 1}, {}), [status(State.GAP, Reason.SEQUENCE_GAP, instrument_id=1)])
    assert (book.valid, book.invalid_reason, rows(book.bids())) == (True, Reason.NONE, [(99, 1)])


def test_status_on_trades_explains_no_book() -> None:
    gap_of_trades = status(State.GAP, Reason.SEQUENCE_GAP, instrument_id=1, data_type=DataType.TRADE)
    assert book_of([clear(Reason.STALE, LAST), gap_of_trades]).invalid_reason is Reason.STALE


def test_status_without_a_reason_explains_nothing() -> None:
    quiet = status(State.RECONNECTING, Reason.NONE, instrument_id=1)
    assert book_of([clear(Reason.STALE, LAST), quiet]).invalid_reason is Reason.STALE


def test_a_reason_of_a_later_version_is_none() -> None:
    assert book_of([clear(250, LAST)]).invalid_reason is Reason.NONE


def test_only_wanted_instruments_have_books() -> None:
    books = BookSet([2])
    assert books.apply(batch([*snapshot({1: 1}, {}, 1), *snapshot({2: 1}, {}, 2), *snapshot({3: 1}, {}, 3)])) == 1
    assert (list(books), books.changed, len(books)) == ([2], [2], 1)
    assert 2 in books and 1 not in books and 10**9 not in books
    with pytest.raises(KeyError):
        books[1]


def test_a_set_of_all_instruments_makes_books_as_they_come() -> None:
    books = BookSet()
    books.apply(batch([*snapshot({1: 1}, {}, 70_000), *snapshot({2: 1}, {}, 5)]))
    assert list(books) == [5, 70_000]
    assert books[9].valid is False
    assert 9 in books
    assert books.apply(batch(snapshot({1: 1}, {}, 0))) == 0
    assert list(books) == [5, 9, 70_000]


def test_a_view_stays_the_same_book_while_the_set_grows() -> None:
    books = BookSet()
    first = books[1]
    for instrument_id in range(2, 3000):
        books.apply(batch(snapshot({instrument_id: 1}, {}, instrument_id)))
    books.apply(batch(snapshot({5: 1}, {}, 1)))
    assert first.best_bid == books[1].best_bid == (5, 1)
    assert first.instrument_id == 1


def test_ids_that_are_too_large_are_refused_after_the_rest_was_applied() -> None:
    books = BookSet(max_instruments=100)
    with pytest.raises(ValueError, match="not below 100"):
        books.apply(batch([bid(1, 1, LAST, instrument_id=2**32 - 1), *snapshot({2: 1}, {}, 99)]))
    assert books[99].valid
    for wrong in (0, 100, -1):
        with pytest.raises(ValueError, match="instrument id"):
            BookSet([wrong], max_instruments=100)
        with pytest.raises(KeyError):
            books[wrong]


def test_a_batch_may_be_longer_than_what_is_applied_of_it() -> None:
    books = BookSet()
    records = batch([*snapshot({1: 1}, {}), bid(2, 1, LAST)])
    assert books.apply(records, 2) == 1
    assert books[1].best_bid == (1, 1)
    with pytest.raises(ValueError, match="4 records of a batch of 3"):
        books.apply(records, 4)
    assert books.apply(records[:0]) == 0


def test_what_is_not_a_contiguous_array_of_records_is_refused() -> None:
    books = BookSet()
    records = batch(snapshot({1: 1}, {2: 1}))
    with pytest.raises(TypeError, match="a record 128"):
        books.apply(records.view(np.uint8))
    with pytest.raises(ValueError, match="contiguous"):
        books.apply(records[::2])
    assert books.apply(records.view(LEVEL)) == 1
    records.flags.writeable = False
    assert books.apply(records) == 1


def test_levels_go_into_the_callers_array_as_far_as_it_reaches() -> None:
    book = book_of(snapshot({1: 10, 2: 20, 3: 30}, {5: 50}))
    out = np.zeros(2, dtype=PRICE_LEVEL)
    assert book.bids(out=out).base is out or book.bids(out=out) is out
    assert rows(out) == [(3, 30), (2, 20)]
    assert rows(book.asks(out=out)) == [(5, 50)]
    assert rows(book.bids(1, out)) == [(3, 30)]
    with pytest.raises(TypeError, match="PRICE_LEVEL"):
        book.bids(out=np.zeros(2, dtype=np.int64))
    with pytest.raises(ValueError, match="negative"):
        book.bids(-1)


def test_another_thread_may_not_touch_the_books_while_they_change() -> None:
    books = BookSet()
    records = batch(snapshot(dict.fromkeys(range(2000), 1), {}))
    book, errors, outcomes = books[1], [], set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            try:
                outcomes.add((book.valid, len(book.bids())))
            except RuntimeError as error:
                errors.append(str(error))

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(2000):
            books.apply(records)
            if errors:
                break
    finally:
        done.set()
        watcher.join()
    assert outcomes <= {(False, 0), (True, 2000), (True, 0), (False, 2000)}
    assert errors and all("another thread" in error for error in errors)


def test_sides_and_sizes_that_make_no_sense_are_refused() -> None:
    book = book_of(snapshot({1: 1}, {2: 1}))
    with pytest.raises(ValueError, match=r"Side\.BID or Side\.ASK"):
        book.depth(Side.NONE)
    with pytest.raises(ValueError, match="negative"):
        book.cost_to_buy(-1)
    with pytest.raises(OverflowError):
        book.size_at(Side.BID, 2**63)
    with pytest.raises(TypeError, match="view into a BookSet"):
        Book()


def test_a_fill_takes_what_there_is_and_names_the_worst_price() -> None:
    book = book_of(snapshot({9: 5, 8: 5}, {11: 2, 12: 3}))
    assert book.cost_to_buy(4) == Fill(notional=46, filled=4, worst_price=12)
    assert book.cost_to_buy(100) == Fill(notional=58, filled=5, worst_price=12)
    assert book.cost_to_sell(5) == Fill(notional=45, filled=5, worst_price=9)
    assert book.cost_to_sell(0) == Fill(notional=0, filled=0, worst_price=UNDEFINED_PRICE)


def test_the_representation_names_the_instrument_and_why_it_is_invalid() -> None:
    assert repr(book_of(snapshot({1: 2}, {}))) == (f"<Book 1 bid (1, 2) ask ({UNDEFINED_PRICE}, 0) seq 2 valid>")
    assert "invalid: STALE" in repr(book_of([clear(Reason.STALE, LAST)]))


def test_an_instrument_added_later_gets_a_book_from_its_next_snapshot() -> None:
    books = BookSet([1])
    books.apply(batch(snapshot({10: 1}, {}, instrument_id=2)))
    assert 2 not in books
    books.add(2)
    books.add(1)
    assert not books[2].valid
    books.apply(batch(snapshot({10: 1}, {}, instrument_id=2), 100))
    assert books[2].best_bid == (10, 1)
    with pytest.raises(ValueError, match="instrument id 0"):
        books.add(0)
