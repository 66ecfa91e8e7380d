# cython: language_level=3
"""The intake of a connection: what its socket brings, when that was, and the short way of the usual message.

A usual message comes in one frame and is one that the direct path takes (``direct.pyx``): from picows' callback to the
venue ring nothing is interpreted for it. Everything else goes the long way, through the listener (``transport.py``),
the session and the driver, which find here when it came::

    intake = Intake(0, driver.path, on_first_data)
    intake.is_open = True
    on_ws_frame = intake.before(listener.on_ws_frame, fail)     # what picows calls
    ...
    if driver.on_frame(0, payload, intake.hear()):              # a message that was not taken
        intake.note_data()

Part of the worker; each session has one.
"""

cimport cython
from libc.stdint cimport int64_t, uint64_t

from picows import WSMsgType

from mdring.feed.direct cimport DirectPath

cdef extern from "wait.h" nogil:
    ctypedef int clockid_t
    clockid_t CLOCK_MONOTONIC
    clockid_t CLOCK_REALTIME
    uint64_t mdring_clock_ns(clockid_t clock)

cdef object TEXT = WSMsgType.TEXT
cdef object BINARY = WSMsgType.BINARY
# RFC 6455, section 5.5: what is longer is no control frame. picows ends the connection of a venue that sends one.
cdef Py_ssize_t LONGEST_CONTROL_BYTES = 125


@cython.final
cdef class Intake:
    """What comes on one connection, and when. Times are ns of CLOCK_MONOTONIC, but for ``ts_recv``."""

    cdef public bint is_open, in_parts
    cdef public int64_t last_heard_ns, first_data_ns, last_data_ns
    cdef int64_t ts_recv  # of the read that is going on; 0: none is
    cdef Py_ssize_t connection
    cdef DirectPath path
    cdef object on_first_data, rest, fail

    def __init__(self, Py_ssize_t connection, DirectPath path, on_first_data):
        self.connection = connection
        self.path = path
        self.on_first_data = on_first_data

    def before(self, rest, fail):
        """What picows is to call with each frame in place of ``rest``, which gets what is not taken. ``fail`` is called
        with an exception, which is then raised."""
        self.rest = rest
        self.fail = fail
        return self.on_ws_frame

    def release(self):
        """The connection is gone: forget ``rest`` and ``fail``, or their owner is left to the garbage collector."""
        self.rest = self.fail = None

    def on_ws_frame(self, transport, frame):
        """Take the frame, or leave it to ``rest``."""
        cdef bytes payload
        cdef bint taken = False
        # The kind is asked for last: of all that a frame tells it is the dearest.
        if self.is_open and self.path is not None and not self.in_parts and frame.fin:
            # A copy: for messages of usual size it costs less than making a memoryview.
            payload = frame.get_payload_as_bytes()
            if len(payload) > LONGEST_CONTROL_BYTES or is_message(frame.msg_type):
                try:
                    taken = self.take_message(payload, frame.last_in_buffer)
                except BaseException as error:
                    self.fail(transport, error)
                    raise
        if not taken and self.rest is not None:
            self.rest(transport, frame)

    def take(self, bytes payload not None, bint last_in_read):
        """Whether the direct path has taken this message; nobody has to do anything more with it then."""
        return self.is_open and self.path is not None and self.take_message(payload, last_in_read)

    cdef bint take_message(self, bytes payload, bint last_in_read) except -1:
        self.begin_read()
        if not self.path.take_message(self.connection, payload, self.ts_recv):
            return False
        self.note_data()
        if last_in_read:
            self.ts_recv = 0
        return True

    def hear(self):
        """Something has come: the ``ts_recv`` of the read that has brought it, CLOCK_REALTIME."""
        self.begin_read()
        return self.ts_recv

    cdef void begin_read(self) noexcept:
        # All that one read brings has one ts_recv.
        if self.ts_recv == 0:
            self.ts_recv = <int64_t>mdring_clock_ns(CLOCK_REALTIME)
            self.last_heard_ns = <int64_t>mdring_clock_ns(CLOCK_MONOTONIC)

    def end_read(self):
        """The read that was going on has brought nothing further."""
        self.ts_recv = 0

    cpdef note_data(self):
        """What was heard last is market data."""
        self.last_data_ns = self.last_heard_ns
        if self.first_data_ns == 0:
            self.first_data_ns = self.last_heard_ns
            self.on_first_data()


cdef bint is_message(kind) noexcept:
    """Whether a whole frame of this kind is a message."""
    return kind is TEXT or kind is BINARY
