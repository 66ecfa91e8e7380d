"""The emulated Bitstamp over real sockets, held against the venue's documentation; no code of our adapter."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
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

TEXT, CLOSE, CLOSED = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED
SPOT, PERPETUAL = "btcusd", "btcusd-perp"


class Bitstamp:
    """The server, and one socket of a client."""

    def __init__(self, server: EmulatorServer, http: aiohttp.ClientSession, socket: Any) -> None:
        self.server = server
        self.http = http
        self.socket = socket

    @property
    def host(self) -> VenueHost:
        return self.server.venues["bitstamp"]

    async def send(self, request: Any) -> None:
        await self.socket.send_str(request if isinstance(request, str) else json.dumps(request))

    async def subscribe(self, channel: str, event: str = "bts:subscribe") -> None:
        await self.send({"event": event, "data": {"channel": channel}})

    async def receive(self) -> Any:
        """The next message, decoded."""
        message = await self.socket.receive()
        assert message.type is TEXT, message
        return json.loads(message.data)

    async def subscribed(self, channel: str) -> None:
        """Subscribe, and have the answer."""
        await self.subscribe(channel)
        assert await self.receive() == {"event": "bts:subscription_succeeded", "channel": channel, "data": {}}

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.http.get(f"{self.host.rest_url}/api/v2/{path}") as answer:
            return answer.status, json.loads(await answer.read())


@asynccontextmanager
async def bitstamp(**options: Any) -> AsyncIterator[Bitstamp]:
    """A quiet market of a spot pair, and of a perpetual that the venue lists and one that it does not."""
    config = EmulatorConfig(
        venues=("bitstamp",),
        rate=0,
        seed=7,
        instruments=("BTC-USD", "BTC-USD-PERP", "BTC-USDT-PERP"),
        options={"bitstamp": options},
    )
    async with (
        EmulatorServer(config) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(server.venues["bitstamp"].websocket_url, autoping=False) as socket,
    ):
        yield Bitstamp(server, http, socket)


def test_each_channel_is_acknowledged_and_brings_nothing_before_the_next_change() -> None:
    async def main() -> None:
        async with bitstamp() as venue:
            for channel in (f"diff_order_book_{SPOT}", f"order_book_{SPOT}", f"live_trades_{SPOT}"):
                await venue.subscribed(channel)
                await venue.subscribed(channel)  # once more: acknowledged again
            await venue.send({"event": "bts:heartbeat"})
            assert await venue.receive() == {"event": "bts:heartbeat", "channel": "", "data": {"status": "success"}}

    run(main())


@pytest.mark.parametrize(
    ("request_text", "code", "message"),
    [
        ("{", None, "Incorrect JSON format."),
        ('"x"', None, "Incorrect JSON format."),
        ('{"event":"bts:ping","data":{"channel":"x"}}', None, "Bad subscription string."),
        ('{"event":"bts:subscribe","data":{}}', None, "Bad subscription string."),
        ('{"event":"bts:subscribe","data":{"channel":"order_book_BTCUSD"}}', None, "Invalid channel provided."),
        ('{"event":"bts:subscribe","data":{"channel":"order_book_btc/usd"}}', None, "Invalid channel provided."),
        (
            '{"event":"bts:subscribe","data":{"channel":"private-my_orders_btcusd"}}',
            4009,
            "Connection is unauthorized.",
        ),
    ],
)
def test_wrong_request_is_answered_by_an_error_and_the_socket_stays_open(
    request_text: str, code: int | None, message: str
) -> None:
    async def main() -> None:
        async with bitstamp() as venue:
            await venue.send(request_text)
            assert await venue.receive() == {
                "event": "bts:error", "channel": "", "data": {"code": code, "message": message},
            }  # fmt: skip
            await venue.subscribed("order_book_fooxyz")  # what does not exist, but might

    run(main())


def test_unsubscribing_is_acknowledged_and_ends_the_data() -> None:
    async def main() -> None:
        async with bitstamp(diff_interval_s=0.01) as venue:
            channel = f"diff_order_book_{SPOT}"
            await venue.subscribed(channel)
            await venue.subscribe(channel, "bts:unsubscribe")
            assert (await venue.receive())["event"] == "bts:unsubscription_succeeded"
            venue.server.advance(200)
            await venue.send({"event": "bts:heartbeat"})
            assert (await venue.receive())["event"] == "bts:heartbeat"

    run(main())


def test_too_long_a_frame_ends_the_connection_with_1009() -> None:
    async def main() -> None:
        async with bitstamp() as venue:
            await venue.send("x" * 513)
            message = await venue.socket.receive()
            assert message.type is CLOSE and (message.data, message.extra) == (1009, "read limited at 513 bytes")

    run(main())


def test_one_channel_too_many_ends_the_connection_without_a_word() -> None:
    async def main() -> None:
        async with bitstamp(max_channels=2) as venue:
            await venue.subscribed("live_trades_aaa")
            await venue.subscribed("live_trades_bbb")
            await venue.subscribed("live_trades_bbb")
            await venue.subscribe("live_trades_ccc")
            assert (await venue.socket.receive()).type is CLOSED

    run(main())


def test_ping_frames_come_by_themselves() -> None:
    async def main() -> None:
        async with bitstamp(ping_interval_s=0.05) as venue:
            for _ in range(2):
                assert (await venue.socket.receive()).type is aiohttp.WSMsgType.PING

    run(main())


def test_announced_end_comes_after_a_while() -> None:
    async def main() -> None:
        async with bitstamp(reconnect_grace_s=0.05) as venue:
            venue.host.inject(Fault(fault=FaultKind.SHUTDOWN_NOTICE))
            assert await venue.receive() == {"event": "bts:request_reconnect", "channel": "", "data": None}
            assert (await venue.socket.receive()).type is CLOSE

    run(main())


@pytest.mark.parametrize("market", [SPOT, PERPETUAL])
def test_book_put_together_as_documented_is_the_true_book(market: str) -> None:
    """Hold the diffs, get the REST book, drop what it has already, apply the rest."""

    async def main() -> None:
        async with bitstamp(diff_interval_s=0.01, perpetual_diff_interval_s=0.01, snapshot_interval_s=0.1) as venue:
            channel = f"diff_order_book_{market}"
            await venue.get(f"order_book/{market}/")  # so that the next one is a little old
            await venue.subscribed(channel)
            venue.server.set_rate(2000)
            held = [await venue.receive() for _ in range(5)]
            status, image = await venue.get(f"order_book/{market}/?group=1")
            assert status == 200 and list(image) == ["timestamp", "microtimestamp", "bids", "asks"]
            prices = [[Decimal(row[0]) for row in image[side]] for side in ("bids", "asks")]
            assert prices[0] == sorted(prices[0], reverse=True) and prices[1] == sorted(prices[1])
            book = venue.host.emulator.book_of(market)
            await venue.server.pause()
            sides = {side: {row[0]: row[1] for row in image[side]} for side in ("bids", "asks")}
            last = int(held[0]["data"]["microtimestamp"]) - 1
            true = [dict(venue.host.emulator.level_text(book, level) for level in one) for one in book.depth()[1:]]
            while [sides["bids"], sides["asks"]] != true:
                message = held.pop(0) if held else await venue.receive()
                assert list(message) == ["data", "channel", "event"]
                assert (message["channel"], message["event"]) == (channel, "data")
                delta, stamp = message["data"], int(message["data"]["microtimestamp"])
                assert stamp > last and delta["timestamp"] == str(stamp // 10**6)
                assert delta["bids"] or delta["asks"]
                last = stamp
                if stamp <= int(image["microtimestamp"]):
                    continue
                for side, levels in sides.items():
                    for price, size in delta[side]:
                        if Decimal(size) == 0:
                            assert size == ("0.00000000" if market == SPOT else "0.0000")
                            del levels[price]
                        else:
                            levels[price] = size

    run(main())


def test_change_that_is_taken_back_after_a_rest_book_was_made_is_told() -> None:
    """A window that compares only its begin and its end would hide it from whoever begins with that book."""

    async def main() -> None:
        async with bitstamp(diff_interval_s=0.2) as venue:
            await venue.subscribed(f"diff_order_book_{SPOT}")
            emulator = venue.host.emulator
            book = emulator.book_of(SPOT)
            price = book.bids.best
            size = book.bids.sizes[price]

            def change(new: int) -> None:
                emulator.on_events([Change(book.index, book.apply(Side.BID, price, new), Side.BID, price, new)])

            change(3 * size)
            _, image = await venue.get(f"order_book/{SPOT}/")
            assert image["bids"][0] == emulator.level_text(book, (price, 3 * size))
            change(size)
            while True:
                delta = (await venue.receive())["data"]
                if int(delta["microtimestamp"]) > int(image["microtimestamp"]):
                    break
            assert delta["bids"] == [emulator.level_text(book, (price, size))]

    run(main())


def test_order_book_is_the_best_hundred_levels_at_each_change() -> None:
    async def main() -> None:
        async with bitstamp(book_interval_s=0.01) as venue:
            await venue.subscribed(f"order_book_{SPOT}")
            venue.server.advance(300)
            book = venue.host.emulator.book_of(SPOT)
            true = [[venue.host.emulator.level_text(book, level) for level in side] for side in book.depth(100)[1:]]
            while True:
                data = (await venue.receive())["data"]
                assert len(data["bids"]) == len(data["asks"]) == 100
                if [data["bids"], data["asks"]] == true:
                    break

    run(main())


@pytest.mark.parametrize("market", [SPOT, PERPETUAL])
def test_trades_have_numbers_and_texts_and_the_takers_side(market: str) -> None:
    async def main() -> None:
        async with bitstamp() as venue:
            await venue.subscribed(f"live_trades_{market}")
            venue.server.advance(400)
            book = venue.host.emulator.book_of(market)
            for true in list(book.trades):
                message = await venue.receive()
                assert (message["channel"], message["event"]) == (f"live_trades_{market}", "trade")
                trade = message["data"]
                assert trade["type"] == (0 if true.aggressor == 1 else 1)
                assert (trade["buy_order_id"] > trade["sell_order_id"]) == (trade["type"] == 0)
                assert [trade["price_str"], trade["amount_str"]] == venue.host.emulator.level_text(
                    book, (true.price, true.size)
                )
                assert trade["price"] == float(trade["price_str"]) and trade["amount"] == float(trade["amount_str"])
                assert trade["microtimestamp"] == f"{true.ts_event // 10**6}000"
                if market == SPOT:
                    assert trade["id"] == true.trade_id and len(trade["timestamp"]) == 10 and "id_str" not in trade
                else:
                    assert trade["id"] > 2**53 and trade["id_str"] == str(trade["id"]) and len(trade["timestamp"]) == 13

    run(main())


def test_perpetuals_tell_funding_mark_and_index_every_second() -> None:
    async def main() -> None:
        async with bitstamp(funding_interval_s=0.01) as venue:
            await venue.subscribed(f"funding_rate_{PERPETUAL}")
            for _ in range(2):
                message = await venue.receive()
                assert message["event"] == "funding_rate_saved"
                assert list(message["data"]) == [
                    "market", "mark_price", "index_price", "funding_rate", "timestamp", "next_funding_time",
                ]  # fmt: skip
                assert int(message["data"]["next_funding_time"]) % (8 * 3600) == 0

    run(main())


# ---- REST -------------------------------------------------------------------------------------------------


def test_lists_name_markets_as_channels_do_and_say_how_finely_numbers_are_written() -> None:
    async def main() -> None:
        async with bitstamp() as venue:
            _, markets = await venue.get("markets/")
            assert [(row["name"], row["market_symbol"], row["market_type"]) for row in markets] == [
                ("BTC/USD", SPOT, "SPOT"),
                ("BTC/USD-PERP", PERPETUAL, "PERPETUAL"),
            ]
            _, pairs = await venue.get("trading-pairs-info/")
            assert [row["url_symbol"] for row in pairs] == [SPOT, PERPETUAL]
            for row, pair in zip(markets, pairs, strict=True):
                _, book = await venue.get(f"order_book/{row['market_symbol']}")
                price, size = book["bids"][0]
                decimals = [len(text.partition(".")[2]) for text in (price, size)]
                assert decimals == [row["counter_decimals"], row["base_decimals"]]
                assert decimals == [pair["counter_decimals"], pair["base_decimals"]]

    run(main())


def test_tickers_have_open_interest_of_perpetuals() -> None:
    async def main() -> None:
        async with bitstamp() as venue:
            _, (spot, perpetual) = await venue.get("ticker/")
            assert (spot["market"], perpetual["market"]) == ("BTC/USD", "BTC/USD-PERP")
            assert "open_interest" not in spot and Decimal(perpetual["open_interest"]) > 0
            assert (await venue.get(f"ticker/{SPOT}/"))[1]["pair"] == "BTC/USD"
            status, funding = await venue.get(f"funding_rate/{PERPETUAL}/")
            assert status == 200 and funding["market"] == "BTC/USD-PERP"

    run(main())


def test_books_by_order_have_ids_and_trades_come_newest_first() -> None:
    async def main() -> None:
        async with bitstamp() as venue:
            venue.server.advance(300)
            _, book = await venue.get(f"order_book/{SPOT}/?group=2")
            assert {len(row) for row in book["bids"]} == {3}
            _, trades = await venue.get(f"transactions/{SPOT}/")
            numbers = [int(row["tid"]) for row in trades]
            assert numbers == sorted(numbers, reverse=True) and len(numbers) > 10

    run(main())


@pytest.mark.parametrize("path", ["nothing/", "order_book/fooxyz/", "funding_rate/", f"funding_rate/{SPOT}/"])
def test_what_does_not_exist_is_not_found(path: str) -> None:
    async def main() -> None:
        async with bitstamp() as venue:
            assert await venue.get(path) == (404, {"message": "Not found."})

    run(main())


def test_too_many_calls_are_refused_by_a_code() -> None:
    async def main() -> None:
        async with bitstamp(requests_per_ten_minutes=3) as venue:
            answers = [await venue.get("markets/") for _ in range(4)]
            assert [status for status, _ in answers] == [200, 200, 200, 400]
            assert answers[3][1]["code"] == "400.002"

    run(main())
