# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Arrays of price levels, ``[["price","size", …], …]`` or another of the forms that venues have, straight into records.

``emit.pyx`` calls it for arrays that a JSON decoder has left raw, ``template.pyx`` for those of messages that nothing
else decodes. A record is known only as a pattern to copy and some offsets. No function here reads a byte outside the
text it is given, and numbers are those of ``fixed.pyx``. Part of the worker.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from mdring.feed.fixed cimport (
    FAULT_MALFORMED, FAULT_NONE, FAULT_OVERFLOW, FAULT_SIGN, Fault, is_digit, is_json_number, number_at,
    raise_fault,
)

# Nesting that is accepted in the parts of a level that are skipped.
cdef int MAX_DEPTH = 64
# The record has four bytes for the number of orders at a level.
cdef int64_t MAX_COUNT = 0xFFFFFFFF
# How much of a refused text an error message shows.
cdef int SHOWN = 40

cdef struct Level:
    int64_t price
    int64_t size
    int64_t count
    uint8_t side
    bint deletes


cdef inline const char *_skip_space(const char *p, const char *end) noexcept nogil:
    while p < end and (p[0] == c' ' or p[0] == c'\n' or p[0] == c'\t' or p[0] == c'\r'):
        p += 1
    return p


cdef inline Fault _level_number(const char **at, const char *end, int exponent, bint checked,
                                int64_t *value) noexcept nogil:
    """A number in quotes or bare; bare it must be JSON, which forbids some forms of our grammar."""
    cdef bint quoted = at[0] < end and at[0][0] == c'"'
    cdef Fault fault
    if not quoted and not checked and not is_json_number(at[0], end):
        return FAULT_MALFORMED
    at[0] += quoted
    fault = number_at(at, end, exponent, value)
    if fault == FAULT_NONE and quoted:
        if at[0] == end or at[0][0] != c'"':
            return FAULT_MALFORMED
        at[0] += 1
    return fault


cdef bint _skip_string(const char **at, const char *end) noexcept nogil:
    cdef const char *p = at[0] + 1
    while p < end and p[0] != c'"':
        p += 2 if p[0] == c'\\' else 1
    if p >= end:
        return False
    at[0] = p + 1
    return True


cdef bint _skip_value(const char **at, const char *end) noexcept nogil:
    """Pass over one JSON value of any shape. Brackets must match; what stands between them is not looked at."""
    cdef const char *p = at[0]
    cdef const char *begin = p
    cdef uint64_t objects = 0
    cdef int depth = 0
    while p < end:
        if p[0] == c'"':
            if not _skip_string(&p, end):
                return False
            if depth == 0:
                break
        elif p[0] == c'[' or p[0] == c'{':
            if depth == MAX_DEPTH:
                return False
            objects = objects << 1 | (p[0] == c'{')
            depth += 1
            p += 1
        elif p[0] == c']' or p[0] == c'}':
            if depth == 0:
                break
            if (objects & 1) != (p[0] == c'}'):
                return False
            objects >>= 1
            depth -= 1
            p += 1
            if depth == 0:
                break
        elif depth == 0 and (p[0] == c',' or p[0] == c' ' or p[0] == c'\n' or p[0] == c'\t' or p[0] == c'\r'):
            break
        else:
            p += 1
    at[0] = p
    return depth == 0 and p > begin


cdef inline bint _skip_word(const char **at, const char *end, const char *word, Py_ssize_t length) noexcept nogil:
    if end - at[0] < length or memcmp(at[0], word, length) != 0:
        return False
    at[0] += length
    return True


cdef bint skip_plain(const char **at, const char *end) noexcept nogil:
    """Pass over a string of printable ASCII without escapes, a number, ``true``, ``false`` or ``null``. Strict: for
    text that nobody else has looked at."""
    cdef const char *p = at[0]
    cdef const char *begin
    if p < end and p[0] == c'"':
        p += 1
        while p < end and p[0] >= c' ' and p[0] < 127 and p[0] != c'"' and p[0] != c'\\':
            p += 1
        if p == end or p[0] != c'"':
            return False
        at[0] = p + 1
        return True
    if p < end and c'a' <= p[0] <= c'z':
        return _skip_word(at, end, b"true", 4) or _skip_word(at, end, b"false", 5) or _skip_word(at, end, b"null", 4)
    p += p < end and p[0] == c'-'
    begin = p
    while p < end and is_digit(p[0]):
        p += 1
    if p == begin or (begin[0] == c'0' and p - begin > 1):
        return False
    if p < end and p[0] == c'.':
        p += 1
        begin = p
        while p < end and is_digit(p[0]):
            p += 1
        if p == begin:
            return False
    if p < end and (p[0] == c'e' or p[0] == c'E'):
        p += 1
        p += p < end and (p[0] == c'-' or p[0] == c'+')
        begin = p
        while p < end and is_digit(p[0]):
            p += 1
        if p == begin:
            return False
    at[0] = p
    return True


cdef inline bint _is_word(const char *p, const char *end, const char *word, Py_ssize_t length) noexcept nogil:
    """Whether the JSON string ``"word"`` begins at ``p``; ``length`` is that of ``word``."""
    return end - p >= length + 2 and p[0] == c'"' and p[length + 1] == c'"' and memcmp(p + 1, word, length) == 0


cdef Fault _level_word(const char **at, const char *end, LevelForm form, Level *level) noexcept nogil:
    """The word before the price: what is to be done, or the side; moves ``at`` behind it and its comma."""
    cdef const char *p = at[0]
    if form == FORM_ACTION:
        level.deletes = _is_word(p, end, b"delete", 6)
        if not level.deletes and not _is_word(p, end, b"new", 3) and not _is_word(p, end, b"change", 6):
            return FAULT_MALFORMED
    elif _is_word(p, end, b"buy", 3):
        level.side = 1
    elif _is_word(p, end, b"sell", 4):
        level.side = 2
    else:
        return FAULT_MALFORMED
    if not _skip_string(at, end):
        return FAULT_MALFORMED
    at[0] = _skip_space(at[0], end)
    if at[0] == end or at[0][0] != c',':
        return FAULT_MALFORMED
    at[0] = _skip_space(at[0] + 1, end)
    return FAULT_NONE


cdef inline Fault _level(const char **at, const char *end, int price_exponent, int size_exponent,
                         const LevelRecords *target, Level *level) noexcept nogil:
    """A level that is an array; moves ``at`` behind it. Price above 0, size not below."""
    cdef const char *p = at[0]
    cdef Fault fault
    cdef int element = 2, count_at = target.count_at
    if p == end or p[0] != c'[':
        return FAULT_MALFORMED
    at[0] = _skip_space(p + 1, end)
    if target.form != FORM_PLAIN:
        fault = _level_word(at, end, target.form, level)
        if fault != FAULT_NONE:
            return fault
    fault = _level_number(at, end, price_exponent, target.checked, &level.price)
    if fault != FAULT_NONE:
        return fault
    at[0] = _skip_space(at[0], end)
    if at[0] == end or at[0][0] != c',':
        return FAULT_MALFORMED
    at[0] = _skip_space(at[0] + 1, end)
    fault = _level_number(at, end, size_exponent, target.checked, &level.size)
    if fault != FAULT_NONE:
        return fault
    at[0] = _skip_space(at[0], end)
    while at[0] < end and at[0][0] == c',':
        at[0] = _skip_space(at[0] + 1, end)
        if element == count_at:
            fault = _level_number(at, end, 0, target.checked, &level.count)
            if fault != FAULT_NONE:
                return fault
        elif not (_skip_value(at, end) if target.checked else skip_plain(at, end)):
            return FAULT_MALFORMED
        element += 1
        at[0] = _skip_space(at[0], end)
    if at[0] == end or at[0][0] != c']' or (count_at and element <= count_at):
        return FAULT_MALFORMED
    at[0] += 1
    return FAULT_NONE


cdef Fault _level_object(const char **at, const char *end, int price_exponent, int size_exponent,
                         Level *level) noexcept nogil:
    """``{"price": …, "qty": …}``, the keys in any order and others between them; moves ``at`` behind it."""
    cdef bint priced = False, sized = False, more = True
    cdef const char *key
    cdef Fault fault
    if at[0] == end or at[0][0] != c'{':
        return FAULT_MALFORMED
    at[0] = _skip_space(at[0] + 1, end)
    while more:
        key = at[0]
        if key == end or key[0] != c'"' or not _skip_string(at, end):
            return FAULT_MALFORMED
        at[0] = _skip_space(at[0], end)
        if at[0] == end or at[0][0] != c':':
            return FAULT_MALFORMED
        at[0] = _skip_space(at[0] + 1, end)
        fault = FAULT_NONE
        if _is_word(key, end, b"price", 5):
            fault = FAULT_MALFORMED if priced else _level_number(at, end, price_exponent, True, &level.price)
            priced = True
        elif _is_word(key, end, b"qty", 3):
            fault = FAULT_MALFORMED if sized else _level_number(at, end, size_exponent, True, &level.size)
            sized = True
        elif not _skip_value(at, end):
            fault = FAULT_MALFORMED
        if fault != FAULT_NONE:
            return fault
        at[0] = _skip_space(at[0], end)
        more = at[0] < end and at[0][0] == c','
        if more:
            at[0] = _skip_space(at[0] + 1, end)
    if at[0] == end or at[0][0] != c'}' or not priced or not sized:
        return FAULT_MALFORMED
    at[0] += 1
    return FAULT_NONE


cdef inline Fault _level_plain_object(const char **at, const char *end, int price_exponent, int size_exponent,
                                      Level *level) noexcept nogil:
    """The same as venues write it: price, then size, and nothing else. Strict: for text that nobody has looked at."""
    cdef Fault fault
    if not _skip_word(at, end, b'{"price":', 9):
        return FAULT_MALFORMED
    fault = _level_number(at, end, price_exponent, False, &level.price)
    if fault != FAULT_NONE:
        return fault
    if not _skip_word(at, end, b',"qty":', 7):
        return FAULT_MALFORMED
    fault = _level_number(at, end, size_exponent, False, &level.size)
    if fault == FAULT_NONE and not _skip_word(at, end, b"}", 1):
        return FAULT_MALFORMED
    return fault


cdef inline Fault _put_level(const LevelRecords *target, Level *level, uint8_t *record) noexcept nogil:
    """Write the record of a level, if it can be one."""
    if level.deletes:
        level.size = 0
    if level.price <= 0 or level.size < 0 or level.count < 0:
        return FAULT_SIGN
    if level.count > MAX_COUNT:
        return FAULT_OVERFLOW
    memcpy(record, target.pattern, target.record_size)
    (<int64_t *>(record + target.price_offset))[0] = level.price
    (<int64_t *>(record + target.size_offset))[0] = level.size
    if target.count_at:
        (<uint32_t *>(record + target.count_offset))[0] = <uint32_t>level.count
    if target.form == FORM_SIDED:
        record[target.side_offset] = level.side
    return FAULT_NONE


cdef Py_ssize_t scan_levels_at(const char **at, const char *end, int price_exponent, int size_exponent,
                               const LevelRecords *target, Fault *fault) noexcept nogil:
    """Write one record per level of the array that begins at ``at``; moves it behind the array, or to the fault.

    Returns the number of levels, or -1 and says why in ``fault``. ``target`` says of which form the levels are.
    """
    cdef const char *p = at[0]
    cdef uint8_t *record = target.records
    cdef Py_ssize_t count = 0
    cdef Level level
    fault[0] = FAULT_MALFORMED
    if p < end and p[0] == c'[':
        p = _skip_space(p + 1, end)
        if p < end and p[0] == c']':
            fault[0] = FAULT_NONE
        while fault[0] != FAULT_NONE:
            fault[0] = FAULT_MALFORMED
            if count == target.capacity:
                break
            level.count = 0
            level.deletes = False
            if target.form == FORM_OBJECT and target.checked:
                fault[0] = _level_object(&p, end, price_exponent, size_exponent, &level)
            elif target.form == FORM_OBJECT:
                fault[0] = _level_plain_object(&p, end, price_exponent, size_exponent, &level)
            else:
                fault[0] = _level(&p, end, price_exponent, size_exponent, target, &level)
            if fault[0] == FAULT_NONE:
                fault[0] = _put_level(target, &level, record)
            if fault[0] != FAULT_NONE:
                break
            record += target.record_size
            count += 1
            p = _skip_space(p, end)
            if p < end and p[0] == c',':
                p = _skip_space(p + 1, end)
                fault[0] = FAULT_MALFORMED  # another level is due
        if fault[0] == FAULT_NONE:
            if p < end and p[0] == c']':
                p += 1
            else:
                fault[0] = FAULT_MALFORMED
    at[0] = p
    return count if fault[0] == FAULT_NONE else -1


cdef Py_ssize_t scan_levels(const char *text, Py_ssize_t length, int price_exponent, int size_exponent,
                            const LevelRecords *target, ScanError *error) noexcept nogil:
    """``scan_levels_at`` of a text that is an array and nothing but white space around it.

    Returns the number of levels, or -1 and says why in ``error``. ``capacity`` must be at least ``length // 6 + 1``,
    more than levels can stand in so many bytes.
    """
    cdef const char *end = text + length
    cdef const char *p = _skip_space(text, end)
    cdef Py_ssize_t count = scan_levels_at(&p, end, price_exponent, size_exponent, target, &error.fault)
    if count >= 0 and _skip_space(p, end) != end:
        error.fault = FAULT_MALFORMED
        count = -1
    error.at = p - text
    return count


cdef int raise_scan_error(const char *text, Py_ssize_t length, const ScanError *error) except -1:
    """Raise what ``scan_levels`` found, with the text around it."""
    cdef Py_ssize_t begin = max(0, error.at - SHOWN)
    cdef Py_ssize_t stop = min(length, error.at + SHOWN)
    return raise_fault(error.fault, f"level array near byte {error.at}: {text[begin:stop]!r}")
