"""Templates: each field reads what it should to the digit, and nothing that decoding would refuse or read otherwise."""

from __future__ import annotations

from itertools import permutations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from mdring.feed.adapter import AdapterCounts
from mdring.feed.chain import Chain
from mdring.feed.direct import DeltaRoute, DirectRoutes, Place, QuoteRoute, Route, TradeRoute
from mdring.feed.emit import Emit
from mdring.feed.fixed import time_ns
from mdring.feed.id_sequence import IdSequence
from mdring.feed.socket_book import BookWire, SocketBook
from mdring.feed.stage import Channel
from mdring.feed.trade_id import trade_id_of
from mdring.record import LEVEL, TRADE, Aggressor, Side

UTC = '{"s":"B","id":<id>,"side":"<maker>","p":<price>,"q":"<size>","at":"<utc>"}'
MEMBERS = (
    '{"s":"B","data":<members>{"at":<time>,"kind":"change","last":<last>,"bids":<action_bids>,"asks":<action_asks>,'
    '"previous":<previous>,"note":<maybe>}}'
)
ROWS = (
    '{"s":"B","data":<rows>[<members>{"at":<time>,"p":<price>,"q":<size>,"side":"<taker>","n":<number>,'
    '"id":"<text_id>"}],"x":<any>}'
)


def channel() -> Channel:
    return Channel("B", 7, 1, -2, -3)


def taken(route: Route, message: str, expected: bool = True) -> npt.NDArray[np.void]:
    """The records of one message, which the route takes, or leaves."""
    routes, emit = DirectRoutes('{"s":"', '"'), Emit(4)
    routes.add("B", route)
    emit.begin(5)
    assert routes.take(0, message.encode(), emit) is expected, message
    assert expected or emit.staged == 0
    return emit.drain()


def is_taken(route: Route, message: str) -> bool:
    routes, emit = DirectRoutes('{"s":"', '"'), Emit(4)
    routes.add("B", route)
    return routes.take(0, message.encode(), emit)


def fill(
    number: int = 1, *, price: str = "1.5", size: str = "2", at: str = "2026-11-26T07:15:49Z", side: str = "buy"
) -> str:
    return f'{{"s":"B","id":{number},"side":"{side}","p":{price},"q":"{size}","at":"{at}"}}'


def trades_route() -> TradeRoute:
    return TradeRoute(UTC, channel(), IdSequence())


# ---- times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "2021-04-17T16:43:37.075687Z",
        "2026-08-24T22:34:13.813365299Z",
        "2026-08-24T22:34:13Z",
        "2026-08-24T22:34:13.8Z",
        "2026-08-24T22:34:13.8133652991Z",  # more digits than ns
        "2024-02-29T00:00:00.000001Z",
        "2016-12-31T23:59:60.5Z",  # a leap second
        "1970-01-01T00:00:00.000000001Z",
    ],
)
def test_text_of_a_time_is_read_to_the_nanosecond(text: str) -> None:
    assert taken(trades_route(), fill(at=text))["ts_event"].tolist() == [time_ns(text)]


@pytest.mark.parametrize(
    "text",
    [
        "2026-08-24T22:34:13.813365+00:00",
        "2026-08-24T22:34:13.813365+02:00",
        "2026-08-24T22:34:13.813365",
        "2026-08-24T22:34:13.813365z",
        "2026-08-24 22:34:13.813365Z",
        "2026-08-24T22:34:13.Z",
        "2026-08-24T22:34:13,8Z",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-08-24T24:00:00Z",
        "2026-08-24T22:34:61Z",
        "1970-01-01T00:00:00Z",  # no time
        "1969-12-31T23:59:59Z",
        "9999-08-24T22:34:13Z",
        "2026-08-24T22:34:1\\u0033Z",
        "2026-08-24T22:34:13." + "0" * 40 + "Z",
        "Z",
        "",
    ],
)
def test_text_that_is_no_time_in_utc_is_left(text: str) -> None:
    taken(trades_route(), fill(at=text), expected=False)


# ---- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1.5", "1.50", "15e-1", "0.15E+1", "0.15e01", "150e-2", "1.5e0"])
def test_number_of_json_is_taken_whatever_its_power_of_ten(text: str) -> None:
    assert taken(trades_route(), fill(price=text))["price"].tolist() == [150]


@pytest.mark.parametrize(
    "text",
    [
        *("01.5", "00", "+1.5", ".5", "1.", "1e", "1e+", "0x1", "-1.5", "NaN", "Infinity", "1.555", "1e99", "1e-99"),
        *("null", '"1.5"', "9" * 40, "1" + "0" * 17, "", " 1.5", "1.5 ", "1_5", "1,5", "0", "0.0", "--1", "1.5.5"),
    ],
)
def test_number_that_is_not_json_or_that_no_record_holds_is_left(text: str) -> None:
    taken(trades_route(), fill(price=text), expected=False)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(10**18, True), (2**63 - 2, True), (2**63 - 1, False), (2**63, False), (10**19, False), (2**64 + 7, False)],
)
def test_id_is_taken_if_another_one_may_follow_it_in_63_bits(number: int, expected: bool) -> None:
    ids = taken(trades_route(), fill(number), expected).view(TRADE)["trade_id"].tolist()
    assert ids == [number] * expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", True), ("17", True), ("-1", False), ("1.0", False), ("1e3", False), ("true", False), ('"1"', False)],
)
def test_whole_number_may_be_passed_over_and_nothing_else_in_its_place(text: str, expected: bool) -> None:
    form = '{"s":"B","ts":<whole>,"b":<bid_price>,"B":<bid_size>,"a":<ask_price>,"A":<ask_size>}'
    chain = Chain()
    chain.live = True
    taken(QuoteRoute(form, channel(), chain), f'{{"s":"B","ts":{text},"b":1,"B":1,"a":2,"A":1}}', expected)


@pytest.mark.parametrize(
    "text", ["1", "-1.5", "1e-7", "1E+7", "0", "true", "false", "null", '"any text"', '""', "1.25e3"]
)
def test_plain_value_is_passed_over(text: str) -> None:
    message = f'{{"s":"B","u":1,"x":{text},"b":1,"B":1,"a":2,"A":1}}'
    form = '{"s":"B","u":<last>,"x":<any>,"b":<bid_price>,"B":<bid_size>,"a":<ask_price>,"A":<ask_size>}'
    chain = Chain()
    chain.live, chain.last = True, 0
    msgspec.json.decode(message)
    taken(QuoteRoute(form, channel(), chain), message)


@pytest.mark.parametrize(
    "text", ["01", "-", "1.", "1e", "tru", "nul", "True", "[]", "{}", '"a\\n"', '"\x7f"', '"a', "", "é"]
)
def test_value_that_is_not_plain_is_left(text: str) -> None:
    message = f'{{"s":"B","u":1,"x":{text},"b":1,"B":1,"a":2,"A":1}}'
    form = '{"s":"B","u":<last>,"x":<any>,"b":<bid_price>,"B":<bid_size>,"a":<ask_price>,"A":<ask_size>}'
    chain = Chain()
    chain.live, chain.last = True, 0
    taken(QuoteRoute(form, channel(), chain), message, expected=False)


def test_text_is_a_string_and_no_other_value() -> None:
    form = '{"s":"B","x":<text>,"b":<bid_price>,"B":<bid_size>,"a":<ask_price>,"A":<ask_size>}'
    chain = Chain()
    chain.live = True
    for text, is_string in (('"1.5"', True), ('""', True), ("1.5", False), ("null", False), ('"a', False), ("", False)):
        taken(QuoteRoute(form, channel(), chain), f'{{"s":"B","x":{text},"b":1,"B":1,"a":2,"A":1}}', expected=is_string)


def test_aggressor_is_the_other_side_of_the_maker() -> None:
    assert taken(trades_route(), fill(side="buy")).view(TRADE)["aggressor"][0] == Aggressor.SELL
    assert taken(trades_route(), fill(side="sell")).view(TRADE)["aggressor"][0] == Aggressor.BUY
    taken(trades_route(), fill(side="Buy"), expected=False)


# ---- trade ids that are text ------------------------------------------------------------------------------


def row(number: int = 1, *, text: str = "7", at: str = "3") -> str:
    return f'{{"at":{at},"p":1.5,"q":2,"side":"sell","n":{number},"id":"{text}"}}'


def rows(*each: str, rest: str = '"x":1') -> str:
    return f'{{"s":"B","data":[{",".join(each)}],{rest}}}'


def rows_route() -> tuple[TradeRoute, IdSequence]:
    sequence = IdSequence()
    return TradeRoute(ROWS, channel(), sequence, unit_ns=1_000_000), sequence


@pytest.mark.parametrize(
    "text",
    [
        *("0", "7", "403691824", "9" * 18, "ETH-403691824", "0123", "a", "abcdefghijklmnop", "1234567890123456", "7a"),
        *("20f43950-d8dd-5b31-9112-a178eb6023af", "00000000-0000-0000-0000-000000000000", "20f4 3950"),
    ],
)
def test_text_id_is_read_as_decoding_reads_it(text: str) -> None:
    found = taken(rows_route()[0], rows(row(text=text))).view(TRADE)
    low, high, id_format = trade_id_of(text)
    assert (found["trade_id"][0], found["trade_id_high"][0], found["trade_id_format"][0]) == (low, high, id_format)


@pytest.mark.parametrize(
    "text",
    [
        *("", "abcdefghijklmnopq", "9" * 19, "9" * 36, "a\\u0062", 'a"b', "é", "20F43950-D8DD-5B31-9112-A178EB6023AF"),
        *("20f43950xd8dd-5b31-9112-a178eb6023af", "20f43950-d8dd-5b31-9112-a178eb6023ag"),
        *("20f43950-d8dd-5b31-9112-a178eb6023a", "{0f43950-d8dd-5b31-9112-a178eb6023a}"),
    ],
)
def test_text_id_of_another_form_is_left(text: str) -> None:
    taken(rows_route()[0], rows(row(text=text)), expected=False)


# ---- rows -------------------------------------------------------------------------------------------------


def test_trades_of_one_message_are_one_event_group_and_move_the_sequence_behind_the_last() -> None:
    route, sequence = rows_route()
    found = taken(route, rows(row(5, text="50"), row(6, text="51"), row(7, text="a")))
    assert found["venue_seq"].tolist() == [5, 6, 7]
    assert found["flags"].tolist() == [0, 0, 1]
    assert sequence.due == 8
    assert found.view(TRADE)["aggressor"].tolist() == [Aggressor.SELL] * 3


@pytest.mark.parametrize(
    "message",
    [
        rows(),
        rows(row(5), row(7)),  # one is missing among them
        rows(row(5), row(5)),
        rows(row(6)),  # or before them
        rows(row(4)),
        rows(row(5), row(6), rest='"y":1'),  # what follows the array is another form
        rows(row(5), row(6), rest='"x":1,"y":1'),
        rows(row(5), row(6, at="0")),
        rows(row(5), "{}"),
        rows(row(5), ""),
        rows("", row(5)),
        rows(row(5), row(6)).replace("},{", "} {"),
        rows(row(5), row(6)).replace("},{", "}{"),
        rows(row(5)).replace("]", "]]"),
        rows(row(5)).replace("[", "[["),
        rows(row(5)).replace("]", ""),
        rows(row(5)).replace("[", ""),
    ],
)
def test_array_of_which_one_trade_is_not_the_next_is_left_as_a_whole(message: str) -> None:
    route, sequence = rows_route()
    sequence.due = 5
    taken(route, message, expected=False)
    assert sequence.due == 5


def test_array_cut_short_anywhere_is_left() -> None:
    route, sequence = rows_route()
    message = rows(row(1), row(2))
    for length in range(len(message)):
        assert not is_taken(route, message[:length])
    assert sequence.due == -1
    assert is_taken(route, message)


# ---- members in any order ---------------------------------------------------------------------------------


class Wire(BookWire):
    def unsubscribe(self) -> tuple[()]:
        return ()

    def subscribe(self, delay_ns: int) -> tuple[()]:
        return ()


def book(last: int = 10) -> SocketBook:
    sync = SocketBook(channel(), Wire(), AdapterCounts())
    sync.on_subscribe(1)
    sync.synced(last, 1, Emit(4))
    return sync


PARTS = (
    '"at":3',
    '"kind":"change"',
    '"last":11',
    '"bids":[["new",1.5,2.0]]',
    '"asks":[["delete",2,0.0]]',
    '"previous":10',
)


def members(*parts: str) -> str:
    return f'{{"s":"B","data":{{{",".join(parts)}}}}}'


def test_members_in_any_order_make_the_same_records() -> None:
    found = set()
    for order in permutations(PARTS):
        sync = book()
        records = taken(DeltaRoute(MEMBERS, channel(), sync, unit_ns=1_000_000), members(*order))
        assert (sync.first, sync.last) == (10, 11)
        bids_first = order.index(PARTS[3]) < order.index(PARTS[4])
        found.add((bids_first, records.tobytes()))
    assert len(found) == 2  # levels come as they stand in the message


def test_order_of_members_may_change_from_message_to_message() -> None:
    sync = book()
    route = DeltaRoute(MEMBERS, channel(), sync, unit_ns=1_000_000)
    for number, order in enumerate(list(permutations(PARTS))[::37], 11):
        parts = [part.replace("11", str(number)).replace("10", str(number - 1)) for part in order]
        found = taken(route, members(*parts))
        assert found["venue_seq"].tolist() == [number, number]
        assert found["ts_event"].tolist() == [3_000_000, 3_000_000]
        assert found.view(LEVEL)["size"].tolist() == ([2000, 0] if found["side"][0] == Side.BID else [0, 2000])


def test_member_that_may_be_missing_is_passed_over_where_it_is_there() -> None:
    for value in ("1", "null", '"text"'):
        route = DeltaRoute(MEMBERS, channel(), book(), unit_ns=1)
        assert len(taken(route, members(*PARTS[:2], f'"note":{value}', *PARTS[2:]))) == 2
        taken(DeltaRoute(MEMBERS, channel(), book(), unit_ns=1), members(*PARTS, f'"note":{value}'))


@pytest.mark.parametrize(
    "message",
    [
        members(*PARTS[:5]),  # one is missing
        members(*PARTS[1:]),
        members(*PARTS, PARTS[0]),  # one twice
        members(PARTS[0], PARTS[0], *PARTS[2:]),
        members(*PARTS, '"note":1', '"note":2'),
        members(*PARTS, '"another":1'),
        members('"another":1', *PARTS),
        members(*PARTS, '"note":{}'),
        members(*PARTS, '"note":[1]'),
        members(),
        members(*PARTS, ""),
        members("", *PARTS),
        members(PARTS[0].replace("3", "0"), *PARTS[1:]),  # no time
        members(*PARTS).replace('"kind"', '"kin\\u0064"'),
        members(*PARTS).replace('"change"', '"snapshot"'),
        members(*PARTS).replace('"data":{', '"data":[').replace("}}", "]}"),
        members(*PARTS).replace("{", "{ ", 1),
        members(*PARTS).replace('"delete"', '"del"'),
        members(*PARTS).replace('"delete"', "delete"),
        members(*PARTS).replace('"delete",', ""),
        members(*PARTS).replace("[[", "[").replace("]]", "]"),
        members(*PARTS).replace("2.0", "2.0e"),
        members(*PARTS).replace("2.0", "02.0"),
        members(*PARTS).replace("2.0", "-2.0"),
        members(*PARTS)[:-1],
        members(*PARTS) + "}",
    ],
)
def test_object_that_lacks_a_member_has_another_or_one_twice_is_left(message: str) -> None:
    sync = book()
    taken(DeltaRoute(MEMBERS, channel(), sync, unit_ns=1), message, expected=False)
    assert (sync.live, sync.last) == (True, 10)


# ---- levels -----------------------------------------------------------------------------------------------


def one_level(form: str, text: str) -> bool:
    template = f'{{"s":"B","x":<{form}>,"last":<last>,"previous":<previous>,"at":<time>}}'
    return is_taken(DeltaRoute(template, channel(), book()), f'{{"s":"B","x":{text},"last":11,"previous":10,"at":1}}')


@pytest.mark.parametrize(
    ("form", "text", "levels"),
    [
        ("object_bids", '[{"price":1.5,"qty":2.000},{"price":150e-2,"qty":0}]',
         [(Side.BID, 150, 2000), (Side.BID, 150, 0)]),
        ("object_asks", '[{"price":"1.5","qty":"2"}]', [(Side.ASK, 150, 2000)]),
        ("action_asks", '[["new",1.5,2],["change",1.6,1e-3],["delete",1.7,9]]',
         [(Side.ASK, 150, 2000), (Side.ASK, 160, 1), (Side.ASK, 170, 0)]),
        ("changes", '[["sell","1.5","2"],["buy","1.25","0"]]', [(Side.ASK, 150, 2000), (Side.BID, 125, 0)]),
        ("bids", '[[1.5,2],["1.25","1"]]', [(Side.BID, 150, 2000), (Side.BID, 125, 1000)]),
        ("changes", "[]", []),
    ],
)  # fmt: skip
def test_levels_of_each_form(form: str, text: str, levels: list[tuple[Side, int, int]]) -> None:
    template = f'{{"s":"B","x":<{form}>,"last":<last>,"previous":<previous>,"at":<time>}}'
    found = taken(DeltaRoute(template, channel(), book()), f'{{"s":"B","x":{text},"last":11,"previous":10,"at":1}}')
    made = found.view(LEVEL)
    assert list(zip(made["side"].tolist(), made["price"].tolist(), made["size"].tolist(), strict=True)) == levels
    assert set(found["venue_seq"].tolist()) <= {11} and set(found["ts_event"].tolist()) <= {1}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("object_bids", '[{"qty":2,"price":1.5}]'),  # another order: decoding reads it
        ("object_bids", '[{"price":1.5,"qty":2,"x":1}]'),
        ("object_bids", '[{"price":1.5}]'),
        ("object_bids", '[{"price":01.5,"qty":2}]'),
        ("object_bids", '[{"price":1.5,"qty":.2}]'),
        ("object_bids", '[{"price":1.5,"qty":2]'),
        ("object_bids", '[{"price":1.5,"qty":2},]'),
        ("object_bids", '[{"price":"1.5,"qty":2}]'),
        ("object_bids", '[[1.5,2]]'),
        ("object_bids", '[{"pric\\u0065":1.5,"qty":2}]'),
        ("object_bids", "{}"),
        ("action_asks", '[["made",1.5,2]]'),
        ("action_asks", '[["new",1.5]]'),
        ("action_asks", "[[new,1.5,2]]"),
        ("action_asks", '[["new",-1.5,2]]'),
        ("changes", '[["BUY","1.5","2"]]'),
        ("changes", '[["buy","1.5","2"'),
        ("changes", '[["buy","1.5",["2"]]]'),
        ("changes", '[["buy","1.5","1e30"]]'),
        ("changes", '[["buy","0","1"]]'),
        ("bids", "[[1.5,02]]"),
        ("bids", "null"),
    ],
)  # fmt: skip
def test_levels_of_another_form_are_left(form: str, text: str) -> None:
    assert not one_level(form, text)


# ---- how deltas follow ------------------------------------------------------------------------------------


def ordered(form: str, chain: Chain, message: str) -> bool:
    return is_taken(DeltaRoute(form, channel(), chain), message)


def test_delta_with_one_id_must_be_above_the_last() -> None:
    form = '{"s":"B","x":<bids>,"last":"<last>","at":<time>}'
    chain = book(10)
    assert not ordered(form, chain, '{"s":"B","x":[],"last":"10","at":1}')
    assert not ordered(form, chain, '{"s":"B","x":[],"last":"9","at":1}')
    assert ordered(form, chain, '{"s":"B","x":[],"last":"12","at":1}')
    assert chain.last == 12


def test_delta_without_ids_follows_whatever_came_before() -> None:
    form = '{"s":"B","x":<bids>,"at":<time>}'
    chain = book(0)
    assert ordered(form, chain, '{"s":"B","x":[["1","1"]],"at":1}')
    assert ordered(form, chain, '{"s":"B","x":[["1","1"]],"at":1}')
    chain.live = False
    assert not ordered(form, chain, '{"s":"B","x":[["1","1"]],"at":1}')


def test_delta_with_a_number_follows_by_that_and_its_id_is_its_venue_seq_alone() -> None:
    form = '{"s":"B","x":<bids>,"u":<number>,"seq":<last>,"at":<time>}'
    chain = book(10)
    assert not ordered(form, chain, '{"s":"B","x":[],"u":12,"seq":900,"at":1}')
    assert not ordered(form, chain, '{"s":"B","x":[],"u":10,"seq":900,"at":1}')
    found = taken(DeltaRoute(form, channel(), chain), '{"s":"B","x":[["1","1"]],"u":11,"seq":900,"at":1}')
    assert found["venue_seq"].tolist() == [900] and chain.last == 11
    assert ordered(form, chain, '{"s":"B","x":[],"u":12,"seq":3,"at":1}')


def test_stamp_is_time_and_id_and_may_not_fall() -> None:
    form = '{"s":"B","x":<bids>,"at":"<stamp>"}'
    chain = book(0)
    found = taken(DeltaRoute(form, channel(), chain, unit_ns=1000), '{"s":"B","x":[["1","1"]],"at":"20"}')
    assert (found["ts_event"].tolist(), found["venue_seq"].tolist()) == ([20_000], [20])
    assert ordered(form, chain, '{"s":"B","x":[],"at":"20"}')
    assert not ordered(form, chain, '{"s":"B","x":[],"at":"19"}')
    assert (chain.first, chain.last) == (20, 20)


def test_quote_with_a_number_must_rise_by_that_and_its_id_is_its_venue_seq_alone() -> None:
    form = '{"s":"B","u":<number>,"b":"<bid_price>","B":"<bid_size>","a":"<ask_price>","A":"<ask_size>","seq":<last>}'
    chain = Chain()
    chain.live, chain.last = True, 5
    route = QuoteRoute(form, channel(), chain)
    taken(route, '{"s":"B","u":5,"b":"1","B":"1","a":"2","A":"1","seq":9}', expected=False)
    found = taken(route, '{"s":"B","u":7,"b":"1","B":"1","a":"2","A":"1","seq":9}')
    assert found["venue_seq"].tolist() == [9] and chain.last == 7


# ---- trades whose ids do not count them -------------------------------------------------------------------

LOOSE = '{"s":"B","id":<id>,"p":"<price>","q":"<size>","at":"<time>","type":<taker_sells>}'
BYBIT_LIKE = (
    '{"s":"B","data":<rows>[{"S":"<Taker>","p":"<price>","q":"<size>","at":<time>,"i":"<text_id>","seq":<last>}]}'
)


def test_trade_whose_id_counts_nothing_is_left_only_if_it_comes_again() -> None:
    chain = Chain()
    chain.live, chain.last = True, -1
    route = TradeRoute(LOOSE, channel(), chain, consecutive=False)
    for number, sells, is_next in ((9, 1, True), (9, 1, False), (7, 0, True), (9, 0, True), (9, 2, False)):
        message = f'{{"s":"B","id":{number},"p":"1","q":"1","at":"5","type":{sells}}}'
        found = taken(route, message, expected=is_next)
        if is_next:
            assert found.view(TRADE)["aggressor"][0] == (Aggressor.SELL if sells else Aggressor.BUY)
            assert (found["venue_seq"][0], found.view(TRADE)["trade_id"][0], chain.last) == (0, number, number)


def test_trades_with_ids_of_text_need_not_follow_one_another() -> None:
    chain = Chain()
    chain.live = True
    route = TradeRoute(BYBIT_LIKE, channel(), chain, consecutive=False)

    def rows_of(*sides: str) -> str:
        each = ",".join(f'{{"S":"{side}","p":"1","q":"1","at":5,"i":"x","seq":4}}' for side in sides)
        return f'{{"s":"B","data":[{each}]}}'

    found = taken(route, rows_of("Buy", "Sell"))
    assert found.view(TRADE)["aggressor"].tolist() == [Aggressor.BUY, Aggressor.SELL]
    assert found["venue_seq"].tolist() == [4, 4]
    assert len(taken(route, rows_of("Sell"))) == 1
    for side in ("buy", "BUY", "S", "", "Sells"):
        taken(route, rows_of("Buy", side), expected=False)


# ---- where a message names its stream ---------------------------------------------------------------------

NAMED_LAST = '{"data":{"id":<id>,"p":"<price>","q":"<size>","t":"<time>","side":"<taker>","note":<any>},"channel":"%s"}'
NAMED_FIRST = '{"type":"fill","id":<id>,"p":"<price>","q":"<size>","product":"%s","t":"<time>","side":"<taker>"}'


def fill_of(name: str, number: int, note: str = "") -> bytes:
    return (
        f'{{"data":{{"id":{number},"p":"1","q":"1","t":"7","side":"buy","note":"{note}"}},"channel":"{name}"}}'
    ).encode()


def test_stream_may_be_named_behind_the_data_or_amid_them() -> None:
    last = Place('{"data":{', behind='"channel":"', last=True)
    amid = Place('{"type":"fill",', behind='"product":"')
    routes, emit, sequence, other = DirectRoutes(last, amid), Emit(4), IdSequence(), IdSequence()
    last.add("B", TradeRoute(NAMED_LAST % "B", channel(), sequence, unit_ns=1_000))
    amid.add("B", TradeRoute(NAMED_FIRST % "B", channel(), other))
    assert routes.take(0, fill_of("B", 1), emit)
    assert not routes.take(0, fill_of("C", 2), emit)
    assert not routes.take(0, fill_of("B", 2, note='\\"channel\\":\\"B'), emit)
    assert routes.take(0, fill_of("B", 2), emit)
    assert routes.take(0, b'{"type":"fill","id":5,"p":"1","q":"1","product":"B","t":"7","side":"buy"}', emit)
    for rubbish in (b"", b"{", b'{"data":{', b'{"data":{}', b'{"data":{"channel":"', b'{"type":"fill","product":"B'):
        assert not routes.take(0, rubbish, emit)
    assert routes.taken == 3 and emit.drain()["ts_event"].tolist() == [7_000, 7_000, 7]


def test_route_of_one_connection_takes_nothing_of_another() -> None:
    routes, emit = DirectRoutes('{"s":"', '"'), Emit(4)
    first, second = trades_route(), trades_route()
    routes.add("B", first, connection=0)
    routes.add("B", second, connection=3)
    with pytest.raises(ValueError, match="'B'"):
        routes.add("B", trades_route(), connection=3)
    emit.begin(77)
    assert routes.take(3, fill(5).encode(), emit) and (first.taken_ns, second.taken_ns) == (0, 77)
    assert routes.take(0, fill(1).encode(), emit)
    assert not routes.take(1, fill(2).encode(), emit)
    assert not routes.take(3, fill(5).encode(), emit)  # known there already


# ---- templates that are none ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        '{"s":"B","x":<colour>}',
        '{"s":"B","x":<members>[<any>]}',
        '{"s":"B","x":<rows>{"y":<any>}}',
        '{"s":"B","x":<members>{"y":<any>',
        '{"s":"B","x":<members>{<any>}}',
        '{"s":"B","x":<rows>[<any>',
        '{"s":"B","x":<rows>[<any>],"y":<rows>[<any>]}',
        '{"s":"B","x":<utc>}',
        '{"s":"B","x":<text_id>}',
        '{"s":"B","x":[' + "<any>," * 200 + "]}",
    ],
)
def test_template_that_cannot_be_read_is_an_error(template: str) -> None:
    with pytest.raises(ValueError, match="template"):
        TradeRoute(template, channel(), IdSequence())
