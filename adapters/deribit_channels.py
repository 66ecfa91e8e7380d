"""Deribit, the channels without a book to keep in sync: trades with their liquidations, quotes, tickers, the state of
the platform.

Documentation (read November 2026): docs.deribit.com, "Subscriptions". Integrity: ``trade_seq`` counts the trades of an
instrument without holes, so a missing one becomes STATUS(GAP), and one that comes again is dropped.

Numbers are bare JSON numbers, some in scientific notation; their text is taken as it stands, never through a float. A
ticker is sent whole whenever one of its many values has changed, so what it repeats is not told again.

``deribit.py`` makes a handler per channel, which then gets its decoded messages::

    handle = quotes(channel)
    handle(push, ts_recv, emit)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Generic, Literal, TypeVar

from msgspec import Meta, Raw, Struct

from mdring.feed.adapter import NOTHING, AdapterCounts, Request, VenueProtocolError
from mdring.feed.chain import Chain
from mdring.feed.emit import Emit
from mdring.feed.message_route import Handler
from mdring.feed.stage import Channel
from mdring.feed.trade_id import trade_id_of
from mdring.feed.trade_sequence import TradeSequence
from mdring.record import Aggressor, DataType, Reason, State

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload. Times are ms since the epoch. The order of members varies.

M = TypeVar("M")
Count = Annotated[int, Meta(ge=0)]


class Params(Struct, Generic[M], gc=False):
    """{"channel":"platform_state","data":{"price_index":"btc_usdc","locked":true,"reasons":[]}}"""

    data: M
    channel: str = ""


class Push(Struct, Generic[M], gc=False):
    """{"jsonrpc":"2.0","method":"subscription","params":{"channel":"quote.BTC-PERPETUAL","data":{"timestamp":1765541767174,"instrument_name":"BTC-PERPETUAL","best_ask_price":92288.5,"best_bid_price":92288.0,"best_ask_amount":99470.0,"best_bid_amount":133440.0}}}"""

    params: Params[M]


class Trade(Struct, gc=False):
    """{"timestamp":1765531356452,"price":92294.5,"amount":10.0,"direction":"sell","index_price":92276.75,"instrument_name":"BTC-PERPETUAL","trade_seq":271252854,"mark_price":92287.11,"tick_direction":2,"contracts":1.0,"combo_trade_id":"43","trade_id":"403691824"}"""

    timestamp: Count
    price: Raw
    amount: Raw
    direction: Literal["buy", "sell"]  # of the taker
    trade_seq: Count
    trade_id: str
    liquidation: Literal["M", "T", "MT"] | None = None  # whose position was closed by force: maker's, taker's, both


class Quote(Struct, gc=False):
    """{"timestamp":1765541767174,"instrument_name":"BTC-PERPETUAL","best_ask_price":92288.5,"best_bid_price":92288.0,"best_ask_amount":99470.0,"best_bid_amount":133440.0}"""

    timestamp: Count
    best_bid_price: Raw
    best_bid_amount: Raw
    best_ask_price: Raw
    best_ask_amount: Raw


class Ticker(Struct, gc=False):
    """{"timestamp":1765541474086,"state":"open","stats":{"high":93612.0,"low":89277.5,"price_change":2.3275,"volume":11897.27640428,"volume_usd":1092371540.0,"volume_notional":1092371540.0},"index_price":92263.55,"instrument_name":"BTC-PERPETUAL","last_price":92283.5,"settlement_price":92464.66,"min_price":90897.5,"max_price":93666.5,"open_interest":1132329370.0,"mark_price":92281.78,"interest_value":0.0028213400122472977,"best_ask_price":92284.0,"best_bid_price":92283.5,"estimated_delivery_price":92263.55,"best_ask_amount":186520.0,"best_bid_amount":117660.0,"current_funding":0.0,"funding_8h":0.00001742}"""

    timestamp: Count
    best_bid_price: Raw
    best_bid_amount: Raw
    best_ask_price: Raw
    best_ask_amount: Raw
    mark_price: Raw = Raw()
    index_price: Raw = Raw()
    open_interest: Raw = Raw()  # spot has none
    current_funding: Raw = Raw()  # perpetuals have it


class PlatformState(Struct):
    """{"price_index":"btc_usdc","locked":true,"reasons":[]}"""

    price_index: str = ""
    locked: bool = False
    maintenance: bool | None = None


MS: Final = 1_000_000  # ns
FUNDING_INTERVAL_NS: Final = 8 * 3600 * 1_000_000_000
"""What ``current_funding`` is for. It accrues all the time, so there is no next time at which it is paid."""
Values = tuple[bytes | None, ...]

_BUY: Final = int(Aggressor.BUY)
_SELL: Final = int(Aggressor.SELL)
# The forms of what comes most, as the venue writes them (``feed/template.pyx``), but for the order of members, which is
# another one from release to release; the name of the instrument is put in. A trade that closed a position by force is
# none of it, nor is one that tells its legs.
QUOTE_FORM: Final = (
    '{"jsonrpc":"2.0","method":"subscription","params":{"channel":<any>,"data":<members>{"timestamp":<time>,'
    '"instrument_name":"%s","best_ask_price":<ask_price>,"best_bid_price":<bid_price>,"best_ask_amount":<ask_size>,'
    '"best_bid_amount":<bid_size>}}}'
)
TRADES_FORM: Final = (
    '{"jsonrpc":"2.0","method":"subscription","params":{"channel":<any>,"data":<rows>[<members>{"timestamp":<time>,'
    '"price":<price>,"amount":<size>,"direction":"<taker>","instrument_name":"%s","trade_seq":<number>,'
    '"trade_id":"<text_id>","tick_direction":<maybe>,"index_price":<maybe>,"mark_price":<maybe>,"contracts":<maybe>,'
    '"iv":<maybe>,"combo_id":<maybe>,"combo_trade_id":<maybe>,"block_trade_id":<maybe>,"block_rfq_id":<maybe>,'
    '"block_trade_leg_count":<maybe>}]}}'
)
_TAKER: Final = {"buy": _BUY, "sell": _SELL}
_CLOSING: Final[Mapping[tuple[str, str], tuple[int, ...]]] = {
    ("buy", "T"): (_BUY,),
    ("sell", "T"): (_SELL,),
    ("buy", "M"): (_SELL,),
    ("sell", "M"): (_BUY,),
    ("buy", "MT"): (_BUY, _SELL),
    ("sell", "MT"): (_SELL, _BUY),
}
"""(direction, liquidation) to the sides of the orders that close positions by force."""
_NO_VALUE: Final = (b"", b"null")
_NO_QUOTE: Final = (b"", b"null", b"0", b"0.0")


def value(raw: Raw) -> bytes | None:
    """The text of a number; None if there is none."""
    text = bytes(raw)
    return None if text in _NO_VALUE else text


def quoted(raw: Raw) -> bytes | None:
    """The text of a price at which somebody quotes. An empty side is told by null, or by 0."""
    text = bytes(raw)
    return None if text in _NO_QUOTE else text


# ---- decode -----------------------------------------------------------------------------------------------


class Trades:
    """The trades of one instrument, and what was closed by force with them."""

    def __init__(self, channel: Channel, data_types: Sequence[DataType], counts: AdapterCounts) -> None:
        """``data_types``: which of TRADE and LIQUIDATION are wanted."""
        self._channel = channel
        self._tells_trades = DataType.TRADE in data_types
        self._tells_liquidations = DataType.LIQUIDATION in data_types
        gaps_are_of = DataType.TRADE if self._tells_trades else DataType.LIQUIDATION
        self.sequence = TradeSequence(channel, counts, gaps_are_of)

    def on_push(self, push: Push[list[Trade]], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """The trades of one message are one event group; each liquidation among them is another."""
        mark, trades = self.sequence.mark(), push.params.data
        try:
            fresh = [trade for trade in trades if self._on_trade(trade, emit)]
            emit.end()
            if self._tells_liquidations:
                for trade in fresh:
                    if trade.liquidation is not None:
                        self._on_liquidation(trade, emit)
        except (VenueProtocolError, OverflowError):
            self.sequence.rollback(mark)  # none of the message reaches the stream: all of it counts as missing
            raise
        return NOTHING

    def _on_trade(self, trade: Trade, emit: Emit) -> bool:
        """Stage one; whether it is new."""
        sequence, number = self.sequence, trade.trade_seq
        flags = sequence.admit(number, emit)
        if flags is None:
            return False
        if self._tells_trades:
            low, high, id_format = trade_id_of(trade.trade_id)
            emit.trade(
                self._channel,
                bytes(trade.price),
                bytes(trade.amount),
                _TAKER[trade.direction],
                low,
                trade.timestamp * MS,
                number,
                flags,
                trade_id_high=high,
                trade_id_format=id_format,
            )
        sequence.take(number)
        return True

    def _on_liquidation(self, trade: Trade, emit: Emit) -> None:
        for side in _CLOSING[trade.direction, trade.liquidation or ""]:
            emit.liquidation(
                self._channel,
                bytes(trade.price),
                bytes(trade.amount),
                side,
                trade.timestamp * MS,
                venue_seq=trade.trade_seq,
            )
        emit.end()


def quote_of(message: Ticker) -> Values:
    """Price and size of the best bid, then of the best ask."""
    return (
        quoted(message.best_bid_price),
        value(message.best_bid_amount),
        quoted(message.best_ask_price),
        value(message.best_ask_amount),
    )


def stage_quote(channel: Channel, values: Values, ts_event: int, emit: Emit) -> None:
    """A BBO."""
    bid_price, bid_size, ask_price, ask_size = values
    emit.bbo(channel, bid_price, bid_size, ask_price, ask_size, ts_event)


def marks_of(ticker: Ticker) -> Values:
    """Mark price and index price."""
    return value(ticker.mark_price), value(ticker.index_price)


def stage_marks(channel: Channel, values: Values, ts_event: int, emit: Emit) -> None:
    """A MARK."""
    emit.mark_price(channel, values[0], values[1], ts_event)


def funding_of(ticker: Ticker) -> Values:
    """The rate at which funding accrues now."""
    return (value(ticker.current_funding),)


def stage_funding(channel: Channel, values: Values, ts_event: int, emit: Emit) -> None:
    """A FUNDING."""
    emit.funding(channel, values[0] or b"", 0, ts_event, interval_ns=FUNDING_INTERVAL_NS)


def open_interest_of(ticker: Ticker) -> Values:
    """In the unit of amounts."""
    return (value(ticker.open_interest),)


def stage_open_interest(channel: Channel, values: Values, ts_event: int, emit: Emit) -> None:
    """An OPEN_INTEREST."""
    emit.open_interest(channel, values[0] or b"", ts_event)


Part = tuple[Callable[[Ticker], Values], Callable[[Channel, Values, int, Emit], None]]
TICKER_PARTS: Final[Mapping[DataType, Part]] = {
    DataType.BBO: (quote_of, stage_quote),
    DataType.MARK: (marks_of, stage_marks),
    DataType.FUNDING: (funding_of, stage_funding),
    DataType.OPEN_INTEREST: (open_interest_of, stage_open_interest),
}
"""How the data of a ticker are read from it, and staged."""


class Tickers:
    """The tickers of one instrument: what has changed in them of the data that are wanted, an event group each."""

    def __init__(self, channel: Channel, data_types: Sequence[DataType]) -> None:
        self._channel = channel
        self._parts = [(data_type, *TICKER_PARTS[data_type]) for data_type in data_types]
        self._told: dict[DataType, Values] = {}
        self.quotes = Chain()
        """Whether quotes come by their own channel: ``last`` is -1 until one has."""
        self.quotes.live, self.quotes.last = True, -1

    def restart(self) -> None:
        """On a new connection everything is told anew."""
        self._told.clear()
        self.quotes.last = -1

    def on_push(self, push: Push[Ticker], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One ticker. A value that is not there says nothing; a quote of no sides does."""
        ticker = push.params.data
        news: dict[DataType, Values] = {}
        for data_type, read, stage in self._parts:
            is_quote = data_type is DataType.BBO
            values = read(ticker)
            if values == self._told.get(data_type) or not (self.quotes.last < 0 if is_quote else any(values)):
                continue
            stage(self._channel, values, ticker.timestamp * MS, emit)
            emit.end()
            news[data_type] = values
        self._told.update(news)
        return NOTHING


def quotes(channel: Channel, tickers: Tickers) -> Handler:
    """quote: the best levels, whenever they change. Those of the tickers are then of no more use."""

    def on_push(push: Push[Quote], ts_recv: int, emit: Emit) -> Sequence[Request]:
        quote = push.params.data
        tickers.quotes.last = 0
        emit.bbo(
            channel,
            quoted(quote.best_bid_price),
            value(quote.best_bid_amount),
            quoted(quote.best_ask_price),
            value(quote.best_ask_amount),
            quote.timestamp * MS,
        )
        emit.end()
        return NOTHING

    return on_push


# ---- the state of the platform ----------------------------------------------------------------------------


def index_of(instrument: str) -> str:
    """The price index that it hangs on: btc_usd of BTC-25DEC26, sol_usdc of SOL_USDC-PERPETUAL."""
    base, _, quote = instrument.partition("-")[0].lower().partition("_")
    return f"{base}_{quote or 'usd'}"


class Halts:
    """What of a connection's instruments cannot be traded at the moment, by what the venue says of itself."""

    def __init__(self) -> None:
        self.channels: list[Channel] = []
        self._locked: set[str] = set()  # price indices
        self._maintenance = False
        self._halted: set[str] = set()  # instruments that the stream was told of

    def on_push(self, push: Push[PlatformState], ts_recv: int, emit: Emit) -> Sequence[Request]:
        """Maintenance begins or ends, or an index is locked or not; most messages repeat what is known."""
        state = push.params.data
        if state.maintenance is not None:
            self._maintenance = state.maintenance
        if state.price_index and state.locked:
            self._locked.add(state.price_index)
        else:
            self._locked.discard(state.price_index)
        self._tell(emit)
        return NOTHING

    def on_subscribed(self, emit: Emit) -> None:
        """A new connection was granted, so maintenance is over. What is still locked the venue says again."""
        self._maintenance = False
        self._locked.clear()
        self._tell(emit)

    def _tell(self, emit: Emit) -> None:
        if not (self._maintenance or self._locked or self._halted):
            return
        for channel in self.channels:
            name = channel.instrument
            is_halted = self._maintenance or index_of(name) in self._locked
            if is_halted == (name in self._halted):
                continue
            if is_halted:
                self._halted.add(name)
                detail = "maintenance" if self._maintenance else f"{index_of(name)} is locked"
                emit.status(channel, State.HALTED, Reason.NONE, detail=detail)
            else:
                self._halted.discard(name)
                emit.status(channel, State.TRADING, Reason.NONE)
            emit.end()
