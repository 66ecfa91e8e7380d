"""What every adapter must do, whatever its venue: run against the venue's emulator, face to face (``loopback.py``)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from random import Random
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from mdring.emulator.book import Trade
from mdring.emulator.faults import FaultKind
from mdring.feed.adapter import Fetch, InstrumentInfo, Reconnect, Response, Send, VenueProtocolError, load_adapter
from mdring.feed.fixed import scale
from mdring.record import (
    BBO,
    CLEAR,
    DATA_TYPE_OF_KIND,
    TRADE,
    DataType,
    Flags,
    Kind,
    Reason,
    Side,
    State,
)
from mdring.symbol import parse
from tests.adapters.conformance import groups
from tests.adapters.damage import Damager
from tests.adapters.loopback import Loopback, Wanted
from tests.adapters.venues import ADAPTERS, EMULATORS, VENUES, adapter_modules

every_venue = pytest.mark.parametrize("venue", VENUES)


# ---- the class --------------------------------------------------------------------------------------------


def test_every_venue_with_an_entry_point_is_there() -> None:
    assert sorted(ADAPTERS) == sorted(EMULATORS) == VENUES


@every_venue
def test_class_says_what_it_needs_and_guards(venue: str) -> None:
    adapter = load_adapter(venue)
    assert adapter.venue == venue
    assert adapter.integrity and "\n" not in adapter.integrity
    assert {DataType.TRADE, DataType.BBO, DataType.BOOK} <= set(adapter.data_types)
    assert adapter.endpoints.websocket_url.startswith("wss://") and adapter.endpoints.rest_url.startswith("https://")
    assert adapter.options() is not None  # every option has a default
    assert adapter.__doc__ and adapter_modules(venue)[0].__doc__


def wire_structs(venue: str) -> list[type[msgspec.Struct]]:
    """The structs of an adapter's modules that no option or state of ours is: those of the wire are not frozen."""
    return [
        value
        for module in adapter_modules(venue)
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == module.__name__
        and not value.__struct_config__.frozen
    ]


@every_venue
def test_docstring_of_each_wire_struct_begins_with_a_payload_that_it_decodes(venue: str) -> None:
    structs = wire_structs(venue)
    assert structs
    for struct in structs:
        payload = (struct.__doc__ or "").split("\n")[0]
        assert payload.startswith(("{", "[")), f"{struct.__name__} documents no payload"
        assert isinstance(msgspec.json.decode(payload, type=struct), struct), struct.__name__


# ---- a day without trouble --------------------------------------------------------------------------------


def quiet_run(venue: str, seconds: float = 5.0, **parameters: Any) -> Loopback:
    """Some seconds without a fault, settled."""
    loop = Loopback(venue, **parameters)
    loop.run(seconds)
    loop.settle()
    return loop


@cache
def quiet_run_to_look_at(venue: str) -> Loopback:
    """The plain one, for all tests that change nothing of it."""
    return quiet_run(venue)


@every_venue
def test_books_are_the_venues_and_nothing_is_refused_lost_or_closed(venue: str) -> None:
    loop = quiet_run_to_look_at(venue)
    loop.assert_books_true()
    assert loop.errors == [] and loop.closed_by_venue == [] and loop.reconnects == [] and loop.rejected == []
    counts = loop.adapter.counts
    assert (counts.gaps, counts.resyncs, counts.repeated, counts.ignored) == (0, 0, 0, 0), (
        loop.adapter.unknown.take_new()
    )
    assert counts.books == len(loop.names(DataType.BOOK)) > 0


@every_venue
def test_every_data_type_of_the_venue_comes(venue: str) -> None:
    loop = quiet_run(venue, 20.0, rate=400)
    seen = {DATA_TYPE_OF_KIND[Kind(int(kind))] for kind in np.unique(loop.records["kind"])}
    assert seen - {DataType.STATUS} == set(load_adapter(venue).data_types)


@every_venue
def test_event_groups_hold_one_instruments_data_and_end_with_last(venue: str) -> None:
    loop = quiet_run_to_look_at(venue)
    for group in groups(loop.records):
        kinds = {Kind(int(kind)) for kind in group["kind"]}
        assert len({int(number) for number in group["instrument_id"]}) == 1
        assert len({DATA_TYPE_OF_KIND[kind] for kind in kinds - {Kind.STATUS}}) <= 1


@every_venue
def test_best_bid_and_ask_are_the_venues(venue: str) -> None:
    loop = quiet_run_to_look_at(venue)
    for name in loop.names(DataType.BBO):
        last = loop.of(Kind.BBO, name).view(BBO)[-1]
        bids, asks = loop.truth(name)
        best_bid, best_ask = max(bids), min(asks)
        assert (last["bid_price"], last["bid_size"]) == (best_bid, bids[best_bid]), name
        assert (last["ask_price"], last["ask_size"]) == (best_ask, asks[best_ask]), name


Fill = tuple[int, int, int]  # aggressor, price, size


def fills(loop: Loopback, name: str, trades: Sequence[Trade]) -> list[Fill]:
    """The venue's trades, scaled as the records are."""
    book, channel = loop.emulator.book_of(name), loop.channels[name]
    told = []
    for trade in trades:
        price, size, *_ = loop.emulator.level_text(book, (trade.price, trade.size))
        told.append((trade.aggressor, scale(price, channel.price_exponent), scale(size, channel.size_exponent)))
    return told


def merged(loop: Loopback, name: str, trades: Sequence[Trade]) -> list[Fill]:
    """The same with the fills of one taker order at one price as one."""
    runs = [fills(loop, name, list(run)) for _, run in groupby(trades, key=lambda trade: trade.run)]
    return [(run[0][0], run[0][1], sum(fill[2] for fill in run)) for run in runs]


@every_venue
def test_trades_are_the_venues_with_the_takers_side_and_exact_numbers(venue: str) -> None:
    loop = quiet_run(venue, 10.0)
    for name in loop.names(DataType.TRADE):
        rows = loop.of(Kind.TRADE, name).view(TRADE)
        live = rows[(rows["flags"] & (Flags.SNAPSHOT | Flags.RECOVERED)) == 0]
        assert len(live), name
        found = [tuple(row) for row in live[["aggressor", "price", "size"]].tolist()]
        trades = list(loop.emulator.book_of(name).trades)
        truth = (merged if live["flags"][0] & Flags.AGGREGATED else fills)(loop, name, trades)
        assert found == truth[len(truth) - len(found) :], name
        assert len(np.unique(live[["trade_id", "trade_id_high"]])) == len(live) and live["trade_id_format"].all()


@every_venue
def test_times_of_the_venue_are_ns_and_never_after_their_receipt(venue: str) -> None:
    loop = quiet_run_to_look_at(venue)
    records = loop.records
    timed = records[records["ts_event"] != 0]
    assert len(timed) > 100
    assert (timed["ts_event"] <= timed["ts_recv"]).all()
    assert (timed["ts_recv"] - timed["ts_event"] < 2 * 10**9).mean() > 0.9


@every_venue
def test_metadata_names_every_instrument_and_holds_its_finest_number(venue: str) -> None:
    loop = Loopback(venue)
    listed = loop.emulator.instruments()
    assert set(loop.infos) == set(listed.values())
    for symbol, name in listed.items():
        info = loop.infos[name]
        assert info.canonical_symbol == symbol and str(parse(symbol)) == symbol
        assert (info.base, info.quote) == (parse(symbol).base, parse(symbol).quote)
        assert info.trading and -18 <= info.price_exponent <= 0 and info.size_exponent >= -18
        book = loop.emulator.book_of(name)
        price, size, *_ = loop.emulator.level_text(book, (book.spec.tick, book.spec.step))
        assert scale(price, info.price_exponent) > 0 and scale(size, info.size_exponent) > 0


@every_venue
def test_subscribing_takes_text_frames_of_which_each_one_waits_for_an_answer(venue: str) -> None:
    loop = Loopback(venue)
    for connection in loop.adapter.connections():
        requests = loop.adapter.on_connect(connection.connection, loop.schedule.now_ns, loop.emit)
        sends = [request for request in requests if isinstance(request, Send)]
        assert sends and all(request.ack for request in sends)


@every_venue
def test_what_is_asked_for_is_answered_and_waits_no_more(venue: str) -> None:
    loop = quiet_run_to_look_at(venue)
    assert loop.acks and loop.acks == loop.acknowledged


@every_venue
def test_same_frames_make_the_same_records_and_payloads_may_be_overwritten_after_the_call(venue: str) -> None:
    plain, scribbled = quiet_run_to_look_at(venue), quiet_run(venue, scribble=True)
    assert plain.records.tobytes() == scribbled.records.tobytes()


@every_venue
def test_quiet_market_costs_no_connection(venue: str) -> None:
    """The venue hears of us and we of it, by whatever keep-alive it wants."""
    loop = Loopback(venue, rate=0)
    loop.run(200.0)
    assert loop.closed_by_venue == [] and loop.reconnects == [] and loop.errors == []
    assert loop.adapter.counts.ignored == 0, loop.adapter.unknown.take_new()
    loop.rate = 200
    loop.run(3.0)
    loop.settle()
    loop.assert_books_true()


# ---- books at their limits --------------------------------------------------------------------------------


@every_venue
def test_book_may_lose_a_side_or_both_and_come_back(venue: str) -> None:
    loop = quiet_run(venue, 2.0)
    name = loop.names(DataType.BOOK)[0]
    book = loop.emulator.book_of(name)
    saved = book.depth(5)
    for emptied in ((Side.BID,), (Side.ASK,)):
        for side in emptied:
            loop.empty(book, side)
        loop.settle()
        loop.assert_books_true()
    assert loop.book(name) == ({}, {})
    for side, levels in ((Side.BID, saved.bids), (Side.ASK, saved.asks)):
        for price, size in levels:
            loop.change(book, side, price, size)
    loop.settle()
    loop.assert_books_true()
    assert loop.errors == [] and loop.adapter.counts.gaps == 0


@every_venue
def test_snapshot_of_an_empty_book_is_a_book(venue: str) -> None:
    loop = quiet_run(venue, 1.0)
    book = loop.emulator.book_of(loop.names(DataType.BOOK)[0])
    loop.empty(book, Side.BID)
    loop.empty(book, Side.ASK)
    loop.settle()
    for wire in loop.wires:
        loop.end(wire, Reason.STALE)
    loop.settle(10.0)
    loop.assert_books_true()


@every_venue
def test_level_that_is_not_there_may_be_deleted(venue: str) -> None:
    loop = quiet_run(venue, 2.0)
    book = loop.emulator.book_of(loop.names(DataType.BOOK)[0])
    loop.change(book, Side.BID, book.bids.farthest - 3 * book.spec.tick, 0)
    loop.change(book, Side.ASK, book.asks.farthest + 3 * book.spec.tick, 0)
    loop.change(book, Side.BID, book.bids.best - book.spec.tick, 0)
    loop.settle()
    loop.assert_books_true()
    assert loop.errors == []


@every_venue
def test_huge_and_tiny_numbers_are_exact(venue: str) -> None:
    loop = quiet_run(venue, 2.0)
    for name in loop.names(DataType.BOOK):
        book = loop.emulator.book_of(name)
        unit = book.spec.step
        loop.change(book, Side.BID, book.bids.best, unit)
        loop.change(book, Side.ASK, book.asks.best, 10**9 * unit + 7 * unit)
        loop.change(book, Side.BID, book.spec.tick, 3 * unit)
        loop.change(book, Side.ASK, 50 * book.spec.reference_price // book.spec.tick * book.spec.tick, unit)
    loop.settle()
    loop.assert_books_true()
    assert loop.errors == []


_NUMBER: Final = re.compile(rb'(?<=[\[",:])(\d+)\.(\d+)(?=["\],}])')


def scientific(frame: bytes) -> bytes:
    """Each decimal of a message in scientific notation, which is JSON, too, and of the same value."""
    return _NUMBER.sub(lambda found: b"%de-%d" % (int(found[1] + found[2]), len(found[2])), frame)


@every_venue
def test_numbers_in_scientific_notation_are_the_same_numbers(venue: str) -> None:
    loop = quiet_run(venue, rewrite=scientific)
    assert any(re.search(rb"\de-\d", frame) for frame in loop.frames)
    loop.assert_books_true()
    assert loop.errors == []


# ---- trouble ----------------------------------------------------------------------------------------------

LOSSES: Final = (FaultKind.DROP, FaultKind.REORDER)
DAMAGES: Final = (FaultKind.GARBAGE, FaultKind.TRUNCATE, FaultKind.WRONG_TYPE, FaultKind.HUGE_VALUE)
ENDS: Final = (FaultKind.CLOSE, FaultKind.RESET)


def disturbed(venue: str, kind: FaultKind, data_type: DataType, **parameters: Any) -> Loopback:
    """A run with a fault in the streams of a data type, settled."""
    loop = Loopback(venue)
    loop.run(2.0)
    loop.arm(kind, match=loop.emulator.streams[data_type], **parameters)
    loop.run(4.0)
    loop.settle(10.0)
    assert loop.injector.fired[kind], "the fault did not happen"
    return loop


@every_venue
@pytest.mark.parametrize("kind", [*LOSSES, FaultKind.DUPLICATE, *DAMAGES, *ENDS])
def test_each_fault_of_a_books_stream_ends_in_the_venues_book(venue: str, kind: FaultKind) -> None:
    if kind in LOSSES and not load_adapter(venue).detects_loss:
        pytest.skip("the venue gives no sign of a lost message; TCP is what keeps them")
    loop = disturbed(venue, kind, DataType.BOOK)
    loop.assert_books_true()
    if kind in LOSSES:
        assert loop.adapter.counts.gaps >= 1 and loop.adapter.counts.resyncs >= 1
    if kind in DAMAGES:
        assert len(loop.errors) == 1


@every_venue
@pytest.mark.parametrize("kind", [FaultKind.CHECKSUM, FaultKind.ALTERED])
def test_wrong_checksum_never_shows_a_wrong_book(venue: str, kind: FaultKind) -> None:
    if "checksum" not in load_adapter(venue).integrity.lower():
        pytest.skip("the venue sends no checksum")
    loop = disturbed(venue, kind, DataType.BOOK)
    loop.assert_books_true()
    assert loop.adapter.counts.checksums > 10
    reasons = [
        reason for name in loop.names(DataType.BOOK) for state, reason in loop.statuses(name) if state is State.GAP
    ]
    assert reasons == [Reason.CHECKSUM]


@every_venue
@pytest.mark.parametrize("kind", [*LOSSES, FaultKind.DUPLICATE, *DAMAGES])
@pytest.mark.parametrize("data_type", [DataType.TRADE, DataType.BBO])
def test_faults_of_other_streams_leave_books_alone(venue: str, kind: FaultKind, data_type: DataType) -> None:
    streams = quiet_run_to_look_at(venue).emulator.streams
    if data_type not in streams or streams[data_type] == streams[DataType.BOOK]:
        pytest.skip("the venue has no such stream")
    loop = disturbed(venue, kind, data_type)
    loop.assert_books_true()


@every_venue
def test_one_bad_book_does_not_reset_the_others(venue: str) -> None:
    loop = Loopback(venue)
    names = loop.names(DataType.BOOK)
    loop.run(2.0)
    before = {name: int((loop.of(Kind.CLEAR, name)).size) for name in names}
    loop.emit.begin(loop.schedule.now_ns)
    loop.after(loop.adapter.resync(names[0], loop.schedule.now_ns, Reason.CROSSED, loop.emit))
    told = loop.of(Kind.CLEAR, names[0]).view(CLEAR)[-1]
    assert told["reason"] == Reason.CROSSED and not told["flags"] & Flags.SNAPSHOT
    assert loop.statuses(names[0])[-1] == (State.RESYNCING, Reason.CROSSED)
    assert loop.adapter.counts.books_valid == len(names) - 1
    loop.run(2.0)
    loop.settle()
    loop.assert_books_true()
    for name in names[1:]:
        assert len(loop.of(Kind.CLEAR, name)) == before[name], name
    assert loop.reconnects == []


@every_venue
def test_disconnect_clears_every_book_and_says_why(venue: str) -> None:
    loop = quiet_run(venue, 2.0)
    seen = len(loop.records)
    for wire in loop.wires:
        loop.end(wire, Reason.STALE)
    rows = loop.records[seen:]
    clears = np.compress(rows["kind"] == Kind.CLEAR, rows).view(CLEAR)
    books = [loop.channels[name].instrument_id for name in loop.names(DataType.BOOK)]
    assert sorted(clears["instrument_id"].tolist()) == sorted(books)
    assert set(clears["reason"].tolist()) == {Reason.STALE} and not (clears["flags"] & Flags.SNAPSHOT).any()
    assert loop.adapter.counts.books_valid == 0
    loop.settle(5.0)
    loop.assert_books_true()


@every_venue
def test_books_survive_a_long_time_of_all_faults(venue: str) -> None:
    adapter = load_adapter(venue)
    loop = Loopback(venue, rate=400)
    loop.run(1.0)
    kinds = [FaultKind.DUPLICATE, *DAMAGES, *ENDS, *(LOSSES if adapter.detects_loss else ())]
    for kind in kinds:
        loop.arm(kind, count=0, probability=0.002)
    loop.run(60.0)
    loop.injector.clear()
    # The last message damaged may need a message after it to show, and backoffs have grown meanwhile.
    loop.run(5.0)
    loop.settle(100.0)
    if not all(loop.injector.fired[kind] for kind in kinds):
        assert sum(loop.injector.fired.values()) > 20
    loop.assert_books_true()


@every_venue
@pytest.mark.parametrize("latency_s", [0.0, 0.3, 2.5])
@pytest.mark.parametrize("lag", [0, 3, 60, 1_000_000])
def test_snapshot_may_be_older_or_newer_than_what_was_held(venue: str, latency_s: float, lag: int) -> None:
    loop = Loopback(venue, latency_s=latency_s)
    if lag:
        loop.arm(FaultKind.STALE_SNAPSHOT, count=3, lag=lag)
    loop.run(6.0)
    loop.settle(20.0)
    loop.assert_books_true()


@every_venue
@pytest.mark.parametrize(
    ("kind", "status", "retry_after_s"),
    [(FaultKind.REST_ERROR, 500, 0), (FaultKind.REST_ERROR, 429, 2), (FaultKind.REST_RESET, 0, 0)],
)
def test_failing_rest_is_tried_again(venue: str, kind: FaultKind, status: int, retry_after_s: int) -> None:
    loop = Loopback(venue)
    loop.arm(kind, count=3, status=status, retry_after_s=retry_after_s)
    loop.run(5.0)
    loop.settle(30.0)
    loop.assert_books_true()


@every_venue
def test_symbol_that_the_venue_refuses_costs_no_other(venue: str) -> None:
    loop = Loopback(venue, wanted=Wanted(extra=("NOSUCHUSDT",)))
    loop.run(5.0)
    loop.settle(5.0)
    for name in loop.names(DataType.BOOK):
        loop.assert_book_true(name)
    loop.assert_records_lawful()
    assert loop.reconnects == [] and loop.closed_by_venue == []
    if loop.emulator.refuses_unknown:
        assert {request.instrument for request in loop.rejected} == {"NOSUCHUSDT"}
        assert all(request.detail for request in loop.rejected)


@every_venue
def test_announced_shutdown_asks_for_a_replacement(venue: str) -> None:
    loop = Loopback(venue)
    loop.run(1.0)
    loop.emulator.announce_shutdown()
    loop.run(0.1)
    if not loop.reconnects:
        pytest.skip("the venue announces nothing")
    assert {request.reason for request in loop.reconnects} == {Reason.PLANNED_RECONNECT}
    assert loop.errors == []


# ---- what must not come -----------------------------------------------------------------------------------


@every_venue
@pytest.mark.parametrize("damaged", [False, True])
def test_direct_routes_make_the_records_that_decoding_makes(venue: str, damaged: bool) -> None:
    """Of any frame: also where a part of them is damaged, which a route must not take for good."""
    if quiet_run_to_look_at(venue).adapter.direct is None:
        pytest.skip("the adapter has no direct routes")
    samples = quiet_run(venue, 3.0).frames if damaged else []

    def run(*, direct: bool) -> Loopback:
        damager, random = Damager(seed=11), Random(12)

        def rewrite(frame: bytes) -> bytes:
            if not damaged or random.random() > 0.2:
                return frame
            return damager.of(random.choice([frame, frame, random.choice(samples)]))

        loop = Loopback(venue, rewrite=rewrite, direct=direct)
        loop.run(6.0)
        return loop

    fast, slow = run(direct=True), run(direct=False)
    assert fast.frames == slow.frames
    assert fast.records.tobytes() == slow.records.tobytes()
    assert fast.adapter.counts == slow.adapter.counts
    assert [str(error) for error in fast.errors] == [str(error) for error in slow.errors]
    assert fast.adapter.direct is not None and fast.adapter.direct.taken > len(fast.frames) // (3 if damaged else 2)
    assert slow.adapter.direct is not None and slow.adapter.direct.taken == 0, "on_frame asks the routes once more"


@every_venue
def test_damaged_answers_of_rest_are_survived(venue: str) -> None:
    loop = quiet_run(venue, 1.0)
    assert loop.answers
    damager, random, answers = Damager(seed=5), Random(6), list(loop.answers.values())
    adapter = loop.adapter
    for _ in range(300):
        for fetch in adapter.metadata_requests():
            try:
                found = adapter.on_metadata(Response(fetch.tag, fetch.url, 200, damager.of(random.choice(answers))))
            except VenueProtocolError:
                continue
            for entry in found:
                if isinstance(entry, InstrumentInfo):
                    assert -18 <= entry.price_exponent <= 0 and -18 <= entry.size_exponent <= 18
                    assert entry.instrument and str(parse(entry.canonical_symbol)) == entry.canonical_symbol


@every_venue
@pytest.mark.parametrize(
    ("status", "body"), [(451, b""), (0, b"timed out"), (200, b"{}"), (200, b"<html>"), (200, b"[]")]
)
def test_unusable_metadata_is_a_protocol_error_or_empty(venue: str, status: int, body: bytes) -> None:
    adapter = Loopback(venue).adapter
    fetch = adapter.metadata_requests()[0]
    try:
        found = adapter.on_metadata(Response(fetch.tag, fetch.url, status, body))
    except VenueProtocolError:
        return
    assert status == 200 and not any(isinstance(entry, InstrumentInfo) for entry in found)


@every_venue
def test_message_of_an_unknown_type_is_kept_and_leaves_no_record(venue: str) -> None:
    loop = quiet_run(venue, 1.0)
    seen, ignored = len(loop.records), loop.adapter.counts.ignored
    for wire in loop.wires[:1]:
        loop.on_frame(wire, unknown_message(loop.frames))
    if not loop.errors:
        assert loop.adapter.counts.ignored == ignored + 1 and len(loop.records) == seen
        ((what, sample),) = loop.adapter.unknown.take_new()
        assert what and sample


def unknown_message(frames: Sequence[bytes]) -> bytes:
    """A message like the venue's with another name in the place that says what it is."""
    for frame in reversed(frames):
        try:
            message = msgspec.json.decode(frame)
        except msgspec.DecodeError:
            continue
        if isinstance(message, dict):
            for key in ("stream", "topic", "channel", "type", "event", "method"):
                if isinstance(message.get(key), str):
                    return msgspec.json.encode({**message, key: "brandNewThing"})
    return b'{"brandNewThing":1}'


@every_venue
def test_requests_are_of_the_port(venue: str) -> None:
    """What is asked for on behalf of a connection names that connection, so that it ends with it."""
    loop = quiet_run(venue, 2.0)
    known = {connection.connection for connection in loop.adapter.connections()}
    assert {request.connection for request in loop.requests if not isinstance(request, Fetch)} <= known
    assert {request.connection for request in loop.requests if isinstance(request, Fetch)} <= known
    assert not [request for request in loop.requests if isinstance(request, Reconnect)]
