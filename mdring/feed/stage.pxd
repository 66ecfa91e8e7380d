from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from mdring.ring._ring cimport Words, Writer

cdef enum:
    MAX_DATA_TYPES = 16
    MAX_RECORD_SIZE = 256


cdef struct Run:
    # Records that one call staged: all of one channel and data type. Holds a reference to its channel.
    PyObject *channel
    Py_ssize_t first
    Py_ssize_t count
    int data_type


cdef struct Group:
    # An event group that was closed: it ends before this record and this run.
    Py_ssize_t record_end
    Py_ssize_t run_end


cdef inline void put_u8(uint8_t *record, Py_ssize_t offset, int value) noexcept:
    record[offset] = <uint8_t>value


cdef inline void put_u32(uint8_t *record, Py_ssize_t offset, uint32_t value) noexcept:
    (<uint32_t *>(record + offset))[0] = value


cdef inline void put_u64(uint8_t *record, Py_ssize_t offset, uint64_t value) noexcept:
    (<uint64_t *>(record + offset))[0] = value


cdef inline void put_i64(uint8_t *record, Py_ssize_t offset, int64_t value) noexcept:
    (<int64_t *>(record + offset))[0] = value


cdef class Channel:
    cdef readonly str instrument
    cdef readonly uint32_t instrument_id
    cdef readonly uint8_t venue_id
    cdef readonly int price_exponent
    cdef readonly int size_exponent
    cdef uint64_t last_seq[MAX_DATA_TYPES]


cdef class Stage:
    cdef uint8_t *records
    cdef Run *runs
    cdef Group *groups
    cdef Py_ssize_t record_room, run_room, group_room
    cdef Py_ssize_t record_count, run_count, group_count
    cdef int64_t ts_recv
    cdef Words counters
    cdef Py_ssize_t frames_word, bytes_word, records_word, latency_word
    cdef readonly Py_ssize_t refused
    cdef dict refused_by_channel

    cdef int reserve(self, Py_ssize_t count) except -1
    cdef int add_run(self, Channel channel, int data_type, Py_ssize_t count) except -1
    cdef void truncate(self, Py_ssize_t record_count) noexcept
    cdef void fill(self, uint8_t *record, Channel channel, int kind, int flags, int64_t ts_event,
                   uint64_t venue_seq) noexcept
    cdef int close_group(self) except -1
    cdef int check_closed(self) except -1
    cdef void number(self, Py_ssize_t first_run, Py_ssize_t stop_run) noexcept
    cdef void take_numbers_back(self, Py_ssize_t first_run, Py_ssize_t stop_run) noexcept
    cdef bint publish(self, Writer writer, Py_ssize_t first_group, Py_ssize_t stop_group,
                      uint64_t read_position) noexcept
    cdef Py_ssize_t commit_staged(self, Writer writer, uint64_t consumed, bint bounded) except -1
    cdef int note_refused(self, Py_ssize_t first_group) except -1
    cdef void count_frames(self, Py_ssize_t frames, Py_ssize_t payload_bytes) noexcept
    cdef void count_published(self, Py_ssize_t stop_group) noexcept
