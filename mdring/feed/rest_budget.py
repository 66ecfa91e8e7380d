"""The REST budget: what a venue allows one address, shared by all workers of this host that ask the same REST host.

Venues count weights (or requests) per address, whoever sends them. So the account of a REST host is kept where all
workers see it: one small file for each, beside the directory of the runs, ``/dev/shm/mdring.budgets/api.binance.com``
by default. It belongs to nobody: the first worker that asks makes it; a run's end leaves it as it is, for what was
spent stays spent; and whoever comes later clears away what has nothing to tell any more. ::

    budget = RestBudget(adapter.limits, "https://api.binance.com", rest_budgets(runs))
    wait_ns = budget.take(50, time.time_ns())          # 0: it is booked, ask the venue now
    budget.learn(response, sent_ns, time.time_ns())    # the venue's own figure; a refusal pauses all workers

The file has one page, written at once under the kernel's lock on it (``flock``), which ends with its holder, however
that ends. Words of 64 bits, little-endian, times of CLOCK_REALTIME::

    word 0    magic
    word 1    until when nobody may ask, ns: the venue has refused
    word 2    when somebody has asked last, ns
    word 3    128 pairs (second since the epoch, weight booked in it), indexed by the second modulo 128

A holder that dies has written all or nothing. It never waits for anything while it holds the lock, so whoever finds it
held tries again a little later, and nobody's event loop waits. Where the file cannot be had at all (no room, another
user's), each worker keeps its own account, as good as it can be without the others, and says so.

Two rules (:class:`Limits` says which is the venue's):

* by the clock: so much in each minute of the venue's clock, which is ours but for a second. What is asked for around
  the turn of a minute may be counted in either of the two, so it is booked in both, and little is let through then.
* otherwise: so much in any 60 seconds. A token bucket would let twice as much through in its first minute.

Besides, two requests keep the distance that the venue demands (``fetch_interval_s``), if it does.

The venue's own figure (``weight_header``), where its answers have one, tells also of those who share the address and
not the file: what it has above ours is booked.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import accumulate
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import numpy as np

from mdring.feed.adapter import Limits, Response
from mdring.feed.snapshot_book import PAUSE_S

logger = logging.getLogger(__name__)

SECOND_NS: Final = 1_000_000_000
MINUTE_NS: Final = 60 * SECOND_NS
TURN_NS: Final = SECOND_NS
"""So far our clock may be off, and a request under way: within it, a minute's turn is not certain."""
TURN_SHARE: Final = 8
"""Around the turn of a minute, a request may go if the budget divided by this is enough for both minutes."""
BUSY_NS: Final = 2_000_000
"""After this, whoever found the account locked tries again."""
_REFUSALS: Final = (418, 429, 503)  # 418 is a ban at some venues; 503 is a refusal if it has a Retry-After
_MAX_RETRY_AFTER_S: Final = 3 * 86_400
_MAX_DIGITS: Final = 9
_MAX_WEIGHT: Final = 1 << 48  # of one second; their sum, and one more figure of a venue, still fit a word
_MAGIC_BYTES: Final = b"MDBUDGT\x01"
_MAGIC: Final = int.from_bytes(_MAGIC_BYTES, "little")
_SECONDS: Final = 128
_FIRST_PAIR: Final = 3
_WORDS: Final = _FIRST_PAIR + 2 * _SECONDS
_WORD: Final = np.dtype("<i8")
_PAGE_BYTES: Final = _WORDS * _WORD.itemsize


class Account:
    """What was spent when, second by second, and until when nobody may ask. Pure: the caller brings the time."""

    def __init__(self, page: bytes = b"") -> None:
        """``page`` is what ``to_bytes`` gave; anything else is an empty account."""
        if _is_ours(page):
            self._words = np.frombuffer(page, _WORD).copy()
        else:
            self._words = np.zeros(_WORDS, _WORD)
            self._words[0] = _MAGIC

    def to_bytes(self) -> bytes:
        """The page of the file."""
        return self._words.tobytes()

    def wait_ns(self, limits: Limits, weight: int, now_ns: int) -> int:
        """How long to wait before ``weight`` may be spent; 0: not at all. What is more than all may go alone."""
        budget_ns = self._budget_wait_ns(limits, weight, now_ns)
        return max(budget_ns, self._distance_ns(limits, now_ns), self.pause_ns(now_ns))

    def spend(self, weight: int, now_ns: int) -> None:
        """A request of this weight is made."""
        self._words[2] = now_ns
        self.book(weight, now_ns)

    def book(self, weight: int, now_ns: int) -> None:
        """Count a weight, whoever has spent it."""
        second = now_ns // SECOND_NS
        place = _FIRST_PAIR + 2 * (second % _SECONDS)
        before = int(self._words[place + 1]) if self._words[place] == second else 0
        self._words[place : place + 2] = second, before + weight

    def pause(self, until_ns: int) -> None:
        """Nobody may ask before this time."""
        self._words[1] = max(int(self._words[1]), until_ns)

    def pause_ns(self, now_ns: int) -> int:
        """How long the pause still lasts. One that is longer than any may be is of a clock that was set back."""
        left_ns = int(self._words[1]) - now_ns
        return left_ns if 0 < left_ns <= _MAX_RETRY_AFTER_S * SECOND_NS else 0

    def _distance_ns(self, limits: Limits, now_ns: int) -> int:
        interval_ns = round(limits.fetch_interval_s * SECOND_NS)
        left_ns = int(self._words[2]) + interval_ns - now_ns
        return left_ns if 0 < left_ns <= interval_ns else 0  # longer: the clock was set back

    def used(self, limits: Limits, now_ns: int) -> int:
        """The weight that counts now."""
        return sum(weight for _, weight in self._counting(limits, now_ns))

    def has_nothing_to_tell(self, now_ns: int) -> bool:
        """Whether it is as good as an empty one, whatever the limits are."""
        return not self.pause_ns(now_ns) and not any(self._since(now_ns // SECOND_NS - 2 * 60, now_ns))

    def _budget_wait_ns(self, limits: Limits, weight: int, now_ns: int) -> int:
        most = limits.weight_per_minute
        if most == 0:
            return 0
        counting = sorted(self._counting(limits, now_ns))
        excess = sum(spent for _, spent in counting) + weight - most
        if limits.weight_by_clock:
            turning = is_turning(now_ns)
            if turning:
                excess += most - most // TURN_SHARE
            return 0 if excess <= 0 or not (counting or turning) else _turned_ns(now_ns) - now_ns
        if excess <= 0 or not counting:
            return 0
        ends = [(second + 1) * SECOND_NS + MINUTE_NS - now_ns for second, _ in counting]
        freed = accumulate(spent for _, spent in counting)
        return next((end for end, free in zip(ends, freed, strict=True) if free >= excess), ends[-1])

    def _counting(self, limits: Limits, now_ns: int) -> Iterator[tuple[int, int]]:
        """What is spent of the budget now: second and weight, in any order."""
        if limits.weight_by_clock:
            return self._since((_turned_ns(now_ns) - TURN_NS - MINUTE_NS - TURN_NS) // SECOND_NS, now_ns)
        return self._since(now_ns // SECOND_NS - 60, now_ns)

    def _since(self, second: int, now_ns: int) -> Iterator[tuple[int, int]]:
        seconds, weights = self._words[_FIRST_PAIR::2], self._words[_FIRST_PAIR + 1 :: 2]
        counting = (weights != 0) & (seconds >= second) & (seconds <= now_ns // SECOND_NS)
        return zip(seconds[counting].tolist(), weights[counting].tolist(), strict=True)


def _is_ours(page: bytes) -> bool:
    """Whether it is a page as ``Account.to_bytes`` gives, and not damaged."""
    if len(page) != _PAGE_BYTES or not page.startswith(_MAGIC_BYTES):
        return False
    words = np.frombuffer(page, _WORD)
    return bool(words.min() >= 0 and words[_FIRST_PAIR + 1 :: 2].max() <= _MAX_WEIGHT)


def is_turning(now_ns: int) -> bool:
    """Whether it is not certain of which minute of the venue's clock a request is that is made now."""
    return (now_ns + TURN_NS) // MINUTE_NS != (now_ns - TURN_NS) // MINUTE_NS


def _turned_ns(now_ns: int) -> int:
    """When it is certain that the next minute has begun."""
    return ((now_ns - TURN_NS) // MINUTE_NS + 1) * MINUTE_NS + TURN_NS


class RestBudget:
    """The account of one REST host, as one worker uses it."""

    def __init__(self, limits: Limits, rest_url: str, directory: Path | None) -> None:
        """``directory`` has the accounts of this host (``run_folder.rest_budgets``); None: nobody shares this one."""
        self._limits = limits
        self._directory = directory
        self._path = None if directory is None else directory / account_name(rest_url)
        self._last = Account()  # as it was last seen: what counts if there is no file, or it cannot be had
        self._is_alone = False
        if directory is not None:
            _clear_away(directory, time.time_ns())

    def take(self, weight: int, now_ns: int) -> int:
        """Book a request of this weight, and return 0; or book nothing, and return how long to wait (at least)."""
        with self._account() as account:
            if account is None:
                return BUSY_NS
            wait_ns = account.wait_ns(self._limits, weight, now_ns)
            if not wait_ns:
                account.spend(weight, now_ns)
            return wait_ns

    def learn(self, response: Response, sent_ns: int, now_ns: int) -> bool:
        """Take the venue's figure, and how long it refuses us, from the answer to a request made at ``sent_ns``.

        False if the account is locked just now, and the others must be told: try again after ``BUSY_NS``.
        """
        pause_s = pause_after_s(response)
        figure = self._figure(response, sent_ns, now_ns)
        if not pause_s and not figure:
            return True
        with self._account() as account:
            if account is None:
                return not pause_s
            unknown = figure - account.used(self._limits, now_ns)
            if figure and unknown > 0:
                account.book(unknown, now_ns)
            if pause_s:
                account.pause(now_ns + pause_s * SECOND_NS)
        return True

    def used(self, now_ns: int) -> int:
        """The weight that counts now, of all workers; only to be looked at."""
        account = self._last
        if self._path is not None and not self._is_alone:
            with suppress(OSError):
                account = Account(self._path.read_bytes())
        return account.used(self._limits, now_ns)

    def close(self) -> None:
        """Clear the account away if it has nothing to tell any more."""
        if self._directory is not None:
            _clear_away(self._directory, time.time_ns())

    def _figure(self, response: Response, sent_ns: int, now_ns: int) -> int:
        """The weight that the venue says is used; 0 if it says nothing, or if it is not certain of which minute."""
        limits = self._limits
        if not limits.weight_header:
            return 0
        if limits.weight_by_clock and (
            is_turning(sent_ns) or is_turning(now_ns) or sent_ns // MINUTE_NS != now_ns // MINUTE_NS
        ):
            return 0
        text = _header(response, limits.weight_header)
        return int(text[:_MAX_DIGITS]) if text.isascii() and text.isdecimal() else 0

    @contextmanager
    def _account(self) -> Iterator[Account | None]:
        """The account, locked, and written back if it has changed; None: somebody else has it just now."""
        if self._path is None:
            yield self._last
            return
        try:
            descriptor = _open_locked(self._path)
        except OSError as error:
            self._note_alone(error)
            yield self._last
            return
        if descriptor is None:
            yield None
            return
        try:
            page = os.pread(descriptor, _PAGE_BYTES, 0)
            self._last = Account(page)
            yield self._last
            changed = self._last.to_bytes()
            if changed != page:
                os.pwrite(descriptor, changed, 0)
            self._is_alone = False
        except OSError as error:
            self._note_alone(error)
        finally:
            os.close(descriptor)

    def _note_alone(self, error: OSError) -> None:
        if not self._is_alone:
            logger.error("the REST budget is not shared with other workers: %s", error)
        self._is_alone = True


def account_name(rest_url: str) -> str:
    """The name of the account's file: host and port."""
    return re.sub(r"[^a-z0-9.:-]", "_", urlsplit(rest_url).netloc.rpartition("@")[2].lower()) or "_"


def forget_accounts(directory: Path, rest_urls: Iterable[str]) -> None:
    """Remove the accounts of hosts that are gone for good, as emulated ones are with their run."""
    with suppress(OSError):  # as in _clear_away
        for rest_url in rest_urls:
            (directory / account_name(rest_url)).unlink(missing_ok=True)
        directory.rmdir()


def _open_locked(path: Path) -> int | None:
    """The file, made if it is absent, with the lock on it; None: somebody holds it. Raises OSError."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.lstat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except FileNotFoundError:
            pass
        os.close(descriptor)  # it was cleared away between opening and locking


def _clear_away(directory: Path, now_ns: int) -> None:
    """Remove the accounts that have nothing to tell any more, and the folder if nothing is left."""
    with suppress(OSError):  # there is no folder, it is not ours, or something else lies in it
        for path in directory.iterdir():
            descriptor = _open_locked(path)
            if descriptor is None:
                continue
            try:
                page = os.pread(descriptor, _PAGE_BYTES, 0)
                if not page or (page.startswith(_MAGIC_BYTES) and Account(page).has_nothing_to_tell(now_ns)):
                    path.unlink()
            finally:
                os.close(descriptor)
        directory.rmdir()


def pause_after_s(response: Response) -> int:
    """Seconds in which the venue does not want to be asked again, after this answer; 0 if it does not mind."""
    if response.status not in _REFUSALS:
        return 0
    return retry_after_s(response) or PAUSE_S.get(response.status, 0)


def retry_after_s(response: Response) -> int:
    """Seconds that the venue asks us to wait (RFC 9110, section 10.2.3: a number, or a date); 0 if it does not."""
    text = _header(response, "Retry-After")
    if text.isascii() and text.isdecimal():
        return min(int(text[:_MAX_DIGITS]), _MAX_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0
    wait = until.astimezone(UTC) - datetime.now(UTC)
    return min(max(0, wait.days * 86_400 + wait.seconds), _MAX_RETRY_AFTER_S)


def _header(response: Response, name: str) -> str:
    """A header of the answer, whatever the case of its name; empty if it has none."""
    return next((value for key, value in response.headers.items() if key.lower() == name.lower()), "").strip()
