"""An emulated venue on a virtual clock: its real messages, as many as wanted, at once.

The emulator of Binance (``adapters/emulators/binance.py``) behind a host whose time passes only as the market makes
steps. Whoever wants frames to send or to decode takes them from here; nothing is sent::

    venue = VirtualVenue(seed=1)
    wire = venue.connect()
    venue.advance_until(wire, 2000)
    wire.frames, venue.rest("/api/v3/depth", symbol="BTCUSDT", limit="1000")
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Any, Final

from mdring.emulator.instruments import universe
from mdring.emulator.market import Market
from mdring.emulator.venue import Refusal, RestRequest, Session, Timer, load_emulator

SYMBOLS: Final = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT", "DOGE-USDT", "ADA-USDT", "LTC-USDT", "BNB-USDT")
DEPTH: Final = 500  # levels a side
STEP_NS: Final = 500_000  # of virtual time: some 250 changes a second in each book, so a depth frame holds 25
BEGIN_NS: Final = 1_760_000_000_000_000_000
STREAMS: Final = ("aggTrade", "bookTicker", "depth@100ms")


class _Timer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the callback."""
        self.callback = None


class Clock:
    """The host of the emulator: virtual time, and what is due."""

    def __init__(self) -> None:
        self.time_ns = BEGIN_NS
        self._due: list[tuple[int, int, _Timer]] = []
        self._numbers = itertools.count()

    def now_ns(self) -> int:
        """The virtual time."""
        return self.time_ns

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Call back at a later virtual time."""
        timer = _Timer(callback)
        heapq.heappush(self._due, (self.time_ns + round(seconds * 1e9), next(self._numbers), timer))
        return timer

    def pass_until(self, time_ns: int) -> None:
        """Let time pass, and call back what becomes due."""
        while self._due and self._due[0][0] <= time_ns:
            self.time_ns, _, timer = heapq.heappop(self._due)
            if timer.callback is not None:
                timer.callback()
        self.time_ns = time_ns

    def pass_all(self) -> None:
        """Let time pass until nothing more is due."""
        while self._due:
            self.pass_until(self._due[0][0])


class Wire:
    """A connection that keeps what the venue sends. It never ends: neither pings nor lives are timed."""

    number = 1
    session: Session

    def __init__(self, clock: Clock) -> None:
        self.frames: list[tuple[str, bytes]] = []  # stream, payload
        self._clock = clock

    def now_ns(self) -> int:
        """The virtual time."""
        return self._clock.time_ns

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Pings and the end of the connection: never due."""
        return _Timer(callback)

    def deliver(self, stream: str, frame: bytes) -> None:
        """Market data."""
        self.frames.append((stream, frame))

    def reply(self, text: str) -> None:
        """Acks; nobody waits for them."""

    def ping(self, payload: bytes) -> None:
        """Never called, as no timer is due."""

    def close(self, code: int, reason: str = "") -> None:
        """The venue would end the connection: whoever measures must not go on."""
        raise ConnectionError(f"the emulated venue closes the connection: {code} {reason}")

    def reset(self) -> None:
        """As ``close``."""
        raise ConnectionError("the emulated venue resets the connection")


class VirtualVenue:
    """The emulated venue and its market."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = Clock()
        self.market = Market(universe(SYMBOLS), seed, DEPTH)
        emulator_type = load_emulator("binance")
        self.emulator = emulator_type(self.market, self.clock, emulator_type.options(messages_per_second=1000))
        self.instruments = [self.emulator.instruments()[symbol] for symbol in SYMBOLS]

    def stream_names(self) -> list[str]:
        """What a client of this benchmark subscribes to."""
        return [f"{instrument.lower()}@{stream}" for instrument in self.instruments for stream in STREAMS]

    def connect(self) -> Wire:
        """A client that has subscribed to everything."""
        wire = Wire(self.clock)
        session = self.emulator.accept("/stream", {"streams": "/".join(self.stream_names())}, wire)
        if isinstance(session, Refusal):
            raise ConnectionError(f"the emulated venue refuses: {session.status}")
        wire.session = session
        session.on_open()
        return wire

    def advance_until(self, wire: Wire, frames: int) -> None:
        """Let the market go on until the wire has so many frames, and every window is closed."""
        while len(wire.frames) < frames:
            self.clock.pass_until(self.clock.time_ns + STEP_NS)
            self.emulator.on_events(self.market.advance(1, self.clock.time_ns))
        self.clock.pass_all()

    def rest(self, path: str, **query: str) -> bytes:
        """The body of a REST answer."""
        answer: Any = self.emulator.rest(RestRequest(path, query, {}, "127.0.0.1"))
        if answer.status != 200:
            raise ConnectionError(f"{path}: HTTP {answer.status}: {answer.body[:80]!r}")
        body: bytes = answer.body
        return body
