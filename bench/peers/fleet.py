"""The messages that every contestant reads, and the rows that they must give."""

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from fleetpulse.config import Settings
from fleetpulse.domain.aggregate import Arithmetic, WindowRow, fold
from fleetpulse.domain.metric import FAMILIES, TOPICS, Family
from fleetpulse.domain.sample import Sample, split
from fleetpulse.domain.window import WindowSpec
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.producer import RecordProducer
from fleetpulse.edges.simulator import FleetPlan, simulate_fleet

LATENESS_MS: Final = 5_000
INTERVAL_MS: Final = 5_000
# 2025-10-05T00:00:00Z, on the grid of windows.
START_MS: Final = 1_759_622_400_000
_CONNECT_S: Final = 30.0
# server, window start -> first number, second number (hundredths), alert
Rows = dict[tuple[str, int], tuple[int | None, int | None, str]]


@dataclass(frozen=True, slots=True)
class Fleet:
    """`servers`, each sampled `ticks` times, every five seconds; a row is one sample of one."""

    servers: int
    ticks: int

    @property
    def rows(self) -> int:
        """Return how many samples there are."""
        return self.servers * self.ticks

    @property
    def messages(self) -> int:
        """Return how many messages there are on all topics together."""
        return self.rows * len(TOPICS)

    @property
    def last_ms(self) -> int:
        """Return the instant of the last samples."""
        return START_MS + (self.ticks - 1) * INTERVAL_MS

    def samples(self) -> Iterator[Sample]:
        """Yield the samples by time, then server; always the same ones."""
        rules = tuple(Settings().rule_set(family) for family in FAMILIES)
        plan = FleetPlan(self.servers, INTERVAL_MS, self.ticks * INTERVAL_MS, 1, START_MS, rules)
        return simulate_fleet(plan, lambda _incident: None)


@dataclass(frozen=True, slots=True)
class Expected:
    """The reference's rows of a family; all of them, also those that begin before the first sample.

    A row from before `first_start_ms` is one that our product leaves out and the peers give; one
    that ends after `closed_until_ms` is still open when the input ends.
    """

    rows: Rows
    first_start_ms: int
    closed_until_ms: int


def expected(fleet: Fleet) -> dict[Family, Expected]:
    """Return what the reference interpreter says of the fleet, by family."""
    spec = WindowSpec(is_leading_dropped=False)
    samples = list(fleet.samples())
    return {
        family: Expected(
            {
                (row.server_id, row.start_ms): _cells(row)
                for row in fold(samples, spec, Settings().rule_set(family), Arithmetic.EXACT)
            },
            spec.pane_start(START_MS),
            fleet.last_ms - LATENESS_MS,
        )
        for family in FAMILIES
    }


def topic_names(prefix: str) -> tuple[str, ...]:
    """Return the names of the four topics, in the order of TOPICS."""
    return tuple(f"{prefix}-{topic.key}" for topic in TOPICS)


def make_topics(bootstrap: str, prefix: str, partitions: int) -> None:
    """Create the four topics; they keep messages however old their instants are."""
    _create(bootstrap, topic_names(prefix), partitions)


def make_topic(bootstrap: str, name: str, partitions: int) -> None:
    """Create one topic; it keeps messages however old their instants are."""
    _create(bootstrap, [name], partitions)


def load(bootstrap: str, prefix: str, fleet: Fleet) -> None:
    """Send the fleet's messages and wait until the broker has acknowledged every one."""
    names = dict(zip(TOPICS, topic_names(prefix), strict=True))
    stop = threading.Event()
    producer = RecordProducer(KafkaAccess(bootstrap), names)
    producer.connect(_CONNECT_S, stop)
    for sample in fleet.samples():
        for record in split(sample):
            producer.send(record, stop)
    producer.finish(stop)
    delivered = sum(producer.delivered().values())
    if delivered != fleet.messages:
        raise RuntimeError(f"{delivered} messages were delivered, wanted {fleet.messages}")


def _create(bootstrap: str, names: Iterable[str], partitions: int) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    made = client.create_topics(
        [NewTopic(name, partitions, 1, config={"retention.ms": "-1"}) for name in names]
    )
    for future in made.values():
        future.result()


def _cells(row: WindowRow) -> tuple[int | None, int | None, str]:
    first, second = row.hundredths
    return first, second, row.alert
