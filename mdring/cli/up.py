"""``mdring up``: start a run in this process, which becomes its supervisor, until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
from pathlib import Path

from mdring.cli.arguments import add_config, overrides, positive_count, positive_seconds
from mdring.config import load
from mdring.supervisor import supervisor
from mdring.supervisor.demo import DEMO_RATE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--run", metavar="NAME", help="name of the run; the same as --set run.name=NAME")
    parser.add_argument("--demo", action="store_true", help="use emulated venues on this machine, no network")
    parser.add_argument(
        "--demo-rate",
        type=positive_count,
        default=DEMO_RATE,
        metavar="N",
        help="steps of the emulated markets per second (%(default)s)",
    )
    parser.add_argument("--duration", type=positive_seconds, metavar="SECONDS", help="shut down in order after so long")


def run(arguments: argparse.Namespace) -> int:
    config = load(Path(arguments.config), overrides(arguments))
    return supervisor.run(config, demo=arguments.demo, demo_rate=arguments.demo_rate, duration_s=arguments.duration)
