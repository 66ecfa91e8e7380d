"""A venue's frames to records on its ring: what a worker does per frame, without the socket.

::

    frames of a capture ─┬▶ DirectPath ──────────────────▶ Emit ──▶ venue ring ──▶ BookSet (to check, not timed)
                         └▶ Driver.on_frame ──▶ adapter ──▶

The captures are real traffic if there is any (``../shared/captures``, or the folder that MDRING_CAPTURES names), and
one that is made of the emulated Binance. Each pass goes over it with a new adapter, so books are synchronised, their
numbers and checksums checked as in a live worker; REST answers come from the capture at once (to find them there is
the benchmark's own work, and not counted). Peers do the same with the same frames, and the books of all must agree at
the end. Times are CPU time, on one core. We and the peer take turns, and the ratios are those of turns: what else the
machine does meanwhile then slows both.

The limit is msgspec alone: the same frames, into the same typed structs, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import re
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks._capture import record_emulated
from benchmarks._harness import Part, Result, console, measure, require
from benchmarks._run_folder import attach_ring, open_reader, run_folder
from benchmarks.peers import environment
from mdring.book import BookSet
from mdring.capture import CaptureEvent, read_capture
from mdring.counters import POSITIONS_WORD, Counter, Counters
from mdring.decode import Responses, learn_metadata
from mdring.feed.adapter import (
    Adapter,
    Fetch,
    InstrumentInfo,
    Response,
    Send,
    Subscription,
    load_adapter,
)
from mdring.feed.channels import ChannelStore
from mdring.feed.driver import Driver
from mdring.feed.publisher import Publisher
from mdring.feed.quarantine import Quarantine
from mdring.feed.stage import Channel
from mdring.feed.states import ConnectionStates
from mdring.feed.subscriptions import learners
from mdring.record import RECORD, DataType, Flags, Reason
from mdring.run_folder import RunFolder

CAPTURES: Final = Path(os.environ.get("MDRING_CAPTURES", Path(__file__).parents[2] / "shared" / "captures"))
TARGET_RATIO: Final = 8.0
ALL: Final = (DataType.TRADE, DataType.BBO, DataType.BOOK)
_RING_SLOTS: Final = 65_536
_TURNS: Final = 5  # of ours, and as many of the peer's, by turns

# What the recording program subscribed to.
_INSTRUMENTS: Final = ("NKNUSDT", "BLZETH", "LRCBTC", "RUNEEUR")
_OPTIONS: Final = {"trade_stream": "aggTrade"}
_UNWANTED: Final = "@kline"
# How the messages of the other venues name the instruments that were subscribed to.
_NAMES: Final = {
    "bitstamp": r'"diff_order_book_(\w+)"',
    "coinbase": r'"product_id":\s*"([^"]+)"',
    "deribit": r'"instrument_name":\s*"([^"]+)"',
    "okx": r'"channel":\s*"books",\s*"instId":\s*"([^"]+)"',
}


class _Link:
    """A connection that goes nowhere."""

    def send(self, request: Send) -> None:
        """Nobody answers: the capture's venue needs no subscription."""

    def acknowledge(self, ack: str) -> None:
        """Nothing was asked."""

    def reconnect(self, reason: Reason, detail: str) -> None:
        """A capture that makes the adapter reconnect measures something else."""
        require(False, f"the adapter wants to reconnect: {reason.name} {detail}")


class _Fetcher:
    """Answers fetches from the capture, in its order; in place of ``feed/rest.py``."""

    def __init__(self) -> None:
        self.driver: Driver
        self.search_ns = 0  # for answers in the capture, which no worker does
        self.snapshots_ns = 0  # what the driver did with them
        self._responses = Responses()

    def submit(self, fetch: Fetch) -> None:
        """Answer at once if the capture has passed the answer."""
        start = time.thread_time_ns()
        event = self._responses.ask(fetch)
        self.search_ns += time.thread_time_ns() - start
        if event is not None:
            self._respond(fetch, event)

    def reach(self, event: CaptureEvent) -> None:
        """The capture is at this answer."""
        start = time.thread_time_ns()
        fetch = self._responses.reach(event)
        self.search_ns += time.thread_time_ns() - start
        if fetch is not None:
            self._respond(fetch, event)

    def cancel(self, connection: int) -> None:
        """As the worker's."""
        self._responses.cancel(connection)

    def _respond(self, fetch: Fetch, event: CaptureEvent) -> None:
        start = time.thread_time_ns()
        self.driver.on_response(fetch, Response(fetch.tag, event.url, event.status, event.payload))
        self.snapshots_ns += time.thread_time_ns() - start


class Turn(NamedTuple):
    """The median pass of some, in ns: all of it, what is left without the answers of REST; its records, and how many
    frames took a direct route."""

    whole: float
    plain: float
    records: npt.NDArray[np.void]
    direct: int


class Decoder:
    """A worker without sockets: its driver, publisher and ring, and an adapter that is new in each pass."""

    def __init__(self, folder: RunFolder, venue: str, infos: Sequence[InstrumentInfo], options: dict[str, str]) -> None:
        self._folder = folder
        self._infos = infos
        self._adapter_class = load_adapter(venue)
        self._options = msgspec.convert(options, self._adapter_class.options)
        self.counters = Counters.open_as_writer(folder.counters(f"worker-{venue}"), os.getpid())
        self._sequencer = Counters.open_as_writer(folder.counters("sequencer"), os.getpid())
        self._publisher = Publisher(
            attach_ring(folder.venue_ring(venue), writable=True), 1, self._sequencer.words, self.counters,
            ChannelStore.attach(folder.channels(venue)),
        )  # fmt: skip
        self._venue_channel = Channel("", 0, 1, 0, 0)
        self._channels = {
            info.instrument: Channel(info.instrument, number, 1, info.price_exponent, info.size_exponent)
            for number, info in enumerate(infos, 1)
        }
        self._publisher.add([self._venue_channel, *self._channels.values()])
        self._reader = open_reader(folder.venue_ring(venue))
        self._batch = np.zeros(_RING_SLOTS, dtype=RECORD)

    def turn(self, events: Sequence[CaptureEvent], passes: int) -> Turn:
        """Some passes, one after the other; the answer of each is checked. The first one warms up."""
        times = np.zeros((passes + 1, 2))
        for number in range(passes + 1):
            times[number], records, adapter = self._pass(events)
            counts = adapter.counts
            require(counts.gaps == 0 and self.counters.load(Counter.REJECTS) == 0, "gaps or rejects")
            require(counts.books_valid == counts.books > 0, f"{counts.books_valid} of {counts.books} books in sync")
        whole, plain = np.median(times[1:], axis=0).tolist()
        return Turn(whole, plain, records.copy(), adapter.direct.taken if adapter.direct is not None else 0)

    def _pass(self, events: Sequence[CaptureEvent]) -> tuple[tuple[int, int], npt.NDArray[np.void], Adapter]:
        """One pass: ns of CPU, in all and without what REST answers took; the records; the adapter."""
        adapter, driver, fetcher = self._fresh()
        ours = {connection.connection for connection in adapter.connections()}
        steps = [
            (event, event.payload if event.ev == "recv" else None, event.conn if event.conn in ours else min(ours))
            for event in events
        ]
        path = driver.path
        start = time.thread_time_ns()
        for event, payload, connection in steps:
            if payload is None:
                fetcher.reach(event)
            elif path is None or not path.take(connection, payload, event.ts):
                driver.on_frame(connection, payload, event.ts)
        whole = time.thread_time_ns() - start - fetcher.search_ns
        count = self._reader.poll(self._batch)
        require(self._reader.lost == 0 and self._publisher.cursor == self._reader.position, "records are missing")
        self._sequencer.words.store(POSITIONS_WORD + 1, self._reader.position)
        return (whole, whole - fetcher.snapshots_ns), self._batch[:count], adapter

    def _fresh(self) -> tuple[Adapter, Driver, _Fetcher]:
        adapter = self._adapter_class(
            self._adapter_class.endpoints, self._options, [Subscription(info.instrument, ALL) for info in self._infos]
        )
        states = ConnectionStates(self._venue_channel, self.counters)
        quarantine = Quarantine(self._folder.path / "quarantine.jsonl", 1 << 16)
        driver = Driver(adapter, self._publisher, states, quarantine, self.counters, self._venue_channel)
        fetcher = _Fetcher()
        fetcher.driver = driver
        driver.fetcher = fetcher  # type: ignore[assignment]
        adapter.bind(self._channels)
        connections = {one.connection: one.instruments for one in adapter.connections()}
        driver.bind(self._channels, connections)
        states.set_connections(
            {number: [self._channels[name] for name in names] for number, names in connections.items()}
        )
        for number in connections:
            driver.on_connect(number, _Link())
        return adapter, driver, fetcher


Tops = dict[str, list[tuple[Decimal, Decimal]]]
"""Price and size of the best bid and ask, by instrument."""


def books_of(records: npt.NDArray[np.void], infos: Sequence[InstrumentInfo]) -> Tops:
    """The best levels of the books that the records make; each must be valid."""
    books, tops = BookSet(), Tops()
    books.apply(records)
    for number, info in enumerate(infos, 1):
        book = books[number]
        require(book.valid and not book.is_crossed, f"the book of {info.instrument} is not valid")
        tops[info.instrument] = [
            (Decimal(price).scaleb(info.price_exponent), Decimal(size).scaleb(info.size_exponent))
            for price, size in (book.best_bid, book.best_ask)
        ]
    return tops


def ours(title: str, frames: Sequence[CaptureEvent], turns: Sequence[Turn], passes: int) -> list[Result]:
    """Frames and records per second of one core."""
    whole, plain = (float(np.median(times)) for times in ([one.whole for one in turns], [one.plain for one in turns]))
    records = turns[-1].records
    deltas = int(((records["flags"] & np.uint8(Flags.SNAPSHOT)) == 0).sum())
    return [
        Result(name=f"{title}: frames", value=len(frames) / plain * 1e6, unit="k frames/s", more_is_better=True,
               limit=msgspec_alone(frames, passes), limit_name="msgspec alone", contest=f"{title} frames"),
        Result(name=f"{title}: records of frames", value=deltas / plain * 1e6, unit="k records/s",
               more_is_better=True),
        Result(name=f"{title}: with snapshots", value=len(frames) / whole * 1e6, unit="k frames/s",
               more_is_better=True, contest=f"{title} whole"),
        Result(name=f"{title}: with snapshots", value=len(records) / whole * 1e6, unit="k records/s",
               more_is_better=True),
    ]  # fmt: skip


def recorded(venue: str, path: Path, passes: int) -> list[Result]:
    """The real capture of any venue: whatever it holds of trades, quotes and books."""
    adapter_class = load_adapter(venue)
    events = [event for event in read_capture(path) if event.ev in ("recv", "http")]
    text = "".join(event.text or "" for event in events if event.ev == "recv")
    wishes = [Subscription(name, ALL) for name in dict.fromkeys(re.findall(_NAMES[venue], text))]
    (learner, *_) = learners(
        lambda wanted: adapter_class(adapter_class.endpoints, adapter_class.options(), wanted), wishes
    )
    known = {info.instrument: info for info in learn_metadata(learner, path)}
    infos = [known[wish.instrument] for wish in wishes if wish.instrument in known]
    with run_folder([venue], ring_slots=_RING_SLOTS) as folder:
        found = Decoder(folder, venue, infos, {}).turn(events, passes)
    frames = sum(event.ev == "recv" for event in events)
    return [
        Result(name=f"{venue}, real capture", value=frames / found.whole * 1e6, unit="k frames/s",
               more_is_better=True),
        Result(name=f"{venue}, real capture", value=len(found.records) / found.whole * 1e6, unit="k records/s",
               more_is_better=True),
    ]  # fmt: skip


class _Message(msgspec.Struct, gc=False):
    """The fields of any message that is decoded; levels stay raw."""

    s: str
    u: int = 0
    p: str = ""
    q: str = ""
    b: msgspec.Raw = msgspec.Raw()
    a: msgspec.Raw = msgspec.Raw()
    B: str = ""
    A: str = ""


class _Envelope(msgspec.Struct, gc=False):
    data: _Message


def msgspec_alone(frames: Sequence[CaptureEvent], passes: int) -> float:
    """k frames/s of a msgspec decoder that makes typed structs of the same frames, and nothing else."""
    decode = msgspec.json.Decoder(_Envelope).decode
    payloads = [event.payload for event in frames]
    times = []
    for _ in range(passes):
        start = time.thread_time_ns()
        for payload in payloads:
            decode(payload)
        times.append(time.thread_time_ns() - start)
    return len(payloads) / float(np.median(times)) * 1e6


class PeerTurn(NamedTuple):
    """As ``Turn``, of cryptofeed; and how many frames it was given."""

    whole: float
    plain: float
    frames: int


def turn_of_cryptofeed(path: Path, tops: Tops, passes: int) -> PeerTurn:
    """The same frames through cryptofeed; its books must be ours."""
    answer = environment.run("cryptofeed_decode", path, passes + 1, timeout_s=120)
    theirs = {name: [(Decimal(p), Decimal(s)) for p, s in levels] for name, levels in answer["tops"].items()}
    if theirs != tops:
        raise environment.PeerFailed(f"cryptofeed_decode: its books differ: {theirs}, ours {tops}")
    times = np.array(answer["passes"][1:])
    return PeerTurn(float(np.median(times[:, 0])), float(np.median(times[:, 0] - times[:, 1])), answer["frames"])


def against_cryptofeed(title: str, turns: Sequence[Turn], theirs: Sequence[PeerTurn]) -> list[Result]:
    """What cryptofeed makes of the frames, and how many times faster we are: the median of the turns' ratios."""
    name = f"cryptofeed {environment.versions()['cryptofeed']}"
    measured = {
        "frames": [(mine.plain, its.plain) for mine, its in zip(turns, theirs, strict=True)],
        "with snapshots": [(mine.whole, its.whole) for mine, its in zip(turns, theirs, strict=True)],
    }
    results: list[Result] = []
    for what, pairs in measured.items():
        times = np.array(pairs)
        results += [
            Result(name=f"{title}: {what}, {name}", value=theirs[0].frames / float(np.median(times[:, 1])) * 1e6,
                   unit="k frames/s", more_is_better=True, contest=f"{title} {'whole' if what != 'frames' else what}",
                   is_peer=True, series="cryptofeed"),
            Result(name=f"  ÷ {title}: {what}, {name}", value=float(np.median(times[:, 1] / times[:, 0])), unit="×",
                   more_is_better=True, target=TARGET_RATIO),
        ]  # fmt: skip
    return results


def _wanted(path: Path) -> Iterator[CaptureEvent]:
    for event in read_capture(path):
        if event.ev == "http" or (event.ev == "recv" and _UNWANTED not in (event.text or "")):
            yield event


def decode(path: Path, title: str, instruments: Sequence[str], options: dict[str, str], passes: int) -> list[Result]:
    """All figures of one capture."""
    adapter_class = load_adapter("binance")
    subscriptions = [Subscription(instrument, ALL) for instrument in instruments]
    adapter = adapter_class(adapter_class.endpoints, msgspec.convert(options, adapter_class.options), subscriptions)
    known = {info.instrument: info for info in learn_metadata(adapter, path)}
    infos = [known[instrument] for instrument in instruments]
    events = list(_wanted(path))
    turns: list[Turn] = []
    theirs: list[PeerTurn] = []
    with run_folder(["binance"], ring_slots=_RING_SLOTS) as folder:
        decoder = Decoder(folder, "binance", infos, options)
        for _ in range(_TURNS):
            turns.append(decoder.turn(events, max(2, passes // _TURNS)))
            if environment.has("cryptofeed"):
                tops = books_of(turns[-1].records, infos)
                theirs.append(turn_of_cryptofeed(path, tops, max(2, passes // _TURNS // 10)))
    frames = [event for event in events if event.ev == "recv"]
    require(turns[-1].direct > len(frames) // 2, f"{turns[-1].direct} of {len(frames)} frames took a direct route")
    results = ours(title, frames, turns, passes)
    return results + (against_cryptofeed(title, turns, theirs) if theirs else [])


def run(options: argparse.Namespace) -> Sequence[Result]:
    """All figures of the decoding."""
    passes = max(5, int(200 * options.scale))
    parts: list[Part] = []
    real = CAPTURES / "binance.jsonl.gz"
    if real.exists():
        parts.append(("real", partial(decode, real, "real capture", _INSTRUMENTS, _OPTIONS, passes)))
        others = [(venue, CAPTURES / f"{venue}.jsonl.gz") for venue in _NAMES]
        parts += [(venue, partial(recorded, venue, path, passes)) for venue, path in others if path.exists()]
    else:
        console.print(f"[yellow]no real traffic in {CAPTURES}: only that of the emulated venue is measured[/]")
    with record_emulated(frames=2000) as (path, instruments):
        parts.append(("emulated", partial(decode, path, "emulated", instruments, _OPTIONS, max(3, passes // 10))))
        return measure("decode", parts)
