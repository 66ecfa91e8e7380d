from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mdring.feed.levels cimport LevelForm, LevelRecords
from mdring.feed.stage cimport MAX_RECORD_SIZE, Channel, Stage


cdef class Emit(Stage):
    cdef uint8_t pattern[MAX_RECORD_SIZE]
    cdef LevelRecords level_records

    cdef uint8_t *next_record(self, Channel channel, int kind, int flags, int64_t ts_event,
                              uint64_t venue_seq) except NULL
    cdef uint8_t *next_trade(self, Channel channel, int64_t price, int64_t size, int aggressor, uint64_t trade_id,
                             int64_t ts_event, uint64_t venue_seq, int flags, uint32_t trade_count) except NULL
    cdef void put_trade_id(self, uint8_t *record, uint64_t low, uint64_t high, int id_format) noexcept
    cdef uint8_t *next_bbo(self, Channel channel, const int64_t *prices, const int64_t *sizes, int64_t ts_event,
                           uint64_t venue_seq, int flags) except NULL
    cdef LevelRecords *level_target(self, Channel channel, int side, int64_t ts_event, uint64_t venue_seq, int flags,
                                    LevelForm form, int count_at) noexcept
    cdef int add_levels(self, Channel channel, Py_ssize_t count) except -1
    cdef void restamp(self, Py_ssize_t first, Py_ssize_t count, int64_t ts_event, uint64_t venue_seq) noexcept
    cdef Py_ssize_t scan(self, Channel channel, int side, object levels, int64_t ts_event, uint64_t venue_seq, int flags,
                         LevelForm form, int count_at) except -1
