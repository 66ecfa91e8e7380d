# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Direct routes of books that the adapter keeps itself: for the venue's checksum, or for quotes that are made of them.

As the others (``direct.pyx``), with a ``LocalBook`` that follows each delta that is taken. A delta left to the adapter
may have been put on that book already: it is absolute, so its own putting it there once more changes nothing. Part of
the worker.
"""

cimport cython
from libc.string cimport memset

from mdring.feed.chain cimport Chain
from mdring.feed.stage cimport Channel
from mdring.feed.template cimport CHECKSUM, LAST


cdef class BookRoute(Route):
    """What routes of such books have in common."""

    cdef Py_ssize_t stage(self, const char *p, const char *end, Values *values, int64_t *ts_event,
                          Emit emit) except -2:
        """Stage the levels of a delta, if it is the normal next one, and have the book follow; their number, else
        -1."""
        cdef Py_ssize_t count, begun = emit.record_count
        if not self.chain.live:
            return -1
        memset(values, 0, sizeof(Values))
        emit.reserve((end - p) // 6 + 2)
        if self.match(0, self.step_count, p, end, emit, values) != end:
            return -1
        ts_event[0] = self.ns(values)
        count = values.levels[0] + values.levels[1]
        if not self.follows(values, ts_event[0]) or not self.book.has_room(count):
            return -1
        if self.late_stamp:
            emit.restamp(begun, count, ts_event[0], values.numbers[LAST])
        if count:
            emit.add_levels(self.channel, count)
            self.book.follow(emit, begun)
        return count


@cython.final
cdef class CheckedRoute(BookRoute):
    """The deltas of a book that is cut to ``depth`` levels a side after each, and whose best ``levels`` then have the
    ``checksum`` that the message tells (``LocalBook.crc32_of_digits``). One with another checksum is left."""

    def __init__(self, str template not None, Channel channel not None, Chain chain not None,
                 LocalBook book not None, counts, *, int64_t depth, int levels, int price_decimals, int size_decimals,
                 int64_t unit_ns=1):
        Route.__init__(self, template, channel, chain, unit_ns=unit_ns)
        if not self.present & (1u << CHECKSUM):
            raise ValueError(f"a template without a checksum: {template!r}")
        if depth < 1:
            raise ValueError(f"a book has at least one level a side, not {depth}")
        book.check_levels(levels)
        self.book = book
        self.counts = counts
        self.depth = depth
        self.levels = levels
        self.price_decimals = price_decimals
        self.size_decimals = size_decimals

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        cdef Values values
        cdef int64_t ts_event = 0
        cdef Py_ssize_t begun = emit.record_count
        if self.stage(p, end, &values, &ts_event, emit) < 0:
            return 0
        self.book.cut(emit, self.depth, ts_event, values.numbers[LAST], self.flags)
        if self.book.checksum_of_digits(self.levels, self.price_decimals, self.size_decimals) != values.numbers[CHECKSUM]:
            emit.truncate(begun)
            return 0
        emit.close_group()
        self.move_on(&values)
        self.counts.checksums += 1
        return 1


@cython.final
cdef class QuotedRoute(BookRoute):
    """The deltas of a book of which quotes are made: levels, quotes or both go into the stream. A delta on a book that
    is crossed is left, for the adapter may lose patience."""

    def __init__(self, str template not None, Channel channel not None, Chain chain not None,
                 LocalBook book not None, *, bint levels, bint quotes, int64_t unit_ns=1):
        Route.__init__(self, template, channel, chain, unit_ns=unit_ns)
        self.book = book
        self.tells_levels = levels
        self.tells_quotes = quotes

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        cdef Values values
        cdef int64_t ts_event = 0
        cdef Py_ssize_t begun = emit.record_count
        if self.book.crossed_ns or self.stage(p, end, &values, &ts_event, emit) < 0:
            return 0
        if self.tells_levels:
            emit.close_group()
        else:
            emit.truncate(begun)
        if self.tells_quotes and self.book.stage_top(emit, ts_event, values.numbers[LAST], self.flags):
            emit.close_group()
        self.book.watch(emit.ts_recv)
        self.move_on(&values)
        return 1
