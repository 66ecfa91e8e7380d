"""From the market's changes to a venue's deltas: windows that collapse what happens in them.

Venues send a book's changes together, every so many milliseconds. A face makes one window per book and speed, tells
it of every change, and gets the deltas by callback; it sends them to whoever listens. A snapshot for a new listener
is the book as it is after ``flush``, so that the next delta follows it::

    window = ChangeWindow(book, host, 0.1, self._send_delta)        # the whole book
    window = DepthWindow(book, host, 0.1, 400, self._send_delta)    # the best levels only
    window.open = True                                              # somebody listens
    window.on_change()                                              # for each market.Change of the book
    window.flush(); snapshot = window.image()

What a delta says: ``previous`` and ``last`` are the book's update ids between which it leads; levels best first, each
with its last absolute size, 0 for those that are gone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from msgspec import Struct

from mdring.emulator.book import Book, Depth, Level
from mdring.emulator.venue import Host
from mdring.record import Side


class Delta(Struct, frozen=True):
    """The changes of one window. ``left`` are levels that fell out of a depth window, and still exist."""

    previous: int
    last: int
    bids: list[Level]
    asks: list[Level]
    left_bids: list[int] = []  # prices
    left_asks: list[int] = []


class Window(ABC):
    """Collects the changes of one book; while nobody listens (``open`` is False) they are passed over."""

    def __init__(self, book: Book, host: Host, period_s: float, send: Callable[[Delta], None]) -> None:
        """``period_s`` 0: every change is sent at once."""
        self.book = book
        self.open = False
        self.is_collecting = False
        self._host = host
        self._period_s = period_s
        self._send = send
        self._sent_id = book.update_id

    @property
    def sent_id(self) -> int:
        """The update id up to which everything was sent."""
        return self._sent_id

    def on_change(self) -> None:
        """The book has changed. Sends early if the book is about to forget where the window began."""
        if self.book.update_id == self._sent_id:  # told of several changes, of which the first brought all
            return
        if not self.open:
            self._sent_id = self.book.update_id
            self._skip()
        elif self._period_s == 0 or self.book.update_id - self._sent_id >= self.book.history_limit // 2:
            self.flush()
        elif not self.is_collecting:
            self.is_collecting = True
            self._host.after(self._period_s, self._close)

    def flush(self) -> None:
        """Send what there is now."""
        previous, self._sent_id = self._sent_id, self.book.update_id
        delta = self._collapse(previous, self._sent_id)
        if self.open and delta is not None:
            self._send(delta)

    @abstractmethod
    def image(self) -> Depth:
        """The book as listeners have it after all that was sent."""

    @abstractmethod
    def _collapse(self, previous: int, last: int) -> Delta | None:
        """What changed; None if nothing that is to be told."""

    @abstractmethod
    def _skip(self) -> None:
        """A change was passed over."""

    def _close(self) -> None:
        self.is_collecting = False
        self.flush()


class ChangeWindow(Window):
    """Of a whole book: each level that changed, with its last size, also if that is what it was before."""

    def image(self) -> Depth:
        return self.book.depth()

    def _skip(self) -> None:
        """What was passed over is in the book."""

    def _collapse(self, previous: int, last: int) -> Delta | None:
        bids: dict[int, int] = {}
        asks: dict[int, int] = {}
        for side, price, size in self.book.changes_since(previous):
            (bids if side is Side.BID else asks).setdefault(price, size)  # newest first: the last value stays
        return (
            Delta(previous, last, sorted(bids.items(), reverse=True), sorted(asks.items())) if last > previous else None
        )


class DepthWindow(Window):
    """Of the best ``depth`` levels a side: what entered or changed, and what left because better levels came."""

    def __init__(self, book: Book, host: Host, period_s: float, depth: int, send: Callable[[Delta], None]) -> None:
        super().__init__(book, host, period_s, send)
        self._depth = depth
        self._sent = book.depth(depth)

    def image(self) -> Depth:
        return self._sent

    def _skip(self) -> None:
        self._sent = Depth(-1, [], [])

    def flush(self) -> None:
        if self._sent.update_id < 0:  # nobody has listened for a while: there is nothing to lead on from
            self._sent_id = self.book.update_id
            self._sent = self.book.depth(self._depth)
        super().flush()

    def _collapse(self, previous: int, last: int) -> Delta | None:
        before, self._sent = self._sent, self.book.depth(self._depth)
        bids, left_bids = _compare(before.bids, self._sent.bids, self.book.bids.sizes)
        asks, left_asks = _compare(before.asks, self._sent.asks, self.book.asks.sizes)
        bids.sort(reverse=True)
        asks.sort()
        if not (bids or asks or left_bids or left_asks):
            self._sent_id = previous
            return None
        return Delta(previous, last, bids, asks, left_bids, left_asks)


def _compare(before: list[Level], after: list[Level], sizes: dict[int, int]) -> tuple[list[Level], list[int]]:
    """Levels that are new, changed or deleted; prices of those that are only out of sight."""
    old, new = dict(before), dict(after)
    changed = [level for level in after if old.get(level[0]) != level[1]]
    gone = [price for price in old if price not in new]
    changed += [(price, 0) for price in gone if price not in sizes]
    return changed, [price for price in gone if price in sizes]
