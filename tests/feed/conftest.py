"""Fixtures of the tests of this folder."""

from __future__ import annotations

import pytest

from tests.feed.authority import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A CA whose server is called ``localhost``."""
    return Authority(tmp_path_factory.mktemp("ca"))
