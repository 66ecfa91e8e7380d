"""The driver: requests of an adapter that concern one instrument, its timer, and what it could not decode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from unittest.mock import MagicMock

from mdring.counters import Counter
from mdring.feed.adapter import (
    Endpoints,
    Fetch,
    InstrumentInfo,
    Limits,
    Rejected,
    Request,
    Response,
    Send,
    Subscription,
)
from mdring.feed.driver import Driver
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.feed.states import Announcement, ConnectionStates
from mdring.record import DataType, Kind, Reason, State
from tests.feed.paper import PaperAdapter, PaperOptions
from tests.feed.paper_venue import PaperVenue
from tests.feed.worker_run import Told, WorkerRun, paper_config, patiently


class DemandingAdapter(PaperAdapter):
    """Refuses what ``{"refuse": name}`` says, and pings by a timer."""

    limits: ClassVar[Limits] = Limits(timer_interval_s=0.01)

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        message = json.loads(bytes(payload))
        if "refuse" in message:
            return (Rejected(connection, message["refuse"], "no such book", DataType.BOOK),)
        return super().on_frame(connection, payload, ts_recv, emit)

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        return (Send(connection, '{"ping":1,"ack":"pong"}', urgent=True),)


class PagedAdapter(PaperAdapter):
    """Its list of instruments has two pages."""

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo | Fetch]:
        infos = super().on_metadata(response)
        return [*infos[:1], Fetch("page 2", f"{response.url}#2")] if response.tag == "instruments" else infos[1:]


def adapter_of(kind: type[PaperAdapter], venue: PaperVenue, names: Sequence[str]) -> PaperAdapter:
    wanted = [Subscription(name, (DataType.TRADE, DataType.BOOK)) for name in names]
    return kind(Endpoints(venue.websocket_url, venue.rest_url), PaperOptions(), wanted)


def test_refused_subscription_is_told_for_that_instrument_and_the_others_go_on(
    run_folder: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, instruments=("AAA", "BBB")))
            async with run.worker(adapter_of(DemandingAdapter, venue, ("AAA", "BBB"))):
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 4)
                session.send({"refuse": "BBB"}, {"trade": "AAA", "id": 1, "price": "1.50", "size": "2"})
                await run.until_count(Kind.TRADE, 1)
            number = run.segments.instruments["paper:BBB"].id
            refused = [told for told in run.told(Kind.STATUS) if told.state is State.REJECTED]
            assert refused == [Told(Kind.STATUS, number, State.REJECTED, Reason.SUBSCRIBE_REJECTED, "no such book")]
            assert run.counters.load(Counter.SUBSCRIPTIONS_REJECTED) == 1
            assert run.counters.load(Counter.CONNECTS) == 1

    patiently(main())


def test_adapters_timer_reaches_the_venue(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker(adapter_of(DemandingAdapter, venue, ("AAA",))):
                session = await venue.session()
                while sum("ping" in request for request in session.requests) < 3:
                    await run.turn()

    patiently(main())


def test_first_message_of_each_unknown_type_is_kept(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                session.send({"note": True}, {"note": True, "second": 1})
                await run.until_counter(Counter.UNKNOWN_MESSAGES, 2)
            (line,) = (run.config.run.state_path / "quarantine-paper.jsonl").read_text().splitlines()
            kept = json.loads(line)
            assert (kept["detail"], json.loads(kept["text"])) == ("not decoded: note", {"note": True})
            assert run.counters.load(Counter.REJECTS) == 0

    patiently(main())


def test_metadata_may_come_in_pages(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, instruments=("AAA", "BBB")))
            async with run.worker(adapter_of(PagedAdapter, venue, ("AAA", "BBB"))):
                await run.until_counter(Counter.SUBSCRIPTIONS, 2)
            assert venue.rest_requests[:2] == ["/instruments", "/instruments"]

    patiently(main())


def test_activity_of_an_instrument_is_its_trades_and_quotes_across_restarts() -> None:
    venue_channel, busy, quiet = (Channel(name, number, 1, 0, 0) for number, name in enumerate(("", "AAA", "BBB")))
    busy.restore(DataType.TRADE, 7)
    busy.restore(DataType.BBO, 3)
    driver = Driver(MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock(), venue_channel)
    driver.bind({"AAA": busy, "BBB": quiet}, {0: ["AAA", "BBB"]})
    assert [driver.activity(name) for name in ("AAA", "BBB", "CCC")] == [(7, 3), (0, 0), (0, 0)]


def test_lost_book_is_rebuilt_whichever_of_its_instruments_connections_is_the_last() -> None:
    """Of two connections of an instrument the second one is closed; the book travels on the first."""
    asked = []

    class TwoWays(PaperAdapter):
        def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
            asked.append((instrument, reason))
            return ()

    channel = Channel("AAA", 1, 1, 0, 0)
    publisher = MagicMock(emit=Emit())
    publisher.end_loss.return_value = MagicMock(records=3, statuses=0, books=[channel])
    states = ConnectionStates(channel, MagicMock())
    adapter = TwoWays(Endpoints("ws://venue", "http://venue"), PaperOptions(), ())
    driver = Driver(adapter, publisher, states, MagicMock(), MagicMock(), channel)
    driver.bind({"AAA": channel}, {0: ["AAA"], 1: ["AAA"]})
    states.set_connections({0: [channel], 1: [channel]})
    states.announce(publisher.emit, 0, Announcement(State.CONNECTED, Reason.NONE))
    driver.end_loss()
    assert asked == [("AAA", Reason.RING_FULL)]
