"""Direct routes: what they take makes the records that the adapter would make; what they leave is untouched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from mdring.feed.book_sync import BookSync, SyncRules, Verdict
from mdring.feed.chain import Chain
from mdring.feed.direct import DeltaRoute, DirectRoutes, QuoteRoute, Route, TradeRoute
from mdring.feed.emit import Emit
from mdring.feed.id_sequence import IdSequence
from mdring.feed.stage import Channel
from mdring.record import BBO, LEVEL, RECORD, TRADE, Aggressor, Flags, Kind, Side

DELTA = '{"s":"B","E":<time>,"U":<first>,"u":<last>,"b":<bids>,"a":<asks>}'
LATE_DELTA = '{"s":"B","b":<bids>,"a":<asks>,"ts":"<time>","seq":<last>,"prev":<previous>}'
QUOTE = '{"s":"B","u":<last>,"b":"<bid_price>","B":"<bid_size>","a":"<ask_price>","A":"<ask_size>"}'
TRADE_FORM = '{"s":"B","t":<id>,"p":"<price>","q":"<size>","T":<time>,"m":<buyer_is_maker>,"x":<any>}'


def channel() -> Channel:
    return Channel("B", 7, 1, -2, -3)


def spot_sync(chained: bool = False) -> BookSync[object]:
    """A book that is in sync up to id 10."""
    sync = BookSync[object](SyncRules(chained, lambda *_: True, lambda *_: Verdict.APPLY, lambda *_: Verdict.GAP))
    sync.on_snapshot(9)
    sync.on_delta(10, 10, 9)
    return sync


def taken(route: Route, message: str, expected: bool = True) -> npt.NDArray[np.void]:
    """The records of one message, which the route takes, or leaves."""
    routes, emit = DirectRoutes('{"s":"', '"'), Emit(4)
    routes.add("B", route)
    emit.begin(5)
    assert routes.take(0, message.encode(), emit) is expected
    assert expected or emit.staged == 0
    return emit.drain()


def as_staged(stage: object) -> npt.NDArray[np.void]:
    emit = Emit(4)
    emit.begin(5)
    stage(emit)  # type: ignore[operator]
    emit.end()
    return emit.drain()


def test_delta_makes_the_records_that_the_stage_makes_and_moves_the_book_on() -> None:
    sync = spot_sync()
    message = '{"s":"B","E":3,"U":11,"u":13,"b":[["1.5","2"],["1.25","0"]],"a":[["2","0.125",[] ]]}'.replace(",[] ", "")
    found = taken(DeltaRoute(DELTA, channel(), sync, unit_ns=1_000_000), message)

    def stage(emit: Emit) -> None:
        one = channel()
        emit.levels(one, Side.BID, b'[["1.5","2"],["1.25","0"]]', 3_000_000, 13)
        emit.levels(one, Side.ASK, b'[["2","0.125"]]', 3_000_000, 13)

    assert found.tobytes() == as_staged(stage).tobytes()
    assert (sync.first, sync.last, sync.due) == (11, 13, 14)
    assert sync.on_delta(14, 14) is Verdict.APPLY


def test_levels_that_stand_before_their_time_and_id_have_them_all_the_same() -> None:
    sync = spot_sync(chained=True)
    message = (
        '{"s":"B","b":[["1.5","2","0","4"]],"a":[["2","1","0","5"],["3","0","0","0"]],"ts":"8","seq":20,"prev":10}'
    )
    found = taken(DeltaRoute(LATE_DELTA, channel(), sync, unit_ns=10, count_at=3), message)

    def stage(emit: Emit) -> None:
        one = channel()
        emit.levels(one, Side.BID, b'[["1.5","2","0","4"]]', 80, 20, 0, 3)
        emit.levels(one, Side.ASK, b'[["2","1","0","5"],["3","0","0","0"]]', 80, 20, 0, 3)

    assert found.tobytes() == as_staged(stage).tobytes()
    assert found.view(LEVEL)["order_count"].tolist() == [4, 5, 0]
    assert sync.last == sync.due == 20


def test_delta_without_levels_moves_the_book_on_and_is_no_event() -> None:
    sync = spot_sync()
    assert len(taken(DeltaRoute(DELTA, channel(), sync, unit_ns=1), '{"s":"B","E":3,"U":11,"u":11,"b":[],"a":[]}')) == 0
    assert sync.last == 11


@pytest.mark.parametrize(
    "message",
    [
        '{"s":"B","E":3,"U":12,"u":13,"b":[],"a":[["2","1"]]}',  # a gap
        '{"s":"B","E":3,"U":10,"u":11,"b":[],"a":[["2","1"]]}',  # an overlap
        '{"s":"B","E":3,"U":11,"u":10,"b":[],"a":[["2","1"]]}',  # ends before it begins
        '{"s":"B","E":0,"U":11,"u":11,"b":[],"a":[["2","1"]]}',  # no time
        '{"s":"B","E":3,"U":11,"u":11,"b":[],"a":[["2","1"]]} ',  # more than the form
        '{"s":"B","E":3, "U":11,"u":11,"b":[],"a":[["2","1"]]}',  # another form
        '{"s":"B","E":3,"U":011,"u":11,"b":[],"a":[["2","1"]]}',  # no JSON
        '{"s":"B","E":3,"U":11,"u":9223372036854775809,"b":[],"a":[["2","1"]]}',  # an id beyond 63 bits
        '{"s":"B","E":9223372036854775,"U":11,"u":11,"b":[],"a":[["2","1"]]}',  # a time beyond them, in µs
        '{"s":"B","E":3,"U":11,"u":11,"b":[["2","1"]],"a":[["2","1e99"]]}',  # a size that does not fit
        '{"s":"B","E":3,"U":11,"u":11,"b":[["2","1"]],"a":[["2.001","1"]]}',  # a price that is too fine
        '{"s":"B","E":3,"U":11,"u":11,"b":[["2","1"]],"a":[["-2","1"]]}',  # a price that is none
        '{"s":"B","E":3,"U":11,"u":11,"b":[["2","1"]],"a":[[02,1]]}',  # a bare number that is not JSON
        '{"s":"B","E":3,"U":11,"u":11,"b":[["2","1"]],"a":[[+2,1]]}',
        '{"s":"B","E":3,"U":11,"u":11,"b":[["2","1"]],"a":[[2,.5]]}',
        '{"s":"B","E":3,"U":11,"u":11,"b":[["2","1"]],"a":[["2","1",nul]]}',  # no JSON in what is skipped
        '{"s":"B","E":3,"U":11,"u":11,"b":[["2","1"]],"a":[["2","1"]',  # cut short
        '{"s":"B"',
        '{"s":"',
        '{"s":"C","E":3,"U":11,"u":11,"b":[],"a":[["2","1"]]}',  # another instrument
    ],
)
def test_whatever_is_not_the_normal_next_delta_is_left_alone(message: str) -> None:
    sync = spot_sync()
    taken(DeltaRoute(DELTA, channel(), sync, unit_ns=1_000_000), message, expected=False)
    assert (sync.first, sync.last, sync.due) == (10, 10, 11)


def test_book_that_awaits_its_snapshot_takes_no_delta() -> None:
    sync = spot_sync()
    sync.reset()
    sync.last = 10
    taken(DeltaRoute(DELTA, channel(), sync, unit_ns=1), '{"s":"B","E":3,"U":11,"u":11,"b":[],"a":[["2","1"]]}', False)


def quotes(last: int) -> Chain:
    chain = Chain()
    chain.live, chain.last = True, last
    return chain


def test_quote_makes_the_record_that_the_stage_makes() -> None:
    chain = quotes(-1)
    message = '{"s":"B","u":12,"b":"1.5","B":"2","a":"2","A":"0.125"}'
    found = taken(QuoteRoute(QUOTE, channel(), chain, unit_ns=1), message)
    assert found.tobytes() == as_staged(lambda emit: emit.bbo(channel(), "1.5", "2", "2", "0.125", 0, 12)).tobytes()
    assert found.view(BBO)["flags"][0] == Flags.BAD_TS_EVENT | Flags.LAST
    assert chain.last == 12


@pytest.mark.parametrize(
    "message",
    [
        '{"s":"B","u":12,"b":"1.5","B":"2","a":"2","A":"0.125"}',  # the same id once more
        '{"s":"B","u":13,"b":"1.5","B":"0","a":"2","A":"0.125"}',  # an empty side
        '{"s":"B","u":13,"b":"0","B":"1","a":"2","A":"0.125"}',
        '{"s":"B","u":13,"b":"","B":"1","a":"2","A":"0.125"}',
    ],
)
def test_quote_that_is_not_newer_or_has_an_empty_side_is_left_alone(message: str) -> None:
    chain = quotes(12)
    taken(QuoteRoute(QUOTE, channel(), chain, unit_ns=1), message, expected=False)
    assert chain.last == 12


def test_trade_makes_the_record_that_the_stage_makes_the_first_one_with_any_id() -> None:
    sequence = IdSequence()
    route = TradeRoute(TRADE_FORM, channel(), sequence, unit_ns=1000)
    for number, maker, aggressor in ((500, "true", Aggressor.SELL), (501, "false", Aggressor.BUY)):
        message = f'{{"s":"B","t":{number},"p":"1.5","q":"2","T":4,"m":{maker},"x":"anything"}}'
        found = taken(route, message)
        staged = as_staged(lambda emit: emit.trade(channel(), "1.5", "2", aggressor, number, 4000, number))  # noqa: B023
        found["channel_seq"] = staged["channel_seq"]
        assert found.tobytes() == staged.tobytes()
        assert found.view(TRADE)["kind"][0] == Kind.TRADE
    assert sequence.due == 502
    taken(route, '{"s":"B","t":503,"p":"1.5","q":"2","T":4,"m":true,"x":1}', expected=False)
    taken(route, '{"s":"B","t":501,"p":"1.5","q":"2","T":4,"m":true,"x":1}', expected=False)
    taken(route, '{"s":"B","t":502,"p":"1.5","q":"2","T":4,"m":null,"x":1}', expected=False)
    taken(route, '{"s":"B","t":502,"p":"1.5","q":"2","T":4,"m":true,"x":"\\u0000"}', expected=False)
    taken(route, '{"s":"B","t":502,"p":"1.5","q":"0","T":4,"m":true,"x":1.5}', expected=False)
    assert sequence.due == 502


def test_more_levels_than_the_stage_had_room_for() -> None:
    levels = ",".join(f'["{price}","1"]' for price in range(1, 3000))
    found = taken(
        DeltaRoute(DELTA, channel(), spot_sync(), unit_ns=1), f'{{"s":"B","E":3,"U":11,"u":11,"b":[{levels}],"a":[]}}'
    )
    assert len(found) == 2999 and found.dtype == RECORD
    assert found["price"].tolist() == [100 * price for price in range(1, 3000)]


def test_each_of_thousands_of_streams_finds_its_own_route() -> None:
    routes, emit = DirectRoutes('{"s":"', '"'), Emit(4)
    names = [f"{'x' * (number % 30)}{number}" for number in range(5000)]
    for number, name in enumerate(names):
        chain = quotes(0)
        routes.add(
            name, QuoteRoute(QUOTE.replace('"B"', f'"{name}"', 1), Channel(name, number, 1, -2, -3), chain, unit_ns=1)
        )
    for number, name in enumerate(names):
        assert routes.take(0, f'{{"s":"{name}","u":1,"b":"1","B":"2","a":"2","A":"1"}}'.encode(), emit)
        assert emit.drain()["instrument_id"].tolist() == [number]
        assert not routes.take(0, f'{{"s":"{name}y","u":1,"b":"1","B":"2","a":"2","A":"1"}}'.encode(), emit)
    with pytest.raises(ValueError, match="already"):
        routes.add(names[4321], QuoteRoute(QUOTE, channel(), quotes(0), unit_ns=1))


def test_template_with_unknown_fields_and_second_route_of_a_key_are_errors() -> None:
    with pytest.raises(ValueError, match="colour"):
        QuoteRoute('{"s":"B","c":<colour>}', channel(), Chain(), unit_ns=1)
    routes = DirectRoutes('{"s":"', '"')
    route = QuoteRoute(QUOTE, channel(), Chain(), unit_ns=1)
    routes.add("B", route)
    with pytest.raises(ValueError, match="'B'"):
        routes.add("B", route)
