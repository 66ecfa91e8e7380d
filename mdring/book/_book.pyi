"""The native L2 books. The algorithm stands in ``book.h`` and ``side.h``.

A price is an integer in units of ``10 ** price_exponent`` and a size one in units of ``10 ** size_exponent``,
with the exponents of the instrument's row in the instrument table. Nothing here rounds but what says *float*.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mdring.record import Reason, Side

PRICE_LEVEL: Final[np.dtype[np.void]]
"""A row of a book: ``price`` i8, ``size`` i8; 16 bytes."""

class Fill(NamedTuple):
    """What a size would trade at, level by level.

    ``notional`` is the sum of price times size, in units of ``10 ** (price_exponent + size_exponent)``;
    ``filled`` is less than the size asked for if the side is not deep enough; ``worst_price`` is that of the
    last level taken, UNDEFINED_PRICE if none was.
    """

    notional: int
    filled: int
    worst_price: int

class Snapshot(NamedTuple):
    """A copy of one book, in the order of the arguments of ``BookSet.load``. Levels stand best first."""

    bids: npt.NDArray[np.void]
    asks: npt.NDArray[np.void]
    seq: int
    valid: bool
    reason: Reason

class BookSet:
    """The books of some or all instruments, changed by batches of records.

    Use it from one thread. ``apply`` releases the GIL; whoever touches the set or one of its books from another
    thread meanwhile gets a RuntimeError.
    """

    def __init__(
        self, instruments: Iterable[int] | None = None, *, max_levels: int = 1048576, max_instruments: int = 1048576
    ) -> None:
        """Books of these instrument ids; None: of every instrument that the records name.

        A book that gets more than ``max_levels`` on a side becomes invalid (BUFFER_FULL) until the next snapshot.
        Ids lie below ``max_instruments``: it bounds the memory that a wrong id could claim.
        Raises ValueError for an id that does not, or is 0.
        """
    def add(self, instrument_id: int) -> None:
        """Have a book of one more instrument, invalid until its next snapshot; nothing happens if there is one.

        Raises ValueError as the constructor does.
        """
    def apply(self, batch: npt.NDArray[np.void], count: int = -1) -> int:
        """Apply the first ``count`` records of a batch (all if negative); returns how many books changed.

        ``batch`` is a contiguous array of RECORD, or of a view of it, as ``poll`` fills it. Books change record by
        record, but become valid, and are looked at for a crossed top and reported in ``changed``, where their
        event group ends. A batch may end inside a group: the next one carries on.

        Raises TypeError if the items are not of a record's size; ValueError if there are fewer than ``count``, or,
        after the batch was applied, if a record named an id not below ``max_instruments``; MemoryError after the
        batch was applied, when the books concerned are invalid.
        """
    @property
    def changed(self) -> list[int]:
        """Ids of the books whose event groups ended in the last batch, each once, in the order of the groups."""
    @property
    def in_group(self) -> bool:
        """Whether the last batch ended inside an event group that touches a book."""
    def invalidate(self, reason: Reason, instrument_id: int | None = None) -> None:
        """Empty a book, or all: records were lost, and no later one makes up for them but a snapshot.

        To be called when ``lost`` of the consumer has risen, before the records that follow are applied.
        """
    def load(
        self,
        instrument_id: int,
        bids: npt.NDArray[np.void],
        asks: npt.NDArray[np.void],
        seq: int,
        valid: bool,
        reason: Reason,
    ) -> None:
        """Set a book to what ``Book.snapshot`` gave; records up to ``seq`` are skipped from now on.

        ``bids`` and ``asks`` are arrays of PRICE_LEVEL, best first. Raises ValueError if they are not in order,
        have a size that is not positive, or if an invalid book has any; KeyError if the instrument is not wanted.
        """
    def __getitem__(self, instrument_id: int, /) -> Book:
        """The book of an instrument; it stays the same book whatever is applied. Raises KeyError if not wanted."""
    def __contains__(self, instrument_id: int, /) -> bool: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]:
        """Ids of the instruments that have a book, ascending."""

class Book:
    """A view of one instrument's book, taken by ``books[instrument_id]``. An invalid book is empty."""

    @property
    def instrument_id(self) -> int:
        """Id of the instrument."""
    @property
    def valid(self) -> bool:
        """Whether the levels are the venue's, as of ``seq``."""
    @property
    def invalid_reason(self) -> Reason:
        """Why the book is invalid: the newest reason that a CLEAR, or a STATUS on the book or its venue, gave.

        NONE if it is valid, or if nothing was ever said of it.
        """
    @property
    def seq(self) -> int:
        """Seq of the last record that was applied to this book; 0 if none."""
    @property
    def ignored(self) -> int:
        """LEVEL records that came while the book was invalid."""
    @property
    def crossed(self) -> int:
        """Event groups that left the book crossed."""
    @property
    def is_crossed(self) -> bool:
        """Whether the last event group left the best bid at or above the best ask: data is missing."""
    @property
    def best_bid(self) -> tuple[int, int]:
        """(price, size) of the best bid; (UNDEFINED_PRICE, 0) if there is none."""
    @property
    def best_ask(self) -> tuple[int, int]:
        """(price, size) of the best ask; (UNDEFINED_PRICE, 0) if there is none."""
    @property
    def mid_doubled(self) -> int | None:
        """Best bid plus best ask: exactly twice the mid. None if a side is empty."""
    @property
    def mid_float(self) -> float | None:
        """The mid as the nearest float. None if a side is empty."""
    @property
    def microprice(self) -> float | None:
        """The mid weighted by the opposite sizes, as the nearest float. None if a side is empty."""
    def imbalance(self, levels: int | None = 1) -> float | None:
        """(bid size - ask size) / (their sum) over the best levels of each side, in -1..1; None if both are empty."""
    def bids(self, levels: int | None = None, out: npt.NDArray[np.void] | None = None) -> npt.NDArray[np.void]:
        """The best bids (all if None) as PRICE_LEVEL rows, best first.

        With ``out``, as many as fit are written there and that part of it is returned.
        """
    def asks(self, levels: int | None = None, out: npt.NDArray[np.void] | None = None) -> npt.NDArray[np.void]:
        """The best asks (all if None) as PRICE_LEVEL rows, best first; ``out`` as in ``bids``."""
    def cost_to_buy(self, size: int) -> Fill:
        """What taking ``size`` from the asks costs, exactly. Raises ValueError if it is negative."""
    def cost_to_sell(self, size: int) -> Fill:
        """What giving ``size`` to the bids yields, exactly. Raises ValueError if it is negative."""
    def size_at(self, side: Side, price: int) -> int:
        """Size at a price; 0 if there is no such level."""
    def depth(self, side: Side) -> int:
        """Number of levels of a side."""
    def snapshot(self) -> Snapshot:
        """A copy of the book for ``BookSet.load``.

        Raises RuntimeError if the last batch ended inside an event group that touches this book.
        """
