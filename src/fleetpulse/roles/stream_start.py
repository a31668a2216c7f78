"""Settings -> what spark-stream starts with: topics, session, what is read and made of it."""

from collections.abc import Callable
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.metric import FAMILIES, TOPICS
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.topics import create_topics, list_topics
from fleetpulse.edges.spark.session import SessionOptions
from fleetpulse.edges.spark.stream import Reading
from fleetpulse.edges.spark.windows import Meaning
from fleetpulse.roles.analyze import SparkOptions
from fleetpulse.roles.setup import CONNECTOR_JARS, ready_jars, ready_java
from fleetpulse.roles.topics import windows_topic

LOG_NAME: Final = "spark-stream.log"


def check(settings: Settings, access: KafkaAccess) -> None:
    """Make the windows topic where it is missing.

    Raises UsageError for settings that a stream cannot follow and where one of the four topics is
    missing, and ServiceUnreachable.
    """
    if settings.window.origin == "first_event":
        raise UsageError(
            "window.origin is first_event, which only a batch job can know; set epoch or a number "
            "of seconds for spark-stream"
        )
    found = {topic.name for topic in list_topics(access)}
    missing = [name for one in TOPICS if (name := settings.topics.name(one)) not in found]
    if missing:
        raise UsageError(
            f"broker {access.bootstrap}: there is no topic {', '.join(missing)}; "
            "make them with: fleetpulse topics create"
        )
    if settings.topics.windows not in found:
        create_topics(access, [windows_topic(settings)])


def session_options(
    settings: Settings, spark: SparkOptions, say: Callable[[str], None]
) -> SessionOptions:
    """Return how to start Spark; fetches Java and the connector where they are missing."""
    java = ready_java(spark.environ)
    jars = ready_jars(CONNECTOR_JARS, spark.environ, java, say)
    conf = {
        "spark.jars": ",".join(map(str, jars)),
        # It runs for long: the full compiler pays, unlike for a batch job.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4",
        "spark.sql.streaming.stopTimeout": "5s",
        # A source without news leaves the plan and moves the numbers of all later steps: with these
        # in their names nearly all code of a batch would be new to the compiler.
        "spark.sql.codegen.useIdInClassName": "false",
    }
    part = settings.stream
    if part.shuffle_partitions is not None:
        conf["spark.sql.shuffle.partitions"] = str(part.shuffle_partitions)
    log_path = settings.output_dir / LOG_NAME
    return SessionOptions(log_path, java.home, spark.master or part.master, conf | dict(spark.conf))


def reading(
    settings: Settings, access: KafkaAccess, *, is_from_beginning: bool, is_gap_allowed: bool
) -> Reading:
    """Return where and how the stream reads."""
    return Reading(
        kafka_settings=access.java_settings(),
        topic_names={topic: settings.topics.name(topic) for topic in TOPICS},
        zone=settings.time.tz,
        lateness_ms=settings.window.lateness_s * 1000,
        max_skew_ms=settings.time.max_skew_s * 1000,
        trigger_ms=round(settings.stream.trigger_s * 1000),
        max_offsets=settings.stream.max_offsets_per_trigger,
        is_from_beginning=is_from_beginning,
        is_gap_allowed=is_gap_allowed,
    )


def meaning(settings: Settings) -> Meaning:
    """Return what its windows are made of."""
    rules = tuple(settings.rule_set(family) for family in FAMILIES)
    return Meaning(settings.window.spec(), rules, settings.arithmetic)
