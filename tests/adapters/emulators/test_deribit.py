"""The emulated Deribit, held against the venue's documentation: in virtual time, and once over real sockets; no code of
our adapter."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any

import aiohttp
import pytest

from mdring.adapters.emulators.deribit import DeribitEmulator, DeribitOptions, venue_name
from mdring.adapters.emulators.deribit_rest import CreditPool, RpcError, number
from mdring.emulator.instruments import universe
from mdring.emulator.market import Change, Market
from mdring.emulator.server import EmulatorConfig, EmulatorServer
from mdring.emulator.venue import Refusal, RestRequest, Session, Timer
from mdring.record import Side
from mdring.symbol import parse
from tests.adapters.loopback import LoopHost, Schedule
from tests.emulator.bench import run

SYMBOLS = ("BTC-USD-PERP@BTC", "BTC-USD-20261225@BTC", "BTC-USDC-PERP", "BTC-USDT", "XRP-USDC-20260630-0.625-C")
PERPETUAL, LINEAR = "BTC-PERPETUAL", "BTC_USDC-PERPETUAL"


class Client(LoopHost):
    """One socket of a client, in virtual time; the emulator's wire."""

    session: Session
    number = 1

    def __init__(self, venue: Venue) -> None:
        super().__init__(venue.schedule)
        self.texts: list[str] = []  # frames of the venue
        self.closed: tuple[int, str] | None = None
        self._venue = venue
        self._last_id = 0

    # The venue's side.

    def deliver(self, stream: str, frame: bytes) -> None:
        assert json.loads(frame)["params"]["channel"] == stream
        self.reply(frame.decode())

    def reply(self, text: str) -> None:
        assert self.closed is None, "a frame after the end"
        self.texts.append(text)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return super().after(seconds, lambda: callback() if self.closed is None else None)

    def ping(self, payload: bytes) -> None:
        raise AssertionError("the venue sends no ping frames")

    def close(self, code: int, reason: str = "") -> None:
        self.closed = code, reason
        self.session.on_close()

    def reset(self) -> None:
        self.close(1006)

    # The client's side.

    def send(self, text: str) -> Any:
        """Send a text; the answer, which comes before anything else."""
        seen = len(self.texts)
        self.session.on_text(text.encode())
        return json.loads(self.texts[seen])

    def call(self, method: str, **params: Any) -> Any:
        """Make a request; the answer."""
        self._last_id += 1
        request = {"jsonrpc": "2.0", "id": self._last_id, "method": f"public/{method}", "params": params}
        answer = self.send(json.dumps(request))
        assert answer["id"] == self._last_id and answer["jsonrpc"] == "2.0" and answer["testnet"] is False
        assert answer["usDiff"] == answer["usOut"] - answer["usIn"] >= 0
        return answer

    def subscribe(self, *channels: str) -> Any:
        return self.call("subscribe", channels=list(channels))["result"]

    def data(self, channel: str) -> list[Any]:
        """What came on a channel."""
        messages = [json.loads(text) for text in self.texts]
        pushed = [message for message in messages if message.get("method") == "subscription"]
        assert not any("id" in message for message in pushed)
        return [message["params"]["data"] for message in pushed if message["params"]["channel"] == channel]

    def beats(self) -> list[str]:
        messages = [json.loads(text) for text in self.texts]
        return [message["params"]["type"] for message in messages if message.get("method") == "heartbeat"]


class Venue:
    """The venue over a market that moves when told to."""

    def __init__(self, **options: Any) -> None:
        self.schedule = Schedule()
        self.market = Market(universe(SYMBOLS), seed=7, depth=20)
        self.emulator = DeribitEmulator(self.market, LoopHost(self.schedule), DeribitOptions(**options))

    def connect(self) -> Client:
        client = Client(self)
        session = self.emulator.accept("/ws/api/v2", {}, client)
        assert isinstance(session, Session)
        client.session = session
        session.on_open()
        return client

    def move(self, steps: int, seconds: float = 0.0) -> None:
        self.emulator.on_events(self.market.advance(steps, self.schedule.now_ns))
        self.wait(seconds)

    def wait(self, seconds: float) -> None:
        self.schedule.run_until(self.schedule.now_ns + round(seconds * 1e9))

    def get(self, method: str, path: str = "/api/v2/public/", **query: str) -> tuple[int, Any]:
        answer = self.emulator.rest(RestRequest(path + method, query, {}, "client"))
        return answer.status, json.loads(answer.body) if answer.body else None


# ---- requests ---------------------------------------------------------------------------------------------


def test_answer_lists_what_is_granted_in_an_order_of_its_own_before_the_data() -> None:
    client = Venue().connect()
    asked = [f"book.{PERPETUAL}.100ms", f"trades.{PERPETUAL}.100ms", f"ticker.{PERPETUAL}.agg2", f"quote.{PERPETUAL}"]
    granted = client.subscribe(*asked)
    assert sorted(granted) == sorted(asked) and granted != asked
    assert "result" in json.loads(client.texts[0])
    assert [len(client.data(channel)) for channel in asked] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    "channel", ["book.NO-SUCH.100ms", f"book.{PERPETUAL}.50ms", f"book.{PERPETUAL}.none.7.100ms", "fruit"]
)
def test_what_cannot_be_had_is_missing_in_the_answer_without_an_error(channel: str) -> None:
    client = Venue().connect()
    assert client.subscribe(channel, f"quote.{PERPETUAL}") == [f"quote.{PERPETUAL}"]
    assert client.subscribe(channel) == []


def test_second_subscription_is_granted_and_brings_no_snapshot_and_one_after_the_end_does() -> None:
    venue = Venue()
    client, channel = venue.connect(), f"book.{PERPETUAL}.100ms"
    for _ in range(2):
        assert client.subscribe(channel) == [channel]
    assert len(client.data(channel)) == 1
    assert client.call("unsubscribe", channels=[channel, "fruit"])["result"] == [channel]
    venue.move(500, 1.0)
    assert len(client.data(channel)) == 1
    client.subscribe(channel)
    assert [message["type"] for message in client.data(channel)] == ["snapshot"] * 2
    assert client.call("unsubscribe_all")["result"] == "ok"
    venue.move(500, 1.0)
    assert len(client.data(channel)) == 2


def test_raw_channel_has_the_whole_request_refused() -> None:
    client = Venue().connect()
    error = client.call("subscribe", channels=[f"quote.{PERPETUAL}", f"book.{PERPETUAL}.raw"])["error"]
    assert error == {"code": 13778, "message": "raw_subscriptions_not_available_for_unauthorized"}
    assert client.data(f"quote.{PERPETUAL}") == []


def test_requests_without_the_form_of_one_are_answered_by_their_errors() -> None:
    client = Venue().connect()
    assert client.send("{")["error"] == {"code": 11050, "data": "invalid json", "message": "bad_request"}
    assert "id" not in client.send("[1]")
    error = client.call("subscribe", channels="quote")["error"]
    assert (error["code"], error["data"]) == (-32602, {"reason": "value must be a list", "param": "channels"})
    assert client.call("dance")["error"] == {"code": -32601, "message": "Method not found"}
    assert client.send('{"id":"abc","method":"public/test","params":{}}')["id"] == "abc"
    assert client.closed is None


def test_eleventh_subscription_at_once_ends_the_session_and_three_in_a_second_do_not() -> None:
    venue = Venue()
    patient, hasty = venue.connect(), venue.connect()
    for _ in range(30):
        patient.subscribe("fruit")
        venue.wait(0.31)
    for _ in range(10):
        assert hasty.subscribe("fruit") == []
    assert hasty.call("subscribe", channels=[])["error"]["code"] == 10028
    assert hasty.closed is not None and patient.closed is None


def test_33rd_connection_is_refused_by_http() -> None:
    venue = Venue()
    clients = [venue.connect() for _ in range(32)]
    refusal = venue.emulator.accept("/ws/api/v2", {}, Client(venue))
    assert isinstance(refusal, Refusal) and refusal.status == 429
    clients[0].close(1000)
    assert isinstance(venue.emulator.accept("/ws/api/v2", {}, Client(venue)), Session)
    other = venue.emulator.accept("/ws", {}, Client(venue))
    assert isinstance(other, Refusal) and other.status == 404


# ---- heartbeats -------------------------------------------------------------------------------------------


def test_heartbeats_come_a_little_later_than_asked_for_as_long_as_they_are_answered() -> None:
    venue = Venue()
    client = venue.connect()
    assert client.call("set_heartbeat", interval=10)["result"] == "ok"
    for _ in range(3):
        seen = len(client.beats())
        venue.wait(10.5)
        assert len(client.beats()) == seen
        venue.wait(0.1)
        assert client.beats()[-1] == "test_request"
        assert client.call("test")["result"] == {"version": "1.2.26"}
    assert client.closed is None
    client.call("disable_heartbeat")
    seen = len(client.beats())
    venue.wait(30.0)
    assert len(client.beats()) == seen


def test_unanswered_test_request_closes_the_connection_by_its_code() -> None:
    venue = Venue()
    client = venue.connect()
    client.call("set_heartbeat", interval=10)
    venue.wait(20.5)
    assert client.closed is None
    venue.wait(0.2)
    assert client.closed == (4000, "heartbeat close")


def test_on_a_busy_connection_only_test_requests_come() -> None:
    venue = Venue()
    client = venue.connect()
    client.call("set_heartbeat", interval=10)
    client.subscribe(f"quote.{PERPETUAL}")
    venue.wait(11.0)
    assert client.beats() == ["test_request"]
    client.call("test")
    venue.wait(11.0)
    assert client.beats()[1:] == ["heartbeat", "test_request"]


def test_heartbeat_of_less_than_10_s_is_refused() -> None:
    assert Venue().connect().call("set_heartbeat", interval=9)["error"]["code"] == -32602


def test_idle_connection_is_cut_after_a_minute() -> None:
    venue = Venue()
    idle, subscribed = venue.connect(), venue.connect()
    subscribed.subscribe(f"quote.{PERPETUAL}")
    venue.wait(60.0)
    assert idle.closed is None
    venue.wait(1.0)
    assert idle.closed == (1006, "") and subscribed.closed is None
    venue.wait(600.0)
    assert subscribed.closed is None


# ---- data -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [PERPETUAL, LINEAR, "BTC_USDT", "XRP_USDC-30JUN26-0d625-C"])
def test_books_chain_their_ids_and_their_actions_lead_to_the_true_book(name: str) -> None:
    venue = Venue()
    client, channel = venue.connect(), f"book.{name}.100ms"
    client.subscribe(channel)
    for _ in range(40):
        venue.move(50, 0.05)
    venue.wait(1.0)
    snapshot, *changes = client.data(channel)
    assert len(changes) > 5
    assert list(snapshot) == ["timestamp", "type", "change_id", "instrument_name", "bids", "asks"]
    assert (snapshot["type"], snapshot["instrument_name"]) == ("snapshot", name)
    assert {row[0] for side in ("bids", "asks") for row in snapshot[side]} == {"new"}
    sides: dict[str, dict[float, float]] = {"bids": {}, "asks": {}}
    for message in (snapshot, *changes):
        for side, levels in sides.items():
            for action, price, amount in message[side]:
                assert (action == "new") == (price not in levels and action != "delete")
                assert (action == "delete") == (amount == 0.0)
                levels[price] = amount
                if action == "delete":
                    del levels[price]
    for before, after in pairwise((snapshot, *changes)):
        assert after["type"] == "change" and after["prev_change_id"] == before["change_id"] < after["change_id"] - 1
    book = venue.emulator.book_of(name)
    for true, found in zip(book.depth()[1:], sides.values(), strict=True):
        texts = [venue.emulator.level_text(book, level) for level in true]
        assert {float(price): float(size) for price, size in texts} == found


def test_change_ids_are_one_count_for_all_instruments() -> None:
    venue = Venue()
    client = venue.connect()
    names = list(venue.emulator.instruments().values())
    client.subscribe(*(f"book.{name}.{interval}" for name in names for interval in ("100ms", "agg2")))
    for _ in range(20):
        venue.move(100, 0.3)
    ids = {name: {message["change_id"] for message in client.data(f"book.{name}.100ms")} for name in names}
    assert sum(map(len, ids.values())) == len(set().union(*ids.values()))
    for name in names:
        assert client.data(f"book.{name}.agg2")[-1]["change_id"] in ids[name] | {
            venue.get("get_order_book", instrument_name=name)[1]["result"]["change_id"]
        }


def test_a_level_that_nobody_has_may_be_deleted() -> None:
    venue = Venue()
    client, book = venue.connect(), venue.emulator.book_of(PERPETUAL)
    client.subscribe(f"book.{PERPETUAL}.100ms")
    price = book.bids.farthest - 5
    venue.emulator.on_events([Change(book.index, book.apply(Side.BID, price, 0), Side.BID, price, 0)])
    venue.wait(0.2)
    assert client.data(f"book.{PERPETUAL}.100ms")[-1]["bids"] == [["delete", price / 10, 0.0]]


def test_trades_come_together_with_a_count_of_their_instrument_and_the_takers_side() -> None:
    venue = Venue()
    client, book = venue.connect(), venue.emulator.book_of(PERPETUAL)
    client.subscribe(f"trades.{PERPETUAL}.100ms", f"trades.{LINEAR}.100ms")
    assert client.data(f"trades.{PERPETUAL}.100ms") == []
    first = book.trade_id
    for _ in range(40):
        venue.move(100, 0.2)
    messages = client.data(f"trades.{PERPETUAL}.100ms")
    rows = [row for message in messages for row in message]
    assert max(map(len, messages)) > 1
    assert [row["trade_seq"] for row in rows] == list(range(first + 1, book.trade_id + 1))
    for row, trade in zip(rows, book.trades, strict=True):
        price, size = venue.emulator.level_text(book, (trade.price, trade.size))
        assert (row["price"], row["amount"]) == (float(price), float(size))
        assert (row["direction"] == "buy") == (trade.aggressor == 1)
        assert row["instrument_name"] == PERPETUAL and isinstance(row["trade_id"], str)
        assert row["amount"] == 10 * row["contracts"]
    assert {row.get("liquidation") for row in rows} == {None, "T", "M", "MT"}
    ids = [row["trade_id"] for message in client.data(f"trades.{LINEAR}.100ms") for row in message]
    assert all(re.fullmatch(r"USDC-\d+", one) for one in ids) and len(set(ids)) == len(ids)


def test_quotes_are_the_top_of_the_book_and_an_empty_side_is_null() -> None:
    venue = Venue()
    client, book = venue.connect(), venue.emulator.book_of(PERPETUAL)
    client.subscribe(f"quote.{PERPETUAL}")
    venue.move(200)
    quote = client.data(f"quote.{PERPETUAL}")[-1]
    bid, ask = (venue.emulator.level_text(book, side[0]) for side in book.depth(1)[1:])
    assert [quote["best_bid_price"], quote["best_bid_amount"]] == [float(text) for text in bid]
    assert [quote["best_ask_price"], quote["best_ask_amount"]] == [float(text) for text in ask]
    for price, _ in book.asks.levels():
        book.apply(Side.ASK, price, 0)
    late = venue.connect()
    late.subscribe(f"quote.{PERPETUAL}")
    quote = late.data(f"quote.{PERPETUAL}")[-1]
    assert (quote["best_ask_price"], quote["best_ask_amount"]) == (None, 0.0)


def test_tickers_come_whole_when_something_has_changed() -> None:
    venue = Venue()
    client = venue.connect()
    names = (PERPETUAL, "BTC-25DEC26", "XRP_USDC-30JUN26-0d625-C", "BTC_USDT")
    client.subscribe(*(f"ticker.{name}.100ms" for name in names))
    venue.wait(5.0)
    quiet = [len(client.data(f"ticker.{name}.100ms")) for name in names]
    venue.move(500, 0.3)
    assert [len(client.data(f"ticker.{name}.100ms")) for name in names] > quiet and max(quiet) <= 2
    perpetual, future, option, spot = (client.data(f"ticker.{name}.100ms")[-1] for name in names)
    assert {"mark_price", "index_price", "open_interest", "best_bid_price", "state"} <= set(future)
    assert set(perpetual) - set(future) == {"current_funding", "funding_8h"}
    assert set(option) - set(future) == {"greeks", "mark_iv", "bid_iv", "ask_iv", "interest_rate"}
    assert "open_interest" not in spot


def test_state_of_the_platform_repeats_that_nothing_is_locked_and_tells_of_maintenance() -> None:
    venue = Venue()
    client, other = venue.connect(), venue.connect()
    client.subscribe("platform_state")
    venue.wait(5.0)
    states = client.data("platform_state")
    assert {state["price_index"] for state in states} == {"btc_usd", "btc_usdc", "btc_usdt", "xrp_usdc"}
    assert not any(state["locked"] for state in states)
    venue.emulator.announce_shutdown()
    assert client.data("platform_state")[-1] == {"maintenance": True}
    assert other.texts == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("279310", "279310.0"),
        ("0", "0.0"),
        ("228.50", "228.5"),
        ("0.001", "0.001"),
        ("-0.0005", "-5.0e-4"),
        ("0.0001423032929843748", "1.423032929843748e-4"),
    ],
)
def test_numbers_are_bare_with_a_point_and_small_ones_in_scientific_notation(value: str, text: str) -> None:
    assert number(Decimal(value)) == text


# ---- instruments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("BTC-USD-PERP@BTC", "BTC-PERPETUAL"),
        ("ETH-USD-20260608@ETH", "ETH-8JUN26"),
        ("1000PEPE-USDC-PERP", "1000PEPE_USDC-PERPETUAL"),
        ("BTC-USD-20261225-100000-C@BTC", "BTC-25DEC26-100000-C"),
        ("XRP-USDC-20260630-0.625-P", "XRP_USDC-30JUN26-0d625-P"),
        ("SOL-ETH", "SOL_ETH"),
        ("BTC-USD", None),
        ("BTC-USDT-PERP", None),
        ("BTC-USD-PERP", None),
    ],
)
def test_names_are_those_of_the_venue(symbol: str, name: str | None) -> None:
    assert venue_name(parse(symbol)) == name


def test_lists_are_by_currency_and_kind_on_both_ways() -> None:
    venue = Venue()
    status, answer = venue.get("get_instruments", currency="any", expired="false")
    rows = {row["instrument_name"]: row for row in answer["result"]}
    assert status == 200 and set(rows) == set(venue.emulator.instruments().values())
    for currency, kind, names in (
        ("BTC", "future", {PERPETUAL, "BTC-25DEC26"}),
        ("USDC", "future", {LINEAR}),
        ("USDC", "option", {"XRP_USDC-30JUN26-0d625-C"}),
        ("any", "spot", {"BTC_USDT"}),
    ):
        answers = [
            venue.get("get_instruments", currency=currency, kind=kind)[1],
            venue.connect().call("get_instruments", currency=currency, kind=kind),
        ]
        assert [{row["instrument_name"] for row in answer["result"]} for answer in answers] == [names] * 2
    perpetual, option = rows[PERPETUAL], rows["XRP_USDC-30JUN26-0d625-C"]
    assert (perpetual["base_currency"], perpetual["counter_currency"], perpetual["settlement_currency"]) == (
        "BTC", "USD", "BTC",
    )  # fmt: skip
    assert (perpetual["contract_size"], perpetual["tick_size"], perpetual["instrument_type"]) == (10.0, 0.1, "reversed")
    assert perpetual["expiration_timestamp"] == 32503708800000
    assert (option["strike"], option["option_type"]) == (0.625, "call")
    assert rows["BTC-25DEC26"]["expiration_timestamp"] == 1798185600000  # 2026-12-25 08:00 UTC


def test_book_by_request_has_the_ids_of_the_stream() -> None:
    venue = Venue()
    client = venue.connect()
    client.subscribe(f"book.{PERPETUAL}.100ms")
    _, answer = venue.get("get_order_book", instrument_name=PERPETUAL, depth="5")
    book = answer["result"]
    assert book["change_id"] == client.data(f"book.{PERPETUAL}.100ms")[0]["change_id"]
    assert len(book["bids"]) == len(book["asks"]) == 5
    assert book["bids"] == sorted(book["bids"], reverse=True) and book["asks"] == sorted(book["asks"])
    assert book["best_bid_price"] == book["bids"][0][0]


@pytest.mark.parametrize(
    ("method", "query", "code"),
    [
        ("get_instruments", {"currency": "FRUIT"}, -32602),
        ("get_instruments", {"currency": "BTC", "kind": "fruit"}, -32602),
        ("get_order_book", {"instrument_name": "NO-SUCH"}, 10020),
        ("get_order_book", {"instrument_name": PERPETUAL, "depth": "7"}, -32602),
        ("ticker", {}, 10020),
        ("nothing", {}, -32601),
    ],
)
def test_wrong_call_is_answered_by_its_code_and_400(method: str, query: dict[str, str], code: int) -> None:
    status, answer = Venue().get(method, **query)
    assert (status, answer["error"]["code"]) == (400, code)


def test_lists_have_credits_of_their_own() -> None:
    venue = Venue()
    codes = [venue.get("get_instruments", currency="BTC")[1].get("error", {}).get("code") for _ in range(51)]
    assert codes == [None] * 50 + [10028]
    assert venue.get("get_time")[1]["result"] == venue.schedule.now_ns // 10**6
    assert venue.get("nothing", path="/")[0] == 404
    venue.wait(1.0)
    assert venue.get("get_instruments", currency="BTC")[0] == 200


def test_credits_come_back_up_to_the_most() -> None:
    pool = CreditPool(100, 10)
    pool.spend(100, 10**9)
    with pytest.raises(RpcError):
        pool.spend(11, 2 * 10**9)
    pool.spend(10, 2 * 10**9)
    pool.spend(100, 10**12)
    with pytest.raises(RpcError):
        pool.spend(1, 10**12)


def test_over_real_sockets_it_is_the_same_venue() -> None:
    async def main() -> None:
        config = EmulatorConfig(venues=("deribit",), rate=0, seed=7, instruments=SYMBOLS)
        async with EmulatorServer(config) as server, aiohttp.ClientSession() as http:
            host = server.venues["deribit"]
            async with http.ws_connect(host.websocket_url + "/ws/api/v2") as socket:
                request = {"jsonrpc": "2.0", "id": 3, "method": "public/subscribe"}
                await socket.send_json(request | {"params": {"channels": [f"book.{PERPETUAL}.100ms"]}})
                assert (await socket.receive_json())["result"] == [f"book.{PERPETUAL}.100ms"]
                last = (await socket.receive_json())["params"]["data"]["change_id"]
                server.advance(300)
                assert (await socket.receive_json())["params"]["data"]["prev_change_id"] == last
            async with http.get(f"{host.rest_url}/api/v2/public/get_instruments?currency=any") as answer:
                assert answer.status == 200 and len((await answer.json())["result"]) == len(SYMBOLS)

    run(main())
