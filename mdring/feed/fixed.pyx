# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Exact decimal text to scaled 64-bit integers, without binary floating point.

``value = scaled * 10**exponent``. Runs in the worker (and in whatever decodes offline): ``emit.pyx`` calls the
native functions, the rest of the package the Python ones::

    >>> scale("0.35130000", -4)
    3513
    >>> text(3513, -4)
    '0.3513'

The text of a number is ``[+-] digits [. digits] [e [+-] digits]``, where the digits before the point may be
missing (``.5``, which some venues send) but those behind it may not (``1.`` looks like a number cut short).
Leading zeros are accepted, as are zeros beyond what the exponent can hold; any other digit there is an error,
for a rounded price is a wrong price. Refused too: whitespace, NaN, Infinity, and whatever is not ASCII.

The range is symmetric, ``±(2**63 - 1)``: the remaining value is ``record.UNDEFINED_PRICE``.

``scan_levels`` reads an array of price levels, ``[["price", "size", …], …]`` or another of the forms that venues
have, straight into records. It knows a record only as a pattern to copy and some offsets. ``quoted_after`` looks at a message's head, for the adapters that
route by it. No function here reads a byte outside the text it is given.
"""

from decimal import Decimal

from libc.stdint cimport INT64_MAX, int8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp

from mdring.feed.adapter import VenueProtocolError
from mdring.record import Reason

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object)
    const char *PyUnicode_DATA(object)
    Py_ssize_t PyUnicode_GET_LENGTH(object)

# Above this a decimal exponent only says "overflow" or "zero"; it stops the count before the count overflows.
cdef int EXPONENT_CEILING = 100_000
cdef int MAX_EXPONENT = 1_000
# The finest exponent that a value may bring itself; it has one byte in the record.
cdef int LEAST_OWN_EXPONENT = -100
# How much of a refused text an error message shows.
cdef int SHOWN = 40

cdef int _i
POWER[0] = 1
for _i in range(1, 20):
    POWER[_i] = POWER[_i - 1] * 10


class DecimalError(VenueProtocolError):
    """Text that is not a decimal number, or a number that the scaled 64-bit integer cannot hold exactly.

    ``reason`` is BAD_MESSAGE for the former, VALUE_OUT_OF_RANGE for the latter.
    """


# ---- numbers ----------------------------------------------------------------------------------------------


cdef struct Parts:
    # A number taken apart: (-1)**negative * mantissa * 10**power. Trailing zeros are in the power.
    uint64_t mantissa
    Py_ssize_t power
    bint negative
    bint too_long  # there are more digits than the mantissa has


cdef Fault _parts(const char **at, const char *end, Parts *parts) noexcept nogil:
    """Any number of the grammar. Trailing zeros of the mantissa are kept apart from it, as a count: hence a
    mantissa that would have to be divided is inexact, and one that outgrows 64 bits is so or overflows."""
    cdef const char *p = at[0]
    cdef bint negative = False, point = False, too_long = False, digit_seen = False, power_negative = False
    cdef uint64_t mantissa = 0, digit
    cdef Py_ssize_t zeros = 0, fraction = 0
    cdef int power = 0
    if p < end and (p[0] == c'-' or p[0] == c'+'):
        negative = p[0] == c'-'
        p += 1
    while p < end:
        if p[0] == c'.' and not point:
            point = True
            p += 1
            if p == end or not is_digit(p[0]):
                return FAULT_MALFORMED
            continue
        if not is_digit(p[0]):
            break
        digit = p[0] - c'0'
        p += 1
        digit_seen = True
        fraction += point
        if digit == 0:
            zeros += mantissa != 0 or too_long
        elif too_long or zeros >= 19 or mantissa > (<uint64_t>-1 - digit) // POWER[zeros + 1]:
            too_long = True
            zeros = 0
        else:
            mantissa = mantissa * POWER[zeros + 1] + digit
            zeros = 0
    if not digit_seen:
        return FAULT_MALFORMED
    if p < end and (p[0] == c'e' or p[0] == c'E'):
        p += 1
        if p < end and (p[0] == c'-' or p[0] == c'+'):
            power_negative = p[0] == c'-'
            p += 1
        if p == end or not is_digit(p[0]):
            return FAULT_MALFORMED
        while p < end and is_digit(p[0]):
            if power < EXPONENT_CEILING:
                power = power * 10 + (p[0] - c'0')
            p += 1
    at[0] = p
    parts.mantissa = mantissa
    parts.power = zeros - fraction + (-power if power_negative else power)
    parts.negative = negative
    parts.too_long = too_long
    return FAULT_NONE


cdef Fault _join(const Parts *parts, int exponent, int64_t *value) noexcept nogil:
    """Bring a number to an exponent."""
    cdef Py_ssize_t shift = parts.power - exponent
    if parts.mantissa == 0:
        value[0] = 0
        return FAULT_NONE
    if shift < 0:
        return FAULT_INEXACT
    if parts.too_long or shift > SAFE_DIGITS or parts.mantissa > <uint64_t>INT64_MAX // POWER[shift]:
        return FAULT_OVERFLOW
    value[0] = <int64_t>(parts.mantissa * POWER[shift])
    if parts.negative:
        value[0] = -value[0]
    return FAULT_NONE


cdef Fault number_by_parts(const char **at, const char *end, int exponent, int64_t *value) noexcept nogil:
    """Any number of the grammar, at an exponent."""
    cdef Parts parts
    cdef Fault fault = _parts(at, end, &parts)
    return fault if fault != FAULT_NONE else _join(&parts, exponent, value)


cdef Fault scale_text(const char *text, Py_ssize_t length, int exponent, int64_t *value) noexcept nogil:
    """Scale a text that is one number and nothing else."""
    cdef const char *p = text
    cdef Fault fault = number_at(&p, text + length, exponent, value)
    if fault == FAULT_NONE and p != text + length:
        return FAULT_MALFORMED
    if fault == FAULT_INEXACT or fault == FAULT_OVERFLOW:
        # Text behind such a number makes the whole malformed; that is the more telling fault.
        return fault if p == text + length else FAULT_MALFORMED
    return fault


cdef Fault split_text(const char *text, Py_ssize_t length, int64_t *value, int8_t *exponent) noexcept nogil:
    """A text that is one number and nothing else, with the exponent nearest to 0 that holds it exactly."""
    cdef const char *p = text
    cdef Parts parts
    cdef Fault fault = _parts(&p, text + length, &parts)
    if fault != FAULT_NONE or p != text + length:
        return FAULT_MALFORMED
    exponent[0] = 0
    if parts.mantissa == 0 or parts.power >= 0:
        return _join(&parts, 0, value)
    if parts.power < LEAST_OWN_EXPONENT:
        return FAULT_INEXACT
    exponent[0] = <int8_t>parts.power
    return _join(&parts, exponent[0], value)


# ---- errors -----------------------------------------------------------------------------------------------


cdef int raise_fault(Fault fault, str shown) except -1:
    """Raise the DecimalError of a fault."""
    if fault == FAULT_INEXACT:
        raise DecimalError(f"{shown} has digits that the instrument's exponent cannot hold",
                           reason=Reason.VALUE_OUT_OF_RANGE)
    if fault == FAULT_OVERFLOW:
        raise DecimalError(f"{shown} does not fit in 64 bits", reason=Reason.VALUE_OUT_OF_RANGE)
    if fault == FAULT_SIGN:
        raise DecimalError(f"{shown} has a price that is not positive, or a negative size",
                           reason=Reason.VALUE_OUT_OF_RANGE)
    raise DecimalError(f"{shown} is not decimal text, or not in the place of it")


cdef int64_t scale_object(object text, int exponent) except? -1:
    """Scale a ``str`` or ``bytes``. Raises DecimalError."""
    cdef Fault fault = FAULT_MALFORMED
    cdef int64_t value = 0
    if isinstance(text, str):
        if PyUnicode_IS_ASCII(text):
            fault = scale_text(PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text), exponent, &value)
    elif isinstance(text, bytes):
        fault = scale_text(<const char *>text, len(<bytes>text), exponent, &value)
    else:
        raise TypeError(f"decimal text is str or bytes, not {type(text).__name__}")
    if fault != FAULT_NONE:
        raise_fault(fault, f"{text[:SHOWN]!r} (exponent {exponent})")
    return value


cdef int64_t split_object(object text, int8_t *exponent) except? -1:
    """``split_text`` of a ``str`` or ``bytes``. Raises DecimalError."""
    cdef Fault fault = FAULT_MALFORMED
    cdef int64_t value = 0
    if isinstance(text, str):
        if PyUnicode_IS_ASCII(text):
            fault = split_text(PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text), &value, exponent)
    elif isinstance(text, bytes):
        fault = split_text(<const char *>text, len(<bytes>text), &value, exponent)
    else:
        raise TypeError(f"decimal text is str or bytes, not {type(text).__name__}")
    if fault != FAULT_NONE:
        raise_fault(fault, f"{text[:SHOWN]!r}")
    return value


# ---- for Python -------------------------------------------------------------------------------------------


cdef int _checked_exponent(int exponent) except? -1:
    if not -MAX_EXPONENT <= exponent <= MAX_EXPONENT:
        raise ValueError(f"an exponent lies in -{MAX_EXPONENT}..{MAX_EXPONENT}, not at {exponent}")
    return exponent


def scale(text, int exponent):
    """The integer ``scaled`` with ``scaled * 10**exponent`` equal to decimal ``text`` (str or bytes).

    Raises DecimalError if the text is malformed or cannot be held exactly.
    """
    return scale_object(text, _checked_exponent(exponent))


def split(text):
    """The number as (value, exponent), ``value * 10**exponent`` being equal to decimal ``text`` (str or bytes).

    The exponent is the one nearest to 0, and never above it. Raises DecimalError.
    """
    cdef int8_t exponent = 0
    value = split_object(text, &exponent)
    return value, exponent


def text(value, int exponent):
    """Decimal text of ``value * 10**exponent``, with ``-exponent`` digits behind the point (none if positive)."""
    value = int(value)
    if _checked_exponent(exponent) >= 0:
        return f"{value}{'0' * exponent if value else ''}"
    digits = str(abs(value)).rjust(1 - exponent, "0")
    return f"{'-' if value < 0 else ''}{digits[:exponent]}.{digits[exponent:]}"


def to_decimal(value, int exponent):
    """``value * 10**exponent`` as a Decimal, exact whatever the decimal context."""
    return Decimal(f"{value}E{_checked_exponent(exponent)}")


def quoted_after(bytes message not None, bytes prefix not None):
    """The bytes between ``prefix``, with which ``message`` begins, and the next quote; None if there are none."""
    cdef const char *begin = message
    cdef Py_ssize_t length = len(message), skipped = len(prefix)
    cdef const char *quote
    if length < skipped or memcmp(begin, <const char *>prefix, skipped) != 0:
        return None
    begin += skipped
    quote = <const char *>memchr(begin, c'"', length - skipped)
    return begin[:quote - begin] if quote != NULL else None


# ---- times ------------------------------------------------------------------------------------------------


cdef enum:
    LONGEST_TIME = 40  # that utc_at looks for the end of


cdef inline int64_t _two(const char *p) noexcept nogil:
    """The value of two digits, -1 if they are none."""
    return (p[0] - c'0') * 10 + (p[1] - c'0') if is_digit(p[0]) and is_digit(p[1]) else -1


cdef int64_t _days(int64_t year, int64_t month, int64_t day) noexcept nogil:
    """Days from 1970-01-01 of a date of the Gregorian calendar (years from March, in eras of 400 of them)."""
    cdef int64_t y = year - (month <= 2)
    cdef int64_t era = y // 400
    cdef int64_t year_of_era = y - era * 400
    cdef int64_t day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


cdef Fault _time_ns(const char *p, Py_ssize_t length, int64_t *value) noexcept nogil:
    """``YYYY-MM-DDTHH:MM:SS[.digits]Z``, of the years from 1970 to 2261."""
    cdef int64_t century, year, month, day, hour, minute, second, fraction = 0
    cdef int days_of_month, digits = 0
    cdef Py_ssize_t at = 19
    if length < 20 or p[4] != c'-' or p[7] != c'-' or p[10] != c'T' or p[13] != c':' or p[16] != c':':
        return FAULT_MALFORMED
    if p[length - 1] != c'Z':
        return FAULT_MALFORMED
    century, year, month, day = _two(p), _two(p + 2), _two(p + 5), _two(p + 8)
    hour, minute, second = _two(p + 11), _two(p + 14), _two(p + 17)
    if century < 0 or year < 0 or not 1 <= month <= 12 or day < 1:
        return FAULT_MALFORMED
    if not 0 <= hour <= 23 or not 0 <= minute <= 59 or not 0 <= second <= 60:  # 60: a leap second
        return FAULT_MALFORMED
    year += century * 100
    days_of_month = 31 - (month == 4 or month == 6 or month == 9 or month == 11)
    if month == 2:
        days_of_month = 28 + (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0))
    if day > days_of_month:
        return FAULT_MALFORMED
    if not 1970 <= year <= 2261:
        return FAULT_OVERFLOW
    if p[at] == c'.':
        at += 1
        if at == length - 1:
            return FAULT_MALFORMED
        while at < length - 1 and is_digit(p[at]):
            if digits < 9:  # those beyond are less than a ns
                fraction = fraction * 10 + (p[at] - c'0')
                digits += 1
            at += 1
        fraction *= <int64_t>POWER[9 - digits]
    if at != length - 1:
        return FAULT_MALFORMED
    value[0] = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
    value[0] = value[0] * 1_000_000_000 + fraction
    return FAULT_NONE


cdef Fault utc_at(const char **at, const char *end, int64_t *value) noexcept nogil:
    """The time that begins at ``at``, up to the quote behind it; moves ``at`` there."""
    cdef const char *quote = NULL
    if at[0] < end:
        quote = <const char *>memchr(at[0], c'"', min(end - at[0], LONGEST_TIME + 1))
    if quote == NULL:
        return FAULT_MALFORMED
    cdef Fault fault = _time_ns(at[0], quote - at[0], value)
    at[0] = quote
    return fault


def time_ns(str text not None):
    """ns since the epoch of a time of RFC 3339 in UTC, ``2023-10-06T17:35:55.440295Z`` with any number of digits.

    Digits beyond the ninth are cut. Raises DecimalError.
    """
    cdef int64_t value = 0
    cdef Fault fault = FAULT_MALFORMED
    if PyUnicode_IS_ASCII(text):
        fault = _time_ns(PyUnicode_DATA(text), PyUnicode_GET_LENGTH(text), &value)
    if fault != FAULT_NONE:
        raise DecimalError(f"{text[:SHOWN]!r} is no time as 2023-10-06T17:35:55.440295Z is")
    return value
