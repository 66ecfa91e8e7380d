"""The supervisor: owns a run, from its folder to its last child.

``mdring up`` turns its process into the supervisor (``cli/up.py`` calls ``run``). It claims the run folder,
makes the segments, starts the sequencer, the book keeper and one worker per enabled venue, watches their ends and
heartbeats, starts them again, and at SIGINT, SIGTERM or the end of the wanted duration takes everything down in
order: workers, then the sequencer (which brings the rest onto the tape), the book keeper, then the segments::

    code = run(load(Path("config.toml")), demo=True, duration_s=20)

Children die with it, also by SIGKILL: each asks the kernel for that. What a killed supervisor leaves behind is
cleared away by the next one. The broad ``except`` of mdring stands here and nowhere else: whatever fails, the
children end and the folder goes.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from subprocess import TimeoutExpired
from types import FrameType, TracebackType
from typing import Any, Final, Self

import msgspec
from msgspec import Struct

from mdring import log
from mdring.config import Config
from mdring.counters import Counter
from mdring.feed.adapter import InstrumentInfo
from mdring.feed.rest_budget import forget_accounts
from mdring.record import State
from mdring.ring.segment import SegmentError
from mdring.run_folder import RunInfo, rest_budgets
from mdring.supervisor.child import Child, Command, Commands, describe_end
from mdring.supervisor.demo import DEMO_RATE, EMULATOR, demo_config, emulator_words, with_endpoints
from mdring.supervisor.farewell import say_farewell
from mdring.supervisor.folder import (
    BOOK_KEEPER,
    SEQUENCER,
    RunClaim,
    RunSegments,
    StartError,
    claim_run,
    worker_name,
    write_config,
    write_info,
)
from mdring.supervisor.report import say_down, say_up, take_totals

logger = logging.getLogger(__name__)

OK: Final = 0
FAILED: Final = 1

_SECOND: Final = 1_000_000_000
_TICK_S: Final = 1.0  # the longest sleep; the supervisor's own heartbeat comes as often
_DRAIN_TICK_S: Final = 0.02
_KILL_WAIT_S: Final = 5.0  # for the kernel to end a process after SIGKILL
_EMULATOR_START_S: Final = 30.0


class _Declaration(Struct, frozen=True):
    """A line of a worker's control socket: instruments that it wants in the instrument table."""

    instruments: tuple[InstrumentInfo, ...]


_DECLARATIONS: Final = msgspec.json.Decoder(_Declaration)


def run(
    config: Config,
    *,
    demo: bool = False,
    duration_s: float | None = None,
    demo_rate: int = DEMO_RATE,
    commands: Commands | None = None,
) -> int:
    """Supervise the run of this configuration until it is over; returns the exit code.

    ``demo`` puts an emulator, with ``demo_rate`` market steps per second, in place of the venues.
    ``duration_s`` ends the run by itself, None: at a signal only. ``commands`` are the command lines of the children.
    Must be called in the main thread. 0: stopped in order; 1: could not start, or failed, and a log line says why.
    """
    config = demo_config(config) if demo else config
    log.configure("supervisor", config.log.level)
    with StopSignals() as signals:
        try:
            return _run(config, demo, duration_s, demo_rate, commands or Commands(), signals)
        except StartError as error:
            logger.error("%s", error)
        except Exception:
            logger.exception("the supervisor failed; its run was taken down")
    return FAILED


def _run(
    config: Config, demo: bool, duration_s: float | None, demo_rate: int, commands: Commands, signals: StopSignals
) -> int:
    claim = claim_run(config.run.path)
    started_ns = time.monotonic_ns()
    try:
        with selectors.DefaultSelector() as selector:
            supervisor = Supervisor(config, claim, commands, selector, signals)
            try:
                if demo:
                    supervisor.start_emulator(demo_rate)
                code = supervisor.run(duration_s, demo=demo)
            finally:
                supervisor.kill_children()
                if demo:
                    supervisor.forget_emulator()
        totals = take_totals(supervisor.segments, config, started_ns)
    finally:
        claim.release()
    with suppress(OSError):  # the terminal may be gone
        say_down(config.run.name, totals)
    return code


class StopSignals:
    """Takes SIGINT, SIGTERM and SIGHUP as the wish to stop, and lets a selector see them, and SIGCHLD, at once."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self._before: dict[signal.Signals, Any] = {}
        self._wakeup_before = -1
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Self:
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) stays in force
                self._before[number] = signal.signal(number, self._on_stop)
        # Without a handler, SIGCHLD would not reach the wake-up descriptor.
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._reader.close()
        self._writer.close()

    def register(self, selector: selectors.BaseSelector) -> None:
        """Have ``selector`` return when a signal comes."""
        selector.register(self._reader, selectors.EVENT_READ, self._discard)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number).name)

    def _discard(self) -> None:
        with suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass


class Supervisor:
    """One run: its segments and its children. Every method belongs to the main thread.

    The kernel counts a child's parent as gone when the *thread* that started it ends.
    """

    def __init__(
        self,
        config: Config,
        claim: RunClaim,
        commands: Commands,
        selector: selectors.BaseSelector,
        signals: StopSignals,
    ) -> None:
        """Make the segments of the claimed run. Raises StartError if there is no room for them."""
        self._config = config
        self._claim = claim
        self._commands = commands
        self._selector = selector
        self._signals = signals
        self._run_id = time.time_ns()
        try:
            self.segments = RunSegments.create(claim.folder, config, self._run_id)
        except OSError as error:
            raise StartError(f"cannot make the segments of the run: {error}") from error
        self._emulator: Child | None = None
        self._endpoints: bytes | None = None
        self._keeper: Child | None = None
        self._children: list[Child] = []
        self._workers: dict[Child, str] = {}  # with their venues
        self._watched: list[Child] = []
        self._failure: str | None = None
        self._sequencer_given_up = False
        signals.register(selector)

    # ---- start --------------------------------------------------------------------------------------------

    def start_emulator(self, rate: int) -> None:
        """Start the emulator and let the configuration point to it. Raises StartError."""
        words = emulator_words(self._config, rate)
        emulator = self._child(EMULATOR, self._commands.emulator, words, on_line=self._on_endpoints)
        try:
            emulator.start(time.monotonic_ns())
        except OSError as error:
            raise StartError(f"cannot start the emulator: {error}") from error
        self._emulator = emulator
        deadline = time.monotonic() + _EMULATOR_START_S
        while self._endpoints is None:
            self._cycle(_TICK_S)
            code = emulator.poll()
            if self._signals.received:
                raise StartError(f"{self._signals.received[0]} came before the emulator was up")
            if self._endpoints is None and code is not None:
                raise StartError(f"the emulator {describe_end(code)} before it was up")
            if self._endpoints is None and time.monotonic() > deadline:
                raise StartError(f"the emulator was not up after {_EMULATOR_START_S:.0f} s")
        self._config = with_endpoints(self._config, self._endpoints)
        self._watched.append(emulator)

    def forget_emulator(self) -> None:
        """What was spent of the emulated venues' REST budgets concerns nobody any more."""
        urls = [venue.rest_url for venue in self._config.enabled_venues]
        forget_accounts(rest_budgets(self._config.run.path.parent), urls)

    def _on_endpoints(self, line: bytes) -> None:
        if self._endpoints is None:
            self._endpoints = line

    def run(self, duration_s: float | None, *, demo: bool) -> int:
        """Start the children, look after them until the run is to end, stop them in order; the exit code."""
        info = self._announce(demo)
        self._start_children()
        say_up(info, self._config, self._claim.folder)
        deadline_ns = None if duration_s is None else time.monotonic_ns() + round(duration_s * _SECOND)
        reason = self._watch(deadline_ns)
        logger.info("the run ends: %s", reason)
        self._drain()
        if self._failure is not None:
            logger.error("the run failed: %s", self._failure)
            return FAILED
        return OK

    def _announce(self, demo: bool) -> RunInfo:
        folder = self._claim.folder
        info = RunInfo(
            name=folder.name,
            run_id=self._run_id,
            supervisor_pid=os.getpid(),
            version=importlib.metadata.version("mdring"),
            venues=self._config.venue_ids,
            demo=demo,
        )
        try:
            write_config(folder, self._config)
            write_info(folder, info)
        except OSError as error:
            raise StartError(f"cannot write into the run folder: {error}") from error
        return info

    def _start_children(self) -> None:
        self._sequencer = self._child(SEQUENCER, self._commands.sequencer, {})
        if self._config.books.enabled:
            self._keeper = self._child(BOOK_KEEPER, self._commands.keeper, {})
        for venue in self._config.enabled_venues:
            worker = self._child(
                worker_name(venue.id),
                self._commands.worker,
                {"venue": venue.id},
                on_line=partial(self._on_declaration, venue.id),
            )
            self._workers[worker] = venue.id
        now_ns = time.monotonic_ns()
        keepers = [] if self._keeper is None else [self._keeper]
        for child in (self._sequencer, *keepers, *self._workers):
            self._watched.append(child)
            self._start(child, now_ns)

    def _child(
        self,
        name: str,
        command: Command,
        words: Mapping[str, object],
        on_line: Callable[[bytes], None] | None = None,
    ) -> Child:
        child = Child(
            name,
            command,
            {"run_folder": self._claim.folder.path, "parent": os.getpid(), **words},
            self._config.supervisor,
            self._selector,
            counters=self.segments.counters.get(name),
            on_line=on_line,
        )
        self._children.append(child)
        return child

    def _on_declaration(self, venue: str, line: bytes) -> None:
        """A worker's line: append its instruments to the table. What cannot be appended is refused, never fatal."""
        try:
            declaration = _DECLARATIONS.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse(venue, f"sent what is no declaration of instruments: {error}")
            return
        venue_id = self._config.venue_ids[venue]
        for info in declaration.instruments:
            try:
                self.segments.instruments.append(
                    venue_id, venue, info.instrument, info.canonical_symbol, info.price_exponent, info.size_exponent,
                    info.base, info.quote,
                )  # fmt: skip
            except (ValueError, OverflowError) as error:
                self._refuse(venue, f"declared an instrument that the table cannot hold: {error}")

    def _refuse(self, venue: str, why: str) -> None:
        text = f"{worker_name(venue)} {why}"
        logger.error("%s", text)
        self.segments.own.set_error(text)

    # ---- watch --------------------------------------------------------------------------------------------

    def _watch(self, deadline_ns: int | None) -> str:
        """Look after the children until the run is to end; returns why it is."""
        heartbeat_share_s = self._config.supervisor.heartbeat_timeout_ms / 4000
        while True:
            if self._failure is not None:
                return self._failure
            if self._signals.received:
                return self._signals.received[0]
            now_ns = time.monotonic_ns()
            if deadline_ns is not None and now_ns >= deadline_ns:
                return "its duration is over"
            due = [due for child in self._watched if (due := child.start_due_ns) is not None]
            until_ns = min([*due, *([] if deadline_ns is None else [deadline_ns])], default=now_ns + _SECOND)
            self._cycle(max(0.0, min(_TICK_S, heartbeat_share_s, (until_ns - now_ns) / _SECOND)))
            if not self._claim.holds():
                self._failure = f"its run folder {self._claim.folder.path} was removed by somebody else"

    def _cycle(self, wait_s: float) -> None:
        """One duty cycle: wait for a signal, an end of a child or a line of one, then look after the watched."""
        for key, _ in self._selector.select(wait_s):
            key.data()
        self.segments.own.heartbeat()
        now_ns = time.monotonic_ns()
        for child in self._watched:
            self._look_after(child, now_ns)

    def _look_after(self, child: Child, now_ns: int) -> None:
        code = child.poll()
        if code is not None:
            self._on_end(child, describe_end(code), now_ns)
        elif child.start_due_ns is not None and now_ns >= child.start_due_ns:
            self.segments.own.add(Counter.RESTARTS)
            self._start(child, now_ns)
        elif child.is_stalled(now_ns):
            logger.error("%s gives no heartbeat; killed", child.name, extra={"child_pid": child.pid})
            child.send_signal(signal.SIGKILL)

    def _start(self, child: Child, now_ns: int) -> None:
        try:
            child.start(now_ns)
        except OSError as error:
            self._on_end(child, f"cannot be started: {error}", now_ns)
        else:
            logger.info("started %s", child.name, extra={"child_pid": child.pid})

    def _on_end(self, child: Child, how: str, now_ns: int) -> None:
        """A child ended that should not have: plan its restart, or end the run."""
        if child is self._emulator:
            self._failure = f"the emulator {how}"
            return
        child.start_due_ns, crash_loop = child.policy.next_start(now_ns)
        delay = f"{(child.start_due_ns - now_ns) / _SECOND:.2f} s"
        if crash_loop and child is self._sequencer:
            child.start_due_ns = None
            self._sequencer_given_up = True
            self._failure = f"the sequencer {how}, time and again"
            return
        text = f"{child.name} {how}; {'it keeps ending, ' if crash_loop else ''}next start in {delay}"
        logger.log(logging.ERROR if crash_loop else logging.WARNING, "%s", text)
        self.segments.own.set_error(text)
        if child.counters is not None:
            child.counters.set_error(text)
        if child in self._workers:
            self._say_farewell(child, how)

    def _say_farewell(self, worker: Child, how: str) -> None:
        """Say in the stream, and in its counters, that a worker is gone which cannot say it any more."""
        venue = self._workers[worker]
        try:
            say_farewell(self._claim.folder, venue, self._config.venue_ids[venue], self.segments, how)
        except SegmentError as error:
            logger.error("cannot say on its venue ring that %s is gone: %s", worker.name, error)
        counters = self.segments.counters[worker.name]
        counters.store(Counter.STATE, State.DISCONNECTED)
        counters.store(Counter.STATE_SINCE_NS, time.time_ns())
        counters.store(Counter.CONNECTIONS, 0)
        counters.store(Counter.BOOKS_VALID, 0)

    # ---- stop ---------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        """Stop the children in the order of the data's flow, so that what was received comes onto the tape."""
        for worker in self._workers:
            self._watched.remove(worker)
            worker.send_signal(signal.SIGTERM)
        for worker, code in self._await_ends(list(self._workers)).items():
            if code != 0:
                self._say_farewell(worker, describe_end(code))
        self._watched.remove(self._sequencer)
        if not self._sequencer_given_up and not self._drain_sequencer() and self._failure is None:
            self._failure = "the sequencer did not bring all that was received onto the tape"
        if self._keeper is not None:
            self._watched.remove(self._keeper)
            self._keeper.send_signal(signal.SIGTERM)
            self._await_ends([self._keeper])
        if self._emulator is not None:
            self._watched.clear()
            self._emulator.send_signal(signal.SIGTERM)
            self._await_ends([self._emulator])

    def _await_ends(self, children: list[Child]) -> dict[Child, int]:
        """Wait until they ended, at most the drain time-out; kill those that did not. The return codes."""
        deadline_ns = self._drain_deadline_ns()
        codes: dict[Child, int] = {}
        while running := [child for child in children if child.pid is not None]:
            if self._must_hurry(deadline_ns):
                logger.warning("killed, for they did not stop in time: %s", ", ".join(child.name for child in running))
                for child in running:
                    codes[child] = child.kill(_KILL_WAIT_S)
                break
            self._cycle(_DRAIN_TICK_S)
            for child in running:
                if (code := child.poll()) is not None:
                    codes[child] = code
        return codes

    def _drain_sequencer(self) -> bool:
        """Have the sequencer empty the venue rings, started again if it crashes meanwhile; False if it could not."""
        deadline_ns = self._drain_deadline_ns()
        asked: int | None = None  # the pid of the process that was told to stop
        while not self._must_hurry(deadline_ns):
            code = self._sequencer.poll()
            if code == 0 and asked is not None:
                return True
            if self._sequencer.pid is None:
                self._start(self._sequencer, time.monotonic_ns())
            elif asked != self._sequencer.pid and self._sequencer.is_ready():
                self._sequencer.send_signal(signal.SIGTERM)
                asked = self._sequencer.pid
            self._cycle(_DRAIN_TICK_S)
        if self._sequencer.pid is not None:
            self._sequencer.kill(_KILL_WAIT_S)
        return False

    def _drain_deadline_ns(self) -> int:
        return time.monotonic_ns() + self._config.supervisor.drain_timeout_ms * 1_000_000

    def _must_hurry(self, deadline_ns: int) -> bool:
        """Whether the time is over, or the user asked for a second time."""
        return len(self._signals.received) > 1 or time.monotonic_ns() >= deadline_ns

    def kill_children(self) -> None:
        """End every child that still runs, at once."""
        for child in self._children:
            try:
                if child.pid is not None:
                    child.kill(_KILL_WAIT_S)
            except TimeoutExpired:
                logger.error("%s does not end, not even by SIGKILL", child.name, extra={"child_pid": child.pid})
