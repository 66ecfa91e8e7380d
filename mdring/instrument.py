"""The instrument table: which instrument an ``instrument_id`` is, and how its integers are scaled.

One segment of a run, written by the supervisor, mapped read-only by every other process. Rows are only
ever appended and never change, so an id means the same for the life of a run; row 0 is "no instrument".
If a venue changes a tick size beyond an instrument's exponents, the instrument gets a new row and id::

    table = InstrumentTable.attach(run_folder / "instruments")
    btc = table["binance:BTCUSDT"]
    price = btc.price(record["price"])  # Decimal
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from msgspec import Struct

from mdring.record import LAYOUT_VERSION, UNDEFINED_PRICE, fields_text, fingerprint_of
from mdring.ring import segment
from mdring.ring._ring import Words

INSTRUMENT: Final = np.dtype(
    {
        "names": ["id", "venue_id", "price_exponent", "size_exponent", "_pad0", "venue", "instrument",
                  "canonical_symbol", "base", "quote", "_pad1"],
        "formats": ["<u4", "u1", "i1", "i1", "u1", "S24", "S64", "S64", "S24", "S24", "V48"],
        "offsets": [0, 4, 5, 6, 7, 8, 32, 96, 160, 184, 208],
        "itemsize": 256,
    }
)  # fmt: skip
"""A row of the table. Texts are UTF-8, NUL-padded."""

FINGERPRINT: Final = fingerprint_of(fields_text("INSTRUMENT", INSTRUMENT))
_WILD: Final = frozenset("*?[")
_ROWS_WORD: Final = 0  # of the header's writer block: the highest id in use


class Instrument(Struct, frozen=True):
    """One row: ``value = integer * 10 ** exponent``."""

    id: int
    venue_id: int
    venue: str
    instrument: str
    canonical_symbol: str
    price_exponent: int
    size_exponent: int
    base: str = ""
    quote: str = ""

    @property
    def name(self) -> str:
        """``venue:instrument``, unique in a run but for replaced rows."""
        return f"{self.venue}:{self.instrument}"

    def price(self, scaled: int) -> Decimal | None:
        """A record's price as an exact decimal; None if it is undefined."""
        return None if scaled == UNDEFINED_PRICE else Decimal(int(scaled)).scaleb(self.price_exponent)

    def size(self, scaled: int) -> Decimal:
        """A record's size as an exact decimal."""
        return Decimal(int(scaled)).scaleb(self.size_exponent)


def _text(name: str, value: str) -> bytes:
    encoded = value.encode()
    room = INSTRUMENT[name].itemsize
    if len(encoded) > room:
        raise ValueError(f"{name} {value!r} has {len(encoded)} bytes, a row of the instrument table has {room}")
    return encoded


class InstrumentTable:
    """The table as mapped. Reading follows rows that the supervisor appends; only its creator may append."""

    def __init__(self, mapped: segment.Segment) -> None:
        self.segment = mapped
        self._rows: np.ndarray[Any, np.dtype[np.void]] = np.frombuffer(
            mapped.mapping, dtype=INSTRUMENT, count=mapped.slot_count, offset=segment.HEADER_SIZE
        )
        self._header: Words = mapped.writer_block
        self._known: list[Instrument] = []
        self._by_name: dict[str, Instrument] = {}
        self._by_text: dict[str, list[Instrument]] = {}  # by instrument and canonical symbol, of the first so many:
        self._indexed = 0

    @classmethod
    def create(cls, path: Path, *, run_id: int, capacity: int = 4096) -> Self:
        """Make the table, with room for ids 1..capacity-1, and become its writer."""
        made = segment.create(path, segment.SegmentKind.INSTRUMENTS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT,
                              run_id=run_id, slot_size=INSTRUMENT.itemsize, slot_count=capacity)  # fmt: skip
        made.lock()
        # The lock notes the pid in word 3; the row count keeps word 0, as a ring's cursor does.
        return cls(made)

    @classmethod
    def attach(cls, path: Path, *, wait_s: float = 0.0) -> Self:
        """Map the table read-only. Raises SegmentError."""
        return cls(segment.attach(path, segment.SegmentKind.INSTRUMENTS, version=LAYOUT_VERSION,
                                  fingerprint=FINGERPRINT, wait_s=wait_s))  # fmt: skip

    def append(self, venue_id: int, venue: str, instrument: str, canonical_symbol: str, price_exponent: int,
               size_exponent: int, base: str = "", quote: str = "") -> Instrument:  # fmt: skip
        """The instrument's row, appended unless an equal one is there. Raises ValueError (text too long, or full)."""
        self._refresh()
        found = self._by_name.get(f"{venue}:{instrument}")
        if found is not None and (found.price_exponent, found.size_exponent, found.canonical_symbol) == (
            price_exponent, size_exponent, canonical_symbol,
        ):  # fmt: skip
            return found
        number = len(self._known) + 1
        if number >= len(self._rows):
            raise ValueError(f"{self.segment.path}: full with {number - 1} instruments")
        self._rows[number] = (
            number, venue_id, price_exponent, size_exponent, 0, _text("venue", venue), _text("instrument", instrument),
            _text("canonical_symbol", canonical_symbol), _text("base", base), _text("quote", quote), b"",
        )  # fmt: skip
        self._header.store(_ROWS_WORD, number)
        self._header.wake(_ROWS_WORD)
        self._refresh()
        return self._known[-1]

    def _refresh(self) -> None:
        new = self._rows[len(self._known) + 1 : self._header.load(_ROWS_WORD) + 1]
        # All fields of all rows at once: a joiner of thousands of instruments waits for this.
        for number, venue_id, price_exponent, size_exponent, _, *texts, _ in new.tolist():
            venue, instrument, canonical_symbol, base, quote = (text.decode() for text in texts)
            known = Instrument(
                number, venue_id, venue, instrument, canonical_symbol, price_exponent, size_exponent, base, quote
            )
            self._known.append(known)
            self._by_name[known.name] = known

    def __len__(self) -> int:
        """Number of rows, row 0 not counted; ids are 1..len."""
        return self._header.load(_ROWS_WORD)

    def __iter__(self) -> Iterator[Instrument]:
        self._refresh()
        return iter(list(self._known))

    def by_id(self, instrument_id: int) -> Instrument:
        """The row of an id. Raises KeyError."""
        if not 1 <= instrument_id <= len(self._known):
            self._refresh()
        if not 1 <= instrument_id <= len(self._known):
            raise KeyError(f"no instrument {instrument_id}: the table has ids 1..{len(self._known)}")
        return self._known[instrument_id - 1]

    def __getitem__(self, name: str) -> Instrument:
        """The newest row called ``venue:instrument``. Raises KeyError."""
        self._refresh()
        return self._by_name[name]

    def get(self, name: str) -> Instrument | None:
        """The newest row called ``venue:instrument``, if there is one."""
        self._refresh()
        return self._by_name.get(name)

    def select(self, pattern: str) -> list[Instrument]:
        """Rows matching ``[venue:]name``; name is an instrument or a canonical symbol; ``*`` and ``?`` are wild."""
        venue, separator, name = pattern.rpartition(":")
        if _WILD.isdisjoint(name):
            rows = self._called(name)
        else:
            rows = [row for row in self if fnmatchcase(row.instrument, name) or fnmatchcase(row.canonical_symbol, name)]
        return [row for row in rows if not separator or fnmatchcase(row.venue, venue)]

    def _called(self, name: str) -> list[Instrument]:
        """Rows with this instrument or canonical symbol."""
        self._refresh()
        for row in self._known[self._indexed :]:
            for text in {row.instrument, row.canonical_symbol}:
                self._by_text.setdefault(text, []).append(row)
        self._indexed = len(self._known)
        return self._by_text.get(name, [])

    @property
    def columns(self) -> np.ndarray[Any, np.dtype[np.void]]:
        """The rows as a read-only structured array, indexed by instrument id (row 0 is none)."""
        view = self._rows[: self._header.load(_ROWS_WORD) + 1]
        view.flags.writeable = False
        return view
