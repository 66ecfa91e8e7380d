"""REST: every outcome is a Response, the venue's budget is kept, and nobody waits for what nobody wants."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from mdring.feed import rest
from mdring.feed.adapter import Fetch, Limits, Response
from mdring.feed.rest import Fetcher, RestClient
from mdring.feed.rest_budget import RestBudget
from mdring.feed.transport import tls_context
from tests.feed.authority import Authority
from tests.feed.paper_venue import PaperVenue
from tests.feed.worker_run import patiently

SECOND = 1_000_000_000
MINUTE = 60 * SECOND


@asynccontextmanager
async def client(tls: ssl.SSLContext | None = None, timeout_ns: int = 30 * SECOND) -> AsyncIterator[RestClient]:
    made = RestClient(timeout_ns, tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    yield made
    await made.close()


# ---- one request ------------------------------------------------------------------------------------------


def test_answer_comes_with_status_headers_and_body() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, client() as made:
            venue.rest_headers = "Retry-After: 7\r\n"
            venue.rest_status = 429
            answer = await made.get("tag", f"{venue.rest_url}/instruments")
            assert (answer.tag, answer.status, answer.headers["Retry-After"]) == ("tag", 429, "7")
            assert answer.body.startswith(b'[{"instrument": "AAA"')

    patiently(main())


def test_url_is_asked_for_as_it_stands() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, client() as made:
            await made.get("", f"{venue.rest_url}/book/%E5%B8%81?symbols=%5B%22A%22%2C%22B%22%5D&x=%2B")
            assert venue.rest_requests == ["/book/%E5%B8%81?symbols=%5B%22A%22%2C%22B%22%5D&x=%2B"]

    patiently(main())


def test_nobody_listening_is_status_0() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        async with client() as made:
            answer = await made.get("tag", f"http://127.0.0.1:{port}/x")
            assert (answer.tag, answer.status) == ("tag", 0)
            assert b"Connect" in answer.body

    patiently(main())


def test_silence_is_status_0_after_the_time_out() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, client(timeout_ns=SECOND // 20) as made:
            venue.rest_answers.clear()
            answer = await made.get("", f"{venue.rest_url}/instruments")
            assert (answer.status, answer.body) == (0, b"no answer within 50 ms")
            venue.rest_answers.set()

    patiently(main())


@pytest.mark.parametrize(
    "answer",
    [b"", b"not HTTP at all\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ncut short"],
    ids=["nothing", "garbage", "cut short"],
)
def test_answer_that_is_none_is_status_0(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with client() as made:
            found = await made.get("", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            assert found.status == 0
            assert found.body
        server.close()

    patiently(main())


def test_body_without_end_is_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with PaperVenue(instruments=tuple(f"I{number}" for number in range(100))) as venue, client() as made:
            answer = await made.get("", f"{venue.rest_url}/instruments")
            assert (answer.status, answer.body) == (0, b"an answer of more than 1000 bytes")

    monkeypatch.setattr(rest, "MAX_BODY_BYTES", 1000)
    patiently(main())


def test_redirect_is_not_followed() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, client() as made:
            venue.rest_status = 302
            venue.rest_headers = f"Location: {venue.rest_url}/elsewhere\r\n"
            assert (await made.get("", f"{venue.rest_url}/instruments")).status == 302
            assert venue.rest_requests == ["/instruments"]

    patiently(main())


def test_certificates_are_verified(authority: Authority) -> None:
    async def main() -> None:
        async with PaperVenue(tls=authority.server_context) as venue:
            url = f"{venue.rest_url}/instruments"
            async with client(tls_context(None)) as made:
                refused = await made.get("", url)
                assert refused.status == 0
                assert b"certificate" in refused.body
            async with client(tls_context(str(authority.file))) as made:
                assert (await made.get("", url)).status == 200

    patiently(main())


# ---- the fetcher ------------------------------------------------------------------------------------------


class Answers:
    """Collects what the fetcher brings."""

    def __init__(self) -> None:
        self.tags: list[str] = []

    def take(self, fetch: Fetch, response: Response) -> None:
        assert fetch.tag == response.tag
        self.tags.append(f"{fetch.tag} {response.status}")

    async def have(self, count: int) -> list[str]:
        while len(self.tags) < count:
            await asyncio.sleep(0.001)
        return self.tags


@asynccontextmanager
async def fetching(
    venue: PaperVenue, take: Callable[[Fetch, Response], None], per_minute: int = 0
) -> AsyncIterator[Fetcher]:
    """A fetcher that runs during the block."""
    async with client() as made, asyncio.TaskGroup() as tasks:
        fetcher = Fetcher(made, RestBudget(Limits(weight_per_minute=per_minute), venue.rest_url, None), take)
        running = tasks.create_task(fetcher.run())
        yield fetcher
        running.cancel()


def test_answers_are_handed_on_with_their_request() -> None:
    async def main() -> None:
        answers = Answers()
        async with PaperVenue() as venue, fetching(venue, answers.take) as fetcher:
            fetcher.submit(Fetch("late", f"{venue.rest_url}/instruments", delay_ns=SECOND // 10))
            fetcher.submit(Fetch("soon", f"{venue.rest_url}/instruments"))
            assert await answers.have(2) == ["soon 200", "late 200"]

    patiently(main())


def test_few_requests_are_made_at_a_time() -> None:
    async def main() -> None:
        answers = Answers()
        async with PaperVenue() as venue, fetching(venue, answers.take) as fetcher:
            venue.rest_answers.clear()
            for number in range(20):
                fetcher.submit(Fetch(str(number), f"{venue.rest_url}/instruments"))
            while len(venue.rest_requests) < 4:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            assert len(venue.rest_requests) == 4
            venue.rest_answers.set()
            await answers.have(20)

    patiently(main())


def test_cancel_forgets_the_fetches_of_one_connection_in_every_stage() -> None:
    async def main() -> None:
        answers = Answers()
        async with PaperVenue() as venue, fetching(venue, answers.take, 100) as fetcher:
            venue.rest_answers.clear()
            url = f"{venue.rest_url}/instruments"
            fetcher.submit(Fetch("asked", url, weight=60, connection=0))
            fetcher.submit(Fetch("delayed", url, delay_ns=MINUTE, connection=0))
            while not venue.rest_requests:
                await asyncio.sleep(0.001)
            fetcher.submit(Fetch("beyond the budget", url, weight=60, connection=0))
            fetcher.submit(Fetch("other", url, weight=30, connection=1))
            await asyncio.sleep(0.01)
            fetcher.cancel(0)
            venue.rest_answers.set()
            assert await answers.have(1) == ["other 200"]

    patiently(main())


def test_venue_that_asks_for_a_pause_gets_it() -> None:
    async def main() -> None:
        answers = Answers()
        async with PaperVenue() as venue, fetching(venue, answers.take) as fetcher:
            venue.rest_status, venue.rest_headers = 429, "Retry-After: 1\r\n"
            loop = asyncio.get_running_loop()
            fetcher.submit(Fetch("first", f"{venue.rest_url}/instruments"))
            assert await answers.have(1) == ["first 429"]
            begun = loop.time()
            venue.rest_status, venue.rest_headers = 200, ""
            fetcher.submit(Fetch("second", f"{venue.rest_url}/instruments"))
            assert await answers.have(2) == ["first 429", "second 200"]
            assert loop.time() - begun > 0.9  # waited at least so long

    patiently(main())


def test_metadata_goes_before_all_that_waits_and_the_most_traded_books_next() -> None:
    async def main() -> None:
        answers = Answers()
        async with PaperVenue() as venue, fetching(venue, answers.take) as fetcher:
            venue.rest_answers.clear()
            url = f"{venue.rest_url}/instruments"
            for number in range(4):
                fetcher.submit(Fetch(f"under way {number}", url))
            while len(venue.rest_requests) < 4:
                await asyncio.sleep(0.001)
            fetcher.submit(Fetch("else", f"{venue.rest_url}/else"))
            fetcher.submit(Fetch("book", f"{venue.rest_url}/book", instrument="AAA"))
            metadata = asyncio.create_task(fetcher.fetch(Fetch("metadata", f"{venue.rest_url}/metadata")))
            await asyncio.sleep(0.01)
            assert fetcher.waiting == 3
            venue.rest_answers.set()
            assert (await metadata).tag == "metadata"
            await answers.have(6)
            assert venue.rest_requests[4:] == ["/metadata", "/book", "/else"]

    patiently(main())


def test_metadata_that_nobody_waits_for_any_more_is_not_asked_for() -> None:
    async def main() -> None:
        answers = Answers()
        async with PaperVenue() as venue, fetching(venue, answers.take) as fetcher:
            url = f"{venue.rest_url}/instruments"
            late = asyncio.create_task(fetcher.fetch(Fetch("late", url, delay_ns=MINUTE)))
            await asyncio.sleep(0.01)
            late.cancel()
            await asyncio.sleep(0.01)
            assert fetcher.waiting == 0

    patiently(main())


def test_what_takes_an_answer_may_fail_and_that_ends_the_fetcher() -> None:
    async def main() -> None:
        def take(fetch: Fetch, response: Response) -> None:
            raise RuntimeError("a bug of ours")

        async with PaperVenue() as venue, client() as made:
            fetcher = Fetcher(made, RestBudget(Limits(), venue.rest_url, None), take)
            fetcher.submit(Fetch("", f"{venue.rest_url}/instruments"))
            with pytest.raises(ExceptionGroup, match="unhandled"):
                await fetcher.run()

    patiently(main())
