from libc.stdint cimport int64_t, uint64_t

from mdring.feed.chain cimport Chain
from mdring.feed.emit cimport Emit
from mdring.feed.template cimport Form, Values
from mdring.ring._ring cimport Words, Writer


cdef class Route(Form):
    cdef Chain chain
    cdef readonly int64_t taken_ns

    cdef bint follows(self, const Values *values, int64_t ts_event) noexcept
    cdef void move_on(self, const Values *values) noexcept
    cdef int take(self, const char *p, const char *end, Emit emit) except -1


cdef class Names:
    cdef list names
    cdef list routes
    cdef Py_ssize_t mask
    cdef Py_ssize_t count

    cdef Py_ssize_t slot(self, const char *name, Py_ssize_t length) noexcept
    cdef Route get(self, const char *name, Py_ssize_t length)


cdef class Place:
    cdef bytes prefix
    cdef Py_ssize_t prefix_length
    cdef bytes behind
    cdef Py_ssize_t behind_length
    cdef char stop
    cdef bint last
    cdef Names routes
    cdef dict routes_of

    cdef Route find(self, const char *p, const char *end, Py_ssize_t connection)


cdef class DirectRoutes:
    cdef tuple places
    cdef Place only  # the place, if there is but one
    cdef readonly uint64_t taken

    cdef int take_staged(self, Py_ssize_t connection, bytes payload, Emit emit) except -1


cdef class DirectPath:
    cdef DirectRoutes routes
    cdef Emit emit
    cdef Writer writer
    cdef Words sequencer
    cdef Py_ssize_t position_word, waiting_word
    cdef object on_save_due, on_refused
    cdef public bint enabled
    cdef public uint64_t save_at

    cdef bint take_message(self, Py_ssize_t connection, bytes payload, int64_t ts_recv) except -1
