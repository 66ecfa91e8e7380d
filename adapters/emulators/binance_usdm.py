"""Binance USD-M futures, the venue's side: WebSocket market streams and the REST calls that a feed handler needs.

Written from the venue's documentation (developers.binance.com, derivatives, USD-M futures, its notices and change log
to 2026-10-23, read November 2026) and from what was seen of it in 2026, not from any client. Runs in the emulator
process; ``mdring/emulator/server.py`` gives it sockets::

    ws://HOST/public/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker
    ws://HOST/market/ws/btcusdt@aggTrade
    http://HOST/fapi/v1/depth?symbol=BTCUSDT&limit=1000

Integrity: ``pu`` of a depth diff is ``u`` of the one before; ``lastUpdateId`` of a snapshot and ``u`` of bookTicker are
of the same count, which skips. No checksum.

Quirks kept: each stream is on one of two paths; asked for on the other, or misspelt (upper case is), it is
acknowledged and silent for ever. A path without a route still opens, and delivers what is public only. Of an instrument
that does not change, nothing is sent but its mark price. Placeholders among single trades; retail-only fills.

The option ``coin_margined`` makes it the sister venue: inverse contracts, ``/dapi/v1``, no routes.

Not emulated, hence silent like a misspelt stream: klines, tickers, rpiDepth, streams of all instruments; no contract is
ever halted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from msgspec import Struct

from mdring.adapters.emulators.binance_usdm_rest import BinanceUsdmRest
from mdring.adapters.emulators.binance_usdm_streams import MARKET, MS, PUBLIC, Product, Stream, venue_name
from mdring.emulator.limits import RollingLimit
from mdring.emulator.listing import ListedVenue, named
from mdring.emulator.market import Market
from mdring.emulator.named_streams import Form, NamedStreamSession, StreamLimits, asked_in_url
from mdring.emulator.venue import Host, Refusal, RestRequest, RestResponse, Session, Wire
from mdring.record import DataType

SECOND: Final = 1_000_000_000


class BinanceUsdmOptions(StreamLimits, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The venue's limits and intervals; the defaults are the venue's own."""

    ping_interval_s: float = 180.0
    pong_timeout_s: float = 600.0
    messages_per_second: int = 10
    connections_per_5min: int = 300  # all clients are on one machine, so they count together
    weight_per_minute: int = 2400  # per address
    strikes_before_ban: int = 10  # answers 429 that are ignored within a minute
    ban_s: int = 120
    demo_host: bool = False  # without a route everything is delivered, as the venue's demo does
    coin_margined: bool = False  # COIN-M in place of USD-M


class BinanceUsdmEmulator(ListedVenue[Product]):
    """Binance USD-M futures over the simulated market."""

    venue: ClassVar[str] = "binance_usdm"
    options: ClassVar[type[Struct]] = BinanceUsdmOptions
    streams: ClassVar[Mapping[DataType, str]] = {
        DataType.TRADE: "rade",  # @trade, @aggTrade
        DataType.BBO: "@bookTicker",
        DataType.BOOK: "@depth",
        DataType.FUNDING: "@markPrice",
        DataType.MARK: "@markPrice",
        DataType.LIQUIDATION: "@forceOrder",
    }
    refuses_unknown: ClassVar[bool] = False

    def __init__(self, market: Market, host: Host, options: BinanceUsdmOptions) -> None:
        listed = named(market.books, lambda symbol: venue_name(symbol, options.coin_margined))
        super().__init__(Product(name, market, book, host, options.coin_margined) for name, book in listed)
        self._settings = options
        self._host = host
        self._streams = {one.title: one for product in self.by_name.values() for one in product.streams()}
        self._rest = BinanceUsdmRest(self.by_name, host, options, options.coin_margined)
        self._attempts = RollingLimit(options.connections_per_5min, 300 * SECOND)

    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        if not self._attempts.allows(self._host.now_ns()):
            return Refusal(429)
        route, rest = "", path
        for group in (PUBLIC, MARKET):
            if path.startswith(f"/{group}/") and not self._settings.coin_margined:
                route, rest = group, path.removeprefix(f"/{group}")
        asked = asked_in_url(rest, query)
        if asked is None:
            return Refusal(404)
        names, combined = asked
        if len(names) > self._settings.max_streams:
            return Refusal(400, b"Too many subscriptions")
        groups = self._groups(route)

        def find(name: str) -> Stream | None:
            stream = self._streams.get(name)
            return stream if stream is not None and stream.group in groups else None

        return NamedStreamSession(wire, self._settings, find, names, Form(combined, MS), self.sessions)

    def _groups(self, route: str) -> Sequence[str]:
        """What is delivered on a path."""
        if route:
            return (route,)
        return (PUBLIC, MARKET) if self._settings.demo_host or self._settings.coin_margined else (PUBLIC,)

    def rest(self, request: RestRequest) -> RestResponse:
        return self._rest.answer(request)
