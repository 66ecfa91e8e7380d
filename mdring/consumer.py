"""The consumer, process 3, the user's: maps a run's tape read-only and reads it in-process.

A consumer registers nothing and can only load, so it neither slows nor corrupts anything. ::

    import mdring

    with mdring.attach("demo") as tape:
        for batch in tape:  # waits by the idle strategy; ends when the run does
            trades = batch[batch["kind"] == mdring.Kind.TRADE].view(mdring.TRADE)

A batch holds whole event groups, in the order of ``seq`` that all consumers see. What a consumer was too slow
for is counted exactly in ``lost``: ``seq`` then jumps by that much (a filter makes it jump, too, without loss).

With ``books=``, the consumer joins with complete books of the chosen instruments at a stated seq and keeps them
in step with the batches it delivers, through laps, too::

    with mdring.attach("demo", books=["BTC-USDT"]) as tape:
        for batch in tape:
            print(tape.book("BTC-USDT").best_bid)
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mdring import delivery
from mdring.book import Book, BookSet
from mdring.book.late_join import join
from mdring.delivery import DELIVERIES, Delivery
from mdring.instrument import Instrument, InstrumentTable
from mdring.named_consumer import NamedConsumer
from mdring.record import FINGERPRINT, LAYOUT_VERSION, RECORD, Flags, Kind, offset_of
from mdring.ring import segment
from mdring.ring._ring import Reader
from mdring.ring.idle import idle_strategy
from mdring.ring.segment import RunState, SegmentNotFound
from mdring.run_folder import RUNS_DIRECTORY, RunError, RunFolder, RunInfo, RunNotFound, find_run
from mdring.selection import BOOK_KINDS, Selection, UnknownInstrument

Batch = npt.NDArray[np.void]
"""A structured array of RECORD."""

Start = Literal["tail", "oldest"] | int
Patterns = Iterable[str] | bool
"""Names or patterns of instruments; True: all."""

_BATCH_RECORDS: Final = 4096
_CHECK_INTERVAL_NS: Final = 500_000_000  # between two looks at whether the run still lives, while nothing comes
_JOIN_WAIT_S: Final = 5.0  # a keeper that is being restarted has new checkpoints by then
_CURSOR_WORD: Final = 0  # of the tape's writer block
_MAX_POLLS: Final = 64  # of one conflated batch, so that it ends under a writer that never pauses


class RunEnded(RunError):
    """The run was not closed in order: its supervisor died, or another one replaced it. ``reattach`` continues."""


class Statistics(Struct, frozen=True):
    """What one consumer has seen so far."""

    position: int  # last seq delivered, skipped by the filter, or lost
    lag: int  # records on the tape above position
    lost: int  # records that were overwritten before this consumer had them
    laps: int  # how often that happened
    records: int  # delivered
    polls: int  # calls of poll that delivered something


def attach(
    run: str | None = None,
    *,
    instruments: Iterable[str] | None = None,
    kinds: Iterable[Kind] | None = None,
    start: Start = "tail",
    books: Patterns | None = None,
    delivery: Delivery = "every",
    interval_s: float = 0.1,
    conflate_trades: bool = False,
    idle: str = "block",
    name: str | None = None,
    directory: str | Path = RUNS_DIRECTORY,
    wait_s: float = 0.0,
) -> Consumer:
    """Attach to the tape of a run.

    ``run``: its name; may be left out if there is only one. ``instruments``: names or patterns, each
    ``[venue:]name`` where name is the venue's instrument or the canonical symbol and ``*`` is wild; instruments
    that join later are followed. ``kinds``: the wanted kinds. Records of the whole venue (instrument_id 0) pass
    every instrument filter. ``start``: "tail" for what comes from now on, "oldest" for all the tape still has, or
    the seq to begin with. ``books``: instruments whose books to join with and to keep, by names or patterns, or
    True for all; the stream then begins right after the seq at which the books are true, whatever ``start`` says.
    ``delivery``: "every" record; "conflated" to the newest state per poll; "sampled", conflated once in
    ``interval_s``. Trades are never conflated unless ``conflate_trades``. ``idle``: an idle strategy ("spin",
    "yield", "backoff", "block"). ``name``: makes the consumer visible in ``mdring stat``. ``wait_s``: how long to
    wait for the run and for the named instruments to appear.

    Raises RunNotFound, UnknownInstrument, LayoutMismatch, JoinError, ValueError.
    """
    return Consumer(
        find_run(run, Path(directory), wait_s),
        Selection(kinds, instruments),
        start=start,
        books=None if books is None or books is False else Selection(BOOK_KINDS, None if books is True else books),
        delivery=delivery,
        interval_s=interval_s,
        conflate_trades=conflate_trades,
        idle=idle,
        name=name,
        wait_s=wait_s,
    )


class Consumer:
    """A place on the tape of a run; made by ``attach``. Not thread-safe: one consumer per thread.

    ``instruments`` is the run's instrument table; ``books`` are the kept books by instrument id, None without. Set
    ``applies_books`` to False to apply each batch to ``books`` yourself, for example group by group.
    """

    def __init__(
        self,
        folder: RunFolder,
        selection: Selection,
        *,
        start: Start = "tail",
        books: Selection | None = None,
        delivery: Delivery = "every",
        interval_s: float = 0.1,
        conflate_trades: bool = False,
        idle: str = "block",
        name: str | None = None,
        wait_s: float = 0.0,
    ) -> None:
        if delivery not in DELIVERIES:
            raise ValueError(f"delivery is one of {', '.join(DELIVERIES)}, not {delivery!r}")
        self._folder = folder
        self._idle = idle_strategy(idle)
        self._selection = selection
        self._book_selection = books
        # What the native filter lets through: books need records that the user may not have asked for.
        self._needed = selection if books is None else selection.union(books)
        self._delivery = delivery
        self._conflate_trades = conflate_trades
        self._interval_ns = int(interval_s * 1e9) if delivery == "sampled" else 0
        self._due_ns = 0
        self._pending: Batch = np.zeros(0, dtype=RECORD)
        self._batch: Batch = np.zeros(_BATCH_RECORDS, dtype=RECORD)
        self._records = self._polls = self._lost_before = self._laps_before = self._laps_seen = 0
        self.books: BookSet | None = None
        self.applies_books = True
        self._changed: dict[int, None] = {}  # in the order of the changes
        self._delivered = False
        self._named: NamedConsumer | None = None
        self._open(start, wait_s)
        if name is not None:
            self._named = NamedConsumer(folder, name, self._info.run_id)

    def _open(self, start: Start, wait_s: float = 0.0) -> None:
        try:
            self._info = self._folder.read_info()
            self.instruments = InstrumentTable.attach(self._folder.instruments)
            self._segment = segment.attach(
                self._folder.tape, segment.SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT
            )
        except (FileNotFoundError, SegmentNotFound) as error:
            raise RunNotFound(f"run {self._folder.name!r} is going up or down just now: {error}") from error
        for selection in (self._selection, self._book_selection):
            if selection is not None:
                selection.require(self.instruments, wait_s)
        self._read_from(self._join() if self._book_selection is not None else self._position_of(start))

    def _position_of(self, start: Start) -> int:
        cursor = self._segment.cursor
        if start == "tail":
            return cursor
        if start == "oldest":
            return self._reader_at(cursor).oldest()
        if not 1 <= start <= cursor + 1:
            raise ValueError(f"start: seq {start} is not on the tape, which ends at seq {cursor}")
        return start - 1

    def _reader_at(self, position: int) -> Reader:
        return self._segment.reader(flags_offset=offset_of("flags"), last_flag=int(Flags.LAST), position=position)

    def _read_from(self, position: int) -> None:
        self._reader = self._reader_at(position)
        self._laps_seen = 0
        self._refresh_filter(force=True)

    def _refresh_filter(self, *, force: bool = False) -> bool:
        """Judge instruments that joined, if any; the native filter lets those pass that are newer still.

        A row is in the table before the first record of its instrument is on the tape, so whoever finds no new row
        after polling has no such record either.
        """
        joined = self._needed.refresh(self.instruments)
        if not joined and not force:
            return False
        self._selection.refresh(self.instruments)
        if not self._needed.is_everything:
            self._needed.filter(self._reader)
        if self.books is not None and self._book_selection is not None and self._book_selection.patterns is not None:
            for instrument_id in self._book_selection.ids(self.instruments):
                self.books.add(instrument_id)
        return joined

    # ---- books --------------------------------------------------------------------------------------------

    def _join(self) -> int:
        """Have the books by late join, the first time or anew; returns the seq at which they are true."""
        assert self._book_selection is not None
        if self.books is None:
            wanted = None if self._book_selection.patterns is None else self._book_selection.ids(self.instruments)
            joined = join(self._folder, self._segment, wanted, wait_s=_JOIN_WAIT_S)
            self.books = joined.books
        else:
            joined = join(self._folder, self._segment, books=self.books, wait_s=_JOIN_WAIT_S)
        return joined.seq

    @property
    def changed_books(self) -> list[int]:
        """Ids of the kept books that the last batch changed, with what was conflated into it."""
        return list(self._changed)

    def book(self, name: str) -> Book:
        """The kept book of an instrument (``[venue:]name``).

        Raises UnknownInstrument; KeyError if its book is not kept; ValueError if several instruments match.
        """
        rows = self.instruments.select(name)
        if not rows:
            raise UnknownInstrument(f"run {self.name!r} has no instrument {name!r}")
        if len(rows) > 1:
            raise ValueError(f"{name!r} is ambiguous: {', '.join(row.name for row in rows)}")
        if self.books is None:
            raise KeyError("no books are kept: attach(..., books=[...])")
        return self.books[rows[0].id]

    def _heal(self) -> None:
        """After a lap: join anew, and count what lies before the join as lost, too."""
        position = self._reader.position
        seq = self._join()
        self._lost_before += self._reader.lost + seq - position
        self._laps_before += self._reader.laps
        self._read_from(seq)

    # ---- reading ------------------------------------------------------------------------------------------

    def poll(self, max_records: int = _BATCH_RECORDS, *, out: Batch | None = None) -> Batch:
        """What is there now, at most ``max_records`` records in whole event groups; never waits, may be empty.

        The batch is a view of the consumer's own memory (or of ``out``, an array of RECORD) and valid until the next
        poll: ``.copy()`` what you keep. An event group larger than ``max_records`` comes in parts, ``partial`` says so.
        Conflated and sampled batches are arrays of their own, and as long as the newest state needs.
        """
        if self._delivered:
            self._changed = {}
        if out is None:
            if max_records != len(self._batch):
                self._batch = np.zeros(max_records, dtype=RECORD)
            out = self._batch
        batch = self._poll_every(out) if self._delivery == "every" else self._poll_conflated(out)
        self._delivered = len(batch) > 0
        if self._delivered:
            self._records += len(batch)
            self._polls += 1
        if self._named is not None:
            self._named.report(position=self.position, lag=self.lag, lost=self.lost, records=self._records)
        return batch

    def _poll_every(self, out: Batch) -> Batch:
        batch = self._take(out)
        return batch if self._needed is self._selection else _choose(batch, self._selection)

    def _take(self, out: Batch) -> Batch:
        """Poll the tape once; keep filter and books in step."""
        count = self._reader.poll(out)
        if self._reader.laps != self._laps_seen:
            self._laps_seen = self._reader.laps
            if self.books is not None:
                self._heal()
        if count == 0:
            return out[:0]
        batch = out[:count]
        if self._refresh_filter() and not self._needed.is_everything:
            batch = _choose(batch, self._needed)
        if self.books is not None and self.applies_books:
            self.books.apply(batch)
            self._changed.update(dict.fromkeys(self.books.changed))
        return batch

    def _poll_conflated(self, out: Batch) -> Batch:
        """Take all there is; give out its newest state when it is due."""
        taken = [self._pending]
        for _ in range(_MAX_POLLS):
            batch = self._take(out)
            if not len(batch):
                break
            taken.append(batch.copy() if self._needed is self._selection else _choose(batch, self._selection).copy())
        if len(taken) > 1:
            self._pending = delivery.conflate(np.concatenate(taken), trades=self._conflate_trades)
        now = time.monotonic_ns()
        if not len(self._pending) or now < self._due_ns:
            return self._pending[:0]
        self._due_ns = now + self._interval_ns
        newest, self._pending = self._pending, self._pending[:0]
        return newest

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait by the idle strategy until ``poll`` has something to say; False when the time is out or the run closed.

        Raises RunEnded. A signal interrupts it at once.
        """
        deadline = None if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            slice_ns = _CHECK_INTERVAL_NS
            if deadline is not None:
                slice_ns = max(0, min(slice_ns, deadline - time.monotonic_ns()))
            if len(self._pending):
                slice_ns = max(0, min(slice_ns, self._due_ns - time.monotonic_ns()))
            if self._segment.is_over:  # its end may have woken everybody while we were busy
                slice_ns = 0
            if self._reader.wait(self._idle.native, self._idle.spin_ns, slice_ns):
                return True
            if len(self._pending) and time.monotonic_ns() >= self._due_ns:
                return True
            if self.ended():
                # What was published before the end is still to be read.
                return self._reader.wait(self._idle.native, 0, 1) or bool(len(self._pending))
            if deadline is not None and time.monotonic_ns() >= deadline:
                return False

    def __iter__(self) -> Iterator[Batch]:
        """Batches as they come, never empty, until the run is closed. Raises RunEnded."""
        while True:
            batch = self.poll(len(self._batch))
            if len(batch):
                yield batch
            elif not self.wait():
                return

    async def __aiter__(self) -> AsyncIterator[Batch]:
        """The same for asyncio programs: awaits without a busy loop, by a native thread that sleeps on the tape."""
        import asyncio  # slow to import, and most consumers have no use for it

        from mdring.cursor_watch import CursorWatch

        rested, quiet = False, True
        with closing(CursorWatch()) as watch:
            while True:
                # Before the poll: whatever comes after it then ends the wait.
                cursor = self._reader.cursor
                if quiet or cursor != self._reader.position or len(self._pending):
                    batch = self.poll(len(self._batch))
                    if len(batch):
                        yield batch
                    if not rested:
                        await asyncio.sleep(0)  # others have their turn, also while the tape is never empty
                    if len(batch):
                        rested = quiet = False
                        continue
                    if cursor > self._reader.position:
                        rested = False
                        continue
                ended = (quiet or self._segment.is_over) and self.ended()
                if ended and not self._reader.wait(self._idle.native, 0, 1) and not len(self._pending):
                    return
                timeout_ns = _CHECK_INTERVAL_NS
                if len(self._pending):
                    timeout_ns = max(0, min(timeout_ns, self._due_ns - time.monotonic_ns()))
                changed = watch.wait(self._segment.writer_block, _CURSOR_WORD, cursor, timeout_ns / 1e9)
                rested = not changed.done()  # else nobody else has a turn
                await changed
                quiet = self._reader.cursor == cursor

    def ended(self) -> bool:
        """Whether the run was closed in order. Raises RunEnded if it ended otherwise."""
        match self._segment.state:
            case RunState.CLOSED:
                return True
            case RunState.REPLACED:
                raise RunEnded(f"run {self.name!r} was replaced by another one; reattach() follows that one")
            case RunState.OPEN:
                pass
        if self._segment.replaced():
            raise RunEnded(f"run {self.name!r} is gone: its segments were removed; reattach() follows a new one")
        if not self._folder.alive():
            raise RunEnded(
                f"run {self.name!r} ended: its supervisor (pid {self._info.supervisor_pid}) is dead; "
                "start it again, then reattach()"
            )
        return False

    def reattach(self, *, wait_s: float = 0.0) -> None:
        """Follow the run that now has this name, from its tail (with books: from where they are joined).

        Filter, delivery and idle strategy stay. Seqs and instrument ids are the new run's, ``books`` is a new set.
        Raises RunNotFound, UnknownInstrument, after ``wait_s``.
        """
        deadline = time.monotonic() + wait_s
        lost, laps = self.lost, self._reader.laps + self._laps_before
        self.books = None
        self._selection.forget()
        self._needed.forget()
        while True:
            try:
                if not self._folder.alive():
                    raise RunNotFound(f"run {self.name!r} is not up")
                self._open("tail")
            except (RunNotFound, UnknownInstrument):
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)
            else:
                self._lost_before, self._laps_before = lost, laps
                return

    # ---- where it stands ----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The run's name."""
        return self._folder.name

    @property
    def run(self) -> RunInfo:
        """What the run says of itself."""
        return self._info

    @property
    def position(self) -> int:
        """The last seq that was delivered, skipped by the filter, or lost."""
        return self._reader.position

    @property
    def lost(self) -> int:
        """Records lost so far: overwritten before this consumer had them."""
        return self._lost_before + self._reader.lost

    @property
    def lag(self) -> int:
        """Records on the tape that this consumer has not had yet."""
        return max(0, self._reader.cursor - self._reader.position)

    @property
    def partial(self) -> bool:
        """Whether the last batch ended inside an event group larger than it."""
        return self._reader.partial

    def instrument(self, instrument_id: int) -> Instrument:
        """The instrument of a record's ``instrument_id``. Raises KeyError."""
        return self.instruments.by_id(int(instrument_id))

    def venue(self, venue_id: int) -> str:
        """The venue of a record's ``venue_id``, the only name that records of a whole venue have."""
        return next((name for name, number in self._info.venues.items() if number == venue_id), f"venue {venue_id}")

    def statistics(self) -> Statistics:
        """What this consumer has seen so far."""
        return Statistics(
            position=self.position,
            lag=self.lag,
            lost=self.lost,
            laps=self._laps_before + self._reader.laps,
            records=self._records,
            polls=self._polls,
        )

    def close(self) -> None:
        """Let the segments go. Batches that were not copied stay readable."""
        if self._named is not None:
            self._named.close()
        self._segment.close()
        self.instruments.segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _choose(batch: Batch, selection: Selection) -> Batch:
    """What is wanted of a batch; the batch itself if that is all of it."""
    wanted = selection.of(batch)
    return batch if wanted.all() else delivery.select(batch, wanted)
