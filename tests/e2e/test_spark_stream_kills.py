"""spark-stream on a real broker, killed at any moment, FLEETPULSE_STREAM_KILLS times.

Every second kill takes the Java process instead of ours. The oracle re-reads the topics with a
second client: it takes each message as the codec does and folds what counts with the reference.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from fleetpulse.codec.message import decode_message
from fleetpulse.codec.window_message import decode_window
from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import WindowRow, fold
from fleetpulse.domain.clock import TimeReader, iso_text
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import CPU, FAMILIES, TOPICS, Topic
from fleetpulse.domain.reject import Reject
from fleetpulse.domain.sample import Record, Sample

KILLS = int(os.environ.get("FLEETPULSE_STREAM_KILLS", "2"))
WAIT_S = 120.0
START_MS = 1_759_697_580_000  # 2025-10-05T20:53:00Z
HOUR_MS = 3_600_000
STEP_MS = 5_000
SERVERS = [f"server_{number}" for number in range(1, 8)]
PARTITIONS = 2
# For a run of seconds the first compiler is enough.
QUICK = ("--conf", "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1")
# From each class of rejects one that JSON readers disagree about, or Spark's own would take.
BAD_CPU = [
    b"",
    b"[1]",
    b"\xff\xfe",
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":1} x',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":1},{}',
    b'{\'ts\':"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":1}',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad"}',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":"1"}',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":true}',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":NaN}',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":1e309}',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":100.0000001}',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad id","cpu_pct":1}',
    b'{"ts":"2025-02-30T20:53:00Z","server_id":"bad","cpu_pct":1}',
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":1,"x":"' + b"x" * 65_536 + b'"}',
    None,
]


def awaited(condition: Callable[[], object], why: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.1)


def payload(topic: Topic, ts_ms: int, server_id: str, rng: random.Random) -> bytes:
    values = {
        metric.name: round(rng.uniform(0.3, 1) * min(metric.highest, 7000), 2)
        for metric in topic.metrics
    }
    return json.dumps({"ts": iso_text(ts_ms), "server_id": server_id, **values}).encode()


@dataclass
class Fleet:
    """Topics of their own on a broker, a folder, and what was sent."""

    settings: Settings
    folder: Path
    rng: random.Random
    late: set[tuple[str, int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.bootstrap = self.settings.bootstrap()
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        # Event times are long ago, and retention looks at them.
        names = [self.settings.topics.name(topic) for topic in TOPICS]
        made = [NewTopic(one, PARTITIONS, 1, config={"retention.ms": "-1"}) for one in names]
        for future in self.admin.create_topics(made).values():
            future.result(WAIT_S)
        self.config = self.folder / "config.yaml"
        parts = self.settings.model_dump(
            mode="json", include={"broker", "topics", "stream", "window"}
        )
        self.config.write_text(json.dumps({**parts, "output_dir": str(self.settings.output_dir)}))

    def send(self, messages: Iterator[tuple[Topic, bytes | None]], *, is_late: bool = False) -> int:
        sent = 0
        producer = Producer({"bootstrap.servers": self.bootstrap, "linger.ms": 20, "log_level": 0})

        def note(_error: object, message: Message) -> None:
            if is_late:
                self.late.add((message.topic(), message.partition(), message.offset()))

        for topic, value in messages:
            producer.produce(
                self.settings.topics.name(topic),
                value,
                partition=self.rng.randrange(PARTITIONS),
                timestamp=START_MS,
                on_delivery=note,
            )
            producer.poll(0)
            sent += 1
        assert producer.flush(WAIT_S) == 0
        return sent

    def steps(self, first: int, count: int) -> Iterator[tuple[Topic, bytes]]:
        for step in range(first, first + count):
            # Within the lateness of 5 s the servers' records come in any order.
            for server_id in self.rng.sample(SERVERS, len(SERVERS)):
                ts_ms = START_MS + step * STEP_MS + self.rng.randrange(4000)
                for topic in TOPICS:
                    yield topic, payload(topic, ts_ms, server_id, self.rng)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "fleetpulse", "spark-stream", "--config", str(self.config)]
        return subprocess.Popen(
            [*command, "--from-beginning", "--csv", "--parquet", *QUICK, *arguments],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def planned(self) -> int:
        """How many batches Spark has planned, in all runs."""
        found = (self.settings.stream_path() / "query" / "offsets").glob("[0-9]*")
        return max((int(one.name) + 1 for one in found), default=0)

    def read(self, name: str) -> Iterator[tuple[int, int, bytes | None]]:
        """Every committed message of a topic, as partition, offset and value."""
        client = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "oracle",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        try:
            numbers = client.list_topics(name, WAIT_S).topics[name].partitions
            client.assign([TopicPartition(name, number, 0) for number in numbers])
            at_end: set[int | None] = set()
            while len(at_end) < len(numbers):
                message = client.poll(WAIT_S)
                assert message is not None
                if message.error():
                    at_end.add(message.partition())
                    continue
                yield message.partition(), message.offset(), message.value()
        finally:
            client.close()

    def windows(self) -> list[ClosedWindow]:
        found = []
        for _, _, value in self.read(self.settings.topics.windows):
            window = decode_window(value)
            assert isinstance(window, ClosedWindow)
            found.append(window)
        return found

    def expected(self) -> tuple[list[Sample], dict[tuple[str, int, int], str]]:
        """What counts, and the class of each message that does not."""
        samples = []
        refused = {}
        now_ms = time.time() * 1000
        for topic in TOPICS:
            name = self.settings.topics.name(topic)
            for partition, offset, value in self.read(name):
                place = (name, partition, offset)
                found = decode_message(topic, value, TimeReader(UTC, date(2025, 10, 5)))
                if isinstance(found, Reject):
                    refused[place] = found.reject_class.value
                elif found.ts_ms > now_ms:
                    refused[place] = "future"
                elif place in self.late:
                    refused[place] = "late"
                else:
                    samples.append(_sample(found))
        return samples, refused


def _sample(record: Record) -> Sample:
    names = [metric.name for metric in record.topic.metrics]
    return Sample(record.ts_ms, record.server_id, dict(zip(names, record.values, strict=True)))


@pytest.fixture
def fleet(broker_port: int, tmp_path: Path) -> Fleet:
    tag = os.urandom(4).hex()
    names = {topic.key: f"{topic.key}-{tag}" for topic in TOPICS}
    settings = Settings.model_validate(
        {
            "broker": {"port": broker_port},
            "topics": {**names, "windows": f"windows-{tag}"},
            # Many small batches, so that there are many moments to be killed at.
            "stream": {"trigger_s": 0.0, "max_offsets_per_trigger": 300},
            # However slow the machine is, a pause of the sender is none of the stream.
            "window": {"idle_close_s": 600},
            "output_dir": tmp_path / "output",
        }
    )
    seed = int(os.environ.get("FLEETPULSE_STREAM_SEED", random.SystemRandom().randrange(10**9)))
    sys.stdout.write(f"seed {seed}, kills {KILLS}\n")
    return Fleet(settings, tmp_path, random.Random(seed))  # noqa: S311  made-up data


def kill_while_it_works(fleet: Fleet, number: int) -> None:
    """Start the stream, let it plan another batch, and kill it at any moment after that."""
    goal = fleet.planned() + 1
    process = fleet.start()
    try:
        awaited(
            lambda: fleet.planned() >= goal or process.poll() is not None, "no batch was planned"
        )
        time.sleep(fleet.rng.random() * 3)
        assert process.poll() is None, process.communicate()
        sys.stdout.write(f"kill {number + 1} after {fleet.planned()} planned batches\n")
        javas = psutil.Process(process.pid).children(recursive=True)
        if number % 2:
            for java in javas:
                with suppress(psutil.NoSuchProcess):
                    java.kill()
            _, errors = process.communicate(timeout=WAIT_S)
            assert process.returncode == 1, errors
            assert "its Java process ended" in errors, errors
            assert "Traceback" not in errors, errors
    finally:
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(javas, WAIT_S)
    assert alive == []


def test_killed_stream_gives_every_row_and_reject_once(fleet: Fleet) -> None:
    fleet.send(fleet.steps(0, 60))
    fleet.send((CPU, value) for value in BAD_CPU)
    # A server whose clock is a day ahead takes nothing from the others.
    ahead_ms = int(time.time() * 1000) + 24 * HOUR_MS
    fleet.send((topic, payload(topic, ahead_ms, "ahead", fleet.rng)) for topic in TOPICS)
    for number in range(KILLS):
        kill_while_it_works(fleet, number)
        fleet.send(fleet.steps(60 + number * 20, 20))
    # What is a whole hour behind comes after all its windows closed, if any row is there by now.
    process = fleet.start("--until-idle", "3s", "--json")
    try:
        awaited(lambda: _has_rows(fleet) or process.poll() is not None, "no row came")
        early_ms = START_MS - HOUR_MS
        late = [(topic, payload(topic, early_ms, "server_1", fleet.rng)) for topic in TOPICS]
        fleet.send(iter(late), is_late=True)
        out, errors = process.communicate(timeout=3 * WAIT_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    events = [json.loads(line) for line in out.splitlines()]
    assert events[-1]["event"] == "end"
    assert events[-1]["is_caught_up"]
    assert all(" spark-stream: " in line for line in errors.splitlines()), errors
    assert "late records: server_1 4" in errors

    samples, refused = fleet.expected()
    check_rejects(fleet, refused)
    check_rows(fleet, samples)


def _has_rows(fleet: Fleet) -> bool:
    name = fleet.settings.topics.windows
    return name in fleet.admin.list_topics(timeout=5).topics and any(True for _ in fleet.read(name))


def check_rejects(fleet: Fleet, refused: Mapping[tuple[str, int, int], str]) -> None:
    text = (fleet.settings.output_dir / "rejects.spark-stream.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    found = Counter((one["topic"], one["partition"], one["offset"]) for one in lines)
    assert found == Counter(refused.keys())
    classes = {(one["topic"], one["partition"], one["offset"]): one["class"] for one in lines}
    assert classes == refused
    assert Counter(classes.values())["late"] == 4
    assert Counter(classes.values())["future"] == 4
    assert len(refused) == len(BAD_CPU) + 8


def check_rows(fleet: Fleet, samples: list[Sample]) -> None:
    settings = fleet.settings
    published = fleet.windows()
    for family in FAMILIES:
        rows = fold(samples, settings.window.spec(), settings.rule_set(family), settings.arithmetic)
        span_ms = max(row.end_ms for row in rows) - min(row.start_ms for row in rows)
        wanted = format_windows(family, rows, span_ms, settings.time.output, settings.time.tz)
        assert settings.windows_path(family).read_text() == "".join(wanted)
        of_family = [one for one in published if one.row.family is family]
        assert sorted((one.row for one in of_family), key=_place) == rows
        assert {one.closed_by for one in of_family} == {ClosedBy.WATERMARK, ClosedBy.END}
        assert sum(one.samples[0] for one in of_family) >= 2 * len(samples) // 4
    folders = sorted((settings.output_dir / "windows.parquet").glob("batch=*"))
    assert folders
    assert all(list(folder.glob("*.parquet")) for folder in folders)


def _place(row: WindowRow) -> tuple[bytes, int]:
    return row.server_id.encode(), row.start_ms
