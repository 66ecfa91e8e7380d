"""Message routes: from the text of a message to what handles it, and the blame for what is wrong with it.

In the worker's adapter. It lays a route for each stream of an instrument, under whatever the venue's messages name
their stream with, and most of its ``on_frame`` is to find the one that a message belongs to::

    routes[b"trade.btc_usdt"] = MessageRoute(TRADE.decode, trades.on_trade, "btc_usdt", DataType.TRADE)
    …
    return routes[topic].take(message, ts_recv, emit)

``direct.pyx`` has routes of another kind, for normal next messages: those are not decoded at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mdring.feed.adapter import UNREADABLE, Request, VenueProtocolError, blamed
from mdring.feed.emit import Emit
from mdring.record import DataType

Decode = Callable[[bytes], Any]
"""The message of a text; raises one of ``UNREADABLE`` or VenueProtocolError if it is not as documented."""
Handler = Callable[[Any, int, Emit], Sequence[Request]]
"""(message, ts_recv, emit): stages the records of a decoded message; raises as ``Decode`` does."""


class MessageRoute:
    """One stream: how its messages are decoded, what handles them, and whose they are."""

    __slots__ = ("_data_type", "_decode", "_handle", "_instrument")

    def __init__(self, decode: Decode, handle: Handler, instrument: str | None, data_type: DataType) -> None:
        """``instrument`` is None of a stream that tells of several."""
        self._decode = decode
        self._handle = handle
        self._instrument = instrument
        self._data_type = data_type

    def take(self, message: bytes, ts_recv: int, emit: Emit) -> Sequence[Request]:
        """One message. Whatever is wrong with it is the venue's fault: VenueProtocolError says of what it was."""
        try:
            return self._handle(self._decode(message), ts_recv, emit)
        except (*UNREADABLE, VenueProtocolError) as error:
            raise blamed(error, self._instrument, self._data_type) from error
