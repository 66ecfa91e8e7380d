"""Entry of the ``mdring`` command: finds the subcommand's file, runs it, turns errors into exit codes.

A subcommand is a module of this package with ``add_arguments(parser)`` and ``run(arguments) -> int``. Only
the one that was asked for is imported, so ``mdring --help`` is quick.

Exit codes: 0 done, 1 failed (one sentence says why), 2 wrong usage or configuration, 130 interrupted. The
live views ``stat`` and ``tail`` end with Ctrl-C as their normal end, so they exit 0 then. A reader that goes
away (``mdring tail | head``) is a normal end too.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import mdring
from mdring.cli.failure import CommandFailed
from mdring.config_strict import ConfigError
from mdring.ring.segment import SegmentError

COMMANDS: Final = {
    "up": "start a run: connect to the venues and publish on the tape",
    "config": "check a configuration file",
    "venues": "the venues that there are adapters for, and what each of them offers",
    "instruments": "list the instruments of a venue",
    "stat": "what a run does now: states, rates, lags, latencies, errors",
    "tail": "print the records of a run as they come",
    "header": "print the C header by which programs in C and C++ read a run",
    "decode": "run a venue's adapter over a capture, offline",
    "bench": "measure mdring on this machine, beside other libraries and the machine's limits",
}

OK: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
INTERRUPTED: Final = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (``sys.argv`` by default) and return the exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = _parser(chosen)
    parsed = parser.parse_args(words)
    if parsed.version:
        print(f"mdring {mdring.__version__}")
        return OK
    if parsed.command is None:
        parser.print_help(sys.stderr)
        return WRONG_USAGE
    return _run(parsed)


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser; only the ``chosen`` subcommand knows its arguments."""
    parser = argparse.ArgumentParser(
        prog="mdring",
        description="Market data from venues to strategies through shared memory.",
        epilog="'mdring COMMAND --help' says more of a command.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            module = importlib.import_module(f"mdring.cli.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(execute=module.run)
    return parser


def _run(parsed: argparse.Namespace) -> int:
    try:
        code: int = parsed.execute(parsed)
        sys.stdout.flush()
    except ConfigError as error:
        return _complain(str(error), WRONG_USAGE)
    except BrokenPipeError:
        _discard_output()
        return OK
    except (CommandFailed, mdring.RunError, SegmentError, OSError) as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _complain(sentence: str, code: int) -> int:
    print(f"mdring: {sentence}", file=sys.stderr)
    return code


def _discard_output() -> None:
    """Whoever read our output is gone: let the interpreter's last flush go nowhere instead of failing."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
