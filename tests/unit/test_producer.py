"""The producer against the broker that the client library can simulate inside this process."""

import json
import socket
from collections.abc import Iterator
from threading import Event, Timer

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from fleetpulse.codec.message import encode_message
from fleetpulse.domain.errors import ServiceUnreachable, UsageError
from fleetpulse.domain.metric import CPU, DISK, MEM, NET, TOPICS, Topic
from fleetpulse.domain.sample import Record
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.producer import RecordProducer

NAMES = {topic: f"topic-{topic.key}" for topic in TOPICS}
START_MS = 1_759_694_400_123


class Broker:
    """A simulated broker on a loopback port; it ends with `close`."""

    def __init__(self) -> None:
        config = {"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 0}
        self._owner: Producer | None = Producer(config)
        (self.node,) = self._owner.list_topics(timeout=10).brokers.values()
        self.bootstrap = f"{self.node.host}:{self.node.port}"

    def create_topics(self) -> None:
        assert self._owner is not None
        for name in NAMES.values():
            self._owner.list_topics(name, timeout=10)

    def messages(self, name: str, count: int) -> list[Message]:
        """Return the first `count` messages of a topic, by partition and offset."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "test"})
        parts = consumer.list_topics(name, timeout=10).topics[name].partitions
        consumer.assign([TopicPartition(name, part, OFFSET_BEGINNING) for part in parts])
        found: list[Message] = []
        while len(found) < count:
            batch = consumer.consume(count, timeout=10)
            assert batch, f"{len(found)} of {count} messages"
            found += batch
        assert not consumer.consume(1, timeout=0.2), f"more than {count} messages"
        consumer.close()
        return found

    def close(self) -> None:
        self._owner = None


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    broker.create_topics()
    yield broker
    broker.close()


def records(count: int, topic: Topic = CPU) -> list[Record]:
    values = (1.5, 2.25)[: len(topic.metrics)]
    return [
        Record(topic, START_MS + 1000 * number, f"server_{number % 7}", values)
        for number in range(count)
    ]


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_a_record_is_a_message_with_key_value_and_event_time(broker: Broker) -> None:
    producer, stop = RecordProducer(KafkaAccess(broker.bootstrap), NAMES), Event()
    assert producer.connect(10, stop)
    for topic in TOPICS:
        producer.send(records(1, topic)[0], stop)
    producer.finish(stop)
    for topic in TOPICS:
        (message,) = broker.messages(NAMES[topic], 1)
        assert message.key() == b"server_0"
        assert message.value() == encode_message(records(1, topic)[0])
        assert message.timestamp()[1] == START_MS
        assert json.loads(message.value() or b"")["ts"] == "2025-10-05T20:00:00.123Z"


def test_each_record_arrives_once_and_is_counted(broker: Broker) -> None:
    producer, stop = RecordProducer(KafkaAccess(broker.bootstrap), NAMES), Event()
    for record in records(3000):
        producer.send(record, stop)
    producer.finish(stop)
    found = {message.timestamp()[1] for message in broker.messages(NAMES[CPU], 3000)}
    assert found == {record.ts_ms for record in records(3000)}
    assert producer.delivered() == {NAMES[CPU]: 3000, NAMES[MEM]: 0, NAMES[NET]: 0, NAMES[DISK]: 0}
    assert producer.failures() == {}


def test_a_full_queue_makes_send_wait_and_skips_nothing(broker: Broker) -> None:
    producer, stop = RecordProducer(KafkaAccess(broker.bootstrap), NAMES, queue_kb=1), Event()
    for record in records(300):
        producer.send(record, stop)
    producer.finish(stop)
    found = {message.timestamp()[1] for message in broker.messages(NAMES[CPU], 300)}
    assert found == {record.ts_ms for record in records(300)}


def test_the_records_of_a_server_stay_in_order(broker: Broker) -> None:
    producer, stop = RecordProducer(KafkaAccess(broker.bootstrap), NAMES), Event()
    for record in records(700):
        producer.send(record, stop)
    producer.finish(stop)
    by_server: dict[bytes, list[int]] = {}
    for message in broker.messages(NAMES[CPU], 700):
        by_server.setdefault(message.key() or b"", []).append(message.timestamp()[1])
    assert len(by_server) == 7
    assert all(instants == sorted(instants) for instants in by_server.values())


def test_no_broker_is_service_unreachable_and_says_what_to_check() -> None:
    port = closed_port()
    producer = RecordProducer(KafkaAccess(f"127.0.0.1:{port}"), NAMES)
    with pytest.raises(ServiceUnreachable) as caught:
        producer.connect(0.5, Event())
    message = str(caught.value)
    for part in (f"127.0.0.1:{port}", "0.5 s", "refused", "broker status", "VPN", "doctor"):
        assert part in message


def test_missing_topics_are_named_with_the_command_that_makes_them() -> None:
    broker = Broker()
    with pytest.raises(UsageError, match=r"no topic topic-cpu, .*fleetpulse topics create"):
        RecordProducer(KafkaAccess(broker.bootstrap), NAMES).connect(1, Event())
    broker.close()


def test_stop_ends_the_wait_for_a_broker() -> None:
    stop = Event()
    timer = Timer(0.2, stop.set)
    timer.start()
    producer = RecordProducer(KafkaAccess(f"127.0.0.1:{closed_port()}"), NAMES)
    assert not producer.connect(600, stop)
    timer.join()


def test_messages_that_a_dead_broker_never_acknowledged_are_failures_by_reason() -> None:
    broker = Broker()
    broker.create_topics()
    producer, stop = (
        RecordProducer(KafkaAccess(broker.bootstrap), NAMES, delivery_timeout_s=1.0),
        Event(),
    )
    assert producer.connect(10, stop)
    broker.close()
    for record in records(5):
        producer.send(record, stop)
    producer.finish(stop)
    assert producer.failures() == {"not acknowledged within 1 s": 5}
    assert producer.failed == 5
    assert producer.delivered()[NAMES[CPU]] == 0


def test_a_stopped_producer_gives_up_on_a_dead_broker_and_counts_what_is_left() -> None:
    producer, stop = (
        RecordProducer(KafkaAccess(f"127.0.0.1:{closed_port()}"), NAMES, queue_kb=1),
        Event(),
    )
    stop.set()
    for record in records(40):
        producer.send(record, stop)
    producer.finish(stop)
    reasons = producer.failures()
    assert set(reasons) == {
        "the run was stopped before it was sent",
        "the run was stopped before it was acknowledged",
    }
    assert sum(reasons.values()) == producer.failed == 40
