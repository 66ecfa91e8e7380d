# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Direct routes: the normal next message of a stream, from its bytes to staged records, without a Python object.

A venue writes the messages of a stream in one form, and most of them are the next one in order. An adapter states that
form as a template (``template.pyx`` has the fields), and a route takes what fits it to the letter::

    routes = DirectRoutes('{"stream":"', '"')           # where a message tells its stream
    routes.add("btcusdt@trade", TradeRoute(
        '{"stream":"btcusdt@trade","data":{"e":"trade","E":<any>,"s":"BTCUSDT","t":<id>,"p":"<price>","q":"<size>",'
        '"T":<time>,"m":<buyer_is_maker>,"M":<any>}}', channel, sequence, unit_ns=1_000_000))
    if routes.take(0, payload, emit): ...               # staged, its event group closed, its chain moved on

Whatever does not fit (another order of members, white space, a value that no record holds, a gap, a repeat, a book that
awaits its snapshot) is not touched, and nothing is staged: the adapter's own decoding then says what it is. So a route
never decides against a message, and a message taken is one of which the adapter would make the same records.

Routes of books that the adapter keeps itself stand in ``book_routes.pyx``.

Part of the worker. ``DirectPath`` does all that the driver does for such a message, to the venue ring.
"""

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy, memset

from mdring.feed.stage cimport Channel
from mdring.feed.template cimport (
    COUNT, FIRST, FIRST_FILL, ID, LAST, LAST_FILL, NUMBER, PREVIOUS, TIME,
)
from mdring.record import Aggressor
from mdring.ring._ring cimport load_acquire_u64

cdef extern from "string.h" nogil:
    void *memmem(const void *text, size_t length, const void *sought, size_t sought_length)

cdef int BUY = Aggressor.BUY
cdef int SELL = Aggressor.SELL
# An odd number of 64 bits that look random.
cdef uint64_t MIX = 0x9E3779B97F4A7C15
# The record has four bytes for how many fills a trade merges.
cdef int64_t MOST_FILLS = 0xFFFFFFFF


cdef class Route(Form):
    """One stream of one instrument: the form of its messages, and the chain that tells the next one.

    ``unit_ns`` is the unit of times that are counts. ``taken_ns`` is when the last message that was taken had come.
    """

    def __init__(self, str template not None, Channel channel not None, Chain chain not None, *, int64_t unit_ns=1,
                 int flags=0, int count_at=0):
        self.channel = channel
        self.chain = chain
        self.unit_ns = unit_ns
        self.flags = flags
        self.count_at = count_at
        self.compile(template)
        if self.rows >= 0 and not isinstance(self, TradeRoute):
            raise ValueError(f"only trades come in rows: {template!r}")

    cdef bint follows(self, const Values *values, int64_t ts_event) noexcept:
        """Whether a delta is the next one: by its number, by the id before it, by its first one, or, with ``last``
        alone, by that it rises. If it has no ids, the order in which it came is all there is."""
        cdef Chain chain = self.chain
        cdef int64_t last = values.numbers[LAST]
        if ts_event == 0:
            return False
        if self.present & (1u << NUMBER):
            return values.numbers[NUMBER] == chain.last + 1
        if self.present & (1u << PREVIOUS) and chain.chained:
            if values.numbers[PREVIOUS] != chain.last:
                return False
        elif self.present & (1u << FIRST):
            if chain.chained or values.numbers[FIRST] - 1 != chain.last:
                return False
        elif self.present & (1u << LAST):
            return last > chain.last or (self.is_stamped and last == chain.last)
        return last >= values.numbers[FIRST if self.present & (1u << FIRST) else PREVIOUS]

    cdef void move_on(self, const Values *values) noexcept:
        """Go on behind a delta."""
        cdef Chain chain = self.chain
        cdef int64_t last = values.numbers[NUMBER if self.present & (1u << NUMBER) else LAST]
        chain.first = last
        if self.present & (1u << FIRST | 1u << PREVIOUS):
            chain.first = values.numbers[FIRST if self.present & (1u << FIRST) else PREVIOUS]
        chain.last = last
        chain.due = last if chain.chained else last + 1

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        """Stage the message's records as an event group and move the chain on, if it is the normal next one."""
        return 0


@cython.final
cdef class DeltaRoute(Route):
    """The deltas of a book. The chain is the ``BookSync`` or the ``SocketBook`` of the instrument."""

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        cdef Values values
        cdef int64_t ts_event
        cdef Py_ssize_t count, begun = emit.record_count
        if not self.chain.live:
            return 0
        memset(&values, 0, sizeof(Values))
        emit.reserve((end - p) // 6 + 2)
        if self.match(0, self.step_count, p, end, emit, &values) != end:
            return 0
        ts_event = self.ns(&values)
        if not self.follows(&values, ts_event):
            return 0
        count = values.levels[0] + values.levels[1]
        if self.late_stamp:
            emit.restamp(begun, count, ts_event, values.numbers[LAST])
        if count:
            emit.add_levels(self.channel, count)
            emit.close_group()
        self.move_on(&values)
        return 1


@cython.final
cdef class QuoteRoute(Route):
    """The best bid and ask of an instrument. ``number``, else ``last``, must rise, if the template has it; else it is 0
    of the chain once one was taken. A time is optional."""

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        cdef Chain chain = self.chain
        cdef Values values
        cdef int64_t ts_event, counted
        memset(&values, 0, sizeof(Values))
        if not chain.live or self.match(0, self.step_count, p, end, emit, &values) != end:
            return 0
        counted = values.numbers[NUMBER if self.present & (1u << NUMBER) else LAST]
        if self.present & (1u << NUMBER | 1u << LAST) and counted <= chain.last:
            return 0
        if values.prices[0] <= 0 or values.prices[1] <= 0 or values.sizes[0] <= 0 or values.sizes[1] <= 0:
            return 0
        ts_event = self.ns(&values)
        if self.present & (1u << TIME) and ts_event == 0:
            return 0
        emit.next_bbo(self.channel, values.prices, values.sizes, ts_event, values.numbers[LAST], self.flags)
        emit.close_group()
        chain.last = counted
        return 1


@cython.final
cdef class TradeRoute(Route):
    """The trades of an instrument. Their ids are consecutive, and the chain is their ``IdSequence``; if they are not
    (``consecutive``), it has the last one in ``last``, which may not come again. Those of one message are one event
    group. venue_seq is ``last``; without that it is the id of consecutive ones, 0 of others."""

    cdef bint consecutive

    def __init__(self, str template not None, Channel channel not None, Chain chain not None, *, int64_t unit_ns=1,
                 int flags=0, bint consecutive=True):
        Route.__init__(self, template, channel, chain, unit_ns=unit_ns, flags=flags)
        self.consecutive = consecutive

    cdef int take(self, const char *p, const char *end, Emit emit) except -1:
        cdef Values values
        cdef Py_ssize_t begun = emit.record_count
        cdef int64_t due = self.chain.due, last = self.chain.last
        cdef bint is_next
        if not self.chain.live:
            return 0
        memset(&values, 0, sizeof(Values))
        if self.rows < 0:
            is_next = self.match(0, self.step_count, p, end, emit, &values) == end and self.stage(&values, emit)
        else:
            is_next = self.stage_rows(p, end, &values, emit)
        if not is_next:
            emit.truncate(begun)
            self.chain.due, self.chain.last = due, last
            return 0
        emit.close_group()
        return 1

    cdef bint stage_rows(self, const char *p, const char *end, Values *values, Emit emit) except -1:
        """Stage the trades of an array, if it and what stands around it have this form, and all are the next ones."""
        cdef int behind = self.steps[self.rows].stop
        p = self.match(0, self.rows, p, end, emit, values)
        if p == NULL or p == end or p[0] != c'[':
            return False
        while p[0] != c']':
            p = self.match(self.rows + 1, behind, p + 1, end, emit, values)
            if p == NULL or p == end or (p[0] != c',' and p[0] != c']') or not self.stage(values, emit):
                return False
        return self.match(behind, self.step_count, p + 1, end, emit, values) == end

    cdef bint stage(self, const Values *values, Emit emit) except -1:
        """Stage a trade, if it is the next one."""
        cdef Chain chain = self.chain
        cdef int64_t fills = 1, first, counted, number, venue_seq, ts_event
        cdef uint8_t *record
        first = counted = number = venue_seq = values.numbers[ID]
        if self.present & (1u << LAST):
            venue_seq = values.numbers[LAST]
        if self.present & (1u << NUMBER):
            first = counted = venue_seq = values.numbers[NUMBER]
        elif self.present & (1u << COUNT):
            fills = values.numbers[COUNT]
            first = number - fills + 1
        elif self.present & (1u << LAST_FILL):
            venue_seq = values.numbers[LAST_FILL]
            fills = venue_seq - values.numbers[FIRST_FILL] + 1
        if first < 0 or fills < 1 or fills > MOST_FILLS:
            return False
        if self.consecutive:
            if first != chain.due and chain.due >= 0:
                return False
            chain.due = counted + 1
        else:
            if self.present & (1u << ID) and number == chain.last:
                return False
            chain.last = number
            if not self.present & (1u << LAST):
                venue_seq = 0
        ts_event = self.ns(values)
        if values.prices[0] <= 0 or values.sizes[0] <= 0 or ts_event == 0:
            return False
        record = emit.next_trade(self.channel, values.prices[0], values.sizes[0], SELL if values.taker_sold else BUY,
                                 number, ts_event, venue_seq, self.flags, <uint32_t>fills)
        if self.has_text_id:
            emit.put_trade_id(record, values.text_id[0], values.text_id[1], values.text_id_format)
        return True


@cython.final
cdef class Names:
    """Routes by name, found without making an object of the name: open addressing, at most half full."""

    def __init__(self):
        self.mask = 7
        self.names = [None] * 8
        self.routes = [None] * 8

    cdef Py_ssize_t slot(self, const char *name, Py_ssize_t length) noexcept:
        """Where a name is, or would be."""
        cdef uint64_t mixed = <uint64_t>length, word
        cdef Py_ssize_t at = 0
        cdef bytes found
        while length - at >= 8:
            memcpy(&word, name + at, 8)
            mixed = (mixed ^ word) * MIX
            mixed ^= mixed >> 29
            at += 8
        word = 0
        memcpy(&word, name + at, length - at)
        mixed = (mixed ^ word) * MIX
        at = <Py_ssize_t>(mixed ^ mixed >> 32) & self.mask
        while True:
            found = <bytes>self.names[at]
            if found is None or (len(found) == length and memcmp(<const char *>found, name, length) == 0):
                return at
            at = (at + 1) & self.mask

    cdef Route get(self, const char *name, Py_ssize_t length):
        """The route of a name; None: there is none."""
        return <Route>self.routes[self.slot(name, length)]

    def add(self, bytes name not None, Route route not None):
        """Add a route; whether there was none of this name."""
        cdef Py_ssize_t at = self.slot(name, len(name))
        if self.names[at] is not None:
            return False
        self.names[at] = name
        self.routes[at] = route
        self.count += 1
        if 2 * self.count > self.mask:
            before = [pair for pair in zip(self.names, self.routes) if pair[0] is not None]
            self.mask = 2 * self.mask + 1
            self.names = [None] * (self.mask + 1)
            self.routes = [None] * (self.mask + 1)
            self.count = 0
            for pair in before:
                self.add(pair[0], pair[1])
        return True


@cython.final
cdef class Place:
    """Where messages that begin with ``prefix`` name their stream: up to the next ``stop``, directly behind that, or
    behind the first ``behind`` that follows, or behind the last one in the message (``last``)."""

    def __init__(self, str prefix not None, str stop not None = '"', *, str behind not None = "", bint last=False):
        self.prefix = prefix.encode()
        self.prefix_length = len(self.prefix)
        self.behind = behind.encode()
        self.behind_length = len(self.behind)
        self.stop = ord(stop)
        self.last = last
        self.routes = Names()
        self.routes_of = {}

    def add(self, str key not None, Route route not None, *, connection=None):
        """Take the messages of a stream, on any connection or on one. Not for two routes of one key."""
        routes = self.routes if connection is None else self.routes_of.setdefault(connection, Names())
        if not routes.add(key.encode(), route):
            raise ValueError(f"there is a route of {key!r} already")

    cdef Route find(self, const char *p, const char *end, Py_ssize_t connection):
        """The route of the message that stands between ``p`` and ``end``; None if there is none."""
        cdef const char *key = p + self.prefix_length
        cdef const char *behind
        cdef const char *stop
        cdef Py_ssize_t length = self.behind_length
        cdef Route found
        if key >= end or memcmp(p, <const char *>self.prefix, key - p) != 0:
            return None
        if length:
            behind = self.behind
            if self.last:
                p = key
                key = end - length
                while key >= p and memcmp(key, behind, length) != 0:
                    key -= 1
                if key < p:
                    return None
            else:
                key = <const char *>memmem(key, end - key, behind, length)
                if key == NULL:
                    return None
            key += length
        stop = <const char *>memchr(key, self.stop, end - key)
        if stop == NULL:
            return None
        found = self.routes.get(key, stop - key)
        if found is None and self.routes_of:
            routes = self.routes_of.get(connection)
            if routes is not None:
                found = (<Names>routes).get(key, stop - key)
        return found


@cython.final
cdef class DirectRoutes:
    """The routes of an adapter, by the part of a message that names its stream, and where that stands. ``taken`` counts
    the messages.

    ``DirectRoutes(prefix, stop)`` has one such place; ``DirectRoutes(*places)`` more, each asked in turn.
    """

    def __init__(self, *places):
        self.places = places if places and isinstance(places[0], Place) else (Place(*places),)
        for place in self.places:
            if not isinstance(place, Place):
                raise TypeError(f"a Place is wanted, not {place!r}")
        self.only = self.places[0] if len(self.places) == 1 else None

    def add(self, str key not None, Route route not None, *, connection=None):
        """``Place.add`` of the first place."""
        (<Place>self.places[0]).add(key, route, connection=connection)

    def take(self, Py_ssize_t connection, bytes payload not None, Emit emit not None):
        """Stage the records of a message, if it is the normal next one of a route; whether it was."""
        return self.take_staged(connection, payload, emit) != 0

    cdef int take_staged(self, Py_ssize_t connection, bytes payload, Emit emit) except -1:
        cdef const char *p = payload
        cdef const char *end = p + len(payload)
        cdef Route route = None
        if self.only is not None:
            route = self.only.find(p, end, connection)
        else:
            for place in self.places:
                route = (<Place>place).find(p, end, connection)
                if route is not None:
                    break
        if route is None or not route.take(p, end, emit):
            return 0
        route.taken_ns = emit.ts_recv
        self.taken += 1
        return 1


@cython.final
cdef class DirectPath:
    """From a message to the venue ring: what driver and publisher do for one, in one native call.

    ``enabled`` is False while the publisher lets nothing through; at seq ``save_at`` it must save the channels.
    """

    def __init__(self, DirectRoutes routes not None, Emit emit not None, Writer writer not None,
                 Words sequencer not None, Py_ssize_t position_word, Py_ssize_t waiting_word, on_save_due, on_refused):
        for index in (position_word, waiting_word):
            if not 0 <= index < sequencer.count:
                raise IndexError(f"word {index} of {sequencer.count}")
        self.routes = routes
        self.emit = emit
        self.writer = writer
        self.sequencer = sequencer
        self.position_word = position_word
        self.waiting_word = waiting_word
        self.on_save_due = on_save_due
        self.on_refused = on_refused
        self.enabled = True

    def take(self, Py_ssize_t connection, bytes payload not None, int64_t ts_recv):
        """Publish the records of a message, if it is the normal next one of a route; whether it was."""
        return self.take_message(connection, payload, ts_recv)

    cdef bint take_message(self, Py_ssize_t connection, bytes payload, int64_t ts_recv) except -1:
        cdef Emit emit = self.emit
        if not self.enabled:
            return False
        emit.ts_recv = ts_recv
        if not self.routes.take_staged(connection, payload, emit):
            return False
        emit.count_frames(1, len(payload))
        if emit.record_count == 0:
            return True
        if emit.commit_staged(self.writer, load_acquire_u64(self.sequencer.words + self.position_word), True):
            self.writer.wake_waiting(self.sequencer.words + self.waiting_word)
        if emit.refused:
            self.on_refused()
        elif self.writer.published >= self.save_at:
            self.on_save_due()
        return True
