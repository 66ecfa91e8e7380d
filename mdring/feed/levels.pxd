from libc.stdint cimport uint8_t

from mdring.feed.fixed cimport Fault


cdef enum LevelForm:
    FORM_PLAIN = 0  # ["price", "size", …]
    FORM_ACTION = 1  # ["new" | "change" | "delete", "price", "size", …]
    FORM_SIDED = 2  # ["buy" | "sell", "price", "size", …]
    FORM_OBJECT = 3  # {"price": …, "qty": …, …}


cdef struct LevelRecords:
    # Where scan_levels writes: `capacity` records of `record_size` bytes, each a copy of `pattern` with the numbers
    # stored at their offsets. `count_at` is which element of a plain level is its number of orders; 0: none is.
    uint8_t *records
    const uint8_t *pattern
    Py_ssize_t capacity
    Py_ssize_t record_size
    Py_ssize_t price_offset
    Py_ssize_t size_offset
    Py_ssize_t side_offset
    Py_ssize_t count_offset
    LevelForm form
    int count_at
    bint checked  # the text is known to be JSON; else what is skipped of a level must be a plain string or number


cdef struct ScanError:
    Fault fault
    Py_ssize_t at


cdef bint skip_plain(const char **at, const char *end) noexcept nogil
cdef Py_ssize_t scan_levels_at(const char **at, const char *end, int price_exponent, int size_exponent,
                               const LevelRecords *target, Fault *fault) noexcept nogil
cdef Py_ssize_t scan_levels(const char *text, Py_ssize_t length, int price_exponent, int size_exponent,
                            const LevelRecords *target, ScanError *error) noexcept nogil
cdef int raise_scan_error(const char *text, Py_ssize_t length, const ScanError *error) except -1
