"""What the supervisor tells its user at the start and at the end of a run.

Part of the supervisor. On a terminal it is a few lines of text on standard output, else one log line each::

    say_up(info, config, folder)
    totals = take_totals(segments, config, run_id)
    say_down(info.name, totals)
"""

from __future__ import annotations

import logging
import sys
import time

import msgspec
from msgspec import Struct

from mdring.config import Config, VenueConfig
from mdring.counters import Counter
from mdring.run_folder import RUNS_DIRECTORY, RunFolder, RunInfo
from mdring.supervisor.folder import RunSegments, worker_name

logger = logging.getLogger(__name__)


class VenueTotals(Struct, frozen=True):
    """What came from one venue."""

    frames: int
    records: int
    gaps: int
    resyncs: int
    rejects: int
    drops: int
    reconnects: int


class Totals(Struct, frozen=True):
    """What a run did. ``records`` are those on the tape."""

    duration_s: float
    records: int
    restarts: int
    venues: dict[str, VenueTotals]


def take_totals(segments: RunSegments, config: Config, started_ns: int) -> Totals:
    """The totals by now of a run that began at ``started_ns`` (CLOCK_MONOTONIC)."""
    venues = {}
    for venue in config.enabled_venues:
        load = segments.counters[worker_name(venue.id)].load
        names = VenueTotals.__struct_fields__
        venues[venue.id] = VenueTotals(*(load(Counter[name.upper()]) for name in names))
    return Totals(
        duration_s=round((time.monotonic_ns() - started_ns) / 1e9, 1),
        records=segments.tape.cursor,
        restarts=segments.own.load(Counter.RESTARTS),
        venues=venues,
    )


def say_up(info: RunInfo, config: Config, folder: RunFolder) -> None:
    """Tell that the run is up, what it consists of, and how to attach."""
    if not sys.stdout.isatty():
        logger.info(
            "run is up",
            extra={
                "run": info.name,
                "folder": str(folder.path),
                "segments_bytes": _size(folder),
                "venues": list(info.venues),
                "demo": info.demo,
                "attach": _attach_call(folder),
            },
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_row("  folder", f"{folder.path}  ({_size(folder) / 2**20:.0f} MiB)")
    for venue in config.enabled_venues:
        table.add_row("  venue", _describe_venue(venue, info.demo))
    table.add_row("  attach", _attach_call(folder))
    directory = [] if folder.path.parent == RUNS_DIRECTORY else ["--directory", str(folder.path.parent)]
    table.add_row("  look", " ".join(["mdring", "stat", *directory, "--run", info.name]))
    table.add_row("  stop", "Ctrl-C")
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"run [bold]{info.name}[/bold] is up, supervisor {info.supervisor_pid}")
    console.print(table)


def say_down(name: str, totals: Totals) -> None:
    """Tell that the run is over and what it did."""
    if not sys.stdout.isatty():
        logger.info("run is over", extra={"run": name, **msgspec.to_builtins(totals)})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("venue", no_wrap=True)
    for column in VenueTotals.__struct_fields__:
        table.add_column(column, justify="right", no_wrap=True)
    for venue, of_venue in totals.venues.items():
        table.add_row(venue, *(f"{value:,}" for value in msgspec.structs.astuple(of_venue)))
    console = Console(highlight=False)
    console.print(
        f"run [bold]{name}[/bold] is over after {totals.duration_s:.1f} s: {totals.records:,} records on the tape, "
        f"{totals.restarts} restarts"
    )
    console.print(table)


def _describe_venue(venue: VenueConfig, demo: bool) -> str:
    emulated = " (emulated)" if demo else ""
    patterns = sum(entry.match is not None for entry in venue.subscriptions)
    named = f"{len(venue.subscriptions) - patterns} instruments"
    wanted = f"{named} and {patterns} patterns" if patterns else named
    return f"{venue.id}: {wanted} from {venue.websocket_url}{emulated}"


def _attach_call(folder: RunFolder) -> str:
    directory = "" if folder.path.parent == RUNS_DIRECTORY else f', directory="{folder.path.parent}"'
    return f'mdring.attach("{folder.name}"{directory})'


def _size(folder: RunFolder) -> int:
    return sum(path.stat().st_size for path in folder.path.iterdir())
