"""A producer that is killed again and again sends each row of its dataset once."""

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from chaos_table import Row
from fleetpulse.codec.message import encode_message
from fleetpulse.config import Settings
from fleetpulse.domain.metric import METRICS, TOPICS
from fleetpulse.domain.position import Partition
from fleetpulse.domain.sample import Sample, split
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.survey import TopicSurvey
from fleetpulse.roles import topics

KILLS = 20
SAMPLES = 200_000
FIRST_MS = 1_759_697_580_000  # 2025-10-05T20:53:00Z
# After the connection: before the first commit, between two, and while one is under way.
EARLIEST_S, LATEST_S = 0.0, 1.5


def samples() -> list[Sample]:
    return [
        Sample(
            FIRST_MS + 1000 * (n // 20),
            f"server_{n % 20}",
            {metric.name: n % 100 + 0.25 for metric in METRICS},
        )
        for n in range(SAMPLES)
    ]


def line(sample: Sample) -> str:
    return f"{sample.ts_ms // 1000},{sample.server_id}," + ",".join(
        f"{sample.values[metric.name]}" for metric in METRICS
    )


def arrived(settings: Settings, name: str) -> Counter[tuple[bytes, bytes, int]]:
    access = KafkaAccess(settings.bootstrap())
    end = TopicSurvey(access, "test", [name]).highs([Partition(name, 0)], 30)[Partition(name, 0)]
    consumer = Consumer(
        {
            "bootstrap.servers": settings.bootstrap(),
            "group.id": "test",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    found: Counter[tuple[bytes, bytes, int]] = Counter()
    reached = 0
    while reached < end:
        message = consumer.poll(30)
        assert message is not None, f"{name} ends at {reached}, wanted {end}"
        if (error := message.error()) is None:
            found[message.key() or b"", message.value() or b"", message.timestamp()[1]] += 1
        else:
            assert error.code() == KafkaError._PARTITION_EOF  # noqa: SLF001
            reached = message.offset() or 0
    consumer.close()
    return found


def test_each_row_is_in_the_topics_once_whatever_is_killed(
    broker_port: int, tmp_path: Path, row: Row
) -> None:
    row.fault, row.injected, row.produced = "SIGKILL of the producer", KILLS, SAMPLES * len(TOPICS)
    tag = uuid4().hex[:8]
    names = {topic.key: f"{tag}-{topic.key}" for topic in TOPICS}
    environment = {
        "FLEETPULSE__BROKER__PORT": str(broker_port),
        "FLEETPULSE__OUTPUT_DIR": str(tmp_path / "out"),
        "FLEETPULSE__TOPICS__POSITIONS": f"{tag}-positions",
        **{f"FLEETPULSE__TOPICS__{key.upper()}": name for key, name in names.items()},
    }
    sent = samples()
    dataset = tmp_path / "dataset.csv"
    header = "ts,server_id," + ",".join(metric.name for metric in METRICS)
    dataset.write_text("\n".join([header, *map(line, sent), ""]), encoding="utf-8")
    command = [sys.executable, "main.py", "producer", "--dataset", str(dataset), "--json"]
    settings = Settings.model_validate(
        {
            "broker": {"port": broker_port},
            "topics": {**names, "positions": f"{tag}-positions"},
        }
    )
    topics.create(settings, 30, lambda _line: None)

    dice = random.Random(row.seed)  # noqa: S311  chance, not secrets
    killed, is_whole = 0, False
    while killed < KILLS:
        process = subprocess.Popen(
            [*command, "--speed", "max"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        # Its start takes longer on a busy machine than its work: the time counts from there.
        next((line for line in process.stderr if "connected to broker" in line), None)
        time.sleep(dice.uniform(EARLIEST_S, LATEST_S))
        is_whole = process.poll() is not None
        process.kill()
        process.communicate()
        killed += 1
    last = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    row.note = "all rows were sent before the last start" if is_whole else ""
    assert last.returncode == 0, last.stderr
    row.acknowledged = 0
    for topic in TOPICS:
        wanted = Counter(
            (record.server_id.encode(), encode_message(record), record.ts_ms)
            for sample in sent
            for record in split(sample)
            if record.topic is topic
        )
        found = arrived(settings, names[topic.key])
        row.acknowledged += found.total()
        row.lost += (wanted - found).total()
        row.duplicated += (found - wanted).total()
    assert row.lost == row.duplicated == 0
