"""What subcommands print with: one console, one spelling of JSON."""

from __future__ import annotations

import sys

import orjson
from rich.console import Console

_COLUMNS_OF_A_FILE = 200


def make_console() -> Console:
    """A console on standard output. Where that is no terminal, lines are wide instead of wrapped at 80."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else _COLUMNS_OF_A_FILE)


def print_json(value: object) -> None:
    """Indented JSON on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
