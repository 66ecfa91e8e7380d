from libc.stdint cimport int64_t

from mdring.feed.direct cimport Route
from mdring.feed.emit cimport Emit
from mdring.feed.local_book cimport LocalBook
from mdring.feed.template cimport Values


cdef class BookRoute(Route):
    cdef LocalBook book

    cdef Py_ssize_t stage(self, const char *p, const char *end, Values *values, int64_t *ts_event,
                          Emit emit) except -2


cdef class CheckedRoute(BookRoute):
    cdef object counts
    cdef int64_t depth
    cdef int levels
    cdef public int price_decimals
    cdef public int size_decimals


cdef class QuotedRoute(BookRoute):
    cdef bint tells_levels
    cdef bint tells_quotes
