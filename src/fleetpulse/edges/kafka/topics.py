"""Topics on a broker: made, listed, and compared with what is wanted.

Every call makes its own client, asks within its time limit, and returns plain facts.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from fleetpulse.domain.errors import UsageError
from fleetpulse.edges.kafka.access import ClientErrors, KafkaAccess

TIMEOUT_S: Final = 30.0
_CONNECT_TIMEOUT_S: Final = 10.0
# Kafka's own topics, such as the group offsets.
_INTERNAL_PREFIX: Final = "__"
# The client's own limit comes first; ours is for a client that forgets it.
_SLACK_S: Final = 1.0
_NO_ANSWER: Final = frozenset(
    {
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NOT_CONTROLLER,
        KafkaError._TIMED_OUT,  # noqa: SLF001  the client names its own codes so
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    }
)


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it is wanted, or as it is; `config` holds Kafka's topic settings as text.

    A found topic's config is complete, a wanted one's holds what matters.
    """

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicDifference:
    """Something of a topic that is not as wanted; `found` is None where there is no topic.

    `key` is "topic", "partitions", "replication_factor" or one of Kafka's topic settings.
    """

    name: str
    key: str
    found: str | None
    wanted: str


def create_topics(
    access: KafkaAccess, specs: Sequence[TopicSpec], timeout_s: float = TIMEOUT_S
) -> dict[str, bool]:
    """Make the topics that are missing; return for each whether it was made (False: it existed).

    An existing topic is left as it is: `check_topics` says where it differs. Raises
    ServiceUnreachable, and UsageError where the broker refuses a topic.
    """
    client, errors = _connect(access, timeout_s)
    new_topics = [
        NewTopic(spec.name, spec.partitions, spec.replication_factor, config=dict(spec.config))
        for spec in specs
    ]
    futures = client.create_topics(
        new_topics, operation_timeout=timeout_s, request_timeout=timeout_s
    )
    return {name: _is_created(errors, name, made, timeout_s) for name, made in futures.items()}


def list_topics(access: KafkaAccess, timeout_s: float = TIMEOUT_S) -> tuple[TopicSpec, ...]:
    """Return all topics but Kafka's own, by name; raises ServiceUnreachable."""
    client, errors = _connect(access, timeout_s)
    try:
        topics = client.list_topics(timeout=timeout_s).topics
    except KafkaException as err:
        raise errors.failure(err.args[0].str(), client) from err
    names = sorted(name for name in topics if not name.startswith(_INTERNAL_PREFIX))
    if not names:
        return ()
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    answers = client.describe_configs(resources, request_timeout=timeout_s)
    try:
        configs = {one.name: found.result(timeout_s + _SLACK_S) for one, found in answers.items()}
    except (KafkaException, FutureTimeout) as err:
        raise errors.failure(f"no topic settings ({err})", client) from err
    return tuple(
        TopicSpec(
            name,
            len(topics[name].partitions),
            min((len(one.replicas) for one in topics[name].partitions.values()), default=0),
            {key: str(entry.value) for key, entry in configs[name].items()},
        )
        for name in names
    )


def check_topics(
    access: KafkaAccess, specs: Sequence[TopicSpec], timeout_s: float = TIMEOUT_S
) -> tuple[TopicDifference, ...]:
    """Return what of the topics is not as wanted, in the order of `specs`; empty: all is well.

    Raises ServiceUnreachable.
    """
    found = {topic.name: topic for topic in list_topics(access, timeout_s)}
    return tuple(
        difference for spec in specs for difference in differences(found.get(spec.name), spec)
    )


def differences(found: TopicSpec | None, wanted: TopicSpec) -> list[TopicDifference]:
    """Return where a found topic (None: there is none) is not as wanted."""
    if found is None:
        return [TopicDifference(wanted.name, "topic", None, wanted.name)]
    pairs = [
        ("partitions", str(found.partitions), str(wanted.partitions)),
        ("replication_factor", str(found.replication_factor), str(wanted.replication_factor)),
        *((key, found.config.get(key, ""), value) for key, value in wanted.config.items()),
    ]
    return [TopicDifference(wanted.name, key, is_, want) for key, is_, want in pairs if is_ != want]


def _connect(access: KafkaAccess, timeout_s: float) -> tuple[AdminClient, ClientErrors]:
    connect_timeout_s = min(timeout_s, _CONNECT_TIMEOUT_S)
    errors = ClientErrors(access)
    client = access.client(AdminClient, {"client.id": "fleetpulse-topics"}, errors.note)
    try:
        client.list_topics(timeout=connect_timeout_s)
    except KafkaException as err:
        raise errors.failure(f"no answer within {connect_timeout_s:g} s", client) from err
    return client, errors


def _is_created(errors: ClientErrors, name: str, made: "Future[None]", timeout_s: float) -> bool:
    try:
        made.result(timeout_s + _SLACK_S)
    except FutureTimeout as err:
        raise errors.failure(f"no answer within {timeout_s:g} s") from err
    except KafkaException as err:
        code, reason = err.args[0].code(), err.args[0].str()
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        errors.note(err.args[0])
        if code in _NO_ANSWER or errors.is_denied:
            raise errors.failure(reason) from err
        raise UsageError(
            f"broker {errors.access.bootstrap} refuses to make topic {name} ({reason}); "
            "check partitions and replication_factor under topics, and that you may make topics "
            "there"
        ) from err
    return True
