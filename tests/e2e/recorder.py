"""A consumer in a thread of the test, which keeps all it reads and judges it at once.

::

    with Recorder("e2e", directory) as tape:
        ...
        tape.book("alpha:BTCUSDT").valid
        records = tape.records()      # of the whole run so far; raises what the checker found
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from msgspec import Struct

import mdring
from mdring.book import BookSet
from mdring.instrument import Instrument, InstrumentTable
from mdring.record import FINGERPRINT, LAYOUT_VERSION, RECORD, Flags, Kind, offset_of
from mdring.ring import segment
from tests.e2e.stream import Records, StreamChecker

_POLL_S: Final = 0.02


class BookView(Struct, frozen=True):
    """A book as it was at one moment."""

    valid: bool
    reason: mdring.Reason
    venue_seq: int  # of the last record that touched it
    bids: npt.NDArray[np.void]  # PRICE_LEVEL, best first
    asks: npt.NDArray[np.void]
    crossed: int  # event groups so far that left it crossed


class Recorder(threading.Thread):
    """Reads the tape of a run from its first record to its end."""

    def __init__(self, name: str, directory: Path, *, wait_s: float, checker: StreamChecker | None = None) -> None:
        """Raises RunNotFound if the run is not up within ``wait_s``."""
        super().__init__(name=f"recorder of {name}")
        self.consumer = mdring.attach(name, directory=directory, start=1, wait_s=wait_s)
        self.checker = checker or StreamChecker()
        self.ended: mdring.RunEnded | None = None
        """Set when the run ended otherwise than in order."""
        self._books = BookSet()
        self._book_seqs: dict[int, int] = {}
        self._batches: list[Records] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None:
            self.raise_error()

    def run(self) -> None:
        """Read until ``stop``, or until the run ends and all of it was read."""
        try:
            while not self._stopping.is_set():
                batch = self.consumer.poll()
                if len(batch):
                    self._take(batch.copy())
                elif not self.consumer.wait(_POLL_S) and self.consumer.ended():
                    return
        except mdring.RunEnded as ended:
            self.ended = ended
        except BaseException as error:  # noqa: BLE001 - raised again in the test's thread
            self._error = error

    def stop(self) -> None:
        """Read no more."""
        self._stopping.set()
        self.join()

    def raise_error(self) -> None:
        """Raise what the checker found."""
        if self._error is not None:
            raise self._error

    def _take(self, batch: Records) -> None:
        with self._lock:
            assert self.consumer.lost == 0, f"{self.consumer.lost} records lost: the tape is too small for this test"
            self.checker.take(batch)
            self._batches.append(batch)
            self._books.apply(batch)
            of_books = batch[np.isin(batch["kind"], [Kind.LEVEL, Kind.CLEAR])]
            self._book_seqs.update(zip(of_books["instrument_id"].tolist(), of_books["venue_seq"].tolist(), strict=True))
            for number in self._books:
                assert not self._books[number].ignored, f"levels came for the invalid book of instrument {number}"

    @property
    def last_seq(self) -> int:
        """The last seq that was read."""
        self.raise_error()
        return self.checker.last_seq

    def records(self, after_seq: int = 0) -> Records:
        """A copy of all that was read so far, or of what came after a seq."""
        self.raise_error()
        with self._lock:
            batches = [batch for batch in self._batches if int(batch["seq"][-1]) > after_seq]
            joined: Records = np.concatenate(batches) if batches else np.zeros(0, dtype=RECORD)
        return joined[joined["seq"] > after_seq]

    def instruments(self, venue: str) -> list[Instrument]:
        """The venue's rows of the instrument table."""
        return [row for row in InstrumentTable(self.consumer.instruments.segment) if row.venue == venue]

    def book(self, instrument: Instrument) -> BookView:
        """The book as rebuilt from the tape so far."""
        self.raise_error()
        with self._lock:
            book = self._books[instrument.id]
            seq = self._book_seqs.get(instrument.id, 0)
            return BookView(book.valid, book.invalid_reason, seq, book.bids(), book.asks(), book.crossed)


class RingRecorder(threading.Thread):
    """Reads a venue ring beside the sequencer, which never knows: the other end of "exactly once"."""

    def __init__(self, path: Path) -> None:
        super().__init__(name=f"recorder of {path.name}")
        self._segment = segment.attach(path, segment.SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT)
        self._reader = self._segment.reader(flags_offset=offset_of("flags"), last_flag=int(Flags.LAST), position=0)
        self._batches: list[Records] = []
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self.join()

    def run(self) -> None:
        """Read until the end of the block."""
        while not self._stopping.wait(_POLL_S):
            self._read()

    def _read(self) -> None:
        out = np.zeros(4096, dtype=RECORD)
        while count := self._reader.poll(out):
            self._batches.append(out[:count].copy())

    def records(self) -> Records:
        """All that the ring ever held; to be called after the block."""
        self._read()
        assert self._reader.lost == 0, f"{self._reader.lost} records of the venue ring were missed by this test"
        return np.concatenate(self._batches)


def assert_same_records(of_ring: Records, of_tape: Records) -> None:
    """Everything of the ring is on the tape once, in its order, and nothing else; but for the sequencer's stamps."""
    assert (np.diff(of_ring["seq"].astype(np.int64)) == 1).all(), "the venue ring itself has a hole"
    ours, theirs = of_ring.copy(), of_tape.copy()
    for records in (ours, theirs):
        records["seq"] = 0
        records["ts_seq"] = 0
    same = min(len(ours), len(theirs))
    differing = np.flatnonzero(ours[:same] != theirs[:same])
    assert not len(differing), (
        f"record {differing[0]} of the venue ring is not the one on the tape:\n"
        f"{of_ring[differing[0]]}\n{of_tape[differing[0]]}"
    )
    assert len(ours) == len(theirs), f"the venue ring had {len(ours)} records, the tape has {len(theirs)} of it"
