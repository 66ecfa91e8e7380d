from __future__ import annotations

import json

import msgspec
import pytest

from mdring.emulator.faults import CORRUPTIONS, HUGE_VALUE, Fault, FaultInjector, FaultKind, corrupt

FRAME = b'{"e":"trade","E":1672515782136,"s":"BNBBTC","p":"0.00100000","q":"100.00000000","m":true}'


def kinds(injector: FaultInjector, stream: str, count: int) -> list[FaultKind | None]:
    due = (injector.due_on_message(stream, 1) for _ in range(count))
    return [None if fault is None else fault.fault for fault in due]


def test_a_fault_happens_to_matching_messages_as_often_as_asked_after_those_it_skips() -> None:
    injector = FaultInjector(1, "binance")
    injector.arm(Fault(fault=FaultKind.DROP, match="@depth", after=1, count=2))
    assert kinds(injector, "btcusdt@trade", 3) == [None] * 3
    assert kinds(injector, "btcusdt@depth", 4) == [None, FaultKind.DROP, FaultKind.DROP, None]
    assert injector.fired == {FaultKind.DROP: 2}
    assert injector.armed() == []
    assert not injector.disturbs_frames


def test_a_fault_of_count_zero_lasts_until_cleared() -> None:
    injector = FaultInjector(1, "binance")
    injector.arm(Fault(fault=FaultKind.DUPLICATE, count=0))
    assert kinds(injector, "x", 5) == [FaultKind.DUPLICATE] * 5
    injector.clear()
    assert kinds(injector, "x", 2) == [None, None]


def test_a_fault_can_be_meant_for_one_connection() -> None:
    injector = FaultInjector(1, "binance")
    injector.arm(Fault(fault=FaultKind.DROP, connection=2))
    assert injector.due_on_message("x", 1) is None
    assert injector.due_on_message("x", 2) is not None


def test_probability_is_drawn_from_the_seed() -> None:
    def story(seed: int) -> list[FaultKind | None]:
        injector = FaultInjector(seed, "binance")
        injector.arm(Fault(fault=FaultKind.DROP, count=0, probability=0.2))
        return kinds(injector, "x", 500)

    assert story(1) == story(1)
    assert story(1) != story(2)
    assert 50 < sum(kind is not None for kind in story(1)) < 200


def test_rest_faults_leave_messages_alone_and_combine() -> None:
    injector = FaultInjector(1, "binance")
    injector.arm(Fault(fault=FaultKind.REST_SLOW, match="/depth"))
    injector.arm(Fault(fault=FaultKind.STALE_SNAPSHOT, match="symbol=BTCUSDT"))
    assert not injector.disturbs_frames
    assert injector.due_on_rest("/api/v3/time") == []
    due = injector.due_on_rest("/api/v3/depth?symbol=BTCUSDT")
    assert {fault.fault for fault in due} == {FaultKind.REST_SLOW, FaultKind.STALE_SNAPSHOT}
    assert injector.due_on_rest("/api/v3/depth?symbol=BTCUSDT") == []


def test_connection_faults_act_at_once_only_without_a_condition() -> None:
    assert Fault(fault=FaultKind.CLOSE).acts_at_once
    assert not Fault(fault=FaultKind.CLOSE, match="@trade").acts_at_once
    assert not Fault(fault=FaultKind.RESET, after=3).acts_at_once
    assert not Fault(fault=FaultKind.STALL, probability=0.5).acts_at_once
    assert not Fault(fault=FaultKind.DROP).acts_at_once


def test_garbage_and_truncation_are_no_json_any_more() -> None:
    for kind in (FaultKind.GARBAGE, FaultKind.TRUNCATE):
        with pytest.raises(json.JSONDecodeError):
            json.loads(corrupt(kind, FRAME))


def test_wrong_type_and_huge_value_befall_the_price_alone() -> None:
    message = json.loads(FRAME)
    assert json.loads(corrupt(FaultKind.WRONG_TYPE, FRAME)) == {**message, "p": {}}
    huge = json.loads(corrupt(FaultKind.HUGE_VALUE, FRAME))
    assert huge == {**message, "p": HUGE_VALUE.decode()}
    assert int(huge["p"].split(".")[0]) > 2**64


@pytest.mark.parametrize("kind", sorted(CORRUPTIONS))
def test_every_corruption_changes_a_frame_even_without_a_number(kind: FaultKind) -> None:
    assert corrupt(kind, b'{"result":null}') != b'{"result":null}'


def test_an_unknown_fault_or_parameter_is_refused() -> None:
    for text in (b'{"fault":"explode"}', b'{"fault":"drop","counts":1}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(text, type=Fault)


@pytest.mark.parametrize(
    ("frame", "spoilt"),
    [
        (b'{"checksum":1406471562,"ts":"1"}', b'{"checksum":1406471563,"ts":"1"}'),
        (b'{"checksum":-9}', b'{"checksum":-0}'),
        (b'{"checksum":0}', b'{"checksum":1}'),
    ],
)
def test_spoilt_checksum_is_another_number(frame: bytes, spoilt: bytes) -> None:
    assert corrupt(FaultKind.CHECKSUM, frame) == spoilt


def test_altered_message_differs_in_one_digit_of_its_last_decimal() -> None:
    frame = b'{"bids":[["1.50","2.00"],["1.49","7.39"]],"asks":[],"checksum":123}'
    assert corrupt(FaultKind.ALTERED, frame) == b'{"bids":[["1.50","2.00"],["1.49","7.30"]],"asks":[],"checksum":123}'


def test_digits_of_a_time_are_no_decimal_to_be_altered() -> None:
    frame = b'{"asks":[{"price":1.49,"qty":7.39}],"checksum":123,"timestamp":"2026-08-24T22:21:58.343688Z"}'
    assert corrupt(FaultKind.ALTERED, frame) == frame.replace(b"7.39", b"7.30")


def test_price_becomes_an_object_and_not_the_time_before_it() -> None:
    frame = b'{"data":{"timestamp":"1641343721","microtimestamp":"1641343721663333","bids":[["77188","0.38"]]}}'
    assert corrupt(FaultKind.WRONG_TYPE, frame) == frame.replace(b'"77188"', b"{}")


@pytest.mark.parametrize("kind", [FaultKind.CHECKSUM, FaultKind.ALTERED])
def test_fault_is_not_lost_on_a_message_without_the_part(kind: FaultKind) -> None:
    assert b"garbage" in corrupt(kind, b'{"a":1}')


@pytest.mark.parametrize("kind", [FaultKind.WRONG_TYPE, FaultKind.HUGE_VALUE])
def test_version_of_json_rpc_is_no_price(kind: FaultKind) -> None:
    assert b'{"jsonrpc":"2.0"' in corrupt(kind, b'{"jsonrpc":"2.0","bids":[["new","70000.5","12.5"]]}')
    assert b"70000.5" not in corrupt(kind, b'{"jsonrpc":"2.0","bids":[["new","70000.5","12.5"]]}')
    assert b"70000.5" not in corrupt(FaultKind.HUGE_VALUE, b'{"jsonrpc":"2.0","bids":[["new",70000.5,12.5]]}')
