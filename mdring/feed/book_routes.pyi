"""Direct routes of books that the adapter keeps itself. How they work stands at the top of ``book_routes.pyx``."""

from typing import final

from mdring.feed.adapter import AdapterCounts
from mdring.feed.chain import Chain
from mdring.feed.direct import Route
from mdring.feed.local_book import LocalBook
from mdring.feed.stage import Channel

class BookRoute(Route):
    """What routes of such books have in common."""

@final
class CheckedRoute(BookRoute):
    """The deltas of a book that is cut to ``depth`` levels a side after each, and whose best ``levels`` then have the
    ``checksum`` that the message tells (``LocalBook.crc32_of_digits``). One with another checksum is left."""

    price_decimals: int
    size_decimals: int
    def __init__(
        self,
        template: str,
        channel: Channel,
        chain: Chain,
        book: LocalBook,
        counts: AdapterCounts,
        *,
        depth: int,
        levels: int,
        price_decimals: int,
        size_decimals: int,
        unit_ns: int = 1,
    ) -> None:
        """``counts``: each checksum that was right is counted there."""

@final
class QuotedRoute(BookRoute):
    """The deltas of a book of which quotes are made: levels, quotes or both go into the stream. A delta on a book that
    is crossed is left, for the adapter may lose patience."""

    def __init__(
        self,
        template: str,
        channel: Channel,
        chain: Chain,
        book: LocalBook,
        *,
        levels: bool,
        quotes: bool,
        unit_ns: int = 1,
    ) -> None: ...
