"""What adapters put records on the stage with. How it works stands at the top of ``emit.pyx``."""

from typing import final

from typing_extensions import Buffer

from mdring.feed.stage import Channel, Stage
from mdring.record import Aggressor, DataType, Flags, Reason, Side, State

@final
class Emit(Stage):
    """A stage, and what puts records of each kind on it.

    Price and size arguments are decimal text as the venue sent it. They are scaled exactly; text that is
    malformed or does not fit, a price that is not positive, or a negative size raises ``fixed.DecimalError``
    and stages nothing. All kinds but CLEAR and STATUS get the flag BAD_TS_EVENT if they have no ``ts_event`` (0).
    Rates, mark and index prices, open interest and prices of liquidations bring an exponent of their own.
    """

    def trade(
        self,
        channel: Channel,
        price: str | bytes,
        size: str | bytes,
        aggressor: Aggressor | int,
        trade_id: int,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
        trade_count: int = 1,
        trade_id_high: int = 0,
        trade_id_format: int = 1,
    ) -> None:
        """Stage a TRADE. Its size must be above 0."""
    def bbo(
        self,
        channel: Channel,
        bid_price: str | bytes | None,
        bid_size: str | bytes | None,
        ask_price: str | bytes | None,
        ask_size: str | bytes | None,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> None:
        """Stage a BBO. A side whose price or size is None, or whose size is 0, is empty (UNDEFINED_PRICE, 0)."""
    def levels(
        self,
        channel: Channel,
        side: Side | int,
        levels: Buffer,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
        count_at: int = 0,
    ) -> int:
        """Stage one LEVEL per ``["price", "size", …]`` of a JSON array (a ``msgspec.Raw`` or bytes).

        Numbers may be quoted or bare. ``count_at`` is which element, counted from 0, is the number of orders at
        the level; 0: none is. What else follows the size in a level is skipped. Returns their number.
        """
    def action_levels(
        self,
        channel: Channel,
        side: Side | int,
        levels: Buffer,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> int:
        """``levels`` of the form ``["new" | "change" | "delete", price, size, …]``; "delete" makes the size 0."""
    def sided_levels(
        self, channel: Channel, levels: Buffer, ts_event: int, venue_seq: int = 0, flags: Flags | int = 0
    ) -> int:
        """``levels`` of the form ``["buy" | "sell", price, size, …]``, of both sides in one array; buy is BID."""
    def object_levels(
        self,
        channel: Channel,
        side: Side | int,
        levels: Buffer,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> int:
        """``levels`` of the form ``{"price": …, "qty": …, …}``, the keys in any order."""
    def level(
        self,
        channel: Channel,
        side: Side | int,
        price: str | bytes,
        size: str | bytes,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
        order_count: int = 0,
    ) -> None:
        """Stage one LEVEL; size 0 deletes it."""
    def clear(
        self,
        channel: Channel,
        reason: Reason | int,
        ts_event: int = 0,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> None:
        """Stage a CLEAR: the book is empty and invalid from here on."""
    def status(
        self,
        channel: Channel,
        state: State | int,
        reason: Reason | int,
        data_type: DataType | int = 0,
        count: int = 0,
        expected: int = 0,
        found: int = 0,
        detail: str = "",
        ts_event: int = 0,
    ) -> None:
        """Stage a STATUS. A channel with ``instrument_id`` 0 speaks for the whole venue."""
    def funding(
        self,
        channel: Channel,
        rate: str | bytes,
        next_funding_ts: int,
        ts_event: int,
        predicted_rate: str | bytes | None = None,
        interval_ns: int = 0,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> None:
        """Stage a FUNDING. Rates are fractions, for ``interval_ns``; 0 stands for a time that is not known."""
    def mark_price(
        self,
        channel: Channel,
        mark_price: str | bytes | None,
        index_price: str | bytes | None,
        ts_event: int,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> None:
        """Stage a MARK; None for the price that the message did not bring. (``mark`` is another thing.)"""
    def open_interest(
        self,
        channel: Channel,
        open_interest: str | bytes,
        ts_event: int,
        value: str | bytes | None = None,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> None:
        """Stage an OPEN_INTEREST: in the unit of the instrument's sizes, and its ``value`` in the quote asset."""
    def liquidation(
        self,
        channel: Channel,
        order_price: str | bytes,
        size: str | bytes,
        aggressor: Aggressor | int,
        ts_event: int,
        average_price: str | bytes | None = None,
        venue_seq: int = 0,
        flags: Flags | int = 0,
    ) -> None:
        """Stage a LIQUIDATION. ``aggressor`` is the side of the order that closes the position (SELL: of a long)."""
