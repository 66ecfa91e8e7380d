"""Newest values: exact, true at their seq, and live only if they can be relied on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from random import Random

import numpy as np
import numpy.typing as npt
import pytest

import mdring
from mdring import UNDEFINED_PRICE, Liveness, Reason, State
from mdring.book.keeper import BookKeeper
from mdring.last_value import AmbiguousInstrument, Run
from mdring.record import BBO, STATUS, TRADE, Aggressor, DataType, Flags, Kind
from mdring.ring.segment import RunState
from tests.book.keeper_run import BookRun, book_run, follow
from tests.book.market import Market
from tests.book.records import Record, ask, batch, bid, clear, snapshot, status
from tests.book.test_keeper import steps

CONNECTED = status(State.CONNECTED, Reason.NONE)


def bbo(bid_price: int, ask_price: int, instrument_id: int = 1) -> Record:
    """A BBO that ends its group."""
    record = np.zeros(1, dtype=BBO)
    record["kind"], record["flags"], record["instrument_id"], record["venue_id"] = (
        Kind.BBO,
        Flags.LAST,
        instrument_id,
        1,
    )
    record["bid_price"], record["bid_size"], record["ask_price"], record["ask_size"] = bid_price, 3, ask_price, 4
    record["ts_event"], record["ts_recv"], record["ts_seq"] = 11, 12, 13
    return record


def trade(price: int, size: int) -> Record:
    """A TRADE that ends its group."""
    record = np.zeros(1, dtype=TRADE)
    record["kind"], record["flags"], record["instrument_id"], record["venue_id"] = Kind.TRADE, Flags.LAST, 1, 1
    record["price"], record["size"], record["aggressor"], record["trade_id"] = price, size, Aggressor.SELL, 99
    return record


class Looked:
    """A run with a keeper, and a look at it."""

    def __init__(self, books: BookRun, keeper: BookKeeper, run: Run) -> None:
        self.books, self.keeper, self.run = books, keeper, run

    def say(self, *records: Record) -> None:
        """Put these on the tape, and into the book table."""
        self.books.publish(batch(records))
        follow(self.keeper)

    def how(self) -> tuple[Liveness, Reason]:
        """How good the BBO of the first instrument is."""
        found = self.run.bbo("BTCUSDT")
        (row,) = (row for row in self.run.bbos() if row["instrument_id"] == 1)
        assert bool(row["live"]) is found.is_live is (found.liveness is Liveness.LIVE)
        return found.liveness, found.reason


@contextmanager
def looked_at() -> Iterator[Looked]:
    """Two venues; BTC-USDT is listed by both."""
    with book_run() as books:
        table = books.run.instruments
        table.append(1, "alpha", "BTCUSDT", "BTC-USDT", -2, -5)
        table.append(1, "alpha", "ETHUSDT", "ETH-USDT", -2, -5)
        table.append(2, "beta", "XBT/USDT", "BTC-USDT", -1, -8)
        with books.keeper() as keeper, mdring.open_run("test", directory=books.folder.path.parent) as run:
            yield Looked(books, keeper, run)


@pytest.fixture
def looked() -> Iterator[Looked]:
    with looked_at() as looked:
        yield looked


# ---- values -----------------------------------------------------------------------------------------------


def test_a_bbo_is_exact_and_tells_up_to_which_seq_it_is_the_newest(looked: Looked) -> None:
    looked.say(CONNECTED, bbo(7012345, 7012350), bbo(5, 6, 2))
    found = looked.run.bbo("BTCUSDT")
    assert (found.bid_price, found.bid_size, found.ask_price, found.ask_size) == (7012345, 3, 7012350, 4)
    assert (found.bid_price_decimal, found.ask_price_float) == (Decimal("70123.45"), 70123.5)
    assert found.bid_size_decimal == Decimal("0.00003")
    assert (found.seq, found.ts_event, found.ts_recv, found.ts_seq) == (2, 11, 12, 13)
    assert (found.true_at, looked.run.position, looked.run.lag) == (3, 3, 0)
    assert (found.is_live, found.reason) == (True, Reason.NONE)
    assert found.instrument.name == "alpha:BTCUSDT"


def test_a_bbo_that_never_came_has_two_empty_sides(looked: Looked) -> None:
    for record in (CONNECTED, trade(1, 1)):  # first there is no row, then one without a BBO
        found = looked.run.bbo("BTCUSDT")
        assert (found.seq, found.liveness) == (0, Liveness.AWAITING)
        assert (found.bid_price, found.bid_size, found.ask_price, found.ask_size) == (
            UNDEFINED_PRICE, 0, UNDEFINED_PRICE, 0,
        )  # fmt: skip
        assert (found.bid_price_decimal, found.ask_price_float) == (None, None)
        looked.say(record)
    (row,) = looked.run.bbos()
    assert (int(row["bid_price"]), int(row["ask_price"]), bool(row["live"])) == (
        UNDEFINED_PRICE,
        UNDEFINED_PRICE,
        False,
    )


def test_a_side_that_is_empty_is_none(looked: Looked) -> None:
    looked.say(CONNECTED, bbo(UNDEFINED_PRICE, 700))
    found = looked.run.bbo("BTCUSDT")
    assert (found.is_live, found.bid_price_decimal, found.ask_price_decimal) == (True, None, Decimal(7))


def test_the_last_trade(looked: Looked) -> None:
    assert looked.run.last_trade("BTCUSDT") is None
    looked.say(CONNECTED)
    assert looked.run.last_trade("BTCUSDT") is None
    looked.say(trade(100, 1), trade(7012345, 150_000))
    found = looked.run.last_trade("BTCUSDT")
    assert found is not None
    assert (found.price_decimal, found.size_decimal, found.is_buy, found.trade_id) == (
        Decimal("70123.45"), Decimal("1.5"), False, 99,
    )  # fmt: skip
    assert (found.seq, found.true_at, found.is_live) == (3, 3, True)
    looked.say(status(State.DISCONNECTED, Reason.STALE))
    found = looked.run.last_trade("BTCUSDT")
    assert found is not None
    assert (found.seq, found.liveness, found.reason) == (3, Liveness.DOWN, Reason.STALE)


def test_a_book_has_its_best_levels_and_knows_how_many_there_are(looked: Looked) -> None:
    looked.say(CONNECTED, *snapshot({100: 1, 99: 2}, dict.fromkeys(range(101, 120), 7)))
    book = looked.run.book("BTCUSDT")
    assert (book.is_live, book.best_bid, book.best_ask) == (True, (100, 1), (101, 7))
    assert (book.bids.tolist(), len(book.asks)) == ([(100, 1), (99, 2)], looked.run.levels)
    assert (book.bid_depth, book.ask_depth, book.is_crossed) == (2, 19, False)
    assert (book.seq, book.true_at) == (23, 23)
    assert book.bids_float.tolist() == [[1.0, 1e-05], [0.99, 2e-05]]
    assert book.asks_float.shape == (5, 2)
    few = looked.run.book("BTCUSDT", levels=1)
    looked.say(bid(100, 9, Flags.LAST))
    assert (few.bids.tolist(), few.asks.tolist(), few.ask_depth) == ([(100, 1)], [(101, 7)], 19)
    assert looked.run.book("BTCUSDT", levels=0).best_bid == (UNDEFINED_PRICE, 0)
    with pytest.raises(ValueError, match="has 5 levels a side, not 6: configure"):
        looked.run.book("BTCUSDT", levels=6)


def test_a_book_that_does_not_count_says_why(looked: Looked) -> None:
    def how() -> tuple[Liveness, Reason, int]:
        book = looked.run.book("BTCUSDT")
        return book.liveness, book.reason, len(book.bids) + len(book.asks)

    assert how() == (Liveness.AWAITING, Reason.NONE, 0)
    looked.say(CONNECTED, bbo(1, 2))
    assert how() == (Liveness.AWAITING, Reason.NONE, 0)
    looked.say(*snapshot({100: 1}, {101: 1}))
    assert how() == (Liveness.LIVE, Reason.NONE, 2)
    looked.say(clear(Reason.CHECKSUM, Flags.LAST))
    assert how() == (Liveness.INVALID, Reason.CHECKSUM, 0)
    looked.say(*snapshot({100: 1}, {101: 1}), ask(99, 1, Flags.LAST))
    assert how() == (Liveness.INVALID, Reason.CROSSED, 3)
    looked.say(status(State.DISCONNECTED, Reason.STALE), clear(Reason.STALE, Flags.LAST))
    assert how() == (Liveness.DOWN, Reason.STALE, 0)


def test_the_status_of_an_instrument_and_of_its_venue(looked: Looked) -> None:
    unknown = looked.run.status("BTCUSDT")
    assert (unknown.liveness, unknown.connection, unknown.of_venue) == (Liveness.AWAITING, State.NONE, None)
    looked.say(CONNECTED, *snapshot({100: 1}, {101: 1}))
    found = looked.run.status("BTCUSDT")
    assert (found.liveness, found.connection, found.trading, found.book_valid) == (
        Liveness.LIVE, State.CONNECTED, State.NONE, True,
    )  # fmt: skip
    assert found.of_instrument is None
    assert found.of_venue is not None
    assert (found.of_venue.state, found.of_venue.instrument) == (State.CONNECTED, None)
    told = status(State.HALTED, Reason.NONE, instrument_id=1).view(STATUS)
    told["detail"] = b"auction"
    looked.say(told)
    found = looked.run.status("BTCUSDT")
    assert (found.liveness, found.trading) == (Liveness.HALTED, State.HALTED)
    assert found.of_instrument is not None
    assert (found.of_instrument.state, found.of_instrument.detail) == (State.HALTED, "auction")


# ---- whether they count -----------------------------------------------------------------------------------


def test_a_bbo_counts_until_its_connection_breaks_and_again_from_the_next_one(looked: Looked) -> None:
    looked.say(CONNECTED, bbo(1, 2))
    assert looked.how() == (Liveness.LIVE, Reason.NONE)
    looked.say(status(State.DISCONNECTED, Reason.CLOSED_BY_VENUE, venue_id=2))
    assert looked.how() == (Liveness.LIVE, Reason.NONE)
    looked.say(status(State.DISCONNECTED, Reason.CLOSED_BY_VENUE))
    assert looked.how() == (Liveness.DOWN, Reason.CLOSED_BY_VENUE)
    looked.say(status(State.RECONNECTING, Reason.CONNECT_FAILED))
    assert looked.how() == (Liveness.DOWN, Reason.CONNECT_FAILED)
    looked.say(CONNECTED)
    assert looked.how() == (Liveness.INVALID, Reason.CONNECT_FAILED)
    looked.say(bbo(1, 2))
    assert looked.how() == (Liveness.LIVE, Reason.NONE)


@pytest.mark.parametrize(
    ("told", "how"),
    [
        (status(State.DROPPED, Reason.RING_FULL), (Liveness.INVALID, Reason.RING_FULL)),
        (
            status(State.REJECTED, Reason.BAD_MESSAGE, instrument_id=1, data_type=DataType.BBO),
            (Liveness.INVALID, Reason.BAD_MESSAGE),
        ),
        (
            status(State.REJECTED, Reason.BAD_MESSAGE, instrument_id=1, data_type=DataType.BOOK),
            (Liveness.LIVE, Reason.NONE),
        ),
        (
            status(State.GAP, Reason.SEQUENCE_GAP, instrument_id=1, data_type=DataType.BOOK),
            (Liveness.LIVE, Reason.NONE),
        ),
        (status(State.REJECTED, Reason.UNKNOWN_INSTRUMENT), (Liveness.LIVE, Reason.NONE)),
        (status(State.HALTED, Reason.NONE, instrument_id=1), (Liveness.HALTED, Reason.NONE)),
        (status(State.HALTED, Reason.NONE, instrument_id=2), (Liveness.LIVE, Reason.NONE)),
        (bbo(2, 2), (Liveness.INVALID, Reason.CROSSED)),
    ],
)
def test_a_bbo_does_not_count_if_a_newer_one_may_be_missing(
    looked: Looked, told: Record, how: tuple[Liveness, Reason]
) -> None:
    looked.say(CONNECTED, bbo(1, 2), told)
    assert looked.how() == how


def test_values_are_stale_once_the_keeper_is_a_second_behind_the_tape(looked: Looked) -> None:
    looked.say(CONNECTED, bbo(1, 2))
    time.sleep(1.1)
    assert looked.how()[0] is Liveness.LIVE, "a quiet tape makes nothing stale"
    looked.books.publish(batch([bbo(3, 4)]))
    assert (looked.how()[0], looked.run.lag, looked.run.is_current()) == (Liveness.STALE, 1, False)
    assert (looked.run.bbo("BTCUSDT").bid_price, looked.run.bbo("BTCUSDT").true_at) == (1, 2)
    follow(looked.keeper)
    assert (looked.how()[0], looked.run.bbo("BTCUSDT").bid_price) == (Liveness.LIVE, 3)


def test_values_of_a_run_that_is_over_are_stale(looked: Looked) -> None:
    looked.say(CONNECTED, bbo(1, 2))
    looked.books.run.tape.end(RunState.CLOSED)
    assert looked.how() == (Liveness.STALE, Reason.NONE)
    assert looked.run.book("BTCUSDT").liveness is Liveness.AWAITING


# ---- all instruments --------------------------------------------------------------------------------------


def test_all_bbos_are_those_of_the_single_reads() -> None:
    market = Market(21, instruments=12)
    with book_run() as books:
        for instrument_id in market.ids:
            venue_id = 2 - instrument_id % 2
            name = f"I{instrument_id}"
            books.run.instruments.append(venue_id, ("alpha", "beta")[venue_id - 1], name, name, -instrument_id, -3)
        with books.keeper() as keeper, mdring.open_run("test", directory=books.folder.path.parent) as run:
            lives = 0
            for first, last in steps(market, Random(21), 1.2):
                books.publish(market.records(first, last))
                follow(keeper)
                found: npt.NDArray[np.void] = run.bbos()
                assert found["instrument_id"].tolist() == list(market.ids)
                for row in found:
                    single = run.bbo(f"I{row['instrument_id']}")
                    for name in (
                        "instrument_id", "venue_id", "seq", "ts_event", "ts_recv", "ts_seq",
                        "bid_price", "bid_size", "ask_price", "ask_size", "true_at",
                    ):  # fmt: skip
                        assert row[name] == getattr(single, name)
                    assert (row["price_exponent"], row["size_exponent"]) == (-single.instrument_id, -3)
                    assert bool(row["live"]) is single.is_live
                    assert single.true_at == last
                lives += int(found["live"].sum())
            assert lives > 50


# ---- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "instrument_id"),
    [
        ("BTCUSDT", 1),
        ("alpha:BTCUSDT", 1),
        ("alpha:BTC-USDT", 1),
        ("ETH-USDT", 2),
        ("XBT/USDT", 3),
        ("beta:BTC-USDT", 3),
    ],
)
def test_an_instrument_has_several_names(looked: Looked, name: str, instrument_id: int) -> None:
    assert looked.run.instrument(name).id == instrument_id


def test_a_name_that_several_venues_have_is_an_error_that_lists_them(looked: Looked) -> None:
    with pytest.raises(
        AmbiguousInstrument, match="several instruments 'BTC-USDT'; name one of: alpha:BTCUSDT, beta:XBT/USDT"
    ):
        looked.run.bbo("BTC-USDT")


def test_an_unknown_name_is_an_error_that_says_what_there_is(looked: Looked) -> None:
    with pytest.raises(mdring.UnknownInstrument, match="no instrument 'DOGE'; it has: BTC-USDT, ETH-USDT"):
        looked.run.book("DOGE")


def test_an_instrument_that_was_replaced_is_the_newest_one(looked: Looked) -> None:
    assert looked.run.instrument("BTCUSDT").price_exponent == -2
    looked.books.run.instruments.append(1, "alpha", "BTCUSDT", "BTC-USDT", -3, -5)
    assert (looked.run.instrument("BTCUSDT").id, looked.run.instrument("BTCUSDT").price_exponent) == (4, -3)


# ---- runs -------------------------------------------------------------------------------------------------


def test_a_run_without_books_is_an_error_that_says_so(looked: Looked) -> None:
    directory = looked.books.folder.path.parent
    with pytest.raises(mdring.RunNotFound, match="no run 'other'"):
        mdring.open_run("other", directory=directory)
    looked.books.folder.books.unlink()
    with pytest.raises(mdring.RunError, match=r"keeps no books: \[books\] enabled is false"):
        mdring.open_run(directory=directory)
