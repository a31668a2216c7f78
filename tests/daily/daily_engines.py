"""A day of a fleet, 5 million messages: engine, engine on CSV, and Spark must write the same bytes.

`make test-daily` runs it; it is too long for every change. The engine takes JSON messages as a live
role does: in batches, four partitions a topic, out of order within the lateness. The two batch jobs
take the consumers' CSV files of the same records. FLEETPULSE_DAILY_MESSAGES sets another number.
"""

import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fleetpulse.codec.message import encode_message
from fleetpulse.codec.table import record_file_name, record_line, table_header
from fleetpulse.codec.windows import TimeFormat, format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.metric import FAMILIES, TOPICS, Family, Topic
from fleetpulse.domain.position import Partition
from fleetpulse.domain.sample import Record
from fleetpulse.engine import Closed, Engine, Liveness, Messages

MESSAGES = int(os.environ.get("FLEETPULSE_DAILY_MESSAGES", "5000000"))
START_MS = 1_759_622_400_000  # 2025-10-05T00:00:00Z
STEP_MS = 10_000
JITTER_MS = 4_000  # below the lateness of 5 s
SERVERS = [f"server_{number:03}" for number in range(145)]
PARTITIONS = 4
AT_ONCE = 20
# Around the default limits, so that every alert comes, and none too.
VALUES = {"cpu": (60, 100), "mem": (78, 100), "net": (5_000, 6_300), "disk": (1_500, 1_850)}

Chunk = dict[Topic, list[Record]]


def chunks() -> Iterator[Chunk]:
    """The records of the day, some steps at a time; each topic has its own order of servers."""
    rng = np.random.default_rng(20251005)
    steps = MESSAGES // (len(TOPICS) * len(SERVERS))
    for first in range(0, steps, AT_ONCE):
        found: Chunk = {topic: [] for topic in TOPICS}
        for step in range(first, min(first + AT_ONCE, steps)):
            jitter_ms = rng.integers(0, JITTER_MS, len(SERVERS)).tolist()
            for topic in TOPICS:
                lowest, highest = VALUES[topic.key]
                shape = (len(SERVERS), len(topic.metrics))
                rows = rng.integers(lowest * 100, highest * 100, shape).tolist()  # hundredths
                for server in rng.permutation(len(SERVERS)).tolist():
                    ts_ms = START_MS + step * STEP_MS + jitter_ms[server]
                    numbers = tuple(one / 100 for one in rows[server])
                    found[topic].append(Record(topic, ts_ms, SERVERS[server], numbers))
        yield found


@dataclass
class LiveEngine:
    """The engine of a family, fed with messages."""

    family: Family
    settings: Settings

    def __post_init__(self) -> None:
        self.engine = Engine(
            self.settings.rule_set(self.family),
            self.settings.window.spec,
            self.settings.arithmetic,
            Liveness(lateness_ms=5_000, max_skew_ms=60_000),
            dt.UTC,
            dt.date(2025, 10, 5),
        )
        places = [(topic, n) for topic in self.family.topics for n in range(PARTITIONS)]
        self.engine.assign({Partition(topic.key, n): topic for topic, n in places}, START_MS)
        self.offset = 0
        self.lines: list[str] = []
        self.seconds = 0.0

    def take(self, chunk: Chunk) -> None:
        for topic in self.family.topics:
            for partition in range(PARTITIONS):
                # A server is always in the same partition, as its key has it.
                records = [one for one in chunk[topic] if int(one.server_id[-3:]) % 4 == partition]
                payloads = [encode_message(one) for one in records]
                offsets = list(range(self.offset, self.offset + len(payloads)))
                now_ms = max(one.ts_ms for one in records)
                begun_s = time.process_time()
                messages = Messages(Partition(topic.key, partition), offsets, payloads)
                self.keep(self.engine.receive(messages, now_ms))
                self.seconds += time.process_time() - begun_s
        self.offset += len(chunk[self.family.topics[0]])

    def keep(self, closed: Closed) -> None:
        assert not closed.refusals
        for windows in closed.windows:
            lines = format_windows(self.family, windows.rows(), 0, TimeFormat.ISO, dt.UTC)
            self.lines += list(lines)[1:]

    def text(self) -> str:
        self.keep(self.engine.finish())
        header = next(iter(format_windows(self.family, [], 0, TimeFormat.ISO, dt.UTC)))
        # Ids of one length and ISO times: as text, lines sort by server and then by start.
        return header + "".join(sorted(self.lines))


@pytest.mark.timeout(3600)
def test_engine_and_spark_write_the_same_bytes_for_a_day(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps({"output_dir": str(tmp_path), "time": {"output": "iso"}}))
    settings = Settings.model_validate({"output_dir": tmp_path, "time": {"output": "iso"}})
    engines = [LiveEngine(family, settings) for family in FAMILIES]
    sent = 0
    with ExitStack() as kept:
        files = {
            topic: kept.enter_context((tmp_path / record_file_name(topic)).open("w"))
            for topic in TOPICS
        }
        for topic, file in files.items():
            file.write(table_header(topic.metrics))
        for chunk in chunks():
            for topic, records in chunk.items():
                files[topic].writelines(map(record_line, records))
                sent += len(records)
            for engine in engines:
                engine.take(chunk)
    say(f"{sent:,} messages of {len(SERVERS)} servers")
    for engine in engines:
        live = engine.text()
        count = len(engine.lines)
        say(f"{engine.family.name}: {count:,} rows, {count_alerts(live):,} alerts")
        say(f"  engine, messages: {engine.seconds:.1f} s of CPU, rows as text included")
        for name in ("embedded", "spark"):
            found, seconds = analyzed(config, engine.family, name, tmp_path)
            say(f"  analyze --engine {name}: {seconds:.1f} s, start included")
            assert first_difference(found, live) is None
    say("equal to the byte: engine on messages, engine on CSV, Spark")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


def count_alerts(text: str) -> int:
    return sum(not line.endswith(",") for line in text.splitlines()[1:])


def analyzed(config: Path, family: Family, engine: str, folder: Path) -> tuple[str, float]:
    """What the batch job of a family writes, and how long it took."""
    out = folder / f"{family.name}-{engine}.csv"
    name = family.name.replace("_", "-")
    begun_s = time.monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "fleetpulse", "analyze", name),
            *("--engine", engine, "--config", str(config), "--out", str(out)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return out.read_text(), time.monotonic() - begun_s


def first_difference(found: str, wanted: str) -> tuple[str, str] | None:
    if found == wanted:
        return None
    pairs = zip([*found.splitlines(), ""], [*wanted.splitlines(), ""], strict=False)
    return next((one, other) for one, other in pairs if one != other)
