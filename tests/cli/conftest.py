"""Runs for the commands to look at."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.command import BusyRun
from tests.runs import TestRun, temporary_run


@pytest.fixture
def run() -> Iterator[TestRun]:
    """A living run 'test' of the venues binance and paper, with three instruments and an empty tape."""
    with temporary_run(["binance", "paper"], tape_slots=1024) as made:
        made.instruments.append(1, "binance", "BTCUSDT", "BTC-USDT", -2, -8)
        made.instruments.append(1, "binance", "ETHUSDT", "ETH-USDT", -2, -4)
        made.instruments.append(2, "paper", "BTCUSDT", "BTC-USDT", -1, 2)
        yield made


@pytest.fixture
def busy_run(run: TestRun) -> Iterator[BusyRun]:
    """The same with a worker and a sequencer that counted."""
    busy = BusyRun(run)
    yield busy
    busy.close()
