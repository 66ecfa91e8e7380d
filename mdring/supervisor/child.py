"""A child of the supervisor: its command line, its start, its signs of life, its restarts.

Part of the supervisor. A child is one process of the run at a time, started anew after each end; what it counts
goes on in the same counters segment. It may have a control socket, on which it sends lines of JSON::

    child = Child("sequencer", Commands().sequencer, {"run_folder": path, "parent": os.getpid()},
                  config.supervisor, selector, counters=counters)
    child.start(time.monotonic_ns())
    child.poll()                          # None while it runs, else how it ended
    child.is_stalled(time.monotonic_ns())
"""

from __future__ import annotations

import logging
import selectors
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mdring.config import SupervisorConfig
from mdring.counters import Counter, Counters
from mdring.process import stop_held_back

logger = logging.getLogger(__name__)

_MILLISECOND: Final = 1_000_000
_SECOND: Final = 1_000_000_000
_START_TIMEOUT_NS: Final = 30 * _SECOND  # to the first duty cycle: imports take long on a loaded machine
_MAX_LINE_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 16
_STANDARD_ERROR: Final = 2

Command = tuple[str, ...]

# -P: a file of the user's working directory must not stand in for a module of ours.
_PYTHON_MODULE: Final[Command] = (sys.executable, "-P", "-m")


@dataclass(frozen=True)
class Commands:
    """The command lines of the children; words in braces are filled in at the start."""

    sequencer: Command = (
        *(*_PYTHON_MODULE, "mdring.sequencer"),
        *("--run-folder", "{run_folder}", "--parent", "{parent}"),
    )
    keeper: Command = (
        *(*_PYTHON_MODULE, "mdring.book.keeper"),
        *("--run-folder", "{run_folder}", "--parent", "{parent}"),
    )
    worker: Command = (
        *(*_PYTHON_MODULE, "mdring.feed.worker"),
        *("--run-folder", "{run_folder}", "--venue", "{venue}", "--parent", "{parent}", "--control-fd", "{control_fd}"),
    )
    emulator: Command = (
        *(*_PYTHON_MODULE, "mdring.emulator", "--die-with-parent"),
        *("--venues", "{venues}", "--instruments", "{instruments}"),
        *("--rate", "{rate}", "--announce-fd", "{control_fd}"),
    )


class RestartPolicy:
    """When a child that ended is started again. Times are of CLOCK_MONOTONIC, ns."""

    def __init__(self, config: SupervisorConfig) -> None:
        self._delay_ns = config.restart_delay_ms * _MILLISECOND
        self._max_delay_ns = config.max_restart_delay_ms * _MILLISECOND
        self._limit = config.crash_loop_limit
        self._window_ns = config.crash_loop_window_s * _SECOND
        self._ends: deque[int] = deque()

    def next_start(self, now_ns: int) -> tuple[int, bool]:
        """The child ended now: when to start it again, and whether it is in a crash loop.

        The delay doubles with each end within the window. A crash loop is ``crash_loop_limit`` ends within the
        window; the child then pauses for a whole window, and begins anew.
        """
        self._ends.append(now_ns)
        while now_ns - self._ends[0] >= self._window_ns:
            self._ends.popleft()
        if len(self._ends) >= self._limit:
            self._ends.clear()
            return now_ns + self._window_ns, True
        delay_ns: int = self._delay_ns << (len(self._ends) - 1)
        return now_ns + min(delay_ns, self._max_delay_ns), False


class HeartbeatWatch:
    """Whether heartbeats still come.

    What counts is when the value last *changed* by the monotonic clock, so neither a step of the wall clock nor
    a suspended machine makes a child look stalled.
    """

    def __init__(self, timeout_ns: int, now_ns: int) -> None:
        self._timeout_ns = timeout_ns
        self._looked_ns = self._changed_ns = now_ns
        self._heartbeat = 0

    def is_stalled(self, heartbeat: int, now_ns: int) -> bool:
        """Whether ``heartbeat`` has been the same for longer than the time-out."""
        missed_looks = now_ns - self._looked_ns > self._timeout_ns  # we stood still ourselves, and maybe all did
        if heartbeat != self._heartbeat or missed_looks:
            self._heartbeat = heartbeat
            self._changed_ns = now_ns
        self._looked_ns = now_ns
        return now_ns - self._changed_ns > self._timeout_ns


class Child:
    """One process of the run, started again and again."""

    def __init__(
        self,
        name: str,
        command: Command,
        words: Mapping[str, object],
        config: SupervisorConfig,
        selector: selectors.BaseSelector,
        *,
        counters: Counters | None = None,
        on_line: Callable[[bytes], None] | None = None,
    ) -> None:
        """``on_line`` takes each line of the control socket; without it the child gets none.

        While the socket is there, it is registered with ``selector`` and a callable that reads it.
        """
        self.name = name
        self.counters = counters
        self.policy = RestartPolicy(config)
        self.start_due_ns: int | None = None  # while it does not run: when it will, if it will
        self._control: socket.socket | None = None
        self._selector = selector
        self._command = command
        self._words = words
        self._on_line = on_line
        self._unread = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._heartbeat_timeout_ns = config.heartbeat_timeout_ms * _MILLISECOND
        self._watch: HeartbeatWatch | None = None
        self._start_limit_ns = 0
        self._opening_heartbeat = 0  # 0: not seen yet
        self._killed = False

    @property
    def pid(self) -> int | None:
        """Of the process while it runs."""
        return None if self._process is None else self._process.pid

    def start(self, now_ns: int) -> None:
        """Start the process. Raises OSError if the system cannot."""
        self.start_due_ns = None
        words = dict(self._words)
        passed: tuple[int, ...] = ()
        theirs: socket.socket | None = None
        if self._on_line is not None:
            self._control, theirs = socket.socketpair()
            self._control.setblocking(False)
            self._selector.register(self._control, selectors.EVENT_READ, self._read_control)
            passed = (theirs.fileno(),)
            words["control_fd"] = theirs.fileno()
        try:
            with stop_held_back():
                self._process = subprocess.Popen(
                    [word.format_map(words) for word in self._command],
                    stdin=subprocess.DEVNULL,
                    stdout=_STANDARD_ERROR,  # standard output is the supervisor's own
                    pass_fds=passed,
                    process_group=0,  # Ctrl-C goes to the supervisor alone, which stops its children in order
                )
        except OSError:
            self._close_control()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        self._watch = None
        self._killed = False
        self._opening_heartbeat = 0
        self._start_limit_ns = now_ns + max(_START_TIMEOUT_NS, self._heartbeat_timeout_ns)

    def poll(self) -> int | None:
        """None while the process runs (or if none does), else its return code; told once."""
        if self._process is None:
            return None
        code = self._process.poll()
        if code is not None:
            self._process = None
            self._read_control()  # what it said last
            self._close_control()
        return code

    def is_ready(self) -> bool:
        """Whether the running process has opened its counters, hence knows how to stop in order."""
        if self._process is None or self.counters is None:
            return self._process is not None
        return self.counters.load(Counter.PID) == self._process.pid

    def is_stalled(self, now_ns: int) -> bool:
        """Whether the running process gives no sign of life any more, and was not killed for it yet."""
        if self._process is None or self.counters is None or self._killed:
            return False
        heartbeat = self.counters.load(Counter.HEARTBEAT_NS) if self.is_ready() else 0
        if self._watch is None:
            # Opening its counters is a process's first heartbeat; its duty cycle, which gives the next, may be far off.
            self._opening_heartbeat = self._opening_heartbeat or heartbeat
            if heartbeat == self._opening_heartbeat:
                return now_ns > self._start_limit_ns
            self._watch = HeartbeatWatch(self._heartbeat_timeout_ns, now_ns)
        return self._watch.is_stalled(heartbeat, now_ns)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)
            self._killed = self._killed or number == signal.SIGKILL

    def kill(self, wait_s: float) -> int:
        """End the running process at once and reap it; its return code. TimeoutExpired if the kernel keeps it."""
        assert self._process is not None
        self._process.kill()
        code = self._process.wait(wait_s)
        self._process = None
        self._close_control()
        return code

    def _read_control(self) -> None:
        """Hand the lines that have come on the control socket on."""
        while self._control is not None:
            try:
                received = self._control.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except ConnectionError:
                received = b""
            if not received:
                self._close_control()
                return
            self._take(received)

    def _take(self, received: bytes) -> None:
        assert self._on_line is not None
        *lines, self._unread = (self._unread + received).split(b"\n")
        if len(self._unread) > _MAX_LINE_BYTES:
            logger.error("%s sent more than %d bytes without a line end; ignored", self.name, _MAX_LINE_BYTES)
            self._unread = b""
        for line in lines:
            self._on_line(line)

    def _close_control(self) -> None:
        self._unread = b""
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None


def describe_end(code: int) -> str:
    """How a process ended, in words, from its return code."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"was ended by signal {-code}"
