"""cryptofeed over the frames of a capture, offline. Run by the interpreter of the peers::

    python -m benchmarks.peers.cryptofeed_decode CAPTURE PASSES

Its Binance feed with book, best bid and ask, and trades; callbacks do nothing but count; REST answers come from the
capture at once. Prints the CPU time of each pass, in ns, in all and of loading snapshots; the numbers of callbacks;
and the best levels of each book at the end.
"""

from __future__ import annotations

import asyncio
import gzip
import importlib
import json
import sys
import time
from typing import Any

_binance: Any = importlib.import_module("cryptofeed.exchanges").Binance
_symbols: Any = importlib.import_module("cryptofeed.symbols").Symbols
_defines: Any = importlib.import_module("cryptofeed.defines")


class Pass:
    """One pass over the capture with a new feed."""

    def __init__(self, symbols: list[str], responses: dict[str, str]) -> None:
        self.calls = {"l2_book": 0, "ticker": 0, "trades": 0}
        self._responses = responses
        channels = {name: self._counting(name) for name in self.calls}
        self.feed = _binance(symbols=symbols, channels=list(channels), callbacks=channels)
        self.feed.http_conn.read = self._read
        self._load = self.feed._snapshot
        self.feed._snapshot = self._load_timed
        self.snapshots_ns = 0

    def _counting(self, name: str) -> Any:
        calls = self.calls

        async def count(update: object, receipt: float) -> None:
            calls[name] += 1

        return count

    async def _read(self, url: str, **_: object) -> str:
        symbol = url.partition("symbol=")[2].partition("&")[0]
        return self._responses[symbol]

    async def _load_timed(self, pair: str) -> None:
        start = time.thread_time_ns()
        await self._load(pair)
        self.snapshots_ns += time.thread_time_ns() - start

    async def run(self, frames: list[tuple[str, float]]) -> tuple[int, int]:
        """ns of CPU of all, and of loading snapshots."""
        handle = self.feed.message_handler
        start = time.thread_time_ns()
        for text, received in frames:
            await handle(text, None, received)
        return time.thread_time_ns() - start, self.snapshots_ns

    def tops(self) -> dict[str, list[list[str]]]:
        """Best bid and ask of each book: price and size."""
        found = {}
        for symbol, book in self.feed._l2_book.items():
            bid, ask = book.book.bids.index(0), book.book.asks.index(0)
            found[self.feed.std_symbol_to_exchange_symbol(symbol)] = [[str(x) for x in bid], [str(x) for x in ask]]
        return found


def main(path: str, passes: int) -> None:
    """Measure, and print."""
    with gzip.open(path, "rt") as file:
        events = [json.loads(line) for line in file]
    listed = next(event for event in events if event["ev"] == "http" and "exchangeInfo" in event["url"])
    _symbols.set(_binance.id, *_binance._parse_symbol_data(json.loads(listed["text"])))
    responses = {
        event["url"].partition("symbol=")[2].partition("&")[0]: event["text"]
        for event in events
        if event["ev"] == "http" and "/depth" in event["url"]
    }
    names = {name: symbol for symbol, name in _binance.symbol_mapping().items()}
    symbols = [names[name] for name in responses]
    frames = [(event["text"], event["ts"] / 1e9) for event in events if event["ev"] == "recv"]
    frames = [frame for frame in frames if "@kline" not in frame[0]]  # another recording's wish, not ours

    async def measure() -> tuple[list[tuple[int, int]], Pass]:
        times = []
        for _ in range(passes):
            last = Pass(symbols, responses)
            times.append(await last.run(frames))
        return times, last

    times, last = asyncio.run(measure())
    print(json.dumps({"frames": len(frames), "passes": times, "calls": last.calls, "tops": last.tops()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
