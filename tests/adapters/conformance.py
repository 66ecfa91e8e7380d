"""What every adapter must do, whatever its venue: a bench that drives one, and the rules that its records obey.

``loopback.py`` drives an adapter by its venue's emulator; here are rules that hold of any stream, and a bench for
tests that give an adapter frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mdring.feed.adapter import (
    Adapter,
    Fetch,
    InstrumentInfo,
    Request,
    Response,
    Subscription,
    VenueProtocolError,
)
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import DATA_TYPE_OF_KIND, RECORD, VIEW_OF_KIND, Flags, Kind, Reason, State

NOW = 1_700_000_000_000_000_000


class VenueCase(Struct, frozen=True):
    """One venue: an adapter, and a life of its first connection."""

    name: str
    make: Callable[[Sequence[Subscription]], Adapter]
    subscriptions: tuple[Subscription, ...]
    metadata: bytes  # the answer to each metadata request
    frames: tuple[bytes, ...]  # in the order in which the venue sends them, all usable
    snapshot: Callable[[Fetch], bytes]  # the answer to a fetch
    other_frame: bytes  # documented, but of a type that the adapter does not decode

    def __repr__(self) -> str:
        return self.name


class Bench:
    """Drives an adapter as a worker does, and keeps all records."""

    def __init__(self, case: VenueCase) -> None:
        self.adapter = case.make(case.subscriptions)
        self.emit = Emit(8)
        self.requests: list[Request] = []
        self.errors: list[VenueProtocolError] = []
        self._drained: list[npt.NDArray[np.void]] = []
        self._venue = Channel("", 0, 1, 0, 0)
        infos = [
            info
            for fetch in self.adapter.metadata_requests()
            for info in self.adapter.on_metadata(Response(fetch.tag, fetch.url, 200, case.metadata))
            if isinstance(info, InstrumentInfo)
        ]
        self.infos = {info.instrument: info for info in infos}
        wanted = [self.infos[one.instrument] for one in case.subscriptions]
        self.channels = {
            info.instrument: Channel(info.instrument, number, 1, info.price_exponent, info.size_exponent)
            for number, info in enumerate(wanted, start=1)
        }
        self.adapter.bind(self.channels)

    def connect(self, now_ns: int = NOW, *, connection: int = 0) -> Sequence[Request]:
        """Open a connection."""
        return self._after(self.adapter.on_connect(connection, now_ns, self.emit))

    def disconnect(
        self, reason: Reason = Reason.CLOSED_BY_VENUE, now_ns: int = NOW, *, connection: int = 0
    ) -> Sequence[Request]:
        """Close it."""
        return self._after(self.adapter.on_disconnect(connection, now_ns, reason, self.emit))

    def timer(self, now_ns: int, *, connection: int = 0) -> Sequence[Request]:
        """The adapter's timer."""
        return self._after(self.adapter.on_timer(connection, now_ns, self.emit))

    def resync(self, instrument: str, reason: Reason, now_ns: int = NOW) -> Sequence[Request]:
        """Have a book rebuilt."""
        return self._after(self.adapter.resync(instrument, now_ns, reason, self.emit))

    def frame(self, payload: bytes | memoryview | str, ts_recv: int = NOW) -> Sequence[Request]:
        """One frame; a protocol error is handled as a driver does."""
        message = payload.encode() if isinstance(payload, str) else payload
        return self._attempt(0, ts_recv, lambda: self.adapter.receive(0, message, ts_recv, self.emit))

    def answer(
        self,
        fetch: Fetch,
        body: bytes,
        status: int = 200,
        *,
        now_ns: int = NOW,
        headers: Mapping[str, str] | None = None,
    ) -> Sequence[Request]:
        """The answer to a fetch."""
        response = Response(fetch.tag, fetch.url, status, body, headers or {})
        return self._attempt(0, now_ns, lambda: self.adapter.on_response(response, now_ns, self.emit))

    def _attempt(self, connection: int, ts_recv: int, call: Callable[[], Sequence[Request]]) -> Sequence[Request]:
        self.emit.begin(ts_recv)
        try:
            requests = call()
        except VenueProtocolError as error:
            self.errors.append(error)
            self.emit.rollback()
            self.emit.begin(ts_recv)
            channel = self.channels.get(error.instrument or "", self._venue)
            self.emit.status(channel, State.REJECTED, error.reason, error.data_type, detail=str(error))
            self.emit.end()
            requests = self.adapter.on_reject(connection, error, ts_recv, self.emit)
        return self._after(requests)

    def _after(self, requests: Sequence[Request]) -> Sequence[Request]:
        self._drained.append(self.emit.drain())
        assert all(isinstance(request, Request) for request in requests)
        self.requests.extend(requests)
        return requests

    @property
    def records(self) -> npt.NDArray[np.void]:
        """All records so far."""
        return np.concatenate([np.empty(0, RECORD), *self._drained])

    def last(self) -> npt.NDArray[np.void]:
        """The records of the last call."""
        return self._drained[-1]


def live(case: VenueCase) -> Bench:
    """A bench whose connection is open, and which has had all frames of the case and an answer to each fetch."""
    bench = Bench(case)
    answered: set[str] = set()
    bench.connect()
    for frame in case.frames:
        requests = list(bench.frame(frame))
        while requests:
            request = requests.pop(0)
            if isinstance(request, Fetch) and request.tag not in answered:
                answered.add(request.tag)
                requests += bench.answer(request, case.snapshot(request))
    return bench


# ---- the rules --------------------------------------------------------------------------------------------


def groups(records: npt.NDArray[np.void]) -> list[npt.NDArray[np.void]]:
    """The event groups; the last one must be whole."""
    ends = np.flatnonzero(records["flags"] & Flags.LAST) + 1
    assert len(records) == (ends[-1] if len(ends) else 0), "the last group does not end with LAST"
    return np.split(records, ends[:-1]) if len(ends) else []


class Laws:
    """All that must hold of any stream of records of one venue, whatever was sent; in as many parts as one likes."""

    def __init__(self) -> None:
        self._last_seq: dict[int, int] = {}  # by channel
        self._valid: dict[int, bool] = {}  # whether there is a book, by instrument

    def check(self, records: npt.NDArray[np.void]) -> None:
        """Check the next part, of whole event groups."""
        if len(records):
            check_groups(records)
            for kind in np.unique(records["kind"]).tolist():
                check_rows(records[records["kind"] == kind], Kind(kind))
            self._check_channel_seqs(records)
            self._check_levels(records)

    def _check_channel_seqs(self, records: npt.NDArray[np.void]) -> None:
        channels = records["instrument_id"].astype(np.int64) << 8 | _DATA_TYPES[records["kind"]]
        for channel in np.unique(channels).tolist():
            told = records["channel_seq"][channels == channel].astype(np.int64)
            begin = self._last_seq.get(channel, 0) + 1
            assert (told == np.arange(begin, begin + len(told))).all(), (
                f"channel_seq of {channel >> 8}, {channel & 255}"
            )
            self._last_seq[channel] = int(told[-1])

    def _check_levels(self, records: npt.NDArray[np.void]) -> None:
        """A level stands behind a snapshot, with nothing in between that made the book invalid."""
        of_books = records[(records["kind"] == Kind.CLEAR) | (records["kind"] == Kind.LEVEL)]
        for instrument in np.unique(of_books["instrument_id"]).tolist():
            rows = of_books[of_books["instrument_id"] == instrument]
            clears = np.flatnonzero(rows["kind"] == Kind.CLEAR)
            valid = np.append(self._valid.get(instrument, False), (rows["flags"][clears] & Flags.SNAPSHOT) != 0)
            parts = np.searchsorted(clears, np.flatnonzero(rows["kind"] == Kind.LEVEL))  # CLEARs before each level
            assert valid[parts].all(), "a level of a book that is not valid"
            self._valid[instrument] = bool(valid[-1])


_DATA_TYPES: Final = np.array([DATA_TYPE_OF_KIND.get(kind, 255) for kind in range(max(Kind) + 1)], np.int64)


def check_groups(records: npt.NDArray[np.void]) -> None:
    """All that must hold of the event groups."""
    ends = np.flatnonzero(records["flags"] & Flags.LAST) + 1
    assert len(ends) and ends[-1] == len(records), "the last group does not end with LAST"
    begins = np.append(0, ends[:-1])
    first = records[np.repeat(begins, ends - begins)]  # of its group, for each record
    assert (records["ts_recv"] == first["ts_recv"]).all(), "one message has one ts_recv"
    is_image = records["flags"] & Flags.SNAPSHOT
    assert (is_image == first["flags"] & Flags.SNAPSHOT).all(), "an image has nothing else in its group"
    image, beginning = records[is_image != 0], first[is_image != 0]
    assert (image["instrument_id"] == beginning["instrument_id"]).all(), "an image is of one instrument"
    of_book = (image["kind"] == Kind.LEVEL) | (image["kind"] == Kind.CLEAR)
    assert (beginning["kind"][of_book] == Kind.CLEAR).all(), "an image of a book begins with CLEAR"


def check_records(records: npt.NDArray[np.void]) -> None:
    """``Laws`` of a whole stream."""
    Laws().check(records)


def check_rows(records: npt.NDArray[np.void], kind: Kind) -> None:
    """All that must hold of each record of a kind."""
    rows = records.view(VIEW_OF_KIND[kind])
    names = rows.dtype.names or ()
    assert not any(np.frombuffer(rows[name].tobytes(), np.uint8).any() for name in names if name.startswith("_pad"))
    match kind:
        case Kind.TRADE:
            assert ((rows["price"] > 0) & (rows["size"] > 0) & (rows["trade_id_format"] > 0)).all()
        case Kind.LEVEL:
            assert ((rows["price"] > 0) & (rows["size"] >= 0) & np.isin(rows["side"], (1, 2))).all()
        case Kind.BBO:
            for side in ("bid", "ask"):
                price, size = rows[f"{side}_price"], rows[f"{side}_size"]
                assert ((size >= 0) & ((price > 0) == (size > 0))).all()
        case Kind.LIQUIDATION:
            assert ((rows["order_price"] > 0) & (rows["size"] > 0) & np.isin(rows["aggressor"], (1, 2))).all()
        case Kind.OPEN_INTEREST:
            assert (rows["open_interest"] >= 0).all()
        case Kind.FUNDING:
            assert ((rows["next_funding_ts"] >= 0) & (rows["interval_ns"] >= 0)).all()
        case _:
            pass
    assert all((rows[name] <= 0).all() for name in names if name.endswith("_exponent"))
    if kind not in (Kind.CLEAR, Kind.STATUS):
        assert ((rows["ts_event"] == 0) == ((rows["flags"] & Flags.BAD_TS_EVENT) != 0)).all()
        assert (rows["ts_event"] >= 0).all()
