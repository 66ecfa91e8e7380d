# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Templates of messages: text to be found as it stands, with fields in it, ``<name>``, whose values are read.

::

    {"e":"trade","t":<id>,"p":"<price>","q":"<size>","T":<time>,"m":<buyer_is_maker>,"M":<any>}

A message has a form if it is its template to the letter, each field having text that it can read. Whatever stands in
quotes in the template does so in the message, and what does not is JSON there, as it must be. No form reads a byte
outside the message it is given. Numbers are decimal digits as JSON has them, ids below 2**63:

====================================  ==================================================================================
``any``                               a plain string, number, ``true``, ``false`` or ``null``, passed over
``text``                              a plain string with its quotes, passed over: where decoding wants one
``whole``                             a whole number, passed over: likewise
``time``                              a count of ``unit_ns``; 0 is no time, and not taken
``utc``                               the same as ``2023-10-06T17:35:55.440295Z``, with any number of digits
``stamp``                             a ``time`` that is the ``last`` id of a delta, too; it may not fall
``first``, ``last``, ``previous``     ids of a delta; ``last`` is also a quote's id, or a trade's venue_seq
``id``                                of a trade; if it merges fills and they are counted alike, that of the last one
``text_id``                           the same of text in quotes: digits, a UUID, or few characters
``number``                            that by which messages are consecutive where their ids are not: of a delta or a
                                      quote, whose ``last`` is then venue_seq alone; of a trade, whose venue_seq it is
``count``                             how many fills a trade merges, or their ids:
``first_fill``, ``last_fill``         of another count than ``id``; the last one is then the venue_seq
``price``, ``size``                   of a trade
``bid_price``, ``bid_size``, …        of a quote; ``ask_price``, ``ask_size``; a size above 0
``bids``, ``asks``                    arrays of levels ``["price","size",…]``, quoted or not
``action_bids``, ``action_asks``      of levels ``["new",price,size]``, or ``change``, or ``delete``
``object_bids``, ``object_asks``      of levels ``{"price":…,"qty":…}``
``changes``                           of levels of both sides, ``["buy","price","size"]``, or ``sell``
``checksum``                          of a book as it is after the message
``buyer_is_maker``                    ``true`` or ``false``
``taker``, ``maker``                  ``buy`` or ``sell``: the side of that order of a trade
``Taker``                             ``Buy`` or ``Sell``
``taker_sells``                       ``1`` or ``0``
====================================  ==================================================================================

Two more say something of what stands behind them:

* ``<members>{…}``: the members of this object, none of which is an object, come in any order, all of them, each once.
  That of the last message is tried first. A member whose value is ``<maybe>``, else like ``any``, may be missing.
* ``<rows>[…]``: the array has one trade or several, each as it is written here.

Part of the worker; ``direct.pyx`` and ``book_routes.pyx`` are made of forms.
"""

from libc.stdint cimport INT64_MAX
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy

import re

from mdring.feed.fixed cimport FAULT_NONE, Fault, is_digit, is_json_number, number_at, utc_at
from mdring.feed.levels cimport (
    FORM_ACTION, FORM_OBJECT, FORM_PLAIN, FORM_SIDED, LevelRecords, scan_levels_at, skip_plain,
)
from mdring.record import TRADE_ID_BYTES, Side, TradeIdFormat

cdef enum:
    LITERAL
    ANY
    TEXT
    WHOLE
    PRICE
    SIZE
    LEVELS
    BUYER_IS_MAKER
    TAKER
    MAKER
    UTC
    TEXT_ID
    TAKER_CAPITAL
    TAKER_SELLS
    STAMP
    MEMBERS
    MEMBER
    ROWS

_FIELDS = {
    "any": (ANY, 0, FORM_PLAIN), "text": (TEXT, 0, FORM_PLAIN), "whole": (WHOLE, PASSED, FORM_PLAIN),
    "maybe": (ANY, 1, FORM_PLAIN), "time": (WHOLE, TIME, FORM_PLAIN),
    "utc": (UTC, TIME, FORM_PLAIN), "first": (WHOLE, FIRST, FORM_PLAIN), "last": (WHOLE, LAST, FORM_PLAIN),
    "previous": (WHOLE, PREVIOUS, FORM_PLAIN), "id": (WHOLE, ID, FORM_PLAIN), "text_id": (TEXT_ID, 0, FORM_PLAIN),
    "number": (WHOLE, NUMBER, FORM_PLAIN), "first_fill": (WHOLE, FIRST_FILL, FORM_PLAIN),
    "last_fill": (WHOLE, LAST_FILL, FORM_PLAIN), "count": (WHOLE, COUNT, FORM_PLAIN),
    "checksum": (WHOLE, CHECKSUM, FORM_PLAIN), "price": (PRICE, 0, FORM_PLAIN),
    "size": (SIZE, 0, FORM_PLAIN), "bid_price": (PRICE, 0, FORM_PLAIN), "bid_size": (SIZE, 0, FORM_PLAIN),
    "ask_price": (PRICE, 1, FORM_PLAIN), "ask_size": (SIZE, 1, FORM_PLAIN), "bids": (LEVELS, 0, FORM_PLAIN),
    "asks": (LEVELS, 1, FORM_PLAIN), "action_bids": (LEVELS, 0, FORM_ACTION), "action_asks": (LEVELS, 1, FORM_ACTION),
    "object_bids": (LEVELS, 0, FORM_OBJECT), "object_asks": (LEVELS, 1, FORM_OBJECT),
    "changes": (LEVELS, 0, FORM_SIDED), "buyer_is_maker": (BUYER_IS_MAKER, 0, FORM_PLAIN),
    "taker": (TAKER, 0, FORM_PLAIN), "maker": (MAKER, 0, FORM_PLAIN), "Taker": (TAKER_CAPITAL, 0, FORM_PLAIN),
    "taker_sells": (TAKER_SELLS, 0, FORM_PLAIN), "stamp": (STAMP, LAST, FORM_PLAIN),
}
_NAME = re.compile(r"<(\w+)>")

cdef int BID = Side.BID
cdef int ASK = Side.ASK
# A number of so many digits fits in 63 bits without a check.
cdef Py_ssize_t SAFE_DIGITS = 18
cdef int ID_INTEGER = TradeIdFormat.INTEGER
cdef int ID_UUID = TradeIdFormat.UUID
cdef int ID_TEXT = TradeIdFormat.TEXT
cdef enum:
    TEXT_ID_BYTES = 16
    UUID_BYTES = 36
if TRADE_ID_BYTES != TEXT_ID_BYTES:
    raise ImportError("the id of a trade has outgrown template.pyx")


cdef inline bint _digits(const char **at, const char *end, int64_t *value) noexcept:
    """A whole number as JSON has it, to which 1 may be added."""
    cdef const char *p = at[0]
    cdef const char *begin = p
    cdef int64_t number = 0
    while p < end and c'0' <= p[0] <= c'9':
        if p - begin >= SAFE_DIGITS and number > (INT64_MAX - 1 - (p[0] - c'0')) // 10:
            return False
        number = number * 10 + (p[0] - c'0')
        p += 1
    if p == begin or (begin[0] == c'0' and p - begin > 1):
        return False
    at[0] = p
    value[0] = number
    return True


cdef inline bint _word(const char **at, const char *end, const char *word, Py_ssize_t length) noexcept:
    if end - at[0] < length or memcmp(at[0], word, length) != 0:
        return False
    at[0] += length
    return True


cdef inline bint _side(const char **at, const char *end, bint *sells) noexcept:
    sells[0] = at[0] < end and at[0][0] == c's'
    return _word(at, end, b"sell", 4) if sells[0] else _word(at, end, b"buy", 3)


cdef inline int _hex(char c) noexcept:
    """The value of a digit of a UUID as it is mostly written; -1 of none."""
    if is_digit(c):
        return c - c'0'
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1


cdef bint _uuid(const char *p, Values *values) noexcept:
    cdef Py_ssize_t i, half = 1
    cdef int digit, count = 0
    for i in range(UUID_BYTES):
        if i == 8 or i == 13 or i == 18 or i == 23:
            if p[i] != c'-':
                return False
            continue
        digit = _hex(p[i])
        if digit < 0:
            return False
        if count == 16:
            half = 0
        values.text_id[half] = values.text_id[half] << 4 | <uint64_t>digit
        count += 1
    return True


cdef bint _text_id(const char **at, const char *end, Values *values) noexcept:
    """The id of a trade, as ``trade_id.py`` reads it, up to the quote behind it."""
    cdef const char *p = at[0]
    cdef const char *quote = <const char *>memchr(p, c'"', min(end - p, UUID_BYTES + 1)) if p < end else NULL
    cdef Py_ssize_t length, i
    cdef int64_t number = 0
    cdef char text[TEXT_ID_BYTES]
    if quote == NULL or quote == p:
        return False
    length = quote - p
    values.text_id[0] = values.text_id[1] = 0
    values.text_id_format = ID_INTEGER
    if _digits(at, quote, &number) and at[0] == quote:
        values.text_id[0] = <uint64_t>number
        return True
    at[0] = quote
    values.text_id_format = ID_UUID
    if length == UUID_BYTES:
        return _uuid(p, values)
    values.text_id_format = ID_TEXT
    if length > TEXT_ID_BYTES:
        return False
    for i in range(TEXT_ID_BYTES):
        text[i] = p[i] if i < length else 0
        if i < length and (p[i] < c' ' or p[i] > c'~' or p[i] == c'\\'):
            return False
    memcpy(values.text_id, text, TEXT_ID_BYTES)
    return True


cdef class Form:
    """The form of a stream's messages, of one instrument. ``flags`` are those of its records, ``count_at`` which element
    of a level is its number of orders (0: none is)."""

    def __cinit__(self):
        self.rows = -1

    def __dealloc__(self):
        free(self.steps)
        free(self.order)

    cdef int add(self, int kind, int slot, LevelForm form=FORM_PLAIN) except -1:
        """Add a step; its number."""
        cdef int at = self.step_count
        cdef Step *steps
        if at == MAX_STEPS:
            raise ValueError(f"a template of more than {MAX_STEPS} parts")
        steps = <Step *>realloc(self.steps, (at + 1) * sizeof(Step))
        if steps == NULL:
            raise MemoryError("no memory for a template")
        self.steps = steps
        steps[at] = Step(kind, slot, at + 1, form, False, False, len(self.text), 0)
        self.step_count += 1
        return at

    cdef int compile(self, str template) except -1:
        """Take a template. Raises ValueError for one that cannot be read."""
        cdef int at, i, time_at = -1, id_at = -1, levels_at
        self.text = b""
        self.parse(template, 0, "")
        levels_at = self.step_count
        self.order = <uint8_t *>realloc(self.order, self.step_count + 1)
        if self.order == NULL:
            raise MemoryError("no memory for a template")
        for at in range(self.step_count):
            if self.steps[at].kind == MEMBERS:
                i = at + 1
                while i < self.steps[at].stop:
                    self.order[at + 1 + self.steps[at].slot] = i
                    self.steps[at].slot += 1
                    i = self.steps[i].stop
                self.late_stamp = True
            elif self.steps[at].kind == LEVELS:
                levels_at = min(levels_at, at)
            elif self.steps[at].kind == UTC or (self.steps[at].kind == WHOLE and self.steps[at].slot == TIME):
                time_at = at
            elif self.steps[at].kind == STAMP or (self.steps[at].kind == WHOLE and self.steps[at].slot == LAST):
                id_at = at
        self.late_stamp = levels_at < self.step_count and (self.late_stamp or max(time_at, id_at) > levels_at)
        return 0

    cdef Py_ssize_t parse(self, str template, Py_ssize_t i, str closing) except -1:
        """Add the steps from ``i`` on, up to one of the characters ``closing`` that closes what is open there; where
        that stands."""
        cdef int depth = 0, at, row
        literal = ""
        while i < len(template) and not (depth == 0 and template[i] in closing):
            name = _NAME.match(template, i)
            if name is None:
                depth += (template[i] in "[{") - (template[i] in "]}")
                literal += template[i]
                i += 1
                continue
            self.add_literal(literal)
            literal = ""
            i = name.end()
            if name[1] == "members" and template[i:i + 1] == "{":
                i = self.parse_members(template, i + 1)
            elif name[1] == "rows" and template[i:i + 1] == "[" and self.rows < 0:
                row = self.add(ROWS, 0)
                i = self.parse(template, i + 1, "]") + 1
                self.steps[row].stop = self.step_count
                self.rows = row
            elif name[1] in _FIELDS and (name[1] != "maybe" or closing == ",}"):
                kind, slot, form = _FIELDS[name[1]]
                at = self.add(kind, slot, form)
                self.steps[at].bare = not template[:name.start()].endswith('"')
                self.steps[at].optional = name[1] == "maybe"
                if kind == WHOLE or kind == UTC or kind == STAMP:
                    self.present |= 1u << <int>slot
                if kind == STAMP:
                    self.present |= 1u << TIME
                    self.is_stamped = True
                self.has_text_id = self.has_text_id or kind == TEXT_ID
                if kind == UTC:
                    self.unit_ns = 1
                if self.steps[at].bare and (kind == UTC or kind == TEXT_ID):
                    raise ValueError(f"a template has {name[0]} without quotes: {template!r}")
            else:
                raise ValueError(f"a template has no field {name[0]} there: {template!r}")
        self.add_literal(literal)
        if closing and i >= len(template):
            raise ValueError(f"a template has an array or object without an end: {template!r}")
        return i

    cdef Py_ssize_t parse_members(self, str template, Py_ssize_t i) except -1:
        """The members of an object, the first of which begins at ``i``; what stands behind the object."""
        cdef int group = self.add(MEMBERS, 0), member, at
        while True:
            member = self.add(MEMBER, 0)
            i = self.parse(template, i, ",}")
            if self.step_count == member + 1 or self.steps[member + 1].kind != LITERAL:
                raise ValueError(f"a template has a member without a name: {template!r}")
            self.steps[member].stop = self.step_count
            self.steps[member].begin = self.steps[member + 1].begin
            self.steps[member].length = self.steps[member + 1].length
            for at in range(member, self.step_count):
                self.steps[member].optional = self.steps[member].optional or self.steps[at].optional
            if template[i] == "}":
                break
            i += 1
        self.steps[group].stop = self.step_count
        return i + 1

    cdef int add_literal(self, str literal) except -1:
        """Text to be found as it stands."""
        cdef int at
        if literal:
            at = self.add(LITERAL, 0)
            self.text += literal.encode()
            self.steps[at].length = len(self.text) - self.steps[at].begin
        return 0

    cdef int64_t ns(self, const Values *values) noexcept:
        """The time of a message; 0 if it has none, or none that fits."""
        cdef int64_t units = values.numbers[TIME]
        return units * self.unit_ns if units <= INT64_MAX // self.unit_ns else 0

    cdef const char *match(self, int first, int stop, const char *p, const char *end, Emit emit,
                           Values *values) noexcept:
        """Where what matches the steps from ``first`` to ``stop`` ends; NULL: nothing does. Fills in values, and puts
        levels behind the staged records."""
        cdef const char *text = self.text
        cdef Step *step = self.steps + first
        cdef Step *last = self.steps + stop
        cdef LevelRecords *target
        cdef Fault fault
        cdef Py_ssize_t count
        cdef bint sells
        while step < last:
            if step.kind == LITERAL:
                if end - p < step.length or memcmp(p, text + step.begin, step.length) != 0:
                    return NULL
                p += step.length
            elif step.kind == WHOLE:
                if not _digits(&p, end, &values.numbers[step.slot]):
                    return NULL
            elif step.kind == PRICE:
                if step.bare and not is_json_number(p, end):
                    return NULL
                if number_at(&p, end, self.channel.price_exponent, &values.prices[step.slot]) != FAULT_NONE:
                    return NULL
            elif step.kind == SIZE:
                if step.bare and not is_json_number(p, end):
                    return NULL
                if number_at(&p, end, self.channel.size_exponent, &values.sizes[step.slot]) != FAULT_NONE:
                    return NULL
            elif step.kind == LEVELS:
                target = emit.level_target(self.channel, ASK if step.slot else BID, self.ns(values),
                                           values.numbers[LAST], self.flags, <LevelForm>step.form, self.count_at)
                count = values.levels[0] + values.levels[1]
                target.records += count * target.record_size
                target.capacity -= count
                target.checked = False
                count = scan_levels_at(&p, end, self.channel.price_exponent, self.channel.size_exponent, target, &fault)
                target.checked = True
                if count < 0:
                    return NULL
                values.levels[step.slot] = count
            elif step.kind == BUYER_IS_MAKER:
                values.taker_sold = p < end and p[0] == c't'
                if not (_word(&p, end, b"true", 4) if values.taker_sold else _word(&p, end, b"false", 5)):
                    return NULL
            elif step.kind == TAKER:
                if not _side(&p, end, &values.taker_sold):
                    return NULL
            elif step.kind == MAKER:
                if not _side(&p, end, &sells):
                    return NULL
                values.taker_sold = not sells
            elif step.kind == TAKER_CAPITAL:
                values.taker_sold = p < end and p[0] == c'S'
                if not (_word(&p, end, b"Sell", 4) if values.taker_sold else _word(&p, end, b"Buy", 3)):
                    return NULL
            elif step.kind == TAKER_SELLS:
                values.taker_sold = p < end and p[0] == c'1'
                if not _word(&p, end, b"1" if values.taker_sold else b"0", 1):
                    return NULL
            elif step.kind == STAMP:
                if not _digits(&p, end, &values.numbers[LAST]):
                    return NULL
                values.numbers[TIME] = values.numbers[LAST]
            elif step.kind == UTC:
                if utc_at(&p, end, &values.numbers[TIME]) != FAULT_NONE:
                    return NULL
            elif step.kind == TEXT_ID:
                if not _text_id(&p, end, values):
                    return NULL
            elif step.kind == MEMBERS:
                p = self.match_members(<int>(step - self.steps), p, end, emit, values)
                if p == NULL:
                    return NULL
                step = self.steps + step.stop
                continue
            elif (step.kind == TEXT and (p == end or p[0] != c'"')) or not skip_plain(&p, end):
                return NULL
            step += 1
        return p

    cdef const char *match_members(self, int at, const char *p, const char *end, Emit emit, Values *values) noexcept:
        """An object whose members come in any order."""
        cdef uint8_t *order = self.order + at + 1
        cdef int count = self.steps[at].slot, i, j, found
        cdef Step *member
        if p == end or p[0] != c'{':
            return NULL
        p += 1
        for i in range(count):
            j = i
            while True:
                if j == count:
                    return NULL
                member = self.steps + order[j]
                if end - p >= member.length and memcmp(p, <const char *>self.text + member.begin, member.length) == 0:
                    break
                j += 1
            found = order[j]
            order[j] = order[i]
            order[i] = found
            p = self.match(found + 2, member.stop, p + member.length, end, emit, values)
            if p == NULL or p == end:
                return NULL
            if p[0] == c'}':
                for j in range(i + 1, count):
                    if not self.steps[order[j]].optional:
                        return NULL
                return p + 1
            if p[0] != c',':
                return NULL
            p += 1
        return NULL
