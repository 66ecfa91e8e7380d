# The C side of the books: book.h (state of a book, applying a batch) over side.h (one side's levels).

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "book.h":
    ctypedef long long mdring_wide # an __int128: only passed from one C function to another

    ctypedef struct mdring_level:
        int64_t price
        int64_t size

    ctypedef struct mdring_fill:
        mdring_wide notional
        int64_t filled
        int64_t worst_price

    ctypedef struct mdring_side:
        int64_t level_count
        int64_t flip

    ctypedef struct mdring_layout:
        int64_t record_size
        int64_t seq, instrument_id, kind, flags, side, venue_id, price, size
        int64_t clear_reason, status_state, status_reason, status_data_type
        uint8_t kind_level, kind_clear, kind_status
        uint8_t flag_last, flag_snapshot
        uint8_t side_bid, side_ask
        uint8_t data_type_all, data_type_book
        uint8_t reason_none, reason_bad_message, reason_buffer_full
        uint64_t explaining_states

    ctypedef enum mdring_book_state:
        MDRING_INVALID
        MDRING_CLEARED
        MDRING_LOADING
        MDRING_VALID

    enum:
        MDRING_BIDS
        MDRING_ASKS

    ctypedef struct mdring_explanation:
        uint8_t reason

    ctypedef struct mdring_book:
        mdring_side sides[2]
        uint64_t seq
        uint64_t group
        uint32_t instrument_id
        uint8_t state
        bint is_crossed
        uint64_t crossed
        uint64_t ignored

    ctypedef struct mdring_books:
        mdring_layout layout
        int64_t capacity
        int64_t book_count
        int64_t max_instruments
        int64_t max_levels
        bint wants_all
        bint out_of_memory
        bint id_out_of_range
        uint64_t group
        int64_t touched_count
        uint32_t *changed
        int64_t changed_count

    mdring_book *mdring_books_add(mdring_books *, uint32_t) nogil
    mdring_book *mdring_books_get(const mdring_books *, uint32_t) nogil
    void mdring_books_destroy(mdring_books *) nogil
    void mdring_books_apply(mdring_books *, const uint8_t *, int64_t) nogil
    bint mdring_book_load(mdring_books *, mdring_book *, const mdring_level *, int64_t, const mdring_level *,
                          int64_t, uint64_t, bint, uint8_t) nogil
    void mdring_book_invalidate(mdring_books *, mdring_book *, uint8_t) nogil
    const mdring_explanation *mdring_book_explanation(const mdring_books *, const mdring_book *) nogil
    int64_t mdring_best_key(const mdring_side *) nogil
    int64_t mdring_best_size(const mdring_side *) nogil
    int64_t mdring_size_at(const mdring_side *, int64_t) nogil
    int64_t mdring_copy_levels(const mdring_side *, int64_t, mdring_level *) nogil
    mdring_wide mdring_sum_sizes(const mdring_side *, int64_t) nogil
    mdring_fill mdring_take(const mdring_side *, int64_t) nogil
    int64_t mdring_wide_high(mdring_wide) nogil
    uint64_t mdring_wide_low(mdring_wide) nogil


cdef class BookSet:
    cdef mdring_books books
    cdef bint applying

    cdef int check_idle(self) except -1
    cdef int apply_records(self, const uint8_t *records, int64_t count) except -1
    cdef mdring_book *find(self, object instrument_id) except NULL


cdef class Book:
    cdef BookSet books
    cdef mdring_book *book

    cdef const mdring_book *read(self) except NULL
    cdef object best(self, int which)
    cdef object copy_levels(self, int which, object levels, object out)
    cdef object take(self, int which, int64_t size)
