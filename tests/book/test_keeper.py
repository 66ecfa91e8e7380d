"""The book keeper against a model: at every seq, through restarts and laps, with too little room."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pytest

from mdring.book.keeper import BookKeeper
from mdring.counters import Counter
from mdring.record import BBO, CLEAR, TRADE, Flags, Kind, Reason, State
from mdring.ring.segment import AlreadyWritten
from tests.book.keeper_run import LEVELS, WATCHDOG_S, BookRun, KeeperProcess, book_run, follow, keeper_process
from tests.book.load import under_load
from tests.book.market import Market, Records, Truth, told_by
from tests.book.records import Record, batch, bid, snapshot, status


def check(run: BookRun, market: Market, seq: int) -> None:
    """Every row says what holds at ``seq``."""
    assert run.table.position == seq
    truth = Truth().apply(market.recent(seq))
    for instrument_id in market.ids:
        row = run.table.read(instrument_id)
        assert row is not None
        assert row["seq"] <= seq
        assert told_by(row) == truth.row(instrument_id, LEVELS), f"instrument {instrument_id} at seq {seq}"


def steps(market: Market, generator: Random, cycles: float, most: int = 400) -> Iterator[tuple[int, int]]:
    """Batches as (first, last) seqs that cover so many cycles and end with event groups; the first has each book."""
    first, end = 1, int(len(market) * cycles)
    while first < end:
        length = generator.randrange(1, most) if first > 1 else 500
        cycle, inside = divmod(first - 1 + length, len(market))
        last = cycle * len(market) + next(end for end in market.ends if end > inside)
        yield first, last
        first = last + 1


def quote(instrument_id: int = 1, bid_price: int = 100) -> Record:
    """A BBO that ends its group."""
    record = np.zeros(1, dtype=BBO)
    record["kind"], record["instrument_id"], record["flags"] = Kind.BBO, instrument_id, Flags.LAST
    record["bid_price"], record["venue_id"] = bid_price, 1
    return record


def trade(ts_event: int, flags: Flags = Flags.NONE) -> Record:
    """A TRADE that ends its group."""
    record = np.zeros(1, dtype=TRADE)
    record["kind"], record["instrument_id"], record["flags"] = Kind.TRADE, 1, flags | Flags.LAST
    record["ts_event"], record["venue_id"] = ts_event, 1
    return record


def fill(run: BookRun, count: int) -> None:
    """Have the tape go on by so many records of an instrument of no concern."""
    filling: Records = batch([quote(63)] * 64)
    for _ in range(count // 64):
        run.publish(filling)


# ---- rows -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_rows_are_what_the_tape_says_after_every_batch(seed: int) -> None:
    market = Market(seed)
    with book_run() as run, run.keeper() as keeper:
        for first, last in steps(market, Random(seed), 1.5):
            run.publish(market.records(first, last))
            follow(keeper)
            check(run, market, last)


@pytest.mark.parametrize("seed", range(4))
def test_a_restarted_keeper_goes_on_as_if_it_had_never_died(seed: int) -> None:
    market, generator = Market(seed), Random(seed)
    with book_run() as run:
        keeper = BookKeeper(run.folder)
        for first, last in steps(market, generator, 2.5):
            run.publish(market.records(first, last))
            if generator.random() < 0.7:  # else it is behind when it dies
                follow(keeper)
            if generator.random() < 0.3:
                keeper.close()
                keeper = BookKeeper(run.folder)
                check(run, market, last)
            elif keeper.position == last:
                check(run, market, last)
        assert run.counters.load(Counter.STARTS) > 5
        assert run.counters.load(Counter.LOST) == 0
        keeper.close()


def test_half_an_event_group_is_never_seen() -> None:
    levels = dict.fromkeys(range(1, 5000), 1)  # more than are taken at once
    with book_run(tape_slots=1 << 14) as run, run.keeper() as keeper:
        run.publish(batch([*snapshot({0: 1}, {}), quote()]))
        follow(keeper)
        run.publish(batch([*snapshot({}, levels), quote()]))
        while keeper.do_work():
            row = run.table.read(1)
            assert row is not None
            assert (run.table.position, int(row["bid_depth"]), int(row["ask_depth"])) in {(3, 1, 0), (5004, 0, 4999)}
        assert run.table.position == 5004


def test_a_keeper_that_starts_late_begins_with_all_that_the_tape_has() -> None:
    market = Market(5, length=2000)
    with book_run() as run:
        run.publish(market.records(1, len(market)))
        with run.keeper():
            check(run, market, len(market))


def test_there_is_one_keeper() -> None:
    with book_run() as run, run.keeper(), pytest.raises(AlreadyWritten):
        BookKeeper(run.folder)


def test_an_instrument_without_a_row_is_counted_and_harms_nobody() -> None:
    with book_run(instruments=2) as run, run.keeper() as keeper:
        run.publish(batch([quote(2), *snapshot({5: 1}, {}, 3), quote(1)]))
        follow(keeper)
        assert run.table.read(2) is None
        assert run.table.read(1) is not None
        keeper.report()
        error = run.counters.error()
        assert error is not None
        assert "instruments beyond the rows of the book table" in error[1]


# ---- what a careful reader must know ----------------------------------------------------------------------


def test_history_that_was_fetched_late_does_not_replace_a_newer_trade() -> None:
    with book_run() as run, run.keeper() as keeper:
        for record, newest in (
            (trade(10, Flags.RECOVERED), 10),
            (trade(20), 20),
            (trade(15, Flags.RECOVERED), 20),
            (trade(15), 15),
            (trade(15, Flags.RECOVERED), 15),
            (trade(16, Flags.RECOVERED), 16),
        ):
            run.publish(batch([record]))
            follow(keeper)
            row = run.table.read(1)
            assert row is not None
            assert row["trade"]["ts_event"] == newest


def connection_of(run: BookRun, instrument_id: int = 1) -> tuple[State, int]:
    """State and doubt_seq."""
    row = run.table.read(instrument_id)
    assert row is not None
    return State(int(row["connection_state"])), int(row["doubt_seq"])


@pytest.mark.parametrize(
    ("said", "state", "is_doubtful"),
    [
        pytest.param([status(State.DISCONNECTED, Reason.STALE)], State.DISCONNECTED, True, id="its venue"),
        pytest.param(
            [status(State.DISCONNECTED, Reason.STALE, venue_id=2)], State.CONNECTED, False, id="another venue"
        ),
        pytest.param(
            [status(State.RECONNECTING, Reason.STALE), status(State.CONNECTED, Reason.NONE)],
            State.CONNECTED, True, id="its venue, back again",
        ),
        pytest.param(
            [status(State.CONNECTED, Reason.NONE, instrument_id=1), status(State.DISCONNECTED, Reason.STALE)],
            State.CONNECTED, False, id="another connection of its venue",
        ),
        pytest.param(
            [status(State.CONNECTED, Reason.NONE, instrument_id=1), status(State.DISCONNECTED, Reason.WORKER_RESTART)],
            State.DISCONNECTED, True, id="the worker",
        ),
        pytest.param([status(State.DROPPED, Reason.RING_FULL)], State.CONNECTED, True, id="a full ring"),
        pytest.param([status(State.REJECTED, Reason.BAD_MESSAGE)], State.CONNECTED, True, id="a bad message"),
        pytest.param(
            [status(State.REJECTED, Reason.UNKNOWN_INSTRUMENT)], State.CONNECTED, False, id="an unknown instrument"
        ),
    ],
)  # fmt: skip
def test_a_connection_makes_older_values_doubtful(said: list[Record], state: State, is_doubtful: bool) -> None:
    with book_run() as run, run.keeper() as keeper:
        run.publish(batch([status(State.CONNECTED, Reason.NONE), quote(), *said]))
        follow(keeper)
        found, doubt_seq = connection_of(run)
        assert found is state
        assert (doubt_seq > 2) is is_doubtful


def test_a_new_instrument_has_the_connection_of_its_venue_also_after_a_restart() -> None:
    with book_run() as run:
        with run.keeper() as keeper:
            run.publish(batch([status(State.CONNECTED, Reason.NONE), quote(1)]))
            follow(keeper)
        fill(run, 3 * 4096)
        with run.keeper() as keeper:
            fill(run, 4096)
            assert connection_of(run)[0] is State.NONE  # who was lapped knows nothing any more
            run.publish(batch([status(State.CONNECTED, Reason.NONE)]))
            follow(keeper)
        with run.keeper() as keeper:
            run.publish(batch([quote(2)]))
            follow(keeper)
            assert connection_of(run, 2)[0] is State.CONNECTED


# ---- laps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dies", [False, True])
def test_a_lapped_keeper_says_that_it_knows_nothing_until_the_next_snapshot(dies: bool) -> None:
    with book_run() as run:
        keeper = BookKeeper(run.folder)
        run.publish(batch([status(State.CONNECTED, Reason.NONE), *snapshot({5: 1}, {7: 1}), quote()]))
        follow(keeper)
        if dies:
            keeper.close()
        fill(run, 2 * 4096)
        if dies:
            keeper = BookKeeper(run.folder)
        follow(keeper)
        keeper.report()
        row = run.table.read(1)
        assert row is not None
        assert run.table.position == run.tape.cursor
        assert (bool(row["book_valid"]), Reason(int(row["book_reason"]))) == (False, Reason.RING_FULL)
        assert row["bid_count"] == row["bid_depth"] == 0
        assert row["doubt_seq"] > row["bbo"]["seq"] > 0
        assert row["connection_state"] == State.NONE
        assert 0 < run.counters.load(Counter.LOST) < 2 * 4096
        error = run.counters.error()
        assert error is not None
        assert "lapped the book keeper" in error[1]
        run.publish(batch([bid(4, 1, Flags.LAST), *snapshot({3: 1}, {}), quote()]))
        follow(keeper)
        row = run.table.read(1)
        assert row is not None
        assert (bool(row["book_valid"]), int(row["bids"][0]["price"])) == (True, 3)
        assert row["doubt_seq"] < row["bbo"]["seq"]
        keeper.close()


# ---- checkpoints ------------------------------------------------------------------------------------------


def test_the_checkpoints_lag_behind_by_an_eighth_of_the_tape_at_most() -> None:
    market = Market(3)
    with book_run() as run, run.keeper() as keeper:
        written = 0
        for first, last in steps(market, Random(3), 3, most=100):
            run.publish(market.records(first, last))
            follow(keeper)
            keeper.report()
            assert run.counters.load(Counter.CHECKPOINT_LAG) <= 4096 // 8
            written = run.counters.load(Counter.CHECKPOINTS)
        # each book about twice per eighth of the tape, whereas it changes some hundred times
        assert 0 < written < 3 * len(market.ids) * 3 * len(market) / (4096 // 8)


def test_books_that_do_not_fit_into_the_checkpoints_are_counted_and_fit_when_there_is_room() -> None:
    levels = dict.fromkeys(range(1, 1001), 1)
    with book_run(checkpoint_bytes=1 << 15) as run, run.keeper() as keeper:  # room for two such books
        for instrument_id in (1, 2, 3):
            run.publish(batch(snapshot(levels, {}, instrument_id)))
        fill(run, 1024)
        follow(keeper)
        keeper.report()
        assert run.counters.load(Counter.BOOKS_WITHOUT_CHECKPOINT) == 1
        error = run.counters.error()
        assert error is not None
        assert error[1].startswith("books that do not fit into the checkpoints: 1; ")
        for instrument_id in (1, 2, 3):
            run.publish(batch(snapshot(dict.fromkeys(range(1, 100), 1), {}, instrument_id)))
        fill(run, 1024)
        follow(keeper)
        keeper.report()
        assert run.counters.load(Counter.BOOKS_WITHOUT_CHECKPOINT) == 0
        assert run.counters.load(Counter.BOOKS_VALID) == run.counters.load(Counter.BOOKS) == 3


def test_a_restarted_keeper_has_no_book_that_had_no_room_and_says_so() -> None:
    levels = dict.fromkeys(range(1, 2001), 1)
    with book_run(checkpoint_bytes=1 << 14) as run:
        with run.keeper() as keeper:
            run.publish(batch(snapshot(levels, {})))
            fill(run, 1024)
            follow(keeper)
            row = run.table.read(1)
            assert row is not None
            assert row["book_valid"]
        with run.keeper():
            row = run.table.read(1)
            assert row is not None
            assert (bool(row["book_valid"]), Reason(int(row["book_reason"]))) == (False, Reason.BUFFER_FULL)


def test_a_reason_that_came_after_the_checkpoint_survives_a_restart() -> None:
    with book_run() as run:
        with run.keeper() as keeper:
            lost = np.zeros(1, dtype=CLEAR)
            lost["kind"], lost["instrument_id"], lost["venue_id"], lost["flags"] = Kind.CLEAR, 1, 1, Flags.LAST
            lost["reason"] = Reason.CHECKSUM
            run.publish(batch([*snapshot({5: 1}, {7: 1}), lost]))
            fill(run, 1024)
            follow(keeper)
            run.publish(batch([status(State.DISCONNECTED, Reason.CLOSED_BY_VENUE)]))
            fill(run, 1024)
            follow(keeper)
        with run.keeper():
            row = run.table.read(1)
            assert row is not None
            assert Reason(int(row["book_reason"])) is Reason.CLOSED_BY_VENUE


# ---- kills ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [40, pytest.param(2000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_keeper_killed_at_any_moment__rows_true_at_their_seq__never_torn_nor_older(kills: int) -> None:
    market, generator = Market(11, instruments=16, length=12_000, levels=20), Random(kills)
    samples: list[tuple[int, int, dict[str, object]]] = []
    with book_run(tape_slots=1 << 15) as run, under_load(run, market) as load:

        def sample(instrument_id: int) -> None:
            position = run.table.position
            row = run.table.read(instrument_id)
            assert row is not None
            samples.append((max(position, int(row["seq"])), instrument_id, told_by(row)))

        for _ in range(kills):
            until = time.monotonic() + generator.random() * 0.05
            while time.monotonic() < until:
                sample(generator.choice(market.ids))
                time.sleep(0.001)
            load.kill_keeper()
            for instrument_id in market.ids:
                sample(instrument_id)
            load.start_keeper()
        assert run.counters.load(Counter.LOST) == 0
        assert run.counters.load(Counter.STARTS) > kills // 2
    newest = dict.fromkeys(market.ids, 0)
    for seq, instrument_id, _ in samples:
        assert seq >= newest[instrument_id], "a row fell back"
        newest[instrument_id] = seq
    truth, applied = Truth(), 0
    for seq, instrument_id, told in sorted(samples, key=lambda sample: sample[0]):
        truth.apply(market.records(applied + 1, seq))
        applied = seq
        assert told == truth.row(instrument_id, LEVELS), f"instrument {instrument_id} at seq {seq}"


# ---- the process ------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return when ``condition`` holds; fail if it never does."""
    deadline = time.monotonic() + WATCHDOG_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.002)


def wait_for(run: BookRun, seq: int) -> None:
    """Return when the table contains this record."""
    wait_until(lambda: run.table.position >= seq, f"the table contains seq {seq}")


def wait_until_current(run: BookRun, now_ns: int) -> None:
    """Return when the table says that it had all of the tape after this time."""
    wait_until(lambda: run.table.current_ns > now_ns, "the table says that it has all")


def test_the_process_follows_the_tape_and_stops_in_order_at_its_end() -> None:
    market = Market(14)
    with book_run() as run, keeper_process(run.folder) as keeper:
        batches = list(steps(market, Random(14), 1.5, most=1500))
        for first, last in batches[:-1]:
            now_ns = time.monotonic_ns()
            run.publish(market.records(first, last))
            run.wake()
            wait_for(run, last)
            wait_until_current(run, now_ns)
        keeper.process.send_signal(signal.SIGSTOP)
        first, last = batches[-1]
        run.publish(market.records(first, last))
        keeper.process.send_signal(signal.SIGTERM)
        keeper.process.send_signal(signal.SIGCONT)
        log = keeper.process.communicate(timeout=WATCHDOG_S)[1]
        assert keeper.process.returncode == 0, log
        check(run, market, last)
        stopped = json.loads(log.splitlines()[-1])
        assert (stopped["process"], stopped["message"]) == ("books", f"stopped at seq {last}")


def test_a_process_that_is_killed_is_succeeded_by_the_next_one() -> None:
    market = Market(15, length=3000)
    with book_run() as run:
        first = 1
        for _ in range(3):
            with keeper_process(run.folder) as keeper:
                last = first + len(market) - 1
                middle = first - 1 + next(end for end in market.ends if end > 1500)
                run.publish(market.records(first, middle))
                run.publish(market.records(middle + 1, last))
                run.wake()
                wait_for(run, last)
                check(run, market, last)
                first = last + 1
                assert keeper.kill() == -signal.SIGKILL
        assert run.counters.load(Counter.STARTS) == 3


def test_a_second_process_does_not_start() -> None:
    with book_run() as run, keeper_process(run.folder):
        second = KeeperProcess(run.folder)
        log = second.process.communicate(timeout=WATCHDOG_S)[1]
        assert second.process.returncode != 0
        assert "AlreadyWritten" in log
