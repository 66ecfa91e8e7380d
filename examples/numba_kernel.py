"""A compiled kernel over whole batches: volume-weighted average price and signed volume of every instrument.

Columns of a batch are plain numpy arrays, so ``@njit`` code loops over them without a Python object per record.
Needs numba (``pip install mdring[numba]``). While ``bin/supervisor --demo`` runs in another terminal::

    .venv/bin/python examples/numba_kernel.py [COUNT]

ends after COUNT records, or with Ctrl-C.
"""

import sys

import numpy as np
from numba import njit

import mdring

TRADE, BUY = int(mdring.Kind.TRADE), int(mdring.Aggressor.BUY)


@njit
def add_trades(kind, instrument_id, aggressor, price, size, notional, volume, signed_volume):  # type: ignore
    for i in range(len(kind)):
        if kind[i] == TRADE:
            instrument = instrument_id[i]
            notional[instrument] += float(price[i]) * size[i]
            volume[instrument] += size[i]
            signed_volume[instrument] += size[i] if aggressor[i] == BUY else -size[i]


most = int(sys.argv[1]) if len(sys.argv) > 1 else sys.maxsize
notional, volume, signed_volume = np.zeros(4096), np.zeros(4096), np.zeros(4096)
with mdring.attach("demo", kinds=[mdring.Kind.TRADE]) as tape:
    for batch in tape:
        trades = batch.view(mdring.TRADE)
        columns = (trades[name] for name in ("kind", "instrument_id", "aggressor", "price", "size"))
        add_trades(*columns, notional, volume, signed_volume)
        if tape.statistics().records >= most:
            break
    for row in tape.instruments:
        if volume[row.id]:
            average = notional[row.id] / volume[row.id] * 10.0**row.price_exponent
            sizes = np.array([volume[row.id], signed_volume[row.id]]) * 10.0**row.size_exponent
            print(f"{row.name} average price {average:.6g} volume {sizes[0]:.6g} bought minus sold {sizes[1]:.6g}")
