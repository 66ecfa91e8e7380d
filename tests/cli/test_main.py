"""The mdring command as a whole: help, version, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mdring as package
from mdring.cli.main import COMMANDS
from tests.cli.command import mdring


def test_help_names_every_command() -> None:
    result = mdring("--help")
    assert result.returncode == 0
    for command, summary in COMMANDS.items():
        assert f"{command} " in result.stdout
        assert summary[:30] in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = mdring(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"usage: mdring {command}" in result.stdout


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from mdring.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('rich', 'asyncio', 'mdring.config', 'mdring.cli.stat') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_version() -> None:
    assert mdring("--version").stdout == f"mdring {package.__version__}\n"


def test_without_a_command_it_says_how_it_is_used() -> None:
    result = mdring()
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage: mdring" in result.stderr


@pytest.mark.parametrize("words", [["frobnicate"], ["stat", "--frobnicate"], ["stat", "--interval", "-1"]])
def test_wrong_usage_exits_with_2(words: list[str]) -> None:
    result = mdring(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert "usage: mdring" in result.stderr


def test_up_with_a_wrong_configuration_exits_with_2_and_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[tape]\nslot = 1\n")
    result = mdring("up", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("mdring: config.toml: 2 errors\n  tape.slot: unknown key; did you mean 'slots'?")


def test_python_m_mdring_is_the_same_command() -> None:
    result = subprocess.run([sys.executable, "-m", "mdring", "--version"], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("mdring ")
