"""Log lines: JSON where nobody sits before them, words where somebody does."""

from __future__ import annotations

import io
import json
import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mdring import log


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, sys.excepthook
    yield
    logging.captureWarnings(False)
    root.handlers[:], sys.excepthook = handlers, hook
    root.setLevel(level)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def json_line(*, process: str = "worker-a", message: str = "gap", **extra: Any) -> dict[str, Any]:
    stream = io.StringIO()
    log.configure(process, "info", stream)
    logging.getLogger("mdring.test").warning(message, extra=extra)
    line: dict[str, Any] = json.loads(stream.getvalue())
    return line


def test_a_line_that_goes_to_no_terminal_is_a_json_object() -> None:
    before = datetime.now(UTC)
    line = json_line(instrument="BTCUSDT", expected=2**64 - 1)
    assert before <= datetime.fromisoformat(line.pop("ts")) <= datetime.now(UTC)
    assert line == {
        "level": "warning",
        "process": "worker-a",
        "pid": os.getpid(),
        "logger": "mdring.test",
        "message": "gap",
        "instrument": "BTCUSDT",
        "expected": 2**64 - 1,
    }


def test_what_a_venue_says_cannot_forge_a_line() -> None:
    message = '\n{"level":"error"}\x1b[31m[bold]\udc80'
    assert json_line(message=message, found=2**80)["message"] == message


def test_an_extra_key_never_replaces_a_fixed_one() -> None:
    assert json_line(level="error", logger=3)["level"] == "warning"


def test_a_value_that_is_no_json_is_shown_as_python_shows_it() -> None:
    line = json_line(found={1}, table={3: "x"})
    assert (line["found"], line["table"]) == ("{1}", {"3": "x"})


def test_lines_below_the_level_are_left_out() -> None:
    stream = io.StringIO()
    log.configure("x", "warning", stream)
    logging.getLogger("mdring.test").info("not wanted")
    assert stream.getvalue() == ""


def test_the_last_configuration_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    log.configure("x", "info", first)
    log.configure("x", "info", second)
    logging.getLogger("mdring.test").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_an_exception_is_within_its_line() -> None:
    stream = io.StringIO()
    log.configure("x", "info", stream)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("mdring.test").exception("failed")
    line = json.loads(stream.getvalue())
    assert line["exception"].endswith("ValueError: boom")


def without_colours(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_a_terminal_gets_words_with_the_extra_keys() -> None:
    stream = Terminal()
    log.configure("worker-a", "info", stream)
    logging.getLogger("mdring.test").warning("gap", extra={"expected": 7})
    assert re.search(
        r"^\d\d:\d\d:\d\d\.\d{6} WARNING  worker-a: gap  expected=7 *$", without_colours(stream.getvalue())
    )


def test_what_a_venue_says_commands_no_terminal() -> None:
    stream = Terminal()
    log.configure("x", "info", stream)
    logging.getLogger("mdring.test").info("[bold]a[/] \x1b[2Jb\r", extra={"detail": "\x07"})
    assert "[bold]a[/] \ufffd[2Jb\ufffd  detail=\ufffd" in without_colours(stream.getvalue())


def run(code: str, *, stderr: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code], stderr=stderr, stdout=subprocess.DEVNULL)


def test_an_exception_that_nobody_catches_is_a_line_too() -> None:
    code = "from mdring import log; log.configure('sequencer', 'info'); 1/0"
    with run(code, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        line = json.loads(process.stderr.read())
    assert process.returncode == 1
    assert (line["level"], line["process"]) == ("critical", "sequencer")
    assert "ZeroDivisionError" in line["exception"]


def test_a_real_terminal_is_recognised() -> None:
    controller, terminal = pty.openpty()
    code = "import logging; from mdring import log; log.configure('x', 'info'); logging.info('hello')"
    with run(code, stderr=terminal) as process:
        pass
    os.close(terminal)
    text = os.read(controller, 65536).decode()
    os.close(controller)
    assert process.returncode == 0
    assert "INFO" in text
    assert "hello" in text
    assert "{" not in text
