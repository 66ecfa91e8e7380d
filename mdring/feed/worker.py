"""The worker, process 1: one venue, from its sockets to its venue ring.

::

    transport --frames--> session --> driver --> adapter --> emit --> publisher --> venue ring
        |                    ^          |  |                                             ^
        |                    +-- Send --+  +-- Fetch --> rest                            |
        +--> intake --the usual messages--> direct path ---------------------------------+

It learns the instruments' metadata (``listing.py``: from the file of the last time while REST is dead), finds out what
the subscriptions mean (``subscriptions.py``), has the supervisor give the instruments rows in the instrument table,
then keeps the adapter's connections up until SIGTERM. Nothing that the venue does ends it; an exception that is no
:class:`VenueProtocolError` is our bug and does, for the supervisor to start it anew. The supervisor runs::

    python -m mdring.feed.worker --run-folder /dev/shm/mdring/demo --venue binance --parent 4711 --control-fd 5

Exit status 0 after SIGTERM. A worker that has given up (``max_reconnect_attempts``) stays, idle and DISCONNECTED.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

import uvloop

from mdring import log
from mdring.config import Config, VenueConfig, from_json
from mdring.counters import Counter, Counters
from mdring.feed.adapter import Connection, InstrumentInfo, Limits, Rejected
from mdring.feed.backoff import Backoff
from mdring.feed.breaker import CircuitBreaker
from mdring.feed.channels import ChannelStore
from mdring.feed.driver import Driver
from mdring.feed.life_cycle import ConnectPace, LifeCycle
from mdring.feed.listing import Listing, ListingCache, ListingSource, differences
from mdring.feed.metadata import AttemptsExhausted, declare, learn
from mdring.feed.publisher import Publisher
from mdring.feed.quarantine import Quarantine
from mdring.feed.rest import Fetcher, RestClient
from mdring.feed.rest_budget import RestBudget
from mdring.feed.session import SessionSettings
from mdring.feed.stage import Channel
from mdring.feed.states import BEFORE_CONNECTIONS, Announcement, ConnectionStates
from mdring.feed.subscriptions import AdapterMaker, Resolved, adapter_maker, learners, resolve, wishes_of
from mdring.feed.transport import Timeouts, tls_for
from mdring.feed.watchdog import WatchdogSettings
from mdring.instrument import Instrument, InstrumentTable
from mdring.process import accept_stop, die_with_parent, pin_to_core, short_turns
from mdring.record import FINGERPRINT, LAYOUT_VERSION, DataType, Reason, State
from mdring.ring import segment
from mdring.run_folder import RunFolder, rest_budgets

logger = logging.getLogger(__name__)

_PULSE_S: Final = 0.2
_WEIGH_EVERY: Final = 5  # pulses; to read the REST account takes longer than some frames
_CLOSE_WAIT_S: Final = 0.25
_MS: Final = 1_000_000
# A connection is replaced somewhere in this part of its maximum life, so that no two workers do it at once.
_LIFE_PERCENT: Final = range(80, 96)
_GC_THRESHOLDS: Final = (50_000, 20, 50)


class _Stopped(Exception):
    """Ends the worker's tasks."""


class Worker:
    """The worker of one venue of a run. ``run`` until ``stop``."""

    def __init__(
        self, folder: RunFolder, config: Config, venue: VenueConfig, make: AdapterMaker, control: socket.socket
    ) -> None:
        """Take over the venue ring and its channel_seqs; the segments are there already.

        ``make`` makes the venue's adapter: one that learns which instruments there are, then one that feeds.

        Raises SegmentError, AlreadyWritten if another worker of the venue lives.
        """
        self.counters = Counters.open_as_writer(folder.counters(f"worker-{venue.id}"), os.getpid())
        self._venue = venue
        self._venue_id = config.venue_ids[venue.id]
        self._make = make
        self._wishes = wishes_of(venue)
        self._learners = learners(make, self._wishes)
        self._adapter = self._learners[0]
        self._control = control
        self._table = InstrumentTable.attach(folder.instruments)
        self._store = ChannelStore.attach(folder.channels(venue.id))
        self._ring = segment.attach(
            folder.venue_ring(venue.id), segment.SegmentKind.RING, version=LAYOUT_VERSION, fingerprint=FINGERPRINT,
            writable=True,
        )  # fmt: skip
        self._sequencer = Counters.attach(folder.counters("sequencer"))
        self.publisher = Publisher(self._ring, self._venue_id, self._sequencer.words, self.counters, self._store)
        self._venue_channel = Channel("", 0, self._venue_id, 0, 0)
        self._channels: dict[int, Channel] = {}  # by instrument_id
        self._recalled: Listing | None = None
        self._subscribed: Mapping[str, Channel] = {}  # by the venue's name of the instrument
        self.publisher.add([self._venue_channel])
        self.states = ConnectionStates(self._venue_channel, self.counters)
        quarantine = Quarantine(config.run.state_path / f"quarantine-{venue.id}.jsonl", venue.quarantine.max_bytes)
        self.driver = Driver(
            self._adapter, self.publisher, self.states, quarantine, self.counters, self._venue_channel
        )  # fmt: skip
        self._cache = ListingCache(config.listing(venue.id), venue.adapter, venue.rest_url)
        self._tls = tls_for(venue.ca_file, venue.websocket_url, venue.rest_url)
        self._client = RestClient(venue.connection.rest_timeout_ms * _MS, self._tls)
        self._budget = RestBudget(self._adapter.limits, venue.rest_url, rest_budgets(folder.path.parent))
        self._pace = ConnectPace(round(self._adapter.limits.connect_interval_s * 1e9))
        self.lives: list[LifeCycle] = []
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Have ``run`` tell the stream, close the sockets and return."""
        self._stop.set()

    async def run(self) -> None:
        """Feed the venue ring. Raises an exception group with what is our bug."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._begin()
                tasks.create_task(self._pulse(), name="pulse")
                tasks.create_task(self._feed(tasks), name="feed")
                await self._stop.wait()
                self._shut_down()
                raise _Stopped
        except* _Stopped:
            pass
        finally:
            await _briefly(self._client.close())
        for life in self.lives:
            await _briefly(life.wait_closed())
        self._beat()

    def close(self) -> None:
        """Give the segments up to a successor."""
        for mapped in (self._ring, self._store, self.counters.segment):
            mapped.close()

    def _begin(self) -> None:
        """Say that we are here; after a predecessor, that no book of its can be relied on."""
        if self.publisher.cursor == 0:
            self._announce(State.RECONNECTING, Reason.STARTED)
            return
        logger.info("going on after seq %d of the venue ring", self.publisher.cursor)
        self.counters.store(Counter.BOOKS_VALID, 0)
        known = [self._channel(row) for row in self._table if row.venue == self._venue.id]
        self.driver.clear_after_restart([channel for channel in known if channel.channel_seq(DataType.BOOK)])

    async def _feed(self, tasks: asyncio.TaskGroup) -> None:
        """From nothing to connections that keep themselves up."""
        limits = self._adapter.limits
        fetcher = Fetcher(self._client, self._budget, self.driver.on_response, self.driver.activity)
        self.driver.fetcher = fetcher
        tasks.create_task(fetcher.run(), name="fetcher")
        source = ListingSource(
            lambda: learn(self._learners, fetcher, self._backoff(), self._on_metadata_failure),
            self._cache, self._venue.connection.metadata_timeout_ms / 1000, tasks,
            lambda recalled: bool(self._resolve(recalled.instruments).subscriptions),
            self._on_recalled_listing, self._on_late_listing,
        )  # fmt: skip
        try:
            listing = await source.first()
        except AttemptsExhausted:
            logger.error("giving up: the metadata cannot be had")
            self._announce(State.DISCONNECTED, Reason.ATTEMPTS_EXHAUSTED, "metadata")
            return
        self.counters.store(Counter.METADATA_NS, listing.learnt_ns)
        connections = await self._subscribe(listing.instruments)
        if not connections:
            logger.error("no subscribed instrument can be had")
            self._announce(State.DISCONNECTED, Reason.UNKNOWN_INSTRUMENT, "no instrument")
            return
        _quiet_garbage_collector()
        for connection in connections:
            life = self._life_cycle(connection, limits)
            self.lives.append(life)
            tasks.create_task(life.run(), name=f"connection {connection.connection}")

    def _resolve(self, infos: Mapping[str, InstrumentInfo]) -> Resolved:
        return resolve(self._wishes, infos, type(self._adapter))

    async def _subscribe(self, infos: Mapping[str, InstrumentInfo]) -> Sequence[Connection]:
        """Make the adapter that feeds, give it a channel for each instrument that can be had, reject the others;
        return the connections that it wants."""
        resolved = self._resolve(infos)
        rows = await declare(self._control, self._table, self._venue.id, resolved.infos)
        channels = {name: self._channel(row) for name, row in rows.items()}
        subscriptions = [entry for entry in resolved.subscriptions if entry.instrument in rows]
        self._adapter = self._make(subscriptions)
        for adapter in (*self._learners[1:], self._adapter):  # what each has noted is published
            self.driver.adopt(adapter)
        self._subscribed = {entry.instrument: channels[entry.instrument] for entry in subscriptions}
        self._adapter.bind(self._subscribed)
        connections = self._adapter.connections() if subscriptions else ()
        self.driver.bind(channels, {entry.connection: entry.instruments for entry in connections})
        self.states.set_connections(
            {entry.connection: [channels[name] for name in entry.instruments] for entry in connections}
        )
        self.counters.store(Counter.SUBSCRIPTIONS, len(subscriptions))
        refused = [info.instrument for info in resolved.infos if info.instrument not in rows]
        for name in (*resolved.unknown, *resolved.unmatched, *refused):
            self.driver.reject_instrument(name)
        for name, data_type in resolved.not_offered:
            self.driver.reject_subscription(Rejected(-1, name, f"not offered: {data_type.name.lower()}", data_type))
        return connections

    def _channel(self, row: Instrument) -> Channel:
        """The one channel of a row of the instrument table, restored."""
        if row.id not in self._channels:
            channel = Channel(row.instrument, row.id, self._venue_id, row.price_exponent, row.size_exponent)
            self.publisher.add([channel])
            self._channels[row.id] = channel
        return self._channels[row.id]

    def _life_cycle(self, connection: Connection, limits: Limits) -> LifeCycle:
        breaker = self._venue.breaker
        return LifeCycle(
            connection,
            self.driver,
            _session_settings(self._venue, limits, self._tls),
            self.counters,
            CircuitBreaker(
                breaker.failure_threshold, breaker.open_ms * _MS, breaker.half_open_attempts, enabled=breaker.enabled
            ),
            self._backoff(),
            Backoff(self._venue.connection.reconnect_delay_ms, self._venue.connection.max_reconnect_delay_ms),
            self._pace,
        )

    def _backoff(self) -> Backoff:
        settings = self._venue.connection
        return Backoff(
            settings.reconnect_delay_ms, settings.max_reconnect_delay_ms, settings.max_reconnect_attempts
        )  # fmt: skip

    def _on_metadata_failure(self, why: str) -> None:
        logger.warning("no metadata: %s", why)
        self.counters.add(Counter.FETCH_ERRORS)
        if self._recalled is not None:  # nobody waits for it any more
            self.counters.set_error(f"metadata: {why}; going on with the list of {self._recalled.learnt_at}")
            return
        self.counters.set_error(f"metadata: {why}")
        self._announce(State.DISCONNECTED, Reason.CONNECT_FAILED, f"metadata: {why}")

    def _on_recalled_listing(self, listing: Listing) -> None:
        self._recalled = listing
        self.counters.set_error(f"metadata: going on with the list of {listing.learnt_at}")

    def _on_late_listing(self, recalled: Listing, live: Listing) -> None:
        """The venue has answered after all. What it says otherwise is used from the next start on."""
        logger.info("the venue has given the list of its instruments, which was missing at the start")
        wanted = self._resolve(live.instruments).subscriptions
        for difference in differences(recalled, live, self._subscribed, [entry.instrument for entry in wanted]):
            logger.warning("%s: restart the worker to go on with that", difference)
            self.counters.set_error(f"metadata: {difference}; restart to go on with that")

    def _announce(self, state: State, reason: Reason, detail: str = "") -> None:
        self.driver.announce(BEFORE_CONNECTIONS, Announcement(state, reason, detail=detail))

    def _shut_down(self) -> None:
        for life in self.lives:
            life.shut_down()
        if not self.lives:
            self._announce(State.DISCONNECTED, Reason.SHUTDOWN)

    async def _pulse(self) -> None:
        """What is not done for every frame: heartbeat, counters, channel_seqs, the end of a loss."""
        for pulse in itertools.count():
            self._beat()
            if pulse % _WEIGH_EVERY == 0:
                self.counters.store(Counter.REST_WEIGHT, self._budget.used(time.time_ns()))
            await asyncio.sleep(_PULSE_S)

    def _beat(self) -> None:
        if self.publisher.losing:
            self.driver.end_loss()
        self.publisher.save_channels()
        self.driver.publish_counts()
        if self.lives:
            self.counters.store(Counter.FETCHES_WAITING, self.driver.fetcher.waiting)
            self.counters.store(Counter.BREAKER, max(life.breaker.state for life in self.lives))
            last_data_ns = max(life.last_data_ns for life in self.lives)
            if last_data_ns:
                self.counters.store(Counter.LAST_DATA_NS, time.time_ns() - (time.monotonic_ns() - last_data_ns))
        self.counters.heartbeat()


def _session_settings(venue: VenueConfig, limits: Limits, tls: ssl.SSLContext) -> SessionSettings:
    settings = venue.connection
    life_ns = settings.max_connection_life_s * 1_000_000_000
    return SessionSettings(
        timeouts=Timeouts(
            dns_ns=settings.dns_timeout_ms * _MS,
            connect_ns=settings.connect_timeout_ms * _MS,
            tls_ns=settings.tls_timeout_ms * _MS,
            handshake_ns=settings.handshake_timeout_ms * _MS,
        ),
        watchdog=WatchdogSettings(
            subscribe_ns=settings.subscribe_timeout_ms * _MS,
            first_data_ns=settings.first_data_timeout_ms * _MS,
            stale_ns=settings.stale_after_ms * _MS,
            ping_interval_ns=settings.ping_interval_ms * _MS,
            pong_ns=settings.pong_timeout_ms * _MS,
            healthy_ns=settings.healthy_after_ms * _MS,
            life_ns=life_ns * SystemRandom().choice(_LIFE_PERCENT) // 100,
        ),
        send_interval_ns=round(limits.send_interval_s * 1e9),
        tls=tls,
        timer_interval_ns=round(limits.timer_interval_s * 1e9),
    )


def _quiet_garbage_collector() -> None:
    """What lives now lives on: never look at it again, and look at the rest seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


async def _briefly(closing: Coroutine[Any, Any, None]) -> None:
    """Wait for a closing, but not for a venue that is gone."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_WAIT_S):
            await closing


def _keep_awake(loop: asyncio.AbstractEventLoop, idle: str) -> None:
    """Have the event loop look at its sockets without ever sleeping, if the idle strategy is to spin or to yield.

    ``block`` and ``backoff`` are one here: the kernel wakes us when there is something to read.
    """
    if idle not in ("spin", "yield"):
        return

    def again() -> None:
        if idle == "yield":
            os.sched_yield()
        loop.call_soon(again)

    again()


async def _run(worker: Worker, idle: str) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, worker.stop)
    accept_stop()
    _keep_awake(loop, idle)
    await worker.run()


def _venue(config: Config, venue_id: str) -> VenueConfig:
    return next(venue for venue in config.enabled_venues if venue.id == venue_id)


def main(arguments: list[str] | None = None) -> int:
    """Run the worker of one venue of a run folder until SIGTERM."""
    parser = argparse.ArgumentParser(prog="mdring.feed.worker", description="Feed one venue's ring.")
    parser.add_argument("--run-folder", type=Path, required=True)
    parser.add_argument("--venue", required=True, help="id of the venue in the configuration")
    parser.add_argument("--parent", type=int, help="end when this process does")
    parser.add_argument("--control-fd", type=int, required=True, help="socket to the writer of the instrument table")
    options = parser.parse_args(arguments)
    if options.parent is not None:
        die_with_parent(options.parent)
    folder = RunFolder(options.run_folder)
    config = from_json(folder.config.read_bytes())
    venue = _venue(config, options.venue)
    log.configure(f"worker-{venue.id}", config.log.level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the supervisor orders the stop
    pin_to_core(venue.cpu)
    control = socket.socket(fileno=options.control_fd)
    control.setblocking(False)
    # Measured from the wire to the callback: a tenth sooner than asyncio's own loop.
    with short_turns():
        uvloop.run(_run(Worker(folder, config, venue, adapter_maker(venue), control), venue.idle))
    logger.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
