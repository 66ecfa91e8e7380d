"""The venues that the conformance suite knows."""

from __future__ import annotations

import json

from mdring.adapters.binance import BinanceAdapter, BinanceOptions
from mdring.adapters.okx import OkxAdapter, OkxOptions
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


# The order of 2026: ids chain, the checksum is 0. Payloads of recordings of May 2022 and of August 2026.
OKX_INSTRUMENTS = (
    b'{"code":"0","data":['
    b'{"instId":"BTC-USDT","instType":"SPOT","baseCcy":"BTC","quoteCcy":"USDT","settleCcy":"","uly":"","ctVal":"","ctMult":"","ctValCcy":"","ctType":"","tickSz":"0.1","lotSz":"0.00000001","minSz":"0.00001","expTime":"","stk":"","optType":"","state":"live"},'
    b'{"instId":"UNI-USD-SWAP","instType":"SWAP","baseCcy":"","quoteCcy":"","settleCcy":"UNI","uly":"UNI-USD","ctVal":"10","ctMult":"1","ctValCcy":"USD","ctType":"inverse","tickSz":"0.001","lotSz":"1","minSz":"1","expTime":"","stk":"","optType":"","state":"live"},'
    b'{"instId":"BTC-USD-220527","instType":"FUTURES","baseCcy":"","quoteCcy":"","settleCcy":"BTC","uly":"BTC-USD","ctVal":"100","ctMult":"1","ctValCcy":"USD","ctType":"inverse","tickSz":"0.1","lotSz":"1","minSz":"1","expTime":"1653638400000","stk":"","optType":"","state":"suspend"},'
    b'{"instId":"BTC-USD-220514-22000-C","instType":"OPTION","baseCcy":"","quoteCcy":"","settleCcy":"BTC","uly":"BTC-USD","ctVal":"1","ctMult":"0.1","ctValCcy":"BTC","ctType":"","tickSz":"0.0005","lotSz":"1","minSz":"1","expTime":"1652515200000","stk":"22000","optType":"C","state":"live"}'
    b'],"msg":""}'
)

OKX_FRAMES = (
    b'{"id":"1","event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":"bfcb4b8e"}',
    b'{"id":"1","event":"subscribe","arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"connId":"bfcb4b8e"}',
    b'{"id":"1","event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"bfcb4b8e"}',
    b'{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["30243.5","1.44679","0","6"],["30244","0.08","0","1"]],"bids":[["30243.4","0.23393","0","2"],["30000","20.11183989","0","278"]],"ts":"1790394877200","checksum":0,"seqId":32032594283,"prevSeqId":-1}]}',
    b'{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[["30243.5","1.2112","0","4"],["30244","0","0","0"]],"bids":[["30000","0","0","0"]],"ts":"1790394877300","checksum":0,"seqId":32032594315,"prevSeqId":32032594283}]}',
    b'{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[],"bids":[],"ts":"1790394937300","seqId":32032594315,"prevSeqId":32032594315}]}',
    b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"338476307","px":"30236","sz":"0.0002","side":"buy","ts":"1790394937301","count":"1","source":"0","seqId":32032594316}]}',
    b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"338476310","px":"30236.1","sz":"0.5","side":"sell","ts":"1790394937302","count":"3","source":"0","seqId":32032594317}]}',
    b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[["30243.5","1.2112","0","4"]],"bids":[["30243.4","0.23393","0","2"]],"ts":"1790394937304","seqId":32032594318}]}',
    b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[],"bids":[["30243.4","0.23393","0","2"]],"ts":"1790394937305","seqId":32032594319}]}',
    b'{"arg":{"channel":"books","instId":"UNI-USD-SWAP"},"action":"snapshot","data":[{"asks":[],"bids":[["5.14","427","0","4"]],"ts":"1790394937310","seqId":15,"prevSeqId":-1}]}',
    b'{"arg":{"channel":"books","instId":"UNI-USD-SWAP"},"action":"update","data":[{"asks":[["5.158","129","0","2"]],"bids":[],"ts":"1790394937410","seqId":3,"prevSeqId":15}]}',
    b"pong",
)  # fmt: skip


def _okx_snapshot(fetch: Fetch) -> bytes:
    return b""  # it has none


OKX = VenueCase(
    name="okx",
    make=lambda subscriptions: OkxAdapter(OkxAdapter.endpoints, OkxOptions(), subscriptions),
    subscriptions=(Subscription("BTC-USDT", ALL), Subscription("UNI-USD-SWAP", ALL, "UNI-USD-PERP")),
    metadata=OKX_INSTRUMENTS,
    frames=OKX_FRAMES,
    snapshot=_okx_snapshot,
    other_frame=b'{"arg":{"channel":"price-limit","instId":"UNI-USD-SWAP"},"data":[{"instId":"UNI-USD-SWAP","buyLmt":"5.3","sellLmt":"5.0","ts":"1790394937410","enabled":true}]}',
)

CASES = (BINANCE, OKX)
