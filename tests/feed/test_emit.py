"""What the adapter says, as records: each kind, and arrays of levels."""

from __future__ import annotations

import ctypes
import json
import mmap
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mdring.feed.emit import Emit
from mdring.feed.fixed import DecimalError, scale
from mdring.feed.stage import Channel
from mdring.record import (
    BBO,
    CLEAR,
    LEVEL,
    RECORD,
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
from tests.feed.times import TS_EVENT, TS_RECV

MASK = 2**64 - 1


def fields(row: np.void, *names: str) -> tuple[Any, ...]:
    return tuple(row[name].item() for name in names)


# ---- the records ------------------------------------------------------------------------------------------


def test_trade_record_holds_what_the_adapter_said(emit: Emit, channel: Channel) -> None:
    emit.trade(channel, "77381.36000000", "0.00084000", Aggressor.SELL, 12345, TS_EVENT, 12345, Flags.AGGREGATED, 4)
    emit.end()
    (row,) = emit.drain().view(TRADE)
    assert fields(row, "seq", "ts_event", "ts_recv", "instrument_id", "kind", "venue_id", "ts_seq") == (
        0, TS_EVENT, TS_RECV, 7, Kind.TRADE, 3, 0,
    )  # fmt: skip
    assert fields(row, "price", "size", "aggressor", "venue_seq", "flags") == (
        7738136, 84000, Aggressor.SELL, 12345, Flags.AGGREGATED | Flags.LAST,
    )  # fmt: skip
    assert fields(row, "trade_id", "trade_id_high", "trade_count", "trade_id_format") == (12345, 0, 4, 1)


def test_bbo_record_holds_both_sides(emit: Emit, channel: Channel) -> None:
    emit.bbo(channel, "77381.36", "1.29993", b"77381.37", b"3.16444", 0, 99)
    emit.end()
    (row,) = emit.drain().view(BBO)
    assert fields(row, "bid_price", "bid_size", "ask_price", "ask_size", "venue_seq") == (
        7738136, 129993000, 7738137, 316444000, 99,
    )  # fmt: skip


@pytest.mark.parametrize("empty", [(None, None), ("0.00000000", "0.00000000"), ("1.00", "0")])
def test_empty_side_of_a_bbo_has_no_price_and_no_size(
    emit: Emit, channel: Channel, empty: tuple[str | None, str | None]
) -> None:
    emit.bbo(channel, *empty, "77381.37", "3", TS_EVENT)
    emit.bbo(channel, "77381.37", "3", *empty, TS_EVENT)
    emit.end()
    bid, ask = emit.drain().view(BBO)
    assert fields(bid, "bid_price", "bid_size") == (UNDEFINED_PRICE, 0)
    assert fields(ask, "ask_price", "ask_size") == (UNDEFINED_PRICE, 0)


def test_levels_become_one_record_each_in_the_order_of_the_message(emit: Emit, channel: Channel) -> None:
    assert emit.levels(channel, Side.BID, b'[["2.50","1"],["2.49","0.00000000"]]', TS_EVENT, 44) == 2
    assert emit.levels(channel, Side.ASK, msgspec.Raw(b"[[2.51, 7]]"), TS_EVENT, 44) == 1
    emit.end()
    rows = emit.drain().view(LEVEL)
    assert rows["price"].tolist() == [250, 249, 251]
    assert rows["size"].tolist() == [100000000, 0, 700000000]
    assert rows["side"].tolist() == [Side.BID, Side.BID, Side.ASK]
    assert rows["flags"].tolist() == [0, 0, Flags.LAST]
    assert set(rows["venue_seq"]) == {44} and set(rows["kind"]) == {Kind.LEVEL} and set(rows["ts_recv"]) == {TS_RECV}


def test_single_level_carries_its_order_count(emit: Emit, channel: Channel) -> None:
    emit.level(channel, Side.ASK, "2.5", "1", TS_EVENT, order_count=9)
    emit.end()
    (row,) = emit.drain().view(LEVEL)
    assert fields(row, "side", "price", "size", "order_count") == (Side.ASK, 250, 100000000, 9)


def test_clear_and_status_records_say_why(emit: Emit, channel: Channel) -> None:
    emit.status(channel, State.GAP, Reason.SEQUENCE_GAP, DataType.BOOK, 2, 10, 12, "missing")
    emit.clear(channel, Reason.SEQUENCE_GAP, venue_seq=5)
    emit.end()
    rows = emit.drain()
    status, clear = rows[:1].view(STATUS)[0], rows[1:].view(CLEAR)[0]
    assert fields(status, "state", "reason", "data_type", "count", "expected", "found", "detail") == (
        State.GAP, Reason.SEQUENCE_GAP, DataType.BOOK, 2, 10, 12, b"missing",
    )  # fmt: skip
    assert fields(clear, "reason", "venue_seq", "flags") == (Reason.SEQUENCE_GAP, 5, Flags.LAST)


def test_long_detail_is_cut_between_characters(emit: Emit, channel: Channel) -> None:
    emit.status(channel, State.REJECTED, Reason.BAD_MESSAGE, detail="x" + "é" * 40)
    emit.end()
    (row,) = emit.drain().view(STATUS)
    assert row["detail"].decode() == "x" + "é" * 15


def test_unused_bytes_of_a_record_are_zero_though_memory_is_used_again(emit: Emit, channel: Channel) -> None:
    emit.status(channel, State.GAP, Reason.SEQUENCE_GAP, detail="y" * 32, expected=MASK, found=MASK)
    emit.end()
    emit.drain()
    emit.begin(0)
    emit.level(Channel("X", 0, 0, 0, 0), Side.NONE, "1", "0", 0)
    emit.end()
    (row,) = emit.drain()
    row["kind"] = row["flags"] = row["channel_seq"] = row["price"] = 0
    assert row.tobytes() == bytes(RECORD.itemsize)


@pytest.mark.parametrize("kind", [Kind.TRADE, Kind.BBO, Kind.LEVEL])
def test_record_without_venue_time_says_so(emit: Emit, channel: Channel, kind: Kind) -> None:
    for ts_event in (0, TS_EVENT):
        match kind:
            case Kind.TRADE:
                emit.trade(channel, "1", "1", Aggressor.BUY, 1, ts_event)
            case Kind.BBO:
                emit.bbo(channel, "1", "1", "2", "1", ts_event)
            case _:
                emit.levels(channel, Side.BID, b"[[1,1]]", ts_event)
    emit.end()
    without, with_time = emit.drain()
    assert without["flags"] & Flags.BAD_TS_EVENT
    assert not with_time["flags"] & Flags.BAD_TS_EVENT


# ---- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda emit, channel: emit.trade(channel, "0", "1", Aggressor.BUY, 1, TS_EVENT),
        lambda emit, channel: emit.trade(channel, "-1", "1", Aggressor.BUY, 1, TS_EVENT),
        lambda emit, channel: emit.trade(channel, "1", "0", Aggressor.BUY, 1, TS_EVENT),
        lambda emit, channel: emit.trade(channel, "1.234", "1", Aggressor.BUY, 1, TS_EVENT),
        lambda emit, channel: emit.bbo(channel, "0", "1", "2", "1", TS_EVENT),
        lambda emit, channel: emit.bbo(channel, "1", "1", "2", "-1", TS_EVENT),
        lambda emit, channel: emit.bbo(channel, "-1", "0", "2", "1", TS_EVENT),
        lambda emit, channel: emit.level(channel, Side.BID, "-1", "1", TS_EVENT),
        lambda emit, channel: emit.level(channel, Side.BID, "1", "-1", TS_EVENT),
        lambda emit, channel: emit.levels(channel, Side.BID, b'[["1","1"],["-1","1"]]', TS_EVENT),
        lambda emit, channel: emit.levels(channel, Side.BID, b'[["1","1"],["1","-1"]]', TS_EVENT),
        lambda emit, channel: emit.levels(channel, Side.BID, b'[["1","1"],["1.001","1"]]', TS_EVENT),
        lambda emit, channel: emit.levels(channel, Side.BID, b'[["1","1"],["1","1e30"]]', TS_EVENT),
    ],
)
def test_value_that_cannot_be_is_refused_and_stages_nothing(emit: Emit, channel: Channel, call: Any) -> None:
    with pytest.raises(DecimalError) as caught:
        call(emit, channel)
    assert caught.value.reason is Reason.VALUE_OUT_OF_RANGE
    assert emit.staged == 0


BROKEN_ARRAYS = [
    b"",
    b" ",
    b"[",
    b"]",
    b"[[",
    b"[]]",
    b"[],",
    b"[[]]",
    b"[,]",
    b'[["1"]]',
    b'[["1",]]',
    b'[["1" "2"]]',
    b'[["1","2"]',
    b'[["1","2"],]',
    b'[["1","2"]["1","2"]]',
    b'[["1","2"]] x',
    b'[["1","2",]]',
    b'[["1","2"',
    b'[["1","2',
    b'[["1',
    b'["1","2"]',
    b'[[1"","2"]]',
    b'[["1"1,"2"]]',
    b'[[" 1","2"]]',
    b'[["1","2",[}]]',
    b'[["1","2","a]]',
    b'[["1","2","a\\"]]',
    b'[["1","2","\\',
    b'[["1","2",]]]',
    b'[["1","2"}]',
    b"null",
    b"{}",
    b'[["1","2"],null]',
    b'[[null,"2"]]',
    b"[[1.,2]]",
    b"[[1,2e]]",
    b'[["",""]]',
    b'[["1","2",' + b"[" * 80 + b"]" * 80 + b"]]",
]


@pytest.mark.parametrize("array", BROKEN_ARRAYS)
def test_broken_array_of_levels_is_refused_and_stages_nothing(emit: Emit, channel: Channel, array: bytes) -> None:
    with pytest.raises(DecimalError) as caught:
        emit.levels(channel, Side.BID, array, TS_EVENT)
    assert caught.value.reason is Reason.BAD_MESSAGE
    assert emit.staged == 0


@pytest.mark.parametrize(
    ("array", "count"),
    [
        (b"[]", 0),
        (b" [ ] ", 0),
        (b'\n[ [ "1" , "2" ] ,\t[ 3 , 4.5e-1 ] ]\r', 2),
        (b'[["1","2","0","4"]]', 1),
        (b'[["1","2",null,true,-1.5e3,"a,]\\"\\\\",{"b":["}",[]]},[[1],[2]]],["1","2",[]]]', 2),
    ],
)
def test_white_space_and_further_elements_are_passed_over(
    emit: Emit, channel: Channel, array: bytes, count: int
) -> None:
    assert emit.levels(channel, Side.BID, array, TS_EVENT) == count
    assert emit.staged == count


# ---- the scanner against an oracle, and against the edge of its memory ------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[mmap.mmap]:
    """Two pages, of which the second may not be touched: a read past the first one's end is a SIGSEGV."""
    size = 16 * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address + size), mmap.PAGESIZE, 0) == 0
    yield memory
    assert libc.mprotect(ctypes.c_void_p(address + size), mmap.PAGESIZE, 3) == 0


def at_the_edge(memory: mmap.mmap, text: bytes) -> memoryview:
    """``text`` so placed that the byte behind it cannot be read."""
    size = 16 * mmap.PAGESIZE
    memory[size - len(text) : size] = text
    return memoryview(memory)[size - len(text) : size]


def expected_levels(array: bytes) -> list[tuple[int, int]] | None:
    """What the scanner must make of ``array``; None if it must refuse. Stricter than the scanner where JSON is:
    the scanner does not look into the elements that it skips."""
    try:
        levels = json.loads(array.decode(), parse_float=str, parse_int=str)
        if not isinstance(levels, list):
            return None
        found = []
        for level in levels:
            if not isinstance(level, list) or len(level) < 2 or not all(isinstance(x, str) for x in level[:2]):
                return None
            found.append((scale(level[0], -2), scale(level[1], -8)))
        return None if any(price <= 0 or size < 0 for price, size in found) else found
    except (ValueError, UnicodeDecodeError, DecimalError, RecursionError):
        return None


def decimals(digits: int) -> st.SearchStrategy[str]:
    return st.decimals(0, 10**6, allow_nan=False, places=digits).map(lambda d: f"{d:f}")


level_values = st.tuples(decimals(2).filter(lambda text: Decimal(text) > 0), decimals(8))
arrays = st.lists(level_values, max_size=30).map(lambda levels: json.dumps([list(level) for level in levels]).encode())


@given(arrays)
def test_scanner_agrees_with_a_json_parser(guarded: mmap.mmap, array: bytes) -> None:
    emit, channel = Emit(), Channel("X", 1, 1, -2, -8)
    expected = expected_levels(array)
    assert expected is not None
    assert emit.levels(channel, Side.BID, at_the_edge(guarded, array), TS_EVENT) == len(expected)
    emit.end()
    rows = emit.drain()
    assert list(zip(rows["price"].tolist(), rows["size"].tolist(), strict=True)) == expected


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    array = bytearray(draw(arrays | st.sampled_from(BROKEN_ARRAYS)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(array)))
        match draw(st.sampled_from(["cut", "drop", "put", "swap"])):
            case "cut":
                del array[place:]
            case "drop":
                del array[place : place + 1]
            case "put":
                array[place:place] = draw(
                    st.sampled_from([b'"', b"[", b"]", b",", b"\\", b"-", b"e", b" ", b"{", b"\0", b"9"])
                )
            case _:
                array[place : place + 1] = draw(st.binary(max_size=2))
    return bytes(array)


@given(damaged())
@example(b'[["1","2","\\')
def test_scanner_refuses_or_is_right_and_never_reads_beyond_the_text(guarded: mmap.mmap, array: bytes) -> None:
    emit, channel = Emit(1), Channel("X", 1, 1, -2, -8)
    expected = expected_levels(array)
    try:
        count = emit.levels(channel, Side.BID, at_the_edge(guarded, array), TS_EVENT)
    except DecimalError:
        assert emit.staged == 0
        # What a parser accepts and the scanner does not: digits written as escapes, and deep nesting.
        assert expected is None or b"\\" in array or array.count(b"[") > 64
        return
    emit.end()
    rows = emit.drain()
    assert count == len(rows)
    if expected is not None:
        assert list(zip(rows["price"].tolist(), rows["size"].tolist(), strict=True)) == expected
    assert (rows["price"] > 0).all() and (rows["size"] >= 0).all()


def test_array_long_enough_to_be_scanned_without_the_gil_is_read_alike(channel: Channel) -> None:
    levels = [[f"{100 + i * 0.01:.2f}", "1.5"] for i in range(5000)]
    emit = Emit(1)
    assert emit.levels(channel, Side.BID, json.dumps(levels).encode(), TS_EVENT) == 5000
    emit.end()
    assert emit.drain()["price"].tolist() == [scale(price, -2) for price, _ in levels]
