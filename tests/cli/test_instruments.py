"""mdring instruments: a venue's list, live or from disk, as a table and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mdring.config import load
from mdring.emulator.client import EmulatorProcess
from mdring.feed.adapter import InstrumentInfo, Limits, adapter_names
from mdring.feed.listing import Listing, ListingCache
from mdring.feed.rest_budget import RestBudget
from mdring.record import DataType
from mdring.run_folder import rest_budgets
from tests.cli.command import mdring

CONFIG = """
run.directory = "{runs}"
run.state_directory = "{state}"
[[venues]]
id = "mine"
adapter = "okx"
rest_url = "{rest_url}"
[[venues.subscriptions]]
match = "*"
data_types = ["trade"]
"""
DEAD = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def rest_url() -> Iterator[str]:
    with EmulatorProcess(["okx"], rate=0) as emulator:
        yield emulator.rest_url("okx")


def write(folder: Path, rest_url: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(CONFIG.format(runs=folder / "runs", state=folder / "state", rest_url=rest_url))
    return path


def keep(config: Path) -> None:
    """What a worker of the configuration leaves on disk."""
    loaded = load(config)
    info = InstrumentInfo("OLD-USDT", "OLD-USDT", -2, -3, status="suspend", trading=False, data_types=(DataType.BBO,))
    cache = ListingCache(loaded.listing("mine"), "okx", loaded.venues[0].rest_url)
    cache.store(Listing(1_700_000_000_000_000_000, {"OLD-USDT": info}))


def rows(*arguments: str | Path) -> list[dict[str, Any]]:
    result = mdring("instruments", *arguments, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(result.stdout)["instruments"]
    return found


def test_what_is_asked_for_counts_in_the_budget_of_this_host(rest_url: str, tmp_path: Path) -> None:
    rows("--config", write(tmp_path, rest_url), "--venue", "mine")
    budget = RestBudget(Limits(), rest_url, rest_budgets(tmp_path / "runs"))
    assert budget.used(time.time_ns()) > 0


def test_prints_what_is_known_of_each_instrument(rest_url: str, tmp_path: Path) -> None:
    result = mdring("instruments", "--config", write(tmp_path, rest_url), "--venue", "mine")
    assert (result.returncode, result.stderr) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
    assert lines["BTC-USDT"] == [
        "BTC-USDT",
        "live",
        "0.01",
        "0.00001",
        "-4",
        "-7",
        "spot",
        "BTC",
        "trade",
        "bbo",
        "book",
    ]
    inverse = lines["BTC-USD-PERP@BTC"]
    assert inverse[:2] == ["BTC-USD-SWAP", "live"]
    assert inverse[6:11] == ["perpetual", "100", "USD", "→", "BTC"]
    assert "funding" in inverse
    assert "22 of 22 instruments, 22 trading" in result.stdout


def test_json_has_every_field(rest_url: str, tmp_path: Path) -> None:
    result = mdring("instruments", "--config", write(tmp_path, rest_url), "--venue", "mine", "--json")
    value = json.loads(result.stdout)
    assert (value["venue"], value["adapter"], value["source"]) == ("mine", "okx", "live")
    assert value["learnt_ns"] > 0
    row = next(row for row in value["instruments"] if row["canonical_symbol"] == "BTC-USDT-PERP")
    assert set(row) == {*InstrumentInfo.__struct_fields__, "product"}
    assert (row["instrument"], row["product"], row["multiplier"], row["size_unit"]) == (
        "BTC-USDT-SWAP", "perpetual", "0.01", "BTC",
    )  # fmt: skip
    assert row["data_types"][:3] == ["trade", "bbo", "book"]


def test_patterns_are_those_of_subscriptions(rest_url: str, tmp_path: Path) -> None:
    options = ("--config", write(tmp_path, rest_url), "--venue", "mine")
    swaps = [row["instrument"] for row in rows(*options, "--match", "*-USDT-SWAP")]
    assert swaps == ["BTC-USDT-SWAP", "ETH-USDT-SWAP", "SOL-USDT-SWAP", "1000PEPE-USDT-SWAP"]
    assert [row["instrument"] for row in rows(*options, "--match", "*-USDT-PERP")] == swaps
    assert [row["instrument"] for row in rows(*options, "--match", "*SWAP", "--exclude", "*USDT*")] == [
        "BTC-USDC-SWAP", "BTC-USD-SWAP",
    ]  # fmt: skip
    both = rows(*options, "--match", "BTC-EUR", "--match", "ETH-BTC")
    assert [row["instrument"] for row in both] == ["ETH-BTC", "BTC-EUR"]
    assert rows(*options, "--match", "nothing") == []


def test_list_on_disk_needs_no_venue(tmp_path: Path) -> None:
    config = write(tmp_path, DEAD)
    keep(config)
    (row,) = rows("--config", config, "--venue", "mine", "--cached")
    assert (row["instrument"], row["data_types"], row["trading"]) == ("OLD-USDT", ["bbo"], False)
    assert rows("--config", config, "--venue", "mine", "--cached", "--trading") == []
    shown = mdring("instruments", "--config", config, "--venue", "mine", "--cached").stdout
    assert "list of 2023-11-14 22:13:20 UTC" in shown
    assert "suspend" in shown


def test_dead_venue_is_told_with_what_is_kept_on_disk(tmp_path: Path) -> None:
    config = write(tmp_path, DEAD)
    options = ("instruments", "--config", config, "--venue", "mine", "--timeout", "0.5")
    result = mdring(*options)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{DEAD} gives no list of instruments within 0.5 s" in result.stderr
    assert "none is kept on disk" in result.stderr
    keep(config)
    assert "--cached shows that of 2023-11-14 22:13:20 UTC" in mdring(*options).stderr


def test_without_a_list_on_disk_there_is_none_to_show(tmp_path: Path) -> None:
    config = write(tmp_path, DEAD)
    result = mdring("instruments", "--config", config, "--venue", "mine", "--cached")
    assert (result.returncode, result.stdout) == (1, "")
    assert str(load(config).listing("mine")) in result.stderr
    keep(config)
    load(config).listing("mine").write_text("{")
    assert "no list on disk" in mdring("instruments", "--config", config, "--venue", "mine", "--cached").stderr


def test_venue_may_be_an_adapter_and_then_has_nothing_on_disk(tmp_path: Path) -> None:
    result = mdring("instruments", "--venue", "okx", "--cached", cwd=tmp_path)
    assert result.returncode == 1
    assert "'okx' is no venue of the configuration" in result.stderr


def test_unknown_venue_is_told_those_that_there_are(tmp_path: Path) -> None:
    result = mdring("instruments", "--config", write(tmp_path, DEAD), "--venue", "none")
    assert result.returncode == 1
    assert f"the configuration has: mine; adapters are: {', '.join(adapter_names())}" in result.stderr
    assert "there is no configuration" in mdring("instruments", "--venue", "none", cwd=tmp_path).stderr


def test_configuration_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    result = mdring("instruments", "--config", tmp_path / "none.toml", "--venue", "okx")
    assert result.returncode == 2
    assert "No such file" in result.stderr
