"""Every code block of README.md is executed, as a newcomer would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mdring
from mdring.config import load
from tests.runs import temporary_directory

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
THIS_VERY_RUN = "bin/test"
"""The command that runs these tests: it is not started again from within itself."""


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCKS if found == language]


@pytest.fixture(scope="module", autouse=True)
def own_runs() -> Iterator[Path]:
    """The README's runs live apart from those of whoever runs the tests."""
    with temporary_directory() as directory:
        os.environ["MDRING_DIRECTORY"] = str(directory / "runs")
        yield directory / "runs"
        del os.environ["MDRING_DIRECTORY"]


def commands(*, starting_a_run: bool) -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith("bin/supervisor") == starting_a_run]


def execute(command: str) -> None:
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_block_says_what_it_is() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python", "text", "toml"}


@pytest.mark.parametrize("block", blocks("toml"))
def test_toml_blocks_are_whole_configurations(block: str, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(block)
    assert load(path).venues[0].subscriptions


@pytest.mark.parametrize("command", commands(starting_a_run=True))
def test_commands_that_start_a_run_end_well_and_leave_nothing(command: str, own_runs: Path) -> None:
    execute(command)
    assert not own_runs.exists()


@pytest.fixture(scope="module")
def demo(own_runs: Path) -> Iterator[None]:
    """The run that the README's strategy attaches to: ``bin/supervisor --demo`` in another terminal."""
    process = subprocess.Popen([ROOT / "bin" / "supervisor", "--demo"], stderr=subprocess.DEVNULL)
    try:
        with mdring.attach("demo", instruments=["BTC-USDT"], directory=own_runs, wait_s=60) as tape:
            assert tape.wait(60)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


PRINTED = (
    (r"\d+ (binance|bybit|okx) (BUY|SELL) \d+\.\d+ at \d{5}\.\d+\n", -signal.SIGINT),  # the trades
    (r"\d+ (binance|bybit|okx) \d{5}\.\d+ \d{5}\.\d+ [+-]\d\.\d{3}\n", 0),  # the book
)
"""What each python block prints, line by line, and how it ends on Ctrl-C."""


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize(("block", "printed"), zip(blocks("python"), PRINTED, strict=True))
def test_python_blocks_print_what_the_demo_trades(block: str, printed: tuple[str, int]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", block], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    pattern, returncode = printed
    assert process.returncode == returncode, errors
    for line in lines:
        assert re.fullmatch(pattern, line), line + errors


@pytest.mark.usefixtures("demo")
@pytest.mark.parametrize("command", commands(starting_a_run=False))
def test_commands_that_look_at_a_run_succeed(command: str) -> None:
    if command == THIS_VERY_RUN:
        assert os.access(ROOT / THIS_VERY_RUN, os.X_OK)
    else:
        execute(command)
