"""Command-line arguments that several subcommands share, and what they mean."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from mdring.cli.failure import CommandFailed
from mdring.run_folder import RUNS_DIRECTORY, RunFolder, list_runs

DEFAULT_CONFIG = "config.toml"


def add_config(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--set``."""
    parser.add_argument("--config", default=DEFAULT_CONFIG, metavar="FILE", help="configuration file (%(default)s)")
    add_set(parser)


def add_set(parser: argparse.ArgumentParser) -> None:
    """``--set``."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key of the file: --set tape.slots=65536 --set venues[0].enabled=false",
    )


def overrides(arguments: argparse.Namespace) -> list[str]:
    """What ``--set`` and ``--run`` change in the configuration."""
    named = [] if arguments.run is None else [f'run.name="{arguments.run}"']
    return [*arguments.overrides, *named]


def add_run(parser: argparse.ArgumentParser) -> None:
    """``--run`` and ``--directory``."""
    parser.add_argument("--run", metavar="NAME", help="name of the run; may be left out while only one lives")
    parser.add_argument(
        "--directory",
        type=Path,
        default=RUNS_DIRECTORY,
        metavar="DIR",
        help="run.directory of the configuration, by default $MDRING_DIRECTORY, else /dev/shm/mdring (now %(default)s)",
    )


def chosen_run(arguments: argparse.Namespace) -> RunFolder:
    """The run that is asked for, living or not; without a name the only living one.

    Raises CommandFailed if there is none, or more than one to choose from.
    """
    runs = list_runs(arguments.directory)
    living = [run for run in runs if run.alive()]
    if arguments.run is not None:
        named = [run for run in runs if run.name == arguments.run]
        if not named:
            raise CommandFailed(f"there is no run '{arguments.run}' in {arguments.directory}; {_listed(living)}")
        return named[0]
    if len(living) == 1:
        return living[0]
    if living:
        raise CommandFailed(f"which run? {_listed(living)}; name one with --run")
    raise CommandFailed(f"no run is up in {arguments.directory}; start one with 'mdring up'")


def _listed(runs: list[RunFolder]) -> str:
    return f"running: {', '.join(run.name for run in runs) or 'none'}"


def positive_seconds(text: str) -> float:
    """A length of time of the command line. Raises ArgumentTypeError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return seconds


def positive_count(text: str) -> int:
    """A number of things of the command line. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)
