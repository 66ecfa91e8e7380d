"""The demo of the shipped configuration: one market behind all venues, so one price for one thing."""

from __future__ import annotations

import time
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from mdring.config import load
from mdring.emulator.derivatives import FUNDING_CAP, Contract
from mdring.emulator.instruments import universe
from mdring.emulator.market import Market
from mdring.emulator.venue import VenueEmulator, load_emulator
from mdring.supervisor.demo import emulator_words

CONFIG: Final = load(Path(__file__).parents[2] / "config.toml")
USD_LIKE: Final = ("USD", "USDT", "USDC")
APART: Final = Decimal("0.03")
"""So far the books of one underlying may be apart: each moves by itself, and a future has its premium."""


class Nowhere:
    """A host of venues to which nobody is connected."""

    def now_ns(self) -> int:
        return time.time_ns()

    def after(self, seconds: float, callback: Any) -> Any:
        raise AssertionError("nobody listens")


@pytest.fixture(scope="module")
def market() -> Market:
    words = emulator_words(CONFIG, rate=100)
    return Market(universe(str(words["instruments"]).split(",")), seed=1, depth=50)


@pytest.fixture(scope="module")
def faces(market: Market) -> dict[str, VenueEmulator]:
    kinds = {venue.id: load_emulator(venue.adapter) for venue in CONFIG.enabled_venues}
    return {name: kind(market, Nowhere(), kind.options()) for name, kind in kinds.items()}


def price(face: VenueEmulator, instrument: str) -> Decimal:
    """The middle of a book, as the venue writes it."""
    book = face.book_of(instrument)
    texts = [face.level_text(book, (ladder.best, 1))[0] for ladder in (book.bids, book.asks)]
    return sum(map(Decimal, texts), Decimal()) / 2


def test_each_venue_lists_what_the_configuration_subscribes_to(faces: dict[str, VenueEmulator]) -> None:
    for venue in CONFIG.enabled_venues:
        listed = faces[venue.id].instruments()
        for one in venue.subscriptions:
            assert listed.get(one.canonical_symbol or "") == one.instrument, f"{venue.id}: {one.instrument}"


def test_what_is_of_one_underlying_trades_at_one_price_on_all_venues(
    market: Market, faces: dict[str, VenueEmulator]
) -> None:
    for steps in (0, 100_000):
        market.advance(steps, time.time_ns())
        bitcoin, euro = price(faces["binance"], "BTCUSDT"), price(faces["bitstamp"], "btceur")
        rates = {**dict.fromkeys(USD_LIKE, Decimal(1)), "BTC": bitcoin, "EUR": bitcoin / euro}
        worth: dict[str, dict[str, Decimal]] = defaultdict(dict)
        for name, face in faces.items():
            for instrument in face.instruments().values():
                spec = face.book_of(instrument).spec
                worth[spec.base][f"{name} {instrument}"] = price(face, instrument) * rates[spec.quote]
        assert {"BTC", "ETH", "SOL", "XRP"} <= worth.keys()
        for base, prices in worth.items():
            assert max(prices.values()) < min(prices.values()) * (1 + APART), f"{base} after {steps} steps: {prices}"


def test_contracts_have_an_index_of_their_own_underlying(market: Market) -> None:
    for book in market.books:
        if not book.spec.symbol.is_spot:
            contract = Contract(market, book)
            assert abs(contract.mark_price() / contract.index_price() - 1) < APART, book.spec.canonical_symbol
            assert abs(contract.funding_rate()) <= FUNDING_CAP


def test_levels_are_worth_thousands_of_dollars_whatever_is_traded(market: Market) -> None:
    bitcoin = Decimal(70_000)
    rates = {**dict.fromkeys(USD_LIKE, Decimal(1)), "BTC": bitcoin, "EUR": Decimal("1.1")}
    for book in market.books:
        spec = book.spec
        size = Decimal(spec.typical_size).scaleb(spec.size_exponent)
        at = Decimal(spec.reference_price).scaleb(spec.price_exponent)
        worth = (size if spec.symbol.is_inverse else size * at) * rates[spec.quote]
        assert 1_000 < worth < 100_000, f"{spec.canonical_symbol}: a level of {worth} dollars"
