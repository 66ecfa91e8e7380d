"""Binance Spot's streams, the venue's side: what each pair sends.

The middle part of ``binance.py``, from the same documentation. A product has its streams; it is told what happens to
its book, and publishes it to whoever listens::

    product = Product("BTCUSDT", book, host)
    product.trade.join(wire, Form(combined=True, unit_ns=MS))
    product.on_trade(trade)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.listing import ListedProduct
from mdring.emulator.market import Change, Top
from mdring.emulator.named_streams import DepthStreams, NamedStream
from mdring.emulator.text import rows
from mdring.emulator.venue import Host
from mdring.emulator.window import Delta
from mdring.record import Aggressor
from mdring.symbol import Symbol

DECIMALS: Final = 8  # of prices and sizes on the wire, whatever the tick
DEPTH_SPEEDS: Final = {"": 1.0, "@100ms": 0.1}


def venue_name(symbol: Symbol) -> str | None:
    """``BTCUSDT``; None for what is not listed: contracts."""
    return symbol.base + symbol.quote if symbol.is_spot else None


def trade_message(product: Product, trade: Trade, now_ns: int, unit_ns: int) -> str:
    """``{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.00100000","q":"100.00000000","T":1672515782136,"m":true,"M":true}``"""
    return (
        f'{{"e":"trade","E":{now_ns // unit_ns},"s":"{product.name}","t":{trade.trade_id},'
        f'"p":"{product.price(trade.price)}","q":"{product.size(trade.size)}",'
        f'"T":{trade.ts_event // unit_ns},"m":{_buyer_is_maker(trade)},"M":true}}'
    )


def aggregate_message(product: Product, fills: Sequence[Trade], now_ns: int, unit_ns: int) -> str:
    """``{"e":"aggTrade","E":1633998523963,"s":"NKNUSDT","a":15683430,"p":"0.35280000","q":"58.00000000","f":19862790,"l":19862790,"T":1633998523963,"m":false,"M":true}``"""
    first, last = fills[0], fills[-1]
    return (
        f'{{"e":"aggTrade","E":{now_ns // unit_ns},"s":"{product.name}","a":{first.run},'
        f'"p":"{product.price(first.price)}","q":"{product.size(sum(fill.size for fill in fills))}",'
        f'"f":{first.trade_id},"l":{last.trade_id},"T":{last.ts_event // unit_ns},'
        f'"m":{_buyer_is_maker(first)},"M":true}}'
    )


def book_ticker_message(product: Product, top: Top) -> str:
    """``{"u":499869768,"s":"NKNUSDT","b":"0.35210000","B":"672.00000000","a":"0.35260000","A":"3199.00000000"}``"""
    price, size = product.price, product.size
    return (
        f'{{"u":{top.update_id},"s":"{product.name}","b":"{price(top.bid_price)}",'
        f'"B":"{size(top.bid_size)}","a":"{price(top.ask_price)}","A":"{size(top.ask_size)}"}}'
    )


def depth_message(product: Product, delta: Delta, now_ns: int, unit_ns: int) -> str:
    """``{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":499869750,"u":499869752,"b":[["0.35130000","6195.00000000"]],"a":[]}``"""
    return (
        f'{{"e":"depthUpdate","E":{now_ns // unit_ns},"s":"{product.name}","U":{delta.previous + 1},"u":{delta.last},'
        f'"b":{rows(product.row, delta.bids)},"a":{rows(product.row, delta.asks)}}}'
    )


def snapshot_message(product: Product, update_id: int, bids: Sequence[Level], asks: Sequence[Level]) -> str:
    """``{"lastUpdateId":160,"bids":[["0.00240000","10.00000000"]],"asks":[["0.00260000","100.00000000"]]}``"""
    return f'{{"lastUpdateId":{update_id},"bids":{rows(product.row, bids)},"asks":{rows(product.row, asks)}}}'


def _buyer_is_maker(trade: Trade) -> str:
    return "true" if trade.aggressor == Aggressor.SELL else "false"


class Depth(DepthStreams[NamedStream]):
    """The books of one speed. A partial one is told if it has changed."""

    def __init__(self, product: Product, host: Host, suffix: str, period_s: float) -> None:
        super().__init__(product.name.lower(), suffix, period_s, product.book, host)
        self._product = product
        self._host = host
        self._told: dict[int, tuple[list[Level], list[Level]]] = {}

    def make(self, title: str) -> NamedStream:
        return NamedStream(title, self.on_audience)

    def on_delta(self, delta: Delta) -> None:
        product, now_ns = self._product, self._host.now_ns()
        if self.diff.audiences:
            self.diff.publish(lambda unit: depth_message(product, delta, now_ns, unit))
        for count, stream in self.partial.items():
            if stream.audiences:
                self._tell_partial(count, stream)

    def _tell_partial(self, count: int, stream: NamedStream) -> None:
        update_id, bids, asks = self._product.book.depth(count)
        if self._told.get(count) != (bids, asks):
            self._told[count] = bids, asks
            stream.publish(lambda _: snapshot_message(self._product, update_id, bids, asks))


class Product(ListedProduct):
    """One pair as this venue lists it, with its streams."""

    def __init__(self, name: str, book: Book, host: Host) -> None:
        super().__init__(name, book)
        self.price = decimal_formatter(book.spec.price_exponent, DECIMALS)
        self.size = decimal_formatter(book.spec.size_exponent, DECIMALS)
        self.trade = NamedStream(f"{name.lower()}@trade")
        self.aggregate = NamedStream(f"{name.lower()}@aggTrade")
        self.book_ticker = NamedStream(f"{name.lower()}@bookTicker")
        self.depths = [Depth(self, host, suffix, period_s) for suffix, period_s in DEPTH_SPEEDS.items()]
        self._host = host
        self._fills: list[Trade] = []  # of the run that is not complete yet

    def streams(self) -> list[NamedStream]:
        """All streams of the pair."""
        depth = [stream for depth in self.depths for stream in depth.streams()]
        return [self.trade, self.aggregate, self.book_ticker, *depth]

    @property
    def is_drained(self) -> bool:
        return not any(depth.window.is_collecting for depth in self.depths)

    def row(self, price: int, size: int) -> list[str]:
        """``["0.35130000","6195.00000000"]``"""
        return [self.price(price), self.size(size)]

    def on_trade(self, trade: Trade) -> None:
        if self.trade.audiences:
            now_ns = self._host.now_ns()  # as close to the sending as can be: clients measure by it
            self.trade.publish(lambda unit: trade_message(self, trade, now_ns, unit))
        if self.aggregate.audiences:
            self._fills.append(trade)

    def on_change(self, change: Change) -> None:
        for depth in self.depths:
            depth.window.on_change()
        if self._fills:
            self._end_run()

    def on_top(self, top: Top) -> None:
        if self.book_ticker.audiences:
            message = book_ticker_message(self, top)
            self.book_ticker.publish(lambda _: message)

    def _end_run(self) -> None:
        """A taker order is done with a level."""
        fills, self._fills = self._fills, []
        now_ns = self._host.now_ns()
        self.aggregate.publish(lambda unit: aggregate_message(self, fills, now_ns, unit))
