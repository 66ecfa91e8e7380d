"""The strategy: a class with callbacks, driven by a tape. Only the callbacks that a subclass overrides cost anything.

::

    import mdring

    class Printer(mdring.Strategy):
        def on_trade(self, trade: mdring.Trade) -> None:
            print(trade.instrument.canonical_symbol, trade.price_decimal, trade.size_decimal)

    mdring.run(Printer(), "demo", instruments=["BTC-USDT"])

Callbacks come in the order of the tape. ``on_book`` comes after each event group that changed a book, with the book
as of that group (with conflated or sampled delivery: once per delivered batch); a trade's callback sees the books as
they were at the trade.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from mdring.book import Book
from mdring.callbacks import Callbacks, Columns
from mdring.consumer import Batch, Consumer, Patterns, Start, attach
from mdring.delivery import Delivery
from mdring.event import BBO_COLUMNS, STATUS_COLUMNS, TRADE_COLUMNS, Bbo, Event, Status, Trade
from mdring.process import short_turns
from mdring.record import Kind
from mdring.run_folder import RUNS_DIRECTORY
from mdring.selection import BOOK_KINDS


class Strategy:
    """Override what you need. ``tape`` is the consumer that drives it, ``tape.books`` the books it keeps."""

    tape: Consumer

    def on_start(self) -> None:
        """Attached; nothing was delivered yet. With books, they are there already, as of ``tape.position``."""

    def on_trade(self, trade: Trade) -> None:
        """A trade."""

    def on_bbo(self, bbo: Bbo) -> None:
        """A new best bid and ask."""

    def on_book(self, book: Book) -> None:
        """A book has changed, or has become invalid: see ``book.valid``. ``book.instrument_id`` says which."""

    def on_status(self, status: Status) -> None:
        """A venue's or an instrument's state has changed."""

    def on_batch(self, batch: Batch) -> None:
        """Everything that was delivered at once, before the other callbacks; valid during the call only."""

    def on_timer(self, now_ns: int) -> None:
        """Every ``timer_s``; ``now_ns`` is CLOCK_REALTIME."""

    def on_lost(self, lost: int) -> None:
        """This consumer was too slow for ``lost`` records. Kept books have been joined anew already."""

    def on_stop(self) -> None:
        """The run has ended, or SIGINT, SIGTERM or ``stop`` ended the strategy."""

    def stop(self) -> None:
        """Have ``run`` return after the callback that is running."""
        raise StopStrategy


class StopStrategy(Exception):
    """Ends a strategy; raised by ``Strategy.stop`` and by SIGTERM."""


_CALLS: Final[dict[str, tuple[Kind, Columns, type[Event]]]] = {
    "on_trade": (Kind.TRADE, TRADE_COLUMNS, Trade),
    "on_bbo": (Kind.BBO, BBO_COLUMNS, Bbo),
    "on_status": (Kind.STATUS, STATUS_COLUMNS, Status),
}


def run(
    strategy: Strategy,
    run: str | None = None,
    *,
    instruments: Iterable[str] | None = None,
    kinds: Iterable[Kind] | None = None,
    start: Start = "tail",
    books: Patterns | None = None,
    delivery: Delivery = "every",
    interval_s: float = 0.1,
    conflate_trades: bool = False,
    timer_s: float = 1.0,
    idle: str = "block",
    name: str | None = None,
    directory: str | Path = RUNS_DIRECTORY,
    wait_s: float = 0.0,
) -> None:
    """Drive a strategy until the run ends, SIGINT or SIGTERM comes, or it calls ``stop``.

    ``run`` and the other options are those of ``mdring.attach``. ``kinds`` defaults to what the overridden callbacks
    need (all for ``on_batch``), ``books`` to the chosen instruments if ``on_book`` is overridden. ``on_timer`` comes
    every ``timer_s``. An exception of a callback ends the run and names the record in a note; so do RunEnded and what
    ``attach`` raises.
    """
    overridden = _overridden(strategy)
    if books is None and "on_book" in overridden:
        books = True if instruments is None else list(instruments)
    if kinds is None and "on_batch" not in overridden:
        kinds = {_CALLS[callback][0] for callback in overridden & _CALLS.keys()}
        kinds |= BOOK_KINDS if "on_book" in overridden else {Kind.STATUS}
    with attach(
        run, instruments=instruments, kinds=kinds, start=start, books=books, delivery=delivery, interval_s=interval_s,
        conflate_trades=conflate_trades, idle=idle, name=name, directory=directory, wait_s=wait_s,
    ) as tape:  # fmt: skip
        strategy.tape = tape
        _Driver(strategy, tape, overridden, int(timer_s * 1e9), in_order=delivery == "every").drive()


def _overridden(strategy: Strategy) -> frozenset[str]:
    names = [name for name in vars(Strategy) if name.startswith("on_")]
    return frozenset(name for name in names if getattr(type(strategy), name) is not getattr(Strategy, name))


class _Driver:
    """One run of one strategy."""

    def __init__(
        self, strategy: Strategy, tape: Consumer, overridden: frozenset[str], timer_ns: int, *, in_order: bool
    ) -> None:
        self._strategy = strategy
        self._tape = tape
        self._overridden = overridden
        self._timer_ns = timer_ns if "on_timer" in overridden else 0
        # Group by group only if somebody looks: else a batch of deltas is applied in one native pass.
        self._by_group = in_order and "on_book" in overridden
        tape.applies_books = not self._by_group
        self._callbacks = Callbacks(
            tape.instrument,
            {_CALLS[name][0]: (*_CALLS[name][1:], getattr(strategy, name)) for name in overridden & _CALLS.keys()},
            strategy.on_book if self._by_group else None,
        )
        self._calls_events = self._by_group or bool(overridden & _CALLS.keys())
        self._lost = 0
        self._current: object = None  # what a callback has; None: what the last of self._callbacks had

    def drive(self) -> None:
        """Until the run ends or the strategy is stopped."""
        with _stopped_by_signals(), short_turns():
            try:
                self._strategy.on_start()
                self._loop()
            except (StopStrategy, KeyboardInterrupt):
                pass
            except BaseException as error:
                self._note(error)
                raise
            self._strategy.on_stop()

    def _note(self, error: BaseException) -> None:
        """Name the record that the callback was given."""
        what = self._callbacks.current if self._current is None else self._current
        if isinstance(what, Book):
            what = f"in on_book, {self._tape.instrument(what.instrument_id).name} at seq {what.seq}"
        if what is not None:
            error.add_note(f"mdring: the strategy's last record: {what!r}")

    def _loop(self) -> None:
        due_ns = time.monotonic_ns() + self._timer_ns
        while True:
            batch = self._tape.poll()
            if self._tape.lost != self._lost:
                lost, self._lost = self._tape.lost - self._lost, self._tape.lost
                self._strategy.on_lost(lost)
            if len(batch):
                self._deliver(batch)
            elif not self._tape.wait((due_ns - time.monotonic_ns()) / 1e9 if self._timer_ns else None) and (
                self._tape.ended()
            ):
                return
            if self._timer_ns and time.monotonic_ns() >= due_ns:
                due_ns = time.monotonic_ns() + self._timer_ns
                self._strategy.on_timer(time.time_ns())

    def _deliver(self, batch: Batch) -> None:
        if "on_batch" in self._overridden:
            self._current = f"in on_batch, seq {batch['seq'][0]} to {batch['seq'][-1]}"
            self._strategy.on_batch(batch)
            self._current = None
        if self._calls_events:
            self._callbacks.deliver(batch, self._tape.books)
        if "on_book" in self._overridden and not self._by_group:
            self._tell_books(self._tape.changed_books)

    def _tell_books(self, changed: list[int]) -> None:
        books = self._tape.books
        assert books is not None
        for instrument_id in changed:
            self._current = book = books[instrument_id]
            self._strategy.on_book(book)
        self._current = None


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM ends the strategy as SIGINT does; only where Python delivers signals, the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise StopStrategy

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
