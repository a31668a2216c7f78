"""spark-stream: the four topics -> windows in their topic, CSV and Parquet, and the refused ones.

Spark computes a batch and waits until its outputs are made here, one after the other.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from pyspark.sql import SparkSession

from fleetpulse.codec.windows import format_windows
from fleetpulse.config import Settings
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.errors import FleetpulseError, UsageError
from fleetpulse.domain.metric import FAMILIES, TOPICS
from fleetpulse.domain.quiet import Notice, QuietWatch
from fleetpulse.domain.reject import RATIO_WINDOW
from fleetpulse.edges.files import atomic_writer
from fleetpulse.edges.kafka.topics import create_topics, list_topics
from fleetpulse.edges.kafka.window_log import WindowLog
from fleetpulse.edges.sink import FileSpec, open_sink
from fleetpulse.edges.spark.checkpoint import StreamFolder
from fleetpulse.edges.spark.ledger import Ledger
from fleetpulse.edges.spark.parquet import WindowFolder
from fleetpulse.edges.spark.progress import StreamProgress
from fleetpulse.edges.spark.session import SessionOptions, cancelled_by, explained, open_session
from fleetpulse.edges.spark.stream import Reading, StreamBatch, WindowStream
from fleetpulse.edges.spark.windows import Meaning
from fleetpulse.roles.analyze import SparkOptions
from fleetpulse.roles.delivery import REJECTS_FILE, ROLE, Delivery
from fleetpulse.roles.setup import CONNECTOR_JARS, ready_jars, ready_java
from fleetpulse.roles.topics import windows_topic

LOG_NAME: Final = "spark-stream.log"
PARQUET_NAME: Final = "windows.parquet"
_LOOK_S: Final = 0.1
_ALARM_EVERY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What a run does beside its settings.

    It ends once nothing came for `until_idle_s` (None: never). `is_csv` writes the CSV files at the
    end, `is_parquet` a folder a batch. `is_gap_allowed` goes on where Kafka lost messages.
    """

    is_from_beginning: bool = False
    until_idle_s: float | None = None
    is_csv: bool = False
    is_parquet: bool = False
    is_gap_allowed: bool = False


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """What a run did: rows by family, refused messages by class, and files that it wrote.

    `is_caught_up` is True where it ended because all was read and nothing new came.
    """

    windows: Mapping[str, int]
    refused: Mapping[str, int]
    batches: int
    messages: int
    files: tuple[Path, ...]
    is_caught_up: bool
    seconds: float


def stream(
    settings: Settings,
    options: StreamOptions,
    spark: SparkOptions,
    *,
    stop: Event,
    say: Callable[[str], None],
    report: Callable[[StreamProgress], None],
) -> StreamSummary:
    """Run the stream until `stop` is set or nothing comes any more; `report` gets each batch.

    A start goes on where the last one ended. Raises UsageError, ServiceUnreachable, AlreadyRunning,
    DiskError, DamagedState, DataChanged and FleetpulseError where Spark fails.
    """
    if settings.window.origin == "first_event":
        raise UsageError(
            "window.origin is first_event, which only a batch job can know; set epoch or a number "
            "of seconds for spark-stream"
        )
    _check_topics(settings)
    opened = open_session(_session_options(settings, spark, say))
    return stream_in(opened, settings, options, stop=stop, say=say, report=report)


def stream_in(
    opened: AbstractContextManager[SparkSession],
    settings: Settings,
    options: StreamOptions,
    *,
    stop: Event,
    say: Callable[[str], None],
    report: Callable[[StreamProgress], None],
) -> StreamSummary:
    """Do what `stream` does in a session that has the connector, with topics that exist.

    The session is opened once it is sure that no other process runs this stream.
    """
    started_s = time.monotonic()
    with ExitStack() as kept:
        sink = kept.enter_context(open_sink(settings.output_dir, ROLE, [FileSpec(REJECTS_FILE)]))
        folder = StreamFolder(settings.stream_path())
        folder.prepare()
        ledger = kept.enter_context(Ledger(folder.path / "ledger.db"))
        log = WindowLog(settings.bootstrap(), settings.topics.windows, ledger.stream_id)
        kept.callback(log.close)
        session = kept.enter_context(opened)
        say(f"Spark started in {time.monotonic() - started_s:.1f} s")
        parquet = None
        if options.is_parquet:
            parquet = WindowFolder(session, settings.output_dir / PARQUET_NAME)
        delivery = Delivery(settings, ledger, log, sink, parquet, options.is_csv, say)
        run = _Run(settings, options, folder, delivery, stop, report)
        is_caught_up = run.until_end(session)
        files = tuple(_write_csv(settings, ledger)) if options.is_csv else ()
        return StreamSummary(
            dict(delivery.windows),
            dict(delivery.refused),
            run.batches,
            run.messages,
            files,
            is_caught_up,
            time.monotonic() - started_s,
        )


class _Run:
    """The loop of one run: batches are delivered, silence is watched, progress is passed on."""

    def __init__(
        self,
        settings: Settings,
        options: StreamOptions,
        folder: StreamFolder,
        delivery: Delivery,
        stop: Event,
        report: Callable[[StreamProgress], None],
    ) -> None:
        self.batches = 0
        self.messages = 0
        self._settings = settings
        self._options = options
        self._folder = folder
        self._delivery = delivery
        self._stop = stop
        self._report = report
        self._settled_ms = 0
        self._watch = QuietWatch(
            tuple(topic.key for topic in TOPICS),
            settings.window.spec(),
            settings.window.lateness_s * 1000,
            time.monotonic(),
            delivery.ledger.latest_ms(),
        )

    def until_end(self, session: SparkSession) -> bool:
        """Return whether all was read and closed; False after a stop."""
        reading, meaning = _reading(self._settings, self._options), _meaning(self._settings)
        try:
            with (
                explained(self._settings.output_dir / LOG_NAME),
                cancelled_by(self._stop, session),
                WindowStream(session, reading, meaning, self._folder) as running,
            ):
                alarm = self._loop(running)
        except FleetpulseError as err:
            # What a stop cancels fails in Spark, and is no news.
            if self._stop.is_set() and type(err) is FleetpulseError:
                return False
            raise
        if alarm and self._options.until_idle_s is not None:
            raise FleetpulseError(alarm)
        if alarm:
            self._pause(alarm)
        return not self._stop.is_set()

    def _loop(self, running: WindowStream) -> str | None:
        """Go on until the end; return why the run has to pause, None otherwise."""
        while not self._stop.is_set():
            batch = running.next_batch(_LOOK_S)
            for progress in running.listener.take():
                self._report(progress)
            if batch is not None:
                self._take(batch)
                if alarm := self._alarm(batch):
                    return alarm
            elif running.is_waiting():
                now_s = time.monotonic()
                self._notify(self._watch.wait_over(now_s, self._settings.window.idle_close_s))
                if self._is_over(now_s):
                    break
        return None

    def _take(self, batch: StreamBatch) -> None:
        # Silence is measured between the moments at which Spark asked Kafka for what is new; for a
        # batch that is run again that was before this start.
        asked_s = time.monotonic() - max(0.0, time.time() - batch.plan.clock_ms / 1000)
        asked_s = max(asked_s, self._watch.began_s)
        try:
            self._watch.watermark_ms = max(self._watch.watermark_ms, batch.plan.watermark_ms)
            for topic, count in batch.counts.items():
                if count.latest_ms is not None:
                    self._watch.hear(topic.key, count.latest_ms, asked_s)
            self._delivery.deliver(batch, self._watch.latest_ms)
        except BaseException as err:
            batch.settle(err)
            raise
        batch.settle()
        self.batches += 1
        self.messages += sum(one.messages for one in batch.counts.values())
        self._settled_ms = batch.plan.watermark_ms
        self._notify(self._watch.wait_over(asked_s, self._settings.window.idle_close_s))

    def _is_over(self, now_s: float) -> bool:
        """Return whether the run ends here; closes what is open first."""
        after_s = self._options.until_idle_s
        if after_s is None or len(self._watch.silent(now_s, after_s)) < len(TOPICS):
            return False
        self._notify(self._watch.close_all(ClosedBy.END))
        return self._settled_ms >= self._watch.last_end_ms()

    def _notify(self, notice: Notice | None) -> None:
        if notice is None:
            return
        number = self._delivery.ledger.note(notice.closing)
        if notice.closing is not None:
            self._delivery.closings.append(notice.closing)
        self._folder.notify(str(number), notice.instants_ms)

    def _alarm(self, batch: StreamBatch) -> str | None:
        """Return why the run has to pause where too much of a batch is no sample."""
        invalid = sum(one.invalid for one in batch.counts.values())
        messages = sum(one.messages for one in batch.counts.values())
        limit = self._settings.rejects.max_ratio
        if messages < RATIO_WINDOW or invalid <= limit * messages:
            return None
        return (
            f"paused: {invalid:,} of {messages:,} messages of a batch are rejects; see "
            f"{self._settings.output_dir / REJECTS_FILE} for what is wrong and mend its sender, "
            f"then start this again: it goes on behind them (limit: rejects.max_ratio {limit:g})"
        )

    def _pause(self, alarm: str) -> None:
        """Say the alarm every minute until the stop: a disk must not be filled with rejects."""
        self._delivery.say(alarm)
        while not self._stop.wait(_ALARM_EVERY_S):
            self._delivery.say(alarm)


def _check_topics(settings: Settings) -> None:
    """Make the windows topic where it is missing; UsageError where one of the four is."""
    bootstrap = settings.bootstrap()
    found = {topic.name for topic in list_topics(bootstrap)}
    missing = [name for one in TOPICS if (name := settings.topics.name(one)) not in found]
    if missing:
        raise UsageError(
            f"broker {bootstrap}: there is no topic {', '.join(missing)}; "
            "make them with: fleetpulse topics create"
        )
    if settings.topics.windows not in found:
        create_topics(bootstrap, [windows_topic(settings)])


def _session_options(
    settings: Settings, spark: SparkOptions, say: Callable[[str], None]
) -> SessionOptions:
    java = ready_java(spark.environ)
    jars = ready_jars(CONNECTOR_JARS, spark.environ, java, say)
    conf = {
        "spark.jars": ",".join(map(str, jars)),
        # It runs for long: the full compiler pays, unlike for a batch job.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=4",
        "spark.sql.streaming.stopTimeout": "5s",
    }
    part = settings.stream
    if part.shuffle_partitions is not None:
        conf["spark.sql.shuffle.partitions"] = str(part.shuffle_partitions)
    log_path = settings.output_dir / LOG_NAME
    return SessionOptions(log_path, java.home, spark.master or part.master, conf | dict(spark.conf))


def _reading(settings: Settings, options: StreamOptions) -> Reading:
    return Reading(
        bootstrap=settings.bootstrap(),
        topic_names={topic: settings.topics.name(topic) for topic in TOPICS},
        zone=settings.time.tz,
        lateness_ms=settings.window.lateness_s * 1000,
        max_skew_ms=settings.time.max_skew_s * 1000,
        trigger_ms=round(settings.stream.trigger_s * 1000),
        max_offsets=settings.stream.max_offsets_per_trigger,
        is_from_beginning=options.is_from_beginning,
        is_gap_allowed=options.is_gap_allowed,
    )


def _meaning(settings: Settings) -> Meaning:
    rules = tuple(settings.rule_set(family) for family in FAMILIES)
    return Meaning(settings.window.spec(), rules, settings.arithmetic)


def _write_csv(settings: Settings, ledger: Ledger) -> list[Path]:
    paths = []
    for family in FAMILIES:
        path = settings.windows_path(family)
        with atomic_writer(path) as write:
            for line in format_windows(
                family,
                ledger.rows(family),
                ledger.span_ms(family),
                settings.time.output,
                settings.time.tz,
            ):
                write(line)
        paths.append(path)
    return paths
