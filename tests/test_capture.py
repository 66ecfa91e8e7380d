"""Captures: the format, and an adapter run over one, here over real traffic of 2021."""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring import capture
from mdring import decode as decoding
from mdring.adapters.binance import BinanceAdapter
from mdring.capture import CaptureError, CaptureEvent, CaptureWriter, read_capture
from mdring.decode import DecodedInstrument, DecodeSummary, answers, decode_capture
from mdring.feed.adapter import Fetch, InstrumentInfo, Response, Subscription
from mdring.feed.fixed import to_decimal
from mdring.record import BBO, RECORD, STATUS, TRADE, UNDEFINED_PRICE, DataType, Flags, Kind, Reason, Side, State
from tests.adapters.cases import ALL, BINANCE_EXCHANGE_INFO, BINANCE_FRAMES, BINANCE_SNAPSHOT
from tests.adapters.conformance import check_records, groups

# ---- the format -------------------------------------------------------------------------------------------

EVENTS = [
    CaptureEvent(1, 0, "open", url="wss://venue"),
    CaptureEvent(2, 0, "send", text='{"subscribe":"é"}'),
    CaptureEvent(3, 0, "recv", text="two\nlines"),
    CaptureEvent(4, 0, "recv", b64="AP8="),
    CaptureEvent(5, -1, "http", url="https://venue/x?symbol=A", status=200, text="[]"),
    CaptureEvent(6, 0, "close"),
]


def write(path: Path, events: list[CaptureEvent]) -> Path:
    with CaptureWriter(path) as writer:
        for event in events:
            writer.write(event)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_events_are_read_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    assert list(read_capture(write(tmp_path / name, EVENTS))) == EVENTS


def test_compression_is_known_by_the_content_not_by_the_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gz", EVENTS).rename(tmp_path / "a.jsonl")
    assert list(read_capture(path)) == EVENTS


def test_zstd_is_read_and_written_where_there_is_a_module_for_it_and_else_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "a.zst"
    try:
        capture._zstd(path)
    except CaptureError:
        path.write_bytes(b"\x28\xb5\x2f\xfd....")
        for action in (lambda: list(read_capture(path)), lambda: CaptureWriter(path)):
            with pytest.raises(CaptureError, match="zstandard"):
                action()
    else:
        assert list(read_capture(write(path, EVENTS))) == EVENTS


def test_each_line_is_an_object_with_only_the_keys_that_it_needs(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", EVENTS).read_text().splitlines()
    assert json.loads(lines[0]) == {"ts": 1, "conn": 0, "ev": "open", "url": "wss://venue"}
    assert json.loads(lines[5]) == {"ts": 6, "conn": 0, "ev": "close"}


@given(payload=st.binary(max_size=40))
def test_frame_of_any_bytes_is_kept(tmp_path_factory: pytest.TempPathFactory, payload: bytes) -> None:
    path = tmp_path_factory.mktemp("frame") / "a.jsonl"
    with CaptureWriter(path) as writer:
        writer.write_frame(1, 0, "recv", payload)
    (event,) = read_capture(path)
    assert event.payload == payload


def test_broken_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"ts":1,"conn":0,"ev":"close"}\n\n{"ts":1,"conn":0,"ev":"shut"}\n')
    with pytest.raises(CaptureError, match=r"line 3.*shut"):
        list(read_capture(path))


def test_file_that_is_cut_short_is_an_error_after_its_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    whole = gzip.compress(b"".join(b'{"ts":%d,"conn":0,"ev":"recv","text":"%d"}\n' % (i, i * i) for i in range(999)))
    path.write_bytes(whole[: len(whole) // 2])
    seen: list[CaptureEvent] = []
    with pytest.raises(CaptureError, match="cut short"):
        seen.extend(read_capture(path))
    path.write_bytes(whole[:100] + b"\0" * 50 + whole[150:])
    with pytest.raises(CaptureError, match="damaged"):
        list(read_capture(path))


def test_file_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CaptureError, match="No such file"):
        list(read_capture(Path("/nonexistent/capture")))


@pytest.mark.parametrize(
    ("wanted", "recorded", "fits"),
    [
        ("https://a/api/v3/depth?symbol=X&limit=1000", "https://b/api/v3/depth?symbol=X&limit=5000", True),
        ("https://a/api/v3/depth?symbol=X&limit=1000", "https://b/api/v3/depth?symbol=Y&limit=1000", False),
        ("https://a/api/v3/depth?symbol=X", "https://b/api/v3/ticker?symbol=X", False),
        ("https://a/exchangeInfo?showPermissionSets=false", "https://b/exchangeInfo", True),
        ("https://a/order_book/btcusd", "https://b/order_book/btcusd/", True),
        ("https://a/order_book/btcusd", "https://b/order_book/btceur", False),
    ],
)
def test_recorded_response_answers_a_fetch_of_the_same_thing_in_whatever_amount(
    wanted: str, recorded: str, fits: bool
) -> None:
    assert answers(wanted, recorded) is fits


# ---- an adapter over a small capture ----------------------------------------------------------------------

SUBSCRIPTIONS = [Subscription("NKNUSDT", ALL)]
INFO = CaptureEvent(
    1, -1, "http", url="https://rest/api/v3/exchangeInfo", status=200, text=BINANCE_EXCHANGE_INFO.decode()
)
OPEN = CaptureEvent(2, 0, "open", url="wss://venue/stream")
SNAPSHOT_URL = "https://rest/api/v3/depth?symbol=NKNUSDT&limit=5000"


def frames(first_ts: int, *numbers: int) -> list[CaptureEvent]:
    return [
        CaptureEvent(first_ts + index, 0, "recv", text=BINANCE_FRAMES[number].decode())
        for index, number in enumerate(numbers)
    ]


def answer(ts: int, text: str = BINANCE_SNAPSHOT.decode(), status: int = 200) -> CaptureEvent:
    return CaptureEvent(ts, -1, "http", url=SNAPSHOT_URL, status=status, text=text)


def decode(
    tmp_path: Path, events: list[CaptureEvent], subscriptions: list[Subscription] | None = None, **options: Any
) -> tuple[DecodeSummary, npt.NDArray[np.void]]:
    path = write(tmp_path / "capture.jsonl.gz", events)
    summary = decode_capture("binance", None, options, subscriptions or SUBSCRIPTIONS, path, tmp_path / "out")
    records = np.load(tmp_path / "out" / "records.npy")
    assert records.dtype == RECORD and records["seq"].tolist() == list(range(1, summary.records + 1))
    check_records(records)
    return summary, records


def test_response_that_comes_later_is_handed_out_when_the_capture_reaches_it(tmp_path: Path) -> None:
    summary, records = decode(tmp_path, [INFO, OPEN, *frames(3, 1, 2), answer(10), *frames(11, 3)])
    assert (summary.books_in_sync, summary.snapshots, summary.unanswered) == (1, 1, [])
    image = records[(records["flags"] & Flags.SNAPSHOT) != 0]
    assert set(image["ts_recv"]) == {10}
    assert records["ts_recv"].tolist()[-2:] == [11, 11]


def test_response_that_the_capture_has_passed_is_handed_out_at_once_but_only_once(tmp_path: Path) -> None:
    old = '{"lastUpdateId":1,"bids":[],"asks":[]}'
    summary, records = decode(tmp_path, [INFO, answer(2, old), OPEN, *frames(3, 1, 2), answer(10), *frames(11, 3)])
    assert (summary.books_in_sync, summary.snapshots) == (1, 1)
    assert set(records[(records["flags"] & Flags.SNAPSHOT) != 0]["ts_recv"]) == {10}


def test_fetch_without_a_recorded_response_is_named(tmp_path: Path) -> None:
    summary, _ = decode(tmp_path, [INFO, OPEN, *frames(3, 1, 2)])
    assert summary.books_in_sync == 0
    assert summary.unanswered == ["https://api.binance.com/api/v3/depth?symbol=NKNUSDT&limit=1000"]


def test_close_clears_the_books_and_a_new_connection_builds_them_anew(tmp_path: Path) -> None:
    close = CaptureEvent(20, 0, "close")
    again = CaptureEvent(21, 0, "open", url="wss://venue/stream")
    events = [INFO, OPEN, *frames(3, 1), answer(10), *frames(11, 2), close, again, *frames(22, 1, 2), answer(30)]
    summary, records = decode(tmp_path, events)
    assert (summary.snapshots, summary.books_in_sync) == (2, 1)
    states = [State(row["state"]) for row in records[records["kind"] == Kind.STATUS].view(STATUS)]
    assert states == [State.CONNECTED, State.SYNCED, State.DISCONNECTED, State.CONNECTED, State.SYNCED]
    clears = records[records["kind"] == Kind.CLEAR]
    assert [bool(flags & Flags.SNAPSHOT) for flags in clears["flags"]] == [True, False, True]


def test_recording_that_began_within_a_connection_or_lacks_a_close_is_decoded_too(tmp_path: Path) -> None:
    summary, _ = decode(tmp_path, [INFO, *frames(3, 1), answer(10), OPEN, *frames(11, 1), answer(20)])
    assert (summary.snapshots, summary.books_in_sync) == (2, 1)


def test_refused_frames_are_counted_told_and_cost_their_book(tmp_path: Path) -> None:
    broken = CaptureEvent(12, 0, "recv", text=BINANCE_FRAMES[3].decode().replace("0.35240000", "0.x"))
    binary = CaptureEvent(13, 0, "recv", b64="AP8=")
    summary, records = decode(tmp_path, [INFO, OPEN, *frames(3, 1, 2), answer(10), broken, binary])
    assert (summary.rejects, summary.reject_reasons) == (2, {"BAD_MESSAGE": 2})
    assert (summary.resyncs, summary.books_in_sync) == (1, 0)
    rejected = records[records["kind"] == Kind.STATUS].view(STATUS)
    rejected = rejected[rejected["state"] == State.REJECTED]
    assert rejected["instrument_id"].tolist() == [1, 0]


def test_sent_frames_and_other_types_leave_no_records(tmp_path: Path) -> None:
    sent = CaptureEvent(3, 0, "send", text='{"method":"SUBSCRIBE"}')
    kline = CaptureEvent(4, 0, "recv", text='{"stream":"nknusdt@kline_1m","data":{"e":"kline"}}')
    summary, records = decode(tmp_path, [INFO, OPEN, sent, kline])
    assert (summary.frames, summary.ignored) == (1, 1)
    assert records["kind"].tolist() == [Kind.STATUS]


def test_several_recorded_connections_are_one_of_ours_until_the_last_is_closed(tmp_path: Path) -> None:
    second = CaptureEvent(3, 1, "open", url="wss://venue/stream")
    events = [INFO, OPEN, second, *frames(4, 1), answer(10), CaptureEvent(11, 0, "close"), *frames(12, 2)]
    summary, records = decode(tmp_path, events)
    assert summary.books_in_sync == 0 or summary.snapshots == 1
    assert [State(row["state"]) for row in records[records["kind"] == Kind.STATUS].view(STATUS)][:1] == [
        State.CONNECTED
    ]
    assert not any(row["state"] == State.DISCONNECTED for row in records[records["kind"] == Kind.STATUS].view(STATUS))


def test_announced_shutdown_does_not_cut_the_recorded_connection(tmp_path: Path) -> None:
    shutdown = CaptureEvent(12, 0, "recv", text='{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1}}')
    summary, _ = decode(tmp_path, [INFO, OPEN, *frames(3, 1, 2), answer(10), shutdown, *frames(13, 3)])
    assert (summary.books_in_sync, summary.gaps) == (1, 0)


def test_instruments_are_written_with_what_is_needed_to_read_the_records(tmp_path: Path) -> None:
    subscriptions = [Subscription("RUNEEUR", ALL, "RUNE/EUR"), Subscription("NOSUCH", ALL), *SUBSCRIPTIONS]
    summary, records = decode(tmp_path, [INFO, OPEN, *frames(3, 5)], subscriptions)
    assert summary.unknown_instruments == ["NOSUCH"]
    rows = msgspec.json.decode((tmp_path / "out" / "instruments.json").read_bytes(), type=list[DecodedInstrument])
    assert [(row.id, row.venue, row.instrument, row.canonical_symbol) for row in rows] == [
        (1, "binance", "RUNEEUR", "RUNE/EUR"),
        (2, "binance", "NKNUSDT", "NKN-USDT"),
    ]
    (trade,) = records[records["kind"] == Kind.TRADE]
    assert to_decimal(trade["price"], rows[trade["instrument_id"] - 1].price_exponent) == Decimal("0.3521")
    unknown = records[records["kind"] == Kind.STATUS].view(STATUS)[0]
    assert (unknown["reason"], unknown["detail"]) == (Reason.UNKNOWN_INSTRUMENT, b"NOSUCH")


@pytest.mark.parametrize("broken", [None, INFO.__class__(1, -1, "http", url=INFO.url, status=503, text="no")])
def test_capture_without_usable_metadata_is_refused_and_leaves_no_file(
    tmp_path: Path, broken: CaptureEvent | None
) -> None:
    with pytest.raises(CaptureError, match="exchangeInfo"):
        decode(tmp_path, [*([broken] if broken else []), OPEN])
    assert not (tmp_path / "out").exists()


class Elsewhere(BinanceAdapter):
    """Looks for an older list of instruments where there is no new one."""

    older = "v3"

    def metadata_requests(self) -> Sequence[Fetch]:
        return (Fetch("new", "https://rest/api/v4/exchangeInfo"),)

    def on_metadata(self, response: Response) -> Sequence[InstrumentInfo | Fetch]:
        if response.status == 404:
            return (Fetch("old", f"https://rest/api/{self.older}/exchangeInfo"),)
        return super().on_metadata(response)


def test_list_that_the_capture_lacks_is_answered_as_a_server_would_so_that_the_adapter_looks_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "load_adapter", lambda name: Elsewhere)
    summary, _ = decode(tmp_path, [INFO, OPEN, *frames(3, 1), answer(10)])
    assert summary.books_in_sync == 1
    monkeypatch.setattr(Elsewhere, "older", "v2")
    with pytest.raises(CaptureError, match="v2/exchangeInfo"):
        decode(tmp_path, [INFO, OPEN])


def test_damage_found_late_leaves_no_records_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [INFO, OPEN, *frames(3, 1)])
    with path.open("ab") as file:
        file.write(b'{"ts":')
    with pytest.raises(CaptureError, match="line 4"):
        decode_capture("binance", None, {}, SUBSCRIPTIONS, path, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_unknown_adapter_and_wrong_option_are_errors_of_the_caller(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [INFO])
    with pytest.raises(KeyError, match="binance"):
        decode_capture("binnance", None, {}, SUBSCRIPTIONS, path, tmp_path / "out")
    with pytest.raises(msgspec.ValidationError, match="trade_streem"):
        decode_capture("binance", None, {"trade_streem": "x"}, SUBSCRIPTIONS, path, tmp_path / "out")


def test_stage_is_written_out_as_it_fills(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [INFO, OPEN, *frames(3, 1, 2), answer(10), *frames(11, 3, 4, 5, 6)]
    _, whole = decode(tmp_path, events)
    monkeypatch.setattr(decoding, "STAGED_RECORDS", 1)
    _, pieces = decode(tmp_path, events)
    np.testing.assert_array_equal(whole, pieces)


# ---- real traffic -----------------------------------------------------------------------------------------

CAPTURES = Path(os.environ.get("MDRING_CAPTURES", Path(__file__).parents[2] / "shared" / "captures"))
REAL = CAPTURES / "binance.jsonl.gz"
SYMBOLS = ("NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR")
real = pytest.mark.skipif(
    not REAL.exists(), reason=f"NO REAL TRAFFIC: {REAL} is missing; set MDRING_CAPTURES to the folder of captures"
)


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[DecodeSummary, npt.NDArray[np.void], list[Any]]:
    out = tmp_path_factory.mktemp("real")
    subscriptions = [Subscription(symbol, ALL) for symbol in SYMBOLS]
    summary = decode_capture("binance", None, {}, subscriptions, REAL, out)
    return summary, np.load(out / "records.npy"), json.loads((out / "instruments.json").read_bytes())


@real
def test_real_traffic__every_book_in_sync_no_gap_no_reject(decoded: Any) -> None:
    summary, records, _ = decoded
    assert (summary.books, summary.books_in_sync, summary.snapshots) == (4, 4, 4)
    assert (summary.gaps, summary.resyncs, summary.rejects, summary.repeated) == (0, 0, 0, 0)
    assert summary.frames == 265 and summary.ignored == 2  # the candles
    assert summary.kinds["BBO"] == 84 and summary.kinds["TRADE"] == 2
    assert summary.unanswered == [] and summary.unknown_instruments == []
    check_records(records)


@real
def test_real_traffic__every_number_is_the_venues_text(decoded: Any) -> None:
    """The levels of each message, as Decimals of the recorded text, against those of its event group."""
    _, records, instruments = decoded
    found: dict[tuple[str, int, bool], list[tuple[int, Decimal, Decimal]]] = defaultdict(list)
    for row in records[records["kind"] == Kind.LEVEL]:
        instrument = instruments[row["instrument_id"] - 1]
        price = to_decimal(row["price"], instrument["price_exponent"])
        size = to_decimal(row["size"], instrument["size_exponent"])
        key = instrument["instrument"], int(row["venue_seq"]), bool(row["flags"] & Flags.SNAPSHOT)
        found[key].append((int(row["side"]), price, size))
    snapshots = {
        event.url.split("symbol=")[1].split("&")[0]: json.loads(event.text or "")
        for event in read_capture(REAL)
        if "/depth" in event.url and event.ev == "http"
    }
    sent = {
        (symbol, snapshot["lastUpdateId"], True): levels_of(snapshot["bids"], snapshot["asks"])
        for symbol, snapshot in snapshots.items()
    }
    for event in read_capture(REAL):
        data = json.loads(event.text or "")["data"] if event.ev == "recv" else {}
        if data.get("e") == "depthUpdate" and data["u"] > snapshots[data["s"]]["lastUpdateId"]:
            sent[data["s"], data["u"], False] = levels_of(data["b"], data["a"])
    assert found == sent
    assert len(found) > 160


def levels_of(bids: list[list[str]], asks: list[list[str]]) -> list[tuple[int, Decimal, Decimal]]:
    return [
        (side, Decimal(price), Decimal(size))
        for side, levels in ((Side.BID, bids), (Side.ASK, asks))
        for price, size in levels
    ]


@real
def test_real_traffic__rebuilt_top_of_book_is_the_venues_best_bid_and_ask(decoded: Any) -> None:
    """After each delta the top equals that of the last bookTicker whose id is not above the delta's."""
    _, records, _ = decoded
    quotes: dict[int, list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for row in records[records["kind"] == Kind.BBO].view(BBO):
        top = tuple(int(row[name]) for name in ("bid_price", "bid_size", "ask_price", "ask_size"))
        quotes[int(row["instrument_id"])].append((int(row["venue_seq"]), top))
    books: dict[int, tuple[dict[int, int], dict[int, int]]] = {}
    compared = 0
    for group in groups(records):
        rows = group[np.isin(group["kind"], [Kind.LEVEL, Kind.CLEAR])]
        if not len(rows):
            continue
        instrument = int(rows[0]["instrument_id"])
        for row in rows:
            if row["kind"] == Kind.CLEAR:
                books[instrument] = ({}, {})
                continue
            side = books[instrument][int(row["side"]) - 1]
            side[int(row["price"])] = int(row["size"])
            if row["size"] == 0:
                del side[int(row["price"])]
        bids, asks = books[instrument]
        assert max(bids) < min(asks), "a crossed book"
        known = [top for number, top in quotes[instrument] if number <= int(rows[-1]["venue_seq"])]
        if known:
            assert known[-1] == (max(bids), bids[max(bids)], min(asks), asks[min(asks)])
            compared += 1
    assert compared == 159
    assert not any((records[records["kind"] == Kind.BBO]["price"]) == UNDEFINED_PRICE)


@real
def test_real_traffic__trades_are_those_recorded(decoded: Any) -> None:
    _, records, _ = decoded
    rows = records[records["kind"] == Kind.TRADE].view(TRADE)
    sent = [
        message["data"]
        for event in read_capture(REAL)
        if event.ev == "recv" and "@aggTrade" in (message := json.loads(event.text or ""))["stream"]
    ]
    assert rows["trade_id"].tolist() == [message["a"] for message in sent]
    assert rows["ts_event"].tolist() == [message["T"] * 10**6 for message in sent]
    assert rows["trade_count"].tolist() == [message["l"] - message["f"] + 1 for message in sent]
    assert rows["aggressor"].tolist() == [2 if message["m"] else 1 for message in sent]


@real
def test_real_traffic__one_data_type_alone_can_be_decoded(tmp_path: Path) -> None:
    subscription = Subscription("NKNUSDT", (DataType.BBO,))
    summary = decode_capture("binance", None, {}, [subscription], REAL, tmp_path)
    assert set(summary.kinds) == {"BBO", "STATUS"} and summary.kinds["BBO"] == 74
    assert summary.books == 0
