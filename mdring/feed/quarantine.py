"""The quarantine: what a venue sent that cannot be a record, kept for whoever wants to know.

Part of the worker. One JSON line each, in the venue's own text (``text``), or base64 where that is no UTF-8
(``b64``); a long payload is cut and keeps its length in ``bytes``::

    {"ts":1763845921250731000,"reason":"BAD_MESSAGE","detail":"not JSON","source":"connection 0",
     "bytes":17,"text":"{]garbage[}"}

Two files take turns, ``NAME.jsonl`` and, older, ``NAME.1.jsonl``, so that together they stay below a bound and
the oldest give way. A disk that refuses a line is reported and costs that line, never the worker.
"""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any, Final

import orjson

from mdring.record import Reason

logger = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES: Final = 2048
"""Of a payload, so much is kept."""


class Quarantine:
    """The quarantine files of one venue."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """``path`` ends in ``.jsonl``; its folder is made when the first line is due."""
        self.path = path
        self.older_path = path.with_suffix(f".1{path.suffix}")
        self._max_file_bytes = max_bytes // 2
        # JSON may take six bytes for one; a line with detail and payload must fit into a file.
        self._keep_bytes = min(MAX_PAYLOAD_BYTES, max_bytes // 32)
        self._complained = False

    def keep(self, ts_ns: int, reason: Reason, detail: str, source: str, payload: bytes | memoryview) -> None:
        """Write one line."""
        line = _line(ts_ns, reason, detail, source, payload, self._keep_bytes)
        try:
            self._make_room(len(line))
            with self.path.open("ab") as file:
                file.write(line)
        except OSError as error:
            if not self._complained:  # once: what is refused may come by the thousand
                logger.error("cannot write the quarantine file %s: %s", self.path, error)
            self._complained = True

    def _make_room(self, line_bytes: int) -> None:
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return
        if size and size + line_bytes > self._max_file_bytes:
            self.path.replace(self.older_path)


def _line(ts_ns: int, reason: Reason, detail: str, source: str, payload: bytes | memoryview, keep_bytes: int) -> bytes:
    kept = bytes(payload[:keep_bytes])
    line: dict[str, Any] = {
        "ts": ts_ns,
        "reason": reason.name,
        "detail": detail[:keep_bytes].encode(errors="replace").decode(),
        "source": source[:keep_bytes],
        "bytes": len(payload),
    }
    try:
        line["text"] = kept.decode()
    except UnicodeDecodeError:
        line["b64"] = base64.b64encode(kept).decode()
    return orjson.dumps(line) + b"\n"
