"""Bitstamp v2, the book: its rules by number, its audits, a recording of the real venue."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdring.capture import read_capture
from mdring.decode import decode_capture
from mdring.emulator.faults import FaultKind
from mdring.feed.adapter import (
    Fetch,
    Reconnect,
    Request,
    Subscription,
)
from mdring.feed.fixed import to_decimal
from mdring.record import (
    BBO,
    CLEAR,
    LEVEL,
    UNDEFINED_PRICE,
    DataType,
    Flags,
    Kind,
    Reason,
    Side,
    State,
)
from tests.adapters.bitstamp_bench import (
    QUOTED,
    SECOND,
    acknowledged,
    bench_of,
    diff,
    fetches,
    kinds,
    live,
    snapshot,
    statuses,
    told,
)
from tests.adapters.conformance import NOW, Bench, check_records
from tests.adapters.loopback import Loopback

# ---- the book, by the rules of bitstamp_book.py -----------------------------------------------------------


def test_rules_1_and_2_diffs_held_are_discarded_up_to_the_snapshot_and_others_are_applied() -> None:
    """galaeur of the recording of January 2022."""
    bench = bench_of()
    (fetch,) = fetches(bench.frame(diff(1641343695027150, [["0.38083", "0.00000000"]])))
    assert fetch.url == "https://www.bitstamp.net/api/v2/order_book/galaeur/?group=1" and fetch.delay_ns > 0
    later = [
        diff(1641343695140519, [["0.38083", "41095.89000000"]]),
        diff(1641343698540505, [], [["0.38190", "0.00000000"]]),
        diff(1641343698652890, [], [["0.38177", "1164.12000000"]]),
        diff(1641343698992761, [["0.38082", "0.00000000"]]),
    ]
    assert [fetches(bench.frame(one)) for one in later] == [[], [], [], []]
    assert len(bench.records) == 0
    bids = [["0.38083", "41095.89000000"], ["0.38082", "1162.25090469"]]
    asks = [["0.38172", "1164.39000000"], ["0.38190", "40961.84000000"]]
    bench.answer(fetch, snapshot(1641343696956853, bids, asks))
    first = kinds(bench.last())[:6]
    assert first == [Kind.CLEAR, *[Kind.LEVEL] * 4, Kind.BBO]
    assert told(bench)[4:] == [
        (Side.ASK, "0.3819", "0", 1641343698540505),
        (Side.ASK, "0.38177", "1164.12", 1641343698652890),
        (Side.BID, "0.38082", "0", 1641343698992761),
    ]
    assert statuses(bench.last()) == [(State.SYNCED, Reason.NONE, 0, 0)]
    assert bench.adapter.counts.books_valid == 1
    check_records(bench.records)


def test_rule_3_snapshot_older_than_the_oldest_diff_held_does_not_count() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(diff(5_000_000, [["1", "1"]])))
    (again,) = fetches(bench.answer(fetch, snapshot(4_999_999)))
    assert len(bench.records) == 0 and bench.adapter.counts.books_valid == 0
    bench.answer(again, snapshot(5_000_000, [["1", "1"]]))
    assert bench.adapter.counts.books_valid == 1


def test_rule_3_without_any_diff_a_snapshot_counts_that_was_asked_for_late_enough() -> None:
    bench = bench_of()
    _, fetch = bench.frame(acknowledged())
    assert isinstance(fetch, Fetch)
    assert fetch.delay_ns >= 3 * SECOND  # the oldest snapshot seen was of 2.6 s ago
    assert fetch.instrument == "galaeur"  # whose book waits for it
    bench.answer(fetch, snapshot(7, [["1", "1"]]))
    assert bench.adapter.counts.books_valid == 1 and bench.adapter.counts.resyncs == 0
    bench.frame(diff(8, [["1", "2"]]))
    assert told(bench) == [(Side.BID, "1", "2", 8)]


def test_rule_3_quiet_market_whose_snapshot_fails_is_asked_for_again_late_enough() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(acknowledged()))
    (again,) = fetches(bench.answer(fetch, b"", 503))
    assert again.delay_ns >= 3 * SECOND
    assert statuses(bench.last()) == [(State.RESYNCING, Reason.SNAPSHOT_FAILED, 0, 503)]
    bench.answer(again, snapshot(7, [["1", "1"]]))
    assert bench.adapter.counts.books_valid == 1


def test_rule_3_after_a_resync_a_snapshot_older_than_what_was_applied_does_not_count() -> None:
    """Else what lies between would be neither in it nor among the diffs held."""
    bench = live()
    bench.frame(diff(3_000_000, [["1", "7"]]))
    (fetch,) = fetches(bench.adapter.resync("galaeur", NOW, Reason.RING_FULL, bench.emit))
    (again,) = fetches(bench.answer(fetch, snapshot(2_999_999, [["1", "5"]])))
    assert bench.adapter.counts.books_valid == 0
    bench.frame(diff(4_000_000, [["0.9", "1"]]))
    (once_more,) = fetches(bench.answer(again, snapshot(2_999_999, [["1", "5"]])))
    bench.answer(once_more, snapshot(3_000_000, [["1", "7"]]))
    assert [level[1:] for level in told(bench)] == [("1", "7", 3_000_000), ("0.9", "1", 4_000_000)]


def test_rule_3_diff_whose_levels_are_of_no_use_has_been_seen_all_the_same() -> None:
    bench = live()
    (fetch,) = fetches(bench.frame(diff(3_000_000, [["x", "7"]])))
    bench.frame(diff(2_500_000, [["0.9", "1"]]))  # was overtaken
    (again,) = fetches(bench.answer(fetch, snapshot(2_600_000, [["1", "5"], ["0.9", "1"]])))
    assert bench.adapter.counts.books_valid == 0
    bench.answer(again, snapshot(3_000_000, [["1", "7"], ["0.9", "1"]]))
    assert bench.adapter.counts.books_valid == 1


def test_rule_3_held_diff_that_turns_out_to_be_of_no_use_has_been_seen_all_the_same() -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(diff(2_000_000, [["1", "5"]])))
    bench.frame(diff(3_000_000, [["x", "7"]]))
    (again,) = fetches(bench.answer(fetch, snapshot(2_000_000, [["1", "5"]])))
    bench.frame(diff(2_500_000, [["0.9", "1"]]))  # was overtaken
    (once_more,) = fetches(bench.answer(again, snapshot(2_600_000, [["0.9", "1"]])))
    assert bench.adapter.counts.books_valid == 0
    bench.answer(once_more, snapshot(3_000_000, [["1", "7"], ["0.9", "1"]]))
    assert bench.adapter.counts.books_valid == 1


@pytest.mark.parametrize("damage", [('"bids":[[', '"bids":[[['), ('"3000000"', '"3e6"')])
def test_rule_3_after_a_diff_that_cannot_be_read_only_a_later_one_proves_a_snapshot(damage: tuple[str, str]) -> None:
    """Its stamp is not known: a snapshot that is newer than the diffs before it may still lack it."""
    bench = live()
    (fetch,) = fetches(bench.frame(diff(3_000_000, [["1", "7"]]).replace(*damage)))
    assert fetch.delay_ns >= 3 * SECOND
    bench.frame(diff(4_000_000, [["0.9", "1"]]))
    (again,) = fetches(bench.answer(fetch, snapshot(2_999_999, [["1", "5"]])))
    assert bench.adapter.counts.books_valid == 0
    bench.answer(again, snapshot(4_000_000, [["1", "7"], ["0.9", "1"]]))
    assert bench.adapter.counts.books_valid == 1


def test_rule_4_stamps_may_be_equal_but_never_fall() -> None:
    bench = live()
    for size in ("6", "7"):
        bench.frame(diff(2_000_000, [["1", size]]))
        assert told(bench) == [(Side.BID, "1", size, 2_000_000)]
    (fetch,) = fetches(bench.frame(diff(1_999_999, [["1", "8"]])))
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 2_000_001, 1_999_999)]
    (again,) = fetches(bench.answer(fetch, snapshot(1_999_999, [["1", "8"]])))  # lacks those applied before
    bench.answer(again, snapshot(2_000_000, [["1", "7"]]))
    assert bench.adapter.counts.books_valid == 1
    check_records(bench.records)


def test_one_wrong_stamp_does_not_silence_a_book_for_ever() -> None:
    bench = live()
    for wrong in (999_999_999_999_999_999, 4_102_444_800_000_000):
        requests = list(bench.frame(diff(wrong, [["1", "6"]])))
        requests += bench.frame(diff(2_000_000, [["1", "7"]]))
        for _ in range(5):
            answered = fetches(requests)
            requests = list(bench.answer(answered[-1], snapshot(3_000_000, [["1", "7"]]))) if answered else []
        assert bench.adapter.counts.books_valid == 1, wrong
    check_records(bench.records)


def test_zero_of_any_spelling_deletes() -> None:
    bench = live()
    bench.frame(diff(2_000_000, [["1", "0"]], [["2", "0.00000"]]))
    assert [level[2] for level in told(bench)] == ["0", "0"]
    quote = bench.last()[-1:].view(BBO)[0]
    assert (quote["bid_price"], quote["ask_price"]) == (UNDEFINED_PRICE, UNDEFINED_PRICE)


def test_book_that_stays_crossed_is_given_up() -> None:
    bench = live()
    bench.frame(diff(2_000_000, [["2.5", "1"]]))
    bench.frame(diff(2_000_000, [], [["2", "0"], ["2.6", "1"]]))  # the other half of the same moment
    bench.frame(diff(3_500_000, [["1", "6"]]))
    assert bench.adapter.counts.books_valid == 1
    bench.frame(diff(4_000_000, [["2.6", "1"]]))
    bench.frame(diff(4_900_000, [["1", "7"]]))
    assert bench.adapter.counts.books_valid == 1
    (fetch,) = fetches(bench.frame(diff(5_000_000, [["1", "8"]])))
    assert statuses(bench.last()) == [(State.RESYNCING, Reason.CROSSED, 0, 0)]
    bench.answer(fetch, snapshot(6_000_000, [["1", "8"]], [["2.6", "1"]]))
    assert bench.adapter.counts.books_valid == 1
    check_records(bench.records)


def test_damaged_diff_costs_its_book_alone() -> None:
    bench = bench_of("galaeur", "ethusd")
    for market in ("galaeur", "ethusd"):
        (audit,) = fetches(bench.frame(acknowledged(market)))
        bench.answer(audit, snapshot(1_000_000, [["1", "5"]]))
    requests = bench.frame(diff(2_000_000, [["x", "5"]]))
    assert len(fetches(requests)) == 1 and bench.adapter.counts.books_valid == 1
    assert not [request for request in requests if isinstance(request, Reconnect)]
    assert [(error.instrument, error.data_type) for error in bench.errors] == [("galaeur", DataType.BOOK)]


def test_message_that_cannot_be_told_whose_it_was_costs_the_connection() -> None:
    requests = live().frame(diff(2_000_000, [["1", "6"]])[:50])
    assert [request.reason for request in requests if isinstance(request, Reconnect)] == [Reason.BAD_MESSAGE]


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", snapshot(1_000_001, [["x", "1"]])])
def test_unusable_snapshot_leaves_no_level_and_is_fetched_again(body: bytes) -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(diff(1_000_000, [["1", "1"]])))
    assert len(fetches(bench.answer(fetch, body))) == 1
    assert [(error.instrument, error.data_type) for error in bench.errors] == [("galaeur", DataType.BOOK)]
    assert Kind.LEVEL not in kinds(bench.records) and Kind.BBO not in kinds(bench.records)


@pytest.mark.parametrize(
    ("status", "body", "delay_s"),
    [
        (500, b"", 0.75),
        (400, b'{"status": "error", "reason": "Request rate limit exceeded.", "code": "400.002"}', 60),
        (429, b"", 60),
        (400, b'{"status": "error", "reason": "Invalid group.", "code": "400.001"}', 0.75),
    ],
)
def test_who_has_asked_too_often_waits_longer(status: int, body: bytes, delay_s: float) -> None:
    bench = bench_of()
    (fetch,) = fetches(bench.frame(diff(1_000_000, [["1", "1"]])))
    (again,) = fetches(bench.answer(fetch, body, status))
    assert again.delay_ns == int(delay_s * SECOND)


def test_quotes_alone_need_the_book_and_tell_no_level_of_it() -> None:
    bench = live(data_types=(DataType.BBO,))
    bench.frame(diff(2_000_000, [["1.5", "6"]]))
    bench.frame(diff(3_000_000, [["0.5", "6"]]))  # not among the best
    quotes = bench.records[bench.records["kind"] == Kind.BBO].view(BBO)
    assert quotes["venue_seq"].tolist() == [1_000_000, 2_000_000]
    assert quotes["ts_event"].tolist() == [1_000_000_000, 2_000_000_000]
    assert Kind.LEVEL not in kinds(bench.records)
    check_records(bench.records)
    assert Kind.BBO not in kinds(live(data_types=(DataType.BOOK,)).records)


def test_quote_is_told_again_after_the_book_was_lost() -> None:
    bench = live()
    bench.disconnect()
    assert kinds(bench.last()) == [Kind.CLEAR]
    assert bench.last().view(CLEAR)["reason"].tolist() == [Reason.CLOSED_BY_VENUE]
    bench.connect()
    (audit,) = fetches(bench.frame(acknowledged()))
    bench.answer(audit, snapshot(500_000, [["1", "5"]], [["2", "5"]]))  # any stamp may come first
    assert kinds(bench.last()) == [Kind.CLEAR, Kind.LEVEL, Kind.LEVEL, Kind.BBO, Kind.STATUS]


# ---- diffs that a direct route has taken -------------------------------------------------------------------


def followed(**options: Any) -> Bench:
    """As ``live``, and a direct route has taken the last diff, of 3 s: a bid of 7 at 1."""
    bench = live(**options)
    bench.frame(diff(2_000_000, [["1", "6"]]))
    bench.frame(diff(3_000_000, [["1", "7"]]))
    assert taken(bench) == 1 and told(bench) == [(Side.BID, "1", "7", 3_000_000)]
    return bench


def taken(bench: Bench) -> int:
    """How many messages went by direct routes."""
    assert bench.adapter.direct is not None
    return bench.adapter.direct.taken


def test_quote_of_a_diff_that_went_directly_has_its_stamp() -> None:
    quote = followed().last()[-1:].view(BBO)[0]
    assert (quote["venue_seq"], quote["ts_event"]) == (3_000_000, 3_000_000_000)


def test_diff_that_went_directly_has_been_seen() -> None:
    bench = followed()
    (fetch,) = fetches(bench.adapter.resync("galaeur", NOW, Reason.RING_FULL, bench.emit))
    (again,) = fetches(bench.answer(fetch, snapshot(2_999_999, [["1", "6"]])))
    assert bench.adapter.counts.books_valid == 0
    bench.answer(again, snapshot(3_000_000, [["1", "7"]]))
    assert bench.adapter.counts.books_valid == 1


def test_stamp_may_not_fall_behind_a_diff_that_went_directly() -> None:
    bench = followed()
    bench.frame(diff(2_999_999, [["1", "8"]]))
    assert statuses(bench.last()) == [(State.GAP, Reason.SEQUENCE_GAP, 3_000_001, 2_999_999)]


def test_nothing_goes_directly_while_a_book_is_audited_or_built_anew() -> None:
    bench = followed(audit_s=60)
    (audit,) = fetches(bench.adapter.on_timer(0, NOW + 60 * SECOND, bench.emit))
    bench.frame(diff(4_000_000, [["1", "8"]]))
    bench.answer(audit, snapshot(4_000_000, [["1", "8"]], [["2", "5"]]))
    assert taken(bench) == 1 and bench.adapter.counts.gaps == 0
    bench.frame(diff(5_000_000, [["1", "9"]]))
    bench.frame(diff(6_000_000, [["1", "10"]]))
    assert taken(bench) == 2
    bench.adapter.resync("galaeur", NOW, Reason.RING_FULL, bench.emit)
    bench.frame(diff(7_000_000, [["1", "11"]]))
    assert taken(bench) == 2


def test_book_that_a_diff_crossed_that_went_directly_may_not_stay_so() -> None:
    bench = followed()
    bench.frame(diff(4_000_000, [["2.5", "1"]]))
    bench.frame(diff(4_900_000, [["1", "8"]]))
    assert taken(bench) == 2 and bench.adapter.counts.books_valid == 1
    bench.frame(diff(5_000_000, [["1", "9"]]))
    assert statuses(bench.last()) == [(State.RESYNCING, Reason.CROSSED, 0, 0)]


def test_deletion_of_what_is_not_there_brings_an_audit_though_it_went_directly() -> None:
    bench = followed(audit_s=0)
    bench.frame(diff(4_000_000, [["1.1", "0"]]))
    assert taken(bench) == 2
    assert len(fetches(bench.adapter.on_timer(0, NOW + 60 * SECOND, bench.emit))) == 1


# ---- audits -----------------------------------------------------------------------------------------------


def audit_of(bench: Bench, seconds: int) -> Fetch:
    """The audit that begins so long after the connection."""
    (fetch,) = fetches(bench.adapter.on_timer(0, NOW + seconds * SECOND, bench.emit))
    return fetch


def test_book_begun_by_a_diff_is_audited_once_it_was_subscribed_to_and_then_every_hour() -> None:
    bench = bench_of()
    (audit,) = fetches(bench.frame(acknowledged()))
    (fetch,) = fetches(bench.frame(diff(1_000_000, [["1", "4"]])))
    bench.answer(fetch, snapshot(1_000_000, [["1", "4"]]))
    bench.frame(diff(2_000_000, [["1", "5"]]))
    seen = len(bench.records)
    assert bench.answer(audit, snapshot(1_500_000, [["1", "4"]])) == ()
    assert len(bench.records) == seen and bench.adapter.counts.gaps == 0
    assert fetches(bench.adapter.on_timer(0, NOW + 3599 * SECOND, bench.emit)) == []
    again = audit_of(bench, 3600)
    assert again.delay_ns >= 3 * SECOND and again.instrument == ""


def test_audit_finds_a_lost_diff_and_says_so() -> None:
    bench = live()
    audit = audit_of(bench, 3600)
    bench.frame(diff(3_000_000, [["0.5", "1"]]))
    (fetch,) = fetches(bench.answer(audit, snapshot(2_500_000, [["1", "6"]], [["2", "5"]])))  # the bid has changed
    assert statuses(bench.last()) == [(State.RESYNCING, Reason.SEQUENCE_GAP, 0, 0)]
    assert kinds(bench.last()) == [Kind.STATUS, Kind.CLEAR]
    assert (bench.adapter.counts.gaps, bench.adapter.counts.books_valid) == (1, 0)
    bench.answer(fetch, snapshot(3_500_000, [["1", "6"], ["0.5", "1"]], [["2", "5"]]))
    assert bench.adapter.counts.books_valid == 1
    check_records(bench.records)


def test_audit_that_knows_more_than_the_diffs_so_far_waits_for_them() -> None:
    bench = live()
    newer = snapshot(9_000_000, [["1", "6"]], [["2", "5"]])
    assert bench.answer(audit_of(bench, 3600), newer) == ()
    bench.frame(diff(9_000_000, [["1", "6"]]))
    bench.frame(diff(9_100_000, [["0.9", "6"]]))
    assert (bench.adapter.counts.gaps, bench.adapter.counts.books_valid) == (0, 1)
    bench.answer(audit_of(bench, 7200), snapshot(9_500_000, [["1", "7"], ["0.9", "6"]], [["2", "5"]]))
    assert len(fetches(bench.frame(diff(9_600_000, [["0.8", "1"]])))) == 1  # the bid of 7 was never told
    assert kinds(bench.last()) == [Kind.LEVEL, Kind.STATUS, Kind.CLEAR] and bench.adapter.counts.gaps == 1
    check_records(bench.records)


def test_audit_of_a_quiet_market_waits_for_what_may_be_under_way_and_no_longer() -> None:
    bench = live()
    begun = NOW + 3600 * SECOND
    bench.answer(audit_of(bench, 3600), snapshot(9_000_000, [["1", "6"]], [["2", "5"]]), now_ns=begun + 4 * SECOND)
    assert fetches(bench.adapter.on_timer(0, begun + 5 * SECOND, bench.emit)) == []
    assert bench.adapter.counts.books_valid == 1
    assert len(fetches(bench.adapter.on_timer(0, begun + 6 * SECOND, bench.emit))) == 1
    assert (bench.adapter.counts.gaps, bench.adapter.counts.books_valid) == (1, 0)


def test_gap_ends_an_audit() -> None:
    bench = live()
    audit = audit_of(bench, 3600)
    bench.frame(diff(3_000_000, [["1", "6"]]))
    (fetch,) = fetches(bench.frame(diff(2_000_000, [["1", "7"]])))
    bench.answer(fetch, snapshot(4_000_000, [["1", "8"]], [["2", "5"]]))
    assert bench.answer(audit, snapshot(4_000_000, [["1", "9"]])) == ()
    assert (bench.adapter.counts.gaps, bench.adapter.counts.books_valid) == (1, 1)


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (200, b"<html>"), (200, snapshot(999_999)), (200, snapshot(1_000_001, [["x", "1"]]))],
)
def test_audit_that_fails_says_nothing_and_is_repeated(status: int, body: bytes) -> None:
    bench = live()
    seen = len(bench.records)
    assert bench.answer(audit_of(bench, 3600), body, status) == ()
    assert len(bench.records) == seen and bench.errors == [] and bench.adapter.counts.books_valid == 1
    bench.frame(diff(2_000_000, [["1", "6"]]))
    assert bench.answer(audit_of(bench, 3660), snapshot(2_000_000, [["1", "6"]], [["2", "5"]])) == ()
    assert bench.adapter.counts.gaps == 0


def test_deleting_what_is_not_there_brings_an_audit_but_not_more_than_one_a_minute() -> None:
    bench = live(audit_s=0)
    bench.frame(diff(2_000_000, [["1.1", "0"]]))
    assert fetches(bench.adapter.on_timer(0, NOW + 45 * SECOND, bench.emit)) == []
    audit = audit_of(bench, 60)
    bench.frame(diff(3_000_000, [["1.1", "0"]]))
    assert bench.answer(audit, snapshot(2_500_000, [["1", "5"]], [["2", "5"]])) == ()
    assert bench.adapter.counts.gaps == 0
    assert fetches(bench.adapter.on_timer(0, NOW + 500 * SECOND, bench.emit)) == []


def test_answer_to_an_audit_of_before_is_of_no_use() -> None:
    bench = live()
    audit = audit_of(bench, 3600)
    bench.adapter.resync("galaeur", NOW, Reason.RING_FULL, bench.emit)
    assert bench.answer(audit, snapshot(5_000_000, [["1", "5"]])) == ()
    assert bench.adapter.counts.books_valid == 0


def test_one_book_is_audited_at_a_time_the_one_that_has_waited_longest() -> None:
    bench = bench_of("galaeur", "ethusd")
    for number, market in enumerate(("ethusd", "galaeur")):
        (audit,) = fetches(bench.frame(acknowledged(market), NOW + number))
        bench.answer(audit, snapshot(1_000_000, [["1", "5"]]))
    tags = [audit_of(bench, seconds).tag.split()[0] for seconds in (3700, 3715)]
    assert tags == ["ethusd", "galaeur"]
    assert fetches(bench.adapter.on_timer(0, NOW + 3730 * SECOND, bench.emit)) == []


@pytest.mark.parametrize("seed", range(3))
def test_audits_of_true_books_find_nothing(seed: int) -> None:
    loop = Loopback("bitstamp", seed=seed, rate=150, options={"audit_s": 60})
    loop.run(130.0)
    calls = sum(count for path, count in loop.rest_calls.items() if "order_book" in path)
    assert calls >= 3 * len(loop.names(DataType.BOOK))  # one to begin with, two audits
    counts = loop.adapter.counts
    assert (counts.gaps, counts.resyncs, counts.ignored) == (0, 0, 0) and loop.errors == []


@pytest.mark.parametrize("seed", range(3))
def test_lost_diffs_are_found_within_an_audits_time(seed: int) -> None:
    loop = Loopback("bitstamp", seed=seed, rate=60, options={"audit_s": 60})
    loop.run(5.0)
    loop.arm(FaultKind.DROP, match="diff_order_book_", count=20, after=10 * seed)
    loop.run(120.0)
    loop.settle(10.0)
    assert loop.injector.fired[FaultKind.DROP] == 20 and loop.adapter.counts.resyncs >= 1
    loop.assert_books_true()
    assert loop.errors == [] and loop.reconnects == []


@pytest.mark.parametrize("interval_s", [0.0, 2.5])
def test_books_are_true_however_old_snapshots_are(interval_s: float) -> None:
    loop = Loopback("bitstamp", rate=100, emulator_options={"snapshot_interval_s": interval_s})
    for _ in range(4):
        loop.run(4.0)
        loop.emit.begin(loop.schedule.now_ns)
        for name in loop.names(DataType.BOOK):
            loop.after(loop.adapter.resync(name, loop.schedule.now_ns, Reason.CROSSED, loop.emit))
    loop.run(4.0)
    for wire in loop.wires:
        loop.end(wire, Reason.STALE)
    loop.run(40.0)  # the delay between fetches has grown
    loop.settle()
    loop.assert_books_true()
    assert loop.adapter.counts.gaps == 0


# ---- against a model of the venue -------------------------------------------------------------------------


class Venue:
    """A venue's book, all states that it ever had by their stamps, and the diffs that lead through them."""

    def __init__(self, changes: list[list[tuple[bool, int, int]]], steps: list[int]) -> None:
        self.stamps = [1_000_000]
        self.states: list[dict[tuple[Side, int], int]] = [{}]
        self.diffs: list[str] = []
        for wanted, step in zip(changes, steps, strict=False):
            state, told = dict(self.states[-1]), {}
            for is_bid, price, size in wanted:
                key = (Side.BID, price) if is_bid else (Side.ASK, 10 + price)
                if size or key in state:
                    state[key] = told[key] = size
                if size == 0:
                    state.pop(key, None)
            self.stamps.append(self.stamps[-1] + step)
            self.states.append(state)
            sides = [[[str(p), str(size)] for (side, p), size in told.items() if side is each] for each in Side]
            self.diffs.append(diff(self.stamps[-1], sides[Side.BID], sides[Side.ASK]))

    def snapshot(self, index: int, later: int) -> bytes:
        """As it was after so many diffs, ``later`` µs after the last of them, but before the next."""
        stamp = self.stamps[index]
        if index + 1 < len(self.stamps):
            stamp = min(stamp + later, max(self.stamps[index + 1] - 1, stamp))
        sides = [
            [[str(p), str(size)] for (side, p), size in self.states[index].items() if side is each] for each in Side
        ]
        return snapshot(stamp, sides[Side.BID], sides[Side.ASK])

    def state_at(self, stamp: int) -> dict[tuple[Side, int], int]:
        """The book at a time."""
        return self.states[bisect_right(self.stamps, stamp) - 1]


def rebuilt(bench: Bench) -> tuple[dict[tuple[Side, int], int], int, bool]:
    """The book as a consumer has it: its levels, its last stamp, whether it is valid."""
    book: dict[tuple[Side, int], int] = {}
    last, valid = 0, False
    channel = bench.channels["galaeur"]
    for row in bench.records:
        if row["kind"] == Kind.CLEAR:
            book, valid, last = {}, bool(row["flags"] & Flags.SNAPSHOT), int(row["venue_seq"])
        elif row["kind"] == Kind.LEVEL:
            key = Side(row["side"]), int(to_decimal(int(row["price"]), channel.price_exponent))
            book[key], last = int(to_decimal(int(row["size"]), channel.size_exponent)), int(row["venue_seq"])
            if book[key] == 0:
                del book[key]
    return book, last, valid


STEPS: Final = 24


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    changes=st.lists(
        st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=3),
        min_size=STEPS,
        max_size=STEPS,
    ),
    steps=st.lists(st.integers(1, 300_000), min_size=STEPS, max_size=STEPS),
    fates=st.lists(
        st.sampled_from(["sent"] * 8 + ["twice", "swapped", "damaged", "unreadable", "reconnect", "audit"]),
        min_size=STEPS,
        max_size=STEPS,
    ),
    answers=st.lists(
        st.tuples(st.booleans(), st.integers(0, 4), st.integers(0, 300_000)), min_size=STEPS, max_size=STEPS
    ),
)
def test_book_that_the_stream_calls_valid_is_the_venues_book_whatever_happens(
    changes: list[list[tuple[bool, int, int]]],
    steps: list[int],
    fates: list[str],
    answers: list[tuple[bool, int, int]],
) -> None:
    """All but loss, of which nothing tells: diffs twice, swapped, damaged, connections anew, snapshots of any age; but
    not older than the request, if that was put off for as long as snapshots can be old."""
    venue = Venue(changes, steps)
    bench = bench_of(data_types=(DataType.BOOK,))
    waiting: list[tuple[Fetch, int]] = []  # with the diff up to which the venue was when it was asked for
    order = list(range(STEPS))
    for index in range(STEPS - 1):
        if fates[index] == "swapped":
            order[index], order[index + 1] = order[index + 1], order[index]
    swapped = "swapped" in fates
    now_ns = NOW

    def ask(requests: Sequence[Request], index: int) -> None:
        waiting.extend((fetch, index) for fetch in fetches(requests))

    ask(bench.frame(acknowledged()), 0)
    for step, index in enumerate(order):
        fate = fates[step]
        now_ns += 3600 * SECOND
        if fate == "reconnect" and index >= step:  # no connection begins between two that are swapped
            bench.disconnect()
            waiting.clear()
            bench.connect()
            ask(bench.frame(acknowledged()), step)
        if fate == "audit":
            ask(bench.adapter.on_timer(0, now_ns, bench.emit), step)
        message = venue.diffs[index]
        if fate == "damaged":
            message = message.replace('"bids":[', '"bids":["x",')
        if fate == "unreadable" and index <= step:  # as a new connection, so not between two that are swapped
            message = message.replace('"bids":[', '"bids":[[')
        for _ in range(2 if fate == "twice" else 1):
            ask(bench.frame(message), step + 1)
        answered, age, later = answers[step]
        if waiting and answered:
            fetch, asked_at = waiting.pop(0)
            oldest = asked_at if fetch.delay_ns >= 3 * SECOND else 0
            ask(bench.answer(fetch, venue.snapshot(max(step + 1 - age, oldest), later)), step + 1)
        check_records(bench.records)
        book, last, valid = rebuilt(bench)
        if valid and index <= step:  # what was overtaken is still to come
            assert book == venue.state_at(last)
    if not swapped:
        assert bench.adapter.counts.gaps == 0


# ---- the real venue ---------------------------------------------------------------------------------------

CAPTURES: Final = Path(os.environ.get("MDRING_CAPTURES", Path(__file__).parents[3] / "shared" / "captures"))
RECORDED: Final = (
    "sgbeur", "ethusd", "xrpeur", "bateur", "usdteur", "usdtusd", "xlmgbp", "adaeur", "batbtc", "galaeur",
)  # fmt: skip


@pytest.fixture
def recording() -> Path:
    """Ten pairs, January 2022: a snapshot of each, 336 diffs and a trade."""
    capture = CAPTURES / "bitstamp.jsonl.gz"
    if not capture.is_file():
        pytest.skip(f"there is no recording at {capture}; MDRING_CAPTURES names another folder")
    return capture


def test_recording_of_the_real_venue_gives_books_in_sync(tmp_path: Path, recording: Path) -> None:
    wanted = [Subscription(name, QUOTED) for name in RECORDED]
    summary = decode_capture("bitstamp", None, {}, wanted, recording, tmp_path)
    assert (summary.books, summary.books_in_sync, summary.snapshots) == (10, 10, 10)
    assert (summary.gaps, summary.resyncs, summary.rejects, summary.ignored, summary.repeated) == (0, 0, 0, 0, 0)
    assert summary.unanswered == [] and summary.unknown_instruments == []
    assert summary.kinds["TRADE"] == 1
    check_records(np.load(tmp_path / "records.npy"))


Levels = dict[tuple[int, Decimal], Decimal]


def books_of_the_wire(recording: Path) -> tuple[dict[str, Levels], int]:
    """The books as the venue's texts have them, by the venue's rules alone; and how many diffs were applied."""
    books: dict[str, Levels] = {}
    stamps: dict[str, int] = {}
    applied = 0
    for event in read_capture(recording):
        name = event.url.rstrip("/").rpartition("/")[2]
        if event.ev == "http" and "/order_book/" in event.url:
            body = json.loads(event.payload)
            stamps[name] = int(body["microtimestamp"])
            books[name] = {
                (side, Decimal(price)): Decimal(size)
                for side, key in ((Side.BID, "bids"), (Side.ASK, "asks"))
                for price, size in body[key]
            }
        elif event.ev == "recv":
            message = json.loads(event.payload)
            kind, _, market = message["channel"].rpartition("_")
            if kind != "diff_order_book" or message["event"] != "data":
                continue
            if int(message["data"]["microtimestamp"]) <= stamps[market]:
                continue
            applied += 1
            for side, key in ((Side.BID, "bids"), (Side.ASK, "asks")):
                for price, size in message["data"][key]:
                    books[market][side, Decimal(price)] = Decimal(size)
                    if Decimal(size) == 0:
                        del books[market][side, Decimal(price)]
    return books, applied


def test_recorded_books_are_the_wires_to_the_last_digit(tmp_path: Path, recording: Path) -> None:
    decode_capture("bitstamp", None, {}, [Subscription(name, QUOTED) for name in RECORDED], recording, tmp_path)
    records = np.load(tmp_path / "records.npy")
    truth, applied = books_of_the_wire(recording)
    assert applied == 234
    for row in msgspec.json.decode((tmp_path / "instruments.json").read_bytes()):
        book: Levels = {}
        of_it = records[records["instrument_id"] == row["id"]]
        for record in of_it[of_it["kind"] == Kind.LEVEL].view(LEVEL):
            key = int(record["side"]), to_decimal(int(record["price"]), row["price_exponent"])
            book[key] = to_decimal(int(record["size"]), row["size_exponent"])
            if book[key] == 0:
                del book[key]
        assert book == truth[row["instrument"]], row["instrument"]
        quote = of_it[of_it["kind"] == Kind.BBO].view(BBO)[-1]
        best = [to_decimal(int(quote[side]), row["price_exponent"]) for side in ("bid_price", "ask_price")]
        assert best == [
            max(price for side, price in book if side == Side.BID),
            min(price for side, price in book if side == Side.ASK),
        ]
