"""The simulated L2 book of one instrument, with a bounded history of its changes.

``market.py`` moves it; venue faces read it to answer REST calls and to collapse changes into deltas; the
control endpoint reads it as ground truth. Each change of one level is one update id, without holes::

    book.apply(Side.BID, 6_999_900, 1_500)   # the book is now at update_id + 1
    book.at(book.update_id - 100)            # as it was a hundred changes ago
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from msgspec import Struct

from mdring.emulator.instruments import InstrumentSpec
from mdring.record import Side

Level = tuple[int, int]
"""(price, size) in units of the instrument's exponents."""


class Depth(NamedTuple):
    """Levels of a book at an update id, best first on both sides."""

    update_id: int
    bids: list[Level]
    asks: list[Level]


class Trade(Struct, frozen=True, gc=False):
    """One fill. ``run`` counts, per instrument, the runs of fills of one taker order at one price."""

    instrument: int
    trade_id: int
    run: int
    aggressor: int  # Aggressor
    price: int
    size: int
    ts_event: int  # ns


class Ladder:
    """The levels of one side. ``keys`` are prices times ``sign``, ascending, so the best is always last."""

    __slots__ = ("keys", "sign", "sizes")

    def __init__(self, side: Side) -> None:
        self.sign = 1 if side is Side.BID else -1
        self.keys: list[int] = []
        self.sizes: dict[int, int] = {}  # by price

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def best(self) -> int:
        """Price of the best level. Raises IndexError if the side is empty."""
        return self.keys[-1] * self.sign

    @property
    def farthest(self) -> int:
        """Price of the worst level. Raises IndexError if the side is empty."""
        return self.keys[0] * self.sign

    def price_at(self, rank: int) -> int:
        """Price of the level of this rank, 0 the best."""
        return self.keys[-1 - rank] * self.sign

    def set(self, price: int, size: int) -> None:
        """Give the level its absolute size; 0 deletes it."""
        sizes = self.sizes
        if size:
            if price not in sizes:
                insort(self.keys, price * self.sign)
            sizes[price] = size
        elif sizes.pop(price, None) is not None:
            key = price * self.sign
            del self.keys[bisect_left(self.keys, key)]

    def levels(self, limit: int | None = None) -> list[Level]:
        """The best ``limit`` levels (all if None), best first."""
        sizes, sign = self.sizes, self.sign
        return [(key * sign, sizes[key * sign]) for key in islice(reversed(self.keys), limit)]


class Book:
    """Both ladders, the update id they are at, the latest ``history_limit`` changes and trades."""

    def __init__(self, spec: InstrumentSpec, index: int, update_id: int, trade_id: int, history_limit: int) -> None:
        self.spec = spec
        self.index = index
        self.bids = Ladder(Side.BID)
        self.asks = Ladder(Side.ASK)
        self.update_id = update_id
        self.first_trade_id = trade_id + 1
        self.trade_id = trade_id
        self.run = trade_id // 2
        self.trades: deque[Trade] = deque(maxlen=history_limit)
        self.history_limit = history_limit
        self._changes: deque[tuple[Side, int, int]] = deque()
        self._oldest_bids: dict[int, int] = {}
        self._oldest_asks: dict[int, int] = {}

    @property
    def oldest_update_id(self) -> int:
        """The earliest update id that ``at`` and ``changes_since`` still know."""
        return self.update_id - len(self._changes)

    def seed(self, side: Side, price: int, size: int) -> None:
        """Put a level there before the market opens; no change, no update id."""
        (self.bids if side is Side.BID else self.asks).set(price, size)
        (self._oldest_bids if side is Side.BID else self._oldest_asks)[price] = size

    def apply(self, side: Side, price: int, size: int) -> int:
        """Change one level, and return the update id of the change."""
        (self.bids if side is Side.BID else self.asks).set(price, size)
        changes = self._changes
        changes.append((side, price, size))
        if len(changes) > self.history_limit:
            self._forget_oldest()
        self.update_id += 1
        return self.update_id

    def top(self) -> tuple[int, int, int, int]:
        """Best bid price and size, best ask price and size."""
        bid, ask = self.bids.best, self.asks.best
        return bid, self.bids.sizes[bid], ask, self.asks.sizes[ask]

    def depth(self, limit: int | None = None) -> Depth:
        """The book as it is."""
        return Depth(self.update_id, self.bids.levels(limit), self.asks.levels(limit))

    def at(self, update_id: int) -> Depth:
        """The whole book as it was at ``update_id``.

        Raises LookupError if that lies before ``oldest_update_id`` or after ``update_id``.
        """
        if not self.oldest_update_id <= update_id <= self.update_id:
            raise LookupError(
                f"update id {update_id} is outside of {self.oldest_update_id}..{self.update_id}, "
                "the history that is kept"
            )
        bids, asks = dict(self._oldest_bids), dict(self._oldest_asks)
        for side, price, size in islice(self._changes, update_id - self.oldest_update_id):
            _set(bids if side is Side.BID else asks, price, size)
        return Depth(update_id, sorted(bids.items(), reverse=True), sorted(asks.items()))

    def changes_since(self, update_id: int) -> Iterator[tuple[Side, int, int]]:
        """(side, price, size) of each change after ``update_id``, the newest first.

        Raises LookupError if that lies before ``oldest_update_id``.
        """
        if update_id < self.oldest_update_id:
            raise LookupError(f"changes since {update_id} are forgotten, kept from {self.oldest_update_id}")
        return islice(reversed(self._changes), self.update_id - update_id)

    def _forget_oldest(self) -> None:
        side, price, size = self._changes.popleft()
        _set(self._oldest_bids if side is Side.BID else self._oldest_asks, price, size)


def _set(levels: dict[int, int], price: int, size: int) -> None:
    if size:
        levels[price] = size
    else:
        levels.pop(price, None)
