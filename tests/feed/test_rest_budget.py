"""The REST budget: the venue's rule to the letter, one account for all workers of a host, and who dies harms nobody."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from mdring.emulator.limits import WeightBudget
from mdring.feed.adapter import Limits, Response
from mdring.feed.rest_budget import BUSY_NS, Account, RestBudget, account_name, is_turning, retry_after_s

REPOSITORY: Final = Path(__file__).parents[2]
SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
ROLLING: Final = Limits(weight_per_minute=100)
CLOCK: Final = Limits(weight_per_minute=100, weight_by_clock=True, weight_header="X-Used")
NOON: Final = 1_790_000_040 * SECOND  # the turn of a minute
URL: Final = "https://api.example.com"


def refusal(status: int = 429, **headers: str) -> Response:
    return Response("", "", status, b"", {name.replace("_", "-"): value for name, value in headers.items()})


def used_by(figure: int) -> Response:
    return Response("", "", 200, b"", {"x-used": str(figure)})


# ---- so much in any minute --------------------------------------------------------------------------------


def test_rolling_budget_frees_what_was_spent_a_minute_ago() -> None:
    account = Account()
    account.spend(60, NOON)
    account.spend(30, NOON + 10 * SECOND)
    now = NOON + 20 * SECOND
    assert account.wait_ns(ROLLING, 10, now) == 0
    assert account.wait_ns(ROLLING, 11, now) == 41 * SECOND  # what was spent within a second counts from its end
    assert account.wait_ns(ROLLING, 80, now) == 51 * SECOND
    assert account.wait_ns(ROLLING, 70, NOON + 61 * SECOND) == 0


def test_request_larger_than_the_budget_goes_alone() -> None:
    for limits in (ROLLING, CLOCK):
        account, now = Account(), NOON + 30 * SECOND
        assert account.wait_ns(limits, 250, now) == 0
        account.spend(1, now)
        wait = account.wait_ns(limits, 250, now)
        assert wait == (31 if limits is CLOCK else 61) * SECOND
        assert account.wait_ns(limits, 250, now + wait) == 0


def test_venue_without_a_budget_sets_no_bound() -> None:
    account = Account()
    for _ in range(1000):
        assert account.wait_ns(Limits(), 1000, NOON) == 0
        account.spend(1000, NOON)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 90 * SECOND)), min_size=1, max_size=40))
def test_no_minute_ever_holds_more_than_the_budget(requests: list[tuple[int, int]]) -> None:
    account, now = Account(), NOON
    spent: list[tuple[int, int]] = []
    for weight, passed in requests:
        now += passed
        now += account.wait_ns(ROLLING, weight, now)
        assert account.wait_ns(ROLLING, weight, now) == 0
        account.spend(weight, now)
        spent.append((now, weight))
    for end, _ in spent:
        assert sum(weight for when, weight in spent if end - MINUTE < when <= end) <= 100


@given(st.lists(st.integers(0, SECOND), min_size=2, max_size=20))
def test_requests_keep_the_distance_that_the_venue_demands(gaps: list[int]) -> None:
    limits = Limits(fetch_interval_s=0.1)
    account, now = Account(), NOON
    asked: list[int] = []
    for gap in gaps:
        now += gap
        now += account.wait_ns(limits, 1, now)
        assert account.wait_ns(limits, 1, now) == 0
        account.spend(1, now)
        asked.append(now)
    assert min(after - before for before, after in pairwise(asked)) >= SECOND // 10
    assert account.wait_ns(limits, 1, NOON - MINUTE) == 0  # the clock was set back


# ---- so much in each minute of the clock ------------------------------------------------------------------


def test_whole_budget_is_free_again_when_the_minute_has_turned() -> None:
    account = Account()
    account.spend(100, NOON + 58 * SECOND)
    assert account.wait_ns(CLOCK, 1, NOON + 58 * SECOND) == 3 * SECOND
    assert account.wait_ns(CLOCK, 1, NOON + 60 * SECOND) == 1 * SECOND
    assert account.wait_ns(CLOCK, 100, NOON + 61 * SECOND) == 0


def test_around_the_turn_little_is_let_through_and_counts_in_both_minutes() -> None:
    account, before, after = Account(), NOON + 59 * SECOND, NOON + 60 * SECOND + 1
    account.spend(10, NOON + 30 * SECOND)
    assert account.wait_ns(CLOCK, 2, before) == 0
    account.spend(2, before)
    assert account.wait_ns(CLOCK, 1, before) == 2 * SECOND
    assert account.wait_ns(CLOCK, 1, after) == 1 * SECOND - 1
    assert account.used(CLOCK, NOON + 61 * SECOND) == 2
    assert account.used(CLOCK, NOON + 121 * SECOND) == 0
    quiet = Account()
    assert quiet.wait_ns(CLOCK, 13, before) == 2 * SECOND
    assert quiet.wait_ns(CLOCK, 12, before) == 0


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 40 * SECOND)), min_size=1, max_size=60),
    st.integers(-SECOND + 1, SECOND - 1),
    st.integers(0, MINUTE),
)
def test_venue_whose_clock_is_not_quite_ours_never_refuses(
    requests: list[tuple[int, int]], offset: int, phase: int
) -> None:
    venue, account, now = WeightBudget(100, strikes=0, ban_s=60), Account(), NOON + phase
    for weight, passed in requests:
        now += passed
        while wait := account.wait_ns(CLOCK, weight, now):
            now += wait
        account.spend(weight, now)
        assert venue.spend(weight, now + offset).status == 200


@given(st.integers(0, 2 * MINUTE))
def test_a_minute_is_certain_but_for_a_second_around_its_turn(passed: int) -> None:
    minutes = {(NOON + passed + error) // MINUTE for error in (-SECOND, 0, SECOND)}
    assert is_turning(NOON + passed) == (len(minutes) > 1)


# ---- refusals, and the venue's figure ---------------------------------------------------------------------


def test_refusal_pauses_for_as_long_as_it_says() -> None:
    budget = RestBudget(CLOCK, URL, None)
    now = NOON + 10 * SECOND
    assert budget.learn(refusal(429, Retry_After="7"), now, now)
    assert budget.take(1, now) == 7 * SECOND
    assert budget.learn(refusal(418, Retry_After="300"), now, now)
    assert budget.learn(refusal(429, Retry_After="1"), now, now)
    assert budget.take(1, now) == 300 * SECOND
    assert budget.take(1, now + 300 * SECOND) == 0


@pytest.mark.parametrize(("status", "seconds"), [(429, 60), (418, 120), (503, 0), (500, 0), (0, 0)])
def test_refusal_that_does_not_say_how_long_pauses_as_the_venues_do(status: int, seconds: int) -> None:
    budget = RestBudget(Limits(), URL, None)
    assert budget.learn(refusal(status), NOON, NOON)
    assert budget.take(1, NOON) == seconds * SECOND


def test_pause_of_a_clock_that_was_set_back_is_none() -> None:
    account = Account()
    account.pause(NOON)
    assert account.pause_ns(NOON - 3 * 86_400 * SECOND) == 3 * 86_400 * SECOND
    assert account.pause_ns(NOON - 3 * 86_400 * SECOND - 1) == 0


def test_venues_figure_counts_if_it_is_above_ours() -> None:
    budget, now = RestBudget(CLOCK, URL, None), NOON + 10 * SECOND
    assert budget.take(10, now) == 0
    budget.learn(used_by(10), now, now)
    assert budget.used(now) == 10
    budget.learn(used_by(95), now, now + SECOND)
    assert budget.used(now + SECOND) == 95
    budget.learn(used_by(20), now, now + SECOND)  # overtaken on its way
    assert budget.used(now + SECOND) == 95
    assert budget.take(6, now + 2 * SECOND) == NOON + 61 * SECOND - (now + 2 * SECOND)
    assert budget.used(NOON + 61 * SECOND) == 0


@pytest.mark.parametrize(
    ("sent", "came"), [(50, 61), (50, 59), (59, 61), (60, 62)], ids=["turned", "turning", "was turning", "just turned"]
)
def test_figure_of_an_uncertain_minute_does_not_count(sent: int, came: int) -> None:
    budget = RestBudget(CLOCK, URL, None)
    budget.learn(used_by(95), NOON + sent * SECOND, NOON + came * SECOND)
    assert budget.used(NOON + came * SECOND) == 0


@pytest.mark.parametrize("text", ["", "many", "-5", "٣"])
def test_figure_that_is_none_does_not_count(text: str) -> None:
    budget, now = RestBudget(CLOCK, URL, None), NOON + 10 * SECOND
    assert budget.learn(Response("", "", 200, b"", {"X-Used": text}), now, now)
    assert budget.used(now) == 0


def test_figure_counts_only_where_the_venue_has_one() -> None:
    budget, now = RestBudget(structs.replace(CLOCK, weight_header=""), URL, None), NOON + 10 * SECOND
    budget.learn(used_by(95), now, now)
    assert budget.used(now) == 0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 120 ", 120),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("9" * 40, 259_200),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_retry_after_is_a_number_of_seconds(value: str, seconds: int) -> None:
    assert retry_after_s(Response("", "", 429, b"", {"retry-after": value})) == seconds


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 95 <= retry_after_s(Response("", "", 429, b"", {"Retry-After": date})) <= 100


def test_no_header_means_no_wait() -> None:
    assert retry_after_s(Response("", "", 429, b"", {})) == 0


# ---- the file ---------------------------------------------------------------------------------------------


@pytest.fixture
def accounts(run_folder: Path) -> Path:
    """The folder of the accounts, which nobody has made yet."""
    return run_folder / "runs.budgets"


def test_workers_of_one_host_share_what_they_spend_and_others_do_not(accounts: Path) -> None:
    ours, theirs = RestBudget(CLOCK, URL, accounts), RestBudget(CLOCK, f"{URL}/v2", accounts)
    other = RestBudget(CLOCK, "https://api.example.com:8443", accounts)
    now = NOON + 10 * SECOND
    assert ours.take(60, now) == 0
    assert theirs.take(60, now) == 51 * SECOND
    assert theirs.take(40, now) == 0
    assert (ours.used(now), theirs.used(now), other.used(now)) == (100, 100, 0)
    assert other.take(100, now) == 0


def test_figure_and_refusal_that_one_worker_gets_are_known_to_all(accounts: Path) -> None:
    ours, theirs, now = RestBudget(CLOCK, URL, accounts), RestBudget(CLOCK, URL, accounts), NOON + 10 * SECOND
    assert ours.learn(used_by(97), now, now)
    assert theirs.take(4, now) == 51 * SECOND
    assert theirs.take(3, now) == 0
    assert ours.learn(refusal(418, Retry_After="120"), now, now)
    assert theirs.take(1, now) == 120 * SECOND


def test_account_outlives_those_who_spent(accounts: Path) -> None:
    now = time.time_ns()
    first = RestBudget(ROLLING, URL, accounts)
    assert first.take(100, now) == 0
    first.close()
    assert RestBudget(ROLLING, URL, accounts).take(1, now) > 50 * SECOND


def test_accounts_that_have_nothing_to_tell_are_cleared_away_by_whoever_comes(accounts: Path) -> None:
    old = RestBudget(ROLLING, URL, accounts)
    assert old.take(1, NOON) == 0
    (accounts / "127.0.0.1:1").touch()
    assert len(list(accounts.iterdir())) == 2
    other = RestBudget(ROLLING, "https://other.example.com", accounts)
    assert not accounts.exists()
    assert old.take(1, NOON) == 0  # and made anew by whoever needs one
    assert other.take(1, NOON) == 0
    assert {path.name for path in accounts.iterdir()} == {"api.example.com", "other.example.com"}
    (accounts / "notes of somebody").write_text("keep")
    old.close()
    assert [path.name for path in accounts.iterdir()] == ["notes of somebody"]


def test_account_cleared_away_between_opening_and_locking_is_made_anew(
    accounts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = RestBudget(ROLLING, URL, accounts)
    lock, path = fcntl.flock, accounts / account_name(URL)

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        path.unlink()
        accounts.rmdir()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert budget.take(60, NOON) == 0
    assert budget.take(60, NOON) == 61 * SECOND
    assert path.exists()


def test_page_that_is_none_of_ours_is_an_empty_account(accounts: Path) -> None:
    accounts.mkdir()
    (accounts / account_name(URL)).write_bytes(b"\xff" * 4096)
    budget = RestBudget(ROLLING, URL, accounts)
    assert budget.used(NOON) == 0
    assert budget.take(100, NOON) == 0
    assert budget.take(1, NOON) == 61 * SECOND


@pytest.mark.parametrize("weight", [-5, 2**62, 2**63 - 1])
def test_page_with_a_weight_that_nobody_can_have_spent_is_an_empty_account(accounts: Path, weight: int) -> None:
    damaged = Account()
    damaged.book(weight, NOON)
    damaged.book(weight, NOON - SECOND)
    budget = RestBudget(ROLLING, URL, accounts)
    accounts.mkdir()
    (accounts / account_name(URL)).write_bytes(damaged.to_bytes())
    assert budget.used(NOON) == 0
    assert budget.take(50, NOON) == 0
    assert budget.used(NOON) == 50


def test_worker_that_cannot_have_the_file_keeps_its_own_account(
    accounts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accounts.write_text("in the way")
    budget = RestBudget(ROLLING, URL, accounts)
    with caplog.at_level(logging.ERROR):
        assert [budget.take(50, NOON) for _ in range(3)] == [0, 0, 61 * SECOND]
        assert budget.learn(refusal(429, Retry_After="90"), NOON, NOON)
        assert budget.take(1, NOON + 61 * SECOND) == 29 * SECOND
    assert len(caplog.records) == 1
    assert "not shared" in caplog.text
    assert budget.used(NOON) == 100
    budget.close()
    assert accounts.read_text() == "in the way"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://API.example.com/api/v3", "api.example.com"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("http://[::1]:8080/", "_::1_:8080"),
        ("https://user:secret@api.example.com", "api.example.com"),
        ("", "_"),
        ("/../../x", "_"),
    ],
)
def test_account_is_called_after_host_and_port(url: str, name: str) -> None:
    assert account_name(url) == name


# ---- real processes ---------------------------------------------------------------------------------------

PROCESS: Final = """
import sys, time
from pathlib import Path
from mdring.feed.adapter import Limits, Response
from mdring.feed.rest_budget import Account, BUSY_NS, RestBudget
budget = RestBudget(Limits(weight_per_minute=%(most)d), "%(url)s", Path(sys.argv[1]))
now = int(sys.argv[2])
def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()
"""
SPENDER: Final = """
while (wait := budget.take(1, now)) in (0, BUSY_NS):
    if not wait:
        say("x")
"""
HOLDER: Final = """
def never_ends(account, weight, now_ns):
    account._words[2:5] = [now_ns, now_ns // 1_000_000_000, 1]
    say("held")
    time.sleep(600)
Account.spend = never_ends
budget.take(1, now)
"""
REFUSED: Final = """
assert budget.learn(Response("", "", 429, b"", {"Retry-After": "40"}), now, now)
"""


@pytest.fixture
def now() -> int:
    """One and the same time for all; the real one, else whoever starts would clear the account away."""
    return time.time_ns() // SECOND * SECOND


def process(accounts: Path, now: int, body: str, most: int = 100) -> subprocess.Popen[bytes]:
    code = PROCESS % {"most": most, "url": URL} + body
    arguments = [sys.executable, "-c", code, str(accounts), str(now)]
    return subprocess.Popen(arguments, cwd=REPOSITORY, stdout=subprocess.PIPE, bufsize=0)


def test_processes_together_spend_the_budget_and_not_one_more(accounts: Path, now: int) -> None:
    spenders = [process(accounts, now, SPENDER, most=3000) for _ in range(3)]
    granted = [len(spender.communicate()[0]) for spender in spenders]
    assert [spender.returncode for spender in spenders] == [0, 0, 0]
    assert sum(granted) == 3000
    assert RestBudget(ROLLING, URL, accounts).used(now) == 3000


def test_spenders_killed_at_any_time_cost_at_most_what_they_had_just_booked(accounts: Path, now: int) -> None:
    spenders = [process(accounts, now, SPENDER, most=6000) for _ in range(3)]
    heard = 0
    for spender in spenders[:2]:
        assert spender.stdout is not None
        heard += len(spender.stdout.read(100))
        os.kill(spender.pid, signal.SIGKILL)
    heard += sum(len(spender.communicate()[0]) for spender in spenders)
    assert spenders[2].returncode == 0
    # One that died between booking and saying so has booked one more than we have heard of.
    assert 5998 <= heard <= 6000


def test_who_dies_while_it_holds_the_account_has_changed_nothing_and_holds_nobody_up(accounts: Path, now: int) -> None:
    budget = RestBudget(ROLLING, URL, accounts)
    with_figure = RestBudget(structs.replace(ROLLING, weight_header="X-Used"), URL, accounts)
    holder = process(accounts, now, HOLDER)
    assert holder.stdout is not None
    assert holder.stdout.read(4) == b"held"
    assert budget.take(1, now) == BUSY_NS
    assert with_figure.learn(used_by(95), now, now)  # nothing that could not be had again
    assert not budget.learn(refusal(429), now, now)  # this must be told
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert budget.take(100, now) == 0
    assert budget.take(1, now) == 61 * SECOND


def test_refusal_that_one_process_gets_pauses_another(accounts: Path, now: int) -> None:
    budget = RestBudget(ROLLING, URL, accounts)
    assert budget.take(1, now) == 0
    refused = process(accounts, now, REFUSED)
    assert refused.wait() == 0
    assert refused.stdout is not None
    refused.stdout.close()
    assert budget.take(1, now) == 40 * SECOND
