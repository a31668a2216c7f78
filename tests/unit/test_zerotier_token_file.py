"""Where ZeroTier's token may lie, who may read it, and that nobody sees it."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from fleetpulse.domain.errors import AccessDenied, FleetpulseError, ServiceUnreachable, UsageError
from fleetpulse.edges.zerotier.token_file import read_token, token_paths

NOBODY = 65534


def written(path: Path, content: bytes = b"canary\n", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@contextmanager
def without_permission(path: Path) -> Iterator[None]:
    """Somebody who may not read a file: root may read all, and becomes somebody else."""
    path.chmod(0)
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def message(error: type[FleetpulseError], *paths: Path) -> str:
    with pytest.raises(error) as caught:
        read_token(paths)
    assert type(caught.value) is error
    assert "canary" not in "".join(traceback.format_exception(caught.value))
    return str(caught.value)


@pytest.mark.parametrize("content", [b"canary", b"canary\n", b"  canary\r\n"])
def test_token_is_the_line_without_blanks_around_it(tmp_path: Path, content: bytes) -> None:
    token = read_token([written(tmp_path / "t", content)])
    assert token.reveal() == "canary"
    assert "canary" not in f"{token!r}{token}"


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o440, 0o750])
def test_owner_and_group_may_read_it(tmp_path: Path, mode: int) -> None:
    assert read_token([written(tmp_path / "t", mode=mode)]).reveal() == "canary"


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o666, 0o777])
def test_file_that_every_user_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "t", mode=mode)
    found = message(UsageError, path)
    assert found.startswith(f"{path}: its mode {mode:04o} lets every user")
    assert f"chmod o= '{path}'" in found


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"canary canary", b"canary\nmore", b"canary\0", b"canary\xff", b"canary" * 100],
)
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path / "t", content)
    assert message(UsageError, path).startswith(f"{path}: wanted one line with the token")


def test_file_that_is_not_there_names_the_setting(tmp_path: Path) -> None:
    assert "zerotier.token_file" in message(UsageError, tmp_path / "absent")
    assert "zerotier.token_file" in message(UsageError, written(tmp_path / "t") / "below")


def test_pipe_and_folder_in_its_place_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert "no regular file" in message(UsageError, tmp_path / "pipe")
    assert "Is a directory" in message(UsageError, tmp_path)


def test_file_that_this_user_may_not_read_says_how_to_get_there(tmp_path: Path) -> None:
    path = written(tmp_path / "t")
    with without_permission(path):
        found = message(AccessDenied, path)
    assert found.startswith(f"{path}: this user may not read the token of the ZeroTier service")
    assert "sudo" in found


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that every user can reach, unlike those of tmp_path."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_first_file_that_is_there_is_taken(tmp_path: Path) -> None:
    service, copy = tmp_path / "service", written(tmp_path / "copy", b"copied")
    assert read_token([service, copy]).reveal() == "copied"
    written(service)
    assert read_token([service, copy]).reveal() == "canary"


def test_copy_helps_where_the_first_file_may_not_be_read(shared: Path) -> None:
    service, copy = written(shared / "service"), written(shared / "copy", b"copied")
    if os.geteuid() == 0:
        os.chown(copy, NOBODY, NOBODY)
    with without_permission(service):
        assert read_token([service, copy]).reveal() == "copied"


def test_without_any_permission_the_first_file_is_named(shared: Path) -> None:
    service = written(shared / "service")
    with without_permission(service):
        found = message(AccessDenied, service, shared / "absent")
    assert found.startswith(f"{service}: this user may not read")


def test_without_any_file_zerotier_is_not_installed(tmp_path: Path) -> None:
    found = message(ServiceUnreachable, tmp_path / "one", tmp_path / "two")
    assert found.startswith(
        f"no token of a ZeroTier service in {tmp_path}/one or {tmp_path}/two; install ZeroTier"
    )


def test_given_file_is_the_only_place(tmp_path: Path) -> None:
    assert token_paths(tmp_path) == (tmp_path,)


def test_usual_places_are_those_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/ann")
    places = {
        "linux": ["/var/lib/zerotier-one/authtoken.secret", "/srv/ann/.zeroTierOneAuthToken"],
        "darwin": [
            "/Library/Application Support/ZeroTier/One/authtoken.secret",
            "/srv/ann/Library/Application Support/ZeroTier/One/authtoken.secret",
        ],
    }
    for platform, expected in places.items():
        monkeypatch.setattr("sys.platform", platform)
        assert [str(path) for path in token_paths(None)] == expected
