"""When a child is started again, when it counts as stalled, and what its control socket brings."""

from __future__ import annotations

import selectors
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdring.config import SupervisorConfig
from mdring.counters import Counters
from mdring.supervisor.child import Child, HeartbeatWatch, RestartPolicy, describe_end
from tests.supervised import wait_until

SECOND = 1_000_000_000
CONFIG = SupervisorConfig(restart_delay_ms=250, max_restart_delay_ms=1_000, crash_loop_limit=5, crash_loop_window_s=60)


def delays_of(policy: RestartPolicy, *ends_s: float) -> list[float]:
    return [(policy.next_start(round(end * SECOND))[0] - round(end * SECOND)) / SECOND for end in ends_s]


def test_the_restart_delay_doubles_up_to_its_maximum() -> None:
    assert delays_of(RestartPolicy(CONFIG), 1, 2, 3, 4) == [0.25, 0.5, 1.0, 1.0]


def test_ends_that_are_a_window_ago_are_forgotten() -> None:
    assert delays_of(RestartPolicy(CONFIG), 1, 2, 61.5, 122) == [0.25, 0.5, 0.5, 0.25]


def test_a_crash_loop_pauses_for_a_window_and_then_begins_anew() -> None:
    policy = RestartPolicy(CONFIG)
    assert [policy.next_start(end * SECOND) for end in (1, 2, 3, 4)][-1] == (5 * SECOND, False)
    assert policy.next_start(5 * SECOND) == (65 * SECOND, True)
    assert policy.next_start(66 * SECOND) == (round(66.25 * SECOND), False)


def test_a_limit_of_one_pauses_at_once() -> None:
    policy = RestartPolicy(SupervisorConfig(crash_loop_limit=1, crash_loop_window_s=60))
    assert policy.next_start(SECOND) == (61 * SECOND, True)


def test_a_heartbeat_that_stays_the_same_for_longer_than_the_timeout_is_a_stall() -> None:
    watch = HeartbeatWatch(5 * SECOND, 0)
    assert not watch.is_stalled(100, 1 * SECOND)
    assert not watch.is_stalled(100, 4 * SECOND)
    assert not watch.is_stalled(100, 6 * SECOND)
    assert watch.is_stalled(100, 7 * SECOND)
    assert not watch.is_stalled(101, 8 * SECOND)


def test_a_wall_clock_that_is_set_back_is_no_stall() -> None:
    watch = HeartbeatWatch(5 * SECOND, 0)
    beats = [watch.is_stalled(heartbeat, second * SECOND) for second, heartbeat in enumerate([900, 901, 300, 301], 1)]
    assert beats == [False] * 4


def test_a_watcher_that_stood_still_itself_gives_everybody_another_timeout() -> None:
    watch = HeartbeatWatch(5 * SECOND, 0)
    assert not watch.is_stalled(100, 1 * SECOND)
    assert not watch.is_stalled(100, 60 * SECOND)
    assert not watch.is_stalled(100, 64 * SECOND)
    assert watch.is_stalled(100, 66 * SECOND)


def test_a_child_that_is_still_starting_has_longer_than_the_heartbeat_timeout(
    selector: selectors.BaseSelector, tmp_path: Path
) -> None:
    path = tmp_path / "counters"
    Counters.create(path, run_id=1)
    child = Child("starter", ("sleep", "3600"), {}, CONFIG, selector, counters=Counters.attach(path))
    child.start(0)
    assert child.pid is not None
    its_own = Counters.open_as_writer(path, child.pid)  # what it does first; then it imports, for as long as that takes
    assert [child.is_stalled(second * SECOND) for second in (1, 6, 29)] == [False] * 3
    assert child.is_stalled(31 * SECOND)
    its_own.heartbeat()
    assert [child.is_stalled(second * SECOND) for second in (32, 36, 38)] == [False, False, True]
    child.kill(60)
    child.start(100 * SECOND)
    assert not child.is_stalled(129 * SECOND)  # the heartbeat that is there is the predecessor's
    child.kill(60)
    its_own.segment.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "ended with status 0"),
        (3, "ended with status 3"),
        (-signal.SIGSEGV, "was ended by SIGSEGV"),
        (-(signal.SIGRTMIN + 3), f"was ended by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    assert describe_end(code) == words


@pytest.fixture
def selector() -> Iterator[selectors.BaseSelector]:
    with selectors.DefaultSelector() as made:
        yield made


def lines_of(script: str, selector: selectors.BaseSelector) -> list[bytes]:
    """The lines that a child brings which is this script; ``say(bytes)`` writes on the control socket."""
    lines: list[bytes] = []
    prelude = "import os, sys\ndef say(data):\n  while data: data = data[os.write(int(sys.argv[1]), data):]\n"
    command = (sys.executable, "-c", prelude + script, "{control_fd}")
    child = Child("talker", command, {}, CONFIG, selector, on_line=lines.append)
    child.start(time.monotonic_ns())
    codes: list[int] = []

    def has_ended() -> bool:
        for key, _ in selector.select(0.01):
            key.data()
        code = child.poll()
        if code is not None:
            codes.append(code)
        return bool(codes)

    wait_until(has_ended, "the child ends")
    assert codes == [0]
    assert not selector.get_map()
    return lines


def test_lines_come_whole_however_they_were_written(selector: selectors.BaseSelector) -> None:
    assert lines_of("say(b'one\\ntw')\nsay(b'o\\nthree\\n')\nsay(b'no line end')", selector) == [
        b"one",
        b"two",
        b"three",
    ]


def test_many_lines_and_the_last_ones_before_the_end_are_there(selector: selectors.BaseSelector) -> None:
    lines = lines_of("for n in range(5000): say(b'line %d\\n' % n)", selector)
    assert lines == [b"line %d" % number for number in range(5000)]


def test_an_endless_line_is_dropped_and_lines_after_it_are_read(
    selector: selectors.BaseSelector, caplog: pytest.LogCaptureFixture
) -> None:
    lines = lines_of("say(b'x' * 3_000_000)\nsay(b'\\ngood\\n')", selector)
    assert lines[-1] == b"good"
    assert sum(map(len, lines)) < 3_000_000
    assert "without a line end; ignored" in caplog.text


def test_a_child_that_cannot_be_started_leaves_no_socket(selector: selectors.BaseSelector) -> None:
    child = Child("none", ("/no/such/program", "{control_fd}"), {}, CONFIG, selector, on_line=lambda line: None)
    with pytest.raises(FileNotFoundError):
        child.start(time.monotonic_ns())
    assert child.pid is None
    assert not selector.get_map()


def test_a_kill_ends_and_reaps(selector: selectors.BaseSelector) -> None:
    child = Child("sleeper", ("sleep", "3600"), {}, CONFIG, selector)
    child.start(time.monotonic_ns())
    child.kill(60)
    assert child.pid is None
    assert child.poll() is None
