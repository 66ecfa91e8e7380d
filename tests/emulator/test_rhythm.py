"""Beats, intervals, silences and pings, in virtual time."""

from __future__ import annotations

from mdring.emulator.rhythm import Beat, Pace, Pings, Silence
from tests.adapters.loopback import SECOND, START_NS, LoopHost, Schedule


class Clock:
    """Virtual time, and when something happened in it."""

    def __init__(self) -> None:
        self.schedule = Schedule()
        self.host = LoopHost(self.schedule)
        self.times: list[float] = []

    def act(self) -> None:
        self.times.append((self.schedule.now_ns - START_NS) / SECOND)

    def run(self, seconds: float) -> None:
        self.schedule.run_until(self.schedule.now_ns + round(seconds * SECOND))


def test_beat_lasts_as_long_as_it_is_wanted_and_begins_anew() -> None:
    clock, wanted = Clock(), [1]
    beat = Beat(clock.host, 1.0, clock.act, lambda: wanted)
    beat.start()
    beat.start()
    clock.run(2.5)
    wanted.clear()
    clock.run(5.0)
    wanted.append(1)
    beat.start()
    clock.run(1.5)
    assert clock.times == [1.0, 2.0, 8.5]


def test_pace_acts_at_once_and_then_at_the_end_of_the_interval() -> None:
    clock = Clock()
    pace: Pace

    def act() -> None:
        clock.act()
        pace.mark()

    pace = Pace(clock.host, 1.0, act)
    pace.due()
    clock.run(0.25)
    pace.due()
    pace.due()
    assert pace.is_waiting
    clock.run(3.0)
    pace.due()
    assert clock.times == [0.0, 1.0, 3.25] and not pace.is_waiting


def test_silence_acts_whenever_nothing_was_noted_for_so_long() -> None:
    clock, wanted = Clock(), [1]
    silence = Silence(clock.host, 1.0, clock.act, lambda: wanted)
    silence.start()
    clock.run(0.75)
    silence.note()
    clock.run(2.5)
    assert clock.times == [1.75, 2.75]
    wanted.clear()
    clock.run(5.0)
    assert clock.times == [1.75, 2.75]


class PingedWire(LoopHost):
    """A client that answers pings, or does not."""

    number = 1

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.pings: list[bytes] = []
        self.closed: list[tuple[int, str]] = []

    def deliver(self, stream: str, frame: bytes) -> None: ...

    def reply(self, text: str) -> None: ...

    def ping(self, payload: bytes) -> None:
        self.pings.append(payload)

    def close(self, code: int, reason: str = "") -> None:
        self.closed.append((code, reason))

    def reset(self) -> None: ...


def test_one_pong_answers_all_pings_before_it_and_silence_ends_the_connection() -> None:
    clock = Clock()
    wire = PingedWire(clock.schedule)
    pings = Pings(wire, 1.0, 3.0)
    pings.start()
    clock.run(2.5)
    assert len(wire.pings) == 2
    pings.on_pong(wire.pings[1])
    pings.on_pong(b"of nobody")
    clock.run(3.4)
    assert wire.closed == []
    clock.run(0.2)
    assert wire.closed == [(1008, "Pong timeout")]
