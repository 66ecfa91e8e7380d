"""mdring: market data from venues to strategies, through a lock-free shared-memory ring.

::

    venue A ──ws/tls──▶ worker A ──▶ venue ring A ─┐
    venue B ──ws/tls──▶ worker B ──▶ venue ring B ─┼─▶ sequencer ──▶ tape ──▶ consumer 1 (strategy, in-process)
    venue C ──ws/tls──▶ worker C ──▶ venue ring C ─┘   (one global      └───▶ consumer 2 ...
                                                       sequence)
    supervisor: starts, watches and restarts all of them

The package in the order in which data flows through it:

=====================  ======================================================================================
``record``             the record: one dtype of 128 bytes, and its views per kind
``instrument``         the instrument table: ids, canonical symbols, exponents
``config``             ``config.toml``
``adapters``           one file per venue, sans-I/O: bytes in, records out
``feed``               process 1, the worker: connects, decodes, checks the book, stamps
``ring``               how a record crosses processes; knows no market data
``sequencer``          process 2: merges the venue rings onto the tape
``consumer``           process 3, yours: attach, poll, iterate
``book``               native order books from a batch of records
``consolidated``       the best bid and ask of a symbol over all its venues
``counters``           health, counters and latencies in shared memory
``supervisor``         starts, watches and restarts the processes of a run
``emulator``           venues on loopback: the demo, the test bench, the load generator
``cli``                the ``mdring`` command
=====================  ======================================================================================
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mdring.book import PRICE_LEVEL, Book, BookSet
    from mdring.book.late_join import JoinError
    from mdring.consolidated import ConsolidatedBbo, Liveness
    from mdring.consumer import Batch, Consumer, RunEnded, Statistics, attach
    from mdring.delivery import Delivery
    from mdring.event import Bbo, Status, Trade
    from mdring.instrument import INSTRUMENT, Instrument, InstrumentTable
    from mdring.last_value import LAST_BBO, AmbiguousInstrument, LastBbo, LastBook, LastStatus, LastTrade, Run, open_run
    from mdring.record import (
        BBO,
        CLEAR,
        LAYOUT_VERSION,
        LEVEL,
        RECORD,
        STATUS,
        TRADE,
        UNDEFINED_PRICE,
        Aggressor,
        DataType,
        Flags,
        Kind,
        Reason,
        Side,
        State,
        trade_id,
    )
    from mdring.ring.segment import LayoutMismatch
    from mdring.run_folder import RunError, RunNotFound
    from mdring.selection import UnknownInstrument
    from mdring.strategy import Strategy, run

__version__ = "0.1.0"

__all__ = [
    "BBO",
    "CLEAR",
    "INSTRUMENT",
    "LAST_BBO",
    "LAYOUT_VERSION",
    "LEVEL",
    "PRICE_LEVEL",
    "RECORD",
    "STATUS",
    "TRADE",
    "UNDEFINED_PRICE",
    "Aggressor",
    "AmbiguousInstrument",
    "Batch",
    "Bbo",
    "Book",
    "BookSet",
    "ConsolidatedBbo",
    "Consumer",
    "DataType",
    "Delivery",
    "Flags",
    "Instrument",
    "InstrumentTable",
    "JoinError",
    "Kind",
    "LastBbo",
    "LastBook",
    "LastStatus",
    "LastTrade",
    "LayoutMismatch",
    "Liveness",
    "Reason",
    "Run",
    "RunEnded",
    "RunError",
    "RunNotFound",
    "Side",
    "State",
    "Statistics",
    "Status",
    "Strategy",
    "Trade",
    "UnknownInstrument",
    "attach",
    "open_run",
    "run",
    "trade_id",
]

_HOMES: Final[dict[str, tuple[str, ...]]] = {
    "mdring.book": ("PRICE_LEVEL", "Book", "BookSet"),
    "mdring.book.late_join": ("JoinError",),
    "mdring.consolidated": ("ConsolidatedBbo", "Liveness"),
    "mdring.consumer": ("Batch", "Consumer", "RunEnded", "Statistics", "attach"),
    "mdring.delivery": ("Delivery",),
    "mdring.event": ("Bbo", "Status", "Trade"),
    "mdring.instrument": ("INSTRUMENT", "Instrument", "InstrumentTable"),
    "mdring.last_value": (
        "LAST_BBO",
        "AmbiguousInstrument",
        "LastBbo",
        "LastBook",
        "LastStatus",
        "LastTrade",
        "Run",
        "open_run",
    ),
    "mdring.record": (
        "BBO",
        "CLEAR",
        "LAYOUT_VERSION",
        "LEVEL",
        "RECORD",
        "STATUS",
        "TRADE",
        "UNDEFINED_PRICE",
        "Aggressor",
        "DataType",
        "Flags",
        "Kind",
        "Reason",
        "Side",
        "State",
        "trade_id",
    ),
    "mdring.ring.segment": ("LayoutMismatch",),
    "mdring.run_folder": ("RunError", "RunNotFound"),
    "mdring.selection": ("UnknownInstrument",),
    "mdring.strategy": ("Strategy", "run"),
}
_HOME: Final = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """A public name, imported when it is first used: most processes of a run need few of them."""
    if name not in _HOME:
        raise AttributeError(f"module 'mdring' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
