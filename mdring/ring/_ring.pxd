from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "ring.h":
    ctypedef struct mdring_ring:
        uint64_t *slots
        uint64_t *cursor
        uint64_t slot_count
        uint64_t slot_words
        uint64_t flags_offset
        uint8_t last_flag
    ctypedef struct mdring_reader:
        uint64_t next
        uint64_t lost
        uint64_t laps
        bint partial
    ctypedef struct mdring_filter:
        uint64_t kinds
        const uint8_t *instruments
        uint64_t instrument_count
        uint64_t kind_offset
        uint64_t instrument_offset
    ctypedef enum mdring_presence:
        MDRING_PRESENT
        MDRING_NOT_YET
        MDRING_LAPPED
    enum:
        MDRING_MAX_RECORD_WORDS
        MDRING_HISTOGRAM_BUCKETS
    uint64_t mdring_publish(const mdring_ring *, uint64_t, const uint64_t *, uint64_t) nogil
    uint64_t mdring_resume(const mdring_ring *) nogil
    uint64_t mdring_resume_point(const mdring_ring *, uint64_t) nogil
    mdring_presence mdring_presence_of(const mdring_ring *, uint64_t) nogil
    uint64_t mdring_poll(const mdring_ring *, mdring_reader *, const mdring_filter *, uint64_t *, uint64_t) nogil
    uint64_t mdring_histogram_bucket(uint64_t) nogil
    void mdring_histogram_record(uint64_t *, uint64_t) nogil

cdef extern from "atomics.h":
    uint64_t load_acquire_u64(const uint64_t *) nogil
    uint64_t load_relaxed_u64(const uint64_t *) nogil
    void store_release_u64(uint64_t *, uint64_t) nogil
    void fence_full() nogil


cdef class Words:
    cdef Py_buffer view
    cdef bint exported
    cdef bint writable
    cdef uint64_t *words
    cdef readonly Py_ssize_t count

cdef class Writer:
    cdef Py_buffer view
    cdef bint exported
    cdef mdring_ring ring
    cdef uint64_t published
    cdef Py_buffer records_view
    cdef object records
    cdef int bind(self, object records) except -1
    cdef uint64_t publish_native(self, const uint8_t *records, uint64_t count, uint64_t read_position) noexcept nogil
    cdef void wake_waiting(self, const uint64_t *waiting) noexcept nogil

cdef class Reader:
    cdef Py_buffer view
    cdef bint exported
    cdef mdring_ring ring
    cdef mdring_reader state
    cdef mdring_filter filter
    cdef bint filtered
    cdef object instruments
    cdef Py_buffer out_view
    cdef object out
    cdef uint64_t room
    cdef uint64_t taken
    cdef int bind(self, object out) except -1
