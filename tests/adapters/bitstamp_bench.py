"""Messages of Bitstamp and a bench for them; what the tests of its adapter have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdring.adapters.bitstamp import BitstampAdapter, BitstampOptions
from mdring.feed.adapter import Fetch, Request, Subscription
from mdring.feed.fixed import to_decimal
from mdring.record import STATUS, DataType, Kind, Reason, Side, State
from tests.adapters.conformance import Bench, VenueCase

SECOND: Final = 1_000_000_000
PERPETUAL: Final = "btcusd-perp"
QUOTED: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)

MARKETS: Final = json.dumps(
    [
        {
            "name": name,
            "market_symbol": symbol,
            "base_currency": name.split("/")[0],
            "base_decimals": base_decimals,
            "counter_currency": "EUR",
            "counter_decimals": counter_decimals,
            "minimum_order_value": "10",
            "trading": trading,
            **more,
        }
        for name, symbol, base_decimals, counter_decimals, trading, more in [
            ("GALA/EUR", "galaeur", 8, 5, "Enabled", {"market_type": "SPOT"}),
            ("ETH/USD", "ethusd", 8, 2, "Enabled", {"market_type": "SPOT"}),
            ("USDT/EUR", "usdteur", 5, 5, "Disabled", {"market_type": "SPOT"}),
            ("BTC/USD-PERP", PERPETUAL, 5, 0, "Enabled",
             {"market_type": "PERPETUAL", "payoff_type": "Linear", "contract_size": "1.00000000"}),
            ("ASTER/USD-PERP", "asterusd-perp", 0, 5, "Enabled",
             {"market_type": "PERPETUAL", "payoff_type": "Linear", "contract_size": "1.00000000"}),
        ]
    ]
).encode()  # fmt: skip


def bench_of(*instruments: str, data_types: tuple[DataType, ...] = QUOTED, **options: Any) -> Bench:
    """A bench with these instruments, galaeur if none is named; connected."""
    case = VenueCase(
        name="bitstamp",
        make=lambda subscriptions: BitstampAdapter(
            BitstampAdapter.endpoints, BitstampOptions(**options), subscriptions
        ),
        subscriptions=tuple(Subscription(name, data_types) for name in instruments or ("galaeur",)),
        metadata=MARKETS,
        frames=(),
        snapshot=lambda fetch: b"",
        other_frame=b"",
    )
    bench = Bench(case)
    bench.connect()
    return bench


def diff(stamp: int, bids: Any = (), asks: Any = (), market: str = "galaeur") -> str:
    data = {"timestamp": str(stamp // 10**6), "microtimestamp": str(stamp), "bids": bids, "asks": asks}
    return json.dumps({"data": data, "channel": f"diff_order_book_{market}", "event": "data"}, separators=(",", ":"))


def snapshot(stamp: int, bids: Any = (), asks: Any = ()) -> bytes:
    data = {"timestamp": str(stamp // 10**6), "microtimestamp": str(stamp), "bids": bids, "asks": asks}
    return json.dumps(data).encode()


def acknowledged(market: str = "galaeur", channel: str = "diff_order_book") -> str:
    return f'{{"event":"bts:subscription_succeeded","channel":"{channel}_{market}","data":{{}}}}'


def refused(message: str = "Invalid channel provided.", code: Any = None) -> bytes:
    return json.dumps({"event": "bts:error", "channel": "", "data": {"code": code, "message": message}}).encode()


def fetches(requests: Sequence[Request]) -> list[Fetch]:
    return [request for request in requests if isinstance(request, Fetch)]


def kinds(records: npt.NDArray[np.void]) -> list[Kind]:
    return [Kind(kind) for kind in records["kind"]]


def statuses(records: npt.NDArray[np.void]) -> list[tuple[State, Reason, int, int]]:
    rows = records[records["kind"] == Kind.STATUS].view(STATUS)
    return [(State(row["state"]), Reason(row["reason"]), int(row["expected"]), int(row["found"])) for row in rows]


def told(bench: Bench) -> list[tuple[Side, str, str, int]]:
    """Side, price, size and stamp of the levels of the last call."""
    channel = bench.channels["galaeur"]
    rows = bench.last()[bench.last()["kind"] == Kind.LEVEL]
    return [
        (
            Side(row["side"]),
            str(to_decimal(int(row["price"]), channel.price_exponent).normalize()),
            str(to_decimal(int(row["size"]), channel.size_exponent).normalize()),
            int(row["venue_seq"]),
        )
        for row in rows
    ]


def live(*instruments: str, at: int = 1_000_000, data_types: tuple[DataType, ...] = QUOTED, **options: Any) -> Bench:
    """A bench whose first book is valid, as of a snapshot with a bid at 1 and an ask at 2; nothing is under way."""
    bench = bench_of(*instruments, data_types=data_types, **options)
    (audit,) = fetches(bench.frame(acknowledged()))
    bench.answer(audit, snapshot(at, [["1", "5"]], [["2", "5"]]))
    bench.frame(diff(at))
    assert bench.adapter.counts.books_valid == 1 and bench.errors == []
    return bench
