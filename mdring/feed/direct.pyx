# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Direct routes: the normal next message of a stream, from its bytes to staged records, without a Python object.

A venue writes the messages of a stream in one form, and most of them are the next one in order. An adapter states that
form as a template, and a route takes what fits it to the letter::

    routes = DirectRoutes('{"stream":"', '"')           # where a message tells its stream
    routes.add("btcusdt@trade", TradeRoute(
        '{"stream":"btcusdt@trade","data":{"e":"trade","E":<any>,"s":"BTCUSDT","t":<id>,"p":"<price>","q":"<size>",'
        '"T":<time>,"m":<buyer_is_maker>,"M":<any>}}', channel, sequence, unit_ns=1_000_000))
    if routes.take(payload, emit): ...                  # staged, its event group closed, its chain moved on

Whatever does not fit (another order of fields, white space, a value that no record holds, a gap, a repeat, a book that
awaits its snapshot) is not touched, and nothing is staged: the adapter's own decoding then says what it is. So a route
never decides against a message, and a message taken is one of which the adapter would make the same records.

Fields of a template, ``<name>``. Numbers are decimal digits as JSON has them, ids below 2**63:

====================================  ==================================================================================
``any``                               a plain string or number, passed over
``time``                              in units of ``unit_ns``; 0 is no time, and not taken
``first``, ``last``, ``previous``     ids of a delta; ``last`` is also a quote's id, or a trade's venue_seq
``id``                                of a trade; if it merges fills and they are counted alike, that of the last one
``count``                             how many fills a trade merges, or their ids:
``first_fill``, ``last_fill``         of another count than ``id``; the last one is then the venue_seq
``price``, ``size``                   of a trade
``bid_price``, ``bid_size``, …        of a quote; ``ask_price``, ``ask_size``; a size above 0
``bids``, ``asks``                    arrays of ``["price","size",…]``
``buyer_is_maker``                    ``true`` or ``false``
``taker``                             ``buy`` or ``sell``
====================================  ==================================================================================

Part of the worker. ``DirectPath`` does all that the driver does for such a message, to the venue ring.
"""

cimport cython
from libc.stdint cimport INT64_MAX, uint32_t
from libc.string cimport memchr, memcmp, memset

import re

from mdring.feed.fixed cimport FAULT_NONE, Fault, number_at
from mdring.feed.levels cimport FORM_PLAIN, LevelRecords, scan_levels_at, skip_plain
from mdring.record import Aggressor, Flags, Side
from mdring.ring._ring cimport load_acquire_u64

cdef enum:
    LITERAL
    ANY
    NUMBER
    PRICE
    SIZE
    LEVELS
    BUYER_IS_MAKER
    TAKER

cdef enum:
    # Slots of Values.numbers.
    TIME
    FIRST
    LAST
    PREVIOUS
    ID
    FIRST_FILL
    LAST_FILL
    COUNT

_FIELDS = {
    "any": (ANY, 0), "time": (NUMBER, TIME), "first": (NUMBER, FIRST), "last": (NUMBER, LAST),
    "previous": (NUMBER, PREVIOUS), "id": (NUMBER, ID), "first_fill": (NUMBER, FIRST_FILL),
    "last_fill": (NUMBER, LAST_FILL), "count": (NUMBER, COUNT), "price": (PRICE, 0), "size": (SIZE, 0), "bid_price": (PRICE, 0),
    "bid_size": (SIZE, 0), "ask_price": (PRICE, 1), "ask_size": (SIZE, 1), "bids": (LEVELS, 0), "asks": (LEVELS, 1),
    "buyer_is_maker": (BUYER_IS_MAKER, 0), "taker": (TAKER, 0),
}
_NAME = re.compile(r"<(\w+)>")

cdef int BUY = Aggressor.BUY
cdef int SELL = Aggressor.SELL
cdef int BID = Side.BID
cdef int ASK = Side.ASK
# A number of so many digits fits in 63 bits without a check.
cdef Py_ssize_t SAFE_DIGITS = 18

NOT_TAKEN = 0
TAKEN = 1
REFUSED = 2
SAVE_DUE = 3


cdef inline bint _digits(const char **at, const char *end, int64_t *value) noexcept:
    """A whole number as JSON has it."""
    cdef const char *p = at[0]
    cdef const char *begin = p
    cdef int64_t number = 0
    while p < end and c'0' <= p[0] <= c'9':
        number = number * 10 + (p[0] - c'0')
        p += 1
        if p - begin > SAFE_DIGITS:
            return False
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


cdef class Route:
    """One stream of one instrument: the form of its messages, and the chain that tells the next one."""

    def __init__(self, str template not None, Channel channel not None, Chain chain not None, *, int64_t unit_ns,
                 int flags=0, int count_at=0):
        self.channel = channel
        self.chain = chain
        self.unit_ns = unit_ns
        self.flags = flags
        self.count_at = count_at
        self.compile(template)

    cdef int compile(self, str template) except -1:
        parts = _NAME.split(template)  # literal, name, literal, …
        literals = [part.encode() for part in parts[::2]]
        self.text = b"".join(literals)
        names = parts[1::2]
        unknown = [name for name in names if name not in _FIELDS]
        if unknown or len(parts) > MAX_STEPS:
            raise ValueError(f"a template of {len(parts)} parts, with unknown fields {unknown}")
        begin = 0
        for number, literal in enumerate(literals):
            if literal:
                self.add(LITERAL, 0, begin, len(literal))
            begin += len(literal)
            if number < len(names):
                kind, slot = _FIELDS[names[number]]
                self.add(kind, slot, 0, 0)
        stamped = [names.index(name) for name in ("time", "last") if name in names]
        levels = [names.index(name) for name in ("bids", "asks") if name in names]
        self.late_stamp = bool(levels) and max(stamped) > min(levels)
        return 0

    cdef int add(self, int kind, int slot, Py_ssize_t begin, Py_ssize_t length) except -1:
        cdef Step *step = &self.steps[self.step_count]
        step.kind = kind
        step.slot = slot
        step.begin = begin
        step.length = length
        self.step_count += 1
        if kind == NUMBER:
            self.present |= 1u << slot
        return 0

    cdef int64_t ns(self, const Values *values) noexcept:
        """The time of a message; 0 if it has none, or none that fits."""
        cdef int64_t units = values.numbers[TIME]
        return units * self.unit_ns if units <= INT64_MAX // self.unit_ns else 0

    cdef bint match(self, const char *p, const char *end, Emit emit, Values *values) noexcept:
        """Whether the message has this form; then its values, and levels behind the staged records."""
        cdef const char *text = self.text
        cdef Step *step = self.steps
        cdef Step *stop = step + self.step_count
        cdef LevelRecords *target
        cdef Fault fault
        cdef Py_ssize_t count, written = 0
        while step < stop:
            if step.kind == LITERAL:
                if end - p < step.length or memcmp(p, text + step.begin, step.length) != 0:
                    return False
                p += step.length
            elif step.kind == NUMBER:
                if not _digits(&p, end, &values.numbers[step.slot]):
                    return False
            elif step.kind == PRICE:
                if number_at(&p, end, self.channel.price_exponent, &values.prices[step.slot]) != FAULT_NONE:
                    return False
            elif step.kind == SIZE:
                if number_at(&p, end, self.channel.size_exponent, &values.sizes[step.slot]) != FAULT_NONE:
                    return False
            elif step.kind == LEVELS:
                target = emit.level_target(self.channel, ASK if step.slot else BID, self.ns(values),
                                           values.numbers[LAST], self.flags, FORM_PLAIN, self.count_at)
                target.records += written * target.record_size
                target.capacity -= written
                target.checked = False
                count = scan_levels_at(&p, end, self.channel.price_exponent, self.channel.size_exponent, target, &fault)
                target.checked = True
                if count < 0:
                    return False
                values.levels[step.slot] = count
                written += count
            elif step.kind == BUYER_IS_MAKER:
                values.taker_sold = p < end and p[0] == c't'
                if not (_word(&p, end, b"true", 4) if values.taker_sold else _word(&p, end, b"false", 5)):
                    return False
            elif step.kind == TAKER:
                values.taker_sold = p < end and p[0] == c's'
                if not (_word(&p, end, b"sell", 4) if values.taker_sold else _word(&p, end, b"buy", 3)):
                    return False
            elif not skip_plain(&p, end):
                return False
            step += 1
        return p == end

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        """Stage the message's records as an event group and move the chain on, if it is the normal next one."""
        return 0


@cython.final
cdef class DeltaRoute(Route):
    """The deltas of a book. The chain is the ``BookSync`` or the ``SocketBook`` of the instrument."""

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        cdef Chain chain = self.chain
        cdef Values values
        cdef int64_t first, last, ts_event
        cdef Py_ssize_t begun = emit.record_count
        if not chain.live:
            return 0
        memset(&values, 0, sizeof(Values))
        emit.reserve((end - p) // 6 + 2)
        if not self.match(p, end, emit, &values):
            return 0
        last = values.numbers[LAST]
        first = values.numbers[FIRST if self.present & (1u << FIRST) else PREVIOUS]
        ts_event = self.ns(&values)
        if ts_event == 0 or last < first:
            return 0
        if (values.numbers[PREVIOUS] if chain.chained else first - 1) != chain.last:
            return 0
        if self.late_stamp:
            emit.restamp(begun, values.levels[0] + values.levels[1], ts_event, last)
        if values.levels[0] + values.levels[1]:
            emit.add_levels(self.channel, values.levels[0] + values.levels[1])
            emit.close_group()
        chain.first = first
        chain.last = last
        chain.due = last if chain.chained else last + 1
        return 1


@cython.final
cdef class QuoteRoute(Route):
    """The best bid and ask of an instrument. ``last`` must rise, if the template has it; a time is optional."""

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        cdef Chain chain = self.chain
        cdef Values values
        cdef int64_t ts_event
        memset(&values, 0, sizeof(Values))
        if not chain.live or not self.match(p, end, emit, &values):
            return 0
        if self.present & (1u << LAST) and values.numbers[LAST] <= chain.last:
            return 0
        if values.prices[0] <= 0 or values.prices[1] <= 0 or values.sizes[0] <= 0 or values.sizes[1] <= 0:
            return 0
        ts_event = self.ns(&values)
        if self.present & (1u << TIME) and ts_event == 0:
            return 0
        emit.next_bbo(self.channel, values.prices, values.sizes, ts_event, values.numbers[LAST], self.flags)
        emit.close_group()
        chain.last = values.numbers[LAST]
        return 1


@cython.final
cdef class TradeRoute(Route):
    """The trades of an instrument, with consecutive ids. The chain is their ``IdSequence``."""

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        cdef Chain chain = self.chain
        cdef Values values
        cdef int64_t fills = 1, first, number, venue_seq, ts_event
        memset(&values, 0, sizeof(Values))
        if not chain.live or not self.match(p, end, emit, &values):
            return 0
        first = number = venue_seq = values.numbers[ID]
        if self.present & (1u << LAST):
            venue_seq = values.numbers[LAST]
        if self.present & (1u << COUNT):
            fills = values.numbers[COUNT]
            first = number - fills + 1
        elif self.present & (1u << LAST_FILL):
            venue_seq = values.numbers[LAST_FILL]
            fills = venue_seq - values.numbers[FIRST_FILL] + 1
        if first < 0 or (first != chain.due and chain.due >= 0) or values.prices[0] <= 0 or values.sizes[0] <= 0 or not 0 < fills < 2**32:
            return 0
        ts_event = self.ns(&values)
        if ts_event == 0:
            return 0
        emit.next_trade(self.channel, values.prices[0], values.sizes[0], SELL if values.taker_sold else BUY, number,
                        ts_event, venue_seq, self.flags, <uint32_t>fills)
        emit.close_group()
        chain.due = number + 1
        return 1


@cython.final
cdef class DirectRoutes:
    """The routes of an adapter, by the part of a message that names its stream: between ``prefix``, with which
    messages begin, and the next ``stop``. ``taken`` counts the messages."""

    def __init__(self, str prefix not None, str stop not None):
        self.prefix = prefix.encode("ascii")
        self.stop = ord(stop)
        self.routes = {}

    def add(self, str key not None, Route route not None):
        """Take the messages of a stream. Not for two routes of one key."""
        encoded = key.encode()
        if encoded in self.routes:
            raise ValueError(f"there is a route of {key!r} already")
        self.routes[encoded] = route

    def take(self, bytes payload not None, Emit emit not None):
        """Stage the records of a message, if it is the normal next one of a route; whether it was."""
        return self.take_staged(payload, emit) != 0

    cdef int take_staged(self, bytes payload, Emit emit) except -1:
        cdef const char *p = payload
        cdef const char *end = p + len(payload)
        cdef const char *key = p + len(self.prefix)
        cdef const char *stop
        if key >= end or memcmp(p, <const char *>self.prefix, key - p) != 0:
            return 0
        stop = <const char *>memchr(key, self.stop, end - key)
        if stop == NULL:
            return 0
        found = self.routes.get(key[:stop - key])
        if found is None:
            return 0
        if not (<Route>found).take(p, end, emit):
            return 0
        self.taken += 1
        return 1


@cython.final
cdef class DirectPath:
    """From a message to the venue ring: what driver and publisher do for one, in one native call.

    ``enabled`` is False while the publisher lets nothing through; at seq ``save_at`` it must save the channels.
    """

    def __init__(self, DirectRoutes routes not None, Emit emit not None, Writer writer not None,
                 Words sequencer not None, Py_ssize_t position_word, Py_ssize_t waiting_word):
        for index in (position_word, waiting_word):
            if not 0 <= index < sequencer.count:
                raise IndexError(f"word {index} of {sequencer.count}")
        self.routes = routes
        self.emit = emit
        self.writer = writer
        self.sequencer = sequencer
        self.position_word = position_word
        self.waiting_word = waiting_word
        self.enabled = True

    def take(self, bytes payload not None, int64_t ts_recv):
        """NOT_TAKEN; or TAKEN, of which SAVE_DUE and REFUSED say that the publisher has something to do besides: save
        the channels, note the loss of ``emit.refused`` records to a full ring."""
        cdef Emit emit = self.emit
        if not self.enabled:
            return NOT_TAKEN
        emit.ts_recv = ts_recv
        if not self.routes.take_staged(payload, emit):
            return NOT_TAKEN
        emit.count_frames(1, len(payload))
        if emit.record_count == 0:
            return TAKEN
        if emit.commit_staged(self.writer, load_acquire_u64(self.sequencer.words + self.position_word), True):
            self.writer.wake_waiting(self.sequencer.words + self.waiting_word)
        if emit.refused:
            return REFUSED
        return SAVE_DUE if self.writer.published >= self.save_at else TAKEN
