"""Consecutive ids: gaps, late ones, repeats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.id_sequence import OVERLAP, IdSequence, Step


def steps(ids: list[int]) -> list[Step]:
    sequence = IdSequence()
    seen = []
    for number in ids:
        seen.append(sequence.judge(number))
        if seen[-1] is not Step.REPEAT:
            sequence.take(number)
    return seen


def test_first_id_may_be_any_and_each_next_one_follows() -> None:
    assert steps([500, 501, 502]) == [Step.NEXT] * 3
    assert steps([0, 1]) == [Step.NEXT] * 2


def test_missing_id_is_a_gap_once() -> None:
    assert steps([10, 13, 14]) == [Step.NEXT, Step.GAP, Step.NEXT]


def test_id_that_comes_after_its_gap_was_noticed_is_late_and_then_a_repeat() -> None:
    assert steps([10, 12, 11, 11, 13]) == [Step.NEXT, Step.GAP, Step.LATE, Step.REPEAT, Step.NEXT]


def test_known_id_is_a_repeat() -> None:
    assert steps([10, 11, 11, 10, 12]) == [Step.NEXT, Step.NEXT, Step.REPEAT, Step.REPEAT, Step.NEXT]


def test_ids_that_are_skipped_may_come_late_and_the_next_one_follows() -> None:
    sequence = IdSequence()
    sequence.take(10)
    sequence.skip(13)
    assert [sequence.judge(number) for number in (10, 11, 12, 13, 14)] == [
        Step.REPEAT,
        Step.LATE,
        Step.LATE,
        Step.NEXT,
        Step.GAP,
    ]
    sequence.take(12)
    sequence.take(13)
    assert (sequence.judge(12), sequence.judge(14)) == (Step.REPEAT, Step.NEXT)


def test_id_from_far_back_means_that_the_numbers_begin_anew() -> None:
    assert steps([10_000, 1, 2]) == [Step.NEXT, Step.GAP, Step.NEXT]
    assert steps([10_000, 10_001 - OVERLAP, 10_001]) == [Step.NEXT, Step.REPEAT, Step.NEXT]


def test_id_after_which_none_fits_in_64_bits_is_refused() -> None:
    sequence = IdSequence()
    sequence.take(7)
    with pytest.raises(OverflowError):
        sequence.take(2**63 - 1)
    assert sequence.judge(8) is Step.NEXT


def test_id_that_was_judged_but_not_taken_is_missing() -> None:
    sequence = IdSequence()
    sequence.take(7)
    assert sequence.judge(8) is Step.NEXT
    assert sequence.judge(9) is Step.GAP and sequence.due == 8


@given(st.integers(0, 2**63 - 51), st.integers(1, 50), st.lists(st.integers(0, 49), max_size=20))
def test_each_id_is_taken_at_most_once_and_repeats_are_known_ones(start: int, count: int, again: list[int]) -> None:
    ids = [start + offset for offset in range(count)]
    for offset in again:
        ids.insert(min(2 * offset, len(ids)), start + min(offset, count - 1))
    taken: list[int] = []
    sequence = IdSequence()
    for number in ids:
        if sequence.judge(number) is Step.REPEAT:
            continue
        sequence.take(number)
        taken.append(number)
    assert len(taken) == len(set(taken))


@given(st.integers(0, 1000), st.sets(st.integers(1, 60), max_size=20))
def test_every_hole_in_the_ids_is_a_gap_of_exactly_its_size(start: int, dropped: set[int]) -> None:
    missing = 0
    sequence = IdSequence()
    for number in range(start, start + 62):
        if number - start in dropped:
            continue
        if sequence.judge(number) is Step.GAP:
            missing += number - sequence.due
        sequence.take(number)
    assert missing == len(dropped)
