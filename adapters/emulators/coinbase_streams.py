"""Coinbase Exchange's channels, the venue's side: what each product sends, and when.

The middle part of ``coinbase.py``, from the same documentation. A product has its channels; a session joins what it
subscribes to::

    product = Product("BTC-USD", book, host, intervals)
    product.level2.join(session)        # a snapshot at once, then what changes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from uuid import UUID

from msgspec import Struct

from mdring.emulator.book import Book, Trade
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.listing import ListedProduct
from mdring.emulator.market import Change, Top
from mdring.emulator.rhythm import Beat
from mdring.emulator.stream import Listener, Stream
from mdring.emulator.text import compact, plain, rfc3339
from mdring.emulator.venue import Host
from mdring.record import Aggressor, Side
from mdring.symbol import Symbol

LEVEL2: Final = "level2_batch"
SILENT: Final = ("auctionfeed", "ticker_batch")


class Intervals(Struct, frozen=True, kw_only=True):
    """How often channels tell."""

    batch_interval_s: float = 0.05
    heartbeat_interval_s: float = 1.0
    status_interval_s: float = 5.0


def venue_name(symbol: Symbol) -> str | None:
    """``BTC-USD``, as here; None for what the venue does not list: contracts."""
    return f"{symbol.base}-{symbol.quote}" if symbol.is_spot else None


def encode(value: object) -> bytes:
    """As it is sent."""
    return compact(value).encode()


def maker_side(trade: Trade) -> str:
    """``buy`` or ``sell``: the side of the order that was there before."""
    return "buy" if trade.aggressor == Aggressor.SELL else "sell"


# ---- channels ---------------------------------------------------------------------------------------------


class Channel(Stream):
    """One channel of one product (of all, if that is "")."""

    def __init__(self, name: str, product: str, first: Callable[[], bytes] | None = None) -> None:
        """``first`` makes what a new listener gets at once."""
        super().__init__(f"{name}:{product}")
        self.name = name
        self.product = product
        self._first = first

    def join(self, session: Listener) -> None:
        super().join(session)
        if self._first is not None:
            session.deliver(self.title, self._first())


class BookChannel(Channel):
    """``level2_batch``: a snapshot, then what has changed, all of it in its order, every so often."""

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(LEVEL2, product.name, self._snapshot)
        self.is_collecting = False
        self._source = product
        self._host = host
        self._interval_s = interval_s
        self._changes: list[Change] = []

    def join(self, session: Listener) -> None:
        self._send()  # the snapshot is as new as the last change
        super().join(session)

    def on_change(self, change: Change) -> None:
        """A level has another size."""
        if not self.sessions:
            return
        self._changes.append(change)
        if self._interval_s == 0:
            self._send()
        elif not self.is_collecting:
            self.is_collecting = True
            self._host.after(self._interval_s, self._close)

    def _close(self) -> None:
        self.is_collecting = False
        self._send()

    def _send(self) -> None:
        changes, self._changes = self._changes, []
        if changes and self.sessions:
            self.broadcast(self._update(changes))

    def _snapshot(self) -> bytes:
        """``{"type":"snapshot","product_id":"BAND-GBP","asks":[["14.8024","12.77"]],"bids":[["14.7550","12.5"]],"time":"2026-09-01T12:00:00.123456Z"}``"""
        product = self._source
        _, bids, asks = product.book.depth()
        return encode(
            {
                "type": "snapshot",
                "product_id": product.name,
                "asks": [product.row(*level) for level in asks],
                "bids": [product.row(*level) for level in bids],
                "time": rfc3339(self._host.now_ns()),
            }
        )

    def _update(self, changes: Sequence[Change]) -> bytes:
        """``{"type":"l2update","product_id":"SKL-BTC","changes":[["sell","0.00001306","660.5"]],"time":"2021-04-17T16:43:37.075687Z"}``"""
        row = self._source.row
        rows = ",".join(
            f'["{"buy" if change.side is Side.BID else "sell"}","{price}","{size}"]'
            for change in changes
            for price, size in [row(change.price, change.size)]
        )
        now = rfc3339(self._host.now_ns())
        return f'{{"type":"l2update","product_id":"{self.product}","changes":[{rows}],"time":"{now}"}}'.encode()


class PeriodicChannel(Channel):
    """A message every so often, also if nothing happens; no market data."""

    def __init__(self, name: str, product: str, host: Host, interval_s: float, message: Callable[[], bytes]) -> None:
        super().__init__(name, product)
        self._message = message
        self._beat = Beat(host, interval_s, self._tell, lambda: self.sessions)

    def join(self, session: Listener) -> None:
        super().join(session)
        self._beat.start()

    def _tell(self) -> None:
        text = self._message().decode()
        for session in self.sessions:
            session.reply(text)


# ---- products ---------------------------------------------------------------------------------------------


class Product(ListedProduct):
    """One product as this venue lists it, with its channels."""

    def __init__(self, name: str, book: Book, host: Host, intervals: Intervals) -> None:
        super().__init__(name, book)
        spec = book.spec
        self.is_halted = False
        self.sequence = book.update_id
        self.price = decimal_formatter(spec.price_exponent, max(-spec.price_exponent, 0))
        self.padded_size = decimal_formatter(spec.size_exponent, max(-spec.size_exponent, 0))
        self._plain_size = plain(self.padded_size)
        self.fills: list[Trade] = []  # whose change has not come yet
        self._host = host
        # What was traded before the market opened.
        first = Trade(
            book.index, book.trade_id, book.run, Aggressor.BUY, spec.reference_price, spec.step, host.now_ns()
        )
        self._last = first
        self._last_sequence = self.sequence
        self.level2 = BookChannel(self, host, intervals.batch_interval_s)
        self.matches = Channel("matches", self.name, lambda: self._match(self._last, "last_match"))
        self.ticker = Channel("ticker", self.name, self._ticker)
        heartbeat = PeriodicChannel("heartbeat", self.name, host, intervals.heartbeat_interval_s, self._heartbeat)
        silent = [Channel(name, self.name) for name in SILENT]
        self.channels: list[Channel] = [self.level2, self.matches, self.ticker, heartbeat, *silent]

    @property
    def is_drained(self) -> bool:
        return not self.level2.is_collecting

    def row(self, price: int, size: int) -> list[str]:
        """``["14.8060","56.4"]``"""
        return [self.price(price), self.size(size)]

    def size(self, size: int) -> str:
        """``56.4``; 0, which deletes a level, has its eight decimals."""
        return self._plain_size(size) if size else "0.00000000"

    def on_trade(self, trade: Trade) -> None:
        """A fill; it is told when its change is."""
        self.sequence += 1
        self.fills.append(trade)

    def on_change(self, change: Change) -> None:
        """A change, of a quote or of a fill."""
        self.sequence += 1
        self.level2.on_change(change)
        for number, fill in enumerate(self.fills):
            self._last, self._last_sequence = fill, self.sequence - len(self.fills) + number
            if self.matches.sessions:
                self.matches.broadcast(self._match(fill, "match"))
            if self.ticker.sessions:
                self.ticker.broadcast(self._ticker())
        self.fills.clear()

    def on_top(self, top: Top) -> None:
        """There is no channel of quotes."""

    def _match(self, trade: Trade, kind: str) -> bytes:
        """``{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16","taker_order_id":"3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}``"""
        return encode(
            {
                "type": kind,
                "trade_id": trade.trade_id,
                "maker_order_id": str(UUID(int=trade.trade_id << 64, version=4)),
                "taker_order_id": str(UUID(int=trade.run << 64 | 1, version=4)),
                "side": maker_side(trade),
                "size": self.size(trade.size),
                "price": self.price(trade.price),
                "product_id": self.name,
                "sequence": self._last_sequence,
                "time": rfc3339(trade.ts_event),
            }
        )

    def _ticker(self) -> bytes:
        """``{"type":"ticker","sequence":333938798,"product_id":"BAND-GBP","price":"14.7775",…,"best_bid":"14.7550","best_bid_size":"12.5","best_ask":"14.8060","best_ask_size":"56.4","side":"buy","time":"2021-04-17T16:43:30.244075Z","trade_id":881613,"last_size":"0.04"}``

        Figures of the day are left to the imagination.
        """
        trade = self._last
        _, bids, asks = self.book.depth(1)
        bid, bid_size = self.row(*bids[0]) if bids else ("0", "0.00000000")
        ask, ask_size = self.row(*asks[0]) if asks else ("0", "0.00000000")
        price = self.price(trade.price)
        return encode(
            {
                "type": "ticker",
                "sequence": self._last_sequence,
                "product_id": self.name,
                "price": price,
                "open_24h": price,
                "volume_24h": "94381.28000000",
                "low_24h": price,
                "high_24h": price,
                "volume_30d": "2295579.57000000",
                "best_bid": bid,
                "best_bid_size": bid_size,
                "best_ask": ask,
                "best_ask_size": ask_size,
                "side": "sell" if maker_side(trade) == "buy" else "buy",
                "time": rfc3339(trade.ts_event),
                "trade_id": trade.trade_id,
                "last_size": self.size(trade.size),
            }
        )

    def _heartbeat(self) -> bytes:
        """``{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}``"""
        return encode(
            {
                "type": "heartbeat",
                "sequence": self.sequence,
                "last_trade_id": self._last.trade_id,
                "product_id": self.name,
                "time": rfc3339(self._host.now_ns()),
            }
        )
