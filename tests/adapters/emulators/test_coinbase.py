"""The emulated Coinbase Exchange over real sockets, held against the venue's documentation; no code of our adapter."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from mdring.emulator.host import VenueHost
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from mdring.record import Aggressor
from tests.emulator.bench import run

TEXT, CLOSE = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
PRODUCT, OTHER = "BTC-USD", "ETH-USD"


class Coinbase:
    """The server, and one socket of a client."""

    def __init__(self, server: EmulatorServer, http: aiohttp.ClientSession, socket: Any) -> None:
        self.server = server
        self.http = http
        self.socket = socket

    @property
    def host(self) -> VenueHost:
        return self.server.venues["coinbase"]

    async def send(self, request: Any) -> None:
        await self.socket.send_str(request if isinstance(request, str) else json.dumps(request))

    async def subscribe(self, *channels: Any, products: tuple[str, ...] = (PRODUCT,), op: str = "subscribe") -> None:
        await self.send({"type": op, "product_ids": products, "channels": channels})

    async def receive(self) -> Any:
        """The next message, decoded."""
        message = await self.socket.receive()
        assert message.type is TEXT, message
        return json.loads(message.data)

    async def next_of(self, kind: str) -> Any:
        """The next message of a type."""
        while True:
            message = await self.receive()
            if message["type"] == kind:
                return message

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.http.get(self.host.rest_url + path, headers=headers) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def coinbase(**options: Any) -> AsyncIterator[Coinbase]:
    """A quiet market of two spot pairs and a contract."""
    config = EmulatorConfig(
        venues=("coinbase",),
        rate=0,
        seed=7,
        instruments=(PRODUCT, OTHER, "BTC-USD-PERP"),
        options={"coinbase": options},
    )
    async with (
        EmulatorServer(config) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(server.venues["coinbase"].websocket_url) as socket,
    ):
        yield Coinbase(server, http, socket)


# ---- subscribing ------------------------------------------------------------------------------------------


def test_answer_is_the_state_of_the_whole_connection() -> None:
    async def main() -> None:
        async with coinbase() as venue:
            await venue.subscribe("level2_batch", {"name": "heartbeat", "product_ids": [OTHER]})
            assert await venue.receive() == {
                "type": "subscriptions",
                "channels": [
                    {"name": "level2_50", "product_ids": [PRODUCT], "account_ids": None},
                    {"name": "heartbeat", "product_ids": [OTHER], "account_ids": None},
                ],
            }
            await venue.subscribe("matches", products=(OTHER, PRODUCT))
            state = await venue.next_of("subscriptions")
            assert [(one["name"], one["product_ids"]) for one in state["channels"]] == [
                ("level2_50", [PRODUCT]),
                ("heartbeat", [OTHER]),
                ("matches", [OTHER, PRODUCT]),
            ]

    run(main())


@pytest.mark.parametrize(
    ("request_text", "message", "reason"),
    [
        ('{"type":"subscribe","product_ids":["BTC-USD","GIBBERISH-USD"],"channels":["matches"]}',
         "Failed to subscribe", "GIBBERISH-USD is not a valid product"),
        ('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["matches","fruit"]}',
         "Failed to subscribe", "fruit is not a valid channel"),
        ('{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2"]}',
         "Failed to subscribe", "level2, level3, and full channels now require authentication."),
        ('{"type":"subscribe","product_ids":["BTC-USD"]}', "Failed to subscribe", "No channels provided"),
        ('{"type":"subscribe","channels":["matches"]}', "Failed to subscribe", " is not a valid product"),
        ('{"type":"unsubscribe","channels":[{"name":"matches","product_ids":["X-USD"]}]}',
         "Failed to unsubscribe", "X-USD is not a valid product"),
        ("{", "Malformed JSON", None),
        ('{"type":"dance"}', "Type has to be either subscribe or unsubscribe", None),
        ("[]", "Type has to be either subscribe or unsubscribe", None),
    ],
)  # fmt: skip
def test_request_is_refused_as_a_whole_and_the_socket_stays_open(
    request_text: str, message: str, reason: str | None
) -> None:
    async def main() -> None:
        async with coinbase() as venue:
            await venue.send(request_text)
            error = await venue.receive()
            assert (error["type"], error["message"], error.get("reason")) == ("error", message, reason)
            await venue.subscribe("heartbeat")
            (channel,) = (await venue.receive())["channels"]
            assert channel["name"] == "heartbeat"

    run(main())


def test_who_does_not_subscribe_is_cut_and_an_error_is_no_subscription() -> None:
    async def main() -> None:
        async with coinbase(first_subscription_s=0.2) as venue:
            await venue.subscribe("fruit")
            assert (await venue.receive())["type"] == "error"
            assert (await venue.socket.receive()).type is CLOSE

    run(main())


def test_second_subscription_brings_no_snapshot_and_one_after_its_end_does() -> None:
    async def main() -> None:
        async with coinbase() as venue:
            await venue.subscribe("level2_batch")
            assert [(await venue.receive())["type"] for _ in range(2)] == ["subscriptions", "snapshot"]
            for op in ("subscribe", "unsubscribe", "subscribe"):
                await venue.subscribe("level2_batch", op=op)
            received = [await venue.receive() for _ in range(4)]
            assert [one["type"] for one in received] == ["subscriptions"] * 3 + ["snapshot"]
            assert [len(one["channels"]) for one in received[:3]] == [1, 0, 1]

    run(main())


@pytest.mark.parametrize(
    ("request_", "left"),
    [
        ({"channels": ["heartbeat"]}, {"matches": [PRODUCT, OTHER]}),
        ({"channels": ["matches"], "product_ids": [OTHER]}, {"heartbeat": [PRODUCT, OTHER], "matches": [PRODUCT]}),
        ({"product_ids": [PRODUCT]}, {"heartbeat": [OTHER], "matches": [OTHER]}),
        ({"channels": [{"name": "matches", "product_ids": [PRODUCT]}]},
         {"heartbeat": [PRODUCT, OTHER], "matches": [OTHER]}),
    ],
)  # fmt: skip
def test_subscriptions_end_by_channel_by_product_or_one_by_one(request_: dict[str, Any], left: dict[str, Any]) -> None:
    async def main() -> None:
        async with coinbase() as venue:
            await venue.subscribe("heartbeat", "matches", products=(PRODUCT, OTHER))
            await venue.receive()
            await venue.send({"type": "unsubscribe", **request_})
            state = await venue.next_of("subscriptions")
            assert {one["name"]: one["product_ids"] for one in state["channels"]} == left

    run(main())


def test_too_many_messages_and_too_many_subscriptions_are_refused() -> None:
    async def main() -> None:
        async with coinbase(messages_per_second=2, subscriptions=1) as venue:
            await venue.subscribe("heartbeat")
            await venue.receive()
            async with venue.http.ws_connect(venue.host.websocket_url) as second:
                await second.send_json({"type": "subscribe", "product_ids": [PRODUCT], "channels": ["heartbeat"]})
                assert (await second.receive_json())["reason"] == f"Too many subscriptions to {PRODUCT}"
            for _ in range(2):
                await venue.subscribe("matches", products=(OTHER,))
            assert (await venue.next_of("error"))["message"] == "ErrSlowRead"
            assert (await venue.socket.receive()).type is CLOSE

    run(main())


def test_too_many_connections_and_other_paths_are_turned_away() -> None:
    async def main() -> None:
        async with coinbase(connection_burst=2) as venue:
            async with venue.http.ws_connect(venue.host.websocket_url):
                pass
            for path, status in (("/ws", 404), ("", 429)):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await venue.http.ws_connect(venue.host.websocket_url + path)
                assert refused.value.status == status

    run(main())


# ---- channels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval_s", [0.0, 0.01])
def test_updates_lead_from_the_snapshot_to_the_true_book(interval_s: float) -> None:
    async def main() -> None:
        async with coinbase(batch_interval_s=interval_s) as venue:
            await venue.subscribe("level2_batch")
            snapshot = await venue.next_of("snapshot")
            assert list(snapshot) == ["type", "product_id", "asks", "bids", "time"] and TIME.fullmatch(snapshot["time"])
            sides = {side: {row[0]: row[1] for row in snapshot[side]} for side in ("bids", "asks")}
            prices = [Decimal(row[0]) for row in snapshot["bids"]]
            assert prices == sorted(prices, reverse=True)
            book = venue.host.emulator.book_of(PRODUCT)
            before = book.update_id
            venue.server.advance(500)
            left = book.update_id - before
            while left:
                update = await venue.next_of("l2update")
                assert list(update) == ["type", "product_id", "changes", "time"] and TIME.fullmatch(update["time"])
                left -= len(update["changes"])
                assert interval_s or len(update["changes"]) == 1
                for side, price, size in update["changes"]:
                    levels = sides["bids" if side == "buy" else "asks"]
                    levels[price] = size
                    if size == "0.00000000":
                        del levels[price]
            _, bids, asks = book.depth()
            for true, found in ((bids, sides["bids"]), (asks, sides["asks"])):
                assert dict(venue.host.emulator.level_text(book, level) for level in true) == found

    run(main())


def test_matches_begin_with_the_last_one_and_tell_the_maker_tickers_the_taker() -> None:
    async def main() -> None:
        async with coinbase() as venue:
            await venue.subscribe("matches", "ticker")
            last = await venue.next_of("last_match")
            first = await venue.next_of("ticker")
            book = venue.host.emulator.book_of(PRODUCT)
            assert last["trade_id"] == first["trade_id"] == book.trade_id
            venue.server.advance(300)
            sequence = last["sequence"]
            for number in range(last["trade_id"] + 1, book.trade_id + 1):
                match, ticker = await venue.receive(), await venue.receive()
                assert list(match) == list(last) and (match["type"], match["trade_id"]) == ("match", number)
                fill = next(fill for fill in book.trades if fill.trade_id == number)
                taker = "buy" if fill.aggressor == Aggressor.BUY else "sell"
                assert {match["side"], taker} == {"buy", "sell"}
                assert (ticker["type"], ticker["side"], ticker["trade_id"]) == ("ticker", taker, number)
                assert match["sequence"] == ticker["sequence"] > sequence
                sequence = match["sequence"]
                assert [match["price"], match["size"]] == venue.host.emulator.level_text(book, (fill.price, fill.size))
                assert TIME.fullmatch(match["time"])
            assert number > last["trade_id"] + 20
            best = [venue.host.emulator.level_text(book, side[0]) for side in book.depth(1)[1:]]
            await venue.subscribe("ticker", op="unsubscribe")
            await venue.subscribe("ticker")
            now = await venue.next_of("ticker")
            assert best == [[now[f"best_{side}"], now[f"best_{side}_size"]] for side in ("bid", "ask")]

    run(main())


def test_update_of_a_fill_comes_before_its_match_where_nothing_is_batched() -> None:
    async def main() -> None:
        async with coinbase(batch_interval_s=0) as venue:
            await venue.subscribe("level2_batch", "matches")
            await venue.next_of("last_match")
            venue.server.advance(200)
            before: Any = None
            for _ in range(50):
                message = await venue.receive()
                if message["type"] == "l2update":
                    before = message
                else:
                    assert before["changes"][0][:2] == [message["side"], message["price"]]

    run(main())


def test_heartbeats_count_trades_and_come_in_a_quiet_market_too() -> None:
    async def main() -> None:
        async with coinbase(heartbeat_interval_s=0.02) as venue:
            await venue.subscribe("heartbeat")
            first, second = await venue.next_of("heartbeat"), await venue.next_of("heartbeat")
            assert list(first) == ["type", "sequence", "last_trade_id", "product_id", "time"]
            assert first["sequence"] == second["sequence"] and first["last_trade_id"] == second["last_trade_id"]
            venue.server.advance(100)
            third = await venue.next_of("heartbeat")
            assert third["last_trade_id"] == venue.host.emulator.book_of(PRODUCT).trade_id > first["last_trade_id"]
            assert third["sequence"] - first["sequence"] >= third["last_trade_id"] - first["last_trade_id"]

    run(main())


def test_status_tells_all_products_and_a_halt() -> None:
    async def main() -> None:
        async with coinbase(status_interval_s=0.02) as venue:
            await venue.send({"type": "subscribe", "channels": [{"name": "status"}]})
            (channel,) = (await venue.receive())["channels"]
            assert channel["name"] == "status"
            status = await venue.next_of("status")
            assert [(row["id"], row["status"]) for row in status["products"]] == [
                (PRODUCT, "online"),
                (OTHER, "online"),
            ]
            assert [row["id"] for row in status["currencies"]] == ["BTC", "ETH", "USD"]
            emulator: Any = venue.host.emulator
            emulator.by_name[OTHER].is_halted = True
            await venue.next_of("status")
            assert (await venue.next_of("status"))["products"][1]["status"] == "offline"

    run(main())


# ---- REST -------------------------------------------------------------------------------------------------


def test_products_are_spot_pairs_with_their_increments() -> None:
    async def main() -> None:
        async with coinbase() as venue:
            status, rows = await venue.get("/products")
            assert (status, [row["id"] for row in rows]) == (200, [PRODUCT, OTHER])
            assert (rows[0]["quote_increment"], rows[0]["base_increment"]) == ("0.01", "0.00001")
            assert (rows[0]["base_currency"], rows[0]["quote_currency"]) == ("BTC", "USD")
            assert await venue.get(f"/products/{OTHER}") == (200, rows[1])

    run(main())


def test_book_by_rest_has_levels_of_one_all_or_each_order() -> None:
    async def main() -> None:
        async with coinbase() as venue:
            _, bids, asks = venue.host.emulator.book_of(PRODUCT).depth()
            for level, count in (("1", 1), ("2", len(bids)), ("3", len(bids))):
                _, book = await venue.get(f"/products/{PRODUCT}/book?level={level}")
                assert len(book["bids"]) == count and isinstance(book["bids"][0][2], str if level == "3" else int)
                assert isinstance(book["sequence"], int) and TIME.fullmatch(book["time"])
            assert len(book["asks"]) == len(asks)

    run(main())


def test_trades_by_rest_are_pages_of_the_newest_first() -> None:
    async def main() -> None:
        async with coinbase() as venue:
            venue.server.advance(300)
            last = venue.host.emulator.book_of(PRODUCT).trade_id
            path = f"/products/{PRODUCT}/trades"
            for query, ids in (
                ("?limit=2", [last, last - 1]),
                (f"?limit=2&after={last - 3}", [last - 4, last - 5]),
                (f"?before={last - 2}", [last, last - 1]),
                (f"?after={last}&before={last - 3}", [last - 1, last - 2]),
            ):
                _, trades = await venue.get(path + query)
                assert [trade["trade_id"] for trade in trades] == ids
            assert sorted(trades[0]) == ["price", "side", "size", "time", "trade_id"]

    run(main())


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/products/X-USD", 404),
        ("/products/X-USD/book", 404),
        ("/nothing", 404),
        (f"/products/{PRODUCT}/book?level=4", 400),
        (f"/products/{PRODUCT}/trades?after=x", 400),
    ],
)
def test_wrong_call_is_answered_by_a_message(path: str, status: int) -> None:
    async def main() -> None:
        async with coinbase() as venue:
            found, answer = await venue.get(path)
            assert found == status and list(answer) == ["message"]

    run(main())


def test_too_many_calls_and_nameless_clients_are_turned_away() -> None:
    async def main() -> None:
        async with coinbase() as venue:
            assert (await venue.get("/time", **{"User-Agent": ""}))[0] == 400
            answers = [(await venue.get("/time"))[0] for _ in range(16)]
            assert answers[:14] == [200] * 14 and answers[15] == 429

    run(main())
