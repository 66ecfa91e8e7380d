"""Binance futures' streams, the venue's side: what each contract sends, and to whom.

The middle part of ``binance_usdm.py``, from the same documentation. A product has its streams by name; a stream is in
the group ``public`` or ``market``, and sends to the connections whose path is of that group::

    product = Product("BTCUSDT", market, book, host, coin_margined=False)
    product.book_ticker.join(wire, Form(combined=True, unit_ns=MS))
    product.on_trade(trade); product.on_change(change); product.on_top(top)

Ids of books are those of the matching engine, which all instruments share: they skip, and only ``pu`` chains.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.derivatives import Contract, is_liquidation
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.listing import ListedProduct
from mdring.emulator.market import Change, Market, Top
from mdring.emulator.named_streams import DepthStreams, NamedStream
from mdring.emulator.rhythm import Beat
from mdring.emulator.text import delivery_ms, rows
from mdring.emulator.venue import Host
from mdring.emulator.window import Delta
from mdring.record import Aggressor
from mdring.symbol import Product as Kind
from mdring.symbol import Symbol

MS: Final = 1_000_000
PUBLIC: Final = "public"
MARKET: Final = "market"
DEPTH_SPEEDS: Final = {"": 0.25, "@500ms": 0.5, "@100ms": 0.1}
MARK_SPEEDS: Final = {"": 3.0, "@1s": 1.0}
LIQUIDATION_S: Final = 1.0  # of the orders within it the largest is told
FILLS_PER_RPI: Final = 20  # one fill in so many is against a retail-only order
RUNS_PER_PLACEHOLDER: Final = 100
ENGINE_IDS: Final = 13  # of the engine's ids, one in about so many is this instrument's


def engine_id(update_id: int) -> int:
    """The engine's id of a change of this book: rising, never by one."""
    return update_id * ENGINE_IDS + update_id * update_id * 7 % 11


def venue_name(symbol: Symbol, coin_margined: bool) -> str | None:
    """``BTCUSDT``, ``BTCUSDT_261225``; of COIN-M ``BTCUSD_PERP``. None for what is not listed."""
    if symbol.product not in (Kind.PERPETUAL, Kind.FUTURE):
        return None
    if symbol.is_inverse is not coin_margined or (not coin_margined and symbol.settle not in ("USDT", "USDC")):
        return None
    tail = f"_{symbol.expiry[2:]}" if symbol.product is Kind.FUTURE else ("_PERP" if coin_margined else "")
    return f"{symbol.base}{symbol.quote}{tail}"


class Stream(NamedStream):
    """One stream of a group."""

    def __init__(self, title: str, group: str, on_audience: Callable[[], None] | None = None) -> None:
        super().__init__(title, on_audience)
        self.group = group

    def tell(self, message: str) -> None:
        """Times are in ms, whoever listens."""
        self.publish(lambda _: message)


class Depth(DepthStreams[Stream]):
    """The books of one speed."""

    def __init__(self, product: Product, host: Host, suffix: str, period_s: float) -> None:
        super().__init__(product.name.lower(), suffix, period_s, product.book, host)
        self._product = product

    def make(self, title: str) -> Stream:
        return Stream(title, PUBLIC, self.on_audience)

    def on_delta(self, delta: Delta) -> None:
        product = self._product
        if self.diff.audiences:
            self.diff.tell(product.depth_message(delta, delta.bids, delta.asks))
        for count, stream in self.partial.items():
            if stream.audiences:
                _, bids, asks = product.book.depth(count)
                stream.tell(product.depth_message(delta, bids, asks))


def mark_stream(product: Product, host: Host, suffix: str, period_s: float) -> Stream:
    """``markPrice``: at every beat, changed or not, while somebody listens."""

    def on_audience() -> None:
        if stream.audiences:
            beat.start()

    beat = Beat(host, period_s, lambda: stream.tell(product.mark_message()), lambda: stream.audiences)
    stream = Stream(f"{product.name.lower()}@markPrice{suffix}", MARKET, on_audience)
    return stream


class Liquidation:
    """What is told of an order that closed a position."""

    def __init__(self, fills: Sequence[Trade]) -> None:
        self.size = sum(fill.size for fill in fills)
        self.last = fills[-1]


class Product(ListedProduct):
    """One contract as this venue lists it, with its streams."""

    def __init__(self, name: str, market: Market, book: Book, host: Host, coin_margined: bool) -> None:
        super().__init__(name, book)
        spec = book.spec
        self.pair = f"{self.symbol.base}{self.symbol.quote}"
        self.contract = Contract(market, book)
        self.coin_margined = coin_margined
        self.contract_size = 10 ** max(spec.size_exponent, 0) if coin_margined else 1
        shift = max(spec.size_exponent, 0) if coin_margined else 0
        self.price_decimals = max(-spec.price_exponent, 0)
        self.size_exponent = spec.size_exponent - shift
        self.size_decimals = max(-self.size_exponent, 0)
        self.price = decimal_formatter(spec.price_exponent, self.price_decimals)
        self.size = decimal_formatter(self.size_exponent, self.size_decimals)
        self._host = host
        self._tail = f'"ps":"{self.pair}","st":{2 if coin_margined else 1}'
        self._changed_ns = host.now_ns()
        self._trade_id = book.trade_id  # our own count: placeholders have ids, too
        self._fills: list[tuple[int, Trade]] = []  # of the run that is not complete yet
        self._liquidation: Liquidation | None = None  # the largest of this second
        lower = name.lower()
        self.depths = [Depth(self, host, suffix, period_s) for suffix, period_s in DEPTH_SPEEDS.items()]
        self.book_ticker = Stream(f"{lower}@bookTicker", PUBLIC)
        self.trade = Stream(f"{lower}@trade", PUBLIC)
        self.aggregate = Stream(f"{lower}@aggTrade", MARKET)
        self.force_order = Stream(f"{lower}@forceOrder", MARKET)
        self._marks = [mark_stream(self, host, suffix, period_s) for suffix, period_s in MARK_SPEEDS.items()]

    def streams(self) -> list[Stream]:
        """All streams of the contract."""
        depth = [stream for depth in self.depths for stream in depth.streams()]
        return [*depth, self.book_ticker, self.trade, self.aggregate, self.force_order, *self._marks]

    @property
    def is_perpetual(self) -> bool:
        return self.symbol.product is Kind.PERPETUAL

    @property
    def delivery_ms(self) -> int:
        """Of perpetuals Christmas of 2100."""
        if self.is_perpetual:
            return 4_133_404_800_000
        return delivery_ms(self.symbol.expiry)

    @property
    def changed_ms(self) -> int:
        """When the book changed last."""
        return self._changed_ns // MS

    @property
    def is_drained(self) -> bool:
        return self._liquidation is None and not any(depth.window.is_collecting for depth in self.depths)

    # What happens

    def on_change(self, change: Change) -> None:
        self._changed_ns = self._host.now_ns()
        for depth in self.depths:
            depth.window.on_change()
        if self._fills:
            self._end_run()

    def on_top(self, top: Top) -> None:
        self._changed_ns = self._host.now_ns()
        if self.book_ticker.audiences:
            self.book_ticker.tell(self._ticker_message(top))

    def on_trade(self, trade: Trade) -> None:
        self._trade_id += 1
        self._fills.append((self._trade_id, trade))
        if self.trade.audiences:
            self.trade.tell(self._trade_message(self._trade_id, trade))

    def _end_run(self) -> None:
        """A taker order is done with a level."""
        fills, self._fills = self._fills, []
        if self.aggregate.audiences:
            self.aggregate.tell(self._aggregate_message(fills))
        last = fills[-1][1]
        if is_liquidation(last):
            self._on_liquidation(Liquidation([fill for _, fill in fills]))
        if last.run % RUNS_PER_PLACEHOLDER == 0:
            self._trade_id += 1
            if self.trade.audiences:
                self.trade.tell(self._placeholder_message(self._trade_id, last))

    def _on_liquidation(self, liquidation: Liquidation) -> None:
        if not self.force_order.audiences:
            return
        if self._liquidation is None:
            self._host.after(LIQUIDATION_S, self._tell_liquidation)
        if self._liquidation is None or liquidation.size > self._liquidation.size:
            self._liquidation = liquidation

    def _tell_liquidation(self) -> None:
        assert self._liquidation is not None
        liquidation, self._liquidation = self._liquidation, None
        self.force_order.tell(self._liquidation_message(liquidation))

    # What is said

    def row(self, price: int, size: int) -> list[str]:
        """``["7.5040","813"]``"""
        return [self.price(price), self.size(size)]

    def depth_message(self, delta: Delta, bids: Sequence[Level], asks: Sequence[Level]) -> str:
        """``{"e":"depthUpdate","E":1626992741037,"T":1626992741024,"s":"SUSHIUSDT","U":600859599090,"u":600859600917,"pu":600859598061,"b":[["7.5040","813"]],"a":[["7.6150","1563"]],"ps":"SUSHIUSDT","st":1}``"""
        return (
            f'{{"e":"depthUpdate","E":{self._now_ms()},"T":{self.changed_ms},"s":"{self.name}",'
            f'"U":{engine_id(delta.previous + 1)},"u":{engine_id(delta.last)},"pu":{engine_id(delta.previous)},'
            f'"b":{rows(self.row, bids)},"a":{rows(self.row, asks)},{self._tail}}}'
        )

    def mark_message(self) -> str:
        """``{"e":"markPriceUpdate","E":1789461999000,"s":"BTCUSDT","p":"76888.10000000","ap":"76888.10000000","P":"77018.80267750","i":"76935.00826087","r":"0.00008900","T":1789488000000,"st":1}``"""
        mark, index = eight(self.contract.mark_price()), eight(self.contract.index_price())
        return (
            f'{{"e":"markPriceUpdate","E":{self._now_ms()},"s":"{self.name}","p":"{mark}","ap":"{mark}",'
            f'"P":"{index}","i":"{index}","r":"{self.funding_rate()}","T":{self.next_funding_ms()},'
            f'"st":{2 if self.coin_margined else 1}}}'
        )

    def funding_rate(self) -> str:
        """Of the period that runs; "" of dated contracts."""
        return eight(self.contract.funding_rate()) if self.is_perpetual else ""

    def next_funding_ms(self) -> int:
        """When it is paid; 0 of dated contracts."""
        return self.contract.next_funding_ms(self._host.now_ns()) if self.is_perpetual else 0

    def open_interest(self) -> str:
        """In contracts of COIN-M, else in the base asset."""
        return f"{self.contract.open_interest() / self.contract_size:.{self.size_decimals}f}"

    def _ticker_message(self, top: Top) -> str:
        """``{"e":"bookTicker","u":11331904350110,"s":"BTCUSDT","ps":"BTCUSDT","b":"72009.00","B":"3.065","a":"72009.10","A":"2.180","T":1787231293915,"E":1787231293915,"st":1}``"""
        price, size = self.price, self.size
        return (
            f'{{"e":"bookTicker","u":{engine_id(top.update_id)},"s":"{self.name}","ps":"{self.pair}",'
            f'"b":"{price(top.bid_price)}","B":"{size(top.bid_size)}","a":"{price(top.ask_price)}",'
            f'"A":"{size(top.ask_size)}","T":{self.changed_ms},"E":{self._now_ms()},'
            f'"st":{2 if self.coin_margined else 1}}}'
        )

    def _trade_message(self, trade_id: int, trade: Trade) -> str:
        """``{"e":"trade","E":1785685177439,"T":1785685177439,"s":"BTCUSDT","t":7947325360,"p":"63113.20","q":"0.001","X":"MARKET","m":false,"st":1}``"""
        kind = "RPI" if is_rpi(trade_id) else "MARKET"
        return self._fill(trade_id, self.price(trade.price), self.size(trade.size), kind, trade)

    def _placeholder_message(self, trade_id: int, after: Trade) -> str:
        """``{"e":"trade","E":1787151602037,"T":1787151602037,"s":"BTCUSDT","t":7979344737,"p":"0","q":"0","X":"NA","m":true,"st":1}``"""
        return self._fill(trade_id, "0", "0", "NA", after)

    def _fill(self, trade_id: int, price: str, size: str, kind: str, trade: Trade) -> str:
        return (
            f'{{"e":"trade","E":{self._now_ms()},"T":{trade.ts_event // MS},"s":"{self.name}","t":{trade_id},'
            f'"p":"{price}","q":"{size}","X":"{kind}","m":{buyer_is_maker(trade)},'
            f'"st":{2 if self.coin_margined else 1}}}'
        )

    def _aggregate_message(self, fills: Sequence[tuple[int, Trade]]) -> str:
        """``{"e":"aggTrade","E":1771263510195,"a":3141966230,"s":"BTCUSDT","p":"68005.00","q":"2.695","nq":"2.695","f":7297376181,"l":7297376207,"T":1771263510041,"m":true}``"""
        (first_id, first), (last_id, last) = fills[0], fills[-1]
        size = sum(fill.size for _, fill in fills)
        seen = sum(fill.size for number, fill in fills if not is_rpi(number))
        return (
            f'{{"e":"aggTrade","E":{self._now_ms()},"a":{first.run},"s":"{self.name}",'
            f'"p":"{self.price(first.price)}","q":"{self.size(size)}","nq":"{self.size(seen)}","f":{first_id},'
            f'"l":{last_id},"T":{last.ts_event // MS},"m":{buyer_is_maker(first)},'
            f'"st":{2 if self.coin_margined else 1}}}'
        )

    def _liquidation_message(self, liquidation: Liquidation) -> str:
        """``{"e":"forceOrder","E":1786172557615,"o":{"s":"STGUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"5","p":"0.1336000","ap":"0.1355000","X":"FILLED","l":"5","z":"5","T":1786172556607,"ps":"STGUSDT","st":1}}``"""
        last = liquidation.last
        side = "SELL" if last.aggressor == Aggressor.SELL else "BUY"
        price, size = self.price(last.price), self.size(liquidation.size)
        return (
            f'{{"e":"forceOrder","E":{self._now_ms()},"o":{{"s":"{self.name}","S":"{side}","o":"LIMIT","f":"IOC",'
            f'"q":"{size}","p":"{price}","ap":"{price}","X":"FILLED","l":"{self.size(last.size)}","z":"{size}",'
            f'"T":{last.ts_event // MS},{self._tail}}}}}'
        )

    def _now_ms(self) -> int:
        return self._host.now_ns() // MS


def is_rpi(trade_id: int) -> bool:
    """Whether a fill was against a retail-only order."""
    return trade_id % FILLS_PER_RPI == 0


def buyer_is_maker(trade: Trade) -> str:
    """As JSON."""
    return "true" if trade.aggressor == Aggressor.SELL else "false"


def eight(value: Decimal) -> str:
    """Prices and rates that are worked out have 8 decimals."""
    return f"{value:.8f}"
