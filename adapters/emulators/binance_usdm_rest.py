"""Binance futures' REST calls, the venue's side: contracts, books, open interest, premium index, weights and bans.

The REST part of ``binance_usdm.py``, from the same documentation. How weights are counted, and what becomes of who
spends too much, is that of ``mdring/emulator/weighed_calls.py``::

    GET /fapi/v1/depth?symbol=BTCUSDT&limit=5
    {"lastUpdateId":1027024,"E":1589436922972,"T":1589436922959,"bids":[["4.00000000","431.00000000"]],"asks":[…]}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mdring.adapters.emulators.binance_usdm_streams import Product, eight, engine_id
from mdring.emulator.instruments import decimal_text
from mdring.emulator.venue import Host, RestRequest, stale_depth
from mdring.emulator.weighed_calls import Call, CallError, WeighedCalls, WeightLimits

DEPTH_WEIGHTS: Final = {5: 2, 10: 2, 20: 2, 50: 2, 100: 5, 500: 10, 1000: 20}
"""By limit; there are no others."""
DEFAULT_DEPTH: Final = 500


class BinanceUsdmRest(WeighedCalls[Product]):
    """All REST calls over the products of the venue."""

    def __init__(self, products: Mapping[str, Product], host: Host, limits: WeightLimits, coin_margined: bool) -> None:
        base = "/dapi/v1" if coin_margined else "/fapi/v1"
        calls: dict[str, Call] = {
            f"{base}/ping": (lambda _: 1, lambda _: {}),
            f"{base}/time": (lambda _: 1, lambda _: {"serverTime": self.now_ms()}),
            f"{base}/exchangeInfo": (lambda _: 1, self._exchange_info),
            f"{base}/depth": (_depth_weight, self._depth),
            f"{base}/openInterest": (lambda _: 1, self._open_interest),
            f"{base}/premiumIndex": (lambda request: 1 if "symbol" in request.query else 10, self._premium_index),
            f"{base}/fundingInfo": (lambda _: 0, lambda _: []),  # all contracts pay every 8 hours
        }
        super().__init__(products, host, limits, calls)

    def too_much(self) -> str:
        return f"Too many requests; current limit is {self.limits.weight_per_minute} requests per minute."

    def banned(self, until_ms: int) -> str:
        return f"Way too many requests; IP banned until {until_ms}."

    def _exchange_info(self, request: RestRequest) -> dict[str, Any]:
        limit = self.limits.weight_per_minute
        return {
            "timezone": "UTC",
            "serverTime": self.now_ms(),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limit},
                {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
            ],
            "exchangeFilters": [],
            "symbols": [contract_row(product) for product in self.products.values()],
        }

    def _depth(self, request: RestRequest) -> dict[str, Any]:
        product, limit = self.product(request), _limit(request)
        if limit not in DEPTH_WEIGHTS:
            raise CallError(-1130, "Data sent for parameter 'limit' is not valid.")
        update_id, bids, asks = stale_depth(product.book, request.snapshot_lag)
        whose = {"symbol": product.name, "pair": product.pair} if product.coin_margined else {}
        return {
            "lastUpdateId": engine_id(update_id),
            **whose,
            "E": self.now_ms(),
            "T": product.changed_ms,
            "bids": [product.row(*level) for level in bids[:limit]],
            "asks": [product.row(*level) for level in asks[:limit]],
        }

    def _open_interest(self, request: RestRequest) -> dict[str, Any]:
        product = self.product(request)
        return {"openInterest": product.open_interest(), "symbol": product.name, "time": self.now_ms()}

    def _premium_index(self, request: RestRequest) -> Any:
        if "symbol" in request.query:
            return self._premium(self.product(request))
        return [self._premium(product) for product in self.products.values()]

    def _premium(self, product: Product) -> dict[str, Any]:
        index = eight(product.contract.index_price())
        return {
            "symbol": product.name,
            "markPrice": eight(product.contract.mark_price()),
            "indexPrice": index,
            "estimatedSettlePrice": index,
            "lastFundingRate": product.funding_rate(),
            "interestRate": "0.00010000" if product.is_perpetual else "",
            "nextFundingTime": product.next_funding_ms(),
            "time": self.now_ms(),
        }


def contract_row(product: Product) -> dict[str, Any]:
    """One row of the list, with the keys of the documentation."""
    spec, symbol = product.book.spec, product.symbol
    tick = product.price(spec.tick)
    step = product.size(spec.step)
    highest = decimal_text(spec.reference_price * 100, spec.price_exponent)
    largest = product.size(spec.typical_size * 10**4)
    state: dict[str, Any] = {"status": "TRADING"}
    if product.coin_margined:
        state = {"contractStatus": "TRADING", "contractSize": product.contract_size}
    return {
        "symbol": product.name,
        "pair": product.pair,
        "contractType": "PERPETUAL" if product.is_perpetual else "CURRENT_QUARTER",
        "deliveryDate": product.delivery_ms,
        "onboardDate": 1_569_398_400_000,
        **state,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": symbol.base,
        "quoteAsset": symbol.quote,
        "marginAsset": symbol.settle,
        "pricePrecision": product.price_decimals,
        "quantityPrecision": product.size_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": ["PoW"],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": highest, "tickSize": tick},
            {"filterType": "MARKET_LOT_SIZE", "minQty": step, "maxQty": product.size(spec.typical_size * 10**3),
             "stepSize": step},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": largest, "stepSize": step},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {"filterType": "PERCENT_PRICE", "multiplierUp": "1.0500", "multiplierDown": "0.9500",
             "multiplierDecimal": "4"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD", "RPI"],
    }  # fmt: skip


def _limit(request: RestRequest) -> int:
    text = request.query.get("limit", str(DEFAULT_DEPTH))
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1


def _depth_weight(request: RestRequest) -> int:
    return DEPTH_WEIGHTS.get(_limit(request), 1)
