"""Windows: deltas that lead from image to image, whatever happens between."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdring.emulator.book import Book, Depth, Level
from mdring.emulator.instruments import universe
from mdring.emulator.market import Change, Market
from mdring.emulator.window import ChangeWindow, Delta, DepthWindow, Window
from mdring.record import Side


class Clock:
    """A host whose time is told by the test."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def now_ns(self) -> int:
        return 0

    def after(self, seconds: float, callback: Callable[[], None]) -> Clock:
        self.due.append(callback)
        return self

    def cancel(self) -> None:
        raise AssertionError("nobody cancels a window")

    def ring(self) -> None:
        due, self.due = self.due, []
        for callback in due:
            callback()


def made(market: Market, depth: int | None, period_s: float) -> tuple[Window, Clock, list[Delta]]:
    deltas: list[Delta] = []
    clock, book = Clock(), market.books[0]
    window: Window = (
        ChangeWindow(book, clock, period_s, deltas.append)
        if depth is None
        else DepthWindow(book, clock, period_s, depth, deltas.append)
    )
    return window, clock, deltas


def follow(levels: dict[int, int], changed: list[Level], left: list[int]) -> None:
    for price, size in changed:
        levels[price] = size
        if not size:
            del levels[price]
    for price in left:
        del levels[price]


def step(market: Market, window: Window, count: int) -> None:
    for event in market.advance(count, 0):
        if isinstance(event, Change):
            window.on_change()


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    depth=st.none() | st.integers(1, 30),
    period_s=st.sampled_from([0.0, 0.1]),
    actions=st.lists(st.sampled_from(["step", "ring", "join", "leave"]) | st.integers(2, 40), max_size=40),
)
def test_deltas_lead_a_listener_from_the_image_to_the_book(
    seed: int, depth: int | None, period_s: float, actions: list[str | int]
) -> None:
    market = Market(universe(["BTC-USDT"]), seed, depth=15)
    window, clock, deltas = made(market, depth, period_s)
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    last = -1
    for action in [*actions, "join", "step", "ring"]:
        deltas.clear()
        match action:
            case "ring":
                clock.ring()
            case "join" if not window.open:
                window.open = True
                window.flush()
                image = window.image()
                bids, asks, last = dict(image.bids), dict(image.asks), window.sent_id
                deltas.clear()
            case "leave":
                window.open = False
            case int(count):
                step(market, window, count)
            case _:
                step(market, window, 1)
        for delta in deltas:
            assert delta.previous == last < delta.last
            last = delta.last
            follow(bids, [level for level in delta.bids if level[1] or level[0] in bids], delta.left_bids)
            follow(asks, [level for level in delta.asks if level[1] or level[0] in asks], delta.left_asks)
        if window.open and not window.is_collecting:
            book = market.books[0]
            assert (list(bids), list(asks)) != ([], [])
            assert sorted(bids.items(), reverse=True) == book.bids.levels(depth)
            assert sorted(asks.items()) == book.asks.levels(depth)


def test_what_left_a_depth_window_is_told_apart_from_what_is_gone() -> None:
    market = Market(universe(["BTC-USDT"]), 1, depth=10)
    window, _, deltas = made(market, 3, 0.0)
    window.open = True
    book = market.books[0]
    best, third, fourth = book.bids.best, book.bids.price_at(2), book.bids.price_at(3)
    book.apply(Side.BID, best, 0)
    window.on_change()
    assert deltas[-1].bids == [(best, 0), (fourth, book.bids.sizes[fourth])][::-1] or deltas[-1].bids == [
        (best, 0),
        (fourth, book.bids.sizes[fourth]),
    ]
    assert deltas[-1].left_bids == []
    book.apply(Side.BID, best, 5)
    window.on_change()
    assert (deltas[-1].bids, deltas[-1].left_bids) == ([(best, 5)], [fourth])
    assert third in dict(window.image().bids)


def test_change_below_the_window_is_not_told() -> None:
    market = Market(universe(["BTC-USDT"]), 1, depth=10)
    window, _, deltas = made(market, 3, 0.0)
    window.open = True
    before = window.sent_id
    market.books[0].apply(Side.BID, market.books[0].bids.farthest, 7)
    window.on_change()
    assert deltas == [] and window.sent_id == before


@pytest.mark.parametrize("depth", [None, 5])
def test_empty_book_has_an_empty_image(depth: int | None) -> None:
    market = Market(universe(["BTC-USDT"]), 1, depth=10)
    window, _, deltas = made(market, depth, 0.0)
    book: Book = market.books[0]
    window.open = True
    for side, ladder in ((Side.BID, book.bids), (Side.ASK, book.asks)):
        for price, _ in ladder.levels():
            book.apply(side, price, 0)
            window.on_change()
    assert window.image()[1:] == ([], [])
    assert isinstance(window.image(), Depth) and deltas


def test_window_closes_early_before_the_book_forgets_where_it_began() -> None:
    market = Market(universe(["BTC-USDT"]), 1, depth=10, history_limit=20)
    window, _, deltas = made(market, None, 0.1)
    window.open = True
    for _ in range(200):
        step(market, window, 1)
    assert len(deltas) >= 10
    assert all(before.last == after.previous for before, after in pairwise(deltas))
