"""Deribit: the rules of its books by number, its trades, its answers and heartbeats, a recording of the real venue."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from mdring.adapters.deribit import DeribitAdapter, DeribitOptions
from mdring.decode import decode_capture
from mdring.feed.adapter import (
    Acknowledged,
    Fetch,
    Reconnect,
    Rejected,
    Request,
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
    Side,
    State,
    trade_id,
)
from tests.adapters.cases import ALL
from tests.adapters.conformance import NOW, Bench, VenueCase, check_records, groups
from tests.adapters.loopback import Loopback

PERPETUAL: Final = "BTC-PERPETUAL"
NVDA: Final = "NVDA_USDC-PERPETUAL"
SECOND: Final = 1_000_000_000
EVERYTHING: Final = DeribitAdapter.data_types

# What the documentation shows of each kind, cut to what may matter; the last two are of a recording of 2021.
ROWS: Final = (
    '{"tick_size":0.5,"tick_size_steps":[],"settlement_period":"perpetual","settlement_currency":"BTC","quote_currency":"USD","price_index":"btc_usd","min_trade_amount":10.0,"kind":"future","is_active":true,"instrument_type":"reversed","instrument_name":"BTC-PERPETUAL","expiration_timestamp":32503708800000,"counter_currency":"USD","contract_size":10.0,"block_trade_tick_size":0.01,"base_currency":"BTC","state":"open"}',
    '{"tick_size":0.01,"settlement_period":"perpetual","settlement_currency":"USDC","quote_currency":"USDC","min_trade_amount":0.01,"kind":"future","is_active":true,"instrument_type":"linear","instrument_name":"NVDA_USDC-PERPETUAL","expiration_timestamp":32503708800000,"counter_currency":"USDC","contract_size":0.01,"base_currency":"NVDA","state":"locked"}',
    '{"tick_size":2.5,"settlement_period":"month","settlement_currency":"BTC","quote_currency":"USD","min_trade_amount":10,"kind":"future","is_active":true,"instrument_type":"reversed","instrument_name":"BTC-25DEC26","expiration_timestamp":1798185600000,"counter_currency":"USD","contract_size":10,"base_currency":"BTC","state":"delivered"}',
    '{"tick_size":1.0e-4,"tick_size_steps":[{"tick_size":5.0e-4,"above_price":0.005}],"strike":100000.0,"settlement_period":"month","settlement_currency":"BTC","quote_currency":"BTC","option_type":"call","min_trade_amount":0.1,"kind":"option","is_active":true,"instrument_type":"reversed","instrument_name":"BTC-25DEC26-100000-C","expiration_timestamp":1798185600000,"counter_currency":"USD","contract_size":1.0,"block_trade_tick_size":0.0001,"base_currency":"BTC","state":"open"}',
    '{"tick_size":0.001,"strike":0.625,"settlement_period":"month","settlement_currency":"USDC","quote_currency":"USDC","option_type":"put","min_trade_amount":1000.0,"kind":"option","is_active":true,"instrument_type":"linear","instrument_name":"XRP_USDC-30JUN26-0d625-P","expiration_timestamp":1782806400000,"counter_currency":"USDC","contract_size":1000.0,"base_currency":"XRP","state":"open"}',
    '{"tick_size":1.0,"quote_currency":"USDC","min_trade_amount":0.0001,"kind":"spot","is_active":true,"instrument_type":"linear","instrument_name":"BTC_USDC","counter_currency":"USDC","contract_size":0.0001,"base_currency":"BTC","state":"open"}',
    '{"tick_size":0.0005,"strike":40000.0,"settlement_period":"month","quote_currency":"BTC","option_type":"put","min_trade_amount":0.1,"kind":"option","is_active":true,"instrument_name":"BTC-24SEP21-40000-P","expiration_timestamp":1632470400000,"contract_size":1.0,"base_currency":"BTC"}',
    '{"tick_size":0.05,"settlement_period":"week","quote_currency":"USD","min_trade_amount":1,"kind":"future","is_active":false,"instrument_name":"ETH-23JUL21","expiration_timestamp":1627027200000,"contract_size":1,"base_currency":"ETH"}',
)  # fmt: skip
LIST: Final = ('{"jsonrpc":"2.0","result":[' + ",".join(ROWS) + '],"usIn":1,"usOut":2,"usDiff":1}').encode()

# Messages and data of the documentation and of a recording of 2026.
NVDA_SNAPSHOT: Final = (
    '{"timestamp":1790133840448,"type":"snapshot","change_id":193809616666,"instrument_name":"NVDA_USDC-PERPETUAL","bids":[["new",228.51,0.22],["new",228.48,0.34]],"asks":[["new",228.52,0.34],["new",228.54,87.94]]}'
)  # fmt: skip
NVDA_CHANGE: Final = (
    '{"timestamp":1790133845258,"type":"change","change_id":193809650259,"instrument_name":"NVDA_USDC-PERPETUAL","bids":[["delete",228.48,0.0]],"asks":[["change",228.54,9.189e1]],"prev_change_id":193809616666}'
)  # fmt: skip
TRADE_MESSAGE: Final = (
    '{"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC-PERPETUAL.100ms","data":[{"timestamp":1765531356452,"price":92294.5,"amount":10.0,"direction":"sell","index_price":92276.75,"instrument_name":"BTC-PERPETUAL","trade_seq":271252854,"mark_price":92287.11,"tick_direction":2,"contracts":1.0,"combo_trade_id":"43","trade_id":"403691824"}]}}'
)  # fmt: skip
TICKER_DATA: Final = (
    '{"timestamp":1765541474086,"state":"open","stats":{"high":93612.0,"low":89277.5,"price_change":2.3275,"volume":11897.27640428,"volume_usd":1092371540.0,"volume_notional":1092371540.0},"index_price":92263.55,"instrument_name":"BTC-PERPETUAL","last_price":92283.5,"settlement_price":92464.66,"min_price":90897.5,"max_price":93666.5,"open_interest":1132329370.0,"mark_price":92281.78,"interest_value":0.0028213400122472977,"best_ask_price":92284.0,"best_bid_price":92283.5,"estimated_delivery_price":92263.55,"best_ask_amount":186520.0,"best_bid_amount":117660.0,"current_funding":-1.423032929843748e-4,"funding_8h":0.00001742}'
)  # fmt: skip


def case_of(*instruments: str, data_types: tuple[DataType, ...] = ALL, **options: Any) -> VenueCase:
    return VenueCase(
        name="deribit",
        make=lambda subscriptions: DeribitAdapter(DeribitAdapter.endpoints, DeribitOptions(**options), subscriptions),
        subscriptions=tuple(Subscription(name, data_types) for name in instruments or (PERPETUAL,)),
        metadata=LIST,
        frames=(),
        snapshot=lambda fetch: b"",
        other_frame=b"",
    )


def bench_of(*instruments: str, data_types: tuple[DataType, ...] = ALL, **options: Any) -> Bench:
    """A bench with these instruments, BTC-PERPETUAL if none is named; connected."""
    bench = Bench(case_of(*instruments, data_types=data_types, **options))
    bench.connect()
    return bench


def push(channel: str, data: Any) -> str:
    text = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}","data":{text}}}}}'


def book(
    last: int,
    previous: int | None,
    bids: Any = (),
    asks: Any = (),
    *,
    kind: str = "change",
    instrument: str = PERPETUAL,
    interval: str = "100ms",
) -> str:
    data = {"timestamp": 1790133845258, "type": kind, "change_id": last, "instrument_name": instrument}
    data |= {"bids": bids, "asks": asks} | ({} if previous is None else {"prev_change_id": previous})
    return push(f"book.{instrument}.{interval}", data)


def snapshot(last: int, bids: Any = (), asks: Any = (), **more: Any) -> str:
    return book(last, None, bids, asks, kind="snapshot", **more)


def trade(number: int, **changed: Any) -> dict[str, Any]:
    fields = {"timestamp": 1765531356452, "price": 92294.5, "amount": 10.0, "direction": "sell", "trade_seq": number}
    return {**fields, "instrument_name": PERPETUAL, "trade_id": str(403_000_000 + number), **changed}


def trades(*rows: dict[str, Any], instrument: str = PERPETUAL) -> str:
    return push(f"trades.{instrument}.100ms", rows)


def ticker(instrument: str = PERPETUAL, **changed: Any) -> str:
    fields = {"timestamp": 1765541474086, "state": "open", "index_price": 92263.55, "mark_price": 92281.78}
    fields |= {"best_ask_price": 92284.0, "best_bid_price": 92283.5, "best_ask_amount": 5.0, "best_bid_amount": 7.0}
    fields |= {"open_interest": 1132329370.0, "current_funding": 0.00001742, "funding_8h": 0.0, "last_price": None}
    return push(f"ticker.{instrument}.100ms", fields | changed)


def result(number: Any, *channels: str) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": number, "result": channels, "usIn": 1, "usOut": 2, "testnet": False})


def refused(number: int | None, code: int, message: str = "no") -> bytes:
    answer = {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}, "testnet": False}
    return json.dumps(answer).encode()


def sent(requests: Sequence[Request]) -> list[dict[str, Any]]:
    return [json.loads(request.text) for request in requests if isinstance(request, Send)]


def kinds(records: npt.NDArray[np.void]) -> list[Kind]:
    return [Kind(kind) for kind in records["kind"]]


def statuses(records: npt.NDArray[np.void]) -> list[tuple[State, Reason, int, int]]:
    rows = records[records["kind"] == Kind.STATUS].view(STATUS)
    return [(State(row["state"]), Reason(row["reason"]), int(row["expected"]), int(row["found"])) for row in rows]


def decimals(row: Any, *names: str) -> list[Decimal]:
    return [to_decimal(int(row[name]), int(row[f"{name}_exponent"])) for name in names]


# ---- instruments ------------------------------------------------------------------------------------------


def test_canonical_symbols_tell_what_is_settled_in_what() -> None:
    infos = bench_of().infos
    assert {name: info.canonical_symbol for name, info in infos.items()} == {
        "BTC-PERPETUAL": "BTC-USD-PERP@BTC",
        "NVDA_USDC-PERPETUAL": "NVDA-USDC-PERP",
        "BTC-25DEC26": "BTC-USD-20261225@BTC",
        "BTC-25DEC26-100000-C": "BTC-USD-20261225-100000-C@BTC",
        "XRP_USDC-30JUN26-0d625-P": "XRP-USDC-20260630-0.625-P",
        "BTC_USDC": "BTC-USDC",
        "BTC-24SEP21-40000-P": "BTC-USD-20210924-40000-P@BTC",
        "ETH-23JUL21": "ETH-USD-20210723@ETH",
    }


def test_sizes_of_inverse_futures_are_usd_and_all_others_coins() -> None:
    infos = bench_of().infos
    assert {name: (info.size_unit, info.settle, info.lot) for name, info in infos.items() if "21" not in name} == {
        "BTC-PERPETUAL": ("USD", "BTC", "10"),
        "NVDA_USDC-PERPETUAL": ("NVDA", "USDC", "0.01"),
        "BTC-25DEC26": ("USD", "BTC", "10"),
        "BTC-25DEC26-100000-C": ("BTC", "BTC", "0.1"),
        "XRP_USDC-30JUN26-0d625-P": ("XRP", "USDC", "1000"),
        "BTC_USDC": ("BTC", "", "0.0001"),
    }


def test_exponents_leave_room_for_what_is_finer_than_ticks() -> None:
    infos = bench_of().infos
    assert (infos[PERPETUAL].price_exponent, infos[PERPETUAL].tick) == (-6, "0.5"), "block trades have ticks of 0.01"
    assert (infos["BTC-25DEC26-100000-C"].price_exponent, infos["BTC-25DEC26-100000-C"].tick) == (-8, "0.0001")
    assert [infos[name].size_exponent for name in (PERPETUAL, "BTC-25DEC26-100000-C", "BTC_USDC")] == [-2, -3, -6]


def test_what_is_locked_for_a_while_can_be_subscribed_to_and_what_has_ended_cannot() -> None:
    infos = bench_of().infos
    ended = {name for name, info in infos.items() if not info.trading}
    assert ended == {"BTC-25DEC26", "ETH-23JUL21"}


def test_each_product_has_what_the_venue_tells_of_it() -> None:
    infos = bench_of().infos
    assert infos[PERPETUAL].data_types == EVERYTHING
    assert DataType.FUNDING not in infos["BTC-25DEC26"].data_types
    assert set(infos["BTC-25DEC26-100000-C"].data_types) == set(EVERYTHING) - {DataType.FUNDING}
    assert infos["BTC_USDC"].data_types == ALL


def test_combos_are_passed_over_and_rows_of_no_use_are_noted() -> None:
    adapter = bench_of().adapter
    combo = ROWS[0].replace('"future"', '"future_combo"').replace("BTC-PERPETUAL", "BTC-FS-25DEC26_PERP")
    rows = [combo, ROWS[0].replace('"future"', '"fruit"'), ROWS[3].replace("100000.0", "-5"), '{"kind":7}', ROWS[5]]
    body = ('{"result":[' + ",".join(rows) + "]}").encode()
    assert [info.instrument for info in adapter.on_metadata(Response("", "", 200, body))] == ["BTC_USDC"]  # type: ignore[union-attr]
    assert len(adapter.unknown.take_new()) == adapter.counts.ignored == 3


def test_where_the_list_of_all_is_missing_those_of_the_currencies_are_asked_for() -> None:
    adapter = Bench(case_of(PERPETUAL, NVDA, "BTC-25DEC26-100000-C")).adapter
    (every,) = adapter.metadata_requests()
    assert every.url == "https://www.deribit.com/api/v2/public/get_instruments?currency=any&expired=false"
    found = adapter.on_metadata(Response(every.tag, every.url, 404, b""))
    assert [fetch.url.partition("?")[2] for fetch in found if isinstance(fetch, Fetch)] == [
        "currency=BTC&expired=false",
        "currency=USDC&expired=false",
    ]
    with pytest.raises(VenueProtocolError):
        adapter.on_metadata(Response("BTC", "", 404, b""))


# ---- subscriptions ----------------------------------------------------------------------------------------


def test_heartbeats_are_asked_for_then_all_channels_in_one_request() -> None:
    bench = Bench(case_of(PERPETUAL, "BTC_USDC", data_types=EVERYTHING))
    heartbeat, subscription = sent(bench.connect())
    assert heartbeat["method"] == "public/set_heartbeat" and heartbeat["params"] == {"interval": 10}
    assert subscription["method"] == "public/subscribe" and subscription["jsonrpc"] == "2.0"
    assert subscription["params"]["channels"] == [
        "platform_state",
        *("trades.BTC-PERPETUAL.100ms", "quote.BTC-PERPETUAL"),
        *("book.BTC-PERPETUAL.100ms", "ticker.BTC-PERPETUAL.100ms"),
        *("trades.BTC_USDC.100ms", "quote.BTC_USDC", "book.BTC_USDC.100ms", "ticker.BTC_USDC.100ms"),
    ]  # fmt: skip


def test_options_choose_the_channels() -> None:
    bench = Bench(case_of(interval="agg2", bbo_channel="ticker"))
    assert sent(bench.connect())[1]["params"]["channels"] == [
        "platform_state", "trades.BTC-PERPETUAL.agg2", "ticker.BTC-PERPETUAL.agg2", "book.BTC-PERPETUAL.agg2",
    ]  # fmt: skip


def test_channels_are_spread_over_requests_and_connections() -> None:
    names = [f"A{number}_USDC" for number in range(400)]
    bench = bench_of(PERPETUAL)
    adapter = DeribitAdapter(
        DeribitAdapter.endpoints, DeribitOptions(), [Subscription(name, ALL) for name in names]
    )  # fmt: skip
    adapter.bind({name: Channel(name, number, 1, -1, -1) for number, name in enumerate(names, 1)})
    connections = adapter.connections()
    assert [len(connection.instruments) for connection in connections] == [166, 166, 68]
    assert {connection.url for connection in connections} == {"wss://www.deribit.com/ws/api/v2"}
    requests = sent(adapter.on_connect(0, NOW, bench.emit))
    assert [len(request["params"].get("channels", ())) for request in requests] == [0, 200, 200, 99]


def test_answer_lists_what_is_granted_in_any_order_and_what_it_lacks_is_refused() -> None:
    bench = bench_of(PERPETUAL, NVDA)
    text = result(2, "quote.BTC-PERPETUAL", "trades.NVDA_USDC-PERPETUAL.100ms", "book.BTC-PERPETUAL.100ms",
                  "quote.NVDA_USDC-PERPETUAL", "platform_state")  # fmt: skip
    acknowledged, *rejected = bench.adapter.on_frame(0, text.encode(), NOW, bench.emit)
    assert acknowledged == Acknowledged(0, "2")
    assert [(one.instrument, one.data_type) for one in rejected if isinstance(one, Rejected)] == [
        (PERPETUAL, DataType.TRADE),
        (NVDA, DataType.BOOK),
    ]
    bench.frame(snapshot(5))
    bench.frame(snapshot(5, instrument=NVDA))
    assert bench.adapter.counts.books_valid == 1, "a book that was refused has a snapshot"
    assert bench.frame(text) == ()  # nobody waits for it any more
    assert sent(bench.adapter.on_timer(0, NOW + 300 * SECOND, bench.emit)) == []


def test_refused_trades_cost_the_liquidations_too() -> None:
    bench = bench_of(data_types=EVERYTHING)
    text = result(2, "platform_state", "quote.BTC-PERPETUAL", "book.BTC-PERPETUAL.100ms").encode()
    rejected = [one for one in bench.adapter.on_frame(0, text, NOW, bench.emit) if isinstance(one, Rejected)]
    assert {one.data_type for one in rejected} == set(EVERYTHING) - {DataType.BBO, DataType.BOOK}


def test_answer_of_a_recording_to_another_request_of_that_number_refuses_nothing() -> None:
    bench = bench_of()
    assert bench.frame(result(2, "trades.ETH-PERPETUAL.raw")) == [Acknowledged(0, "2")]
    assert bench.frame(result("my-id", "trades.ETH-PERPETUAL.raw")) == ()
    bench.frame(snapshot(5))
    assert bench.adapter.counts.books_valid == 1 and bench.errors == []


def test_request_that_is_refused_as_a_whole_costs_all_its_channels() -> None:
    bench = bench_of()
    text = refused(2, 13778, "raw_subscriptions_not_available_for_unauthorized")
    acknowledged, *rejected = bench.adapter.on_frame(0, text, NOW, bench.emit)
    assert acknowledged == Acknowledged(0, "2") and len(rejected) == 3
    assert all(isinstance(one, Rejected) and "13778" in one.detail for one in rejected)


@pytest.mark.parametrize("code", [10028, 10066, 11051, 13028])
def test_what_passes_is_tried_again_by_another_connection(code: int) -> None:
    bench = bench_of()
    (request,) = bench.frame(refused(None, code))
    assert isinstance(request, Reconnect) and request.reason is Reason.SUBSCRIBE_REJECTED


@pytest.mark.parametrize("number", [None, 1, 99])
def test_error_that_concerns_no_subscription_is_a_protocol_error(number: int | None) -> None:
    bench = bench_of()
    bench.frame(refused(number, 11050, "bad_request"))
    assert [(error.instrument, error.reason) for error in bench.errors] == [(None, Reason.SUBSCRIBE_REJECTED)]


def test_test_request_is_answered_at_once_and_the_venues_answer_awaited() -> None:
    bench = bench_of()
    (request,) = bench.frame('{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}')
    assert isinstance(request, Send) and request.urgent
    message = json.loads(request.text)
    assert (message["method"], message["params"], str(message["id"])) == ("public/test", {}, request.ack)
    answer = {"jsonrpc": "2.0", "id": message["id"], "result": {"version": "1.2.26"}, "testnet": False}
    assert bench.frame(json.dumps(answer)) == [Acknowledged(0, str(request.ack))]
    assert bench.frame('{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}') == ()


def test_heartbeat_says_that_the_venue_lives_and_an_answer_does_not() -> None:
    adapter = bench_of().adapter
    assert adapter.is_data(b'{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"heartbeat"}}')
    assert adapter.is_data(memoryview(snapshot(5).encode()))
    assert not adapter.is_data(result(2).encode())


def test_members_in_another_order_find_their_route() -> None:
    bench = bench_of()
    message = json.loads(snapshot(5))
    message["params"] = dict(reversed(message["params"].items()))
    bench.frame(json.dumps(dict(reversed(message.items()))))
    assert bench.errors == [] and bench.adapter.counts.books_valid == 1


def test_channel_that_nobody_asked_for_is_kept_for_people_to_look_at() -> None:
    bench = bench_of()
    for instrument in ("btc_usd", "eth_usd"):
        bench.frame(push(f"deribit_price_index.{instrument}", {"price": 1.0}))
    assert [what for what, _ in bench.adapter.unknown.take_new()] == ["channel deribit_price_index"]
    assert bench.adapter.counts.ignored == 2 and bench.errors == []


# ---- books ------------------------------------------------------------------------------------------------


def test_documented_book_is_one_group_and_its_change_another() -> None:
    bench = bench_of(NVDA)
    bench.frame(push(f"book.{NVDA}.100ms", NVDA_SNAPSHOT))
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL, Kind.LEVEL, Kind.LEVEL, Kind.LEVEL, Kind.STATUS]
    assert set(bench.last()["venue_seq"].tolist()[:5]) == {193809616666}
    assert set(bench.last()["ts_event"].tolist()[:5]) == {1_790_133_840_448_000_000}
    bench.frame(push(f"book.{NVDA}.100ms", NVDA_CHANGE))
    bid, ask = bench.last().view(LEVEL)
    channel = bench.channels[NVDA]
    assert (bid["side"], bid["size"], ask["side"]) == (Side.BID, 0, Side.ASK)
    assert to_decimal(int(ask["price"]), channel.price_exponent) == Decimal("228.54")
    assert to_decimal(int(ask["size"]), channel.size_exponent) == Decimal("91.89")
    check_records(bench.records)


def test_rule_1_changes_before_the_snapshot_say_nothing_and_a_later_one_replaces_the_book() -> None:
    bench = bench_of()
    bench.frame(book(20, 15, [["new", 1.5, 10.0]]))
    assert len(bench.last()) == 0 and bench.adapter.counts.gaps == 0
    bench.frame(snapshot(20))
    bench.frame(snapshot(99, [["new", 1.5, 10.0]]))
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL]
    bench.frame(book(101, 99, [["change", 1.5, 20.0]]))
    assert (bench.adapter.counts.gaps, bench.adapter.counts.books_valid) == (0, 1)


def test_rule_2_ids_rise_by_any_amount_and_each_names_the_one_before() -> None:
    bench = bench_of()
    bench.frame(snapshot(10))
    for previous, last in ((10, 11), (11, 5_000), (5_000, 193_809_650_259)):
        bench.frame(book(last, previous, [["new", 1.5, 10.0]]))
    assert bench.adapter.counts.gaps == 0
    assert bench.last()["venue_seq"].tolist() == [193_809_650_259]


def test_rule_2_gap_is_told_then_this_book_alone_is_subscribed_to_anew() -> None:
    bench = bench_of(PERPETUAL, NVDA)
    for name in (PERPETUAL, NVDA):
        bench.frame(snapshot(10, [["new", 1.5, 10.0]], instrument=name))
    (request,) = sent(bench.frame(book(20, 15, [["change", 1.5, 20.0]])))
    assert (request["method"], request["params"]) == (
        "public/unsubscribe", {"channels": ["book.BTC-PERPETUAL.100ms"]},
    )  # fmt: skip
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 10, 15)]
    assert bench.adapter.counts.books_valid == 1
    assert bench.frame(book(25, 20, [["change", 1.5, 30.0]])) == () and len(bench.last()) == 0
    acknowledged, *again = bench.frame(result(request["id"], "book.BTC-PERPETUAL.100ms"))
    assert acknowledged == Acknowledged(0, str(request["id"]))
    assert [one["method"] for one in sent(again)] == ["public/subscribe"]
    bench.frame(result(sent(again)[0]["id"], "book.BTC-PERPETUAL.100ms"))
    bench.frame(snapshot(30, [["new", 1.5, 10.0]]))
    assert bench.adapter.counts.books_valid == 2
    check_records(bench.records)


@pytest.mark.parametrize("answer", [result(3), refused(3, -32602, "Invalid params").decode()])
def test_subscription_whose_end_is_not_granted_is_begun_all_the_same(answer: str) -> None:
    bench = bench_of()
    bench.frame(snapshot(10))
    (request,) = sent(bench.frame(book(20, 15)))
    assert request["id"] == 3
    assert [one["method"] for one in sent(bench.frame(answer))] == ["public/subscribe"]


def test_change_that_comes_twice_is_dropped_and_one_that_names_none_before_it_is_refused() -> None:
    bench = bench_of()
    bench.frame(snapshot(10))
    for _ in range(2):
        bench.frame(book(15, 10, [["new", 1.5, 10.0]]))
    assert len(bench.last()) == 0
    assert (bench.adapter.counts.repeated, bench.adapter.counts.gaps) == (1, 0)
    bench.frame(book(16, None, [["new", 1.5, 10.0]]))
    assert [error.instrument for error in bench.errors] == [PERPETUAL]
    assert bench.adapter.counts.books_valid == 0


@pytest.mark.parametrize("level", [["added", 1.5, 1.0], ["new", -1.5, 1.0], ["new", 1.5], ["new", 1.5, None]])
def test_rule_3_level_that_cannot_be_costs_a_resync_of_its_book(level: list[Any]) -> None:
    bench = bench_of()
    bench.frame(snapshot(10))
    assert [one["method"] for one in sent(bench.frame(book(15, 10, [level])))] == ["public/unsubscribe"]
    assert [(error.instrument, error.data_type) for error in bench.errors] == [(PERPETUAL, DataType.BOOK)]
    assert Kind.LEVEL not in kinds(bench.last())


def test_raw_books_of_recordings_are_decoded() -> None:
    bench = bench_of()
    bench.frame(snapshot(10, interval="raw"))
    bench.frame(book(15, 10, [["new", 1.5, 10.0]], interval="raw"))
    assert kinds(bench.last()) == [Kind.LEVEL] and bench.adapter.counts.books_valid == 1


def test_snapshot_that_does_not_come_is_asked_for_anew() -> None:
    bench = bench_of()
    assert sent(bench.adapter.on_timer(0, NOW + 10 * SECOND, bench.emit)) == []
    late = sent(bench.adapter.on_timer(0, NOW + 40 * SECOND, bench.emit))
    assert [one["method"] for one in late] == ["public/unsubscribe"]


# ---- trades -----------------------------------------------------------------------------------------------


def test_documented_trade_has_the_takers_side_and_its_own_number() -> None:
    bench = bench_of()
    bench.frame(TRADE_MESSAGE)
    (row,) = bench.last().view(TRADE)
    channel = bench.channels[PERPETUAL]
    assert (row["aggressor"], row["venue_seq"], trade_id(row)) == (Aggressor.SELL, 271252854, 403691824)
    assert (row["ts_event"], row["flags"]) == (1_765_531_356_452_000_000, Flags.LAST)
    assert to_decimal(int(row["price"]), channel.price_exponent) == Decimal("92294.5")
    assert to_decimal(int(row["size"]), channel.size_exponent) == 10


def test_trades_of_one_message_are_one_group_and_ids_may_be_text() -> None:
    bench = bench_of()
    bench.frame(trades(trade(7, trade_id="ETH-34066085"), trade(8, price=9.22945e4), trade(9)))
    (group,) = groups(bench.last())
    assert kinds(group) == [Kind.TRADE] * 3 and trade_id(group.view(TRADE)[0]) == "ETH-34066085"
    assert len(set(group.view(TRADE)["price"].tolist())) == 1


def test_missing_trades_are_told_late_ones_taken_and_repeated_ones_dropped() -> None:
    bench = bench_of()
    bench.frame(trades(trade(100)))
    bench.frame(trades(trade(103)))
    assert kinds(bench.last()) == [Kind.STATUS, Kind.TRADE]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 101, 103)]
    bench.frame(trades(trade(102)))
    assert bench.last()["flags"].tolist() == [Flags.LAST | Flags.RECOVERED]
    bench.frame(trades(trade(103), trade(104)))
    assert len(bench.last()) == 1
    assert (bench.adapter.counts.gaps, bench.adapter.counts.repeated) == (1, 1)
    check_records(bench.records)


def test_message_with_a_trade_that_cannot_be_counts_as_missing_whole() -> None:
    bench = bench_of()
    bench.frame(snapshot(5))
    bench.frame(trades(trade(100)))
    bench.frame(trades(trade(101), trade(102, amount=-1.0)))
    assert [(error.instrument, error.data_type) for error in bench.errors] == [(PERPETUAL, DataType.TRADE)]
    bench.frame(trades(trade(103)))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 101, 103)]
    assert bench.adapter.counts.books_valid == 1


@pytest.mark.parametrize(
    ("direction", "liquidation", "sides"),
    [
        ("sell", "T", [Aggressor.SELL]),
        ("sell", "M", [Aggressor.BUY]),
        ("buy", "MT", [Aggressor.BUY, Aggressor.SELL]),
    ],
)
def test_liquidation_is_told_by_the_side_of_the_order_that_closes_the_position(
    direction: str, liquidation: str, sides: list[Aggressor]
) -> None:
    bench = bench_of(data_types=EVERYTHING)
    bench.frame(trades(trade(7), trade(8, direction=direction, liquidation=liquidation)))
    assert [kinds(group) for group in groups(bench.last())] == [[Kind.TRADE] * 2, [Kind.LIQUIDATION] * len(sides)]
    rows = bench.last()[2:].view(LIQUIDATION)
    assert rows["aggressor"].tolist() == sides and set(rows["venue_seq"].tolist()) == {8}
    assert decimals(rows[0], "order_price") == [Decimal("92294.5")]


def test_liquidations_may_be_wanted_without_trades() -> None:
    bench = bench_of(data_types=(DataType.LIQUIDATION,))
    bench.frame(trades(trade(7), trade(8, liquidation="T")))
    assert kinds(bench.last()) == [Kind.LIQUIDATION]
    bench.frame(trades(trade(11)))
    (gap,) = bench.last().view(STATUS)
    assert (gap["data_type"], gap["count"]) == (DataType.LIQUIDATION, 2)


# ---- quotes and tickers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", ["null", "0.0", "0"])
def test_empty_side_of_a_quote_is_null_or_0(empty: str) -> None:
    bench = bench_of()
    sides = f'"best_ask_price":{empty},"best_bid_price":9.2288e4,"best_ask_amount":0.0,"best_bid_amount":133440.0'
    bench.frame(push("quote.BTC-PERPETUAL", f'{{"timestamp":1765541767174,{sides}}}'))
    (row,) = bench.last().view(BBO)
    assert (row["ask_price"], row["ask_size"]) == (UNDEFINED_PRICE, 0)
    assert to_decimal(int(row["bid_price"]), bench.channels[PERPETUAL].price_exponent) == 92288
    assert row["ts_event"] == 1_765_541_767_174_000_000


def test_documented_ticker_tells_mark_funding_and_open_interest() -> None:
    bench = bench_of(data_types=(DataType.MARK, DataType.FUNDING, DataType.OPEN_INTEREST))
    bench.frame(push("ticker.BTC-PERPETUAL.100ms", TICKER_DATA))
    assert [kinds(group) for group in groups(bench.last())] == [[Kind.MARK], [Kind.FUNDING], [Kind.OPEN_INTEREST]]
    mark, funding, interest = bench.last()[:1].view(MARK)[0], bench.last()[1:2].view(FUNDING)[0], bench.last()[2:]
    assert decimals(mark, "mark_price", "index_price") == [Decimal("92281.78"), Decimal("92263.55")]
    assert decimals(funding, "rate") == [Decimal("-0.0001423032929843748")]
    assert (funding["interval_ns"], funding["next_funding_ts"]) == (8 * 3600 * SECOND, 0)
    assert decimals(interest.view(OPEN_INTEREST)[0], "open_interest") == [1132329370]
    assert set(bench.last()["ts_event"].tolist()) == {1_765_541_474_086_000_000}


def test_what_a_ticker_repeats_is_not_told_again_until_the_next_connection() -> None:
    bench = bench_of(data_types=EVERYTHING)
    bench.frame(ticker())
    bench.frame(ticker(last_price=92284.0))
    assert len(bench.last()) == 0
    bench.frame(ticker(mark_price=92282.0))
    assert kinds(bench.last()) == [Kind.MARK]
    bench.disconnect()
    bench.connect()
    bench.frame(ticker(mark_price=92282.0))
    assert sorted(kinds(bench.last())) == [Kind.BBO, Kind.FUNDING, Kind.MARK, Kind.OPEN_INTEREST]


def test_quotes_are_taken_from_tickers_until_they_come_by_themselves() -> None:
    bench = bench_of()
    bench.frame(ticker())
    assert kinds(bench.last()) == [Kind.BBO]
    quote = {"timestamp": 1765541767174, "best_ask_price": 9.0, "best_bid_price": 8.0}
    bench.frame(push("quote.BTC-PERPETUAL", quote | {"best_ask_amount": 1.0, "best_bid_amount": 1.0}))
    bench.frame(ticker(best_bid_price=92284.0))
    assert len(bench.last()) == 0
    bench.disconnect()
    bench.connect()
    bench.frame(ticker())
    assert kinds(bench.last()) == [Kind.BBO]


def test_ticker_of_an_option_has_no_funding_and_one_that_is_of_no_use_costs_no_book() -> None:
    name = "BTC-25DEC26-100000-C"
    bench = bench_of(name, data_types=EVERYTHING)
    bench.frame(snapshot(5, instrument=name))
    bench.frame(push(f"ticker.{name}.100ms", {"timestamp": 1, "best_ask_price": 0.0, "best_bid_price": 0.0,
                     "best_ask_amount": 0.0, "best_bid_amount": 0.0, "mark_price": 0.0015, "index_price": None,
                     "open_interest": 12.5}))  # fmt: skip
    assert kinds(bench.last()) == [Kind.BBO, Kind.MARK, Kind.OPEN_INTEREST]
    assert bench.last()[1:2].view(MARK)[0]["index_price"] == UNDEFINED_PRICE
    bench.frame(push(f"ticker.{name}.100ms", {"timestamp": 1}))
    assert len(bench.errors) == 1 and bench.adapter.counts.books_valid == 1


# ---- the state of the platform ----------------------------------------------------------------------------


def halts(bench: Bench) -> list[tuple[int, State, str]]:
    rows = bench.last()[bench.last()["kind"] == Kind.STATUS].view(STATUS)
    return [
        (int(row["instrument_id"]), State(row["state"]), bytes(row["detail"]).rstrip(b"\0").decode()) for row in rows
    ]


def test_maintenance_halts_all_and_the_next_subscription_that_is_granted_ends_it() -> None:
    bench = bench_of(PERPETUAL, NVDA)
    bench.frame(push("platform_state", {"maintenance": True}))
    assert halts(bench) == [(1, State.HALTED, "maintenance"), (2, State.HALTED, "maintenance")]
    bench.frame(push("platform_state", {"price_index": "btc_usd", "locked": False, "reasons": []}))
    assert halts(bench) == []
    bench.disconnect()
    request = sent(bench.connect())[1]
    bench.frame(result(request["id"], *request["params"]["channels"]))
    assert halts(bench) == [(1, State.TRADING, ""), (2, State.TRADING, "")]
    check_records(bench.records)


def test_locked_index_halts_the_instruments_that_hang_on_it() -> None:
    bench = bench_of(PERPETUAL, NVDA, "BTC-25DEC26-100000-C")
    for _ in range(2):
        bench.frame(push("platform_state", {"price_index": "eth_usd", "locked": True, "reasons": []}))
        assert halts(bench) == []
    bench.frame(push("platform_state", '{"price_index":"btc_usd","locked":true,"reasons":[]}'))
    assert halts(bench) == [(1, State.HALTED, "btc_usd is locked"), (3, State.HALTED, "btc_usd is locked")]
    bench.frame(snapshot(5))
    (request,) = sent(bench.frame(book(9, 8)))
    (again,) = sent(bench.frame(result(request["id"], *request["params"]["channels"])))
    bench.frame(result(again["id"], *again["params"]["channels"]))
    assert halts(bench) == []  # that a book is subscribed to anew says nothing of the lock
    bench.frame(push("platform_state", '{"price_index":"btc_usd","locked":false,"reasons":[]}'))
    assert halts(bench) == [(1, State.TRADING, ""), (3, State.TRADING, "")]


def test_maintenance_of_the_emulated_venue_is_told_of_every_instrument() -> None:
    loop = Loopback("deribit")
    loop.run(2.0)
    loop.emulator.announce_shutdown()
    loop.run(0.1)
    assert {loop.statuses(name)[-1] for name in loop.names(DataType.BOOK)} == {(State.HALTED, Reason.NONE)}
    assert loop.reconnects == [] and loop.errors == []


# ---- the real venue ---------------------------------------------------------------------------------------

CAPTURES: Final = Path(os.environ.get("MDRING_CAPTURES", Path(__file__).parents[3] / "shared" / "captures"))


def recorded_books(capture: Path) -> dict[str, list[dict[str, Any]]]:
    """The book messages of a recording by instrument, numbers as text."""
    found: dict[str, list[dict[str, Any]]] = {}
    with gzip.open(capture, "rt") as lines:
        for line in lines:
            event = json.loads(line)
            if event["ev"] == "recv":
                params = json.loads(event["text"], parse_float=str).get("params", {})
                if params.get("channel", "").startswith("book."):
                    found.setdefault(params["data"]["instrument_name"], []).append(params["data"])
    return found


def test_messages_as_the_venue_writes_them_take_direct_routes() -> None:
    """Also as it wrote them in 2021, in another order of members."""
    bench = bench_of(PERPETUAL, NVDA)
    bench.frame(push(f"book.{NVDA}.100ms", NVDA_SNAPSHOT))
    older = (
        '{"type":"change","timestamp":1790133845300,"prev_change_id":193809650259,"instrument_name":'
        '"NVDA_USDC-PERPETUAL","change_id":193809650300,"bids":[],"asks":[["new",300.0,1.5]]}'
    )
    quote = (
        '{"timestamp":1765541767174,"instrument_name":"BTC-PERPETUAL","best_ask_price":92288.5,"best_bid_price":92288.0,'
        '"best_ask_amount":99470.0,"best_bid_amount":133440.0}'
    )
    messages = (
        push(f"book.{NVDA}.100ms", NVDA_CHANGE),
        push(f"book.{NVDA}.100ms", older),
        push(f"quote.{PERPETUAL}", quote),
        TRADE_MESSAGE,
        trades(trade(271252855, trade_id="ETH-34066085"), trade(271252856, iv=55.5, index_price=1e-7, contracts=3)),
    )
    for number, message in enumerate(messages, 1):
        bench.frame(message)
        assert bench.adapter.direct is not None and bench.adapter.direct.taken == number, message
    bench.frame(trades(trade(271252857, liquidation="T")))
    assert bench.adapter.direct.taken == len(messages)
    bench.frame(ticker())  # quotes come by their own channel
    assert bench.errors == [] and Kind.BBO not in kinds(bench.last())


def test_recording_of_the_real_venue_gives_ten_books_in_sync_with_exactly_the_numbers_on_the_wire(
    tmp_path: Path,
) -> None:
    """Ten options, July 2021: raw books and tickers; nothing was traded."""
    capture = CAPTURES / "deribit.jsonl.gz"
    if not capture.is_file():
        pytest.skip(f"there is no recording at {capture}; MDRING_CAPTURES names another folder")
    books = recorded_books(capture)
    wanted = [Subscription(name, tuple(one for one in EVERYTHING if one is not DataType.FUNDING)) for name in books]
    summary = decode_capture("deribit", None, {}, wanted, capture, tmp_path, venue="deribit")
    assert (summary.books, summary.books_in_sync, summary.snapshots) == (10, 10, 10)
    assert (summary.gaps, summary.resyncs, summary.rejects, summary.ignored, summary.repeated) == (0, 0, 0, 0, 0)
    assert summary.unanswered == [] and summary.unknown_instruments == []
    assert (summary.frames, summary.kinds["BBO"], summary.kinds["MARK"]) == (66, 24, 34)
    records = np.load(tmp_path / "records.npy")
    check_records(records)
    rows = json.loads((tmp_path / "instruments.json").read_text())
    assert {row["canonical_symbol"] for row in rows} >= {"BTC-USD-20210924-8000-P@BTC", "ETH-USD-20210723-2300-C@ETH"}
    for row in rows:
        levels = records[(records["instrument_id"] == row["id"]) & (records["kind"] == Kind.LEVEL)].view(LEVEL)
        found = [
            (
                int(level["venue_seq"]),
                int(level["side"]),
                to_decimal(int(level["price"]), row["price_exponent"]),
                to_decimal(int(level["size"]), row["size_exponent"]),
            )
            for level in levels
        ]
        assert found == [
            (message["change_id"], side, Decimal(price), Decimal(size))
            for message in books[row["instrument"]]
            for side, levels in ((Side.BID, message["bids"]), (Side.ASK, message["asks"]))
            for _, price, size in levels
        ]
