"""Many consumers in processes of their own, of which a test may kill any: each death makes room for a new one.

``python -m tests.e2e.consumers DIRECTORY RUN COUNT RESULTS`` forks ``COUNT`` consumers and keeps as many alive. At
SIGTERM each living one reads the tape to its end and writes what it had to ``RESULTS/<pid>.json``, a ``Had``. Tests
use ``Consumers``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

import msgspec
from msgspec import Struct

import mdring
from mdring.process import die_with_parent
from tests.e2e.stream import StreamChecker, digest
from tests.supervised import WATCHDOG_S, wait_until

_ROOT: Final = Path(__file__).parents[2]
_WAIT_S: Final = 0.02


class Had(Struct, frozen=True):
    """What one consumer had read when it was asked to stop."""

    first_seq: int
    last_seq: int
    lost: int
    digest: int  # of all that it read
    wrong: str  # what its checker found; empty: nothing


class Consumers:
    """The consumers of a run, as the test handles them."""

    def __init__(self, directory: Path, run: str, count: int, results: Path) -> None:
        results.mkdir()
        self._results = results
        self._count = count
        words = [sys.executable, "-m", "tests.e2e.consumers", str(directory), run, str(count), str(results)]
        self._process = subprocess.Popen(words, cwd=_ROOT)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def pids(self) -> list[int]:
        """Those that live now, the oldest first."""
        pid = self._process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def wait_until_all_there(self) -> None:
        """Return when as many live as wanted."""
        wait_until(lambda: len(self.pids()) == self._count, f"{self._count} consumers are there")

    def kill_one(self, choice: random.Random) -> int:
        """SIGKILL one of them; returns its pid when it is gone."""
        self.wait_until_all_there()
        pid = choice.choice(self.pids())
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: pid not in self.pids(), f"the consumer with pid {pid} is gone")
        return pid

    def stop(self) -> dict[int, Had]:
        """Have all of them stop; what each had, by pid."""
        self._process.terminate()
        assert self._process.wait(WATCHDOG_S) == 0
        found = self._results.glob("*.json")
        return {int(path.stem): msgspec.json.decode(path.read_bytes(), type=Had) for path in found}


class _Stop(Exception):
    """SIGTERM has come."""


def _raise_stop(*_: object) -> NoReturn:
    raise _Stop


def _nurse(directory: Path, run: str, count: int, results: Path) -> int:
    """Keep ``count`` children alive until SIGTERM."""
    signal.signal(signal.SIGTERM, _raise_stop)
    children: set[int] = set()
    started = 0
    try:
        while True:
            while len(children) < count:
                children.add(_fork(directory, run, results, started))
                started += 1
            pid, _ = os.wait()
            children.remove(pid)
    except _Stop:
        for pid in children:
            os.kill(pid, signal.SIGTERM)
        statuses = [os.waitpid(pid, 0)[1] for pid in children]
        return max(statuses, default=0)


def _fork(directory: Path, run: str, results: Path, number: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        die_with_parent(parent)
        had = _consume(directory, run, "oldest" if number % 2 else "tail")
        (results / f"{os.getpid()}.json").write_bytes(msgspec.json.encode(had))
        code = 0
    finally:
        os._exit(code)


def _consume(directory: Path, run: str, start: str) -> Had:
    """Read and judge until SIGTERM, then to the end of the tape."""
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    checker, total, wrong = StreamChecker(), 0, ""
    with mdring.attach(run, directory=directory, start="oldest" if start == "oldest" else "tail") as tape:
        while not wrong:
            batch = tape.poll()
            try:
                checker.take(batch)
            except AssertionError as error:
                wrong = str(error)
            total = (total + digest(batch)) % 2**64
            if not len(batch):
                if stopping:
                    break
                tape.wait(_WAIT_S)
        return Had(checker.first_seq, checker.last_seq, tape.lost, total, wrong)


if __name__ == "__main__":
    die_with_parent(os.getppid())
    sys.exit(_nurse(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])))
