"""Canonical symbols: one name for one product, whatever its venues call it.

============  =================================  ==============================================
product       form                               example
============  =================================  ==============================================
spot          BASE-QUOTE                         BTC-USDT
perpetual     BASE-QUOTE-PERP                    BTC-USDT-PERP
dated future  BASE-QUOTE-YYYYMMDD                BTC-USDT-20261225
option        BASE-QUOTE-YYYYMMDD-STRIKE-C|P     BTC-USDC-20261225-90000-C
============  =================================  ==============================================

A derivative that is settled in another asset than its quote is another product, with other units of size and of
profit, so its symbol says so: ``@SETTLE`` is appended, as in the inverse ``BTC-USD-PERP@BTC``. QUOTE is the asset in
which the price, or the strike of an option, is told. Dates are those of the expiry in UTC. A strike is a plain decimal
without superfluous zeros. Assets are written as the venue writes them, but for :data:`ASSET_NAMES`; multiplied ones
(``1000PEPE``) keep their prefix, for prices and sizes are of so many.

The scheme is the same for all venues, whatever they call their instruments; what a venue calls otherwise than all
others stands in a table (``ASSET_NAMES``), never in code. ``adapters/README.md`` shows what becomes of which name.

The form is reversible: ``parse(str(symbol)) == symbol``. Adapters make symbols, the emulator reads them::

    str(perpetual("BTC", "USD", settle="BTC"))     # 'BTC-USD-PERP@BTC'
    parse("BTC-USDT-20261225").expiry              # '20261225'

This module imports nothing of mdring.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Final

from msgspec import Struct

ASSET_NAMES: Final[Mapping[str, Mapping[str, str]]] = {
    "kraken": {"XBT": "BTC", "XXBT": "BTC", "XDG": "DOGE", "XXDG": "DOGE"},
    "kraken_futures": {"XBT": "BTC"},
    "bitmex": {"XBT": "BTC", "XBt": "BTC", "USDt": "USDT"},
}
"""By venue: its own codes of assets that all others call otherwise."""

_PERPETUAL: Final = "PERP"
_ASSET: Final = re.compile(r"[^-@:*\s]+")
_DATE: Final = re.compile(r"\d{8}")
_STRIKE: Final = re.compile(r"(0|[1-9]\d*)(\.\d*[1-9])?")


class Product(StrEnum):
    """What is traded under a symbol."""

    SPOT = "spot"
    PERPETUAL = "perpetual"
    FUTURE = "future"
    OPTION = "option"


class Symbol(Struct, frozen=True):
    """A canonical symbol in its parts; ``str`` puts it together. Made by the functions below."""

    product: Product
    base: str
    quote: str
    settle: str = ""  # "" for spot; else the asset of settlement, most often the quote
    expiry: str = ""  # YYYYMMDD
    strike: str = ""
    right: str = ""  # "C" or "P"

    @property
    def is_spot(self) -> bool:
        """Whether the assets themselves are traded."""
        return self.product is Product.SPOT

    @property
    def is_inverse(self) -> bool:
        """Whether profit is paid in the base asset."""
        return self.settle == self.base

    def __str__(self) -> str:
        tail = [_PERPETUAL] if self.product is Product.PERPETUAL else []
        tail += [part for part in (self.expiry, self.strike, self.right) if part]
        settle = f"@{self.settle}" if self.settle not in ("", self.quote) else ""
        return "-".join([self.base, self.quote, *tail]) + settle


def asset(venue: str, code: str) -> str:
    """The asset that a venue calls ``code``."""
    return ASSET_NAMES.get(venue, {}).get(code, code)


def spot(base: str, quote: str) -> Symbol:
    """Raises ValueError, as all of these do, for what the form cannot hold."""
    return _checked(Symbol(Product.SPOT, base, quote))


def perpetual(base: str, quote: str, settle: str = "") -> Symbol:
    """``settle``: the quote, if not given."""
    return _checked(Symbol(Product.PERPETUAL, base, quote, settle or quote))


def future(base: str, quote: str, expiry: str, settle: str = "") -> Symbol:
    """``expiry`` is YYYYMMDD."""
    return _checked(Symbol(Product.FUTURE, base, quote, settle or quote, expiry))


def option(base: str, quote: str, expiry: str, strike: str, right: str, settle: str = "") -> Symbol:
    """``strike`` is any decimal text, ``right`` C or P."""
    return _checked(Symbol(Product.OPTION, base, quote, settle or quote, expiry, plain_decimal(strike), right))


def parse(text: str) -> Symbol:
    """The symbol in its parts. Raises ValueError."""
    name, at, settle = text.partition("@")
    if at and not settle:
        raise ValueError(f"{text!r} names no asset behind the @")
    match name.split("-"):
        case [base, quote] if not at:
            symbol = spot(base, quote)
        case [base, quote, "PERP"]:
            symbol = perpetual(base, quote, settle)
        case [base, quote, expiry]:
            symbol = future(base, quote, expiry, settle)
        case [base, quote, expiry, strike, right]:
            symbol = option(base, quote, expiry, strike, right, settle)
        case _:
            raise ValueError(f"{text!r} is no canonical symbol, as BTC-USDT, BTC-USDT-PERP or BTC-USD-20261225@BTC are")
    if str(symbol) != text:
        raise ValueError(f"{text!r} is written {str(symbol)!r}")
    return symbol


def plain_decimal(text: str) -> str:
    """A number without exponent, sign of plus and superfluous zeros. Raises ValueError."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no number") from None
    if not number.is_finite() or abs(number.adjusted()) > 30:
        raise ValueError(f"{text!r} is no number")
    plain = format(number, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def date_of(milliseconds: int) -> str:
    """YYYYMMDD, in UTC, of a time in ms since the epoch. Raises ValueError if that has no date."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y%m%d")
    except (OverflowError, OSError) as error:
        raise ValueError(f"{milliseconds} ms is no time: {error}") from None


def _checked(symbol: Symbol) -> Symbol:
    assets = [symbol.base, symbol.quote] + ([symbol.settle] if symbol.product is not Product.SPOT else [])
    for name in assets:
        if not _ASSET.fullmatch(name):
            raise ValueError(f"an asset is called {name!r}")
    if symbol.product in (Product.FUTURE, Product.OPTION):
        if not (_DATE.fullmatch(symbol.expiry) and symbol.expiry.isascii()):
            raise ValueError(f"an expiry is called {symbol.expiry!r}, and not YYYYMMDD")
        datetime.strptime(symbol.expiry, "%Y%m%d")
    if symbol.product is Product.OPTION:
        if not (_STRIKE.fullmatch(symbol.strike) and symbol.strike.isascii()):
            raise ValueError(f"a strike is called {symbol.strike!r}")
        if symbol.right not in ("C", "P"):
            raise ValueError(f"an option's right is called {symbol.right!r}, and not C or P")
    return symbol
