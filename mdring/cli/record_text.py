"""A record as words: a JSON object or a coloured line. Decimals are exact, ids keep all their digits.

Used by ``mdring tail``, one record at a time: it is for people and scripts that watch. A strategy reads the
arrays that ``mdring.attach`` delivers::

    text = RecordText(consumer.instruments, consumer.run.venues)
    for record in batch:
        print(text.as_line(record, coloured=False))
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import IntEnum
from typing import Any, Final

import numpy as np
from rich.color import ColorSystem
from rich.style import Style

from mdring.instrument import Instrument, InstrumentTable
from mdring.log import printable
from mdring.record import (
    UNDEFINED_PRICE,
    VIEW_OF_KIND,
    Aggressor,
    DataType,
    Flags,
    Kind,
    Reason,
    Side,
    State,
    trade_id,
)

_DIM: Final = Style(dim=True)
_NAME: Final = Style(color="blue")
_STYLES: Final = {
    "trade": Style(bold=True),
    "bbo": Style(color="cyan"),
    "clear": Style(color="yellow"),
    "liquidation": Style(color="yellow", bold=True),
    "status": Style(color="magenta"),
    "buy": Style(color="green"),
    "bid": Style(color="green"),
    "sell": Style(color="red"),
    "ask": Style(color="red"),
}
_COMMON_KEYS: Final = frozenset(
    ("seq", "ts_event", "ts_recv", "ts_seq", "venue", "instrument", "canonical_symbol", "instrument_id", "kind")
)


class RecordText:
    """Knows the names behind a record's ids. ``venues`` maps each venue to its venue_id."""

    def __init__(self, instruments: InstrumentTable, venues: Mapping[str, int]) -> None:
        self._instruments = instruments
        self._venues = {venue_id: venue for venue, venue_id in venues.items()}

    def as_json(self, record: np.void) -> dict[str, Any]:
        """One row of RECORD as JSON values: decimals and trade ids as text, times in ns."""
        instrument_id = int(record["instrument_id"])
        instrument = self._instruments.by_id(instrument_id) if instrument_id else None
        kind = int(record["kind"])
        venue_id = int(record["venue_id"])
        return {
            "seq": int(record["seq"]),
            "ts_event": int(record["ts_event"]),
            "ts_recv": int(record["ts_recv"]),
            "ts_seq": int(record["ts_seq"]),
            "venue": self._venues.get(venue_id, str(venue_id)),
            "instrument": instrument.instrument if instrument else None,
            "canonical_symbol": instrument.canonical_symbol if instrument else None,
            "instrument_id": instrument_id,
            "kind": _name(Kind, kind),
            "flags": [flag.name.lower() for flag in Flags(int(record["flags"])) if flag.name],
            "channel_seq": int(record["channel_seq"]),
            "venue_seq": int(record["venue_seq"]),
            **_details(kind, record, instrument),
        }

    def as_line(self, record: np.void, *, coloured: bool) -> str:
        """The same as one line for people: time of receipt (UTC), seq, instrument, kind, what it says.

        What is zero, empty or unknown is left out.
        """
        words = self.as_json(record)
        kind_style = _STYLES.get(words["kind"])
        fragments = [
            (f"{_time_of_day(words['ts_recv'])} {words['seq']:>9} ", _DIM),
            (printable(f"{words['venue']}:{words['instrument'] or '*':<12} "), _NAME),
            (f"{words['kind']:<6}", kind_style),
        ]
        for key, value in words.items():
            if key not in _COMMON_KEYS and value not in (0, "", "none", None, []):
                text = ",".join(value) if isinstance(value, list) else printable(str(value))
                fragments += [(f" {key}=", _DIM), (text, _STYLES.get(text, kind_style))]
        if not coloured:
            return "".join(text for text, _ in fragments)
        return "".join(
            # The sixteen standard colours are all that is used; every terminal with colours has them.
            text if style is None else style.render(text, color_system=ColorSystem.STANDARD)
            for text, style in fragments
        )


def _details(kind: int, record: np.void, instrument: Instrument | None) -> dict[str, Any]:
    """What only records of this kind say."""
    if kind not in VIEW_OF_KIND:
        return {}
    row = record.reshape(1).view(VIEW_OF_KIND[Kind(kind)])[0]
    match kind:
        case Kind.TRADE:
            identity = trade_id(row)
            return {
                "aggressor": _name(Aggressor, row["aggressor"]),
                "price": _price(row["price"], instrument),
                "size": _size(row["size"], instrument),
                "trade_id": None if identity is None else str(identity),
                "trade_count": int(row["trade_count"]),
            }
        case Kind.BBO:
            return {
                "bid_price": _price(row["bid_price"], instrument),
                "bid_size": _size(row["bid_size"], instrument),
                "ask_price": _price(row["ask_price"], instrument),
                "ask_size": _size(row["ask_size"], instrument),
            }
        case Kind.LEVEL:
            return {
                "side": _name(Side, row["side"]),
                "price": _price(row["price"], instrument),
                "size": _size(row["size"], instrument),
                "order_count": int(row["order_count"]),
            }
        case Kind.CLEAR:
            return {"reason": _name(Reason, row["reason"])}
        case Kind.FUNDING:
            return {
                "rate": _own(row, "rate"),
                "next_funding_ts": int(row["next_funding_ts"]),
                "predicted_rate": _own(row, "predicted_rate"),
                "interval_ns": int(row["interval_ns"]),
            }
        case Kind.MARK:
            return {"mark_price": _own(row, "mark_price"), "index_price": _own(row, "index_price")}
        case Kind.OPEN_INTEREST:
            return {"open_interest": _own(row, "open_interest"), "value": _own(row, "value")}
        case Kind.LIQUIDATION:
            return {
                "aggressor": _name(Aggressor, row["aggressor"]),
                "order_price": _own(row, "order_price"),
                "size": _size(row["size"], instrument),
                "average_price": _own(row, "average_price"),
            }
    return {
        "state": _name(State, row["state"]),
        "reason": _name(Reason, row["reason"]),
        "data_type": _name(DataType, row["data_type"]),
        "count": int(row["count"]),
        "expected": int(row["expected"]),
        "found": int(row["found"]),
        "detail": bytes(row["detail"]).decode(errors="replace"),
    }


def _name(enum: type[IntEnum], value: int) -> str:
    """Name of an enum's value in lower case; the number if this version does not know it."""
    number = int(value)
    return enum(number).name.lower() if number in enum._value2member_map_ else str(number)


def _price(scaled: int, instrument: Instrument | None) -> str | None:
    number = int(scaled)
    if number == UNDEFINED_PRICE:
        return None
    return _decimal(number, instrument.price_exponent if instrument else 0)


def _size(scaled: int, instrument: Instrument | None) -> str:
    return _decimal(int(scaled), instrument.size_exponent if instrument else 0)


def _own(row: np.void, field: str) -> str | None:
    """A value that brings its own exponent."""
    number = int(row[field])
    return None if number == UNDEFINED_PRICE else _decimal(number, int(row[f"{field}_exponent"]))


def _decimal(number: int, exponent: int) -> str:
    return format(Decimal(number).scaleb(exponent), "f")


def _time_of_day(nanoseconds: int) -> str:
    """``HH:MM:SS.nnnnnnnnn`` in UTC; integers only, so that no digit is lost."""
    seconds, fraction = divmod(nanoseconds % 86_400_000_000_000, 1_000_000_000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{fraction:09}"
