"""The worker as a process: stopped in the midst of every wait, killed at any moment, small and quiet."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import psutil
import pytest
from msgspec import structs

from mdring.config import BreakerConfig, SubscriptionConfig, VenueConfig
from mdring.counters import Counter
from mdring.emulator.client import EmulatorProcess
from mdring.record import DataType, Kind, Reason, State
from mdring.ring.segment import is_locked
from tests.feed.paper_venue import PaperVenue
from tests.feed.worker_run import WorkerRun, assert_unbroken, channel_seqs, paper_config, patiently

KILLS = 12
FAR = 60_000  # ms; what a test does not wait for
RSS_BYTES = 70 * 1024 * 1024


def trade(number: int) -> dict[str, object]:
    return {"trade": "AAA", "id": number, "price": "1.50", "size": "2"}


async def ended(process: asyncio.subprocess.Process) -> int:
    """The exit status; what a process that does not end says is shown."""
    _, errors = await process.communicate()
    assert process.returncode is not None
    if process.returncode:
        print(errors.decode())
    return process.returncode


# ---- stopped in the midst of a wait -----------------------------------------------------------------------

Waiting = Callable[[WorkerRun, PaperVenue], Awaitable[None]]


async def _metadata(run: WorkerRun, venue: PaperVenue) -> None:
    await run.until(lambda: venue.rest_requests == ["/instruments"])


async def _metadata_backoff(run: WorkerRun, venue: PaperVenue) -> None:
    await run.until_told(State.DISCONNECTED, Reason.CONNECT_FAILED)


async def _subscribed(run: WorkerRun, venue: PaperVenue) -> None:
    await venue.session()
    await run.until_told(State.CONNECTED)


async def _connecting(run: WorkerRun, venue: PaperVenue) -> None:
    await run.until(lambda: venue.rest_requests == ["/instruments"])
    await run.until_counter(Counter.SUBSCRIPTIONS, 1)


async def _reading(run: WorkerRun, venue: PaperVenue) -> None:
    session = await venue.session()
    await run.until_told(State.SYNCED)
    session.send(trade(1))
    await run.until_count(Kind.TRADE, 1)


async def _backoff(run: WorkerRun, venue: PaperVenue) -> None:
    await run.until_told(State.DISCONNECTED, Reason.CONNECT_FAILED)


async def _breaker(run: WorkerRun, venue: PaperVenue) -> None:
    await run.until_told(State.CIRCUIT_OPEN)


async def _exhausted(run: WorkerRun, venue: PaperVenue) -> None:
    await run.until_told(State.DISCONNECTED, Reason.ATTEMPTS_EXHAUSTED)


def _prepare(name: str, venue: PaperVenue, silent_port: int) -> VenueConfig:
    """The venue's faults and the configuration that bring the wait about."""
    config = paper_config(venue, reconnect_delay_ms=FAR, max_reconnect_delay_ms=FAR)
    silent = f"ws://localhost:{silent_port}"
    refusing = "ws://localhost:1"
    match name:
        case "metadata":
            venue.rest_answers.clear()
        case "metadata backoff":
            venue.rest_status = 500
        case "handshake":
            return structs.replace(config, websocket_url=silent)
        case "TLS":
            return structs.replace(config, websocket_url=silent.replace("ws:", "wss:"))
        case "answer to the subscription":
            venue.acknowledges = False
        case "snapshot":
            venue.on_session = lambda session: venue.rest_answers.clear()
        case "backoff":
            return structs.replace(config, websocket_url=refusing)
        case "breaker":
            breaker = BreakerConfig(failure_threshold=1, open_ms=FAR)
            return structs.replace(config, websocket_url=refusing, breaker=breaker)
        case "exhausted":
            one = structs.replace(config.connection, max_reconnect_attempts=1, reconnect_delay_ms=1)
            return structs.replace(config, websocket_url=refusing, connection=one)
    return config


WAITS: dict[str, Waiting] = {
    "metadata": _metadata,
    "metadata backoff": _metadata_backoff,
    "handshake": _connecting,
    "TLS": _connecting,
    "answer to the subscription": _subscribed,
    "snapshot": _subscribed,
    "first data": _subscribed,
    "reading": _reading,
    "backoff": _backoff,
    "breaker": _breaker,
    "exhausted": _exhausted,
}


@pytest.mark.parametrize("wait", WAITS)
def test_signal_ends_the_worker_in_order_in_the_midst_of_every_wait(
    run_folder: Path, tmp_path: Path, wait: str
) -> None:
    """None of these waits would end by itself within the test's patience."""

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with PaperVenue() as venue:
                run = WorkerRun(run_folder, tmp_path, _prepare(wait, venue, silent.getsockname()[1]))
                async with run.process() as process:
                    await WAITS[wait](run, venue)
                    process.send_signal(signal.SIGINT)  # Ctrl-C is the supervisor's
                    process.send_signal(signal.SIGTERM)
                    assert await ended(process) == 0
                run.pump()
                assert run.states()[-1] == (State.DISCONNECTED, Reason.SHUTDOWN)
                assert run.counters.load(Counter.STATE) == State.DISCONNECTED
                assert_unbroken(run.records)
                venue.rest_answers.set()

    patiently(main())


def test_venue_is_told_goodbye(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.process() as process:
                await _reading(run, venue)
                process.send_signal(signal.SIGTERM)
                assert await ended(process) == 0
            await venue.sessions[0].closed.wait()
            assert venue.sessions[0].received[-1] == (venue.sessions[0].received[-1][0], (1000).to_bytes(2, "big"))

    patiently(main())


def test_bug_ends_the_process_with_its_traceback(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.process() as process:
                await _reading(run, venue)
                venue.sessions[0].send({"bug": True})
                _, errors = await process.communicate()
            assert process.returncode == 1
            lines = [json.loads(line) for line in errors.splitlines() if line.startswith(b"{")]
            critical = next(line for line in lines if line["level"] == "critical")
            assert "RuntimeError: a bug of ours" in critical["exception"]

    patiently(main())


def test_second_worker_of_a_venue_cannot_start(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.process() as first:
                await _reading(run, venue)
                async with run.process() as second:
                    _, errors = await second.communicate()
                    assert second.returncode == 1
                    assert b"AlreadyWritten" in errors
                venue.sessions[0].send(trade(2))
                await run.until_count(Kind.TRADE, 2)
                first.send_signal(signal.SIGTERM)
                assert await ended(first) == 0
            assert not is_locked(run.folder.venue_ring("paper"))

    patiently(main())


# ---- REST is dead ----------------------------------------------------------------------------------------


def test_worker_starts_while_rest_is_dead_by_the_list_of_last_time(run_folder: Path, tmp_path: Path) -> None:
    """The list is learnt once; then REST refuses, the venue's feed goes on, and so must we; then it answers again,
    with other exponents, which are those of the next start."""

    async def main() -> None:
        async with PaperVenue() as venue:
            trades = (SubscriptionConfig(match="A*", data_types=("trade",)),)
            config = structs.replace(paper_config(venue, metadata_timeout_ms=200), subscriptions=trades)
            run = WorkerRun(run_folder, tmp_path, config)
            kept = run.config.listing("paper")
            await _feed_one_trade(run, venue, 0)
            learnt_ns = run.counters.load(Counter.METADATA_NS)
            assert json.loads(kept.read_bytes())["learnt_ns"] == learnt_ns

            venue.stop_rest()
            venue.more_of["AAA"] = {"price_exponent": -4}
            async with run.process() as process:
                session = await venue.session(1)
                session.send(trade(2))
                await run.until_count(Kind.TRADE, 2)
                assert run.counters.load(Counter.METADATA_NS) == learnt_ns
                error = run.counters.error()
                assert error is not None and "going on with the list of" in error[1]
                assert run.counters.load(Counter.STATE) == State.CONNECTED
                await venue.listen_rest()
                await run.until(lambda: b'"price_exponent":-4' in kept.read_bytes())
                await run.until(lambda: "exponents -4 and 0" in (run.counters.error() or (0, ""))[1])
                session.send(trade(3))
                await run.until_count(Kind.TRADE, 3)
                process.send_signal(signal.SIGTERM)
                assert await ended(process) == 0

            await _feed_one_trade(run, venue, 2)
            ids, prices = run.of(Kind.TRADE)["instrument_id"], run.of(Kind.TRADE)["price"]
            assert (list(ids), list(prices)) == ([1, 1, 1, 2], [150, 150, 150, 15000])
            assert run.segments.instruments["paper:AAA"].price_exponent == -4
            assert_unbroken(run.records)

    patiently(main())


async def _feed_one_trade(run: WorkerRun, venue: PaperVenue, life: int) -> None:
    """A life of the worker process in which all is well."""
    before = run.count(Kind.TRADE)
    async with run.process() as process:
        session = await venue.session(life)
        session.send(trade(1))
        await run.until_count(Kind.TRADE, before + 1)
        process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
    run.pump()


def test_worker_without_a_list_of_last_time_waits_for_rest(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.stop_rest()
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, metadata_timeout_ms=1))
            async with run.process() as process:
                await run.until_counter(Counter.FETCH_ERRORS, 2)
                assert not venue.sessions
                await venue.listen_rest()
                await run.until_told(State.SYNCED)
                process.send_signal(signal.SIGTERM)
                assert await ended(process) == 0

    patiently(main())


# ---- killed -----------------------------------------------------------------------------------------------


def test_killed_worker_leaves_no_gap_no_torn_group_and_no_book_that_seems_valid(
    run_folder: Path, tmp_path: Path
) -> None:
    """SIGKILL under load, again and again: channel_seqs go on unbroken, and what the dead one fed is cleared first."""

    async def main() -> None:
        random = Random(7)
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ring_slots=256))
            sent = 0
            for life in range(KILLS):
                async with run.process() as process:
                    session = await venue.session(life)
                    begun = run.count(Kind.TRADE)
                    for _ in range(random.randrange(1, 60)):
                        session.send(*(trade(sent := sent + 1) for _ in range(random.randrange(1, 30))))
                        session.send({"delta": "AAA", "id": sent, "bids": [["1.40", "1"]] * 9, "asks": []})
                        if random.random() < 0.7:
                            await run.turn()
                    await run.until(lambda begun=begun: run.count(Kind.TRADE) > begun)  # type: ignore[misc]
                    process.send_signal(signal.SIGKILL)
                    assert await process.wait() == -signal.SIGKILL
                run.pump()
            async with run.worker():
                await run.until_told(State.RECONNECTING, Reason.WORKER_RESTART)
            assert_unbroken(run.records)
            _assert_cleared_by_each_successor(run)

    patiently(main())


def _assert_cleared_by_each_successor(run: WorkerRun) -> None:
    records = run.records
    restarts = [
        at
        for at, told in enumerate(run.told(Kind.STATUS))
        if (told.state, told.reason) == (State.RECONNECTING, Reason.WORKER_RESTART)
    ]
    assert len(restarts) == KILLS
    rows = [at for at, row in enumerate(records) if row["kind"] == Kind.STATUS]
    for restart in restarts:
        following = records[rows[restart] + 1]
        assert (following["kind"], following["instrument_id"]) == (Kind.CLEAR, 1)
    trades = [int(row["venue_seq"]) for row in run.of(Kind.TRADE)]
    assert trades == sorted(set(trades))


# ---- small and quiet, with a real venue's protocol --------------------------------------------------------


@asynccontextmanager
async def emulated_binance(run_folder: Path, tmp_path: Path, rate: int) -> AsyncIterator[WorkerRun]:
    """An emulated Binance with ten instruments, and a run that wants them all."""
    bases = ("BTC", "ETH", "SOL", "XRP", "ADA")
    with EmulatorProcess(rate=rate, seed=3, instruments=[f"{base}-USDT" for base in bases]) as emulator:
        config = VenueConfig(
            id="binance",
            adapter="binance",
            websocket_url=emulator.websocket_url("binance"),
            rest_url=emulator.rest_url("binance"),
            connection=structs.replace(paper_config(PaperVenue()).connection),
            subscriptions=tuple(
                SubscriptionConfig(instrument=f"{base}USDT", data_types=("trade", "bbo", "book")) for base in bases
            ),
        )
        yield WorkerRun(run_folder, tmp_path, config)


def test_binance_from_the_wire_to_the_tape_and_within_its_memory(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with emulated_binance(run_folder, tmp_path, 200) as run:
            async with run.process() as process:
                await run.until(lambda: run.counters.load(Counter.BOOKS_VALID) == 5)
                await run.until(lambda: run.count(Kind.TRADE) > 200)
                rss = psutil.Process(process.pid).memory_info().rss
                assert rss <= RSS_BYTES, f"{rss / 2**20:.1f} MiB"
                process.send_signal(signal.SIGTERM)
                assert await ended(process) == 0
            run.pump()
            assert run.counters.load(Counter.REJECTS) == 0
            assert run.counters.load(Counter.GAPS) == 0
            assert_unbroken(run.records)
            assert {data_type for _, data_type in channel_seqs(run.records)} == {
                DataType.STATUS,
                DataType.TRADE,
                DataType.BBO,
                DataType.BOOK,
            }

    patiently(main())


def test_worker_without_data_uses_next_to_no_cpu(run_folder: Path, tmp_path: Path) -> None:
    """Counted in CPU time per second of life: no bound on what the machine needs for anything."""

    async def main() -> None:
        async with emulated_binance(run_folder, tmp_path, 0) as run, run.process() as process:
            await run.until(lambda: run.counters.load(Counter.BOOKS_VALID) == 5)
            observed = psutil.Process(process.pid)
            before = observed.cpu_times()
            await asyncio.sleep(4)
            after = observed.cpu_times()
            used = (after.user + after.system) - (before.user + before.system)
            assert used / 4 < 0.02  # the clock ticks in 10 ms; the budget is 0.5 %
            process.send_signal(signal.SIGTERM)
            assert await ended(process) == 0

    patiently(main())


def test_worker_whose_parent_has_ended_already_does_not_start(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            parent = await asyncio.create_subprocess_exec(sys.executable, "-c", "pass")
            await parent.wait()
            async with run.process(parent=parent.pid) as worker:
                _, errors = await worker.communicate()
                assert worker.returncode == 1
                assert b"has ended" in errors

    patiently(main())
