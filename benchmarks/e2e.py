"""A frame on the wire to the strategy's callback, at stated rates.

::

    load venue ──TCP──▶ worker ──▶ venue ring ──▶ sequencer ──▶ tape ──▶ Strategy.on_trade, on_bbo, on_book

The whole system as ``mdring up`` starts it, in the processes that it has, against an emulated venue that sends real
messages at fixed times (open loop: a late client makes no frame later than it was due). Measured from just before the
frame's ``send`` to the entry of the callback that it causes; each frame causes one. Books are checked at the end.
The default idle strategy is measured at all rates, the others at the highest. cryptofeed gets the same load. "On one
core" means the sequencer and the strategy, which wait by yielding and hand every record on to each other: with few
cores that leaves the others to the workers, where the scheduler moves the two about if they are not pinned.

The limit is that of the wake-ups alone: as many processes in C that wake one another in the same ways at the same rate,
and do nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import mdring
from benchmarks import limits
from benchmarks._harness import Part, Result, WrongAnswer, latency, measure, pin, require
from benchmarks._run_folder import temporary_folder
from benchmarks.decode import Tops
from benchmarks.peers import environment
from mdring.book import Book

TARGET_RATE: Final = 20_000
TARGET_P50_US, TARGET_P99_US = 60.0, 250.0
DEFAULT_IDLE: Final = "block"
_JOIN_FRAMES, _JOIN_RATE = 1_000, 2_000
_SILENCE_S: Final = 8.0
_START_S: Final = 30.0

Times = dict[str, npt.NDArray[np.int64]]
"""When things happened, ns of CLOCK_MONOTONIC, in order, by stream (``btcusdt@bookTicker``)."""


class Venue:
    """The load venue's process."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._out = folder / "sent.npz"
        announced = self._answer()
        self.websocket_url, self.rest_url = announced["websocket_url"], announced["rest_url"]
        self.instruments: list[str] = announced["instruments"]

    def join(self) -> None:
        """Send each book's first deltas, with which clients synchronise."""
        self.make(_JOIN_FRAMES)
        self.begin(_JOIN_RATE)
        self.end()

    def make(self, frames: int) -> tuple[int, Tops]:
        """Have at least so many frames made; how many, and what the books are like after them."""
        self._order(make=frames)
        answer = self._answer()
        tops = {name: [(Decimal(p), Decimal(s)) for p, s in levels] for name, levels in answer["tops"].items()}
        return answer["frames"], tops

    def begin(self, rate: int) -> None:
        """Have them sent."""
        self._order(send=rate, out=str(self._out))

    def end(self) -> tuple[Times, npt.NDArray[np.int64]]:
        """Wait until they are: when they counted as sent, and how much later than due."""
        self._answer()
        sent = np.load(self._out)
        stamps = {
            str(name): sent["stamp"][sent["stream"] == number].astype(np.int64)
            for number, name in enumerate(sent["streams"])
        }
        return stamps, sent["late"].astype(np.int64)

    def _order(self, **order: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        require(bool(line), "the load venue has ended; its last words are above")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def load_venue(folder: Path) -> Iterator[Venue]:
    """A new venue with a new market."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load_venue"],
        env=environment.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Venue(process, folder)
    finally:
        process.kill()
        process.communicate()


class Noting(mdring.Strategy):
    """Notes when each callback was called, until so many have been, or for long none was."""

    def __init__(self, venue: Venue, frames: int, rate: int) -> None:
        self.times: dict[tuple[str, int], list[int]] = {}
        self.tops: Tops = {}
        self._venue = venue
        self._frames, self._rate = frames, rate
        self._called = self._called_before = 0
        self._silent_since_s = time.monotonic()
        self._noted: dict[tuple[str, int], list[int]] = {}

    def on_start(self) -> None:
        """The books are there: let the load begin."""
        books = self.tape.books
        assert books is not None
        for row in self.tape.instruments:
            require(books[row.id].valid, f"the book of {row.instrument} is not valid before the load")
            for stream in ("aggTrade", "bookTicker", "depth@100ms"):
                self._noted[stream, row.id] = []
        self._trades = {row.id: self._noted["aggTrade", row.id] for row in self.tape.instruments}
        self._bbos = {row.id: self._noted["bookTicker", row.id] for row in self.tape.instruments}
        self._books = {row.id: self._noted["depth@100ms", row.id] for row in self.tape.instruments}
        self._venue.begin(self._rate)
        self._silent_since_s = time.monotonic()

    def on_trade(self, trade: mdring.Trade) -> None:
        now = time.monotonic_ns()
        self._trades[trade.instrument_id].append(now)
        self._called += 1

    def on_bbo(self, bbo: mdring.Bbo) -> None:
        now = time.monotonic_ns()
        self._bbos[bbo.instrument_id].append(now)
        self._called += 1

    def on_book(self, book: Book) -> None:
        now = time.monotonic_ns()
        self._books[book.instrument_id].append(now)
        self._called += 1

    def on_timer(self, now_ns: int) -> None:
        if self._called != self._called_before:
            self._called_before = self._called
            self._silent_since_s = time.monotonic()
        quiet = time.monotonic() - self._silent_since_s
        if quiet > _SILENCE_S or (self._called >= self._frames and quiet > 1):
            self.stop()

    def on_stop(self) -> None:
        require(self.tape.lost == 0, f"the strategy lost {self.tape.lost} records")
        books = self.tape.books
        assert books is not None
        for row in self.tape.instruments:
            book = books[row.id]
            self.tops[row.instrument] = [
                (Decimal(price).scaleb(row.price_exponent), Decimal(size).scaleb(row.size_exponent))
                for price, size in (book.best_bid, book.best_ask)
            ]

    def by_stream(self) -> Times:
        """The times by the venue's names."""
        return {
            f"{self.tape.instruments.by_id(instrument_id).instrument.lower()}@{stream}": np.array(times)
            for (stream, instrument_id), times in self._noted.items()
            if times
        }


def _config(venue: Venue, idle: str, folder: Path, core: int | None) -> str:
    """The configuration of the run: the defaults, but for where the venue is, how the processes wait, and the core that
    the sequencer has."""
    subscriptions = "".join(
        f'[[venues.subscriptions]]\ninstrument = "{name}"\ndata_types = ["trade", "bbo", "book"]\n'
        for name in venue.instruments
    )
    return f"""
[run]
name = "bench"
directory = "{folder}/runs"
state_directory = "{folder}/state"
[log]
level = "error"
[sequencer]
idle = "{idle}"
{"" if core is None else f"cpu = {core}"}
[[venues]]
id = "binance"
adapter = "binance"
websocket_url = "{venue.websocket_url}"
rest_url = "{venue.rest_url}"
idle = "{idle}"
[venues.options]
trade_stream = "aggTrade"
{subscriptions}"""


@contextmanager
def run_up(venue: Venue, idle: str, folder: Path, core: int | None = None) -> Iterator[Path]:
    """``mdring up`` in its processes; where its runs are."""
    config = folder / "config.toml"
    config.write_text(_config(venue, idle, folder, core))
    process = subprocess.Popen([sys.executable, "-m", "mdring", "up", "--config", str(config)])
    try:
        yield folder / "runs"
    finally:
        process.terminate()
        require(process.wait(30) == 0, "the run did not end in order")


def ours(idle: str, frames: int, rate: int, core: int | None) -> tuple[Times, Times, npt.NDArray[np.int64]]:
    """When frames were sent and when their callbacks were called; the sender's lateness. Sequencer and strategy share
    ``core``, if it is given."""
    with temporary_folder() as folder, load_venue(folder) as venue, run_up(venue, idle, folder, core) as runs:
        venue.join()
        wait_for_books(runs)
        made, tops = venue.make(frames)
        strategy = Noting(venue, made, rate)
        pin(core)
        mdring.run(strategy, "bench", books=True, idle=idle, timer_s=0.2, directory=runs)
        sent, late = venue.end()
        _compare(strategy.tops, tops, "mdring")
        return sent, strategy.by_stream(), late


def wait_for_books(runs: Path) -> None:
    """Until all books are valid, and what was sent to make them so has come through."""
    deadline = time.monotonic() + _START_S
    position = -1
    while True:
        time.sleep(0.5)
        with mdring.attach("bench", directory=runs, books=True, wait_s=_START_S) as tape:
            assert tape.books is not None
            valid = all(row.id in tape.books and tape.books[row.id].valid for row in tape.instruments)
            settled, position = tape.position + tape.lag == position, tape.position + tape.lag
        if valid and settled:
            return
        require(time.monotonic() < deadline, "the books are not synchronised")


def theirs(frames: int, rate: int) -> tuple[Times, Times, npt.NDArray[np.int64]]:
    """The same of cryptofeed."""
    with temporary_folder(parent=None) as folder:
        with load_venue(folder) as venue:
            out = folder / "called.json"
            words = (venue.websocket_url, venue.rest_url, out, ",".join(venue.instruments))
            process = subprocess.Popen(
                environment.command("cryptofeed_e2e", *words), env=environment.environment(), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            try:
                assert process.stdin is not None and process.stdout is not None
                venue.join()
                if process.stdout.readline() != "ready\n":
                    raise environment.PeerFailed("cryptofeed_e2e: its books did not come up")
                time.sleep(1)
                made, tops = venue.make(frames)
                process.stdin.write(f"{made}\n")
                process.stdin.flush()
                time.sleep(0.2)
                venue.begin(rate)
                sent, late = venue.end()
                process.wait(120)
            except subprocess.TimeoutExpired:
                raise environment.PeerFailed(f"cryptofeed_e2e: no end at {rate} frames/s") from None
            finally:
                process.kill()
                process.communicate()
            answer = json.loads(out.read_text())
        called = {_stream(key): np.array(times) for key, times in answer["times"].items()}
        books = {
            symbol.replace("-", ""): [(Decimal(price), Decimal(size)) for price, size in levels]
            for symbol, levels in answer["tops"].items()
        }
        _compare(books, tops, "cryptofeed")
        return sent, called, late


def _compare(found: Tops, venues: Tops, who: str) -> None:
    for instrument, levels in venues.items():
        require(found.get(instrument) == levels,
                f"{who}'s book of {instrument} differs: {found.get(instrument)}, the venue's {levels}")  # fmt: skip


def _stream(key: str) -> str:
    """``BTC-USDT bookTicker`` as the venue names it."""
    symbol, _, stream = key.partition(" ")
    return f"{symbol.replace('-', '').lower()}@{stream}"


def delays(sent: Times, called: Times, skip: int) -> npt.NDArray[np.float64]:
    """µs from frame to callback, in the order of the frames, but for the first ``skip``.

    The n-th callback of a stream is that of its n-th frame: nothing overtakes within one.
    """
    require(sent.keys() == called.keys(), f"streams differ: {sorted(sent.keys() ^ called.keys())}")
    for stream in sent:
        require(len(sent[stream]) == len(called[stream]), f"{stream}: {len(sent[stream])} frames, "
                f"{len(called[stream])} callbacks")  # fmt: skip
    stamps = np.concatenate([sent[stream] for stream in sent])
    times = np.concatenate([called[stream] for stream in sent])
    taken: npt.NDArray[np.float64] = (times - stamps)[np.argsort(stamps, kind="stable")][skip:] / 1000
    require(bool((taken > 0).all()), "a callback came before its frame")
    return taken


def at_rate(idle: str, rate: int, duration_s: float, warm_up_s: float, core: int | None = None) -> list[Result]:
    """mdring's delay at a rate, and that of wake-ups alone."""
    bare = limits.wake_chain(int(rate * max(1.0, duration_s / 2)), rate)
    frames = int(rate * (duration_s + warm_up_s))
    sent, called, late = ours(idle, frames, rate, core)
    taken = delays(sent, called, int(rate * warm_up_s))
    setting = idle if core is None else f"{idle}, on one core"
    wanted = rate == TARGET_RATE and idle == DEFAULT_IDLE
    figures = [
        latency(f"{rate} frames/s, {setting}", taken, limit=float(np.median(bare)), limit_name="bare wake-ups",
                target=TARGET_P50_US if wanted else None,
                contest=f"e2e {rate}" if idle == DEFAULT_IDLE else "", axis="frames/s",
                series=f"mdring, {setting}", at=rate),
    ]  # fmt: skip
    if wanted:
        p99 = float(np.quantile(taken, 0.99))
        figures.append(Result(name="  its p99", value=p99, unit="µs", limit=float(np.quantile(bare, 0.99)),
                              limit_name="bare wake-ups", target=TARGET_P99_US))  # fmt: skip
        figures.append(latency("  the sender's own lateness", late / 1000))
    return figures


def peer_at_rate(rate: int, duration_s: float, warm_up_s: float) -> Result:
    """cryptofeed's."""
    frames = int(rate * (duration_s + warm_up_s))
    try:
        sent, called, _ = theirs(frames, rate)
        taken = delays(sent, called, int(rate * warm_up_s))
    except WrongAnswer as error:
        raise environment.PeerFailed(f"cryptofeed_e2e at {rate} frames/s: {error}") from error
    return latency(
        f"{rate} frames/s, cryptofeed", taken, contest=f"e2e {rate}", is_peer=True, axis="frames/s",
        series="cryptofeed", at=rate,
    )  # fmt: skip


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures from wire to callback."""
    duration_s, warm_up_s = options.duration * options.scale, options.warm_up
    highest = max(options.rate)
    first, *others = options.idle
    parts: list[Part] = [(f"{rate}/s", partial(at_rate, first, rate, duration_s, warm_up_s)) for rate in options.rate]
    if first == DEFAULT_IDLE:
        core = (options.cores or sorted(os.sched_getaffinity(0)))[-1]
        parts.append((f"{highest}/s, on one core", partial(at_rate, first, highest, duration_s, warm_up_s, core)))
    parts += [(f"{highest}/s, {idle}", partial(at_rate, idle, highest, duration_s, warm_up_s)) for idle in others]
    if environment.has("cryptofeed"):
        parts += [
            (f"{rate}/s, cryptofeed", partial(peer_at_rate, rate, duration_s, warm_up_s)) for rate in options.rate
        ]
    return measure("e2e", parts)
