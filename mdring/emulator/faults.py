"""Faults on demand: what can go wrong at a venue, when it shall, and what a corrupted frame looks like.

One :class:`FaultInjector` per venue. Tests arm faults in-process or through the control endpoint; soak runs
arm them with a probability, drawn from the injector's own seed. Pure: the connection (``connection.py``) and
the server (``server.py``) ask what is due and carry it out::

    injector.arm(Fault(fault="drop", match="@depth", count=2, after=10))

========================  ==========================================================================
acts on                   faults
========================  ==========================================================================
a market-data message     drop, duplicate, reorder, garbage, truncate, wrong_type, binary, huge_value,
                          checksum, altered
a connection              close, reset, stall: in place of a matching message if ``match``, ``after``
                          or ``probability`` is given, else at once on the open connections
new connections           refuse: nobody listens, or the upgrade gets the HTTP ``status``
a REST call               rest_slow, rest_error, rest_reset, stale_snapshot
the venue                 shutdown_notice: the venue's own announcement of a planned shutdown
========================  ==========================================================================
"""

from __future__ import annotations

import re
from collections import Counter
from enum import StrEnum
from random import Random
from typing import Final

from msgspec import Struct


class FaultKind(StrEnum):
    """The faults, by the name they have on the control endpoint."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    REORDER = "reorder"  # swap with the next of the same stream and connection; never sent if none follows
    GARBAGE = "garbage"  # not JSON
    TRUNCATE = "truncate"  # JSON that ends in the middle
    WRONG_TYPE = "wrong_type"  # a price that is an object
    BINARY = "binary"  # the message in a binary frame
    HUGE_VALUE = "huge_value"  # a price that does not fit in 64 bits
    CHECKSUM = "checksum"  # the message's checksum is that of another book
    ALTERED = "altered"  # the last number has another digit: well formed and wrong, only a checksum shows it
    CLOSE = "close"
    RESET = "reset"
    STALL = "stall"
    REFUSE = "refuse"
    REST_SLOW = "rest_slow"
    REST_ERROR = "rest_error"
    REST_RESET = "rest_reset"
    STALE_SNAPSHOT = "stale_snapshot"
    SHUTDOWN_NOTICE = "shutdown_notice"


CORRUPTIONS: Final = frozenset(
    {
        FaultKind.GARBAGE,
        FaultKind.TRUNCATE,
        FaultKind.WRONG_TYPE,
        FaultKind.HUGE_VALUE,
        FaultKind.CHECKSUM,
        FaultKind.ALTERED,
    }
)
CONNECTION_FAULTS: Final = frozenset({FaultKind.CLOSE, FaultKind.RESET, FaultKind.STALL})
FRAME_FAULTS: Final = CORRUPTIONS | {
    FaultKind.DROP,
    FaultKind.DUPLICATE,
    FaultKind.REORDER,
    FaultKind.BINARY,
}
MESSAGE_FAULTS: Final = FRAME_FAULTS | CONNECTION_FAULTS
"""What can happen when a message of market data is to be sent."""
REST_FAULTS: Final = frozenset(
    {FaultKind.REST_SLOW, FaultKind.REST_ERROR, FaultKind.REST_RESET, FaultKind.STALE_SNAPSHOT}
)

HUGE_VALUE: Final = b"92233720368547758080.00000000"  # 10 * 2**63
DEFAULT_SNAPSHOT_LAG: Final = 1_000_000


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault to arm. As JSON: ``{"fault": "drop", "match": "@depth", "count": 2}``."""

    fault: FaultKind
    count: int = 1  # how often it happens; 0: until cleared
    match: str = ""  # substring of the stream's name or, for REST, of path and query
    connection: int | None = None  # only on this one
    after: int = 0  # skip so many matches first
    probability: float = 1.0  # of a match; drawn from the injector's seed
    duration_ms: int = 0  # stall, refuse: how long; 0: until cleared
    code: int = 1001  # close
    reason: str = ""  # close
    pings: bool = True  # stall: whether pings go on
    status: int = 0  # rest_error (0: 500), refuse (0: nobody listens)
    retry_after_s: int = 0  # rest_error, refuse: header Retry-After; 0: none
    body: str = ""  # rest_error
    delay_ms: int = 1000  # rest_slow
    lag: int = DEFAULT_SNAPSHOT_LAG  # stale_snapshot: changes that the book lies behind

    @property
    def acts_at_once(self) -> bool:
        """Whether it waits for no message: a connection fault without a condition."""
        return self.fault in CONNECTION_FAULTS and not self.match and self.after == 0 and self.probability == 1.0


class _Armed:
    """A fault with its own counters."""

    __slots__ = ("fault", "left", "to_skip")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.count
        self.to_skip = fault.after


class FaultInjector:
    """The armed faults of one venue. ``fired`` counts, by kind, what has happened."""

    def __init__(self, seed: int, venue: str) -> None:
        self.fired: Counter[FaultKind] = Counter()
        self.disturbs_frames = False
        self._random = Random(f"{seed}/faults/{venue}")
        self._armed: list[_Armed] = []

    def arm(self, fault: Fault) -> None:
        """Have it happen at the next match(es)."""
        self._armed.append(_Armed(fault))
        self._look()

    def clear(self) -> None:
        """Forget all that is armed."""
        self._armed.clear()
        self._look()

    def armed(self) -> list[Fault]:
        """What still waits to happen."""
        return [armed.fault for armed in self._armed]

    def due_on_message(self, stream: str, connection: int) -> Fault | None:
        """The fault that befalls this message of market data, if any."""
        return self._due(MESSAGE_FAULTS, stream, connection)

    def due_on_rest(self, target: str) -> list[Fault]:
        """The faults that befall this REST call, at most one of each kind."""
        faults = (self._due(frozenset({kind}), target, None) for kind in sorted(REST_FAULTS))
        return [fault for fault in faults if fault is not None]

    def due_on_upgrade(self) -> Fault | None:
        """The refusal by an HTTP status that befalls this upgrade, if any."""
        return self._due(frozenset({FaultKind.REFUSE}), "", None)

    def _due(self, kinds: frozenset[FaultKind], name: str, connection: int | None) -> Fault | None:
        for armed in self._armed:
            fault = armed.fault
            if fault.fault not in kinds or fault.match not in name:
                continue
            if fault.connection is not None and fault.connection != connection:
                continue
            if armed.to_skip:
                armed.to_skip -= 1
                continue
            if fault.probability < 1.0 and self._random.random() >= fault.probability:
                continue
            self._count_down(armed)
            return fault
        return None

    def _count_down(self, armed: _Armed) -> None:
        self.fired[armed.fault.fault] += 1
        if armed.left:
            armed.left -= 1
            if armed.left == 0:
                self._armed.remove(armed)
                self._look()

    def _look(self) -> None:
        kinds = {armed.fault.fault for armed in self._armed}
        self.disturbs_frames = not kinds.isdisjoint(MESSAGE_FAULTS)


# Neither "jsonrpc":"2.0" nor a timestamp is a price.
_QUOTED_DECIMAL: Final = re.compile(rb'(?<!"jsonrpc":)(?<!stamp":)"\d+(?:\.\d+)?"')
_DECIMAL: Final = re.compile(rb'(?<!"jsonrpc":")\b\d+\.\d+')
_CHECKSUM: Final = re.compile(rb'("checksum":-?\d*)(\d)')
_LAST_DECIMAL: Final = re.compile(rb"(.*\d\.\d*?)(\d)(?![\dZ])", re.DOTALL)  # a time, 12:00:00.5Z, is none


def corrupt(kind: FaultKind, frame: bytes) -> bytes:
    """The frame after one of ``CORRUPTIONS``; the first decimal of a message is its first price.

    A frame without the part that is to be corrupted becomes garbage instead, so the fault never gets lost.
    """
    if kind is FaultKind.TRUNCATE:
        return frame[: len(frame) // 2]
    if kind is FaultKind.WRONG_TYPE and _QUOTED_DECIMAL.search(frame):
        return _QUOTED_DECIMAL.sub(b"{}", frame, count=1)
    if kind is FaultKind.HUGE_VALUE and _DECIMAL.search(frame):
        return _DECIMAL.sub(HUGE_VALUE, frame, count=1)
    if kind is FaultKind.CHECKSUM and _CHECKSUM.search(frame):
        return _CHECKSUM.sub(_other_digit, frame, count=1)
    if kind is FaultKind.ALTERED and _LAST_DECIMAL.match(frame):
        return _LAST_DECIMAL.sub(_other_digit, frame, count=1)
    return frame[:1] + b"]garbage[" + frame[1:]


def _other_digit(found: re.Match[bytes]) -> bytes:
    return found[1] + b"%d" % ((int(found[2]) + 1) % 10)
