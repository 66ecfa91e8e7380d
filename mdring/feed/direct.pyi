from typing import Final, final

from mdring.feed.chain import Chain
from mdring.feed.emit import Channel, Emit
from mdring.ring._ring import Words, Writer

NOT_TAKEN: Final[int]
TAKEN: Final[int]
REFUSED: Final[int]
SAVE_DUE: Final[int]

class Route:
    """One stream of one instrument: the form of its messages, and the chain that tells the next one."""

    def __init__(
        self, template: str, channel: Channel, chain: Chain, *, unit_ns: int, flags: int = 0, count_at: int = 0
    ) -> None: ...

@final
class DeltaRoute(Route):
    """The deltas of a book. The chain is the ``BookSync`` or the ``SocketBook`` of the instrument."""

@final
class QuoteRoute(Route):
    """The best bid and ask of an instrument. ``last`` must rise, if the template has it; a time is optional."""

@final
class TradeRoute(Route):
    """The trades of an instrument, with consecutive ids. The chain is their ``IdSequence``."""

@final
class DirectRoutes:
    """The routes of an adapter, by the part of a message that names its stream: between ``prefix``, with which
    messages begin, and the next ``stop``. ``taken`` counts the messages."""

    taken: Final[int]
    def __init__(self, prefix: str, stop: str) -> None: ...
    def add(self, key: str, route: Route) -> None:
        """Take the messages of a stream. Not for two routes of one key."""
    def take(self, payload: bytes, emit: Emit) -> bool:
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
    ) -> None: ...
    def take(self, payload: bytes, ts_recv: int) -> int:
        """NOT_TAKEN; or TAKEN, of which SAVE_DUE and REFUSED say that the publisher has something to do besides: save
        the channels, note the loss of ``emit.refused`` records to a full ring."""
