"""Bybit v5's REST calls, the venue's side: lists of instruments, book snapshots, the time, and their limit.

The REST half of ``bybit.py``, from the same documentation. Every answer has HTTP 200 and ``retCode``, which is 0 or the
number of an error; only who calls too often gets 403::

    GET /v5/market/instruments-info?category=linear&limit=1000
    GET /v5/market/orderbook?category=spot&symbol=BTCUSDT&limit=50
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from mdring.adapters.emulators.bybit_streams import Product
from mdring.emulator.derivatives import FUNDING_INTERVAL_MS
from mdring.emulator.limits import RollingLimit
from mdring.emulator.text import delivery_ms
from mdring.emulator.venue import Host, RestRequest, RestResponse, stale_depth
from mdring.symbol import Product as Kind

WINDOW_NS: Final = 5 * 10**9
MAX_LEVELS: Final = 1000
CATEGORIES: Final = ("spot", "linear", "inverse", "option")
ROWS: Final = 500
"""Of a page, if the call does not say."""
LEVELS: Final = {"spot": 1, "linear": 25}
"""Likewise of a book."""


class CallError(Exception):
    """The call is answered by an error. 10001: a parameter is wrong."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class BybitRest:
    """All REST calls over the products of a venue. ``answer`` is the only entry."""

    def __init__(self, products: Sequence[Product], host: Host, page_rows: int, calls_per_window: int) -> None:
        self._products = products
        self._host = host
        self._page_rows = page_rows
        self._calls_per_window = calls_per_window
        self._limits: dict[str, RollingLimit] = {}
        self._calls: dict[str, Callable[[RestRequest], dict[str, Any]]] = {
            "/v5/market/instruments-info": self._instruments,
            "/v5/market/orderbook": self._book,
            "/v5/market/time": self._time,
        }

    def answer(self, request: RestRequest) -> RestResponse:
        """Answer a call, or refuse it."""
        limit = self._limits.setdefault(request.client, RollingLimit(self._calls_per_window, WINDOW_NS))
        if not limit.allows(self._host.now_ns()):
            return RestResponse(403, b"access too frequent")
        call = self._calls.get(request.path)
        if call is None:
            return RestResponse(404, b"")
        code, message, result = 0, "OK", {}
        try:
            result = call(request)
        except CallError as error:
            code, message = error.code, str(error)
        now_ms = self._host.now_ns() // 10**6
        body = {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ms}
        return RestResponse(200, json.dumps(body, separators=(",", ":")).encode(), {"Content-Type": "application/json"})

    def _instruments(self, request: RestRequest) -> dict[str, Any]:
        """Pairs come all at once; contracts in pages, whose cursor is the number of rows before it."""
        category = _category(request)
        rows = [instrument_row(product) for product in self._products if product.category == category]
        if category == "spot":
            return {"category": category, "list": rows}
        count = min(_number(request, "limit", ROWS), self._page_rows)
        cursor = request.query.get("cursor", "").removeprefix("first=") or "0"
        if not (cursor.isascii() and cursor.isdecimal()):
            raise CallError(10001, "params error: cursor invalid")
        first = int(cursor)
        following = f"first={first + count}" if first + count < len(rows) else ""
        return {"category": category, "list": rows[first : first + count], "nextPageCursor": following}

    def _book(self, request: RestRequest) -> dict[str, Any]:
        category, symbol = _category(request), request.query.get("symbol", "")
        named = [one for one in self._products if (one.category, one.code) == (category, symbol)]
        if not named:
            raise CallError(10001, "params error: symbol invalid")
        (product,) = named
        count = _number(request, "limit", LEVELS[category])
        seq, bids, asks = stale_depth(product.book, request.snapshot_lag)
        now_ms = self._host.now_ns() // 10**6
        return {
            "s": symbol,
            "a": [product.row(*level) for level in asks[:count]],
            "b": [product.row(*level) for level in bids[:count]],
            "ts": now_ms,
            "u": product.books[MAX_LEVELS].update_id,
            "seq": seq,
            "cts": now_ms,
        }

    def _time(self, request: RestRequest) -> dict[str, Any]:
        now_ns = self._host.now_ns()
        return {"timeSecond": str(now_ns // 10**9), "timeNano": str(now_ns)}


def _category(request: RestRequest) -> str:
    category = request.query.get("category", "")
    if category not in CATEGORIES:
        raise CallError(10001, "params error: Category is invalid")
    return category


def _number(request: RestRequest, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal()) or not 0 < int(text) <= 1000:
        raise CallError(10001, f"params error: {name} invalid")
    return int(text)


def instrument_row(product: Product) -> dict[str, Any]:
    """One row of the list, with the keys of the documentation."""
    symbol, spec = product.symbol, product.book.spec
    tick, step = product.price(spec.tick), product.size(spec.step)
    row = {
        "symbol": product.code,
        "baseCoin": symbol.base,
        "quoteCoin": symbol.quote,
        "status": "Trading",
        "symbolType": "",
        "symbolId": 10_000 + product.book.index,
    }
    if product.is_spot:
        lot = {"basePrecision": step, "quotePrecision": "0.00000001", "minOrderQty": step, "maxOrderQty": "1000000"}
        lot |= {"minOrderAmt": "5", "maxOrderAmt": "8000000"}
        return {
            **row,
            "innovation": "0",
            "marginTrading": "none",
            "lotSizeFilter": lot,
            "priceFilter": {"tickSize": tick},
        }
    is_future = symbol.product is Kind.FUTURE
    return {
        **row,
        "contractType": "LinearFutures" if is_future else "LinearPerpetual",
        "launchTime": "1585526400000",
        "deliveryTime": str(delivery_ms(symbol.expiry)) if is_future else "0",
        "deliveryFeeRate": "0.0005" if is_future else "",
        "priceScale": str(-spec.price_exponent),
        "priceFilter": {"minPrice": tick, "maxPrice": "1999999.80", "tickSize": tick},
        "lotSizeFilter": {"minOrderQty": step, "maxOrderQty": "1000000", "qtyStep": step, "minNotionalValue": "5"},
        "unifiedMarginTrade": True,
        "fundingInterval": 0 if is_future else FUNDING_INTERVAL_MS // 60_000,
        "settleCoin": symbol.settle,
        "isPreListing": False,
        "preListingInfo": None,
    }
