"""Whole numbers as text, and decimal text without the noise of binary fractions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.adapter import VenueProtocolError
from mdring.feed.fixed import scale
from mdring.feed.number_text import whole, without_noise


@given(st.integers(0, 2**63 - 1))
def test_whole_number_of_63_bits_is_read(number: int) -> None:
    assert whole(str(number)) == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1.0", "1e3", " 1", "1_0", "٣", "²", "x", "0x1f", str(2**63), "9" * 19, "9" * 5_000]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(VenueProtocolError, match="a whole number is"):
        whole(text)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("2216113.01000000309", "2216113.01000000309"),
        ("5173637.6974705640488", "5173637.69747056404"),
        ("22161.1301000000309000001", "22161.1301000000309"),
        ("66.98297", "66.98297"),
        ("1234567890123456789", "1234567890123456789"),
        ("123456789012345678.9", "123456789012345678.9"),
        ("", ""),
        ("x", "x"),
    ],
)
def test_digits_behind_the_point_that_would_not_fit_are_cut(text: str, cut: str) -> None:
    assert without_noise(text) == cut


@given(st.integers(1, 10**6), st.text("0123456789", min_size=1, max_size=40))
def test_what_is_cut_fits_and_is_the_same_number_so_far(digits: int, fraction: str) -> None:
    cut = without_noise(f"{digits}.{fraction}")
    assert f"{digits}.{fraction}".startswith(cut)
    assert scale(cut, -18 + len(str(digits))) >= digits
