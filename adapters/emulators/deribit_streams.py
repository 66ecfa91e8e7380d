"""Deribit's channels, the venue's side: what each sends, and when.

Made by ``deribit.py`` for each instrument that it lists; a session joins what it subscribes to::

    stream = BookStream(product, host, "100ms", 0.1)
    stream.join(session)        # the snapshot; then changes, until
    stream.leave(session)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from mdring.emulator.book import Level
from mdring.emulator.rhythm import Beat
from mdring.emulator.stream import Listener, Stream
from mdring.emulator.venue import Host
from mdring.emulator.window import ChangeWindow, Delta

if TYPE_CHECKING:
    from mdring.adapters.emulators.deribit import Product

MS: Final = 1_000_000
PLATFORM_STATE: Final = "platform_state"


class Channel(Stream):
    """One channel, by its name."""

    def first(self) -> str | None:
        """What a new listener gets at once, alone."""
        return None

    def join(self, session: Listener) -> None:
        super().join(session)
        data = self.first()
        if data is not None:
            session.deliver(self.title, self._frame(data))

    def publish(self, data: str) -> None:
        """To all."""
        self.broadcast(self._frame(data))

    def _frame(self, data: str) -> bytes:
        return (
            f'{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{self.title}","data":{data}}}}}'
        ).encode()


class BookStream(Channel):
    """``book.X.100ms``: a snapshot, then what changed."""

    window: ChangeWindow

    def __init__(self, product: Product, host: Host, interval: str, interval_s: float) -> None:
        super().__init__(f"book.{product.name}.{interval}")
        self._product = product
        self._host = host
        self._bids: set[int] = set()  # prices that listeners have
        self._asks: set[int] = set()
        self._sent_id = 0
        self.window = ChangeWindow(product.book, host, interval_s, self._on_delta)

    def first(self) -> str:
        """``{"timestamp":1790133840448,"type":"snapshot","change_id":193809616666,"instrument_name":"NVDA_USDC-PERPETUAL","bids":[["new",228.51,0.22]],"asks":[["new",228.52,0.34]]}``"""
        _, bids, asks = self.window.image()
        self._bids, self._asks = {price for price, _ in bids}, {price for price, _ in asks}
        self._sent_id = self._product.change_id(self.window.sent_id)
        new: set[int] = set()
        return self._message("snapshot", self._rows(bids, new), self._rows(asks, new), "")

    def _on_delta(self, delta: Delta) -> None:
        """``{"timestamp":1790133845258,"type":"change","change_id":193809650259,"instrument_name":"NVDA_USDC-PERPETUAL","bids":[],"asks":[["change",228.58,91.89]],"prev_change_id":193809644396}``"""
        previous, self._sent_id = self._sent_id, self._product.change_id(delta.last)
        bids, asks = self._rows(delta.bids, self._bids), self._rows(delta.asks, self._asks)
        self.publish(self._message("change", bids, asks, f',"prev_change_id":{previous}'))

    def _rows(self, levels: Sequence[Level], known: set[int]) -> str:
        rows = []
        for level in levels:
            price, size = level
            action = "delete" if not size else "change" if price in known else "new"
            (known.add if size else known.discard)(price)
            rows.append(f'["{action}",' + ",".join(self._product.row(*level)) + "]")
        return "[" + ",".join(rows) + "]"

    def _message(self, kind: str, bids: str, asks: str, tail: str) -> str:
        return (
            f'{{"timestamp":{self._host.now_ns() // MS},"type":"{kind}","change_id":{self._sent_id},'
            f'"instrument_name":"{self._product.name}","bids":{bids},"asks":{asks}{tail}}}'
        )


class TradeStream(Channel):
    """``trades.X.100ms``: the trades of an interval in one message."""

    def __init__(self, product: Product, host: Host, interval: str, interval_s: float) -> None:
        super().__init__(f"trades.{product.name}.{interval}")
        self._host = host
        self._interval_s = interval_s
        self._rows: list[str] = []

    @property
    def is_waiting(self) -> bool:
        """Whether there are trades to be sent."""
        return bool(self._rows)

    def add(self, row: str) -> None:
        """A trade has happened."""
        if not self._rows:
            self._host.after(self._interval_s, self._send)
        self._rows.append(row)

    def _send(self) -> None:
        rows, self._rows = self._rows, []
        self.publish("[" + ",".join(rows) + "]")


class QuoteStream(Channel):
    """``quote.X``: the best levels, at once."""

    def __init__(self, product: Product) -> None:
        super().__init__(f"quote.{product.name}")
        self._product = product

    def first(self) -> str:
        return self._product.quote()


class TickerStream(Channel):
    """``ticker.X.100ms``: looked at every so often, sent whole if anything in it has changed."""

    def __init__(self, product: Product, host: Host, interval: str, interval_s: float) -> None:
        super().__init__(f"ticker.{product.name}.{interval}")
        self._product = product
        self._beat = Beat(host, interval_s, self._look, lambda: self.sessions)
        self._told = ""

    def first(self) -> str:
        self._beat.start()
        return self._product.ticker()

    def _look(self) -> None:
        fields = self._product.ticker_fields()
        if fields != self._told:
            self._told = fields
            self.publish(self._product.ticker())


class PlatformStream(Channel):
    """``platform_state``: that each index is not locked, in turn and over and over."""

    def __init__(self, indices: Sequence[str], host: Host, interval_s: float) -> None:
        super().__init__(PLATFORM_STATE)
        self._indices = indices
        self._beat = Beat(host, interval_s, self._repeat, lambda: self.sessions)
        self._turn = 0

    def join(self, session: Listener) -> None:
        super().join(session)
        self._beat.start()

    def lock(self, index: str, is_locked: bool) -> None:
        """``{"price_index":"btc_usdc","locked":true,"reasons":[]}``"""
        self.publish(f'{{"price_index":"{index}","locked":{str(is_locked).lower()},"reasons":[]}}')

    def _repeat(self) -> None:
        self._turn = (self._turn + 1) % len(self._indices)
        self.lock(self._indices[self._turn], False)
