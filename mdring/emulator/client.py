"""The emulator from another process: start it, steer it, ask it for the truth. For tests, demos, benchmarks.

Blocking, over the control endpoint (``control.py``)::

    with EmulatorProcess(seed=7, rate=200, instruments=["BTC-USDT"]) as emulator:
        feed(emulator.websocket_url("binance"), emulator.rest_url("binance"))
        emulator.inject("binance", "drop", match="@depth", count=3)
        emulator.pause()
        assert my_book == emulator.book("binance", "BTCUSDT")
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

from msgspec import Struct

CALL_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
_OPENER: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business here


class ControlError(Exception):
    """The control endpoint refused a call; ``status`` is its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class TrueBook(Struct, frozen=True):
    """A book as the emulated venue has it; levels as (price, size) texts, best first."""

    last_update_id: int
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


class TrueTrade(Struct, frozen=True):
    """One trade of the emulated market. ``ts_event`` in ns."""

    id: int
    price: str
    size: str
    aggressor: str
    ts_event: int


class TrueTrades(Struct, frozen=True):
    """The ids of all trades since the start, and the asked-for ones that are still kept."""

    first_id: int
    last_id: int
    count: int
    trades: list[TrueTrade]


class Control:
    """Calls to a control endpoint. Each raises ControlError if it is refused, OSError if nobody answers."""

    def __init__(self, control_url: str) -> None:
        self._url = control_url

    def inject(self, venue: str, fault: str, **parameters: Any) -> int:
        """Arm a fault, or carry it out; how many connections it has befallen already."""
        answer = self._call("POST", "/faults", body={"venue": venue, "fault": fault, **parameters})
        return int(answer["applied"])

    def clear_faults(self) -> None:
        """Disarm all faults, end stalls and refusals."""
        self._call("DELETE", "/faults")

    def fired(self, venue: str) -> Mapping[str, int]:
        """How often each kind of fault has happened."""
        fired: Mapping[str, int] = self._call("GET", "/faults", {"venue": venue})[venue]["fired"]
        return fired

    def pause(self) -> None:
        """Stop the market; returns when all that has happened is on the wire."""
        self._call("POST", "/pause")

    def resume(self) -> None:
        """Let the market run on."""
        self._call("POST", "/resume")

    def set_rate(self, rate: int) -> None:
        """Market steps per second from now on."""
        self._call("POST", "/rate", body={"rate": rate})

    def advance(self, steps: int) -> None:
        """Make so many steps at once."""
        self._call("POST", "/advance", body={"steps": steps})

    def book(self, venue: str, instrument: str, update_id: int | None = None) -> TrueBook:
        """The true book of the venue's instrument, now or at a past update id."""
        query = {"venue": venue, "instrument": instrument}
        if update_id is not None:
            query["update_id"] = str(update_id)
        answer = self._call("GET", "/truth/book", query)
        return TrueBook(answer["last_update_id"], _levels(answer["bids"]), _levels(answer["asks"]))

    def trades(self, venue: str, instrument: str, from_id: int | None = None) -> TrueTrades:
        """The true trades of the venue's instrument, from an id on if one is given."""
        query = {"venue": venue, "instrument": instrument}
        if from_id is not None:
            query["from_id"] = str(from_id)
        answer = self._call("GET", "/truth/trades", query)
        listed = [TrueTrade(**trade) for trade in answer.pop("trades")]
        return TrueTrades(**answer, trades=listed)

    def instruments(self, venue: str) -> Mapping[str, str]:
        """The venue's names, by canonical symbol."""
        names: Mapping[str, str] = self._call("GET", "/truth/instruments", {"venue": venue})
        return names

    def statistics(self) -> dict[str, Any]:
        """Connections, messages sent, steps made and left out."""
        return self._call("GET", "/stats")

    def _call(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None) -> dict[str, Any]:
        url = f"{self._url}{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, method=method)
        try:
            with _OPENER.open(request, timeout=CALL_TIMEOUT_S) as answer:
                result: dict[str, Any] = json.load(answer)
                return result
        except urllib.error.HTTPError as error:
            with error:
                raise ControlError(error.code, error.read().decode()) from error


def _levels(levels: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    return [(price, size) for price, size in levels]


class EmulatorProcess(Control):
    """An emulator process of our own. It ends with the ``with`` block, and at the latest with us."""

    def __init__(
        self,
        venues: Sequence[str] = ("binance",),
        *,
        seed: int = 1,
        rate: int = 100,
        instruments: Sequence[str] = (),
        truth: Path | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """``arguments``: further ones of ``python -m mdring.emulator``. Raises RuntimeError if it fails."""
        command = [sys.executable, "-m", "mdring.emulator", "--die-with-parent"]
        command += ["--venues", ",".join(venues), "--seed", str(seed), "--rate", str(rate)]
        command += ["--instruments", ",".join(instruments)] if instruments else []
        command += ["--truth", str(truth)] if truth is not None else []
        self.process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        announcement = self.process.stdout.readline()
        if not announcement:
            raise RuntimeError(f"the emulator ended with status {self.process.wait()}: {command}")
        self.endpoints: dict[str, Any] = json.loads(announcement)
        super().__init__(self.endpoints["control_url"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def websocket_url(self, venue: str) -> str:
        """Where the venue's WebSocket listens."""
        return str(self.endpoints[venue]["websocket_url"])

    def rest_url(self, venue: str) -> str:
        """Where the venue's REST listens."""
        return str(self.endpoints[venue]["rest_url"])

    def stop(self) -> None:
        """End it orderly, by force if it does not; idempotent."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
