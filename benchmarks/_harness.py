"""What all benchmarks share: results, quantiles, progress, the machine's description, tables, JSON, pinning.

A benchmark makes its figures in parts, and each part checks its answer::

    def run(options: argparse.Namespace) -> Sequence[Result]:
        return measure("ring", [("publish", lambda: publish_one(count)), ("one way", lambda: one_way(count, cores))])
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from rich.progress import Progress
from rich.table import Table

from benchmarks.peers.environment import PeerFailed

FORK: Final = multiprocessing.get_context("fork")
console: Final = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
failures: Final[list[str]] = []
"""Peers that were there but could not be measured, in this run."""
wrong_answers: Final[list[str]] = []
"""Parts of benchmarks whose answer was wrong, in this run."""


class WrongAnswer(AssertionError):
    """A benchmark did not do what it claims to have measured."""


def require(condition: bool, what: str) -> None:
    """Fail the benchmark if its answer is wrong."""
    if not condition:
        raise WrongAnswer(what)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure. ``limit`` and ``target`` are in the same unit; ``more_is_better`` says which way.

    Figures with the same ``contest`` measure the same thing; those of other libraries are marked ``is_peer``.
    """

    name: str
    value: float
    unit: str
    more_is_better: bool = False
    limit: float | None = None
    limit_name: str = ""
    target: float | None = None
    quantiles: dict[str, float] | None = None
    curve: list[float] | None = None  # values at RANKS
    contest: str = ""
    is_peer: bool = False
    axis: str = ""  # the plot this figure is a point of: what is on its x-axis,
    series: str = ""  # its line,
    at: float | None = None  # its x

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


RANKS: Final = np.concatenate(([0.0], 1 - 10.0 ** (-np.arange(1, 51) / 10)))
"""Where ``Result.curve`` has its values: ten to each further nine."""


def quantiles(values: npt.NDArray[Any]) -> dict[str, float]:
    """p50, p90, p99, p99.9 and max."""
    p50, p90, p99, p999, top = np.quantile(values, [0.5, 0.9, 0.99, 0.999, 1.0]).tolist()
    return {"p50": p50, "p90": p90, "p99": p99, "p99.9": p999, "max": top}


def curve(values: npt.NDArray[Any]) -> list[float]:
    """The distribution for the plots: values at RANKS."""
    drawn: list[float] = np.quantile(values, RANKS).tolist()
    return drawn


def latency(name: str, values: npt.NDArray[Any], unit: str = "µs", **more: Any) -> Result:
    """The figure of a distribution: its median, with the other quantiles and its curve."""
    return Result(name=name, value=float(np.median(values)), unit=unit, quantiles=quantiles(values),
                  curve=curve(values), **more)  # fmt: skip


Part = tuple[str, Callable[[], "Result | Sequence[Result]"]]


def measure(title: str, parts: Sequence[Part]) -> list[Result]:
    """Make the figures part by part, with a progress bar; what fails is noted and left out, the rest goes on."""
    results: list[Result] = []
    affinity = os.sched_getaffinity(0)
    # Drawn between the parts only: a thread that moves the bar takes the GIL, and milliseconds, from what is measured.
    with Progress(console=console, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task(title, total=len(parts))
        for name, part in parts:
            progress.update(bar, description=f"{title}: {name}", refresh=True)
            try:
                made = part()
            except PeerFailed as error:
                failures.append(str(error))
                console.print(f"[yellow]not measured:[/] {error}")
                continue
            except WrongAnswer as error:
                wrong_answers.append(f"{title}, {name}: {error}")
                console.print(f"[red]wrong answer:[/] {title}, {name}: {error}")
                continue
            finally:
                os.sched_setaffinity(0, affinity)  # a part pins itself
                progress.advance(bar)
            results += [made] if isinstance(made, Result) else made
    return results


def best_peer(result: Result, results: Sequence[Result]) -> Result | None:
    """The best figure of another library in the same contest."""
    peers = [other for other in results if other.is_peer and other.contest == result.contest != ""]
    if result.is_peer or not peers:
        return None
    return max(peers, key=lambda other: other.value if result.more_is_better else -other.value)


def times_better(result: Result, other: Result) -> float:
    """How many times better a figure is than another one of its contest."""
    return result.value / other.value if result.more_is_better else other.value / result.value


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


def number(value: float) -> str:
    """Three digits that count, and no exponent."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def print_results(title: str, results: Sequence[Result]) -> None:
    """A table of figures with the best peer and the limits beside them."""
    columns = ("measured", "value", "p90", "p99", "p99.9", "max", "× best peer", "limit", "of limit", "target")
    rows = [_cells(result, results) for result in results]
    table = Table(title=title, title_justify="left")
    kept = [index for index in range(len(columns)) if any(row[index] for row in rows)]
    for index in kept:
        table.add_column(columns[index], justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[index] for index in kept))
    console.print(table)


def _cells(result: Result, results: Sequence[Result]) -> list[str]:
    """The columns of ``print_results``."""
    tail = result.quantiles or {}
    met = {None: "", True: "[green]✓[/] ", False: "[red]✗[/] "}[result.met]
    peer_figure = best_peer(result, results)
    return [
        f"[dim]{result.name}[/]" if result.is_peer else result.name,
        f"{number(result.value)} {result.unit}",
        *(number(tail[key]) if key in tail else "" for key in ("p90", "p99", "p99.9", "max")),
        "" if peer_figure is None else f"{number(times_better(result, peer_figure))} ({peer_figure.series})",
        "" if result.limit is None else f"{number(result.limit)} ({result.limit_name})",
        "" if result.of_limit is None else f"{result.of_limit:.0%}",
        "" if result.target is None else f"{met}{'≥' if result.more_is_better else '≤'} {number(result.target)}",
    ]


def write_json(path: Path, described: dict[str, str], results: Mapping[str, Sequence[Result]]) -> None:
    """All figures for programs."""
    document = {"machine": described, "results": {name: msgspec.to_builtins(list(of)) for name, of in results.items()}}
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
