"""What the messages of the four topics amount to, found the long way.

A second client re-reads the topics; each message is taken as the codec takes it, and what counts
is folded by the reference. A `Fleet` is what the live roles watch: topics of its own on a broker.
"""

import json
import os
import random
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from fleetpulse.codec.message import decode_message
from fleetpulse.codec.window_message import decode_window
from fleetpulse.codec.windows import TimeFormat, format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import WindowRow, fold
from fleetpulse.domain.clock import TimeReader, iso_text
from fleetpulse.domain.closing import ClosedBy, ClosedWindow
from fleetpulse.domain.metric import FAMILIES, TOPICS, Family, Topic
from fleetpulse.domain.reject import Reject
from fleetpulse.domain.sample import Sample
from fleetpulse.roles.monitor import REJECTS_FILE, MonitorOptions, MonitorSummary, monitor

WAIT_S = 30.0
START_MS = 1_759_697_580_000  # 2025-10-05T20:53:00Z
STEP_MS = 5_000
DAY_MS = 86_400_000
SERVERS = [f"server_{number}" for number in range(1, 8)]
# Values lie below these; the limits are near the upper end.
HIGHEST = {"cpu": 100, "mem": 100, "net": 7000, "disk": 2000}
# As `topics create` makes them: event times are long ago or, where a clock is wrong, ahead.
TOPIC_CONFIG = {"retention.ms": "-1", "message.timestamp.after.max.ms": str(2**63 - 1)}
# From each class of rejects that a codec finds at least one.
BAD = {
    b"": "malformed",
    b"[1]": "malformed",
    b"\xff\xfe": "malformed",
    b"[" * 10_000: "malformed",
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":1} x': "malformed",
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad"}': "missing_field",
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":"1"}': "wrong_type",
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":NaN}': "not_finite",
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":101}': "out_of_range",
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad id","cpu_pct":1}': "bad_server_id",
    b'{"ts":"2025-02-30T20:53:00Z","server_id":"bad","cpu_pct":1}': "bad_time",
    b'{"ts":"2025-10-05T20:53:00Z","server_id":"bad","cpu_pct":1,"x":"'
    + b"x" * 65_536
    + b'"}': "oversized",
}

# Topic, partition and offset of a message.
Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Sent:
    """A message to send; `ts_ms` is Kafka's timestamp, and `number` its partition, None any."""

    topic: Topic
    value: bytes | None
    ts_ms: int = START_MS
    number: int | None = None


@dataclass
class Heard:
    """Takes what monitor tells."""

    told: list[tuple[WindowRow, bool]] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    ahead: list[tuple[str, float]] = field(default_factory=list)
    readings: int = 0

    def reading(self, seconds: float) -> None:
        assert seconds > 0
        self.readings += 1

    def alerts(self, rows: Iterable[WindowRow], values: Sequence[bytes], *, is_again: bool) -> None:
        self.told += [(row, is_again) for row in rows]
        self.values += values

    def clock_ahead(self, server_id: str, ahead_s: float) -> None:
        self.ahead.append((server_id, ahead_s))

    def rows(self) -> list[WindowRow]:
        return [row for row, _ in self.told]


@dataclass
class Fleet:
    """The four topics of some servers, the settings of who watches them, and a folder."""

    settings: Settings
    folder: Path
    rng: random.Random
    said: list[str] = field(default_factory=list)
    stop: Event = field(default_factory=Event)
    _producer: Producer | None = None

    @classmethod
    def on(cls, port: int, folder: Path, seed: int = 1, **parts: object) -> Self:
        """Return a fleet on a broker, whose topics are not made yet."""
        tag = os.urandom(4).hex()
        names = {topic.key: f"{topic.key}-{tag}" for topic in TOPICS}
        given = {
            "broker": {"port": port},
            # However slow the machine is, a pause of the sender is none of the stream.
            "window": {"idle_close_s": 600},
            "output_dir": folder / "output",
            **parts,
        }
        topics: Any = given.pop("topics", {})
        given["topics"] = {**names, "windows": f"windows-{tag}", **topics}
        rng = random.Random(seed)  # noqa: S311  made-up data
        return cls(Settings.model_validate(given), folder, rng)

    def __post_init__(self) -> None:
        self.bootstrap = self.settings.bootstrap()
        self.admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})

    def but(self, **parts: object) -> "Fleet":
        """Return who watches the same topics with other settings."""
        given = self.settings.model_dump(mode="python")
        for name, part in parts.items():
            given[name] = {**given[name], **part} if isinstance(part, dict) else part
        return Fleet(Settings.model_validate(given), self.folder, self.rng)

    def name(self, topic: Topic) -> str:
        return self.settings.topics.name(topic)

    def create(self, *topics: Topic) -> None:
        made = [
            NewTopic(self.name(topic), self.settings.topics.partitions, 1, config=TOPIC_CONFIG)
            for topic in topics or TOPICS
        ]
        for future in self.admin.create_topics(made).values():
            future.result(WAIT_S)

    # What is sent

    def payload(self, topic: Topic, ts_ms: int, server_id: str) -> bytes:
        """A message of a server, which is busy for some of the 40 seconds of its life."""
        mood = zlib.crc32(f"{topic.key} {server_id} {ts_ms // 40_000}".encode())
        low, high = (0.92, 1) if mood % 3 == 0 else (0.3, 0.75)
        values = {
            metric.name: round(self.rng.uniform(low, high) * HIGHEST[topic.key], 2)
            for metric in topic.metrics
        }
        return json.dumps({"ts": iso_text(ts_ms), "server_id": server_id, **values}).encode()

    def steps(
        self,
        first: int,
        count: int,
        topics: Sequence[Topic] = TOPICS,
        start_ms: int = START_MS,
        spread_ms: int = 4000,
    ) -> Iterator[Sent]:
        """A message of every server and topic a step, out of order within the lateness of 5 s."""
        for step in range(first, first + count):
            for server_id in self.rng.sample(SERVERS, len(SERVERS)):
                ts_ms = start_ms + step * STEP_MS + self.rng.randrange(spread_ms + 1)
                for topic in topics:
                    yield Sent(topic, self.payload(topic, ts_ms, server_id), ts_ms)

    def bad(self, topic: Topic) -> Iterator[Sent]:
        """Every kind of bad message, each followed by a good one, and one without a value."""
        for value in (*BAD, None):
            yield Sent(topic, value)

    def one_of_each(self, server_id: str, ts_ms: int) -> list[Sent]:
        """A message of a server for each topic."""
        return [Sent(topic, self.payload(topic, ts_ms, server_id), ts_ms) for topic in TOPICS]

    def send(self, messages: Iterable[Sent]) -> set[Place]:
        """Send, wait until all is acknowledged, and return where the messages are."""
        places: set[Place] = set()

        def note(error: object, message: Message) -> None:
            assert error is None
            places.add(place_of(message))

        if self._producer is None:
            self._producer = Producer(
                {
                    "bootstrap.servers": self.bootstrap,
                    # A batch that is sent again must not come behind its successor.
                    "enable.idempotence": True,
                    "linger.ms": 5,
                    "log_level": 0,
                }
            )
        count = 0
        for one in messages:
            number = one.number
            if number is None:
                number = self.rng.randrange(self.settings.topics.partitions)
            self._producer.produce(
                self.name(one.topic),
                one.value,
                b"key",
                number,
                timestamp=one.ts_ms,
                on_delivery=note,
            )
            self._producer.poll(0)
            count += 1
        assert self._producer.flush(WAIT_S) == 0
        assert len(places) == count
        return places

    # Who watches

    def run(
        self,
        *,
        until_idle_s: float | None = 0.4,
        since_ms: int | None = 0,
        heard: Heard | None = None,
        is_csv: bool = True,
        is_published: bool = True,
    ) -> MonitorSummary:
        """Run monitor here, on all messages and with CSV files unless it is told otherwise."""
        try:
            return monitor(
                self.settings,
                MonitorOptions(since_ms, until_idle_s, is_csv, is_published),
                stop=self.stop,
                say=self.said.append,
                told=Heard() if heard is None else heard,
            )
        finally:
            # The end of a run sets it, whatever ended it.
            self.stop.clear()

    @contextmanager
    def watching(
        self, heard: Heard | None = None, since_ms: int | None = 0
    ) -> Iterator[list[MonitorSummary]]:
        """Run monitor beside the test, and stop it at the end."""
        done: list[MonitorSummary] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                done.append(self.run(until_idle_s=None, heard=heard, since_ms=since_ms))
            except BaseException as err:  # noqa: BLE001  shown by the test
                failed.append(err)

        thread = Thread(target=run)
        thread.start()
        try:
            yield done
        finally:
            self.stop.set()
            thread.join(WAIT_S)
            self.stop.clear()
        assert not failed, failed
        assert done

    def command(self, *arguments: str) -> list[str]:
        """Return how a user starts monitor on this fleet."""
        parts = self.settings.model_dump(
            mode="json",
            include={"broker", "topics", "window", "time", "rejects", "team_number", "output_dir"},
        )
        config = self.settings.output_dir.with_suffix(".yaml")
        config.write_text(json.dumps(parts))
        start = [sys.executable, "-m", "fleetpulse", "monitor", "--config", str(config)]
        return [*start, *arguments]

    def process(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the command to its end."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, timeout=WAIT_S
        )
        assert "Traceback" not in done.stderr
        assert "internal error" not in done.stderr, done.stderr
        return done

    # What must come of it

    def read(self, *names: str) -> Iterator[tuple[Place, bytes | None]]:
        """Every committed message of some topics."""
        client = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "oracle",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "log_level": 0,
            }
        )
        try:
            found = client.list_topics(timeout=WAIT_S).topics
            wanted = [
                TopicPartition(name, number, OFFSET_BEGINNING)
                for name in names
                for number in found[name].partitions
            ]
            client.assign(wanted)
            at_end: set[tuple[str | None, int | None]] = set()
            while len(at_end) < len(wanted):
                for message in client.consume(10_000, 0.2):
                    if message.error() is None:
                        yield place_of(message), message.value()
                    else:
                        at_end.add((message.topic(), message.partition()))
        finally:
            client.close()

    def has_topic(self, name: str) -> bool:
        return name in self.admin.list_topics(timeout=WAIT_S).topics

    def windows(self) -> list[ClosedWindow]:
        """Return the windows topic, where it is."""
        name = self.settings.topics.windows
        if not self.has_topic(name):
            return []
        found = [decode_window(value) for _, value in self.read(name)]
        assert all(isinstance(one, ClosedWindow) for one in found)
        return [one for one in found if isinstance(one, ClosedWindow)]

    def expected(self, late: Iterable[Place] = ()) -> "Expected":
        """Return what must come of all messages; which of them are late, the caller knows."""
        late = set(late)
        samples: list[Sample] = []
        refused: dict[Place, str] = {}
        latest: dict[tuple[str, int], int] = {}
        times = TimeReader(UTC, date(2025, 10, 5))
        topic_of = {self.name(topic): topic for topic in TOPICS}
        latest_ms = time.time() * 1000 + self.settings.time.max_skew_s * 1000
        for place, value in self.read(*topic_of):
            topic = topic_of[place[0]]
            found = decode_message(topic, value, times)
            if isinstance(found, Reject):
                refused[place] = found.reject_class.value
            elif found.ts_ms > latest_ms:
                refused[place] = "future"
            elif place in late:
                refused[place] = "late"
            else:
                names = [metric.name for metric in topic.metrics]
                values = dict(zip(names, found.values, strict=True))
                samples.append(Sample(found.ts_ms, found.server_id, values))
                where = place[:2]
                latest[where] = max(found.ts_ms, latest.get(where, 0))
        return Expected(self.settings, samples, refused, latest)

    def has_all_closed(self, expected: "Expected") -> bool:
        """Tell whether the files hold every row whose end the watermark has passed."""
        return all(self.csv(family) == expected.text(family, is_closed=True) for family in FAMILIES)

    def csv(self, family: Family) -> str:
        path = self.settings.windows_path(family)
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def rejects(self) -> list[dict[str, Any]]:
        path = self.settings.output_dir / REJECTS_FILE
        return [json.loads(line) for line in path.read_text().splitlines()]

    def check(self, expected: "Expected") -> None:
        """See that files and topic hold exactly what must come of the messages."""
        published = self.windows()
        for family in FAMILIES:
            rows = expected.rows(family)
            assert self.csv(family) == expected.text(family)
            assert (
                sorted((one.row for one in published if one.row.family is family), key=by_start)
                == rows
            )
        self.check_rejects(expected)

    def check_rejects(self, expected: "Expected") -> None:
        found = self.rejects()
        places = Counter((one["topic"], one["partition"], one["offset"]) for one in found)
        assert places == Counter(expected.refused.keys())
        classes = {(one["topic"], one["partition"], one["offset"]): one["class"] for one in found}
        assert classes == expected.refused


@dataclass(frozen=True)
class Expected:
    """Samples that count, the class of each message that does not, and how far partitions are."""

    settings: Settings
    samples: list[Sample]
    refused: Mapping[Place, str]
    latest_ms: Mapping[tuple[str, int], int]

    def rows(self, family: Family) -> list[WindowRow]:
        """Return a family's rows in the order in which a live role closes them."""
        settings = self.settings
        rules = settings.rule_set(family)
        rows = fold(self.samples, settings.window.spec(), rules, settings.arithmetic)
        return sorted(rows, key=by_start)

    def all_rows(self) -> list[WindowRow]:
        """Return the rows of both families."""
        return [row for family in FAMILIES for row in self.rows(family)]

    def alerting(self) -> list[WindowRow]:
        """Return those of both families that have an alert."""
        return [row for row in self.all_rows() if row.alert]

    def text(self, family: Family, *, is_closed: bool = False) -> str:
        """Return a family's file as a live role writes it, or what the watermark closed of it."""
        rows = [row for row in self.rows(family) if not is_closed or self.closed_by_watermark(row)]
        chosen = self.settings.time.output
        if chosen is TimeFormat.AUTO:
            chosen = TimeFormat.ISO
        return "".join(format_windows(family, rows, 0, chosen, self.settings.time.tz))

    def closed_by_watermark(self, row: WindowRow) -> bool:
        """Tell whether all partitions of the row's family have passed its end."""
        names = {self.settings.topics.name(topic) for topic in row.family.topics}
        latest_ms = [at for (name, _), at in self.latest_ms.items() if name in names]
        return row.end_ms <= min(latest_ms) - self.settings.window.lateness_s * 1000

    def cause(self, row: WindowRow, otherwise: ClosedBy) -> ClosedBy:
        """Return what closes a row that the watermark may not reach."""
        return ClosedBy.WATERMARK if self.closed_by_watermark(row) else otherwise


def awaited(condition: Callable[[], object], why: str, every_s: float = 0.01) -> None:
    """Wait until a condition holds."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, why
        time.sleep(every_s)


def place_of(message: Message) -> Place:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return topic, partition, offset


def by_start(row: WindowRow) -> tuple[int, bytes]:
    return row.start_ms, row.server_id.encode()
