"""``mdring decode``: run a venue's adapter over a capture, offline, and write the records that it makes.

``DIR/records.npy`` is an array of the record dtype, ``DIR/instruments.json`` says what its ids and exponents mean.
What is subscribed to is taken from the configuration::

    mdring decode --config config.toml --venue binance binance.jsonl.gz --out out
"""

from __future__ import annotations

import argparse
from pathlib import Path

from msgspec import to_builtins
from rich.table import Table
from rich.text import Text

from mdring.capture import CaptureError
from mdring.cli.arguments import add_config
from mdring.cli.failure import CommandFailed
from mdring.cli.output import make_console, print_json
from mdring.config import Config, VenueConfig, load
from mdring.decode import DecodeSummary, decode_capture
from mdring.feed.adapter import Endpoints
from mdring.feed.subscriptions import wishes_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--venue", metavar="VENUE", help="id of the venue in the configuration; may be left out if there is only one"
    )
    parser.add_argument("capture", type=Path, metavar="CAPTURE", help="JSON Lines, also compressed by gzip or zstd")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to; made if absent")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(arguments: argparse.Namespace) -> int:
    venue = _chosen_venue(load(Path(arguments.config), arguments.overrides), arguments.venue)
    try:
        summary = decode_capture(
            venue.adapter,
            Endpoints(venue.websocket_url, venue.rest_url),
            venue.options,
            wishes_of(venue),
            arguments.capture,
            arguments.out,
            venue=venue.id,
        )
    except CaptureError as error:
        raise CommandFailed(str(error)) from error
    if arguments.json:
        print_json(to_builtins(summary))
    else:
        _print_summary(arguments.out, summary)
    return 0


def _chosen_venue(config: Config, wanted: str | None) -> VenueConfig:
    """The venue of the configuration, enabled or not. Raises CommandFailed."""
    venues = {venue.id: venue for venue in config.venues}
    if wanted is None and len(venues) == 1:
        return config.venues[0]
    if wanted in venues:
        return venues[wanted]
    problem = "which venue? Name one with --venue" if wanted is None else f"there is no venue '{wanted}'"
    raise CommandFailed(f"{problem}; the configuration has: {', '.join(venues)}")


def _print_summary(out: Path, summary: DecodeSummary) -> None:
    console = make_console()
    table = Table("", "count", box=None, pad_edge=False, show_header=False)
    table.columns[1].justify = "right"
    counts = {
        "frames": summary.frames,
        "records": summary.records,
        **{f"  {kind}": count for kind, count in summary.kinds.items()},
        "gaps": summary.gaps,
        "resyncs": summary.resyncs,
        "rejects": summary.rejects,
        **{f"  {reason}": count for reason, count in summary.reject_reasons.items()},
        "ignored frames": summary.ignored,
        "repeated messages": summary.repeated,
        "snapshots": summary.snapshots,
        "checksums compared": summary.checksums,
        "books": summary.books,
        "books in sync at the end": summary.books_in_sync,
    }
    for name, count in counts.items():
        table.add_row(Text(name), str(count))
    console.print(table)
    for title, names in (
        ("not in the venue's list", summary.unknown_instruments),
        ("not offered by the venue", summary.not_offered),
        ("without an answer in the capture", summary.unanswered),
    ):
        for name in names:
            console.print(Text(f"{title}: {name}", style="yellow"))
    console.print(Text(f"written: {out / 'records.npy'}, {out / 'instruments.json'}", style="green"))
