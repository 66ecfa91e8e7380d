"""Trade ids: what a venue calls a trade comes back as it was."""

from __future__ import annotations

from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.adapter import VenueProtocolError
from mdring.feed.trade_id import trade_id_of
from mdring.record import TRADE, TradeIdFormat, trade_id


def stored(text: str) -> int | UUID | str | None:
    rows = np.zeros(1, dtype=TRADE)
    rows["trade_id"], rows["trade_id_high"], rows["trade_id_format"] = trade_id_of(text)
    return trade_id(rows[0])


@pytest.mark.parametrize(
    ("text", "meant", "format_"),
    [
        ("403691824", 403691824, TradeIdFormat.INTEGER),
        ("0", 0, TradeIdFormat.INTEGER),
        ("2290000001211680903", 2290000001211680903, TradeIdFormat.INTEGER),
        (str(2**128 - 1), 2**128 - 1, TradeIdFormat.INTEGER),
        (
            "20f43950-d8dd-5b31-9112-a178eb6023af",
            UUID("20f43950-d8dd-5b31-9112-a178eb6023af"),
            TradeIdFormat.UUID,
        ),
        ("ETH-403691824", "ETH-403691824", TradeIdFormat.TEXT),
        ("007", "007", TradeIdFormat.TEXT),
        ("1234567890abcdef", "1234567890abcdef", TradeIdFormat.TEXT),
    ],
)
def test_each_form_of_id_comes_back_as_it_was(text: str, meant: object, format_: TradeIdFormat) -> None:
    assert trade_id_of(text)[2] == format_
    assert stored(text) == meant


@given(
    st.integers(0, 2**128 - 1).map(str) | st.uuids().map(str) | st.from_regex(r"[A-Z]{1,4}-[0-9]{1,11}", fullmatch=True)
)
def test_no_id_is_changed(text: str) -> None:
    assert str(stored(text)) == text


@pytest.mark.parametrize(
    "text", ["", "ü", "x" * 17, "x\0", str(2**128), "20f43950-d8dd-5b31-9112-a178eb6023ag", "٣", "x" * 36]
)
def test_what_does_not_fit_is_the_venues_fault(text: str) -> None:
    with pytest.raises(VenueProtocolError):
        trade_id_of(text)


def test_text_in_a_record_can_be_read_as_bytes() -> None:
    rows = np.zeros(1, dtype=TRADE)
    rows["trade_id"], rows["trade_id_high"], rows["trade_id_format"] = trade_id_of("ETH-403691824")
    assert rows.tobytes()[72:88] == b"ETH-403691824\0\0\0"
