"""What venues of perpetuals and futures tell besides books and trades: index and mark price, funding, open interest,
liquidations; worked out from the simulated market.

Everything follows from the books and trades as they are, so all venues tell the same of the same instrument, and a
test can ask for the truth. A venue's face makes one per contract that it lists::

    contract = Contract(market, market.book_of("BTC-USDT-PERP"))
    contract.mark_price(), contract.funding_rate(), contract.next_funding_ms(now_ns)
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from mdring.emulator.book import Book, Trade
from mdring.emulator.instruments import USD_LIKE
from mdring.emulator.market import Market

FUNDING_INTERVAL_MS: Final = 8 * 3_600_000
FUNDING_CAP: Final = Decimal("0.00375")
LIQUIDATIONS: Final = 50
"""One in so many taker orders closes a position by force."""
EXTRA_DECIMALS: Final = 4
"""Calculated prices have so many more digits than the tick."""

_RATE: Final = Decimal("0.00000001")


class Contract:
    """One perpetual or dated future."""

    def __init__(self, market: Market, book: Book) -> None:
        """Raises ValueError for a spot instrument."""
        symbol = book.spec.symbol
        if symbol.is_spot:
            raise ValueError(f"{symbol} is no contract")
        self.book = book
        self._step = Decimal(1).scaleb(book.spec.price_exponent - EXTRA_DECIMALS)
        self._index = _index_book(market, symbol.base, symbol.quote)

    def index_price(self) -> Decimal:
        """The middle of the spot market of the same base; of the contract itself if there is none."""
        return _middle(self._index or self.book).quantize(self._step)

    def mark_price(self) -> Decimal:
        """Half way between the index and the contract's own middle, more or less as venues do it."""
        return ((self.index_price() + 3 * _middle(self.book)) / 4).quantize(self._step)

    def funding_rate(self) -> Decimal:
        """For the period that runs: how far the mark lies above the index, within the cap."""
        index = self.index_price()
        premium = ((self.mark_price() - index) / index / 8).quantize(_RATE)
        return min(max(premium, -FUNDING_CAP), FUNDING_CAP)

    def next_funding_ms(self, now_ns: int) -> int:
        """When it is paid, in ms."""
        now_ms = now_ns // 1_000_000
        return (now_ms // FUNDING_INTERVAL_MS + 1) * FUNDING_INTERVAL_MS

    def open_interest(self) -> Decimal:
        """In the unit of sizes. It rises and falls with the trades."""
        spec = self.book.spec
        steps = 100_000 + self.book.run % 10_000
        return Decimal(spec.typical_size // spec.step * steps * spec.step).scaleb(spec.size_exponent)


def is_liquidation(trade: Trade) -> bool:
    """Whether this fill closed a position by force; all fills of a run are alike in that."""
    return trade.run % LIQUIDATIONS == 0


def _index_book(market: Market, base: str, quote: str) -> Book | None:
    spots = {(symbol.base, symbol.quote): book for book in market.books if (symbol := book.spec.symbol).is_spot}
    quotes = [quote, *USD_LIKE] if quote in USD_LIKE else [quote]
    return next((spots[base, each] for each in quotes if (base, each) in spots), None)


def _middle(book: Book) -> Decimal:
    sides = [ladder.best for ladder in (book.bids, book.asks) if len(ladder)]
    middle = Decimal(sum(sides)) / len(sides) if sides else Decimal(book.spec.reference_price)
    return middle.scaleb(book.spec.price_exponent)
