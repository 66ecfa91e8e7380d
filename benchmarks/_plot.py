"""The plots: latency distributions on log axes, and figures over a batch size, a number, or a load.

matplotlib makes them (optional); ``_report.py`` puts them on its page::

    for plot in plots("ring", results): (folder / f"{plot.name}.svg").write_bytes(plot.svg)
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from benchmarks._harness import RANKS, Result

_NINES: Final = {
    0.0: "0",
    0.5: "50 %",
    0.9: "90 %",
    0.99: "99 %",
    0.999: "99.9 %",
    0.9999: "99.99 %",
    0.99999: "99.999 %",
}


class Plot(NamedTuple):
    """One picture in two formats."""

    name: str
    title: str
    svg: bytes
    png: bytes


def available() -> bool:
    """Whether matplotlib can be imported."""
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        return False
    return True


def plots(benchmark: str, results: Sequence[Result]) -> Iterator[Plot]:
    """All pictures of one benchmark's figures."""
    curves = [result for result in results if result.curve is not None]
    if curves:
        yield _drawn(f"{benchmark}-latency", f"{benchmark}: distribution of the latencies", _draw_curves, curves)
    for axis in dict.fromkeys(result.axis for result in results if result.axis):
        points = [result for result in results if result.axis == axis]
        name = f"{benchmark}-over-{re.sub('[^a-z]+', '-', axis.lower())}"
        yield _drawn(name, f"{benchmark}: over {axis}", _draw_points, points)


def _drawn(name: str, title: str, draw: Any, results: Sequence[Result]) -> Plot:
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9})
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(9, 4.6), layout="constrained")
    axes.set_title(title)
    axes.grid(visible=True, which="major", alpha=0.4)
    axes.grid(visible=True, which="minor", alpha=0.12)
    draw(axes, results)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    svg, png = io.BytesIO(), io.BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None})
    figure.savefig(png, format="png", dpi=110)
    pyplot.close(figure)
    return Plot(name, title, svg.getvalue(), png.getvalue())


def _draw_curves(axes: Any, results: Sequence[Result]) -> None:
    """HDR style: each further nine is one step to the right."""
    nines = 1 / (1 - RANKS)
    for result in results:
        axes.plot(nines, result.curve, label=result.name.strip(), linestyle="--" if result.is_peer else "-")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1 / (1 - rank) for rank in _NINES], list(_NINES.values()))
    axes.minorticks_on()
    axes.tick_params(axis="x", which="minor", bottom=False)
    axes.set_xlabel("share of the measurements that took at most so long")
    axes.set_ylabel(results[0].unit)


def _draw_points(axes: Any, results: Sequence[Result]) -> None:
    """A line per series; of distributions p50 and, dotted, p99."""
    for series in dict.fromkeys(result.series for result in results):
        line = sorted((result for result in results if result.series == series), key=lambda result: result.at or 0.0)
        at = [result.at for result in line]
        style = "--" if line[0].is_peer else "-"
        tails = [result.quantiles["p99"] for result in line if result.quantiles is not None]
        drawn = axes.plot(at, [result.value for result in line], marker="o", linestyle=style,
                          label=f"{series}, p50" if tails else series)  # fmt: skip
        if tails:
            axes.plot(at, tails, marker=".", linestyle=":", color=drawn[0].get_color(), label=f"{series}, p99")
    axes.set_xscale("log")
    axes.set_yscale("log")
    ticks = sorted({result.at for result in results if result.at is not None})
    axes.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(results[0].axis)
    axes.set_ylabel(results[0].unit)
