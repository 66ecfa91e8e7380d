"""Bybit v5: names that tell their category, the rules of its books by number, its answers, its tickers in parts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pytest

from mdring.adapters.bybit import BybitAdapter, BybitOptions
from mdring.adapters.bybit_metadata import Product, product_of
from mdring.feed.adapter import (
    Acknowledged,
    Fetch,
    InstrumentInfo,
    Rejected,
    Request,
    Response,
    Send,
    Subscription,
    VenueProtocolError,
)
from mdring.feed.emit import Emit
from mdring.feed.fixed import to_decimal
from mdring.feed.stage import Channel
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
    trade_id,
)
from tests.adapters.conformance import NOW, Bench, VenueCase, check_records
from tests.adapters.loopback import Loopback

ALL: Final = BybitAdapter.data_types
QUOTED: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
SPOT, LINEAR = "BTCUSDT-SPOT", "BTCUSDT-LINEAR"
SECOND: Final = 1_000_000_000

SPOT_ROW: Final = (
    '{"symbol":"BTCUSDT","baseCoin":"BTC","quoteCoin":"USDT","innovation":"0","status":"Trading","marginTrading":"utaOnly",'
    '"lotSizeFilter":{"basePrecision":"0.000001","quotePrecision":"0.0000001","minOrderQty":"0.000011","minOrderAmt":"5"},'
    '"priceFilter":{"tickSize":"0.1"}}'
)


def contract_row(symbol: str, contract: str, quote: str = "USDT", delivery: str = "0", status: str = "Trading") -> str:
    return (
        f'{{"symbol":"{symbol}","contractType":"{contract}","status":"{status}","baseCoin":"BTC","quoteCoin":"{quote}",'
        f'"launchTime":"1585526400000","deliveryTime":"{delivery}","priceScale":"2",'
        '"priceFilter":{"minPrice":"0.10","maxPrice":"1999999.80","tickSize":"0.10"},'
        '"lotSizeFilter":{"maxOrderQty":"1190.000","minOrderQty":"0.001","qtyStep":"0.001"},'
        f'"fundingInterval":480,"settleCoin":"{quote}","isPreListing":false,"preListingInfo":null}}'
    )


LINEAR_ROWS: Final = (
    contract_row("BTCUSDT", "LinearPerpetual"),
    contract_row("BTCPERP", "LinearPerpetual", "USDC", status="PreLaunch"),
    contract_row("BTC-26DEC25", "LinearFutures", "USDC", "1766736000000"),
)


def listed(category: str, rows: Sequence[str], cursor: str = "") -> bytes:
    """A page of a list."""
    result = f'{{"category":"{category}","list":[{",".join(rows)}],"nextPageCursor":"{cursor}"}}'
    return f'{{"retCode":0,"retMsg":"OK","result":{result},"retExtInfo":{{}},"time":1735809771618}}'.encode()


def adapter_of(*subscriptions: Subscription, **options: Any) -> BybitAdapter:
    return BybitAdapter(BybitAdapter.endpoints, BybitOptions(**options), subscriptions)


def infos_of(adapter: BybitAdapter) -> dict[str, InstrumentInfo]:
    """All that the venue lists, fetched page by page: as many contracts as ``LINEAR_ROWS`` has, one a page."""
    infos: dict[str, InstrumentInfo] = {}
    pending = list(adapter.metadata_requests())
    while pending:
        fetch = pending.pop(0)
        if fetch.tag == "spot":
            body = listed("spot", [SPOT_ROW])
        else:
            number = int(fetch.tag.partition("page ")[2] or 0)
            following = f"page {number + 1}" if number + 1 < len(LINEAR_ROWS) else ""
            body = listed("linear", LINEAR_ROWS[number : number + 1], following)
        for found in adapter.on_metadata(Response(fetch.tag, fetch.url, 200, body)):
            if isinstance(found, Fetch):
                assert found.url.endswith("&cursor=page%20" + found.tag[-1])
                pending.append(found)
            else:
                infos[found.instrument] = found
    return infos


def bench_of(
    instrument: str = LINEAR, data_types: tuple[DataType, ...] = ALL, *, connect: bool = True, **options: Any
) -> Bench:
    """A bench with one instrument, connected."""
    row = SPOT_ROW if instrument == SPOT else LINEAR_ROWS[0]
    case = VenueCase(
        name="bybit",
        make=lambda subscriptions: adapter_of(*subscriptions, **options),
        subscriptions=(Subscription(instrument, data_types),),
        metadata=listed("spot" if instrument == SPOT else "linear", [row]),
        frames=(),
        snapshot=lambda fetch: b"",
        other_frame=b"",
    )
    bench = Bench(case)
    if connect:
        bench.connect()
    bench.adapter.unknown.take_new()  # the bench answers for both categories with the one row
    return bench


def push(topic: str, data: Any, kind: str = "snapshot", **more: Any) -> str:
    message = {"topic": topic, "type": kind, "ts": 1790134712130, "data": data, **more}
    return json.dumps(message, separators=(",", ":"))


def book(update_id: int, bids: Any = (), asks: Any = (), *, kind: str = "delta", seq: int = 7) -> str:
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": update_id, "seq": seq}
    return push("orderbook.200.BTCUSDT", data, kind, cts=1790134712126)


def snapshot(update_id: int, bids: Any = (), asks: Any = (), **more: Any) -> str:
    return book(update_id, bids, asks, kind="snapshot", **more)


def ticker(kind: str, **data: str) -> str:
    return push("tickers.BTCUSDT", {"symbol": "BTCUSDT", **data}, kind, cs=814547789569)


def answer(request: dict[str, Any], *, error: str = "") -> bytes:
    text = error or ("subscribe" if request["op"] == "subscribe" else "")
    message = {"success": not error, "ret_msg": text, "conn_id": "da7t", "req_id": request["req_id"]}
    return json.dumps({**message, "op": request["op"]}).encode()


def kinds(records: npt.NDArray[np.void]) -> list[Kind]:
    return [Kind(kind) for kind in records["kind"]]


def statuses(records: npt.NDArray[np.void]) -> list[tuple[State, Reason, int, int]]:
    rows = records[records["kind"] == Kind.STATUS].view(STATUS)
    return [(State(row["state"]), Reason(row["reason"]), int(row["expected"]), int(row["found"])) for row in rows]


def sent(requests: Sequence[Request]) -> list[dict[str, Any]]:
    texts = [json.loads(request.text) for request in requests if isinstance(request, Send)]
    return [text for text in texts if text["op"] != "ping"]


def number(row: np.void, field: str) -> Decimal:
    return to_decimal(int(row[field]), int(row[f"{field}_exponent"]))


# ---- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("instrument", "canonical_symbol", "category", "symbol"),
    [
        ("BTCUSDT-SPOT", None, "spot", "BTCUSDT"),
        ("BTCUSDT-LINEAR", None, "linear", "BTCUSDT"),
        ("BTCUSDT-LINEAR", "BTC-USDT", "linear", "BTCUSDT"),
        ("BTCUSDT-26DEC25-LINEAR", None, "linear", "BTCUSDT-26DEC25"),
        ("BTCUSDT", "BTC-USDT", "spot", "BTCUSDT"),
        ("BTCUSDT", "BTC-USDT-PERP", "linear", "BTCUSDT"),
        ("BTC-26DEC25", "BTC-USDC-20251226", "linear", "BTC-26DEC25"),
        ("BTCUSDT", None, "option", "BTCUSDT"),
        ("BTCUSDT", "bitcoin", "option", "BTCUSDT"),
        ("-SPOT", None, "option", "-SPOT"),
    ],
)
def test_name_its_symbol_and_at_last_the_option_tell_the_category(
    instrument: str, canonical_symbol: str | None, category: str, symbol: str
) -> None:
    assert product_of(instrument, canonical_symbol, "option") == Product(category, symbol)


def test_each_category_has_its_own_address_whatever_address_the_config_names() -> None:
    wishes = (Subscription(SPOT, QUOTED), Subscription(LINEAR, QUOTED), Subscription("BTCPERP-LINEAR", QUOTED))
    for base in ("wss://stream.bybit.com", "wss://stream.bybit.com/v5/public/spot"):
        endpoints = BybitAdapter.endpoints.__class__(base, "https://api.bybit.com")
        adapter = BybitAdapter(endpoints, BybitOptions(), wishes)
        adapter.bind({wish.instrument: Channel(wish.instrument, 1, 1, -1, -3) for wish in wishes})
        assert [(one.url, one.instruments) for one in adapter.connections()] == [
            ("wss://stream.bybit.com/v5/public/spot", (SPOT,)),
            ("wss://stream.bybit.com/v5/public/linear", (LINEAR, "BTCPERP-LINEAR")),
        ]


def test_one_product_under_two_names_comes_on_two_connections() -> None:
    wishes = (Subscription(LINEAR, QUOTED), Subscription("BTCUSDT", QUOTED, "BTC-USDT-PERP"))
    adapter = adapter_of(*wishes)
    adapter.bind({wish.instrument: Channel(wish.instrument, 1, 1, -1, -3) for wish in wishes})
    assert [one.instruments for one in adapter.connections()] == [(LINEAR,), ("BTCUSDT",)]


# ---- metadata ---------------------------------------------------------------------------------------------


def test_lists_of_both_categories_are_read_page_by_page() -> None:
    infos = infos_of(adapter_of())
    assert {name: info.canonical_symbol for name, info in infos.items()} == {
        SPOT: "BTC-USDT",
        LINEAR: "BTC-USDT-PERP",
        "BTCPERP-LINEAR": "BTC-USDC-PERP",
        "BTC-26DEC25-LINEAR": "BTC-USDC-20251226",
    }
    spot, perpetual, future = infos[SPOT], infos[LINEAR], infos["BTC-26DEC25-LINEAR"]
    assert [(one.tick, one.lot, one.size_unit, one.settle) for one in (spot, perpetual)] == [
        ("0.1", "0.000001", "BTC", ""),
        ("0.1", "0.001", "BTC", "USDT"),
    ]
    assert spot.data_types == QUOTED and set(perpetual.data_types) == set(ALL)
    assert set(future.data_types) == set(ALL) - {DataType.FUNDING}
    assert [infos[name].trading for name in (LINEAR, "BTCPERP-LINEAR")] == [True, False]
    assert infos["BTCPERP-LINEAR"].status == "PreLaunch"


def test_orders_finer_than_the_tick_of_today_have_room() -> None:
    infos = infos_of(adapter_of())
    assert [(infos[name].price_exponent, infos[name].size_exponent) for name in (SPOT, LINEAR)] == [(-3, -8), (-3, -5)]


def test_what_is_subscribed_to_by_a_bare_name_is_listed_by_that_so_that_no_pattern_means_it_again() -> None:
    bare = Subscription("BTCUSDT", QUOTED, "BTC-USDT-PERP")
    infos = infos_of(adapter_of(bare))
    assert set(infos) == {SPOT, "BTCUSDT", "BTCPERP-LINEAR", "BTC-26DEC25-LINEAR"}
    assert infos["BTCUSDT"].canonical_symbol == "BTC-USDT-PERP"
    assert {"BTCUSDT", LINEAR} <= set(infos_of(adapter_of(bare, Subscription(LINEAR, QUOTED))))


def test_row_that_no_record_could_be_made_for_costs_no_other() -> None:
    adapter = adapter_of()
    rows = ('{"symbol":7}', contract_row("X", "Sideways"), SPOT_ROW.replace('"0.1"', '""'), *LINEAR_ROWS)
    infos = adapter.on_metadata(Response("linear", "", 200, listed("linear", rows)))
    assert len(infos) == 3 and adapter.counts.ignored == 3


@pytest.mark.parametrize(
    ("status", "body", "match"),
    [
        (200, b'{"retCode":10006,"retMsg":"Too many visits!","result":{}}', "10006 Too many visits!"),
        (403, b"access too frequent", "HTTP 403"),
        (200, listed("linear", (), "again"), "the page after again is itself"),
    ],
)
def test_error_in_place_of_the_list_is_a_protocol_error(status: int, body: bytes, match: str) -> None:
    with pytest.raises(VenueProtocolError, match=match):
        adapter_of().on_metadata(Response("linear again", "", status, body))


# ---- connections and answers ------------------------------------------------------------------------------


def many(count: int, data_types: tuple[DataType, ...] = ALL) -> BybitAdapter:
    names = [f"A{number:04d}USDT-LINEAR" for number in range(count)]
    adapter = adapter_of(*(Subscription(name, data_types) for name in names))
    adapter.bind({name: Channel(name, number, 1, -1, -3) for number, name in enumerate(names, 1)})
    return adapter


def test_topics_go_in_tens_and_those_of_a_connection_keep_below_its_length() -> None:
    adapter = many(500)
    connections = adapter.connections()
    assert len(connections) == 4 and sum(len(one.instruments) for one in connections) == 500
    for connection in connections:
        requests = sent(adapter.on_connect(connection.connection, NOW, Emit()))
        arguments = [request["args"] for request in requests]
        assert all(len(topics) <= 10 for topics in arguments)
        flat = [topic for topics in arguments for topic in topics]
        assert len(flat) == len(set(flat)) == 5 * len(connection.instruments)
        assert len(json.dumps(flat)) <= 21_000


def test_topics_are_those_of_the_data_types_and_tickers_come_once() -> None:
    bench = bench_of(connect=False)
    (request,) = sent(bench.connect())
    assert request["op"] == "subscribe" and sorted(request["args"]) == [
        "allLiquidation.BTCUSDT", "orderbook.1.BTCUSDT", "orderbook.200.BTCUSDT", "publicTrade.BTCUSDT",
        "tickers.BTCUSDT",
    ]  # fmt: skip
    assert bench.frame(answer(request)) == [Acknowledged(0, request["req_id"])]
    assert bench.frame(answer(request)) == ()


def test_depth_of_the_book_is_an_option() -> None:
    bench = bench_of(data_types=(DataType.BOOK,), book_depth=1000, connect=False)
    assert sent(bench.connect())[0]["args"] == ["orderbook.1000.BTCUSDT"]
    assert bench.adapter.book_depth(LINEAR) == 1000


def test_refused_request_is_asked_for_topic_by_topic_and_costs_the_bad_one_only() -> None:
    bench = bench_of(data_types=(*QUOTED, DataType.MARK, DataType.FUNDING), connect=False)
    (request,) = sent(bench.connect())
    error = "error:handler not found,topic:tickers.BTCUSDT"
    acknowledged, *again = bench.frame(answer(request, error=error))
    assert acknowledged == Acknowledged(0, request["req_id"])
    single = {one["args"][0]: one for one in sent(again)}
    assert list(single) == request["args"] and all(len(one["args"]) == 1 for one in single.values())
    requests = bench.adapter.on_frame(0, answer(single["tickers.BTCUSDT"], error=error), NOW, bench.emit)
    rejected = [one for one in requests if isinstance(one, Rejected)]
    assert [(one.instrument, one.data_type, one.detail) for one in rejected] == [
        (LINEAR, DataType.MARK, error),
        (LINEAR, DataType.FUNDING, error),
    ]
    for topic in ("publicTrade.BTCUSDT", "orderbook.1.BTCUSDT", "orderbook.200.BTCUSDT"):
        assert bench.frame(answer(single[topic])) == [Acknowledged(0, single[topic]["req_id"])]
    bench.frame(snapshot(5, [["1", "1"]]))
    assert bench.adapter.counts.books_valid == 1


def test_refused_book_is_left_alone_by_the_timer() -> None:
    bench = bench_of(SPOT, (DataType.BOOK,), connect=False)
    (request,) = sent(bench.connect())
    refused = answer(request, error="Invalid symbol :[orderbook.200.BTCUSDT]")
    requests = bench.adapter.on_frame(0, refused, NOW, bench.emit)
    assert [one.data_type for one in requests if isinstance(one, Rejected)] == [DataType.BOOK]
    assert sent(bench.adapter.on_timer(0, NOW + 300 * SECOND, bench.emit)) == []


def test_what_is_subscribed_to_already_is_not_refused() -> None:
    bench = bench_of(data_types=(DataType.TRADE,), connect=False)
    (request,) = sent(bench.connect())
    refused = answer(request, error="error:already subscribed,topic:publicTrade.BTCUSDT")
    assert bench.frame(refused) == [Acknowledged(0, request["req_id"])]


@pytest.mark.parametrize("error", ["error:invalid op", "Failed to decode incoming data:readObjectStart"])
def test_error_that_answers_nothing_asked_for_is_a_protocol_error(error: str) -> None:
    bench = bench_of()
    bench.frame(json.dumps({"success": False, "ret_msg": error, "conn_id": "a", "req_id": "", "op": "subscribe"}))
    bench.frame(json.dumps({"success": False, "ret_msg": error, "conn_id": "a", "req_id": "", "op": ""}))
    assert [(one.instrument, one.reason) for one in bench.errors] == [(None, Reason.SUBSCRIBE_REJECTED)] * 2


@pytest.mark.parametrize(
    "pong",
    [
        '{"success":true,"ret_msg":"pong","conn_id":"465772b1-7630-4fdc-a492-e003e6f0f260","req_id":"100001","op":"ping"}',
        '{"success":true,"ret_msg":"pong","conn_id":"465772b1-7630-4fdc-a492-e003e6f0f260","op":"ping"}',
        '{"args":["1672916271846"],"op":"pong"}',
    ],
)
def test_ping_is_json_and_its_pong_has_many_forms(pong: str) -> None:
    bench = bench_of()
    (ping,) = bench.adapter.on_timer(0, NOW, bench.emit)
    assert isinstance(ping, Send)
    assert (json.loads(ping.text)["op"], ping.ack, ping.urgent) == ("ping", "pong", True)
    assert bench.frame(pong) == (Acknowledged(0, "pong"),)
    assert not bench.adapter.is_data(pong.encode()) and bench.adapter.is_data(ticker("delta").encode())


def test_topic_that_stands_last_finds_its_route_and_one_not_asked_for_is_kept() -> None:
    bench = bench_of()
    bench.frame(
        '{"type":"snapshot","data":{"s":"BTCUSDT","b":[],"a":[],"u":5,"seq":6},"ts":9,"topic":"orderbook.200.BTCUSDT"}'
    )
    assert bench.errors == [] and kinds(bench.last()) == [Kind.CLEAR, Kind.STATUS]
    bench.frame(push("kline.5.BTCUSDT", [{"start": 1672324800000}]))
    ((what, sample),) = bench.adapter.unknown.take_new()
    assert what == "topic kline" and sample.startswith(b'{"topic":"kline.5')


# ---- trades and quotes ------------------------------------------------------------------------------------


def test_documented_trade_of_a_contract_has_a_uuid_and_the_takers_side() -> None:
    bench = bench_of()
    bench.frame(
        '{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486865,"s":"BTCUSDT",'
        '"S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick","i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,'
        '"RPI":false,"seq":1783284617}]}'
    )
    (row,) = bench.last().view(TRADE)
    assert trade_id(row) == UUID("20f43950-d8dd-5b31-9112-a178eb6023af")
    assert (row["aggressor"], row["venue_seq"], row["ts_event"]) == (Aggressor.BUY, 1783284617, 1672304486865 * 10**6)
    assert (row["price"], row["size"], row["flags"]) == (16_578_500, 100, Flags.LAST)


def test_documented_trades_of_a_spot_pair_are_one_group_and_live() -> None:
    bench = bench_of(SPOT, QUOTED)
    bench.frame(
        '{"topic":"publicTrade.BTCUSDT","ts":1789875217841,"type":"snapshot","data":[{"BT":false,"RPI":false,"S":"Sell",'
        '"T":1789875217840,"i":"2290000001211680903","p":"80413.3","s":"BTCUSDT","seq":114263055846,"v":"0.06"},'
        '{"BT":false,"RPI":false,"S":"Buy","T":1789875217840,"i":"2290000001211680919","p":"80413.4","s":"BTCUSDT",'
        '"seq":114263055850,"v":"0.004904"}]}'
    )
    rows = bench.last().view(TRADE)
    assert [trade_id(row) for row in rows] == [2290000001211680903, 2290000001211680919]
    assert rows["aggressor"].tolist() == [Aggressor.SELL, Aggressor.BUY]
    assert rows["price"].tolist() == [80_413_300, 80_413_400] and rows["size"].tolist() == [6_000_000, 490_400]
    assert rows["flags"].tolist() == [0, Flags.LAST]


@pytest.mark.parametrize("fields", [{"S": "Both"}, {"T": "1"}, {"T": -1}, {"v": "0"}, {"p": ""}, {"seq": 2**64}])
def test_trade_that_cannot_be_is_refused_whole_and_leaves_the_book_alone(fields: dict[str, Any]) -> None:
    bench = bench_of()
    bench.frame(snapshot(5))
    good = {"T": 5, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2", "i": "77", "seq": 9}
    bench.frame(push("publicTrade.BTCUSDT", [good, {**good, **fields}]))
    assert [(error.instrument, error.data_type) for error in bench.errors] == [(LINEAR, DataType.TRADE)]
    assert kinds(bench.last()) == [Kind.STATUS] and bench.adapter.counts.books_valid == 1


def quote(update_id: int, bids: Any, asks: Any, kind: str = "snapshot") -> str:
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": update_id, "seq": 70 + update_id}
    return push("orderbook.1.BTCUSDT", data, kind, cts=1790134712126)


def test_quote_that_comes_again_makes_no_record_and_one_of_a_new_connection_does() -> None:
    bench = bench_of()
    for update_id in (5, 5, 6):
        bench.frame(quote(update_id, [["78716.30", "0.306"]], [["78716.40", "2"]]))
    bench.disconnect()
    bench.connect()
    bench.frame(quote(6, [["78716.30", "0.306"]], [["78716.40", "2"]]))
    quotes = bench.records[bench.records["kind"] == Kind.BBO].view(BBO)
    assert quotes["venue_seq"].tolist() == [75, 76, 76]
    assert set(quotes["ts_event"].tolist()) == {1790134712126 * 10**6}
    assert bench.adapter.counts.repeated == 0


def test_ids_of_quotes_that_begin_again_are_news() -> None:
    bench = bench_of()
    for update_id in (1, 1, 5, 1):
        bench.frame(quote(update_id, [["78716.30", "0.306"]], [["78716.40", "2"]]))
    assert kinds(bench.records) == [Kind.BBO] * 4


def test_empty_side_of_a_quote_is_empty_and_a_delta_is_none() -> None:
    bench = bench_of()
    bench.frame(quote(5, [["78716.30", "0.306"]], []))
    (row,) = bench.last().view(BBO)
    assert (row["bid_price"], row["ask_price"], row["ask_size"]) == (78_716_300, UNDEFINED_PRICE, 0)
    bench.frame(quote(6, [], [], "delta"))
    assert [error.data_type for error in bench.errors] == [DataType.BBO]


# ---- books ------------------------------------------------------------------------------------------------


def test_rule_1_snapshot_is_one_group_and_deltas_before_it_say_nothing() -> None:
    bench = bench_of()
    bench.frame(book(4, [["1.1", "2"]]))
    assert len(bench.last()) == 0 and bench.adapter.counts.gaps == 0
    bench.frame(snapshot(5, [["86723.40", "0.194"]], [["86723.50", "5.959"]], seq=814547787693))
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL, Kind.LEVEL, Kind.STATUS]
    levels = bench.last()[1:3].view(LEVEL)
    assert levels["price"].tolist() == [86_723_400, 86_723_500] and levels["size"].tolist() == [19_400, 595_900]
    assert set(levels["venue_seq"].tolist()) == {814547787693}
    assert set(levels["ts_event"].tolist()) == {1790134712126 * 10**6}


def test_rules_2_and_4_recorded_series_is_one_book() -> None:
    """A spot pair of August 2026; ``ts`` stands before ``type``."""
    bench = bench_of(SPOT, QUOTED)
    series = [
        ("snapshot", 217107087, 113099229662, [["78715", "0.5"]], [["78716.4", "1"], ["78717.8", "2"]]),
        ("delta", 217107088, 113099229683, [], [["78716.4", "0"], ["78717.6", "0.036091"], ["78717.8", "0"]]),
        ("delta", 217107089, 113099229691, [["78715", "0.7"]], [["78748.5", "0.001"]]),
    ]
    for kind, update_id, seq, bids, asks in series:
        data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": update_id, "seq": seq}
        message = {"topic": "orderbook.200.BTCUSDT", "ts": 1787612486236, "type": kind, "data": data}
        bench.frame(json.dumps({**message, "cts": 1787612486234}, separators=(",", ":")))
    assert (bench.adapter.counts.gaps, bench.adapter.counts.books_valid) == (0, 1)
    levels = bench.records[bench.records["kind"] == Kind.LEVEL].view(LEVEL)
    assert levels["size"].tolist() == [
        50_000_000, 100_000_000, 200_000_000, 0, 3_609_100, 0, 70_000_000, 100_000,
    ]  # fmt: skip
    check_records(bench.records)


def test_rule_2_gap_is_told_then_the_book_is_subscribed_to_anew() -> None:
    bench = bench_of()
    bench.frame(snapshot(5, [["1.1", "2"]]))
    (request,) = sent(bench.frame(book(7, [["1.1", "3"]])))
    assert (request["op"], request["args"]) == ("unsubscribe", ["orderbook.200.BTCUSDT"])
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 6, 7)]
    for late in (book(8), snapshot(9)):  # of the subscription that ends
        assert bench.frame(late) == () and len(bench.last()) == 0
    acknowledged, *again = bench.frame(answer(request))
    assert acknowledged == Acknowledged(0, request["req_id"])
    (subscribe,) = sent(again)
    assert (subscribe["op"], subscribe["args"]) == ("subscribe", ["orderbook.200.BTCUSDT"])
    bench.frame(answer(subscribe))
    bench.frame(snapshot(30, [["1.1", "5"]]))
    bench.frame(book(31))
    assert (bench.adapter.counts.books_valid, bench.adapter.counts.gaps) == (1, 1)
    check_records(bench.records)


@pytest.mark.parametrize("update_id", [3, 4, 1, 2**63])
def test_rule_2_no_other_id_than_the_next_is_taken(update_id: int) -> None:
    bench = bench_of()
    bench.frame(snapshot(5, [["1.1", "2"]]))
    bench.frame(book(update_id, [["1.1", "3"]]))
    assert Kind.LEVEL not in kinds(bench.last()) and bench.adapter.counts.books_valid == 0


def test_rule_2_refused_end_of_a_subscription_is_an_end() -> None:
    bench = bench_of()
    bench.frame(snapshot(5, [["1.1", "2"]]))
    (request,) = sent(bench.frame(book(7)))
    assert [one["op"] for one in sent(bench.frame(answer(request, error="error:not subscribed")))] == ["subscribe"]


def test_delta_that_comes_twice_in_a_row_is_dropped() -> None:
    bench = bench_of()
    bench.frame(snapshot(5, [["1.1", "2"]]))
    for _ in range(2):
        bench.frame(book(6, [["1.1", "3"]]))
    assert len(bench.last()) == 0
    assert (bench.adapter.counts.repeated, bench.adapter.counts.gaps) == (1, 0)


@pytest.mark.parametrize("update_id", [1, 6, 400])
def test_rule_3_snapshot_at_any_time_replaces_the_book_and_is_no_gap(update_id: int) -> None:
    bench = bench_of()
    bench.frame(snapshot(5, [["1.1", "2"]]))
    assert bench.frame(snapshot(update_id, [["1.0", "2"]])) == ()
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL]
    bench.frame(book(update_id + 1, [["1.0", "0"]]))
    assert (bench.adapter.counts.gaps, bench.adapter.counts.resyncs, bench.adapter.counts.books_valid) == (0, 0, 1)


def test_snapshot_that_does_not_come_is_asked_for_anew() -> None:
    bench = bench_of()
    assert sent(bench.adapter.on_timer(0, NOW + 10 * SECOND, bench.emit)) == []
    assert [one["op"] for one in sent(bench.adapter.on_timer(0, NOW + 40 * SECOND, bench.emit))] == ["unsubscribe"]


# ---- direct routes ----------------------------------------------------------------------------------------


def taken(bench: Bench) -> int:
    """How many messages went by direct routes."""
    assert bench.adapter.direct is not None
    return bench.adapter.direct.taken


@pytest.mark.parametrize(
    ("instrument", "message", "count"),
    [
        (
            LINEAR,
            '{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1672304486868,"data":[{"T":1672304486865,'
            '"s":"BTCUSDT","S":"Buy","v":"0.001","p":"16578.50","L":"PlusTick",'
            '"i":"20f43950-d8dd-5b31-9112-a178eb6023af","BT":false,"RPI":false,"seq":1783284617}]}',
            1,
        ),
        (
            SPOT,
            '{"topic":"publicTrade.BTCUSDT","ts":1789875217841,"type":"snapshot","data":[{"BT":false,"RPI":false,'
            '"S":"Sell","T":1789875217840,"i":"2290000001211680903","p":"80413.3","s":"BTCUSDT","seq":114263055846,'
            '"v":"0.06"},{"BT":false,"RPI":false,"S":"Buy","T":1789875217840,"i":"2290000001211680919","p":"80413.4",'
            '"s":"BTCUSDT","seq":114263055850,"v":"0.004904"}]}',
            2,
        ),
        (
            LINEAR,
            '{"topic":"orderbook.1.BTCUSDT","type":"snapshot","ts":1790134712130,"data":{"s":"BTCUSDT",'
            '"b":[["86723.40","0.194"]],"a":[["86723.50","5.959"]],"u":173678160,"seq":814547787693},'
            '"cts":1790134712126}',
            1,
        ),
        (
            SPOT,
            '{"topic":"orderbook.1.BTCUSDT","ts":1790134712130,"type":"snapshot","data":{"s":"BTCUSDT",'
            '"b":[["86723.40","0.194"]],"a":[["86723.50","5.959"]],"u":173678160,"seq":814547787693},'
            '"cts":1790134712126}',
            1,
        ),
    ],
)
def test_message_as_the_venue_writes_it_goes_directly_and_makes_the_same_records(
    instrument: str, message: str, count: int
) -> None:
    direct, decoded = bench_of(instrument, QUOTED), bench_of(instrument, QUOTED)
    direct.frame(message)
    decoded.frame(message.replace('"topic":', '"topic": '))
    assert (taken(direct), taken(decoded)) == (1, 0)
    assert direct.last().tobytes() == decoded.last().tobytes() and len(direct.last()) == count


@pytest.mark.parametrize(("instrument", "head"), [(LINEAR, '"type":"delta","ts":1'), (SPOT, '"ts":1,"type":"delta"')])
def test_next_delta_goes_directly_and_no_other(instrument: str, head: str) -> None:
    bench = bench_of(instrument, (DataType.BOOK,))
    bench.frame(snapshot(5, [["1", "1"]], [["2", "1"]]))

    def delta(update_id: int) -> str:
        data = f'{{"s":"BTCUSDT","b":[["1","2"]],"a":[],"u":{update_id},"seq":9}}'
        return f'{{"topic":"orderbook.200.BTCUSDT",{head},"data":{data},"cts":1790134716094}}'

    for update_id in (6, 7, 7):
        bench.frame(delta(update_id))
    assert taken(bench) == 2 and bench.adapter.counts.repeated == 1
    bench.frame(delta(9))
    assert taken(bench) == 2 and bench.adapter.counts.gaps == 1


def test_what_was_directly_quoted_last_is_known_and_forgotten_on_a_new_connection() -> None:
    bench = bench_of(LINEAR, (DataType.BBO,))
    quote = push("orderbook.1.BTCUSDT", {"s": "BTCUSDT", "b": [["1", "1"]], "a": [["2", "1"]], "u": 5, "seq": 9}, cts=7)
    bench.frame(quote)
    bench.frame(quote)
    assert taken(bench) == 1 and len(bench.records) == 1
    bench.disconnect()
    bench.connect()
    bench.frame(quote)
    assert taken(bench) == 2


# ---- contracts --------------------------------------------------------------------------------------------

DOCUMENTED_TICKER: Final = (
    '{"topic":"tickers.BTCUSDT","type":"snapshot","data":{"symbol":"BTCUSDT","tickDirection":"MinusTick",'
    '"price24hPcnt":"-0.158315","lastPrice":"66666.60","prevPrice24h":"79206.20","markPrice":"66666.60",'
    '"indexPrice":"115418.19","openInterest":"492373.72","openInterestValue":"32824881841.75",'
    '"fundingIntervalHour":"8","fundingCap":"0.005","nextFundingTime":"1760342400000","fundingRate":"-0.005",'
    '"bid1Price":"66666.60","bid1Size":"23789.165","preOpenPrice":"","preQty":"","curPreListingPhase":""},'
    '"cs":9532239429,"ts":1760325052630}'
)


def test_documented_ticker_is_mark_funding_and_open_interest_of_one_side() -> None:
    bench = bench_of()
    bench.frame(DOCUMENTED_TICKER)
    assert kinds(bench.last()) == [Kind.MARK, Kind.FUNDING, Kind.OPEN_INTEREST]
    mark, funding, held = (
        bench.last()[at : at + 1].view(view)[0] for at, view in enumerate((MARK, FUNDING, OPEN_INTEREST))
    )
    assert (number(mark, "mark_price"), number(mark, "index_price")) == (Decimal("66666.60"), Decimal("115418.19"))
    assert number(funding, "rate") == Decimal("-0.005")
    assert (funding["next_funding_ts"], funding["interval_ns"]) == (1_760_342_400_000 * 10**6, 8 * 3600 * SECOND)
    assert number(held, "open_interest") == Decimal("246186.86")
    assert number(held, "value") == Decimal("16412440920.875")
    assert {int(row["venue_seq"]) for row in bench.last()} == {9532239429}
    assert {int(row["ts_event"]) for row in bench.last()} == {1760325052630 * 10**6}


def test_delta_tells_what_has_changed_and_the_rest_is_as_before() -> None:
    bench = bench_of()
    bench.frame(DOCUMENTED_TICKER)
    bench.frame(ticker("delta", markPrice="86716.30", lastPrice="1"))
    assert kinds(bench.last()) == [Kind.MARK]
    (mark,) = bench.last().view(MARK)
    assert (number(mark, "mark_price"), number(mark, "index_price")) == (Decimal("86716.30"), Decimal("115418.19"))
    bench.frame(ticker("delta", nextFundingTime="1760371200000"))
    (funding,) = bench.last().view(FUNDING)
    assert number(funding, "rate") == Decimal("-0.005") and funding["next_funding_ts"] == 1_760_371_200_000 * 10**6
    bench.frame(ticker("delta", singleOpenInterest="26332.321", singleOpenInterestValue="5.5"))
    bench.frame(ticker("delta", openInterestValue="11.2", singleOpenInterestValue="5.6"))
    (held,) = bench.last().view(OPEN_INTEREST)
    assert (number(held, "open_interest"), number(held, "value")) == (Decimal("26332.321"), Decimal("5.6"))
    bench.frame(ticker("delta", lastPrice="2"))
    assert len(bench.last()) == 0


def test_delta_before_the_snapshot_of_this_connection_says_nothing() -> None:
    bench = bench_of()
    bench.frame(DOCUMENTED_TICKER)
    bench.disconnect()
    bench.connect()
    bench.frame(ticker("delta", markPrice="86716.30"))
    assert len(bench.last()) == 0
    bench.frame(DOCUMENTED_TICKER)
    assert len(bench.last()) == 3


def test_refused_ticker_is_begun_anew_once_a_minute() -> None:
    """It may have told what is not told again."""
    bench = bench_of()
    bench.frame(DOCUMENTED_TICKER)
    bad = ticker("delta", markPrice="x", fundingRate="0.1")
    (end,) = sent(bench.frame(bad))
    assert (end["op"], end["args"]) == ("unsubscribe", ["tickers.BTCUSDT"])
    assert bench.frame(ticker("delta", indexPrice="5")) == () and len(bench.last()) == 0
    acknowledged, *begin = bench.frame(answer(end))
    assert acknowledged == Acknowledged(0, end["req_id"])
    assert [(one["op"], one["args"]) for one in sent(begin)] == [("subscribe", ["tickers.BTCUSDT"])]
    bench.frame(DOCUMENTED_TICKER)
    assert kinds(bench.last()) == [Kind.MARK, Kind.FUNDING, Kind.OPEN_INTEREST]
    assert [sent(bench.frame(bad, NOW + seconds * SECOND)) != [] for seconds in (1, 59, 60)] == [False, False, True]
    assert bench.adapter.counts.resyncs == 0


def test_nothing_of_a_damaged_delta_is_kept() -> None:
    bench = bench_of()
    for message in (DOCUMENTED_TICKER, ticker("delta", markPrice="x"), DOCUMENTED_TICKER):
        bench.frame(message)
    bench.frame(ticker("delta", markPrice="x", fundingRate="0.1"))
    bench.frame(ticker("delta", indexPrice="5"))
    (mark,) = bench.last().view(MARK)
    assert (number(mark, "mark_price"), number(mark, "index_price")) == (Decimal("66666.60"), Decimal(5))
    assert len(bench.errors) == 2


def test_empty_text_is_no_value() -> None:
    """A dated future has no funding; before it is traded there is no mark price."""
    bench = bench_of()
    bench.frame(ticker("snapshot", markPrice="", indexPrice="5", fundingRate="", nextFundingTime="",
                       openInterest="", openInterestValue=""))  # fmt: skip
    assert kinds(bench.last()) == [Kind.MARK]
    assert bench.last().view(MARK)["mark_price"].tolist() == [UNDEFINED_PRICE]


def test_only_data_asked_for_are_taken_from_a_ticker() -> None:
    bench = bench_of(data_types=(DataType.OPEN_INTEREST,))
    bench.frame(DOCUMENTED_TICKER)
    assert kinds(bench.last()) == [Kind.OPEN_INTEREST]


def test_documented_liquidation_is_of_a_short_hence_who_closes_it_buys() -> None:
    bench = bench_of()
    bench.frame(
        '{"topic":"allLiquidation.BTCUSDT","type":"snapshot","ts":1739502303204,"data":[{"T":1739502302929,"s":"BTCUSDT",'
        '"S":"Sell","v":"20","p":"0.04499"},{"T":1739502302930,"s":"BTCUSDT","S":"Buy","v":"0.5","p":"0.04498"}]}'
    )
    rows = bench.last().view(LIQUIDATION)
    assert rows["aggressor"].tolist() == [Aggressor.BUY, Aggressor.SELL]
    assert [number(row, "order_price") for row in rows] == [Decimal("0.04499"), Decimal("0.04498")]
    assert rows["size"].tolist() == [2_000_000, 50_000] and rows["ts_event"][0] == 1739502302929 * 10**6
    assert rows["flags"].tolist() == [0, Flags.LAST]


# ---- against the emulated venue ---------------------------------------------------------------------------


def test_restart_of_the_service_costs_no_gap() -> None:
    loop = Loopback("bybit", emulator_options={"restart_every_s": 1.0})
    loop.run(5.5)
    loop.settle()
    loop.assert_books_true()
    counts = loop.adapter.counts
    assert (counts.gaps, counts.resyncs, counts.repeated) == (0, 0, 0) and counts.snapshots >= 6 * counts.books


@pytest.mark.parametrize("depth", [50, 1000])
def test_books_of_other_depths_are_the_venues(depth: int) -> None:
    loop = Loopback("bybit", depth=120, options={"book_depth": depth})
    loop.run(3.0)
    loop.settle()
    loop.assert_books_true()
    levels = max(len(side) for name in loop.names(DataType.BOOK) for side in loop.book(name) or ())
    assert levels == 50 if depth == 50 else levels > 100


def test_list_in_pages_is_the_whole_list() -> None:
    loop = Loopback("bybit", emulator_options={"page_rows": 2})
    assert set(loop.infos) == set(loop.emulator.instruments().values())
    assert loop.rest_calls["/v5/market/instruments-info"] > 3


def test_liquidations_are_of_the_side_that_the_trades_tell() -> None:
    loop = Loopback("bybit", rate=400)
    loop.run(40.0)
    for name in loop.names(DataType.LIQUIDATION):
        trades, closed = loop.of(Kind.TRADE, name).view(TRADE), loop.of(Kind.LIQUIDATION, name).view(LIQUIDATION)
        assert len(closed)
        for row in closed:
            same = trades[trades["ts_event"] == row["ts_event"]]
            assert row["aggressor"] in same["aggressor"].tolist()
