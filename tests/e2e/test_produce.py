"""The producer role against a real broker; what arrived is read back with a plain consumer."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Timer
from uuid import uuid4

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from fleetpulse.config import Settings
from fleetpulse.config.settings import BrokerPart, Hosts, TimePart, Topics
from fleetpulse.domain.errors import DamagedState, DeliveryFailed, FleetpulseError, UsageError
from fleetpulse.domain.metric import CPU, DISK, MEM, NET, TOPICS, Topic
from fleetpulse.domain.position import Partition
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.replay import MAX_SPEED, Replay, Times
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.survey import TopicSurvey
from fleetpulse.roles import topics
from fleetpulse.roles.broker import start_broker
from fleetpulse.roles.produce import ProduceSummary, produce
from fleetpulse.roles.simulate import Fleet
from fleetpulse.roles.source import REJECTS_FILE, Dataset, Live, Simulated, Source

HEADER = "ts,server_id,cpu_pct,mem_pct,net_in,net_out,disk_io\n"
START_MS = 1_759_697_580_000  # 2025-10-05T20:53:00Z


@dataclass(frozen=True)
class Arrived:
    key: str
    ts_ms: int
    value: dict[str, object]


@dataclass
class Bench:
    """Runs the producer on topics of its own, and reads them."""

    settings: Settings
    stop: Event = field(default_factory=Event)
    said: list[str] = field(default_factory=list)
    progress: list[tuple[int, float | None]] = field(default_factory=list)

    def produce(
        self, source: Source, replay: Replay | None = None, delivery_timeout_s: float = 30.0
    ) -> ProduceSummary:
        return produce(
            self.settings,
            source,
            replay or Replay(),
            stop=self.stop,
            say=self.said.append,
            progress=lambda samples, fraction: self.progress.append((samples, fraction)),
            connect_timeout_s=20,
            delivery_timeout_s=delivery_timeout_s,
        )

    def arrived(self, topic: Topic) -> list[Arrived]:
        name = self.settings.topics.name(topic)
        # Ends are asked for without regard to transactions: the marker that ends one comes later.
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap(),
                "group.id": "test",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        place = Partition(name, 0)
        end = TopicSurvey(KafkaAccess(self.settings.bootstrap()), "test", [name]).highs([place], 10)
        consumer.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
        messages, reached = [], 0
        while reached < end[place]:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is None:
                messages.append(message)
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF  # noqa: SLF001
                reached = message.offset() or 0
        consumer.close()
        return [
            Arrived(
                (message.key() or b"").decode(),
                message.timestamp()[1],
                json.loads(message.value() or b""),
            )
            for message in messages
        ]

    def rejects(self) -> list[dict[str, object]]:
        text = (self.settings.output_dir / REJECTS_FILE).read_text()
        return [json.loads(line) for line in text.splitlines()]


def wait_for(condition: Callable[[], object]) -> None:
    """Try until it holds; a client's errors on the way are part of it."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        with contextlib.suppress(KafkaException, FleetpulseError, AttributeError):
            if condition():
                return
    raise AssertionError("it did not happen within 30 s")


@pytest.fixture
def bench(broker_port: int, tmp_path: Path) -> Bench:
    return bench_on(broker_port, tmp_path)


def bench_on(port: int, folder: Path) -> Bench:
    tag = uuid4().hex[:8]
    settings = Settings(
        hosts=Hosts(broker="127.0.0.1"),
        broker=BrokerPart(port=port),
        topics=Topics(
            **{topic.key: f"{tag}-{topic.key}" for topic in TOPICS}, positions=f"{tag}-positions"
        ),
        time=TimePart(date="2025-10-05"),
        output_dir=folder / "output",
    )
    topics.create(settings, 30, lambda _line: None)
    return Bench(settings)


def dataset(folder: Path, text: str | bytes) -> Dataset:
    path = folder / "dataset.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Dataset(path)


def test_each_row_is_once_in_each_topic_with_key_time_and_json(
    bench: Bench, tmp_path: Path
) -> None:
    rows = "".join(
        f"2025-10-05T20:53:{second:02d}Z,server_{server},{server}.25,{second},61{second}.5,7,9e1\n"
        for second in range(60)
        for server in (1, 2, 3)
    )
    summary = bench.produce(dataset(tmp_path, HEADER + rows))
    assert summary.samples == 180
    assert summary.messages == {bench.settings.topics.name(topic): 180 for topic in TOPICS}
    assert (summary.rejects, summary.failures, summary.error) == ({}, {}, None)
    assert bench.progress[-1] == (180, 1.0)
    for topic in TOPICS:
        arrived = bench.arrived(topic)
        assert [(one.key, one.ts_ms) for one in arrived] == [
            (f"server_{server}", START_MS + 1000 * second)
            for second in range(60)
            for server in (1, 2, 3)
        ]
    stamp = {"ts": "2025-10-05T20:53:02Z", "server_id": "server_3"}
    assert bench.arrived(CPU)[8].value == {**stamp, "cpu_pct": 3.25}
    assert bench.arrived(MEM)[8].value == {**stamp, "mem_pct": 2}
    assert bench.arrived(NET)[8].value == {**stamp, "net_in": 612.5, "net_out": 7}
    assert bench.arrived(DISK)[8].value == {**stamp, "disk_io": 90.0}


@pytest.mark.parametrize("stamp", ["1971-01-01T00:00:00Z", "2099-01-01T00:00:00Z"])
def test_a_row_of_any_date_is_kept_for_its_receivers_to_judge(
    bench: Bench, tmp_path: Path, stamp: str
) -> None:
    summary = bench.produce(dataset(tmp_path, f"{HEADER}{stamp},server_1,1,2,3,4,5\n"))
    assert summary.error is None
    assert [one.value["ts"] for one in bench.arrived(CPU)] == [stamp]


def test_the_other_header_in_another_order_gives_clock_times_over_midnight(
    bench: Bench, tmp_path: Path
) -> None:
    text = (
        "disk_io,note,net_out,net_in,mem_pct,cpu_pct,server_id,timestamp\n"
        "1,x,2,3,4,5,a,23:59:59\n"
        '6,"y, z",7,8,9,10,a,00:00:01\n'
    )
    bench.produce(dataset(tmp_path, text))
    assert [(one.value["ts"], one.value["cpu_pct"]) for one in bench.arrived(CPU)] == [
        ("2025-10-05T23:59:59Z", 5),
        ("2025-10-06T00:00:01Z", 10),
    ]


def test_bad_rows_and_cells_are_rejected_once_and_the_rest_is_sent(
    bench: Bench, tmp_path: Path
) -> None:
    source = dataset(
        tmp_path,
        HEADER.encode()
        + b"2025-10-05T20:53:00Z,a,NaN,2,3,4,5\n"
        + b"2025-10-05T20:53:01Z,a,1,two,3,4,5\n"
        + b"25:00:00,a,1,2,3,4,5\n"
        + b"2025-10-05T20:53:03Z,a b,1,2,3,4,5\n"
        + b"2025-10-05T20:53:04Z,a,101,2,,4,5\n"
        + b"2025-10-05T20:53:05Z,a,1,2,3\n"
        + b"x" * 1_000_000
        + b"\n\xff\xfe\n"
        + b"2025-10-05T20:53:08Z,a,1,2,3,4,5\n",
    )
    summary = bench.produce(source)
    assert summary.rejects == {
        RejectClass.NOT_FINITE: 1,
        RejectClass.WRONG_TYPE: 1,
        RejectClass.BAD_TIME: 1,
        RejectClass.BAD_SERVER_ID: 1,
        RejectClass.OUT_OF_RANGE: 1,
        RejectClass.MISSING_FIELD: 1,
        RejectClass.MALFORMED: 2,
        RejectClass.OVERSIZED: 1,
    }
    assert summary.error is None
    assert [(one["line"], one["class"]) for one in bench.rejects()] == [
        (2, "not_finite"),
        (3, "wrong_type"),
        (4, "bad_time"),
        (5, "bad_server_id"),
        (6, "out_of_range"),
        (6, "missing_field"),
        (7, "malformed"),
        (8, "oversized"),
        (9, "malformed"),
    ]
    assert [one.ts_ms - START_MS for one in bench.arrived(CPU)] == [1000, 8000]
    assert [one.ts_ms - START_MS for one in bench.arrived(MEM)] == [0, 4000, 8000]
    assert [one.ts_ms - START_MS for one in bench.arrived(NET)] == [0, 1000, 8000]
    assert [one.ts_ms - START_MS for one in bench.arrived(DISK)] == [0, 1000, 4000, 8000]


def test_a_file_of_rejects_ends_the_run_before_it_fills_a_disk(
    bench: Bench, tmp_path: Path
) -> None:
    good = "2025-10-05T20:53:00Z,a,1,2,3,4,5\n"
    summary = bench.produce(dataset(tmp_path, HEADER + good + "what is this\n" * 100_000))
    assert isinstance(summary.error, FleetpulseError)
    assert "line 502: 500 rejects in a row" in str(summary.error)
    assert "rejects.max_in_a_row" in str(summary.error)
    assert len(bench.rejects()) == summary.rejects[RejectClass.MALFORMED] == 500
    assert len(bench.arrived(CPU)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("ts,server_id,cpu_pct\n1,a,2\n", "the header lacks mem_pct, net_in, net_out, disk_io"),
        ("ts,timestamp," + HEADER, "twice"),
        ("x" * 1_000_000, "the header is oversized"),
    ],
)
def test_a_file_that_is_no_dataset_is_told_before_anything_is_sent(
    bench: Bench, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        bench.produce(dataset(tmp_path, text))
    assert "dataset.csv" in str(caught.value)
    assert bench.said == []
    assert not (bench.settings.output_dir / REJECTS_FILE).exists()


def test_a_folder_and_a_missing_file_are_usage_errors(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        bench.produce(Dataset(tmp_path))
    with pytest.raises(UsageError, match="no such file"):
        bench.produce(Dataset(tmp_path / "gone.csv"))


def test_a_file_without_permission_is_a_usage_error(bench: Bench, tmp_path: Path) -> None:
    source = dataset(tmp_path, HEADER)
    source.path.chmod(0)
    is_root = os.geteuid() == 0
    bench.settings.output_dir.mkdir(mode=0o777)
    bench.settings.output_dir.chmod(0o777)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    if is_root:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match=r"dataset.csv: no permission to read it"):
            bench.produce(source)
    finally:
        if is_root:
            os.seteuid(0)


def test_a_dataset_of_a_header_alone_sends_nothing_and_is_well(
    bench: Bench, tmp_path: Path
) -> None:
    summary = bench.produce(dataset(tmp_path, HEADER))
    assert (summary.samples, summary.error) == (0, None)
    assert bench.arrived(CPU) == []


def rows_each_second(count: int) -> str:
    return HEADER + "".join(
        f"2025-10-05T20:{53 + second // 60}:{second % 60:02d}Z,a,1,2,3,4,5\n"
        for second in range(count)
    )


def test_now_moves_the_first_sample_to_the_present_and_keeps_the_distances(
    bench: Bench, tmp_path: Path
) -> None:
    before_ms = time.time_ns() // 1_000_000
    source = dataset(tmp_path, rows_each_second(30))
    bench.produce(source, Replay(speed=60, times=Times.NOW))
    instants = [one.ts_ms for one in bench.arrived(CPU)]
    assert before_ms <= instants[0] <= time.time_ns() // 1_000_000
    assert [instant - instants[0] for instant in instants] == [1000 * n for n in range(30)]


def test_limit_counts_samples_and_duration_ends_before_its_end(
    bench: Bench, tmp_path: Path
) -> None:
    source = dataset(tmp_path, rows_each_second(100))
    assert bench.produce(source, Replay(limit=7)).samples == 7
    assert bench.produce(Dataset(source.path, "again"), Replay(duration_s=60)).samples == 60
    assert len(bench.arrived(NET)) == 67


def test_the_limits_of_a_run_count_from_the_beginning_of_the_dataset(
    bench: Bench, tmp_path: Path
) -> None:
    source = dataset(tmp_path, rows_each_second(100))
    assert bench.produce(source, Replay(limit=7)).samples == 7
    assert bench.produce(source, Replay(limit=7)).samples == 0
    assert bench.produce(source, Replay(duration_s=60)).samples == 53
    assert bench.produce(source).samples == 40
    assert [one.ts_ms for one in bench.arrived(NET)] == [START_MS + 1000 * n for n in range(100)]
    assert sum("going on behind them" in line for line in bench.said) == 3


def test_topics_that_were_made_anew_get_the_dataset_again(bench: Bench, tmp_path: Path) -> None:
    source = dataset(tmp_path, rows_each_second(10))
    assert bench.produce(source).samples == 10
    name = bench.settings.topics.name(CPU)
    admin = AdminClient({"bootstrap.servers": bench.settings.bootstrap()})
    admin.delete_topics([name])[name].result(30)
    wait_for(lambda: topics.create(bench.settings, 30, bench.said.append)[name])
    assert bench.produce(source).samples == 10
    assert len(bench.arrived(CPU)) == 10


def test_another_dataset_of_the_same_size_and_header_is_another_run(
    bench: Bench, tmp_path: Path
) -> None:
    text = rows_each_second(10)
    assert bench.produce(dataset(tmp_path, text)).samples == 10
    assert bench.produce(dataset(tmp_path, text.replace("Z,a,", "Z,b,"))).samples == 10


def test_a_run_that_goes_on_keeps_the_instant_that_its_first_sample_was_moved_to(
    bench: Bench, tmp_path: Path
) -> None:
    source = dataset(tmp_path, rows_each_second(30))
    bench.produce(source, Replay(speed=MAX_SPEED, times=Times.NOW, limit=10))
    bench.produce(source, Replay(speed=MAX_SPEED, times=Times.NOW))
    instants = [one.ts_ms for one in bench.arrived(CPU)]
    assert [instant - instants[0] for instant in instants] == [1000 * n for n in range(30)]


def test_a_position_that_nobody_of_us_wrote_is_told_and_nothing_is_sent(
    bench: Bench, tmp_path: Path
) -> None:
    source = dataset(tmp_path, rows_each_second(10))
    assert bench.produce(source, Replay(limit=3)).samples == 3
    positions = Consumer({"bootstrap.servers": bench.settings.bootstrap(), "group.id": "test"})
    place = TopicPartition(bench.settings.topics.positions, 0, OFFSET_BEGINNING)
    positions.assign([place])
    found = []
    wait_for(lambda: found.append(positions.poll(1)) or json.loads(found[-1].value())["run"])
    keys = [one.key() for one in found if one is not None]
    positions.close()
    forger = Producer({"bootstrap.servers": bench.settings.bootstrap()})
    forger.produce(place.topic, b'{"next_sample": -1}', keys[-1])
    assert forger.flush(10) == 0
    with pytest.raises(DamagedState, match="--run NAME"):
        bench.produce(source)
    assert len(bench.arrived(CPU)) == 3


def test_a_paced_dataset_ends_at_once_when_it_is_stopped(bench: Bench, tmp_path: Path) -> None:
    source = dataset(tmp_path, HEADER + "10:00:00,a,1,2,3,4,5\n11:00:00,a,1,2,3,4,5\n")

    def stop_soon(samples: int, _: float | None) -> None:
        if samples == 1 and not timers:
            timers.append(Timer(0.2, bench.stop.set))
            timers[0].start()

    timers: list[Timer] = []

    summary = produce(
        bench.settings,
        source,
        Replay(speed=1),
        stop=bench.stop,
        say=bench.said.append,
        progress=stop_soon,
    )
    timers[0].join()
    assert (summary.samples, summary.error) == (1, None)
    assert len(bench.arrived(DISK)) == 1


def test_this_host_gives_a_sample_a_second(bench: Bench) -> None:
    summary = bench.produce(Live(server_id="me"), Replay(limit=3))
    assert summary.samples == 3
    arrived = bench.arrived(NET)
    assert {one.key for one in arrived} == {"me"}
    assert all(one.ts_ms % 1000 == 0 for one in arrived)
    assert len({one.ts_ms for one in arrived}) == 3
    assert len(bench.arrived(CPU)) == len(bench.arrived(MEM)) == 3


def test_a_live_duration_is_a_number_of_seconds(bench: Bench) -> None:
    assert bench.produce(Live(server_id="me"), Replay(duration_s=2)).samples == 2


def test_a_live_source_has_the_speed_of_time(bench: Bench) -> None:
    with pytest.raises(UsageError, match="--speed"):
        bench.produce(Live(), Replay(speed=60))


def test_a_live_server_id_that_nobody_would_accept_is_a_usage_error(bench: Bench) -> None:
    with pytest.raises(UsageError, match="server_id is 'a b'"):
        bench.produce(Live(server_id="a b"))


def test_a_simulated_fleet_is_sent_and_its_incidents_are_written(
    bench: Bench, tmp_path: Path
) -> None:
    incidents = tmp_path / "incidents.csv"
    fleet = Fleet(servers=5, interval_s=5, seed=3, start_ms=START_MS)
    replay = Replay(speed=float("inf"), duration_s=1800)
    summary = bench.produce(Simulated(fleet, incidents), replay)
    assert summary.samples == len(bench.arrived(CPU)) == 5 * 360
    assert len(incidents.read_text().splitlines()) > 5


def test_the_incidents_of_a_fleet_without_a_file_are_said(bench: Bench) -> None:
    fleet = Fleet(servers=5, interval_s=5, seed=3, start_ms=START_MS)
    bench.produce(Simulated(fleet), Replay(speed=float("inf"), duration_s=1800))
    said = [line for line in bench.said if line.startswith("incident on server_")]
    assert any("Potential DDoS detection from 2025-10-05T2" in line for line in said)


def test_missing_topics_are_told_with_the_next_step(bench: Bench, tmp_path: Path) -> None:
    names = {topic.key: f"never-made-{topic.key}" for topic in TOPICS}
    bench.settings = bench.settings.model_copy(update={"topics": Topics(**names)})
    with pytest.raises(UsageError, match="fleetpulse topics create"):
        bench.produce(dataset(tmp_path, HEADER))


def test_a_broker_that_is_killed_leaves_counted_failures_and_an_error(tmp_path: Path) -> None:
    port = free_port()
    data = tmp_path / "broker"
    settings = Settings(hosts=Hosts(broker="127.0.0.1"), broker=BrokerPart(port=port))
    assert start_broker(settings, data, os.environ, lambda _: None)
    bench = bench_on(port, tmp_path)
    source = dataset(tmp_path, rows_each_second(400))
    pid = broker.status(data).pid
    assert pid is not None

    def kill_after_20(samples: int, _: float | None) -> None:
        if samples > 20 and broker.status(data).pid == pid:
            os.kill(pid, signal.SIGKILL)

    summary = produce(
        bench.settings,
        source,
        Replay(speed=20),
        stop=bench.stop,
        say=bench.said.append,
        progress=kill_after_20,
        delivery_timeout_s=2,
    )
    assert isinstance(summary.error, DeliveryFailed)
    assert summary.error.exit_code == 1
    assert f"127.0.0.1:{port}" in str(summary.error)
    # What is not committed is not visible, whatever the broker had acknowledged of it.
    assert sum(summary.messages.values()) == 4 * summary.samples
    assert summary.failures["not committed"] % 4 == 0
    assert summary.samples < 400
    assert start_broker(settings, data, os.environ, lambda _: None)
    try:
        rest = bench.produce(source)
        assert rest.error is None
        assert summary.samples + rest.samples == 400
        expected = [START_MS + 1000 * n for n in range(400)]
        assert [one.ts_ms for one in bench.arrived(DISK)] == expected
    finally:
        broker.stop(data)
