# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A venue's book as its adapter needs it: for checksums, for a window of levels, for a best bid and ask.

Most adapters keep no book: they pass levels on, and consumers build books from them. Some venues ask for more. One
object per instrument follows what the adapter stages, natively, out of the stage itself::

    mark = emit.mark()
    emit.object_levels(channel, Side.BID, raw_bids, ts_event)
    emit.object_levels(channel, Side.ASK, raw_asks, ts_event)
    book.apply(emit, mark)                      # follow what was staged since the mark
    book.trim(emit, 100, ts_event)              # levels that fell out of the venue's window: staged as deleted
    if book.crc32_of_digits(10, 1, 8) != message.checksum:
        emit.rollback(mark)                     # no wrong level must reach a consumer
        return sync.checksum_failed(...)        # and the book is forgotten: clear()
    emit.end()
    if book.stage_bbo(emit, ts_event):          # where the venue has no quotes of its own
        emit.end()

A snapshot begins with CLEAR, which empties this book too. It is of the instrument of its channel alone; records of
others are passed over. Part of the worker.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

import zlib

from mdring.feed.emit cimport Emit

from mdring.feed.stage cimport Channel
from mdring import record as _record
from mdring.feed.adapter import VenueProtocolError
from mdring.record import Kind, Reason, Side, offset_of

cdef extern from "../book/side.h" nogil:
    ctypedef struct mdring_level:
        int64_t price
        int64_t size
    mdring_branch *mdring_branch_at(mdring_side *side, int64_t index)
    int64_t mdring_best_key(const mdring_side *side)
    int64_t mdring_best_size(const mdring_side *side)
    int64_t mdring_size_at(const mdring_side *side, int64_t key)
    bint mdring_set(mdring_pool *pool, mdring_side *side, int64_t key, int64_t size)
    void mdring_empty(mdring_pool *pool, mdring_side *side)
    void mdring_pool_destroy(mdring_pool *pool)
    int64_t mdring_copy_levels(const mdring_side *side, int64_t limit, mdring_level *out)

cdef Py_ssize_t RECORD_SIZE = _record.RECORD.itemsize
cdef Py_ssize_t INSTRUMENT_ID = offset_of("instrument_id")
cdef Py_ssize_t KIND = offset_of("kind")
cdef Py_ssize_t SIDE = offset_of("side")
cdef Py_ssize_t PRICE = offset_of("price")
cdef Py_ssize_t SIZE = offset_of("size")
cdef Py_ssize_t BID_PRICE = offset_of("bid_price", _record.BBO)
cdef Py_ssize_t BID_SIZE = offset_of("bid_size", _record.BBO)
cdef Py_ssize_t ASK_PRICE = offset_of("ask_price", _record.BBO)
cdef Py_ssize_t ASK_SIZE = offset_of("ask_size", _record.BBO)
cdef int KIND_LEVEL = Kind.LEVEL
cdef int KIND_CLEAR = Kind.CLEAR
cdef int KIND_BBO = Kind.BBO
cdef int TYPE_BOOK = _record.DATA_TYPE_OF_KIND[Kind.LEVEL]
cdef int TYPE_BBO = _record.DATA_TYPE_OF_KIND[Kind.BBO]
cdef int SIDE_ASK = Side.ASK
cdef int SIDE_BID = Side.BID
cdef int64_t NO_PRICE = _record.UNDEFINED_PRICE

cdef enum:
    MAX_CRC_LEVELS = 64
    CRC_BYTES_PER_NUMBER = 64
    DIGITS = 20  # of 64 bits


cdef inline int64_t _get(const uint8_t *record, Py_ssize_t offset) noexcept:
    return (<const int64_t *>(record + offset))[0]


cdef inline void _put(uint8_t *record, Py_ssize_t offset, int64_t value) noexcept:
    (<int64_t *>(record + offset))[0] = value


cdef bytes _PAIRS = b"".join(b"%02d" % _number for _number in range(100))
cdef const char *PAIRS = _PAIRS


cdef Py_ssize_t _digits(int64_t value, Py_ssize_t shift, char *out) noexcept:
    """The digits of ``value * 10**shift``; 0 has none. A negative shift cuts digits off."""
    cdef char text[DIGITS]
    cdef Py_ssize_t begin = DIGITS, length
    cdef uint64_t rest
    while value and shift < 0:
        value //= 10
        shift += 1
    rest = <uint64_t>value
    while rest >= 10:  # two by two
        begin -= 2
        memcpy(text + begin, PAIRS + rest % 100 * 2, 2)
        rest //= 100
    if rest:
        begin -= 1
        text[begin] = <char>(c'0' + rest)
    elif begin < DIGITS and text[begin] == c'0':
        begin += 1
    length = DIGITS - begin
    memcpy(out, text + begin, length)
    while length and shift > 0:
        out[length] = c'0'
        length += 1
        shift -= 1
    return length


cdef Py_ssize_t _plain(int64_t value, int exponent, char *out) noexcept:
    """``value * 10**exponent`` as text without superfluous zeros."""
    cdef char digits[CRC_BYTES_PER_NUMBER]
    cdef Py_ssize_t count, length = 0, i
    while exponent < 0 and value % 10 == 0 and value:
        value //= 10
        exponent += 1
    count = _digits(value, exponent if exponent > 0 else 0, digits)
    if exponent >= 0:
        exponent = 0
    if count <= -exponent:  # below 1
        out[0] = c'0'
        length = 1
        if count:
            out[1] = c'.'
            length = 2
            for i in range(-exponent - count):
                out[length] = c'0'
                length += 1
    for i in range(count):
        if i and i == count + exponent:
            out[length] = c'.'
            length += 1
        out[length] = digits[i]
        length += 1
    return length


@cython.final
@cython.auto_pickle(False)
cdef class LocalBook:
    """The book of one instrument."""

    def __cinit__(self, Channel channel not None, int64_t max_levels=200_000):
        self.channel = channel
        self.max_levels = max_levels
        memset(&self.pool, 0, sizeof(self.pool))
        memset(&self.sides, 0, sizeof(self.sides))
        self.sides[1].flip = -1
        self.clear()

    def __dealloc__(self):
        mdring_pool_destroy(&self.pool)
        free(self.sides[0].lower)
        free(self.sides[1].lower)

    def clear(self):
        """Forget all levels, and what was staged as the best ones."""
        mdring_empty(&self.pool, &self.sides[0])
        mdring_empty(&self.pool, &self.sides[1])
        memset(&self.top, 0, sizeof(self.top))
        self.crossed_ns = 0

    def __len__(self):
        return self.sides[0].level_count + self.sides[1].level_count

    cdef int set_level(self, int side, int64_t price, int64_t size) except -1:
        cdef mdring_side *own = &self.sides[side == SIDE_ASK]
        cdef int64_t count = own.level_count
        if not mdring_set(&self.pool, own, price ^ own.flip, size):
            raise MemoryError("no memory for a book")
        if size == 0 and own.level_count == count:
            self.orphans += 1
        if own.level_count > self.max_levels:
            raise VenueProtocolError(f"a book of more than {self.max_levels} levels a side", reason=Reason.BUFFER_FULL)
        return 0

    def apply(self, Emit emit not None, Py_ssize_t mark):
        """Follow the records of this instrument that were staged since ``mark``, a value of ``emit.mark()``."""
        if not 0 <= mark <= emit.record_count:
            raise ValueError(f"no such mark: {mark}; {emit.record_count} records are staged")
        self.follow(emit, mark)

    cdef bint has_room(self, Py_ssize_t count) noexcept:
        """Whether so many levels more cannot be too many."""
        return max(self.sides[0].level_count, self.sides[1].level_count) + count <= self.max_levels

    cdef int follow(self, Emit emit, Py_ssize_t mark) except -1:
        cdef Py_ssize_t i
        cdef const uint8_t *record
        for i in range(mark, emit.record_count):
            record = emit.records + i * RECORD_SIZE
            if (<const uint32_t *>(record + INSTRUMENT_ID))[0] != self.channel.instrument_id:
                continue
            if record[KIND] == KIND_LEVEL:
                self.set_level(record[SIDE], _get(record, PRICE), _get(record, SIZE))
            elif record[KIND] == KIND_CLEAR:
                mdring_empty(&self.pool, &self.sides[0])
                mdring_empty(&self.pool, &self.sides[1])
        return 0

    def trim(self, Emit emit not None, int64_t depth, int64_t ts_event, uint64_t venue_seq=0, int flags=0):
        """Delete the worst levels until each side has at most ``depth``, and stage a LEVEL of size 0 for each.

        Returns their number.
        """
        if depth < 1:
            raise ValueError(f"a book has at least one level a side, not {depth}")
        return self.cut(emit, depth, ts_event, venue_seq, flags)

    cdef int cut(self, Emit emit, int64_t depth, int64_t ts_event, uint64_t venue_seq, int flags) except -1:
        cdef mdring_side *own
        cdef int64_t key
        cdef uint8_t *record
        cdef int staged = 0, side
        for side in (SIDE_BID, SIDE_ASK):
            own = &self.sides[side == SIDE_ASK]
            while own.level_count > depth:
                key = mdring_branch_at(own, 0).leaf.keys[0]
                mdring_set(&self.pool, own, key, 0)
                record = emit.next_record(self.channel, KIND_LEVEL, flags, ts_event, venue_seq)
                record[SIDE] = side
                _put(record, PRICE, key ^ own.flip)
                emit.add_run(self.channel, TYPE_BOOK, 1)
                staged += 1
        return staged

    def has_levels_of(self, LocalBook other not None):
        """Whether both hold the same levels."""
        cdef mdring_level *levels
        cdef int64_t count
        cdef bint same
        cdef int i
        for i in range(2):
            count = self.sides[i].level_count
            if other.sides[i].level_count != count:
                return False
            if count == 0:
                continue
            levels = <mdring_level *>malloc(2 * count * sizeof(mdring_level))
            if levels == NULL:
                raise MemoryError("no memory to compare books")
            mdring_copy_levels(&self.sides[i], count, levels)
            mdring_copy_levels(&other.sides[i], count, levels + count)
            same = memcmp(levels, levels + count, count * sizeof(mdring_level)) == 0
            free(levels)
            if not same:
                return False
        return True

    # ---- the best levels ----------------------------------------------------------------------------------

    cdef void read_top(self, int64_t *top) noexcept:
        cdef int i
        for i in range(2):
            top[2 * i] = NO_PRICE
            top[2 * i + 1] = 0
            if self.sides[i].level_count:
                top[2 * i] = mdring_best_key(&self.sides[i]) ^ self.sides[i].flip
                top[2 * i + 1] = mdring_best_size(&self.sides[i])

    def best(self):
        """(bid price, bid size, ask price, ask size), scaled; UNDEFINED_PRICE and 0 for an empty side."""
        cdef int64_t top[4]
        self.read_top(top)
        return top[0], top[1], top[2], top[3]

    @property
    def is_crossed(self):
        """Whether the best bid is not below the best ask."""
        return self.crosses()

    cdef bint crosses(self) noexcept:
        cdef int64_t top[4]
        self.read_top(top)
        return top[0] != NO_PRICE and top[2] != NO_PRICE and top[0] >= top[2]

    def crossed_since(self, int64_t now_ns):
        """Since when the book is crossed: ``crossed_ns``, which this keeps; 0 if it is not. Asked after each message."""
        return self.watch(now_ns)

    cdef int64_t watch(self, int64_t now_ns) noexcept:
        if not self.crosses():
            self.crossed_ns = 0
        elif self.crossed_ns == 0:
            self.crossed_ns = now_ns
        return self.crossed_ns

    def size_at(self, int side, int64_t price):
        """The size at a scaled price; 0 if there is no such level."""
        cdef mdring_side *own = &self.sides[side == SIDE_ASK]
        return mdring_size_at(own, price ^ own.flip)

    def stage_bbo(self, Emit emit not None, int64_t ts_event, uint64_t venue_seq=0, int flags=0):
        """Stage a BBO if the best levels have changed since the last one; whether they have."""
        return self.stage_top(emit, ts_event, venue_seq, flags)

    cdef bint stage_top(self, Emit emit, int64_t ts_event, uint64_t venue_seq, int flags) except -1:
        cdef int64_t top[4]
        cdef uint8_t *record
        self.read_top(top)
        if top[0] == self.top[0] and top[1] == self.top[1] and top[2] == self.top[2] and top[3] == self.top[3]:
            return False
        record = emit.next_record(self.channel, KIND_BBO, flags, ts_event, venue_seq)
        _put(record, BID_PRICE, top[0])
        _put(record, BID_SIZE, top[1])
        _put(record, ASK_PRICE, top[2])
        _put(record, ASK_SIZE, top[3])
        emit.add_run(self.channel, TYPE_BBO, 1)
        for i in range(4):
            self.top[i] = top[i]
        return True

    # ---- checksums ----------------------------------------------------------------------------------------

    def crc32_of_digits(self, int levels, int price_decimals, int size_decimals):
        """CRC-32 (unsigned) of the digits of the best ``levels`` asks, then bids, best first: each price, then size,
        with so many decimals, without point and leading zeros. That is Kraken's."""
        self.check_levels(levels)
        return self.checksum_of_digits(levels, price_decimals, size_decimals)

    cdef uint32_t checksum_of_digits(self, int levels, int price_decimals, int size_decimals) except? 0:
        cdef char text[2 * MAX_CRC_LEVELS * 2 * CRC_BYTES_PER_NUMBER]
        cdef mdring_level best[MAX_CRC_LEVELS]
        cdef int64_t count, i
        cdef Py_ssize_t length = 0
        cdef int side
        for side in (1, 0):
            count = mdring_copy_levels(&self.sides[side], levels, best)
            for i in range(count):
                length += _digits(best[i].price, price_decimals + self.channel.price_exponent, text + length)
                length += _digits(best[i].size, size_decimals + self.channel.size_exponent, text + length)
        return zlib.crc32(text[:length])

    def crc32_of_pairs(self, int levels):
        """CRC-32 (unsigned) of ``price:size`` of the best ``levels``, bid and ask in turn, joined by ``:``; numbers
        without superfluous zeros. Where one side is shorter the other goes on alone. That was OKX's."""
        cdef char text[2 * MAX_CRC_LEVELS * 2 * CRC_BYTES_PER_NUMBER]
        cdef mdring_level best[2][MAX_CRC_LEVELS]
        cdef int64_t counts[2]
        cdef int64_t i
        cdef Py_ssize_t length = 0
        cdef int side
        self.check_levels(levels)
        for side in range(2):
            counts[side] = mdring_copy_levels(&self.sides[side], levels, best[side])
        for i in range(max(counts[0], counts[1])):
            for side in range(2):
                if i < counts[side]:
                    length += _plain(best[side][i].price, self.channel.price_exponent, text + length)
                    text[length] = c':'
                    length += 1 + _plain(best[side][i].size, self.channel.size_exponent, text + length + 1)
                    text[length] = c':'
                    length += 1
        return zlib.crc32(text[:max(length - 1, 0)])

    cdef int check_levels(self, int levels) except -1:
        if not 1 <= levels <= MAX_CRC_LEVELS:
            raise ValueError(f"checksums are of 1 to {MAX_CRC_LEVELS} levels, not {levels}")
        if self.channel.price_exponent > 18 or self.channel.price_exponent < -40:
            raise ValueError(f"no checksum with a price exponent of {self.channel.price_exponent}")
        if self.channel.size_exponent > 18 or self.channel.size_exponent < -40:
            raise ValueError(f"no checksum with a size exponent of {self.channel.size_exponent}")
        return 0
