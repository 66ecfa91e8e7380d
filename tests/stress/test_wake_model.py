"""Row P5 of ring.h, modelled: a sequencer that goes to sleep and a worker that publishes never miss each other.

Every interleaving of the two, on a machine with store buffers (x86-64's TSO: a store is seen by others some time
after it was executed, in order; a full fence empties the buffer). The kernel compares the futex word and enqueues
the sleeper in one step, as FUTEX_WAIT does; it sees memory, not buffers.

Forbidden: the worker has published and is done, and the sequencer sleeps and is not woken.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

SEQUENCER = ("waiting := 1", "fence", "read cursor", "look at slot", "futex wait")
WORKER = ("slot := 1", "cursor := 1", "fence", "read waiting", "wake if waiting")
STORES = {"waiting := 1": "waiting", "slot := 1": "slot", "cursor := 1": "cursor"}


class State(NamedTuple):
    """One moment: memory, both store buffers, both program counters, what was read."""

    memory: frozenset[str] = frozenset()  # the words that are 1
    buffers: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    at: tuple[int, int] = (0, 0)
    cursor_seen: bool = False
    waiting_seen: bool = False
    asleep: bool = False
    awake_for_good: bool = False  # found the record, or was woken


def successors(state: State, programs: tuple[tuple[str, ...], tuple[str, ...]], *, compares: bool) -> list[State]:
    result = []
    for who in (0, 1):
        buffer = state.buffers[who]
        if buffer:  # the oldest store reaches memory
            buffers = tuple(b[1:] if i == who else b for i, b in enumerate(state.buffers))
            result.append(state._replace(memory=state.memory | {buffer[0]}, buffers=(buffers[0], buffers[1])))
        if state.at[who] == len(programs[who]) or (who == 0 and (state.asleep or state.awake_for_good)):
            continue
        step = programs[who][state.at[who]]
        at = (state.at[0] + (who == 0), state.at[1] + (who == 1))
        moved = state._replace(at=at)
        visible = state.memory | set(buffer)
        if step in STORES:
            buffers = tuple((*b, STORES[step]) if i == who else b for i, b in enumerate(state.buffers))
            result.append(moved._replace(buffers=(buffers[0], buffers[1])))
        elif step == "fence":
            if not buffer:
                result.append(moved)
        elif step == "read cursor":
            result.append(moved._replace(cursor_seen="cursor" in visible))
        elif step == "look at slot":
            result.append(moved._replace(awake_for_good="slot" in visible))
        elif step == "futex wait":
            changed = ("cursor" in state.memory) != state.cursor_seen
            result.append(moved._replace(awake_for_good=True) if compares and changed else moved._replace(asleep=True))
        elif step == "read waiting":
            result.append(moved._replace(waiting_seen="waiting" in visible))
        elif step == "wake if waiting" and state.waiting_seen and state.asleep:
            result.append(moved._replace(asleep=False, awake_for_good=True))
        else:
            result.append(moved)
    return result


def outcomes(
    sequencer: tuple[str, ...] = SEQUENCER, worker: tuple[str, ...] = WORKER, *, compares: bool = True
) -> set[str]:
    """How all interleavings end."""
    pending, seen, found = [State()], {State()}, set()
    while pending:
        state = pending.pop()
        following = successors(state, (sequencer, worker), compares=compares)
        if not following:
            found.add("AWAKE" if state.awake_for_good else "ASLEEP WITH A RECORD")
        for successor in following:
            if successor not in seen:
                seen.add(successor)
                pending.append(successor)
    return found


def without(program: tuple[str, ...], step: str) -> tuple[str, ...]:
    return tuple(other for other in program if other != step)


def test_sleep_races_publish__awake__never_asleep_with_a_record() -> None:
    assert outcomes() == {"AWAKE"}


@pytest.mark.parametrize(
    ("sequencer", "worker", "compares"),
    [
        (SEQUENCER, without(WORKER, "fence"), True),
        (without(SEQUENCER, "fence"), WORKER, True),
        (SEQUENCER, WORKER, False),
        (without(SEQUENCER, "waiting := 1"), WORKER, True),
    ],
    ids=["worker_without_fence", "sequencer_without_fence", "futex_without_comparison", "waiting_never_set"],
)
def test_each_part_is_needed(sequencer: tuple[str, ...], worker: tuple[str, ...], compares: bool) -> None:
    assert "ASLEEP WITH A RECORD" in outcomes(sequencer, worker, compares=compares)
