"""Live cases on spark-stream, through Kafka, and a server whose clock is a day ahead all the while.

Only cases that no wall clock takes part in: Spark's own is the machine's. They go through one
stream, each an hour behind the one before it and with servers of its own, so the messages of the
next case are the end of the last one: what a case says of its end closes by the watermark here.

Its topics are those of cpu_mem; whatever a step sends, the two others get at the same instant.
"""

import datetime as dt
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import yaml
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from pyspark.sql import SparkSession

sys.path.insert(0, str(Path(__file__).parent))

from casebook import settings_in, without_java_code

from fleetpulse.codec.message import encode_message
from fleetpulse.codec.window_message import decode_window
from fleetpulse.codec.windows import TimeFormat, format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import WindowRow
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import CPU, CPU_MEM, DISK, MEM, NET, TOPICS, Topic
from fleetpulse.domain.sample import Record
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.spark.progress import StreamProgress
from fleetpulse.roles.stream import StreamOptions, stream_in

# PySpark leaves the end of its sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

WAIT_S = 60.0
HOUR_MS = 3_600_000
CASE_START_MS = 1_759_697_580_000  # 2025-10-05T20:53:00Z
TIMES = TimeReader(dt.UTC, dt.date(2025, 10, 5))
BESIDE = {CPU: NET, MEM: DISK}
NAMES = (
    "a window closes once every topic has passed its end by the lateness",
    "a record later than the lateness counts where a window is open and is late where none is",
    "topics that are drained unevenly make nothing late",
    "two servers whose clocks differ by less than the lateness lose nothing",
)
CASES = {
    case["name"]: case
    for path in sorted((Path(__file__).parent / "live").glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())["cases"]
}


def awaited(condition: Callable[[], object], why: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(0.05)


@dataclass
class Live:
    """A running stream: what is sent to it, and what came of that."""

    settings: Settings
    bootstrap: str
    runner: Thread
    sent: int = 0
    processed: int = 0
    rejects_read: int = 0
    ahead: list[tuple[str, str]] = field(default_factory=list)
    producer: Producer = field(init=False)
    windows: Consumer = field(init=False)

    def __post_init__(self) -> None:
        client = {"bootstrap.servers": self.bootstrap, "log_level": 0}
        self.producer = Producer(client)
        self.windows = Consumer({**client, "group.id": "oracle", "auto.offset.reset": "earliest"})
        self.windows.assign([TopicPartition(self.settings.topics.windows, 0, 0)])

    def send(self, record: Record) -> None:
        self.producer.produce(
            self.settings.topics.name(record.topic), encode_message(record), partition=0
        )
        self.sent += 1

    def settle(self, latest: Record) -> None:
        """Wait until all that was sent has closed what it closes, be it nothing.

        A message that says nothing new comes in a batch of its own, and so behind whatever the
        batch before it closed.
        """
        for record in (None, latest):
            if record is not None:
                self.send(record)
            assert self.producer.flush(WAIT_S) == 0
            awaited(lambda: self.processed >= self.sent, "no batch came")

    def new_rows(self) -> list[ClosedWindow]:
        """The windows of cpu_mem that closed since the last call."""
        found = []
        while (message := self.windows.poll(0.05)) is not None:
            window = decode_window(message.value())
            assert isinstance(window, ClosedWindow)
            found.append(window)
        return [one for one in found if one.row.family is CPU_MEM]

    def new_rejects(self) -> list[dict[str, Any]]:
        path = self.settings.output_dir / "rejects.spark-stream.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        new = lines[self.rejects_read :]
        self.rejects_read = len(lines)
        return [json.loads(line) for line in new]


@dataclass(frozen=True)
class Step:
    """What a case wants after some of its messages, and what came."""

    wanted: list[str]
    found: list[str]


@contextmanager
def running(spark: SparkSession, bootstrap: str, folder: Path) -> Iterator[Live]:
    names = {topic.key: f"live-{topic.key}" for topic in TOPICS}
    parts = {
        "broker": {"port": int(bootstrap.rpartition(":")[2])},
        "topics": {**names, "windows": "live-windows"},
        "stream": {"trigger_s": 0.0},
        "window": {"idle_close_s": 10**6},
        "output_dir": str(folder / "output"),
    }
    settings = settings_in(folder, parts)
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    made = [
        NewTopic(name, 1, 1, config={"retention.ms": "-1"})
        for name in [*names.values(), "live-windows"]
    ]
    for future in admin.create_topics(made).values():
        future.result(WAIT_S)
    stop = Event()

    def report(progress: StreamProgress) -> None:
        live.processed += progress.messages

    def run() -> None:
        options = StreamOptions(is_from_beginning=True)
        opened = nullcontext(spark)
        stream_in(
            opened,
            settings,
            KafkaAccess(settings.bootstrap()),
            options,
            stop=stop,
            say=lambda _line: None,
            report=report,
        )

    live = Live(settings, bootstrap, Thread(target=run, name="spark-stream"))
    live.runner.start()
    try:
        yield live
    finally:
        live.windows.close()
        stop.set()
        live.runner.join(WAIT_S)
    assert not live.runner.is_alive()


def records_of(kind: str, content: str | None, prefix: str, shift_ms: int) -> list[Record]:
    """The record of a step, and one at the same instant that keeps the other family up with it.

    An end is half an hour after the case in all topics.
    """
    if kind == "end":
        ts_ms = CASE_START_MS + shift_ms + HOUR_MS // 2
        return [Record(topic, ts_ms, "end", (0,) * len(topic.metrics)) for topic in TOPICS]
    topic: Topic = {"cpu": CPU, "mem": MEM}[kind.partition("/")[0]]
    ts, server_id, value = str(content).split()
    ts_ms = TIMES.read(ts)
    assert isinstance(ts_ms, int)
    record = Record(topic, ts_ms + shift_ms, prefix + server_id, (float(value),))
    beside = BESIDE[topic]
    return [record, replace(record, topic=beside, values=(0,) * len(beside.metrics))]


def played(live: Live, number: int, case: dict[str, Any]) -> Iterator[Step]:
    """Send a case; compare at each step that closes or refuses something, and just before it."""
    prefix, shift_ms = f"case{number}.", number * HOUR_MS
    ahead_ms = int(time.time() * 1000) + 24 * HOUR_MS
    for topic in TOPICS:
        live.send(Record(topic, ahead_ms, "ahead", (1,) * len(topic.metrics)))
    latest: Record | None = None
    is_settled = True
    for told in case["steps"]:
        step = dict(told)
        wanted = [line.rpartition(" ")[0] for line in step.pop("closed", [])]
        if (refused := step.pop("refused", None)) is not None:
            wanted.append(refused)
        ((kind, content),) = step.items()
        if wanted and latest is not None and not is_settled:
            live.settle(latest)
            yield Step([], found_now(live, prefix, shift_ms, 0))
        for record in records_of(kind, content, prefix, shift_ms):
            live.send(record)
            if latest is None or record.ts_ms > latest.ts_ms:
                latest = replace(record, server_id="probe")
        is_settled = bool(wanted)
        if wanted:
            yield Step(wanted, found_now(live, prefix, shift_ms, len(wanted)))


def found_now(live: Live, prefix: str, shift_ms: int, at_least: int) -> list[str]:
    """What came since the last time, once that is enough, as cases print it."""
    assert live.producer.flush(WAIT_S) == 0
    rows: list[WindowRow] = []
    refused: list[str] = []

    def is_enough() -> bool:
        rows.extend(
            own_row(one, prefix, shift_ms)
            for one in live.new_rows()
            if one.row.server_id.startswith(prefix)
        )
        refused.extend(own_rejects(live, prefix))
        return len(rows) + len(refused) >= at_least

    awaited(is_enough, "no window closed")
    rows.sort(key=lambda row: (row.server_id.encode(), row.start_ms))
    lines = list(format_windows(CPU_MEM, rows, 0, TimeFormat.CLOCK, dt.UTC))
    return [line.rstrip() for line in lines[1:]] + refused


def own_row(window: ClosedWindow, prefix: str, shift_ms: int) -> WindowRow:
    """A row with the times and the server id of its case."""
    assert window.closed_by is ClosedBy.WATERMARK
    row = window.row
    return replace(
        row,
        server_id=row.server_id.removeprefix(prefix),
        start_ms=row.start_ms - shift_ms,
        end_ms=row.end_ms - shift_ms,
    )


def own_rejects(live: Live, prefix: str) -> Iterator[str]:
    names = [live.settings.topics.name(topic) for topic in BESIDE]
    for reject in live.new_rejects():
        server_id = json.loads(reject["excerpt"])["server_id"]
        if server_id == "ahead":
            live.ahead.append((reject["topic"], reject["class"]))
        elif reject["topic"] in names:
            yield f"{reject['class']} {server_id.removeprefix(prefix)}"


@pytest.fixture(scope="module")
def played_cases(
    spark: SparkSession, bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, list[Step]], Live]:
    folder = tmp_path_factory.mktemp("live")
    with without_java_code(spark), running(spark, bootstrap, folder) as live:
        steps = {name: list(played(live, n, CASES[name])) for n, name in enumerate(NAMES)}
    return steps, live


@pytest.mark.parametrize("name", NAMES)
def test_live_case_closes_and_refuses_what_it_says_as_a_stream(
    name: str, played_cases: tuple[dict[str, list[Step]], Live]
) -> None:
    steps = played_cases[0][name]
    assert [step.found for step in steps] == [step.wanted for step in steps]


def test_a_server_a_day_ahead_delays_and_loses_nothing_of_the_others(
    played_cases: tuple[dict[str, list[Step]], Live],
) -> None:
    steps, live = played_cases
    # Ahead of each case it sent to every topic: not one of these counts, nor moves a watermark.
    wanted = [(live.settings.topics.name(topic), "future") for topic in TOPICS] * len(NAMES)
    assert sorted(live.ahead) == sorted(wanted)
    # And all that the others sent was closed and refused when its time had come, not before.
    for of_case in steps.values():
        assert [step.found for step in of_case] == [step.wanted for step in of_case]
