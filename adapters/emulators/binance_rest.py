"""Binance Spot's REST calls, the venue's side: instrument list, book snapshots, trades, weights, bans.

The REST half of ``binance.py``, from the same documentation (rest-api.md, errors.md). How weights are counted, and what
becomes of who spends too much, is that of ``mdring/emulator/weighed_calls.py``::

    GET /api/v3/depth?symbol=BTCUSDT&limit=5
    {"lastUpdateId":1027024,"bids":[["4.00000000","431.00000000"]],"asks":[["4.00000200","12.00000000"]]}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from mdring.adapters.emulators.binance_streams import Product
from mdring.emulator.book import Trade
from mdring.emulator.instruments import decimal_text
from mdring.emulator.venue import Host, RestRequest, stale_depth
from mdring.emulator.weighed_calls import Call, CallError, WeighedCalls, WeightLimits
from mdring.record import Aggressor

MAX_DEPTH: Final = 5000
DEFAULT_DEPTH: Final = 100
MAX_TRADES: Final = 1000
DEFAULT_TRADES: Final = 500
DEPTH_WEIGHTS: Final = ((100, 5), (500, 25), (1000, 50), (MAX_DEPTH, 250))
"""(up to this limit, weight)"""

RATE_LIMITS: Final = [
    {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
    {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200000},
    {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300000},
]


class BinanceRest(WeighedCalls[Product]):
    """All REST calls over the products of the venue."""

    content_type = "application/json;charset=UTF-8"
    weight_headers = ("X-MBX-USED-WEIGHT", "X-MBX-USED-WEIGHT-1M")

    def __init__(self, products: Mapping[str, Product], host: Host, limits: WeightLimits) -> None:
        calls: dict[str, Call] = {
            "/api/v3/ping": (lambda _: 1, lambda _: {}),
            "/api/v3/time": (lambda _: 1, self._time),
            "/api/v3/exchangeInfo": (lambda _: 20, self._exchange_info),
            "/api/v3/depth": (_depth_weight, self._depth),
            "/api/v3/trades": (lambda _: 25, self._recent_trades),
            "/api/v3/historicalTrades": (lambda _: 25, self._historical_trades),
            "/api/v3/aggTrades": (lambda _: 4, self._aggregate_trades),
        }
        super().__init__(products, host, limits, calls)

    def too_much(self) -> str:
        limit = self.limits.weight_per_minute
        return f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE."

    def banned(self, until_ms: int) -> str:
        return f"Way too much request weight used; IP banned until {until_ms}."

    def _time(self, request: RestRequest) -> dict[str, int]:
        return {"serverTime": self.host.now_ns() // _unit_ns(request)}

    def _exchange_info(self, request: RestRequest) -> dict[str, Any]:
        query = request.query
        with_permissions = query.get("showPermissionSets", "true") != "false"
        products = self._asked_products(query)
        status = query.get("symbolStatus", "TRADING")
        if status != "TRADING":
            if "symbol" in query or "symbols" in query:
                raise CallError(-1220, "The symbol's status does not match the requested symbolStatus.")
            products = []
        return {
            "timezone": "UTC",
            "serverTime": self.host.now_ns() // _unit_ns(request),
            "rateLimits": RATE_LIMITS,
            "exchangeFilters": [],
            "symbols": [_symbol(product, with_permissions) for product in products],
        }

    def _asked_products(self, query: Mapping[str, str]) -> list[Product]:
        if "symbols" in query:
            try:
                symbols = json.loads(query["symbols"])
            except json.JSONDecodeError as error:
                raise CallError(-1100, "Illegal characters found in parameter 'symbols'.") from error
        elif "symbol" in query:
            symbols = [query["symbol"]]
        else:
            return list(self.products.values())
        if not isinstance(symbols, list) or not all(symbol in self.products for symbol in symbols):
            raise CallError(-1121, "Invalid symbol.")
        return [self.products[symbol] for symbol in symbols]

    def _depth(self, request: RestRequest) -> dict[str, Any]:
        product = self.product(request)
        limit = min(_integer(request, "limit", DEFAULT_DEPTH), MAX_DEPTH)
        update_id, bids, asks = stale_depth(product.book, request.snapshot_lag)
        return {
            "lastUpdateId": update_id,
            "bids": [product.row(*level) for level in bids[:limit]],
            "asks": [product.row(*level) for level in asks[:limit]],
        }

    def _recent_trades(self, request: RestRequest) -> list[dict[str, Any]]:
        product = self.product(request)
        trades = list(product.book.trades)[-_trade_limit(request) :]
        return [_trade(product, trade, _unit_ns(request)) for trade in trades]

    def _historical_trades(self, request: RestRequest) -> list[dict[str, Any]]:
        if "fromId" not in request.query:
            return self._recent_trades(request)
        product, first = self.product(request), _integer(request, "fromId", 0)
        trades = [trade for trade in product.book.trades if trade.trade_id >= first]
        return [_trade(product, trade, _unit_ns(request)) for trade in trades[: _trade_limit(request)]]

    def _aggregate_trades(self, request: RestRequest) -> list[dict[str, Any]]:
        product, limit = self.product(request), _trade_limit(request)
        runs = [list(fills) for _, fills in groupby(product.book.trades, lambda trade: trade.run)]
        if "fromId" in request.query:
            first = _integer(request, "fromId", 0)
            chosen = [fills for fills in runs if fills[0].run >= first][:limit]
        else:
            chosen = runs[-limit:]
        return [_aggregate(product, fills, _unit_ns(request)) for fills in chosen]


def _symbol(product: Product, with_permissions: bool) -> dict[str, Any]:
    spec = product.book.spec
    tick = decimal_text(spec.tick, spec.price_exponent, 8)
    step = decimal_text(spec.step, spec.size_exponent, 8)
    filters = [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": decimal_text(spec.reference_price * 100, spec.price_exponent, 8),
            "tickSize": tick,
        },
        {
            "filterType": "LOT_SIZE",
            "minQty": step,
            "maxQty": decimal_text(spec.typical_size * 10**4, spec.size_exponent, 8),
            "stepSize": step,
        },
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        {
            "filterType": "NOTIONAL",
            "minNotional": "5.00000000",
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
    ]
    return {
        "symbol": product.name,
        "status": "TRADING",
        "baseAsset": product.symbol.base,
        "baseAssetPrecision": 8,
        "quoteAsset": product.symbol.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": filters,
        "permissions": [],
        "permissionSets": [["SPOT"]] if with_permissions else [],
    }


def _trade(product: Product, trade: Trade, unit_ns: int) -> dict[str, Any]:
    spec = product.book.spec
    exponent = spec.price_exponent + spec.size_exponent
    return {
        "id": trade.trade_id,
        "price": product.price(trade.price),
        "qty": product.size(trade.size),
        "quoteQty": decimal_text(trade.price * trade.size, exponent, max(8, -exponent)),
        "time": trade.ts_event // unit_ns,
        "isBuyerMaker": trade.aggressor == Aggressor.SELL,
        "isBestMatch": True,
    }


def _aggregate(product: Product, fills: Sequence[Trade], unit_ns: int) -> dict[str, Any]:
    first, last = fills[0], fills[-1]
    return {
        "a": first.run,
        "p": product.price(first.price),
        "q": product.size(sum(fill.size for fill in fills)),
        "f": first.trade_id,
        "l": last.trade_id,
        "T": last.ts_event // unit_ns,
        "m": first.aggressor == Aggressor.SELL,
        "M": True,
    }


def _depth_weight(request: RestRequest) -> int:
    text = request.query.get("limit", str(DEFAULT_DEPTH))
    limit = int(text) if text.isdecimal() else DEFAULT_DEPTH
    return next((weight for most, weight in DEPTH_WEIGHTS if limit <= most), DEPTH_WEIGHTS[-1][1])


def _trade_limit(request: RestRequest) -> int:
    return min(_integer(request, "limit", DEFAULT_TRADES), MAX_TRADES)


def _integer(request: RestRequest, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or len(text) > 20:
        raise CallError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


def _unit_ns(request: RestRequest) -> int:
    micro = request.headers.get("x-mbx-time-unit", "").upper() == "MICROSECOND"
    return 1_000 if micro else 1_000_000
