"""Coinbase Exchange, requests: what carries which data, and how it is asked for.

Documentation (read November 2026): docs.cdp.coinbase.com/exchange, "WebSocket Overview", "Channels". For
``coinbase.py``::

    for asked in wishes("BTC-USD", (DataType.TRADE, DataType.BOOK), LEVEL2):
        requests.append(Send(connection, asked.text(), …))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from mdring.adapters.coinbase_book import Op
from mdring.record import DataType

LEVEL2: Final = "level2_batch"
ALIASES: Final = {"level2": LEVEL2, "level2_50": LEVEL2}
"""What the venue calls a channel otherwise, in its answers and errors."""
Topic = tuple[str, str]  # channel and product; "" for all products


class Asked(NamedTuple):
    """A request that waits for its answer. ``channels`` of one product (of all, if it is ""), for these data."""

    op: Op
    product: str
    channels: tuple[str, ...]
    data_types: tuple[DataType, ...]

    def text(self) -> str:
        """As it is sent. Products stand at each channel: a list common to all is not always taken."""
        products = {"product_ids": [self.product]} if self.product else {}
        channels = [{"name": name, **products} for name in self.channels]
        return msgspec.json.encode({"type": self.op, "channels": channels}).decode()

    def is_done(self, state: set[Topic]) -> bool:
        """Whether the connection is as it was asked for."""
        topics = {(channel, self.product) for channel in self.channels}
        return topics <= state if self.op == "subscribe" else topics.isdisjoint(state)


def wishes(instrument: str, data_types: Sequence[DataType], bbo_channel: str) -> list[Asked]:
    """The requests for these data: one for each kind, so that a refusal costs no other. ``bbo_channel``: that of
    quotes."""
    kinds: dict[str, list[DataType]] = {}
    channel_of = {DataType.TRADE: "matches", DataType.BBO: bbo_channel, DataType.BOOK: LEVEL2}
    for data_type in sorted(data_types):
        if data_type in channel_of:
            kinds.setdefault(channel_of[data_type], []).append(data_type)
    asked = [Asked("subscribe", instrument, (channel,), tuple(wanted)) for channel, wanted in kinds.items()]
    if asked:
        asked[0] = asked[0]._replace(channels=(*asked[0].channels, "heartbeat"))
    return asked
