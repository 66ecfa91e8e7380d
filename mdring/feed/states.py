"""The states of a venue's connections: told in the stream, and shown in the counters.

Part of the worker; ``life_cycle.py`` and ``metadata.py`` announce, ``driver.py`` repeats after a loss. A STATUS
with instrument_id 0 speaks for the whole venue, so with several connections it tells the worst of their states
(CIRCUIT_OPEN, DISCONNECTED, RECONNECTING, CONNECTED, in this order), and each instrument gets a STATUS of its own
connection besides. One that travels on several of them is told the worst of those, whenever it changes::

    states = ConnectionStates(venue_channel, counters)
    states.set_connections({0: channels})
    states.announce(emit, 0, Announcement(State.CONNECTED, Reason.NONE))
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from mdring.counters import Counter, Counters
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import Reason, State

BEFORE_CONNECTIONS: Final = -1
"""In place of a connection's number while the worker learns which connections it is to have."""

_WORST_FIRST: Final = (State.CIRCUIT_OPEN, State.DISCONNECTED, State.RECONNECTING, State.CONNECTED)


class Announcement(Struct, frozen=True):
    """A connection's state. ``attempt`` counts from 0; ``detail`` is text for people."""

    state: State
    reason: Reason
    attempt: int = 0
    detail: str = ""


class ConnectionStates:
    """The last announcement of each connection, and what they come to for the venue."""

    def __init__(self, venue_channel: Channel, counters: Counters) -> None:
        self._venue_channel = venue_channel
        self._counters = counters
        self._channels: Mapping[int, Sequence[Channel]] = {BEFORE_CONNECTIONS: ()}
        self._announced: dict[int, Announcement] = {}
        self._told: Announcement | None = None
        self._shared: dict[str, Sequence[int]] = {}  # instruments that travel on several connections, and on which
        self._told_of: dict[str, Announcement] = {}  # of these

    def set_connections(self, channels: Mapping[int, Sequence[Channel]]) -> None:
        """From now on these are the connections, with the channels that travel on each. None is open yet."""
        self._channels = channels
        begun = Announcement(State.RECONNECTING, Reason.STARTED)
        self._announced = dict.fromkeys(channels, begun)
        travels: dict[str, list[int]] = {}
        for connection, entries in channels.items():
            for channel in entries:
                travels.setdefault(channel.instrument, []).append(connection)
        self._shared = {instrument: numbers for instrument, numbers in travels.items() if len(numbers) > 1}
        self._told_of = dict.fromkeys(self._shared, begun)

    def is_connected(self, connection: int) -> bool:
        """Whether the connection is established."""
        announced = self._announced.get(connection)
        return announced is not None and announced.state is State.CONNECTED

    def announce(self, emit: Emit, connection: int, announcement: Announcement) -> None:
        """Stage what changes, as one event group, and show it in the counters."""
        self._announced[connection] = announcement
        if len(self._channels) > 1:
            for channel in self._channels[connection]:
                self._stage_own(emit, channel, announcement)
        worst = self._worst(self._announced)
        if (
            self._told is None
            or worst.state is not self._told.state
            or (len(self._channels) == 1 and worst != self._told)
        ):
            _stage(emit, self._venue_channel, worst)
        emit.end()
        self._show(worst)

    def repeat(self, emit: Emit) -> None:
        """Stage the states once more: consumers may have missed a change."""
        if self._told is not None:
            _stage(emit, self._venue_channel, self._told)
        if len(self._channels) > 1:
            for connection, announcement in self._announced.items():
                for channel in self._channels[connection]:
                    _stage(emit, channel, self._told_of.get(channel.instrument, announcement))
        emit.end()

    def _stage_own(self, emit: Emit, channel: Channel, announcement: Announcement) -> None:
        """What an instrument is told of a connection of its own."""
        instrument = channel.instrument
        if instrument in self._shared:
            announcement = self._worst(self._shared[instrument])
            if announcement == self._told_of[instrument]:
                return
            self._told_of[instrument] = announcement
        _stage(emit, channel, announcement)

    def _worst(self, connections: Iterable[int]) -> Announcement:
        return min((self._announced[one] for one in connections), key=lambda one: _WORST_FIRST.index(one.state))

    def _show(self, worst: Announcement) -> None:
        connected = sum(announced.state is State.CONNECTED for announced in self._announced.values())
        self._counters.store(Counter.CONNECTIONS, connected)
        if self._told is None or worst.state is not self._told.state:
            self._counters.store(Counter.STATE, worst.state)
            self._counters.store(Counter.STATE_SINCE_NS, time.time_ns())
        self._told = worst


def _stage(emit: Emit, channel: Channel, announcement: Announcement) -> None:
    emit.status(
        channel, announcement.state, announcement.reason, count=announcement.attempt, detail=announcement.detail
    )
