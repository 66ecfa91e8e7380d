"""Kraken Spot v2's channels, the venue's side: what each pair sends, and when.

The middle part of ``kraken.py``, from the same documentation. A product has its streams; a session joins what it
subscribes to::

    product = Product("BTC/USD", book, host, 0.0)
    product.book_stream(10).join(session)       # a snapshot at once, then what changes
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.listing import ListedProduct
from mdring.emulator.market import Change, Top
from mdring.emulator.stream import Listener, Stream
from mdring.emulator.text import rfc3339
from mdring.emulator.venue import Host
from mdring.emulator.window import Delta, DepthWindow
from mdring.record import Aggressor
from mdring.symbol import Symbol

CHECKED_LEVELS: Final = 10
TRIGGERS: Final = ("bbo", "trades")
HISTORY: Final = 50  # trades of a snapshot
LOTS: Final = 8  # decimals of every size


def venue_name(symbol: Symbol) -> str | None:
    """``BTC/USD``; None for what the venue does not list: contracts."""
    return f"{symbol.base}/{symbol.quote}" if symbol.is_spot else None


# ---- streams ----------------------------------------------------------------------------------------------


class Key(NamedTuple):
    """What identifies a subscription: the depth of a book, the trigger of a ticker."""

    channel: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return " ".join(self)


class Subscription(Stream):
    """One subscription that is to be had, and who has it."""

    def __init__(self, product: Product, key: Key) -> None:
        super().__init__(f"{key.channel}:{key.name}")
        self.product = product
        self.key = key

    def first(self) -> str:
        """The rows of the snapshot; none if there is nothing to be told."""
        return ""

    def tell_first(self, session: Listener) -> None:
        """What there is to begin with, to a new listener alone."""
        rows = self.first()
        if rows:
            session.deliver(self.title, self._frame("snapshot", rows))

    def publish(self, rows: str) -> None:
        """To all."""
        self.broadcast(self._frame("update", rows))

    def _frame(self, kind: str, rows: str) -> bytes:
        return f'{{"channel":"{self.key.channel}","type":"{kind}","data":[{rows}]}}'.encode()


class BookStream(Subscription):
    """A book of one depth: a snapshot, then what changes in its window."""

    window: DepthWindow

    def __init__(self, product: Product, key: Key, host: Host, interval_s: float) -> None:
        super().__init__(product, key)
        self._host = host
        self.window = DepthWindow(product.book, host, interval_s, int(key.detail), self._on_delta)

    def first(self) -> str:
        _, bids, asks = self.window.image()
        return self._row(bids, asks)

    def _on_delta(self, delta: Delta) -> None:
        """Levels that are only out of sight are not told."""
        if delta.bids or delta.asks:
            self.publish(self._row(delta.bids, delta.asks))

    def _row(self, bids: Sequence[Level], asks: Sequence[Level]) -> str:
        """``{"symbol":"BTC/USD","bids":[{"price":78858.8,"qty":0.00000000}],"asks":[],"checksum":2416540570,"timestamp":"2026-08-24T22:21:58.343688Z"}``"""
        levels, (_, all_bids, all_asks) = self.product.levels, self.window.image()
        return (
            f'{{"symbol":"{self.key.name}","bids":{levels(bids)},"asks":{levels(asks)},'
            f'"checksum":{self.product.checksum(all_bids, all_asks)},"timestamp":"{rfc3339(self._host.now_ns())}"}}'
        )


class TickerStream(Subscription):
    """The best levels, and what was traded of late."""

    def __init__(self, product: Product, key: Key, host: Host) -> None:
        super().__init__(product, key)
        self._host = host

    def first(self) -> str:
        """``{"symbol":"ALGO/USD","bid":0.10025,"bid_qty":740.0,"ask":0.10035,"ask_qty":740.0,"last":0.10035,"volume":997038.98383185,"vwap":0.10148,"low":0.09979,"high":0.10285,"change":-0.00017,"change_pct":-0.17,"timestamp":"2023-09-25T09:04:31.742648Z"}``"""
        product = self.product
        _, bids, asks = product.book.depth(1)
        (bid, bid_size), (ask, ask_size) = (side[0] if side else (0, 0) for side in (bids, asks))
        last = product.price(product.book.trades[-1].price if product.book.trades else bid)
        nothing = product.price(0)
        return (
            f'{{"symbol":"{self.key.name}","bid":{product.price(bid)},"bid_qty":{product.size(bid_size)},'
            f'"ask":{product.price(ask)},"ask_qty":{product.size(ask_size)},"last":{last},"volume":0.00000000,'
            f'"vwap":{last},"low":{last},"high":{last},"change":{nothing},"change_pct":0.00,'
            f'"timestamp":"{rfc3339(self._host.now_ns())}"}}'
        )


class TradeStream(Subscription):
    """Every fill; the last 50 as the snapshot."""

    def first(self) -> str:
        return self.product.trade_rows(list(self.product.book.trades)[-HISTORY:])


# ---- products ---------------------------------------------------------------------------------------------


class Product(ListedProduct):
    """One pair as this venue lists it, with its streams."""

    def __init__(self, name: str, book: Book, host: Host, book_interval_s: float) -> None:
        super().__init__(name, book)
        spec = book.spec
        self.price_decimals = max(-spec.price_exponent, 0)
        self.price = decimal_formatter(spec.price_exponent, self.price_decimals)
        self.size = decimal_formatter(spec.size_exponent, LOTS)
        self.fills: list[Trade] = []  # of the taker order that is not complete yet
        self.trades = TradeStream(self, Key("trade", name))
        self.tickers = {trigger: TickerStream(self, Key("ticker", name, trigger), host) for trigger in TRIGGERS}
        self.books: dict[int, BookStream] = {}  # by depth; made when they are first asked for
        self._host = host
        self._book_interval_s = book_interval_s

    def book_stream(self, depth: int) -> BookStream:
        """The book of this depth."""
        if depth not in self.books:
            key = Key("book", self.name, str(depth))
            self.books[depth] = BookStream(self, key, self._host, self._book_interval_s)
        return self.books[depth]

    @property
    def is_drained(self) -> bool:
        return not any(book.window.is_collecting for book in self.books.values())

    def row(self, price: int, size: int) -> list[str]:
        return [self.price(price), self.size(size)]

    def levels(self, levels: Sequence[Level]) -> str:
        """``[{"price":78871.5,"qty":0.01266503},…]``"""
        price, size = self.price, self.size
        return "[" + ",".join([f'{{"price":{price(at)},"qty":{size(much)}}}' for at, much in levels]) + "]"

    def checksum(self, bids: Sequence[Level], asks: Sequence[Level]) -> int:
        """CRC-32 of the best 10 asks, then bids, best first: digits of price and size without leading zeros."""
        best = (*asks[:CHECKED_LEVELS], *bids[:CHECKED_LEVELS])
        texts = [text for price, size in best for text in (self.price(price), self.size(size))]
        return zlib.crc32("".join([text.replace(".", "").lstrip("0") for text in texts]).encode())

    def trade_rows(self, trades: Sequence[Trade]) -> str:
        """``{"symbol":"BTC/USD","side":"buy","price":105944.2,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"},…``"""
        return ",".join(
            [
                f'{{"symbol":"{self.name}","side":"{"sell" if trade.aggressor == Aggressor.SELL else "buy"}",'
                f'"price":{self.price(trade.price)},"qty":{self.size(trade.size)},"ord_type":"market",'
                f'"trade_id":{trade.trade_id},"timestamp":"{rfc3339(trade.ts_event)}"}}'
                for trade in trades
            ]
        )

    def on_trade(self, trade: Trade) -> None:
        self.fills.append(trade)

    def on_change(self, change: Change) -> None:
        for book in self.books.values():
            book.window.on_change()

    def on_top(self, top: Top) -> None:
        self.tell_trades()
        self._tell_ticker("bbo")

    def tell_trades(self) -> None:
        """What a taker order has filled goes out together."""
        fills, self.fills = self.fills, []
        if fills:
            if self.trades.sessions:
                self.trades.publish(self.trade_rows(fills))
            self._tell_ticker("trades")

    def _tell_ticker(self, trigger: str) -> None:
        ticker = self.tickers[trigger]
        if ticker.sessions:
            ticker.publish(ticker.first())

    def pair_row(self) -> dict[str, Any]:
        """One row of ``pairs`` of the channel ``instrument``."""
        tick, spec = float(self.price(self.book.spec.tick)), self.book.spec
        return {
            "symbol": self.name,
            "base": spec.base,
            "quote": spec.quote,
            "status": "online",
            "qty_precision": LOTS,
            "qty_increment": 10.0**-LOTS,
            "price_precision": self.price_decimals,
            "cost_precision": 5,
            "marginable": False,
            "has_index": True,
            "cost_min": 0.5,
            "tick_size": tick,
            "price_increment": tick,
            "qty_min": float(self.size(spec.step)),
        }
