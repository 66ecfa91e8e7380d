"""The emulated Binance's REST calls over real sockets, held against the venue's documentation."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from mdring.emulator.instruments import KNOWN
from tests.adapters.emulators.test_binance import binance
from tests.emulator.bench import emulated, run


def test_exchange_info_lists_every_instrument_with_its_grids() -> None:
    async def main() -> None:
        async with emulated(instruments=()) as bench:
            status, info, headers = await bench.get("/api/v3/exchangeInfo")
            assert status == 200
            assert headers["X-MBX-USED-WEIGHT-1M"] == "20"
            assert headers["Content-Type"].startswith("application/json")
            assert list(info)[:3] == ["timezone", "serverTime", "rateLimits"]
            symbols = {symbol["symbol"]: symbol for symbol in info["symbols"]}
            assert len(symbols) == sum(spec.symbol.is_spot for spec in KNOWN.values())
            btc = symbols["BTCUSDT"]
            assert (btc["baseAsset"], btc["quoteAsset"], btc["status"]) == ("BTC", "USDT", "TRADING")
            grids = {rule["filterType"]: rule for rule in btc["filters"]}
            assert Decimal(grids["PRICE_FILTER"]["tickSize"]) == Decimal("0.01")
            assert Decimal(grids["LOT_SIZE"]["stepSize"]) == Decimal("0.00001")
            shib = {rule["filterType"]: rule for rule in symbols["SHIBUSDT"]["filters"]}
            assert shib["PRICE_FILTER"]["tickSize"] == "0.00000001"
            assert shib["LOT_SIZE"]["stepSize"] == "1.00000000"

    run(main())


def test_exchange_info_can_be_narrowed() -> None:
    async def main() -> None:
        async with emulated() as bench:
            _, one, _ = await bench.get("/api/v3/exchangeInfo?symbol=ETHUSDT&showPermissionSets=false")
            assert [symbol["symbol"] for symbol in one["symbols"]] == ["ETHUSDT"]
            assert one["symbols"][0]["permissionSets"] == []
            _, both, _ = await bench.get('/api/v3/exchangeInfo?symbols=["ETHUSDT","BTCUSDT"]')
            assert [symbol["symbol"] for symbol in both["symbols"]] == ["ETHUSDT", "BTCUSDT"]
            assert both["symbols"][0]["permissionSets"] == [["SPOT"]]
            _, none, _ = await bench.get("/api/v3/exchangeInfo?symbolStatus=HALT")
            assert none["symbols"] == []

    run(main())


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/v3/exchangeInfo?symbol=NOSUCH", -1121),
        ('/api/v3/exchangeInfo?symbols=["BTCUSDT","NOSUCH"]', -1121),
        ("/api/v3/exchangeInfo?symbols=[BTCUSDT]", -1100),
        ("/api/v3/exchangeInfo?symbol=BTCUSDT&symbolStatus=HALT", -1220),
        ("/api/v3/depth", -1102),
        ("/api/v3/depth?symbol=btcusdt", -1121),
        ("/api/v3/depth?symbol=BTCUSDT&limit=ten", -1100),
        ("/api/v3/aggTrades?symbol=BTCUSDT&fromId=-1", -1100),
    ],
)
def test_a_bad_call_gets_400_with_the_documented_body(path: str, code: int) -> None:
    async def main() -> None:
        async with emulated() as bench:
            status, body, _ = await bench.get(path)
            assert status == 400
            assert list(body) == ["code", "msg"]
            assert body["code"] == code

    run(main())


def test_invalid_symbol_text_is_the_documented_one() -> None:
    async def main() -> None:
        async with emulated() as bench:
            _, body, _ = await bench.get("/api/v3/depth?symbol=NOSUCH")
            assert body == {"code": -1121, "msg": "Invalid symbol."}

    run(main())


def test_depth_is_the_true_book_best_first() -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.server.advance(300)
            book = bench.host.emulator.book_of("BTCUSDT")
            _, snapshot, _ = await bench.get("/api/v3/depth?symbol=BTCUSDT&limit=10")
            assert list(snapshot) == ["lastUpdateId", "bids", "asks"]
            true = book.depth(10)
            assert snapshot["lastUpdateId"] == true.update_id
            assert snapshot["bids"] == [bench.host.emulator.level_text(book, level) for level in true.bids]
            assert snapshot["asks"] == [bench.host.emulator.level_text(book, level) for level in true.asks]
            bids = [Decimal(price) for price, _ in snapshot["bids"]]
            asks = [Decimal(price) for price, _ in snapshot["asks"]]
            assert bids == sorted(bids, reverse=True) and asks == sorted(asks) and bids[0] < asks[0]
            _, default, _ = await bench.get("/api/v3/depth?symbol=BTCUSDT")
            assert len(default["bids"]) == 100
            _, beyond, _ = await bench.get("/api/v3/depth?symbol=BTCUSDT&limit=9999")
            assert len(beyond["bids"]) == len(book.bids)

    run(main())


@pytest.mark.parametrize(
    ("limit", "weight"), [(1, 5), (100, 5), (101, 25), (500, 25), (1000, 50), (1001, 250), (9999, 250)]
)
def test_depth_costs_its_weight(limit: int, weight: int) -> None:
    async def main() -> None:
        async with emulated() as bench:
            _, _, headers = await bench.get(f"/api/v3/depth?symbol=BTCUSDT&limit={limit}")
            assert headers["X-MBX-USED-WEIGHT-1M"] == str(weight)

    run(main())


@pytest.mark.parametrize(
    ("call", "weight"),
    [
        ("ping", 1),
        ("time", 1),
        ("exchangeInfo", 20),
        ("exchangeInfo?symbol=BTCUSDT", 20),
        ("trades?symbol=BTCUSDT", 25),
        ("historicalTrades?symbol=BTCUSDT", 25),
        ("aggTrades?symbol=BTCUSDT", 4),
        ("depth?symbol=NONE&limit=1000", 50),
        ("nonsense", 0),
    ],
)
def test_every_call_costs_its_weight_whatever_its_answer(call: str, weight: int) -> None:
    async def main() -> None:
        async with emulated() as bench:
            await bench.get(f"/api/v3/{call}")
            _, _, headers = await bench.get("/api/v3/ping")
            assert headers["X-MBX-USED-WEIGHT-1M"] == str(weight + 1)

    run(main())


def test_above_the_budget_429_with_retry_after_then_418() -> None:
    async def main() -> None:
        limits: dict[str, Any] = {"weight_per_minute": 40, "strikes_before_ban": 2, "ban_s": 150}
        async with emulated(**binance(**limits)) as bench:
            answers = [await bench.get("/api/v3/exchangeInfo")]
            while answers[-1][0] != 418:
                answers.append(await bench.get("/api/v3/exchangeInfo"))
            statuses = [status for status, _, _ in answers]
            assert statuses[:2] == [200, 200] and statuses[-3:] == [429, 429, 418]
            refused = answers[-2]
            assert refused[1]["code"] == -1003
            assert 1 <= int(refused[2]["Retry-After"]) <= 60
            assert (await bench.get("/api/v3/ping"))[0] == 418
            assert answers[-1][1]["code"] == -1003
            assert 100 < int(answers[-1][2]["Retry-After"]) <= 150

    run(main())


def test_trades_and_their_history_by_id() -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.server.advance(400)
            true = list(bench.host.emulator.book_of("BTCUSDT").trades)
            _, recent, _ = await bench.get("/api/v3/trades?symbol=BTCUSDT&limit=7")
            assert [trade["id"] for trade in recent] == [trade.trade_id for trade in true[-7:]]
            keys = ["id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"]
            assert list(recent[0]) == keys
            assert Decimal(recent[0]["quoteQty"]) == Decimal(recent[0]["price"]) * Decimal(recent[0]["qty"])
            first = true[10].trade_id
            path = f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={first}&limit=5"
            _, past, _ = await bench.get(path)
            assert [trade["id"] for trade in past] == list(range(first, first + 5))
            _, latest, _ = await bench.get("/api/v3/historicalTrades?symbol=BTCUSDT&limit=7")
            assert latest == recent

    run(main())


def test_aggregate_trades_continue_each_other() -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.server.advance(400)
            true = bench.host.emulator.book_of("BTCUSDT").trades
            path = f"/api/v3/aggTrades?symbol=BTCUSDT&fromId={true[0].run + 3}&limit=20"
            _, merged, _ = await bench.get(path)
            assert list(merged[0]) == ["a", "p", "q", "f", "l", "T", "m", "M"]
            assert [aggregate["a"] for aggregate in merged] == [true[0].run + 3 + n for n in range(20)]
            assert all(after["f"] == before["l"] + 1 for before, after in pairwise(merged))
            _, latest, _ = await bench.get("/api/v3/aggTrades?symbol=BTCUSDT&limit=4")
            assert latest[-1]["l"] == true[-1].trade_id

    run(main())


def test_times_are_microseconds_on_request() -> None:
    async def main() -> None:
        async with emulated() as bench:
            _, coarse, _ = await bench.get("/api/v3/time")
            _, fine, _ = await bench.get("/api/v3/time", **{"X-MBX-TIME-UNIT": "MICROSECOND"})
            assert len(str(coarse["serverTime"])) == 13
            assert len(str(fine["serverTime"])) == 16

    run(main())


def test_ping_unknown_paths_and_other_methods() -> None:
    async def main() -> None:
        async with emulated() as bench:
            assert (await bench.get("/api/v3/ping"))[:2] == (200, {})
            assert (await bench.get("/api/v1/depth"))[0] == 404
            async with bench.session.post(bench.host.rest_url + "/api/v3/ping") as answer:
                assert answer.status == 405

    run(main())
