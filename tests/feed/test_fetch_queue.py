"""Whose turn it is among REST requests that wait."""

from __future__ import annotations

from mdring.feed.adapter import Fetch
from mdring.feed.fetch_queue import FetchQueue

SEEN = {"QUIET": (0, 0), "BUSY": (900, 5), "BUSIER": (901, 0), "QUOTED": (0, 7)}


def queue() -> FetchQueue:
    return FetchQueue(lambda instrument: SEEN.get(instrument, (0, 0)))


def book(instrument: str, connection: int = 0, delay_ns: int = 0) -> Fetch:
    return Fetch(f"{instrument} 1", "", 50, delay_ns, connection, instrument)


def drained(waiting: FetchQueue, now_ns: int = 0) -> list[str]:
    """The tags of all that are due, in their order."""
    tags = []
    while (first := waiting.first(now_ns)) is not None:
        waiting.remove(first)
        tags.append(first.fetch.tag)
    return tags


def test_metadata_then_books_by_their_trades_and_quotes_then_all_else() -> None:
    waiting = queue()
    waiting.add(Fetch("open interest", ""), 0)
    for name in ("QUIET", "NEVER SEEN", "QUOTED", "BUSY", "BUSIER"):
        waiting.add(book(name), 0)
    waiting.add(Fetch("funding", ""), 0)
    waiting.add(Fetch("page 1", ""), 0, urgent=True)
    waiting.add(Fetch("page 2", ""), 0, urgent=True)
    assert drained(waiting) == [
        "page 1", "page 2", "BUSIER 1", "BUSY 1", "QUOTED 1", "QUIET 1", "NEVER SEEN 1", "open interest", "funding",
    ]  # fmt: skip
    assert len(waiting) == 0


def test_rank_is_that_of_the_moment() -> None:
    seen = {"A": (0, 0), "B": (0, 0)}
    waiting = FetchQueue(seen.__getitem__)
    waiting.add(book("A"), 0)
    waiting.add(book("B"), 0)
    first = waiting.first(0)
    assert first is not None and first.fetch.instrument == "A"
    seen["B"] = (1, 0)
    assert drained(waiting) == ["B 1", "A 1"]


def test_who_waits_for_a_delay_lets_others_go_first() -> None:
    waiting = queue()
    waiting.add(book("BUSY", delay_ns=100), 50)
    waiting.add(book("QUIET"), 50)
    assert waiting.next_due_ns() == 50
    assert drained(waiting, 149) == ["QUIET 1"]
    assert waiting.next_due_ns() == 150
    assert drained(waiting, 150) == ["BUSY 1"]
    assert waiting.next_due_ns() is None


def test_requests_leave_with_their_connection() -> None:
    waiting = queue()
    waiting.add(book("BUSY", connection=1), 0)
    waiting.add(book("QUIET", connection=0), 0)
    waiting.add(Fetch("for nobody in particular", "", connection=-1), 0)
    waiting.cancel(1)
    assert drained(waiting) == ["QUIET 1", "for nobody in particular"]
