"""A book of dicts that does what ``mdring/book/book.h`` promises, in the plainest way: the reference of the tests."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum, auto

import numpy as np
import numpy.typing as npt

from mdring.record import (
    CLEAR,
    STATUS,
    UNDEFINED_PRICE,
    DataType,
    Flags,
    Kind,
    Reason,
    Side,
)
from tests.book.records import BROKEN_STATES


class Phase(Enum):
    """How far a book is from being valid."""

    INVALID = auto()
    CLEARED = auto()
    LOADING = auto()
    VALID = auto()


class ModelBook:
    """One book: two dicts from price to size."""

    def __init__(self) -> None:
        self.phase = Phase.INVALID
        self.levels: dict[Side, dict[int, int]] = {Side.BID: {}, Side.ASK: {}}
        self.seq = 0
        self.joined_seq = 0
        self.venue_id = 0
        self.explanations: list[tuple[int, Reason]] = [(0, Reason.NONE)]
        self.ignored = 0
        self.crossed = 0
        self.is_crossed = False

    def reset(self, phase: Phase, reason: Reason, ordinal: int) -> None:
        """Empty the book."""
        self.phase = phase
        self.levels = {Side.BID: {}, Side.ASK: {}}
        self.is_crossed = False
        self.explanations = [(ordinal, reason)]

    def side(self, side: Side) -> list[tuple[int, int]]:
        """Levels of a side, best first."""
        return sorted(self.levels[side].items(), reverse=side is Side.BID)

    def best(self, side: Side) -> tuple[int, int]:
        """The best level of a side."""
        return (self.side(side) or [(UNDEFINED_PRICE, 0)])[0]

    def crosses(self) -> bool:
        """Whether the bids reach the asks."""
        bids, asks = self.levels[Side.BID], self.levels[Side.ASK]
        return bool(bids and asks) and max(bids) >= min(asks)

    def take(self, side: Side, size: int) -> tuple[int, int, int]:
        """(notional, filled, worst price) of taking ``size`` from a side."""
        notional, filled, worst = 0, 0, UNDEFINED_PRICE
        for price, there in self.side(side):
            taken = min(there, size - filled)
            if not taken:
                break
            notional, filled, worst = notional + price * taken, filled + taken, price
        return notional, filled, worst


class ModelBooks:
    """The books of all instruments, or of those in ``instruments``."""

    def __init__(self, instruments: Iterable[int] | None = None, max_levels: int = 1 << 20) -> None:
        self.wants_all = instruments is None
        self.books = {instrument_id: ModelBook() for instrument_id in instruments or ()}
        self.max_levels = max_levels
        self.venues: dict[int, tuple[int, Reason]] = {}
        self.touched: list[int] = []
        self.ordinal = 0

    def apply(self, batch: npt.NDArray[np.void]) -> list[int]:
        """Apply records one by one; the ids of the changed books."""
        changed: list[int] = []
        for row in batch:
            self.ordinal += 1
            match int(row["kind"]):
                case Kind.LEVEL:
                    self._level(row)
                case Kind.CLEAR:
                    self._clear(row)
                case Kind.STATUS:
                    self._status(row)
            if row["flags"] & Flags.LAST:
                changed += [id_ for id_ in self._end_group() if id_ not in changed]
        return changed

    def reason(self, instrument_id: int) -> Reason:
        """Why a book is invalid."""
        book = self.books[instrument_id]
        if book.phase is Phase.VALID:
            return Reason.NONE
        of_venue = self.venues.get(book.venue_id, (-1, Reason.NONE))
        return max([*book.explanations, of_venue], key=lambda explanation: explanation[0])[1]

    def _book(self, row: np.void) -> ModelBook | None:
        instrument_id = int(row["instrument_id"])
        if self.wants_all and instrument_id:
            self.books.setdefault(instrument_id, ModelBook())
        book = self.books.get(instrument_id)
        if book is not None and 0 < int(row["seq"]) <= book.joined_seq:
            return None
        return book

    def _touch(self, row: np.void, book: ModelBook) -> None:
        book.seq = int(row["seq"])
        if int(row["instrument_id"]) not in self.touched:
            self.touched.append(int(row["instrument_id"]))

    def _level(self, row: np.void) -> None:
        book = self._book(row)
        if book is None:
            return
        if book.phase is Phase.CLEARED and row["flags"] & Flags.SNAPSHOT:
            book.phase = Phase.LOADING
        if book.phase not in (Phase.LOADING, Phase.VALID):
            book.ignored += 1
            return
        self._touch(row, book)
        side, price, size = int(row["side"]), int(row["price"]), int(row["size"])
        if side not in (Side.BID, Side.ASK) or size < 0:
            book.reset(Phase.INVALID, Reason.BAD_MESSAGE, self.ordinal)
            return
        levels = book.levels[Side(side)]
        if size:
            levels[price] = size
        else:
            levels.pop(price, None)
        if len(levels) > self.max_levels:
            book.reset(Phase.INVALID, Reason.BUFFER_FULL, self.ordinal)

    def _clear(self, row: np.void) -> None:
        book = self._book(row)
        if book is None:
            return
        begins = row["flags"] & Flags.SNAPSHOT
        reason = Reason(int(np.array([row]).view(CLEAR)["reason"][0]))
        book.reset(Phase.LOADING if begins else Phase.CLEARED, reason, self.ordinal)
        book.venue_id = int(row["venue_id"])
        self._touch(row, book)

    def _status(self, row: np.void) -> None:
        told = np.array([row]).view(STATUS)[0]
        if told["data_type"] not in (DataType.STATUS, DataType.BOOK) or told["state"] not in BROKEN_STATES:
            return
        if told["reason"] == Reason.NONE:
            return
        explanation = (self.ordinal, Reason(int(told["reason"])))
        if row["instrument_id"] == 0:
            self.venues[int(row["venue_id"])] = explanation
            return
        book = self._book(row)
        if book is not None:
            book.venue_id = int(row["venue_id"])
            book.explanations.append(explanation)

    def _end_group(self) -> list[int]:
        ended, self.touched = self.touched, []
        for instrument_id in ended:
            book = self.books[instrument_id]
            if book.phase is Phase.LOADING:
                book.phase = Phase.VALID
            book.is_crossed = book.phase is Phase.VALID and book.crosses()
            book.crossed += book.is_crossed
        return ended
