"""Coinbase Exchange: a recording of the real venue, of ten products, April 2021."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from mdring.capture import read_capture
from mdring.decode import decode_capture
from mdring.feed.adapter import Subscription
from mdring.feed.fixed import time_ns, to_decimal
from mdring.record import BBO, LEVEL, TRADE, Aggressor, DataType, Flags, Kind, Side
from tests.adapters.coinbase_bench import ALL, bench_of, rows_of
from tests.adapters.conformance import check_records

CAPTURES: Final = Path(os.environ.get("MDRING_CAPTURES", Path(__file__).parents[3] / "shared" / "captures"))


@pytest.fixture(scope="module")
def capture() -> Path:
    path = CAPTURES / "coinbase.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"there is no recording at {path}; MDRING_CAPTURES names another folder")
    return path


def told(capture: Path) -> list[dict[str, Any]]:
    """The messages of the recording."""
    return [json.loads(event.text or "") for event in read_capture(capture) if event.ev == "recv"]


def test_recording_of_the_real_venue_gives_books_in_sync_and_the_wires_own_numbers(
    capture: Path, tmp_path: Path
) -> None:
    """Ten products, April 2021: ten snapshots, 2,422 updates of one change each, twenty trades and ten of before."""
    messages = told(capture)
    names = [one["product_id"] for one in messages if one["type"] == "snapshot"]
    wanted = [Subscription(name, ALL) for name in names]
    summary = decode_capture("coinbase", None, {}, wanted, capture, tmp_path, venue="coinbase")
    assert (summary.books, summary.books_in_sync, summary.snapshots) == (10, 10, 10)
    assert (summary.gaps, summary.resyncs, summary.rejects, summary.ignored, summary.repeated) == (0, 0, 0, 0, 0)
    assert (summary.frames, summary.kinds["TRADE"]) == (2_495, 30)
    assert summary.unanswered == [] and summary.unknown_instruments == []
    records = np.load(tmp_path / "records.npy")
    check_records(records)

    table = json.loads((tmp_path / "instruments.json").read_text())
    exponents = {one["id"]: (one["price_exponent"], one["size_exponent"]) for one in table}
    name_of = {one["id"]: one["instrument"] for one in table}

    def exact(row: np.void, price: str = "price", size: str = "size") -> tuple[Decimal, Decimal]:
        of_price, of_size = exponents[int(row["instrument_id"])]
        return to_decimal(int(row[price]), of_price), to_decimal(int(row[size]), of_size)

    levels = [
        (name_of[int(row["instrument_id"])], Side(int(row["side"])), *exact(row))
        for row in rows_of(records, Kind.LEVEL, LEVEL)
    ]
    sides = {"buy": Side.BID, "sell": Side.ASK}
    expected: list[tuple[str, Side, Decimal, Decimal]] = []
    for one in messages:
        if one["type"] == "snapshot":
            for side, key in ((Side.BID, "bids"), (Side.ASK, "asks")):
                expected += [(one["product_id"], side, Decimal(price), Decimal(size)) for price, size in one[key]]
        elif one["type"] == "l2update":
            expected += [
                (one["product_id"], sides[side], Decimal(price), Decimal(size)) for side, price, size in one["changes"]
            ]
    assert levels == expected

    takers = {"buy": Aggressor.SELL, "sell": Aggressor.BUY}
    trades = rows_of(records, Kind.TRADE, TRADE)
    assert [
        (name_of[int(row["instrument_id"])], int(row["trade_id"]), Aggressor(int(row["aggressor"])), *exact(row))
        for row in trades
    ] == [
        (one["product_id"], one["trade_id"], takers[one["side"]], Decimal(one["price"]), Decimal(one["size"]))
        for one in messages
        if one["type"] in ("match", "last_match")
    ]
    assert (trades["flags"] & Flags.SNAPSHOT != 0).sum() == 10
    assert (trades["ts_event"] == [time_ns(one["time"]) for one in messages if one["type"].endswith("match")]).all()


def test_quotes_made_of_the_recorded_books_are_those_of_the_recorded_tickers(capture: Path) -> None:
    """But for the first of each product, which is as old as the match that it tells of."""
    messages = told(capture)
    names = tuple(one["product_id"] for one in messages if one["type"] == "snapshot")
    answer = next(event.payload for event in read_capture(capture) if event.ev == "http")
    bench = bench_of(*names, metadata=answer, data_types=(DataType.BBO,))
    name_of = {channel.instrument_id: name for name, channel in bench.channels.items()}
    quotes: dict[str, tuple[Decimal, Decimal]] = {}
    equal = []
    for one in messages:
        bench.frame(json.dumps(one, separators=(",", ":")))
        for row in rows_of(bench.last(), Kind.BBO, BBO):
            name = name_of[int(row["instrument_id"])]
            exponent = bench.channels[name].price_exponent
            quotes[name] = (to_decimal(int(row["bid_price"]), exponent), to_decimal(int(row["ask_price"]), exponent))
        if one["type"] == "ticker":
            equal.append(quotes[one["product_id"]] == (Decimal(one["best_bid"]), Decimal(one["best_ask"])))
    assert len(bench.infos) == 162 and bench.errors == []
    assert len(equal) == 30 and all(equal[10:]) and not all(equal[:10])
