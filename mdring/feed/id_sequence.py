"""Consecutive ids: whether one is missing, late, or here for the second time.

For venues that number their trades without holes. One object per instrument and stream, in the worker's
adapter. Judging and taking are two steps, so a message that turns out to be unusable counts as missing::

    step = sequence.judge(trade.id)
    if step is Step.GAP: ...          # ids sequence.due .. trade.id - 1 are missing; say so in the stream
    if step is not Step.REPEAT:
        emit.trade(...)               # may raise
        sequence.take(trade.id)
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from mdring.feed.chain import Chain

OVERLAP: Final = 1_000
"""An id is a repeat if it lies at most so far back. Further back, the venue has begun to number anew (test
networks do, when they are reset)."""


class Step(Enum):
    """How an id follows the ids before it."""

    NEXT = "next"
    GAP = "gap"  # ids are missing, or the numbers begin anew
    LATE = "late"  # one of those that were missing
    REPEAT = "repeat"


class IdSequence(Chain):
    """Ids that should rise by one. The first one may be any; one that leaves no room for the next in 64 bits with a
    sign raises OverflowError, and is not taken."""

    __slots__ = ("_hole_begin", "_hole_end")

    def __init__(self) -> None:
        self.live = True
        self.due = -1  # the id that should come next; -1: any
        # What is missing from the last gap: ids in [begin, end). Late ones are taken in rising order.
        self._hole_begin = 0
        self._hole_end = 0

    def judge(self, number: int) -> Step:
        """Say how ``number`` follows, without taking it."""
        if number == self.due or self.due < 0:
            return Step.NEXT
        if number > self.due:
            return Step.GAP
        if self._hole_begin <= number < self._hole_end:
            return Step.LATE
        return Step.REPEAT if self.due - number <= OVERLAP else Step.GAP

    def take(self, number: int) -> None:
        """Go on after ``number``, which was judged to be no REPEAT."""
        if number == self.due or self.due < 0:
            self.due = number + 1
        elif self._hole_begin <= number < self._hole_end:
            self._hole_begin = number + 1
        else:
            due, self.due = self.due, number + 1
            self._hole_begin, self._hole_end = due, number  # empty if the numbers begin anew

    def skip(self, number: int) -> None:
        """Go on with ``number``, above the one due: something else has told that those before it are missing."""
        due, self.due = self.due, number
        self._hole_begin, self._hole_end = due, number
