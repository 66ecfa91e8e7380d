"""OKX v5, metadata: which instruments there are, what a contract is, and how finely prices and sizes are written.

Documentation (read November 2026): okx.com/docs-v5, "Get instruments". One list for each type of instrument; that of
options also needs the family. Derivatives have neither base nor quote: both are in ``uly``. What is not set is "".

Exponents: tick and lot are rules for new orders and do change, while older orders stay in the book; so there is room
for some digits more. Numbers on the wire are not padded.

Used by ``okx.py`` before it subscribes::

    infos = decode_instruments(response.body, unknown)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from mdring.feed.adapter import Fetch, InstrumentInfo, UnknownMessages, VenueProtocolError
from mdring.feed.instrument_rows import decoded, infos_of, price_exponent, size_exponent
from mdring.record import DataType
from mdring.symbol import Symbol, date_of, future, option, perpetual, plain_decimal, spot

TYPES: Final = ("SPOT", "SWAP", "FUTURES")
"""Types whose list is asked for as a whole."""
MORE_DIGITS: Final = 2
"""A tick, or a lot, may have been finer by so many digits when an order came in that still rests."""
QUOTED: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
OFFERED: Final[Mapping[str, tuple[DataType, ...]]] = {
    "SPOT": QUOTED,
    "SWAP": (*QUOTED, DataType.FUNDING, DataType.MARK, DataType.OPEN_INTEREST, DataType.LIQUIDATION),
    "FUTURES": (*QUOTED, DataType.MARK, DataType.OPEN_INTEREST, DataType.LIQUIDATION),
    "OPTION": (*QUOTED, DataType.MARK, DataType.OPEN_INTEREST),
}
"""By type: the channels that the venue has for it."""


class Row(Struct):
    """{"instId":"UNI-USD-SWAP","instType":"SWAP","baseCcy":"","quoteCcy":"","settleCcy":"UNI","uly":"UNI-USD","ctVal":"10","ctMult":"1","ctValCcy":"USD","ctType":"inverse","tickSz":"0.001","lotSz":"1","minSz":"1","expTime":"","stk":"","optType":"","state":"live"}"""

    inst_id: str = field(name="instId")
    inst_type: str = field(name="instType")
    tick: str = field(name="tickSz")
    lot: str = field(name="lotSz")
    state: str
    base: str = field(name="baseCcy", default="")
    quote: str = field(name="quoteCcy", default="")
    settle: str = field(name="settleCcy", default="")
    underlying: str = field(name="uly", default="")
    contract_value: str = field(name="ctVal", default="")
    contract_multiplier: str = field(name="ctMult", default="")
    contract_asset: str = field(name="ctValCcy", default="")
    expiry: str = field(name="expTime", default="")  # ms since the epoch
    strike: str = field(name="stk", default="")
    right: str = field(name="optType", default="")


class Answer(Struct):
    """{"code":"0","msg":"","data":[]}"""

    code: str
    data: list[Row]
    msg: str = ""


_ANSWER: Final = msgspec.json.Decoder(Answer)


def instruments_fetches(rest_url: str, option_families: Iterable[str]) -> Sequence[Fetch]:
    """Requests for the lists of all types, and for those options of these families."""
    url = f"{rest_url.rstrip('/')}/api/v5/public/instruments?instType="
    whole = [Fetch(tag=kind, url=url + kind) for kind in TYPES]
    return whole + [
        Fetch(tag=f"OPTION {family}", url=f"{url}OPTION&instFamily={quote(family)}") for family in option_families
    ]


def decode_instruments(body: bytes, unknown: UnknownMessages) -> list[InstrumentInfo]:
    """Metadata of all instruments of the list. One that no record could be made for is noted and left out.

    Raises VenueProtocolError.
    """
    answer = decoded(_ANSWER, body, "instruments")
    if answer.code != "0":
        raise VenueProtocolError(f"instruments: {answer.code} {answer.msg}")
    return infos_of(answer.data, instrument_info, unknown)


def instrument_info(row: Row) -> InstrumentInfo:
    """Metadata as the port wants it. Raises ValueError for what it cannot hold."""
    is_spot = row.inst_type == "SPOT"
    base, quote_asset = (row.base, row.quote) if is_spot else assets(row.underlying)
    return InstrumentInfo(
        instrument=row.inst_id,
        canonical_symbol=str(symbol_of(row, base, quote_asset)),
        price_exponent=price_exponent(row.tick, MORE_DIGITS),
        size_exponent=size_exponent(row.lot, MORE_DIGITS),
        base=base,
        quote=quote_asset,
        trading=row.state == "live",
        settle="" if is_spot else row.settle,
        size_unit=base if is_spot else row.contract_asset,
        multiplier="1" if is_spot else product(row.contract_value, row.contract_multiplier),
        tick=plain_decimal(row.tick),
        lot=plain_decimal(row.lot),
        status=row.state,
        data_types=OFFERED[row.inst_type],
    )


def assets(pair: str) -> tuple[str, str]:
    """Base and quote of an underlying, as BTC-USD. Raises ValueError."""
    base, _, quote_asset = pair.partition("-")
    if not base or not quote_asset:
        raise ValueError(f"an underlying is called {pair!r}")
    return base, quote_asset


def symbol_of(row: Row, base: str, quote_asset: str) -> Symbol:
    """The canonical symbol. Raises ValueError, also for types that there is none for."""
    match row.inst_type:
        case "SPOT":
            return spot(base, quote_asset)
        case "SWAP":
            return perpetual(base, quote_asset, row.settle)
        case "FUTURES":
            return future(base, quote_asset, date_of(int(row.expiry)), row.settle)
        case "OPTION":
            return option(base, quote_asset, date_of(int(row.expiry)), row.strike, row.right, row.settle)
    raise ValueError(f"a type is called {row.inst_type!r}")


def product(value: str, multiplier: str) -> str:
    """What a contract is for. Raises ValueError."""
    return plain_decimal(str(Decimal(plain_decimal(value)) * Decimal(plain_decimal(multiplier))))
