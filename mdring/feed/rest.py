"""REST of the worker: one aiohttp session, the venue's request budget, and fetches that end with their connection.

``RestClient`` makes requests and turns every outcome into a :class:`Response` (status 0: no answer came).
``Fetcher`` carries out the adapter's ``Fetch`` requests: waits their delay, keeps to the weight that the venue
allows per minute, to few requests at a time, and to ``Retry-After``::

    fetcher = Fetcher(client, weight_per_minute=6000, tasks=tasks, on_response=driver.on_response)
    fetcher.submit(Fetch("depth BTCUSDT", "https://…", weight=50, connection=0))
    fetcher.cancel(connection=0)          # that connection has ended: nobody wants the answer
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final

from mdring.feed.adapter import Fetch, Response
from mdring.feed.transport import resolve

if TYPE_CHECKING:
    import aiohttp

MAX_BODY_BYTES: Final = 64 * 1024 * 1024  # the whole instrument list of the largest venue has a third of it
_CHUNK_BYTES: Final = 64 * 1024
_MINUTE_NS: Final = 60_000_000_000
_CONCURRENCY: Final = 4
_TOO_MANY: Final = (418, 429, 503)  # answers whose Retry-After is obeyed; 418 is a ban at some venues
_MAX_RETRY_AFTER_S: Final = 3 * 86_400


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


class WeightBudget:
    """What the venue allows in any minute. Exact: a token bucket would let twice as much through in its first one."""

    def __init__(self, per_minute: int) -> None:
        """``per_minute`` 0: no bound."""
        self._per_minute = per_minute
        self._spent: deque[tuple[int, int]] = deque()  # (when, weight), oldest first
        self._sum = 0

    def wait_ns(self, weight: int, now_ns: int) -> int:
        """How long to wait before ``weight`` may be spent; 0: not at all. What is more than all may go alone."""
        self._forget(now_ns)
        excess = self._sum + weight - self._per_minute
        if self._per_minute == 0 or excess <= 0 or not self._spent:
            return 0
        for when, spent in self._spent:
            excess -= spent
            if excess <= 0:
                return when + _MINUTE_NS - now_ns
        return self._spent[-1][0] + _MINUTE_NS - now_ns

    def spend(self, weight: int, now_ns: int) -> None:
        """A request of this weight is made."""
        self._spent.append((now_ns, weight))
        self._sum += weight

    def _forget(self, now_ns: int) -> None:
        while self._spent and self._spent[0][0] + _MINUTE_NS <= now_ns:
            self._sum -= self._spent.popleft()[1]


class Fetcher:
    """Carries out the fetches of one worker. Its tasks belong to the group it was given."""

    def __init__(
        self,
        client: RestClient,
        weight_per_minute: int,
        tasks: asyncio.TaskGroup,
        on_response: Callable[[Fetch, Response], None],
    ) -> None:
        self._client = client
        self._budget = WeightBudget(weight_per_minute)
        self._tasks = tasks
        self._on_response = on_response
        self._slots = asyncio.Semaphore(_CONCURRENCY)
        self._turn = asyncio.Lock()  # budget is given in the order in which it was asked for
        self._pause_until_ns = 0
        self._running: dict[asyncio.Task[None], int] = {}

    def submit(self, fetch: Fetch) -> None:
        """Have ``on_response`` called with the answer, unless ``cancel`` comes first."""
        task = self._tasks.create_task(self._answer(fetch), name=f"fetch {fetch.tag}")
        self._running[task] = fetch.connection
        task.add_done_callback(self._running.pop)

    def cancel(self, connection: int) -> None:
        """Forget the fetches made on behalf of a connection."""
        for task, owner in list(self._running.items()):
            if owner == connection:
                task.cancel()

    async def fetch(self, fetch: Fetch) -> Response:
        """Make a request when delay, budget and ``Retry-After`` allow it, and return the answer."""
        await asyncio.sleep(fetch.delay_ns / 1e9)
        async with self._slots:
            async with self._turn:
                await self._await_budget(fetch.weight)
            response = await self._client.get(fetch.tag, fetch.url)
        if response.status in _TOO_MANY:
            pause_ns = retry_after_s(response) * 1_000_000_000
            self._pause_until_ns = max(self._pause_until_ns, time.monotonic_ns() + pause_ns)
        return response

    async def _answer(self, fetch: Fetch) -> None:
        self._on_response(fetch, await self.fetch(fetch))

    async def _await_budget(self, weight: int) -> None:
        while True:
            now_ns = time.monotonic_ns()
            wait_ns = max(self._budget.wait_ns(weight, now_ns), self._pause_until_ns - now_ns)
            if wait_ns <= 0:
                self._budget.spend(weight, now_ns)
                return
            await asyncio.sleep(wait_ns / 1e9)


def retry_after_s(response: Response) -> int:
    """Seconds that the venue asks us to wait (RFC 9110, section 10.2.3: a number, or a date); 0 if it does not."""
    text = next((value for name, value in response.headers.items() if name.lower() == "retry-after"), "").strip()
    if text.isascii() and text.isdecimal():
        return min(int(text[:9]), _MAX_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0
    wait = until.astimezone(UTC) - datetime.now(UTC)
    return min(max(0, wait.days * 86_400 + wait.seconds), _MAX_RETRY_AFTER_S)
