"""Bybit v5's topics, the venue's side: books, quotes, trades, tickers and liquidations of one instrument.

The part of ``bybit.py`` that makes messages, from the same documentation::

    product = Product("linear", "BTCUSDT", market, book, host, intervals)
    product.books[200].join(session)     # a snapshot at once, then what changes
    product.on_change(change)            # for each market.Change of the book
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final
from uuid import NAMESPACE_OID, uuid5

from msgspec import Struct

from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.derivatives import FUNDING_INTERVAL_MS, Contract, is_liquidation
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.listing import ListedProduct
from mdring.emulator.market import Change, Market, Top
from mdring.emulator.rhythm import Beat, Pace, Silence
from mdring.emulator.stream import Listener, Stream
from mdring.emulator.text import delivery, plain, rows
from mdring.emulator.venue import Host
from mdring.emulator.window import Delta, DepthWindow
from mdring.record import Aggressor
from mdring.symbol import Product as Kind
from mdring.symbol import Symbol, plain_decimal

MS: Final = 1_000_000
BOOK_INTERVALS_S: Final = {50: 0.02, 200: 0.1, 1000: 0.2}
"""How often a book of so many levels is told."""
SPOT_QUOTES: Final = ("USDT", "USDC", "BTC", "ETH", "EUR", "BRL")
"""Assets in which pairs are listed."""
HOUR_MS: Final = 3_600_000


class StreamIntervals(Struct, frozen=True, kw_only=True):
    """How often topics are told."""

    book_interval_s: float = 0.0  # 0: the venue's own, by depth
    quote_interval_s: float = 0.01
    quote_silence_s: float = 3.0  # without change: the last quote again
    ticker_interval_s: float = 0.1
    spot_ticker_interval_s: float = 0.05
    liquidation_interval_s: float = 0.5


# ---- streams ----------------------------------------------------------------------------------------------


class Topic(Stream):
    """One topic."""

    def __init__(self, product: Product, topic: str) -> None:
        super().__init__(f"{product.category} {topic}")
        self.topic = topic
        self._product = product

    def publish(self, kind: str, tail: str) -> None:
        """``tail``: the message from behind its type and time on, ``"data":…``."""
        self.broadcast(self._frame(kind, tail))

    def tell(self, session: Listener, kind: str, tail: str) -> None:
        """To one listener."""
        session.deliver(self.title, self._frame(kind, tail))

    def _frame(self, kind: str, tail: str) -> bytes:
        now_ms = self._product.now_ms()
        head = f'"ts":{now_ms},"type":"{kind}"' if self._product.is_spot else f'"type":"{kind}","ts":{now_ms}'
        return f'{{"topic":"{self.topic}",{head},{tail}}}'.encode()


class BookStream(Topic):
    """``orderbook.{depth}``: a snapshot, then so often what changed in the best levels."""

    window: DepthWindow

    def __init__(self, product: Product, depth: int, interval_s: float, host: Host) -> None:
        super().__init__(product, f"orderbook.{depth}.{product.code}")
        self.update_id = product.book.update_id % 1_000_000_007
        self.window = DepthWindow(product.book, host, interval_s, depth, self._on_delta)

    def join(self, session: Listener) -> None:
        super().join(session)
        self.tell(session, "snapshot", self._snapshot())

    def restart(self) -> None:
        """Of the service: ids begin anew, and everybody gets a snapshot."""
        self.window.flush()
        self.update_id = 1
        if self.sessions:
            self.publish("snapshot", self._snapshot())

    def _snapshot(self) -> str:
        _, bids, asks = self.window.image()
        return self._tail(bids, asks, self.window.sent_id)

    def _on_delta(self, delta: Delta) -> None:
        bids = sorted([*delta.bids, *((price, 0) for price in delta.left_bids)], reverse=True)
        asks = sorted([*delta.asks, *((price, 0) for price in delta.left_asks)])
        self.update_id += 1
        self.publish("delta", self._tail(bids, asks, delta.last))

    def _tail(self, bids: Sequence[Level], asks: Sequence[Level], seq: int) -> str:
        return self._product.book_tail(bids, asks, self.update_id, seq)


class QuoteStream(Topic):
    """``orderbook.1``: the best levels, whole, at once, but not more often than the interval allows."""

    def __init__(self, product: Product, host: Host, intervals: StreamIntervals) -> None:
        super().__init__(product, f"orderbook.1.{product.code}")
        self.update_id = product.book.update_id % 1_000_000_009
        self.pace = Pace(host, intervals.quote_interval_s, self._look)
        self._silence = Silence(host, intervals.quote_silence_s, self._send, lambda: self.sessions)
        self._told: tuple[list[Level], list[Level]] | None = None

    def join(self, session: Listener) -> None:
        if self._renew() and self.sessions:
            self._send()
        super().join(session)
        self.tell(session, "snapshot", self._tail())
        self._silence.start()

    def on_top(self) -> None:
        """The best bid or ask has changed."""
        if self.sessions:
            self.pace.due()

    def restart(self) -> None:
        """Of the service: ids begin anew."""
        self._renew()
        self.update_id = 1
        if self.sessions:
            self._send()

    def _look(self) -> None:
        if self._renew():
            self._send()

    def _renew(self) -> bool:
        """Look at the book; whether it has another quote than was told."""
        _, bids, asks = self._product.book.depth(1)
        if (bids, asks) == self._told:
            return False
        self._told = bids, asks
        self.update_id += 1
        return True

    def _send(self) -> None:
        self.pace.mark()
        self._silence.note()
        self.publish("snapshot", self._tail())

    def _tail(self) -> str:
        bids, asks = self._told or ([], [])
        return self._product.book_tail(bids, asks, self.update_id, self._product.book.update_id)


class TickerStream(Topic):
    """``tickers``: all values at first, then so often those that have changed; of spot pairs always all."""

    def __init__(self, product: Product, host: Host, interval_s: float, values: Callable[[], dict[str, str]]) -> None:
        super().__init__(product, f"tickers.{product.code}")
        self._beat = Beat(host, interval_s, self._look, lambda: self.sessions)
        self._values = values
        self._told: dict[str, str] = {}

    def join(self, session: Listener) -> None:
        self._look()
        super().join(session)
        self.tell(session, "snapshot", self._tail(self._told))
        self._beat.start()

    def _look(self) -> None:
        values = self._values()
        changed = {key: value for key, value in values.items() if self._told.get(key) != value}
        self._told = values
        if not changed or not self.sessions:
            return
        if self._product.is_spot:
            self.publish("snapshot", self._tail(values))
        else:
            self.publish("delta", self._tail(changed))

    def _tail(self, values: Mapping[str, str]) -> str:
        fields = "".join(f',"{key}":"{value}"' for key, value in values.items())
        return f'"data":{{"symbol":"{self._product.code}"{fields}}},"cs":{self._product.book.update_id}'


class LiquidationStream(Topic):
    """``allLiquidation``: what was liquidated since the last time."""

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(product, f"allLiquidation.{product.code}")
        self._host = host
        self._interval_s = interval_s
        self._collected: list[str] = []

    @property
    def is_waiting(self) -> bool:
        """Whether something was collected that is not told."""
        return bool(self._collected)

    def add(self, liquidation: str) -> None:
        """One more."""
        if not self.sessions:
            return
        if not self._collected:
            self._host.after(self._interval_s, self._send)
        self._collected.append(liquidation)

    def _send(self) -> None:
        collected, self._collected = self._collected, []
        self.publish("snapshot", f'"data":[{",".join(collected)}]')


# ---- products ---------------------------------------------------------------------------------------------


def listing(symbol: Symbol) -> tuple[str, str] | None:
    """Category and symbol; None for what the venue does not list in either category."""
    if symbol.is_spot:
        return ("spot", symbol.base + symbol.quote) if symbol.quote in SPOT_QUOTES else None
    if symbol.settle != symbol.quote or symbol.quote not in ("USDT", "USDC"):
        return None
    pair = symbol.base + (symbol.quote if symbol.quote == "USDT" else "")
    match symbol.product:
        case Kind.PERPETUAL:
            return "linear", pair if symbol.quote == "USDT" else f"{pair}PERP"
        case Kind.FUTURE:
            return "linear", f"{pair}-{delivery(symbol.expiry):%d%b%y}".upper()
    return None


class Product(ListedProduct):
    """One instrument as this venue lists it, with its topics. Its name says the category, too, which the venue's own
    symbol does not."""

    def __init__(
        self, category: str, code: str, market: Market, book: Book, host: Host, intervals: StreamIntervals
    ) -> None:
        super().__init__(f"{code}-{category.upper()}", book)
        spec = book.spec
        self.category = category
        self.code = code
        self.is_spot = category == "spot"
        self._fills: list[Trade] = []  # of the run that is not complete yet
        self.price = self._formatter(spec.price_exponent)
        self.size = self._formatter(spec.size_exponent)
        self._host = host
        self._matched_ms = self.now_ms()
        self.books = {
            depth: BookStream(self, depth, intervals.book_interval_s or interval_s, host)
            for depth, interval_s in BOOK_INTERVALS_S.items()
        }
        self.quotes = QuoteStream(self, host, intervals)
        self.trades = Topic(self, f"publicTrade.{code}")
        self.liquidations: LiquidationStream | None = None
        if self.is_spot:
            self.ticker = TickerStream(self, host, intervals.spot_ticker_interval_s, self._day)
        else:
            self.liquidations = LiquidationStream(self, host, intervals.liquidation_interval_s)
            contract = Contract(market, book)
            self.ticker = TickerStream(
                self, host, intervals.ticker_interval_s, lambda: {**self._day(), **self._contract_values(contract)}
            )

    def streams(self) -> list[Topic]:
        """All topics of the instrument."""
        contract = [] if self.liquidations is None else [self.liquidations]
        return [*self.books.values(), self.quotes, self.trades, self.ticker, *contract]

    def now_ms(self) -> int:
        """The venue's time."""
        return self._host.now_ns() // MS

    @property
    def is_drained(self) -> bool:
        is_collecting = any(stream.window.is_collecting for stream in self.books.values())
        is_waiting = self.quotes.pace.is_waiting or (self.liquidations is not None and self.liquidations.is_waiting)
        return not (is_collecting or is_waiting)

    def on_trade(self, trade: Trade) -> None:
        self._fills.append(trade)

    def on_top(self, top: Top) -> None:
        self.quotes.on_top()

    def on_change(self, change: Change) -> None:
        """What was filled before is complete."""
        self._matched_ms = self.now_ms()
        for stream in self.books.values():
            stream.window.on_change()
        if self._fills:
            fills, self._fills = self._fills, []
            if self.trades.sessions:
                rows = ",".join(map(self._trade, fills))
                self.trades.publish("snapshot", f'"data":[{rows}]')
            if self.liquidations is not None and is_liquidation(fills[-1]):
                self.liquidations.add(self._liquidation(fills))

    def row(self, price: int, size: int) -> list[str]:
        """``["86723.40","0.194"]``"""
        return [self.price(price), self.size(size) if size else "0"]

    def book_tail(self, bids: Sequence[Level], asks: Sequence[Level], update_id: int, seq: int) -> str:
        """``"data":{"s":"BTCUSDT","b":[["86723.40","0.194"]],"a":[],"u":173678160,"seq":814547787693},"cts":1790134712126``"""
        levels = f'"b":{rows(self.row, bids)},"a":{rows(self.row, asks)}'
        return f'"data":{{"s":"{self.code}",{levels},"u":{update_id},"seq":{seq}}},"cts":{self._matched_ms}'

    def _formatter(self, exponent: int) -> Callable[[int], str]:
        """Numbers of contracts are padded, those of spot pairs are not."""
        padded = decimal_formatter(exponent, max(-exponent, 0))
        return plain(padded) if self.is_spot else padded

    def trade_id(self, fill: Trade) -> str:
        """A number with holes on either side, or a UUID."""
        if self.is_spot:
            return str(2_290_000_000_000_000_000 + 16 * fill.trade_id)
        return str(uuid5(NAMESPACE_OID, f"{self.code} {fill.trade_id}"))

    def _trade(self, fill: Trade) -> str:
        """``{"T":1672304486865,"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,"RPI":false,"seq":1783284617}``"""
        time_ms, side, number, seq = fill.ts_event // MS, taker_side(fill), self.trade_id(fill), self.book.update_id
        price, size = self.row(fill.price, fill.size)
        if self.is_spot:
            return (
                f'{{"BT":false,"RPI":false,"S":"{side}","T":{time_ms},"i":"{number}","p":"{price}","s":"{self.code}",'
                f'"seq":{seq},"v":"{size}"}}'
            )
        return (
            f'{{"T":{time_ms},"s":"{self.code}","S":"{side}","v":"{size}","p":"{price}","L":"PlusTick",'
            f'"i":"{number}","BT":false,"RPI":false,"seq":{seq}}}'
        )

    def _liquidation(self, fills: Sequence[Trade]) -> str:
        """``{"T":1739502302929,"s":"ROSEUSDT","S":"Sell","v":"20000","p":"0.04499"}``: the side of the position."""
        last, total = fills[-1], sum(fill.size for fill in fills)
        position = "Buy" if last.aggressor == Aggressor.SELL else "Sell"
        price, size = self.row(last.price, total)
        return f'{{"T":{last.ts_event // MS},"s":"{self.code}","S":"{position}","v":"{size}","p":"{price}"}}'

    def _day(self) -> dict[str, str]:
        """The last price; what was a day ago is made up."""
        trades = self.book.trades
        last = self.price(trades[-1].price if trades else self.book.spec.reference_price)
        day = {"lastPrice": last, "highPrice24h": last, "lowPrice24h": last, "prevPrice24h": last, "volume24h": "0"}
        day |= {"turnover24h": "0", "price24hPcnt": "0"}
        return {**day, "usdIndexPrice": ""} if self.is_spot else {**day, "tickDirection": "PlusTick"}

    def _contract_values(self, contract: Contract) -> dict[str, str]:
        """``openInterest`` counts both sides. A future has no funding, hence ""."""
        _, bids, asks = self.book.depth(1)
        bid, ask = (self.row(*levels[0]) if levels else ["", ""] for levels in (bids, asks))
        mark, held = contract.mark_price(), contract.open_interest()
        values = {
            "markPrice": _text(mark),
            "indexPrice": _text(contract.index_price()),
            "openInterest": _text(2 * held),
            "openInterestValue": _text(2 * held * mark),
            "singleOpenInterest": _text(held),
            "singleOpenInterestValue": _text(held * mark),
            "fundingRate": "",
            "nextFundingTime": "",
            "fundingIntervalHour": "",
            "bid1Price": bid[0],
            "bid1Size": bid[1],
            "ask1Price": ask[0],
            "ask1Size": ask[1],
        }
        if self.symbol.product is Kind.FUTURE:
            return {**values, "deliveryTime": f"{delivery(self.symbol.expiry):%Y-%m-%dT%H:%M:%SZ}"}
        return values | {
            "fundingRate": _text(contract.funding_rate()),
            "nextFundingTime": str(contract.next_funding_ms(self._host.now_ns())),
            "fundingIntervalHour": str(FUNDING_INTERVAL_MS // HOUR_MS),
        }


def _text(value: Decimal) -> str:
    return plain_decimal(str(value))


def taker_side(trade: Trade) -> str:
    """``Buy`` or ``Sell``."""
    return "Sell" if trade.aggressor == Aggressor.SELL else "Buy"
