"""``async for`` over tapes on real event loops, asyncio's and uvloop's, with writers in other processes."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import uvloop

import mdring
from mdring import consumer
from mdring.cursor_watch import CursorWatch
from mdring.ring._ring import Writer
from mdring.ring.segment import RunState
from tests.runs import TestRun, open_writer, records, temporary_run
from tests.watch_threads import await_no_watch_thread, sleeping_watch_threads, watch_threads

ROOT: Final = Path(__file__).parents[1]
LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
ON_BOTH_LOOPS = pytest.mark.parametrize("make_loop", LOOPS.values(), ids=LOOPS)

# Publishes one record for each byte that it reads; told to, it publishes many without waiting for anybody.
WRITER = """
import os, sys
from pathlib import Path
from tests.runs import attach_ring, open_writer, records
writer, record = open_writer(attach_ring(Path(sys.argv[1]), writable=True)), records(1)
print("ready", flush=True)
while wanted := os.read(0, 1):
    for _ in range(int(sys.argv[2])):
        writer.publish(record)
        writer.wake()
"""


@pytest.fixture
def run() -> Iterator[TestRun]:
    with temporary_run(tape_slots=1 << 15) as run:
        yield run


@pytest.fixture
def nothing_but_the_watch_ends_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the look at whether the run still lives would hide a wake-up that was missed."""
    monkeypatch.setattr(consumer, "_CHECK_INTERVAL_NS", 3600 * 1_000_000_000)


def attach(run: TestRun, **options: Any) -> mdring.Consumer:
    return mdring.attach("test", directory=run.folder.path.parent, **options)


@contextmanager
def writing(run: TestRun, *, records_per_byte: int) -> Iterator[int]:
    """A process that writes the tape; gives the descriptor whose bytes it waits for."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(run.folder.tape), str(records_per_byte)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process.stdin.fileno()
    process.stdin.close()
    assert process.wait(timeout=60) == 0
    process.stdout.close()


def complete(make_loop: Any, work: Coroutine[Any, Any, Any]) -> Any:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        return runner.run(work)


async def take(tape: mdring.Consumer, until: int) -> list[int]:
    """The seqs that come up to one."""
    seqs: list[int] = []
    async for batch in tape:
        seqs += batch["seq"].tolist()
        if seqs[-1] >= until:
            break
    return seqs


@ON_BOTH_LOOPS
@pytest.mark.usefixtures("nothing_but_the_watch_ends_a_wait")
def test_a_writer_that_waits_for_each_record_to_be_seen_is_never_left_waiting(run: TestRun, make_loop: Any) -> None:
    async def see_each(writer: int) -> None:
        with attach(run) as tape:
            os.write(writer, b".")
            async for batch in tape:
                assert len(batch) == 1
                if batch["seq"][-1] == 5000:
                    return
                if batch["seq"][-1] % 3 == 0:
                    await asyncio.sleep(0)
                os.write(writer, b".")  # the next record comes while this consumer asks to be woken

    with writing(run, records_per_byte=1) as writer:
        complete(make_loop, see_each(writer))


@ON_BOTH_LOOPS
@pytest.mark.usefixtures("nothing_but_the_watch_ends_a_wait")
def test_several_tapes_on_several_loops_in_several_threads_miss_nothing(run: TestRun, make_loop: Any) -> None:
    total, results = 20_000, []

    def consume(tapes: list[mdring.Consumer]) -> None:
        async def take_all() -> list[list[int]]:
            return await asyncio.gather(*(take(tape, total) for tape in tapes))

        results.extend(complete(make_loop, take_all()))

    threads = [threading.Thread(target=consume, args=([attach(run) for _ in range(3)],)) for _ in range(3)]
    for thread in threads:
        thread.start()
    with writing(run, records_per_byte=total // 10) as writer:
        os.write(writer, b"." * 10)
        for thread in threads:
            thread.join()
    assert results == [list(range(1, total + 1))] * 9
    await_no_watch_thread()


@ON_BOTH_LOOPS
@pytest.mark.usefixtures("nothing_but_the_watch_ends_a_wait")
def test_an_orderly_end_of_the_run_ends_the_loop_at_once(run: TestRun, make_loop: Any) -> None:
    async def take_all() -> list[int]:
        waiting = asyncio.ensure_future(take(tape, 100))
        while not sleeping_watch_threads():
            await asyncio.sleep(0.001)
        run.tape.end(RunState.CLOSED)
        return await waiting

    open_writer(run.tape).publish(records(5))
    with attach(run, start="oldest") as tape:
        assert complete(make_loop, take_all()) == [1, 2, 3, 4, 5]


@ON_BOTH_LOOPS
@pytest.mark.usefixtures("nothing_but_the_watch_ends_a_wait")
def test_an_orderly_end_of_the_run_ends_the_loop_at_once_though_its_body_was_busy_then(
    run: TestRun, make_loop: Any
) -> None:
    async def take_until_the_end() -> list[int]:
        seqs: list[int] = []
        asyncio.get_running_loop().call_later(0.01, publish)
        async with asyncio.timeout(60):
            async for batch in tape:
                seqs += batch["seq"].tolist()
                while not sleeping_watch_threads():
                    await asyncio.sleep(0.001)
                run.tape.end(RunState.CLOSED)
        return seqs

    def publish() -> None:
        writer.publish(records(1))
        writer.wake()

    writer = open_writer(run.tape)
    with attach(run) as tape:
        assert complete(make_loop, take_until_the_end()) == [1]


@ON_BOTH_LOOPS
def test_a_run_whose_supervisor_died_is_noticed_while_nothing_comes(
    run: TestRun, make_loop: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "_CHECK_INTERVAL_NS", 10_000_000)
    with attach(run) as tape:
        run.lock.close()
        with pytest.raises(mdring.RunEnded):
            complete(make_loop, take(tape, 1))


@ON_BOTH_LOOPS
def test_sampled_batches_come_when_they_are_due_though_nothing_else_comes(run: TestRun, make_loop: Any) -> None:
    async def two() -> list[list[int]]:
        batches = aiter(tape)
        first = await anext(batches)
        writer.publish(records(1))
        second = await anext(batches)  # it is there, but not due, and no record follows it
        return [first["seq"].tolist(), second["seq"].tolist()]

    writer = open_writer(run.tape)
    with attach(run, delivery="sampled", interval_s=0.05) as tape:
        writer.publish(records(1))
        assert complete(make_loop, two()) == [[1], [2]]


@ON_BOTH_LOOPS
def test_a_wait_that_is_cancelled_leaves_no_thread_and_the_tape_goes_on(run: TestRun, make_loop: Any) -> None:
    async def cancel_then_take() -> list[int]:
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            waiting = asyncio.ensure_future(take(tape, 1))
            while not watch_threads():
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await asyncio.sleep(0)
            await_no_watch_thread()
        assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
        open_writer(run.tape).publish(records(1))
        return await take(tape, 1)

    with attach(run) as tape:
        assert complete(make_loop, cancel_then_take()) == [1]


@ON_BOTH_LOOPS
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_is_closed_while_a_task_waits_takes_no_harm_and_leaves_no_thread(
    run: TestRun, make_loop: Any
) -> None:
    writer = open_writer(run.tape)
    loop = make_loop()

    async def start() -> None:
        waiting.append(asyncio.ensure_future(take(tape, 1)))
        while not watch_threads():
            await asyncio.sleep(0)

    waiting: list[asyncio.Future[list[int]]] = []
    with attach(run) as tape:
        loop.run_until_complete(start())
        loop.close()
        writer.publish(records(1))
        writer.wake()
        del loop, waiting[:]
        gc.collect()
        await_no_watch_thread()
        assert complete(make_loop, take(tape, 1)) == [1]


@ON_BOTH_LOOPS
def test_a_tape_that_is_closed_while_a_task_waits_stays_mapped_for_it(run: TestRun, make_loop: Any) -> None:
    async def close() -> list[int]:
        waiting = asyncio.ensure_future(take(tape, 4))
        while not watch_threads():
            await asyncio.sleep(0)
        tape.close()
        gc.collect()
        writer.publish(records(4))
        writer.wake()
        return await waiting

    writer = open_writer(run.tape)
    tape = attach(run)
    assert complete(make_loop, close()) == [1, 2, 3, 4]


@ON_BOTH_LOOPS
def test_a_watch_follows_to_another_tape_and_returns_when_the_time_is_out(make_loop: Any) -> None:
    async def follow(runs: list[TestRun]) -> None:
        writers = {run.run_id: open_writer(run.tape) for run in runs}
        with closing(CursorWatch()) as watch:
            for run in (*runs, *runs):
                writer, block = writers[run.run_id], run.tape.writer_block
                cursor = writer.cursor
                await watch.wait(block, 0, cursor, 0.001)
                asyncio.get_running_loop().call_later(0.01, publish, writer)
                while run.tape.cursor == cursor:
                    await watch.wait(block, 0, cursor, 3600)
                assert len(watch_threads()) == 1
        await_no_watch_thread()

    def publish(writer: Writer) -> None:
        writer.publish(records(1))
        writer.wake()

    with temporary_run() as first, temporary_run() as second:
        complete(make_loop, follow([first, second]))


@ON_BOTH_LOOPS
def test_other_tasks_have_their_turn_while_the_tape_is_never_empty(run: TestRun, make_loop: Any) -> None:
    writer = open_writer(run.tape)

    async def consume(turns: list[int]) -> int:
        delivered = 0
        async for batch in tape:
            delivered += len(batch)
            writer.publish(records(1))
            if turns or delivered > 1000:
                break
        return delivered

    async def both() -> int:
        turns: list[int] = []
        consuming = asyncio.ensure_future(consume(turns))
        asyncio.get_running_loop().call_soon(asyncio.get_running_loop().call_soon, turns.append, 1)
        return await consuming

    with attach(run) as tape:
        writer.publish(records(1))
        assert complete(make_loop, both()) < 10


@ON_BOTH_LOOPS
@pytest.mark.parametrize("kinds", [None, [mdring.Kind.FUNDING]], ids=["every record", "none of the records"])
def test_other_tasks_have_their_turn_while_records_come_before_every_wait(
    run: TestRun, make_loop: Any, kinds: list[mdring.Kind] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, waits = open_writer(run.tape), []
    wait = CursorWatch.wait

    def publish_then_wait(watch: CursorWatch, *arguments: Any) -> asyncio.Future[None]:
        waits.append(writer.publish(records(1)))
        if len(waits) > 1000:
            raise AssertionError("nobody else has had a turn")
        return wait(watch, *arguments)

    async def both() -> int:
        async with asyncio.timeout(60):
            consuming = asyncio.ensure_future(take(tape, 1 << 30))
            for _ in range(20):
                await asyncio.sleep(0)
            consuming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await consuming
        return len(waits)

    monkeypatch.setattr(CursorWatch, "wait", publish_then_wait)
    with attach(run, kinds=kinds) as tape:
        assert complete(make_loop, both()) <= 20
