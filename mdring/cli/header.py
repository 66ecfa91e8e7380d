"""``mdring header``: print the C header that fits this version of mdring.

::

    mdring header > mdring.h
    g++ -std=c++17 -O2 -I. examples/cpp_reader.cpp -o cpp_reader
"""

from __future__ import annotations

import argparse
import sys

from mdring.c_header import c_header


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command takes none."""


def run(arguments: argparse.Namespace) -> int:
    sys.stdout.write(c_header())
    return 0
