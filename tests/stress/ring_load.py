"""A ring under load: a writing and a reading process whose records prove themselves.

Every word of a record follows from its seq, its event group and the epoch of its writer. So a reader, who looks at
whole batches with numpy, notices each forbidden outcome: a torn record, one twice, missing, out of order or never
published, half an event group, a wrong count of the lost. It ends with an AssertionError, the process with status 1.
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from mdring.record import RECORD, Flags, Kind, offset_of
from mdring.ring._ring import Reader, Words
from mdring.ring.idle import IDLE_STRATEGIES
from mdring.ring.segment import RunState
from tests.runs import attach_ring, open_reader, open_writer

Records = npt.NDArray[np.void]
Numbers = npt.NDArray[np.uint64]

INSTRUMENTS: Final = 8
MAX_EPOCHS: Final = 2048
_WORDS: Final = RECORD.itemsize // 8
_ODD: Final = np.random.default_rng(7).integers(2**63, 2**64, _WORDS, dtype=np.uint64) | np.uint64(1)
_FILLED: Final = [1, 2, 7, *range(8, _WORDS)]  # ts_event, ts_recv, venue_seq and the second cache line


@dataclass(frozen=True)
class Wanted:
    """What a reader's filter lets through."""

    kinds: frozenset[Kind]
    instruments: frozenset[int]

    def apply(self, reader: Reader) -> None:
        """Have ``reader`` deliver nothing else."""
        chosen = np.zeros(INSTRUMENTS, dtype=np.uint8)
        chosen[list(self.instruments)] = 1
        bits = sum(1 << kind for kind in self.kinds)
        reader.set_filter(bits, chosen, kind_offset=offset_of("kind"), instrument_offset=offset_of("instrument_id"))

    def among(self, seqs: Numbers) -> Numbers:
        """Those of ``seqs`` whose records it lets through."""
        kinds = np.isin(kinds_of(seqs), [int(kind) for kind in self.kinds])
        return seqs[kinds & np.isin(instruments_of(seqs), list(self.instruments))]


@dataclass(frozen=True)
class ReaderPlan:
    """How one of the reading processes reads."""

    idle: str = "block"
    room: int = 512
    wanted: Wanted | None = None


class Scoreboard:
    """Words that the processes of one test share (they are forked): positions, results, and where epochs begin."""

    _FIELDS = 8  # per reader: position, then the counts of its result
    _COUNTS = ("received", "lost", "laps", "parts")

    def __init__(self, readers: int) -> None:
        self.readers = readers
        self._epochs = self._FIELDS * readers
        count = self._epochs + MAX_EPOCHS
        self._words = Words(mmap.mmap(-1, 8 * count), 0, count)

    def position(self, reader: int) -> int:
        """What reader number ``reader`` has read."""
        return self._words.load(self._FIELDS * reader)

    def slowest_position(self) -> int:
        """What all readers have read."""
        return min(self.position(reader) for reader in range(self.readers))

    def store_position(self, reader: int, position: int) -> None:
        """Let the writer know that the slots up to ``position`` are free."""
        self._words.store(self._FIELDS * reader, position)

    def store_result(self, reader: int, **counts: int) -> None:
        """What a reader counted in the end."""
        for place, name in enumerate(self._COUNTS, 1):
            self._words.store(self._FIELDS * reader + place, counts[name])

    def result(self, reader: int) -> dict[str, int]:
        """The counts of one reader."""
        return {name: self._words.load(self._FIELDS * reader + place) for place, name in enumerate(self._COUNTS, 1)}

    def begin_epoch(self, epoch: int, first_seq: int) -> None:
        """A writer opened the ring and goes on with ``first_seq``."""
        self._words.store(self._epochs + epoch, first_seq)

    def begin_of(self, epoch: int) -> int:
        """The first seq of an epoch (they count from 1); 0 if it has not begun."""
        return self._words.load(self._epochs + epoch)


def kinds_of(seqs: Numbers) -> Numbers:
    """The kind of each record, 1..5."""
    return (seqs * _ODD[0] >> np.uint64(40)) % np.uint64(5) + np.uint64(1)


def instruments_of(seqs: Numbers) -> Numbers:
    """The instrument id of each record."""
    return (seqs * _ODD[3] >> np.uint64(45)) % np.uint64(INSTRUMENTS)


def fill(batch: Records, first_seq: int, epoch: int, group_ends: npt.NDArray[np.bool_]) -> None:
    """Make the records from ``first_seq`` on; a record whose ``group_ends`` is true is the last of its group."""
    count = len(batch)
    seqs = np.arange(first_seq, first_seq + count, dtype=np.uint64)
    ends = np.flatnonzero(group_ends)
    sizes = np.diff(ends, prepend=-1)
    words = batch.view(np.uint64).reshape(count, _WORDS)
    words[:, _FILLED] = seqs[:, None] * _ODD[_FILLED] + np.uint64(epoch)
    batch["kind"] = kinds_of(seqs)
    batch["instrument_id"] = instruments_of(seqs)
    batch["flags"] = np.where(group_ends, Flags.LAST, Flags.NONE)
    batch["side"] = batch["venue_id"] = epoch % 251
    batch["price"] = np.repeat(first_seq + ends - sizes + 1, sizes)  # the group's first seq
    batch["size"] = np.repeat(sizes, sizes)
    batch["channel_seq"] = epoch


@dataclass
class Checker:
    """One reader's view, poll by poll; raises AssertionError on the first forbidden outcome."""

    wanted: Wanted | None
    received: int = 0
    skipped: int = 0
    lost: int = 0
    parts: int = 0
    _inside_group: bool = False
    _spans: dict[int, tuple[int, int]] = field(default_factory=dict)  # epoch: first and last seq delivered

    def check(self, batch: Records, before: int, after: int, lost: int, partial: bool) -> None:
        """One poll moved the position from ``before`` to ``after`` and delivered ``batch``."""
        passed = np.arange(before + 1, after - lost + 1, dtype=np.uint64)
        due = passed if self.wanted is None else self.wanted.among(passed)
        assert np.array_equal(batch["seq"], due), f"seqs {batch['seq']} where {due} were due"
        assert not (lost and len(batch)), "a poll that both delivers and loses"
        if len(batch):
            self._check_content(batch)
            self._check_groups(batch, before, after, partial)
            self._note_epochs(batch)
        self._inside_group = partial or (self._inside_group and after == before)
        self.received += len(batch)
        self.skipped += len(passed) - len(due)
        self.lost += lost
        self.parts += partial

    @staticmethod
    def _check_content(batch: Records) -> None:
        seqs, epochs = batch["seq"], batch["channel_seq"]
        words = batch.view(np.uint64).reshape(len(batch), _WORDS)
        assert np.array_equal(words[:, _FILLED], seqs[:, None] * _ODD[_FILLED] + epochs[:, None]), "torn"
        assert np.array_equal(batch["kind"], kinds_of(seqs)), "torn"
        assert np.array_equal(batch["instrument_id"], instruments_of(seqs)), "torn"
        assert np.array_equal(batch["side"], epochs % 251), "torn"
        assert np.array_equal(batch["venue_id"], epochs % 251), "torn"

    def _check_groups(self, batch: Records, before: int, after: int, partial: bool) -> None:
        firsts, sizes, seqs = batch["price"], batch["size"], batch["seq"].astype(np.int64)
        assert ((firsts <= seqs) & (seqs < firsts + sizes)).all(), "torn"
        begins_group = firsts[0] > before
        assert begins_group or self._inside_group, f"a group that began at {firsts[0]} in a poll from {before + 1}"
        last_of_group = np.append(firsts[1:] != firsts[:-1], not partial)
        assert np.array_equal((batch["flags"] & Flags.LAST) != 0, last_of_group), "LAST amid a group, or missing"
        assert partial or after + 1 >= firsts[-1] + sizes[-1], "half a group"

    def _note_epochs(self, batch: Records) -> None:
        epochs = batch["channel_seq"]
        assert (epochs[1:] >= epochs[:-1]).all(), "a record of a dead writer after one of its successor"
        for epoch in np.unique(epochs).tolist():
            seqs = batch["seq"][epochs == epoch]
            first, _ = self._spans.get(epoch, (int(seqs[0]), 0))
            self._spans[epoch] = first, int(seqs[-1])

    def finish(self, published: int, scoreboard: Scoreboard) -> None:
        """All is read: the account must be exact, and each record of the epoch that published it."""
        assert self.received + self.skipped + self.lost == published
        for epoch, (first, last) in self._spans.items():
            following = scoreboard.begin_of(epoch + 1) or published + 1
            assert scoreboard.begin_of(epoch) <= first <= last < following, f"a ghost of epoch {epoch}"


def _group_ends(random: np.random.Generator, count: int) -> npt.NDArray[np.bool_]:
    ends = random.random(count) < random.choice([0.02, 0.3, 1.0])
    ends[-1] = True
    return ends


def publish_until(
    path: Path, last_seq: int | None, scoreboard: Scoreboard, *, lossless: bool, max_batch: int, pause: float = 0.01
) -> None:
    """The writing process: goes on where the ring stands, up to ``last_seq`` (None: until it is killed).

    ``lossless``: never overwrites what a reader has not read. ``pause``: share of batches after which it sleeps.
    """
    mapped = attach_ring(path, writable=True)
    writer = open_writer(mapped)
    epoch = mapped.epoch
    scoreboard.begin_epoch(epoch, writer.cursor + 1)
    random = np.random.default_rng(epoch)
    space = np.zeros(max_batch, dtype=RECORD)
    while last_seq is None or writer.cursor < last_seq:
        room = max_batch if last_seq is None else min(max_batch, last_seq - writer.cursor)
        count = int(random.integers(1, room + 1))
        fill(space[:count], writer.cursor + 1, epoch, _group_ends(random, count))
        if lossless:
            while not writer.try_publish(space, count, scoreboard.slowest_position()):
                time.sleep(0.00005)
        else:
            writer.publish(space, count)
        writer.wake()
        if random.random() < pause:
            time.sleep(0.001)


def read_until_closed(path: Path, number: int, plan: ReaderPlan, scoreboard: Scoreboard) -> None:
    """A reading process: from the first record to the last one of a closed ring."""
    mapped = attach_ring(path)
    reader = open_reader(mapped)
    if plan.wanted is not None:
        plan.wanted.apply(reader)
    idle = IDLE_STRATEGIES[plan.idle]
    out = np.zeros(plan.room, dtype=RECORD)
    checker = Checker(plan.wanted)
    while True:
        before, lost = reader.position, reader.lost
        taken = reader.poll(out)
        checker.check(out[:taken], before, reader.position, reader.lost - lost, reader.partial)
        scoreboard.store_position(number, reader.position)
        if reader.position == before:
            if mapped.state is RunState.CLOSED and before == mapped.cursor:
                break
            reader.wait(idle.native, idle.spin_ns, 20_000_000)
    checker.finish(mapped.cursor, scoreboard)
    scoreboard.store_result(number, received=checker.received, lost=checker.lost, laps=reader.laps, parts=checker.parts)
