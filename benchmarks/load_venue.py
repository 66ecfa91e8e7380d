"""The venue that e2e loads its clients with: real sockets, frames at exact times. A process of its own.

It speaks Binance's protocol by the emulator (``_venue.py``), takes one WebSocket client and REST calls, prints where
it listens as a JSON line, and then does what the lines on its standard input say::

    {"make": 60000}                 # let the market go on until so many frames are there
    {"send": 20000, "out": FILE}    # send them, so many a second, and write down what was sent when

Each is answered by a JSON line once it is done, the second one when everything is in the socket. The frames are sent
by C at fixed times (open loop, ``limits.c``): a client that is too slow makes nothing later than it was due. FILE
(.npz) has for each frame: ``stream`` (index into ``streams``), ``stamp`` and ``late`` (ns, CLOCK_MONOTONIC).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from aiohttp import web
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks._venue import VirtualVenue, Wire
from benchmarks.limits import library
from mdring.emulator.venue import Refusal

_HOST: Final = "127.0.0.1"
_CLIENT_WAIT_S: Final = 30.0


def websocket_frame(payload: bytes) -> bytes:
    """An unmasked text frame (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


class Client(WSListener):
    """The one WebSocket client."""

    def __init__(self, venue: VirtualVenue, target: str) -> None:
        self.wire = _AnsweringWire(venue, self)
        self.transport: WSTransport | None = None
        url = urlsplit(target)
        self.has_subscribed = bool(url.query)  # or it will, by a request
        session = venue.emulator.accept(url.path, dict(parse_qsl(url.query)), self.wire)
        if isinstance(session, Refusal):
            raise ConnectionError(f"the emulated venue refuses: {session.status}")
        self.wire.session = session

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Let the venue speak."""
        self.transport = transport
        self.wire.session.on_open()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """What the client asks for."""
        if frame.msg_type == WSMsgType.TEXT:
            self.wire.session.on_text(frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())

    @property
    def descriptor(self) -> int:
        """The socket's."""
        assert self.transport is not None
        descriptor: int = self.transport.underlying_transport.get_extra_info("socket").fileno()
        return descriptor


class _AnsweringWire(Wire):
    """Keeps market data, answers requests at once."""

    def __init__(self, venue: VirtualVenue, client: Client) -> None:
        super().__init__(venue.clock)
        self._client = client

    def reply(self, text: str) -> None:
        """An ack."""
        assert self._client.transport is not None
        self._client.has_subscribed = True
        self._client.transport.send(WSMsgType.TEXT, text.encode())


class LoadVenue:
    """The venue's server and its load."""

    def __init__(self) -> None:
        self.venue = VirtualVenue()
        self.clients: list[Client] = []
        self._streams: list[str] = []
        self._frames: list[bytes] = []

    async def serve(self) -> dict[str, str]:
        """Listen; where."""
        server = await ws_create_server(self._on_upgrade, _HOST, 0)
        application = web.Application()
        application.router.add_get("/{path:.*}", self._on_rest)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, _HOST, 0)
        await site.start()
        self._server = server
        port = server.sockets[0].getsockname()[1]
        return {"websocket_url": f"ws://{_HOST}:{port}", "rest_url": f"http://{_HOST}:{runner.addresses[0][1]}"}

    def _on_upgrade(self, request: WSUpgradeRequest) -> Client:
        self.clients.append(Client(self.venue, request.path.decode()))
        return self.clients[-1]

    async def _on_rest(self, request: web.Request) -> web.Response:
        return web.Response(body=self.venue.rest(request.path, **dict(request.query)))

    async def wait_for_client(self) -> None:
        """Return when it has subscribed."""
        async with asyncio.timeout(_CLIENT_WAIT_S):
            while not self.clients or self.clients[0].transport is None or not self.clients[0].has_subscribed:
                await asyncio.sleep(0.05)
        if len(self.clients) != 1:
            raise ConnectionError(f"{len(self.clients)} clients are connected, one is needed")

    def make(self, frames: int) -> dict[str, Any]:
        """Make the frames; how many, and what the books are like after them."""
        wire = self.clients[0].wire
        wire.frames.clear()
        self.venue.advance_until(wire, frames)
        self._streams = [stream for stream, _ in wire.frames]
        self._frames = [websocket_frame(frame) for _, frame in wire.frames]
        emulator = self.venue.emulator
        tops = {}
        for instrument in self.venue.instruments:
            book = emulator.book_of(instrument)
            bid, bid_size, ask, ask_size = book.top()
            tops[instrument] = [emulator.level_text(book, level) for level in ((bid, bid_size), (ask, ask_size))]
        return {"frames": len(self._frames), "tops": tops}

    def send(self, rate: int, out: Path) -> dict[str, Any]:
        """Send them, and write down when."""
        stamps, late = _send(self.clients[0].descriptor, self._frames, 1_000_000_000 // rate)
        names = list(dict.fromkeys(self._streams))
        index = {name: number for number, name in enumerate(names)}
        streams = np.array([index[stream] for stream in self._streams], dtype=np.int32)
        np.savez(out, streams=np.array(names), stream=streams, stamp=stamps, late=late)
        return {"bytes": sum(map(len, self._frames))}


def _send(descriptor: int, frames: list[bytes], interval_ns: int) -> tuple[Any, Any]:
    count = len(frames)
    offsets = np.concatenate(([0], np.cumsum([len(frame) for frame in frames]))).astype(np.uint64)
    stamps, late = np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64)
    failure = library().send_open_loop(
        descriptor,
        b"".join(frames),
        ctypes.c_void_p(offsets.ctypes.data),
        ctypes.c_uint64(count),
        ctypes.c_uint64(interval_ns),
        ctypes.c_void_p(stamps.ctypes.data),
        ctypes.c_void_p(late.ctypes.data),
    )
    if failure:
        raise OSError(-failure, os.strerror(-failure))
    return stamps, late


async def main() -> None:
    """Serve until standard input ends."""
    load_venue = LoadVenue()
    library()  # compiled before anybody waits for it
    print(json.dumps({**await load_venue.serve(), "instruments": load_venue.venue.instruments}), flush=True)
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        # The event loop stands still meanwhile: the process has one core's worth of work, and it is sending.
        if "make" in order:
            await load_venue.wait_for_client()
            answer = load_venue.make(order["make"])
        else:
            answer = load_venue.send(order["send"], Path(order["out"]))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
