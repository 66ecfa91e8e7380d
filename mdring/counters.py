"""Counters, health and latency histograms of one process, in shared memory.

Each process of a run has one counters segment and is its only writer; whoever observes (``mdring stat``,
the supervisor) maps it read-only and touches no process. A restarted process goes on counting in the same
segment. All words are 64 bits, little-endian::

    word 0     counters, indexed by Counter
    word 64    last error: version (odd while it is written), time in ns, then UTF-8 text of up to 240 bytes
    word 96    sequencer: the last position it consumed in each venue ring, indexed by venue_id
    word 352   sequencer: two intents (``ring/merge.h``)
    word 960   sequencer: 1 while it sleeps, so that workers know when a wake-up call is needed
    word 1024  histograms, indexed by Histogram, 1024 words apart

Example::

    counters = Counters.attach(run_folder / "counters.worker-binance")
    counters.load(Counter.FRAMES), counters.quantiles(Histogram.VENUE_TO_RECEIVE)
"""

from __future__ import annotations

import time
from enum import IntEnum
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mdring.record import LAYOUT_VERSION
from mdring.ring import segment
from mdring.ring._ring import HISTOGRAM_BUCKETS, Words


class Counter(IntEnum):
    """What is counted, or kept as a state; each belongs to the process that writes the segment."""

    HEARTBEAT_NS = 0  # CLOCK_REALTIME of the last duty cycle
    PID = 1
    STARTS = 2  # how often the process was started in this run
    STATE = 3  # record.State of the venue's connection
    STATE_SINCE_NS = 4
    BREAKER = 5  # 0 closed, 1 half-open, 2 open
    FRAMES = 6
    BYTES = 7
    RECORDS = 8  # published on the venue ring, or on the tape
    CONNECTIONS = 9  # established now
    CONNECTS = 10  # ever established
    RECONNECTS = 11  # attempts after the first
    GAPS = 12  # the venue's numbers show missing messages
    RESYNCS = 13  # books that had to be rebuilt
    REJECTS = 14  # messages that broke the venue's protocol, quarantined
    DROPS = 15  # records refused by a full ring
    SNAPSHOTS = 16  # snapshots fetched
    FETCH_ERRORS = 17
    UNKNOWN_MESSAGES = 18
    BOOKS = 19  # subscribed
    BOOKS_VALID = 20
    LAST_DATA_NS = 21  # CLOCK_REALTIME of the last market data
    SUBSCRIPTIONS = 22
    SUBSCRIPTIONS_REJECTED = 23
    BATCHES = 24  # sequencer: batches published
    LAG = 25  # sequencer: records waiting in the venue rings; book keeper, named consumer: on the tape above position
    RESTARTS = 26  # supervisor: restarts of children
    EPOCH = 27
    POSITION = 28  # named consumer, book keeper: last seq it had
    LOST = 29  # named consumer, book keeper: records overwritten before it had them
    CPU_NS = 30  # named consumer: CPU time of its process
    CHECKPOINTS = 31  # book keeper: written
    CHECKPOINT_LAG = 32  # book keeper: records that a late joiner has to replay
    BOOKS_WITHOUT_CHECKPOINT = 33  # book keeper: for want of room nobody can join them late
    METADATA_NS = 34  # when the list of instruments in use was learnt, CLOCK_REALTIME; old: the venue's REST was dead
    REST_WEIGHT = 35  # worker: spent of the venue's REST budget in the current minute, by all workers of this host
    FETCHES_WAITING = 36  # worker: REST requests that wait for the budget, or for their delay


class Histogram(IntEnum):
    """Latency distributions in ns; log-linear, each bucket at most 1/16 of its value wide."""

    VENUE_TO_RECEIVE = 0  # ts_recv - ts_event; the venue's clock and ours are two, so negative counts as 0
    RECEIVE_TO_SEQUENCED = 1  # ts_seq - ts_recv


_COUNTER_WORDS: Final = 64
_ERROR_WORD: Final = 64
_ERROR_TEXT_BYTES: Final = 240
POSITIONS_WORD: Final = 96
MAX_VENUES: Final = 256
INTENTS_WORD: Final = 352
WAITING_WORD: Final = 960
_HISTOGRAMS_WORD: Final = 1024
_HISTOGRAM_WORDS: Final = 1024
_WORDS: Final = _HISTOGRAMS_WORD + _HISTOGRAM_WORDS * len(Histogram)
_FINGERPRINT: Final = 0x6D64_636F_756E_7401


class Quantiles(Struct, frozen=True):
    """A latency distribution, in ns; values are upper edges of their buckets, all 0 if ``count`` is 0."""

    count: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int


def _bucket_edges() -> npt.NDArray[np.uint64]:
    """The largest value of each bucket."""
    index = np.arange(HISTOGRAM_BUCKETS, dtype=np.uint64)
    shift = np.maximum(index // 16, 1) - 1  # buckets are 1 << shift wide
    # The edge of the last bucket is 2**64 - 1: the sum below wraps to 0 first.
    return np.where(index < 16, index, ((index % 16 + 17) << shift) - 1)


_EDGES: Final = _bucket_edges()


def quantiles_of(buckets: npt.NDArray[np.uint64]) -> Quantiles:
    """Quantiles of a histogram's buckets (or of the difference of two readings)."""
    total = int(buckets.sum())
    if total == 0:
        return Quantiles(0, 0, 0, 0, 0, 0)
    cumulated = np.cumsum(buckets)

    def at(quantile: float) -> int:
        return int(_EDGES[int(np.searchsorted(cumulated, quantile * total, side="left"))])

    return Quantiles(total, at(0.5), at(0.9), at(0.99), at(0.999), int(_EDGES[int(np.flatnonzero(buckets)[-1])]))


class Counters:
    """The counters of one process, as mapped."""

    def __init__(self, mapped: segment.Segment) -> None:
        self.segment = mapped
        self.words = Words(mapped.mapping, segment.HEADER_SIZE, _WORDS)

    @classmethod
    def create(cls, path: Path, *, run_id: int) -> Self:
        """Make the segment (the supervisor does), without becoming its writer."""
        return cls(segment.create(path, segment.SegmentKind.COUNTERS, version=LAYOUT_VERSION,
                                  fingerprint=_FINGERPRINT, run_id=run_id, slot_size=8, slot_count=_WORDS))  # fmt: skip

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Map it read-only. Raises SegmentError."""
        return cls(segment.attach(path, segment.SegmentKind.COUNTERS, version=LAYOUT_VERSION, fingerprint=_FINGERPRINT))

    @classmethod
    def open_as_writer(cls, path: Path, pid: int) -> Self:
        """Become the only writer. Raises SegmentError (AlreadyWritten if another process is)."""
        counters = cls(segment.attach(path, segment.SegmentKind.COUNTERS, version=LAYOUT_VERSION,
                                      fingerprint=_FINGERPRINT, writable=True))  # fmt: skip
        counters.segment.lock()
        counters.store(Counter.PID, pid)
        counters.add(Counter.STARTS)
        counters.heartbeat()
        return counters

    def load(self, counter: Counter) -> int:
        """The counter's value now."""
        return self.words.load(counter)

    def store(self, counter: Counter, value: int) -> None:
        """Set a counter that is a state."""
        self.words.store(counter, value)

    def add(self, counter: Counter, value: int = 1) -> None:
        """Count ``value`` more."""
        self.words.add(counter, value)

    def heartbeat(self) -> None:
        """Say that the process goes through its duty cycle."""
        self.words.store(Counter.HEARTBEAT_NS, time.time_ns())

    def histogram_word(self, histogram: Histogram) -> int:
        """Index of the histogram's first bucket in ``words``; for native code."""
        return _HISTOGRAMS_WORD + _HISTOGRAM_WORDS * histogram

    def buckets(self, histogram: Histogram) -> npt.NDArray[np.uint64]:
        """The histogram's buckets now, u8."""
        return self.words.snapshot(self.histogram_word(histogram), HISTOGRAM_BUCKETS)

    def quantiles(self, histogram: Histogram) -> Quantiles:
        """Quantiles of all that was ever counted."""
        return quantiles_of(self.buckets(histogram))

    def set_error(self, text: str) -> None:
        """Keep the last error, cut to 240 bytes, with its time."""
        encoded = text.encode()[:_ERROR_TEXT_BYTES].decode(errors="ignore").encode()
        padded = np.frombuffer(encoded.ljust(_ERROR_TEXT_BYTES, b"\0"), dtype="<u8")
        version = self.words.load(_ERROR_WORD)
        self.words.store(_ERROR_WORD, version | 1)
        self.words.store(_ERROR_WORD + 1, time.time_ns())
        for index, word in enumerate(padded):
            self.words.store(_ERROR_WORD + 2 + index, int(word))
        self.words.store(_ERROR_WORD, (version | 1) + 1)

    def error(self) -> tuple[int, str] | None:
        """Time in ns and text of the last error, if there was one (and it is not being written just now)."""
        words = self.words.snapshot(_ERROR_WORD, 2 + _ERROR_TEXT_BYTES // 8)
        if words[0] == 0 or words[0] % 2 or self.words.load(_ERROR_WORD) != words[0]:
            return None
        return int(words[1]), words[2:].tobytes().rstrip(b"\0").decode(errors="replace")
