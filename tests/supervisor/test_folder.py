"""Run folders: claimed by one, cleared away when stale, gone without a trace after release."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mdring.book.table import BookTable
from mdring.config import BooksConfig, SubscriptionConfig, from_json
from mdring.counters import Counter
from mdring.instrument import InstrumentTable
from mdring.ring import segment
from mdring.ring._ring import Words
from mdring.ring.segment import RunState
from mdring.run_folder import RunFolder, RunInfo
from mdring.supervisor.folder import RunClaim, RunSegments, StartError, claim_run, write_config, write_info
from tests.runs import attach_ring
from tests.supervised import small_config, supervised


@pytest.fixture
def runs(run_folder: Path) -> Path:
    return run_folder / "runs"


def make_run(path: Path) -> RunClaim:
    """A run with segments, of this process."""
    claim = claim_run(path)
    RunSegments.create(claim.folder, small_config(path.parent), run_id=1)
    write_info(claim.folder, RunInfo(path.name, 1, 1, "test", {"alpha": 1}))
    return claim


def abandon(claim: RunClaim) -> RunFolder:
    """Let go of a run as the death of its supervisor would."""
    os.close(claim._lock)
    assert not claim.folder.alive()
    return claim.folder


def test_a_claimed_run_lives_until_it_is_released_and_nothing_is_left(runs: Path) -> None:
    claim = claim_run(runs / "test")
    assert claim.folder.alive()
    assert claim.folder.lock.read_text() == f"{os.getpid()}\n"
    RunSegments.create(claim.folder, small_config(runs), run_id=7)
    claim.release()
    assert not runs.exists()


def test_releasing_one_run_leaves_the_others(runs: Path) -> None:
    one, other = claim_run(runs / "one"), claim_run(runs / "other")
    one.release()
    assert [path.name for path in runs.iterdir()] == ["other"]
    other.release()
    assert not runs.exists()


def test_a_living_run_cannot_be_claimed(runs: Path) -> None:
    claim = claim_run(runs / "test")
    with pytest.raises(StartError, match=f"run 'test' is already up, with supervisor {os.getpid()}, in {runs}"):
        claim_run(runs / "test")
    assert claim.holds()
    claim.release()


def test_a_folder_that_is_no_run_is_left_alone(runs: Path) -> None:
    precious = runs / "test" / "precious"
    precious.parent.mkdir(parents=True)
    precious.touch()
    with pytest.raises(StartError, match="is in the way: it is no run folder"):
        claim_run(runs / "test")
    assert precious.exists()


def test_an_empty_folder_is_taken(runs: Path) -> None:
    (runs / "test").mkdir(parents=True)
    claim_run(runs / "test").release()
    assert not runs.exists()


def test_a_directory_that_cannot_be_is_an_error_that_names_it(runs: Path) -> None:
    runs.touch()
    with pytest.raises(StartError, match=f"cannot make the run folder {runs}/test: .*File exists"):
        claim_run(runs / "test")
    runs.unlink()


def test_stale_runs_of_any_name_are_cleared_and_those_attached_to_them_learn_it(runs: Path) -> None:
    living, *abandoned = [make_run(runs / name) for name in ("living", "test", "neighbour")]
    tapes = [attach_ring(abandon(claim).tape) for claim in abandoned]
    claim = claim_run(runs / "test")
    assert [tape.state for tape in tapes] == [RunState.REPLACED, RunState.REPLACED]
    assert sorted(path.name for path in runs.iterdir()) == ["living", "test"]
    assert [path.name for path in claim.folder.path.iterdir()] == ["supervisor.lock"]
    assert living.holds()
    for each in (claim, living):
        each.release()


def test_a_stale_run_of_another_layout_version_is_ended_too(runs: Path) -> None:
    folder = abandon(make_run(runs / "test"))
    tape = attach_ring(folder.tape, writable=True)
    Words(tape.mapping, segment.CREATOR_OFFSET, 16).store(1, 999)
    claim_run(runs / "test").release()
    assert tape.state == RunState.REPLACED


def test_a_stale_run_may_hold_anything_but_a_folder(runs: Path) -> None:
    folder = abandon(make_run(runs / "test"))
    (folder.path / "short").write_bytes(b"x")
    (folder.path / "long").write_bytes(b"x" * 10_000)
    outside = runs.parent / "outside"
    outside.write_bytes(b"x" * 10_000)
    (folder.path / "link").symlink_to(outside)
    claim_run(runs / "test").release()
    assert outside.read_bytes() == b"x" * 10_000
    outside.unlink()


def test_release_does_not_touch_a_folder_that_another_has_made_in_its_place(runs: Path) -> None:
    first = claim_run(runs / "test")
    first.folder.lock.unlink()
    second = claim_run(runs / "test")
    assert not first.holds()
    first.release()
    assert second.holds()
    second.release()
    assert not runs.exists()


def test_of_many_who_claim_a_run_at_once_one_gets_it_each_time(runs: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from mdring.supervisor.folder import *\n"
        "won = 0\n"
        "for _ in range(200):\n"
        "  try: claim = claim_run(Path(sys.argv[1]))\n"
        "  except StartError as error: assert 'is already up' in str(error), error; continue\n"
        "  mark = claim.folder.path / 'mark'; mark.touch(exist_ok=False); won += 1; time.sleep(0.001)\n"
        "  assert [p.name for p in claim.folder.path.iterdir() if p != claim.folder.lock] == ['mark']\n"
        "  claim.release()\n"
        "print(won)\n"
    )
    claimers = [
        subprocess.Popen([sys.executable, "-c", script, str(runs / "test")], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    won = [int(claimer.communicate(timeout=120)[0]) for claimer in claimers]
    assert [claimer.returncode for claimer in claimers] == [0] * 4
    assert sum(won) > 0
    assert not runs.exists()


@pytest.mark.parametrize(("more", "rows", "books"), [({}, 4096, 256), ({"match": "*"}, 8192, 8192)])
def test_instruments_that_nobody_can_count_yet_have_room(
    runs: Path, more: dict[str, str], rows: int, books: int
) -> None:
    config = small_config(runs)
    (venue,) = config.venues
    pattern = tuple(SubscriptionConfig(data_types=("trade",), **more) for _ in more)
    venue = msgspec.structs.replace(venue, subscriptions=(*venue.subscriptions, *pattern))
    config = msgspec.structs.replace(config, venues=(venue,), books=BooksConfig(checkpoint_bytes=1 << 20))
    claim = claim_run(runs / "test")
    RunSegments.create(claim.folder, config, run_id=7)
    assert InstrumentTable.attach(claim.folder.instruments).segment.slot_count == rows
    assert claim.folder.channels(venue.id).stat().st_size == segment.HEADER_SIZE + 64 * rows
    assert BookTable.attach(claim.folder.books).segment.slot_count == books
    claim.release()


def test_the_segments_of_a_run_are_ready_to_be_written_by_their_processes(runs: Path) -> None:
    claim = claim_run(runs / "test")
    config = small_config(runs, ["alpha", "beta"])
    made = RunSegments.create(claim.folder, config, run_id=7)
    write_config(claim.folder, config)
    rings = [attach_ring(claim.folder.venue_ring(venue), writable=True) for venue in ("alpha", "beta")]
    for mapped in (*rings, attach_ring(claim.folder.tape, writable=True)):
        mapped.lock()
        assert (mapped.run_id, mapped.slot_size, mapped.slot_count, mapped.cursor) == (7, 128, 1024, 0)
    assert made.own.load(Counter.PID) == os.getpid()
    assert sorted(made.counters) == ["sequencer", "supervisor", "worker-alpha", "worker-beta"]
    assert from_json(claim.folder.config.read_bytes()) == config
    claim.release()


def test_run_json_appears_whole(runs: Path) -> None:
    claim = claim_run(runs / "test")
    info = RunInfo("test", 7, os.getpid(), "1.0", {"alpha": 1}, demo=True)
    write_info(claim.folder, info)
    assert msgspec.json.decode(claim.folder.info.read_bytes(), type=RunInfo) == info
    assert sorted(path.name for path in claim.folder.path.iterdir()) == ["run.json", "supervisor.lock"]
    claim.release()


@pytest.fixture
def small_memory(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 256 KiB: /dev/shm on a machine where it is full."""
    place = tmp_path / "shm"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a full /dev/shm cannot be had here, a small tmpfs needs root: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_dev_shm_is_an_error_that_says_what_to_do_and_leaves_nothing(small_memory: Path) -> None:
    with supervised(small_config(small_memory / "runs")) as run:
        assert run.wait() == 1
    [line] = [line for line in run.log_lines() if line["level"] == "error"]
    assert "cannot make the segments of the run" in line["message"]
    assert "No space left on device" in line["message"]
    assert "configure fewer slots" in line["message"]
    assert list(small_memory.iterdir()) == []


def test_a_full_dev_shm_without_room_for_a_page_is_the_same(small_memory: Path) -> None:
    with open(small_memory / "filler", "wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
        while True:
            filler.write(bytes(4096))
    with pytest.raises(StartError, match="No space left on device"):
        claim_run(small_memory / "runs" / "test")
    assert [path.name for path in small_memory.iterdir()] == ["filler"]
