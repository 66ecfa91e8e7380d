"""Binance futures: its contracts, its two paths, trades, quotes, and what contracts tell besides."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

import pytest

from mdring.adapters import binance_usdm_metadata as metadata
from mdring.adapters.binance_usdm import BinanceUsdmAdapter, BinanceUsdmOptions
from mdring.feed.adapter import (
    Acknowledged,
    Fetch,
    InstrumentInfo,
    Reconnect,
    Rejected,
    Response,
    Send,
    Subscription,
    VenueProtocolError,
)
from mdring.feed.fixed import to_decimal
from mdring.feed.stage import Channel
from mdring.record import (
    BBO,
    FUNDING,
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
from tests.adapters.conformance import NOW
from tests.adapters.usdm import (
    CONTRACTS,
    EVERYTHING,
    HOUR,
    MS,
    SECOND,
    aggregate,
    bench_of,
    connected,
    depth,
    fetches,
    kinds,
    listed,
    mark,
    statuses,
    subscribed,
    timer,
    trade,
    wrapped,
)

# ---- metadata ---------------------------------------------------------------------------------------------


def test_contracts_are_named_by_their_kind_their_assets_and_their_delivery() -> None:
    infos = bench_of().infos
    assert {name: info.canonical_symbol for name, info in infos.items()} == {
        "BTCUSDT": "BTC-USDT-PERP",
        "SUSHIUSDT": "SUSHI-USDT-PERP",
        "1000PEPEUSDT": "1000PEPE-USDT-PERP",
        "BTCUSDT_261225": "BTC-USDT-20261225",
        "XAUUSDT": "XAU-USDT-PERP",
        "SOONUSDT": "SOON-USDT-PERP",
        "BTCUSD_PERP": "BTC-USD-PERP@BTC",
        "BTCUSD_261225": "BTC-USD-20261225@BTC",
    }
    assert [name for name, info in infos.items() if not info.trading] == ["SOONUSDT"]
    assert [name for name, info in infos.items() if DataType.FUNDING not in info.data_types] == [
        "BTCUSDT_261225", "BTCUSD_261225",
    ]  # fmt: skip


def test_a_size_of_one_is_one_base_asset_or_a_contract_of_the_quote_asset() -> None:
    infos = bench_of().infos
    units = {name: (info.multiplier, info.size_unit, info.settle) for name, info in infos.items()}
    assert units["BTCUSDT"] == ("1", "BTC", "USDT")
    assert units["1000PEPEUSDT"] == ("1", "1000PEPE", "USDT")
    assert units["BTCUSD_PERP"] == units["BTCUSD_261225"] == ("100", "USD", "BTC")
    assert (infos["BTCUSDT"].tick, infos["BTCUSDT"].lot, infos["SUSHIUSDT"].lot) == ("0.1", "0.001", "1")


@pytest.mark.parametrize(
    ("step", "largest", "exponent"),
    [
        ("0.10", "4529764", -8),
        ("1", "50000000000000", -5),  # 8 digits would leave no room
        ("0", "0", -8),
        ("0.0000000001", "1", -10),
        ("0.01", "9223372036854775807", -2),  # the step comes before the room
        ("10", "1", -8),
    ],
)
def test_exponent_is_that_of_8_digits_or_what_leaves_room(step: str, largest: str, exponent: int) -> None:
    assert metadata.exponent(step, Decimal(largest)) == exponent


@pytest.mark.parametrize(
    "broken",
    [
        {"contractType": "PRE_MARKET_BOND"},
        {"contractType": "NEXT_QUARTER", "deliveryDate": 10**17},
        {"baseAsset": "A-B"},
        {"filters": [{"filterType": "PRICE_FILTER", "tickSize": "x"}]},
        {"filters": [{"filterType": "PRICE_FILTER", "tickSize": "-1"}]},
    ],
)
def test_contract_that_no_record_could_be_made_for_costs_no_other(broken: dict[str, Any]) -> None:
    adapter = BinanceUsdmAdapter(BinanceUsdmAdapter.endpoints, BinanceUsdmOptions(), [])
    body = listed({**CONTRACTS[0], **broken}, CONTRACTS[1])
    infos = adapter.on_metadata(Response("exchangeInfo", "", 200, body))
    assert [info.instrument for info in infos if isinstance(info, InstrumentInfo)] == ["SUSHIUSDT"]
    ((what, sample),) = adapter.unknown.take_new()
    assert what.startswith("instrument: ") and b"BTCUSDT" in sample


@pytest.mark.parametrize(("status", "body"), [(451, b""), (0, b"timed out"), (200, b"{}"), (200, b"[1]")])
def test_unusable_list_is_a_protocol_error(status: int, body: bytes) -> None:
    adapter = BinanceUsdmAdapter(BinanceUsdmAdapter.endpoints, BinanceUsdmOptions(), [])
    with pytest.raises(VenueProtocolError):
        adapter.on_metadata(Response("exchangeInfo", "", status, body))


# ---- paths, subscriptions, answers ------------------------------------------------------------------------


def test_streams_are_asked_for_on_the_path_that_delivers_them() -> None:
    bench = bench_of()
    public, market = bench.adapter.connections()
    assert (public.url, market.url) == (
        "wss://fstream.binance.com/public/stream",
        "wss://fstream.binance.com/market/stream",
    )
    assert public.instruments == market.instruments == ("BTCUSDT",)
    assert sorted(subscribed(bench, 0)) == ["btcusdt@bookTicker", "btcusdt@depth@100ms"]
    assert sorted(subscribed(bench, 1)) == [
        "!contractInfo", "btcusdt@aggTrade", "btcusdt@forceOrder", "btcusdt@markPrice@1s",
    ]  # fmt: skip


def test_options_choose_streams_their_path_and_the_depth_of_snapshots() -> None:
    bench = bench_of(trade_stream="trade", depth_speed="250ms", mark_speed="3s", snapshot_limit=100)
    assert sorted(subscribed(bench, 0)) == ["btcusdt@bookTicker", "btcusdt@depth", "btcusdt@trade"]
    assert sorted(subscribed(bench, 1)) == ["!contractInfo", "btcusdt@forceOrder", "btcusdt@markPrice"]
    (fetch,) = fetches(bench.frame('{"result":null,"id":1}'))
    assert fetch.url == "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=100" and fetch.weight == 5


@pytest.mark.parametrize(
    ("data_type", "probe"),
    [(DataType.LIQUIDATION, "btcusdt@markPrice@1s"), (DataType.OPEN_INTEREST, "btcusdt@markPrice@1s")],
)
def test_connection_of_what_is_rare_listens_to_something_steady_besides(data_type: DataType, probe: str) -> None:
    bench = bench_of(data_types=(data_type,))
    assert probe in subscribed(bench)
    bench.frame(mark())
    assert len(bench.records) == 0 and bench.errors == []
    assert bench.adapter.is_data(mark().encode()) and not bench.adapter.is_data(b'{"result":null,"id":1}')


def test_instruments_are_spread_so_that_no_connection_has_too_many_streams() -> None:
    names = [f"SYM{number}USDT" for number in range(1200)]
    adapter = BinanceUsdmAdapter(
        BinanceUsdmAdapter.endpoints, BinanceUsdmOptions(), [Subscription(name, EVERYTHING) for name in names]
    )
    adapter.bind({name: Channel(name, number, 1, -8, -8) for number, name in enumerate(names, 1)})
    connections = adapter.connections()
    assert [one.connection for one in connections] == list(range(len(connections)))
    bench = bench_of()
    asked: list[str] = []
    for one in connections:
        sends = [each for each in adapter.on_connect(one.connection, NOW, bench.emit) if isinstance(each, Send)]
        assert all(len(each.text.encode()) <= 4096 for each in sends)
        streams = [name for each in sends for name in json.loads(each.text)["params"]]
        assert len(streams) <= 1024 and len({each.ack for each in sends}) == len(sends)
        asked += streams
    assert len(asked) == len(set(asked)) == 5 * len(names) + 1


def test_only_the_answer_to_the_books_own_request_starts_its_snapshot() -> None:
    bench = connected()
    assert bench.frame('{"result":null,"id":2}') == ()  # of another connection than that of request 2
    acknowledged, fetch = bench.frame('{"result":null,"id":1}')
    assert acknowledged == Acknowledged(0, "1")
    assert isinstance(fetch, Fetch) and fetch.connection == 0 and fetch.weight == 20


def test_refused_request_is_told_per_stream_and_costs_the_connection() -> None:
    bench = connected()
    (request,) = bench.frame('{"error":{"code":4,"msg":"Too many subscriptions"},"id":1}')
    assert isinstance(request, Reconnect) and request.reason is Reason.SUBSCRIBE_REJECTED
    rows = bench.last().view(STATUS)
    assert sorted(rows["data_type"].tolist()) == [DataType.BBO, DataType.BOOK]
    assert set(rows["state"].tolist()) == {State.REJECTED}


@pytest.mark.parametrize("text", ['{"error":{"code":3,"msg":"Invalid JSON"}}', "{}", "[]", "x"])
def test_what_answers_nothing_and_is_nothing_is_a_protocol_error(text: str) -> None:
    bench = connected()
    bench.frame(text)
    assert len(bench.errors) == 1


def test_streams_that_nobody_asked_for_are_noted() -> None:
    bench = connected()
    bench.frame(wrapped("btcusdt@kline_1m", {"e": "kline", "E": 1, "s": "BTCUSDT", "k": {}}))
    bench.frame('{"e":"depthUpdate","E":1,"s":"BTCUSDT"}')  # the raw form
    bench.frame('{"result":null,"id":77}')
    assert bench.errors == [] and bench.adapter.counts.ignored == 3


def test_every_speed_of_a_stream_is_read_whichever_was_asked_for() -> None:
    bench = connected()
    bench.frame(mark().replace("markPrice@1s", "markPrice"))
    assert kinds(bench.last()) == [Kind.MARK, Kind.FUNDING]
    assert len(fetches(bench.frame(depth(10, 12, 9).replace("depth@100ms", "depth")))) == 1
    bench.frame(trade(5))
    assert kinds(bench.last()) == [Kind.TRADE]


# ---- trades -----------------------------------------------------------------------------------------------


def test_aggregated_trade_has_the_takers_side_its_fills_and_its_whole_size() -> None:
    bench = connected()
    bench.frame(aggregate(3141966230, 7297376181, 7297376207))
    bench.frame(aggregate(3141966231, m=False))
    sold, bought = bench.records.view(TRADE)
    assert (sold["price"], sold["size"]) == (6_800_500_000_000, 269_500_000)
    assert (sold["trade_id"], sold["venue_seq"], sold["trade_count"]) == (3141966230, 7297376207, 27)
    assert (sold["aggressor"], bought["aggressor"]) == (Aggressor.SELL, Aggressor.BUY)
    assert sold["ts_event"] == 1_771_263_510_041_000_000 and sold["flags"] == Flags.LAST | Flags.AGGREGATED


def test_fields_that_were_added_or_are_missing_change_no_trade() -> None:
    data = json.loads(aggregate(7))["data"]
    rows = []
    for without, more in (((), {}), (("nq", "st"), {}), ((), {"zz": {"x": [1]}})):
        bench = connected()
        bench.frame(wrapped("btcusdt@aggTrade", {k: v for k, v in {**more, **data}.items() if k not in without}))
        rows.append(bench.records.tobytes())
    assert len(set(rows)) == 1


def test_missing_trades_are_told_also_over_a_reconnect_and_repeated_ones_are_dropped() -> None:
    bench = connected()
    bench.frame(aggregate(10))
    bench.frame(aggregate(10))
    assert bench.adapter.counts.repeated == 1
    bench.disconnect(connection=1)
    bench.connect(connection=1)
    bench.frame(aggregate(14))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 11, 14)]
    row = bench.last()[:1].view(STATUS)[0]
    assert (row["data_type"], row["count"]) == (DataType.TRADE, 3)


@pytest.mark.parametrize("fills", [(5, 4), (0, 2**32)])
def test_aggregated_trade_of_impossible_fills_is_refused(fills: tuple[int, int]) -> None:
    bench = connected()
    bench.frame(aggregate(7, *fills))
    assert len(bench.errors) == 1 and kinds(bench.last()) == [Kind.STATUS]


def test_single_trades_leave_out_what_nobody_traded_and_count_its_ids() -> None:
    bench = connected(trade_stream="trade")
    bench.frame(trade(1))
    bench.frame(trade(2, "RPI"))
    for number, kind in enumerate(("NA", "INSURANCE_FUND", "ADL"), 3):
        bench.frame(trade(number, kind, **({"p": "0", "q": "0"} if kind == "NA" else {})))
    bench.frame(trade(6))
    assert kinds(bench.records) == [Kind.TRADE] * 3
    rows = bench.records.view(TRADE)
    assert rows["trade_id"].tolist() == rows["venue_seq"].tolist() == [1, 2, 6]
    assert rows["aggressor"].tolist() == [Aggressor.BUY] * 3
    assert bench.adapter.counts.gaps == bench.adapter.counts.ignored == 0 and bench.errors == []


def test_trade_of_a_kind_that_is_not_documented_is_noted_and_no_trade() -> None:
    bench = connected(trade_stream="trade")
    bench.frame(trade(1, "BLOCK"))
    bench.frame(trade(2))
    ((what, sample),) = bench.adapter.unknown.take_new()
    assert what == "trade of kind BLOCK" and b"63113.20" in sample
    assert bench.records.view(TRADE)["trade_id"].tolist() == [2]


# ---- best bid and ask -------------------------------------------------------------------------------------

TICKER: Final = (
    '{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":%d,"s":"BTCUSDT","ps":"BTCUSDT","b":"72009.00",'
    '"B":"3.065","a":"72009.10","A":"2.180","T":1787231293915,"E":1787231293916,"st":1}}'
)


def test_quote_has_the_time_of_the_engine() -> None:
    bench = connected()
    bench.frame(TICKER % 11331904350110)
    (row,) = bench.records.view(BBO)
    assert (row["bid_price"], row["bid_size"]) == (7_200_900_000_000, 306_500_000)
    assert (row["ask_price"], row["ask_size"]) == (7_200_910_000_000, 218_000_000)
    assert (row["ts_event"], row["venue_seq"]) == (1_787_231_293_915_000_000, 11331904350110)
    bench.frame((TICKER % 11331904350111).replace('"B":"3.065"', '"B":"0.000"').replace('"72009.00"', '"0.00"'))
    (row,) = bench.last().view(BBO)
    assert (row["bid_price"], row["bid_size"]) == (UNDEFINED_PRICE, 0)


def test_older_quote_is_dropped_but_neither_on_a_new_connection_nor_for_ever() -> None:
    bench = connected()
    for number in (7, 9, 8, 9, 90_000_000_000, 10):
        bench.frame(TICKER % number)
    bench.disconnect()
    bench.connect()
    bench.frame(TICKER % 8)
    quotes = bench.records[bench.records["kind"] == Kind.BBO]
    assert quotes["venue_seq"].tolist() == [7, 9, 90_000_000_000, 10, 8]


# ---- states -----------------------------------------------------------------------------------------------


def state(symbol: str, status: str) -> str:
    data = {"e": "contractInfo", "E": 1_669_356_423_908, "s": symbol, "ps": symbol, "ct": "PERPETUAL"}
    data |= {"dt": 4_133_404_800_000, "ot": 1_569_398_400_000, "cs": status}
    return wrapped("!contractInfo", data)


def test_contract_that_is_not_traded_for_a_while_is_told_when_that_begins_and_ends() -> None:
    bench = connected()
    told = []
    for symbol, status in [
        ("BTCUSDT", "TRADING"), ("BTCUSDT", "PRE_SETTLE"), ("BTCUSDT", "SETTLING"), ("NOSUCH", "CLOSE"),
        ("BTCUSDT", "TRADING"),
    ]:  # fmt: skip
        bench.frame(state(symbol, status))
        told.append([(State(row["state"]), row["detail"]) for row in bench.last().view(STATUS)])
    assert told == [[], [(State.HALTED, b"PRE_SETTLE")], [], [], [(State.TRADING, b"")]]
    assert bench.errors == [] and bench.adapter.counts.ignored == 0


def test_end_of_a_halt_that_was_missed_is_found_in_the_list() -> None:
    bench = connected()
    bench.frame(state("BTCUSDT", "SETTLING"))
    bench.disconnect(connection=1)
    (fetch,) = fetches(bench.connect(connection=1), "exchangeInfo")
    assert bench.answer(fetch, b"", 503) == ()
    bench.answer(fetch, listed(*CONTRACTS))
    assert statuses(bench.last()) == [(State.TRADING, Reason.NONE, 0, 0)]
    assert fetches(bench.connect(connection=1), "exchangeInfo") == []
    bench.answer(fetch, b"<html>")
    assert len(bench.errors) == 1


# ---- what contracts tell besides --------------------------------------------------------------------------


def test_mark_price_index_and_funding_come_of_one_message() -> None:
    bench = connected()
    bench.frame(mark())
    assert kinds(bench.records) == [Kind.MARK, Kind.FUNDING]
    price = bench.records[:1].view(MARK)[0]
    assert to_decimal(int(price["mark_price"]), int(price["mark_price_exponent"])) == Decimal("76888.10")
    assert to_decimal(int(price["index_price"]), int(price["index_price_exponent"])) == Decimal("76935.00826087")
    funding = bench.records[1:].view(FUNDING)[0]
    assert to_decimal(int(funding["rate"]), int(funding["rate_exponent"])) == Decimal("0.000089")
    assert funding["next_funding_ts"] == 1_789_488_000_000 * MS and funding["predicted_rate"] == UNDEFINED_PRICE
    assert funding["interval_ns"] == 0
    assert set(bench.records["ts_event"].tolist()) == {1_789_461_999_000 * MS}
    assert bench.records["flags"].tolist() == [Flags.LAST, Flags.LAST]


def test_funding_is_told_when_it_changes_and_on_each_connection() -> None:
    bench = connected(data_types=(DataType.FUNDING,))
    told = []
    for text in (mark(), mark(), mark(r="0.0001"), mark(r="0.0001"), mark(r="0.0001", T=1_789_516_800_000)):
        bench.frame(text)
        told.append(len(bench.last()))
    assert told == [1, 0, 1, 0, 1]
    bench.disconnect()
    bench.connect()
    bench.frame(mark(r="0.0001", T=1_789_516_800_000))
    assert kinds(bench.last()) == [Kind.FUNDING]


def test_interval_of_funding_is_what_the_venue_lists_or_what_its_times_show() -> None:
    bench = connected("BTCUSDT", "SUSHIUSDT", data_types=(DataType.FUNDING,))
    (fetch,) = fetches(bench.requests, "fundingInfo")
    assert (fetch.weight, fetch.connection) == (0, 0)
    row = '{"symbol":"BTCUSDT","adjustedFundingRateCap":"0.025","fundingIntervalHours":4,"disclaimer":false}'
    bench.answer(fetch, f"[{row}]".encode())
    bench.frame(mark())
    sushi = mark(s="SUSHIUSDT").replace("btcusdt@", "sushiusdt@")
    bench.frame(sushi)
    assert bench.records.view(FUNDING)["interval_ns"].tolist() == [4 * HOUR, 8 * HOUR]
    bench.frame(mark(T=1_789_488_000_000 + 3_600_000))
    bench.frame(mark(T=1_789_488_000_000 + 3_600_001))  # no interval that a venue has
    assert bench.records.view(FUNDING)["interval_ns"].tolist()[2:] == [HOUR, HOUR]


@pytest.mark.parametrize(("status", "body", "errors"), [(404, b"", 0), (0, b"", 0), (200, b"<html>", 1)])
def test_without_the_list_of_intervals_the_rates_come_all_the_same(status: int, body: bytes, errors: int) -> None:
    bench = connected(data_types=(DataType.FUNDING,))
    (fetch,) = fetches(bench.requests, "fundingInfo")
    assert bench.answer(fetch, body, status) == ()
    assert len(bench.errors) == errors
    bench.frame(mark())
    assert bench.last().view(FUNDING)["interval_ns"].tolist() == [0]


def test_dated_contract_has_a_mark_price_and_its_funding_is_refused_once() -> None:
    bench = connected("BTCUSDT_261225", data_types=(DataType.MARK, DataType.FUNDING))
    text = mark(s="BTCUSDT_261225", r="", T=0).replace("btcusdt@", "btcusdt_261225@")
    (refused,) = bench.frame(text)
    assert isinstance(refused, Rejected)
    assert (refused.instrument, refused.data_type) == ("BTCUSDT_261225", DataType.FUNDING)
    assert bench.frame(text) == ()
    assert kinds(bench.records) == [Kind.MARK, Kind.MARK] and bench.errors == []


LIQUIDATION_ORDER: Final = (
    '{"stream":"sushiusdt@forceOrder","data":{"e":"forceOrder","E":1786172557615,"o":{"s":"SUSHIUSDT","S":"SELL",'
    '"o":"LIMIT","f":"IOC","q":"5","p":"0.1336000","ap":"0.1355000","X":"FILLED","l":"2","z":"3","T":1786172556607,'
    '"ps":"SUSHIUSDT","st":1}}}'
)


def test_liquidation_is_the_order_that_closes_the_position() -> None:
    bench = connected("SUSHIUSDT")
    bench.frame(LIQUIDATION_ORDER)
    (row,) = bench.records.view(LIQUIDATION)
    assert row["aggressor"] == Aggressor.SELL and row["size"] == 5 * 10 ** -bench.channels["SUSHIUSDT"].size_exponent
    assert to_decimal(int(row["order_price"]), int(row["order_price_exponent"])) == Decimal("0.1336")
    assert to_decimal(int(row["average_price"]), int(row["average_price_exponent"])) == Decimal("0.1355")
    assert row["ts_event"] == 1_786_172_556_607 * MS
    bench.frame(LIQUIDATION_ORDER.replace('"SELL"', '"BUY"').replace('"0.1355000"', '"0"'))
    (row,) = bench.last().view(LIQUIDATION)
    assert row["aggressor"] == Aggressor.BUY and row["average_price"] == UNDEFINED_PRICE
    bench.frame(LIQUIDATION_ORDER.replace('"s":"SUSHIUSDT"', '"s":"BTCUSDT"'))
    bench.frame(LIQUIDATION_ORDER.replace('"S":"SELL"', '"S":"LONG"'))
    assert [(error.instrument, error.data_type) for error in bench.errors] == [
        ("SUSHIUSDT", DataType.LIQUIDATION)
    ] * 2  # fmt: skip


INTEREST: Final = (DataType.OPEN_INTEREST,)


def test_open_interest_is_asked_for_again_and_again_spread_over_the_interval() -> None:
    bench = connected("BTCUSDT", "SUSHIUSDT", data_types=INTEREST, open_interest_s=10)
    asked: list[tuple[int, str]] = []
    for second in range(30):
        for fetch in timer(bench, NOW + second * SECOND):
            symbol = fetch.tag.split()[1]
            asked.append((second, symbol))
            body = json.dumps({"openInterest": "10659.509", "symbol": symbol, "time": 1_589_437_530_011 + second})
            bench.answer(fetch, body.encode())
    assert asked == [(at, name) for at, name in zip(range(0, 30, 5), ["BTCUSDT", "SUSHIUSDT"] * 3, strict=True)]
    rows = bench.records.view(OPEN_INTEREST)
    assert len(rows) == 6 and bench.errors == []
    assert to_decimal(int(rows[0]["open_interest"]), int(rows[0]["open_interest_exponent"])) == Decimal("10659.509")
    assert rows[0]["value"] == UNDEFINED_PRICE and rows[0]["ts_event"] == 1_589_437_530_011 * MS


def test_open_interest_of_many_costs_no_more_than_its_share_of_the_budget() -> None:
    names = [f"SYM{number}USDT" for number in range(300)]
    adapter = BinanceUsdmAdapter(
        BinanceUsdmAdapter.endpoints, BinanceUsdmOptions(), [Subscription(name, INTEREST) for name in names]
    )
    adapter.bind({name: Channel(name, number, 1, -8, -8) for number, name in enumerate(names, 1)})
    emit = bench_of().emit
    adapter.on_connect(0, NOW, emit)
    weight = 0
    for second in range(60):
        for fetch in adapter.on_timer(0, NOW + second * SECOND, emit):
            assert isinstance(fetch, Fetch)
            weight += fetch.weight
            adapter.on_response(Response(fetch.tag, fetch.url, 503, b""), NOW + second * SECOND, emit)
    assert 550 <= weight <= 610


def test_open_interest_waits_for_the_answer_and_for_as_long_as_the_venue_wants() -> None:
    bench = connected(data_types=INTEREST, open_interest_s=10)
    (fetch,) = timer(bench, NOW)
    assert timer(bench, NOW + 20 * SECOND) == []
    bench.answer(fetch, b"", 429, headers={"Retry-After": "30"}, now_ns=NOW + 20 * SECOND)
    assert timer(bench, NOW + 49 * SECOND) == []
    (fetch,) = timer(bench, NOW + 50 * SECOND)
    bench.answer(fetch, b'{"openInterest":"1","symbol":"BTCUSDT","time":5}')
    (fetch,) = timer(bench, NOW + 60 * SECOND)
    bench.answer(fetch, b'{"openInterest":"1","symbol":"BTCUSDT","time":5}')
    assert kinds(bench.records) == [Kind.OPEN_INTEREST]  # the second one is no news


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"openInterest":"x","symbol":"BTCUSDT","time":5}',
        b'{"openInterest":"-1","symbol":"BTCUSDT","time":5}',
        b'{"openInterest":"1","symbol":"ETHUSDT","time":5}',
        b'{"openInterest":"1","symbol":"BTCUSDT","time":99999999999999999999}',
    ],
)
def test_unusable_open_interest_costs_nothing_else(body: bytes) -> None:
    bench = connected(open_interest_s=10)
    (fetch,) = timer(bench, NOW, 1)
    assert bench.answer(fetch, body) == ()
    assert [(error.instrument, error.data_type) for error in bench.errors] == [("BTCUSDT", DataType.OPEN_INTEREST)]
    assert len(timer(bench, NOW + 10 * SECOND, 1)) == 1


def test_open_interest_of_what_the_venue_does_not_know_is_refused_and_asked_for_no_more() -> None:
    bench = connected(data_types=INTEREST)
    (fetch,) = timer(bench, NOW)
    (refused,) = bench.answer(fetch, b'{"code":-1121,"msg":"Invalid symbol."}', 400)
    assert isinstance(refused, Rejected)
    assert (refused.instrument, refused.data_type) == ("BTCUSDT", DataType.OPEN_INTEREST)
    assert "-1121" in refused.detail and timer(bench, NOW + 100 * SECOND) == []
