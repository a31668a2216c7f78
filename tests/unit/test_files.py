import errno
import os
import stat
from pathlib import Path

import pytest

from fleetpulse.domain.errors import DiskError, FleetpulseError, UsageError
from fleetpulse.edges.files import CHUNK_BYTES, atomic_writer, read_chunks, scratch_folder


def write(path: Path, text: str) -> None:
    with atomic_writer(path) as put:
        put(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_read_whole_in_bounded_chunks(tmp_path: Path) -> None:
    path = tmp_path / "data"
    content = os.urandom(CHUNK_BYTES * 2 + 5)
    path.write_bytes(content)
    chunks = list(read_chunks(path))
    assert b"".join(chunks) == content
    assert [len(chunk) for chunk in chunks] == [CHUNK_BYTES, CHUNK_BYTES, 5]


@pytest.mark.parametrize(
    ("limit_bytes", "lengths"),
    [
        (0, []),
        (5, [5]),
        (CHUNK_BYTES, [CHUNK_BYTES]),
        (CHUNK_BYTES + 1, [CHUNK_BYTES, 1]),
        (CHUNK_BYTES * 9, [CHUNK_BYTES, 10]),
    ],
)
def test_a_file_is_read_as_far_as_the_limit(
    tmp_path: Path, limit_bytes: int, lengths: list[int]
) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"x" * (CHUNK_BYTES + 10))
    assert [len(chunk) for chunk in read_chunks(path, limit_bytes)] == lengths


def test_an_empty_file_has_no_chunk(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.touch()
    assert list(read_chunks(path)) == []


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("missing", "there is no such file; check the path"),
        ("file/below", "a part of this path is a file, wanted a folder"),
        ("folder", "this is a folder, wanted a file"),
        ("n" * 300, "the name is too long"),
        ("loop", "a symbolic link is in the way"),
    ],
)
def test_a_path_that_cannot_be_read_is_explained(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    with pytest.raises(UsageError) as caught:
        list(read_chunks(path))
    assert str(caught.value).startswith(f"{path}: {what}")


def test_a_written_file_appears_whole_with_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "out.csv"
    with atomic_writer(path) as put:
        put("a,é\n")
        put("b\r\n")
        assert not path.exists()
    assert path.read_bytes() == "a,é\nb\r\n".encode()
    assert names(path.parent) == ["out.csv"]


def test_a_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write(tmp_path / "out.csv", "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640


def test_a_file_that_was_there_is_replaced_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("a much longer old text")
    with atomic_writer(path) as put:
        put("new")
        assert path.read_text() == "a much longer old text"
    assert path.read_text() == "new"


@pytest.mark.parametrize(
    ("error", "expected"), [(KeyboardInterrupt, KeyboardInterrupt), (UsageError, UsageError)]
)
def test_an_error_leaves_what_was_there(
    tmp_path: Path, error: type[BaseException], expected: type[BaseException]
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(expected), atomic_writer(path) as put:  # noqa: PT012 - two steps on purpose
        put("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.csv"]


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    partial = tmp_path / f".out.csv.{os.getpid()}.partial"
    partial.write_text("a much longer text of a killed process")
    write(path, "new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["out.csv"]


def test_a_link_is_replaced_and_what_it_names_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    (tmp_path / "out.csv").symlink_to(target)
    write(tmp_path / "out.csv", "new")
    assert (tmp_path / "out.csv").read_text() == "new"
    assert target.read_text() == "old"


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("old")
    (tmp_path / f".out.csv.{os.getpid()}.partial").symlink_to(victim)
    with pytest.raises(UsageError, match="a symbolic link is in the way"):
        write(tmp_path / "out.csv", "new")
    assert victim.read_text() == "old"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("folder", "this is a folder, wanted a file"),
        ("file/below.csv", "a part of this path is a file, wanted a folder"),
        ("file/below/deeper.csv", "a part of this path is a file, wanted a folder"),
        ("n" * 300, "the name is too long"),
        ("pipe", "this is a device or pipe, wanted a file"),
        ("null", "this is a device or pipe, wanted a file"),
        ("loop", "a symbolic link is in the way"),
    ],
)
def test_a_path_that_cannot_be_written_is_explained(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    before = names(tmp_path)
    with pytest.raises(UsageError) as caught:
        write(path, "new")
    assert str(caught.value).startswith(f"{path}: {what}")
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", [".", "/", ""])
def test_a_path_without_a_name_is_a_folder(name: str) -> None:
    with pytest.raises(UsageError, match="this is a folder"):
        write(Path(name), "new")


@pytest.mark.parametrize(
    ("number", "expected", "what"),
    [
        (errno.ENOSPC, DiskError, "the disk is full"),
        (errno.EDQUOT, DiskError, "the disk is full"),
        (errno.EIO, DiskError, "cannot write it"),
        (errno.EROFS, DiskError, "cannot write it"),
        (errno.EACCES, UsageError, "no permission to write it"),
        (errno.EPERM, UsageError, "no permission to write it"),
        (None, DiskError, "cannot write it (odd)"),
    ],
)
def test_a_failing_disk_is_explained(
    tmp_path: Path, number: int | None, expected: type[FleetpulseError], what: str
) -> None:
    path = tmp_path / "out.csv"
    error = OSError("odd") if number is None else OSError(number, os.strerror(number))
    with pytest.raises(expected) as caught, atomic_writer(path):
        raise error
    assert str(caught.value).startswith(f"{path}: {what}")
    assert names(tmp_path) == []


def test_a_full_disk_is_seen_when_the_text_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "out.csv"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match=r"the disk is full .*; make room and run this again"):
        write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["out.csv"]


def test_a_scratch_folder_lies_beside_and_goes_with_all_in_it(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "new" / "out.csv") as folder:
        (folder / "part").write_text("x")
        assert folder.parent == tmp_path / "new"
        assert folder.name.startswith(".out.csv.")
    assert names(tmp_path / "new") == []


def test_a_scratch_folder_below_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="a part of this path is a file"),
        scratch_folder(tmp_path / "file" / "out.csv"),
    ):
        pass
