import errno
import os
import resource
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import date
from pathlib import Path

import pytest

from fleetpulse.domain.errors import (
    AlreadyRunning,
    DamagedState,
    DataChanged,
    DiskError,
    UsageError,
)
from fleetpulse.domain.position import ClockState, LastRecord, Partition, Position
from fleetpulse.edges.sink import Batch, FileSpec, Lines, Sink, committed_bytes, open_sink

HEADER = "ts,server_id,cpu_pct\n"
CSV = FileSpec("cpu_data.csv", HEADER)
REJECTS = FileSpec("rejects.consumer1.jsonl")
WHERE = Partition("topic-cpu", 0)
ROW = b"2025-10-05T20:53:00Z,server_1,34.74\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "output"


def opened(folder: Path) -> Sink:
    return open_sink(folder, "consumer1", [CSV, REJECTS])


def rows(count: int) -> Batch:
    return Batch({CSV.name: Lines(ROW * count, count)}, [Position(WHERE, "id", count)])


def filled(folder: Path, count: int = 3) -> Path:
    """Return the CSV of a sink that committed some rows and was closed."""
    with opened(folder) as sink:
        sink.commit(rows(count))
    return folder / CSV.name


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int) -> Iterator[list[str]]:
    calls: list[str] = []

    def fail(*_: object) -> int:
        calls.append(name)
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        yield calls


def test_first_start_leaves_header_lock_and_state(folder: Path) -> None:
    opened(folder).close()
    assert (folder / CSV.name).read_text() == HEADER
    assert (folder / REJECTS.name).read_bytes() == b""
    assert {path.name for path in folder.iterdir()} >= {"consumer1.lock", "consumer1.state.db"}


def test_data_is_for_the_group_and_state_for_its_owner_alone(folder: Path) -> None:
    before = os.umask(0)
    try:
        filled(folder)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes[CSV.name] == modes[REJECTS.name] == 0o640
    assert {mode for name, mode in modes.items() if name.startswith("consumer1.")} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_what_was_committed_is_known_after_a_restart(folder: Path) -> None:
    position = Position(
        WHERE, "id", 41, 3, LastRecord(40, 123), ClockState(date(2025, 10, 5), 1_759_697_580_000)
    )
    with opened(folder) as sink:
        sink.commit(Batch({CSV.name: Lines(ROW, 1)}, [position], {"malformed": 2}))
        sink.commit(Batch({}, [], {"malformed": 1, "bad_time": 1}))
    with opened(folder) as sink:
        assert sink.positions == {WHERE: position}
        assert sink.counters == {"malformed": 3, "bad_time": 1}
        assert sink.files[CSV.name].lines == 1
        assert sink.cut_bytes == {}


def test_a_position_without_id_epoch_record_and_clock_is_kept(folder: Path) -> None:
    with opened(folder) as sink:
        sink.commit(Batch({}, [Position(WHERE, None, 0)]))
    with opened(folder) as sink:
        assert sink.positions == {WHERE: Position(WHERE, None, 0)}


def test_the_header_is_written_once(folder: Path) -> None:
    filled(folder, 1)
    assert filled(folder, 1).read_bytes() == HEADER.encode() + ROW * 2


def test_a_longer_file_is_cut_and_the_bytes_are_counted(folder: Path) -> None:
    csv = filled(folder)
    with csv.open("ab") as file:
        file.write(b"torn li")
    with opened(folder) as sink:
        assert sink.cut_bytes == {CSV.name: 7}
    assert csv.read_bytes() == HEADER.encode() + ROW * 3


def test_a_shorter_file_is_refused_with_its_name_and_byte(folder: Path) -> None:
    csv = filled(folder)
    os.truncate(csv, 30)
    with pytest.raises(DataChanged, match=r"cpu_data\.csv: the file ends at byte 30"):
        opened(folder)
    assert csv.stat().st_size == 30


def test_a_deleted_file_is_refused_and_not_made_anew(folder: Path) -> None:
    csv = filled(folder)
    csv.unlink()
    with pytest.raises(DataChanged, match="the file is missing"):
        opened(folder)
    assert not csv.exists()


def edited(csv: Path, at_byte: int) -> None:
    with csv.open("r+b") as file:
        file.seek(at_byte)
        file.write(b"X")


def test_an_edit_near_the_end_is_refused(folder: Path) -> None:
    csv = filled(folder)
    stamp = csv.stat()
    edited(csv, stamp.st_size - 5)
    # Even with the old time: the tail is always read.
    os.utime(csv, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(DataChanged, match=r"bytes 0 to \d+ differ"):
        opened(folder)


def test_an_edit_far_from_the_end_is_refused(folder: Path) -> None:
    csv = filled(folder, 10_000)
    edited(csv, 100)
    with pytest.raises(DataChanged, match="some bytes before byte"):
        opened(folder)


def test_a_touched_but_equal_file_is_accepted(folder: Path) -> None:
    csv = filled(folder, 10_000)
    os.utime(csv, ns=(0, 0))
    with opened(folder) as sink:
        assert sink.files[CSV.name].lines == 10_000


def test_an_edit_under_a_torn_end_is_refused(folder: Path) -> None:
    csv = filled(folder)
    edited(csv, csv.stat().st_size - 5)
    with csv.open("ab") as file:
        file.write(b"torn")
    with pytest.raises(DataChanged, match="differ"):
        opened(folder)


def test_data_without_its_state_is_refused(folder: Path) -> None:
    csv = filled(folder)
    (folder / "consumer1.state.db").unlink()
    before = csv.read_bytes()
    with pytest.raises(DataChanged, match=r"cpu_data\.csv: it has 129 bytes"):
        opened(folder)
    assert csv.read_bytes() == before


def test_an_emptied_state_beside_data_is_refused(folder: Path) -> None:
    filled(folder)
    os.truncate(folder / "consumer1.state.db", 0)
    with pytest.raises(DataChanged, match=r"consumer1\.state\.db does not know it"):
        opened(folder)


def test_a_folder_emptied_but_for_its_lock_is_a_first_start(folder: Path) -> None:
    filled(folder)
    for path in folder.iterdir():
        if path.suffix != ".lock":
            path.unlink()
    assert filled(folder, 1).read_bytes() == HEADER.encode() + ROW


def test_an_empty_file_of_somebody_else_is_taken_over(folder: Path) -> None:
    folder.mkdir()
    (folder / CSV.name).touch()
    assert filled(folder, 1).read_bytes() == HEADER.encode() + ROW


@pytest.mark.parametrize("name", [CSV.name, REJECTS.name, "consumer1.state.db", "consumer1.lock"])
def test_a_link_in_a_files_place_is_refused_and_not_followed(folder: Path, name: str) -> None:
    folder.mkdir()
    target = folder.parent / "precious"
    target.write_text("")
    (folder / name).symlink_to(target)
    with pytest.raises(DataChanged, match="this is a link"):
        opened(folder)
    assert target.read_text() == ""


def test_a_file_replaced_by_a_link_is_refused(folder: Path) -> None:
    csv = filled(folder)
    csv.rename(folder / "moved.csv")
    csv.symlink_to(folder / "moved.csv")
    with pytest.raises(DataChanged, match="this is a link"):
        opened(folder)


def test_a_pipe_in_a_files_place_is_refused(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / CSV.name)
    with pytest.raises(DataChanged, match="no regular file"):
        opened(folder)


def test_a_second_instance_is_refused_and_disturbs_nothing(folder: Path) -> None:
    with opened(folder) as sink:
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()} already runs"):
            opened(folder)
        sink.commit(rows(1))
    opened(folder).close()


def test_two_roles_share_a_folder(folder: Path) -> None:
    with opened(folder), open_sink(folder, "consumer2", [FileSpec("net_data.csv", "h\n")]):
        assert committed_bytes(folder / "net_data.csv") == 2
        assert committed_bytes(folder / CSV.name) == len(HEADER)


def test_a_failed_start_gives_the_lock_back(folder: Path) -> None:
    csv = filled(folder)
    data = csv.read_bytes()
    csv.unlink()
    with pytest.raises(DataChanged):
        opened(folder)
    csv.write_bytes(data)
    opened(folder).close()


def test_a_state_that_is_no_database_is_damaged(folder: Path) -> None:
    filled(folder)
    (folder / "consumer1.state.db").write_bytes(b"not a database, but long enough" * 200)
    with pytest.raises(DamagedState, match=r"consumer1\.state\.db"):
        opened(folder)


def test_a_cut_state_is_damaged(folder: Path) -> None:
    filled(folder)
    os.truncate(folder / "consumer1.state.db", 5000)
    with pytest.raises(DamagedState, match=r"consumer1\.state\.db"):
        opened(folder)


def altered(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "consumer1.state.db")) as database:
        database.execute(statement)
        database.commit()


def test_a_state_of_a_newer_version_is_refused(folder: Path) -> None:
    filled(folder)
    altered(folder, "UPDATE meta SET schema_version = 4")
    with pytest.raises(DamagedState, match="format 4, wanted 3"):
        opened(folder)
    with pytest.raises(DamagedState, match="format 4, wanted 3"):
        committed_bytes(folder / CSV.name)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta",
        "UPDATE partition SET next_offset = 'many'",
        "UPDATE partition SET next_offset = next_offset + 1",
        "UPDATE partition SET leader_epoch = 77",
        "UPDATE file SET committed_bytes = 'many'",
        "UPDATE partition SET clock_start = 'soon', clock_ms = 1",
        "DROP TABLE counter",
    ],
)
def test_a_state_with_wrong_content_is_damaged(folder: Path, statement: str) -> None:
    filled(folder)
    altered(folder, statement)
    with pytest.raises(DamagedState, match=r"consumer1\.state\.db"):
        opened(folder)


def test_the_state_of_an_earlier_start_is_refused(folder: Path) -> None:
    csv = filled(folder)
    state = folder / "consumer1.state.db"
    old = state.read_bytes()
    filled(folder)
    before = csv.read_bytes()
    for path in folder.glob("consumer1.state.db*"):
        path.unlink()
    state.write_bytes(old)
    with pytest.raises(DataChanged, match="this state is of start 1, but there were 2"):
        opened(folder)
    assert csv.read_bytes() == before


def test_a_folder_that_was_moved_goes_on(folder: Path) -> None:
    filled(folder)
    moved = folder.with_name("elsewhere")
    folder.rename(moved)
    with opened(moved) as sink:
        assert sink.files[CSV.name].lines == 3


def test_a_file_in_the_folders_place_is_wrong_use(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(UsageError, match="output"):
        opened(folder)


@pytest.mark.parametrize("name", ["pwrite", "fdatasync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_disk_error_names_path_and_errno_and_ends_all_writing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    if not hasattr(os, name):
        name = "pwrite"
    with opened(folder) as sink:
        sink.commit(rows(1))
        with (
            failing(monkeypatch, name, code) as calls,
            pytest.raises(DiskError, match=rf"cpu_data\.csv.*{errno.errorcode[code]}"),
        ):
            sink.commit(rows(2))
        assert calls == [name]
        with pytest.raises(DiskError, match="an earlier write failed"):
            sink.commit(rows(2))
    with opened(folder) as sink:
        assert sink.files[CSV.name].lines == 1
        assert sink.positions[WHERE].next_offset == 1
    assert (folder / CSV.name).read_bytes() == HEADER.encode() + ROW


def test_a_full_disk_under_the_state_is_a_disk_error_and_a_restart_is_exact(folder: Path) -> None:
    with opened(folder) as sink:
        sink.commit(rows(1))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        log_bytes = (folder / "consumer1.state.db-wal").stat().st_size
        # The system refuses to let any file, here SQLite's log, grow beyond this.
        resource.setrlimit(resource.RLIMIT_FSIZE, (log_bytes, hard))
        try:
            with pytest.raises(DiskError, match=r"consumer1\.state\.db"):
                sink.commit(rows(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with opened(folder) as sink:
        assert sink.cut_bytes == {CSV.name: 2 * len(ROW)}
        assert sink.positions[WHERE].next_offset == 1


@pytest.mark.parametrize("harm", ["deleted", "replaced", "appended", "shortened"])
def test_a_file_that_changes_while_open_stops_the_commit(folder: Path, harm: str) -> None:
    csv = folder / CSV.name
    with opened(folder) as sink:
        sink.commit(rows(1))
        match harm:
            case "deleted":
                csv.unlink()
            case "replaced":
                csv.rename(folder / "old")
                csv.write_bytes((folder / "old").read_bytes())
            case "appended":
                with csv.open("ab") as file:
                    file.write(ROW * 5)
            case _:
                os.truncate(csv, 3)
        with pytest.raises(DataChanged, match=r"cpu_data\.csv"):
            sink.commit(rows(2))


def test_bytes_written_in_small_pieces_arrive_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: whole(fd, data[:5], at))
    assert filled(folder).read_bytes() == HEADER.encode() + ROW * 3


def test_readers_see_only_what_is_committed_while_the_sink_is_open(folder: Path) -> None:
    csv = folder / CSV.name
    with opened(folder) as sink:
        sink.commit(rows(2))
        with csv.open("ab") as file:
            file.write(b"torn")
        assert committed_bytes(csv) == len(HEADER) + 2 * len(ROW)
    assert committed_bytes(csv) == len(HEADER) + 2 * len(ROW)


@pytest.mark.parametrize("beginning", [bytes(32), bytes.fromhex("377f0682") + bytes(28)])
def test_a_log_without_a_beginning_that_a_power_cut_left_is_read_as_none(
    folder: Path, beginning: bytes
) -> None:
    csv = filled(folder)
    with opened(folder) as sink:
        shutil.copytree(folder, folder.with_name("cut"))
        sink.commit(rows(1))
    cut = folder.with_name("cut")
    committed = csv.stat().st_size - len(ROW)
    # Its length reached the disk, its bytes did not.
    (cut / "consumer1.state.db-wal").write_bytes(beginning.ljust(8192, b"\0"))
    assert (cut / "consumer1.state.db-shm").exists()
    assert committed_bytes(cut / CSV.name) == committed


def test_what_is_said_of_a_damaged_state_plays_no_tricks_with_a_terminal(folder: Path) -> None:
    filled(folder)
    state = folder / "consumer1.state.db"
    state.write_bytes(
        state.read_bytes().replace(b"CREATE TABLE partition", b"CREATE TABLE pa\x1b[2Jion")
    )
    with pytest.raises(DamagedState) as caught:
        opened(folder)
    assert str(caught.value).isprintable()


def test_a_file_that_no_state_knows_has_no_committed_length(folder: Path) -> None:
    filled(folder)
    (folder / "other.csv").write_text("x")
    assert committed_bytes(folder / "other.csv") is None
    assert committed_bytes(folder.parent / "nowhere.csv") is None


def test_committed_length_is_found_through_a_relative_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(folder, 1)
    monkeypatch.chdir(folder)
    assert committed_bytes(Path(CSV.name)) == len(HEADER) + len(ROW)


def test_a_folder_whose_name_needs_quoting_works(tmp_path: Path) -> None:
    csv = filled(tmp_path / "a b?mode=memory#%41", 1)
    assert committed_bytes(csv) == len(HEADER) + len(ROW)


def test_a_note_is_committed_with_the_lines_and_replaced_by_the_next(folder: Path) -> None:
    with opened(folder) as sink:
        sink.commit(Batch({CSV.name: Lines(b"a\n", 1)}, notes={"open": b"\x00one", "other": b""}))
        sink.commit(Batch(notes={"open": b"two"}))
    with opened(folder) as sink:
        assert sink.notes() == {"open": b"two", "other": b""}


def test_a_note_that_was_changed_is_damaged_state(folder: Path) -> None:
    with opened(folder) as sink:
        sink.commit(Batch(notes={"open": b"12"}))
    altered(folder, "UPDATE note SET content = CAST('1' AS BLOB)")
    with opened(folder) as sink, pytest.raises(DamagedState, match="the note open does not match"):
        sink.notes()
