"""The stager between an adapter and its venue ring."""

from typing import Final

import numpy as np
import numpy.typing as npt

from mdring.record import Aggressor, DataType, Flags, Reason, Side, State
from mdring.ring._ring import Words, Writer

class Channel:
    """One instrument of a venue as the records name it: id, exponents, and one ``channel_seq`` per data type.

    ``price_exponent`` and ``size_exponent`` say how decimal text is scaled.
    """

    instrument: Final[str]
    instrument_id: Final[int]
    venue_id: Final[int]
    price_exponent: Final[int]
    size_exponent: Final[int]

    def __init__(
        self, instrument: str, instrument_id: int, venue_id: int, price_exponent: int, size_exponent: int
    ) -> None: ...
    def channel_seq(self, data_type: DataType) -> int:
        """The last channel_seq that was published (0: none yet)."""
    def restore(self, data_type: DataType, channel_seq: int) -> None:
        """Continue after ``channel_seq`` (a restarted worker)."""

class Emit:
    """Stages event groups of records, then commits them to a venue ring or to an array.

    Text arguments are decimal text as the venue sent it (``str`` or bytes). They are scaled exactly;
    text that is malformed, or does not fit, raises ``fixed.DecimalError`` and stages nothing.
    ``ts_recv`` is set once per frame by ``begin``.
    """

    def __init__(self, capacity: int = 32768) -> None: ...
    def begin(self, ts_recv: int) -> None:
        """Start the records of one frame; everything staged and not rolled back stays."""
    def trade(
        self,
        channel: Channel,
        price: str | bytes,
        size: str | bytes,
        aggressor: Aggressor | int,
        trade_id: int,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
        trade_count: int = 1,
        trade_id_high: int = 0,
        trade_id_format: int = 1,
    ) -> None: ...
    def bbo(
        self,
        channel: Channel,
        bid_price: str | bytes | None,
        bid_size: str | bytes | None,
        ask_price: str | bytes | None,
        ask_size: str | bytes | None,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> None:
        """None: that side is empty (UNDEFINED_PRICE, size 0)."""
    def levels(
        self,
        channel: Channel,
        side: Side | int,
        levels: bytes | memoryview | object,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> int:
        """One LEVEL per ``["price","size",…]`` of a JSON array (a ``msgspec.Raw`` or bytes). Returns their number."""
    def level(
        self,
        channel: Channel,
        side: Side | int,
        price: str | bytes,
        size: str | bytes,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
        order_count: int = 0,
    ) -> None: ...
    def clear(
        self,
        channel: Channel,
        reason: Reason | int,
        ts_event: int = 0,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> None: ...
    def status(
        self,
        channel: Channel,
        state: State | int,
        reason: Reason | int,
        data_type: DataType | int = 0,
        count: int = 0,
        expected: int = 0,
        found: int = 0,
        detail: str = "",
        ts_event: int = 0,
    ) -> None:
        """A channel with ``instrument_id`` 0 speaks for the whole venue."""
    def end(self) -> None:
        """Close the event group: its last record gets LAST. An empty group is no group."""
    def mark(self) -> int:
        """Where staging stands now; for ``rollback``."""
    def rollback(self, mark: int = 0) -> None:
        """Drop all that was staged since ``mark``."""
    @property
    def staged(self) -> int:
        """Number of staged records."""
    def commit(self, writer: Writer, read_position: Words | None = None, read_index: int = 0) -> int:
        """Number the staged groups per channel and publish them, each group at once or not at all.

        ``read_position`` is the sequencer's counters: a group for which the ring has no room above the
        sequencer's position is refused whole. Returns the number of records published; the refused are in
        ``refused`` until ``drop_refused``. Empties the stage.
        """
    @property
    def refused(self) -> int:
        """Number of records that the full ring refused at the last ``commit``."""
    def refused_instruments(self) -> list[int]:
        """Ids of the instruments of those records."""
    def drain(self) -> npt.NDArray[np.void]:
        """Number the staged groups per channel and return them as a new array of RECORD (offline use)."""
    def observe(self, frames: int, payload_bytes: int) -> None:
        """Count frames and bytes in the counters block, if one is attached."""
    def attach_counters(self, counters: Words, frames: int, payload_bytes: int, records: int, latency: int) -> None:
        """Count into these words: indices of the counters and of the venue → receive histogram's first bucket."""
