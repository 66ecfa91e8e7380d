"""The emulator process (``python -m mdring.emulator``) and its client in another process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mdring.emulator.__main__ import main
from mdring.emulator.client import ControlError, EmulatorProcess


def test_process_announces_where_it_listens_and_ends_cleanly_on_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process = subprocess.Popen(
            [sys.executable, "-m", "mdring.emulator", "--rate", "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        endpoints = json.loads(process.stdout.readline())
        assert list(endpoints) == ["binance", "control_url"]
        assert list(endpoints["binance"]) == ["websocket_url", "rest_url"]
        port = int(endpoints["binance"]["websocket_url"].rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)):
            process.send_signal(number)
            out, err = process.communicate()
        assert (process.returncode, out, err) == (0, b"", b"")


def test_announcement_can_go_to_another_descriptor() -> None:
    read, write = os.pipe()
    command = [sys.executable, "-m", "mdring.emulator", "--rate", "0", "--announce-fd", str(write)]
    process = subprocess.Popen(command, pass_fds=[write], stdout=subprocess.PIPE)
    os.close(write)
    with os.fdopen(read) as announcement:
        assert "binance" in json.loads(announcement.readline())
    process.terminate()
    assert process.communicate()[0] == b""


def test_process_dies_with_its_parent() -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from mdring.emulator.client import EmulatorProcess;"
            "emulator = EmulatorProcess(rate=0); print(emulator.process.pid, flush=True); time.sleep(600)",
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    while _is_running(pid):
        time.sleep(0.01)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_client_steers_the_process_and_asks_it_for_the_truth(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    with EmulatorProcess(seed=3, rate=0, instruments=["BTC-USDT"], truth=truth) as emulator:
        assert emulator.websocket_url("binance").startswith("ws://127.0.0.1:")
        assert emulator.rest_url("binance").startswith("http://127.0.0.1:")
        emulator.advance(500)
        emulator.pause()
        book = emulator.book("binance", "BTCUSDT")
        assert book.bids[0] > book.bids[1] and book.asks[0] < book.asks[1]
        past = emulator.book("binance", "BTCUSDT", update_id=book.last_update_id - 10)
        assert past.last_update_id == book.last_update_id - 10
        trades = emulator.trades("binance", "BTCUSDT", from_id=0)
        assert [trade.id for trade in trades.trades] == list(range(trades.first_id, trades.last_id + 1))
        assert trades.count == len(trades.trades)
        assert emulator.instruments("binance") == {"BTC-USDT": "BTCUSDT"}
        assert emulator.inject("binance", "drop", match="@trade", count=2) == 0
        assert emulator.fired("binance") == {}
        emulator.clear_faults()
        emulator.resume()
        emulator.set_rate(10)
        assert emulator.statistics()["rate"] == 10
        with pytest.raises(ControlError) as caught:
            emulator.book("binance", "NOSUCH")
        assert caught.value.status == 404
    assert emulator.process.returncode == 0
    assert truth.read_text() == "", "nobody was connected, so nothing was sent"
    emulator.stop()


def test_same_seed_is_the_same_market_in_every_process() -> None:
    books = []
    for _ in range(2):
        with EmulatorProcess(seed=3, rate=0, instruments=["BTC-USDT"]) as emulator:
            emulator.advance(500)
            books.append(emulator.book("binance", "BTCUSDT"))
    assert books[0] == books[1]


def test_a_quiet_process_sleeps() -> None:
    with EmulatorProcess(rate=0) as emulator:
        emulator.statistics()

        def wake_ups() -> int:
            status = Path(f"/proc/{emulator.process.pid}/status").read_text()
            fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
            return int(fields["voluntary_ctxt_switches"])

        before = -1
        while before != (before := wake_ups()):  # until it has begun to rest
            time.sleep(0.5)
        time.sleep(3)
        assert wake_ups() - before <= 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["--venues", "nowhere"],
        ["--instruments", "BTCUSDT"],
        ["--option", "binance.nosuch=1"],
        ["--option", "nonsense"],
        ["--option", "binance.life_s=soon"],
        ["--depth", "3"],
        ["--fault", '{"venue":"binance","fault":"explode"}'],
        ["--fault", '{"fault":"drop"}'],
        ["--truth", "/nonexistent/truth.jsonl"],
    ],
)
def test_bad_arguments_are_exit_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_taken_port_is_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["--rate", "0", "--port", str(taken.getsockname()[1])]) == 1
    assert "mdring.emulator:" in capsys.readouterr().err


def test_faults_and_options_can_be_given_at_the_start() -> None:
    arguments = ["--fault", '{"venue":"binance","fault":"rest_error","count":0}']
    arguments += ["--option", "binance.ping_interval_s=1.5"]
    with EmulatorProcess(rate=0, arguments=arguments) as emulator:
        assert emulator.fired("binance") == {}
