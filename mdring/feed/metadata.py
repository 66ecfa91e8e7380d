"""What the worker must know before it connects: the instruments' metadata, and their rows in the instrument table.

Part of the worker. The venue's REST may be slow, wrong or dead: ``learn`` tries again, with backoff, for as long as
the configuration allows, and has every failure told. ``declare`` hands the instruments to the supervisor, the only
writer of the instrument table, over the control socket, as lines of JSON, and waits for their rows::

    infos = await learn([adapter], fetcher, backoff, on_failure)
    rows = await declare(control, table, "binance", infos)
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from mdring.feed.adapter import Adapter, Fetch, InstrumentInfo, VenueProtocolError
from mdring.feed.backoff import Backoff
from mdring.feed.rest import Fetcher
from mdring.instrument import Instrument, InstrumentTable

logger = logging.getLogger(__name__)

_INSTRUMENTS_PER_LINE: Final = 200
_ROW_POLL_S: Final = 0.005
_ROWS_WAIT_S: Final = 10.0  # the supervisor answers within milliseconds, or has refused


class AttemptsExhausted(Exception):
    """The metadata could not be had in as many attempts as the configuration allows."""


async def learn(
    learners: Sequence[Adapter], fetcher: Fetcher, backoff: Backoff, on_failure: Callable[[str], None]
) -> dict[str, InstrumentInfo]:
    """The metadata of all instruments that the venue lists and the adapter can serve, by the venue's names.

    ``learners`` are objects of the adapter that were told of different subscriptions (``subscriptions.learners``); what
    several of them ask for is fetched once, for the first. ``on_failure`` is told why, after each failed attempt.
    Raises AttemptsExhausted.
    """
    infos: dict[str, InstrumentInfo] = {}
    asked: set[str] = set()
    pending: list[tuple[Adapter, Fetch]] = []

    def ask(learner: Adapter, fetches: Iterable[Fetch]) -> None:
        for fetch in fetches:
            if fetch.url not in asked:
                asked.add(fetch.url)
                pending.append((learner, fetch))

    for learner in learners:
        ask(learner, learner.metadata_requests())
    while True:
        failed = []
        while pending:
            learner, fetch = pending.pop(0)
            try:
                found = learner.on_metadata(await fetcher.fetch(fetch))
            except VenueProtocolError as error:
                on_failure(str(error))
                failed.append((learner, fetch))
            else:
                ask(learner, (entry for entry in found if isinstance(entry, Fetch)))
                for info in found:
                    if isinstance(info, InstrumentInfo):
                        infos.setdefault(info.instrument, info)
        pending += failed
        if not pending:
            return infos
        if backoff.exhausted:
            raise AttemptsExhausted
        await asyncio.sleep(backoff.next_delay_ns() / 1e9)


async def declare(
    control: socket.socket, table: InstrumentTable, venue: str, infos: Sequence[InstrumentInfo]
) -> dict[str, Instrument]:
    """The rows of these instruments, by the venue's names; what the supervisor refuses is not among them.

    ``control`` is non-blocking.
    """
    missing = {info.instrument: info for info in infos if _row(table, venue, info) is None}
    await _tell(control, list(missing.values()))
    for _ in range(round(_ROWS_WAIT_S / _ROW_POLL_S)):
        missing = {name: info for name, info in missing.items() if _row(table, venue, info) is None}
        if not missing:
            break
        await asyncio.sleep(_ROW_POLL_S)
    for name in missing:
        logger.error("the supervisor gives %s no row in the instrument table", name)
    rows = {info.instrument: _row(table, venue, info) for info in infos}
    return {name: row for name, row in rows.items() if row is not None}


async def _tell(control: socket.socket, infos: Sequence[InstrumentInfo]) -> None:
    loop = asyncio.get_running_loop()
    for first in range(0, len(infos), _INSTRUMENTS_PER_LINE):
        line = msgspec.json.encode({"instruments": infos[first : first + _INSTRUMENTS_PER_LINE]})
        await loop.sock_sendall(control, line + b"\n")


def _row(table: InstrumentTable, venue: str, info: InstrumentInfo) -> Instrument | None:
    """The instrument's row, if there is one with these very exponents and this canonical symbol."""
    row = table.get(f"{venue}:{info.instrument}")
    wanted = (info.price_exponent, info.size_exponent, info.canonical_symbol)
    if row is None or (row.price_exponent, row.size_exponent, row.canonical_symbol) != wanted:
        return None
    return row
