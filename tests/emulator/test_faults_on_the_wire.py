"""Each fault as a client sees it, over real sockets, and as the truth log tells it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from mdring.emulator.faults import FRAME_FAULTS, HUGE_VALUE, FaultKind
from tests.emulator.bench import Bench, emulated, run, texts

STREAM = "btcusdt@trade"
TEXT, CLOSE, CLOSED = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED


async def trade_ids(bench: Bench, fault: FaultKind, **parameters: Any) -> list[int]:
    """Trade ids, counted from the first true one, of what a client gets under a fault."""
    socket = await bench.connect(f"/ws/{STREAM}")
    await bench.wait_for(lambda: bench.host.connections)
    bench.inject(fault, **parameters)
    book = bench.host.emulator.book_of("BTCUSDT")
    bench.server.advance(100)
    sent = next(iter(bench.host.connections.values())).sent
    return [message["t"] - book.first_trade_id for message in await texts(socket, sent)]


def test_a_dropped_message_is_missing() -> None:
    async def main() -> None:
        async with emulated() as bench:
            ids = await trade_ids(bench, FaultKind.DROP, match="@trade", after=2, count=2)
            assert ids[:4] == [0, 1, 4, 5]

    run(main())


def test_a_duplicated_message_comes_twice() -> None:
    async def main() -> None:
        async with emulated() as bench:
            ids = await trade_ids(bench, FaultKind.DUPLICATE, match="@trade", after=1)
            assert ids[:4] == [0, 1, 1, 2]

    run(main())


def test_reordered_messages_swap_and_none_is_lost() -> None:
    async def main() -> None:
        async with emulated() as bench:
            ids = await trade_ids(bench, FaultKind.REORDER, match="@trade", after=1, count=2)
            assert ids[:6] == [0, 2, 1, 4, 3, 5]

    run(main())


def test_a_fault_that_matches_another_stream_leaves_this_one_alone() -> None:
    async def main() -> None:
        async with emulated() as bench:
            ids = await trade_ids(bench, FaultKind.DROP, match="@depth", count=0)
            assert ids == list(range(len(ids)))

    run(main())


@pytest.mark.parametrize("fault", [FaultKind.GARBAGE, FaultKind.TRUNCATE])
def test_an_invalid_message_is_text_but_no_json(fault: FaultKind) -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect(f"/ws/{STREAM}")
            await bench.wait_for(lambda: bench.host.connections)
            bench.inject(fault)
            bench.server.advance(100)
            message = await socket.receive()
            assert message.type is TEXT
            with pytest.raises(json.JSONDecodeError):
                json.loads(message.data)
            assert (await texts(socket, 1))[0]["e"] == "trade"

    run(main())


def test_a_wrong_type_and_a_huge_value_stand_in_place_of_the_price() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect(f"/ws/{STREAM}")
            await bench.wait_for(lambda: bench.host.connections)
            bench.inject(FaultKind.WRONG_TYPE)
            bench.inject(FaultKind.HUGE_VALUE)
            bench.server.advance(100)
            first, second, third = await texts(socket, 3)
            assert first["p"] == {}
            assert second["p"] == HUGE_VALUE.decode()
            assert [second["t"], third["t"]] == [first["t"] + 1, first["t"] + 2]

    run(main())


def test_a_binary_frame_carries_the_message() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect(f"/ws/{STREAM}")
            await bench.wait_for(lambda: bench.host.connections)
            bench.inject(FaultKind.BINARY)
            bench.server.advance(100)
            message = await socket.receive()
            assert message.type is aiohttp.WSMsgType.BINARY
            assert json.loads(message.data)["e"] == "trade"

    run(main())


def test_close_at_once_befalls_all_connections_with_code_and_reason() -> None:
    async def main() -> None:
        async with emulated() as bench:
            sockets = [await bench.connect("/ws", autoclose=False) for _ in range(2)]
            await bench.wait_for(lambda: len(bench.host.connections) == 2)
            assert bench.inject(FaultKind.CLOSE, code=1012, reason="restart") == 2
            for socket in sockets:
                message = await socket.receive()
                assert (message.type, message.data, message.extra) == (CLOSE, 1012, "restart")
                await socket.close()
            await bench.wait_for(lambda: not bench.host.connections)

    run(main())


def test_close_can_wait_for_a_message_which_it_replaces() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect(f"/ws/{STREAM}")
            await bench.wait_for(lambda: bench.host.connections)
            assert bench.inject(FaultKind.CLOSE, match="@trade", after=3) == 0
            bench.server.advance(100)
            await texts(socket, 3)
            assert (await socket.receive()).type is CLOSE
            assert bench.host.injector.fired == {FaultKind.CLOSE: 1}

    run(main())


def test_a_client_that_ignores_the_close_is_cut_off() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws", autoclose=False)
            await bench.wait_for(lambda: bench.host.connections)
            bench.inject(FaultKind.CLOSE)
            assert (await socket.receive()).type is CLOSE
            await bench.wait_for(lambda: not bench.host.connections)

    run(main())


def test_reset_ends_the_tcp_connection_without_a_close_frame() -> None:
    async def main() -> None:
        async with emulated() as bench:
            url = bench.host.websocket_url.removeprefix("ws://").split(":")
            reader, writer = await asyncio.open_connection(url[0], int(url[1]))
            writer.write(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            assert bench.inject(FaultKind.RESET) == 1
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(main())


@pytest.mark.parametrize("pings", [True, False])
def test_stall_is_silent_on_an_open_socket_with_or_without_pings(pings: bool) -> None:
    async def main() -> None:
        options = {"binance": {"ping_interval_s": 0.2, "pong_timeout_s": 60}}
        async with emulated(options=options) as bench:
            socket = await bench.connect(f"/ws/{STREAM}", autoping=False)
            await bench.wait_for(lambda: bench.host.connections)
            assert bench.inject(FaultKind.STALL, pings=pings, duration_ms=1000) == 1
            bench.server.advance(200)
            await socket.send_str('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            kinds = []
            connection = next(iter(bench.host.connections.values()))
            await bench.wait_for(lambda: not connection.is_stalled)
            bench.server.advance(100)
            while TEXT not in kinds:
                kinds.append((await socket.receive()).type)
            assert (len(kinds) > 2) is pings  # those of the stall, before the first text after it
            assert not socket.closed

    run(main())


def test_stall_lasts_until_cleared_and_loses_what_was_due() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect(f"/ws/{STREAM}")
            await bench.wait_for(lambda: bench.host.connections)
            bench.inject(FaultKind.STALL)
            bench.server.advance(100)
            lost = bench.host.emulator.book_of("BTCUSDT").trade_id
            await bench.host.clear_faults()
            bench.server.advance(100)
            assert (await texts(socket, 1))[0]["t"] == lost + 1

    run(main())


def test_refuse_lets_nobody_connect_keeps_the_old_ones_and_ends() -> None:
    async def main() -> None:
        async with emulated() as bench:
            old = await bench.connect(f"/ws/{STREAM}")
            await bench.wait_for(lambda: bench.host.connections)
            url = bench.host.websocket_url
            bench.inject(FaultKind.REFUSE)
            for _ in range(3):
                with pytest.raises(aiohttp.ClientConnectorError):
                    await bench.connect("/ws")
            bench.server.advance(100)
            assert (await texts(old, 1))[0]["e"] == "trade"
            await bench.host.clear_faults()
            assert bench.host.websocket_url == url
            await bench.connect("/ws")

    run(main())


def test_refuse_for_a_while_listens_again_by_itself() -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.inject(FaultKind.REFUSE, duration_ms=1000)
            refused = 0
            while True:
                try:
                    await bench.connect("/ws")
                except aiohttp.ClientConnectorError:
                    refused += 1
                    await asyncio.sleep(0.02)
                else:
                    break
            assert refused > 0

    run(main())


def test_refuse_with_a_status_answers_the_upgrade_by_it() -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.inject(FaultKind.REFUSE, status=503, retry_after_s=7)
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await bench.connect("/ws")
            assert caught.value.status == 503
            assert caught.value.headers is not None
            assert caught.value.headers["Retry-After"] == "7"
            await bench.connect("/ws")

    run(main())


@pytest.mark.parametrize(("status", "retry_after_s"), [(0, 0), (429, 30), (418, 120), (451, 0)])
def test_rest_fails_with_the_asked_status(status: int, retry_after_s: int) -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.inject(FaultKind.REST_ERROR, match="/depth", status=status, retry_after_s=retry_after_s)
            path = "/api/v3/depth?symbol=BTCUSDT"
            async with bench.session.get(bench.host.rest_url + path) as answer:
                assert answer.status == (status or 500)
                assert answer.headers.get("Retry-After") == (str(retry_after_s) if retry_after_s else None)
            assert (await bench.get(path))[0] == 200

    run(main())


def test_rest_can_be_slow_and_then_answers() -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.inject(FaultKind.REST_SLOW, delay_ms=400)
            started = asyncio.get_running_loop().time()
            assert (await bench.get("/api/v3/ping"))[0] == 200
            assert asyncio.get_running_loop().time() - started >= 0.4

    run(main())


def test_rest_can_be_reset() -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.inject(FaultKind.REST_RESET, count=5)
            with pytest.raises(aiohttp.ClientError):
                await bench.get("/api/v3/ping")

    run(main())


def test_a_stale_snapshot_is_older_than_any_delta() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws/btcusdt@depth@100ms")
            await bench.wait_for(lambda: bench.host.connections)
            bench.server.advance(100)
            (delta,) = await texts(socket, 1)
            bench.inject(FaultKind.STALE_SNAPSHOT)
            path = "/api/v3/depth?symbol=BTCUSDT&limit=5000"
            _, stale, _ = await bench.get(path)
            assert stale["lastUpdateId"] + 1 < delta["U"]
            assert stale["bids"] and stale["asks"]
            _, fresh, _ = await bench.get(path)
            assert fresh["lastUpdateId"] >= delta["u"]

    run(main())


def test_a_stale_snapshot_within_the_history_is_the_book_of_that_time() -> None:
    async def main() -> None:
        async with emulated() as bench:
            bench.server.advance(200)
            book = bench.host.emulator.book_of("BTCUSDT")
            bench.inject(FaultKind.STALE_SNAPSHOT, lag=20)
            _, stale, _ = await bench.get("/api/v3/depth?symbol=BTCUSDT&limit=5000")
            then = book.at(book.update_id - 20)
            assert stale["lastUpdateId"] == then.update_id
            assert stale["asks"] == [bench.host.emulator.level_text(book, level) for level in then.asks]

    run(main())


def test_the_shutdown_notice_is_sent_on_demand() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws")
            await bench.wait_for(lambda: bench.host.connections)
            bench.inject(FaultKind.SHUTDOWN_NOTICE)
            assert (await texts(socket, 1))[0]["e"] == "serverShutdown"

    run(main())


def test_the_truth_log_holds_what_was_sent_and_what_befell_it(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "truth.jsonl"
        async with emulated(truth=path) as bench:
            socket = await bench.connect(f"/ws/{STREAM}")
            await bench.wait_for(lambda: bench.host.connections)
            for fault in (FaultKind.DROP, FaultKind.DUPLICATE, FaultKind.TRUNCATE, FaultKind.REORDER):
                bench.inject(fault)
            bench.server.advance(100)
            await bench.server.pause()
            sent = next(iter(bench.host.connections.values())).sent
            received = [(await socket.receive()).data for _ in range(sent)]
            await socket.close()
            await bench.wait_for(lambda: not bench.host.connections)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [lines[0]["ev"], lines[0]["path"], lines[-1]["ev"]] == ["open", f"/ws/{STREAM}", "close"]
        told = [line for line in lines if line["ev"] == "sent"]
        assert all((line["venue"], line["stream"]) == ("binance", STREAM) for line in told)
        texts_told = [
            line["text"] if "text" in line else json.dumps(line["message"], separators=(",", ":")) for line in told
        ]
        assert texts_told == received
        withheld = [line for line in lines if line["ev"] == "fault"]
        assert [line["fault"] for line in withheld] == ["drop"]
        assert [line["fault"] for line in told if "fault" in line] == ["truncate"]
        stamps = [line["ts"] for line in lines]
        assert stamps == sorted(stamps)

    run(main())


def test_the_truth_log_is_the_wire_under_random_faults_of_all_kinds(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "truth.jsonl"
        async with emulated(truth=path) as bench:
            streams = "btcusdt@trade/btcusdt@bookTicker/ethusdt@bookTicker"
            socket = await bench.connect(f"/stream?streams={streams}")
            await bench.wait_for(lambda: bench.host.connections)
            for kind in sorted(FRAME_FAULTS):
                bench.inject(kind, count=0, probability=0.05)
            bench.server.advance(2000)
            await bench.server.pause()
            sent = next(iter(bench.host.connections.values())).sent
            received = [(await socket.receive()).data for _ in range(sent)]
            fired = bench.host.injector.fired
        assert set(fired) == FRAME_FAULTS
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        told = [
            line["text"] if "text" in line else json.dumps(line["message"], separators=(",", ":"))
            for line in lines
            if line["ev"] == "sent"
        ]
        assert told == [data.decode() if isinstance(data, bytes) else data for data in received]
        assert sum(line["ev"] == "fault" for line in lines) == fired[FaultKind.DROP]

    run(main())
