"""Strategies driven by real tapes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

import mdring
from mdring.record import BBO, STATUS, TRADE, UNDEFINED_PRICE, Flags, Kind, Reason, State
from mdring.ring.segment import RunState
from tests.runs import TestRun, open_writer, records, temporary_run


@pytest.fixture
def run() -> Iterator[TestRun]:
    with temporary_run() as made:
        made.instruments.append(1, "alpha", "BTCUSDT", "BTC-USDT", -2, -5)
        made.instruments.append(1, "alpha", "ETHUSDT", "ETH-USDT", -2, -4)
        yield made


def drive(strategy: mdring.Strategy, run: TestRun, **options: Any) -> None:
    """Run a strategy over all that is on the tape, which then ends."""
    run.tape.end(RunState.CLOSED)
    mdring.run(strategy, "test", directory=run.folder.path.parent, start="oldest", **options)


class Recorder(mdring.Strategy):
    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_trade(self, trade: mdring.Trade) -> None:
        self.seen.append(trade)

    def on_bbo(self, bbo: mdring.Bbo) -> None:
        self.seen.append(bbo)

    def on_status(self, status: mdring.Status) -> None:
        self.seen.append(status)


def test_callbacks_come_in_the_order_of_the_tape_with_values_by_name(run: TestRun) -> None:
    batch = records(4, kind=[Kind.TRADE, Kind.BBO, Kind.STATUS, Kind.TRADE], instrument_id=[1, 2, 0, 2])
    trades, bbos, statuses = batch.view(TRADE), batch.view(BBO), batch.view(STATUS)
    trades["price"][[0, 3]], trades["size"][[0, 3]] = [7_012_345, 350_001], [1, 20_000]
    trades["trade_id"][0], trades["trade_id_format"][0], trades["aggressor"][0] = 17, 1, mdring.Aggressor.BUY
    bbos["bid_price"][1], bbos["ask_price"][1], bbos["ask_size"][1] = UNDEFINED_PRICE, 350_002, 5
    statuses["state"][2], statuses["reason"][2], statuses["detail"][2] = State.CONNECTED, Reason.STARTED, b"hello"
    open_writer(run.tape).publish(batch)
    strategy = Recorder()
    drive(strategy, run)
    first, quote, status, last = strategy.seen
    assert isinstance(first, mdring.Trade)
    assert (first.seq, first.price, first.price_decimal, first.price_float) == (
        1,
        7_012_345,
        Decimal("70123.45"),
        70123.45,
    )
    assert (first.size_decimal, first.size_float, first.trade_id) == (Decimal("0.00001"), 1e-5, 17)
    assert first.is_buy
    assert first.instrument.canonical_symbol == "BTC-USDT"
    assert isinstance(quote, mdring.Bbo)
    assert (quote.bid_price_decimal, quote.bid_price_float) == (None, None)
    assert (quote.ask_price_decimal, quote.ask_price_float, quote.ask_size_decimal) == (
        Decimal("3500.02"), 3500.02, Decimal("0.0005"),
    )  # fmt: skip
    assert isinstance(status, mdring.Status)
    assert (status.instrument, status.state, status.reason, status.detail) == (
        None, State.CONNECTED, Reason.STARTED, "hello",
    )  # fmt: skip
    assert isinstance(last, mdring.Trade)
    assert last.seq == 4
    assert str(first) == f"1 {first.instrument.name} TRADE BUY 0.00001 at 70123.45"
    assert str(quote) == f"2 {quote.instrument.name} BBO none / 0.0005 at 3500.02"
    assert str(status) == "3 venue 0 STATUS CONNECTED reason=STARTED detail=hello"


def test_only_what_is_overridden_is_delivered(run: TestRun) -> None:
    class Trades(mdring.Strategy):
        count = 0

        def on_trade(self, trade: mdring.Trade) -> None:
            self.count += 1

        def on_stop(self) -> None:
            self.delivered = self.tape.statistics().records

    open_writer(run.tape).publish(records(6, kind=[1, 2, 2, 3, 1, 4], instrument_id=1))
    strategy = Trades()
    drive(strategy, run)
    assert (strategy.count, strategy.delivered) == (2, 2)


def test_on_batch_gets_everything(run: TestRun) -> None:
    class Batches(mdring.Strategy):
        def __init__(self) -> None:
            self.seqs: list[int] = []

        def on_batch(self, batch: mdring.Batch) -> None:
            self.seqs += batch["seq"].tolist()

    open_writer(run.tape).publish(records(6, kind=[1, 2, 2, 3, 1, 4], instrument_id=1))
    strategy = Batches()
    drive(strategy, run)
    assert strategy.seqs == [1, 2, 3, 4, 5, 6]


def test_an_exception_names_the_record(run: TestRun) -> None:
    class Broken(mdring.Strategy):
        def on_trade(self, trade: mdring.Trade) -> None:
            raise KeyError("mine")

    open_writer(run.tape).publish(records(3, instrument_id=1, price=[5, 6, 7]))
    with pytest.raises(KeyError, match="mine") as caught:
        drive(Broken(), run)
    assert "seq=1," in caught.value.__notes__[0]
    assert "BTC-USDT" in caught.value.__notes__[0]


def test_stop_returns_from_run_after_on_stop(run: TestRun) -> None:
    class Three(Recorder):
        stopped = False

        def on_trade(self, trade: mdring.Trade) -> None:
            super().on_trade(trade)
            if len(self.seen) == 3:
                self.stop()

        def on_stop(self) -> None:
            self.stopped = True

    open_writer(run.tape).publish(records(10, instrument_id=1))
    strategy = Three()
    drive(strategy, run)
    assert len(strategy.seen) == 3
    assert strategy.stopped


def test_losses_are_told_exactly(run: TestRun) -> None:
    class Slow(mdring.Strategy):
        lost = received = 0

        def on_start(self) -> None:
            writer = open_writer(run.tape)
            for _ in range(100):
                writer.publish(records(100, instrument_id=1))
            run.tape.end(RunState.CLOSED)

        def on_batch(self, batch: mdring.Batch) -> None:
            self.received += len(batch)

        def on_lost(self, lost: int) -> None:
            self.lost += lost

    strategy = Slow()
    mdring.run(strategy, "test", directory=run.folder.path.parent)
    assert strategy.lost > 0
    assert strategy.received + strategy.lost == 10_000


def test_the_timer_comes_without_data(run: TestRun) -> None:
    class Ticking(mdring.Strategy):
        ticks = 0

        def on_timer(self, now_ns: int) -> None:
            self.ticks += 1
            if self.ticks == 3:
                self.stop()

    strategy = Ticking()
    mdring.run(strategy, "test", directory=run.folder.path.parent, timer_s=0.01)
    assert strategy.ticks == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_strategy_cleanly(run: TestRun, number: signal.Signals) -> None:
    script = f"""
import mdring
class Waiting(mdring.Strategy):
    def on_start(self): print("started", flush=True)
    def on_stop(self): print("stopped", flush=True)
    def on_trade(self, trade): pass
mdring.run(Waiting(), directory={str(run.folder.path.parent)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == "stopped\n"
    assert process.returncode == 0


def test_conflated_delivery_calls_back_with_the_newest(run: TestRun) -> None:
    open_writer(run.tape).publish(records(9, kind=Kind.BBO, instrument_id=[1, 2, 1] * 3, price=np.arange(9)))
    strategy = Recorder()
    drive(strategy, run, delivery="conflated")
    assert [event.seq for event in strategy.seen if isinstance(event, mdring.Bbo)] == [8, 9]


def test_a_named_strategy_is_seen_until_it_ends(run: TestRun) -> None:
    from mdring.counters import Counter, Counters

    class Named(mdring.Strategy):
        position = 0

        def on_batch(self, batch: mdring.Batch) -> None:
            path = run.folder.counters("consumer-mm-1")
            self.position = Counters.attach(path).load(Counter.POSITION)
            assert Counters.attach(path).load(Counter.PID) == os.getpid()

    open_writer(run.tape).publish(records(5, instrument_id=1))
    strategy = Named()
    drive(strategy, run, name="mm-1")
    assert strategy.position == 5
    assert not run.folder.counters("consumer-mm-1").exists()


def test_flags_of_the_last_record_survive_a_kind_filter(run: TestRun) -> None:
    class Batches(mdring.Strategy):
        flags: tuple[int, ...] = ()

        def on_batch(self, batch: mdring.Batch) -> None:
            self.flags = tuple(batch["flags"].tolist())

    open_writer(run.tape).publish(records(3, group=3, kind=[1, 1, 3], instrument_id=1))
    strategy = Batches()
    drive(strategy, run, kinds=[Kind.TRADE])
    assert strategy.flags == (0, Flags.LAST)
