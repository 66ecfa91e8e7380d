"""Lists of names, cut for frames."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from mdring.feed.portions import portions


def test_names_fill_a_frame_by_number_then_by_bytes() -> None:
    assert list(portions(["a", "b", "c"], 2, 100)) == [["a", "b"], ["c"]]
    assert list(portions(["aa", "bb", "cc"], 9, 10)) == [["aa", "bb"], ["cc"]]
    assert list(portions([], 2, 100)) == []


def test_bytes_are_counted_not_characters() -> None:
    assert list(portions(["\u5e01", "\u5e01"], 9, 11)) == [["\u5e01"], ["\u5e01"]]


def test_name_that_no_frame_has_room_for_goes_by_itself() -> None:
    assert list(portions(["a", "b" * 50, "c"], 9, 20)) == [["a"], ["b" * 50], ["c"]]


@given(st.lists(st.text("ab@\u5e01", min_size=1, max_size=9)), st.integers(1, 5), st.integers(40, 90))
def test_all_names_go_out_once_in_order_within_the_bounds(names: list[str], most: int, most_bytes: int) -> None:
    cut = list(portions(names, most, most_bytes))
    assert [name for portion in cut for name in portion] == names
    for portion in cut:
        text = json.dumps(portion, ensure_ascii=False, separators=(",", ":")).encode()
        assert 0 < len(portion) <= most and len(text.strip(b"[]")) < most_bytes
