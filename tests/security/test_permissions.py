"""Each user may do what its role does and nothing else; and each permission is needed."""

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

sys.path.insert(0, str(Path(__file__).parent))

from installation import Installation

from fleetpulse.domain.metric import FAMILIES, TOPICS
from fleetpulse.roles.access import CONSUMERS, MONITOR, PROBE_TOPIC, PRODUCER, USERS

ASKS_S = 10.0
ORDINARY = USERS[1:]
DATA = [topic.key for topic in TOPICS]
READS = {
    PRODUCER: set(),
    MONITOR: set(DATA),
    **{
        user: {topic.key for topic in family.topics}
        for user, family in zip(CONSUMERS, FAMILIES, strict=True)
    },
}
WRITES = {user: set(DATA) if user == PRODUCER else set() for user in ORDINARY}
TOPIC_DENIED = KafkaError.TOPIC_AUTHORIZATION_FAILED
CLUSTER_DENIED = KafkaError.CLUSTER_AUTHORIZATION_FAILED


def ignore(_error: object) -> None:
    pass


def read_error(installation: Installation, user: str, topic: str) -> int | None:
    """Return why a user may not read a topic, None where it read a message or came to its end."""
    settings = {"group.id": f"fleetpulse-{user}", "enable.partition.eof": True}
    client = installation.access(user).client(Consumer, settings, ignore)
    try:
        hidden = client.list_topics(topic, timeout=ASKS_S).topics[topic].error
        client.assign([TopicPartition(topic, 0, 0)])
        while message := client.poll(ASKS_S if hidden is None else 0.2):
            error = message.error()
            if error is None or error.code() < 0:
                assert hidden is None
                return None
            # Who has no group may still try to read.
            if error.code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
                return int(error.code())
    finally:
        client.close()
    assert hidden is not None
    return int(hidden.code())


def write_error(installation: Installation, user: str, topic: str) -> int | None:
    """Return why a user may not write to a topic, None where it wrote a message."""
    found: list[int | None] = []
    settings = {"topic.metadata.propagation.max.ms": 1000}
    client = installation.access(user).client(Producer, settings, ignore)
    client.produce(
        topic,
        b"{}",
        on_delivery=lambda error, _: found.append(None if error is None else error.code()),
    )
    assert client.flush(ASKS_S) == 0
    (code,) = found
    return code


def code_of(answers: Any) -> int | None:  # noqa: ANN401  the library's futures
    """Return why an admin request was refused."""
    (future,) = answers.values()
    try:
        future.result(ASKS_S)
    except KafkaException as err:
        return int(err.args[0].code())
    return None


@pytest.mark.parametrize(("user", "topic"), list(product(ORDINARY, DATA)))
def test_a_user_reads_the_topics_of_its_role_and_no_other(
    installation: Installation, user: str, topic: str
) -> None:
    wanted = None if topic in READS[user] else TOPIC_DENIED
    assert read_error(installation, user, f"topic-{topic}") == wanted


@pytest.mark.parametrize(("user", "topic"), list(product(ORDINARY, DATA)))
def test_a_user_writes_to_the_topics_of_its_role_and_to_no_other(
    installation: Installation, user: str, topic: str
) -> None:
    if topic in WRITES[user]:
        # The roles' own runs show it; a message of this test would be a reject of theirs.
        granted = {(one.user, one.name, one.operation) for one in installation.granted()}
        assert (user, f"topic-{topic}", "WRITE") in granted
    else:
        assert write_error(installation, user, f"topic-{topic}") == TOPIC_DENIED


def new_topic(client: AdminClient, name: str) -> int | None:
    return code_of(client.create_topics([NewTopic(name, 1, 1)]))


def altered(client: AdminClient, resource: ConfigResource.Type, name: str) -> int | None:
    # As it is.
    key = "message.max.bytes" if resource is ConfigResource.Type.BROKER else "max.message.bytes"
    entry = ConfigEntry(key, "1048588", incremental_operation=AlterConfigOpType.SET)
    asked = ConfigResource(resource, name, incremental_configs=[entry])
    return code_of(client.incremental_alter_configs([asked]))


def granted_to(client: AdminClient, user: str) -> int | None:
    binding = AclBinding(
        *(ResourceType.TOPIC, "*", ResourcePatternType.LITERAL, f"User:{user}", "*"),
        *(AclOperation.ALL, AclPermissionType.ALLOW),
    )
    return code_of(client.create_acls([binding]))


def password_set(client: AdminClient) -> int | None:
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192)
    change = UserScramCredentialUpsertion("admin", info, b"known to me", b"salt of 16 bytes")
    return code_of(client.alter_user_scram_credentials([change]))


# What an administrator may do, and how it is refused to others.
DEEDS: dict[str, tuple[Callable[[AdminClient, str], int | None], int]] = {
    "make a topic": (lambda client, _: new_topic(client, "other"), TOPIC_DENIED),
    "delete a topic": (
        lambda client, _: code_of(client.delete_topics(["topic-cpu"])),
        TOPIC_DENIED,
    ),
    "add partitions": (
        lambda client, _: code_of(client.create_partitions([NewPartitions("topic-cpu", 2)])),
        TOPIC_DENIED,
    ),
    "change a topic": (
        lambda client, _: altered(client, ConfigResource.Type.TOPIC, "topic-cpu"),
        TOPIC_DENIED,
    ),
    "change the broker": (
        lambda client, _: altered(client, ConfigResource.Type.BROKER, "1"),
        CLUSTER_DENIED,
    ),
    "grant itself all": (granted_to, CLUSTER_DENIED),
    "set a password": (lambda client, _: password_set(client), CLUSTER_DENIED),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_nobody_but_the_administrator_administers(installation: Installation, deed: str) -> None:
    do, denied = DEEDS[deed]
    for user in ORDINARY:
        client = installation.access(user).client(AdminClient, {}, ignore)
        assert do(client, user) == denied, user
    assert installation.ends()


def test_a_topic_that_is_not_there_is_made_by_nobody_who_asks_for_it(
    installation: Installation,
) -> None:
    client = installation.admin()
    settings = {"allow.auto.create.topics": True, "group.id": "any"}
    reader = installation.access("broker").client(Consumer, settings, ignore)
    reader.list_topics("misspelt", timeout=ASKS_S)
    assert write_error(installation, "broker", "misspelt") == KafkaError.UNKNOWN_TOPIC_OR_PART
    reader.close()
    assert "misspelt" not in client.list_topics(timeout=ASKS_S).topics


def test_each_user_makes_the_topics_that_are_its_own_to_make(installation: Installation) -> None:
    own = {PRODUCER: {"positions"}, MONITOR: {"windows"}}
    topics = installation.settings("broker").topics
    for user in ORDINARY:
        client = installation.access(user).client(AdminClient, {}, ignore)
        wanted = (None, KafkaError.TOPIC_ALREADY_EXISTS)
        assert new_topic(client, PROBE_TOPIC) in wanted
        for part in ("positions", "windows"):
            code = new_topic(client, getattr(topics, part))
            assert (code in wanted) == (part in own.get(user, ())), (user, part, code)
    client = installation.admin()
    for future in client.delete_topics([PROBE_TOPIC, topics.positions, topics.windows]).values():
        future.result(ASKS_S)


def test_without_a_permission_the_work_that_needs_it_is_refused(
    installation: Installation,
) -> None:
    """Each topic permission of a role is taken away in turn."""
    for user, topic in [*product(CONSUMERS, DATA), *((MONITOR, topic) for topic in DATA)]:
        if topic not in READS[user]:
            continue
        name = f"topic-{topic}"
        taken = [
            one
            for one in installation.granted()
            if (one.user, one.name, one.operation) == (user, name, "READ")
        ]
        with installation.without(*taken):
            assert read_error(installation, user, name) == TOPIC_DENIED
