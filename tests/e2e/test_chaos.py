"""Everything at once: faults at random on the wire, in REST and at the venue's door, and kills of every process.

Whatever comes, each record is judged as it comes, the loss is told, and in the end the books are the true ones.
"""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any, Final

import pytest

from mdring.emulator.faults import FRAME_FAULTS
from tests.e2e.recorder import assert_same_records
from tests.e2e.system import UNDETECTABLE, VENUE, System, of_venue

PATIENCE_S: Final = 60.0

AT_RANDOM: Final[tuple[dict[str, Any], ...]] = (
    *({"fault": str(kind), "probability": 0.001} for kind in sorted(FRAME_FAULTS - UNDETECTABLE)),
    {"fault": "close", "probability": 0.000_2},
    {"fault": "reset", "probability": 0.000_2},
    {"fault": "stall", "probability": 0.000_1},
    {"fault": "refuse", "status": 503, "probability": 0.3},
    {"fault": "rest_error", "match": "depth", "status": 500, "probability": 0.1},
    {"fault": "rest_slow", "match": "depth", "delay_ms": 300, "probability": 0.2},
    {"fault": "rest_reset", "match": "depth", "probability": 0.1},
    {"fault": "stale_snapshot", "match": "depth", "probability": 0.1},
)


@pytest.mark.parametrize(
    ("seconds", "seed"),
    [
        pytest.param(10, 5, id="10s"),
        *(
            pytest.param(300, seed, id=f"300s-seed{seed}", marks=[pytest.mark.long, pytest.mark.timeout(1_800)])
            for seed in range(12)
        ),
    ],
)
def test_whatever_comes_nothing_is_lost_untold_and_the_books_are_true_in_the_end(
    directory: Path, seconds: int, seed: int
) -> None:
    choice = random.Random(seed)
    symbols, impatient = ["BTC-USDT", "ETH-USDT"], {"stale_after_ms": 2_000}
    with System(
        directory, instruments=symbols, rate=1_000, seed=seed, tape_slots=1 << 20, connection=impatient
    ) as system:
        emulator = system.emulators["alpha"]
        system.start().wait_until_up()
        with system.recorder() as tape, system.ring_recorder("alpha") as ring:
            for fault in AT_RANDOM:
                emulator.inject(VENUE, count=0, **fault)
            until = time.monotonic() + seconds
            # On a machine that has other things to do less is sent, so less befalls it: then it takes longer.
            while time.monotonic() < until or (
                len(emulator.fired(VENUE)) < len(AT_RANDOM) // 2 and time.monotonic() < until + PATIENCE_S
            ):
                time.sleep(choice.uniform(0.0, 1.0))
                victim = choice.choice(["sequencer", "worker-alpha", "books", "nobody"])
                if victim != "nobody":
                    system.wait_until_gone(victim, system.kill(victim))
                tape.raise_error()
            emulator.clear_faults()
            # A book that was rebuilt often waits long for its next snapshot; a new worker begins without a past.
            system.wait_until_gone("worker-alpha", system.kill("worker-alpha"))
            system.wait_until_synced()
            system.settle(tape)
            system.audit(tape)
            assert len(emulator.fired(VENUE)) >= len(AT_RANDOM) // 2, "hardly any fault has struck"
            assert system.stop() == 0
            tape.join()
        assert_same_records(ring.records(), of_venue(tape.records(), 1))
