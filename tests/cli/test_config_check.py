"""mdring config check: a summary of a valid file, all errors of another."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import mdring

SHIPPED = Path(__file__).parents[2] / "config.toml"


def test_says_what_the_shipped_file_subscribes_to() -> None:
    result = mdring("config", "check", SHIPPED)
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("is valid", "wss://", "BTCUSDT", "BTC-USDT", "trade, bbo, book"):
        assert word in result.stdout


def test_prints_the_resolved_configuration_as_json() -> None:
    result = mdring("config", "check", "--json", SHIPPED, "--set", "run.name=other")
    value = json.loads(result.stdout)
    assert (result.returncode, value["valid"], value["config"]["run"]["name"]) == (0, True, "other")
    assert value["config"]["venues"][0]["websocket_url"].startswith("wss://")


def test_shows_names_as_they_are_even_if_they_look_like_markup(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(SHIPPED.read_text().replace('"BTCUSDT"', '"[red]BTC"'))
    assert "[red]BTC" in mdring("config", "check", path).stdout


def test_shows_patterns_as_such(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    pattern = '[[venues.subscriptions]]\nmatch = "*-EUR"\nexclude = ["BTC-*", "A?"]\ndata_types = ["trade"]\n'
    path.write_text(f'[[venues]]\nid = "binance"\nadapter = "binance"\n{pattern}')
    result = mdring("config", "check", path)
    assert result.returncode == 0
    assert "all that match *-EUR without BTC-*, A?" in result.stdout
    assert "0, 1 pattern " in result.stdout


def test_prints_all_errors_and_exits_with_2(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[tape]\nslot = 1\n[run]\nname = 3\n")
    result = mdring("config", "check", path)
    assert (result.returncode, result.stdout) == (2, "")
    assert f"{path}: 3 errors" in result.stderr
    for key in ("tape.slot: ", "run.name: ", "venues: "):
        assert f"\n  {key}" in result.stderr


def test_prints_all_errors_as_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("[tape]\nslots = 1\n")
    result = mdring("config", "check", "--json", path)
    value = json.loads(result.stdout)
    assert (result.returncode, result.stderr, value["valid"], value["file"]) == (2, "", False, str(path))
    assert [(error["key"], error["found"]) for error in value["errors"]] == [("tape.slots", "1"), ("venues", "")]


def test_a_file_that_is_not_there_is_an_error_too(tmp_path: Path) -> None:
    result = mdring("config", "check", tmp_path / "none.toml")
    assert result.returncode == 2
    assert "No such file" in result.stderr
