"""The venues that the conformance suite knows."""

from __future__ import annotations

import json

from mdring.adapters.binance import BinanceAdapter, BinanceOptions
from mdring.feed.adapter import Fetch, Subscription
from mdring.record import DataType
from tests.adapters.conformance import VenueCase

ALL = (DataType.TRADE, DataType.BBO, DataType.BOOK)

# Of a recording of 2021-10-12, cut to what an adapter reads. The ids of the frames follow one another.
BINANCE_EXCHANGE_INFO = json.dumps(
    {
        "timezone": "UTC",
        "symbols": [
            {
                "symbol": symbol,
                "status": status,
                "baseAsset": base,
                "baseAssetPrecision": 8,
                "quoteAsset": quote,
                "quotePrecision": 8,
                "quoteAssetPrecision": 8,
                "filters": [
                    {"filterType": "PERCENT_PRICE", "multiplierUp": "5", "multiplierDown": "0.2", "avgPriceMins": 5},
                    {"filterType": "LOT_SIZE", "minQty": step, "maxQty": largest, "stepSize": step},
                    {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000.00000000", "tickSize": tick},
                ],
            }
            for symbol, status, base, quote, tick, step, largest in [
                ("NKNUSDT", "TRADING", "NKN", "USDT", "0.00010000", "1.00000000", "9000000.00000000"),
                ("RUNEEUR", "TRADING", "RUNE", "EUR", "0.00100000", "0.10000000", "9222449.00000000"),
                ("XECUSDT", "BREAK", "XEC", "USDT", "0.00000010", "1.00000000", "46116860414.00"),
            ]
        ],
    }
).encode()

BINANCE_FRAMES = (
    b'{"result":null,"id":1}',
    b'{"stream":"nknusdt@depth@100ms","data":{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":499869750,"u":499869752,"b":[["0.35130000","6195.00000000"],["0.34750000","5548.00000000"]],"a":[]}}',
    b'{"stream":"nknusdt@depth@100ms","data":{"e":"depthUpdate","E":1633998512168,"s":"NKNUSDT","U":499869753,"u":499869754,"b":[],"a":[["0.35330000","8794.00000000"],["0.35480000","0.00000000"]]}}',
    b'{"stream":"nknusdt@depth@100ms","data":{"e":"depthUpdate","E":1633998512268,"s":"NKNUSDT","U":499869755,"u":499869757,"b":[["0.35200000","0.00000000"]],"a":[["0.35240000","3959.00000000"]]}}',
    b'{"stream":"nknusdt@bookTicker","data":{"u":499869768,"s":"NKNUSDT","b":"0.35210000","B":"672.00000000","a":"0.35260000","A":"3199.00000000"}}',
    b'{"stream":"nknusdt@trade","data":{"e":"trade","E":1672515782136,"s":"NKNUSDT","t":12345,"p":"0.3521","q":"100","T":1672515782136,"m":true,"M":true}}',
    b'{"stream":"nknusdt@aggTrade","data":{"e":"aggTrade","E":1633998523963,"s":"NKNUSDT","a":15683430,"p":"0.35280000","q":"58.00000000","f":19862790,"l":19862790,"T":1633998523963,"m":false,"M":true}}',
    b'{"stream":"runeeur@depth@100ms","data":{"e":"depthUpdate","E":1633998512268,"s":"RUNEEUR","U":499869753,"u":499869757,"b":[["6.25100000","69.30000000"]],"a":[["6.26000000","12.10000000"]]}}',
)
BINANCE_SNAPSHOT = (
    b'{"lastUpdateId":499869752,"bids":[["0.35210000","672.00000000"],["0.35200000","1144.00000000"]],'
    b'"asks":[["0.35260000","3199.00000000"]]}'
)


def _binance_snapshot(fetch: Fetch) -> bytes:
    return BINANCE_SNAPSHOT


BINANCE = VenueCase(
    name="binance",
    make=lambda subscriptions: BinanceAdapter(BinanceAdapter.endpoints, BinanceOptions(), subscriptions),
    subscriptions=(Subscription("NKNUSDT", ALL), Subscription("RUNEEUR", ALL, "RUNE-EUR-SPOT")),
    metadata=BINANCE_EXCHANGE_INFO,
    frames=BINANCE_FRAMES,
    snapshot=_binance_snapshot,
    other_frame=b'{"stream":"nknusdt@kline_1m","data":{"e":"kline","E":1633998523963,"s":"NKNUSDT","k":{"t":1633998480000,"x":false}}}',
)

CASES = (BINANCE,)
