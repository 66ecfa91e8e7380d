"""The emulated universe: which instruments exist and on which grids their prices and sizes lie.

The emulator process builds one universe at start from canonical symbols; every venue face maps it to the
venue's own names. Prices and sizes are integers: ``value = price * 10 ** price_exponent``::

    universe(["BTC-USDT"])[0].reference_price   # 7_000_000, that is 70,000.00 at exponent -2

Sizes are of the base asset, but those of inverse contracts (``BTC-USD-PERP@BTC``) are of the quote asset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from msgspec import Struct

from mdring.symbol import Product, Symbol, parse


class InstrumentSpec(Struct, frozen=True, kw_only=True):
    """One instrument of the simulated market, in no venue's words.

    ``tick`` and ``step`` are the grids of prices and sizes in units of the exponents; ``level_gap`` is the
    mean distance of neighbouring levels in ticks; ``typical_size`` the median size of a level in steps;
    ``activity`` the instrument's share of all events, relative to the others'.
    """

    canonical_symbol: str
    price_exponent: int
    size_exponent: int
    reference_price: int
    typical_size: int
    tick: int = 1
    step: int = 1
    level_gap: int = 2
    activity: int = 2

    @property
    def symbol(self) -> Symbol:
        """The canonical symbol in its parts."""
        return parse(self.canonical_symbol)

    @property
    def base(self) -> str:
        """The asset that is bought and sold."""
        return self.symbol.base

    @property
    def quote(self) -> str:
        """The asset in which the price is told."""
        return self.symbol.quote


def _spec(
    symbol: str, price_exponent: int, size_exponent: int, price: int, size: int, gap: int, activity: int
) -> InstrumentSpec:
    return InstrumentSpec(
        canonical_symbol=symbol,
        price_exponent=price_exponent,
        size_exponent=size_exponent,
        reference_price=price,
        typical_size=size,
        level_gap=gap,
        activity=activity,
    )


KNOWN: Final[dict[str, InstrumentSpec]] = {
    spec.canonical_symbol: spec
    for spec in (
        #     symbol     price, size exp.  price    size gap activity
        _spec("BTC-USDT", -2, -5, 7_000_000, 12_000, 40, 30),
        _spec("ETH-USDT", -2, -4, 350_000, 25_000, 6, 20),
        _spec("SOL-USDT", -2, -3, 17_000, 60_000, 2, 10),
        _spec("XRP-USDT", -4, -1, 22_000, 9_000, 2, 8),
        _spec("BNB-USDT", -2, -3, 65_000, 4_000, 3, 6),
        _spec("DOGE-USDT", -5, 0, 35_000, 8_000, 2, 6),
        _spec("ADA-USDT", -4, -1, 9_000, 30_000, 1, 4),
        _spec("LTC-USDT", -2, -3, 9_500, 15_000, 2, 4),
        _spec("SHIB-USDT", -8, 0, 2_500, 40_000_000, 1, 3),
        _spec("ETH-BTC", -5, -4, 5_000, 50_000, 1, 3),
        _spec("BTC-EUR", -2, -5, 6_400_000, 6_000, 60, 3),
        _spec("USDC-USDT", -4, 0, 9_998, 250_000, 1, 3),
        _spec("BTC-USD", -2, -5, 7_000_000, 9_000, 50, 8),
        _spec("ETH-USD", -2, -4, 350_000, 20_000, 8, 5),
        _spec("BTC-USDT-PERP", -1, -3, 700_000, 900, 3, 20),
        _spec("ETH-USDT-PERP", -2, -3, 350_000, 8_000, 3, 12),
        _spec("SOL-USDT-PERP", -3, 0, 170_000, 90, 12, 6),
        _spec("1000PEPE-USDT-PERP", -7, 0, 123_450, 400_000, 2, 3),
        _spec("BTC-USDC-PERP", -1, -3, 700_000, 500, 4, 4),
        _spec("BTC-USD-PERP", -1, -4, 700_000, 4_000, 5, 4),
        _spec("BTC-USD-PERP@BTC", -1, 1, 700_000, 2_000, 4, 6),
        _spec("BTC-USDT-20261225", -1, -3, 712_000, 600, 5, 3),
        _spec("BTC-USD-20261225@BTC", -1, 1, 712_000, 1_500, 5, 2),
    )
}
"""Instruments with plausible numbers; also the universe when none is named."""


def universe(symbols: Sequence[str] = ()) -> list[InstrumentSpec]:
    """The specs of these canonical symbols, in their order; of all of ``KNOWN`` if there are none.

    A symbol outside ``KNOWN`` is traded at what its assets are worth in those that are in it, hence coherently with
    them; an asset of which none tells is worth about 100 USD, each another sum.
    Raises ValueError for what is no canonical symbol, or occurs twice.
    """
    if not symbols:
        return list(KNOWN.values())
    if len(set(symbols)) != len(symbols):
        raise ValueError(f"an instrument is named twice in {', '.join(symbols)}")
    return [KNOWN.get(symbol) or _derived(symbol) for symbol in symbols]


USD_LIKE: Final = ("USDT", "USD", "USDC")
"""Assets that are worth a dollar, or nearly so."""
TYPICAL_NOTIONAL: Final = 8_000
"""What a level is worth in dollars, more or less."""
OPTION_PREMIUM: Final = Decimal("0.05")
"""Price of an option, as a share of its underlying's."""
MIN_PRICE_EXPONENT: Final = -8
"""No venue here writes more decimals."""
_MIN_SIZE_EXPONENT: Final = -8
_MIN_TICKS: Final = 100
"""A reference price is never less: a side needs room for its levels."""


def usd_value(asset: str) -> Decimal:
    """What one unit of an asset is worth in dollars, as ``KNOWN`` has it."""
    if asset in USD_LIKE:
        return Decimal(1)
    for spec in KNOWN.values():
        symbol, price = spec.symbol, Decimal(spec.reference_price).scaleb(spec.price_exponent)
        if symbol.base == asset and symbol.quote in USD_LIKE:
            return price
        if symbol.quote == asset and symbol.is_spot:
            return usd_value(symbol.base) / price
    return 100 + Decimal(sum(asset.encode())).scaleb(-2)


def _derived(text: str) -> InstrumentSpec:
    try:
        symbol = parse(text)
    except ValueError as error:
        raise ValueError(f"an instrument's name is of no use: {error}") from None
    price = usd_value(symbol.base) / usd_value(symbol.quote)
    if symbol.product is Product.OPTION:  # of an inverse one it is told in the base asset
        price = OPTION_PREMIUM * (1 if symbol.is_inverse else price)
    price_exponent = min(max(price.adjusted() - 4, MIN_PRICE_EXPONENT), -2)
    ticks = max(int(price.scaleb(-price_exponent)), _MIN_TICKS)
    counted = symbol.quote if symbol.is_inverse and symbol.product is not Product.OPTION else symbol.base
    size = TYPICAL_NOTIONAL / usd_value(counted)
    size_exponent = 1 if counted != symbol.base else min(max(size.adjusted() - 4, _MIN_SIZE_EXPONENT), 0)
    return InstrumentSpec(
        canonical_symbol=text,
        price_exponent=price_exponent,
        size_exponent=size_exponent,
        reference_price=ticks,
        typical_size=max(int(size.scaleb(-size_exponent)), 1),
        level_gap=max(ticks // 200_000, 2),
    )


def decimal_text(value: int, exponent: int, decimals: int | None = None) -> str:
    """``value * 10 ** exponent`` as text with exactly ``decimals`` digits after the point (None: -exponent).

    ``decimal_text(7_000_012, -2, 8)`` is ``"70000.12000000"``. Raises ValueError if digits would be cut.
    """
    decimals = max(-exponent, 0) if decimals is None else decimals
    shift = decimals + exponent
    if shift < 0:
        raise ValueError(f"{value}e{exponent} does not fit in {decimals} decimals")
    digits = (str(abs(value)) + "0" * shift).rjust(decimals + 1, "0")
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}" if decimals else f"{sign}{digits}"


def decimal_formatter(exponent: int, decimals: int) -> Callable[[int], str]:
    """``decimal_text`` for non-negative values, with exponent and decimals fixed: the one for hot paths."""
    if exponent >= 0 or decimals + exponent < 0:
        return lambda value: decimal_text(value, exponent, decimals)
    unit: int = 10**-exponent
    pattern = f"%d.%0{-exponent}d" + "0" * (decimals + exponent)

    def format_value(value: int) -> str:
        return pattern % divmod(value, unit)

    return format_value
