"""The emulated Binance futures over real sockets, held against the venue's documentation; no code of our adapter."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from mdring.emulator.faults import Fault, FaultKind
from mdring.emulator.host import VenueHost
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from tests.emulator.bench import run

TEXT, CLOSE = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE
NAME = "btcusdt"
DECIMAL = re.compile(r"\d+\.\d{3}")


class Futures:
    """The server, and a client with as many sockets as it likes."""

    def __init__(self, server: EmulatorServer, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http

    @property
    def host(self) -> VenueHost:
        return self.server.venues["binance_usdm"]

    async def connect(self, path: str) -> aiohttp.ClientWebSocketResponse:
        """Raises aiohttp.ClientError if it is refused."""
        return await self.http.ws_connect(self.host.websocket_url + path, autoping=False)

    async def get(self, path: str) -> tuple[int, Any, dict[str, str]]:
        async with self.http.get(self.host.rest_url + path) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else None, dict(answer.headers)


@asynccontextmanager
async def futures(**options: Any) -> AsyncIterator[Futures]:
    """A quiet market of spot, a perpetual, a dated contract, and what COIN-M lists."""
    config = EmulatorConfig(
        venues=("binance_usdm",),
        rate=0,
        seed=7,
        instruments=("BTC-USDT-PERP", "BTC-USDT", "BTC-USDT-20261225", "BTC-USD-PERP@BTC", "BTC-USD-PERP"),
        options={"binance_usdm": options},
    )
    async with EmulatorServer(config) as server, aiohttp.ClientSession() as http:
        yield Futures(server, http)


async def ask(socket: aiohttp.ClientWebSocketResponse, request: Any) -> Any:
    """Send a request; the next text frame that is no data."""
    await socket.send_str(request if isinstance(request, str) else json.dumps(request))
    while True:
        message = await receive(socket)
        if "stream" not in message and "e" not in message:
            return message


async def receive(socket: aiohttp.ClientWebSocketResponse) -> Any:
    """The next text frame, decoded."""
    while (message := await socket.receive()).type is not TEXT:
        assert message.type is not CLOSE, message
    return json.loads(message.data)


async def collect(venue: Futures, path: str, steps: int, count: int) -> list[Any]:
    """So many messages of a path, while the market makes steps."""
    socket = await venue.connect(path)
    await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
    venue.server.advance(steps)
    return [await receive(socket) for _ in range(count)]


# ---- paths ------------------------------------------------------------------------------------------------

BOTH = f"/stream?streams={NAME}@bookTicker/{NAME}@aggTrade"


@pytest.mark.parametrize(
    ("path", "delivered"),
    [
        (f"/public{BOTH}", {"bookTicker"}),
        (f"/market{BOTH}", {"aggTrade"}),
        (BOTH, {"bookTicker"}),  # retired in April 2026: opens, acknowledges, delivers what is public
    ],
)
def test_path_delivers_its_own_streams_and_acknowledges_all(path: str, delivered: set[str]) -> None:
    async def main() -> None:
        async with futures() as venue:
            socket = await venue.connect(path)
            names = [f"{NAME}@aggTrade", f"{NAME}@bookTicker"]
            assert await ask(socket, {"method": "SUBSCRIBE", "params": names, "id": 5}) == {"result": None, "id": 5}
            answer = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 6})
            assert sorted(answer["result"]) == names
            venue.server.advance(300)
            seen = {(await receive(socket))["stream"].split("@")[1] for _ in range(20)}
            assert seen == delivered

    run(main())


def test_demo_host_delivers_everything_without_a_route() -> None:
    async def main() -> None:
        async with futures(demo_host=True) as venue:
            messages = await collect(venue, BOTH, 300, 60)
            assert {message["stream"].split("@")[1] for message in messages} == {"bookTicker", "aggTrade"}

    run(main())


@pytest.mark.parametrize("path", ["/private/ws/x", "/public/nonsense", "/publicstream", "/"])
def test_other_paths_are_not_found(path: str) -> None:
    async def main() -> None:
        async with futures() as venue:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await venue.connect(path)
            assert refused.value.status == 404

    run(main())


@pytest.mark.parametrize("name", ["BTCUSDT@depth", "nosuch@depth", f"{NAME}@depht"])
def test_misspelt_stream_is_acknowledged_and_silent(name: str) -> None:
    async def main() -> None:
        async with futures() as venue:
            socket = await venue.connect("/public/ws")
            assert await ask(socket, {"method": "SUBSCRIBE", "params": [name], "id": "a"}) == {
                "result": None,
                "id": "a",
            }
            venue.server.advance(50)
            assert await ask(socket, {"method": "UNSUBSCRIBE", "params": [name], "id": 2}) == {"result": None, "id": 2}

    run(main())


# ---- requests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_text", "code", "has_id"),
    [
        ("{", 3, False),
        ("[]", 2, False),
        ('{"method":"DANCE","id":4}', 2, True),
        ('{"params":[],"id":4}', 2, True),
        ('{"method":"SUBSCRIBE","params":"x","id":4}', 2, True),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":4}', 1, True),
        ('{"method":"GET_PROPERTY","params":["nosuch"],"id":4}', 0, True),
    ],
)
def test_bad_request_is_answered_by_an_error_and_the_socket_stays_open(
    request_text: str, code: int, has_id: bool
) -> None:
    async def main() -> None:
        async with futures() as venue:
            socket = await venue.connect("/market/ws")
            answer = await ask(socket, request_text)
            assert answer["error"]["code"] == code and answer["error"]["msg"]
            assert answer.get("id") == (4 if has_id else None)
            assert (await ask(socket, {"method": "GET_PROPERTY", "params": ["combined"], "id": 1}))["result"] is False

    run(main())


def test_too_many_messages_in_a_second_cost_the_connection() -> None:
    async def main() -> None:
        async with futures(messages_per_second=3) as venue:
            socket = await venue.connect("/public/ws")
            for number in range(4):
                await socket.send_str(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
            answers = [(await socket.receive()) for _ in range(4)]
            assert [answer.type for answer in answers] == [TEXT] * 3 + [CLOSE]
            assert answers[-1].data == 1008

    run(main())


def test_too_many_streams_are_refused() -> None:
    async def main() -> None:
        async with futures(max_streams=2) as venue:
            socket = await venue.connect("/public/ws")
            answer = await ask(socket, {"method": "SUBSCRIBE", "params": ["a", "b", "c"], "id": 1})
            assert answer == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 1}

    run(main())


@pytest.mark.parametrize("answers", [True, False])
def test_who_does_not_answer_pings_is_cut(answers: bool) -> None:
    async def main() -> None:
        timeout_s = 0.7 if answers else 0.2  # so long that a busy machine answers in time, and shorter than 20 pings
        async with futures(ping_interval_s=0.05, pong_timeout_s=timeout_s, messages_per_second=1000) as venue:
            socket = await venue.connect("/public/ws")
            pings = 0
            while (message := await socket.receive()).type is aiohttp.WSMsgType.PING and pings < 20:
                pings += 1
                if answers:
                    await socket.pong(message.data)
            assert (pings == 20) is answers
            assert answers or (message.type is CLOSE and message.data == 1008)

    run(main())


# ---- what is sent -----------------------------------------------------------------------------------------


async def rebuilt(venue: Futures, path: str, depth_path: str, name: str) -> None:
    """The venue's own recipe leads to the true book; pu chains, and the ids of the engine skip."""
    book, emulator = venue.host.emulator.book_of(name), venue.host.emulator
    socket = await venue.connect(path)
    await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
    deltas: list[Any] = []

    async def until_sent() -> None:
        while not deltas or deltas[-1]["u"] < engine_id(book.update_id):
            deltas.append((await receive(socket))["data"])

    for _ in range(2):
        venue.server.advance(100)
        await until_sent()
    venue.server.advance(100)
    _, snapshot, _ = await venue.get(depth_path)  # amid a window
    for _ in range(3):
        venue.server.advance(100)
        await until_sent()
    last = snapshot["lastUpdateId"]
    kept = [delta for delta in deltas if delta["u"] >= last]
    assert len(deltas) > len(kept) > 1 and kept[0]["U"] <= last <= kept[0]["u"]
    for before, after in pairwise(deltas):
        assert after["pu"] == before["u"] and after["U"] > before["u"] + 1
    assert all(delta["T"] <= delta["E"] for delta in deltas)
    sides = {"b": dict(snapshot["bids"]), "a": dict(snapshot["asks"])}
    for delta in kept:
        for key in ("b", "a"):
            for price, size in delta[key]:
                sides[key][price] = size
                if Decimal(size) == 0:
                    del sides[key][price]
    _, bids, asks = book.depth()
    for key, levels in (("b", bids), ("a", asks)):
        assert sides[key] == dict(emulator.level_text(book, level) for level in levels)


def engine_id(update_id: int) -> int:
    """What the venue tells of a book's own count."""
    return update_id * 13 + update_id * update_id * 7 % 11


def test_diffs_chain_by_pu_and_lead_with_the_snapshot_to_the_true_book() -> None:
    async def main() -> None:
        async with futures() as venue:
            stream = f"/public/stream?streams={NAME}@depth@100ms"
            await rebuilt(venue, stream, "/fapi/v1/depth?symbol=BTCUSDT&limit=1000", "BTCUSDT")

    run(main())


def test_coin_margined_books_are_kept_by_the_same_recipe_without_routes() -> None:
    async def main() -> None:
        async with futures(coin_margined=True) as venue:
            stream = "/stream?streams=btcusd_perp@depth@100ms"
            await rebuilt(venue, stream, "/dapi/v1/depth?symbol=BTCUSD_PERP&limit=1000", "BTCUSD_PERP")
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await venue.connect("/public/ws")

    run(main())


def test_diff_has_the_documented_keys_and_deletes_with_the_decimals_of_the_symbol() -> None:
    async def main() -> None:
        async with futures() as venue:
            deltas = await collect(venue, f"/public/ws/{NAME}@depth@100ms", 2000, 1)
            assert list(deltas[0]) == ["e", "E", "T", "s", "U", "u", "pu", "b", "a", "ps", "st"]
            assert (deltas[0]["e"], deltas[0]["s"], deltas[0]["st"]) == ("depthUpdate", "BTCUSDT", 1)
            sizes = [size for side in ("b", "a") for _, size in deltas[0][side]]
            assert all(DECIMAL.fullmatch(size) for size in sizes) and "0.000" in sizes

    run(main())


def test_partial_book_is_whole_and_has_the_shape_of_a_diff() -> None:
    async def main() -> None:
        async with futures() as venue:
            (partial,) = await collect(venue, f"/public/stream?streams={NAME}@depth5@100ms", 300, 1)
            book, emulator = venue.host.emulator.book_of("BTCUSDT"), venue.host.emulator
            _, bids, asks = book.depth(5)
            assert partial["stream"] == f"{NAME}@depth5@100ms" and partial["data"]["e"] == "depthUpdate"
            assert partial["data"]["b"] == [emulator.level_text(book, level) for level in bids]
            assert partial["data"]["a"] == [emulator.level_text(book, level) for level in asks]

    run(main())


def test_quotes_have_times_and_are_the_best_of_the_book() -> None:
    async def main() -> None:
        async with futures() as venue:
            quotes = await collect(venue, f"/public/ws/{NAME}@bookTicker", 200, 20)
            for quote in quotes:
                assert list(quote) == ["e", "u", "s", "ps", "b", "B", "a", "A", "T", "E", "st"]
                assert quote["T"] <= quote["E"] and Decimal(quote["b"]) < Decimal(quote["a"])
            assert all(before["u"] < after["u"] for before, after in pairwise(quotes))

    run(main())


def test_single_trades_count_placeholders_too_and_aggregates_merge_the_others() -> None:
    async def main() -> None:
        async with futures(demo_host=True) as venue:
            messages = await collect(venue, f"/stream?streams={NAME}@trade/{NAME}@aggTrade", 3000, 500)
            singles = [one["data"] for one in messages if one["stream"].endswith("@trade")]
            merged = [one["data"] for one in messages if one["stream"].endswith("@aggTrade")]
            assert all(after["t"] == before["t"] + 1 for before, after in pairwise(singles))
            assert {one["X"] for one in singles} == {"MARKET", "RPI", "NA"}
            assert all(one["p"] == one["q"] == "0" for one in singles if one["X"] == "NA")
            by_id = {one["t"]: one for one in singles}
            assert all(after["a"] == before["a"] + 1 for before, after in pairwise(merged))
            assert any(one["f"] < one["l"] for one in merged)
            for one in merged[:-1]:
                assert list(one) == ["e", "E", "a", "s", "p", "q", "nq", "f", "l", "T", "m", "st"]
                parts = [by_id[number] for number in range(one["f"], one["l"] + 1)]
                assert sum(Decimal(part["q"]) for part in parts) == Decimal(one["q"])
                seen = sum(Decimal(part["q"]) for part in parts if part["X"] == "MARKET")
                assert seen == Decimal(one["nq"]) and {part["m"] for part in parts} == {one["m"]}

    run(main())


def test_mark_price_beats_while_nothing_moves_and_dated_contracts_pay_no_funding() -> None:
    async def main() -> None:
        async with futures() as venue:
            names = f"{NAME}@markPrice@1s/{NAME}_261225@markPrice@1s"
            marks = [one["data"] for one in await collect(venue, f"/market/stream?streams={names}", 0, 4)]
            assert [one["s"] for one in marks] == ["BTCUSDT", "BTCUSDT_261225"] * 2
            assert list(marks[0]) == ["e", "E", "s", "p", "ap", "P", "i", "r", "T", "st"]
            assert marks[2]["E"] - marks[0]["E"] >= 900
            assert Decimal(marks[0]["r"]).is_finite() and marks[0]["T"] > marks[0]["E"]
            assert (marks[1]["r"], marks[1]["T"]) == ("", 0)

    run(main())


def test_of_the_liquidations_of_a_second_the_largest_is_told() -> None:
    async def main() -> None:
        async with futures() as venue:
            (told,) = await collect(venue, f"/market/ws/{NAME}@forceOrder", 3000, 1)
            order = told["o"]
            assert list(order) == ["s", "S", "o", "f", "q", "p", "ap", "X", "l", "z", "T", "ps", "st"]
            assert told["E"] - order["T"] >= 900
            book = venue.host.emulator.book_of("BTCUSDT")
            runs: dict[int, int] = {}
            for trade in book.trades:
                if trade.run % 50 == 0:
                    runs[trade.run] = runs.get(trade.run, 0) + trade.size
            assert len(runs) > 1 and Decimal(order["q"]) == Decimal(max(runs.values())).scaleb(book.spec.size_exponent)

    run(main())


# ---- REST -------------------------------------------------------------------------------------------------


def test_list_of_contracts_has_what_is_needed_to_name_them() -> None:
    async def main() -> None:
        async with futures() as venue:
            status, info, headers = await venue.get("/fapi/v1/exchangeInfo")
            assert status == 200 and headers["X-MBX-USED-WEIGHT-1M"] == "1"
            rows = {row["symbol"]: row for row in info["symbols"]}
            assert list(rows) == ["BTCUSDT", "BTCUSDT_261225"]
            dated = rows["BTCUSDT_261225"]
            assert (dated["contractType"], dated["deliveryDate"]) == ("CURRENT_QUARTER", 1_798_185_600_000)
            assert (rows["BTCUSDT"]["contractType"], rows["BTCUSDT"]["marginAsset"]) == ("PERPETUAL", "USDT")
            filters = {rule["filterType"]: rule for rule in rows["BTCUSDT"]["filters"]}
            assert (filters["PRICE_FILTER"]["tickSize"], filters["LOT_SIZE"]["stepSize"]) == ("0.1", "0.001")

    run(main())


def test_coin_margined_list_counts_contracts() -> None:
    async def main() -> None:
        async with futures(coin_margined=True) as venue:
            _, info, _ = await venue.get("/dapi/v1/exchangeInfo")
            (row,) = info["symbols"]
            assert (row["symbol"], row["contractStatus"], row["contractSize"]) == ("BTCUSD_PERP", "TRADING", 10)
            assert "status" not in row and (row["marginAsset"], row["quoteAsset"]) == ("BTC", "USD")
            assert (await venue.get("/fapi/v1/exchangeInfo"))[0] == 404

    run(main())


@pytest.mark.parametrize(
    ("call", "weight"),
    [
        ("depth?symbol=BTCUSDT&limit=50", 2),
        ("depth?symbol=BTCUSDT&limit=100", 5),
        ("depth?symbol=BTCUSDT", 10),
        ("depth?symbol=BTCUSDT&limit=1000", 20),
        ("openInterest?symbol=BTCUSDT", 1),
        ("premiumIndex?symbol=BTCUSDT", 1),
        ("premiumIndex", 10),
        ("fundingInfo", 0),
    ],
)
def test_calls_cost_what_is_documented(call: str, weight: int) -> None:
    async def main() -> None:
        async with futures() as venue:
            status, _, headers = await venue.get(f"/fapi/v1/{call}")
            assert (status, headers["X-MBX-USED-WEIGHT-1M"]) == (200, str(weight))

    run(main())


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("depth?symbol=NOSUCH", -1121),
        ("depth?symbol=BTCUSDT&limit=7", -1130),
        ("depth?symbol=BTCUSDT&limit=x", -1130),
        ("openInterest", -1102),
    ],
)
def test_bad_calls_are_answered_by_an_error(call: str, code: int) -> None:
    async def main() -> None:
        async with futures() as venue:
            status, body, _ = await venue.get(f"/fapi/v1/{call}")
            assert (status, body["code"]) == (400, code) and body["msg"]

    run(main())


def test_open_interest_and_premium_index_have_the_documented_keys() -> None:
    async def main() -> None:
        async with futures() as venue:
            _, interest, _ = await venue.get("/fapi/v1/openInterest?symbol=BTCUSDT")
            assert list(interest) == ["openInterest", "symbol", "time"]
            assert DECIMAL.fullmatch(interest["openInterest"])
            _, every, _ = await venue.get("/fapi/v1/premiumIndex")
            assert [(one["symbol"], one["lastFundingRate"] == "") for one in every] == [
                ("BTCUSDT", False),
                ("BTCUSDT_261225", True),
            ]

    run(main())


def test_who_spends_more_than_the_budget_is_told_to_wait_and_then_banned() -> None:
    async def main() -> None:
        async with futures(weight_per_minute=20, strikes_before_ban=1) as venue:
            seen = [await venue.get("/fapi/v1/depth?symbol=BTCUSDT&limit=1000") for _ in range(3)]
            assert [status for status, _, _ in seen] == [200, 429, 418]
            assert all(int(headers["Retry-After"]) > 0 for _, _, headers in seen[1:])
            assert {body["code"] for _, body, _ in seen[1:]} == {-1003}

    run(main())


def test_stale_snapshots_are_as_old_as_the_fault_wants() -> None:
    async def main() -> None:
        async with futures() as venue:
            venue.server.advance(500)
            _, now, _ = await venue.get("/fapi/v1/depth?symbol=BTCUSDT")
            venue.host.inject(Fault(fault=FaultKind.STALE_SNAPSHOT, count=1, lag=100))
            _, stale, _ = await venue.get("/fapi/v1/depth?symbol=BTCUSDT")
            assert 100 * 13 - 11 < now["lastUpdateId"] - stale["lastUpdateId"] < 100 * 13 + 11

    run(main())
