"""The watchdog: which silence ends a connection, which one only asks for a ping, and when to look again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.intake import Intake
from mdring.feed.watchdog import Verdict, Watchdog, WatchdogSettings
from mdring.record import Reason

MS = 1_000_000
START = 1_000_000 * MS
SETTINGS = WatchdogSettings(
    subscribe_ns=100 * MS, first_data_ns=300 * MS, stale_ns=500 * MS, ping_interval_ns=200 * MS, pong_ns=50 * MS,
    healthy_ns=400 * MS, life_ns=5_000 * MS,
)  # fmt: skip


def at(milliseconds: int) -> int:
    return START + milliseconds * MS


class Watched(Watchdog):
    """With an intake of its own, which hears what the test says."""

    def __init__(self, settings: WatchdogSettings, now_ns: int) -> None:
        self.intake = Intake(0, None, lambda: None)
        super().__init__(settings, self.intake, now_ns)


def heard(watchdog: Watched, milliseconds: int, *, data: bool = False) -> None:
    watchdog.intake.last_heard_ns = at(milliseconds)
    if data:
        watchdog.intake.note_data()


def reason(verdict: Verdict | None) -> Reason | None:
    return None if verdict is None else verdict.reason


@pytest.fixture
def watchdog() -> Watched:
    return Watched(SETTINGS, START)


def test_unanswered_subscription_is_late(watchdog: Watched) -> None:
    watchdog.on_sent(at(10), "1")
    assert watchdog.verdict(at(109)) is None
    assert watchdog.verdict(at(110)) == Verdict(Reason.SUBSCRIBE_TIMEOUT, "no answer to 1")


def test_each_answer_has_a_time_of_its_own(watchdog: Watched) -> None:
    watchdog.on_sent(at(0), "1")
    watchdog.on_sent(at(50), "2")
    watchdog.on_acknowledged(at(90), "1")
    assert watchdog.verdict(at(149)) is None
    assert reason(watchdog.verdict(at(150))) is Reason.SUBSCRIBE_TIMEOUT


def test_answer_that_nobody_waits_for_changes_nothing(watchdog: Watched) -> None:
    watchdog.on_acknowledged(at(250), "7")
    assert reason(watchdog.verdict(at(300))) is Reason.NO_DATA


def test_first_data_is_due_after_the_last_answer(watchdog: Watched) -> None:
    watchdog.on_sent(at(20), "1")
    watchdog.on_acknowledged(at(80), "1")
    heard(watchdog, 379)
    assert watchdog.verdict(at(379)) is None
    assert reason(watchdog.verdict(at(380))) is Reason.NO_DATA


def test_first_data_is_due_after_the_handshake_if_no_answer_is(watchdog: Watched) -> None:
    watchdog.on_sent(at(200), None)
    heard(watchdog, 299)
    assert watchdog.verdict(at(299)) is None
    assert reason(watchdog.verdict(at(300))) is Reason.NO_DATA


def test_data_makes_the_first_data_bound_void(watchdog: Watched) -> None:
    heard(watchdog, 299, data=True)
    assert watchdog.verdict(at(798)) is None


def test_keep_alives_do_not_hide_that_data_is_missing(watchdog: Watched) -> None:
    heard(watchdog, 10, data=True)
    for milliseconds in range(20, 510, 10):
        heard(watchdog, milliseconds)
        assert watchdog.verdict(at(milliseconds)) is None
    heard(watchdog, 510)
    assert reason(watchdog.verdict(at(510))) is Reason.STALE


def test_silence_asks_for_one_ping(watchdog: Watched) -> None:
    assert not watchdog.ping_due(at(199))
    assert watchdog.ping_due(at(200))
    watchdog.on_ping_sent(at(200))
    assert not watchdog.ping_due(at(249))


def test_any_frame_answers_a_ping(watchdog: Watched) -> None:
    watchdog.on_ping_sent(at(200))
    heard(watchdog, 240)
    assert watchdog.verdict(at(260)) is None
    assert watchdog.ping_due(at(440))


def test_unanswered_ping_ends_the_connection(watchdog: Watched) -> None:
    watchdog.on_ping_sent(at(200))
    assert watchdog.verdict(at(249)) is None
    assert watchdog.verdict(at(250)) == Verdict(Reason.STALE, "no pong for 50 ms")


def test_healthy_means_data_over_the_whole_period(watchdog: Watched) -> None:
    assert not watchdog.is_healthy()
    heard(watchdog, 100, data=True)
    heard(watchdog, 499, data=True)
    assert not watchdog.is_healthy()
    heard(watchdog, 2_000)
    assert not watchdog.is_healthy()
    heard(watchdog, 2_001, data=True)
    assert watchdog.is_healthy()


def test_replacement_is_due_at_the_end_of_life_or_when_asked_for(watchdog: Watched) -> None:
    assert not watchdog.replace_due(at(4_999))
    assert watchdog.replace_due(at(5_000))
    watchdog.replace_at(at(6_000))
    assert not watchdog.replace_due(at(5_999))
    assert watchdog.replace_due(at(6_000))


def test_connection_without_maximum_life_is_never_replaced() -> None:
    unbounded = Watched(
        WatchdogSettings(subscribe_ns=1, first_data_ns=1, stale_ns=1, ping_interval_ns=1, pong_ns=1, healthy_ns=1), 0
    )
    assert not unbounded.replace_due(2**62)


def test_pong_never_makes_the_next_ping_late() -> None:
    """What comes between two looks only puts things off."""
    patient = WatchdogSettings(
        subscribe_ns=1, first_data_ns=9_000 * MS, stale_ns=9_000 * MS, ping_interval_ns=200 * MS, pong_ns=5_000 * MS,
        healthy_ns=1,
    )  # fmt: skip
    watchdog = Watched(patient, START)
    watchdog.on_ping_sent(at(200))
    look = watchdog.next_look_ns(at(200))
    heard(watchdog, 201)
    assert not watchdog.ping_due(at(400))
    assert look <= at(401)
    assert watchdog.ping_due(at(401))


@given(st.lists(st.tuples(st.sampled_from(["data", "other", "sent", "ack"]), st.integers(1, 150)), max_size=30))
def test_nothing_becomes_due_before_the_next_look(events: list[tuple[str, int]]) -> None:
    """Whoever looks again at ``next_look_ns``, and after each event, misses nothing; and never looks without pause."""
    watchdog = Watched(SETTINGS, START)
    now = 0
    for number, (event, passed) in enumerate(events):
        now += passed
        match event:
            case "data":
                heard(watchdog, now, data=True)
            case "other":
                heard(watchdog, now)
            case "sent":
                watchdog.on_sent(at(now), str(number))
            case "ack":
                watchdog.on_acknowledged(at(now), str(number - 1))
        if watchdog.verdict(at(now)) is not None or watchdog.replace_due(at(now)):
            return
        if watchdog.ping_due(at(now)):
            watchdog.on_ping_sent(at(now))
        healthy, look = watchdog.is_healthy(), watchdog.next_look_ns(at(now))
        assert look > at(now)
        before = look - 1
        assert watchdog.verdict(before) is None
        assert not watchdog.ping_due(before)
        assert not watchdog.replace_due(before)
        assert watchdog.is_healthy() is healthy
