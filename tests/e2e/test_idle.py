"""A system without traffic: what it costs to be there. Prints its figures (``-s``); the bounds are smoke alarms."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from tests.e2e.system import System

MEASURED_S: Final = 6.0
MOST_CPU_SHARE: Final = 0.10  # of one core, the whole system; the budget is 0.02
MOST_WORKER_RSS: Final = 70 * 2**20  # bytes


def _cpu_s(pid: int) -> float:
    """CPU time of a process so far, all of its threads, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_system_without_traffic_hardly_uses_the_cpu_and_a_worker_is_small(directory: Path) -> None:
    patient = {"first_data_timeout_ms": 30_000, "stale_after_ms": 120_000, "healthy_after_ms": 30_000}
    with System(directory, rate=0, connection=patient) as system:
        system.start().wait_until_up()
        assert system.process is not None
        names = [name for name in system.folder.processes() if name != "supervisor"]
        pids = {name: system.pid(name) for name in names} | {"supervisor": system.process.pid}
        pids["emulator"] = system.emulators["alpha"].process.pid
        before = {name: _cpu_s(pid) for name, pid in pids.items() if pid is not None}
        begun = time.monotonic()
        time.sleep(MEASURED_S)
        passed = time.monotonic() - begun
        shares = {name: (_cpu_s(pid) - before[name]) / passed for name, pid in pids.items() if pid is not None}
        sizes = {name: _rss_bytes(pid) for name, pid in pids.items() if pid is not None}
        assert system.stop() == 0
    for name in pids:
        print(f"{name:14} {shares[name]:7.2%} of a core  {sizes[name] / 2**20:6.1f} MiB")
    ours = sum(share for name, share in shares.items() if name != "emulator")
    print(f"{'system':14} {ours:7.2%} of a core, without the emulator, over {passed:.1f} s")
    assert ours < MOST_CPU_SHARE
    assert sizes["worker-alpha"] <= MOST_WORKER_RSS
