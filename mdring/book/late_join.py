"""Late join: complete books of any depth as of one seq, at any time, without having followed the tape.

Runs in a consumer's process. The book keeper leaves a checkpoint of each book in shared memory, never further behind
the tape than an eighth of it. A joiner copies those that it wants, and applies to each the records that it does not
contain yet, up to the end of the tape as it is now. Then it goes on with the next record::

    joined = join(folder, tape, [btc, eth])
    reader = tape.reader(..., position=joined.seq)        # nothing missed, nothing applied twice
    while True:
        joined.books.apply(batch, reader.poll(batch))

The keeper is not asked and may even be dead: its checkpoints serve as long as the tape reaches back to them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from mdring.book._book import BookSet
from mdring.book.table import CheckpointStore
from mdring.record import Flags, offset_of
from mdring.ring.segment import Segment, SegmentNotFound
from mdring.run_folder import RunError, RunFolder

_TRIES: Final = 10
_PAUSE_S: Final = 0.005


class JoinError(RunError):
    """The books cannot be joined now; the message says why and what to do."""


class Joined(Struct, frozen=True):
    """Books as of ``seq``: every record up to it is in them, and none above it.

    ``without_checkpoint``: instruments whose book did not fit into the checkpoints and which are therefore invalid
    (BUFFER_FULL) until their next snapshot, unless that came just now; ``[books] checkpoint_bytes`` is too small.
    """

    books: BookSet
    seq: int
    without_checkpoint: tuple[int, ...] = ()


def join(
    folder: RunFolder,
    tape: Segment,
    instrument_ids: Iterable[int] | None = None,
    *,
    books: BookSet | None = None,
    wait_s: float = 0.0,
) -> Joined:
    """The books of these instruments (None: of all) as of the end of the tape now.

    ``tape`` is the run's tape as mapped. ``books`` is joined anew in its place, for the instruments that it wants;
    every Book of it stays the same object. An instrument of which nothing is known yet has an invalid book; what the
    tape says of it after ``seq`` makes it valid. ``wait_s``: how long to try again if the tape has overwritten what
    comes after the checkpoints, as may be while the keeper is being restarted.

    Raises JoinError if the run keeps no books, or if they cannot be joined; MemoryError.
    """
    if books is None:
        books = BookSet(instrument_ids)
    elif instrument_ids is not None:
        raise ValueError("either the instruments are given or a set that wants them")
    try:
        store = CheckpointStore.attach(folder.checkpoints)
    except SegmentNotFound as error:
        raise JoinError(f"run {folder.name!r} keeps no books: [books] enabled is false in its config") from error
    with store.segment:
        return _join(folder, tape, store, books, time.monotonic() + wait_s)


def _join(folder: RunFolder, tape: Segment, store: CheckpointStore, books: BookSet, deadline: float) -> Joined:
    tries = 0
    while True:
        floor = store.checkpoints.floor
        reader = tape.reader(flags_offset=offset_of("flags"), last_flag=int(Flags.LAST), position=floor)
        seq = store.checkpoints.join(books, reader)
        if seq is not None:
            return Joined(books, seq, tuple(store.checkpoints.without))
        tries += 1
        if tries >= _TRIES and time.monotonic() >= deadline:
            raise JoinError(
                f"run {folder.name!r}: the checkpoints end at seq {floor}, and the tape, now at seq {tape.cursor}, has "
                f"overwritten what comes after it in its {tape.slot_count} slots; is the book keeper running? "
                "See mdring stat, or configure more [tape] slots"
            )
        if store.checkpoints.floor == floor:
            time.sleep(_PAUSE_S)
