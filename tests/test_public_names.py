"""The package's own names: imported when they are used, and all of them there."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mdring


def test_each_public_name_is_what_the_type_checker_takes_it_for() -> None:
    tree = ast.parse(Path(mdring.__file__).read_text())
    told = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mdring")
        for alias in node.names
    }
    assert set(told) == set(mdring.__all__)
    for name, module in told.items():
        assert getattr(mdring, name) is getattr(sys.modules[str(module)], name)
    assert set(told) <= set(dir(mdring))


def test_unknown_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="'bbo_of'"):
        mdring.bbo_of  # noqa: B018


def test_importing_the_package_imports_nothing_that_takes_time() -> None:
    program = "import sys, mdring; print('numpy' in sys.modules or 'msgspec' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
