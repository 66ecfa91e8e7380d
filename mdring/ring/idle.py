"""Idle strategies: what a loop does when its duty cycle found no work.

Every loop of mdring is ``work = do_work(); if not work: idle``. The strategies trade CPU for wake-up
latency; none of them costs the writer anything but ``block``. The sequencer then wakes two for each batch, whatever the
number of those who sleep, and they wake the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mdring.ring._ring import IDLE_BACKOFF, IDLE_BLOCK, IDLE_SPIN, IDLE_YIELD


@dataclass(frozen=True)
class IdleStrategy:
    """How to wait: a native strategy, after looking again and again for ``spin_ns``, with a yield between two looks."""

    alias: str
    native: int
    spin_ns: int


IDLE_STRATEGIES: Final[dict[str, IdleStrategy]] = {
    # A whole core for ever; wakes in well under a microsecond. Only with a core of its own.
    "spin": IdleStrategy("spin", IDLE_SPIN, 0),
    # A whole core when nobody else wants it; wakes within a scheduler round.
    "yield": IdleStrategy("yield", IDLE_YIELD, 20_000),
    # Sleeps of 1 us to 1 ms: about 1 % of a core when idle, wakes up to 1 ms late, never needs a wake-up call.
    "backoff": IdleStrategy("backoff", IDLE_BACKOFF, 20_000),
    # Yields for a while, then sleeps on the cursor's futex: no CPU when idle, wakes in some 10 us. The default. Where
    # data comes often it seldom sleeps; and as it yields, processes that share two cores do not hold each other up.
    "block": IdleStrategy("block", IDLE_BLOCK, 100_000),
}


def idle_strategy(alias: str, spin_us: int | None = None) -> IdleStrategy:
    """The strategy called ``alias``, spinning ``spin_us`` first. Raises ValueError with the valid names."""
    try:
        strategy = IDLE_STRATEGIES[alias]
    except KeyError:
        raise ValueError(f"no idle strategy {alias!r}; there are: {', '.join(IDLE_STRATEGIES)}") from None
    if spin_us is None:
        return strategy
    return IdleStrategy(strategy.alias, strategy.native, spin_us * 1000)
