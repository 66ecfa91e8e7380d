"""Captures: raw traffic of a venue in a file.

A capture is JSON Lines, optionally gzip or zstd, one object per event, in the order in which the recording
program saw them::

    {"ts": ns, "conn": 0, "ev": "open", "url": "wss://…"}
    {"ts": ns, "conn": 0, "ev": "send", "text": "…"}
    {"ts": ns, "conn": 0, "ev": "recv", "text": "…"}          # or "b64" for a binary frame
    {"ts": ns, "conn": -1, "ev": "http", "url": "https://…", "status": 200, "text": "…"}
    {"ts": ns, "conn": 0, "ev": "close"}

The name of the file says how it is packed::

    with CaptureWriter(Path("binance.jsonl.gz")) as capture: capture.write_frame(ts, 0, "recv", payload)
    for event in read_capture(Path("binance.jsonl.gz")): ...

``decode.py`` runs an adapter over one.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import importlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Literal, Self, cast

import msgspec
from msgspec import Struct


class CaptureError(Exception):
    """The file is not a capture, or lacks what is needed; the message says where and what."""


class CaptureEvent(Struct, frozen=True, omit_defaults=True):
    """One line. ``conn`` is the number of the WebSocket connection, -1 for REST."""

    ts: int
    conn: int
    ev: Literal["open", "send", "recv", "close", "http"]
    url: str = ""
    status: int = 0
    text: str | None = None
    b64: str | None = None

    @property
    def payload(self) -> bytes:
        """The frame's or the body's bytes. Raises CaptureError."""
        if self.b64 is None:
            return (self.text or "").encode()
        try:
            return base64.b64decode(self.b64, validate=True)
        except binascii.Error as error:
            raise CaptureError(f"b64 of the event at {self.ts}: {error}") from None


_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_DECODER: Final = msgspec.json.Decoder(CaptureEvent)
_ENCODER: Final = msgspec.json.Encoder()


def _zstd(path: Path) -> Any:
    """The standard library's module (Python 3.14), or the package ``zstandard``."""
    for name in ("compression.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    raise CaptureError(f"{path}: zstd needs Python 3.14 or the package zstandard; or compress it with gzip")


def _open_reader(path: Path) -> tuple[IO[bytes], tuple[type[Exception], ...]]:
    """The uncompressed bytes, and the errors that say that the file is damaged."""
    with path.open("rb") as file:
        magic = file.read(4)
    if magic.startswith(_GZIP_MAGIC):
        return cast(IO[bytes], gzip.open(path)), (EOFError, OSError, zlib.error)
    if magic == _ZSTD_MAGIC:
        module = _zstd(path)
        return io.BufferedReader(module.open(path, "rb")), (EOFError, OSError, module.ZstdError)
    return path.open("rb"), (OSError,)


def _open_writer(path: Path) -> IO[bytes]:
    match path.suffix:
        case ".gz":
            return cast(IO[bytes], gzip.open(path, "wb"))
        case ".zst":
            return cast(IO[bytes], _zstd(path).open(path, "wb"))
        case _:
            return path.open("wb")


def read_capture(path: Path) -> Iterator[CaptureEvent]:
    """The events of a capture, whatever its compression. Raises CaptureError with the line."""
    try:
        stream, damage = _open_reader(path)
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}") from None
    number = 0
    with stream:
        try:
            for line in stream:
                number += 1
                if not line.isspace():
                    yield _DECODER.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CaptureError(f"{path}: line {number}: {error}") from None
        except damage as error:
            raise CaptureError(f"{path}: cut short or damaged after line {number}: {error}") from None


class CaptureWriter:
    """Writes a capture; gzip if the name ends in ``.gz``, zstd if in ``.zst``. A context manager."""

    def __init__(self, path: Path) -> None:
        self._file = _open_writer(path)

    def write(self, event: CaptureEvent) -> None:
        """Append one event."""
        self._file.write(_ENCODER.encode(event) + b"\n")

    def write_frame(self, ts: int, connection: int, direction: Literal["send", "recv"], payload: bytes) -> None:
        """Append a frame, as text if it is UTF-8."""
        try:
            self.write(CaptureEvent(ts, connection, direction, text=payload.decode()))
        except UnicodeDecodeError:
            self.write(CaptureEvent(ts, connection, direction, b64=base64.b64encode(payload).decode()))

    def close(self) -> None:
        """End the file; without it a compressed one is cut short."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
