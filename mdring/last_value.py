"""Newest values of a run without following its stream: best bid and ask, book, last trade, status.

Runs in any process: it maps the book table, which the book keeper keeps, and can only read. A look costs some
microseconds and disturbs nobody; whoever needs every change attaches to the tape (``consumer.py``). ::

    with mdring.open_run("demo") as run:
        bbo = run.bbo("BTC-USDT")
        if bbo.is_live:
            print(bbo.bid_price_decimal, bbo.ask_price_decimal, "as of", bbo.true_at)
        quotes = run.bbos()  # of all instruments, one structured array
        quotes[quotes["live"]]

Every value says up to which seq of the tape it is the newest (``true_at``), and whether it can be relied on
(``liveness``): it is not LIVE while its venue is not connected, and after that until the next one comes.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mdring.book.table import BookTable
from mdring.consolidated import Liveness
from mdring.event import Bbo, Status, Trade, statuses_of, to_float
from mdring.instrument import Instrument, InstrumentTable
from mdring.record import FINGERPRINT, LAYOUT_VERSION, UNDEFINED_PRICE, Reason, State
from mdring.ring import segment
from mdring.ring.segment import RunState, SegmentKind, SegmentNotFound
from mdring.run_folder import RUNS_DIRECTORY, RunError, RunFolder, RunInfo, RunNotFound, find_run
from mdring.selection import UnknownInstrument

LAST_BBO: Final = np.dtype(
    {
        "names": ["instrument_id", "venue_id", "live", "connection_state", "price_exponent", "size_exponent",
                  "true_at", "seq", "ts_event", "ts_recv", "ts_seq", "bid_price", "bid_size", "ask_price", "ask_size"],
        "formats": ["<u4", "u1", "?", "u1", "i1", "i1",
                    "<u8", "<u8", "<i8", "<i8", "<i8", "<i8", "<i8", "<i8", "<i8"],
        "offsets": [0, 4, 5, 6, 7, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80],
        "itemsize": 88,
    }
)  # fmt: skip
"""A row of ``Run.bbos()``. ``seq`` is that of the BBO, 0 if none has come; ``true_at`` as of a value; prices and sizes
are scaled by the exponents beside them, an empty side has UNDEFINED_PRICE and size 0."""

_CURRENT_NS: Final = 1_000_000_000  # the book keeper may be behind the tape for so long
_BBO_FIELDS: Final = list(Bbo.__struct_fields__[:-1])  # those of a record; the instrument comes last
_TRADE_FIELDS: Final = list(Trade.__struct_fields__[:-1])
_NO_BBO: Final = [*[0] * (len(_BBO_FIELDS) - 4), UNDEFINED_PRICE, 0, UNDEFINED_PRICE, 0]
_DOWN_STATES: Final = (State.RECONNECTING, State.DISCONNECTED, State.CIRCUIT_OPEN)


class _Head(Struct, gc=False):
    """What a row says first, as in ``book/table.py``; but ``seq`` is raised to the position of the whole table."""

    seq: int = 0
    book_seq: int = 0
    book_valid: bool = False
    book_reason: int = 0
    book_crossed: bool = False
    connection_state: int = 0
    connection_reason: int = 0
    trading_state: int = 0
    doubt_seq: int = 0
    doubt_reason: int = 0
    bid_depth: int = 0
    ask_depth: int = 0
    bid_count: int = 0
    ask_count: int = 0


_NO_ROW: Final = _Head()
_HEAD_FIELDS: Final = list(_Head.__struct_fields__)


class AmbiguousInstrument(RunError):
    """Several instruments of the run have such a name; the message lists them as ``venue:instrument``."""


class LastBbo(Bbo, frozen=True, gc=False):
    """The newest BBO of an instrument; with seq 0 and two empty sides if none has come.

    ``true_at``: nothing on the tape up to here is newer. ``reason`` is why it is not LIVE, if a reason was given.
    """

    true_at: int
    liveness: Liveness
    reason: Reason

    @property
    def is_live(self) -> bool:
        """Whether it can be relied on."""
        return self.liveness is Liveness.LIVE


class LastTrade(Trade, frozen=True, gc=False):
    """The newest trade of an instrument. If it is not LIVE there may have been newer ones."""

    true_at: int
    liveness: Liveness
    reason: Reason

    @property
    def is_live(self) -> bool:
        """Whether it is known to be the newest."""
        return self.liveness is Liveness.LIVE


class LastBook(Struct, frozen=True):
    """The best levels of a book, as PRICE_LEVEL rows, best first; ``bid_depth`` and ``ask_depth`` count all there are.

    ``seq`` is that of the last record applied. A book that is not LIVE has no levels, but if only its halted market,
    or the book keeper behind the tape, is the cause.
    """

    instrument: Instrument
    seq: int
    true_at: int
    liveness: Liveness
    reason: Reason
    bids: npt.NDArray[np.void]
    asks: npt.NDArray[np.void]
    bid_depth: int
    ask_depth: int
    is_crossed: bool

    @property
    def is_live(self) -> bool:
        """Whether the levels are the venue's."""
        return self.liveness is Liveness.LIVE

    @property
    def best_bid(self) -> tuple[int, int]:
        """(price, size) of the best bid; (UNDEFINED_PRICE, 0) if there is none."""
        return _best(self.bids)

    @property
    def best_ask(self) -> tuple[int, int]:
        """(price, size) of the best ask; (UNDEFINED_PRICE, 0) if there is none."""
        return _best(self.asks)

    @property
    def bids_float(self) -> npt.NDArray[np.float64]:
        """Prices and sizes of the bids as doubles, shape (levels, 2)."""
        return self._floats(self.bids)

    @property
    def asks_float(self) -> npt.NDArray[np.float64]:
        """Prices and sizes of the asks as doubles, shape (levels, 2)."""
        return self._floats(self.asks)

    def _floats(self, levels: npt.NDArray[np.void]) -> npt.NDArray[np.float64]:
        instrument = self.instrument
        made = [
            (to_float(price, instrument.price_exponent), to_float(size, instrument.size_exponent))
            for price, size in levels.tolist()
        ]
        return np.array(made, dtype=np.float64).reshape(-1, 2)


class LastStatus(Struct, frozen=True):
    """The state of an instrument, and the newest STATUS records of it and of its whole venue (None: none came)."""

    instrument: Instrument
    true_at: int
    liveness: Liveness
    reason: Reason
    connection: State
    """RECONNECTING, CONNECTED, DISCONNECTED or CIRCUIT_OPEN; NONE if unknown."""
    trading: State
    """TRADING or HALTED; NONE if the venue never said."""
    book_valid: bool
    book_reason: Reason
    of_instrument: Status | None
    of_venue: Status | None


def open_run(run: str | None = None, *, directory: str | Path = RUNS_DIRECTORY, wait_s: float = 0.0) -> Run:
    """Look at the newest values of a run. ``run`` may be left out if there is only one; ``wait_s``: for it to appear.

    Raises RunNotFound; RunError if it keeps no books; LayoutMismatch.
    """
    return Run(find_run(run, Path(directory), wait_s))


def _best(levels: npt.NDArray[np.void]) -> tuple[int, int]:
    return (int(levels["price"][0]), int(levels["size"][0])) if len(levels) else (UNDEFINED_PRICE, 0)


class Run:
    """The newest values of a run, made by ``open_run``. Not thread-safe: one per thread.

    Instruments are named ``[venue:]name`` with the venue's own name or the canonical symbol.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        try:
            self._info = folder.read_info()
            self.instruments = InstrumentTable.attach(folder.instruments)
            self._tape = segment.attach(folder.tape, SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT)
        except (FileNotFoundError, SegmentNotFound) as error:
            raise RunNotFound(f"run {folder.name!r} is going up or down just now: {error}") from error
        try:
            self._table = BookTable.attach(folder.books)
        except SegmentNotFound as error:
            raise RunError(f"run {folder.name!r} keeps no books: [books] enabled is false in its config") from error
        self._row = self._table.empty_row()
        self._head = self._row[_HEAD_FIELDS]
        self._bids, self._asks = self._row["bids"][0], self._row["asks"][0]
        self._bbo = self._row["bbo"][_BBO_FIELDS]
        self._trade = self._row["trade"][_TRADE_FIELDS]
        self._named: dict[str, list[Instrument]] = {}
        self._named_count = -1

    # ---- one instrument -----------------------------------------------------------------------------------

    def bbo(self, name: str) -> LastBbo:
        """The best bid and ask that the venue said last. Raises UnknownInstrument, AmbiguousInstrument."""
        instrument, head = self._read(name)
        values: list[Any] = self._bbo.tolist()[0] if head.seq else _NO_BBO
        if values[0] == 0:
            values = _NO_BBO
        liveness, reason = self._liveness(head, values[0])
        bid_price, _, ask_price, _ = values[-4:]
        if liveness is Liveness.LIVE and UNDEFINED_PRICE != ask_price <= bid_price:
            liveness, reason = Liveness.INVALID, Reason.CROSSED
        return LastBbo(*[*values, instrument, head.seq, liveness, reason])

    def last_trade(self, name: str) -> LastTrade | None:
        """The last trade, None if there was none. Raises UnknownInstrument, AmbiguousInstrument."""
        instrument, head = self._read(name)
        if head.seq == 0:
            return None
        values: list[Any] = self._trade.tolist()[0]
        return LastTrade(*[*values, instrument, head.seq, *self._liveness(head, values[0])]) if values[0] else None

    def book(self, name: str, levels: int | None = None) -> LastBook:
        """The best ``levels`` of each side; None: all that the book table has, which are ``self.levels``.

        Raises ValueError if more are asked for; UnknownInstrument, AmbiguousInstrument.
        """
        most = self.levels if levels is None else levels
        if not 0 <= most <= self.levels:
            raise ValueError(
                f"the book table has {self.levels} levels a side, not {most}: configure [books] levels, or join "
                "late for complete books: mdring.attach(..., books=[...])"
            )
        instrument, head = self._read(name)
        bids, asks = self._bids[: min(head.bid_count, most)].copy(), self._asks[: min(head.ask_count, most)].copy()
        return LastBook(
            instrument, head.book_seq, head.seq, *self._book_liveness(head), bids, asks, head.bid_depth, head.ask_depth,
            head.book_crossed,
        )  # fmt: skip

    def status(self, name: str) -> LastStatus:
        """The state of the instrument, its connection and its venue. Raises UnknownInstrument, AmbiguousInstrument."""
        instrument, head = self._read(name)
        liveness, reason = self._state_liveness(head) or (Liveness.LIVE, Reason.NONE)
        return LastStatus(
            instrument,
            head.seq,
            liveness if head.seq else Liveness.AWAITING,
            reason,
            State(head.connection_state),
            State(head.trading_state),
            head.book_valid,
            Reason(head.book_reason),
            self._status("status") if head.seq else None,
            self._status("venue_status") if head.seq else None,
        )

    def _status(self, which: str) -> Status | None:
        record = self._row[which]
        return statuses_of(record, self.instruments)[0] if record["seq"][0] else None

    def _read(self, name: str) -> tuple[Instrument, _Head]:
        """Copy an instrument's row; its head then says up to which seq the row is the newest."""
        instrument = self.instrument(name)
        position = self._table.position  # before the row: then nothing up to it is newer than the row
        if not self._table.rows.read(instrument.id, self._row):
            return instrument, _NO_ROW
        head = _Head(*self._head.tolist()[0])
        head.seq = max(position, head.seq)
        return instrument, head

    # ---- whether it counts --------------------------------------------------------------------------------

    def is_current(self) -> bool:
        """Whether the values are those of the tape now: the run goes on, and the book keeper keeps up.

        A keeper that is behind for a second, be it dead, stopped or starved, makes every value STALE.
        """
        if self._tape.state is not RunState.OPEN:
            return False
        return self.lag == 0 or time.monotonic_ns() - self._table.current_ns < _CURRENT_NS

    def _state_liveness(self, head: _Head) -> tuple[Liveness, Reason] | None:
        """Why nothing of an instrument can be live; None if it can."""
        if not self.is_current():
            return Liveness.STALE, Reason.NONE
        if head.connection_state in _DOWN_STATES:
            return Liveness.DOWN, Reason(head.connection_reason)
        if head.trading_state == State.HALTED:
            return Liveness.HALTED, Reason.NONE
        return None

    def _liveness(self, head: _Head, seq: int) -> tuple[Liveness, Reason]:
        """Of a BBO or trade, by its seq (0: there is none)."""
        if seq == 0:
            return Liveness.AWAITING, Reason.NONE
        if cause := self._state_liveness(head):
            return cause
        if seq < head.doubt_seq:
            return Liveness.INVALID, Reason(head.doubt_reason)
        return Liveness.LIVE, Reason.NONE

    def _book_liveness(self, head: _Head) -> tuple[Liveness, Reason]:
        if not head.book_valid and head.book_seq == 0 and head.book_reason == Reason.NONE:
            return Liveness.AWAITING, Reason.NONE
        if cause := self._state_liveness(head):
            return cause
        if not head.book_valid:
            return Liveness.INVALID, Reason(head.book_reason)
        return (Liveness.INVALID, Reason.CROSSED) if head.book_crossed else (Liveness.LIVE, Reason.NONE)

    # ---- all instruments ----------------------------------------------------------------------------------

    def bbos(self) -> npt.NDArray[np.void]:
        """The newest BBO of every instrument of which something was ever said, by id; an array of LAST_BBO.

        Each row is an instrument's as of its own ``true_at``. An instrument that replaced another one of the same
        name stands beside it. ``live`` follows the same rules as the liveness of ``bbo``.
        """
        position = self._table.position
        heads = self._table.read_heads()
        bbos, ids, instruments = heads["bbo"], heads["instrument_id"], self.instruments.columns
        made = np.zeros(len(heads), dtype=LAST_BBO)
        for name in ("instrument_id", "venue_id", "connection_state"):
            made[name] = heads[name]
        for name in ("seq", "ts_event", "ts_recv", "ts_seq", "bid_price", "bid_size", "ask_price", "ask_size"):
            made[name] = bbos[name]
        for name in ("price_exponent", "size_exponent"):
            made[name] = instruments[name][ids]
        made["true_at"] = np.maximum(position, heads["seq"])
        is_none = made["seq"] == 0
        made["bid_price"][is_none] = made["ask_price"][is_none] = UNDEFINED_PRICE
        if self.is_current():
            made["live"] = (
                ~is_none
                & (made["seq"] > heads["doubt_seq"])
                & ~np.isin(heads["connection_state"], _DOWN_STATES)
                & (heads["trading_state"] != State.HALTED)
                & ((made["ask_price"] == UNDEFINED_PRICE) | (made["bid_price"] < made["ask_price"]))
            )
        return made

    def instrument(self, name: str) -> Instrument:
        """The instrument called ``[venue:]name``; of rows that replaced one another the newest.

        Raises UnknownInstrument, AmbiguousInstrument.
        """
        if len(self.instruments) != self._named_count:
            self._learn_names()
        found = self._named.get(name, ())
        if len(found) == 1:
            return found[0]
        if not found:
            known = ", ".join(sorted({row.canonical_symbol for row in self.instruments})) or "none yet"
            raise UnknownInstrument(f"run {self.name!r} has no instrument {name!r}; it has: {known}")
        choices = ", ".join(sorted(row.name for row in found))
        raise AmbiguousInstrument(f"run {self.name!r} has several instruments {name!r}; name one of: {choices}")

    def _learn_names(self) -> None:
        rows = {row.name: row for row in self.instruments}.values()
        self._named_count = len(self.instruments)
        self._named = {}
        for row in rows:
            names = {row.instrument, row.canonical_symbol, row.name, f"{row.venue}:{row.canonical_symbol}"}
            for name in names:
                self._named.setdefault(name, []).append(row)

    # ---- where it stands ----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The run's name."""
        return self._folder.name

    @property
    def info(self) -> RunInfo:
        """What the run says of itself."""
        return self._info

    @property
    def levels(self) -> int:
        """Levels a side that ``book`` has at most."""
        return self._table.levels

    @property
    def position(self) -> int:
        """All values contain what the tape says up to this seq."""
        return self._table.position

    @property
    def lag(self) -> int:
        """Records on the tape that the values do not contain yet."""
        position = self._table.position
        return max(0, self._tape.cursor - position)

    def close(self) -> None:
        """Let the segments go."""
        for mapped in (self._tape, self._table.segment, self.instruments.segment):
            mapped.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
