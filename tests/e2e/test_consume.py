"""The consumer role against a real broker; the oracle re-reads the topics with a second client.

The oracle takes the long way from message to line (decode, then print), whatever the role takes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from fleetpulse.codec.message import decode_message
from fleetpulse.codec.rejects import message_reject_line
from fleetpulse.codec.table import record_line, table_header
from fleetpulse.config import Settings
from fleetpulse.config.settings import BrokerPart, Hosts, RejectsPart, TimePart, Topics
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import DataChanged, FleetpulseError, ServiceUnreachable
from fleetpulse.domain.metric import CPU, CPU_MEM, MEM, TOPICS, Topic
from fleetpulse.domain.position import OnGap
from fleetpulse.domain.reject import Reject
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.sink import committed_bytes
from fleetpulse.roles.broker import start_broker
from fleetpulse.roles.consume import ConsumeSummary, consume

WAIT_S = 30.0
START_MS = 1_759_697_580_000
REJECTS_FILE = "rejects.consumer1.jsonl"


def awaited(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


def sample(number: int, name: str = "cpu_pct") -> bytes:
    stamp = f"2025-10-05T20:{number // 60 % 60:02d}:{number % 60:02d}Z"
    fields = {"ts": stamp, "server_id": f"s{number % 7}", name: number % 10_000 / 100}
    return json.dumps(fields, separators=(",", ":")).encode()


@dataclass
class Bench:
    """Topics of its own on a broker, a consumer's settings for them, and the oracle."""

    settings: Settings
    said: list[str] = field(default_factory=list)
    stop: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.bootstrap = self.settings.bootstrap()
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def name(self, topic: Topic) -> str:
        return self.settings.topics.name(topic)

    def create(self, *topics: Topic, partitions: int = 1) -> None:
        wanted = [
            # Event times are long ago, and retention looks at them.
            NewTopic(self.name(topic), partitions, 1, config={"retention.ms": "-1"})
            for topic in topics
        ]
        for future in self.admin.create_topics(wanted).values():
            future.result(WAIT_S)

    def recreate(self, topic: Topic) -> None:
        for future in self.admin.delete_topics([self.name(topic)]).values():
            future.result(WAIT_S)
        awaited(lambda: self.name(topic) not in self.admin.list_topics(timeout=5).topics)
        self.create(topic)

    def send(self, topic: Topic, payloads: Iterable[bytes | None], partition: int = 0) -> None:
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 20, "log_level": 0})
        for payload in payloads:
            producer.produce(
                self.name(topic), payload, b"key", partition, timestamp=1_759_697_580_000
            )
            producer.poll(0)
        assert producer.flush(WAIT_S) == 0

    def consume(
        self,
        until_idle_s: float | None = 0.3,
        on_gap: OnGap = OnGap.STOP,
        connect_timeout_s: float = WAIT_S,
    ) -> ConsumeSummary:
        return consume(
            self.settings,
            CPU_MEM,
            stop=self.stop,
            say=self.said.append,
            until_idle_s=until_idle_s,
            connect_timeout_s=connect_timeout_s,
            on_gap=on_gap,
        )

    @contextmanager
    def consuming(self) -> Iterator[list[ConsumeSummary]]:
        """Run the role beside the test, and stop it at the end."""
        done: list[ConsumeSummary] = []
        thread = Thread(target=lambda: done.append(self.consume(None)))
        thread.start()
        try:
            yield done
        finally:
            self.stop.set()
            thread.join(WAIT_S)
        assert done

    @contextmanager
    def process(self, until_idle: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the command as a user would, and see at the end that it is gone."""
        config = self.settings.output_dir.with_name("config.yaml")
        parts = self.settings.model_dump(mode="json", include={"hosts", "broker", "topics", "time"})
        config.write_text(json.dumps({**parts, "output_dir": str(self.settings.output_dir)}))
        command = [sys.executable, "-m", "fleetpulse", "consumer1", "--config", str(config)]
        with subprocess.Popen(
            [*command, "--until-idle", until_idle],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def path(self, topic: Topic) -> Path:
        return self.settings.record_path(topic)

    def lines(self, topic: Topic) -> int:
        try:
            return self.path(topic).read_bytes().count(b"\n") - 1
        except FileNotFoundError:
            return -1

    def size_bytes(self, topic: Topic) -> int:
        try:
            return self.path(topic).stat().st_size
        except FileNotFoundError:
            return 0

    def oracle(self, topic: Topic, partition: int = 0) -> tuple[bytes, bytes]:
        """Return the rows and the reject lines that a partition's messages amount to."""
        reader = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "oracle",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        reader.assign([TopicPartition(self.name(topic), partition, OFFSET_BEGINNING)])
        times = TimeReader(self.settings.time.tz, self.settings.time.start_date)
        rows, rejects = [], []
        is_at_end = False
        while not is_at_end:
            for message in reader.consume(10_000, 0.2):
                if message.error() is not None:
                    is_at_end = True
                    continue
                payload = message.value()
                found = decode_message(topic, payload, times)
                if isinstance(found, Reject):
                    place = self.name(topic), partition, message.offset() or 0
                    rejects.append(message_reject_line(*place, found, payload))
                else:
                    rows.append(record_line(found))
        reader.close()
        return "".join(rows).encode(), "".join(rejects).encode()

    def check(self) -> None:
        """See that the files hold what the topics hold, byte by byte."""
        rejects = b""
        for topic in CPU_MEM.topics:
            rows, some_rejects = self.oracle(topic)
            assert self.path(topic).read_bytes() == table_header(topic.metrics).encode() + rows
            rejects += some_rejects
        found = (self.settings.output_dir / REJECTS_FILE).read_bytes()
        assert sorted(found.splitlines()) == sorted(rejects.splitlines())


def bench_on(port: int, folder: Path, **parts: object) -> Bench:
    tag = uuid4().hex[:8]
    names = {topic.key: f"{tag}-{topic.key}" for topic in TOPICS}
    return Bench(
        Settings(
            hosts=Hosts(broker="127.0.0.1"),
            broker=BrokerPart(port=port),
            topics=Topics(**names),
            time=TimePart(date="2025-10-05"),
            output_dir=folder / "output",
            **parts,
        )
    )


@pytest.fixture
def bench(broker_port: int, tmp_path: Path) -> Bench:
    found = bench_on(broker_port, tmp_path)
    found.create(CPU, MEM)
    return found


def test_every_message_becomes_one_row_and_a_second_run_adds_only_what_is_new(bench: Bench) -> None:
    bench.send(CPU, map(sample, range(1000)))
    bench.send(MEM, (sample(number, "mem_pct") for number in range(10)))
    first = bench.consume()
    assert first.rows == first.total_rows == {"cpu_data.csv": 1000, "mem_data.csv": 10}
    assert (first.rejects, first.lost_offsets, first.is_caught_up) == ({}, 0, True)
    bench.send(CPU, map(sample, range(5)))
    second = bench.consume()
    assert second.rows == {"cpu_data.csv": 5, "mem_data.csv": 0}
    assert second.total_rows == {"cpu_data.csv": 1005, "mem_data.csv": 10}
    bench.check()


def test_each_class_of_reject_lands_once(bench: Bench) -> None:
    def cpu(value: object, server_id: object = "a", ts: object = "2025-10-05T20:53:00Z") -> bytes:
        return json.dumps({"ts": ts, "server_id": server_id, "cpu_pct": value}).encode()

    bad = {
        "oversized": [b'{"x":"' + b"y" * 70_000 + b'"}'],
        "malformed": [b"\xff\xfe", b"{", b"[1]", b"[" * 10_000, b"", None, b"1" * 100_000],
        "missing_field": [b"{}"],
        "wrong_type": [cpu("1"), cpu(value=True), cpu(None)],
        "not_finite": [cpu(float("nan")), cpu(float("inf")), cpu(1).replace(b"1}", b"1e309}")],
        "out_of_range": [cpu(101), cpu(-1)],
        "bad_server_id": [cpu(1, "=cmd()"), cpu(1, 7)],
        "bad_time": [cpu(1, "a", "25:00:00"), cpu(1, "a", "soon")],
    }
    # The digits are too many for a message of 64 KiB.
    bad["oversized"].append(bad["malformed"].pop())
    for payloads in bad.values():
        bench.send(CPU, [*payloads, cpu(50)])
    summary = bench.consume()
    assert summary.rejects == {name: len(payloads) for name, payloads in bad.items()}
    assert summary.rows["cpu_data.csv"] == len(bad)
    bench.check()
    again = bench.consume()
    assert again.rejects == {}
    assert again.total_rejects == summary.rejects


def test_a_consumer_killed_again_and_again_leaves_exact_bytes(bench: Bench) -> None:
    total = 400_000
    bench.send(CPU, (b"bad" if n % 1000 == 7 else sample(n) for n in range(total)))
    bench.send(MEM, (sample(n, "mem_pct") for n in range(5000)))
    seen_bytes = [0]
    for _ in range(4):
        with bench.process("60s") as process:
            awaited(lambda: bench.size_bytes(CPU) > seen_bytes[-1])
            process.kill()
            process.wait(WAIT_S)
        seen_bytes.append(committed_bytes(bench.path(CPU)) or 0)
    summary = bench.consume()
    assert summary.total_rows["cpu_data.csv"] == total - total // 1000
    assert summary.rows["cpu_data.csv"] > 0
    bench.check()


def test_a_terminated_consumer_commits_and_leaves_no_tail(bench: Bench) -> None:
    bench.send(CPU, map(sample, range(100_000)))
    with bench.process("60s") as process:
        awaited(lambda: bench.lines(CPU) > 0)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
    assert bench.size_bytes(CPU) == committed_bytes(bench.path(CPU))
    bench.consume()
    bench.check()
    assert not any("cut" in line for line in bench.said)


def test_a_broker_that_dies_and_returns_loses_and_repeats_nothing(tmp_path: Path) -> None:
    bench = bench_on(free_port(), tmp_path)
    data = tmp_path / "broker"
    environ = dict(os.environ)
    start_broker(bench.settings, data, environ, lambda _: None)
    try:
        bench.create(CPU, MEM)
        bench.send(CPU, map(sample, range(2000)))
        with bench.consuming():
            awaited(lambda: bench.lines(CPU) == 2000)
            pid = broker.status(data).pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            awaited(lambda: any("broker lost" in line for line in bench.said))
            start_broker(bench.settings, data, environ, lambda _: None)
            bench.send(CPU, map(sample, range(2000, 3000)))
            awaited(lambda: bench.lines(CPU) == 3000)
            awaited(lambda: any("broker is back" in line for line in bench.said))
        bench.check()
        assert sum("broker lost" in line for line in bench.said) == 1
    finally:
        broker.stop(data)


def test_no_broker_ends_with_what_to_check(tmp_path: Path) -> None:
    bench = bench_on(free_port(), tmp_path)
    with pytest.raises(ServiceUnreachable) as error:
        bench.consume(connect_timeout_s=5)
    for hint in (bench.bootstrap, "broker.port", "fleetpulse doctor", "broker status", "VPN"):
        assert hint in str(error.value)
    assert bench.said[0].startswith("waiting: broker")


def test_missing_topics_are_waited_for_and_named(broker_port: int, tmp_path: Path) -> None:
    bench = bench_on(broker_port, tmp_path)
    bench.create(CPU)
    with bench.consuming():
        awaited(lambda: any(f"has no topic {bench.name(MEM)};" in line for line in bench.said))
        bench.create(MEM)
        bench.send(MEM, [sample(1, "mem_pct")])
        awaited(lambda: bench.lines(MEM) == 1)
    bench.check()


def test_partitions_that_join_are_read_from_their_beginning(bench: Bench) -> None:
    bench.send(CPU, map(sample, range(10)))
    with bench.consuming():
        awaited(lambda: bench.lines(CPU) == 10)
        for future in bench.admin.create_partitions([NewPartitions(bench.name(CPU), 3)]).values():
            future.result(WAIT_S)
        bench.send(CPU, map(sample, range(10, 15)), partition=1)
        bench.send(CPU, map(sample, range(15, 20)), partition=2)
        awaited(lambda: bench.lines(CPU) == 20)
    rows = b"".join(bench.oracle(CPU, partition)[0] for partition in range(3))
    found = bench.path(CPU).read_bytes().removeprefix(table_header(CPU.metrics).encode())
    assert sorted(found.splitlines()) == sorted(rows.splitlines())


def test_a_recreated_topic_stops_the_consumer_or_is_read_anew(bench: Bench) -> None:
    bench.send(CPU, map(sample, range(10)))
    bench.consume()
    bench.recreate(CPU)
    bench.send(CPU, map(sample, range(100, 115)))
    with pytest.raises(DataChanged, match=r"topic re-created: 0 offsets are lost"):
        bench.consume()
    assert bench.lines(CPU) == 10
    assert bench.consume(on_gap=OnGap.CONTINUE).rows["cpu_data.csv"] == 15
    assert bench.consume().rows["cpu_data.csv"] == 0


def test_retention_that_passed_is_counted_to_the_offset(bench: Bench) -> None:
    bench.send(CPU, map(sample, range(10)))
    bench.consume()
    bench.send(CPU, map(sample, range(10, 30)))
    cut = [TopicPartition(bench.name(CPU), 0, 17)]
    for future in bench.admin.delete_records(cut).values():
        future.result(WAIT_S)
    with pytest.raises(DataChanged, match=r"retention passed the consumer: 7 offsets are lost"):
        bench.consume()
    summary = bench.consume(on_gap=OnGap.CONTINUE)
    assert (summary.rows["cpu_data.csv"], summary.lost_offsets) == (13, 7)


def test_aborted_records_are_invisible_and_markers_are_read(bench: Bench) -> None:
    producer = Producer(
        {"bootstrap.servers": bench.bootstrap, "transactional.id": bench.name(CPU), "log_level": 0}
    )
    producer.init_transactions(WAIT_S)
    for number in range(4):
        producer.begin_transaction()
        producer.produce(bench.name(CPU), sample(number))
        producer.flush(WAIT_S)
        if number % 2:
            producer.abort_transaction(WAIT_S)
        else:
            producer.commit_transaction(WAIT_S)
    summary = bench.consume()
    assert summary.is_caught_up
    assert bench.path(CPU).read_bytes().splitlines()[1:] == [
        b"2025-10-05T20:00:00Z,s0,0.0",
        b"2025-10-05T20:00:02Z,s2,0.02",
    ]
    # Only markers and aborted records went: nothing is lost.
    for future in bench.admin.delete_records([TopicPartition(bench.name(CPU), 0, 8)]).values():
        future.result(WAIT_S)
    assert bench.consume().lost_offsets == 0


def test_too_many_rejects_pause_a_running_consumer_until_it_is_stopped(
    broker_port: int, tmp_path: Path
) -> None:
    bench = bench_on(broker_port, tmp_path, rejects=RejectsPart(max_in_a_row=20, max_ratio=1.0))
    bench.create(CPU, MEM)
    bench.send(CPU, [sample(1), *[b"bad"] * 30, sample(2)])
    with bench.consuming() as done:
        awaited(lambda: any(line.startswith("paused: 20 rejects") for line in bench.said))
        assert not done
        assert "rejects.max_in_a_row 20" in bench.said[-1]
        assert REJECTS_FILE in bench.said[-1]
    assert done[0].rejects == {"malformed": 20}
    bench.stop.clear()
    after = bench.consume()
    assert (after.rejects, after.total_rows["cpu_data.csv"]) == ({"malformed": 10}, 2)
    bench.check()


def test_too_many_rejects_end_a_run_that_is_to_end(broker_port: int, tmp_path: Path) -> None:
    bench = bench_on(broker_port, tmp_path, rejects=RejectsPart(max_in_a_row=5, max_ratio=1.0))
    bench.create(CPU, MEM)
    bench.send(CPU, [b"bad"] * 6)
    with pytest.raises(FleetpulseError, match="paused: 5 rejects in a row") as error:
        bench.consume()
    assert error.value.exit_code == 1
    assert len((bench.settings.output_dir / REJECTS_FILE).read_bytes().splitlines()) == 5


def test_kafka_shows_no_lag_behind_a_consumer_that_caught_up(bench: Bench) -> None:
    bench.send(CPU, map(sample, range(10)))
    bench.consume()
    reader = Consumer(
        {"bootstrap.servers": bench.bootstrap, "group.id": "fleetpulse-consumer1", "log_level": 0}
    )
    (found,) = reader.committed([TopicPartition(bench.name(CPU), 0)], timeout=WAIT_S)
    reader.close()
    assert found.offset == 10
