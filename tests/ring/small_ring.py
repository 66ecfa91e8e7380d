"""A small ring in private memory, with records of 32 bytes; for tests that need no second process."""

from __future__ import annotations

import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mdring.ring._ring import Reader, Words, Writer

LAST: Final = 1
RECORD: Final = np.dtype(
    {
        "names": ["seq", "value", "kind", "flags", "instrument", "check"],
        "formats": ["<u8", "<u8", "u1", "u1", "<u4", "<u8"],
        "offsets": [0, 8, 16, 17, 20, 24],
        "itemsize": 32,
    }
)
_CURSOR_OFFSET: Final = 128
_DATA_OFFSET: Final = 256


class SmallRing:
    """The ring's memory, its parameters, and what stands in it."""

    def __init__(self, slot_count: int) -> None:
        self.slot_count = slot_count
        self.memory = mmap.mmap(-1, _DATA_OFFSET + slot_count * RECORD.itemsize)
        self.cursor_word = Words(self.memory, _CURSOR_OFFSET, 1)
        self.slots: npt.NDArray[np.void] = np.frombuffer(
            self.memory, dtype=RECORD, count=slot_count, offset=_DATA_OFFSET
        )

    def _parameters(self) -> tuple[Any, ...]:
        return (
            self.memory, _CURSOR_OFFSET, _DATA_OFFSET, RECORD.itemsize, self.slot_count, offset_of("flags"), LAST,
        )  # fmt: skip

    def writer(self) -> Writer:
        """The ring's writer, who resumes after whoever was it before."""
        return Writer(*self._parameters())

    def reader(self, position: int = 0) -> Reader:
        """A reader after ``position``."""
        return Reader(*self._parameters(), position)


def offset_of(field: str) -> int:
    """Byte offset of a field of the records."""
    assert RECORD.fields is not None
    return int(RECORD.fields[field][1])


def set_filter(reader: Reader, kinds: int, instruments: list[int] | None = None) -> None:
    """Have ``reader`` deliver only kinds whose bit is set, and instruments whose entry is not 0."""
    wanted = None if instruments is None else np.array(instruments, dtype=np.uint8)
    reader.set_filter(kinds, wanted, kind_offset=offset_of("kind"), instrument_offset=offset_of("instrument"))


def make_records(*groups: int, first_value: int = 1) -> npt.NDArray[np.void]:
    """Event groups of the given sizes, all of kind 1; ``value`` rises by one from ``first_value``."""
    made = np.zeros(sum(groups), dtype=RECORD)
    made["value"] = np.arange(first_value, first_value + len(made))
    made["check"] = ~made["value"]
    made["kind"] = 1
    made["flags"][np.cumsum(groups) - 1] = LAST
    return made
