"""Binance Spot, the venue's side: WebSocket market streams and the REST calls a feed handler needs.

Written from the venue's documentation (github.com/binance/binance-spot-api-docs: web-socket-streams.md,
rest-api.md, errors.md, changelog.md to 2026-07-17, read November 2026) and from live probes of 2026, not
from any client. Runs in the emulator process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/stream?streams=btcusdt@trade/btcusdt@depth@100ms&timeUnit=MICROSECOND
    http://HOST/api/v3/depth?symbol=BTCUSDT&limit=1000

Integrity: ``U``/``u`` of depth diffs count every change of a book, ``U == previous u + 1``; a REST snapshot
has ``lastUpdateId`` of the same space, and so has ``bookTicker``'s ``u``. No checksum.

Quirks kept: a misspelt stream (upper case too) is acknowledged and silent for ever; nothing is sent before
the first change; a diff holds the last value only of what changed in its window; ``bookTicker`` runs ahead
of the diffs; ``bookTicker`` and partial depth carry no ``e``; acks are never wrapped.

Not emulated, hence silent like a misspelt stream: klines, tickers, avgPrice, block trades.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.binance_rest import BinanceRest
from mdring.adapters.emulators.binance_streams import Product, venue_name
from mdring.emulator.limits import RollingLimit
from mdring.emulator.listing import ListedVenue, named
from mdring.emulator.market import Market
from mdring.emulator.named_streams import Form, NamedStreamSession, StreamLimits, asked_in_url
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, Wire
from mdring.record import DataType

MS: Final = 1_000_000
US: Final = 1_000
SECOND: Final = 1_000_000_000


class BinanceOptions(StreamLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    ping_interval_s: float = 20.0
    pong_timeout_s: float = 60.0
    messages_per_second: int = 5
    connections_per_5min: int = 300  # all clients are on one machine, so they count together
    weight_per_minute: int = 6000  # per address
    strikes_before_ban: int = 10  # answers 429 that are ignored within a minute
    ban_s: int = 120


class BinanceEmulator(ListedVenue[Product]):
    """Binance Spot over the simulated market."""

    venue: ClassVar[str] = "binance"
    options: ClassVar[type[Struct]] = BinanceOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "rade",  # @trade, @aggTrade
        DataType.BBO: "@bookTicker",
        DataType.BOOK: "@depth",
    }
    refuses_unknown: ClassVar[bool] = False

    def __init__(self, market: Market, host: Host, options: BinanceOptions) -> None:
        super().__init__(Product(name, book, host) for name, book in named(market.books, venue_name))
        self._settings = options
        self._host = host
        self.streams_by_name = {one.title: one for product in self.by_name.values() for one in product.streams()}
        self._rest = BinanceRest(self.by_name, host, options)
        self._attempts = RollingLimit(options.connections_per_5min, 300 * SECOND)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if not self._attempts.allows(self._host.now_ns()):
            return Refusal(429)
        asked = asked_in_url(path, query)
        if asked is None:
            return Refusal(404)
        names, combined = asked
        if len(names) > self._settings.max_streams:
            return Refusal(400, b"Too many subscriptions")
        unit_ns = US if query.get("timeUnit", "").upper() == "MICROSECOND" else MS
        form = Form(combined, unit_ns)
        return NamedStreamSession(wire, self._settings, self.streams_by_name.get, names, form, self.sessions)

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)

    def announce_shutdown(self) -> None:
        for session in self.sessions:
            session.announce_shutdown()
