"""Bitstamp v2: trades, best bid and ask, the book; of perpetuals also funding, mark and index price, open interest.

Documentation (read November 2026): bitstamp.net/websocket/v2, bitstamp.net/api. One address has spot pairs and
perpetuals.

Integrity:

* book: diffs without ids; ``microtimestamp`` puts them in order against a REST snapshot, and never falls. No checksum.
  A lost diff does not show at once: books are audited. The rules stand in ``bitstamp_book.py``.
* trades: none. ``type`` is the taker's side.

Quirks:

* One channel in each subscription, and each is acknowledged by itself. A market that does not exist is acknowledged and
  silent, if its name is lower case; so markets are checked against the list. An error names no channel.
* The 1,025th channel on a connection, or a frame of more than 512 bytes, ends it.
* Nothing is sent on subscription, and a quiet market sends nothing at all. ``bts:heartbeat`` is answered, and is the
  only sign of life that a client can ask for.
* ``bts:request_reconnect`` announces the end of the connection, within seconds.
* Members of a message come in any order; its ``channel`` says what it is, for the data names no market.
* Numbers are padded to the market's decimals. Trades have them as text besides (``…_str``), which alone is exact.
  ``timestamp`` is in s, of perpetuals' trades in ms, so ``microtimestamp`` is read.
* Open interest is told by REST alone. Liquidations have no channel.

Records: sizes are of the base asset. ``venue_seq`` of LEVEL and BBO is ``microtimestamp``, of others 0; ``ts_event`` is
the same time. BBO is the top of the book.

Runs in the worker of the venue (``feed/worker.py``) and in ``capture.py``::

    adapter = BitstampAdapter(BitstampAdapter.endpoints, BitstampOptions(), subscriptions)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Raw, Struct

from mdring.adapters.bitstamp_book import BitstampBook
from mdring.adapters.bitstamp_channels import (
    Funding,
    Push,
    Ticker,
    Trade,
    Trades,
    fundings,
    open_interests,
)
from mdring.adapters.bitstamp_metadata import MARKETS, PAIRS, decode_markets, decode_pairs, list_fetch
from mdring.feed.adapter import (
    NOTHING,
    UNREADABLE,
    Acknowledged,
    Adapter,
    AdapterCounts,
    Connection,
    Endpoints,
    Fetch,
    InstrumentInfo,
    Limits,
    Reconnect,
    Rejected,
    Request,
    Response,
    Send,
    Subscription,
    UnknownMessages,
    VenueProtocolError,
    blamed,
)
from mdring.feed.direct import DirectRoutes, Place
from mdring.feed.emit import Emit
from mdring.feed.message_route import Decode, Handler, MessageRoute
from mdring.feed.stage import Channel
from mdring.record import DataType, Reason

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload; those of the channels stand in ``bitstamp_channels.py`` and ``bitstamp_book.py``.


class Notice(Struct):
    """{"event":"bts:subscription_succeeded","channel":"diff_order_book_sgbeur","data":{}}

    Answers, errors and notices; also data that is asked of what it is.
    """

    event: str
    channel: str = ""
    data: Raw = Raw()


class ErrorDetail(Struct):
    """{"code":null,"message":"Invalid channel provided."}"""

    code: int | str | None = None
    message: str = ""


_NOTICE: Final = msgspec.json.Decoder(Notice)
_ERROR: Final = msgspec.json.Decoder(ErrorDetail)
_TICKERS: Final = msgspec.json.Decoder(list[Ticker])
_CHANNEL: Final = b'"channel":'
_CONTROL: Final = b'"bts:'


# ---- endpoints and limits ---------------------------------------------------------------------------------

MAX_CHANNELS: Final = 1024  # of a connection
TOO_OFTEN: Final = (b'"400.002"', b'"400.067"', b'"400.068"')
"""Codes, in answers of REST, of clients that ask too often: they are left waiting for a while."""
TOO_MANY_REQUESTS: Final = 429
HEARTBEAT: Final = "bts:heartbeat"
HEARTBEAT_INTERVAL_S: Final = 15.0
SECOND: Final = 1_000_000_000


class BitstampOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.options]``. Intervals of what is fetched; 0: never, but for audits of a book that is in doubt."""

    audit_s: int = 3600  # of each book
    open_interest_s: int = 60


# ---- subscribe --------------------------------------------------------------------------------------------

TRADES: Final = "live_trades"
DIFFS: Final = "diff_order_book"
FUNDINGS: Final = "funding_rate"
CHANNELS: Final[Mapping[DataType, str]] = {
    DataType.TRADE: TRADES,
    DataType.BBO: DIFFS,
    DataType.BOOK: DIFFS,
    DataType.FUNDING: FUNDINGS,
    DataType.MARK: FUNDINGS,
}
"""What carries these data; ``_`` and the market follow."""
EVENTS: Final[Mapping[str, str]] = {TRADES: "trade", DIFFS: "data", FUNDINGS: "funding_rate_saved"}


def subscription(channel: str) -> str:
    """The frame that asks for a channel."""
    return msgspec.json.encode({"event": "bts:subscribe", "data": {"channel": channel}}).decode()


# ---- the adapter ------------------------------------------------------------------------------------------

_TRADES: Final = msgspec.json.Decoder(Push[Trade])
_FUNDINGS: Final = msgspec.json.Decoder(Push[Funding])


class Line:
    """One connection: what is subscribed to on it, and where its messages go."""

    def __init__(self) -> None:
        self.instruments: list[str] = []
        self.channels: dict[str, list[DataType]] = {}  # by the venue's name: what they are subscribed to for
        self.market_of: dict[str, str] = {}  # instrument of each channel
        self.routes: dict[bytes, MessageRoute] = {}  # by channel
        self.books: dict[str, BitstampBook] = {}
        self.book_of: dict[str, BitstampBook] = {}  # by channel
        self.open_interests: dict[str, Channel] = {}
        self.polled_ns = 0  # when open interest was asked for last
        self.awaited: dict[str, None] = {}  # channels that are not acknowledged yet, in order
        self.refusals: list[str] = []  # errors, of which it is not known yet which channels they mean


class BitstampAdapter(Adapter):
    """Bitstamp v2. One object serves all connections of one worker."""

    venue: ClassVar[str] = "bitstamp"
    data_types: ClassVar[tuple[DataType, ...]] = (
        DataType.TRADE,
        DataType.BBO,
        DataType.BOOK,
        DataType.FUNDING,
        DataType.MARK,
        DataType.OPEN_INTEREST,
    )
    integrity: ClassVar[str] = "book: diffs in order of time against a REST snapshot, audited by further ones; no ids"
    detects_loss: ClassVar[bool] = False
    endpoints: ClassVar[Endpoints] = Endpoints("wss://ws.bitstamp.net", "https://www.bitstamp.net")
    limits: ClassVar[Limits] = Limits(
        max_connection_life_s=7 * 86_400.0,  # the venue cuts at 90 days; the configuration knows no more than a week
        send_interval_s=0.005,  # the venue states no rate
        connect_interval_s=0.2,  # nor here; all connections are asked to reconnect at the same time
        weight_per_minute=1_000,  # 10,000 requests in ten minutes
        stale_after_s=120.0,  # perpetuals' books were silent for up to 49 s
        timer_interval_s=HEARTBEAT_INTERVAL_S,
    )
    options: ClassVar[type[Struct]] = BitstampOptions
    direct: DirectRoutes

    def __init__(self, endpoints: Endpoints, options: BitstampOptions, subscriptions: Sequence[Subscription]) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._options = options
        self._endpoints = endpoints
        self._subscriptions = {subscription.instrument: subscription for subscription in subscriptions}
        self._lines: list[Line] = []
        self.direct = DirectRoutes(Place('{"data":{', behind='"channel":"', last=True))
        self._book_of: dict[str, BitstampBook] = {}

    # Metadata

    def metadata_requests(self) -> Sequence[Fetch]:
        """One list holds everything."""
        return (list_fetch(self._endpoints.rest_url, MARKETS),)

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo | Fetch]:
        """All markets; where there is no such list, the older one is asked for."""
        if response.status == 404 and response.tag == MARKETS:
            return (list_fetch(self._endpoints.rest_url, PAIRS),)
        if response.status != 200:
            raise VenueProtocolError(f"{response.tag}: HTTP {response.status} {response.body[:200]!r}")
        decode = decode_pairs if response.tag == PAIRS else decode_markets
        return decode(response.body, self.unknown)

    # Connections

    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Spread the instruments over connections and lay the routes of their channels."""
        line = Line()
        for name, wanted in self._subscriptions.items():
            if name not in channels:
                continue
            carriers: dict[str, list[DataType]] = {}
            for data_type in wanted.data_types:
                if data_type in CHANNELS:
                    carriers.setdefault(f"{CHANNELS[data_type]}_{name}", []).append(data_type)
            if not self._lines or len(line.channels) + len(carriers) > MAX_CHANNELS:
                line = Line()
                self._lines.append(line)
            line.instruments.append(name)
            if DataType.OPEN_INTEREST in wanted.data_types:
                line.open_interests[name] = channels[name]
            for carrier, data_types in carriers.items():
                line.channels[carrier] = data_types
                line.market_of[carrier] = name
                self._lay_route(len(self._lines) - 1, line, carrier, channels[name])

    def _lay_route(self, number: int, line: Line, carrier: str, channel: Channel) -> None:
        name, data_types = channel.instrument, line.channels[carrier]
        kind = CHANNELS[data_types[0]]
        data_type = data_types[0]
        decode: Decode
        handle: Handler
        match kind:
            case "live_trades":
                trades = Trades(channel, self.counts)
                decode, handle = _TRADES.decode, trades.on_message
                self.direct.add(carrier, trades.route)
            case "funding_rate":
                decode = _FUNDINGS.decode
                handle = fundings(channel, DataType.FUNDING in data_types, DataType.MARK in data_types)
            case _:
                book = BitstampBook(
                    channel,
                    number,
                    self._endpoints.rest_url,
                    DataType.BOOK in data_types,
                    DataType.BBO in data_types,
                    self.counts,
                    self.unknown,
                )
                self.counts.books += 1
                self._book_of[name] = line.books[name] = line.book_of[carrier] = book
                decode, handle, data_type = book.decode, book.on_message, DataType.BOOK
                self.direct.add(carrier, book.route)
        line.routes[carrier.encode()] = MessageRoute(decode, self._of_event(EVENTS[kind], handle), name, data_type)

    def _of_event(self, event: str, handle: Handler) -> Handler:
        """Gets the data of pushes of this event alone."""

        def on_push(push: Push[Any], ts_recv: int, emit: Emit) -> Sequence[Request]:
            if push.event == event:
                return handle(push.data, ts_recv, emit)
            self.unknown.note(f"event {push.event}", msgspec.json.encode(push))
            return NOTHING

        return on_push

    def connections(self) -> Sequence[Connection]:
        """As ``bind`` has spread them."""
        url = self._endpoints.websocket_url
        return [Connection(number, url, tuple(line.instruments)) for number, line in enumerate(self._lines)]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """Subscribe to each channel by itself."""
        line = self._lines[connection]
        line.awaited = dict.fromkeys(line.channels)
        line.refusals.clear()
        requests: list[Request] = [Send(connection, subscription(one), ack=one) for one in line.channels]
        return requests + self._poll(connection, line, now_ns)

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """CLEAR the books."""
        line = self._lines[connection]
        line.awaited.clear()
        line.refusals.clear()
        for book in line.books.values():
            book.on_disconnect(reason, emit)
        return NOTHING

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """A heartbeat; open interest; the audit of one book, that whose last one is the longest ago."""
        line = self._lines[connection]
        beat = Send(connection, '{"event":"bts:heartbeat"}', ack=HEARTBEAT, urgent=True)
        requests: list[Request] = [beat]
        age_ns = now_ns - line.polled_ns
        if 0 < self._options.open_interest_s * SECOND <= age_ns:
            requests += self._poll(connection, line, now_ns)
        for book in line.books.values():
            requests += book.on_timer(now_ns, emit)
        interval_ns = self._options.audit_s * SECOND
        due = [book for book in line.books.values() if book.is_due(now_ns, interval_ns)]
        if due:
            requests += min(due, key=lambda book: book.audited_ns).begin_audit(now_ns)
        return requests

    def _poll(self, connection: int, line: Line, now_ns: int) -> list[Request]:
        """Ask for the tickers of all markets, if open interest is wanted of one."""
        if not line.open_interests or not self._options.open_interest_s:
            return []
        line.polled_ns = now_ns
        url = f"{self._endpoints.rest_url.rstrip('/')}/api/v2/ticker/"
        return [Fetch(f"ticker {connection}", url, 1, 0, connection)]

    # Messages

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One frame is one message. Its channel, most often behind the data, says what it holds."""
        message = payload if type(payload) is bytes else bytes(payload)
        begin = message.find(b'"', message.rfind(_CHANNEL) + len(_CHANNEL)) + 1
        route = self._lines[connection].routes.get(message[begin : message.find(b'"', begin)])
        if route is None or _CONTROL in message:
            return self._on_other(connection, message, ts_recv, emit)
        return route.take(message, ts_recv, emit)

    def _on_other(self, connection: int, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Answers, errors, notices, channels that nobody asked for, or that are written in another way."""
        try:
            notice = _NOTICE.decode(message)
        except UNREADABLE as error:
            raise blamed(error, None, DataType.STATUS) from error
        match notice.event:
            case "bts:subscription_succeeded":
                return self._on_acknowledged(connection, notice.channel, ts_recv)
            case "bts:heartbeat":
                return (Acknowledged(connection, HEARTBEAT),)
            case "bts:request_reconnect":
                return (Reconnect(connection, Reason.PLANNED_RECONNECT, notice.event),)
            case "bts:error":
                return self._on_error(connection, notice, message)
            case event if not event.startswith("bts:"):
                route = self._lines[connection].routes.get(notice.channel.encode(errors="replace"))
                if route is not None:
                    return route.take(message, ts_recv, emit)
                self.unknown.note(f"channel {notice.channel}", message)
                return NOTHING
        self.unknown.note(f"event {notice.event}", message)
        return NOTHING

    def _on_acknowledged(self, connection: int, channel: str, ts_recv: int) -> Sequence[Request]:
        """A channel is subscribed to. What was not awaited says nothing."""
        line = self._lines[connection]
        if channel not in line.awaited:
            return NOTHING
        del line.awaited[channel]
        requests: list[Request] = [Acknowledged(connection, channel)]
        book = line.book_of.get(channel)
        if book is not None:
            requests += book.on_subscribed(ts_recv)
        return requests + self._refused(connection, line)

    def _on_error(self, connection: int, notice: Notice, message: bytes) -> Sequence[Request]:
        """It names no channel. All others are acknowledged, so what is left in the end is what was meant."""
        line = self._lines[connection]
        if len(line.refusals) == len(line.awaited):
            self.unknown.note("error that answers no subscription", message)
            return NOTHING
        try:
            detail = _ERROR.decode(notice.data)
        except msgspec.DecodeError:
            detail = ErrorDetail(message="an error without a text")
        line.refusals.append(detail.message if detail.code is None else f"{detail.code} {detail.message}")
        return self._refused(connection, line)

    def _refused(self, connection: int, line: Line) -> list[Request]:
        """What the venue has refused, once as many channels are unanswered as there were errors."""
        if len(line.refusals) < len(line.awaited):
            return []
        requests: list[Request] = []
        for channel, text in zip(line.awaited, line.refusals, strict=True):
            requests.append(Acknowledged(connection, channel))
            requests += [
                Rejected(connection, line.market_of[channel], text, data_type) for data_type in line.channels[channel]
            ]
        line.awaited.clear()
        line.refusals.clear()
        return requests

    # What is fetched

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """A snapshot, or the tickers; or why there is none."""
        what, _, number = response.tag.partition(" ")
        if what == "ticker":
            return self._on_tickers(self._lines[int(number)], response, emit)
        book = self._book_of.get(what)
        if book is None:
            return NOTHING
        if response.status == 400 and any(code in response.body for code in TOO_OFTEN):
            response = msgspec.structs.replace(response, status=TOO_MANY_REQUESTS)  # which is what it means
        try:
            return book.on_response(response, ts_recv, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, what, DataType.BOOK) from error

    def _on_tickers(self, line: Line, response: Response, emit: Emit) -> Sequence[Request]:
        """If they did not come, the next ones will."""
        if response.status == 200:
            try:
                open_interests(line.open_interests, _TICKERS.decode(response.body), emit)
            except (*UNREADABLE, VenueProtocolError) as error:
                raise blamed(error, None, DataType.OPEN_INTEREST) from error
        return NOTHING

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """Rebuild one book; no other is touched."""
        book = self._book_of.get(instrument)
        return NOTHING if book is None else book.resync(now_ns, reason, emit)

    def is_data(self, payload: bytes | memoryview) -> bool:
        """Everything but answers and notices."""
        return _CONTROL not in bytes(payload)
