"""mdring stat: what it says of a run, and that looking changes nothing."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mdring.cli import stat_view
from mdring.cli.run_sample import RunSample, rates, take_sample
from mdring.counters import Counter
from tests.cli.command import BusyRun, mdring, options, start_mdring
from tests.runs import TestRun


def stat_json(run: TestRun) -> dict[str, Any]:
    result = mdring("stat", "--json", *options(run))
    assert (result.returncode, result.stderr) == (0, "")
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def shown(before: RunSample, now: RunSample) -> str:
    """The live view of two looks."""
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(stat_view.render(before, now))
    return console.export_text()


def shown_once(run: BusyRun) -> str:
    sample = take_sample(run.folder)
    return shown(sample, sample)


class TestJson:
    def test_has_every_counter_of_every_process(self, busy_run: BusyRun) -> None:
        processes = stat_json(busy_run.run)["processes"]
        assert set(processes) == {"supervisor", "sequencer", "worker-binance", "worker-paper"}
        worker = processes["worker-binance"]["counters"]
        assert set(worker) == {counter.name.lower() for counter in Counter}
        assert (worker["frames"], worker["gaps"], worker["rejects"], worker["drops"]) == (1000, 5, 7, 11)

    def test_has_state_and_what_waits_in_the_ring_of_each_venue(self, busy_run: BusyRun) -> None:
        venue = stat_json(busy_run.run)["venues"]["binance"]
        assert (venue["state"], venue["ring"]["cursor"], venue["ring"]["waiting"]) == ("connected", 10, 6)

    def test_has_latency_quantiles_in_nanoseconds(self, busy_run: BusyRun) -> None:
        latency = stat_json(busy_run.run)["processes"]["worker-binance"]["latency_ns"]["venue_to_receive"]
        assert latency == {"count": 1, "p50": 15, "p90": 15, "p99": 15, "p999": 15, "max": 15}

    def test_has_the_last_error_as_it_was(self, busy_run: BusyRun) -> None:
        error = stat_json(busy_run.run)["processes"]["worker-binance"]["last_error"]
        assert error["text"] == "checksum of \x1b[31mBTCUSDT"

    def test_says_that_processes_live_while_they_hold_their_counters(self, busy_run: BusyRun) -> None:
        busy_run.sequencer.segment.close()
        processes = stat_json(busy_run.run)["processes"]
        assert processes["worker-binance"]["alive"]
        assert processes["worker-binance"]["resident_bytes"] > 0
        assert not processes["sequencer"]["alive"]
        assert processes["sequencer"]["resident_bytes"] == 0

    def test_says_that_a_named_run_has_ended(self, run: TestRun) -> None:
        run.lock.close()
        assert stat_json(run)["run"]["alive"] is False


class TestView:
    def test_shows_rates_of_the_interval(self, busy_run: BusyRun) -> None:
        before = take_sample(busy_run.folder)
        busy_run.worker.add(Counter.FRAMES, 500)
        now = take_sample(busy_run.folder)
        seconds = (now.ts_ns - before.ts_ns) / 1e9
        assert rates(before, now, "worker-binance")[Counter.FRAMES] == pytest.approx(500 / seconds)
        assert rates(before, now, "worker-binance")[Counter.RECORDS] == 0

    def test_shows_state_books_and_losses(self, busy_run: BusyRun) -> None:
        flow, trouble = (line for line in shown_once(busy_run).splitlines() if line.startswith("binance "))
        assert " connected " in flow
        assert " 1/2 " in flow
        assert trouble.split() == ["binance", "2", "5", "6", "7", "11", "0", "0", "0"]

    def test_shows_latency_of_the_interval_only(self, busy_run: BusyRun) -> None:
        before = take_sample(busy_run.folder)
        busy_run.record_latency(2_000_000)
        assert shown(before, take_sample(busy_run.folder)).count("2.0 ms") == 2  # p50 and p99 of one value

    def test_shows_errors_without_what_commands_a_terminal(self, busy_run: BusyRun) -> None:
        assert "checksum of \ufffd[31mBTCUSDT" in shown_once(busy_run)

    def test_shows_a_worker_that_is_down(self, busy_run: BusyRun) -> None:
        busy_run.worker.segment.close()
        assert "no worker" in shown_once(busy_run)

    def test_shows_a_state_that_this_version_does_not_know(self, busy_run: BusyRun) -> None:
        busy_run.worker.store(Counter.STATE, 99)
        assert " 99 " in shown_once(busy_run)

    def test_comes_once_where_there_is_no_terminal(self, busy_run: BusyRun) -> None:
        result = mdring("stat", "--interval", "0.05", *options(busy_run.run))
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout.count("run test") == 1

    def test_comes_as_often_as_asked(self, busy_run: BusyRun) -> None:
        result = mdring("stat", "--interval", "0.05", "--count", "3", *options(busy_run.run))
        assert result.stdout.count("run test") == 3

    def test_ends_with_ctrl_c_and_exit_code_0(self, busy_run: BusyRun) -> None:
        with start_mdring("stat", "--interval", "0.05", "--count", "1000000", *options(busy_run.run)) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.read(1)  # it is at work
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.stderr.read() == b""
        assert process.returncode == 0

    def test_ends_when_the_run_is_removed(self, busy_run: BusyRun) -> None:
        with start_mdring("stat", "--interval", "0.05", "--count", "1000000", *options(busy_run.run)) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.read(1)
            busy_run.folder.info.unlink()
            process.stdout.read()
            assert b"run 'test' is gone" in process.stderr.read()
        assert process.returncode == 1


class TestChoosingTheRun:
    def test_none_is_up(self, tmp_path: Path) -> None:
        result = mdring("stat", "--directory", tmp_path)
        assert result.returncode == 1
        assert result.stdout == ""
        assert result.stderr == f"mdring: no run is up in {tmp_path}; start one with 'mdring up'\n"

    def test_the_only_one_needs_no_name(self, run: TestRun) -> None:
        result = mdring("stat", "--json", "--directory", run.folder.path.parent)
        assert json.loads(result.stdout)["run"]["name"] == "test"

    def test_two_need_a_name(self, run: TestRun) -> None:
        other = TestRun(run.folder.path.parent / "other", ["binance"], 1024, 1024)
        result = mdring("stat", "--directory", run.folder.path.parent)
        other.close()
        assert result.returncode == 1
        assert "running: other, test" in result.stderr

    def test_a_wrong_name_is_told_the_right_ones(self, run: TestRun) -> None:
        result = mdring("stat", "--run", "tset", "--directory", run.folder.path.parent)
        assert result.returncode == 1
        assert "no run 'tset'" in result.stderr
        assert "running: test" in result.stderr

    def test_one_that_has_ended_must_be_named(self, run: TestRun) -> None:
        run.lock.close()
        result = mdring("stat", "--directory", run.folder.path.parent)
        assert result.returncode == 1
        assert "no run is up" in result.stderr


def test_looking_writes_to_no_file_of_the_run(busy_run: BusyRun) -> None:
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in busy_run.folder.path.iterdir()}

    before = contents()
    stat_json(busy_run.run)
    assert contents() == before
