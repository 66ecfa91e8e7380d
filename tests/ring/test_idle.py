"""Idle strategies: each waits until there is something to read, and any signal interrupts it at once."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mdring.ring.idle import IDLE_STRATEGIES, IdleStrategy, idle_strategy
from tests.ring.small_ring import SmallRing, make_records

ROOT = Path(__file__).parents[2]
HOUR_NS = 3600 * 10**9
EVERY_STRATEGY = pytest.mark.parametrize("strategy", IDLE_STRATEGIES.values(), ids=IDLE_STRATEGIES.keys())


@EVERY_STRATEGY
def test_a_wait_ends_when_a_record_is_published(strategy: IdleStrategy) -> None:
    ring = SmallRing(8)
    writer, reader = ring.writer(), ring.reader()

    def publish() -> None:
        writer.publish(make_records(1))
        writer.wake()

    timer = threading.Timer(0.05, publish)
    timer.start()
    assert reader.wait(strategy.native, strategy.spin_ns, HOUR_NS) is True
    assert writer.cursor == 1
    timer.join()


@EVERY_STRATEGY
def test_a_wait_ends_though_the_writer_died_before_it_could_wake_the_reader(strategy: IdleStrategy) -> None:
    ring = SmallRing(8)
    writer, reader = ring.writer(), ring.reader()
    timer = threading.Timer(0.05, lambda: writer.publish(make_records(1)))
    timer.start()
    assert reader.wait(strategy.native, strategy.spin_ns, HOUR_NS) is True
    timer.join()


@EVERY_STRATEGY
def test_a_wait_returns_at_once_if_there_is_something_to_read(strategy: IdleStrategy) -> None:
    ring = SmallRing(8)
    reader = ring.reader()
    ring.writer().publish(make_records(1))
    assert reader.wait(strategy.native, strategy.spin_ns, HOUR_NS) is True
    assert reader.wait(strategy.native, strategy.spin_ns, 0) is True


@EVERY_STRATEGY
def test_a_wait_ends_when_the_reader_is_lapped(strategy: IdleStrategy) -> None:
    ring = SmallRing(8)
    writer, reader = ring.writer(), ring.reader()
    for _ in range(3):
        writer.publish(make_records(4))
    assert reader.wait(strategy.native, strategy.spin_ns, HOUR_NS) is True


@EVERY_STRATEGY
def test_a_wait_is_over_after_its_time(strategy: IdleStrategy) -> None:
    reader = SmallRing(8).reader()
    begin = time.monotonic_ns()
    assert reader.wait(strategy.native, strategy.spin_ns, 20_000_000) is False
    assert time.monotonic_ns() - begin >= 20_000_000
    assert reader.wait(strategy.native, strategy.spin_ns, 0) is False


@EVERY_STRATEGY
def test_other_threads_run_while_one_waits(strategy: IdleStrategy) -> None:
    reader = SmallRing(8).reader()
    waiter = threading.Thread(target=lambda: reader.wait(strategy.native, strategy.spin_ns, 50_000_000))
    waiter.start()
    counted = 0
    while waiter.is_alive():
        counted += 1
    assert counted > 0


def test_a_blocked_wait_burns_no_cpu() -> None:
    reader = SmallRing(8).reader()
    strategy = IDLE_STRATEGIES["block"]
    begin = time.thread_time_ns()
    assert reader.wait(strategy.native, strategy.spin_ns, 300_000_000) is False
    assert time.thread_time_ns() - begin < 150_000_000  # CPU time, not wall time


def test_backing_off_sleeps_ever_longer() -> None:
    reader = SmallRing(8).reader()
    strategy = IDLE_STRATEGIES["backoff"]
    begin = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    assert reader.wait(strategy.native, strategy.spin_ns, 500_000_000) is False
    sleeps = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - begin
    # 500 sleeps of a millisecond, and some shorter ones on the way there.
    assert 0 < sleeps < 1200


WAIT_IN_VAIN = """
import mmap, sys
sys.path.insert(0, sys.argv[1])
from mdring.ring._ring import Words
from mdring.ring.idle import IDLE_STRATEGIES
from tests.ring.small_ring import SmallRing

def wait(alias):
    if alias == "word":
        Words(mmap.mmap(-1, 4096), 0, 1).wait(0, 0, 10**18)
    else:
        strategy = IDLE_STRATEGIES[alias]
        SmallRing(8).reader().wait(strategy.native, strategy.spin_ns, 10**18)

try:
    print("waiting", flush=True)
    wait(sys.argv[2])
    print("ended")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("alias", [*IDLE_STRATEGIES, "word"])
def test_ctrl_c_interrupts_any_wait(alias: str) -> None:
    command = [sys.executable, "-c", WAIT_IN_VAIN, str(ROOT), alias]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as waiting:
        try:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "waiting\n"
            time.sleep(0.05)  # so that it most probably waits; if not, it must be interrupted no less
            waiting.send_signal(signal.SIGINT)
            assert waiting.stdout.read() == "interrupted\n"  # hangs, until the test's time-out, if it is not
        finally:
            waiting.kill()


SIGNALS_AT_ANY_MOMENT = """
import mmap, random, signal, sys
sys.path.insert(0, sys.argv[1])
from mdring.ring._ring import Words
from mdring.ring.idle import IDLE_STRATEGIES
from tests.ring.small_ring import SmallRing

class Tick(Exception):
    pass

def tick(*_):
    raise Tick

signal.signal(signal.SIGALRM, tick)
reader, words = SmallRing(8).reader(), Words(mmap.mmap(-1, 4096), 0, 1)
ticks = 0
for _ in range(100):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 30e-6))
        if sys.argv[2] == "word":
            words.wait(0, 0, 10**18)
        else:
            reader.wait(IDLE_STRATEGIES[sys.argv[2]].native, 0, 10**18)
    except Tick:
        ticks += 1
print(ticks)
"""


@pytest.mark.parametrize("alias", ["block", "backoff", "word"])
def test_a_signal_just_before_the_system_call_is_not_missed(alias: str) -> None:
    command = [sys.executable, "-c", SIGNALS_AT_ANY_MOMENT, str(ROOT), alias]
    ended = subprocess.run(command, capture_output=True, text=True)  # hangs, until the test's time-out, if one is
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "100\n", "")


# ---- choosing one ----


def test_there_are_four_strategies() -> None:
    assert list(IDLE_STRATEGIES) == ["spin", "yield", "backoff", "block"]
    assert all(alias == strategy.alias for alias, strategy in IDLE_STRATEGIES.items())


def test_a_strategy_is_chosen_by_its_alias_and_may_spin_longer() -> None:
    assert idle_strategy("block") is IDLE_STRATEGIES["block"]
    spinning = idle_strategy("block", spin_us=70)
    assert (spinning.native, spinning.spin_ns) == (IDLE_STRATEGIES["block"].native, 70_000)


def test_an_unknown_alias_is_an_error_that_names_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="no idle strategy 'blok'; there are: spin, yield, backoff, block"):
        idle_strategy("blok")
