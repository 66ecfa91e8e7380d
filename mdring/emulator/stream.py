"""Topics of a venue, and the connections that listen to them.

A venue's face makes its streams from :class:`Stream`, and its sessions from :class:`StreamSession`, which listens to
them and ends with them::

    stream = Stream("trades:BTC-USDT")
    stream.join(session)
    stream.broadcast(frame)                 # market data: subject to faults
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Generic, Protocol, TypeVar

from mdring.emulator.venue import Session, Wire
from mdring.emulator.window import Window

Form = TypeVar("Form", bound=Hashable)
AnyStream = TypeVar("AnyStream", bound="Stream")


class Listener(Protocol):
    """A connection, as far as streams concern it: a session, or the wire itself."""

    def deliver(self, stream: str, frame: bytes, /) -> None:
        """Market data, under the title of their stream."""

    def reply(self, text: str, /) -> None:
        """Anything else."""


class Stream:
    """One topic and who listens to it. ``title`` is what faults and the truth log know it by; ``window`` collects the
    changes of a book that are told, while somebody listens."""

    window: Window | None = None

    def __init__(self, title: str) -> None:
        self.title = title
        self.sessions: list[Listener] = []

    def join(self, session: Listener) -> None:
        """A new listener. Streams that begin with something tell it here, to it alone."""
        if self.window is not None:
            self.window.flush()  # what is told first is as new as the last change
            self.window.open = True
        self.sessions.append(session)

    def leave(self, session: Listener) -> None:
        """One fewer."""
        self.sessions.remove(session)
        if self.window is not None:
            self.window.open = bool(self.sessions)

    def broadcast(self, frame: bytes) -> None:
        """To all."""
        for session in self.sessions:
            session.deliver(self.title, frame)


class FormedStream(Generic[Form]):
    """One topic whose listeners want its messages in several forms. Each message is made once per form."""

    def __init__(self, title: str, on_audience: Callable[[], None] | None = None) -> None:
        """``on_audience`` is called when listeners have come or gone."""
        self.title = title
        self.audiences: dict[Form, list[Listener]] = {}
        self._on_audience = on_audience

    def join(self, listener: Listener, form: Form) -> None:
        """A new listener."""
        self.audiences.setdefault(form, []).append(listener)
        self._tell()

    def leave(self, listener: Listener, form: Form) -> None:
        """One fewer."""
        self.audiences[form].remove(listener)
        if not self.audiences[form]:
            del self.audiences[form]
        self._tell()

    def broadcast(self, make: Callable[[Form], str]) -> None:
        """To all, each in its form."""
        for form, listeners in self.audiences.items():
            frame = make(form).encode()
            for listener in listeners:
                listener.deliver(self.title, frame)

    def _tell(self) -> None:
        if self._on_audience is not None:
            self._on_audience()


class StreamSession(Session, Generic[AnyStream]):
    """A connection that listens to streams. ``streams`` holds them by name; those that stay silent, too, with None."""

    def __init__(self, wire: Wire, sessions: set[Any]) -> None:
        """``sessions`` are the venue's; it is one of them while it is open."""
        self.wire = wire
        self.streams: dict[str, AnyStream | None] = {}
        self._sessions = sessions

    def on_open(self) -> None:
        self._sessions.add(self)

    def on_ping(self, payload: bytes) -> None:
        """The server's answer is all."""

    def on_pong(self, payload: bytes) -> None:
        """Nothing to be done: most venues send no pings, or demand no answer."""

    def on_close(self) -> None:
        self._sessions.discard(self)
        for stream in self.streams.values():
            if stream is not None:
                stream.leave(self)
        self.streams.clear()

    def deliver(self, stream: str, frame: bytes) -> None:
        """Market data."""
        self.wire.deliver(stream, frame)

    def reply(self, text: str) -> None:
        """Anything else."""
        self.wire.reply(text)
