"""A sample: what a source says of one server at one instant. A record: one topic's part of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fleetpulse.domain.metric import TOPICS, Topic


@dataclass(frozen=True, slots=True)
class Sample:
    """Metrics of one server at `ts_ms` (UTC milliseconds) by metric name; some may be absent."""

    ts_ms: int
    server_id: str
    values: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Record:
    """One topic's part of a sample: `values` follow the order of `topic.metrics`."""

    topic: Topic
    ts_ms: int
    server_id: str
    values: tuple[int | float, ...]


def split(sample: Sample) -> Iterator[Record]:
    """Yield the record of each topic whose metrics are all present, in the order of TOPICS."""
    for topic in TOPICS:
        if all(metric.name in sample.values for metric in topic.metrics):
            values = tuple(sample.values[metric.name] for metric in topic.metrics)
            yield Record(topic, sample.ts_ms, sample.server_id, values)
