"""The command line of the benchmarks, the same for ``bin/bench`` and ``mdring bench``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

BENCHMARKS: Final = {
    "ring": "one to one: publish, poll, one way, round trip",
    "fanout": "one writer to N readers, each a process of its own",
    "sequencer": "N venue rings to the tape",
    "decode": "a venue's frames to records on its ring, books checked",
    "book": "deltas into books",
    "poll": "one instrument of a thousand: the native filter against numpy and numba",
    "latejoin": "from nothing to consistent books of all instruments",
    "e2e": "a frame on the wire to the strategy's callback, at stated rates",
    "idle": "CPU and memory of a run in which nothing happens",
}
WITH_PEERS: Final = ("ring", "fanout", "decode", "book", "poll", "e2e")
"""Those that other libraries take part in."""

IDLE: Final = ["block", "spin", "yield", "backoff"]
"""The first one is measured at all rates, the others at the highest; ``block`` is the default of mdring."""

RATES: Final = [1_000, 5_000, 20_000]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The benchmark's name and the options."""
    listed = "; ".join(f"{name}: {summary}" for name, summary in BENCHMARKS.items())
    parser.add_argument("benchmark", choices=[*BENCHMARKS, "all"], help=f"{listed}; all of them")
    parser.add_argument("--scale", type=float, default=1.0, help="measure so much longer or shorter than usual")
    parser.add_argument("--duration", type=float, default=3.0, metavar="S", help="seconds of load of e2e, at each rate")
    parser.add_argument("--warm-up", type=float, default=1.0, metavar="S", help="seconds of load that do not count")
    parser.add_argument("--cores", type=_numbers, help="cores to pin to, as 0,1; by default the first ones")
    parser.add_argument("--rate", type=_numbers, default=RATES, help="rates of e2e in frames/s, as 1000,20000")
    parser.add_argument(
        "--idle", type=lambda text: text.split(","), default=IDLE, help="idle strategies of e2e, as block,spin"
    )
    parser.add_argument(
        "--peers", action="store_true", help="first install the other libraries into .venv/peers, to be measured, too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="also write plots and report.html (needs matplotlib)")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
