"""The emulated Bybit over real sockets, held against the venue's documentation; no code of our adapter."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any
from uuid import UUID

import aiohttp
import pytest

from mdring.emulator.derivatives import LIQUIDATIONS
from mdring.emulator.host import VenueHost
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from mdring.record import Aggressor
from tests.emulator.bench import run

TEXT = aiohttp.WSMsgType.TEXT
PLAIN = re.compile(r"0|[1-9]\d*|(0|[1-9]\d*)\.\d*[1-9]")
SPOT, LINEAR = "BTCUSDT-SPOT", "BTCUSDT-LINEAR"


class Bybit:
    """The server, and one socket of a client."""

    def __init__(self, server: EmulatorServer, http: aiohttp.ClientSession, socket: Any) -> None:
        self.server = server
        self.http = http
        self.socket = socket

    @property
    def host(self) -> VenueHost:
        return self.server.venues["bybit"]

    async def send(self, request: Any) -> None:
        await self.socket.send_str(request if isinstance(request, str) else json.dumps(request))

    async def subscribe(self, *topics: str, op: str = "subscribe") -> Any:
        """Ask, and wait for the answer; data before it is lost."""
        await self.send({"req_id": "7", "op": op, "args": topics})
        while True:
            message = await self.receive()
            if message.get("op") == op:
                return message

    async def receive(self) -> Any:
        """The next message, decoded."""
        message = await self.socket.receive()
        assert message.type is TEXT, message
        return json.loads(message.data)

    async def push(self, topic: str) -> Any:
        """The next message of a topic."""
        while True:
            message = await self.receive()
            if message.get("topic") == topic:
                return message

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(self.host.rest_url + path) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body.startswith(b"{") else body


@asynccontextmanager
async def bybit(category: str = "linear", **options: Any) -> AsyncIterator[Bybit]:
    """A quiet market of a spot pair and three contracts, and a socket of a category."""
    config = EmulatorConfig(
        venues=("bybit",),
        rate=0,
        seed=7,
        depth=60,
        instruments=("BTC-USDT", "BTC-USDT-PERP", "BTC-USDC-PERP", "BTC-USDT-20261225", "BTC-USD-20261225@BTC"),
        options={"bybit": {"book_interval_s": 0.01, **options}},
    )
    async with (
        EmulatorServer(config) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{server.venues['bybit'].websocket_url}/v5/public/{category}") as socket,
    ):
        yield Bybit(server, http, socket)


def test_request_has_one_answer_that_echoes_its_id_before_the_data() -> None:
    async def main() -> None:
        for category, text in (("spot", "subscribe"), ("linear", "")):
            async with bybit(category) as venue:
                await venue.send({"req_id": "test", "op": "subscribe",
                                  "args": ["publicTrade.BTCUSDT", "orderbook.50.BTCUSDT"]})  # fmt: skip
                answer = await venue.receive()
                assert list(answer) == ["success", "ret_msg", "conn_id", "req_id", "op"] and answer["conn_id"]
                assert (answer["success"], answer["ret_msg"], answer["req_id"]) == (True, text, "test")
                assert answer["op"] == "subscribe"
                snapshot = await venue.receive()
                assert (snapshot["topic"], snapshot["type"]) == ("orderbook.50.BTCUSDT", "snapshot")

    run(main())


def test_pong_has_the_op_of_the_ping() -> None:
    async def main() -> None:
        async with bybit() as venue:
            await venue.send({"req_id": "100001", "op": "ping"})
            pong = await venue.receive()
            assert (pong["op"], pong["ret_msg"], pong["req_id"], pong["success"]) == ("ping", "pong", "100001", True)

    run(main())


@pytest.mark.parametrize(
    ("category", "request_text", "answer_text"),
    [
        ("linear", '{"op":"subscribe","args":["orderbook.50.NOPEUSDT"]}',
         "error:handler not found,topic:orderbook.50.NOPEUSDT"),
        ("linear", '{"op":"subscribe","args":["orderbook.500.BTCUSDT"]}',
         "error:handler not found,topic:orderbook.500.BTCUSDT"),
        ("linear", '{"op":"subscribe","args":["publicTrade.btcusdt"]}',
         "error:handler not found,topic:publicTrade.btcusdt"),
        ("spot", '{"op":"subscribe","args":["tickers.NOPEUSDT"]}', "Invalid symbol :[tickers.NOPEUSDT]"),
        ("spot", '{"op":"subscribe","args":["tickers.BTCPERP"]}', "Invalid symbol :[tickers.BTCPERP]"),
        ("spot", json.dumps({"op": "subscribe", "args": ["publicTrade.BTCUSDT"] * 11}), "args size >10"),
        ("spot", '{"op":"dance"}', "error:invalid op"),
        ("spot", "hello", "Failed to decode incoming data:readObjectStart: expect { or n, but found h"),
    ],
)  # fmt: skip
def test_wrong_request_is_answered_by_an_error_and_the_socket_stays_open(
    category: str, request_text: str, answer_text: str
) -> None:
    async def main() -> None:
        async with bybit(category) as venue:
            await venue.send(request_text)
            answer = await venue.receive()
            assert (answer["success"], answer["ret_msg"]) == (False, answer_text)
            assert (await venue.subscribe("publicTrade.BTCUSDT"))["success"]

    run(main())


def test_one_bad_topic_fails_all_of_its_request_and_contracts_may_have_many() -> None:
    async def main() -> None:
        async with bybit() as venue:
            assert not (await venue.subscribe("orderbook.50.BTCUSDT", "orderbook.50.NOPE"))["success"]
            await venue.send({"op": "ping"})
            assert (await venue.receive())["op"] == "ping"  # and no snapshot before it
            kinds = ("publicTrade", "tickers", "allLiquidation", "orderbook.1", "orderbook.50")
            topics = [f"{kind}.{symbol}" for kind in kinds for symbol in ("BTCUSDT", "BTCPERP", "BTCUSDT-25DEC26")]
            assert len(topics) == 15 and (await venue.subscribe(*topics))["success"]

    run(main())


def test_second_subscription_is_an_error_without_snapshot_and_the_stream_goes_on() -> None:
    async def main() -> None:
        async with bybit() as venue:
            await venue.subscribe("orderbook.50.BTCUSDT")
            first = await venue.push("orderbook.50.BTCUSDT")
            answer = await venue.subscribe("orderbook.50.BTCUSDT")
            assert not answer["success"]
            assert answer["ret_msg"] == "error:already subscribed,topic:orderbook.50.BTCUSDT"
            venue.server.advance(200)
            following = await venue.push("orderbook.50.BTCUSDT")
            assert (following["type"], following["data"]["u"]) == ("delta", first["data"]["u"] + 1)
            assert (await venue.subscribe("orderbook.50.BTCUSDT", op="unsubscribe"))["success"]
            assert (await venue.subscribe("orderbook.50.BTCUSDT"))["success"]
            assert (await venue.receive())["type"] == "snapshot"

    run(main())


def test_topics_of_a_connection_have_a_greatest_length() -> None:
    async def main() -> None:
        async with bybit(topic_characters=30) as venue:
            assert (await venue.subscribe("publicTrade.BTCUSDT"))["success"]
            assert not (await venue.subscribe("orderbook.50.BTCUSDT"))["success"]

    run(main())


@pytest.mark.parametrize(("category", "name"), [("linear", LINEAR), ("spot", SPOT)])
def test_ids_of_a_book_rise_by_one_and_lead_to_the_best_levels(category: str, name: str) -> None:
    async def main() -> None:
        async with bybit(category) as venue:
            topic = "orderbook.50.BTCUSDT"
            await venue.subscribe(topic)
            first = await venue.push(topic)
            keys = (
                ["topic", "type", "ts", "data", "cts"]
                if category == "linear"
                else ["topic", "ts", "type", "data", "cts"]
            )
            assert list(first) == keys and list(first["data"]) == ["s", "b", "a", "u", "seq"]
            sides = {side: dict(first["data"][side]) for side in "ba"}
            assert [len(levels) for levels in sides.values()] == [50, 50]
            book, last, seq, cts = (
                venue.host.emulator.book_of(name),
                first["data"]["u"],
                first["data"]["seq"],
                first["cts"],
            )
            venue.server.advance(500)
            while seq < book.update_id:
                message = await venue.push(topic)
                data = message["data"]
                assert (message["type"], data["u"], data["s"]) == ("delta", last + 1, "BTCUSDT")
                assert data["seq"] > seq and cts <= message["cts"] <= message["ts"]
                last, seq, cts = data["u"], data["seq"], message["cts"]
                for side, levels in sides.items():
                    for price, size in data[side]:
                        if category == "spot":
                            assert PLAIN.fullmatch(price) and PLAIN.fullmatch(size)
                        levels[price] = size
                        if size == "0":
                            del levels[price]
                    assert len(levels) <= 50
            _, bids, asks = book.depth(50)
            for true, found in ((bids, sides["b"]), (asks, sides["a"])):
                assert dict(venue.host.emulator.level_text(book, level) for level in true) == found

    run(main())


def test_topics_of_both_categories_are_alike_and_books_are_not() -> None:
    async def main() -> None:
        async with (
            bybit("linear") as venue,
            venue.http.ws_connect(f"{venue.host.websocket_url}/v5/public/spot") as other,
        ):
            await venue.subscribe("orderbook.50.BTCUSDT")
            contract = await venue.push("orderbook.50.BTCUSDT")
            await other.send_str('{"op":"subscribe","args":["orderbook.50.BTCUSDT"]}')
            await other.receive()
            pair = json.loads((await other.receive()).data)
            assert pair["topic"] == contract["topic"] and pair["data"]["b"] != contract["data"]["b"]

    run(main())


def test_restart_of_the_service_begins_ids_anew_with_a_snapshot() -> None:
    async def main() -> None:
        async with bybit(restart_every_s=0.1) as venue:
            await venue.subscribe("orderbook.50.BTCUSDT", "orderbook.1.BTCUSDT")
            ids = set()
            while len(ids) < 2:
                message = await venue.receive()
                if message["data"]["u"] == 1:
                    assert message["type"] == "snapshot"
                    ids.add(message["topic"])

    run(main())


def test_quotes_are_whole_and_come_again_with_the_same_id() -> None:
    async def main() -> None:
        async with bybit(quote_silence_s=0.05) as venue:
            topic = "orderbook.1.BTCUSDT"
            await venue.subscribe(topic)
            book = venue.host.emulator.book_of(LINEAR)
            bid, ask = (venue.host.emulator.level_text(book, side[0]) for side in book.depth(1)[1:])
            first, again = await venue.push(topic), await venue.push(topic)
            assert first["type"] == again["type"] == "snapshot"
            assert (first["data"]["b"], first["data"]["a"]) == ([bid], [ask])
            assert first["data"] == again["data"]
            venue.server.advance(300)
            while (await venue.push(topic))["data"]["u"] == first["data"]["u"]:
                pass

    run(main())


@pytest.mark.parametrize(("category", "name"), [("linear", LINEAR), ("spot", SPOT)])
def test_trades_are_the_fills_with_the_takers_side(category: str, name: str) -> None:
    async def main() -> None:
        async with bybit(category) as venue:
            await venue.subscribe("publicTrade.BTCUSDT")
            book = venue.host.emulator.book_of(name)
            before = book.trade_id
            venue.server.advance(300)
            told: list[Any] = []
            while len(told) < book.trade_id - before:
                message = await venue.push("publicTrade.BTCUSDT")
                assert message["type"] == "snapshot"
                told += message["data"]
            true = [fill for fill in book.trades if fill.trade_id > before]
            assert [[one["p"], one["v"], one["S"]] for one in told] == [
                [
                    *venue.host.emulator.level_text(book, (fill.price, fill.size)),
                    "Buy" if fill.aggressor == 1 else "Sell",
                ]
                for fill in true
            ]
            ids = [one["i"] for one in told]
            assert len(set(ids)) == len(ids)
            if category == "linear":
                assert all(str(UUID(one)) == one for one in ids) and set(told[0]) == set("TsSvpLi") | {
                    "BT",
                    "RPI",
                    "seq",
                }
            else:
                assert all(one.isdecimal() for one in ids) and set(told[0]) == set("TsSvpi") | {"BT", "RPI", "seq"}

    run(main())


def test_ticker_of_a_contract_is_whole_at_first_and_then_what_changes() -> None:
    async def main() -> None:
        async with bybit(ticker_interval_s=0.02) as venue:
            await venue.subscribe("tickers.BTCUSDT")
            first = await venue.push("tickers.BTCUSDT")
            values = first["data"]
            assert first["type"] == "snapshot" and first["cs"] > 0
            assert {"markPrice", "indexPrice", "fundingRate", "nextFundingTime", "fundingIntervalHour"} <= set(values)
            assert Decimal(values["openInterest"]) == 2 * Decimal(values["singleOpenInterest"])
            assert values["fundingIntervalHour"] == "8" and int(values["nextFundingTime"]) > first["ts"]
            venue.server.advance(300)
            delta = await venue.push("tickers.BTCUSDT")
            assert delta["type"] == "delta" and delta["data"]["symbol"] == "BTCUSDT"
            changed = {key: value for key, value in delta["data"].items() if key != "symbol"}
            assert changed and all(values[key] != value for key, value in changed.items())
            assert "nextFundingTime" not in changed

    run(main())


def test_ticker_of_a_future_has_no_funding_and_that_of_a_pair_no_mark() -> None:
    async def main() -> None:
        async with bybit("linear") as venue:
            await venue.subscribe("tickers.BTCUSDT-25DEC26")
            values = (await venue.push("tickers.BTCUSDT-25DEC26"))["data"]
            assert values["fundingRate"] == values["nextFundingTime"] == ""
            assert values["deliveryTime"] == "2026-12-25T08:00:00Z" and values["markPrice"]
        async with bybit("spot") as venue:
            await venue.subscribe("tickers.BTCUSDT")
            message = await venue.push("tickers.BTCUSDT")
            assert message["type"] == "snapshot" and not {"markPrice", "bid1Price"} & set(message["data"])

    run(main())


def test_liquidation_has_the_side_of_the_position() -> None:
    async def main() -> None:
        async with bybit(liquidation_interval_s=0.02) as venue:
            topic = "allLiquidation.BTCUSDT"
            await venue.subscribe(topic)
            book = venue.host.emulator.book_of(LINEAR)
            venue.server.advance(2_000)
            (first, *_) = (await venue.push(topic))["data"]
            assert set(first) == set("TsSvp")
            aggressor = Aggressor.SELL if first["S"] == "Buy" else Aggressor.BUY
            closed = [fill for fill in book.trades if fill.run % LIQUIDATIONS == 0 and fill.aggressor == aggressor]
            assert first["p"] in [venue.host.emulator.level_text(book, (fill.price, 1))[0] for fill in closed]

    run(main())


def test_who_says_nothing_is_cut_without_a_word() -> None:
    async def main() -> None:
        async with bybit(silence_s=0.1) as venue:
            message = await venue.socket.receive()
            assert message.type is not TEXT and venue.socket.closed and venue.socket.close_code == 1006

    run(main())


def test_only_two_categories_have_an_address_and_too_many_connections_are_refused() -> None:
    async def main() -> None:
        async with bybit(connections_per_window=2) as venue:
            base = venue.host.websocket_url
            for path, status in (("/v5/public/option", 404), ("/realtime_public", 404)):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await venue.http.ws_connect(base + path)
                assert refused.value.status == status
            async with venue.http.ws_connect(f"{base}/v5/public/spot"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await venue.http.ws_connect(f"{base}/v5/public/spot")
                assert refused.value.status == 403

    run(main())


# ---- REST -------------------------------------------------------------------------------------------------


def test_pairs_are_listed_at_once_and_contracts_in_pages() -> None:
    async def main() -> None:
        async with bybit() as venue:
            path = "/v5/market/instruments-info?category="
            status, answer = await venue.get(f"{path}spot")
            assert (status, answer["retCode"], answer["result"]["category"]) == (200, 0, "spot")
            (pair,) = answer["result"]["list"]
            assert "nextPageCursor" not in answer["result"]
            assert (pair["symbol"], pair["priceFilter"]["tickSize"]) == ("BTCUSDT", "0.01")
            assert pair["lotSizeFilter"]["basePrecision"] == "0.00001"
            rows, cursor = [], ""
            while not rows or cursor:
                _, answer = await venue.get(f"{path}linear&limit=2&cursor={cursor}")
                assert 0 < len(answer["result"]["list"]) <= 2
                rows += answer["result"]["list"]
                cursor = answer["result"]["nextPageCursor"]
            assert [row["symbol"] for row in rows] == ["BTCUSDT", "BTCPERP", "BTCUSDT-25DEC26"]
            assert [row["contractType"] for row in rows] == ["LinearPerpetual", "LinearPerpetual", "LinearFutures"]
            assert [row["settleCoin"] for row in rows] == ["USDT", "USDC", "USDT"]
            assert rows[0]["deliveryTime"] == "0" and rows[0]["fundingInterval"] == 480
            assert rows[2]["deliveryTime"] == "1798185600000"  # 2026-12-25 08:00 UTC

    run(main())


def test_book_by_rest_is_as_deep_as_asked() -> None:
    async def main() -> None:
        async with bybit() as venue:
            for query, levels in (("category=linear", 25), ("category=spot", 1), ("category=linear&limit=3", 3)):
                _, answer = await venue.get(f"/v5/market/orderbook?symbol=BTCUSDT&{query}")
                assert len(answer["result"]["b"]) == len(answer["result"]["a"]) == levels
            assert answer["result"]["seq"] == venue.host.emulator.book_of(LINEAR).update_id
            _, answer = await venue.get("/v5/market/time")
            assert len(answer["result"]["timeSecond"]) == 10

    run(main())


@pytest.mark.parametrize(
    "path",
    [
        "instruments-info?category=fruit",
        "instruments-info?category=linear&limit=1001",
        "instruments-info?category=linear&cursor=x",
        "orderbook?category=linear&symbol=NOPE",
    ],
)
def test_wrong_call_is_answered_by_a_code_with_status_200(path: str) -> None:
    async def main() -> None:
        async with bybit() as venue:
            status, answer = await venue.get(f"/v5/market/{path}")
            assert (status, answer["retCode"]) == (200, 10001) and answer["retMsg"]

    run(main())


def test_too_many_calls_are_turned_away() -> None:
    async def main() -> None:
        async with bybit(calls_per_window=3) as venue:
            answers = [await venue.get("/v5/market/time") for _ in range(4)]
            assert [status for status, _ in answers] == [200, 200, 200, 403]
            assert answers[3][1] == b"access too frequent"

    run(main())
