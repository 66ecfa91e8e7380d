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
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.bitstamp_rest import BitstampRest
from mdring.adapters.emulators.bitstamp_streams import US, Channel, Intervals, Product, venue_name
from mdring.emulator.listing import ListedVenue, named
from mdring.emulator.market import Change, Event, Market
from mdring.emulator.rhythm import Beat
from mdring.emulator.stream import StreamSession
from mdring.emulator.text import compact
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, Wire
from mdring.record import DataType


class BitstampOptions(Intervals, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    ping_interval_s: float = 54.0
    max_channels: int = 1024  # per connection
    max_message_bytes: int = 512
    reconnect_grace_s: float = 5.0  # from the announcement to the end of the connection
    requests_per_second: int = 400  # REST, per address
    requests_per_ten_minutes: int = 10_000


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


class BitstampSession(StreamSession[Channel]):
    """The protocol on one connection."""

    def __init__(self, emulator: BitstampEmulator, wire: Wire) -> None:
        super().__init__(wire, emulator.sessions)
        self._emulator = emulator
        self._options = emulator.settings
        self._pings = Beat(wire, self._options.ping_interval_s, lambda: wire.ping(b""))

    def on_open(self) -> None:
        super().on_open()
        self._pings.start()

    def on_text(self, payload: bytes) -> None:
        limit = self._options.max_message_bytes
        if len(payload) > limit:
            self.wire.close(1009, f"read limited at {limit + 1} bytes")
            return
        try:
            self._on_request(payload)
        except RequestError as error:
            self._reply("bts:error", "", {"code": error.code, "message": str(error)})

    def announce_shutdown(self) -> None:
        """``{"event":"bts:request_reconnect","channel":"","data":null}``"""
        self._reply("bts:request_reconnect", "", None)
        self.wire.after(self._options.reconnect_grace_s, lambda: self.wire.close(1001))

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
        if channel not in self.streams:
            if len(self.streams) == self._options.max_channels:
                self.wire.reset()
                return
            stream = self.streams[channel] = self._emulator.stream(channel)
            if stream is not None:
                stream.join(self)
        self._reply("bts:subscription_succeeded", channel, {})

    def _unsubscribe(self, channel: str) -> None:
        stream = self.streams.pop(channel, None)
        if stream is not None:
            stream.leave(self)
        self._reply("bts:unsubscription_succeeded", channel, {})

    def _reply(self, event: str, channel: str, data: Any) -> None:
        self.reply(compact({"event": event, "channel": channel, "data": data}))


# ---- the venue --------------------------------------------------------------------------------------------


class BitstampEmulator(ListedVenue[Product]):
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
        listed = named(market.books, venue_name)
        super().__init__(Product(name, market, book, host, options) for name, book in listed)
        self.settings = options
        self._host = host
        self._streams = {stream.title: stream for product in self.by_name.values() for stream in product.streams()}
        self._rest = BitstampRest(self.by_name, host, options)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        return BitstampSession(self, wire) if path in ("", "/") else Refusal(404)

    def stream(self, channel: str) -> Channel | None:
        """The stream of a channel; None for one that stays silent."""
        return self._streams.get(channel)

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def on_events(self, events: Sequence[Event]) -> None:
        """All stamps first: a window may send what the book has become by all of these."""
        products, now_us = self.by_index, self._host.now_ns() // US
        for event in events:
            if type(event) is Change and event.instrument in products:
                products[event.instrument].stamps.on_change(now_us)
        super().on_events(events)

    def announce_shutdown(self) -> None:
        for session in self.sessions:
            session.announce_shutdown()
