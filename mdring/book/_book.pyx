# cython: language_level=3, boundscheck=False, wraparound=False
"""The native L2 books: apply a polled batch of the tape to the books of many instruments, and read them.

Runs in whichever process wants books: a consumer's, the book keeper's. The algorithm stands in ``book.h``
(what a record does to a book) and ``side.h`` (how a side keeps its levels)::

    books = BookSet()
    while True:
        count = reader.poll(batch)
        if books.apply(batch, count):
            for instrument_id in books.changed:
                book = books[instrument_id]
                if book.valid:
                    price, size = book.best_bid

Use one BookSet from one thread. ``apply`` releases the GIL, so other threads run meanwhile; if one of them
touches the set or one of its books during the call it gets a RuntimeError, never a half-applied book.
"""

from collections import namedtuple

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT64_MAX
from libc.string cimport memset

import numpy as np

from mdring.record import (
    CLEAR,
    RECORD,
    RECORD_SIZE,
    STATUS,
    UNDEFINED_PRICE,
    DataType,
    Flags,
    Kind,
    Reason,
    Side,
    State,
    offset_of,
)

PRICE_LEVEL = np.dtype([("price", "<i8"), ("size", "<i8")])
Fill = namedtuple("Fill", ["notional", "filled", "worst_price"])
Snapshot = namedtuple("Snapshot", ["bids", "asks", "seq", "valid", "reason"])

# by the byte in a record; a reason that this version does not know is NONE
cdef tuple _REASONS = tuple({int(reason): reason for reason in Reason}.get(i, Reason.NONE) for i in range(256))
cdef object _NO_REASON = Reason.NONE
cdef object _empty = np.empty
cdef object _UNDEFINED = (UNDEFINED_PRICE, 0)
cdef object _EXPLAINING_STATES = (
    State.RECONNECTING,
    State.DISCONNECTED,
    State.CIRCUIT_OPEN,
    State.GAP,
    State.RESYNCING,
    State.REJECTED,
    State.DROPPED,
)
cdef mdring_layout _LAYOUT = mdring_layout(
    record_size=RECORD_SIZE,
    seq=offset_of("seq"),
    instrument_id=offset_of("instrument_id"),
    kind=offset_of("kind"),
    flags=offset_of("flags"),
    side=offset_of("side"),
    venue_id=offset_of("venue_id"),
    price=offset_of("price"),
    size=offset_of("size"),
    clear_reason=offset_of("reason", CLEAR),
    status_state=offset_of("state", STATUS),
    status_reason=offset_of("reason", STATUS),
    status_data_type=offset_of("data_type", STATUS),
    kind_level=int(Kind.LEVEL),
    kind_clear=int(Kind.CLEAR),
    kind_status=int(Kind.STATUS),
    flag_last=int(Flags.LAST),
    flag_snapshot=int(Flags.SNAPSHOT),
    side_bid=int(Side.BID),
    side_ask=int(Side.ASK),
    data_type_all=int(DataType.STATUS),
    data_type_book=int(DataType.BOOK),
    reason_none=int(Reason.NONE),
    reason_bad_message=int(Reason.BAD_MESSAGE),
    reason_buffer_full=int(Reason.BUFFER_FULL),
    explaining_states=sum(1 << int(state) for state in _EXPLAINING_STATES),
)


cdef int _side_index(object side) except -1:
    if side == Side.BID:
        return MDRING_BIDS
    if side == Side.ASK:
        return MDRING_ASKS
    raise ValueError(f"a level rests on Side.BID or Side.ASK, not on {side!r}")


cdef object _wide_int(mdring_wide value):
    return (<object>mdring_wide_high(value) << 64) | mdring_wide_low(value)


cdef int64_t _limit(object levels) except -1:
    if levels is None:
        return INT64_MAX
    if levels < 0:
        raise ValueError(f"number of levels is negative: {levels}")
    return levels


cdef int _check_order(const mdring_level *levels, int64_t count, int64_t flip) except -1:
    cdef int64_t i
    for i in range(count):
        if levels[i].size <= 0:
            raise ValueError(f"level {i} has size {levels[i].size}")
        if i > 0 and (levels[i].price ^ flip) >= (levels[i - 1].price ^ flip):
            raise ValueError(f"level {i} is not worse than the one before it")
    return 0


cdef class BookSet:
    """The books of some or all instruments, changed by batches of records."""

    def __cinit__(self, instruments=None, *, int64_t max_levels=1 << 20, int64_t max_instruments=1 << 20):
        memset(&self.books, 0, sizeof(self.books))
        if max_levels < 1 or not 1 <= max_instruments <= 1 << 32:
            raise ValueError("max_levels and max_instruments must be positive, ids have 32 bits")
        self.books.layout = _LAYOUT
        self.books.max_levels = max_levels
        self.books.max_instruments = max_instruments
        self.books.wants_all = instruments is None
        self.books.group = 1
        self.applying = False
        for instrument_id in instruments or ():
            self.add(instrument_id)

    def __dealloc__(self):
        mdring_books_destroy(&self.books)

    cdef int check_idle(self) except -1:
        # exact: the flag changes only while its thread holds the GIL, as the caller of this one does
        if self.applying:
            raise RuntimeError("the books are being changed by another thread")
        return 0

    cdef mdring_book *find(self, object instrument_id) except NULL:
        self.check_idle()
        cdef mdring_book *book = NULL
        if not 0 < instrument_id < self.books.max_instruments:
            raise KeyError(instrument_id)
        if self.books.wants_all:
            book = mdring_books_add(&self.books, instrument_id)
            if book == NULL:
                raise MemoryError
        else:
            book = mdring_books_get(&self.books, instrument_id)
            if book == NULL:
                raise KeyError(instrument_id)
        return book

    def add(self, instrument_id):
        """Have a book of one more instrument, invalid until its next snapshot; nothing happens if there is one."""
        self.check_idle()
        if not 0 < instrument_id < self.books.max_instruments:
            raise ValueError(f"instrument id {instrument_id} is not in 1..{self.books.max_instruments - 1}")
        if mdring_books_add(&self.books, instrument_id) == NULL:
            raise MemoryError

    def apply(self, batch, int64_t count=-1):
        """Apply the first ``count`` records of a batch (all if negative); returns how many books changed.

        Raises MemoryError (the books concerned are invalid then), or ValueError for an id that is too large.
        """
        cdef Py_buffer view
        PyObject_GetBuffer(batch, &view, PyBUF_SIMPLE)
        try:
            if view.itemsize != self.books.layout.record_size:
                raise TypeError(f"an item has {view.itemsize} bytes, a record {self.books.layout.record_size}")
            if count < 0:
                count = view.len // view.itemsize
            elif count > view.len // view.itemsize:
                raise ValueError(f"{count} records of a batch of {view.len // view.itemsize}")
            self.apply_records(<const uint8_t *>view.buf, count)
        finally:
            PyBuffer_Release(&view)
        return self.books.changed_count

    cdef int apply_records(self, const uint8_t *records, int64_t count) except -1:
        """``apply``, of memory that holds so many records."""
        self.check_idle()
        self.applying = True
        with nogil:
            mdring_books_apply(&self.books, records, count)
        self.applying = False
        if self.books.out_of_memory:
            self.books.out_of_memory = False
            raise MemoryError("a book was invalidated, or an instrument left out, for want of memory")
        if self.books.id_out_of_range:
            self.books.id_out_of_range = False
            raise ValueError(f"a record names an instrument id not below {self.books.max_instruments}")
        return 0

    @property
    def changed(self):
        """Ids of the books whose event groups ended in the last batch, each once."""
        self.check_idle()
        return [self.books.changed[i] for i in range(self.books.changed_count)]

    @property
    def in_group(self):
        """Whether the last batch ended inside an event group that touches a book."""
        return self.books.touched_count > 0

    def invalidate(self, reason, instrument_id=None):
        """Empty a book, or all: records were lost, and no later one makes up for them but a snapshot."""
        cdef uint8_t why = int(reason)
        cdef int64_t i
        cdef mdring_book *book
        if instrument_id is not None:
            mdring_book_invalidate(&self.books, self.find(instrument_id), why)
            return
        self.check_idle()
        for i in range(self.books.capacity):
            book = mdring_books_get(&self.books, i)
            if book != NULL:
                mdring_book_invalidate(&self.books, book, why)

    def load(self, instrument_id, bids, asks, uint64_t seq, bint valid, reason):
        """Set a book to what ``Book.snapshot`` gave; records up to ``seq`` are skipped from now on."""
        cdef Py_buffer bid_view, ask_view
        cdef mdring_book *book = self.find(instrument_id)
        cdef uint8_t why = int(reason)
        cdef bint loaded
        for levels in (bids, asks):
            if levels.dtype != PRICE_LEVEL:
                raise TypeError(f"levels have the dtype {levels.dtype}, not PRICE_LEVEL")
            if len(levels) > self.books.max_levels:
                raise ValueError(f"{len(levels)} levels, at most {self.books.max_levels} are allowed")
            if len(levels) and not valid:
                raise ValueError("an invalid book has no levels")
        PyObject_GetBuffer(bids, &bid_view, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(asks, &ask_view, PyBUF_SIMPLE)
            try:
                _check_order(<mdring_level *>bid_view.buf, len(bids), book.sides[MDRING_BIDS].flip)
                _check_order(<mdring_level *>ask_view.buf, len(asks), book.sides[MDRING_ASKS].flip)
                loaded = mdring_book_load(
                    &self.books, book, <mdring_level *>bid_view.buf, len(bids),
                    <mdring_level *>ask_view.buf, len(asks), seq, valid, why,
                )
            finally:
                PyBuffer_Release(&ask_view)
        finally:
            PyBuffer_Release(&bid_view)
        if not loaded:
            raise MemoryError("the book is invalid for want of memory")

    def __getitem__(self, instrument_id):
        """The book of an instrument; it stays the same book whatever is applied. Raises KeyError."""
        cdef Book view = Book.__new__(Book)
        view.book = self.find(instrument_id)
        view.books = self
        return view

    def __contains__(self, instrument_id, /):
        if not 0 < instrument_id < self.books.capacity:
            return False
        return mdring_books_get(&self.books, instrument_id) != NULL

    def __len__(self):
        return self.books.book_count

    def __iter__(self):
        self.check_idle()
        cdef int64_t i
        return iter([i for i in range(self.books.capacity) if mdring_books_get(&self.books, i) != NULL])


cdef class Book:
    """A view of one instrument's book."""

    def __init__(self):
        raise TypeError("a Book is a view into a BookSet: take it by books[instrument_id]")

    cdef const mdring_book *read(self) except NULL:
        self.books.check_idle()
        return self.book

    @property
    def instrument_id(self):
        """Id of the instrument."""
        return self.book.instrument_id

    @property
    def valid(self):
        """Whether the levels are the venue's, as of ``seq``."""
        return self.read().state == MDRING_VALID

    @property
    def invalid_reason(self):
        """Why the book is invalid; NONE if it is valid, or if nothing was ever said of it."""
        if self.read().state == MDRING_VALID:
            return _NO_REASON
        return _REASONS[mdring_book_explanation(&self.books.books, self.book).reason]

    @property
    def seq(self):
        """Seq of the last record that was applied to this book; 0 if none."""
        return self.read().seq

    @property
    def ignored(self):
        """LEVEL records that came while the book was invalid."""
        return self.read().ignored

    @property
    def crossed(self):
        """Event groups that left the book crossed."""
        return self.read().crossed

    @property
    def is_crossed(self):
        """Whether the last event group left the best bid at or above the best ask."""
        return self.read().is_crossed

    cdef object best(self, int which):
        cdef const mdring_side *side = &self.read().sides[which]
        if side.level_count == 0:
            return _UNDEFINED
        return mdring_best_key(side) ^ side.flip, mdring_best_size(side)

    @property
    def best_bid(self):
        """(price, size) of the best bid; (UNDEFINED_PRICE, 0) if there is none."""
        return self.best(MDRING_BIDS)

    @property
    def best_ask(self):
        """(price, size) of the best ask; (UNDEFINED_PRICE, 0) if there is none."""
        return self.best(MDRING_ASKS)

    @property
    def mid_doubled(self):
        """Best bid plus best ask: exactly twice the mid. None if a side is empty."""
        bid_price, bid_size = self.best(MDRING_BIDS)
        ask_price, ask_size = self.best(MDRING_ASKS)
        return bid_price + ask_price if bid_size and ask_size else None

    @property
    def mid_float(self):
        """The mid as the nearest float. None if a side is empty."""
        doubled = self.mid_doubled
        return None if doubled is None else doubled / 2

    @property
    def microprice(self):
        """The mid weighted by the opposite sizes, as the nearest float. None if a side is empty."""
        bid_price, bid_size = self.best(MDRING_BIDS)
        ask_price, ask_size = self.best(MDRING_ASKS)
        if not bid_size or not ask_size:
            return None
        return (bid_price * ask_size + ask_price * bid_size) / (bid_size + ask_size)

    def imbalance(self, levels=1):
        """(bid size - ask size) / (their sum) over the best levels of each side; None if both are empty."""
        cdef const mdring_book *book = self.read()
        cdef int64_t limit = _limit(levels)
        bid_size = _wide_int(mdring_sum_sizes(&book.sides[MDRING_BIDS], limit))
        ask_size = _wide_int(mdring_sum_sizes(&book.sides[MDRING_ASKS], limit))
        total = bid_size + ask_size
        return (bid_size - ask_size) / total if total else None

    cdef object copy_levels(self, int which, object levels, object out):
        cdef const mdring_side *side = &self.read().sides[which]
        cdef int64_t limit = min(_limit(levels), side.level_count)
        cdef Py_buffer view
        if out is None:
            out = _empty(limit, PRICE_LEVEL)
        elif out.dtype is not PRICE_LEVEL and out.dtype != PRICE_LEVEL:
            raise TypeError(f"out has the dtype {out.dtype}, not PRICE_LEVEL")
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            limit = min(limit, <int64_t>(view.len // <Py_ssize_t>sizeof(mdring_level)))
            mdring_copy_levels(side, limit, <mdring_level *>view.buf)
        finally:
            PyBuffer_Release(&view)
        return out if limit == len(out) else out[:limit]

    def bids(self, levels=None, out=None):
        """The best bids (all if None) as PRICE_LEVEL rows, best first, in ``out`` if it is given."""
        return self.copy_levels(MDRING_BIDS, levels, out)

    def asks(self, levels=None, out=None):
        """The best asks (all if None) as PRICE_LEVEL rows, best first, in ``out`` if it is given."""
        return self.copy_levels(MDRING_ASKS, levels, out)

    cdef object take(self, int which, int64_t size):
        if size < 0:
            raise ValueError(f"size is negative: {size}")
        cdef mdring_fill fill = mdring_take(&self.read().sides[which], size)
        worst_price = fill.worst_price if fill.filled else UNDEFINED_PRICE
        return Fill(_wide_int(fill.notional), fill.filled, worst_price)

    def cost_to_buy(self, int64_t size):
        """What taking ``size`` from the asks costs, exactly."""
        return self.take(MDRING_ASKS, size)

    def cost_to_sell(self, int64_t size):
        """What giving ``size`` to the bids yields, exactly."""
        return self.take(MDRING_BIDS, size)

    def size_at(self, side, int64_t price):
        """Size at a price; 0 if there is no such level."""
        cdef const mdring_side *levels = &self.read().sides[_side_index(side)]
        return mdring_size_at(levels, price ^ levels.flip)

    def depth(self, side):
        """Number of levels of a side."""
        return self.read().sides[_side_index(side)].level_count

    def snapshot(self):
        """A copy of the book for ``BookSet.load``. Raises RuntimeError inside an event group."""
        cdef const mdring_book *book = self.read()
        if self.books.books.touched_count > 0 and book.group == self.books.books.group:
            raise RuntimeError("the last batch ended inside an event group of this book: apply the rest first")
        return Snapshot(self.bids(), self.asks(), book.seq, self.valid, self.invalid_reason)

    def __repr__(self):
        state = "valid" if self.valid else f"invalid: {self.invalid_reason.name}"
        return f"<Book {self.instrument_id} bid {self.best_bid} ask {self.best_ask} seq {self.seq} {state}>"
