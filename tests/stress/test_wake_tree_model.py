"""Row P6 of ring.h, modelled: the sequencer wakes two, they wake the others, and nobody sleeps on while there is news.

Every interleaving of a sequencer that publishes and some consumers that sleep, on a machine with a store buffer (see
``test_wake_model.py``). The kernel keeps its queue in the order of arrival, compares the futex word and enqueues the
sleeper in one step, and takes who is stopped or killed off the queue. Consumers may be stopped or killed at any moment;
the sequencer may be killed after it has published and before it has woken anybody.

Forbidden: nothing moves any more, and a consumer that was not stopped sleeps though there is a record for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import pytest

LIMIT = 2
"""MDRING_WAKE_LIMIT of ``wait.h``."""

Phase = Literal["read cursor", "look at slot", "futex wait", "woken", "pass on"]
Told = Literal["some", "some twice", "all"]


class Consumer(NamedTuple):
    """One that has every record up to ``position``; ``newest`` is the cursor that it saw when it was woken."""

    phase: Phase = "read cursor"
    position: int = 0
    seen: int = 0
    newest: int = 0


class State(NamedTuple):
    """One moment. Consumers that are awake have no order; sleepers have the kernel's."""

    awake: tuple[Consumer, ...]
    asleep: tuple[Consumer, ...] = ()
    slot: int = 0  # the newest record in memory
    cursor: int = 0
    buffer: tuple[tuple[str, int], ...] = ()
    batch: int = 0  # that is being published
    step: int = 0  # of the batch; 0: there is none in hand
    told: Told = "all"
    stopped: int = 0
    killed: bool = False  # the sequencer, once


@dataclass(frozen=True)
class Protocol:
    """What is modelled, and which steps are left out to see that each is needed."""

    consumers: int = 3
    batches: int = 2
    limit: int = LIMIT
    may_stop: int = 0  # consumers
    may_be_killed: bool = False  # the sequencer
    passes_on: bool = True
    passes_on_by: Literal["newest", "seen"] = "newest"
    reminds: int = 2  # how often: two more, then all
    barrier: bool = True  # of FUTEX_WAKE, before it looks at the queue
    compares: bool = True  # FUTEX_WAIT
    successor_owes: bool = True  # a sequencer that was restarted reminds of what its predecessor published


def wake(state: State, newest: int, limit: int) -> tuple[State, int]:
    """FUTEX_WAKE_BITSET with the bits that those who have seen ``newest`` lack."""
    woken = [at for at, sleeper in enumerate(state.asleep) if sleeper.seen != newest][:limit]
    awake = state.awake + tuple(state.asleep[at]._replace(phase="woken") for at in woken)
    asleep = tuple(sleeper for at, sleeper in enumerate(state.asleep) if at not in woken)
    return state._replace(awake=tuple(sorted(awake)), asleep=asleep), len(woken)


def after_sequencer(state: State, protocol: Protocol) -> Iterator[State]:
    if state.buffer:  # the oldest store reaches memory
        (word, value), *rest = state.buffer
        moved = state._replace(buffer=tuple(rest))
        yield moved._replace(slot=value) if word == "slot" else moved._replace(cursor=value)
    may_wake = not state.buffer or not protocol.barrier
    if state.step == 0:
        if state.batch < protocol.batches:
            yield state._replace(batch=state.batch + 1, step=1)
        if state.told == "some" and may_wake and protocol.reminds >= 1:
            reminded, woken = wake(state, state.batch, protocol.limit)
            yield reminded._replace(told="some twice" if woken == protocol.limit else "all")
        if (
            state.told != "all" and may_wake and protocol.reminds >= 2
        ):  # a sequencer that slept skips the first reminder
            yield wake(state, state.batch, protocol.consumers)[0]._replace(told="all")
    elif state.step == 1:
        yield state._replace(buffer=(*state.buffer, ("slot", state.batch)), step=2)
    elif state.step == 2:
        yield state._replace(buffer=(*state.buffer, ("cursor", state.batch)), step=3)
    else:
        if may_wake:
            told, woken = wake(state, state.batch, protocol.limit)
            yield told._replace(step=0, told="some" if woken == protocol.limit else "all")
        if protocol.may_be_killed and not state.killed:
            yield state._replace(step=0, told="some" if protocol.successor_owes else "all", killed=True)


def after_consumer(state: State, at: int, protocol: Protocol) -> State:
    consumer = state.awake[at]
    others = state.awake[:at] + state.awake[at + 1 :]

    def with_it(changed: Consumer) -> State:
        return state._replace(awake=tuple(sorted((*others, changed))))

    match consumer.phase:
        case "read cursor":
            return with_it(consumer._replace(phase="look at slot", seen=state.cursor))
        case "look at slot" if state.slot > consumer.position:
            return with_it(consumer._replace(phase="read cursor", position=state.slot))
        case "look at slot":
            return with_it(consumer._replace(phase="futex wait"))
        case "futex wait" if protocol.compares and state.cursor != consumer.seen:
            return with_it(consumer._replace(phase="read cursor"))
        case "futex wait":
            return state._replace(awake=others, asleep=(*state.asleep, consumer))
        case "woken" if protocol.passes_on and state.cursor != consumer.seen:
            return with_it(consumer._replace(phase="pass on", newest=state.cursor))
        case "woken":
            return with_it(consumer._replace(phase="read cursor"))
        case "pass on":
            newest = consumer.newest if protocol.passes_on_by == "newest" else consumer.seen
            return wake(with_it(consumer._replace(phase="read cursor", newest=0)), newest, protocol.limit)[0]


def after_a_stop(state: State) -> Iterator[State]:
    for at in range(len(state.awake)):
        yield state._replace(awake=state.awake[:at] + state.awake[at + 1 :], stopped=state.stopped + 1)
    for at in range(len(state.asleep)):
        yield state._replace(asleep=state.asleep[:at] + state.asleep[at + 1 :], stopped=state.stopped + 1)


def outcomes(protocol: Protocol) -> Iterator[str]:
    """How the interleavings end, one after the other."""
    start = State((Consumer(),) * protocol.consumers)
    pending, known = [start], {start}
    while pending:
        state = pending.pop()
        following = list(after_sequencer(state, protocol))
        following += [after_consumer(state, at, protocol) for at in range(len(state.awake))]
        if not following:
            late = any(sleeper.position < state.slot for sleeper in state.asleep)
            yield "ASLEEP WITH A RECORD" if late else "ALL HAVE IT"
        if state.stopped < protocol.may_stop:
            following += after_a_stop(state)
        for successor in following:
            if successor not in known:
                known.add(successor)
                pending.append(successor)


PROVEN = {
    "nobody is stopped, and no reminder is needed": Protocol(reminds=0),
    "any one is stopped, and no reminder is needed": Protocol(consumers=5, batches=1, may_stop=1, reminds=0),
    "any one is stopped, no reminder, two batches": Protocol(may_stop=1, reminds=0),
    "all but one are stopped": Protocol(consumers=5, batches=1, may_stop=4),
    "everybody wakes one, and one is stopped": Protocol(limit=1, may_stop=1),
    "the sequencer is killed between publishing and waking": Protocol(may_be_killed=True, may_stop=1),
}


@pytest.mark.parametrize("protocol", PROVEN.values(), ids=PROVEN.keys())
def test_sleepers_race_publish__all_have_it__never_asleep_with_a_record(protocol: Protocol) -> None:
    assert set(outcomes(protocol)) == {"ALL HAVE IT"}


CONTROLS = {
    "woken consumers pass nothing on": Protocol(passes_on=False, reminds=0),
    "two are stopped and nobody reminds": Protocol(may_stop=2, reminds=0),
    "four are stopped and nobody reminds all": Protocol(consumers=5, batches=1, may_stop=4, reminds=1),
    "consumers pass on by what they had seen": Protocol(passes_on_by="seen", reminds=0),
    "waking without a barrier": Protocol(consumers=1, barrier=False),
    "sleeping without a comparison": Protocol(consumers=1, compares=False),
    "a successor that owes nothing": Protocol(may_be_killed=True, successor_owes=False, consumers=1),
}


@pytest.mark.parametrize("protocol", CONTROLS.values(), ids=CONTROLS.keys())
def test_each_part_is_needed(protocol: Protocol) -> None:
    assert "ASLEEP WITH A RECORD" in outcomes(protocol)
