"""What every adapter must do, whatever its venue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdring.feed.adapter import Fetch, Response, Send, VenueProtocolError
from mdring.record import CLEAR, STATUS, DataType, Flags, Kind, Reason, State
from tests.adapters.cases import CASES
from tests.adapters.conformance import NOW, Bench, VenueCase, check_records, damaged, live

every_venue = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


@every_venue
def test_class_says_what_it_needs_and_guards(case: VenueCase) -> None:
    adapter = type(case.make(case.subscriptions))
    assert adapter.venue == case.name
    assert adapter.integrity and adapter.data_types
    assert adapter.endpoints.websocket_url.startswith("wss://") and adapter.endpoints.rest_url.startswith("https://")
    assert adapter.options() is not None  # every option has a default


@every_venue
def test_each_frame_of_the_venue_is_understood_and_each_book_gets_valid(case: VenueCase) -> None:
    bench = live(case)
    assert bench.errors == []
    check_records(bench.records)
    books = sum(DataType.BOOK in subscription.data_types for subscription in case.subscriptions)
    assert (bench.adapter.counts.books, bench.adapter.counts.books_valid) == (books, books)
    assert bench.adapter.counts.ignored == bench.adapter.counts.repeated == bench.adapter.counts.gaps == 0
    assert set(bench.records["kind"]) >= {Kind.TRADE, Kind.BBO, Kind.LEVEL, Kind.CLEAR}


@every_venue
def test_subscribing_takes_text_frames_that_wait_for_an_answer(case: VenueCase) -> None:
    requests = Bench(case).connect()
    assert requests and all(isinstance(request, Send) and request.ack for request in requests)


@every_venue
def test_frame_of_another_type_is_counted_and_leaves_no_record(case: VenueCase) -> None:
    bench = live(case)
    bench.frame(case.other_frame)
    assert bench.errors == [] and len(bench.last()) == 0
    assert bench.adapter.counts.ignored == 1
    assert bench.adapter.is_data(case.other_frame)


@every_venue
def test_payload_may_be_overwritten_after_the_call(case: VenueCase) -> None:
    """Also that of a delta which is held until its snapshot is there."""
    bench, scribbled = live(case), Bench(case)
    fetches: list[Fetch] = []
    scribbled.connect()
    for frame in case.frames:
        buffer = bytearray(frame)
        fetches += [one for one in scribbled.frame(memoryview(buffer)) if isinstance(one, Fetch)]
        buffer[:] = b"#" * len(buffer)
    for fetch in fetches:
        scribbled.answer(fetch, case.snapshot(fetch))
    assert scribbled.errors == []
    for kind in (Kind.LEVEL, Kind.TRADE, Kind.BBO):
        ours, theirs = (content(one.records[one.records["kind"] == kind]) for one in (scribbled, bench))
        assert ours == theirs


def content(records: npt.NDArray[np.void]) -> list[object]:
    return sorted(records[["instrument_id", "venue_seq", "price", "size", "flags"]].tolist())


@every_venue
def test_disconnect_clears_every_book_and_says_why(case: VenueCase) -> None:
    bench = live(case)
    bench.disconnect(Reason.STALE)
    clears = bench.last()[bench.last()["kind"] == Kind.CLEAR].view(CLEAR)
    books = [one for one in case.subscriptions if DataType.BOOK in one.data_types]
    assert sorted(clears["instrument_id"]) == sorted(bench.channels[one.instrument].instrument_id for one in books)
    assert set(clears["reason"]) == {Reason.STALE} and not any(clears["flags"] & Flags.SNAPSHOT)
    assert bench.adapter.counts.books_valid == 0
    check_records(bench.records)


@every_venue
def test_resync_clears_one_book_and_touches_no_other(case: VenueCase) -> None:
    bench = live(case)
    name = case.subscriptions[0].instrument
    bench.emit.begin(NOW)
    bench.adapter.resync(name, NOW, Reason.CROSSED, bench.emit)
    rows = bench.emit.drain()
    assert set(rows["instrument_id"]) == {bench.channels[name].instrument_id}
    assert rows["kind"].tolist() == [Kind.STATUS, Kind.CLEAR]
    assert rows[:1].view(STATUS)[0]["state"] == State.RESYNCING and rows[1:].view(CLEAR)[0]["reason"] == Reason.CROSSED
    assert bench.adapter.counts.books_valid == bench.adapter.counts.books - 1


@every_venue
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_damaged_frames_raise_nothing_but_protocol_errors_and_yield_no_impossible_record(
    case: VenueCase, data: st.DataObject
) -> None:
    """``Bench.frame`` lets every other exception pass."""
    bench = live(case)
    samples = (*case.frames, case.other_frame)
    for _ in range(data.draw(st.integers(1, 4))):
        requests = bench.frame(data.draw(damaged(samples)))
        for fetch in [request for request in requests if isinstance(request, Fetch)]:
            bench.answer(fetch, data.draw(st.just(case.snapshot(fetch)) | damaged([case.snapshot(fetch)])))
    check_records(bench.records)


@every_venue
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(garbage=st.binary(max_size=60))
def test_garbage_is_refused_or_ignored(case: VenueCase, garbage: bytes) -> None:
    bench = Bench(case)
    bench.connect()
    bench.frame(garbage)
    bench.adapter.is_data(garbage)
    assert len(bench.errors) + bench.adapter.counts.ignored == 1
    check_records(bench.records)


@every_venue
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_damaged_metadata_raises_nothing_but_a_protocol_error(case: VenueCase, data: st.DataObject) -> None:
    adapter = case.make(case.subscriptions)
    fetch = adapter.metadata_requests()[0]
    body = data.draw(damaged([case.metadata]))
    try:
        infos = adapter.on_metadata(Response(fetch.tag, fetch.url, 200, body))
    except VenueProtocolError:
        return
    for info in infos:
        assert isinstance(info, Fetch) or (-18 <= info.price_exponent <= 0 and -18 <= info.size_exponent <= 0)
