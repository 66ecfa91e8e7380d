"""A run with a worker in it, and the test in the place of its supervisor and its sequencer's loop.

The segments are the supervisor's own, the sequencer is the real one, driven by ``pump``; so what a test sees in
``records`` is what a consumer sees on the tape. The worker is an object in the test's event loop, or a process::

    run = WorkerRun(run_folder, tmp_path, paper_config(venue))
    async with run.worker():
        await run.until(lambda: run.count(Kind.TRADE) == 3)

Used by tests here, and by whatever wants a worker without a supervisor.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from mdring.config import (
    BreakerConfig,
    Config,
    ConnectionConfig,
    QuarantineConfig,
    RunConfig,
    SubscriptionConfig,
    TapeConfig,
    VenueConfig,
)
from mdring.counters import Counter, Counters
from mdring.feed.adapter import Adapter, Endpoints, InstrumentInfo
from mdring.feed.subscriptions import AdapterMaker, adapter_maker
from mdring.feed.worker import Worker
from mdring.record import CLEAR, DATA_TYPE_OF_KIND, RECORD, STATUS, Flags, Kind, Reason, State, offset_of
from mdring.run_folder import RunFolder
from mdring.sequencer import Sequencer
from mdring.supervisor.folder import RunSegments, write_config
from tests.feed.paper import PaperAdapter, PaperOptions
from tests.feed.paper_venue import PaperVenue

PATIENCE_S = 60.0  # for what must happen; a test that waits so long has failed
REPOSITORY = Path(__file__).parents[2]


def patiently(main: Coroutine[Any, Any, None]) -> None:
    """Run an async test body; what never happens becomes a TimeoutError."""
    asyncio.run(asyncio.wait_for(main, PATIENCE_S))


def paper_config(
    venue: PaperVenue,
    *,
    breaker: BreakerConfig | None = None,
    ring_slots: int = 4096,
    connections: int = 1,
    ca_file: str | None = None,
    instruments: tuple[str, ...] = ("AAA",),
    quarantine_bytes: int = 1 << 20,
    **connection: int,
) -> VenueConfig:
    """A configuration of the made-up venue; reconnects at once unless ``connection`` says otherwise."""
    return VenueConfig(
        id="paper",
        adapter="paper",
        websocket_url=venue.websocket_url,
        rest_url=venue.rest_url,
        ca_file=ca_file,
        ring_slots=ring_slots,
        options={"connections": connections},
        connection=ConnectionConfig(
            **{"reconnect_delay_ms": 5, "max_reconnect_delay_ms": 20, "stale_after_ms": 60_000, **connection}
        ),
        breaker=breaker or BreakerConfig(),
        quarantine=QuarantineConfig(max_bytes=quarantine_bytes),
        subscriptions=tuple(SubscriptionConfig(instrument=name, data_types=("trade", "book")) for name in instruments),
    )


def paper_maker(config: VenueConfig) -> AdapterMaker:
    """Makes the made-up venue's adapter, which is not among the installed ones here."""
    endpoints = Endpoints(config.websocket_url, config.rest_url)
    options = msgspec.convert(config.options, PaperOptions)
    return lambda subscriptions: PaperAdapter(endpoints, options, subscriptions)


class Told(msgspec.Struct, frozen=True):
    """A STATUS or CLEAR record in short."""

    kind: Kind
    instrument_id: int
    state: State
    reason: Reason
    detail: str = ""
    count: int = 0


class WorkerRun:
    """The run folder, its sequencer, and what has come onto its tape."""

    def __init__(self, folder: Path, state_folder: Path, venue: VenueConfig, *, tape_slots: int = 1 << 16) -> None:
        """``folder`` is on a tmpfs and empty."""
        self.venue = venue
        self.config = Config(
            run=RunConfig(name="run", directory=str(folder), state_directory=str(state_folder)),
            tape=TapeConfig(slots=tape_slots),
            venues=(venue,),
        )
        self.folder = RunFolder(self.config.run.path)
        self.folder.path.mkdir()
        self.segments = RunSegments.create(self.folder, self.config, time.time_ns())
        write_config(self.folder, self.config)
        self.sequencer = Sequencer(self.folder, self.config.venue_ids)
        self._reader = self.segments.tape.reader(flags_offset=offset_of("flags"), last_flag=int(Flags.LAST), position=0)
        self._batches: list[npt.NDArray[np.void]] = []
        self._batch = np.empty(4096, dtype=RECORD)
        self._plugin_folder = state_folder / "plugin"

    # ---- the worker ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def worker(self, adapter: Adapter | None = None) -> AsyncIterator[Worker]:
        """A worker in this event loop; stopped in order at the end of the block. ``adapter``: the only one it has."""
        ours, theirs = self._control()
        make = paper_maker(self.venue) if self.venue.adapter == "paper" else adapter_maker(self.venue)
        if adapter is not None:
            make = lambda subscriptions: adapter  # noqa: E731
        worker = Worker(self.folder, self.config, self.venue, make, theirs)
        task = asyncio.create_task(worker.run())
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(_raise_if_it_fails(task))
                yield worker
                watch.cancel()
        finally:
            worker.stop()
            try:
                await task
            finally:
                worker.close()
                self._release(ours, theirs)
                self.pump()

    @asynccontextmanager
    async def process(self, parent: int | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker process; killed at the end of the block if it still runs. ``parent``: this process, by default."""
        self._write_plugin()
        ours, theirs = self._control()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mdring.feed.worker", "--run-folder", str(self.folder.path)),
            *("--venue", self.venue.id, "--parent", str(parent or os.getpid()), "--control-fd", str(theirs.fileno())),
            pass_fds=(theirs.fileno(),),
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{self._plugin_folder}"},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            _, said = await process.communicate()
            print(said.decode())  # pytest shows it if the test failed
            self._release(ours, theirs)

    def _control(self) -> tuple[socket.socket, socket.socket]:
        """Both ends of a control socket; ours is answered as the supervisor would."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        unread = bytearray()

        def read() -> None:
            unread.extend(ours.recv(1 << 16))
            while b"\n" in unread:
                line, _, rest = bytes(unread).partition(b"\n")
                unread[:] = rest
                self.declare(msgspec.json.decode(line)["instruments"])

        asyncio.get_running_loop().add_reader(ours, read)
        return ours, theirs

    def _release(self, ours: socket.socket, theirs: socket.socket) -> None:
        asyncio.get_running_loop().remove_reader(ours)
        ours.close()
        theirs.close()

    def declare(self, rows: list[dict[str, Any]]) -> None:
        """Append instruments to the table."""
        for info in msgspec.convert(rows, list[InstrumentInfo]):
            self.segments.instruments.append(
                1, self.venue.id, info.instrument, info.canonical_symbol, info.price_exponent, info.size_exponent
            )  # fmt: skip

    def _write_plugin(self) -> None:
        """Make the made-up venue's adapter an installed one, as a third party's would be."""
        folder = self._plugin_folder / "paper-1.dist-info"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: paper\nVersion: 1\n")
        (folder / "entry_points.txt").write_text("[mdring.adapters]\npaper = tests.feed.paper:PaperAdapter\n")

    # ---- what comes out -----------------------------------------------------------------------------------

    @property
    def counters(self) -> Counters:
        """The worker's."""
        return self.segments.counters[f"worker-{self.venue.id}"]

    def pump(self) -> None:
        """Let the sequencer work, and read the tape."""
        while self.sequencer.do_work():
            while taken := self._reader.poll(self._batch):
                self._batches.append(self._batch[:taken].copy())

    async def until(self, condition: Callable[[], bool]) -> None:
        """Pump until the condition holds."""
        while not condition():
            await self.turn()

    async def turn(self) -> None:
        """Pump once, and let everybody else have a turn."""
        self.pump()
        await asyncio.sleep(0.002)

    async def until_count(self, kind: Kind, count: int) -> None:
        """Pump until so many records of a kind have come."""
        await self.until(lambda: self.count(kind) >= count)

    async def until_counter(self, counter: Counter, value: int) -> None:
        """Pump until a counter has reached a value."""
        await self.until(lambda: self.counters.load(counter) >= value)

    async def until_told(self, state: State, reason: Reason | None = None) -> None:
        """Pump until a STATUS of this state, and reason, has come."""
        await self.until(
            lambda: any(told.state is state and reason in (None, told.reason) for told in self.told(Kind.STATUS))
        )

    @property
    def records(self) -> npt.NDArray[np.void]:
        """All that has come onto the tape, RECORD."""
        return np.concatenate([self._batch[:0], *self._batches])

    def of(self, kind: Kind) -> npt.NDArray[np.void]:
        """The records of one kind."""
        records = self.records
        return np.compress(records["kind"] == kind, records)

    def count(self, kind: Kind) -> int:
        """How many records of a kind have come."""
        return len(self.of(kind))

    def told(self, *kinds: Kind) -> list[Told]:
        """STATUS and CLEAR records, in order; or only one of the two."""
        wanted = kinds or (Kind.STATUS, Kind.CLEAR)
        return [_told(record) for record in self.records if record["kind"] in wanted]

    def states(self) -> list[tuple[State, Reason]]:
        """The venue's states, in order."""
        return [(told.state, told.reason) for told in self.told(Kind.STATUS) if told.instrument_id == 0]


def _told(record: np.void) -> Told:
    instrument_id = int(record["instrument_id"])
    if record["kind"] == Kind.CLEAR:
        clear = np.array([record]).view(CLEAR)[0]
        return Told(Kind.CLEAR, instrument_id, State.NONE, Reason(int(clear["reason"])))
    status = np.array([record]).view(STATUS)[0]
    return Told(
        Kind.STATUS, instrument_id, State(int(status["state"])), Reason(int(status["reason"])),
        status["detail"].decode(), int(status["count"]),
    )  # fmt: skip


async def _raise_if_it_fails(task: asyncio.Task[None]) -> None:
    await asyncio.shield(task)


def channel_seqs(records: npt.NDArray[np.void]) -> dict[tuple[int, int], list[int]]:
    """The channel_seqs in order, by instrument and data type."""
    found: dict[tuple[int, int], list[int]] = {}
    for record in records:
        data_type = DATA_TYPE_OF_KIND[Kind(int(record["kind"]))]
        found.setdefault((int(record["instrument_id"]), data_type), []).append(int(record["channel_seq"]))
    return found


def assert_unbroken(records: npt.NDArray[np.void]) -> None:
    """Every channel_seq rises by exactly 1 from 1, and every event group ends."""
    for channel, numbers in channel_seqs(records).items():
        assert numbers == list(range(1, len(numbers) + 1)), channel
    if len(records):
        assert records["flags"][-1] & Flags.LAST
