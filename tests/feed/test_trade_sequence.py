"""Trades with consecutive ids: what the stream and the counts are told of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.adapter import AdapterCounts
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.feed.trade_sequence import TradeSequence
from mdring.record import STATUS, TRADE, Aggressor, DataType, Flags, Kind, Reason, State


class Trades:
    """A venue's handler of trades, cut to their ids."""

    def __init__(self, data_type: DataType = DataType.TRADE) -> None:
        self.counts = AdapterCounts()
        self.channel = Channel("btc_usdt", 1, 1, -2, -2)
        self.sequence = TradeSequence(self.channel, self.counts, data_type)
        self.emit = Emit(8)

    def come(self, *ids: int) -> npt.NDArray[np.void]:
        """A message of these trades, an event group; what is staged of it."""
        for number in ids:
            flags = self.sequence.admit(number, self.emit)
            if flags is None:
                continue
            self.emit.trade(self.channel, "1", "1", Aggressor.BUY, number, 1, number, flags)
            self.sequence.take(number)
        self.emit.end()
        return self.emit.drain()


def gap_of(records: npt.NDArray[np.void]) -> list[tuple[int, int, int, int, int, int]]:
    found = records[records["kind"] == Kind.STATUS].view(STATUS)
    return [
        tuple(int(row[name]) for name in ("state", "reason", "data_type", "count", "expected", "found"))
        for row in found
    ]  # fmt: skip


def test_trades_that_follow_one_another_are_told_as_they_are() -> None:
    trades = Trades()
    records = np.concatenate([trades.come(7), trades.come(8), trades.come(9)])
    assert records.view(TRADE)["venue_seq"].tolist() == [7, 8, 9]
    assert (trades.counts.gaps, trades.counts.repeated) == (0, 0)


def test_missing_trades_are_a_group_before_the_one_that_tells() -> None:
    trades = Trades()
    trades.come(7)
    records = trades.come(10)
    assert records["kind"].tolist() == [Kind.STATUS, Kind.TRADE]
    assert all(records["flags"] & Flags.LAST)
    assert gap_of(records) == [(State.GAP, Reason.SEQUENCE_GAP, DataType.TRADE, 2, 8, 10)]
    assert trades.counts.gaps == 1


def test_gap_amid_a_message_ends_the_group_of_those_before() -> None:
    records = Trades().come(7, 8, 10, 11)
    assert records["kind"].tolist() == [Kind.TRADE, Kind.TRADE, Kind.STATUS, Kind.TRADE, Kind.TRADE]
    assert [bool(flags & Flags.LAST) for flags in records["flags"]] == [False, True, True, False, True]


def test_late_trade_is_marked_and_then_a_repeat() -> None:
    trades = Trades()
    trades.come(7, 10)
    late = trades.come(8)
    assert late["flags"].tolist() == [Flags.LAST | Flags.RECOVERED]
    assert len(trades.come(8)) == 0
    assert (trades.counts.gaps, trades.counts.repeated) == (1, 1)


def test_repeats_that_are_to_be_expected_do_not_count() -> None:
    trades = Trades()
    trades.come(7, 8)
    assert trades.sequence.admit(7, trades.emit, counts_repeats=False) is None
    assert trades.counts.repeated == 0


def test_numbers_that_begin_anew_are_a_gap_of_unknown_size() -> None:
    trades = Trades()
    trades.come(1_000_000)
    assert gap_of(trades.come(5)) == [(State.GAP, Reason.SEQUENCE_GAP, DataType.TRADE, 0, 1_000_001, 5)]


def test_gap_too_large_to_be_counted_is_told_as_the_largest() -> None:
    trades = Trades()
    trades.come(0)
    assert gap_of(trades.come(2**62))[0][3] == 2**32 - 1


def test_gap_may_be_one_of_other_data() -> None:
    trades = Trades(DataType.LIQUIDATION)
    trades.come(7)
    assert gap_of(trades.come(9))[0][2] == DataType.LIQUIDATION


def test_trade_that_is_not_taken_leaves_the_gap_to_be_told_again_and_counted_once() -> None:
    trades = Trades()
    trades.come(7)
    mark = trades.emit.mark()
    assert trades.sequence.admit(10, trades.emit) == 0  # and then it turns out to be of no use
    trades.emit.rollback(mark)
    assert trades.counts.gaps == 0
    assert gap_of(trades.come(11)) == [(State.GAP, Reason.SEQUENCE_GAP, DataType.TRADE, 3, 8, 11)]
    assert trades.counts.gaps == 1


def test_what_something_else_tells_is_missing_counts_once_and_may_come_late() -> None:
    trades = Trades()
    trades.come(7)
    assert trades.sequence.tell_gap(10, trades.emit) == 2
    trades.sequence.skip(10)
    assert gap_of(trades.emit.drain()) == [(State.GAP, Reason.SEQUENCE_GAP, DataType.TRADE, 2, 8, 10)]
    assert trades.counts.gaps == 1
    assert len(gap_of(trades.come(10))) == 0
    assert trades.come(9)["flags"].tolist() == [Flags.LAST | Flags.RECOVERED]


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), max_size=6), st.lists(st.integers(0, 30), max_size=4))
def test_message_that_is_taken_back_leaves_no_trace(before: list[list[int]], refused: list[int]) -> None:
    trades, other = Trades(), Trades()
    for message in before:
        trades.come(*message)
        other.come(*message)
    mark = trades.sequence.mark()
    trades.come(*refused)
    trades.sequence.rollback(mark)
    assert trades.counts == other.counts
    for number in range(40):
        assert trades.sequence.judge(number) is other.sequence.judge(number)
