"""The tables of ``mdring stat``, made from two looks at a run."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mdring.cli.run_sample import ProcessSample, RunSample, rates, recent_quantiles, seconds_between
from mdring.counters import Counter, Histogram, Quantiles
from mdring.log import printable
from mdring.record import State

_STATE_STYLES = {
    State.CONNECTED: "green",
    State.RECONNECTING: "yellow",
    State.DISCONNECTED: "red",
    State.CIRCUIT_OPEN: "bold red",
}
_TROUBLE = {
    Counter.RECONNECTS: "reconnects",
    Counter.GAPS: "gaps",
    Counter.RESYNCS: "resyncs",
    Counter.REJECTS: "rejects",
    Counter.DROPS: "drops",
    Counter.UNKNOWN_MESSAGES: "unknown",
    Counter.FETCH_ERRORS: "fetch errors",
    Counter.SUBSCRIPTIONS_REJECTED: "refused subscr.",
}
_BREAKER = {0: "", 1: "half-open", 2: "open"}


def render(before: RunSample, now: RunSample) -> RenderableType:
    """Header, flow and trouble by venue, processes, and the last errors if there are any."""
    parts: list[RenderableType] = [
        _header(before, now),
        _flow(before, now),
        _trouble(before, now),
        _processes(before, now),
    ]
    if any(process.error for process in now.processes.values()):
        parts.append(_errors(now))
    return Group(*parts)


def state_name(value: int) -> str:
    """Name of a ``record.State``, also of one that this version does not know."""
    try:
        return State(value).name.lower()
    except ValueError:
        return str(value)


def _header(before: RunSample, now: RunSample) -> Text:
    text = Text(f"run {now.info.name}", style="bold")
    text.append(" (emulated venues)" if now.info.demo else "", style="yellow")
    if now.alive:
        text.append(f"  up {_duration(now.ts_ns - now.info.run_id)}", style="green")
    else:
        text.append("  has ended: its supervisor is gone", style="bold red")
    if now.tape is not None:
        published = now.tape.cursor - (now.tape.cursor if before.tape is None else before.tape.cursor)
        text.append(
            f"  tape seq {now.tape.cursor}  {_number(published / seconds_between(before, now))} records/s"
            f"  {now.tape.slots} slots  epoch {now.tape.epoch}  {now.instruments} instruments",
            style="not bold",
        )
    return text


def _flow(before: RunSample, now: RunSample) -> Table:
    table = _table("venue", "state", title="flow")
    for name in ("conn", "books", "frames/s", "records/s", "kB/s", "waiting", "venue→recv p50", "p99", "last data"):
        table.add_column(name, justify="right")
    for venue in sorted(now.info.venues):
        table.add_row(Text(venue), *_flow_cells(before, now, venue))
    return table


def _flow_cells(before: RunSample, now: RunSample, venue: str) -> Iterator[Text]:
    process = f"worker-{venue}"
    worker = now.processes.get(process)
    if worker is None or worker.counters[Counter.STARTS] == 0:
        yield Text("not started", style="dim")
        return
    values = worker.counters
    per_second = rates(before, now, process)
    yield _state(worker, now)
    yield Text(str(values[Counter.CONNECTIONS]))
    yield Text(
        f"{values[Counter.BOOKS_VALID]}/{values[Counter.BOOKS]}",
        style="" if values[Counter.BOOKS_VALID] == values[Counter.BOOKS] else "yellow",
    )
    yield Text(_number(per_second.get(Counter.FRAMES, 0)))
    yield Text(_number(per_second.get(Counter.RECORDS, 0)))
    yield Text(_number(per_second.get(Counter.BYTES, 0) / 1000))
    ring = now.rings.get(venue)
    yield Text(str(ring.waiting) if ring else "-")
    latency = recent_quantiles(before, now, process, Histogram.VENUE_TO_RECEIVE)
    yield Text(_latency(latency, latency.p50))
    yield Text(_latency(latency, latency.p99))
    yield Text(_ago(now.ts_ns, values[Counter.LAST_DATA_NS]))


def _trouble(before: RunSample, now: RunSample) -> Table:
    """Counts since the start; what rose in the interval is marked."""
    table = _table("venue", title="trouble since the start")
    for name in _TROUBLE.values():
        table.add_column(name, justify="right")
    for venue in sorted(now.info.venues):
        process = f"worker-{venue}"
        worker = now.processes.get(process)
        if worker is not None:
            risen = rates(before, now, process)
            cells = (
                Text(str(worker.counters[counter]), style="bold yellow" if risen.get(counter) else "")
                for counter in _TROUBLE
            )
            table.add_row(Text(venue), *cells)
    return table


def _state(worker: ProcessSample, now: RunSample) -> Text:
    if not worker.alive:
        return Text("no worker", style="bold red")
    state = worker.counters[Counter.STATE]
    breaker = _BREAKER.get(worker.counters[Counter.BREAKER], "")
    text = Text(state_name(state), style=_STATE_STYLES.get(State(state), "") if state in set(State) else "")
    text.append(f" {_ago(now.ts_ns, worker.counters[Counter.STATE_SINCE_NS])}", style="dim")
    text.append(f" breaker {breaker}" if breaker else "", style="red")
    return text


def _processes(before: RunSample, now: RunSample) -> Table:
    table = _table("process", "", title="processes")
    for name in ("pid", "heartbeat", "starts", "CPU %", "RSS MB", "records/s", "recv→seq p50", "p99"):
        table.add_column(name, justify="right")
    for name, process in now.processes.items():
        values = process.counters
        latency = recent_quantiles(before, now, name, Histogram.RECEIVE_TO_SEQUENCED)
        table.add_row(
            Text(name),
            _life(process),
            Text(str(values[Counter.PID])),
            Text(_ago(now.ts_ns, values[Counter.HEARTBEAT_NS])),
            Text(str(values[Counter.STARTS])),
            Text(_cpu(before, now, name)),
            Text(f"{process.resident_bytes / 1e6:.0f}" if process.resident_bytes else "-"),
            Text(_number(rates(before, now, name).get(Counter.RECORDS, 0))),
            Text(_latency(latency, latency.p50)),
            Text(_latency(latency, latency.p99)),
        )
    return table


def _life(process: ProcessSample) -> Text:
    if process.alive:
        return Text("alive", style="green")
    return Text("down", style="bold red") if process.counters[Counter.STARTS] else Text("not started", style="dim")


def _errors(now: RunSample) -> Table:
    table = _table("process", "ago", "last error", title="errors")
    for name, process in now.processes.items():
        if process.error is not None:
            ts_ns, text = process.error
            table.add_row(Text(name), Text(_ago(now.ts_ns, ts_ns)), Text(printable(text)))
    return table


def _table(*columns: str, title: str) -> Table:
    return Table(*columns, title=f"\n{title}", title_justify="left", box=None, padding=(0, 2, 0, 0))


def _cpu(before: RunSample, now: RunSample, name: str) -> str:
    """Per cent of one core in the interval; unknown if there was another process of that name before."""
    earlier, later = before.processes.get(name), now.processes[name]
    if earlier is None or earlier.counters[Counter.PID] != later.counters[Counter.PID] or not later.cpu_ns:
        return "-"
    return f"{(later.cpu_ns - earlier.cpu_ns) / 1e9 / seconds_between(before, now) * 100:.1f}"


def _number(value: float) -> str:
    """Three digits that count, for rates."""
    for unit in ("", "k", "M"):
        if value < 1000:
            return f"{value:.0f}{unit}" if not unit and value >= 10 else f"{value:.1f}{unit}"
        value /= 1000
    return f"{value:.1f}G"


def _latency(quantiles: Quantiles, nanoseconds: int) -> str:
    if quantiles.count == 0:
        return "-"
    if nanoseconds < 1_000_000:
        return f"{nanoseconds / 1e3:.1f} µs"
    return f"{nanoseconds / 1e6:.1f} ms" if nanoseconds < 1_000_000_000 else f"{nanoseconds / 1e9:.1f} s"


def _ago(now_ns: int, then_ns: int) -> str:
    return "-" if then_ns == 0 else _duration(now_ns - then_ns)


def _duration(nanoseconds: int) -> str:
    seconds = max(nanoseconds, 0) / 1e9
    return f"{seconds:.1f}s" if seconds < 60 else str(timedelta(seconds=int(seconds)))
