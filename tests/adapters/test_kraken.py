"""Kraken Spot v2: its checksums, the rules of its books by number, its answers and states, the names of its pairs."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from mdring.adapters.kraken import KrakenAdapter, KrakenOptions
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
from mdring.feed.fixed import text
from mdring.feed.stage import Channel
from mdring.record import (
    BBO,
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
from tests.adapters.conformance import NOW, Bench, VenueCase, check_records
from tests.adapters.loopback import Loopback

ALL: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
BTC: Final = "BTC/USD"
MATIC: Final = "MATIC/USD"
SECOND: Final = 1_000_000_000

# A pair under its names of old, with its dark pool; a row without a tick, as old lists have; one that cannot be.
ASSET_PAIRS: Final = (
    b'{"error":[],"result":{'
    b'"XXBTZUSD":{"altname":"XBTUSD","wsname":"XBT/USD","aclass_base":"currency","base":"XXBT","aclass_quote":"currency","quote":"ZUSD","lot":"unit","cost_decimals":5,"pair_decimals":1,"lot_decimals":8,"lot_multiplier":1,"ordermin":"0.00005","costmin":"0.5","tick_size":"0.1","status":"online"},'
    b'"XXBTZUSD.d":{"altname":"XBTUSD.d","base":"XXBT","quote":"ZUSD","pair_decimals":1,"lot_decimals":8,"status":"online"},'
    b'"XDGXBT":{"altname":"XDGXBT","wsname":"XDG/XBT","base":"XXDG","quote":"XXBT","pair_decimals":9,"lot_decimals":8,"status":"maintenance"},'
    b'"MATICUSD":{"altname":"MATICUSD","wsname":"MATIC/USD","base":"MATIC","quote":"ZUSD","pair_decimals":4,"lot_decimals":8,"tick_size":"0.0005","status":"delisted"},'
    b'"ODD":{"altname":"ODD","wsname":"ODD/USD","pair_decimals":40,"lot_decimals":8,"status":"online"}'
    b"}}"
)

# The real venue, 24 August 2026.
SNAPSHOT: Final = (
    '{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":78871.5,"qty":0.01266503},{"price":78868.4,"qty":0.00005100},{"price":78867.3,"qty":0.00059789},{"price":78865.8,"qty":0.00030000},{"price":78865.7,"qty":0.01532403},{"price":78864.5,"qty":0.00005100},{"price":78860.6,"qty":0.04618528},{"price":78860.5,"qty":0.00005100},{"price":78859.2,"qty":0.20128607},{"price":78858.8,"qty":0.63404462}],'
    '"asks":[{"price":78871.6,"qty":4.21103066},{"price":78872.2,"qty":0.41892437},{"price":78872.5,"qty":0.08877452},{"price":78873.7,"qty":0.64976822},{"price":78875.5,"qty":0.63391066},{"price":78876.2,"qty":0.02287157},{"price":78877.2,"qty":0.00810675},{"price":78877.8,"qty":0.65087492},{"price":78877.9,"qty":1.89408049},{"price":78878.0,"qty":4.52243185}],"checksum":1406471562,"timestamp":"2026-08-24T22:21:57.110183Z"}]}'
)
UPDATE: Final = (
    '{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":78858.8,"qty":0.00000000},{"price":78857.0,"qty":0.34775324}],'
    '"asks":[],"checksum":2416540570,"timestamp":"2026-08-24T22:21:58.343688Z"}]}'
)
TRADES: Final = (
    '{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":105944.2,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,"timestamp":"2023-10-06T17:35:55.440295Z"},'
    '{"symbol":"BTC/USD","side":"sell","price":105910.5,"qty":0.0001246,"ord_type":"market","trade_id":10218209,"timestamp":"2023-10-06T17:35:55.440295Z"}]}'
)


def bench_of(*instruments: str, data_types: tuple[DataType, ...] = ALL, **options: Any) -> Bench:
    """A bench with these pairs, BTC/USD if none is named; connected."""
    case = VenueCase(
        name="kraken",
        make=lambda subscriptions: KrakenAdapter(KrakenAdapter.endpoints, KrakenOptions(**options), subscriptions),
        subscriptions=tuple(Subscription(name, data_types) for name in instruments or (BTC,)),
        metadata=ASSET_PAIRS,
        frames=(),
        snapshot=lambda fetch: b"",  # it has none
        other_frame=b"",
    )
    bench = Bench(case)
    bench.connect()
    bench.adapter.unknown.take_new()
    return bench


def sent(requests: Sequence[Request]) -> list[dict[str, Any]]:
    return [json.loads(request.text) for request in requests if isinstance(request, Send)]


def kinds(records: npt.NDArray[np.void]) -> list[Kind]:
    return [Kind(kind) for kind in records["kind"]]


def statuses(records: npt.NDArray[np.void]) -> list[tuple[State, Reason, int, int]]:
    rows = records[records["kind"] == Kind.STATUS].view(STATUS)
    return [(State(row["state"]), Reason(row["reason"]), int(row["expected"]), int(row["found"])) for row in rows]


def levels(bench: Bench, instrument: str = BTC) -> list[tuple[Side, str, str]]:
    """(side, price, size) as text, of each level of the last call."""
    channel, last = bench.channels[instrument], bench.last()
    return [
        (
            Side(int(row["side"])),
            text(int(row["price"]), channel.price_exponent),
            text(int(row["size"]), channel.size_exponent),
        )
        for row in last[last["kind"] == Kind.LEVEL].view(LEVEL)
    ]


Levels = Sequence[tuple[str, str]]  # price and size


def checksum(bids: Levels, asks: Levels) -> int:
    """Of levels that are whole, best first, with all their decimals."""
    texts = [part for level in (*asks[:10], *bids[:10]) for part in level]
    return zlib.crc32("".join(part.replace(".", "").lstrip("0") for part in texts).encode())


def book(kind: str, bids: Levels, asks: Levels, crc: int, instrument: str = BTC) -> str:
    sides = ["[" + ",".join(f'{{"price":{price},"qty":{size}}}' for price, size in side) + "]" for side in (bids, asks)]
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{instrument}","bids":{sides[0]},"asks":{sides[1]},'
        f'"checksum":{crc},"timestamp":"2026-08-24T22:21:58.343688Z"}}]}}'
    )


def ladder(first: int, count: int, step: int) -> Levels:
    """Levels with one decimal of price: 100.0, 100.1, …"""
    return [(f"{(first + number * step) / 10:.1f}", f"{number + 1}.00000000") for number in range(count)]


def answer(channel: str, symbol: str | None = BTC, method: str = "subscribe", number: int | None = None) -> str:
    result = {"channel": channel, **({} if symbol is None else {"symbol": symbol})}
    message = {"method": method, "result": result, "success": True, "time_in": "2026-08-24T22:21:56.724795Z"}
    return json.dumps({**message, **({} if number is None else {"req_id": number})})


def refused(error: str, method: str = "subscribe", **more: Any) -> str:
    message = {"error": error, "method": method, "success": False, "time_in": "2026-03-27T12:17:06.298588Z"}
    return json.dumps({**message, **more})


def ask(bench: Bench, message: str) -> Sequence[Request]:
    """What the adapter makes of an answer, refusals too."""
    return bench.adapter.on_frame(0, message.encode(), NOW, bench.emit)


# ---- metadata ---------------------------------------------------------------------------------------------


def test_pairs_have_the_names_of_v2_and_the_decimals_of_the_wire() -> None:
    infos = bench_of().infos
    assert set(infos) == {BTC, "DOGE/BTC", MATIC}
    btc, doge, matic = infos[BTC], infos["DOGE/BTC"], infos[MATIC]
    assert [one.canonical_symbol for one in (btc, doge, matic)] == ["BTC-USD", "DOGE-BTC", "MATIC-USD"]
    assert (btc.base, btc.quote, btc.size_unit, btc.tick, btc.lot) == ("BTC", "USD", "BTC", "0.1", "0.00000001")
    assert (btc.price_exponent, btc.size_exponent, doge.price_exponent) == (-1, -8, -9)
    assert (doge.tick, matic.tick, matic.price_exponent) == ("0.000000001", "0.0005", -4)
    assert btc.data_types == ALL


def test_pair_in_maintenance_will_trade_again_and_a_delisted_one_will_not() -> None:
    infos = bench_of().infos
    assert [infos[name].trading for name in (BTC, "DOGE/BTC", MATIC)] == [True, True, False]


def test_dark_pools_are_passed_over_and_an_unusable_row_is_noted() -> None:
    adapter = KrakenAdapter(KrakenAdapter.endpoints, KrakenOptions(), [])
    assert len(adapter.on_metadata(Response("AssetPairs", "", 200, ASSET_PAIRS))) == 3
    ((what, sample),) = adapter.unknown.take_new()
    assert "pair_decimals" in what and b'"ODD"' in sample


def test_error_with_http_200_is_a_protocol_error() -> None:
    adapter = KrakenAdapter(KrakenAdapter.endpoints, KrakenOptions(), [])
    with pytest.raises(VenueProtocolError, match="EAPI:Rate limit exceeded"):
        adapter.on_metadata(Response("AssetPairs", "", 200, b'{"error":["EAPI:Rate limit exceeded"]}'))


# ---- connections and answers ------------------------------------------------------------------------------


def test_one_request_for_each_channel_names_all_its_symbols() -> None:
    requests = sent(bench_of(BTC, MATIC).requests)
    assert [request["params"] for request in requests] == [
        {"channel": "trade", "snapshot": True, "symbol": [BTC, MATIC]},
        {"channel": "ticker", "event_trigger": "bbo", "symbol": [BTC, MATIC]},
        {"channel": "book", "depth": 10, "snapshot": True, "symbol": [BTC, MATIC]},
        {"channel": "instrument", "snapshot": True},
    ]
    assert {request["method"] for request in requests} == {"subscribe"}
    assert [request["req_id"] for request in requests] == [1, 2, 3, 4]


def test_many_pairs_are_spread_over_connections_of_which_the_first_learns_their_state() -> None:
    names = [f"A{number}/USD" for number in range(130)]
    adapter = KrakenAdapter(KrakenAdapter.endpoints, KrakenOptions(), [Subscription(name, ALL) for name in names])
    bench = bench_of()
    adapter.bind({name: Channel(name, number, 1, -1, -8) for number, name in enumerate(names, 1)})
    assert [len(connection.instruments) for connection in adapter.connections()] == [100, 30]
    assert {connection.url for connection in adapter.connections()} == {"wss://ws.kraken.com/v2"}
    channels = [
        [request["params"]["channel"] for request in sent(adapter.on_connect(number, NOW, bench.emit))]
        for number in (0, 1)
    ]
    assert channels == [["trade", "ticker", "book", "instrument"], ["trade", "ticker", "book"]]


def test_request_is_acknowledged_with_the_last_of_its_symbols() -> None:
    bench = bench_of(BTC, MATIC)
    assert bench.frame(answer("book", MATIC, number=3)) == []
    assert bench.frame(answer("book", MATIC, number=3)) == []
    assert bench.frame(answer("book", BTC)) == [Acknowledged(0, "3")]
    assert bench.frame(answer("book", BTC, number=3)) == []
    assert bench.frame(answer("instrument", None, number=4)) == [Acknowledged(0, "4")]


def test_refused_symbol_costs_its_data_of_that_channel_only() -> None:
    bench = bench_of(BTC, MATIC)
    ((rejected),) = ask(bench, refused("Currency pair not supported MATIC/USD", req_id=2))
    assert rejected == Rejected(0, MATIC, "Currency pair not supported MATIC/USD", DataType.BBO)
    assert bench.frame(answer("ticker", BTC, number=2)) == [Acknowledged(0, "2")]
    bench.frame(SNAPSHOT)
    assert bench.adapter.counts.books_valid == 1


def test_refusal_without_the_number_of_its_request_is_known_by_its_text() -> None:
    bench = bench_of(BTC, MATIC)
    refusals = [ask(bench, refused("Currency pair not supported MATIC/USD"))[0] for _ in range(3)]
    assert [one.data_type for one in refusals if isinstance(one, Rejected)] == list(ALL)


def test_refused_book_is_left_alone_by_the_timer() -> None:
    bench = bench_of()
    acknowledged, rejected = ask(bench, refused("Currency pair not supported BTC/USD", req_id=3))
    assert acknowledged == Acknowledged(0, "3") and isinstance(rejected, Rejected)
    asked = sent(bench.adapter.on_timer(0, NOW + 300 * SECOND, bench.emit))
    assert [request["method"] for request in asked] == ["ping"]


def test_refusal_that_names_no_symbol_is_found_out_one_by_one() -> None:
    bench = bench_of(BTC, MATIC)
    acknowledged, *again = ask(bench, refused("No", req_id=3))
    assert acknowledged == Acknowledged(0, "3")
    assert [(one["req_id"], one["params"]["symbol"]) for one in sent(again)] == [(5, [BTC]), (6, [MATIC])]
    assert ask(bench, answer("book", BTC, number=3)) == [Acknowledged(0, "5")]  # the late answer to the first one
    acknowledged, rejected = ask(bench, refused("No", req_id=6))
    assert isinstance(rejected, Rejected)
    assert (rejected.instrument, rejected.data_type) == (MATIC, DataType.BOOK)


def test_too_many_messages_are_asked_again_a_little_later() -> None:
    bench = bench_of(BTC, MATIC)
    bench.frame(answer("book", BTC, number=3))
    acknowledged, again = ask(bench, refused("Exceeded msg rate", req_id=3))
    assert acknowledged == Acknowledged(0, "3")
    assert isinstance(again, Send) and again.delay_ns == SECOND
    assert sent([again])[0]["params"]["symbol"] == [MATIC]


def test_second_subscription_and_the_end_of_none_are_no_refusals() -> None:
    bench = bench_of()
    assert ask(bench, refused("Already subscribed BTC/USD", req_id=1)) == [Acknowledged(0, "1")]
    bench.frame(SNAPSHOT)
    bench.adapter.resync(BTC, NOW, Reason.CROSSED, bench.emit)
    acknowledged, again = ask(bench, refused("Subscription Not Found", "unsubscribe", req_id=5))
    assert acknowledged == Acknowledged(0, "5")
    assert sent([again])[0]["method"] == "subscribe"


def test_refused_instrument_channel_is_noted_and_costs_nothing() -> None:
    bench = bench_of()
    assert ask(bench, refused("Channel not supported", req_id=4)) == [Acknowledged(0, "4")]
    assert [what for what, _ in bench.adapter.unknown.take_new()] == ["instrument is refused"]


@pytest.mark.parametrize("message", [refused("Malformed request"), '{"error":"x","success":false}'])
def test_error_that_concerns_nothing_asked_for_is_a_protocol_error(message: str) -> None:
    bench = bench_of()
    bench.frame(message)
    assert [(error.instrument, error.reason) for error in bench.errors] == [(None, Reason.SUBSCRIBE_REJECTED)]


def test_ping_is_json_and_its_pong_is_waited_for() -> None:
    bench = bench_of()
    (ping,) = bench.adapter.on_timer(0, NOW, bench.emit)
    assert isinstance(ping, Send) and (ping.ack, ping.urgent) == ("pong", True)
    assert json.loads(ping.text) == {"method": "ping", "req_id": 5}
    pong = (
        '{"method":"pong","req_id":5,"time_in":"2023-09-24T14:10:23.799685Z","time_out":"2023-09-24T14:10:23.799703Z"}'
    )
    assert bench.frame(pong) == (Acknowledged(0, "pong"),)
    assert not bench.adapter.is_data(pong.encode())


def test_connection_without_data_and_heartbeats_is_given_up_once_anything_is_subscribed_to() -> None:
    bench = bench_of()

    def reconnects(now_ns: int) -> list[Request]:
        requests = bench.adapter.on_timer(0, now_ns, bench.emit)
        return [request for request in requests if isinstance(request, Reconnect)]

    assert reconnects(NOW + 300 * SECOND) == []
    bench.frame(answer("trade", BTC, number=1), NOW)
    bench.frame('{"channel":"heartbeat"}', NOW + 5 * SECOND)
    assert reconnects(NOW + 14 * SECOND) == []
    bench.frame(TRADES, NOW + 20 * SECOND)
    assert reconnects(NOW + 29 * SECOND) == []
    assert reconnects(NOW + 31 * SECOND) == [Reconnect(0, Reason.STALE, "neither data nor heartbeats")]
    assert bench.errors == [] and not bench.adapter.is_data(b'{"channel":"heartbeat"}')


def test_message_whose_keys_stand_in_another_order_finds_its_route() -> None:
    bench = bench_of()
    message = json.loads(UPDATE.replace("update", "snapshot"))
    text = '{"type":"update","channel":"trade",' + TRADES[TRADES.index('"data"') :]
    bench.frame(text)
    assert bench.errors == [] and kinds(bench.last()) == [Kind.TRADE, Kind.TRADE]
    bench.frame(json.dumps(message))  # blanks, and a checksum that is not of these levels
    assert statuses(bench.last())[0][:2] == (State.GAP, Reason.CHECKSUM)


def test_messages_as_the_venue_writes_them_take_direct_routes() -> None:
    bench = bench_of()
    quote = (
        '{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":78871.5,"bid_qty":740.0,"ask":78871.6,'
        '"ask_qty":1e-08,"last":0.10035,"volume":997038.98383185,"vwap":0.10148,"low":0.09979,"high":0.10285,'
        '"change":-0.00017,"change_pct":-0.17,"timestamp":"2023-09-25T09:04:31.742648Z"}]}'
    )
    bench.frame(SNAPSHOT)
    for number, message in enumerate((UPDATE, TRADES, quote), 1):
        bench.frame(message)
        assert bench.adapter.direct is not None and bench.adapter.direct.taken == number
    assert bench.errors == [] and bench.adapter.counts.checksums == 2


def test_data_that_nobody_asked_for_and_unknown_channels_are_noted() -> None:
    bench = bench_of()
    bench.frame(TRADES.replace(BTC, "ETH/EUR"))
    bench.frame('{"channel":"ohlc","type":"update","data":[]}')
    bench.frame('{"channel":"trade","type":"snapshot","data":[]}')
    assert bench.errors == [] and len(bench.records) == 0
    assert [what for what, _ in bench.adapter.unknown.take_new()] == ["trade that was not asked for", "channel ohlc"]


# ---- states -----------------------------------------------------------------------------------------------


def system(word: str) -> str:
    row = f'{{"version":"2.0.10","system":"{word}","api_version":"v2","connection_id":13834774380200032777}}'
    return f'{{"channel":"status","type":"update","data":[{row}]}}'


def pair(status: str = "online", price: int = 1, size: int = 8, symbol: str = BTC) -> str:
    row = {"symbol": symbol, "status": status, "price_precision": price, "qty_precision": size, "qty_increment": 1e-08}
    return json.dumps({"channel": "instrument", "type": "update", "data": {"assets": [], "pairs": [row]}})


def told(bench: Bench) -> list[tuple[int, State, bytes]]:
    last = bench.last()
    rows = last[last["kind"] == Kind.STATUS].view(STATUS)
    return [(int(row["instrument_id"]), State(row["state"]), bytes(row["detail"])) for row in rows]


def test_state_of_the_engine_is_told_of_every_pair_when_trading_stops_and_goes_on() -> None:
    bench = bench_of(BTC, MATIC)
    seen = []
    for word in ("online", "maintenance", "cancel_only", "post_only", "limit_only", "online"):
        bench.frame(system(word))
        seen.append(told(bench))
    halted = [(1, State.HALTED, b"maintenance"), (2, State.HALTED, b"maintenance")]
    trading = [(1, State.TRADING, b"limit_only"), (2, State.TRADING, b"limit_only")]
    assert seen == [[], halted, [], [], trading, []]
    assert bench.errors == []
    check_records(bench.records)


def test_state_of_a_pair_is_its_own_and_that_of_the_engine() -> None:
    bench = bench_of(BTC, MATIC)
    seen = []
    for message in (
        pair("online"), pair("cancel_only"), system("maintenance"), pair("online"), system("online"),
        pair("reduce_only"), pair("delisted", symbol="ETH/EUR"),
    ):  # fmt: skip
        bench.frame(message)
        seen.append([row for row in told(bench) if row[0] == 1])
    assert seen == [[], [(1, State.HALTED, b"cancel_only")], [], [], [(1, State.TRADING, b"online")], [], []]


def test_row_of_a_pair_that_cannot_be_read_costs_no_other() -> None:
    bench = bench_of()
    good = pair("cancel_only")
    bench.frame(good.replace('"pairs": [', '"pairs": [{"symbol": "ODD/USD", "status": null}, '))
    assert bench.errors == [] and told(bench) == [(1, State.HALTED, b"cancel_only")]
    ((what, sample),) = bench.adapter.unknown.take_new()
    assert what.startswith("pair: ") and b"ODD/USD" in sample


def test_change_of_precision_begins_the_book_anew_with_the_new_digits() -> None:
    bench = bench_of()
    bids, asks = [("99.0", "1.00000000")], [("101.0", "2.00000000")]
    bench.frame(book("snapshot", bids, asks, checksum(bids, asks)))
    assert bench.frame(pair(price=1)) == [] and bench.adapter.counts.books_valid == 1
    (request,) = sent(bench.frame(pair(price=0)))
    assert (request["method"], request["params"]["symbol"]) == ("unsubscribe", [BTC])
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    bench.frame(answer("book", method="unsubscribe"))
    coarse = [("99", "1.00000000")], [("101", "2.00000000")]
    bench.frame(book("snapshot", *coarse, checksum(*coarse)))
    assert (bench.adapter.counts.gaps, bench.adapter.counts.books_valid) == (0, 1)


# ---- trades and quotes ------------------------------------------------------------------------------------


def trade(first: int, *more: int, kind: str = "update", **changed: Any) -> str:
    rows = [
        {"symbol": BTC, "side": "buy", "price": 105944.2, "qty": 0.5, "ord_type": "limit", "trade_id": number,
         "timestamp": "2023-10-06T17:35:55.440295Z", **changed}
        for number in (first, *more)
    ]  # fmt: skip
    return json.dumps({"channel": "trade", "type": kind, "data": rows}, separators=(",", ":"))


def test_trades_of_a_message_are_one_group_with_the_takers_side_and_exact_numbers() -> None:
    bench = bench_of()
    bench.frame(TRADES)
    rows = bench.last().view(TRADE)
    assert rows["aggressor"].tolist() == [Aggressor.BUY, Aggressor.SELL]
    assert rows["price"].tolist() == [1_059_442, 1_059_105] and rows["size"].tolist() == [27_625, 12_460]
    assert rows["trade_id"].tolist() == rows["venue_seq"].tolist() == [10_218_208, 10_218_209]
    assert rows["flags"].tolist() == [Flags.NONE, Flags.LAST]
    assert rows["ts_event"].tolist() == [1_696_613_755_440_295_000] * 2


def test_quoted_numbers_are_numbers_too() -> None:
    bench = bench_of()
    bench.frame(TRADES.replace("105944.2", '"105944.2"'))
    assert bench.errors == [] and bench.last()["price"].tolist() == [1_059_442, 1_059_105]


def test_missing_ids_are_a_gap_and_ids_that_come_again_are_dropped() -> None:
    bench = bench_of()
    bench.frame(trade(100, 101))
    bench.frame(trade(102, 110))
    assert kinds(bench.last()) == [Kind.TRADE, Kind.STATUS, Kind.TRADE]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 103, 110)]
    bench.frame(trade(110))
    assert len(bench.last()) == 0 and (bench.adapter.counts.repeated, bench.adapter.counts.gaps) == (1, 1)
    check_records(bench.records)


def test_history_is_flagged_and_closes_the_hole_of_a_reconnect() -> None:
    bench = bench_of()
    bench.frame(trade(100, 101, 102, kind="snapshot"))
    history = int(Flags.SNAPSHOT | Flags.RECOVERED)
    assert bench.last()["flags"].tolist() == [history, history, history | Flags.LAST]
    bench.frame(trade(103))
    bench.disconnect()
    bench.connect()
    bench.frame(trade(102, 103, 104, 105, kind="snapshot"))
    assert bench.last().view(TRADE)["trade_id"].tolist() == [104, 105]
    bench.frame(trade(106))
    assert (bench.adapter.counts.gaps, bench.adapter.counts.repeated) == (0, 0)
    bench.frame(trade(200, 201, kind="snapshot"))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 107, 200)]
    check_records(bench.records)


def test_history_need_not_be_asked_for() -> None:
    requests = sent(bench_of(trade_history=False).requests)
    assert requests[0]["params"] == {"channel": "trade", "snapshot": False, "symbol": [BTC]}


@pytest.mark.parametrize(
    "fields", [{"side": "both"}, {"price": -1}, {"qty": 0}, {"timestamp": "now"}, {"trade_id": -1}, {"symbol": MATIC}]
)
def test_trade_that_cannot_be_costs_its_message_which_is_then_missing(fields: dict[str, Any]) -> None:
    bench = bench_of(BTC, MATIC)
    bench.frame(SNAPSHOT)
    bench.frame(trade(100))
    good, bad = (json.loads(one)["data"] for one in (trade(101), trade(102, **fields)))
    bench.frame(json.dumps({"channel": "trade", "type": "update", "data": good + bad}, separators=(",", ":")))
    assert [(error.instrument, error.data_type) for error in bench.errors] == [(BTC, DataType.TRADE)]
    assert bench.adapter.counts.books_valid == 1
    bench.frame(trade(103))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 101, 103)]
    assert bench.adapter.counts.gaps == 1


def ticker(kind: str, **changed: Any) -> str:
    row = {"symbol": BTC, "bid": 0.1, "bid_qty": 740.0, "ask": 1e1, "ask_qty": 2e-08, "last": 0.1, **changed}
    return json.dumps({"channel": "ticker", "type": kind, "data": [row]}, separators=(",", ":"))


def test_quote_is_exact_and_the_first_one_is_flagged() -> None:
    bench = bench_of()
    bench.frame(ticker("snapshot"))
    bench.frame(ticker("update", timestamp="2023-09-25T09:04:31.742648Z"))
    first, second = bench.records.view(BBO)
    for row in (first, second):
        assert [int(row[name]) for name in ("bid_price", "bid_size", "ask_price", "ask_size")] == [
            1, 74_000_000_000, 100, 2,
        ]  # fmt: skip
    assert first["flags"] == Flags.LAST | Flags.SNAPSHOT | Flags.BAD_TS_EVENT
    assert (second["flags"], second["ts_event"]) == (Flags.LAST, 1_695_632_671_742_648_000)


@pytest.mark.parametrize("nothing", [0.0, None])
def test_side_of_a_quote_without_orders_is_empty(nothing: float | None) -> None:
    bench = bench_of()
    bench.frame(ticker("update", ask=nothing, ask_qty=nothing))
    (row,) = bench.last().view(BBO)
    assert (row["ask_price"], row["ask_size"], row["bid_price"]) == (UNDEFINED_PRICE, 0, 1)


# ---- books ------------------------------------------------------------------------------------------------


def test_rule_1_real_snapshot_and_update_have_their_checksums_and_every_digit() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT)
    assert kinds(bench.last()) == [Kind.CLEAR, *[Kind.LEVEL] * 20, Kind.STATUS]
    pattern = re.compile(r'\{"price":([\d.]+),"qty":([\d.]+)\}')
    assert [level[1:] for level in levels(bench)] == pattern.findall(SNAPSHOT)
    assert set(bench.last()["ts_event"][:21].tolist()) == {1_787_610_117_110_183_000}
    bench.frame(UPDATE)
    assert levels(bench) == [(Side.BID, "78858.8", "0.00000000"), (Side.BID, "78857.0", "0.34775324")]
    counts = bench.adapter.counts
    assert (counts.checksums, counts.gaps, counts.books_valid, counts.snapshots) == (2, 0, 1, 1)
    check_records(bench.records)


def test_rule_1_updates_before_the_snapshot_say_nothing_and_a_later_one_replaces_the_book() -> None:
    bench = bench_of()
    bench.frame(UPDATE)
    assert len(bench.records) == 0
    bench.frame(SNAPSHOT)
    bench.frame(UPDATE)
    bench.frame(SNAPSHOT)
    assert kinds(bench.last()) == [Kind.CLEAR, *[Kind.LEVEL] * 20]
    bench.frame(UPDATE)
    assert (bench.adapter.counts.gaps, bench.adapter.counts.checksums) == (0, 4)


def test_rule_2_price_may_come_twice_in_a_message() -> None:
    bench = bench_of()
    bids, asks = [("99.0", "1.00000000")], [("101.0", "2.00000000")]
    bench.frame(book("snapshot", bids, asks, checksum(bids, asks)))
    after = [("99.5", "3.00000000"), ("99.0", "1.00000000")]
    changes = [("99.5", "1.00000000"), ("99.5", "0.00000000"), ("99.5", "3.00000000")]
    bench.frame(book("update", changes, [], checksum(after, asks)))
    assert bench.adapter.counts.gaps == 0 and [size for _, _, size in levels(bench)] == [one[1] for one in changes]


@pytest.mark.parametrize("depth", [10, 25])
def test_rule_3_levels_pushed_out_of_the_window_are_told_as_deleted(depth: int) -> None:
    bench = bench_of(depth=depth)
    bids, asks = ladder(990, depth, -1), ladder(1010, depth, 1)
    bench.frame(book("snapshot", bids, asks, checksum(bids, asks)))
    better = ("99.5", "7.00000000")
    bench.frame(book("update", [better], [], checksum([better, *bids], asks)))
    assert levels(bench) == [(Side.BID, *better), (Side.BID, bids[-1][0], "0.00000000")]
    # The level that comes back into the window is told again.
    gone = (better[0], "0.00000000")
    bench.frame(book("update", [gone, bids[-1]], [], checksum(bids, asks)))
    assert levels(bench) == [(Side.BID, *gone), (Side.BID, *bids[-1])]
    assert bench.adapter.counts.gaps == 0 and bench.adapter.book_depth(BTC) == depth
    check_records(bench.records)


def test_rule_4_checksum_of_the_documentation_is_of_digits_that_its_text_has_lost() -> None:
    """The page's numbers lack trailing zeros: 0.567 is 0.5670."""
    asks = {
        "0.5668": "4410.79769741", "0.5669": "4655.40412487", "0.567": "49844.89424998", "0.5671": "24306.41678",
        "0.5672": "29783.25223475", "0.5673": "57234.71239278", "0.5674": "45065.04744", "0.5675": "5912.76380354",
        "0.5676": "42514.92434778", "0.5677": "36304.0847022",
    }  # fmt: skip
    bids = {
        "0.5666": "4831.75496356", "0.5665": "6658.22734739", "0.5664": "18724.91513344", "0.5663": "11563.92544914",
        "0.5662": "14006.65365711", "0.5661": "17454.85679807", "0.566": "18097.1547", "0.5659": "33644.89175666",
        "0.5658": "148.3464", "0.5657": "606.70854372",
    }  # fmt: skip
    bench = bench_of(MATIC)
    bench.frame(book("snapshot", list(bids.items()), list(asks.items()), 2439117997, MATIC))
    assert bench.adapter.counts.books_valid == 1


def test_rule_4_books_of_fewer_than_ten_levels_and_of_none_have_a_checksum() -> None:
    bench = bench_of()
    asks = [("101.0", "2.00000000")]
    bench.frame(book("snapshot", [], asks, checksum([], asks)))
    bench.frame(book("update", [], [("101.0", "0.00000000")], 0))
    assert (bench.adapter.counts.checksums, bench.adapter.counts.gaps) == (2, 0)


def test_rule_5_wrong_update_leaves_no_level_and_costs_this_book_alone() -> None:
    bench = bench_of(BTC, MATIC)
    bench.frame(SNAPSHOT)
    other = [("0.5666", "1.00000000")], [("0.5668", "2.00000000")]
    bench.frame(book("snapshot", *other, checksum(*other), MATIC))
    (request,) = sent(bench.frame(UPDATE.replace("2416540570", "2416540571")))
    assert request["method"] == "unsubscribe"
    assert request["params"] == {"channel": "book", "depth": 10, "symbol": [BTC]}
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    assert statuses(bench.last()) == [(State.GAP, Reason.CHECKSUM, 2416540571, 2416540570)]
    assert bench.adapter.counts.books_valid == 1
    assert bench.frame(UPDATE) == () and bench.frame(SNAPSHOT) == ()  # of the subscription that has ended
    acknowledged, again = bench.frame(answer("book", method="unsubscribe", number=request["req_id"]))
    assert acknowledged == Acknowledged(0, str(request["req_id"]))
    assert sent([again])[0]["params"] == {"channel": "book", "depth": 10, "snapshot": True, "symbol": [BTC]}
    bench.frame(SNAPSHOT)
    bench.frame(UPDATE)
    assert bench.adapter.counts.books_valid == 2
    check_records(bench.records)


def test_rule_5_wrong_snapshot_is_never_shown() -> None:
    bench = bench_of()
    bench.frame(SNAPSHOT.replace("1406471562", "1406471563"))
    assert kinds(bench.records) == [Kind.STATUS] and bench.adapter.counts.books_valid == 0


def test_snapshot_that_does_not_come_is_asked_for_anew() -> None:
    bench = bench_of()
    methods = [
        [request["method"] for request in sent(bench.adapter.on_timer(0, NOW + seconds * SECOND, bench.emit))]
        for seconds in (10, 40)
    ]
    assert methods == [["ping"], ["ping", "unsubscribe"]]


def test_message_whose_owner_is_unknown_costs_the_connection_only_where_no_checksum_would_show_it() -> None:
    for depth, reasons in ((10, []), (25, [Reason.BAD_MESSAGE])):
        bench = bench_of(depth=depth)
        requests = bench.frame('{"channel":"bo')
        assert [request.reason for request in requests if isinstance(request, Reconnect)] == reasons
        assert len(bench.errors) == 1


@pytest.mark.parametrize("depth", [25, 1000])
def test_deeper_books_are_the_venues_too(depth: int) -> None:
    loop = Loopback("kraken", depth=60, rate=400, options={"depth": depth})
    loop.run(5.0)
    loop.arm(FaultKind.CHECKSUM, match="book:")
    loop.arm(FaultKind.TRUNCATE, match="book:", after=20)
    loop.arm(FaultKind.GARBAGE, match="trade:", after=20)
    loop.run(5.0)
    loop.settle(10.0)
    loop.assert_books_true()
    assert all(loop.injector.fired[kind] for kind in (FaultKind.CHECKSUM, FaultKind.TRUNCATE, FaultKind.GARBAGE))


def test_silent_venue_is_left_for_another_connection() -> None:
    loop = Loopback("kraken", emulator_options={"heartbeat_s": 3600.0}, rate=0)
    loop.run(30.0)
    assert loop.reconnects and {request.reason for request in loop.reconnects} == {Reason.STALE}
