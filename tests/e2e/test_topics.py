"""Topics on a real broker."""

from dataclasses import replace

import pytest

from fleetpulse.domain.errors import ServiceUnreachable, UsageError
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.address import free_port
from fleetpulse.edges.kafka.topics import (
    TopicDifference,
    TopicSpec,
    check_topics,
    create_topics,
    list_topics,
)

WEEK_MS = "604800000"


@pytest.fixture
def access(broker_port: int) -> KafkaAccess:
    return KafkaAccess(f"127.0.0.1:{broker_port}")


def spec(name: str, partitions: int = 1, **config: str) -> TopicSpec:
    dotted = {key.replace("_", "."): value for key, value in config.items()}
    return TopicSpec(name, partitions, 1, dotted)


def test_topics_are_made_once_and_then_found_as_wanted(access: KafkaAccess) -> None:
    wanted = [spec("made-a", retention_ms=WEEK_MS), spec("made-b", 3, flush_messages="1")]
    assert create_topics(access, wanted) == {"made-a": True, "made-b": True}
    assert check_topics(access, wanted) == ()
    assert create_topics(access, wanted) == {"made-a": False, "made-b": False}
    assert check_topics(access, wanted) == ()


def test_only_the_missing_topic_is_made(access: KafkaAccess) -> None:
    create_topics(access, [spec("there")])
    assert create_topics(access, [spec("there"), spec("not-there")]) == {
        "there": False,
        "not-there": True,
    }


def test_every_difference_is_named_and_nothing_is_changed(access: KafkaAccess) -> None:
    create_topics(access, [spec("differs", retention_ms="1000", flush_messages="1")])
    wanted = replace(
        spec("differs", 2, retention_ms=WEEK_MS, flush_messages="1"), replication_factor=3
    )
    create_topics(access, [wanted])
    assert check_topics(access, [wanted, spec("absent")]) == (
        TopicDifference("differs", "partitions", "1", "2"),
        TopicDifference("differs", "replication_factor", "1", "3"),
        TopicDifference("differs", "retention.ms", "1000", WEEK_MS),
        TopicDifference("absent", "topic", None, "absent"),
    )


def test_the_list_has_shape_and_settings_by_name_but_no_internal_topics(
    access: KafkaAccess,
) -> None:
    create_topics(access, [spec("z-listed", 2, retention_ms="5000"), spec("a-listed")])
    listed = {topic.name: topic for topic in list_topics(access)}
    assert list(listed) == sorted(listed)
    assert not any(name.startswith("__") for name in listed)
    assert (listed["z-listed"].partitions, listed["z-listed"].replication_factor) == (2, 1)
    assert listed["z-listed"].config["retention.ms"] == "5000"


def test_more_replicas_than_brokers_are_refused_with_the_key_to_change(access: KafkaAccess) -> None:
    with pytest.raises(UsageError, match=r"too-many .*replication_factor"):
        create_topics(access, [replace(spec("too-many"), replication_factor=2)])
    assert "too-many" not in {topic.name for topic in list_topics(access)}


def test_an_unknown_setting_is_refused(access: KafkaAccess) -> None:
    with pytest.raises(UsageError, match="odd"):
        create_topics(access, [spec("odd", retention_ms="soon")])


def test_no_broker_is_named_with_what_to_check() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ServiceUnreachable) as caught:
        list_topics(KafkaAccess(address), timeout_s=1)
    for hint in (address, "fleetpulse broker status", "broker.port", "fleetpulse doctor", "VPN"):
        assert hint in str(caught.value)
