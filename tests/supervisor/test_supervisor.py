"""The supervisor as a process, over real children that behave, or do not."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mdring.book.table import BookTable
from mdring.config import from_json
from mdring.counters import Counter
from mdring.instrument import InstrumentTable
from mdring.record import RECORD, STATUS, Kind, Reason, State
from mdring.ring import segment
from mdring.ring.segment import RunState
from mdring.run_folder import list_runs
from tests.runs import attach_ring, open_reader
from tests.supervised import Supervised, commands, is_alive, small_config, supervised, wait_until


@pytest.fixture
def runs(run_folder: Path) -> Iterator[Path]:
    """The directory of the test's runs; nothing may be left of it."""
    directory = run_folder / "runs"
    yield directory
    assert not directory.exists(), f"left: {list(directory.rglob('*'))}"


def children_of(run: Supervised) -> list[int]:
    return [run.pid_of(name) for name in run.folder.processes() if name != "supervisor"]


# ---- start ------------------------------------------------------------------------------------------------


def test_a_run_is_a_folder_of_segments_that_everybody_may_read_whatever_the_umask(runs: Path) -> None:
    before = os.umask(0o077)
    try:
        with supervised(small_config(runs, ["alpha", "beta"])) as run:
            run.wait_until_up()
            names = sorted(path.name for path in run.folder.path.iterdir())
            modes = {stat.S_IMODE(path.stat().st_mode) for path in run.folder.path.iterdir()}
            folder_modes = {stat.S_IMODE(path.stat().st_mode) for path in (run.folder.path, runs)}
            info = run.folder.read_info()
            run.signal(signal.SIGTERM)
            assert run.wait() == 0
    finally:
        os.umask(before)
    processes = ["sequencer", "supervisor", "worker-alpha", "worker-beta"]
    assert names == [
        "channels.alpha", "channels.beta", "config.json", *(f"counters.{name}" for name in processes), "instruments",
        "ring.alpha", "ring.beta", "run.json", "supervisor.lock", "tape",
    ]  # fmt: skip
    assert modes == {0o644}
    assert folder_modes == {0o755}
    assert info.venues == {"alpha": 1, "beta": 2}
    assert info.supervisor_pid == run.process.pid


def test_a_disabled_venue_gets_no_worker_and_keeps_its_venue_id(runs: Path) -> None:
    config = small_config(runs, ["alpha", "beta"])
    config = type(config)(
        run=config.run,
        tape=config.tape,
        books=config.books,
        supervisor=config.supervisor,
        venues=(type(config.venues[0])(id="alpha", adapter="binance", enabled=False), config.venues[1]),
    )
    with supervised(config) as run:
        run.wait_until_up()
        assert run.folder.processes() == ["sequencer", "supervisor", "worker-beta"]
        assert run.folder.read_info().venues == {"beta": 2}
        run.signal(signal.SIGTERM)
        assert run.wait() == 0


def test_instruments_that_a_worker_declares_join_the_table_and_bad_lines_are_refused(runs: Path) -> None:
    good = {"instrument": "BTCUSDT", "canonical_symbol": "BTC-USDT", "price_exponent": -2, "size_exponent": -5}
    lines = [
        "no json",
        '{"instruments": [{"instrument": 7}]}',
        json.dumps({"instruments": [{**good, "instrument": "x" * 65}, {**good, "price_exponent": -300}, good]}),
        json.dumps({"instruments": [{**good, "instrument": "ETHUSDT", "base": "ETH", "quote": "USDT"}]}),
    ]
    with supervised(small_config(runs), commands(worker=f"say {json.dumps(lines)}")) as run:
        run.wait_until_up()
        table = InstrumentTable.attach(run.folder.instruments)
        wait_until(lambda: len(table) == 2, "both instruments are in the table")
        bitcoin, ether = table
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
    assert (bitcoin.venue_id, bitcoin.name, bitcoin.price_exponent, bitcoin.size_exponent) == (
        1, "alpha:BTCUSDT", -2, -5,
    )  # fmt: skip
    assert (ether.id, ether.name, ether.base, ether.quote) == (2, "alpha:ETHUSDT", "ETH", "USDT")
    refusals = [line["message"] for line in run.log_lines() if line["level"] == "error"]
    assert len(refusals) == 4


def test_children_are_out_of_reach_of_the_terminals_ctrl_c(runs: Path) -> None:
    with supervised(small_config(runs)) as run:
        run.wait_until_up()
        groups = {os.getpgid(pid) for pid in children_of(run)}
        assert os.getpgid(run.process.pid) not in groups
        run.signal(signal.SIGTERM)
        assert run.wait() == 0


# ---- stop -------------------------------------------------------------------------------------------------


def test_a_stop_before_the_children_are_ready_is_neither_lost_nor_deadly(runs: Path) -> None:
    slow = commands(sequencer="start slowly", worker="start slowly")
    with supervised(small_config(runs, ["alpha"]), slow) as run:
        wait_until(lambda: run.folder.info.exists(), "the run is there")
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
        events = run.events()
    assert sorted(events) == sorted(
        f"{child} {event}" for child in ("worker-alpha", "sequencer") for event in ("started", "SIGTERM", "stopped")
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_workers_first_then_the_sequencer_and_leaves_nothing(runs: Path, number: signal.Signals) -> None:
    with supervised(small_config(runs, ["alpha", "beta"])) as run:
        run.wait_until_up()
        tape = attach_ring(run.folder.tape)
        run.signal(number)
        assert run.wait() == 0
        events = [event for event in run.events() if not event.endswith("started")]
    assert sorted(events[:4]) == [f"worker-{v} {e}" for v in ("alpha", "beta") for e in ("SIGTERM", "stopped")]
    assert events[4:] == ["sequencer SIGTERM", "sequencer stopped"]
    assert tape.state == RunState.CLOSED
    assert not runs.exists()


def test_the_book_keeper_stops_after_the_sequencer_and_its_segments_go_with_the_run(runs: Path) -> None:
    with supervised(small_config(runs, books=True)) as run:
        run.wait_until_up()
        table = BookTable.attach(run.folder.books)
        names = {path.name for path in run.folder.path.iterdir()}
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
        events = [event for event in run.events() if not event.endswith("started")]
    assert {"books", "books.checkpoints", "counters.books"} <= names
    assert events[-4:] == ["sequencer SIGTERM", "sequencer stopped", "keeper SIGTERM", "keeper stopped"]
    assert table.segment.state == RunState.CLOSED
    assert not runs.exists()


def test_a_book_keeper_that_does_not_stop_is_killed_after_the_drain_timeout(runs: Path) -> None:
    with supervised(small_config(runs, books=True, drain_timeout_ms=300), commands(keeper="deaf")) as run:
        run.wait_until_up()
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
    assert not runs.exists()


def test_a_book_keeper_that_keeps_crashing_is_held_back_while_the_rest_goes_on(runs: Path) -> None:
    config = small_config(runs, books=True, crash_loop_limit=3, crash_loop_window_s=3600)
    with supervised(config, commands(keeper="crash")) as run:
        wait_until(run.folder.info.exists, "the run is up")
        wait_until(lambda: "keeps ending" in str(run.counters("books").error()), "held back")
        assert run.counters("books").load(Counter.STARTS) == 3
        beat = run.counters("sequencer").load(Counter.HEARTBEAT_NS)
        wait_until(lambda: run.counters("sequencer").load(Counter.HEARTBEAT_NS) > beat, "the sequencer goes on")
        run.signal(signal.SIGTERM)
        assert run.wait() == 0


def test_duration_ends_the_run_by_itself_and_says_what_it_did(runs: Path) -> None:
    with supervised(small_config(runs), arguments=["duration_s=0.5"]) as run:
        assert run.wait() == 0
    last = run.log_lines()[-1]
    assert (last["message"], last["run"], last["records"], last["restarts"]) == ("run is over", "test", 0, 0)
    assert last["venues"]["alpha"] == {
        "frames": 0, "records": 0, "gaps": 0, "resyncs": 0, "rejects": 0, "drops": 0, "reconnects": 0,
    }  # fmt: skip


def test_a_worker_that_does_not_stop_is_killed_after_the_drain_timeout(runs: Path) -> None:
    with supervised(small_config(runs, drain_timeout_ms=300), commands(worker="deaf")) as run:
        run.wait_until_up()
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
        assert run.events()[-3:] == ["worker-alpha SIGTERM", "sequencer SIGTERM", "sequencer stopped"]


def test_a_sequencer_that_does_not_drain_is_killed_and_the_run_has_failed(runs: Path) -> None:
    with supervised(small_config(runs, drain_timeout_ms=300), commands(sequencer="deaf")) as run:
        run.wait_until_up()
        run.signal(signal.SIGTERM)
        assert run.wait() == 1
    assert "did not bring all that was received onto the tape" in run.log()


def test_a_second_signal_ends_all_at_once_and_still_leaves_nothing(runs: Path) -> None:
    with supervised(small_config(runs, drain_timeout_ms=3_600_000), commands(worker="deaf", sequencer="deaf")) as run:
        run.wait_until_up()
        children = children_of(run)
        run.signal(signal.SIGINT)
        wait_until(lambda: "worker-alpha SIGTERM" in run.events(), "the worker was asked to stop")
        run.signal(signal.SIGINT)
        assert run.wait() == 1
        assert not any(is_alive(pid) for pid in children)


def test_a_sequencer_that_dies_while_it_drains_is_started_again_to_finish(runs: Path) -> None:
    with supervised(small_config(runs), commands(sequencer="crash at first stop")) as run:
        run.wait_until_up()
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
        of_sequencer = [event for event in run.events() if event.startswith("sequencer")]
    assert of_sequencer == [
        "sequencer started", "sequencer SIGTERM", "sequencer crashed",
        "sequencer started", "sequencer SIGTERM", "sequencer stopped",
    ]  # fmt: skip


# ---- watch ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sequencer", "books", "worker-alpha"])
def test_a_killed_child_is_started_again_and_counted(runs: Path, name: str) -> None:
    with supervised(small_config(runs, books=True)) as run:
        run.wait_until_up()
        first = run.pid_of(name)
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: run.pid_of(name) != first, "a successor")
        assert run.counters("supervisor").load(Counter.RESTARTS) == 1
        assert run.counters(name).load(Counter.STARTS) == 2
        error = run.counters(name).error()
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
    assert error is not None
    assert error[1].startswith(f"{name} was ended by SIGKILL; next start in 0.02 s")


@pytest.mark.parametrize("name", ["sequencer", "books", "worker-alpha"])
def test_a_child_without_heartbeat_is_killed_and_started_again(runs: Path, name: str) -> None:
    with supervised(small_config(runs, books=True, heartbeat_timeout_ms=500)) as run:
        run.wait_until_up()
        first = run.pid_of(name)
        os.kill(first, signal.SIGSTOP)
        wait_until(lambda: run.pid_of(name) != first, "a successor")
        assert not is_alive(first)
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
    assert f"{name} gives no heartbeat; killed" in [line["message"] for line in run.log_lines()]


def test_a_supervisor_that_was_stopped_itself_kills_nobody_for_it(runs: Path) -> None:
    with supervised(small_config(runs, heartbeat_timeout_ms=300)) as run:
        run.wait_until_up()
        everybody = [*children_of(run), run.process.pid]
        pids = children_of(run)
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        beat = run.counters("sequencer").load(Counter.HEARTBEAT_NS)
        subprocess.run(["sleep", "1"], check=True)
        for pid in reversed(everybody):  # the supervisor first: it sees old heartbeats
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: run.counters("sequencer").load(Counter.HEARTBEAT_NS) > beat, "the sequencer goes on")
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
        assert run.events().count("sequencer started") == 1
        assert len(set(pids)) == 2
    assert "gives no heartbeat" not in run.log()


def test_a_worker_that_keeps_crashing_is_held_back_while_the_rest_goes_on(runs: Path) -> None:
    config = small_config(runs, ["alpha", "beta"], crash_loop_limit=3, crash_loop_window_s=3600)
    with supervised(config, commands(worker="crash")) as run:
        wait_until(run.folder.info.exists, "the run is up")
        for name in ("worker-alpha", "worker-beta"):
            wait_until(lambda name=name: "keeps ending" in str(run.counters(name).error()), "held back")  # type: ignore[misc]
        counters = run.counters("worker-alpha")
        assert counters.load(Counter.STARTS) == 3
        assert counters.load(Counter.STATE) == State.DISCONNECTED
        assert is_alive(run.pid_of("sequencer"))
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
        assert run.events().count("worker-alpha started") == 3


def told_on_the_ring(ring: segment.Segment) -> list[tuple[str, int, int]]:
    """Kind, instrument_id and channel_seq of all on a venue ring."""
    out = np.zeros(64, dtype=RECORD)
    count = open_reader(ring).poll(out)
    return [(Kind(row["kind"]).name, int(row["instrument_id"]), int(row["channel_seq"])) for row in out[:count]]


def test_books_of_a_worker_that_died_are_cleared_at_once_in_its_place(runs: Path) -> None:
    config = small_config(runs, restart_delay_ms=3_600_000, max_restart_delay_ms=3_600_000)
    with supervised(config, commands(worker="publish")) as run:
        run.wait_until_up()
        ring = attach_ring(run.folder.venue_ring("alpha"))
        wait_until(lambda: ring.cursor == 2, "the worker has published")
        os.kill(run.pid_of("worker-alpha"), signal.SIGKILL)
        wait_until(lambda: ring.cursor == 4, "the supervisor has said it")
        out = np.zeros(64, dtype=RECORD)
        open_reader(ring).poll(out)
        status = out[2:3].view(STATUS)[0]
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
    assert told_on_the_ring(ring) == [("TRADE", 1, 1), ("LEVEL", 1, 1), ("STATUS", 0, 1), ("CLEAR", 1, 2)]
    assert (status["state"], status["reason"]) == (State.DISCONNECTED, Reason.WORKER_RESTART)
    assert status["detail"] == b"was ended by SIGKILL"


def test_books_of_a_worker_that_is_killed_at_the_end_are_cleared_too(runs: Path) -> None:
    with supervised(small_config(runs, drain_timeout_ms=3_600_000), commands(worker="publish")) as run:
        run.wait_until_up()
        ring = attach_ring(run.folder.venue_ring("alpha"))
        wait_until(lambda: ring.cursor == 2, "the worker has published")
        os.kill(run.pid_of("worker-alpha"), signal.SIGSTOP)
        run.signal(signal.SIGINT)
        run.signal(signal.SIGTERM)  # not SIGINT again: two of the same that come together are one
        assert run.wait() == 1
    assert told_on_the_ring(ring)[2:] == [("STATUS", 0, 1), ("CLEAR", 1, 2)]


def test_a_successor_goes_on_with_the_channels_after_the_farewell(runs: Path) -> None:
    with supervised(small_config(runs), commands(worker="publish")) as run:
        run.wait_until_up()
        ring = attach_ring(run.folder.venue_ring("alpha"))
        wait_until(lambda: ring.cursor == 2, "the worker has published")
        os.kill(run.pid_of("worker-alpha"), signal.SIGKILL)
        wait_until(lambda: ring.cursor == 6, "the successor has published")
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
    assert told_on_the_ring(ring)[4:] == [("TRADE", 1, 2), ("LEVEL", 1, 3)]


def test_a_sequencer_that_keeps_crashing_ends_the_run(runs: Path) -> None:
    with supervised(small_config(runs, crash_loop_limit=3), commands(sequencer="crash")) as run:
        assert run.wait() == 1
        assert run.events().count("sequencer started") == 3
    assert "the sequencer ended with status 5, time and again" in run.log()


def test_a_child_that_cannot_be_started_is_an_end_of_it_like_any_other(runs: Path) -> None:
    children = replace(commands(), sequencer=("/no/such/program",))
    with supervised(small_config(runs, crash_loop_limit=3), children) as run:
        assert run.wait() == 1
    assert "the sequencer cannot be started: [Errno 2] No such file or directory" in run.log()


def test_a_failure_of_the_supervisor_itself_takes_the_run_down(runs: Path) -> None:
    children = replace(commands(), worker=(*commands().worker, "{no_such_word}"))
    with supervised(small_config(runs), children) as run:
        assert run.wait() == 1
    assert "the supervisor failed; its run was taken down" in run.log()


def test_a_run_whose_folder_was_removed_ends(runs: Path) -> None:
    with supervised(small_config(runs)) as run:
        run.wait_until_up()
        for path in run.folder.path.iterdir():
            path.unlink()
        run.folder.path.rmdir()
        assert run.wait() == 1
    assert "was removed by somebody else" in run.log()


# ---- one supervisor a run, and what is left of a dead one ---------------------------------------------------


def test_a_second_supervisor_of_a_run_is_refused_and_harms_nothing(runs: Path) -> None:
    with supervised(small_config(runs)) as first:
        first.wait_until_up()
        pids = children_of(first)
        with supervised(small_config(runs)) as second:
            assert second.wait() == 1
        assert f"run 'test' is already up, with supervisor {first.process.pid}" in second.log()
        with supervised(small_config(runs, name="other"), arguments=["duration_s=0.2"]) as other:
            assert other.wait() == 0
        assert children_of(first) == pids
        assert first.folder.alive()
        first.signal(signal.SIGTERM)
        assert first.wait() == 0


def test_children_die_with_a_killed_supervisor_and_the_next_one_clears_its_run_away(runs: Path) -> None:
    config = small_config(runs, ["alpha", "beta"])
    with supervised(config) as killed:
        killed.wait_until_up()
        children = children_of(killed)
        tape = attach_ring(killed.folder.tape)
        killed.signal(signal.SIGKILL)
        wait_until(lambda: not any(is_alive(pid) for pid in children), "the children are gone")
    assert [run.name for run in list_runs(runs)] == ["test"]
    before = tape.state
    with supervised(small_config(runs, name="other")) as other:
        other.wait_until_up()
        assert [run.name for run in list_runs(runs)] == ["other"]
        assert (before, tape.state) == (RunState.OPEN, RunState.REPLACED)
        other.signal(signal.SIGTERM)
        assert other.wait() == 0


def test_a_supervisor_that_was_killed_can_be_started_again_at_once(runs: Path) -> None:
    config = small_config(runs)
    for _ in range(5):
        with supervised(config) as killed:
            killed.wait_until_up()
            killed.signal(signal.SIGKILL)
    with supervised(config) as run:
        run.wait_until_up()
        run.signal(signal.SIGTERM)
        assert run.wait() == 0


# ---- demo -------------------------------------------------------------------------------------------------


def test_the_demo_runs_the_same_configuration_against_an_emulator_that_stops_last(runs: Path) -> None:
    config = small_config(runs, name="default")
    with supervised(config, arguments=["demo=true"], name="demo") as run:
        run.wait_until_up()
        resolved = from_json(run.folder.config.read_bytes())
        assert run.folder.read_info().demo
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
        assert run.events()[-3:] == ["sequencer stopped", "emulator SIGTERM", "emulator stopped"]
    venue = resolved.venues[0]
    assert (venue.websocket_url, venue.rest_url) == ("ws://127.0.0.1:1", "http://127.0.0.1:2")
    assert venue.subscriptions == config.venues[0].subscriptions


def test_a_demo_keeps_the_name_that_it_was_given(runs: Path) -> None:
    with supervised(small_config(runs, name="mine"), arguments=["demo=true"]) as run:
        run.wait_until_up()
        run.signal(signal.SIGTERM)
        assert run.wait() == 0


def test_an_emulator_that_does_not_come_up_ends_the_demo(runs: Path) -> None:
    with supervised(small_config(runs), commands(emulator="announce nothing"), arguments=["demo=true"]) as run:
        assert run.wait() == 1
    assert "the emulator ended with status 4 before it was up" in run.log()


def test_an_emulator_that_dies_ends_the_demo_in_order(runs: Path) -> None:
    with supervised(small_config(runs), commands(emulator="crash"), arguments=["demo=true"]) as run:
        assert run.wait() == 1
        assert "sequencer stopped" in run.events()
    assert "the emulator ended with status 5" in run.log()
