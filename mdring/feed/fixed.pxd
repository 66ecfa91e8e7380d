# The common form of a number is read in line, wherever this file is cimported; ``fixed.pyx`` says what a number is.
from libc.stdint cimport int8_t, int64_t, uint64_t
from libc.string cimport memcpy


cdef enum Fault:
    FAULT_NONE = 0
    FAULT_MALFORMED = 1
    FAULT_INEXACT = 2
    FAULT_OVERFLOW = 3
    FAULT_SIGN = 4


cdef enum:
    SAFE_DIGITS = 18  # a number of so many digits fits without a check


cdef uint64_t[20] POWER  # of ten

cdef Fault number_by_parts(const char **at, const char *end, int exponent, int64_t *value) noexcept nogil
cdef Fault scale_text(const char *text, Py_ssize_t length, int exponent, int64_t *value) noexcept nogil
cdef Fault split_text(const char *text, Py_ssize_t length, int64_t *value, int8_t *exponent) noexcept nogil
cdef int64_t split_object(object text, int8_t *exponent) except? -1
cdef int64_t scale_object(object text, int exponent) except? -1
cdef int raise_fault(Fault fault, str shown) except -1
cdef Fault utc_at(const char **at, const char *end, int64_t *value) noexcept nogil


cdef inline bint is_digit(char c) noexcept nogil:
    return c'0' <= c <= c'9'


cdef inline bint is_json_number(const char *p, const char *end) noexcept nogil:
    """Whether the number of our grammar that begins at ``p`` is one of JSON, too, and not negative: that has a digit
    before the point, and no zeros before that."""
    return p < end and is_digit(p[0]) and not (p[0] == c'0' and end - p > 1 and is_digit(p[1]))


cdef inline bint _eight_digits(const char *p, uint64_t *value) noexcept nogil:
    """Whether the eight bytes at ``p`` are digits; then their value. The bytes are those of one word, in which
    pairs, then fours, then eights are joined: a padded fraction costs three multiplications instead of a loop."""
    cdef uint64_t word
    memcpy(&word, p, 8)
    if word & <uint64_t>0xF0F0F0F0F0F0F0F0 != <uint64_t>0x3030303030303030:
        return False
    if (word + <uint64_t>0x0606060606060606) & <uint64_t>0xF0F0F0F0F0F0F0F0 != <uint64_t>0x3030303030303030:
        return False
    word = (word & <uint64_t>0x0F0F0F0F0F0F0F0F) * 2561 >> 8
    word = (word & <uint64_t>0x00FF00FF00FF00FF) * 6553601 >> 16
    value[0] = (word & <uint64_t>0x0000FFFF0000FFFF) * <uint64_t>42949672960001 >> 32
    return True


cdef inline Fault number_at(const char **at, const char *end, int exponent, int64_t *value) noexcept nogil:
    """The longest number that begins at ``at``; moves ``at`` behind it. The common form is read here in one pass:
    few enough digits, a fraction padded with zeros, no power of ten."""
    cdef const char *p = at[0]
    cdef const char *mark
    cdef bint negative = False
    cdef int64_t scaled = 0
    cdef uint64_t eight = 0
    cdef Py_ssize_t whole, taken = 0
    if p < end and p[0] == c'-':
        negative = True
        p += 1
    mark = p
    while p < end and is_digit(p[0]):
        scaled = <int64_t>(<uint64_t>scaled * 10 + <uint64_t>(p[0] - c'0'))
        p += 1
    whole = p - mark
    if whole == 0 or exponent > 0 or whole - exponent > SAFE_DIGITS:
        return number_by_parts(at, end, exponent, value)
    if p < end and p[0] == c'.':
        p += 1
        mark = p
        if end - p >= 8 and _eight_digits(p, &eight):
            taken = 8 if exponent <= -8 else -exponent
            scaled = scaled * <int64_t>POWER[taken] + <int64_t>(eight // POWER[8 - taken])
            if eight % POWER[8 - taken] != 0:
                return number_by_parts(at, end, exponent, value)
            p += 8
        while p < end and taken < -exponent and is_digit(p[0]):
            scaled = scaled * 10 + (p[0] - c'0')
            taken += 1
            p += 1
        while p < end and p[0] == c'0':
            p += 1
        if p == mark and (p == end or not is_digit(p[0])):
            return FAULT_MALFORMED
    if p < end and (is_digit(p[0]) or p[0] == c'e' or p[0] == c'E'):
        return number_by_parts(at, end, exponent, value)
    scaled *= <int64_t>POWER[-exponent - taken]
    value[0] = -scaled if negative else scaled
    at[0] = p
    return FAULT_NONE
