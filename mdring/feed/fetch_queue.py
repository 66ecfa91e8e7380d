"""The queue of REST requests that wait: for their delay, for a free place, for the budget.

Part of the worker's ``Fetcher`` (``rest.py``), without clock and socket. Whose turn it is, among those whose delay is
over, is told anew each time:

1. what was asked for as ``urgent``: the metadata, without which nothing begins;
2. snapshots of books (``Fetch.instrument``), which are invalid until they come: those of the most traded instruments
   first, by the trades that this run has seen of them, then by their quotes, then in the order of asking, which at a
   start is that of the configuration;
3. all else, in the order of asking.

No request goes before another one because it is cheaper::

    queue = FetchQueue(driver.activity)
    queue.add(fetch, now_ns)
    waiting = queue.first(now_ns)          # None: see next_due_ns
    queue.remove(waiting)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from mdring.feed.adapter import Fetch, Response

Activity = Callable[[str], tuple[int, int]]
"""How many trades and quotes were seen of an instrument."""


class Waiting(Struct, frozen=True, eq=False):
    """One request in the queue. ``answer``, if there is one, is whom the answer goes to."""

    fetch: Fetch
    due_ns: int
    number: int
    urgent: bool = False
    answer: asyncio.Future[Response] | None = None


class FetchQueue:
    """The requests that wait. Times are of any clock that runs evenly."""

    def __init__(self, activity: Activity) -> None:
        self._activity = activity
        self._waiting: dict[int, Waiting] = {}  # by number
        self._asked = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(
        self, fetch: Fetch, now_ns: int, *, urgent: bool = False, answer: asyncio.Future[Response] | None = None
    ) -> Waiting:
        """Put a request in the queue, due after its delay."""
        self._asked += 1
        waiting = Waiting(fetch, now_ns + fetch.delay_ns, self._asked, urgent, answer)
        self._waiting[waiting.number] = waiting
        return waiting

    def first(self, now_ns: int) -> Waiting | None:
        """Whose turn it is; None if nothing is due. It stays in the queue."""
        return min((entry for entry in self._waiting.values() if entry.due_ns <= now_ns), key=self._rank, default=None)

    def next_due_ns(self) -> int | None:
        """When the next delay ends, or has ended; None: nothing waits."""
        return min((entry.due_ns for entry in self._waiting.values()), default=None)

    def remove(self, waiting: Waiting) -> None:
        """Take a request out, if it still is in."""
        self._waiting.pop(waiting.number, None)

    def cancel(self, connection: int) -> None:
        """Take out all requests made on behalf of a connection."""
        self._waiting = {
            number: entry for number, entry in self._waiting.items() if entry.fetch.connection != connection
        }

    def _rank(self, waiting: Waiting) -> tuple[int, int, int, int]:
        if waiting.urgent:
            return 0, 0, 0, waiting.number
        if not waiting.fetch.instrument:
            return 2, 0, 0, waiting.number
        trades, quotes = self._activity(waiting.fetch.instrument)
        return 1, -trades, -quotes, waiting.number
