"""Bitstamp v2, the channels without state of their own to keep in sync: trades, and what perpetuals tell besides.

Documentation (read November 2026): bitstamp.net/websocket/v2, "Live trades", "Funding rate"; bitstamp.net/api,
"Tickers". Integrity: none. Ids of trades rise, but are of the whole venue; so a missing trade does not show, and only
one that comes twice in a row is known. Open interest is told by REST alone, of all markets at once.

``bitstamp.py`` makes a handler per channel, which then gets its decoded messages::

    handle = trades(channel, counts)
    handle(trade, ts_recv, emit)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Generic, Literal, TypeVar

from msgspec import Meta, Struct

from mdring.feed.adapter import NOTHING, AdapterCounts, Request
from mdring.feed.chain import Chain
from mdring.feed.direct import TradeRoute
from mdring.feed.emit import Emit
from mdring.feed.message_route import Handler
from mdring.feed.number_text import whole, without_noise
from mdring.feed.stage import Channel
from mdring.feed.trade_id import trade_id_of
from mdring.record import Aggressor, TradeIdFormat

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload. Of a number that comes both as a number and as text, the text is exact.

M = TypeVar("M")


class Push(Struct, Generic[M], gc=False):
    """{"data":{"timestamp":"1641343721","microtimestamp":"1641343721663333","bids":[],"asks":[["0.38142","1163.70962488"]]},"channel":"diff_order_book_galaeur","event":"data"}"""

    data: M
    event: str


class Trade(Struct, gc=False):
    """{"id":216000477,"timestamp":"1641343699","amount":0.0792,"amount_str":"0.07920000","price":3805.44,"price_str":"3805.44","type":0,"microtimestamp":"1641343699596000","buy_order_id":1443875737346049,"sell_order_id":1443875731320832}"""

    id: Annotated[int, Meta(ge=0)] | str
    price_str: str
    amount_str: str
    type: Literal[0, 1]  # of the taker: 0 has bought
    microtimestamp: str
    id_str: str = ""  # where ids have outgrown a double


class Funding(Struct, gc=False):
    """{"market":"btcusd-perp","mark_price":"77186.81199586","index_price":"77177.99454545454","funding_rate":"0.000123","timestamp":"1789457618","next_funding_time":"1789459200"}"""

    mark_price: str
    index_price: str
    funding_rate: str
    timestamp: str  # s
    next_funding_time: str  # s


class Ticker(Struct, gc=False):
    """{"timestamp":"1789455809","open":"78237","high":"79588","low":"77191","last":"77265","volume":"108.78361","vwap":"78381","bid":"77239","ask":"77240","side":"1","open_24":"77700","percent_change_24":"-0.56","market_type":"PERPETUAL","pair":"BTC/USD-PERP","market":"BTC/USD-PERP","index_price":"77224.46266666667","mark_price":"77238.10540904","open_interest":"66.98297","open_interest_value":"5173637.6974705640488"}"""

    market: str
    timestamp: str  # s
    open_interest: str | None = None  # of perpetuals
    open_interest_value: str | None = None


# The form of a trade as the venue writes it (``feed/template.pyx``), but for the order of members; the market is put
# in, and how its trades tell their ids.
TRADE_FORM: Final = (
    '{"data":<members>{%s,"timestamp":<any>,"amount":<any>,"amount_str":"<size>","price":<any>,"price_str":"<price>",'
    '"type":<taker_sells>,"microtimestamp":"<time>","buy_order_id":<any>,"sell_order_id":<any>},'
    '"channel":"live_trades_%s","event":"trade"}'
)
IDS: Final = '"id":<id>'
TEXT_IDS: Final = '"id":<whole>,"id_str":"<id>"'
US: Final = 1_000  # ns
SECOND: Final = 1_000_000_000
FUNDING_INTERVAL_NS: Final = 8 * 3600 * SECOND
"""Of all perpetuals; the messages do not say."""
PERPETUAL: Final = "-perp"
_ID_LIMIT: Final = 1 << 63
_TAKER: Final = (int(Aggressor.BUY), int(Aggressor.SELL))


# ---- decode -----------------------------------------------------------------------------------------------


class Trades:
    """The trades of one market: live_trades."""

    def __init__(self, channel: Channel, counts: AdapterCounts) -> None:
        self._channel = channel
        self._counts = counts
        self._last_other = (-1, 0)  # of ids that are no whole numbers of 63 bits
        self.ids = Chain()
        self.ids.live = True
        self.ids.last = -1
        is_perpetual = channel.instrument.endswith(PERPETUAL)
        form = TRADE_FORM % (TEXT_IDS if is_perpetual else IDS, channel.instrument)
        self.route = TradeRoute(form, channel, self.ids, unit_ns=US, consecutive=False)

    def on_message(self, trade: Trade, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One fill."""
        low, high, form = trade_id_of(trade.id_str or str(trade.id))
        is_plain = form == TradeIdFormat.INTEGER and high == 0 and low < _ID_LIMIT
        if low == self.ids.last if is_plain else (low, high) == self._last_other:
            self._counts.repeated += 1
            return NOTHING
        emit.trade(
            self._channel,
            trade.price_str,
            trade.amount_str,
            _TAKER[trade.type],
            low,
            whole(trade.microtimestamp) * US,
            trade_id_high=high,
            trade_id_format=form,
        )
        emit.end()
        if is_plain:
            self.ids.last = low
        else:
            self._last_other = low, high
        return NOTHING


def fundings(channel: Channel, tells_funding: bool, tells_mark: bool) -> Handler:
    """funding_rate: one message has the rate, mark and index price; told is what was asked for."""

    def on_message(funding: Funding, ts_recv: int, emit: Emit) -> Sequence[Request]:
        ts_event = whole(funding.timestamp) * SECOND
        if tells_mark:
            mark, index = without_noise(funding.mark_price), without_noise(funding.index_price)
            emit.mark_price(channel, mark, index, ts_event)
            emit.end()
        if tells_funding:
            due = whole(funding.next_funding_time) * SECOND
            emit.funding(channel, funding.funding_rate, due, ts_event, interval_ns=FUNDING_INTERVAL_NS)
            emit.end()
        return NOTHING

    return on_message


def open_interests(channels: Mapping[str, Channel], rows: Sequence[Ticker], emit: Emit) -> None:
    """The tickers of all markets; ``channels`` by instrument. A row names its market in another way: BTC/USD-PERP."""
    for row in rows:
        channel = channels.get(row.market.replace("/", "").lower())
        if channel is not None and row.open_interest is not None:
            value = None if row.open_interest_value is None else without_noise(row.open_interest_value)
            emit.open_interest(channel, without_noise(row.open_interest), whole(row.timestamp) * SECOND, value)
            emit.end()
