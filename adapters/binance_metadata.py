"""Binance Spot, metadata: which instruments there are, and how finely their prices and sizes are written.

Documentation (read November 2026): github.com/binance/binance-spot-api-docs, rest-api.md ("Exchange information")
and filters.md. Names hold no separator, so base and quote are never guessed from them.

Exponents: tick and step are rules for new orders. Orders older than a change of them stay in the book, so what is
sent may be finer: a snapshot of 2021 has a bid at 0.25974 where the tick is 0.0001. Hence the exponents are those
of the wire, the assets' precision (8 decimals), as far as the largest price and size of the filters leave room.

Used by ``binance.py`` before it subscribes::

    infos = decode_exchange_info(response.body, unknown)
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from mdring.feed.adapter import Fetch, InstrumentInfo, UnknownMessages, VenueProtocolError
from mdring.feed.instrument_rows import decoded, infos_of
from mdring.symbol import plain_decimal, spot

WEIGHT: Final = 20


class Filter(Struct):
    """{"filterType":"PRICE_FILTER","minPrice":"0.00010000","maxPrice":"1000.00000000","tickSize":"0.00010000"}

    Each kind of filter has fields of its own; a value of zero means that the rule is off.
    """

    kind: str = field(name="filterType")
    tick_size: str = field(name="tickSize", default="0")  # of PRICE_FILTER
    max_price: str = field(name="maxPrice", default="0")
    step_size: str = field(name="stepSize", default="0")  # of LOT_SIZE and its like
    max_size: str = field(name="maxQty", default="0")


class Symbol(Struct):
    """{"symbol":"NKNUSDT","status":"TRADING","baseAsset":"NKN","baseAssetPrecision":8,"quoteAsset":"USDT","quotePrecision":8,"quoteAssetPrecision":8,"filters":[{"filterType":"PRICE_FILTER","minPrice":"0.00010000","maxPrice":"1000.00000000","tickSize":"0.00010000"},{"filterType":"LOT_SIZE","minQty":"1.00000000","maxQty":"9000000.00000000","stepSize":"1.00000000"}]}"""

    symbol: str
    status: str
    base: str = field(name="baseAsset")
    base_precision: Annotated[int, Meta(ge=0, le=18)] = field(name="baseAssetPrecision")
    quote: str = field(name="quoteAsset")
    quote_precision: Annotated[int, Meta(ge=0, le=18)] = field(name="quoteAssetPrecision")
    filters: list[Filter]


class ExchangeInfo(Struct):
    """{"timezone":"UTC","serverTime":1633998511098,"rateLimits":[],"exchangeFilters":[],"symbols":[]}"""

    symbols: list[Symbol]


_EXCHANGE_INFO: Final = msgspec.json.Decoder(ExchangeInfo)


def exchange_info_fetch(rest_url: str) -> Fetch:
    """Fetch the list of all instruments: asked for by name, one unknown name would refuse the whole request."""
    return Fetch(
        tag="exchangeInfo",
        url=f"{rest_url.rstrip('/')}/api/v3/exchangeInfo?showPermissionSets=false",
        weight=WEIGHT,
    )


def decode_exchange_info(body: bytes, unknown: UnknownMessages) -> list[InstrumentInfo]:
    """Metadata of all instruments of the list. One that no record could be made for is noted and left out.

    Raises VenueProtocolError.
    """
    return infos_of(decoded(_EXCHANGE_INFO, body, "exchangeInfo").symbols, instrument_info, unknown)


LARGEST: Final = 2**63 - 1
SIZE_HEADROOM: Final = 1_000
"""A price level sums orders up so far above the largest single one still fits."""


def number(text: str) -> Decimal:
    """A filter's value. Raises VenueProtocolError."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise VenueProtocolError(f"a filter's value is {text!r}") from None
    if not value.is_finite() or value < 0 or value.adjusted() > 18:
        raise VenueProtocolError(f"a filter's value is {text!r}")
    return value


def exponent(step: Decimal, largest: Decimal, precision: int) -> int:
    """The exponent of the wire's precision, or the finest coarser one with which ``largest`` fits; but never so
    coarse that a multiple of ``step`` could not be held. Raises VenueProtocolError."""
    digits = step.normalize().as_tuple().exponent
    assert isinstance(digits, int)  # number() lets no other pass
    needed = min(digits, 0) if step else 0
    if needed < -18:
        raise VenueProtocolError(f"a filter's step is {step}")
    finest = -precision
    while finest < needed and largest.scaleb(-finest) > LARGEST:
        finest += 1
    return min(finest, needed)


def instrument_info(symbol: Symbol) -> InstrumentInfo:
    """Metadata as the port wants it. Filters are found by their type, for their order is not fixed.

    Raises VenueProtocolError, or ValueError for assets that no canonical symbol can name.
    """
    none = Filter("")
    price = next((entry for entry in symbol.filters if entry.kind == "PRICE_FILTER"), none)
    size = next((entry for entry in symbol.filters if entry.kind == "LOT_SIZE"), none)
    return InstrumentInfo(
        instrument=symbol.symbol,
        canonical_symbol=str(spot(symbol.base, symbol.quote)),
        price_exponent=exponent(number(price.tick_size), number(price.max_price), symbol.quote_precision),
        size_exponent=exponent(number(size.step_size), number(size.max_size) * SIZE_HEADROOM, symbol.base_precision),
        base=symbol.base,
        quote=symbol.quote,
        trading=symbol.status == "TRADING",
        size_unit=symbol.base,
        tick=plain_decimal(price.tick_size),
        lot=plain_decimal(size.step_size),
        status=symbol.status,
    )
