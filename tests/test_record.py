"""The record's layout, pinned: every field's type, offset and size stands here a second time, on purpose.

Whoever changes the layout raises ``LAYOUT_VERSION`` in the same commit, and pins the new fingerprint beside it.
"""

from __future__ import annotations

import re
from enum import IntEnum, IntFlag
from uuid import UUID

import numpy as np
import pytest

from mdring import record
from mdring.record import RECORD, TRADE, VIEW_OF_KIND, Kind, TradeIdFormat, offset_of, trade_id

FINGERPRINTS = {1: 0x9B7B_FD99_7D09_C922}

Layout = list[tuple[str, str, int, int]]  # name, type, offset, bytes

RECORD_LAYOUT: Layout = [
    ("seq", "<u8", 0, 8),
    ("ts_event", "<i8", 8, 8),
    ("ts_recv", "<i8", 16, 8),
    ("instrument_id", "<u4", 24, 4),
    ("kind", "|u1", 28, 1),
    ("flags", "|u1", 29, 1),
    ("side", "|u1", 30, 1),
    ("venue_id", "|u1", 31, 1),
    ("price", "<i8", 32, 8),
    ("size", "<i8", 40, 8),
    ("channel_seq", "<u8", 48, 8),
    ("venue_seq", "<u8", 56, 8),
    ("ts_seq", "<i8", 64, 8),
    ("payload", "|V56", 72, 56),
]
TAIL_LAYOUTS: dict[Kind, Layout] = {
    Kind.TRADE: [
        ("trade_id", "<u8", 72, 8),
        ("trade_id_high", "<u8", 80, 8),
        ("trade_count", "<u4", 88, 4),
        ("trade_id_format", "|u1", 92, 1),
        ("_pad0", "|V3", 93, 3),
        ("_pad1", "|V32", 96, 32),
    ],
    Kind.BBO: [
        ("ask_price", "<i8", 72, 8),
        ("ask_size", "<i8", 80, 8),
        ("_pad0", "|V40", 88, 40),
    ],
    Kind.LEVEL: [
        ("order_count", "<u4", 72, 4),
        ("_pad0", "|V4", 76, 4),
        ("_pad1", "|V48", 80, 48),
    ],
    Kind.CLEAR: [
        ("reason", "|u1", 72, 1),
        ("_pad0", "|V7", 73, 7),
        ("_pad1", "|V48", 80, 48),
    ],
    Kind.STATUS: [
        ("state", "|u1", 72, 1),
        ("reason", "|u1", 73, 1),
        ("data_type", "|u1", 74, 1),
        ("_pad0", "|V1", 75, 1),
        ("count", "<u4", 76, 4),
        ("expected", "<u8", 80, 8),
        ("found", "<u8", 88, 8),
        ("detail", "|S32", 96, 32),
    ],
    Kind.FUNDING: [
        ("next_funding_ts", "<i8", 72, 8),
        ("interval_ns", "<i8", 80, 8),
        ("rate_exponent", "|i1", 88, 1),
        ("predicted_rate_exponent", "|i1", 89, 1),
        ("_pad0", "|V6", 90, 6),
        ("_pad1", "|V32", 96, 32),
    ],
    Kind.MARK: [
        ("mark_price_exponent", "|i1", 72, 1),
        ("index_price_exponent", "|i1", 73, 1),
        ("_pad0", "|V6", 74, 6),
        ("_pad1", "|V48", 80, 48),
    ],
    Kind.OPEN_INTEREST: [
        ("open_interest_exponent", "|i1", 72, 1),
        ("value_exponent", "|i1", 73, 1),
        ("_pad0", "|V6", 74, 6),
        ("_pad1", "|V48", 80, 48),
    ],
    Kind.LIQUIDATION: [
        ("average_price", "<i8", 72, 8),
        ("order_price_exponent", "|i1", 80, 1),
        ("average_price_exponent", "|i1", 81, 1),
        ("_pad0", "|V6", 82, 6),
        ("_pad1", "|V40", 88, 40),
    ],
}
RENAMED = {
    Kind.TRADE: {"side": "aggressor"},
    Kind.BBO: {"price": "bid_price", "size": "bid_size"},
    Kind.FUNDING: {"price": "rate", "size": "predicted_rate"},
    Kind.MARK: {"price": "mark_price", "size": "index_price"},
    Kind.OPEN_INTEREST: {"price": "value", "size": "open_interest"},
    Kind.LIQUIDATION: {"side": "aggressor", "price": "order_price"},
}


def layout_of(dtype: np.dtype[np.void]) -> Layout:
    assert dtype.names is not None
    assert dtype.fields is not None
    fields = [(name, *dtype.fields[name][:2]) for name in dtype.names]
    return [(name, field.str, offset, field.itemsize) for name, field, offset in fields]


def test_the_record_has_128_bytes_and_these_fields() -> None:
    assert record.RECORD_SIZE == RECORD.itemsize == 128
    assert layout_of(RECORD) == RECORD_LAYOUT
    assert RECORD["payload"].subdtype == (np.dtype("<u8"), (7,))


@pytest.mark.parametrize("kind", Kind)
def test_each_view_has_the_records_fields_and_its_own(kind: Kind) -> None:
    renamed = RENAMED.get(kind, {})
    common = [(renamed.get(name, name), *rest) for name, *rest in RECORD_LAYOUT[:-1]]
    assert VIEW_OF_KIND[kind].itemsize == 128
    assert layout_of(VIEW_OF_KIND[kind]) == common + TAIL_LAYOUTS[kind]


@pytest.mark.parametrize("dtype", [RECORD, *VIEW_OF_KIND.values()], ids=["RECORD", *(kind.name for kind in Kind)])
def test_no_byte_is_unnamed_and_none_named_twice(dtype: np.dtype[np.void]) -> None:
    end = 0
    for name, _, offset, size in sorted(layout_of(dtype), key=lambda field: field[2]):
        assert offset == end, f"before {name}"
        end += size
    assert end == 128


def test_what_almost_every_reader_needs_lies_in_the_first_cache_line() -> None:
    first_line = {name for name, _, offset, size in RECORD_LAYOUT if offset + size <= 64}
    assert first_line == {name for name, *_ in RECORD_LAYOUT} - {"ts_seq", "payload"}


@pytest.mark.parametrize("dtype", [RECORD, *VIEW_OF_KIND.values()], ids=["RECORD", *(kind.name for kind in Kind)])
def test_no_price_size_or_time_is_a_float_and_words_are_aligned(dtype: np.dtype[np.void]) -> None:
    for name, format_, offset, size in layout_of(dtype):
        assert format_[1] != "f", name
        if format_[1] in "iu":
            assert offset % size == 0, name


def test_a_changed_layout_has_a_new_version() -> None:
    assert FINGERPRINTS[record.LAYOUT_VERSION] == record.FINGERPRINT, (
        "the layout has changed: raise LAYOUT_VERSION, then pin the new fingerprint here, keeping the old one"
    )
    assert max(FINGERPRINTS) == record.LAYOUT_VERSION
    assert len(set(FINGERPRINTS.values())) == len(FINGERPRINTS)


def test_the_fingerprint_depends_on_every_line_of_the_layout() -> None:
    lines = record.layout_text().splitlines()
    assert len(lines) == len(RECORD_LAYOUT) + sum(13 + len(tail) for tail in TAIL_LAYOUTS.values())
    assert lines[:2] == ["RECORD.seq <u8 @0", "RECORD.ts_event <i8 @8"]
    assert lines[-1] == "LIQUIDATION._pad1 |V40 @88"


ENUMS: dict[type[IntEnum | IntFlag], dict[str, int]] = {
    record.Kind: {
        "TRADE": 1, "BBO": 2, "LEVEL": 3, "CLEAR": 4, "STATUS": 5, "FUNDING": 6, "MARK": 7, "OPEN_INTEREST": 8,
        "LIQUIDATION": 9,
    },
    record.Side: {"NONE": 0, "BID": 1, "ASK": 2},
    record.Aggressor: {"UNKNOWN": 0, "BUY": 1, "SELL": 2},
    record.Flags: {"NONE": 0, "LAST": 1, "SNAPSHOT": 2, "RECOVERED": 4, "BAD_TS_EVENT": 8, "AGGREGATED": 16},
    record.DataType: {
        "STATUS": 0, "TRADE": 1, "BBO": 2, "BOOK": 3, "FUNDING": 4, "MARK": 5, "OPEN_INTEREST": 6, "LIQUIDATION": 7,
    },
    record.TradeIdFormat: {"NONE": 0, "INTEGER": 1, "UUID": 2, "TEXT": 3},
    record.State: {
        "NONE": 0, "RECONNECTING": 1, "CONNECTED": 2, "DISCONNECTED": 3, "CIRCUIT_OPEN": 4, "GAP": 5,
        "RESYNCING": 6, "SYNCED": 7, "REJECTED": 8, "DROPPED": 9, "TRADING": 10, "HALTED": 11,
    },
    record.Reason: {
        "NONE": 0, "STARTED": 1, "WORKER_RESTART": 2, "SHUTDOWN": 3, "CONNECT_FAILED": 4, "CONNECT_TIMEOUT": 5,
        "HANDSHAKE_FAILED": 6, "SUBSCRIBE_TIMEOUT": 7, "SUBSCRIBE_REJECTED": 8, "NO_DATA": 9, "STALE": 10,
        "CLOSED_BY_VENUE": 11, "PLANNED_RECONNECT": 12, "SEQUENCE_GAP": 13, "CHECKSUM": 14, "BAD_MESSAGE": 15,
        "VALUE_OUT_OF_RANGE": 16, "RING_FULL": 17, "SNAPSHOT_FAILED": 18, "BREAKER_OPEN": 19,
        "ATTEMPTS_EXHAUSTED": 20, "UNKNOWN_INSTRUMENT": 21, "SNAPSHOT": 22, "CROSSED": 23, "BUFFER_FULL": 24,
    },
}  # fmt: skip


@pytest.mark.parametrize("enum", ENUMS, ids=lambda enum: enum.__name__)
def test_a_number_in_a_record_never_changes_its_meaning(enum: type[IntEnum | IntFlag]) -> None:
    assert {name: int(member) for name, member in enum.__members__.items()} == ENUMS[enum]
    assert all(0 <= member <= 255 for member in ENUMS[enum].values()), "must fit its byte"


def test_every_kind_has_a_view_and_a_data_type_and_fits_a_filters_bits() -> None:
    assert set(VIEW_OF_KIND) == set(record.DATA_TYPE_OF_KIND) == set(Kind)
    assert max(Kind) < 64


def test_a_channel_can_count_every_data_type() -> None:
    assert max(record.DataType) < 8  # the channel store has eight words for an instrument


@pytest.mark.parametrize("view", VIEW_OF_KIND.values(), ids=[kind.name for kind in Kind])
def test_a_value_with_an_exponent_of_its_own_is_a_word_and_a_signed_byte(view: np.dtype[np.void]) -> None:
    for name in view.names or ():
        if name.endswith("_exponent"):
            assert view[name.removesuffix("_exponent")] == np.dtype("<i8") and view[name] == np.dtype("i1")


def test_an_undefined_price_is_the_least_integer() -> None:
    assert np.iinfo(RECORD["price"]).min == record.UNDEFINED_PRICE


def test_a_view_names_the_same_bytes() -> None:
    batch = np.zeros(2, dtype=RECORD)
    batch["side"][1], batch["payload"][1][0] = 2, 77
    trades = batch.view(TRADE)
    assert (trades["aggressor"][1], trades["trade_id"][1]) == (2, 77)
    trades["price"][0] = 5
    assert batch["price"][0] == 5


def test_offsets_are_learnt_from_the_dtype() -> None:
    assert (offset_of("flags"), offset_of("ts_seq"), offset_of("trade_id", TRADE)) == (29, 64, 72)
    with pytest.raises(KeyError):
        offset_of("no_such_field")


# ---- trade ids ----


def trade(format_: int, low: int = 0, high: int = 0) -> np.void:
    rows = np.zeros(1, dtype=TRADE)
    rows["trade_id_format"], rows["trade_id"], rows["trade_id_high"] = format_, low, high
    row: np.void = rows[0]
    return row


@pytest.mark.parametrize("number", [0, 1, 2**64 - 1, 2**64, 2**128 - 1])
def test_an_integer_trade_id_has_up_to_128_bits(number: int) -> None:
    assert trade_id(trade(TradeIdFormat.INTEGER, number % 2**64, number >> 64)) == number


def test_a_uuid_trade_id_comes_back_as_a_uuid() -> None:
    uuid = UUID("00112233-4455-6677-8899-aabbccddeeff")
    assert trade_id(trade(TradeIdFormat.UUID, uuid.int % 2**64, uuid.int >> 64)) == uuid


def test_a_trade_without_an_id_has_none() -> None:
    assert trade_id(trade(TradeIdFormat.NONE, low=9)) is None


def test_an_unknown_format_of_a_trade_id_is_an_error() -> None:
    with pytest.raises(ValueError, match="200"):
        trade_id(trade(200))


def test_the_table_in_the_docstring_is_the_layout() -> None:
    assert record.__doc__ is not None
    rows = [line.split() for line in record.__doc__.splitlines() if re.match(r"    [a-z_]+ +[<|]", line)]
    assert RECORD.fields is not None
    expected = [(name, RECORD.fields[name][0].str, RECORD.fields[name][1]) for name in RECORD.fields]
    assert [(name, format_, int(offset)) for name, format_, offset in rows] == expected[:-1]
