"""Coinbase Exchange, the channels beside the book: matches and their heartbeats, tickers, the status of products.

Documentation (read November 2026): docs.cdp.coinbase.com/exchange, WebSocket channels; "Get product trades".

Integrity of trades: ``trade_id`` rises by one per product, over reconnects too. The venue may leave matches out when it
is under load. A missing id shows by the next match, or by the heartbeats: what the one before the last has counted must
have come by now. It becomes STATUS(GAP), then the missing trades are fetched by REST and flagged RECOVERED; ids that
come again are dropped. ``sequence`` counts everything that happens to a product, so it skips in each of these channels.

Quirks: a match tells the side of the maker, a ticker that of the taker. ``last_match``, after the subscription, is
history, and so is the first ticker. A ticker comes with a match, not when a quote changes, and had no sizes until
2022.

``coinbase.py`` makes an object per product and channel, which then gets its decoded messages::

    Trades(channel, connection, rest_url, counts).on_match(match, emit)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec
from msgspec import Meta, Struct

from mdring.adapters.coinbase_metadata import is_trading
from mdring.feed.adapter import NOTHING, AdapterCounts, Fetch, Request, Response, UnknownMessages
from mdring.feed.emit import Emit
from mdring.feed.fixed import time_ns
from mdring.feed.id_sequence import Step
from mdring.feed.rising_ids import RisingIds
from mdring.feed.snapshot_book import pause_s
from mdring.feed.stage import Channel
from mdring.feed.trade_sequence import TradeSequence
from mdring.record import Aggressor, Flags, Reason, State

# ---- wire schema ------------------------------------------------------------------------------------------
# Each docstring is one real payload. Numbers beyond 64 bits are refused when they are to be stored: OverflowError.

Id = Annotated[int, Meta(ge=0)]
MakerSide = Literal["buy", "sell"]


class Match(Struct, gc=False):
    """{"type":"match","trade_id":280232,"maker_order_id":"2a0da34e-61f7-4c36-88e5-c9dd15927b16","taker_order_id":"3c82abaa-c01e-4608-be59-6a1e69742891","side":"sell","size":"985","price":"0.00001305","product_id":"SKL-BTC","sequence":177100030,"time":"2021-04-17T16:43:37.089723Z"}"""

    trade_id: Id
    side: MakerSide
    size: str
    price: str
    product_id: str
    sequence: Id
    time: str


class RestTrade(Struct, gc=False):
    """{"time":"2014-11-07T22:19:28.578544Z","trade_id":74,"price":"10.00000000","size":"0.01000000","side":"buy"}"""

    trade_id: Id
    side: MakerSide
    size: str
    price: str
    time: str


class Heartbeat(Struct, gc=False):
    """{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}"""

    sequence: Id
    last_trade_id: Id
    product_id: str


class Ticker(Struct, gc=False):
    """{"type":"ticker","sequence":333938798,"product_id":"BAND-GBP","price":"14.7775","open_24h":"14.6647","volume_24h":"94381.28000000","low_24h":"14.3691","high_24h":"16.55","volume_30d":"2295579.57000000","best_bid":"14.7550","best_ask":"14.8060","side":"buy","time":"2021-04-17T16:43:30.244075Z","trade_id":881613,"last_size":"0.04"}"""

    sequence: Id
    product_id: str
    best_bid: str
    best_ask: str
    time: str
    best_bid_size: str | None = None  # absent until 2022
    best_ask_size: str | None = None


class ProductStatus(Struct):
    """{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","base_increment":"0.00000001","quote_increment":"0.01","display_name":"BTC-USD","status":"online","status_message":null,"min_market_funds":"1","post_only":false,"limit_only":false,"cancel_only":false,"fx_stablecoin":false}"""

    id: str
    status: str
    cancel_only: bool = False
    trading_disabled: bool = False


class Statuses(Struct):
    """{"type":"status","products":[{"id":"BTC-USD","base_currency":"BTC","quote_currency":"USD","base_increment":"0.00000001","quote_increment":"0.01","display_name":"BTC-USD","status":"online","status_message":null,"min_market_funds":"1","post_only":false,"limit_only":false,"cancel_only":false,"fx_stablecoin":false}],"currencies":[]}"""

    products: list[ProductStatus]


# The forms of fills and of tickers, as the venue writes them (``feed/template.pyx``); the product is put in. The
# documentation has another order of members than recordings.
MATCH_FORM: Final = (
    '<members>{"type":"match","trade_id":<id>,"maker_order_id":<maybe>,"taker_order_id":<maybe>,"side":"<maker>",'
    '"size":"<size>","price":"<price>","product_id":"%s","sequence":<last>,"time":"<utc>"}'
)
TICKER_FORM: Final = (
    '<members>{"type":"ticker","sequence":<last>,"product_id":"%s","price":<maybe>,"open_24h":<maybe>,'
    '"volume_24h":<maybe>,"low_24h":<maybe>,"high_24h":<maybe>,"volume_30d":<maybe>,"best_bid":"<bid_price>",'
    '"best_bid_size":"<bid_size>","best_ask":"<ask_price>","best_ask_size":"<ask_size>","side":<maybe>,'
    '"time":"<utc>","trade_id":<maybe>,"last_size":<maybe>}'
)
_TAKER: Final = {"buy": int(Aggressor.SELL), "sell": int(Aggressor.BUY)}
"""The aggressor, by the side of the maker."""
_RECOVERED: Final = int(Flags.RECOVERED)
_HISTORY: Final = int(Flags.SNAPSHOT | Flags.RECOVERED)
_REST_TRADES: Final = msgspec.json.Decoder(list[RestTrade])

# ---- trades -----------------------------------------------------------------------------------------------

PAGE: Final = 1_000
"""Trades in one answer: of those missing, so many are fetched, the newest."""
ATTEMPTS: Final = 3
RETRY_NS: Final = 1_000_000_000


class Trades:
    """The trades of one product. ``venue_seq`` is ``sequence``, 0 of those that were fetched."""

    def __init__(self, channel: Channel, connection: int, rest_url: str, counts: AdapterCounts) -> None:
        self._channel = channel
        self._connection = connection
        self._url = f"{rest_url.rstrip('/')}/products/{quote(channel.instrument)}/trades"
        self.sequence = TradeSequence(channel, counts)
        self._counted = -1  # last_trade_id of the last heartbeat

    def on_connect(self) -> None:
        """Ids are kept: the next one tells how many were missed. The heartbeats are of another connection."""
        self._counted = -1

    def on_match(self, match: Match, emit: Emit, flags: int = 0) -> Sequence[Request]:
        """One fill."""
        number, sequence = match.trade_id, self.sequence
        missing = number - sequence.due if sequence.due >= 0 else 0
        how = sequence.admit(number, emit)
        if how is None:
            return NOTHING
        side, ts_event = _TAKER[match.side], time_ns(match.time)
        emit.trade(self._channel, match.price, match.size, side, number, ts_event, match.sequence, flags | how)
        emit.end()
        sequence.take(number)
        return self._ask_for(missing, number)

    def on_last_match(self, match: Match, emit: Emit) -> Sequence[Request]:
        """The fill before the subscription: known already, or history."""
        return self.on_match(match, emit, _HISTORY)

    def on_heartbeat(self, heartbeat: Heartbeat, emit: Emit) -> Sequence[Request]:
        """Matches that the heartbeat of a second ago has counted, and that have not come, are lost."""
        counted, self._counted = self._counted, heartbeat.last_trade_id
        if not 0 <= self.sequence.due <= counted <= heartbeat.last_trade_id:
            return NOTHING
        missing = self.sequence.tell_gap(counted + 1, emit)
        self.sequence.skip(counted + 1)
        return self._ask_for(missing, counted + 1)

    def on_response(self, response: Response, emit: Emit) -> Sequence[Request]:
        """Trades that were missing, the newest first; or why there are none. Others are passed over."""
        name, before, attempt = response.tag.rsplit(" ", 2)
        if response.status != 200:
            if int(attempt) == ATTEMPTS:
                return NOTHING
            delay_ns = max(RETRY_NS << int(attempt), pause_s(response) * 1_000_000_000)
            return (Fetch(f"{name} {before} {int(attempt) + 1}", response.url, 1, delay_ns, self._connection),)
        for trade in reversed(_REST_TRADES.decode(response.body)):
            if self.sequence.judge(trade.trade_id) is Step.LATE:
                side, ts_event = _TAKER[trade.side], time_ns(trade.time)
                emit.trade(self._channel, trade.price, trade.size, side, trade.trade_id, ts_event, 0, _RECOVERED)
                emit.end()
                self.sequence.take(trade.trade_id)
        return NOTHING

    def _ask_for(self, missing: int, found: int) -> Sequence[Request]:
        """Fetch what is missing before ``found``. There is nothing to ask for if the numbers begin anew."""
        if missing <= 0:
            return NOTHING
        url = f"{self._url}?limit={min(missing, PAGE)}&after={found}"  # "after" a page, which begins with the newest
        return (Fetch(f"{self._channel.instrument} {found} 1", url, 1, 0, self._connection),)


# ---- quotes -----------------------------------------------------------------------------------------------

# An older ticker is dropped if its sequence lies at most so far back; else the venue numbers anew.
TICKER_OVERLAP: Final = 1_000_000


class Tickers:
    """The best bid and ask of one product, as of each match. ``venue_seq`` is ``sequence``."""

    def __init__(self, channel: Channel, counts: AdapterCounts, unknown: UnknownMessages) -> None:
        self._channel = channel
        self._counts = counts
        self._unknown = unknown
        self.sequence = RisingIds(TICKER_OVERLAP)
        self.on_connect()

    def on_connect(self) -> None:
        """On another connection the first ticker is history once more; only those after it go directly."""
        self.sequence.restart()
        self.sequence.live = False

    def on_ticker(self, ticker: Ticker, emit: Emit) -> Sequence[Request]:
        """The quote as it was after a match. An empty side is "" or 0."""
        bid_size, ask_size = ticker.best_bid_size, ticker.best_ask_size
        if bid_size is None or ask_size is None:
            self._unknown.note("ticker without sizes", msgspec.json.encode(ticker))
            return NOTHING
        sequence = self.sequence
        if sequence.repeats(ticker.sequence):
            self._counts.repeated += 1
            return NOTHING
        bid, ask, ts_event = ticker.best_bid or None, ticker.best_ask or None, time_ns(ticker.time)
        flags = 0 if sequence.live else _HISTORY
        emit.bbo(self._channel, bid, bid_size or None, ask, ask_size or None, ts_event, ticker.sequence, flags)
        emit.end()
        sequence.last = ticker.sequence
        sequence.live = True
        return NOTHING


# ---- status of products -----------------------------------------------------------------------------------


class Trading:
    """Which of the products subscribed to are halted. All were traded when they were subscribed to."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels
        self._halted: set[str] = set()

    def on_status(self, message: Statuses, emit: Emit) -> Sequence[Request]:
        """All products, every few seconds: say what has changed."""
        for product in message.products:
            channel = self._channels.get(product.id)
            if channel is None:
                continue
            is_halted = not is_trading(product.status, product.cancel_only, product.trading_disabled)
            if is_halted == (product.id in self._halted):
                continue
            if is_halted:
                self._halted.add(product.id)
            else:
                self._halted.remove(product.id)
            detail = "cancel only" if product.cancel_only else product.status
            emit.status(channel, State.HALTED if is_halted else State.TRADING, Reason.NONE, detail=detail)
            emit.end()
        return NOTHING
