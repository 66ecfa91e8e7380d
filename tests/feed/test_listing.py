"""The list of instruments on disk: written whole, taken only if it is the venue's, used only if the venue is silent."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
import pytest

from mdring.feed import listing as listings
from mdring.feed.adapter import InstrumentInfo
from mdring.feed.listing import Listing, ListingCache, ListingSource, ListingUnusable, differences
from mdring.feed.metadata import AttemptsExhausted
from mdring.record import DataType
from tests.feed.worker_run import patiently

Infos = Mapping[str, InstrumentInfo]


def listing(*names: str, learnt_ns: int = 1_700_000_000_000_000_000, price_exponent: int = -2) -> Listing:
    infos = [InstrumentInfo(name, f"{name}-X", price_exponent, 0, data_types=(DataType.TRADE,)) for name in names]
    return Listing(learnt_ns, {info.instrument: info for info in infos})


@pytest.fixture
def cache(tmp_path: Path) -> ListingCache:
    return ListingCache(tmp_path / "made" / "metadata-x.json", "paper", "http://x")


# ---- the file ---------------------------------------------------------------------------------------------


def test_what_is_stored_is_loaded(cache: ListingCache) -> None:
    cache.store(listing("A"))
    cache.store(listing("B", "C"))
    assert cache.load() == listing("B", "C")
    assert [path.name for path in cache.path.parent.iterdir()] == ["metadata-x.json"]


def test_file_is_replaced_whole_or_not_at_all(cache: ListingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.store(listing("A"))

    def fill_disk(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    with pytest.raises(OSError):
        cache.store(listing("B"))
    assert cache.load() == listing("A")


def _cut(text: bytes) -> bytes:
    return text[:-20]


def _of_another_format(text: bytes) -> bytes:
    return msgspec.json.encode({**json.loads(text), "format": listings.FORMAT + 1})


def _of_another_adapter(text: bytes) -> bytes:
    return msgspec.json.encode({**json.loads(text), "adapter": "other"})


def _of_another_address(text: bytes) -> bytes:
    return msgspec.json.encode({**json.loads(text), "rest_url": "http://test"})


def _of_other_fields(text: bytes) -> bytes:
    return text.replace(b'"price_exponent":-2', b'"price_exponent":"-2"')


DAMAGE: tuple[Callable[[bytes], bytes], ...] = (
    _cut, _of_another_format, _of_another_adapter, _of_another_address, _of_other_fields,
    lambda text: b"", lambda text: b"\xff" * 100, lambda text: b"[" * 100_000, lambda text: b"[]",
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_file_that_is_damaged_or_of_something_else_is_named(
    cache: ListingCache, damage: Callable[[bytes], bytes]
) -> None:
    cache.store(listing("A"))
    cache.path.write_bytes(damage(cache.path.read_bytes()))
    with pytest.raises(ListingUnusable, match=str(cache.path)):
        cache.load()


def test_absent_file_is_named(cache: ListingCache) -> None:
    with pytest.raises(ListingUnusable, match="No such file"):
        cache.load()


def test_format_rises_with_the_fields_of_what_is_stored() -> None:
    """Whoever changes them finds this test, and raises FORMAT if an older file would be misunderstood."""
    assert listings.FORMAT == 1
    assert InstrumentInfo.__struct_fields__ == (
        "instrument", "canonical_symbol", "price_exponent", "size_exponent", "base", "quote", "trading", "settle",
        "size_unit", "multiplier", "tick", "lot", "status", "data_types",
    )  # fmt: skip


# ---- which list is used -----------------------------------------------------------------------------------


class Answer:
    """The venue's: comes when ``given`` is set."""

    def __init__(self, live: Listing | None) -> None:
        self.live = live
        self.given = asyncio.Event()
        self.recalled: list[Listing] = []
        self.late: list[tuple[Listing, Listing]] = []

    async def __call__(self) -> Infos:
        await self.given.wait()
        if self.live is None:
            raise AttemptsExhausted
        return self.live.instruments

    def source(self, cache: ListingCache, tasks: asyncio.TaskGroup, patience_s: float = 0.01) -> ListingSource:
        return ListingSource(
            self, cache, patience_s, tasks, lambda listing: "X" not in listing.instruments,
            self.recalled.append, lambda old, new: self.late.append((old, new)),
        )  # fmt: skip


def run(body: Callable[[asyncio.TaskGroup], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            await body(tasks)

    patiently(main())


def test_live_list_is_used_and_kept(cache: ListingCache) -> None:
    async def body(tasks: asyncio.TaskGroup) -> None:
        cache.store(listing("OLD"))
        answer = Answer(listing("A"))
        answer.given.set()
        got = await answer.source(cache, tasks, patience_s=60).first()
        assert list(got.instruments) == ["A"]
        assert got.learnt_ns > listing("A").learnt_ns
        assert cache.load() == got
        assert answer.recalled == answer.late == []

    run(body)


def test_kept_list_is_used_while_the_venue_is_silent_and_replaced_when_it_answers(cache: ListingCache) -> None:
    async def body(tasks: asyncio.TaskGroup) -> None:
        cache.store(listing("OLD"))
        answer = Answer(listing("A"))
        assert await answer.source(cache, tasks).first() == listing("OLD")
        assert answer.recalled == [listing("OLD")]
        answer.given.set()
        while not answer.late:
            await asyncio.sleep(0.001)
        assert list(cache.load().instruments) == ["A"]
        ((old, new),) = answer.late
        assert (list(old.instruments), list(new.instruments)) == (["OLD"], ["A"])

    run(body)


def test_kept_list_is_used_when_the_attempts_are_exhausted_without_waiting(cache: ListingCache) -> None:
    async def body(tasks: asyncio.TaskGroup) -> None:
        cache.store(listing("OLD"))
        answer = Answer(None)
        answer.given.set()
        assert await answer.source(cache, tasks, patience_s=3600).first() == listing("OLD")

    run(body)


def test_without_a_kept_list_the_venue_is_waited_for(cache: ListingCache) -> None:
    async def body(tasks: asyncio.TaskGroup) -> None:
        answer = Answer(listing("A"))
        asyncio.get_running_loop().call_later(0.05, answer.given.set)
        assert list((await answer.source(cache, tasks, patience_s=0.0).first()).instruments) == ["A"]

    run(body)


def test_without_a_kept_list_exhausted_attempts_are_the_end(cache: ListingCache) -> None:
    async def body(tasks: asyncio.TaskGroup) -> None:
        answer = Answer(None)
        answer.given.set()
        with pytest.raises(AttemptsExhausted):
            await answer.source(cache, tasks).first()

    run(body)


def test_damaged_list_is_told_and_the_venue_waited_for(cache: ListingCache, caplog: pytest.LogCaptureFixture) -> None:
    async def body(tasks: asyncio.TaskGroup) -> None:
        cache.store(listing("OLD"))
        cache.path.write_bytes(b"{")
        answer = Answer(listing("A"))
        asyncio.get_running_loop().call_later(0.05, answer.given.set)
        assert list((await answer.source(cache, tasks).first()).instruments) == ["A"]
        assert list(cache.load().instruments) == ["A"]

    with caplog.at_level(logging.ERROR):
        run(body)
    assert str(cache.path) in caplog.text


def test_list_that_is_of_no_use_is_told_and_the_venue_waited_for(
    cache: ListingCache, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(tasks: asyncio.TaskGroup) -> None:
        cache.store(listing("X"))
        answer = Answer(listing("A"))
        asyncio.get_running_loop().call_later(0.05, answer.given.set)
        assert list((await answer.source(cache, tasks).first()).instruments) == ["A"]
        assert answer.recalled == answer.late == []

    with caplog.at_level(logging.ERROR):
        run(body)
    assert "none of those that are wanted" in caplog.text


def test_list_that_cannot_be_kept_is_used_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cache = ListingCache(tmp_path / "file" / "metadata-x.json", "paper", "http://x")

    async def body(tasks: asyncio.TaskGroup) -> None:
        answer = Answer(listing("A"))
        answer.given.set()
        assert list((await answer.source(cache, tasks).first()).instruments) == ["A"]

    run(body)
    assert "cannot keep the list" in caplog.text


def test_empty_list_replaces_no_other(cache: ListingCache) -> None:
    async def body(tasks: asyncio.TaskGroup) -> None:
        cache.store(listing("OLD"))
        answer = Answer(listing())
        answer.given.set()
        assert (await answer.source(cache, tasks, patience_s=60).first()).instruments == {}
        assert cache.load() == listing("OLD")

    run(body)


def test_differences_are_those_of_what_is_subscribed_to() -> None:
    live = listing("A", "B", price_exponent=-4)
    told = differences(listing("A", "B", "C", "D"), live, ["A", "C"], ["A", "N"])
    assert told == ["N can be had", "A is written with exponents -4 and 0, not -2 and 0", "C is not trading any more"]
    assert differences(listing("A"), listing("A"), ["A"], ["A"]) == []
