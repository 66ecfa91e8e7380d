"""``mdring bench``: what ``bin/bench`` does, if the benchmarks are there: beside the package, in a clone.

They are not installed with mdring: they need a C compiler, and other libraries to compare with.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any, Final

import mdring
from mdring.cli.failure import CommandFailed

_REPOSITORY: Final = Path(mdring.__file__).resolve().parents[1]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the benchmarks, if they are there."""
    if _are_there():
        _module("_options").add_arguments(parser)
    else:
        parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="…")


def run(arguments: argparse.Namespace) -> int:
    if not _are_there():
        raise CommandFailed(
            f"there are no benchmarks beside {Path(mdring.__file__).parent}: they are part of the repository, "
            "not of the installed package; run bin/bench in a clone of it"
        )
    code: int = _module("__main__").run(arguments)
    return code


def _are_there() -> bool:
    return (_REPOSITORY / "benchmarks" / "__main__.py").is_file()


def _module(name: str) -> Any:
    """A module of the benchmarks, which are not on the module path of an installed command."""
    if str(_REPOSITORY) not in sys.path:
        sys.path.append(str(_REPOSITORY))
    return importlib.import_module(f"benchmarks.{name}")
