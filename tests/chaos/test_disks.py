"""Disks that are full, fail or lose power under consumer1, and files that somebody else changed."""

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from consumer_case import REJECTS_FILE, TOPICS, ConsumerCase
from injectors import Disk, ext4_disk, small_disk, trace_options

from chaos_table import Row
from fleetpulse.edges.sink import Batch, FileSpec, Lines, open_sink

STEPS = 20
CPU_FILE, STATE, LOCK = "cpu_data.csv", "consumer1.state.db", "consumer1.lock"
WRONG_USE, DISK_ERROR, DAMAGED, CHANGED = 2, 74, 78, 79
END_S = 60.0


@pytest.fixture
def disk(place: Path, mounting: None) -> Iterator[Disk]:  # noqa: ARG001
    with ext4_disk(place) as found:
        yield found


@pytest.fixture
def case(broker_port: int, place: Path, row: Row) -> ConsumerCase:
    """A consumer that has read some messages and ended."""
    found = ConsumerCase.on(broker_port, place, row)
    found.create()
    found.send_steps(0, STEPS)
    found.finish()
    return found


def case_on(output: Path, port: int, place: Path, row: Row) -> ConsumerCase:
    found = ConsumerCase.on(port, place, row, output_dir=output)
    found.create()
    found.send_steps(0, STEPS)
    return found


# Disks


@pytest.mark.usefixtures("mounting")
def test_a_full_disk_ends_it_and_after_making_room_all_is_there(
    broker_port: int, place: Path, row: Row, amount: Callable[[int, int], int]
) -> None:
    row.fault, row.injected = "disk full", 0
    with small_disk(place, amount(4096, 65_536)) as disk:
        case = case_on(disk.place / "output", broker_port, place, row)
        with case.load(STEPS, every_s=0.005):
            for _ in range(amount(2, 20)):
                with case.running() as process:
                    case.await_growth()
                    disk.fill(leave_bytes=case.rng.randrange(3) * 4096)
                    assert process.wait(END_S) == DISK_ERROR, case.said()
                assert str(case.output) in case.said()
                assert "nothing is lost" in case.said()
                row.injected += 1
                disk.make_room()
        case.finish()
        case.check()


FAILURES = [
    ("pwrite64", "ENOSPC", CPU_FILE),
    ("pwrite64", "EIO", CPU_FILE),
    ("fdatasync", "EIO", CPU_FILE),
    ("fdatasync", "EDQUOT", CPU_FILE),
    ("pwrite64", "ENOSPC", REJECTS_FILE),
    ("fdatasync", "EIO", REJECTS_FILE),
    ("pwrite64", "ENOSPC", f"{STATE}-wal"),
    ("pwrite64", "EIO", f"{STATE}-wal"),
    ("fdatasync", "EIO", f"{STATE}-wal"),
]


@pytest.mark.usefixtures("tracing")
def test_one_failed_write_or_sync_ends_it_and_nothing_is_lost(
    case: ConsumerCase, amount: Callable[[int, int], int]
) -> None:
    row = case.row
    row.fault, row.injected = "write or sync fails once", 0
    chosen = case.rng.sample(FAILURES, amount(4, len(FAILURES)))
    for number, (call, code, name) in enumerate(chosen):
        case.send_steps(STEPS + 10 * number, 10)
        path = case.output / name
        log = case.fleet.folder / "trace"
        # Would it try again, it would go on.
        exit_code = case.run(
            around=trace_options(log, call, f"{call}:error={code}:when=1", (path,))
        )
        assert log.read_text().count("(INJECTED)") == 1, (call, code, name, case.said())
        assert exit_code == DISK_ERROR, (call, code, name, case.said())
        assert str(case.output / name.removesuffix("-wal")) in case.said()
        assert code in case.said() or "SQLITE_" in case.said()
        row.injected += 1
    case.finish()
    case.check()


def test_a_disk_that_turns_read_only_ends_it_and_nothing_is_lost(
    disk: Disk, broker_port: int, place: Path, row: Row
) -> None:
    row.fault, row.injected = "disk turns read-only", 0
    case = case_on(disk.place / "output", broker_port, place, row)
    with case.load(STEPS):
        with case.running() as process:
            case.await_growth()
            disk.make_read_only()
            assert process.wait(END_S) == DISK_ERROR, case.said()
        assert str(case.output) in case.said()
        assert case.run() == DISK_ERROR
        row.injected += 1
        disk.restore()
    case.finish()
    case.check()


@pytest.mark.timeout(600)
def test_power_loss_under_consumer1_takes_nothing_that_it_reported(
    disk: Disk, broker_port: int, place: Path, row: Row, amount: Callable[[int, int], int]
) -> None:
    row.fault, row.injected = "power loss under consumer1", 0
    case = case_on(disk.place / "output", broker_port, place, row)
    reader = Consumer(
        {
            "bootstrap.servers": case.fleet.bootstrap,
            "group.id": "fleetpulse-consumer1",
            "log_level": 0,
        }
    )
    names = [case.fleet.name(topic) for topic in TOPICS]
    with closing(reader), case.load(STEPS):
        for _ in range(amount(2, 20)):
            with case.running():
                case.await_growth()
                time.sleep(case.rng.uniform(0, 1.5))
                # Kafka's lag display is where it reports its commits.
                places = [TopicPartition(name, 0) for name in names]
                reported = {one.topic: one.offset for one in reader.committed(places, END_S)}
                disk.cut_power()
            disk.turn_on()
            row.injected += 1
            found = case.next_offsets()
            assert all(found.get(name, 0) >= reported[name] for name in names), (found, reported)
    case.finish()
    case.check()


# Files that somebody else changed


def edit(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        found = file.read(1)
        file.seek(at)
        file.write(b"8" if found == b"7" else b"7")


def link(path: Path) -> None:
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def refill(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as state:
        state.execute("UPDATE meta SET schema_version = 99")
        state.commit()


def cut_to(size_bytes: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, size_bytes)


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


TAMPERS: list[tuple[str, Callable[[Path], None], int]] = [
    *(
        (name, tamper, CHANGED)
        for name in (CPU_FILE, REJECTS_FILE)
        for tamper in (Path.unlink, lambda path: edit(path, 30), refill, link, fifo)
    ),
    (CPU_FILE, lambda path: edit(path, path.stat().st_size - 3), CHANGED),
    (CPU_FILE, folder, WRONG_USE),
    (STATE, Path.unlink, CHANGED),
    (STATE, link, CHANGED),
    (STATE, fifo, CHANGED),
    (STATE, cut_to(0), CHANGED),
    (STATE, cut_to(1000), DAMAGED),
    (STATE, cut_to(4096), DAMAGED),
    (STATE, cut_to(12_288), DAMAGED),
    (STATE, lambda path: edit(path, 0), DAMAGED),
    (STATE, newer, DAMAGED),
    (LOCK, link, CHANGED),
]


def test_files_that_somebody_changed_stop_it_by_name_and_stay_as_they_are(
    case: ConsumerCase, amount: Callable[[int, int], int]
) -> None:
    row = case.row
    row.fault, row.injected = "files and state changed", 0
    chosen = case.rng.sample(TAMPERS, amount(8, len(TAMPERS)))
    saved = case.fleet.folder / "saved"
    shutil.copytree(case.output, saved)
    case.send_steps(STEPS, 5)
    for number, (name, tamper, wanted) in enumerate(chosen):
        tamper(case.output / name)
        before = case.contents()
        assert case.run() == wanted, (number, name, case.said())
        assert str(case.output / name) in case.said(), (number, case.said())
        assert case.contents() == before, (number, name)
        shutil.rmtree(case.output)
        shutil.copytree(saved, case.output)
        row.injected += 1
    # Put back as it was, it goes on.
    case.finish()
    case.check()


def test_an_older_state_is_refused_and_the_newest_goes_on(case: ConsumerCase) -> None:
    row = case.row
    row.fault, row.injected = "state replaced by an older one", 1
    shutil.copy(case.output / STATE, case.fleet.folder / "older")
    case.send_steps(STEPS, 5)
    case.finish()
    shutil.copy(case.output / STATE, case.fleet.folder / "newest")
    shutil.copy(case.fleet.folder / "older", case.output / STATE)
    assert case.run() == CHANGED
    assert str(case.output / STATE) in case.said()
    shutil.copy(case.fleet.folder / "newest", case.output / STATE)
    case.finish()
    case.check()


def test_bytes_appended_by_somebody_are_cut_and_counted(case: ConsumerCase) -> None:
    row = case.row
    row.fault, row.injected = "bytes appended", 0
    for number, name in enumerate((CPU_FILE, REJECTS_FILE)):
        with (case.output / name).open("ab") as file:
            file.write(b"2025-10-05T20:53:00Z,server_9,1.0\nhalf a li")
        case.send_steps(STEPS + number, 1)
        case.finish()
        assert f"{name}: cut 43 bytes" in case.said()
        row.injected += 1
    case.check()


def test_a_file_that_is_changed_while_it_runs_ends_it(case: ConsumerCase) -> None:
    row = case.row
    row.fault, row.injected = "file changed while it runs", 0
    path = case.output / CPU_FILE
    with case.load(STEPS):
        for tamper in (Path.unlink, link, append):
            saved = case.fleet.folder / "saved"
            with case.running() as process:
                case.await_growth()
                process.send_signal(signal.SIGSTOP)
                shutil.copytree(case.output, saved)
                tamper(path)
                process.send_signal(signal.SIGCONT)
                assert process.wait(END_S) == CHANGED, case.said()
            assert str(path) in case.said()
            shutil.rmtree(case.output)
            shutil.move(saved, case.output)
            row.injected += 1
    case.finish()
    case.check()


# Recovery


def test_recovery_reads_no_more_of_a_long_file_than_its_end(
    place: Path, row: Row, amount: Callable[[int, int], int]
) -> None:
    row.fault, row.injected, row.rows = "recovery with a million rows", 0, 1_000_000
    files = [FileSpec(CPU_FILE, "ts,server_id,cpu_pct\n"), FileSpec(REJECTS_FILE)]
    lines = b"2025-10-05T20:53:00Z,server_1,34.74\n" * 50_000
    with open_sink(place / "output", "consumer1", files) as sink:
        for _ in range(20):
            sink.commit(Batch({CPU_FILE: Lines(lines, 50_000)}))
    took_s = []
    for _ in range(amount(20, 200)):
        # What a crash leaves: bytes that no commit knows.
        with (place / "output" / CPU_FILE).open("ab") as file:
            file.write(lines[: row.seed % 100_000 + 1])
        before, start_s = read_bytes(), time.monotonic()
        with open_sink(place / "output", "consumer1", files) as sink:
            took_s.append(time.monotonic() - start_s)
            assert read_bytes() - before < 1 << 20
            assert sink.files[CPU_FILE].lines == 1_000_000
            assert sink.cut_bytes
        row.injected += 1
    worst = sorted(took_s)[-max(1, len(took_s) // 100)]
    row.note = f"p99 {worst * 1000:.0f} ms"


def read_bytes() -> int:
    """Return how many bytes this process ever read."""
    found = Path("/proc/self/io").read_text().split()
    return int(found[found.index("rchar:") + 1])
