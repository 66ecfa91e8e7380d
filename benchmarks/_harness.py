"""What all benchmarks share: the machine's description, quantiles, tables, JSON, pinning, peer processes."""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import orjson
from rich.console import Console
from rich.table import Table

FORK: Final = multiprocessing.get_context("fork")
console: Final = Console(highlight=False)


class WrongAnswer(AssertionError):
    """A benchmark did not do what it claims to have measured."""


def require(condition: bool, what: str) -> None:
    """Fail the benchmark if its answer is wrong."""
    if not condition:
        raise WrongAnswer(what)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure. ``limit`` and ``target`` are in the same unit; ``more_is_better`` says which way."""

    name: str
    value: float
    unit: str
    more_is_better: bool = False
    limit: float | None = None
    limit_name: str = ""
    target: float | None = None
    quantiles: dict[str, float] | None = None

    @property
    def of_limit(self) -> float | None:
        """Fraction of what the machine can do at best."""
        if self.limit is None or not self.value or not self.limit:
            return None
        return self.value / self.limit if self.more_is_better else self.limit / self.value

    @property
    def met(self) -> bool | None:
        """Whether the target is reached, if there is one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.more_is_better else self.value <= self.target


def quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    """p50, p90, p99, p99.9 and max."""
    p50, p90, p99, p999, top = np.quantile(values, [0.5, 0.9, 0.99, 0.999, 1.0]).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "p99.9": p999, "max": top}


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpuinfo = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in cpuinfo.items()}

    def kernel_file(path: str) -> str:
        file = Path(path)
        return file.read_text().strip() if file.exists() else "unknown"

    return {
        "cpu": fields.get("model name", platform.machine()),
        "cores": str(len(os.sched_getaffinity(0))),
        "virtualised": "yes" if "hypervisor" in fields.get("flags", "") else "no",
        "kernel": platform.release(),
        "governor": kernel_file("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clock source": kernel_file("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "mdring": metadata.version("mdring"),
    }


def cores_for(count: int) -> list[int | None]:
    """A core for each of ``count`` processes, or None where there are too few: then the scheduler decides."""
    available = sorted(os.sched_getaffinity(0))
    if len(available) < count:
        console.print(f"[yellow]only {len(available)} cores for {count} processes: not pinned, expect noise[/]")
        return [None] * count
    return list(available[:count])


def pin(core: int | None) -> None:
    """Run this process on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


@contextmanager
def peer(target: Callable[..., None], *arguments: object) -> Iterator[ForkProcess]:
    """Run ``target`` in a second process for the length of the block; its failure is the benchmark's."""
    process = FORK.Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield process
        process.join(60)
        require(process.exitcode == 0, f"{target.__name__} ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def print_machine(described: dict[str, str]) -> None:
    """The header above the figures."""
    console.print("  ".join(f"[dim]{key}[/] {value}" for key, value in described.items()))


def print_results(title: str, results: Sequence[Result]) -> None:
    """A table of figures with the limits beside them."""
    table = Table(title=title, title_justify="left")
    for column in ("measured", "value", "p90", "p99", "p99.9", "max", "limit", "of limit", "target"):
        table.add_column(column, justify="left" if column == "measured" else "right")
    for result in results:
        tail = result.quantiles or {}
        met = {None: "", True: "[green]✓[/] ", False: "[red]✗[/] "}[result.met]
        table.add_row(
            result.name,
            f"{result.value:,.3g} {result.unit}",
            *(f"{tail[key]:,.3g}" if key in tail else "" for key in ("p90", "p99", "p99.9", "max")),
            "" if result.limit is None else f"{result.limit:,.3g} ({result.limit_name})",
            "" if result.of_limit is None else f"{result.of_limit:.0%}",
            "" if result.target is None else f"{met}{'≥' if result.more_is_better else '≤'} {result.target:g}",
        )
    console.print(table)


def write_json(path: Path, described: dict[str, str], results: dict[str, Sequence[Result]]) -> None:
    """All figures for programs."""
    document = {"machine": described, "results": {name: msgspec.to_builtins(list(of)) for name, of in results.items()}}
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
