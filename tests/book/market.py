"""A tape of random markets that repeats itself, and what a keeper must know at any seq of it.

One cycle begins with the venues' connections and a snapshot of every book, and has at least one record of each kind
for each instrument, so what holds at a seq follows from the last two cycles alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import numpy as np
import numpy.typing as npt

from mdring.book import BookSet
from mdring.record import BBO, RECORD, STATUS, TRADE, DataType, Flags, Kind, Reason, Side, State
from tests.book.records import Record, ask, batch, bid, clear, rows, status

Records = npt.NDArray[np.void]

CONNECTION_STATES = (State.RECONNECTING, State.CONNECTED, State.DISCONNECTED, State.CIRCUIT_OPEN)
WHOLE_VENUE = (Reason.STARTED, Reason.WORKER_RESTART, Reason.SHUTDOWN)


class Market:
    """``instruments`` instruments, odd ids at venue 1 (one connection), even ones at venue 2 (two connections)."""

    def __init__(
        self, seed: int, instruments: int = 8, length: int = 6000, levels: int = 12, deep: dict[int, int] | None = None
    ) -> None:
        """About ``length`` records a cycle, books of about ``levels`` a side, or as ``deep`` says by instrument."""
        self.ids = range(1, instruments + 1)
        self._draw = Random(seed)
        self._depth = dict.fromkeys(self.ids, levels) | (deep or {})
        self._books: dict[int, dict[Side, dict[int, int]]] = {}
        self._groups: list[list[Record]] = []
        self._make(length)
        self.cycle = batch(record for group in self._groups for record in group)
        self.cycle["ts_event"] = np.arange(len(self.cycle))
        self.cycle["channel_seq"] = np.arange(len(self.cycle))  # nobody looks at it: makes the records differ
        self.ends: list[int] = (np.flatnonzero(self.cycle["flags"] & Flags.LAST) + 1).tolist()
        """Lengths of all prefixes of the cycle that end with an event group."""

    def __len__(self) -> int:
        return len(self.cycle)

    def records(self, first: int, last: int) -> Records:
        """The tape from seq ``first`` to ``last``."""
        seqs = np.arange(first, last + 1, dtype=np.uint64)
        made: Records = self.cycle[((seqs - 1) % len(self)).astype(np.int64)]
        made["seq"] = seqs
        return made

    def recent(self, seq: int) -> Records:
        """All of the tape up to ``seq`` that matters then."""
        return self.records(max(0, (seq - 1) // len(self) - 1) * len(self) + 1, seq)

    # ---- making it ----------------------------------------------------------------------------------------

    def _add(self, *records: Record) -> None:
        records[-1]["flags"] |= np.uint8(Flags.LAST)
        self._groups.append(list(records))

    @staticmethod
    def _venue(instrument_id: int) -> int:
        return 2 - instrument_id % 2

    def _make(self, length: int) -> None:
        for venue_id in (1, 2):
            self._add(status(State.RECONNECTING, Reason.STARTED, Flags.NONE, venue_id=venue_id))
        self._connect(1)
        self._connect(2)
        for instrument_id in self.ids:
            self._snapshot(instrument_id)
            self._quote(instrument_id)
            self._trade(instrument_id)
            self._add(status(State.TRADING, Reason.NONE, Flags.NONE, instrument_id, self._venue(instrument_id)))
        choices = [self._deltas] * 70 + [self._quote] * 12 + [self._trade] * 8 + [self._instrument_status] * 3
        choices += [self._lose_book] * 3 + [self._snapshot] * 2
        while sum(map(len, self._groups)) < length:
            if self._draw.random() < 0.01:
                self._venue_event(self._draw.choice((1, 2)))
            self._draw.choice(choices)(self._draw.choice(self.ids))

    def _instruments_of(self, venue_id: int) -> list[int]:
        return [instrument_id for instrument_id in self.ids if self._venue(instrument_id) == venue_id]

    def _connect(self, venue_id: int) -> None:
        if venue_id == 2:  # instruments of the first connection, then of the second
            for half in (0, 1):
                ids = [i for i in self._instruments_of(2) if i // 2 % 2 == half]
                if ids:
                    self._add(*(status(State.CONNECTED, Reason.NONE, Flags.NONE, i, 2) for i in ids))
        self._add(status(State.CONNECTED, Reason.NONE, Flags.NONE, venue_id=venue_id))

    def _venue_event(self, venue_id: int) -> None:
        kind = self._draw.randrange(4)
        if kind == 0:
            self._add(status(State.DROPPED, Reason.RING_FULL, Flags.NONE, venue_id=venue_id))
            return
        if kind == 1:
            reason = self._draw.choice((Reason.BAD_MESSAGE, Reason.UNKNOWN_INSTRUMENT))
            self._add(status(State.REJECTED, reason, Flags.NONE, venue_id=venue_id))
            return
        reason = self._draw.choice((Reason.STALE, Reason.CLOSED_BY_VENUE, Reason.WORKER_RESTART))
        lost = self._instruments_of(venue_id)
        if venue_id == 2 and reason is not Reason.WORKER_RESTART:
            half = self._draw.randrange(2)
            lost = [i for i in lost if i // 2 % 2 == half]
            for i in lost:
                self._add(status(State.DISCONNECTED, reason, Flags.NONE, i, 2))
        self._add(status(State.DISCONNECTED, reason, Flags.NONE, venue_id=venue_id))
        for instrument_id in lost:
            self._books.pop(instrument_id, None)
            self._add(clear(reason, instrument_id=instrument_id, venue_id=venue_id))
            if self._draw.random() < 0.3:
                self._deltas(instrument_id)
        self._add(status(State.RECONNECTING, self._draw.choice((reason, Reason.CONNECT_FAILED)), venue_id=venue_id))
        self._connect(venue_id)
        for instrument_id in lost:
            if self._draw.random() < 0.7:
                self._snapshot(instrument_id)

    def _lose_book(self, instrument_id: int) -> None:
        venue_id = self._venue(instrument_id)
        self._books.pop(instrument_id, None)
        self._add(
            status(State.GAP, Reason.SEQUENCE_GAP, Flags.NONE, instrument_id, venue_id, DataType.BOOK),
            clear(self._draw.choice((Reason.SEQUENCE_GAP, Reason.CHECKSUM)), Flags.NONE, instrument_id, venue_id),
        )

    def _instrument_status(self, instrument_id: int) -> None:
        state, reason, data_type = self._draw.choice((
            (State.RESYNCING, Reason.SNAPSHOT_FAILED, DataType.BOOK),
            (State.REJECTED, Reason.BAD_MESSAGE, DataType.BBO),
            (State.REJECTED, Reason.BAD_MESSAGE, DataType.BOOK),
            (State.HALTED, Reason.NONE, DataType.STATUS),
            (State.TRADING, Reason.NONE, DataType.STATUS),
            (State.GAP, Reason.SEQUENCE_GAP, DataType.TRADE),
        ))  # fmt: skip
        self._add(status(state, reason, Flags.NONE, instrument_id, self._venue(instrument_id), data_type))

    def _snapshot(self, instrument_id: int) -> None:
        depth, draw = self._depth[instrument_id], self._draw
        sides = {
            Side.BID: {10_000 - 2 * i - draw.randrange(2): draw.randrange(1, 999) for i in range(depth)},
            Side.ASK: {10_001 + 2 * i + draw.randrange(2): draw.randrange(1, 999) for i in range(depth)},
        }
        self._books[instrument_id] = sides
        made = [clear(Reason.SNAPSHOT, Flags.SNAPSHOT, instrument_id, self._venue(instrument_id))]
        made += [bid(price, size, Flags.SNAPSHOT, instrument_id) for price, size in sides[Side.BID].items()]
        made += [ask(price, size, Flags.SNAPSHOT, instrument_id) for price, size in sides[Side.ASK].items()]
        self._venue_of(made, instrument_id)
        self._add(*made)

    def _venue_of(self, records: list[Record], instrument_id: int) -> None:
        for record in records:
            record["venue_id"] = self._venue(instrument_id)

    def _deltas(self, instrument_id: int) -> None:
        """1 to 9 changes; of a book that is invalid, too, where they must be ignored."""
        draw, made = self._draw, []
        sides = self._books.get(instrument_id)
        for _ in range(draw.randrange(1, 10)):
            side, make = draw.choice(((Side.BID, bid), (Side.ASK, ask)))
            rank = draw.randrange(self._depth[instrument_id] * 2)
            price = 10_000 - rank if side is Side.BID else 10_001 + rank
            if draw.random() < 0.01:
                price = 20_001 - price  # crosses
            size = draw.choice((0, draw.randrange(1, 999)))
            if sides is not None:
                sides[side].pop(price, None)
                if size:
                    sides[side][price] = size
            made.append(make(price, size, Flags.NONE, instrument_id))
        self._venue_of(made, instrument_id)
        self._add(*made)

    def _quote(self, instrument_id: int) -> None:
        record = np.zeros(1, dtype=BBO)
        record["kind"], record["instrument_id"] = Kind.BBO, instrument_id
        record["bid_price"], record["ask_price"] = (
            self._draw.randrange(9000, 10_000),
            self._draw.randrange(10_000, 11_000),
        )
        record["bid_size"] = record["ask_size"] = self._draw.randrange(1, 999)
        self._venue_of([record], instrument_id)
        self._add(record)

    def _trade(self, instrument_id: int) -> None:
        record = np.zeros(1, dtype=TRADE)
        record["kind"], record["instrument_id"] = Kind.TRADE, instrument_id
        record["price"], record["size"] = self._draw.randrange(9000, 11_000), self._draw.randrange(1, 999)
        self._venue_of([record], instrument_id)
        self._add(record)


@dataclass
class ModelConnection:
    """What must be known of an instrument's connection, in the plainest way."""

    own: tuple[int, int] | None = None
    of_venue: tuple[int, int] = (0, 0)
    doubt: tuple[int, int] = (0, 0)
    trading_state: int = 0

    @property
    def state(self) -> tuple[int, int]:
        """State and reason."""
        return self.of_venue if self.own is None else self.own

    def take(self, told: np.void) -> None:
        """A STATUS of the instrument, or of its venue."""
        state, reason, seq = int(told["state"]), int(told["reason"]), int(told["seq"])
        of_venue = told["instrument_id"] == 0
        if state in CONNECTION_STATES and told["data_type"] == DataType.STATUS:
            if of_venue and reason in WHOLE_VENUE:
                self.own = None
            if not of_venue:
                self.own = (state, reason)
            governs = not of_venue or self.own is None
            if of_venue:
                self.of_venue = (state, reason)
            if governs and state != State.CONNECTED:
                self.doubt = (seq, reason)
        elif state in (State.TRADING, State.HALTED):
            self.trading_state = state
        elif (
            state in (State.GAP, State.RESYNCING, State.REJECTED, State.DROPPED)
            and told["data_type"] in (DataType.STATUS, DataType.BBO)
            and reason != Reason.UNKNOWN_INSTRUMENT
        ):
            self.doubt = (seq, reason)


@dataclass
class Truth:
    """What holds at one seq: applied record by record, forwards only."""

    books: BookSet = field(default_factory=BookSet)
    newest: dict[tuple[int, int], bytes] = field(default_factory=dict)  # by kind, and by instrument or minus venue
    connections: dict[int, ModelConnection] = field(default_factory=dict)
    venues: dict[int, tuple[int, int]] = field(default_factory=dict)

    def apply(self, records: Records) -> Truth:
        """Take these records in."""
        self.books.apply(records)
        for index, record in enumerate(records):
            kind, instrument_id, venue_id = int(record["kind"]), int(record["instrument_id"]), int(record["venue_id"])
            if instrument_id and instrument_id not in self.connections:
                # all that comes of it is newer than whatever made its venue doubtful
                self.connections[instrument_id] = ModelConnection(of_venue=self.venues.get(venue_id, (0, 0)))
            if kind in (Kind.LEVEL, Kind.CLEAR):
                continue
            self.newest[kind, instrument_id or -venue_id] = record.tobytes()
            if kind == Kind.STATUS:
                self._take_status(records[index : index + 1].view(STATUS)[0], instrument_id, venue_id)
        return self

    def _take_status(self, told: np.void, instrument_id: int, venue_id: int) -> None:
        if instrument_id:
            self.connections[instrument_id].take(told)
            return
        for id_, connection in self.connections.items():
            if 2 - id_ % 2 == venue_id:
                connection.take(told)
        if told["state"] in CONNECTION_STATES:
            self.venues[venue_id] = (int(told["state"]), int(told["reason"]))

    def row(self, instrument_id: int, levels: int) -> dict[str, object]:
        """What an instrument's row must say."""
        book, connection = self.books[instrument_id], self.connections[instrument_id]
        venue_id, none = 2 - instrument_id % 2, bytes(RECORD.itemsize)
        return {
            "book_valid": book.valid,
            "book_reason": int(book.invalid_reason),
            "book_crossed": book.is_crossed,
            "book_seq": book.seq,
            "depth": (book.depth(Side.BID), book.depth(Side.ASK)),
            "bids": rows(book.bids(levels)),
            "asks": rows(book.asks(levels)),
            "bbo": self.newest.get((Kind.BBO, instrument_id), none),
            "trade": self.newest.get((Kind.TRADE, instrument_id), none),
            "status": self.newest.get((Kind.STATUS, instrument_id), none),
            "venue_status": self.newest.get((Kind.STATUS, -venue_id), none),
            "connection": connection.state,
            "doubt": connection.doubt,
            "trading_state": connection.trading_state,
        }


def told_by(row: np.void) -> dict[str, object]:
    """What a row of the book table says, in the words of ``Truth.row``."""
    return {
        "book_valid": bool(row["book_valid"]),
        "book_reason": int(row["book_reason"]),
        "book_crossed": bool(row["book_crossed"]),
        "book_seq": int(row["book_seq"]),
        "depth": (int(row["bid_depth"]), int(row["ask_depth"])),
        "bids": rows(row["bids"][: row["bid_count"]]),
        "asks": rows(row["asks"][: row["ask_count"]]),
        "bbo": row["bbo"].tobytes(),
        "trade": row["trade"].tobytes(),
        "status": row["status"].tobytes(),
        "venue_status": row["venue_status"].tobytes(),
        "connection": (int(row["connection_state"]), int(row["connection_reason"])),
        "doubt": (int(row["doubt_seq"]), int(row["doubt_reason"])),
        "trading_state": int(row["trading_state"]),
    }


def book_of(books: BookSet, instrument_id: int) -> tuple[object, ...]:
    """All that a book is, to be compared."""
    book = books[instrument_id]
    snapshot = book.snapshot()
    return rows(snapshot.bids), rows(snapshot.asks), book.seq, book.valid, book.invalid_reason, book.is_crossed
