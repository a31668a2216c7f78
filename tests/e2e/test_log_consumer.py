"""The consumer's own promises to a live role: what may be unread, and what has to wait."""

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oracle import WAIT_S, Fleet, Sent, awaited

from fleetpulse.domain.metric import CPU, MEM, TOPICS
from fleetpulse.domain.position import Partition, Position
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.consumer import LogConsumer


@pytest.fixture
def fleet(broker_port: int, tmp_path: Path) -> Fleet:
    """A fleet that has sent a message to each topic."""
    found = Fleet.on(broker_port, tmp_path)
    found.create()
    found.send(Sent(topic, b"0") for topic in TOPICS)
    return found


@pytest.fixture
def consumer(fleet: Fleet) -> Iterator[LogConsumer]:
    found = LogConsumer(
        KafkaAccess(fleet.bootstrap), "fleetpulse-test", [fleet.name(one) for one in TOPICS]
    )
    try:
        facts = found.survey({}, WAIT_S)
        found.assign([Position(where, fact.topic_id, 0) for where, fact in facts.items()])
        yield found
    finally:
        found.close()


class Read:
    """Reads until a number of messages came and these partitions alone may hold more."""

    def __init__(self, consumer: LogConsumer) -> None:
        self.consumer = consumer
        self.values: dict[Partition, list[bytes | None]] = defaultdict(list)

    def until(self, count: int, behind: set[Partition]) -> None:
        awaited(lambda: self.has(count) and self.consumer.behind == behind, "it read nothing")

    def has(self, count: int) -> bool:
        for fetched in self.consumer.poll(0.05):
            self.values[fetched.partition] += fetched.payloads
        return sum(map(len, self.values.values())) >= count


def test_what_was_not_read_to_its_end_is_behind(fleet: Fleet, consumer: LogConsumer) -> None:
    partitions = {Partition(fleet.name(topic), 0) for topic in TOPICS}
    assert consumer.behind == partitions
    read = Read(consumer)
    read.until(len(TOPICS), set())
    assert read.values == {where: [b"0"] for where in partitions}
    assert consumer.is_at_end()


def test_a_paused_partition_is_behind_gives_nothing_and_goes_on_where_it_was(
    fleet: Fleet, consumer: LogConsumer
) -> None:
    cpu, mem = (Partition(fleet.name(topic), 0) for topic in (CPU, MEM))
    read = Read(consumer)
    read.until(len(TOPICS), set())
    consumer.pause({cpu})
    assert consumer.behind == {cpu}
    fleet.send([Sent(CPU, b"1"), Sent(MEM, b"1"), Sent(CPU, b"2"), Sent(MEM, b"2")])
    read.until(len(TOPICS) + 2, {cpu})
    assert (read.values[cpu], read.values[mem]) == ([b"0"], [b"0", b"1", b"2"])
    assert not consumer.is_at_end()
    consumer.pause({mem})
    read.until(len(TOPICS) + 4, {mem})
    assert read.values[cpu] == [b"0", b"1", b"2"]
    consumer.pause(set())
    fleet.send([Sent(MEM, b"3")])
    read.until(len(TOPICS) + 5, set())
    assert (read.values[cpu], read.values[mem]) == ([b"0", b"1", b"2"], [b"0", b"1", b"2", b"3"])


def test_offsets_that_the_group_committed_are_never_believed(
    fleet: Fleet, consumer: LogConsumer
) -> None:
    places = [Partition(fleet.name(topic), 0) for topic in TOPICS]
    Read(consumer).until(len(TOPICS), set())
    consumer.show_lag(Position(where, None, 1) for where in places)
    consumer.close()
    again = LogConsumer(
        KafkaAccess(fleet.bootstrap), "fleetpulse-test", [where.topic_name for where in places]
    )
    try:
        again.survey({}, WAIT_S)
        again.assign(Position(where, None, 0) for where in places)
        read = Read(again)
        read.until(len(TOPICS), set())
        assert read.values == {where: [b"0"] for where in places}
    finally:
        again.close()


def test_an_offset_that_the_log_lacks_is_noticed_and_not_replaced(
    fleet: Fleet, consumer: LogConsumer
) -> None:
    consumer.assign([Position(Partition(fleet.name(CPU), 0), None, 1000)])
    assert not consumer.must_survey
    awaited(lambda: consumer.poll(0.05) or consumer.must_survey, "it noticed nothing")
    assert consumer.must_survey


def test_an_assignment_gives_all_of_it_whatever_was_paused_before(
    fleet: Fleet, consumer: LogConsumer
) -> None:
    partitions = {Partition(fleet.name(topic), 0) for topic in TOPICS}
    Read(consumer).until(len(TOPICS), set())
    consumer.pause(partitions)
    consumer.assign(Position(where, None, 0) for where in partitions)
    Read(consumer).until(len(TOPICS), set())
    consumer.pause(partitions)
    facts = consumer.survey({}, WAIT_S)
    consumer.assign(Position(where, fact.topic_id, 0) for where, fact in facts.items())
    Read(consumer).until(len(TOPICS), set())
