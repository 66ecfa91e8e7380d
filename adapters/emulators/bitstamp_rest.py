"""Bitstamp v2's REST calls, the venue's side: lists of markets, books, tickers, trades, funding, and their limits.

The REST half of ``bitstamp.py``, from the same documentation. What is asked of one market stands in the path; a path
that does not exist, or names no market, is answered by 404. Who asks too often gets 400 and an error by code::

    GET /api/v2/order_book/btcusd/?group=1
    {"timestamp": "1641343695", "microtimestamp": "1641343695572693", "bids": [["0.14695", "4567.41"]], "asks": []}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mdring.adapters.emulators.bitstamp_streams import Product
from mdring.emulator.book import Level, Trade
from mdring.emulator.limits import RollingLimit
from mdring.emulator.venue import Host, RestRequest, RestResponse
from mdring.record import Aggressor
from mdring.symbol import plain_decimal

if TYPE_CHECKING:
    from mdring.adapters.emulators.bitstamp import BitstampOptions

SECOND: Final = 1_000_000_000
ROOT: Final = "/api/v2/"
MAX_TRADES: Final = 1_000
NOT_FOUND: Final = RestResponse(404, b'{"message": "Not found."}', {"Content-Type": "application/json"})


class BitstampRest:
    """All REST calls over the products of a venue. ``answer`` is the only entry."""

    def __init__(self, products: Mapping[str, Product], host: Host, options: BitstampOptions) -> None:
        self._products = products
        self._host = host
        self._options = options
        self._limits: dict[str, tuple[RollingLimit, RollingLimit]] = {}
        self._lists: dict[str, Callable[[], Any]] = {
            "markets": lambda: [market_row(product) for product in products.values()],
            "trading-pairs-info": lambda: [pair_row(product) for product in products.values()],
            "ticker": lambda: [self._ticker(product) for product in products.values()],
        }
        self._calls: dict[str, Callable[[Product, RestRequest], Any]] = {
            "order_book": self._order_book,
            "ticker": lambda product, _: self._ticker(product),
            "transactions": lambda product, _: transactions(product),
            "funding_rate": lambda product, _: self._funding(product),
        }
        """by first part of the path, of all markets and of one"""

    def answer(self, request: RestRequest) -> RestResponse:
        """Answer a call, or refuse it."""
        if not self._is_allowed(request.client):
            error = {"status": "error", "reason": "Request rate limit exceeded.", "code": "400.002"}
            return RestResponse(400, _encode(error), {"Content-Type": "application/json"})
        what, _, name = request.path.removeprefix(ROOT).rstrip("/").partition("/")
        if not request.path.startswith(ROOT):
            return NOT_FOUND
        if not name:
            listing = self._lists.get(what)
            return NOT_FOUND if listing is None else _answer(listing())
        call, product = self._calls.get(what), self._products.get(name)
        if call is None or product is None or (what == "funding_rate" and product.is_spot):
            return NOT_FOUND
        return _answer(call(product, request))

    def _is_allowed(self, client: str) -> bool:
        if client not in self._limits:
            options = self._options
            self._limits[client] = (
                RollingLimit(options.requests_per_second, SECOND),
                RollingLimit(options.requests_per_ten_minutes, 600 * SECOND),
            )
        now_ns, (second, ten_minutes) = self._host.now_ns(), self._limits[client]
        return second.allows(now_ns) & ten_minutes.allows(now_ns)  # both count every request

    def _order_book(self, product: Product, request: RestRequest) -> dict[str, Any]:
        snapshots, lag = product.snapshots, request.snapshot_lag
        stamp, (_, bids, asks) = snapshots.stale(lag) if lag else snapshots.newest()
        group = request.query.get("group", "1")
        return {
            "timestamp": str(stamp // 1_000_000),
            "microtimestamp": str(stamp),
            "bids": _rows(product, bids, group),
            "asks": _rows(product, asks, group),
        }

    def _ticker(self, product: Product) -> dict[str, str]:
        """Prices of the day are left to the imagination."""
        _, bids, asks = product.book.depth(1)
        middle = product.price(product.book.spec.reference_price)
        row = {
            "timestamp": str(self._host.now_ns() // SECOND),
            "open": middle,
            "high": middle,
            "low": middle,
            "last": middle,
            "volume": product.size(product.book.spec.typical_size),
            "vwap": middle,
            "bid": product.price(bids[0][0]) if bids else "0",
            "ask": product.price(asks[0][0]) if asks else "0",
            "side": "1",
            "open_24": middle,
            "percent_change_24": "0.00",
            "market_type": "SPOT" if product.is_spot else "PERPETUAL",
            "pair": product.title,
            "market": product.title,
        }
        contract = product.contract
        if contract is not None:
            open_interest, mark = contract.open_interest(), contract.mark_price()
            row |= {
                "index_price": f"{contract.index_price():f}",
                "mark_price": f"{mark:f}",
                "open_interest": plain_decimal(str(open_interest)),
                "open_interest_value": f"{open_interest * mark:.13f}",
            }
        return row

    def _funding(self, product: Product) -> dict[str, str]:
        contract, now_ns = product.contract, self._host.now_ns()
        assert contract is not None
        return {
            "funding_rate": f"{contract.funding_rate():.6f}",
            "timestamp": str(now_ns // SECOND),
            "market": product.title,
            "next_funding_time": str(contract.next_funding_ms(now_ns) // 1000),
        }


def market_row(product: Product) -> dict[str, Any]:
    """One row of the list, with the keys that are really sent."""
    symbol = product.symbol
    row = {
        "name": product.title,
        "market_symbol": product.name,
        "base_currency": symbol.base,
        "base_decimals": product.size_decimals,
        "counter_currency": symbol.quote,
        "counter_decimals": product.price_decimals,
        "minimum_order_value": "10",
        "trading": "Enabled",
        "instant_and_market_orders": "Enabled",
        "description": product.title,
        "market_type": "SPOT" if product.is_spot else "PERPETUAL",
        "has_market_hours": False,
    }
    return row if product.is_spot else row | {"payoff_type": "Linear", "contract_size": "1.00000000"}


def pair_row(product: Product) -> dict[str, Any]:
    """One row of the older list."""
    return {
        "trading": "Enabled",
        "base_decimals": product.size_decimals,
        "url_symbol": product.name,
        "name": product.title,
        "instant_and_market_orders": "Enabled",
        "minimum_order": f"10.0 {product.symbol.quote}",
        "counter_decimals": product.price_decimals,
        "description": product.title,
    }


def transactions(product: Product) -> list[dict[str, str]]:
    """Trades, the newest first."""

    def row(trade: Trade) -> dict[str, str]:
        return {
            "date": str(trade.ts_event // SECOND),
            "tid": str(trade.trade_id),
            "amount": product.size(trade.size),
            "type": str(int(trade.aggressor == Aggressor.SELL)),
            "price": product.price(trade.price),
        }

    return [row(trade) for trade in islice(reversed(product.book.trades), MAX_TRADES)]


def _rows(product: Product, levels: Sequence[Level], group: str) -> list[list[str]]:
    """By price, or by order with its id; in this market each level is of one order."""
    rows = [product.row(*level) for level in levels]
    return [[*row, str(10**15 + level[0])] for row, level in zip(rows, levels, strict=True)] if group == "2" else rows


def _answer(value: Any) -> RestResponse:
    return RestResponse(200, _encode(value), {"Content-Type": "application/json"})


def _encode(value: Any) -> bytes:
    return json.dumps(value).encode()
