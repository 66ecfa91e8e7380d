"""mdring decode: a capture in, records and instruments out."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdring.record import BBO, RECORD, TRADE, Kind
from tests.cli.command import mdring

CONFIG = """
[[venues]]
id = "spot"
adapter = "binance"
[[venues.subscriptions]]
instrument = "NKNUSDT"
data_types = ["trade", "bbo"]
[[venues.subscriptions]]
instrument = "NOSUCH"
data_types = ["trade"]
"""

EXCHANGE_INFO = {
    "timezone": "UTC",
    "serverTime": 1633998511098,
    "rateLimits": [],
    "exchangeFilters": [],
    "symbols": [
        {
            "symbol": "NKNUSDT",
            "status": "TRADING",
            "baseAsset": "NKN",
            "baseAssetPrecision": 8,
            "quoteAsset": "USDT",
            "quotePrecision": 8,
            "quoteAssetPrecision": 8,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": "0.0001", "maxPrice": "1000", "tickSize": "0.0001"},
                {"filterType": "LOT_SIZE", "minQty": "1", "maxQty": "9000000", "stepSize": "1"},
            ],
        }
    ],
}
TRADE_FRAME = (
    '{"stream":"nknusdt@trade","data":{"e":"trade","E":1633998523964,"s":"NKNUSDT","t":12345,"p":"0.35280000",'
    '"q":"58.00000000","T":1633998523963,"m":false,"M":true}}'
)
BBO_FRAME = (
    '{"stream":"nknusdt@bookTicker","data":{"u":499869768,"s":"NKNUSDT","b":"0.35210000","B":"672.00000000",'
    '"a":"0.35260000","A":"3199.00000000"}}'
)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    url = "https://api.binance.com/api/v3/exchangeInfo"
    events: list[dict[str, Any]] = [
        {"ts": 1, "conn": -1, "ev": "http", "url": url, "status": 200, "text": json.dumps(EXCHANGE_INFO)},
        {"ts": 2, "conn": 0, "ev": "open", "url": "wss://stream.binance.com:9443/stream"},
        {"ts": 3, "conn": 0, "ev": "recv", "text": TRADE_FRAME},
        {"ts": 4, "conn": 0, "ev": "recv", "text": '{"stream":"nknusdt@trade","data":{"e":"trade"}}'},
        {"ts": 5, "conn": 0, "ev": "recv", "text": BBO_FRAME},
    ]
    path = tmp_path / "capture.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(event) + "\n" for event in events).encode()))
    return path


def test_writes_the_records_and_the_instruments(config: Path, capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "made" / "out"
    result = mdring("decode", "--config", config, "--venue", "spot", capture, "--out", out)
    assert (result.returncode, result.stderr) == (0, "")
    records = np.load(out / "records.npy")
    assert records.dtype == RECORD
    trade = records[records["kind"] == Kind.TRADE].view(TRADE)[0]
    assert (trade["trade_id"], trade["ts_recv"], trade["ts_event"]) == (12345, 3, 1633998523963_000_000)
    bbo = records[records["kind"] == Kind.BBO].view(BBO)[0]
    row = json.loads((out / "instruments.json").read_bytes())[0]
    assert (row["venue"], row["instrument"], row["canonical_symbol"]) == ("spot", "NKNUSDT", "NKN-USDT")
    assert bbo["instrument_id"] == trade["instrument_id"] == row["id"]
    assert trade["price"] == 3528 * 10 ** (-4 - row["price_exponent"])
    assert bbo["ask_size"] == 3199 * 10 ** -row["size_exponent"]


def test_prints_the_counts(config: Path, capture: Path, tmp_path: Path) -> None:
    result = mdring("decode", "--config", config, capture, "--out", tmp_path / "out")
    counts = dict(line.rsplit(maxsplit=1) for line in result.stdout.splitlines() if line[-1].isdigit())
    counts = {name.strip(): number for name, number in counts.items()}
    assert {name: counts[name] for name in ("frames", "TRADE", "BBO", "gaps", "resyncs", "rejects")} == {
        "frames": "3",
        "TRADE": "1",
        "BBO": "1",
        "gaps": "0",
        "resyncs": "0",
        "rejects": "1",
    }
    assert "not in the venue's list: NOSUCH" in result.stdout


def test_prints_the_counts_as_json(config: Path, capture: Path, tmp_path: Path) -> None:
    result = mdring("decode", "--config", config, capture, "--out", tmp_path / "out", "--json")
    summary = json.loads(result.stdout)
    assert (summary["frames"], summary["rejects"], summary["kinds"]["TRADE"]) == (3, 1, 1)
    assert summary["unknown_instruments"] == ["NOSUCH"]


def test_patterns_are_resolved_by_the_list_in_the_capture(config: Path, capture: Path, tmp_path: Path) -> None:
    patterns = {'instrument = "NKNUSDT"': 'match = "*-USDT"', 'instrument = "NOSUCH"': 'match = "NO*"'}
    config.write_text(re.sub("instrument = .*", lambda found: patterns[found[0]], CONFIG))
    result = mdring("decode", "--config", config, capture, "--out", tmp_path / "out", "--json")
    summary = json.loads(result.stdout)
    assert (summary["kinds"]["TRADE"], summary["unknown_instruments"]) == (1, ["NO*"])
    rows = json.loads((tmp_path / "out" / "instruments.json").read_bytes())
    assert [row["instrument"] for row in rows] == ["NKNUSDT"]


def test_named_instrument_beside_a_pattern_goes_by_its_own_entry(config: Path, capture: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.replace('instrument = "NOSUCH"', 'match = "*"').replace('["trade", "bbo"]', '["bbo"]'))
    result = mdring("decode", "--config", config, capture, "--out", tmp_path / "out", "--json")
    summary = json.loads(result.stdout)
    assert summary["kinds"].keys() == {"BBO", "STATUS"}
    assert (summary["unknown_instruments"], summary["not_offered"]) == ([], [])


def test_says_what_is_wrong_with_a_capture(config: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"ts": 1}\n')
    for path in (bad, tmp_path / "absent.jsonl"):
        result = mdring("decode", "--config", config, path, "--out", tmp_path / "out")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"mdring: {path}: ")


def test_a_venue_that_is_not_configured_is_told_those_that_are(config: Path, capture: Path, tmp_path: Path) -> None:
    result = mdring("decode", "--config", config, "--venue", "binance", capture, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "there is no venue 'binance'; the configuration has: spot" in result.stderr


def test_a_venue_must_be_named_if_there_are_two(config: Path, capture: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG + CONFIG.replace('"spot"', '"other"'))
    result = mdring("decode", "--config", config, capture, "--out", tmp_path / "out")
    assert result.returncode == 1
    assert "which venue?" in result.stderr


def test_a_wrong_configuration_exits_with_2(config: Path, capture: Path, tmp_path: Path) -> None:
    result = mdring("decode", "--config", config, "--set", "tape.slots=1", capture, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "tape.slots" in result.stderr
