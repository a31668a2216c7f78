"""A dataset -> the four topics, each row once, whatever is killed, and however often it is started.

A run is a dataset, a name and the four topics, by their ids: a topic that was made anew is sent
everything again. Its position is committed with its messages, in one transaction.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Final

from fleetpulse.codec.message import encode_message
from fleetpulse.codec.replay_position import ReplayPosition, decode_position, encode_position
from fleetpulse.config import Settings
from fleetpulse.domain.errors import (
    AlreadyRunning,
    DeliveryFailed,
    FleetpulseError,
    ServiceUnreachable,
)
from fleetpulse.domain.metric import TOPICS, Topic
from fleetpulse.domain.replay import Replay, Times
from fleetpulse.domain.sample import Sample, split
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.producer import RecordProducer
from fleetpulse.edges.kafka.replay_log import Outgoing, ReplayLog
from fleetpulse.edges.kafka.survey import TopicSurvey
from fleetpulse.edges.kafka.topics import create_topics
from fleetpulse.roles.access import kafka_access
from fleetpulse.roles.played import (
    PROGRESS_EVERY_S,
    ProduceSummary,
    Progress,
    chosen,
    now_ms,
    paced,
    speed_of_source,
)
from fleetpulse.roles.source import Dataset, Feed, check_dataset, open_source
from fleetpulse.roles.topics import positions_topic

# A commit waits for the broker's disk, some 10 ms: often enough to be seen at once, seldom enough
# to cost little. A killed run sends no more than this again, unseen.
_COMMIT_EVERY_S: Final = 0.5
_MOST_SAMPLES: Final = 5_000
_EDGE_BYTES: Final = 64 * 1024


@dataclass(slots=True)
class _Run:
    """A run under way: what was read and not committed yet, and what was committed."""

    log: ReplayLog
    names: dict[Topic, str]
    position: ReplayPosition
    pending: list[Outgoing]
    pending_samples: int = 0
    sent_samples: int = 0
    committed_s: float = 0.0
    sent: Counter[str] = field(default_factory=Counter)

    def take(self, sample: Sample) -> None:
        """Add a sample; commit where that is due."""
        key = sample.server_id.encode()
        for record in split(sample):
            self.pending.append(
                (self.names[record.topic], key, encode_message(record), record.ts_ms)
            )
        self.pending_samples += 1
        is_due = time.monotonic() - self.committed_s >= _COMMIT_EVERY_S
        if is_due or self.pending_samples >= _MOST_SAMPLES:
            self.commit()

    def commit(self) -> None:
        """Commit what is pending; errors of the edge."""
        if not self.pending_samples:
            return
        reached = self.position.next_sample + self.pending_samples
        self.position = replace(self.position, next_sample=reached)
        self.log.commit(self.pending, encode_position(self.position))
        self.sent.update(topic_name for topic_name, *_ in self.pending)
        self.sent_samples += self.pending_samples
        self.pending, self.pending_samples = [], 0
        self.committed_s = time.monotonic()


def replay_dataset(
    settings: Settings,
    source: Dataset,
    replay: Replay,
    *,
    stop: Event,
    say: Callable[[str], None],
    progress: Progress,
    connect_timeout_s: float,
    delivery_timeout_s: float,
) -> ProduceSummary:
    """Send what a run of a dataset has not sent yet, until its end, `replay`'s, or `stop`.

    The limits of `replay` count from the dataset's beginning. Raises UsageError (source, settings,
    topics), ServiceUnreachable (no broker within `connect_timeout_s`), AlreadyRunning (another
    process sends the same run), DamagedState (a position that nobody of us wrote) and DiskError.
    """
    started_s = time.monotonic()
    speed = speed_of_source(source, replay)
    check_dataset(settings, source.path)
    access = kafka_access(settings, say)
    names = {topic: settings.topics.name(topic) for topic in TOPICS}
    if not RecordProducer(access, names).connect(connect_timeout_s, stop):
        return _nothing(names, started_s)
    say(f"connected to broker {access.bootstrap}")
    dataset_id = _dataset_id(source.path)
    run_id = _run_id(settings, access, names, dataset_id, source.run, connect_timeout_s)
    notes = settings.topics.positions
    with closing(ReplayLog(access, notes, run_id, stop, say, delivery_timeout_s)) as log:
        position = _first_position(settings, log, dataset_id, source.run, replay)
        if position.next_sample:
            say(
                f"run {source.run}: {position.next_sample:,} samples of this dataset are in the "
                "topics, going on behind them (--run NAME sends all of it again)"
            )
        run = _Run(log, names, position, [], committed_s=time.monotonic())
        # What was read by another date would be other samples.
        time_part = settings.time.model_copy(update={"date": position.date})
        dated = settings.model_copy(update={"time": time_part})
        with open_source(dated, source, replay, stop, say) as feed:
            error = _send(run, feed, replay, speed, stop, progress)
    return ProduceSummary(
        messages={name: run.sent[name] for name in names.values()},
        samples=run.sent_samples,
        rejects=dict(feed.rejects),
        failures={"not committed": len(run.pending)} if run.pending else {},
        seconds=time.monotonic() - started_s,
        error=error,
    )


def _send(
    run: _Run, feed: Feed, replay: Replay, speed: float, stop: Event, progress: Progress
) -> FleetpulseError | None:
    """Send what is left of the feed; return what ended it badly."""
    left = islice(chosen(feed, replay, run.position.start_ms), run.position.next_sample, None)
    next_progress_s = 0.0
    try:
        for sample in paced(left, speed, stop, run.commit):
            run.take(sample)
            if time.monotonic() >= next_progress_s:
                progress(run.sent_samples + run.pending_samples, feed.fraction())
                next_progress_s = time.monotonic() + PROGRESS_EVERY_S
            if stop.is_set():
                break
        run.commit()
    except (DeliveryFailed, ServiceUnreachable, AlreadyRunning) as err:
        return err
    progress(run.sent_samples, feed.fraction())
    return None if feed.trouble is None else FleetpulseError(feed.trouble)


def _first_position(
    settings: Settings, log: ReplayLog, dataset_id: str, run: str, replay: Replay
) -> ReplayPosition:
    if log.note is not None:
        return decode_position(log.note, f"topic {settings.topics.positions}, run {run}")
    date = settings.time.start_date(datetime.now(settings.time.tz).date())
    start_ms = now_ms() if replay.times is Times.NOW else None
    return ReplayPosition(dataset_id, run, 0, date, start_ms)


def _dataset_id(path: Path) -> str:
    """Return the SHA-256 of a file's size, beginning and end, in hexadecimal digits.

    Reading all of a large file would take longer than finding the place to go on.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_EDGE_BYTES))
        file.seek(max(0, size - _EDGE_BYTES))
        digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()


def _run_id(
    settings: Settings,
    access: KafkaAccess,
    names: dict[Topic, str],
    dataset_id: str,
    run: str,
    timeout_s: float,
) -> str:
    """Return what no other run has: dataset, name and topics; makes the topic of positions."""
    create_topics(access, [positions_topic(settings)], timeout_s)
    survey = TopicSurvey(access, "fleetpulse-producer", list(names.values()))
    ids = sorted({str(topic_id) for topic_id in survey.partitions(timeout_s).values()})
    return hashlib.sha256("\0".join([dataset_id, run, *ids]).encode()).hexdigest()[:32]


def _nothing(names: dict[Topic, str], started_s: float) -> ProduceSummary:
    return ProduceSummary(
        messages=dict.fromkeys(names.values(), 0),
        samples=0,
        rejects={},
        failures={},
        seconds=time.monotonic() - started_s,
        error=None,
    )
