"""A bench of Binance futures, and the messages that its tests send."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdring.adapters.binance_usdm import BinanceUsdmAdapter, BinanceUsdmOptions
from mdring.feed.adapter import Endpoints, Fetch, Request, Send, Subscription
from mdring.record import STATUS, DataType, Kind, Reason, State
from tests.adapters.conformance import NOW, Bench, VenueCase

SECOND: Final = 1_000_000_000
HOUR: Final = 3_600 * SECOND
MS: Final = 1_000_000
EVERYTHING: Final = BinanceUsdmAdapter.data_types
BOOK: Final = (DataType.BOOK,)
COIN_M: Final = Endpoints("wss://dstream.binance.com/stream", "https://dapi.binance.com/dapi/v1")


def contract(symbol: str, kind: str, base: str, quote: str, tick: str, step: str, **more: Any) -> dict[str, Any]:
    """A row of the list, cut to what is read."""
    largest = more.pop("largest", "1000")
    return {
        "symbol": symbol,
        "pair": base + quote,
        "contractType": kind,
        "deliveryDate": 4_133_404_800_000,
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": quote,
        "marginAsset": quote,
        "pricePrecision": 2,
        "quantityPrecision": 3,
        "filters": [
            {"filterType": "MARKET_LOT_SIZE", "minQty": step, "maxQty": "120", "stepSize": "7"},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": largest, "stepSize": step},
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "4529764", "tickSize": tick},
        ],
        **more,
    }


CONTRACTS: Final = [
    contract("BTCUSDT", "PERPETUAL", "BTC", "USDT", "0.10", "0.001"),
    contract("SUSHIUSDT", "PERPETUAL", "SUSHI", "USDT", "0.0010", "1", largest="1000000"),
    contract("1000PEPEUSDT", "PERPETUAL", "1000PEPE", "USDT", "0.0000001", "1", largest="50000000000"),
    contract("BTCUSDT_261225", "CURRENT_QUARTER", "BTC", "USDT", "0.1", "0.001", deliveryDate=1_798_185_600_000),
    contract("XAUUSDT", "TRADIFI_PERPETUAL", "XAU", "USDT", "0.01", "0.001"),
    contract("SOONUSDT", "", "SOON", "USDT", "0.01", "1", status="PENDING_TRADING"),
]
COIN_CONTRACTS: Final = [
    {
        key: value
        for key, value in contract(
            symbol,
            kind,
            "BTC",
            "USD",
            "0.1",
            "1",
            marginAsset="BTC",
            contractSize=100,
            contractStatus="TRADING",
            **more,
        ).items()
        if key != "status"
    }
    for symbol, kind, more in [
        ("BTCUSD_PERP", "PERPETUAL", {}),
        ("BTCUSD_261225", "CURRENT_QUARTER", {"deliveryDate": 1_798_185_600_000}),
    ]
]


def listed(*contracts: dict[str, Any]) -> bytes:
    return json.dumps({"timezone": "UTC", "symbols": contracts}).encode()


def bench_of(
    *instruments: str,
    data_types: tuple[DataType, ...] = EVERYTHING,
    endpoints: Endpoints = BinanceUsdmAdapter.endpoints,
    **options: Any,
) -> Bench:
    """A bench with these instruments, BTCUSDT if none is named."""
    case = VenueCase(
        name="binance_usdm",
        make=lambda subscriptions: BinanceUsdmAdapter(endpoints, BinanceUsdmOptions(**options), subscriptions),
        subscriptions=tuple(Subscription(name, data_types) for name in instruments or ("BTCUSDT",)),
        metadata=listed(*CONTRACTS, *COIN_CONTRACTS),
        frames=(),
        snapshot=lambda fetch: b"",
        other_frame=b"",
    )
    return Bench(case)


def connected(*instruments: str, **parameters: Any) -> Bench:
    """The same with all its connections open."""
    bench = bench_of(*instruments, **parameters)
    for connection in bench.adapter.connections():
        bench.connect(connection=connection.connection)
    return bench


def wrapped(stream: str, data: dict[str, Any]) -> str:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":"))


def depth(first: int, last: int, previous: int, bids: Any = (), asks: Any = (), name: str = "BTCUSDT") -> str:
    data = {"e": "depthUpdate", "E": 1_780_563_845_145, "T": 1_780_563_845_143, "s": name, "U": first, "u": last}
    data |= {"pu": previous, "b": bids, "a": asks, "ps": name, "st": 1}
    return wrapped(f"{name.lower()}@depth@100ms", data)


def snapshot(last: int, bids: Any = (), asks: Any = ()) -> bytes:
    body = {"lastUpdateId": last, "E": 1_589_436_922_972, "T": 1_589_436_922_959, "bids": bids, "asks": asks}
    return json.dumps(body).encode()


def aggregate(number: int, first: int = 90, last: int = 93, **changed: Any) -> str:
    data = {"e": "aggTrade", "E": 1_771_263_510_195, "a": number, "s": "BTCUSDT", "p": "68005.00", "q": "2.695"}
    data |= {"nq": "2.600", "f": first, "l": last, "T": 1_771_263_510_041, "m": True, "st": 1}
    return wrapped("btcusdt@aggTrade", {**data, **changed})


def trade(number: int, kind: str = "MARKET", **changed: Any) -> str:
    data = {"e": "trade", "E": 1_785_685_177_440, "T": 1_785_685_177_439, "s": "BTCUSDT", "t": number, "p": "63113.20"}
    return wrapped("btcusdt@trade", {**data, "q": "0.001", "X": kind, "m": False, "st": 1, **changed})


def mark(**changed: Any) -> str:
    data = {"e": "markPriceUpdate", "E": 1_789_461_999_000, "s": "BTCUSDT", "p": "76888.10000000"}
    data |= {"ap": "76888.10000000", "P": "77018.80267750", "i": "76935.00826087", "r": "0.00008900"}
    return wrapped("btcusdt@markPrice@1s", {**data, "T": 1_789_488_000_000, "st": 1, **changed})


def fetches(requests: Sequence[Request], what: str = "depth") -> list[Fetch]:
    return [request for request in requests if isinstance(request, Fetch) and f"/{what}" in request.url]


def kinds(records: npt.NDArray[np.void]) -> list[Kind]:
    return [Kind(kind) for kind in records["kind"]]


def statuses(records: npt.NDArray[np.void]) -> list[tuple[State, Reason, int, int]]:
    rows = records[records["kind"] == Kind.STATUS].view(STATUS)
    return [(State(row["state"]), Reason(row["reason"]), int(row["expected"]), int(row["found"])) for row in rows]


def subscribed(bench: Bench, connection: int = 0) -> list[str]:
    requests = bench.adapter.on_connect(connection, NOW, bench.emit)
    return [name for one in requests if isinstance(one, Send) for name in json.loads(one.text)["params"]]


def timer(bench: Bench, now_ns: int, connection: int = 0) -> list[Fetch]:
    return fetches(bench.timer(now_ns, connection=connection), "openInterest")
