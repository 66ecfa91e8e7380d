"""The laws of records tell of each breach: of a stream that keeps them, with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import Aggressor, Flags, Kind, Reason, Side
from tests.adapters.conformance import NOW, Laws

Records = npt.NDArray[np.void]
LEVELS = b'[["1.00","2"],["3.00","4"]]'


def lawful() -> Records:
    """Per instrument: an image, a delta, a trade, a quote, and CLEAR."""
    emit = Emit(8)
    for number in (1, 2):
        channel = Channel(f"X{number}", number, 1, -2, -2)
        emit.begin(NOW + number)
        emit.clear(channel, Reason.SNAPSHOT, NOW, 1, int(Flags.SNAPSHOT))
        emit.levels(channel, int(Side.BID), LEVELS, NOW, 1, int(Flags.SNAPSHOT))
        emit.end()
        emit.begin(NOW + number + 10)
        emit.levels(channel, int(Side.ASK), LEVELS, NOW, 2)
        emit.end()
        emit.trade(channel, "1.00", "2", int(Aggressor.BUY), 77, NOW)
        emit.end()
        emit.bbo(channel, "1.00", "2", "1.10", "2", NOW)
        emit.end()
        emit.clear(channel, Reason.STALE)
        emit.end()
    return emit.drain().copy()


def change(records: Records, kind: Kind, field: str, value: Any, place: Any = 0) -> Records:
    """Set a field of the record of a kind at this place among its like."""
    records[field][np.flatnonzero(records["kind"] == kind)[place]] = value
    return records


def without(records: Records, kind: Kind, place: int = 0) -> Records:
    return np.delete(records, np.flatnonzero(records["kind"] == kind)[place])


@pytest.mark.parametrize("at", [None, 3, 5, 8])
def test_what_is_lawful_is_so_in_parts_too(at: int | None) -> None:
    records, laws = lawful(), Laws()
    ends = np.flatnonzero(records["flags"] & Flags.LAST) + 1
    for part in [records] if at is None else np.split(records, [ends[at]]):
        laws.check(part)


BREACHES: dict[str, Callable[[Records], Records]] = {
    "end with LAST": lambda records: records[:2],
    "one ts_recv": lambda records: change(records, Kind.LEVEL, "ts_recv", 5),
    "nothing else in its group": lambda records: change(records, Kind.LEVEL, "flags", 0),
    "of one instrument": lambda records: change(records, Kind.LEVEL, "instrument_id", 2),
    "begins with CLEAR": lambda records: without(records, Kind.CLEAR),
    "channel_seq": lambda records: change(records, Kind.LEVEL, "channel_seq", 9),
    "not valid": lambda records: change(records[[3, 4]], Kind.LEVEL, "channel_seq", [1, 2], slice(None)),
}


@pytest.mark.parametrize("law", BREACHES)
def test_each_breach_is_told(law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        Laws().check(BREACHES[law](lawful()))


def test_a_number_that_is_left_out_or_comes_again_is_told_across_parts() -> None:
    records, laws = lawful(), Laws()
    laws.check(records)
    with pytest.raises(AssertionError, match="channel_seq"):
        laws.check(records)


def test_a_level_after_the_book_was_given_up_in_an_earlier_part_is_told() -> None:
    records, laws = lawful(), Laws()
    laws.check(records)
    late = records[records["kind"] == Kind.LEVEL][2:4]
    late["channel_seq"] = np.arange(2) + records["channel_seq"][records["instrument_id"] == 1].max() + 1
    with pytest.raises(AssertionError, match="not valid"):
        laws.check(late)
