"""What being followed costs the sequencer: its CPU time for each record, with none to many consumers.

::

    venue ring ──▶ sequencer ──▶ tape ──┬─▶ consumer 1
     (a batch each millisecond)         ├─▶ ...
                                        └─▶ consumer N, some of them stopped with SIGSTOP

Consumers register nowhere. For each batch the sequencer wakes at most two who sleep on the cursor, and they wake the
others: so any number that blocks is held against two that do. A consumer that polls, is stopped, or is not asleep when
the next batch comes costs nothing: these are held against none.

The answer is checked: each consumer has received or lost every record, exactly those lost that are missing from the
seqs it saw, and the stopped ones were lapped.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import mdring
from benchmarks._harness import FORK, Result, peer, require
from benchmarks._run_folder import open_reader, open_writer, run_folder
from mdring.record import RECORD, Flags, Kind
from mdring.ring.idle import idle_strategy
from mdring.sequencer import Sequencer

TAPE_SLOTS: Final = 8192
BATCH: Final = 20
TARGET_RATIO: Final = 1.1
_PACE_S: Final = 0.001
_CPU_TIME_OF_A_PROCESS: Final = 2
"""CPUCLOCK_SCHED: the kernel's clock ids of other processes are made of their pid and this."""


class Following(NamedTuple):
    """Who follows: ``idle`` is the consumers' idle strategy, ``stopped`` of them do not run while it is measured."""

    consumers: int = 0
    idle: str = "block"
    stopped: int = 0

    def __str__(self) -> str:
        if not self.consumers:
            return "no consumer"
        how = "block" if self.idle == "block" else f"poll ({self.idle})"
        stopped = f", {self.stopped} of them stopped" if self.stopped else ""
        return f"{self.consumers} that {how}{stopped}"


FOLLOWINGS: Final = (
    Following(),
    Following(1),
    Following(2),
    Following(20),
    Following(20, stopped=5),
    Following(1, "backoff"),
    Following(20, "backoff"),
    Following(20, "backoff", stopped=5),
)


class Answer(NamedTuple):
    """What a consumer saw: ``missing`` are the seqs that it did not."""

    begin: int
    position: int
    received: int
    missing: int
    lost: int


def _follow(runs: Path, idle: str, pipe: Connection) -> None:
    """A consumer: follows until it is told the last seq and has it."""
    with mdring.attach("bench", directory=runs, idle=idle) as tape:
        begin = last = tape.position
        received = missing = 0
        pipe.send(begin)
        end: int | None = None
        while end is None or tape.position < end:
            batch = tape.poll()
            if len(batch):
                received += len(batch)
                first, newest = int(batch["seq"][0]), int(batch["seq"][-1])
                missing += (first - last - 1) + (newest - first + 1 - len(batch))
                last = newest
            elif not tape.wait(0.1) and pipe.poll():
                end = pipe.recv()
        pipe.send(Answer(begin, tape.position, received, missing, tape.lost))


def _cpu_ns(pid: int) -> int:
    return time.clock_gettime_ns((~pid << 3) | _CPU_TIME_OF_A_PROCESS)


def _records() -> np.ndarray[tuple[int], np.dtype[np.void]]:
    made = np.zeros(BATCH, dtype=RECORD)
    made["kind"], made["flags"], made["venue_id"] = Kind.TRADE, Flags.LAST, 1
    return made


def cpu_per_record(following: Following, seconds: float) -> float:
    """ns of the sequencer's CPU time for each record; it blocks without spinning, for that would hide the rest."""
    with run_folder(["alpha"], tape_slots=TAPE_SLOTS, ring_slots=TAPE_SLOTS) as folder, ExitStack() as stack:

        def sequence() -> None:
            sequencer = Sequencer(folder, {"alpha": 1})
            signal.signal(signal.SIGTERM, lambda *_: sequencer.stop())
            sequencer.run(idle_strategy("block", 0))

        sequencing = stack.enter_context(peer(sequence))
        pipes, pids = [], []
        for _ in range(following.consumers):
            here, there = FORK.Pipe()
            process = stack.enter_context(peer(_follow, folder.path.parent, following.idle, there))
            pipes.append(here)
            pids.append(process.pid or 0)
        for pipe in pipes:
            pipe.recv()
        tape = open_reader(folder.tape)
        writer, records = open_writer(folder.venue_ring("alpha")), _records()

        def load(steps: int) -> None:
            due = time.monotonic()
            for _ in range(steps):
                records["ts_recv"] = time.time_ns()
                while not writer.try_publish(records, -1, tape.cursor):
                    time.sleep(_PACE_S)
                writer.wake()
                due += _PACE_S
                time.sleep(max(0.0, due - time.monotonic()))

        load(100)
        for pid in pids[: following.stopped]:
            os.kill(pid, signal.SIGSTOP)
        before, published = _cpu_ns(sequencing.pid or 0), writer.cursor
        load(max(int(seconds / _PACE_S), 2 * TAPE_SLOTS // BATCH))
        while tape.cursor < writer.cursor:
            time.sleep(_PACE_S)
        cost = (_cpu_ns(sequencing.pid or 0) - before) / (writer.cursor - published)
        for pid in pids[: following.stopped]:
            os.kill(pid, signal.SIGCONT)
        for pipe in pipes:
            pipe.send(writer.cursor)
        answers: list[Answer] = [pipe.recv() for pipe in pipes]
        sequencing.terminate()
        for answer in answers:
            require(answer.position == writer.cursor, "a consumer did not reach the end of the tape")
            require(answer.received + answer.lost == answer.position - answer.begin, "a consumer's account is wrong")
            require(answer.missing == answer.lost, f"a consumer lost {answer.missing} records, but says {answer.lost}")
        require(all(answer.lost > 0 for answer in answers[: following.stopped]), "a stopped consumer was not lapped")
        return cost


def costs(seconds: float, rounds: int) -> list[Result]:
    """The sequencer's cost for each kind of following, and how many times that with none, or with two; medians."""
    measured = [[cpu_per_record(following, seconds) for following in FOLLOWINGS] for _ in range(rounds)]
    medians = dict(zip(FOLLOWINGS, np.median(measured, axis=0).tolist(), strict=True))
    none, two_sleep = medians[Following()], medians[Following(2)]
    results = []
    for following, cost in medians.items():
        results.append(Result(name=f"sequencer's CPU time a record, {following}", value=cost, unit="ns"))
        if following.consumers:
            target = None if following.idle == "block" else TARGET_RATIO
            results.append(Result(name="  ÷ with no consumer", value=cost / none, unit="×", target=target))
        if following.idle == "block" and following.consumers > 2:
            results.append(Result(name="  ÷ with 2 that block", value=cost / two_sleep, unit="×", target=TARGET_RATIO))
    return results
