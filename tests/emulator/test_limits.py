from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdring.emulator.limits import MINUTE_NS, RollingLimit, WeightBudget


@given(st.lists(st.integers(0, 10), max_size=60), st.integers(1, 5), st.integers(1, 20))
def test_rolling_limit_counts_exactly_the_uses_of_the_last_period(gaps: list[int], count: int, period: int) -> None:
    limit, times, now = RollingLimit(count, period), list[int](), 0
    for gap in gaps:
        now += gap
        times.append(now)
        recent = [time for time in times if now - time < period]
        assert limit.allows(now) == (len(recent) <= count)


def test_weight_budget_starts_anew_each_minute() -> None:
    budget = WeightBudget(per_minute=100, strikes=2, ban_s=60)
    assert budget.spend(60, 0).status == 200
    assert budget.spend(40, 1).used == 100
    refused = budget.spend(1, MINUTE_NS - 1_500_000_000)
    assert (refused.status, refused.retry_after_s, refused.used) == (429, 2, 101)
    assert budget.spend(1, MINUTE_NS).used == 1


def test_ignoring_refusals_leads_to_a_ban_that_ends() -> None:
    budget = WeightBudget(per_minute=1, strikes=2, ban_s=120)
    assert [budget.spend(1, 0).status for _ in range(5)] == [200, 429, 429, 418, 418]
    still = budget.spend(1, 2 * MINUTE_NS - 10**9)
    assert (still.status, still.retry_after_s) == (418, 1)
    assert budget.spend(1, 2 * MINUTE_NS).status == 200
