"""The configuration: ``config.toml`` as frozen Structs. Every default of mdring stands here.

``load`` reads and checks the file in the supervisor and in the ``mdring`` command. It raises one
``ConfigError`` that names every problem. What it returns is resolved: paths are absolute, and addresses,
options and limits that the file leaves to the adapter are filled in. The supervisor writes it as
``config.json`` into the run folder, from which workers and the sequencer take it back::

    config = load(Path("config.toml"))
    (config.run.path / "config.json").write_bytes(to_json(config))
    same = from_json((config.run.path / "config.json").read_bytes())

Units stand in the names: ``_ms`` milliseconds, ``_s`` seconds, ``_us`` microseconds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta, Struct, field

from mdring.config_check import MAX_SLOTS, MIN_SLOTS, resolve
from mdring.config_strict import ConfigError, Problem, StrictReader
from mdring.record import DataType
from mdring.run_folder import RUNS_DIRECTORY

__all__ = [
    "BooksConfig",
    "BreakerConfig",
    "Config",
    "ConfigError",
    "ConnectionConfig",
    "Idle",
    "LogConfig",
    "LogLevel",
    "Problem",
    "QuarantineConfig",
    "RunConfig",
    "SequencerConfig",
    "SubscriptionConfig",
    "SupervisorConfig",
    "TapeConfig",
    "VenueConfig",
    "from_json",
    "load",
    "to_json",
]

Idle = Literal["spin", "yield", "backoff", "block"]
LogLevel = Literal["debug", "info", "warning", "error"]

Name = Annotated[
    str,
    Meta(
        # \Z: a $ would let a line feed at the end pass, and the name becomes a file's name.
        pattern=r"^[a-z0-9_-]+\Z",
        max_length=24,  # the room for a venue's name in a row of the instrument table
        description="1 to 24 lower-case letters, digits, '_' and '-'",
    ),
]
Text = Annotated[str, Meta(min_length=1, description="text that is not empty")]
Milliseconds = Annotated[int, Meta(ge=1, le=86_400_000, description="whole milliseconds, from 1 to 86400000 (a day)")]
Seconds = Annotated[int, Meta(ge=1, le=604_800, description="whole seconds, from 1 to 604800 (a week)")]
MillisecondsOrAdapters = Annotated[
    int,
    Meta(ge=0, le=86_400_000, description="whole milliseconds up to 86400000 (a day); 0: the adapter's own"),
]
SecondsOrAdapters = Annotated[
    int, Meta(ge=0, le=604_800, description="whole seconds up to 604800 (a week); 0: the adapter's own")
]
Slots = Annotated[int, Meta(description=f"a power of two from {MIN_SLOTS} to {MAX_SLOTS}")]
Cpu = Annotated[int, Meta(ge=0, description="the number of a CPU of this machine")]
WebSocketUrl = Annotated[
    str, Meta(pattern=r"^(wss?://[^\s/]\S*)?\Z", description="a URL that begins with wss:// or ws://")
]
RestUrl = Annotated[
    str, Meta(pattern=r"^(https?://[^\s/]\S*)?\Z", description="a URL that begins with https:// or http://")
]


PATTERN_INSTRUMENTS: Final = 500
"""What room for books is made for, where nobody knows yet how many instruments a pattern matches."""
MIN_ROWS: Final = 4_095
PATTERN_ROWS: Final = 8_191
"""All that the largest venues list as trading, some of them together."""


class RunConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[run]``: where the run lives. ``directory`` should be on a tmpfs: the segments are memory."""

    name: Name = "default"
    directory: Text = str(RUNS_DIRECTORY)
    state_directory: Text = "~/.local/state/mdring"  # what outlives a run: quarantine files, lists of instruments
    max_instruments: Annotated[int, Meta(ge=0, le=2**20)] = 0  # 0: see Config.instrument_rows

    @property
    def path(self) -> Path:
        """The run folder."""
        return Path(self.directory) / self.name

    @property
    def state_path(self) -> Path:
        """The folder of this run below ``state_directory``."""
        return Path(self.state_directory) / self.name


class TapeConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[tape]``: a slot takes 128 bytes. More slots: a consumer may fall further behind unharmed."""

    slots: Slots = 262_144


class SequencerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sequencer]``: how the sequencer waits, and how much it takes from one venue ring at a time."""

    idle: Idle = "block"
    spin_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 100  # looked and yielded before an idle ``block`` sleeps
    cpu: Cpu | None = None  # absent: any
    max_batch: Annotated[int, Meta(ge=1, le=65_536)] = 1024  # records


class BooksConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[books]``: the book keeper, which makes last-value reads and late joins possible.

    It reads the tape at most once in ``pause_us`` while records come, so that many of them cost one wake-up.
    """

    enabled: bool = True
    levels: Annotated[int, Meta(ge=1, le=1_000)] = 50  # a side, in the book table; late joins give complete books
    checkpoint_bytes: Annotated[int, Meta(ge=0, le=2**36)] = 0  # 0: see Config.checkpoint_bytes
    idle: Idle = "block"
    spin_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # looked and yielded before an idle ``block`` sleeps
    pause_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 1_000
    cpu: Cpu | None = None  # absent: any


class SupervisorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[supervisor]``: when a child counts as stalled, how it is restarted, when that is given up.

    A child that ends ``crash_loop_limit`` times within ``crash_loop_window_s`` is not started again before
    ``crash_loop_window_s`` have passed.
    """

    heartbeat_timeout_ms: Milliseconds = 5_000
    restart_delay_ms: Milliseconds = 250
    max_restart_delay_ms: Milliseconds = 10_000
    crash_loop_limit: Annotated[int, Meta(ge=1, le=1_000)] = 5
    crash_loop_window_s: Seconds = 60
    drain_timeout_ms: Milliseconds = 5_000  # at shutdown: time for the sequencer to empty the venue rings


class LogConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[log]``."""

    level: LogLevel = "info"


class ConnectionConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.connection]``: reconnecting and time-outs, the same for each connection of the venue.

    The delay before attempt n is random between 0 and
    ``min(max_reconnect_delay_ms, reconnect_delay_ms * 2**n)``; data for ``healthy_after_ms`` resets n.
    """

    reconnect_delay_ms: Milliseconds = 500
    max_reconnect_delay_ms: Milliseconds = 30_000
    max_reconnect_attempts: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # 0: for ever
    healthy_after_ms: Milliseconds = 30_000
    dns_timeout_ms: Milliseconds = 5_000
    connect_timeout_ms: Milliseconds = 5_000
    tls_timeout_ms: Milliseconds = 5_000
    handshake_timeout_ms: Milliseconds = 5_000
    subscribe_timeout_ms: Milliseconds = 10_000
    first_data_timeout_ms: Milliseconds = 30_000
    rest_timeout_ms: Milliseconds = 10_000
    metadata_timeout_ms: Milliseconds = 10_000  # no list of instruments by then: the one on disk, if there is one
    stale_after_ms: MillisecondsOrAdapters = 0  # no data for so long: reconnect
    ping_interval_ms: Milliseconds = 20_000
    pong_timeout_ms: Milliseconds = 10_000
    max_connection_life_s: SecondsOrAdapters = 0  # after ``load``, 0: the venue sets none


class BreakerConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.breaker]``: after ``failure_threshold`` failures in a row no attempt is made for ``open_ms``."""

    enabled: bool = True
    failure_threshold: Annotated[int, Meta(ge=1, le=1_000)] = 10
    open_ms: Milliseconds = 60_000
    half_open_attempts: Annotated[int, Meta(ge=1, le=100)] = 1


class QuarantineConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[venues.quarantine]``: the file of refused frames; the oldest give way above ``max_bytes``."""

    max_bytes: Annotated[int, Meta(ge=4_096, le=2**40)] = 16 * 1024 * 1024


class SubscriptionConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[venues.subscriptions]]``: one instrument of the venue, or all that a pattern matches.

    ``instrument`` is the venue's own name. An absent ``canonical_symbol`` is derived from the venue's
    metadata. ``match`` is a pattern (``*``, ``?``, ``[…]``) of the venue's name or of the canonical symbol, and
    means instruments that are trading, less those that a pattern of ``exclude`` matches. An instrument that stands
    under its name is no pattern's; what several patterns match is the first one's.
    """

    ALTERNATIVES: ClassVar[tuple[tuple[str, ...], ...]] = (("instrument", "match"),)

    instrument: Text | None = None
    match: Text | None = None
    exclude: tuple[Text, ...] = ()
    canonical_symbol: Text | None = None
    data_types: Annotated[tuple[Text, ...], Meta(min_length=1)]

    @property
    def wanted(self) -> tuple[DataType, ...]:
        """``data_types`` as the adapter port speaks of them."""
        return tuple(DataType[name.upper()] for name in self.data_types)


class VenueConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[[venues]]``: one venue, hence one worker.

    ``options`` are the keys of the adapter's own ``options`` Struct; after ``load`` all of them are there:
    ``msgspec.convert(venue.options, adapter_class.options)``.
    """

    id: Name
    adapter: Text
    enabled: bool = True
    websocket_url: WebSocketUrl = ""  # empty: the adapter's own; never empty after ``load``
    rest_url: RestUrl = ""  # likewise
    ca_file: Text | None = None  # PEM; trusted in place of the system's certificates
    ring_slots: Slots = 65_536
    cpu: Cpu | None = None  # absent: any
    idle: Idle = "block"
    options: dict[str, Any] = field(default_factory=dict)
    connection: ConnectionConfig = ConnectionConfig()
    breaker: BreakerConfig = BreakerConfig()
    quarantine: QuarantineConfig = QuarantineConfig()
    subscriptions: tuple[SubscriptionConfig, ...] = ()


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole file."""

    run: RunConfig = RunConfig()
    tape: TapeConfig = TapeConfig()
    sequencer: SequencerConfig = SequencerConfig()
    books: BooksConfig = BooksConfig()
    supervisor: SupervisorConfig = SupervisorConfig()
    log: LogConfig = LogConfig()
    venues: tuple[VenueConfig, ...] = ()

    @property
    def enabled_venues(self) -> tuple[VenueConfig, ...]:
        """The venues that get a worker."""
        return tuple(venue for venue in self.venues if venue.enabled)

    @property
    def venue_ids(self) -> dict[str, int]:
        """The ``venue_id`` of each enabled venue: its place in the file, from 1."""
        return {venue.id: number for number, venue in enumerate(self.venues, 1) if venue.enabled}

    @property
    def has_patterns(self) -> bool:
        """Whether only the venues' lists can tell which instruments the enabled venues subscribe to."""
        return any(entry.match is not None for venue in self.enabled_venues for entry in venue.subscriptions)

    @property
    def subscription_count(self) -> int:
        """Number of instruments that the enabled venues subscribe to; a pattern is taken for PATTERN_INSTRUMENTS."""
        entries = [entry for venue in self.enabled_venues for entry in venue.subscriptions]
        return sum(1 if entry.match is None else PATTERN_INSTRUMENTS for entry in entries)

    @property
    def instrument_rows(self) -> int:
        """Rows of the instrument table: ``run.max_instruments`` besides row 0, which is none; or if that is 0, room for
        what the subscriptions need at most, twice, for an instrument takes a second id if its venue changes the tick
        size beyond its exponents; where there are patterns, PATTERN_ROWS at least."""
        wanted = self.run.max_instruments or max(
            2 * self.subscription_count, PATTERN_ROWS if self.has_patterns else MIN_ROWS
        )
        return wanted + 1

    def listing(self, venue_id: str) -> Path:
        """The file that keeps the venue's list of instruments."""
        return self.run.state_path / f"metadata-{venue_id}.json"

    @property
    def checkpoint_bytes(self) -> int:
        """``books.checkpoint_bytes``, or if that is 0: 128 KiB (4,000 levels a side) per instrument, at least 8 MiB."""
        return self.books.checkpoint_bytes or max(8 * 2**20, 128 * 2**10 * self.subscription_count)


def load(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read, check and resolve the configuration file.

    ``overrides`` are texts ``key.path=value`` with a TOML value or bare text, applied before the check:
    ``run.name=test``, ``venues[0].connection.stale_after_ms=5000``.

    Raises ConfigError with all problems, also if the file cannot be read or is no TOML.
    """
    document = _parse(path)
    for override in overrides:
        _apply(document, override)
    reader = StrictReader()
    config = reader.read(Config, document, "")
    resolved = resolve(config, reader, path.parent)
    if reader.problems:
        raise ConfigError(str(path), reader.problems)
    return resolved


def to_json(config: Config) -> bytes:
    """The configuration as JSON, for ``config.json`` of the run folder."""
    return msgspec.json.format(msgspec.json.encode(config))


def from_json(data: bytes) -> Config:
    """What ``to_json`` wrote. Raises ConfigError if it is something else."""
    try:
        config = msgspec.json.decode(data, type=Config)
    except msgspec.DecodeError as error:
        raise ConfigError("config.json", [Problem("", str(error))]) from error
    venues = tuple(msgspec.structs.replace(venue, options=_frozen(venue.options)) for venue in config.venues)
    return msgspec.structs.replace(config, venues=venues)


def _frozen(value: Any) -> Any:
    """With tuples for lists, as adapters declare their options."""
    if isinstance(value, dict):
        return {key: _frozen(one) for key, one in value.items()}
    return tuple(_frozen(one) for one in value) if isinstance(value, list) else value


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), [Problem("", f"cannot be read: {error.strerror}")]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [Problem("", f"is not TOML: {error}")]) from error


_STEP: Final = re.compile(r"([A-Za-z0-9_-]+)((?:\[\d+\])?)")


def _apply(document: dict[str, Any], override: str) -> None:
    """Set one key of the parsed document; missing tables on the way are made."""
    key, equals, text = override.partition("=")
    steps = [_STEP.fullmatch(step) for step in key.strip().split(".")]
    if not equals or not all(steps):
        raise ConfigError("--set", [Problem(override, "wrong form", valid="key.path=value")])
    table: Any = document
    *parents, last = [step.groups() for step in steps if step is not None]
    for name, index in parents:
        table = table.setdefault(name, {})
        if index:
            table = _element(table, int(index[1:-1]), key)
        if not isinstance(table, dict):
            raise ConfigError("--set", [Problem(key, f"'{name}' is not a table")])
    name, index = last
    if index:
        raise ConfigError("--set", [Problem(key, "must end with a key, not with an element of an array")])
    table[name] = _value(text.strip())


def _element(array: Any, index: int, key: str) -> Any:
    if not isinstance(array, list) or index >= len(array):
        length = len(array) if isinstance(array, list) else 0
        raise ConfigError("--set", [Problem(key, f"there is no element {index}; the array has {length}")])
    return array[index]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
