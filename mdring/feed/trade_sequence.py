"""Trades with consecutive ids: what is missing is said in the stream, what comes again is dropped.

For venues that number the trades of an instrument without holes. One object per instrument, in the worker's adapter; a
direct route has it as its chain::

    flags = sequence.admit(trade.id, emit)
    if flags is None:                        # it has come before
        return NOTHING
    emit.trade(…, flags)                     # may raise: then the trade counts as missing
    emit.end()
    sequence.take(trade.id)

If one message has several trades, and nothing of it may count unless all of it is of use::

    mark = sequence.mark()
    try: …                                   # admit and take each of them
    except (*UNREADABLE, VenueProtocolError):
        sequence.rollback(mark)
        raise
"""

from __future__ import annotations

from typing import Final

from mdring.feed.adapter import AdapterCounts
from mdring.feed.emit import Emit
from mdring.feed.id_sequence import IdSequence, Step
from mdring.feed.stage import Channel
from mdring.record import DataType, Flags, Reason, State

_NONE: Final = int(Flags.NONE)
_RECOVERED: Final = int(Flags.RECOVERED)
_MOST_MISSING: Final = 2**32 - 1


class TradeSequence(IdSequence):
    """The ids of an instrument's trades, and what the stream is told of them."""

    __slots__ = ("_channel", "_counts", "_data_type")

    def __init__(self, channel: Channel, counts: AdapterCounts, data_type: DataType = DataType.TRADE) -> None:
        """``data_type``: of what a gap is told."""
        super().__init__()
        self._channel = channel
        self._counts = counts
        self._data_type = data_type

    def admit(self, number: int, emit: Emit, *, counts_repeats: bool = True) -> int | None:
        """How the next trade follows: None if it has come before, else the flags of its record. What is missing before
        it is staged first, as a group of its own. ``counts_repeats`` is False where repeats are to be expected."""
        if number == self.due:
            return _NONE
        step = self.judge(number)
        if step is Step.REPEAT:
            self._counts.repeated += counts_repeats
            return None
        if step is Step.GAP:
            self.tell_gap(number, emit)
        return _RECOVERED if step is Step.LATE else _NONE

    def tell_gap(self, found: int, emit: Emit) -> int:
        """STATUS(GAP): ``found`` is the first after those that are missing. Returns their number; 0 if the venue has
        begun to number anew. It counts when ``found`` is taken or skipped to."""
        due = self.due
        missing = min(max(found - due, 0), _MOST_MISSING)
        emit.end()
        emit.status(self._channel, State.GAP, Reason.SEQUENCE_GAP, self._data_type, missing, due, found)
        emit.end()
        return missing

    def take(self, number: int) -> None:
        """Go on after ``number``, which was admitted."""
        leaps = number != self.due and self.judge(number) is Step.GAP
        super().take(number)
        self._counts.gaps += leaps

    def skip(self, number: int) -> None:
        """Go on with ``number``: that those before it are missing has been told."""
        super().skip(number)
        self._counts.gaps += 1

    def mark(self) -> tuple[int, ...]:
        """Where it stands, for ``rollback``."""
        return self.due, self._hole_begin, self._hole_end, self._counts.gaps, self._counts.repeated

    def rollback(self, mark: tuple[int, ...]) -> None:
        """Go back: nothing since ``mark`` has come."""
        self.due, self._hole_begin, self._hole_end, self._counts.gaps, self._counts.repeated = mark
