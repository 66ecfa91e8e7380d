# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The stage of a worker: event groups of records on their way to the venue ring.

What fills it with records of each kind is :class:`~mdring.feed.emit.Emit`; here they are grouped, numbered, and
committed to a ring or to an array::

    stage.begin(ts_recv)                     # driver, once per frame
    ...                                      # records
    stage.end()                              # adapter, once per event group
    stage.commit(writer, positions, venue)   # driver, once per batch of frames

Records are built in memory of the stage's own, never as Python objects. ``channel_seq`` is given at commit, so a group
that the ring refuses leaves no hole in the numbers. Not for use by several threads at once.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from mdring import record as _record
from mdring.record import DataType, Flags, offset_of
from mdring.ring import _ring
from mdring.ring._ring cimport (
    Words, Writer, load_acquire_u64, load_relaxed_u64, mdring_histogram_record, store_release_u64,
)

cdef extern from "stdlib.h":
    void *aligned_alloc(size_t alignment, size_t size)

# The layout, as record.py has it.
cdef Py_ssize_t RECORD_SIZE = _record.RECORD.itemsize
if RECORD_SIZE > MAX_RECORD_SIZE or RECORD_SIZE % 8 or max(DataType) >= MAX_DATA_TYPES:
    raise ImportError("the record has outgrown stage.pyx")

cdef Py_ssize_t TS_EVENT = offset_of("ts_event")
cdef Py_ssize_t TS_RECV = offset_of("ts_recv")
cdef Py_ssize_t INSTRUMENT_ID = offset_of("instrument_id")
cdef Py_ssize_t KIND = offset_of("kind")
cdef Py_ssize_t FLAGS = offset_of("flags")
cdef Py_ssize_t VENUE_ID = offset_of("venue_id")
cdef Py_ssize_t CHANNEL_SEQ = offset_of("channel_seq")
cdef Py_ssize_t VENUE_SEQ = offset_of("venue_seq")
cdef int FLAG_LAST = Flags.LAST
# Data of another moment says nothing about the latency of this one.
cdef int FLAGS_WITHOUT_LATENCY = Flags.SNAPSHOT | Flags.RECOVERED | Flags.BAD_TS_EVENT
cdef Py_ssize_t HISTOGRAM_WORDS = _ring.HISTOGRAM_BUCKETS
cdef dict DATA_TYPES = {int(data_type): data_type for data_type in DataType}


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


@cython.auto_pickle(False)
cdef class Stage:
    """Event groups of records, staged, then committed to a venue ring or to an array."""

    def __cinit__(self, Py_ssize_t capacity=32768):
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self.refused_by_channel = {}
        self.reserve(capacity)

    def __dealloc__(self):
        self.truncate(0)
        free(self.records)
        free(self.runs)
        free(self.groups)

    # ---- staging ------------------------------------------------------------------------------------------

    def begin(self, int64_t ts_recv):
        """Stamp what is staged from here on with ``ts_recv``. What is staged already stays."""
        self.ts_recv = ts_recv

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
        put_i64(record, TS_EVENT, ts_event)
        put_i64(record, TS_RECV, self.ts_recv)
        put_u32(record, INSTRUMENT_ID, channel.instrument_id)
        put_u8(record, KIND, kind)
        put_u8(record, FLAGS, flags)
        put_u8(record, VENUE_ID, channel.venue_id)
        put_u64(record, VENUE_SEQ, venue_seq)

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
                put_u64(record, CHANNEL_SEQ, seq)
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
