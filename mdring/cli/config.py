"""``mdring config check FILE``: what a configuration subscribes to, or every error in it."""

from __future__ import annotations

import argparse
from pathlib import Path

from msgspec import to_builtins
from rich.table import Table
from rich.text import Text

from mdring.cli.arguments import DEFAULT_CONFIG, add_set
from mdring.cli.output import make_console, print_json
from mdring.config import Config, ConfigError, SubscriptionConfig, VenueConfig, load
from mdring.feed.adapter import load_adapter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="check a file and say what it subscribes to; exit code 2 on errors")
    check.add_argument("file", nargs="?", default=DEFAULT_CONFIG, metavar="FILE", help="(%(default)s)")
    check.add_argument("--json", action="store_true", help="print the resolved configuration, or the errors, as JSON")
    add_set(check)


def run(arguments: argparse.Namespace) -> int:
    path = Path(arguments.file)
    if not arguments.json:
        _print_summary(path, load(path, arguments.overrides))
        return 0
    try:
        config = load(path, arguments.overrides)
    except ConfigError as error:
        problems = [
            {"key": each.key, "message": each.message, "found": each.found, "valid": each.valid}
            for each in error.problems
        ]
        print_json({"valid": False, "file": error.source, "errors": problems})
        return 2
    print_json({"valid": True, "file": str(path), "config": to_builtins(config)})
    return 0


def _print_summary(path: Path, config: Config) -> None:
    console = make_console()
    console.print(Text(f"{path} is valid: run '{config.run.name}' in {config.run.path}", style="green"))
    venues = Table("venue", "adapter", "address", "integrity", "instruments")
    subscriptions = Table("venue", "instrument", "canonical symbol", "data types")
    for venue in config.venues:
        name = Text(venue.id if venue.enabled else f"{venue.id} (disabled)")
        venues.add_row(
            name,
            Text(venue.adapter),
            Text(f"{venue.websocket_url}\n{venue.rest_url}"),
            Text(load_adapter(venue.adapter).integrity),
            _instruments_text(venue),
        )
        for each in venue.subscriptions:
            subscriptions.add_row(
                name,
                Text(each.instrument or _pattern_text(each)),
                Text(each.canonical_symbol or "(from the venue)"),
                Text(", ".join(each.data_types)),
            )
    console.print(venues)
    console.print(subscriptions)


def _instruments_text(venue: VenueConfig) -> str:
    """How many instruments are subscribed to, as far as the configuration tells."""
    named = sum(each.instrument is not None for each in venue.subscriptions)
    patterns = len(venue.subscriptions) - named
    return f"{named}, {patterns} pattern{'s' if patterns > 1 else ''}" if patterns else str(named)


def _pattern_text(subscription: SubscriptionConfig) -> str:
    without = f" without {', '.join(subscription.exclude)}" if subscription.exclude else ""
    return f"all that match {subscription.match}{without}"
