"""Backoff: bounds, jitter, exhaustion, reset."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.backoff import Backoff

MS = 1_000_000


class Highest(Random):
    """Draws the largest value of every range."""

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        return (start if stop is None else stop) - 1


def test_bound_doubles_with_each_failed_attempt_up_to_the_maximum() -> None:
    backoff = Backoff(500, 3_000, random=Highest())
    assert [backoff.next_delay_ns() // MS for _ in range(5)] == [500, 1000, 2000, 3000, 3000]


def test_delays_are_spread_over_the_whole_range() -> None:
    delays = [Backoff(1_000, 1_000, random=Random(seed)).next_delay_ns() for seed in range(400)]
    quarters = [sum(low * 250 * MS <= delay <= (low + 1) * 250 * MS for delay in delays) for low in range(4)]
    assert min(quarters) > 60  # of 100 expected
    assert len(set(delays)) > 390


def test_two_workers_do_not_draw_the_same_delays_by_default() -> None:
    first, second = Backoff(1_000, 1_000), Backoff(1_000, 1_000)
    assert [first.next_delay_ns() for _ in range(4)] != [second.next_delay_ns() for _ in range(4)]


def test_reset_begins_anew() -> None:
    backoff = Backoff(500, 30_000, random=Highest())
    for _ in range(6):
        backoff.next_delay_ns()
    backoff.reset()
    assert backoff.attempts == 0
    assert backoff.next_delay_ns() == 500 * MS


def test_attempts_are_exhausted_after_the_maximum_number() -> None:
    backoff = Backoff(1, 1, max_attempts=3)
    seen = []
    for _ in range(3):
        seen.append(backoff.exhausted)
        backoff.next_delay_ns()
    assert seen == [False, False, False]
    assert backoff.exhausted
    backoff.reset()
    assert not backoff.exhausted


def test_zero_attempts_means_for_ever() -> None:
    backoff = Backoff(1, 1)
    for _ in range(10_000):
        backoff.next_delay_ns()
    assert not backoff.exhausted


@given(st.integers(1, 86_400_000), st.integers(1, 86_400_000), st.integers(0, 5_000), st.integers())
def test_delay_never_leaves_its_bounds(first_ms: int, maximum_ms: int, attempts: int, seed: int) -> None:
    backoff = Backoff(first_ms, maximum_ms, random=Random(seed))
    backoff.attempts = attempts
    assert 0 <= backoff.next_delay_ns() <= min(maximum_ms * MS, first_ms * MS * 2**attempts)
