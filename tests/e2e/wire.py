"""What an emulated venue put on the wire, read from its truth log; the expected value of every record.

Binance's formats, for that is the one venue that there is::

    for sent in read_truth_log(path):
        sent.connection, sent.instrument, sent.data_type, sent.last, sent.rows
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from mdring.emulator.faults import FaultKind
from mdring.record import Aggressor, DataType, Side

_MS: Final = 1_000_000


class Row(Struct, frozen=True):
    """One price and size as the venue's decimal text means them, and what stands beside them."""

    what: int  # Side, or Aggressor of a trade
    price: Decimal
    size: Decimal


class Sent(Struct, frozen=True):
    """One message of market data that befell a connection.

    ``intact``: it went out as it was meant. ``readable``: what went out is a message of the venue's to whoever gets it,
    this one, if in a frame of another type or with another content than was meant.
    """

    connection: int
    instrument: str
    data_type: DataType
    first: int  # the first and the last id that it covers
    last: int
    rows: tuple[Row, ...]
    ts_event: int  # ns; 0: it has none
    intact: bool
    readable: bool


class _Line(Struct):
    """A line of the truth log."""

    conn: int
    ev: str
    stream: str = ""
    fault: str = ""
    message: msgspec.Raw = msgspec.Raw()
    text: str = ""


_LINES: Final = msgspec.json.Decoder(_Line)


def read_truth_log(path: Path, offset: int = 0) -> list[Sent]:
    """All messages of trades, quotes and book changes from a byte of the log on, in their order."""
    with path.open("rb") as file:
        file.seek(offset)
        lines = [_LINES.decode(line) for line in file]
    return [_sent(line) for line in lines if line.stream]


def _sent(line: _Line) -> Sent:
    text = line.text.encode() if line.text else bytes(line.message)
    intact = line.ev == "sent" and not line.fault
    readable = line.ev == "sent" and line.fault in ("", FaultKind.BINARY, FaultKind.ALTERED)
    try:
        message = msgspec.json.decode(text)
        data: dict[str, Any] = message.get("data", message)
        return _of_data(line, data, intact, readable)
    except (msgspec.DecodeError, ArithmeticError, TypeError, KeyError):
        assert not intact, f"the emulator sent what this test cannot read: {text[:200]!r}"
        symbol = line.stream.partition("@")[0].upper()
        return Sent(line.conn, symbol, _data_type(line.stream), 0, 0, (), 0, intact, readable)


def _data_type(stream: str) -> DataType:
    channel = stream.split("@")[1]
    return {"trade": DataType.TRADE, "bookTicker": DataType.BBO, "depth": DataType.BOOK}[channel]


def _of_data(line: _Line, data: dict[str, Any], intact: bool, readable: bool) -> Sent:
    data_type = _data_type(line.stream)
    match data_type:
        case DataType.TRADE:
            first = last = data["t"]
            rows = [Row(Aggressor.SELL if data["m"] else Aggressor.BUY, Decimal(data["p"]), Decimal(data["q"]))]
        case DataType.BBO:
            first = last = data["u"]
            rows = [
                Row(Side.BID, Decimal(data["b"]), Decimal(data["B"])),
                Row(Side.ASK, Decimal(data["a"]), Decimal(data["A"])),
            ]
        case _:
            first, last = data["U"], data["u"]
            rows = [
                Row(side, Decimal(price), Decimal(size))
                for side, levels in ((Side.BID, data["b"]), (Side.ASK, data["a"]))
                for price, size in levels
            ]
    ts_event = data.get("T", data.get("E", 0)) * _MS
    return Sent(line.conn, data["s"], data_type, first, last, tuple(rows), ts_event, intact, readable)
