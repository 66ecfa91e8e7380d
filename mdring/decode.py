"""A venue's adapter over a capture, offline: what a worker does live, without socket and ring.

The same adapter object, the same stage. ``mdring decode`` calls it::

    summary = decode_capture("binance", None, {}, wishes_of(venue), Path("binance.jsonl.gz"), Path("out"))
    records = np.load("out/records.npy")

The adapter's fetches are answered from the recorded responses (``capture.py`` reads them), in their place: one that the
capture has passed is handed out at once, unless it was handed out before; else the fetch waits until the capture
reaches one. Host and amount (``limit`` and the like) of the two URLs may differ.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import parse_qs, urlsplit

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mdring.capture import CaptureError, CaptureEvent, read_capture
from mdring.feed.adapter import (
    Adapter,
    Endpoints,
    Fetch,
    InstrumentInfo,
    Reconnect,
    Rejected,
    Request,
    Response,
    VenueProtocolError,
    load_adapter,
)
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.feed.subscriptions import Wish, learners, resolve
from mdring.record import RECORD, DataType, Kind, Reason, State

# ---- recorded responses -----------------------------------------------------------------------------------

AMOUNTS: Final = frozenset({"limit", "sz", "size", "depth", "count"})
"""Parameters of a URL that say how much is wanted, not of what."""


def answers(wanted: str, recorded: str) -> bool:
    """Whether the response of the URL ``recorded`` can be the answer to ``wanted``: same path, and the same value
    for each parameter that both have, amounts apart."""
    ours, theirs = urlsplit(wanted), urlsplit(recorded)
    if ours.path.rstrip("/") != theirs.path.rstrip("/"):
        return False
    our_values, their_values = parse_qs(ours.query), parse_qs(theirs.query)
    return all(our_values[name] == their_values[name] for name in (our_values.keys() & their_values) - AMOUNTS)


class Responses:
    """The recorded responses that the capture has passed, and the fetches that wait for one."""

    def __init__(self) -> None:
        self._passed: list[CaptureEvent] = []
        self._waiting: list[Fetch] = []

    def ask(self, fetch: Fetch) -> CaptureEvent | None:
        """The newest passed response to it, which is then used up; if there is none, the fetch waits."""
        for event in reversed(self._passed):
            if answers(fetch.url, event.url):
                self._passed = [other for other in self._passed if not answers(fetch.url, other.url)]
                return event
        self._waiting.append(fetch)
        return None

    def reach(self, event: CaptureEvent) -> Fetch | None:
        """The capture is at this response: the fetch that waits for it, else it is kept."""
        for fetch in self._waiting:
            if answers(fetch.url, event.url):
                self._waiting.remove(fetch)
                return fetch
        self._passed.append(event)
        return None

    def cancel(self, connection: int) -> None:
        """A connection ended: nobody wants its answers any more."""
        self._waiting = [fetch for fetch in self._waiting if fetch.connection != connection]

    @property
    def unanswered(self) -> list[str]:
        """URLs of the fetches that still wait."""
        return [fetch.url for fetch in self._waiting]


# ---- decoding ---------------------------------------------------------------------------------------------

STAGED_RECORDS: Final = 16_384
"""Records after which the stage is written out."""


class DecodeSummary(Struct, frozen=True, kw_only=True):
    """What a decoding came to."""

    frames: int
    records: int
    kinds: dict[str, int]  # records by kind
    gaps: int
    resyncs: int
    rejects: int  # messages that broke the venue's protocol
    reject_reasons: dict[str, int]
    ignored: int  # frames of types that the adapter does not decode
    repeated: int  # messages dropped because their like had come before
    snapshots: int
    checksums: int  # of the venue, compared with ours
    books: int
    books_in_sync: int  # at the end
    unknown_instruments: list[str]  # subscribed to, but not in the venue's list; and patterns that match none of it
    not_offered: list[str]  # subscribed to of an instrument, and not offered of it
    unanswered: list[str]  # URLs that the capture has no (further) answer to


class DecodedInstrument(Struct, frozen=True):
    """A row of ``instruments.json``."""

    id: int
    venue: str
    instrument: str
    canonical_symbol: str
    price_exponent: int
    size_exponent: int


class RecordFile:
    """Collects records on disk and makes an .npy file of them; memory does not grow with their number.

    A context manager: the file gets its name when the block ends without an error.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_suffix(".part")
        self._file = self._part.open("wb")
        self.count = 0
        self.kinds: Counter[str] = Counter()

    def append(self, records: npt.NDArray[np.void]) -> None:
        """Number them and write them out."""
        records["seq"] = np.arange(self.count + 1, self.count + 1 + len(records), dtype=np.uint64)
        self._file.write(records.tobytes())
        self.count += len(records)
        for kind, number in zip(*np.unique(records["kind"], return_counts=True), strict=True):
            self.kinds[Kind(int(kind)).name] += int(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self._put_header()
        self._part.unlink()

    def _put_header(self) -> None:
        whole = self._path.with_suffix(".whole")
        with whole.open("wb") as out, self._part.open("rb") as part:
            header = {"descr": np.lib.format.dtype_to_descr(RECORD), "fortran_order": False, "shape": (self.count,)}
            np.lib.format.write_array_header_1_0(out, header)
            shutil.copyfileobj(part, out)
        whole.replace(self._path)


class OfflineDriver:
    """Drives one adapter by the events of a capture. ``feed/driver.py`` does it live."""

    def __init__(self, adapter: Adapter, out: RecordFile) -> None:
        self._adapter = adapter
        self._out = out
        self._emit = Emit()
        self._venue_channel = Channel("", 0, 1, 0, 0)
        self._channels: dict[str, Channel] = {}
        self._connections: set[int] = set()
        self._open: defaultdict[int, set[int]] = defaultdict(set)  # the capture's connections, by ours
        self.responses = Responses()
        self.frames = 0
        self.reject_reasons: Counter[str] = Counter()

    def bind(self, infos: Sequence[InstrumentInfo], subscribed: Iterable[str]) -> None:
        """Give each instrument its id, 1 the first, and the adapter the channels of those subscribed to."""
        for number, info in enumerate(infos, start=1):
            self._channels[info.instrument] = Channel(
                info.instrument, number, 1, info.price_exponent, info.size_exponent
            )
        self._adapter.bind({name: self._channels[name] for name in subscribed})
        self._connections = {connection.connection for connection in self._adapter.connections()}

    def reject_instrument(self, instrument: str) -> None:
        """Say that the venue does not list it."""
        self._emit.status(self._venue_channel, State.REJECTED, Reason.UNKNOWN_INSTRUMENT, detail=instrument)
        self._emit.end()

    def reject_data_type(self, instrument: str, data_type: DataType) -> None:
        """Say that the venue does not offer it."""
        detail = f"not offered: {data_type.name.lower()}"
        self._emit.status(
            self._channels[instrument], State.REJECTED, Reason.SUBSCRIBE_REJECTED, data_type, detail=detail
        )
        self._emit.end()

    def on_event(self, event: CaptureEvent) -> None:
        """One line of the capture."""
        match event.ev:
            case "recv":
                self._on_frame(event)
            case "http":
                fetch = self.responses.reach(event)
                if fetch is not None:
                    self._respond(fetch, event, event.ts)
            case "open":
                self._on_open(event)
            case "close":
                self._on_close(event)
            case "send":  # what the recording program sent; ours is not sent
                pass
        if self._emit.staged >= STAGED_RECORDS:
            self.write_out()

    def write_out(self) -> None:
        """Empty the stage into the file."""
        self._out.append(self._emit.drain())

    def _connection(self, event: CaptureEvent) -> int:
        """Ours for the capture's: the same number, or the only one that we have."""
        return event.conn if event.conn in self._connections else min(self._connections, default=0)

    def _on_open(self, event: CaptureEvent) -> None:
        connection = self._connection(event)
        if event.conn in self._open[connection]:  # reopened, and the close was not recorded
            self._on_close(event)
        self._open[connection].add(event.conn)
        if len(self._open[connection]) == 1:
            self._emit.begin(event.ts)
            self._emit.status(self._venue_channel, State.CONNECTED, Reason.NONE)
            self._emit.end()
            self._carry_out(self._adapter.on_connect(connection, event.ts, self._emit), event.ts)

    def _on_close(self, event: CaptureEvent) -> None:
        connection = self._connection(event)
        self._open[connection].discard(event.conn)
        if not self._open[connection]:
            self._end(connection, event.ts, State.DISCONNECTED, Reason.CLOSED_BY_VENUE)

    def _end(self, connection: int, ts: int, state: State, reason: Reason) -> None:
        self.responses.cancel(connection)
        self._emit.begin(ts)
        self._emit.status(self._venue_channel, state, reason)
        self._emit.end()
        self._carry_out(self._adapter.on_disconnect(connection, ts, reason, self._emit), ts)

    def _on_frame(self, event: CaptureEvent) -> None:
        connection = self._connection(event)
        if not self._open[connection]:  # the recording began after the connection
            self._on_open(event)
        self.frames += 1
        mark = self._emit.mark()
        self._emit.begin(event.ts)
        try:
            requests = self._adapter.receive(connection, event.payload, event.ts, self._emit)
        except VenueProtocolError as error:
            requests = self._reject(connection, error, mark, event.ts)
        self._carry_out(requests, event.ts)

    def _respond(self, fetch: Fetch, event: CaptureEvent, ts: int) -> None:
        mark = self._emit.mark()
        self._emit.begin(ts)
        try:
            response = Response(fetch.tag, event.url, event.status, event.payload)
            requests = self._adapter.on_response(response, ts, self._emit)
        except VenueProtocolError as error:
            requests = self._reject(fetch.connection, error, mark, ts)
        self._carry_out(requests, ts)

    def _reject(self, connection: int, error: VenueProtocolError, mark: int, ts: int) -> Sequence[Request]:
        self.reject_reasons[error.reason.name] += 1
        self._emit.rollback(mark)
        self._emit.begin(ts)
        channel = self._channels.get(error.instrument or "", self._venue_channel)
        self._emit.status(channel, State.REJECTED, error.reason, error.data_type, detail=str(error))
        self._emit.end()
        return self._adapter.on_reject(connection, error, ts, self._emit)

    def _carry_out(self, requests: Sequence[Request], ts: int) -> None:
        for request in requests:
            match request:
                case Fetch():
                    event = self.responses.ask(request)
                    if event is not None:
                        self._respond(request, event, ts)
                case Reconnect(reason=Reason.PLANNED_RECONNECT):  # the recorded connection goes on until it is closed
                    pass
                case Reconnect(connection=connection, reason=reason):
                    self._end(connection, ts, State.RECONNECTING, reason)
                    self._carry_out(self._adapter.on_connect(connection, ts, self._emit), ts)
                case Rejected():
                    channel = self._channels.get(request.instrument, self._venue_channel)
                    self._emit.status(
                        channel, State.REJECTED, Reason.SUBSCRIBE_REJECTED, request.data_type, detail=request.detail
                    )
                    self._emit.end()
                case _:  # Send, Acknowledged: there is nobody to send to, and no time-out to stop
                    pass


def learn_metadata(adapter: Adapter, path: Path) -> list[InstrumentInfo]:
    """Have the adapter's metadata requests answered from the capture. Raises CaptureError.

    What it does not hold is answered as a server would (404): the adapter may know of another place to look, such as
    the list that the venue had when the capture was made.
    """
    waiting = list(adapter.metadata_requests())
    infos: list[InstrumentInfo] = []
    asked: set[str] = set()
    while waiting:
        missing, refused = _learn_from(adapter, path, waiting, infos)
        waiting = []
        asked.update(fetch.url for fetch in missing)
        for fetch in missing:
            try:
                found = adapter.on_metadata(Response(fetch.tag, fetch.url, 404, b"not in the capture"))
            except VenueProtocolError:
                found = ()
            elsewhere = [entry for entry in found if isinstance(entry, Fetch) and entry.url not in asked]
            if not elsewhere:
                raise CaptureError(
                    f"{path}: holds no answer to {fetch.url}, from which instruments are learnt{refused}"
                )
            waiting += elsewhere
    return infos


def _learn_from(
    adapter: Adapter, path: Path, waiting: list[Fetch], infos: list[InstrumentInfo]
) -> tuple[list[Fetch], str]:
    """Go through the capture once: the requests that it does not answer, and why an answer was of no use."""
    refused = ""
    for event in read_capture(path):
        fetch = next((fetch for fetch in waiting if event.ev == "http" and answers(fetch.url, event.url)), None)
        if fetch is None:
            continue
        try:
            found = adapter.on_metadata(Response(fetch.tag, event.url, event.status, event.payload))
        except VenueProtocolError as error:
            refused = f" (one was of no use: {error})"
            continue
        infos += [entry for entry in found if isinstance(entry, InstrumentInfo)]
        waiting.remove(fetch)
        waiting += [entry for entry in found if isinstance(entry, Fetch)]
        if not waiting:
            break
    return waiting, refused


def decode_capture(
    adapter_name: str,
    endpoints: Endpoints | None,
    options: Mapping[str, Any],
    wishes: Sequence[Wish],
    capture_path: Path,
    out_dir: Path,
    *,
    venue: str | None = None,
) -> DecodeSummary:
    """Run an adapter over a capture; write ``records.npy`` and ``instruments.json`` into ``out_dir``.

    ``records.npy`` is an array of RECORD as a tape of this venue alone would hold it, ``seq`` from 1; ``ts_recv`` is
    the capture's ``ts``, ``ts_seq`` is 0. ``endpoints`` None: the adapter's own. ``venue`` is the venue's id, by
    default the adapter's name. Raises CaptureError, KeyError (no such adapter), msgspec.ValidationError (options).
    """
    adapter_class = load_adapter(adapter_name)
    converted = msgspec.convert(dict(options), adapter_class.options)
    to_learn = learners(
        lambda subscriptions: adapter_class(endpoints or adapter_class.endpoints, converted, subscriptions), wishes
    )
    known = {info.instrument: info for info in learn_metadata(to_learn[0], capture_path)}
    for learner in to_learn[1:]:
        with suppress(CaptureError):  # a list that was not recorded holds nothing that was: patterns match none of it
            known = {info.instrument: info for info in learn_metadata(learner, capture_path)} | known
    # What was recorded may have been halted later, or is not traded any more: if it is named, it is decoded.
    resolved = resolve(wishes, known, adapter_class, named_must_trade=False)
    adapter = adapter_class(endpoints or adapter_class.endpoints, converted, resolved.subscriptions)
    unknown = [*resolved.unknown, *resolved.unmatched]

    out_dir.mkdir(parents=True, exist_ok=True)
    with RecordFile(out_dir / "records.npy") as out:
        driver = OfflineDriver(adapter, out)
        for instrument in unknown:
            driver.reject_instrument(instrument)
        driver.bind(resolved.infos, [subscription.instrument for subscription in resolved.subscriptions])
        for name, data_type in resolved.not_offered:
            driver.reject_data_type(name, data_type)
        for event in read_capture(capture_path):
            driver.on_event(event)
        driver.write_out()
    rows = [
        DecodedInstrument(
            number,
            venue or adapter_name,
            info.instrument,
            info.canonical_symbol,
            info.price_exponent,
            info.size_exponent,
        )
        for number, info in enumerate(resolved.infos, start=1)
    ]
    (out_dir / "instruments.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")
    counts = adapter.counts
    return DecodeSummary(
        frames=driver.frames,
        records=out.count,
        kinds=dict(out.kinds),
        gaps=counts.gaps,
        resyncs=counts.resyncs,
        rejects=driver.reject_reasons.total(),
        reject_reasons=dict(driver.reject_reasons),
        ignored=to_learn[0].counts.ignored + counts.ignored,
        repeated=counts.repeated,
        snapshots=counts.snapshots,
        checksums=counts.checksums,
        books=counts.books,
        books_in_sync=counts.books_valid,
        unknown_instruments=unknown,
        not_offered=[f"{name} {data_type.name.lower()}" for name, data_type in resolved.not_offered],
        unanswered=driver.responses.unanswered,
    )
