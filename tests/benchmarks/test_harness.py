"""The harness of the benchmarks: what a figure says, and what happens to a part that fails."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import orjson
import pytest

from benchmarks import _harness, _report
from benchmarks._harness import Result, best_peer, latency, measure, require, times_better, write_json
from benchmarks.peers.environment import PeerFailed


@pytest.fixture(autouse=True)
def _nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_harness, "failures", [])
    monkeypatch.setattr(_harness, "wrong_answers", [])


def figure(value: float, **more: object) -> Result:
    return Result(**{"name": "figure", "value": value, "unit": "µs", **more})  # type: ignore[arg-type]


def test_limit_and_target_follow_the_direction_in_which_a_figure_is_better() -> None:
    short = figure(2.0, limit=1.0, target=3.0)
    assert short.of_limit == 0.5 and short.met
    fast = figure(2.0, limit=4.0, target=3.0, more_is_better=True)
    assert fast.of_limit == 0.5 and not fast.met


def test_best_peer_is_the_best_of_the_same_contest_only() -> None:
    ours = figure(1.0, contest="one way")
    slow, quick = (figure(value, contest="one way", is_peer=True) for value in (9.0, 4.0))
    other = figure(0.1, contest="other", is_peer=True)
    assert best_peer(ours, [ours, slow, quick, other]) is quick
    assert times_better(ours, quick) == 4.0
    assert best_peer(quick, [ours, slow, quick]) is None
    assert best_peer(figure(1.0), [other]) is None


@pytest.mark.parametrize(
    ("value", "text"), [(0.22149, "0.221"), (12.345, "12.3"), (999.4, "999"), (26_712.3, "26,712"), (0.0, "0")]
)
def test_numbers_are_shown_with_three_digits_and_no_exponent(value: float, text: str) -> None:
    assert _harness.number(value) == text


def test_latency_has_quantiles_and_a_curve_that_rises() -> None:
    made = latency("x", np.arange(1, 1002, dtype=float))
    assert made.value == 501 and made.quantiles == {"p50": 501, "p90": 901, "p99": 991, "p99.9": 1000, "max": 1001}
    assert made.curve is not None and made.curve == sorted(made.curve) and len(made.curve) == len(_harness.RANKS)


def test_part_that_fails_is_noted_and_the_others_are_measured() -> None:
    def wrong() -> Result:
        require(False, "a record is missing")
        return figure(1.0)

    def absent() -> Result:
        raise PeerFailed("it crashed")

    results = measure("title", [("a", wrong), ("b", absent), ("c", lambda: figure(3.0))])
    assert [result.value for result in results] == [3.0]
    assert _harness.wrong_answers == ["title, a: a record is missing"] and _harness.failures == ["it crashed"]


def test_part_that_pins_itself_leaves_the_next_one_all_cores() -> None:
    before = os.sched_getaffinity(0)

    def pinned() -> Result:
        _harness.pin(min(before))
        return figure(1.0)

    measure("title", [("a", pinned)])
    assert os.sched_getaffinity(0) == before


def test_json_and_page_hold_every_figure(tmp_path: Path) -> None:
    results = {"ring": [figure(1.5, name="one <way>", contest="x"), figure(6.0, contest="x", is_peer=True, series="q")]}
    write_json(tmp_path / "out.json", {"cpu": "a"}, results)
    assert [row["value"] for row in orjson.loads((tmp_path / "out.json").read_bytes())["results"]["ring"]] == [1.5, 6.0]
    page = _report.write(tmp_path, _report.Report({"cpu": "a & b"}, {"lib": "no wheel"}, results, ["bad"], "bin/bench"))
    text = page.read_text()
    for part in ("one &lt;way&gt;", "a &amp; b", "no wheel", "wrong answer: bad", "4 (q)"):
        assert part in text
    assert "href=" not in text and "src=" not in text
