from libc.stdint cimport int64_t, uint64_t

from mdring.feed.chain cimport Chain
from mdring.feed.emit cimport Channel, Emit
from mdring.ring._ring cimport Words, Writer

cdef enum:
    MAX_STEPS = 48
    NUMBERS = 10


cdef struct Step:
    # What stands next in a message: a literal of `length` bytes at `begin` of the template's text, or a field.
    int kind
    int slot
    Py_ssize_t begin
    Py_ssize_t length


cdef struct Values:
    # What the fields of one message were; each slot belongs to one field name.
    int64_t numbers[NUMBERS]
    int64_t prices[2]
    int64_t sizes[2]
    Py_ssize_t levels[2]
    bint taker_sold


cdef class Route:
    cdef bytes text
    cdef Step steps[MAX_STEPS]
    cdef int step_count
    cdef unsigned int present
    cdef bint late_stamp
    cdef Channel channel
    cdef Chain chain
    cdef int64_t unit_ns
    cdef int count_at
    cdef int flags

    cdef int compile(self, str template) except -1
    cdef int64_t ns(self, const Values *values) noexcept
    cdef int add(self, int kind, int slot, Py_ssize_t begin, Py_ssize_t length) except -1
    cdef bint match(self, const char *p, const char *end, Emit emit, Values *values) noexcept
    cdef int take(self, const char *p, const char *end, Emit emit) except -1


cdef class DirectRoutes:
    cdef bytes prefix
    cdef char stop
    cdef dict routes
    cdef readonly uint64_t taken

    cdef int take_staged(self, bytes payload, Emit emit) except -1


cdef class DirectPath:
    cdef DirectRoutes routes
    cdef Emit emit
    cdef Writer writer
    cdef Words sequencer
    cdef Py_ssize_t position_word, waiting_word
    cdef public bint enabled
    cdef public uint64_t save_at
