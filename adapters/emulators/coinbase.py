"""Coinbase Exchange, the venue's side: the public WebSocket feed and the REST calls that a feed handler needs.

Written from the venue's documentation (docs.cdp.coinbase.com/exchange: WebSocket feed, rate limits, REST; read
November 2026) and from recordings of 2021, not from any client. Runs in the emulator process;
``mdring/emulator/server.py`` gives it sockets::

    ws://HOST     {"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches","level2_batch"]}
    http://HOST/products/BTC-USD/book?level=2

Integrity: none of books, but the order of the connection: a subscription begins with a snapshot. Trades have
consecutive ids, and each heartbeat has the last one. ``sequence`` counts all that happens to a product.

Quirks kept: who does not subscribe within 5 s is cut; one bad product or channel refuses the whole request; the answer
is the state of the connection, in which ``level2_batch`` is called ``level2_50``; to subscribe again to what is
subscribed to brings no snapshot; ``level2`` wants a login; a match tells the maker's side, a ticker the taker's; the
last match, and a ticker of it, come with the subscription; a ticker comes with a match and never with a quote.

Changes of a book are sent every 50 ms, matches at once, so a match precedes the update of its fill. With the option
``batch_interval_s`` 0 each change is a message, and comes before its match, as in the feed of 2021.

Not emulated, hence silent: auctionfeed, ticker_batch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.coinbase_rest import CoinbaseRest
from mdring.adapters.emulators.coinbase_streams import (
    LEVEL2,
    Channel,
    Intervals,
    PeriodicChannel,
    Product,
    encode,
    venue_name,
)
from mdring.emulator.limits import RollingLimit
from mdring.emulator.listing import ListedVenue, named
from mdring.emulator.market import Market
from mdring.emulator.stream import StreamSession
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, Wire
from mdring.record import DataType

SECOND: Final = 1_000_000_000
STATUS: Final = "status"
NAMES: Final = {LEVEL2: "level2_50"}
"""What a channel is called in answers, where that is not its name."""
WITH_LOGIN: Final = {
    "level2": "level2, level3, and full channels now require authentication.",
    "level3": "level2, level3, and full channels now require authentication.",
    "full": "level2, level3, and full channels now require authentication.",
    "user": "user channel requires authentication.",
    "balance": "balance channel requires authentication.",
    "rfq_matches": "rfq_matches channel requires authentication.",
}


class CoinbaseOptions(Intervals, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    first_subscription_s: float = 5.0
    messages_per_second: int = 100
    connection_burst: int = 20  # in the time in which 8 a second would be so many
    subscriptions: int = 10  # of one product to one channel, by all connections
    requests_per_second: int = 10  # REST, per address
    request_burst: int = 15


# ---- connections ------------------------------------------------------------------------------------------


class RequestError(Exception):
    """The client's request is answered by an error, and nothing of it is done."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class CoinbaseSession(StreamSession[Channel]):
    """The protocol on one connection."""

    def __init__(self, emulator: CoinbaseEmulator, wire: Wire) -> None:
        super().__init__(wire, emulator.sessions)
        self._emulator = emulator
        self._has_subscribed = False
        self._messages = RollingLimit(emulator.settings.messages_per_second, SECOND)

    def on_open(self) -> None:
        super().on_open()
        self.wire.after(self._emulator.settings.first_subscription_s, self._look)

    def _look(self) -> None:
        if not self._has_subscribed:
            self.wire.close(1000, "no subscription")

    def on_text(self, payload: bytes) -> None:
        if not self._messages.allows(self.wire.now_ns()):
            self._refuse(RequestError("ErrSlowRead"))
            self.wire.close(1008, "ErrSlowRead")
            return
        try:
            self._on_request(payload)
        except RequestError as error:
            self._refuse(error)
            return
        self._has_subscribed = True

    @property
    def channels(self) -> list[Channel]:
        """What it is subscribed to."""
        return [channel for channel in self.streams.values() if channel is not None]

    def _on_request(self, payload: bytes) -> None:
        try:
            request = json.loads(payload)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RequestError("Malformed JSON") from error
        kind = request.get("type") if isinstance(request, dict) else None
        if kind == "subscribe":
            self._subscribe(request)
        elif kind == "unsubscribe":
            self._unsubscribe(request)
        else:
            raise RequestError("Type has to be either subscribe or unsubscribe")

    def _subscribe(self, request: Mapping[str, Any]) -> None:
        wanted = self._emulator.channels_of(request, "Failed to subscribe")
        new = [channel for channel in dict.fromkeys(wanted) if channel.title not in self.streams]
        for channel in new:
            if len(channel.sessions) >= self._emulator.settings.subscriptions:
                raise RequestError("Failed to subscribe", f"Too many subscriptions to {channel.product}")
        self.streams |= {channel.title: channel for channel in new}
        self._tell_state()
        for channel in new:
            channel.join(self)

    def _unsubscribe(self, request: Mapping[str, Any]) -> None:
        """From channels of some products, from channels as a whole, or from all channels of some products."""
        names, products = names_of(request.get("channels")), request.get("product_ids") or []
        if names and any(own for own in names.values()):
            left = self._emulator.channels_of(request, "Failed to unsubscribe")
        else:
            left = [
                channel
                for channel in self.channels
                if (not names or channel.name in names) and (not products or channel.product in products)
            ]
        for channel in left:
            if self.streams.pop(channel.title, None) is not None:
                channel.leave(self)
        self._tell_state()

    def _tell_state(self) -> None:
        """``{"type":"subscriptions","channels":[{"name":"level2_50","product_ids":["ETH-USD","ETH-EUR"],"account_ids":null}]}``"""
        state: dict[str, list[str]] = {}
        for channel in self.channels:
            products = state.setdefault(NAMES.get(channel.name, channel.name), [])
            products += [channel.product] if channel.product else []
        channels = [{"name": name, "product_ids": products, "account_ids": None} for name, products in state.items()]
        self.reply(encode({"type": "subscriptions", "channels": channels}).decode())

    def _refuse(self, error: RequestError) -> None:
        """``{"type":"error","message":"Failed to subscribe","reason":"GIBBERISH-USD is not a valid product"}``"""
        reason = {"reason": error.reason} if error.reason else {}
        self.reply(encode({"type": "error", "message": str(error), **reason}).decode())


def names_of(channels: Any) -> dict[str, list[Any]]:
    """The products that a request names at each channel itself; a channel is a name or an object."""
    found: dict[str, list[Any]] = {}
    for channel in channels if isinstance(channels, list) else []:
        name = channel.get("name") if isinstance(channel, dict) else channel
        products = channel.get("product_ids") if isinstance(channel, dict) else None
        found[str(name)] = products if isinstance(products, list) else []
    return found


# ---- the venue --------------------------------------------------------------------------------------------


class CoinbaseEmulator(ListedVenue[Product]):
    """Coinbase Exchange over the simulated market: its spot pairs."""

    venue: ClassVar[str] = "coinbase"
    options: ClassVar[type[Struct]] = CoinbaseOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "matches:",
        DataType.BBO: f"{LEVEL2}:",
        DataType.BOOK: f"{LEVEL2}:",
    }
    refuses_unknown: ClassVar[bool] = True

    def __init__(self, market: Market, host: Host, options: CoinbaseOptions) -> None:
        super().__init__(Product(name, book, host, options) for name, book in named(market.books, venue_name))
        self.settings = options
        self._host = host
        self._rest = CoinbaseRest(self.by_name, host, options.requests_per_second, options.request_burst)
        status = PeriodicChannel(STATUS, "", host, options.status_interval_s, self._rest.status_message)
        channels = [status, *(channel for product in self.by_name.values() for channel in product.channels)]
        self._channels = {(channel.name, channel.product): channel for channel in channels}
        self._names = {channel.name for channel in channels}
        burst = options.connection_burst
        self._upgrades = RollingLimit(burst, burst * SECOND // 8)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if path not in ("", "/"):
            return Refusal(404)
        if not self._upgrades.allows(self._host.now_ns()):
            return Refusal(429)
        return CoinbaseSession(self, wire)

    def channels_of(self, request: Mapping[str, Any], failure: str) -> list[Channel]:
        """What a request names. Raises RequestError if there is no such thing, or nothing is named."""
        names, common = names_of(request.get("channels")), request.get("product_ids") or []
        if not names:
            raise RequestError(failure, "No channels provided")
        found = []
        for name, own in names.items():
            if name in WITH_LOGIN:
                raise RequestError(failure, WITH_LOGIN[name])
            if name not in self._names:
                raise RequestError(failure, f"{name} is not a valid channel")
            products = [""] if name == STATUS else own or common
            if not products:
                raise RequestError(failure, " is not a valid product")
            for product in products:
                if (name, product) not in self._channels:
                    raise RequestError(failure, f"{product} is not a valid product")
                found.append(self._channels[name, product])
        return found

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)
