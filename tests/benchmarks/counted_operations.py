"""The hot operations of mdring, for callgrind to count: run by ``test_instruction_counts.py`` below valgrind.

::

    valgrind --tool=callgrind --instr-atstart=no … python -m tests.benchmarks.counted_operations TOGGLE_LIBRARY

Each operation is done N times, counted, and 2 N times, counted: the difference is N times the operation alone. Prints
a JSON line for each operation, in the order of the counts: its name and N.
"""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import sys
from collections.abc import Callable, Iterator

import msgspec
import numpy as np
from picows import WSMsgType

from mdring.book import BookSet
from mdring.feed.adapter import Connection, Endpoints, Response, Subscription, load_adapter
from mdring.feed.direct import DirectPath
from mdring.feed.emit import Emit
from mdring.feed.intake import Intake
from mdring.feed.stage import Channel
from mdring.record import RECORD, DataType, Flags, Kind, Side, offset_of
from mdring.ring._ring import Reader, Words, Writer

SLOTS = 4096
BATCH = 64
_LAST = {"flags_offset": offset_of("flags"), "last_flag": int(Flags.LAST)}
_LEVELS = b"[" + b",".join(b'["0.351%02d000","6195.%02d000000"]' % (n, n) for n in range(10)) + b"]"

Operation = tuple[str, int, Callable[[int], None]]
"""Its name, how often it is done by each call of the function with 1, and the function of a number of calls."""


class _Ring:
    """A ring of this process alone."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 4096 + SLOTS * RECORD.itemsize)
        self.writer = Writer(self.memory, 0, 4096, RECORD.itemsize, SLOTS, **_LAST)
        self.reader = Reader(self.memory, 0, 4096, RECORD.itemsize, SLOTS, **_LAST, position=0)


def _records(count: int) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    made = np.zeros(count, dtype=RECORD)
    made["kind"], made["flags"], made["instrument_id"] = Kind.TRADE, Flags.LAST, 1
    return made


def publish_one() -> Operation:
    """``Writer.publish`` of one record."""
    publish, record = _Ring().writer.publish, _records(1)

    def work(times: int) -> None:
        for _ in range(times):
            publish(record)

    return "publish one record", 1, work


def publish_batch() -> Operation:
    """Each record of a batch."""
    publish, batch = _Ring().writer.publish, _records(BATCH)

    def work(times: int) -> None:
        for _ in range(times):
            publish(batch)

    return "publish, a record of a batch", BATCH, work


def poll_batch() -> Operation:
    """``publish`` and ``poll`` of a batch, each record: publishing has a count of its own."""
    ring, batch = _Ring(), _records(BATCH)
    publish, poll, out = ring.writer.publish, ring.reader.poll, np.zeros(BATCH, dtype=RECORD)

    def work(times: int) -> None:
        for _ in range(times):
            publish(batch)
            poll(out)

    return "publish and poll, a record of a batch", BATCH, work


def poll_empty() -> Operation:
    """A ``poll`` that finds nothing."""
    poll, out = _Ring().reader.poll, np.zeros(1, dtype=RECORD)

    def work(times: int) -> None:
        for _ in range(times):
            poll(out)

    return "poll an empty ring", 1, work


def skip_filtered() -> Operation:
    """Each record that the native filter keeps away."""
    ring, batch = _Ring(), _records(BATCH)
    mask = np.zeros(3, dtype=np.uint8)
    mask[2] = 1
    ring.reader.set_filter(2**64 - 1, mask, kind_offset=offset_of("kind"), instrument_offset=offset_of("instrument_id"))
    publish, poll, out = ring.writer.publish, ring.reader.poll, np.zeros(BATCH, dtype=RECORD)

    def work(times: int) -> None:
        for _ in range(times):
            publish(batch)
            poll(out)

    return "publish and skip by the filter, a record of a batch", BATCH, work


def apply_deltas() -> Operation:
    """Each delta of a batch: sizes that change near the top of a book of 2 × 500 levels."""
    books = BookSet()
    image = np.zeros(1001, dtype=RECORD)
    image["kind"], image["kind"][0] = Kind.LEVEL, Kind.CLEAR
    image["flags"], image["instrument_id"] = Flags.SNAPSHOT, 1
    image["flags"][-1] |= np.uint8(Flags.LAST)
    image["side"][1:501], image["side"][501:] = Side.BID, Side.ASK
    image["price"][1:501], image["price"][501:] = 10_000 - np.arange(500), 10_001 + np.arange(500)
    image["size"][1:] = 5
    books.apply(image)
    batch = _records(BATCH)
    batch["kind"], batch["size"] = Kind.LEVEL, 7
    batch["side"] = np.resize([Side.BID, Side.ASK], BATCH)
    batch["price"] = 10_000 + np.resize([-3, 4, 0, 1, -11, 12, -40, 41], BATCH)
    batch["flags"] = np.resize([0, 0, 0, Flags.LAST], BATCH)

    def work(times: int) -> None:
        for _ in range(times):
            books.apply(batch)

    return "book, apply a delta of a batch", BATCH, work


def scan_levels() -> Operation:
    """Each level of a JSON array of ten, into staged records."""
    emit, channel = Emit(), Channel("NKNUSDT", 1, 1, -8, -8)

    def work(times: int) -> None:
        for _ in range(times):
            emit.begin(1)
            emit.levels(channel, Side.BID, _LEVELS, 1)
            emit.rollback()

    return "scan a level", 10, work


class _Decoding:
    """The adapter of Binance with a book in sync, and its messages to come."""

    def __init__(self) -> None:
        adapter_class = load_adapter("binance")
        subscription = Subscription("NKNUSDT", (DataType.TRADE, DataType.BBO, DataType.BOOK))
        self.adapter = adapter_class(
            Endpoints("wss://venue", "https://venue"), msgspec.convert({}, adapter_class.options), [subscription]
        )
        self.emit, self.ring, self.update_id = Emit(), _Ring(), 100
        self.adapter.bind({"NKNUSDT": Channel("NKNUSDT", 1, 1, -8, -8)})
        (self.connection,) = self.adapter.connections()
        assert isinstance(self.connection, Connection)
        self.adapter.on_connect(0, 1, self.emit)
        (fetch,) = self.adapter.on_frame(0, self.depth(), 1, self.emit)
        image = b'{"lastUpdateId":100,"bids":[["0.35000000","5.00000000"]],"asks":[["0.36000000","5.00000000"]]}'
        self.adapter.on_response(Response(fetch.tag, fetch.url, 200, image), 1, self.emit)  # type: ignore[union-attr]
        self.emit.commit(self.ring.writer)
        assert self.adapter.counts.books_valid == 1

    def depth(self) -> bytes:
        """A delta of ten levels."""
        self.update_id += 1
        return (
            b'{"stream":"nknusdt@depth@100ms","data":{"e":"depthUpdate","E":1633998512068,"s":"NKNUSDT","U":%d,"u":%d,'
            b'"b":%b,"a":[]}}' % (self.update_id, self.update_id, _LEVELS)
        )

    def ticker(self) -> bytes:
        """A best bid and ask."""
        self.update_id += 1
        return (
            b'{"stream":"nknusdt@bookTicker","data":{"u":%d,"s":"NKNUSDT","b":"0.35210000","B":"672.00000000",'
            b'"a":"0.35260000","A":"3199.00000000"}}' % self.update_id
        )

    def trade(self) -> bytes:
        """A trade."""
        self.update_id += 1
        return (
            b'{"stream":"nknusdt@trade","data":{"e":"trade","E":1672515782136,"s":"NKNUSDT","t":%d,"p":"0.35210000",'
            b'"q":"100.00000000","T":1672515782136,"m":true,"M":true}}' % self.update_id
        )

    def operation(self, name: str, make: Callable[[], bytes]) -> Operation:
        """Decode frames that were made beforehand, and publish their records."""
        frames: Iterator[bytes] = iter([make() for _ in range(4 * DECODED)])
        receive, emit, writer = self.adapter.receive, self.emit, self.ring.writer

        def work(times: int) -> None:
            for _ in range(times):
                emit.begin(1)
                receive(0, next(frames), 1, emit)
                emit.commit(writer)

        return name, 1, work

    def take(self, name: str, make: Callable[[], bytes]) -> Operation:
        """Have the intake take frames that were made beforehand."""
        sequencer = np.zeros(2, dtype=np.uint64)
        path = DirectPath(
            self.adapter.direct, self.emit, self.ring.writer, Words(sequencer, 0, 2), 0, 1, _not_called, _not_called
        )
        path.save_at = 2**63
        intake = Intake(0, path, lambda: None)
        intake.is_open = True
        on_ws_frame = intake.before(_not_called, _not_called)
        frames = iter([_Frame(make()) for _ in range(4 * DECODED)])

        def work(times: int) -> None:
            sequencer[0] = self.ring.writer.cursor
            for _ in range(times):
                on_ws_frame(None, next(frames))  # type: ignore[arg-type]

        return name, 1, work


class _Frame:
    """What picows tells of a frame, told as cheaply."""

    __slots__ = ("fin", "get_payload_as_bytes", "last_in_buffer", "msg_type")

    def __init__(self, payload: bytes) -> None:
        self.fin = self.last_in_buffer = 1
        self.msg_type = WSMsgType.TEXT
        self.get_payload_as_bytes = payload.__bytes__


def _not_called(*_: object) -> None:
    raise AssertionError("a frame is not taken, or the ring is full")


DECODED = 200
TIMES = 200


def operations() -> list[Operation]:
    """All that are counted."""
    decoding = [_Decoding() for _ in range(4)]
    return [
        publish_one(), publish_batch(), poll_batch(), poll_empty(), skip_filtered(), apply_deltas(), scan_levels(),
        decoding[0].operation("decode a delta of ten levels", decoding[0].depth),
        decoding[1].operation("decode a best bid and ask", decoding[1].ticker),
        decoding[2].operation("decode a trade", decoding[2].trade),
        decoding[3].take("take a frame to the ring", decoding[3].ticker),
    ]  # fmt: skip


def main(toggle: str) -> None:
    """Do them, and say which."""
    library = ctypes.CDLL(toggle)
    made = operations()
    gc.collect()
    gc.disable()
    for name, each, work in made:
        work(TIMES)  # what happens only once has happened
        for times in (TIMES, 2 * TIMES):
            library.start_counting()
            work(times)
            library.stop_counting()
        print(json.dumps({"name": name, "times": TIMES * each}))


if __name__ == "__main__":
    main(sys.argv[1])
