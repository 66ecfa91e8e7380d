"""A supervisor in a process of its own, over children that do as a test wants.

``python -m tests.supervised supervisor …`` is the supervisor, ``python -m tests.supervised child …`` a child that
stands for the sequencer, a worker or the emulator: it keeps the rules of a child (dies with its parent, beats,
stops at SIGTERM) but for the one that its behaviour breaks. Tests use ``Supervised`` and ``child_command``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mdring.config import (
    BooksConfig,
    Config,
    RunConfig,
    SubscriptionConfig,
    SupervisorConfig,
    TapeConfig,
    VenueConfig,
    from_json,
    to_json,
)
from mdring.counters import Counter, Counters
from mdring.feed.channels import ChannelStore
from mdring.feed.publisher import Publisher
from mdring.feed.stage import Channel
from mdring.instrument import InstrumentTable
from mdring.process import accept_stop, die_with_parent
from mdring.record import Aggressor, Side
from mdring.run_folder import RunFolder
from mdring.supervisor import supervisor
from mdring.supervisor.child import Commands
from tests.runs import attach_ring

REPOSITORY = Path(__file__).parents[1]
THIS_MODULE = (sys.executable, "-P", "-m", "tests.supervised")

WATCHDOG_S = 60.0
"""How long a test waits for what must happen; only a hang takes so long."""


def wait_until(condition: Callable[[], Any], what: str) -> None:
    """Return when ``condition`` holds; fail if it never does."""
    deadline = time.monotonic() + WATCHDOG_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)


def child_command(role: str, behaviour: str = "good") -> tuple[str, ...]:
    """The command line of a child that behaves so; see ``_Child.run``."""
    literal = behaviour.replace("{", "{{").replace("}", "}}")
    script = (*THIS_MODULE, "child", role, literal, "--run-folder", "{run_folder}", "--parent", "{parent}")
    match role:
        case "worker":
            return (*script, "--venue", "{venue}", "--control-fd", "{control_fd}")
        case "emulator":
            return (*script, "--control-fd", "{control_fd}")
    return script


def commands(**behaviours: str) -> Commands:
    """Commands of good children, but for those whose behaviour is named by role."""
    roles = ("sequencer", "keeper", "worker", "emulator")
    return Commands(**{role: child_command(role, behaviours.get(role, "good")) for role in roles})


def small_config(
    directory: Path, venues: Sequence[str] = ("alpha",), name: str = "test", *, books: bool = False, **more: Any
) -> Config:
    """A configuration with small segments and short times; ``more`` replaces keys of ``[supervisor]``.

    ``books``: with a book keeper.
    """
    times = {
        "heartbeat_timeout_ms": 2_000,
        "restart_delay_ms": 20,
        "max_restart_delay_ms": 100,
        "crash_loop_limit": 100,
        "drain_timeout_ms": 20_000,
    }
    subscription = SubscriptionConfig(instrument="BTCUSDT", canonical_symbol="BTC-USDT", data_types=("trade", "book"))
    return Config(
        run=RunConfig(name=name, directory=str(directory), state_directory=str(directory / "state")),
        tape=TapeConfig(slots=1024),
        books=BooksConfig(enabled=books, levels=5, checkpoint_bytes=2**20),
        supervisor=SupervisorConfig(**{**times, **more}),
        venues=tuple(
            VenueConfig(id=venue, adapter="binance", ring_slots=1024, subscriptions=(subscription,)) for venue in venues
        ),
    )


class Supervised:
    """A supervisor process of this test."""

    def __init__(
        self, config: Config, children: Commands | None = None, *, arguments: Sequence[str] = (), name: str = ""
    ) -> None:
        self.folder = RunFolder(Path(config.run.directory) / (name or config.run.name))
        children = commands() if children is None else children
        self.process = subprocess.Popen(
            [*THIS_MODULE, "supervisor", to_json(config).decode(), json.dumps(asdict(children)), *arguments],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},  # mdring is installed, its tests are not
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._log: str | None = None

    def wait_until_up(self) -> Supervised:
        """Return when the run is there and every child of it has opened its counters."""
        wait_until(lambda: self._is_announced() or self.process.poll() is not None, "the run is up")
        assert self.process.poll() is None, self.log()
        wait_until(lambda: all(self.pid_of(name) for name in self.folder.processes()), "all children are ready")
        return self

    def _is_announced(self) -> bool:
        try:
            return self.folder.read_info().supervisor_pid == self.process.pid
        except FileNotFoundError:
            return False

    def pid_of(self, process: str) -> int:
        """The pid that ``process`` wrote into its counters; 0 before it did."""
        return self.counters(process).load(Counter.PID)

    def counters(self, process: str) -> Counters:
        """The counters of a process of the run."""
        return Counters.attach(self.folder.counters(process))

    def signal(self, number: signal.Signals) -> None:
        """Signal the supervisor."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code of the supervisor."""
        self.log()
        return self.process.returncode

    def log(self) -> str:
        """All that the supervisor and its children logged; waits for the end of all of them."""
        if self._log is None:
            self._log = self.process.communicate(timeout=WATCHDOG_S)[1]
        return self._log

    def log_lines(self) -> list[dict[str, Any]]:
        """The log as objects."""
        return [json.loads(line) for line in self.log().splitlines()]

    def events(self) -> list[str]:
        """What the children wrote down, ``name event``, in order."""
        path = events_of(self.folder)
        return path.read_text().splitlines() if path.exists() else []


@contextlib.contextmanager
def supervised(config: Config, children: Commands | None = None, **more: Any) -> Iterator[Supervised]:
    """A supervisor that is killed after the block, if it still lives then."""
    run = Supervised(config, children, **more)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.process.kill()
        run.log()


def events_of(folder: RunFolder) -> Path:
    """Where the children of a run write down what happens to them: beside the directory of runs."""
    return folder.path.parent.with_suffix(".events")


def is_alive(pid: int) -> bool:
    """Whether a process is there that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class _Child:
    """One child process."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._folder = RunFolder(options.run_folder)
        self._name = f"worker-{options.venue}" if options.role == "worker" else options.role
        self._stopped = False

    def note(self, event: str) -> None:
        with open(events_of(self._folder), "a") as file:
            file.write(f"{self._name} {event}\n")

    def say(self, line: bytes) -> None:
        os.write(self._options.control_fd, line)

    def run(self) -> int:
        behaviour = self._options.behaviour
        die_with_parent(self._options.parent)
        if behaviour == "crash at start":
            return 3
        if behaviour == "start slowly":
            time.sleep(1)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, lambda *_: self.note("SIGINT"))
        accept_stop()
        if self._options.role == "emulator":
            if behaviour == "announce nothing":
                return 4
            where = {"websocket_url": "ws://127.0.0.1:1", "rest_url": "http://127.0.0.1:2"}
            self.say(json.dumps({"binance": where, "control_url": "http://127.0.0.1:3"}).encode() + b"\n")
            self.note("started")
            return self._beat(None, crashes=behaviour == "crash")
        process = "books" if self._options.role == "keeper" else self._name
        counters = Counters.open_as_writer(self._folder.counters(process), os.getpid())
        self.note("started")
        if behaviour.startswith("say "):
            for line in json.loads(behaviour.removeprefix("say ")):
                self.say(line.encode() + b"\n")
        if behaviour == "publish":
            self._publish(counters)
        return self._beat(counters, crashes=behaviour == "crash")

    def _publish(self, counters: Counters) -> None:
        """One trade and one level of one instrument, as the worker does it."""
        instrument = {
            "instrument": "BTCUSDT",
            "canonical_symbol": "BTC-USDT",
            "price_exponent": -2,
            "size_exponent": -5,
        }
        self.say(json.dumps({"instruments": [instrument]}).encode() + b"\n")
        table = InstrumentTable.attach(self._folder.instruments)
        wait_until(lambda: len(table), "the instrument is in the table")
        publisher = Publisher(
            attach_ring(self._folder.venue_ring(self._options.venue), writable=True),
            1,
            Counters.attach(self._folder.counters("sequencer")).words,
            counters,
            ChannelStore.attach(self._folder.channels(self._options.venue)),
        )
        channel = Channel("BTCUSDT", 1, 1, -2, -5)
        publisher.add([channel])
        publisher.emit.begin(time.time_ns())
        publisher.emit.trade(channel, "1.00", "1", Aggressor.BUY, 1, 0)
        publisher.emit.end()
        publisher.emit.level(channel, Side.BID, "1.00", "1", 0)
        publisher.emit.end()
        publisher.commit()

    def _on_term(self, *_: object) -> None:
        self.note("SIGTERM")
        if self._options.behaviour == "crash at first stop" and "crashed" not in events_of(self._folder).read_text():
            self.note("crashed")
            os.kill(os.getpid(), signal.SIGKILL)
        self._stopped = self._options.behaviour != "deaf"

    def _beat(self, counters: Counters | None, *, crashes: bool) -> int:
        while not self._stopped:
            if counters is not None and self._options.behaviour != "beat once":
                counters.heartbeat()
            if crashes:
                return 5
            time.sleep(0.01)
        self.note("stopped")
        return 0


def main(words: Sequence[str]) -> int:
    """Entry of the processes."""
    if words[0] == "supervisor":
        arguments: Mapping[str, Any] = {}
        children = {role: tuple(command) for role, command in json.loads(words[2]).items()}
        for word in words[3:]:
            key, _, value = word.partition("=")
            arguments = {**arguments, key: json.loads(value)}
        return supervisor.run(from_json(words[1].encode()), commands=replace(Commands(), **children), **arguments)
    parser = argparse.ArgumentParser()
    parser.add_argument("role")
    parser.add_argument("behaviour")
    parser.add_argument("--run-folder", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--venue")
    parser.add_argument("--control-fd", type=int)
    return _Child(parser.parse_args(words[1:])).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
