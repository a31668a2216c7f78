import datetime as dt
import errno
import os
import ssl
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from fleetpulse.domain.errors import DiskError, UsageError
from fleetpulse.edges.credentials.authority import Authority
from fleetpulse.edges.credentials.folder import PRIVATE, PUBLIC, new_folder, replace_file


def make(path: Path) -> None:
    with new_folder(path) as made:
        made.write("key", b"secret", PRIVATE)
        made.write("one/certificate", b"public", PUBLIC)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def dead_process() -> int:
    """The id of a process that has ended and was reaped."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait(60)
    return done.pid


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_are_the_same_under_every_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        make(tmp_path / "security")
        replace_file(tmp_path / "security" / "key", b"other", PRIVATE)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(tmp_path)): mode_of(path) for path in sorted(tmp_path.rglob("*"))}
    assert modes == {
        "security": 0o700,
        "security/key": 0o600,
        "security/one": 0o700,
        "security/one/certificate": 0o644,
    }


def test_a_folder_has_no_name_before_it_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "security") as made:
        made.write("key", b"secret", PRIVATE)
        (hidden,) = names(tmp_path)
        assert hidden.startswith(".")
        assert mode_of(tmp_path / hidden) == 0o700
    assert names(tmp_path) == ["security"]
    assert (tmp_path / "security" / "key").read_bytes() == b"secret"


def test_folders_above_are_made(tmp_path: Path) -> None:
    make(tmp_path / "new" / "security")
    assert names(tmp_path / "new") == ["security"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, UsageError])
def test_an_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), new_folder(tmp_path / "security") as made:  # noqa: PT012 - two steps
        made.write("key", b"secret", PRIVATE)
        raise error
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link"])
def test_what_is_there_already_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "security"
    if kind == "link":
        path.symlink_to("nowhere")
    elif kind == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        if kind == "folder":
            (path / "mine").touch()
    before = path.lstat()
    with pytest.raises(UsageError) as caught:
        make(path)
    assert str(caught.value).startswith(f"{path}: is there already and is not replaced")
    assert path.lstat() == before
    assert names(tmp_path) == ["security"]


def test_a_folder_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "security"
    with (  # noqa: PT012 - two steps on purpose
        pytest.raises(UsageError, match="is there already and is not replaced"),
        new_folder(path) as made,
    ):
        made.write("key", b"ours", PRIVATE)
        path.mkdir()
        (path / "key").write_bytes(b"theirs")
    assert (path / "key").read_bytes() == b"theirs"
    assert names(tmp_path) == ["security"]


def test_a_file_is_never_written_twice(tmp_path: Path) -> None:
    with pytest.raises(UsageError), new_folder(tmp_path / "security") as made:  # noqa: PT012 - two steps
        made.write("key", b"secret", PRIVATE)
        made.write("key", b"other", PRIVATE)
    assert names(tmp_path) == []


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"old")
    with pytest.raises(UsageError), new_folder(tmp_path / "security") as made:  # noqa: PT012 - two steps
        (made.path / "key").symlink_to(victim)
        made.write("key", b"secret", PRIVATE)
    assert victim.read_bytes() == b"old"


@pytest.mark.parametrize("path", [".", "/", ""])
def test_a_path_without_a_name_is_no_new_folder(path: str) -> None:
    with pytest.raises(UsageError, match="is there already"):
        make(Path(path))


def test_what_a_killed_process_left_is_removed(tmp_path: Path, dead_process: int) -> None:
    left = tmp_path / f".security.{dead_process}.partial"
    left.mkdir()
    (left / "key").touch()
    own = tmp_path / f".security.{os.getpid()}.partial"
    own.mkdir()
    make(tmp_path / "security")
    assert names(tmp_path) == ["security"]


def test_what_a_running_process_makes_stays_and_so_do_strangers(
    tmp_path: Path, dead_process: int
) -> None:
    strangers = [
        ".security.1.partial",
        f".other.{dead_process}.partial",
        f".security.{dead_process}",
        ".security.x.partial",
        ".security.partial",
    ]
    for name in strangers:
        (tmp_path / name).mkdir()
    make(tmp_path / "security")
    assert names(tmp_path) == sorted([*strangers, "security"])


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    path = tmp_path / "security"
    with pytest.raises(DiskError) as caught:
        make(path)
    assert str(caught.value) == (
        f"{path}: cannot be written (No space left on device); make room on the disk and run this "
        "again"
    )
    assert names(tmp_path) == []


def test_a_replaced_file_is_another_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"a much longer old one")
    with path.open("rb") as reader:
        replace_file(path, b"new", PRIVATE)
        assert reader.read() == b"a much longer old one"
    assert path.read_bytes() == b"new"
    assert mode_of(path) == 0o600
    assert names(tmp_path) == ["key"]


def test_a_replaced_link_leaves_what_it_named(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"old")
    (tmp_path / "key").symlink_to(victim)
    replace_file(tmp_path / "key", b"new", PRIVATE)
    assert victim.read_bytes() == b"old"
    assert not (tmp_path / "key").is_symlink()


def test_a_file_that_cannot_be_replaced_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dead_process: int
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "key"
    path.write_bytes(b"old")
    (tmp_path / f".key.{dead_process}.partial").write_bytes(b"half")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskError, match="cannot be written"):
        replace_file(path, b"new", PRIVATE)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["key"]


@pytest.mark.parametrize("name", ["missing/key", "file/key"])
def test_a_file_without_its_folder_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError) as caught:
        replace_file(tmp_path / name, b"new", PRIVATE)
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot be written (")


def test_a_reader_never_sees_a_key_beside_the_certificate_of_another(tmp_path: Path) -> None:
    now = dt.datetime.now(dt.UTC)
    authority = Authority.new(now)
    path = tmp_path / "identity.pem"
    replace_file(path, authority.issue("broker", (), now, 1), PRIVATE)
    is_over = Event()

    def read_on() -> int:
        reads = 0
        while not is_over.is_set() or not reads:
            seen = tmp_path / "seen.pem"
            seen.write_bytes(path.read_bytes())
            # It refuses a key that is not the certificate's.
            ssl.create_default_context().load_cert_chain(seen)
            reads += 1
        return reads

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_on)
        for _ in range(100):
            replace_file(path, authority.issue("broker", (), now, 1), PRIVATE)
        is_over.set()
        assert reading.result(60) > 0
