"""Staging what perpetuals have: funding, mark and index price, open interest, liquidations; and each form of level."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.emit import Emit
from mdring.feed.fixed import DecimalError, split
from mdring.feed.stage import Channel
from mdring.record import (
    FUNDING,
    LEVEL,
    LIQUIDATION,
    MARK,
    OPEN_INTEREST,
    UNDEFINED_PRICE,
    Aggressor,
    DataType,
    Flags,
    Kind,
    Reason,
    Side,
)

TS = 1_700_000_000_000_000_000


@pytest.fixture
def channel() -> Channel:
    return Channel("BTCUSDT", 7, 2, -2, -3)


def only_row(emit: Emit, view: np.dtype[np.void]) -> np.void:
    emit.end()
    (row,) = emit.drain().view(view)
    assert row["flags"] & Flags.LAST
    return row


def own(row: np.void, name: str) -> Decimal | None:
    value = int(row[name])
    return None if value == UNDEFINED_PRICE else Decimal(value).scaleb(int(row[f"{name}_exponent"]))


# ---- numbers that bring their exponent -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (0, 0)),
        ("-0.000", (0, 0)),
        ("0e-99999999", (0, 0)),
        ("77188", (77188, 0)),
        ("77186.81199586", (7718681199586, -8)),
        ("0.0001000000000000", (1, -4)),
        ("-0.0000263463215391", (-263463215391, -16)),
        ("1.423032929843748e-4", (1423032929843748, -19)),
        ("2.2e3", (2200, 0)),
        ("5e-324", None),
        ("22161.1301000000309", (221611301000000309, -13)),
        ("9223372036854775807", (2**63 - 1, 0)),
        ("9223372036854775808", None),
        ("1939251795.54769270396321", None),
        ("1e-100", (1, -100)),
        ("1e-101", None),
        ("1e19", None),
    ],
)
def test_split_keeps_every_digit_at_the_exponent_nearest_to_zero(text: str, expected: tuple[int, int] | None) -> None:
    if expected is None:
        with pytest.raises(DecimalError) as raised:
            split(text)
        assert raised.value.reason is Reason.VALUE_OUT_OF_RANGE
    else:
        assert split(text) == split(text.encode()) == expected


@pytest.mark.parametrize("text", ["", "-", "1.", "NaN", "Infinity", "1 ", " 1", "0x1", "1e", "١", "1,5", "null"])
def test_split_refuses_what_is_no_number(text: str) -> None:
    with pytest.raises(DecimalError) as raised:
        split(text)
    assert raised.value.reason is Reason.BAD_MESSAGE


@given(
    st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15).filter(lambda x: abs(x) > 1e-80)
)
def test_split_holds_whatever_a_venue_writes_from_a_double(number: float) -> None:
    value, exponent = split(repr(number))
    assert Decimal(value).scaleb(exponent) == Decimal(repr(number))
    assert exponent == 0 or value % 10


# ---- kinds -----------------------------------------------------------------------------------------------------


def test_funding_holds_rate_time_and_period(channel: Channel) -> None:
    emit = Emit(8)
    emit.begin(TS + 5)
    emit.funding(channel, "0.0000263463215391", TS + 10, TS, "-1e-4", 8 * 3600 * 10**9, 42)
    row = only_row(emit, FUNDING)
    assert (row["kind"], row["instrument_id"], row["venue_id"], row["venue_seq"]) == (Kind.FUNDING, 7, 2, 42)
    assert (row["ts_event"], row["ts_recv"], row["next_funding_ts"]) == (TS, TS + 5, TS + 10)
    assert (own(row, "rate"), own(row, "predicted_rate")) == (Decimal("0.0000263463215391"), Decimal("-0.0001"))
    assert row["interval_ns"] == 8 * 3600 * 10**9


def test_mark_may_lack_either_price(channel: Channel) -> None:
    emit = Emit(8)
    emit.mark_price(channel, "77186.81199586", None, TS)
    row = only_row(emit, MARK)
    assert (own(row, "mark_price"), own(row, "index_price")) == (Decimal("77186.81199586"), None)
    emit.mark_price(channel, None, b"77177.99454545454", 0)
    row = only_row(emit, MARK)
    assert (own(row, "mark_price"), own(row, "index_price")) == (None, Decimal("77177.99454545454"))
    assert row["flags"] & Flags.BAD_TS_EVENT and row["channel_seq"] == 2


def test_open_interest_may_lack_its_value(channel: Channel) -> None:
    emit = Emit(8)
    emit.open_interest(channel, "2216113.01000000309", TS)
    row = only_row(emit, OPEN_INTEREST)
    assert (own(row, "open_interest"), own(row, "value")) == (Decimal("2216113.01000000309"), None)
    emit.open_interest(channel, "0", TS, "32824881841.75")
    assert own(only_row(emit, OPEN_INTEREST), "value") == Decimal("32824881841.75")


def test_liquidation_has_the_instruments_size_and_a_price_of_any_precision(channel: Channel) -> None:
    emit = Emit(8)
    emit.liquidation(channel, "0.1336001", "5", Aggressor.SELL, TS, "0.1355000")
    row = only_row(emit, LIQUIDATION)
    assert (row["aggressor"], row["size"], row["kind"]) == (Aggressor.SELL, 5000, Kind.LIQUIDATION)
    assert (own(row, "order_price"), own(row, "average_price")) == (Decimal("0.1336001"), Decimal("0.1355"))


@pytest.mark.parametrize(
    "stage",
    [
        lambda emit, channel: emit.liquidation(channel, "1", "0", Aggressor.BUY, TS),
        lambda emit, channel: emit.liquidation(channel, "0", "1", Aggressor.BUY, TS),
        lambda emit, channel: emit.liquidation(channel, None, "1", Aggressor.BUY, TS),
        lambda emit, channel: emit.liquidation(channel, "1", "0.0001", Aggressor.BUY, TS),
        lambda emit, channel: emit.open_interest(channel, "-1", TS),
        lambda emit, channel: emit.open_interest(channel, None, TS),
        lambda emit, channel: emit.funding(channel, "", 0, TS),
        lambda emit, channel: emit.mark_price(channel, "1", "x", TS),
    ],
)
def test_value_that_cannot_be_one_stages_nothing(channel: Channel, stage: Any) -> None:
    emit = Emit(8)
    with pytest.raises(DecimalError):
        stage(emit, channel)
    assert emit.staged == 0


def test_each_data_type_counts_for_itself(channel: Channel) -> None:
    emit = Emit(8)
    for _ in range(2):
        emit.funding(channel, "1", 0, TS)
        emit.mark_price(channel, "1", "1", TS)
        emit.open_interest(channel, "1", TS)
        emit.liquidation(channel, "1", "1", Aggressor.BUY, TS)
        emit.end()
    assert emit.drain()["channel_seq"].tolist() == [1, 1, 1, 1, 2, 2, 2, 2]
    types = (DataType.FUNDING, DataType.MARK, DataType.OPEN_INTEREST, DataType.LIQUIDATION, DataType.TRADE)
    assert [channel.channel_seq(data_type) for data_type in types] == [2, 2, 2, 2, 0]


# ---- forms of levels -------------------------------------------------------------------------------------------


def levels(emit: Emit) -> list[tuple[int, int, int, int]]:
    emit.end()
    rows = emit.drain().view(LEVEL)
    return [(int(row["side"]), int(row["price"]), int(row["size"]), int(row["order_count"])) for row in rows]


def test_plain_levels_may_tell_their_number_of_orders(channel: Channel) -> None:
    emit = Emit(8)
    assert emit.levels(channel, Side.ASK, b'[["1.5","2","0","6"],[1.51,0,"0",0]]', TS, count_at=3) == 2
    assert levels(emit) == [(2, 150, 2000, 6), (2, 151, 0, 0)]
    emit.levels(channel, Side.BID, b'[["1.5","2",4294967295]]', TS, count_at=2)
    assert levels(emit) == [(1, 150, 2000, 2**32 - 1)]


def test_action_levels_delete_whatever_their_size_says(channel: Channel) -> None:
    emit = Emit(8)
    text = b'[ ["new", 1.5, 2e0 ] ,["change",1.51,3.25],["delete",1.52,7.0]]'
    assert emit.action_levels(channel, Side.BID, text, TS) == 3
    assert levels(emit) == [(1, 150, 2000, 0), (1, 151, 3250, 0), (1, 152, 0, 0)]


def test_sided_levels_keep_the_order_of_both_sides(channel: Channel) -> None:
    emit = Emit(8)
    text = b'[["sell","1.52","1"],["buy","1.50","2"],["sell","1.52","0.00000000"]]'
    assert emit.sided_levels(channel, text, TS) == 3
    assert levels(emit) == [(2, 152, 1000, 0), (1, 150, 2000, 0), (2, 152, 0, 0)]


def test_object_levels_are_read_by_their_keys(channel: Channel) -> None:
    emit = Emit(8)
    text = b'[{"price":1.5,"qty":2.00000000},{ "x" : {"price":9} , "qty":"0.001" , "price":"1.51" }]'
    assert emit.object_levels(channel, Side.ASK, text, TS) == 2
    assert levels(emit) == [(2, 150, 2000, 0), (2, 151, 1, 0)]


def test_a_form_leaves_nothing_behind_for_the_next(channel: Channel) -> None:
    emit = Emit(8)
    emit.levels(channel, Side.ASK, b'[["1.5","2","6"]]', TS, count_at=2)
    emit.sided_levels(channel, b'[["buy","1","1"]]', TS)
    emit.levels(channel, Side.ASK, b'[["1.5","2","6"]]', TS)
    assert levels(emit) == [(2, 150, 2000, 6), (1, 100, 1000, 0), (2, 150, 2000, 0)]


@pytest.mark.parametrize("text", [b"[]", b" [ ] "])
def test_no_level_of_any_form_is_no_record(channel: Channel, text: bytes) -> None:
    emit = Emit(8)
    staged = [
        emit.action_levels(channel, Side.BID, text, TS),
        emit.sided_levels(channel, text, TS),
        emit.object_levels(channel, Side.BID, text, TS),
    ]
    assert staged == [0, 0, 0] and emit.staged == 0


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("count", b'[["1","1"]]'),
        ("count", b'[["1","1","0"]]'),
        ("count", b'[["1","1","0","-1"]]'),
        ("count", b'[["1","1","0","4294967296"]]'),
        ("count", b'[["1","1","0","1.5"]]'),
        ("count", b'[["1","1","0",null]]'),
        ("action", b'[["1","1"]]'),
        ("action", b'[["kept",1,1]]'),
        ("action", b'[["new",1]]'),
        ("action", b'[["delete",1,-1]]x'),
        ("action", b"[[new,1,1]]"),
        ("action", b'[["ne'),
        ("sided", b'[["bid","1","1"]]'),
        ("sided", b'[["buy""1","1"]]'),
        ("sided", b'[["buy","0","1"]]'),
        ("object", b'[["1","1"]]'),
        ("object", b'[{"price":1}]'),
        ("object", b'[{"price":1,"qty":1,"price":2}]'),
        ("object", b'[{"price":1,"qty":1,}]'),
        ("object", b'[{"price":1,"qty":1]'),
        ("object", b'[{"price":1 "qty":1}]'),
        ("object", b'[{"price":,"qty":1}]'),
        ("object", b'[{"price":1,"qty":-1}]'),
        ("object", b'[{price:1,"qty":1}]'),
        ("object", b"[{}]"),
    ],
)
def test_level_of_another_form_is_refused_and_stages_nothing(channel: Channel, form: str, text: bytes) -> None:
    emit = Emit(8)
    scan = {
        "count": lambda: emit.levels(channel, Side.BID, text, TS, count_at=3),
        "action": lambda: emit.action_levels(channel, Side.BID, text, TS),
        "sided": lambda: emit.sided_levels(channel, text, TS),
        "object": lambda: emit.object_levels(channel, Side.BID, text, TS),
    }[form]
    with pytest.raises(DecimalError):
        scan()
    assert emit.staged == 0


def test_number_of_orders_cannot_be_price_or_size(channel: Channel) -> None:
    with pytest.raises(ValueError, match="price or size"):
        Emit(8).levels(channel, Side.BID, b"[]", TS, count_at=1)
