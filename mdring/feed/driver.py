"""The driver: hands the adapter what comes, publishes what it stages, has its requests carried out.

Part of the worker, without a socket of its own. Whatever the adapter is called with, the same follows: what it
staged is committed, and its requests go to the sessions and the fetcher. A :class:`VenueProtocolError` costs the
message, never more: it is counted, quarantined, told in the stream as STATUS(REJECTED), and given back to the
adapter, which resyncs or reconnects. Any other exception is our bug and ends the worker::

    driver.on_connect(0)
    driver.on_frame(0, payload, ts_recv)     # whether it was market data
    driver.on_disconnect(0, Reason.STALE)
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mdring.counters import Counter, Counters
from mdring.feed.adapter import (
    Acknowledged,
    Adapter,
    AdapterCounts,
    Fetch,
    Reconnect,
    Rejected,
    Request,
    Response,
    Send,
    VenueProtocolError,
)
from mdring.feed.direct import DirectPath
from mdring.feed.publisher import Publisher
from mdring.feed.quarantine import Quarantine
from mdring.feed.rest import Fetcher
from mdring.feed.stage import Channel
from mdring.feed.states import Announcement, ConnectionStates
from mdring.record import DataType, Reason, State

logger = logging.getLogger(__name__)


class Link(Protocol):
    """A connection, as far as the adapter's requests concern it; ``session.py`` has the real one."""

    def send(self, request: Send) -> None:
        """Send a frame when the venue's limits allow it."""

    def acknowledge(self, ack: str) -> None:
        """The answer to a frame has come."""

    def reconnect(self, reason: Reason, detail: str) -> None:
        """End, and be opened anew."""


class Driver:
    """Drives the adapter of one venue."""

    fetcher: Fetcher
    """Set before the first connection is opened: it is made with this driver's ``on_response``."""

    def __init__(
        self,
        adapter: Adapter,
        publisher: Publisher,
        states: ConnectionStates,
        quarantine: Quarantine,
        counters: Counters,
        venue_channel: Channel,
    ) -> None:
        self.path: DirectPath | None = None
        """Asked first for every message, by the connection's intake (``intake.pyx``)."""
        self._adapter = adapter
        self._publisher = publisher
        self._emit = publisher.emit
        self._states = states
        self._quarantine = quarantine
        self._counters = counters
        self._venue_channel = venue_channel
        self._channels: Mapping[str, Channel] = {}
        self._connections_of: dict[str, list[int]] = {}
        self._links: dict[int, Link] = {}
        self._published_counts = AdapterCounts()

    def adopt(self, adapter: Adapter) -> None:
        """Drive this one from now on: the one before has only learnt which instruments there are."""
        self.publish_counts()
        self._adapter = adapter
        self._published_counts = msgspec.structs.replace(adapter.counts)

    def bind(self, channels: Mapping[str, Channel], connections: Mapping[int, Sequence[str]]) -> None:
        """The channels by instrument, and the instruments of each connection; the adapter has been bound before."""
        self._channels = channels
        if self._adapter.direct is not None:
            self.path = self._publisher.direct_path(self._adapter.direct)
        for connection, instruments in connections.items():
            for instrument in instruments:
                self._connections_of.setdefault(instrument, []).append(connection)

    def activity(self, instrument: str) -> tuple[int, int]:
        """How many trades and quotes of it this run has published; restarts of the worker do not begin anew."""
        channel = self._channels.get(instrument, self._venue_channel)
        return channel.channel_seq(DataType.TRADE), channel.channel_seq(DataType.BBO)

    # ---- what happens to a connection --------------------------------------------------------------------

    def on_connect(self, connection: int, link: Link) -> None:
        """The connection is open; requests for it go to ``link`` from now on."""
        self._links[connection] = link
        self._counters.add(Counter.CONNECTS)
        now_ns = time.time_ns()
        self._emit.begin(now_ns)
        self._states.announce(self._emit, connection, Announcement(State.CONNECTED, Reason.NONE))
        self._finish(self._adapter.on_connect(connection, now_ns, self._emit))

    def on_frame(self, connection: int, payload: bytes, ts_recv: int) -> bool:
        """One message that ``path`` has not taken; whether it was market data."""
        publisher, emit = self._publisher, self._emit
        if publisher.losing:
            self.end_loss()
        emit.begin(ts_recv)
        try:
            requests = self._adapter.on_frame(connection, payload, ts_recv, emit)
            is_data = emit.staged != 0 or self._adapter.is_data(payload)
        except VenueProtocolError as error:
            emit.rollback()
            is_data = False
            requests = self._reject(connection, error, payload, ts_recv, f"connection {connection}")
        emit.observe(1, len(payload))
        publisher.commit()
        if requests:
            self._carry_out(requests)
        return is_data

    def on_timer(self, connection: int) -> None:
        """The adapter's interval has passed once more on an open connection."""
        now_ns = time.time_ns()
        self._emit.begin(now_ns)
        self._finish(self._adapter.on_timer(connection, now_ns, self._emit))

    def on_disconnect(self, connection: int, announcement: Announcement) -> None:
        """The connection is gone: say so, then let the adapter give its books up."""
        del self._links[connection]
        self.fetcher.cancel(connection)
        now_ns = time.time_ns()
        self._emit.begin(now_ns)
        self._states.announce(self._emit, connection, announcement)
        self._finish(self._adapter.on_disconnect(connection, now_ns, announcement.reason, self._emit))

    def announce(self, connection: int, announcement: Announcement) -> None:
        """Tell a state in which the adapter has no part."""
        self._emit.begin(time.time_ns())
        self._states.announce(self._emit, connection, announcement)
        self._publisher.commit()

    # ---- everything else ---------------------------------------------------------------------------------

    def on_response(self, fetch: Fetch, response: Response) -> None:
        """The answer to a fetch, or its failure."""
        if not 200 <= response.status < 300:
            self._counters.add(Counter.FETCH_ERRORS)
            why = f"{fetch.tag}: HTTP {response.status}: {response.body[:160]!r}"
            logger.warning("cannot fetch %s", why)
            self._counters.set_error(why)
        ts_recv = time.time_ns()
        self._emit.begin(ts_recv)
        try:
            requests = self._adapter.on_response(response, ts_recv, self._emit)
        except VenueProtocolError as error:
            self._emit.rollback()
            requests = self._reject(fetch.connection, error, response.body, ts_recv, fetch.url)
        self._finish(requests)

    def reject_instrument(self, instrument: str) -> None:
        """The venue has no such instrument, or none that a pattern matches, or it is not trading: say so, and go on
        with the others."""
        logger.error("the venue has no instrument %r that is trading", instrument)
        self._counters.add(Counter.SUBSCRIPTIONS_REJECTED)
        self._emit.begin(time.time_ns())
        self._emit.status(self._venue_channel, State.REJECTED, Reason.UNKNOWN_INSTRUMENT, detail=instrument)
        self._emit.end()
        self._publisher.commit()

    def clear_after_restart(self, channels: Sequence[Channel]) -> None:
        """A predecessor died: nothing can be said of these books any more."""
        self._emit.begin(time.time_ns())
        self._states.announce(self._emit, -1, Announcement(State.RECONNECTING, Reason.WORKER_RESTART))
        for channel in channels:
            self._emit.clear(channel, Reason.WORKER_RESTART)
            self._emit.end()
        self._publisher.commit()

    def end_loss(self) -> None:
        """Tell what the full ring has cost, if there is room again, and have the books concerned rebuilt."""
        if not self._publisher.has_room():
            return
        loss = self._publisher.end_loss()
        now_ns = time.time_ns()
        emit = self._emit
        emit.begin(now_ns)
        emit.status(self._venue_channel, State.DROPPED, Reason.RING_FULL, count=min(loss.records, 2**32 - 1))
        emit.end()
        if loss.statuses:
            self._states.repeat(emit)
        requests: list[Request] = []
        for channel in loss.books:
            # Also if the adapter takes the book for invalid already: the CLEAR that said so may be what was lost.
            emit.clear(channel, Reason.RING_FULL)
            emit.end()
            if any(self._states.is_connected(one) for one in self._connections_of.get(channel.instrument, ())):
                requests += self._adapter.resync(channel.instrument, now_ns, Reason.RING_FULL, emit)
        self._finish(requests)

    def publish_counts(self) -> None:
        """Bring what the adapter has counted since the last time into the counters, and what it could not decode
        into the quarantine."""
        for what, sample in self._adapter.unknown.take_new():
            logger.warning("%s: not decoded, the first one is in the quarantine file", what)
            self._quarantine.keep(time.time_ns(), Reason.NONE, f"not decoded: {what}", "first of its type", sample)
        counts, before, counters = self._adapter.counts, self._published_counts, self._counters
        counters.add(Counter.GAPS, counts.gaps - before.gaps)
        counters.add(Counter.RESYNCS, counts.resyncs - before.resyncs)
        counters.add(Counter.SNAPSHOTS, counts.snapshots - before.snapshots)
        counters.add(Counter.UNKNOWN_MESSAGES, counts.ignored - before.ignored)
        counters.store(Counter.BOOKS, counts.books)
        counters.store(Counter.BOOKS_VALID, counts.books_valid)
        self._published_counts = msgspec.structs.replace(counts)

    def reject_subscription(self, request: Rejected) -> None:
        """The venue refuses a subscription, or does not offer the data."""
        self._counters.add(Counter.SUBSCRIPTIONS_REJECTED)
        logger.error("the venue refuses %s: %s", request.instrument, request.detail)
        self._counters.set_error(f"{request.instrument}: subscription refused: {request.detail}")
        self._emit.begin(time.time_ns())
        self._emit.status(
            self._channels.get(request.instrument, self._venue_channel),
            State.REJECTED,
            Reason.SUBSCRIBE_REJECTED,
            request.data_type,
            detail=request.detail,
        )
        self._emit.end()
        self._publisher.commit()

    def _reject(
        self, connection: int, error: VenueProtocolError, payload: bytes, ts_recv: int, source: str
    ) -> Sequence[Request]:
        self._counters.add(Counter.REJECTS)
        self._counters.set_error(f"{source}: {error}")
        self._quarantine.keep(ts_recv, error.reason, str(error), source, payload)
        channel = self._channels.get(error.instrument or "", self._venue_channel)
        self._emit.status(channel, State.REJECTED, error.reason, error.data_type, detail=str(error))
        self._emit.end()
        return self._adapter.on_reject(connection, error, ts_recv, self._emit)

    def _finish(self, requests: Sequence[Request]) -> None:
        self._publisher.commit()
        self._carry_out(requests)

    def _carry_out(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if isinstance(request, Fetch):
                self.fetcher.submit(request)
                continue
            if isinstance(request, Rejected):
                self.reject_subscription(request)
                continue
            link = self._links.get(request.connection)
            if link is None:  # an earlier request of these ended it
                continue
            match request:
                case Send():
                    link.send(request)
                case Acknowledged():
                    link.acknowledge(request.ack)
                case Reconnect():
                    link.reconnect(request.reason, request.detail)
