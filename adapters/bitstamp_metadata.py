"""Bitstamp v2, metadata: which markets there are, and how finely prices and sizes are written.

Documentation (read November 2026): bitstamp.net/api, "Market info". ``/markets/`` lists spot pairs and perpetuals;
where it is not there, ``/trading-pairs-info/`` is its predecessor, which names the fields otherwise. Of what the
documentation says of a row, ``tick_size`` and ``exchange`` are not sent.

Exponents: numbers are padded to the market's decimals, which also are its tick and lot. Decimals do change, while older
orders stay in the book; so there is room for some digits more.

Used by ``bitstamp.py`` before it subscribes::

    infos = decode_markets(response.body, unknown)
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from mdring.feed.adapter import Fetch, InstrumentInfo, UnknownMessages
from mdring.feed.instrument_rows import decoded, infos_of, size_exponent
from mdring.record import DataType
from mdring.symbol import perpetual, plain_decimal, spot

MARKETS: Final = "markets"
PAIRS: Final = "trading-pairs-info"
MORE_DIGITS: Final = 2
"""Decimals of a market may have been finer by so many when an order came in that still rests."""
PERPETUAL_MARK: Final = "-PERP"
QUOTED: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
CONTRACT: Final = (*QUOTED, DataType.FUNDING, DataType.MARK, DataType.OPEN_INTEREST)

Decimals = Annotated[int, Meta(ge=0, le=16)]


class Market(Struct):
    """{"name":"BTC/USD-PERP","market_symbol":"btcusd-perp","base_currency":"BTC","base_decimals":5,"counter_currency":"USD","counter_decimals":0,"minimum_order_value":"10","trading":"Enabled","market_type":"PERPETUAL","payoff_type":"Linear","contract_size":"1.00000000","has_market_hours":false}"""

    name: str
    market_symbol: str
    base_decimals: Decimals
    counter_decimals: Decimals
    trading: str
    market_type: str = "SPOT"
    payoff_type: str | None = None
    contract_size: str | None = None


class Pair(Struct):
    """{"trading":"Enabled","base_decimals":8,"url_symbol":"btcusd","name":"BTC/USD","instant_and_market_orders":"Enabled","counter_decimals":2}"""

    name: str
    market_symbol: str = field(name="url_symbol")
    base_decimals: Decimals
    counter_decimals: Decimals
    trading: str


_MARKETS: Final = msgspec.json.Decoder(list[Market])
_PAIRS: Final = msgspec.json.Decoder(list[Pair])


def list_fetch(rest_url: str, name: str) -> Fetch:
    """Fetch one of the two lists."""
    return Fetch(tag=name, url=f"{rest_url.rstrip('/')}/api/v2/{name}/")


def decode_markets(body: bytes, unknown: UnknownMessages) -> list[InstrumentInfo]:
    """Metadata of all markets. One that no record could be made for is noted and left out.

    Raises VenueProtocolError.
    """
    markets = decoded(_MARKETS, body, "the list of markets")
    return infos_of(markets, instrument_info, unknown)


def decode_pairs(body: bytes, unknown: UnknownMessages) -> list[InstrumentInfo]:
    """The same of the older list. It knows no types of markets: a name tells a perpetual.

    Raises VenueProtocolError.
    """

    def info(pair: Pair) -> InstrumentInfo:
        kind = "PERPETUAL" if pair.name.endswith(PERPETUAL_MARK) else "SPOT"
        return instrument_info(
            Market(pair.name, pair.market_symbol, pair.base_decimals, pair.counter_decimals, pair.trading, kind)
        )

    pairs = decoded(_PAIRS, body, "the list of pairs")
    return infos_of(pairs, info, unknown)


def instrument_info(market: Market) -> InstrumentInfo:
    """Metadata as the port wants it. Raises ValueError for what it cannot hold."""
    base, _, counter = market.name.partition("/")
    is_spot = market.market_type == "SPOT"
    if not is_spot:
        if market.market_type != "PERPETUAL" or market.payoff_type not in (None, "Linear"):
            raise ValueError(f"a market of type {market.market_type!r} with payoff {market.payoff_type!r}")
        counter = counter.removesuffix(PERPETUAL_MARK)
    if not market.market_symbol:
        raise ValueError(f"{market.name!r} has no market_symbol")
    lot = one_at(market.base_decimals)
    return InstrumentInfo(
        instrument=market.market_symbol,
        canonical_symbol=str(spot(base, counter) if is_spot else perpetual(base, counter)),
        price_exponent=-market.counter_decimals - MORE_DIGITS,
        size_exponent=size_exponent(lot, MORE_DIGITS),
        base=base,
        quote=counter,
        trading=market.trading == "Enabled",
        settle="" if is_spot else counter,
        size_unit=base,
        multiplier="1" if is_spot else plain_decimal(market.contract_size or "1"),
        tick=one_at(market.counter_decimals),
        lot=lot,
        status=market.trading,
        data_types=QUOTED if is_spot else CONTRACT,
    )


def one_at(decimals: int) -> str:
    """The smallest number with so many decimals: 0.01 of 2."""
    return f"0.{'1'.rjust(decimals, '0')}" if decimals else "1"
