"""The search for secrets finds one wherever it is put."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import canary
from lab import awaited

PASSWORD = b"c4nary-" + b"0123456789" * 4
KEY_LINE = b"Q2FuYXJ5" * 8


@pytest.fixture
def secrets(tmp_path: Path) -> dict[str, bytes]:
    folder = tmp_path / "security"
    (folder / "producer").mkdir(parents=True)
    (folder / "producer" / "password").write_bytes(PASSWORD + b"\n")
    pem = b"-----BEGIN %b-----\n%b\n-----END %b-----\n"
    certificate = pem % (b"CERTIFICATE", b"UHVibGlj" * 8, b"CERTIFICATE")
    key = pem % (b"PRIVATE KEY", KEY_LINE + b"\nQ2Fu", b"PRIVATE KEY")
    (folder / "producer" / "identity.pem").write_bytes(key + certificate)
    return canary.secrets_of(folder)


def test_a_secret_is_a_password_or_a_line_of_a_private_key(secrets: dict[str, bytes]) -> None:
    assert sorted(secrets.values()) == sorted([PASSWORD, KEY_LINE])


@pytest.mark.parametrize("secret", [PASSWORD, KEY_LINE])
def test_a_secret_in_a_file_is_found_unless_it_belongs_there(
    secrets: dict[str, bytes], tmp_path: Path, secret: bytes
) -> None:
    log = tmp_path / "logs" / "deep" / "a.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"password='" + secret + b"'")
    assert len(canary.in_files(secrets, [tmp_path / "logs"], [])) == 1
    assert canary.in_files(secrets, [tmp_path / "logs"], [log]) == []


@pytest.mark.parametrize("is_argument", [True, False])
def test_a_secret_of_a_process_is_found(secrets: dict[str, bytes], *, is_argument: bool) -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    arguments = [f"--password={PASSWORD.decode()}"] if is_argument else []
    environment = {} if is_argument else {"PASSWORD": PASSWORD.decode()}
    with (
        canary.watching(secrets) as watch,
        subprocess.Popen([*command, *arguments], stdin=subprocess.PIPE, env=environment) as process,
    ):
        awaited(lambda: watch.found, "the secret was seen")
        process.communicate()
    (found,) = watch.found
    kind = "cmdline" if is_argument else "environ"
    assert found.startswith(f"{kind} of process {process.pid}: ")


def test_nothing_is_found_where_nothing_is(secrets: dict[str, bytes]) -> None:
    with canary.watching(secrets) as watch:
        awaited(lambda: watch.looked_at, "processes were looked at")
    assert watch.found == set()
