# cython: language_level=3, boundscheck=False, wraparound=False
"""From a batch of records to calls: the native part of what drives a strategy.

numpy is made for long arrays; most batches of a consumer that keeps up are one event group, of which each numpy
operation costs as much as of a thousand. So the walk over the records, the objects made of them, and the books between
the calls are native; the calls are Python. ``strategy.py`` and ``event.py`` use it::

    trades = Columns(TRADE, ("seq", "price", "size"))     # fields of Trade, which takes the instrument besides
    trades.events(batch, Trade, by_id)                   # a Trade of each record

    callbacks = Callbacks(by_id, {Kind.TRADE: (trades, Trade, strategy.on_trade)}, strategy.on_book)
    callbacks.deliver(batch, books)
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from mdring.book._book cimport BookSet
from mdring.record import RECORD_SIZE, Flags, Kind, offset_of

cdef enum:
    MAX_COLUMNS = 32
    KINDS = 256

cdef Py_ssize_t _RECORD_SIZE = RECORD_SIZE
cdef Py_ssize_t _KIND = offset_of("kind")
cdef Py_ssize_t _FLAGS = offset_of("flags")
cdef Py_ssize_t _INSTRUMENT_ID = offset_of("instrument_id")
cdef uint8_t _LAST = int(Flags.LAST)
cdef int _LEVEL = int(Kind.LEVEL)
cdef int _CLEAR = int(Kind.CLEAR)

cdef dict _CODES = {"u8": 0, "i8": 1, "u4": 2, "i4": 3, "u2": 4, "i2": 5, "u1": 6, "i1": 7}
cdef int _BYTES = 8


cdef struct Column:
    Py_ssize_t offset
    Py_ssize_t size
    int code


cdef object _value(const uint8_t *at, const Column *column):
    """As numpy's ``item``: an int, or bytes without the zeros at their end."""
    cdef Py_ssize_t length
    if column.code == 0:
        return (<const uint64_t *>at)[0]
    if column.code == 1:
        return (<const int64_t *>at)[0]
    if column.code == 2:
        return (<const uint32_t *>at)[0]
    if column.code == 3:
        return (<const int32_t *>at)[0]
    if column.code == 4:
        return (<const uint16_t *>at)[0]
    if column.code == 5:
        return (<const int16_t *>at)[0]
    if column.code == 6:
        return at[0]
    if column.code == 7:
        return (<const int8_t *>at)[0]
    length = column.size
    while length and at[length - 1] == 0:
        length -= 1
    return (<const char *>at)[:length]


@cython.final
cdef class Columns:
    """Some fields of a view of the record, in an order: integers and fixed text."""

    cdef Column columns[MAX_COLUMNS]
    cdef Py_ssize_t count

    def __init__(self, view, names):
        if view.itemsize != _RECORD_SIZE or len(names) > MAX_COLUMNS:
            raise ValueError(f"{len(names)} fields of a dtype of {view.itemsize} bytes")
        for name in names:
            field, offset = view.fields[name][:2]
            self.columns[self.count].offset = offset
            self.columns[self.count].size = field.itemsize
            self.columns[self.count].code = _BYTES if field.kind == "S" else _CODES[f"{field.kind}{field.itemsize}"]
            self.count += 1

    cdef tuple row(self, const uint8_t *record, object last):
        """The values of one record, and one more."""
        cdef tuple values = PyTuple_New(self.count + 1)
        cdef Py_ssize_t i
        for i in range(self.count):
            value = _value(record + self.columns[i].offset, &self.columns[i])
            Py_INCREF(value)  # the tuple takes one over
            PyTuple_SET_ITEM(values, i, value)
        Py_INCREF(last)
        PyTuple_SET_ITEM(values, self.count, last)
        return values

    def events(self, records, make, by_id):
        """``make(*values, instrument)`` of each record; ``by_id`` gives the instrument, None where the id is 0."""
        cdef Py_buffer view
        cdef const uint8_t *record
        cdef uint32_t instrument_id
        cdef Py_ssize_t i
        made = []
        PyObject_GetBuffer(records, &view, PyBUF_SIMPLE)
        try:
            for i in range(view.len // _RECORD_SIZE):
                record = <const uint8_t *>view.buf + i * _RECORD_SIZE
                instrument_id = (<const uint32_t *>(record + _INSTRUMENT_ID))[0]
                made.append(make(*self.row(record, by_id(instrument_id) if instrument_id else None)))
        finally:
            PyBuffer_Release(&view)
        return made


@cython.final
cdef class Callbacks:
    """Calls a strategy for the records of batches, in their order. ``current`` is what the last call was given."""

    cdef object by_id, on_book
    cdef dict instruments, views
    cdef list columns, makers, callbacks
    cdef bint wanted[KINDS]
    cdef BookSet books
    cdef readonly object current

    def __init__(self, by_id, dict calls not None, on_book=None):
        """``calls``: kind → (columns, what to make of their values and the instrument, whom to call). ``on_book`` is
        called with each book after each event group that changed it; books are applied only then."""
        self.by_id = by_id
        self.on_book = on_book
        self.instruments = {0: None}
        self.views = {}
        self.columns, self.makers, self.callbacks = [None] * KINDS, [None] * KINDS, [None] * KINDS
        for kind, (columns, make, callback) in calls.items():
            self.columns[kind], self.makers[kind], self.callbacks[kind] = columns, make, callback
            self.wanted[int(kind)] = True

    cdef object instrument(self, uint32_t instrument_id):
        # A row of the instrument table never changes.
        if instrument_id not in self.instruments:
            self.instruments[instrument_id] = self.by_id(instrument_id)
        return self.instruments[instrument_id]

    cdef int call(self, const uint8_t *record, int kind) except -1:
        instrument = self.instrument((<const uint32_t *>(record + _INSTRUMENT_ID))[0])
        self.current = self.makers[kind](*(<Columns>self.columns[kind]).row(record, instrument))
        self.callbacks[kind](self.current)
        return 0

    cdef int tell_books(self) except -1:
        for instrument_id in self.books.changed:
            book = self.views.get(instrument_id)
            if book is None:
                book = self.views[instrument_id] = self.books[instrument_id]
            self.current = book
            self.on_book(book)
        return 0

    def deliver(self, batch, BookSet books=None):
        """Call for each record of the batch; with ``on_book``, apply the batch to ``books`` group by group."""
        cdef Py_buffer view
        cdef const uint8_t *record
        cdef const uint8_t *begin
        cdef const uint8_t *end
        cdef bint keeps_books = self.on_book is not None, touched = False
        cdef int kind
        if keeps_books and books is not self.books:
            self.books, self.views = books, {}
        PyObject_GetBuffer(batch, &view, PyBUF_SIMPLE)
        try:
            record = begin = <const uint8_t *>view.buf
            end = record + view.len
            while record < end:
                kind = record[_KIND]
                if self.wanted[kind]:
                    self.call(record, kind)
                touched = touched or kind == _LEVEL or kind == _CLEAR
                record += _RECORD_SIZE
                if keeps_books and touched and record[_FLAGS - _RECORD_SIZE] & _LAST:
                    self.books.apply_records(begin, (record - begin) // _RECORD_SIZE)
                    self.tell_books()
                    begin, touched = record, False
            if keeps_books and begin < end:
                self.books.apply_records(begin, (end - begin) // _RECORD_SIZE)
        finally:
            PyBuffer_Release(&view)
