"""The sequencer's merge, in one process; kills stand in stress/test_sequencer_killed.py."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mdring.counters import Counter, Counters, Histogram
from mdring.record import RECORD, Flags
from mdring.ring._ring import Words
from mdring.ring.idle import IDLE_STRATEGIES
from mdring.ring.segment import AlreadyWritten
from mdring.sequencer import Sequencer
from tests.runs import TestRun, open_reader, open_writer, records, temporary_run

CURSOR_WORD = 0  # of a ring's writer block


def read_tape(run: TestRun) -> npt.NDArray[np.void]:
    """All that is on the tape, checked for an unbroken seq."""
    reader = open_reader(run.tape)
    out = np.zeros(reader.cursor + 1, dtype=RECORD)
    got = out[: reader.poll(out)]
    assert reader.lost == 0
    assert got["seq"].tolist() == list(range(1, len(got) + 1))
    return got


def drain(sequencer: Sequencer) -> None:
    while sequencer.do_work():
        pass


def test_groups_of_several_venues_are_merged_by_time_of_receipt() -> None:
    with temporary_run(("alpha", "beta")) as run:
        alpha, beta = (open_writer(run.rings[venue]) for venue in ("alpha", "beta"))
        alpha.publish(records(3, venue_id=1, ts_recv=[10, 30, 50]))
        beta.publish(records(3, venue_id=2, ts_recv=[20, 40, 60]))
        drain(Sequencer(run.folder, run.venue_ids))
        assert read_tape(run)["ts_recv"].tolist() == [10, 20, 30, 40, 50, 60]


def test_an_event_group_stays_contiguous_and_ends_with_last() -> None:
    with temporary_run(("alpha", "beta")) as run:
        alpha, beta = (open_writer(run.rings[venue]) for venue in ("alpha", "beta"))
        alpha.publish(records(8, group=4, venue_id=1, ts_recv=[1, 1, 1, 1, 3, 3, 3, 3]))
        beta.publish(records(4, group=2, venue_id=2, ts_recv=[2, 2, 4, 4]))
        drain(Sequencer(run.folder, run.venue_ids))
        tape = read_tape(run)
        assert tape["venue_id"].tolist() == [1] * 4 + [2] * 2 + [1] * 4 + [2] * 2
        assert np.flatnonzero(tape["flags"] & Flags.LAST).tolist() == [3, 5, 9, 11]


def test_a_quiet_venue_delays_no_other() -> None:
    with temporary_run(("quiet", "busy")) as run:
        open_writer(run.rings["busy"]).publish(records(5, venue_id=2))
        drain(Sequencer(run.folder, run.venue_ids))
        assert len(read_tape(run)) == 5


def test_a_noisy_venue_takes_no_more_than_its_share_of_a_batch() -> None:
    with temporary_run(("noisy", "calm")) as run:
        open_writer(run.rings["noisy"]).publish(records(200, venue_id=1, ts_recv=1))
        open_writer(run.rings["calm"]).publish(records(1, venue_id=2, ts_recv=2))
        sequencer = Sequencer(run.folder, run.venue_ids, max_batch=64)
        assert sequencer.do_work() == 33  # half a batch of the noisy one, then the calm one
        assert read_tape(run)["venue_id"].tolist() == [1] * 32 + [2]


def test_a_group_larger_than_a_batch_goes_through_whole() -> None:
    with temporary_run() as run:
        open_writer(run.rings["alpha"]).publish(records(300, group=300))
        sequencer = Sequencer(run.folder, run.venue_ids, max_batch=64)
        assert sequencer.do_work() == 300


def test_every_record_is_stamped_and_counted() -> None:
    with temporary_run() as run:
        before = time.time_ns()
        open_writer(run.rings["alpha"]).publish(records(10, group=5, ts_recv=before))
        sequencer = Sequencer(run.folder, run.venue_ids)
        sequencer.stop()
        sequencer.run(IDLE_STRATEGIES["block"])
        assert (before <= read_tape(run)["ts_seq"]).all()
        counters = Counters.attach(run.folder.counters("sequencer"))
        assert counters.load(Counter.RECORDS) == 10
        assert counters.load(Counter.LAG) == 0
        assert counters.quantiles(Histogram.RECEIVE_TO_SEQUENCED).count == 2  # one for each group


def test_stamping_leaves_all_other_fields_as_the_worker_wrote_them() -> None:
    generator = np.random.default_rng(7)
    sent = np.frombuffer(generator.bytes(50 * RECORD.itemsize), dtype=RECORD).copy()
    sent["flags"] = sent["flags"] | np.uint8(Flags.LAST)
    sent["ts_recv"] = np.arange(50)
    with temporary_run() as run:
        open_writer(run.rings["alpha"]).publish(sent)
        drain(Sequencer(run.folder, run.venue_ids))
        tape = read_tape(run).copy()
        tape["seq"], tape["ts_seq"] = sent["seq"], sent["ts_seq"]
        assert tape.tobytes() == sent.tobytes()


def test_a_second_sequencer_is_refused() -> None:
    with temporary_run() as run:
        first = Sequencer(run.folder, run.venue_ids)
        with pytest.raises(AlreadyWritten):
            Sequencer(run.folder, run.venue_ids)
        assert first.cursor == 0


class Snapshot:
    """The sequencer's shared memory at one moment, to be put back: what a kill would have left behind."""

    def __init__(self, run: TestRun) -> None:
        self.paths = (run.folder.tape, run.folder.counters("sequencer"))
        self.images = [path.read_bytes() for path in self.paths]

    def restore(self, which: int) -> None:
        path = self.paths[which]
        with path.open("r+b") as file:
            file.write(self.images[which])


@pytest.mark.parametrize(
    ("tape_is_older", "counters_are_older"), [(True, False), (False, False), (True, True)],
    ids=["killed_before_the_batch_showed", "killed_after_it_was_noted", "killed_before_the_intent"],
)  # fmt: skip
def test_a_restart_publishes_every_record_exactly_once(tape_is_older: bool, counters_are_older: bool) -> None:
    with temporary_run(("alpha", "beta")) as run:
        writers = {venue: open_writer(run.rings[venue]) for venue in run.venue_ids}
        for venue, number in run.venue_ids.items():
            writers[venue].publish(records(10, venue_id=number, price=np.arange(10), ts_recv=np.arange(10)))
        sequencer: Any = Sequencer(run.folder, run.venue_ids)
        drain(sequencer)
        before = Snapshot(run)
        for venue, number in run.venue_ids.items():
            writers[venue].publish(records(10, venue_id=number, price=np.arange(10, 20), ts_recv=np.arange(10)))
        drain(sequencer)
        sequencer.counters.segment.close()
        sequencer._tape.close()
        if tape_is_older:
            before.restore(0)
        if counters_are_older:
            before.restore(1)
        drain(Sequencer(run.folder, run.venue_ids))
        tape = read_tape(run)
        for number in run.venue_ids.values():
            assert tape[tape["venue_id"] == number]["price"].tolist() == list(range(20))


def test_a_tape_that_contradicts_both_intents_is_an_error() -> None:
    with temporary_run() as run:
        writer = open_writer(run.rings["alpha"])
        empty = Snapshot(run)
        sequencer: Any = Sequencer(run.folder, run.venue_ids)
        for _ in range(3):
            writer.publish(records(4))
            drain(sequencer)
        sequencer.counters.segment.close()
        sequencer._tape.close()
        empty.restore(0)
        with pytest.raises(RuntimeError, match="fits neither stored intent"):
            Sequencer(run.folder, run.venue_ids)


def test_an_overwritten_venue_ring_stops_the_sequencer_with_its_venue() -> None:
    with temporary_run(ring_slots=64) as run:
        writer = open_writer(run.rings["alpha"])
        for _ in range(4):
            writer.publish(records(32))  # ignores the back-pressure
        with pytest.raises(RuntimeError, match="venue_id 1 is damaged"):
            drain(Sequencer(run.folder, run.venue_ids))


def test_a_record_that_a_venue_rings_cursor_does_not_cover_yet_is_sequenced_and_leaves_no_lag() -> None:
    """Shown is published: a worker that is preempted or killed right after that has yet to move the cursor."""
    with temporary_run(("alpha", "beta")) as run:
        open_writer(run.rings["alpha"]).publish(records(10))
        open_writer(run.rings["beta"]).publish(records(3, venue_id=2))
        run.rings["alpha"].writer_block.store(CURSOR_WORD, 6)
        sequencer = Sequencer(run.folder, run.venue_ids)
        sequencer.stop()
        sequencer.run(IDLE_STRATEGIES["block"])
        assert len(read_tape(run)) == 13
        assert Counters.attach(run.folder.counters("sequencer")).load(Counter.LAG) == 0


def test_positions_for_back_pressure_follow_the_tape() -> None:
    with temporary_run(ring_slots=64) as run:
        from mdring.counters import POSITIONS_WORD

        writer = open_writer(run.rings["alpha"])
        positions: Words = Counters.attach(run.folder.counters("sequencer")).words
        batch = records(32)
        assert writer.try_publish(batch, 32, positions.load(POSITIONS_WORD + 1)) == 32
        assert writer.try_publish(batch, 32, positions.load(POSITIONS_WORD + 1)) == 64
        assert writer.try_publish(batch, 1, positions.load(POSITIONS_WORD + 1)) == 0
        drain(Sequencer(run.folder, run.venue_ids))
        assert writer.try_publish(batch, 32, positions.load(POSITIONS_WORD + 1)) == 96


def test_the_process_sequences_sleeps_and_drains_on_sigterm() -> None:
    with temporary_run() as run:
        run.folder.config.write_bytes(
            b'{"venues": [{"id": "alpha", "adapter": "binance", "subscriptions": '
            b'[{"instrument": "BTCUSDT", "data_types": ["trade"]}]}]}'
        )
        command = [sys.executable, "-m", "mdring.sequencer"]
        command += ["--run-folder", str(run.folder.path), "--parent", str(os.getpid())]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        try:
            writer = open_writer(run.rings["alpha"])
            counters = Counters.attach(run.folder.counters("sequencer"))
            reader = open_reader(run.tape)
            out = np.zeros(64, dtype=RECORD)
            for _ in range(20):
                writer.publish(records(3))
                writer.wake()
                while reader.poll(out) == 0:
                    assert reader.wait(IDLE_STRATEGIES["block"].native, 0, 20_000_000_000)
            assert reader.position == 60
            writer.publish(records(3))  # nobody wakes it: the drain has to find them
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 0
            assert run.tape.cursor == 63
            assert counters.load(Counter.HEARTBEAT_NS) > 0
        finally:
            process.kill()
            process.communicate()
