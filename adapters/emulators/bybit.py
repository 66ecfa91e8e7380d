"""Bybit v5, the venue's side: the public WebSockets of spot pairs and linear contracts, and some REST calls.

Written from the venue's documentation (bybit-exchange.github.io/docs/v5, its changelog to November 2026), not from any
client. Runs in the emulator process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/v5/public/linear      {"req_id":"1","op":"subscribe","args":["orderbook.200.BTCUSDT"]}
    http://HOST/v5/market/instruments-info?category=spot

The address chooses the category; topics and symbols are alike in both. Where an instrument has to be told by its name
alone (control endpoint, truth), it is called BTCUSDT-SPOT or BTCUSDT-LINEAR.

Integrity: ``u`` rises by 1 with each message of a book's topic. With the option ``restart_every_s`` the service
restarts now and then: ``u`` begins anew with a snapshot of 1, for whoever listens.

Quirks kept: one bad topic fails its whole request; an answer names the request only; the pong has ``"op":"ping"``;
messages of spot have ``ts`` before ``type``, and their numbers are not padded; quotes come again after 3 s; a delta of
a ticker has only what changed; who says nothing for 60 s is cut without a word. The venue sends no pings.

Not emulated, hence refused: klines, RPI and full books, ADL and insurance, the status of the system. What the venue
says to more characters of topics than it allows is not documented; the text here is made up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.bybit_rest import BybitRest
from mdring.adapters.emulators.bybit_streams import Product, StreamIntervals, Topic, listing
from mdring.emulator.limits import RollingLimit
from mdring.emulator.listing import ListedVenue
from mdring.emulator.market import Market
from mdring.emulator.rhythm import Silence
from mdring.emulator.stream import StreamSession
from mdring.emulator.text import compact
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, Wire
from mdring.record import DataType

SECOND: Final = 1_000_000_000
CATEGORIES: Final = ("spot", "linear")
PATH: Final = "/v5/public/"


class BybitOptions(StreamIntervals, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own, but for restarts, which have no period."""

    silence_s: float = 60.0  # a client that says nothing for so long is cut
    spot_arguments: int = 10  # of a request
    topic_characters: int = 21_000  # of all topics of a connection
    connections_per_window: int = 500  # of 5 minutes
    open_connections: int = 1_000  # of a category
    page_rows: int = 1_000  # of a list by REST, at most
    calls_per_window: int = 600  # by REST, of 5 s, per address
    restart_every_s: float = 0.0  # 0: never


class RequestError(Exception):
    """The client's request is answered by an error, as a whole; the connection stays open."""


class BybitSession(StreamSession[Topic]):
    """The protocol on one connection."""

    def __init__(self, emulator: BybitEmulator, category: str, wire: Wire) -> None:
        super().__init__(wire, emulator.sessions)
        self.category = category
        self._emulator = emulator
        self._options = emulator.settings
        self._silence = Silence(wire, self._options.silence_s, wire.reset)

    def on_open(self) -> None:
        super().on_open()
        self._silence.start()

    def on_text(self, payload: bytes) -> None:
        self._silence.note()
        request: Mapping[str, Any] = {}
        try:
            request = _parse(payload)
            match request.get("op"):
                case "ping":
                    self._reply(request, "pong")
                case "subscribe":
                    self._subscribe(request)
                case "unsubscribe":
                    self._unsubscribe(request)
                case _:
                    raise RequestError("error:invalid op")
        except RequestError as error:
            self._reply(request, str(error), success=False)

    def _subscribe(self, request: Mapping[str, Any]) -> None:
        topics = _topics(request)
        if self.category == "spot" and len(topics) > self._options.spot_arguments:
            raise RequestError(f"args size >{self._options.spot_arguments}")
        if sum(map(len, (*topics, *self.streams))) > self._options.topic_characters:
            raise RequestError(f"error:args length >{self._options.topic_characters}")
        streams = {topic: self._stream(topic) for topic in topics}
        for topic in topics:
            if topic in self.streams:
                raise RequestError(f"error:already subscribed,topic:{topic}")
        self._reply(request, "subscribe" if self.category == "spot" else "")
        self.streams.update(streams)
        for stream in streams.values():
            stream.join(self)

    def _unsubscribe(self, request: Mapping[str, Any]) -> None:
        for topic in _topics(request):
            stream = self.streams.pop(topic, None)
            if stream is not None:
                stream.leave(self)
        self._reply(request, "")

    def _stream(self, topic: str) -> Topic:
        stream = self._emulator.stream(self.category, topic)
        if stream is None:
            kind, _, symbol = topic.rpartition(".")
            if self.category == "spot" and not self._emulator.lists("spot", symbol) and kind:
                raise RequestError(f"Invalid symbol :[{topic}]")
            raise RequestError(f"error:handler not found,topic:{topic}")
        return stream

    def _reply(self, request: Mapping[str, Any], text: str, *, success: bool = True) -> None:
        """``{"success":true,"ret_msg":"subscribe","conn_id":"d9avrao7pl3bpiuoku0g-7tmms","req_id":"test","op":"subscribe"}``"""
        answer = {
            "success": success,
            "ret_msg": text,
            "conn_id": f"{self.wire.number:020x}-7tmms",
            "req_id": request.get("req_id", ""),
            "op": request.get("op", ""),
        }
        self.reply(compact(answer))


def _parse(payload: bytes) -> dict[str, Any]:
    """A request that is an object. Raises RequestError."""
    text = payload.decode(errors="replace")
    try:
        request = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise RequestError(f"Failed to decode incoming data:readObjectStart: expect {{ or n, but found {text[:1]}")
    return request


def _topics(request: Mapping[str, Any]) -> list[str]:
    topics = request.get("args")
    if not isinstance(topics, list) or not topics or not all(isinstance(topic, str) for topic in topics):
        raise RequestError("error:invalid args")
    return topics


# ---- the venue --------------------------------------------------------------------------------------------


class BybitEmulator(ListedVenue[Product]):
    """Bybit v5 over the simulated market."""

    venue: ClassVar[str] = "bybit"
    options: ClassVar[type[Struct]] = BybitOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "publicTrade.",
        DataType.BBO: "orderbook.1.",
        DataType.BOOK: "orderbook.200.",
        DataType.FUNDING: "tickers.",
        DataType.MARK: "tickers.",
        DataType.OPEN_INTEREST: "tickers.",
        DataType.LIQUIDATION: "allLiquidation.",
    }
    refuses_unknown: ClassVar[bool] = True

    def __init__(self, market: Market, host: Host, options: BybitOptions) -> None:
        listed = [(listing(book.spec.symbol), book) for book in market.books]
        super().__init__(Product(*pair, market, book, host, options) for pair, book in listed if pair is not None)
        self.settings = options
        self._host = host
        products = list(self.by_name.values())
        self._codes = {(product.category, product.code) for product in products}
        self._topics = {
            (product.category, stream.topic): stream for product in products for stream in product.streams()
        }
        self._rest = BybitRest(products, host, options.page_rows, options.calls_per_window)
        self._connections = RollingLimit(options.connections_per_window, 300 * SECOND)  # refused ones count
        self._restarts_due = options.restart_every_s > 0

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        category = path.removeprefix(PATH)
        if not path.startswith(PATH) or category not in CATEGORIES:
            return Refusal(404)
        is_open = sum(session.category == category for session in self.sessions)
        if not self._connections.allows(self._host.now_ns()) or is_open >= self.settings.open_connections:
            return Refusal(403)
        if self._restarts_due:
            self._restarts_due = False
            self._host.after(self.settings.restart_every_s, self._restart)
        return BybitSession(self, category, wire)

    def stream(self, category: str, topic: str) -> Topic | None:
        """What a topic means at the address of a category."""
        return self._topics.get((category, topic))

    def lists(self, category: str, code: str) -> bool:
        """Whether there is such an instrument."""
        return (category, code) in self._codes

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def _restart(self) -> None:
        """Of the service behind the sockets, which stay open."""
        for product in self.by_index.values():
            product.quotes.restart()
            for stream in product.books.values():
                stream.restart()
        self._host.after(self.settings.restart_every_s, self._restart)
