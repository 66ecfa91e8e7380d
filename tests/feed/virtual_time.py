"""An event loop whose time passes only while nobody has anything to do: minutes of waiting in no time, and exact."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any


class _NoSockets(selectors.SelectSelector):
    """Waits by letting the time pass; no socket ever becomes ready."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for what will never happen"
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at time 0. Without I/O."""

    def __init__(self) -> None:
        self._selector_of_time = _NoSockets()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return self._selector_of_time.now


def in_virtual_time(main: Coroutine[Any, Any, None]) -> None:
    """Run an async test body."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main)
