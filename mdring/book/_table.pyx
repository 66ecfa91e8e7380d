# cython: language_level=3, boundscheck=False, wraparound=False
"""The book table and the checkpoints as whoever reads them sees them: rows, and books joined late.

The protocols stand at the top of ``rows.h`` and ``checkpoints.h``, what a row holds in ``kept.h``, how a book comes
out of a checkpoint in ``join.h``. ``table.py`` opens the segments, ``_keeper.pyx`` is their only writer::

    rows.read(instrument_id, row)                # a row as it was at one time
    checkpoints.join(books, tape_reader)         # all books as of one seq
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from mdring.book._book cimport BookSet
from mdring.ring._ring cimport Reader

cdef extern from "atomics.h":
    uint64_t load_acquire_u64(const uint64_t *) nogil

PAGE_SIZE = <int>(8 * MDRING_PAGE_WORDS)
ROW_HEADER_SIZE = <int>(8 * MDRING_ROW_HEADER_WORDS)
ROW_HEAD_SIZE = <int>(8 * MDRING_ROW_HEAD_WORDS)
ROW_FIXED_SIZE = <int>(8 * MDRING_ROW_FIXED_WORDS)

cdef uint64_t _REPLAY_RECORDS = 1024


cdef dict _row_offsets():
    cdef mdring_row_content row
    cdef char *start = <char *>&row
    return {
        "seq": <char *>&row.seq - start,
        "book_seq": <char *>&row.book_seq - start,
        "instrument_id": <char *>&row.instrument_id - start,
        "venue_id": <char *>&row.venue_id - start,
        "book_valid": <char *>&row.book_valid - start,
        "book_reason": <char *>&row.book_reason - start,
        "book_crossed": <char *>&row.book_crossed - start,
        "connection_state": <char *>&row.connection_state - start,
        "connection_reason": <char *>&row.connection_reason - start,
        "venue_state": <char *>&row.venue_state - start,
        "venue_reason": <char *>&row.venue_reason - start,
        "trading_state": <char *>&row.trading_state - start,
        "doubt_reason": <char *>&row.doubt_reason - start,
        "connection_seq": <char *>&row.connection_seq - start,
        "doubt_seq": <char *>&row.doubt_seq - start,
        "bid_depth": <char *>&row.bid_depth - start,
        "ask_depth": <char *>&row.ask_depth - start,
        "bid_count": <char *>&row.bid_count - start,
        "ask_count": <char *>&row.ask_count - start,
        "bbo": <char *>&row.bbo - start,
        "trade": <char *>&row.trade - start,
        "status": <char *>&row.status - start,
        "venue_status": <char *>&row.venue_status - start,
    }

ROW_OFFSETS = _row_offsets()


cdef bint _open(object buffer, Py_buffer *view, Py_ssize_t offset, Py_ssize_t size, Py_ssize_t count) except -1:
    """Take hold of a buffer that has ``count`` pieces from ``offset``; returns whether it is writable."""
    cdef bint writable = True
    try:
        PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE)
    except (BufferError, ValueError, TypeError):
        PyObject_GetBuffer(buffer, view, PyBUF_SIMPLE)
        writable = False
    if offset < 0 or offset % 8 or size <= 0 or count < 1 or offset + size * count > view.len:
        held = view.len
        PyBuffer_Release(view)
        raise ValueError(f"a buffer of {held} bytes does not hold {count} times {size} bytes from {offset}")
    return writable


cdef class Rows:
    """The rows of a book table."""

    def __cinit__(self, object buffer, Py_ssize_t offset, Py_ssize_t row_size, Py_ssize_t row_count):
        cdef Py_ssize_t images = row_size - 8 * MDRING_ROW_HEADER_WORDS
        if row_size % 8 or images % 16 or images // 2 < <Py_ssize_t>(8 * MDRING_ROW_FIXED_WORDS):
            raise ValueError(f"a row of {row_size} bytes does not hold two images")
        self.writable = _open(buffer, &self.view, offset, row_size, row_count)
        self.exported = True
        self.rows.words = <uint64_t *>(<uint8_t *>self.view.buf + offset)
        self.rows.row_words = row_size // 8
        self.rows.row_count = row_count
        self.rows.image_words = images // 16

    def __dealloc__(self):
        if self.exported:
            PyBuffer_Release(&self.view)

    def __len__(self):
        """Number of rows; the ids of instruments that have one lie below."""
        return self.rows.row_count

    def read(self, Py_ssize_t instrument_id, object out):
        """Copy the newest image of a row, or its beginning, into ``out``; False if there is none."""
        cdef Py_buffer view
        cdef mdring_row_result result
        if not 0 <= instrument_id < <Py_ssize_t>self.rows.row_count:
            return False
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            if view.len % 8 or view.len > <Py_ssize_t>(8 * self.rows.image_words):
                raise ValueError(f"{view.len} bytes are no part of an image of {8 * self.rows.image_words}")
            result = mdring_row_read(&self.rows, instrument_id, <uint64_t *>view.buf, view.len // 8)
        finally:
            PyBuffer_Release(&view)
        if result == MDRING_ROW_BUSY:
            raise RuntimeError(f"the row of instrument {instrument_id} was replaced during each of very many copies")
        return result == MDRING_ROW_READ

    def read_heads(self, object out):
        """Copy the beginning, up to the BBO, of every row that has an image; returns how many there are."""
        cdef Py_buffer view
        cdef uint64_t instrument_id, taken = 0, room
        cdef mdring_row_result result = MDRING_ROW_EMPTY
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        room = view.len // (8 * MDRING_ROW_HEAD_WORDS)
        with nogil:
            for instrument_id in range(1, self.rows.row_count):
                if taken == room:
                    break
                result = mdring_row_read(&self.rows, instrument_id,
                                         <uint64_t *>view.buf + taken * MDRING_ROW_HEAD_WORDS, MDRING_ROW_HEAD_WORDS)
                if result == MDRING_ROW_BUSY:
                    break
                taken += result == MDRING_ROW_READ
        PyBuffer_Release(&view)
        if result == MDRING_ROW_BUSY:
            raise RuntimeError(f"the row of instrument {instrument_id} was replaced during each of very many copies")
        return taken


cdef class Checkpoints:
    """The checkpoints of a run's books."""

    def __cinit__(self, object buffer, Py_ssize_t floor_offset, Py_ssize_t offset, Py_ssize_t index_pages,
                  Py_ssize_t page_count):
        if not 1 <= index_pages < page_count or not 0 <= floor_offset < offset:
            raise ValueError(f"{page_count} pages do not hold an index of {index_pages}")
        self.writable = _open(buffer, &self.view, offset, 8 * MDRING_PAGE_WORDS, page_count)
        self.exported = True
        self.store.floor = <uint64_t *>(<uint8_t *>self.view.buf + floor_offset)
        self.store.index = <uint64_t *>(<uint8_t *>self.view.buf + offset)
        # page 0 stands for none: pages are numbered from the last one of the index
        self.store.pages = self.store.index + (index_pages - 1) * MDRING_PAGE_WORDS
        self.store.instrument_count = index_pages * MDRING_PAGE_WORDS
        self.store.page_count = page_count - index_pages + 1
        self.state.without = <uint32_t *>malloc(self.store.instrument_count * sizeof(uint32_t))
        if self.state.without == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.state.without)
        free(self.state.buffer.words)
        if self.exported:
            PyBuffer_Release(&self.view)

    @property
    def floor(self):
        """Every checkpoint contains what the tape says up to this seq."""
        return mdring_load_floor(&self.store)

    @property
    def without(self):
        """Ids of the instruments that the last join found without a checkpoint, as there was no room for it."""
        return [self.state.without[i] for i in range(self.state.without_count)]

    def join(self, BookSet books, Reader reader):
        """Make the books what checkpoints and tape say; returns the seq as of which they are, None if lapped."""
        cdef mdring_join_result result
        cdef uint64_t target
        cdef uint64_t *batch = <uint64_t *>malloc(_REPLAY_RECORDS * reader.ring.slot_words * 8)
        if batch == NULL:
            raise MemoryError
        try:
            books.check_idle()
            books.applying = True
            with nogil:
                result = mdring_join_load(&self.state, &books.books, &self.store)
                if result == MDRING_JOIN_DONE:
                    # after the checkpoints, so that few of them lie beyond
                    target = load_acquire_u64(reader.ring.cursor)
                    if target < self.state.position:
                        target = self.state.position
                    result = mdring_join_replay(&reader.ring, &reader.state, &books.books, batch, _REPLAY_RECORDS,
                                                target)
            books.applying = False
        finally:
            free(batch)
        if result == MDRING_JOIN_NO_MEMORY:
            raise MemoryError("there is no memory for all the books")
        return None if result == MDRING_JOIN_LAPPED else reader.state.next - 1
