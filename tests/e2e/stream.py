"""The rules that every record of a tape keeps, whatever happens to the processes that wrote it.

A ``StreamChecker`` is given the batches of one consumer, in order and without holes, from the first seq that it
had; it raises AssertionError at the first record that breaks a promise::

    checker = StreamChecker()
    checker.take(batch)
    checker.records, checker.cleared_instruments
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from mdring.record import (
    DATA_TYPE_OF_KIND,
    RECORD,
    UNDEFINED_PRICE,
    VIEW_OF_KIND,
    Aggressor,
    DataType,
    Flags,
    Kind,
    Reason,
    Side,
    State,
)

Records = npt.NDArray[np.void]
"""A structured array of RECORD."""

_ALL_FLAGS: Final = int(np.bitwise_or.reduce([int(flag) for flag in Flags]))
_DATA_TYPES: Final = np.full(256, 255, dtype=np.uint64)
for _kind, _data_type in DATA_TYPE_OF_KIND.items():
    _DATA_TYPES[_kind] = _data_type
_WORD_WEIGHTS: Final = np.random.default_rng(20251122).integers(1, 2**63, size=RECORD.itemsize // 8, dtype=np.uint64)


def digest(records: Records) -> int:
    """A number for the contents of records, each with its seq; that of two ranges together is their sum."""
    words = np.ascontiguousarray(records).view(np.uint64).reshape(-1, RECORD.itemsize // 8)
    with np.errstate(over="ignore"):
        return int((words * _WORD_WEIGHTS * (words[:, :1] * np.uint64(2) + np.uint64(1))).sum(dtype=np.uint64))


class StreamChecker:
    """What one consumer of a tape sees, judged batch by batch."""

    def __init__(self, *, venue_counts_trades: bool = True) -> None:
        """``venue_counts_trades``: trades have no other number than their ids, as those of Binance spot."""
        self.records = 0
        self.first_seq = 0
        self.last_seq = 0
        self._channels: dict[int, int] = {}
        self._begun = False
        self._venue_counts_trades = venue_counts_trades

    def take(self, batch: Records) -> None:
        """Judge the next records; none may have been lost before them."""
        if not len(batch):
            return
        if not self._begun:
            self._begun = True
            self.first_seq = int(batch["seq"][0])
            self.last_seq = self.first_seq - 1
        self._check_seq(batch)
        self._check_groups(batch)
        self._check_channels(batch)
        self._check_common_fields(batch)
        for kind in Kind:
            chosen = of_kind(batch, kind)
            if len(chosen):
                _CHECKS.get(kind, _check_padding)(chosen)
                if kind is Kind.TRADE and self._venue_counts_trades:
                    counted = chosen["trade_id"] == chosen["venue_seq"]
                    assert counted.all(), "trade_id is not what the venue counts by"
        self.last_seq = int(batch["seq"][-1])
        self.records += len(batch)

    def _check_seq(self, batch: Records) -> None:
        due = np.arange(self.last_seq + 1, self.last_seq + 1 + len(batch), dtype=np.uint64)
        wrong = np.flatnonzero(batch["seq"] != due)
        if len(wrong):
            at = int(wrong[0])
            raise AssertionError(f"seq {batch['seq'][at]} stands where {due[at]} is due")

    def _check_groups(self, batch: Records) -> None:
        """Groups are whole, and of one venue, one instant, one kind of data: nothing was put between their records."""
        last = (batch["flags"] & Flags.LAST) != 0
        assert last[-1], f"the batch that ends at seq {batch['seq'][-1]} ends inside an event group"
        inside = ~last[:-1]
        for field in ("venue_id", "ts_recv"):
            mixed = np.flatnonzero(inside & (batch[field][1:] != batch[field][:-1]))
            assert not len(mixed), f"{field} changes inside the event group of seq {batch['seq'][mixed[0]]}"
        data_types = _DATA_TYPES[batch["kind"]]
        mixed = np.flatnonzero(inside & (data_types[1:] != data_types[:-1]) & (data_types[:-1] != DataType.STATUS))
        assert not len(mixed), f"other data follow inside the event group of seq {batch['seq'][mixed[0]]}"

    def _check_channels(self, batch: Records) -> None:
        """channel_seq rises by exactly 1 per (venue, instrument, data type), from 1 if we saw the tape's beginning."""
        data_types = _DATA_TYPES[batch["kind"]]
        assert (data_types != 255).all(), f"unknown kinds: {set(batch['kind'].tolist())}"
        keys = batch["venue_id"].astype(np.uint64) << np.uint64(40)
        keys |= batch["instrument_id"].astype(np.uint64) << np.uint64(8)
        keys |= data_types
        order = np.argsort(keys, kind="stable")
        starts = np.flatnonzero(np.diff(keys[order], prepend=keys[order][0] + np.uint64(1)))
        for places in np.split(order, starts[1:]):
            key = int(keys[places[0]])
            found = batch["channel_seq"][places]
            newcomer = 0 if self.first_seq == 1 else int(found[0]) - 1
            due = np.arange(len(found), dtype=np.uint64) + np.uint64(self._channels.get(key, newcomer) + 1)
            wrong = np.flatnonzero(found != due)
            if len(wrong):
                record = batch[places[wrong[0]]]
                raise AssertionError(
                    f"seq {record['seq']}: channel_seq {record['channel_seq']} of instrument "
                    f"{record['instrument_id']} {DataType(key & 255).name} where {due[wrong[0]]} is due"
                )
            self._channels[key] = int(found[-1])

    def _check_common_fields(self, batch: Records) -> None:
        assert (batch["ts_recv"] > 0).all(), "a record without ts_recv"
        assert (batch["ts_seq"] >= batch["ts_recv"]).all(), "a record was sequenced before it was received"
        assert (batch["venue_id"] > 0).all(), "a record of no venue"
        assert not (batch["flags"] & ~np.uint8(_ALL_FLAGS)).any(), "a record with unknown flags"
        nameless = (batch["instrument_id"] == 0) & (batch["kind"] != Kind.STATUS)
        assert not nameless.any(), f"seq {batch['seq'][nameless][:1]}: market data of no instrument"
        without_time = (batch["ts_event"] == 0) & np.isin(batch["kind"], [Kind.TRADE, Kind.BBO, Kind.LEVEL])
        told = (batch["flags"] & Flags.BAD_TS_EVENT) != 0
        assert (without_time == told).all(), "BAD_TS_EVENT stands where it should not, or not where it should"


def _check_trades(trades: Records) -> None:
    assert (trades["price"] > 0).all() and (trades["size"] > 0).all(), "a trade of nothing"
    assert np.isin(trades["aggressor"], list(Aggressor)).all(), "an unknown aggressor"
    _check_padding(trades)


def _check_quotes(quotes: Records) -> None:
    for side in ("bid", "ask"):
        price, size = quotes[f"{side}_price"], quotes[f"{side}_size"]
        empty = price == UNDEFINED_PRICE
        assert (size[empty] == 0).all(), f"an undefined {side} with a size"
        assert (price[~empty] > 0).all() and (size[~empty] > 0).all(), f"a {side} of nothing"
    both = (quotes["bid_price"] != UNDEFINED_PRICE) & (quotes["ask_price"] != UNDEFINED_PRICE)
    assert (quotes["bid_price"][both] < quotes["ask_price"][both]).all(), "a crossed quote"
    _check_padding(quotes)


def _check_levels(levels: Records) -> None:
    assert (levels["price"] > 0).all() and (levels["size"] >= 0).all(), "a level of an impossible price or size"
    assert np.isin(levels["side"], [Side.BID, Side.ASK]).all(), "a level of no side"
    of_snapshot = (levels["flags"] & Flags.SNAPSHOT) != 0
    assert (levels["size"][of_snapshot] > 0).all(), "a snapshot that deletes"
    _check_padding(levels)


def _check_clears(clears: Records) -> None:
    assert np.isin(clears["reason"], [reason for reason in Reason if reason]).all(), "a CLEAR without a reason"
    of_snapshot = (clears["flags"] & Flags.SNAPSHOT) != 0
    assert ((clears["reason"] == Reason.SNAPSHOT) == of_snapshot).all(), "a CLEAR whose reason and flags disagree"
    assert (clears["price"] == 0).all() and (clears["size"] == 0).all(), "a CLEAR with a price or a size"
    _check_padding(clears)


def _check_statuses(statuses: Records) -> None:
    assert np.isin(statuses["state"], [state for state in State if state]).all(), "a STATUS of no state"
    assert np.isin(statuses["reason"], list(Reason)).all(), "a STATUS of an unknown reason"
    assert np.isin(statuses["data_type"], list(DataType)).all(), "a STATUS of an unknown data type"
    for detail in set(statuses["detail"].tolist()):
        detail.decode("utf-8")


def _check_padding(records: Records) -> None:
    names = records.dtype.names
    assert names is not None
    for name in names:
        if name.startswith("_pad"):
            assert not np.frombuffer(records[name].tobytes(), dtype=np.uint8).any(), f"{name} is not empty"


_CHECKS: Final = {
    Kind.TRADE: _check_trades,
    Kind.BBO: _check_quotes,
    Kind.LEVEL: _check_levels,
    Kind.CLEAR: _check_clears,
    Kind.STATUS: _check_statuses,
}


def of_kind(records: Records, kind: Kind) -> Records:
    """The records of a kind among these, in its own view."""
    chosen: Records = records[records["kind"] == kind]
    return chosen.view(VIEW_OF_KIND[kind])
