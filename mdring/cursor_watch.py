"""Waiting for tapes in an asyncio program: one thread for the whole process, no busy loop.

The cursor of a tape is a futex word, and no selector watches futexes. So one daemon thread sleeps on the cursors
of all tapes that anybody awaits (``futex_waitv``) and wakes their event loops. ``async for batch in tape`` uses it.
"""

from __future__ import annotations

import asyncio
import mmap
import threading
from typing import Final

from mdring.ring._ring import Words, wait_any

_SLICE_NS: Final = 500_000_000
_MAX_WAITS: Final = 127  # one word of futex_waitv is the thread's own


class _Wait:
    """Somebody who awaits that a word changes."""

    def __init__(self, words: Words, index: int, seen: int) -> None:
        self.word = (words, index, seen)
        self.loop = asyncio.get_running_loop()
        self.changed = self.loop.create_future()

    def is_over(self) -> bool:
        words, index, seen = self.word
        return words.load(index) != seen or self.changed.done()

    def wake(self) -> None:
        """From the thread: the loop may have ended meanwhile."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.changed.done():
            self.changed.set_result(None)


class CursorWatch:
    """The thread that sleeps on futexes for all event loops of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits: list[_Wait] = []
        self._own = Words(mmap.mmap(-1, mmap.PAGESIZE), 0, 1)  # changed to have the thread look at its list again
        self._thread: threading.Thread | None = None

    async def wait(self, words: Words, index: int, seen: int, timeout_s: float) -> None:
        """Return when word ``index`` is no longer ``seen``, or after ``timeout_s``."""
        wait = _Wait(words, index, seen)
        with self._lock:
            if len(self._waits) >= _MAX_WAITS:
                raise RuntimeError(f"more than {_MAX_WAITS} tapes are awaited at once in this process")
            self._waits.append(wait)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="mdring-cursor-watch", daemon=True)
                self._thread.start()
            self._own.add(0)
        self._own.wake(0)
        try:
            async with asyncio.timeout(timeout_s):
                await wait.changed
        except TimeoutError:
            pass
        finally:
            with self._lock:
                if wait in self._waits:
                    self._waits.remove(wait)

    def _run(self) -> None:
        """Sleep on all awaited words."""
        while True:
            with self._lock:
                own = self._own.load(0)
                over = [wait for wait in self._waits if wait.is_over()]
                self._waits = [wait for wait in self._waits if wait not in over]
                words = [wait.word for wait in self._waits]
            for wait in over:
                wait.wake()
            wait_any([(self._own, 0, own), *words], _SLICE_NS)


cursor_watch: Final = CursorWatch()
"""The process's own."""
