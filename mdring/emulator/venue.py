"""The venue port: what a venue's emulator implements, and what it may ask of its server.

A :class:`VenueEmulator` is the venue's face of the simulated market: names, ids, text, acks, errors, limits.
It owns no socket. The server (``server.py``) calls it with market events, upgraded connections and REST
requests; it answers through the :class:`Wire` of each connection. Emulators are found by the entry-point
group ``mdring.emulators``::

    emulator = load_emulator("binance")(market, host, BinanceOptions())
    session = emulator.accept("/ws/btcusdt@trade", {}, wire)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, ClassVar, Final, Protocol

from msgspec import Struct

from mdring.emulator.book import Book, Depth
from mdring.emulator.market import Event, Market
from mdring.record import DataType

ENTRY_POINT_GROUP: Final = "mdring.emulators"


class Timer(Protocol):
    """A callback that is due, as ``asyncio.TimerHandle``."""

    def cancel(self) -> None:
        """Forget the callback; nothing happens if it has run."""


class Host(Protocol):
    """What the server does for a venue."""

    def now_ns(self) -> int:
        """Time of the emulated venue, ns since the epoch."""

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back once, later."""


class Wire(Host, Protocol):
    """The server's end of one WebSocket connection. Its timers end with it."""

    number: int

    def deliver(self, stream: str, frame: bytes) -> None:
        """Send one message of market data: subject to faults, written to the truth log."""

    def reply(self, text: str) -> None:
        """Send a text frame that is no market data: ack, error, notice."""

    def ping(self, payload: bytes) -> None:
        """Send a WebSocket ping frame."""

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame, then end the connection."""

    def reset(self) -> None:
        """End the connection at once, without a close frame."""


class Session(ABC):
    """The venue's protocol on one connection."""

    @abstractmethod
    def on_open(self) -> None:
        """The upgrade is done; the first moment at which frames may be sent."""

    @abstractmethod
    def on_text(self, payload: bytes) -> None:
        """A whole text message of the client."""

    @abstractmethod
    def on_ping(self, payload: bytes) -> None:
        """A ping frame; the server has answered it."""

    @abstractmethod
    def on_pong(self, payload: bytes) -> None:
        """A pong frame."""

    @abstractmethod
    def on_close(self) -> None:
        """The connection is gone."""


class Refusal(Struct, frozen=True):
    """The upgrade is answered by this HTTP status in place of 101."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}


class RestRequest(Struct, frozen=True):
    """A GET request. ``snapshot_lag`` (a fault): how many changes a book snapshot is to lie behind."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    client: str
    snapshot_lag: int = 0


class RestResponse(Struct, frozen=True):
    """The answer to a RestRequest."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class VenueEmulator(ABC):
    """One venue's face of the market."""

    venue: ClassVar[str]
    options: ClassVar[type[Struct]]
    streams: ClassVar[Mapping[DataType, str]]  # part of the names of the streams that carry these data; for faults
    refuses_unknown: ClassVar[bool]  # whether the venue answers a subscription to what it does not list

    @abstractmethod
    def __init__(self, market: Market, host: Host, options: Any) -> None: ...

    @abstractmethod
    def accept(self, path: str, query: Mapping[str, str], wire: Wire) -> Session | Refusal:
        """A client asks for an upgrade at this path."""

    @abstractmethod
    def rest(self, request: RestRequest) -> RestResponse:
        """Answer a REST call."""

    @abstractmethod
    def on_events(self, events: Sequence[Event]) -> None:
        """The market has moved: send, or collect for the end of a window."""

    @abstractmethod
    def is_drained(self) -> bool:
        """Whether every change of the market has been sent: no window is open."""

    @abstractmethod
    def announce_shutdown(self) -> None:
        """Send the venue's notice of a planned shutdown to all connections."""

    @abstractmethod
    def instruments(self) -> Mapping[str, str]:
        """The venue's names of what it lists, by canonical symbol."""

    @abstractmethod
    def book_of(self, instrument: str) -> Book:
        """The book behind the venue's name. Raises KeyError for a name that the venue does not list."""

    @abstractmethod
    def level_text(self, book: Book, level: tuple[int, int]) -> list[str]:
        """A level's price and size as this venue writes them."""


def stale_depth(book: Book, lag: int) -> Depth:
    """The book as it was ``lag`` changes ago; beyond the kept history only its id is that old.

    For lag 0 the present book.
    """
    if lag == 0:
        return book.depth()
    wanted = book.update_id - lag
    return book.at(max(wanted, book.oldest_update_id))._replace(update_id=wanted)


def emulator_names() -> list[str]:
    """Names of all installed emulators."""
    return sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))


def load_emulator(name: str) -> type[VenueEmulator]:
    """The emulator class called ``name``. Raises KeyError with the names that exist."""
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: type[VenueEmulator] = point.load()
        return loaded
    raise KeyError(f"no emulator {name!r}; installed are: {', '.join(emulator_names())}")
