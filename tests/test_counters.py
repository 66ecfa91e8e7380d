"""Counters: one writer, any number of onlookers, exact histograms, and an error text that is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring import counters as module
from mdring.counters import (
    INTENTS_WORD,
    MAX_VENUES,
    POSITIONS_WORD,
    WAITING_WORD,
    Counter,
    Counters,
    Histogram,
    Quantiles,
    quantiles_of,
)
from mdring.ring._ring import HISTOGRAM_BUCKETS, histogram_bucket
from mdring.ring.segment import AlreadyWritten, SegmentNotFound

COUNTERS = {
    "HEARTBEAT_NS": 0, "PID": 1, "STARTS": 2, "STATE": 3, "STATE_SINCE_NS": 4, "BREAKER": 5, "FRAMES": 6, "BYTES": 7,
    "RECORDS": 8, "CONNECTIONS": 9, "CONNECTS": 10, "RECONNECTS": 11, "GAPS": 12, "RESYNCS": 13, "REJECTS": 14,
    "DROPS": 15, "SNAPSHOTS": 16, "FETCH_ERRORS": 17, "UNKNOWN_MESSAGES": 18, "BOOKS": 19, "BOOKS_VALID": 20,
    "LAST_DATA_NS": 21, "SUBSCRIPTIONS": 22, "SUBSCRIPTIONS_REJECTED": 23, "BATCHES": 24, "LAG": 25, "RESTARTS": 26,
    "EPOCH": 27, "POSITION": 28, "LOST": 29, "CPU_NS": 30, "CHECKPOINTS": 31, "CHECKPOINT_LAG": 32,
    "BOOKS_WITHOUT_CHECKPOINT": 33, "METADATA_NS": 34,
    "REST_WEIGHT": 35, "FETCHES_WAITING": 36,
}  # fmt: skip


@pytest.fixture
def path(run_folder: Path) -> Path:
    path = run_folder / "counters.test"
    Counters.create(path, run_id=1).segment.close()
    return path


@pytest.fixture
def writer(path: Path) -> Iterator[Counters]:
    opened = Counters.open_as_writer(path, os.getpid())
    yield opened
    opened.segment.close()


@pytest.fixture
def onlooker(path: Path) -> Counters:
    return Counters.attach(path)


# ---- counters ----


def test_a_counter_never_changes_its_place() -> None:
    places = {counter.name: int(counter) for counter in Counter}
    assert {name: places.get(name) for name in COUNTERS} == COUNTERS
    assert sorted(places.values()) == list(range(len(places))), "new counters come at the end"


def test_the_parts_of_the_segment_do_not_overlap() -> None:
    error_word, error_words = 64, 2 + 240 // 8
    assert max(Counter) < error_word
    assert error_word + error_words <= POSITIONS_WORD == 96
    assert POSITIONS_WORD + MAX_VENUES <= INTENTS_WORD == 352
    assert INTENTS_WORD < WAITING_WORD == 960 < 1024


def test_a_new_process_starts_to_count_where_its_predecessor_died(path: Path) -> None:
    first = Counters.open_as_writer(path, 111)
    first.add(Counter.FRAMES, 10)
    first.segment.close()
    second = Counters.open_as_writer(path, 222)
    second.add(Counter.FRAMES)
    assert (second.load(Counter.FRAMES), second.load(Counter.STARTS), second.load(Counter.PID)) == (11, 2, 222)
    second.segment.close()


def test_an_onlooker_sees_what_the_writer_counts(writer: Counters, onlooker: Counters) -> None:
    assert onlooker.load(Counter.RECORDS) == 0
    writer.add(Counter.RECORDS)
    writer.add(Counter.RECORDS, 4)
    writer.store(Counter.STATE, 2)
    assert (onlooker.load(Counter.RECORDS), onlooker.load(Counter.STATE)) == (5, 2)


def test_an_onlooker_cannot_count(onlooker: Counters) -> None:
    for change in (onlooker.add, lambda counter: onlooker.store(counter, 1)):
        with pytest.raises(TypeError, match="mapped read-only"):
            change(Counter.FRAMES)
    with pytest.raises(TypeError, match="mapped read-only"):
        onlooker.set_error("no")


def test_there_is_one_writer(path: Path, writer: Counters) -> None:
    with pytest.raises(AlreadyWritten):
        Counters.open_as_writer(path, 1)
    assert writer.load(Counter.STARTS) == 1


def test_counters_that_are_not_there_are_not_found(run_folder: Path) -> None:
    with pytest.raises(SegmentNotFound):
        Counters.attach(run_folder / "counters.nobody")


def test_a_heartbeat_tells_the_time(writer: Counters, onlooker: Counters) -> None:
    first = onlooker.load(Counter.HEARTBEAT_NS)
    assert first > 0, "opening is a heartbeat"
    writer.store(Counter.HEARTBEAT_NS, 1)
    writer.heartbeat()
    assert onlooker.load(Counter.HEARTBEAT_NS) >= first


# ---- the last error ----


def test_no_error_at_first(onlooker: Counters) -> None:
    assert onlooker.error() is None


def test_the_last_error_comes_with_its_time(writer: Counters, onlooker: Counters) -> None:
    writer.set_error("the first one, and a long one at that")
    writer.set_error("second: größer")
    error = onlooker.error()
    assert error is not None
    assert error[1] == "second: größer"
    assert error[0] >= writer.load(Counter.HEARTBEAT_NS)


@pytest.mark.parametrize(
    ("text", "kept"),
    [("", ""), ("x" * 240, "x" * 240), ("x" * 241, "x" * 240), ("x" * 239 + "é", "x" * 239), ("€" * 100, "€" * 80)],
)
def test_a_long_error_is_cut_between_two_characters(writer: Counters, onlooker: Counters, text: str, kept: str) -> None:
    writer.set_error(text)
    error = onlooker.error()
    assert error is not None
    assert error[1] == kept


def test_an_error_that_is_just_being_written_is_not_shown_and_a_killed_writer_blocks_none(
    writer: Counters, onlooker: Counters
) -> None:
    writer.set_error("old")
    writer.words.store(64, writer.words.load(64) + 1)  # killed, or seen, amid writing
    assert onlooker.error() is None
    writer.set_error("new")
    error = onlooker.error()
    assert error is not None
    assert error[1] == "new"


# ---- histograms ----


def buckets_of(*values: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    buckets = np.zeros(HISTOGRAM_BUCKETS, dtype=np.uint64)
    for value in values:
        buckets[histogram_bucket(value)] += np.uint64(1)
    return buckets


def test_an_empty_histogram_has_no_quantiles() -> None:
    assert quantiles_of(buckets_of()) == Quantiles(0, 0, 0, 0, 0, 0)


def test_small_values_are_exact() -> None:
    assert quantiles_of(buckets_of(3)) == Quantiles(1, 3, 3, 3, 3, 3)
    assert quantiles_of(buckets_of(*range(10))) == Quantiles(10, 4, 8, 9, 9, 9)


def test_each_quantile_counts_its_share() -> None:
    values = [1] * 500 + [2] * 400 + [4] * 90 + [8] * 9 + [15]
    assert quantiles_of(buckets_of(*values)) == Quantiles(1000, 1, 2, 4, 8, 15)


@given(value=st.integers(0, 2**64 - 1))
def test_a_quantile_is_the_largest_value_of_its_bucket(value: int) -> None:
    edge = quantiles_of(buckets_of(value)).max
    assert value <= edge < 2**64
    assert histogram_bucket(edge) == histogram_bucket(value)
    assert edge == 2**64 - 1 or histogram_bucket(edge + 1) == histogram_bucket(value) + 1


@given(values=st.lists(st.integers(0, 2**40), min_size=1, max_size=50))
def test_quantiles_lie_at_most_a_sixteenth_above_the_truth(values: list[int]) -> None:
    quantiles = quantiles_of(buckets_of(*values))
    ordered = sorted(values)
    for share, found in ((0.5, quantiles.p50), (0.9, quantiles.p90), (1.0, quantiles.max)):
        truth = ordered[max(0, int(np.ceil(share * len(ordered))) - 1)]
        assert truth <= found <= truth + truth // 16


def test_histograms_are_apart_and_can_be_subtracted(writer: Counters, onlooker: Counters) -> None:
    for histogram, latency in ((Histogram.VENUE_TO_RECEIVE, 7), (Histogram.RECEIVE_TO_SEQUENCED, 12)):
        writer.words.record_latency(writer.histogram_word(histogram), latency)
    before = onlooker.buckets(Histogram.RECEIVE_TO_SEQUENCED)
    writer.words.record_latency(writer.histogram_word(Histogram.RECEIVE_TO_SEQUENCED), 15)
    assert onlooker.quantiles(Histogram.VENUE_TO_RECEIVE) == Quantiles(1, 7, 7, 7, 7, 7)
    assert onlooker.quantiles(Histogram.RECEIVE_TO_SEQUENCED).count == 2
    assert quantiles_of(onlooker.buckets(Histogram.RECEIVE_TO_SEQUENCED) - before) == Quantiles(1, 15, 15, 15, 15, 15)


def test_the_last_bucket_of_each_histogram_lies_in_the_segment(writer: Counters) -> None:
    for histogram in Histogram:
        writer.words.record_latency(writer.histogram_word(histogram), 2**63 - 1)
        assert int(writer.buckets(histogram).sum()) == 1
    assert writer.words.count == module._WORDS
