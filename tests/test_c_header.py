"""The generated C header: it says what the dtypes say, and a C and a C++ program read what a Python consumer reads."""

from __future__ import annotations

import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import mdring
from mdring import c_header, record
from mdring.instrument import INSTRUMENT
from mdring.record import RECORD, TRADE, VIEW_OF_KIND, Flags, Kind
from mdring.ring import segment
from mdring.ring.segment import RunState
from tests.cli.command import mdring as mdring_command
from tests.runs import TestRun, attach_ring, open_reader, open_writer, records, temporary_run

HARNESS = Path(__file__).with_name("c_header_harness.c")
WARNINGS = ("-Wall", "-Wextra", "-Werror")
WATCHDOG_S = 60.0
COMPILERS = {
    "c11": ("gcc", "-x", "c", "-std=c11", "-O2"),
    "c++17": ("g++", "-x", "c++", "-std=c++17", "-O2"),
    "sanitized": ("gcc", "-std=gnu11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
}


@pytest.fixture(scope="module")
def text() -> str:
    return c_header.c_header()


def compile_header(text: str, folder: Path, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Compile the harness over the header ``text`` into ``folder/harness``. Skips where there is no compiler."""
    compiler = shutil.which(command[0])
    if compiler is None:
        pytest.skip(f"NOT RUN: there is no {command[0]}")
    (folder / "mdring.h").write_text(text)
    return subprocess.run(
        [compiler, *command[1:], *WARNINGS, f"-I{folder}", HARNESS, "-o", folder / "harness"],
        capture_output=True,
        text=True,
    )


class Harness:
    """The compiled program, a line at a time."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the program ended with {self._process.wait(WATCHDOG_S)}"
        return line.rstrip("\n")

    def ask(self, command: str) -> str:
        self.send(command)
        return self.line()

    def attach(self, run: TestRun, start: str = "tail") -> None:
        assert self.ask(f"attach {run.folder.path} {start}") == "ok"

    def poll(self, room: int) -> tuple[list[int], npt.NDArray[np.void]]:
        """[next, lost, laps, partial], and the records."""
        count, *where = (int(word) for word in self.ask(f"poll {room}").split())
        polled = b"".join(bytes.fromhex(self.line()) for _ in range(count))
        return where, np.frombuffer(polled, dtype=RECORD)

    def close(self) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        return self._process.wait(WATCHDOG_S)


@pytest.fixture(scope="module", params=COMPILERS)
def program(text: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("harness")
    compiled = compile_header(text, folder, COMPILERS[request.param])
    if request.param == "sanitized" and "cannot find" in compiled.stderr:
        pytest.skip("NOT RUN: this compiler has no sanitizers")
    assert compiled.returncode == 0, compiled.stderr
    return folder / "harness"


@pytest.fixture
def harness(program: Path) -> Iterator[Harness]:
    made = Harness(program)
    yield made
    assert made.close() == 0


# ---- the text ----------------------------------------------------------------------------------------------


def test_the_command_prints_the_header(text: str) -> None:
    result = mdring_command("header")
    assert (result.returncode, result.stdout, result.stderr) == (0, text, "")


def test_it_names_the_version_and_the_fingerprints_of_the_layout(text: str) -> None:
    assert f"#define MDRING_LAYOUT_VERSION UINT64_C({record.LAYOUT_VERSION})\n" in text
    assert f"#define MDRING_RECORD_FINGERPRINT UINT64_C(0x{record.FINGERPRINT:016x})\n" in text


def test_every_field_of_every_layout_is_asserted(text: str) -> None:
    layouts = {"record": RECORD, "instrument": INSTRUMENT, **{kind.name.lower(): VIEW_OF_KIND[kind] for kind in Kind}}
    for name, dtype in layouts.items():
        assert dtype.fields is not None
        assert f'static_assert(sizeof(mdring_{name}) == {dtype.itemsize}, "mdring_{name}");\n' in text
        for field, (of, offset, *_) in dtype.fields.items():
            assert f"MDRING_CHECK_FIELD(mdring_{name}, {field}, {offset}, {of.itemsize});\n" in text


def test_every_value_of_every_enumeration_is_there(text: str) -> None:
    assert "    MDRING_REASON_UNKNOWN_INSTRUMENT = 21,\n" in text
    for prefix, enumeration in (("KIND", Kind), ("FLAGS", Flags), ("STATE", record.State), ("REASON", record.Reason)):
        for name, member in enumeration.__members__.items():
            assert f"    MDRING_{prefix}_{name} = {member.value}" in text


@pytest.mark.parametrize("compiler", ["c11", "c++17"])
@pytest.mark.parametrize(
    ("original", "mutant"),
    [
        ("uint8_t trade_id_format;", "uint16_t trade_id_format;"),
        ("int64_t ask_price;\n    int64_t ask_size;", "int64_t ask_size;\n    int64_t ask_price;"),
        ("uint8_t _pad1[48];\n} mdring_level", "uint8_t _pad1[56];\n} mdring_level"),
        ("uint64_t slot_size;\n    uint64_t slot_count;", "uint64_t slot_count;\n    uint64_t slot_size;"),
    ],
)
def test_a_wrong_layout_does_not_compile(text: str, compiler: str, original: str, mutant: str, tmp_path: Path) -> None:
    assert text.count(original) == 1
    compiled = compile_header(text.replace(original, mutant), tmp_path, COMPILERS[compiler])
    assert compiled.returncode != 0
    assert "static assertion failed" in compiled.stderr


def test_the_protocol_is_that_of_the_ring_and_has_no_writer(text: str) -> None:
    ring = (Path(segment.__file__).parent / "ring.h").read_text()
    poll = ring[ring.index("static inline uint64_t mdring_poll(") : ring.index("/* ---- latency histogram")]
    assert poll.replace("load_", "mdring_load_").strip() in text
    assert "mdring_publish" not in text


# ---- a consumer in C and C++ -------------------------------------------------------------------------------


def trades(first: int, count: int, *, group: int = 1) -> npt.NDArray[np.void]:
    """Trades whose price and id are the seq that they will get."""
    seqs = np.arange(first, first + count)
    made = records(count, group=group, instrument_id=seqs % 3 + 1, price=seqs)
    made.view(TRADE)["trade_id"] = seqs
    made["kind"][seqs % 5 == 0] = Kind.LEVEL
    return made


def test_it_reads_what_a_python_consumer_reads(harness: Harness) -> None:
    """Whole groups, rooms of any size, laps, positions and losses: the same at every step."""
    randomness = random.Random(7)
    with temporary_run(tape_slots=256) as run:
        writer, reader = open_writer(run.tape), open_reader(attach_ring(run.folder.tape))
        harness.attach(run)
        laps = partials = 0
        for _ in range(300):
            group = randomness.choice([1, 1, 2, 5, 12])
            for _ in range(randomness.choice([0, 1, 3, 25])):
                writer.publish(trades(writer.cursor + 1, group, group=group))
            out = np.zeros(randomness.choice([1, 8, 100, 300]), dtype=RECORD)
            due = out[: reader.poll(out)]
            where, polled = harness.poll(len(out))
            assert where == [reader.position + 1, reader.lost, reader.laps, reader.partial]
            assert polled.tobytes() == due.tobytes()
            laps, partials = reader.laps, partials + reader.partial
        assert laps > 3
        assert partials > 3


def test_it_filters_as_a_python_consumer_does(harness: Harness) -> None:
    with temporary_run() as run:
        writer = open_writer(run.tape)
        writer.publish(trades(1, 100, group=4))
        harness.attach(run, "oldest")
        assert harness.ask(f"filter {1 << Kind.LEVEL} - 0") == "ok"
        assert set(harness.poll(1000)[1]["kind"]) == {Kind.LEVEL}
        harness.attach(run, "oldest")
        assert harness.ask(f"filter {1 << Kind.TRADE} 0,2 3") == "ok"
        where, polled = harness.poll(1000)
        # Instrument 3 is newer than a filter of 3 instruments (0..2), so it passes.
        assert where == [101, 0, 0, 0]
        assert set(polled["instrument_id"]) == {2, 3}
        assert set(polled["kind"]) == {Kind.TRADE}


def test_it_starts_at_the_tail_or_with_the_oldest_record(harness: Harness) -> None:
    with temporary_run(tape_slots=64) as run:
        writer = open_writer(run.tape)
        for first in range(1, 101):
            writer.publish(trades(first, 1))
        oldest = open_reader(attach_ring(run.folder.tape), 100).oldest()
        harness.attach(run, "oldest")
        assert harness.poll(1000)[1]["seq"].tolist() == list(range(oldest + 1, 101))
        harness.attach(run, "tail")
        writer.publish(trades(101, 1))
        assert harness.ask("about").split() == ["1", str(int(RunState.OPEN)), "1"]
        assert harness.poll(1000)[1]["seq"].tolist() == [101]


def test_a_waiting_consumer_is_woken_by_the_next_record(harness: Harness) -> None:
    with temporary_run() as run:
        writer = open_writer(run.tape)
        harness.attach(run)
        assert harness.ask("wait 1") == "0"
        harness.send(f"wait {int(WATCHDOG_S * 1000)}")
        writer.publish(trades(1, 1))
        writer.wake()
        assert harness.line() == "1"
        assert harness.poll(1)[1]["seq"].tolist() == [1]


def test_under_load_every_record_is_delivered_or_counted_as_lost(harness: Harness) -> None:
    total = 200_000
    prepared = trades(1, total, group=10)
    with temporary_run(tape_slots=256) as run:
        writer = open_writer(run.tape)
        harness.attach(run)
        harness.send("drain")

        def publish() -> None:
            for first in range(0, total, 50):
                writer.publish(prepared[first : first + 50])
                writer.wake()
            run.tape.end(RunState.CLOSED)

        thread = threading.Thread(target=publish)
        thread.start()
        delivered, lost, last = (int(word) for word in harness.line().split())
        thread.join()
        assert last == total
        assert delivered + lost == total
        assert delivered > 0


def test_it_sees_that_a_run_is_closed_or_dead(harness: Harness) -> None:
    with temporary_run() as run:
        harness.attach(run)
        run.tape.end(RunState.CLOSED)
        run.lock.close()
        assert harness.ask("about").split() == ["0", str(int(RunState.CLOSED)), "0"]


def test_it_reads_the_instrument_table_as_it_grows(harness: Harness) -> None:
    with temporary_run() as run:
        assert harness.ask(f"instruments {run.folder.path}") == "end"
        run.instruments.append(1, "alpha", "BTCUSDT", "BTC-USDT", -2, -5)
        longest = "x" * INSTRUMENT["instrument"].itemsize
        run.instruments.append(2, "beta", longest, "ETH-USDT", 0, 3)
        assert harness.ask(f"instruments {run.folder.path}") == "1 1 alpha BTCUSDT BTC-USDT -2 -5"
        assert [harness.line(), harness.line()] == [f"2 2 beta {longest} ETH-USDT 0 3", "end"]


def test_what_is_not_the_run_that_it_should_be_is_refused_by_name(harness: Harness, run_folder: Path) -> None:
    def attach() -> str:
        return harness.ask(f"attach {run_folder} tail")

    assert attach() == "no such run"
    tape = run_folder / "tape"
    tape.write_bytes(b"short")
    assert attach() == "the segment is not ready yet"
    tape.write_bytes(bytes(8192))
    assert attach() == "the segment is not ready yet"
    tape.write_bytes(bytes(8) + b"\x01" + bytes(8191))
    assert attach() == "not the segment it should be"

    def create(kind: segment.SegmentKind, version: int, fingerprint: int, slot_size: int = 128) -> None:
        tape.unlink()
        options = {"run_id": 1, "slot_size": slot_size, "slot_count": 8}
        segment.create(tape, kind, version=version, fingerprint=fingerprint, **options).close()

    ring = segment.SegmentKind.RING
    create(ring, record.LAYOUT_VERSION + 1, record.FINGERPRINT)
    assert attach() == "made by another layout version of mdring; generate mdring.h anew"
    create(ring, record.LAYOUT_VERSION, record.FINGERPRINT ^ 1)
    assert attach() == "made by another build of mdring; generate mdring.h anew"
    create(segment.SegmentKind.COUNTERS, record.LAYOUT_VERSION, record.FINGERPRINT)
    assert attach() == "not the segment it should be"
    create(ring, record.LAYOUT_VERSION, record.FINGERPRINT, slot_size=64)
    assert attach() == "made by another build of mdring; generate mdring.h anew"
    create(ring, record.LAYOUT_VERSION, record.FINGERPRINT)
    assert attach() == "ok"
    with tape.open("r+b") as file:
        file.truncate(segment.HEADER_SIZE + 128)
    assert attach() == "the segment is cut short"
    tape.unlink()


def test_decimals_are_exact_and_complete(harness: Harness) -> None:
    randomness = random.Random(3)
    edges = [0, 1, -1, 10, 99, -(2**63), 2**63 - 1, mdring.UNDEFINED_PRICE + 1]
    numbers = edges + [randomness.randint(-(10**digits), 10**digits) for digits in range(1, 19) for _ in range(4)]
    for scaled in numbers:
        for exponent in (-128, -20, -19, -8, -2, -1, 0, 1, 3, 127):
            due = format(Decimal(scaled).scaleb(exponent), "f") if scaled or exponent < 0 else "0"
            assert harness.ask(f"decimal {scaled} {exponent}") == due
