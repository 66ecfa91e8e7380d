"""Ids that rise and skip: whether a message is older than what came before it.

For streams of which only the newest message counts, such as quotes, whose ids tell their order and no more. One object
per instrument and stream, in the worker's adapter; a direct route has it as its chain::

    if ids.repeats(quote.id):           # once more, or overtaken
        return NOTHING
    emit.bbo(…)                         # may raise
    ids.last = quote.id
"""

from __future__ import annotations

from mdring.feed.chain import Chain


class RisingIds(Chain):
    """``last`` is the id of the newest message, -1 before the first."""

    __slots__ = ("_overlap",)

    def __init__(self, overlap: int) -> None:
        """An id repeats if it lies fewer than ``overlap`` back; further back, the venue has begun to number anew."""
        self._overlap = overlap
        self.live = True
        self.restart()

    def restart(self) -> None:
        """On another connection any id may come first."""
        self.last = -1

    def repeats(self, number: int) -> bool:
        """Whether ``number`` is no newer than what has come."""
        return 0 <= self.last - number < self._overlap
