"""The life cycle of a connection against real sockets: every way in which it can fail, and what is told of it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from msgspec import structs
from picows import WSCloseCode, WSMsgType

from mdring.config import BreakerConfig
from mdring.counters import Counter
from mdring.feed.breaker import BreakerState
from mdring.feed.life_cycle import ConnectPace
from mdring.record import Kind, Reason, State
from tests.feed.authority import Authority
from tests.feed.paper_venue import PaperSession, PaperVenue
from tests.feed.worker_run import Told, WorkerRun, assert_unbroken, paper_config, patiently

FAR = 60_000  # ms; what a test does not wait for


def trade(number: int) -> dict[str, object]:
    return {"trade": "AAA", "id": number, "price": "1.50", "size": "2"}


def details(run: WorkerRun, reason: Reason) -> list[str]:
    """What was told of a reason."""
    return [told.detail for told in run.told(Kind.STATUS) if told.reason is reason]


def test_attempts_of_all_connections_together_keep_their_distance() -> None:
    async def main() -> None:
        loop, pace = asyncio.get_running_loop(), ConnectPace(20_000_000)
        turns: list[float] = []

        async def attempt() -> None:
            await pace.turn()
            turns.append(loop.time())

        begun = loop.time()
        await asyncio.gather(*(attempt() for _ in range(5)))
        assert [turn - begun >= 0.020 * number - 0.001 for number, turn in enumerate(turns)] == [True] * 5

    patiently(main())


# ---- connecting -------------------------------------------------------------------------------------------


def test_refused_connection_is_tried_again_until_it_comes_about(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            refusing = structs.replace(paper_config(venue), websocket_url=_unused_url())
            run = WorkerRun(run_folder, tmp_path, refusing)
            async with run.worker():
                await run.until_counter(Counter.RECONNECTS, 3)
                port = int(refusing.websocket_url.rpartition(":")[2])
                relay = await asyncio.start_server(_relay(venue), "127.0.0.1", port)
                await run.until_told(State.CONNECTED)
                relay.close()
            states = run.states()
            assert states[:4] == [
                (State.RECONNECTING, Reason.STARTED),
                (State.DISCONNECTED, Reason.CONNECT_FAILED),
                (State.RECONNECTING, Reason.CONNECT_FAILED),
                (State.DISCONNECTED, Reason.CONNECT_FAILED),
            ]
            attempts = [told.count for told in run.told(Kind.STATUS) if told.state is State.RECONNECTING]
            assert attempts == list(range(len(attempts)))
            assert details(run, Reason.CONNECT_FAILED)[0].startswith("TCP: ")

    patiently(main())


def _unused_url() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"ws://127.0.0.1:{server.getsockname()[1]}"


def _relay(venue: PaperVenue):  # type: ignore[no-untyped-def]
    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = int(venue.websocket_url.rpartition(":")[2])
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))

    return relay


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize(
    ("scheme", "bound", "detail"),
    [("ws", "handshake_timeout_ms", "handshake: no answer within"), ("wss", "tls_timeout_ms", "TLS: no answer within")],
)
def test_venue_that_accepts_and_says_nothing_costs_one_time_out(
    run_folder: Path, tmp_path: Path, scheme: str, bound: str, detail: str
) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                config = paper_config(venue)
                config = structs.replace(
                    config,
                    websocket_url=f"{scheme}://localhost:{silent.getsockname()[1]}",
                    connection=structs.replace(config.connection, **{bound: 30}),
                )
                run = WorkerRun(run_folder, tmp_path, config)
                async with run.worker():
                    await run.until_counter(Counter.RECONNECTS, 2)
                assert details(run, Reason.CONNECT_TIMEOUT)[0].startswith(detail)

    patiently(main())


def test_venue_of_an_unknown_authority_is_never_connected(
    run_folder: Path, tmp_path: Path, authority: Authority
) -> None:
    async def main() -> None:
        async with PaperVenue() as plain, PaperVenue(tls=authority.server_context) as venue:
            config = structs.replace(paper_config(plain), websocket_url=venue.websocket_url)
            run = WorkerRun(run_folder, tmp_path, config)
            async with run.worker():
                await run.until_counter(Counter.RECONNECTS, 2)
            assert details(run, Reason.HANDSHAKE_FAILED)[0].startswith("TLS: ")
            assert (State.CONNECTED, Reason.NONE) not in run.states()

    patiently(main())


def test_whole_venue_behind_tls(run_folder: Path, tmp_path: Path, authority: Authority) -> None:
    async def main() -> None:
        async with PaperVenue(tls=authority.server_context) as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ca_file=str(authority.file)))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                session.send(*map(trade, range(500)))
                await run.until_count(Kind.TRADE, 500)
            assert list(run.of(Kind.TRADE)["venue_seq"]) == list(range(500))

    patiently(main())


# ---- silence ----------------------------------------------------------------------------------------------


def test_subscription_that_is_never_answered_ends_the_connection(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.acknowledges = False
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, subscribe_timeout_ms=30))
            async with run.worker():
                await run.until_told(State.DISCONNECTED, Reason.SUBSCRIBE_TIMEOUT)
                venue.acknowledges = True
                await run.until_told(State.SYNCED)
            assert details(run, Reason.SUBSCRIBE_TIMEOUT)[0] == "no answer to 1"

    patiently(main())


def test_missing_first_data_ends_the_connection_whatever_else_comes(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            config = paper_config(venue, first_data_timeout_ms=40)
            run = WorkerRun(run_folder, tmp_path, config)
            async with run.worker():
                session = await venue.session()
                while not session.closed.is_set():
                    session.send({"note": True})
                    await run.turn()
                await run.until_told(State.DISCONNECTED, Reason.NO_DATA)

    patiently(main())


def test_pings_and_notes_do_not_keep_a_connection_alive_that_brings_no_data(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, stale_after_ms=80))
            async with run.worker():
                session = await venue.session()
                session.send(trade(1))
                while not session.closed.is_set():
                    session.transport.send_ping(b"still here")
                    session.send({"note": True})
                    await run.turn()
                await run.until_told(State.RECONNECTING, Reason.STALE)
            assert (WSMsgType.PONG, b"still here") in session.received
            assert details(run, Reason.STALE)[0] == "no data for 80 ms"

    patiently(main())


def test_quiet_venue_is_pinged_and_left_alone_while_it_answers(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ping_interval_ms=20, pong_timeout_ms=5_000))
            async with run.worker():
                session = await venue.session()
                session.send(trade(1))
                await run.until(lambda: sum(kind is WSMsgType.PING for kind, _ in session.received) >= 4)
                assert not session.closed.is_set()

    patiently(main())


def test_venue_that_answers_no_ping_is_stale(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.answers_pings = False
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ping_interval_ms=20, pong_timeout_ms=20))
            async with run.worker():
                session = await venue.session()
                session.send(trade(1))
                await run.until_told(State.DISCONNECTED, Reason.STALE)
            assert details(run, Reason.STALE)[0] == "no pong for 20 ms"

    patiently(main())


# ---- the end of a connection ------------------------------------------------------------------------------


def test_end_is_told_before_the_books_are_cleared_and_all_comes_back(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, instruments=("AAA", "BBB")))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 4)
                begun = len(run.told())
                session.close(WSCloseCode.GOING_AWAY, "maintenance")
                await run.until_count(Kind.LEVEL, 8)
                assert run.told()[begun:][:5] == [
                    Told(Kind.STATUS, 0, State.DISCONNECTED, Reason.CLOSED_BY_VENUE, "1001 maintenance"),
                    Told(Kind.CLEAR, 1, State.NONE, Reason.CLOSED_BY_VENUE),
                    Told(Kind.CLEAR, 2, State.NONE, Reason.CLOSED_BY_VENUE),
                    Told(Kind.STATUS, 0, State.RECONNECTING, Reason.CLOSED_BY_VENUE, count=1),
                    Told(Kind.STATUS, 0, State.CONNECTED, Reason.NONE),
                ]
            assert run.counters.load(Counter.CONNECTS) == 2
            assert run.counters.load(Counter.RECONNECTS) == 1
            error = run.counters.error()
            assert error is not None
            assert error[1] == "connection 0: CLOSED_BY_VENUE: 1001 maintenance"
            assert_unbroken(run.records)

    patiently(main())


def test_nothing_is_taken_from_a_connection_that_the_adapter_gave_up(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                session.send(trade(1), {"reconnect": "it lies"}, trade(2))
                await run.until_count(Kind.LEVEL, 4)
            assert list(run.of(Kind.TRADE)["venue_seq"]) == [1]
            assert details(run, Reason.BAD_MESSAGE) == ["it lies", ""]

    patiently(main())


def test_fetches_end_with_the_connection_that_wanted_them(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))

            def hold_the_book(session: PaperSession) -> None:
                venue.rest_answers.clear()

            venue.on_session = hold_the_book
            async with run.worker():
                session = await venue.session()
                await run.until(lambda: venue.rest_requests.count("/book/AAA") == 1)
                venue.on_session = lambda session: None
                session.reset()
                await venue.session(1)
                await run.until(lambda: venue.rest_requests.count("/book/AAA") == 2)
                venue.rest_answers.set()
                await run.until_told(State.SYNCED)
            assert run.count(Kind.LEVEL) == 2  # the first answer, if it came, was nobody's

    patiently(main())


# ---- backoff and breaker ----------------------------------------------------------------------------------


def test_attempts_are_exhausted_and_the_worker_stays(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            config = paper_config(venue, max_reconnect_attempts=2)
            run = WorkerRun(run_folder, tmp_path, structs.replace(config, websocket_url=_unused_url()))
            async with run.worker() as worker:
                await run.until_told(State.DISCONNECTED, Reason.ATTEMPTS_EXHAUSTED)
                assert run.counters.load(Counter.RECONNECTS) == 2
                before = worker.counters.load(Counter.HEARTBEAT_NS)
                await run.until(lambda: worker.counters.load(Counter.HEARTBEAT_NS) > before)
                assert worker.counters.load(Counter.STATE) == State.DISCONNECTED

    patiently(main())


def test_connections_that_bring_no_healthy_period_of_data_use_the_attempts_up(run_folder: Path, tmp_path: Path) -> None:
    """Accepted, subscribed, one trade, closed: again and again. Only data over a while may reset the count."""

    async def main() -> None:
        async with PaperVenue() as venue:

            def tease(session: PaperSession) -> None:
                session.send(trade(1))
                session.close(WSCloseCode.TRY_AGAIN_LATER, "")

            venue.on_session = tease
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, max_reconnect_attempts=4))
            async with run.worker():
                await run.until_told(State.DISCONNECTED, Reason.ATTEMPTS_EXHAUSTED)
            assert len(venue.sessions) == 5

    patiently(main())


def test_healthy_period_of_data_resets_the_attempts(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            config = paper_config(venue, max_reconnect_attempts=1, healthy_after_ms=30)
            run = WorkerRun(run_folder, tmp_path, config)
            async with run.worker() as worker:
                for life in range(4):
                    session = await venue.session(life)
                    number = 0
                    while not worker.lives[0].is_healthy:
                        session.send(trade(number := number + 1))
                        await run.turn()
                    session.reset()
                await venue.session(4)
            assert details(run, Reason.ATTEMPTS_EXHAUSTED) == []

    patiently(main())


def test_breaker_opens_and_lets_an_attempt_through_after_its_time(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            url = _unused_url()
            breaker = BreakerConfig(failure_threshold=3, open_ms=400)
            config = structs.replace(paper_config(venue, breaker=breaker, healthy_after_ms=20), websocket_url=url)
            run = WorkerRun(run_folder, tmp_path, config)
            async with run.worker() as worker:
                await run.until_told(State.CIRCUIT_OPEN, Reason.BREAKER_OPEN)
                assert worker.counters.load(Counter.STATE) == State.CIRCUIT_OPEN
                await run.until_counter(Counter.BREAKER, BreakerState.OPEN)
                relay = await asyncio.start_server(_relay(venue), "127.0.0.1", int(url.rpartition(":")[2]))
                session = await venue.session()
                await run.until(lambda: worker.counters.load(Counter.BREAKER) == BreakerState.HALF_OPEN)
                number = 0
                while worker.counters.load(Counter.BREAKER) != BreakerState.CLOSED:
                    session.send(trade(number := number + 1))
                    await run.turn()
                relay.close()
            states = run.states()
            opened = states.index((State.CIRCUIT_OPEN, Reason.BREAKER_OPEN))
            assert states[:opened].count((State.DISCONNECTED, Reason.CONNECT_FAILED)) == 3
            assert states[opened + 1 :][:2] == [
                (State.RECONNECTING, Reason.CONNECT_FAILED), (State.CONNECTED, Reason.NONE)
            ]  # fmt: skip
            at = [int(row["ts_recv"]) for row in run.of(Kind.STATUS)]
            # From the third failure on, which is told a moment before the breaker counts it.
        assert at[opened + 1] - at[opened - 1] >= 400_000_000

    patiently(main())


# ---- planned replacement ----------------------------------------------------------------------------------


def test_connection_is_replaced_before_its_life_is_over(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, max_connection_life_s=1, healthy_after_ms=1))
            async with run.worker():
                for number in range(1000):
                    venue_session = await venue.session()
                    venue_session.send(trade(number))
                    await run.turn()
                    if len(venue.sessions) == 2:
                        break
                await run.until_told(State.DISCONNECTED, Reason.PLANNED_RECONNECT)
                await run.until_count(Kind.LEVEL, 4)
            told = run.told()
            replaced = next(at for at, one in enumerate(told) if one.reason is Reason.PLANNED_RECONNECT)
            assert [(one.kind, one.state) for one in told[replaced:][:3]] == [
                (Kind.STATUS, State.DISCONNECTED),
                (Kind.CLEAR, State.NONE),
                (Kind.STATUS, State.CONNECTED),
            ]
            # The new connection was there before the old one was given up.
            times = [int(row["ts_recv"]) for row in run.records if row["kind"] == Kind.STATUS]
            assert len(times) >= 3
            assert venue.sessions[0].closed.is_set()
            assert_unbroken(run.records)

    patiently(main())


def test_announced_shutdown_leads_to_a_replacement_and_the_old_connection_delivers_meanwhile(
    run_folder: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                old = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                venue.stop_listening()
                old.send({"shutdown": True}, trade(1))
                await run.until_counter(Counter.RECONNECTS, 2)  # nobody listens
                old.send(trade(2))
                await run.until_count(Kind.TRADE, 2)
                await venue.listen()
                new = await venue.session(1)
                await old.closed.wait()
                new.send(trade(3))
                await run.until_count(Kind.TRADE, 3)
            assert (State.RECONNECTING, Reason.PLANNED_RECONNECT) not in run.states()
            assert run.states().count((State.CONNECTED, Reason.NONE)) == 2

    patiently(main())


def test_old_connection_that_ends_before_its_replacement_is_reconnected_as_usual(
    run_folder: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                old = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                venue.stop_listening()
                old.send({"shutdown": True})
                await run.until_counter(Counter.RECONNECTS, 1)
                old.close(WSCloseCode.GOING_AWAY, "now")
                await run.until_told(State.DISCONNECTED, Reason.CLOSED_BY_VENUE)
                await venue.listen()
                await run.until_count(Kind.LEVEL, 4)

    patiently(main())


def test_venue_that_announces_the_end_of_every_connection_is_not_hammered(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.on_session = lambda session: session.send({"shutdown": True})
            config = paper_config(venue, reconnect_delay_ms=FAR, max_reconnect_delay_ms=FAR)
            run = WorkerRun(run_folder, tmp_path, config)
            async with run.worker():
                await venue.session()
                await run.until_told(State.SYNCED)
                await run.until_count(Kind.LEVEL, 2)
                for _ in range(50):
                    await run.turn()
                assert len(venue.sessions) == 1

    patiently(main())
