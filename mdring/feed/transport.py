"""The transport: one WebSocket connection of the worker, by picows.

Runs in the worker's event loop. Opening goes through four stages, each with a time-out of its own: DNS, TCP, TLS,
WebSocket handshake. What comes is handed to a :class:`Receiver` at once, from inside the socket's read::

    tls = tls_context(ca_file=None)
    websocket = await open_websocket("wss://stream.example/ws", receiver, timeouts, tls)
    websocket.send('{"method":"SUBSCRIBE"}')

Messages in fragments are joined; pings are answered with their own payload; the venue's CLOSE is answered and
reported. There is no compression (it costs more latency than it saves), no proxy, and TLS is always verified.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection
from msgspec import Struct
from picows import WSCloseCode, WSFrame, WSHandshakeError, WSListener, WSMsgType, WSTransport, ws_connect

from mdring.feed.intake import Intake
from mdring.record import Reason

MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024
_HAPPY_EYEBALLS_DELAY_S: Final = 0.25  # RFC 8305, section 8: before the next address is tried as well
_TLS_CLOSE_S: Final = 1.0  # for the venue's half of the TLS closure; it may be gone
_DEFAULT_PORTS: Final = {"ws": 80, "wss": 443}
_TEXT: Final = WSMsgType.TEXT  # a global: looked up for every frame
_BINARY: Final = WSMsgType.BINARY

# picows tells each connection's socket options as INFO; the worker logs connections itself.
logging.getLogger("picows").setLevel(logging.WARNING)


class TransportError(Exception):
    """A connection could not be opened, or ended. ``reason`` is what the stream is told."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Timeouts(Struct, frozen=True):
    """How long each stage of opening may take, in ns."""

    dns_ns: int
    connect_ns: int
    tls_ns: int
    handshake_ns: int


class Receiver(Protocol):
    """Takes what comes on a connection. All of it is called from the event loop, and must not wait."""

    @property
    def intake(self) -> Intake:
        """What takes the usual messages; the others are left for ``on_message``."""

    def on_open(self, websocket: WebSocket) -> None:
        """The handshake is done. Called before any message, though messages may have come with it."""

    def on_message(self, payload: bytes, last_in_read: int) -> None:
        """A whole message that the intake has not taken. ``last_in_read``: not 0 if the socket read that brought it
        holds nothing further."""

    def on_control(self, last_in_read: int) -> None:
        """A control frame, or a part of a message, came: the venue is alive."""

    def on_closed(self, reason: Reason, detail: str) -> None:
        """The connection is gone; called once, unless ``on_error`` was."""

    def on_error(self, error: BaseException) -> None:
        """A method of the receiver raised ``error``; the connection is given up."""


class WebSocket:
    """An open connection. After its end all methods do nothing."""

    def __init__(self, transport: WSTransport) -> None:
        self._transport = transport

    def send(self, text: str) -> None:
        """Send a text message."""
        self._transport.send(WSMsgType.TEXT, text)

    def ping(self) -> None:
        """Send a ping."""
        self._transport.send_ping()

    def close(self) -> None:
        """Send CLOSE and what is still unsent, then close the socket."""
        if not self._transport.is_disconnected:
            self._transport.send_close(WSCloseCode.OK)
            self._transport.disconnect()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await self._transport.wait_disconnected()


class _Listener(WSListener):
    """picows' callbacks, turned into a Receiver's."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        # On the instance, where picows looks first: of what the intake takes nothing is interpreted.
        self.__dict__["on_ws_frame"] = receiver.intake.before(self.on_ws_frame, self._fail)
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._end: tuple[Reason, str] | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        try:
            self._receiver.on_open(WebSocket(transport))
        except BaseException as error:
            self._fail(transport, error)
            raise

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        kind = frame.msg_type
        try:
            if (kind is _TEXT or kind is _BINARY) and frame.fin and not self._parts:
                self._receiver.on_message(frame.get_payload_as_bytes(), frame.last_in_buffer)
            else:
                self._on_other(transport, frame)
        except BaseException as error:
            self._fail(transport, error)
            raise

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._receiver.intake.release()
        handshake = transport.close_handshake
        if self._end is None and handshake is not None and handshake.sent is not None:
            # Sent by picows: what came breaks RFC 6455, or is too large.
            self._end = (Reason.BAD_MESSAGE, handshake.sent.reason)
        try:
            self._receiver.on_closed(*(self._end or (Reason.CLOSED_BY_VENUE, "without a close frame")))
        except BaseException as error:
            self._fail(transport, error)
            raise

    def _on_other(self, transport: WSTransport, frame: WSFrame) -> None:
        match frame.msg_type:
            case WSMsgType.PING:
                transport.send_pong(frame.get_payload_as_bytes())
            case WSMsgType.CLOSE:
                self._on_close(transport, frame)
            case WSMsgType.TEXT | WSMsgType.BINARY | WSMsgType.CONTINUATION:
                self._on_part(transport, frame)
                return
        self._receiver.on_control(frame.last_in_buffer)

    def _on_part(self, transport: WSTransport, frame: WSFrame) -> None:
        self._parts.append(frame.get_payload_as_bytes())
        self._parts_bytes += frame.payload_size
        self._receiver.intake.in_parts = not frame.fin
        if self._parts_bytes > MAX_MESSAGE_BYTES:
            self._end = (Reason.BAD_MESSAGE, f"a message of more than {MAX_MESSAGE_BYTES} bytes")
            transport.send_close(WSCloseCode.MESSAGE_TOO_BIG)
            transport.disconnect()
        elif frame.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._parts_bytes = 0
            if not self._receiver.intake.take(whole, frame.last_in_buffer):
                self._receiver.on_message(whole, frame.last_in_buffer)
            return
        self._receiver.on_control(frame.last_in_buffer)

    def _on_close(self, transport: WSTransport, frame: WSFrame) -> None:
        payload = frame.get_payload_as_bytes()
        code, text = int.from_bytes(payload[:2]), payload[2:].decode(errors="replace")
        self._end = (Reason.CLOSED_BY_VENUE, f"{code} {text}".strip() if payload else "close frame without a code")
        transport.send_close(WSCloseCode.OK)
        transport.disconnect()

    def _fail(self, transport: WSTransport, error: BaseException) -> None:
        transport.disconnect(graceful=False)
        self._receiver.on_error(error)


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """A context that verifies certificates and names: against ``ca_file`` if given, else the system's authorities."""
    return ssl.create_default_context(cafile=ca_file)


def tls_for(ca_file: str | None, *urls: str) -> ssl.SSLContext:
    """A context for these URLs. Reading the system's authorities takes time and memory: plain connections, of tests
    mostly, do without."""
    secure = any(url.startswith(("wss:", "https:")) for url in urls)
    return tls_context(ca_file) if secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


async def resolve(host: str, port: int) -> list[AddrInfoType]:
    """The TCP addresses of a name. Raises OSError (socket.gaierror).

    In a daemon thread of its own: a resolver that hangs delays neither a cancellation nor the end of the
    process, as the event loop's thread pool would.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[AddrInfoType]] = loop.create_future()

    def tell(settle: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            settle(value)

    def ask() -> None:
        settle: Callable[[Any], None]
        value: Any
        try:
            settle, value = answer.set_result, socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            settle, value = answer.set_exception, error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, settle, value)

    threading.Thread(target=ask, name=f"resolve {host}", daemon=True).start()
    return await answer


async def open_websocket(url: str, receiver: Receiver, timeouts: Timeouts, tls: ssl.SSLContext) -> None:
    """Open a connection; ``receiver.on_open`` gets it. Raises TransportError."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    addresses = await _resolve(host, parts.port or _DEFAULT_PORTS[parts.scheme], timeouts.dns_ns)
    connected = await _connect(addresses, timeouts.connect_ns)
    try:
        await _upgrade(url, connected, receiver, timeouts, tls)
    except BaseException:
        # Whoever was given the socket has closed it, or does so when its other end seems to hang up.
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)
        raise


async def _resolve(host: str, port: int, timeout_ns: int) -> list[AddrInfoType]:
    try:
        async with asyncio.timeout(timeout_ns / 1e9):
            return await resolve(host, port)
    except TimeoutError:
        raise TransportError(Reason.CONNECT_TIMEOUT, _late("DNS", timeout_ns)) from None
    except OSError as error:
        raise TransportError(Reason.CONNECT_FAILED, f"DNS: {host}: {error.strerror or error}") from error


async def _connect(addresses: Sequence[AddrInfoType], timeout_ns: int) -> socket.socket:
    try:
        async with asyncio.timeout(timeout_ns / 1e9):
            return await start_connection(addresses, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY_S)
    except TimeoutError:
        raise TransportError(Reason.CONNECT_TIMEOUT, _late("TCP", timeout_ns)) from None
    except OSError as error:
        raise TransportError(Reason.CONNECT_FAILED, f"TCP: {error.strerror or error}") from error


async def _upgrade(
    url: str, connected: socket.socket, receiver: Receiver, timeouts: Timeouts, tls: ssl.SSLContext
) -> None:
    """TLS if the URL asks for it, then the WebSocket handshake."""
    tls_options: dict[str, Any] = {}
    if url.startswith("wss:"):
        tls_options = {"ssl_handshake_timeout": timeouts.tls_ns / 1e9, "ssl_shutdown_timeout": _TLS_CLOSE_S}
    try:
        transport, _ = await ws_connect(
            lambda: _Listener(receiver),
            url,
            ssl_context=tls,
            websocket_handshake_timeout=timeouts.handshake_ns / 1e9,
            enable_auto_pong=False,  # they would swallow the mark of a read's last frame
            max_frame_size=MAX_MESSAGE_BYTES,
            max_redirects=0,
            socket_factory=lambda _: connected,
            **tls_options,
        )
    except TimeoutError:
        raise TransportError(Reason.CONNECT_TIMEOUT, _late("handshake", timeouts.handshake_ns)) from None
    except WSHandshakeError as error:
        raise TransportError(Reason.HANDSHAKE_FAILED, f"handshake: {_refusal(error)}") from error
    except ConnectionAbortedError as error:
        if error.errno is not None:
            raise TransportError(Reason.CONNECT_FAILED, f"TLS: {error.strerror}") from error
        # Without an errno it is the event loop's: the TLS handshake took too long.
        raise TransportError(Reason.CONNECT_TIMEOUT, _late("TLS", timeouts.tls_ns)) from None
    except ssl.SSLCertVerificationError as error:
        raise TransportError(Reason.HANDSHAKE_FAILED, f"TLS: {error.verify_message}") from error
    except OSError as error:  # ssl.SSLError too
        raise TransportError(Reason.HANDSHAKE_FAILED, f"TLS or handshake: {error.strerror or error}") from error
    if transport.response is None:
        raise TransportError(Reason.HANDSHAKE_FAILED, "handshake: the venue hung up")


def _late(stage: str, timeout_ns: int) -> str:
    return f"{stage}: no answer within {timeout_ns // 1_000_000} ms"


def _refusal(error: WSHandshakeError) -> str:
    return f"HTTP {int(error.response.status)}" if error.response is not None else str(error)
