"""The venue's list of instruments, kept on disk, so that a start survives a REST that is dead.

Part of the worker. Each list that is learnt replaces the file of the venue, ``metadata-<venue id>.json`` in the run's
state folder. If the venue has not answered in time the file's list is used, whatever its age; the live one is still
asked for meanwhile, and replaces the file when it comes. What it says anew is used from the next start on, for
exponents are constant as long as an instrument keeps its id::

    source = ListingSource(learn_now, ListingCache(path, "okx", rest_url), patience_s=10.0, tasks=tasks)
    listing = await source.first()
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from mdring.feed.adapter import InstrumentInfo
from mdring.feed.metadata import AttemptsExhausted

logger = logging.getLogger(__name__)

FORMAT: Final = 1
"""Of the file. It rises whenever an older file would be misunderstood: also if a field of InstrumentInfo changes its
meaning, or an adapter the exponents that it gives."""


class Listing(Struct, frozen=True):
    """The instruments by the venue's names, and when they were learnt (ns, CLOCK_REALTIME)."""

    learnt_ns: int
    instruments: Mapping[str, InstrumentInfo]

    @property
    def learnt_at(self) -> str:
        """When, to be read."""
        return datetime.fromtimestamp(self.learnt_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


class ListingUnusable(Exception):
    """The file is absent, damaged, or of something else; the message names it and says why."""


class _Head(Struct, frozen=True):
    """What is read of any file, to tell whether the rest is for us."""

    format: int
    adapter: str
    rest_url: str


class _File(Struct, frozen=True):
    format: int
    adapter: str
    rest_url: str
    learnt_ns: int
    instruments: list[InstrumentInfo]


class ListingCache:
    """The file of one venue."""

    def __init__(self, path: Path, adapter: str, rest_url: str) -> None:
        """A list that another adapter made, or that another address gave, is none of this venue."""
        self.path = path
        self._adapter = adapter
        self._rest_url = rest_url

    def load(self) -> Listing:
        """The list of the last time. Raises ListingUnusable."""
        try:
            text = self.path.read_bytes()
        except OSError as error:
            raise ListingUnusable(f"{self.path}: {error.strerror}") from error
        try:
            head = msgspec.json.decode(text, type=_Head)
            if (head.format, head.adapter, head.rest_url) != (FORMAT, self._adapter, self._rest_url):
                raise ListingUnusable(
                    f"{self.path}: has format {head.format} and is of adapter {head.adapter!r} at {head.rest_url!r}, "
                    f"not {FORMAT} of {self._adapter!r} at {self._rest_url!r}"
                )
            file = msgspec.json.decode(text, type=_File)
            return Listing(file.learnt_ns, {info.instrument: info for info in file.instruments})
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ListingUnusable(f"{self.path}: {error}") from error

    def store(self, listing: Listing) -> None:
        """Replace the file, at once. Raises OSError."""
        content = _File(FORMAT, self._adapter, self._rest_url, listing.learnt_ns, list(listing.instruments.values()))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_name(f".{self.path.name}")
        unfinished.write_bytes(msgspec.json.encode(content))
        unfinished.replace(self.path)


class ListingSource:
    """Gets the list live if the venue answers in time, else from the file."""

    def __init__(
        self,
        learn: Callable[[], Awaitable[Mapping[str, InstrumentInfo]]],
        cache: ListingCache,
        patience_s: float,
        tasks: asyncio.TaskGroup,
        is_of_use: Callable[[Listing], bool] = lambda listing: True,
        on_recalled: Callable[[Listing], None] = lambda listing: None,
        on_late: Callable[[Listing, Listing], None] = lambda recalled, live: None,
    ) -> None:
        """``learn`` asks the venue until it answers, or raises AttemptsExhausted. ``is_of_use`` says whether the file's
        list has anything of what is wanted, ``on_recalled`` is told that it is used, and ``on_late``, given that one
        and the live one, that the venue has answered after all."""
        self._learn = learn
        self._cache = cache
        self._patience_s = patience_s
        self._tasks = tasks
        self._is_of_use = is_of_use
        self._on_recalled = on_recalled
        self._on_late = on_late

    async def first(self) -> Listing:
        """The list to work with. Raises AttemptsExhausted if it cannot be had, and no file has it."""
        learning = self._tasks.create_task(self._learn_and_store(), name="metadata")
        if self._cache.path.exists():
            await asyncio.wait([learning], timeout=self._patience_s)
            recalled = None if learning.done() and learning.result() is not None else self._recall()
            if recalled is not None:
                self._tasks.create_task(self._await_late(learning, recalled), name="late metadata")
                return recalled
        live = await learning
        if live is None:
            raise AttemptsExhausted
        return live

    def _recall(self) -> Listing | None:
        """The list from the file, if it is of use."""
        try:
            recalled = self._cache.load()
        except ListingUnusable as error:
            logger.error("the list of instruments kept on disk is of no use: %s", error)
            return None
        if not self._is_of_use(recalled):
            logger.error("the list of instruments in %s has none of those that are wanted", self._cache.path)
            return None
        logger.warning(
            "the venue gives no list of its instruments: going on with the %d of %s from %s",
            len(recalled.instruments), recalled.learnt_at, self._cache.path,
        )  # fmt: skip
        self._on_recalled(recalled)
        return recalled

    async def _await_late(self, learning: asyncio.Task[Listing | None], recalled: Listing) -> None:
        live = await learning
        if live is not None:
            self._on_late(recalled, live)

    async def _learn_and_store(self) -> Listing | None:
        try:
            listing = Listing(time.time_ns(), await self._learn())
        except AttemptsExhausted:
            return None
        if listing.instruments:  # an empty one, of a maintenance, is worth less than any other
            try:
                await asyncio.to_thread(self._cache.store, listing)
            except OSError as error:
                logger.error("cannot keep the list of instruments on disk: %s", error)
        return listing


def differences(recalled: Listing, live: Listing, subscribed: Collection[str], wanted: Iterable[str]) -> list[str]:
    """In words, what the live list says otherwise of the subscribed instruments; and which of those ``wanted`` by the
    live list it adds."""
    found = [f"{name} can be had" for name in wanted if name not in subscribed]
    for name in subscribed:
        before, now = recalled.instruments[name], live.instruments.get(name)
        if now is None or not now.trading:
            found.append(f"{name} is not trading any more")
        elif (before.price_exponent, before.size_exponent) != (now.price_exponent, now.size_exponent):
            found.append(
                f"{name} is written with exponents {now.price_exponent} and {now.size_exponent}, "
                f"not {before.price_exponent} and {before.size_exponent}"
            )
    return found
