"""Records of 128 bytes between two processes, through other libraries.

Run by the interpreter of the peers; uses nothing but the standard library and the peer::

    python -m benchmarks.peers.transports one-way zeromq-pair 20000
    python -m benchmarks.peers.transports throughput iceoryx2 100000 64

``one-way`` prints the ns from before the send to after the receive of each record, of which the next is sent only
after an answer over the same transport, as in ``benchmarks/ring.py``. ``throughput`` prints the records per second
that the receiver saw, the records in batches where the library has them.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import multiprocessing
import os
import struct
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE = 128
_STAMP = struct.Struct("<q")
_FORK = multiprocessing.get_context("fork")


class Transport(ABC):
    """One direction between two processes. Made before the fork; each process then opens its end."""

    batches = False
    """Whether the library moves several records at once."""

    @abstractmethod
    def __init__(self, name: str, folder: Path) -> None:
        """``name`` tells several of them apart."""

    @abstractmethod
    def open_sender(self) -> Callable[[bytes], object]:
        """In the sending process: what sends one record."""

    @abstractmethod
    def open_receiver(self) -> Callable[[], Any]:
        """In the receiving process: what waits for one record and returns its bytes."""

    def open_batch_sender(self, batch: int) -> Callable[[bytes], object]:
        """What sends ``batch`` equal records."""
        send = self.open_sender()

        def send_batch(record: bytes) -> None:
            for _ in range(batch):
                send(record)

        return send_batch

    def open_batch_receiver(self, batch: int) -> Callable[[], int]:
        """What waits for records and returns how many have come."""
        receive = self.open_receiver()

        def receive_batch() -> int:
            receive()
            return 1

        return receive_batch


def distinct(batch: int) -> list[bytes]:
    """Different records: pickle writes an object that comes again only once."""
    return [index.to_bytes(SIZE, "little") for index in range(batch)]


class MultiprocessingQueue(Transport):
    """``multiprocessing.Queue``; a batch is a list that is put as one object."""

    batches = True

    def __init__(self, name: str, folder: Path) -> None:
        self._queue: Any = _FORK.Queue(4096)

    def open_sender(self) -> Callable[[bytes], object]:
        return self._queue.put  # type: ignore[no-any-return]

    def open_receiver(self) -> Callable[[], Any]:
        return self._queue.get  # type: ignore[no-any-return]

    def open_batch_sender(self, batch: int) -> Callable[[bytes], object]:
        put, records = self._queue.put, distinct(batch)
        return lambda record: put(records)

    def open_batch_receiver(self, batch: int) -> Callable[[], int]:
        get = self._queue.get
        return lambda: len(get())


class FasterFifo(Transport):
    """faster-fifo; ``put_many`` and ``get_many`` as its README recommends, no pickling of what is bytes already."""

    batches = True

    def __init__(self, name: str, folder: Path) -> None:
        library = importlib.import_module("faster_fifo")
        self._queue: Any = library.Queue(max_size_bytes=16 << 20, dumps=bytes, loads=bytes)

    def open_sender(self) -> Callable[[bytes], object]:
        return self._queue.put  # type: ignore[no-any-return]

    def open_receiver(self) -> Callable[[], Any]:
        queue = self._queue
        return lambda: queue.get(timeout=60.0)

    def open_batch_sender(self, batch: int) -> Callable[[bytes], object]:
        put_many, records = self._queue.put_many, distinct(batch)
        return lambda record: put_many(records, timeout=60.0)

    def open_batch_receiver(self, batch: int) -> Callable[[], int]:
        get_many = self._queue.get_many
        return lambda: len(get_many(max_messages_to_get=batch, timeout=60.0))


class ZeroMq(Transport):
    """pyzmq over ipc. Small messages are copied, as its documentation recommends; a batch is one joined message."""

    batches = True
    sender_type, receiver_type, spins = "PAIR", "PAIR", False

    def __init__(self, name: str, folder: Path) -> None:
        self._zmq: Any = importlib.import_module("zmq")
        self._address = f"ipc://{folder / name}"

    def _socket(self, kind: str) -> Any:
        self._context = self._zmq.Context()
        socket = self._context.socket(getattr(self._zmq, kind))
        if kind in ("PUB", "SUB"):
            socket.set_hwm(0)  # a full PUB socket would drop
        if kind == "SUB":
            socket.subscribe(b"")
        return socket

    def open_sender(self) -> Callable[[bytes], object]:
        self._sender = self._socket(self.sender_type)
        self._sender.bind(self._address)
        send = self._sender.send
        return lambda record: send(record, copy=True)

    def open_receiver(self) -> Callable[[], Any]:
        self._receiver = self._socket(self.receiver_type)
        self._receiver.connect(self._address)
        receive, again, no_block = self._receiver.recv, self._zmq.Again, self._zmq.NOBLOCK
        if not self.spins:
            return receive  # type: ignore[no-any-return]

        def spin() -> Any:
            while True:
                try:
                    return receive(no_block)
                except again:
                    continue

        return spin

    def open_batch_sender(self, batch: int) -> Callable[[bytes], object]:
        send = self.open_sender()
        return lambda record: send(record * batch)

    def open_batch_receiver(self, batch: int) -> Callable[[], int]:
        receive = self.open_receiver()
        return lambda: len(receive()) // SIZE


class ZeroMqSpinning(ZeroMq):
    """The receiver asks again and again in place of sleeping."""

    spins = True


class ZeroMqPubSub(ZeroMq):
    """PUB and SUB."""

    sender_type, receiver_type = "PUB", "SUB"


class Record(ctypes.Structure):
    """What iceoryx2 carries."""

    _fields_ = [("words", ctypes.c_uint64 * (SIZE // 8))]

    @staticmethod
    def type_name() -> str:
        return "MdringBenchRecord"


class Iceoryx2(Transport):
    """iceoryx2's Python binding, zero-copy loans; the publisher blocks in place of losing. The receiver polls."""

    batches = True

    def __init__(self, name: str, folder: Path) -> None:
        self._library: Any = importlib.import_module("iceoryx2")
        self._name = f"mdring-bench/{folder.name}/{name}"

    def _service(self, payload: Any) -> Any:
        library = self._library
        library.set_log_level(library.LogLevel.Error)
        self._node = library.NodeBuilder.new().create(library.ServiceType.Ipc)
        builder = self._node.service_builder(library.ServiceName.new(self._name)).publish_subscribe(payload)
        return builder.subscriber_max_buffer_size(256).enable_safe_overflow(False).open_or_create()

    def _publisher(self, payload: Any, slice_length: int = 0) -> Any:
        builder = self._service(payload).publisher_builder()
        builder = builder.backpressure_strategy(self._library.BackpressureStrategy.RetryUntilDelivered)
        return (builder.initial_max_slice_len(slice_length) if slice_length else builder).create()

    def open_sender(self) -> Callable[[bytes], object]:
        publisher = self._publisher(Record)
        move, record_size = ctypes.memmove, SIZE

        def send(record: bytes) -> None:
            sample = publisher.loan_uninit()
            move(sample.payload_ptr, record, record_size)
            sample.assume_init().send()

        return send

    def _poll(self, payload: Any) -> Callable[[], Any]:
        receive = self._service(payload).subscriber_builder().create().receive

        def poll() -> Any:
            while True:
                sample = receive()
                if sample is not None:
                    return sample

        return poll

    def open_receiver(self) -> Callable[[], Any]:
        poll = self._poll(Record)
        copy, record_size = ctypes.string_at, SIZE
        return lambda: copy(poll().payload_ptr, record_size)

    def open_batch_sender(self, batch: int) -> Callable[[bytes], object]:
        publisher = self._publisher(self._library.Slice[Record], batch)
        move, size = ctypes.memmove, SIZE * batch
        prepared: list[bytes] = []

        def send(record: bytes) -> None:
            if not prepared:
                prepared.append(record * batch)
            sample = publisher.loan_slice_uninit(batch)
            move(sample.payload_ptr, prepared[0], size)
            sample.assume_init().send()

        return send

    def open_batch_receiver(self, batch: int) -> Callable[[], int]:
        poll = self._poll(self._library.Slice[Record])
        copy = ctypes.string_at

        def receive() -> int:
            sample = poll()
            return len(copy(sample.payload_ptr, SIZE * batch)) // SIZE

        return receive


class RedisStream(Transport):
    """A Redis stream: XADD, and XREAD that blocks."""

    def __init__(self, name: str, folder: Path) -> None:
        self._library: Any = importlib.import_module("redis")
        self._key = f"mdring-bench/{folder.name}/{name}"

    def _client(self) -> Any:
        return self._library.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))

    def open_sender(self) -> Callable[[bytes], object]:
        add, key = self._client().xadd, self._key
        return lambda record: add(key, {b"r": record}, maxlen=100_000, approximate=True)

    def open_receiver(self) -> Callable[[], Any]:
        read, key = self._client().xread, self._key
        pending: list[bytes] = []
        last = [b"0"]

        def receive() -> bytes:
            while not pending:
                for _, entries in read({key: last[0]}, count=512, block=10_000):
                    pending.extend(fields[b"r"] for _, fields in entries)
                    last[0] = entries[-1][0]
            return pending.pop(0)

        return receive


TRANSPORTS: dict[str, type[Transport]] = {
    "multiprocessing.Queue": MultiprocessingQueue,
    "faster-fifo": FasterFifo,
    "zeromq-pair": ZeroMq,
    "zeromq-pair-spinning": ZeroMqSpinning,
    "zeromq-pub-sub": ZeroMqPubSub,
    "iceoryx2": Iceoryx2,
    "redis-stream": RedisStream,
}


_JOIN_S = 0.5
"""What a PUB socket needs to learn of its SUB."""


def _pin(role: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[role]})


def one_way(kind: type[Transport], count: int, folder: Path) -> list[int]:
    """ns of each record."""
    there, back = kind("there", folder), kind("back", folder)
    delays = multiprocessing.RawArray(ctypes.c_int64, count)
    opened, answerable = _FORK.Event(), _FORK.Event()

    def consume() -> None:
        _pin(1)
        answer, receive = back.open_sender(), there.open_receiver()
        opened.set()
        answerable.wait()
        time.sleep(_JOIN_S)
        ready, unpack, clock = bytes(SIZE), _STAMP.unpack_from, time.perf_counter_ns
        for index in range(count):
            record = receive()
            delays[index] = clock() - unpack(record)[0]
            answer(ready)
        time.sleep(0.2)  # what is sent last must get out

    process = _FORK.Process(target=consume, daemon=True)
    process.start()
    _pin(0)
    send, receive = there.open_sender(), back.open_receiver()
    answerable.set()
    opened.wait()
    time.sleep(2 * _JOIN_S)
    record, pack, clock = bytearray(SIZE), _STAMP.pack_into, time.perf_counter_ns
    for _ in range(count):
        pack(record, 0, clock())
        send(bytes(record))
        receive()
    process.join()
    return list(delays)


def throughput(kind: type[Transport], count: int, batch: int, folder: Path) -> float:
    """Records per second."""
    there, ready = kind("there", folder), _FORK.Event()
    outcome = multiprocessing.RawArray(ctypes.c_double, 1)

    def consume() -> None:
        _pin(1)
        receive = there.open_batch_receiver(batch) if batch > 1 else _counted(there.open_receiver())
        ready.set()
        seen = receive()
        start, begun = time.perf_counter(), seen
        while seen < count:
            seen += receive()
        outcome[0] = (seen - begun) / (time.perf_counter() - start)

    process = _FORK.Process(target=consume, daemon=True)
    process.start()
    _pin(0)
    send = there.open_batch_sender(batch) if batch > 1 else there.open_sender()
    ready.wait()
    time.sleep(_JOIN_S)
    record = bytes(SIZE)
    for _ in range(0, count + 2 * batch, batch):
        if not process.is_alive():
            break
        send(record)
    process.join(60)
    return float(outcome[0])


def _counted(receive: Callable[[], Any]) -> Callable[[], int]:
    def one() -> int:
        receive()
        return 1

    return one


def main(words: list[str]) -> None:
    """Measure, and print."""
    what, name, count = words[0], words[1], int(words[2])
    with tempfile.TemporaryDirectory(prefix="mdring-bench-") as folder:
        if what == "one-way":
            print(json.dumps(one_way(TRANSPORTS[name], count, Path(folder))))
        else:
            print(json.dumps(throughput(TRANSPORTS[name], count, int(words[3]), Path(folder))))
        sys.stdout.flush()
        os._exit(0)  # a queue's feeder thread or a library's context may still hold records that nobody wants


if __name__ == "__main__":
    main(sys.argv[1:])
