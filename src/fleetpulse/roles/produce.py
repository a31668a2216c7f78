"""The producer: one source's samples, split by topic, to Kafka."""

import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import DeliveryFailed, FleetpulseError
from fleetpulse.domain.metric import TOPICS
from fleetpulse.domain.replay import Replay
from fleetpulse.domain.sample import Sample, split
from fleetpulse.edges.kafka.producer import DELIVERY_TIMEOUT_S, RecordProducer
from fleetpulse.roles.access import kafka_access
from fleetpulse.roles.played import (
    PROGRESS_EVERY_S,
    ProduceSummary,
    Progress,
    chosen,
    paced,
    speed_of_source,
)
from fleetpulse.roles.replay import replay_dataset
from fleetpulse.roles.source import Dataset, Feed, Source, open_source

CONNECT_TIMEOUT_S: Final = 30.0


def produce(
    settings: Settings,
    source: Source,
    replay: Replay,
    *,
    stop: Event,
    say: Callable[[str], None],
    progress: Progress,
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
) -> ProduceSummary:
    """Send the samples of a source until it ends, `replay` says so, or `stop` is set.

    A dataset is sent by `replay_dataset`, each row once; only what is no file, such as a pipe, goes
    without its transactions and ends at the first delivery that fails. A live source goes on and
    counts. `progress` is called at most ten times a second, and at the end.
    Raises UsageError (source, settings, topics), ServiceUnreachable (no broker within
    `connect_timeout_s`) and DiskError (rejects).
    """
    if isinstance(source, Dataset) and source.path.is_file():
        return replay_dataset(
            settings,
            source,
            replay,
            stop=stop,
            say=say,
            progress=progress,
            connect_timeout_s=connect_timeout_s,
            delivery_timeout_s=delivery_timeout_s,
        )
    speed = speed_of_source(source, replay)
    topic_names = {topic: settings.topics.name(topic) for topic in TOPICS}
    access = kafka_access(settings, say)
    started_s = time.monotonic()
    sent = 0
    with open_source(settings, source, replay, stop, say) as feed:
        producer = RecordProducer(access, topic_names, delivery_timeout_s)
        if producer.connect(connect_timeout_s, stop):
            say(f"connected to broker {access.bootstrap}")
            try:
                sent = _send(
                    producer, feed, paced(chosen(feed, replay), speed, stop), stop, progress
                )
            finally:
                producer.finish(stop)
            progress(sent, feed.fraction())
    return ProduceSummary(
        messages=producer.delivered(),
        samples=sent,
        rejects=dict(feed.rejects),
        failures=producer.failures(),
        seconds=time.monotonic() - started_s,
        error=_error(producer, feed, access.bootstrap),
    )


def _send(
    producer: RecordProducer,
    feed: Feed,
    samples: Iterator[Sample],
    stop: Event,
    progress: Progress,
) -> int:
    sent = 0
    next_progress_s = 0.0
    for sample in samples:
        for record in split(sample):
            producer.send(record, stop)
        sent += 1
        if time.monotonic() >= next_progress_s:
            producer.serve()
            progress(sent, feed.fraction())
            next_progress_s = time.monotonic() + PROGRESS_EVERY_S
        if stop.is_set() or producer.fatal or (feed.is_finite and producer.failed):
            break
    return sent


def _error(producer: RecordProducer, feed: Feed, bootstrap: str) -> FleetpulseError | None:
    if producer.failed:
        reasons = ", ".join(f"{count} {reason}" for reason, count in producer.failures().items())
        return DeliveryFailed(
            f"broker {bootstrap}: {producer.failed} messages were not delivered ({reasons}); it "
            f"tells its clients to use {producer.advertised}: check that it runs and that this "
            "machine reaches that address, then produce again"
        )
    return None if feed.trouble is None else FleetpulseError(feed.trouble)
