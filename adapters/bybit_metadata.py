"""Bybit v5, metadata: which instruments there are, in which category, and how finely prices and sizes are written.

Documentation (read November 2026): bybit-exchange.github.io/docs/v5, "Get Instruments Info". One list for each
category; that of linear contracts comes in pages. The venue calls different products alike: BTCUSDT is a pair of the
category spot and a perpetual of the category linear. Hence the name of an instrument ends with its category::

    name_of("linear", "BTCUSDT")                        # 'BTCUSDT-LINEAR'
    product_of("BTCUSDT", "BTC-USDT-PERP", "spot")      # Product('linear', 'BTCUSDT')

Exponents: tick and step are rules for new orders and do change, while older orders stay in the book; so there is room
for some digits more. Prices of contracts are padded to the tick, those of spot pairs are not padded.

Used by ``bybit.py`` before it subscribes::

    infos, cursor = decode_instruments("linear", response.body, unknown)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct, field

from mdring.feed.adapter import Fetch, InstrumentInfo, UnknownMessages, VenueProtocolError
from mdring.feed.instrument_rows import decoded, infos_of, price_exponent, size_exponent
from mdring.record import DataType
from mdring.symbol import Symbol, date_of, future, parse, perpetual, plain_decimal, spot

SPOT: Final = "spot"
LINEAR: Final = "linear"
CATEGORIES: Final = (SPOT, LINEAR)
PAGE_ROWS: Final = 1000
"""As many as the venue allows; spot pairs come all at once."""
MORE_DIGITS: Final = 2
"""A tick, or a step, may have been finer by so many digits when an order came in that still rests."""
QUOTED: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
CONTRACT: Final = (*QUOTED, DataType.MARK, DataType.OPEN_INTEREST, DataType.LIQUIDATION)
OFFERED: Final[Mapping[str, tuple[DataType, ...]]] = {
    "": QUOTED,
    "LinearPerpetual": (*CONTRACT, DataType.FUNDING),
    "LinearFutures": CONTRACT,
}
"""By type of contract, "" for spot pairs: what the venue tells of it."""


class PriceFilter(Struct):
    """{"minPrice":"0.10","maxPrice":"1999999.80","tickSize":"0.10"}"""

    tick: str = field(name="tickSize")


class LotSizeFilter(Struct):
    """{"basePrecision":"0.000001","quotePrecision":"0.0000001","minOrderQty":"0.000011","maxOrderQty":"83","minOrderAmt":"5","maxOrderAmt":"8000000"}

    The step of sizes is ``basePrecision`` of spot pairs, ``qtyStep`` of contracts.
    """

    base_precision: str = field(name="basePrecision", default="")
    step: str = field(name="qtyStep", default="")


class Row(Struct):
    """{"symbol":"BTCUSDT","contractType":"LinearPerpetual","status":"Trading","baseCoin":"BTC","quoteCoin":"USDT","launchTime":"1585526400000","deliveryTime":"0","deliveryFeeRate":"","priceScale":"2","priceFilter":{"minPrice":"0.10","maxPrice":"1999999.80","tickSize":"0.10"},"lotSizeFilter":{"maxOrderQty":"1190.000","minOrderQty":"0.001","qtyStep":"0.001","minNotionalValue":"5"},"fundingInterval":480,"settleCoin":"USDT","isPreListing":false,"preListingInfo":null}"""

    symbol: str
    status: str
    base: str = field(name="baseCoin")
    quote: str = field(name="quoteCoin")
    price_filter: PriceFilter = field(name="priceFilter")
    lot_filter: LotSizeFilter = field(name="lotSizeFilter")
    contract: str = field(name="contractType", default="")
    settle: str = field(name="settleCoin", default="")
    delivery: str = field(name="deliveryTime", default="0")  # ms since the epoch


class Page(Struct):
    """{"category":"linear","list":[],"nextPageCursor":"first%3DBTCUSDT%26last%3DXRPUSDT"}"""

    rows: list[Raw] = field(name="list", default_factory=list)
    cursor: str = field(name="nextPageCursor", default="")


class Answer(Struct):
    """{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[]},"retExtInfo":{},"time":1735809771618}"""

    code: int = field(name="retCode")
    message: str = field(name="retMsg", default="")
    result: Page = field(default_factory=Page)


_ANSWER: Final = msgspec.json.Decoder(Answer)
_ROW: Final = msgspec.json.Decoder(Row)


# ---- names ------------------------------------------------------------------------------------------------


class Product(NamedTuple):
    """What a name means: the category, which the address of a connection chooses, and the venue's symbol."""

    category: str
    symbol: str

    @property
    def name(self) -> str:
        """The name that tells both."""
        return name_of(*self)


def name_of(category: str, symbol: str) -> str:
    """The instrument's name, as BTCUSDT-SPOT."""
    return f"{symbol}-{category.upper()}"


def product_of(instrument: str, canonical_symbol: str | None, category: str) -> Product:
    """What is meant. A name without a category is of that which its canonical symbol tells, else of ``category``."""
    symbol, _, tail = instrument.rpartition("-")
    if symbol and tail.lower() in CATEGORIES and tail.isupper():
        return Product(tail.lower(), symbol)
    try:
        is_spot = parse(canonical_symbol or "").is_spot
    except ValueError:  # none, or one of the user's own making
        return Product(category, instrument)
    return Product(SPOT if is_spot else LINEAR, instrument)


# ---- the lists --------------------------------------------------------------------------------------------


def instruments_fetch(rest_url: str, category: str, cursor: str = "") -> Fetch:
    """The request for a page; without ``cursor`` for the first one."""
    url = f"{rest_url.rstrip('/')}/v5/market/instruments-info?category={category}&limit={PAGE_ROWS}"
    return Fetch(f"{category} {cursor}".rstrip(), f"{url}&cursor={quote(cursor, safe='')}" if cursor else url)


def decode_instruments(category: str, body: bytes, unknown: UnknownMessages) -> tuple[list[InstrumentInfo], str]:
    """Metadata of all instruments of the page, and the cursor of the next one ("": there is none).

    A row that no record could be made for is noted and left out. Raises VenueProtocolError.
    """
    answer = decoded(_ANSWER, body, "instruments")
    if answer.code != 0:
        raise VenueProtocolError(f"instruments: {answer.code} {answer.message}")
    infos = infos_of(answer.result.rows, lambda raw: instrument_info(category, _ROW.decode(raw)), unknown)
    return infos, answer.result.cursor


def instrument_info(category: str, row: Row) -> InstrumentInfo:
    """Metadata as the port wants it. Raises ValueError for what it cannot hold."""
    step = row.lot_filter.base_precision if category == SPOT else row.lot_filter.step
    return InstrumentInfo(
        instrument=name_of(category, row.symbol),
        canonical_symbol=str(symbol_of(category, row)),
        price_exponent=price_exponent(row.price_filter.tick, MORE_DIGITS),
        size_exponent=size_exponent(step, MORE_DIGITS),
        base=row.base,
        quote=row.quote,
        trading=row.status == "Trading",
        settle=row.settle,
        size_unit=row.base,
        tick=plain_decimal(row.price_filter.tick),
        lot=plain_decimal(step),
        status=row.status,
        data_types=OFFERED["" if category == SPOT else row.contract],
    )


def symbol_of(category: str, row: Row) -> Symbol:
    """The canonical symbol. Raises ValueError, also for types that there is none for."""
    if not row.symbol:
        raise ValueError("an instrument has no name")
    if category == SPOT:
        return spot(row.base, row.quote)
    match row.contract:
        case "LinearPerpetual":
            return perpetual(row.base, row.quote, row.settle)
        case "LinearFutures":
            return future(row.base, row.quote, date_of(int(row.delivery)), row.settle)
    raise ValueError(f"a contract is called {row.contract!r}")
