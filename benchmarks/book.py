"""Deltas into books, natively and by two other libraries, in one process.

::

    deltas (event groups of one instrument, as polled) ──▶ BookSet.apply                      ┐
                                                      ──▶ order_book.OrderBook, one at a time ├─▶ best levels
                                                      ──▶ sortedcontainers.SortedDict         ┘

The deltas are like those in real captures of Binance, OKX and Coinbase: half of them concern the 5 to 12 best
levels, a tenth lie beyond 50; more than half change a size, as many levels come as go; about ten arrive together.
All libraries get the same ones, the others as Python objects made beforehand: prices as Decimal, as the README of
order_book does, and as int, which is faster. order_book sorts only when it is read, so it is measured with both
best levels read after each event group, and with no read at all: then it is a dict, and its book has no order.
The answer is the generator's own book, level by level.

    python -m benchmarks.book --json book.json
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks._harness import (
    Result,
    WrongAnswer,
    console,
    machine,
    print_machine,
    print_results,
    quantiles,
    require,
    write_json,
)
from mdring.book import BookSet
from mdring.record import RECORD, Flags, Kind, Side

BATCH: Final = 1024
"""Records that are applied at once, and the length of what is timed."""

LEVELS: Final = 5000
TARGET_NS: Final = 60.0
TARGET_RATIO: Final = 5.0

Delta = tuple[int, int, int, int]
"""Instrument id, side, price, size."""


class Market:
    """Books that change by themselves: what they become is the right answer."""

    def __init__(self, instruments: int, levels: int, seed: int, far: float) -> None:
        """``far``: the share of changes that may fall on any level of a side alike."""
        self.generator = np.random.default_rng(seed)
        self.instruments, self.levels, self.far = instruments, levels, far
        self.prices: dict[tuple[int, int], list[int]] = {}  # the best level last
        self.sizes: dict[tuple[int, int], dict[int, int]] = {}
        for instrument_id in range(1, instruments + 1):
            for side, sign in ((Side.BID, -1), (Side.ASK, 1)):
                prices = (10_000_000 + sign * np.cumsum(self.generator.integers(1, 8, levels)))[::-1]
                self.prices[instrument_id, side] = prices.tolist()
                self.sizes[instrument_id, side] = dict.fromkeys(prices.tolist(), 1000)

    def snapshot(self, instrument_id: int) -> npt.NDArray[np.void]:
        """The event group of the book as it is now, best levels first."""
        records = np.zeros(1, dtype=RECORD)
        records["kind"] = Kind.CLEAR
        parts = [records]
        for side in (Side.BID, Side.ASK):
            sizes = self.sizes[instrument_id, side]
            levels = np.zeros(len(sizes), dtype=RECORD)
            levels["kind"], levels["side"] = Kind.LEVEL, side
            levels["price"] = self.prices[instrument_id, side][::-1]
            levels["size"] = [sizes[price] for price in levels["price"].tolist()]
            parts.append(levels)
        records = np.concatenate(parts)
        records["instrument_id"], records["flags"] = instrument_id, Flags.SNAPSHOT
        records["flags"][-1] |= np.uint8(Flags.LAST)
        return records

    def deltas(self, count: int) -> tuple[list[Delta], list[int]]:
        """``count`` changes, and the number of changes in each event group."""
        made: list[Delta] = []
        groups: list[int] = []
        draw = self.generator
        while len(made) < count:
            instrument_id = int(draw.integers(1, self.instruments + 1))
            length = min(int(draw.geometric(0.1)), count - len(made))
            kinds, uniform = draw.random(length).tolist(), draw.random(length).tolist()
            near, middle = draw.geometric(1 / 10, length).tolist(), draw.geometric(1 / 100, length).tolist()
            sides, sizes = draw.integers(1, 3, length).tolist(), draw.integers(1, 10_000, length).tolist()
            for i in range(length):
                depth = len(self.prices[instrument_id, sides[i]])
                if kinds[i] < self.far:
                    rank = int(uniform[i] * depth)
                else:
                    rank = middle[i] - 1 if kinds[i] < self.far + (1 - self.far) * 0.23 else near[i] - 1
                made.append(self._change(instrument_id, sides[i], min(rank, depth - 1), sizes[i]))
            groups.append(length)
        return made, groups

    def _change(self, instrument_id: int, side: int, rank: int, size: int) -> Delta:
        """Change the level at ``rank`` from the best: 56 % its size, else delete it or put one behind it."""
        prices, sizes = self.prices[instrument_id, side], self.sizes[instrument_id, side]
        index = len(prices) - 1 - rank
        price = prices[index]
        choice = size % 100
        if choice >= 78 and index > 0:
            between = (price + prices[index - 1]) // 2
            if between not in sizes:
                price = between
                prices.insert(index, price)
        elif choice >= 56 and len(prices) > self.levels * 9 // 10:
            del prices[index], sizes[price]
            return instrument_id, side, price, 0
        sizes[price] = size
        return instrument_id, side, price, size

    def check(self, side_of: Callable[[int, int], list[tuple[int, int]]], who: str) -> None:
        """Require that the books which ``side_of`` gives (best levels first) are these."""
        for (instrument_id, side), prices in self.prices.items():
            sizes = self.sizes[instrument_id, side]
            expected = [(price, sizes[price]) for price in reversed(prices)]
            require(side_of(instrument_id, side) == expected, f"{who}: side {side} of {instrument_id} is wrong")


def as_records(deltas: Sequence[Delta], groups: Sequence[int]) -> npt.NDArray[np.void]:
    """The deltas as LEVEL records with LAST where groups end."""
    records = np.zeros(len(deltas), dtype=RECORD)
    records["kind"] = Kind.LEVEL
    for field, column in zip(("instrument_id", "side", "price", "size"), zip(*deltas, strict=True), strict=True):
        records[field] = column
    records["flags"][np.cumsum(groups) - 1] = Flags.LAST
    return records


def in_batches(count: int) -> list[list[int]]:
    """Lengths of the parts of each chunk that is timed: one batch."""
    return [[min(BATCH, count - start)] for start in range(0, count, BATCH)]


def in_groups(groups: Sequence[int]) -> list[list[int]]:
    """Lengths of the parts of each chunk that is timed: the event groups of about a batch."""
    chunks: list[list[int]] = [[]]
    for length in groups:
        if sum(chunks[-1]) >= BATCH:
            chunks.append([])
        chunks[-1].append(length)
    return chunks


class Native:
    """mdring's books."""

    def __init__(self, market: Market) -> None:
        self.books = BookSet()
        for instrument_id in range(1, market.instruments + 1):
            self.books.apply(market.snapshot(instrument_id))

    def side(self, instrument_id: int, side: int) -> list[tuple[int, int]]:
        """A side as it is, best levels first."""
        book = self.books[instrument_id]
        levels: list[tuple[int, int]] = (book.bids() if side == Side.BID else book.asks()).tolist()
        return levels if book.valid else []

    def run(
        self, records: npt.NDArray[np.void], chunks: Sequence[Sequence[int]], read: bool
    ) -> npt.NDArray[np.float64]:
        """ns per delta of each chunk; with ``read``, the best levels are read after each of its parts.

        A chunk is copied to the same array first, as a poll does.
        """
        polled = np.zeros(max(map(sum, chunks)), dtype=RECORD)
        apply, book = self.books.apply, self.books[1]
        times, start = [], 0
        for lengths in chunks:
            count = sum(lengths)
            polled[:count] = records[start : start + count]
            parts = np.split(polled[:count], np.cumsum(lengths)[:-1])
            begin = time.perf_counter_ns()
            for part in parts:
                apply(part)
                if read:
                    book.best_bid, book.best_ask  # noqa: B018
            times.append((time.perf_counter_ns() - begin) / count)
            start += count
        return np.array(times)


class Peer:
    """One book of another library: a mapping from price to size for each side."""

    def __init__(self, name: str, price_type: type[int] | type[Decimal], market: Market) -> None:
        library = importlib.import_module(name)
        self.name = f"{name} {metadata.version(name)}, {price_type.__name__}"
        self.price_type = price_type
        bids, asks = (
            {price_type(price): size for price, size in market.sizes[1, side].items()} for side in (Side.BID, Side.ASK)
        )
        self.bids: Any
        self.asks: Any
        self.best: Callable[[], object]
        if name == "order_book":
            self.book = library.OrderBook()
            self.book.bids, self.book.asks = bids, asks
            self.bids, self.asks = self.book.bids, self.book.asks
            self.best = lambda: (self.bids.index(0), self.asks.index(0))
        else:
            self.bids, self.asks = library.SortedDict(bids), library.SortedDict(asks)
            self.best = lambda: (self.bids.peekitem(-1), self.asks.peekitem(0))

    def side(self, _: int, side: int) -> list[tuple[int, int]]:
        """A side as it is, best levels first."""
        mapping = self.bids if side == Side.BID else self.asks
        return sorted(((int(price), mapping[price]) for price in mapping), reverse=side == Side.BID)

    def run(self, deltas: Sequence[Delta], chunks: Sequence[Sequence[int]], read: bool) -> npt.NDArray[np.float64]:
        """ns per delta of each chunk; with ``read``, the best levels are read after each of its parts."""
        made = [(side == Side.BID, self.price_type(price), size) for _, side, price, size in deltas]
        bids, asks, best = self.bids, self.asks, self.best
        times, start = [], 0
        for lengths in chunks:
            ends = (start + np.cumsum(lengths)).tolist()
            parts = [made[end - length : end] for end, length in zip(ends, lengths, strict=True)]
            begin = time.perf_counter_ns()
            for part in parts:
                for is_bid, price, size in part:
                    mapping = bids if is_bid else asks
                    if size:
                        mapping[price] = size
                    else:
                        del mapping[price]
                if read:
                    best()
            times.append((time.perf_counter_ns() - begin) / (ends[-1] - start))
            start = ends[-1]
        return np.array(times)


def apply_batches(name: str, count: int, instruments: int, levels: int, far: float = 0.02) -> Result:
    """ns per delta of ``BookSet.apply``, and whether the books are right."""
    market = Market(instruments, levels, seed=instruments, far=far)
    native = Native(market)
    times = native.run(as_records(*market.deltas(count)), in_batches(count), read=False)
    market.check(native.side, name)
    return Result(name=name, value=float(np.median(times)), unit="ns", target=TARGET_NS, quantiles=quantiles(times))


def snapshots(levels: int, rounds: int) -> Result:
    """ns per level of a snapshot that comes best first."""
    market = Market(1, levels, seed=1, far=0.0)
    records, books = market.snapshot(1), BookSet()
    times = []
    for _ in range(rounds):
        begin = time.perf_counter_ns()
        books.apply(records)
        times.append((time.perf_counter_ns() - begin) / len(records))
    require(books[1].valid and books[1].depth(Side.BID) == levels, "a snapshot did not make the book")
    return Result(name=f"snapshot of 2 × {levels}, a level", value=float(np.median(times)), unit="ns")


def against(library: str, price_type: type[int] | type[Decimal], count: int, group_count: int) -> list[Result]:
    """The same deltas of one instrument into mdring's book and another library's."""
    market = Market(1, LEVELS, seed=7, far=0.02)
    try:
        native, peer = Native(market), Peer(library, price_type, market)
    except ImportError:
        console.print(f"[yellow]{library} is not installed: not compared[/] (pip install {library})")
        return []
    results = []
    for made, read in ((count, False), (group_count, True)):
        deltas, groups = market.deltas(made)
        chunks = in_groups(groups) if read else in_batches(made)
        ours = float(np.median(native.run(as_records(deltas, groups), chunks, read)))
        theirs = float(np.median(peer.run(deltas, chunks, read)))
        market.check(native.side, "mdring")
        market.check(peer.side, peer.name)
        how = "best read per group" if read else "never read"
        target = TARGET_RATIO if library == "order_book" and (read or price_type is Decimal) else None
        results += [
            Result(name=f"{peer.name}, {how}", value=theirs, unit="ns"),
            Result(name=f"  ÷ mdring's {ours:.0f} ns", value=theirs / ours, unit="×", more_is_better=True,
                   target=target),
        ]  # fmt: skip
    return results


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of the book."""
    count = max(BATCH, int(300_000 * options.scale))
    few = max(BATCH, count // 30)
    return [
        apply_batches(f"1 instrument, 2 × {LEVELS}", count, 1, LEVELS),
        apply_batches(f"100 instruments, 2 × {LEVELS}", count, 100, LEVELS),
        apply_batches(f"1 instrument, 2 × {LEVELS}, any level alike", count, 1, LEVELS, far=1.0),
        apply_batches(f"1 instrument, 2 × {10 * LEVELS}", count, 1, 10 * LEVELS),
        snapshots(LEVELS, max(3, int(50 * options.scale))),
        *against("order_book", Decimal, count, few),
        *against("order_book", int, count, few),
        *against("sortedcontainers", int, count, few),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.book", description="ns per delta of the native book")
    parser.add_argument("--scale", type=float, default=1.0, help="how much longer (or shorter) than usual to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    options = parser.parse_args(arguments)
    described = machine()
    print_machine(described)
    try:
        results = run(options)
    except WrongAnswer as error:
        console.print(f"[red]wrong answer:[/] {error}")
        return 1
    print_results("book: ns per delta, median of batches of 1024", results)
    if options.json is not None:
        write_json(options.json, described, {"book": results})
    return 0


if __name__ == "__main__":
    sys.exit(main())
