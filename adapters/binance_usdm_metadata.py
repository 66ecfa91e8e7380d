"""Binance futures, metadata: which contracts there are, what a size of one is, and how finely numbers are written.

Documentation (read November 2026): developers.binance.com, derivatives, "Exchange Information" and "Get Funding Rate
Info" of USD-M and of COIN-M futures. Names do not tell what they mean, so assets, kind and delivery are read from the
list. Coins that are cheap are traded by the thousand (``1000PEPE``): that is the base asset, and a size of 1 is one of
it. Sizes of COIN-M count contracts of ``contractSize`` units of the quote asset, and its status is ``contractStatus``.

Exponents: ``pricePrecision`` and ``quantityPrecision`` are neither tick nor step, and the wire has as many decimals as
an instrument pleases. Ticks change while older orders rest; so there are 8 decimals, the precision of the assets, as
far as the largest price and size of the filters leave room.

Used by ``binance_usdm.py`` before it subscribes::

    infos = decode_exchange_info(response.body, unknown)
    hours = decode_funding_info(response.body)
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct, field

from mdring.feed.adapter import InstrumentInfo, UnknownMessages
from mdring.feed.instrument_rows import decoded, infos_of
from mdring.record import DataType
from mdring.symbol import Symbol, date_of, future, perpetual, plain_decimal

EXCHANGE_INFO: Final = "exchangeInfo"
FUNDING_INFO: Final = "fundingInfo"
EXCHANGE_INFO_WEIGHT: Final = 1
FUNDING_INFO_WEIGHT: Final = 0  # it has a limit of its own, 500 in 5 minutes
USUAL_FUNDING_HOURS: Final = 8  # of what fundingInfo does not list

OF_CONTRACTS: Final = (
    DataType.TRADE,
    DataType.BBO,
    DataType.BOOK,
    DataType.MARK,
    DataType.OPEN_INTEREST,
    DataType.LIQUIDATION,
)
OF_PERPETUALS: Final = (*OF_CONTRACTS, DataType.FUNDING)


class Filter(Struct):
    """{"filterType":"PRICE_FILTER","minPrice":"556.80","maxPrice":"4529764","tickSize":"0.10"}

    Each kind of filter has fields of its own.
    """

    kind: str = field(name="filterType")
    tick_size: str = field(name="tickSize", default="0")  # of PRICE_FILTER
    max_price: str = field(name="maxPrice", default="0")
    step_size: str = field(name="stepSize", default="0")  # of LOT_SIZE; MARKET_LOT_SIZE has another
    max_size: str = field(name="maxQty", default="0")


class Contract(Struct):
    """{"symbol":"BTCUSDT_261225","pair":"BTCUSDT","contractType":"CURRENT_QUARTER","deliveryDate":1798185600000,"onboardDate":1774598400000,"status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT","marginAsset":"USDT","pricePrecision":1,"quantityPrecision":3,"baseAssetPrecision":8,"quotePrecision":8,"filters":[{"filterType":"PRICE_FILTER","minPrice":"556.8","maxPrice":"4529764","tickSize":"0.1"},{"filterType":"LOT_SIZE","minQty":"0.001","maxQty":"500","stepSize":"0.001"}]}"""

    symbol: str
    kind: str = field(name="contractType")
    delivery_ms: int = field(name="deliveryDate")
    base: str = field(name="baseAsset")
    quote: str = field(name="quoteAsset")
    margin: str = field(name="marginAsset")
    filters: list[Filter]
    status: str = ""
    contract_status: str = field(name="contractStatus", default="")  # of COIN-M
    contract_size: int = field(name="contractSize", default=0)  # likewise


class ExchangeInfo(Struct):
    """{"timezone":"UTC","serverTime":1790000000000,"futuresType":"U_MARGINED","rateLimits":[],"exchangeFilters":[],"assets":[],"symbols":[]}"""

    symbols: list[Contract]


class FundingInfo(Struct):
    """{"symbol":"BLZUSDT","adjustedFundingRateCap":"0.02500000","adjustedFundingRateFloor":"-0.02500000","fundingIntervalHours":4,"disclaimer":false}"""

    symbol: str
    hours: Annotated[int, Meta(ge=1, le=24)] = field(name="fundingIntervalHours")


_EXCHANGE_INFO: Final = msgspec.json.Decoder(ExchangeInfo)
_FUNDING_INFO: Final = msgspec.json.Decoder(list[FundingInfo])


def decode_exchange_info(body: bytes, unknown: UnknownMessages) -> list[InstrumentInfo]:
    """Metadata of all contracts of the list. One that no record could be made for is noted and left out.

    Raises VenueProtocolError.
    """
    return infos_of(decoded(_EXCHANGE_INFO, body, "exchangeInfo").symbols, instrument_info, unknown)


def decode_funding_info(body: bytes) -> dict[str, int]:
    """Hours between two payments, by instrument, of those that differ from the usual. Raises VenueProtocolError."""
    return {row.symbol: row.hours for row in decoded(_FUNDING_INFO, body, "fundingInfo")}


def instrument_info(contract: Contract) -> InstrumentInfo:
    """Metadata as the port wants it. Filters are found by their type, for their order is not fixed.

    Raises ValueError for what it cannot hold.
    """
    none = Filter("")
    price = next((entry for entry in contract.filters if entry.kind == "PRICE_FILTER"), none)
    size = next((entry for entry in contract.filters if entry.kind == "LOT_SIZE"), none)
    status = contract.status or contract.contract_status
    return InstrumentInfo(
        instrument=contract.symbol,
        canonical_symbol=str(symbol_of(contract)),
        price_exponent=exponent(price.tick_size, number(price.max_price)),
        size_exponent=exponent(size.step_size, number(size.max_size) * SIZE_HEADROOM),
        base=contract.base,
        quote=contract.quote,
        trading=status == "TRADING",
        settle=contract.margin,
        size_unit=contract.quote if contract.contract_size else contract.base,
        multiplier=str(contract.contract_size or 1),
        tick=plain_decimal(price.tick_size),
        lot=plain_decimal(size.step_size),
        status=status,
        data_types=OF_PERPETUALS if is_perpetual(contract) else OF_CONTRACTS,
    )


def is_perpetual(contract: Contract) -> bool:
    """Whether it has no delivery. Kinds are PERPETUAL, TRADIFI_PERPETUAL, CURRENT_QUARTER, NEXT_QUARTER and the like,
    with _DELIVERING at their end for a while; "" for what is not traded yet. Raises ValueError for another."""
    if "PERPETUAL" in contract.kind:
        return True
    if "QUARTER" in contract.kind or "MONTH" in contract.kind:
        return False
    if contract.kind == "":
        return "_" not in contract.symbol
    raise ValueError(f"a contract is of type {contract.kind!r}")


def symbol_of(contract: Contract) -> Symbol:
    """The canonical symbol. Raises ValueError."""
    if is_perpetual(contract):
        return perpetual(contract.base, contract.quote, contract.margin)
    return future(contract.base, contract.quote, date_of(contract.delivery_ms), contract.margin)


LARGEST: Final = 2**63 - 1
WIRE_DIGITS: Final = 8
SIZE_HEADROOM: Final = 1_000
"""A price level sums orders up so far above the largest single one still fits."""


def number(text: str) -> Decimal:
    """A filter's value. Raises ValueError."""
    value = Decimal(plain_decimal(text))
    if value < 0:
        raise ValueError(f"a filter's value is {text!r}")
    return value


def exponent(step: str, largest: Decimal) -> int:
    """The exponent of 8 decimals, or the finest coarser one with which ``largest`` fits; but never so coarse that a
    multiple of ``step`` could not be held. Raises ValueError."""
    least = number(step).normalize().as_tuple().exponent
    assert isinstance(least, int)  # number() lets no other pass
    needed = max(-least, 0)
    if needed > 18:
        raise ValueError(f"a filter's step is {step}")
    digits = max(needed, WIRE_DIGITS)
    while digits > needed and largest.scaleb(digits) > LARGEST:
        digits -= 1
    return -digits
