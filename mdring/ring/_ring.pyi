"""The native ring. The protocol stands at the top of ``_ring.pyx``."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

class Words:
    """Atomic 64-bit words in a mapped segment: counters with one writing process and any number of readers."""

    def __init__(self, buffer: Any, offset: int, count: int) -> None:
        """``buffer``: a mapping (mmap), writable or not; ``offset`` in bytes, a multiple of 8."""
    count: Final[int]
    def load(self, index: int) -> int:
        """Acquire load."""
    def store(self, index: int, value: int) -> None:
        """Release store. Raises TypeError on a read-only mapping."""
    def add(self, index: int, value: int) -> None:
        """Add to one's own counter: a plain load and a release store, never a locked instruction."""
    def snapshot(self, index: int = 0, count: int = -1) -> npt.NDArray[np.uint64]:
        """A copy of ``count`` words (all from ``index`` if negative), each loaded atomically."""
    def record_latency(self, index: int, nanoseconds: int) -> None:
        """Count one value in the log-linear histogram whose first bucket is word ``index``."""

class Writer:
    """The only writer of a ring."""

    def __init__(self, buffer: Any, data_offset: int, slot_size: int, slot_count: int, *,
                 flags_offset: int, last_flag: int) -> None:
        """Attach as the writer and resume: finish what a killed predecessor published, erase what it did not."""
    batch: npt.NDArray[np.uint8]  # staging area
    @property
    def cursor(self) -> int: ...
    def publish(self, records: Any, count: int = -1) -> int:
        """Publish the first ``count`` records of a contiguous array (all if negative) by one store.

        They must be one or several whole event groups: the last has LAST, else ValueError. At most half the ring.
        Returns the seq of the last one. The ring writes word 0 (``seq``) of each itself.
        """
    def try_publish(self, records: Any, count: int, read_position: int) -> int:
        """The same unless it would overwrite records above ``read_position``: then publishes nothing and returns 0."""
    def wake(self) -> None:
        """Wake all readers blocked on the cursor (one system call)."""

class Reader:
    """One reader's place in a ring. Any number of them, in any processes; they only load."""

    def __init__(self, buffer: Any, data_offset: int, slot_size: int, slot_count: int, *,
                 flags_offset: int, last_flag: int, position: int) -> None: ...
    @property
    def position(self) -> int:
        """The last seq that was delivered or lost: the next poll begins after it."""
    @property
    def lost(self) -> int:
        """Records lost so far because the writer lapped this reader."""
    @property
    def laps(self) -> int: ...
    @property
    def partial(self) -> bool:
        """Whether the last poll ended inside an event group (larger than the caller's array)."""
    @property
    def cursor(self) -> int:
        """The writer's cursor now; ``cursor - position`` is the lag."""
    def poll(self, out: npt.NDArray[np.void]) -> int:
        """Copy whole event groups into ``out``; returns the number of records. Never waits."""
    def set_filter(self, kinds: int, instruments: npt.NDArray[np.uint8] | None, *,
                   kind_offset: int, instrument_offset: int) -> None:
        """Deliver only records whose kind's bit is in ``kinds`` and whose instrument's byte is non-zero."""
    def wait(self, strategy: int, spin_ns: int, timeout_ns: int) -> bool:
        """Wait until a record is there. False on time-out. Interrupted by signals at once (KeyboardInterrupt)."""
