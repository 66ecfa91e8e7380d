"""Book synchronisation: whether the next delta of a venue belongs on the book as it stands.

One small object per instrument, in the worker's adapter; it sees numbers and never a price. It knows the order
of things that all venues share (await a snapshot and hold deltas back meanwhile, replay them, then follow
live); how numbers compare is the venue's rule, given as three functions::

    sync = BookSync[Delta](SPOT_RULES)
    match sync.on_delta(delta.first, delta.last):
        case Verdict.APPLY: ...                          # its levels go on the book
        case Verdict.HOLD: sync.hold(...)                # for the replay after the snapshot
        case Verdict.GAP: ...                            # tell the stream, then hold it too
        case Verdict.DROP: ...                           # the book has it already

    if sync.on_snapshot(snapshot_id):                    # else too old: fetch another one
        for held in sync.take_held(): ...                # on_delta again, each of them

States and what a verdict makes of them (``TRANSITIONS`` is this table)::

                      HOLD            DROP      APPLY    GAP
    AWAIT_SNAPSHOT    AWAIT_SNAPSHOT
    REPLAY                            REPLAY    LIVE     AWAIT_SNAPSHOT
    LIVE                              LIVE      LIVE     AWAIT_SNAPSHOT

``on_snapshot`` leads from any state to REPLAY, ``reset`` to AWAIT_SNAPSHOT. From REPLAY on the book is valid.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final, Generic, TypeVar

from msgspec import Struct

from mdring.feed.chain import Chain

Message = TypeVar("Message")

HELD_OVERHEAD_BYTES: Final = 512
"""What holding a message costs beside its payload, roughly."""


class SyncState(Enum):
    """How far a book is."""

    AWAIT_SNAPSHOT = "await_snapshot"  # invalid; deltas are held
    REPLAY = "replay"  # as of the snapshot; the first delta after it is due
    LIVE = "live"  # deltas follow one another


class Verdict(Enum):
    """What is to be done with a delta."""

    HOLD = "hold"
    DROP = "drop"
    APPLY = "apply"
    GAP = "gap"


TRANSITIONS: Final[dict[tuple[SyncState, Verdict], SyncState]] = {
    (SyncState.AWAIT_SNAPSHOT, Verdict.HOLD): SyncState.AWAIT_SNAPSHOT,
    (SyncState.REPLAY, Verdict.DROP): SyncState.REPLAY,
    (SyncState.REPLAY, Verdict.APPLY): SyncState.LIVE,
    (SyncState.REPLAY, Verdict.GAP): SyncState.AWAIT_SNAPSHOT,
    (SyncState.LIVE, Verdict.DROP): SyncState.LIVE,
    (SyncState.LIVE, Verdict.APPLY): SyncState.LIVE,
    (SyncState.LIVE, Verdict.GAP): SyncState.AWAIT_SNAPSHOT,
}

# A member of an Enum takes longer to look up than a delta to judge.
_LIVE: Final = SyncState.LIVE
_APPLY: Final = Verdict.APPLY


class SyncRules(Struct, frozen=True):
    """A venue's rules. Of a delta they see ``first``, ``last`` (the ids that it covers; equal where the venue gives
    one) and ``previous`` (the id that it says it follows; 0 where the venue gives none)."""

    chained: bool
    """What the normal next delta is: ``previous`` equals the last id (chained), or ``first`` is the last id + 1."""
    reaches: Callable[[int, int, int], bool]
    """(snapshot, first, previous) of the oldest held delta: no message is missing between the two."""
    after_snapshot: Callable[[int, int, int, int], Verdict]
    """(snapshot, first, last, previous): DROP, APPLY or GAP, until the first APPLY."""
    after_delta: Callable[[int, int, int, int, int], Verdict]
    """(first and last of the delta applied last; first, last, previous of this one): DROP, APPLY or GAP. Asked
    about any delta but the normal next one."""


class Held(Struct, Generic[Message], frozen=True):
    """A delta that waits for its snapshot, with the time when it came."""

    first: int
    last: int
    previous: int
    ts_recv: int
    message: Message


class BookSync(Chain, Generic[Message]):
    """The synchronisation of one book.

    ``last`` is the venue's id up to which the book is complete (0: there is none), ``first`` where the delta
    began that led there. ``due`` is what the next delta should name: as its ``previous`` if the rules say chained,
    else as its ``first``.
    """

    __slots__ = ("_held", "_held_bytes", "_max_bytes", "_rules", "state")

    def __init__(self, rules: SyncRules, max_bytes: int = 16 * 1024 * 1024) -> None:
        """``max_bytes`` bounds what is held back."""
        self._rules = rules
        self._max_bytes = max_bytes
        self._held: list[Held[Message]] = []
        self._held_bytes = 0
        self.chained = rules.chained
        self.state = SyncState.AWAIT_SNAPSHOT
        self.first = self.last = self.due = 0

    @property
    def valid(self) -> bool:
        """Whether the book is complete up to ``last``."""
        return self.state is not SyncState.AWAIT_SNAPSHOT

    @property
    def held(self) -> int:
        """Number of deltas held back."""
        return len(self._held)

    def on_delta(self, first: int, last: int, previous: int = 0) -> Verdict:
        """Judge the next delta and move on. After HOLD and GAP the caller passes it to ``hold``."""
        if self.state is _LIVE:
            if (previous if self.chained else first) == self.due:  # the normal case, in line for speed
                self.first = first
                self.last = last
                self.due = last if self.chained else last + 1
                return _APPLY
            verdict = self._rules.after_delta(self.first, self.last, first, last, previous)
        elif self.state is SyncState.REPLAY:
            verdict = self._rules.after_snapshot(self.last, first, last, previous)
        else:
            verdict = Verdict.HOLD
        if verdict is _APPLY:
            self._apply(first, last)
        self._enter(TRANSITIONS[self.state, verdict])
        return verdict

    def hold(self, held: Held[Message], payload_bytes: int) -> bool:
        """Keep a delta for the replay. False if there is no room: then all that was held is gone, and only a
        snapshot that is newer than what comes from now on will do."""
        self._held_bytes += payload_bytes + HELD_OVERHEAD_BYTES
        if self._held_bytes > self._max_bytes:
            self._forget()
            return False
        self._held.append(held)
        return True

    def on_snapshot(self, snapshot_id: int) -> bool:
        """Take a snapshot as the book's new ground. False, and nothing happens, if it is older than what is held."""
        if self._held and not self._rules.reaches(snapshot_id, self._held[0].first, self._held[0].previous):
            return False
        self._apply(snapshot_id, snapshot_id)
        self._enter(SyncState.REPLAY)
        return True

    def take_held(self) -> list[Held[Message]]:
        """The deltas held back, oldest first; they are held no more. For ``on_delta``, once more, after a snapshot."""
        held = self._held
        self._forget()
        return held

    def reset(self) -> None:
        """The book cannot be trusted, or its connection is gone: forget everything."""
        self._forget()
        self._enter(SyncState.AWAIT_SNAPSHOT)
        self.first = self.last = self.due = 0

    def _enter(self, state: SyncState) -> None:
        self.state = state
        self.live = state is _LIVE

    def _apply(self, first: int, last: int) -> None:
        self.first = first
        self.last = last
        self.due = last if self.chained else last + 1

    def _forget(self) -> None:
        self._held = []
        self._held_bytes = 0
