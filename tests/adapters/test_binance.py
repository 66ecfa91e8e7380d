"""Binance Spot: its schema, its ids, its book rules by number, its limits."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdring.adapters import binance, binance_book, binance_metadata, binance_trades
from mdring.adapters.binance import BinanceAdapter, BinanceOptions
from mdring.feed.adapter import (
    Acknowledged,
    Endpoints,
    Fetch,
    InstrumentInfo,
    Reconnect,
    Request,
    Response,
    Send,
    Subscription,
    VenueProtocolError,
)
from mdring.feed.stage import Channel
from mdring.record import BBO, CLEAR, STATUS, TRADE, UNDEFINED_PRICE, Aggressor, DataType, Flags, Kind, Reason, State
from tests.adapters.cases import ALL, BINANCE, BINANCE_EXCHANGE_INFO
from tests.adapters.conformance import NOW, Bench, VenueCase, check_records, live

SECOND = 1_000_000_000


def bench_of(data_types: tuple[DataType, ...] = ALL, **options: Any) -> Bench:
    """A bench with NKNUSDT alone."""
    case = VenueCase(
        name="binance",
        make=lambda subscriptions: BinanceAdapter(BinanceAdapter.endpoints, BinanceOptions(**options), subscriptions),
        subscriptions=(Subscription("NKNUSDT", data_types),),
        metadata=BINANCE_EXCHANGE_INFO,
        frames=(),
        snapshot=lambda fetch: b"",
        other_frame=b"",
    )
    return Bench(case)


def depth(first: int, last: int, bids: Any = (), asks: Any = (), time: int = 1_633_998_512_068) -> str:
    data = {"e": "depthUpdate", "E": time, "s": "NKNUSDT", "U": first, "u": last, "b": bids, "a": asks}
    return json.dumps({"stream": "nknusdt@depth@100ms", "data": data}, separators=(",", ":"))


def snapshot(last: int, bids: Any = (), asks: Any = ()) -> bytes:
    return json.dumps({"lastUpdateId": last, "bids": bids, "asks": asks}).encode()


def trade(number: int, price: str = "0.3521", size: str = "100", time: int = 1_672_515_782_136) -> str:
    data = {"e": "trade", "E": time + 1, "s": "NKNUSDT", "t": number, "p": price, "q": size, "T": time, "m": True}
    return json.dumps({"stream": "nknusdt@trade", "data": data}, separators=(",", ":"))


def ticker(number: int, **changed: str) -> str:
    data = {"u": number, "s": "NKNUSDT", "b": "0.3521", "B": "672.0", "a": "0.3526", "A": "3199.0"} | changed
    return json.dumps({"stream": "nknusdt@bookTicker", "data": data}, separators=(",", ":"))


def fetches(requests: Any) -> list[Fetch]:
    return [request for request in requests if isinstance(request, Fetch)]


def statuses(records: npt.NDArray[np.void]) -> list[tuple[State, Reason, int, int]]:
    rows = records[records["kind"] == Kind.STATUS].view(STATUS)
    return [(State(row["state"]), Reason(row["reason"]), int(row["expected"]), int(row["found"])) for row in rows]


def kinds(records: npt.NDArray[np.void]) -> list[Kind]:
    return [Kind(kind) for kind in records["kind"]]


# ---- wire schema ------------------------------------------------------------------------------------------

SCHEMA = [
    binance.Combined[binance.BookTicker],
    binance_trades.Trade,
    binance_trades.AggTrade,
    binance.BookTicker,
    binance_book.DepthUpdate,
    binance_book.Snapshot,
    binance.ErrorDetail,
    binance.Notice,
    binance_metadata.Filter,
    binance_metadata.Symbol,
    binance_metadata.ExchangeInfo,
]


@pytest.mark.parametrize("struct", SCHEMA, ids=lambda struct: getattr(struct, "__name__", str(struct)))
def test_docstring_of_each_wire_struct_is_a_payload_that_it_decodes(struct: Any) -> None:
    payload = ((getattr(struct, "__origin__", struct).__doc__) or "").split("\n")[0]
    decoded = msgspec.json.decode(payload, type=struct)
    plain = json.loads(payload)
    for field in msgspec.structs.fields(struct):
        if field.required:
            value = getattr(decoded, field.name)
            if isinstance(value, msgspec.Raw):
                value = json.loads(bytes(value))
            if isinstance(value, str | int | bool):
                assert value == plain[field.encode_name]


def test_every_struct_of_the_wire_is_among_those_tested() -> None:
    defined = {
        value
        for module in (binance, binance_book, binance_trades, binance_metadata)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and (value.__doc__ or "").startswith("{")
    }
    assert defined == {getattr(struct, "__origin__", struct) for struct in SCHEMA}


# ---- metadata ---------------------------------------------------------------------------------------------


def test_metadata_names_the_instrument_by_its_assets_and_its_exponents_by_the_wire() -> None:
    infos = Bench(BINANCE).infos
    assert [infos[name].canonical_symbol for name in ("NKNUSDT", "RUNEEUR")] == ["NKN-USDT", "RUNE-EUR"]
    assert (infos["NKNUSDT"].price_exponent, infos["NKNUSDT"].size_exponent) == (-8, -8)
    assert (infos["NKNUSDT"].base, infos["NKNUSDT"].quote, infos["NKNUSDT"].trading) == ("NKN", "USDT", True)


def test_all_instruments_are_told_and_whether_each_is_trading() -> None:
    adapter = BinanceAdapter(BinanceAdapter.endpoints, BinanceOptions(), [])
    infos = adapter.on_metadata(Response("exchangeInfo", "", 200, BINANCE_EXCHANGE_INFO))
    assert [(info.instrument, info.trading, info.status) for info in infos if isinstance(info, InstrumentInfo)] == [
        ("NKNUSDT", True, "TRADING"), ("RUNEEUR", True, "TRADING"), ("XECUSDT", False, "BREAK"),
    ]  # fmt: skip


def test_instrument_that_no_record_could_be_made_for_costs_no_other() -> None:
    adapter = BinanceAdapter(BinanceAdapter.endpoints, BinanceOptions(), [])
    body = BINANCE_EXCHANGE_INFO.replace(b'"tickSize": "0.00010000"', b'"tickSize": "x"')
    infos = adapter.on_metadata(Response("exchangeInfo", "", 200, body))
    assert [info.instrument for info in infos if isinstance(info, InstrumentInfo)] == ["RUNEEUR", "XECUSDT"]
    ((what, sample),) = adapter.unknown.take_new()
    assert "x" in what and b"NKNUSDT" in sample and adapter.counts.ignored == 1


@pytest.mark.parametrize(
    ("step", "largest", "precision", "exponent"),
    [
        ("0.00010000", "1000.00000000", 8, -8),  # orders older than a change of the tick may be finer
        ("1.00", "46116860414000.00", 8, -5),  # the wire's precision would leave no room
        ("10.00000000", "0", 8, -8),  # no maximum
        ("0.00000000", "0.00000000", 8, -8),  # no rule at all
        ("0.0000000001", "1", 8, -10),  # finer than the precision says
        ("0.01", "9223372036854775807", 2, -2),  # the step comes before the room
        ("1", "99999999999999999999", 8, 0),
    ],
)
def test_exponent_is_the_finest_that_leaves_room_and_never_coarser_than_the_step(
    step: str, largest: str, precision: int, exponent: int
) -> None:
    try:
        limit = binance_metadata.number(largest)
    except VenueProtocolError:
        limit = Decimal(2**63 * 10)
    assert binance_metadata.exponent(binance_metadata.number(step), limit, precision) == exponent


@pytest.mark.parametrize("text", ["", "x", "NaN", "Infinity", "-1", "1e400"])
def test_filter_that_is_no_number_is_the_venues_fault(text: str) -> None:
    with pytest.raises(VenueProtocolError):
        binance_metadata.number(text)


@pytest.mark.parametrize(("status", "body"), [(451, b""), (0, b"timed out"), (200, b"{}"), (200, b"<html>")])
def test_unusable_metadata_is_a_protocol_error(status: int, body: bytes) -> None:
    adapter = BinanceAdapter(BinanceAdapter.endpoints, BinanceOptions(), [])
    with pytest.raises(VenueProtocolError):
        adapter.on_metadata(Response("exchangeInfo", "", status, body))


# ---- connections and subscriptions ------------------------------------------------------------------------


def bound(count: int, data_types: tuple[DataType, ...] = ALL, name: str = "SYM{}USDT") -> BinanceAdapter:
    names = [name.format(number) for number in range(count)]
    adapter = BinanceAdapter(
        BinanceAdapter.endpoints, BinanceOptions(), [Subscription(one, data_types) for one in names]
    )
    adapter.bind({one: Channel(one, number + 1, 1, -8, -8) for number, one in enumerate(names)})
    return adapter


def test_instruments_are_spread_so_that_no_connection_has_too_many_streams() -> None:
    connections = bound(1000).connections()
    assert [connection.connection for connection in connections] == [0, 1, 2]
    assert all(3 * len(connection.instruments) <= 1024 for connection in connections)
    assert len({one for connection in connections for one in connection.instruments}) == 1000


@pytest.mark.parametrize("name", ["SYM{}USDT", "币安人生币安人生币安人生币安人生币安人生{}USDT"])
def test_subscriptions_fit_the_venues_frames_and_name_each_stream_once(name: str) -> None:
    adapter = bound(1000, name=name)
    bench = Bench(BINANCE)
    sent: list[Request] = []
    for connection in adapter.connections():
        sent += adapter.on_connect(connection.connection, NOW, bench.emit)
    sends = [request for request in sent if isinstance(request, Send)]
    assert len(sends) == len(sent)
    names = []
    for request in sends:
        assert len(request.text.encode()) <= 4096
        message = json.loads(request.text)
        assert message["method"] == "SUBSCRIBE" and str(message["id"]) == request.ack
        assert len(message["params"]) <= 80
        names += message["params"]
    assert len(names) == len(set(names)) == 3000
    assert all(one.split("@")[0] == one.split("@")[0].lower() for one in names)


def test_options_choose_the_streams_the_time_unit_and_the_depth_of_snapshots() -> None:
    bench = bench_of(trade_stream="aggTrade", depth_speed="1000ms", time_unit="us", snapshot_limit=5000)
    (connection,) = bench.adapter.connections()
    assert connection.url == "wss://stream.binance.com:9443/stream?timeUnit=MICROSECOND"
    (send,) = bench.connect()
    assert isinstance(send, Send)
    assert json.loads(send.text)["params"] == ["nknusdt@aggTrade", "nknusdt@bookTicker", "nknusdt@depth"]
    (fetch,) = fetches(bench.frame('{"result":null,"id":1}'))
    assert fetch.url == "https://api.binance.com/api/v3/depth?symbol=NKNUSDT&limit=5000" and fetch.weight == 250


def test_times_are_of_the_connections_unit() -> None:
    for unit, time in (("ms", 1_672_515_782_136), ("us", 1_672_515_782_136_000)):
        bench = bench_of(time_unit=unit)
        bench.frame(trade(1, time=time))
        assert bench.last()["ts_event"].tolist() == [1_672_515_782_136_000_000]


def test_microseconds_on_a_connection_of_milliseconds_are_refused() -> None:
    bench = bench_of()
    bench.frame(trade(1, time=1_672_515_782_136_000))
    assert [error.reason for error in bench.errors] == [Reason.VALUE_OUT_OF_RANGE]


@pytest.mark.parametrize(
    ("configured", "opened"),
    [
        ("ws://127.0.0.1:9443", "ws://127.0.0.1:9443/stream"),
        ("wss://stream.binance.us:9443/", "wss://stream.binance.us:9443/stream"),
        ("wss://stream.testnet.binance.vision/ws", "wss://stream.testnet.binance.vision/ws"),
        ("wss://host/stream", "wss://host/stream"),
    ],
)
def test_other_endpoints_work_as_configured(configured: str, opened: str) -> None:
    adapter = BinanceAdapter(Endpoints(configured, "http://rest/"), BinanceOptions(), [Subscription("NKNUSDT", ALL)])
    adapter.bind({"NKNUSDT": Channel("NKNUSDT", 1, 1, -8, -8)})
    assert [connection.url for connection in adapter.connections()] == [opened]
    assert adapter.metadata_requests()[0].url == "http://rest/api/v3/exchangeInfo?showPermissionSets=false"


def test_answer_acknowledges_its_frame_and_starts_the_snapshot() -> None:
    bench = bench_of()
    (send,) = bench.connect()
    assert isinstance(send, Send)
    acknowledged, fetch = bench.frame('{"result":null,"id":1}')
    assert acknowledged == Acknowledged(0, send.ack or "")
    assert isinstance(fetch, Fetch) and fetch.connection == 0 and fetch.delay_ns == 0


def test_answer_to_nothing_that_was_sent_is_ignored() -> None:
    bench = bench_of()
    bench.connect()
    for text in ('{"result":null,"id":99}', '{"result":["a"],"id":"x"}', '{"result":null,"id":null}'):
        assert bench.frame(text) == ()
    assert bench.adapter.counts.ignored == 3 and bench.errors == []


@pytest.mark.parametrize(
    "text", ['{"error":{"code":4,"msg":"Too many subscriptions"},"id":1}', '{"code":2,"msg":"bad request","id":1}']
)
def test_refused_subscription_is_told_per_instrument_and_reconnects(text: str) -> None:
    bench = bench_of()
    bench.connect()
    (request,) = bench.frame(text)
    assert isinstance(request, Reconnect) and request.reason is Reason.SUBSCRIBE_REJECTED
    assert statuses(bench.last()) == [(State.REJECTED, Reason.SUBSCRIBE_REJECTED, 0, 0)]


def test_error_that_answers_nothing_is_a_protocol_error() -> None:
    bench = bench_of()
    bench.connect()
    bench.frame('{"error":{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"}}')
    assert [error.reason for error in bench.errors] == [Reason.SUBSCRIBE_REJECTED]


@pytest.mark.parametrize(
    "text",
    [
        '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
        '{"e":"serverShutdown","E":1770123456789}',
    ],
)
def test_announced_shutdown_asks_for_a_planned_reconnect(text: str) -> None:
    bench = bench_of()
    assert bench.frame(text) == (Reconnect(0, Reason.PLANNED_RECONNECT, "serverShutdown"),)
    assert not bench.adapter.is_data(text.encode())


def test_raw_form_of_every_message_gives_the_same_records_as_the_combined_one() -> None:
    combined, raw = live(BINANCE), Bench(BINANCE)
    raw.connect()
    for frame in BINANCE.frames:
        wrapped = json.loads(frame)
        text = json.dumps(wrapped.get("data", wrapped), separators=(",", ":"))
        for fetch in fetches(raw.frame(text)):
            raw.answer(fetch, BINANCE.snapshot(fetch))
    assert raw.errors == []
    np.testing.assert_array_equal(combined.records, raw.records)


def test_envelope_in_another_spelling_is_understood_too() -> None:
    bench = bench_of()
    message = json.loads(trade(1))
    bench.frame(json.dumps({"data": message["data"], "stream": message["stream"]}, indent=1))
    assert kinds(bench.last()) == [Kind.TRADE]


def test_message_of_another_symbol_than_its_stream_is_refused() -> None:
    bench = bench_of()
    bench.frame(trade(1).replace('"s":"NKNUSDT"', '"s":"BTCUSDT"'))
    (error,) = bench.errors
    assert error.instrument == "NKNUSDT" and error.data_type is DataType.TRADE
    assert kinds(bench.last()) == [Kind.STATUS]


# ---- trades -----------------------------------------------------------------------------------------------


def test_trade_is_decoded_with_its_aggressor_and_its_time() -> None:
    bench = bench_of()
    bench.frame(trade(12345, "0.35210000", "100.5"))
    bench.frame(trade(12346).replace('"m":true', '"m":false'))
    sold, bought = bench.records.view(TRADE)
    assert (sold["price"], sold["size"], sold["trade_id"], sold["venue_seq"]) == (35210000, 10050000000, 12345, 12345)
    assert sold["aggressor"] == Aggressor.SELL and bought["aggressor"] == Aggressor.BUY  # m: the buyer is the maker
    assert sold["ts_event"] == 1_672_515_782_136_000_000 and sold["trade_count"] == 1
    assert sold["flags"] == Flags.LAST


def test_aggregated_trade_tells_which_fills_it_merges() -> None:
    bench = bench_of()
    bench.frame(
        '{"stream":"nknusdt@aggTrade","data":{"e":"aggTrade","E":2,"s":"NKNUSDT","a":7,"p":"0.3528","q":"58","f":90,"l":93,"T":1,"m":false}}'
    )
    (row,) = bench.records.view(TRADE)
    assert (row["trade_id"], row["trade_count"], row["venue_seq"]) == (7, 4, 93)
    assert row["flags"] == Flags.LAST | Flags.AGGREGATED


@pytest.mark.parametrize("fills", [(5, 4), (0, 2**32)])
def test_aggregated_trade_of_impossible_fills_is_refused(fills: tuple[int, int]) -> None:
    bench = bench_of()
    bench.frame(
        '{"stream":"nknusdt@aggTrade","data":{"e":"aggTrade","E":2,"s":"NKNUSDT","a":7,"p":"0.3528","q":"58",'
        f'"f":{fills[0]},"l":{fills[1]},"T":1,"m":false}}}}'
    )
    assert len(bench.errors) == 1 and kinds(bench.last()) == [Kind.STATUS]


def test_missing_trade_is_told_before_the_trade_that_came() -> None:
    bench = bench_of()
    bench.frame(trade(10))
    bench.frame(trade(14))
    assert kinds(bench.last()) == [Kind.STATUS, Kind.TRADE]
    row = bench.last()[:1].view(STATUS)[0]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 11, 14)]
    assert (row["data_type"], row["count"]) == (DataType.TRADE, 3)
    assert bench.adapter.counts.gaps == 1


def test_trade_that_comes_late_is_marked_and_one_that_comes_twice_is_dropped() -> None:
    bench = bench_of()
    for number in (10, 12, 11, 11, 12, 13):
        bench.frame(trade(number))
    trades = bench.records[bench.records["kind"] == Kind.TRADE].view(TRADE)
    assert trades["trade_id"].tolist() == [10, 12, 11, 13]
    assert [bool(flags & Flags.RECOVERED) for flags in trades["flags"]] == [False, False, True, False]
    assert bench.adapter.counts.repeated == 2


def test_trades_missed_while_disconnected_are_a_gap() -> None:
    bench = bench_of()
    bench.connect()
    bench.frame(trade(10))
    bench.disconnect()
    bench.connect()
    bench.frame(trade(15))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 11, 15)]


def test_refused_trade_costs_no_book_and_counts_as_missing() -> None:
    bench = live(BINANCE)
    valid = bench.adapter.counts.books_valid
    bench.frame(trade(12346, price="0.352100001"))
    (error,) = bench.errors
    assert (error.reason, error.data_type) == (Reason.VALUE_OUT_OF_RANGE, DataType.TRADE)
    assert statuses(bench.last()) == [(State.REJECTED, Reason.VALUE_OUT_OF_RANGE, 0, 0)]
    assert bench.adapter.counts.books_valid == valid
    bench.frame(trade(12347))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 12346, 12347)]


@pytest.mark.parametrize(("price", "size"), [("0", "1"), ("-1", "1"), ("1", "0"), ("1", "-1"), ("", "1"), ("1", "")])
def test_trade_at_no_price_or_of_no_size_is_refused(price: str, size: str) -> None:
    bench = bench_of()
    bench.frame(trade(1, price, size))
    assert len(bench.errors) == 1 and kinds(bench.last()) == [Kind.STATUS]


# ---- best bid and ask -------------------------------------------------------------------------------------


def test_quote_has_no_venue_time_and_says_so() -> None:
    bench = bench_of()
    bench.frame(ticker(7))
    (row,) = bench.records.view(BBO)
    assert (row["bid_price"], row["bid_size"]) == (35210000, 67200000000)
    assert (row["ask_price"], row["ask_size"]) == (35260000, 319900000000)
    assert (row["ts_event"], row["venue_seq"], row["flags"]) == (0, 7, Flags.LAST | Flags.BAD_TS_EVENT)


def test_empty_side_of_the_quote_has_no_price() -> None:
    bench = bench_of()
    bench.frame(ticker(7, b="0.00000000", B="0.00000000"))
    (row,) = bench.records.view(BBO)
    assert (row["bid_price"], row["bid_size"], row["ask_price"]) == (UNDEFINED_PRICE, 0, 35260000)


def test_older_quote_is_dropped_but_not_on_a_new_connection() -> None:
    bench = bench_of()
    bench.connect()
    for number in (7, 9, 8, 9, 10):
        bench.frame(ticker(number))
    bench.disconnect()
    bench.connect()
    bench.frame(ticker(8))
    quotes = bench.records[bench.records["kind"] == Kind.BBO]
    assert quotes["venue_seq"].tolist() == [7, 9, 10, 8]
    assert bench.adapter.counts.repeated == 2


def test_one_wrong_id_does_not_silence_the_quotes_for_ever() -> None:
    bench = bench_of()
    for number in (7, 9_000_000_000, 8, 9):
        bench.frame(ticker(number))
    assert bench.records["venue_seq"].tolist() == [7, 9_000_000_000, 8, 9]


# ---- the book, by the venue's numbered rules --------------------------------------------------------------


def test_rule_1_and_2_diffs_are_held_until_the_snapshot_and_one_that_is_too_old_is_fetched_again() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 12, [["1.00", "1"]])))
    assert fetches(bench.frame(depth(13, 13))) == []  # one fetch is under way
    assert len(bench.records) == 0
    (again,) = fetches(bench.answer(fetch, snapshot(8)))
    assert len(bench.records) == 0 and again.delay_ns == SECOND // 4
    assert fetches(bench.answer(again, snapshot(9))) == []  # L + 1 == U is just recent enough
    assert bench.adapter.counts.books_valid == 1


def test_rule_3_diffs_up_to_the_snapshot_are_discarded() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 12, [["1.00", "1"]])))
    bench.frame(depth(13, 13, [["1.01", "2"]]))
    bench.answer(fetch, snapshot(12, [["0.99", "5"]]))
    levels = bench.records[bench.records["kind"] == Kind.LEVEL]
    assert levels["venue_seq"].tolist() == [12, 13]
    assert bench.adapter.counts.repeated == 0  # it was to be expected


def test_rule_4_first_diff_may_begin_before_the_snapshot_but_not_after_it() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 14, [["1.00", "1"]])))
    bench.answer(fetch, snapshot(12))
    assert bench.records[bench.records["kind"] == Kind.LEVEL]["venue_seq"].tolist() == [14]
    quiet = bench_of()
    quiet.connect()
    (fetch,) = fetches(quiet.frame('{"result":null,"id":1}'))
    quiet.answer(fetch, snapshot(12))
    assert len(fetches(quiet.frame(depth(14, 15)))) == 1
    assert statuses(quiet.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 13, 14)]


def test_rule_5_missing_diff_is_a_gap_in_the_stream_then_the_book_is_built_anew() -> None:
    bench = live(BINANCE)
    (fetch,) = fetches(bench.frame(depth(499869760, 499869761, [["0.35", "1"]])))
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    assert bench.last()["flags"].tolist() == [0, Flags.LAST]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 499869758, 499869760)]
    assert bench.last()[1:].view(CLEAR)[0]["reason"] == Reason.SEQUENCE_GAP
    bench.frame(depth(499869762, 499869763, [["0.36", "2"]]))
    assert len(bench.last()) == 0
    bench.answer(fetch, snapshot(499869761, [["0.34", "1"]], [["0.40", "1"]]))
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL, Kind.LEVEL, Kind.LEVEL, Kind.STATUS]
    assert [bool(flags & Flags.SNAPSHOT) for flags in bench.last()["flags"]] == [True] * 3 + [False] * 2
    assert statuses(bench.last()) == [(State.SYNCED, Reason.NONE, 0, 0)]
    check_records(bench.records)


def test_rule_5_known_diff_is_ignored() -> None:
    bench = live(BINANCE)
    bench.frame(depth(499869755, 499869757, [["0.35200000", "0"]]))
    bench.frame(depth(499869753, 499869754, [["0.35200000", "0"]]))
    assert len(bench.last()) == 0 and bench.adapter.counts.repeated == 2
    bench.frame(depth(499869758, 499869758, [["0.35", "1"]]))
    assert kinds(bench.last()) == [Kind.LEVEL]


def test_rule_5_diff_with_a_wrong_last_id_is_noticed_by_the_next_one() -> None:
    """A rule that ignores every diff with ``u <= local`` would be deaf from here on."""
    bench = live(BINANCE)
    bench.frame(depth(499869758, 9_999_999_999, [["0.35", "1"]]))
    assert kinds(bench.last()) == [Kind.LEVEL]
    bench.frame(depth(499869760, 499869761, [["0.36", "1"]]))
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]


def test_diff_without_levels_is_no_event_yet_its_ids_count() -> None:
    bench = live(BINANCE)
    bench.frame(depth(499869758, 499869760))
    assert len(bench.last()) == 0
    bench.frame(depth(499869761, 499869761, [["0.35", "1"]]))
    assert kinds(bench.last()) == [Kind.LEVEL]


def test_held_diffs_keep_the_time_when_they_came() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 12, [["1.00", "1"]]), NOW + 1))
    bench.frame(depth(13, 13, [["1.01", "1"]]), NOW + 2)
    bench.answer(fetch, snapshot(9, [["1", "1"]]), now_ns=NOW + 3)
    assert bench.last()["ts_recv"].tolist() == [NOW + 3, NOW + 3, NOW + 1, NOW + 2, NOW + 3]


def test_gap_among_held_diffs_is_told_after_the_snapshot_and_fetched_anew() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 12, [["1.00", "1"]])))
    bench.frame(depth(15, 16, [["1.01", "1"]]))
    bench.frame(depth(17, 18, [["1.02", "1"]]))
    (again,) = fetches(bench.answer(fetch, snapshot(9)))
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL, Kind.STATUS, Kind.CLEAR]
    assert bench.adapter.counts.books_valid == 0
    bench.answer(again, snapshot(16))
    assert bench.last()["venue_seq"].tolist() == [16, 18, 0]
    assert bench.adapter.counts.books_valid == 1
    check_records(bench.records)


@pytest.mark.parametrize(
    ("status", "headers", "delay_s"),
    [
        (0, {}, 0.25),
        (500, {}, 0.25),
        (429, {"Retry-After": "7"}, 7),
        (429, {}, 60),
        (418, {"retry-after": "300"}, 300),
        (418, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 120),
        (418, {"retry-after": "99999999"}, 3 * 24 * 3600),
    ],
)
def test_failed_snapshot_is_told_and_fetched_again_when_the_venue_allows(
    status: int, headers: dict[str, str], delay_s: float
) -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 12)))
    (again,) = fetches(bench.answer(fetch, b'{"code":-1003}', status, headers=headers))
    assert again.delay_ns == int(delay_s * SECOND)
    assert statuses(bench.last()) == [(State.RESYNCING, Reason.SNAPSHOT_FAILED, 0, status)]


def test_delay_between_snapshots_grows_to_a_bound_and_starts_anew_once_the_book_was_healthy() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 12)))
    delays = []
    for _ in range(12):
        (fetch,) = fetches(bench.answer(fetch, b"", 503))
        delays.append(fetch.delay_ns)
    assert delays == sorted(delays) and delays[:3] == [SECOND // 4, SECOND // 2, SECOND] and delays[-1] == 30 * SECOND
    bench.answer(fetch, snapshot(12))
    (fetch,) = fetches(bench.frame(depth(14, 14), NOW + 10 * SECOND))
    assert fetch.delay_ns == 30 * SECOND
    bench.answer(fetch, snapshot(14), now_ns=NOW + 20 * SECOND)
    (fetch,) = fetches(bench.frame(depth(16, 16), NOW + 100 * SECOND))
    assert fetch.delay_ns == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"lastUpdateId":12,"bids":[["x","1"]],"asks":[]}',
        b'{"lastUpdateId":-1,"bids":[],"asks":[]}',
        b'{"lastUpdateId":99999999999999999999,"bids":[],"asks":[]}',
    ],
)
def test_unusable_snapshot_leaves_no_level_and_is_fetched_again(body: bytes) -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 12)))
    assert len(fetches(bench.answer(fetch, body))) == 1
    (error,) = bench.errors
    assert (error.instrument, error.data_type) == ("NKNUSDT", DataType.BOOK)
    assert Kind.LEVEL not in kinds(bench.records)
    check_records(bench.records)


def test_answer_to_a_fetch_of_before_the_disconnect_is_of_no_use() -> None:
    bench = bench_of()
    bench.connect()
    (stale,) = fetches(bench.frame(depth(10, 12)))
    bench.disconnect()
    bench.connect()
    assert bench.answer(stale, snapshot(12)) == ()
    (fetch,) = fetches(bench.frame(depth(100, 101)))
    assert bench.answer(stale, snapshot(101)) == ()
    bench.answer(fetch, snapshot(101))
    assert bench.adapter.counts.books_valid == 1


def test_damaged_diff_costs_its_book_and_one_fetch_however_many_come() -> None:
    bench = live(BINANCE)
    wrong = depth(499869758, 499869758).replace('"U":499869758', '"U":"499869758"')
    requests = [request for _ in range(5) for request in bench.frame(wrong)]
    assert len(bench.errors) == 5 and len(fetches(requests)) == 1
    assert bench.adapter.counts.books_valid == 1  # the other instrument's
    assert kinds(bench.records)[-2:] == [Kind.STATUS, Kind.STATUS]
    check_records(bench.records)


def test_damaged_diff_among_those_held_costs_the_snapshot() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(depth(10, 12, [["x", "1"]])))
    (again,) = fetches(bench.answer(fetch, snapshot(9, [["1", "1"]])))
    assert len(bench.errors) == 1 and Kind.LEVEL not in kinds(bench.records)
    bench.answer(again, snapshot(12, [["1", "1"]]))
    assert bench.adapter.counts.books_valid == 1
    check_records(bench.records)


def test_held_diffs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of()
    monkeypatch.setattr("mdring.feed.book_sync.HELD_OVERHEAD_BYTES", 8 * 2**20)
    (fetch,) = fetches(bench.frame(depth(10, 10)))
    bench.frame(depth(11, 11))
    assert statuses(bench.records) == [(State.RESYNCING, Reason.BUFFER_FULL, 0, 0)]
    bench.frame(depth(12, 12))
    (again,) = fetches(bench.answer(fetch, snapshot(10)))  # 11 is forgotten
    bench.answer(again, snapshot(11))
    assert bench.adapter.counts.books_valid == 1


# ---- against a model of the venue -------------------------------------------------------------------------


class Venue:
    """A venue's book, all states that it ever had, and the diffs that lead through them."""

    def __init__(self, widths: list[int], changes: list[tuple[bool, int, int]]) -> None:
        self.states: dict[int, dict[tuple[str, int], int]] = {100: {}}
        self.diffs: list[tuple[int, int, dict[tuple[str, int], int]]] = []
        state: dict[tuple[str, int], int] = {}
        number, pending = 100, list(changes)
        for width in widths:
            first, diff = number + 1, {}
            for _ in range(width):
                if not pending:
                    return
                is_bid, price, size = pending.pop(0)
                number += 1
                key = ("b" if is_bid else "a", price)
                state = {**state, key: size}
                if size == 0:
                    del state[key]
                self.states[number] = state
                diff[key] = size
            self.diffs.append((first, number, diff))

    def frame(self, index: int) -> str:
        first, last, diff = self.diffs[index]
        sides: dict[str, list[list[str]]] = {"b": [], "a": []}
        for (side, price), size in diff.items():
            sides[side].append([f"{price}.00000000", f"{size}.00000000"])
        return depth(first, last, sides["b"], sides["a"])

    def snapshot(self, index: int) -> bytes:
        last = self.diffs[index][1]
        sides: dict[str, list[list[str]]] = {"b": [], "a": []}
        for (side, price), size in self.states[last].items():
            sides[side].append([f"{price}.0", f"{size}"])
        return snapshot(last, sides["b"], sides["a"])


def rebuild(records: npt.NDArray[np.void]) -> tuple[dict[tuple[str, int], int], int, bool]:
    """The book as a consumer has it: its levels, its last venue_seq, whether it is valid."""
    book: dict[tuple[str, int], int] = {}
    last, valid = 0, False
    for row in records:
        if row["kind"] == Kind.CLEAR:
            book, valid = {}, bool(row["flags"] & Flags.SNAPSHOT)
            last = int(row["venue_seq"])
        elif row["kind"] == Kind.LEVEL:
            key = ("b" if row["side"] == 1 else "a", int(row["price"]) // 10**8)
            book[key] = int(row["size"]) // 10**8
            last = int(row["venue_seq"])
            if book[key] == 0:
                del book[key]
    return book, last, valid


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    # Long from the start: a gap takes a book that is valid, and a book that is valid takes a while.
    widths=st.lists(st.integers(1, 3), min_size=20, max_size=20),
    changes=st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(0, 3)), min_size=40, max_size=60),
    fates=st.lists(st.sampled_from(["sent"] * 8 + ["lost", "twice", "swapped", "reconnect"]), min_size=20, max_size=20),
    answers=st.lists(st.integers(-4, 0), min_size=20, max_size=20),
)
def test_book_that_the_stream_calls_valid_is_the_venues_book_whatever_happens(
    widths: list[int], changes: list[tuple[bool, int, int]], fates: list[str], answers: list[int]
) -> None:
    venue = Venue(widths, changes)
    bench = bench_of((DataType.BOOK,))
    bench.connect()
    waiting: list[Fetch] = []
    order = list(range(len(venue.diffs)))
    for index, fate in zip(range(len(order)), fates, strict=False):
        if fate == "swapped" and index + 1 < len(order):
            order[index], order[index + 1] = order[index + 1], order[index]
    for step, index in enumerate(order):
        fate = fates[step]
        if fate == "reconnect":
            bench.disconnect()
            bench.connect()
            waiting.clear()
        for _ in range({"lost": 0, "twice": 2}.get(fate, 1)):
            waiting += fetches(bench.frame(venue.frame(index)))
        if waiting and answers[step] % 2 == 0:
            waiting += fetches(bench.answer(waiting.pop(0), venue.snapshot(max(0, step + answers[step]))))
        check_records(bench.records)
        book, last, valid = rebuild(bench.records)
        if valid:
            assert book == venue.states[last]
    assert bench.errors == []
