"""What a configuration must satisfy beyond the type of each value, and what the adapters fill in.

``config.load`` calls ``resolve`` once all values are read. Each rule is one function that reports to the
``StrictReader``, so one run finds every problem. Adapters are loaded here, and only here: their ``options``,
``data_types``, ``endpoints`` and ``limits`` decide what is valid and what an absent key means.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import structs

from mdring.config_strict import StrictReader
from mdring.feed.adapter import Adapter, adapter_names, load_adapter
from mdring.record import DataType

if TYPE_CHECKING:
    from mdring.config import Config, SubscriptionConfig, VenueConfig

_SNAPSHOT_LEVELS: Final = 5_000  # per side; the deepest book image of the venues served

MIN_SLOTS: Final = 1 << (2 * (2 * _SNAPSHOT_LEVELS + 2) - 1).bit_length()
"""A ring publishes at most half its slots at once, and an image (CLEAR, STATUS, levels) goes at once."""

MAX_SLOTS: Final = 2**26
"""8 GiB."""

MIN_CHECKPOINT_BYTES: Final = 2**20
"""Room for a few deep books."""

_MAX_VENUES: Final = 255
"""``venue_id`` is one byte, and 0 means none."""


_MAX_NAME_BYTES: Final = 64
"""The room for an instrument's name, and for a canonical symbol, in a row of the instrument table."""


def resolve(config: Config, reader: StrictReader, folder: Path) -> Config:
    """Report every broken rule to ``reader``; return the configuration with nothing left to be derived.

    ``folder`` is where the file lies: relative paths in it start there. If there are problems, the result
    is of no use.
    """
    _check_slots(reader, "tape.slots", config.tape.slots)
    _check_cpu(reader, "sequencer.cpu", config.sequencer.cpu)
    _check_cpu(reader, "books.cpu", config.books.cpu)
    _check_checkpoint_bytes(reader, config.books.checkpoint_bytes)
    _check_order(reader, "supervisor", config.supervisor, "restart_delay_ms", "max_restart_delay_ms")
    _check_venues(reader, config)
    return structs.replace(
        config,
        run=structs.replace(
            config.run,
            directory=_absolute(config.run.directory, folder),
            state_directory=_absolute(config.run.state_directory, folder),
        ),
        venues=tuple(_resolve_venue(reader, config, venue, folder) for venue in config.venues),
    )


def _check_venues(reader: StrictReader, config: Config) -> None:
    if not config.venues:
        reader.report("venues", "there is no venue", valid="at least one table [[venues]]")
    elif not config.enabled_venues:
        reader.report("venues", "no venue is enabled", valid="at least one with enabled = true")
    if len(config.venues) > _MAX_VENUES:
        reader.report("venues", f"there are {len(config.venues)} venues", valid=f"at most {_MAX_VENUES}")
    _check_unique(reader, config.venues, "id")


def _resolve_venue(reader: StrictReader, config: Config, venue: VenueConfig, folder: Path) -> VenueConfig:
    key = reader.key_of(venue)
    _check_slots(reader, f"{key}.ring_slots", venue.ring_slots)
    if venue.ring_slots > config.tape.slots and not reader.is_reported("tape.slots"):
        reader.report(
            f"{key}.ring_slots",
            "is larger than tape.slots; an event group must fit on the tape too",
            found=venue.ring_slots,
            valid=f"at most {config.tape.slots}",
        )
    _check_cpu(reader, f"{key}.cpu", venue.cpu)
    _check_order(reader, f"{key}.connection", venue.connection, "reconnect_delay_ms", "max_reconnect_delay_ms")
    if not venue.subscriptions:
        reader.report(f"{key}.subscriptions", "the venue has no subscription", valid="[[venues.subscriptions]]")
    _check_unique(reader, venue.subscriptions, "instrument")
    _check_unique(reader, venue.subscriptions, "canonical_symbol")
    for subscription in venue.subscriptions:
        _check_length(reader, subscription, "instrument")
        _check_length(reader, subscription, "canonical_symbol")
        _check_pattern(reader, subscription)
    if venue.ca_file is not None:
        venue = structs.replace(venue, ca_file=_check_file(reader, f"{key}.ca_file", venue.ca_file, folder))
    adapter = _load_adapter(reader, key, venue)
    return venue if adapter is None else _resolve_adapter(reader, key, venue, adapter)


def _load_adapter(reader: StrictReader, key: str, venue: VenueConfig) -> type[Adapter] | None:
    try:
        return load_adapter(venue.adapter)
    except KeyError:
        reader.report(
            f"{key}.adapter",
            "there is no such adapter",
            found=venue.adapter,
            valid=f"an installed one: {', '.join(adapter_names())}",
        )
    except (ImportError, AttributeError) as error:
        reader.report(f"{key}.adapter", f"the adapter cannot be loaded: {error}", found=venue.adapter)
    return None


def _resolve_adapter(reader: StrictReader, key: str, venue: VenueConfig, adapter: type[Adapter]) -> VenueConfig:
    for subscription in venue.subscriptions:
        _check_data_types(reader, subscription, adapter)
    options = reader.read(adapter.options, venue.options, f"{key}.options")
    connection = venue.connection
    return structs.replace(
        venue,
        websocket_url=venue.websocket_url or adapter.endpoints.websocket_url,
        rest_url=venue.rest_url or adapter.endpoints.rest_url,
        options=msgspec.to_builtins(options, str_keys=True),
        connection=structs.replace(
            connection,
            stale_after_ms=connection.stale_after_ms or round(adapter.limits.stale_after_s * 1000),
            max_connection_life_s=connection.max_connection_life_s or round(adapter.limits.max_connection_life_s),
        ),
    )


def _check_data_types(reader: StrictReader, subscription: SubscriptionConfig, adapter: type[Adapter]) -> None:
    key = f"{reader.key_of(subscription)}.data_types"
    # Every data type of the record format is a word of the configuration except STATUS, which is not
    # subscribed to: it comes with the others.
    names = [data_type.name.lower() for data_type in adapter.data_types if data_type is not DataType.STATUS]
    for index, name in enumerate(subscription.data_types):
        if name not in names:
            reader.report(
                f"{key}[{index}]",
                f"adapter '{adapter.venue}' has no such data type",
                found=name,
                valid=", ".join(names),
            )
        elif name in subscription.data_types[:index]:
            reader.report(f"{key}[{index}]", "stands there twice", found=name)


def _check_slots(reader: StrictReader, key: str, slots: int) -> None:
    if not MIN_SLOTS <= slots <= MAX_SLOTS or slots & (slots - 1):
        reader.report(
            key,
            "wrong value",
            found=slots,
            valid=f"a power of two from {MIN_SLOTS} (half of it holds an image of "
            f"{_SNAPSHOT_LEVELS} levels a side) to {MAX_SLOTS}",
        )


def _check_cpu(reader: StrictReader, key: str, cpu: int | None) -> None:
    here = sorted(os.sched_getaffinity(0))
    if cpu is not None and cpu not in here:
        reader.report(key, "this process may not run on that CPU", found=cpu, valid=", ".join(map(str, here)))


def _check_checkpoint_bytes(reader: StrictReader, size_bytes: int) -> None:
    if 0 < size_bytes < MIN_CHECKPOINT_BYTES:
        reader.report(
            "books.checkpoint_bytes",
            "wrong value",
            found=size_bytes,
            valid=f"at least {MIN_CHECKPOINT_BYTES}, or 0: as much as the subscriptions need",
        )


def _check_order(reader: StrictReader, key: str, table: Any, low: str, high: str) -> None:
    if getattr(table, low) > getattr(table, high):
        reader.report(
            f"{key}.{low}",
            f"is larger than {high}",
            found=getattr(table, low),
            valid=f"at most {getattr(table, high)}",
        )


def _check_unique(
    reader: StrictReader, tables: Iterable[VenueConfig] | Iterable[SubscriptionConfig], name: str
) -> None:
    first: dict[str, str] = {}
    for table in tables:
        value, key = getattr(table, name), reader.key_of(table)
        if value is None:
            continue
        if value in first:
            reader.report(f"{key}.{name}", f"stands already at {first[value]}", found=value)
        else:
            first[value] = f"{key}.{name}"


def _check_length(reader: StrictReader, subscription: SubscriptionConfig, name: str) -> None:
    value = getattr(subscription, name)
    if value is not None and len(value.encode()) > _MAX_NAME_BYTES:
        reader.report(
            f"{reader.key_of(subscription)}.{name}",
            "is too long",
            found=value,
            valid=f"at most {_MAX_NAME_BYTES} bytes",
        )


def _check_pattern(reader: StrictReader, subscription: SubscriptionConfig) -> None:
    """Each key beside the one of ``instrument`` and ``match`` that it belongs to."""
    key = reader.key_of(subscription)
    if subscription.match is None and subscription.exclude:
        reader.report(f"{key}.exclude", "is for patterns", found=subscription.exclude, valid="beside 'match' only")
    if subscription.match is not None and subscription.canonical_symbol is not None:
        reader.report(
            f"{key}.canonical_symbol",
            "cannot be that of all instruments of a pattern",
            found=subscription.canonical_symbol,
            valid="beside 'instrument' only",
        )


def _check_file(reader: StrictReader, key: str, name: str, folder: Path) -> str:
    path = _absolute(name, folder)
    if not Path(path).is_file():
        reader.report(key, "there is no such file", found=path)
    return path


def _absolute(name: str, folder: Path) -> str:
    return str((folder / Path(name).expanduser()).absolute())
