from pathlib import Path

import pytest

from fleetpulse.config import Settings, load
from fleetpulse.config.written import written

EVERYTHING = """\
team_number: 4
hosts: {producer: null, broker: "fd00::1", consumer1: "10.147.17.3", consumer2: c2.example.org}
broker: {port: 9192}
overlay: {network: 10.147.17.0/24}
zerotier: {port: 9994, token_file: /x/token}
topics: {cpu: a, mem: b, net: c, disk: d, windows: e, partitions: 3, replication_factor: 2, retention_h: 24}
time: {date: 2025-10-05, zone: Europe/Paris, output: iso, max_skew_s: 5}
window: {size_s: 60, slide_s: 20, origin: 5, leading: keep, lateness_s: 7, idle_close_s: 9}
arithmetic: float32
compare: exact
rules:
  cpu_mem:
    cpu_pct: {op: ">", limit: 85.123456, label: "scharf: 'ä' # {}"}
    mem_pct: {limit: 90}
    both: {label: "yes"}
    overrides: {"db-*": {cpu_pct: {limit: 95}}, "*": {}}
  net_disk:
    disk_io: {op: ">"}
    overrides: {web: {net_in: {op: ">", label: null}}}
rejects: {max_ratio: 0.25, max_in_a_row: 7}
stream: {master: "local[2]", trigger_s: 0, max_offsets_per_trigger: null, shuffle_partitions: 4, checkpoint_dir: x/y}
output_dir: elsewhere
"""  # noqa: E501  a settings file


def settings_of(folder: Path, text: str) -> Settings:
    path = folder / "given.yaml"
    path.write_text(text)
    return load(path, {}).settings


@pytest.mark.parametrize("text", ["", "hosts: {broker: 10.147.17.1}", EVERYTHING])
def test_written_settings_are_read_back_as_the_same(tmp_path: Path, text: str) -> None:
    given = settings_of(tmp_path, text)
    assert settings_of(tmp_path, written(given, {}, "title")) == given


def test_the_example_changes_every_key(tmp_path: Path) -> None:
    given = settings_of(tmp_path, EVERYTHING).model_dump(exclude={"security"})
    defaults = Settings().model_dump(exclude={"security"})
    assert [key for key in given if given[key] == defaults[key]] == []


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    given = settings_of(tmp_path, "broker: {port: 9192}\nwindow: {size_s: 30}")
    assert written(given, {"tls": False}, "Settings of x.") == (
        "# Settings of x.\nbroker:\n  port: 9192\nsecurity:\n  tls: false\n"
    )


def test_an_exception_says_no_more_than_it_changes(tmp_path: Path) -> None:
    text = (
        "rules:\n  cpu_mem:\n    overrides:\n      db-*:\n        cpu_pct:\n          limit: 95\n"
    )
    given = settings_of(tmp_path, text)
    assert written(given, {}, "title") == f"# title\n{text}        mem_pct: {{}}\nsecurity: {{}}\n"


def test_the_security_of_this_machine_is_not_that_of_another(tmp_path: Path) -> None:
    given = settings_of(tmp_path, "security: {user: admin, password_file: here}")
    assert "here" not in written(given, {"tls": True}, "title")
