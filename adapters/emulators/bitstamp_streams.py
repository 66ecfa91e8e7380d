"""Bitstamp v2's channels, the venue's side: what each market sends, and when.

The middle part of ``bitstamp.py``, from the same documentation. A product has its streams; a session joins what it
subscribes to::

    product = Product("btcusd", market, book, host, intervals)
    product.diffs.join(session)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from mdring.emulator.book import Book, Depth, Level, Trade
from mdring.emulator.derivatives import Contract
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.listing import ListedProduct
from mdring.emulator.market import Change, Market, Top
from mdring.emulator.rhythm import Beat, Pace
from mdring.emulator.stream import Listener, Stream
from mdring.emulator.text import rows
from mdring.emulator.venue import Host
from mdring.emulator.window import Delta, DepthWindow
from mdring.record import Aggressor
from mdring.symbol import Product as Kind
from mdring.symbol import Symbol, plain_decimal

US: Final = 1_000  # ns
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
WHOLE_BOOK: Final = 1_000_000
BOOK_LEVELS: Final = 100
SPOT_DECIMALS: Final = 8  # of sizes
PERPETUAL_IDS: Final = 2_001_939_000_000_000_000
"""Where ids of perpetuals' trades begin."""
ORDER_IDS: Final = 1_443_875_731_320_832


class Intervals(Struct, frozen=True, kw_only=True):
    """How often channels tell, and REST makes its books anew."""

    diff_interval_s: float = 0.1
    book_interval_s: float = 0.08  # of order_book
    perpetual_diff_interval_s: float = 0.6
    perpetual_book_interval_s: float = 0.18
    funding_interval_s: float = 1.0
    snapshot_interval_s: float = 0.5  # they were up to 2.6 s old


# ---- time -------------------------------------------------------------------------------------------------


class Stamps:
    """The microtimestamps of the changes that a book remembers. No two are the same."""

    def __init__(self, book: Book, now_us: int) -> None:
        self._last_id = book.update_id
        self._stamps: deque[int] = deque([now_us], maxlen=book.history_limit + 1)
        self._told_us = now_us

    def on_change(self, now_us: int) -> None:
        """One more change."""
        self._last_id += 1
        self._told_us = max(now_us, self._told_us + 1)
        self._stamps.append(self._told_us)

    def moment(self, now_us: int) -> int:
        """A time that lies behind all changes so far, and before the next one."""
        self._told_us = max(now_us, self._told_us)
        return self._told_us

    def of(self, update_id: int) -> int:
        """That of a change; of one that is forgotten, some earlier time."""
        back = self._last_id - update_id
        if back < len(self._stamps):
            return self._stamps[-1 - back]
        return self._stamps[0] - (back - len(self._stamps) + 1)


class Snapshots:
    """The book as REST has it: made anew every so often, so in between it lies behind.

    With each one the diff that is being collected is sent. Else that would hide a change that is in the book already,
    and is taken back before the diff is sent.
    """

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        self._product = product
        self._host = host
        self._interval_us = round(interval_s * 1_000_000)
        self._made_us = 0
        self._newest = product.book.depth()

    def on_change(self) -> None:
        """The book has changed."""
        now_us = self._host.now_ns() // US
        if now_us - self._made_us >= self._interval_us:
            self._product.diffs.send()
            self._made_us = self._product.stamps.moment(now_us)
            self._newest = self._product.book.depth()

    def newest(self) -> tuple[int, Depth]:
        """Its microtimestamp, and itself."""
        self.on_change()
        return self._made_us, self._newest

    def stale(self, lag: int) -> tuple[int, Depth]:
        """The same as it was so many changes before, or as early as the book remembers."""
        book = self._product.book
        wanted = self.newest()[1].update_id - lag
        update_id = max((sent for sent in self._product.diffs.sent_ids if sent <= wanted), default=wanted)
        return self._product.stamps.of(update_id), book.at(max(update_id, book.oldest_update_id))


# ---- streams ----------------------------------------------------------------------------------------------


class Channel(Stream):
    """One channel."""

    def __init__(self, channel: str, event: str) -> None:
        super().__init__(channel)
        self._tail = f',"channel":"{channel}","event":"{event}"}}'

    def publish(self, data: str) -> None:
        """``{"data":…,"channel":"live_trades_ethusd","event":"trade"}``"""
        self.broadcast(f'{{"data":{data}{self._tail}'.encode())


class DiffStream(Channel):
    """``diff_order_book``: what has changed in the whole book since the last diff."""

    window: DepthWindow

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(f"diff_order_book_{product.name}", "data")
        self._product = product
        self.sent_ids: deque[int] = deque(maxlen=product.book.history_limit)  # between diffs the book was at these
        self.window = DepthWindow(product.book, host, interval_s, WHOLE_BOOK, self._on_delta)

    def send(self) -> None:
        """What there is now, if somebody listens."""
        if self.sessions:
            self.window.flush()

    def _on_delta(self, delta: Delta) -> None:
        self.sent_ids.append(delta.last)
        self.publish(self._product.book_text(self._product.stamps.of(delta.last), delta.bids, delta.asks))


class BookStream(Channel):
    """``order_book``: the best 100 levels at every change, but not more often than the interval allows."""

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(f"order_book_{product.name}", "data")
        self.pace = Pace(host, interval_s, self._send)
        self._product = product

    def on_change(self) -> None:
        """The book has changed."""
        if self.sessions:
            self.pace.due()

    def _send(self) -> None:
        self.pace.mark()
        update_id, bids, asks = self._product.book.depth(BOOK_LEVELS)
        self.publish(self._product.book_text(self._product.stamps.of(update_id), bids, asks))


class FundingStream(Channel):
    """``funding_rate``: once a second, whether anything has changed or not."""

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(f"funding_rate_{product.name}", "funding_rate_saved")
        self._beat = Beat(host, interval_s, self._send, lambda: self.sessions)
        self._product = product
        self._host = host

    def join(self, session: Listener) -> None:
        super().join(session)
        self._beat.start()

    def _send(self) -> None:
        self.publish(self._product.funding_text(self._host.now_ns()))


# ---- products ---------------------------------------------------------------------------------------------


def venue_name(symbol: Symbol) -> str | None:
    """The market_symbol; None for what the venue does not list: all contracts but perpetuals in USD."""
    if symbol.is_spot:
        return f"{symbol.base}{symbol.quote}".lower()
    if symbol.product is Kind.PERPETUAL and symbol.quote == symbol.settle == "USD":
        return f"{symbol.base}{symbol.quote}-perp".lower()
    return None


class Product(ListedProduct):
    """One market as this venue lists it, with its streams."""

    def __init__(self, name: str, market: Market, book: Book, host: Host, intervals: Intervals) -> None:
        super().__init__(name, book)
        spec = book.spec
        self.is_spot = self.symbol.is_spot
        self.title = f"{self.symbol.base}/{self.symbol.quote}" + ("" if self.is_spot else "-PERP")
        self.price_decimals = max(-spec.price_exponent, 0)
        self.size_decimals = SPOT_DECIMALS if self.is_spot else max(-spec.size_exponent, 0)
        self.price = decimal_formatter(spec.price_exponent, self.price_decimals)
        self.size = decimal_formatter(spec.size_exponent, self.size_decimals)
        self.stamps = Stamps(book, host.now_ns() // US)
        self.contract = None if self.is_spot else Contract(market, book)
        spot = self.is_spot
        self.diffs = DiffStream(self, host, intervals.diff_interval_s if spot else intervals.perpetual_diff_interval_s)
        self.snapshots = Snapshots(self, host, intervals.snapshot_interval_s)
        self.books = BookStream(self, host, intervals.book_interval_s if spot else intervals.perpetual_book_interval_s)
        self.trades = Channel(f"live_trades_{name}", "trade")
        self.others = [] if spot else [FundingStream(self, host, intervals.funding_interval_s)]

    def streams(self) -> list[Channel]:
        """All streams of the market."""
        return [self.diffs, self.books, self.trades, *self.others]

    @property
    def is_drained(self) -> bool:
        return not (self.diffs.window.is_collecting or self.books.pace.is_waiting)

    def on_trade(self, trade: Trade) -> None:
        if self.trades.sessions:
            self.trades.publish(self.trade_text(trade))

    def on_change(self, change: Change) -> None:
        self.diffs.window.on_change()
        self.books.on_change()
        self.snapshots.on_change()

    def on_top(self, top: Top) -> None:
        """There is no channel of quotes."""

    def row(self, price: int, size: int) -> list[str]:
        """``["0.38142","1163.70962488"]``"""
        return [self.price(price), self.size(size)]

    def book_text(self, stamp: int, bids: Sequence[Level], asks: Sequence[Level]) -> str:
        """``{"timestamp":"1641343721","microtimestamp":"1641343721663333","bids":[],"asks":[["0.38142","1163.70962488"]]}``"""
        return (
            f'{{"timestamp":"{stamp // 1_000_000}","microtimestamp":"{stamp}",'
            f'"bids":{rows(self.row, bids)},"asks":{rows(self.row, asks)}}}'
        )

    def trade_text(self, trade: Trade) -> str:
        """``{"id":216000477,"timestamp":"1641343699","amount":0.0792,"amount_str":"0.07920000","price":3805.44,"price_str":"3805.44","type":0,"microtimestamp":"1641343699596000","buy_order_id":1443875737346049,"sell_order_id":1443875731320832}``

        The newer one of the orders is the taker's.
        """
        ms = trade.ts_event // MS
        number = trade.trade_id if self.is_spot else PERPETUAL_IDS + trade.trade_id
        spelt = "" if self.is_spot else f'"id_str":"{number}",'
        price, amount = self.price(trade.price), self.size(trade.size)
        sells = trade.aggressor == Aggressor.SELL
        older, newer = ORDER_IDS + 2 * trade.trade_id, ORDER_IDS + 2 * trade.trade_id + 1
        return (
            f'{{"id":{number},{spelt}"timestamp":"{ms // 1000 if self.is_spot else ms}",'
            f'"amount":{plain_decimal(amount)},"amount_str":"{amount}","price":{plain_decimal(price)},'
            f'"price_str":"{price}","type":{int(sells)},"microtimestamp":"{ms * 1000}",'
            f'"buy_order_id":{older if sells else newer},"sell_order_id":{newer if sells else older}}}'
        )

    def funding_text(self, now_ns: int) -> str:
        """``{"market":"btcusd-perp","mark_price":"77186.81199586","index_price":"77177.99454545454","funding_rate":"0.000123","timestamp":"1789457618","next_funding_time":"1789459200"}``"""
        contract = self.contract
        assert contract is not None
        return (
            f'{{"market":"{self.name}","mark_price":"{contract.mark_price():f}",'
            f'"index_price":"{contract.index_price():f}","funding_rate":"{contract.funding_rate():.6f}",'
            f'"timestamp":"{now_ns // SECOND}","next_funding_time":"{contract.next_funding_ms(now_ns) // 1000}"}}'
        )
