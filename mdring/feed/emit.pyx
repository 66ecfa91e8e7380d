# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The stager between an adapter and its venue ring: decimal text in, event groups of records out.

Runs in the worker, and in whatever decodes offline. The adapter stages, the driver commits::

    emit.begin(ts_recv)                     # driver, once per frame
    emit.levels(channel, Side.BID, raw_bids, ts_event, venue_seq)
    emit.levels(channel, Side.ASK, raw_asks, ts_event, venue_seq)
    emit.end()                              # adapter, once per event group
    emit.commit(writer, positions, venue)   # driver, once per batch of frames

Records are built in memory of the stage's own, never as Python objects. Where the fields stand is learnt from
the dtypes of ``record.py`` when this module is imported. ``channel_seq`` is given at commit, so a group that the
ring refuses leaves no hole in the numbers. Not for use by several threads at once.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from mdring.feed.fixed cimport FAULT_SIGN, raise_fault, scale_object, split_object
from mdring.feed.levels cimport (
    FORM_ACTION, FORM_OBJECT, FORM_PLAIN, FORM_SIDED, LevelForm, LevelRecords, ScanError, raise_scan_error, scan_levels,
)
from mdring import record as _record
from mdring.record import DataType, Flags, Kind, offset_of
from mdring.ring import _ring
from mdring.ring._ring cimport (
    Words, Writer, load_acquire_u64, load_relaxed_u64, mdring_histogram_record, store_release_u64,
)

cdef extern from "stdlib.h":
    void *aligned_alloc(size_t alignment, size_t size)

# ---- the layout, as record.py has it ----------------------------------------------------------------------

cdef Py_ssize_t RECORD_SIZE = _record.RECORD.itemsize
if RECORD_SIZE > MAX_RECORD_SIZE or RECORD_SIZE % 8 or max(DataType) >= MAX_DATA_TYPES:
    raise ImportError("the record has outgrown emit.pyx")

cdef Py_ssize_t TS_EVENT = offset_of("ts_event")
cdef Py_ssize_t TS_RECV = offset_of("ts_recv")
cdef Py_ssize_t INSTRUMENT_ID = offset_of("instrument_id")
cdef Py_ssize_t KIND = offset_of("kind")
cdef Py_ssize_t FLAGS = offset_of("flags")
cdef Py_ssize_t SIDE = offset_of("side")
cdef Py_ssize_t VENUE_ID = offset_of("venue_id")
cdef Py_ssize_t PRICE = offset_of("price")
cdef Py_ssize_t SIZE = offset_of("size")
cdef Py_ssize_t CHANNEL_SEQ = offset_of("channel_seq")
cdef Py_ssize_t VENUE_SEQ = offset_of("venue_seq")
cdef Py_ssize_t TRADE_AGGRESSOR = offset_of("aggressor", _record.TRADE)
cdef Py_ssize_t TRADE_ID = offset_of("trade_id", _record.TRADE)
cdef Py_ssize_t TRADE_ID_HIGH = offset_of("trade_id_high", _record.TRADE)
cdef Py_ssize_t TRADE_COUNT = offset_of("trade_count", _record.TRADE)
cdef Py_ssize_t TRADE_ID_FORMAT = offset_of("trade_id_format", _record.TRADE)
cdef Py_ssize_t BID_PRICE = offset_of("bid_price", _record.BBO)
cdef Py_ssize_t BID_SIZE = offset_of("bid_size", _record.BBO)
cdef Py_ssize_t ASK_PRICE = offset_of("ask_price", _record.BBO)
cdef Py_ssize_t ASK_SIZE = offset_of("ask_size", _record.BBO)
cdef Py_ssize_t ORDER_COUNT = offset_of("order_count", _record.LEVEL)
cdef Py_ssize_t CLEAR_REASON = offset_of("reason", _record.CLEAR)
cdef Py_ssize_t STATUS_STATE = offset_of("state", _record.STATUS)
cdef Py_ssize_t STATUS_REASON = offset_of("reason", _record.STATUS)
cdef Py_ssize_t STATUS_DATA_TYPE = offset_of("data_type", _record.STATUS)
cdef Py_ssize_t STATUS_COUNT = offset_of("count", _record.STATUS)
cdef Py_ssize_t STATUS_EXPECTED = offset_of("expected", _record.STATUS)
cdef Py_ssize_t STATUS_FOUND = offset_of("found", _record.STATUS)
cdef Py_ssize_t STATUS_DETAIL = offset_of("detail", _record.STATUS)
cdef Py_ssize_t DETAIL_BYTES = _record.STATUS["detail"].itemsize
cdef Py_ssize_t RATE = offset_of("rate", _record.FUNDING)
cdef Py_ssize_t RATE_EXPONENT = offset_of("rate_exponent", _record.FUNDING)
cdef Py_ssize_t PREDICTED_RATE = offset_of("predicted_rate", _record.FUNDING)
cdef Py_ssize_t PREDICTED_RATE_EXPONENT = offset_of("predicted_rate_exponent", _record.FUNDING)
cdef Py_ssize_t NEXT_FUNDING_TS = offset_of("next_funding_ts", _record.FUNDING)
cdef Py_ssize_t INTERVAL_NS = offset_of("interval_ns", _record.FUNDING)
cdef Py_ssize_t MARK_PRICE = offset_of("mark_price", _record.MARK)
cdef Py_ssize_t MARK_PRICE_EXPONENT = offset_of("mark_price_exponent", _record.MARK)
cdef Py_ssize_t INDEX_PRICE = offset_of("index_price", _record.MARK)
cdef Py_ssize_t INDEX_PRICE_EXPONENT = offset_of("index_price_exponent", _record.MARK)
cdef Py_ssize_t OPEN_INTEREST = offset_of("open_interest", _record.OPEN_INTEREST)
cdef Py_ssize_t OPEN_INTEREST_EXPONENT = offset_of("open_interest_exponent", _record.OPEN_INTEREST)
cdef Py_ssize_t OPEN_INTEREST_VALUE = offset_of("value", _record.OPEN_INTEREST)
cdef Py_ssize_t OPEN_INTEREST_VALUE_EXPONENT = offset_of("value_exponent", _record.OPEN_INTEREST)
cdef Py_ssize_t LIQUIDATION_AGGRESSOR = offset_of("aggressor", _record.LIQUIDATION)
cdef Py_ssize_t ORDER_PRICE = offset_of("order_price", _record.LIQUIDATION)
cdef Py_ssize_t ORDER_PRICE_EXPONENT = offset_of("order_price_exponent", _record.LIQUIDATION)
cdef Py_ssize_t AVERAGE_PRICE = offset_of("average_price", _record.LIQUIDATION)
cdef Py_ssize_t AVERAGE_PRICE_EXPONENT = offset_of("average_price_exponent", _record.LIQUIDATION)

cdef int KIND_TRADE = Kind.TRADE
cdef int KIND_BBO = Kind.BBO
cdef int KIND_LEVEL = Kind.LEVEL
cdef int KIND_CLEAR = Kind.CLEAR
cdef int KIND_STATUS = Kind.STATUS
cdef int KIND_FUNDING = Kind.FUNDING
cdef int KIND_MARK = Kind.MARK
cdef int KIND_OPEN_INTEREST = Kind.OPEN_INTEREST
cdef int KIND_LIQUIDATION = Kind.LIQUIDATION
cdef int TYPE_TRADE = _record.DATA_TYPE_OF_KIND[Kind.TRADE]
cdef int TYPE_BBO = _record.DATA_TYPE_OF_KIND[Kind.BBO]
cdef int TYPE_BOOK = _record.DATA_TYPE_OF_KIND[Kind.LEVEL]
cdef int TYPE_STATUS = _record.DATA_TYPE_OF_KIND[Kind.STATUS]
cdef int TYPE_FUNDING = _record.DATA_TYPE_OF_KIND[Kind.FUNDING]
cdef int TYPE_MARK = _record.DATA_TYPE_OF_KIND[Kind.MARK]
cdef int TYPE_OPEN_INTEREST = _record.DATA_TYPE_OF_KIND[Kind.OPEN_INTEREST]
cdef int TYPE_LIQUIDATION = _record.DATA_TYPE_OF_KIND[Kind.LIQUIDATION]
cdef int FLAG_LAST = Flags.LAST
cdef int FLAG_BAD_TS_EVENT = Flags.BAD_TS_EVENT
# Data of another moment says nothing about the latency of this one.
cdef int FLAGS_WITHOUT_LATENCY = Flags.SNAPSHOT | Flags.RECOVERED | Flags.BAD_TS_EVENT
cdef int64_t NO_PRICE = _record.UNDEFINED_PRICE
cdef Py_ssize_t HISTOGRAM_WORDS = _ring.HISTOGRAM_BUCKETS
cdef dict DATA_TYPES = {int(data_type): data_type for data_type in DataType}

# Level arrays longer than this are scanned without the GIL; for shorter ones giving it up costs more than it gains.
cdef Py_ssize_t RELEASE_GIL_BYTES = 16384


cdef inline void _put_u8(uint8_t *record, Py_ssize_t offset, int value) noexcept:
    record[offset] = <uint8_t>value


cdef inline void _put_u32(uint8_t *record, Py_ssize_t offset, uint32_t value) noexcept:
    (<uint32_t *>(record + offset))[0] = value


cdef inline void _put_u64(uint8_t *record, Py_ssize_t offset, uint64_t value) noexcept:
    (<uint64_t *>(record + offset))[0] = value


cdef inline void _put_i64(uint8_t *record, Py_ssize_t offset, int64_t value) noexcept:
    (<int64_t *>(record + offset))[0] = value


cdef inline void _count(Words counters, Py_ssize_t index, uint64_t value) noexcept:
    store_release_u64(counters.words + index, load_relaxed_u64(counters.words + index) + value)


@cython.final
@cython.auto_pickle(False)
cdef class Channel:
    """One instrument of a venue as its records name it: id, exponents, and one ``channel_seq`` per data type."""

    def __cinit__(self, str instrument not None, uint32_t instrument_id, uint8_t venue_id, int price_exponent,
                  int size_exponent):
        self.instrument = instrument
        self.instrument_id = instrument_id
        self.venue_id = venue_id
        self.price_exponent = price_exponent
        self.size_exponent = size_exponent

    def channel_seq(self, data_type):
        """The last channel_seq that was published (0: none yet)."""
        return self.last_seq[DATA_TYPES[data_type]]

    def restore(self, data_type, uint64_t channel_seq):
        """Continue after ``channel_seq`` (a restarted worker)."""
        self.last_seq[DATA_TYPES[data_type]] = channel_seq

    def save(self, Words words not None, Py_ssize_t first, Py_ssize_t count):
        """Store the last channel_seqs of ``count`` data types in ``words`` from ``first`` on; only those that differ."""
        if not words.writable or not 0 <= count <= MAX_DATA_TYPES or not 0 <= first <= words.count - count:
            raise IndexError(f"{count} words from {first} on are not among the {words.count} to be written")
        cdef uint64_t *saved = words.words + first
        cdef Py_ssize_t i
        for i in range(count):
            if load_relaxed_u64(saved + i) != self.last_seq[i]:
                store_release_u64(saved + i, self.last_seq[i])

    def __repr__(self):
        return (f"Channel({self.instrument!r}, {self.instrument_id}, {self.venue_id}, "
                f"{self.price_exponent}, {self.size_exponent})")


cdef int64_t _put_own(uint8_t *record, Py_ssize_t offset, Py_ssize_t exponent_offset, text) except? -1:
    """Put a value with an exponent of its own; None: there is no such value. Returns what was put."""
    cdef int8_t exponent = 0
    cdef int64_t value = NO_PRICE
    if text is not None:
        value = split_object(text, &exponent)
    _put_i64(record, offset, value)
    (<int8_t *>(record + exponent_offset))[0] = exponent
    return value


cdef int _scale_side(Channel channel, price, size, int64_t *scaled_price, int64_t *scaled_size) except -1:
    """One side of a BBO."""
    scaled_price[0] = NO_PRICE
    scaled_size[0] = 0
    if price is None or size is None:
        return 0
    cdef int64_t price_there = scale_object(price, channel.price_exponent)
    scaled_size[0] = scale_object(size, channel.size_exponent)
    if scaled_size[0] == 0 and price_there >= 0:
        return 0
    if price_there <= 0 or scaled_size[0] < 0:
        raise_fault(FAULT_SIGN, f"quote of {size!r} at {price!r}")
    scaled_price[0] = price_there
    return 0


@cython.final
@cython.auto_pickle(False)
cdef class Emit:
    """Stages event groups of records, then commits them to a venue ring or to an array."""

    def __cinit__(self, Py_ssize_t capacity=32768):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.refused_by_channel = {}
        self.level_records.record_size = RECORD_SIZE
        self.level_records.price_offset = PRICE
        self.level_records.size_offset = SIZE
        self.level_records.side_offset = SIDE
        self.level_records.count_offset = ORDER_COUNT
        self.level_records.pattern = self.pattern
        self.level_records.checked = True
        self.reserve(capacity)

    def __dealloc__(self):
        self.truncate(0)
        free(self.records)
        free(self.runs)
        free(self.groups)

    # ---- memory of the stage ------------------------------------------------------------------------------

    cdef int reserve(self, Py_ssize_t count) except -1:
        """Make room for ``count`` more records. Memory that is never written costs no page."""
        cdef Py_ssize_t room
        cdef uint8_t *grown
        if self.record_count + count <= self.record_room:
            return 0
        room = max(2 * self.record_room, self.record_count + count)
        grown = <uint8_t *>aligned_alloc(64, (room * RECORD_SIZE + 63) // 64 * 64)
        if grown == NULL:
            raise MemoryError(f"no memory to stage {room} records")
        if self.record_count:
            memcpy(grown, self.records, self.record_count * RECORD_SIZE)
        free(self.records)
        self.records = grown
        self.record_room = room
        return 0

    cdef int add_run(self, Channel channel, int data_type, Py_ssize_t count) except -1:
        """Take ``count`` records, which stand behind the staged ones, into the stage."""
        cdef Run *grown
        cdef Run *run
        if self.run_count == self.run_room:
            grown = <Run *>realloc(self.runs, (2 * self.run_room + 256) * sizeof(Run))
            if grown == NULL:
                raise MemoryError("no memory to stage records")
            self.runs = grown
            self.run_room = 2 * self.run_room + 256
        run = self.runs + self.run_count
        Py_INCREF(channel)
        run.channel = <PyObject *>channel
        run.data_type = data_type
        run.first = self.record_count
        run.count = count
        self.run_count += 1
        self.record_count += count
        return 0

    cdef void truncate(self, Py_ssize_t record_count) noexcept:
        """Forget all records from ``record_count`` on, and the groups that held one of them."""
        while self.run_count and self.runs[self.run_count - 1].first >= record_count:
            self.run_count -= 1
            Py_DECREF(<Channel>self.runs[self.run_count].channel)
        while self.group_count and self.groups[self.group_count - 1].record_end > record_count:
            self.group_count -= 1
        self.record_count = min(self.record_count, record_count)

    cdef void fill(self, uint8_t *record, Channel channel, int kind, int flags, int64_t ts_event,
                   uint64_t venue_seq) noexcept:
        """A zeroed record with what every kind has."""
        memset(record, 0, RECORD_SIZE)
        _put_i64(record, TS_EVENT, ts_event)
        _put_i64(record, TS_RECV, self.ts_recv)
        _put_u32(record, INSTRUMENT_ID, channel.instrument_id)
        _put_u8(record, KIND, kind)
        _put_u8(record, FLAGS, flags)
        _put_u8(record, VENUE_ID, channel.venue_id)
        _put_u64(record, VENUE_SEQ, venue_seq)

    # ---- staging ------------------------------------------------------------------------------------------

    def begin(self, int64_t ts_recv):
        """Stamp what is staged from here on with ``ts_recv``. What is staged already stays."""
        self.ts_recv = ts_recv

    cdef uint8_t *next_trade(self, Channel channel, int64_t price, int64_t size, int aggressor, uint64_t trade_id,
                             int64_t ts_event, uint64_t venue_seq, int flags, uint32_t trade_count) except NULL:
        """Stage a TRADE with an integer as its id."""
        cdef uint8_t *record = self.next_record(channel, KIND_TRADE, flags, ts_event, venue_seq)
        _put_i64(record, PRICE, price)
        _put_i64(record, SIZE, size)
        _put_u8(record, TRADE_AGGRESSOR, aggressor)
        self.put_trade_id(record, trade_id, 0, 1)
        _put_u32(record, TRADE_COUNT, trade_count)
        self.add_run(channel, TYPE_TRADE, 1)
        return record

    def trade(self, Channel channel not None, price, size, int aggressor, uint64_t trade_id, int64_t ts_event,
              uint64_t venue_seq=0, int flags=0, uint32_t trade_count=1, uint64_t trade_id_high=0,
              int trade_id_format=1):
        """Stage a TRADE. Price and size must be above 0."""
        cdef int64_t scaled_price = scale_object(price, channel.price_exponent)
        cdef int64_t scaled_size = scale_object(size, channel.size_exponent)
        if scaled_price <= 0 or scaled_size <= 0:
            raise_fault(FAULT_SIGN, f"trade of {size!r} at {price!r}")
        cdef uint8_t *record = self.next_trade(channel, scaled_price, scaled_size, aggressor, trade_id, ts_event,
                                               venue_seq, flags, trade_count)
        self.put_trade_id(record, trade_id, trade_id_high, trade_id_format)

    cdef void put_trade_id(self, uint8_t *record, uint64_t low, uint64_t high, int id_format) noexcept:
        """The id of a staged TRADE."""
        _put_u64(record, TRADE_ID, low)
        _put_u64(record, TRADE_ID_HIGH, high)
        _put_u8(record, TRADE_ID_FORMAT, id_format)

    cdef uint8_t *next_bbo(self, Channel channel, const int64_t *prices, const int64_t *sizes, int64_t ts_event,
                           uint64_t venue_seq, int flags) except NULL:
        """Stage a BBO: of the bid, then of the ask."""
        cdef uint8_t *record = self.next_record(channel, KIND_BBO, flags, ts_event, venue_seq)
        _put_i64(record, BID_PRICE, prices[0])
        _put_i64(record, BID_SIZE, sizes[0])
        _put_i64(record, ASK_PRICE, prices[1])
        _put_i64(record, ASK_SIZE, sizes[1])
        self.add_run(channel, TYPE_BBO, 1)
        return record

    def bbo(self, Channel channel not None, bid_price, bid_size, ask_price, ask_size, int64_t ts_event,
            uint64_t venue_seq=0, int flags=0):
        """Stage a BBO. A side whose price or size is None, or whose size is 0, is empty."""
        cdef int64_t prices[2]
        cdef int64_t sizes[2]
        _scale_side(channel, bid_price, bid_size, &prices[0], &sizes[0])
        _scale_side(channel, ask_price, ask_size, &prices[1], &sizes[1])
        self.next_bbo(channel, prices, sizes, ts_event, venue_seq, flags)

    cdef LevelRecords *level_target(self, Channel channel, int side, int64_t ts_event, uint64_t venue_seq, int flags,
                                    LevelForm form, int count_at) noexcept:
        """Where and as what levels are to be written; room for them was reserved."""
        cdef LevelRecords *target = &self.level_records
        target.form = form
        target.count_at = count_at
        target.records = self.records + self.record_count * RECORD_SIZE
        target.capacity = self.record_room - self.record_count
        self.fill(self.pattern, channel, KIND_LEVEL, flags if ts_event else flags | FLAG_BAD_TS_EVENT, ts_event,
                  venue_seq)
        _put_u8(self.pattern, SIDE, side)
        return target

    cdef int add_levels(self, Channel channel, Py_ssize_t count) except -1:
        """Stage levels that were written behind the staged records."""
        return self.add_run(channel, TYPE_BOOK, count)

    cdef void restamp(self, Py_ssize_t first, Py_ssize_t count, int64_t ts_event, uint64_t venue_seq) noexcept:
        """Levels that were written before their time (which is not 0) and id were known."""
        cdef uint8_t *record = self.records + first * RECORD_SIZE
        cdef Py_ssize_t i
        for i in range(count):
            _put_i64(record, TS_EVENT, ts_event)
            _put_u64(record, VENUE_SEQ, venue_seq)
            record[FLAGS] &= <uint8_t>~FLAG_BAD_TS_EVENT
            record += RECORD_SIZE

    cdef Py_ssize_t scan(self, Channel channel, int side, object levels, int64_t ts_event, uint64_t venue_seq, int flags,
                         LevelForm form, int count_at) except -1:
        """Stage one LEVEL per level of a JSON array; returns their number."""
        cdef Py_buffer view
        cdef ScanError error
        cdef Py_ssize_t count
        cdef LevelRecords *target
        PyObject_GetBuffer(levels, &view, PyBUF_SIMPLE)
        try:
            self.reserve(view.len // 6 + 1)
            target = self.level_target(channel, side, ts_event, venue_seq, flags, form, count_at)
            if view.len < RELEASE_GIL_BYTES:
                count = scan_levels(<const char *>view.buf, view.len, channel.price_exponent, channel.size_exponent,
                                    target, &error)
            else:
                with nogil:
                    count = scan_levels(<const char *>view.buf, view.len, channel.price_exponent,
                                        channel.size_exponent, target, &error)
            if count < 0:
                raise_scan_error(<const char *>view.buf, view.len, &error)
        finally:
            PyBuffer_Release(&view)
        if count:
            self.add_run(channel, TYPE_BOOK, count)
        return count

    def levels(self, Channel channel not None, int side, levels, int64_t ts_event, uint64_t venue_seq=0, int flags=0,
               int count_at=0):
        """Stage one LEVEL per ``["price", "size", …]`` of a JSON array; returns their number."""
        if count_at and count_at < 2:
            raise ValueError(f"element {count_at} of a level is its price or size")
        return self.scan(channel, side, levels, ts_event, venue_seq, flags, FORM_PLAIN, count_at)

    def action_levels(self, Channel channel not None, int side, levels, int64_t ts_event, uint64_t venue_seq=0,
                      int flags=0):
        """Stage one LEVEL per ``["new" | "change" | "delete", price, size, …]``; returns their number."""
        return self.scan(channel, side, levels, ts_event, venue_seq, flags, FORM_ACTION, 0)

    def sided_levels(self, Channel channel not None, levels, int64_t ts_event, uint64_t venue_seq=0, int flags=0):
        """Stage one LEVEL per ``["buy" | "sell", price, size, …]``; returns their number."""
        return self.scan(channel, 0, levels, ts_event, venue_seq, flags, FORM_SIDED, 0)

    def object_levels(self, Channel channel not None, int side, levels, int64_t ts_event, uint64_t venue_seq=0,
                      int flags=0):
        """Stage one LEVEL per ``{"price": …, "qty": …}``; returns their number."""
        return self.scan(channel, side, levels, ts_event, venue_seq, flags, FORM_OBJECT, 0)

    def level(self, Channel channel not None, int side, price, size, int64_t ts_event, uint64_t venue_seq=0,
              int flags=0, uint32_t order_count=0):
        """Stage one LEVEL. Price above 0; size not below, 0 deletes the level."""
        cdef int64_t scaled_price = scale_object(price, channel.price_exponent)
        cdef int64_t scaled_size = scale_object(size, channel.size_exponent)
        if scaled_price <= 0 or scaled_size < 0:
            raise_fault(FAULT_SIGN, f"level of {size!r} at {price!r}")
        self.reserve(1)
        cdef uint8_t *record = self.records + self.record_count * RECORD_SIZE
        self.fill(record, channel, KIND_LEVEL, flags if ts_event else flags | FLAG_BAD_TS_EVENT, ts_event, venue_seq)
        _put_u8(record, SIDE, side)
        _put_i64(record, PRICE, scaled_price)
        _put_i64(record, SIZE, scaled_size)
        _put_u32(record, ORDER_COUNT, order_count)
        self.add_run(channel, TYPE_BOOK, 1)

    def clear(self, Channel channel not None, int reason, int64_t ts_event=0, uint64_t venue_seq=0, int flags=0):
        """Stage a CLEAR: the book is empty and invalid from here on."""
        self.reserve(1)
        cdef uint8_t *record = self.records + self.record_count * RECORD_SIZE
        self.fill(record, channel, KIND_CLEAR, flags, ts_event, venue_seq)
        _put_u8(record, CLEAR_REASON, reason)
        self.add_run(channel, TYPE_BOOK, 1)

    def status(self, Channel channel not None, int state, int reason, int data_type=0, uint32_t count=0,
               uint64_t expected=0, uint64_t found=0, str detail not None="", int64_t ts_event=0):
        """Stage a STATUS. A channel with ``instrument_id`` 0 speaks for the whole venue."""
        cdef bytes text = detail.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore").encode()
        self.reserve(1)
        cdef uint8_t *record = self.records + self.record_count * RECORD_SIZE
        self.fill(record, channel, KIND_STATUS, 0, ts_event, 0)
        _put_u8(record, STATUS_STATE, state)
        _put_u8(record, STATUS_REASON, reason)
        _put_u8(record, STATUS_DATA_TYPE, data_type)
        _put_u32(record, STATUS_COUNT, count)
        _put_u64(record, STATUS_EXPECTED, expected)
        _put_u64(record, STATUS_FOUND, found)
        memcpy(record + STATUS_DETAIL, <const char *>text, len(text))
        self.add_run(channel, TYPE_STATUS, 1)

    cdef uint8_t *next_record(self, Channel channel, int kind, int flags, int64_t ts_event,
                              uint64_t venue_seq) except NULL:
        """Room for one more record, with what every kind has."""
        self.reserve(1)
        cdef uint8_t *record = self.records + self.record_count * RECORD_SIZE
        self.fill(record, channel, kind, flags if ts_event else flags | FLAG_BAD_TS_EVENT, ts_event, venue_seq)
        return record

    def funding(self, Channel channel not None, rate, int64_t next_funding_ts, int64_t ts_event, predicted_rate=None,
                int64_t interval_ns=0, uint64_t venue_seq=0, int flags=0):
        """Stage a FUNDING."""
        cdef uint8_t *record = self.next_record(channel, KIND_FUNDING, flags, ts_event, venue_seq)
        _put_own(record, RATE, RATE_EXPONENT, rate)
        _put_own(record, PREDICTED_RATE, PREDICTED_RATE_EXPONENT, predicted_rate)
        _put_i64(record, NEXT_FUNDING_TS, next_funding_ts)
        _put_i64(record, INTERVAL_NS, interval_ns)
        self.add_run(channel, TYPE_FUNDING, 1)

    def mark_price(self, Channel channel not None, mark_price, index_price, int64_t ts_event, uint64_t venue_seq=0,
                   int flags=0):
        """Stage a MARK."""
        cdef uint8_t *record = self.next_record(channel, KIND_MARK, flags, ts_event, venue_seq)
        _put_own(record, MARK_PRICE, MARK_PRICE_EXPONENT, mark_price)
        _put_own(record, INDEX_PRICE, INDEX_PRICE_EXPONENT, index_price)
        self.add_run(channel, TYPE_MARK, 1)

    def open_interest(self, Channel channel not None, open_interest, int64_t ts_event, value=None, uint64_t venue_seq=0,
                      int flags=0):
        """Stage an OPEN_INTEREST."""
        cdef uint8_t *record = self.next_record(channel, KIND_OPEN_INTEREST, flags, ts_event, venue_seq)
        if _put_own(record, OPEN_INTEREST, OPEN_INTEREST_EXPONENT, open_interest) < 0:
            raise_fault(FAULT_SIGN, f"open interest of {open_interest!r}")
        _put_own(record, OPEN_INTEREST_VALUE, OPEN_INTEREST_VALUE_EXPONENT, value)
        self.add_run(channel, TYPE_OPEN_INTEREST, 1)

    def liquidation(self, Channel channel not None, order_price, size, int aggressor, int64_t ts_event,
                    average_price=None, uint64_t venue_seq=0, int flags=0):
        """Stage a LIQUIDATION."""
        cdef int64_t scaled_size = scale_object(size, channel.size_exponent)
        cdef uint8_t *record = self.next_record(channel, KIND_LIQUIDATION, flags, ts_event, venue_seq)
        if _put_own(record, ORDER_PRICE, ORDER_PRICE_EXPONENT, order_price) <= 0 or scaled_size <= 0:
            raise_fault(FAULT_SIGN, f"liquidation of {size!r} at {order_price!r}")
        _put_own(record, AVERAGE_PRICE, AVERAGE_PRICE_EXPONENT, average_price)
        _put_i64(record, SIZE, scaled_size)
        _put_u8(record, LIQUIDATION_AGGRESSOR, aggressor)
        self.add_run(channel, TYPE_LIQUIDATION, 1)

    def end(self):
        """Close the event group: its last record gets LAST. An empty group is no group."""
        self.close_group()

    cdef int close_group(self) except -1:
        cdef Py_ssize_t begun = self.groups[self.group_count - 1].record_end if self.group_count else 0
        cdef Group *grown
        if self.record_count == begun:
            return 0
        if self.group_count == self.group_room:
            grown = <Group *>realloc(self.groups, (2 * self.group_room + 256) * sizeof(Group))
            if grown == NULL:
                raise MemoryError("no memory to stage records")
            self.groups = grown
            self.group_room = 2 * self.group_room + 256
        self.records[(self.record_count - 1) * RECORD_SIZE + FLAGS] |= <uint8_t>FLAG_LAST
        self.groups[self.group_count].record_end = self.record_count
        self.groups[self.group_count].run_end = self.run_count
        self.group_count += 1
        return 0

    def mark(self):
        """Where staging stands now; for ``rollback``."""
        return self.record_count

    def rollback(self, Py_ssize_t mark=0):
        """Drop all that was staged since ``mark``, a value that ``mark()`` returned after the last commit."""
        if not 0 <= mark <= self.record_count:
            raise ValueError(f"no such mark: {mark}; {self.record_count} records are staged")
        self.truncate(mark)

    @property
    def staged(self):
        """Number of staged records."""
        return self.record_count

    # ---- committing ---------------------------------------------------------------------------------------

    cdef int check_closed(self) except -1:
        if self.record_count != (self.groups[self.group_count - 1].record_end if self.group_count else 0):
            raise RuntimeError("the last event group is open: end() was not called")
        return 0

    cdef void number(self, Py_ssize_t first_run, Py_ssize_t stop_run) noexcept:
        """Give each record of these runs the next ``channel_seq`` of its channel and data type."""
        cdef Run *run
        cdef uint8_t *record
        cdef uint64_t seq
        cdef Py_ssize_t i, r
        for r in range(first_run, stop_run):
            run = self.runs + r
            seq = (<Channel>run.channel).last_seq[run.data_type]
            record = self.records + run.first * RECORD_SIZE
            for i in range(run.count):
                seq += 1
                _put_u64(record, CHANNEL_SEQ, seq)
                record += RECORD_SIZE
            (<Channel>run.channel).last_seq[run.data_type] = seq

    cdef void take_numbers_back(self, Py_ssize_t first_run, Py_ssize_t stop_run) noexcept:
        """Undo ``number``."""
        cdef Py_ssize_t r
        for r in range(first_run, stop_run):
            (<Channel>self.runs[r].channel).last_seq[self.runs[r].data_type] -= self.runs[r].count

    cdef bint publish(self, Writer writer, Py_ssize_t first_group, Py_ssize_t stop_group,
                      uint64_t read_position) noexcept:
        """Number these groups and publish them by one store, or do nothing if there is no room."""
        cdef Py_ssize_t first = self.groups[first_group - 1].record_end if first_group else 0
        cdef Py_ssize_t first_run = self.groups[first_group - 1].run_end if first_group else 0
        cdef Py_ssize_t stop_run = self.groups[stop_group - 1].run_end
        cdef uint64_t count = self.groups[stop_group - 1].record_end - first
        if count > writer.ring.slot_count // 2:
            return False
        self.number(first_run, stop_run)
        if writer.publish_native(self.records + first * RECORD_SIZE, count, read_position) != 0:
            return True
        self.take_numbers_back(first_run, stop_run)
        return False

    def commit(self, Writer writer not None, Words read_position=None, Py_ssize_t read_index=0):
        """Number the staged groups per channel and publish them; returns the number of records published.

        If all fit they become visible by one store; else group by group, and after the first refused one no
        other, for order's sake. ``read_position[read_index]`` is the last record that the sequencer has
        consumed: what it has not is never overwritten. Without it nothing is refused but a group larger than
        half the ring. Empties the stage.
        """
        cdef uint64_t consumed = writer.published
        if read_position is not None:
            if not 0 <= read_index < read_position.count:
                raise IndexError(f"word {read_index} of {read_position.count}")
            consumed = load_acquire_u64(read_position.words + read_index)
        return self.commit_staged(writer, consumed, read_position is not None)

    cdef Py_ssize_t commit_staged(self, Writer writer, uint64_t consumed, bint bounded) except -1:
        """As ``commit``; ``bounded``: what lies above ``consumed`` must not be overwritten."""
        cdef Py_ssize_t accepted = 0, published
        self.check_closed()
        self.refused = 0
        if self.group_count == 0:
            return 0
        if self.publish(writer, 0, self.group_count, consumed):
            accepted = self.group_count
        else:
            while accepted < self.group_count and self.publish(
                writer, accepted, accepted + 1, consumed if bounded else writer.published
            ):
                accepted += 1
            self.note_refused(accepted)
        published = self.groups[accepted - 1].record_end if accepted else 0
        self.count_published(accepted)
        self.truncate(0)
        return published

    def drain(self):
        """Number the staged groups per channel and return them as a new array of RECORD. Empties the stage."""
        self.check_closed()
        drained = np.empty(self.record_count, dtype=_record.RECORD)
        cdef uint8_t[::1] out
        self.number(0, self.run_count)
        if self.record_count:
            out = drained.view(np.uint8)
            memcpy(&out[0], self.records, self.record_count * RECORD_SIZE)
        self.count_published(self.group_count)
        self.truncate(0)
        return drained

    # ---- what was refused ---------------------------------------------------------------------------------

    cdef int note_refused(self, Py_ssize_t first_group) except -1:
        cdef Py_ssize_t r
        cdef Run *run
        self.refused_by_channel = {}
        for r in range(self.groups[first_group - 1].run_end if first_group else 0, self.run_count):
            run = self.runs + r
            key = (<Channel>run.channel, DATA_TYPES[run.data_type])
            self.refused_by_channel[key] = self.refused_by_channel.get(key, 0) + run.count
            self.refused += run.count
        return 0

    def refused_channels(self):
        """What the last ``commit`` had to refuse: (channel, data type, number of records), in order."""
        if not self.refused:
            return []
        return [(channel, data_type, count) for (channel, data_type), count in self.refused_by_channel.items()]

    def refused_instruments(self):
        """Ids of the instruments of those records."""
        return sorted({channel.instrument_id for channel, _, _ in self.refused_channels()})

    # ---- counters -----------------------------------------------------------------------------------------

    def attach_counters(self, Words counters not None, Py_ssize_t frames, Py_ssize_t payload_bytes, Py_ssize_t records,
                        Py_ssize_t latency):
        """Count into these words: indices of three counters and of the first bucket of the histogram
        venue → receive, which gets one value per event group that has a time of the venue."""
        if not counters.writable:
            raise TypeError("these words are mapped read-only: they belong to another process")
        for first, width in ((frames, 1), (payload_bytes, 1), (records, 1), (latency, HISTOGRAM_WORDS)):
            if not 0 <= first <= counters.count - width:
                raise IndexError(f"words {first}..{first + width} of {counters.count}")
        self.frames_word = frames
        self.bytes_word = payload_bytes
        self.records_word = records
        self.latency_word = latency
        self.counters = counters

    def observe(self, Py_ssize_t frames, Py_ssize_t payload_bytes):
        """Count frames and their bytes."""
        self.count_frames(frames, payload_bytes)

    cdef void count_frames(self, Py_ssize_t frames, Py_ssize_t payload_bytes) noexcept:
        if self.counters is not None:
            _count(self.counters, self.frames_word, frames)
            _count(self.counters, self.bytes_word, payload_bytes)

    cdef void count_published(self, Py_ssize_t stop_group) noexcept:
        """Count the records and the latencies of the groups before ``stop_group``."""
        cdef const uint8_t *last
        cdef int64_t ts_event, latency
        cdef Py_ssize_t g
        if self.counters is None or stop_group == 0:
            return
        _count(self.counters, self.records_word, self.groups[stop_group - 1].record_end)
        for g in range(stop_group):
            last = self.records + (self.groups[g].record_end - 1) * RECORD_SIZE
            ts_event = (<const int64_t *>(last + TS_EVENT))[0]
            if ts_event > 0 and not last[FLAGS] & FLAGS_WITHOUT_LATENCY:
                # Two clocks: one that is ahead of the other may make it negative.
                latency = (<const int64_t *>(last + TS_RECV))[0] - ts_event
                mdring_histogram_record(self.counters.words + self.latency_word, <uint64_t>max(latency, 0))
