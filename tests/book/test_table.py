"""The book table and the checkpoints: their layout, and their protocol under threads, sanitizers and death.

``keeper_harness.c`` runs the real headers on a tape whose truth is known at any seq. ThreadSanitizer sees every racing
access that is not atomic; the enumeration of deaths sees what a keeper killed by SIGKILL leaves behind, at each
instruction. Headers with one line broken must fail.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mdring.book._table import PAGE_SIZE, ROW_FIXED_SIZE, ROW_HEAD_SIZE, ROW_HEADER_SIZE, Checkpoints, Rows
from mdring.book.table import FINGERPRINT, ROW_HEAD, BookTable, CheckpointStore, create_table, row_dtype
from mdring.record import LAYOUT_VERSION
from mdring.ring import segment
from mdring.ring.segment import LayoutMismatch
from tests.book.keeper_run import book_run, follow
from tests.book.records import batch, snapshot

ROOT = Path(__file__).parents[2]
PTRACE_REFUSED = 77
SMALL = ("-DMDRING_PAGE_WORDS=16", "-DMDRING_LEAF_LEVELS=4")  # so that chains and leaves are many


class Build(NamedTuple):
    """How the harness is made, and how many records it takes in the quick and in the long run."""

    flags: tuple[str, ...]
    quick: int
    long: int


BUILDS = {
    "native": Build(("-O3",), 50_000, 50_000_000),
    "thread sanitizer": Build(("-O1", "-g", "-fsanitize=thread", "-Wno-tsan"), 10_000, 2_000_000),
    "address and undefined behaviour sanitizers": Build(
        ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"), 20_000, 5_000_000
    ),
}


def build(folder: Path, flags: tuple[str, ...], broken: tuple[str, str, str] | None = None) -> Path:
    """The harness over the headers; or, if a header, a line of it and another one are given, over that."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("NOT PROVEN HERE: there is no C compiler")
    for part in ("mdring/ring", "mdring/book", "tests/book"):
        (folder / part).mkdir(parents=True)
        for copied in (ROOT / part).glob("*.[ch]"):
            shutil.copy(copied, folder / part)
    if broken is not None:
        header, line, other = broken
        path = folder / "mdring" / "book" / header
        text = path.read_text()
        assert text.count(line) == 1, "the line that this control breaks has changed"
        path.write_text(text.replace(line, other))
    program = folder / "harness"
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unused-parameter", "-Wno-unused-variable")
    command = [compiler, "-std=gnu11", *warnings, *SMALL, *flags, f"-I{folder}/mdring/ring", f"-I{folder}/mdring/book"]
    source = str(folder / "tests" / "book" / "keeper_harness.c")
    made = subprocess.run([*command, source, "-o", str(program), "-pthread"], capture_output=True, text=True)
    if made.returncode != 0 and "sanitize" in made.stderr:
        pytest.skip("NOT PROVEN HERE: this compiler has no sanitizers")
    assert made.returncode == 0, made.stderr
    return program


def play(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True)
    if "unexpected memory mapping" in ended.stderr:  # ThreadSanitizer where addresses are very random
        ended = subprocess.run(
            ["setarch", platform.machine(), "--addr-no-randomize", *command], capture_output=True, text=True
        )
    if ended.returncode == PTRACE_REFUSED:
        pytest.skip(f"NOT PROVEN HERE: {ended.stderr.strip()}")
    return ended


# ---- protocol ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("long", [False, pytest.param(True, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
@pytest.mark.parametrize("name", BUILDS)
def test_readers_and_joiners_beside_a_dying_keeper__true_at_their_seq__never_torn(
    tmp_path: Path, name: str, long: bool
) -> None:
    how = BUILDS[name]
    ended = play(build(tmp_path, how.flags), "threads", str(how.long if long else how.quick), "1")
    assert (ended.returncode, ended.stderr) == (0, "")
    looks = json.loads(ended.stdout)
    assert looks["rows"] > 100
    assert looks["joins"] > 10


def test_killed_after_any_instruction__rows_and_checkpoints_whole__successor_goes_on(tmp_path: Path) -> None:
    ended = play(build(tmp_path, ("-O2",)), "killed")
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.split()[2]) > 500  # different deaths


BROKEN_BY_DEATH = {
    "a row with one image": ("rows.h", "(version & 1) * rows->image_words", "(version & 0) * rows->image_words"),
    "a version before its image": (
        "rows.h",
        "    copy_words_to_shared(mdring_row_image(rows, row, version), image, rows->image_words);\n",
        "    store_release_u64(row, version);\n"
        "    copy_words_to_shared(mdring_row_image(rows, row, version), image, rows->image_words);\n",
    ),
    "a position before its rows": (
        "keeper.h",
        "    for (uint64_t i = 0; i < keeper->changed_row_count; i++) {\n        keeper->kept",
        "    store_release_u64(keeper->position_word, keeper->position);\n"
        "    for (uint64_t i = 0; i < keeper->changed_row_count; i++) {\n        keeper->kept",
    ),
    "a floor before its checkpoints": (
        "keeper.h",
        "    uint64_t half = keeper->span / 2;\n",
        "    uint64_t half = keeper->span / 2;\n"
        "    mdring_store_floor(&keeper->checkpoints.store, keeper->position);\n",
    ),
    "a floor above the oldest change": (
        "keeper.h",
        "    kept->dirty_since = keeper->position;",
        "    kept->dirty_since = keeper->position + 1;",
    ),
    "an old checkpoint given up before the new one is there": (
        "checkpoints.h",
        "    fence_release(); /* sync: C2 */\n    uint32_t first",
        "    mdring_checkpoint_replace(writer, instrument_id, 0);\n    uint32_t first",
    ),
    "an index before its pages": (
        "checkpoints.h",
        "    for (uint64_t i = 0; i < needed; i++) {\n",
        "    store_release_u64(store->index + instrument_id, UINT64_MAX << 32 | first);\n"
        "    for (uint64_t i = 0; i < needed; i++) {\n",
    ),
    "a successor that takes used pages for free": ("checkpoints.h", "if (!used[page]) writer", "if (page) writer"),
    "a successor that forgets what the rows know": ("keeper.h", "    mdring_keeper_read_rows(keeper, &target);\n", ""),
}


@pytest.mark.parametrize("name", BROKEN_BY_DEATH)
def test_the_enumeration_of_deaths_finds_what_is_broken(tmp_path: Path, name: str) -> None:
    header, line, other = BROKEN_BY_DEATH[name]
    ended = play(build(tmp_path, ("-O1",), (header, line, other)), "killed")  # compiled in half the time of -O2
    assert ended.returncode == 1
    assert "FORBIDDEN" in ended.stderr


BROKEN_BY_RACES = {
    "a row that is not validated": (
        "rows.h",
        "if (load_relaxed_u64(row) == version) return",
        "if (version != 0) return",
    ),
    "a checkpoint that is not validated": (
        "checkpoints.h",
        "return load_relaxed_u64(store->index + instrument_id) == found;",
        "return store != NULL && found + instrument_id > 0;",
    ),
    "a replay that ends too early": (
        "join.h",
        "while (reader->next <= target || reader->partial)",
        "while (reader->next + 1 <= target)",
    ),
}


@pytest.mark.parametrize("name", BROKEN_BY_RACES)
def test_threads_find_what_is_broken(tmp_path: Path, name: str) -> None:
    header, line, other = BROKEN_BY_RACES[name]
    ended = play(build(tmp_path, ("-O3",), (header, line, other)), "threads", "20000000", "1")
    assert ended.returncode == 1
    assert "FORBIDDEN" in ended.stderr


# ---- layout -----------------------------------------------------------------------------------------------


def test_a_row_is_what_it_was_when_this_was_written() -> None:
    """Whoever changes this must raise LAYOUT_VERSION: processes of two versions would misread one another."""
    fields = row_dtype(50).fields
    assert fields is not None
    assert {name: field[1] for name, field in fields.items()} == {
        "seq": 0, "book_seq": 8, "instrument_id": 16, "venue_id": 20, "book_valid": 21, "book_reason": 22,
        "book_crossed": 23, "connection_state": 24, "connection_reason": 25, "venue_state": 26, "venue_reason": 27,
        "trading_state": 28, "doubt_reason": 29, "connection_seq": 32, "doubt_seq": 40, "bid_depth": 48,
        "ask_depth": 52, "bid_count": 56, "ask_count": 60, "bbo": 64, "trade": 192, "status": 320,
        "venue_status": 448, "bids": 576, "asks": 576 + 50 * 16,
    }  # fmt: skip
    assert row_dtype(50).itemsize == 576 + 2 * 50 * 16 == 2176
    assert (ROW_HEADER_SIZE, ROW_HEAD_SIZE, ROW_FIXED_SIZE, PAGE_SIZE) == (64, 192, 576, 4096)
    assert ROW_HEAD.itemsize == 192


def test_a_row_never_written_is_none_and_ids_beyond_the_table_have_none() -> None:
    with book_run(instruments=4) as run, run.keeper() as keeper:
        assert [run.table.read(id_) for id_ in (-1, 0, 1, 3, 4, 10**6)] == [None] * 6
        assert len(run.table.read_heads()) == 0
        run.publish(batch([*snapshot({5: 1}, {}, 1), *snapshot({5: 1}, {}, 3)]))
        follow(keeper)
        assert [run.table.read(id_) is None for id_ in range(5)] == [True, False, True, False, True]
        assert run.table.read_heads()["instrument_id"].tolist() == [1, 3]


@pytest.mark.parametrize("levels", [1, 2, 7, 1000])
def test_a_table_has_as_many_levels_as_it_was_made_for(run_folder: Path, levels: int) -> None:
    create_table(run_folder / "books", run_id=1, levels=levels, instruments=2).close()
    table = BookTable.attach(run_folder / "books")
    assert table.levels == levels
    assert table.empty_row()["asks"].shape == (1, levels)


@pytest.mark.parametrize(("levels", "instruments"), [(0, 2), (1001, 2), (1, 1)])
def test_a_table_that_cannot_be_is_not_made(run_folder: Path, levels: int, instruments: int) -> None:
    with pytest.raises(ValueError, match=r"a book table has 1\.\.1000 levels and at least 2 rows"):
        create_table(run_folder / "books", run_id=1, levels=levels, instruments=instruments)


def test_a_table_of_another_layout_is_refused(run_folder: Path) -> None:
    segment.create(run_folder / "books", segment.SegmentKind.BOOKS, version=LAYOUT_VERSION, fingerprint=FINGERPRINT + 1,
                   run_id=1, slot_size=4096, slot_count=2).close()  # fmt: skip
    with pytest.raises(LayoutMismatch):
        BookTable.attach(run_folder / "books")


def test_readers_cannot_write() -> None:
    with book_run() as run:
        assert not run.table.rows.writable
        assert not CheckpointStore.attach(run.folder.checkpoints).checkpoints.writable
        with pytest.raises(TypeError, match="read-only"):
            run.table.segment.writer_block.store(0, 1)


def test_buffers_that_are_too_small_are_refused() -> None:
    memory = np.zeros(8192, dtype=np.uint8)
    with pytest.raises(ValueError, match="does not hold two images"):
        Rows(memory, 0, 64 + 2 * 568, 1)
    with pytest.raises(ValueError, match="does not hold 8 times 1216 bytes"):
        Rows(memory, 0, 64 + 2 * 576, 8)
    with pytest.raises(ValueError, match="do not hold an index"):
        Checkpoints(memory, 0, 4096, 1, 1)
    rows = Rows(memory, 0, 64 + 2 * 576, 2)
    with pytest.raises(ValueError, match="no part of an image"):
        rows.read(1, np.zeros(577 * 8, dtype=np.uint8).view(np.uint64))
