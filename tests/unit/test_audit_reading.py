"""Files and states are read as they were committed, and reading them changes nothing."""

import shutil
import zlib
from datetime import date
from pathlib import Path

import pytest

from fleetpulse.domain.errors import DamagedState, DataChanged
from fleetpulse.domain.position import ClockState, Gap, GapKind, Partition, Position
from fleetpulse.edges.sink import Batch, FileSpec, Lines, open_sink, read_state
from fleetpulse.edges.sink.reading import UNENDED, open_committed
from fleetpulse.edges.sink.state import FileState
from fleetpulse.roles.gap_mark import GapMark

WHERE = Partition("cpu", 0)
POSITION = Position(WHERE, "id", 7)
STATE = "consumer1.state.db"


def committed(folder: Path, content: bytes, size_bytes: int) -> list[bytes]:
    (folder / "a.csv").write_bytes(content)
    with open_committed(folder, FileState("a.csv", size_bytes)) as file:
        return [line for lines in file.lines() for line in lines]


def held(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def filled(folder: Path, count: int = 1) -> None:
    with open_sink(folder, "consumer1", [FileSpec("a.csv", "h\n")]) as sink:
        for _ in range(count):
            sink.commit(Batch({"a.csv": Lines(b"x\n", 1)}, [POSITION], {"late": 1}, {"n": b"1"}))


def test_lines_beyond_what_is_committed_do_not_count(tmp_path: Path) -> None:
    assert committed(tmp_path, b"a\nbc\nd\n", 5) == [b"a", b"bc"]


def test_a_last_line_without_its_end_is_no_line(tmp_path: Path) -> None:
    assert committed(tmp_path, b"a\nbc\nd\n", 4) == [b"a", b"bc" + UNENDED]
    assert committed(tmp_path, b"a\nbc", 100) == [b"a", b"bc" + UNENDED]


def test_lines_longer_than_a_read_are_whole(tmp_path: Path) -> None:
    lines = [b"x" * 100_000 + b"%d" % number for number in range(30)]
    content = b"\n".join(lines) + b"\n"
    assert committed(tmp_path, content, len(content)) == lines


def test_the_checksum_is_that_of_the_committed_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"a\nbc\nd\n")
    with open_committed(tmp_path, FileState("a.csv", 5)) as file:
        for _ in range(2):
            assert [*file.lines(0, 2), *file.lines(2)] == [[b"a"], [b"bc"]]
            assert file.crc == zlib.crc32(b"a\nbc\n")


def test_a_missing_file_and_a_link_are_refused(tmp_path: Path) -> None:
    state = FileState("a.csv", 5)
    with pytest.raises(DataChanged, match="the file is missing"), open_committed(tmp_path, state):
        pass
    (tmp_path / "a.csv").symlink_to("b.csv")
    with pytest.raises(DataChanged, match="this is a link"), open_committed(tmp_path, state):
        pass


def test_a_file_that_was_not_made_yet_holds_nothing(tmp_path: Path) -> None:
    with open_committed(tmp_path, FileState("a.csv")) as file:
        assert (list(file.lines()), file.crc, file.found_bytes) == ([], 0, 0)


def test_a_state_is_read_whole_beside_its_writer(tmp_path: Path) -> None:
    with open_sink(tmp_path, "consumer1", [FileSpec("a.csv")]) as sink:
        for number in range(1, 4):
            position = Position(WHERE, "id", number)
            sink.commit(Batch({"a.csv": Lines(b"x\n", 1)}, [position], {"late": 1}, {"n": b"1"}))
            view = read_state(tmp_path / STATE)
            assert view is not None
            assert view.positions == {WHERE: position}
            assert view.files["a.csv"].committed_bytes == 2 * number
            assert (view.counters, view.notes) == ({"late": number}, {"n": b"1"})


def test_reading_an_ended_state_leaves_no_trace(tmp_path: Path) -> None:
    filled(tmp_path)
    before = held(tmp_path)
    assert "consumer1.state.db-wal" not in before
    view = read_state(tmp_path / STATE)
    assert view is not None
    assert held(tmp_path) == before


def test_reading_what_a_killed_consumer_left_leaves_no_trace(tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    with open_sink(tmp_path / "live", "consumer1", [FileSpec("a.csv")]) as sink:
        sink.commit(Batch({"a.csv": Lines(b"x\n", 1)}, [POSITION]))
        shutil.copytree(tmp_path / "live", killed)
    before = held(killed)
    assert before[f"{STATE}-wal"][0]
    view = read_state(killed / STATE)
    assert view is not None
    assert view.positions == {WHERE: POSITION}
    assert held(killed) == before


def test_an_empty_state_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / STATE).touch()
    assert read_state(tmp_path / STATE) is None


def test_a_damaged_state_is_told(tmp_path: Path) -> None:
    filled(tmp_path)
    path = tmp_path / STATE
    content = path.read_bytes()
    path.write_bytes(content[:2000] + bytes(3000) + content[5000:])
    with pytest.raises(DamagedState, match=STATE):
        read_state(path)


def test_a_gap_mark_is_kept_as_it_was() -> None:
    position = Position(WHERE, "id", 30, clock=ClockState(date(2025, 10, 5), 5))
    first = GapMark.of(Gap(GapKind.RECREATED, position, 0, 0), {"a.csv": 10}, None)
    assert (first.resume_offset, first.done_offsets, first.clock_ms) == (0, 30, 5)
    assert GapMark.unpack(first.pack(), "here") == first
    # After an earlier one, only what was done since then is added.
    later = GapMark.of(
        Gap(GapKind.RETENTION_PASSED, Position(WHERE, "id", 50), 5, 55), {"a.csv": 20}, first
    )
    last = GapMark.of(Gap(GapKind.RECREATED, Position(WHERE, "id", 60), 0, 0), {}, later)
    assert (later.resume_offset, later.done_offsets, last.done_offsets) == (55, 80, 85)


def test_a_gap_mark_that_cannot_be_read_is_told() -> None:
    wrong = GapMark(0, 1, None, {"a.csv": "10"}).pack()  # type: ignore[dict-item]
    for content in (b"", b"[]", b'{"x": 1}', b"\xff", b"[" * 100_000, wrong):
        with pytest.raises(DamagedState, match="here: a note of a gap"):
            GapMark.unpack(content, "here")
