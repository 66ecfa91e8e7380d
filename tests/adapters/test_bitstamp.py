"""Bitstamp v2: its metadata, its answers, its trades, and what its perpetuals tell."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Final

import pytest

from mdring.adapters.bitstamp import BitstampAdapter, BitstampOptions
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
from mdring.record import (
    FUNDING,
    MARK,
    OPEN_INTEREST,
    TRADE,
    Aggressor,
    DataType,
    Flags,
    Kind,
    Reason,
    trade_id,
)
from tests.adapters.bitstamp_bench import (
    MARKETS,
    PERPETUAL,
    QUOTED,
    SECOND,
    acknowledged,
    bench_of,
    diff,
    fetches,
    kinds,
    live,
    refused,
)
from tests.adapters.conformance import NOW, Bench, VenueCase
from tests.adapters.loopback import Loopback, Wanted

TRADE_MESSAGE: Final = '{"data":{"id":216000477,"timestamp":"1641343699","amount":0.0792,"amount_str":"0.07920000","price":3805.44,"price_str":"3805.44","type":0,"microtimestamp":"1641343699596000","buy_order_id":1443875737346049,"sell_order_id":1443875731320832},"channel":"live_trades_ethusd","event":"trade"}'  # fmt: skip  # noqa: E501
FUNDING_MESSAGE: Final = '{"data":{"market":"btcusd-perp","mark_price":"77186.81199586","index_price":"77177.99454545454","funding_rate":"0.000123","timestamp":"1789457618","next_funding_time":"1789459200"},"channel":"funding_rate_btcusd-perp","event":"funding_rate_saved"}'  # fmt: skip  # noqa: E501
TICKERS: Final = b'[{"timestamp": "1789455809", "market_type": "SPOT", "pair": "BTC/USD", "market": "BTC/USD"}, {"timestamp": "1789455809", "market_type": "PERPETUAL", "pair": "BTC/USD-PERP", "market": "BTC/USD-PERP", "index_price": "77224.46266666667", "mark_price": "77238.10540904", "open_interest": "66.98297", "open_interest_value": "5173637.6974705640488"}]'  # fmt: skip  # noqa: E501


# ---- metadata ---------------------------------------------------------------------------------------------


def test_metadata_names_spot_pairs_and_perpetuals_by_their_assets() -> None:
    infos = Bench(
        VenueCase(
            name="bitstamp",
            make=lambda subscriptions: BitstampAdapter(BitstampAdapter.endpoints, BitstampOptions(), subscriptions),
            subscriptions=(),
            metadata=MARKETS,
            frames=(),
            snapshot=lambda fetch: b"",
            other_frame=b"",
        )
    ).infos
    spot, perpetual, whole = infos["galaeur"], infos[PERPETUAL], infos["asterusd-perp"]
    assert [one.canonical_symbol for one in (spot, perpetual, whole)] == ["GALA-EUR", "BTC-USD-PERP", "ASTER-USD-PERP"]
    assert (spot.tick, spot.lot, spot.settle, spot.data_types) == ("0.00001", "0.00000001", "", QUOTED)
    assert (perpetual.tick, perpetual.lot, perpetual.settle) == ("1", "0.00001", "USD")
    assert (whole.lot, whole.multiplier, whole.size_unit) == ("1", "1", "ASTER")
    assert DataType.FUNDING in perpetual.data_types and DataType.LIQUIDATION not in perpetual.data_types
    assert [one.trading for one in infos.values()] == [True, True, False, True, True]


def test_prices_finer_than_the_decimals_of_today_have_room_and_sizes_as_far_as_supplies_allow() -> None:
    infos = {info.instrument: info for info in bench_of().infos.values()}
    exponents = [(infos[name].price_exponent, infos[name].size_exponent) for name in ("galaeur", "usdteur", PERPETUAL)]
    assert exponents == [(-7, -8), (-7, -7), (-2, -7)]


def test_where_the_list_is_not_there_the_older_one_is_asked_for() -> None:
    adapter = BitstampAdapter(BitstampAdapter.endpoints, BitstampOptions(), [])
    (fetch,) = adapter.metadata_requests()
    assert fetch.url == "https://www.bitstamp.net/api/v2/markets/"
    (older,) = adapter.on_metadata(Response(fetch.tag, fetch.url, 404, b'{"message": "Not found."}'))
    assert isinstance(older, Fetch) and older.url == "https://www.bitstamp.net/api/v2/trading-pairs-info/"
    body = (
        b'[{"trading": "Enabled", "base_decimals": 8, "url_symbol": "sgbeur", "name": "SGB/EUR", "minimum_order":'
        b' "20.0 EUR", "counter_decimals": 5}, {"trading": "Enabled", "base_decimals": 5, "url_symbol": "btcusd-perp",'
        b' "name": "BTC/USD-PERP", "counter_decimals": 0}]'
    )
    infos = adapter.on_metadata(Response(older.tag, older.url, 200, body))
    symbols = [info.canonical_symbol for info in infos if isinstance(info, InstrumentInfo)]
    assert symbols == ["SGB-EUR", "BTC-USD-PERP"]
    for status in (0, 404, 500):
        with pytest.raises(VenueProtocolError):
            adapter.on_metadata(Response(older.tag, older.url, status, b""))


def test_market_that_no_record_could_be_made_for_costs_no_other() -> None:
    adapter = BitstampAdapter(BitstampAdapter.endpoints, BitstampOptions(), [])
    body = MARKETS.replace(b'"Linear"', b'"Inverse"', 1).replace(b'"ETH/USD"', b'"ETHUSD"')
    assert len(adapter.on_metadata(Response("markets", "", 200, body))) == 3
    assert adapter.counts.ignored == 2


# ---- connections and answers ------------------------------------------------------------------------------


def test_each_channel_is_asked_for_by_itself_in_a_short_frame() -> None:
    bench = bench_of("ethusd", PERPETUAL, data_types=BitstampAdapter.data_types)
    sends = [request for request in bench.requests if isinstance(request, Send)]
    assert [json.loads(send.text) for send in sends] == [
        {"event": "bts:subscribe", "data": {"channel": f"{channel}_{market}"}}
        for market in ("ethusd", PERPETUAL)
        for channel in ("live_trades", "diff_order_book", "funding_rate")
    ]
    assert [send.ack for send in sends] == [json.loads(send.text)["data"]["channel"] for send in sends]
    assert all(len(send.text.encode()) < 512 for send in sends)


def test_connection_has_no_more_channels_than_the_venue_allows() -> None:
    names = [f"a{number}usd" for number in range(1000)]
    adapter = BitstampAdapter(
        BitstampAdapter.endpoints, BitstampOptions(), [Subscription(name, QUOTED) for name in names]
    )
    channel = bench_of().channels["galaeur"]
    adapter.bind(dict.fromkeys(names, channel))
    assert [len(connection.instruments) for connection in adapter.connections()] == [512, 488]
    assert {connection.url for connection in adapter.connections()} == {"wss://ws.bitstamp.net"}


def test_answers_are_told_once_and_heartbeats_are_answered() -> None:
    bench = bench_of()
    assert bench.frame(acknowledged(channel="live_trades")) == [Acknowledged(0, "live_trades_galaeur")]
    assert bench.frame(acknowledged(channel="live_trades")) == ()
    beat, *_ = bench.adapter.on_timer(0, NOW, bench.emit)
    assert isinstance(beat, Send)
    assert (json.loads(beat.text), beat.urgent) == ({"event": "bts:heartbeat"}, True)
    answer = '{"event":"bts:heartbeat","channel":"","data":{"status":"success"}}'
    assert bench.frame(answer) == (Acknowledged(0, str(beat.ack)),)
    assert not bench.adapter.is_data(answer.encode()) and bench.adapter.is_data(diff(1).encode())


@pytest.mark.parametrize("data", ["null", '""'])
def test_announced_end_asks_for_another_connection(data: str) -> None:
    (request,) = bench_of().frame(f'{{"event":"bts:request_reconnect","channel":"","data":{data}}}')
    assert isinstance(request, Reconnect) and request.reason is Reason.PLANNED_RECONNECT


def test_error_names_no_channel_and_means_what_stays_unanswered() -> None:
    bench = bench_of("galaeur", "ethusd")
    on_frame = bench.adapter.on_frame
    assert on_frame(0, acknowledged("ethusd", "live_trades").encode(), NOW, bench.emit) == [
        Acknowledged(0, "live_trades_ethusd")
    ]
    assert on_frame(0, refused(), NOW, bench.emit) == []
    assert on_frame(0, refused("Connection is unauthorized.", 4009), NOW, bench.emit) == []
    requests = on_frame(0, acknowledged("ethusd").encode(), NOW, bench.emit)
    rejected = [request for request in requests if isinstance(request, Rejected)]
    assert [(one.instrument, one.data_type, one.detail) for one in rejected] == [
        ("galaeur", DataType.TRADE, "Invalid channel provided."),
        ("galaeur", DataType.BBO, "4009 Connection is unauthorized."),
        ("galaeur", DataType.BOOK, "4009 Connection is unauthorized."),
    ]
    assert {request.ack for request in requests if isinstance(request, Acknowledged)} == {
        "diff_order_book_ethusd", "live_trades_galaeur", "diff_order_book_galaeur",
    }  # fmt: skip


def test_market_that_the_venue_refuses_is_told_and_others_go_on() -> None:
    loop = Loopback("bitstamp", wanted=Wanted(extra=("BTC/USD",)))
    loop.run(3.0)
    loop.settle()
    for name in loop.names(DataType.BOOK):
        loop.assert_book_true(name)
    assert {(request.instrument, request.detail) for request in loop.rejected} == {
        ("BTC/USD", "Invalid channel provided.")
    }
    assert loop.acks == loop.acknowledged and loop.reconnects == [] and loop.errors == []


def test_error_that_answers_nothing_is_kept_and_costs_nothing() -> None:
    bench = live()
    bench.frame(acknowledged(channel="live_trades"))
    assert bench.frame(refused("Bad subscription string.")) == () and bench.errors == []
    ((what, _),) = bench.adapter.unknown.take_new()
    assert what == "error that answers no subscription" and bench.adapter.counts.books_valid == 1


def test_messages_are_known_by_their_channel_however_they_are_written() -> None:
    bench = live()
    for stamp, order in enumerate((("event", "data", "channel"), ("channel", "event", "data")), 1_000_001):
        message = json.loads(diff(stamp, [["1", str(stamp)]]))
        bench.frame(json.dumps({key: message[key] for key in order}))
        assert kinds(bench.last()) == [Kind.LEVEL, Kind.BBO]
    bench.frame('{"event":"order_created","channel":"live_trades_galaeur","data":{"id":1}}')
    bench.frame(TRADE_MESSAGE.replace("ethusd", "galaeur").replace('"event":"trade"', '"event":"trade_busted"'))
    assert len(bench.errors) == 1 and bench.adapter.counts.ignored == 1 and bench.adapter.counts.books_valid == 1


# ---- trades, and what perpetuals tell ---------------------------------------------------------------------


def test_trade_of_a_recording_is_exact() -> None:
    bench = bench_of("ethusd")
    bench.frame(TRADE_MESSAGE)
    (row,) = bench.last().view(TRADE)
    channel = bench.channels["ethusd"]
    assert to_decimal(int(row["price"]), channel.price_exponent) == Decimal("3805.44")
    assert to_decimal(int(row["size"]), channel.size_exponent) == Decimal("0.0792")
    assert (row["aggressor"], trade_id(row), row["flags"]) == (Aggressor.BUY, 216000477, Flags.LAST)
    assert row["ts_event"] == 1_641_343_699_596_000_000
    bench.frame(TRADE_MESSAGE)
    assert len(bench.last()) == 0 and bench.adapter.counts.repeated == 1
    bench.frame(TRADE_MESSAGE.replace('"type":0', '"type":1').replace("216000477", "216000478"))
    assert bench.last().view(TRADE)["aggressor"].tolist() == [Aggressor.SELL]


def test_id_beyond_a_double_is_read_from_its_text() -> None:
    bench = bench_of(PERPETUAL)
    message = TRADE_MESSAGE.replace("ethusd", PERPETUAL).replace("216000477", "2001939623936278528")
    bench.frame(message)
    bench.frame(
        message.replace('"timestamp":"1641343699"', '"id_str":"2001939623936278529","timestamp":"1789456400586"')
    )
    bench.frame(message.replace("2001939623936278528", '"2001939623936278530"'))
    assert [trade_id(row) for row in bench.records.view(TRADE)] == [
        2001939623936278528, 2001939623936278529, 2001939623936278530,
    ]  # fmt: skip
    assert bench.errors == []


def test_trade_goes_directly_and_makes_the_same_record_unless_it_comes_again() -> None:
    direct, decoded = bench_of("ethusd"), bench_of("ethusd")
    direct.frame(TRADE_MESSAGE)
    decoded.frame(TRADE_MESSAGE.replace('"data":', '"data": '))
    assert direct.last().tobytes() == decoded.last().tobytes()
    assert direct.adapter.direct is not None and direct.adapter.direct.taken == 1
    assert decoded.adapter.direct is not None and decoded.adapter.direct.taken == 0
    for bench in (direct, decoded):
        bench.frame(TRADE_MESSAGE)
        assert bench.adapter.counts.repeated == 1 and len(bench.records) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [('"type":0', '"type":2'), ('"0.07920000"', '"0"'), ('"3805.44"', '"-1"'), ('"1641343699596000"', '"soon"')],
)
def test_trade_that_cannot_be_is_refused_and_leaves_the_book_alone(old: str, new: str) -> None:
    bench = live()
    bench.frame(TRADE_MESSAGE.replace("ethusd", "galaeur").replace(old, new))
    assert [(error.instrument, error.data_type) for error in bench.errors] == [("galaeur", DataType.TRADE)]
    assert bench.adapter.counts.books_valid == 1


def test_funding_and_mark_come_in_one_message_and_are_told_if_wanted() -> None:
    bench = bench_of(PERPETUAL, data_types=BitstampAdapter.data_types)
    bench.frame(FUNDING_MESSAGE)
    assert kinds(bench.last()) == [Kind.MARK, Kind.FUNDING]
    mark, funding = bench.last()[:1].view(MARK)[0], bench.last()[1:].view(FUNDING)[0]
    assert to_decimal(int(mark["mark_price"]), int(mark["mark_price_exponent"])) == Decimal("77186.81199586")
    assert to_decimal(int(mark["index_price"]), int(mark["index_price_exponent"])) == Decimal("77177.99454545454")
    assert to_decimal(int(funding["rate"]), int(funding["rate_exponent"])) == Decimal("0.000123")
    assert (funding["next_funding_ts"], funding["interval_ns"]) == (1_789_459_200 * SECOND, 8 * 3600 * SECOND)
    assert mark["ts_event"] == funding["ts_event"] == 1_789_457_618 * SECOND
    only = bench_of(PERPETUAL, data_types=(DataType.MARK,))
    only.frame(FUNDING_MESSAGE)
    assert kinds(only.last()) == [Kind.MARK]


def test_open_interest_is_asked_for_at_once_and_then_every_so_often() -> None:
    bench = bench_of(PERPETUAL, data_types=(DataType.OPEN_INTEREST,), open_interest_s=60)
    (fetch,) = fetches(bench.requests)
    assert fetch.url == "https://www.bitstamp.net/api/v2/ticker/"
    bench.answer(fetch, TICKERS)
    (row,) = bench.last().view(OPEN_INTEREST)
    assert to_decimal(int(row["open_interest"]), int(row["open_interest_exponent"])) == Decimal("66.98297")
    assert to_decimal(int(row["value"]), int(row["value_exponent"])) == Decimal("5173637.69747056404")
    assert row["ts_event"] == 1_789_455_809 * SECOND
    assert fetches(bench.adapter.on_timer(0, NOW + 45 * SECOND, bench.emit)) == []
    (again,) = fetches(bench.adapter.on_timer(0, NOW + 60 * SECOND, bench.emit))
    assert bench.answer(again, b"", 500) == ()
    bench.answer(again, b"<html>")
    assert [(error.instrument, error.data_type) for error in bench.errors] == [(None, DataType.OPEN_INTEREST)]
    assert not [request for request in bench.requests if isinstance(request, Reconnect)]
    never = bench_of(PERPETUAL, data_types=(DataType.OPEN_INTEREST,), open_interest_s=0)
    assert fetches(never.requests) == fetches(never.adapter.on_timer(0, NOW + 600 * SECOND, never.emit)) == []
