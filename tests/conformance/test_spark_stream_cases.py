"""Every case in cases/*.yaml once more, as messages through Kafka and spark-stream.

A start of a stream costs seconds, so cases with equal settings go through one, each with server ids
of its own (`case7.` before them). A stream gets a part of its messages with each batch.

What a case says of a batch job is told to the stream as settings: a lateness and a skew of
centuries, and the number of seconds that the origin `first_event` stands for.
"""

import datetime as dt
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).parent))

from casebook import ALL_CASES, Case, for_each_server, settings_in, without_java_code

from fleetpulse.codec.message import encode_message
from fleetpulse.codec.table import read_table
from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import FAMILIES, METRICS, NET, TOPICS, Family, Metric, Topic
from fleetpulse.domain.sample import Record
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.spark.ledger import Ledger
from fleetpulse.roles.stream import StreamOptions, stream_in

# PySpark leaves the end of its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

WAIT_S = 60.0
PARTITIONS = 2
OFFSETS = 800  # so the cases without settings of their own come in three batches
FEW = 5
CENTURIES_S = 40_000_000_000
DAY = dt.date(2025, 10, 4)


@dataclass(frozen=True)
class Told:
    """A case as a stream is told it."""

    number: int
    case: Case
    settings: Settings
    records: list[Record]

    @property
    def prefix(self) -> str:
        return f"case{self.number}."

    def meaning(self) -> str:
        """The same text where a stream's settings mean the same."""
        parts = self.stream_parts()
        window = parts["window"]
        window["origin"] = 0 if window.get("origin") == "epoch" else window.get("origin", 0)
        return json.dumps(parts, sort_keys=True)

    def stream_parts(self) -> dict[str, Any]:
        """Settings of a stream that gives what the case wants of a batch job."""
        parts: dict[str, Any] = json.loads(json.dumps(self.case.settings, default=str))
        window = parts.get("window", {})
        if window.get("origin") == "first_event":
            first_ms = min(record.ts_ms for record in self.records)
            window["origin"] = self.settings.window.spec(first_ms).origin_ms // 1000
        for rules in parts.get("rules", {}).values():
            found = rules.get("overrides", {})
            rules["overrides"] = {self.prefix + glob: one for glob, one in found.items()}
        never_s = {"lateness_s": CENTURIES_S, "idle_close_s": CENTURIES_S}
        return parts | {"window": window | never_s, "time": {"max_skew_s": CENTURIES_S}}


def told(number: int, case: Case, folder: Path) -> Told:
    folder.mkdir()
    settings = settings_in(folder, case.settings)
    path = folder / "samples.csv"
    path.write_text(for_each_server(case.samples, case.servers))
    metrics = [metric for metric in METRICS if metric.name in case.samples.partition("\n")[0]]
    prefix = f"case{number}."
    records = [
        Record(topic_of(metric), ts_ms, prefix + server_id, values_of(metric, value))
        for metric in metrics
        for ts_ms, server_id, value in cells(settings, path, metric)
    ]
    return Told(number, case, settings, records)


def topic_of(metric: Metric) -> Topic:
    return next(topic for topic in TOPICS if metric in topic.metrics)


def values_of(metric: Metric, value: float) -> tuple[float, ...]:
    # The second one of this topic is in no family.
    return (value, 0) if topic_of(metric) is NET else (value,)


def cells(settings: Settings, path: Path, metric: Metric) -> Iterator[tuple[int, str, float]]:
    """What the producer would send of a metric; it leaves out what is no sample."""
    times = TimeReader(settings.time.tz, settings.time.start_date(DAY))
    for _, row in read_table([path.read_bytes()], [metric], times, str(path)):
        if row.sample is not None and metric.name in row.sample.values:
            yield row.sample.ts_ms, row.sample.server_id, row.sample.values[metric.name]


@pytest.fixture(scope="module")
def found(
    spark: SparkSession, bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[Family, list[WindowRow]]]:
    """The rows of each case, with the server ids that it has itself."""
    folder = tmp_path_factory.mktemp("cases")
    groups = defaultdict(list)
    for number, case in enumerate(ALL_CASES.values()):
        one = told(number, case, folder / f"case{number}")
        groups[one.meaning()].append(one)
    rows: dict[str, dict[Family, list[WindowRow]]] = {
        name: {family: [] for family in FAMILIES} for name in ALL_CASES
    }
    names = list(ALL_CASES)
    for number, group in enumerate(groups.values()):
        with nullcontext() if len(group) > FEW else without_java_code(spark):
            for row in streamed(spark, bootstrap, folder / f"stream{number}", group):
                prefix, _, server_id = row.server_id.partition(".")
                name = names[int(prefix.removeprefix("case"))]
                rows[name][row.family].append(replace(row, server_id=server_id))
    return rows


def streamed(
    spark: SparkSession, bootstrap: str, folder: Path, group: Sequence[Told]
) -> Iterator[WindowRow]:
    """The rows of cases with equal settings, from one run of the role."""
    folder.mkdir()
    port = int(bootstrap.rpartition(":")[2])
    topics = {topic.key: f"{folder.name}-{topic.key}" for topic in TOPICS}
    records = [record for one in group for record in one.records]
    parts = group[0].stream_parts() | {
        "broker": {"port": port},
        "topics": {**topics, "windows": f"{folder.name}-windows"},
        "stream": {"trigger_s": 0.0, "max_offsets_per_trigger": OFFSETS},
        "output_dir": str(folder / "output"),
    }
    settings = settings_in(folder, parts)
    send(bootstrap, settings, records)
    options = StreamOptions(is_from_beginning=True, until_idle_s=0.2, is_csv=True)
    summary = stream_in(
        nullcontext(spark),
        settings,
        KafkaAccess(settings.bootstrap()),
        options,
        stop=Event(),
        say=lambda _line: None,
        report=lambda _progress: None,
    )
    assert summary.is_caught_up
    assert summary.refused == {}
    assert summary.messages == len(records)
    with Ledger(settings.stream_path() / "ledger.db") as ledger:
        for family in FAMILIES:
            yield from ledger.rows(family)


def send(bootstrap: str, settings: Settings, records: Sequence[Record]) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    names = {topic: settings.topics.name(topic) for topic in TOPICS}
    made = [
        NewTopic(name, PARTITIONS, 1, config={"retention.ms": "-1"})
        for name in [*names.values(), settings.topics.windows]
    ]
    for future in admin.create_topics(made).values():
        future.result(WAIT_S)
    rng = random.Random(len(records))  # noqa: S311  an order, no secret
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    for record in rng.sample(records, len(records)):
        producer.produce(
            names[record.topic], encode_message(record), partition=rng.randrange(PARTITIONS)
        )
    assert producer.flush(WAIT_S) == 0


BY_FAMILY = [
    pytest.param(name, family, id=f"{name}: {family.name}")
    for name, case in ALL_CASES.items()
    for family in FAMILIES
    if family.name in case.wanted
]


@pytest.mark.parametrize(("name", "family"), BY_FAMILY)
def test_case_gives_its_rows_as_a_stream(
    name: str,
    family: Family,
    found: Mapping[str, Mapping[Family, Sequence[WindowRow]]],
    tmp_path: Path,
) -> None:
    case = ALL_CASES[name]
    settings = settings_in(tmp_path, case.settings)
    rows = found[name][family]
    span_ms = max(row.end_ms for row in rows) - min(row.start_ms for row in rows) if rows else 0
    output, zone = settings.time.output, settings.time.tz
    text = "".join(format_windows(family, rows, span_ms, output, zone))
    assert text == for_each_server(case.wanted[family.name], case.servers)
