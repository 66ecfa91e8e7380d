"""OKX v5: its ids and checksums, the rules of its books by number, its answers, a recording of the real venue."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from mdring.adapters.okx import OkxAdapter, OkxOptions
from mdring.decode import decode_capture
from mdring.emulator.faults import FaultKind
from mdring.feed.adapter import (
    Acknowledged,
    Reconnect,
    Rejected,
    Request,
    Response,
    Send,
    Subscription,
    VenueProtocolError,
)
from mdring.feed.fixed import to_decimal
from mdring.record import (
    BBO,
    FUNDING,
    LEVEL,
    LIQUIDATION,
    MARK,
    OPEN_INTEREST,
    STATUS,
    TRADE,
    UNDEFINED_PRICE,
    Aggressor,
    DataType,
    Flags,
    Kind,
    Reason,
    State,
)
from tests.adapters.cases import ALL, OKX, OKX_INSTRUMENTS
from tests.adapters.conformance import NOW, Bench, VenueCase, check_records, live
from tests.adapters.loopback import Loopback

SWAP: Final = "UNI-USD-SWAP"
SECOND: Final = 1_000_000_000


def bench_of(*instruments: str, data_types: tuple[DataType, ...] = ALL, **options: Any) -> Bench:
    """A bench with these instruments, BTC-USDT if none is named; connected."""
    case = VenueCase(
        name="okx",
        make=lambda subscriptions: OkxAdapter(OkxAdapter.endpoints, OkxOptions(**options), subscriptions),
        subscriptions=tuple(Subscription(name, data_types) for name in instruments or ("BTC-USDT",)),
        metadata=OKX_INSTRUMENTS,
        frames=(),
        snapshot=OKX.snapshot,
        other_frame=b"",
    )
    bench = Bench(case)
    bench.connect()
    return bench


def book(
    last: int | None,
    previous: int | None,
    bids: Any = (),
    asks: Any = (),
    *,
    action: str = "update",
    checksum: int | None = 0,
    instrument: str = "BTC-USDT",
) -> str:
    data = {
        "asks": asks,
        "bids": bids,
        "ts": "1790394877200",
        "checksum": checksum,
        "seqId": last,
        "prevSeqId": previous,
    }
    data = {key: value for key, value in data.items() if value is not None}
    message = {"arg": {"channel": "books", "instId": instrument}, "action": action, "data": [data]}
    return json.dumps(message, separators=(",", ":"))


def snapshot(last: int | None, bids: Any = (), asks: Any = (), **more: Any) -> str:
    return book(last, None if last is None else -1, bids, asks, action="snapshot", **more)


def level(price: str, size: str) -> list[str]:
    return [price, size, "0", "0" if size == "0" else "4"]


def push(channel: str, instrument: str = "BTC-USDT", **fields: Any) -> str:
    message = {"arg": {"channel": channel, "instId": instrument}, "data": [{"instId": instrument, **fields}]}
    return json.dumps(message, separators=(",", ":"))


def trade(last: int, count: Any, **changed: Any) -> str:
    fields = {"tradeId": str(last), "px": "30236", "sz": "0.0002", "side": "buy", "ts": "1790394937301"}
    return push("trades", **{**fields, "count": str(count), "source": "0", "seqId": 77, **changed})


def answer(event: str, channel: str, instrument: str = "BTC-USDT") -> str:
    return json.dumps({"event": event, "arg": {"channel": channel, "instId": instrument}, "connId": "a4d3ae55"})


def refused(channel: str, name: str, number: str = "", code: str = "60018") -> bytes:
    text = f"Subscribe failed, wrong URL or channel:{channel},instId:{name} doesn't exist. Please use the correct URL."
    return json.dumps({"id": number, "event": "error", "msg": text, "code": code, "connId": "e1f69f02"}).encode()


def kinds(records: npt.NDArray[np.void]) -> list[Kind]:
    return [Kind(kind) for kind in records["kind"]]


def statuses(records: npt.NDArray[np.void]) -> list[tuple[State, Reason, int, int]]:
    rows = records[records["kind"] == Kind.STATUS].view(STATUS)
    return [(State(row["state"]), Reason(row["reason"]), int(row["expected"]), int(row["found"])) for row in rows]


def sent(requests: Sequence[Request]) -> list[dict[str, Any]]:
    return [json.loads(request.text) for request in requests if isinstance(request, Send) and request.text != "ping"]


# ---- metadata ---------------------------------------------------------------------------------------------


def test_metadata_says_what_a_size_of_one_is() -> None:
    infos = bench_of().infos
    spot, swap, future, option = (
        infos[name] for name in ("BTC-USDT", SWAP, "BTC-USD-220527", "BTC-USD-220514-22000-C")
    )
    assert [one.canonical_symbol for one in (spot, swap, future, option)] == [
        "BTC-USDT", "UNI-USD-PERP@UNI", "BTC-USD-20220527@BTC", "BTC-USD-20220514-22000-C@BTC",
    ]  # fmt: skip
    assert [(one.multiplier, one.size_unit) for one in (spot, swap, future, option)] == [
        ("1", "BTC"), ("10", "USD"), ("100", "USD"), ("0.1", "BTC"),
    ]  # fmt: skip
    assert (swap.base, swap.quote, swap.settle, swap.tick, swap.lot) == ("UNI", "USD", "UNI", "0.001", "1")
    assert [one.trading for one in (spot, swap, future, option)] == [True, True, False, True]
    assert DataType.FUNDING in swap.data_types and DataType.FUNDING not in future.data_types
    assert spot.data_types == ALL


def test_orders_finer_than_the_tick_of_today_have_room() -> None:
    spot = bench_of().infos["BTC-USDT"]
    assert (spot.price_exponent, spot.size_exponent) == (-3, -8)


def test_row_that_no_record_could_be_made_for_costs_no_other() -> None:
    adapter = OkxAdapter(OkxAdapter.endpoints, OkxOptions(), [])
    broken = OKX_INSTRUMENTS.replace(b'"tickSz":"0.001"', b'"tickSz":""')
    infos = adapter.on_metadata(Response("SWAP", "", 200, broken))
    assert len(infos) == 3 and adapter.counts.ignored == 1


def test_error_in_place_of_the_list_is_a_protocol_error() -> None:
    adapter = OkxAdapter(OkxAdapter.endpoints, OkxOptions(), [])
    with pytest.raises(VenueProtocolError, match="50011 Too Many Requests"):
        adapter.on_metadata(Response("SPOT", "", 200, b'{"code":"50011","data":[],"msg":"Too Many Requests"}'))


def test_options_are_listed_by_the_family_of_what_is_subscribed_to() -> None:
    adapter = OkxAdapter(OkxAdapter.endpoints, OkxOptions(), [Subscription("BTC-USD-220514-22000-C", ALL)])
    assert [fetch.tag for fetch in adapter.metadata_requests()] == ["SPOT", "SWAP", "FUTURES", "OPTION BTC-USD"]


# ---- connections and answers ------------------------------------------------------------------------------


def test_one_request_for_each_instrument_and_fewer_than_30_books_on_a_connection() -> None:
    names = [f"A{number}-USDT" for number in range(40)]
    adapter = OkxAdapter(OkxAdapter.endpoints, OkxOptions(), [Subscription(name, ALL) for name in names])
    bench = bench_of()
    adapter.bind(dict.fromkeys(names, bench.channels["BTC-USDT"]))
    assert [len(connection.instruments) for connection in adapter.connections()] == [29, 11]
    assert {connection.url for connection in adapter.connections()} == {"wss://ws.okx.com/ws/v5/public"}
    requests = sent(adapter.on_connect(1, NOW, bench.emit))
    assert len(requests) == 11
    assert requests[0]["op"] == "subscribe"
    assert requests[0]["args"] == [
        {"channel": channel, "instId": "A29-USDT"} for channel in ("trades", "bbo-tbt", "books")
    ]


def test_request_is_acknowledged_with_the_last_of_its_arguments() -> None:
    bench = bench_of()
    assert bench.frame(answer("subscribe", "trades")) == []
    assert bench.frame(answer("subscribe", "books")) == []
    assert bench.frame(answer("subscribe", "bbo-tbt")) == [Acknowledged(0, "1")]
    assert bench.frame(answer("subscribe", "bbo-tbt")) == []


def test_refused_argument_costs_its_data_only() -> None:
    bench = bench_of()
    requests = bench.adapter.on_frame(0, refused("bbo-tbt", "BTC-USDT"), NOW, bench.emit)
    ((rejected),) = requests
    assert isinstance(rejected, Rejected)
    assert (rejected.instrument, rejected.data_type) == ("BTC-USDT", DataType.BBO)
    assert "60018" in rejected.detail
    bench.frame(snapshot(5, [level("1", "1")]))
    assert bench.adapter.counts.books_valid == 1
    bench.frame(answer("subscribe", "trades"))
    assert bench.frame(answer("subscribe", "books")) == [Acknowledged(0, "1")]


def test_refusal_whose_text_says_nothing_is_known_by_its_id() -> None:
    bench = bench_of("BTC-USDT", SWAP)
    message = json.dumps({"id": "2", "event": "error", "code": "60018", "msg": "no"}).encode()
    requests = bench.adapter.on_frame(0, message, NOW, bench.emit)
    assert {request.instrument for request in requests if isinstance(request, Rejected)} == {SWAP}
    assert [request for request in requests if isinstance(request, Acknowledged)] == [Acknowledged(0, "2")]


def test_refused_book_is_left_alone_by_the_timer() -> None:
    bench = bench_of()
    bench.adapter.on_frame(0, refused("books", "BTC-USDT"), NOW, bench.emit)
    assert sent(bench.adapter.on_timer(0, NOW + 300 * SECOND, bench.emit)) == []


def test_error_that_concerns_nothing_asked_for_is_a_protocol_error() -> None:
    bench = bench_of()
    bench.frame(refused("books", "ETH-USDT"))
    assert [(error.instrument, error.reason) for error in bench.errors] == [(None, Reason.SUBSCRIBE_REJECTED)]


def test_too_many_requests_and_the_notice_of_an_upgrade_ask_for_another_connection() -> None:
    bench = bench_of()
    too_many = bench.frame('{"event":"error","code":"60014","msg":"Requests too frequent","connId":"a"}')
    upgrade = bench.frame('{"event":"notice","code":"64008","msg":"The connection will soon be closed","connId":"a"}')
    assert [request.reason for request in (*too_many, *upgrade) if isinstance(request, Reconnect)] == [
        Reason.SUBSCRIBE_REJECTED,
        Reason.PLANNED_RECONNECT,
    ]


def test_ping_is_bare_text_and_its_pong_is_waited_for() -> None:
    bench = bench_of()
    (ping,) = bench.adapter.on_timer(0, NOW, bench.emit)
    assert isinstance(ping, Send)
    assert (ping.text, ping.ack, ping.urgent) == ("ping", "pong", True)
    assert bench.frame("pong") == (Acknowledged(0, "pong"),)
    assert not bench.adapter.is_data(b"pong")


def test_topic_written_in_another_way_finds_its_route() -> None:
    bench = live(OKX)
    bench.frame('{"data":[{"instId":"BTC-USDT","tradeId":"338476311","px":"1","sz":"1","side":"sell","ts":"5"}],'
                '"arg":{"instId":"BTC-USDT","channel":"trades"}}')  # fmt: skip
    assert bench.errors == [] and kinds(bench.last()) == [Kind.TRADE]


# ---- trades and quotes ------------------------------------------------------------------------------------


def test_trade_has_the_takers_side_and_counts_its_fills() -> None:
    bench = bench_of()
    bench.frame(trade(123, 3, side="sell"))
    (row,) = bench.last().view(TRADE)
    assert (row["aggressor"], row["trade_id"], row["trade_count"]) == (Aggressor.SELL, 123, 3)
    assert (row["venue_seq"], row["ts_event"]) == (77, 1_790_394_937_301_000_000)
    assert row["flags"] == Flags.LAST | Flags.AGGREGATED
    channel = bench.channels["BTC-USDT"]
    assert str(to_decimal(int(row["size"]), channel.size_exponent).normalize()) == "0.0002"


def test_ids_of_merged_fills_are_no_gap_and_missing_ones_are() -> None:
    bench = bench_of()
    for last, count in ((100, 1), (103, 3), (104, 1)):
        bench.frame(trade(last, count))
    assert bench.adapter.counts.gaps == 0
    bench.frame(trade(110, 2))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 105, 109)]
    bench.frame(trade(111, 1))
    assert kinds(bench.last()) == [Kind.TRADE]
    bench.frame(trade(111, 1))
    assert len(bench.last()) == 0 and bench.adapter.counts.repeated == 1
    check_records(bench.records)


@pytest.mark.parametrize("fields", [{"count": "0"}, {"count": "-1"}, {"count": "102"}, {"side": "both"}, {"ts": ""}])
def test_trade_that_cannot_be_is_refused_and_leaves_the_book_alone(fields: dict[str, Any]) -> None:
    bench = bench_of()
    bench.frame(snapshot(5))
    bench.frame(trade(100, **{"count": 1, **fields}))
    assert [(error.instrument, error.data_type) for error in bench.errors] == [("BTC-USDT", DataType.TRADE)]
    assert bench.adapter.counts.books_valid == 1


def test_empty_side_of_a_quote_is_empty_in_both_channels() -> None:
    bench = bench_of()
    bench.frame(push("bbo-tbt", asks=[], bids=[level("30000", "2")], ts="1790133525304", seqId=9))
    bench.frame(push("tickers", askPx="", askSz="", bidPx="30000", bidSz="2", last="", ts="1790133525304"))
    rows = bench.records.view(BBO)
    assert set(rows["ask_price"].tolist()) == {UNDEFINED_PRICE} and set(rows["ask_size"].tolist()) == {0}
    assert rows["bid_price"][0] == rows["bid_price"][1] and rows["venue_seq"].tolist() == [9, 0]


# ---- books ------------------------------------------------------------------------------------------------


def test_rule_1_snapshot_is_one_group_and_one_that_comes_later_replaces_the_book() -> None:
    bench = bench_of()
    bench.frame(snapshot(10, [level("1.1", "2")], [level("1.2", "3")]))
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL, Kind.LEVEL, Kind.STATUS]
    assert bench.last()["venue_seq"].tolist()[:3] == [10, 10, 10]
    assert bench.last()[1:3].view(LEVEL)["order_count"].tolist() == [4, 4]
    bench.frame(snapshot(99, [level("1.0", "2")]))
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL]
    bench.frame(book(101, 99))
    assert bench.adapter.counts.gaps == 0 and bench.adapter.counts.books_valid == 1


def test_rule_2_and_3_series_of_the_documentation_is_one_book() -> None:
    """(-1, 10), (10, 15), (15, 15), (15, 3), (3, 5): steps of any size, a sign of life, a maintenance."""
    bench = bench_of()
    bench.frame(snapshot(10, [level("1.1", "2")]))
    for previous, last in ((10, 15), (15, 15), (15, 3), (3, 5)):
        bench.frame(book(last, previous, [level("1.1", str(last))] if last != previous else []))
    assert (bench.adapter.counts.gaps, bench.adapter.counts.repeated, bench.adapter.counts.books_valid) == (0, 0, 1)
    levels = bench.records[bench.records["kind"] == Kind.LEVEL]
    assert levels["venue_seq"].tolist() == [10, 15, 3, 5]


def test_rule_2_gap_is_told_then_this_book_alone_is_subscribed_to_anew() -> None:
    bench = bench_of("BTC-USDT", SWAP)
    bench.frame(snapshot(10, [level("1.1", "2")]))
    bench.frame(snapshot(10, [level("1.1", "2")], instrument=SWAP))
    (request,) = sent(bench.frame(book(20, 15, [level("1.1", "3")])))
    assert request["op"] == "unsubscribe" and request["args"] == [{"channel": "books", "instId": "BTC-USDT"}]
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 10, 15)]
    assert bench.adapter.counts.books_valid == 1
    assert bench.frame(book(25, 20, [level("1.1", "4")])) == () and len(bench.last()) == 0
    acknowledged, *again = bench.frame(answer("unsubscribe", "books"))
    assert acknowledged == Acknowledged(0, request["id"])
    assert [one["op"] for one in sent(again)] == ["subscribe"]
    bench.frame(answer("subscribe", "books"))
    bench.frame(snapshot(30, [level("1.1", "5")]))
    assert bench.adapter.counts.books_valid == 2
    check_records(bench.records)


def test_update_that_claims_to_have_no_predecessor_is_a_gap_like_any_other() -> None:
    bench = bench_of("BTC-USDT")
    bench.frame(snapshot(10, [level("1.1", "2")]))
    (request,) = sent(bench.frame(book(20, -1, [level("1.1", "3")])))
    assert request["op"] == "unsubscribe"
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 10, 0)]
    assert (bench.adapter.counts.gaps, bench.adapter.counts.resyncs) == (1, 1)


def test_update_that_comes_twice_in_a_row_is_dropped() -> None:
    bench = bench_of()
    bench.frame(snapshot(10, [level("1.1", "2")]))
    for _ in range(2):
        bench.frame(book(15, 10, [level("1.1", "3")]))
    assert len(bench.last()) == 0
    assert (bench.adapter.counts.repeated, bench.adapter.counts.gaps) == (1, 0)


def test_updates_before_the_snapshot_say_nothing() -> None:
    bench = bench_of()
    bench.frame(book(20, 15, [level("1.1", "3")]))
    assert len(bench.last()) == 0 and bench.adapter.counts.gaps == 0


def test_snapshot_that_does_not_come_is_asked_for_anew() -> None:
    bench = bench_of()
    assert sent(bench.adapter.on_timer(0, NOW + 10 * SECOND, bench.emit)) == []
    assert [one["op"] for one in sent(bench.adapter.on_timer(0, NOW + 40 * SECOND, bench.emit))] == ["unsubscribe"]


# Checksums as they were before June 2026: the vectors of the documentation, and one of a recording.


@pytest.mark.parametrize(
    ("bids", "asks", "checksum"),
    [
        ([("3366.1", "7"), ("3366", "6")], [("3366.8", "9"), ("3368", "8")], -1881014294),
        ([("3366.1", "7")], [("3366.8", "9"), ("3368", "8"), ("3372", "8")], 831078360),
    ],
)
def test_rule_5_checksum_is_that_of_the_documentation(bids: Any, asks: Any, checksum: int) -> None:
    bench = bench_of()
    levels = [[level(*one) for one in side] for side in (bids, asks)]
    bench.frame(snapshot(None, *levels, checksum=checksum))
    assert (bench.adapter.counts.checksums, bench.adapter.counts.books_valid) == (1, 1)
    wrong = bench.frame(snapshot(None, *levels, checksum=checksum + 1))
    assert [one["op"] for one in sent(wrong)] == ["unsubscribe"]
    assert statuses(bench.last()) == [
        (State.GAP, Reason.CHECKSUM, (checksum + 1) & 0xFFFF_FFFF, checksum & 0xFFFF_FFFF)
    ]
    assert Kind.LEVEL not in kinds(bench.last()), "a wrong level reached the stream"


def test_rule_5_wrong_update_leaves_no_level() -> None:
    bench = bench_of()
    bids, asks = [level("3366.1", "7"), level("3366", "6")], [level("3366.8", "9"), level("3368", "8")]
    bench.frame(snapshot(10, bids, asks, checksum=-1881014294))
    bench.frame(book(11, 10, [level("3366.1", "8")], checksum=-1881014294))
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    check_records(bench.records)


def test_update_with_neither_id_nor_checksum_cannot_be_trusted() -> None:
    bench = bench_of()
    bench.frame(snapshot(None, [level("1.1", "2")], checksum=None))
    bench.frame(book(None, None, [level("1.1", "3")], checksum=None))
    assert len(bench.errors) == 1 and bench.adapter.counts.books_valid == 0


@pytest.mark.parametrize("kind", [FaultKind.CHECKSUM, FaultKind.ALTERED])
def test_where_the_venue_still_sends_checksums_a_wrong_one_costs_a_resync_and_no_more(kind: FaultKind) -> None:
    loop = Loopback("okx", emulator_options={"checksums": True})
    loop.run(2.0)
    loop.arm(kind, match=loop.emulator.streams[DataType.BOOK])
    loop.run(4.0)
    loop.settle(10.0)
    loop.assert_books_true()
    assert loop.injector.fired[kind] == 1 and loop.adapter.counts.checksums > 100
    reasons = [reason for name in loop.names(DataType.BOOK) for _, reason in loop.statuses(name)]
    assert [reason for reason in reasons if reason is not Reason.NONE] == [Reason.CHECKSUM]


# ---- contracts --------------------------------------------------------------------------------------------


def contract() -> Bench:
    return bench_of(SWAP, data_types=OkxAdapter.data_types)


def test_funding_is_the_rate_that_is_paid_next_for_the_time_since_the_last() -> None:
    bench = contract()
    bench.frame(push("funding-rate", SWAP, fundingRate="0.0000263463215391", fundingTime="1790380800000",
                     nextFundingRate="", nextFundingTime="1790409600000", prevFundingTime="1790352000000",
                     ts="1790358563915"))  # fmt: skip
    (row,) = bench.last().view(FUNDING)
    assert (row["next_funding_ts"], row["interval_ns"]) == (1_790_380_800_000_000_000, 8 * 3600 * SECOND)
    assert to_decimal(int(row["rate"]), int(row["rate_exponent"])) * 10**16 == 263463215391


def test_index_is_known_by_its_own_name() -> None:
    bench = contract()
    bench.frame(push("mark-price", SWAP, markPx="5.139", ts="1790358817778"))
    bench.frame(push("index-tickers", "UNI-USD", idxPx="5.14", ts="1790358817778"))
    assert bench.errors == [] and kinds(bench.records) == [Kind.MARK, Kind.MARK]
    mark, index = bench.records.view(MARK)
    assert mark["index_price"] == UNDEFINED_PRICE and index["mark_price"] == UNDEFINED_PRICE


def test_noise_behind_the_point_of_an_open_interest_is_cut() -> None:
    bench = contract()
    bench.frame(push("open-interest", SWAP, oi="2216113.010000003091234567", ts="1743041250440"))
    (row,) = bench.last().view(OPEN_INTEREST)
    assert to_decimal(int(row["open_interest"]), int(row["open_interest_exponent"])) * 10**11 == 221611301000000309


def test_liquidations_of_a_type_are_told_of_what_is_subscribed_to() -> None:
    bench = contract()
    detail = {
        "bkLoss": "0",
        "bkPx": "5.1",
        "ccy": "",
        "posSide": "short",
        "side": "buy",
        "sz": "13",
        "ts": "1692266434010",
    }
    data = [{"details": [detail], "instId": name, "instType": "SWAP"} for name in ("IOST-USDT-SWAP", SWAP)]
    bench.frame(
        json.dumps({"arg": {"channel": "liquidation-orders", "instType": "SWAP"}, "data": data}, separators=(",", ":"))
    )
    (row,) = bench.last().view(LIQUIDATION)
    assert row["aggressor"] == Aggressor.BUY and row["ts_event"] == 1_692_266_434_010_000_000


# ---- the real venue ---------------------------------------------------------------------------------------

CAPTURES: Final = Path(os.environ.get("MDRING_CAPTURES", Path(__file__).parents[3] / "shared" / "captures"))


def test_recording_of_the_real_venue_gives_books_in_sync_and_290_checksums_that_match(tmp_path: Path) -> None:
    """A future, a swap and a spot pair, May 2022: three snapshots, 287 updates, each with its checksum."""
    capture = CAPTURES / "okx.jsonl.gz"
    if not capture.is_file():
        pytest.skip(f"there is no recording at {capture}; MDRING_CAPTURES names another folder")
    wanted = [Subscription(name, ALL) for name in ("BTC-USDT", SWAP, "BTC-USD-220527")]
    summary = decode_capture("okx", None, {}, wanted, capture, tmp_path, venue="okx")
    assert (summary.books, summary.books_in_sync, summary.checksums) == (3, 3, 290)
    assert (summary.gaps, summary.resyncs, summary.rejects, summary.ignored, summary.repeated) == (0, 0, 0, 0, 0)
    assert (summary.kinds["TRADE"], summary.kinds["BBO"], summary.frames) == (74, 28, 410)
    assert summary.unanswered == [] and summary.unknown_instruments == []
    check_records(np.load(tmp_path / "records.npy"))
