"""Print trades as they come: ten lines from a venue to your terminal.

While ``bin/supervisor --demo`` runs in another terminal::

    .venv/bin/python examples/print_trades.py [COUNT]

ends after COUNT trades, or with Ctrl-C.
"""

import sys

import mdring


class Printer(mdring.Strategy):
    left = int(sys.argv[1]) if len(sys.argv) > 1 else None

    def on_trade(self, trade: mdring.Trade) -> None:
        side = "bought" if trade.is_buy else "sold"
        print(trade.instrument.canonical_symbol, side, trade.size_decimal, "at", trade.price_decimal)
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                self.stop()


mdring.run(Printer(), "demo", instruments=["BTC-USDT", "ETH-USDT"])
