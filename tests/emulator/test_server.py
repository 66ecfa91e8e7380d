"""The server and its control endpoint in-process: pausing, truth, limits of the sockets, TLS, bad calls."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme

from mdring.emulator import connection
from mdring.emulator.faults import FaultKind
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from tests.emulator.bench import ask, emulated, run, texts

UPGRADE = (
    b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_pause_returns_when_all_that_happened_is_on_the_wire() -> None:
    async def main() -> None:
        async with emulated(rate=2000) as bench:
            socket = await bench.connect("/stream?streams=btcusdt@trade/btcusdt@depth")
            trade, delta = 0, 0
            for message in await texts(socket, 100):
                trade, delta = message["data"].get("t", trade), message["data"].get("u", delta)
            await bench.server.pause()
            sent = next(iter(bench.host.connections.values())).sent
            for message in await texts(socket, sent - 100):
                trade, delta = message["data"].get("t", trade), message["data"].get("u", delta)
            book = bench.host.emulator.book_of("BTCUSDT")
            assert (trade, delta) == (book.trade_id, book.update_id)
            steps = bench.server.market.steps
            bench.server.set_rate(5000)  # a paused market stays paused
            await asyncio.sleep(0.1)
            assert bench.server.market.steps == steps
            bench.server.resume()
            assert (await texts(socket, 1))[0]["stream"].startswith("btcusdt@")

    run(main())


def test_pause_and_truth_over_the_control_endpoint() -> None:
    async def main() -> None:
        async with emulated(rate=1000) as bench:
            await bench.wait_for(lambda: bench.server.market.steps > 200)
            assert (await bench.control("POST", "/pause"))[0] == 200
            book = bench.host.emulator.book_of("BTCUSDT")
            query = "venue=binance&instrument=BTCUSDT"
            status, now = await bench.control("GET", f"/truth/book?{query}&limit=3")
            assert (status, now["last_update_id"]) == (200, book.update_id)
            assert now["oldest_update_id"] == book.oldest_update_id
            assert len(now["bids"]) == len(now["asks"]) == 3
            _, rest, _ = await bench.get("/api/v3/depth?symbol=BTCUSDT&limit=3")
            assert (now["bids"], now["asks"]) == (rest["bids"], rest["asks"])
            past_id = book.update_id - 50
            _, past = await bench.control("GET", f"/truth/book?{query}&update_id={past_id}")
            assert past["last_update_id"] == past_id
            assert past["bids"] == [bench.host.emulator.level_text(book, level) for level in book.at(past_id).bids]
            _, trades = await bench.control("GET", f"/truth/trades?{query}")
            assert trades["last_id"] == book.trade_id
            assert trades["count"] == len(trades["trades"]) == trades["last_id"] - trades["first_id"] + 1
            _, some = await bench.control(
                "GET", f"/truth/trades?{query}&from_id={book.trade_id - 3}&to_id={book.trade_id - 1}"
            )
            assert [trade["id"] for trade in some["trades"]] == [book.trade_id - n for n in (3, 2, 1)]
            assert some["trades"][0]["aggressor"] in {"BUY", "SELL"}
            _, names = await bench.control("GET", "/truth/instruments?venue=binance")
            assert names == {"BTC-USDT": "BTCUSDT", "ETH-USDT": "ETHUSDT"}

    run(main())


def test_rate_and_steps_over_the_control_endpoint() -> None:
    async def main() -> None:
        async with emulated() as bench:
            assert await bench.control("POST", "/advance", {"steps": 5000}) == (200, {"steps": 5000})
            await bench.control("POST", "/rate", {"rate": 500})
            await bench.wait_for(lambda: bench.server.market.steps > 5050)
            _, stats = await bench.control("GET", "/stats")
            assert stats["rate"] == 500 and stats["steps"] > 5050
            assert (await bench.control("POST", "/resume"))[0] == 200
            assert await bench.control("GET", "/endpoints") == (200, bench.server.endpoints)

    run(main())


def test_faults_over_the_control_endpoint() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws", autoclose=False)
            await bench.wait_for(lambda: bench.host.connections)
            drop = {"venue": "binance", "fault": "drop", "match": "depth", "count": 3}
            assert await bench.control("POST", "/faults", drop) == (200, {"applied": 0})
            close = {"venue": "binance", "fault": "close", "code": 1001}
            assert await bench.control("POST", "/faults", close) == (200, {"applied": 1})
            assert (await socket.receive()).data == 1001
            _, faults = await bench.control("GET", "/faults?venue=binance")
            assert [fault["fault"] for fault in faults["binance"]["armed"]] == ["drop"]
            assert faults["binance"]["fired"] == {"close": 1}
            await bench.control("DELETE", "/faults")
            _, faults = await bench.control("GET", "/faults")
            assert faults["binance"]["armed"] == []

    run(main())


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/faults", {"venue": "binance", "fault": "explode"}, 400),
        ("POST", "/faults", {"venue": "binance", "fault": "drop", "counts": 2}, 400),
        ("POST", "/faults", {"fault": "drop"}, 400),
        ("POST", "/faults", {"venue": "nowhere", "fault": "drop"}, 404),
        ("POST", "/faults", None, 400),
        ("POST", "/rate", {"rate": -1}, 400),
        ("POST", "/rate", {"rate": "fast"}, 400),
        ("POST", "/advance", {"steps": -1}, 400),
        ("GET", "/truth/book?venue=binance&instrument=NOSUCH", None, 404),
        ("GET", "/truth/book?venue=binance", None, 400),
        ("GET", "/truth/book?venue=binance&instrument=BTCUSDT&update_id=x", None, 400),
        ("GET", "/truth/book?venue=binance&instrument=BTCUSDT&update_id=1", None, 410),
        ("GET", "/truth/trades?venue=nowhere&instrument=BTCUSDT", None, 404),
    ],
)
def test_a_bad_control_call_says_what_is_wrong(method: str, path: str, body: object, status: int) -> None:
    async def main() -> None:
        async with emulated() as bench:
            got, answer = await bench.control(method, path, body)
            assert got == status
            assert answer["error"]

    run(main())


def test_statistics_tell_connections_and_what_they_got() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws/btcusdt@trade")
            await bench.wait_for(lambda: bench.host.connections)
            bench.server.advance(100)
            await texts(socket, 5)
            venue = bench.server.statistics()["venues"]["binance"]
            assert venue["opened"] == 1
            (sent,) = venue["connections"].values()
            assert sent == len(bench.host.emulator.book_of("BTCUSDT").trades)
            await socket.close()
            await bench.wait_for(lambda: not bench.host.connections)

    run(main())


def test_a_client_may_send_a_message_in_fragments() -> None:
    async def main() -> None:
        async with emulated() as bench:
            socket = await bench.connect("/ws")
            request = b'{"method":"LIST_SUBSCRIPTIONS","id":5}'
            writer = socket._writer  # aiohttp offers no public way to send a fragment
            await _send_frame(writer, request[:10], first=True, last=False)
            await _send_frame(writer, request[10:], first=False, last=True)
            assert (await texts(socket, 1))[0] == {"result": [], "id": 5}

    run(main())


async def _send_frame(writer: aiohttp.http.WebSocketWriter, part: bytes, *, first: bool, last: bool) -> None:
    header = bytes([(0x80 if last else 0) | (0x1 if first else 0x0), 0x80 | len(part)])
    writer.transport.write(header + b"\0\0\0\0" + part)  # an all-zero mask leaves the payload as it is


def test_a_client_that_does_not_read_is_cut_off_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_BACKLOG_BYTES", 64 * 1024)

    async def main() -> None:
        async with emulated() as bench:
            address = bench.host.websocket_url.removeprefix("ws://").split(":")
            reader, writer = await asyncio.open_connection(address[0], int(address[1]), limit=1024)
            writer.write(UPGRADE)
            await reader.readuntil(b"\r\n\r\n")
            other = await bench.connect("/ws/btcusdt@trade")
            await bench.wait_for(lambda: len(bench.host.connections) == 2)
            last = 0
            while len(bench.host.connections) == 2:
                bench.server.advance(500)
                book = bench.host.emulator.book_of("BTCUSDT")
                while last < book.trade_id:
                    last = (await texts(other, 1))[0]["t"]
            assert not other.closed
            writer.close()

    run(main())


def test_tls_serves_wss_and_https_with_the_given_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.private_key_pem.write_to_path(str(key))
    for number, part in enumerate(certificate.cert_chain_pems):
        part.write_to_path(str(cert), append=number > 0)
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def main() -> None:
        async with emulated(tls_cert=cert, tls_key=key) as bench:
            assert bench.host.websocket_url.startswith("wss://")
            assert bench.host.rest_url.startswith("https://")
            socket = await bench.connect("/ws/btcusdt@trade", ssl=context)
            await bench.wait_for(lambda: bench.host.connections)
            bench.server.advance(100)
            assert (await texts(socket, 1))[0]["e"] == "trade"
            async with bench.session.get(bench.host.rest_url + "/api/v3/ping", ssl=context) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await bench.connect("/ws")  # without trust in the test's authority
            assert bench.inject(FaultKind.RESET) == 1
            await bench.wait_for(lambda: not bench.host.connections)

    run(main())


def test_ports_are_taken_as_asked_and_free_after_the_end() -> None:
    async def main() -> None:
        async with emulated() as bench:
            url = bench.host.websocket_url
        port = int(url.rsplit(":", 1)[1])
        async with emulated(port=port) as bench:
            assert bench.host.websocket_url == url
            assert bench.host.rest_url.endswith(f":{port + 1}")
            await ask(await bench.connect("/ws"), {"method": "LIST_SUBSCRIPTIONS", "id": 1})

    run(main())


def test_the_end_of_the_server_closes_its_connections() -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            server = EmulatorServer(EmulatorConfig(rate=0))
            await server.start()
            socket = await session.ws_connect(server.venues["binance"].websocket_url + "/ws", autoclose=False)
            await server.stop()
            message = await socket.receive()
            assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1001)
            await socket.close()

    run(main())


def test_the_server_ends_although_a_client_does_not_read() -> None:
    async def main() -> None:
        async with emulated() as bench:
            address = bench.host.websocket_url.removeprefix("ws://").split(":")
            reader, writer = await asyncio.open_connection(address[0], int(address[1]), limit=1024)
            writer.write(UPGRADE)
            await reader.readuntil(b"\r\n\r\n")
            await bench.wait_for(lambda: bench.host.connections)
            underlying = next(iter(bench.host.connections.values()))
            while not underlying.backlog_bytes:
                bench.server.advance(500)
                await asyncio.sleep(0)
        assert not bench.host.connections
        writer.close()

    run(main())


def test_a_configuration_that_cannot_be_is_refused() -> None:
    with pytest.raises(KeyError, match="no emulator 'nowhere'"):
        EmulatorServer(EmulatorConfig(venues=("nowhere",)))
    with pytest.raises(ValueError, match="no option 'ping'"):
        EmulatorServer(EmulatorConfig(options={"binance": {"ping": 1}}))

    async def half_a_tls() -> None:
        with pytest.raises(ValueError, match="both"):
            await EmulatorServer(EmulatorConfig(tls_cert=Path("x.pem"))).start()

    run(half_a_tls())
