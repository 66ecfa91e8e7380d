from __future__ import annotations

import asyncio
import time

import pytest

from mdring.emulator.pacer import Pacer
from tests.emulator.bench import run


def test_pacer_emits_about_as_many_as_the_rate_says_in_small_portions() -> None:
    async def main() -> None:
        portions: list[int] = []
        pacer = Pacer(asyncio.get_running_loop(), portions.append)
        started = time.monotonic()
        pacer.set_rate(5000)
        while sum(portions) < 1000 or min(portions) > 50:  # they are larger while the machine is busy
            await asyncio.sleep(0.005)
        assert sum(portions) + pacer.shed <= 5000 * (time.monotonic() - started), "never ahead of the time"
        pacer.close()
        assert max(portions) <= 500, "what is more than 0.1 s late is left out"

    run(main())


def test_pacer_rests_at_rate_zero_and_can_be_set_anew() -> None:
    async def main() -> None:
        portions: list[int] = []
        pacer = Pacer(asyncio.get_running_loop(), portions.append)
        assert pacer.rate == 0
        await asyncio.sleep(0.05)
        assert portions == []
        pacer.set_rate(1000)
        while not portions:
            await asyncio.sleep(0.001)
        pacer.set_rate(0)
        count = len(portions)
        await asyncio.sleep(0.05)
        assert len(portions) == count
        with pytest.raises(ValueError, match="negative"):
            pacer.set_rate(-1)
        pacer.close()
        pacer.close()

    run(main())


def test_pacer_leaves_out_what_is_too_late() -> None:
    async def main() -> None:
        portions: list[int] = []
        pacer = Pacer(asyncio.get_running_loop(), portions.append)
        pacer.set_rate(1000)
        time.sleep(0.5)  # the loop is stuck: 500 steps are due, 100 of them not too late
        while not portions:
            await asyncio.sleep(0)
        assert portions[0] == 100
        assert pacer.shed >= 400
        pacer.close()

    run(main())
