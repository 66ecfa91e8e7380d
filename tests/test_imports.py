"""Which module may import which: the architecture, as a table (DESIGN, section 8).

``ring`` knows no market data, adapters know no I/O, ``feed`` and ``consumer`` do not know each other; so each can be
understood, tested and replaced alone. Imports in functions count, too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from mdring.feed.adapter import adapter_names

ROOT: Final = Path(__file__).parents[1]

FOUNDATION = ("record", "instrument", "counters", "ring", "run_folder", "process", "log", "config")
PORT = (
    "feed.adapter", "feed.emit", "feed.stage", "feed.fixed", "feed.book_sync", "feed.snapshot_book", "feed.socket_book",
    "feed.local_book", "feed.id_sequence", "feed.trade_id", "feed.trade_sequence", "feed.rising_ids", "feed.chain",
    "feed.direct", "feed.book_routes", "feed.message_route", "feed.instrument_rows", "feed.number_text",
    "feed.portions", "record", "symbol",
)  # fmt: skip
CONSUMING = (
    "consumer", "named_consumer", "delivery", "selection", "cursor_watch", "callbacks", "event", "strategy",
    "consolidated", "last_value", "book", "journal",
)  # fmt: skip

MAY_IMPORT: Final[dict[str, tuple[str, ...]]] = {
    "record": (),
    "symbol": (),
    "process": (),
    "log": (),
    "ring": ("ring",),
    "run_folder": ("ring",),
    "instrument": ("record", "ring"),
    "counters": ("record", "ring"),
    "config": ("config", "config_check", "config_strict", "record", "run_folder", "feed.adapter"),
    "config_check": ("config", "config_strict", "record", "feed.adapter"),
    "config_strict": (),
    "feed": ("feed", *FOUNDATION),
    "feed.adapter": ("feed.emit", "feed.direct", "feed.stage", "record"),
    "feed.instrument_rows": ("feed.adapter", "symbol"),
    "feed.emit": ("feed.fixed", "feed.levels", "feed.stage", "record"),
    "feed.stage": ("record", "ring"),
    "feed.levels": ("feed.fixed",),
    "feed.template": ("feed.emit", "feed.fixed", "feed.levels", "feed.stage", "record"),
    "feed.direct": ("feed.chain", "feed.emit", "feed.stage", "feed.template", "record", "ring"),
    "feed.book_routes": ("feed.chain", "feed.direct", "feed.emit", "feed.local_book", "feed.stage", "feed.template"),
    "feed.fixed": ("feed.adapter", "record"),
    "adapters": ("adapters", *PORT),
    "adapters.emulators": ("adapters.emulators", "emulator", "record", "symbol"),
    "emulator": ("emulator", "record", "process", "symbol"),
    "sequencer": FOUNDATION,
    "book": ("book", "record", "ring", "instrument", "run_folder"),
    "book.keeper": (*FOUNDATION, "book"),
    **dict.fromkeys(CONSUMING[:-2], (*CONSUMING, "record", "instrument", "counters", "ring", "run_folder")),
    "strategy": (*CONSUMING, "record", "ring", "run_folder", "process"),
    "journal": ("record", "instrument", "ring", "run_folder", "consumer"),
    "relay": ("record", "instrument", "ring", "run_folder", "counters", "consumer", "config", "log", "process"),
    "c_header": ("record", "instrument", "ring", "run_folder"),
    "capture": (),
    "decode": (*PORT, "feed", "config", "capture"),
    "supervisor": (*FOUNDATION, "feed", "book.table", "supervisor", "emulator.venue", "emulator.instruments"),
    "cli": (
        *FOUNDATION, *CONSUMING, "__init__", "cli", "feed.adapter", "feed.subscriptions", "feed.listing",
        "feed.lookup", "symbol", "capture", "decode", "relay", "supervisor", "config_strict", "c_header",
    ),
    "__main__": ("cli",),
    "__init__": ("record", "instrument", "ring", "run_folder", *CONSUMING),
}  # fmt: skip
"""By module or package; the longest prefix counts. ``__init__`` the API."""

IO_AND_CLOCKS = {
    "aiohttp", "asyncio", "http", "multiprocessing", "os", "pathlib", "picows", "random", "select", "selectors",
    "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "urllib.request",
}  # fmt: skip


def sources() -> dict[str, Path]:
    """All modules of the package, by their name below ``mdring``."""
    found = {}
    for root, prefix in ((ROOT / "mdring", ""), (ROOT / "adapters", "adapters.")):
        for path in sorted(root.rglob("*.py")) + sorted(root.rglob("*.pyx")) + sorted(root.rglob("*.pxd")):
            name = prefix + ".".join(path.relative_to(root).with_suffix("").parts)
            package = name.removesuffix(".__init__").removesuffix("__init__") or "__init__"
            found[package.removesuffix(".") + (":pxd" if path.suffix == ".pxd" else "")] = path
    return found


SOURCES: Final = sources()
MODULES: Final = {name.removesuffix(":pxd") for name in SOURCES}


def python_imports(path: Path) -> Iterator[str]:
    """Fully qualified names that a Python file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def cython_imports(path: Path) -> Iterator[str]:
    """Fully qualified names that a Cython file imports or cimports."""
    code = re.sub(r'""".*?"""', "", path.read_text(), flags=re.DOTALL)
    for module, names in re.findall(r"^\s*from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^\n]*)", code, re.MULTILINE):
        yield from (f"{module}.{name}" for name in re.findall(r"\w+", re.sub(r"\bas\s+\w+", "", names)))
    yield from re.findall(r"^\s*c?import\s+([\w.]+)", code, re.MULTILINE)


@cache
def imports_of(name: str) -> frozenset[str]:
    """All that a module imports, fully qualified."""
    path = SOURCES[name]
    return frozenset(python_imports(path) if path.suffix == ".py" else cython_imports(path))


@cache
def own_imports_of(name: str) -> frozenset[str]:
    """The modules of mdring that a module imports, by their name below ``mdring``."""
    found = set()
    for imported in imports_of(name):
        if imported == "mdring" or imported.startswith("mdring."):
            parts = imported.split(".")[1:]
            while parts and ".".join(parts) not in MODULES:
                parts.pop()  # a name within a module
            found.add(".".join(parts) or "__init__")
    return frozenset(found - {name.removesuffix(":pxd")})


def covers(prefix: str, module: str) -> bool:
    return module == prefix or module.startswith(prefix if prefix.endswith("_") else prefix + ".")


def allowed_for(module: str) -> tuple[str, ...]:
    rows = [prefix for prefix in MAY_IMPORT if covers(prefix, module)]
    assert rows, f"{module} stands in no row of MAY_IMPORT: say where in the architecture it belongs"
    return MAY_IMPORT[max(rows, key=len)]


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_imports_only_what_its_row_allows(name: str) -> None:
    allowed = allowed_for(name.removesuffix(":pxd"))
    forbidden = {module for module in own_imports_of(name) if not any(covers(prefix, module) for prefix in allowed)}
    assert not forbidden, f"{name} must not import {sorted(forbidden)}; its row allows {sorted(allowed)}"


def reachable_from(module: str) -> set[str]:
    """All modules of mdring that come with one, not counting what the package's own ``__init__`` offers."""
    reached, pending = set[str](), [module]
    while pending:
        name = pending.pop()
        for source in (name, f"{name}:pxd"):
            if source in SOURCES:
                new = own_imports_of(source) - reached - {"__init__"}
                reached |= new
                pending += new
    return reached


@pytest.mark.parametrize(
    ("begin", "never"),
    [
        ("feed.worker", ("consumer", "sequencer", "book", "emulator", "supervisor", "cli")),
        ("consumer", ("feed", "sequencer", "emulator", "supervisor", "cli", "config")),
        ("sequencer", ("consumer", "feed.worker", "emulator", "supervisor", "cli")),
        ("emulator.server", ("feed", "consumer", "ring", "adapters")),
        ("ring.segment", ("record", "instrument", "feed", "consumer")),
    ],
)
def test_no_detour_leads_around_the_table(begin: str, never: tuple[str, ...]) -> None:
    reached = {module for module in reachable_from(begin) if any(covers(prefix, module) for prefix in never)}
    assert not reached, f"{begin} comes with {sorted(reached)}"


ADAPTERS: Final = [name for name in SOURCES if re.fullmatch(r"adapters\.(?!emulators)\w+", name)]
VENUES: Final = [name for name in SOURCES if re.fullmatch(r"adapters\.(emulators\.)?\w+", name)]


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_has_no_socket_no_clock_and_no_event_loop(name: str) -> None:
    found = {module for module in imports_of(name) if any(covers(io, module) for io in IO_AND_CLOCKS)}
    assert not found, f"{name} is sans-I/O: bytes and a time in, records and requests out"


def venue_of(file: str) -> str:
    """The venue whose file it is: of those whose name it begins with the longest, for binance is not binance_usdm."""
    known = [venue for venue in adapter_names() if covers(venue + "_", file + "_")]
    return max(known, key=len, default=file.partition("_")[0])


@pytest.mark.parametrize("name", VENUES)
def test_no_venue_imports_another_one(name: str) -> None:
    package, _, file = name.rpartition(".")
    for imported in own_imports_of(name):
        if imported.startswith("adapters."):
            other_package, _, other = imported.rpartition(".")
            assert other_package == package
            assert venue_of(other) == venue_of(file), f"{name} imports {imported}"
