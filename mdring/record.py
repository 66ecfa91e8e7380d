"""The record: 128 bytes, two cache lines, the one truth of the layout.

Every process uses this dtype; native code learns field offsets from it and spells none of its own.
What almost every reader needs lies in the first cache line (bytes 0..63), the rest in the second.
Each :class:`Kind` has a *view*: a dtype of the same 128 bytes whose fields are named and typed for it::

    trades = batch[batch["kind"] == Kind.TRADE].view(TRADE)

Prices and sizes are scaled integers: ``value = price * 10 ** price_exponent``, with the exponents of
the instrument's row in the instrument table. What venues calculate (rates, mark and index prices, open
interest, prices of liquidations) has as many digits as the venue pleases, so no exponent that is fixed
beforehand can hold it exactly: such a field brings its own, ``value = rate * 10 ** rate_exponent`` with
the two fields of the same record. Times are nanoseconds since the Unix epoch, i8, and 0 where there is
none. All numbers are little-endian. No byte is unnamed.

The fields that all records share::

    seq            <u8   0
    ts_event       <i8   8
    ts_recv        <i8  16
    instrument_id  <u4  24
    kind           |u1  28
    flags          |u1  29
    side           |u1  30
    venue_id       |u1  31
    price          <i8  32
    size           <i8  40
    channel_seq    <u8  48
    venue_seq      <u8  56
    ts_seq         <i8  64
    payload        7 u8 72   by kind; the views name its parts

This module imports nothing of mdring.
"""

from __future__ import annotations

import hashlib
from enum import IntEnum, IntFlag
from typing import Any, Final
from uuid import UUID

import numpy as np

LAYOUT_VERSION: Final = 1
"""Rises with every change of a segment's or record's layout; independent of the package's version."""

RECORD_SIZE: Final = 128
UNDEFINED_PRICE: Final = -(2**63)
"""Price of a side that does not exist (an empty side of a BBO); its size is 0. Also any value with an exponent
of its own that the venue did not send."""


class Kind(IntEnum):
    """What a record says."""

    TRADE = 1
    BBO = 2
    LEVEL = 3
    CLEAR = 4
    STATUS = 5
    FUNDING = 6
    MARK = 7
    OPEN_INTEREST = 8
    LIQUIDATION = 9


class Side(IntEnum):
    """The side on which a price level rests."""

    NONE = 0
    BID = 1
    ASK = 2


class Aggressor(IntEnum):
    """Who crossed the spread in a trade; never the maker's side."""

    UNKNOWN = 0
    BUY = 1
    SELL = 2


class Flags(IntFlag):
    """What a careful user must know about a record."""

    NONE = 0
    LAST = 1  # the last record of its event group
    SNAPSHOT = 2  # part of an image of the state, not a change of it
    RECOVERED = 4  # fetched after the fact: history on subscribe, back-fill of a gap
    BAD_TS_EVENT = 8  # the venue's time is absent or not to be believed
    AGGREGATED = 16  # a trade that merges several fills of one taker order


class DataType(IntEnum):
    """What is subscribed to, and the unit in which ``channel_seq`` counts."""

    STATUS = 0
    TRADE = 1
    BBO = 2
    BOOK = 3
    FUNDING = 4
    MARK = 5
    OPEN_INTEREST = 6
    LIQUIDATION = 7


DATA_TYPE_OF_KIND: Final[dict[Kind, DataType]] = {
    Kind.TRADE: DataType.TRADE,
    Kind.BBO: DataType.BBO,
    Kind.LEVEL: DataType.BOOK,
    Kind.CLEAR: DataType.BOOK,
    Kind.STATUS: DataType.STATUS,
    Kind.FUNDING: DataType.FUNDING,
    Kind.MARK: DataType.MARK,
    Kind.OPEN_INTEREST: DataType.OPEN_INTEREST,
    Kind.LIQUIDATION: DataType.LIQUIDATION,
}


class State(IntEnum):
    """State that a STATUS record reports: of a venue's connection, a book, or an instrument."""

    NONE = 0
    RECONNECTING = 1
    CONNECTED = 2
    DISCONNECTED = 3
    CIRCUIT_OPEN = 4
    GAP = 5  # the venue's numbers show that messages are missing
    RESYNCING = 6  # the book is invalid until the end of the next snapshot
    SYNCED = 7  # the book is valid again
    REJECTED = 8  # the venue refused a subscription, or sent what cannot be a record
    DROPPED = 9  # the venue ring was full; ``count`` records were refused
    TRADING = 10
    HALTED = 11


class Reason(IntEnum):
    """Why a STATUS or CLEAR record was written."""

    NONE = 0
    STARTED = 1
    WORKER_RESTART = 2
    SHUTDOWN = 3
    CONNECT_FAILED = 4
    CONNECT_TIMEOUT = 5
    HANDSHAKE_FAILED = 6
    SUBSCRIBE_TIMEOUT = 7
    SUBSCRIBE_REJECTED = 8
    NO_DATA = 9
    STALE = 10
    CLOSED_BY_VENUE = 11
    PLANNED_RECONNECT = 12
    SEQUENCE_GAP = 13
    CHECKSUM = 14
    BAD_MESSAGE = 15
    VALUE_OUT_OF_RANGE = 16
    RING_FULL = 17
    SNAPSHOT_FAILED = 18
    BREAKER_OPEN = 19
    ATTEMPTS_EXHAUSTED = 20
    UNKNOWN_INSTRUMENT = 21
    SNAPSHOT = 22  # a snapshot follows
    CROSSED = 23
    BUFFER_FULL = 24


class TradeIdFormat(IntEnum):
    """How the 16 bytes of a trade id are to be read."""

    NONE = 0
    INTEGER = 1
    UUID = 2
    TEXT = 3  # ASCII, padded with NUL


_COMMON: Final[list[tuple[str, Any, int]]] = [
    ("seq", "<u8", 0),
    ("ts_event", "<i8", 8),
    ("ts_recv", "<i8", 16),
    ("instrument_id", "<u4", 24),
    ("kind", "u1", 28),
    ("flags", "u1", 29),
    ("side", "u1", 30),
    ("venue_id", "u1", 31),
    ("price", "<i8", 32),
    ("size", "<i8", 40),
    ("channel_seq", "<u8", 48),
    ("venue_seq", "<u8", 56),
    ("ts_seq", "<i8", 64),
]


def _layout(tail: list[tuple[str, Any, int]], **renamed: str) -> np.dtype[np.void]:
    fields = [(renamed.get(name, name), fmt, offset) for name, fmt, offset in _COMMON] + tail
    return np.dtype(
        {
            "names": [name for name, _, _ in fields],
            "formats": [fmt for _, fmt, _ in fields],
            "offsets": [offset for _, _, offset in fields],
            "itemsize": RECORD_SIZE,
        }
    )


RECORD: Final = _layout([("payload", ("<u8", (7,)), 72)])
"""Any record. ``payload`` is the part of the second cache line that depends on the kind."""

TRADE: Final = _layout(
    [
        ("trade_id", "<u8", 72),  # integer id, or the low half of a UUID
        ("trade_id_high", "<u8", 80),  # high half of a UUID, else 0
        ("trade_count", "<u4", 88),  # fills merged into this record; 0 if the venue does not say
        ("trade_id_format", "u1", 92),  # TradeIdFormat
        ("_pad0", "V3", 93),
        ("_pad1", "V32", 96),
    ],
    side="aggressor",
)

BBO: Final = _layout(
    [
        ("ask_price", "<i8", 72),
        ("ask_size", "<i8", 80),
        ("_pad0", "V40", 88),
    ],
    price="bid_price",
    size="bid_size",
)

LEVEL: Final = _layout([("order_count", "<u4", 72), ("_pad0", "V4", 76), ("_pad1", "V48", 80)])
"""One price level: absolute ``size`` at ``price``; size 0 deletes it. ``order_count`` 0 if unknown."""

CLEAR: Final = _layout([("reason", "u1", 72), ("_pad0", "V7", 73), ("_pad1", "V48", 80)])
"""The book of the instrument is empty and invalid from here to the end of the next snapshot."""

STATUS: Final = _layout(
    [
        ("state", "u1", 72),  # State
        ("reason", "u1", 73),  # Reason
        ("data_type", "u1", 74),  # DataType it concerns; STATUS if all
        ("_pad0", "V1", 75),
        ("count", "<u4", 76),  # records dropped, or number of the attempt
        ("expected", "<u8", 80),  # venue_seq or checksum that was due
        ("found", "<u8", 88),  # what came in its place
        ("detail", "S32", 96),  # UTF-8, cut at 32 bytes, NUL-padded
    ]
)
"""A change of state. ``instrument_id`` 0 means the whole venue."""

FUNDING: Final = _layout(
    [
        ("next_funding_ts", "<i8", 72),  # when ``rate`` is paid, ns; 0 if the venue does not say
        ("interval_ns", "<i8", 80),  # the period that ``rate`` is for; 0 if the venue does not say
        ("rate_exponent", "i1", 88),
        ("predicted_rate_exponent", "i1", 89),
        ("_pad0", "V6", 90),
        ("_pad1", "V32", 96),
    ],
    price="rate",
    size="predicted_rate",
)
"""The funding rate of a perpetual, as a fraction: 0.0001 is one basis point, paid by longs to shorts if positive.
``predicted_rate`` is that of the period after (UNDEFINED_PRICE if the venue has none)."""

MARK: Final = _layout(
    [
        ("mark_price_exponent", "i1", 72),
        ("index_price_exponent", "i1", 73),
        ("_pad0", "V6", 74),
        ("_pad1", "V48", 80),
    ],
    price="mark_price",
    size="index_price",
)
"""Mark and index price. UNDEFINED_PRICE for the one that the venue's message did not bring."""

OPEN_INTEREST: Final = _layout(
    [
        ("open_interest_exponent", "i1", 72),
        ("value_exponent", "i1", 73),
        ("_pad0", "V6", 74),
        ("_pad1", "V48", 80),
    ],
    price="value",
    size="open_interest",
)
"""``open_interest`` in the unit of the instrument's sizes, one side counted; ``value`` what it is worth in the quote
asset, UNDEFINED_PRICE if the venue does not say."""

LIQUIDATION: Final = _layout(
    [
        ("average_price", "<i8", 72),  # of its fills; UNDEFINED_PRICE if the venue does not say
        ("order_price_exponent", "i1", 80),
        ("average_price_exponent", "i1", 81),
        ("_pad0", "V6", 82),
        ("_pad1", "V40", 88),
    ],
    side="aggressor",
    price="order_price",
)
"""The order that closes a position by force. ``aggressor`` SELL: a long was liquidated. ``order_price`` is the
bankruptcy price where the venue tells that; ``size`` has the instrument's exponent, as in a trade."""

VIEW_OF_KIND: Final[dict[Kind, np.dtype[np.void]]] = {
    Kind.TRADE: TRADE,
    Kind.BBO: BBO,
    Kind.LEVEL: LEVEL,
    Kind.CLEAR: CLEAR,
    Kind.STATUS: STATUS,
    Kind.FUNDING: FUNDING,
    Kind.MARK: MARK,
    Kind.OPEN_INTEREST: OPEN_INTEREST,
    Kind.LIQUIDATION: LIQUIDATION,
}


def offset_of(field: str, dtype: np.dtype[np.void] = RECORD) -> int:
    """Byte offset of ``field`` in ``dtype``; the way native code learns the layout."""
    fields = dtype.fields
    assert fields is not None
    return int(fields[field][1])


def fields_text(name: str, dtype: np.dtype[np.void]) -> str:
    """The fields of a dtype, one a line: name, format, offset; what a layout's fingerprint is made of."""
    assert dtype.fields is not None and dtype.names is not None
    lines = []
    for field in dtype.names:
        kind, offset = dtype.fields[field][:2]
        lines.append(f"{name}.{field} {kind.str if kind.subdtype is None else kind} @{offset}")
    return "\n".join(lines)


def fingerprint_of(text: str) -> int:
    """64 bits of the hash of a layout's text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def layout_text() -> str:
    """The layout of RECORD and of every view."""
    views = ((kind.name, view) for kind, view in VIEW_OF_KIND.items())
    return "\n".join(fields_text(name, dtype) for name, dtype in [("RECORD", RECORD), *views])


FINGERPRINT: Final = fingerprint_of(layout_text())
"""64 bits of the layout's hash, stored in every segment and compared by attach."""


TRADE_ID_BYTES: Final = 16


def trade_id(trade: np.void) -> int | UUID | str | None:
    """The id of one TRADE row as the venue means it."""
    match TradeIdFormat(int(trade["trade_id_format"])):
        case TradeIdFormat.INTEGER:
            return int(trade["trade_id_high"]) << 64 | int(trade["trade_id"])
        case TradeIdFormat.UUID:
            return UUID(int=int(trade["trade_id_high"]) << 64 | int(trade["trade_id"]))
        case TradeIdFormat.TEXT:
            number = int(trade["trade_id_high"]) << 64 | int(trade["trade_id"])
            return number.to_bytes(TRADE_ID_BYTES, "little").rstrip(b"\0").decode("ascii", "replace")
        case TradeIdFormat.NONE:
            return None
