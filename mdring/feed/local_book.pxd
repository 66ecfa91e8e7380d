from libc.stdint cimport int64_t, uint32_t, uint64_t

from mdring.feed.emit cimport Emit

from mdring.feed.stage cimport Channel

cdef extern from "../book/side.h" nogil:
    ctypedef struct mdring_pool:
        pass
    ctypedef struct mdring_leaf:
        int64_t *keys
        int64_t *sizes
    ctypedef struct mdring_branch:
        mdring_leaf *leaf
        int64_t count
    ctypedef struct mdring_side:
        int64_t level_count
        int64_t flip
        void *lower


cdef class LocalBook:
    cdef Channel channel
    cdef mdring_pool pool
    cdef mdring_side sides[2]
    cdef int64_t top[4]
    cdef int64_t max_levels
    cdef readonly int64_t orphans
    cdef public int64_t crossed_ns

    cdef int set_level(self, int side, int64_t price, int64_t size) except -1
    cdef bint has_room(self, Py_ssize_t count) noexcept
    cdef int follow(self, Emit emit, Py_ssize_t mark) except -1
    cdef int cut(self, Emit emit, int64_t depth, int64_t ts_event, uint64_t venue_seq, int flags) except -1
    cdef void read_top(self, int64_t *top) noexcept
    cdef bint stage_top(self, Emit emit, int64_t ts_event, uint64_t venue_seq, int flags) except -1
    cdef bint crosses(self) noexcept
    cdef int64_t watch(self, int64_t now_ns) noexcept
    cdef uint32_t checksum_of_digits(self, int levels, int price_decimals, int size_decimals) except? 0
    cdef int check_levels(self, int levels) except -1
