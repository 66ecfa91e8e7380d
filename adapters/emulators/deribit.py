"""Deribit, the venue's side: the WebSocket and the calls that a feed handler needs.

Written from the venue's documentation (docs.deribit.com, to November 2026), not from any client. Runs in the emulator
process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/ws/api/v2
    {"jsonrpc":"2.0","id":1,"method":"public/subscribe","params":{"channels":["book.BTC-PERPETUAL.100ms"]}}

Integrity: ``change_id`` is one count for all instruments, so it rises by any amount; each change names the one before
it (``prev_change_id``). ``trade_seq`` counts the trades of an instrument.

Quirks kept: channels that cannot be had are missing in the answer, which lists the others in an order of its own; a
second subscription is granted and brings no snapshot; the keep-alive is the client's to ask for, and to answer; numbers
are bare, small ones in scientific notation; a quote of an empty side is null; ``platform_state`` repeats itself.

Not emulated: logins, hence the raw channels; combos; grouped books, candles, indices; connections that read slowly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct

from mdring.adapters.emulators.deribit_rest import (
    DeribitMethods,
    DeribitRest,
    Pools,
    RpcError,
    invalid,
    number,
    stamps,
)
from mdring.adapters.emulators.deribit_streams import (
    MS,
    BookStream,
    Channel,
    PlatformStream,
    QuoteStream,
    TickerStream,
    TradeStream,
)
from mdring.emulator.book import Book, Trade
from mdring.emulator.derivatives import Contract, is_liquidation
from mdring.emulator.listing import ListedProduct, ListedVenue, named
from mdring.emulator.market import Change, Market, Top
from mdring.emulator.rhythm import Silence
from mdring.emulator.stream import StreamSession
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, Timer, Wire
from mdring.record import Aggressor, DataType
from mdring.symbol import Product as Kind
from mdring.symbol import Symbol

INTERVALS: Final = ("100ms", "agg2")
SPOT_QUOTES: Final = ("USDC", "USDT", "EURR", "BTC", "ETH")
LEAST_HEARTBEAT_S: Final = 10
LIQUIDATED: Final = ("T", "M", "MT")
FIRST_TRADE_ID: Final = 10_000_000


class DeribitOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    interval_s: float = 0.1  # of the channels 100ms
    slow_interval_s: float = 1.0  # of the channels agg2
    platform_interval_s: float = 0.4
    idle_s: float = 60.5  # without subscription, request and heartbeat: cut
    heartbeat_slack_s: float = 0.6  # a test request comes so much later than asked for
    test_patience_s: float = 10.0  # for the answer to it
    connections: int = 32


# ---- products ---------------------------------------------------------------------------------------------


def venue_name(symbol: Symbol) -> str | None:
    """The instrument_name; None for what the venue does not list: contracts but those in USD, inverse, and in USDC."""
    if symbol.is_spot:
        return f"{symbol.base}_{symbol.quote}" if symbol.quote in SPOT_QUOTES else None
    if symbol.is_inverse and symbol.quote == "USD":
        name = symbol.base
    elif symbol.quote == symbol.settle == "USDC":
        name = f"{symbol.base}_USDC"
    else:
        return None
    if symbol.product is Kind.PERPETUAL:
        return f"{name}-PERPETUAL"
    day = datetime.strptime(symbol.expiry, "%Y%m%d")
    name = f"{name}-{day.day}{day.strftime('%b%y').upper()}"
    if symbol.product is Kind.OPTION:
        name += f"-{symbol.strike.replace('.', 'd')}-{symbol.right}"
    return name


class Product(ListedProduct):
    """One instrument as this venue lists it, with its streams."""

    def __init__(
        self, name: str, market: Market, book: Book, host: Host, options: DeribitOptions, counts: Counter[str]
    ) -> None:
        """``counts`` are the ids of trades, by currency."""
        super().__init__(name, book)
        self._counts = counts
        self.kind = "future" if self.symbol.product is Kind.PERPETUAL else str(self.symbol.product)
        self.currency = self.symbol.settle or self.symbol.quote
        self.index_name = f"{self.symbol.base}_{self.symbol.quote}".lower()
        self._contract = None if self.symbol.is_spot else Contract(market, book)
        self._host = host
        self._ids_per_change = len(market.books) + 1
        self._numbers = lru_cache(maxsize=65_536)(lambda value, exponent: number(Decimal(value).scaleb(exponent)))
        intervals = list(zip(INTERVALS, (options.interval_s, options.slow_interval_s), strict=True))
        self.books = [BookStream(self, host, *interval) for interval in intervals]
        self.trades = [TradeStream(self, host, *interval) for interval in intervals]
        self.tickers = [TickerStream(self, host, *interval) for interval in intervals]
        self.quotes = QuoteStream(self)

    def streams(self) -> list[Channel]:
        """All streams of the instrument."""
        return [*self.books, *self.trades, *self.tickers, self.quotes]

    @property
    def is_drained(self) -> bool:
        is_collecting = any(book.window.is_collecting for book in self.books)
        return not (is_collecting or any(stream.is_waiting for stream in self.trades))

    def on_trade(self, trade: Trade) -> None:
        """Ids count the trades of a currency; but for BTC, its name stands before."""
        self._counts[self.currency] += 1
        count = FIRST_TRADE_ID + self._counts[self.currency]
        listened = [stream for stream in self.trades if stream.sessions]
        if listened:
            row = self.trade(trade, str(count) if self.currency == "BTC" else f"{self.currency}-{count}")
            for stream in listened:
                stream.add(row)

    def on_change(self, change: Change) -> None:
        for book in self.books:
            book.window.on_change()

    def on_top(self, top: Top) -> None:
        if self.quotes.sessions:
            self.quotes.publish(self.quote())

    def change_id(self, update_id: int) -> int:
        """The count of all instruments' changes, of which every so many are this one's."""
        return update_id * self._ids_per_change + self.book.index

    def price(self, price: int) -> str:
        """A price as the venue writes it."""
        return self._numbers(price, self.book.spec.price_exponent)

    def size(self, size: int) -> str:
        """An amount as the venue writes it."""
        return self._numbers(size, self.book.spec.size_exponent)

    def row(self, price: int, size: int) -> list[str]:
        """Price and amount of a level."""
        return [self.price(price), self.size(size)]

    def trade(self, trade: Trade, trade_id: str) -> str:
        """``{"timestamp":1765531356452,"price":92294.5,"amount":10.0,"direction":"sell","index_price":92276.75,"instrument_name":"BTC-PERPETUAL","trade_seq":271252854,"mark_price":92287.11,"tick_direction":2,"contracts":1.0,"trade_id":"403691824"}``"""
        mark, index = self._marks()
        direction = "sell" if trade.aggressor == Aggressor.SELL else "buy"
        is_forced = not self.symbol.is_spot and is_liquidation(trade)
        liquidation = f',"liquidation":"{LIQUIDATED[trade.run // 50 % 3]}"' if is_forced else ""
        return (
            f'{{"timestamp":{trade.ts_event // MS},"price":{self.price(trade.price)},"amount":{self.size(trade.size)},'
            f'"direction":"{direction}","index_price":{index},"instrument_name":"{self.name}",'
            f'"trade_seq":{trade.trade_id},"mark_price":{mark},"tick_direction":{trade.run % 4},'
            f'"contracts":{number(Decimal(trade.size // self.book.spec.step))},"trade_id":"{trade_id}"{liquidation}}}'
        )

    def quote(self) -> str:
        """``{"timestamp":1765541767174,"instrument_name":"BTC-PERPETUAL","best_ask_price":92288.5,"best_bid_price":92288.0,"best_ask_amount":99470.0,"best_bid_amount":133440.0}``"""
        return f'{{"timestamp":{self._host.now_ns() // MS},"instrument_name":"{self.name}",{self._best("null")}}}'

    def ticker(self) -> str:
        """A ticker; what the day was like is left to the imagination."""
        return f'{{"timestamp":{self._host.now_ns() // MS},{self.ticker_fields()}}}'

    def ticker_fields(self) -> str:
        """A ticker but for its time."""
        mark, index = self._marks()
        fields = [
            '"state":"open","stats":{"high":null,"low":null,"price_change":null,"volume":0.0}',
            f'"index_price":{index},"instrument_name":"{self.name}","last_price":null,"mark_price":{mark}',
            f'"estimated_delivery_price":{index},{self._best("0.0")}',
        ]
        contract = self._contract
        if contract is not None:
            fields.append(f'"open_interest":{number(contract.open_interest())}')
            if self.symbol.product is Kind.PERPETUAL:
                rate = number(contract.funding_rate())
                fields.append(f'"current_funding":{rate},"funding_8h":{rate}')
            elif self.symbol.product is Kind.OPTION:
                greeks = '"delta":0.5,"gamma":0.00002,"vega":60.1,"theta":-40.2,"rho":12.3'
                fields.append(f'"greeks":{{{greeks}}},"mark_iv":50.0,"bid_iv":49.0,"ask_iv":51.0,"interest_rate":0.0')
        return ",".join(fields)

    def _best(self, empty: str) -> str:
        _, bids, asks = self.book.depth(1)
        bid, bid_size = self.row(*bids[0]) if bids else (empty, "0.0")
        ask, ask_size = self.row(*asks[0]) if asks else (empty, "0.0")
        return (
            f'"best_ask_price":{ask},"best_bid_price":{bid},"best_ask_amount":{ask_size},"best_bid_amount":{bid_size}'
        )

    def _marks(self) -> tuple[str, str]:
        """Mark and index price. An option's mark is the middle of its own book, for the index is another thing."""
        contract = self._contract
        if contract is not None and self.symbol.product is not Kind.OPTION:
            return number(contract.mark_price()), number(contract.index_price())
        _, bids, asks = self.book.depth(1)
        best = [price for price, _ in (*bids, *asks)] or [self.book.spec.reference_price]
        middle = number((Decimal(sum(best)) / len(best)).scaleb(self.book.spec.price_exponent))
        return middle, middle if contract is None else number(contract.index_price())


# ---- connections ------------------------------------------------------------------------------------------


class DeribitSession(StreamSession[Channel]):
    """The protocol on one connection."""

    def __init__(self, emulator: DeribitEmulator, wire: Wire) -> None:
        super().__init__(wire, emulator.sessions)
        self._emulator = emulator
        self._options = emulator.settings
        self._pools = Pools()
        self._idle = Silence(wire, self._options.idle_s, self._on_idle)
        self._heartbeat_s = 0.0
        self._heartbeat: Timer | None = None
        self._has_data = False  # since the last heartbeat
        self._patience: Timer | None = None

    def on_open(self) -> None:
        super().on_open()
        self._idle.start()

    def deliver(self, stream: str, frame: bytes) -> None:
        self._has_data = True
        super().deliver(stream, frame)

    def on_text(self, payload: bytes) -> None:
        """A request, and its answer."""
        self._idle.note()
        begin_ns = self.wire.now_ns()
        identity: dict[str, Any] = {}
        joined: list[Channel] = []
        try:
            request = _parse(payload)
            identity = {key: request[key] for key in ("id",) if key in request}
            method, params = request["method"], request.get("params", {})
            if not isinstance(params, dict):
                raise invalid("params", "value must be an object")
            self._pools.spend(method, begin_ns)
            outcome = {"result": self._call(method, params, joined)}
        except RpcError as error:
            outcome = {"error": error.as_object()}
        answer = {"jsonrpc": "2.0", **identity, **outcome, **stamps(begin_ns, self.wire.now_ns())}
        self.wire.reply(msgspec.json.encode(answer).decode())
        for stream in joined:
            stream.join(self)
        if outcome.get("error", {}).get("code") == 10028:
            self.wire.close(1000, "too_many_requests")

    def _call(self, method: str, params: Mapping[str, Any], joined: list[Channel]) -> Any:
        """The result of a request; ``joined`` gets the streams that begin after the answer."""
        match method:
            case "public/subscribe":
                return self._subscribe(_channels(params), joined)
            case "public/unsubscribe":
                return self._unsubscribe(_channels(params))
            case "public/unsubscribe_all":
                self._unsubscribe(list(self.streams))
                return "ok"
            case "public/set_heartbeat":
                return self._set_heartbeat(params.get("interval"))
            case "public/disable_heartbeat":
                self._stop_heartbeat()
                return "ok"
            case "public/test" if self._patience is not None:
                self._patience.cancel()
                self._patience = None
        return self._emulator.methods.call(method, params)

    def _subscribe(self, names: Sequence[str], joined: list[Channel]) -> list[str]:
        if any(name.endswith(".raw") for name in names):
            raise RpcError(13778, "raw_subscriptions_not_available_for_unauthorized")
        granted = []
        for name in names:
            stream = self._emulator.channels.get(name)
            if stream is None:
                continue
            granted.append(name)
            if name not in self.streams:
                self.streams[name] = stream
                joined.append(stream)
        return sorted(set(granted), reverse=True)

    def _unsubscribe(self, names: Sequence[str]) -> list[str]:
        ended = []
        for name in names:
            stream = self.streams.pop(name, None)
            if stream is not None:
                stream.leave(self)
                ended.append(name)
        return sorted(ended, reverse=True)

    def _set_heartbeat(self, interval: Any) -> str:
        if not isinstance(interval, int | float) or interval < LEAST_HEARTBEAT_S:
            raise invalid("interval", f"value must be at least {LEAST_HEARTBEAT_S}")
        self._stop_heartbeat()
        self._heartbeat_s = float(interval) + self._options.heartbeat_slack_s
        self._heartbeat = self.wire.after(self._heartbeat_s, self._beat)
        return "ok"

    def _stop_heartbeat(self) -> None:
        for timer in (self._heartbeat, self._patience):
            if timer is not None:
                timer.cancel()
        self._heartbeat = self._patience = None

    def _beat(self) -> None:
        """On a busy connection the data are heartbeat enough; the test request comes nevertheless."""
        for kind in ("test_request",) if self._has_data else ("heartbeat", "test_request"):
            self.wire.reply(f'{{"jsonrpc":"2.0","method":"heartbeat","params":{{"type":"{kind}"}}}}')
        self._has_data = False
        if self._patience is None:
            self._patience = self.wire.after(self._options.test_patience_s, self._give_up)
        self._heartbeat = self.wire.after(self._heartbeat_s, self._beat)

    def _give_up(self) -> None:
        self.wire.close(4000, "heartbeat close")

    def _on_idle(self) -> None:
        if not self.streams and self._heartbeat is None:
            self.wire.reset()


def _parse(payload: bytes) -> dict[str, Any]:
    """A request that has the form of one. Raises RpcError."""
    try:
        request = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RpcError(11050, "bad_request", "invalid json") from None
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        raise RpcError(11050, "bad_request", "no method")
    return request


def _channels(params: Mapping[str, Any]) -> list[str]:
    """The list of channels. Raises RpcError."""
    channels = params.get("channels")
    if not isinstance(channels, list) or not all(isinstance(channel, str) for channel in channels):
        raise invalid("channels", "value must be a list")
    return channels


# ---- the venue --------------------------------------------------------------------------------------------


class DeribitEmulator(ListedVenue[Product]):
    """Deribit over the simulated market."""

    venue: ClassVar[str] = "deribit"
    options: ClassVar[type[Struct]] = DeribitOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "trades.",
        DataType.BBO: "quote.",
        DataType.BOOK: "book.",
        DataType.FUNDING: "ticker.",
        DataType.MARK: "ticker.",
        DataType.OPEN_INTEREST: "ticker.",
        DataType.LIQUIDATION: "trades.",
    }
    refuses_unknown: ClassVar[bool] = True

    def __init__(self, market: Market, host: Host, options: DeribitOptions) -> None:
        counts = Counter[str]()
        listed = named(market.books, venue_name)
        super().__init__(Product(name, market, book, host, options, counts) for name, book in listed)
        self.settings = options
        indices = sorted({product.index_name for product in self.by_name.values()}) or ["btc_usd"]
        self.platform = PlatformStream(indices, host, options.platform_interval_s)
        channels = [channel for product in self.by_name.values() for channel in product.streams()]
        self.channels: dict[str, Channel] = {channel.title: channel for channel in (*channels, self.platform)}
        self.methods = DeribitMethods(self.by_name, host)
        self._rest = DeribitRest(self.methods, host)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if path != "/ws/api/v2":
            return Refusal(404)
        if len(self.sessions) >= self.settings.connections:
            return Refusal(429)
        return DeribitSession(self, wire)

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def announce_shutdown(self) -> None:
        self.platform.publish('{"maintenance":true}')
