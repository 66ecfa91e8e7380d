"""OKX v5, the venue's side: the public WebSocket and the REST calls that a feed handler needs.

Written from the venue's documentation (okx.com/docs-v5, its change log and notices to November 2026), not from any
client. Runs in the emulator process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/ws/v5/public      {"id":"1","op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}
    http://HOST/api/v5/public/instruments?instType=SPOT

Integrity: ``seqId`` counts every change of a book, each message names the one before it (``prevSeqId``). The checksum
is 0, as since June 2026, unless the option ``checksums`` brings the old one back.

Quirks kept: each argument is acknowledged, or refused, by itself; a second subscription is acknowledged and brings no
snapshot; ``ping`` and ``pong`` are bare text; who gets no data and sends no ping for 30 s is cut; a book without
change says so every 60 s; numbers are not padded; sizes of contracts count contracts.

Not emulated, hence refused: candles, trades-all, books5, books-rpi, and what needs a login.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Any, ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.okx_rest import OkxRest
from mdring.emulator.book import Book, Level, Trade
from mdring.emulator.derivatives import FUNDING_INTERVAL_MS, Contract, is_liquidation
from mdring.emulator.instruments import decimal_formatter
from mdring.emulator.limits import RollingLimit
from mdring.emulator.market import Change, Event, Market, Top
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, VenueEmulator, Wire
from mdring.emulator.window import Delta, DepthWindow
from mdring.record import Aggressor, DataType
from mdring.symbol import Product as Kind
from mdring.symbol import Symbol, plain_decimal

MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
BOOK_LEVELS: Final = 400
CHECKED_LEVELS: Final = 25
LIQUIDATIONS: Final = "liquidation-orders"


class OkxOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    book_interval_s: float = 0.1
    bbo_interval_s: float = 0.01
    ticker_interval_s: float = 0.1
    silence_s: float = 30.0  # without data or ping: cut
    book_silence_s: float = 60.0  # without change: a message without levels
    requests_per_hour: int = 480  # per connection
    max_message_bytes: int = 65_536
    connections_per_second: int = 3
    checksums: bool = False  # those of before June 2026


def plain(formatter: Callable[[int], str]) -> Callable[[int], str]:
    """The same without superfluous zeros."""

    def format_value(value: int) -> str:
        text = formatter(value)
        return text.rstrip("0").rstrip(".") if "." in text else text

    return format_value


# ---- streams ----------------------------------------------------------------------------------------------


class Stream:
    """One topic and who listens to it."""

    def __init__(self, channel: str, name: str, *, first: Callable[[], str] | None = None) -> None:
        """``first`` makes what a new listener gets at once, as ``data`` and what follows it."""
        self.channel = channel
        self.name = name
        self.key = "instType" if channel == LIQUIDATIONS else "instId"
        self.sessions: list[OkxSession] = []
        self._title = f"{channel}:{name}"
        self._first = first

    def argument(self) -> str:
        """``{"channel":"books","instId":"BTC-USDT"}``"""
        return f'{{"channel":"{self.channel}","{self.key}":"{self.name}"}}'

    def join(self, session: OkxSession) -> None:
        """A new listener; what there is to begin with goes to it alone."""
        self.sessions.append(session)
        if self._first is not None:
            session.deliver(self._title, self._frame(self._first()))

    def leave(self, session: OkxSession) -> None:
        self.sessions.remove(session)

    def publish(self, tail: str) -> None:
        """``tail``: the message from behind the argument on, ``"data":[…]``."""
        frame = self._frame(tail)
        for session in self.sessions:
            session.deliver(self._title, frame)

    def _frame(self, tail: str) -> bytes:
        return f'{{"arg":{self.argument()},{tail}}}'.encode()


class BookStream(Stream):
    """``books``: a snapshot, then every 100 ms what changed in the best 400 levels."""

    def __init__(self, product: Product, host: Host, options: OkxOptions) -> None:
        super().__init__("books", product.name)
        self._product = product
        self._host = host
        self._options = options
        self._told_ns = 0
        self.window = DepthWindow(product.book, host, options.book_interval_s, BOOK_LEVELS, self._on_delta)

    def join(self, session: OkxSession) -> None:
        window = self.window
        window.flush()  # the snapshot is as new as the last change
        if not window.open:
            window.open = True
            self._host.after(self._options.book_silence_s, self._tell_silence)
        self._first = self._snapshot
        super().join(session)

    def leave(self, session: OkxSession) -> None:
        super().leave(session)
        self.window.open = bool(self.sessions)

    def _snapshot(self) -> str:
        _, bids, asks = self.window.image()
        return self._message("snapshot", bids, asks, self.window.sent_id, -1)

    def _on_delta(self, delta: Delta) -> None:
        bids = sorted([*delta.bids, *((price, 0) for price in delta.left_bids)], reverse=True)
        asks = sorted([*delta.asks, *((price, 0) for price in delta.left_asks)])
        self._told_ns = self._host.now_ns()
        self.publish(self._message("update", bids, asks, delta.last, delta.previous))

    def _tell_silence(self) -> None:
        """Legal: no levels, and both ids those of the last message."""
        if not self.sessions:
            return
        period_ns = round(self._options.book_silence_s * SECOND)
        silent_ns = self._host.now_ns() - self._told_ns
        if silent_ns >= period_ns:
            self._told_ns, silent_ns = self._host.now_ns(), 0
            self.publish(self._message("update", [], [], self.window.sent_id, self.window.sent_id))
        self._host.after((period_ns - silent_ns) / SECOND, self._tell_silence)

    def _message(self, action: str, bids: Sequence[Level], asks: Sequence[Level], last: int, previous: int) -> str:
        """``"action":"update","data":[{"asks":[["120.67","60.47","0","5"]],"bids":[["120.66","0","0","0"]],"ts":"1790394877300","checksum":0,"seqId":32032594315,"prevSeqId":32032594283}]``"""
        rows, now_ms = self._product.rows, self._host.now_ns() // MS
        checksum = self._checksum() if self._options.checksums else 0
        return (
            f'"action":"{action}","data":[{{"asks":{rows(asks)},"bids":{rows(bids)},"ts":"{now_ms}",'
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


class BestStream(Stream):
    """``bbo-tbt`` and ``tickers``: what is best now, at once, but not more often than the interval allows."""

    def __init__(self, channel: str, name: str, host: Host, interval_s: float, encode: Callable[[], str]) -> None:
        super().__init__(channel, name, first=encode)
        self.is_waiting = False
        self._host = host
        self._interval_ns = round(interval_s * SECOND)
        self._encode = encode
        self._sent_ns = 0

    def on_top(self) -> None:
        """The best bid or ask has changed."""
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
        self.publish(self._encode())


class PeriodicStream(Stream):
    """A value that is looked at every so often, and told if it has changed or was not told for a while."""

    def __init__(
        self, channel: str, name: str, host: Host, period_s: float, silence_s: float, value: Callable[[], str]
    ) -> None:
        """``value``: the fields of the message but for ``ts``."""
        super().__init__(channel, name, first=self._now)
        self._host = host
        self._period_s = period_s
        self._silence_ns = round(silence_s * SECOND)
        self._value = value
        self._told = ""
        self._told_ns = 0
        self._is_running = False

    def join(self, session: OkxSession) -> None:
        super().join(session)
        if not self._is_running:
            self._is_running = True
            self._host.after(self._period_s, self._look)

    def _now(self) -> str:
        return self._message(self._value())

    def _message(self, value: str) -> str:
        return f'"data":[{{{value},"ts":"{self._host.now_ns() // MS}"}}]'

    def _look(self) -> None:
        self._is_running = bool(self.sessions)
        if not self._is_running:
            return
        value, now_ns = self._value(), self._host.now_ns()
        if value != self._told or now_ns - self._told_ns >= self._silence_ns:
            self._told, self._told_ns = value, now_ns
            self.publish(self._message(value))
        self._host.after(self._period_s, self._look)


# ---- products ---------------------------------------------------------------------------------------------


def venue_name(symbol: Symbol) -> str | None:
    """The instId; None for what the venue does not list: linear contracts in another asset than USDT or USDC."""
    if symbol.product is Kind.OPTION or not (symbol.is_spot or symbol.is_inverse or symbol.settle in ("USDT", "USDC")):
        return None
    pair = f"{symbol.base}-{symbol.quote}"
    return {Kind.SPOT: pair, Kind.PERPETUAL: f"{pair}-SWAP", Kind.FUTURE: f"{pair}-{symbol.expiry[2:]}"}[symbol.product]


class Product:
    """One instrument as this venue lists it, with its streams."""

    def __init__(self, name: str, market: Market, book: Book, host: Host, options: OkxOptions) -> None:
        spec = book.spec
        self.name = name
        self.book = book
        self.symbol = spec.symbol
        self.kind = {Kind.SPOT: "SPOT", Kind.PERPETUAL: "SWAP", Kind.FUTURE: "FUTURES"}[self.symbol.product]
        shift = 0  # a contract is for 10 ** shift of what sizes are of
        if not self.symbol.is_spot:
            shift = 2 if self.symbol.is_inverse else min(spec.size_exponent + 1, 0)
        self._contract = Decimal(1).scaleb(shift)
        self.contract_value = "" if self.symbol.is_spot else plain_decimal(str(self._contract))
        exponent = spec.size_exponent - shift
        self.price = plain(decimal_formatter(spec.price_exponent, max(-spec.price_exponent, 0)))
        self.size = plain(decimal_formatter(exponent, max(-exponent, 0)))
        self.fills: list[Trade] = []  # of the run that is not complete yet
        self._host = host
        self.books = BookStream(self, host, options)
        self.trades = Stream("trades", name)
        self.bests = (
            BestStream("bbo-tbt", name, host, options.bbo_interval_s, self._quote),
            BestStream("tickers", name, host, options.ticker_interval_s, self._ticker),
        )
        self.periodic = [] if self.symbol.is_spot else self._contract_streams(Contract(market, book))

    @property
    def expiry_ms(self) -> str:
        """Futures expire at 8:00 UTC."""
        day = datetime.strptime(self.symbol.expiry, "%Y%m%d").replace(hour=8, tzinfo=UTC)
        return str(int(day.timestamp()) * 1000)

    def streams(self) -> list[Stream]:
        """All streams of the instrument."""
        return [self.books, self.trades, *self.bests, *self.periodic]

    def row(self, price: int, size: int) -> list[str]:
        """``["411.8","10","0","4"]``: the number of orders is made up."""
        return [self.price(price), self.size(size), "0", str(1 + size % 7) if size else "0"]

    def rows(self, levels: Sequence[Level]) -> str:
        """``[["411.8","10","0","4"],…]``"""
        row = self.row
        return "[" + ",".join(['["' + '","'.join(row(*level)) + '"]' for level in levels]) + "]"

    def trade_message(self, seq_id: int) -> str:
        """``"data":[{"instId":"BTC-USDT-SWAP","tradeId":"2978601964","px":"83725.9","sz":"5","side":"buy","ts":"1791369350776","count":"1","source":"0","seqId":344430848209}]``"""
        last = self.fills[-1]
        total = sum(fill.size for fill in self.fills)
        return (
            f'"data":[{{"instId":"{self.name}","tradeId":"{last.trade_id}","px":"{self.price(last.price)}",'
            f'"sz":"{self.size(total)}","side":"{taker_side(last)}","ts":"{last.ts_event // MS}",'
            f'"count":"{len(self.fills)}","source":"0","seqId":{seq_id}}}]'
        )

    def liquidation_message(self) -> str:
        """``"data":[{"details":[{"bkLoss":"0","bkPx":"0.007831","ccy":"","posSide":"short","side":"buy","sz":"13","ts":"1692266434010"}],"instFamily":"IOST-USDT","instId":"IOST-USDT-SWAP","instType":"SWAP","uly":"IOST-USDT"}]``"""
        last, pair = self.fills[-1], f"{self.symbol.base}-{self.symbol.quote}"
        side, total = taker_side(last), sum(fill.size for fill in self.fills)
        position = "short" if side == "buy" else "long"
        return (
            f'"data":[{{"details":[{{"bkLoss":"0","bkPx":"{self.price(last.price)}","ccy":"","posSide":"{position}",'
            f'"side":"{side}","sz":"{self.size(total)}","ts":"{last.ts_event // MS}"}}],'
            f'"instFamily":"{pair}","instId":"{self.name}","instType":"{self.kind}","uly":"{pair}"}}]'
        )

    def _quote(self) -> str:
        """``"data":[{"asks":[["13643522","0.03","0","2"]],"bids":[["13615496","0.03","0","2"]],"ts":"1790133525304","seqId":27270896}]``"""
        update_id, bids, asks = self.book.depth(1)
        now_ms = self._host.now_ns() // MS
        return f'"data":[{{"asks":{self.rows(asks)},"bids":{self.rows(bids)},"ts":"{now_ms}","seqId":{update_id}}}]'

    def _ticker(self) -> str:
        """A ticker; prices of the day are left to the imagination. An empty side is ""."""
        _, bids, asks = self.book.depth(1)
        bid, bid_size = self.row(*bids[0])[:2] if bids else ("", "")
        ask, ask_size = self.row(*asks[0])[:2] if asks else ("", "")
        return (
            f'"data":[{{"instType":"{self.kind}","instId":"{self.name}","last":"","lastSz":"","askPx":"{ask}",'
            f'"askSz":"{ask_size}","bidPx":"{bid}","bidSz":"{bid_size}","ts":"{self._host.now_ns() // MS}"}}]'
        )

    def _contract_streams(self, contract: Contract) -> list[Stream]:
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

        streams: list[Stream] = [
            PeriodicStream("mark-price", self.name, self._host, 0.2, 10.0, mark),
            PeriodicStream("open-interest", self.name, self._host, 3.0, 3.0, open_interest),
        ]
        if self.symbol.product is Kind.PERPETUAL:
            streams.append(PeriodicStream("funding-rate", self.name, self._host, 30.0, 30.0, funding))
        return streams


def index_stream(name: str, contract: Contract, host: Host) -> Stream:
    """``index-tickers`` of a pair."""
    return PeriodicStream(
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


# ---- connections ------------------------------------------------------------------------------------------


class RequestError(Exception):
    """The client's request, or one argument of it, is answered by an error; the connection stays open."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OkxSession(Session):
    """The protocol on one connection."""

    def __init__(self, emulator: OkxEmulator, wire: Wire) -> None:
        self._emulator = emulator
        self._options = emulator.settings
        self._wire = wire
        self._streams: list[Stream] = []
        self._requests = RollingLimit(self._options.requests_per_hour, 3600 * SECOND)
        self._active_ns = wire.now_ns()

    def on_open(self) -> None:
        self._emulator.sessions.add(self)
        self._wire.after(self._options.silence_s, self._check_silence)

    def on_text(self, payload: bytes) -> None:
        if len(payload) > self._options.max_message_bytes:
            self._wire.close(1009, "Message too big")
        elif payload == b"ping":
            self._active_ns = self._wire.now_ns()
            self._wire.reply("pong")
        else:
            self._on_request(payload)

    def on_ping(self, payload: bytes) -> None:
        """The server's answer is all; it does not count as the venue's own ping."""

    def on_pong(self, payload: bytes) -> None:
        """Nothing to be done: the venue sends no ping frames."""

    def on_close(self) -> None:
        self._emulator.sessions.discard(self)
        for stream in self._streams:
            stream.leave(self)
        self._streams.clear()

    def deliver(self, title: str, frame: bytes) -> None:
        """Market data."""
        self._active_ns = self._wire.now_ns()
        self._wire.deliver(title, frame)

    def announce_shutdown(self) -> None:
        """``{"event":"notice","code":"64008","msg":"The connection will soon be closed …","connId":"a4d3ae55"}``"""
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        self._reply({"event": "notice", "code": "64008", "msg": text})

    def _check_silence(self) -> None:
        rest_ns = self._active_ns + round(self._options.silence_s * SECOND) - self._wire.now_ns()
        if rest_ns <= 0:
            self._wire.close(4004, "No data received in 30s.")
        else:
            self._wire.after(rest_ns / SECOND, self._check_silence)

    def _on_request(self, payload: bytes) -> None:
        identity: dict[str, Any] = {}
        try:
            request = _parse(payload)
            if "id" in request:
                identity = {"id": request["id"]}
            if not self._requests.allows(self._wire.now_ns()):
                raise RequestError("60014", "Requests too frequent")
            operate = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe}.get(request["op"])
            if operate is None:
                raise RequestError("60019", f"Invalid op: {request['op']}")
        except RequestError as error:
            self._reply({**identity, "event": "error", "msg": str(error), "code": error.code})
            return
        for argument in request["args"]:
            try:
                operate(argument, identity)
            except RequestError as error:
                self._reply({**identity, "event": "error", "msg": str(error), "code": error.code})

    def _subscribe(self, argument: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        stream = self._emulator.stream(argument)
        self._reply({**identity, "event": "subscribe", "arg": argument})
        if stream not in self._streams:
            self._streams.append(stream)
            stream.join(self)

    def _unsubscribe(self, argument: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
        stream = self._emulator.stream(argument)
        if stream in self._streams:
            self._streams.remove(stream)
            stream.leave(self)
        self._reply({**identity, "event": "unsubscribe", "arg": argument})

    def _reply(self, message: Mapping[str, Any]) -> None:
        connection = {"connId": f"{self._wire.number:08x}"}
        self._wire.reply(json.dumps({**message, **connection}, separators=(",", ":")))


def _parse(payload: bytes) -> dict[str, Any]:
    """A request that has the form of one. Raises RequestError."""
    text = payload.decode(errors="replace")
    try:
        request = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise RequestError("60012", f"Invalid request: {text}") from error
    if not isinstance(request, dict) or not isinstance(request.get("op"), str):
        raise RequestError("60012", f"Invalid request: {text}")
    arguments = request.get("args")
    if not isinstance(arguments, list) or not all(isinstance(argument, dict) for argument in arguments):
        raise RequestError("60013", "Invalid args")
    return request


# ---- the venue --------------------------------------------------------------------------------------------


class OkxEmulator(VenueEmulator):
    """OKX v5 over the simulated market."""

    venue: ClassVar[str] = "okx"
    options: ClassVar[type[Struct]] = OkxOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "trades:",
        DataType.BBO: "bbo-tbt:",
        DataType.BOOK: "books:",
        DataType.FUNDING: "funding-rate:",
        DataType.MARK: "mark-price:",
        DataType.OPEN_INTEREST: "open-interest:",
        DataType.LIQUIDATION: "liquidation-orders:",
    }
    refuses_unknown: ClassVar[bool] = True

    def __init__(self, market: Market, host: Host, options: OkxOptions) -> None:
        self.settings = options
        self.sessions: set[OkxSession] = set()
        self._host = host
        named = [(venue_name(book.spec.symbol), book) for book in market.books]
        self._by_name = {name: Product(name, market, book, host, options) for name, book in named if name is not None}
        self._products = {product.book.index: product for product in self._by_name.values()}
        self._liquidations = {kind: Stream(LIQUIDATIONS, kind) for kind in ("SWAP", "FUTURES")}
        streams = [stream for product in self._products.values() for stream in product.streams()]
        contracts = [product for product in self._products.values() if not product.symbol.is_spot]
        indices = {f"{product.symbol.base}-{product.symbol.quote}": product for product in contracts}
        streams += [index_stream(name, Contract(market, product.book), host) for name, product in indices.items()]
        self._streams = {(one.channel, one.key, one.name): one for one in (*streams, *self._liquidations.values())}
        self._rest = OkxRest(self._by_name, host)
        self._accepted_ns: list[int] = []  # connections of the last second; refused ones do not count

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if path != "/ws/v5/public":
            return Refusal(404)
        now_ns = self._host.now_ns()
        self._accepted_ns = [accepted for accepted in self._accepted_ns if now_ns - accepted < SECOND]
        if len(self._accepted_ns) >= self.settings.connections_per_second:
            return Refusal(429)
        self._accepted_ns.append(now_ns)
        return OkxSession(self, wire)

    def stream(self, argument: Mapping[str, Any]) -> Stream:
        """The stream that an argument means. Raises RequestError."""
        channel = argument.get("channel", "")
        key = "instType" if channel == LIQUIDATIONS else "instId"
        name = argument.get(key, "")
        stream = self._streams.get((channel, key, name))
        if stream is None:
            raise RequestError(
                "60018",
                f"Subscribe failed, wrong URL or channel:{channel},{key}:{name} doesn't exist. "
                "Please use the correct URL, channel and parameters referring to API document.",
            )
        return stream

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def on_events(self, events: Sequence[Event]) -> None:
        products = self._products
        for event in events:
            product = products.get(event.instrument)
            if product is None:
                continue
            if type(event) is Trade:
                product.fills.append(event)
            elif type(event) is Top:
                for best in product.bests:
                    best.on_top()
            elif type(event) is Change:
                product.books.window.on_change()
                if product.fills:
                    self._end_run(product, event.update_id)

    def _end_run(self, product: Product, seq_id: int) -> None:
        """A taker order has taken a level, or a part of it: what it filled there is one trade."""
        if product.trades.sessions:
            product.trades.publish(product.trade_message(seq_id))
        stream = self._liquidations.get(product.kind)
        if stream is not None and stream.sessions and is_liquidation(product.fills[-1]):
            stream.publish(product.liquidation_message())
        product.fills = []

    def is_drained(self) -> bool:
        return not any(
            product.books.window.is_collecting or any(best.is_waiting for best in product.bests)
            for product in self._products.values()
        )

    def announce_shutdown(self) -> None:
        for session in self.sessions:
            session.announce_shutdown()

    def instruments(self) -> Mapping[str, str]:
        return {product.book.spec.canonical_symbol: name for name, product in self._by_name.items()}

    def book_of(self, instrument: str) -> Book:
        return self._by_name[instrument].book

    def level_text(self, book: Book, level: Level) -> list[str]:
        return self._products[book.index].row(*level)[:2]
