"""The consolidated BBO: the best bid and ask of one canonical symbol over all venues that list it.

Part of the consumer's process: pure logic, no clock; it takes polled batches and the time. ::

    with mdring.attach("demo", instruments=["BTC-USDT"], kinds=[mdring.Kind.BBO, mdring.Kind.STATUS]) as tape:
        consolidated = mdring.ConsolidatedBbo(tape, "BTC-USDT", stale_after_s=5)
        for batch in tape:
            if consolidated.update(batch):
                best = consolidated.best(time.time_ns())
                print(best.bid, best.ask, best.is_crossed)

Prices and sizes of all venues stand on common exponents, the finest among them, so nothing is rounded. Between
venues a bid above another one's ask is normal (an arbitrage) and flagged, not hidden.

A venue's quote drops out at once, and comes back only with a new BBO, when

* a STATUS of the venue or of the instrument says RECONNECTING, DISCONNECTED or CIRCUIT_OPEN;
* a STATUS that concerns BBOs says GAP, RESYNCING, REJECTED or DROPPED: a newer BBO may have been missed;
* ``invalidate`` says so: this consumer lost records;
* its bid is not below its own ask, or (fed from books) its book is invalid.

It also drops out while it is stale, and from HALTED to TRADING.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from enum import Enum
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from mdring.book import Book
from mdring.consumer import Batch, Consumer
from mdring.event import to_float
from mdring.instrument import Instrument
from mdring.record import BBO, STATUS, UNDEFINED_PRICE, DataType, Kind, Reason, State
from mdring.selection import UnknownInstrument

_DOWN_STATES: Final = frozenset({State.RECONNECTING, State.DISCONNECTED, State.CIRCUIT_OPEN})
_DOUBTFUL_STATES: Final = frozenset({State.GAP, State.RESYNCING, State.REJECTED, State.DROPPED})
_BBO_DATA_TYPES: Final = frozenset({DataType.STATUS, DataType.BBO})


class Liveness(Enum):
    """Whether a venue's quote counts, and if not, why."""

    LIVE = "live"
    AWAITING = "awaiting"  # no BBO has come yet
    STALE = "stale"
    DOWN = "down"
    INVALID = "invalid"
    HALTED = "halted"


class VenueQuote(Struct, frozen=True):
    """What one venue says now; prices and sizes are scaled by its own instrument's exponents.

    ``reason`` tells why a quote is DOWN or INVALID. The numbers of a quote that is not LIVE are the last ones known.
    """

    instrument: Instrument
    liveness: Liveness = Liveness.AWAITING
    reason: Reason = Reason.NONE
    bid_price: int = UNDEFINED_PRICE
    bid_size: int = 0
    ask_price: int = UNDEFINED_PRICE
    ask_size: int = 0
    seq: int = 0
    ts_recv: int = 0


class VenueSize(Struct, frozen=True):
    """What one venue has at the best price; ``size`` is on the common exponent."""

    venue: str
    instrument_id: int
    size: int


class BestPrice(Struct, frozen=True):
    """The best price of a side. ``size`` is the sum over ``venues``, which stand by size, largest first."""

    price: int
    size: int
    venues: tuple[VenueSize, ...]
    price_exponent: int
    size_exponent: int

    @property
    def price_decimal(self) -> Decimal:
        """The price, exactly."""
        return Decimal(self.price).scaleb(self.price_exponent)

    @property
    def price_float(self) -> float:
        """The double nearest to the price."""
        return to_float(self.price, self.price_exponent)

    @property
    def size_decimal(self) -> Decimal:
        """The size, exactly."""
        return Decimal(self.size).scaleb(self.size_exponent)

    @property
    def size_float(self) -> float:
        """The double nearest to the size."""
        return to_float(self.size, self.size_exponent)


class Best(Struct, frozen=True):
    """The best bid and ask over all live venues; None where no live venue has that side."""

    bid: BestPrice | None
    ask: BestPrice | None

    @property
    def is_crossed(self) -> bool:
        """Whether one venue bids more than another one asks."""
        return self.bid is not None and self.ask is not None and self.bid.price > self.ask.price

    @property
    def is_locked(self) -> bool:
        """Whether one venue bids what another one asks."""
        return self.bid is not None and self.ask is not None and self.bid.price == self.ask.price


class InstrumentRows(Protocol):
    """What is needed of an instrument table."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Instrument]: ...


class ConsolidatedBbo:
    """The best bid and ask of ``symbol`` over its venues. Feed it either BBO records or books, not both."""

    def __init__(self, source: Consumer | InstrumentRows, symbol: str, *, stale_after_s: float = 10.0) -> None:
        """``source``: the consumer whose batches ``update`` will get, or the instrument table that they refer to.

        A venue's quote is stale ``stale_after_s`` after its newest BBO was received.
        Raises UnknownInstrument if no venue lists the canonical symbol; ValueError.
        """
        if stale_after_s <= 0:
            raise ValueError(f"stale_after_s is {stale_after_s}, but must be above 0")
        self.symbol = symbol
        self._stale_after_ns = int(stale_after_s * 1e9)
        self._source = source
        self._table = self._current_table()
        self._row_count = -1
        self._quotes: dict[int, VenueQuote] = {}
        self._halted: set[int] = set()
        self._price_exponent = self._size_exponent = 0
        # Indexed by instrument id; the last place stands for all ids beyond it, and is never wanted.
        self._is_listed = np.zeros(1, dtype=bool)
        self._refresh()
        if not self._quotes:
            known = ", ".join(sorted({row.canonical_symbol for row in self._table})) or "none yet"
            raise UnknownInstrument(f"no venue lists {symbol!r}; the run has: {known}")

    # ---- feeding ------------------------------------------------------------------------------------------

    def update(self, batch: Batch) -> bool:
        """Take a polled batch of RECORD (or of a view of it); whether it said anything of this symbol.

        Only the newest BBO of each instrument is looked at, and every STATUS, in the order of the batch.
        """
        self._refresh()
        changed = False
        bbos, statuses = batch.view(BBO), batch.view(STATUS)
        for place in self._places(batch):
            if batch["kind"][place] == Kind.BBO:
                changed |= self._on_bbo(bbos[place])
            else:
                changed |= self._on_status(statuses[place])
        return changed

    def update_book(self, book: Book, ts_recv: int) -> None:
        """Take the top of a book as its venue's BBO, received at ``ts_recv``. Other symbols' books are ignored."""
        self._refresh()
        if book.instrument_id not in self._quotes:
            return
        if not book.valid:
            self._take_out([book.instrument_id], Liveness.INVALID, book.invalid_reason)
            return
        self._set_quote(book.instrument_id, *book.best_bid, *book.best_ask, book.seq, ts_recv)

    def invalidate(self) -> None:
        """Records were lost: no quote counts until its venue's next BBO. To be called when ``lost`` has risen."""
        self._take_out(self._quotes, Liveness.INVALID, Reason.NONE)

    def _places(self, batch: Batch) -> npt.NDArray[np.intp]:
        """Where the newest BBO of each listed instrument stands, and each STATUS of it or its venue, in order."""
        kinds, instruments = batch["kind"], batch["instrument_id"]
        is_listed = self._is_listed.take(instruments, mode="clip")
        bbos = np.flatnonzero((kinds == Kind.BBO) & is_listed)
        statuses = np.flatnonzero((kinds == Kind.STATUS) & (is_listed | (instruments == 0)))
        if len(bbos) > 1:
            _, from_the_end = np.unique(instruments[bbos[::-1]], return_index=True)
            bbos = bbos[len(bbos) - 1 - from_the_end]
        return np.sort(np.concatenate((bbos, statuses)))

    def _on_bbo(self, bbo: np.void) -> bool:
        values = (int(bbo[name]) for name in ("bid_price", "bid_size", "ask_price", "ask_size", "seq", "ts_recv"))
        self._set_quote(int(bbo["instrument_id"]), *values)
        return True

    def _set_quote(
        self, instrument_id: int, bid_price: int, bid_size: int, ask_price: int, ask_size: int, seq: int, ts_recv: int
    ) -> None:
        # An undefined ask is below every bid, an undefined bid below every ask.
        crosses_itself = ask_price != UNDEFINED_PRICE and bid_price >= ask_price
        self._quotes[instrument_id] = VenueQuote(
            self._quotes[instrument_id].instrument,
            Liveness.INVALID if crosses_itself else Liveness.LIVE,
            Reason.CROSSED if crosses_itself else Reason.NONE,
            bid_price, bid_size, ask_price, ask_size, seq, ts_recv,
        )  # fmt: skip

    def _on_status(self, status: np.void) -> bool:
        state, reason = int(status["state"]), Reason(int(status["reason"]))
        concerned = self._concerned(int(status["instrument_id"]), int(status["venue_id"]))
        if state in _DOWN_STATES:
            self._take_out(concerned, Liveness.DOWN, reason)
        elif state in _DOUBTFUL_STATES:
            # A venue that refuses one instrument says so with id 0, for the refused one has no id.
            if int(status["data_type"]) not in _BBO_DATA_TYPES or reason is Reason.UNKNOWN_INSTRUMENT:
                return False
            self._take_out(concerned, Liveness.INVALID, reason)
        elif state == State.HALTED:
            self._halted.update(concerned)
        elif state == State.TRADING:
            self._halted.difference_update(concerned)
        else:
            return False
        return bool(concerned)

    def _concerned(self, instrument_id: int, venue_id: int) -> list[int]:
        if instrument_id:
            return [instrument_id]
        return [known for known, quote in self._quotes.items() if quote.instrument.venue_id == venue_id]

    def _take_out(self, instrument_ids: Iterable[int], liveness: Liveness, reason: Reason) -> None:
        for instrument_id in list(instrument_ids):
            quote = self._quotes[instrument_id]
            self._quotes[instrument_id] = structs.replace(quote, liveness=liveness, reason=reason)

    # ---- instruments --------------------------------------------------------------------------------------

    def _current_table(self) -> InstrumentRows:
        return self._source.instruments if isinstance(self._source, Consumer) else self._source

    def _refresh(self) -> None:
        """Follow the table: venues join, an instrument's row is replaced, and ``reattach`` brings another table."""
        table = self._current_table()
        if table is not self._table:
            self._table, self._quotes, self._halted = table, {}, set()
            self._row_count = -1
        if len(table) == self._row_count:
            return
        rows = list(table)
        self._row_count = len(rows)
        # By name: a later row replaces an earlier one, whose exponents no longer sufficed.
        listed = {row.name: row for row in rows if row.canonical_symbol == self.symbol}.values()
        self._quotes = {row.id: self._quotes.get(row.id, VenueQuote(row)) for row in listed}
        self._price_exponent = min((row.price_exponent for row in listed), default=0)
        self._size_exponent = min((row.size_exponent for row in listed), default=0)
        self._is_listed = np.zeros(max(self._quotes, default=0) + 2, dtype=bool)
        self._is_listed[list(self._quotes)] = True

    # ---- reading ------------------------------------------------------------------------------------------

    def best(self, now_ns: int) -> Best:
        """The best bid and ask as of ``now_ns`` (CLOCK_REALTIME, as ``ts_recv``)."""
        live = [quote for quote in self.quotes(now_ns) if quote.liveness is Liveness.LIVE]
        return Best(
            self._best_price(max, [(quote.instrument, quote.bid_price, quote.bid_size) for quote in live]),
            self._best_price(min, [(quote.instrument, quote.ask_price, quote.ask_size) for quote in live]),
        )

    def quotes(self, now_ns: int) -> list[VenueQuote]:
        """What each venue that lists the symbol says as of ``now_ns``, and whether that counts."""
        return [structs.replace(quote, liveness=self._liveness(quote, now_ns)) for quote in self._quotes.values()]

    def _liveness(self, quote: VenueQuote, now_ns: int) -> Liveness:
        if quote.liveness is not Liveness.LIVE:
            return quote.liveness
        if quote.instrument.id in self._halted:
            return Liveness.HALTED
        return Liveness.STALE if now_ns - quote.ts_recv >= self._stale_after_ns else Liveness.LIVE

    def _best_price(
        self, better: Callable[[Iterable[int]], int], offers: list[tuple[Instrument, int, int]]
    ) -> BestPrice | None:
        scaled = [
            (
                price * 10 ** (instrument.price_exponent - self._price_exponent),
                VenueSize(
                    instrument.venue, instrument.id, size * 10 ** (instrument.size_exponent - self._size_exponent)
                ),
            )
            for instrument, price, size in offers
            if price != UNDEFINED_PRICE and size > 0
        ]
        if not scaled:
            return None
        best = better(price for price, _ in scaled)
        venues = sorted((venue for price, venue in scaled if price == best), key=lambda venue: -venue.size)
        size = sum(venue.size for venue in venues)
        return BestPrice(best, size, tuple(venues), self._price_exponent, self._size_exponent)
