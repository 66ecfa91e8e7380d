"""Bitstamp v2, the venue's side: the public WebSocket and the REST calls that a feed handler needs.

Written from the venue's documentation (bitstamp.net/websocket/v2 and bitstamp.net/api, September 2026) and from live
probes of that month, not from any client. Runs in the emulator process; ``mdring/emulator/server.py`` gives it
sockets::

    ws://HOST               {"event":"bts:subscribe","data":{"channel":"diff_order_book_btcusd"}}
    http://HOST/api/v2/order_book/btcusd/?group=1

Integrity: every change of a book has a microtimestamp of its own; a diff bears that of its last change, a REST book the
moment when it was made, which is a while ago. There is no sequence number and no checksum.

Quirks kept: nothing is sent on subscription; a market that does not exist is acknowledged and silent, if its name is
well formed; errors name no channel; the 1,025th channel ends the connection without a word, a frame of 513 bytes with
1009; a diff never deletes what is not there, its zero has the market's decimals; ids of perpetuals' trades do not fit
in a double; a ping frame every 54 s.

Not emulated, hence acknowledged and silent: detail_order_book, live_orders, announcements.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.bitstamp_rest import BitstampRest
from mdring.emulator.book import Book, Depth, Level, Trade
from mdring.emulator.derivatives import Contract
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.market import Change, Event, Market
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, VenueEmulator, Wire
from mdring.emulator.window import Delta, DepthWindow
from mdring.record import Aggressor, DataType
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


class BitstampOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    diff_interval_s: float = 0.1
    book_interval_s: float = 0.08  # of order_book
    perpetual_diff_interval_s: float = 0.6
    perpetual_book_interval_s: float = 0.18
    funding_interval_s: float = 1.0
    snapshot_interval_s: float = 0.5  # REST books are made anew so often; they were up to 2.6 s old
    ping_interval_s: float = 54.0
    max_channels: int = 1024  # per connection
    max_message_bytes: int = 512
    reconnect_grace_s: float = 5.0  # from the announcement to the end of the connection
    requests_per_second: int = 400  # REST, per address
    requests_per_ten_minutes: int = 10_000


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


class Stream:
    """One channel and who listens to it."""

    def __init__(self, channel: str, event: str) -> None:
        self.channel = channel
        self.sessions: list[BitstampSession] = []
        self._tail = f',"channel":"{channel}","event":"{event}"}}'

    def join(self, session: BitstampSession) -> None:
        """A new listener."""
        self.sessions.append(session)

    def leave(self, session: BitstampSession) -> None:
        self.sessions.remove(session)

    def publish(self, data: str) -> None:
        """``{"data":…,"channel":"live_trades_ethusd","event":"trade"}``"""
        frame = f'{{"data":{data}{self._tail}'.encode()
        for session in self.sessions:
            session.deliver(self.channel, frame)


class DiffStream(Stream):
    """``diff_order_book``: what has changed in the whole book since the last diff."""

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(f"diff_order_book_{product.name}", "data")
        self._product = product
        self.sent_ids: deque[int] = deque(maxlen=product.book.history_limit)  # between diffs the book was at these
        self.window = DepthWindow(product.book, host, interval_s, WHOLE_BOOK, self._on_delta)

    def send(self) -> None:
        """What there is now, if somebody listens."""
        if self.sessions:
            self.window.flush()

    def join(self, session: BitstampSession) -> None:
        self.window.flush()  # the first diff begins here
        self.window.open = True
        super().join(session)

    def leave(self, session: BitstampSession) -> None:
        super().leave(session)
        self.window.open = bool(self.sessions)

    def _on_delta(self, delta: Delta) -> None:
        self.sent_ids.append(delta.last)
        self.publish(self._product.book_text(self._product.stamps.of(delta.last), delta.bids, delta.asks))


class BookStream(Stream):
    """``order_book``: the best 100 levels at every change, but not more often than the interval allows."""

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(f"order_book_{product.name}", "data")
        self.is_waiting = False
        self._product = product
        self._host = host
        self._interval_ns = round(interval_s * SECOND)
        self._sent_ns = 0

    def on_change(self) -> None:
        """The book has changed."""
        if not self.sessions or self.is_waiting:
            return
        rest_ns = self._sent_ns + self._interval_ns - self._host.now_ns()
        if rest_ns <= 0:
            self._send()
        else:
            self.is_waiting = True
            self._host.after(rest_ns / SECOND, self._send)

    def _send(self) -> None:
        self.is_waiting = False
        self._sent_ns = self._host.now_ns()
        update_id, bids, asks = self._product.book.depth(BOOK_LEVELS)
        self.publish(self._product.book_text(self._product.stamps.of(update_id), bids, asks))


class FundingStream(Stream):
    """``funding_rate``: once a second, whether anything has changed or not."""

    def __init__(self, product: Product, host: Host, interval_s: float) -> None:
        super().__init__(f"funding_rate_{product.name}", "funding_rate_saved")
        self._product = product
        self._host = host
        self._interval_s = interval_s
        self._is_running = False

    def join(self, session: BitstampSession) -> None:
        super().join(session)
        if not self._is_running:
            self._is_running = True
            self._host.after(self._interval_s, self._send)

    def _send(self) -> None:
        self._is_running = bool(self.sessions)
        if self._is_running:
            self.publish(self._product.funding_text(self._host.now_ns()))
            self._host.after(self._interval_s, self._send)


# ---- products ---------------------------------------------------------------------------------------------


def venue_name(symbol: Symbol) -> str | None:
    """The market_symbol; None for what the venue does not list: all contracts but perpetuals in USD."""
    if symbol.is_spot:
        return f"{symbol.base}{symbol.quote}".lower()
    if symbol.product is Kind.PERPETUAL and symbol.quote == symbol.settle == "USD":
        return f"{symbol.base}{symbol.quote}-perp".lower()
    return None


class Product:
    """One market as this venue lists it, with its streams."""

    def __init__(self, name: str, market: Market, book: Book, host: Host, options: BitstampOptions) -> None:
        spec = book.spec
        self.name = name
        self.book = book
        self.symbol = spec.symbol
        self.is_spot = self.symbol.is_spot
        self.title = f"{self.symbol.base}/{self.symbol.quote}" + ("" if self.is_spot else "-PERP")
        self.price_decimals = max(-spec.price_exponent, 0)
        self.size_decimals = SPOT_DECIMALS if self.is_spot else max(-spec.size_exponent, 0)
        self.price = decimal_formatter(spec.price_exponent, self.price_decimals)
        self.size = decimal_formatter(spec.size_exponent, self.size_decimals)
        self.stamps = Stamps(book, host.now_ns() // US)
        self.contract = None if self.is_spot else Contract(market, book)
        spot = self.is_spot
        self.diffs = DiffStream(self, host, options.diff_interval_s if spot else options.perpetual_diff_interval_s)
        self.snapshots = Snapshots(self, host, options.snapshot_interval_s)
        self.books = BookStream(self, host, options.book_interval_s if spot else options.perpetual_book_interval_s)
        self.trades = Stream(f"live_trades_{name}", "trade")
        self.others = [] if spot else [FundingStream(self, host, options.funding_interval_s)]

    def streams(self) -> list[Stream]:
        """All streams of the market."""
        return [self.diffs, self.books, self.trades, *self.others]

    def row(self, price: int, size: int) -> list[str]:
        """``["0.38142","1163.70962488"]``"""
        return [self.price(price), self.size(size)]

    def book_text(self, stamp: int, bids: Sequence[Level], asks: Sequence[Level]) -> str:
        """``{"timestamp":"1641343721","microtimestamp":"1641343721663333","bids":[],"asks":[["0.38142","1163.70962488"]]}``"""
        return (
            f'{{"timestamp":"{stamp // 1_000_000}","microtimestamp":"{stamp}",'
            f'"bids":{self._rows(bids)},"asks":{self._rows(asks)}}}'
        )

    def _rows(self, levels: Sequence[Level]) -> str:
        price, size = self.price, self.size
        return "[" + ",".join([f'["{price(level[0])}","{size(level[1])}"]' for level in levels]) + "]"

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


# ---- connections ------------------------------------------------------------------------------------------

KNOWN_CHANNEL: Final = re.compile(
    r"((live_trades|live_orders|(detail_|diff_)?order_book|funding_rate)_[a-z0-9]+(-perp)?|announcements)"
)
PRIVATE_CHANNEL: Final = re.compile(r"private-[a-z0-9_-]+")


class RequestError(Exception):
    """The client's request is answered by an error; the connection stays open."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class BitstampSession(Session):
    """The protocol on one connection. ``streams`` holds channels that are silent, too, with None."""

    def __init__(self, emulator: BitstampEmulator, wire: Wire) -> None:
        self._emulator = emulator
        self._options = emulator.settings
        self._wire = wire
        self._streams: dict[str, Stream | None] = {}

    def on_open(self) -> None:
        self._emulator.sessions.add(self)
        self._wire.after(self._options.ping_interval_s, self._ping)

    def on_text(self, payload: bytes) -> None:
        limit = self._options.max_message_bytes
        if len(payload) > limit:
            self._wire.close(1009, f"read limited at {limit + 1} bytes")
            return
        try:
            self._on_request(payload)
        except RequestError as error:
            self._reply("bts:error", "", {"code": error.code, "message": str(error)})

    def on_ping(self, payload: bytes) -> None:
        """The server's answer is all."""

    def on_pong(self, payload: bytes) -> None:
        """Nothing to be done: who does not answer is not cut."""

    def on_close(self) -> None:
        self._emulator.sessions.discard(self)
        for stream in self._streams.values():
            if stream is not None:
                stream.leave(self)
        self._streams.clear()

    def deliver(self, channel: str, frame: bytes) -> None:
        """Market data."""
        self._wire.deliver(channel, frame)

    def announce_shutdown(self) -> None:
        """``{"event":"bts:request_reconnect","channel":"","data":null}``"""
        self._reply("bts:request_reconnect", "", None)
        self._wire.after(self._options.reconnect_grace_s, lambda: self._wire.close(1001))

    def _ping(self) -> None:
        self._wire.ping(b"")
        self._wire.after(self._options.ping_interval_s, self._ping)

    def _on_request(self, payload: bytes) -> None:
        try:
            request = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise RequestError("Incorrect JSON format.") from error
        if not isinstance(request, dict):
            raise RequestError("Incorrect JSON format.")
        event, data = request.get("event"), request.get("data")
        if event == "bts:heartbeat":
            self._reply(event, "", {"status": "success"})
            return
        channel = data.get("channel") if isinstance(data, dict) else None
        if event not in ("bts:subscribe", "bts:unsubscribe") or not isinstance(channel, str):
            raise RequestError("Bad subscription string.")
        if PRIVATE_CHANNEL.fullmatch(channel):
            raise RequestError("Connection is unauthorized.", 4009)
        if not KNOWN_CHANNEL.fullmatch(channel):
            raise RequestError("Invalid channel provided.")
        if event == "bts:subscribe":
            self._subscribe(channel)
        else:
            self._unsubscribe(channel)

    def _subscribe(self, channel: str) -> None:
        if channel not in self._streams:
            if len(self._streams) == self._options.max_channels:
                self._wire.reset()
                return
            stream = self._streams[channel] = self._emulator.stream(channel)
            if stream is not None:
                stream.join(self)
        self._reply("bts:subscription_succeeded", channel, {})

    def _unsubscribe(self, channel: str) -> None:
        stream = self._streams.pop(channel, None)
        if stream is not None:
            stream.leave(self)
        self._reply("bts:unsubscription_succeeded", channel, {})

    def _reply(self, event: str, channel: str, data: Any) -> None:
        self._wire.reply(json.dumps({"event": event, "channel": channel, "data": data}, separators=(",", ":")))


# ---- the venue --------------------------------------------------------------------------------------------


class BitstampEmulator(VenueEmulator):
    """Bitstamp v2 over the simulated market."""

    venue: ClassVar[str] = "bitstamp"
    options: ClassVar[type[Struct]] = BitstampOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "live_trades_",
        DataType.BBO: "diff_order_book_",
        DataType.BOOK: "diff_order_book_",
        DataType.FUNDING: "funding_rate_",
        DataType.MARK: "funding_rate_",
    }
    refuses_unknown: ClassVar[bool] = False

    def __init__(self, market: Market, host: Host, options: BitstampOptions) -> None:
        self.settings = options
        self.sessions: set[BitstampSession] = set()
        self._host = host
        named = [(venue_name(book.spec.symbol), book) for book in market.books]
        self._by_name = {name: Product(name, market, book, host, options) for name, book in named if name is not None}
        self._products = {product.book.index: product for product in self._by_name.values()}
        streams = [stream for product in self._products.values() for stream in product.streams()]
        self._streams = {stream.channel: stream for stream in streams}
        self._rest = BitstampRest(self._by_name, host, options)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        return BitstampSession(self, wire) if path in ("", "/") else Refusal(404)

    def stream(self, channel: str) -> Stream | None:
        """The stream of a channel; None for one that stays silent."""
        return self._streams.get(channel)

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def on_events(self, events: Sequence[Event]) -> None:
        products, now_us = self._products, self._host.now_ns() // US
        for event in events:  # all stamps first: a window may send what the book has become by all of these
            if type(event) is Change and event.instrument in products:
                products[event.instrument].stamps.on_change(now_us)
        for event in events:
            product = products.get(event.instrument)
            if product is None:
                continue
            if type(event) is Trade:
                if product.trades.sessions:
                    product.trades.publish(product.trade_text(event))
            elif type(event) is Change:
                product.diffs.window.on_change()
                product.books.on_change()
                product.snapshots.on_change()

    def is_drained(self) -> bool:
        return not any(
            product.diffs.window.is_collecting or product.books.is_waiting for product in self._products.values()
        )

    def announce_shutdown(self) -> None:
        for session in self.sessions:
            session.announce_shutdown()

    def instruments(self) -> Mapping[str, str]:
        return {product.book.spec.canonical_symbol: name for name, product in self._by_name.items()}

    def book_of(self, instrument: str) -> Book:
        return self._by_name[instrument].book

    def level_text(self, book: Book, level: Level) -> list[str]:
        return self._products[book.index].row(*level)
