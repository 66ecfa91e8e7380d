"""Twenty consumers with books, five of them stopped until the tape has lapped them: each goes on with true books."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

import mdring
from mdring.config import load
from mdring.counters import Counter, Counters
from mdring.run_folder import find_run
from tests.runs import temporary_directory

ROOT = Path(__file__).parents[2]
TAPE_SLOTS = 65_536
CONSUMERS, STOPPED = 20, 5
INSTRUMENTS = sum(len(venue.subscriptions) for venue in load(ROOT / "config.toml").enabled_venues)

# Follows the tape until it is told that nothing more comes, and says what it has then.
FOLLOWER = """
import hashlib, json, select, sys, mdring
with mdring.attach("many", directory=sys.argv[1], books=True, wait_s=60) as tape:
    begin, received = tape.position, 0
    print("attached", flush=True)
    while tape.lag or not select.select([sys.stdin], [], [], 0)[0]:
        received += len(tape.poll())
        tape.wait(0.1)
    books = tape.books
    content = [(i, books[i].valid, books[i].bids().tolist(), books[i].asks().tolist()) for i in sorted(books)]
    print(json.dumps({
        "begin": begin, "position": tape.position, "received": received, "lost": tape.lost,
        "valid": sum(valid for _, valid, _, _ in content),
        "books": hashlib.sha256(repr(content).encode()).hexdigest(),
    }), flush=True)
"""


def follow(runs: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FOLLOWER, str(runs)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell_to_end(follower: subprocess.Popen[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(follower.communicate("end\n", timeout=120)[0])
    return answer


def emulator_of(supervisor: int) -> int:
    children = psutil.Process(supervisor).children()
    return next(child.pid for child in children if "mdring.emulator" in child.cmdline())


def test_stopped_consumers_report_their_exact_loss_and_heal_their_books() -> None:
    with temporary_directory() as folder:
        runs = folder / "runs"
        command = [sys.executable, "-m", "mdring", "up", "--demo", "--run", "many", "--demo-rate", "2000"]
        command += ["--set", f"tape.slots={TAPE_SLOTS}", "--set", f"run.directory={runs}"]
        command += ["--config", str(ROOT / "config.toml")]
        supervisor = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        followers: list[subprocess.Popen[str]] = []
        try:
            with mdring.attach("many", directory=runs, books=True, wait_s=60) as tape:
                while sum(tape.books[i].valid for i in tape.books or ()) < INSTRUMENTS:
                    tape.wait(10)
                    tape.poll()
                followers += [follow(runs) for _ in range(CONSUMERS)]
                for follower in followers:
                    assert follower.stdout is not None
                    assert follower.stdout.readline() == "attached\n"
                stopped = followers[:STOPPED]
                for follower in stopped:
                    os.kill(follower.pid, signal.SIGSTOP)
                stopped_at = tape.position + tape.lag
                while tape.position < stopped_at + TAPE_SLOTS + 1000:
                    tape.wait(10)
                    tape.poll()
                for follower in stopped:
                    os.kill(follower.pid, signal.SIGCONT)
                following_on = tape.position
                while tape.position < following_on + 5000:
                    tape.wait(10)
                    tape.poll()
                os.kill(emulator_of(supervisor.pid), signal.SIGSTOP)  # nothing more comes
                while tape.wait(1):
                    tape.poll()
            answers = [tell_to_end(follower) for follower in followers]
            restarts = Counters.attach(find_run("many", runs).counters("supervisor")).load(Counter.RESTARTS)
        finally:
            for follower in followers:
                follower.kill()
            supervisor.send_signal(signal.SIGINT)
            supervisor.wait(60)
        for answer in answers:
            assert answer["received"] + answer["lost"] == answer["position"] - answer["begin"]
        assert all(answer["lost"] > 0 for answer in answers[:STOPPED])
        last = answers[-1]
        assert {(answer["position"], answer["valid"], answer["books"]) for answer in answers} == {
            (last["position"], INSTRUMENTS, last["books"])
        }
        assert restarts == 0
