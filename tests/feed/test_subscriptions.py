"""What the wishes of a configuration mean, given the venue's list: precedence, patterns, and what is not offered."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdring.config import SubscriptionConfig, VenueConfig
from mdring.feed.adapter import InstrumentInfo, Subscription
from mdring.feed.subscriptions import Pattern, Resolved, Wish, learners, named, resolve, wishes_of
from mdring.record import DataType
from tests.feed.paper import PaperAdapter, PaperOptions

TRADE, BOOK, FUNDING = DataType.TRADE, DataType.BOOK, DataType.FUNDING

LIST = [
    InstrumentInfo("BTCUSDT", "BTC-USDT", -2, -5),
    InstrumentInfo("ETHUSDT", "ETH-USDT", -2, -5),
    InstrumentInfo("OLDUSDT", "OLD-USDT", -2, -5, trading=False),
    InstrumentInfo("BTCSWAP", "BTC-USDT-PERP", -1, -3, data_types=(TRADE, BOOK, FUNDING)),
    InstrumentInfo("BTCINDEX", "BTC-INDEX", -1, -3, data_types=(FUNDING,)),
]


def resolved(*wishes: Wish, infos: Sequence[InstrumentInfo] = LIST, named_must_trade: bool = True) -> Resolved:
    by_name = {info.instrument: info for info in infos}
    return resolve(wishes, by_name, PaperAdapter, named_must_trade=named_must_trade)


def wanted(result: Resolved) -> dict[str, tuple[DataType, ...]]:
    return {entry.instrument: entry.data_types for entry in result.subscriptions}


@pytest.mark.parametrize(
    ("pattern", "exclude", "names"),
    [
        ("*-USDT", (), ["BTCUSDT", "ETHUSDT"]),  # the canonical symbol, to its end; what is halted is left out
        ("BTC*", (), ["BTCUSDT", "BTCSWAP"]),  # either name; what offers nothing of it is left out
        ("*USDT", ("BTC-*",), ["ETHUSDT"]),
        ("*USDT", ("BTC-*", "ETHUSDT"), []),
        ("?TH-USDT", (), ["ETHUSDT"]),
        ("[BE]*-USDT", (), ["BTCUSDT", "ETHUSDT"]),
        ("btc*", (), []),
        ("BTC", (), []),
    ],
)
def test_pattern_means_what_is_trading_and_matches_by_either_name(
    pattern: str, exclude: tuple[str, ...], names: list[str]
) -> None:
    result = resolved(Pattern(pattern, (TRADE,), exclude))
    assert list(wanted(result)) == names
    assert result.unmatched == (() if names else (pattern,))
    assert result.unknown == result.not_offered == ()


def test_each_instrument_of_a_pattern_gets_what_it_offers_of_the_wanted() -> None:
    result = resolved(Pattern("*", (FUNDING, TRADE)))
    assert wanted(result) == {
        "BTCUSDT": (TRADE,), "ETHUSDT": (TRADE,), "BTCSWAP": (FUNDING, TRADE), "BTCINDEX": (FUNDING,),
    }  # fmt: skip
    assert result.not_offered == ()


@pytest.mark.parametrize("named_first", [True, False])
def test_what_is_named_is_no_patterns(named_first: bool) -> None:
    wishes: list[Wish] = [Subscription("BTCUSDT", (BOOK,), "XBT-USDT"), Pattern("*-USDT", (TRADE, BOOK))]
    result = resolved(*(wishes if named_first else reversed(wishes)))
    assert wanted(result) == {"BTCUSDT": (BOOK,), "ETHUSDT": (TRADE, BOOK)}
    symbols = {info.instrument: info.canonical_symbol for info in result.infos}
    assert symbols == {"BTCUSDT": "XBT-USDT", "ETHUSDT": "ETH-USDT"}


def test_pattern_whose_instruments_are_all_taken_has_matched() -> None:
    result = resolved(Subscription("ETHUSDT", (BOOK,)), Pattern("ETH-*", (TRADE,)))
    assert wanted(result) == {"ETHUSDT": (BOOK,)}
    assert result.unmatched == ()


def test_of_patterns_the_first_one_counts() -> None:
    result = resolved(Pattern("BTC-USDT", (BOOK,)), Pattern("*-USDT", (TRADE,)))
    assert wanted(result) == {"BTCUSDT": (BOOK,), "ETHUSDT": (TRADE,)}


def test_what_is_not_listed_or_not_trading_is_unknown_if_it_is_named() -> None:
    wishes = (Subscription("NOPE", (TRADE,)), Subscription("OLDUSDT", (TRADE,)))
    assert resolved(*wishes).unknown == ("NOPE", "OLDUSDT")
    assert wanted(resolved(*wishes, named_must_trade=False)) == {"OLDUSDT": (TRADE,)}


def test_named_instrument_keeps_what_is_offered_and_is_told_of_the_rest() -> None:
    result = resolved(Subscription("BTCUSDT", (TRADE, FUNDING)), Subscription("BTCINDEX", (TRADE, BOOK)))
    assert wanted(result) == {"BTCUSDT": (TRADE,)}
    assert result.not_offered == (("BTCUSDT", FUNDING), ("BTCINDEX", TRADE), ("BTCINDEX", BOOK))
    assert [info.instrument for info in result.infos] == ["BTCUSDT", "BTCINDEX"]


NAMES = st.sampled_from([info.instrument for info in LIST] + ["NOPE"])
TYPES = st.lists(st.sampled_from([TRADE, BOOK, FUNDING]), min_size=1, unique=True).map(tuple)
PATTERNS = st.sampled_from(["*", "BTC*", "*-USDT", "*PERP", "X*"])
WISHES = st.lists(
    st.builds(Subscription, NAMES, TYPES) | st.builds(Pattern, PATTERNS, TYPES, st.lists(PATTERNS).map(tuple)),
    unique_by=lambda wish: wish.instrument if isinstance(wish, Subscription) else id(wish),
)


@given(WISHES)
def test_nothing_is_subscribed_to_twice_and_nothing_that_is_not_offered(wishes: list[Wish]) -> None:
    result = resolved(*wishes)
    by_name = {info.instrument: info for info in LIST}
    names = [entry.instrument for entry in result.subscriptions]
    assert len(set(names)) == len(names)
    for entry in result.subscriptions:
        info = by_name[entry.instrument]
        assert info.trading and entry.data_types
        assert set(entry.data_types) <= set(info.offers(PaperAdapter))
    told = {*names, *result.unknown, *(name for name, _ in result.not_offered)}
    assert {wish.instrument for wish in named(wishes)} <= told, "a named instrument is forgotten"
    assert {info.instrument for info in result.infos} >= set(names)


def test_learners_are_told_of_names_and_beside_patterns_one_is_told_of_none() -> None:
    made: list[Sequence[Subscription]] = []

    def make(subscriptions: Sequence[Subscription]) -> PaperAdapter:
        made.append(subscriptions)
        return PaperAdapter(PaperAdapter.endpoints, PaperOptions(), subscriptions)

    name, pattern = Subscription("A", (TRADE,)), Pattern("*", (TRADE,))
    for wishes, told in (
        ([name], [[name]]), ([pattern], [[]]), ([pattern, name], [[name], ()]),
    ):  # fmt: skip
        made.clear()
        assert len(learners(make, wishes)) == len(told)
        assert made == told


def test_wishes_are_those_of_the_configuration() -> None:
    venue = VenueConfig(
        id="x",
        adapter="x",
        subscriptions=(
            SubscriptionConfig(instrument="A", canonical_symbol="A-B", data_types=("trade",)),
            SubscriptionConfig(match="*", exclude=("B*",), data_types=("book", "funding")),
        ),
    )
    assert wishes_of(venue) == [Subscription("A", (TRADE,), "A-B"), Pattern("*", (BOOK, FUNDING), ("B*",))]
