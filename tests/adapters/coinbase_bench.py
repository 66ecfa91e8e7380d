"""A bench of the adapter of Coinbase Exchange, and messages of the recording of 2021-04-17; for its tests."""

from __future__ import annotations

import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdring.adapters.coinbase import CoinbaseAdapter, CoinbaseOptions
from mdring.feed.adapter import Subscription
from mdring.record import DataType, Kind
from tests.adapters.conformance import Bench, VenueCase

ALL: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
PRODUCT: Final = "SKL-BTC"
OTHER: Final = "BAND-GBP"


def product(name: str, tick: str, lot: str, **changed: Any) -> dict[str, Any]:
    """A row of the list, as it was in 2021."""
    base, _, quote = name.partition("-")
    row = {
        "id": name,
        "base_currency": base,
        "quote_currency": quote,
        "base_min_size": "5",
        "base_max_size": "1000000",
        "quote_increment": tick,
        "base_increment": lot,
        "display_name": name.replace("-", "/"),
        "min_market_funds": "0.0001",
        "margin_enabled": False,
        "post_only": False,
        "limit_only": False,
        "cancel_only": False,
        "trading_disabled": False,
        "status": "online",
        "status_message": "",
    }
    return {**row, **changed}


PRODUCTS: Final = [product(PRODUCT, "0.00000001", "0.1"), product(OTHER, "0.0001", "0.01")]

SNAPSHOT: Final = (
    '{"type":"snapshot","product_id":"SKL-BTC","asks":[["0.00001306","100"],["0.00001400","56.4"]],'
    '"bids":[["0.00001305","12.5"],["0.00001300","7"]]}'
)
UPDATE: Final = (
    '{"type":"l2update","product_id":"SKL-BTC","changes":[["sell","0.00001306","660.5"]],'
    '"time":"2021-04-17T16:43:37.075687Z"}'
)
MATCH: Final = (
    '{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16",'
    '"taker_order_id":"3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305",'
    '"product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}'
)
TICKER: Final = (
    '{"type":"ticker","sequence":177100030,"product_id":"SKL-BTC","price":"0.00001305","open_24h":"0.00001300",'
    '"best_bid":"0.00001304","best_bid_size":"12","best_ask":"0.00001306","best_ask_size":"660.5","side":"buy",'
    '"time":"2021-04-17T16:43:37.089723Z","trade_id":280232,"last_size":"985"}'
)
HEARTBEAT: Final = (
    '{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"SKL-BTC","time":"2014-11-07T08:19:28.464459Z"}'
)


def bench_of(*names: str, data_types: tuple[DataType, ...] = ALL, metadata: bytes = b"", **options: Any) -> Bench:
    """A bench with these products, SKL-BTC if none is named; connected."""
    case = VenueCase(
        name="coinbase",
        make=lambda subscriptions: CoinbaseAdapter(
            CoinbaseAdapter.endpoints, CoinbaseOptions(**{"status": False, **options}), subscriptions
        ),
        subscriptions=tuple(Subscription(name, data_types) for name in names or (PRODUCT,)),
        metadata=metadata or json.dumps(PRODUCTS).encode(),
        frames=(),
        snapshot=lambda fetch: b"",
        other_frame=b"",
    )
    bench = Bench(case)
    bench.connect()
    return bench


def changed(message: str, **fields: Any) -> str:
    """The message with other fields; one that is None is left out."""
    values = {**json.loads(message), **fields}
    return json.dumps({key: value for key, value in values.items() if value is not None}, separators=(",", ":"))


def kinds(records: npt.NDArray[np.void]) -> list[Kind]:
    return [Kind(kind) for kind in records["kind"]]


def rows_of(records: npt.NDArray[np.void], kind: Kind, view: np.dtype[np.void]) -> npt.NDArray[np.void]:
    return records[records["kind"] == kind].view(view)
