"""The demo: the shipped configuration, with emulated venues in place of the real ones.

Part of the supervisor. One emulator process serves every venue of the configuration and announces where::

    words = emulator_words(config, rate=100)      # for the emulator's command line
    config = with_endpoints(config, line)         # what it announced

Raises StartError where the demo cannot be.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct, structs

from mdring.config import Config, RunConfig, VenueConfig
from mdring.emulator.instruments import KNOWN
from mdring.emulator.venue import emulator_names
from mdring.supervisor.folder import StartError

EMULATOR: Final = "emulator"
DEMO_RUN_NAME: Final = "demo"
DEMO_RATE: Final = 100


class _Endpoints(Struct, frozen=True):
    """Where one emulated venue listens."""

    websocket_url: str
    rest_url: str


def demo_config(config: Config) -> Config:
    """The configuration with the run named ``demo``, unless it has a name of its own."""
    if config.run.name != RunConfig().name:
        return config
    return structs.replace(config, run=structs.replace(config.run, name=DEMO_RUN_NAME))


def emulator_words(config: Config, rate: int) -> dict[str, object]:
    """What fills the emulator's command line: its venues, the instruments subscribed to, market steps per second."""
    adapters = sorted({venue.adapter for venue in config.enabled_venues})
    missing = [adapter for adapter in adapters if adapter not in emulator_names()]
    if missing:
        raise StartError(
            f"there is no emulator for {', '.join(missing)} (there are: {', '.join(emulator_names())}); "
            "set enabled = false for those venues to see the demo of the others"
        )
    symbols = [subscription.canonical_symbol for venue in config.enabled_venues for subscription in venue.subscriptions]
    known = [symbol for symbol in dict.fromkeys(symbols) if symbol is not None]
    # Without a canonical symbol, as with a pattern, nobody here can tell which instruments are meant; then the emulator
    # lists all it knows.
    instruments = known if None not in symbols else list(dict.fromkeys([*KNOWN, *known]))
    return {"venues": ",".join(adapters), "instruments": ",".join(instruments), "rate": rate}


def with_endpoints(config: Config, line: bytes) -> Config:
    """The configuration with the addresses that the emulator announced in ``line``."""
    try:
        announced = msgspec.json.decode(line, type=dict[str, _Endpoints | str])
        venues = [_with_endpoints(venue, announced) if venue.enabled else venue for venue in config.venues]
    except (msgspec.DecodeError, KeyError) as error:
        raise StartError(f"the emulator announced no endpoints of its venues: {error}") from error
    return structs.replace(config, venues=tuple(venues))


def _with_endpoints(venue: VenueConfig, announced: dict[str, _Endpoints | str]) -> VenueConfig:
    endpoints = announced[venue.adapter]
    if isinstance(endpoints, str):
        raise KeyError(venue.adapter)
    return structs.replace(venue, websocket_url=endpoints.websocket_url, rest_url=endpoints.rest_url)
