"""spark-stream on a cluster: three brokers, a Spark master, a worker; each a process of its own.

It is stopped in order while it works and started again; four partitions a topic.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import psutil
import pyspark
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import fold
from fleetpulse.domain.metric import FAMILIES, TOPICS
from fleetpulse.domain.sample import Record, Sample
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.broker import BrokerSpec
from fleetpulse.edges.kafka.producer import RecordProducer

WAIT_S = 90.0
STOP_S = 10.0
START_MS = 1_759_697_580_000
NODES = 3
PARTITIONS = 4
SERVERS = 12
STEPS = 120  # ten minutes, one sample every five seconds
QUICK_JAVA = "-XX:TieredStopAtLevel=1"


def awaited(condition: Callable[[], object], why: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.05)


@contextmanager
def java_process(command: Sequence[str], log_path: Path, env: dict[str, str]) -> Iterator[None]:
    """Run a Java program with its output in a file; it is gone at the end."""
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env
        )
    try:
        yield
        assert process.poll() is None, log_path.read_text()[-2000:]
    finally:
        process.kill()
        process.wait()


def node_settings(node: int, ports: Sequence[int], controllers: Sequence[int], folder: Path) -> str:
    voters = ",".join(f"{one + 1}@127.0.0.1:{port}" for one, port in enumerate(controllers))
    replicas = "".join(
        f"{key}={value}\n"
        for key, value in {
            "offsets.topic.replication.factor": NODES,
            "offsets.topic.num.partitions": 2,
            "transaction.state.log.replication.factor": NODES,
            "transaction.state.log.min.isr": 2,
            "transaction.state.log.num.partitions": 2,
            "min.insync.replicas": 2,
        }.items()
    )
    return f"""\
process.roles=broker,controller
node.id={node + 1}
controller.quorum.voters={voters}
listeners=CLIENT://127.0.0.1:{ports[node]},CONTROLLER://127.0.0.1:{controllers[node]}
advertised.listeners=CLIENT://127.0.0.1:{ports[node]}
inter.broker.listener.name=CLIENT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={folder}/messages
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
{replicas}"""


@contextmanager
def three_brokers(runnable: BrokerSpec, folder: Path) -> Iterator[list[int]]:
    """Give the ports of three nodes that are brokers and controllers of one Kafka."""
    ports = [free_port() for _ in range(NODES)]
    controllers = [free_port() for _ in range(NODES)]
    class_path = os.pathsep.join(map(str, runnable.class_path))
    java = [str(runnable.java), "-Xmx256m", "-XX:+UseSerialGC", QUICK_JAVA, "-cp", class_path]
    with ExitStack() as running:
        for node in range(NODES):
            home = folder / f"node{node + 1}"
            (home / "messages").mkdir(parents=True)
            settings = home / "server.properties"
            settings.write_text(node_settings(node, ports, controllers, home))
            cluster_id = "MkU3OEVBNTcwNTJENDM2Qg"
            tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(settings)]
            subprocess.run([*java, *tool], check=True, capture_output=True, timeout=WAIT_S)
            command = [*java, "kafka.Kafka", str(settings)]
            running.enter_context(java_process(command, home / "log", dict(os.environ)))
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{ports[0]}", "log_level": 0})

        def is_complete() -> bool:
            try:
                return len(admin.list_topics(timeout=2).brokers) == NODES
            except KafkaException:
                return False

        awaited(is_complete, "the brokers did not find each other")
        yield ports


@contextmanager
def spark_cluster(java: Path, folder: Path) -> Iterator[str]:
    """Give the address of a standalone master that has one worker with two cores."""
    home = Path(pyspark.__file__).parent
    env = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"}
    env["SPARK_SCALA_VERSION"] = "2.13"  # as the start scripts set it
    port = free_port()
    url = f"spark://127.0.0.1:{port}"
    run = [str(java), "-Xmx256m", "-XX:+UseSerialGC", QUICK_JAVA, "-cp", f"{home}/jars/*"]
    deploy = "org.apache.spark.deploy"
    where = ["--host", "127.0.0.1", "--webui-port", "0"]
    master = [*run, f"{deploy}.master.Master", *where, "--port", str(port)]
    work = ["--cores", "2", "--memory", "1g", "--work-dir", str(folder / "work")]
    worker = [*run, f"{deploy}.worker.Worker", *where, *work, url]
    with java_process(master, folder / "master.log", env):
        log = folder / "worker.log"
        with java_process(worker, log, env):
            awaited(
                lambda: "Successfully registered with master" in log.read_text(), "no worker came"
            )
            yield url


@dataclass(frozen=True)
class Cluster:
    settings: Settings
    config: Path
    master: str
    folder: Path


@pytest.fixture
def cluster(runnable: BrokerSpec, tmp_path: Path) -> Iterator[Cluster]:
    with (
        three_brokers(runnable, tmp_path) as ports,
        spark_cluster(runnable.java, tmp_path) as master,
    ):
        parts = {
            "broker": {"port": ports[1]},
            "topics": {"partitions": PARTITIONS, "replication_factor": NODES, "retention_h": 10**6},
            "stream": {"max_offsets_per_trigger": 400, "shuffle_partitions": 2, "trigger_s": 0.2},
            "output_dir": str(tmp_path / "output"),
        }
        config = tmp_path / "config.yaml"
        config.write_text(json.dumps(parts))
        parts["output_dir"] = tmp_path / "output"
        yield Cluster(Settings.model_validate(parts), config, master, tmp_path)


def fleet(steps: range) -> Iterator[Record]:
    rng = random.Random(steps.start)  # noqa: S311  made-up data
    highest = {"cpu": 100, "mem": 100, "net": 6500, "disk": 2000}
    for step in steps:
        for server in range(SERVERS):
            for topic in TOPICS:
                values = tuple(
                    round(rng.uniform(0.3, 1) * highest[topic.key], 2) for _ in topic.metrics
                )
                yield Record(topic, START_MS + step * 5000, f"server_{server + 1}", values)


def send(cluster: Cluster, records: Sequence[Record]) -> None:
    names = {topic: cluster.settings.topics.name(topic) for topic in TOPICS}
    producer = RecordProducer(KafkaAccess(cluster.settings.bootstrap()), names)
    stop = Event()
    assert producer.connect(WAIT_S, stop)
    for record in records:
        producer.send(record, stop)
    producer.finish(stop)
    assert producer.failed == 0


def command(cluster: Cluster, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "fleetpulse", *arguments, "--config", str(cluster.config)]


def stream(cluster: Cluster, *arguments: str) -> "subprocess.Popen[str]":
    conf = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.extraJavaOptions": QUICK_JAVA,
        "spark.executor.memory": "512m",
        "spark.executor.extraJavaOptions": QUICK_JAVA,
    }
    given = [part for key, value in conf.items() for part in ("--conf", f"{key}={value}")]
    return subprocess.Popen(
        command(
            cluster,
            *("spark-stream", "--master", cluster.master, "--from-beginning", "--csv", "--json"),
            *given,
            *arguments,
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def reference_text(cluster: Cluster, family_number: int, records: Sequence[Record]) -> str:
    family, settings = FAMILIES[family_number], cluster.settings
    samples = [
        Sample(
            one.ts_ms,
            one.server_id,
            dict(zip((m.name for m in one.topic.metrics), one.values, strict=True)),
        )
        for one in records
    ]
    rows = fold(samples, settings.window.spec(), settings.rule_set(family), settings.arithmetic)
    span_ms = max(row.end_ms for row in rows) - min(row.start_ms for row in rows)
    output, zone = settings.time.output, settings.time.tz
    return "".join(format_windows(family, rows, span_ms, output, zone))


def test_a_cluster_stopped_and_started_again_equals_the_reference(cluster: Cluster) -> None:
    subprocess.run(command(cluster, "topics", "create"), check=True, capture_output=True)
    records = list(fleet(range(STEPS)))
    half = len(records) // 2
    send(cluster, records[:half])

    first = stream(cluster)
    assert first.stdout is not None
    with first, first.stdout:
        events = []
        while sum(one["messages"] for one in events) < half // 2:
            line = first.stdout.readline()
            assert line, first.communicate()
            events.append(json.loads(line))
        javas = psutil.Process(first.pid).children(recursive=True)
        first.send_signal(signal.SIGTERM)
        stopped_s = time.monotonic()
        rest = first.stdout.read()
        assert first.wait(WAIT_S) == 0
        assert time.monotonic() - stopped_s < STOP_S
    assert json.loads(rest.splitlines()[-1])["is_caught_up"] is False
    # An orphan that has ended may stay in the process table until its new parent looks.
    _, alive = psutil.wait_procs(javas, STOP_S)
    assert alive == []

    send(cluster, records[half:])
    second = stream(cluster, "--until-idle", "2s")
    out, errors = second.communicate(timeout=2 * WAIT_S)
    assert second.returncode == 0, errors
    assert json.loads(out.splitlines()[-1])["is_caught_up"] is True
    # Nothing of Spark's or Java's own on the console: each line is an event of ours.
    assert all(" spark-stream: " in line for line in errors.splitlines()), errors
    for number, family in enumerate(FAMILIES):
        found = cluster.settings.windows_path(family).read_text()
        assert found == reference_text(cluster, number, records)
    # The work was done by executors of the cluster, one for each run.
    executors = [path.parent.parent.name for path in cluster.folder.glob("work/app-*/0/stderr")]
    assert len(executors) == 2
    lags = [json.loads(line)["lag"] for line in out.splitlines()[:-1]]
    assert max(lags) > 0
    assert lags[-1] == 0
