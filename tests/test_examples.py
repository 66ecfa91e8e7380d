"""Every example is executed against a live demo run, and what it prints is looked at."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

import mdring
from mdring.c_header import c_header
from mdring.record import BBO, LEVEL, TRADE, Aggressor, Kind, Side
from mdring.ring.segment import RunState
from mdring.run_folder import RunFolder
from tests.runs import temporary_directory, temporary_run
from tests.supervised import wait_until

EXAMPLES = Path(__file__).parents[1] / "examples"
WATCHDOG_S = 120.0
SUBSCRIPTION = """
[[venues.subscriptions]]
instrument = "{}"
canonical_symbol = "{}"
data_types = ["trade", "bbo", "book"]
"""
BTC, ETH = SUBSCRIPTION.format("BTCUSDT", "BTC-USDT"), SUBSCRIPTION.format("ETHUSDT", "ETH-USDT")
VENUE = '\n[[venues]]\nid = "{}"\nadapter = "binance"\n'
CONFIG = VENUE.format("binance") + BTC + ETH + VENUE.format("second") + BTC
"""Two venues that list BTC-USDT, so that there is something to consolidate."""
NUMBER = r"\d+\.\d+"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """A demo run whose books are all in sync."""
    config = tmp_path_factory.mktemp("config") / "config.toml"
    config.write_text(CONFIG)
    with temporary_directory() as directory:
        folder = RunFolder(directory / "runs" / "demo")
        log = config.with_name("log")
        with log.open("wb") as output:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "mdring", "up", "--demo", "--config", config],
                env=environment(folder),
                stderr=output,
            )
        try:
            names = ["binance:BTC-USDT", "ETH-USDT", "second:BTC-USDT"]
            with mdring.attach("demo", directory=folder.path.parent, books=names, wait_s=WATCHDOG_S) as tape:
                assert tape.books is not None
                for _ in tape:
                    if all(tape.books[number].valid for number in tape.books):
                        break
            yield folder
        finally:
            supervisor.send_signal(signal.SIGINT)
            assert supervisor.wait(WATCHDOG_S) == 0, log.read_text()


def environment(folder: RunFolder) -> dict[str, str]:
    return os.environ | {"MDRING_DIRECTORY": str(folder.path.parent)}


def output_of(demo: RunFolder, name: str, count: int) -> list[str]:
    """The lines that a Python example prints."""
    ended = subprocess.run(
        [sys.executable, EXAMPLES / name, str(count)],
        env=environment(demo),
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


def test_every_example_is_executed_here() -> None:
    text = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.iterdir() if path.is_file() and f'"{path.name}"' not in text] == []


def test_print_trades(demo: RunFolder) -> None:
    lines = output_of(demo, "print_trades.py", 10)
    assert len(lines) == 10
    for line in lines:
        assert re.fullmatch(rf"(BTC|ETH)-USDT (bought|sold) {NUMBER} at {NUMBER}", line), line


def test_microprice_maker(demo: RunFolder) -> None:
    lines = output_of(demo, "microprice_maker.py", 10)
    assert len(lines) == 10
    for line in lines:
        quotes = re.fullmatch(rf"bid ({NUMBER}) ask ({NUMBER}) inventory [+-]{NUMBER}", line)
        assert quotes, line
        assert Decimal(quotes[1]) < Decimal(quotes[2])


def test_numba_kernel(demo: RunFolder) -> None:
    if importlib.util.find_spec("numba") is None:
        pytest.skip("NOT RUN: numba is not installed (pip install mdring[numba])")
    lines = output_of(demo, "numba_kernel.py", 100)
    assert {line.split()[0] for line in lines} == {"binance:BTCUSDT", "binance:ETHUSDT", "second:BTCUSDT"}
    for line in lines:
        average, volume, signed = map(float, re.findall(r"(?:price|volume|sold) (\S+)", line))
        assert 1000 < average < 100_000
        assert volume > 0
        assert abs(signed) <= volume


def test_asyncio_consumer(demo: RunFolder) -> None:
    *reports, last = output_of(demo, "asyncio_consumer.py", 1000)
    found = re.fullmatch(r"(\d+) records of 2 instruments", last)
    assert found
    assert int(found[1]) >= 1000
    assert reports
    for report in reports:
        assert re.fullmatch(r"((BTC|ETH)-USDT \d+(, )?)*", report), report


def test_consolidated_bbo(demo: RunFolder) -> None:
    lines = output_of(demo, "consolidated_bbo.py", 30)
    assert len(lines) == 30
    side = rf"(none|{NUMBER} at {NUMBER} \((binance|second|binance, second|second, binance)\))"
    for line in lines:
        assert re.fullmatch(rf"bid {side} ask {side} (CROSSED)?", line), line
    assert "binance" in "".join(lines)
    assert "second" in "".join(lines)


def test_late_joiner(demo: RunFolder) -> None:
    first, *lines = output_of(demo, "late_joiner.py", 10)
    joined = re.fullmatch(r"joined 3 books at seq (\d+) in [\d.]+ ms", first)
    assert joined
    for line in lines[:3]:
        assert re.fullmatch(r"(binance|second):\w+: [1-9]\d* bids, [1-9]\d* asks, valid: True", line), line
    seqs = [int(line.split()[1]) for line in lines[3:]]
    assert len(seqs) == 10
    assert int(joined[1]) < seqs[0]
    assert seqs == sorted(seqs)


# ---- C++ ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cpp_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled example."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("NOT RUN: there is no g++")
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "mdring.h").write_text(c_header())
    command = [compiler, "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{folder}"]
    compiled = subprocess.run(
        [*command, EXAMPLES / "cpp_reader.cpp", "-o", folder / "cpp_reader"], capture_output=True, text=True
    )
    assert compiled.returncode == 0, compiled.stderr
    return folder / "cpp_reader"


def described(record: np.void, tape: mdring.Consumer) -> str:
    """What the C++ example says of a record, as Python sees it."""
    if not record["instrument_id"]:
        return f"{record['seq']} - kind {record['kind']}"
    row = tape.instrument(record["instrument_id"])

    def price(scaled: int) -> str:
        exact = row.price(scaled)
        return "-" if exact is None else f"{exact:f}"

    def size(scaled: int) -> str:
        return f"{row.size(scaled):f}"

    whole = np.array([record])
    match Kind(int(record["kind"])):
        case Kind.TRADE:
            trade = whole.view(TRADE)[0]
            side = Aggressor(int(trade["aggressor"])).name
            text = f"TRADE {side} {size(trade['size'])} at {price(trade['price'])}"
        case Kind.BBO:
            bbo = whole.view(BBO)[0]
            bid = f"{size(bbo['bid_size'])} at {price(bbo['bid_price'])}"
            text = f"BBO {bid} / {size(bbo['ask_size'])} at {price(bbo['ask_price'])}"
        case Kind.LEVEL:
            level = whole.view(LEVEL)[0]
            text = f"{Side(int(level['side'])).name} {size(level['size'])} at {price(level['price'])}"
        case kind:
            text = f"kind {kind}"
    return f"{record['seq']} {row.instrument} {text}"


def test_the_cpp_reader_prints_what_python_reads(demo: RunFolder, cpp_reader: Path) -> None:
    with mdring.attach("demo", directory=demo.path.parent) as tape:
        ended = subprocess.run(
            [cpp_reader, demo.path, "2000"], capture_output=True, text=True, check=True, timeout=WATCHDOG_S
        )
        *lines, last = ended.stdout.splitlines()
        assert last == "lost 0"
        assert len(lines) == 2000
        expected: list[str] = []
        first_seq, last_seq = int(lines[0].split()[0]), int(lines[-1].split()[0])
        while tape.position < last_seq:
            batch = tape.poll()
            expected += [described(record, tape) for record in batch if first_seq <= record["seq"] <= last_seq]
        assert tape.lost == 0
    assert lines == expected
    assert {line.split()[2] for line in lines} >= {"TRADE", "BBO", "BID", "ASK"}


def test_the_cpp_reader_says_what_is_wrong(cpp_reader: Path, tmp_path: Path) -> None:
    ended = subprocess.run([cpp_reader, tmp_path], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"{tmp_path}: no such run\n")
    assert subprocess.run([cpp_reader], capture_output=True).returncode == 2


def test_the_cpp_reader_ends_with_the_run(cpp_reader: Path) -> None:
    with temporary_run() as run:
        reader = subprocess.Popen([cpp_reader, run.folder.path], stdout=subprocess.PIPE, text=True)
        maps = Path(f"/proc/{reader.pid}/maps")
        wait_until(lambda: str(run.folder.instruments) in maps.read_text(), "the reader is attached")
        assert reader.poll() is None
        run.tape.end(RunState.CLOSED)
        assert reader.communicate(timeout=WATCHDOG_S)[0] == "lost 0\n"
        assert reader.returncode == 0
