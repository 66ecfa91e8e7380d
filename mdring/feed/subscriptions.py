"""What is subscribed to: what the configuration wishes, resolved by the venue's list of instruments.

Pure; used by the worker, by ``capture.py``, and by whoever lists instruments. The configuration names instruments, or
gives patterns; only the venue's list tells which instruments those are, and what is offered of each::

    wishes = wishes_of(venue)                               # Subscription | Pattern
    infos = ...                                             # by ``learners(make, wishes)``
    resolved = resolve(wishes, infos, OkxAdapter)
    adapter = make(resolved.subscriptions)                  # another one, which then gets its channels

The rules: an instrument that is named goes by that wish alone. Of the others, the first pattern that matches counts.
Patterns mean instruments that are trading, and of these what is offered; a named one is told of what it cannot have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec
from msgspec import Struct

from mdring.config import VenueConfig
from mdring.feed.adapter import Adapter, Endpoints, InstrumentInfo, Subscription, load_adapter
from mdring.record import DataType

AdapterMaker = Callable[[Sequence[Subscription]], Adapter]


class Pattern(Struct, frozen=True):
    """Wanted of all instruments that ``match`` matches, and no pattern of ``exclude``."""

    match: str
    data_types: tuple[DataType, ...]
    exclude: tuple[str, ...] = ()

    def matches(self, info: InstrumentInfo) -> bool:
        """Whether the venue's name or the canonical symbol matches. Letters count as they are written."""
        return names_match(self.match, info) and not any(names_match(pattern, info) for pattern in self.exclude)


Wish = Subscription | Pattern


class Resolved(Struct, frozen=True):
    """What of the wishes can be had, and what cannot."""

    subscriptions: tuple[Subscription, ...]  # in the order of the wishes, those of a pattern in that of the list
    infos: tuple[InstrumentInfo, ...]  # of these instruments and of those in ``not_offered``; the wish's symbol in them
    unknown: tuple[str, ...]  # named, and not in the venue's list, or not trading
    not_offered: tuple[tuple[str, DataType], ...]  # of named instruments
    unmatched: tuple[str, ...]  # patterns that match no instrument of which a wanted data type is offered


def names_match(pattern: str, info: InstrumentInfo) -> bool:
    """Whether the shell-style pattern matches one of the instrument's two names."""
    return fnmatchcase(info.canonical_symbol, pattern) or fnmatchcase(info.instrument, pattern)


def wishes_of(venue: VenueConfig) -> list[Wish]:
    """The subscriptions of the configuration."""
    return [
        Pattern(entry.match, entry.wanted, entry.exclude)
        if entry.match is not None
        else Subscription(entry.instrument or "", entry.wanted, entry.canonical_symbol)
        for entry in venue.subscriptions
    ]


def named(wishes: Sequence[Wish]) -> list[Subscription]:
    """Those that name their instrument: all that an adapter is told before the list is known."""
    return [wish for wish in wishes if isinstance(wish, Subscription)]


def learners(make: AdapterMaker, wishes: Sequence[Wish]) -> list[Adapter]:
    """The adapters that learn which instruments there are. Some ask for no more than holds what they are told of, some
    list certain instruments only if they are told; so where patterns stand beside names, two learn."""
    told = named(wishes)
    has_patterns = len(told) < len(wishes)
    return [make(told), make(())] if told and has_patterns else [make(told)]


def adapter_maker(venue: VenueConfig) -> AdapterMaker:
    """Makes the venue's adapter as its configuration wants it. Raises KeyError, msgspec.ValidationError."""
    adapter_class = load_adapter(venue.adapter)
    endpoints = Endpoints(venue.websocket_url, venue.rest_url)
    options = msgspec.convert(venue.options, adapter_class.options)
    return lambda subscriptions: adapter_class(endpoints, options, subscriptions)


def resolve(
    wishes: Sequence[Wish],
    infos: Mapping[str, InstrumentInfo],
    adapter: type[Adapter],
    *,
    named_must_trade: bool = True,
) -> Resolved:
    """Find out what of the wishes can be had. ``infos`` is the venue's list by the venue's names."""
    taken = {wish.instrument for wish in named(wishes)}
    subscriptions: list[Subscription] = []
    found: list[InstrumentInfo] = []
    unknown: list[str] = []
    unmatched: list[str] = []
    not_offered: list[tuple[str, DataType]] = []
    for wish in wishes:
        if isinstance(wish, Pattern):
            matched = [
                Subscription(info.instrument, offered)
                for info in infos.values()
                if info.trading and wish.matches(info) and (offered := _offered(wish, info, adapter))
            ]
            new = [entry for entry in matched if entry.instrument not in taken]
            taken.update(entry.instrument for entry in new)
            subscriptions += new
            found += [infos[entry.instrument] for entry in new]
            if not matched:
                unmatched.append(wish.match)
            continue
        info = infos.get(wish.instrument)
        if info is None or (named_must_trade and not info.trading):
            unknown.append(wish.instrument)
            continue
        offered = _offered(wish, info, adapter)
        found.append(info.with_symbol(wish.canonical_symbol))
        not_offered += [(wish.instrument, one) for one in wish.data_types if one not in offered]
        if offered:
            subscriptions.append(msgspec.structs.replace(wish, data_types=offered))
    return Resolved(tuple(subscriptions), tuple(found), tuple(unknown), tuple(not_offered), tuple(unmatched))


def _offered(wish: Wish, info: InstrumentInfo, adapter: type[Adapter]) -> tuple[DataType, ...]:
    """Of the wanted data types those that can be had."""
    offers = info.offers(adapter)
    return tuple(data_type for data_type in wish.data_types if data_type in offers)
