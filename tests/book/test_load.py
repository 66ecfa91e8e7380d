"""Copying a book, setting one to a copy, and giving all of them up."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mdring.book import PRICE_LEVEL, BookSet
from mdring.record import Flags, Reason, Side
from tests.book.model import ModelBooks
from tests.book.records import ask, batch, bid, clear, rows, snapshot, trade

LAST, SNAPSHOT = Flags.LAST, Flags.SNAPSHOT


def test_a_loaded_snapshot_is_the_same_book_and_skips_what_it_contains() -> None:
    books, joined = BookSet(), BookSet()
    depth = 500
    tape = batch([
        *snapshot({-price: 1 for price in range(depth)}, dict.fromkeys(range(1, depth), 1)),
        bid(0, 5, LAST), bid(-1, 0, LAST), ask(1, 9, LAST), ask(3, 0, LAST),
    ])  # fmt: skip
    books.apply(tape[:-2])
    joined.load(1, *books[1].snapshot())
    assert joined[1].seq == books[1].seq == len(tape) - 2
    levels = joined[1].snapshot()
    assert joined.apply(tape[:-2]) == 0
    assert joined[1].snapshot().seq == levels.seq
    assert joined.apply(tape[-3:-2]) == 0, "a contained record was applied again"
    assert rows(joined[1].asks()) == rows(levels.asks)
    books.apply(tape[-2:])
    joined.apply(tape[-6:])
    copied, original = joined[1].snapshot(), books[1].snapshot()
    assert (rows(copied.bids), rows(copied.asks)) == (rows(original.bids), rows(original.asks))
    assert copied[2:] == original[2:]
    assert joined[1].crossed == 0


@pytest.mark.parametrize("depth", [0, 1, 47, 48, 49, 63, 64, 65, 96, 1000])
def test_a_loaded_book_of_any_depth_takes_deltas_at_every_place(depth: int) -> None:
    levels = np.zeros(depth, dtype=PRICE_LEVEL)
    levels["price"], levels["size"] = np.arange(depth) * 2, 1
    books, model = BookSet(), ModelBooks()
    opening = batch(snapshot({}, {2 * price: 1 for price in range(depth)}))
    model.apply(opening)
    books.load(1, levels[:0], levels, len(opening), True, Reason.NONE)
    deltas = batch([ask(price, price % 3, LAST) for price in range(-1, 2 * depth + 1)], len(opening) + 1)
    books.apply(deltas)
    model.apply(deltas)
    assert rows(books[1].asks()) == model.books[1].side(Side.ASK)


def test_a_loaded_invalid_book_keeps_its_reason_and_becomes_valid_by_the_next_snapshot() -> None:
    books, joined = BookSet(), BookSet()
    books.apply(batch([*snapshot({1: 1}, {}), clear(Reason.CHECKSUM, LAST)]))
    joined.load(1, *books[1].snapshot())
    assert (joined[1].valid, joined[1].invalid_reason) == (False, Reason.CHECKSUM)
    joined.apply(batch([bid(5, 1, SNAPSHOT | LAST)], 10))
    assert (joined[1].valid, joined[1].best_bid) == (True, (5, 1))


def test_a_crossed_book_is_crossed_where_it_is_loaded() -> None:
    books, joined = BookSet(), BookSet()
    books.apply(batch(snapshot({5: 1}, {5: 1})))
    joined.load(1, *books[1].snapshot())
    assert joined[1].is_crossed


def test_records_without_a_seq_are_never_taken_for_contained() -> None:
    books = BookSet()
    levels = np.array([(5, 1)], dtype=PRICE_LEVEL)
    books.load(1, levels, levels[:0], 100, True, Reason.NONE)
    unnumbered = batch([bid(6, 1, LAST)])
    unnumbered["seq"] = 0
    books.apply(unnumbered)
    assert books[1].best_bid == (6, 1)


def test_no_snapshot_is_taken_inside_an_event_group() -> None:
    books = BookSet()
    books.apply(batch([*snapshot({1: 1}, {}), bid(2, 1)]))
    with pytest.raises(RuntimeError, match="event group"):
        books[1].snapshot()
    assert books[2].snapshot().valid is False
    books.apply(batch([trade(LAST)], 9))
    assert rows(books[1].snapshot().bids) == [(2, 1), (1, 1)]


def test_levels_that_cannot_be_a_book_are_not_loaded() -> None:
    books = BookSet([1], max_levels=2)
    good = np.array([(5, 1), (4, 1)], dtype=PRICE_LEVEL)
    none = good[:0]
    wrong: list[tuple[npt.NDArray[np.void], npt.NDArray[np.void], bool]] = [
        (good[::-1].copy(), none, True),
        (none, good, True),
        (np.array([(5, 1), (5, 1)], dtype=PRICE_LEVEL), none, True),
        (np.array([(5, 0)], dtype=PRICE_LEVEL), none, True),
        (np.array([(5, 1), (4, 1), (3, 1)], dtype=PRICE_LEVEL), none, True),
        (good, none, False),
    ]
    for bids, asks, valid in wrong:
        with pytest.raises(ValueError):
            books.load(1, bids, asks, 1, valid, Reason.NONE)
    with pytest.raises(TypeError, match="PRICE_LEVEL"):
        books.load(1, np.zeros(2, dtype=np.int64), none, 1, True, Reason.NONE)
    with pytest.raises(KeyError):
        books.load(2, good, none, 1, True, Reason.NONE)
    books.load(1, good, none, 1, True, Reason.NONE)
    assert rows(books[1].bids()) == [(5, 1), (4, 1)]


def test_invalidated_books_stay_invalid_until_a_whole_snapshot_came() -> None:
    books = BookSet([1, 2])
    books.apply(batch([*snapshot({1: 1}, {}, 1), *snapshot({1: 1}, {}, 2), *snapshot({5: 1, 4: 1}, {}, 1)[:2]]))
    books.apply(batch([bid(7, 1, LAST, 2), ask(6, 1, LAST, 2)], 8))
    assert books[2].is_crossed
    books.invalidate(Reason.BUFFER_FULL)
    assert not books[2].is_crossed
    books.apply(batch([bid(4, 1, SNAPSHOT | LAST)], 10))
    assert [(books[id_].valid, books[id_].invalid_reason) for id_ in books] == [(False, Reason.BUFFER_FULL)] * 2
    books.apply(batch([*snapshot({3: 1}, {}, 1), *snapshot({3: 1}, {}, 2)], 20))
    books.invalidate(Reason.STALE, 2)
    assert (books[1].valid, books[2].valid, books[2].invalid_reason) == (True, False, Reason.STALE)
