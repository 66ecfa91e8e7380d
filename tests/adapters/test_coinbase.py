"""Coinbase Exchange: books without ids, both sides of a trade, what is lost and fetched, its answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from mdring.adapters.coinbase import CoinbaseAdapter, CoinbaseOptions
from mdring.emulator.faults import FaultKind
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
from mdring.feed.emit import Emit
from mdring.feed.fixed import time_ns, to_decimal
from mdring.feed.stage import Channel
from mdring.record import (
    BBO,
    CLEAR,
    LEVEL,
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
)
from tests.adapters.coinbase_bench import (
    ALL,
    HEARTBEAT,
    MATCH,
    OTHER,
    PRODUCT,
    PRODUCTS,
    SNAPSHOT,
    TICKER,
    UPDATE,
    bench_of,
    changed,
    kinds,
    product,
    rows_of,
)
from tests.adapters.conformance import NOW, Bench, check_records
from tests.adapters.loopback import Loopback, Wanted

SECOND: Final = 1_000_000_000


def update(*changes: tuple[str, str, str], **fields: Any) -> str:
    return changed(UPDATE, changes=[list(change) for change in changes], **fields)


def match(number: int, **fields: Any) -> str:
    return changed(MATCH, trade_id=number, **fields)


def heartbeat(last_trade_id: int, sequence: int = 90, product_id: str = PRODUCT) -> str:
    return changed(HEARTBEAT, last_trade_id=last_trade_id, sequence=sequence, product_id=product_id)


def state(**products: list[str]) -> str:
    channels = [{"name": name, "product_ids": names, "account_ids": None} for name, names in products.items()]
    return json.dumps({"type": "subscriptions", "channels": channels}, separators=(",", ":"))


def error(message: str, reason: str | None = None) -> bytes:
    return json.dumps({"type": "error", "message": message, **({"reason": reason} if reason else {})}).encode()


def statuses(records: npt.NDArray[np.void]) -> list[tuple[State, Reason, int, int]]:
    rows = rows_of(records, Kind.STATUS, STATUS)
    return [(State(row["state"]), Reason(row["reason"]), int(row["expected"]), int(row["found"])) for row in rows]


def sent(requests: Sequence[Request]) -> list[dict[str, Any]]:
    return [json.loads(request.text) for request in requests if isinstance(request, Send)]


def channels(request: dict[str, Any]) -> list[str]:
    return [channel["name"] for channel in request["channels"]]


def fetches(requests: Sequence[Request]) -> list[Fetch]:
    return [request for request in requests if isinstance(request, Fetch)]


def frame(bench: Bench, payload: bytes) -> Sequence[Request]:
    """A frame whose answer the bench has no use for: a refusal."""
    return bench.adapter.on_frame(0, payload, NOW, bench.emit)


# ---- metadata ---------------------------------------------------------------------------------------------


def listed(*rows: dict[str, Any]) -> tuple[CoinbaseAdapter, list[Any]]:
    adapter = CoinbaseAdapter(CoinbaseAdapter.endpoints, CoinbaseOptions(), [])
    return adapter, list(adapter.on_metadata(Response("products", "", 200, json.dumps(rows).encode())))


def test_metadata_has_room_for_orders_finer_than_the_increments_of_today() -> None:
    infos = bench_of().infos
    skl, band = infos[PRODUCT], infos[OTHER]
    assert (skl.canonical_symbol, skl.base, skl.quote, skl.size_unit) == (PRODUCT, "SKL", "BTC", "SKL")
    assert (skl.tick, skl.lot, skl.trading, skl.status) == ("0.00000001", "0.1", True, "online")
    assert (skl.price_exponent, skl.size_exponent) == (-10, -3)
    assert (band.price_exponent, band.size_exponent) == (-6, -4)


def test_sizes_of_cheap_coins_and_lots_of_eight_digits_fit() -> None:
    _, (one,) = listed(product("SHIB-USD", "0.00000001", "0.00000001"))
    assert one.size_exponent == -8


@pytest.mark.parametrize(
    ("fields", "trading"),
    [
        ({"status": "offline"}, False),
        ({"status": "delisted"}, False),
        ({"cancel_only": True}, False),
        ({"trading_disabled": True}, False),
        ({"post_only": True}, True),
        ({"limit_only": True, "auction_mode": True}, True),
        ({"status_message": None}, True),
    ],
)
def test_product_is_traded_if_orders_may_meet(fields: dict[str, Any], trading: bool) -> None:
    _, (one,) = listed(product(PRODUCT, "0.00000001", "0.1", **fields))
    assert one.trading is trading


def test_row_that_no_record_could_be_made_for_costs_no_other() -> None:
    broken = [
        product("A-USD", "0", "1"),
        product("B-USD", "0.01", "1", base_currency=None),
        {"id": "C-USD"},
        product("D*-USD", "0.01", "1"),
    ]
    adapter, infos = listed(*broken, PRODUCTS[0])
    assert [info.instrument for info in infos] == [PRODUCT]
    assert adapter.counts.ignored == 4


def test_error_in_place_of_the_list_is_a_protocol_error() -> None:
    adapter = CoinbaseAdapter(CoinbaseAdapter.endpoints, CoinbaseOptions(), [])
    with pytest.raises(VenueProtocolError, match="429"):
        adapter.on_metadata(Response("products", "", 429, b'{"message":"Public rate limit exceeded"}'))
    with pytest.raises(VenueProtocolError):
        adapter.on_metadata(Response("products", "", 200, b'{"message":"NotFound"}'))


# ---- subscribing and answers ------------------------------------------------------------------------------


def test_each_kind_of_data_of_each_product_is_a_request_and_names_its_product_at_each_channel() -> None:
    bench = bench_of(PRODUCT, OTHER, status=True)
    requests = sent(bench.requests)
    assert [channels(one) for one in requests] == [
        ["matches", "heartbeat"],
        ["level2_batch"],
        ["matches", "heartbeat"],
        ["level2_batch"],
        ["status"],
    ]
    assert requests[0] == {
        "type": "subscribe",
        "channels": [{"name": name, "product_ids": [PRODUCT]} for name in ("matches", "heartbeat")],
    }
    assert requests[4] == {"type": "subscribe", "channels": [{"name": "status"}]}


@pytest.mark.parametrize(
    ("data_types", "option", "wanted"),
    [
        ((DataType.BBO,), "level2_batch", [["level2_batch", "heartbeat"]]),
        ((DataType.BBO,), "ticker", [["ticker", "heartbeat"]]),
        (ALL, "ticker", [["matches", "heartbeat"], ["ticker"], ["level2_batch"]]),
        ((DataType.BOOK,), "ticker", [["level2_batch", "heartbeat"]]),
    ],
)
def test_quotes_are_of_the_book_unless_the_option_says_otherwise(
    data_types: tuple[DataType, ...], option: str, wanted: list[list[str]]
) -> None:
    bench = bench_of(data_types=data_types, bbo_channel=option)
    assert [channels(one) for one in sent(bench.requests)] == wanted


def test_books_are_spread_over_connections_and_the_status_is_asked_for_once() -> None:
    names = [f"A{number}-USD" for number in range(25)]
    adapter = CoinbaseAdapter(CoinbaseAdapter.endpoints, CoinbaseOptions(), [Subscription(name, ALL) for name in names])
    adapter.bind({name: Channel(name, number, 1, -4, -8) for number, name in enumerate(names, 1)})
    connections = adapter.connections()
    assert [len(connection.instruments) for connection in connections] == [10, 10, 5]
    assert {connection.url for connection in connections} == {"wss://ws-feed.exchange.coinbase.com"}
    asked = [sent(adapter.on_connect(number, NOW, Emit(8))) for number in range(3)]
    assert [sum(channels(one) == ["status"] for one in requests) for requests in asked] == [1, 0, 0]


def test_answer_is_the_state_of_the_connection_in_which_the_batches_have_another_name() -> None:
    bench = bench_of(PRODUCT, OTHER)
    first, second, third, fourth = [request.ack for request in bench.requests if isinstance(request, Send)]
    assert bench.frame(state(matches=[PRODUCT], heartbeat=[PRODUCT])) == [Acknowledged(0, str(first))]
    assert bench.frame(state(matches=[PRODUCT], heartbeat=[PRODUCT], level2_50=[PRODUCT])) == [
        Acknowledged(0, str(second))
    ]
    both = [OTHER, PRODUCT]
    assert bench.frame(state(level2_50=both, matches=both, heartbeat=both)) == [
        Acknowledged(0, str(third)),
        Acknowledged(0, str(fourth)),
    ]
    assert bench.frame(state(level2_50=both, matches=both, heartbeat=both)) == []


def test_answer_that_shows_nothing_asked_for_is_of_the_oldest_subscription() -> None:
    bench = bench_of(data_types=(DataType.BOOK,), status=True)
    book, status = [request.ack for request in bench.requests if isinstance(request, Send)]
    assert bench.frame(state(a_new_name=[PRODUCT])) == [Acknowledged(0, str(book))]
    assert bench.frame('{"type":"subscriptions","channels":[{"name":"a_new_name"}]}') == [Acknowledged(0, str(status))]


def test_refused_product_is_known_by_its_name() -> None:
    bench = bench_of(PRODUCT, OTHER)
    requests = frame(bench, error("Failed to subscribe", f"{OTHER} is not a valid product"))
    assert requests == [
        Acknowledged(0, "subscribe 3"),
        Rejected(0, OTHER, f"Failed to subscribe: {OTHER} is not a valid product", DataType.TRADE),
    ]
    requests = frame(bench, error("Failed to subscribe", f"{OTHER} is not a valid product"))
    assert [(one.instrument, one.data_type) for one in requests if isinstance(one, Rejected)] == [
        (OTHER, DataType.BBO),
        (OTHER, DataType.BOOK),
    ]
    bench.frame(SNAPSHOT)
    assert bench.adapter.counts.books_valid == 1 and bench.errors == []


def test_refused_channel_costs_the_book_and_not_the_trades() -> None:
    bench = bench_of()
    reason = "level2, level3, and full channels now require authentication. https://docs.cdp.coinbase.com/"
    requests = frame(bench, error("Failed to subscribe", reason))
    assert [one.data_type for one in requests if isinstance(one, Rejected)] == [DataType.BBO, DataType.BOOK]
    assert sent(bench.adapter.on_timer(0, NOW + 300 * SECOND, bench.emit)) == []
    bench.frame(match(1))
    assert kinds(bench.last()) == [Kind.TRADE]


def test_refusal_that_names_nothing_is_of_the_oldest_request() -> None:
    bench = bench_of()
    requests = frame(bench, error("Failed to subscribe", " is not a valid product"))
    assert [one.data_type for one in requests if isinstance(one, Rejected)] == [DataType.TRADE]


@pytest.mark.parametrize("text", ["ErrSlowConsume", "Malformed JSON", "Message too big"])
def test_other_errors_are_of_the_connection(text: str) -> None:
    bench = bench_of()
    (request,) = bench.frame(error(text))
    assert isinstance(request, Reconnect)
    assert text in str(bench.errors[0])
    assert not any(isinstance(one, Rejected) for one in bench.requests)


def test_refusal_of_the_status_costs_nothing() -> None:
    bench = bench_of(status=True)
    assert frame(bench, error("Failed to subscribe", "status is not a valid channel")) == [
        Acknowledged(0, "subscribe 3")
    ]
    assert bench.adapter.counts.ignored == 1


# ---- trades -----------------------------------------------------------------------------------------------


def test_maker_who_sold_makes_a_taker_who_bought() -> None:
    bench = bench_of()
    bench.frame(MATCH)
    bench.frame(match(280233, side="buy"))
    bought, sold = bench.records.view(TRADE)
    assert (bought["aggressor"], sold["aggressor"]) == (Aggressor.BUY, Aggressor.SELL)
    assert (bought["trade_id"], bought["venue_seq"], bought["flags"]) == (280232, 177100030, Flags.LAST)
    assert bought["ts_event"] == 1_618_677_817_089_723_000
    channel = bench.channels[PRODUCT]
    assert to_decimal(int(bought["price"]), channel.price_exponent) == Decimal("0.00001305")
    assert to_decimal(int(bought["size"]), channel.size_exponent) == 985


def test_last_match_is_history_and_told_once() -> None:
    bench = bench_of()
    bench.frame(match(10, type="last_match"))
    (row,) = bench.last().view(TRADE)
    assert row["flags"] == Flags.LAST | Flags.SNAPSHOT | Flags.RECOVERED
    bench.frame(match(11))
    bench.disconnect()
    bench.connect()
    bench.frame(match(11, type="last_match"))
    assert len(bench.last()) == 0
    assert (bench.adapter.counts.repeated, bench.adapter.counts.gaps) == (1, 0)
    bench.frame(match(12))
    assert kinds(bench.last()) == [Kind.TRADE]


def test_missing_trades_are_told_then_fetched_in_their_order() -> None:
    bench = bench_of()
    bench.frame(match(10))
    (fetch,) = bench.frame(match(13))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 11, 13)]
    assert isinstance(fetch, Fetch) and fetch.connection == 0
    assert fetch.url == "https://api.exchange.coinbase.com/products/SKL-BTC/trades?limit=2&after=13"
    rows = [
        {"trade_id": number, "side": "buy", "size": "0.1", "price": "0.00001305", "time": "2021-04-17T16:43:37.08Z"}
        for number in (12, 11, 10)
    ]
    assert bench.answer(fetch, json.dumps(rows).encode()) == ()
    recovered = bench.last().view(TRADE)
    assert recovered["trade_id"].tolist() == [11, 12]
    assert set(recovered["flags"].tolist()) == {Flags.LAST | Flags.RECOVERED}
    assert set(recovered["aggressor"].tolist()) == {Aggressor.SELL}
    bench.frame(match(14))
    assert kinds(bench.last()) == [Kind.TRADE]
    assert bench.adapter.counts.gaps == 1 and bench.adapter.counts.repeated == 0
    check_records(bench.records)


def test_fetch_of_trades_is_tried_three_times_with_the_pause_that_the_venue_wants() -> None:
    bench = bench_of()
    bench.frame(match(10))
    (fetch,) = fetches(bench.frame(match(12)))
    (again,) = fetches(bench.answer(fetch, b"", 429, headers={"Retry-After": "7"}))
    assert (again.url, again.delay_ns, again.connection) == (fetch.url, 7 * SECOND, 0)
    (last,) = fetches(bench.answer(again, b"", 500))
    assert bench.answer(last, b"", 500) == () and bench.errors == []


def test_answer_with_trades_that_cannot_be_read_costs_nothing_else() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    bench.frame(match(10))
    (fetch,) = fetches(bench.frame(match(12)))
    assert bench.answer(fetch, b'{"message":"NotFound"}') == ()
    assert [(one.instrument, one.data_type) for one in bench.errors] == [(PRODUCT, DataType.TRADE)]
    assert bench.adapter.counts.books_valid == 1


def test_heartbeat_shows_a_lost_match_when_the_next_one_comes() -> None:
    bench = bench_of()
    bench.frame(match(10))
    assert bench.frame(heartbeat(12)) == () and len(bench.last()) == 0, "it may still be under way"
    (fetch,) = fetches(bench.frame(heartbeat(13)))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 11, 13)]
    assert fetch.url.endswith("?limit=2&after=13")
    bench.frame(match(13))
    assert kinds(bench.last()) == [Kind.TRADE], "the next one is no second gap"
    bench.frame(match(11))
    assert bench.last().view(TRADE)["flags"] == Flags.LAST | Flags.RECOVERED
    assert bench.adapter.counts.gaps == 1


def test_heartbeats_of_another_connection_say_nothing_of_this_one() -> None:
    bench = bench_of()
    bench.frame(match(10))
    bench.frame(heartbeat(12))
    bench.disconnect()
    bench.connect()
    assert bench.frame(heartbeat(12)) == ()
    assert statuses(bench.last()) == []


def test_match_that_cannot_be_read_leaves_the_book_alone() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    for fields in ({"side": "both"}, {"price": 5}, {"price": "-1"}, {"size": "0"}, {"time": "yesterday"}):
        bench.frame(match(10, **fields))
    bench.frame(match(2**70))
    assert {one.data_type for one in bench.errors} == {DataType.TRADE} and len(bench.errors) == 6
    assert bench.adapter.counts.books_valid == 1


# ---- books ------------------------------------------------------------------------------------------------


def test_rule_1_snapshot_is_one_group_and_then_comes_its_quote() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    assert kinds(bench.last()) == [Kind.CLEAR, *[Kind.LEVEL] * 4, Kind.STATUS, Kind.BBO]
    levels = rows_of(bench.last(), Kind.LEVEL, LEVEL)
    assert levels["side"].tolist() == [Side.BID, Side.BID, Side.ASK, Side.ASK]
    assert set(levels["flags"].tolist()[:-1]) == {Flags.SNAPSHOT | Flags.BAD_TS_EVENT}
    (quote,) = rows_of(bench.last(), Kind.BBO, BBO)
    assert (quote["bid_size"], quote["ask_size"]) == (12_500, 100_000)
    bench.frame(changed(SNAPSHOT, time="2026-09-01T12:00:00.123456Z", asks=[], bids=[["0.000013050", "12.50"]]))
    (level,) = rows_of(bench.last(), Kind.LEVEL, LEVEL)
    assert level["ts_event"] == time_ns("2026-09-01T12:00:00.123456Z") and not level["flags"] & Flags.BAD_TS_EVENT
    assert level["price"] == levels["price"][0]
    (quote,) = rows_of(bench.last(), Kind.BBO, BBO)
    assert (quote["ask_price"], quote["ask_size"]) == (UNDEFINED_PRICE, 0)
    check_records(bench.records)


def test_rule_1_updates_before_the_snapshot_say_nothing() -> None:
    bench = bench_of()
    bench.frame(UPDATE)
    assert len(bench.records) == 0 and bench.errors == []


def test_rule_2_changes_are_applied_in_their_order_and_0_deletes() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    bench.frame(
        update(
            ("sell", "0.00001306", "5"),
            ("buy", "0.00001305", "0.00000000"),
            ("sell", "0.00001306", "0"),
            ("buy", "0.00000001", "0"),
        )
    )
    assert kinds(bench.last()) == [*[Kind.LEVEL] * 4, Kind.BBO]
    levels = rows_of(bench.last(), Kind.LEVEL, LEVEL)
    assert levels["side"].tolist() == [Side.ASK, Side.BID, Side.ASK, Side.BID]
    assert levels["size"].tolist() == [5_000, 0, 0, 0]
    assert set(levels["ts_event"].tolist()) == {1_618_677_817_075_687_000}
    (quote,) = rows_of(bench.last(), Kind.BBO, BBO)
    exponent = bench.channels[PRODUCT].price_exponent
    assert to_decimal(int(quote["bid_price"]), exponent) == Decimal("0.00001300")
    assert to_decimal(int(quote["ask_price"]), exponent) == Decimal("0.00001400")
    assert quote["ts_event"] == levels["ts_event"][0]
    check_records(bench.records)


def test_quote_is_told_only_when_it_changes() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    bench.frame(update(("buy", "0.00001300", "8")))
    assert kinds(bench.last()) == [Kind.LEVEL]


def test_rule_3_message_that_cannot_be_read_costs_its_book_alone() -> None:
    bench = bench_of(PRODUCT, OTHER)
    bench.frame(SNAPSHOT)
    bench.frame(changed(SNAPSHOT, product_id=OTHER, bids=[["14.7550", "12.5"]], asks=[["14.8060", "56.4"]]))
    both = [PRODUCT, OTHER]
    bench.frame(state(level2_50=both, matches=both, heartbeat=both))
    (request,) = sent(bench.frame(update(("sell", "0.00001306", "much"))))
    assert request == {"type": "unsubscribe", "channels": [{"name": "level2_batch", "product_ids": [PRODUCT]}]}
    assert [(one.instrument, one.data_type) for one in bench.errors] == [(PRODUCT, DataType.BOOK)]
    (clear,) = rows_of(bench.last(), Kind.CLEAR, CLEAR)
    assert clear["instrument_id"] == bench.channels[PRODUCT].instrument_id
    assert bench.adapter.counts.books_valid == 1
    bench.frame(UPDATE)
    assert len(bench.last()) == 0, "it leads on from a book that is not there"
    bench.frame(SNAPSHOT)
    assert len(bench.last()) == 0, "the old subscription has not ended"
    acknowledged, again = bench.frame(state(level2_50=[OTHER]))
    assert isinstance(acknowledged, Acknowledged) and acknowledged.ack.startswith("unsubscribe")
    assert [channels(one) for one in sent([again])] == [["level2_batch"]]
    bench.frame(state(level2_50=[OTHER, PRODUCT]))
    bench.frame(SNAPSHOT)
    assert bench.adapter.counts.books_valid == 2
    check_records(bench.records)


def test_rule_3_message_of_nobody_knows_which_book_costs_the_connection() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    (request,) = bench.frame('{"type":"l2up]garbage[')
    assert isinstance(request, Reconnect)


def test_snapshot_that_does_not_come_is_asked_for_anew() -> None:
    bench = bench_of()
    assert sent(bench.adapter.on_timer(0, NOW + 10 * SECOND, bench.emit)) == []
    assert [one["type"] for one in sent(bench.adapter.on_timer(0, NOW + 40 * SECOND, bench.emit))] == ["unsubscribe"]


def test_end_of_a_subscription_that_is_refused_has_ended_all_the_same() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    bench.frame(state(matches=[PRODUCT], heartbeat=[PRODUCT], level2_50=[PRODUCT]))
    bench.adapter.resync(PRODUCT, NOW, Reason.CROSSED, bench.emit)
    assert [one["type"] for one in sent(frame(bench, error("Failed to unsubscribe", "no such subscription")))] == [
        "subscribe"
    ]


CROSSING: Final = ("buy", "0.00001306", "1")


def test_book_that_stays_crossed_is_rebuilt() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    assert bench.frame(update(CROSSING), NOW) == ()
    assert bench.frame(UPDATE, NOW + SECOND) == ()
    assert [one["type"] for one in sent(bench.frame(UPDATE, NOW + SECOND + 1))] == ["unsubscribe"]
    assert statuses(bench.last()) == [(State.RESYNCING, Reason.CROSSED, 0, 0)]
    check_records(bench.records)


def test_timer_sees_a_crossed_book_to_which_nothing_comes() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    bench.frame(update(CROSSING), NOW)
    assert [one["type"] for one in sent(bench.adapter.on_timer(0, NOW + 5 * SECOND, bench.emit))] == ["unsubscribe"]


def test_book_that_was_crossed_for_a_moment_is_believed() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    bench.frame(update(CROSSING), NOW)
    bench.frame(update(("buy", "0.00001306", "0")), NOW + SECOND // 2)
    assert bench.frame(update(CROSSING), NOW + 5 * SECOND) == ()
    assert bench.adapter.counts.books_valid == 1


def test_messages_as_the_venue_writes_them_take_direct_routes() -> None:
    """Documentation and recordings differ in the order of members."""
    documented = (
        '{"type":"match","trade_id":280233,"sequence":50,"maker_order_id":"ac928c66-ca53-498f-9c13-a110027a60e8",'
        '"taker_order_id":"132fb6ae-456b-4654-b4e0-d681ac05cea1","time":"2014-11-07T08:19:27.028459Z",'
        '"product_id":"SKL-BTC","size":"5.2","price":"0.00001305","side":"sell"}'
    )
    bench = bench_of()
    bench.frame(SNAPSHOT)
    for number, message in enumerate((UPDATE, MATCH, update(("buy", "0.00001304", "1")), documented, match(280234)), 1):
        bench.frame(message)
        assert bench.adapter.direct is not None and bench.adapter.direct.taken == number
    bench = bench_of(bbo_channel="ticker")
    rest = (
        '"product_id":"SKL-BTC","price":"0.00001305","open_24h":"0.00001300","volume_24h":"2610781.38576400",'
        '"low_24h":"0.000013","high_24h":"0.00001400","volume_30d":"70067303.04764700","best_bid":"0.00001304",'
        '"best_bid_size":"12","best_ask":"0.00001306","best_ask_size":"660.5","side":"buy",'
        '"time":"2022-10-19T23:28:22.061769Z","trade_id":370843401,"last_size":"11.4396987"}'
    )
    for number in range(3):  # the first one is history
        bench.frame(f'{{"type":"ticker","sequence":{number + 7},{rest}')
        assert bench.adapter.direct is not None and bench.adapter.direct.taken == number
    assert bench.errors == []


def test_book_that_comes_crossed_is_the_venues_word_until_it_is_no_more() -> None:
    bench = bench_of()
    bench.frame(changed(SNAPSHOT, bids=[["0.00001400", "1"]]))
    assert bench.frame(UPDATE, NOW + 60 * SECOND) == ()
    bench.frame(update(("buy", "0.00001400", "0")), NOW + 61 * SECOND)
    bench.frame(update(CROSSING), NOW + 62 * SECOND)
    assert [one["type"] for one in sent(bench.frame(UPDATE, NOW + 64 * SECOND))] == ["unsubscribe"]


def test_message_that_is_written_in_another_order_finds_its_book() -> None:
    bench = bench_of()
    for text in (SNAPSHOT, UPDATE, MATCH):
        fields = json.loads(text)
        bench.frame(json.dumps(dict(sorted(fields.items(), reverse=True))))
    assert bench.errors == [] and Kind.TRADE in kinds(bench.records)
    assert rows_of(bench.records, Kind.LEVEL, LEVEL)["size"][-1] == 660_500


def test_data_of_other_products_is_counted() -> None:
    bench = bench_of()
    for text in (SNAPSHOT, UPDATE, MATCH, HEARTBEAT):
        bench.frame(changed(text, product_id="ETH-USD"))
    assert len(bench.records) == 0 and bench.errors == []
    assert bench.adapter.counts.ignored == 4 and len(bench.adapter.unknown.take_new()) == 4


# ---- quotes -----------------------------------------------------------------------------------------------


def test_quotes_alone_are_made_of_a_book_that_nobody_sees() -> None:
    bench = bench_of(data_types=(DataType.BBO,))
    bench.frame(SNAPSHOT)
    bench.frame(update(("buy", "0.00001305", "1")))
    bench.frame(update(("buy", "0.00001300", "1")))
    bench.adapter.resync(PRODUCT, NOW, Reason.RING_FULL, bench.emit)
    bench.disconnect()
    assert kinds(bench.records) == [Kind.BBO, Kind.BBO, Kind.STATUS]
    (row,) = rows_of(bench.records, Kind.STATUS, STATUS)
    assert (row["state"], row["reason"], row["data_type"]) == (State.RESYNCING, Reason.RING_FULL, DataType.BBO)


def test_book_alone_makes_no_quotes() -> None:
    bench = bench_of(data_types=(DataType.BOOK,))
    bench.frame(SNAPSHOT)
    assert Kind.BBO not in kinds(bench.records)


def test_ticker_is_a_quote_if_it_is_asked_for() -> None:
    bench = bench_of(bbo_channel="ticker")
    bench.frame(SNAPSHOT)
    assert Kind.BBO not in kinds(bench.records)
    bench.frame(TICKER)
    (row,) = bench.last().view(BBO)
    assert (row["bid_size"], row["ask_size"], row["venue_seq"]) == (12_000, 660_500, 177100030)
    assert row["ts_event"] == 1_618_677_817_089_723_000
    assert row["flags"] == Flags.LAST | Flags.SNAPSHOT | Flags.RECOVERED, "the first one is as old as its match"
    bench.frame(changed(TICKER, sequence=177100029))
    assert len(bench.last()) == 0 and bench.adapter.counts.repeated == 1, "it is of before"
    bench.frame(changed(TICKER, sequence=177100031, best_bid="", best_bid_size="", best_ask="0", best_ask_size="0"))
    (row,) = bench.last().view(BBO)
    assert (row["bid_price"], row["ask_price"], row["flags"]) == (UNDEFINED_PRICE, UNDEFINED_PRICE, Flags.LAST)
    bench.disconnect()
    bench.connect()
    bench.frame(TICKER)
    assert kinds(bench.last()) == [Kind.BBO], "another connection begins anew"


def test_ticker_without_sizes_is_no_quote() -> None:
    bench = bench_of(bbo_channel="ticker")
    bench.frame(changed(TICKER, best_bid_size=None, best_ask_size=None))
    assert len(bench.records) == 0 and bench.errors == [] and bench.adapter.counts.ignored == 1


def test_ticker_that_was_not_asked_for_tells_nothing_new() -> None:
    bench = bench_of()
    bench.frame(TICKER)
    assert len(bench.records) == 0 and bench.adapter.counts.ignored == 0


def test_quotes_of_the_ticker_come_from_the_emulated_venue_too() -> None:
    loop = Loopback("coinbase", options={"bbo_channel": "ticker"})
    loop.run(5.0)
    loop.settle()
    loop.assert_books_true()
    for name in loop.names(DataType.BBO):
        quotes, trades = loop.of(Kind.BBO, name), loop.of(Kind.TRADE, name)
        assert set(quotes["venue_seq"].tolist()) <= set(trades["venue_seq"].tolist())
        assert len(trades) - len(quotes) <= 5 < len(quotes), "those between two requests"
        assert [bool(row["flags"] & Flags.SNAPSHOT) for row in quotes[:2]] == [True, False]


# ---- heartbeats and the status ----------------------------------------------------------------------------


def test_connection_whose_heartbeats_end_is_of_no_use() -> None:
    bench = bench_of()
    assert bench.adapter.on_timer(0, NOW + 20 * SECOND, bench.emit) == [], "none has come yet"
    bench.frame(HEARTBEAT, NOW)
    assert bench.adapter.on_timer(0, NOW + 5 * SECOND, bench.emit) == []
    (request,) = bench.adapter.on_timer(0, NOW + 6 * SECOND, bench.emit)
    assert isinstance(request, Reconnect) and request.reason is Reason.STALE


def test_heartbeat_is_data_only_if_it_says_that_there_is_none() -> None:
    bench = bench_of(PRODUCT, OTHER)
    found = []
    for text in (heartbeat(20, 90), heartbeat(20, 90), heartbeat(20, 95), heartbeat(20, 95, OTHER), heartbeat(20, 95)):
        bench.frame(text)
        found.append(bench.adapter.is_data(text.encode()))
    assert found == [False, True, False, False, True]
    assert all(bench.adapter.is_data(text.encode()) for text in (SNAPSHOT, UPDATE, MATCH, TICKER))
    assert not bench.adapter.is_data(state(matches=[PRODUCT]).encode()) and not bench.adapter.is_data(error("x"))


def status(**fields: Any) -> str:
    row = {"id": PRODUCT, "status": "online", "status_message": None, "cancel_only": False, **fields}
    return json.dumps({"type": "status", "currencies": [], "products": [row, {"id": "X-USD", "status": "online"}]})


def test_halt_of_a_product_and_its_end_are_told_once() -> None:
    bench = bench_of(status=True)
    for text in (status(), status(status="offline"), status(status="offline"), status(), status(cancel_only=True)):
        bench.frame(text)
    rows = rows_of(bench.records, Kind.STATUS, STATUS)
    assert [(State(row["state"]), row["detail"]) for row in rows] == [
        (State.HALTED, b"offline"),
        (State.TRADING, b"online"),
        (State.HALTED, b"cancel only"),
    ]
    assert set(rows["instrument_id"].tolist()) == {bench.channels[PRODUCT].instrument_id}


@pytest.mark.parametrize("text", ['{"type":"status","products":{}}', '{"type":"heartbeat","sequence":"90"}'])
def test_messages_beside_the_data_that_cannot_be_read_cost_nothing(text: str) -> None:
    bench = bench_of(status=True)
    bench.frame(SNAPSHOT)
    assert bench.frame(text) == () and bench.errors == []
    assert bench.adapter.counts.ignored == 1 and bench.adapter.counts.books_valid == 1


# ---- against the emulated venue ---------------------------------------------------------------------------


@pytest.mark.parametrize("interval_s", [0.0, 0.05])
def test_lost_matches_are_recovered_from_rest(interval_s: float) -> None:
    loop = Loopback("coinbase", emulator_options={"batch_interval_s": interval_s})
    loop.run(2.0)
    loop.arm(FaultKind.DROP, match="matches:", count=5)
    loop.run(4.0)
    loop.settle()
    assert loop.injector.fired[FaultKind.DROP] == 5
    for name in loop.names(DataType.TRADE):
        rows = loop.of(Kind.TRADE, name).view(TRADE)
        ids = rows["trade_id"].tolist()
        assert sorted(ids) == list(range(ids[0], loop.emulator.book_of(name).trade_id + 1))
    recovered = loop.of(Kind.TRADE)
    assert (recovered["flags"] == Flags.LAST | Flags.RECOVERED).sum() == 5


def test_last_lost_match_of_a_market_that_rests_is_recovered_by_the_heartbeats() -> None:
    loop = Loopback("coinbase", wanted=Wanted(spots=1))
    loop.run(2.0)
    name = loop.names(DataType.TRADE)[0]
    book = loop.emulator.book_of(name)
    loop.arm(FaultKind.DROP, match="matches:", count=0)
    before = book.trade_id
    while book.trade_id == before:
        loop.run(0.1)
    loop.injector.clear()
    loop.settle(4.0)
    rows = loop.of(Kind.TRADE, name).view(TRADE)
    assert rows["trade_id"].max() == book.trade_id
    assert loop.errors == []
