"""Times of RFC 3339 as ns: ``fixed.time_ns``."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.fixed import DecimalError, time_ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2023-10-06T17:35:55.440295Z", 1_696_613_755_440_295_000),
        ("2023-10-04T16:26:30.524394914Z", 1_696_436_790_524_394_914),
        ("2024-02-29T23:59:59.9Z", 1_709_251_199_900_000_000),
        ("2023-10-04T16:26:30.5243949149999Z", 1_696_436_790_524_394_914),
        ("2016-12-31T23:59:60Z", 1_483_228_800_000_000_000),  # a leap second is the first of the next minute
    ],
)
def test_time_is_exact_to_the_nanosecond(text: str, expected: int) -> None:
    assert time_ns(text) == expected


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2261, 12, 31)))
def test_time_agrees_with_the_standard_library(moment: datetime) -> None:
    elapsed = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    expected = ((elapsed.days * 86_400 + elapsed.seconds) * 1_000_000 + elapsed.microseconds) * 1_000
    assert time_ns(moment.isoformat() + "Z") == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "Z", "2023-10-06", "2023-10-06T17:35:55", "2023-10-06 17:35:55Z", "2023-10-06T17:35:55.Z",
        "2023-10-06T17:35:55,1Z", "2023-13-06T17:35:55Z", "2023-00-06T17:35:55Z", "2023-02-29T17:35:55Z",
        "2100-02-29T00:00:00Z", "2023-04-31T00:00:00Z", "2023-10-00T17:35:55Z", "2023-10-06T24:00:00Z",
        "2023-10-06T17:60:55Z", "2023-10-06T17:35:61Z", "1969-12-31T23:59:59Z", "2262-01-01T00:00:00Z",
        "2023-10-06T17:35:55.1+00:00", "2023-10-06T17:35:55.12x4Z", "2o23-10-06T17:35:55Z", "2023-10-06T17:35:5٥Z",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(DecimalError):
        time_ns(text)
