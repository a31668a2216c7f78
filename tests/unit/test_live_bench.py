"""The referee of the live benchmark: what it calls equal, and what it calls a fault."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.config import load as load_settings
from fleetpulse.domain.metric import CPU_MEM, NET_DISK, TOPICS
from fleetpulse.edges.jars.lock import read_lock

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from peers.fleet import LATENESS_MS, Expected, Fleet, expected
from peers.install import LOCK, WANTED
from peers.ours import monitor, monitor_files
from peers.outputs import AlertLines, FileRows, Seen
from peers.process import Said, Usage
from peers.rows import Check, check
from peers.sender import Clock
from peers.start import Run
from peers.table import drain_rate, lines, summary

START_MS = 1_000_000
# Windows from 0 to 60 s of one server; the first two begin before its first sample.
ROWS = {("a", START_MS + at): (4181, None, "") for at in range(-20_000, 50_000, 10_000)}
LINES = [
    f"a,{start_ms},{start_ms + 30_000},41.81,,"
    for start_ms in range(START_MS - 20_000, START_MS + 50_000, 10_000)
]


def referee(folder: Path, written: list[str], *, may_hold_back: bool = False) -> Check:
    (folder / "cpu_mem.csv").write_text("".join(f"{line}\n" for line in written))
    wanted = {
        CPU_MEM: Expected(ROWS, START_MS, START_MS + 60_000),
        NET_DISK: Expected({}, START_MS, START_MS),
    }
    return check(folder, wanted, may_hold_back=may_hold_back)


def test_all_rows_of_the_reference_are_equal(tmp_path: Path) -> None:
    found = referee(tmp_path, LINES)
    assert (found.rows, found.equal, found.leading, found.is_right) == (7, 7, 2, True)


def test_windows_before_the_first_sample_may_be_left_out(tmp_path: Path) -> None:
    found = referee(tmp_path, LINES[2:])
    assert (found.equal, found.leading, found.is_right) == (5, 0, True)


def test_windows_that_end_after_the_input_may_be_left_out(tmp_path: Path) -> None:
    found = referee(tmp_path, LINES[:-1])
    assert (found.open_at_end, found.is_right) == (1, True)


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ([LINES[0].replace("41.81", "41.82"), *LINES[1:]], "wrong"),
        ([LINES[0] + "Disk thrash warning", *LINES[1:]], "wrong"),
        ([*LINES[:3], *LINES[4:]], "missing"),
        (LINES[:-2], "missing"),
        ([*LINES, LINES[3]], "repeated"),
        ([*LINES, "b,1000000,1030000,41.81,,"], "unknown"),
    ],
)
def test_a_fault_is_found_and_named(tmp_path: Path, written: list[str], fault: str) -> None:
    found = referee(tmp_path, written)
    assert getattr(found, fault) == 1
    assert not found.is_right


def test_only_the_last_rows_can_be_held_back_and_only_where_allowed(tmp_path: Path) -> None:
    found = referee(tmp_path, LINES[:-2], may_hold_back=True)
    assert (found.held_back, found.missing, found.is_right) == (1, 0, True)
    found = referee(tmp_path, [*LINES[:3], *LINES[4:]], may_hold_back=True)
    assert (found.held_back, found.missing) == (0, 1)


def test_a_family_that_gave_nothing_yet_holds_all_back(tmp_path: Path) -> None:
    found = referee(tmp_path, [], may_hold_back=True)
    assert (found.missing, found.is_right) == (0, True)


def test_instants_of_a_file_may_be_milliseconds_or_iso(tmp_path: Path) -> None:
    line = "a,1970-01-01T00:16:40Z,1970-01-01T00:17:10Z,41.81,,"
    assert referee(tmp_path, [line]).equal == 1


def test_the_reference_has_every_window_of_the_fleet() -> None:
    fleet = Fleet(servers=2, ticks=12)
    for found in expected(fleet).values():
        # One minute is six panes, and two windows begin before them.
        assert len(found.rows) == 2 * 8
        assert found.closed_until_ms == fleet.last_ms - LATENESS_MS


def test_a_window_can_close_once_its_last_topic_is_acknowledged() -> None:
    clock = Clock({30: [5.0, 7.0, 6.0]})
    assert clock.closed_s(30) is None
    clock.acknowledged[30].append(6.5)
    assert clock.closed_s(30) == 7.0
    assert clock.closed_between(7.0, 8.0) == {30: 7.0}
    assert clock.closed_between(6.0, 7.0) == {}


def test_cpu_time_between_two_looks_is_shared_out() -> None:
    usage = Usage(0, 10.0, 14.0, 3.0, 1, {}, [(11.0, 1.0), (13.0, 3.0)])
    assert [usage.cpu_s_at(at) for at in (10.5, 12.0, 20.0)] == [0.5, 2.0, 3.0]


def contestant(name: str, runs: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    found = {"name": name, "title": name, "missing": "", "runs": runs, "wide_runs": []}
    return found | {"latency": {}} | more


def cpu_runs(*cpu_s: float, busy_s: float = 1.0) -> list[dict[str, Any]]:
    return [
        {
            "cpu_s_per_million": one,
            "cpu_s_per_million_without_start": busy_s,
            "rss_peak_mb": 1,
            "messages_per_s": 1e6 / one,
        }
        for one in cpu_s
    ]


def test_a_ratio_compares_runs_of_the_same_round() -> None:
    results = {
        "contestants": [
            contestant("raw", cpu_runs(1, 2, 4)),
            contestant("monitor", cpu_runs(2, 2, 2)),
            contestant("peer", cpu_runs(3, 4, 20)),
        ]
    }
    peer = lines(results)[2]
    assert (peer.cpu_ratio, peer.ours_ratio) == (3.0, 2.0)
    assert peer.cpu_s is not None
    assert peer.cpu_s.text("{:.0f}") == "4 (3 to 20)"


def test_a_failed_run_counts_in_no_ratio_and_no_rate() -> None:
    failed = {"error": "exit code 1"}
    peer = contestant("peer", [failed, *cpu_runs(4, 8)])
    results = {"contestants": [contestant("raw", cpu_runs(1, 1, 2)), peer]}
    assert lines(results)[1].cpu_ratio == 4.0
    assert drain_rate(peer) == (1e6 / 4 + 1e6 / 8) / 2


def test_the_summary_names_what_cannot_run_what_cannot_keep_up_and_the_growth() -> None:
    ours = contestant("monitor", cpu_runs(2), wide_runs=cpu_runs(3, busy_s=1.4))
    slow = {"latency": {"100000": {"error": "cannot keep up: drains 9 messages/s"}}}
    peers = [contestant("slow", cpu_runs(8), **slow), contestant("gone", [], missing="no Java")]
    text = summary(
        {"rounds": 1, "servers": 100, "wide_servers": 100_000, "contestants": [ours, *peers]}
    )
    assert "| gone | cannot run: no Java |" in text
    assert "| slow | cannot keep up: drains 9 messages/s |" in text
    assert "| monitor | 1.00 | 1.40 | 1.40 | 333,333 |" in text


def test_the_first_and_the_last_thing_said_are_found_in_every_form(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text('[Stage 1:>  ]\rfirst 12.5\n{"event":"alert","again":false}\ndone 1')
    said = Said(log)
    said.look()
    assert said.events == {"first": 12.5}
    with log.open("a") as file:
        file.write("4.5\n")
    said.look()
    assert said.events == {"first": 12.5, "done": 14.5}


def test_our_commands_say_when_they_begin_and_end(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text('{"event": "reading", "seconds": 0.4}\n')
    said = Said(log)
    said.look()
    first_s = said.events["first"]
    assert abs(first_s - log.stat().st_mtime) < 60
    log.write_text(log.read_text() + '{"event": "end", "messages": 3}\n')
    said.look()
    assert said.events["first"] == first_s <= said.events["done"]


def test_a_batch_of_spark_began_its_seconds_before_it_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    empty, full = (
        json.dumps({"event": "batch", "messages": count, "seconds": 1000.0}) + "\n"
        for count in (0, 5)
    )
    log.write_text(empty)
    said = Said(log)
    said.look()
    assert said.events == {}
    log.write_text(empty + full)
    said.look()
    assert 900 < log.stat().st_mtime - said.events["first"] < 1100


def test_rows_are_followed_in_files_that_grow(tmp_path: Path) -> None:
    rows = FileRows(tmp_path)
    rows.look()
    path = tmp_path / "CPU_MEM.csv"
    header = "server_id,window_start,window_end,avg_cpu,avg_mem,alert\n"
    path.write_text(header + "a,10000,40000,1.00,2.00,\na,20000,50000,91.00")
    rows.look()
    with path.open("a") as file:
        file.write(",2.00,Performance spike suspected\n")
    rows.look()
    found = [(one.family, one.server, one.start_ms, one.is_alert) for one in rows.take(10)]
    assert found == [("cpu_mem", "a", 10_000, False), ("cpu_mem", "a", 20_000, True)]
    assert rows.take(10) == []


def test_no_more_lines_are_parsed_at_once_than_asked_for(tmp_path: Path) -> None:
    (tmp_path / "net_disk.csv").write_text("".join(f"{line}\n" for line in LINES))
    rows = FileRows(tmp_path)
    rows.look()
    assert [len(rows.take(4)) for _ in range(3)] == [4, 3, 0]


def test_alerts_are_followed_in_the_standard_output(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(
        '{"event": "reading", "seconds": 0.4}\n'
        '{"event":"alert","again":false,"family":"cpu_mem","server_id":"a",'
        '"start":"1970-01-01T00:00:10Z","end":"1970-01-01T00:00:40Z","alert":"hot"}\n'
    )
    alerts = AlertLines(log)
    alerts.look()
    (found,) = alerts.take(10)
    assert found == Seen("cpu_mem", "a", 10_000, is_alert=True, at_s=found.at_s)


def test_our_commands_read_the_topics_of_the_benchmark(tmp_path: Path) -> None:
    topics = ("t-cpu", "t-mem", "t-net", "t-disk")
    run = Run("127.0.0.1:1234", topics, tmp_path, 1000, LATENESS_MS, "t-windows")
    command = list(monitor(run).command)
    settings = load_settings(Path(command[command.index("--config") + 1]), {}, None).settings
    assert settings.bootstrap() == "127.0.0.1:1234"
    assert tuple(settings.topics.name(topic) for topic in TOPICS) == topics
    assert (settings.topics.windows, settings.output_dir) == ("t-windows", tmp_path)
    assert command[-2:] == ["--until-idle", "1s"]
    assert monitor_files(run).command == [*command, "--no-topic"]


def test_the_lock_of_the_jars_holds_what_the_peers_ask_for() -> None:
    for name, modules in WANTED.items():
        assert set(modules) <= {jar.module for jar in read_lock(name, LOCK)}
