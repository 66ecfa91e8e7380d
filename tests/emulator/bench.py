"""An emulator server and a client of it in one event loop, over real sockets; for the tests of this folder."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from mdring.emulator.faults import Fault, FaultKind
from mdring.emulator.host import VenueHost
from mdring.emulator.server import EmulatorConfig, EmulatorServer

PATIENCE_S = 60.0  # for what must happen; a test that waits so long has failed


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run an async test body; what never happens becomes a TimeoutError."""
    asyncio.run(asyncio.wait_for(main, PATIENCE_S))


class Bench:
    """The server, and a client session."""

    def __init__(self, server: EmulatorServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session
        self._sockets: list[aiohttp.ClientWebSocketResponse] = []

    @property
    def host(self) -> VenueHost:
        return self.server.venues["binance"]

    async def connect(self, path: str, **options: Any) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket to the venue, open until the end. Raises aiohttp.ClientError if it does not come about."""
        socket: aiohttp.ClientWebSocketResponse = await self.session.ws_connect(
            self.host.websocket_url + path, **options
        )
        self._sockets.append(socket)
        return socket

    async def disconnect(self) -> None:
        """Close all sockets of ``connect``."""
        for socket in self._sockets:
            await socket.close()

    async def get(self, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
        """Status, decoded body (None if it is empty) and headers of a REST call."""
        async with self.session.get(self.host.rest_url + path, headers=headers) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else None, dict(answer.headers)

    async def control(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and decoded body of a call to the control endpoint."""
        url = self.server.control_url + path
        async with self.session.request(method, url, json=body) as answer:
            return answer.status, json.loads(await answer.read())

    def inject(self, fault: FaultKind, **parameters: Any) -> int:
        return self.host.inject(Fault(fault=fault, **parameters))

    async def wait_for(self, condition: Callable[[], object]) -> None:
        """Return when the condition holds."""
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def emulated(**config: Any) -> AsyncIterator[Bench]:
    """A Bench over a quiet market (rate 0) of BTC-USDT and ETH-USDT, unless ``config`` says otherwise."""
    values = {"rate": 0, "seed": 7, "instruments": ("BTC-USDT", "ETH-USDT"), **config}
    async with EmulatorServer(EmulatorConfig(**values)) as server, aiohttp.ClientSession() as session:
        bench = Bench(server, session)
        yield bench
        await bench.disconnect()


async def texts(socket: aiohttp.ClientWebSocketResponse, count: int) -> list[Any]:
    """The next ``count`` text messages, decoded. Fails on any other message."""
    messages = []
    for _ in range(count):
        message = await socket.receive()
        assert message.type is aiohttp.WSMsgType.TEXT, message
        messages.append(json.loads(message.data))
    return messages


async def ask(socket: aiohttp.ClientWebSocketResponse, request: Any) -> Any:
    """Send a request, as it is if it is text; the first message without market data is its answer."""
    await socket.send_str(request if isinstance(request, str) else json.dumps(request))
    while True:
        (message,) = await texts(socket, 1)
        if message.keys() & {"result", "error"}:
            return message
