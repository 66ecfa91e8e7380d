"""What the demo asks of the emulator: the instruments subscribed to, or all that it knows."""

from __future__ import annotations

import pytest

from mdring.config import Config, SubscriptionConfig, VenueConfig
from mdring.emulator.instruments import KNOWN
from mdring.supervisor.demo import emulator_words
from mdring.supervisor.folder import StartError


def config(*subscriptions: SubscriptionConfig, adapter: str = "binance") -> Config:
    return Config(venues=(VenueConfig(id="x", adapter=adapter, subscriptions=subscriptions),))


def instruments(*subscriptions: SubscriptionConfig) -> list[str]:
    return str(emulator_words(config(*subscriptions), 10)["instruments"]).split(",")


def one(symbol: str | None) -> SubscriptionConfig:
    return SubscriptionConfig(instrument="X", canonical_symbol=symbol, data_types=("trade",))


PATTERN = SubscriptionConfig(match="*", data_types=("trade",))


def test_lists_what_is_subscribed_to() -> None:
    assert instruments(one("BTC-USDT"), one("ABC-USDT"), one("BTC-USDT")) == ["BTC-USDT", "ABC-USDT"]


@pytest.mark.parametrize("entry", [PATTERN, one(None)])
def test_lists_all_it_knows_if_nobody_can_tell_what_is_meant(entry: SubscriptionConfig) -> None:
    assert instruments(entry, one("BTC-USDT"), one("ABC-USDT")) == [*KNOWN, "ABC-USDT"]


def test_venue_without_an_emulator_is_named() -> None:
    with pytest.raises(StartError, match="no emulator for nowhere"):
        emulator_words(config(PATTERN, adapter="nowhere"), 10)
