"""The adapter port: bytes and a time go in, records and requests come out.

An adapter owns everything a venue's protocol demands and nothing else. It has no socket, no clock, no
event loop and no ring, so one object serves the live worker, the offline decoder, the fuzzer and the
benchmark. Whoever drives it (``feed/worker.py``, ``capture.py``) carries out the requests it returns::

    requests = adapter.receive(connection, payload, ts_recv, emit)

Rules of the port:

* A payload buffer is valid during the call only. What must outlive the call is copied.
* Records are staged on ``emit`` in event groups (``emit.end()`` closes one). If a method raises, its
  caller rolls the staged records of that call back.
* The only exception an adapter raises is :class:`VenueProtocolError`; any other is our bug.
* A method that has nothing to ask returns :data:`NOTHING`.

Third parties add a venue with an entry point in the group ``mdring.adapters`` that names an
:class:`Adapter` subclass.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
from msgspec import Struct

from mdring.record import DataType, Reason

if TYPE_CHECKING:
    from mdring.feed.direct import DirectRoutes
    from mdring.feed.emit import Emit
    from mdring.feed.stage import Channel

ENTRY_POINT_GROUP: Final = "mdring.adapters"


class VenueProtocolError(Exception):
    """The venue sent what its documentation does not allow; the venue's fault, never fatal.

    ``instrument`` is the venue's name of the instrument concerned, or ``None`` if it cannot be told;
    ``data_type`` likewise, ``STATUS`` if it cannot be told. The driver writes a STATUS(REJECTED) of them.
    """

    def __init__(
        self,
        message: str,
        *,
        instrument: str | None = None,
        reason: Reason = Reason.BAD_MESSAGE,
        data_type: DataType = DataType.STATUS,
    ) -> None:
        super().__init__(message)
        self.instrument = instrument
        self.reason = reason
        self.data_type = data_type


UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError)
"""What decoding and storing raise of a message that is not as documented; the last for a number beyond 64 bits."""


def blamed(error: Exception, instrument: str | None, data_type: DataType) -> VenueProtocolError:
    """The error as the port wants it, with what it concerns."""
    reason = Reason.VALUE_OUT_OF_RANGE if isinstance(error, OverflowError) else Reason.BAD_MESSAGE
    if isinstance(error, VenueProtocolError):
        reason = error.reason
    return VenueProtocolError(str(error), instrument=instrument, reason=reason, data_type=data_type)


class Send(Struct, frozen=True):
    """Send this text frame on a connection. The transport paces frames by the venue's limit.

    ``ack`` names an answer that is due: the driver arms the subscribe time-out for it, and the adapter
    returns ``Acknowledged(connection, ack)`` when the answer is there. ``delay_ns`` is waited first. A frame that
    is ``urgent`` (a keep-alive) goes before those that wait for their turn.
    """

    connection: int
    text: str
    ack: str | None = None
    delay_ns: int = 0
    urgent: bool = False


class Acknowledged(Struct, frozen=True):
    """The answer to the ``Send`` with this ``ack`` has come."""

    connection: int
    ack: str


class Rejected(Struct, frozen=True):
    """The venue refuses a subscription: that of ``instrument``, or of one of its data types (STATUS: of all).

    The others go on. The driver counts it and writes STATUS(REJECTED, SUBSCRIBE_REJECTED) for the instrument.
    """

    connection: int
    instrument: str
    detail: str
    data_type: DataType = DataType.STATUS


class Fetch(Struct, frozen=True):
    """GET this URL and hand the answer to ``on_response`` under ``tag``.

    ``weight`` is the cost in the venue's own budget. ``delay_ns`` is waited before the request is made.
    ``connection`` is the one on whose behalf it is made: it is cancelled when that connection ends
    (-1: never). ``instrument`` is the one whose book waits for the answer: the most traded go first, and before all
    that no book waits for.
    """

    tag: str
    url: str
    weight: int = 1
    delay_ns: int = 0
    connection: int = -1
    instrument: str = ""


class Reconnect(Struct, frozen=True):
    """Close this connection and open it anew."""

    connection: int
    reason: Reason
    detail: str = ""


Request = Send | Fetch | Reconnect | Acknowledged | Rejected
NOTHING: Final[tuple[Request, ...]] = ()


class Response(Struct, frozen=True):
    """Answer to a ``Fetch``. ``status`` 0 means that none came (time-out, refused, reset); ``body`` says why."""

    tag: str
    url: str
    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Subscription(Struct, frozen=True):
    """What is wanted of one instrument."""

    instrument: str
    data_types: tuple[DataType, ...]
    canonical_symbol: str | None = None


class InstrumentInfo(Struct, frozen=True):
    """Metadata of one instrument, from the venue's list.

    The canonical symbol (``mdring/symbol.py``) tells spot, perpetual, future and option apart, with expiry and
    strike. A size of 1 is ``multiplier`` of ``size_unit``: of the base asset where sizes are in it ("1"), of what a
    contract is for where sizes count contracts. Text fields are empty where the venue does not say, but for the two
    names: one that is empty raises ValueError.
    """

    instrument: str
    canonical_symbol: str
    price_exponent: int
    size_exponent: int
    base: str = ""
    quote: str = ""
    trading: bool = True
    settle: str = ""  # asset in which profit is paid
    size_unit: str = ""  # asset of which sizes tell an amount: the base asset, or the quote asset of inverse contracts
    multiplier: str = "1"  # decimal text
    tick: str = ""  # decimal text: what prices of new orders are multiples of
    lot: str = ""  # decimal text: what their sizes are multiples of
    status: str = ""  # the venue's own word
    data_types: tuple[DataType, ...] = ()  # what the venue offers of it; empty: all that the adapter serves

    def __post_init__(self) -> None:
        if not self.instrument or not self.canonical_symbol:
            raise ValueError(f"an instrument without a name: {self.instrument!r}, {self.canonical_symbol!r}")

    def offers(self, adapter: type[Adapter]) -> tuple[DataType, ...]:
        """What can be subscribed to."""
        return self.data_types or adapter.data_types

    def with_symbol(self, canonical_symbol: str | None) -> InstrumentInfo:
        """With the symbol that a subscription gives it, if it gives one."""
        return self if canonical_symbol is None else msgspec.structs.replace(self, canonical_symbol=canonical_symbol)


class Connection(Struct, frozen=True):
    """A WebSocket connection that the adapter wants, and the instruments that travel on it.

    An instrument may travel on several. Then ``resync`` is called while any of them is open; that of its book may be
    closed.
    """

    connection: int
    url: str
    instruments: tuple[str, ...]


class Endpoints(Struct, frozen=True):
    """Where the venue is reached: the adapter's own, or the config's."""

    websocket_url: str
    rest_url: str


class Limits(Struct, frozen=True, kw_only=True):
    """The venue's limits that the worker keeps; each adapter states them with their source."""

    max_connection_life_s: float = 0.0  # 0: the venue sets none
    send_interval_s: float = 0.0  # least distance of two frames that we send
    connect_interval_s: float = 0.0  # least distance of two attempts to connect
    weight_per_minute: int = 0  # REST budget of an address; 0: none
    weight_by_clock: bool = False  # it is for each minute of the venue's clock; else for any 60 s
    weight_header: str = ""  # header of its answers that tells the weight used in the current minute
    fetch_interval_s: float = 0.0  # least distance of two REST requests of an address
    stale_after_s: float = 60.0  # no data for so long on a connection: reconnect
    timer_interval_s: float = 0.0  # ``on_timer`` is called so often on each open connection; 0: never


class AdapterCounts(Struct):
    """What an adapter has seen so far. It counts; the driver only reads, and publishes what it needs."""

    ignored: int = 0  # frames of types that are not decoded
    repeated: int = 0  # messages dropped because their like had come before
    gaps: int = 0  # STATUS(GAP) records
    resyncs: int = 0  # books that had to be rebuilt, for whatever reason
    snapshots: int = 0  # snapshots put into the stream
    checksums: int = 0  # of the venue, that were compared with ours, right or wrong
    books: int = 0  # subscribed
    books_valid: int = 0


class UnknownMessages:
    """Messages (or rows of a list) of types that an adapter does not decode: counted, the first of each type kept.

    They never stop the feed; the driver puts the samples into the quarantine file, for people to look at.
    """

    MAX_TYPES: ClassVar[int] = 64
    SAMPLE_BYTES: ClassVar[int] = 1024

    def __init__(self, counts: AdapterCounts) -> None:
        self._counts = counts
        self._seen: set[str] = set()
        self._new: list[tuple[str, bytes]] = []

    def note(self, what: str, payload: bytes | memoryview) -> None:
        """One more. ``what`` names its type, in few words that do not change from message to message."""
        self._counts.ignored += 1
        if what not in self._seen and len(self._seen) < self.MAX_TYPES:
            self._seen.add(what)
            self._new.append((what, bytes(payload[: self.SAMPLE_BYTES])))

    def take_new(self) -> list[tuple[str, bytes]]:
        """Types, and a sample of each, that came up since the last call."""
        new, self._new = self._new, []
        return new


class Adapter(ABC):
    """One venue's protocol. One object serves one worker: all its connections and instruments.

    Life cycle, as the driver calls it:

    1. ``metadata_requests`` / ``on_metadata`` until the list of instruments is known;
    2. ``bind`` with the channels of the subscribed instruments that exist, then ``connections``;
    3. per connection ``on_connect``, many ``receive``, ``on_timer`` now and then, ``on_disconnect``, and again;
    4. ``on_response`` for each ``Fetch``; ``on_reject`` for each error raised.

    Step 1 is done by an object of its own, made with the subscriptions that name an instrument, or with none. Only the
    list tells what patterns mean and which data types are offered, so the object that does the other steps is made
    with the subscriptions as they are resolved: of instruments that exist, with data types that are offered. It knows
    nothing of step 1, which may not even have happened: the list may come from disk.
    """

    venue: ClassVar[str]  # the adapter's name
    data_types: ClassVar[tuple[DataType, ...]]
    integrity: ClassVar[str]  # one line: how gaps are detected
    detects_loss: ClassVar[bool] = True  # a lost delta of a book shows, by ids or a checksum, when the next one comes
    endpoints: ClassVar[Endpoints]  # the real venue's
    limits: ClassVar[Limits] = Limits()
    options: ClassVar[type[Struct]]  # the keys of [venues.options], with defaults

    counts: AdapterCounts  # each adapter makes its own in __init__
    unknown: UnknownMessages  # likewise, with these counts
    direct: DirectRoutes | None = None  # for the normal next messages, laid by ``bind``; asked before ``on_frame`` is

    @abstractmethod
    def __init__(self, endpoints: Endpoints, options: Any, subscriptions: Sequence[Subscription]) -> None: ...

    @classmethod
    def title(cls) -> str:
        """The venue as people call it: the first sentence of the class's docstring."""
        return re.split(r"\.(?:\s|$)", cls.__doc__ or cls.venue, maxsplit=1)[0].strip()

    @abstractmethod
    def metadata_requests(self) -> Sequence[Fetch]:
        """What to fetch to learn the metadata of all instruments that the adapter can serve; if it was made with
        subscriptions, at least of those."""

    @abstractmethod
    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo | Fetch]:
        """Metadata of all instruments that the answer holds, subscribed or not; and what must be fetched besides
        (the next page).

        A row that no record could be made for is left out and noted (``unknown.note``): it must not cost the others.
        Raises VenueProtocolError if the answer as a whole is not usable; the driver tries again later.
        """

    @abstractmethod
    def bind(self, channels: Mapping[str, Channel]) -> None:
        """Take the channels, keyed by the venue's instrument name. Others stay unsubscribed."""

    @abstractmethod
    def connections(self) -> Sequence[Connection]:
        """The connections wanted, numbered from 0; called after ``bind``."""

    @abstractmethod
    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """The handshake is done: subscribe."""

    def receive(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One text frame of the venue: to its direct route or, what that leaves, to ``on_frame``.

        The worker asks the routes natively (``intake.pyx``), and its driver calls ``on_frame`` itself for what they
        leave. So a message is looked up and matched once, whoever hands it over.
        """
        if self.direct is not None and self.direct.take(connection, bytes(payload), emit):
            return NOTHING
        return self.on_frame(connection, payload, ts_recv, emit)

    @abstractmethod
    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Decode one text frame of the venue: any, those that a direct route would take among them. Does not ask the
        routes; they were asked.

        Raises VenueProtocolError if it is not what the venue documents.
        """

    def on_timer(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        """``limits.timer_interval_s`` have passed on an open connection: send the venue's own ping, look for books
        whose snapshot does not come. ``now_ns`` is on the clock of ``ts_recv``."""
        return NOTHING

    @abstractmethod
    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The answer to a ``Fetch``, or its failure (status 0)."""

    @abstractmethod
    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """The connection is gone: CLEAR each of its books, forget what was buffered."""

    @abstractmethod
    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        """The book of this instrument cannot be trusted: say so in the stream and rebuild it."""

    def on_reject(self, connection: int, error: VenueProtocolError, now_ns: int, emit: Emit) -> Sequence[Request]:
        """A message was refused (``error`` was raised by us, and the driver has told the stream).

        Default: resync the book, if it is known which and the message was not one of other data. Where a lost delta
        would not show, one that cannot be told whose it was costs the connection.
        """
        if error.instrument is None and error.data_type in (DataType.BOOK, DataType.STATUS) and not self.detects_loss:
            return (Reconnect(connection, error.reason, "whose message was lost cannot be told"),)
        if error.instrument is None or error.data_type not in (DataType.BOOK, DataType.STATUS):
            return NOTHING
        return self.resync(error.instrument, now_ns, error.reason, emit)

    def book_depth(self, instrument: str) -> int | None:
        """How many levels a side the book of this instrument has at most, by its subscription; None: all."""
        return None

    def is_data(self, payload: bytes | memoryview) -> bool:
        """Whether a frame is market data, as opposed to acks and keep-alives: the stale watchdog asks.

        It is asked only about frames of which no record came.
        """
        return False


def adapter_names() -> list[str]:
    """Names of all installed adapters."""
    return sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))


def load_adapter(name: str) -> type[Adapter]:
    """The adapter class called ``name``. Raises KeyError with the names that exist."""
    for point in entry_points(group=ENTRY_POINT_GROUP, name=name):
        loaded: type[Adapter] = point.load()
        return loaded
    raise KeyError(f"no adapter {name!r}; installed are: {', '.join(adapter_names())}")
