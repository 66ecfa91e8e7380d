from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mdring.feed.emit cimport Emit

from mdring.feed.stage cimport Channel
from mdring.feed.levels cimport LevelForm


cdef enum:
    # Slots of Values.numbers.
    TIME
    FIRST
    LAST
    PREVIOUS
    ID
    NUMBER
    FIRST_FILL
    LAST_FILL
    COUNT
    CHECKSUM
    PASSED
    NUMBERS


cdef enum:
    MAX_STEPS = 255


cdef struct Step:
    # What stands next in a message: a literal of `length` bytes at `begin` of the template's text, or a field.
    uint8_t kind
    uint8_t slot
    uint8_t stop  # of rows, of an object and of each of its members: the first step behind it
    uint8_t form  # of levels
    uint8_t bare  # a number that is not in quotes: JSON then
    uint8_t optional
    uint32_t begin
    uint32_t length


cdef struct Values:
    # What the fields of one message were; each slot belongs to one field name.
    int64_t numbers[NUMBERS]
    int64_t prices[2]
    int64_t sizes[2]
    Py_ssize_t levels[2]
    uint64_t text_id[2]  # low half, high half
    int text_id_format
    bint taker_sold


cdef class Form:
    cdef bytes text
    cdef Step *steps
    cdef uint8_t *order  # of members: which step stands in which place, as the last message had it
    cdef int step_count
    cdef int rows  # the step of the rows; -1: there are none
    cdef unsigned int present  # numbers that the template has, a bit each
    cdef bint has_text_id
    cdef bint is_stamped
    cdef bint late_stamp  # levels may stand before their time and id
    cdef Channel channel
    cdef int64_t unit_ns
    cdef int count_at
    cdef int flags

    cdef int add(self, int kind, int slot, LevelForm form=*) except -1
    cdef int add_literal(self, str literal) except -1
    cdef int compile(self, str template) except -1
    cdef Py_ssize_t parse(self, str template, Py_ssize_t i, str closing) except -1
    cdef Py_ssize_t parse_members(self, str template, Py_ssize_t i) except -1
    cdef int64_t ns(self, const Values *values) noexcept
    cdef const char *match(self, int first, int stop, const char *p, const char *end, Emit emit,
                           Values *values) noexcept
    cdef const char *match_members(self, int at, const char *p, const char *end, Emit emit, Values *values) noexcept
