"""Deribit, metadata: which instruments there are, what amounts are of, and how finely prices and sizes are written.

Documentation (read November 2026): docs.deribit.com, ``public/get_instruments``. One list has all kinds of all
currencies. Where it is not found, as in old recordings, there are lists by currency (that in which an instrument is
settled). Combos have books, too, but are bundles of other instruments, for which there is no canonical symbol: they are
passed over.

Exponents: ticks are rules for new orders and grow with the price (``tick_size`` is the finest); block trades and the
legs of combos are priced more finely, so there is room for some digits more. Amounts of inverse futures are in USD,
all others in the base coin.

Used by ``deribit.py`` before it subscribes::

    infos = decode_instruments(response.body, unknown)
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

import msgspec
from msgspec import Raw, Struct

from mdring.feed.adapter import Fetch, InstrumentInfo, UnknownMessages
from mdring.feed.instrument_rows import decoded, digits_of, infos_of, price_exponent, size_exponent
from mdring.record import DataType
from mdring.symbol import Symbol, date_of, future, option, perpetual, plain_decimal, spot

ANY: Final = "any"
COMBOS: Final = ("future_combo", "option_combo")
MORE_PRICE_DIGITS: Final = 4
MORE_SIZE_DIGITS: Final = 2
"""What comes may be finer by so many digits than what can be ordered now."""

QUOTED: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
OFFERED: Final[Mapping[str, tuple[DataType, ...]]] = {
    "spot": QUOTED,
    "perpetual": (*QUOTED, DataType.FUNDING, DataType.MARK, DataType.OPEN_INTEREST, DataType.LIQUIDATION),
    "future": (*QUOTED, DataType.MARK, DataType.OPEN_INTEREST, DataType.LIQUIDATION),
    "option": (*QUOTED, DataType.MARK, DataType.OPEN_INTEREST, DataType.LIQUIDATION),
}
"""By product: what the venue tells of it."""
RIGHTS: Final = {"call": "C", "put": "P"}
ENDED: Final = ("delivered", "archivized", "closed", "settled", "terminated")
"""States that no trading follows; the last three are those of before 2026. ``is_active`` is also false for a while
when an instrument is locked."""


class Row(Struct):
    """{"tick_size":0.0001,"taker_commission":0.0003,"strike":100000.0,"settlement_period":"month","settlement_currency":"BTC","quote_currency":"BTC","price_index":"btc_usd","option_type":"call","min_trade_amount":0.1,"maker_commission":0.0003,"kind":"option","is_active":true,"instrument_type":"reversed","instrument_name":"BTC-25DEC26-100000-C","instrument_id":481742,"expiration_timestamp":1798185600000,"creation_timestamp":1766649600000,"counter_currency":"USD","contract_size":1.0,"block_trade_tick_size":0.0001,"block_trade_min_trade_amount":25,"block_trade_commission":0.0003,"base_currency":"BTC","tick_size_steps":[{"tick_size":0.0005,"above_price":0.005}],"state":"open"}"""

    instrument_name: str
    kind: str
    tick_size: Decimal
    contract_size: Decimal
    min_trade_amount: Decimal
    base_currency: str
    quote_currency: str
    counter_currency: str = ""  # absent in old recordings, as are the two that follow
    settlement_currency: str = ""
    state: str = ""
    is_active: bool = True
    settlement_period: str = ""
    expiration_timestamp: int = 0
    block_trade_tick_size: Decimal | None = None
    strike: Decimal | None = None
    option_type: str = ""


class Answer(Struct):
    """{"jsonrpc":"2.0","result":[],"usIn":1790133840888348,"usOut":1790133840889867,"usDiff":1519,"testnet":false}"""

    result: list[Raw]


_ANSWER: Final = msgspec.json.Decoder(Answer)
_ROW: Final = msgspec.json.Decoder(Row)


def instruments_fetch(rest_url: str, currency: str = ANY) -> Fetch:
    """The request for the list of a currency, or of all."""
    base = rest_url.rstrip("/")
    url = base if "/api/" in base else f"{base}/api/v2"
    return Fetch(tag=currency, url=f"{url}/public/get_instruments?currency={currency}&expired=false")


def currency_of(instrument: str) -> str:
    """In which list an instrument is: BTC of BTC-PERPETUAL, USDC of SOL_USDC-PERPETUAL."""
    base, _, quote = instrument.partition("-")[0].partition("_")
    return quote or base


def decode_instruments(body: bytes, unknown: UnknownMessages) -> list[InstrumentInfo]:
    """Metadata of all instruments of the list. One that no record could be made for is noted and left out.

    Raises VenueProtocolError.
    """

    def info(raw: Raw) -> InstrumentInfo | None:
        row = _ROW.decode(raw)
        return None if row.kind in COMBOS else instrument_info(row)

    return infos_of(decoded(_ANSWER, body, "instruments").result, info, unknown)


def instrument_info(row: Row) -> InstrumentInfo:
    """Metadata as the port wants it. Raises ValueError for what it cannot hold."""
    is_inverse_option = row.kind == "option" and row.quote_currency == row.base_currency
    quote = row.counter_currency or ("USD" if is_inverse_option else row.quote_currency)
    settle = row.settlement_currency or (row.base_currency if quote == "USD" else quote)
    symbol = symbol_of(row, quote, settle)
    lot = min(row.contract_size, row.min_trade_amount)  # the contract of an option may be traded in parts
    finest = min(row.tick_size, row.block_trade_tick_size or row.tick_size, key=lambda tick: digits_of(str(tick)))
    return InstrumentInfo(
        instrument=row.instrument_name,
        canonical_symbol=str(symbol),
        price_exponent=price_exponent(str(finest), MORE_PRICE_DIGITS),
        size_exponent=size_exponent(str(lot), MORE_SIZE_DIGITS),
        base=row.base_currency,
        quote=quote,
        trading=row.state not in ENDED if row.state else row.is_active,
        settle="" if symbol.is_spot else settle,
        size_unit=quote if row.kind == "future" and symbol.is_inverse else row.base_currency,
        tick=plain_decimal(str(row.tick_size)),
        lot=plain_decimal(str(lot)),
        status=row.state,
        data_types=OFFERED[symbol.product],
    )


def symbol_of(row: Row, quote: str, settle: str) -> Symbol:
    """The canonical symbol. Raises ValueError, also for kinds that there is none for."""
    match row.kind:
        case "spot":
            return spot(row.base_currency, quote)
        case "future" if row.settlement_period == "perpetual":
            return perpetual(row.base_currency, quote, settle)
        case "future":
            return future(row.base_currency, quote, date_of(row.expiration_timestamp), settle)
        case "option":
            expiry, right = date_of(row.expiration_timestamp), RIGHTS.get(row.option_type, row.option_type)
            return option(row.base_currency, quote, expiry, str(row.strike), right, settle)
    raise ValueError(f"a kind is called {row.kind!r}")
