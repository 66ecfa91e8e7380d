"""The sequencer, killed by SIGKILL at random moments under load: promises 1 to 3 must hold on the tape.

Two processes write venue rings as workers do (with back-pressure), a third is the sequencer and is killed again and
again, the test is a consumer. Forbidden: a seq skipped or used twice, a record of a venue ring missing or twice on
the tape, an event group torn apart, records of one venue out of order.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.context import ForkProcess
from multiprocessing.sharedctypes import Synchronized

import numpy as np
import numpy.typing as npt
import pytest

from mdring.counters import POSITIONS_WORD, WAITING_WORD, Counters
from mdring.record import RECORD, Flags
from mdring.ring.idle import IDLE_STRATEGIES
from mdring.run_folder import RunFolder
from mdring.sequencer import Sequencer
from tests.runs import attach_ring, open_reader, open_writer, records, temporary_run

FORK = multiprocessing.get_context("fork")
VENUES = ("alpha", "beta")
TAPE_SLOTS = 1 << 18
MAX_AHEAD = TAPE_SLOTS // 4
"""Records of a venue that its writer may be ahead of the consumer."""


def write_venue(
    folder: RunFolder,
    venue: str,
    venue_id: int,
    stop: Synchronized[int],
    published: Synchronized[int],
    consumed: Synchronized[int],
) -> None:
    """A worker's publishing: groups of 1 to 40 records, numbered in ``price``; waits when the ring is full.

    It waits for the consumer, too, which on a busy machine would be lapped else: losses are not this test's matter.
    """
    generator = random.Random(venue_id)
    writer = open_writer(attach_ring(folder.venue_ring(venue), writable=True))
    sequencer = Counters.attach(folder.counters("sequencer")).words
    number = 0
    while not stop.value:
        group = generator.randint(1, 40)
        batch = records(group, group=group, venue_id=venue_id, price=np.arange(number, number + group))
        batch["size"] = np.arange(group)  # place in the group
        batch["ts_recv"] = time.time_ns()
        while number - consumed.value > MAX_AHEAD and not stop.value:
            time.sleep(0.0002)
        while not writer.try_publish(batch, group, sequencer.load(POSITIONS_WORD + venue_id)):
            time.sleep(0.0002)
        writer.wake_if(sequencer, WAITING_WORD)
        number += group
        if generator.random() < 0.01:
            time.sleep(0.001)
    published.value = number


def sequence(folder: RunFolder) -> None:
    sequencer = Sequencer(folder, {venue: number for number, venue in enumerate(VENUES, 1)}, max_batch=256)
    sequencer.run(IDLE_STRATEGIES["block"])


def check(tape: npt.NDArray[np.void], next_seq: int, next_number: dict[int, int]) -> None:
    """One batch of the tape against what must come next; advances ``next_number``."""
    assert tape["seq"].tolist() == list(range(next_seq, next_seq + len(tape)))
    assert tape["flags"][-1] & Flags.LAST
    starts = np.concatenate(([True], (tape["flags"][:-1] & Flags.LAST) != 0))
    assert (tape["size"][starts] == 0).all(), "a group begins in its middle"
    inside = ~starts[1:]
    assert (tape["size"][1:][inside] == tape["size"][:-1][inside] + 1).all(), "a group is torn apart"
    assert (tape["venue_id"][1:][inside] == tape["venue_id"][:-1][inside]).all(), "two groups are mixed"
    for venue_id in next_number:
        numbers = tape["price"][tape["venue_id"] == venue_id]
        expected = np.arange(next_number[venue_id], next_number[venue_id] + len(numbers))
        assert np.array_equal(numbers, expected), "a record is missing, or there twice"
        next_number[venue_id] += len(numbers)


@pytest.mark.parametrize("kills", [60, pytest.param(2000, marks=pytest.mark.long)])
def test_sequencer_killed_at_any_moment__every_record_once_in_order__never_a_seq_twice(kills: int) -> None:
    generator = random.Random(kills)
    with temporary_run(VENUES, tape_slots=TAPE_SLOTS, ring_slots=2048) as run:
        run.tape.close()
        stop = FORK.Value("i", 0)
        published = {number: FORK.Value("q", 0) for number in run.venue_ids.values()}
        consumed = {number: FORK.Value("q", 0) for number in run.venue_ids.values()}
        writers = [
            FORK.Process(
                target=write_venue, args=(run.folder, venue, number, stop, published[number], consumed[number])
            )
            for venue, number in run.venue_ids.items()
        ]
        reader = open_reader(attach_ring(run.folder.tape))
        out = np.zeros(8192, dtype=RECORD)
        next_number = dict.fromkeys(run.venue_ids.values(), 0)
        next_seq = 1
        sequencer: ForkProcess | None = None

        def consume() -> None:
            nonlocal next_seq
            while count := reader.poll(out):
                check(out[:count], next_seq, next_number)
                next_seq += count
                for venue_id, number in next_number.items():
                    consumed[venue_id].value = number

        try:
            for writer in writers:
                writer.start()
            for _ in range(kills):
                sequencer = FORK.Process(target=sequence, args=(run.folder,))
                sequencer.start()
                deadline = time.monotonic() + generator.random() * 0.04
                while time.monotonic() < deadline:
                    consume()
                assert sequencer.pid is not None
                os.kill(sequencer.pid, signal.SIGKILL)
                sequencer.join()
                assert sequencer.exitcode == -signal.SIGKILL, "the sequencer failed before it was killed"
            stop.value = 1
            sequencer = FORK.Process(target=sequence, args=(run.folder,))
            sequencer.start()
            for writer in writers:
                while writer.is_alive():
                    consume()
                assert writer.exitcode == 0
            while next_number != {number: count.value for number, count in published.items()}:
                assert reader.wait(IDLE_STRATEGIES["block"].native, 0, 20_000_000_000), "records are missing"
                consume()
            assert reader.lost == 0
            assert next_seq - 1 == sum(next_number.values()) > kills
        finally:
            for process in (*writers, sequencer):
                if process is not None and process.is_alive():
                    process.kill()
                    process.join()
