import datetime as dt
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fleetpulse.domain.errors import UsageError
from fleetpulse.edges.credentials.authority import AUTHORITY_DAYS, Authority
from fleetpulse.edges.credentials.certificate import certificate_facts

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
AUTHORITY = Authority.new(NOW)
OTHER = Authority.new(NOW)
BROKER_HOSTS = ("10.147.17.1", "fd00::1", "broker.example.org", "localhost", "127.0.0.1", "::1")
BROKER = AUTHORITY.issue("broker", BROKER_HOSTS, NOW, 90)
CONSUMER = AUTHORITY.issue("consumer1", (), NOW, 90)


def private(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def context(
    purpose: ssl.Purpose, folder: Path, trusted: Authority, identity: bytes | None
) -> ssl.SSLContext:
    made = ssl.create_default_context(purpose, cadata=trusted.certificate_pem().decode())
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    if identity is not None:
        made.load_cert_chain(private(folder / f"{purpose.name}.pem", identity))
    return made


def shake_hands(
    folder: Path,
    host: str = "10.147.17.1",
    server: bytes = BROKER,
    client: bytes | None = CONSUMER,
    server_trusts: Authority = AUTHORITY,
    client_trusts: Authority = AUTHORITY,
) -> str:
    """Connect both over TLS; return who the server takes the client for."""
    serving = context(ssl.Purpose.CLIENT_AUTH, folder, server_trusts, server)
    asking = context(ssl.Purpose.SERVER_AUTH, folder, client_trusts, client)
    near, far = socket.socketpair()

    def serve() -> str:
        with far, serving.wrap_socket(far, server_side=True) as secured:
            secured.sendall(b"welcome")
            subject = dict(pair for (pair,) in secured.getpeercert()["subject"])
            return str(subject["commonName"])

    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve)
        try:
            with near, asking.wrap_socket(near, server_hostname=host) as secured:
                # With TLS 1.3 a client learns of its refusal when it first reads.
                assert secured.recv(7) == b"welcome"
        except ssl.SSLError as refused:
            with pytest.raises(ssl.SSLError) as there:
                served.result(10)
            reasons = f"client: {refused}; server: {there.value}"
            raise ConnectionRefusedError(reasons) from None
        return served.result(10)


@pytest.mark.parametrize("host", BROKER_HOSTS)
def test_the_broker_serves_under_each_of_its_names(tmp_path: Path, host: str) -> None:
    assert shake_hands(tmp_path, host) == "consumer1"


def test_the_broker_is_a_client_of_itself(tmp_path: Path) -> None:
    assert shake_hands(tmp_path, client=BROKER) == "broker"


@pytest.mark.parametrize("host", ["10.147.17.2", "fd00::2", "example.org", "x.broker.example.org"])
def test_the_broker_under_another_name_is_refused(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConnectionRefusedError, match="mismatch"):
        shake_hands(tmp_path, host)


def test_a_broker_of_another_authority_is_refused(tmp_path: Path) -> None:
    foreign = OTHER.issue("broker", BROKER_HOSTS, NOW, 90)
    with pytest.raises(ConnectionRefusedError, match=r"client: .*unable to get local issuer"):
        shake_hands(tmp_path, server=foreign)


def test_a_client_of_another_authority_is_refused(tmp_path: Path) -> None:
    foreign = OTHER.issue("consumer1", (), NOW, 90)
    with pytest.raises(ConnectionRefusedError, match=r"server: .*unable to get local issuer"):
        shake_hands(tmp_path, client=foreign)


def test_a_client_without_certificate_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"server: .*did not return a certificate"):
        shake_hands(tmp_path, client=None)


def test_an_expired_broker_is_refused(tmp_path: Path) -> None:
    expired = AUTHORITY.issue("broker", BROKER_HOSTS, NOW - 2 * DAY, 1)
    with pytest.raises(ConnectionRefusedError, match=r"client: .*certificate has expired"):
        shake_hands(tmp_path, server=expired)


def test_an_expired_client_is_refused(tmp_path: Path) -> None:
    expired = AUTHORITY.issue("consumer1", (), NOW - 2 * DAY, 1)
    with pytest.raises(ConnectionRefusedError, match=r"server: .*certificate has expired"):
        shake_hands(tmp_path, client=expired)


def test_a_certificate_of_the_future_is_refused(tmp_path: Path) -> None:
    early = AUTHORITY.issue("consumer1", (), NOW + DAY, 1)
    with pytest.raises(ConnectionRefusedError, match=r"server: .*not yet valid"):
        shake_hands(tmp_path, client=early)


def test_a_machine_whose_clock_is_behind_by_minutes_takes_a_new_certificate(
    tmp_path: Path,
) -> None:
    ahead = AUTHORITY.issue("consumer1", (), NOW + dt.timedelta(minutes=50), 1)
    assert shake_hands(tmp_path, client=ahead) == "consumer1"


def test_a_client_cannot_serve(tmp_path: Path) -> None:
    with pytest.raises(ConnectionRefusedError, match=r"client: .*unsuitable certificate purpose"):
        shake_hands(tmp_path, server=CONSUMER)


def test_a_machine_cannot_sign_for_another(tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(CONSUMER, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    machine = Authority(key, x509.load_pem_x509_certificate(CONSUMER))
    forged = machine.issue("broker", BROKER_HOSTS, NOW, 1) + machine.certificate_pem()
    with pytest.raises(ConnectionRefusedError, match=r"client: .*invalid CA certificate"):
        shake_hands(tmp_path, server=forged)


def test_an_authority_signs_machines_only_and_a_machine_signs_nothing() -> None:
    kinds = (x509.BasicConstraints, x509.KeyUsage)
    made = (AUTHORITY.certificate, *map(x509.load_pem_x509_certificate, (BROKER, CONSUMER)))
    found = [[one.extensions.get_extension_for_class(kind) for kind in kinds] for one in made]
    assert all(extension.critical for extensions in found for extension in extensions)
    assert [
        (constraints.value.ca, constraints.value.path_length, usage.value.key_cert_sign)
        for constraints, usage in found
    ] == [(True, 0, True), (False, None, False), (False, None, False)]


def test_a_certificate_holds_for_its_days_and_an_hour_before(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.certificate_pem())
    facts = certificate_facts(private(tmp_path / "identity.pem", BROKER), ca)
    assert facts.not_after == (NOW + 90 * DAY).replace(microsecond=0)
    assert facts.not_before == (NOW - dt.timedelta(hours=1)).replace(microsecond=0)


def test_each_key_and_serial_number_is_new() -> None:
    twice = [AUTHORITY.issue("consumer1", (), NOW, 90) for _ in range(2)]
    keys = {one.split(b"-----END PRIVATE KEY-----")[0] for one in twice}
    serials = {x509.load_pem_x509_certificate(one).serial_number for one in twice}
    assert (len(keys), len(serials)) == (2, 2)


def test_a_certificate_may_last_as_long_as_its_authority_and_no_longer() -> None:
    AUTHORITY.issue("broker", (), NOW, AUTHORITY_DAYS)
    with pytest.raises(UsageError, match="would outlive its authority") as caught:
        AUTHORITY.issue("broker", (), NOW + DAY, AUTHORITY_DAYS)
    assert f"{NOW + AUTHORITY_DAYS * DAY:%Y-%m-%d}" in str(caught.value)


def test_an_authority_read_again_signs_for_those_who_trust_it(tmp_path: Path) -> None:
    key = private(tmp_path / "ca.key", AUTHORITY.key_pem())
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.certificate_pem())
    again = Authority.read(key, tmp_path / "ca.pem")
    renewed = again.issue("consumer1", (), NOW, 1)
    assert shake_hands(tmp_path, client=renewed) == "consumer1"


def test_an_authority_does_not_show_its_key() -> None:
    assert repr(AUTHORITY) == object.__repr__(AUTHORITY)


@pytest.mark.parametrize(
    ("content", "mode", "what"),
    [
        (AUTHORITY.key_pem(), 0o640, "its mode 0640 "),
        (OTHER.key_pem(), 0o600, "not the key of "),
        (b"", 0o600, "no elliptic curve key"),
        (b"canary", 0o600, "no elliptic curve key"),
        (AUTHORITY.certificate_pem(), 0o600, "no elliptic curve key"),
        (None, 0o600, "there is no such file"),
    ],
)
def test_what_is_not_the_key_of_an_authority_is_refused(
    tmp_path: Path, content: bytes | None, mode: int, what: str
) -> None:
    key, ca = tmp_path / "ca.key", tmp_path / "ca.pem"
    ca.write_bytes(AUTHORITY.certificate_pem())
    if content is not None:
        os.chmod(private(key, content), mode)  # noqa: PTH101  as short as it is
    with pytest.raises(UsageError) as caught:
        Authority.read(key, ca)
    assert str(caught.value).startswith(f"{key}: {what}")
    assert "canary" not in str(caught.value)
