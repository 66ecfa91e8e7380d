# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What adapters put records on the stage with: decimal text in, records of each kind out.

Runs in the worker, and in whatever decodes offline. The adapter stages, the driver commits::

    emit.begin(ts_recv)                     # driver, once per frame
    emit.levels(channel, Side.BID, raw_bids, ts_event, venue_seq)
    emit.levels(channel, Side.ASK, raw_asks, ts_event, venue_seq)
    emit.end()                              # adapter, once per event group
    emit.commit(writer, positions, venue)   # driver, once per batch of frames

What becomes of the records, and of the groups that they form, stands in ``stage.pyx``. Where the fields of a kind are
is learnt from the dtypes of ``record.py`` when this module is imported.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int8_t
from libc.string cimport memcpy

from mdring.feed.fixed cimport FAULT_SIGN, raise_fault, scale_object, split_object
from mdring.feed.levels cimport (
    FORM_ACTION, FORM_OBJECT, FORM_PLAIN, FORM_SIDED, LevelForm, LevelRecords, ScanError, raise_scan_error, scan_levels,
)
from mdring.feed.stage cimport Channel, Stage, put_i64, put_u8, put_u32, put_u64
from mdring import record as _record
from mdring.record import Flags, Kind, offset_of

# ---- the layout, as record.py has it ----------------------------------------------------------------------

cdef Py_ssize_t RECORD_SIZE = _record.RECORD.itemsize
cdef Py_ssize_t TS_EVENT = offset_of("ts_event")
cdef Py_ssize_t FLAGS = offset_of("flags")
cdef Py_ssize_t SIDE = offset_of("side")
cdef Py_ssize_t PRICE = offset_of("price")
cdef Py_ssize_t SIZE = offset_of("size")
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
cdef int FLAG_BAD_TS_EVENT = Flags.BAD_TS_EVENT
cdef int64_t NO_PRICE = _record.UNDEFINED_PRICE

# Level arrays longer than this are scanned without the GIL; for shorter ones giving it up costs more than it gains.
cdef Py_ssize_t RELEASE_GIL_BYTES = 16384


cdef int64_t _put_own(uint8_t *record, Py_ssize_t offset, Py_ssize_t exponent_offset, text) except? -1:
    """Put a value with an exponent of its own; None: there is no such value. Returns what was put."""
    cdef int8_t exponent = 0
    cdef int64_t value = NO_PRICE
    if text is not None:
        value = split_object(text, &exponent)
    put_i64(record, offset, value)
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
cdef class Emit(Stage):
    """A stage, and what puts records of each kind on it."""

    def __cinit__(self, Py_ssize_t capacity=32768):
        self.level_records.record_size = RECORD_SIZE
        self.level_records.price_offset = PRICE
        self.level_records.size_offset = SIZE
        self.level_records.side_offset = SIDE
        self.level_records.count_offset = ORDER_COUNT
        self.level_records.pattern = self.pattern
        self.level_records.checked = True

    cdef uint8_t *next_trade(self, Channel channel, int64_t price, int64_t size, int aggressor, uint64_t trade_id,
                             int64_t ts_event, uint64_t venue_seq, int flags, uint32_t trade_count) except NULL:
        """Stage a TRADE with an integer as its id."""
        cdef uint8_t *record = self.next_record(channel, KIND_TRADE, flags, ts_event, venue_seq)
        put_i64(record, PRICE, price)
        put_i64(record, SIZE, size)
        put_u8(record, TRADE_AGGRESSOR, aggressor)
        self.put_trade_id(record, trade_id, 0, 1)
        put_u32(record, TRADE_COUNT, trade_count)
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
        put_u64(record, TRADE_ID, low)
        put_u64(record, TRADE_ID_HIGH, high)
        put_u8(record, TRADE_ID_FORMAT, id_format)

    cdef uint8_t *next_bbo(self, Channel channel, const int64_t *prices, const int64_t *sizes, int64_t ts_event,
                           uint64_t venue_seq, int flags) except NULL:
        """Stage a BBO: of the bid, then of the ask."""
        cdef uint8_t *record = self.next_record(channel, KIND_BBO, flags, ts_event, venue_seq)
        put_i64(record, BID_PRICE, prices[0])
        put_i64(record, BID_SIZE, sizes[0])
        put_i64(record, ASK_PRICE, prices[1])
        put_i64(record, ASK_SIZE, sizes[1])
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
        put_u8(self.pattern, SIDE, side)
        return target

    cdef int add_levels(self, Channel channel, Py_ssize_t count) except -1:
        """Stage levels that were written behind the staged records."""
        return self.add_run(channel, TYPE_BOOK, count)

    cdef void restamp(self, Py_ssize_t first, Py_ssize_t count, int64_t ts_event, uint64_t venue_seq) noexcept:
        """Levels that were written before their time (which is not 0) and id were known."""
        cdef uint8_t *record = self.records + first * RECORD_SIZE
        cdef Py_ssize_t i
        for i in range(count):
            put_i64(record, TS_EVENT, ts_event)
            put_u64(record, VENUE_SEQ, venue_seq)
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
        cdef uint8_t *record = self.next_record(channel, KIND_LEVEL, flags, ts_event, venue_seq)
        put_u8(record, SIDE, side)
        put_i64(record, PRICE, scaled_price)
        put_i64(record, SIZE, scaled_size)
        put_u32(record, ORDER_COUNT, order_count)
        self.add_run(channel, TYPE_BOOK, 1)

    def clear(self, Channel channel not None, int reason, int64_t ts_event=0, uint64_t venue_seq=0, int flags=0):
        """Stage a CLEAR: the book is empty and invalid from here on."""
        self.reserve(1)
        cdef uint8_t *record = self.records + self.record_count * RECORD_SIZE
        self.fill(record, channel, KIND_CLEAR, flags, ts_event, venue_seq)
        put_u8(record, CLEAR_REASON, reason)
        self.add_run(channel, TYPE_BOOK, 1)

    def status(self, Channel channel not None, int state, int reason, int data_type=0, uint32_t count=0,
               uint64_t expected=0, uint64_t found=0, str detail not None="", int64_t ts_event=0):
        """Stage a STATUS. A channel with ``instrument_id`` 0 speaks for the whole venue."""
        cdef bytes text = detail.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore").encode()
        self.reserve(1)
        cdef uint8_t *record = self.records + self.record_count * RECORD_SIZE
        self.fill(record, channel, KIND_STATUS, 0, ts_event, 0)
        put_u8(record, STATUS_STATE, state)
        put_u8(record, STATUS_REASON, reason)
        put_u8(record, STATUS_DATA_TYPE, data_type)
        put_u32(record, STATUS_COUNT, count)
        put_u64(record, STATUS_EXPECTED, expected)
        put_u64(record, STATUS_FOUND, found)
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
        put_i64(record, NEXT_FUNDING_TS, next_funding_ts)
        put_i64(record, INTERVAL_NS, interval_ns)
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
        put_i64(record, SIZE, scaled_size)
        put_u8(record, LIQUIDATION_AGGRESSOR, aggressor)
        self.add_run(channel, TYPE_LIQUIDATION, 1)
