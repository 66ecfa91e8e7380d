"""A capture of the emulated venue, for machines that have no real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._run_folder import temporary_folder
from benchmarks._venue import VirtualVenue
from mdring.capture import CaptureEvent, CaptureWriter

_REST = "https://api.binance.com/api/v3"


@contextmanager
def record_emulated(frames: int) -> Iterator[tuple[Path, list[str]]]:
    """A file with about so many frames, and the instruments in it; it lives as long as the block."""
    venue = VirtualVenue()
    wire = venue.connect()
    with temporary_folder(parent=None) as folder:
        path = folder / "emulated.jsonl.gz"
        with CaptureWriter(path) as writer:
            _answer(writer, venue, "exchangeInfo")
            writer.write(CaptureEvent(venue.clock.time_ns, 0, "open", url="wss://stream.binance.com/stream"))
            venue.advance_until(wire, len(venue.stream_names()) * 10)  # each book has had its first delta
            _frames(writer, venue, wire.frames)
            for instrument in venue.instruments:
                _answer(writer, venue, "depth", symbol=instrument, limit="1000")
            wire.frames.clear()
            venue.advance_until(wire, frames)
            _frames(writer, venue, wire.frames)
        yield path, venue.instruments


def _frames(writer: CaptureWriter, venue: VirtualVenue, frames: list[tuple[str, bytes]]) -> None:
    for _, frame in frames:
        writer.write_frame(venue.clock.time_ns, 0, "recv", frame)


def _answer(writer: CaptureWriter, venue: VirtualVenue, call: str, **query: str) -> None:
    url = f"{_REST}/{call}" + ("?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else "")
    body = venue.rest(f"/api/v3/{call}", **query).decode()
    writer.write(CaptureEvent(venue.clock.time_ns, -1, "http", url=url, status=200, text=body))
