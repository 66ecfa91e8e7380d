"""Ids that rise and skip."""

from __future__ import annotations

from mdring.feed.rising_ids import RisingIds


def test_first_id_may_be_any_and_later_ones_skip() -> None:
    for first in (0, 500):
        ids = RisingIds(10)
        assert not ids.repeats(first)
        ids.last = first
        assert not ids.repeats(first + 1) and not ids.repeats(first + 1_000)


def test_known_id_and_older_ones_repeat() -> None:
    ids = RisingIds(10)
    ids.last = 500
    assert [ids.repeats(number) for number in (500, 499, 491)] == [True, True, True]


def test_id_from_far_back_means_that_the_numbers_begin_anew() -> None:
    ids = RisingIds(10)
    ids.last = 500
    assert not ids.repeats(490) and not ids.repeats(0)


def test_any_id_may_come_first_after_a_restart() -> None:
    ids = RisingIds(10)
    ids.last = 500
    ids.restart()
    assert not ids.repeats(500) and ids.live
