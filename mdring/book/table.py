"""The two segments of the book keeper: the book table and the checkpoints. Made by the supervisor, written by the
keeper, mapped read-only by everyone else.

The *book table* has one row per instrument: its best levels, its newest BBO, trade and STATUS, the state of its
connection, and the seq up to which all that is true. The *checkpoints* are complete books of any depth for late
joiners. Neither is ever waited for, by the writer or by a reader (``rows.h`` and ``checkpoints.h`` say why)::

    table = BookTable.attach(folder.books)
    position = table.position                    # first this, then the row:
    row = table.read(instrument_id)              # true at the larger of position and row["seq"]
    row["bbo"]["bid_price"], row["bids"][: row["bid_count"]]

An instrument's place in the table is its id: ids from the number of rows on have none.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from mdring.book._book import PRICE_LEVEL
from mdring.book._table import PAGE_SIZE, ROW_FIXED_SIZE, ROW_HEAD_SIZE, ROW_HEADER_SIZE, ROW_OFFSETS, Checkpoints, Rows
from mdring.record import BBO, LAYOUT_VERSION, STATUS, TRADE, layout_text
from mdring.ring import segment
from mdring.ring.segment import SegmentKind

POSITION_WORD: Final = 0
"""Of the table's writer block: the rows contain all that the tape says up to this seq."""
CURRENT_WORD: Final = 2
"""Of the table's writer block: when the rows last contained all of the tape; ns, CLOCK_MONOTONIC."""

MAX_LEVELS: Final = 1000
"""The most levels a side that a row may have."""

INDEX_PAGES: Final = 8
"""Pages of the checkpoints' index: room for as many instruments as a run can have."""

_FIELDS: Final[dict[str, Any]] = {
    "seq": "<u8",  # all that the tape says of the instrument up to here is in the row
    "book_seq": "<u8",  # the last record that was applied to the book
    "instrument_id": "<u4",
    "venue_id": "u1",
    "book_valid": "?",
    "book_reason": "u1",  # Reason why it is not
    "book_crossed": "?",
    "connection_state": "u1",  # State of the connection over which the instrument comes; NONE if unknown
    "connection_reason": "u1",
    "venue_state": "u1",  # State of the whole venue: the worst of its connections
    "venue_reason": "u1",
    "trading_state": "u1",  # TRADING, HALTED, or NONE if the venue never said
    "doubt_reason": "u1",  # Reason of what was told at doubt_seq
    "connection_seq": "<u8",  # of the STATUS of the instrument's own connection; 0 if the venue's governs
    "doubt_seq": "<u8",  # a BBO or trade from before may not be the newest: records in between may be missing
    "bid_depth": "<u4",  # levels of the book
    "ask_depth": "<u4",
    "bid_count": "<u4",  # levels in the row
    "ask_count": "<u4",
    "bbo": BBO,  # seq 0 if there is none, as in the next three
    "trade": TRADE,
    "status": STATUS,  # of the instrument
    "venue_status": STATUS,  # of its whole venue
}


def _dtype(names: list[str], formats: list[Any], offsets: list[int], size: int) -> np.dtype[np.void]:
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def row_dtype(levels: int) -> np.dtype[np.void]:
    """A row's content, with room for ``levels`` bids and as many asks, best first, zeros behind the last one."""
    side_size = levels * PRICE_LEVEL.itemsize
    return _dtype(
        [*_FIELDS, "bids", "asks"],
        [*_FIELDS.values(), (PRICE_LEVEL, (levels,)), (PRICE_LEVEL, (levels,))],
        [*(ROW_OFFSETS[name] for name in _FIELDS), ROW_FIXED_SIZE, ROW_FIXED_SIZE + side_size],
        ROW_FIXED_SIZE + 2 * side_size,
    )


_HEAD_NAMES: Final = list(_FIELDS)[: list(_FIELDS).index("bbo") + 1]
ROW_HEAD: Final = _dtype(
    _HEAD_NAMES, [_FIELDS[name] for name in _HEAD_NAMES], [ROW_OFFSETS[name] for name in _HEAD_NAMES], ROW_HEAD_SIZE
)
"""The beginning of a row's content, up to the BBO."""

FINGERPRINT: Final = int.from_bytes(
    hashlib.sha256(f"{row_dtype(1)} {PAGE_SIZE} {INDEX_PAGES} {layout_text()}".encode()).digest()[:8], "little"
)


def _row_size(levels: int) -> int:
    return ROW_HEADER_SIZE + 2 * row_dtype(levels).itemsize


def create_table(path: Path, *, run_id: int, levels: int, instruments: int) -> segment.Segment:
    """Make a book table for instrument ids below ``instruments``. Raises OSError, ValueError."""
    if not 1 <= levels <= MAX_LEVELS or instruments < 2:
        raise ValueError(f"a book table has 1..{MAX_LEVELS} levels and at least 2 rows, not {levels} and {instruments}")
    return segment.create(path, SegmentKind.BOOKS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, run_id=run_id,
                          slot_size=_row_size(levels), slot_count=instruments)  # fmt: skip


def create_checkpoints(path: Path, *, run_id: int, size_bytes: int) -> segment.Segment:
    """Make room for checkpoints of ``size_bytes`` in all. Raises OSError."""
    pages = INDEX_PAGES + max(1, size_bytes // PAGE_SIZE)
    return segment.create(path, SegmentKind.CHECKPOINTS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT,
                          run_id=run_id, slot_size=PAGE_SIZE, slot_count=pages)  # fmt: skip


def _attach(path: Path, kind: SegmentKind, *, writable: bool) -> segment.Segment:
    return segment.attach(path, kind, version=LAYOUT_VERSION, fingerprint=FINGERPRINT, writable=writable)


class BookTable:
    """A book table as mapped."""

    def __init__(self, mapped: segment.Segment) -> None:
        self.segment = mapped
        self.rows = Rows(mapped.mapping, segment.HEADER_SIZE, mapped.slot_size, mapped.slot_count)
        image_size = (mapped.slot_size - ROW_HEADER_SIZE) // 2
        self.levels = (image_size - ROW_FIXED_SIZE) // (2 * PRICE_LEVEL.itemsize)
        """Bids, and asks, that a row has room for."""
        self._dtype = row_dtype(self.levels)

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Map it read-only. Raises SegmentError."""
        return cls(_attach(path, SegmentKind.BOOKS, writable=False))

    @classmethod
    def open_as_writer(cls, path: Path) -> Self:
        """Become the only writer. Raises SegmentError (AlreadyWritten if another process is)."""
        table = cls(_attach(path, SegmentKind.BOOKS, writable=True))
        table.segment.lock()
        return table

    @property
    def position(self) -> int:
        """The rows contain all that the tape says up to this seq; load it before the rows."""
        return self.segment.writer_block.load(POSITION_WORD)

    @property
    def current_ns(self) -> int:
        """When the rows last contained all of the tape; CLOCK_MONOTONIC."""
        return self.segment.writer_block.load(CURRENT_WORD)

    def empty_row(self) -> npt.NDArray[np.void]:
        """An array of one row, for ``rows.read``."""
        return np.zeros(1, dtype=self._dtype)

    def read(self, instrument_id: int) -> np.void | None:
        """A copy of an instrument's row as it was at one time, or None if nothing was ever said of it."""
        out = self.empty_row()
        return out[0] if self.rows.read(instrument_id, out) else None

    def read_heads(self) -> npt.NDArray[np.void]:
        """A copy of the beginning of each row (ROW_HEAD) in which there is anything, by id."""
        out = np.empty(len(self.rows), dtype=ROW_HEAD)
        return out[: self.rows.read_heads(out)]


class CheckpointStore:
    """The checkpoints as mapped."""

    def __init__(self, mapped: segment.Segment) -> None:
        self.segment = mapped
        self.checkpoints = Checkpoints(
            mapped.mapping, segment.WRITER_OFFSET, segment.HEADER_SIZE, INDEX_PAGES, mapped.slot_count
        )

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Map them read-only. Raises SegmentError."""
        return cls(_attach(path, SegmentKind.CHECKPOINTS, writable=False))

    @classmethod
    def open_as_writer(cls, path: Path) -> Self:
        """Become the only writer. Raises SegmentError (AlreadyWritten if another process is)."""
        store = cls(_attach(path, SegmentKind.CHECKPOINTS, writable=True))
        store.segment.lock()
        return store
