"""The whole system in processes of its own: an emulator per venue, and ``python -m mdring up`` over them.

::

    with System(directory, instruments=["BTC-USDT"], rate=500) as system:
        system.start()
        with system.recorder() as tape:
            system.kill("sequencer")
            system.settle(tape)             # markets paused, books equal to the true ones
            system.audit(tape)              # all of the tape held against what was sent
        assert system.stop() == 0
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import trustme

from mdring.counters import Counter, Counters
from mdring.emulator.client import ControlError, EmulatorProcess, TrueBook
from mdring.emulator.faults import FaultKind
from mdring.instrument import Instrument
from mdring.record import Flags, Kind, Side
from mdring.run_folder import RunFolder
from tests.e2e.audit import Audit, exact
from tests.e2e.recorder import BookView, Recorder, RingRecorder
from tests.e2e.stream import Records, of_kind
from tests.e2e.wire import Sent, read_truth_log
from tests.supervised import is_alive, wait_until

VENUE: Final = "binance"  # what the emulator calls the one venue that it knows
UNDETECTABLE: Final = frozenset({FaultKind.ALTERED})  # it sends no checksum: what it says is passed on as said
SNAPSHOT_LIMIT: Final = 100
DEPTH: Final = 30  # levels a side, give or take a tenth: a snapshot shows all of them
WATCHDOG_S: Final = 60.0
MOST_SNAPSHOTS: Final = 10  # of an instrument that are compared with the true book of their time

_CONNECTION: Final = {
    "reconnect_delay_ms": 10,
    "max_reconnect_delay_ms": 100,
    "healthy_after_ms": 300,
    "stale_after_ms": 10_000,  # a paused market is as silent as a stalled one
}
_SUPERVISOR: Final = {
    "restart_delay_ms": 1,
    "max_restart_delay_ms": 1,
    "crash_loop_limit": 1_000,
    "heartbeat_timeout_ms": 60_000,
    "drain_timeout_ms": 30_000,
}


class System:
    """One run, its emulators, their files below ``directory``. The emulators start at once, the run by ``start``."""

    def __init__(
        self,
        directory: Path,
        *,
        venues: Sequence[str] = ("alpha",),
        instruments: Sequence[str] = ("BTC-USDT", "ETH-USDT", "SOL-USDT"),
        rate: int = 400,
        seed: int = 1,
        tape_slots: int = 1 << 18,
        books: bool = True,
        tls: bool = False,
        connection: dict[str, int] | None = None,
        supervisor: dict[str, int] | None = None,
    ) -> None:
        """``rate``: market steps per second of each emulator. ``books``: whether there is a book keeper. ``tls``: the
        venues speak wss and https, with a certificate of an authority of our own. The last two replace keys of the
        configuration."""
        self.directory = directory
        self.venues = tuple(venues)
        self.name = "e2e"
        self.runs = directory / "runs"
        self.folder = RunFolder(self.runs / self.name)
        self.process: subprocess.Popen[bytes] | None = None
        self._config = directory / "config.toml"
        self._log = directory / "log.jsonl"
        self._counters: dict[str, Counters] = {}
        self.emulators: dict[str, EmulatorProcess] = {}
        authority = _authority(directory) if tls else None
        try:
            for number, venue in enumerate(self.venues):
                self.emulators[venue] = _emulator(self.truth_log(venue), instruments, rate, seed + number, authority)
        except BaseException:
            self.close()
            raise
        tables = [
            _table("run", name=self.name, directory=str(self.runs), state_directory=str(directory / "state")),
            _table("tape", slots=tape_slots),
            _table("books", enabled=books),
            _table("supervisor", **{**_SUPERVISOR, **(supervisor or {})}),
        ]
        for venue, emulator in self.emulators.items():
            trusted = {} if authority is None else {"ca_file": str(authority)}
            tables += _venue_tables(venue, emulator, instruments, {**_CONNECTION, **(connection or {})}, trusted)
        self._config.write_text("\n".join(tables))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if kind is not None and self._log.exists():
            print("\n".join(line[:300] for line in self._log.read_text().splitlines()[-30:]))

    def close(self) -> None:
        """End everything, by force where needed."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for emulator in self.emulators.values():
            emulator.stop()

    def truth_log(self, venue: str) -> Path:
        """The file in which the venue's emulator writes down what it sends."""
        return self.directory / f"truth-{venue}.jsonl"

    # ---- the run ------------------------------------------------------------------------------------------

    def start(self, *arguments: str) -> Self:
        """Start the run; returns at once. ``arguments``: further ones of ``mdring up``."""
        self._counters.clear()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mdring", "up", "--config", str(self._config), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def wait_until_up(self) -> Self:
        """Return when the run is announced and all books are valid."""
        self.wait_until(self.is_announced, "the run is announced")
        self.wait_until_synced()
        return self

    def wait_until_synced(self, venues: Iterable[str] | None = None) -> None:
        """Return when each worker has all of its books, and all of them valid."""
        for venue in self.venues if venues is None else venues:
            self.wait_until(lambda venue=venue: self._is_synced(venue), f"the books of {venue} are valid")  # type: ignore[misc]

    def _is_synced(self, venue: str) -> bool:
        worker = f"worker-{venue}"
        pid = self.pid(worker)
        if pid is None or self.counter(worker, Counter.PID) != pid:  # what stands there is a dead predecessor's
            return False
        books = self.counter(worker, Counter.BOOKS)
        return books > 0 and self.counter(worker, Counter.BOOKS_VALID) == books

    def is_announced(self) -> bool:
        """Whether the run that we started is there for consumers."""
        assert self.process is not None
        try:
            return self.folder.read_info().supervisor_pid == self.process.pid
        except FileNotFoundError:
            return False

    def wait_until(self, condition: Callable[[], Any], what: str) -> None:
        """Return when ``condition`` holds; fail if it never does, or if the supervisor ends before."""
        deadline = time.monotonic() + WATCHDOG_S
        while not condition():
            assert self.process is None or self.process.poll() is None, f"the supervisor ended before {what}"
            assert time.monotonic() < deadline, f"never happened: {what}"
            time.sleep(0.005)

    def stop(self) -> int:
        """Have the run end in order; the supervisor's exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(WATCHDOG_S)

    def counters(self, process: str) -> Counters:
        """The counters of a process of the run that is up."""
        if process not in self._counters:
            self._counters[process] = Counters.attach(self.folder.counters(process))
        return self._counters[process]

    def counter(self, process: str, counter: Counter) -> int:
        """One counter of a process, now."""
        return self.counters(process).load(counter)

    # ---- its processes ------------------------------------------------------------------------------------

    def pid(self, process: str) -> int | None:
        """The pid of a living child as the kernel has it, from its first instruction on."""
        assert self.process is not None
        modules = {"sequencer": "mdring.sequencer", "books": "mdring.book.keeper"}
        wanted = modules.get(process, process.removeprefix("worker-"))
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return next((int(pid) for pid in children if wanted in _command_line(int(pid))), None)

    def kill(self, process: str) -> int:
        """SIGKILL a child; waits for one to kill, not for the end of it. Its pid."""
        pid: int | None = None

        def is_there() -> bool:
            nonlocal pid
            pid = self.pid(process)
            return pid is not None

        self.wait_until(is_there, f"there is a {process}")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_until_gone(self, process: str, pid: int) -> None:
        """Return when a killed child is reaped."""
        self.wait_until(lambda: self.pid(process) != pid, f"the {process} with pid {pid} is gone")

    def survivors(self) -> list[int]:
        """Pids of living processes whose command line names our directory, emulators not among them."""
        emulators = {emulator.process.pid for emulator in self.emulators.values()}
        return [pid for pid in pids_with(str(self.directory)) if pid not in emulators]

    def kill_supervisor(self) -> None:
        """SIGKILL the supervisor; returns when nothing of its run lives any more."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        wait_until(lambda: not self.survivors(), "all children of the killed supervisor are dead")

    # ---- what it does -------------------------------------------------------------------------------------

    def recorder(self) -> Recorder:
        """A consumer of the tape from its first record on."""
        self.wait_until(self.is_announced, "the run is announced")
        return Recorder(self.name, self.runs, wait_s=WATCHDOG_S)

    def ring_recorder(self, venue: str) -> RingRecorder:
        """A second reader of the venue ring."""
        self.wait_until(self.is_announced, "the run is announced")
        return RingRecorder(self.folder.venue_ring(venue))

    def settle(self, tape: Recorder, venues: Iterable[str] | None = None) -> None:
        """Stop the markets; returns when all true books were found on the tape, level by level."""
        venues = self.venues if venues is None else tuple(venues)
        for venue in venues:
            self.emulators[venue].pause()
        for venue in venues:
            true = {row: self.true_book(row) for row in tape.instruments(venue)}
            assert true, f"{venue} has no instrument"
            for instrument, book in true.items():
                self.wait_until(
                    lambda instrument=instrument, book=book: is_at(tape.book(instrument), book),  # type: ignore[misc]
                    f"{instrument.name} is at {book.last_update_id}; it is at {tape.book(instrument)}",
                )
                assert_equal_books(instrument, tape.book(instrument), book)

    def true_book(self, instrument: Instrument, update_id: int | None = None) -> TrueBook:
        """The book as the emulator has it."""
        return self.emulators[instrument.venue].book(VENUE, instrument.instrument, update_id)

    def sent(self, venue: str, offset: int = 0) -> list[Sent]:
        """What the venue's emulator has sent so far, or from a byte of its log on; its market must be paused."""
        return read_truth_log(self.truth_log(venue), offset)

    def audit(self, tape: Recorder, *, complete: bool = False, lossy_ring: bool = False) -> Records:
        """Hold all of the tape against all that was sent; the markets must be settled. Returns the records."""
        records = tape.records()
        for venue in self.venues:
            sent, instruments = self.sent(venue), tape.instruments(venue)
            Audit(records, instruments, sent, complete=complete, lossy_ring=lossy_ring).check()
            for instrument in instruments:
                self.check_snapshots(records, instrument)
                assert not tape.book(instrument).crossed, f"the book of {instrument.name} was crossed"
        return records

    def check_snapshots(self, records: Records, instrument: Instrument) -> None:
        """Compare snapshots on the tape with the true book at their ids; some of them, if there are many."""
        chosen = (records["instrument_id"] == instrument.id) & ((records["flags"] & Flags.SNAPSHOT) != 0)
        levels = of_kind(records[chosen], Kind.LEVEL)
        begins = np.flatnonzero(np.diff(levels["venue_seq"], prepend=np.uint64(0)))
        snapshots = np.split(levels, begins[1:]) if len(levels) else []
        for snapshot in snapshots[:: len(snapshots) // MOST_SNAPSHOTS + 1]:
            try:
                true = self.true_book(instrument, int(snapshot["venue_seq"][0]))
            except ControlError as error:
                if error.status != HTTPStatus.GONE:
                    raise
                continue  # made stale by a fault, older than all that the emulator remembers
            for side, texts in ((Side.BID, true.bids), (Side.ASK, true.asks)):
                of_side = snapshot[snapshot["side"] == side]
                assert_equal_levels(instrument, of_side, texts, f"the snapshot of {true.last_update_id}")

    def resume(self) -> None:
        """Let the markets run on."""
        for emulator in self.emulators.values():
            emulator.resume()


def _command_line(pid: int) -> list[str]:
    """The words of a process's command line; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def pids_with(text: str) -> list[int]:
    """Living processes with ``text`` in their command line."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if any(text in word for word in _command_line(pid)) and is_alive(pid)]


def is_at(book: BookView, true: TrueBook) -> bool:
    """Whether the book stands where the true one does."""
    return book.valid and book.venue_seq == true.last_update_id


def assert_equal_books(instrument: Instrument, book: BookView, true: TrueBook) -> None:
    """Every level of both sides, exactly, and no other."""
    for levels, texts in ((book.bids, true.bids), (book.asks, true.asks)):
        assert_equal_levels(instrument, levels, texts, f"the book at {true.last_update_id}")


def assert_equal_levels(
    instrument: Instrument, levels: npt.NDArray[np.void], texts: Sequence[tuple[str, str]], what: str
) -> None:
    """Price and size of each level, in their order."""
    found = list(zip(levels["price"].tolist(), levels["size"].tolist(), strict=True))
    expected = [exact(instrument, Decimal(price), Decimal(size)) for price, size in texts]
    assert found == expected, f"{instrument.name}: {what} is not the true one"


def of_venue(records: Records, venue_id: int) -> Records:
    """The venue's share of a tape."""
    share: Records = records[records["venue_id"] == venue_id]
    return share


def _authority(directory: Path) -> Path:
    """Make an authority of our own, and a certificate by it; the file that clients trust."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "server.pem"))
    return directory / "ca.pem"


def _emulator(truth: Path, instruments: Sequence[str], rate: int, seed: int, authority: Path | None) -> EmulatorProcess:
    options = {
        "connections_per_5min": 1_000_000,
        "weight_per_minute": 100_000_000,
        "messages_per_second": 1_000,
    }
    arguments = ["--depth", str(DEPTH), "--history", "200000"]
    if authority is not None:
        certificate = str(authority.with_name("server.pem"))
        arguments += ["--tls-cert", certificate, "--tls-key", certificate]
    for name, value in options.items():
        arguments += ["--option", f"{VENUE}.{name}={value}"]
    return EmulatorProcess(seed=seed, rate=rate, instruments=instruments, truth=truth, arguments=arguments)


def _venue_tables(
    venue: str,
    emulator: EmulatorProcess,
    instruments: Sequence[str],
    connection: dict[str, int],
    trusted: dict[str, str],
) -> list[str]:
    names = emulator.instruments(VENUE)
    return [
        _table(
            "[venues]",
            id=venue,
            adapter=VENUE,
            websocket_url=emulator.websocket_url(VENUE),
            rest_url=emulator.rest_url(VENUE),
            ring_slots=1 << 15,
            **trusted,
        ),
        _table("venues.options", snapshot_limit=SNAPSHOT_LIMIT),
        _table("venues.connection", **connection),
        _table("venues.breaker", open_ms=100),
        *(
            _table("[venues.subscriptions]", instrument=names[symbol], data_types=["trade", "bbo", "book"])
            for symbol in instruments
        ),
    ]


def _table(name: str, /, **values: Any) -> str:
    """A TOML table; JSON writes our texts, numbers and arrays as TOML does."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([f"[{name}]", *lines, ""])
