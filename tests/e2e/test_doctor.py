"""`doctor` on a real broker, open and secured: a fault is named by one line, the right one."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "security"))

from installation import Installation, await_instant

from fleetpulse.cli import main
from fleetpulse.domain.metric import TOPICS
from fleetpulse.domain.role import Role
from fleetpulse.edges.credentials.authority import Authority
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.topics import TopicSpec, create_topics
from fleetpulse.roles.access import grants
from fleetpulse.roles.checks.verdict import Finding, Outcome
from fleetpulse.roles.doctor import doctor

LOOPBACK_AS_VPN = "127.0.0.0/8"
EVERYWHERE = ".".join("0000")
ROLES = {
    "broker": Role.BROKER,
    "producer": Role.PRODUCER,
    "consumer1": Role.CONSUMER1,
    "consumer2": Role.CONSUMER2,
    "monitor": Role.MONITOR,
}


@dataclass(frozen=True, slots=True)
class Run:
    """What a run found, by the names of the checks in their order."""

    found: Mapping[str, Finding]

    def ended(self, outcome: Outcome) -> dict[str, str]:
        return {k: one.verdict.text for k, one in self.found.items() if one.outcome is outcome}

    @property
    def fault(self) -> tuple[str, str]:
        """Return name and text of the one check that failed; what was skipped is due to it."""
        ((name, text),) = self.ended(Outcome.FAIL).items()
        assert {one.verdict.because for one in self.found.values()} <= {None, name}
        return name, text

    @property
    def warnings(self) -> dict[str, str]:
        """Return the warnings of a run without a failure; a small disk is no news here."""
        assert self.ended(Outcome.FAIL) == {}
        assert self.ended(Outcome.SKIP) == {}
        return {k: text for k, text in self.ended(Outcome.WARN).items() if k != "disk"}


def examine(role: Role | None, file: Path | None, **variables: object) -> Run:
    """Run the checks; `variables` are settings, `__` between parts."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("FLEETPULSE__")}
    environ |= {f"FLEETPULSE__{k.upper()}": str(v) for k, v in variables.items()}
    return Run({one.name: one for one in doctor(role, file, environ, lambda _one: None)})


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """A secured installation whose broker runs and has its topics."""
    made = Installation.made(tmp_path_factory.mktemp("installation"), free_port())
    assert made.broker("start").code == 0
    try:
        assert made.run("broker", "topics", "create").code == 0
        yield made
    finally:
        made.broker("stop")


@pytest.fixture(scope="module")
def plain(broker_port: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The settings of an open installation, whose four topics are there."""
    folder = tmp_path_factory.mktemp("plain")
    file = folder / "config.yaml"
    names = {topic.key: f"doctor-{topic.key}" for topic in TOPICS}
    settings = {"broker": {"port": broker_port}, "topics": names, "output_dir": str(folder / "out")}
    file.write_text(json.dumps(settings))
    assert main(["topics", "create", "--config", str(file)]) == 0
    return file


@pytest.fixture
def copied(installation: Installation, tmp_path: Path) -> Path:
    """A copy of consumer1's folder, to spoil."""
    folder = tmp_path / "consumer1"
    shutil.copytree(installation.folder("consumer1"), folder)
    return folder


def examine_copy(folder: Path, **variables: object) -> Run:
    variables = {"output_dir": folder.parent, **variables}
    return examine(Role.CONSUMER1, folder / "config.yaml", **variables)


@contextmanager
def serving(host: str, answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Let a program of its own answer each connection to a port."""
    with socket.create_server((host, 0)) as listener:

        def serve() -> None:
            # Closed at the end, it accepts no more.
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listener.accept()
                    threading.Thread(target=answered, args=(near,), daemon=True).start()

        def answered(near: socket.socket) -> None:
            with near, contextlib.suppress(OSError):
                answer(near)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(10)


def forward_to(port: int) -> Callable[[socket.socket], None]:
    def forward(near: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=pump, args=(far, near), daemon=True)
            back.start()
            pump(near, far)
            back.join(10)

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 16):
                target.sendall(part)
            target.shutdown(socket.SHUT_WR)

    return forward


def stay_silent(near: socket.socket) -> None:
    while near.recv(1 << 16):
        pass


def speak_http(near: socket.socket) -> None:
    near.recv(1 << 16)
    near.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


# A machine that is well


@pytest.mark.parametrize("machine", ROLES)
def test_a_secured_machine_that_is_well_has_no_finding(
    installation: Installation, machine: str, tmp_path: Path
) -> None:
    file = installation.folder(machine) / "config.yaml"
    run = examine(ROLES[machine], file, output_dir=tmp_path)
    assert run.warnings == {}
    assert (
        run.found["login"].verdict.text
        == f"user {installation.settings(machine).security.user} is let in"
    )


def in_a_process(plain: Path, *arguments: str) -> dict[str, str]:
    """Return the outcome of each check: Spark is to start where none runs yet."""
    done = subprocess.run(
        [sys.executable, "main.py", "doctor", "--config", str(plain), "--json", *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    # A small disk is no news here.
    return {one["name"]: one["outcome"] for one in found["checks"] if one["name"] != "disk"}


def test_an_open_machine_that_is_well_has_no_finding_whatever_it_is_for(plain: Path) -> None:
    outcomes = in_a_process(plain)
    assert set(outcomes.values()) == {"pass"}, outcomes
    assert {"spark", "round-trip"} < set(outcomes)


def test_spark_of_a_machine_that_is_well_starts(plain: Path) -> None:
    names = ("settings", "python", "java", "jars", "spark", "connector", "output", "ports")
    assert in_a_process(plain, "--role", "spark-job1") == dict.fromkeys(names, "pass")


def test_without_a_settings_file_there_are_defaults(
    broker_port: int, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = json.loads(plain.read_text())["topics"]
    run = examine(Role.PRODUCER, None, broker__port=broker_port, topics=json.dumps(names))
    assert run.warnings == {}
    assert run.found["settings"].verdict.text.startswith("no settings file, defaults")


def test_the_round_trip_leaves_the_topic_of_doctor_with_the_broker_s_time(
    plain: Path,
) -> None:
    examine(Role.PRODUCER, plain)
    again = examine(Role.CONSUMER1, plain)
    assert " p50 " in again.found["round-trip"].verdict.text
    assert again.found["clock"].verdict.text.startswith("the broker's clock is 0.")


# Faults of the way to the broker


def test_a_mistake_in_the_settings_is_settings(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("broker: {prot: 9092}\nwindow: {size_s: x}\n")
    name, text = examine(Role.CONSUMER1, file).fault
    assert name == "settings"
    assert "unknown key broker.prot; did you mean port?" in text
    assert f"{file}:2: window.size_s: found 'x'" in text


def test_no_address_of_the_broker_is_settings(plain: Path) -> None:
    name, text = examine(Role.CONSUMER1, plain, hosts__broker="null").fault
    assert name == "settings"
    assert "set hosts.broker" in text


def test_a_broker_that_does_not_run_is_connect(plain: Path) -> None:
    name, text = examine(Role.CONSUMER1, plain, broker__port=free_port()).fault
    assert name == "connect"
    assert "refuses: no broker listens there" in text
    assert "fleetpulse broker start" in text


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux drops what a full queue cannot take"
)
def test_a_blocked_port_is_connect(plain: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        contextlib.ExitStack() as full,
    ):
        place = listener.getsockname()
        for _ in range(4):
            filler = full.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(place)
        name, text = examine(Role.CONSUMER1, plain, broker__port=place[1]).fault
    assert name == "connect"
    assert (
        f"no answer within 3 s; let a firewall on the broker's machine accept TCP port {place[1]}"
        in text
    )


def test_a_broker_on_another_address_of_its_machine_is_connect(plain: Path) -> None:
    variables = {"hosts__broker": "127.0.0.5", "overlay__network": LOOPBACK_AS_VPN}
    name, text = examine(Role.CONSUMER1, plain, **variables).fault
    assert name == "connect"
    assert "127.0.0.5:" in text


def test_a_name_that_nobody_knows_is_resolve(plain: Path) -> None:
    variables = {"hosts__broker": "no-such-machine.invalid", "overlay__network": LOOPBACK_AS_VPN}
    name, text = examine(Role.CONSUMER1, plain, **variables).fault
    assert name == "resolve"
    assert "correct hosts.broker" in text or "name server" in text


def test_no_vpn_is_zerotier_and_not_what_follows(plain: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("t" * 24)
    token.chmod(0o600)
    variables = {
        "hosts__broker": "10.147.17.1",
        "zerotier__port": free_port(),
        "zerotier__token_file": token,
    }
    name, text = examine(Role.CONSUMER1, plain, **variables).fault
    assert name == "zerotier"
    assert text.startswith("no ZeroTier service runs on this machine")


def test_no_address_on_the_named_vpn_is_overlay_or_its_service(plain: Path) -> None:
    variables = {"hosts__broker": "198.18.0.9", "overlay__network": "198.18.0.0/24"}
    name, text = examine(Role.CONSUMER1, plain, **variables).fault
    assert name == "zerotier"
    assert "ZeroTier" in text


def test_a_broker_that_is_not_on_this_machine_is_overlay(plain: Path) -> None:
    variables = {"hosts__broker": "198.18.0.9", "overlay__network": LOOPBACK_AS_VPN}
    name, text = examine(Role.BROKER, plain, **variables).fault
    assert name == "overlay"
    assert "198.18.0.9 is no address of this machine" in text


def test_an_address_that_the_broker_should_not_advertise_is_advertised(
    plain: Path, broker_port: int
) -> None:
    with serving("127.0.0.2", forward_to(broker_port)) as port:
        variables = {
            "hosts__broker": "127.0.0.2",
            "broker__port": port,
            "overlay__network": "127.0.0.2/32",
        }
        # 127.0.0.2 counts as the VPN, 127.0.0.1 does not.
        name, text = examine(Role.CONSUMER1, plain, **variables).fault
    assert name == "advertised"
    assert f"the broker tells its clients to use 127.0.0.1:{broker_port}" in text
    assert "--advertise-overlay" in text


def test_a_port_that_takes_connections_and_says_nothing_is_tls(
    plain: Path, installation: Installation
) -> None:
    with serving("127.0.0.1", stay_silent) as port:
        runs = [
            examine(Role.CONSUMER1, plain, broker__port=port),
            examine(
                Role.CONSUMER1, installation.folder("consumer1") / "config.yaml", broker__port=port
            ),
        ]
    for run in runs:
        name, text = run.fault
        assert name == "tls"
        assert "something accepts connections and does not answer" in text


def test_another_program_on_the_port_is_tls(plain: Path) -> None:
    with serving("127.0.0.1", speak_http) as port:
        name, text = examine(Role.CONSUMER1, plain, broker__port=port).fault
    assert name == "tls"
    assert "no Kafka broker" in text


def test_a_port_that_is_open_to_everybody_is_ports(plain: Path, broker_port: int) -> None:
    with serving(EVERYWHERE, forward_to(broker_port)) as port:
        name, text = examine(Role.CONSUMER1, plain, broker__port=port).fault
    assert name == "ports"
    assert f"open beyond this machine and its VPN: 0.0.0.0:{port}" in text


# Faults of certificates, passwords and permissions


def test_an_open_client_of_a_secured_broker_is_tls(plain: Path, installation: Installation) -> None:
    name, text = examine(Role.CONSUMER1, plain, broker__port=installation.port).fault
    assert name == "tls"
    assert "the broker is secured (TLS), security.tls is off here" in text


def test_a_secured_client_of_an_open_broker_is_tls(copied: Path, broker_port: int) -> None:
    name, text = examine_copy(copied, broker__port=broker_port).fault
    assert name == "tls"
    assert "does not speak TLS" in text


def test_a_broker_of_another_authority_is_tls(copied: Path) -> None:
    foreign = Authority.new(datetime.now(UTC))
    (copied / "ca.pem").write_bytes(foreign.certificate_pem())
    identity = copied / "identity.pem"
    identity.write_bytes(foreign.issue("consumer1", (), datetime.now(UTC), 90))
    name, text = examine_copy(copied).fault
    assert name == "tls"
    assert "the broker's certificate is not of the authority in" in text


def test_an_authority_that_is_not_that_of_the_own_certificate_is_tls(copied: Path) -> None:
    foreign = Authority.new(datetime.now(UTC))
    (copied / "ca.pem").write_bytes(foreign.certificate_pem())
    name, text = examine_copy(copied).fault
    assert name == "tls"
    assert "this machine's certificate is not of the authority" in text


def test_an_own_certificate_that_the_broker_refuses_is_tls(copied: Path, tmp_path: Path) -> None:
    foreign = Authority.new(datetime.now(UTC))
    identity = tmp_path / "foreign.pem"
    identity.write_bytes(foreign.issue("consumer1", (), datetime.now(UTC), 90))
    identity.chmod(0o600)
    variables = {"security__certificate_file": identity, "security__key_file": identity}
    name, _text = examine_copy(copied, **variables).fault
    assert name == "tls"


def test_a_broker_under_another_name_than_its_certificate_s_is_tls(copied: Path) -> None:
    # Another way to write 127.0.0.1.
    variables = {"hosts__broker": "'127.1'", "overlay__network": LOOPBACK_AS_VPN}
    name, text = examine_copy(copied, **variables).fault
    assert name == "tls"
    assert "the broker's certificate is not for 127.1" in text


def test_a_certificate_of_the_broker_that_has_expired_is_tls(
    installation: Installation, copied: Path
) -> None:
    end = installation.issue("broker", 8, ("127.0.0.1", "localhost", "::1"))
    assert installation.broker("start").code == 0
    try:
        soon = examine_copy(copied)
        await_instant(end)
        name, text = examine_copy(copied).fault
    finally:
        installation.renew("broker")
        assert installation.broker("start").code == 0
    assert list(soon.warnings) == ["tls"]
    assert "the broker's certificate ends on" in soon.warnings["tls"]
    assert name == "tls"
    assert "the broker's certificate has expired" in text
    assert examine_copy(copied).warnings == {}


def reissued(installation: Installation, folder: Path, starts_in_days: float, days: int) -> None:
    start = datetime.fromtimestamp(datetime.now(UTC).timestamp() + starts_in_days * 86400, UTC)
    (folder / "identity.pem").write_bytes(
        installation.authority().issue("consumer1", (), start, days)
    )


def test_an_own_certificate_that_has_expired_is_tls(
    installation: Installation, copied: Path
) -> None:
    reissued(installation, copied, -3, 2)
    name, text = examine_copy(copied).fault
    assert name == "tls"
    assert "this machine's certificate has expired on" in text


def test_an_own_certificate_that_ends_soon_is_a_warning_of_tls(
    installation: Installation, copied: Path
) -> None:
    reissued(installation, copied, 0, 29)
    assert list(examine_copy(copied).warnings) == ["tls"]
    reissued(installation, copied, 0, 31)
    assert examine_copy(copied).warnings == {}


def test_a_clock_of_before_the_own_certificate_is_clock(
    installation: Installation, copied: Path
) -> None:
    reissued(installation, copied, 2, 90)
    name, text = examine_copy(copied).fault
    assert name == "clock"
    assert "this machine's certificate was made after" in text


def test_a_wrong_password_is_login(copied: Path) -> None:
    (copied / "password").write_text("not the right one\n")
    name, text = examine_copy(copied).fault
    assert name == "login"
    assert "the login of user consumer1 is refused" in text


def test_a_user_that_the_broker_does_not_know_is_login(copied: Path) -> None:
    name, text = examine_copy(copied, security__user="somebody").fault
    assert name == "login"
    assert "the login of user somebody is refused" in text


@pytest.mark.parametrize("file", ["password", "identity.pem"])
def test_a_secret_that_others_may_read_is_security(copied: Path, file: str) -> None:
    (copied / file).chmod(0o644)
    name, text = examine_copy(copied).fault
    assert name == "security"
    assert "its mode 0644 lets others than its owner" in text


@pytest.mark.parametrize("file", ["password", "identity.pem", "ca.pem"])
def test_a_file_that_is_missing_is_security(copied: Path, file: str) -> None:
    (copied / file).unlink()
    name, text = examine_copy(copied).fault
    assert name == "security"
    assert str(copied / file) in text


def test_a_password_over_an_open_connection_is_security(copied: Path, broker_port: int) -> None:
    file = copied / "config.yaml"
    settings = (
        f"security: {{user: consumer1, password_file: password}}\nbroker: {{port: {broker_port}}}\n"
    )
    file.write_text(settings)
    name, text = examine_copy(copied).fault
    assert name == "security"
    assert "user consumer1 would log in over an unencrypted connection" in text


def test_the_user_of_another_role_is_permission(installation: Installation, tmp_path: Path) -> None:
    file = installation.folder("consumer1") / "config.yaml"
    name, text = examine(Role.PRODUCER, file, output_dir=tmp_path).fault
    assert name == "permission"
    assert "user consumer1 may not " in text
    assert "WRITE topic-cpu" in text


def test_a_permission_that_was_taken_away_is_permission(
    installation: Installation, copied: Path
) -> None:
    wanted = {("TOPIC", "topic-cpu", "READ"), ("GROUP", "fleetpulse-consumer1", "READ")}
    for grant in grants(installation.settings("broker")):
        if grant.user != "consumer1" or (grant.resource, grant.name, grant.operation) not in wanted:
            continue
        with installation.without(grant):
            name, text = examine_copy(copied).fault
        assert name == "permission"
        assert f"{grant.operation} {grant.name}" in text
    assert examine_copy(copied).warnings == {}


# Faults of the topics, the machine and the clock


def test_a_missing_topic_is_topics(plain: Path) -> None:
    name, text = examine(Role.CONSUMER1, plain, topics__mem="doctor-absent").fault
    assert name == "topics"
    assert "there is no topic doctor-absent; make what is missing: fleetpulse topics create" in text


def test_a_topic_of_another_role_may_be_missing(plain: Path) -> None:
    assert examine(Role.CONSUMER2, plain, topics__mem="doctor-absent").warnings == {}


@pytest.mark.parametrize(
    ("variables", "difference"),
    [
        ({"topics__partitions": 2}, "doctor-cpu: partitions is 1, not 2"),
        ({"topics__retention_h": 5}, "doctor-cpu: retention.ms is -1, not 18000000"),
    ],
)
def test_a_topic_that_is_not_as_wanted_is_a_warning_of_topics(
    plain: Path, variables: Mapping[str, object], difference: str
) -> None:
    warnings = examine(Role.CONSUMER1, plain, **variables).warnings
    assert list(warnings) == ["topics"]
    assert difference in warnings["topics"]


def test_a_topic_of_doctor_without_the_broker_s_time_is_a_warning_of_clock(
    broker_port: int, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "doctor-of-somebody-else"
    create_topics(KafkaAccess(f"127.0.0.1:{broker_port}"), [TopicSpec(name, 1, 1, {})])
    monkeypatch.setattr("fleetpulse.roles.checks.broker.PROBE_TOPIC", name)
    warnings = examine(Role.PRODUCER, plain).warnings
    assert list(warnings) == ["clock"]
    assert name in warnings["clock"]


def test_no_folder_for_the_outputs_is_output(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    name, text = examine(Role.CONSUMER1, plain, output_dir=tmp_path / "file" / "out").fault
    assert name == "output"
    assert f"{tmp_path / 'file'}: no folder" in text


def test_a_variable_that_nothing_reads_is_a_warning_of_settings(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEETPULSE_BROKER__PORT", "1")
    warnings = examine(Role.PRODUCER, plain).warnings
    assert list(warnings) == ["settings"]
    assert "nothing reads the variable FLEETPULSE_BROKER__PORT" in warnings["settings"]


# The command


def test_the_command_prints_a_line_a_check_and_ends_with_its_worst(
    plain: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code = main(["doctor", "--role", "consumer1", "--config", str(plain)])
    out, err = capfd.readouterr()
    words = [line.split()[:2] for line in out.splitlines()]
    assert words[:2] == [["pass", "settings"], ["pass", "python"]]
    assert [name for _, name in words][-3:] == ["disk", "output", "ports"]
    assert code == (1 if ["warn", "disk"] in words else 0)
    assert "\x1b" not in out
    assert err == ""


def test_json_holds_the_same_and_the_exit_code_tells_a_failure(
    copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (copied / "password").write_text("not the right one\n")
    code = main(
        ["doctor", "--role", "consumer1", "--json", "--config", str(copied / "config.yaml")]
    )
    out, _ = capfd.readouterr()
    found = json.loads(out)
    checks = {one["name"]: one for one in found["checks"]}
    assert (code, found["outcome"]) == (2, "fail")
    assert checks["login"]["outcome"] == "fail"
    assert (checks["clock"]["outcome"], checks["clock"]["because"]) == ("skip", "login")
    assert checks["tls"].keys() == {"name", "outcome", "text", "because", "seconds"}


def test_no_secret_is_in_what_is_said(
    installation: Installation, copied: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "canary-of-doctor-0123456789"
    (copied / "password").write_text(f"{canary}\n")
    secrets = [canary, (installation.folder("consumer1") / "password").read_text().strip()]
    secrets += (copied / "identity.pem").read_text().splitlines()[1:4]
    for mode in (0o600, 0o644):
        (copied / "password").chmod(mode)
        main(["doctor", "--config", str(copied / "config.yaml"), "--role", "consumer1"])
        main(["doctor", "--config", str(copied / "config.yaml"), "--role", "consumer1", "--json"])
    main(["doctor", "--config", str(installation.folder("consumer1") / "config.yaml"), "--json"])
    out, err = capfd.readouterr()
    assert len(out) > 3000
    assert [one for one in secrets if one in out + err] == []
