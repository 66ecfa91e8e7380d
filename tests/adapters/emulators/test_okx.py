"""The emulated OKX over real sockets, held against the venue's documentation; no code of our adapter."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from mdring.emulator.faults import Fault, FaultKind
from mdring.emulator.host import VenueHost
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from tests.emulator.bench import run

TEXT, CLOSE = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE
PLAIN = re.compile(r"0|[1-9]\d*|(0|[1-9]\d*)\.\d*[1-9]")
SPOT, SWAP = "BTC-USDT", "BTC-USDT-SWAP"


class Okx:
    """The server, and one socket of a client."""

    def __init__(self, server: EmulatorServer, http: aiohttp.ClientSession, socket: Any) -> None:
        self.server = server
        self.http = http
        self.socket = socket

    @property
    def host(self) -> VenueHost:
        return self.server.venues["okx"]

    async def send(self, request: Any) -> None:
        await self.socket.send_str(request if isinstance(request, str) else json.dumps(request))

    async def subscribe(self, channel: str, name: str = SPOT, *, key: str = "instId", op: str = "subscribe") -> None:
        await self.send({"id": "7", "op": op, "args": [{"channel": channel, key: name}]})

    async def receive(self) -> Any:
        """The next message, decoded."""
        message = await self.socket.receive()
        assert message.type is TEXT, message
        return json.loads(message.data)

    async def push(self, channel: str) -> Any:
        """The next message of a channel."""
        while True:
            message = await self.receive()
            if message.get("arg", {}).get("channel") == channel and "data" in message:
                return message

    async def get(self, path: str, **headers: str) -> tuple[int, Any]:
        async with self.http.get(self.host.rest_url + path, headers=headers) as answer:
            body = await answer.read()
            return answer.status, json.loads(body) if body else None


@asynccontextmanager
async def okx(**options: Any) -> AsyncIterator[Okx]:
    """A quiet market of a spot pair and two contracts."""
    config = EmulatorConfig(
        venues=("okx",),
        rate=0,
        seed=7,
        instruments=("BTC-USDT", "BTC-USDT-PERP", "BTC-USD-20261225@BTC"),
        options={"okx": options},
    )
    async with (
        EmulatorServer(config) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(server.venues["okx"].websocket_url + "/ws/v5/public") as socket,
    ):
        yield Okx(server, http, socket)


def test_each_argument_is_acknowledged_before_its_data_and_repeats_bring_no_snapshot() -> None:
    async def main() -> None:
        async with okx() as venue:
            arguments = [{"channel": "trades", "instId": SPOT}, {"channel": "books", "instId": SPOT}]
            await venue.send({"id": "1512", "op": "subscribe", "args": arguments})
            for argument in arguments:
                answer = await venue.receive()
                assert (answer["id"], answer["event"], answer["arg"]) == ("1512", "subscribe", argument)
                assert answer["connId"]
            snapshot = await venue.receive()
            assert (snapshot["arg"], snapshot["action"]) == (arguments[1], "snapshot")
            await venue.subscribe("books")
            assert (await venue.receive())["event"] == "subscribe"
            await venue.send("ping")
            assert (await venue.socket.receive()).data == "pong"  # and no snapshot before it

    run(main())


def test_what_does_not_exist_is_refused_by_itself_and_the_socket_stays_open() -> None:
    async def main() -> None:
        async with okx() as venue:
            names = ["NO-SUCH", SPOT]
            await venue.send({"op": "subscribe", "args": [{"channel": "trades", "instId": name} for name in names]})
            error = await venue.receive()
            assert (error["event"], error["code"]) == ("error", "60018")
            assert "channel:trades,instId:NO-SUCH doesn't exist" in error["msg"] and "arg" not in error
            assert (await venue.receive())["arg"] == {"channel": "trades", "instId": SPOT}

    run(main())


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ("{", "60012"),
        ('["subscribe"]', "60012"),
        ('{"op":"subscribe","args":"books"}', "60013"),
        ('{"op":"dance","args":[]}', "60019"),
    ],
)
def test_request_without_the_form_of_one_is_answered_by_an_error(request_text: str, code: str) -> None:
    async def main() -> None:
        async with okx() as venue:
            await venue.send(request_text)
            error = await venue.receive()
            assert (error["event"], error["code"]) == ("error", code)

    run(main())


def test_books_chain_their_ids_and_lead_to_the_true_book() -> None:
    async def main() -> None:
        async with okx(book_interval_s=0.01) as venue:
            await venue.subscribe("books", SWAP)
            first = (await venue.push("books"))["data"][0]
            assert first["prevSeqId"] == -1 and first["checksum"] == 0
            sides = {side: {row[0]: row[1] for row in first[side]} for side in ("bids", "asks")}
            book, last = venue.host.emulator.book_of(SWAP), first["seqId"]
            venue.server.advance(500)
            while last < book.update_id:
                message = await venue.push("books")
                (update,) = message["data"]
                assert message["action"] == "update"
                assert list(update) == ["asks", "bids", "ts", "checksum", "seqId", "prevSeqId"]
                assert update["prevSeqId"] == last < update["seqId"]
                last = update["seqId"]
                for side, levels in sides.items():
                    for price, size, zero, orders in update[side]:
                        assert PLAIN.fullmatch(price) and PLAIN.fullmatch(size) and zero == "0"
                        levels[price] = size
                        if size == "0":
                            assert orders == "0"
                            del levels[price]
            _, bids, asks = book.depth()
            for true, found in ((bids, sides["bids"]), (asks, sides["asks"])):
                assert dict(venue.host.emulator.level_text(book, level) for level in true) == found

    run(main())


def test_book_without_change_says_so_with_its_last_id() -> None:
    async def main() -> None:
        async with okx(book_silence_s=0.05) as venue:
            await venue.subscribe("books")
            last = (await venue.push("books"))["data"][0]["seqId"]
            (silent,) = (await venue.push("books"))["data"]
            assert (silent["asks"], silent["bids"]) == ([], [])
            assert silent["seqId"] == silent["prevSeqId"] == last

    run(main())


def test_unsubscribing_is_acknowledged_and_ends_the_data_then_a_snapshot_comes_again() -> None:
    async def main() -> None:
        async with okx(book_interval_s=0.01) as venue:
            await venue.subscribe("books")
            await venue.push("books")
            await venue.subscribe("books", op="unsubscribe")
            assert (await venue.receive())["event"] == "unsubscribe"
            venue.server.advance(200)
            await venue.subscribe("books")
            assert (await venue.receive())["event"] == "subscribe"
            assert (await venue.receive())["action"] == "snapshot"

    run(main())


def test_trades_merge_the_fills_of_an_order_so_that_no_id_is_missing() -> None:
    async def main() -> None:
        async with okx() as venue:
            await venue.subscribe("trades", SWAP)
            await venue.receive()
            book = venue.host.emulator.book_of(SWAP)
            last, counts = book.trade_id, set()
            venue.server.advance(600)
            while last < book.trade_id:
                (trade,) = (await venue.push("trades"))["data"]
                assert list(trade) == ["instId", "tradeId", "px", "sz", "side", "ts", "count", "source", "seqId"]
                assert int(trade["tradeId"]) - int(trade["count"]) == last
                last = int(trade["tradeId"])
                counts.add(trade["count"])
                fills = [fill for fill in book.trades if last - int(trade["count"]) < fill.trade_id <= last]
                total = sum(fill.size for fill in fills)
                assert venue.host.emulator.level_text(book, (fills[0].price, total)) == [trade["px"], trade["sz"]]
                assert trade["side"] == ("buy" if fills[0].aggressor == 1 else "sell")
            assert counts == {"1", "2"}

    run(main())


def test_quotes_are_the_top_of_the_book_in_both_channels() -> None:
    async def main() -> None:
        async with okx() as venue:
            book = venue.host.emulator.book_of(SPOT)
            bid, ask = (venue.host.emulator.level_text(book, side[0]) for side in book.depth(1)[1:])
            await venue.subscribe("bbo-tbt")
            (quote,) = (await venue.push("bbo-tbt"))["data"]
            assert [row[:2] for row in (*quote["bids"], *quote["asks"])] == [bid, ask]
            assert quote["seqId"] == book.update_id
            await venue.subscribe("tickers")
            (ticker,) = (await venue.push("tickers"))["data"]
            assert [ticker["bidPx"], ticker["bidSz"], ticker["askPx"], ticker["askSz"]] == [*bid, *ask]

    run(main())


@pytest.mark.parametrize(
    ("channel", "name", "fields"),
    [
        ("mark-price", SWAP, {"instId", "instType", "markPx", "ts"}),
        ("index-tickers", SPOT, {"instId", "idxPx", "ts"}),
        ("open-interest", SWAP, {"instId", "instType", "oi", "ts"}),
        ("funding-rate", SWAP, {"instId", "instType", "fundingRate", "fundingTime", "nextFundingTime",
                                "nextFundingRate", "prevFundingTime", "ts"}),
    ],
)  # fmt: skip
def test_contracts_tell_more_than_books(channel: str, name: str, fields: set[str]) -> None:
    async def main() -> None:
        async with okx() as venue:
            await venue.subscribe(channel, name)
            (data,) = (await venue.push(channel))["data"]
            assert set(data) == fields and data["instId"] == name

    run(main())


def test_futures_have_no_funding_and_spot_pairs_no_mark() -> None:
    async def main() -> None:
        async with okx() as venue:
            for channel, name in (("funding-rate", "BTC-USD-261225"), ("mark-price", SPOT)):
                await venue.subscribe(channel, name)
                assert (await venue.receive())["code"] == "60018"

    run(main())


def test_silent_connection_is_cut_unless_it_pings() -> None:
    async def main() -> None:
        async with okx(silence_s=0.2) as venue:
            message = await venue.socket.receive()
            assert message.type is CLOSE and venue.socket.close_code == 4004

    run(main())


def test_too_many_requests_are_refused_by_code() -> None:
    async def main() -> None:
        async with okx(requests_per_hour=2) as venue:
            for _ in range(3):
                await venue.subscribe("trades")
            answers = [await venue.receive() for _ in range(3)]
            assert [answer["event"] for answer in answers] == ["subscribe", "subscribe", "error"]
            assert answers[2]["code"] == "60014"

    run(main())


def test_shutdown_is_announced_by_a_notice() -> None:
    async def main() -> None:
        async with okx() as venue:
            venue.host.inject(Fault(fault=FaultKind.SHUTDOWN_NOTICE))
            notice = await venue.receive()
            assert (notice["event"], notice["code"]) == ("notice", "64008")

    run(main())


def test_old_checksum_is_that_of_the_best_25_levels() -> None:
    async def main() -> None:
        async with okx(checksums=True) as venue:
            await venue.subscribe("books")
            (snapshot,) = (await venue.push("books"))["data"]
            text = ":".join(
                f"{bid[0]}:{bid[1]}:{ask[0]}:{ask[1]}"
                for bid, ask in zip(snapshot["bids"][:25], snapshot["asks"][:25], strict=True)
            )
            assert snapshot["checksum"] % 2**32 == zlib.crc32(text.encode())

    run(main())


# ---- REST -------------------------------------------------------------------------------------------------


def test_lists_are_by_type_and_say_what_a_contract_is() -> None:
    async def main() -> None:
        async with okx() as venue:
            rows = {}
            for kind in ("SPOT", "SWAP", "FUTURES"):
                status, answer = await venue.get(f"/api/v5/public/instruments?instType={kind}")
                assert (status, answer["code"]) == (200, "0")
                (rows[kind],) = answer["data"]
            assert [row["instId"] for row in rows.values()] == [SPOT, SWAP, "BTC-USD-261225"]
            assert (rows["SPOT"]["baseCcy"], rows["SPOT"]["quoteCcy"], rows["SPOT"]["uly"]) == ("BTC", "USDT", "")
            swap, future = rows["SWAP"], rows["FUTURES"]
            assert (swap["baseCcy"], swap["uly"], swap["ctType"], swap["ctValCcy"]) == ("", SPOT, "linear", "BTC")
            assert (future["ctType"], future["ctVal"], future["settleCcy"]) == ("inverse", "100", "BTC")
            assert future["expTime"] == "1798185600000"  # 2026-12-25 08:00 UTC

    run(main())


def test_book_by_rest_has_the_ids_of_the_stream() -> None:
    async def main() -> None:
        async with okx() as venue:
            _, answer = await venue.get(f"/api/v5/market/books?instId={SPOT}&sz=3")
            (book,) = answer["data"]
            assert len(book["asks"]) == len(book["bids"]) == 3
            assert book["seqId"] == venue.host.emulator.book_of(SPOT).update_id

    run(main())


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v5/public/instruments?instType=FRUIT", 400, "51000"),
        ("/api/v5/public/instruments?instType=OPTION", 400, "50014"),
        ("/api/v5/market/books?instId=NO-SUCH", 400, "51001"),
        ("/api/v5/nothing", 404, "404"),
    ],
)
def test_wrong_call_is_answered_by_its_code(path: str, status: int, code: str) -> None:
    async def main() -> None:
        async with okx() as venue:
            found, answer = await venue.get(path)
            assert (found, answer["code"]) == (status, code)

    run(main())


def test_too_many_calls_and_nameless_clients_are_turned_away() -> None:
    async def main() -> None:
        async with okx() as venue:
            path = "/api/v5/public/instruments?instType=SPOT"
            assert (await venue.get(path, **{"User-Agent": ""}))[0] == 403
            answers = [await venue.get(path) for _ in range(25)]
            assert {status for status, _ in answers} == {200, 429}
            assert answers[-1][1]["code"] == "50011"

    run(main())
