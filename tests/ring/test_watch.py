"""The watch's thread as its owner sees it: questions, answers, signals, memory, the process's end."""

from __future__ import annotations

import errno
import mmap
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdring.ring._ring import Words
from mdring.ring._watch import Watch
from tests.watch_threads import await_no_watch_thread, watch_threads

CURSOR = 0


@pytest.fixture
def words() -> Words:
    return Words(mmap.mmap(-1, mmap.PAGESIZE), 0, 8)


@pytest.fixture
def watch(words: Words) -> Iterator[Watch]:
    watch = Watch(words, CURSOR)
    yield watch
    watch.stop()


def move(words: Words) -> None:
    """As a ring's writer does."""
    words.add(CURSOR)
    words.wake(CURSOR)


def await_answer(watch: Watch) -> None:
    assert select.select([watch], [], [], 60)[0] == [watch]
    assert os.eventfd_read(watch.fileno()) == 1


def is_answered(watch: Watch) -> bool:
    return select.select([watch], [], [], 0)[0] == [watch]


def status_of(thread: Path, field: str) -> str:
    lines = (thread / "status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(field))


def sleeps_after(thread: Path) -> int:
    """How often the thread has gone to sleep, once it sleeps."""
    while status_of(thread, "State:") != "S":
        time.sleep(0.001)
    return int(status_of(thread, "voluntary_ctxt_switches:"))


def the_thread() -> Path:
    """Of the only watch, when it runs."""
    while not (found := watch_threads()):
        time.sleep(0.001)
    (thread,) = found
    return thread


def test_a_move_answers_the_question(watch: Watch, words: Words) -> None:
    assert watch.ask(0)
    assert not is_answered(watch)
    move(words)
    await_answer(watch)


def test_a_question_about_an_older_cursor_needs_no_answer(watch: Watch, words: Words) -> None:
    move(words)
    assert not watch.ask(0)


def test_a_question_is_answered_once(watch: Watch, words: Words) -> None:
    for cursor in range(1000):
        assert watch.ask(cursor)
        move(words)
        await_answer(watch)
        assert not is_answered(watch)


def test_a_wake_up_without_a_move_answers_the_question_for_the_run_may_be_over(watch: Watch, words: Words) -> None:
    assert watch.ask(0)
    sleeps_after(the_thread())
    words.wake(CURSOR)
    await_answer(watch)


def test_a_wake_up_without_a_move_answers_the_next_question_if_none_is_open(watch: Watch, words: Words) -> None:
    before = sleeps_after(the_thread())
    words.wake(CURSOR)
    while sleeps_after(the_thread()) == before:
        time.sleep(0.001)
    assert watch.ask(0)
    await_answer(watch)


def test_a_question_that_nobody_waits_for_any_more_can_be_asked_again(watch: Watch, words: Words) -> None:
    for _ in range(3):
        assert watch.ask(0)
    move(words)
    await_answer(watch)
    assert not watch.ask(0)


def test_the_thread_sleeps_while_nothing_moves(watch: Watch) -> None:
    assert watch.ask(0)
    before = sleeps_after(the_thread())
    time.sleep(0.5)
    assert sleeps_after(the_thread()) == before


def test_a_busy_owner_has_no_thread_beside_it_that_wakes_up_for_each_move(watch: Watch, words: Words) -> None:
    before = sleeps_after(the_thread())
    for _ in range(50):
        move(words)
        time.sleep(0.001)
    assert sleeps_after(the_thread()) - before <= 2
    assert watch.ask(50)
    move(words)
    await_answer(watch)


def test_signals_are_left_to_the_threads_that_can_handle_them(watch: Watch) -> None:
    blocked = int(status_of(the_thread(), "SigBlk:"), 16)
    assert blocked & 1 << signal.SIGINT - 1
    assert blocked & 1 << signal.SIGTERM - 1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_stopping_ends_the_thread_and_closes_the_descriptor_wherever_the_thread_is(words: Words) -> None:
    for turn in range(300):
        watch = Watch(words, CURSOR)
        descriptor = watch.fileno()
        if turn % 3:
            watch.ask(words.load(CURSOR))
        if turn % 2:
            move(words)
        watch.stop()
        watch.stop()
        await_no_watch_thread()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.eventfd_read(descriptor)
        for use in (watch.fileno, lambda watch=watch: watch.ask(0)):
            with pytest.raises(ValueError, match="stopped"):
                use()


def test_a_watch_that_is_forgotten_stops(words: Words) -> None:
    Watch(words, CURSOR)
    await_no_watch_thread()


def test_the_memory_stays_mapped_until_the_thread_has_ended() -> None:
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    watch = Watch(Words(memory, 0, 8), CURSOR)
    with pytest.raises(BufferError):
        memory.close()
    watch.stop()
    memory.close()


def test_a_word_that_is_not_there_is_refused(words: Words) -> None:
    for index in (-1, 8):
        with pytest.raises(IndexError, match=f"word {index} of 8"):
            Watch(words, index)


def test_without_a_descriptor_it_does_not_start() -> None:
    script = """
import mmap, resource
from mdring.ring._ring import Words
from mdring.ring._watch import Watch
words = Words(mmap.mmap(-1, mmap.PAGESIZE), 0, 8)
resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))
try:
    Watch(words, 0)
except OSError as error:
    print(error)
"""
    assert run(script) == f"[Errno {errno.EMFILE}] {os.strerror(errno.EMFILE)}\n"


def run(script: str) -> str:
    """What a Python program prints that must end by itself, and well."""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def test_the_interpreter_ends_while_threads_sleep() -> None:
    script = """
import mmap
from mdring.ring._ring import Words
from mdring.ring._watch import Watch
words = Words(mmap.mmap(-1, mmap.PAGESIZE), 0, 8)
asleep, asked = Watch(words, 0), Watch(words, 1)
asked.ask(0)
kept_for_ever = [asleep]
kept_for_ever.append(kept_for_ever)
print("ended")
"""
    assert run(script) == "ended\n"


def test_a_forked_child_lets_its_parents_watch_go_and_has_its_own() -> None:
    script = """
import mmap, os, select
from mdring.ring._ring import Words
from mdring.ring._watch import Watch
words = Words(mmap.mmap(-1, mmap.PAGESIZE), 0, 8)
def asks_and_is_answered(watch, index):
    assert watch.ask(words.load(index))
    words.add(index); words.wake(index)
    assert select.select([watch], [], [], 60)[0]
    os.eventfd_read(watch.fileno())
parents = Watch(words, 0)
asks_and_is_answered(parents, 0)
child = os.fork()
if child == 0:
    parents.stop()
    own = Watch(words, 1)
    asks_and_is_answered(own, 1)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
asks_and_is_answered(parents, 0)
print("both")
"""
    assert run(script) == "both\n"
