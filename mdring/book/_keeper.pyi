"""The book keeper's native core. What it does stands in ``keeper.h``."""

from mdring.book._book import BookSet
from mdring.book._table import Checkpoints, Rows
from mdring.ring._ring import Reader, Words

class Keeper:
    """Keeps the books of all instruments, the rows of the book table, and the checkpoints."""

    def __init__(
        self,
        books: BookSet,
        tape: Reader,
        rows: Rows,
        checkpoints: Checkpoints,
        words: Words,
        *,
        position_word: int,
        current_word: int,
        span: int,
        room: int = 1024,
    ) -> None:
        """Take over: recover what a predecessor left behind, and bring rows and checkpoints up to the tape.

        ``books`` is a new set of all instruments, from now on the keeper's own. ``tape``: any reader of the tape.
        ``words``: where the position goes, and when the rows last contained all of the tape (ns, CLOCK_MONOTONIC).
        ``span``: records that the checkpoints may lag behind. ``room``: records taken at once.
        Raises RuntimeError if the segments are damaged, TypeError if they are not writable, MemoryError.
        """
    def do_work(self) -> int:
        """One duty cycle: take one batch, write what has changed; returns the number of records. Raises MemoryError."""
    def run(self, idle: int, spin_ns: int, pause_ns: int, slice_ns: int) -> int:
        """Duty cycles for ``slice_ns``, or until a signal comes; returns the number of records. Raises MemoryError.

        When the end of the tape is reached it sleeps ``pause_ns`` if there were records, so that those which follow
        closely are taken together, and else waits by the idle strategy.
        """
    @property
    def position(self) -> int:
        """The rows contain all that the tape says up to this seq."""
    @property
    def floor(self) -> int:
        """The checkpoints contain all that the tape says up to this seq."""
    @property
    def lost(self) -> int:
        """Records that the tape overwrote before this keeper had them."""
    @property
    def records(self) -> int:
        """Records that this keeper has taken."""
    @property
    def checkpoints_written(self) -> int:
        """Checkpoints that this keeper has written."""
    @property
    def without_checkpoint(self) -> int:
        """Books for whose checkpoint there is no room."""
    @property
    def rowless(self) -> int:
        """Records of instruments for which the book table has no row."""
    def count_books(self) -> tuple[int, int]:
        """(number of books, number of valid ones)."""
