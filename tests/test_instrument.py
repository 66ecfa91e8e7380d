"""The instrument table: rows appear once, never change, and are exact."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdring import instrument
from mdring.instrument import INSTRUMENT, Instrument, InstrumentTable
from mdring.record import LAYOUT_VERSION, UNDEFINED_PRICE
from mdring.ring.segment import AlreadyWritten, LayoutMismatch, SegmentKind, SegmentNotFound, attach, create

FINGERPRINTS = {1: 0x12D2_114C_122A_0461}

ROW_LAYOUT = [
    ("id", "<u4", 0, 4),
    ("venue_id", "|u1", 4, 1),
    ("price_exponent", "|i1", 5, 1),
    ("size_exponent", "|i1", 6, 1),
    ("_pad0", "|u1", 7, 1),
    ("venue", "|S24", 8, 24),
    ("instrument", "|S64", 32, 64),
    ("canonical_symbol", "|S64", 96, 64),
    ("base", "|S24", 160, 24),
    ("quote", "|S24", 184, 24),
    ("_pad1", "|V48", 208, 48),
]


@pytest.fixture
def path(run_folder: Path) -> Path:
    return run_folder / "instruments"


@pytest.fixture
def table(path: Path) -> Iterator[InstrumentTable]:
    made = InstrumentTable.create(path, run_id=1, capacity=8)
    yield made
    made.segment.close()


def append(table: InstrumentTable, name: str = "BTCUSDT", **changed: object) -> Instrument:
    row: dict[str, object] = {
        "venue_id": 1, "venue": "binance", "instrument": name, "canonical_symbol": "BTC-USDT",
        "price_exponent": -2, "size_exponent": -8, "base": "BTC", "quote": "USDT",
    }  # fmt: skip
    return table.append(**(row | changed))  # type: ignore[arg-type]


def test_a_row_is_laid_out_as_pinned() -> None:
    assert INSTRUMENT.names is not None
    assert INSTRUMENT.fields is not None
    fields = [(name, *INSTRUMENT.fields[name][:2]) for name in INSTRUMENT.names]
    assert [(name, field.str, offset, field.itemsize) for name, field, offset in fields] == ROW_LAYOUT
    assert INSTRUMENT.itemsize == sum(size for *_, size in ROW_LAYOUT) == 256


def test_a_changed_row_has_a_new_layout_version() -> None:
    assert FINGERPRINTS[LAYOUT_VERSION] == instrument.FINGERPRINT, (
        "the row has changed: raise LAYOUT_VERSION, then pin the new fingerprint here, keeping the old one"
    )


def test_an_empty_table_has_no_rows(table: InstrumentTable) -> None:
    assert (len(table), list(table), table.select("*")) == (0, [], [])
    assert table.get("binance:BTCUSDT") is None
    assert len(table.columns) == 1, "row 0 is: no instrument"


def test_ids_count_from_1(table: InstrumentTable) -> None:
    first, second = append(table), append(table, "ETHUSDT")
    assert (first.id, second.id) == (1, 2)
    assert [row.id for row in table] == [1, 2]
    assert table.by_id(2) == second


def test_a_row_comes_back_as_it_was_appended(table: InstrumentTable) -> None:
    row = append(table)
    expected = Instrument(1, 1, "binance", "BTCUSDT", "BTC-USDT", -2, -8, "BTC", "USDT")
    assert row == table["binance:BTCUSDT"] == table.get("binance:BTCUSDT") == table.by_id(1) == expected
    assert row.name == "binance:BTCUSDT"


def test_an_equal_row_is_not_appended_again(table: InstrumentTable) -> None:
    assert append(table) == append(table)
    assert len(table) == 1


@pytest.mark.parametrize("changed", [{"price_exponent": -3}, {"size_exponent": -9}, {"canonical_symbol": "XBT-USDT"}])
def test_a_changed_instrument_gets_a_new_id_and_the_old_row_stays(
    table: InstrumentTable, changed: dict[str, Any]
) -> None:
    old, new = append(table), append(table, **changed)
    assert (old.id, new.id) == (1, 2)
    assert table.by_id(1) == old
    assert table["binance:BTCUSDT"] == new, "the name leads to the newest row"


def test_an_attached_table_follows_what_is_appended(path: Path, table: InstrumentTable) -> None:
    append(table)
    attached = InstrumentTable.attach(path)
    assert len(attached) == 1
    append(table, "ETHUSDT")
    assert attached["binance:ETHUSDT"].id == 2
    append(table, "XRPUSDT")
    assert attached.by_id(3).instrument == "XRPUSDT"
    append(table, "SOLUSDT")
    assert [row.id for row in attached] == [1, 2, 3, 4]
    assert attached.columns["id"].tolist() == [0, 1, 2, 3, 4]


def test_columns_index_by_id_and_cannot_be_written(table: InstrumentTable) -> None:
    append(table)
    append(table, "ETHUSDT", price_exponent=-4)
    exponents = table.columns["price_exponent"]
    assert exponents[np.array([2, 1, 2])].tolist() == [-4, -2, -4]
    with pytest.raises(ValueError, match="read-only"):
        table.columns["price_exponent"][1] = 0


def test_only_the_creator_can_append(path: Path, table: InstrumentTable) -> None:
    append(table)
    attached = InstrumentTable.attach(path)
    with pytest.raises((ValueError, TypeError)):
        append(attached, "ETHUSDT")
    assert len(table) == len(attached) == 1


def test_a_table_has_one_writer(path: Path, table: InstrumentTable) -> None:
    second = attach(path, SegmentKind.INSTRUMENTS, version=LAYOUT_VERSION, fingerprint=instrument.FINGERPRINT,
                    writable=True)  # fmt: skip
    with pytest.raises(AlreadyWritten):
        second.lock()
    second.close()
    with pytest.raises(FileExistsError):
        InstrumentTable.create(path, run_id=2)


@pytest.mark.parametrize(
    ("field", "room"), [("venue", 24), ("name", 64), ("canonical_symbol", 64), ("base", 24), ("quote", 24)]
)
def test_a_text_that_does_not_fit_is_refused_and_nothing_is_appended(
    table: InstrumentTable, field: str, room: int
) -> None:
    with pytest.raises(ValueError, match=rf"{room + 1} bytes, a row of the instrument table has {room}"):
        append(table, **{field: "x" * (room + 1)})
    assert len(table) == 0
    longest = append(table, **{field: "x" * room})
    assert "x" * room in (longest.venue, longest.instrument, longest.canonical_symbol, longest.base, longest.quote)


def test_texts_are_utf_8_and_their_bytes_count(table: InstrumentTable) -> None:
    assert append(table, "币安人生USDT").instrument == "币安人生USDT"
    with pytest.raises(ValueError, match="66 bytes"):
        append(table, "币" * 22)


@pytest.mark.parametrize("exponent", [-128, 127])
def test_exponents_have_a_byte(table: InstrumentTable, exponent: int) -> None:
    assert append(table, price_exponent=exponent).price_exponent == exponent
    with pytest.raises(OverflowError):
        append(table, "ETHUSDT", size_exponent=exponent * 2)
    assert len(table) == 1


def test_a_full_table_says_so(table: InstrumentTable) -> None:
    for number in range(7):
        append(table, f"I{number}")
    with pytest.raises(ValueError, match="full with 7 instruments"):
        append(table, "I7")
    assert len(table) == 7
    assert append(table, "I3").id == 4, "an equal row needs no room"


@pytest.mark.parametrize("number", [0, -1, 3])
def test_an_unknown_id_is_an_error_that_names_the_valid_ones(table: InstrumentTable, number: int) -> None:
    append(table)
    append(table, "ETHUSDT")
    with pytest.raises(KeyError, match=rf"no instrument {number}: the table has ids 1\.\.2"):
        table.by_id(number)


def test_an_unknown_name_is_an_error(table: InstrumentTable) -> None:
    with pytest.raises(KeyError):
        table["binance:NOSUCH"]


def test_rows_are_selected_by_venue_name_and_wildcards(table: InstrumentTable) -> None:
    append(table)
    append(table, "ETHUSDT", canonical_symbol="ETH-USDT")
    append(table, "BTC-USD", venue="coinbase", venue_id=2, canonical_symbol="BTC-USD")
    found = {
        pattern: [row.id for row in table.select(pattern)]
        for pattern in ("BTCUSDT", "BTC-USDT", "binance:*", "BTC*", "*:BTC-USD", "coinbase:BTC-???", "btcusdt", "*")
    }
    assert found == {
        "BTCUSDT": [1], "BTC-USDT": [1], "binance:*": [1, 2], "BTC*": [1, 3], "*:BTC-USD": [3],
        "coinbase:BTC-???": [3], "btcusdt": [], "*": [1, 2, 3],
    }  # fmt: skip


def test_a_whole_name_selects_what_a_pattern_does(path: Path, table: InstrumentTable) -> None:
    attached = InstrumentTable.attach(path)
    append(table)
    append(table, "ETHUSDT", canonical_symbol="ETH-USDT")
    assert [row.id for row in attached.select("BTC-USDT")] == [1]
    append(table, "BTC-USDT", venue="okx")  # one text, twice
    append(table, price_exponent=-3)
    append(table, "BTC-USDT", venue="third", canonical_symbol="XBT")
    for name in ("BTC-USDT", "BTCUSDT", "ETHUSDT", "XBT", "okx:BTC-USDT", "*:BTC-USDT", "okx:BTCUSDT", "BTC", "", ":"):
        venue, separator, last = name.rpartition(":")
        as_pattern = f"{venue}{separator}[{last[0]}]{last[1:]}" if last else name
        assert attached.select(name) == attached.select(as_pattern), name
    assert [row.id for row in attached.select("BTC-USDT")] == [1, 3, 4, 5]


def test_a_whole_name_is_not_sought_row_by_row(table: InstrumentTable, monkeypatch: pytest.MonkeyPatch) -> None:
    append(table)

    def sought(text: str, pattern: str) -> bool:
        raise AssertionError(f"{text} was compared with {pattern}: that is quadratic for a list of names")

    monkeypatch.setattr(instrument, "fnmatchcase", sought)
    assert [row.id for row in table.select("BTC-USDT")] == [1]


def test_prices_and_sizes_are_exact_decimals(table: InstrumentTable) -> None:
    row = append(table)
    assert row.price(10850012) == Decimal("108500.12")
    assert str(row.price(10850010)) == "108500.10"
    assert row.size(1) == Decimal("0.00000001")
    assert row.size(2**63 - 1) == Decimal("92233720368.54775807")
    assert row.price(-5) == Decimal("-0.05")
    assert row.price(UNDEFINED_PRICE) is None
    assert row.price(np.int64(7)) == Decimal("0.07")  # type: ignore[arg-type]


def test_attach_refuses_what_is_no_table_of_this_layout(path: Path) -> None:
    with pytest.raises(SegmentNotFound):
        InstrumentTable.attach(path)
    create(path, SegmentKind.INSTRUMENTS, version=LAYOUT_VERSION, fingerprint=1, run_id=1, slot_size=256,
           slot_count=4).close()  # fmt: skip
    with pytest.raises(LayoutMismatch):
        InstrumentTable.attach(path)
