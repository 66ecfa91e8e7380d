"""Learning the instruments and having them declared: retries, pages, and rows that never come."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mdring.feed import metadata
from mdring.feed.adapter import Endpoints, Fetch, InstrumentInfo, Response, VenueProtocolError
from mdring.feed.backoff import Backoff
from mdring.feed.metadata import AttemptsExhausted, declare, learn
from mdring.feed.rest import Fetcher
from mdring.instrument import InstrumentTable
from tests.feed.paper import PaperAdapter, PaperOptions
from tests.feed.worker_run import patiently


class PagedAdapter(PaperAdapter):
    """A venue whose list comes in two requests, the first of which has a second page."""

    def __init__(self) -> None:
        super().__init__(Endpoints("", ""), PaperOptions(), [])

    def metadata_requests(self) -> Sequence[Fetch]:
        return (Fetch("spot", "/spot"), Fetch("futures", "/futures"))

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo | Fetch]:
        if response.status != 200:
            raise VenueProtocolError(f"{response.url}: HTTP {response.status}")
        found: list[InstrumentInfo | Fetch] = [InstrumentInfo(response.tag, response.tag, 0, 0)]
        if response.url == "/spot":
            found.append(Fetch("page 2", "/spot?page=2"))
        return found


class Script(Fetcher):
    """Answers each URL with a list of statuses, one after the other; the last one for ever."""

    def __init__(self, **statuses: list[int]) -> None:
        self.statuses = statuses
        self.asked: list[str] = []

    async def fetch(self, fetch: Fetch) -> Response:
        self.asked.append(fetch.url)
        left = self.statuses.get(fetch.url.strip("/"), [200])
        return Response(fetch.tag, fetch.url, left.pop(0) if len(left) > 1 else left[0], b"")


def test_every_request_and_page_is_asked_for_once() -> None:
    async def main() -> None:
        script = Script()
        infos = await learn([PagedAdapter()], script, Backoff(1, 1), pytest.fail)
        assert set(infos) == {"spot", "futures", "page 2"}
        assert sorted(script.asked) == ["/futures", "/spot", "/spot?page=2"]

    patiently(main())


def test_only_what_failed_is_asked_for_again() -> None:
    async def main() -> None:
        script = Script(futures=[500, 0, 200])
        failures: list[str] = []
        infos = await learn([PagedAdapter()], script, Backoff(1, 1), failures.append)
        assert set(infos) == {"spot", "futures", "page 2"}
        assert failures == ["/futures: HTTP 500", "/futures: HTTP 0"]
        assert script.asked.count("/futures") == 3
        assert script.asked.count("/spot") == 1

    patiently(main())


class ToldAdapter(PagedAdapter):
    """Lists futures alone if it is told of one."""

    def __init__(self, told: bool) -> None:
        super().__init__()
        self._told = told

    def metadata_requests(self) -> Sequence[Fetch]:
        return (Fetch("told", "/futures"),) if self._told else super().metadata_requests()


def test_what_two_learners_ask_for_is_fetched_once_for_the_first() -> None:
    async def main() -> None:
        script = Script(futures=[500, 200])
        infos = await learn([ToldAdapter(True), ToldAdapter(False)], script, Backoff(1, 1), lambda why: None)
        assert set(infos) == {"told", "spot", "page 2"}
        assert sorted(script.asked) == ["/futures", "/futures", "/spot", "/spot?page=2"]

    patiently(main())


def test_attempts_are_bounded_if_the_configuration_says_so() -> None:
    async def main() -> None:
        script = Script(spot=[503])
        with pytest.raises(AttemptsExhausted):
            await learn([PagedAdapter()], script, Backoff(1, 1, max_attempts=2), lambda why: None)
        assert script.asked.count("/spot") == 3

    patiently(main())


@asynccontextmanager
async def control() -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """The supervisor's end and the worker's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def infos(*names: str, price_exponent: int = -2) -> list[InstrumentInfo]:
    return [InstrumentInfo(name, f"{name}-X", price_exponent, 0) for name in names]


async def read_lines(ours: socket.socket, count: int) -> list[list[str]]:
    """The instruments' names, line by line."""
    received = b""
    while received.count(b"\n") < count:
        received += await asyncio.get_running_loop().sock_recv(ours, 1 << 16)
    return [[row["instrument"] for row in json.loads(line)["instruments"]] for line in received.splitlines()]


def test_rows_are_waited_for_and_known_ones_are_not_declared_again(run_folder: Path) -> None:
    async def main() -> None:
        table = InstrumentTable.create(run_folder / "instruments", run_id=1, capacity=16)
        table.append(1, "x", "A", "A-X", -2, 0)
        async with control() as (ours, theirs):
            declaring = asyncio.create_task(
                declare(theirs, InstrumentTable.attach(run_folder / "instruments"), "x", infos("A", "B"))
            )
            assert await read_lines(ours, 1) == [["B"]]
            table.append(1, "x", "B", "B-X", -2, 0)
            rows = await declaring
        assert {name: row.id for name, row in rows.items()} == {"A": 1, "B": 2}
        table.segment.close()

    patiently(main())


def test_instrument_whose_exponents_have_changed_gets_a_new_row(run_folder: Path) -> None:
    async def main() -> None:
        table = InstrumentTable.create(run_folder / "instruments", run_id=1, capacity=16)
        table.append(1, "x", "A", "A-X", -2, 0)
        async with control() as (ours, theirs):
            wanted = infos("A", price_exponent=-4)
            declaring = asyncio.create_task(
                declare(theirs, InstrumentTable.attach(run_folder / "instruments"), "x", wanted)
            )
            assert await read_lines(ours, 1) == [["A"]]
            table.append(1, "x", "A", "A-X", -4, 0)
            assert (await declaring)["A"].id == 2
        table.segment.close()

    patiently(main())


def test_row_that_is_refused_costs_its_instrument_only(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_ROWS_WAIT_S", 0.1)

    async def main() -> None:
        table = InstrumentTable.create(run_folder / "instruments", run_id=1, capacity=16)
        async with control() as (ours, theirs):
            declaring = asyncio.create_task(
                declare(theirs, InstrumentTable.attach(run_folder / "instruments"), "x", infos("A", "B"))
            )
            await read_lines(ours, 1)
            table.append(1, "x", "B", "B-X", -2, 0)
            assert list(await declaring) == ["B"]
        table.segment.close()

    patiently(main())


def test_many_instruments_are_declared_in_portions(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "_ROWS_WAIT_S", 0.01)
    names = [f"I{number}" for number in range(450)]

    async def main() -> None:
        table = InstrumentTable.create(run_folder / "instruments", run_id=1, capacity=16)
        async with control() as (ours, theirs):
            reading = asyncio.create_task(read_lines(ours, 3))
            await declare(theirs, InstrumentTable.attach(run_folder / "instruments"), "x", infos(*names))
            lines = await reading
        assert [len(line) for line in lines] == [200, 200, 50]
        assert [name for line in lines for name in line] == names
        table.segment.close()

    patiently(main())
