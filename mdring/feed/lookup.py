"""The venue's list of instruments for whoever runs no worker: asked for once, with a bound on the time.

``mdring instruments`` calls it::

    listing = look_up(venue, rest_budgets(runs), patience_s=15.0)      # VenueConfig

What it asks for counts in the REST budget of this host, as what workers ask for does.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from mdring.config import VenueConfig
from mdring.feed.adapter import Fetch, InstrumentInfo, Response
from mdring.feed.backoff import Backoff
from mdring.feed.listing import Listing
from mdring.feed.metadata import learn
from mdring.feed.rest import Fetcher, RestClient
from mdring.feed.rest_budget import RestBudget
from mdring.feed.subscriptions import adapter_maker, named, wishes_of
from mdring.feed.transport import tls_for


class LookupFailed(Exception):
    """The venue has not given its list in time; the message says where it was asked for, and why."""


def look_up(venue: VenueConfig, budgets: Path, patience_s: float) -> Listing:
    """Ask the venue for the list of its instruments. ``budgets``: ``run_folder.rest_budgets``. Raises LookupFailed."""
    failures: list[str] = []
    try:
        instruments = asyncio.run(_learn(venue, budgets, patience_s, failures))
    except TimeoutError:
        why = failures[-1] if failures else "no answer"
        raise LookupFailed(f"{venue.rest_url} gives no list of instruments within {patience_s:g} s: {why}") from None
    return Listing(time.time_ns(), instruments)


async def _learn(
    venue: VenueConfig, budgets: Path, patience_s: float, failures: list[str]
) -> dict[str, InstrumentInfo]:
    make, told = adapter_maker(venue), named(wishes_of(venue))
    learners = [make(told), make(())] if told else [make(())]  # all there is, whatever is subscribed to
    client = RestClient(round(patience_s * 1e9), tls_for(venue.ca_file, venue.rest_url))
    backoff = Backoff(venue.connection.reconnect_delay_ms, venue.connection.max_reconnect_delay_ms)
    try:
        async with asyncio.timeout(patience_s), asyncio.TaskGroup() as tasks:
            fetcher = Fetcher(client, RestBudget(learners[0].limits, venue.rest_url, budgets), _ignore)
            running = tasks.create_task(fetcher.run())
            infos = await learn(learners, fetcher, backoff, failures.append)
            running.cancel()
        return infos
    finally:
        await client.close()


def _ignore(fetch: Fetch, response: Response) -> None:
    """Nothing is submitted, so nothing comes."""
