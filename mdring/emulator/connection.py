"""The server's end of one WebSocket connection: frames in and out, faults, timers.

Made by ``server.py`` for each upgrade; picows calls it with frames, the venue's session uses it as its
:class:`~mdring.emulator.venue.Wire`. All market data passes ``deliver``, the one place where frame faults
happen and the truth log is written.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, cast

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from mdring.emulator.faults import CORRUPTIONS, Fault, FaultInjector, FaultKind, corrupt
from mdring.emulator.truth import TruthLog
from mdring.emulator.venue import Session, Timer

_TEXT: Final = WSMsgType.TEXT
_CLOSE_GRACE_S: Final = 1.0  # the client's time to answer a close frame
MAX_BACKLOG_BYTES: Final = 32 * 1024 * 1024  # unsent data at which a slow client is cut off

_log = logging.getLogger(__name__)


class Owner(Protocol):
    """What a connection tells its venue's host."""

    venue_name: str
    injector: FaultInjector
    truth: TruthLog | None

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...


class Connection(WSListener):
    """One client of one venue."""

    session: Session

    def __init__(self, number: int, path: str, owner: Owner) -> None:
        self.number = number
        self.path = path
        self.sent = 0
        self._owner = owner
        self._truth = owner.truth
        self._injector = owner.injector
        self._transport: WSTransport  # from on_ws_connected on
        self._timers: set[asyncio.TimerHandle] = set()
        self._held: dict[str, bytes] = {}  # by stream: messages that wait to be overtaken
        self._stall: Fault | None = None
        self._ended = False
        self._irregular = False  # held, stalled or ended: deliver has more to do than to send
        self._fragments: list[bytes] = []

    # The venue's session calls these (venue.Wire).

    def now_ns(self) -> int:
        return time.time_ns()

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        loop = asyncio.get_running_loop()

        def run() -> None:
            self._timers.discard(handle)
            callback()

        handle = loop.call_later(seconds, run)
        self._timers.add(handle)
        return handle

    def deliver(self, stream: str, frame: bytes) -> None:
        if self._irregular or self._injector.disturbs_frames:
            self._deliver_disturbed(stream, frame)
        else:
            self._put(stream, frame)

    def reply(self, text: str) -> None:
        if self._stall is None and not self._ended:
            self._transport.send(_TEXT, text)

    def ping(self, payload: bytes) -> None:
        if self._pings() and not self._ended:
            self._transport.send_ping(payload)

    def close(self, code: int, reason: str = "") -> None:
        if self._ended:
            return
        self._end()
        self._transport.send_close(cast(WSCloseCode, code), reason.encode())
        asyncio.get_running_loop().call_later(_CLOSE_GRACE_S, self._transport.disconnect)

    def reset(self) -> None:
        self._end()
        raw: socket.socket = self._transport.underlying_transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
        self._transport.disconnect(graceful=False)

    # The server and the faults call these.

    @property
    def backlog_bytes(self) -> int:
        """What the client has not taken, beyond the kernel's buffers."""
        return self._transport.underlying_transport.get_write_buffer_size()

    @property
    def is_stalled(self) -> bool:
        """Whether it is silent because of a fault."""
        return self._stall is not None

    def stall(self, fault: Fault) -> None:
        """Fall silent; for ``duration_ms``, or until ``end_stall``."""
        self._stall = fault
        self._look()
        if fault.duration_ms:
            self.after(fault.duration_ms / 1000, self.end_stall)

    def end_stall(self) -> None:
        """Speak again. What was due in between is lost, as with a venue's stuck gateway."""
        self._stall = None
        self._look()

    async def end(self, grace_s: float) -> None:
        """Close the socket after what is unsent, or by force after the grace."""
        self._transport.disconnect()
        try:
            await asyncio.wait_for(self._transport.wait_disconnected(), grace_s)
        except TimeoutError:
            self.reset()
            await self._transport.wait_disconnected()

    def strike(self, fault: Fault) -> None:
        """Carry out a connection fault now."""
        match fault.fault:
            case FaultKind.CLOSE:
                self.close(fault.code, fault.reason)
            case FaultKind.RESET:
                self.reset()
            case FaultKind.STALL:
                self.stall(fault)
            case _:
                raise ValueError(f"{fault.fault} is no connection fault")
        self._note("fault", fault=fault.fault)

    # picows calls these.

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        underlying = transport.underlying_transport
        underlying.set_write_buffer_limits(high=MAX_BACKLOG_BYTES)
        self._owner.opened(self)
        self._note("open", path=self.path)
        self.session.on_open()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        match frame.msg_type:
            case WSMsgType.TEXT | WSMsgType.CONTINUATION:
                self._fragments.append(frame.get_payload_as_bytes())
                if frame.fin:
                    message = b"".join(self._fragments)
                    self._fragments.clear()
                    self.session.on_text(message)
            case WSMsgType.PING:
                payload = frame.get_payload_as_bytes()
                if self._pings():
                    transport.send_pong(payload)
                self.session.on_ping(payload)
            case WSMsgType.PONG:
                self.session.on_pong(frame.get_payload_as_bytes())
            case WSMsgType.CLOSE:
                code = frame.get_close_code()
                if not self._ended:
                    self._end()
                    transport.send_close(WSCloseCode.OK if code == WSCloseCode.NO_INFO else code)
                transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self._end()
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.session.on_close()
        self._owner.closed(self)
        self._note("close")

    def pause_writing(self) -> None:
        _log.warning("connection %d reads too slowly and is cut off", self.number)
        self._note("slow")
        self.reset()

    def resume_writing(self) -> None:
        """Nothing to resume: a slow client has been cut off."""

    # Inside.

    def _end(self) -> None:
        """From here on nothing more is sent."""
        self._ended = True
        self._look()

    def _look(self) -> None:
        self._irregular = self._ended or self._stall is not None or bool(self._held)

    def _pings(self) -> bool:
        return self._stall is None or self._stall.pings

    def _put(self, stream: str, frame: bytes) -> None:
        self._transport.send(_TEXT, frame)
        self.sent += 1
        if self._truth is not None:
            self._truth.sent(time.time_ns(), self._owner.venue_name, self.number, stream, frame)

    def _deliver_disturbed(self, stream: str, frame: bytes) -> None:
        if self._ended:
            return
        if self._stall is not None:
            self._withhold(stream, FaultKind.STALL, frame)
            return
        overtaken = self._held.pop(stream, None)
        if overtaken is not None:
            self._look()
            self._put(stream, frame)
            self._put(stream, overtaken)
            return
        fault = self._injector.due_on_message(stream, self.number)
        if fault is None:
            self._put(stream, frame)
        else:
            self._disturb(stream, frame, fault)

    def _disturb(self, stream: str, frame: bytes, fault: Fault) -> None:
        kind = fault.fault
        if kind is FaultKind.DROP:
            self._withhold(stream, kind, frame)
        elif kind is FaultKind.REORDER:
            self._held[stream] = frame
            self._look()
        elif kind is FaultKind.DUPLICATE:
            self._put(stream, frame)
            self._put(stream, frame)
        elif kind is FaultKind.BINARY:
            self._put_corrupted(WSMsgType.BINARY, stream, kind, frame)
        elif kind in CORRUPTIONS:
            self._put_corrupted(_TEXT, stream, kind, corrupt(kind, frame))
        else:
            self._withhold(stream, kind, frame)
            self.strike(fault)

    def _put_corrupted(self, frame_type: Any, stream: str, kind: FaultKind, frame: bytes) -> None:
        self._transport.send(frame_type, frame)
        self.sent += 1
        if self._truth is not None:
            self._truth.sent_corrupted(time.time_ns(), self._owner.venue_name, self.number, stream, kind, frame)

    def _withhold(self, stream: str, kind: FaultKind, frame: bytes) -> None:
        if self._truth is not None:
            self._truth.withheld(time.time_ns(), self._owner.venue_name, self.number, stream, kind, frame)

    def _note(self, event: str, **details: str) -> None:
        if self._truth is not None:
            self._truth.event(time.time_ns(), self._owner.venue_name, self.number, event, **details)
