"""The transport: each stage of opening with its own time-out, and what a connection brings."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from picows import WSCloseCode, WSMsgType

from mdring.feed import transport
from mdring.feed.intake import Intake
from mdring.feed.transport import Timeouts, TransportError, WebSocket, open_websocket, tls_context
from mdring.record import Reason
from tests.feed.authority import Authority
from tests.feed.paper_venue import PaperSession, PaperVenue
from tests.feed.worker_run import patiently

SECOND = 1_000_000_000
GENEROUS = Timeouts(30 * SECOND, 30 * SECOND, 30 * SECOND, 30 * SECOND)
SHORT = SECOND // 20


class Recorder:
    """A receiver that notes what it gets."""

    def __init__(self) -> None:
        self.intake = Intake(0, None, lambda: None)
        self.websocket: WebSocket | None = None
        self.messages: list[bytes] = []
        self.reads: list[int] = []  # messages and control frames of each read
        self.closed: asyncio.Future[tuple[Reason, str]] = asyncio.get_running_loop().create_future()
        self.errors: list[BaseException] = []
        self.bug_on = b""
        self._in_read = 0

    def on_open(self, websocket: WebSocket) -> None:
        assert not self.messages
        self.websocket = websocket

    def on_message(self, payload: bytes, last_in_read: int) -> None:
        self.messages.append(payload)
        self._note(last_in_read)
        if payload == self.bug_on:
            raise RuntimeError("a bug")

    def on_control(self, last_in_read: int) -> None:
        self._note(last_in_read)

    def on_closed(self, reason: Reason, detail: str) -> None:
        self.closed.set_result((reason, detail))

    def on_error(self, error: BaseException) -> None:
        self.errors.append(error)

    def _note(self, last_in_read: int) -> None:
        self._in_read += 1
        if last_in_read:
            self.reads.append(self._in_read)
            self._in_read = 0

    async def have(self, count: int) -> list[bytes]:
        """The messages, when there are so many."""
        while len(self.messages) < count:
            await asyncio.sleep(0.001)
        return self.messages


@asynccontextmanager
async def connected(venue: PaperVenue) -> AsyncIterator[tuple[Recorder, PaperSession]]:
    """A receiver and the venue's side of its connection."""
    recorder = Recorder()
    await open_websocket(venue.websocket_url, recorder, GENEROUS, tls_context(None))
    assert recorder.websocket is not None
    recorder.websocket.send('{"subscribe":[],"ack":"1"}')
    session = await venue.session()
    await recorder.have(1)
    recorder.messages.clear()
    recorder.reads.clear()
    yield recorder, session
    recorder.websocket.close()


@asynccontextmanager
async def silent_server() -> AsyncIterator[int]:
    """A port that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def failure(url: str, timeouts: Timeouts = GENEROUS, tls: ssl.SSLContext | None = None) -> tuple[Reason, str]:
    """Why the connection cannot be opened."""
    recorder = Recorder()
    with pytest.raises(TransportError) as caught:
        await open_websocket(url, recorder, timeouts, tls or tls_context(None))
    assert recorder.websocket is None
    return caught.value.reason, str(caught.value)


# ---- opening ----------------------------------------------------------------------------------------------


def test_resolver_that_hangs_ends_the_dns_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()

    def hanging(*args: object, **kwargs: object) -> list[object]:
        hang.wait()
        return []

    async def main() -> None:
        timeouts = Timeouts(SHORT, 30 * SECOND, 30 * SECOND, 30 * SECOND)
        assert await failure("ws://venue.invalid", timeouts) == (
            Reason.CONNECT_TIMEOUT, "DNS: no answer within 50 ms"
        )  # fmt: skip

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    patiently(main())  # the event loop has closed while the resolver still hangs
    hang.set()


def test_unknown_name_is_a_failure_of_dns() -> None:
    async def main() -> None:
        reason, detail = await failure("ws://no-such-name.invalid:80")
        assert reason is Reason.CONNECT_FAILED
        assert detail.startswith("DNS: no-such-name.invalid: ")

    patiently(main())


def test_port_where_nobody_listens_is_a_failure_of_tcp() -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        reason, detail = await failure(f"ws://127.0.0.1:{port}")
        assert reason is Reason.CONNECT_FAILED
        assert detail.startswith("TCP: ")

    patiently(main())


def test_host_that_answers_no_syn_ends_the_tcp_stage() -> None:
    async def main() -> None:
        # A full backlog: the kernel drops further SYNs.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
            port = server.getsockname()[1]
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            await asyncio.sleep(0.05)
            timeouts = Timeouts(30 * SECOND, SHORT, 30 * SECOND, 30 * SECOND)
            assert await failure(f"ws://127.0.0.1:{port}", timeouts) == (
                Reason.CONNECT_TIMEOUT, "TCP: no answer within 50 ms"
            )  # fmt: skip
            for filler in fillers:
                filler.close()

    patiently(main())


def test_server_that_never_answers_ends_the_tls_stage() -> None:
    async def main() -> None:
        timeouts = Timeouts(30 * SECOND, 30 * SECOND, SHORT, 30 * SECOND)
        async with silent_server() as port:
            assert await failure(f"wss://localhost:{port}", timeouts) == (
                Reason.CONNECT_TIMEOUT, "TLS: no answer within 50 ms"
            )  # fmt: skip

    patiently(main())


def test_server_that_never_answers_ends_the_handshake_stage() -> None:
    async def main() -> None:
        timeouts = Timeouts(30 * SECOND, 30 * SECOND, 30 * SECOND, SHORT)
        async with silent_server() as port:
            assert await failure(f"ws://localhost:{port}", timeouts) == (
                Reason.CONNECT_TIMEOUT, "handshake: no answer within 50 ms"
            )  # fmt: skip

    patiently(main())


def test_certificate_of_an_unknown_authority_is_refused(authority: Authority) -> None:
    async def main() -> None:
        async with PaperVenue(tls=authority.server_context) as venue:
            reason, detail = await failure(venue.websocket_url)
            assert reason is Reason.HANDSHAKE_FAILED
            assert "TLS: " in detail
            assert "certificate" in detail

    patiently(main())


def test_certificate_of_another_name_is_refused(authority: Authority) -> None:
    async def main() -> None:
        async with PaperVenue(tls=authority.server_context) as venue:
            url = venue.websocket_url.replace("localhost", "127.0.0.1")
            reason, detail = await failure(url, tls=tls_context(str(authority.file)))
            assert reason is Reason.HANDSHAKE_FAILED
            assert "mismatch" in detail

    patiently(main())


def test_certificate_of_a_trusted_authority_is_accepted(authority: Authority) -> None:
    async def main() -> None:
        async with PaperVenue(tls=authority.server_context) as venue:
            recorder = Recorder()
            await open_websocket(venue.websocket_url, recorder, GENEROUS, tls_context(str(authority.file)))
            assert recorder.websocket is not None
            recorder.websocket.send('{"subscribe":[],"ack":"1"}')
            assert await recorder.have(1) == [b'{"ack": "1"}']
            recorder.websocket.close()
            await recorder.websocket.wait_closed()

    patiently(main())


def test_server_that_speaks_no_tls_is_a_failed_handshake() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reason, detail = await failure(f"wss://localhost:{server.sockets[0].getsockname()[1]}")
        assert reason is Reason.HANDSHAKE_FAILED
        assert detail.startswith("TLS or handshake: ")
        server.close()

    patiently(main())


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (b"HTTP/1.1 451 Unavailable\r\nContent-Length: 0\r\n\r\n", "handshake: HTTP 451"),
        (b"HTTP/1.1 302 Found\r\nLocation: ws://localhost:1/\r\nContent-Length: 0\r\n\r\n", "handshake: HTTP 302"),
        (b"", "handshake: the venue hung up"),
    ],
    ids=["refused", "redirected", "hung up"],
)
def test_refused_upgrade_is_a_failed_handshake(answer: bytes, detail: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert await failure(f"ws://localhost:{port}") == (Reason.HANDSHAKE_FAILED, detail)
        server.close()

    patiently(main())


def test_cancelled_opening_leaves_no_connection_behind() -> None:
    async def main() -> None:
        hung_up = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await reader.read()
            hung_up.set()
            writer.close()

        asked = asyncio.Event()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        opening = asyncio.create_task(open_websocket(f"ws://localhost:{port}", Recorder(), GENEROUS, tls_context(None)))
        await asked.wait()
        opening.cancel()
        await hung_up.wait()
        server.close()

    patiently(main())


# ---- reading ----------------------------------------------------------------------------------------------


def test_messages_of_one_write_come_in_one_read() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.send("one", "two", "three")
            assert await recorder.have(3) == [b"one", b"two", b"three"]
            assert recorder.reads == [3]

    patiently(main())


def test_ping_amid_messages_is_answered_with_its_payload_and_counts_as_part_of_the_read() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.send_frames(
                (WSMsgType.TEXT, b"one"), (WSMsgType.PING, b"1763845921250"), (WSMsgType.TEXT, b"two"),
                (WSMsgType.PING, b"last"),
            )  # fmt: skip
            assert await recorder.have(2) == [b"one", b"two"]
            while session.received[-1][1] != b"last":
                await asyncio.sleep(0.001)
            assert session.received[-2:] == [(WSMsgType.PONG, b"1763845921250"), (WSMsgType.PONG, b"last")]
            assert recorder.reads == [4]

    patiently(main())


def test_message_in_fragments_is_joined_also_around_a_ping() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.transport.send(WSMsgType.TEXT, b"be", fin=False)
            session.transport.send(WSMsgType.CONTINUATION, b"gi", fin=False)
            session.transport.send_ping(b"")
            session.transport.send(WSMsgType.CONTINUATION, b"n", fin=True)
            session.send("next")
            assert await recorder.have(2) == [b"begin", b"next"]

    patiently(main())


def test_binary_message_is_a_message() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.send_frames((WSMsgType.BINARY, b"\x00\xff"))
            assert await recorder.have(1) == [b"\x00\xff"]

    patiently(main())


def test_large_message_arrives_whole() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.send("x" * 3_000_000)
            assert (await recorder.have(1))[0] == b"x" * 3_000_000

    patiently(main())


# ---- the end ----------------------------------------------------------------------------------------------


def test_close_of_the_venue_is_told_with_code_and_text() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.close(WSCloseCode.POLICY_VIOLATION, "Too many requests")
            assert await recorder.closed == (Reason.CLOSED_BY_VENUE, "1008 Too many requests")

    patiently(main())


def test_close_frame_is_answered() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.transport.send_close(WSCloseCode.GOING_AWAY, b"")
            assert await recorder.closed == (Reason.CLOSED_BY_VENUE, "1001")
            await session.closed.wait()
            assert session.received[-1][0] is WSMsgType.CLOSE

    patiently(main())


def test_application_close_code_and_empty_close_frame_are_understood() -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            async with connected(venue) as (recorder, session):
                session.send_frames((WSMsgType.CLOSE, (4001).to_bytes(2, "big") + b"bye"))
                assert await recorder.closed == (Reason.CLOSED_BY_VENUE, "4001 bye")
            venue.sessions.clear()
            async with connected(venue) as (recorder, session):
                session.send_frames((WSMsgType.CLOSE, b""))
                assert await recorder.closed == (Reason.CLOSED_BY_VENUE, "close frame without a code")

    patiently(main())


def test_connection_that_breaks_off_is_told() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.reset()
            assert await recorder.closed == (Reason.CLOSED_BY_VENUE, "without a close frame")

    patiently(main())


def test_frame_that_breaks_the_websocket_protocol_ends_the_connection_as_bad() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.transport.underlying_transport.write(b"\x83\x00")  # opcode 3 is reserved
            reason, detail = await recorder.closed
            assert reason is Reason.BAD_MESSAGE
            assert "opcode" in detail

    patiently(main())


def test_message_in_too_many_fragments_ends_the_connection_as_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            session.transport.send(WSMsgType.TEXT, b"x" * 60, fin=False)
            session.transport.send(WSMsgType.CONTINUATION, b"x" * 60, fin=False)
            assert await recorder.closed == (Reason.BAD_MESSAGE, "a message of more than 100 bytes")

    monkeypatch.setattr(transport, "MAX_MESSAGE_BYTES", 100)
    patiently(main())


def test_exception_of_the_receiver_is_handed_back_and_ends_the_connection() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            recorder.bug_on = b"two"
            session.send("one", "two")
            await session.closed.wait()
            assert [str(error) for error in recorder.errors] == ["a bug"]

    patiently(main())


def test_closed_connection_ignores_what_is_sent() -> None:
    async def main() -> None:
        async with PaperVenue() as venue, connected(venue) as (recorder, session):
            websocket = recorder.websocket
            assert websocket is not None
            websocket.close()
            await websocket.wait_closed()
            websocket.send("late")
            websocket.ping()
            websocket.close()
            assert (await recorder.closed)[0] is not Reason.NONE
            await session.closed.wait()
            assert session.received[-1][0] is WSMsgType.CLOSE

    patiently(main())
