"""monitor on a real broker: rows, alerts and rejects against the reference, start by start."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracle import (
    BAD,
    DAY_MS,
    SERVERS,
    START_MS,
    WAIT_S,
    Fleet,
    Heard,
    Sent,
    awaited,
    by_start,
)

from fleetpulse.codec.window_message import decode_window
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.errors import DamagedState, FleetpulseError, UsageError
from fleetpulse.domain.metric import CPU, CPU_MEM, FAMILIES, MEM, NET_DISK, TOPICS
from fleetpulse.edges.sink import committed_bytes
from fleetpulse.roles.monitor import REJECTS_FILE, instant_since

STOP_S = 5.0


@pytest.fixture
def fleet(broker_port: int, tmp_path: Path) -> Fleet:
    found = Fleet.on(broker_port, tmp_path, topics={"partitions": 2})
    found.create()
    return found


def busy(server_id: str, minutes: int, start_ms: int = START_MS) -> Iterator[Sent]:
    """A server whose CPU alone is over its limit, one sample of each topic every ten seconds."""
    for step in range(6 * minutes):
        ts_ms = start_ms + step * 10_000
        for topic, values in zip(
            TOPICS,
            (
                {"cpu_pct": 90.5},
                {"mem_pct": 50},
                {"net_in": 100, "net_out": 100},
                {"disk_io": 10.25},
            ),
            strict=True,
        ):
            value = {"ts": ts_ms, "server_id": server_id, **values}
            yield Sent(topic, json.dumps(value).encode(), ts_ms)


def test_rows_alerts_and_rejects_are_those_of_the_reference(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 80))
    fleet.send(fleet.bad(CPU))
    fleet.send(fleet.steps(80, 40))
    heard = Heard()
    summary = fleet.run(heard=heard)

    expected = fleet.expected()
    fleet.check(expected)
    assert Counter(heard.rows()) == Counter(expected.alerting())
    assert not any(is_again for _, is_again in heard.told)
    assert {row.alert for row in heard.rows()} == {
        *("Performance spike suspected", "Memory saturation suspected", "Intense resource spike"),
        *("Potential DDoS detection", "Disk thrash warning", "Sustained load alert"),
    }
    classes = Counter([*BAD.values(), "malformed"])
    assert Counter(expected.refused.values()) == classes
    causes = {one.row: one.closed_by for one in fleet.windows()}
    assert causes == {row: expected.cause(row, ClosedBy.END) for row in causes}
    assert set(causes.values()) == {ClosedBy.WATERMARK, ClosedBy.END}

    assert summary.messages == 120 * len(SERVERS) * len(TOPICS) + len(BAD) + 1
    assert summary.windows == {one.name: len(expected.rows(one)) for one in FAMILIES}
    assert summary.alerts == Counter(row.alert for row in heard.rows())
    assert summary.refused == classes
    assert (summary.lost_offsets, summary.is_caught_up, heard.readings) == (0, True, 1)


def test_a_second_start_goes_on_in_open_windows_and_repeats_nothing(fleet: Fleet) -> None:
    heard = Heard()
    for first in (0, 23, 46):
        fleet.send(fleet.steps(first, 23))
        with fleet.watching(heard):
            awaited(lambda: fleet.has_all_closed(fleet.expected()), "windows did not close")
    fleet.run(heard=heard)
    expected = fleet.expected()
    fleet.check(expected)
    assert Counter(heard.told) == Counter((row, False) for row in expected.alerting())
    assert fleet.run(heard=heard).messages == 0
    fleet.check(expected)


def test_a_late_record_is_refused_and_changes_no_row(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 30))
    with fleet.watching() as done:
        awaited(lambda: fleet.has_all_closed(fleet.expected()), "windows did not close")
        late = fleet.send(fleet.one_of_each("server_1", START_MS))
        awaited(lambda: len(fleet.rejects()) == len(TOPICS), "nothing was refused")
    assert done[0].refused == {"late": len(TOPICS)}
    fleet.run()
    fleet.check(fleet.expected(late))
    assert all("of server_1 came after its windows" in one["reason"] for one in fleet.rejects())
    (said,) = [line for line in fleet.said if "late records" in line]
    assert " late records, which count in no window: server_1 " in said


def test_a_clock_a_day_ahead_delays_and_loses_nothing_of_the_others(fleet: Fleet) -> None:
    ahead_ms = int(time.time() * 1000) + DAY_MS
    fleet.send(sent for _ in range(20) for sent in fleet.one_of_each("ahead", ahead_ms))
    heard = Heard()
    with fleet.watching(heard):
        fleet.send(fleet.steps(0, 30))
        fleet.send(fleet.one_of_each("ahead", ahead_ms))
        awaited(lambda: fleet.has_all_closed(fleet.expected()), "windows did not close")
    fleet.run()
    expected = fleet.expected()
    fleet.check(expected)
    assert Counter(expected.refused.values()) == {"future": 21 * len(TOPICS)}
    ((server_id, ahead_s),) = heard.ahead
    assert server_id == "ahead"
    assert ahead_s == pytest.approx(DAY_MS / 1000, abs=WAIT_S)


def test_a_first_start_reads_only_what_comes_from_now_on(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 10))
    assert fleet.run(since_ms=None).messages == 0
    fleet.send(busy("new", 2))
    assert fleet.run(since_ms=None).messages == 12 * len(TOPICS)
    assert {one.row.server_id for one in fleet.windows()} == {"new"}


@pytest.mark.parametrize("is_duration", [True, False], ids=["duration", "ISO time"])
def test_a_first_start_since_a_time_reads_what_is_dated_then_or_later(
    fleet: Fleet, *, is_duration: bool
) -> None:
    now_ms = int(time.time() * 1000)
    fleet.send(busy("old", 2, now_ms - 7_200_000))
    fleet.send(busy("new", 2, now_ms - 1_800_000))
    hour_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_ms / 1000 - 3600))
    since = "1h" if is_duration else hour_ago
    since_ms = instant_since(since, fleet.settings.time.tz)
    assert fleet.run(since_ms=since_ms).messages == 12 * len(TOPICS)
    assert {one.row.server_id for one in fleet.windows()} == {"new"}
    # The first start alone begins there: the next one goes on.
    fleet.send(busy("old", 1, now_ms - 3_700_000))
    assert fleet.run(since_ms=since_ms).refused == {"late": 6 * len(TOPICS)}


def test_without_the_topic_windows_go_to_the_files_alone(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 10))
    fleet.run(is_published=False)
    assert not fleet.has_topic(fleet.settings.topics.windows)
    assert fleet.csv(CPU_MEM) == fleet.expected().text(CPU_MEM)


def test_without_files_windows_go_to_the_topic_alone(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 10))
    fleet.run(is_csv=False)
    assert not fleet.csv(CPU_MEM)
    found = [one.row for one in fleet.windows() if one.row.family is CPU_MEM]
    assert sorted(found, key=by_start) == fleet.expected().rows(CPU_MEM)


def test_one_server_on_one_partition_keeps_its_windows_in_order(
    broker_port: int, tmp_path: Path
) -> None:
    fleet = Fleet.on(broker_port, tmp_path)
    fleet.create()
    fleet.send(busy("one", 3))
    fleet.run()
    starts = [one.row.start_ms for one in fleet.windows() if one.row.family is NET_DISK]
    assert starts == [START_MS + 10_000 * number for number in range(18)]


def test_silent_topics_are_waited_for_and_then_set_aside(broker_port: int, tmp_path: Path) -> None:
    fleet = Fleet.on(broker_port, tmp_path, topics={"partitions": 2}, window={"idle_close_s": 1})
    fleet.create()
    fleet.send(fleet.steps(0, 12, topics=[CPU]))
    expected = fleet.expected()
    with fleet.watching():
        awaited(lambda: fleet.csv(CPU_MEM) == expected.text(CPU_MEM), "nothing closed")
    windows = fleet.windows()
    assert {one.samples[1] for one in windows} == {0}
    latest_ms = max(expected.latest_ms.values())
    last = {one.closed_by for one in windows if one.row.end_ms > latest_ms}
    assert last == {ClosedBy.IDLE}
    assert {one.closed_by for one in windows} <= {ClosedBy.IDLE, ClosedBy.WATERMARK}


class Died(Exception):
    """Stands for the end of the process."""


class Mortal(Heard):
    """Looks at what is done by the time that it is told alerts, and dies."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__()
        self.fleet = fleet

    def alerts(self, rows: Iterable[WindowRow], values: Sequence[bytes], *, is_again: bool) -> None:
        super().alerts(rows, values, is_again=is_again)
        if not self.told:
            return
        path = self.fleet.settings.windows_path(self.told[-1][0].family)
        assert committed_bytes(path) == path.stat().st_size
        assert self.fleet.windows() == []
        raise Died


def test_alerts_are_told_between_commit_and_topic_and_again_after_a_death(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 40))
    dying = Mortal(fleet)
    with pytest.raises(Died):
        fleet.run(heard=dying)
    with pytest.raises(Died):
        fleet.run(heard=dying)
    heard = Heard()
    fleet.run(heard=heard)
    fleet.check(fleet.expected())
    first = [row for row, is_again in dying.told if not is_again]
    assert dying.told[len(first) :] == [(row, True) for row in first]
    assert heard.told[: len(first)] == [(row, True) for row in first]
    rest = heard.told[len(first) :]
    assert Counter(rest) == Counter(
        (row, False) for row in fleet.expected().alerting() if row not in first
    )


def test_windows_that_were_published_just_before_a_death_stay_a_batch(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 20))
    command = fleet.command("--from-beginning", "--csv")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            # While the first batch is on its way, the second one closes.
            awaited(lambda: fleet.has_topic(fleet.settings.topics.windows), "nothing was published")
            fleet.send(fleet.steps(20, 20))
            expected = fleet.expected()
            closed = sum(map(expected.closed_by_watermark, expected.all_rows()))
            awaited(lambda: len(fleet.windows()) == closed, "windows were not published")
        finally:
            process.kill()
    fleet.send(fleet.steps(40, 40))
    fleet.run()
    fleet.check(fleet.expected())


def test_windows_reach_their_topic_while_others_go_on_closing(fleet: Fleet) -> None:
    with fleet.watching():
        for step in range(10_000):
            fleet.send(fleet.steps(2 * step, 2))
            if step % 20 == 19 and len(fleet.windows()) > 100:
                break
        else:
            pytest.fail("nothing was published")
    fleet.run()
    fleet.check(fleet.expected())


def test_too_many_rejects_end_a_run_that_is_to_end(broker_port: int, tmp_path: Path) -> None:
    fleet = Fleet.on(broker_port, tmp_path, rejects={"max_in_a_row": 5, "max_ratio": 1.0})
    fleet.create()
    fleet.send([*busy("one", 1), *[Sent(CPU, b"bad")] * 6])
    with pytest.raises(FleetpulseError, match=r"paused: .* rejects in a row") as error:
        fleet.run()
    assert REJECTS_FILE in str(error.value)
    assert error.value.exit_code == 1
    fleet.send(busy("one", 1, START_MS + 60_000))
    fleet.run()
    fleet.check(fleet.expected())


def test_too_many_rejects_pause_a_running_monitor_until_it_is_stopped(
    broker_port: int, tmp_path: Path
) -> None:
    fleet = Fleet.on(broker_port, tmp_path, rejects={"max_in_a_row": 5, "max_ratio": 1.0})
    fleet.create()
    fleet.send([Sent(MEM, b"bad")] * 6)
    with fleet.watching() as done:
        awaited(lambda: any(line.startswith("paused: ") for line in fleet.said), "no pause")
        assert not done
    fleet.run()
    fleet.check_rejects(fleet.expected())


def test_late_records_do_not_count_as_bad_input(broker_port: int, tmp_path: Path) -> None:
    fleet = Fleet.on(broker_port, tmp_path, rejects={"max_in_a_row": 5, "max_ratio": 1.0})
    fleet.create()
    fleet.send(busy("one", 3))
    fleet.run()
    fleet.send(busy("one", 1))
    assert fleet.run().refused == {"late": 6 * len(TOPICS)}


def test_other_windows_than_those_that_are_open_are_refused(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 10))
    fleet.run()
    other = fleet.but(window={"size_s": 60})
    with pytest.raises(UsageError, match=r"monitor\.state\.db: .*size_ms 30000.*size_ms 60000"):
        other.run()
    # Nothing was done: the same windows go on.
    fleet.send(fleet.steps(10, 10))
    assert fleet.run().messages > 0


def test_windows_that_begin_with_the_first_event_are_refused(fleet: Fleet) -> None:
    other = fleet.but(window={"origin": "first_event"})
    with pytest.raises(UsageError, match=r"window\.origin is first_event"):
        other.run()
    assert not other.settings.output_dir.exists()


def test_damaged_notes_are_named_and_nothing_is_guessed(broker_port: int, tmp_path: Path) -> None:
    fleet = Fleet.on(broker_port, tmp_path)
    fleet.create()
    fleet.send(busy("one", 1))
    # An end that leaves something to tell and to publish.
    with pytest.raises(Died):
        fleet.run(heard=Mortal(fleet))
    state = fleet.settings.output_dir / "monitor.state.db"
    with closing(sqlite3.connect(state)) as database:
        notes = dict(database.execute("SELECT name, content FROM note"))
        assert len(notes) >= 4
        for name, content in notes.items():
            for damaged in (b"", b"\xff\xfe", content[: len(content) // 2]):
                set_note(database, name, damaged)
                with pytest.raises(DamagedState, match=r"monitor\.state\.db: "):
                    fleet.run()
            set_note(database, name, content)
    fleet.run()
    fleet.check(fleet.expected())


def set_note(database: sqlite3.Connection, name: str, content: bytes) -> None:
    with database:
        database.execute("UPDATE note SET content = ? WHERE name = ?", (content, name))


# The command


def started(fleet: Fleet, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        fleet.command("--from-beginning", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def one(broker_port: int, tmp_path: Path) -> Fleet:
    """One busy server on one partition a topic."""
    found = Fleet.on(broker_port, tmp_path)
    found.create()
    found.send(busy("one", 1))
    return found


def test_alerts_are_lines_for_people_and_sigterm_ends_in_order(one: Fleet) -> None:
    with started(one, "--csv") as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == (
                "2025-10-05T20:53:00Z to 20:53:30  one  Performance spike suspected: "
                "cpu_pct 90.50 %, mem_pct 50.00 %\n"
            )
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=STOP_S)
        finally:
            process.kill()
    assert process.returncode == 0
    assert out.splitlines()[-2:] == [
        "stopped: 4 windows from 24 messages in this run (cpu_mem 2, net_disk 2)",
        "alerts: Performance spike suspected 2",
    ]
    assert all(" monitor: " in line for line in errors.splitlines()), errors
    assert "first message after" in errors
    # What was told before an end in order is not told again.
    again = one.process("--until-idle", "300ms", "--csv")
    assert again.returncode == 0
    lines = again.stdout.splitlines()
    assert [line.split("Z")[0] for line in lines[:-2]] == [
        f"2025-10-05T20:53:{seconds}" for seconds in (20, 30, 40, 50)
    ]
    assert "again" not in again.stdout
    assert lines[-2].startswith("all caught up: 8 windows from 0 messages")


def test_alerts_are_messages_of_the_windows_topic_as_json(one: Fleet) -> None:
    one.send([Sent(CPU, b"bad"), *one.one_of_each("ahead", int(time.time() * 1000) + DAY_MS)])
    done = one.process("--from-beginning", "--until-idle", "300ms", "--json")
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = Counter(event["event"] for event in events)
    assert kinds == {"reading": 1, "alert": 6, "clock_ahead": 1, "end": 1}
    (ahead,) = [event for event in events if event["event"] == "clock_ahead"]
    assert ahead["server_id"] == "ahead"
    assert ahead["seconds"] == pytest.approx(DAY_MS / 1000, abs=WAIT_S)
    alerts = [event for event in events if event["event"] == "alert"]
    assert {event.pop("again") for event in alerts} == {False}
    told = [decode_window(json.dumps(event).encode()) for event in alerts]
    assert told == [window for window in one.windows() if window.row.alert]
    assert events[-1]["windows"] == {"cpu_mem": 6, "net_disk": 6}
    assert events[-1]["alerts"] == {"Performance spike suspected": 6}
    assert events[-1]["refused"] == {"malformed": 1, "future": 4}
    assert events[-1]["is_caught_up"] is True


def test_a_second_instance_ends_at_once_and_disturbs_nothing(one: Fleet) -> None:
    with started(one) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            second = one.process("--until-idle", "300ms")
            assert second.returncode == 75
            assert "already runs this role" in second.stderr
            one.send(busy("one", 1, START_MS + 60_000))
            assert process.stdout.readline()
        finally:
            process.kill()


def test_wrong_use_is_told_in_one_line(one: Fleet) -> None:
    one.run()
    hour = one.but(window={"size_s": 3600})
    for arguments, message in (
        (["--from-beginning", "--since", "2h"], "wanted one of them"),
        (["--since", "soon"], "--since: 'soon' is no time, wanted a duration such as 2h or an ISO"),
        (["--until-idle", "300ms"], "but the settings say family cpu_mem, size_ms 3600000"),
    ):
        done = hour.process(*arguments)
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
