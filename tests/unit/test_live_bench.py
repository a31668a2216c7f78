"""The referee of the live benchmark: what it calls equal, and what it calls a fault."""

import sys
from pathlib import Path
from typing import Any

import pytest

from fleetpulse.domain.metric import CPU_MEM, NET_DISK
from fleetpulse.edges.jars.lock import read_lock

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

from peers.fleet import LATENESS_MS, Expected, Fleet, expected
from peers.install import LOCK, WANTED
from peers.latency import Clock
from peers.process import Usage
from peers.rows import Check, check
from peers.table import lines

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


def test_a_ratio_compares_runs_of_the_same_round() -> None:
    def contestant(name: str, *cpu_s: float) -> dict[str, Any]:
        runs = [{"cpu_s_per_million": one, "rss_peak_mb": 1} for one in cpu_s]
        return {"name": name, "title": name, "missing": "", "latency": None, "runs": runs}

    results = {"contestants": [contestant("raw", 1, 2, 4), contestant("peer", 3, 4, 20)]}
    assert lines(results)[1].cpu_ratio == 3.0


def test_the_lock_of_the_jars_holds_what_the_peers_ask_for() -> None:
    for name, modules in WANTED.items():
        assert set(modules) <= {jar.module for jar in read_lock(name, LOCK)}
