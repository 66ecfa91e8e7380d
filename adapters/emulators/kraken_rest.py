"""Kraken Spot's REST calls, the venue's side: the list of pairs, book and trades of one, the time, the state.

The REST half of ``kraken.py``, from the same documentation. Every answer is ``{"error":[…],"result":…}`` with HTTP 200,
errors too. Names are those of old: XBT is BTC, XDG is DOGE, and a pair is known by its key, its ``altname`` or its
``wsname``. Each pair in dollars has a dark pool beside it, which has no ``wsname``::

    GET /0/public/AssetPairs
    GET /0/public/Depth?pair=XBTUSD&count=100
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from mdring.adapters.emulators.kraken_streams import LOTS, Product
from mdring.emulator.limits import RollingLimit
from mdring.emulator.venue import Host, RestRequest, RestResponse, stale_depth
from mdring.record import Aggressor

SECOND: Final = 10**9
PREFIX: Final = "/0/public/"
MAX_LEVELS: Final = 500
MAX_TRADES: Final = 1000
OLD_NAMES: Final[Mapping[str, str]] = {"BTC": "XBT", "DOGE": "XDG"}
LONG_NAMES: Final[Mapping[str, str]] = {
    "XBT": "XXBT", "ETH": "XETH", "LTC": "XLTC", "XRP": "XXRP", "XDG": "XXDG", "USD": "ZUSD", "EUR": "ZEUR",
}  # fmt: skip


class CallError(Exception):
    """The call is answered by this error."""


class KrakenRest:
    """All REST calls over the products of a venue. ``answer`` is the only entry."""

    def __init__(self, products: Mapping[str, Product], host: Host, calls_per_10s: int) -> None:
        pairs = [PairNames(product) for product in products.values()]
        self._names = {name: pair for pair in pairs for name in (pair.key, pair.altname, pair.wsname)}
        self._host = host
        self._calls_per_10s = calls_per_10s
        self._limits: dict[str, RollingLimit] = {}
        self._calls: dict[str, Callable[[RestRequest], Any]] = {
            "AssetPairs": self._asset_pairs,
            "Depth": self._depth,
            "Trades": self._trades,
            "Time": lambda _: {"unixtime": self._host.now_ns() // SECOND},
            "SystemStatus": lambda _: {"status": "online", "upcoming_maintenance": [], "emergency": []},
        }

    def answer(self, request: RestRequest) -> RestResponse:
        """Answer a call, or refuse it."""
        call = self._calls.get(request.path.removeprefix(PREFIX)) if request.path.startswith(PREFIX) else None
        if call is None:
            return _response(404, {"error": ["EGeneral:Unknown method"]})
        limit = self._limits.setdefault(request.client, RollingLimit(self._calls_per_10s, 10 * SECOND))
        if not limit.allows(self._host.now_ns()):
            return _response(200, {"error": ["EAPI:Rate limit exceeded"]})
        try:
            return _response(200, {"error": [], "result": call(request)})
        except CallError as error:
            return _response(200, {"error": [str(error)]})

    def _pair(self, name: str) -> PairNames:
        if name not in self._names:
            raise CallError("EQuery:Unknown asset pair")
        return self._names[name]

    def _asset_pairs(self, request: RestRequest) -> dict[str, Any]:
        asked = request.query.get("pair")
        pairs = [self._pair(name) for name in asked.split(",")] if asked else dict.fromkeys(self._names.values())
        rows: dict[str, Any] = {}
        for pair in pairs:
            rows[pair.key] = pair.row()
            if pair.product.symbol.quote == "USD":
                dark = {**pair.row(), "altname": f"{pair.altname}.d"}
                del dark["wsname"]
                rows[f"{pair.key}.d"] = dark
        return rows

    def _depth(self, request: RestRequest) -> dict[str, Any]:
        pair = self._pair(request.query.get("pair", ""))
        count = request.query.get("count", "100")
        if not (count.isascii() and count.isdecimal()) or not 1 <= int(count) <= MAX_LEVELS:
            raise CallError("EGeneral:Invalid arguments:count")
        product, now_s = pair.product, self._host.now_ns() // SECOND
        _, bids, asks = stale_depth(product.book, request.snapshot_lag)
        sides = {"asks": asks[: int(count)], "bids": bids[: int(count)]}
        return {
            pair.key: {
                side: [[product.price(price), product.size(size), now_s] for price, size in levels]
                for side, levels in sides.items()
            }
        }

    def _trades(self, request: RestRequest) -> dict[str, Any]:
        """``since`` is a time in ns; ``last`` where to go on."""
        pair = self._pair(request.query.get("pair", ""))
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdecimal()):
            raise CallError("EGeneral:Invalid arguments:since")
        product = pair.product
        trades = [trade for trade in product.book.trades if trade.ts_event > int(since)][:MAX_TRADES]
        rows = [
            [
                product.price(trade.price),
                product.size(trade.size),
                trade.ts_event / SECOND,
                "s" if trade.aggressor == Aggressor.SELL else "b",
                "m",
                "",
                trade.trade_id,
            ]
            for trade in trades
        ]
        return {pair.key: rows, "last": str(trades[-1].ts_event if trades else int(since))}


class PairNames:
    """A product under the names that it has here."""

    def __init__(self, product: Product) -> None:
        self.product = product
        base, quote = (OLD_NAMES.get(one, one) for one in (product.symbol.base, product.symbol.quote))
        self.base, self.quote = LONG_NAMES.get(base, base), LONG_NAMES.get(quote, quote)
        self.altname = base + quote
        self.wsname = f"{base}/{quote}"
        self.key = self.base + self.quote if {base, quote} <= LONG_NAMES.keys() else self.altname

    def row(self) -> dict[str, Any]:
        """One row of the list: numbers of decimals are numbers, amounts are text."""
        spec = self.product.book.spec
        return {
            "altname": self.altname,
            "wsname": self.wsname,
            "aclass_base": "currency",
            "base": self.base,
            "aclass_quote": "currency",
            "quote": self.quote,
            "lot": "unit",
            "cost_decimals": 5,
            "pair_decimals": self.product.price_decimals,
            "lot_decimals": LOTS,
            "lot_multiplier": 1,
            "ordermin": self.product.size(spec.step),
            "costmin": "0.5",
            "tick_size": self.product.price(spec.tick),
            "status": "online",
        }


def _response(status: int, answer: Any) -> RestResponse:
    body = json.dumps(answer, separators=(",", ":")).encode()
    return RestResponse(status, body, {"Content-Type": "application/json"})
