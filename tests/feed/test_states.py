"""The states of connections: what an instrument is told that travels on more than one."""

from __future__ import annotations

from typing import Any, cast

from mdring.counters import Counters
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.feed.states import Announcement, ConnectionStates
from mdring.record import STATUS, Reason, State

VENUE = Channel("", 0, 1, 0, 0)
SHARED, LONELY = Channel("SHARED", 1, 1, 0, 0), Channel("LONELY", 2, 1, 0, 0)


class NoCounters:
    """Takes what is stored."""

    def store(self, counter: Any, value: int) -> None:
        """Nothing is kept."""


def states() -> ConnectionStates:
    """Two connections; one instrument is on both, another on the second only."""
    made = ConnectionStates(VENUE, cast(Counters, NoCounters()))
    made.set_connections({0: [SHARED], 1: [SHARED, LONELY]})
    return made


def told(emit: Emit) -> list[tuple[int, State]]:
    """(instrument_id, state) of what was staged since the last time."""
    return [(int(row["instrument_id"]), State(int(row["state"]))) for row in emit.drain().view(STATUS)]


def test_instrument_on_two_connections_is_connected_when_both_are() -> None:
    emit, made = Emit(), states()
    made.announce(emit, 1, Announcement(State.CONNECTED, Reason.NONE))
    assert (1, State.CONNECTED) not in told(emit)
    made.announce(emit, 0, Announcement(State.CONNECTED, Reason.NONE))
    assert told(emit) == [(1, State.CONNECTED), (0, State.CONNECTED)]


def test_instrument_on_two_connections_is_told_the_worst_of_them_and_each_change_once() -> None:
    emit, made = Emit(), states()
    for connection in (0, 1):
        made.announce(emit, connection, Announcement(State.CONNECTED, Reason.NONE))
    told(emit)
    made.announce(emit, 0, Announcement(State.DISCONNECTED, Reason.STALE))
    assert told(emit) == [(1, State.DISCONNECTED), (0, State.DISCONNECTED)]
    made.announce(emit, 1, Announcement(State.RECONNECTING, Reason.NONE))
    assert told(emit) == [(2, State.RECONNECTING)]
    made.announce(emit, 0, Announcement(State.CONNECTED, Reason.NONE))
    assert told(emit) == [(1, State.RECONNECTING), (0, State.RECONNECTING)]
    made.announce(emit, 1, Announcement(State.CONNECTED, Reason.NONE))
    assert told(emit) == [(1, State.CONNECTED), (2, State.CONNECTED), (0, State.CONNECTED)]


def test_what_is_told_again_is_what_was_told_last() -> None:
    emit, made = Emit(), states()
    made.announce(emit, 0, Announcement(State.CONNECTED, Reason.NONE))
    made.announce(emit, 1, Announcement(State.DISCONNECTED, Reason.STALE))
    told(emit)
    made.repeat(emit)
    assert set(told(emit)) == {(0, State.DISCONNECTED), (1, State.DISCONNECTED), (2, State.DISCONNECTED)}
