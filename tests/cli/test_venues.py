"""mdring venues: one row for each adapter, and the README has the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from msgspec import Struct

from mdring.cli.venues import BEGIN, COLUMNS, END, between_marks, limits_text, markdown
from mdring.feed.adapter import Endpoints, Limits, adapter_names, load_adapter
from mdring.record import DataType
from tests.cli.command import mdring
from tests.feed.paper import PaperAdapter, PaperOptions

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_the_readme_has_the_table_that_the_command_prints() -> None:
    _, table, _ = between_marks(README.read_text(), README)
    printed = mdring("venues", "--markdown").stdout
    assert table.strip() == printed.strip(), "run: .venv/bin/mdring venues --write README.md"


def test_every_adapter_has_a_row() -> None:
    result = mdring("venues")
    assert (result.returncode, result.stderr) == (0, "")
    for name in adapter_names():
        assert load_adapter(name).title().split()[0] in result.stdout
        assert f" {name} " in result.stdout
    for column in COLUMNS:
        assert column in result.stdout


def test_json_has_what_the_classes_say() -> None:
    rows = {row["adapter"]: row for row in json.loads(mdring("venues", "--json").stdout)}
    assert list(rows) == adapter_names()
    for name, row in rows.items():
        adapter = load_adapter(name)
        assert row["data_types"] == [data_type.name.lower() for data_type in adapter.data_types]
        assert (row["integrity"], row["detects_loss"]) == (adapter.integrity, adapter.detects_loss)
        assert row["endpoints"]["websocket_url"] == adapter.endpoints.websocket_url
        assert row["limits"]["stale_after_s"] == adapter.limits.stale_after_s
        assert set(row["options"]) == set(adapter.options.__struct_fields__)


class PipedAdapter(PaperAdapter):
    """Paper Exchange. A second sentence."""

    venue: ClassVar[str] = "piped"
    integrity: ClassVar[str] = "a | b"
    data_types: ClassVar[tuple[DataType, ...]] = (DataType.OPEN_INTEREST,)
    limits: ClassVar[Limits] = Limits(max_connection_life_s=86_400.0, send_interval_s=0.25, weight_per_minute=1_200)
    endpoints: ClassVar[Endpoints] = Endpoints("", "")
    options: ClassVar[type[Struct]] = PaperOptions


def test_markdown_escapes_what_would_end_a_cell() -> None:
    row = markdown([PipedAdapter]).splitlines()[2]
    limits = "a frame in 0.25 s, REST weight 1200 a minute, connections of 24 h"
    assert row == rf"| Paper Exchange | `piped` | open_interest | a \| b | {limits} |"


def test_venue_without_limits_has_none() -> None:
    assert limits_text(Limits()) == ""


def test_table_is_put_between_the_marks_and_all_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):  # the second time changes nothing
        assert mdring("venues", "--write", path).returncode == 0
        assert path.read_text() == f"before\n{BEGIN}\n\n{mdring('venues', '--markdown').stdout}\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", f"{BEGIN}\n", f"{END}\n{BEGIN}"])
def test_page_without_the_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    result = mdring("venues", "--write", path)
    assert result.returncode == 1
    assert f"{path} has no lines" in result.stderr
    assert path.read_text() == text
