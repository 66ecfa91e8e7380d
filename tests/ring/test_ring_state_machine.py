"""The ring against a reference in plain Python: any order of publishing, polling, lapping, dying and resuming."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mdring.ring._ring import Reader
from tests.ring.small_ring import LAST, RECORD, SmallRing, set_filter

KINDS, INSTRUMENTS = 3, 4


class Record(NamedTuple):
    """What the reference knows of a record."""

    kind: int
    instrument: int
    last: bool
    value: int


@dataclass
class Filter:
    """Which records a reader wants."""

    kinds: int = 2**64 - 1
    instruments: list[int] | None = None

    def wants(self, record: Record) -> bool:
        if not self.kinds >> record.kind & 1:
            return False
        beyond = self.instruments is None or record.instrument >= len(self.instruments)
        return beyond or bool(self.instruments and self.instruments[record.instrument])


@dataclass
class ReferenceReader:
    """A reader as it should behave, beside the real one."""

    real: Reader
    position: int
    filter: Filter = field(default_factory=Filter)
    lost: int = 0
    laps: int = 0


class Expected(NamedTuple):
    """What a poll must do."""

    delivered: list[int]
    ends: set[int]  # those that carry LAST
    position: int
    lost: int
    partial: bool


class ReferenceRing:
    """What was published, and which seq stands in which slot (0: none)."""

    def __init__(self, slot_count: int) -> None:
        self.slot_count = slot_count
        self.slots = [0] * slot_count
        self.published: list[Record] = []
        self.cursor = 0  # behind ``published`` while the writer is dead that did not come to store it

    def record(self, seq: int) -> Record:
        return self.published[seq - 1]

    def stands(self, seq: int) -> bool:
        return self.slots[seq % self.slot_count] == seq

    def publish(self, records: list[Record]) -> None:
        for record in records:
            self.published.append(record)
            self.slots[len(self.published) % self.slot_count] = len(self.published)

    def resume(self) -> None:
        self.cursor = len(self.published)
        self.slots = [seq if seq <= self.cursor else 0 for seq in self.slots]

    def resume_point(self, at_least: int) -> int:
        """The seq at which a lapped reader goes on: the begin of a group, an eighth above the oldest record."""
        kept = self.slot_count - self.slot_count // 8
        seq = max(at_least, self.cursor - kept + 1)
        while 1 < seq <= self.cursor and not (self.stands(seq - 1) and self.record(seq - 1).last):
            seq += 1
        return seq

    def poll(self, position: int, filter_: Filter, room: int) -> Expected:
        due, delivered, ends, group = position + 1, list[int](), set[int](), list[int]()
        after_groups = position
        while self.stands(due) and due <= len(self.published):
            if filter_.wants(self.record(due)):
                if len(delivered) + len(group) == room:
                    break
                group.append(due)
            if self.record(due).last:
                delivered += group
                ends.update(group[-1:])
                group, after_groups = [], due
                if len(delivered) == room:
                    break
            due += 1
        else:
            overwritten = due <= self.cursor
            if overwritten and not delivered:
                resume = self.resume_point(due + 1)
                return Expected([], set(), resume - 1, resume - 1 - after_groups, False)
            return Expected(delivered, ends, after_groups, 0, False)
        if not delivered and group:
            return Expected(group, set(), due - 1, 0, True)
        return Expected(delivered, ends, after_groups, 0, False)


record_shapes = st.tuples(st.integers(0, KINDS - 1), st.integers(0, INSTRUMENTS - 1), st.booleans())
batches = st.lists(record_shapes, min_size=1, max_size=8)
filters = st.builds(Filter, st.integers(0, 2**KINDS - 1), st.none() | st.lists(st.integers(0, 1), max_size=INSTRUMENTS))


class RingMachine(RuleBasedStateMachine):
    """The real ring and the reference, step by step."""

    @initialize(slot_count=st.sampled_from([8, 16]))
    def create(self, slot_count: int) -> None:
        self.ring = SmallRing(slot_count)
        self.writer = self.ring.writer()
        self.reference = ReferenceRing(slot_count)
        self.alive = True
        self.values = 0
        self.readers: list[ReferenceReader] = []
        self.add_reader(from_oldest=False)

    def records_of(self, batch: list[tuple[int, int, bool]]) -> list[Record]:
        batch = batch[: self.ring.slot_count // 2]
        records = []
        for index, (kind, instrument, last) in enumerate(batch):
            self.values += 1
            records.append(Record(kind, instrument, last or index + 1 == len(batch), self.values))
        return records

    @staticmethod
    def array_of(records: list[Record]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        made = np.zeros(len(records), dtype=RECORD)
        for row, record in zip(made, records, strict=True):
            row["value"], row["check"] = record.value, record.value
            row["kind"], row["instrument"], row["flags"] = record.kind, record.instrument, LAST * record.last
        return made

    @precondition(lambda self: self.alive)
    @rule(batch=batches)
    def publish(self, batch: list[tuple[int, int, bool]]) -> None:
        records = self.records_of(batch)
        self.reference.publish(records)
        self.reference.cursor += len(records)
        assert self.writer.publish(self.array_of(records)) == self.reference.cursor

    @precondition(lambda self: self.alive)
    @rule(batch=batches, reader=st.integers(0, 9))
    def publish_unless_full(self, batch: list[tuple[int, int, bool]], reader: int) -> None:
        records = self.records_of(batch)
        position = self.readers[reader % len(self.readers)].position
        fits = self.reference.cursor + len(records) - position <= self.ring.slot_count
        result = self.writer.try_publish(self.array_of(records), len(records), position)
        if fits:
            self.reference.publish(records)
            self.reference.cursor += len(records)
        assert result == (self.reference.cursor if fits else 0)

    @precondition(lambda self: self.alive)
    @rule(batch=batches, written=st.integers(0, 8))
    def die_before_the_batch_shows(self, batch: list[tuple[int, int, bool]], written: int) -> None:
        """The later records stand in their slots, the first one is half written."""
        records = self.array_of(self.records_of(batch))
        first = self.reference.cursor + 1
        for index in range(1, min(written, len(records) - 1) + 1):
            records[index]["seq"] = first + index
            self.put(first + index, records[index])
            self.reference.slots[(first + index) % self.ring.slot_count] = first + index
        if written >= len(records):
            self.put(first, records[0])
            self.reference.slots[first % self.ring.slot_count] = 0
        self.alive = False

    @precondition(lambda self: self.alive)
    @rule(batch=batches)
    def die_before_the_cursor_is_stored(self, batch: list[tuple[int, int, bool]]) -> None:
        records = self.records_of(batch)
        self.writer.publish(self.array_of(records))
        self.ring.cursor_word.store(0, self.reference.cursor)
        self.reference.publish(records)
        self.alive = False

    def put(self, seq: int, record: np.void) -> None:
        self.ring.slots[seq % self.ring.slot_count] = record

    @rule()
    def restart(self) -> None:
        self.writer = self.ring.writer()
        self.reference.resume()
        self.alive = True
        assert self.writer.cursor == self.reference.cursor

    @precondition(lambda self: len(self.readers) < 4)
    @rule(from_oldest=st.booleans())
    def add_reader(self, from_oldest: bool) -> None:
        position = self.reference.cursor
        real = self.ring.reader(position)
        if from_oldest:
            position = real.oldest()
            assert position == self.reference.resume_point(1) - 1
            real = self.ring.reader(position)
        self.readers.append(ReferenceReader(real, position))

    @rule(reader=st.integers(0, 9), chosen=filters)
    def set_filter(self, reader: int, chosen: Filter) -> None:
        changed = self.readers[reader % len(self.readers)]
        if changed.real.partial:
            return  # a group that was begun under one filter has no defined end under another
        changed.filter = chosen
        set_filter(changed.real, chosen.kinds, chosen.instruments)

    @rule(reader=st.integers(0, 9), room=st.integers(0, 17))
    def poll(self, reader: int, room: int) -> None:
        polled = self.readers[reader % len(self.readers)]
        expected = self.reference.poll(polled.position, polled.filter, room)
        out = np.zeros(room, dtype=RECORD)
        taken = polled.real.poll(out)
        assert out["seq"][:taken].tolist() == expected.delivered
        for row in out[:taken]:
            record = self.reference.record(int(row["seq"]))
            assert (row["value"], row["check"]) == (record.value, record.value)
            assert (row["kind"], row["instrument"]) == (record.kind, record.instrument)
            assert bool(row["flags"] & LAST) == (int(row["seq"]) in expected.ends)
        assert polled.real.partial == expected.partial
        polled.position = expected.position
        polled.lost += expected.lost
        polled.laps += expected.lost > 0

    @invariant()
    def counts_agree(self) -> None:
        for reader in self.readers:
            real = reader.real
            assert (real.position, real.lost, real.laps) == (reader.position, reader.lost, reader.laps)
            assert real.cursor == self.reference.cursor

    @invariant()
    def slots_agree(self) -> None:
        if self.readers:
            assert self.ring.slots["seq"].tolist() == self.reference.slots


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
