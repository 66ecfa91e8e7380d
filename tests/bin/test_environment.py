"""The programs of bin/ in small repositories of their own, with an interpreter that pretends to make environments.

The interpreter is a wrapper of the real one: ``-m venv`` makes what it would without pip, but quicker, and ``-m pip``
leaves a note instead of doing anything, and "installs" a command ``mdring`` that says how it was called. All else is
what a user runs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "bin"
TOOLS = ["cat", "dirname", "env", "find", "ln", "printf", "pwd", "readlink", "rm", "sed", "sh", "sha256sum", "sort",
         "tail", "xargs", "mkdir", "cp", "chmod", "sleep"]  # fmt: skip

INTERPRETER = """#!/bin/sh
case "$1 ${{2:-}}" in
"-m venv")
    echo venv >>"{notes}"
    mkdir -p "$3/bin" "$3/{site}"
    echo "home = {home}" >"$3/pyvenv.cfg"
    ln -s {python} "$3/bin/unwrapped"
    cp "$0" "$3/bin/python"
    ;;
"-m pip")
    echo "$@" >>"{notes}"
    sleep 0.3
    if [ -e "{root}/broken" ]; then echo "it is broken"; exit 1; fi
    command="{root}/.venv/bin/mdring"
    printf '#!/bin/sh\\nprintf "%%s|" "$@"\\n[ -e /proc/self/fd/9 ] && echo leaked\\nexit 0\\n' >"$command"
    chmod +x "$command"
    ;;
"-m pytest") echo "pytest $3" ;;
"-P -m") echo "$3 $4" ;;
*)
    if [ -x "${{0%/*}}/unwrapped" ]; then exec "${{0%/*}}/unwrapped" "$@"; fi
    exec {python} "$@"
    ;;
esac
"""


class Repository:
    """A repository with our bin/, and tools of its own in PATH."""

    def __init__(self, root: Path, *, compiler: bool = True, python: str | None = "python3") -> None:
        self.root = root
        self.notes = root.parent / "notes"
        self.tools = root.parent / "tools"
        shutil.copytree(BIN, root / "bin")
        for folder in ("mdring", "adapters"):
            (root / folder).mkdir()
        (root / "pyproject.toml").write_text("[project]\n")
        (root / "mdring" / "ring.pyx").write_text("x = 1\n")
        self.tools.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found is not None, tool
            (self.tools / tool).symlink_to(found)
        if compiler:
            self.add_tool("cc", "#!/bin/sh\n")
        if python is not None:
            self.add_python(python)

    def add_tool(self, name: str, text: str) -> Path:
        path = self.tools / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def add_python(self, name: str) -> Path:
        python = Path(sys.executable).resolve()
        return self.add_tool(
            name,
            INTERPRETER.format(
                notes=self.notes,
                root=self.root,
                python=python,
                home=python.parent,
                site=f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages",
            ),
        )

    def start(self, program: str, *arguments: str, cwd: Path | None = None, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [program if "/" in program else str(self.root / "bin" / program), *arguments],
            cwd=cwd or self.root.parent,
            env={"PATH": str(self.tools), **more},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *arguments: str, cwd: Path | None = None, **more: str) -> tuple[int, str, str]:
        process = self.start(program, *arguments, cwd=cwd, **more)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def installs(self) -> list[str]:
        """What pip was asked to install, in order."""
        if not self.notes.exists():
            return []
        lines = self.notes.read_text().splitlines()
        return [line.rpartition("--editable ")[2] for line in lines if line.startswith("-m pip")]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "a clone")


def test_a_fresh_clone_makes_its_environment_and_then_starts_the_command(repository: Repository) -> None:
    code, out, err = repository.run("supervisor", "--demo", "--set", "a b")
    assert (code, out) == (0, f"up|--config|{repository.root}/config.toml|--demo|--set|a b|")
    assert "making .venv with Python 3" in err
    assert repository.installs() == [str(repository.root)]


def test_nothing_is_made_a_second_time(repository: Repository) -> None:
    repository.run("supervisor")
    assert repository.run("supervisor")[2] == ""
    assert len(repository.installs()) == 1


@pytest.mark.parametrize("changed", ["mdring/ring.pyx", "adapters/new.h", "pyproject.toml", "mdring/ring.pxd"])
def test_a_change_of_what_is_compiled_is_built(repository: Repository, changed: str) -> None:
    repository.run("supervisor")
    (repository.root / changed).write_text("changed\n")
    generated = repository.root / "mdring" / "ring.c"
    generated.write_text("made from another ring.pyx\n")
    assert repository.run("supervisor")[0] == 0
    assert len(repository.installs()) == 2
    assert not generated.exists()


def test_a_change_of_python_sources_needs_no_build(repository: Repository) -> None:
    repository.run("supervisor")
    (repository.root / "mdring" / "new.py").write_text("x = 1\n")
    repository.run("supervisor")
    assert len(repository.installs()) == 1


def test_a_clone_that_was_moved_is_installed_anew(repository: Repository, tmp_path: Path) -> None:
    repository.run("supervisor")
    repository.root = repository.root.rename(tmp_path / "moved")
    repository.add_python("python3")
    repository.run("supervisor")
    assert repository.installs() == [str(tmp_path / "a clone"), str(tmp_path / "moved")]


def test_programs_that_are_started_at_once_build_once(repository: Repository) -> None:
    started = [repository.start("supervisor") for _ in range(3)]
    results = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert {out for out, _ in results} == {f"up|--config|{repository.root}/config.toml|"}
    assert len(repository.installs()) == 1


def test_the_tests_get_what_they_need_and_keep_it(repository: Repository) -> None:
    root = repository.root
    repository.run("supervisor")
    code, out, _ = repository.run("test", "-x")
    assert (code, out) == (0, "pytest -x\n")
    repository.run("supervisor")
    assert repository.installs() == [str(root), f"{root}[test]"]
    (root / "pyproject.toml").write_text("changed\n")
    repository.run("supervisor")
    repository.run("test")
    assert repository.installs()[2:] == [f"{root}[test]"]


def test_the_tests_say_what_will_be_skipped(repository: Repository, tmp_path: Path) -> None:
    missing = repository.run("test")[2]
    assert "qemu-aarch64 is missing" in missing
    assert "no real traffic in" in missing
    (tmp_path / "captures").mkdir()
    assert "the tests that decode it run" in repository.run("test", MDRING_CAPTURES=str(tmp_path / "captures"))[2]


def test_benchmarks_run_as_a_module(repository: Repository) -> None:
    code, out, _ = repository.run("bench", "ring")
    assert (code, out) == (0, "benchmarks ring\n")


def test_any_working_directory_and_a_symbolic_link_will_do(repository: Repository, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(repository.root / "bin" / "supervisor")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    code, out, _ = repository.run(str(link), cwd=elsewhere)
    assert (code, out) == (0, f"up|--config|{repository.root}/config.toml|")
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("arguments", [["strategy.py"], ["-c", "import mdring; print(mdring.__file__)"]])
def test_a_script_beside_the_clone_has_the_package_and_not_the_clone(tmp_path: Path, arguments: list[str]) -> None:
    # The folder that contains the clone is the script's own, hence the first in its path: there, `mdring` is the clone.
    repository = Repository(tmp_path / "mdring")
    package = repository.root / "mdring" / "__init__.py"
    package.write_text("")
    repository.run("supervisor")
    (tmp_path / "strategy.py").write_text("import mdring\n\nprint(mdring.__file__)\n")
    code, out, err = repository.run(str(repository.root / ".venv" / "bin" / "python"), *arguments)
    assert (code, err) == (0, "")
    assert out != "None\n", "it is the clone, as a namespace package"
    assert Path(out.rstrip()).samefile(package)


def test_the_package_alone_becomes_importable(repository: Repository) -> None:
    for folder in ("mdring", "adapters"):
        (repository.root / folder / "__init__.py").write_text("")
    repository.run("supervisor")
    found = "from importlib.util import find_spec; print([n for n in ('mdring', 'adapters', 'bin') if find_spec(n)])"
    assert repository.run(str(repository.root / ".venv" / "bin" / "python"), "-c", found)[1] == "['mdring']\n"


def test_a_failed_build_shows_the_end_of_its_log_and_is_tried_again(repository: Repository) -> None:
    (repository.root / "broken").touch()
    code, out, err = repository.run("supervisor")
    assert (code, out) == (1, "")
    assert "it is broken" in err
    assert str(repository.root / ".venv" / "build.log") in err
    (repository.root / "broken").unlink()
    assert repository.run("supervisor")[0] == 0


def test_without_a_python_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "clone", python=None)
    repository.add_tool("python3", "#!/bin/sh\nexit 1\n")
    code, _, err = repository.run("supervisor")
    assert code == 1
    assert err.count("\n") == 1
    assert "there is no Python 3.11 or newer; install one (Debian: python3" in err


def test_a_newer_python_beside_an_old_one_is_found(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "clone", python="python3.12")
    repository.add_tool("python3", "#!/bin/sh\nexit 1\n")
    assert repository.run("supervisor")[0] == 0


def test_the_python_that_is_named_is_used_or_refused(repository: Repository, tmp_path: Path) -> None:
    named = repository.add_python("named")
    repository.tools.joinpath("python3").unlink()
    assert repository.run("supervisor", PYTHON=str(named))[0] == 0
    old = repository.add_tool("old", "#!/bin/sh\nexit 1\n")
    code, _, err = repository.run("supervisor", PYTHON=str(old))
    assert (code, err) == (1, f"mdring: PYTHON={old} is no Python 3.11 or newer\n")


def test_without_a_compiler_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    code, _, err = Repository(tmp_path / "clone", compiler=False).run("supervisor")
    assert (code, err) == (
        1, "mdring: there is no C compiler; install one (Debian: build-essential; Fedora: gcc)\n",
    )  # fmt: skip


def test_the_compiler_that_is_named_must_be_there(repository: Repository) -> None:
    code, _, err = repository.run("supervisor", CC="icc -O2")
    assert (code, err) == (1, "mdring: CC=icc -O2 is no compiler that could be found\n")


@pytest.mark.parametrize("program", ["supervisor", "test", "bench", "environment.sh"])
def test_the_programs_are_sound_shell(program: str) -> None:
    shell = shutil.which("dash") or shutil.which("sh")
    assert shell is not None
    subprocess.run([shell, "-n", str(BIN / program)], check=True)
    assert os.access(BIN / program, os.X_OK) == (program != "environment.sh")
