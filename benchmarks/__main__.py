"""``bin/bench``: measures mdring on this machine, with other libraries and the machine's limits beside every figure.

Each benchmark is a module of this package with ``run(options)``; it checks its answer and fails if that is wrong::

    bin/bench ring
    bin/bench all --json out.json --plot out/
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from benchmarks import _report
from benchmarks._harness import (
    Result,
    WrongAnswer,
    console,
    failures,
    machine,
    print_machine,
    print_results,
    write_json,
    wrong_answers,
)
from benchmarks._options import BENCHMARKS, WITH_PEERS, add_arguments
from benchmarks.peers import environment


def run(options: argparse.Namespace) -> int:
    """Run the named benchmarks; 1 if an answer was wrong."""
    if options.peers:
        environment.install()
    environment.use_packages()
    described = machine()
    print_machine(described)
    absent = environment.absent() if options.benchmark in (*WITH_PEERS, "all") else {}
    for peer, reason in absent.items():
        console.print(f"[yellow]absent:[/] {peer}: {reason}")
    results: dict[str, Sequence[Result]] = {}
    for name in BENCHMARKS if options.benchmark == "all" else [options.benchmark]:
        try:
            results[name] = importlib.import_module(f"benchmarks.{name}").run(options)
        except WrongAnswer as error:
            wrong_answers.append(f"{name}: {error}")
            console.print(f"[red]wrong answer:[/] {name}: {error}")
            continue
        print_results(f"{name}: {BENCHMARKS[name]}", results[name])
    if options.json is not None:
        write_json(options.json, described, results)
    if options.plot is not None:
        failed = dict.fromkeys(failures, "failed in this run")
        command = " ".join(["bin/bench", *(word for word in sys.argv[1:] if word != "bench")])
        page = _report.write(options.plot, _report.Report(described, absent | failed, results, wrong_answers, command))
        console.print(f"written: {page}")
    return 1 if wrong_answers else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="bin/bench", description=__doc__.splitlines()[0] if __doc__ else None)
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
