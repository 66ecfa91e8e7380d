"""The emulated Binance over real sockets, held against the venue's documentation; no code of our adapter."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from mdring.emulator.instruments import decimal_text
from tests.emulator.bench import Bench, ask, emulated, run, texts

TEXT, PING, CLOSE = aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING, aiohttp.WSMsgType.CLOSE
DECIMAL = re.compile(r"\d+\.\d{8}")


def binance(**options: Any) -> dict[str, Any]:
    return {"options": {"binance": options}}


async def by_stream(bench: Bench, streams: str, steps: int, wanted: dict[str, int]) -> dict[str, list[Any]]:
    """Payloads per stream of a combined connection, once there are as many of each as wanted."""
    socket = await bench.connect(f"/stream?streams={streams}")
    await bench.wait_for(lambda: bench.host.connections)
    bench.server.advance(steps)
    seen: dict[str, list[Any]] = {}
    while any(len(seen.get(stream, ())) < count for stream, count in wanted.items()):
        (message,) = await texts(socket, 1)
        assert list(message) == ["stream", "data"]
        seen.setdefault(message["stream"], []).append(message["data"])
    return seen


def test_trades_are_consecutive_with_keys_as_documented() -> None:
    async def main() -> None:
        async with emulated() as bench:
            seen = await by_stream(bench, "btcusdt@trade", 200, {"btcusdt@trade": 20})
            trades = seen["btcusdt@trade"]
            truth = {t.trade_id: t for t in bench.host.emulator.book_of("BTCUSDT").trades}
            for number, trade in enumerate(trades):
                assert list(trade) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
                assert (trade["e"], trade["s"], trade["M"]) == ("trade", "BTCUSDT", True)
                assert trade["t"] == trades[0]["t"] + number
                assert DECIMAL.fullmatch(trade["p"]) and DECIMAL.fullmatch(trade["q"])
                true = truth[trade["t"]]
                assert trade["p"] == decimal_text(true.price, -2, 8)
                assert trade["q"] == decimal_text(true.size, -5, 8)
                assert trade["m"] is (true.aggressor == 2)  # the taker sold, so the buyer was the maker
                assert trade["E"] >= trade["T"] == true.ts_event // 10**6

    run(main())


def test_aggregate_trades_merge_the_fills_of_one_taker_order_at_one_price() -> None:
    async def main() -> None:
        async with emulated() as bench:
            streams = "btcusdt@trade/btcusdt@aggTrade"
            seen = await by_stream(bench, streams, 300, {"btcusdt@aggTrade": 30})
            fills = {trade["t"]: trade for trade in seen["btcusdt@trade"]}
            merged = seen["btcusdt@aggTrade"]
            for before, after in pairwise(merged):
                assert after["a"] == before["a"] + 1
                assert after["f"] == before["l"] + 1
            for aggregate in merged:
                assert list(aggregate) == ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"]
                parts = [fills[number] for number in range(aggregate["f"], aggregate["l"] + 1)]
                assert {part["p"] for part in parts} == {aggregate["p"]}
                total = sum(int(part["q"].replace(".", "")) for part in parts)
                assert total == int(aggregate["q"].replace(".", ""))
            assert any(aggregate["f"] < aggregate["l"] for aggregate in merged)

    run(main())


def test_book_rebuilt_by_the_venues_recipe_equals_the_true_book_and_its_tickers() -> None:
    """Section "how to manage a local order book correctly" of the venue's documentation, 2025-11-12."""

    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/stream?streams=btcusdt@depth@100ms/btcusdt@bookTicker")
            await bench.wait_for(lambda: bench.host.connections)
            bench.server.set_rate(3000)
            buffered: list[Any] = []
            tickers: list[Any] = []
            while len(buffered) < 3:
                (message,) = await texts(socket, 1)
                (buffered if "depth" in message["stream"] else tickers).append(message["data"])
            _, snapshot, _ = await bench.get("/api/v3/depth?symbol=BTCUSDT&limit=5000")
            bids, asks, local = dict(snapshot["bids"]), dict(snapshot["asks"]), snapshot["lastUpdateId"]
            assert buffered[0]["U"] <= local + 1
            checked = applied = 0
            while applied < 10:
                (message,) = await texts(socket, 1)
                (buffered if "depth" in message["stream"] else tickers).append(message["data"])
                for delta in buffered:
                    assert list(delta) == ["e", "E", "s", "U", "u", "b", "a"]
                    if delta["u"] <= local:
                        continue
                    assert delta["U"] == local + 1 or (applied == 0 and delta["U"] <= local + 1)
                    for levels, changes in ((bids, delta["b"]), (asks, delta["a"])):
                        for price, size in changes:
                            levels[price] = size
                            if size == "0.00000000":
                                del levels[price]
                    local = delta["u"]
                    applied += 1
                    bid, ask = max(bids, key=float), min(asks, key=float)
                    latest = [ticker for ticker in tickers if ticker["u"] <= local][-1:]
                    for ticker in latest:
                        assert list(ticker) == ["u", "s", "b", "B", "a", "A"]
                        assert (ticker["b"], ticker["B"]) == (bid, bids[bid])
                        assert (ticker["a"], ticker["A"]) == (ask, asks[ask])
                        checked += 1
                buffered.clear()
            assert checked >= 5
            book = bench.host.emulator.book_of("BTCUSDT")
            true = book.at(local)
            assert bids == dict(bench.host.emulator.level_text(book, level) for level in true.bids)
            assert asks == dict(bench.host.emulator.level_text(book, level) for level in true.asks)

    run(main())


@pytest.mark.parametrize(("stream", "spacing_ms"), [("btcusdt@depth@100ms", 99), ("btcusdt@depth", 999)])
def test_diffs_of_a_symbol_keep_their_distance_and_leave_out_no_id(stream: str, spacing_ms: int) -> None:
    async def main() -> None:
        async with emulated(rate=2000) as bench:
            socket = await bench.connect(f"/ws/{stream}")
            first, second, third = await texts(socket, 3)
            assert second["E"] - first["E"] >= spacing_ms
            assert third["E"] - second["E"] >= spacing_ms
            assert (second["U"], third["U"]) == (first["u"] + 1, second["u"] + 1)
            prices = [[price for price, _ in first[side]] for side in ("b", "a")]
            assert all(len(set(side)) == len(side) for side in prices), "a window keeps the last value only"

    run(main())


def test_a_burst_beyond_the_history_is_split_but_loses_no_id() -> None:
    async def main() -> None:
        async with emulated(history_limit=300) as bench:
            socket = await bench.connect("/ws/btcusdt@depth")
            await bench.wait_for(lambda: bench.host.connections)
            start = bench.host.emulator.book_of("BTCUSDT").update_id
            bench.server.advance(2000)
            end = bench.host.emulator.book_of("BTCUSDT").update_id
            assert end - start > 300
            last = start
            while last < end:
                (delta,) = await texts(socket, 1)
                assert delta["U"] == last + 1
                last = delta["u"]

    run(main())


def test_partial_depth_is_the_whole_top_and_names_no_symbol() -> None:
    async def main() -> None:
        async with emulated() as bench:
            stream = "ethusdt@depth5@100ms"
            seen = await by_stream(bench, f"{stream}/ethusdt@depth20", 100, {stream: 1, "ethusdt@depth20": 1})
            for name, levels in ((stream, 5), ("ethusdt@depth20", 20)):
                partial = seen[name][-1]
                assert list(partial) == ["lastUpdateId", "bids", "asks"]
                book = bench.host.emulator.book_of("ETHUSDT")
                true = book.at(partial["lastUpdateId"])
                text = bench.host.emulator.level_text
                assert partial["bids"] == [text(book, level) for level in true.bids[:levels]]
                assert partial["asks"] == [text(book, level) for level in true.asks[:levels]]

    run(main())


def test_nothing_is_sent_before_the_first_change() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/stream?streams=btcusdt@depth5/btcusdt@bookTicker/btcusdt@depth")
            answer = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 1})
            assert answer["id"] == 1
            assert next(iter(bench.host.connections.values())).sent == 0

    run(main())


def test_microseconds_on_request_and_milliseconds_else() -> None:
    async def main() -> None:
        async with emulated() as bench:
            path = "/stream?streams=btcusdt@trade"
            micro = await bench.connect(f"{path}&timeUnit=MICROSECOND")
            lower = await bench.connect("/ws/btcusdt@trade?timeUnit=microsecond")
            milli = await bench.connect(path)
            await bench.wait_for(lambda: len(bench.host.connections) == 3)
            bench.server.advance(50)
            fine, coarse = (await texts(micro, 1))[0]["data"], (await texts(milli, 1))[0]["data"]
            bare = (await texts(lower, 1))[0]
            assert fine["t"] == coarse["t"] == bare["t"]
            for key in ("E", "T"):
                assert len(str(fine[key])) == 16
                assert coarse[key] == fine[key] // 1000
                assert bare[key] == fine[key]

    run(main())


def test_raw_connections_get_bare_payloads_and_may_subscribe_more() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws")
            assert await ask(socket, {"method": "SUBSCRIBE", "params": ["btcusdt@trade"], "id": "a1"}) == {
                "result": None,
                "id": "a1",
            }
            bench.server.advance(50)
            (message,) = await texts(socket, 1)
            assert message["e"] == "trade"

    run(main())


def test_requests_are_answered_as_documented() -> None:
    async def main() -> None:
        async with emulated(**binance(messages_per_second=1000)) as bench:
            socket = await bench.connect("/stream")
            subscribe = '{"method":"SUBSCRIBE","params":["btcusdt@aggTrade","btcusdt@depth@100ms"],"id":1}'
            await socket.send_str(subscribe)
            assert (await socket.receive()).data == '{"result":null,"id":1}'
            await socket.send_str('{"method":"UNSUBSCRIBE","params":["btcusdt@depth@100ms"],"id":312}')
            assert (await socket.receive()).data == '{"result":null,"id":312}'
            await socket.send_str('{"method":"LIST_SUBSCRIPTIONS","id":3}')
            assert (await socket.receive()).data == '{"result":["btcusdt@aggTrade"],"id":3}'
            await socket.send_str('{"method":"GET_PROPERTY","params":["combined"],"id":2}')
            assert (await socket.receive()).data == '{"result":true,"id":2}'
            await socket.send_str('{"method":"SET_PROPERTY","params":["combined",false],"id":null}')
            assert (await socket.receive()).data == '{"result":null,"id":null}'
            bench.server.advance(100)
            (bare,) = await texts(socket, 1)
            assert bare["e"] == "aggTrade"

    run(main())


@pytest.mark.parametrize(
    ("request_text", "code", "echoed_id"),
    [
        ('{"method":"NOT_A_METHOD","id":2}', 2, 2),
        ('{"id":4}', 2, 4),
        ('{"method":"SUBSCRIBE","params":"btcusdt@trade","id":5}', 2, 5),
        ('{"method":"SUBSCRIBE","params":[1],"id":5}', 2, 5),
        ('{"method":"SET_PROPERTY","params":["colour",true],"id":6}', 0, 6),
        ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":7}', 1, 7),
        ('{"method":"GET_PROPERTY","params":[],"id":8}', 2, 8),
        ("not json", 3, None),
        ("[]", 2, None),
        ("[" * 4000, 3, None),
        ("\x00\x00", 3, None),
        ('{"method":"LIST_SUBSCRIPTIONS","id":1.5}', 2, None),
    ],
)
def test_a_bad_request_gets_its_error_code_and_the_socket_stays_open(
    request_text: str, code: int, echoed_id: int | None
) -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws")
            answer = await ask(socket, request_text)
            assert answer["error"]["code"] == code
            assert answer.get("id") == echoed_id
            assert "id" in answer or echoed_id is None
            assert (await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 9}))["result"] == []

    run(main())


def test_the_unknown_method_error_names_what_it_expected() -> None:
    async def main() -> None:
        async with emulated() as bench:
            answer = await ask(await bench.connect("/ws"), {"method": "NOT_A_METHOD", "id": 2})
            message = answer["error"]["msg"]
            assert message.startswith("Invalid request: unknown variant `NOT_A_METHOD`, expected one of `SUBSC")

    run(main())


@pytest.mark.parametrize("stream", ["BTCUSDT@trade", "btcusdt@trades", "nosuch@trade", "btcusdt@depth7"])
def test_a_misspelt_stream_is_acknowledged_and_silent(stream: str) -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws")
            assert await ask(socket, {"method": "SUBSCRIBE", "params": [stream], "id": 1}) == {
                "result": None,
                "id": 1,
            }
            bench.server.advance(500)
            answer = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 2})
            assert answer["result"] == [stream]
            await bench.server.pause()
            assert next(iter(bench.host.connections.values())).sent == 0

    run(main())


def test_a_misspelt_stream_in_the_url_is_upgraded_and_silent() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/stream?streams=BTCUSDT@trade/ethusdt@trade")
            await bench.wait_for(lambda: bench.host.connections)
            bench.server.advance(100)
            assert {message["stream"] for message in await texts(socket, 3)} == {"ethusdt@trade"}

    run(main())


def test_subscribing_twice_changes_nothing() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws/btcusdt@trade")
            request = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@trade"], "id": 1}
            assert (await ask(socket, request))["result"] is None
            bench.server.advance(100)
            first, second = await texts(socket, 2)
            assert second["t"] == first["t"] + 1

    run(main())


def test_unsubscribing_ends_the_stream() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/stream?streams=btcusdt@trade/ethusdt@trade")
            await ask(socket, {"method": "UNSUBSCRIBE", "params": ["btcusdt@trade", "x@y"], "id": 1})
            bench.server.advance(200)
            assert {message["stream"] for message in await texts(socket, 5)} == {"ethusdt@trade"}

    run(main())


def test_an_unknown_path_is_refused_with_404() -> None:
    async def main() -> None:
        async with emulated() as bench:
            for path in ("/stream/nonsense", "/", "/wsx"):
                with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                    await bench.connect(path)
                assert caught.value.status == 404

    run(main())


def test_messages_beyond_the_limit_close_with_1008() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws", autoclose=False)
            for number in range(3):
                await socket.send_str(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
            await socket.ping()
            await socket.pong()
            answers = await texts(socket, 3)
            assert [answer["id"] for answer in answers] == [0, 1, 2]
            for _ in range(6):  # too many by themselves, should a second have passed
                await socket.ping()
            message = await socket.receive()
            assert (message.type, message.data, message.extra) == (CLOSE, 1008, "Too many requests")

    run(main())


def test_more_streams_than_allowed_are_an_error_and_nothing_is_added() -> None:
    async def main() -> None:
        async with emulated(**binance(max_streams=3)) as bench:
            socket = await bench.connect("/ws/btcusdt@trade")
            names = ["ethusdt@trade", "ethusdt@depth", "ethusdt@aggTrade"]
            answer = await ask(socket, {"method": "SUBSCRIBE", "params": names, "id": 1})
            assert answer == {"error": {"code": 4, "msg": "Too many subscriptions"}, "id": 1}
            answer = await ask(socket, {"method": "LIST_SUBSCRIPTIONS", "id": 2})
            assert answer["result"] == ["btcusdt@trade"]
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await bench.connect("/stream?streams=" + "/".join([*names, "btcusdt@trade"]))
            assert caught.value.status == 400

    run(main())


def test_a_message_above_4096_bytes_is_cut_and_thus_invalid() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws")
            request = {"method": "SUBSCRIBE", "params": ["x" * 5000], "id": 1}
            answer = await ask(socket, request)
            message = "Invalid JSON: EOF while parsing a string at line 1 column 4096"
            assert answer == {"error": {"code": 3, "msg": message}}

    run(main())


def test_pings_come_and_a_client_that_answers_stays() -> None:
    async def main() -> None:
        async with emulated(**binance(ping_interval_s=0.3, pong_timeout_s=1.0)) as bench:
            socket = await bench.connect("/ws", autoping=False)
            payloads = []
            for _ in range(6):  # 1.8 s: longer than the time-out
                message = await socket.receive()
                assert message.type is PING
                payloads.append(bytes(message.data))
                await socket.pong(message.data)
            assert len(set(payloads)) == 6
            assert all(payload.isdigit() for payload in payloads)

    run(main())


@pytest.mark.parametrize("answer", [None, b"something else"])
def test_without_the_right_pong_the_connection_is_closed(answer: bytes | None) -> None:
    async def main() -> None:
        async with emulated(**binance(ping_interval_s=0.3, pong_timeout_s=1.0)) as bench:
            socket = await bench.connect("/ws", autoping=False)
            kinds = []
            while not socket.closed:
                message = await socket.receive()
                kinds.append(message.type)
                if message.type is PING and answer is not None:
                    await socket.pong(answer)
            assert kinds.count(PING) >= 3
            assert socket.close_code == 1008

    run(main())


def test_a_connection_ends_with_its_life() -> None:
    async def main() -> None:
        async with emulated(**binance(life_s=0.2)) as bench:
            socket = await bench.connect("/ws")
            assert (await socket.receive()).type is CLOSE

    run(main())


def test_connection_attempts_beyond_the_limit_are_refused() -> None:
    async def main() -> None:
        async with emulated(**binance(connections_per_5min=2)) as bench:
            await bench.connect("/ws")
            await bench.connect("/ws")
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await bench.connect("/ws")
            assert caught.value.status == 429

    run(main())


def test_the_planned_shutdown_is_announced_in_the_form_of_the_connection() -> None:
    async def main() -> None:
        async with emulated() as bench:
            raw, combined = await bench.connect("/ws"), await bench.connect("/stream")
            await bench.wait_for(lambda: len(bench.host.connections) == 2)
            bench.host.emulator.announce_shutdown()
            (bare,), (wrapped,) = await texts(raw, 1), await texts(combined, 1)
            assert list(bare) == ["e", "E"] and bare["e"] == "serverShutdown"
            assert wrapped == {"stream": "!serverShutdown", "data": {**bare, "E": wrapped["data"]["E"]}}

    run(main())


def test_one_market_event_reaches_all_connections_alike() -> None:
    async def main() -> None:
        async with emulated() as bench:
            sockets = [await bench.connect("/ws/btcusdt@trade") for _ in range(3)]
            await bench.wait_for(lambda: len(bench.host.connections) == 3)
            bench.server.advance(100)
            received = [await texts(socket, 10) for socket in sockets]
            assert received[0] == received[1] == received[2]

    run(main())


def test_only_pairs_are_listed_and_the_names_have_no_separator() -> None:
    async def main() -> None:
        async with emulated(instruments=("BTC-USDT", "BTC-USDT-PERP", "ETH-BTC")) as bench:
            assert bench.host.emulator.instruments() == {"BTC-USDT": "BTCUSDT", "ETH-BTC": "ETHBTC"}
            bench.server.advance(100)  # events of what is not listed are passed over

    run(main())
