"""The consumer against real tapes; another process writes where two are needed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import mdring
from mdring import consumer
from mdring.record import LAYOUT_VERSION, RECORD, UNDEFINED_PRICE, Flags, Kind
from mdring.ring import segment
from mdring.ring._ring import Words
from mdring.ring.segment import RunState
from tests.runs import TestRun, open_writer, records, temporary_directory, temporary_run


def attach(run: TestRun, **options: object) -> mdring.Consumer:
    return mdring.attach("test", directory=run.folder.path.parent, **options)  # type: ignore[arg-type]


def add_instruments(run: TestRun, *names: str) -> None:
    for name in names:
        run.instruments.append(1, "alpha", name.replace("-", ""), name, -2, -5)


def test_a_consumer_that_starts_at_the_tail_sees_what_comes_from_now_on() -> None:
    with temporary_run() as run:
        writer = open_writer(run.tape)
        writer.publish(records(5))
        with attach(run) as tape:
            assert len(tape.poll()) == 0
            writer.publish(records(3))
            assert tape.poll()["seq"].tolist() == [6, 7, 8]
            assert (tape.position, tape.lost, tape.lag) == (8, 0, 0)


def test_start_oldest_gives_all_that_the_tape_still_has_from_the_beginning_of_a_group() -> None:
    with temporary_run(tape_slots=64) as run:
        writer = open_writer(run.tape)
        writer.publish(records(5))
        assert attach(run, start="oldest").poll()["seq"].tolist() == [1, 2, 3, 4, 5]
        for _ in range(40):
            writer.publish(records(3, group=3, price=[0, 1, 2]))
        with attach(run, start="oldest") as tape:
            batch = tape.poll()
            assert batch["price"][0] == 0
            assert 40 <= len(batch) <= 64
            assert batch["seq"][-1] == 125
            assert tape.lost == 0


def test_start_at_a_seq_delivers_from_there_and_counts_what_is_already_gone() -> None:
    with temporary_run(tape_slots=64) as run:
        writer = open_writer(run.tape)
        writer.publish(records(20))
        assert attach(run, start=11).poll()["seq"].tolist() == list(range(11, 21))
        assert len(attach(run, start=21).poll()) == 0
        with pytest.raises(ValueError, match="seq 22 is not on the tape, which ends at seq 20"):
            attach(run, start=22)
        for _ in range(10):
            writer.publish(records(20))
        with attach(run, start=1) as tape:
            received = 0
            while tape.lag:
                received += len(tape.poll())
            assert received + tape.lost == 220
            assert tape.statistics().laps == 1


def test_kinds_filter_natively_and_positions_count_everything() -> None:
    with temporary_run() as run, attach(run, kinds=[Kind.BBO]) as tape:
        open_writer(run.tape).publish(records(6, kind=[1, 2, 1, 2, 1, 1]))
        assert tape.poll()["seq"].tolist() == [2, 4]
        assert tape.position == 6


def test_a_group_whose_last_record_is_filtered_out_still_ends_with_last() -> None:
    with temporary_run() as run, attach(run, kinds=[Kind.BBO]) as tape:
        open_writer(run.tape).publish(records(3, group=3, kind=[2, 2, 1]))
        assert tape.poll()["flags"].tolist() == [0, Flags.LAST]


def test_instruments_are_selected_by_symbol_venue_and_pattern() -> None:
    with temporary_run() as run:
        add_instruments(run, "BTC-USDT", "ETH-USDT", "BTC-EUR")
        writer = open_writer(run.tape)
        for selection, expected in {
            "BTC-USDT": [0, 1],
            "alpha:ETHUSDT": [0, 2],
            "BTC-*": [0, 1, 3],
            "beta:*": [0],
        }.items():
            with attach(run, instruments=[selection]) as tape:
                writer.publish(records(4, instrument_id=[0, 1, 2, 3]))
                assert tape.poll()["instrument_id"].tolist() == expected


def test_an_instrument_that_joins_later_is_followed_if_it_matches() -> None:
    with temporary_run() as run:
        add_instruments(run, "BTC-USDT")
        with attach(run, instruments=["*-USDT"]) as tape:
            add_instruments(run, "ETH-USDT", "ETH-EUR")
            writer = open_writer(run.tape)
            writer.publish(records(4, instrument_id=[1, 2, 3, 2]))
            assert tape.poll()["instrument_id"].tolist() == [1, 2, 2]
            writer.publish(records(2, instrument_id=[3, 2]))
            assert tape.poll()["instrument_id"].tolist() == [2]


def test_an_unknown_instrument_is_named_with_those_that_exist() -> None:
    with temporary_run() as run:
        add_instruments(run, "BTC-USDT")
        with pytest.raises(mdring.UnknownInstrument, match=r"no instrument 'BTC-USD'; it has: BTC-USDT"):
            attach(run, instruments=["BTC-USD"])


def test_no_run_several_runs_and_a_wrong_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(mdring.RunNotFound, match="no run is up in"):
        mdring.attach(directory=tmp_path)
    with temporary_run() as run:
        directory = run.folder.path.parent
        with pytest.raises(mdring.RunNotFound, match=r"no run 'tset' is up \(up: test\)"):
            mdring.attach("tset", directory=directory)
        assert mdring.attach(directory=directory).name == "test"
        second = TestRun(directory / "second", ["alpha"], 64, 64)
        try:
            with pytest.raises(mdring.RunNotFound, match="several runs are up: second, test"):
                mdring.attach(directory=directory)
        finally:
            second.close()


def test_a_run_of_another_layout_version_is_refused_with_both_versions() -> None:
    with temporary_run() as run:
        Words(run.tape.mapping, 0, 16).store(1, LAYOUT_VERSION + 1)
        with pytest.raises(
            mdring.LayoutMismatch, match=f"has layout version {LAYOUT_VERSION + 1}, this process has {LAYOUT_VERSION}"
        ):
            attach(run)


def test_iteration_delivers_everything_published_before_an_orderly_end_and_stops() -> None:
    with temporary_run() as run, attach(run) as tape:
        open_writer(run.tape).publish(records(10))
        run.tape.end(RunState.CLOSED)
        assert sum(len(batch) for batch in tape) == 10


@pytest.mark.timeout(60)  # instead of an hour
def test_an_orderly_end_while_the_consumer_was_busy_is_noticed_before_it_sleeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer, "_CHECK_INTERVAL_NS", 3600 * 1_000_000_000)
    with temporary_run() as run, attach(run) as tape:
        open_writer(run.tape).publish(records(10))
        seqs = []
        for batch in tape:
            seqs += batch["seq"].tolist()
            run.tape.end(RunState.CLOSED)
        assert seqs == list(range(1, 11))


def test_a_replaced_run_says_so_and_reattach_follows_the_new_one() -> None:
    with temporary_directory() as directory:
        old = TestRun(directory / "test", ["alpha"], 64, 64)
        tape = mdring.attach("test", directory=directory, kinds=[Kind.BBO])
        open_writer(old.tape).publish(records(2, kind=Kind.BBO))
        assert len(tape.poll()) == 2
        old.tape.end(RunState.REPLACED)
        old.close()
        for path in list(old.folder.path.iterdir()):
            path.unlink()
        old.folder.path.rmdir()
        with pytest.raises(mdring.RunEnded, match="was replaced"):
            tape.wait()
        with pytest.raises(mdring.RunNotFound):
            tape.reattach()
        new = TestRun(directory / "test", ["alpha"], 64, 64)
        tape.reattach()
        open_writer(new.tape).publish(records(3, kind=[1, 2, 2]))
        assert tape.poll()["seq"].tolist() == [2, 3]
        new.close()


def test_a_dead_supervisor_ends_the_wait() -> None:
    with temporary_run() as run, attach(run) as tape:
        run.lock.close()
        with pytest.raises(mdring.RunEnded, match=f"supervisor \\(pid {os.getpid()}\\) is dead"):
            tape.wait()


def test_wait_returns_false_when_its_time_is_out() -> None:
    with temporary_run() as run, attach(run) as tape:
        assert not tape.wait(0.01)
        open_writer(run.tape).publish(records(1))
        assert tape.wait(0)


def test_a_batch_smaller_than_a_group_says_that_it_is_partial() -> None:
    with temporary_run() as run, attach(run) as tape:
        open_writer(run.tape).publish(records(5, group=5))
        assert [len(tape.poll(2)), tape.partial, len(tape.poll(2)), tape.partial] == [2, True, 2, True]
        assert (len(tape.poll(2)), tape.partial) == (1, False)


def test_poll_copies_into_the_callers_array() -> None:
    with temporary_run() as run, attach(run) as tape:
        mine = np.zeros(16, dtype=RECORD)
        open_writer(run.tape).publish(records(3, price=7))
        batch = tape.poll(out=mine)
        assert np.shares_memory(batch, mine)
        assert mine["price"].tolist() == [7] * 3 + [0] * 13


def test_a_consumer_cannot_write_to_the_tape() -> None:
    with temporary_run() as run, attach(run) as tape:
        mapping = tape._segment.mapping
        with pytest.raises(TypeError):
            mapping[0] = 1
        with pytest.raises(TypeError, match="read-only"):
            Words(mapping, 128, 1).store(0, 1)


def test_records_lost_to_a_lap_are_counted_exactly() -> None:
    with temporary_run(tape_slots=64) as run, attach(run) as tape:
        writer = open_writer(run.tape)
        for _ in range(100):
            writer.publish(records(7, group=7))
        received = 0
        while tape.lag:
            batch = tape.poll()
            received += len(batch)
            assert len(batch) % 7 == 0
        assert received + tape.lost == 700
        assert tape.lost > 0


def test_an_instrument_scales_to_exact_decimals() -> None:
    with temporary_run() as run:
        add_instruments(run, "BTC-USDT")
        with attach(run) as tape:
            assert [tape.venue(venue_id) for venue_id in (1, 9)] == ["alpha", "venue 9"]
            btc = tape.instrument(1)
            assert btc.price(7_012_345) == Decimal("70123.45")
            assert btc.size(1) == Decimal("0.00001")
            assert btc.price(UNDEFINED_PRICE) is None
            with pytest.raises(KeyError, match="no instrument 2"):
                tape.instrument(2)


@pytest.mark.parametrize("idle", ["spin", "yield", "backoff", "block"])
def test_ctrl_c_interrupts_the_wait(idle: str) -> None:
    with temporary_run() as run:
        script = (
            "import sys, mdring\n"
            f"with mdring.attach(directory={str(run.folder.path.parent)!r}, idle={idle!r}) as tape:\n"
            "    print('waiting', flush=True)\n"
            "    for batch in tape: print(len(batch), flush=True)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        writer = open_writer(run.tape)
        writer.publish(records(2, group=2))
        writer.wake()
        assert process.stdout.readline() == "2\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in errors


def test_a_segment_that_is_not_ready_is_no_run_yet() -> None:
    with temporary_run() as run:
        Words(run.tape.mapping, 0, 16).store(1, 0)
        with pytest.raises(mdring.RunNotFound, match="going up or down"):
            attach(run)
        assert segment.is_locked(run.folder.lock)
