"""The adapter's own book: it follows the stage, keeps to a window, tells the best levels, proves checksums."""

from __future__ import annotations

import json
import zlib
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdring.feed.adapter import VenueProtocolError
from mdring.feed.emit import Emit
from mdring.feed.local_book import LocalBook
from mdring.feed.stage import Channel
from mdring.record import BBO, LEVEL, UNDEFINED_PRICE, Kind, Reason, Side

# A real frame of Kraken, BTC/USD at depth 10 on 2026-08-24, and the update after it; the venue's checksums.
KRAKEN_BIDS = (
    b'[{"price":78871.5,"qty":0.01266503},{"price":78868.4,"qty":0.00005100},{"price":78867.3,"qty":0.00059789},'
    b'{"price":78865.8,"qty":0.00030000},{"price":78865.7,"qty":0.01532403},{"price":78864.5,"qty":0.00005100},'
    b'{"price":78860.6,"qty":0.04618528},{"price":78860.5,"qty":0.00005100},{"price":78859.2,"qty":0.20128607},'
    b'{"price":78858.8,"qty":0.63404462}]'
)
KRAKEN_ASKS = (
    b'[{"price":78871.6,"qty":4.21103066},{"price":78872.2,"qty":0.41892437},{"price":78872.5,"qty":0.08877452},'
    b'{"price":78873.7,"qty":0.64976822},{"price":78875.5,"qty":0.63391066},{"price":78876.2,"qty":0.02287157},'
    b'{"price":78877.2,"qty":0.00810675},{"price":78877.8,"qty":0.65087492},{"price":78877.9,"qty":1.89408049},'
    b'{"price":78878.0,"qty":4.52243185}]'
)
KRAKEN_UPDATE = b'[{"price":78858.8,"qty":0.00000000},{"price":78857.0,"qty":0.34775324}]'


def follow(book: LocalBook, channel: Channel, bids: object = (), asks: object = (), *, clear: bool = False) -> Emit:
    """Stage levels and let the book follow them."""
    emit = Emit(8)
    if clear:
        emit.clear(channel, Reason.SNAPSHOT)
    emit.levels(channel, Side.BID, json.dumps(bids).encode(), 1)
    emit.levels(channel, Side.ASK, json.dumps(asks).encode(), 1)
    book.apply(emit, 0)
    return emit


@pytest.fixture
def channel() -> Channel:
    return Channel("X", 3, 1, -1, -3)


def test_book_follows_what_was_staged_since_the_mark(channel: Channel) -> None:
    book, emit = LocalBook(channel), Emit(8)
    emit.level(channel, Side.BID, "9", "1", 1)
    mark = emit.mark()
    emit.level(channel, Side.BID, "10", "2", 1)
    emit.level(channel, Side.ASK, "11", "3", 1)
    emit.level(Channel("Y", 4, 1, -1, -3), Side.ASK, "10.5", "3", 1)
    emit.status(channel, 0, 0)
    book.apply(emit, mark)
    assert book.best() == (100, 2000, 110, 3000)
    assert len(book) == 2 and book.size_at(Side.BID, 90) == 0 and book.size_at(Side.ASK, 110) == 3000


def test_clear_empties_it(channel: Channel) -> None:
    book = LocalBook(channel)
    follow(book, channel, [["10", "2"]], [["11", "3"]])
    follow(book, channel, [["9", "1"]], clear=True)
    assert book.best() == (90, 1000, UNDEFINED_PRICE, 0)
    book.clear()
    assert len(book) == 0 and not book.is_crossed


def test_deleted_levels_that_are_not_there_are_counted(channel: Channel) -> None:
    book = LocalBook(channel)
    follow(book, channel, [["10", "2"], ["10", "0"], ["10", "0"], ["8", "0"]])
    assert book.orphans == 2 and len(book) == 0


def test_crossed_book_is_noticed(channel: Channel) -> None:
    book = LocalBook(channel)
    follow(book, channel, [["10", "2"]], [["10.1", "3"]])
    assert not book.is_crossed
    follow(book, channel, [["10.1", "2"]])
    assert book.is_crossed


def test_books_are_compared_level_by_level(channel: Channel) -> None:
    deep = [[f"{price}.5", "1"] for price in range(1, 500)]
    book, other = LocalBook(channel), LocalBook(channel)
    assert book.has_levels_of(other)
    follow(book, channel, bids=deep, asks=[["600", "1"]])
    follow(other, channel, bids=[["700", "3"], *reversed(deep)], asks=[["600", "1"]])
    assert not book.has_levels_of(other)
    follow(other, channel, bids=[["700", "0"]])
    assert book.has_levels_of(other) and other.has_levels_of(book)
    for change in ([["1.5", "1.001"]], [["1.5", "0"], ["1.4", "1"]], [["600", "1"]]):
        follow(other, channel, bids=change)
        assert not book.has_levels_of(other)
        follow(other, channel, bids=[*((price, "0") for price, _ in change), ["1.5", "1"]])
    follow(other, channel, asks=[["600", "1.001"]])
    assert not book.has_levels_of(other)


def test_levels_outside_of_the_window_are_deleted_in_the_stream_too(channel: Channel) -> None:
    book = LocalBook(channel)
    emit = follow(
        book, channel, [["10", "1"], ["9", "1"], ["8", "1"], ["7", "1"]], [["11", "1"], ["12", "1"], ["13", "1"]]
    )
    assert book.trim(emit, 2, 77, 5) == 3
    assert len(book) == 4 and book.best() == (100, 1000, 110, 1000)
    emit.end()
    deleted = emit.drain().view(LEVEL)[-3:]
    assert deleted[["side", "price", "size", "ts_event", "venue_seq"]].tolist() == [
        (Side.BID, 70, 0, 77, 5), (Side.BID, 80, 0, 77, 5), (Side.ASK, 130, 0, 77, 5),
    ]  # fmt: skip
    assert book.trim(emit, 2, 77) == 0 and emit.staged == 0
    with pytest.raises(ValueError, match="at least one"):
        book.trim(emit, 0, 77)


def test_best_levels_are_staged_when_they_change_and_only_then(channel: Channel) -> None:
    book = LocalBook(channel)
    emit = follow(book, channel, [["10", "1"], ["9", "1"]])
    emit.rollback()
    assert book.stage_bbo(emit, 5, 6)
    assert not book.stage_bbo(emit, 5)
    follow(book, channel, [["9", "4"]])
    assert not book.stage_bbo(emit, 5)
    follow(book, channel, [], [["11", "3"]])
    assert book.stage_bbo(emit, 5)
    emit.end()
    rows = emit.drain().view(BBO)
    assert set(rows["kind"]) == {Kind.BBO} and rows["venue_seq"].tolist() == [6, 0]
    assert rows[["bid_price", "bid_size", "ask_price", "ask_size"]].tolist() == [
        (100, 1000, UNDEFINED_PRICE, 0), (100, 1000, 110, 3000),
    ]  # fmt: skip
    book.clear()
    assert book.stage_bbo(emit, 5)  # empty, which is news, too


def test_book_that_grows_without_bound_is_the_venues_fault(channel: Channel) -> None:
    book = LocalBook(channel, max_levels=3)
    with pytest.raises(VenueProtocolError) as raised:
        follow(book, channel, [[str(price), "1"] for price in range(1, 6)])
    assert raised.value.reason is Reason.BUFFER_FULL


def test_mark_that_is_none_is_refused(channel: Channel) -> None:
    with pytest.raises(ValueError, match="no such mark"):
        LocalBook(channel).apply(Emit(8), 1)


# ---- checksums -------------------------------------------------------------------------------------------------


def test_checksum_of_digits_is_krakens() -> None:
    channel = Channel("BTC/USD", 1, 1, -1, -8)
    book, emit = LocalBook(channel), Emit(8)
    emit.clear(channel, Reason.SNAPSHOT)
    emit.object_levels(channel, Side.BID, KRAKEN_BIDS, 1)
    emit.object_levels(channel, Side.ASK, KRAKEN_ASKS, 1)
    book.apply(emit, 0)
    assert book.crc32_of_digits(10, 1, 8) == 1406471562
    mark = emit.mark()
    emit.object_levels(channel, Side.BID, KRAKEN_UPDATE, 1)
    book.apply(emit, mark)
    assert book.crc32_of_digits(10, 1, 8) == 2416540570


def test_checksum_of_digits_does_not_depend_on_the_exponents() -> None:
    channel = Channel("BTC/USD", 1, 1, -4, -10)
    book, emit = LocalBook(channel), Emit(8)
    emit.object_levels(channel, Side.BID, KRAKEN_BIDS, 1)
    emit.object_levels(channel, Side.ASK, KRAKEN_ASKS, 1)
    book.apply(emit, 0)
    assert book.crc32_of_digits(10, 1, 8) == 1406471562


@pytest.mark.parametrize(
    ("bids", "asks", "signed"),
    [
        ([["3366.1", "7"], ["3366", "6"]], [["3366.8", "9"], ["3368", "8"]], -1881014294),
        ([["3366.1", "7"]], [["3366.8", "9"], ["3368", "8"], ["3372", "8"]], 831078360),
    ],
)
def test_checksum_of_pairs_is_okxs(channel: Channel, bids: object, asks: object, signed: int) -> None:
    book = LocalBook(channel)
    follow(book, channel, bids, asks)
    assert book.crc32_of_pairs(25) == signed % 2**32


def plain(scaled: int, exponent: int) -> str:
    return format(Decimal(scaled).scaleb(exponent).normalize(), "f")


LEVELS = st.dictionaries(st.integers(1, 10**12), st.integers(1, 10**12), max_size=30)


@settings(deadline=None)
@given(LEVELS, LEVELS, st.integers(-12, 2), st.integers(-12, 2), st.integers(1, 30))
def test_checksums_agree_with_their_definition(
    bids: dict[int, int], asks: dict[int, int], price_exponent: int, size_exponent: int, count: int
) -> None:
    channel = Channel("X", 1, 1, price_exponent, size_exponent)
    book, emit = LocalBook(channel), Emit(8)
    for side, levels in ((Side.BID, bids), (Side.ASK, asks)):
        for price, size in levels.items():
            emit.level(channel, side, plain(price, price_exponent), plain(size, size_exponent), 1)
    book.apply(emit, 0)
    best_bids, best_asks = sorted(bids.items(), reverse=True)[:count], sorted(asks.items())[:count]
    pairs = []
    for rank in range(count):
        pairs += [
            f"{plain(side[rank][0], price_exponent)}:{plain(side[rank][1], size_exponent)}"
            for side in (best_bids, best_asks)
            if rank < len(side)
        ]
    assert book.crc32_of_pairs(count) == zlib.crc32(":".join(pairs).encode())
    digits = "".join(
        f"{price * 10 ** (12 + price_exponent)}{size * 10 ** (12 + size_exponent)}"
        for price, size in best_asks + best_bids
    )
    assert book.crc32_of_digits(count, 12, 12) == zlib.crc32(digits.encode())


@pytest.mark.parametrize("levels", [0, 65])
def test_number_of_levels_of_a_checksum_is_bounded(channel: Channel, levels: int) -> None:
    book = LocalBook(channel)
    with pytest.raises(ValueError, match="1 to 64"):
        book.crc32_of_pairs(levels)
    with pytest.raises(ValueError, match="1 to 64"):
        book.crc32_of_digits(levels, 1, 1)
