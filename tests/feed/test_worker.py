"""The worker against a made-up venue over real sockets: what it feeds, rejects, tells, and survives."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from mdring.config import SubscriptionConfig
from mdring.counters import Counter
from mdring.feed.adapter import Endpoints, InstrumentInfo, Limits, Subscription
from mdring.feed.listing import Listing, ListingCache
from mdring.feed.rest_budget import RestBudget
from mdring.record import STATUS, DataType, Kind, Reason, State
from mdring.run_folder import rest_budgets
from tests.feed.paper import PaperAdapter, PaperOptions
from tests.feed.paper_venue import PaperVenue
from tests.feed.worker_run import Told, WorkerRun, assert_unbroken, paper_config, patiently


def trade(number: int, name: str = "AAA") -> dict[str, object]:
    return {"trade": name, "id": number, "price": "1.50", "size": "2"}


def test_feeds_what_the_venue_sends(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                session.send(trade(7))
                await run.until_count(Kind.TRADE, 1)
            row = run.of(Kind.TRADE)[0]
            assert (row["price"], row["size"], row["venue_seq"], row["venue_id"]) == (150, 2, 7, 1)
            assert run.segments.instruments["paper:AAA"].canonical_symbol == "AAA-X"
            assert run.states() == [
                (State.RECONNECTING, Reason.STARTED),
                (State.CONNECTED, Reason.NONE),
                (State.DISCONNECTED, Reason.SHUTDOWN),
            ]
            assert run.told()[-2:] == [
                Told(Kind.STATUS, 0, State.DISCONNECTED, Reason.SHUTDOWN),
                Told(Kind.CLEAR, 1, State.NONE, Reason.SHUTDOWN),
            ]
            assert_unbroken(run.records)

    patiently(main())


def test_messages_of_one_read_have_one_ts_recv(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                session.send(trade(1), trade(2), trade(3))
                await run.until_count(Kind.TRADE, 3)
                session.send(trade(4))
                await run.until_count(Kind.TRADE, 4)
            times = run.of(Kind.TRADE)["ts_recv"]
            assert len(set(times[:3])) == 1
            assert times[3] > times[2]

    patiently(main())


def test_counters_tell_what_happened(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, instruments=("AAA", "BBB")))
            async with run.worker() as worker:
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 4)
                session.send(trade(1), {"note": True})
                await run.until_counter(Counter.UNKNOWN_MESSAGES, 1)
                counters = worker.counters
                seen = {
                    counter: counters.load(counter)
                    for counter in (Counter.STATE, Counter.CONNECTIONS, Counter.CONNECTS, Counter.RECONNECTS,
                                    Counter.SUBSCRIPTIONS, Counter.BOOKS, Counter.SNAPSHOTS, Counter.FRAMES)
                }  # fmt: skip
                assert list(seen.values()) == [State.CONNECTED, 1, 1, 0, 2, 2, 2, 3]
                assert counters.load(Counter.BYTES) == sum(
                    len(json.dumps(message)) for message in ({"ack": "1"}, trade(1), {"note": True})
                )
                assert 0 < counters.load(Counter.LAST_DATA_NS) <= counters.load(Counter.HEARTBEAT_NS)
            assert run.counters.load(Counter.CONNECTIONS) == 0
            assert run.counters.load(Counter.STATE) == State.DISCONNECTED
            assert run.counters.load(Counter.RECORDS) == len(run.records)

    patiently(main())


# ---- what the venue must not send -------------------------------------------------------------------------


def test_garbage_is_told_counted_and_kept_and_the_rest_goes_on(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                session.send(trade(1), "{]garbage[}", trade(2))
                await run.until_count(Kind.TRADE, 2)
            rejected = next(told for told in run.told(Kind.STATUS) if told.state is State.REJECTED)
            assert (rejected.instrument_id, rejected.reason) == (0, Reason.BAD_MESSAGE)
            assert rejected.detail.startswith("JSON is malformed")
            assert run.counters.load(Counter.REJECTS) == 1
            line = json.loads((run.config.run.state_path / "quarantine-paper.jsonl").read_text())
            assert (line["text"], line["source"], line["reason"]) == ("{]garbage[}", "connection 0", "BAD_MESSAGE")
            kinds = [Kind(int(kind)) for kind in run.records["kind"]]
            assert kinds[kinds.index(Kind.TRADE) :][:3] == [Kind.TRADE, Kind.STATUS, Kind.TRADE]
            assert len(venue.sessions) == 1

    patiently(main())


def test_rejected_message_leaves_nothing_of_itself_and_its_book_is_rebuilt(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                # Its bids are right and staged already when its asks turn out to be wrong.
                session.send({"delta": "AAA", "id": 9, "bids": [["1.40", "1"]], "asks": [["x", "1"]]})
                await run.until_count(Kind.LEVEL, 4)
            assert 140 not in run.of(Kind.LEVEL)["price"]
            assert run.counters.load(Counter.REJECTS) == 1
            of_book = [(told.kind, told.state, told.reason) for told in run.told() if told.instrument_id == 1]
            rebuilt = of_book.index((Kind.STATUS, State.REJECTED, Reason.BAD_MESSAGE))
            assert of_book[rebuilt:][:5] == [
                (Kind.STATUS, State.REJECTED, Reason.BAD_MESSAGE),
                (Kind.STATUS, State.RESYNCING, Reason.BAD_MESSAGE),
                (Kind.CLEAR, State.NONE, Reason.BAD_MESSAGE),
                (Kind.CLEAR, State.NONE, Reason.SNAPSHOT),
                (Kind.STATUS, State.SYNCED, Reason.NONE),
            ]
            assert_unbroken(run.records)

    patiently(main())


def test_answer_to_a_fetch_may_be_garbage_too(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.book = {"id": 5, "bids": [["no price", "2"]], "asks": []}
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                await venue.session()
                await run.until_told(State.REJECTED)
                venue.book = {"id": 6, "bids": [["1.20", "2"]], "asks": []}
                await run.until_told(State.SYNCED)
            assert list(run.of(Kind.LEVEL)["price"]) == [120]
            assert run.counters.load(Counter.REJECTS) >= 1

    patiently(main())


def test_bug_in_an_adapter_ends_the_worker_with_its_traceback(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            with pytest.raises(BaseExceptionGroup) as caught:
                async with run.worker():
                    session = await venue.session()
                    await run.until_count(Kind.LEVEL, 2)
                    session.send(trade(1), {"bug": True}, trade(2))
                    await asyncio.Event().wait()
            assert caught.group_contains(RuntimeError, match="a bug of ours")
            run.pump()
            assert list(run.of(Kind.TRADE)["venue_seq"]) == [1]  # what came before stands, nothing came after
            assert_unbroken(run.records)

    patiently(main())


# ---- instruments ------------------------------------------------------------------------------------------


def test_unknown_and_halted_instruments_are_rejected_and_the_others_go_on(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.instruments["BBB"] = False
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, instruments=("NOPE", "AAA", "BBB")))
            async with run.worker():
                session = await venue.session()
                assert session.requests == [{"subscribe": ["AAA"], "ack": "1"}]
            rejected = [told for told in run.told(Kind.STATUS) if told.state is State.REJECTED]
            assert [(told.reason, told.detail) for told in rejected] == [
                (Reason.UNKNOWN_INSTRUMENT, "NOPE"),
                (Reason.UNKNOWN_INSTRUMENT, "BBB"),
            ]
            assert run.counters.load(Counter.SUBSCRIPTIONS_REJECTED) == 2
            assert run.counters.load(Counter.SUBSCRIPTIONS) == 1

    patiently(main())


def test_worker_without_any_instrument_stays_and_says_so(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, instruments=("NOPE",)))
            async with run.worker() as worker:
                await run.until_told(State.DISCONNECTED, Reason.UNKNOWN_INSTRUMENT)
                before = worker.counters.load(Counter.HEARTBEAT_NS)
                await run.until(lambda: worker.counters.load(Counter.HEARTBEAT_NS) > before)
            assert not venue.sessions

    patiently(main())


def test_configured_canonical_symbol_goes_before_the_venues(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            entry = SubscriptionConfig(instrument="AAA", canonical_symbol="A-USD", data_types=("trade",))
            config = structs.replace(paper_config(venue), subscriptions=(entry,))
            run = WorkerRun(run_folder, tmp_path, config)
            async with run.worker():
                await venue.session()
            assert run.segments.instruments["paper:AAA"].canonical_symbol == "A-USD"

    patiently(main())


def test_pattern_subscribes_to_what_it_matches_with_what_is_offered(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue(("AAA", "AAB", "AAC", "BBB")) as venue:
            venue.instruments["AAC"] = False
            venue.more_of["AAB"] = {"data_types": ["trade"]}
            wishes = (
                SubscriptionConfig(match="AA*", data_types=("book", "trade")),
                SubscriptionConfig(match="NO*", data_types=("trade",)),
            )
            run = WorkerRun(run_folder, tmp_path, structs.replace(paper_config(venue), subscriptions=wishes))
            async with run.worker():
                session = await venue.session()
                assert session.requests == [{"subscribe": ["AAA", "AAB"], "ack": "1"}]
                session.send(trade(1, "AAB"))
                await run.until_count(Kind.TRADE, 1)
                await run.until_count(Kind.LEVEL, 2)
            rejected = [told for told in run.told(Kind.STATUS) if told.state is State.REJECTED]
            assert rejected == [Told(Kind.STATUS, 0, State.REJECTED, Reason.UNKNOWN_INSTRUMENT, "NO*")]
            assert run.counters.load(Counter.SUBSCRIPTIONS) == 2
            assert run.counters.load(Counter.BOOKS) == 1
            assert run.segments.instruments["paper:AAB"].canonical_symbol == "AAB-X"
            assert_unbroken(run.records)

    patiently(main())


def test_data_type_that_is_not_offered_is_refused_and_the_others_go_on(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.more_of["AAA"] = {"data_types": ["trade"]}
            venue.more_of["BBB"] = {"data_types": ["funding"]}
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, instruments=("AAA", "BBB")))
            async with run.worker() as worker:
                session = await venue.session()
                assert session.requests == [{"subscribe": ["AAA"], "ack": "1"}]
                session.send(trade(1))
                await run.until_count(Kind.TRADE, 1)
                assert worker.counters.error() is not None
            rejected = [told for told in run.told(Kind.STATUS) if told.state is State.REJECTED]
            assert [(told.instrument_id, told.reason, told.detail) for told in rejected] == [
                (1, Reason.SUBSCRIBE_REJECTED, "not offered: book"),
                (2, Reason.SUBSCRIBE_REJECTED, "not offered: trade"),
                (2, Reason.SUBSCRIBE_REJECTED, "not offered: book"),
            ]
            statuses = run.of(Kind.STATUS).view(STATUS)
            of_instruments = np.compress(statuses["instrument_id"] > 0, statuses)
            assert list(of_instruments["data_type"]) == [DataType.BOOK, DataType.TRADE, DataType.BOOK]
            assert run.counters.load(Counter.SUBSCRIPTIONS_REJECTED) == 3
            assert run.counters.load(Counter.SUBSCRIPTIONS) == 1

    patiently(main())


def test_what_is_offered_of_none_of_the_instruments_leaves_the_worker_without_any(
    run_folder: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.more_of["AAA"] = {"data_types": ["funding"]}
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                await run.until_told(State.DISCONNECTED, Reason.UNKNOWN_INSTRUMENT)
            assert not venue.sessions
            assert run.counters.load(Counter.SUBSCRIPTIONS_REJECTED) == 2

    patiently(main())


def test_damaged_list_on_disk_is_named_and_the_venue_waited_for(
    run_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.rest_status = 503
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, metadata_timeout_ms=1))
            kept = run.config.listing("paper")
            kept.parent.mkdir(parents=True)
            kept.write_text('{"format": 1')
            async with run.worker():
                await run.until_counter(Counter.FETCH_ERRORS, 3)
                assert str(kept) in caplog.text
                venue.rest_status = 200
                await run.until_told(State.CONNECTED)
            assert kept.read_bytes().endswith(b"}")

    patiently(main())


def test_list_on_disk_that_has_nothing_of_what_is_wanted_now_is_not_used(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, metadata_timeout_ms=1))
            other = InstrumentInfo("OTHER", "OTHER-X", -2, 0)
            ListingCache(run.config.listing("paper"), "paper", venue.rest_url).store(Listing(1, {"OTHER": other}))
            venue.rest_status = 503
            async with run.worker() as worker:
                await run.until_counter(Counter.FETCH_ERRORS, 5)
                assert worker.counters.load(Counter.METADATA_NS) == 0
                venue.rest_status = 200
                await run.until_told(State.SYNCED)
            assert State.REJECTED not in {told.state for told in run.told(Kind.STATUS)}
            assert run.counters.load(Counter.METADATA_NS) > 1

    patiently(main())


def test_dead_rest_is_told_and_outlived(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.rest_status = 503
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker() as worker:
                await run.until_counter(Counter.FETCH_ERRORS, 3)
                assert worker.counters.load(Counter.STATE) == State.DISCONNECTED
                assert worker.counters.error() is not None
                told = run.told(Kind.STATUS)[1]
                assert (told.state, told.reason) == (State.DISCONNECTED, Reason.CONNECT_FAILED)
                assert told.detail == "metadata: HTTP 503"
                venue.rest_status = 200
                await run.until_told(State.CONNECTED)

    patiently(main())


def test_metadata_that_cannot_be_had_is_given_up_after_the_last_attempt(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            venue.rest_status = 500
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, max_reconnect_attempts=2))
            async with run.worker():
                await run.until_told(State.DISCONNECTED, Reason.ATTEMPTS_EXHAUSTED)
            assert venue.rest_requests == ["/instruments"] * 3

    patiently(main())


# ---- a successor ------------------------------------------------------------------------------------------


def test_successor_clears_the_books_before_it_connects_and_keeps_channel_seqs(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, instruments=("AAA", "BBB")))
            for start in range(3):
                cleared = run.count(Kind.CLEAR)
                async with run.worker() as worker:
                    if start:  # without metadata even
                        venue.rest_answers.clear()
                        await run.until_count(Kind.CLEAR, cleared + 2)
                        assert run.told()[-3:] == [
                            Told(Kind.STATUS, 0, State.RECONNECTING, Reason.WORKER_RESTART),
                            Told(Kind.CLEAR, 1, State.NONE, Reason.WORKER_RESTART),
                            Told(Kind.CLEAR, 2, State.NONE, Reason.WORKER_RESTART),
                        ]
                        venue.rest_answers.set()
                    session = await venue.session(start)
                    await run.until_count(Kind.LEVEL, 4 * (start + 1))
                    session.send(*(trade(number, "BBB") for number in range(50)))
                    await run.until_count(Kind.TRADE, 50 * (start + 1))
                    assert worker.counters.load(Counter.STARTS) == start + 1
            assert_unbroken(run.records)
            assert len(run.segments.instruments) == 2

    patiently(main())


def test_successor_of_a_worker_that_never_saved_its_channel_seqs_finds_them_in_the_ring(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mdring.feed.publisher.Publisher.save_channels", lambda publisher: None)

    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            for start in range(2):
                async with run.worker():
                    session = await venue.session(start)
                    await run.until_count(Kind.LEVEL, 2 * (start + 1))
                    session.send(*(trade(number) for number in range(100)))
                    await run.until_count(Kind.TRADE, 100 * (start + 1))
            assert_unbroken(run.records)

    patiently(main())


# ---- several connections ----------------------------------------------------------------------------------


def test_connection_of_several_speaks_for_its_instruments_and_the_venue_shows_the_worst(
    run_folder: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, connections=2, instruments=("AAA", "BBB")))
            async with run.worker() as worker:
                await venue.session(1)
                await run.until_count(Kind.LEVEL, 4)
                assert worker.counters.load(Counter.CONNECTIONS) == 2
                begun = len(run.told())
                of_bbb = next(one for one in venue.sessions if one.requests[0]["subscribe"] == ["BBB"])
                of_bbb.reset()
                await run.until_count(Kind.LEVEL, 6)
                told = [(one.kind, one.instrument_id, one.state) for one in run.told()[begun:]]
            assert told == [
                (Kind.STATUS, 2, State.DISCONNECTED),
                (Kind.STATUS, 0, State.DISCONNECTED),
                (Kind.CLEAR, 2, State.NONE),
                (Kind.STATUS, 2, State.RECONNECTING),
                (Kind.STATUS, 0, State.RECONNECTING),
                (Kind.STATUS, 2, State.CONNECTED),
                (Kind.STATUS, 0, State.CONNECTED),
                (Kind.CLEAR, 2, State.NONE),
                (Kind.STATUS, 2, State.SYNCED),
            ]
            assert run.told()[-1].reason is Reason.SHUTDOWN

    patiently(main())


# ---- idling -----------------------------------------------------------------------------------------------


def test_attempts_to_connect_keep_the_venues_distance(run_folder: Path, tmp_path: Path) -> None:
    class Paced(PaperAdapter):
        limits = Limits(connect_interval_s=0.1)

    async def main() -> None:
        names = ("AAA", "BBB", "CCC")
        async with PaperVenue(names) as venue:
            config = paper_config(venue, connections=3, instruments=names)
            run = WorkerRun(run_folder, tmp_path, config)
            adapter = Paced(
                Endpoints(config.websocket_url, config.rest_url),
                PaperOptions(connections=3),
                [Subscription(entry.instrument, entry.wanted) for entry in config.subscriptions],
            )
            loop = asyncio.get_running_loop()
            begun = loop.time()
            async with run.worker(adapter):
                await run.until_counter(Counter.CONNECTIONS, 3)
                assert loop.time() - begun >= 0.199  # the third one two intervals after the first

    patiently(main())


def test_what_is_spent_of_the_rest_budget_shows_and_outlives_the_worker(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker():
                await run.until_counter(Counter.SNAPSHOTS, 1)
                await run.until_counter(Counter.REST_WEIGHT, 2)  # the list of instruments, and one snapshot
                assert run.counters.load(Counter.FETCHES_WAITING) == 0
            budget = RestBudget(PaperAdapter.limits, venue.rest_url, rest_budgets(run_folder))
            assert budget.used(time.time_ns()) == 2

    patiently(main())


def test_heart_beats_while_nothing_comes(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue))
            async with run.worker() as worker:
                await venue.session()
                beats: list[int] = []
                while len(beats) < 4:
                    await asyncio.sleep(0.02)
                    beat = worker.counters.load(Counter.HEARTBEAT_NS)
                    if beat not in beats:
                        beats.append(beat)
            # How often it beats is said by its own clock: the distance is the pulse's, whatever the machine does.
            assert min(np.diff(beats)) < 250_000_000

    patiently(main())


def test_many_messages_fill_the_ring_many_times_over_without_loss(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ring_slots=256))
            async with run.worker():
                session = await venue.session()
                for batch in range(40):
                    session.send(*(trade(100 * batch + number) for number in range(100)))
                    await run.until_count(Kind.TRADE, 100 * (batch + 1))
            assert list(run.of(Kind.TRADE)["venue_seq"]) == list(range(4000))
            assert run.counters.load(Counter.DROPS) == 0
            assert_unbroken(run.records)

    patiently(main())
