"""The whole pipeline on four machines, secured, beside a fifth that is hostile.

Its files equal those of one machine, byte by byte; the hostile host sees one port, reads nothing
and writes nothing; and no secret is anywhere but in its file. The tests of the secured fleet share
one, in this order.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import canary
from attack import attacked, clients, open_ports
from fleet import (
    DATASET,
    MACHINES,
    MONITOR,
    PORT,
    WINDOW_FILES,
    Consumer,
    Fleet,
    await_rows,
    check_rows,
)
from lab import Lab, Role, awaited, open_lab

SAMPLES = len(DATASET.read_bytes().splitlines()) - 1
# exit code of a refused certificate or password, or a missing permission
DENIED = 77


@dataclass(frozen=True)
class Scene:
    """A secured fleet whose consumers run, watched from the broker's first start on."""

    fleet: Fleet
    consumers: Sequence[Consumer]
    secrets: Mapping[str, bytes]
    watch: canary.Watch

    @property
    def lab(self) -> Lab:
        return self.fleet.lab


@pytest.fixture(scope="module")
def scene(lab: Lab, wanted: Mapping[str, bytes]) -> Iterator[Scene]:  # noqa: ARG001  made before
    fleet = Fleet.secured_on(lab)
    assert fleet.security is not None
    secrets = canary.secrets_of(fleet.security)
    with canary.watching(secrets) as watch, fleet.serving():
        lab.broker.run("topics", "create")
        with fleet.consuming() as consumers:
            yield Scene(fleet, consumers, secrets, watch)


@pytest.fixture(scope="module")
def live(scene: Scene) -> Iterator[Sequence[Role]]:
    """Roles of every other kind, on their hosts, all at work."""
    lab, config = scene.lab, ("--config", f"{MONITOR}/config.yaml")
    roles = [
        lab.consumer1.start("spark-stream", "--from-beginning", "--json", *config),
        lab.consumer1.start("monitor", "--from-beginning", "--json", *config),
        lab.producer.start("producer", "--live"),
    ]
    for role in roles[:2]:
        role.await_printed(90)
    roles[2].await_said("connected")
    yield roles
    for role in roles:
        assert role.stop() == 0, role.said()


def test_a_dataset_goes_through_four_hosts_to_the_same_files_as_on_one(
    scene: Scene, wanted: Mapping[str, bytes]
) -> None:
    assert scene.fleet.produce().finish()["samples"] == SAMPLES
    await_rows(scene.consumers, wanted)
    # One on Spark, one on the embedded engine, beside the consumers that still run.
    jobs = [
        scene.lab.consumer1.start("spark-job1"),
        scene.lab.consumer2.start("analyze", "net-disk"),
    ]
    for job in jobs:
        job.finish(within_s=120)
    check_rows(scene.consumers, wanted)
    for consumer, name in zip(scene.consumers, WINDOW_FILES, strict=True):
        assert (consumer.output / name).read_bytes() == wanted[name]


@pytest.mark.parametrize("name", MACHINES)
def test_the_hostile_host_sees_the_client_port_of_the_broker_and_no_other(
    scene: Scene, live: Sequence[Role], name: str
) -> None:
    host = scene.lab.hosts[name]
    assert all(role.is_running() for role in live)
    wanted = [PORT] if name == "broker" else []
    assert open_ports(scene.lab.hostile, host.address) == wanted
    assert open_ports(scene.lab.hostile, host.lan_address) == []
    # What listens besides does so for the host itself, in either version of the protocol.
    beyond = {one for one in host.listening() if not one.startswith("127.")}
    assert beyond == {f"{host.address}:{port}" for port in wanted}


def test_the_hostile_host_reads_and_writes_nothing_with_less_than_a_machine_has(
    scene: Scene, tmp_path: Path
) -> None:
    lab, own = scene.lab, scene.fleet.security
    assert own is not None
    forged = tmp_path / "forged"
    settings = ("--config", str(lab.broker.config))
    lab.hostile.run("security", "init", "--folder", str(forged), *settings)
    address = f"{lab.broker.address}:{PORT}"
    loot = attacked(lab.hostile, clients(address, own / "broker", forged / "broker"), "topic-cpu")
    # The others fail for what they lack, and for nothing else.
    complete = loot.pop("all of it")
    assert complete.read >= SAMPLES
    assert complete.written == 1
    for name, found in loot.items():
        assert (found.read, found.written) == (0, 0), name
        assert found.errors, name


@pytest.mark.parametrize(
    ("name", "role"), [("password", "consumer1"), ("identity.pem", "consumer2")]
)
def test_a_role_with_the_secret_of_another_authority_ends_and_says_so(
    scene: Scene, tmp_path: Path, name: str, role: str
) -> None:
    host = scene.lab.hosts[role]
    forged = tmp_path / "forged"
    host.run("security", "init", "--folder", str(forged))
    folder = tmp_path / "config"
    scene.fleet.copied(role, folder)
    (folder / name).write_bytes((forged / role / name).read_bytes())
    (folder / name).chmod(0o600)
    output = ("--config", str(folder / "config.yaml"))
    refused = scene.lab.hostile.start(role, "--connect-timeout", "5s", *output)
    assert refused.process.wait(30) == DENIED, refused.said()


def test_no_secret_is_anywhere_but_in_its_file(scene: Scene, live: Sequence[Role]) -> None:
    assert all(role.is_running() for role in live)
    seen = "\n".join(scene.watch.looked_at)
    for part in ("broker start", "kafka.Kafka", "topics create", "consumer1", "spark-job1"):
        assert part in seen
    assert "org.apache.spark.deploy.SparkSubmit" in seen
    assert scene.watch.found == set()
    hosts = [host.folder for host in scene.lab.hosts.values()]
    assert sum(path.is_file() for one in hosts for path in one.rglob("*")) > 100
    assert canary.in_files(scene.secrets, hosts, scene.fleet.secret_files()) == []


def test_without_security_a_few_samples_go_the_same_way(able: None, tmp_path: Path) -> None:  # noqa: ARG001
    with open_lab(tmp_path) as lab:
        fleet = Fleet.open_on(lab)
        with fleet.serving():
            lab.broker.run("topics", "create")
            with fleet.consuming() as consumers:
                fleet.produce("--limit", "20").finish()
                wanted = 21
                for consumer in consumers:
                    for path in consumer.paths().values():
                        awaited(
                            lambda path=path: path.read_bytes().count(b"\n") == wanted,
                            f"{path} has {wanted} lines",
                        )
