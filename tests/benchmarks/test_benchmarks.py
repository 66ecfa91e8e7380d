"""Each benchmark runs, and its answer is right: with little of everything, as the figures do not matter here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("benchmark", ["ring", "fanout", "sequencer", "decode", "poll", "latejoin"])
def test_benchmark_gives_figures_whose_answer_is_right(benchmark: str, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = subprocess.run(
        [sys.executable, "-m", "mdring", "bench", benchmark, "--scale", "0.01", "--json", str(out)],
        cwd=ROOT,
        env={**os.environ, "MDRING_PEERS": str(tmp_path / "no peers")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(orjson.loads(out.read_bytes())["results"][benchmark]) >= 1


def test_frame_on_the_wire_reaches_the_callback(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    words = ["e2e", "--rate", "500", "--duration", "0.5", "--warm-up", "0.2", "--idle", "block", "--json", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "mdring", "bench", *words],
        cwd=ROOT,
        env={**os.environ, "MDRING_PEERS": str(tmp_path / "no peers")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    free, on_one_core = orjson.loads(out.read_bytes())["results"]["e2e"]
    assert free["value"] > 0 and on_one_core["value"] > 0
