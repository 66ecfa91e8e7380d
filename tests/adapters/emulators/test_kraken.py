"""The emulated Kraken over real sockets, held against the venue's documentation; no code of our adapter."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from mdring.emulator.faults import Fault, FaultKind
from mdring.emulator.host import VenueHost
from mdring.emulator.market import Change
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from mdring.record import Side
from tests.emulator.bench import run

TEXT, CLOSE = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
BTC = "BTC/USD"


class Number(str):
    """A JSON number as it is written."""


class Kraken:
    """The server, and one socket of a client."""

    def __init__(self, server: EmulatorServer, http: aiohttp.ClientSession, socket: Any) -> None:
        self.server = server
        self.http = http
        self.socket = socket

    @property
    def host(self) -> VenueHost:
        return self.server.venues["kraken"]

    async def send(self, request: Any) -> None:
        await self.socket.send_str(request if isinstance(request, str) else json.dumps(request))

    async def ask(self, method: str, channel: str, *symbols: str, number: int = 7, **params: Any) -> None:
        params = {"channel": channel, **({"symbol": symbols} if symbols else {}), **params}
        await self.send({"method": method, "params": params, "req_id": number})

    async def subscribe(self, channel: str, *symbols: str, **params: Any) -> None:
        await self.ask("subscribe", channel, *(symbols or (BTC,)), **params)

    async def receive(self) -> Any:
        """The next message, decoded, but for heartbeats."""
        while True:
            message = await self.socket.receive()
            assert message.type is TEXT, message
            if message.data != '{"channel":"heartbeat"}':
                return json.loads(message.data, parse_float=Number)

    async def row(self, channel: str, kind: str = "update") -> Any:
        """The one row of the next message of a channel."""
        while True:
            message = await self.receive()
            if message.get("channel") == channel and message["type"] == kind:
                (row,) = message["data"]
                return row

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(self.host.rest_url + path) as answer:
            return answer.status, json.loads(await answer.read())


@asynccontextmanager
async def kraken(*, rate: float = 0, **options: Any) -> AsyncIterator[Kraken]:
    """A quiet market of two spot pairs and a contract; the first message, the status, has been read."""
    config = EmulatorConfig(
        venues=("kraken",),
        rate=rate,
        seed=7,
        instruments=("BTC-USD", "DOGE-USDT", "BTC-USDT-PERP"),
        options={"kraken": options},
    )
    async with (
        EmulatorServer(config) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(server.venues["kraken"].websocket_url + "/v2") as socket,
    ):
        venue = Kraken(server, http, socket)
        status = await venue.receive()
        assert (status["channel"], status["type"], status["data"][0]["system"]) == ("status", "update", "online")
        assert status["data"][0]["connection_id"] > 2**63
        yield venue


def checksum(bids: Sequence[tuple[str, str]], asks: Sequence[tuple[str, str]]) -> int:
    """As the guide has it, of levels as they are written, best first."""
    digits = [number.replace(".", "").lstrip("0") for level in (*asks[:10], *bids[:10]) for number in level]
    return zlib.crc32("".join(digits).encode())


class Follower:
    """A client's book: absolute sizes, cut to the depth after each message."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.sides: dict[str, dict[str, str]] = {"bids": {}, "asks": {}}
        self.deleted = 0

    def levels(self, side: str) -> list[tuple[str, str]]:
        return sorted(self.sides[side].items(), key=lambda level: Decimal(level[0]), reverse=side == "bids")

    def apply(self, row: Any) -> None:
        assert list(row) == ["symbol", "bids", "asks", "checksum", "timestamp"] and TIME.fullmatch(row["timestamp"])
        for side, levels in self.sides.items():
            for level in row[side]:
                assert re.fullmatch(r"\d+\.\d\d", level["price"]) and re.fullmatch(r"\d+\.\d{8}", level["qty"])
                levels[level["price"]] = level["qty"]
                if Decimal(level["qty"]) == 0:
                    self.deleted += 1
                    del levels[level["price"]]
            for price, _ in self.levels(side)[self.depth :]:
                del levels[price]
        assert row["checksum"] == checksum(self.levels("bids"), self.levels("asks"))


def test_each_symbol_is_acknowledged_before_its_snapshot_and_an_unknown_one_is_refused_by_itself() -> None:
    async def main() -> None:
        async with kraken() as venue:
            await venue.subscribe("book", BTC, "BTC/INVALID", "DOGE/USDT", depth=10)
            first, snapshot, refused, second = [await venue.receive() for _ in range(4)]
            assert list(first) == ["method", "req_id", "result", "success", "time_in", "time_out"]
            assert (first["method"], first["req_id"], first["success"]) == ("subscribe", 7, True)
            assert first["result"] == {"channel": "book", "snapshot": True, "depth": 10, "symbol": BTC}
            assert TIME.fullmatch(first["time_in"]) and TIME.fullmatch(first["time_out"])
            assert (snapshot["channel"], snapshot["type"], snapshot["data"][0]["symbol"]) == ("book", "snapshot", BTC)
            assert refused["error"] == "Currency pair not supported BTC/INVALID"
            assert (refused["success"], refused["method"], refused["req_id"]) == (False, "subscribe", 7)
            assert "result" not in refused and second["result"]["symbol"] == "DOGE/USDT"

    run(main())


@pytest.mark.parametrize(
    ("request_text", "error"),
    [
        ("{", "Malformed"),
        ('["subscribe"]', "Malformed"),
        ('{"method":"subscribe","req_id":"1"}', "req_id"),
        ('{"method":"subscribe"}', "no params"),
        ('{"method":"dance","params":{}}', "dance"),
        ('{"method":"subscribe","params":{"channel":"status"}}', "not found"),
        ('{"method":"subscribe","params":{"channel":"level3","symbol":["BTC/USD"]}}', "level3"),
        ('{"method":"subscribe","params":{"channel":"book","symbol":"BTC/USD"}}', "symbol"),
        ('{"method":"subscribe","params":{"channel":"book","symbol":["BTC/USD"],"depth":11}}', "depth"),
        ('{"method":"subscribe","params":{"channel":"ticker","symbol":["BTC/USD"],"event_trigger":"x"}}', "trigger"),
        ('{"method":"subscribe","params":{"channel":"trade","symbol":["XBT/USD"]}}', "not supported XBT/USD"),
        ('{"method":"subscribe","params":{"channel":"trade","symbol":["BTC/USDT-PERP"]}}', "not supported"),
        ('{"method":"unsubscribe","params":{"channel":"trade","symbol":["BTC/USD"]}}', "Subscription Not Found"),
    ],
)
def test_request_that_is_none_is_answered_by_an_error_and_the_socket_stays_open(request_text: str, error: str) -> None:
    async def main() -> None:
        async with kraken() as venue:
            await venue.send(request_text)
            answer = await venue.receive()
            assert answer["success"] is False and error in answer["error"]
            await venue.send({"method": "ping", "req_id": 101})
            pong = await venue.receive()
            assert list(pong) == ["method", "req_id", "time_in", "time_out"]
            assert (pong["method"], pong["req_id"]) == ("pong", 101)

    run(main())


@pytest.mark.parametrize("depth", [10, 25, 1000])
def test_books_cut_to_their_depth_are_the_true_ones_with_a_checksum_each(depth: int) -> None:
    async def main() -> None:
        async with kraken() as venue:
            await venue.subscribe("book", depth=depth)
            follower, book = Follower(depth), venue.host.emulator.book_of(BTC)
            follower.apply(await venue.row("book", "snapshot"))
            assert len(follower.sides["bids"]) == min(depth, len(book.bids))

            def truth(limit: int) -> list[list[tuple[Any, ...]]]:
                _, bids, asks = book.depth(limit)
                return [[tuple(venue.host.emulator.level_text(book, level)) for level in side] for side in (bids, asks)]

            for _ in range(40):
                venue.server.advance(10)
                while [follower.levels("bids"), follower.levels("asks")] != truth(depth):
                    follower.apply(await venue.row("book"))
            assert follower.deleted

    run(main())


def test_level_that_leaves_the_window_is_not_deleted_and_comes_back_as_new() -> None:
    async def main() -> None:
        async with kraken() as venue:
            await venue.subscribe("book", depth=10)
            snapshot = await venue.row("book", "snapshot")
            worst, book = snapshot["bids"][-1], venue.host.emulator.book_of(BTC)
            price = book.bids.best + 1
            assert price < book.asks.best
            seen = []
            for size in (5, 0):
                change = Change(book.index, book.apply(Side.BID, price, size), Side.BID, price, size)
                venue.host.emulator.on_events([change])
                seen.append(await venue.row("book"))
            text = venue.host.emulator.level_text(book, (price, 5))
            assert [row["bids"] for row in seen] == [
                [{"price": text[0], "qty": text[1]}],
                [{"price": text[0], "qty": "0.00000000"}, worst],
            ]

    run(main())


def test_unsubscribing_must_name_the_depth_then_a_snapshot_comes_again() -> None:
    async def main() -> None:
        async with kraken() as venue:
            await venue.subscribe("book", depth=25, snapshot=False)
            assert (await venue.receive())["result"]["snapshot"] is False
            await venue.subscribe("book", depth=25)
            assert "Already subscribed" in (await venue.receive())["error"]
            await venue.ask("unsubscribe", "book", BTC)
            assert "Subscription Not Found" in (await venue.receive())["error"]
            await venue.ask("unsubscribe", "book", BTC, depth=25)
            ended = await venue.receive()
            assert (ended["method"], ended["success"]) == ("unsubscribe", True)
            assert ended["result"] == {"channel": "book", "depth": 25, "symbol": BTC}
            venue.server.advance(200)
            await venue.subscribe("book", depth=25)
            assert (await venue.receive())["method"] == "subscribe"
            assert (await venue.receive())["type"] == "snapshot"

    run(main())


def test_trades_are_the_fills_of_an_order_in_one_message_with_consecutive_ids() -> None:
    async def main() -> None:
        async with kraken() as venue:
            await venue.subscribe("trade")
            assert (await venue.receive())["result"] == {"channel": "trade", "snapshot": False, "symbol": BTC}
            book = venue.host.emulator.book_of(BTC)
            last, sizes, fills = book.trade_id, set(), []
            venue.server.advance(400)
            while last < book.trade_id:
                message = await venue.receive()
                assert (message["channel"], message["type"]) == ("trade", "update")
                sizes.add(len(message["data"]))
                for row in message["data"]:
                    assert list(row) == ["symbol", "side", "price", "qty", "ord_type", "trade_id", "timestamp"]
                    last += 1
                    fills.append((row["trade_id"], row["side"], [row["price"], row["qty"]]))
            assert fills == [
                (
                    trade.trade_id,
                    "sell" if trade.aggressor == 2 else "buy",
                    venue.host.emulator.level_text(book, (trade.price, trade.size)),
                )
                for trade in book.trades
            ]
            assert last == book.trade_id and {1, 2} <= sizes

    run(main())


def test_history_is_the_last_50_trades_oldest_first_and_none_without_any() -> None:
    async def main() -> None:
        async with kraken() as venue:
            await venue.subscribe("trade", "DOGE/USDT", snapshot=True)
            await venue.receive()
            await venue.send({"method": "ping"})
            assert (await venue.receive())["method"] == "pong"
            venue.server.advance(2000)
            await venue.subscribe("trade", BTC, snapshot=True)
            while (message := await venue.receive())["type" if "type" in message else "method"] != "snapshot":
                continue
            last = venue.host.emulator.book_of(BTC).trade_id
            assert [row["trade_id"] for row in message["data"]] == list(range(last - 49, last + 1))

    run(main())


def test_ticker_tells_the_top_of_the_book_at_its_trigger() -> None:
    async def main() -> None:
        async with kraken() as venue:
            book = venue.host.emulator.book_of(BTC)
            await venue.subscribe("ticker", event_trigger="bbo")
            assert (await venue.receive())["result"]["event_trigger"] == "bbo"
            row = await venue.row("ticker", "snapshot")
            quotes = 0
            for _ in range(100):
                bid, ask = (venue.host.emulator.level_text(book, side[0]) for side in book.depth(1)[1:])
                assert [row[name] for name in ("bid", "bid_qty", "ask", "ask_qty")] == [*bid, *ask]
                before = book.top()
                venue.server.advance(1)
                if book.top() != before:
                    row = await venue.row("ticker")
                    quotes += 1
            assert quotes > 10

    run(main())


def test_ticker_of_trades_is_silent_without_any() -> None:
    async def main() -> None:
        async with kraken() as venue:
            book = venue.host.emulator.book_of(BTC)
            await venue.subscribe("ticker")
            assert (await venue.receive())["result"]["event_trigger"] == "trades"
            await venue.row("ticker", "snapshot")
            while not book.trades:
                venue.server.advance(1)
            last = await venue.row("ticker")
            assert last["last"] == venue.host.emulator.level_text(book, (book.trades[-1].price, 1))[0]

    run(main())


def test_instrument_tells_every_pair_and_asset_as_an_object() -> None:
    async def main() -> None:
        async with kraken() as venue:
            await venue.ask("subscribe", "instrument")
            answer, message = await venue.receive(), await venue.receive()
            assert answer["result"]["warnings"] and "symbol" not in answer["result"]
            data = message["data"]
            assert {asset["id"] for asset in data["assets"]} == {"BTC", "USD", "DOGE", "USDT"}
            btc, doge = data["pairs"]
            assert (btc["symbol"], btc["status"], btc["price_precision"], btc["qty_precision"]) == (BTC, "online", 2, 8)
            assert (doge["symbol"], doge["price_precision"], doge["qty_increment"]) == ("DOGE/USDT", 5, "1e-08")
            await venue.ask("unsubscribe", "instrument")
            assert (await venue.receive())["success"] is True

    run(main())


def test_heartbeats_come_while_nothing_else_does_once_anything_is_subscribed_to() -> None:
    async def main() -> None:
        async with kraken(heartbeat_s=0.05, idle_s=0.3) as venue:
            await venue.subscribe("trade")
            assert json.loads((await venue.socket.receive()).data)["method"] == "subscribe"
            for _ in range(10):  # longer than what is cut without a subscription
                assert (await venue.socket.receive()).data == '{"channel":"heartbeat"}'

    run(main())


def test_who_subscribes_to_nothing_and_is_silent_is_cut_without_a_heartbeat() -> None:
    async def main() -> None:
        async with kraken(heartbeat_s=0.01, idle_s=0.2) as venue:
            message = await venue.socket.receive()
            assert message.type is CLOSE and venue.socket.close_code == 1001

    run(main())


def test_too_many_messages_are_refused_by_text_and_too_many_connections_by_status() -> None:
    async def main() -> None:
        async with kraken(messages_per_second=2, connections_per_10min=2) as venue:
            for _ in range(3):
                await venue.send({"method": "ping"})
            answers = [await venue.receive() for _ in range(3)]
            assert [answer.get("error") for answer in answers] == [None, None, "Exceeded msg rate"]
            url = venue.host.websocket_url
            async with venue.http.ws_connect(url + "/v2"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await venue.http.ws_connect(url + "/v2")
                assert refused.value.status == 429
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await venue.http.ws_connect(url + "/v1")
            assert refused.value.status == 404

    run(main())


def test_shutdown_is_announced_as_maintenance_of_the_engine() -> None:
    async def main() -> None:
        async with kraken() as venue:
            venue.host.inject(Fault(fault=FaultKind.SHUTDOWN_NOTICE))
            assert (await venue.row("status"))["system"] == "maintenance"

    run(main())


# ---- REST -------------------------------------------------------------------------------------------------


def test_list_of_pairs_has_the_names_of_old_and_dark_pools_without_one_of_the_socket() -> None:
    async def main() -> None:
        async with kraken() as venue:
            status, answer = await venue.get("/0/public/AssetPairs")
            assert (status, answer["error"]) == (200, [])
            rows = answer["result"]
            assert list(rows) == ["XXBTZUSD", "XXBTZUSD.d", "XDGUSDT"]
            btc, doge = rows["XXBTZUSD"], rows["XDGUSDT"]
            assert (btc["altname"], btc["wsname"], btc["base"], btc["quote"]) == ("XBTUSD", "XBT/USD", "XXBT", "ZUSD")
            assert (btc["pair_decimals"], btc["lot_decimals"], btc["tick_size"]) == (2, 8, "0.01")
            assert (doge["wsname"], doge["base"], doge["quote"]) == ("XDG/USDT", "XXDG", "USDT")
            assert "wsname" not in rows["XXBTZUSD.d"]
            assert list((await venue.get("/0/public/AssetPairs?pair=XDG/USDT"))[1]["result"]) == ["XDGUSDT"]

    run(main())


def test_depth_and_trades_are_those_of_the_market() -> None:
    async def main() -> None:
        async with kraken() as venue:
            venue.server.advance(300)
            book, text = venue.host.emulator.book_of(BTC), venue.host.emulator.level_text
            _, answer = await venue.get("/0/public/Depth?pair=XBTUSD&count=3")
            depth = answer["result"]["XXBTZUSD"]
            for side, levels in (("bids", book.bids.levels(3)), ("asks", book.asks.levels(3))):
                assert [row[:2] for row in depth[side]] == [text(book, level) for level in levels]
            _, answer = await venue.get("/0/public/Trades?pair=XXBTZUSD&since=0")
            rows = answer["result"]["XXBTZUSD"]
            assert [row[6] for row in rows] == [trade.trade_id for trade in book.trades]
            assert {row[3] for row in rows} == {"b", "s"}
            assert answer["result"]["last"] == str(book.trades[-1].ts_event)
            assert (await venue.get("/0/public/SystemStatus"))[1]["result"]["status"] == "online"
            assert (await venue.get("/0/public/Time"))[1]["result"]["unixtime"] > 0

    run(main())


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/0/public/Depth?pair=NOSUCH", 200, "EQuery:Unknown asset pair"),
        ("/0/public/Depth?pair=XBTUSD&count=0", 200, "EGeneral:Invalid arguments:count"),
        ("/0/public/Trades?pair=XBTUSD&since=x", 200, "EGeneral:Invalid arguments:since"),
        ("/0/public/Nothing", 404, "EGeneral:Unknown method"),
        ("/1/public/Time", 404, "EGeneral:Unknown method"),
    ],
)
def test_wrong_call_is_answered_by_its_error(path: str, status: int, error: str) -> None:
    async def main() -> None:
        async with kraken() as venue:
            assert await venue.get(path) == (status, {"error": [error]})

    run(main())


def test_too_many_calls_are_refused_with_http_200() -> None:
    async def main() -> None:
        async with kraken(rest_calls_per_10s=2) as venue:
            answers = [await venue.get("/0/public/Time") for _ in range(3)]
            assert [status for status, _ in answers] == [200] * 3
            assert [answer["error"] for _, answer in answers] == [[], [], ["EAPI:Rate limit exceeded"]]

    run(main())
