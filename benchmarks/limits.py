"""The machine's limits: bare cache-line ping-pong, memory copy, loopback TCP, wake-ups; beside them the native ring.

Builds limits.c with the C compiler at hand.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks._harness import peer, pin, require

_SOURCE: Final = Path(__file__).with_name("limits.c")
_RING_SLOTS: Final = 1024


@cache
def library() -> ctypes.CDLL:
    """limits.c, compiled for this machine."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang") or ""
    require(bool(compiler), "no C compiler found to build benchmarks/limits.c")
    with tempfile.TemporaryDirectory() as directory:
        built = Path(directory) / "limits.so"
        subprocess.run([*shlex.split(compiler), "-O3", "-shared", "-fPIC", str(_SOURCE), "-o", str(built)], check=True)
        loaded = ctypes.CDLL(str(built))
    loaded.copy_memory.restype = ctypes.c_uint64
    loaded.send_open_loop.restype = ctypes.c_int64
    return loaded


def _pingpong(
    function: str, bytes_shared: int, arguments: list[Any], rounds: int, cores: list[int | None]
) -> npt.NDArray[np.uint64]:
    """Round trips in ns, u8, of a function of limits.c between two processes."""
    shared = mmap.mmap(-1, bytes_shared)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    call = getattr(library(), function)
    out = np.zeros(rounds, dtype=np.uint64)

    def play(role: int) -> None:
        pin(cores[role])
        call(ctypes.c_void_p(address), *arguments, ctypes.c_uint64(rounds), role, ctypes.c_void_p(out.ctypes.data))

    affinity = os.sched_getaffinity(0)
    with peer(play, 1):
        play(0)
        os.sched_setaffinity(0, affinity)
    require(bool((out > 0).all()), f"{function}: a round trip is missing")
    return out[rounds // 10 :]


def line_round_trips(rounds: int, cores: list[int | None]) -> npt.NDArray[np.uint64]:
    """Round trips of one bare cache line each way, ns: the limit of all that crosses cores."""
    return _pingpong("pingpong_line", 4096, [], rounds, cores)


def two_lines_round_trips(rounds: int, cores: list[int | None]) -> npt.NDArray[np.uint64]:
    """Round trips of two bare lines each way, each time others: the limit of records of 128 bytes, ns."""
    return _pingpong("pingpong_lines", 2 * _RING_SLOTS * 128, [ctypes.c_uint64(_RING_SLOTS)], rounds, cores)


def native_ring_round_trips(rounds: int, cores: list[int | None]) -> npt.NDArray[np.uint64]:
    """Round trips of one record each way through two rings, all in C, ns."""
    return _pingpong("pingpong_ring", 2 * (128 + _RING_SLOTS * 128), [ctypes.c_uint64(_RING_SLOTS)], rounds, cores)


def copy_bandwidth(working_set: int, total: int = 1 << 30) -> float:
    """memcpy in bytes per ns over a source and a target of ``working_set`` bytes each."""
    source, target = np.ones(working_set, dtype=np.uint8), np.zeros(working_set, dtype=np.uint8)
    rounds = max(1, total // working_set)
    elapsed = library().copy_memory(
        ctypes.c_void_p(target.ctypes.data),
        ctypes.c_void_p(source.ctypes.data),
        ctypes.c_uint64(working_set),
        ctypes.c_uint64(rounds),
    )
    require(bool((target == source).all()), "memcpy copied nothing")
    return working_set * rounds / int(elapsed)


def tcp_round_trips(count: int, cores: list[int | None], size: int = 200) -> npt.NDArray[np.int64]:
    """Round trips of ``size`` bytes over a bare TCP connection on loopback, ns: blocking sockets, no event loop."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo() -> None:
        pin(cores[1])
        with socket.create_connection(listener.getsockname()) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(count):
                connection.sendall(connection.recv(size, socket.MSG_WAITALL))

    times = np.zeros(count, dtype=np.int64)
    affinity = os.sched_getaffinity(0)
    with listener, peer(echo):
        pin(cores[0])
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            message, clock = bytes(size), time.perf_counter_ns
            for index in range(count):
                start = clock()
                connection.sendall(message)
                received = connection.recv(size, socket.MSG_WAITALL)
                times[index] = clock() - start
            require(received == message, "the bytes came back changed")
        os.sched_setaffinity(0, affinity)
    return times[count // 10 :]


def wake_chain(count: int, rate: int, spin_us: int = 100, size: int = 200) -> npt.NDArray[np.float64]:
    """µs from the send of a frame to the last of three processes that wake one another, at ``rate`` frames/s: one by a
    TCP socket, two by a futex, as worker, sequencer and strategy do. All in C, and nothing is done on the way."""
    shared = mmap.mmap(-1, 4096)
    words = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    noted = mmap.mmap(-1, count * 8)
    times = ctypes.addressof(ctypes.c_char.from_buffer(noted))
    first, second = ctypes.c_void_p(words), ctypes.c_void_p(words + 128)
    frames, spin = ctypes.c_uint64(count), ctypes.c_uint64(spin_us * 1000)
    call = library()
    stamps, late = np.zeros(count, dtype=np.uint64), np.zeros(count, dtype=np.uint64)
    offsets = np.arange(count + 1, dtype=np.uint64) * np.uint64(size)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def receive() -> None:
            with socket.create_connection(listener.getsockname()) as connection:
                call.relay_from_socket(connection.fileno(), first, frames, ctypes.c_uint64(size))

        def hand_on() -> None:
            call.relay_from_word(first, second, frames, spin)

        def note() -> None:
            call.note_from_word(second, ctypes.c_void_p(times), frames, spin)

        with peer(note), peer(hand_on), peer(receive):
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                failure = call.send_open_loop(
                    connection.fileno(), bytes(count * size), ctypes.c_void_p(offsets.ctypes.data), frames,
                    ctypes.c_uint64(1_000_000_000 // rate), ctypes.c_void_p(stamps.ctypes.data),
                    ctypes.c_void_p(late.ctypes.data),
                )  # fmt: skip
                require(failure == 0, f"the frames could not be sent: {failure}")
    taken: npt.NDArray[np.float64] = np.frombuffer(noted, dtype=np.int64) / 1000 - stamps.astype(np.int64) / 1000
    require(bool((taken > 0).all()), "a frame was known of before it was sent")
    return taken[count // 10 :]
