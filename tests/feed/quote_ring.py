"""A direct path with one route, of quotes, to a small ring in private memory."""

from __future__ import annotations

import mmap
from typing import Final

import numpy as np

from mdring.feed.chain import Chain
from mdring.feed.direct import DirectPath, DirectRoutes, QuoteRoute
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import RECORD, Flags, offset_of
from mdring.ring._ring import Reader, Words, Writer

SLOTS: Final = 16
_LAYOUT: Final = (0, 4096, RECORD.itemsize, SLOTS, offset_of("flags"), int(Flags.LAST))
_FORM: Final = '{"s":"B","u":<last>,"b":"<bid_price>","B":"<bid_size>","a":"<ask_price>","A":"<ask_size>","x":<any>}'
_POSITION, _WAITING = 0, 1  # words of a sequencer that sleeps


def quote(number: int, padding: int = 0) -> bytes:
    """A message that the route takes if the number has risen. With ``padding`` from 100 on it is longer than any
    control frame."""
    return b'{"s":"B","u":%d,"b":"1.5","B":"2","a":"1.6","A":"3","x":"%b"}' % (number, b"." * padding)


class QuoteRing:
    """The path, and what has come through."""

    def __init__(self) -> None:
        memory = mmap.mmap(-1, 4096 + SLOTS * RECORD.itemsize)
        self.told: list[str] = []
        """What the publisher would have to do."""
        self.emit = Emit(4)
        self._reader = Reader(memory, *_LAYOUT, 0)
        chain = Chain()
        chain.live = True
        routes = DirectRoutes('{"s":"', '"')
        routes.add("B", QuoteRoute(_FORM, Channel("B", 7, 1, -2, -3), chain))
        self.path = DirectPath(
            routes, self.emit, Writer(memory, *_LAYOUT), Words(np.zeros(2, dtype=np.uint64), 0, 2), _POSITION, _WAITING,
            lambda: self.told.append("save"), lambda: self.told.append("refused"),
        )  # fmt: skip
        self.path.save_at = 2**63

    def published(self) -> list[tuple[int, int]]:
        """Number and ``ts_recv`` of the quotes since the last time."""
        out = np.zeros(SLOTS, dtype=RECORD)
        records = out[: self._reader.poll(out)]
        return list(zip(records["venue_seq"].tolist(), records["ts_recv"].tolist(), strict=True))

    def numbers(self) -> list[int]:
        """The numbers alone."""
        return [number for number, _ in self.published()]
