"""The consumer, process 3, the user's: maps a run's tape read-only and reads it in-process.

A consumer registers nothing and can only load, so it neither slows nor corrupts anything. ::

    import mdring

    with mdring.attach("demo") as tape:
        for batch in tape:  # waits by the idle strategy; ends when the run does
            trades = batch[batch["kind"] == mdring.Kind.TRADE].view(mdring.TRADE)

A batch holds whole event groups, in the order of ``seq`` that all consumers see. What a consumer was too slow
for is counted exactly in ``lost``: ``seq`` then jumps by that much (a filter makes it jump, too, without loss).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mdring.instrument import Instrument, InstrumentTable
from mdring.record import FINGERPRINT, LAYOUT_VERSION, RECORD, Flags, Kind, offset_of
from mdring.ring import segment
from mdring.ring.idle import IdleStrategy, idle_strategy
from mdring.ring.segment import LayoutMismatch, RunState, SegmentError, SegmentNotFound
from mdring.run import RUNS_DIRECTORY, RunFolder, RunInfo, list_runs

Batch = npt.NDArray[np.void]
"""A structured array of RECORD."""

_BATCH_RECORDS: Final = 4096
_CHECK_INTERVAL_NS: Final = 500_000_000  # between two looks at whether the run still lives, while nothing comes
_ALL_KINDS: Final = (1 << 64) - 1


class RunError(Exception):
    """A run cannot be read; the message says which, why, and what to do."""


class RunNotFound(RunError):
    """There is no such run, or none at all, or more than one and no name was given."""


class RunEnded(RunError):
    """The run was not closed in order: its supervisor died, or another one replaced it. ``reattach`` continues."""


class UnknownInstrument(RunError):
    """No instrument of the run has such a name."""


class Statistics(Struct, frozen=True):
    """What one consumer has seen so far."""

    position: int  # last seq delivered, skipped by the filter, or lost
    lag: int  # records on the tape above position
    lost: int  # records that were overwritten before this consumer had them
    laps: int  # how often that happened
    records: int  # delivered
    polls: int  # calls of poll that delivered something


def attach(
    name: str | None = None,
    *,
    instruments: Iterable[str] | None = None,
    kinds: Iterable[Kind] | None = None,
    start: Literal["tail", "oldest"] | int = "tail",
    idle: str = "block",
    directory: str | Path = RUNS_DIRECTORY,
    wait_s: float = 0.0,
) -> Consumer:
    """Attach to the tape of a run.

    ``name``: the run; may be left out if there is only one. ``instruments``: names or patterns, each
    ``[venue:]name`` where name is the venue's instrument or the canonical symbol and ``*`` is wild; instruments
    that join later are followed. ``kinds``: the wanted kinds. Records of the whole venue (instrument_id 0) pass
    every instrument filter. ``start``: "tail" for what comes from now on, "oldest" for all the tape still has, or
    the seq to begin with. ``idle``: an idle strategy ("spin", "yield", "backoff", "block"). ``wait_s``: how long to
    wait for the run and for the named instruments to appear.

    Raises RunNotFound, UnknownInstrument, LayoutMismatch, ValueError.
    """
    folder = _find_run(name, Path(directory), wait_s)
    consumer = Consumer(folder, kinds=kinds, start=start, idle=idle_strategy(idle))
    if instruments is not None:
        consumer.select(instruments, wait_s=wait_s)
    return consumer


def _find_run(name: str | None, directory: Path, wait_s: float) -> RunFolder:
    deadline = time.monotonic() + wait_s
    while True:
        runs = [run for run in list_runs(directory) if name is None or run.name == name]
        if len(runs) > 1:
            runs = [run for run in runs if run.alive()] or runs
        if len(runs) == 1:
            return runs[0]
        if runs:
            raise RunNotFound(f"several runs are up: {', '.join(run.name for run in runs)}; name the one you want")
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    others = ", ".join(run.name for run in list_runs(directory)) or "none"
    what = "no run is up" if name is None else f"no run {name!r} is up (up: {others})"
    raise RunNotFound(f"{what} in {directory}; start one, for example with: bin/supervisor --demo")


class Consumer:
    """A place on the tape of a run; made by ``attach``. Not thread-safe: one consumer per thread."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        kinds: Iterable[Kind] | None = None,
        start: Literal["tail", "oldest"] | int = "tail",
        idle: IdleStrategy,
    ) -> None:
        self._folder = folder
        self._idle = idle
        self._kinds = None if kinds is None else frozenset(Kind(kind) for kind in kinds)
        self._patterns: tuple[str, ...] | None = None
        self._batch: Batch = np.zeros(_BATCH_RECORDS, dtype=RECORD)
        self._records = self._polls = self._lost_before = self._laps_before = 0
        self._open(start)

    def _open(self, start: Literal["tail", "oldest"] | int) -> None:
        try:
            self._info = self._folder.read_info()
            self.instruments = InstrumentTable.attach(self._folder.instruments)
            self._segment = segment.attach(
                self._folder.tape, segment.SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT
            )
        except (FileNotFoundError, SegmentNotFound) as error:
            raise RunNotFound(f"run {self._folder.name!r} is going up or down just now: {error}") from error
        self._reader = self._segment.reader(
            flags_offset=offset_of("flags"), last_flag=int(Flags.LAST), position=self._position_of(start)
        )
        if start == "oldest":
            self._reader = self._segment.reader(
                flags_offset=offset_of("flags"), last_flag=int(Flags.LAST), position=self._reader.oldest()
            )
        self._wanted: npt.NDArray[np.uint8] | None = None
        self._apply_filter()

    def _position_of(self, start: Literal["tail", "oldest"] | int) -> int:
        cursor = self._segment.cursor
        if start == "tail" or start == "oldest":
            return cursor
        if not 1 <= start <= cursor + 1:
            raise ValueError(f"start: seq {start} is not on the tape, which ends at seq {cursor}")
        return start - 1

    # ---- what is wanted -----------------------------------------------------------------------------------

    def select(self, instruments: Iterable[str], *, wait_s: float = 0.0) -> None:
        """Deliver only these instruments from now on: names or patterns as for ``attach``.

        Raises UnknownInstrument for a name without ``*`` that no instrument has, after ``wait_s``.
        """
        patterns = (instruments,) if isinstance(instruments, str) else tuple(instruments)
        deadline = time.monotonic() + wait_s
        while missing := [p for p in patterns if "*" not in p and not self.instruments.select(p)]:
            if time.monotonic() >= deadline:
                known = ", ".join(sorted({row.canonical_symbol for row in self.instruments})) or "none yet"
                raise UnknownInstrument(
                    f"run {self.name!r} has no instrument {missing[0]!r}; it has: {known}. "
                    "wait_s= waits for one that is still to come"
                )
            time.sleep(0.02)
        self._patterns = patterns
        self._apply_filter()

    def _apply_filter(self) -> None:
        """Give the native filter the wanted instruments among those known now; it lets newer ones pass."""
        if self._patterns is None and self._kinds is None:
            return
        self._wanted = None
        if self._patterns is not None:
            self._wanted = np.zeros(len(self.instruments) + 1, dtype=np.uint8)
            self._wanted[0] = 1
            for pattern in self._patterns:
                for row in self.instruments.select(pattern):
                    if row.id < len(self._wanted):
                        self._wanted[row.id] = 1
        kinds = _ALL_KINDS if self._kinds is None else sum(1 << kind for kind in self._kinds)
        self._reader.set_filter(
            kinds, self._wanted, kind_offset=offset_of("kind"), instrument_offset=offset_of("instrument_id")
        )

    def _judge_newcomers(self, batch: Batch) -> Batch:
        """Drop unwanted records of instruments that joined since the filter was made.

        A row is in the table before the first record of its instrument is on the tape, so whoever finds no new row
        after polling has no such record either.
        """
        if self._wanted is None or len(self.instruments) < len(self._wanted):
            return batch
        self._apply_filter()
        assert self._wanted is not None
        wanted: Batch = batch[self._wanted[batch["instrument_id"]] != 0]
        return wanted

    # ---- reading ------------------------------------------------------------------------------------------

    def poll(self, max_records: int = _BATCH_RECORDS, *, out: Batch | None = None) -> Batch:
        """What is there now, at most ``max_records`` records in whole event groups; never waits, may be empty.

        The batch is a view of the consumer's own memory (or of ``out``, an array of RECORD) and valid until the next
        poll: ``.copy()`` what you keep. An event group larger than ``max_records`` comes in parts, ``partial`` says so.
        """
        if out is None:
            if max_records != len(self._batch):
                self._batch = np.zeros(max_records, dtype=RECORD)
            out = self._batch
        count = self._reader.poll(out)
        if count == 0:
            return out[:0]
        self._records += count
        self._polls += 1
        return self._judge_newcomers(out[:count])

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait by the idle strategy until ``poll`` has something to say; False when the time is out or the run closed.

        Raises RunEnded. A signal interrupts it at once.
        """
        deadline = None if timeout_s is None else time.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            slice_ns = _CHECK_INTERVAL_NS
            if deadline is not None:
                slice_ns = max(0, min(slice_ns, deadline - time.monotonic_ns()))
            if self._reader.wait(self._idle.native, self._idle.spin_ns, slice_ns):
                return True
            if self.ended():
                # What was published before the end is still to be read.
                return self._reader.wait(self._idle.native, 0, 1)
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
        """Follow the run that now has this name, from its tail; filter and idle strategy stay.

        Its seqs and instrument ids are new. Raises RunNotFound, after ``wait_s``.
        """
        deadline = time.monotonic() + wait_s
        lost, laps = self.lost, self._reader.laps + self._laps_before
        while True:
            try:
                if not self._folder.alive():
                    raise RunNotFound(f"run {self.name!r} is not up")
                self._open("tail")
            except RunNotFound:
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
        self._segment.close()
        self.instruments.segment.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


__all__ = [
    "Batch",
    "Consumer",
    "LayoutMismatch",
    "RunEnded",
    "RunError",
    "RunNotFound",
    "SegmentError",
    "Statistics",
    "UnknownInstrument",
    "attach",
]
