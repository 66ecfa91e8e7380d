"""A model of the ring: every interleaving, word by word, of one writer that laps one reader.

The programs below mirror ``ring.h`` function by function; each ``yield`` is one access to a shared word. The
explorer runs writer and reader against each other in every possible order, kills the writer between any two
of its accesses and lets a successor resume, and looks at the result of every poll. Outcomes are listed as in
jcstress: each scenario names the ones that it must show and may show; all others are forbidden.

The model is sequentially consistent: it proves the protocol, not its memory orders. For those see
``test_ring_harness.py`` (ThreadSanitizer, aarch64) and ``test_ring_stress.py`` (processes).
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import pytest

WORDS = 3  # of a slot: seq, and the content twice, so that a mixed copy shows


class Outcome(Enum):
    """What a poll may turn out to be."""

    GROUPS = "whole groups, intact, in order, none missing between two of them"
    PART = "a part of a group that is larger than the reader's array, and said to be one"
    NOTHING = "nothing new"
    LAPPED = "records lost, and as many said to be lost"
    CAUGHT_UP = "after the writer's end, the reader has come to its last record"

    TORN = "a record mixed from two"
    GHOST = "a record that was never published"
    OUT_OF_ORDER = "a record twice, too early, or silently missing"
    HALF_GROUP = "a group without its end, or an end that is not one"
    MISCOUNTED = "more or fewer records said to be lost than are missing"
    FALSE_LAP = "a lap reported though the record still stood there"
    STUCK = "after the writer's end, the reader does not come to its last record"


ALLOWED = {Outcome.GROUPS, Outcome.PART, Outcome.NOTHING, Outcome.LAPPED, Outcome.CAUGHT_UP}
FORBIDDEN = set(Outcome) - ALLOWED


class Load(NamedTuple):
    address: int


class Store(NamedTuple):
    address: int
    value: int
    publishes: tuple[int, ...] = ()  # contents that this store makes visible


class Done(NamedTuple):
    result: Any


class Delivered(NamedTuple):
    """One record in the reader's array."""

    seq: int
    first: int  # content as copied from the two content words
    second: int
    last: bool


class Poll(NamedTuple):
    """What one poll returned."""

    next: int
    lost: int
    records: tuple[Delivered, ...]
    lapped_at: int | None
    partial: bool


class Shape(NamedTuple):
    """What matters of a record besides its place."""

    last: bool
    wanted: bool = True


END, MID = Shape(last=True), Shape(last=False)
UNWANTED_END, UNWANTED_MID = Shape(last=True, wanted=False), Shape(last=False, wanted=False)

Batch = tuple[Shape, ...]
Program = Generator[Load | Store, int, Any]


def content_of(generation: int, seq: int, shape: Shape) -> int:
    return ((generation * 64 + seq) * 2 + shape.wanted) * 2 + shape.last


def is_last(content: int) -> bool:
    return bool(content & 1)


def is_wanted(content: int) -> bool:
    return bool(content & 2)


@dataclass(frozen=True)
class Ring:
    """The ring's parameters, and the steps of the protocol that a negative control leaves out."""

    slot_count: int
    room: int = 4
    filtered: bool = False
    invalidate: bool = True
    validate: bool = True
    erase: bool = True
    second_look: bool = True
    end_at_group: bool = True

    @property
    def cursor(self) -> int:
        return self.slot_count * WORDS

    def slot(self, seq: int) -> int:
        return (seq & (self.slot_count - 1)) * WORDS

    # ---- writer ----

    def write_hidden(self, seq: int, content: int) -> Program:
        if self.invalidate:
            yield Store(self.slot(seq), 0)
        for word in range(1, WORDS):
            yield Store(self.slot(seq) + word, content)

    def publish(self, cursor: int, contents: tuple[int, ...]) -> Program:
        first = cursor + 1
        for index in range(1, len(contents)):
            yield from self.write_hidden(first + index, contents[index])
            yield Store(self.slot(first + index), first + index)
        yield from self.write_hidden(first, contents[0])
        yield Store(self.slot(first), first, publishes=contents)
        yield Store(self.cursor, cursor + len(contents))
        return cursor + len(contents)

    def resume(self) -> Program:
        cursor = yield Load(self.cursor)
        for _ in range(self.slot_count):
            if (yield Load(self.slot(cursor + 1))) != cursor + 1:
                break
            cursor += 1
        if self.erase:
            for slot in range(0, self.slot_count * WORDS, WORDS):
                if (yield Load(slot)) > cursor:
                    yield Store(slot, 0)
        yield Store(self.cursor, cursor)
        return cursor

    # ---- reader ----

    def presence(self, seq: int) -> Program:
        found = yield Load(self.slot(seq))
        if found == seq:
            return "present"
        if found != 0 and found < seq:
            return "not yet"
        if (yield Load(self.cursor)) < seq:
            return "not yet"
        if not self.second_look:
            return "lapped"
        return "present" if (yield Load(self.slot(seq))) == seq else "lapped"

    def is_whole(self, seq: int) -> Program:
        return (yield Load(self.slot(seq))) == seq if self.validate else True

    def resume_point(self, at_least: int) -> Program:
        before = at_least - 1
        while True:
            cursor = yield Load(self.cursor)
            kept = self.slot_count - self.slot_count // 8
            if cursor > kept and cursor - kept > before:
                before = cursor - kept
            if before == 0 or before >= cursor:
                return before + 1
            if (yield from self.presence(before)) == "present":
                flags = yield Load(self.slot(before) + 1)
                if (yield from self.is_whole(before)) and is_last(flags):
                    return before + 1
            before += 1

    def poll(self, start: int) -> Program:
        seq = group_next = start
        taken: list[Delivered] = []
        group_taken, looked = 0, 0
        lapped_at: int | None = None
        while looked < self.slot_count or (self.end_at_group and seq != group_next):
            looked += 1
            presence = yield from self.presence(seq)
            if presence != "present":
                lapped_at = seq if presence == "lapped" else None
                break
            flags = yield Load(self.slot(seq) + 1)
            wanted = not self.filtered or is_wanted((yield Load(self.slot(seq) + 1)))
            if wanted and len(taken) < self.room:
                first = yield Load(self.slot(seq) + 1)
                second = yield Load(self.slot(seq) + 2)
            if not (yield from self.is_whole(seq)):
                lapped_at = seq
                break
            if wanted and len(taken) == self.room:
                break
            if wanted:
                taken.append(Delivered(seq, first, second, is_last(first)))
            seq += 1
            if is_last(flags):
                if len(taken) > group_taken:
                    taken[-1] = taken[-1]._replace(last=True)
                group_next, group_taken = seq, len(taken)
                if len(taken) == self.room:
                    break
        if len(taken) == self.room and group_taken == 0 and lapped_at is None:
            return Poll(seq, 0, tuple(taken), None, True)
        if lapped_at is not None and group_taken == 0:
            resume = yield from self.resume_point(seq + 1)
            return Poll(resume, resume - group_next, (), lapped_at, False)
        return Poll(group_next, 0, tuple(taken[:group_taken]), None, False)


class Threads:
    """Programs as automata: a node is a suspended program, its action the access that comes next.

    Two suspended programs are the same node if they stand at the same place with the same local variables, whatever
    they loaded on the way there; without that the number of states would explode.
    """

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._nodes: dict[Any, int] = {}
        self._after: dict[tuple[int, int | None], int] = {}
        self._histories: list[tuple[str, tuple[Any, ...], tuple[int | None, ...]]] = []
        self.actions: list[Load | Store | Done] = []

    def start(self, name: str, *arguments: Any) -> int:
        """The node in which the ring's program ``name`` has done nothing yet."""
        return self._replay(name, arguments, ())

    def after(self, node: int, value: int | None) -> int:
        """The node after the access of ``node``, which loaded ``value`` (None: it was a store)."""
        after = self._after.get((node, value))
        if after is None:
            name, arguments, history = self._histories[node]
            after = self._after[node, value] = self._replay(name, arguments, (*history, value))
        return after

    def _replay(self, name: str, arguments: tuple[Any, ...], history: tuple[int | None, ...]) -> int:
        steps: Any = getattr(self._ring, name)(*arguments)
        action: Load | Store | Done
        try:
            action = next(steps)
            for value in history:
                action = steps.send(value)
            key = repr((name, [(frame.f_lasti, frame.f_locals) for frame in _frames(steps)]))
        except StopIteration as end:
            action = Done(end.value)
            key = repr((name, action))
        node = self._nodes.setdefault(key, len(self.actions))
        if node == len(self.actions):
            self._histories.append((name, arguments, history))
            self.actions.append(action)
        return node


def _frames(steps: Any) -> Generator[Any, None, None]:
    """The frames of a suspended program: its own and those of the functions that it is in."""
    while steps is not None:
        yield steps.gi_frame
        steps = steps.gi_yieldfrom


class Writer(NamedTuple):
    """Where the writing side stands: which writer in succession, how many of its batches it began, its program."""

    generation: int
    begun: int
    node: int | None  # None: it has published its whole plan


class State(NamedTuple):
    memory: tuple[int, ...]
    writer: Writer
    truth: tuple[int, ...]  # contents of the records that were published, seq 1 first
    reader: int
    next: int  # of the reader, when its poll began


@dataclass
class Explorer:
    """All interleavings of ``plans[0]`` by a writer, killed anywhere, ``plans[1]`` by its successor, and so on."""

    ring: Ring
    plans: tuple[tuple[Batch, ...], ...]

    def outcomes(self) -> set[Outcome]:
        """What polls turned out to be, over all reachable states."""
        self._threads = Threads(self.ring)
        self._found: set[Outcome] = set()
        memory = (0,) * (self.ring.slot_count * WORDS + 1)
        first = State(memory, self._begin(0, 0, 0), (), self._threads.start("poll", 1), 1)
        seen, pending = {first}, [first]
        while pending:
            for state in self._successors(pending.pop()):
                if state not in seen:
                    seen.add(state)
                    pending.append(state)
        self.states = len(seen)
        return self._found

    def _begin(self, generation: int, begun: int, cursor: int) -> Writer:
        plan = self.plans[generation]
        if begun == len(plan):
            return Writer(generation, begun, None)
        contents = tuple(content_of(generation, cursor + 1 + i, shape) for i, shape in enumerate(plan[begun]))
        return Writer(generation, begun + 1, self._threads.start("publish", cursor, contents))

    def _successors(self, state: State) -> list[State]:
        followers = self._reader_step(state)
        writer = state.writer
        if writer.node is not None:
            followers.append(self._writer_step(state, writer.node))
            if writer.generation + 1 < len(self.plans):  # the writer dies here, a successor resumes
                heir = Writer(writer.generation + 1, 0, self._threads.start("resume"))
                followers.append(state._replace(writer=heir))
        elif self._threads.start("poll", state.next) == state.reader:
            self._found.add(self._end(state))
        return followers

    def _step(self, memory: tuple[int, ...], node: int) -> tuple[tuple[int, ...], int]:
        action = self._threads.actions[node]
        if isinstance(action, Load):
            return memory, self._threads.after(node, memory[action.address])
        assert isinstance(action, Store)
        changed = (*memory[: action.address], action.value, *memory[action.address + 1 :])
        return changed, self._threads.after(node, None)

    def _writer_step(self, state: State, node: int) -> State:
        action = self._threads.actions[node]
        truth = state.truth + action.publishes if isinstance(action, Store) else state.truth
        memory, after = self._step(state.memory, node)
        writer = state.writer._replace(node=after)
        ended = self._threads.actions[after]
        if isinstance(ended, Done):
            writer = self._begin(writer.generation, writer.begun, ended.result)
        return state._replace(memory=memory, writer=writer, truth=truth)

    def _reader_step(self, state: State) -> list[State]:
        _, after = self._step(state.memory, state.reader)
        ended = self._threads.actions[after]
        if not isinstance(ended, Done):
            return [state._replace(reader=after)]
        poll: Poll = ended.result
        outcome = self._judge(state, poll)
        self._found.add(outcome)
        if outcome in FORBIDDEN:
            return []
        return [state._replace(reader=self._threads.start("poll", poll.next), next=poll.next)]

    def _judge(self, state: State, poll: Poll) -> Outcome:
        truth = state.truth
        for record in poll.records:
            if record.first != record.second:
                return Outcome.TORN
            if record.seq > len(truth) or record.first != truth[record.seq - 1]:
                return Outcome.GHOST
        if poll.lapped_at is not None:
            return self._judge_lap(state, poll, poll.lapped_at)
        due = [seq for seq in range(state.next, poll.next) if self._wanted(truth[seq - 1])]
        if [record.seq for record in poll.records] != due:
            return Outcome.OUT_OF_ORDER
        if poll.partial:
            return self._judge_part(truth, poll)
        if poll.next > 1 and not is_last(truth[poll.next - 2]):
            return Outcome.HALF_GROUP
        if {record.seq for record in poll.records if record.last} != self._ends(truth, due):
            return Outcome.HALF_GROUP
        return Outcome.GROUPS if poll.records else Outcome.NOTHING

    def _judge_lap(self, state: State, poll: Poll, lapped_at: int) -> Outcome:
        if state.memory[self.ring.slot(lapped_at)] == lapped_at:
            return Outcome.FALSE_LAP
        skipped = range(state.next, poll.next - poll.lost)
        if (
            poll.lost <= 0
            or poll.next - poll.lost < state.next
            or any(self._wanted(state.truth[s - 1]) for s in skipped)
        ):
            return Outcome.MISCOUNTED
        if poll.next > len(state.truth) + 1 or not is_last(state.truth[poll.next - 2]):
            return Outcome.HALF_GROUP
        return Outcome.LAPPED

    def _judge_part(self, truth: tuple[int, ...], poll: Poll) -> Outcome:
        """A part is one only of a group that does not fit, and carries no end."""
        first = last = poll.records[0].seq
        while first > 1 and not is_last(truth[first - 2]):
            first -= 1
        while not is_last(truth[last - 1]):
            last += 1
        wanted = sum(self._wanted(truth[seq - 1]) for seq in range(first, last + 1))
        fits = wanted <= self.ring.room or poll.records[-1].seq > last
        return Outcome.HALF_GROUP if fits or any(record.last for record in poll.records) else Outcome.PART

    def _wanted(self, content: int) -> bool:
        return not self.ring.filtered or is_wanted(content)

    def _ends(self, truth: tuple[int, ...], due: list[int]) -> set[int]:
        """The last wanted record of each group."""
        group_of = {seq: sum(is_last(content) for content in truth[: seq - 1]) for seq in due}
        return {seq for seq in due if all(group_of[seq] != group_of[later] for later in due if later > seq)}

    def _end(self, state: State) -> Outcome:
        """The writer has finished: poll to the end, alone."""
        reader, position = state.reader, state.next
        while True:
            ended = self._threads.actions[reader]
            if not isinstance(ended, Done):
                _, reader = self._step(state.memory, reader)
                continue
            if ended.result.next == position:
                return Outcome.CAUGHT_UP if position == len(state.truth) + 1 else Outcome.STUCK
            position = ended.result.next
            reader = self._threads.start("poll", position)


SINGLE: Batch = (END,)
SINGLES: Batch = (END, END)
GROUP: Batch = (MID, END)
UNWANTED: Batch = (UNWANTED_END,)
HEAD_WANTED: Batch = (MID, UNWANTED_END)
TAIL_WANTED: Batch = (UNWANTED_MID, END)

EVERYDAY = {Outcome.GROUPS, Outcome.NOTHING, Outcome.LAPPED, Outcome.CAUGHT_UP}
LIVING_WRITER = {
    "single records, two laps and a half": (Ring(2), (SINGLE,) * 5, EVERYDAY),
    "groups, and a batch of two groups": (Ring(4), (GROUP, SINGLE, GROUP, SINGLES, GROUP), EVERYDAY),
    "groups larger than the array": (
        Ring(4, room=1),
        (GROUP, SINGLE, GROUP, SINGLES, GROUP),
        EVERYDAY | {Outcome.PART},
    ),
    "a resume point above the oldest record": (
        Ring(8, room=8),
        ((END, MID, END), (MID, MID, MID, END), (MID, END, END, END)),
        EVERYDAY,
    ),
    "a filter": (Ring(4, filtered=True), (HEAD_WANTED, UNWANTED, TAIL_WANTED, GROUP, UNWANTED), EVERYDAY),
    "a filter, groups that just fit": (Ring(4, room=1, filtered=True), (UNWANTED,) * 3 + (HEAD_WANTED,), EVERYDAY),
    "a filter, groups larger than the array": (
        Ring(4, room=1, filtered=True),
        (UNWANTED, HEAD_WANTED, TAIL_WANTED, GROUP, SINGLE),
        EVERYDAY | {Outcome.PART},
    ),
}


@pytest.mark.parametrize("scenario", LIVING_WRITER)
def test_overwrite_while_reading__groups_or_exact_loss__never_torn(scenario: str) -> None:
    ring, plan, outcomes = LIVING_WRITER[scenario]
    assert Explorer(ring, (plan,)).outcomes() == outcomes


KILLED_WRITER: dict[str, tuple[Ring, tuple[tuple[Batch, ...], ...]]] = {
    "groups": (Ring(4), ((GROUP, SINGLE, GROUP), (GROUP, SINGLE))),
    "a batch of groups, then single records over its ghosts": (Ring(4), ((SINGLE, SINGLES, GROUP), (SINGLE,) * 3)),
    "a filter": (Ring(4, room=1, filtered=True), ((SINGLE, HEAD_WANTED, TAIL_WANTED), (TAIL_WANTED, UNWANTED))),
    "a ring with a resume point above the oldest": (
        Ring(8, room=8),
        (((MID, MID, END), (MID, MID, MID, END)), ((END,), (MID, END))),
    ),
    "its successor too, also while it resumes": (Ring(4), ((SINGLE, GROUP, GROUP), (GROUP,), (SINGLE,))),
}


@pytest.mark.parametrize("scenario", KILLED_WRITER)
def test_writer_killed_anywhere_and_resumed__groups_or_exact_loss__never_ghost(scenario: str) -> None:
    ring, plans = KILLED_WRITER[scenario]
    assert EVERYDAY <= Explorer(ring, plans).outcomes() | {Outcome.LAPPED} <= ALLOWED


CONTROLS = {
    "no invalidate": (Ring(2, invalidate=False), ((SINGLE,) * 5,), Outcome.TORN),
    "no validate": (Ring(2, validate=False), ((SINGLE,) * 5,), Outcome.TORN),
    "no ghost erasing": (Ring(4, erase=False), ((SINGLE, GROUP, GROUP), (SINGLE, SINGLE)), Outcome.GHOST),
    "no second look at word 0 after the cursor": (Ring(2, second_look=False), ((SINGLE,) * 5,), Outcome.FALSE_LAP),
    "a poll that ends amid a group": (
        Ring(4, room=1, filtered=True, end_at_group=False),
        ((UNWANTED,) * 3 + (HEAD_WANTED,),),
        Outcome.HALF_GROUP,
    ),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_leaving_a_step_out_shows_the_outcome_that_it_forbids(control: str) -> None:
    ring, plans, forbidden = CONTROLS[control]
    assert forbidden in Explorer(ring, plans).outcomes()
