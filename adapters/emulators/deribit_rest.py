"""Deribit's methods without a subscription, the venue's side: instruments, books, the time; and the credits they cost.

The request half of ``deribit.py``, from the same documentation. Each is both a request on the socket and a GET call::

    {"jsonrpc":"2.0","id":1,"method":"public/get_instruments","params":{"currency":"BTC","kind":"future"}}
    GET /api/v2/public/get_instruments?currency=BTC&kind=future

An answer is ``{"jsonrpc":"2.0","id":1,"result":…,"usIn":…,"usOut":…,"usDiff":…,"testnet":false}``. An error has
``error`` in place of ``result``, and as a call the status 400.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw

from mdring.emulator.text import delivery_ms
from mdring.emulator.venue import Host, RestRequest, RestResponse, stale_depth
from mdring.symbol import Product as Kind
from mdring.symbol import plain_decimal

if TYPE_CHECKING:
    from mdring.adapters.emulators.deribit import Product

PREFIX: Final = "/api/v2/"
VERSION: Final = "1.2.26"
CURRENCIES: Final = ("BTC", "ETH", "USDC", "USDT", "EURR")
KINDS: Final = ("future", "option", "spot", "future_combo", "option_combo")
DEPTHS: Final = (1, 5, 10, 20, 50, 100, 1000, 10000)
NEVER_MS: Final = 32_503_708_800_000
"""When a perpetual expires: in the year 3000."""
SMALL: Final = Decimal("0.001")
BLOCK_PARTS: Final = 50
"""The price of a block trade may be so much finer than a tick."""


class RpcError(Exception):
    """The request is answered by an error object; the connection stays open."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.data = data

    def as_object(self) -> dict[str, Any]:
        """``{"message":"Invalid params","data":{"reason":"value must be a list","param":"channels"},"code":-32602}``"""
        data = {} if self.data is None else {"data": self.data}
        return {"code": self.code, **data, "message": str(self)}


def invalid(parameter: str, reason: str) -> RpcError:
    """A parameter is of no use."""
    return RpcError(-32602, "Invalid params", {"reason": reason, "param": parameter})


class CreditPool:
    """Credits that requests cost and that come back at a steady rate."""

    def __init__(self, most: int, per_second: int) -> None:
        self._most = most
        self._per_second = per_second
        self._credits = float(most)
        self._counted_ns = 0

    def spend(self, cost: int, now_ns: int) -> None:
        """Raises RpcError (10028) if there are too few."""
        gained = (now_ns - self._counted_ns) / 1e9 * self._per_second if self._counted_ns else 0.0
        self._credits = min(self._credits + gained, self._most)
        self._counted_ns = now_ns
        if self._credits < cost:
            raise RpcError(10028, "too_many_requests")
        self._credits -= cost


class Pools:
    """The pools of one client: subscriptions and lists of instruments have their own."""

    def __init__(self) -> None:
        self.usual = CreditPool(50_000, 10_000)
        self.subscriptions = CreditPool(30_000, 10_000)
        self.lists = CreditPool(500_000, 10_000)

    def spend(self, method: str, now_ns: int) -> None:
        """One request. Raises RpcError."""
        if method in ("public/subscribe", "public/unsubscribe"):
            self.subscriptions.spend(3_000, now_ns)
        elif method == "public/get_instruments":
            self.lists.spend(10_000, now_ns)
        else:
            self.usual.spend(500, now_ns)


class DeribitMethods:
    """All methods over the products of a venue. ``call`` is the only entry."""

    def __init__(self, products: Mapping[str, Product], host: Host) -> None:
        self._products = products
        self._host = host
        self._methods: dict[str, Callable[[Mapping[str, Any], int], Any]] = {
            "public/get_instruments": lambda params, _: self._instruments(params),
            "public/get_instrument": lambda params, _: instrument_row(self._product(params)),
            "public/get_order_book": self._order_book,
            "public/ticker": lambda params, _: Raw(self._product(params).ticker()),
            "public/get_time": lambda *_: self._host.now_ns() // 10**6,
            "public/status": lambda *_: {"locked": "false"},
            "public/test": lambda *_: {"version": VERSION},
        }

    def call(self, method: str, params: Mapping[str, Any], lag: int = 0) -> Any:
        """The result. Raises RpcError."""
        found = self._methods.get(method)
        if found is None:
            raise RpcError(-32601, "Method not found")
        return found(params, lag)

    def _product(self, params: Mapping[str, Any]) -> Product:
        product = self._products.get(str(params.get("instrument_name", "")))
        if product is None:
            raise RpcError(10020, "invalid_or_unsupported_instrument")
        return product

    def _instruments(self, params: Mapping[str, Any]) -> list[Any]:
        currency, kind = params.get("currency"), params.get("kind")
        if currency not in (*CURRENCIES, "any"):
            raise invalid("currency", "value must be one of the list: BTC, ETH, USDC, USDT, EURR, any")
        if kind not in (*KINDS, None):
            raise invalid("kind", "value must be one of the list: " + ", ".join(KINDS))
        return [
            instrument_row(product)
            for product in self._products.values()
            if currency in ("any", product.currency) and kind in (None, product.kind)
        ]

    def _order_book(self, params: Mapping[str, Any], lag: int) -> dict[str, Any]:
        product = self._product(params)
        depth = str(params.get("depth", "20"))
        if depth not in {str(one) for one in DEPTHS}:
            raise invalid("depth", "value must be one of the list: " + ", ".join(map(str, DEPTHS)))
        update_id, bids, asks = stale_depth(product.book, lag)
        return {
            **msgspec.json.decode(product.ticker(), type=dict[str, Raw]),
            "change_id": product.change_id(update_id),
            "bids": [[Raw(text) for text in product.row(*level)] for level in bids[: int(depth)]],
            "asks": [[Raw(text) for text in product.row(*level)] for level in asks[: int(depth)]],
        }


class DeribitRest:
    """The methods as GET calls."""

    def __init__(self, methods: DeribitMethods, host: Host) -> None:
        self._methods = methods
        self._host = host
        self._pools: dict[str, Pools] = {}

    def answer(self, request: RestRequest) -> RestResponse:
        """Answer a call, or refuse it."""
        if not request.path.startswith(PREFIX):
            return RestResponse(404, b"")
        now_ns, method = self._host.now_ns(), request.path.removeprefix(PREFIX)
        try:
            self._pools.setdefault(request.client, Pools()).spend(method, now_ns)
            outcome = {"result": self._methods.call(method, request.query, request.snapshot_lag)}
        except RpcError as error:
            outcome = {"error": error.as_object()}
        body = msgspec.json.encode({"jsonrpc": "2.0", **outcome, **stamps(now_ns, self._host.now_ns())})
        status = 400 if "error" in outcome else 200
        return RestResponse(status, body, {"Content-Type": "application/json"})


def stamps(in_ns: int, out_ns: int) -> dict[str, Any]:
    """When a request came and was answered, in µs."""
    begin, end = in_ns // 1000, out_ns // 1000
    return {"usIn": begin, "usOut": end, "usDiff": end - begin, "testnet": False}


def instrument_row(product: Product) -> dict[str, Any]:
    """One row of the list, with the keys of the documentation; each kind has its own."""
    symbol, spec = product.symbol, product.book.spec
    is_coin_priced = symbol.product is Kind.OPTION and symbol.is_inverse
    lot = Raw(product.size(spec.step))
    row = {
        "tick_size": Raw(product.price(spec.tick)),
        "tick_size_steps": [],
        "taker_commission": 0.0005,
        "quote_currency": symbol.base if is_coin_priced else symbol.quote,
        "price_index": product.index_name,
        "min_trade_amount": lot,
        "maker_commission": 0.0,
        "kind": product.kind,
        "is_active": True,
        "instrument_name": product.name,
        "instrument_id": 10_000 + product.book.index,
        "creation_timestamp": 1_611_916_828_000,
        "counter_currency": symbol.quote,
        "contract_size": lot,
        "base_currency": symbol.base,
        "state": "open",
        "instrument_type": "reversed" if symbol.is_inverse else "linear",
    }
    if symbol.is_spot:
        return row
    row |= {
        "settlement_currency": symbol.settle,
        "settlement_period": "perpetual" if symbol.product is Kind.PERPETUAL else "month",
        "expiration_timestamp": NEVER_MS if symbol.product is Kind.PERPETUAL else delivery_ms(symbol.expiry),
        "block_trade_tick_size": Raw(number(Decimal(product.price(spec.tick)) / BLOCK_PARTS)),
        "block_trade_min_trade_amount": 200_000,
        "block_trade_commission": 0.00025,
    }
    if symbol.product is Kind.OPTION:
        row |= {"strike": Raw(number(Decimal(symbol.strike))), "option_type": "call" if symbol.right == "C" else "put"}
    return row


def number(value: Decimal) -> str:
    """A JSON number as the venue writes it: always with a point, small ones in scientific notation."""
    _, digits, exponent = value.normalize().as_tuple()
    if not value:
        return "0.0"
    if abs(value) < SMALL and isinstance(exponent, int):
        text = "".join(map(str, digits))
        sign = "-" if value < 0 else ""
        return f"{sign}{text[0]}.{text[1:] or '0'}e{exponent + len(text) - 1}"
    text = plain_decimal(str(value))
    return text if "." in text else f"{text}.0"
