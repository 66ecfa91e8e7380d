"""``mdring venues``: the venues that there are adapters for, and how each one's data are kept right.

All is read from the adapters' classes, those of other packages among them. The README's table is this one::

    mdring venues --write README.md
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from msgspec import to_builtins
from rich.table import Table
from rich.text import Text

from mdring.cli.failure import CommandFailed
from mdring.cli.output import make_console, print_json
from mdring.feed.adapter import Adapter, Limits, adapter_names, load_adapter

COLUMNS: Final = ("venue", "adapter", "data types", "how gaps show", "limits kept")
BEGIN: Final = "<!-- made by: mdring venues --write README.md -->"
END: Final = "<!-- end of what is made -->"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the table as JSON")
    form.add_argument("--markdown", action="store_true", help="print the table as the README has it")
    form.add_argument("--write", type=Path, metavar="FILE", help="put it between the two marks in a Markdown file")


def run(arguments: argparse.Namespace) -> int:
    adapters = [load_adapter(name) for name in adapter_names()]
    if arguments.json:
        print_json([_description(adapter) for adapter in adapters])
    elif arguments.markdown:
        print(markdown(adapters))
    elif arguments.write is not None:
        _write(arguments.write, markdown(adapters))
    else:
        table = Table(*COLUMNS)
        for adapter in adapters:
            table.add_row(*map(Text, _cells(adapter)))
        make_console().print(table)
    return 0


def markdown(adapters: list[type[Adapter]]) -> str:
    """The table in Markdown, without a line feed at its end."""
    cells = [(title, f"`{name}`", *rest) for title, name, *rest in map(_cells, adapters)]
    rows = [COLUMNS, ("---",) * len(COLUMNS), *cells]
    return "\n".join(f"| {' | '.join(map(_escaped, row))} |" for row in rows)


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def between_marks(text: str, path: Path) -> tuple[str, str, str]:
    """A file's text up to the first mark, between the marks, and from the second mark on. Raises CommandFailed."""
    before, begin, rest = text.partition(BEGIN)
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise CommandFailed(f"{path} has no lines '{BEGIN}' and '{END}' to put the table between")
    return before + begin, inside, end + after


def _write(path: Path, table: str) -> None:
    before, _, after = between_marks(path.read_text(encoding="utf-8"), path)
    path.write_text(f"{before}\n\n{table}\n\n{after}", encoding="utf-8")


def _cells(adapter: type[Adapter]) -> tuple[str, ...]:
    return (
        adapter.title(),
        adapter.venue,
        ", ".join(data_type.name.lower() for data_type in adapter.data_types),
        adapter.integrity,
        limits_text(adapter.limits) or "none",
    )


def limits_text(limits: Limits) -> str:
    """The limits of the venue that a worker keeps to, in words."""
    parts = {
        "a connection in {} s": limits.connect_interval_s,
        "a frame in {} s": limits.send_interval_s,
        "REST weight {} a minute": limits.weight_per_minute,
        "connections of {} h": limits.max_connection_life_s / 3600,
    }
    return ", ".join(text.format(f"{value:g}") for text, value in parts.items() if value)


def _description(adapter: type[Adapter]) -> dict[str, Any]:
    """What the class says of itself."""
    return {
        "venue": adapter.title(),
        "adapter": adapter.venue,
        "data_types": [data_type.name.lower() for data_type in adapter.data_types],
        "integrity": adapter.integrity,
        "detects_loss": adapter.detects_loss,
        "limits": to_builtins(adapter.limits),
        "endpoints": to_builtins(adapter.endpoints),
        "options": to_builtins(adapter.options()),
        "module": adapter.__module__,
    }
