"""`fleetpulse security`: the files that it makes, who takes them, and what it never says."""

import datetime as dt
import json
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fleetpulse.cli import main
from fleetpulse.config import load
from fleetpulse.edges.credentials.authority import Authority
from fleetpulse.edges.credentials.certificate import certificate_facts
from fleetpulse.edges.credentials.folder import PRIVATE, replace_file
from fleetpulse.edges.credentials.secret_file import read_secret
from fleetpulse.edges.overlay import LocalAddress
from fleetpulse.edges.zerotier.addressing import rfc4193_address
from fleetpulse.roles import member

MACHINES = ("broker", "producer", "consumer1", "consumer2", "monitor")
USERS = {machine: machine for machine in MACHINES} | {"broker": "admin"}
GIVEN = """\
hosts: {producer: 10.147.17.2, broker: 10.147.17.1, consumer1: 10.147.17.3, consumer2: "fd00::4"}
window: {size_s: 60}
"""
# The n-th file or folder that is synced is the last thing that this command does.
KILLED = """
import os, signal, sys
from fleetpulse.cli import main
left = int(sys.argv[1])
sync = os.fsync
def fsync(descriptor):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(descriptor)
os.fsync = fsync
sys.exit(main(sys.argv[2:]))
"""
INIT_SYNCS = 36  # 28 files, 7 folders, and the one around them


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def security(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Command:
    """Run `fleetpulse security ...` in a folder with a settings file."""
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(GIVEN)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Done:
        code = main(["security", *arguments])
        return Done(code, *capfd.readouterr())

    return run


def killed_at(sync: int, *arguments: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(sync), "security", *arguments],
        check=False,
        capture_output=True,
        timeout=60,
    )
    return done.returncode


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        machine: certificate_facts(folder / machine / "identity.pem", folder / "ca.pem").fingerprint
        for machine in MACHINES
    }


def secrets_in(folder: Path) -> set[str]:
    """Return each line of a key and each password."""
    found = contents(folder)
    lines = {
        line
        for name, content in found.items()
        if name.endswith(("password", ".key", "identity.pem"))
        for line in content.decode().split("-----BEGIN CERTIFICATE")[0].splitlines()
        if "PRIVATE KEY" not in line
    }
    assert len(lines) >= 5 + 6 * 3
    assert all(len(line) >= 20 for line in lines)
    return lines


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_folder_holds_what_each_machine_needs_and_nothing_is_open(security: Command) -> None:
    assert security("init").code == 0
    modes = {
        str(path.relative_to("security")): f"{stat.S_IMODE(path.stat().st_mode):o}"
        for path in Path("security").rglob("*")
    }
    wanted = {".gitignore": "644", "ca.key": "600", "ca.pem": "644", "broker/users": "700"}
    for machine in MACHINES:
        wanted |= {
            machine: "700",
            f"{machine}/config.yaml": "644",
            f"{machine}/ca.pem": "644",
            f"{machine}/identity.pem": "600",
            f"{machine}/password": "600",
            f"broker/users/{USERS[machine]}.password": "600",
        }
    assert modes == wanted
    assert stat.S_IMODE(Path("security").stat().st_mode) == 0o700
    assert names(Path()) == ["config", "security"]


def test_git_takes_nothing_of_the_folder(security: Command) -> None:
    git = shutil.which("git")
    assert git
    security("init")
    subprocess.run([git, "init", "-q"], check=True)
    status = subprocess.run(
        [git, "status", "--porcelain", "-uall"], check=True, capture_output=True, text=True
    )
    assert status.stdout == "?? config/config.yaml\n"


@pytest.mark.parametrize("machine", MACHINES)
def test_a_machine_takes_its_folder_as_its_settings_wherever_it_is_copied(
    security: Command, tmp_path: Path, machine: str
) -> None:
    security("init")
    given = load(Path("config/config.yaml"), {}).settings
    copied = tmp_path / "elsewhere" / "config"
    shutil.copytree(Path("security") / machine, copied)
    settings = load(copied / "config.yaml", {}).settings
    part = settings.security
    assert settings.model_copy(update={"security": given.security}) == given
    assert (part.tls, part.user, part.allow_plaintext) == (True, USERS[machine], False)
    assert part.certificate_file == part.key_file == copied / "identity.pem"
    assert part.ca_file == copied / "ca.pem"
    assert part.password_file == copied / "password"
    assert part.users_dir == (copied / "users" if machine == "broker" else None)
    assert certificate_facts(part.certificate_file, part.ca_file).is_signed_by_ca
    assert len(read_secret(part.password_file).reveal()) == 43


def test_each_machine_has_a_password_that_the_broker_knows_and_no_other_has(
    security: Command,
) -> None:
    security("init")
    folder = Path("security")
    own = {USERS[machine]: read_secret(folder / machine / "password") for machine in MACHINES}
    known = {
        path.stem: read_secret(path) for path in (folder / "broker" / "users").glob("*.password")
    }
    assert own == known
    assert len(set(own.values())) == len(MACHINES)


def test_the_broker_has_a_certificate_for_its_host_and_others_for_none(security: Command) -> None:
    security("init", "--days", "90")
    folder = Path("security")
    found = {
        machine: certificate_facts(folder / machine / "identity.pem", folder / "ca.pem")
        for machine in MACHINES
    }
    assert {machine: facts.subject for machine, facts in found.items()} == {
        machine: machine for machine in MACHINES
    }
    assert sorted(found["broker"].hosts) == ["10.147.17.1", "127.0.0.1", "::1", "localhost"]
    assert {found[machine].hosts for machine in MACHINES[1:]} == {()}
    assert {facts.days_left(dt.datetime.now(dt.UTC)) for facts in found.values()} == {89}


def test_init_says_how_each_folder_gets_to_its_machine(security: Command) -> None:
    said = security("init", "--folder", "my keys").out
    assert "  broker     scp -r 'my keys/broker'/* 10.147.17.1:fleetpulse/config/\n" in said
    assert "  consumer2  scp -r 'my keys/consumer2'/* '[fd00::4]:fleetpulse/config'/\n" in said
    assert "  monitor    scp -r 'my keys/monitor'/* MONITOR-HOST:fleetpulse/config/\n" in said


# They copy as the real ones do, into a folder for each host.
SCP = """#!/bin/sh
for last; do :; done
host=$(printf %s "${last%:*}" | tr -d '[]')
while [ $# -gt 1 ]; do
  [ "$1" = -r ] || cp -Rp "$1" "hosts/$host/${last##*:}" || exit 1
  shift
done
"""
SSH = """#!/bin/sh
cd "hosts/$1" && shift && "$@"
"""


def follow(said: str) -> None:
    """Do what a command says, each line that begins with a machine, in a shell."""
    for name, text in (("scp", SCP), ("ssh", SSH)):
        Path(name).write_text(text)
        Path(name).chmod(0o700)
    hosts = ["10.147.17.1", "10.147.17.2", "10.147.17.3", "fd00::4", "MONITOR-HOST"]
    for host in hosts:
        (Path("hosts") / host / "fleetpulse" / "config").mkdir(parents=True, exist_ok=True)
    for line in said.splitlines():
        if line.startswith("  "):
            command = line.split(maxsplit=1)[1]
            subprocess.run(["/bin/sh", "-ec", command], env={"PATH": f".:{os.defpath}"}, check=True)


def test_who_follows_what_is_said_has_every_machine_ready(
    security: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(security("init", "--folder", "my keys").out)
    old = fingerprints(Path("my keys"))
    follow(security("renew", "--folder", "my keys", "--role", "consumer2").out)
    follow(security("renew", "--folder", "my keys", "--role", "broker", "--passwords").out)
    new = fingerprints(Path("my keys"))
    assert [machine for machine in MACHINES if old[machine] != new[machine]] == [
        "broker",
        "consumer2",
    ]
    hosts = ["10.147.17.1", "10.147.17.2", "10.147.17.3", "fd00::4", "MONITOR-HOST"]
    for machine, host in zip(MACHINES, hosts, strict=True):
        here, there = Path("my keys") / machine, Path("hosts") / host / "fleetpulse" / "config"
        assert contents(there) == contents(here)
    monkeypatch.chdir(Path("hosts") / "fd00::4" / "fleetpulse")
    assert security("show").code == 0


def test_on_one_machine_nothing_is_copied(security: Command) -> None:
    Path("config/config.yaml").write_text("")
    said = security("init").out
    assert "producer   (this machine) add to its commands: --config security/producer/" in said
    assert security("show").code == 0


def test_init_replaces_nothing(security: Command) -> None:
    security("init")
    before = contents(Path("security"))
    again = security("init")
    assert again.code == 2
    assert again.err.startswith("fleetpulse: security: is there already and is not replaced; ")
    assert "fleetpulse security renew" in again.err
    assert contents(Path("security")) == before


def test_init_without_the_address_of_the_broker_makes_nothing(security: Command) -> None:
    Path("config/config.yaml").write_text("hosts: {broker: null}")
    done = security("init")
    assert (done.code, names(Path())) == (2, ["config"])
    assert "set hosts.broker" in done.err


@pytest.mark.parametrize("days", ["0", "-1", "3651", "x"])
def test_days_that_make_no_sense_are_refused(security: Command, days: str) -> None:
    assert security("init", "--days", days).code == 2
    assert names(Path()) == ["config"]


@pytest.mark.parametrize("sync", [1, 2, 15, 28, 29, 35])
def test_a_killed_init_leaves_nothing_under_the_name_and_the_next_one_all(
    security: Command, sync: int
) -> None:
    assert killed_at(sync, "init") == -signal.SIGKILL
    assert not Path("security").exists()
    assert security("init").code == 0
    assert names(Path()) == ["config", "security"]
    assert security("show").code == 0


def test_a_folder_that_has_its_name_is_whole(security: Command) -> None:
    assert killed_at(INIT_SYNCS, "init") == -signal.SIGKILL
    assert security("show").code == 0


def test_renewed_machines_have_new_keys_of_the_same_authority(security: Command) -> None:
    security("init")
    before, old = contents(Path("security")), fingerprints(Path("security"))
    done = security("renew")
    new = fingerprints(Path("security"))
    changed = {
        name for name, content in contents(Path("security")).items() if content != before[name]
    }
    assert done.code == 0
    assert changed == {f"{machine}/identity.pem" for machine in MACHINES}
    assert not set(old.values()) & set(new.values())
    keys = {content.split(b"-----END PRIVATE")[0] for content in before.values()}
    assert not keys & {
        (Path("security") / name).read_bytes().split(b"-----END PRIVATE")[0] for name in changed
    }
    assert security("show").code == 0


def test_one_machine_is_renewed_alone(security: Command) -> None:
    security("init")
    old = fingerprints(Path("security"))
    done = security("renew", "--role", "consumer1", "--days", "45")
    new = fingerprints(Path("security"))
    assert [machine for machine in MACHINES if old[machine] != new[machine]] == ["consumer1"]
    target = "fleetpulse/config/identity"
    (line,) = done.out.splitlines()[1:]  # the broker has nothing new to take
    assert line == (
        f"  consumer1  scp security/consumer1/identity.pem 10.147.17.3:{target}.new && "
        f"ssh 10.147.17.3 mv {target}.new {target}.pem"
    )
    found = json.loads(security("show", "--json").out)
    assert [found[machine]["days_left"] for machine in ("broker", "consumer1")] == [364, 44]


def test_new_passwords_are_known_to_machine_and_broker(security: Command) -> None:
    security("init")
    before = contents(Path("security"))
    done = security("renew", "--passwords", "--role", "consumer1")
    after = contents(Path("security"))
    assert {name for name in after if after[name] != before[name]} == {
        "consumer1/identity.pem",
        "consumer1/password",
        "broker/users/consumer1.password",
    }
    assert after["consumer1/password"] == after["broker/users/consumer1.password"]
    assert "broker/users 10.147.17.1:fleetpulse/config/" in done.out
    assert "on the broker's machine: fleetpulse broker start (" in done.out
    assert security("renew", "--passwords").code == 0
    assert security("show").code == 0


def test_a_new_address_of_the_broker_is_missed_and_renewed(security: Command) -> None:
    security("init")
    settings = Path("security/broker/config.yaml")
    settings.write_text(settings.read_text().replace("10.147.17.1", "10.147.17.9"))
    missed = security("show")
    assert missed.code == 1
    assert "PROBLEM: is not for hosts.broker, which is 10.147.17.9" in missed.out
    security("renew", "--role", "broker")
    assert security("show").code == 0


def test_a_broker_that_is_a_member_of_a_network_has_its_certificate_for_the_address(
    security: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = rfc4193_address("8056c2e21c000001", "0123456789")
    own = LocalAddress(ours, ip_network(f"{ours}/88", strict=False), "zt0")
    monkeypatch.setattr(member, "overlay_addresses", lambda _network: (own,))
    settings = Path("config/config.yaml")
    settings.write_text(settings.read_text().replace("10.147.17.1", "zt:eb8d45c5c9"))
    assert security("init").code == 0
    address = str(rfc4193_address("8056c2e21c000001", "eb8d45c5c9"))
    folder = Path("security")
    assert address in certificate_facts(folder / "broker/identity.pem", folder / "ca.pem").hosts
    assert load(folder / "producer/config.yaml", {}).settings.hosts.broker == "zt:eb8d45c5c9"
    assert security("show").code == 0

    # Elsewhere nobody knows where that is: only what needs it suffers.
    monkeypatch.setattr(member, "overlay_addresses", lambda _network: ())
    assert security("renew", "--role", "producer").code == 0
    assert "zt:eb8d45c5c9: this machine has no address on a ZeroTier" in security("show").out
    failed = security("renew")
    assert failed.code != 0
    assert "zt:eb8d45c5c9: this machine has no address on a ZeroTier" in failed.err


@pytest.mark.parametrize("sync", range(1, 8))
def test_a_killed_renewal_leaves_whole_files_and_the_next_one_mends_the_rest(
    security: Command, sync: int
) -> None:
    security("init")
    killed_at(sync, "renew", "--passwords", "--role", "consumer1")
    assert certificate_facts(
        Path("security/consumer1/identity.pem"), Path("security/ca.pem")
    ).is_signed_by_ca
    shown = security("show")
    mismatch = "PROBLEM: its password is not the one in security/broker/users/consumer1.password"
    assert (shown.code == 1) == (mismatch in shown.out)
    assert security("renew", "--passwords", "--role", "consumer1").code == 0
    assert security("show").code == 0
    assert [name for name in contents(Path("security")) if "partial" in name] == []


def break_key_away(folder: Path) -> None:
    (folder / "ca.key").unlink()


def break_key_open(folder: Path) -> None:
    (folder / "ca.key").chmod(0o644)


def break_other_key(folder: Path) -> None:
    replace_file(folder / "ca.key", Authority.new(dt.datetime.now(dt.UTC)).key_pem(), PRIVATE)


def break_authority_away(folder: Path) -> None:
    (folder / "ca.pem").unlink()


@pytest.mark.parametrize(
    ("break_it", "what"),
    [
        (break_key_away, "security/ca.key: there is no such file"),
        (break_key_open, "security/ca.key: its mode 0644 lets others than its owner"),
        (break_other_key, "security/ca.key: not the key of security/ca.pem"),
        (break_authority_away, "security: no security folder"),
    ],
)
def test_an_authority_that_cannot_sign_renews_nothing(
    security: Command, break_it: Callable[[Path], None], what: str
) -> None:
    security("init")
    break_it(Path("security"))
    before = contents(Path("security"))
    done = security("renew", "--passwords")
    assert (done.code, done.err.startswith(f"fleetpulse: {what}")) == (2, True)
    assert contents(Path("security")) == before


def issue(machine: str, name: str, starts_in_days: float, days: int) -> None:
    """Put another certificate into the folder of a machine."""
    authority = Authority.read(Path("security/ca.key"), Path("security/ca.pem"))
    now = dt.datetime.now(dt.UTC) + dt.timedelta(days=starts_in_days)
    path = Path("security") / machine / "identity.pem"
    replace_file(path, authority.issue(name, (), now, days), PRIVATE)


def put_foreign() -> None:
    foreign = Authority.new(dt.datetime.now(dt.UTC))
    identity = foreign.issue("consumer1", (), dt.datetime.now(dt.UTC), 90)
    replace_file(Path("security/consumer1/identity.pem"), identity, PRIVATE)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda: issue("consumer1", "consumer1", 0, 30), "expires in 29 days; fleetpulse"),
        (
            lambda: issue("consumer1", "consumer1", -3, 3),
            "has expired; fleetpulse security renew",
        ),
        (lambda: issue("consumer1", "consumer1", 3, 90), "is not valid yet; check the clock"),
        (lambda: issue("consumer1", "consumer2", 0, 90), "is the certificate of consumer2; "),
        (put_foreign, "is not signed by security/ca.pem"),
        (
            lambda: Path("security/consumer1/identity.pem").chmod(0o644),
            "security/consumer1/identity.pem: its mode 0644 ",
        ),
        (
            lambda: Path("security/consumer1/password").write_text("other"),
            "its password is not the one in security/broker/users/consumer1.password; ",
        ),
        (
            lambda: Path("security/consumer1/password").chmod(0o640),
            "security/consumer1/password: its mode 0640 ",
        ),
        (
            lambda: Path("security/broker/users/consumer1.password").unlink(),
            "security/broker/users/consumer1.password: there is no such file",
        ),
    ],
)
def test_show_finds_the_one_thing_that_is_wrong(
    security: Command, change: Callable[[], object], problem: str
) -> None:
    security("init")
    change()
    shown, plain = security("show"), security("show", "--json")
    found = {name: one["problems"] for name, one in json.loads(plain.out).items()}
    assert (shown.code, plain.code) == (1, 1)
    assert f"  PROBLEM: {problem}" in shown.out
    assert shown.out.count("PROBLEM") == 1
    assert [name for name, problems in found.items() if problems] == ["consumer1"]


def test_show_is_content_with_more_than_thirty_days(security: Command) -> None:
    security("init", "--days", "31")
    assert security("show").code == 0


def test_a_machine_shows_its_own(security: Command) -> None:
    security("init")
    shutil.copytree("security/consumer1", "config", dirs_exist_ok=True)
    shutil.rmtree("security")
    shown = security("show")
    assert shown.code == 0
    assert "this machine: consumer1; from " in shown.out
    assert json.loads(security("show", "--json").out)["this machine"]["subject"] == "consumer1"


def test_without_folder_and_settings_there_is_nothing_to_show(security: Command) -> None:
    done = security("show")
    assert (done.code, "fleetpulse security init" in done.err) == (2, True)
    done = security("show", "--folder", "nowhere")
    assert (done.code, done.err.startswith("fleetpulse: nowhere: no security folder")) == (2, True)


def test_no_secret_is_in_anything_that_is_said(
    security: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    said = [security("init"), security("init"), security("show"), security("show", "--json")]
    canaries = secrets_in(Path("security"))
    said += [security("renew", "--passwords"), security("show"), security("show", "--json")]
    canaries |= secrets_in(Path("security"))
    for machine in MACHINES:
        main(["config", "show", "--config", f"security/{machine}/config.yaml"])
    said.append(Done(0, *capfd.readouterr()))
    for name in ("password", "identity.pem"):
        (Path("security/monitor") / name).chmod(0o644)
    said += [security("show"), security("renew", "--days", "3650")]
    break_other_key(Path("security"))
    said.append(security("renew"))
    texts = [text for done in said for text in (done.out, done.err)]
    assert len("".join(texts)) > 5000
    assert [text for text in texts if any(canary in text for canary in canaries)] == []


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        ("init", ["[default: security]", "in days.  [default: 365;", "1<=x<=3650]"]),
        ("renew", ["broker|producer|consumer1|consumer2|monitor", "[default: 365;"]),
        ("show", ["exit 1 when one of them ends within", "[default: security where it exists"]),
    ],
)
def test_help_shows_units_and_defaults(security: Command, command: str, lines: list[str]) -> None:
    done = security(command, "--help")
    assert done.code == 0
    assert [line for line in lines if line not in done.out] == []


def client_settings(port: int, host: str, machine: str) -> dict[str, object]:
    folder = Path("security") / machine
    return {
        "bootstrap.servers": f"{host}:{port}",
        "security.protocol": "SSL",
        "ssl.ca.location": str(folder / "ca.pem"),
        "ssl.certificate.location": str(folder / "identity.pem"),
        "ssl.key.location": str(folder / "identity.pem"),
        "log_level": 0,
    }


def test_the_kafka_client_shows_the_certificate_of_its_machine(security: Command) -> None:
    security("init")
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile="security/broker/ca.pem")
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.load_cert_chain("security/broker/identity.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(30)

        def greet() -> str:
            with listener.accept()[0] as near, serving.wrap_socket(near, server_side=True) as far:
                return str(dict(pair for (pair,) in far.getpeercert()["subject"])["commonName"])

        greeted = pool.submit(greet)
        port = listener.getsockname()[1]
        client = AdminClient(client_settings(port, "127.0.0.1", "consumer1"))
        while not greeted.done():
            client.poll(0.05)
        assert greeted.result() == "consumer1"


def test_the_kafka_client_takes_no_key_of_another_certificate(security: Command) -> None:
    security("init")
    settings = client_settings(9, "127.0.0.1", "consumer1")
    settings["ssl.key.location"] = "security/consumer2/identity.pem"
    with pytest.raises(KafkaException, match="key values mismatch"):
        AdminClient(settings)


def test_a_folder_that_cannot_be_written_is_explained(security: Command) -> None:
    Path("file").touch()
    done = security("init", "--folder", "file/security")
    assert done.code == 2
    assert "file/security: cannot be written" in done.err
