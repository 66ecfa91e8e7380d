"""Fixtures of the tests of this folder."""

from __future__ import annotations

import pytest

from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from tests.feed.authority import Authority
from tests.feed.times import TS_RECV


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA whose server is called ``localhost``."""
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def channel() -> Channel:
    """An instrument that is not the first one, of a venue that is not the first one."""
    return Channel("BTCUSDT", 7, 3, -2, -8)


@pytest.fixture
def emit() -> Emit:
    """An empty stage, so small that it must grow."""
    emit = Emit(4)
    emit.begin(TS_RECV)
    return emit
