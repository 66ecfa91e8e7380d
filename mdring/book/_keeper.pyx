# cython: language_level=3, boundscheck=False, wraparound=False
"""The book keeper's native core: tape in, rows of the book table and checkpoints out. See ``keeper.h``.

Runs in the keeper's process, opened by ``keeper.py``::

    keeper = Keeper(BookSet(), tape_reader, rows, checkpoints, words, position_word=0, current_word=2, span=32768)
    while not stopping:
        keeper.run(IDLE_BLOCK, spin_ns, pause_ns, slice_ns)
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

from mdring.book._book cimport MDRING_VALID, BookSet, mdring_book, mdring_books, mdring_books_get
from mdring.book._table cimport (
    MDRING_JOIN_DONE,
    MDRING_JOIN_LAPPED,
    MDRING_JOIN_NO_MEMORY,
    MDRING_ROW_FIXED_WORDS,
    Checkpoints,
    Rows,
    mdring_buffer,
    mdring_checkpoints,
    mdring_join_result,
    mdring_row_content,
    mdring_rows,
)
from mdring.ring._ring cimport Reader, Words, mdring_reader, mdring_ring

from mdring.record import RECORD_SIZE, DataType, Flags, Kind, Reason, State, offset_of

cdef extern from "wait.h":
    ctypedef enum mdring_idle:
        pass

cdef extern from "checkpoints.h":
    ctypedef struct mdring_checkpoint_writer:
        mdring_checkpoints store
        uint32_t *free_pages
        uint64_t free_count
    ctypedef enum mdring_open_result:
        MDRING_CHECKPOINTS_OPEN
        MDRING_CHECKPOINTS_DAMAGED
        MDRING_CHECKPOINTS_NO_MEMORY
    mdring_open_result mdring_checkpoints_open(mdring_checkpoint_writer *) nogil

cdef extern from "kept.h":
    ctypedef struct mdring_kept:
        pass
    ctypedef struct mdring_kept_layout:
        int64_t ts_event
        uint8_t kind_trade, kind_bbo
        uint8_t flag_recovered
        uint8_t state_none, state_connected
        uint8_t data_type_bbo
        uint8_t reason_lapped, reason_unknown_instrument
        uint64_t connection_states
        uint64_t trading_states
        uint64_t doubtful_states
        uint64_t whole_venue_reasons

cdef extern from "keeper.h":
    ctypedef struct mdring_keeper:
        mdring_kept_layout layout
        mdring_books *books
        mdring_ring tape
        mdring_reader reader
        uint64_t *batch
        uint64_t room
        mdring_rows rows
        uint64_t levels
        uint64_t *position_word
        uint64_t *current_word
        uint64_t position
        mdring_kept *kept
        uint32_t *changed_rows
        mdring_row_content *content
        mdring_checkpoint_writer checkpoints
        mdring_buffer buffer
        uint64_t span
        uint64_t floor
        uint64_t records
        uint64_t written
        uint64_t without
        uint64_t rowless
        bint out_of_memory
    uint64_t mdring_keeper_work(mdring_keeper *) nogil
    uint64_t mdring_keeper_run(mdring_keeper *, mdring_idle, uint64_t, uint64_t, uint64_t) nogil
    mdring_join_result mdring_keeper_recover(mdring_keeper *) nogil


cdef uint64_t _bits(values) except? 0:
    return sum(1 << int(value) for value in values)

cdef mdring_kept_layout _LAYOUT = mdring_kept_layout(
    ts_event=offset_of("ts_event"),
    kind_trade=int(Kind.TRADE),
    kind_bbo=int(Kind.BBO),
    flag_recovered=int(Flags.RECOVERED),
    state_none=int(State.NONE),
    state_connected=int(State.CONNECTED),
    data_type_bbo=int(DataType.BBO),
    reason_lapped=int(Reason.RING_FULL),
    reason_unknown_instrument=int(Reason.UNKNOWN_INSTRUMENT),
    connection_states=_bits((State.RECONNECTING, State.CONNECTED, State.DISCONNECTED, State.CIRCUIT_OPEN)),
    trading_states=_bits((State.TRADING, State.HALTED)),
    doubtful_states=_bits((State.GAP, State.RESYNCING, State.REJECTED, State.DROPPED)),
    whole_venue_reasons=_bits((Reason.STARTED, Reason.WORKER_RESTART, Reason.SHUTDOWN)),
)


cdef class Keeper:
    """Keeps the books of all instruments; opening it recovers what a predecessor left behind."""

    cdef mdring_keeper keeper
    cdef BookSet books
    cdef object keep

    def __cinit__(self, BookSet books, Reader tape, Rows rows, Checkpoints checkpoints, Words words, *,
                  Py_ssize_t position_word, Py_ssize_t current_word, uint64_t span, uint64_t room=1024):
        cdef mdring_keeper *keeper = &self.keeper
        if not books.books.wants_all or 8 * tape.ring.slot_words != RECORD_SIZE:
            raise ValueError("a keeper keeps the books of all instruments, from a tape of records")
        if not (rows.writable and checkpoints.writable and words.writable):
            raise TypeError("these segments are mapped read-only: they belong to another process")
        if not 0 <= position_word < words.count or not 0 <= current_word < words.count:
            raise ValueError(f"words {position_word} and {current_word} of {words.count}")
        if span < 2 or room < 1:
            raise ValueError("a span has at least 2 records, a batch 1")
        self.books, self.keep = books, (tape, rows, checkpoints, words)
        keeper.layout = _LAYOUT
        keeper.books = &books.books
        keeper.tape = tape.ring
        keeper.room = room
        keeper.rows = rows.rows
        keeper.levels = (rows.rows.image_words - MDRING_ROW_FIXED_WORDS) // 4
        keeper.checkpoints.store = checkpoints.store
        keeper.position_word = words.words + position_word
        keeper.current_word = words.words + current_word
        keeper.span = span
        keeper.batch = <uint64_t *>malloc(room * RECORD_SIZE)
        keeper.kept = <mdring_kept *>calloc(rows.rows.row_count, sizeof(mdring_kept))
        keeper.changed_rows = <uint32_t *>calloc(rows.rows.row_count, sizeof(uint32_t))
        keeper.content = <mdring_row_content *>calloc(rows.rows.image_words, 8)
        if not (keeper.batch and keeper.kept and keeper.changed_rows and keeper.content):
            raise MemoryError
        self.open()

    cdef int open(self) except -1:
        cdef mdring_open_result opened
        cdef mdring_join_result joined = MDRING_JOIN_DONE
        self.books.check_idle()
        self.books.applying = True  # for good: the set is the keeper's own
        with nogil:
            opened = mdring_checkpoints_open(&self.keeper.checkpoints)
            if opened == MDRING_CHECKPOINTS_OPEN:
                joined = mdring_keeper_recover(&self.keeper)
        if opened == MDRING_CHECKPOINTS_NO_MEMORY or joined == MDRING_JOIN_NO_MEMORY:
            raise MemoryError("there is no memory for all the books")
        if opened == MDRING_CHECKPOINTS_DAMAGED:
            raise RuntimeError("the checkpoints are damaged: their pages form no chains")
        if joined == MDRING_JOIN_LAPPED:
            raise RuntimeError("the book table is ahead of the tape: they do not belong together, or one is damaged")
        return 0

    def __dealloc__(self):
        free(self.keeper.batch)
        free(self.keeper.kept)
        free(self.keeper.changed_rows)
        free(self.keeper.content)
        free(self.keeper.buffer.words)
        free(self.keeper.checkpoints.free_pages)

    cdef int check_memory(self) except -1:
        if self.keeper.out_of_memory:
            raise MemoryError("there is no memory for all the books")
        return 0

    def do_work(self):
        """One duty cycle: take one batch, write what has changed; returns the number of records."""
        cdef uint64_t taken
        with nogil:
            taken = mdring_keeper_work(&self.keeper)
        self.check_memory()
        return taken

    def run(self, mdring_idle idle, uint64_t spin_ns, uint64_t pause_ns, uint64_t slice_ns):
        """Duty cycles for ``slice_ns``; returns the number of records."""
        cdef uint64_t taken
        with nogil:
            taken = mdring_keeper_run(&self.keeper, idle, spin_ns, pause_ns, slice_ns)
        self.check_memory()
        return taken

    @property
    def position(self):
        """The rows contain all that the tape says up to this seq."""
        return self.keeper.position

    @property
    def floor(self):
        """The checkpoints contain all that the tape says up to this seq."""
        return self.keeper.floor

    @property
    def lost(self):
        """Records that the tape overwrote before this keeper had them."""
        return self.keeper.reader.lost

    @property
    def records(self):
        """Records that this keeper has taken."""
        return self.keeper.records

    @property
    def checkpoints_written(self):
        """Checkpoints that this keeper has written."""
        return self.keeper.written

    @property
    def without_checkpoint(self):
        """Books for whose checkpoint there is no room."""
        return self.keeper.without

    @property
    def rowless(self):
        """Records of instruments for which the book table has no row."""
        return self.keeper.rowless

    def count_books(self):
        """(number of books, number of valid ones)."""
        cdef const mdring_book *book
        cdef int64_t i, valid = 0
        for i in range(self.books.books.capacity):
            book = mdring_books_get(&self.books.books, i)
            if book != NULL:
                valid += book.state == MDRING_VALID
        return self.books.books.book_count, valid
