"""The quarantine file: one line for each refused message, within bounds, and never a danger to the worker."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import pytest

from mdring.feed.quarantine import MAX_PAYLOAD_BYTES, Quarantine
from mdring.record import Reason


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_keeps_time_reason_source_and_text(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "new" / "q.jsonl", 1 << 20)
    quarantine.keep(17, Reason.BAD_MESSAGE, "not JSON", "connection 0", b"{]\xc3\xa4")
    quarantine.keep(18, Reason.CHECKSUM, "off by one", "connection 1", memoryview(b"x"))
    assert lines(quarantine.path) == [
        {"ts": 17, "reason": "BAD_MESSAGE", "detail": "not JSON", "source": "connection 0", "bytes": 4, "text": "{]ä"},
        {"ts": 18, "reason": "CHECKSUM", "detail": "off by one", "source": "connection 1", "bytes": 1, "text": "x"},
    ]


def test_what_is_no_text_is_kept_as_base64(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", 1 << 20)
    quarantine.keep(1, Reason.BAD_MESSAGE, "", "", b"\xff\x00")
    assert base64.b64decode(str(lines(quarantine.path)[0]["b64"])) == b"\xff\x00"


def test_long_payload_is_cut_and_keeps_its_length(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", 1 << 20)
    quarantine.keep(1, Reason.BAD_MESSAGE, "", "", b"a" * 100_000)
    line = lines(quarantine.path)[0]
    assert (line["text"], line["bytes"]) == ("a" * MAX_PAYLOAD_BYTES, 100_000)


def test_detail_that_utf8_cannot_hold_is_kept_all_the_same(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", 1 << 20)
    quarantine.keep(1, Reason.BAD_MESSAGE, "lone \ud800", "", b"")
    assert lines(quarantine.path)[0]["detail"] == "lone ?"


@pytest.mark.parametrize("payload", [b"a" * 100_000, b"\x00" * 100_000, b"\xff" * 100_000], ids=["a", "nul", "ff"])
@pytest.mark.parametrize("max_bytes", [4096, 1 << 16])
def test_both_files_stay_within_the_bound_and_the_oldest_give_way(
    tmp_path: Path, payload: bytes, max_bytes: int
) -> None:
    quarantine = Quarantine(tmp_path / "q.jsonl", max_bytes)
    for number in range(200):
        quarantine.keep(number, Reason.BAD_MESSAGE, "d" * 1000, "connection 0", payload)
        sizes = [path.stat().st_size for path in tmp_path.iterdir()]
        assert sum(sizes) <= max_bytes
    kept = [line["ts"] for path in (quarantine.older_path, quarantine.path) for line in lines(path)]
    assert kept == list(range(200 - len(kept), 200))
    assert kept


def test_disk_that_refuses_is_reported_once_and_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    quarantine = Quarantine(tmp_path / "file" / "q.jsonl", 1 << 20)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            quarantine.keep(1, Reason.BAD_MESSAGE, "", "", b"x")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
