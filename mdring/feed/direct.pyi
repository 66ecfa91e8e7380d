from collections.abc import Callable
from typing import Final, final, overload

from mdring.feed.chain import Chain
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.feed.template import Form
from mdring.ring._ring import Words, Writer

class Route(Form):
    """One stream of one instrument: the form of its messages, and the chain that tells the next one.

    ``unit_ns`` is the unit of times that are counts. ``flags`` are those of the records, ``count_at`` which element of
    a level is its number of orders (0: none is). Raises ValueError for a template that cannot be read.
    """

    taken_ns: Final[int]
    """When the last message that was taken had come (its ``ts_recv``); 0: none was."""
    def __init__(
        self, template: str, channel: Channel, chain: Chain, *, unit_ns: int = 1, flags: int = 0, count_at: int = 0
    ) -> None: ...

@final
class DeltaRoute(Route):
    """The deltas of a book. The chain is the ``BookSync`` or the ``SocketBook`` of the instrument."""

@final
class QuoteRoute(Route):
    """The best bid and ask of an instrument. ``number``, else ``last``, must rise, if the template has it; else it is 0
    of the chain once one was taken. A time is optional."""

@final
class TradeRoute(Route):
    """The trades of an instrument. Their ids are consecutive, and the chain is their ``IdSequence``; if they are not
    (``consecutive``), it has the last one in ``last``, which may not come again. Those of one message are one event
    group. venue_seq is ``last``; without that it is the id of consecutive ones, 0 of others."""

    def __init__(
        self,
        template: str,
        channel: Channel,
        chain: Chain,
        *,
        unit_ns: int = 1,
        flags: int = 0,
        consecutive: bool = True,
    ) -> None: ...

@final
class Names:
    """Routes by name, found without making an object of the name: open addressing, at most half full."""

    def __init__(self) -> None: ...
    def add(self, name: bytes, route: Route) -> bool:
        """Add a route; whether there was none of this name."""

@final
class Place:
    """Where messages that begin with ``prefix`` name their stream: up to the next ``stop``, directly behind that, or
    behind the first ``behind`` that follows, or behind the last one in the message (``last``)."""

    def __init__(self, prefix: str, stop: str = '"', *, behind: str = "", last: bool = False) -> None: ...
    def add(self, key: str, route: Route, *, connection: int | None = None) -> None:
        """Take the messages of a stream, on any connection or on one. Not for two routes of one key."""

@final
class DirectRoutes:
    """The routes of an adapter, by the part of a message that names its stream, and where that stands. ``taken`` counts
    the messages.

    ``DirectRoutes(prefix, stop)`` has one such place; ``DirectRoutes(*places)`` more, each asked in turn.
    """

    taken: Final[int]
    @overload
    def __init__(self, prefix: str, stop: str = '"', /) -> None: ...
    @overload
    def __init__(self, /, *places: Place) -> None: ...
    def add(self, key: str, route: Route, *, connection: int | None = None) -> None:
        """``Place.add`` of the first place."""
    def take(self, connection: int, payload: bytes, emit: Emit) -> bool:
        """Stage the records of a message, if it is the normal next one of a route; whether it was."""

@final
class DirectPath:
    """From a message to the venue ring: what driver and publisher do for one, in one native call.

    ``enabled`` is False while the publisher lets nothing through; at seq ``save_at`` it must save the channels.
    """

    enabled: bool
    save_at: int
    def __init__(
        self,
        routes: DirectRoutes,
        emit: Emit,
        writer: Writer,
        sequencer: Words,
        position_word: int,
        waiting_word: int,
        on_save_due: Callable[[], None],
        on_refused: Callable[[], None],
    ) -> None:
        """``on_refused`` has to note the loss of ``emit.refused`` records to a full ring."""
    def take(self, connection: int, payload: bytes, ts_recv: int) -> bool:
        """Publish the records of a message, if it is the normal next one of a route; whether it was."""
