"""Coinbase Exchange, metadata: which products there are, how finely they are written, and whether they are traded.

Documentation (read November 2026): docs.cdp.coinbase.com/exchange, "Get all known trading pairs". One list holds all,
products that are no longer traded too. Names are canonical as they are: BASE-QUOTE.

Exponents: increments are rules for new orders and do change, while older orders stay in the book; so there is room for
some digits more. Numbers on the wire have more or fewer zeros than the increment.

Used by ``coinbase.py`` before it subscribes, and for the channel ``status``, whose rows are alike::

    infos = decode_products(response.body, unknown)
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from mdring.feed.adapter import Fetch, InstrumentInfo, UnknownMessages
from mdring.feed.instrument_rows import decoded, infos_of, price_exponent, size_exponent
from mdring.symbol import plain_decimal, spot

MORE_DIGITS: Final = 2
"""An increment may have been finer by so many digits when an order came in that still rests."""
ONLINE: Final = "online"


class Product(Struct):
    """{"id":"SKL-BTC","base_currency":"SKL","quote_currency":"BTC","quote_increment":"0.00000001","base_increment":"0.1","display_name":"SKL/BTC","min_market_funds":"0.0001","margin_enabled":false,"post_only":false,"limit_only":false,"cancel_only":false,"trading_disabled":false,"status":"online","status_message":""}"""

    id: str
    base_currency: str
    quote_currency: str
    base_increment: str
    quote_increment: str
    status: str
    cancel_only: bool = False
    trading_disabled: bool = False  # not told by the channel


_ROWS: Final = msgspec.json.Decoder(list[Raw])
_PRODUCT: Final = msgspec.json.Decoder(Product)


def products_fetch(rest_url: str) -> Fetch:
    """The list of all products."""
    return Fetch(tag="products", url=f"{rest_url.rstrip('/')}/products")


def decode_products(body: bytes, unknown: UnknownMessages) -> list[InstrumentInfo]:
    """Metadata of all products of the list. One that no record could be made for is noted and left out.

    Raises VenueProtocolError.
    """
    rows = decoded(_ROWS, body, "products")
    return infos_of(rows, lambda raw: instrument_info(_PRODUCT.decode(raw)), unknown)


def instrument_info(product: Product) -> InstrumentInfo:
    """Metadata as the port wants it. Raises ValueError for what it cannot hold."""
    if not product.id:
        raise ValueError("a product has no id")
    return InstrumentInfo(
        instrument=product.id,
        canonical_symbol=str(spot(product.base_currency, product.quote_currency)),
        price_exponent=price_exponent(product.quote_increment, MORE_DIGITS),
        size_exponent=size_exponent(product.base_increment, MORE_DIGITS),
        base=product.base_currency,
        quote=product.quote_currency,
        trading=is_trading(product.status, product.cancel_only, product.trading_disabled),
        size_unit=product.base_currency,
        tick=plain_decimal(product.quote_increment),
        lot=plain_decimal(product.base_increment),
        status=product.status,
    )


def is_trading(status: str, cancel_only: bool, trading_disabled: bool) -> bool:
    """Whether orders may meet. Under ``post_only`` and ``limit_only`` the book lives on, and in auctions, too."""
    return status == ONLINE and not cancel_only and not trading_disabled
