"""Routes of books that are kept: checksums, windows and quotes come out as the adapters' own decoding makes them."""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt
import pytest

from mdring.feed.adapter import AdapterCounts
from mdring.feed.book_routes import CheckedRoute, QuotedRoute
from mdring.feed.direct import DirectRoutes, Route
from mdring.feed.emit import Emit
from mdring.feed.local_book import LocalBook
from mdring.feed.socket_book import BookWire, SocketBook
from mdring.feed.stage import Channel
from mdring.record import BBO, LEVEL, Kind, Side

CHECKED = '{"s":"B","bids":<object_bids>,"asks":<object_asks>,"sum":<checksum>,"at":"<utc>"}'
QUOTED = '{"s":"B","changes":<changes>,"at":"<utc>"}'
AT = "2026-08-24T22:34:13.5Z"


class Wire(BookWire):
    def unsubscribe(self) -> tuple[()]:
        return ()

    def subscribe(self, delay_ns: int) -> tuple[()]:
        return ()


class Desk:
    """A book of prices with two decimals and sizes with three, in sync; and a way to have messages taken."""

    def __init__(self, bids: str = '[["10","1"],["9","2"]]', asks: str = '[["11","3"],["12","4"]]') -> None:
        self.channel = Channel("B", 7, 1, -2, -3)
        self.counts = AdapterCounts()
        self.sync = SocketBook(self.channel, Wire(), self.counts)
        self.emit = Emit(4)
        self.emit.begin(5)
        self.book = LocalBook(self.channel)
        self.sync.on_subscribe(1)
        self.emit.levels(self.channel, Side.BID, bids.encode(), 1)
        self.emit.levels(self.channel, Side.ASK, asks.encode(), 1)
        self.emit.end()
        self.book.apply(self.emit, 0)
        self.sync.synced(0, 1, self.emit)
        self.emit.drain()

    def checked(self, *, depth: int = 3) -> CheckedRoute:
        return CheckedRoute(
            CHECKED, self.channel, self.sync, self.book, self.counts,
            depth=depth, levels=3, price_decimals=2, size_decimals=3,
        )  # fmt: skip

    def quoted(self, *, levels: bool = True, quotes: bool = True) -> QuotedRoute:
        return QuotedRoute(QUOTED, self.channel, self.sync, self.book, levels=levels, quotes=quotes)

    def take(self, route: Route, message: str, expected: bool = True) -> npt.NDArray[np.void]:
        routes = DirectRoutes('{"s":"')
        routes.add("B", route)
        assert routes.take(0, message.encode(), self.emit) is expected
        assert expected or self.emit.staged == 0
        return self.emit.drain()


def sized(price: str, size: str) -> str:
    return f'{{"price":{price},"qty":{size}}}'


def checked(digits: str, *, bids: str = "", asks: str = "", at: str = AT) -> str:
    """A message whose checksum is that of these digits."""
    return f'{{"s":"B","bids":[{bids}],"asks":[{asks}],"sum":{zlib.crc32(digits.encode())},"at":"{at}"}}'


def changes(*levels: tuple[str, str, str], at: str = AT) -> str:
    rows = ",".join(f'["{side}","{price}","{size}"]' for side, price, size in levels)
    return f'{{"s":"B","changes":[{rows}],"at":"{at}"}}'


# ---- checksums --------------------------------------------------------------------------------------------


def test_delta_with_the_right_checksum_is_taken_and_levels_beyond_the_window_are_deleted() -> None:
    desk = Desk()
    route = desk.checked(depth=2)
    found = desk.take(route, checked("1050500" + "11003000" + "1025700" + "10001000",
                                     asks=sized("10.50", "0.5"), bids=sized("10.25", "0.7")))  # fmt: skip
    made = found.view(LEVEL)
    assert list(zip(made["side"].tolist(), made["price"].tolist(), made["size"].tolist(), strict=True)) == [
        (Side.BID, 1025, 700), (Side.ASK, 1050, 500), (Side.BID, 900, 0), (Side.ASK, 1200, 0),
    ]  # fmt: skip
    assert found["flags"].tolist() == [0, 0, 0, 1]
    assert desk.book.best() == (1025, 700, 1050, 500) and len(desk.book) == 4
    assert desk.counts.checksums == 1
    desk.take(route, checked("1050500" + "11003000"), expected=False)


def test_delta_with_another_checksum_is_left_and_decoding_it_finds_the_book_that_it_would_have_found() -> None:
    desk, plain = Desk(), Desk()
    levels = f"[{sized('10.25', '0.7')},{sized('10', '0')},{sized('9.5', '1')},{sized('8', '1')}]"
    message = f'{{"s":"B","bids":{levels},"asks":[],"sum":1,"at":"{AT}"}}'
    desk.take(desk.checked(), message, expected=False)
    assert desk.counts.checksums == 0
    for one in (desk, plain):
        one.emit.object_levels(one.channel, Side.BID, levels.encode(), 1)
        one.book.apply(one.emit, 0)
        one.book.trim(one.emit, 3, 1)
        one.emit.end()
        one.emit.drain()
    assert desk.book.has_levels_of(plain.book)
    assert desk.book.crc32_of_digits(3, 2, 3) == plain.book.crc32_of_digits(3, 2, 3)


def test_delta_without_levels_is_checked_and_is_no_event() -> None:
    desk = Desk()
    assert len(desk.take(desk.checked(), checked("1100300012004000" + "100010009002000"))) == 0
    assert desk.counts.checksums == 1
    desk.take(desk.checked(), checked("nothing like it"), expected=False)


def test_number_of_decimals_may_change() -> None:
    desk = Desk()
    route = desk.checked()
    route.price_decimals, route.size_decimals = 1, 4
    desk.take(route, checked("110" + "30000" + "120" + "40000" + "100" + "10000" + "90" + "20000"))


@pytest.mark.parametrize(
    "message",
    [
        checked("", at="2026-08-24T22:34:13.5+00:00"),
        checked("", bids=sized("-1", "1")),
        checked("", bids=sized("1.001", "1")),
        checked("", bids=sized("1", "1") + ","),
        checked("").replace('"sum":', '"sum":-'),
        checked("").replace('"sum":', '"sum":1e'),
        checked("").replace('"sum":', '"sum":0'),
        checked("").replace('"sum":', '"sum":' + "9" * 30),
        checked("") + " ",
    ],
)
def test_message_of_another_form_leaves_the_kept_book_as_it_was(message: str) -> None:
    desk = Desk()
    desk.take(desk.checked(), message, expected=False)
    desk.take(desk.checked(), message[:-5], expected=False)
    assert desk.book.has_levels_of(Desk().book) and desk.counts.checksums == 0


def test_delta_that_could_overfill_the_book_is_left() -> None:
    desk = Desk()
    desk.book = LocalBook(desk.channel, 1)
    desk.take(desk.checked(), checked("", bids=f"{sized('1', '1')},{sized('2', '1')}"), expected=False)
    assert len(desk.book) == 0


def test_route_that_checks_needs_a_checksum_and_a_window() -> None:
    desk = Desk()
    with pytest.raises(ValueError, match="checksum"):
        CheckedRoute(QUOTED, desk.channel, desk.sync, desk.book, desk.counts,
                     depth=3, levels=3, price_decimals=2, size_decimals=3)  # fmt: skip
    with pytest.raises(ValueError, match="not 0"):
        desk.checked(depth=0)


# ---- quotes -----------------------------------------------------------------------------------------------


def test_quote_follows_the_levels_as_an_event_group_of_its_own_where_the_best_levels_change() -> None:
    desk = Desk()
    route = desk.quoted()
    found = desk.take(route, changes(("buy", "10.5", "2"), ("sell", "12", "0")))
    assert found["kind"].tolist() == [Kind.LEVEL, Kind.LEVEL, Kind.BBO]
    assert found["flags"].tolist() == [0, 1, 1]
    quote = found.view(BBO)[2]
    assert (quote["bid_price"], quote["bid_size"], quote["ask_price"], quote["ask_size"]) == (1050, 2000, 1100, 3000)
    assert desk.take(route, changes(("buy", "1", "2")))["kind"].tolist() == [Kind.LEVEL]


@pytest.mark.parametrize(("levels", "quotes", "kinds"), [(True, False, [Kind.LEVEL]), (False, True, [Kind.BBO])])
def test_only_what_is_wanted_of_levels_and_quotes_is_staged(levels: bool, quotes: bool, kinds: list[Kind]) -> None:
    desk = Desk()
    found = desk.take(desk.quoted(levels=levels, quotes=quotes), changes(("buy", "10.5", "2")))
    assert found["kind"].tolist() == kinds and found["channel_seq"].tolist()[-1] > 0
    assert desk.book.best()[0] == 1050


def test_delta_that_crosses_the_book_is_taken_and_what_follows_is_left_until_it_is_not_crossed() -> None:
    desk = Desk()
    route = desk.quoted()
    desk.take(route, changes(("buy", "11.5", "2")))
    assert desk.book.crossed_ns == 5
    desk.take(route, changes(("buy", "1", "2")), expected=False)
    assert desk.book.crossed_since(9) == 5
    desk.emit.sided_levels(desk.channel, b'[["buy","11.5","0"]]', 1)
    desk.book.apply(desk.emit, 0)
    desk.emit.rollback()
    assert desk.book.crossed_since(10) == 0
    desk.take(route, changes(("buy", "1", "2")))


def test_book_that_awaits_its_snapshot_takes_nothing() -> None:
    desk = Desk()
    desk.sync.live = False
    desk.take(desk.quoted(), changes(("buy", "1", "2")), expected=False)
    desk.take(desk.checked(), checked("1100300012004000" + "100010009002000"), expected=False)
