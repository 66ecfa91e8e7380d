"""The last words of a worker that died without any: said on its venue ring by the supervisor, in its place.

Part of the supervisor. Until a successor is up, and in a crash loop that takes a while, nobody keeps the venue's
books; consumers must not go on taking them for valid. So as soon as a worker is gone its ring says DISCONNECTED and
clears each book. Nobody else writes the ring then: the supervisor takes the writer's lock, and gives it back::

    say_farewell(folder, "binance", 1, segments, "was ended by SIGKILL")
"""

from __future__ import annotations

import time

from mdring.feed.channels import ChannelStore
from mdring.feed.publisher import Publisher
from mdring.feed.stage import Channel
from mdring.feed.states import BEFORE_CONNECTIONS, Announcement, ConnectionStates
from mdring.record import FINGERPRINT, LAYOUT_VERSION, DataType, Reason, State
from mdring.ring import segment
from mdring.run_folder import RunFolder
from mdring.supervisor.folder import SEQUENCER, RunSegments, worker_name


def say_farewell(folder: RunFolder, venue: str, venue_id: int, segments: RunSegments, how: str) -> None:
    """Publish STATUS(DISCONNECTED) for the venue and CLEAR for each of its books, unless its ring is empty.

    ``how`` the worker ended goes into the STATUS, cut to its room. Raises SegmentError, AlreadyWritten if a worker of
    the venue lives.
    """
    ring = segment.attach(
        folder.venue_ring(venue),
        segment.SegmentKind.RING,
        version=LAYOUT_VERSION,
        fingerprint=FINGERPRINT,
        writable=True,
    )
    if ring.cursor == 0:  # it never said that it was there
        ring.close()
        return
    with ring:
        store = ChannelStore.attach(folder.channels(venue))
        try:
            _publish(ring, store, venue, venue_id, segments, how)
        finally:
            store.close()


def _publish(
    ring: segment.Segment, store: ChannelStore, venue: str, venue_id: int, segments: RunSegments, how: str
) -> None:
    counters = segments.counters[worker_name(venue)]
    publisher = Publisher(ring, venue_id, segments.counters[SEQUENCER].words, counters, store)
    whole_venue = Channel("", 0, venue_id, 0, 0)
    books = [
        Channel(row.instrument, row.id, venue_id, row.price_exponent, row.size_exponent)
        for row in segments.instruments
        if row.venue == venue and store.last(row.id, DataType.BOOK)
    ]
    publisher.add([whole_venue, *books])
    emit = publisher.emit
    emit.begin(time.time_ns())
    announcement = Announcement(State.DISCONNECTED, Reason.WORKER_RESTART, detail=how)
    ConnectionStates(whole_venue, counters).announce(emit, BEFORE_CONNECTIONS, announcement)
    for book in books:
        emit.clear(book, Reason.WORKER_RESTART)
        emit.end()
    publisher.commit()
    publisher.save_channels()
