"""cryptofeed on the wire: when each of its callbacks was called. Run by the interpreter of the peers::

    python -m benchmarks.peers.cryptofeed_e2e WEBSOCKET_URL REST_URL FILE BTCUSDT,ETHUSDT

Its FeedHandler with uvloop if that is there, as its documentation recommends, and callbacks that note the time and
nothing else. Prints ``ready`` when all books are there. A line on standard input with a number begins the measurement;
when so many callbacks have come and no more do, or SILENCE_S long none, FILE (JSON) gets the times of each stream in
order, ns of CLOCK_MONOTONIC, and the best levels of the books.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, ClassVar, Final

SILENCE_S: Final = 8.0

_connection: Any = importlib.import_module("cryptofeed.connection")
_exchanges: Any = importlib.import_module("cryptofeed.exchanges")
_feedhandler: Any = importlib.import_module("cryptofeed").FeedHandler


class Measurement:
    """The callbacks, and what they noted."""

    def __init__(self, symbols: list[str]) -> None:
        self.books: dict[str, Any] = {}
        self.wanted = 0
        self.called = 0
        self.times: dict[str, list[int]] = {}
        self._symbols = set(symbols)

    def callbacks(self) -> dict[str, Any]:
        """By channel."""
        return {
            name: self._noting(stream)
            for name, stream in (("l2_book", "depth@100ms"), ("ticker", "bookTicker"), ("trades", "aggTrade"))
        }

    def _noting(self, stream: str) -> Any:
        clock, is_book = time.monotonic_ns, stream == "depth@100ms"

        async def note(update: Any, receipt: float) -> None:
            now = clock()
            if self.wanted:
                self.called += 1
                self.times.setdefault(f"{update.symbol} {stream}", []).append(now)
            elif is_book:
                self.books[update.symbol] = update
                if self._symbols <= self.books.keys():
                    self._symbols = {"-"}  # told once
                    print("ready", flush=True)

        return note


def _begin_and_end(measurement: Measurement, path: Path) -> None:
    """A thread of its own: waits for the order, then for the end."""
    measurement.wanted = int(sys.stdin.readline())
    called, quiet_s = 0, 0.0
    while quiet_s < (1.0 if measurement.called >= measurement.wanted else SILENCE_S):
        time.sleep(0.1)
        quiet_s = quiet_s + 0.1 if measurement.called == called else 0.0
        called = measurement.called
    tops = {
        symbol: [[str(part) for part in side.index(0)] for side in (book.book.bids, book.book.asks)]
        for symbol, book in measurement.books.items()
    }
    path.write_text(json.dumps({"times": measurement.times, "tops": tops}))
    print("done", flush=True)
    os._exit(0)


def main(websocket_url: str, rest_url: str, path: Path, names: list[str]) -> None:
    """Run the feed."""
    routes = _connection.Routes("/api/v3/exchangeInfo", l2book="/api/v3/depth?symbol={}&limit={}")

    class EmulatedBinance(_exchanges.Binance):  # type: ignore[misc]
        """The feed, pointed at the emulated venue."""

        websocket_endpoints: ClassVar[list[Any]] = [
            _connection.WebsocketEndpoint(f"wss{websocket_url.removeprefix('ws')}")
        ]
        rest_endpoints: ClassVar[list[Any]] = [_connection.RestEndpoint(rest_url, routes=routes)]

        def connect(self) -> Any:
            """Without TLS, as the emulated venue speaks; cryptofeed would refuse the address."""
            made = super().connect()
            for connection, *_ in made:
                connection.address = connection.address.replace("wss://", "ws://", 1)
            return made

    standard = {name: symbol for symbol, name in EmulatedBinance.symbol_mapping().items()}
    symbols = [standard[name] for name in names]
    measurement = Measurement(symbols)
    callbacks = measurement.callbacks()
    feed = EmulatedBinance(symbols=symbols, channels=list(callbacks), callbacks=callbacks)
    handler = _feedhandler(config={"log": {"disabled": True, "filename": os.devnull, "level": "WARNING"}})
    handler.add_feed(feed)
    threading.Thread(target=_begin_and_end, args=(measurement, path), daemon=True).start()
    handler.run(install_signal_handlers=False)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4].split(","))
