"""Late joins: every book is the one of a consumer that was there from the start, and goes on being it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from random import Random

import numpy as np
import pytest

from mdring.book import BookSet
from mdring.book.late_join import Joined, JoinError, join
from mdring.counters import Counter
from mdring.record import Flags, Reason, Side
from tests.book.keeper_run import BookRun, book_run, follow
from tests.book.load import under_load
from tests.book.market import Market, book_of
from tests.book.records import ask, batch, bid, clear, rows, snapshot, status
from tests.book.test_keeper import fill, steps
from tests.runs import open_reader, records


def true_books(market: Market, seq: int) -> BookSet:
    """The books of a consumer that was there from the start."""
    books = BookSet()
    books.apply(market.recent(seq))
    return books


def check(joined: Joined, truth: BookSet, ids: Iterable[int]) -> None:
    """The joined books are these."""
    for instrument_id in ids:
        assert book_of(joined.books, instrument_id) == book_of(truth, instrument_id), (instrument_id, joined.seq)


def go_on(run: BookRun, joined: Joined) -> None:
    """Apply what the tape has after the join."""
    reader = open_reader(run.tape, joined.seq)
    out = records(1024)
    while count := reader.poll(out):
        joined.books.apply(out, count)
    assert reader.lost == 0


@pytest.mark.parametrize("seed", range(4))
def test_joined_books_are_true_at_any_time_and_stay_so(seed: int) -> None:
    market, generator = Market(seed), Random(seed)
    checked = 0
    with book_run() as run, run.keeper() as keeper:
        pending: Joined | None = None
        for first, last in steps(market, generator, 2.5):
            run.publish(market.records(first, last))
            if generator.random() < 0.6:
                follow(keeper)
            if pending is not None:
                go_on(run, pending)
                check(pending, true_books(market, last), pending.books)
            pending = join(run.folder, run.tape, None if generator.random() < 0.5 else generator.sample(market.ids, 3))
            assert (pending.seq, pending.without_checkpoint) == (last, ())
            check(pending, true_books(market, last), pending.books)
            checked += 1
    assert checked > 50


def test_only_the_wanted_books_are_joined() -> None:
    market = Market(1)
    with book_run() as run, run.keeper() as keeper:
        run.publish(market.records(1, next(end for end in market.ends if end > 500)))
        follow(keeper)
        assert list(join(run.folder, run.tape, [2, 5]).books) == [2, 5]
        assert list(join(run.folder, run.tape).books) == list(market.ids)


def test_deep_books_are_complete() -> None:
    market = Market(2, instruments=3, length=60_000, levels=5000)
    with book_run(tape_slots=1 << 17, checkpoint_bytes=1 << 22) as run, run.keeper() as keeper:
        last = 0
        for end in (end for end in market.ends if end - last > 10_000 or end == market.ends[-1]):
            run.publish(market.records(last + 1, end))
            last = end
        follow(keeper)
        joined = join(run.folder, run.tape)
        assert joined.books[1].depth(Side.BID) > 3000
        check(joined, true_books(market, last), market.ids)
        follow(keeper)


def test_a_set_is_joined_anew_in_its_place() -> None:
    market = Market(4)
    ends = [end for end in market.ends if end > 500]
    with book_run() as run, run.keeper() as keeper:
        run.publish(market.records(1, ends[0]))
        follow(keeper)
        first = join(run.folder, run.tape, [1, 2, 3])
        book = first.books[2]
        first.books.apply(batch([*snapshot({77: 7}, {}, 2), bid(78, 1, Flags.NONE, 3)], 10**6))  # and amid a group
        run.publish(market.records(ends[0] + 1, ends[300]))
        second = join(run.folder, run.tape, books=first.books)
        assert second.books is first.books
        assert not second.books.in_group
        check(second, true_books(market, ends[300]), [1, 2, 3])
        assert book.best_bid == true_books(market, ends[300])[2].best_bid
        with pytest.raises(ValueError, match="either"):
            join(run.folder, run.tape, [1], books=first.books)


def test_a_set_that_was_joined_anew_forgets_books_of_which_nothing_is_known() -> None:
    with book_run() as run, run.keeper():
        books = BookSet([9])
        books.apply(batch([*snapshot({5: 1}, {6: 1}, 9), bid(4, 1, Flags.NONE, 9)]))
        assert books[9].valid
        assert books.in_group
        join(run.folder, run.tape, books=books)
        assert not books.in_group
        assert (books[9].valid, books[9].seq, books[9].invalid_reason) == (False, 0, Reason.NONE)
        books.apply(batch([bid(4, 1, Flags.SNAPSHOT | Flags.LAST, 9), *snapshot({3: 1}, {}, 9)], 1))
        assert books[9].best_bid == (3, 1)


def test_an_instrument_that_comes_later_is_invalid_until_its_snapshot() -> None:
    with book_run() as run, run.keeper() as keeper:
        run.publish(batch(snapshot({5: 1}, {6: 1}, 1)))
        follow(keeper)
        joined = join(run.folder, run.tape, [1, 2])
        assert [joined.books[id_].valid for id_ in (1, 2)] == [True, False]
        run.publish(batch([bid(1, 1, Flags.LAST, 2), *snapshot({3: 1}, {}, 2)]))
        go_on(run, joined)
        assert joined.books[2].best_bid == (3, 1)


@pytest.mark.parametrize("is_followed", [False, True])
def test_the_newest_reason_wins_whether_it_was_loaded_or_replayed(is_followed: bool) -> None:
    invalid = [*snapshot({5: 1}, {6: 1}, 1), clear(Reason.CHECKSUM, Flags.LAST)]
    for told, reason in (
        ([status(1, Reason.STALE), *invalid], Reason.CHECKSUM),
        ([*invalid, status(1, Reason.STALE)], Reason.STALE),
        ([*invalid, status(1, Reason.STALE), status(5, Reason.SEQUENCE_GAP, instrument_id=1)], Reason.SEQUENCE_GAP),
    ):
        with book_run() as run, run.keeper() as keeper:
            run.publish(batch(told))
            if is_followed:
                fill(run, 1024)
                follow(keeper)
                assert keeper.floor > len(told)
            joined = join(run.folder, run.tape)
            assert joined.books[1].invalid_reason is reason


def test_a_book_that_was_never_cleared_does_not_become_valid_by_half_a_snapshot() -> None:
    with book_run() as run, run.keeper() as keeper:
        run.publish(batch([bid(1, -1, Flags.LAST)]))
        run.publish(batch(snapshot({5: 1}, {})))
        run.publish(batch([bid(1, -1, Flags.LAST)]))  # cannot be: the book is given up
        fill(run, 1024)
        follow(keeper)
        joined = join(run.folder, run.tape)
        joined.books.apply(batch([bid(9, 1, Flags.SNAPSHOT | Flags.LAST)], 10**6))
        assert (joined.books[1].valid, joined.books[1].invalid_reason) == (False, Reason.BAD_MESSAGE)


def test_a_book_deeper_than_the_set_allows_is_invalid() -> None:
    with book_run() as run, run.keeper() as keeper:
        run.publish(batch(snapshot({}, dict.fromkeys(range(1, 11), 1))))
        fill(run, 1024)
        follow(keeper)
        joined = join(run.folder, run.tape, books=BookSet(max_levels=9))
        assert (joined.books[1].valid, joined.books[1].invalid_reason) == (False, Reason.BUFFER_FULL)


def test_a_book_without_room_is_invalid_and_told_and_valid_by_its_next_snapshot() -> None:
    deep = dict.fromkeys(range(1, 2001), 1)
    with book_run(checkpoint_bytes=1 << 14) as run, run.keeper() as keeper:
        run.publish(batch(snapshot(deep, {}, 1)))
        run.publish(batch(snapshot({5: 1}, {6: 1}, 2)))
        fill(run, 1024)
        follow(keeper)
        joined = join(run.folder, run.tape)
        assert joined.without_checkpoint == (1,)
        assert [joined.books[id_].valid for id_ in (1, 2)] == [False, True]
        assert joined.books[1].invalid_reason is Reason.BUFFER_FULL
        assert join(run.folder, run.tape, [2]).without_checkpoint == ()
        run.publish(batch([ask(9, 9, Flags.LAST), *snapshot({7: 1}, {8: 1}, 1)]))
        go_on(run, joined)
        assert rows(joined.books[1].asks()) == [(8, 1)]


# ---- without a keeper -------------------------------------------------------------------------------------


def test_before_the_keeper_is_up_the_tape_alone_tells_all() -> None:
    market = Market(6, length=1500)
    with book_run() as run:
        run.publish(market.records(1, len(market)))
        check(join(run.folder, run.tape), true_books(market, len(market)), market.ids)


def test_a_dead_keepers_checkpoints_serve_while_the_tape_reaches_back_to_them() -> None:
    market, generator = Market(7), Random(7)
    with book_run() as run:
        batches = steps(market, generator, 3)
        with run.keeper() as keeper:
            for first, last in batches:
                run.publish(market.records(first, last))
                follow(keeper)
                if last > 6000:
                    break
        died_at = last
        for first, last in batches:
            run.publish(market.records(first, last))
            if last - died_at > 4096 * 5 // 8:
                break
            check(join(run.folder, run.tape), true_books(market, last), market.ids)
        assert last - died_at > 2000
        for first, last in batches:
            run.publish(market.records(first, last))
            if last - died_at > 4096:
                break
        with pytest.raises(JoinError, match=r"the checkpoints end at seq .* is the book keeper running\?"):
            join(run.folder, run.tape)


def test_a_run_without_books_says_so() -> None:
    with book_run() as run:
        run.folder.checkpoints.unlink()
        with pytest.raises(JoinError, match=r"keeps no books: \[books\] enabled is false"):
            join(run.folder, run.tape)


def test_joining_waits_for_a_keeper_that_is_being_restarted() -> None:
    market = Market(8)
    with book_run() as run:
        with run.keeper() as keeper:
            run.publish(market.records(1, next(end for end in market.ends if end > 500)))
            follow(keeper)
        fill(run, 3 * 4096)
        with pytest.raises(JoinError):
            join(run.folder, run.tape)
        ended: list[Joined] = []
        waiting = threading.Thread(target=lambda: ended.append(join(run.folder, run.tape, wait_s=60)))
        waiting.start()
        with run.keeper():
            waiting.join(60)
        assert len(ended) == 1
        assert not any(ended[0].books[id_].valid for id_ in market.ids)
        assert np.all([ended[0].books[id_].invalid_reason is Reason.RING_FULL for id_ in market.ids])


# ---- under load -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("joins", [1000, pytest.param(50_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_random_joins_under_load__each_book_is_that_of_a_consumer_from_the_start(joins: int) -> None:
    market, generator = Market(12, instruments=16, length=20_000, levels=40, deep={3: 1000}), Random(joins)
    seen: list[tuple[int, int, tuple[object, ...]]] = []
    with book_run(tape_slots=1 << 15, checkpoint_bytes=1 << 21) as run, under_load(run, market) as load:
        for number in range(joins):
            wanted = None if generator.random() < 0.3 else generator.sample(market.ids, generator.randrange(1, 8))
            joined = join(run.folder, run.tape, wanted, wait_s=30)
            followed = random_follow(run, joined, generator)
            assert joined.without_checkpoint == ()
            seen += [(followed, id_, book_of(joined.books, id_)) for id_ in wanted or market.ids]
            if number % 10 == 5:
                load.kill_keeper()
            elif number % 10 == 7:
                load.start_keeper()
            time.sleep(generator.random() * 0.01)
        assert run.counters.load(Counter.LOST) == 0
        assert run.tape.cursor > run.tape.slot_count
    truth, applied = BookSet(), 0
    for seq, instrument_id, book in sorted(seen, key=lambda joined: joined[0]):
        truth.apply(market.records(applied + 1, seq))
        applied = seq
        assert book == book_of(truth, instrument_id), f"instrument {instrument_id} at seq {seq}"


def random_follow(run: BookRun, joined: Joined, generator: Random) -> int:
    """Apply some or none of what comes after the join; returns the seq of the last record applied."""
    reader = open_reader(run.tape, joined.seq)
    out = records(4096)
    for _ in range(generator.choice((0, 0, 1, 5))):
        joined.books.apply(out, reader.poll(out))
        time.sleep(0.001)
    assert (reader.lost, joined.books.in_group) == (0, False)
    return reader.position
