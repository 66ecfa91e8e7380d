"""Start at any time with complete books: joined at one seq, then followed, nothing missed and nothing applied twice.

While ``bin/supervisor --demo`` runs in another terminal::

    .venv/bin/python examples/late_joiner.py [COUNT]

ends after COUNT changes of a best price, or with Ctrl-C.
"""

import sys
import time

import mdring
from mdring import Side

left = int(sys.argv[1]) if len(sys.argv) > 1 else -1
began_ns = time.perf_counter_ns()
with mdring.attach("demo", books=True) as tape:
    took_ms = (time.perf_counter_ns() - began_ns) / 1e6
    assert tape.books is not None
    print(f"joined {len(tape.books)} books at seq {tape.position} in {took_ms:.1f} ms")
    for instrument_id in tape.books:
        book, row = tape.books[instrument_id], tape.instrument(instrument_id)
        print(f"{row.name}: {book.depth(Side.BID)} bids, {book.depth(Side.ASK)} asks, valid: {book.valid}")
    tops: dict[int, tuple[int, int]] = {}
    for _ in tape:
        for instrument_id in tape.changed_books:
            book, row = tape.books[instrument_id], tape.instrument(instrument_id)
            top = (book.best_bid[0], book.best_ask[0])
            if left != 0 and book.valid and tops.get(instrument_id) != top:
                tops[instrument_id] = top
                print(f"seq {book.seq} {row.name} {row.price(top[0])} / {row.price(top[1])}")
                left -= 1
        if left == 0:
            break
