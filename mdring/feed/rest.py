"""REST of the worker: one aiohttp session, the venue's request budget, and fetches that end with their connection.

``RestClient`` makes requests and turns every outcome into a :class:`Response` (status 0: no answer came).
``Fetcher`` carries out the adapter's ``Fetch`` requests: waits their delay, keeps to the venue's budget and its
refusals (``rest_budget.py``) and to few requests at a time; which one goes first says ``fetch_queue.py``::

    fetcher = Fetcher(client, RestBudget(adapter.limits, path), driver.on_response, driver.activity)
    tasks.create_task(fetcher.run())
    fetcher.submit(Fetch("depth BTCUSDT", "https://…", weight=50, connection=0, instrument="BTCUSDT"))
    fetcher.cancel(connection=0)          # that connection has ended: nobody wants the answer
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from mdring.feed.adapter import Fetch, Response
from mdring.feed.fetch_queue import Activity, FetchQueue, Waiting
from mdring.feed.rest_budget import BUSY_NS, RestBudget
from mdring.feed.transport import resolve

if TYPE_CHECKING:
    import aiohttp

MAX_BODY_BYTES: Final = 64 * 1024 * 1024  # the whole instrument list of the largest venue has a third of it
_CHUNK_BYTES: Final = 64 * 1024
_CONCURRENCY: Final = 4


class RestClient:
    """GET requests of one venue over kept-alive connections. Imports aiohttp when the first one is made."""

    def __init__(self, timeout_ns: int, tls: ssl.SSLContext) -> None:
        """``timeout_ns`` is for a whole request, from DNS to the last byte."""
        self._timeout_ns = timeout_ns
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def get(self, tag: str, url: str) -> Response:
        """Fetch ``url`` as it stands. Never raises for what the venue or the network does: see ``Response.status``."""
        import aiohttp
        from yarl import URL

        if self._session is None:
            self._session = self._open()
        timeout = aiohttp.ClientTimeout(total=self._timeout_ns / 1e9)
        try:
            async with self._session.get(URL(url, encoded=True), timeout=timeout, allow_redirects=False) as answer:
                body = await _read(answer)
                return Response(tag, url, answer.status, body, dict(answer.headers))
        except TimeoutError:
            return Response(tag, url, 0, b"no answer within %d ms" % (self._timeout_ns // 1_000_000))
        except (aiohttp.ClientError, OSError, _TooLarge) as error:
            return Response(tag, url, 0, (str(error) or type(error).__name__).encode())

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp
        from aiohttp.abc import AbstractResolver, ResolveResult

        class Resolver(AbstractResolver):
            """Names resolved as for WebSockets: a resolver that hangs does not keep the process from ending."""

            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> list[ResolveResult]:
                return [
                    ResolveResult(hostname=host, host=str(address[0]), port=port, family=found, proto=protocol, flags=0)
                    for found, _, protocol, _, address in await resolve(host, port)
                ]

            async def close(self) -> None:
                pass

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, resolver=Resolver(), limit=_CONCURRENCY),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )


class _TooLarge(Exception):
    """The body has more than ``MAX_BODY_BYTES``."""


async def _read(answer: Any) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _TooLarge(f"an answer of more than {MAX_BODY_BYTES} bytes")
    return bytes(body)


class Fetcher:
    """Carries out the fetches of one worker, while ``run`` runs."""

    def __init__(
        self,
        client: RestClient,
        budget: RestBudget,
        on_response: Callable[[Fetch, Response], None],
        activity: Activity = lambda instrument: (0, 0),
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """``activity`` tells which books go first (``fetch_queue.py``). ``now_ns`` is the budget's clock."""
        self._client = client
        self._budget = budget
        self._on_response = on_response
        self._now_ns = now_ns
        self._queue = FetchQueue(activity)
        self._asking: dict[asyncio.Task[None], Waiting] = {}
        self._changed = asyncio.Event()  # something has come into the queue, or a place is free

    @property
    def waiting(self) -> int:
        """How many requests have not been made yet."""
        return len(self._queue)

    def submit(self, fetch: Fetch) -> None:
        """Have ``on_response`` called with the answer, unless ``cancel`` comes first."""
        self._queue.add(fetch, _clock_ns())
        self._changed.set()

    def cancel(self, connection: int) -> None:
        """Forget the fetches made on behalf of a connection."""
        self._queue.cancel(connection)
        for task, waiting in self._asking.items():
            if waiting.fetch.connection == connection:
                task.cancel()

    async def fetch(self, fetch: Fetch) -> Response:
        """Make a request before all others, when delay, budget and venue allow it, and return the answer."""
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        waiting = self._queue.add(fetch, _clock_ns(), urgent=True, answer=answer)
        self._changed.set()
        try:
            return await answer
        finally:
            self._queue.remove(waiting)

    async def run(self) -> None:
        """Make the requests, until cancelled. Raises an exception group with what ``on_response`` raises."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    self._changed.clear()
                    wait_ns = self._make_requests(tasks)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(None if wait_ns is None else wait_ns / 1e9):
                            await self._changed.wait()
        finally:
            self._budget.close()

    def _make_requests(self, tasks: asyncio.TaskGroup) -> int | None:
        """Make those that can be made now; how long to wait for the next one, if that is known."""
        while len(self._asking) < _CONCURRENCY:
            now_ns = _clock_ns()
            waiting = self._queue.first(now_ns)
            if waiting is None:
                due_ns = self._queue.next_due_ns()
                return None if due_ns is None else due_ns - now_ns
            wait_ns = self._budget.take(waiting.fetch.weight, self._now_ns())
            if wait_ns:
                return wait_ns
            self._queue.remove(waiting)
            task = tasks.create_task(self._ask(waiting), name=f"fetch {waiting.fetch.tag}")
            self._asking[task] = waiting
            task.add_done_callback(self._on_done)
        return None

    def _on_done(self, task: asyncio.Task[None]) -> None:
        del self._asking[task]
        self._changed.set()

    async def _ask(self, waiting: Waiting) -> None:
        fetch, sent_ns = waiting.fetch, self._now_ns()
        response = await self._client.get(fetch.tag, fetch.url)
        while not self._budget.learn(response, sent_ns, self._now_ns()):
            await asyncio.sleep(BUSY_NS / 1e9)
        if waiting.answer is None:
            self._on_response(fetch, response)
        elif not waiting.answer.done():
            waiting.answer.set_result(response)


def _clock_ns() -> int:
    """The event loop's clock, by which delays are."""
    return round(asyncio.get_running_loop().time() * 1e9)
