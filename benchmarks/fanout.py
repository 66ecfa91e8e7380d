"""One writer, several readers, each a process of its own that reads everything.

::

                     ┌─▶ Reader.poll ── process 1
    Writer.publish ──┼─▶ Reader.poll ── process 2
                     └─▶ Reader.poll ── process N

A reader registers nothing and shares nothing with the others, so another one costs the writer only the cache lines
that it takes away. With more processes than cores the kernel divides the cores, and the figure falls accordingly.
What consumers cost the sequencer in CPU time, whether they block, poll or are stopped, is measured beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Final

from benchmarks._followers import costs
from benchmarks._harness import Part, Result, cores_for, measure
from benchmarks.ring import throughput

READERS: Final = (1, 2, 4)
BATCH: Final = 256


def fan_out(readers: int, count: int, cores: list[int | None] | None) -> Result:
    """M records/s delivered to all readers together."""
    pinned = cores if cores is not None and len(cores) > readers else cores_for(readers + 1)
    rate = throughput(readers, count, BATCH, pinned)
    return Result(name=f"to {readers} readers, all together", value=readers * rate / 1e6, unit="M records/s",
                  more_is_better=True, axis="readers", series="mdring", at=readers)  # fmt: skip


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of one to N."""
    count = max(10 * BATCH, int(1_000_000 * options.scale))
    parts: list[Part] = [(f"{readers} readers", partial(fan_out, readers, count, options.cores)) for readers in READERS]
    parts.append(("the sequencer's CPU time", partial(costs, options.scale, rounds=3 if options.scale >= 1 else 1)))
    return measure("fanout", parts)
