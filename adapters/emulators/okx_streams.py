"""OKX v5's channels, the venue's side: what each instrument sends, and when.

The middle part of ``okx.py``, from the same documentation. A product has its channels; a session joins what it
subscribes to::

    product = Product("BTC-USDT-SWAP", market, book, host, intervals)
    product.books.join(session)     # a snapshot at once, then what changes
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Final

from msgspec import Struct

from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.derivatives import FUNDING_INTERVAL_MS, Contract, is_liquidation
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.listing import ListedProduct
from mdring.emulator.market import Change, Market, Top
from mdring.emulator.rhythm import Beat, Pace, Silence
from mdring.emulator.stream import Listener, Stream
from mdring.emulator.text import delivery_ms, plain, rows
from mdring.emulator.venue import Host
from mdring.emulator.window import Delta, DepthWindow
from mdring.record import Aggressor
from mdring.symbol import Product as Kind
from mdring.symbol import Symbol, plain_decimal

MS: Final = 1_000_000
BOOK_LEVELS: Final = 400
CHECKED_LEVELS: Final = 25
LIQUIDATIONS: Final = "liquidation-orders"


class StreamIntervals(Struct, frozen=True, kw_only=True):
    """How often channels tell, and what."""

    book_interval_s: float = 0.1
    bbo_interval_s: float = 0.01
    ticker_interval_s: float = 0.1
    book_silence_s: float = 60.0  # without change: a message without levels
    checksums: bool = False  # those of before June 2026


# ---- streams ----------------------------------------------------------------------------------------------


class Channel(Stream):
    """One channel of one name."""

    def __init__(self, channel: str, name: str, first: Callable[[], str] | None = None) -> None:
        """``first`` makes what a new listener gets at once, as ``data`` and what follows it."""
        super().__init__(f"{channel}:{name}")
        self.channel = channel
        self.name = name
        self.key = "instType" if channel == LIQUIDATIONS else "instId"
        self._first = first

    def argument(self) -> str:
        """``{"channel":"books","instId":"BTC-USDT"}``"""
        return f'{{"channel":"{self.channel}","{self.key}":"{self.name}"}}'

    def join(self, session: Listener) -> None:
        super().join(session)
        if self._first is not None:
            session.deliver(self.title, self._frame(self._first()))

    def publish(self, tail: str) -> None:
        """``tail``: the message from behind the argument on, ``"data":[…]``."""
        self.broadcast(self._frame(tail))

    def _frame(self, tail: str) -> bytes:
        return f'{{"arg":{self.argument()},{tail}}}'.encode()


class BookChannel(Channel):
    """``books``: a snapshot, then every 100 ms what changed in the best 400 levels."""

    window: DepthWindow

    def __init__(self, product: Product, host: Host, intervals: StreamIntervals) -> None:
        super().__init__("books", product.name, self._snapshot)
        self._product = product
        self._host = host
        self._has_checksums = intervals.checksums
        self._silence = Silence(host, intervals.book_silence_s, self._tell_silence, lambda: self.sessions)
        self.window = DepthWindow(product.book, host, intervals.book_interval_s, BOOK_LEVELS, self._on_delta)

    def join(self, session: Listener) -> None:
        super().join(session)
        self._silence.start()

    def _snapshot(self) -> str:
        _, bids, asks = self.window.image()
        return self._message("snapshot", bids, asks, self.window.sent_id, -1)

    def _on_delta(self, delta: Delta) -> None:
        bids = sorted([*delta.bids, *((price, 0) for price in delta.left_bids)], reverse=True)
        asks = sorted([*delta.asks, *((price, 0) for price in delta.left_asks)])
        self._silence.note()
        self.publish(self._message("update", bids, asks, delta.last, delta.previous))

    def _tell_silence(self) -> None:
        """Legal: no levels, and both ids those of the last message."""
        self.publish(self._message("update", [], [], self.window.sent_id, self.window.sent_id))

    def _message(self, action: str, bids: Sequence[Level], asks: Sequence[Level], last: int, previous: int) -> str:
        """``"action":"update","data":[{"asks":[["120.67","60.47","0","5"]],"bids":[["120.66","0","0","0"]],"ts":"1790394877300","checksum":0,"seqId":32032594315,"prevSeqId":32032594283}]``"""
        row, now_ms = self._product.row, self._host.now_ns() // MS
        checksum = self._checksum() if self._has_checksums else 0
        return (
            f'"action":"{action}","data":[{{"asks":{rows(row, asks)},"bids":{rows(row, bids)},"ts":"{now_ms}",'
            f'"checksum":{checksum},"seqId":{last},"prevSeqId":{previous}}}]'
        )

    def _checksum(self) -> int:
        """CRC-32, signed, of the best levels: bid and ask in turn, ``price:size`` joined by colons."""
        product = self._product
        _, bids, asks = self.window.image()
        levels = chain.from_iterable(zip_longest(bids[:CHECKED_LEVELS], asks[:CHECKED_LEVELS]))
        text = ":".join(f"{product.price(level[0])}:{product.size(level[1])}" for level in levels if level is not None)
        unsigned = zlib.crc32(text.encode())
        return unsigned - 2**32 if unsigned >= 2**31 else unsigned


class BestChannel(Channel):
    """``bbo-tbt`` and ``tickers``: what is best now, at once, but not more often than the interval allows."""

    def __init__(self, channel: str, name: str, host: Host, interval_s: float, encode: Callable[[], str]) -> None:
        super().__init__(channel, name, encode)
        self.pace = Pace(host, interval_s, self._send)
        self._encode = encode

    def on_top(self) -> None:
        """The best bid or ask has changed."""
        if self.sessions:
            self.pace.due()

    def _send(self) -> None:
        self.pace.mark()
        self.publish(self._encode())


class PeriodicChannel(Channel):
    """A value that is looked at every so often, and told if it has changed or was not told for a while."""

    def __init__(
        self, channel: str, name: str, host: Host, period_s: float, silence_s: float, value: Callable[[], str]
    ) -> None:
        """``value``: the fields of the message but for ``ts``."""
        super().__init__(channel, name, lambda: self._message(value()))
        self._host = host
        self._beat = Beat(host, period_s, self._look, lambda: self.sessions)
        self._silence_ns = round(silence_s * 1_000_000_000)
        self._value = value
        self._told = ""
        self._told_ns = 0

    def join(self, session: Listener) -> None:
        super().join(session)
        self._beat.start()

    def _message(self, value: str) -> str:
        return f'"data":[{{{value},"ts":"{self._host.now_ns() // MS}"}}]'

    def _look(self) -> None:
        value, now_ns = self._value(), self._host.now_ns()
        if value != self._told or now_ns - self._told_ns >= self._silence_ns:
            self._told, self._told_ns = value, now_ns
            self.publish(self._message(value))


# ---- products ---------------------------------------------------------------------------------------------


def venue_name(symbol: Symbol) -> str | None:
    """The instId; None for what the venue does not list: linear contracts in another asset than USDT or USDC."""
    if symbol.product is Kind.OPTION or not (symbol.is_spot or symbol.is_inverse or symbol.settle in ("USDT", "USDC")):
        return None
    pair = f"{symbol.base}-{symbol.quote}"
    return {Kind.SPOT: pair, Kind.PERPETUAL: f"{pair}-SWAP", Kind.FUTURE: f"{pair}-{symbol.expiry[2:]}"}[symbol.product]


def kind_of(symbol: Symbol) -> str:
    """The instType."""
    return {Kind.SPOT: "SPOT", Kind.PERPETUAL: "SWAP", Kind.FUTURE: "FUTURES"}[symbol.product]


class Product(ListedProduct):
    """One instrument as this venue lists it, with its streams."""

    def __init__(
        self, name: str, market: Market, book: Book, host: Host, intervals: StreamIntervals, liquidations: Channel
    ) -> None:
        """``liquidations`` is the channel of all that are of its kind."""
        super().__init__(name, book)
        spec = book.spec
        self.kind = kind_of(self.symbol)
        shift = 0  # a contract is for 10 ** shift of what sizes are of
        if not self.symbol.is_spot:
            shift = 2 if self.symbol.is_inverse else min(spec.size_exponent + 1, 0)
        self._contract = Decimal(1).scaleb(shift)
        self.contract_value = "" if self.symbol.is_spot else plain_decimal(str(self._contract))
        exponent = spec.size_exponent - shift
        self.price = plain(decimal_formatter(spec.price_exponent, max(-spec.price_exponent, 0)))
        self.size = plain(decimal_formatter(exponent, max(-exponent, 0)))
        self._fills: list[Trade] = []  # of the run that is not complete yet
        self._host = host
        self._liquidations = liquidations
        self.books = BookChannel(self, host, intervals)
        self.trades = Channel("trades", name)
        self.bests = (
            BestChannel("bbo-tbt", name, host, intervals.bbo_interval_s, self._quote),
            BestChannel("tickers", name, host, intervals.ticker_interval_s, self._ticker),
        )
        self.periodic = [] if self.symbol.is_spot else self._contract_channels(Contract(market, book))

    @property
    def expiry_ms(self) -> str:
        """Of a future."""
        return str(delivery_ms(self.symbol.expiry))

    @property
    def is_drained(self) -> bool:
        return not (self.books.window.is_collecting or any(best.pace.is_waiting for best in self.bests))

    def channels(self) -> list[Channel]:
        """All channels of the instrument."""
        return [self.books, self.trades, *self.bests, *self.periodic]

    def row(self, price: int, size: int) -> list[str]:
        """``["411.8","10","0","4"]``: the number of orders is made up."""
        return [self.price(price), self.size(size), "0", str(1 + size % 7) if size else "0"]

    def on_trade(self, trade: Trade) -> None:
        self._fills.append(trade)

    def on_top(self, top: Top) -> None:
        for best in self.bests:
            best.on_top()

    def on_change(self, change: Change) -> None:
        self.books.window.on_change()
        if self._fills:
            self._end_run(change.update_id)

    def _end_run(self, seq_id: int) -> None:
        """A taker order has taken a level, or a part of it: what it filled there is one trade."""
        fills, self._fills = self._fills, []
        if self.trades.sessions:
            self.trades.publish(self._trade_message(fills, seq_id))
        if self._liquidations.sessions and is_liquidation(fills[-1]):
            self._liquidations.publish(self._liquidation_message(fills))

    def _trade_message(self, fills: Sequence[Trade], seq_id: int) -> str:
        """``"data":[{"instId":"BTC-USDT-SWAP","tradeId":"2978601964","px":"83725.9","sz":"5","side":"buy","ts":"1791369350776","count":"1","source":"0","seqId":344430848209}]``"""
        last = fills[-1]
        total = sum(fill.size for fill in fills)
        return (
            f'"data":[{{"instId":"{self.name}","tradeId":"{last.trade_id}","px":"{self.price(last.price)}",'
            f'"sz":"{self.size(total)}","side":"{taker_side(last)}","ts":"{last.ts_event // MS}",'
            f'"count":"{len(fills)}","source":"0","seqId":{seq_id}}}]'
        )

    def _liquidation_message(self, fills: Sequence[Trade]) -> str:
        """``"data":[{"details":[{"bkLoss":"0","bkPx":"0.007831","ccy":"","posSide":"short","side":"buy","sz":"13","ts":"1692266434010"}],"instFamily":"IOST-USDT","instId":"IOST-USDT-SWAP","instType":"SWAP","uly":"IOST-USDT"}]``"""
        last, pair = fills[-1], f"{self.symbol.base}-{self.symbol.quote}"
        side, total = taker_side(last), sum(fill.size for fill in fills)
        position = "short" if side == "buy" else "long"
        return (
            f'"data":[{{"details":[{{"bkLoss":"0","bkPx":"{self.price(last.price)}","ccy":"","posSide":"{position}",'
            f'"side":"{side}","sz":"{self.size(total)}","ts":"{last.ts_event // MS}"}}],'
            f'"instFamily":"{pair}","instId":"{self.name}","instType":"{self.kind}","uly":"{pair}"}}]'
        )

    def _quote(self) -> str:
        """``"data":[{"asks":[["13643522","0.03","0","2"]],"bids":[["13615496","0.03","0","2"]],"ts":"1790133525304","seqId":27270896}]``"""
        update_id, bids, asks = self.book.depth(1)
        best = f'"asks":{rows(self.row, asks)},"bids":{rows(self.row, bids)}'
        return f'"data":[{{{best},"ts":"{self._host.now_ns() // MS}","seqId":{update_id}}}]'

    def _ticker(self) -> str:
        """A ticker; prices of the day are left to the imagination. An empty side is ""."""
        _, bids, asks = self.book.depth(1)
        bid, bid_size = self.row(*bids[0])[:2] if bids else ("", "")
        ask, ask_size = self.row(*asks[0])[:2] if asks else ("", "")
        return (
            f'"data":[{{"instType":"{self.kind}","instId":"{self.name}","last":"","lastSz":"","askPx":"{ask}",'
            f'"askSz":"{ask_size}","bidPx":"{bid}","bidSz":"{bid_size}","ts":"{self._host.now_ns() // MS}"}}]'
        )

    def _contract_channels(self, contract: Contract) -> list[Channel]:
        who = f'"instId":"{self.name}","instType":"{self.kind}"'

        def mark() -> str:
            return f'{who},"markPx":"{plain_decimal(str(contract.mark_price()))}"'

        def open_interest() -> str:
            return f'{who},"oi":"{plain_decimal(str(contract.open_interest() / self._contract))}"'

        def funding() -> str:
            due = contract.next_funding_ms(self._host.now_ns())
            before, after = due - FUNDING_INTERVAL_MS, due + FUNDING_INTERVAL_MS
            rate = plain_decimal(str(contract.funding_rate()))
            return (
                f'{who},"fundingRate":"{rate}","fundingTime":"{due}","nextFundingRate":"",'
                f'"nextFundingTime":"{after}","prevFundingTime":"{before}"'
            )

        channels: list[Channel] = [
            PeriodicChannel("mark-price", self.name, self._host, 0.2, 10.0, mark),
            PeriodicChannel("open-interest", self.name, self._host, 3.0, 3.0, open_interest),
        ]
        if self.symbol.product is Kind.PERPETUAL:
            channels.append(PeriodicChannel("funding-rate", self.name, self._host, 30.0, 30.0, funding))
        return channels


def index_channel(name: str, contract: Contract, host: Host) -> Channel:
    """``index-tickers`` of a pair."""
    return PeriodicChannel(
        "index-tickers",
        name,
        host,
        0.1,
        60.0,
        lambda: f'"instId":"{name}","idxPx":"{plain_decimal(str(contract.index_price()))}"',
    )


def taker_side(trade: Trade) -> str:
    """``buy`` or ``sell``."""
    return "sell" if trade.aggressor == Aggressor.SELL else "buy"
