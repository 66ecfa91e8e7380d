"""Binance Spot, metadata: which instruments there are, and how finely their prices and sizes are written.

Documentation (read November 2026): github.com/binance/binance-spot-api-docs, rest-api.md ("Exchange information")
and filters.md. The exponents come from the filters: a price is a multiple of the tick, a size of the step, though
the wire writes both with eight decimals. Names hold no separator, so base and quote are never guessed from them.

Used by ``binance.py`` before it subscribes::

    infos = decode_exchange_info(response.body, {"BTCUSDT": None})
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from mdring.feed.adapter import Fetch, InstrumentInfo, VenueProtocolError

WEIGHT: Final = 20


class Filter(Struct):
    """{"filterType":"PRICE_FILTER","minPrice":"0.00010000","maxPrice":"1000.00000000","tickSize":"0.00010000"}"""

    kind: str = field(name="filterType")
    tick_size: str = field(name="tickSize", default="0")  # of PRICE_FILTER only
    step_size: str = field(name="stepSize", default="0")  # of LOT_SIZE and its like


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


def decode_exchange_info(body: bytes, wanted: Mapping[str, str | None]) -> list[InstrumentInfo]:
    """Metadata of the wanted instruments that exist; ``wanted`` maps them to their canonical symbol, None: derived.

    Raises VenueProtocolError.
    """
    try:
        symbols = _EXCHANGE_INFO.decode(body).symbols
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise VenueProtocolError(f"exchangeInfo: {error}") from error
    return [instrument_info(symbol, wanted[symbol.symbol]) for symbol in symbols if symbol.symbol in wanted]


def exponent(step: str, precision: int) -> int:
    """The exponent that holds every multiple of ``step``; a step of zero means that the rule is off, and then the
    asset's precision counts. Raises VenueProtocolError."""
    try:
        value = Decimal(step)
    except InvalidOperation:
        raise VenueProtocolError(f"a filter's step is {step!r}") from None
    if not value.is_finite() or value < 0:
        raise VenueProtocolError(f"a filter's step is {step!r}")
    if value == 0:
        return -precision
    digits_end = value.normalize().as_tuple().exponent
    assert isinstance(digits_end, int)  # finite
    if digits_end < -18:
        raise VenueProtocolError(f"a filter's step is {step!r}")
    return min(digits_end, 0)


def instrument_info(symbol: Symbol, canonical_symbol: str | None) -> InstrumentInfo:
    """Metadata as the port wants it. Filters are found by their type, for their order is not fixed."""
    tick = next((entry.tick_size for entry in symbol.filters if entry.kind == "PRICE_FILTER"), "0")
    step = next((entry.step_size for entry in symbol.filters if entry.kind == "LOT_SIZE"), "0")
    return InstrumentInfo(
        instrument=symbol.symbol,
        canonical_symbol=canonical_symbol or f"{symbol.base}-{symbol.quote}",
        price_exponent=exponent(tick, symbol.quote_precision),
        size_exponent=exponent(step, symbol.base_precision),
        base=symbol.base,
        quote=symbol.quote,
        trading=symbol.status == "TRADING",
    )
