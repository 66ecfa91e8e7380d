"""The emulator process: ``python -m mdring.emulator --venues binance --seed 7 --rate 200``.

When all ports listen it prints one JSON line (to stdout, or to ``--announce-fd``)::

    {"binance":{"websocket_url":"ws://127.0.0.1:41001","rest_url":"http://127.0.0.1:41002"},"control_url":"http://127.0.0.1:41003"}

It ends cleanly on SIGINT and SIGTERM, and with ``--die-with-parent`` when its parent is gone. Exit status 2
for bad arguments, 1 if a port is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from mdring.emulator.faults import Fault
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from mdring.emulator.venue import emulator_names
from mdring.process import accept_stop, die_with_parent


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal; the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        die_with_parent(os.getppid())
    try:
        config = _config(options)
        server = EmulatorServer(config)
        faults = [_fault(text) for text in options.fault]
        for venue, fault in faults:
            server.venues[venue].injector.arm(fault)
    except (KeyError, ValueError, msgspec.MsgspecError) as error:
        parser.error(str(error.args[0]))
    except OSError as error:
        parser.error(str(error))
    try:
        asyncio.run(_serve(server, options.announce_fd))
    except OSError as error:
        print(f"mdring.emulator: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(server: EmulatorServer, announce_fd: int) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    accept_stop()
    async with server:
        os.write(announce_fd, json.dumps(server.endpoints, separators=(",", ":")).encode() + b"\n")
        await ended.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mdring.emulator", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--venues", default="binance", help=f"names with commas between; there are {emulator_names()}")
    add("--seed", type=int, default=1, help="of market and faults")
    add("--rate", type=int, default=100, help="market steps per second in total; 0 is quiet")
    add("--instruments", default="", help="canonical symbols with commas between, as BTC-USDT,ETH-USDT")
    add("--depth", type=int, default=200, help="levels on each side of a book")
    add("--trade-share", type=float, default=0.3, help="share of steps that are taker orders")
    add("--history", type=int, default=10_000, help="changes and trades an instrument remembers")
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=0, help="WebSocket port of the first venue, its REST port is the next")
    add("--control-port", type=int, default=0)
    add("--tls-cert", type=Path, help="PEM file; with --tls-key the venues speak wss and https")
    add("--tls-key", type=Path)
    add("--truth", type=Path, metavar="FILE", help="append what is put on the wire to this file")
    add("--option", action="append", default=[], metavar="VENUE.KEY=VALUE", help="an option of a venue")
    add("--fault", action="append", default=[], metavar="JSON", help='{"venue": …, "fault": …}, armed at start')
    add("--announce-fd", type=int, default=1, help="where the JSON line with the endpoints goes")
    add("--die-with-parent", action="store_true", help="end when the thread that started this process ends")
    return parser


def _config(options: argparse.Namespace) -> EmulatorConfig:
    return EmulatorConfig(
        venues=_names(options.venues),
        seed=options.seed,
        rate=options.rate,
        instruments=_names(options.instruments),
        depth=options.depth,
        trade_share=options.trade_share,
        history_limit=options.history,
        host=options.host,
        port=options.port,
        control_port=options.control_port,
        tls_cert=options.tls_cert,
        tls_key=options.tls_key,
        truth=options.truth,
        options=_venue_options(options.option),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _venue_options(texts: list[str]) -> dict[str, dict[str, Any]]:
    options: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        venue, dot, key = name.partition(".")
        if not separator or not dot:
            raise ValueError(f"option {text!r} is not of the form VENUE.KEY=VALUE")
        options.setdefault(venue, {})[key] = json.loads(value)
    return options


def _fault(text: str) -> tuple[str, Fault]:
    values = json.loads(text)
    return values.pop("venue"), msgspec.convert(values, Fault)


if __name__ == "__main__":
    sys.exit(main())
