"""A venue's book as its adapter needs it. How it is used stands at the top of ``local_book.pyx``."""

from typing import Final, final

from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import Flags, Side

@final
class LocalBook:
    """The book of one instrument, which follows what is staged for it."""

    orphans: Final[int]
    """Number of levels that were to be deleted and were not there."""
    crossed_ns: int
    """Since when it is crossed, as ``crossed_since`` has found; 0: it is not. What is set here stays until then."""
    def __new__(cls, channel: Channel, max_levels: int = 200_000) -> LocalBook:
        """``max_levels``: a side with more is the venue's fault."""
    def __len__(self) -> int:
        """Number of levels on both sides."""
    def clear(self) -> None:
        """Forget all levels, and what was staged as the best ones."""
    def apply(self, emit: Emit, mark: int) -> None:
        """Follow the LEVEL and CLEAR records of this instrument that were staged since ``mark`` (``emit.mark()``).

        Raises VenueProtocolError for a book that grows beyond ``max_levels``.
        """
    def trim(self, emit: Emit, depth: int, ts_event: int, venue_seq: int = 0, flags: Flags | int = 0) -> int:
        """Delete the worst levels until each side has at most ``depth``, and stage a LEVEL of size 0 for each.

        Returns their number.
        """
    def has_levels_of(self, other: LocalBook) -> bool:
        """Whether both hold the same levels; two books of one instrument."""
    def best(self) -> tuple[int, int, int, int]:
        """(bid price, bid size, ask price, ask size), scaled; UNDEFINED_PRICE and 0 for an empty side."""
    @property
    def is_crossed(self) -> bool:
        """Whether the best bid is not below the best ask."""
    def crossed_since(self, now_ns: int) -> int:
        """Since when the book is crossed; 0 if it is not. To be asked after each message."""
    def size_at(self, side: Side | int, price: int) -> int:
        """The size at a scaled price; 0 if there is no such level."""
    def stage_bbo(self, emit: Emit, ts_event: int, venue_seq: int = 0, flags: Flags | int = 0) -> bool:
        """Stage a BBO if the best levels have changed since the last one; whether they have."""
    def crc32_of_digits(self, levels: int, price_decimals: int, size_decimals: int) -> int:
        """CRC-32 (unsigned) of the digits of the best ``levels`` asks, then bids, best first: each price, then size,
        with so many decimals, without point and leading zeros. That is Kraken's."""
    def crc32_of_pairs(self, levels: int) -> int:
        """CRC-32 (unsigned) of ``price:size`` of the best ``levels``, bid and ask in turn, joined by ``:``; numbers
        without superfluous zeros. Where one side is shorter the other goes on alone. That was OKX's."""
