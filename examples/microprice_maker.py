"""A market-making signal: two-sided quotes around the microprice, leaning against the inventory.

Shows the callbacks of a strategy at work together: books that are kept for it, trades as the quotes' fills (on paper:
a trade through a quote fills it), and quotes that are withdrawn while the book is invalid. While
``bin/supervisor --demo`` runs in another terminal::

    .venv/bin/python examples/microprice_maker.py [COUNT]

ends after COUNT changes of the quotes, or with Ctrl-C.
"""

import sys
from math import ceil, floor

import mdring
from mdring.book import Book

TICK = 0.01
HALF_SPREAD = 2e-6  # of the price
LEAN = 2e-6  # of the price, per unit of inventory


class MicropriceMaker(mdring.Strategy):
    inventory = 0.0
    quotes: tuple[float, float] | None = None
    left = int(sys.argv[1]) if len(sys.argv) > 1 else -1

    def on_book(self, book: Book) -> None:
        row = self.tape.instrument(book.instrument_id)
        fair = book.microprice
        if fair is None:  # invalid, or a side is empty: no quote is better than a wrong one
            self.quote(None)
            return
        price = fair * 10**row.price_exponent * (1 - LEAN * self.inventory)
        bid, ask = price * (1 - HALF_SPREAD), price * (1 + HALF_SPREAD)
        self.quote((round(floor(bid / TICK) * TICK, 2), round(ceil(ask / TICK) * TICK, 2)))

    def on_trade(self, trade: mdring.Trade) -> None:
        if self.quotes is None:
            return
        if not trade.is_buy and trade.price_float <= self.quotes[0]:
            self.inventory += trade.size_float
        elif trade.is_buy and trade.price_float >= self.quotes[1]:
            self.inventory -= trade.size_float

    def on_lost(self, lost: int) -> None:
        print(f"too slow for {lost} records; the book has been joined anew")

    def quote(self, quotes: tuple[float, float] | None) -> None:
        if quotes == self.quotes:
            return
        self.quotes = quotes
        print(
            "no quotes"
            if quotes is None
            else f"bid {quotes[0]:.2f} ask {quotes[1]:.2f} inventory {self.inventory:+.5f}"
        )
        self.left -= 1
        if self.left == 0:
            self.stop()


mdring.run(MicropriceMaker(), "demo", instruments=["binance:BTC-USDT"])
