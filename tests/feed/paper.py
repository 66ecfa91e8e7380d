"""A made-up venue's adapter, small enough to be wrong nowhere: for tests of whatever drives an adapter.

Messages of the venue (``paper_venue.py`` is its other side)::

    {"ack":"1"}                                              answer to {"subscribe":["AAA"],"ack":"1"}
    {"trade":"AAA","id":7,"price":"1.50","size":"2"}
    {"delta":"AAA","id":8,"bids":[["1.50","2"]],"asks":[]}
    {"reconnect":"why"}  {"shutdown":true}                   have the adapter ask for a reconnect, now or planned
    {"bug":true}                                             has the adapter raise what no adapter may
    {"note":true}                                            neither data nor anything else

REST: ``/instruments`` gives ``[{"instrument":"AAA","trading":true,"data_types":["trade"],"price_exponent":-2}, …]``,
the last two if they are not as always, ``/book/AAA`` gives ``{"id":5,"bids":[…],"asks":[…]}``. Prices have two
decimals, sizes none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from mdring.feed.adapter import (
    NOTHING,
    Acknowledged,
    Adapter,
    AdapterCounts,
    Connection,
    Endpoints,
    Fetch,
    InstrumentInfo,
    Limits,
    Reconnect,
    Request,
    Response,
    Send,
    Subscription,
    UnknownMessages,
    VenueProtocolError,
)
from mdring.feed.emit import Emit
from mdring.feed.stage import Channel
from mdring.record import Aggressor, DataType, Flags, Reason, Side, State


class PaperOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How many connections the instruments are spread over."""

    connections: int = 1


class PaperAdapter(Adapter):
    """One object serves one worker."""

    venue: ClassVar[str] = "paper"
    data_types: ClassVar[tuple[DataType, ...]] = (DataType.TRADE, DataType.BOOK)
    integrity: ClassVar[str] = "none"
    endpoints: ClassVar[Endpoints] = Endpoints("ws://127.0.0.1:1", "http://127.0.0.1:1")
    limits: ClassVar[Limits] = Limits(send_interval_s=0.02, weight_per_minute=1000)
    options: ClassVar[type[Struct]] = PaperOptions

    def __init__(self, endpoints: Endpoints, options: PaperOptions, subscriptions: Sequence[Subscription]) -> None:
        self.counts = AdapterCounts()
        self.unknown = UnknownMessages(self.counts)
        self._endpoints = endpoints
        self._connections = options.connections
        self._wanted = {subscription.instrument: subscription.data_types for subscription in subscriptions}
        self._channels: dict[str, Channel] = {}

    def metadata_requests(self) -> Sequence[Fetch]:
        return (Fetch("instruments", f"{self._endpoints.rest_url}/instruments"),)

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo | Fetch]:
        if response.status != 200:
            raise VenueProtocolError(f"HTTP {response.status}")
        rows = msgspec.json.decode(response.body)
        return [
            InstrumentInfo(
                row["instrument"], f"{row['instrument']}-X", row.get("price_exponent", -2), 0, trading=row["trading"],
                data_types=tuple(DataType[name.upper()] for name in row.get("data_types", ())),
            )
            for row in rows
        ]  # fmt: skip

    def bind(self, channels: Mapping[str, Channel]) -> None:
        self._channels = dict(channels)
        self.counts.books = len(self._books(None))

    def connections(self) -> Sequence[Connection]:
        return [
            Connection(number, self._endpoints.websocket_url, tuple(self._names(number)))
            for number in range(self._connections)
        ]

    def on_connect(self, connection: int, now_ns: int, emit: Emit) -> Sequence[Request]:
        text = json.dumps({"subscribe": self._names(connection), "ack": "1"})
        return (Send(connection, text, ack="1"),)

    def on_frame(self, connection: int, payload: bytes | memoryview, ts_recv: int, emit: Emit) -> Sequence[Request]:
        try:
            message: dict[str, Any] = msgspec.json.decode(payload)
        except msgspec.DecodeError as error:
            raise VenueProtocolError(str(error)) from error
        match message:
            case {"ack": ack}:
                return (Acknowledged(connection, ack), *map(self._fetch, self._books(connection)))
            case {"trade": name, "id": number, "price": price, "size": size}:
                emit.trade(self._channels[name], price, size, Aggressor.BUY, number, ts_recv, number)
                emit.end()
            case {"delta": name, "id": number, "bids": bids, "asks": asks}:
                self._levels(emit, name, number, bids, asks, Flags.NONE, ts_recv)
            case {"reconnect": why}:
                return (Reconnect(connection, Reason.BAD_MESSAGE, why),)
            case {"shutdown": True}:
                return (Reconnect(connection, Reason.PLANNED_RECONNECT, "announced"),)
            case {"bug": True}:
                raise RuntimeError("a bug of ours")
            case {"note": True}:
                self.unknown.note("note", payload)
            case _:
                raise VenueProtocolError("no such message", instrument=message.get("of"))
        return NOTHING

    def on_response(self, response: Response, ts_recv: int, emit: Emit) -> Sequence[Request]:
        name = response.tag
        if response.status != 200:
            return (Fetch(name, response.url, delay_ns=10_000_000, connection=self._connection_of(name)),)
        try:
            book = msgspec.json.decode(response.body)
        except msgspec.DecodeError as error:
            raise VenueProtocolError(str(error), instrument=name, data_type=DataType.BOOK) from error
        emit.clear(self._channels[name], Reason.SNAPSHOT)
        self._levels(emit, name, book["id"], book["bids"], book["asks"], Flags.SNAPSHOT, 0)
        emit.status(self._channels[name], State.SYNCED, Reason.NONE, DataType.BOOK)
        emit.end()
        self.counts.snapshots += 1
        return NOTHING

    def on_disconnect(self, connection: int, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        for name in self._books(connection):
            emit.clear(self._channels[name], reason)
            emit.end()
        return NOTHING

    def resync(self, instrument: str, now_ns: int, reason: Reason, emit: Emit) -> Sequence[Request]:
        self.counts.resyncs += 1
        emit.status(self._channels[instrument], State.RESYNCING, reason, DataType.BOOK)
        emit.clear(self._channels[instrument], reason)
        emit.end()
        return (self._fetch(instrument),)

    def is_data(self, payload: bytes | memoryview) -> bool:
        return False

    def _names(self, connection: int) -> list[str]:
        return list(self._channels)[connection :: self._connections]

    def _connection_of(self, name: str) -> int:
        return list(self._channels).index(name) % self._connections

    def _books(self, connection: int | None) -> list[str]:
        names = list(self._channels) if connection is None else self._names(connection)
        return [name for name in names if DataType.BOOK in self._wanted[name]]

    def _fetch(self, name: str) -> Fetch:
        return Fetch(name, f"{self._endpoints.rest_url}/book/{name}", connection=self._connection_of(name))

    def _levels(self, emit: Emit, name: str, number: int, bids: Any, asks: Any, flags: Flags, ts_event: int) -> None:
        channel = self._channels[name]
        try:
            emit.levels(channel, Side.BID, json.dumps(bids).encode(), ts_event, number, flags)
            emit.levels(channel, Side.ASK, json.dumps(asks).encode(), ts_event, number, flags)
        except VenueProtocolError as error:
            error.instrument, error.data_type = name, DataType.BOOK
            raise
        emit.end()
