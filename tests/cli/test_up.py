"""mdring up: a run in demo, seen by the other commands, from start to Ctrl-C."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from tests.cli.command import mdring, start_mdring
from tests.runs import temporary_directory

SHIPPED = Path(__file__).parents[2] / "config.toml"


def test_the_demo_runs_is_looked_at_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    with temporary_directory() as folder:
        directory = folder / "runs"
        place = ("--directory", directory, "--run", "mine")
        up = start_mdring(
            *("up", "--config", SHIPPED, "--demo", "--run", "mine"),
            *("--set", f"run.directory={directory}", "--set", f"run.state_directory={tmp_path}"),
        )
        try:
            while (look := mdring("stat", "--json", *place)).returncode != 0:
                assert up.poll() is None
                time.sleep(0.1)
            assert json.loads(look.stdout)["run"]["demo"] is True
            trades = mdring("tail", "--json", "--start", "oldest", "--kind", "trade", "--count", "3", *place)
            assert [json.loads(line)["kind"] for line in trades.stdout.splitlines()] == ["trade"] * 3
            after = json.loads(mdring("stat", "--json", *place).stdout)
            assert after["venues"]["binance"]["state"] == "connected"
            assert after["processes"]["worker-binance"]["counters"]["frames"] > 0
            assert after["tape"]["cursor"] >= json.loads(trades.stdout.splitlines()[-1])["seq"]
        finally:
            up.send_signal(signal.SIGINT)
            up.communicate()
        assert up.returncode == 0
        assert mdring("stat", *place).returncode == 1


def test_ends_by_itself_after_its_duration(tmp_path: Path) -> None:
    with temporary_directory() as folder:
        result = mdring(
            *("up", "--config", SHIPPED, "--demo", "--demo-rate", "10", "--duration", "0.5"),
            *("--set", f"run.directory={folder}/runs", "--set", f"run.state_directory={tmp_path}"),
        )
        assert result.returncode == 0
        assert list(folder.rglob("run.json")) == []


def test_a_duration_must_be_a_number_above_0() -> None:
    for text in ("0", "-1", "nan", "inf", "soon"):
        result = mdring("up", "--duration", text)
        assert result.returncode == 2
        assert f"'{text}' is not a number of seconds above 0" in result.stderr
