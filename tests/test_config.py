"""config.toml → Config: what is refused, with which words, and what is filled in."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mdring import config as configuration
from mdring.config import Config, ConfigError, from_json, load, to_json
from mdring.config_check import _MAX_NAME_BYTES, MIN_SLOTS, resolve
from mdring.config_strict import StrictReader
from mdring.feed.adapter import load_adapter
from mdring.instrument import INSTRUMENT
from mdring.record import DataType

SHIPPED = Path(__file__).parents[1] / "config.toml"

THIRD_PARTY_VENUE = """
from typing import Annotated, Literal

from msgspec import Meta, Struct

from mdring.feed.adapter import Adapter, Endpoints, Limits
from mdring.record import DataType


class Options(Struct, frozen=True):
    depth: Annotated[int, Meta(ge=1, le=5000)] = 1000
    speed: Literal["slow", "fast"] = "fast"
    regions: tuple[str, ...] = ("eu",)


class PaperAdapter(Adapter):
    venue = "paper"
    data_types = (DataType.TRADE, DataType.BOOK)
    integrity = "none"
    endpoints = Endpoints("wss://ws.paper.example", "https://rest.paper.example")
    limits = Limits(max_connection_life_s=86400.0, stale_after_s=12.5)
    options = Options
"""

VENUE = """
[[venues]]
id = "paper"
adapter = "paper"
{more}
[[venues.subscriptions]]
instrument = "AAA"
data_types = ["trade", "book"]
"""


@pytest.fixture(scope="module", autouse=True)
def third_party_venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A venue as a third party adds one: a distribution with an entry point."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "paper_venue.py").write_text(THIRD_PARTY_VENUE)
    metadata = folder / "paper_venue-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: paper-venue\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[mdring.adapters]\npaper = paper_venue:PaperAdapter\nbroken = paper_venue:NoSuchClass\n"
    )
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write_


def problems(path: Path, *overrides: str) -> dict[str, str]:
    """Key → the rest of each problem that ``load`` reports."""
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return {problem.key: str(problem).removeprefix(f"{problem.key}: ") for problem in caught.value.problems}


def venue(more: str = "") -> str:
    return VENUE.format(more=more)


class TestAValidFile:
    def test_what_it_leaves_out_has_the_documented_default(self, write: Write) -> None:
        config = load(write(venue()))
        assert config.tape.slots == 262_144
        assert config.venues[0].connection.reconnect_delay_ms == 500
        assert config.venues[0].breaker.enabled

    def test_the_adapter_supplies_addresses_limits_and_options(self, write: Write) -> None:
        paper = load(write(venue())).venues[0]
        assert paper.websocket_url == "wss://ws.paper.example"
        assert paper.rest_url == "https://rest.paper.example"
        assert paper.connection.stale_after_ms == 12_500
        assert paper.connection.max_connection_life_s == 86_400
        assert paper.options == {"depth": 1000, "speed": "fast", "regions": ("eu",)}

    def test_the_file_overrides_what_the_adapter_supplies(self, write: Write) -> None:
        paper = load(
            write(
                venue(
                    'websocket_url = "ws://127.0.0.1:1"\nrest_url = "http://127.0.0.1:2"\n'
                    "connection = { stale_after_ms = 7, max_connection_life_s = 8 }\n"
                    'options = { depth = 20, regions = ["us", "eu"] }\n'
                )
            )
        ).venues[0]
        assert (paper.websocket_url, paper.rest_url) == ("ws://127.0.0.1:1", "http://127.0.0.1:2")
        assert (paper.connection.stale_after_ms, paper.connection.max_connection_life_s) == (7, 8)
        assert paper.options == {"depth": 20, "speed": "fast", "regions": ("us", "eu")}

    def test_data_types_are_those_of_the_adapter_port(self, write: Write) -> None:
        assert load(write(venue())).venues[0].subscriptions[0].wanted == (DataType.TRADE, DataType.BOOK)

    def test_relative_paths_start_at_the_file(self, write: Write, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").write_text("")
        config = load(write('run = { directory = "runs" }\n' + venue('ca_file = "ca.pem"')))
        assert config.venues[0].ca_file == str(tmp_path / "ca.pem")
        assert config.run.path == tmp_path / "runs" / "default"

    def test_a_tilde_is_the_home_of_the_user(self, write: Write) -> None:
        config = load(write(venue()))
        assert config.run.state_path == Path.home() / ".local/state/mdring/default"

    def test_a_disabled_venue_is_kept_but_not_enabled(self, write: Write) -> None:
        second = venue("enabled = false").replace('id = "paper"', 'id = "second"')
        config = load(write(venue() + second))
        assert [each.id for each in config.venues] == ["paper", "second"]
        assert [each.id for each in config.enabled_venues] == ["paper"]

    def test_room_for_checkpoints_follows_the_subscriptions_unless_it_is_given(self, write: Write) -> None:
        assert load(write(venue())).checkpoint_bytes == 8 * 2**20
        one = load(write(venue())).venues[0].subscriptions[0]
        many = tuple(msgspec.structs.replace(one, instrument=f"I{number}") for number in range(1000))
        wide = configuration.Config(
            venues=(
                configuration.VenueConfig(id="a", adapter="paper", subscriptions=many),
                configuration.VenueConfig(id="b", adapter="paper", subscriptions=many, enabled=False),
            )
        )
        assert wide.checkpoint_bytes == 1000 * 128 * 2**10
        assert load(write("books.checkpoint_bytes = 1048576\n" + venue())).checkpoint_bytes == 2**20


class TestTheShippedFile:
    def test_is_valid(self) -> None:
        venues = load(SHIPPED).enabled_venues
        assert [each.id for each in venues] == [each.adapter for each in venues] and venues[0].id == "binance"

    def test_names_every_venue_that_there_is_an_adapter_for(self) -> None:
        project = tomllib.loads((SHIPPED.parent / "pyproject.toml").read_text())["project"]
        assert [each.adapter for each in load(SHIPPED).venues] == sorted(project["entry-points"]["mdring.adapters"])

    def test_shows_every_key_with_its_default(self) -> None:
        document = tomllib.loads(SHIPPED.read_text())
        shown = document.pop("venues")[0]
        defaults: dict[str, Any] = msgspec.to_builtins(Config())
        del defaults["venues"]
        del defaults["sequencer"]["cpu"]  # absent means any
        del defaults["books"]["cpu"]
        del defaults["run"]["directory"]  # absent means what the environment says
        assert '# directory = "/dev/shm/mdring" ' in SHIPPED.read_text()
        assert document == defaults
        venue_defaults = msgspec.to_builtins(configuration.VenueConfig(id="binance", adapter="binance"))
        for absent in ("websocket_url", "rest_url", "ca_file", "cpu", "options", "subscriptions"):
            del venue_defaults[absent]
            assert f"# {absent} = " in SHIPPED.read_text() or f"venues.{absent}]" in SHIPPED.read_text()
        del shown["subscriptions"]
        assert shown.pop("options") == msgspec.to_builtins(load_adapter("binance").options())
        assert shown == venue_defaults

    def test_reaches_the_other_processes_with_what_the_adapters_put_in(self) -> None:
        config = load(SHIPPED)
        assert from_json(to_json(config)) == config

    def test_has_a_handful_of_instruments(self) -> None:
        subscriptions = load(SHIPPED).venues[0].subscriptions
        assert {"BTCUSDT", "ETHUSDT", "SOLUSDT", "BNBUSDT", "XRPUSDT"} <= {each.instrument for each in subscriptions}


class TestUnknownKeys:
    @pytest.mark.parametrize(
        ("text", "key", "nearest"),
        [
            ("[tape]\nslot = 65536", "tape.slot", "slots"),
            ("[sequenser]", "sequenser", "sequencer"),
            ('[run]\nnaem = "x"', "run.naem", "name"),
        ],
    )
    def test_name_the_nearest_valid_key(self, write: Write, text: str, key: str, nearest: str) -> None:
        assert f"unknown key; did you mean '{nearest}'?" in problems(write(text + venue()))[key]

    def test_name_all_valid_keys(self, write: Write) -> None:
        assert problems(write("[tape]\nx = 1" + venue()))["tape.x"].endswith("valid: slots")

    def test_are_found_in_the_tables_of_the_second_venue(self, write: Write) -> None:
        second = venue("[venues.connection]\nreconect_delay_ms = 1").replace('"paper"', '"second"', 1)
        report = problems(write(venue() + second))
        assert list(report) == ["venues[1].connection.reconect_delay_ms"]
        assert "did you mean 'reconnect_delay_ms'?" in report["venues[1].connection.reconect_delay_ms"]

    def test_are_found_in_the_options_of_the_adapter(self, write: Write) -> None:
        found = problems(write(venue("options = { dept = 1 }")))
        assert found == {"venues[0].options.dept": "unknown key; did you mean 'depth'?; valid: depth, speed, regions"}

    def test_are_found_in_a_subscription(self, write: Write) -> None:
        found = problems(write(venue() + 'symbol = "x"'))
        assert list(found) == ["venues[0].subscriptions[0].symbol"]


class TestWrongValues:
    @pytest.mark.parametrize(
        ("line", "key", "found", "valid"),
        [
            ('ring_slots = "many"', "ring_slots", '"many"', "a power of two"),
            ("ring_slots = 65535", "ring_slots", "65535", "a power of two from 32768"),
            ("ring_slots = 16384", "ring_slots", "16384", "a power of two from 32768"),
            ("enabled = 1", "enabled", "1", "true or false"),
            ("cpu = -1", "cpu", "-1", "the number of a CPU"),
            ("cpu = 1000000", "cpu", "1000000", str(min(os.sched_getaffinity(0)))),
            ('idle = "sleep"', "idle", '"sleep"', 'one of "backoff", "block", "spin", "yield"'),
            ('websocket_url = "https://x"', "websocket_url", '"https://x"', "wss://"),
            ('websocket_url = "wss://"', "websocket_url", '"wss://"', "wss://"),
            ('rest_url = "wss://x"', "rest_url", '"wss://x"', "https://"),
            ('ca_file = "/nowhere"', "ca_file", '"/nowhere"', "no such file"),
            ("options = 3", "options", "3", "a table"),
            ("connection = 3", "connection", "3", "reconnect_delay_ms"),
            ("options = { depth = 0 }", "options.depth", "0", "at least 1, at most 5000"),
            ('options = { speed = "warp" }', "options.speed", '"warp"', 'one of "fast", "slow"'),
            ("options = { regions = [1] }", "options.regions[0]", "1", "text"),
            ("connection = { dns_timeout_ms = 0 }", "connection.dns_timeout_ms", "0", "from 1 to 86400000"),
            ("connection = { dns_timeout_ms = 1.5 }", "connection.dns_timeout_ms", "1.5", "whole"),
            ("connection = { dns_timeout_ms = true }", "connection.dns_timeout_ms", "true", "whole"),
            ("connection = { max_reconnect_attempts = -1 }", "connection.max_reconnect_attempts", "-1", "at least 0"),
            ("breaker = { failure_threshold = 2000-01-01 }", "breaker.failure_threshold", "2000-01-01", "whole"),
        ],
    )
    def test_name_key_found_and_valid(self, write: Write, line: str, key: str, found: str, valid: str) -> None:
        report = problems(write(venue(line)))
        assert list(report) == [f"venues[0].{key}"]
        assert found in report[f"venues[0].{key}"]
        assert valid in report[f"venues[0].{key}"]

    @pytest.mark.parametrize(
        ("line", "key", "valid"),
        [
            ("levels = 0", "levels", "at least 1"),
            ("levels = 1001", "levels", "at most 1000"),
            (
                "checkpoint_bytes = 4096",
                "checkpoint_bytes",
                "at least 1048576, or 0: as much as the subscriptions need",
            ),
            ('idle = "sleep"', "idle", 'one of "backoff", "block", "spin", "yield"'),
            ("cpu = 1000000", "cpu", str(min(os.sched_getaffinity(0)))),
            ("level = 5", "level", "levels"),
        ],
    )
    def test_of_the_book_keeper(self, write: Write, line: str, key: str, valid: str) -> None:
        report = problems(write(f"[books]\n{line}\n{venue()}"))
        assert list(report) == [f"books.{key}"]
        assert valid in report[f"books.{key}"]

    @pytest.mark.parametrize("name", ["", "Upper", "a/b", "..", "a b", "x" * 25, "line\\n"])
    def test_a_name_that_cannot_be_a_files_name(self, write: Write, name: str) -> None:
        assert list(problems(write(f'run.name = "{name}"\n' + venue()))) == ["run.name"]

    def test_a_data_type_that_the_adapter_does_not_have(self, write: Write) -> None:
        text = venue().replace('["trade", "book"]', '["trade", "bbo"]')
        assert problems(write(text)) == {
            "venues[0].subscriptions[0].data_types[1]": "adapter 'paper' has no such data type; "
            'found "bbo"; valid: trade, book'
        }

    def test_no_data_type_at_all(self, write: Write) -> None:
        report = problems(write(venue().replace('["trade", "book"]', "[]")))
        assert "at least 1" in report["venues[0].subscriptions[0].data_types"]

    def test_an_adapter_that_is_not_installed(self, write: Write) -> None:
        report = problems(write(venue().replace('adapter = "paper"', 'adapter = "papr"')))
        assert list(report) == ["venues[0].adapter"]
        assert "paper" in report["venues[0].adapter"]

    def test_an_adapter_that_cannot_be_loaded(self, write: Write) -> None:
        report = problems(write(venue().replace('adapter = "paper"', 'adapter = "broken"')))
        assert "cannot be loaded" in report["venues[0].adapter"]
        assert "NoSuchClass" in report["venues[0].adapter"]

    def test_a_table_where_an_array_of_tables_must_stand(self, write: Write) -> None:
        assert "must be an array" in problems(write('[venues]\nid = "x"'))["venues"]


class TestMissingKeys:
    def test_of_a_venue(self, write: Write) -> None:
        report = problems(write("[[venues]]\n"))
        assert list(report) == ["venues[0].id", "venues[0].adapter"]
        assert "is missing" in report["venues[0].id"]

    def test_of_a_subscription(self, write: Write) -> None:
        report = problems(write(venue() + "[[venues.subscriptions]]"))
        assert list(report) == ["venues[0].subscriptions[1].instrument", "venues[0].subscriptions[1].data_types"]


class TestPatterns:
    PATTERN = '[[venues.subscriptions]]\nmatch = "*-USDT"\nexclude = ["BTC-*"]\ndata_types = ["trade"]\n'

    def test_stand_beside_instruments(self, write: Write) -> None:
        config = load(write(venue() + self.PATTERN))
        pattern = config.venues[0].subscriptions[1]
        assert (pattern.instrument, pattern.match, pattern.exclude) == (None, "*-USDT", ("BTC-*",))
        assert config.has_patterns

    @pytest.mark.parametrize(
        ("text", "key", "words"),
        [
            ('instrument = "A"\nmatch = "*"', "match", "cannot stand beside 'instrument'"),
            ("", "instrument", "is missing; valid: exactly one of instrument, match"),
            ('instrument = "A"\nexclude = ["B"]', "exclude", "beside 'match' only"),
            ('match = "*"\ncanonical_symbol = "A-B"', "canonical_symbol", "beside 'instrument' only"),
            ('match = ""', "match", "not empty"),
            ("match = 3", "match", "not empty"),
            ('match = "*"\nexclude = "B"', "exclude", "must be an array"),
            ('match = "*"\nexclude = [""]', "exclude[0]", "not empty"),
            ('matsch = "*"', "matsch", "did you mean 'match'?"),
        ],
    )
    def test_errors_name_the_key_and_what_is_valid(self, write: Write, text: str, key: str, words: str) -> None:
        entry = f'[[venues.subscriptions]]\ndata_types = ["trade"]\n{text}\n'
        assert words in problems(write(venue() + entry))[f"venues[0].subscriptions[1].{key}"]

    def test_data_types_are_checked(self, write: Write) -> None:
        report = problems(write(venue() + self.PATTERN.replace('"trade"', '"traid"')))
        assert list(report) == ["venues[0].subscriptions[1].data_types[0]"]

    def test_make_room_for_what_nobody_can_count_yet(self, write: Write) -> None:
        assert load(write(venue())).instrument_rows == 4_096
        assert load(write(venue() + self.PATTERN)).instrument_rows == 8_192
        assert load(write("run.max_instruments = 100\n" + venue() + self.PATTERN)).instrument_rows == 101
        assert load(write(venue() + self.PATTERN)).checkpoint_bytes == 501 * 128 * 2**10

    def test_survive_the_way_into_the_run_folder(self, write: Write) -> None:
        config = load(write(venue() + self.PATTERN))
        assert from_json(to_json(config)).venues[0].subscriptions == config.venues[0].subscriptions


class TestRulesAcrossKeys:
    def test_there_must_be_a_venue(self, write: Write) -> None:
        assert "there is no venue" in problems(write(""))["venues"]

    def test_a_venue_must_be_enabled(self, write: Write) -> None:
        assert "no venue is enabled" in problems(write(venue("enabled = false")))["venues"]

    def test_a_venue_must_have_a_subscription(self, write: Write) -> None:
        report = problems(write('[[venues]]\nid = "paper"\nadapter = "paper"'))
        assert "no subscription" in report["venues[0].subscriptions"]

    def test_venue_ids_must_differ(self, write: Write) -> None:
        report = problems(write(venue() + venue()))
        assert report == {"venues[1].id": 'stands already at venues[0].id; found "paper"'}

    def test_instruments_of_a_venue_must_differ(self, write: Write) -> None:
        again = '[[venues.subscriptions]]\ninstrument = "AAA"\ndata_types = ["book"]\n'
        assert list(problems(write(venue() + again))) == ["venues[0].subscriptions[1].instrument"]

    def test_canonical_symbols_of_a_venue_must_differ(self, write: Write) -> None:
        again = '[[venues.subscriptions]]\ninstrument = "BBB"\ndata_types = ["book"]\ncanonical_symbol = "A"\n'
        text = venue() + 'canonical_symbol = "A"\n' + again
        assert list(problems(write(text))) == ["venues[0].subscriptions[1].canonical_symbol"]

    def test_two_venues_may_share_instrument_and_canonical_symbol(self, write: Write) -> None:
        one = venue() + 'canonical_symbol = "A"\n'
        assert len(load(write(one + one.replace('id = "paper"', 'id = "other"'))).venues) == 2

    def test_a_data_type_stands_once(self, write: Write) -> None:
        report = problems(write(venue().replace('["trade", "book"]', '["trade", "trade"]')))
        assert "twice" in report["venues[0].subscriptions[0].data_types[1]"]

    def test_the_first_reconnect_delay_is_not_above_the_last(self, write: Write) -> None:
        report = problems(write(venue("connection = { reconnect_delay_ms = 40_000 }")))
        assert report == {
            "venues[0].connection.reconnect_delay_ms": "is larger than max_reconnect_delay_ms; found 40000; "
            "valid: at most 30000"
        }

    def test_the_first_restart_delay_is_not_above_the_last(self, write: Write) -> None:
        assert list(problems(write("supervisor.restart_delay_ms = 20_000\n" + venue()))) == [
            "supervisor.restart_delay_ms"
        ]

    def test_an_event_group_of_a_venue_ring_fits_on_the_tape(self, write: Write) -> None:
        assert "tape.slots" in problems(write("tape.slots = 32768\n" + venue()))["venues[0].ring_slots"]

    def test_the_smallest_ring_holds_a_book_image_in_its_half(self) -> None:
        assert MIN_SLOTS // 2 >= 2 * 5_000 + 2 > MIN_SLOTS // 4

    def test_an_instrument_fits_in_the_instrument_table(self, write: Write) -> None:
        assert _MAX_NAME_BYTES == INSTRUMENT["instrument"].itemsize == INSTRUMENT["canonical_symbol"].itemsize
        fits, too_long = "é" * (_MAX_NAME_BYTES // 2), "é" * (_MAX_NAME_BYTES // 2) + "x"
        assert load(write(venue().replace("AAA", fits))).venues[0].subscriptions[0].instrument == fits
        assert list(problems(write(venue().replace("AAA", too_long)))) == ["venues[0].subscriptions[0].instrument"]


class TestAllErrorsAreReportedAtOnce:
    def test_also_those_of_rules_next_to_wrong_values_and_unknown_keys(self, write: Write) -> None:
        text = (
            'log.level = "loud"\ntape.size = 1\n'
            + venue("ring_slots = 3\nconnection = { dns_timeout_ms = 0 }\noptions = { depth = 0, x = 1 }")
            + '[[venues.subscriptions]]\ninstrument = "AAA"\ndata_types = ["boook"]\n'
            + '[[venues]]\nid = "paper"\nadapter = "none"\n'
        )
        assert set(problems(write(text))) == {
            "log.level",
            "tape.size",
            "venues[0].ring_slots",
            "venues[0].connection.dns_timeout_ms",
            "venues[0].options.depth",
            "venues[0].options.x",
            "venues[0].subscriptions[1].instrument",
            "venues[0].subscriptions[1].data_types[0]",
            "venues[1].id",
            "venues[1].adapter",
            "venues[1].subscriptions",
        }

    def test_the_message_names_the_file_and_counts_them(self, write: Write) -> None:
        path = write("a = 1\nb = 2" + venue())
        with pytest.raises(ConfigError, match=r"config\.toml: 2 errors\n  a: unknown key"):
            load(path)


class TestAFileThatCannotBeRead:
    def test_because_it_is_absent(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="No such file"):
            load(tmp_path / "absent.toml")

    def test_because_it_is_no_toml(self, write: Write) -> None:
        with pytest.raises(ConfigError, match=r"is not TOML: .*line 2"):
            load(write("[run]\nname = = 1"))

    def test_because_it_is_no_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "config.toml"
        path.write_bytes(b"# \xff")
        with pytest.raises(ConfigError, match="is not TOML"):
            load(path)


class TestOverrides:
    def test_set_numbers_texts_and_keys_of_absent_tables(self, write: Write) -> None:
        config = load(
            write(venue()),
            [
                "run.name=other",
                'log.level = "debug"',
                "venues[0].connection.stale_after_ms=5_000",
                "venues[0].subscriptions[0].data_types=['trade']",
            ],
        )
        assert config.run.name == "other"
        assert config.log.level == "debug"
        assert config.venues[0].connection.stale_after_ms == 5_000
        assert config.venues[0].subscriptions[0].data_types == ("trade",)

    def test_are_checked_like_the_file(self, write: Write) -> None:
        assert list(problems(write(venue()), "tape.slots=7", "tape.slot=7")) == ["tape.slot", "tape.slots"]

    @pytest.mark.parametrize(
        "override",
        [
            "run.name",
            "=1",
            "run..name=1",
            "venues[1].id=x",
            "run[0].name=x",
            "venues[0]=1",
            "venues.id=x",
            "tape.a.b.c[0].d=1",
        ],
    )
    def test_of_a_wrong_form_are_config_errors(self, write: Write, override: str) -> None:
        with pytest.raises(ConfigError):
            load(write(venue()), [override])


class TestJson:
    def test_gives_back_the_same_configuration(self, write: Write) -> None:
        config = load(write(venue("cpu = 0\noptions = { depth = 5 }" if 0 in os.sched_getaffinity(0) else "")))
        again = from_json(to_json(config))
        assert to_json(again) == to_json(config)
        assert again.venues[0].subscriptions == config.venues[0].subscriptions
        assert again.run == config.run

    def test_of_something_else_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"config\.json"):
            from_json(b'{"run": {"nam": 1}}')
        with pytest.raises(ConfigError, match=r"config\.json"):
            from_json(b"{")


values = st.sampled_from([0, -1, 2**70, 1.5, float("nan"), True, "", "é", "trade", [], [1], ["a", {}], {}, {"id": 1}])


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_valid_document_with_any_value_replaced_never_makes_the_reader_raise(data: st.DataObject) -> None:
    document = tomllib.loads(venue("options = { depth = 5 }\nconnection = { dns_timeout_ms = 5 }\ncpu = 0"))
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(values)
    reader = StrictReader()
    config = resolve(reader.read(Config, document, ""), reader, Path("/"))
    if not reader.problems:
        assert from_json(to_json(config)).run == config.run
