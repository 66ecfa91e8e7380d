# The C side of the book table's rows and of the checkpoints: rows.h, kept.h, checkpoints.h, join.h.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mdring.book._book cimport mdring_books
from mdring.ring._ring cimport mdring_reader, mdring_ring

cdef extern from "rows.h":
    ctypedef struct mdring_rows:
        uint64_t *words
        uint64_t row_words
        uint64_t row_count
        uint64_t image_words
    ctypedef enum mdring_row_result:
        MDRING_ROW_READ
        MDRING_ROW_EMPTY
        MDRING_ROW_BUSY
    enum:
        MDRING_ROW_HEADER_WORDS
    mdring_row_result mdring_row_read(const mdring_rows *, uint64_t, uint64_t *, uint64_t) nogil

cdef extern from "kept.h":
    ctypedef struct mdring_row_content:
        uint64_t seq, book_seq
        uint32_t instrument_id
        uint8_t venue_id, book_valid, book_reason, book_crossed
        uint8_t connection_state, connection_reason, venue_state, venue_reason, trading_state, doubt_reason
        uint64_t connection_seq, doubt_seq
        uint32_t bid_depth, ask_depth, bid_count, ask_count
        uint64_t bbo[16]
        uint64_t trade[16]
        uint64_t status[16]
        uint64_t venue_status[16]
    enum:
        MDRING_ROW_FIXED_WORDS
        MDRING_ROW_HEAD_WORDS

cdef extern from "checkpoints.h":
    ctypedef struct mdring_checkpoints:
        uint64_t *floor
        uint64_t *index
        uint64_t *pages
        uint64_t instrument_count
        uint64_t page_count
    ctypedef struct mdring_buffer:
        uint64_t *words
    enum:
        MDRING_PAGE_WORDS
    uint64_t mdring_load_floor(const mdring_checkpoints *) nogil

cdef extern from "join.h":
    ctypedef enum mdring_join_result:
        MDRING_JOIN_DONE
        MDRING_JOIN_LAPPED
        MDRING_JOIN_NO_MEMORY
    ctypedef struct mdring_late_join:
        mdring_buffer buffer
        uint64_t position
        uint32_t *without
        uint64_t without_count
    mdring_join_result mdring_join_load(mdring_late_join *, mdring_books *, const mdring_checkpoints *) nogil
    mdring_join_result mdring_join_replay(const mdring_ring *, mdring_reader *, mdring_books *, uint64_t *, uint64_t,
                                          uint64_t) nogil


cdef class Rows:
    cdef Py_buffer view
    cdef bint exported
    cdef readonly bint writable
    cdef mdring_rows rows


cdef class Checkpoints:
    cdef Py_buffer view
    cdef bint exported
    cdef readonly bint writable
    cdef mdring_checkpoints store
    cdef mdring_late_join state
