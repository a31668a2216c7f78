"""`fleetpulse audit` against a real broker: it proves what holds, and names each fault put in."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

sys.path.insert(0, str(Path(__file__).parent))

from oracle import BAD, START_MS, STEP_MS, WAIT_S, Fleet, Sent, awaited

from fleetpulse.domain.errors import DataChanged, ServiceUnreachable, UsageError
from fleetpulse.domain.metric import CPU, CPU_MEM, MEM
from fleetpulse.domain.position import OnGap
from fleetpulse.domain.share import Share
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.sink import FileSpec, committed_bytes, open_sink
from fleetpulse.edges.sink.data_file import TAIL_BYTES
from fleetpulse.roles.audit import RoleAudit, audit
from fleetpulse.roles.auditing.finding import Fault
from fleetpulse.roles.auditing.topic import PORTION_LINES, TopicAudit
from fleetpulse.roles.consume import consume

CSV = "cpu_data.csv"
REJECTS = "rejects.consumer1.jsonl"
FILES = [FileSpec(CSV), FileSpec("mem_data.csv"), FileSpec(REJECTS)]
Places = list[tuple[str, int | None]]


def consumed(fleet: Fleet, on_gap: OnGap = OnGap.STOP, share: Share | None = None) -> None:
    try:
        consume(
            fleet.settings,
            CPU_MEM,
            stop=fleet.stop,
            say=fleet.said.append,
            until_idle_s=0.3,
            connect_timeout_s=WAIT_S,
            on_gap=on_gap,
            share=share,
        )
    finally:
        fleet.stop.clear()


def audited(
    fleet: Fleet,
    *names: str,
    timeout_s: float = WAIT_S,
    portion_lines: int = PORTION_LINES,
) -> RoleAudit:
    (found,) = audit(
        fleet.settings,
        names,
        say=fleet.said.append,
        report=lambda _count, _share: None,
        timeout_s=timeout_s,
        portion_lines=portion_lines,
    )
    return found


def cpu_of(found: RoleAudit) -> TopicAudit:
    return found.topics[0]


def faults(found: RoleAudit) -> dict[str, int]:
    return {str(fault): found.count(fault) for fault in Fault if found.count(fault)}


def places(found: RoleAudit) -> Places:
    parts = [*(topic.findings for topic in found.topics), found.unplaced]
    return [(str(one.fault), one.offset) for part in parts for one in part.named]


def command(fleet: Fleet, name: str, *arguments: str) -> list[str]:
    """Return how a user starts a command on this fleet."""
    words = fleet.command()
    words[words.index("monitor")] = name
    return [*words, *arguments]


def run(fleet: Fleet, *arguments: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        command(fleet, "audit", *arguments),
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S,
    )
    assert "Traceback" not in done.stderr
    assert "internal error" not in done.stderr, done.stderr
    return done


@contextmanager
def running(fleet: Fleet) -> Iterator["subprocess.Popen[bytes]"]:
    """Run consumer1 beside the test."""
    with subprocess.Popen(
        command(fleet, "consumer1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def put(fleet: Fleet, name: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Change the lines of a file, and its state so that no start notices."""
    folder = fleet.settings.output_dir
    path = folder / name
    content = b"".join(change(path.read_bytes().splitlines(keepends=True)))
    path.write_bytes(content)
    with closing(sqlite3.connect(folder / "consumer1.state.db")) as database, database:
        changed = database.execute(
            "UPDATE file SET committed_bytes = ?, running_crc = ?, tail_crc = ?, modified_ns = ? "
            "WHERE path = ?",
            (
                len(content),
                zlib.crc32(content),
                zlib.crc32(content[-TAIL_BYTES:]),
                path.stat().st_mtime_ns,
                name,
            ),
        )
        assert changed.rowcount == 1
    with open_sink(folder, "consumer1", FILES) as sink:
        assert sink.cut_bytes == {}
        assert sink.files[name].committed_bytes == len(content)


def rows(fleet: Fleet, first: int, count: int, number: int = 0) -> list[Sent]:
    """Messages of the CPU topic, all different."""
    return [
        Sent(CPU, fleet.payload(CPU, START_MS + STEP_MS * step, "server_1"), number=number)
        for step in range(first, first + count)
    ]


@pytest.fixture
def fleet(broker_port: int, tmp_path: Path) -> Fleet:
    found = Fleet.on(broker_port, tmp_path)
    found.create()
    return found


@pytest.fixture(scope="module")
def original(broker_port: int, tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    found = Fleet.on(broker_port, tmp_path_factory.mktemp("original"))
    found.create()
    bad = [Sent(CPU, b"{}"), Sent(CPU, b"[1]")]
    found.send([*rows(found, 0, 10), bad[0], *rows(found, 10, 10), bad[1]])
    consumed(found)
    return found


@pytest.fixture
def read(original: Fleet, tmp_path: Path) -> Fleet:
    """A fleet whose offsets 0 to 9 and 11 to 20 of the CPU topic are rows; 10 and 21 rejects."""
    folder = tmp_path / "output"
    shutil.copytree(original.settings.output_dir, folder)
    return original.but(output_dir=folder)


def test_what_a_consumer_wrote_is_proven_record_by_record(fleet: Fleet) -> None:
    fleet.send([*fleet.steps(0, 40), *fleet.bad(CPU)])
    fleet.send(Sent(MEM, value) for value in BAD)
    consumed(fleet)
    found = audited(fleet)
    assert found.is_exact
    assert places(found) == []
    for topic, file, rejects in (CPU, CSV, len(BAD) + 1), (MEM, "mem_data.csv", len(BAD)):
        (part,) = [one for one in found.topics if one.topic_name == fleet.name(topic)]
        (one,) = part.partitions
        lines = (fleet.settings.output_dir / file).read_bytes().count(b"\n") - 1
        assert (part.file_name, one.rows, one.rejects) == (file, lines, rejects)
        assert one.records == one.next_offset == 40 * 7 + rejects
        assert (part.gone_offsets, part.gone_rows, part.gone_rejects) == (0, 0, 0)


def test_it_prints_the_proof_and_ends_with_zero(read: Fleet) -> None:
    done = run(read)
    assert done.returncode == 0, done.stderr
    nothing = "0 missing, 0 duplicate, 0 torn"
    assert done.stdout.splitlines() == [
        "consumer1:",
        f"  {read.name(CPU)} -> cpu_data.csv: 22 records, 20 rows, 2 rejects: {nothing}",
        f"  {read.name(MEM)} -> mem_data.csv: 0 records, 0 rows, 0 rejects: {nothing}",
        "  every record is in exactly one place",
    ]


def test_it_names_the_offset_and_ends_with_one(read: Fleet) -> None:
    put(read, CSV, lambda lines: lines[:6] + lines[7:])
    done = run(read)
    assert done.returncode == 1
    assert "20 rows, 2 rejects: 1 missing, 0 duplicate, 0 torn" in done.stdout
    line = f"missing: {read.name(CPU)}-0 offset 5: its row is not in cpu_data.csv"
    assert line in done.stdout
    found = json.loads(run(read, "--json", "--role", "consumer1").stdout)
    topic = found["consumers"]["consumer1"]["topics"][read.name(CPU)]
    assert (found["is_exact"], topic["missing"], topic["torn"]) == (False, 1, 0)
    assert topic["findings"][0]["offset"] == 5


def swapped(lines: list[bytes], place: int) -> list[bytes]:
    return [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]


def cut(lines: list[bytes], place: int, left: int = 20) -> list[bytes]:
    """Take the end of a line away, and with it the line's end."""
    return [*lines[:place], lines[place][:left], *lines[place + 1 :]]


def other_digit(line: bytes) -> bytes:
    digit = b"1" if line[-2:-1] != b"1" else b"2"
    return line[:-2] + digit + line[-1:]


# The file changed, its lines afterwards, what the audit counts, and what it names. Line 1 + n of
# the CSV is the n-th row: offsets 0 to 9, then 11 to 20. The rejects are of 10 and 21.
CHANGES: dict[str, tuple[str, Callable[[list[bytes]], list[bytes]], dict[str, int], Places]] = {
    "missing row": (CSV, lambda had: had[:15] + had[16:], {"missing": 1}, [("missing", 15)]),
    "missing first row": (CSV, lambda had: had[:1] + had[2:], {"missing": 1}, [("missing", 0)]),
    "missing last row": (CSV, lambda had: had[:-1], {"missing": 1}, [("missing", 20)]),
    "duplicate row": (CSV, lambda had: had[:4] + had[3:], {"duplicate": 1}, [("duplicate", 2)]),
    "duplicate at the end": (
        CSV,
        lambda had: [*had, had[8]],
        {"duplicate": 1},
        [("duplicate", 7)],
    ),
    "another row in place of one": (
        CSV,
        lambda had: [*had[:5], had[7], *had[6:]],
        {"missing": 1, "duplicate": 1},
        [("missing", 4), ("duplicate", 6)],
    ),
    "torn row": (
        CSV,
        lambda had: [*had[:5], had[5][:20] + b"\n", *had[6:]],
        {"torn": 1},
        [("torn", 4)],
    ),
    "torn row that runs into the next": (
        CSV,
        lambda had: cut(had, 5),
        {"torn": 1, "missing": 1},
        [("missing", 5), ("torn", 4)],
    ),
    "torn last row": (CSV, lambda had: cut(had, 20), {"torn": 1}, [("torn", 20)]),
    "last row without its end": (
        CSV,
        lambda had: [*had[:20], had[20].rstrip()],
        {"torn": 1},
        [("torn", 20)],
    ),
    "changed digit": (
        CSV,
        lambda had: [*had[:12], other_digit(had[12]), *had[13:]],
        {"changed": 1},
        [("changed", 12)],
    ),
    "changed header": (CSV, lambda had: [b"a,b\n", *had[1:]], {"changed": 1}, [("changed", None)]),
    "row of nobody": (
        CSV,
        lambda had: [*had, b"2025-10-05T20:53:00Z,x,1\n"],
        {"changed": 1},
        [("changed", None)],
    ),
    "swapped rows": (CSV, lambda had: swapped(had, 3), {"out of order": 1}, [("out of order", 3)]),
    "deleted reject": (REJECTS, lambda had: had[1:], {"missing": 1}, [("missing", 10)]),
    "duplicate reject": (
        REJECTS,
        lambda had: [had[0], had[0], had[1]],
        {"duplicate": 1},
        [("duplicate", 10)],
    ),
    "torn reject": (REJECTS, lambda had: cut(had, 1, 70), {"torn": 1}, [("torn", 21)]),
    "torn reject without its place": (
        REJECTS,
        lambda had: [had[0], had[1][:9]],
        {"torn": 1, "missing": 1},
        [("missing", 21), ("torn", None)],
    ),
    "changed reject": (
        REJECTS,
        lambda had: [had[0].replace(b'"missing_field"', b'"malformed"'), had[1]],
        {"changed": 1},
        [("changed", 10)],
    ),
    "swapped rejects": (
        REJECTS,
        lambda had: had[::-1],
        {"out of order": 1},
        [("out of order", 10)],
    ),
    "row and reject of one offset": (
        REJECTS,
        lambda had: [had[0].replace(b'"offset": 10', b'"offset": 9'), *had],
        {"duplicate": 1},
        [("duplicate", 9)],
    ),
    "reject that is not done yet": (
        REJECTS,
        lambda had: [*had, had[0].replace(b'"offset": 10', b'"offset": 22')],
        {"changed": 1},
        [("changed", 22)],
    ),
    "reject of another topic": (
        REJECTS,
        lambda had: [*had, had[0].replace(b'"partition": 0', b'"partition": 7')],
        {"changed": 1},
        [("changed", None)],
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_fault_is_found_and_its_offset_named(read: Fleet, change: str) -> None:
    name, edit, counted, named = CHANGES[change]
    put(read, name, edit)
    found = audited(read)
    assert not found.is_exact
    assert (faults(found), places(found)) == (counted, named)


def test_a_file_that_is_shorter_than_committed_is_torn(read: Fleet) -> None:
    path = read.settings.output_dir / CSV
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"\n", 0, -1) + 1])
    found = audited(read)
    assert faults(found) == {"missing": 1, "torn": 1}
    assert places(found) == [("missing", 20), ("torn", None)]


def test_of_many_faults_twenty_are_named_and_all_counted(fleet: Fleet) -> None:
    fleet.send(rows(fleet, 0, 60))
    consumed(fleet)
    put(fleet, CSV, lambda lines: lines[:5] + lines[55:])
    found = audited(fleet)
    assert faults(found) == {"missing": 50}
    assert places(found) == [("missing", offset) for offset in range(4, 24)]
    assert "missing: 30 more" in run(fleet).stdout


def test_what_is_too_much_at_once_is_looked_at_in_portions(read: Fleet) -> None:
    assert audited(read, portion_lines=6).is_exact
    name, edit, counted, named = CHANGES["row and reject of one offset"]
    put(read, name, edit)
    put(read, CSV, lambda lines: [*lines[:6], *lines[7:], lines[3]])
    found = audited(read, portion_lines=6)
    assert faults(found) == {"missing": 1, **counted, "duplicate": 2}
    assert sorted(places(found), key=str) == sorted(
        [("missing", 5), ("duplicate", 2), *named], key=str
    )


def test_a_consumer_of_some_partitions_is_audited_by_its_own_files(
    broker_port: int, tmp_path: Path
) -> None:
    fleet = Fleet.on(broker_port, tmp_path, topics={"partitions": 3})
    fleet.create()
    fleet.send(one for number in range(3) for one in rows(fleet, 100 * number, 20, number))
    for share in (Share(0, 1), Share(2, 2)):
        consumed(fleet, share=share)
    both = audit(
        fleet.settings,
        [],
        say=fleet.said.append,
        report=lambda _count, _share: None,
        timeout_s=WAIT_S,
    )
    assert [one.name for one in both] == ["consumer1.p0-1", "consumer1.p2"]
    assert all(one.is_exact for one in both)
    assert [cpu_of(one).file_name for one in both] == ["cpu_data.p0-1.csv", "cpu_data.p2.csv"]
    assert [len(cpu_of(one).partitions) for one in both] == [2, 1]
    # Somebody puts the files of another folder beside them.
    other = fleet.but(output_dir=tmp_path / "other")
    consumed(other)
    for path in other.settings.output_dir.iterdir():
        shutil.copy(path, fleet.settings.output_dir)
    done = run(fleet)
    assert done.returncode == 1
    assert f"{fleet.name(CPU)}-0 is in the files of consumer1 too" in done.stdout


def test_it_proves_while_a_consumer_runs_under_load(fleet: Fleet) -> None:
    seen = [0]
    with running(fleet) as process:
        for step in range(4):
            fleet.send(fleet.steps(500 * step, 500, (CPU, MEM)))
            fleet.send(fleet.bad(CPU))
            awaited(lambda: committed_now(fleet) > seen[-1], "nothing was committed")
            found = audited(fleet)
            assert places(found) == []
            seen.append(committed_now(fleet))
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0
    assert audited(fleet).is_exact


def committed_now(fleet: Fleet) -> int:
    path = fleet.settings.record_path(CPU)
    return (committed_bytes(path) or 0) if path.exists() else 0


def test_it_changes_nothing_whatever_became_of_the_consumer(fleet: Fleet) -> None:
    folder = fleet.settings.output_dir

    def held() -> dict[str, tuple[bytes, tuple[int, ...]]]:
        return {
            path.name: (path.read_bytes(), lasting(path.stat()))
            for path in sorted(folder.iterdir())
        }

    fleet.send(fleet.steps(0, 50))
    with running(fleet) as process:
        awaited(lambda: committed_now(fleet) > 1000, "nothing was committed")
        process.send_signal(signal.SIGSTOP)
        stopped = held()
        assert {"consumer1.state.db-wal", "consumer1.state.db-shm"} <= set(stopped)
        assert run(fleet).returncode == 0
        assert held() == stopped
        process.kill()
        process.wait(WAIT_S)
        killed = held()
        assert run(fleet).returncode == 0
        assert held() == killed
    consumed(fleet)
    ended = held()
    assert not any(name.endswith(("-wal", "-shm")) for name in ended)
    assert run(fleet).returncode == 0
    assert held() == ended


def lasting(found: os.stat_result) -> tuple[int, ...]:
    """Leave out access and SQLite's setting of an owner to the one that is set."""
    owner = found.st_uid, found.st_gid, found.st_mode
    return found.st_ino, *owner, found.st_size, found.st_mtime_ns


def test_transaction_markers_and_aborted_records_are_no_records(fleet: Fleet) -> None:
    producer = Producer(
        {"bootstrap.servers": fleet.bootstrap, "transactional.id": fleet.name(CPU), "log_level": 0}
    )
    producer.init_transactions(WAIT_S)
    for number, sent in enumerate(rows(fleet, 0, 6)):
        producer.begin_transaction()
        producer.produce(fleet.name(CPU), sent.value)
        producer.flush(WAIT_S)
        if number % 2:
            producer.abort_transaction(WAIT_S)
        else:
            producer.commit_transaction(WAIT_S)
    consumed(fleet)
    found = audited(fleet)
    assert found.is_exact
    (one,) = cpu_of(found).partitions
    assert (one.records, one.next_offset) == (3, 12)
    put(fleet, CSV, lambda lines: lines[:2] + lines[3:])
    assert places(audited(fleet)) == [("missing", 4)]


def test_rows_of_several_partitions_are_told_apart(broker_port: int, tmp_path: Path) -> None:
    fleet = Fleet.on(broker_port, tmp_path, topics={"partitions": 3})
    fleet.create()
    for step in range(5):
        for number in range(3):
            fleet.send(rows(fleet, 100 * number + 20 * step, 20, number))
        # The same in each of them.
        fleet.send(Sent(CPU, rows(fleet, 1, 1)[0].value, number=number) for number in range(3))
        consumed(fleet)
    found = audited(fleet)
    assert places(found) == []
    assert [one.records for one in cpu_of(found).partitions] == [105] * 3
    done = run(fleet)
    assert f"{fleet.name(CPU)}-1: 105 records below offset 105, 105 rows, 0 rejects" in done.stdout
    put(fleet, CSV, lambda lines: lines[:30] + lines[31:])
    (missing,) = cpu_of(audited(fleet)).findings.named
    assert missing.partition is not None
    assert (missing.fault, missing.partition.topic_name) == (Fault.MISSING, fleet.name(CPU))
    put(fleet, CSV, lambda lines: [*lines, lines[40]])
    assert faults(audited(fleet)) == {"missing": 1, "duplicate": 1}


def test_what_kafka_no_longer_has_is_not_checkable_and_the_rest_is(fleet: Fleet) -> None:
    fleet.send([*rows(fleet, 0, 40), Sent(CPU, b"{}"), *rows(fleet, 40, 60)])
    consumed(fleet)
    delete_below(fleet, 50)
    found = audited(fleet)
    topic = cpu_of(found)
    assert places(found) == []
    assert (topic.gone_offsets, topic.gone_rows, topic.gone_rejects) == (50, 49, 1)
    assert topic.partitions[0].records == 51
    done = run(fleet)
    assert "not checkable: 50 offsets that Kafka no longer has (49 rows, 1 rejects)" in done.stdout
    assert "every record of what can be checked (50 offsets cannot)" in done.stdout
    put(fleet, CSV, lambda lines: lines[:80] + lines[81:])
    assert places(audited(fleet)) == [("missing", 80)]
    put(fleet, CSV, lambda lines: lines[:60] + lines[59:])
    assert places(audited(fleet)) == [("missing", 80), ("duplicate", 59)]
    put(fleet, CSV, lambda lines: [*lines[:9], lines[9][:9] + b"\n", *lines[10:]])
    assert ("torn", None) in places(audited(fleet))


def delete_below(fleet: Fleet, offset: int) -> None:
    cut_at = [TopicPartition(fleet.name(CPU), 0, offset)]
    for future in fleet.admin.delete_records(cut_at).values():
        future.result(WAIT_S)


def test_lines_from_before_a_gap_are_not_checkable(fleet: Fleet) -> None:
    fleet.send([*rows(fleet, 0, 30), Sent(CPU, b"{}")])
    consumed(fleet)
    for future in fleet.admin.delete_topics([fleet.name(CPU)]).values():
        future.result(WAIT_S)
    awaited(lambda: not fleet.has_topic(fleet.name(CPU)), "the topic is still there")
    fleet.create(CPU)
    fleet.send([*rows(fleet, 10, 20), Sent(CPU, b"{}")])
    with pytest.raises(DataChanged, match="topic re-created: committed up to offset 31"):
        audited(fleet)
    assert run(fleet).returncode == 79
    consumed(fleet, OnGap.CONTINUE)
    found = audited(fleet)
    topic = cpu_of(found)
    assert places(found) == []
    assert (topic.gone_offsets, topic.gone_rows, topic.gone_rejects) == (31, 30, 1)
    assert topic.partitions[0].records == 21
    put(fleet, CSV, lambda lines: lines[:40] + lines[41:])
    assert places(audited(fleet)) == [("missing", 9)]


def test_offsets_that_a_gap_took_unread_are_told(fleet: Fleet) -> None:
    fleet.send(rows(fleet, 0, 10))
    consumed(fleet)
    fleet.send(rows(fleet, 10, 20))
    delete_below(fleet, 17)
    consumed(fleet, OnGap.CONTINUE)
    found = audited(fleet)
    assert places(found) == []
    topic = cpu_of(found)
    assert (found.lost_offsets, topic.gone_offsets, topic.gone_rows) == (7, 10, 10)
    assert cpu_of(found).partitions[0].records == 13
    assert "lost before they were read: 7 offsets" in run(fleet).stdout


def test_clock_times_have_the_dates_that_the_consumer_gave_them(fleet: Fleet) -> None:
    stamps = ["23:59:50", "00:00:05", "23:59:58", "00:00:10"]
    payloads = [f'{{"ts":"{stamp}","server_id":"a","cpu_pct":1}}'.encode() for stamp in stamps]
    fleet.send(Sent(CPU, payload) for payload in payloads)
    consumed(fleet.but(time={"date": "2025-10-05"}))
    # Another day's settings change nothing that was read.
    other = fleet.but(time={"date": "2025-11-11"})
    assert places(audited(other)) == []
    delete_below(fleet, 2)
    topic = cpu_of(audited(other))
    assert (topic.gone_offsets, topic.gone_rows, topic.partitions[0].records) == (4, 4, 0)


def test_who_never_ran_is_told_so(fleet: Fleet) -> None:
    with pytest.raises(UsageError, match="no consumer has run here"):
        audited(fleet)
    with pytest.raises(UsageError, match="no consumer1 has run here"):
        audited(fleet, "consumer1")
    consumed(fleet)
    assert audited(fleet).name == "consumer1"
    with pytest.raises(UsageError, match="no consumer2 has run here"):
        audited(fleet, "consumer2")


def test_no_broker_ends_with_69(read: Fleet) -> None:
    lost = read.but(broker={"port": free_port()})
    with pytest.raises(ServiceUnreachable) as error:
        audited(lost, timeout_s=2)
    assert "check that it runs" in str(error.value)
    assert run(lost, "--connect-timeout", "2s").returncode == 69


def test_a_damaged_state_ends_with_78(read: Fleet) -> None:
    path = read.settings.output_dir / "consumer1.state.db"
    content = path.read_bytes()
    path.write_bytes(content[:2000] + bytes(3000) + content[5000:])
    done = run(read)
    assert done.returncode == 78, done.stdout
    assert str(path) in done.stderr


@pytest.mark.parametrize("name", ["consumer1.state.db", CSV, REJECTS])
def test_a_missing_file_ends_with_79(read: Fleet, name: str) -> None:
    path = read.settings.output_dir / name
    path.unlink()
    done = run(read)
    assert done.returncode == 79, done.stdout
    assert str(path) in done.stderr


def test_a_link_in_place_of_a_file_is_not_followed(read: Fleet) -> None:
    path = read.settings.output_dir / CSV
    path.rename(path.with_name("elsewhere.csv"))
    path.symlink_to("elsewhere.csv")
    done = run(read)
    assert done.returncode == 79, done.stdout
    assert "this is a link" in done.stderr


def test_a_state_of_other_topics_is_told(read: Fleet) -> None:
    with pytest.raises(UsageError, match="which the settings do not name"):
        audited(read.but(topics={"cpu": "another-topic"}))
