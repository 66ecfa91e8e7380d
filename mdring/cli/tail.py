"""``mdring tail``: print the records of a run as they come, as lines or as JSON objects, one a line.

It is a consumer like any other: it slows nobody, and if it is too slow itself it says how many records it
lost (in JSON as ``{"lost": n}``). It ends with the run, after ``--count`` records, or with Ctrl-C (exit code 0).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import numpy as np
import orjson

import mdring
from mdring.cli.arguments import add_run, chosen_run, positive_count
from mdring.cli.failure import CommandFailed
from mdring.cli.output import make_console
from mdring.cli.record_text import RecordText
from mdring.record import Kind
from mdring.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object per record and line")
    parser.add_argument("--venue", action="append", metavar="VENUE", help="only this venue; may be given several times")
    parser.add_argument(
        "--instrument",
        action="append",
        metavar="NAME",
        help="only this instrument or canonical symbol, VENUE:NAME for one of a venue, * is wild; several times",
    )
    parser.add_argument(
        "--kind", action="append", choices=[kind.name.lower() for kind in Kind], help="only this kind; several times"
    )
    parser.add_argument(
        "--start",
        type=_start,
        default="tail",
        metavar="tail|oldest|SEQ",
        help="from now on, all that the tape has, or from this seq (%(default)s)",
    )
    parser.add_argument("--count", type=positive_count, metavar="N", help="stop after N records")


def run(arguments: argparse.Namespace) -> int:
    with suppress(KeyboardInterrupt), _attach(chosen_run(arguments), arguments) as consumer:
        records = RecordText(consumer.instruments, consumer.run.venues)
        output = _json_output(records) if arguments.json else _line_output(records)
        _follow(consumer, _venue_ids(consumer, arguments.venue), arguments.count, output)
    return 0


def _attach(folder: RunFolder, arguments: argparse.Namespace) -> mdring.Consumer:
    try:
        return mdring.attach(
            folder.name,
            instruments=_patterns(arguments.venue, arguments.instrument),
            kinds=[Kind[name.upper()] for name in arguments.kind] if arguments.kind else None,
            start=arguments.start,
            directory=folder.path.parent,
        )
    except ValueError as error:  # a --start that is not on the tape
        raise CommandFailed(str(error)) from error


Output = Callable[[mdring.Batch, int], None]
"""Prints the number of records that were lost, if any were, then the records."""


def _follow(consumer: mdring.Consumer, venue_ids: list[int] | None, count: int | None, output: Output) -> None:
    left, lost = count, 0
    for batch in consumer:
        wanted = batch if venue_ids is None else batch[np.isin(batch["venue_id"], venue_ids)]
        wanted = wanted[:left]
        output(wanted, consumer.lost - lost)
        lost = consumer.lost
        if left is not None:
            left -= len(wanted)
            if left == 0:
                return


def _json_output(records: RecordText) -> Output:
    def output(batch: mdring.Batch, lost: int) -> None:
        lines: list[dict[str, Any]] = [{"lost": lost}] if lost else []
        lines += [records.as_json(record) for record in batch]
        sys.stdout.buffer.write(b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines))
        sys.stdout.buffer.flush()

    return output


def _line_output(records: RecordText) -> Output:
    console = make_console()
    coloured = console.is_terminal and console.color_system is not None and not console.no_color

    def output(batch: mdring.Batch, lost: int) -> None:
        lines = [f"--- {lost} records lost: this command was too slow ---"] if lost else []
        lines += [records.as_line(record, coloured=coloured) for record in batch]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
        sys.stdout.flush()

    return output


def _patterns(venues: list[str] | None, instruments: list[str] | None) -> list[str] | None:
    """The patterns for ``attach``: every instrument of every venue that is asked for."""
    if venues is None:
        return instruments
    return [f"{venue}:{name.rpartition(':')[2]}" for venue in venues for name in instruments or ["*"]]


def _venue_ids(consumer: mdring.Consumer, venues: list[str] | None) -> list[int] | None:
    """Records of a whole venue pass every instrument filter; hence the ids to filter by. Raises CommandFailed."""
    if venues is None:
        return None
    known = consumer.run.venues
    unknown = [venue for venue in venues if venue not in known]
    if unknown:
        raise CommandFailed(f"run '{consumer.name}' has no venue '{unknown[0]}'; it has: {', '.join(sorted(known))}")
    return [known[venue] for venue in venues]


def _start(text: str) -> Literal["tail", "oldest"] | int:
    if text == "tail":
        return "tail"
    if text == "oldest":
        return "oldest"
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is neither tail nor oldest nor a seq")
