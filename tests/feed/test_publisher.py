"""A full venue ring: what is lost is counted, told before anything else, and the books concerned are rebuilt."""

from __future__ import annotations

import asyncio
from pathlib import Path

from mdring.counters import Counter
from mdring.record import Kind, Reason, State
from tests.feed.paper_venue import PaperVenue
from tests.feed.worker_run import Told, WorkerRun, assert_unbroken, paper_config, patiently

SLOTS = 64


def trade(number: int) -> dict[str, object]:
    return {"trade": "AAA", "id": number, "price": "1.50", "size": "2"}


def delta(number: int, name: str = "AAA") -> dict[str, object]:
    return {"delta": name, "id": number, "bids": [["1.40", "1"]], "asks": [["1.60", "1"]]}


async def until_frames(run: WorkerRun, frames: int) -> None:
    """Wait, with the sequencer asleep, until the worker has taken so many frames."""
    while run.counters.load(Counter.FRAMES) < frames:
        await asyncio.sleep(0.002)


def test_sleeping_sequencer_costs_records_and_never_blocks_the_socket(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ring_slots=SLOTS))
            async with run.worker() as worker:
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                before = worker.publisher.cursor
                session.send(*map(trade, range(1000)))
                await until_frames(run, 1001)
                assert worker.publisher.cursor == before + SLOTS
                assert run.counters.load(Counter.DROPS) == 1000 - SLOTS
                await run.until_told(State.DROPPED, Reason.RING_FULL)
                session.send(trade(5000))
                await run.until(lambda: 5000 in run.of(Kind.TRADE)["venue_seq"])
            dropped = next(told for told in run.told(Kind.STATUS) if told.state is State.DROPPED)
            assert (dropped.instrument_id, dropped.count) == (0, 1000 - SLOTS)
            # Every record published is there once, in order; the trades had no part in a book.
            assert list(run.of(Kind.TRADE)["venue_seq"]) == [*range(SLOTS), 5000]
            assert Told(Kind.CLEAR, 1, State.NONE, Reason.RING_FULL) not in run.told()
            assert_unbroken(run.records)

    patiently(main())


def test_loss_in_a_book_is_told_before_anything_else_and_the_book_is_rebuilt(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            config = paper_config(venue, ring_slots=SLOTS, instruments=("AAA", "BBB"))
            run = WorkerRun(run_folder, tmp_path, config)
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 4)
                begun = len(run.records)
                session.send(*map(delta, range(100)))
                await until_frames(run, 101)
                run.pump()  # there is room at once, but what comes next must not pass for the whole truth
                session.send(delta(200), trade(7))
                await run.until_count(Kind.TRADE, 1)
                await run.until_told(State.SYNCED)
                await run.until(lambda: run.told(Kind.STATUS)[-1].state is State.SYNCED)
            after = run.records[begun:]
            published = after[:SLOTS]
            assert set(published["kind"]) == {Kind.LEVEL}
            told = [(Kind(int(row["kind"])), int(row["instrument_id"])) for row in after[SLOTS : SLOTS + 4]]
            assert told == [(Kind.STATUS, 0), (Kind.CLEAR, 1), (Kind.STATUS, 1), (Kind.CLEAR, 1)]
            reasons = [(one.state, one.reason) for one in run.told() if one.reason is Reason.RING_FULL]
            assert reasons == [
                (State.DROPPED, Reason.RING_FULL),
                (State.NONE, Reason.RING_FULL),
                (State.RESYNCING, Reason.RING_FULL),
                (State.NONE, Reason.RING_FULL),
            ]
            assert run.counters.load(Counter.RESYNCS) == 1
            assert all(one.instrument_id != 2 or one.reason is not Reason.RING_FULL for one in run.told())
            assert_unbroken(run.records)

    patiently(main())


def test_group_is_refused_whole(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ring_slots=SLOTS))
            async with run.worker() as worker:
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                start = worker.publisher.cursor
                wide = [[f"1.{number:02}", "1"] for number in range(30)]
                for number in range(3):  # 30 each into 64 slots: the third does not fit, though 4 of it would
                    session.send({"delta": "AAA", "id": number, "bids": wide, "asks": []})
                await until_frames(run, 4)
                assert worker.publisher.cursor == start + 60
                session.send(trade(1))  # would fit, but must not overtake
                await until_frames(run, 5)
                assert worker.publisher.cursor == start + 60
                assert run.counters.load(Counter.DROPS) == 31
                await run.until_told(State.DROPPED)
            assert_unbroken(run.records)

    patiently(main())


def test_states_that_were_lost_are_told_again(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ring_slots=SLOTS, reconnect_delay_ms=60_000,
                                                               max_reconnect_delay_ms=60_000))  # fmt: skip
            async with run.worker() as worker:
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                session.send(*map(delta, range(100)))
                await until_frames(run, 101)
                session.reset()  # DISCONNECTED and CLEAR are refused too
                while worker.counters.load(Counter.STATE) != State.DISCONNECTED:
                    await asyncio.sleep(0.002)
                await run.until_told(State.DROPPED)
                await run.until_told(State.DISCONNECTED, Reason.CLOSED_BY_VENUE)
                told = run.told()
                dropped = next(at for at, one in enumerate(told) if one.state is State.DROPPED)
                # No resync: what is to be fetched would be fetched for a connection that is gone.
                assert [(one.kind, one.state, one.reason) for one in told[dropped + 1 :]] == [
                    (Kind.STATUS, State.DISCONNECTED, Reason.CLOSED_BY_VENUE),
                    (Kind.CLEAR, State.NONE, Reason.RING_FULL),
                ]
            assert_unbroken(run.records)

    patiently(main())


def test_worker_stops_in_order_while_the_ring_is_full(run_folder: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with PaperVenue() as venue:
            run = WorkerRun(run_folder, tmp_path, paper_config(venue, ring_slots=SLOTS))
            async with run.worker():
                session = await venue.session()
                await run.until_count(Kind.LEVEL, 2)
                session.send(*map(delta, range(100)))
                await until_frames(run, 101)
            drops = run.counters.load(Counter.DROPS)
            assert drops == 200 - SLOTS + 2  # the last STATUS and CLEAR among them
            async with run.worker():  # whose successor makes good what could not be told
                await run.until_told(State.RECONNECTING, Reason.WORKER_RESTART)
                assert Told(Kind.CLEAR, 1, State.NONE, Reason.WORKER_RESTART) in run.told()
            assert_unbroken(run.records)

    patiently(main())
