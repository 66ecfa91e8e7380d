"""Waiting for a tape in an asyncio program: no busy loop, and one wake-up of the event loop for each batch.

The cursor of a tape is a futex word, and no selector watches futexes. So a native thread sleeps on it, and makes a
descriptor readable that the event loop watches (``ring/watch.h``). ``async for batch in tape`` uses it.
"""

from __future__ import annotations

import asyncio
import os

from mdring.ring._ring import Words
from mdring.ring._watch import Watch


class CursorWatch:
    """For one task of the running event loop; its thread is started by the first wait and ended by ``close``."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._words: Words | None = None
        self._watch: Watch | None = None
        self._changed: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None  # of a wait, or of an earlier one whose time it outlasts

    def wait(self, words: Words, index: int, seen: int, timeout_s: float) -> asyncio.Future[None]:
        """A future: word ``index``, a cursor, is no longer ``seen``, or its run has ended, or ``timeout_s`` are over.

        It may be done early. Raises OSError if there can be no more threads or descriptors.
        """
        if self._watch is None or words is not self._words:
            self.close()
            self._words, self._watch = words, Watch(words, index)
            self._loop.add_reader(self._watch.fileno(), self._take_answer, self._watch.fileno())
        self._changed = changed = self._loop.create_future()
        if not self._watch.ask(seen):
            changed.set_result(None)
            return changed
        self._deadline = self._loop.time() + timeout_s
        if self._timer is None or self._timer.when() > self._deadline:
            self._set_timer()
        return changed

    def _take_answer(self, descriptor: int) -> None:
        os.eventfd_read(descriptor)
        self._resolve()

    def _resolve(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _set_timer(self) -> None:
        self._cancel_timer()
        self._timer = self._loop.call_at(self._deadline, self._look_at_the_time)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_at_the_time(self) -> None:
        """A timer for each wait would cost as much as the rest of it; so this one may be an earlier wait's."""
        self._timer = None
        if self._changed is None or self._changed.done():
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        else:
            self._resolve()

    def close(self) -> None:
        """End the thread."""
        self._cancel_timer()
        if self._watch is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._watch.fileno())
            self._watch.stop()
            self._watch = self._words = None
