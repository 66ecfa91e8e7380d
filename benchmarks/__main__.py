"""``bin/bench``: measures mdring on this machine, with the machine's limits beside every figure.

Each benchmark is a module of this package with ``run(options)``; it checks its answer and fails if that is wrong.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks._harness import Result, WrongAnswer, console, machine, print_machine, print_results, write_json

BENCHMARKS: Final = {
    "ring": "one to one: publish, poll, one way, round trip",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "benchmark", choices=[*BENCHMARKS, "all"], help="; ".join(f"{k}: {v}" for k, v in BENCHMARKS.items())
    )
    parser.add_argument("--scale", type=float, default=1.0, help="how much longer (or shorter) than usual to measure")
    parser.add_argument(
        "--cores", type=lambda text: [int(core) for core in text.split(",")], help="cores to pin to, as 0,1"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to FILE")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the named benchmarks; 1 if an answer was wrong."""
    options = _parser().parse_args(arguments)
    described = machine()
    print_machine(described)
    results: dict[str, Sequence[Result]] = {}
    names = list(BENCHMARKS) if options.benchmark == "all" else [options.benchmark]
    for name in names:
        try:
            with console.status(f"measuring {name}: {BENCHMARKS[name]}"):
                results[name] = importlib.import_module(f"benchmarks.{name}").run(options)
        except WrongAnswer as error:
            console.print(f"[red]{name}: wrong answer:[/] {error}")
            return 1
        print_results(f"{name}: {BENCHMARKS[name]}", results[name])
    if options.json is not None:
        write_json(options.json, described, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
