# cython: language_level=3, boundscheck=False, wraparound=False
"""The native ring: writer, reader and shared words over a mapped segment.

The protocol (which access pairs with which, and why) stands at the top of ``ring.h``, whose inline
functions these classes call; memory orders stand in ``atomics.h`` alone. Nothing here knows a field of a
record but word 0 (its seq) and the flags byte, whose place is given by the caller.

Runs in every process. ``segment.py`` makes the mappings::

    with segment.create(path, slot_size=128, slot_count=4096, ...) as ring:
        writer = ring.writer(flags_offset=29, last_flag=1)
        writer.publish(records)
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint8_t, uint64_t

import numpy as np

cdef extern from "wait.h":
    ctypedef enum mdring_idle:
        MDRING_IDLE_SPIN
        MDRING_IDLE_YIELD
        MDRING_IDLE_BACKOFF
        MDRING_IDLE_BLOCK
    uint64_t mdring_clock_ns(int clock) nogil
    bint mdring_wait(const mdring_ring *, uint64_t, mdring_idle, uint64_t, uint64_t) nogil
    bint mdring_futex_wait(uint64_t *, uint64_t, uint64_t) nogil
    void mdring_futex_wake_all(uint64_t *) nogil

cdef extern from "time.h":
    enum:
        CLOCK_MONOTONIC

IDLE_SPIN = <int>MDRING_IDLE_SPIN
IDLE_YIELD = <int>MDRING_IDLE_YIELD
IDLE_BACKOFF = <int>MDRING_IDLE_BACKOFF
IDLE_BLOCK = <int>MDRING_IDLE_BLOCK
HISTOGRAM_BUCKETS = <int>MDRING_HISTOGRAM_BUCKETS

# Longest stretch without a look at pending signals. A signal ends a sleep by itself; the slice only covers one that
# came just before the call, or was delivered to another thread.
cdef uint64_t SIGNAL_SLICE_SPIN_NS = 2_000_000
cdef uint64_t SIGNAL_SLICE_SLEEP_NS = 50_000_000
# A poll after one that delivered more, and a publication of more, let other threads run. Below, giving the GIL up
# costs more than the copy.
cdef uint64_t RELEASE_GIL_RECORDS = 64


def histogram_bucket(uint64_t value):
    """Index of the bucket that counts ``value``: log-linear, 16 buckets for each power of two."""
    return mdring_histogram_bucket(value)


cdef int _check(Words words, Py_ssize_t index, bint write) except -1:
    if not 0 <= index < words.count:
        raise IndexError(f"word {index} of {words.count}")
    if write and not words.writable:
        raise TypeError("these words are mapped read-only: they belong to another process")
    return 0


# The classes hold buffers and arrays of numbers, hence never close a reference cycle. The garbage collector must not
# look into them: clearing one that hangs on a cycle, it would forget a view's object without releasing the view.
@cython.no_gc
cdef class Words:
    """Atomic 64-bit words in a mapped segment: one writing process, any number of readers."""

    def __cinit__(self, object buffer, Py_ssize_t offset, Py_ssize_t count):
        try:
            PyObject_GetBuffer(buffer, &self.view, PyBUF_WRITABLE)
            self.writable = True
        except (BufferError, ValueError, TypeError):
            PyObject_GetBuffer(buffer, &self.view, PyBUF_SIMPLE)
            self.writable = False
        self.exported = True
        if offset < 0 or offset % 8 or count < 0 or offset + 8 * count > self.view.len:
            raise ValueError(f"words {offset}..{offset + 8 * count} do not lie in a buffer of {self.view.len} bytes")
        self.words = <uint64_t *>(<uint8_t *>self.view.buf + offset)
        self.count = count

    def __dealloc__(self):
        if self.exported:
            PyBuffer_Release(&self.view)

    def load(self, Py_ssize_t index):
        """Acquire load."""
        _check(self, index, False)
        return load_acquire_u64(self.words + index)

    def store(self, Py_ssize_t index, uint64_t value):
        """Release store. Raises TypeError on a read-only mapping."""
        _check(self, index, True)
        store_release_u64(self.words + index, value)

    def add(self, Py_ssize_t index, uint64_t value=1):
        """Add to one's own counter: a load and a release store, never a locked instruction."""
        _check(self, index, True)
        store_release_u64(self.words + index, load_relaxed_u64(self.words + index) + value)

    def snapshot(self, Py_ssize_t index=0, Py_ssize_t count=-1):
        """A copy of ``count`` words from ``index`` (to the end if negative), as a u8 array."""
        if count < 0:
            count = self.count - index
        if index < 0 or index + count > self.count:
            raise IndexError(f"words {index}..{index + count} of {self.count}")
        result = np.empty(count, dtype=np.uint64)
        cdef uint64_t[::1] out = result
        cdef Py_ssize_t i
        for i in range(count):
            out[i] = load_acquire_u64(self.words + index + i)
        return result

    def record_latency(self, Py_ssize_t index, long long nanoseconds):
        """Count a value in the histogram whose first bucket is word ``index``; negative counts as 0."""
        _check(self, index, True)
        _check(self, index + MDRING_HISTOGRAM_BUCKETS - 1, True)
        mdring_histogram_record(self.words + index, <uint64_t>max(nanoseconds, 0))

    def wait(self, Py_ssize_t index, uint64_t seen, uint64_t timeout_ns):
        """Sleep until ``wake``, or while the low half of word ``index`` equals that of ``seen``, at most ``timeout_ns``.

        Signals interrupt it at once: their Python handlers run, and what they raise is raised here.
        """
        cdef uint64_t waited = 0, slice_ns, start = mdring_clock_ns(CLOCK_MONOTONIC)
        cdef bint woken
        _check(self, index, False)
        while waited < timeout_ns:
            slice_ns = min(timeout_ns - waited, SIGNAL_SLICE_SLEEP_NS)
            with nogil:
                woken = mdring_futex_wait(self.words + index, seen, slice_ns)
            if woken:
                return
            PyErr_CheckSignals()
            waited = mdring_clock_ns(CLOCK_MONOTONIC) - start

    def wake(self, Py_ssize_t index):
        """Wake every process that waits on word ``index``."""
        _check(self, index, False)
        mdring_futex_wake_all(self.words + index)


cdef int _map_ring(object buffer, bint writable, Py_buffer *view, mdring_ring *ring, Py_ssize_t cursor_offset,
                   Py_ssize_t data_offset, Py_ssize_t slot_size, Py_ssize_t slot_count, Py_ssize_t flags_offset,
                   int last_flag) except -1:
    if slot_size % 8 or not 8 < slot_size <= 8 * MDRING_MAX_RECORD_WORDS:
        raise ValueError(f"slot_size must be a multiple of 8 in 16..{8 * MDRING_MAX_RECORD_WORDS}, not {slot_size}")
    if slot_count < 8 or slot_count & (slot_count - 1):
        raise ValueError(f"slot_count must be a power of two from 8, not {slot_count}")
    if not 8 <= flags_offset < slot_size or not 0 < last_flag < 256:
        raise ValueError(f"flags byte {flags_offset} with LAST = {last_flag} is not in a record of {slot_size} bytes")
    PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
    if data_offset + slot_size * slot_count > view.len or cursor_offset + 8 > data_offset:
        PyBuffer_Release(view)
        raise ValueError(f"a buffer of {view.len} bytes cannot hold {slot_count} slots of {slot_size} bytes")
    ring.cursor = <uint64_t *>(<uint8_t *>view.buf + cursor_offset)
    ring.slots = <uint64_t *>(<uint8_t *>view.buf + data_offset)
    ring.slot_count = slot_count
    ring.slot_words = slot_size // 8
    ring.flags_offset = flags_offset
    ring.last_flag = last_flag
    return 0


@cython.no_gc
cdef class Writer:
    """The only writer of a ring. Opening it resumes: finishes what a killed predecessor published, erases the rest."""

    def __cinit__(self, object buffer, Py_ssize_t cursor_offset, Py_ssize_t data_offset, Py_ssize_t slot_size,
                  Py_ssize_t slot_count, Py_ssize_t flags_offset, int last_flag):
        _map_ring(buffer, True, &self.view, &self.ring, cursor_offset, data_offset, slot_size, slot_count,
                  flags_offset, last_flag)
        self.exported = True
        self.published = mdring_resume(&self.ring)

    def __dealloc__(self):
        if self.records is not None:
            PyBuffer_Release(&self.records_view)
        if self.exported:
            PyBuffer_Release(&self.view)

    cdef int bind(self, object records) except -1:
        """Keep the pointer to the caller's array: a buffer request costs more than publishing from it."""
        cdef Py_buffer view
        flat = memoryview(records.view(np.uint8))
        PyObject_GetBuffer(flat, &view, PyBUF_SIMPLE)
        if self.records is not None:
            PyBuffer_Release(&self.records_view)
        self.records_view = view
        self.records = records
        return 0

    @property
    def cursor(self):
        """The highest published seq."""
        return self.published

    cdef uint64_t publish_native(self, const uint8_t *records, uint64_t count, uint64_t read_position) noexcept nogil:
        """Publish, or return 0 if that would overwrite a record above ``read_position``."""
        if self.published + count - read_position > self.ring.slot_count:
            return 0
        self.published = mdring_publish(&self.ring, self.published, <const uint64_t *>records, count)
        return self.published

    def publish(self, object records, Py_ssize_t count=-1):
        """Publish the first ``count`` records of an array (all if negative) by one store; returns the last seq.

        They are whole event groups: the last one has LAST. At most half a ring at once. A batch of one array
        object is published fastest when the same object is passed again. Raises ValueError.
        """
        return self.try_publish(records, count, self.published)

    def try_publish(self, object records, Py_ssize_t count, uint64_t read_position):
        """As ``publish``; but 0, and nothing is done, if a record above ``read_position`` would be overwritten."""
        if records is not self.records:
            self.bind(records)
        cdef uint64_t slot_size = self.ring.slot_words * 8
        cdef uint64_t held = self.records_view.len // slot_size
        cdef uint64_t n = held if count < 0 else <uint64_t>count
        cdef const uint8_t *source = <const uint8_t *>self.records_view.buf
        cdef uint64_t last
        if n == 0:
            return self.published
        if n > held or n > self.ring.slot_count // 2:
            raise ValueError(f"cannot publish {n} records: the array holds {held}, half the ring is {self.ring.slot_count // 2}")
        if not source[(n - 1) * slot_size + self.ring.flags_offset] & self.ring.last_flag:
            raise ValueError("the last record does not end its event group: its flags lack LAST")
        if n <= RELEASE_GIL_RECORDS:
            return self.publish_native(source, n, read_position)
        with nogil:
            last = self.publish_native(source, n, read_position)
        return last

    def wake(self):
        """Wake all readers that block on the cursor: one system call, so once per batch."""
        mdring_futex_wake_all(self.ring.cursor)

    def wake_if(self, Words waiting, Py_ssize_t index):
        """Wake the readers only if word ``index`` says that there is one asleep (it sets the word, then looks again)."""
        _check(waiting, index, False)
        self.wake_waiting(waiting.words + index)

    cdef void wake_waiting(self, const uint64_t *waiting) noexcept nogil:
        fence_full()  # sync: P5
        if load_acquire_u64(waiting):
            mdring_futex_wake_all(self.ring.cursor)


@cython.no_gc
cdef class Reader:
    """One reader's place in a ring. It only loads, so any number of them share a read-only mapping."""

    def __cinit__(self, object buffer, Py_ssize_t cursor_offset, Py_ssize_t data_offset, Py_ssize_t slot_size,
                  Py_ssize_t slot_count, Py_ssize_t flags_offset, int last_flag, uint64_t position):
        _map_ring(buffer, False, &self.view, &self.ring, cursor_offset, data_offset, slot_size, slot_count,
                  flags_offset, last_flag)
        self.exported = True
        self.state.next = position + 1

    def __dealloc__(self):
        if self.out is not None:
            PyBuffer_Release(&self.out_view)
        if self.exported:
            PyBuffer_Release(&self.view)

    cdef int bind(self, object out) except -1:
        cdef Py_buffer view
        flat = memoryview(out.view(np.uint8))
        PyObject_GetBuffer(flat, &view, PyBUF_WRITABLE)
        if self.out is not None:
            PyBuffer_Release(&self.out_view)
        self.out_view = view
        self.out = out
        self.room = view.len // (8 * self.ring.slot_words)
        return 0

    @property
    def position(self):
        """The last seq that was delivered, skipped by the filter, or lost; the next poll begins after it."""
        return self.state.next - 1

    @property
    def cursor(self):
        """The writer's cursor now; ``cursor - position`` is the lag in records."""
        return load_acquire_u64(self.ring.cursor)

    @property
    def lost(self):
        """Records that the writer overwrote before this reader had them."""
        return self.state.lost

    @property
    def laps(self):
        """How often the writer lapped this reader."""
        return self.state.laps

    @property
    def partial(self):
        """Whether the last poll ended inside an event group that is larger than the caller's array."""
        return bool(self.state.partial)

    def oldest(self):
        """A position near the oldest record from which a reader may begin: the end of an event group."""
        return mdring_resume_point(&self.ring, 1) - 1

    def set_filter(self, uint64_t kinds, object instruments, *, Py_ssize_t kind_offset, Py_ssize_t instrument_offset):
        """Deliver only kinds whose bit is set in ``kinds``, and instruments whose byte is not 0 in a u1 array.

        ``instruments`` None: all; an id beyond the array is delivered, so that one which is newer than the filter is
        never missed. Positions and losses keep counting every record.
        """
        cdef Py_ssize_t slot_size = 8 * self.ring.slot_words
        if not 0 <= kind_offset < slot_size or instrument_offset % 4 or not 0 <= instrument_offset <= slot_size - 4:
            raise ValueError("the filter's fields do not lie in the record")
        cdef const uint8_t[::1] wanted
        self.filter.kinds = kinds
        self.filter.kind_offset = kind_offset
        self.filter.instrument_offset = instrument_offset
        if instruments is None:
            self.instruments = None
            self.filter.instruments = NULL
            self.filter.instrument_count = 0
        else:
            # A copy of our own, never empty: the pointer must be one, and outlive the caller's array.
            self.instruments = np.append(np.asarray(instruments, dtype=np.uint8), np.uint8(0))
            wanted = self.instruments
            self.filter.instruments = &wanted[0]
            self.filter.instrument_count = wanted.shape[0] - 1
        self.filtered = True

    def poll(self, object out):
        """Copy whole event groups into ``out``, a contiguous array of records; returns how many. Never waits."""
        if out is not self.out:
            self.bind(out)
        cdef const mdring_filter *filter = &self.filter if self.filtered else NULL
        # The lag would say more than the last poll, but to know it costs the cursor's cache line.
        if self.taken <= RELEASE_GIL_RECORDS:
            self.taken = mdring_poll(&self.ring, &self.state, filter, <uint64_t *>self.out_view.buf, self.room)
            return self.taken
        with nogil:
            self.taken = mdring_poll(&self.ring, &self.state, filter, <uint64_t *>self.out_view.buf, self.room)
        return self.taken

    def wait(self, mdring_idle idle, uint64_t spin_ns, uint64_t timeout_ns):
        """Wait until the next record is there, by an idle strategy (``idle.py``). False when the time is out.

        Signals interrupt it at once: their Python handlers run, and what they raise is raised here.
        """
        cdef uint64_t waited = 0, slice_ns, start
        cdef bint there
        cdef bint sleeps = idle == MDRING_IDLE_BLOCK or idle == MDRING_IDLE_BACKOFF
        cdef uint64_t signal_slice = SIGNAL_SLICE_SLEEP_NS if sleeps else SIGNAL_SLICE_SPIN_NS
        if mdring_presence_of(&self.ring, self.state.next) != MDRING_NOT_YET:
            return True
        start = mdring_clock_ns(CLOCK_MONOTONIC)
        while waited < timeout_ns:
            slice_ns = min(timeout_ns - waited, signal_slice)
            with nogil:
                there = mdring_wait(&self.ring, self.state.next, idle, spin_ns if waited == 0 else 0, slice_ns)
            if there:
                return True
            PyErr_CheckSignals()
            waited = mdring_clock_ns(CLOCK_MONOTONIC) - start
        return False
