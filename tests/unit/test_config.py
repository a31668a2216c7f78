"""Settings: defaults, file, environment, and the message for each kind of mistake."""

import datetime as dt
from pathlib import Path

import pytest

from fleetpulse.config import Settings, load
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import CPU, CPU_MEM, NET_DISK
from fleetpulse.domain.rule import Operator
from fleetpulse.domain.window import WindowSpec

SHIPPED = Path(__file__).parents[2] / "config" / "config.yaml"


def mistake(tmp_path: Path, text: str) -> str:
    """Return the message for a settings file, with the folder taken out."""
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load(file, {})
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_shipped_file_holds_every_key_with_its_default() -> None:
    shipped = load(SHIPPED, {})
    assert shipped.settings == Settings()
    written = {".".join(path) for path in shipped.origins}
    assert {path for path, _, _ in shipped.leaves()} <= written


def test_shipped_file_explains_every_key() -> None:
    keyed = [line for line in SHIPPED.read_text().splitlines() if line.startswith("  ")]
    plain = [line for line in keyed if "#" not in line]
    # Hosts are explained above their section, topic names by the first, labels by the block.
    assert all(
        line.strip().split(":")[0]
        in {"producer", "broker", "consumer1", "consumer2", "mem", "net", "disk"}
        | {"cpu_mem", "net_disk", "both", "overrides"}
        for line in plain
    )


def test_without_any_file_the_defaults_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(None, {}).settings == Settings()


def test_keys_left_out_keep_their_defaults_at_every_depth(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("rules:\n  cpu_mem:\n    cpu_pct: {limit: 85.5}\nwindow:\n")
    cpu, mem = load(file, {}).settings.rule_set(CPU_MEM).thresholds
    assert (cpu.limit_micros, cpu.operator, cpu.label) == (
        85_500_000,
        Operator.AT_LEAST,
        "Performance spike suspected",
    )
    assert mem.limit_micros == 89_000_000


def test_environment_wins_over_the_file_and_is_named_as_origin(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("window: {size_s: 40}\nteam_number: 4\n")
    loaded = load(file, {"FLEETPULSE__WINDOW__SIZE_S": "60", "OTHER": "x"})
    leaves = {path: (value, origin) for path, value, origin in loaded.leaves()}
    assert leaves["window.size_s"] == (60, "environment FLEETPULSE__WINDOW__SIZE_S")
    assert leaves["team_number"] == (4, f"{file}:2")
    assert leaves["window.slide_s"] == (10, "default")


def test_command_line_wins_over_the_environment(tmp_path: Path) -> None:
    variable = {"FLEETPULSE__RULES__CPU_MEM__CPU_PCT__LIMIT": "70"}
    file = tmp_path / "c.yaml"
    file.write_text("")
    settings = load(file, variable, {"rules.cpu_mem.cpu_pct.limit": "85"}).settings
    assert settings.rule_set(CPU_MEM).thresholds[0].limit_micros == 85_000_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "window:\n  sizes_s: 3\n",
            (
                "c.yaml:2: unknown key window.sizes_s; did you mean size_s? Known here: "
                "size_s, slide_s, origin, leading, lateness_s, idle_close_s"
            ),
        ),
        (
            "window:\n  size_s: abc\n",
            "c.yaml:2: window.size_s: found 'abc', wanted a whole number",
        ),
        (
            "\n\nteam_number: ../../x\n",
            "c.yaml:3: team_number: found '../../x', wanted a whole number",
        ),
        (
            "rules:\n  cpu_mem:\n    cpu_pct: {limit: 101}\n",
            (
                "c.yaml:3: rules.cpu_mem.cpu_pct: limit >=101 cannot be met: "
                "cpu_pct goes from 0 to 100 %"
            ),
        ),
        (
            'rules: {cpu_mem: {cpu_pct: {op: ">", limit: 100}}}',
            (
                "c.yaml:1: rules.cpu_mem.cpu_pct: limit >100 cannot be met: "
                "cpu_pct goes from 0 to 100 %"
            ),
        ),
        (
            "rules: {net_disk: {overrides: {'db-*': {disk_io: {limit: 1e9}}}}}",
            "c.yaml:1: rules.net_disk.overrides.db-*.disk_io.limit: found '1e9', wanted a number",
        ),
        (
            "rules: {cpu_mem: {mem_pct: {limit: '80'}}}",
            "c.yaml:1: rules.cpu_mem.mem_pct.limit: found '80', wanted a number",
        ),
        (
            "rules: {cpu_mem: {mem_pct: {limit: true}}}",
            "c.yaml:1: rules.cpu_mem.mem_pct.limit: found True, wanted a number",
        ),
        (
            "rules: {cpu_mem: {mem_pct: {op: '<'}}}",
            "c.yaml:1: rules.cpu_mem.mem_pct.op: found '<', wanted '>=' or '>'",
        ),
        (
            "window: {size_s: 35}",
            (
                "c.yaml:1: window: size_s 35 is no whole multiple of slide_s 10, "
                "wanted one such as 30 and 10"
            ),
        ),
        (
            "window: {origin: 10}",
            (
                "c.yaml:1: window: origin 10 is not below slide_s 10, wanted epoch, "
                "first_event or a number of seconds below the slide"
            ),
        ),
        (
            "topics: {cpu: topic-mem}",
            "c.yaml:1: topics: two topics have the same name, wanted different ones",
        ),
        (
            "hosts: {broker: '10.0.0.1:9092'}",
            (
                "c.yaml:1: hosts.broker: found '10.0.0.1:9092', wanted a host name or IP address "
                "without a port (see broker.port)"
            ),
        ),
        (
            "time: {zone: Mars/Base}",
            (
                "c.yaml:1: time.zone: found 'Mars/Base', "
                "wanted an IANA zone such as UTC or Europe/Paris"
            ),
        ),
        (
            "time: {date: 2025-02-30}",
            "c.yaml:1: time.date: found '2025-02-30': day is out of range for month",
        ),
        (
            "time: {date: soon}",
            (
                "c.yaml:1: time.date: found 'soon', "
                "wanted yesterday, today or a date such as 2025-10-05"
            ),
        ),
        ("window: [1]", "c.yaml:1: window: found [1], wanted a section of keys"),
        ("a: 1\nb: *a\n", "c.yaml:2: aliases (*a) are not taken in settings"),
        (
            "window: {size_s: 30, size_s: 40}",
            "c.yaml:1: window.size_s stands here a second time",
        ),
        ("1: 2", "c.yaml:1: key 1 is not text; put quotes around it"),
        ("- window", "c.yaml:1: wanted settings such as 'window: {size_s: 30}'"),
        (
            "output_dir: !!python/object/apply:os.system ['ls']",
            (
                "c.yaml:1: output_dir: tags such as "
                "tag:yaml.org,2002:python/object/apply:os.system are not taken"
            ),
        ),
        ("window: {size_s: 30", "c.yaml:1: not YAML: expected ',' or '}', but got '<stream end>'"),
    ],
)
def test_mistake_is_explained_with_file_line_path_and_what_was_wanted(
    tmp_path: Path, text: str, message: str
) -> None:
    assert mistake(tmp_path, text) == message


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    lines = mistake(tmp_path, "window:\n  size_s: x\nteam_number: 0\nhost: {}\n").splitlines()
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4"]


def test_unknown_environment_variable_of_ours_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("")
    with pytest.raises(UsageError, match="environment FLEETPULSE__WINDO__SIZE_S: unknown key"):
        load(file, {"FLEETPULSE__WINDO__SIZE_S": "60"})


@pytest.mark.parametrize(
    "text", [b"\xff\xfe\x00", b"[" * 5000, b"{" * 5000, b"window: {size_s: 1}\n" * 10_000]
)
def test_hostile_file_is_one_clear_line(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "c.yaml"
    file.write_bytes(text)
    with pytest.raises(UsageError) as caught:
        load(file, {})
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_missing_file_says_which_option_named_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml: .*--config"):
        load(tmp_path / "absent.yaml", {})


def test_broker_that_is_not_set_names_the_key(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("hosts: {broker: null}")
    with pytest.raises(UsageError, match=r"hosts\.broker"):
        load(file, {}).settings.bootstrap()


@pytest.mark.parametrize(
    ("host", "bootstrap"),
    [("10.147.17.5", "10.147.17.5:9092"), ("fe80::1", "[fe80::1]:9092"), ("db.lan", "db.lan:9092")],
)
def test_bootstrap_joins_host_and_port(host: str, bootstrap: str) -> None:
    assert (
        load(SHIPPED, {"FLEETPULSE__HOSTS__BROKER": f"'{host}'"}).settings.bootstrap() == bootstrap
    )


def test_override_keeps_what_it_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("rules: {cpu_mem: {overrides: {'db-*': {cpu_pct: {limit: 95}}}}}")
    rules = load(file, {}).settings.rule_set(CPU_MEM)
    assert [t.limit_micros for t in rules.thresholds_for("db-1")] == [95_000_000, 89_000_000]
    assert [t.limit_micros for t in rules.thresholds_for("web-1")] == [80_000_000, 89_000_000]


def test_team_number_prefixes_the_window_files() -> None:
    settings = load(SHIPPED, {"FLEETPULSE__TEAM_NUMBER": "4"}).settings
    assert settings.windows_path(CPU_MEM) == Path("output/team_4_CPU_MEM.csv")
    assert Settings().windows_path(NET_DISK) == Path("output/NET_DISK.csv")
    assert settings.record_path(CPU) == Path("output/cpu_data.csv")


def test_first_event_origin_is_its_whole_second_within_the_slide() -> None:
    settings = load(SHIPPED, {"FLEETPULSE__WINDOW__ORIGIN": "first_event"}).settings
    assert settings.window.spec(1_234_567) == WindowSpec(30_000, 10_000, 4_000)
    assert settings.window.spec(None) == WindowSpec(30_000, 10_000, 0)


def test_start_date_follows_today() -> None:
    today = dt.date(2025, 3, 1)
    assert Settings().time.start_date(today) == dt.date(2025, 2, 28)
    fixed = load(SHIPPED, {"FLEETPULSE__TIME__DATE": "2024-01-01"}).settings
    assert fixed.time.start_date(today) == dt.date(2024, 1, 1)


@pytest.mark.parametrize(
    "text", ['window: {"\\e[2J\\nok": 1}', '"\\e[2J\\n": 1\n"\\e[2J\\n": 2', "window: !<%1b[2J> 1"]
)
def test_a_key_or_tag_plays_no_tricks_with_a_terminal(tmp_path: Path, text: str) -> None:
    assert mistake(tmp_path, text).isprintable()


@pytest.mark.parametrize("value", ["[" * 1000, "[&a x, *a]"])
def test_depth_and_aliases_are_refused_in_the_environment_too(value: str) -> None:
    with pytest.raises(UsageError, match="environment FLEETPULSE__TEAM_NUMBER"):
        load(None, {"FLEETPULSE__TEAM_NUMBER": value})
