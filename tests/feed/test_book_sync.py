"""Book synchronisation: a book that calls itself valid is the venue's book."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.feed import book_sync
from mdring.feed.book_sync import TRANSITIONS, BookSync, Held, SyncRules, SyncState, Verdict

# ---- two kinds of venues: ids that adjoin, and deltas that name the one before ----------------------------


def _adjoins(snapshot: int, first: int, last: int, previous: int) -> Verdict:
    if last <= snapshot:
        return Verdict.DROP
    return Verdict.APPLY if first <= snapshot + 1 else Verdict.GAP


def _follows(begun: int, applied: int, first: int, last: int, previous: int) -> Verdict:
    return Verdict.DROP if last <= applied and first <= begun else Verdict.GAP


ADJOINING = SyncRules(
    chained=False,
    reaches=lambda snapshot, first, previous: first <= snapshot + 1,
    after_snapshot=_adjoins,
    after_delta=_follows,
)
CHAINED = SyncRules(
    chained=True,
    reaches=lambda snapshot, first, previous: previous <= snapshot,
    after_snapshot=lambda snapshot, first, last, previous: (
        Verdict.DROP if last <= snapshot else Verdict.APPLY if previous <= snapshot else Verdict.GAP
    ),
    after_delta=lambda begun, applied, first, last, previous: Verdict.DROP if last <= applied else Verdict.GAP,
)
RULES = pytest.mark.parametrize("rules", [ADJOINING, CHAINED], ids=["adjoining", "chained"])


def held(first: int, last: int, previous: int = 0) -> Held[str]:
    return Held(first, last, previous, 0, f"{first}..{last}")


def test_deltas_are_held_until_the_snapshot_and_then_replayed_in_order() -> None:
    sync = BookSync[str](ADJOINING)
    for first, last in [(5, 6), (7, 9), (10, 10)]:
        assert sync.on_delta(first, last) is Verdict.HOLD
        assert sync.hold(held(first, last), 100)
    assert not sync.valid and sync.held == 3
    assert sync.on_snapshot(8)
    assert sync.valid
    verdicts = [sync.on_delta(one.first, one.last) for one in sync.take_held()]
    assert verdicts == [Verdict.DROP, Verdict.APPLY, Verdict.APPLY]
    assert sync.state is SyncState.LIVE and sync.last == 10 and sync.held == 0


def test_snapshot_older_than_the_first_held_delta_is_refused_and_changes_nothing() -> None:
    sync = BookSync[str](ADJOINING)
    sync.on_delta(5, 6)
    sync.hold(held(5, 6), 100)
    assert not sync.on_snapshot(3)
    assert sync.state is SyncState.AWAIT_SNAPSHOT and sync.held == 1
    assert sync.on_snapshot(4)


def test_quiet_book_is_valid_as_of_its_snapshot() -> None:
    sync = BookSync[str](ADJOINING)
    assert sync.on_snapshot(100)
    assert sync.valid and sync.last == 100
    assert sync.on_delta(99, 100) is Verdict.DROP
    assert sync.on_delta(101, 105) is Verdict.APPLY


def test_gap_makes_the_book_invalid_and_later_deltas_wait() -> None:
    sync = BookSync[str](ADJOINING)
    sync.on_snapshot(10)
    sync.on_delta(11, 12)
    assert sync.on_delta(14, 15) is Verdict.GAP
    assert not sync.valid and sync.due == 13  # what was due can still be told
    assert sync.on_delta(16, 16) is Verdict.HOLD


def test_overflow_of_what_is_held_forgets_it_so_that_only_a_newer_snapshot_will_do() -> None:
    sync = BookSync[str](ADJOINING, max_bytes=3 * (100 + book_sync.HELD_OVERHEAD_BYTES))
    for number in (1, 2, 3):
        assert sync.hold(held(number, number), 100)
    assert not sync.hold(held(4, 4), 100)
    assert sync.held == 0
    assert sync.hold(held(5, 5), 100)
    assert not sync.on_snapshot(3)
    assert sync.on_snapshot(4)


def test_reset_forgets_everything() -> None:
    sync = BookSync[str](ADJOINING)
    sync.on_snapshot(10)
    sync.on_delta(11, 12)
    sync.reset()
    assert (sync.state, sync.last, sync.held) == (SyncState.AWAIT_SNAPSHOT, 0, 0)


def test_new_snapshot_is_taken_in_any_state() -> None:
    sync = BookSync[str](ADJOINING)
    for _ in range(2):
        assert sync.on_snapshot(50) and sync.state is SyncState.REPLAY
        assert sync.on_delta(51, 51) is Verdict.APPLY
    assert sync.on_snapshot(40) and sync.last == 40


def test_table_in_the_docstring_is_the_table_of_the_code() -> None:
    lines = (book_sync.__doc__ or "").splitlines()
    head = next(index for index, line in enumerate(lines) if line.split()[:2] == ["HOLD", "DROP"])
    columns = {name: lines[head].index(name) for name in lines[head].split()}
    found = {}
    for line in lines[head + 1 : head + 4]:
        state = SyncState[line.split()[0]]
        for verdict, column in columns.items():
            if line[column : column + 1].strip():
                found[state, Verdict[verdict]] = SyncState[line[column:].split()[0]]
    assert found == TRANSITIONS


# ---- against a model: a venue whose book is the list of its own ids ---------------------------------------


@st.composite
def traffic(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Deltas (by index) that arrive, repeat, are lost or come late, and snapshots of some moment."""
    events: list[tuple[str, int]] = []
    for index in range(draw(st.integers(1, 25))):
        fate = draw(st.sampled_from(["arrive"] * 6 + ["lost", "twice", "late", "snapshot", "reset"]))
        if fate in ("snapshot", "reset"):
            events.append((fate, draw(st.integers(0, index))))
        if fate == "lost":
            continue
        if fate == "late" and events:
            events.insert(len(events) - 1, ("delta", index))
        else:
            events.append(("delta", index))
        if fate == "twice":
            events.append(("delta", draw(st.integers(0, index))))
    return [*events, ("snapshot", draw(st.integers(0, 25)))]


@RULES
@given(widths=st.lists(st.integers(1, 3), min_size=26, max_size=26), events=traffic())
def test_valid_book_holds_every_change_up_to_its_last_id_whatever_the_traffic(
    rules: SyncRules, widths: list[int], events: list[tuple[str, int]]
) -> None:
    """A change is its id. The book of the consumer, rebuilt by the verdicts, must be {1..last} whenever valid."""
    ends = [sum(widths[: index + 1]) for index in range(len(widths))]
    deltas = [(end - width + 1, end, end - width) for end, width in zip(ends, widths, strict=True)]
    sync = BookSync[str](rules)
    book: set[int] = set()

    def apply(first: int, last: int, previous: int) -> None:
        match sync.on_delta(first, last, previous):
            case Verdict.APPLY:
                book.update(range(first, last + 1))
            case Verdict.HOLD | Verdict.GAP:
                sync.hold(held(first, last, previous), 10)

    for kind, index in events:
        match kind:
            case "delta":
                apply(*deltas[index])
            case "reset":
                sync.reset()
            case _:
                snapshot = ends[index]
                if sync.on_snapshot(snapshot):
                    book = set(range(1, snapshot + 1))
                    for one in sync.take_held():
                        apply(one.first, one.last, one.previous)
        if sync.valid:
            assert book == set(range(1, sync.last + 1))
