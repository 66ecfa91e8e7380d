"""After every fault that an emulator can inject, the books rebuilt from the tape equal the true ones.

One system serves all cases. Each begins with books that stand right, lets the fault strike under load, waits until
the books are valid again, stops the market and compares every level. What the stream told on the way is held against
the wire (``audit.py``): losses by STATUS, then CLEAR of the books concerned and of no other.

The cases are made from ``FaultKind``: a new fault joins by itself, with the comparison and the audit; what more is
expected of the known ones stands in the tables below.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from msgspec import Struct
from msgspec.structs import replace

from mdring.counters import Counter
from mdring.emulator.faults import CONNECTION_FAULTS, CORRUPTIONS, FRAME_FAULTS, REST_FAULTS, FaultKind
from mdring.instrument import Instrument
from mdring.record import DataType, Flags, Kind, Reason, State
from tests.e2e.audit import Audit
from tests.e2e.recorder import Recorder
from tests.e2e.stream import Records, of_kind
from tests.e2e.system import UNDETECTABLE, VENUE, System

SYMBOLS: Final = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT", "BNB-USDT", "DOGE-USDT", "ADA-USDT", "LTC-USDT")
CHANNELS: Final = {DataType.TRADE: "@trade", DataType.BBO: "@bookTicker", DataType.BOOK: "@depth"}
IMPATIENT: Final = {"stale_after_ms": 3_000, "rest_timeout_ms": 1_500}
AFTERMATH: Final = 300  # records that must come after a fault before the books are looked at

Telling = tuple[State, Reason]


class Case(Struct, frozen=True):
    """A fault, where it strikes, and what the stream must say of it."""

    kind: FaultKind
    data_type: DataType = DataType.STATUS  # of the message that it befalls; STATUS: it befalls no message
    parameters: Mapping[str, Any] = {}
    prelude: FaultKind | None = None  # what makes it strike
    told: tuple[Telling, ...] = ()  # one of these must be said; none: nothing need be
    spares_others: bool = False  # no other book may be cleared
    spares_all: bool = False  # no book may be
    anew: bool = False  # it costs all books a snapshot, or one of them several: have a worker that has fetched none

    @property
    def name(self) -> str:
        """For people."""
        words = [str(self.kind), CHANNELS.get(self.data_type, "")]
        words += [f"{key}={value}" for key, value in self.parameters.items()]
        return " ".join(filter(None, words))


_GAP: Final = ((State.GAP, Reason.SEQUENCE_GAP),)
_BAD: Final = ((State.REJECTED, Reason.BAD_MESSAGE),)
_TOLD_OF_FRAME: Final[dict[FaultKind, tuple[Telling, ...]]] = {
    FaultKind.DROP: _GAP,
    FaultKind.REORDER: _GAP,
    FaultKind.GARBAGE: _BAD,
    FaultKind.TRUNCATE: _BAD,
    FaultKind.WRONG_TYPE: _BAD,
    FaultKind.HUGE_VALUE: ((State.REJECTED, Reason.VALUE_OUT_OF_RANGE),),
    FaultKind.CHECKSUM: _BAD,  # a message without a checksum becomes garbage
}
_HARMLESS: Final = frozenset({FaultKind.DUPLICATE, FaultKind.BINARY, FaultKind.ALTERED})  # for the books' validity
_CLOSED: Final = ((State.DISCONNECTED, Reason.CLOSED_BY_VENUE),)
_STALE: Final = ((State.DISCONNECTED, Reason.STALE),)
_FAILED: Final = ((State.RESYNCING, Reason.SNAPSHOT_FAILED),)
_PARAMETERS: Final[dict[FaultKind, tuple[tuple[Mapping[str, Any], tuple[Telling, ...]], ...]]] = {
    FaultKind.CLOSE: (({"code": 1001}, _CLOSED), ({"code": 1008, "reason": "Too many requests"}, _CLOSED)),
    FaultKind.RESET: (({}, _CLOSED),),
    FaultKind.STALL: (({"pings": True}, _STALE), ({"pings": False}, _STALE)),
    FaultKind.REFUSE: (
        ({"duration_ms": 2000}, ((State.DISCONNECTED, Reason.CONNECT_FAILED),)),
        ({"status": 503, "count": 2}, ((State.DISCONNECTED, Reason.HANDSHAKE_FAILED),)),
        ({"status": 429, "retry_after_s": 1}, ((State.DISCONNECTED, Reason.HANDSHAKE_FAILED),)),
    ),
    FaultKind.SHUTDOWN_NOTICE: (({}, ((State.DISCONNECTED, Reason.PLANNED_RECONNECT),)),),
    FaultKind.REST_SLOW: (({"delay_ms": 500}, ()), ({"delay_ms": 2_500}, _FAILED)),
    FaultKind.REST_ERROR: (
        ({"status": 500, "count": 2}, _FAILED),
        ({"status": 429, "retry_after_s": 1}, _FAILED),
        ({"status": 418, "retry_after_s": 1}, _FAILED),
        ({"status": 200, "body": "{"}, ((State.REJECTED, Reason.BAD_MESSAGE),)),
    ),
    FaultKind.REST_RESET: (({"count": 2}, _FAILED),),  # a GET is repeated once, silently, on a connection that lay idle
    FaultKind.STALE_SNAPSHOT: (({"count": 2}, ()),),
}
_PRELUDES: Final = {FaultKind.REFUSE: FaultKind.CLOSE} | dict.fromkeys(REST_FAULTS, FaultKind.DROP)


def _all_cases() -> Iterator[Case]:
    for kind in FaultKind:
        if kind in FRAME_FAULTS:
            yield from _frame_cases(kind)
            continue
        for parameters, told in _PARAMETERS.get(kind, (({}, ()),)):
            case = Case(kind, parameters=parameters, prelude=_PRELUDES.get(kind), told=told, anew=True)
            yield replace(case, spares_others=kind in REST_FAULTS)
        if kind in CONNECTION_FAULTS:
            (_, told), *_ = _PARAMETERS[kind]
            yield Case(kind, DataType.BOOK, told=told, anew=True)


def _frame_cases(kind: FaultKind) -> Iterator[Case]:
    for data_type in CHANNELS:
        told = _TOLD_OF_FRAME.get(kind, ())
        if data_type is DataType.BBO and kind not in CORRUPTIONS:
            told = ()  # ids of quotes skip; that one is missing nobody can tell
        harmless = data_type is not DataType.BOOK or kind in _HARMLESS
        yield Case(kind, data_type, told=told, spares_others=True, spares_all=harmless)


class Standstill(Struct, frozen=True):
    """Where everything stood while the market was paused."""

    seq: int
    truth_bytes: int
    books: Mapping[int, int]  # id at which a book stands, by instrument id
    crossed: int  # event groups so far that left a book crossed


class Bench:
    """The system that all cases share, with the tape as recorded so far."""

    def __init__(self, system: System, tape: Recorder) -> None:
        self.system = system
        self.tape = tape
        self.emulator = system.emulators["alpha"]
        self.instruments = tape.instruments("alpha")
        self._turn = 0

    def next_instrument(self) -> Instrument:
        """They take turns: a book that is rebuilt often waits the longer for its snapshots."""
        self._turn += 1
        return self.instruments[self._turn % len(self.instruments)]

    def settle(self) -> Standstill:
        """Compare all books at a standstill."""
        self.system.wait_until_synced()
        self.system.settle(self.tape)
        return Standstill(
            self.tape.last_seq,
            self.system.truth_log("alpha").stat().st_size,
            {row.id: self.tape.book(row).venue_seq for row in self.instruments},
            sum(self.tape.book(row).crossed for row in self.instruments),
        )

    def audit(self, since: Standstill) -> None:
        """Hold what came since then against what was sent since then."""
        records = self.tape.records(since.seq)
        sent = self.system.sent("alpha", since.truth_bytes)
        Audit(records, self.instruments, sent, standing=since.books).check()
        for instrument in self.instruments:
            self.system.check_snapshots(records, instrument)

    def quarantined(self, lines: int) -> list[dict[str, Any]]:
        """What was put into the quarantine file after so many lines."""
        path = self.system.directory / "state" / self.system.name / "quarantine-alpha.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()[lines:]] if path.exists() else []

    def replace_worker(self) -> None:
        """Have a worker without a past."""
        pid = self.system.kill("worker-alpha")
        self.system.wait_until_gone("worker-alpha", pid)
        self.system.wait_until_synced()

    def strike(self, case: Case, instrument: Instrument) -> int:
        """Let the fault happen; returns the last seq before it."""
        before = self.tape.last_seq
        fired = self.emulator.fired(VENUE).get(case.kind, 0)
        match = {}
        if case.data_type in CHANNELS:
            match = {"match": f"{instrument.instrument.lower()}{CHANNELS[case.data_type]}"}
        elif case.kind in REST_FAULTS:
            match = {"match": f"symbol={instrument.instrument}"}
        self.emulator.inject(VENUE, case.kind, **match, **case.parameters)
        if case.prelude is FaultKind.DROP:
            self.emulator.inject(VENUE, "drop", match=f"{instrument.instrument.lower()}@depth")
        elif case.prelude is not None:
            self.emulator.inject(VENUE, case.prelude)
        if case.kind is not FaultKind.SHUTDOWN_NOTICE:  # a message of the venue's, which counts as no fault
            self.system.wait_until(
                lambda: self.emulator.fired(VENUE).get(case.kind, 0) >= fired + case.parameters.get("count", 1),
                f"{case.name} has struck",
            )
        return before


@pytest.fixture(scope="module")
def bench(module_directory: Path) -> Iterator[Bench]:
    """The system of this module."""
    with System(module_directory, instruments=SYMBOLS, rate=800, connection=IMPATIENT) as system:
        system.start().wait_until_up()
        with system.recorder() as tape:
            yield Bench(system, tape)
            assert system.stop() == 0
            tape.join()


@pytest.mark.parametrize("case", list(_all_cases()), ids=lambda case: case.name)
def test_books_equal_the_true_ones_after(bench: Bench, case: Case) -> None:
    system, tape = bench.system, bench.tape
    bench.emulator.clear_faults()
    bench.emulator.resume()
    begun = bench.settle()
    bench.emulator.resume()
    if case.anew:
        bench.replace_worker()
    instrument = bench.next_instrument()
    rejects = system.counter("worker-alpha", Counter.REJECTS)
    struck = bench.strike(case, instrument)

    system.wait_until(lambda: _is_told(case, tape.records(struck), instrument), f"{case.told} is told")
    enough = tape.last_seq + AFTERMATH
    system.wait_until(lambda: tape.last_seq >= enough, "records go on")
    if case.spares_others and not case.spares_all:  # it may take the instrument's next delta to show the gap
        system.wait_until(lambda: instrument.id in _cleared(tape.records(struck)), "the book is given up")
    system.wait_until_synced()
    cleared = _cleared(tape.records(struck))
    if case.kind in UNDETECTABLE:  # until the next snapshot the books are what the venue said
        bench.replace_worker()
    ended = bench.settle()

    bench.audit(begun)
    assert ended.crossed == begun.crossed or case.kind in UNDETECTABLE
    if case.spares_all:
        assert not cleared
    elif case.spares_others:
        assert cleared == {instrument.id}
    elif case.told:
        assert cleared == {row.id for row in bench.instruments}
    refused = [reason.name for state, reason in case.told if state is State.REJECTED]
    assert system.counter("worker-alpha", Counter.REJECTS) == rejects + len(refused)
    assert [line["reason"] for line in bench.quarantined(rejects)] == refused


def _is_told(case: Case, records: Records, instrument: Instrument) -> bool:
    """Whether the stream has said what it must, of the instrument or of its venue."""
    if not case.told:
        return True
    statuses = of_kind(records, Kind.STATUS)
    statuses = statuses[np.isin(statuses["instrument_id"], [0, instrument.id])]
    said = set(zip(statuses["state"].tolist(), statuses["reason"].tolist(), strict=True))
    return not said.isdisjoint((int(state), int(reason)) for state, reason in case.told)


def _cleared(records: Records) -> set[int]:
    """Instruments whose books were said to be invalid."""
    clears = of_kind(records, Kind.CLEAR)
    return set(clears["instrument_id"][(clears["flags"] & Flags.SNAPSHOT) == 0].tolist())
