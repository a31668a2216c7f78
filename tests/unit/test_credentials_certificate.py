import datetime as dt
import errno
import os
from pathlib import Path

import pytest

from fleetpulse.domain.errors import DiskError, UsageError
from fleetpulse.edges.credentials.authority import Authority
from fleetpulse.edges.credentials.certificate import CertificateFacts, certificate_facts

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
AUTHORITY = Authority.new(NOW)
IDENTITY = AUTHORITY.issue("broker", ("10.147.17.1", "localhost", "::1"), NOW, 30)
KEY, CERTIFICATE = (
    IDENTITY[: IDENTITY.index(b"-----BEGIN CERTIFICATE")],
    IDENTITY[IDENTITY.index(b"-----BEGIN CERTIFICATE") :],
)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(AUTHORITY.certificate_pem())
    return path


def identity_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "identity.pem"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_the_facts_are_those_of_the_certificate(tmp_path: Path, ca: Path) -> None:
    facts = certificate_facts(identity_file(tmp_path, IDENTITY), ca)
    assert facts == CertificateFacts(
        subject="broker",
        hosts=("localhost", "10.147.17.1", "::1"),
        not_before=dt.datetime(2026, 3, 1, 11, tzinfo=dt.UTC),
        not_after=dt.datetime(2026, 3, 31, 12, tzinfo=dt.UTC),
        fingerprint=facts.fingerprint,
        ca_fingerprint=certificate_facts(ca, ca).fingerprint,
        is_signed_by_ca=True,
    )
    assert len(bytes.fromhex(facts.fingerprint.replace(":", ""))) == 32


def test_a_client_has_no_hosts(tmp_path: Path, ca: Path) -> None:
    client = AUTHORITY.issue("consumer1", (), NOW, 30)
    assert certificate_facts(identity_file(tmp_path, client), ca).hosts == ()


def test_an_authority_signs_itself(ca: Path) -> None:
    facts = certificate_facts(ca, ca)
    assert facts.is_signed_by_ca
    assert facts.fingerprint == facts.ca_fingerprint
    assert facts.subject.startswith("fleetpulse authority ")


@pytest.mark.parametrize(
    "signer", [Authority.new(NOW), Authority(Authority.new(NOW).key, AUTHORITY.certificate)]
)
def test_what_another_key_has_signed_is_not_signed_by_this_authority(
    tmp_path: Path, ca: Path, signer: Authority
) -> None:
    foreign = signer.issue("broker", (), NOW, 30)
    assert not certificate_facts(identity_file(tmp_path, foreign), ca).is_signed_by_ca


def test_a_certificate_alone_may_be_open(tmp_path: Path, ca: Path) -> None:
    path = identity_file(tmp_path, CERTIFICATE, 0o644)
    assert certificate_facts(path, ca).subject == "broker"


def test_the_key_may_stand_behind_the_certificate(tmp_path: Path, ca: Path) -> None:
    path = identity_file(tmp_path, CERTIFICATE + KEY)
    assert certificate_facts(path, ca).subject == "broker"


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, ca: Path) -> None:
    path = identity_file(tmp_path, IDENTITY, 0o640)
    with pytest.raises(UsageError, match=f"chmod 600 {path}"):
        certificate_facts(path, ca)


@pytest.mark.parametrize(
    "key",
    [
        AUTHORITY.issue("broker", (), NOW, 30).split(b"-----BEGIN CERTIFICATE")[0],
        b"-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n",
    ],
)
def test_a_key_of_another_certificate_is_refused(tmp_path: Path, ca: Path, key: bytes) -> None:
    path = identity_file(tmp_path, key + CERTIFICATE)
    with pytest.raises(UsageError, match="do not belong together") as caught:
        certificate_facts(path, ca)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [b"", b"garbage", CERTIFICATE[:200], KEY])
def test_a_file_without_certificate_is_refused(tmp_path: Path, ca: Path, content: bytes) -> None:
    path = identity_file(tmp_path, content)
    with pytest.raises(UsageError, match="no certificate in PEM form"):
        certificate_facts(path, ca)
    with pytest.raises(UsageError, match="no certificate in PEM form"):
        certificate_facts(ca, path)


@pytest.mark.parametrize("name", ["missing", "ca.pem/below", "folder", "loop", "n" * 300])
def test_a_path_without_a_file_is_explained(tmp_path: Path, ca: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError) as caught:
        certificate_facts(tmp_path / name, ca)
    assert str(caught.value).startswith(f"{tmp_path / name}: cannot read the certificate (")


def test_a_pipe_in_its_place_is_refused_and_not_waited_for(tmp_path: Path, ca: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no certificate in PEM form"):
        certificate_facts(tmp_path / "pipe", ca)
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    with pytest.raises(UsageError, match="no certificate in PEM form"):
        certificate_facts(tmp_path / "pipe", ca)
    os.close(writer)


def test_a_failing_disk_is_explained(
    tmp_path: Path, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: str, _flags: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = identity_file(tmp_path, IDENTITY)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(DiskError, match=r"cannot read the certificate \(Input/output error\)"):
        certificate_facts(path, ca)


def test_days_are_whole_ones_and_both_ends_hold(tmp_path: Path, ca: Path) -> None:
    facts = certificate_facts(identity_file(tmp_path, IDENTITY), ca)
    second = dt.timedelta(seconds=1)
    assert facts.days_left(NOW) == 30
    assert facts.days_left(NOW + second) == 29
    assert facts.days_left(facts.not_after) == 0
    assert facts.days_left(facts.not_after + second) == -1
    assert [facts.holds_at(facts.not_before - second), facts.holds_at(facts.not_before)] == [
        False,
        True,
    ]
    assert [facts.holds_at(facts.not_after), facts.holds_at(facts.not_after + second)] == [
        True,
        False,
    ]
