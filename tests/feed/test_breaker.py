"""The circuit breaker: its three states and every way between them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.breaker import BreakerState, CircuitBreaker


def opened(half_open_attempts: int = 1) -> CircuitBreaker:
    """A breaker that opened at time 1000 for 500."""
    breaker = CircuitBreaker(2, 500, half_open_attempts)
    for _ in range(2):
        breaker.on_attempt(1000)
        breaker.on_failure(1000)
    return breaker


def test_stays_closed_below_the_threshold() -> None:
    breaker = CircuitBreaker(3, 500)
    for _ in range(2):
        breaker.on_failure(0)
    assert breaker.state is BreakerState.CLOSED
    assert breaker.wait_ns(0) == 0


def test_success_between_failures_keeps_it_closed() -> None:
    breaker = CircuitBreaker(2, 500)
    for _ in range(5):
        breaker.on_failure(0)
        breaker.on_success()
    assert breaker.state is BreakerState.CLOSED


def test_opens_at_the_threshold_and_says_how_long() -> None:
    breaker = opened()
    assert breaker.state is BreakerState.OPEN
    assert [breaker.wait_ns(now) for now in (1000, 1400, 1499, 1500, 9999)] == [500, 100, 1, 0, 0]


def test_attempt_while_open_is_an_error() -> None:
    with pytest.raises(ValueError, match="open"):
        opened().on_attempt(1499)


def test_becomes_half_open_with_the_first_attempt_after_its_time() -> None:
    breaker = opened()
    breaker.on_attempt(1500)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.wait_ns(1500) == 0


def test_success_while_half_open_closes_it() -> None:
    breaker = opened()
    breaker.on_attempt(1500)
    breaker.on_success()
    assert breaker.state is BreakerState.CLOSED
    breaker.on_failure(1600)
    assert breaker.state is BreakerState.CLOSED  # counts from zero again


def test_failure_while_half_open_opens_it_anew() -> None:
    breaker = opened()
    breaker.on_attempt(1500)
    breaker.on_failure(1700)
    assert breaker.state is BreakerState.OPEN
    assert breaker.wait_ns(1700) == 500


def test_half_open_allows_the_configured_number_of_attempts() -> None:
    breaker = opened(half_open_attempts=3)
    states = []
    for _ in range(3):
        breaker.on_attempt(1500)
        breaker.on_failure(1500)
        states.append(breaker.state)
    assert states == [BreakerState.HALF_OPEN, BreakerState.HALF_OPEN, BreakerState.OPEN]


def test_disabled_breaker_never_opens() -> None:
    breaker = CircuitBreaker(1, 500, enabled=False)
    for _ in range(100):
        breaker.on_attempt(0)
        breaker.on_failure(0)
    assert breaker.state is BreakerState.CLOSED


@given(
    st.integers(1, 4),
    st.integers(1, 50),
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["attempt", "success", "failure"]), st.integers(0, 20)), max_size=60),
)
def test_no_attempt_is_made_within_open_ns_of_opening(
    threshold: int, open_ns: int, half_open_attempts: int, events: list[tuple[str, int]]
) -> None:
    breaker = CircuitBreaker(threshold, open_ns, half_open_attempts)
    now, opened_at = 0, None
    for event, passed in events:
        now += passed
        if event == "attempt" and breaker.wait_ns(now) == 0:
            assert opened_at is None or now >= opened_at + open_ns
            breaker.on_attempt(now)
            assert breaker.state is not BreakerState.OPEN
        elif event != "attempt" and breaker.state is not BreakerState.OPEN:
            breaker.on_success() if event == "success" else breaker.on_failure(now)
        opened_at = (now if opened_at is None else opened_at) if breaker.state is BreakerState.OPEN else None
