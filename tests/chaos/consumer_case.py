"""A consumer as users run it, and what must be in its files after all that was done to it."""

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date
from itertools import chain, pairwise
from pathlib import Path
from threading import Event, Thread

from confluent_kafka import Producer, TopicCollection, TopicPartition
from injectors import wait_until
from oracle import BAD, Fleet, Sent
from second_client import read_again

from chaos_table import Row
from fleetpulse.codec.message import decode_message
from fleetpulse.codec.rejects import message_reject_line, rejects_file_name
from fleetpulse.codec.table import record_line, table_header
from fleetpulse.config import Settings
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import CPU, CPU_MEM, Topic
from fleetpulse.domain.reject import Reject
from fleetpulse.edges.sink import committed_bytes

TOPICS = CPU_MEM.topics
STATE_FILE = "consumer1.state.db"
REJECTS_FILE = rejects_file_name("consumer1")
END_S = 120.0
# How long nothing may come before a run to the end has reached it.
IDLE = "300ms"
# What comes is bad on purpose, and more of it than a user would bear.
NO_LIMITS = {"max_in_a_row": 10**9, "max_ratio": 1.0}


@dataclass
class ConsumerCase:
    """Topics on a broker, consumer1 on them, and the row of the table that counts what came."""

    fleet: Fleet
    row: Row
    rng: random.Random
    logs: list[Path] = field(default_factory=list)
    # How Python starts our command.
    start: Sequence[str] = ("-m", "fleetpulse")
    _producer: Producer | None = None

    @classmethod
    def on(cls, port: int, folder: Path, row: Row, **parts: object) -> "ConsumerCase":
        given = {"rejects": NO_LIMITS, **parts}
        fleet = Fleet.on(port, folder, row.seed, **given)
        row.produced = row.acknowledged = 0
        return cls(fleet, row, random.Random(row.seed))  # noqa: S311  no secret

    @property
    def output(self) -> Path:
        return self.fleet.settings.output_dir

    def path(self, topic: Topic) -> Path:
        return self.fleet.settings.record_path(topic)

    def create(self) -> None:
        self.fleet.create(*TOPICS)

    def delete(self, topic: Topic) -> None:
        name = self.fleet.name(topic)
        for future in self.fleet.admin.delete_topics([name]).values():
            future.result(END_S)
        wait_until(lambda: not self.fleet.has_topic(name), "it is still there", END_S)

    def delete_records(self, topic: Topic, before_offset: int) -> None:
        """Let retention take what lies before an offset, and see that it is gone."""
        place = TopicPartition(self.fleet.name(topic), 0, before_offset)
        for future in self.fleet.admin.delete_records([place]).values():
            assert future.result(END_S).low_watermark == before_offset

    def topic_ids(self) -> list[str]:
        names = TopicCollection([self.fleet.name(topic) for topic in TOPICS])
        found = self.fleet.admin.describe_topics(names).values()
        return [str(future.result(END_S).topic_id) for future in found]

    def count(self, messages: int) -> None:
        """Count messages that somebody else sent and that were acknowledged."""
        self.row.produced = (self.row.produced or 0) + messages
        self.row.acknowledged = (self.row.acknowledged or 0) + messages

    def reconnect(self) -> None:
        """Let the sender ask anew which topics and partitions there are."""
        self._producer = None

    def renew(self) -> None:
        """Begin to count again: what was sent is not in the topics any more."""
        self.reconnect()
        self.row.produced = self.row.acknowledged = 0

    # What is sent

    def send(self, messages: Iterable[Sent], *, is_awaited: bool = True) -> None:
        """Send each message once and wait for its acknowledgement, through outages of the broker.

        What is sent and what is acknowledged is counted.
        """

        def note(error: object, _: object) -> None:
            assert error is None, error
            self.row.acknowledged = (self.row.acknowledged or 0) + 1

        if self._producer is None:
            # What is sent again after an outage must not be there twice.
            settings = {"bootstrap.servers": self.fleet.bootstrap, "enable.idempotence": True}
            self._producer = Producer({**settings, "linger.ms": 5, "log_level": 0})
        for one in messages:
            name, number = self.fleet.name(one.topic), one.number
            if number is None:
                number = self.rng.randrange(self.fleet.settings.topics.partitions)
            self.row.produced = (self.row.produced or 0) + 1
            # Kafka's timestamp is now: a broker that restarts forgets producers whose last message
            # is a day old, and with them what they sent already.
            self._producer.produce(name, one.value, b"key", number, on_delivery=note)
            self._producer.poll(0)
        if is_awaited:
            self.flush()

    def flush(self) -> None:
        """Wait until all that was sent is acknowledged."""
        assert self._producer is None or self._producer.flush(END_S) == 0

    def send_steps(self, first: int, count: int, *, is_awaited: bool = True) -> None:
        """Send messages of some steps, and after every tenth step a bad one."""
        for step in range(first, first + count):
            bad = [Sent(CPU, self.rng.choice([*BAD, None]))] if step % 10 == 0 else []
            steps = self.fleet.steps(step, 1, TOPICS)
            self.send([*steps, *bad], is_awaited=is_awaited)

    @contextmanager
    def load(self, first: int = 0, every_s: float = 0.02) -> Iterator[None]:
        """Send a step every moment, through whatever happens to the broker."""
        stop, failed = Event(), []

        def run() -> None:
            step = first
            try:
                while not stop.wait(every_s):
                    self.send_steps(step, 1, is_awaited=False)
                    step += 1
                self.flush()
            except BaseException as err:  # noqa: BLE001  shown by the test
                failed.append(err)

        thread = Thread(target=run)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        assert not failed, failed

    # Who consumes

    def command(self, *arguments: str, settings: Settings | None = None) -> list[str]:
        """Return how a user starts consumer1 here."""
        parts = (settings or self.fleet.settings).model_dump(
            mode="json", include={"broker", "topics", "time", "rejects", "output_dir"}
        )
        config = self.fleet.folder / "config.yaml"
        config.write_text(json.dumps(parts))
        return [sys.executable, *self.start, "consumer1", "--config", str(config), *arguments]

    @contextmanager
    def running(
        self,
        *arguments: str,
        around: Sequence[str] = (),
        settings: Settings | None = None,
    ) -> Iterator["subprocess.Popen[bytes]"]:
        """Run it beside the test; what it says is in the last of `logs`. It is gone at the end."""
        log = self.fleet.folder / f"consumer.{len(self.logs)}.log"
        self.logs.append(log)
        command = self.command(*arguments, settings=settings)
        with log.open("wb") as told:
            process = subprocess.Popen(
                [*around, *command],
                stdout=told,
                stderr=told,
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()

    def run(
        self,
        *arguments: str,
        around: Sequence[str] = (),
    ) -> int:
        """Run it until it is caught up, or ends otherwise; return its exit code."""
        whole = ("--until-idle", IDLE, *arguments)
        with self.running(*whole, around=around) as process:
            return process.wait(END_S)

    def said(self, number: int = -1) -> str:
        return self.logs[number].read_text(errors="replace")

    def finish(self, *arguments: str) -> None:
        """Run it until it is caught up, which must go well."""
        code = self.run(*arguments)
        assert code == 0, self.said()

    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in map(self.path, TOPICS) if path.exists())

    def await_growth(self, why: str = "no row was written") -> None:
        before = self.size_bytes()
        wait_until(lambda: self.size_bytes() > before, f"{why}: {self.logs[-1]}", END_S)

    def committed(self) -> int:
        """Return the committed bytes of the tables."""
        return sum(committed_bytes(path) or 0 for path in map(self.path, TOPICS) if path.exists())

    def next_offsets(self) -> dict[str, int]:
        """Return the committed position of each topic's first partition, by the topic's name."""
        with closing(sqlite3.connect(self.output / STATE_FILE)) as state:
            found = state.execute("SELECT topic, next_offset FROM partition WHERE partition = 0")
            return dict(found.fetchall())

    def contents(self) -> dict[str, bytes]:
        """Return the data: state and lock note each start."""
        names = [*(self.path(topic).name for topic in TOPICS), REJECTS_FILE]
        paths = (self.output / name for name in names)
        return {path.name: path.read_bytes() for path in paths if path.is_file()}

    def lines(self) -> int:
        """Return the rows and rejects that are there, committed or not."""
        found = sum(content.count(b"\n") for content in self.contents().values())
        return found - len(TOPICS)

    # What must come of it

    def expected(self, starts: Mapping[str, int]) -> "Expected":
        """Return what the topics amount to; messages below a topic's start do not count."""
        topic_of = {self.fleet.name(topic): topic for topic in TOPICS}
        times = {name: TimeReader(UTC, date(2025, 10, 5)) for name in topic_of}
        found = Expected({self.path(topic).name: {} for topic in TOPICS}, [], Counter())
        for place, value in read_again(self.fleet.bootstrap, *topic_of):
            name, number, offset = place
            if offset < starts.get(name, 0):
                continue
            topic = topic_of[name]
            taken = decode_message(topic, value, times[name])
            if isinstance(taken, Reject):
                found.rejects.append(message_reject_line(*place, taken, value).encode())
                found.classes[taken.reject_class.value] += 1
            else:
                rows = found.tables[self.path(topic).name].setdefault(number, [])
                rows.append(record_line(taken).encode())
        return found

    def check(
        self,
        before: Mapping[str, bytes] | None = None,
        starts: Mapping[str, int] | None = None,
    ) -> None:
        """See that the files hold what the topics hold, byte by byte, and note the numbers.

        `before` is what they held before a gap; `starts` says where reading went on behind it, by
        the topic's name.
        """
        expected = self.expected(starts or {})
        row, is_exact = self.row, True
        for topic in TOPICS:
            path = self.path(topic)
            old = before[path.name] if before else table_header(topic.metrics).encode()
            is_exact &= self._compare(path, old, list(expected.tables[path.name].values()))
        # Rejects of two topics come in the order of their commits.
        path = self.output / REJECTS_FILE
        old = before[path.name] if before else b""
        is_exact &= self._compare(path, old, [[one] for one in expected.rejects])
        row.rows, row.rejects = expected.rows(), dict(expected.classes)
        assert (row.lost, row.duplicated, row.torn) == (0, 0, 0), self.output
        assert is_exact, self.output
        if starts is None:
            # All that was acknowledged is in the topics, and nothing is there twice.
            assert row.rows + expected.classes.total() == row.acknowledged

    def _compare(self, path: Path, old: bytes, new: list[list[bytes]]) -> bool:
        """Compare a file with what it held and lists of lines, each of them in its order."""
        found = path.read_bytes()
        if found == old + b"".join(map(b"".join, new)):
            return True
        lines = found.splitlines(keepends=True)
        wanted = [*old.splitlines(keepends=True), *chain.from_iterable(new)]
        have, want = Counter(lines), Counter(wanted)
        surplus = have - want
        self.row.lost += (want - have).total()
        self.row.duplicated += sum(n for line, n in surplus.items() if line in want)
        self.row.torn += sum(n for line, n in surplus.items() if line not in want)
        places = {line: number for number, line in enumerate(lines)}
        is_ordered = all(
            places[one] < places[other]
            for run in new
            for one, other in pairwise(run)
            if one in places and other in places
        )
        return have == want and is_ordered and found.startswith(old)


@dataclass
class Expected:
    """Rows by table and partition in offset order, the lines of rejects, and their classes."""

    tables: dict[str, dict[int, list[bytes]]]
    rejects: list[bytes]
    classes: Counter[str]

    def rows(self) -> int:
        return sum(len(run) for table in self.tables.values() for run in table.values())


def end_in(process: "subprocess.Popen[bytes]", timeout_s: float) -> tuple[int, float]:
    """Wait for the end of a process; return its exit code and how long that took."""
    start_s = time.monotonic()
    return process.wait(timeout_s), time.monotonic() - start_s
