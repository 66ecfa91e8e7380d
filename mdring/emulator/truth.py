"""Ground truth: the log of every market-data message that an emulator put on the wire.

JSON Lines, append-only, one object per event, in order, per connection::

    {"ts":1700000000000000000,"venue":"binance","conn":1,"ev":"open","path":"/ws"}
    {"ts":…,"venue":"binance","conn":1,"ev":"sent","stream":"btcusdt@trade","message":{…the frame…}}
    {"ts":…,"venue":"binance","conn":1,"ev":"fault","stream":"btcusdt@trade","fault":"drop","message":{…}}
    {"ts":…,"venue":"binance","conn":1,"ev":"sent","stream":…,"fault":"truncate","text":"{\\"e\\":\\"tra"}
    {"ts":…,"venue":"binance","conn":1,"ev":"close"}

``ts`` is the emulator's clock (ns) just after the frame was handed to the kernel. A corrupted frame stands
under ``text`` with what befell it; ``ev`` is "fault" for a message that was not sent. Lines are buffered;
``flush`` writes them out, and the server calls it when the market pauses and ten times a second.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class TruthLog:
    """Writes the log of one emulator process."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=1 << 20)
        self.lines = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def sent(self, ts: int, venue: str, connection: int, stream: str, frame: bytes) -> None:
        """A market-data message went out as it is."""
        self.lines += 1
        self._file.write(
            b'{"ts":%d,"venue":"%b","conn":%d,"ev":"sent","stream":"%b","message":%b}\n'
            % (ts, venue.encode(), connection, stream.encode(), frame)
        )

    def sent_corrupted(self, ts: int, venue: str, connection: int, stream: str, fault: str, frame: bytes) -> None:
        """A market-data message went out as a fault left it."""
        text = frame.decode("utf-8", "replace")
        self.event(ts, venue, connection, "sent", stream=stream, fault=fault, text=text)

    def withheld(self, ts: int, venue: str, connection: int, stream: str, fault: str, frame: bytes) -> None:
        """A market-data message was not sent because of a fault."""
        self.event(ts, venue, connection, "fault", stream=stream, fault=fault, message=json.loads(frame))

    def event(self, ts: int, venue: str, connection: int, event: str, **details: Any) -> None:
        """Anything else that happened to a connection."""
        self.lines += 1
        line = {"ts": ts, "venue": venue, "conn": connection, "ev": event, **details}
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")

    def flush(self) -> None:
        """Write the buffered lines to the file."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close; idempotent."""
        self._file.close()
