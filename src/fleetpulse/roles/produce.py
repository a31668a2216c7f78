"""The producer: one source's samples, split by topic, to Kafka."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from threading import Event
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import DeliveryFailed, FleetpulseError, UsageError
from fleetpulse.domain.metric import TOPICS
from fleetpulse.domain.reject import RejectClass
from fleetpulse.domain.replay import MAX_SPEED, Pace, Replay, Times, starting_at, within
from fleetpulse.domain.sample import Sample, split
from fleetpulse.edges.kafka.producer import DELIVERY_TIMEOUT_S, RecordProducer
from fleetpulse.roles.access import kafka_access
from fleetpulse.roles.source import Feed, Live, Source, default_speed, open_source

CONNECT_TIMEOUT_S: Final = 30.0
_PROGRESS_EVERY_S: Final = 0.1

# Samples sent so far, and how much of the source was read (0 to 1, None when nobody can know).
Progress = Callable[[int, float | None], None]


@dataclass(frozen=True, slots=True)
class ProduceSummary:
    """What a run did.

    `messages` are the acknowledged ones by topic name, `failures` the others by reason; `rejects`
    counts rows and cells by class. `error` is what ended the run badly or left it incomplete: print
    the summary, then raise it.
    """

    messages: Mapping[str, int]
    samples: int
    rejects: Mapping[RejectClass, int]
    failures: Mapping[str, int]
    seconds: float
    error: FleetpulseError | None


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

    A dataset ends at the first delivery that fails, because its rows must not be skipped; a live
    source goes on and counts. `progress` is called at most ten times a second, and at the end.
    Raises UsageError (source, settings, topics), ServiceUnreachable (no broker within
    `connect_timeout_s`) and DiskError (rejects).
    """
    speed = _speed(source, replay)
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
                    producer, feed, _paced(_chosen(feed, replay), speed, stop), stop, progress
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


def _speed(source: Source, replay: Replay) -> float:
    if not isinstance(source, Live):
        return default_speed(source, replay.times) if replay.speed is None else replay.speed
    if replay.speed not in (None, 1):
        raise UsageError("--speed: a live source has the speed of time, wanted 1x or none")
    return MAX_SPEED  # it waits for each second by itself


def _chosen(feed: Feed, replay: Replay) -> Iterator[Sample]:
    samples = feed.samples
    if replay.duration_s is not None:
        samples = within(samples, round(replay.duration_s * 1000), is_ordered=not feed.is_finite)
    if replay.times is Times.NOW:
        samples = starting_at(samples, time.time_ns() // 1_000_000)
    return samples if replay.limit is None else islice(samples, replay.limit)


def _paced(samples: Iterator[Sample], speed: float, stop: Event) -> Iterator[Sample]:
    if speed == MAX_SPEED:
        yield from samples
        return
    pace = None
    started_s = 0.0
    for sample in samples:
        if pace is None:
            pace = Pace(speed, sample.ts_ms)
            started_s = time.monotonic()
        wait_s = started_s + pace.due_s(sample.ts_ms) - time.monotonic()
        if wait_s > 0 and stop.wait(wait_s):
            return
        yield sample


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
            next_progress_s = time.monotonic() + _PROGRESS_EVERY_S
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
