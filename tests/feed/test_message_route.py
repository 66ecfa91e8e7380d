"""Message routes: a message goes to its handler, what is wrong with it is blamed on its stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mdring.feed.adapter import NOTHING, Fetch, Request, VenueProtocolError
from mdring.feed.emit import Emit
from mdring.feed.message_route import MessageRoute
from mdring.feed.stage import Channel
from mdring.record import DataType, Reason

DECODE = msgspec.json.Decoder(list[int]).decode


def route(handle: Any, instrument: str | None = "btc_usdt") -> MessageRoute:
    return MessageRoute(DECODE, handle, instrument, DataType.TRADE)


def test_message_is_decoded_for_its_handler_which_answers() -> None:
    asked = (Fetch("tag", "url"),)
    taken: list[tuple[list[int], int]] = []

    def handle(message: list[int], ts_recv: int, emit: Emit) -> Sequence[Request]:
        taken.append((message, ts_recv))
        return asked

    assert route(handle).take(b"[1,2]", 7, Emit(8)) == asked
    assert taken == [([1, 2], 7)]


@pytest.mark.parametrize("text", [b"", b"[1", b'["x"]', b'"\xff"', b"[" * 5_000])
def test_text_that_cannot_be_decoded_is_blamed_on_the_stream(text: bytes) -> None:
    with pytest.raises(VenueProtocolError) as caught:
        route(lambda message, ts_recv, emit: NOTHING).take(text, 7, Emit(8))
    blame = caught.value
    assert (blame.instrument, blame.data_type, blame.reason) == ("btc_usdt", DataType.TRADE, Reason.BAD_MESSAGE)


def test_handlers_complaint_keeps_its_reason_and_is_blamed_on_the_stream() -> None:
    def refuse(message: list[int], ts_recv: int, emit: Emit) -> Sequence[Request]:
        raise VenueProtocolError("no", reason=Reason.SUBSCRIBE_REJECTED)

    with pytest.raises(VenueProtocolError, match="no") as caught:
        route(refuse, None).take(b"[]", 7, Emit(8))
    blame = caught.value
    assert (blame.instrument, blame.data_type, blame.reason) == (None, DataType.TRADE, Reason.SUBSCRIBE_REJECTED)


def test_number_that_no_record_holds_is_out_of_range() -> None:
    channel = Channel("btc_usdt", 1, 1, -2, -2)

    def handle(message: list[int], ts_recv: int, emit: Emit) -> Sequence[Request]:
        emit.bbo(channel, "1", "1", "2", "1", message[0])
        return NOTHING

    with pytest.raises(VenueProtocolError) as caught:
        route(handle).take(b"[99999999999999999999999]", 7, Emit(8))
    assert caught.value.reason is Reason.VALUE_OUT_OF_RANGE


def test_mistake_of_ours_is_not_blamed_on_the_venue() -> None:
    def handle(message: list[int], ts_recv: int, emit: Emit) -> Sequence[Request]:
        return NOTHING if message[0] else ()

    with pytest.raises(IndexError):
        route(handle).take(b"[]", 7, Emit(8))
