"""Damaged frames, a million of them: nothing but protocol errors, and no record that cannot be.

Each venue's adapter lives many lives at the venue's emulator (``loopback.py``), in a market that goes on. Volleys of
damaged frames come, of just before, all at one moment; then for a while some of what the venue sends is damaged on its
way, hence at the very place where a sound frame was due; and now and then all is calm until there is a book again, so
that damage meets books that stand, books that are being built, and connections that have just begun.
"""

from __future__ import annotations

from functools import cache
from random import Random
from typing import Final

import pytest

from tests.adapters.damage import Damager
from tests.adapters.loopback import Loopback
from tests.adapters.venues import VENUES

every_venue = pytest.mark.parametrize("venue", VENUES)

LONG_FRAMES: Final = 125_000  # times eight venues
QUICK_FRAMES: Final = 5_000
FRAMES_OF_A_LIFE: Final = (100, 100, 100, 100, 400)
VOLLEYS: Final = (1, 1, 1, 2, 5, 20)
PAUSES_S: Final = (0.0, 0.0, 0.02, 0.1, 0.3)
DAMAGED_ON_THE_WAY: Final = 0.3
ON_BOOKS: Final = 0.05
"""At least so large a share of the damaged frames must come while there is a book."""


class Life:
    """One adapter and its venue, with damage in between."""

    def __init__(self, venue: str, seed: int, *, direct: bool = True) -> None:
        self.damaged = 0
        self.on_books = 0  # of the damaged frames, those that came while there was a book
        self._random = Random(seed)
        self._damager = Damager(seed)
        self._recent: list[bytes] = []  # frames as the venue has sent them
        self._is_rough = False
        self.loop = Loopback(
            venue,
            seed=seed,
            depth=10,
            rate=20,
            rewrite=self._pass_on,
            symbols=symbols_of(venue),
            direct=direct,
        )

    def run(self) -> None:
        """All of it."""
        loop, random = self.loop, self._random
        frames = random.choice(FRAMES_OF_A_LIFE)
        loop.run(2.0)
        while self.damaged < frames:
            for _ in range(random.choice(VOLLEYS)):
                if loop.wires:
                    loop.give(random.choice(loop.wires), self._damage(random.choice(self._recent)))
            self._is_rough = random.random() < 0.3
            loop.run(random.choice(PAUSES_S))
            self._is_rough = False
            if random.random() < 0.1:
                self._wait_for_a_book()
            del self._recent[:-200]
        loop.assert_records_lawful()

    def _wait_for_a_book(self) -> None:
        """Or until it takes too long."""
        for _ in range(10):
            if self.loop.adapter.counts.books_valid:
                break
            self.loop.run(0.25)

    def _pass_on(self, frame: bytes) -> bytes:
        """What becomes of a frame on its way."""
        self._recent.append(frame)
        is_damaged = self._is_rough and self._random.random() < DAMAGED_ON_THE_WAY
        return self._damage(frame) if is_damaged else frame

    def _damage(self, frame: bytes) -> bytes:
        self.damaged += 1
        self.on_books += self.loop.adapter.counts.books_valid > 0
        return self._damager.of(frame)


@cache
def symbols_of(venue: str) -> tuple[str, ...]:
    """What a loopback subscribes to: nothing else need be traded."""
    loop = Loopback(venue)
    symbols = {name: symbol for symbol, name in loop.emulator.instruments().items()}
    return tuple(symbols[one.instrument] for one in loop.subscriptions)


def bombard(venue: str, frames: int) -> None:
    """As many lives as it takes; ``Loopback`` lets all but protocol errors pass."""
    damaged = on_books = errors = seed = 0
    while damaged < frames:
        life = Life(venue, seed)
        life.run()
        damaged += life.damaged
        on_books += life.on_books
        errors += len(life.loop.errors)
        seed += 1
    assert errors > frames / 4 and on_books > frames * ON_BOOKS


@every_venue
def test_damaged_frames_raise_nothing_but_protocol_errors_and_yield_no_impossible_record(venue: str) -> None:
    bombard(venue, QUICK_FRAMES)


@pytest.mark.long
@pytest.mark.timeout(7200)
@every_venue
def test_damaged_frames_in_great_number(venue: str) -> None:
    bombard(venue, LONG_FRAMES)
