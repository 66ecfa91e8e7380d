"""How venues write things: numbers, times, levels, JSON. Made once, for the faces that write them alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mdring.emulator.book import Level

SECOND: Final = 1_000_000_000


def compact(value: Any) -> str:
    """JSON without spaces, in ASCII: what a client sent may be no text that UTF-8 can hold."""
    return json.dumps(value, separators=(",", ":"))


def rows(row: Callable[[int, int], Sequence[str]], levels: Sequence[Level]) -> str:
    """``[["0.35130000","6195.00000000"],…]``; ``row`` makes the texts of one level."""
    return "[" + ",".join(['["' + '","'.join(row(*level)) + '"]' for level in levels]) + "]"


def plain(padded: Callable[[int], str]) -> Callable[[int], str]:
    """The same numbers without superfluous zeros."""

    def format_value(value: int) -> str:
        text = padded(value)
        return text.rstrip("0").rstrip(".") if "." in text else text

    return format_value


def rfc3339(ns: int) -> str:
    """``2026-09-01T12:00:00.123456Z``"""
    seconds, rest_ns = divmod(ns, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


def delivery(expiry: str) -> datetime:
    """When what expires on a day, YYYYMMDD, is delivered: at 8:00 UTC."""
    return datetime.strptime(expiry, "%Y%m%d").replace(hour=8, tzinfo=UTC)


def delivery_ms(expiry: str) -> int:
    """The same, in ms since the epoch."""
    return int(delivery(expiry).timestamp()) * 1000
