# cython: language_level=3, boundscheck=False, wraparound=False
"""The sequencer's native core: merges rings into one, exactly once across restarts. See ``merge.h``.

It knows no market data: the merge key and the stamp are two words of the record, given by their offsets.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int64_t, uint64_t

from mdring.ring._ring cimport Reader, Words, Writer, mdring_ring

cdef extern from "merge.h":
    ctypedef enum mdring_idle:
        pass
    ctypedef struct mdring_source:
        mdring_ring ring
        uint64_t position
        uint64_t venue
    ctypedef struct mdring_merge:
        mdring_ring tape
        uint64_t tape_cursor
        mdring_source *sources
        uint64_t source_count
        uint64_t *positions
        uint64_t *intents
        uint64_t *waiting
        uint64_t *latency
        uint64_t key_offset
        uint64_t stamp_offset
        uint64_t max_batch
        uint64_t max_share
    enum:
        MDRING_MAX_SOURCES
        MDRING_MAX_POSITIONS
        MERGE_INTENT_WORDS "INTENT_WORDS"
    bint mdring_merge_recover(mdring_merge *) nogil
    int64_t mdring_merge_work(mdring_merge *) nogil
    void mdring_merge_tell_all(mdring_merge *) nogil
    int64_t mdring_merge_run(mdring_merge *, mdring_idle, uint64_t, uint64_t) nogil

INTENT_WORDS = <int>MERGE_INTENT_WORDS


cdef class Merge:
    """Merges ``sources`` (a Reader per venue ring, keyed by venue_id) onto the tape.

    ``words`` is the sequencer's own shared memory; the four word indices say where in it stand the positions, two
    intents, the waiting word and the latency histogram. Opening it recovers: whatever a killed predecessor was
    doing is finished or forgotten. Raises ValueError, and RuntimeError if tape and intents contradict each other.
    """

    cdef mdring_merge merge
    cdef object keep

    def __cinit__(self, Writer tape, dict sources, Words words, *, Py_ssize_t positions_word, Py_ssize_t intents_word,
                  Py_ssize_t waiting_word, Py_ssize_t latency_word, Py_ssize_t key_offset, Py_ssize_t stamp_offset,
                  uint64_t max_batch, uint64_t max_share):
        cdef Reader reader
        cdef Py_ssize_t i
        if not 1 <= len(sources) <= MDRING_MAX_SOURCES or not all(0 <= v < MDRING_MAX_POSITIONS for v in sources):
            raise ValueError(f"1..{MDRING_MAX_SOURCES} sources with ids below {MDRING_MAX_POSITIONS}, not {sorted(sources)}")
        for end in (positions_word + MDRING_MAX_POSITIONS, intents_word + 2 * MERGE_INTENT_WORDS, waiting_word + 1):
            if end > words.count:
                raise ValueError(f"the words end at {words.count}, {end} are needed")
        if key_offset % 8 or stamp_offset % 8 or max_batch < 1 or max_share < 1:
            raise ValueError("key and stamp are whole words; a batch has at least one record")
        self.merge.sources = <mdring_source *>PyMem_Calloc(len(sources), sizeof(mdring_source))
        if self.merge.sources == NULL:
            raise MemoryError
        self.keep = (tape, sources, words)
        self.merge.tape = tape.ring
        self.merge.tape_cursor = tape.published
        for i, (venue, source) in enumerate(sorted(sources.items())):
            reader = source
            if reader.ring.slot_words != tape.ring.slot_words:
                raise ValueError("the sources' records are not as large as the tape's")
            self.merge.sources[i].ring = reader.ring
            self.merge.sources[i].venue = venue
        self.merge.source_count = len(sources)
        self.merge.positions = words.words + positions_word
        self.merge.intents = words.words + intents_word
        self.merge.waiting = words.words + waiting_word
        self.merge.latency = words.words + latency_word
        self.merge.key_offset = key_offset
        self.merge.stamp_offset = stamp_offset
        self.merge.max_batch = max_batch
        self.merge.max_share = max_share
        if not mdring_merge_recover(&self.merge):
            raise RuntimeError(
                f"the tape ends at seq {tape.published}, which fits neither stored intent: its segments are damaged"
            )

    def __dealloc__(self):
        PyMem_Free(self.merge.sources)

    @property
    def cursor(self):
        """The highest seq on the tape."""
        return self.merge.tape_cursor

    def positions(self):
        """The last position consumed in each source, by venue_id."""
        return {self.merge.sources[i].venue: self.merge.sources[i].position for i in range(self.merge.source_count)}

    cdef _check(self, int64_t work):
        if work < 0:
            raise RuntimeError(
                f"the ring of venue_id {self.merge.sources[-1 - work].venue} is damaged after position "
                f"{self.merge.sources[-1 - work].position}: a group without end, overwritten, or larger than half the tape"
            )
        return work

    def do_work(self):
        """One duty cycle: publish at most one batch; returns the number of records."""
        cdef int64_t work
        with nogil:
            work = mdring_merge_work(&self.merge)
        return self._check(work)

    def run(self, mdring_idle idle, uint64_t spin_ns, uint64_t slice_ns):
        """Duty cycles for ``slice_ns``, idling by a strategy and waking readers; returns the number of records."""
        cdef int64_t work
        with nogil:
            work = mdring_merge_run(&self.merge, idle, spin_ns, slice_ns)
        return self._check(work)

    def tell_all(self):
        """Wake all readers that sleep and do not know of the newest batch; ``do_work`` wakes none."""
        with nogil:
            mdring_merge_tell_all(&self.merge)
