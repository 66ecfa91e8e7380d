"""Records as objects, for code that takes one at a time: what a strategy's callbacks get.

Integers are exact and scaled, as in the record; ``*_decimal`` is exact, too; ``*_float`` is the nearest double. ::

    trade.price, trade.price_decimal, trade.price_float  # 7012345, Decimal('70123.45'), 70123.45
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from mdring.callbacks import Columns
from mdring.instrument import Instrument, InstrumentTable
from mdring.record import BBO, STATUS, TRADE, UNDEFINED_PRICE, Aggressor, DataType, Flags, Reason, State


def to_float(scaled: int, exponent: int) -> float:
    """The double nearest to ``scaled * 10 ** exponent``."""
    # Integers divide with correct rounding; multiplying by a power of ten as a double would round twice.
    return scaled / 10**-exponent if exponent < 0 else float(scaled * 10**exponent)


def _quote(size: Decimal, price: Decimal | None) -> str:
    return "none" if price is None else f"{size:f} at {price:f}"


class Event(Struct, frozen=True, gc=False):
    """What all records have; the fields are those of RECORD."""

    seq: int
    ts_event: int
    ts_recv: int
    ts_seq: int
    instrument_id: int
    venue_id: int
    flags: int
    channel_seq: int
    venue_seq: int

    @property
    def is_snapshot(self) -> bool:
        """Whether it is part of an image, not a change."""
        return bool(self.flags & Flags.SNAPSHOT)


class Trade(Event, frozen=True, gc=False):
    """A trade."""

    aggressor: int
    price: int
    size: int
    trade_id: int
    trade_id_high: int
    trade_id_format: int
    trade_count: int
    instrument: Instrument

    @property
    def price_decimal(self) -> Decimal:
        """The price, exactly."""
        return Decimal(self.price).scaleb(self.instrument.price_exponent)

    @property
    def price_float(self) -> float:
        """The double nearest to the price."""
        return to_float(self.price, self.instrument.price_exponent)

    @property
    def size_decimal(self) -> Decimal:
        """The size, exactly."""
        return self.instrument.size(self.size)

    @property
    def size_float(self) -> float:
        """The double nearest to the size."""
        return to_float(self.size, self.instrument.size_exponent)

    def __str__(self) -> str:
        aggressor = Aggressor(self.aggressor).name
        return f"{self.seq} {self.instrument.name} TRADE {aggressor} {self.size_decimal:f} at {self.price_decimal:f}"

    @property
    def is_buy(self) -> bool:
        """Whether the buyer crossed the spread."""
        return self.aggressor == Aggressor.BUY


class Bbo(Event, frozen=True, gc=False):
    """A best bid and ask. An empty side has UNDEFINED_PRICE and size 0; its Decimal and float prices are None."""

    bid_price: int
    bid_size: int
    ask_price: int
    ask_size: int
    instrument: Instrument

    def __str__(self) -> str:
        bid, ask = (
            _quote(self.bid_size_decimal, self.bid_price_decimal),
            _quote(self.ask_size_decimal, self.ask_price_decimal),
        )
        return f"{self.seq} {self.instrument.name} BBO {bid} / {ask}"

    @property
    def bid_price_decimal(self) -> Decimal | None:
        """The best bid, exactly."""
        return self.instrument.price(self.bid_price)

    @property
    def ask_price_decimal(self) -> Decimal | None:
        """The best ask, exactly."""
        return self.instrument.price(self.ask_price)

    @property
    def bid_price_float(self) -> float | None:
        """The double nearest to the best bid."""
        undefined = self.bid_price == UNDEFINED_PRICE
        return None if undefined else to_float(self.bid_price, self.instrument.price_exponent)

    @property
    def ask_price_float(self) -> float | None:
        """The double nearest to the best ask."""
        undefined = self.ask_price == UNDEFINED_PRICE
        return None if undefined else to_float(self.ask_price, self.instrument.price_exponent)

    @property
    def bid_size_decimal(self) -> Decimal:
        """The size at the best bid, exactly."""
        return self.instrument.size(self.bid_size)

    @property
    def ask_size_decimal(self) -> Decimal:
        """The size at the best ask, exactly."""
        return self.instrument.size(self.ask_size)


class Status(Event, frozen=True, gc=False):
    """A change of state of a venue (``instrument`` None) or of an instrument."""

    state_code: int
    reason_code: int
    data_type_code: int
    count: int
    expected: int
    found: int
    detail_bytes: bytes
    instrument: Instrument | None

    def __str__(self) -> str:
        whose = f"venue {self.venue_id}" if self.instrument is None else self.instrument.name
        more = [f"reason={self.reason.name}"] if self.reason else []
        more += [f"data_type={self.data_type.name}"] if self.data_type_code else []
        more += [
            f"{name}={value}" for name in ("count", "expected", "found", "detail") if (value := getattr(self, name))
        ]
        return " ".join((f"{self.seq} {whose} STATUS {self.state.name}", *more))

    @property
    def state(self) -> State:
        """The state that begins."""
        return State(self.state_code)

    @property
    def reason(self) -> Reason:
        """Why."""
        return Reason(self.reason_code)

    @property
    def data_type(self) -> DataType:
        """What it concerns; STATUS if all."""
        return DataType(self.data_type_code)

    @property
    def detail(self) -> str:
        """What else there is to say."""
        return self.detail_bytes.decode(errors="replace")


_COMMON: Final = (
    "seq", "ts_event", "ts_recv", "ts_seq", "instrument_id", "venue_id", "flags", "channel_seq", "venue_seq"
)  # fmt: skip
TRADE_COLUMNS: Final = Columns(
    TRADE,
    (*_COMMON, "aggressor", "price", "size", "trade_id", "trade_id_high", "trade_id_format", "trade_count"),
)
BBO_COLUMNS: Final = Columns(BBO, (*_COMMON, "bid_price", "bid_size", "ask_price", "ask_size"))
STATUS_COLUMNS: Final = Columns(
    STATUS, (*_COMMON, "state", "reason", "data_type", "count", "expected", "found", "detail")
)  # fmt: skip


def statuses_of(statuses: npt.NDArray[np.void], instruments: InstrumentTable) -> list[Status]:
    """STATUS records as objects."""
    return STATUS_COLUMNS.events(statuses, Status, instruments.by_id)
