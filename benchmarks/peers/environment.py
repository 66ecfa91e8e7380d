"""Where the other libraries are: ``.venv/peers``, made by ``bin/bench … --peers``, else our own interpreter.

An environment of their own, because their dependencies are not ours; each is installed by itself, so one that cannot
be built here does not keep the others away. What is missing is listed with the reason, never silently left out::

    environment.run("transports", "zeromq-pair", "one-way", "20000")   # a program of this package, by its name
"""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import track

REPOSITORY: Final = Path(__file__).parents[2]
_FOLDER: Final = Path(os.environ.get("MDRING_PEERS", REPOSITORY / ".venv" / "peers"))
_FAILURES: Final = _FOLDER / "absent.json"
_REDIS_SERVER: Final = "a Redis server"

PEERS: Final = {
    "cryptofeed": "cryptofeed",
    "faster-fifo": "faster_fifo",
    "iceoryx2": "iceoryx2",
    "order_book": "order_book",
    "pyzmq": "zmq",
    "redis": "redis",
    "sortedcontainers": "sortedcontainers",
}
"""Distributions and the modules that they bring."""

EXTRAS: Final = {"matplotlib": "matplotlib", "numba": "numba", "uvloop": "uvloop"}
"""What is no peer, but makes plots, a kernel to compare with, and a peer's recommended event loop."""


def interpreter() -> str:
    """The Python that has the peers."""
    python = _FOLDER / "bin" / "python"
    return str(python) if python.exists() else sys.executable


def install() -> None:
    """Make ``.venv/peers`` and install what can be installed into it."""
    console = Console(stderr=True)
    if not (_FOLDER / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(_FOLDER)], check=True)
    failures: dict[str, str] = {}
    for distribution in track([*PEERS, *EXTRAS], "installing into .venv/peers", console=console, transient=True):
        done = subprocess.run(
            [interpreter(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", distribution],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            failures[distribution] = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
    _FAILURES.write_text(json.dumps(failures))


@cache
def versions() -> dict[str, str]:
    """The version of each distribution that the interpreter of the peers has."""
    script = (
        "import importlib.metadata as m, json, sys\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    words = [interpreter(), "-c", script, *PEERS, *EXTRAS]
    found: dict[str, str] = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    return found


def absent() -> dict[str, str]:
    """What is not measured, by name, and why."""
    failures = json.loads(_FAILURES.read_text()) if _FAILURES.exists() else {}
    missing = {
        name: failures.get(name, "not installed; bin/bench … --peers tries to")
        for name in (*PEERS, *EXTRAS)
        if name not in versions()
    }
    if not has_redis():
        missing[_REDIS_SERVER] = "none answers on 127.0.0.1:6379 (REDIS_URL names another)"
    return missing


def has(distribution: str) -> bool:
    """Whether the interpreter of the peers has it."""
    return distribution in versions()


@cache
def has_redis() -> bool:
    """Whether a Redis server answers, and there is a client for it."""
    if not has("redis"):
        return False
    script = "import os, redis; redis.Redis.from_url(os.environ.get('REDIS_URL', 'redis://127.0.0.1:6379')).ping()"
    return subprocess.run([interpreter(), "-c", script], capture_output=True).returncode == 0


def use_packages() -> None:
    """Let this process import the peers' packages, after all of its own."""
    python = _FOLDER / "bin" / "python"
    if python.exists():
        for folder in sorted(_FOLDER.glob("lib/python*/site-packages")):
            if folder.parent.name == f"python{sys.version_info.major}.{sys.version_info.minor}":
                site.addsitedir(str(folder))


def command(program: str, *words: object) -> list[str]:
    """The command line of a program of this package."""
    return [interpreter(), "-m", f"benchmarks.peers.{program}", *map(str, words)]


def environment() -> dict[str, str]:
    """What such a program is run with: the repository on its module path, and no other of ours."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


class PeerFailed(Exception):
    """Another library could not be measured, and why; the benchmark goes on without it."""


def run(program: str, *words: object, cores: list[int | None] | None = None, timeout_s: float = 60.0) -> Any:
    """Run a program of this package; what it prints last, decoded. Raises PeerFailed."""
    line = command(program, *words)
    pinned = [str(core) for core in cores or [] if core is not None]
    if pinned and shutil.which("taskset"):
        line = ["taskset", "-c", ",".join(pinned), *line]
    try:
        done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{program} {' '.join(map(str, words))}: no end after {timeout_s:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PeerFailed(f"{program} {' '.join(map(str, words))}: {last}")
    return json.loads(done.stdout.splitlines()[-1])
