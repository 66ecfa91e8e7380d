"""Records as the tests of the books write them down, and batches of them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from mdring.record import CLEAR, LEVEL, RECORD, STATUS, TRADE, DataType, Flags, Kind, Reason, Side, State

Record = npt.NDArray[np.void]
"""An array of one RECORD."""


def _record(kind: Kind, instrument_id: int, flags: int, venue_id: int) -> Record:
    record = np.zeros(1, dtype=RECORD)
    record["kind"] = kind
    record["instrument_id"] = instrument_id
    record["flags"] = flags
    record["venue_id"] = venue_id
    return record


def level(
    side: int, price: int, size: int, flags: int = Flags.NONE, instrument_id: int = 1, venue_id: int = 1
) -> Record:
    """A LEVEL."""
    record = _record(Kind.LEVEL, instrument_id, flags, venue_id).view(LEVEL)
    record["side"], record["price"], record["size"] = side, price, size
    return record


def bid(price: int, size: int, flags: int = Flags.NONE, instrument_id: int = 1) -> Record:
    """A LEVEL of the bids."""
    return level(Side.BID, price, size, flags, instrument_id)


def ask(price: int, size: int, flags: int = Flags.NONE, instrument_id: int = 1) -> Record:
    """A LEVEL of the asks."""
    return level(Side.ASK, price, size, flags, instrument_id)


def clear(reason: int = Reason.SNAPSHOT, flags: int = Flags.NONE, instrument_id: int = 1, venue_id: int = 1) -> Record:
    """A CLEAR."""
    record = _record(Kind.CLEAR, instrument_id, flags, venue_id).view(CLEAR)
    record["reason"] = reason
    return record


def status(
    state: int,
    reason: int,
    flags: int = Flags.LAST,
    instrument_id: int = 0,
    venue_id: int = 1,
    data_type: int = DataType.STATUS,
) -> Record:
    """A STATUS."""
    record = _record(Kind.STATUS, instrument_id, flags, venue_id).view(STATUS)
    record["state"], record["reason"], record["data_type"] = state, reason, data_type
    return record


def trade(flags: int = Flags.LAST, instrument_id: int = 1) -> Record:
    """A TRADE: of no concern to a book, but for its LAST."""
    return _record(Kind.TRADE, instrument_id, flags, 1).view(TRADE)


def batch(records: Iterable[Record], first_seq: int = 1) -> npt.NDArray[np.void]:
    """The records in one array of RECORD, numbered from ``first_seq``."""
    joined = np.concatenate([np.zeros(0, dtype=RECORD), *(record.view(RECORD) for record in records)])
    joined["seq"] = np.arange(first_seq, first_seq + len(joined))
    return joined


def snapshot(
    bids: dict[int, int], asks: dict[int, int], instrument_id: int = 1, reason: int = Reason.SNAPSHOT
) -> list[Record]:
    """A snapshot's event group, best first as venues send it: CLEAR, LEVEL.., the last one with LAST."""
    records = [clear(reason, Flags.SNAPSHOT, instrument_id)]
    records += [bid(price, bids[price], Flags.SNAPSHOT, instrument_id) for price in sorted(bids, reverse=True)]
    records += [ask(price, asks[price], Flags.SNAPSHOT, instrument_id) for price in sorted(asks)]
    records[-1]["flags"] |= np.uint8(Flags.LAST)
    return records


def rows(levels: npt.NDArray[np.void]) -> list[tuple[int, int]]:
    """Rows of PRICE_LEVEL as pairs of ints."""
    return [(int(price), int(size)) for price, size in levels.tolist()]


BROKEN_STATES = (State.RECONNECTING, State.DISCONNECTED, State.CIRCUIT_OPEN, State.GAP, State.RESYNCING,
                 State.REJECTED, State.DROPPED)  # fmt: skip
"""States that explain why a book is invalid."""
