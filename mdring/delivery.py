"""Conflation: keep the newest state of each instrument, on purpose, exactly.

A consumer that cannot or need not see every record chooses so when it attaches (``delivery="conflated"`` or
``"sampled"``). What is dropped is only what a later record of the same batch replaces:

* BBO, CLEAR: the newest per instrument;
* LEVEL: the newest per instrument, side and price; none from before the newest CLEAR;
* TRADE: every one, unless conflating trades was asked for, then the newest per instrument;
* STATUS: every one.

The book records of an instrument become one event group at the place of its last one, so a book never shows a
state between two of the venue's; applying a conflated batch gives exactly the books of the whole one.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from mdring.record import Flags, Kind

Delivery = Literal["every", "conflated", "sampled"]
DELIVERIES: Final[tuple[Delivery, ...]] = ("every", "conflated", "sampled")

_LAST: Final = np.uint8(Flags.LAST)
_SNAPSHOT: Final = np.uint8(Flags.SNAPSHOT)


def conflate(batch: npt.NDArray[np.void], *, trades: bool = False) -> npt.NDArray[np.void]:
    """The newest state that a batch of RECORD says, as a new array; ``trades``: trades are conflated, too.

    The batch must end with an event group. Groups stand in the order in which their last record arrived.
    """
    kinds, instruments = batch["kind"], batch["instrument_id"]
    place = np.arange(len(batch))
    keep = np.ones(len(batch), dtype=bool)
    newest_of = [Kind.BBO, Kind.TRADE] if trades else [Kind.BBO]
    for kind in newest_of:
        of_kind = place[kinds == kind]
        keep[of_kind] = False
        keep[_newest(of_kind, instruments)] = True
    # Where a record belongs: where the last one of its event group stood.
    order = _group_ends(batch)
    book = place[(kinds == Kind.LEVEL) | (kinds == Kind.CLEAR)]
    image = np.zeros(0, dtype=np.int64)
    if len(book):
        keep[book] = False
        kept, image = _newest_levels(batch, book)
        keep[kept] = True
        last_of_book = np.zeros(int(instruments.max()) + 1, dtype=np.int64)
        np.maximum.at(last_of_book, instruments[book], book)
        order[book] = last_of_book[instruments[book]]
    chosen = place[keep]
    chosen = chosen[np.argsort(order[chosen], kind="stable")]
    conflated: npt.NDArray[np.void] = batch[chosen]
    _mark_groups(conflated, order[chosen])
    conflated["flags"][np.isin(chosen, image)] |= _SNAPSHOT
    return conflated


def _newest(places: npt.NDArray[np.int64], *keys: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """The last of ``places`` for each combination of the keys' values there."""
    if not len(places):
        return places
    columns = [key[places] for key in keys]
    order = np.lexsort((places, *columns))
    ends = np.ones(len(order), dtype=bool)
    ends[:-1] = False
    for column in columns:
        ends[:-1] |= column[order[1:]] != column[order[:-1]]
    return places[order[ends]]


def _group_ends(batch: npt.NDArray[np.void]) -> npt.NDArray[np.int64]:
    """For each record, the place of the last record of its event group."""
    ends = np.flatnonzero(batch["flags"] & _LAST)
    following = np.searchsorted(ends, np.arange(len(batch)))
    bounded = np.append(ends, len(batch) - 1)
    result: npt.NDArray[np.int64] = bounded[following].astype(np.int64)
    return result


def _newest_levels(
    batch: npt.NDArray[np.void], book: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Places of the book records that nothing replaces, and of those of them that belong to a new image."""
    instruments = batch["instrument_id"]
    highest = int(instruments.max()) + 1
    in_image = (batch["flags"][book] & _SNAPSHOT) != 0
    clears = _newest(book[batch["kind"][book] == Kind.CLEAR], instruments)
    # Levels count from here on: after a CLEAR, from the first record of the next image.
    counts_from = np.full(highest, -1, dtype=np.int64)
    counts_from[instruments[clears]] = len(batch)
    cleared_at = np.full(highest, -1, dtype=np.int64)
    cleared_at[instruments[clears]] = clears
    images = book[in_image & (book >= cleared_at[instruments[book]])]
    np.minimum.at(counts_from, instruments[images], images)
    levels = book[batch["kind"][book] == Kind.LEVEL]
    levels = levels[(levels > cleared_at[instruments[levels]]) & (levels >= counts_from[instruments[levels]])]
    kept = np.concatenate((clears, _newest(levels, batch["price"], batch["side"], instruments)))
    has_image = np.zeros(highest, dtype=bool)
    has_image[instruments[images]] = True
    return kept, kept[has_image[instruments[kept]]]


def select(batch: npt.NDArray[np.void], wanted: npt.NDArray[np.bool_]) -> npt.NDArray[np.void]:
    """The wanted records of a batch, as a new array; LAST moves to the last one left of each event group."""
    selected: npt.NDArray[np.void] = batch[wanted]
    _mark_groups(selected, _group_ends(batch)[wanted])
    return selected


def _mark_groups(batch: npt.NDArray[np.void], group: npt.NDArray[np.int64]) -> None:
    """LAST on the last record of each run of equal ``group``, and on no other."""
    flags = batch["flags"] & ~_LAST
    ends = np.append(group[1:] != group[:-1], True)[: len(group)]
    flags[ends] |= _LAST
    batch["flags"] = flags
