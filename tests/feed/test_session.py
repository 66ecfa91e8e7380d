"""A session: pacing of what is sent, and what one that was abandoned or replaced still does."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import pytest
from msgspec import structs
from picows import WSMsgType

from mdring.feed.adapter import Connection, Send
from mdring.feed.direct import DirectPath
from mdring.feed.driver import Driver
from mdring.feed.session import Session, SessionSettings
from mdring.feed.transport import Timeouts
from mdring.feed.watchdog import WatchdogSettings
from mdring.record import Reason
from tests.feed.paper_venue import PaperSession, PaperVenue
from tests.feed.quote_ring import QuoteRing, quote
from tests.feed.worker_run import patiently

SECOND = 1_000_000_000
INTERVAL_NS = SECOND // 50


class StubDriver:
    """Notes what a session tells its driver."""

    def __init__(self) -> None:
        self.path: DirectPath | None = None
        self.told: list[str] = []
        self.on_open: Callable[[Session], None] = lambda session: None

    def on_connect(self, connection: int, link: Session) -> None:
        self.told.append("connected")
        self.on_open(link)

    def on_frame(self, connection: int, payload: bytes, ts_recv: int) -> bool:
        self.told.append(payload.decode())
        return True

    def on_timer(self, connection: int) -> None:
        self.told.append(f"timer {connection}")

    def on_disconnect(self, connection: int, announcement: Any) -> None:
        self.told.append(announcement.reason.name)


def settings(timer_interval_ns: int = 0) -> SessionSettings:
    minute = 60 * SECOND
    return SessionSettings(
        Timeouts(minute, minute, minute, minute),
        WatchdogSettings(
            subscribe_ns=minute, first_data_ns=minute, stale_ns=minute, ping_interval_ns=minute, pong_ns=minute,
            healthy_ns=minute,
        ),
        INTERVAL_NS,
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        timer_interval_ns,
    )  # fmt: skip


def session_of(
    venue: PaperVenue, driver: StubDriver, replaces: Session | None = None, timer_interval_ns: int = 0
) -> Session:
    connection = Connection(0, venue.websocket_url, ("AAA",))
    return Session(connection, cast(Driver, driver), settings(timer_interval_ns), lambda: None, replaces)


@asynccontextmanager
async def venue_and_driver() -> AsyncIterator[tuple[PaperVenue, StubDriver]]:
    async with PaperVenue() as venue:
        venue.acknowledges = False
        yield venue, StubDriver()


def subscribe(number: int) -> Send:
    return Send(0, f'{{"subscribe":[],"ack":"{number}"}}')


def test_frames_are_sent_in_order_and_no_faster_than_the_venue_allows() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            loop = asyncio.get_running_loop()
            seen: list[float] = []
            venue.on_session = lambda _: seen.append(loop.time())
            session = session_of(venue, driver)
            sent: list[float] = []
            send = session.send

            def send_all(link: Session) -> None:
                for number in range(6):
                    send(subscribe(number))
                sent.append(loop.time())

            driver.on_open = send_all
            await session.open()
            theirs = await venue.session()
            while len(theirs.requests) < 6:
                await asyncio.sleep(0.001)
            assert [request["ack"] for request in theirs.requests] == list("012345")
            # Each is sent an interval after the one before: the last cannot come before five intervals are over.
            assert seen[-1] - sent[0] >= 5 * INTERVAL_NS / 1e9 - 0.001
            session.end(Reason.SHUTDOWN)

    patiently(main())


def test_urgent_frame_goes_before_those_that_wait_their_turn() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):

            def send_all(link: Session) -> None:
                for number in range(4):
                    link.send(subscribe(number))
                link.send(structs.replace(subscribe(9), urgent=True))

            driver.on_open = send_all
            session = session_of(venue, driver)
            await session.open()
            theirs = await venue.session()
            while len(theirs.requests) < 5:
                await asyncio.sleep(0.001)
            assert [request["ack"] for request in theirs.requests] == list("09123")
            session.end(Reason.SHUTDOWN)

    patiently(main())


def test_ping_is_a_frame_after_which_the_next_one_waits() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            ping_ns, interval_ns = SECOND // 20, SECOND // 5
            paced = structs.replace(
                settings(),
                watchdog=structs.replace(settings().watchdog, ping_interval_ns=ping_ns),
                send_interval_ns=interval_ns,
            )
            session = Session(Connection(0, venue.websocket_url, ()), cast(Driver, driver), paced, lambda: None)
            loop = asyncio.get_running_loop()
            begun = loop.time()
            await session.open()
            watching = asyncio.create_task(session.watch())
            while not (venue.sessions and venue.sessions[0].received):
                await asyncio.sleep(0.001)
            assert venue.sessions[0].received[0][0] is WSMsgType.PING
            session.send(subscribe(1))
            await venue.session()
            assert loop.time() - begun >= (ping_ns + interval_ns) / 1e9 - 0.001
            session.end(Reason.SHUTDOWN)
            await watching

    patiently(main())


def test_delayed_frame_waits_and_is_forgotten_with_the_session() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):

            def send_all(link: Session) -> None:
                link.send(structs.replace(subscribe(1), delay_ns=20_000_000))
                link.send(structs.replace(subscribe(2), delay_ns=500_000_000))
                link.send(subscribe(0))

            driver.on_open = send_all
            session = session_of(venue, driver)
            await session.open()
            theirs = await venue.session()
            while len(theirs.requests) < 2:
                await asyncio.sleep(0.001)
            session.end(Reason.SHUTDOWN)
            await asyncio.sleep(0.6)
            assert [request["ack"] for request in theirs.requests] == ["0", "1"]

    patiently(main())


def test_adapters_timer_runs_while_the_session_lives() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            session = session_of(venue, driver, timer_interval_ns=5_000_000)
            await session.open()
            watching = asyncio.create_task(session.watch())
            while driver.told.count("timer 0") < 3:
                await asyncio.sleep(0.001)
            session.end(Reason.SHUTDOWN)
            await watching
            told = len(driver.told)
            await asyncio.sleep(0.02)
            assert len(driver.told) == told

    patiently(main())


def test_what_is_still_to_be_sent_ends_with_the_session() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):

            def send_all(link: Session) -> None:
                for number in range(100):
                    link.send(subscribe(number))

            driver.on_open = send_all
            session = session_of(venue, driver)
            await session.open()
            theirs = await venue.session()
            session.end(Reason.STALE, "enough")
            await theirs.closed.wait()
            await asyncio.sleep(3 * INTERVAL_NS / 1e9)
            assert len(theirs.requests) < 100
            ended = await session.watch()
            assert ended is not None
            assert (ended.reason, ended.detail) == (Reason.STALE, "enough")
            assert driver.told == ["connected", "STALE"]

    patiently(main())


def test_session_ends_once() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            session = session_of(venue, driver)
            await session.open()
            session.end(Reason.STALE)
            session.end(Reason.SHUTDOWN)
            session.on_closed(Reason.CLOSED_BY_VENUE, "")
            assert driver.told == ["connected", "STALE"]

    patiently(main())


def test_abandoned_session_never_begins() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            session = session_of(venue, driver)
            session.abandon()
            await session.open()
            while not venue.sessions:
                await asyncio.sleep(0.001)
            await venue.sessions[0].closed.wait()
            assert driver.told == []

    patiently(main())


def test_replacement_takes_over_the_moment_it_is_open() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            old = session_of(venue, driver)
            driver.on_open = lambda link: link.send(subscribe(1))
            await old.open()
            await venue.session(0)
            new = session_of(venue, driver, replaces=old)
            await new.open()
            ended = await old.watch()
            assert ended is not None
            assert ended.reason is Reason.PLANNED_RECONNECT
            assert driver.told == ["connected", "PLANNED_RECONNECT", "connected"]
            new.end(Reason.SHUTDOWN)

    patiently(main())


def test_watch_asks_for_a_replacement_when_one_is_due() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            session = session_of(venue, driver)
            await session.open()
            session.reconnect(Reason.PLANNED_RECONNECT, "announced")
            assert await session.watch() is None
            assert session.is_open
            session.end(Reason.SHUTDOWN)

    patiently(main())


def test_times_of_receipt_rise_from_read_to_read() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            times: list[int] = []
            on_frame = driver.on_frame

            def note(connection: int, payload: bytes, ts_recv: int) -> bool:
                times.append(ts_recv)
                return on_frame(connection, payload, ts_recv)

            driver.on_frame = note  # type: ignore[method-assign]
            driver.on_open = lambda link: link.send(subscribe(1))
            session = session_of(venue, driver)
            await session.open()
            theirs: PaperSession = await venue.session()
            for batch in range(5):
                theirs.send("a", "b", "c")
                while len(times) < 3 * (batch + 1):
                    await asyncio.sleep(0.001)
            assert all(len(set(times[first : first + 3])) == 1 for first in range(0, 15, 3))
            assert all(before < after for before, after in pairwise(times[::3]))
            session.end(Reason.SHUTDOWN)

    patiently(main())


@asynccontextmanager
async def open_session(driver: StubDriver, venue: PaperVenue) -> AsyncIterator[tuple[Session, PaperSession]]:
    """A session with a venue that has been asked for data."""
    driver.on_open = lambda link: link.send(subscribe(1))
    session = session_of(venue, driver)
    await session.open()
    yield session, await venue.session()
    session.end(Reason.SHUTDOWN)


def test_usual_messages_reach_the_ring_without_the_driver_be_they_whole_or_in_fragments() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            ring = QuoteRing()
            driver.path = ring.path
            async with open_session(driver, venue) as (session, theirs):
                assert session.last_data_ns == 0
                theirs.send(quote(1).decode(), "strange", quote(2, padding=500).decode())
                while "strange" not in driver.told:
                    await asyncio.sleep(0.001)
                third = quote(3)
                theirs.transport.send(WSMsgType.TEXT, third[:9], fin=False)
                theirs.transport.send(WSMsgType.CONTINUATION, third[9:])
                theirs.send(quote(4).decode(), "the end")
                while "the end" not in driver.told:
                    await asyncio.sleep(0.001)
                assert driver.told == ["connected", "strange", "the end"]
                published = ring.published()
                assert [number for number, _ in published] == [1, 2, 3, 4]
                assert published[0][1] == published[1][1] < published[3][1]
                assert session.last_data_ns > 0

    patiently(main())


def test_what_a_read_still_holds_when_the_session_ends_is_not_looked_at() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            ring = QuoteRing()
            driver.path = ring.path
            async with open_session(driver, venue) as (session, theirs):
                on_frame = driver.on_frame

                def end(connection: int, payload: bytes, ts_recv: int) -> bool:
                    session.end(Reason.STALE)
                    return on_frame(connection, payload, ts_recv)

                driver.on_frame = end  # type: ignore[method-assign]
                theirs.send(quote(1).decode(), "end it", quote(2).decode(), "more")
                await theirs.closed.wait()
                assert driver.told == ["connected", "STALE", "end it"]
                assert ring.numbers() == [1]

    patiently(main())


def test_first_message_on_the_direct_path_is_data_for_the_watchdog() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            driver.path = QuoteRing().path
            healthy = asyncio.Event()
            at_once = structs.replace(settings(), watchdog=structs.replace(settings().watchdog, healthy_ns=0))
            session = Session(
                Connection(0, venue.websocket_url, ("AAA",)), cast(Driver, driver), at_once, healthy.set
            )  # fmt: skip
            driver.on_open = lambda link: link.send(subscribe(1))
            await session.open()
            theirs = await venue.session()
            watching = asyncio.create_task(session.watch())
            await asyncio.sleep(0.01)
            assert not healthy.is_set()
            theirs.send(quote(1).decode())
            await healthy.wait()
            session.end(Reason.SHUTDOWN)
            await watching

    patiently(main())


def test_bug_on_the_direct_path_is_raised_to_whoever_watches() -> None:
    async def main() -> None:
        async with venue_and_driver() as (venue, driver):
            ring = QuoteRing()
            driver.path = ring.path
            ring.path.save_at = 0
            ring.told = None  # type: ignore[assignment]
            async with open_session(driver, venue) as (session, theirs):
                theirs.send(quote(1).decode())
                with pytest.raises(AttributeError):
                    await session.watch()
                assert not session.is_open
                await theirs.closed.wait()
                with pytest.raises(AttributeError):
                    await session.wait_closed()

    patiently(main())
