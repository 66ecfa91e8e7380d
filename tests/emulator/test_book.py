from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.emulator.book import Book, Depth, Ladder
from mdring.emulator.instruments import KNOWN
from mdring.record import Side

CHANGES = st.lists(st.tuples(st.sampled_from([Side.BID, Side.ASK]), st.integers(1, 12), st.integers(0, 3)))


def new_book(history_limit: int = 1000) -> Book:
    return Book(KNOWN["BTC-USDT"], 0, update_id=500, trade_id=9, history_limit=history_limit)


@given(CHANGES)
def test_ladders_hold_what_a_dict_would_and_tell_it_best_first(changes: list[tuple[Side, int, int]]) -> None:
    for side in (Side.BID, Side.ASK):
        ladder, model = Ladder(side), dict[int, int]()
        for _, price, size in changes:
            ladder.set(price, size)
            model[price] = size
        left = sorted(((p, s) for p, s in model.items() if s), reverse=side is Side.BID)
        assert ladder.levels() == left
        assert ladder.levels(2) == left[:2]
        if left:
            assert (ladder.best, ladder.farthest) == (left[0][0], left[-1][0])
            assert ladder.price_at(len(left) - 1) == left[-1][0]


@given(CHANGES, st.integers(1, 20))
def test_book_is_known_at_every_update_id_of_its_history(
    changes: list[tuple[Side, int, int]], history_limit: int
) -> None:
    book = new_book(history_limit)
    book.seed(Side.BID, 1, 7)
    states: list[Depth] = [book.depth()]
    for side, price, size in changes:
        assert book.apply(side, price, size) == states[-1].update_id + 1
        states.append(book.depth())
    kept = states[-1 - min(history_limit, len(changes)) :]
    assert book.oldest_update_id == kept[0].update_id
    for state in kept:
        assert book.at(state.update_id) == state
        since = list(book.changes_since(state.update_id))
        assert since == changes[state.update_id - 500 :][::-1]


def test_book_refuses_what_it_has_forgotten_and_what_is_to_come() -> None:
    book = new_book(history_limit=2)
    for size in (1, 2, 3):
        book.apply(Side.ASK, 10, size)
    assert book.at(501).asks == [(10, 1)]
    for update_id in (500, 504):
        with pytest.raises(LookupError, match="history"):
            book.at(update_id)
    with pytest.raises(LookupError, match="forgotten"):
        book.changes_since(500)
