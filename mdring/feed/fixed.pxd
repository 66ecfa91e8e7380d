from libc.stdint cimport int8_t, int64_t, uint8_t, uint32_t


cdef enum Fault:
    FAULT_NONE = 0
    FAULT_MALFORMED = 1
    FAULT_INEXACT = 2
    FAULT_OVERFLOW = 3
    FAULT_SIGN = 4


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


cdef struct ScanError:
    Fault fault
    Py_ssize_t at


cdef Fault scale_text(const char *text, Py_ssize_t length, int exponent, int64_t *value) noexcept nogil
cdef Py_ssize_t scan_levels(const char *text, Py_ssize_t length, int price_exponent, int size_exponent,
                            const LevelRecords *target, ScanError *error) noexcept nogil
cdef Fault split_text(const char *text, Py_ssize_t length, int64_t *value, int8_t *exponent) noexcept nogil
cdef int64_t split_object(object text, int8_t *exponent) except? -1
cdef int64_t scale_object(object text, int exponent) except? -1
cdef int raise_fault(Fault fault, str shown) except -1
cdef int raise_scan_error(const char *text, Py_ssize_t length, const ScanError *error) except -1
