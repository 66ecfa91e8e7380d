"""The made-up venue of ``paper.py``: real sockets on loopback, in the test's own event loop, faulty on demand."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_create_server


class PaperSession(WSListener):
    """One client's connection."""

    def __init__(self, venue: PaperVenue) -> None:
        self.venue = venue
        self.received: list[tuple[WSMsgType, bytes]] = []
        self.closed = asyncio.Event()
        self.transport: WSTransport

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self.venue.sessions.append(self)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        self.received.append((frame.msg_type, payload))
        if frame.msg_type is WSMsgType.PING and self.venue.answers_pings:
            transport.send_pong(payload)
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.disconnect()
        elif frame.msg_type is WSMsgType.TEXT:
            self.venue.on_request(self, json.loads(payload))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.closed.set()

    def send(self, *messages: object) -> None:
        """Send messages in one write, so that they come in one read; text as it is, all else as JSON."""
        self.send_frames(
            *((WSMsgType.TEXT, m.encode() if isinstance(m, str) else json.dumps(m).encode()) for m in messages)
        )

    def send_frames(self, *frames: tuple[WSMsgType, bytes]) -> None:
        """Send any frames in one write."""
        transport = self.transport.underlying_transport
        transport.write(b"".join(_frame(kind, payload) for kind, payload in frames))

    def close(self, code: WSCloseCode, text: str) -> None:
        """Close as a venue does that gives a reason."""
        self.transport.send_close(code, text.encode())
        self.transport.disconnect()

    def reset(self) -> None:
        """Break the connection off."""
        self.transport.disconnect(graceful=False)

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What the client has asked for."""
        return [json.loads(payload) for kind, payload in self.received if kind is WSMsgType.TEXT]


def _frame(kind: WSMsgType, payload: bytes) -> bytes:
    """A server's frame, unmasked (RFC 6455, section 5.2)."""
    if len(payload) < 126:
        head = bytes([0x80 | kind.value, len(payload)])
    elif len(payload) < 1 << 16:
        head = bytes([0x80 | kind.value, 126]) + len(payload).to_bytes(2, "big")
    else:
        head = bytes([0x80 | kind.value, 127]) + len(payload).to_bytes(8, "big")
    return head + payload


class PaperVenue:
    """WebSocket and REST servers; what the attributes say may be changed at any time."""

    def __init__(self, instruments: tuple[str, ...] = ("AAA", "BBB"), tls: ssl.SSLContext | None = None) -> None:
        self.instruments = dict.fromkeys(instruments, True)  # name -> whether it is trading
        self.more_of: dict[str, dict[str, object]] = {}  # further keys of an instrument in the list
        self.sessions: list[PaperSession] = []
        self.rest_requests: list[str] = []
        self.acknowledges = True
        self.answers_pings = True
        self.rest_status = 200
        self.rest_headers = ""
        self.rest_answers = asyncio.Event()  # while it is clear, REST requests stay without an answer
        self.rest_answers.set()
        self.book: object = {"id": 5, "bids": [["1.50", "2"]], "asks": [["1.51", "3"]]}
        self.on_session: Callable[[PaperSession], None] = lambda session: None
        """Called when a client has subscribed."""
        self._tls = tls
        self._servers: list[asyncio.Server] = []
        self.websocket_url = self.rest_url = ""

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_listening()
        for session in self.sessions:
            session.reset()

    async def listen(self) -> None:
        """Open both ports; the same as before, if there were any."""
        websocket_port = int(self.websocket_url.rpartition(":")[2] or 0)
        rest_port = int(self.rest_url.rpartition(":")[2] or 0)
        s = "s" if self._tls else ""
        websocket = await ws_create_server(
            lambda request: PaperSession(self), "127.0.0.1", websocket_port, ssl=self._tls, enable_auto_pong=False
        )
        rest = await asyncio.start_server(self._on_rest, "127.0.0.1", rest_port, ssl=self._tls)
        self._servers = [websocket, rest]
        self.websocket_url = f"ws{s}://localhost:{websocket.sockets[0].getsockname()[1]}"
        self.rest_url = f"http{s}://localhost:{rest.sockets[0].getsockname()[1]}"

    def stop_listening(self) -> None:
        """Refuse new connections."""
        for server in self._servers:
            server.close()

    def stop_rest(self) -> None:
        """Refuse REST alone."""
        self._servers.pop().close()

    async def listen_rest(self) -> None:
        """Answer REST again, at the same port."""
        port = int(self.rest_url.rpartition(":")[2])
        self._servers.append(await asyncio.start_server(self._on_rest, "127.0.0.1", port, ssl=self._tls))

    async def session(self, number: int = -1) -> PaperSession:
        """A client's connection, when it has subscribed: the latest, or by its number from 0."""
        while len(self.sessions) <= max(number, 0) or not self.sessions[number].requests:
            await asyncio.sleep(0.002)
        return self.sessions[number]

    def on_request(self, session: PaperSession, request: dict[str, Any]) -> None:
        """A client subscribes."""
        if self.acknowledges:
            session.send({"ack": request["ack"]})
        self.on_session(session)

    async def _on_rest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        self.rest_requests.append(path)
        await self.rest_answers.wait()
        body = json.dumps(self._rest_answer(path)).encode()
        writer.write(
            f"HTTP/1.1 {self.rest_status} X\r\nContent-Length: {len(body)}\r\n{self.rest_headers}"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        writer.close()

    def _rest_answer(self, path: str) -> object:
        if path == "/instruments":
            return [
                {"instrument": name, "trading": trading, **self.more_of.get(name, {})}
                for name, trading in self.instruments.items()
            ]
        return self.book
