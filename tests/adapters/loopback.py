"""An adapter and the emulator of its venue, face to face: no socket, no clock but a counter, every run repeatable.

The real adapter, the real face of the venue, the real market; between them the worker's part played in virtual time:
frames paced and delayed, REST answered after a latency, connections reopened, faults from the emulator's own injector.
What comes out are all records, checked, and a book per instrument made from them, as a consumer would::

    loop = Loopback("okx", seed=3)
    loop.run(5.0)
    loop.settle()               # the market rests, everything is on the wire
    loop.assert_books_true()    # equal to the venue's own
"""

from __future__ import annotations

import heapq
import pickle
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from mdring.emulator.book import Book
from mdring.emulator.faults import CORRUPTIONS, Fault, FaultInjector, FaultKind, corrupt
from mdring.emulator.instruments import universe
from mdring.emulator.market import Change, Market
from mdring.emulator.venue import Refusal, RestRequest, Session, VenueEmulator, load_emulator
from mdring.feed.adapter import (
    Acknowledged,
    Adapter,
    Connection,
    Endpoints,
    Fetch,
    InstrumentInfo,
    Reconnect,
    Rejected,
    Request,
    Response,
    Send,
    Subscription,
    VenueProtocolError,
    load_adapter,
)
from mdring.feed.emit import Emit
from mdring.feed.fixed import scale
from mdring.feed.stage import Channel
from mdring.record import LEVEL, RECORD, STATUS, DataType, Flags, Kind, Reason, Side, State
from tests.adapters.conformance import check_records

START_NS = 1_788_000_000_000_000_000
MS = 1_000_000
SECOND = 1_000_000_000
WIRE_NS = 2 * MS  # one way
RECONNECT_NS = 100 * MS
STEP_NS = 10 * MS

Levels = dict[int, int]


class Timer:
    """A callback that is due."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Schedule:
    """Virtual time."""

    def __init__(self) -> None:
        self.now_ns = START_NS
        self._due: list[tuple[int, int, Timer]] = []
        self._numbers = count()

    def at(self, when_ns: int, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._due, (max(when_ns, self.now_ns), next(self._numbers), timer))
        return timer

    def run_until(self, end_ns: int) -> None:
        while self._due and self._due[0][0] <= end_ns:
            self.now_ns, _, timer = heapq.heappop(self._due)
            if timer.callback is not None:
                timer.callback()
        self.now_ns = end_ns


class LoopHost:
    """The emulator's host."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def now_ns(self) -> int:
        return self._schedule.now_ns

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self._schedule.at(self._schedule.now_ns + round(seconds * SECOND), callback)


class LoopWire(LoopHost):
    """Both ends of one connection."""

    session: Session

    def __init__(self, loop: Loopback, number: int, connection: int) -> None:
        super().__init__(loop.schedule)
        self.number = number
        self.connection = connection
        self.is_open = True
        self.sent: list[str] = []  # by the adapter
        self._loop = loop
        self._held: dict[str, bytes] = {}
        self._timers: list[Timer] = []
        self.may_send_ns = 0

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = super().after(seconds, callback)
        self._timers.append(timer)
        return timer

    # The venue's side.

    def deliver(self, stream: str, frame: bytes) -> None:
        overtaken = self._held.pop(stream, None)
        fault = None if overtaken is not None else self._loop.injector.due_on_message(stream, self.number)
        if fault is None:
            self._put(frame)
        elif fault.fault is FaultKind.DUPLICATE:
            self._put(frame)
            self._put(frame)
        elif fault.fault is FaultKind.REORDER:
            self._held[stream] = frame
        elif fault.fault in CORRUPTIONS:
            self._put(corrupt(fault.fault, frame))
        elif fault.fault in (FaultKind.CLOSE, FaultKind.RESET):
            self.close(fault.code, fault.reason)
        else:
            assert fault.fault is FaultKind.DROP, fault.fault
        if overtaken is not None:
            self._put(overtaken)

    def reply(self, text: str) -> None:
        self._put(text.encode())

    def ping(self, payload: bytes) -> None:
        def pong() -> None:
            if self.is_open:
                self.session.on_pong(payload)

        self._loop.schedule.at(self.now_ns() + 2 * WIRE_NS, pong)

    def close(self, code: int, reason: str = "") -> None:
        self._loop.closed_by_venue.append((code, reason))
        self._loop.schedule.at(self.now_ns() + WIRE_NS, lambda: self._loop.end(self, Reason.CLOSED_BY_VENUE))

    def reset(self) -> None:
        self.close(1006)

    def _put(self, frame: bytes) -> None:
        self._loop.schedule.at(self.now_ns() + WIRE_NS, lambda: self._loop.on_frame(self, frame))

    # The adapter's side.

    def send(self, request: Send, interval_ns: int) -> None:
        begin = self.now_ns() + request.delay_ns
        if not request.urgent:
            begin = max(begin, self.may_send_ns)
            self.may_send_ns = begin + interval_ns

        def arrive() -> None:
            if self.is_open:
                self.sent.append(request.text)
                self.session.on_text(request.text.encode())

        self._loop.schedule.at(begin + WIRE_NS, arrive)

    def shut(self) -> None:
        self.is_open = False
        for timer in self._timers:
            timer.cancel()
        self.session.on_close()


class Wanted(Struct, frozen=True):
    """What a loopback subscribes to."""

    spots: int = 2
    contracts: int = 2
    extra: tuple[str, ...] = ()  # names in the venue's manner that it does not list


_adapter_type = cache(load_adapter)
_emulator_type = cache(load_emulator)


@lru_cache(maxsize=32)
def _new_market(symbols: tuple[str, ...], seed: int, depth: int) -> bytes:
    """A market that has not begun, pickled: to make one takes as long as to run it for seconds."""
    return pickle.dumps(Market(universe(symbols), seed, depth=depth, trade_share=0.3, history_limit=10_000))


class Loopback:
    """See above. ``latency_s`` is that of REST answers."""

    def __init__(
        self,
        venue: str,
        *,
        seed: int = 1,
        rate: int = 200,
        depth: int = 40,
        latency_s: float = 0.02,
        wanted: Wanted | None = None,
        symbols: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        endpoints: Endpoints | None = None,
        emulator_options: Mapping[str, Any] | None = None,
        rewrite: Callable[[bytes], bytes] = bytes,
        scribble: bool = False,
        direct: bool = True,
    ) -> None:
        """``symbols``: canonical ones of all that is traded; none: many. ``rewrite``: what becomes of each frame on its
        way; ``scribble``: overwrite its buffer after the call; ``direct``: ask the direct routes."""
        self.schedule = Schedule()
        self.rate = rate
        self.latency_ns = round(latency_s * SECOND)
        self.market: Market = pickle.loads(_new_market(tuple(symbols), seed, depth))
        emulator_type = _emulator_type(venue)
        self.emulator: VenueEmulator = emulator_type(
            self.market, LoopHost(self.schedule), emulator_type.options(**(emulator_options or {}))
        )
        self.injector = FaultInjector(seed, venue)
        self.closed_by_venue: list[tuple[int, str]] = []
        self.frames: list[bytes] = []  # to the adapter
        self.errors: list[VenueProtocolError] = []
        self.rejected: list[Rejected] = []
        self.reconnects: list[Reconnect] = []
        self.requests: list[Request] = []
        self.acks: set[tuple[int, str]] = set()  # (connection, name) of the answers that are waited for
        self.acknowledged: set[tuple[int, str]] = set()  # of those that came
        self.rest_calls: Counter[str] = Counter()
        self.answers: dict[str, bytes] = {}  # REST, by path
        self.emit = Emit(64)
        self._drained: list[npt.NDArray[np.void]] = []
        self._wires: dict[int, LoopWire] = {}
        self._numbers = count(1)
        self._rewrite = rewrite
        self._scribble = scribble
        self._direct = direct
        self._rest_steps = 0.0
        self._moving = True
        self.adapter_type = _adapter_type(venue)
        self._options = structs.replace(self.adapter_type.options(), **(options or {}))
        self._endpoints = endpoints or Endpoints("ws://venue", "http://venue")
        self.infos = self._learn()
        self.subscriptions = self._choose(wanted or Wanted())
        self.adapter = self._make(self.subscriptions)
        self.channels = {
            wish.instrument: Channel(
                wish.instrument, number, 1, self._exponents(wish.instrument)[0], self._exponents(wish.instrument)[1],
            )
            for number, wish in enumerate(self.subscriptions, 1)
        }  # fmt: skip
        self._venue_channel = Channel("", 0, 1, 0, 0)
        self.adapter.bind(self.channels)
        self._connections = {one.connection: one for one in self.adapter.connections()}
        for connection in self._connections.values():
            self._open(connection)
        self.schedule.at(self.schedule.now_ns, self._step)

    # ---- before the first connection ----------------------------------------------------------------------

    def _make(self, subscriptions: Sequence[Subscription]) -> Adapter:
        return self.adapter_type(self._endpoints, self._options, subscriptions)

    def _learn(self) -> dict[str, InstrumentInfo]:
        adapter = self._make(())
        infos: dict[str, InstrumentInfo] = {}
        pending = list(adapter.metadata_requests())
        while pending:
            fetch = pending.pop(0)
            found = adapter.on_metadata(self._answer(fetch))
            pending += [entry for entry in found if isinstance(entry, Fetch)]
            infos.update({entry.instrument: entry for entry in found if isinstance(entry, InstrumentInfo)})
        return infos

    def _choose(self, wanted: Wanted) -> list[Subscription]:
        listed = self.emulator.instruments()
        kinds = {name: self.emulator.book_of(name).spec.symbol.is_spot for name in listed.values()}
        spots = [name for name, is_spot in kinds.items() if is_spot][: wanted.spots]
        contracts = [name for name, is_spot in kinds.items() if not is_spot][: wanted.contracts]
        chosen = [
            Subscription(name, tuple(self.data_types(name))) for name in (*spots, *contracts) if name in self.infos
        ]
        return chosen + [Subscription(name, self.adapter_type.data_types) for name in wanted.extra]

    def _exponents(self, instrument: str) -> tuple[int, int]:
        info = self.infos.get(instrument)
        return (-8, -8) if info is None else (info.price_exponent, info.size_exponent)

    def data_types(self, instrument: str) -> list[DataType]:
        """What can be had of it: all that the adapter serves, or what the metadata says."""
        return [one for one in self.adapter_type.data_types if one in self.infos[instrument].offers(self.adapter_type)]

    # ---- the worker's part --------------------------------------------------------------------------------

    def _open(self, connection: Connection) -> None:
        number = connection.connection
        if number in self._wires:
            return
        wire = LoopWire(self, next(self._numbers), number)
        url = urlsplit(connection.url)
        session = self.emulator.accept(unquote(url.path), dict(parse_qsl(url.query)), wire)
        if isinstance(session, Refusal):
            self.schedule.at(self.schedule.now_ns + RECONNECT_NS, lambda: self._open(connection))
            return
        wire.session = session
        self._wires[number] = wire
        session.on_open()
        self.emit.begin(self.schedule.now_ns)
        self.after(self.adapter.on_connect(number, self.schedule.now_ns, self.emit))
        self._set_timer(wire)

    def _set_timer(self, wire: LoopWire) -> None:
        interval = self.adapter_type.limits.timer_interval_s
        if interval:

            def tick() -> None:
                if wire.is_open:
                    self.emit.begin(self.schedule.now_ns)
                    self.after(self.adapter.on_timer(wire.connection, self.schedule.now_ns, self.emit))
                    self._set_timer(wire)

            self.schedule.at(self.schedule.now_ns + round(interval * SECOND), tick)

    def end(self, wire: LoopWire, reason: Reason) -> None:
        """The connection is gone; another is opened a little later."""
        if not wire.is_open:
            return
        wire.shut()
        del self._wires[wire.connection]
        self.emit.begin(self.schedule.now_ns)
        self.after(self.adapter.on_disconnect(wire.connection, self.schedule.now_ns, reason, self.emit))
        self.schedule.at(self.schedule.now_ns + RECONNECT_NS, lambda: self._open(self._connections[wire.connection]))

    def on_frame(self, wire: LoopWire, frame: bytes) -> None:
        """A frame arrives at the adapter."""
        if wire.is_open:
            self.give(wire, self._rewrite(frame))

    def give(self, wire: LoopWire, frame: bytes) -> None:
        """Give the adapter a frame as it is."""
        self.frames.append(frame)
        now_ns = self.schedule.now_ns
        buffer = bytearray(frame)
        payload = memoryview(buffer) if self._scribble else frame
        take = self.adapter.receive if self._direct else self.adapter.on_frame
        self._attempt(wire.connection, lambda: take(wire.connection, payload, now_ns, self.emit))
        if self._scribble:
            buffer[:] = b"#" * len(buffer)

    def _attempt(self, connection: int, call: Callable[[], Sequence[Request]]) -> None:
        now_ns = self.schedule.now_ns
        self.emit.begin(now_ns)
        try:
            requests = call()
        except VenueProtocolError as error:
            self.errors.append(error)
            self.emit.rollback()
            self.emit.begin(now_ns)
            channel = self.channels.get(error.instrument or "", self._venue_channel)
            self.emit.status(channel, State.REJECTED, error.reason, error.data_type, detail=str(error))
            self.emit.end()
            requests = self.adapter.on_reject(connection, error, now_ns, self.emit)
        self.after(requests)

    def after(self, requests: Sequence[Request]) -> None:
        """Keep what is staged, and carry out what the adapter asks for."""
        self._drained.append(self.emit.drain())
        for request in requests:
            self.requests.append(request)
            self._carry_out(request)

    def _carry_out(self, request: Request) -> None:
        if isinstance(request, Fetch):
            self._fetch(request)
        elif isinstance(request, Rejected):
            self.rejected.append(request)
        elif isinstance(request, Acknowledged):
            self.acknowledged.add((request.connection, request.ack))
        elif isinstance(request, Send):
            if request.ack is not None:
                self.acks.add((request.connection, request.ack))
            wire = self._wires.get(request.connection)
            if wire is not None:
                wire.send(request, round(self.adapter_type.limits.send_interval_s * SECOND))
        elif isinstance(request, Reconnect):
            self.reconnects.append(request)
            wire = self._wires.get(request.connection)
            if wire is not None:
                self.end(wire, request.reason)

    def _fetch(self, fetch: Fetch) -> None:
        wire = self._wires.get(fetch.connection)

        def arrive() -> None:
            response = self._answer(fetch)
            self.schedule.at(self.schedule.now_ns + self.latency_ns // 2, lambda: respond(response))

        def respond(response: Response) -> None:
            if fetch.connection < 0 or (wire is not None and wire.is_open):
                now_ns = self.schedule.now_ns
                self._attempt(fetch.connection, lambda: self.adapter.on_response(response, now_ns, self.emit))

        self.schedule.at(self.schedule.now_ns + fetch.delay_ns + self.latency_ns // 2, arrive)

    def _answer(self, fetch: Fetch) -> Response:
        url = urlsplit(fetch.url)
        self.rest_calls[url.path] += 1
        lag = 0
        for fault in self.injector.due_on_rest(fetch.url):
            if fault.fault is FaultKind.REST_RESET:
                return Response(fetch.tag, fetch.url, 0, b"reset")
            if fault.fault is FaultKind.REST_ERROR:
                headers = {"Retry-After": str(fault.retry_after_s)} if fault.retry_after_s else {}
                return Response(fetch.tag, fetch.url, fault.status or 500, fault.body.encode(), headers)
            if fault.fault is FaultKind.STALE_SNAPSHOT:
                lag = fault.lag
        request = RestRequest(unquote(url.path), dict(parse_qsl(url.query)), {"user-agent": "loopback"}, "client", lag)
        answer = self.emulator.rest(request)
        self.answers[url.path] = answer.body
        return Response(fetch.tag, fetch.url, answer.status, answer.body, answer.headers)

    # ---- the market ---------------------------------------------------------------------------------------

    def _step(self) -> None:
        if self._moving:
            self._rest_steps += self.rate * STEP_NS / SECOND
            steps, self._rest_steps = int(self._rest_steps), self._rest_steps % 1
            if steps:
                self.emulator.on_events(self.market.advance(steps, self.schedule.now_ns))
            self.schedule.at(self.schedule.now_ns + STEP_NS, self._step)

    def change(self, book: Book, side: Side, price: int, size: int) -> None:
        """Have one level of a book changed, whatever the market would do; one that is not there may be deleted."""
        update_id = book.apply(side, price, size)
        self.emulator.on_events([Change(book.index, update_id, side, price, size)])

    def empty(self, book: Book, side: Side) -> None:
        """Delete all levels of one side, best first."""
        for price, _ in (book.bids if side is Side.BID else book.asks).levels():
            self.change(book, side, price, 0)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        self.schedule.run_until(self.schedule.now_ns + round(seconds * SECOND))

    def settle(self, seconds: float = 3.0) -> None:
        """The market rests until everything is sent and every book had time to be rebuilt."""
        self._moving = False
        self.run(seconds)
        for _ in range(100):
            if self.emulator.is_drained():
                break
            self.run(0.1)
        self.run(2 * self.latency_ns / SECOND + 0.1)

    def resume(self) -> None:
        """The market goes on."""
        self._moving = True
        self.schedule.at(self.schedule.now_ns, self._step)

    def arm(self, kind: FaultKind, **parameters: Any) -> None:
        """A fault of the emulator."""
        self.injector.arm(Fault(fault=kind, **parameters))

    # ---- what came of it ----------------------------------------------------------------------------------

    @property
    def records(self) -> npt.NDArray[np.void]:
        """All records so far."""
        self._drained = [np.frombuffer(b"".join([part.tobytes() for part in self._drained]), RECORD)]
        return self._drained[0]

    def of(self, kind: Kind, instrument: str | None = None) -> npt.NDArray[np.void]:
        """The records of a kind (and instrument)."""
        records = self.records
        wanted = records["kind"] == kind
        if instrument is not None:
            wanted &= records["instrument_id"] == self.channels[instrument].instrument_id
        return np.compress(wanted, records)

    def statuses(self, instrument: str) -> list[tuple[State, Reason]]:
        """(state, reason) of each STATUS of an instrument."""
        return [
            (State(int(row["state"])), Reason(int(row["reason"])))
            for row in self.of(Kind.STATUS, instrument).view(STATUS)
        ]

    def names(self, data_type: DataType) -> list[str]:
        """Instruments that the venue lists, of which these data are subscribed to."""
        return [
            one.instrument for one in self.subscriptions if data_type in one.data_types and one.instrument in self.infos
        ]

    @property
    def wires(self) -> list[LoopWire]:
        """The open connections."""
        return list(self._wires.values())

    def book(self, instrument: str) -> tuple[Levels, Levels] | None:
        """The book that a consumer has; None while it is invalid."""
        sides: dict[int, Levels] | None = None
        clear, level, snapshot = int(Kind.CLEAR), int(Kind.LEVEL), int(Flags.SNAPSHOT)
        number = self.channels[instrument].instrument_id
        records = self.records
        rows = np.compress(records["instrument_id"] == number, records).view(LEVEL)
        for kind, flags, side, price, size in rows[["kind", "flags", "side", "price", "size"]].tolist():
            if kind == clear:
                sides = defaultdict(dict) if flags & snapshot else None
            elif kind == level:
                assert sides is not None, "a level of an invalid book"
                if size:
                    sides[side][price] = size
                else:
                    sides[side].pop(price, None)
        return None if sides is None else (sides[Side.BID], sides[Side.ASK])

    def truth(self, instrument: str, limit: int | None = None) -> tuple[Levels, Levels]:
        """The venue's book, its best ``limit`` levels, scaled as the records are."""
        book, channel = self.emulator.book_of(instrument), self.channels[instrument]

        def scaled(levels: list[tuple[int, int]]) -> Levels:
            texts = [self.emulator.level_text(book, level) for level in levels]
            return {
                scale(price, channel.price_exponent): scale(size, channel.size_exponent) for price, size, *_ in texts
            }

        _, bids, asks = book.depth(limit)
        return scaled(bids), scaled(asks)

    def assert_records_lawful(self) -> None:
        """All that must hold of any stream."""
        check_records(self.records)

    def assert_book_true(self, instrument: str) -> None:
        """The consumer's book of one instrument is the venue's, as deep as the venue tells it."""
        found = self.book(instrument)
        assert found is not None, f"the book of {instrument} is invalid: {self.statuses(instrument)[-5:]}"
        depth = self.adapter.book_depth(instrument)
        assert found == self.truth(instrument, depth), instrument

    def assert_books_true(self) -> None:
        """Every book is the venue's, and the adapter knows it."""
        self.assert_records_lawful()
        names = self.names(DataType.BOOK)
        for name in names:
            self.assert_book_true(name)
        assert self.adapter.counts.books_valid == len(names)
