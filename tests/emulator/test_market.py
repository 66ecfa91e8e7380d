from __future__ import annotations

from collections import defaultdict

import pytest

from mdring.emulator.book import Trade
from mdring.emulator.instruments import KNOWN, universe
from mdring.emulator.market import Change, Event, Market, Top
from mdring.record import Side

STEPS = 20_000


def events_of(seed: int, symbols: list[str], steps: int = STEPS) -> list[Event]:
    return Market(universe(symbols), seed).advance(steps, now_ns=123)


def test_same_seed_tells_the_same_story_in_any_chunks() -> None:
    whole = events_of(3, ["BTC-USDT", "ETH-USDT"], 600)
    market = Market(universe(["BTC-USDT", "ETH-USDT"]), 3)
    chunks = [event for count in (1, 99, 500) for event in market.advance(count, now_ns=123)]
    assert whole == chunks
    assert whole != events_of(4, ["BTC-USDT", "ETH-USDT"], 600)
    assert market.steps == 600


def test_an_instruments_path_does_not_depend_on_the_others() -> None:
    alone = events_of(3, ["ETH-USDT"], 500)
    among = [event for event in events_of(3, ["ETH-USDT", "SOL-USDT"], 2000) if event.instrument == 0]
    shorter = min(len(alone), len(among))
    assert shorter > 500
    assert alone[:shorter] == among[:shorter]


@pytest.mark.parametrize("depth", [10, 50, 1000])
def test_books_are_never_crossed_and_keep_their_depth(depth: int) -> None:
    market = Market(universe(), 11, depth=depth)
    for _ in range(STEPS // 20):
        market.advance(20, now_ns=0)
        for book in market.books:
            assert 0 < book.bids.best < book.asks.best
            assert book.bids.farthest >= book.spec.tick
            assert depth // 2 <= len(book.asks) <= depth + max(depth // 10, 2)
            assert depth // 2 <= len(book.bids) <= depth + max(depth // 10, 2)
            assert min(book.bids.sizes.values()) > 0
            assert min(book.asks.sizes.values()) > 0


def test_changes_rebuild_the_book_with_ids_that_rise_by_one() -> None:
    market = Market(universe(["BTC-USDT"]), 5)
    start = market.books[0].depth()
    bids, asks, last = dict(start.bids), dict(start.asks), start.update_id
    for event in market.advance(STEPS, now_ns=0):
        if isinstance(event, Change):
            assert event.update_id == last + 1
            last = event.update_id
            levels = bids if event.side is Side.BID else asks
            levels[event.price] = event.size
            if not event.size:
                del levels[event.price]
    end = market.books[0].depth()
    assert last == end.update_id
    assert (bids, asks) == (dict(end.bids), dict(end.asks))


def test_top_events_tell_each_change_of_the_best_levels() -> None:
    market = Market(universe(["SOL-USDT"]), 5)
    book = market.books[0]
    told, seen = book.top(), 0
    for _ in range(2000):
        for event in market.advance(1, now_ns=0):
            if isinstance(event, Top):
                assert event.update_id == book.update_id
                new = (event.bid_price, event.bid_size, event.ask_price, event.ask_size)
                assert new != told
                told, seen = new, seen + 1
        assert told == book.top()
    assert seen > 100


def test_trades_are_numbered_without_holes_and_lie_on_the_grid() -> None:
    for seed in (1, 2):
        trades = [event for event in events_of(seed, ["ETH-USDT"]) if isinstance(event, Trade)]
        ids = [trade.trade_id for trade in trades]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert all(trade.size > 0 and trade.size % KNOWN["ETH-USDT"].step == 0 for trade in trades)
        runs = sorted({trade.run for trade in trades})
        assert runs == list(range(runs[0], runs[0] + len(runs)))
        assert len(runs) < len(ids), "some runs have several fills"


def test_a_run_of_fills_is_followed_by_the_change_of_its_level() -> None:
    filled: dict[int, int] = defaultdict(int)
    open_run: Trade | None = None
    market = Market(universe(["BTC-USDT"]), 5)
    start = market.books[0].depth()
    sizes = {**dict(start.bids), **dict(start.asks)}
    for event in market.advance(2000, now_ns=0):
        if isinstance(event, Trade):
            assert open_run is None or open_run.run == event.run
            open_run = event
            filled[event.run] += event.size
        elif isinstance(event, Change):
            if open_run is not None:
                assert event.price == open_run.price
                assert event.size == sizes[event.price] - filled[open_run.run]
                open_run = None
            sizes[event.price] = event.size


def test_prices_stay_near_their_reference() -> None:
    market = Market(universe(), 2)
    market.advance(200_000, now_ns=0)
    for book in market.books:
        assert abs(book.bids.best / book.spec.reference_price - 1) < 0.2


def test_market_refuses_a_depth_or_universe_that_cannot_work() -> None:
    with pytest.raises(ValueError, match="at least 10"):
        Market(universe(), 1, depth=9)
    with pytest.raises(ValueError, match="at least one"):
        Market([], 1)


def test_book_of_finds_by_canonical_symbol() -> None:
    market = Market(universe(["BTC-USDT", "ETH-USDT"]), 1)
    assert market.book_of("ETH-USDT") is market.books[1]
    with pytest.raises(KeyError):
        market.book_of("ETHUSDT")
