"""Coinbase Exchange's REST calls, the venue's side: products, books, trades, the time, and their limit.

The REST half of ``coinbase.py``, from the same documentation. Who sends no User-Agent is refused, who asks too often
gets 429; every error is ``{"message":…}``::

    GET /products
    GET /products/BTC-USD/book?level=2
    GET /products/BTC-USD/trades?limit=100&after=74
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from mdring.adapters.emulators.coinbase_streams import Product, encode, maker_side
from mdring.emulator.limits import RollingLimit
from mdring.emulator.text import rfc3339
from mdring.emulator.venue import Host, RestRequest, RestResponse, stale_depth

MAX_TRADES: Final = 1000
SECOND: Final = 1_000_000_000


class CallError(Exception):
    """The call is answered by this HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class CoinbaseRest:
    """All REST calls over the products of a venue. ``answer`` is the only entry of calls."""

    def __init__(self, products: Mapping[str, Product], host: Host, per_second: int, burst: int) -> None:
        self._products = products
        self._host = host
        self._burst = burst
        self._period_ns = burst * SECOND // per_second
        self._limits: dict[str, RollingLimit] = {}

    def answer(self, request: RestRequest) -> RestResponse:
        """Answer a call, or refuse it."""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        try:
            answer = self._call(request)
        except CallError as error:
            return RestResponse(error.status, encode({"message": str(error)}), headers)
        return RestResponse(200, encode(answer), headers)

    def status_message(self) -> bytes:
        """``{"type":"status","products":[…],"currencies":[…]}``"""
        currencies = sorted({asset for one in self._products.values() for asset in one.name.split("-")})
        return encode(
            {
                "type": "status",
                "currencies": [currency_row(code) for code in currencies],
                "products": [product_row(product) for product in self._products.values()],
            }
        )

    def _call(self, request: RestRequest) -> Any:
        if not request.headers.get("user-agent"):
            raise CallError(400, "User-Agent header is required.")
        limit = self._limits.setdefault(request.client, RollingLimit(self._burst, self._period_ns))
        if not limit.allows(self._host.now_ns()):
            raise CallError(429, "Public rate limit exceeded")
        match request.path.strip("/").split("/"):
            case ["products"]:
                return [rest_row(product) for product in self._products.values()]
            case ["products", name]:
                return rest_row(self._product(name))
            case ["products", name, "book"]:
                return self._book(self._product(name), request)
            case ["products", name, "trades"]:
                return self._trades(self._product(name), request)
            case ["time"]:
                now_ns = self._host.now_ns()
                return {"iso": rfc3339(now_ns), "epoch": now_ns // 1000 / 1e6}
        raise CallError(404, "NotFound")

    def _product(self, name: str) -> Product:
        if name not in self._products:
            raise CallError(404, "NotFound")
        return self._products[name]

    def _book(self, product: Product, request: RestRequest) -> dict[str, Any]:
        """Level 1 is the best of each side, 2 all levels with their number of orders (made up), 3 all orders."""
        level = request.query.get("level", "1")
        if level not in ("1", "2", "3"):
            raise CallError(400, "Invalid level")
        _, bids, asks = stale_depth(product.book, request.snapshot_lag)
        depth = 1 if level == "1" else None

        def rows(levels: list[tuple[int, int]]) -> list[list[Any]]:
            told = levels[:depth]
            if level == "3":
                return [[*product.row(*one), f"00000000-0000-4000-8000-{one[0]:012x}"] for one in told]
            return [[*product.row(*one), 1 + one[1] % 7] for one in told]

        return {
            "bids": rows(bids),
            "asks": rows(asks),
            "sequence": product.sequence - request.snapshot_lag,
            "auction_mode": False,
            "auction": None,
            "time": rfc3339(self._host.now_ns()),
        }

    def _trades(self, product: Product, request: RestRequest) -> list[dict[str, Any]]:
        """The newest first. ``after`` is for the page of older ones, ``before`` for that of newer ones."""
        limit, before, after = (_whole(request, name) for name in ("limit", "before", "after"))
        chosen = [
            trade
            for trade in reversed(product.book.trades)
            if (after is None or trade.trade_id < after) and (before is None or trade.trade_id > before)
        ]
        return [
            {
                "trade_id": trade.trade_id,
                "side": maker_side(trade),
                "size": product.padded_size(trade.size),
                "price": product.price(trade.price),
                "time": rfc3339(trade.ts_event),
            }
            for trade in chosen[: min(limit or MAX_TRADES, MAX_TRADES)]
        ]


def product_row(product: Product) -> dict[str, Any]:
    """A product as the channel ``status`` tells it."""
    spec = product.book.spec
    return {
        "id": product.name,
        "base_currency": spec.base,
        "quote_currency": spec.quote,
        "base_increment": product.padded_size(spec.step),
        "quote_increment": product.price(spec.tick),
        "display_name": product.name,
        "status": "offline" if product.is_halted else "online",
        "status_message": None,
        "min_market_funds": "1",
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
        "fx_stablecoin": False,
    }


def rest_row(product: Product) -> dict[str, Any]:
    """A product as REST tells it."""
    return {
        **product_row(product),
        "status_message": "",
        "margin_enabled": False,
        "trading_disabled": product.is_halted,
        "auction_mode": False,
        "max_slippage_percentage": "0.02000000",
        "high_bid_limit_percentage": "",
    }


def currency_row(code: str) -> dict[str, Any]:
    """A currency as the channel ``status`` tells it."""
    return {
        "id": code,
        "name": code,
        "min_size": "0.00000001",
        "status": "online",
        "status_message": None,
        "max_precision": "0.00000001",
        "convertible_to": [],
        "details": {},
    }


def _whole(request: RestRequest, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise CallError(400, f"invalid {name}")
    return int(text)
