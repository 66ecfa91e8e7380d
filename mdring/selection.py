"""What a consumer wants of the tape: kinds and instruments, as patterns that follow a growing table."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from mdring.instrument import InstrumentTable
from mdring.record import Kind, offset_of
from mdring.ring._ring import Reader
from mdring.run_folder import RunError

_ALL_KINDS: Final = (1 << 64) - 1
BOOK_KINDS: Final = frozenset({Kind.LEVEL, Kind.CLEAR, Kind.STATUS})
"""What a book is made from."""


class UnknownInstrument(RunError):
    """No instrument of the run has such a name."""


class Selection:
    """Wanted kinds (None: all) and instrument patterns (None: all); each ``[venue:]name`` with ``*`` wild."""

    def __init__(self, kinds: Iterable[Kind] | None = None, patterns: Iterable[str] | None = None) -> None:
        self.kinds = None if kinds is None else frozenset(Kind(kind) for kind in kinds)
        self.patterns = None if patterns is None else _listed(patterns)
        self._mask = np.zeros(0, dtype=bool)
        self._kind_mask = np.array([self.kinds is None or kind in self.kinds for kind in range(256)])

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return self.kinds is None and self.patterns is None

    def require(self, table: InstrumentTable, wait_s: float) -> None:
        """Wait until each name without ``*`` is in the table. Raises UnknownInstrument after ``wait_s``."""
        deadline = time.monotonic() + wait_s
        while missing := [name for name in self.patterns or () if "*" not in name and not table.select(name)]:
            if time.monotonic() >= deadline:
                known = ", ".join(sorted({row.canonical_symbol for row in table})) or "none yet"
                raise UnknownInstrument(
                    f"the run has no instrument {missing[0]!r}; it has: {known}. wait_s= waits for one still to come"
                )
            time.sleep(0.02)

    def forget(self) -> None:
        """Another table takes the place of the one known so far."""
        self._mask = np.zeros(0, dtype=bool)

    def ids(self, table: InstrumentTable) -> list[int]:
        """Ids of the wanted instruments that the table has now."""
        if self.patterns is None:
            return [row.id for row in table]
        return sorted({row.id for pattern in self.patterns for row in table.select(pattern)})

    def union(self, other: Selection) -> Selection:
        """What either wants: this very selection, if the other wants no more."""
        kinds = None if self.kinds is None or other.kinds is None else self.kinds | other.kinds
        patterns = None
        if self.patterns is not None and other.patterns is not None:
            patterns = tuple(dict.fromkeys(self.patterns + other.patterns))
        return self if (kinds, patterns) == (self.kinds, self.patterns) else Selection(kinds, patterns)

    def refresh(self, table: InstrumentTable) -> bool:
        """Judge the instruments that joined the table meanwhile; whether there were any."""
        known = len(table)
        if known < len(self._mask):
            return False
        if self.patterns is None:
            self._mask = np.ones(known + 1, dtype=bool)
            return True
        mask = np.zeros(known + 1, dtype=bool)
        mask[0] = True  # the venue as a whole
        wanted = [instrument_id for instrument_id in self.ids(table) if instrument_id <= known]
        mask[wanted] = True
        self._mask = mask
        return True

    def filter(self, reader: Reader) -> None:
        """Have the reader deliver only what is wanted, and whatever is too new to be judged."""
        reader.set_filter(
            _ALL_KINDS if self.kinds is None else sum(1 << kind for kind in self.kinds),
            None if self.patterns is None else self._mask.view(np.uint8),
            kind_offset=offset_of("kind"),
            instrument_offset=offset_of("instrument_id"),
        )

    def of(self, batch: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
        """Which records of a batch are wanted; ``refresh`` has seen all of its instruments."""
        wanted = np.ones(len(batch), dtype=bool)
        if self.patterns is not None:
            wanted &= self._mask[batch["instrument_id"]]
        if self.kinds is not None:
            wanted &= self._kind_mask[batch["kind"]]
        return wanted


def _listed(patterns: Iterable[str]) -> tuple[str, ...]:
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)
