"""OKX v5's REST calls, the venue's side: lists of instruments, book snapshots, the time, and their limits.

The REST half of ``okx.py``, from the same documentation. Every answer is ``{"code":"0","msg":"","data":[…]}``; a code
other than "0" is an error. Who sends no User-Agent gets 403::

    GET /api/v5/public/instruments?instType=SWAP
    GET /api/v5/market/books?instId=BTC-USDT&sz=400
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from mdring.adapters.emulators.okx_streams import Product
from mdring.emulator.limits import RollingLimit
from mdring.emulator.venue import Host, RestRequest, RestResponse, stale_depth
from mdring.symbol import Product as Kind

TYPES: Final = ("SPOT", "MARGIN", "SWAP", "FUTURES", "OPTION", "EVENTS")
MAX_LEVELS: Final = 400
WINDOW_NS: Final = 2 * 10**9
LISTS_PER_WINDOW: Final = 20  # per address and type
BOOKS_PER_WINDOW: Final = 40  # per address


class CallError(Exception):
    """The call is answered by an error object. 50011 comes with HTTP 429, the others with 400."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class OkxRest:
    """All REST calls over the products of a venue. ``answer`` is the only entry."""

    def __init__(self, products: Mapping[str, Product], host: Host) -> None:
        self._products = products
        self._host = host
        self._limits: dict[tuple[str, str], RollingLimit] = {}
        self._calls: dict[str, Callable[[RestRequest], list[Any]]] = {
            "/api/v5/public/instruments": self._instruments,
            "/api/v5/market/books": self._books,
            "/api/v5/public/time": lambda _: [{"ts": str(self._host.now_ns() // 10**6)}],
        }

    def answer(self, request: RestRequest) -> RestResponse:
        """Answer a call, or refuse it."""
        if not request.headers.get("user-agent"):
            return RestResponse(403, b"")
        call = self._calls.get(request.path)
        if call is None:
            return RestResponse(404, b'{"code":"404","data":[],"msg":"Not Found"}')
        headers = {"Content-Type": "application/json"}
        try:
            answer = {"code": "0", "data": call(request), "msg": ""}
        except CallError as error:
            status = 429 if error.code == "50011" else 400
            return RestResponse(status, _encode({"code": error.code, "data": [], "msg": str(error)}), headers)
        return RestResponse(200, _encode(answer), headers)

    def _spend(self, client: str, what: str, count: int) -> None:
        limit = self._limits.setdefault((client, what), RollingLimit(count, WINDOW_NS))
        if not limit.allows(self._host.now_ns()):
            raise CallError("50011", "Too Many Requests")

    def _instruments(self, request: RestRequest) -> list[Any]:
        kind = request.query.get("instType", "")
        if kind not in TYPES:
            raise CallError("51000", "Parameter instType error")
        if kind == "OPTION" and not request.query.get("instFamily"):
            raise CallError("50014", "Parameter instFamily can not be empty.")
        self._spend(request.client, kind, LISTS_PER_WINDOW)
        return [instrument_row(product) for product in self._products.values() if product.kind == kind]

    def _books(self, request: RestRequest) -> list[Any]:
        self._spend(request.client, "books", BOOKS_PER_WINDOW)
        product = self._products.get(request.query.get("instId", ""))
        if product is None:
            raise CallError("51001", "Instrument ID does not exist")
        size = request.query.get("sz", "1")
        if not (size.isascii() and size.isdecimal()) or not 0 < int(size) <= MAX_LEVELS:
            raise CallError("51000", "Parameter sz error")
        update_id, bids, asks = stale_depth(product.book, request.snapshot_lag)
        return [
            {
                "asks": [product.row(*level) for level in asks[: int(size)]],
                "bids": [product.row(*level) for level in bids[: int(size)]],
                "ts": str(self._host.now_ns() // 10**6),
                "seqId": update_id,
            }
        ]


def instrument_row(product: Product) -> dict[str, Any]:
    """One row of the list, with the keys of the documentation. What a type has not is ""."""
    symbol, spec = product.symbol, product.book.spec
    is_spot = symbol.is_spot
    return {
        "instType": product.kind,
        "instId": product.name,
        "uly": "" if is_spot else f"{symbol.base}-{symbol.quote}",
        "instFamily": "" if is_spot else f"{symbol.base}-{symbol.quote}",
        "baseCcy": symbol.base if is_spot else "",
        "quoteCcy": symbol.quote if is_spot else "",
        "settleCcy": symbol.settle,
        "ctVal": product.contract_value,
        "ctMult": "" if is_spot else "1",
        "ctValCcy": "" if is_spot else (symbol.quote if symbol.is_inverse else symbol.base),
        "ctType": "" if is_spot else ("inverse" if symbol.is_inverse else "linear"),
        "optType": "",
        "stk": "",
        "listTime": "1611916828000",
        "expTime": product.expiry_ms if symbol.product is Kind.FUTURE else "",
        "lever": "10",
        "tickSz": product.price(spec.tick),
        "lotSz": product.size(spec.step),
        "minSz": product.size(spec.step),
        "state": "live",
        "instIdCode": 10_000 + product.book.index,
        "upcChg": [],
    }


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
