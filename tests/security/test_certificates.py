"""Who has a wrong certificate, or none, gets nothing; and it is said which check failed."""

import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography import x509

sys.path.insert(0, str(Path(__file__).parent))

from installation import DENIED, Installation, await_instant, awaited

from fleetpulse.edges.credentials.authority import Authority
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.broker_folder import BrokerFolder
from fleetpulse.edges.kafka.tls import Tls, tls_problem

HOST = "127.0.0.1"
ASKS_S = 5.0
SEND = ("producer", "--simulate", "--servers", "1", "--limit", "3", "--speed", "max")
SHORT_S = 20.0
QUICKLY = ("--connect-timeout", "4s")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """The certificate of an authority of somebody else's, and one that it made for `producer`."""
    authority = Authority.new(datetime.now(UTC))
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem())
    identity = tmp_path / "identity.pem"
    identity.write_bytes(authority.issue("producer", (), datetime.now(UTC), 1))
    identity.chmod(0o600)
    return tmp_path


@pytest.fixture
def unchanged(installation: Installation) -> Iterator[None]:
    """See that nothing of a test arrives in a topic."""
    before = installation.ends()
    yield
    assert installation.ends() == before


@contextmanager
def broker_certificate(installation: Installation, ends_in_s: float) -> Iterator[datetime]:
    """Let the broker show a certificate that ends so soon; a new one at the end."""
    end = installation.issue("broker", ends_in_s, ("127.0.0.1", "localhost", "::1"))
    assert installation.broker("start").code == 0
    try:
        yield end
    finally:
        installation.renew("broker")
        renewed = installation.broker("start")
        assert renewed.code == 0, renewed.err


def check_refused(
    installation: Installation, machine: str, reason: str, variables: Mapping[str, object]
) -> None:
    role = ("consumer1",) if machine == "consumer1" else SEND
    with installation.running(machine, *role, *QUICKLY, **variables) as running:
        running.process.wait(60)
    done = running.stop()
    assert done.code == DENIED, done.err
    assert reason in done.error


def test_with_its_own_files_a_producer_sends(installation: Installation) -> None:
    before = installation.ends()
    with installation.running("producer", *SEND) as running:
        assert running.process.wait(60) == 0, running.said()
    assert installation.ends() == {name: end + 3 for name, end in before.items()}


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("machine", ["producer", "consumer1"])
def test_a_broker_of_another_authority_is_not_trusted(
    installation: Installation, foreign: Path, machine: str
) -> None:
    reason = f"the broker's certificate is not of the authority in {foreign / 'ca.pem'}"
    variables = {"security__ca_file": foreign / "ca.pem"}
    check_refused(installation, machine, reason, variables)


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("machine", ["producer", "consumer1"])
def test_a_broker_under_a_name_that_its_certificate_lacks_is_not_trusted(
    installation: Installation, machine: str
) -> None:
    # Another way to write 127.0.0.1.
    reason = "the broker's certificate is not for 127.1;"
    check_refused(installation, machine, reason, {"hosts__broker": "'127.1'"})


@pytest.mark.usefixtures("unchanged")
def test_a_broker_whose_certificate_has_ended_is_not_trusted(installation: Installation) -> None:
    with broker_certificate(installation, ends_in_s=8) as end:
        await_instant(end)
        check_refused(installation, "producer", "the broker's certificate has expired", {})


@pytest.mark.usefixtures("unchanged")
def test_the_broker_refuses_a_machine_with_a_certificate_of_another_authority(
    installation: Installation, foreign: Path
) -> None:
    path = foreign / "identity.pem"
    variables = {"security__certificate_file": path, "security__key_file": path}
    reason = f"the broker refuses this machine's certificate {path}"
    check_refused(installation, "producer", reason, variables)


@pytest.mark.usefixtures("unchanged")
def test_the_broker_refuses_a_machine_whose_certificate_has_ended(
    installation: Installation,
) -> None:
    installation.issue("consumer1", ends_in_s=-60)
    try:
        reason = "the broker refuses this machine's certificate"
        check_refused(installation, "consumer1", reason, {})
    finally:
        installation.renew("consumer1")


@pytest.mark.usefixtures("unchanged")
def test_the_broker_refuses_a_machine_without_a_certificate(installation: Installation) -> None:
    variables = {"security__certificate_file": "null", "security__key_file": "null"}
    reason = "the broker wants a certificate of this machine"
    check_refused(installation, "producer", reason, variables)


def certificate_serial(path: Path) -> int:
    return x509.load_pem_x509_certificates(path.read_bytes())[0].serial_number


def serial_at(port: int, installation: Installation) -> int:
    """Return the serial number of the certificate that is shown at a port."""
    own = installation.folder("monitor")
    context = ssl.create_default_context(cafile=own / "ca.pem")
    context.load_cert_chain(own / "identity.pem")
    with (
        socket.create_connection((HOST, port)) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as wrapped,
    ):
        found = wrapped.getpeercert()
    assert found
    return int(str(found["serialNumber"]), 16)


def listening(installation: Installation) -> dict[int, set[str]]:
    """Return the addresses by port on which the broker takes connections."""
    noted = BrokerFolder.at(installation.data).read_process()
    assert noted
    found: dict[int, set[str]] = {}
    for one in psutil.Process(noted.pid).net_connections("tcp"):
        if one.status == psutil.CONN_LISTEN:
            found.setdefault(one.laddr.port, set()).add(one.laddr.ip.removeprefix("::ffff:"))
    return found


def own_ports(installation: Installation) -> list[int]:
    """Return the ports that the broker has for itself."""
    ports = sorted(set(listening(installation)) - {installation.port})
    assert len(ports) == 2
    return ports


def answers(access: KafkaAccess) -> bool:
    try:
        client = access.client(AdminClient, {}, lambda _error: None)
        return bool(client.list_topics(timeout=ASKS_S).brokers)
    except KafkaException:
        return False


def test_a_renewed_certificate_is_shown_on_every_listener_without_a_restart(
    installation: Installation,
) -> None:
    noted = BrokerFolder.at(installation.data).process_path.read_bytes()
    ports = [installation.port, *own_ports(installation)]
    for _ in range(2):
        installation.renew("broker")
        assert installation.broker("start").code == 0
        wanted = certificate_serial(installation.folder("broker") / "identity.pem")
        for port in ports:
            awaited(
                lambda port=port, wanted=wanted: serial_at(port, installation) == wanted,
                f"port {port} of {ports} shows the new certificate",
                within_s=10,
            )
    assert BrokerFolder.at(installation.data).process_path.read_bytes() == noted
    assert answers(installation.access("monitor"))


def test_the_broker_takes_connections_on_its_address_and_for_itself_on_loopback(
    installation: Installation,
) -> None:
    assert listening(installation)[installation.port] == {"127.0.0.1"}
    for port in own_ports(installation):
        assert listening(installation)[port] == {"127.0.0.1"}


def test_the_listeners_for_itself_refuse_who_has_no_certificate_of_ours(
    installation: Installation, foreign: Path
) -> None:
    ca, identity = installation.security / "ca.pem", foreign / "identity.pem"
    own = installation.folder("broker") / "identity.pem"
    for port in own_ports(installation):
        assert tls_problem("127.0.0.1", port, Tls(ca, own, own)) is None
        without = tls_problem("127.0.0.1", port, Tls(ca))
        assert "the broker wants a certificate of this machine" in str(without)
        other = tls_problem("127.0.0.1", port, Tls(ca, identity, identity))
        assert "the broker refuses this machine's certificate" in str(other)


def test_the_certificate_of_a_role_is_nobody_but_the_role_on_the_internal_listener(
    installation: Installation,
) -> None:
    noted = BrokerFolder.at(installation.data).read_process()
    assert noted
    as_role = replace(installation.access("consumer1"), bootstrap=str(noted.internal), login=None)
    client = as_role.client(AdminClient, {}, lambda _error: None)
    # It may see its own topics, as it may elsewhere.
    assert "topic-cpu" in client.list_topics(timeout=ASKS_S).topics
    assert "topic-net" not in client.list_topics(timeout=ASKS_S).topics
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192)
    change = UserScramCredentialUpsertion("admin", info, b"known to me", b"salt of 16 bytes")
    for asked in client.alter_user_scram_credentials([change]).values():
        with pytest.raises(KafkaException) as caught:
            asked.result(ASKS_S)
        assert caught.value.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED
    written: list[object] = []
    producer = as_role.client(Producer, {}, lambda _error: None)
    producer.produce("topic-cpu", b"x", on_delivery=lambda error, _: written.append(error.code()))
    producer.flush(ASKS_S)
    assert written == [KafkaError.TOPIC_AUTHORIZATION_FAILED]


@pytest.fixture
def renewed_at_the_end(installation: Installation) -> Iterator[tuple[str, ...]]:
    """Machines whose certificates a test may replace."""
    machines = ("consumer1", "consumer2", "monitor", "producer")
    yield machines
    for machine in machines:
        installation.issue(machine, 12 * 3600)


def test_roles_that_run_take_new_certificates_before_the_old_ones_end(
    installation: Installation, renewed_at_the_end: tuple[str, ...]
) -> None:
    machines = renewed_at_the_end
    end = max(installation.issue(machine, SHORT_S) for machine in machines)
    simulate = ("producer", "--simulate", "--servers", "1", "--interval", "500ms")
    live = {"window__size_s": 2, "window__slide_s": 1}
    with (
        installation.running("consumer1", "consumer1") as renewed,
        installation.running("consumer2", "consumer2") as forgotten,
        installation.running("monitor", "monitor", "--csv", "--no-topic", **live) as monitor,
        installation.running("producer", *simulate) as producer,
    ):
        monitor.await_rows("CPU_MEM.csv", 1)
        renewed.await_rows("cpu_data.csv", 1)
        forgotten.await_rows("net_data.csv", 1)
        for machine in ("consumer1", "monitor", "producer"):
            installation.issue(machine, 600)
        await_instant(end)
        # Whoever has the old certificate only can stay until this.
        assert installation.broker("stop").code == 0
        assert installation.broker("start").code == 0
        rows = {name: len(renewed.rows(name)) for name in ("cpu_data.csv", "mem_data.csv")}
        forgotten.await_said("certificate")
        lost = len(forgotten.rows("net_data.csv"))
        for name, count in rows.items():
            renewed.await_rows(name, count + 5)
        windows = len(monitor.rows("CPU_MEM.csv"))
        monitor.await_rows("CPU_MEM.csv", windows + 1)
        assert len(forgotten.rows("net_data.csv")) == lost
        installation.issue("consumer2", 600)
        forgotten.await_rows("net_data.csv", len(renewed.rows("cpu_data.csv")))
        for role in (producer, renewed, forgotten, monitor):
            assert role.stop().code == 0, role.said()
