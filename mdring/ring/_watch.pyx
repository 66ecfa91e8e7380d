# cython: language_level=3, boundscheck=False, wraparound=False
"""A thread that turns the moves of a ring's cursor into a descriptor that becomes readable (``watch.h``).

For event loops, which no futex can wake; ``mdring/cursor_watch.py`` has asyncio's side. The thread is not Python's:
it never takes the GIL, gets no signal, and holds up neither the interpreter's end nor a fork.
"""

cimport cython
from libc.stdint cimport uint64_t

import os

from mdring.ring._ring cimport Words

cdef extern from "watch.h":
    ctypedef struct mdring_watch:
        int event
    int mdring_watch_start(mdring_watch *, uint64_t *) nogil
    bint mdring_watch_ask(mdring_watch *, uint64_t) nogil
    void mdring_watch_stop(mdring_watch *) nogil


# Not for the garbage collector: it would let the words go, and with them the mapping, before the thread has ended.
@cython.no_gc
cdef class Watch:
    """A thread that sleeps on word ``index``, the cursor of a ring, until ``stop``; for one owner in one thread.

    Raises IndexError, and OSError if there can be no more threads or descriptors.
    """

    cdef Words words
    cdef mdring_watch watch
    cdef bint started

    def __cinit__(self, Words words, Py_ssize_t index):
        if not 0 <= index < words.count:
            raise IndexError(f"word {index} of {words.count}")
        self.words = words
        error = mdring_watch_start(&self.watch, words.words + index)
        if error != 0:
            raise OSError(error, os.strerror(error))
        self.started = True

    def __dealloc__(self):
        if self.started:
            mdring_watch_stop(&self.watch)

    def fileno(self):
        """The descriptor, an eventfd: readable when the last question was answered. Raises ValueError when stopped."""
        self._check()
        return self.watch.event

    def ask(self, uint64_t seen):
        """Ask to be answered as soon as the cursor is not ``seen``; False if that is so already.

        A question is answered once at most, and answered, too, when the run ends. After False, or if nobody waits for
        it any more, there may be an answer nonetheless. Raises ValueError when stopped.
        """
        self._check()
        return mdring_watch_ask(&self.watch, seen)

    def stop(self):
        """End the thread, let the words go and close the descriptor, which no event loop may watch any more."""
        if self.started:
            self.started = False
            with nogil:
                mdring_watch_stop(&self.watch)
            self.words = None

    cdef int _check(self) except -1:
        if not self.started:
            raise ValueError("the watch was stopped")
        return 0
