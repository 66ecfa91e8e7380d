"""``report.html``: all figures, plots and the machine on one page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks import _plot
from benchmarks._harness import Result, best_peer, number, times_better
from benchmarks._options import BENCHMARKS

_STYLE: Final = """
body { font: 14px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 86rem; margin: 2rem auto; padding: 0 1rem }
h1 { margin-bottom: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccd4dc }
div.wide { overflow-x: auto }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
th, td { padding: .15rem .6rem; text-align: right; border-bottom: 1px solid #e8ecf0; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { font-weight: 600; color: #51606e }
tr.peer td { color: #7a8794 } .met { color: #0a7d38 } .missed { color: #b3261e; font-weight: 600 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem } dt { color: #51606e } dd { margin: 0 }
svg { max-width: 100%; height: auto; display: block; margin: 1rem 0 }
.wrong { color: #b3261e; font-weight: 600 }
"""
_NOTE: Final = """Every benchmark checks its answer. "× best peer": how many times better than the best of the other
libraries (grey rows), which were measured in the same run. "of limit": how much of what the machine can do at best was
reached. Latencies are medians unless they say otherwise."""
_COLUMNS: Final = ("measured", "value", "p90", "p99", "p99.9", "max", "× best peer", "limit", "of limit", "target")


class Report(NamedTuple):
    """What the page shows."""

    machine: Mapping[str, str]
    absent: Mapping[str, str]  # libraries that could not be measured, and why
    results: Mapping[str, Sequence[Result]]
    wrong: Sequence[str]  # what has given a wrong answer
    command: str


def write(folder: Path, report: Report) -> Path:
    """Write the page, and the plots as files of their own beside it; returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = []
    for benchmark, results in report.results.items():
        pictures = []
        for plot in _plot.plots(benchmark, results) if _plot.available() else ():
            (folder / f"{plot.name}.svg").write_bytes(plot.svg)
            (folder / f"{plot.name}.png").write_bytes(plot.png)
            pictures.append(_inline(plot.svg))
        heading = f"<h2 id='{benchmark}'>{benchmark}: {escape(BENCHMARKS[benchmark])}</h2>"
        sections.append("\n".join([heading, _table(results), *pictures]))
    page = folder / "report.html"
    page.write_text(_page(report, "\n".join(sections)))
    return page


def _page(report: Report, sections: str) -> str:
    machine = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in report.machine.items())
    problems = [f"<p class='wrong'>wrong answer: {escape(why)}</p>" for why in report.wrong]
    if report.absent:
        listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(why)}</dd>" for name, why in report.absent.items())
        problems.append(f"<h2>Not measured</h2><dl>{listed}</dl>")
    if not _plot.available():
        problems.append("<p>No plots: matplotlib is not installed.</p>")
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>mdring: benchmarks</title>"
        f"<style>{_STYLE}</style></head><body><h1>mdring: benchmarks</h1><p><code>{escape(report.command)}</code></p>"
        f"<dl>{machine}</dl><p>{escape(_NOTE)}</p>{''.join(problems)}{sections}</body></html>\n"
    )


def _table(results: Sequence[Result]) -> str:
    rows = [list(_cells(result, results)) for result in results]
    kept = [column for column in range(len(_COLUMNS)) if any(row[column] for row in rows)]
    head = "".join(f"<th>{escape(_COLUMNS[column])}</th>" for column in kept)
    body = "".join(
        f"<tr{' class=peer' if result.is_peer else ''}>"
        + "".join(f"<td>{row[column]}</td>" for column in kept)
        + "</tr>"
        for result, row in zip(results, rows, strict=True)
    )
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _cells(result: Result, results: Sequence[Result]) -> Iterator[str]:
    """HTML of the columns."""
    yield escape(result.name).replace("  ", "&emsp;")
    yield f"{number(result.value)} {escape(result.unit)}"
    for key in ("p90", "p99", "p99.9", "max"):
        yield number(result.quantiles[key]) if result.quantiles is not None else ""
    peer = best_peer(result, results)
    yield "" if peer is None else f"{number(times_better(result, peer))} ({escape(peer.series)})"
    yield "" if result.limit is None else f"{number(result.limit)} ({escape(result.limit_name)})"
    yield "" if result.of_limit is None else f"{result.of_limit:.0%}"
    if result.target is None:
        yield ""
    else:
        kind, sign = ("met", "✓") if result.met else ("missed", "✗")
        yield f"<span class={kind}>{sign} {'≥' if result.more_is_better else '≤'} {number(result.target)}</span>"


def _inline(svg: bytes) -> str:
    """The picture without the prologue of a file of its own."""
    text = svg.decode()
    return text[text.index("<svg") :]
