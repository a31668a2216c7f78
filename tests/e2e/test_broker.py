"""A real broker, started, killed and stopped as users do it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from fleetpulse.domain.errors import AlreadyRunning, FleetpulseError, UsageError
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.edges.kafka.broker_folder import BrokerFolder, Listeners
from fleetpulse.edges.kafka.topics import TopicSpec, create_topics

END_S = 60


def ignore(_line: str) -> None:
    pass


def end_of(pid: int) -> None:
    psutil.Process(pid).wait(END_S)


def listening(pid: int) -> list[tuple[str, int]]:
    """Return the addresses on which a process accepts connections."""
    return [
        # Java listens on IPv4 through IPv6 sockets.
        (one.laddr.ip.removeprefix("::ffff:"), one.laddr.port)
        for one in psutil.Process(pid).net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]


@pytest.fixture
def spec(runnable: BrokerSpec, tmp_path: Path) -> Iterator[BrokerSpec]:
    found = replace(runnable, port=free_port(), data_dir=tmp_path / "broker dätä")
    yield found
    broker.stop(found.data_dir)


@pytest.fixture(scope="module")
def standing(
    runnable: BrokerSpec, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerSpec]:
    """A broker started as a process of its own; tests leave it as it is."""
    found = replace(runnable, port=free_port(), data_dir=tmp_path_factory.mktemp("standing"))
    assert broker.start(found, ignore)
    yield found
    broker.stop(found.data_dir)


def pid_of(spec: BrokerSpec) -> int:
    pid = broker.status(spec.data_dir).pid
    assert pid is not None
    return pid


def send(address: str, topic: str, values: range) -> None:
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, str(value).encode())
    assert producer.flush(END_S) == 0


def received(address: str, topic: str, count: int) -> list[int]:
    settings = {"bootstrap.servers": address, "group.id": "reader", "enable.auto.commit": False}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [int(one.value() or b"") for one in consumer.consume(count, END_S)]
    finally:
        consumer.close()


def test_a_second_start_leaves_the_broker_alone(standing: BrokerSpec) -> None:
    pid = pid_of(standing)
    assert not broker.start(standing, ignore)
    with pytest.raises(AlreadyRunning, match=str(pid)), broker.running(standing, ignore):
        pass
    found = broker.status(standing.data_dir)
    assert (found.pid, found.address, found.is_answering) == (pid, standing.address, True)


def test_it_listens_on_the_client_address_and_a_local_controller_only(
    standing: BrokerSpec,
) -> None:
    addresses = listening(pid_of(standing))
    assert ("127.0.0.1", standing.port) in addresses
    assert [ip for ip, _ in addresses] == ["127.0.0.1", "127.0.0.1"]


def test_a_started_broker_has_no_terminal_and_no_parent_of_ours(standing: BrokerSpec) -> None:
    pid = pid_of(standing)
    assert os.getsid(pid) != os.getsid(0)
    assert psutil.Process(pid).terminal() is None
    assert psutil.Process(pid).ppid() != os.getpid()


def test_a_stopped_broker_is_gone_and_leaves_its_messages_and_one_log(spec: BrokerSpec) -> None:
    assert broker.start(spec, ignore)
    pid = pid_of(spec)
    assert broker.stop(spec.data_dir)
    assert not psutil.pid_exists(pid)
    assert broker.status(spec.data_dir).pid is None
    assert not broker.stop(spec.data_dir)
    assert {path.name for path in spec.data_dir.iterdir()} == {
        "broker.lock",
        "broker.log",
        "log4j2.properties",
        "messages",
        "server.properties",
    }
    assert "Kafka Server started" in (spec.data_dir / "broker.log").read_text()


def test_acknowledged_messages_survive_a_kill_and_another_port(spec: BrokerSpec) -> None:
    assert broker.start(spec, ignore)
    create_topics(KafkaAccess(spec.address), [TopicSpec("kept", 1, 1, {})])
    send(spec.address, "kept", range(1000))
    pid = pid_of(spec)
    os.kill(pid, signal.SIGKILL)
    end_of(pid)
    assert broker.status(spec.data_dir).pid is None
    moved = replace(spec, port=free_port())
    assert broker.start(moved, ignore)
    send(moved.address, "kept", range(1000, 1010))
    assert received(moved.address, "kept", 1010) == list(range(1010))


def test_an_unknown_topic_is_not_made(broker_port: int) -> None:
    admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{broker_port}"})
    admin.list_topics("never-made", timeout=END_S)
    assert "never-made" not in admin.list_topics(timeout=END_S).topics


def test_a_taken_port_is_found_before_anything_starts(spec: BrokerSpec, broker_port: int) -> None:
    with pytest.raises(UsageError, match=r"is taken by java .*broker\.port"):
        broker.start(replace(spec, port=broker_port), ignore)
    assert not BrokerFolder.at(spec.data_dir).log_path.exists()


def test_a_broker_that_cannot_start_shows_its_log_and_leaves_nothing(spec: BrokerSpec) -> None:
    with pytest.raises(FleetpulseError, match=r"(?s)broker\.log.*heap"):
        broker.start(replace(spec, heap_mb=1), ignore)
    assert broker.status(spec.data_dir).pid is None


def test_a_broker_that_does_not_answer_in_time_is_ended(spec: BrokerSpec) -> None:
    with pytest.raises(FleetpulseError, match=r"did not answer within 0 s"):
        broker.start(spec, ignore, timeout_s=0)
    folder = BrokerFolder.at(spec.data_dir)
    assert not folder.process_path.exists()
    settings = str(folder.settings_path)
    commands = [one.info["cmdline"] or [] for one in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if settings in command]


def test_formatting_that_was_cut_short_is_done_again(spec: BrokerSpec) -> None:
    folder = BrokerFolder.at(spec.data_dir)
    with folder.launching():
        folder.write_settings(Listeners(spec.address, free_port()))
        folder.format(spec.java, ":".join(map(str, spec.class_path)))
    (folder.messages_path / "meta.properties").unlink()
    assert (folder.messages_path / "bootstrap.checkpoint").exists()
    assert broker.start(spec, ignore)


def test_a_child_broker_ends_with_its_context_even_by_an_error(spec: BrokerSpec) -> None:
    pids: list[int] = []

    def fail() -> None:
        with broker.running(spec, ignore) as running:
            assert running.is_running()
            pids.append(pid_of(spec))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not psutil.pid_exists(pids[0])
    assert not BrokerFolder.at(spec.data_dir).process_path.exists()


def test_a_child_broker_tells_a_stop_from_a_death(spec: BrokerSpec) -> None:
    with broker.running(spec, ignore) as running:
        assert broker.stop(spec.data_dir)
        assert not running.is_running()
    with broker.running(spec, ignore) as running:
        pid = pid_of(spec)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(FleetpulseError, match=r"ended by itself \(exit -9\)"):
            running.is_running()


def test_a_foreground_broker_ends_with_its_command_on_a_signal(spec: BrokerSpec) -> None:
    environ = os.environ | {"FLEETPULSE__BROKER__PORT": str(spec.port)}
    command = [sys.executable, "-m", "fleetpulse", "broker", "start", "--foreground"]
    with subprocess.Popen(
        [*command, "--data", str(spec.data_dir)], env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert any("answers" in line for line in process.stderr)
        pid = pid_of(spec)
        process.terminate()
        process.stderr.read()
        assert process.wait(END_S) == 0
    assert not psutil.pid_exists(pid)
