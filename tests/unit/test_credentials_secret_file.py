import errno
import os
import traceback
from pathlib import Path

import pytest

from fleetpulse.domain.errors import DiskError, UsageError
from fleetpulse.edges.credentials.secret_file import MAX_BYTES, read_secret


def secret_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"s3cret\n", "s3cret"),
        (b"s3cret", "s3cret"),
        (b" two words \n", " two words "),
        ("pässwörd\n".encode(), "pässwörd"),
        (b"x" * MAX_BYTES, "x" * MAX_BYTES),
    ],
)
def test_a_secret_is_the_line_without_its_newline(
    tmp_path: Path, content: bytes, expected: str
) -> None:
    assert read_secret(secret_file(tmp_path, content)).reveal() == expected


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_for_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    assert read_secret(secret_file(tmp_path, b"s3cret", mode)).reveal() == "s3cret"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o666])
def test_a_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = secret_file(tmp_path, b"s3cret", mode)
    with pytest.raises(UsageError) as caught:
        read_secret(path)
    assert str(caught.value).startswith(f"{path}: its mode {mode:04o} ")
    assert f"chmod 600 {path}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"\n", "the file is empty"),
        (b"canary\n\n", "wanted one line"),
        (b"canary\nmore\n", "wanted one line"),
        (b"canary\r\n", "wanted one line"),
        (b"canary\x00", "wanted one line"),
        (b"canary\x7f", "wanted one line"),
        ("canary\u2028".encode(), "wanted one line"),
        (b"canary\xff", "wanted one line"),
        (b"canary" * 1000, f"more than {MAX_BYTES} bytes"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(
    tmp_path: Path, content: bytes, what: str
) -> None:
    path = secret_file(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        read_secret(path)
    assert str(caught.value).startswith(f"{path}: {what}")
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    # Python's own error for bytes that are no UTF-8 carries all of them.
    assert caught.value.__context__ is None


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(secret_file(tmp_path, b"s3cret"))
    with pytest.raises(UsageError, match="a symbolic link, wanted the file itself"):
        read_secret(tmp_path / "link")


def test_a_pipe_in_its_place_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(UsageError, match="no regular file"):
        read_secret(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("missing", "there is no such file"),
        ("password/below", "a part of this path is a file"),
        ("folder", "this is a folder"),
        ("n" * 300, "the name is too long"),
    ],
)
def test_a_path_without_a_file_is_explained(tmp_path: Path, name: str, what: str) -> None:
    secret_file(tmp_path, b"s3cret")
    (tmp_path / "folder").mkdir(mode=0o700)
    with pytest.raises(UsageError) as caught:
        read_secret(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: {what}")


def test_a_failing_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_path: str, _flags: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = secret_file(tmp_path, b"s3cret")
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(DiskError, match=r"cannot read it \(Input/output error\)"):
        read_secret(path)
