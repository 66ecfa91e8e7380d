"""A cold start of 300 books on the emulated Binance, with the venue's real weights: never refused, no minute wasted.

In virtual time: the venue's adapter, its emulator and the worker's fetcher, their waiting left out. A snapshot of 1000
levels weighs 50 of 6000 in a minute of the clock, the list of instruments 20; so 300 books need three minutes of the
clock, and a start cannot end before the third has begun. The long test does it over real sockets.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from mdring.adapters.binance import BinanceAdapter, BinanceOptions
from mdring.adapters.emulators.binance import BinanceEmulator
from mdring.adapters.emulators.binance import BinanceOptions as EmulatorOptions
from mdring.config import ConnectionConfig, SubscriptionConfig, VenueConfig
from mdring.counters import Counter
from mdring.emulator.host import VenueHost
from mdring.emulator.instruments import universe
from mdring.emulator.market import Market
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from mdring.emulator.venue import RestRequest, Timer
from mdring.feed.adapter import Endpoints, Fetch, Request, Response, Send, Subscription
from mdring.feed.backoff import Backoff
from mdring.feed.emit import Emit
from mdring.feed.metadata import learn
from mdring.feed.rest import Fetcher, RestClient
from mdring.feed.rest_budget import RestBudget
from mdring.feed.stage import Channel
from mdring.record import DataType
from tests.feed.virtual_time import in_virtual_time
from tests.feed.worker_run import WorkerRun, patiently

BOOKS: Final = 300
PER_MINUTE: Final = 6000
SNAPSHOT_WEIGHT: Final = 50
LIST_WEIGHT: Final = 20
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
MIDNIGHT: Final = 1_790_035_200 * SECOND
LATENCY_S: Final = 0.1  # of a request: with four at a time, 40 a second
URL: Final = "https://api.binance.com"
SYMBOLS: Final = tuple(f"C{number:03d}-USDT" for number in range(BOOKS))
NAMES: Final = tuple(symbol.replace("-", "") for symbol in SYMBOLS)


def minutes_needed(lists: int = 1) -> int:
    """How many minutes of the clock the weights of a start take up."""
    return -(-(lists * LIST_WEIGHT + BOOKS * SNAPSHOT_WEIGHT) // PER_MINUTE)


@cache
def market() -> Market:
    """300 small books in which nothing happens: what a snapshot weighs is told by the limit that is asked for."""
    return Market(universe(SYMBOLS), seed=7, depth=10)


class Venue(RestClient):
    """The emulated venue's REST, and the way there and back, in virtual time."""

    def __init__(self, phase_s: float, offset_s: float = 0.0) -> None:
        """The start is ``phase_s`` into a minute of our clock; the venue's is ``offset_s`` ahead."""
        self.begun_ns = MIDNIGHT + round(phase_s * SECOND)
        self.statuses: Tally[int] = Tally()
        self.asked: list[str] = []
        self._offset_ns = round(offset_s * SECOND)
        self._emulator = BinanceEmulator(market(), self, EmulatorOptions())

    def our_ns(self) -> int:
        return self.begun_ns + round(asyncio.get_running_loop().time() * SECOND)

    def now_ns(self) -> int:
        return self.our_ns() + self._offset_ns

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    async def get(self, tag: str, url: str) -> Response:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        self.asked.append(query.get("symbol", parts.path))
        await asyncio.sleep(LATENCY_S / 2)
        answer = self._emulator.rest(RestRequest(parts.path, query, {}, "our address"))
        self.statuses[answer.status] += 1
        await asyncio.sleep(LATENCY_S / 2)
        return Response(tag, url, answer.status, answer.body, answer.headers)


class ColdStart:
    """What a worker does of it, but for the sockets."""

    def __init__(self, venue: Venue, names: tuple[str, ...], accounts: Path | None = None) -> None:
        subscriptions = [Subscription(name, (DataType.BOOK,)) for name in names]
        self.adapter = BinanceAdapter(Endpoints("", URL), BinanceOptions(), subscriptions)
        self.trades: dict[str, int] = {}
        self._names = names
        self._venue = venue
        budget = RestBudget(BinanceAdapter.limits, URL, accounts)
        self._fetcher = Fetcher(
            venue, budget, self._on_response, lambda name: (self.trades.get(name, 0), 0), venue.our_ns
        )
        self._emit = Emit()

    async def run(self) -> None:
        """Until every book is valid."""
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self._fetcher.run())
            infos = await learn([self.adapter], self._fetcher, Backoff(1, 1), pytest.fail)
            channels = {
                name: Channel(name, number, 1, infos[name].price_exponent, infos[name].size_exponent)
                for number, name in enumerate(self._names, 1)
            }
            self.adapter.bind(channels)
            for connection in self.adapter.connections():
                self._carry_out(self.adapter.on_connect(connection.connection, self._venue.our_ns(), self._emit))
            while self.adapter.counts.books_valid < len(self._names):
                await asyncio.sleep(0.01)
            running.cancel()

    def _carry_out(self, requests: Sequence[Request]) -> None:
        self._emit.drain()
        for request in requests:
            if isinstance(request, Fetch):
                self._fetcher.submit(request)
            elif isinstance(request, Send):
                answer = msgspec.json.encode({"result": None, "id": int(request.ack or 0)})
                now_ns = self._venue.our_ns()
                self._carry_out(self.adapter.on_frame(request.connection, answer, now_ns, self._emit))

    def _on_response(self, fetch: Fetch, response: Response) -> None:
        now_ns = self._venue.our_ns()
        self._emit.begin(now_ns)
        self._carry_out(self.adapter.on_response(response, now_ns, self._emit))


def elapsed_s() -> float:
    return asyncio.get_running_loop().time()


# To ask for all that a minute allows takes 3 s, and in its last second nothing is certain.
@pytest.mark.parametrize("offset_s", [-0.8, 0.0, 0.8], ids=["venue behind", "same clock", "venue ahead"])
@pytest.mark.parametrize("phase_s", [1.0, 17.3, 30.0, 45.0, 55.0])
def test_300_books_are_never_refused_and_take_no_longer_than_their_weights(phase_s: float, offset_s: float) -> None:
    async def main() -> None:
        venue = Venue(phase_s, offset_s)
        await ColdStart(venue, NAMES).run()
        assert venue.statuses == {200: 1 + BOOKS}
        least_s = (minutes_needed() - 1) * 60 - phase_s
        assert elapsed_s() <= 1.3 * least_s

    in_virtual_time(main())


@pytest.mark.parametrize("phase_s", [57.0, 58.0, 58.9, 59.0, 59.5, 59.99, 0.0, 0.5])
def test_start_at_the_turn_of_a_minute_loses_that_one_at_most(phase_s: float) -> None:
    async def main() -> None:
        venue = Venue(phase_s)
        await ColdStart(venue, NAMES).run()
        assert venue.statuses == {200: 1 + BOOKS}
        assert elapsed_s() <= 1.3 * (minutes_needed() - 1) * 60

    in_virtual_time(main())


@pytest.mark.parametrize("offset_s", [-20.0, -4.0, 4.0, 20.0])
def test_clock_that_is_far_off_costs_refusals_but_no_ban(offset_s: float) -> None:
    async def main() -> None:
        venue = Venue(30.0, offset_s)
        await ColdStart(venue, NAMES).run()
        assert venue.statuses[200] == 1 + BOOKS
        assert set(venue.statuses) <= {200, 429}

    in_virtual_time(main())


def test_two_workers_of_one_host_start_within_one_budget(accounts: Path) -> None:
    async def main() -> None:
        venue = Venue(30.0)
        half = BOOKS // 2
        starts = [ColdStart(venue, NAMES[:half], accounts), ColdStart(venue, NAMES[half:], accounts)]
        await asyncio.gather(*(start.run() for start in starts))
        assert venue.statuses == {200: 2 + BOOKS}
        assert elapsed_s() <= 1.3 * ((minutes_needed(lists=2) - 1) * 60 - 30.0)

    in_virtual_time(main())


def test_two_workers_that_do_not_share_are_refused() -> None:
    """That the test above can fail."""

    async def main() -> None:
        venue = Venue(30.0)
        half = BOOKS // 2
        starts = [ColdStart(venue, NAMES[:half]), ColdStart(venue, NAMES[half:])]
        await asyncio.gather(*(start.run() for start in starts))
        assert venue.statuses[429] > 0

    in_virtual_time(main())


def test_metadata_comes_first_and_books_that_are_traded_meanwhile_before_the_others() -> None:
    async def main() -> None:
        venue = Venue(30.0)
        start = ColdStart(venue, NAMES)
        running = asyncio.create_task(start.run())
        await asyncio.sleep(10)
        first_minute = len(venue.asked)
        start.trades = {NAMES[-1]: 5, NAMES[-2]: 70}
        await running
        assert venue.asked[0] == "/api/v3/exchangeInfo"
        assert venue.asked[1:first_minute] == list(NAMES[: first_minute - 1])
        assert venue.asked[first_minute : first_minute + 2] == [NAMES[-2], NAMES[-1]]
        assert venue.asked[first_minute + 2 :] == list(NAMES[first_minute - 1 : -2])

    in_virtual_time(main())


def test_who_shares_the_address_but_not_the_host_is_seen_in_the_venues_figures() -> None:
    async def main() -> None:
        venue = Venue(1.0)
        for _ in range(200):  # half of the first minute
            await venue.get("", f"{URL}/api/v3/historicalTrades?symbol={NAMES[0]}")
            await asyncio.sleep(0)
        venue.statuses.clear()
        await ColdStart(venue, NAMES).run()
        assert venue.statuses == {200: 1 + BOOKS}

    in_virtual_time(main())


@pytest.fixture
def accounts(run_folder: Path) -> Path:
    return run_folder / "runs.budgets"


def emulated_config(host: VenueHost, names: Sequence[str]) -> VenueConfig:
    return VenueConfig(
        id="binance",
        adapter="binance",
        websocket_url=host.websocket_url,
        rest_url=host.rest_url,
        connection=ConnectionConfig(stale_after_ms=120_000, max_connection_life_s=86_400),
        subscriptions=tuple(SubscriptionConfig(instrument=name, data_types=("trade", "bbo", "book")) for name in names),
    )


def test_subscriptions_are_spread_and_paced_as_the_venue_demands(run_folder: Path, tmp_path: Path) -> None:
    """1026 streams: one connection has at most 1024, one frame 80, and a second five frames."""

    async def main() -> None:
        symbols = tuple(f"C{number:03d}-USDT" for number in range(342))
        names = tuple(symbol.replace("-", "") for symbol in symbols)
        async with EmulatorServer(EmulatorConfig(seed=7, rate=50, instruments=symbols, depth=10)) as server:
            host = server.venues["binance"]
            assert isinstance(host.emulator, BinanceEmulator)
            listed = host.emulator.streams_by_name.values()
            run = WorkerRun(run_folder, tmp_path, emulated_config(host, names))
            begun = time.monotonic()
            async with run.worker():
                await run.until(lambda: host.opened_total == 2)
                assert time.monotonic() - begun >= 0.999  # the distance of two attempts to connect
                await run.until(lambda: sum(bool(stream.audiences) for stream in listed) == 3 * len(names))
                assert len(host.connections) == host.opened_total == 2
                assert run.counters.load(Counter.RECONNECTS) == 0

    patiently(main())


@pytest.mark.long
def test_real_worker_gets_300_books_in_as_many_minutes_as_their_weights_take(run_folder: Path, tmp_path: Path) -> None:
    """Over real sockets, in real time: one to two minutes."""

    async def main() -> None:
        config = EmulatorConfig(seed=7, rate=300, instruments=SYMBOLS)
        async with EmulatorServer(config) as server:
            host = server.venues["binance"]
            refused = Tally[int]()
            minutes = set[int]()
            answer = host.emulator.rest

            def observed(request: RestRequest):  # type: ignore[no-untyped-def]
                found = answer(request)
                refused[found.status] += 1
                minutes.add(time.time_ns() // MINUTE)
                return found

            host.emulator.rest = observed  # type: ignore[method-assign]
            run = WorkerRun(run_folder, tmp_path, emulated_config(host, NAMES))
            begun_ns = time.time_ns()
            async with run.worker():
                await run.until_counter(Counter.BOOKS_VALID, BOOKS)
                took_s = (time.time_ns() - begun_ns) / 1e9
                phase_s = begun_ns % MINUTE / 1e9
                print(f"{BOOKS} books, {phase_s:.1f} s into a minute, took {took_s:.1f} s; answers: {dict(refused)}")
            assert set(refused) == {200}
            assert refused[200] >= 1 + BOOKS
            assert len(minutes) <= minutes_needed() + 1  # the start itself may have been at the turn of a minute
            assert run.counters.load(Counter.FETCH_ERRORS) == 0

    asyncio.run(main())
