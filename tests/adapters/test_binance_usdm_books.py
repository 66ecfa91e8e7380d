"""Binance futures: books by the venue's numbered rules; COIN-M by its addresses; recordings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdring.capture import CaptureEvent, CaptureWriter
from mdring.decode import decode_capture
from mdring.feed.adapter import (
    Endpoints,
    Fetch,
    Request,
    Subscription,
)
from mdring.record import (
    CLEAR,
    FUNDING,
    MARK,
    UNDEFINED_PRICE,
    DataType,
    Kind,
    Reason,
    State,
)
from tests.adapters.conformance import NOW, Bench, check_records
from tests.adapters.loopback import Loopback
from tests.adapters.usdm import (
    BOOK,
    COIN_M,
    CONTRACTS,
    EVERYTHING,
    MS,
    SECOND,
    connected,
    depth,
    fetches,
    kinds,
    listed,
    snapshot,
    statuses,
    timer,
    wrapped,
)

# ---- the book, by the venue's numbered rules --------------------------------------------------------------


def level_ids(bench: Bench) -> list[int]:
    return [int(row) for row in bench.records[bench.records["kind"] == Kind.LEVEL]["venue_seq"]]


def book_of(*diffs: tuple[int, int, int], last: int) -> tuple[Bench, Sequence[Request]]:
    """A book whose snapshot is answered when these diffs, (U, u, pu), have come."""
    bench = connected(data_types=BOOK)
    asked: list[Fetch] = []
    for first, end, previous in diffs:
        asked += fetches(bench.frame(depth(first, end, previous, [["1.00", "1"]])))
    (fetch,) = asked
    return bench, bench.answer(fetch, snapshot(last, [["0.90", "5"]]))


def test_rules_3_and_4_by_the_example_of_a_recording() -> None:
    """SUSHIUSDT of 2021: the snapshot is ``U`` of the fourth diff; ids skip, only pu chains."""
    diffs = [
        (600859599090, 600859600917, 600859598061),
        (600859601193, 600859602861, 600859600917),
        (600859603343, 600859604824, 600859602861),
        (600859605926, 600859607423, 600859604824),
        (600859607950, 600859609417, 600859607423),
    ]
    bench, requests = book_of(*diffs, last=600859605926)
    assert requests == ()
    assert level_ids(bench) == [600859605926, 600859607423, 600859609417]
    assert statuses(bench.last()) == [(State.SYNCED, Reason.NONE, 0, 0)]


def test_rule_4_diff_that_ends_with_the_snapshot_tells_nothing_new_and_the_next_one_follows() -> None:
    """AKROUSDT of 2021."""
    bench, requests = book_of((600859603597, 600859605486, 600859601000), last=600859605486)
    assert requests == () and bench.adapter.counts.books_valid == 1
    bench.frame(depth(600859606000, 600859606500, 600859605486, [["1.01", "2"]]))
    assert level_ids(bench) == [600859605486, 600859606500] and bench.adapter.counts.gaps == 0


def test_rule_4_instrument_that_was_quiet_since_its_snapshot_goes_on_with_the_diff_that_names_it() -> None:
    bench = connected(data_types=BOOK)
    (fetch,) = fetches(bench.frame('{"result":null,"id":1}'))
    bench.answer(fetch, snapshot(100, [["0.90", "5"]]))
    bench.frame(depth(150, 160, 100, [["1.00", "1"]]))
    assert level_ids(bench) == [100, 160]
    check_records(bench.records)


def test_rule_4_snapshot_that_the_oldest_diff_held_names_is_new_enough() -> None:
    bench, requests = book_of((150, 160, 100), last=100)
    assert requests == () and level_ids(bench) == [100, 160]


def test_snapshot_older_than_what_is_held_is_fetched_again_with_delay() -> None:
    bench, requests = book_of((150, 160, 100), last=99)
    (again,) = fetches(requests)
    assert again.delay_ns == SECOND // 4 and len(bench.records) == 0
    bench.answer(again, snapshot(155, [["0.90", "5"]]))
    assert level_ids(bench) == [155, 160]


def test_rule_4_diff_after_a_hole_behind_the_snapshot_is_a_gap() -> None:
    bench = connected(data_types=BOOK)
    (fetch,) = fetches(bench.frame('{"result":null,"id":1}'))
    bench.answer(fetch, snapshot(100))
    (again,) = fetches(bench.frame(depth(150, 160, 140, [["1.00", "1"]])))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 100, 140)]
    bench.answer(again, snapshot(152, [["0.90", "5"]]))
    assert bench.adapter.counts.books_valid == 1


def test_rule_5_is_of_pu_alone() -> None:
    bench, _ = book_of((150, 160, 140), last=150)
    bench.frame(depth(170, 180, 160, [["1.00", "2"]]))  # U is not the last u + 1
    assert bench.adapter.counts.gaps == 0
    (fetch,) = fetches(bench.frame(depth(181, 190, 175, [["1.00", "3"]])))  # U is, and pu is not
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 180, 175)]
    assert bench.last()[1:].view(CLEAR)[0]["reason"] == Reason.SEQUENCE_GAP
    bench.answer(fetch, snapshot(185, [["0.90", "5"]]))
    assert level_ids(bench)[-2:] == [185, 190]
    check_records(bench.records)


def test_rule_5_repeated_diff_is_dropped_and_one_with_a_wrong_last_id_is_noticed_by_the_next() -> None:
    bench, _ = book_of((150, 160, 140), last=150)
    bench.frame(depth(150, 160, 140, [["1.00", "9"]]))
    assert len(bench.last()) == 0 and bench.adapter.counts.repeated == 1
    bench.frame(depth(170, 9_999_999, 160, [["1.00", "2"]]))
    bench.frame(depth(190, 200, 180, [["1.00", "3"]]))
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]


def test_levels_have_the_time_of_the_engine_the_snapshot_too() -> None:
    bench, _ = book_of((150, 160, 140), last=150)
    records = bench.last()
    times = records[records["kind"] == Kind.LEVEL]["ts_event"].tolist()
    assert times == [1_589_436_922_959 * MS, 1_780_563_845_143 * MS]


def test_diff_that_goes_backwards_or_names_another_symbol_costs_its_book_only() -> None:
    bench = connected("BTCUSDT", "SUSHIUSDT", data_types=BOOK)
    for name in ("BTCUSDT", "SUSHIUSDT"):
        (fetch,) = fetches(bench.frame(depth(10, 12, 9, name=name)))
        bench.answer(fetch, snapshot(10))
    bench.frame(depth(20, 19, 12))
    assert [error.instrument for error in bench.errors] == ["BTCUSDT"] and bench.adapter.counts.books_valid == 1
    bench.frame(depth(20, 21, 12, name="SUSHIUSDT").replace('"s":"SUSHIUSDT"', '"s":"BTCUSDT"'))
    assert [error.instrument for error in bench.errors] == ["BTCUSDT", "SUSHIUSDT"]


def test_book_is_rebuilt_only_while_its_own_connection_is_open() -> None:
    bench = connected()
    (fetch,) = fetches(bench.frame(depth(10, 12, 9)))
    bench.answer(fetch, snapshot(10))
    assert len(fetches(bench.resync("BTCUSDT", Reason.RING_FULL))) == 1
    bench.disconnect()
    assert bench.resync("BTCUSDT", Reason.RING_FULL) == ()
    assert bench.resync("NOSUCH", Reason.RING_FULL) == ()


def test_end_of_the_other_connection_leaves_the_book_alone() -> None:
    bench = connected()
    (fetch,) = fetches(bench.frame(depth(10, 12, 9)))
    bench.answer(fetch, snapshot(10))
    bench.disconnect(connection=1)
    assert len(bench.last()) == 0 and bench.adapter.counts.books_valid == 1


# ---- COIN-M, by its addresses -----------------------------------------------------------------------------


def test_coin_margined_contracts_need_other_addresses_only() -> None:
    bench = connected("BTCUSD_PERP", endpoints=COIN_M)
    (connection,) = bench.adapter.connections()
    assert connection.url == "wss://dstream.binance.com/stream"
    assert bench.adapter.metadata_requests()[0].url == "https://dapi.binance.com/dapi/v1/exchangeInfo"
    (fetch,) = fetches(bench.frame('{"result":null,"id":1}'))
    assert fetch.url == "https://dapi.binance.com/dapi/v1/depth?symbol=BTCUSD_PERP&limit=1000"
    bench.answer(fetch, b'{"lastUpdateId":16769853,"symbol":"BTCUSD_PERP","pair":"BTCUSD","E":1591250106370,'
                        b'"T":1591250106368,"bids":[["9638.0","431"]],"asks":[["9638.2","12"]]}')  # fmt: skip
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL, Kind.LEVEL, Kind.STATUS]
    bench.frame('{"stream":"btcusd_perp@markPrice@1s","data":{"e":"markPriceUpdate","E":1596095725000,"s":"BTCUSD_PERP",'
                '"p":"10934.62615417","P":"10962.17178236","r":"0.00010000","T":1596096000000}}')  # fmt: skip
    price, funding = bench.last()[:1].view(MARK)[0], bench.last()[1:].view(FUNDING)[0]
    assert price["index_price"] == UNDEFINED_PRICE and funding["rate"] == 1
    (fetch,) = timer(bench, NOW)
    assert fetch.url == "https://dapi.binance.com/dapi/v1/openInterest?symbol=BTCUSD_PERP"
    bench.answer(fetch, b'{"symbol":"BTCUSD_PERP","pair":"BTCUSD","openInterest":"15004","contractType":"PERPETUAL",'
                        b'"time":1591261042378}')  # fmt: skip
    assert kinds(bench.last()) == [Kind.OPEN_INTEREST] and bench.errors == []


def test_coin_margined_books_are_the_emulated_venues() -> None:
    loop = Loopback(
        "binance_usdm",
        endpoints=Endpoints("ws://venue/stream", "http://venue/dapi/v1"),
        emulator_options={"coin_margined": True},
        rate=400,
    )
    assert loop.names(DataType.BOOK) == ["BTCUSD_PERP", "BTCUSD_261225"]
    loop.run(15.0)
    loop.settle()
    loop.assert_books_true()
    assert loop.errors == [] and loop.closed_by_venue == [] and len(loop.wires) == 1
    seen = {Kind(int(kind)) for kind in np.unique(loop.records["kind"])}
    assert seen >= {Kind.TRADE, Kind.BBO, Kind.LEVEL, Kind.FUNDING, Kind.MARK, Kind.OPEN_INTEREST}


def test_single_trades_of_the_emulated_venue_leave_no_gap() -> None:
    loop = Loopback("binance_usdm", options={"trade_stream": "trade"}, rate=400)
    loop.run(20.0)
    loop.settle()
    assert any(b'"X":"NA"' in frame for frame in loop.frames) and any(b'"X":"RPI"' in frame for frame in loop.frames)
    assert loop.adapter.counts.gaps == 0 and loop.errors == []
    assert len(loop.of(Kind.TRADE)) > 100


# ---- recordings -------------------------------------------------------------------------------------------


def test_recording_of_former_times_decodes_though_one_connection_has_everything(tmp_path: Path) -> None:
    """As of 2021: one connection without a route, its streams in the URL, no answers, no list of funding intervals."""
    former = [
        ("btcusdt@markPrice", {"e": "markPriceUpdate", "E": 1626992741000, "s": "BTCUSDT", "p": "32300.1",
                               "P": "32310.2", "i": "32299.9", "r": "0.0001", "T": 1626998400000}),
        ("btcusdt@depth@100ms", {"e": "depthUpdate", "E": 1626992741037, "T": 1626992741024, "s": "BTCUSDT",
                                 "U": 20, "u": 29, "pu": 14, "b": [["32300.00", "1.5"]], "a": []}),
        ("btcusdt@depth@100ms", {"e": "depthUpdate", "E": 1626992741137, "T": 1626992741124, "s": "BTCUSDT",
                                 "U": 35, "u": 39, "pu": 29, "b": [], "a": [["32301.00", "0.000"]]}),
        ("btcusdt@aggTrade", {"e": "aggTrade", "E": 1626992741140, "a": 5, "s": "BTCUSDT", "p": "32300.50",
                              "q": "0.001", "f": 7, "l": 7, "T": 1626992741100, "m": True}),
        ("btcusdt@bookTicker", {"e": "bookTicker", "u": 38, "s": "BTCUSDT", "b": "32300.00", "B": "1.500",
                                "a": "32302.00", "A": "2.000", "T": 1626992741125, "E": 1626992741130}),
    ]  # fmt: skip
    rest, ts = "https://fapi.binance.com/fapi/v1", NOW
    with CaptureWriter(tmp_path / "former.jsonl") as capture:
        capture.write(CaptureEvent(ts, -1, "http", f"{rest}/exchangeInfo", 200, listed(CONTRACTS[0]).decode()))
        capture.write(CaptureEvent(ts, 0, "open", "wss://fstream.binance.com/stream?streams=btcusdt@depth@100ms"))
        for number, (stream, data) in enumerate(former):
            capture.write(CaptureEvent(ts + number, 0, "recv", text=wrapped(stream, data)))
            if number == 1:
                image = snapshot(25, [["32299.90", "1"]], [["32301.00", "3"]]).decode()
                capture.write(CaptureEvent(ts, -1, "http", f"{rest}/depth?symbol=BTCUSDT&limit=1000", 200, image))
    wanted = [Subscription("BTCUSDT", EVERYTHING)]
    summary = decode_capture("binance_usdm", None, {}, wanted, tmp_path / "former.jsonl", tmp_path / "out")
    assert (summary.books, summary.books_in_sync, summary.gaps, summary.rejects, summary.ignored) == (1, 1, 0, 0, 0)
    assert summary.kinds == {"STATUS": 2, "MARK": 1, "FUNDING": 1, "CLEAR": 1, "LEVEL": 4, "TRADE": 1, "BBO": 1}
    check_records(np.load(tmp_path / "out" / "records.npy"))
