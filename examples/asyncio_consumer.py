"""A consumer inside an asyncio program: ``async for`` over batches beside other tasks, without a busy loop.

While ``bin/supervisor --demo`` runs in another terminal::

    .venv/bin/python examples/asyncio_consumer.py [COUNT]

ends after COUNT records, or with Ctrl-C.
"""

import asyncio
import sys
from collections import Counter

import mdring

seen: Counter[str] = Counter()


async def consume(most: int) -> None:
    with mdring.attach("demo") as tape:
        async for batch in tape:
            for row in tape.instruments:
                seen[row.canonical_symbol] += int((batch["instrument_id"] == row.id).sum())
            if seen.total() >= most:
                return


async def report(interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        print(", ".join(f"{symbol} {count}" for symbol, count in seen.most_common()))


async def main() -> None:
    reporting = asyncio.create_task(report(0.5))
    await consume(int(sys.argv[1]) if len(sys.argv) > 1 else sys.maxsize)
    reporting.cancel()
    print(f"{seen.total()} records of {len(seen)} instruments")


asyncio.run(main())
