"""What the emulated market tells of perpetuals and futures."""

from __future__ import annotations

from decimal import Decimal

import pytest

from mdring.emulator.derivatives import FUNDING_CAP, FUNDING_INTERVAL_MS, Contract, is_liquidation
from mdring.emulator.instruments import universe
from mdring.emulator.market import Market
from mdring.record import Side

SYMBOLS = ["BTC-USDT", "BTC-USDT-PERP", "BTC-USD-PERP@BTC", "1000PEPE-USDT-PERP"]


@pytest.fixture
def market() -> Market:
    market = Market(universe(SYMBOLS), 3)
    market.advance(5_000, 0)
    return market


def test_index_is_the_middle_of_the_spot_market_also_in_another_dollar(market: Market) -> None:
    spot = market.book_of("BTC-USDT")
    middle = Decimal(spot.bids.best + spot.asks.best).scaleb(-2) / 2
    for symbol in ("BTC-USDT-PERP", "BTC-USD-PERP@BTC"):
        contract = Contract(market, market.book_of(symbol))
        assert contract.index_price() == middle
        assert abs(contract.mark_price() / middle - 1) < Decimal("0.1")


def test_contract_without_spot_market_is_its_own_index(market: Market) -> None:
    contract = Contract(market, market.book_of("1000PEPE-USDT-PERP"))
    assert contract.index_price() == contract.mark_price() > 0
    assert contract.funding_rate() == 0


def test_funding_is_a_fraction_within_its_cap_and_paid_at_full_hours(market: Market) -> None:
    contract = Contract(market, market.book_of("BTC-USDT-PERP"))
    assert -FUNDING_CAP <= contract.funding_rate() <= FUNDING_CAP
    for now_ms in (0, 1, FUNDING_INTERVAL_MS - 1, FUNDING_INTERVAL_MS, 1_788_000_000_123):
        due = contract.next_funding_ms(now_ms * 1_000_000)
        assert due % FUNDING_INTERVAL_MS == 0 and now_ms < due <= now_ms + FUNDING_INTERVAL_MS


def test_open_interest_moves_with_the_trades(market: Market) -> None:
    contract = Contract(market, market.book_of("BTC-USDT-PERP"))
    before = contract.open_interest()
    market.advance(500, 0)
    assert contract.open_interest() != before > 0


def test_some_taker_orders_are_liquidations_and_all_their_fills_alike(market: Market) -> None:
    trades = list(market.book_of("BTC-USDT-PERP").trades)
    forced = [trade for trade in trades if is_liquidation(trade)]
    assert 0 < len(forced) < len(trades) / 10
    runs = {trade.run for trade in forced}
    assert [trade for trade in trades if trade.run in runs] == forced


def test_spot_is_no_contract(market: Market) -> None:
    with pytest.raises(ValueError, match="no contract"):
        Contract(market, market.book_of("BTC-USDT"))


def test_empty_book_has_still_a_mark_price(market: Market) -> None:
    book = market.book_of("BTC-USDT-PERP")
    for side, ladder in ((Side.BID, book.bids), (Side.ASK, book.asks)):
        for price, _ in ladder.levels():
            book.apply(side, price, 0)
    assert Contract(market, book).mark_price() > 0
