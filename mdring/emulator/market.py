"""The seeded market simulator that stands behind all emulated venues.

It knows no venue: instruments are canonical, prices and sizes integers, ids plain counters. The server
advances it at the configured rate and hands the events to every venue face, so all venues tell the same
market. The k-th event of an instrument depends on the seed alone, never on time or on other instruments::

    market = Market(universe(["BTC-USDT"]), seed=7)
    for event in market.advance(1000, now_ns): ...   # Change | Top | Trade, in their order

A step is one order: a quote that changes one level, or a taker order that consumes the best levels. Books
are never crossed and keep about ``depth`` levels a side. The price wanders, but is drawn back to the
reference price, so that it is still plausible after days.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from msgspec import Struct

from mdring.emulator.book import Book, Trade
from mdring.emulator.instruments import InstrumentSpec
from mdring.record import Aggressor, Side

_BID: Final = Side.BID
_ASK: Final = Side.ASK
_BUY: Final = Aggressor.BUY
_SELL: Final = Aggressor.SELL

POOL_BITS: Final = 10  # sizes and instrument picks are drawn from pools of 2 ** POOL_BITS
MAX_LEVELS_TAKEN: Final = 3  # by one taker order


class Change(Struct, frozen=True, gc=False):
    """One level has a new absolute size; 0 deletes it. Each change has its own update id."""

    instrument: int
    update_id: int
    side: Side
    price: int
    size: int


class Top(Struct, frozen=True, gc=False):
    """Price or size of the best bid or ask has changed; the state after the whole step."""

    instrument: int
    update_id: int
    bid_price: int
    bid_size: int
    ask_price: int
    ask_size: int


Event = Change | Trade | Top


class Market:
    """All books of the universe and what moves them."""

    def __init__(
        self,
        specs: Sequence[InstrumentSpec],
        seed: int,
        depth: int = 200,
        trade_share: float = 0.3,
        history_limit: int = 10_000,
    ) -> None:
        """``depth``: levels a side (at least 10); ``trade_share``: share of steps that are taker orders;
        ``history_limit``: changes and trades an instrument remembers.
        """
        if depth < 10:
            raise ValueError(f"depth is {depth}, at least 10 levels a side are needed")
        if not specs:
            raise ValueError("a market needs at least one instrument")
        self.seed = seed
        self.steps = 0
        self._movers = [
            _Mover(spec, index, seed, depth, trade_share, history_limit) for index, spec in enumerate(specs)
        ]
        self.books = [mover.book for mover in self._movers]
        self._random = Random(f"{seed}/picks")
        picks = self._random.choices(range(len(specs)), weights=[spec.activity for spec in specs], k=2**POOL_BITS)
        self._picks = [self._movers[index] for index in picks]

    def book_of(self, canonical_symbol: str) -> Book:
        """The book of an instrument. Raises KeyError for one outside of the universe."""
        for book in self.books:
            if book.spec.canonical_symbol == canonical_symbol:
                return book
        raise KeyError(canonical_symbol)

    def advance(self, count: int, now_ns: int) -> list[Event]:
        """Make ``count`` steps at the time ``now_ns``; their events, in order."""
        events: list[Event] = []
        picks, draw = self._picks, self._random.getrandbits
        for _ in range(count):
            picks[draw(POOL_BITS)].step(now_ns, events)
        self.steps += count
        return events


class _Mover:
    """Moves one book by its own random numbers."""

    def __init__(
        self,
        spec: InstrumentSpec,
        index: int,
        seed: int,
        depth: int,
        trade_share: float,
        history_limit: int,
    ) -> None:
        self._random = Random(f"{seed}/{spec.canonical_symbol}")
        self._index = index
        self._depth = depth
        self._most_levels = depth + max(depth // 10, 2)
        self._trade_share = trade_share
        self._tick = spec.tick
        self._gap = spec.level_gap
        self._reference = spec.reference_price
        self._step = spec.step
        self._sizes = [self._draw_size(spec) for _ in range(2**POOL_BITS)]
        self.book = Book(
            spec,
            index,
            update_id=self._random.randrange(10**9, 9 * 10**10),
            trade_id=self._random.randrange(10**6, 4 * 10**9),
            history_limit=history_limit,
        )
        self._open()

    def step(self, now_ns: int, events: list[Event]) -> None:
        """One order of somebody; appends what came of it."""
        book = self.book
        top = book.top()
        if self._random.random() < self._trade_share:
            self._take(now_ns, events)
        else:
            self._quote(events)
        new_top = book.top()
        if new_top != top:
            events.append(Top(self._index, book.update_id, *new_top))

    def _draw_size(self, spec: InstrumentSpec) -> int:
        steps = int(spec.typical_size * self._random.lognormvariate(0.0, 1.0)) // spec.step
        return max(steps, 1) * spec.step

    def _size(self) -> int:
        return self._sizes[self._random.getrandbits(POOL_BITS)]

    def _distance(self, mean: int) -> int:
        return int(self._random.expovariate(1.0) * mean)

    def _open(self) -> None:
        for side, sign in ((_BID, -1), (_ASK, 1)):
            price = self._reference
            for _ in range(self._depth):
                price += sign * self._tick * (1 + self._distance(self._gap - 1))
                if price < self._tick:
                    break
                self.book.seed(side, price, self._size())

    def _quote(self, events: list[Event]) -> None:
        book, random = self.book, self._random.random
        side = _BID if random() < 0.5 else _ASK
        own = book.bids if side is _BID else book.asks
        spread = (book.asks.best - book.bids.best) // self._tick
        roll = random()
        if len(own) >= self._most_levels:
            price, size = own.farthest, 0
        elif spread > 1 and roll < (0.8 if spread > self._gap else 0.3):
            closer = 1 + int(random() * (spread - 1))
            price, size = own.best + own.sign * self._tick * closer, self._size()
        elif roll < 0.7:
            price, size = self._near(own.keys) * own.sign, self._size()
        elif len(own) > self._depth:
            price, size = own.farthest if roll < 0.85 else self._near(own.keys) * own.sign, 0
        else:
            farther = 1 + self._distance(self._gap * self._depth // 4)
            price, size = own.best - own.sign * self._tick * farther, self._size()
            if price < self._tick:  # a cheap instrument has no room for more bids
                price = own.best
        events.append(Change(self._index, book.apply(side, price, size), side, price, size))

    def _near(self, keys: list[int]) -> int:
        """Key of a level, the more likely the closer it is to the best."""
        return keys[-1 - min(self._distance(8), len(keys) - 1)]

    def _take(self, now_ns: int, events: list[Event]) -> None:
        book = self.book
        buys = self._random.random() < 0.5 + self._pull()
        side = _ASK if buys else _BID
        ladder = book.asks if buys else book.bids
        wanted = self._size()
        for _ in range(MAX_LEVELS_TAKEN):
            price = ladder.best
            resting = ladder.sizes[price]
            left = resting - wanted
            if left <= 0 and len(ladder) <= self._depth // 2:
                left = self._step  # never empties a side
            filled = resting - max(left, 0)
            if filled <= 0:
                return
            self._fill(_BUY if buys else _SELL, price, filled, now_ns, events)
            rest = resting - filled
            events.append(Change(self._index, book.apply(side, price, rest), side, price, rest))
            wanted -= filled
            if wanted <= 0 or rest:
                return

    def _pull(self) -> float:
        """How much the probability of a buy differs from one half, to draw the price back."""
        away = (self.book.bids.best - self._reference) / self._reference
        return min(max(-20.0 * away, -0.3), 0.3)

    def _fill(self, aggressor: Aggressor, price: int, size: int, now_ns: int, events: list[Event]) -> None:
        """One run of fills: a level is often made of two orders."""
        book = self.book
        book.run += 1
        first = size // 3 // self._step * self._step if self._random.random() < 0.25 else 0
        for part in (first, size - first):
            if part:
                book.trade_id += 1
                trade = Trade(self._index, book.trade_id, book.run, aggressor, price, part, now_ns)
                book.trades.append(trade)
                events.append(trade)
