"""The stage of a worker: event groups of records on their way to the venue ring. How it works stands at the top of
``stage.pyx``."""

from typing import Final, Self, final

import numpy as np
import numpy.typing as npt

from mdring.record import DataType
from mdring.ring._ring import Words, Writer

@final
class Channel:
    """One instrument of a venue as its records name it: id, exponents, and one ``channel_seq`` per data type.

    ``price_exponent`` and ``size_exponent`` say how decimal text is scaled.
    """

    instrument: Final[str]
    instrument_id: Final[int]
    venue_id: Final[int]
    price_exponent: Final[int]
    size_exponent: Final[int]

    def __new__(
        cls, instrument: str, instrument_id: int, venue_id: int, price_exponent: int, size_exponent: int
    ) -> Self: ...
    def channel_seq(self, data_type: DataType | int) -> int:
        """The last channel_seq that was published (0: none yet)."""
    def restore(self, data_type: DataType | int, channel_seq: int) -> None:
        """Continue after ``channel_seq`` (a restarted worker)."""
    def save(self, words: Words, first: int, count: int) -> None:
        """Store the last channel_seqs of ``count`` data types in ``words`` from ``first`` on; only those that differ.

        Raises IndexError if there is no such room, or it is not writable.
        """

class Stage:
    """Event groups of records, staged, then committed to a venue ring or to an array."""

    def __new__(cls, capacity: int = 32768) -> Self:
        """``capacity``: records for which there is room at first; the stage grows."""
    def begin(self, ts_recv: int) -> None:
        """Stamp what is staged from here on with ``ts_recv``. What is staged already stays."""
    def end(self) -> None:
        """Close the event group: its last record gets LAST. An empty group is no group."""
    def mark(self) -> int:
        """Where staging stands now; for ``rollback``."""
    def rollback(self, mark: int = 0) -> None:
        """Drop all that was staged since ``mark``, a value that ``mark()`` returned after the last commit."""
    @property
    def staged(self) -> int:
        """Number of staged records."""
    def commit(self, writer: Writer, read_position: Words | None = None, read_index: int = 0) -> int:
        """Number the staged groups per channel and publish them; returns the number of records published.

        If all fit they become visible by one store; else group by group, and after the first refused one no
        other, for order's sake. ``read_position[read_index]`` is the last record that the sequencer has
        consumed: what it has not is never overwritten. Without it nothing is refused but a group larger than
        half the ring. Empties the stage. Raises RuntimeError if the last group was not ended.
        """
    def drain(self) -> npt.NDArray[np.void]:
        """Number the staged groups per channel and return them as a new array of RECORD. Empties the stage."""
    refused: Final[int]
    """Number of records that the last ``commit`` had to refuse."""
    def refused_channels(self) -> list[tuple[Channel, DataType, int]]:
        """Those records by channel and data type: (channel, data type, number of records), in order."""
    def refused_instruments(self) -> list[int]:
        """Ids of the instruments of those records."""
    def attach_counters(self, counters: Words, frames: int, payload_bytes: int, records: int, latency: int) -> None:
        """Count into these words: indices of three counters and of the first bucket of the histogram
        venue → receive, which gets one value per event group that has a time of the venue."""
    def observe(self, frames: int, payload_bytes: int) -> None:
        """Count frames and their bytes."""
