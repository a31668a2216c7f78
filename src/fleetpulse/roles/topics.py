"""The four topics as the settings want them: made, listed, checked."""

from collections.abc import Callable, Mapping
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.metric import TOPICS
from fleetpulse.edges.kafka.topics import (
    TopicDifference,
    TopicSpec,
    check_topics,
    create_topics,
    list_topics,
)
from fleetpulse.roles.access import kafka_access

_MS_PER_HOUR: Final = 3_600_000
_NO_LIMIT_MS: Final = str(2**63 - 1)


def create(
    settings: Settings, connect_timeout_s: float, say: Callable[[str], None]
) -> Mapping[str, bool]:
    """Make what is missing; return for each topic whether it was made now; errors of the edge."""
    return create_topics(kafka_access(settings, say), wanted(settings), connect_timeout_s)


def found(
    settings: Settings, connect_timeout_s: float, say: Callable[[str], None]
) -> tuple[TopicSpec, ...]:
    """Return all topics of the broker but Kafka's own; errors of the edge."""
    return list_topics(kafka_access(settings, say), connect_timeout_s)


def check(
    settings: Settings, connect_timeout_s: float, say: Callable[[str], None]
) -> tuple[TopicDifference, ...]:
    """Return where the topics are not as wanted, empty when all is well; errors of the edge."""
    return check_topics(kafka_access(settings, say), wanted(settings), connect_timeout_s)


def wanted(settings: Settings) -> tuple[TopicSpec, ...]:
    """Return the four topics of the settings."""
    part = settings.topics
    config = {
        "retention.ms": _retention_ms(settings),
        # A record dated ahead is for its receivers to judge; refused here, it would be lost.
        "message.timestamp.after.max.ms": _NO_LIMIT_MS,
    }
    if part.replication_factor == 1:
        # No other broker has a copy: what is acknowledged must be on this one's disk.
        config["flush.messages"] = "1"
    return tuple(
        TopicSpec(part.name(topic), part.partitions, part.replication_factor, config)
        for topic in TOPICS
    )


def windows_topic(settings: Settings) -> TopicSpec:
    """Return the topic of the window rows; a live role makes it where it is missing."""
    part = settings.topics
    config = {"retention.ms": _retention_ms(settings)}
    return TopicSpec(part.windows, part.partitions, part.replication_factor, config)


def positions_topic(settings: Settings) -> TopicSpec:
    """Return the topic of how far datasets were sent; the producer makes it where it is missing."""
    part = settings.topics
    # The last note of each run is all that matters; notes do not expire.
    config = {"cleanup.policy": "compact"}
    if part.replication_factor == 1:
        config["flush.messages"] = "1"
    return TopicSpec(part.positions, 1, part.replication_factor, config)


def _retention_ms(settings: Settings) -> str:
    # Kafka counts the age of a message from its timestamp, which is event time here: any limit
    # would delete a replayed dataset within minutes, unread. -1 is Kafka's word for no limit.
    hours = settings.topics.retention_h
    return "-1" if hours is None else str(hours * _MS_PER_HOUR)
