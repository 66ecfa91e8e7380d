"""Kraken Spot, metadata: which pairs there are, how finely prices and sizes are written, whether they are traded.

Documentation (read November 2026): docs.kraken.com, "Get Tradable Asset Pairs" (REST) and "Instruments" (WebSocket v2).
REST has names of its own: v2's BTC/USD is ``wsname`` XBT/USD there, under the key XXBTZUSD; XDG is DOGE. Pairs without
``wsname`` are dark pools, which v2 does not have.

Exponents: the venue writes every price with ``pair_decimals`` digits behind the point and every size with
``lot_decimals``, whatever the tick, and its checksum is of these digits. Hence they are the exponents.

Used by ``kraken.py`` before it subscribes::

    infos = decode_asset_pairs(response.body, unknown)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from mdring.feed.adapter import Fetch, InstrumentInfo, UnknownMessages, VenueProtocolError
from mdring.feed.instrument_rows import decoded, infos_of
from mdring.record import DataType
from mdring.symbol import asset, plain_decimal, spot

VENUE: Final = "kraken"
OFFERED: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
Decimals = Annotated[int, Meta(ge=0, le=18)]


class AssetPair(Struct):
    """{"altname":"XBTUSDT","wsname":"XBT/USDT","aclass_base":"currency","base":"XXBT","aclass_quote":"currency","quote":"USDT","lot":"unit","cost_decimals":5,"pair_decimals":1,"lot_decimals":8,"lot_multiplier":1,"ordermin":"0.00005","costmin":"0.5","tick_size":"0.1","status":"online"}"""

    pair_decimals: Decimals
    lot_decimals: Decimals
    wsname: str = ""
    tick_size: str = ""  # absent in old lists: then a unit of the last digit
    status: str = ""


class AssetPairs(Struct):
    """{"error":[],"result":{}}"""

    error: list[str]
    result: dict[str, Raw] = {}


class PairRow(Struct):
    """{"symbol":"BTC/USD","base":"BTC","quote":"USD","status":"online","qty_precision":8,"qty_increment":1e-08,"price_precision":1,"cost_precision":5,"marginable":true,"has_index":true,"cost_min":0.5,"margin_initial":0.2,"position_limit_long":250,"position_limit_short":200,"tick_size":0.1,"price_increment":0.1,"qty_min":0.0001}"""

    symbol: str
    status: str
    price_precision: Decimals
    qty_precision: Decimals


class Reference(Struct):
    """{"assets":[{"id":"BTC","status":"enabled","precision":10,"precision_display":5,"borrowable":true,"collateral_value":1.0,"margin_rate":0.01}],"pairs":[]}

    Of the channel ``instrument``: all at first, then what has changed. ``pairs`` are of :class:`PairRow`.
    """

    pairs: list[Raw] = []


_ASSET_PAIRS: Final = msgspec.json.Decoder(AssetPairs)
_ASSET_PAIR: Final = msgspec.json.Decoder(AssetPair)
NOT_LISTED: Final = ("delisted", "work_in_progress")
"""Words of ``status`` of pairs that cannot be subscribed to. A pair in maintenance can; trading in it goes on later."""


def asset_pairs_fetch(rest_url: str) -> Fetch:
    """The request for the list of all pairs: asked for by name, one unknown name would refuse the whole request."""
    return Fetch(tag="AssetPairs", url=f"{rest_url.rstrip('/')}/0/public/AssetPairs")


def decode_asset_pairs(body: bytes, unknown: UnknownMessages) -> Sequence[InstrumentInfo]:
    """Metadata of all pairs of the list. One that no record could be made for is noted and left out.

    Raises VenueProtocolError.
    """
    answer = decoded(_ASSET_PAIRS, body, "AssetPairs")
    if answer.error:  # with HTTP 200
        raise VenueProtocolError(f"AssetPairs: {', '.join(answer.error)}")

    def info(raw: Raw) -> InstrumentInfo | None:
        pair = _ASSET_PAIR.decode(raw)
        return instrument_info(pair) if pair.wsname else None

    return infos_of(answer.result.values(), info, unknown)


def instrument_info(pair: AssetPair) -> InstrumentInfo:
    """Metadata as the port wants it. Raises ValueError for what it cannot hold."""
    base, quote = (asset(VENUE, code) for code in legs(pair.wsname))
    return InstrumentInfo(
        instrument=f"{base}/{quote}",
        canonical_symbol=str(spot(base, quote)),
        price_exponent=-pair.pair_decimals,
        size_exponent=-pair.lot_decimals,
        base=base,
        quote=quote,
        trading=pair.status not in NOT_LISTED,
        size_unit=base,
        tick=plain_decimal(pair.tick_size or f"1e-{pair.pair_decimals}"),
        lot=plain_decimal(f"1e-{pair.lot_decimals}"),
        status=pair.status,
        data_types=OFFERED,
    )


def legs(name: str) -> tuple[str, str]:
    """Base and quote of a pair, as XBT/USD. Raises ValueError."""
    base, _, quote = name.partition("/")
    if not base or not quote:
        raise ValueError(f"a pair is called {name!r}")
    return base, quote
