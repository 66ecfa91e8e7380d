"""Logging of every process: readable on a terminal, JSON lines everywhere else.

The supervisor, each worker, the sequencer and the ``mdring`` command call ``configure`` once at start; all
else uses the standard library's loggers. What belongs to one line goes into ``extra``, so that it can be
searched for::

    configure("worker-binance", "info")
    logger = logging.getLogger(__name__)
    logger.warning("gap", extra={"instrument": "BTCUSDT", "expected": 7, "found": 9})

One JSON line::

    {"ts":"2026-11-22T20:52:01.250731Z","level":"warning","process":"worker-binance","pid":4711,
     "logger":"mdring.feed.worker","message":"gap","instrument":"BTCUSDT","expected":7,"found":9}
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TextIO

import orjson

# What every LogRecord has; whatever else one has came through ``extra``.
_STANDARD_ATTRIBUTES: Final = frozenset(
    [*logging.LogRecord("", 0, "", 0, "", None, None).__dict__, "message", "asctime", "taskName"]
)


def configure(process_name: str, level: str, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to ``stream`` (standard error by default).

    ``level`` is one of ``debug``, ``info``, ``warning``, ``error``. May be called again; the last call
    counts. An exception that nobody catches, and Python's warnings, become log lines too.
    """
    stream = sys.stderr if stream is None else stream
    handler: logging.Handler
    if stream.isatty():
        handler = _terminal_handler(stream)
        handler.setFormatter(TerminalLines(process_name))
    else:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(JsonLines(process_name))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught


class JsonLines(logging.Formatter):
    """One JSON object a line: the fixed keys, then those of ``extra``, which never replace a fixed one."""

    def __init__(self, process_name: str) -> None:
        super().__init__()
        self._process_name = process_name

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "level": record.levelname.lower(),
            "process": self._process_name,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line = {**line, **{name: value for name, value in _extra(record).items() if name not in line}}
        try:
            return orjson.dumps(line, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
        except orjson.JSONEncodeError:  # beyond 64 bits, or a lone surrogate: the standard library takes both
            return json.dumps(line, default=repr)


class TerminalLines(logging.Formatter):
    """``process: message  key=value …``; time and level are put before it by the handler."""

    def __init__(self, process_name: str) -> None:
        super().__init__()
        self._process_name = process_name

    def format(self, record: logging.LogRecord) -> str:
        words = [f"{self._process_name}: {super().format(record)}"]
        words += [f"{name}={value}" for name, value in _extra(record).items()]
        return printable("  ".join(words))


def printable(text: str) -> str:
    """``text`` for a terminal: what a venue sends must not move the cursor or hide a line."""
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)


def _terminal_handler(stream: TextIO) -> logging.Handler:
    # Imported here: a process whose log is no terminal, as most workers, does without.
    from rich.console import Console
    from rich.logging import RichHandler

    return RichHandler(
        console=Console(file=stream),
        show_path=False,
        omit_repeated_times=False,
        log_time_format="%H:%M:%S.%f",
    )


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD_ATTRIBUTES}


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        logging.getLogger("mdring").critical("uncaught exception", exc_info=(kind, error, traceback))
