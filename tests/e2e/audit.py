"""A recorded tape held against what the emulator says it put on the wire: nothing wrong, nothing twice, no loss untold.

An ``Audit`` is of one venue of one run. Each method raises AssertionError with the first contradiction::

    audit = Audit(records, instruments, read_truth_log(path))
    audit.check_trades(), audit.check_quotes(), audit.check_books()

What counts as told: between two records that enclose a hole there is a STATUS on the instrument or on its venue.
What counts as whole: of each connection everything up to some message is on the tape, and nothing after it (a
connection ends with its worker, and takes what was under way along); ``complete`` demands everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from mdring.instrument import Instrument
from mdring.record import (
    BBO,
    CLEAR,
    LEVEL,
    TRADE,
    DataType,
    Flags,
    Kind,
    State,
)
from tests.e2e.stream import Records, of_kind
from tests.e2e.wire import Sent

Seqs = npt.NDArray[np.uint64]

_TELL_LOSS = frozenset(
    {
        *(State.RECONNECTING, State.DISCONNECTED, State.CIRCUIT_OPEN),
        *(State.GAP, State.RESYNCING, State.REJECTED, State.DROPPED),
    }
)


def exact(instrument: Instrument, price: Decimal, size: Decimal) -> tuple[int, int]:
    """Price and size as the instrument's records have them; no rounding."""
    return _scaled(price, instrument.price_exponent), _scaled(size, instrument.size_exponent)


def _scaled(value: Decimal, exponent: int) -> int:
    number = value.scaleb(-exponent)
    assert number == number.to_integral_value(), f"{value} is no multiple of 10**{exponent}"
    return int(number)


class Audit:
    """One venue's share of a tape, and the wire of its emulator."""

    def __init__(
        self,
        records: Records,
        instruments: Iterable[Instrument],
        sent: Sequence[Sent],
        *,
        complete: bool = False,
        lossy_ring: bool = False,
        standing: Mapping[int, int] | None = None,
    ) -> None:
        """``records`` in the order of seq, and all that was sent: of the whole run, or since a standstill at which the
        books stood at the ids ``standing`` (by instrument id). ``lossy_ring``: the venue ring was full at times, so
        holes are allowed anywhere, if they are told."""
        self._records = records
        self._instruments = list(instruments)
        self._sent = sent
        self._complete = complete
        self._lossy = lossy_ring
        self._standing = standing or {}

    def check(self) -> None:
        """Everything."""
        self.check_trades()
        self.check_quotes()
        self.check_books()

    # ---- trades and quotes --------------------------------------------------------------------------------

    def check_trades(self) -> None:
        """Each trade of the tape was sent, is exact, stands there once; every missing id is told."""
        for instrument in self._instruments:
            of_tape = self._of(instrument, Kind.TRADE).view(TRADE)
            sent = self._sent_of(instrument, DataType.TRADE)
            true_of = {message.last: message for message in sent if message.readable}
            ids = [int(number) for number in of_tape["trade_id"]]
            assert len(set(ids)) == len(ids), f"{instrument.name}: a trade stands on the tape twice"
            for trade in of_tape:
                self._check_trade(instrument, trade, true_of)
            self._check_whole(instrument, sent, set(ids))
            self._check_holes_are_told(instrument, of_tape)

    def _check_trade(self, instrument: Instrument, trade: np.void, true_of: Mapping[int, Sent]) -> None:
        true = true_of.get(int(trade["trade_id"]))
        assert true is not None, f"{instrument.name}: trade {trade['trade_id']} was never sent"
        (row,) = true.rows
        assert int(trade["aggressor"]) == row.what and int(trade["ts_event"]) == true.ts_event, f"not as sent: {trade}"
        assert (int(trade["price"]), int(trade["size"])) == exact(instrument, row.price, row.size), (
            f"not as sent: {trade}"
        )

    def _check_holes_are_told(self, instrument: Instrument, trades: Records) -> None:
        """Between trades whose ids are not consecutive stands a STATUS; in order but for those flagged RECOVERED."""
        in_order = trades[(trades["flags"] & Flags.RECOVERED) == 0]
        ids = in_order["trade_id"].astype(np.int64)
        assert (np.diff(ids) > 0).all(), f"{instrument.name}: trades out of order"
        tellings = self._tellings(instrument, (DataType.TRADE, DataType.STATUS))
        for at in np.flatnonzero(np.diff(ids) != 1):
            before, after = in_order[at], in_order[at + 1]
            told = (tellings > before["seq"]) & (tellings < after["seq"])
            assert told.any(), (
                f"{instrument.name}: trades {before['trade_id']} and {after['trade_id']} follow one another at seq "
                f"{before['seq']} and {after['seq']}, and no STATUS between them tells the loss"
            )

    def check_quotes(self) -> None:
        """Each quote of the tape was sent, is exact, and they are in the venue's order, none twice."""
        for instrument in self._instruments:
            of_tape = self._of(instrument, Kind.BBO).view(BBO)
            sent = self._sent_of(instrument, DataType.BBO)
            true_of = {message.last: message for message in sent if message.readable}
            ids = of_tape["venue_seq"].astype(np.int64)
            assert (np.diff(ids) > 0).all(), f"{instrument.name}: quotes out of order, or twice"
            for quote in of_tape:
                true = true_of.get(int(quote["venue_seq"]))
                assert true is not None, f"{instrument.name}: quote {quote['venue_seq']} was never sent"
                sides = [(int(quote[f"{side}_price"]), int(quote[f"{side}_size"])) for side in ("bid", "ask")]
                assert sides == [exact(instrument, row.price, row.size) for row in true.rows], f"not as sent: {quote}"
            self._check_whole(instrument, sent, set(ids.tolist()))

    def _check_whole(self, instrument: Instrument, sent: Sequence[Sent], on_tape: set[int]) -> None:
        """Of each connection, a part from its beginning on is on the tape without a hole."""
        if self._lossy:
            return
        connections: dict[int, list[int]] = {}
        for message in sent:
            if message.intact:
                connections.setdefault(message.connection, []).append(message.last)
        for connection, ids in connections.items():
            newest = np.maximum.accumulate(ids)
            due = [number for number, highest in zip(ids, newest, strict=True) if number == highest]
            found = [number in on_tape for number in due]
            whole = found.index(False) if False in found else len(found)
            assert not any(found[whole:]), (
                f"{instrument.name}: {sent[0].data_type.name} {due[whole]} was sent on connection {connection}, "
                f"later ones of it are on the tape, it is not"
            )
            assert whole == len(due) or not self._complete, (
                f"{instrument.name}: {sent[0].data_type.name} {due[whole]} was sent on connection {connection} "
                f"and is not on the tape"
            )

    # ---- books --------------------------------------------------------------------------------------------

    def check_books(self) -> None:
        """Each delta is exact and whole; between CLEARs they follow one another and the snapshot; CLEARs are told."""
        for instrument in self._instruments:
            _BookWalk(
                instrument,
                self._of(instrument, Kind.LEVEL, Kind.CLEAR),
                self._sent_of(instrument, DataType.BOOK),
                self._tellings(instrument, (DataType.BOOK, DataType.STATUS)),
                self._ends_of_validity(instrument),
                self._standing.get(instrument.id, 0),
            ).check()

    def _ends_of_validity(self, instrument: Instrument) -> list[int]:
        """Seqs at which it was said that no connection of the venue is left, or that the book must be rebuilt."""
        statuses = of_kind(self._records, Kind.STATUS)
        of_venue = (statuses["venue_id"] == instrument.venue_id) & (statuses["instrument_id"] == 0)
        of_book = (statuses["instrument_id"] == instrument.id) & (statuses["data_type"] == DataType.BOOK)
        ends = of_venue & (statuses["state"] == State.DISCONNECTED)
        ends |= of_book & np.isin(statuses["state"], [State.GAP, State.RESYNCING])
        return [int(seq) for seq in statuses["seq"][ends]]

    # ---- parts of the tape and of the wire ----------------------------------------------------------------

    def _of(self, instrument: Instrument, *kinds: Kind) -> Records:
        chosen = (self._records["instrument_id"] == instrument.id) & np.isin(self._records["kind"], kinds)
        records: Records = self._records[chosen]
        return records

    def _sent_of(self, instrument: Instrument, data_type: DataType) -> list[Sent]:
        return [
            message
            for message in self._sent
            if message.data_type is data_type and message.instrument == instrument.instrument and message.last
        ]

    def _tellings(self, instrument: Instrument, data_types: Sequence[DataType]) -> Seqs:
        """Seqs of the STATUS records that tell a loss of these data of the instrument."""
        statuses = of_kind(self._records, Kind.STATUS)
        concerns = (statuses["instrument_id"] == instrument.id) & np.isin(statuses["data_type"], data_types)
        concerns |= (statuses["instrument_id"] == 0) & (statuses["venue_id"] == instrument.venue_id)
        seqs: Seqs = statuses["seq"][concerns & np.isin(statuses["state"], list(_TELL_LOSS))]
        return seqs


class _BookWalk:
    """Goes through the book records of one instrument as they follow one another on the tape."""

    def __init__(
        self,
        instrument: Instrument,
        records: Records,
        sent: Sequence[Sent],
        tellings: Seqs,
        ends: list[int],
        standing: int,
    ) -> None:
        self._instrument = instrument
        self._records = records
        self._true_of = {message.last: message for message in sent if message.readable}
        self._tellings = tellings
        self._ends = ends
        self._local = standing  # the id that the book stands at; 0: it is invalid
        self._live = False  # whether a delta came after the snapshot
        self._valid_since = 0  # seq of the snapshot's end

    def check(self) -> None:
        """Walk."""
        ends = np.flatnonzero(self._records["flags"] & Flags.LAST)
        # STATUS and CLEAR share a group, so what is left of a group here may lack its first record, never its last.
        for group in np.split(self._records, ends + 1):
            if len(group):
                self._take(group)

    def _take(self, group: Records) -> None:
        seq = int(group["seq"][0])
        snapshot = bool(group["flags"][0] & Flags.SNAPSHOT)
        while self._ends and self._ends[0] < seq:
            self._ends.pop(0)
            assert not self._local or (group["kind"][0] == Kind.CLEAR and not snapshot), (
                f"{self._instrument.name}: the book ended before seq {seq}, where a CLEAR is due"
            )
        if group["kind"][0] == Kind.CLEAR and not snapshot:
            self._on_clear(group, seq)
        elif snapshot:
            self._on_snapshot(group)
        else:
            self._on_delta(group)

    def _on_clear(self, group: Records, seq: int) -> None:
        assert len(group) == 1, f"{self._instrument.name}: records follow the CLEAR of seq {seq} in its group"
        told = (self._tellings > self._valid_since) & (self._tellings < seq)
        assert told.any(), f"{self._instrument.name}: no STATUS tells why the book is cleared at seq {seq}"
        self._local = 0

    def _on_snapshot(self, group: Records) -> None:
        clear, levels = group[:1].view(CLEAR)[0], group[1:].view(LEVEL)
        assert clear["kind"] == Kind.CLEAR and (levels["kind"] == Kind.LEVEL).all(), "a snapshot of other records"
        assert len(levels), f"{self._instrument.name}: an empty snapshot at seq {clear['seq']}"
        assert (group["flags"] & Flags.SNAPSHOT).all() and (group["venue_seq"] == clear["venue_seq"]).all()
        self._local = int(clear["venue_seq"])
        self._live = False
        self._valid_since = int(group["seq"][-1])

    def _on_delta(self, group: Records) -> None:
        name, seq, number = self._instrument.name, group["seq"][0], int(group["venue_seq"][0])
        assert self._local, f"{name}: seq {seq} changes a book that is invalid"
        true = self._true_of.get(number)
        assert true is not None, f"{name}: the delta of seq {seq} to {number} was never sent"
        first, due = true.first, self._local + 1
        follows = first == due if self._live else first <= due <= true.last
        assert follows, f"{name}: the delta of seq {seq} begins at {first}, due is {due}"
        levels = group.view(LEVEL)
        found = [(int(level["side"]), int(level["price"]), int(level["size"])) for level in levels]
        expected = [(row.what, *exact(self._instrument, row.price, row.size)) for row in true.rows]
        assert found == expected, f"{name}: the delta of seq {seq} is not as sent"
        assert (levels["ts_event"] == true.ts_event).all(), f"{name}: seq {seq} has another ts_event than was sent"
        self._local = number
        self._live = True
