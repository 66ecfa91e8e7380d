"""The best bid and ask of one symbol over all venues of the run, and who has them; crossed venues are an arbitrage.

While ``bin/supervisor --demo`` runs in another terminal::

    .venv/bin/python examples/consolidated_bbo.py [COUNT]

ends after COUNT changes, or with Ctrl-C.
"""

import sys
import time

import mdring
from mdring.consolidated import BestPrice


def text(best: BestPrice | None) -> str:
    if best is None:
        return "none"
    return f"{best.size_decimal} at {best.price_decimal} ({', '.join(venue.venue for venue in best.venues)})"


left = int(sys.argv[1]) if len(sys.argv) > 1 else -1
with mdring.attach("demo", instruments=["BTC-USDT"], kinds=[mdring.Kind.BBO, mdring.Kind.STATUS]) as tape:
    consolidated = mdring.ConsolidatedBbo(tape, "BTC-USDT", stale_after_s=5)
    lost, before = 0, None
    for batch in tape:
        if tape.lost > lost:  # what was lost may have been the newest BBO of a venue
            lost = tape.lost
            consolidated.invalidate()
        if not consolidated.update(batch):
            continue
        best = consolidated.best(time.time_ns())
        if best != before:
            print("bid", text(best.bid), "ask", text(best.ask), "CROSSED" if best.is_crossed else "")
            before, left = best, left - 1
        if left == 0:
            break
