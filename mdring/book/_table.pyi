"""Rows of the book table, and books joined late. The protocols stand in ``rows.h`` and ``checkpoints.h``."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdring.book._book import BookSet
from mdring.ring._ring import Reader

PAGE_SIZE: Final[int]
"""Bytes of a page of the checkpoints."""
ROW_HEADER_SIZE: Final[int]
"""Bytes of a row before its two images."""
ROW_HEAD_SIZE: Final[int]
"""Bytes of an image up to the BBO and with it."""
ROW_FIXED_SIZE: Final[int]
"""Bytes of an image before its price levels."""
ROW_OFFSETS: Final[dict[str, int]]
"""Byte offsets of an image's fields before its price levels."""

class Rows:
    """The rows of a book table in a mapped segment, each with the newest state of one instrument."""

    writable: Final[bool]
    def __init__(self, buffer: Any, offset: int, row_size: int, row_count: int) -> None:
        """``row_count`` rows of ``row_size`` bytes from ``offset``. Raises ValueError if they are none."""
    def __len__(self) -> int:
        """Number of rows; the ids of instruments that have one lie below."""
    def read(self, instrument_id: int, out: npt.NDArray[np.void] | npt.NDArray[np.uint64]) -> bool:
        """Copy the newest image of a row, or as much of its beginning as fits, into ``out``; False if there is none.

        Never waits for the writer. Raises RuntimeError if the row was replaced during each of very many copies.
        """
    def read_heads(self, out: npt.NDArray[np.void]) -> int:
        """Copy the beginning, up to the BBO, of every row that has an image, in the order of the ids.

        ``out`` has items of ROW_HEAD_SIZE bytes. Returns how many were copied. Raises RuntimeError as ``read`` does.
        """

class Checkpoints:
    """The checkpoints of a run's books in a mapped segment."""

    writable: Final[bool]
    def __init__(self, buffer: Any, floor_offset: int, offset: int, index_pages: int, page_count: int) -> None:
        """``page_count`` pages from ``offset``, the first ``index_pages`` of which are the index. Raises ValueError."""
    @property
    def floor(self) -> int:
        """Every checkpoint contains what the tape says up to this seq."""
    @property
    def without(self) -> list[int]:
        """Ids of the instruments that the last join found without a checkpoint, as there was no room for it."""
    def join(self, books: BookSet, reader: Reader) -> int | None:
        """Make the books what checkpoints and tape say; returns the seq as of which they are.

        ``reader`` is a new one without a filter, at what ``floor`` was before this call. None if the tape has
        overwritten what was needed: begin anew. The books are of no use then. Raises MemoryError.
        """
