"""The consolidated BBO: its rules one by one, and against a plain reference that goes record by record."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mdring
from mdring.book import BookSet
from mdring.consolidated import Best, ConsolidatedBbo, Liveness
from mdring.instrument import Instrument
from mdring.record import (
    BBO,
    CLEAR,
    LEVEL,
    RECORD,
    STATUS,
    UNDEFINED_PRICE,
    DataType,
    Flags,
    Kind,
    Reason,
    Side,
    State,
)
from tests.runs import open_writer, temporary_run

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND

ALPHA = Instrument(1, 1, "alpha", "BTCUSDT", "BTC-USDT", -2, -5)
BETA = Instrument(2, 2, "beta", "BTC-USDT", "BTC-USDT", -1, -8)
OTHER = Instrument(3, 2, "beta", "ETH-USDT", "ETH-USDT", -2, -4)
GAMMA = Instrument(4, 3, "gamma", "XBT/USDT", "BTC-USDT", 0, 0)
TABLE = [ALPHA, BETA, OTHER, GAMMA]


def one(view: np.dtype[np.void], kind: Kind, instrument_id: int, venue_id: int, **fields: Any) -> npt.NDArray[np.void]:
    made = np.zeros(1, dtype=view)
    for name, value in {
        "kind": kind, "instrument_id": instrument_id, "venue_id": venue_id,
        "flags": Flags.LAST, "ts_recv": NOW, **fields,
    }.items():  # fmt: skip
        made[name] = value
    return made.view(RECORD)


def bbo(row: Instrument, bid: int, bid_size: int, ask: int, ask_size: int, **fields: Any) -> npt.NDArray[np.void]:
    prices = {"bid_price": bid, "bid_size": bid_size, "ask_price": ask, "ask_size": ask_size}
    return one(BBO, Kind.BBO, row.id, row.venue_id, **prices, **fields)


def status(row: Instrument, state: State, *, whole_venue: bool = True, **fields: Any) -> npt.NDArray[np.void]:
    return one(STATUS, Kind.STATUS, 0 if whole_venue else row.id, row.venue_id, state=state, **fields)


def batch(*parts: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    return np.concatenate(parts)


def consolidated(*parts: npt.NDArray[np.void]) -> ConsolidatedBbo:
    made = ConsolidatedBbo(TABLE, "BTC-USDT", stale_after_s=5)
    if parts:
        made.update(batch(*parts))
    return made


def bid_venues(best: Best) -> list[str]:
    return [venue.venue for venue in best.bid.venues] if best.bid else []


def liveness(made: ConsolidatedBbo, row: Instrument, now_ns: int = NOW) -> Liveness:
    return next(quote.liveness for quote in made.quotes(now_ns) if quote.instrument.id == row.id)


# ---- the best price ----------------------------------------------------------------------------------------


def test_prices_of_venues_with_different_exponents_are_compared_exactly() -> None:
    best = consolidated(bbo(ALPHA, 10_001, 7, 10_003, 9), bbo(BETA, 1_000, 5, 1_001, 3)).best(NOW)
    assert best.bid is not None and best.ask is not None
    assert (best.bid.price, best.bid.price_exponent, best.bid.price_decimal) == (10_001, -2, Decimal("100.01"))
    assert (best.ask.price, best.ask.price_decimal) == (10_003, Decimal("100.03"))
    assert bid_venues(best) == ["alpha"]
    assert best.ask.size_decimal == Decimal("0.00009")


def test_sizes_at_one_price_are_summed_and_listed_by_venue() -> None:
    best = consolidated(
        bbo(ALPHA, 10_000, 7, 10_100, 1), bbo(BETA, 1_000, 5, 1_020, 1), bbo(GAMMA, 100, 2, 102, 1)
    ).best(NOW)
    assert best.bid is not None
    assert best.bid.size_decimal == Decimal("2.00007005")
    assert [(venue.venue, venue.size) for venue in best.bid.venues] == [
        ("gamma", 200_000_000), ("alpha", 7_000), ("beta", 5)
    ]  # fmt: skip
    assert (best.bid.size_exponent, best.bid.size_float, best.bid.price_float) == (-8, 2.00007005, 100.0)


def test_an_empty_side_of_a_venue_counts_on_the_other_side_only() -> None:
    best = consolidated(bbo(ALPHA, 10_000, 7, UNDEFINED_PRICE, 0), bbo(BETA, UNDEFINED_PRICE, 0, 1_020, 4)).best(NOW)
    assert best.bid is not None and best.ask is not None
    assert (best.bid.price, best.ask.price) == (10_000, 10_200)


def test_without_a_live_venue_there_is_no_best() -> None:
    best = consolidated().best(NOW)
    assert (best.bid, best.ask, best.is_crossed, best.is_locked) == (None, None, False, False)


@pytest.mark.parametrize(
    ("bid_of_beta", "crossed", "locked"), [(1_003, True, False), (1_002, False, True), (1_001, False, False)]
)
def test_venues_that_cross_or_lock_each_other_are_flagged(bid_of_beta: int, crossed: bool, locked: bool) -> None:
    best = consolidated(bbo(ALPHA, 10_010, 7, 10_020, 9), bbo(BETA, bid_of_beta, 5, 1_050, 3)).best(NOW)
    assert (best.is_crossed, best.is_locked) == (crossed, locked)


@pytest.mark.parametrize("bid", [10_020, 10_021])
def test_a_venue_that_crosses_itself_is_invalid_until_its_next_bbo(bid: int) -> None:
    made = consolidated(bbo(BETA, 1_000, 5, 1_050, 3), bbo(ALPHA, bid, 7, 10_020, 9))
    assert liveness(made, ALPHA) is Liveness.INVALID
    assert bid_venues(made.best(NOW)) == ["beta"]
    made.update(bbo(ALPHA, 10_010, 7, 10_020, 9))
    assert bid_venues(made.best(NOW)) == ["alpha"]


# ---- a batch -----------------------------------------------------------------------------------------------


def test_only_the_newest_bbo_of_a_batch_counts() -> None:
    made = consolidated(
        bbo(ALPHA, 10_500, 7, 10_600, 9), bbo(BETA, 1_000, 1, 1_100, 1), bbo(ALPHA, 9_900, 7, 10_600, 9)
    )
    assert bid_venues(made.best(NOW)) == ["beta"]


def test_update_says_whether_the_batch_concerned_the_symbol() -> None:
    made = consolidated()
    assert not made.update(np.zeros(0, dtype=RECORD))
    assert not made.update(bbo(OTHER, 1, 1, 2, 1))
    assert not made.update(status(ALPHA, State.CONNECTED))
    assert not made.update(status(Instrument(9, 9, "omega", "X", "X", 0, 0), State.DISCONNECTED))
    assert made.update(bbo(ALPHA, 1, 1, 2, 1))
    assert made.update(status(ALPHA, State.DISCONNECTED))


def test_an_instrument_newer_than_the_table_is_ignored() -> None:
    assert not consolidated().update(one(BBO, Kind.BBO, 4_000_000_000, 1, bid_price=5, bid_size=1))


def test_a_batch_may_be_a_view_of_the_record() -> None:
    made = consolidated()
    assert made.update(bbo(ALPHA, 10_000, 7, 10_020, 9).view(BBO))
    assert bid_venues(made.best(NOW)) == ["alpha"]


# ---- who drops out -----------------------------------------------------------------------------------------

DOWN = (State.RECONNECTING, State.DISCONNECTED, State.CIRCUIT_OPEN)
DOUBTFUL = (State.GAP, State.RESYNCING, State.REJECTED, State.DROPPED)


@pytest.mark.parametrize("state", DOWN + DOUBTFUL)
@pytest.mark.parametrize("whole_venue", [True, False])
def test_a_status_takes_a_venue_out_until_its_next_bbo(state: State, whole_venue: bool) -> None:
    made = consolidated(bbo(ALPHA, 10_000, 7, 10_020, 9), bbo(BETA, 900, 1, 1_200, 1))
    made.update(status(ALPHA, state, whole_venue=whole_venue, reason=Reason.NO_DATA))
    assert liveness(made, ALPHA) is (Liveness.DOWN if state in DOWN else Liveness.INVALID)
    assert made.quotes(NOW)[0].reason is Reason.NO_DATA
    assert bid_venues(made.best(NOW)) == ["beta"]
    made.update(status(ALPHA, State.CONNECTED))
    assert bid_venues(made.best(NOW)) == ["beta"]
    made.update(bbo(ALPHA, 10_001, 7, 10_020, 9))
    assert bid_venues(made.best(NOW)) == ["alpha"]


@pytest.mark.parametrize("state", DOWN + DOUBTFUL)
def test_statuses_and_bbos_of_one_batch_count_in_their_order(state: State) -> None:
    quote, fall = bbo(ALPHA, 10_000, 7, 10_020, 9), status(ALPHA, state)
    assert consolidated(quote, fall).best(NOW).bid is None
    assert consolidated(quote, fall, quote).best(NOW).bid is not None
    assert consolidated(fall, quote, fall).best(NOW).bid is None


def test_a_gap_in_other_data_does_not_take_the_quote_out() -> None:
    made = consolidated(bbo(ALPHA, 10_000, 7, 10_020, 9))
    for data_type in (DataType.TRADE, DataType.BOOK):
        assert not made.update(status(ALPHA, State.GAP, whole_venue=False, data_type=data_type))
    assert made.update(status(ALPHA, State.GAP, whole_venue=False, data_type=DataType.BBO))
    assert made.best(NOW).bid is None


def test_the_refusal_of_another_instrument_does_not_take_the_venue_out() -> None:
    made = consolidated(bbo(ALPHA, 10_000, 7, 10_020, 9))
    assert not made.update(status(ALPHA, State.REJECTED, reason=Reason.UNKNOWN_INSTRUMENT))
    assert made.best(NOW).bid is not None


def test_a_venue_is_out_while_it_is_stale() -> None:
    made = consolidated(bbo(ALPHA, 10_000, 7, 10_020, 9), bbo(BETA, 900, 1, 1_200, 1, ts_recv=NOW + SECOND))
    assert bid_venues(made.best(NOW + 5 * SECOND - 1)) == ["alpha"]
    assert bid_venues(made.best(NOW + 5 * SECOND)) == ["beta"]
    assert liveness(made, ALPHA, NOW + 5 * SECOND) is Liveness.STALE
    made.update(bbo(ALPHA, 10_000, 7, 10_020, 9, ts_recv=NOW + 5 * SECOND))
    assert bid_venues(made.best(NOW + 5 * SECOND)) == ["alpha"]


def test_a_halted_venue_stays_out_whatever_it_quotes_until_it_trades() -> None:
    quote = bbo(ALPHA, 10_000, 7, 10_020, 9)
    made = consolidated(quote, status(ALPHA, State.HALTED, whole_venue=False), quote)
    assert (liveness(made, ALPHA), made.best(NOW).bid) == (Liveness.HALTED, None)
    made.update(status(ALPHA, State.TRADING, whole_venue=False))
    assert bid_venues(made.best(NOW)) == ["alpha"]


def test_lost_records_take_all_venues_out() -> None:
    made = consolidated(bbo(ALPHA, 10_000, 7, 10_020, 9), bbo(BETA, 900, 1, 1_200, 1))
    made.invalidate()
    assert made.best(NOW).bid is None
    made.update(bbo(BETA, 900, 1, 1_200, 1))
    assert bid_venues(made.best(NOW)) == ["beta"]


# ---- books, tables, arguments ------------------------------------------------------------------------------


def test_it_can_be_fed_from_books_and_an_invalid_book_takes_its_venue_out() -> None:
    books = BookSet()
    clear = one(CLEAR, Kind.CLEAR, ALPHA.id, 1, reason=Reason.SNAPSHOT, flags=Flags.SNAPSHOT)
    bid = one(LEVEL, Kind.LEVEL, ALPHA.id, 1, side=Side.BID, price=10_000, size=7, flags=Flags.SNAPSHOT)
    ask = one(LEVEL, Kind.LEVEL, ALPHA.id, 1, side=Side.ASK, price=10_020, size=9, flags=Flags.SNAPSHOT | Flags.LAST)
    books.apply(batch(clear, bid, ask))
    made = consolidated()
    made.update_book(books[ALPHA.id], NOW)
    best = made.best(NOW)
    assert best.bid is not None and best.ask is not None
    assert (best.bid.price, best.ask.price, best.ask.size_decimal) == (10_000, 10_020, Decimal("0.00009"))
    books.apply(one(CLEAR, Kind.CLEAR, ALPHA.id, 1, reason=Reason.CHECKSUM))
    made.update_book(books[ALPHA.id], NOW)
    assert made.best(NOW).bid is None
    assert (liveness(made, ALPHA), made.quotes(NOW)[0].reason) == (Liveness.INVALID, Reason.CHECKSUM)


def test_a_book_of_another_symbol_is_ignored() -> None:
    books = BookSet([OTHER.id])
    made = consolidated()
    made.update_book(books[OTHER.id], NOW)
    assert made.best(NOW).bid is None


def test_a_venue_that_joins_later_is_followed_and_a_replaced_row_drops_out() -> None:
    table = [ALPHA]
    made = ConsolidatedBbo(table, "BTC-USDT")
    made.update(bbo(ALPHA, 10_000, 7, 10_020, 9))
    table.append(BETA)
    made.update(bbo(BETA, 1_001, 7, 1_020, 9))
    assert bid_venues(made.best(NOW)) == ["beta"]
    table.append(Instrument(7, 2, "beta", "BTC-USDT", "BTC-USDT", -3, -8))
    made.update(np.zeros(0, dtype=RECORD))
    best = made.best(NOW)
    assert best.bid is not None
    assert (bid_venues(best), best.bid.price, best.bid.price_exponent) == (["alpha"], 100_000, -3)
    made.update(bbo(table[-1], 100_010, 7, 100_020, 9))
    assert bid_venues(made.best(NOW)) == ["beta"]


def test_it_follows_the_tape_of_a_run_also_to_another_one() -> None:
    with temporary_run(["alpha", "beta"]) as run:
        run.instruments.append(1, "alpha", "BTCUSDT", "BTC-USDT", -2, -5)
        run.instruments.append(2, "beta", "BTC-USDT", "BTC-USDT", -1, -8)
        writer = open_writer(run.tape)
        with mdring.attach(run.folder.name, directory=run.folder.path.parent) as tape:
            made = ConsolidatedBbo(tape, "BTC-USDT")
            writer.publish(batch(bbo(ALPHA, 10_000, 7, 10_020, 9), bbo(BETA, 1_001, 7, 1_030, 9)))
            assert made.update(tape.poll())
            assert bid_venues(made.best(NOW)) == ["beta"]
            tape.reattach()
            made.update(tape.poll())
            assert made.best(NOW).bid is None


def test_an_unknown_symbol_and_a_wrong_time_are_refused() -> None:
    with pytest.raises(mdring.UnknownInstrument, match="no venue lists 'BTC-EUR'; the run has: BTC-USDT, ETH-USDT"):
        ConsolidatedBbo(TABLE, "BTC-EUR")
    with pytest.raises(ValueError, match="stale_after_s is 0"):
        ConsolidatedBbo(TABLE, "BTC-USDT", stale_after_s=0)


# ---- against a plain reference -----------------------------------------------------------------------------

LISTED = (ALPHA, BETA, GAMMA)


def scaled(row: Instrument, side: tuple[int, int, int] | None) -> tuple[int, int]:
    if side is None:
        return UNDEFINED_PRICE, 0
    whole, step, size = side
    return whole * 10**-row.price_exponent + step, size * 10**-row.size_exponent


# Whole prices, so that venues with different exponents often meet; now and then a step of the instrument's own.
sides = st.one_of(st.just(None), st.tuples(st.integers(98, 102), st.sampled_from([0, 0, 0, 1]), st.integers(0, 5)))
times = st.integers(0, 8).map(lambda seconds: NOW + seconds * SECOND)
events = st.one_of(
    st.builds(
        lambda row, bid, ask, when: bbo(row, *scaled(row, bid), *scaled(row, ask), ts_recv=when),
        st.sampled_from(TABLE), sides, sides, times,
    ),
    st.builds(
        lambda row, state, whole, data_type, reason: status(
            row, state, whole_venue=whole, data_type=data_type, reason=reason
        ),
        st.sampled_from(TABLE), st.sampled_from(State), st.booleans(), st.sampled_from(DataType),
        st.sampled_from([Reason.NONE, Reason.NO_DATA, Reason.UNKNOWN_INSTRUMENT]),
    ),
)  # fmt: skip


class Reference:
    """The same rules, record by record, in decimals."""

    def __init__(self) -> None:
        self.quotes: dict[int, np.void | None] = {row.id: None for row in LISTED}
        self.halted: set[int] = set()

    def apply(self, record: np.void) -> None:
        if record["kind"] == Kind.BBO:
            quote = np.array([record]).view(BBO)[0]
            if int(quote["instrument_id"]) in self.quotes:
                whole = UNDEFINED_PRICE in (quote["bid_price"], quote["ask_price"])
                self.quotes[int(quote["instrument_id"])] = (
                    quote if whole or quote["bid_price"] < quote["ask_price"] else None
                )
            return
        change = np.array([record]).view(STATUS)[0]
        for row in LISTED:
            if change["instrument_id"] != row.id and (change["instrument_id"] or change["venue_id"] != row.venue_id):
                continue
            concerns_bbo = change["data_type"] in (0, 2) and change["reason"] != Reason.UNKNOWN_INSTRUMENT
            if change["state"] in DOWN or (change["state"] in DOUBTFUL and concerns_bbo):
                self.quotes[row.id] = None
            if change["state"] == State.HALTED:
                self.halted.add(row.id)
            if change["state"] == State.TRADING:
                self.halted.discard(row.id)

    def side(self, name: str, now_ns: int) -> list[tuple[Decimal, Decimal, str]]:
        """(price, size, venue) of every live venue, lowest price first."""
        return sorted(
            (
                Decimal(int(quote[f"{name}_price"])).scaleb(row.price_exponent),
                row.size(quote[f"{name}_size"]),
                row.venue,
            )
            for row in LISTED
            if (quote := self.quotes[row.id]) is not None
            and row.id not in self.halted
            and now_ns - quote["ts_recv"] < 5 * SECOND
            and quote[f"{name}_price"] != UNDEFINED_PRICE
            and quote[f"{name}_size"] > 0
        )


@given(st.lists(st.lists(events, min_size=1, max_size=12), max_size=6), times)
def test_any_batches_give_what_the_plain_reference_gives(
    batches: list[list[npt.NDArray[np.void]]], now_ns: int
) -> None:
    made, reference = consolidated(), Reference()
    for parts in batches:
        polled = batch(*parts)
        made.update(polled)
        for record in polled:
            reference.apply(record)
        best = made.best(now_ns)
        for side, offers, at in (
            (best.bid, reference.side("bid", now_ns), -1),
            (best.ask, reference.side("ask", now_ns), 0),
        ):
            if not offers:
                assert side is None
                continue
            assert side is not None
            due = {venue: size for price, size, venue in offers if price == offers[at][0]}
            assert side.price_decimal == offers[at][0]
            assert side.size_decimal == sum(due.values())
            assert {venue.venue: Decimal(venue.size).scaleb(side.size_exponent) for venue in side.venues} == due
