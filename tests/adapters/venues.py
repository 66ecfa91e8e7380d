"""The venues that the conformance suite runs over: each that has both an adapter and an emulator among the entry
points. Nothing else has to be written for a venue to join."""

from __future__ import annotations

import importlib.util
from importlib.metadata import entry_points
from types import ModuleType
from typing import Final

from mdring.emulator import venue as emulators
from mdring.feed import adapter as adapters


def _modules(group: str) -> dict[str, str]:
    return {point.name: point.module for point in entry_points(group=group)}


ADAPTERS: Final = _modules(adapters.ENTRY_POINT_GROUP)
EMULATORS: Final = _modules(emulators.ENTRY_POINT_GROUP)


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


VENUES: Final = sorted(
    name for name in ADAPTERS.keys() & EMULATORS.keys() if _is_there(ADAPTERS[name]) and _is_there(EMULATORS[name])
)


def adapter_modules(venue: str) -> list[ModuleType]:
    """The modules of an adapter: its file, and those beside it that begin with its name."""
    main = importlib.import_module(ADAPTERS[venue])
    found = {main.__name__: main}
    for value in vars(main).values():
        name = getattr(value, "__module__", None) or ""
        if name.startswith(f"{main.__name__}_"):
            found[name] = importlib.import_module(name)
    return list(found.values())
