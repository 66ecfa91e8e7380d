"""Processes of the stress tests: forked, so they start at once and inherit what the test holds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import ParamSpec, Self

_FORK = multiprocessing.get_context("fork")
_P = ParamSpec("_P")


class Children:
    """The child processes of a test; none outlives the block.

    Example::

        with Children() as children:
            writer = children.start(write, path)
            ended_well(writer)
    """

    def __init__(self) -> None:
        self._started: list[BaseProcess] = []

    def start(self, function: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> BaseProcess:
        """Run ``function`` in a process of its own."""
        process = _FORK.Process(target=function, args=args, kwargs=kwargs, daemon=True)
        process.start()
        self._started.append(process)
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._started:
            process.kill()
            process.join()


def ended_well(*processes: BaseProcess) -> None:
    """Wait for the processes; AssertionError if one of them failed (its traceback is on stderr)."""
    for process in processes:
        process.join()
        assert process.exitcode == 0, f"{process.name} ended with {process.exitcode}"
