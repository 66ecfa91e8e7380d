"""``mdring instruments``: what a venue lists, with what an adapter knows of each instrument.

::

    mdring instruments --venue okx --match '*-USDT-SWAP'
    mdring instruments --venue okx --cached --json

``--venue`` is the id of a venue in the configuration, or the name of an adapter, which then is asked at its own
addresses. Patterns are those of ``[[venues.subscriptions]]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table
from rich.text import Text

from mdring.cli.arguments import DEFAULT_CONFIG, add_config, positive_seconds
from mdring.cli.failure import CommandFailed
from mdring.cli.output import make_console, print_json
from mdring.config import Config, VenueConfig, load
from mdring.feed.adapter import Adapter, InstrumentInfo, adapter_names, load_adapter
from mdring.feed.listing import Listing, ListingCache, ListingUnusable
from mdring.feed.lookup import LookupFailed, look_up
from mdring.feed.subscriptions import names_match
from mdring.run_folder import RUNS_DIRECTORY, rest_budgets
from mdring.symbol import parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument(
        "--venue", required=True, metavar="VENUE", help="id of a venue in the configuration, or adapter"
    )
    parser.add_argument(
        "--match",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only what matches, as '*-USDT', by the canonical symbol or the venue's name; may be given several times",
    )
    parser.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="leave out what matches")
    parser.add_argument("--trading", action="store_true", help="only instruments that are trading")
    parser.add_argument("--cached", action="store_true", help="the list that the venue's worker had last, from disk")
    parser.add_argument(
        "--timeout", type=positive_seconds, default=15.0, metavar="SECONDS", help="for the venue's answer (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def run(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    venue = _chosen_venue(config, arguments.venue)
    adapter = load_adapter(venue.adapter)
    listing = _listing(arguments, config, venue)
    chosen = [info for info in listing.instruments.values() if _is_wanted(info, arguments)]
    if arguments.json:
        print_json(
            {
                "venue": venue.id,
                "adapter": venue.adapter,
                "source": "cached" if arguments.cached else "live",
                "learnt_ns": listing.learnt_ns,
                "instruments": [_row(info, adapter) for info in chosen],
            }
        )
    else:
        _print_table(venue, adapter, listing, chosen)
    return 0


def _config(arguments: argparse.Namespace) -> Config | None:
    """The configuration, if there is one. Raises ConfigError; also if one was asked for that is not there."""
    is_asked_for = arguments.config != DEFAULT_CONFIG or arguments.overrides
    if not is_asked_for and not Path(arguments.config).exists():
        return None
    return load(Path(arguments.config), arguments.overrides)


def _chosen_venue(config: Config | None, wanted: str) -> VenueConfig:
    """Raises CommandFailed."""
    configured = {} if config is None else {venue.id: venue for venue in config.venues}
    if wanted in configured:
        return configured[wanted]
    if wanted not in adapter_names():
        known = f"the configuration has: {', '.join(configured)}" if configured else "there is no configuration"
        raise CommandFailed(f"there is no venue '{wanted}'; {known}; adapters are: {', '.join(adapter_names())}")
    adapter = load_adapter(wanted)
    return VenueConfig(
        id=wanted,
        adapter=wanted,
        websocket_url=adapter.endpoints.websocket_url,
        rest_url=adapter.endpoints.rest_url,
        options=msgspec.to_builtins(adapter.options(), str_keys=True),
    )


def _listing(arguments: argparse.Namespace, config: Config | None, venue: VenueConfig) -> Listing:
    """Raises CommandFailed."""
    is_configured = config is not None and venue in config.venues
    cache = ListingCache(config.listing(venue.id), venue.adapter, venue.rest_url) if config and is_configured else None
    if arguments.cached:
        if cache is None:
            raise CommandFailed(f"'{venue.id}' is no venue of the configuration: no worker keeps its list on disk")
        try:
            return cache.load()
        except ListingUnusable as error:
            raise CommandFailed(f"no list on disk: {error}; a worker keeps it when it has learnt it") from error
    runs = RUNS_DIRECTORY if config is None else Path(config.run.directory)
    try:
        return look_up(venue, rest_budgets(runs), arguments.timeout)
    except LookupFailed as error:
        raise CommandFailed(f"{error}; {_what_is_kept(cache)}") from error


def _what_is_kept(cache: ListingCache | None) -> str:
    if cache is None:
        return "and none is kept on disk"
    try:
        return f"--cached shows that of {cache.load().learnt_at}"
    except ListingUnusable as error:
        return f"and none is kept on disk: {error}"


def _is_wanted(info: InstrumentInfo, arguments: argparse.Namespace) -> bool:
    match: Sequence[str] = arguments.match or ["*"]
    return (
        (info.trading or not arguments.trading)
        and any(names_match(pattern, info) for pattern in match)
        and not any(names_match(pattern, info) for pattern in arguments.exclude)
    )


def _row(info: InstrumentInfo, adapter: type[Adapter]) -> dict[str, Any]:
    """All that is known of it."""
    row: dict[str, Any] = msgspec.to_builtins(info)
    row["product"] = _product(info)
    row["data_types"] = [data_type.name.lower() for data_type in info.offers(adapter)]
    return row


def _product(info: InstrumentInfo) -> str:
    """spot, perpetual, …; empty if the canonical symbol is not of our form."""
    try:
        return str(parse(info.canonical_symbol).product)
    except ValueError:
        return ""


def _contract(info: InstrumentInfo) -> str:
    """What is traded, and of what a size of 1 is: spot BTC, perpetual 0.01 BTC → USDT."""
    amount = f"{info.multiplier} {info.size_unit}" if info.multiplier != "1" or info.settle else info.size_unit
    settle = f"→ {info.settle}" if info.settle else ""
    return " ".join(part for part in (_product(info), amount.strip(), settle) if part)


def _print_table(venue: VenueConfig, adapter: type[Adapter], listing: Listing, chosen: list[InstrumentInfo]) -> None:
    console = make_console()
    table = Table("canonical symbol", "instrument", "status", box=None, padding=(0, 2, 0, 0))
    for name in ("tick", "lot", "price exp.", "size exp."):
        table.add_column(name, justify="right")
    for name in ("contract", "data types"):
        table.add_column(name)
    for info in chosen:
        table.add_row(
            Text(info.canonical_symbol),
            Text(info.instrument),
            Text(info.status or ("trading" if info.trading else "halted"), style="" if info.trading else "yellow"),
            *map(Text, (info.tick or "-", info.lot or "-", str(info.price_exponent), str(info.size_exponent))),
            Text(_contract(info)),
            Text(" ".join(data_type.name.lower() for data_type in info.offers(adapter))),
        )
    console.print(table)
    trading = sum(info.trading for info in chosen)
    console.print(
        Text(
            f"{venue.id}: {len(chosen)} of {len(listing.instruments)} instruments, {trading} trading; "
            f"list of {listing.learnt_at}, {_age(listing)} old",
            style="green",
        )
    )


def _age(listing: Listing) -> str:
    seconds = max(time.time_ns() - listing.learnt_ns, 0) // 1_000_000_000
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
