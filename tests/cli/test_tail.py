"""mdring tail: each record as one line, exact, filtered, and losses said."""

from __future__ import annotations

import json
import re
import signal
from typing import Any
from uuid import UUID

import pytest

from mdring.cli.record_text import RecordText
from mdring.instrument import InstrumentTable
from mdring.record import (
    UNDEFINED_PRICE,
    Aggressor,
    Flags,
    Kind,
    Reason,
    Side,
    State,
    TradeIdFormat,
)
from mdring.ring.segment import RunState
from tests.cli.command import Tape, mdring, options, record, start_mdring
from tests.runs import TestRun

HOUR_NS = 3_600_000_000_000


def tail_json(run: TestRun, *arguments: str) -> list[dict[str, Any]]:
    """What ``mdring tail --json`` prints of the whole tape of a run that was closed."""
    run.tape.end(RunState.CLOSED)
    result = mdring("tail", "--json", "--start", "oldest", *arguments, *options(run))
    assert (result.returncode, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def publish_one_of_each(run: TestRun) -> None:
    Tape(run).publish(
        record(
            Kind.TRADE,
            venue_id=1,
            instrument_id=1,
            price=8_412_345,
            size=150_000_001,
            aggressor=Aggressor.SELL,
            trade_id=2**64 - 1,
            trade_id_format=TradeIdFormat.INTEGER,
            trade_count=3,
            ts_event=5,
            ts_recv=7,
            ts_seq=9,
            channel_seq=11,
            venue_seq=2**64 - 1,
        ),
        record(
            Kind.BBO,
            venue_id=1,
            instrument_id=2,
            bid_price=UNDEFINED_PRICE,
            ask_price=1,
            ask_size=2**63 - 1,
        ),
        record(Kind.CLEAR, last=False, venue_id=2, instrument_id=3, reason=Reason.SNAPSHOT),
        record(Kind.LEVEL, venue_id=2, instrument_id=3, side=Side.ASK, price=-15, size=7, order_count=4),
        record(
            Kind.STATUS,
            venue_id=2,
            state=State.GAP,
            reason=Reason.CHECKSUM,
            data_type=3,
            count=1,
            expected=2**32,
            found=17,
            detail="é\x1b[2J".encode(),
        ),
    )


class TestJson:
    def test_of_a_trade(self, run: TestRun) -> None:
        publish_one_of_each(run)
        assert tail_json(run, "--kind", "trade") == [
            {
                "seq": 1,
                "ts_event": 5,
                "ts_recv": 7,
                "ts_seq": 9,
                "venue": "binance",
                "instrument": "BTCUSDT",
                "canonical_symbol": "BTC-USDT",
                "instrument_id": 1,
                "kind": "trade",
                "flags": ["last"],
                "channel_seq": 11,
                "venue_seq": 2**64 - 1,
                "aggressor": "sell",
                "price": "84123.45",
                "size": "1.50000001",
                "trade_id": "18446744073709551615",
                "trade_count": 3,
            }
        ]

    def test_of_the_other_kinds(self, run: TestRun) -> None:
        publish_one_of_each(run)
        _, bbo, clear, level, status = tail_json(run)
        assert (bbo["bid_price"], bbo["ask_price"], bbo["ask_size"]) == (None, "0.01", "922337203685477.5807")
        assert (clear["reason"], clear["flags"]) == ("snapshot", [])
        assert (level["side"], level["price"], level["size"], level["order_count"]) == ("ask", "-1.5", "700", 4)
        assert (status["state"], status["reason"], status["data_type"]) == ("gap", "checksum", "book")
        assert (status["count"], status["expected"], status["found"]) == (1, 2**32, 17)
        assert (status["detail"], status["instrument"], status["venue"]) == ("é\x1b[2J", None, "paper")

    def test_of_a_trade_id_that_is_a_uuid(self, run: TestRun) -> None:
        identity = UUID("01234567-89ab-cdef-0123-456789abcdef")
        high, low = divmod(identity.int, 2**64)
        Tape(run).publish(
            record(Kind.TRADE, instrument_id=1, trade_id=low, trade_id_high=high, trade_id_format=TradeIdFormat.UUID),
            record(Kind.TRADE, instrument_id=1),
        )
        assert [line["trade_id"] for line in tail_json(run)] == [str(identity), None]

    def test_of_what_this_version_does_not_know_is_numbers(self, run: TestRun) -> None:
        unknown_kind = record(Kind.TRADE)
        unknown_kind["kind"] = 200
        Tape(run).publish(record(Kind.STATUS, venue_id=9, state=250, reason=251), unknown_kind)
        status, unknown = tail_json(run)
        assert (status["state"], status["reason"], status["venue"]) == ("250", "251", "9")
        assert unknown["kind"] == "200"


class TestFilters:
    @pytest.mark.parametrize(
        ("arguments", "seqs"),
        [
            ((), [1, 2, 3, 4, 5]),
            (("--kind", "trade", "--kind", "bbo"), [1, 2]),
            (("--venue", "binance"), [1, 2]),
            (("--venue", "paper"), [3, 4, 5]),
            (("--venue", "paper", "--venue", "binance"), [1, 2, 3, 4, 5]),
            (("--instrument", "binance:BTCUSDT", "--kind", "trade"), [1]),
            (("--instrument", "BTC-USDT"), [1, 3, 4, 5]),  # 5 is of a whole venue
            (("--instrument", "ETH*", "--venue", "binance"), [2]),
            (("--count", "2"), [1, 2]),
            (("--venue", "paper", "--count", "1"), [3]),
            (("--start", "4"), [4, 5]),
        ],
    )
    def test_let_through(self, run: TestRun, arguments: tuple[str, ...], seqs: list[int]) -> None:
        publish_one_of_each(run)
        assert [line["seq"] for line in tail_json(run, *arguments)] == seqs

    @pytest.mark.parametrize(
        ("arguments", "code", "sentence"),
        [
            (("--venue", "kraken"), 1, "run 'test' has no venue 'kraken'; it has: binance, paper"),
            (("--instrument", "DOGE"), 1, "no instrument 'DOGE'"),
            (("--start", "7"), 1, "seq 7 is not on the tape"),
            (("--start", "soon"), 2, "'soon' is neither tail nor oldest nor a seq"),
            (("--kind", "quote"), 2, "invalid choice: 'quote'"),
            (("--count", "0"), 2, "'0' is not a whole number above 0"),
        ],
    )
    def test_that_cannot_be_are_said(self, run: TestRun, arguments: tuple[str, ...], code: int, sentence: str) -> None:
        result = mdring("tail", *arguments, *options(run))
        assert (result.returncode, result.stdout) == (code, "")
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr


class TestLines:
    def test_without_a_terminal_are_plain_words(self, run: TestRun) -> None:
        publish_one_of_each(run)
        run.tape.end(RunState.CLOSED)
        result = mdring("tail", "--start", "oldest", *options(run))
        lines = result.stdout.splitlines()
        assert lines[0] == (
            "00:00:00.000000007         1 binance:BTCUSDT      trade  flags=last channel_seq=11 "
            "venue_seq=18446744073709551615 aggressor=sell price=84123.45 size=1.50000001 "
            "trade_id=18446744073709551615 trade_count=3"
        )
        assert "paper:*" in lines[4]
        assert "detail=é\ufffd[2J" in lines[4]

    def test_are_coloured_for_a_terminal(self, run: TestRun) -> None:
        with InstrumentTable.attach(run.folder.instruments).segment:
            text = RecordText(run.instruments, run.venue_ids)
        row = record(Kind.TRADE, venue_id=1, instrument_id=1, aggressor=Aggressor.BUY)
        coloured = text.as_line(row, coloured=True)
        assert "\x1b[32mbuy\x1b[0m" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == text.as_line(row, coloured=False)

    def test_have_the_time_to_the_nanosecond(self, run: TestRun) -> None:
        text = RecordText(run.instruments, run.venue_ids)
        row = record(Kind.TRADE, ts_recv=1_795_392_000_000_000_000 + 23 * HOUR_NS + 59 * 60 * 10**9 + 1)
        assert text.as_line(row, coloured=False).startswith("23:59:00.000000001 ")


class TestFollowing:
    def test_prints_records_when_they_come_and_ends_with_the_run(self, run: TestRun) -> None:
        tape = Tape(run)
        tape.publish(record(Kind.TRADE, instrument_id=1))
        with start_mdring("tail", "--json", "--start", "oldest", *options(run)) as process:
            assert process.stdout is not None and process.stderr is not None
            lines = process.stdout
            assert json.loads(lines.readline())["seq"] == 1
            tape.publish(record(Kind.TRADE, instrument_id=1))
            assert json.loads(lines.readline())["seq"] == 2
            run.tape.end(RunState.CLOSED)
            assert lines.read() == b""
            assert process.stderr.read() == b""
        assert process.returncode == 0

    def test_says_how_many_records_were_lost(self, run: TestRun) -> None:
        tape = Tape(run)
        slots = run.tape.slot_count
        row = record(Kind.TRADE, instrument_id=1)
        with start_mdring("tail", "--json", "--start", "oldest", *options(run)) as process:
            assert process.stdout is not None
            tape.publish(row)
            assert json.loads(process.stdout.readline())["seq"] == 1
            process.send_signal(signal.SIGSTOP)
            for _ in range(12):
                tape.publish(*[row] * (slots // 4))
            process.send_signal(signal.SIGCONT)
            run.tape.end(RunState.CLOSED)
            lines = [json.loads(line) for line in process.stdout]
        lost = sum(line["lost"] for line in lines if "lost" in line)
        assert lost >= 2 * slots
        assert lost + sum("seq" in line for line in lines) == 12 * (slots // 4)

    def test_ends_with_ctrl_c_and_exit_code_0(self, run: TestRun) -> None:
        Tape(run).publish(record(Kind.TRADE, instrument_id=1))
        with start_mdring("tail", "--start", "oldest", *options(run)) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.read(1)  # it is at work
            process.send_signal(signal.SIGINT)
            process.stdout.read()
            assert process.stderr.read() == b""
        assert process.returncode == 0

    def test_a_reader_that_goes_away_is_a_quiet_end(self, run: TestRun) -> None:
        tape = Tape(run)
        tape.publish(record(Kind.TRADE, instrument_id=1))
        with start_mdring("tail", "--start", "oldest", *options(run)) as process:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.read(1)
            process.stdout.close()
            tape.publish(record(Kind.TRADE, instrument_id=1))
            assert process.stderr.read() == b""
        assert process.returncode == 0

    def test_a_run_whose_supervisor_died_is_said(self, run: TestRun) -> None:
        run.lock.close()
        result = mdring("tail", *options(run))
        assert result.returncode == 1
        assert "run 'test' ended" in result.stderr

    def test_without_a_run_says_so(self, run: TestRun) -> None:
        result = mdring("tail", "--directory", run.folder.path.parent / "nowhere")
        assert result.returncode == 1
        assert "no run is up" in result.stderr


def test_flags_are_named(run: TestRun) -> None:
    row = record(Kind.LEVEL)
    row["flags"] = Flags.LAST | Flags.SNAPSHOT | 128
    assert RecordText(run.instruments, run.venue_ids).as_json(row)["flags"] == ["last", "snapshot"]
