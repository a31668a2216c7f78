"""The windows of all families from Kafka, as one Structured Streaming query.

Each topic has a stream and a watermark of its own; their union goes through one windowed
aggregation, so the query's watermark is the lowest of the topics' and an uneven drain makes nothing
late. What is no sample or comes from the future is counted and taken out before the watermark.

A batch is handed to whoever calls `next_batch`, and Spark waits until that one has settled it.
"""

import json
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, Final, Self

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as sql

from fleetpulse.domain.errors import DataChanged, FleetpulseError
from fleetpulse.domain.metric import Family, Topic
from fleetpulse.edges.spark.batch import literal_path
from fleetpulse.edges.spark.checkpoint import BatchPlan, StreamFolder
from fleetpulse.edges.spark.messages import TS, MessageForm, with_samples
from fleetpulse.edges.spark.progress import ProgressListener
from fleetpulse.edges.spark.windows import (
    AT,
    SERVER,
    FoundWindow,
    Meaning,
    first_seen,
    found_windows,
    values_of,
    windowed,
)

if TYPE_CHECKING:
    from pyspark.sql.streaming.query import StreamingQuery

_NOTICE_SCHEMA: Final = "topic string, ts_ms bigint"
_PLACE: Final = ("partition", "offset", "value", "timestamp")
_POLL_S: Final = 0.1
# The same in every stream of a process, so that its code is compiled once.
# The permissions of the secured broker name it.
_GROUP: Final = "fleetpulse-spark-stream"
_MARK: Final = secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Reading:
    """Where and how a stream reads.

    `zone` is that of naive times, `max_skew_ms` how far a record may be ahead of the clock.
    `max_offsets` is per topic and trigger, None is no limit. `is_gap_allowed` goes on where Kafka
    lost messages that were not read yet. `kafka_settings` are those of a Kafka client in Java, a
    password among them.
    """

    kafka_settings: Mapping[str, str] = field(repr=False)
    topic_names: Mapping[Topic, str]
    zone: tzinfo = UTC
    lateness_ms: int = 5_000
    max_skew_ms: int = 60_000
    trigger_ms: int = 1_000
    max_offsets: int | None = None
    is_from_beginning: bool = False
    is_gap_allowed: bool = False


@dataclass(frozen=True, slots=True)
class TopicCount:
    """What a batch held of a topic; instants are None without an accepted message."""

    accepted: int
    invalid: int
    future: int
    lowest_ms: int | None
    latest_ms: int | None

    @property
    def messages(self) -> int:
        """Return how many messages that were."""
        return self.accepted + self.invalid + self.future


@dataclass(frozen=True, slots=True)
class RefusedMessage:
    """A message that counts in no window; time and server are None where it is no sample."""

    topic: Topic
    partition: int
    offset: int
    payload: bytes | None
    ts_ms: int | None
    server_id: str | None


@dataclass(slots=True)
class StreamBatch:
    """One batch of a stream, computed and kept by Spark until it is settled."""

    plan: BatchPlan
    counts: Mapping[Topic, TopicCount]
    window_groups: int
    _stream: "WindowStream"
    _frame: DataFrame
    _settled: threading.Event = field(default_factory=threading.Event)
    _failure: BaseException | None = None

    def windows(self) -> Iterator[FoundWindow]:
        """Yield the windows that this batch closes, leading ones too, in no order."""
        if self.window_groups:
            for row in self._frame.toLocalIterator():
                yield from found_windows(row, self._stream.meaning)

    def first_seen(self) -> Iterator[tuple[Family, str, int]]:
        """Yield the earliest sample of each family and server in these windows."""
        return first_seen(self._frame, self._stream.meaning) if self.window_groups else iter(())

    def refused(self) -> Iterator[RefusedMessage]:
        """Yield the messages of this batch that count in no window, by topic, in offset order.

        They are read again from Kafka, and only from topics that have some.
        """
        for topic, count in self.counts.items():
            if self._has_refused(count):
                yield from self._stream.read_refused(topic, self.plan)

    def settle(self, failure: BaseException | None = None) -> None:
        """Let Spark go on, or end the stream with a failure."""
        self._failure = failure
        self._settled.set()

    def is_settled(self, timeout_s: float) -> bool:
        """Wait for `settle`, and return whether it came; raises the failure that it was given."""
        if not self._settled.wait(timeout_s):
            return False
        if self._failure is not None:
            raise self._failure
        return True

    def _has_refused(self, count: TopicCount) -> bool:
        if count.invalid or count.future:
            return True
        if count.lowest_ms is None:
            return False
        spec = self._stream.meaning.windows
        return spec.pane_start(count.lowest_ms) + spec.size_ms <= self.plan.late_ms


class WindowStream:
    """A running query; one at a time in a session. Close it, or use it as a context."""

    def __init__(
        self, session: SparkSession, reading: Reading, meaning: Meaning, folder: StreamFolder
    ) -> None:
        """Start the query, from its checkpoint where there is one.

        Spark's own errors come through, here and below: use all inside `session.explained`.
        """
        self.meaning = meaning
        self.listener = ProgressListener(tuple(reading.topic_names.values()))
        self._session = session
        self._reading = reading
        self._folder = folder
        self._batches: Queue[StreamBatch] = Queue()
        self._is_closed = threading.Event()
        self._started = threading.Event()
        session.streams.addListener(self.listener)
        self._query: StreamingQuery = (
            windowed(self._samples(), meaning)
            .writeStream.foreachBatch(self._run_batch)
            .outputMode("append")
            .option("checkpointLocation", f"file://{folder.query_path.absolute()}")
            .trigger(processingTime=f"{reading.trigger_ms} milliseconds")
            .start()
        )
        self._started.set()

    def next_batch(self, timeout_s: float) -> StreamBatch | None:
        """Return the batch that waits to be settled, None where none comes in time.

        Raises what ended the query.
        """
        try:
            return self._batches.get(timeout=timeout_s)
        except Empty:
            self._check()
            return None

    def is_waiting(self) -> bool:
        """Return whether Spark looked for new messages, found none and has nothing else to do."""
        status = self._query.status
        # Before its first look nothing is available either, but it does not wait yet.
        is_busy = status["isDataAvailable"] or status["isTriggerActive"]
        return not is_busy and status["message"].startswith("Waiting")

    def read_refused(self, topic: Topic, plan: BatchPlan) -> Iterator[RefusedMessage]:
        """Yield the messages of a topic that count in no window of the planned batch."""
        name = self._reading.topic_names[topic]
        ends = plan.ends.get(name, {})
        starts = {number: plan.starts.get(name, {}).get(number, -2) for number in ends}
        raw = (
            self._session.read.format("kafka")
            .options(**self._kafka_options())
            .option("assign", json.dumps({name: [int(number) for number in ends]}))
            .option("startingOffsets", json.dumps({name: starts}))
            .option("endingOffsets", json.dumps({name: ends}))
            .load()
        )
        # Spark moves a filter to below what it hangs on, and would write out the whole reading of a
        # message for each time that the filter names its instant; but never below what it observes.
        samples = with_samples(raw, self._form(topic), _PLACE).observe(
            f"read {topic.key}", sql.count(sql.lit(1))
        )
        spec = self.meaning.windows
        pane = sql.pmod(sql.col(TS) - spec.origin_ms, sql.lit(spec.slide_ms).cast("bigint"))
        is_late = sql.col(TS) - pane + spec.size_ms <= plan.late_ms
        is_future = self._is_future(sql.lit(plan.clock_ms).cast("bigint"))
        refused = samples.where(sql.col(TS).isNull() | is_future | is_late)
        found = refused.select(*_PLACE[:3], TS, sql.when(sql.col(TS).isNotNull(), sql.col(SERVER)))
        for partition, offset, value, ts_ms, server_id in found.toLocalIterator():
            payload = None if value is None else bytes(value)
            yield RefusedMessage(topic, partition, offset, payload, ts_ms, server_id)

    def close(self) -> None:
        """End the query; a batch that is not settled is run again by the next start."""
        self._is_closed.set()
        with suppress(Py4JError, PySparkException, OSError):
            while self._query.isActive:
                self._session.sparkContext.cancelAllJobs()
                self._query.stop()
        with suppress(Py4JError, PySparkException, OSError):
            self._session.streams.removeListener(self.listener)

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the stream."""
        self.close()

    def _check(self) -> None:
        if self._query.isActive:
            return
        if (failure := self._query.exception()) is not None:
            text = str(failure)
            if "failOnDataLoss" in text or "may have been lost" in text:
                raise DataChanged(
                    "Kafka no longer has messages that were not read yet (retention passed, or a "
                    "topic was made anew); to go on without them: --on-gap continue"
                ) from failure
            raise failure
        raise FleetpulseError("Spark failed: the query ended by itself; run this again")

    def _samples(self) -> DataFrame:
        first, *others = (self._topic_samples(topic) for topic in self._reading.topic_names)
        union = first
        for other in others:
            union = union.unionByName(other, allowMissingColumns=True)
        return union

    def _topic_samples(self, topic: Topic) -> DataFrame:
        """Return the accepted samples of a topic, and its notices, under one watermark."""
        reading = self._reading
        options = {
            "subscribe": reading.topic_names[topic],
            "startingOffsets": "earliest" if reading.is_from_beginning else "latest",
            "failOnDataLoss": str(not reading.is_gap_allowed).lower(),
        }
        if reading.max_offsets is not None:
            options["maxOffsetsPerTrigger"] = str(reading.max_offsets)
        raw = (
            self._session.readStream.format("kafka")
            .options(**self._kafka_options(), **options)
            .load()
        )
        now_ms = sql.unix_millis(sql.current_timestamp())
        samples = with_samples(raw, self._form(topic))
        # The clock changes with every batch, and with it the code that Spark generates: it must
        # not get into the long code that reads a message, or each batch would compile that anew.
        is_future = self._is_future(now_ms)
        is_accepted = sql.col(TS).isNotNull() & ~is_future
        accepted_ms = sql.when(is_accepted, sql.col(TS))
        counted = samples.observe(
            topic.key,
            sql.count(accepted_ms).alias("accepted"),
            sql.count_if(sql.col(TS).isNull()).alias("invalid"),
            sql.count_if(is_future).alias("future"),
            sql.min(accepted_ms).alias("lowest_ms"),
            sql.max(accepted_ms).alias("latest_ms"),
        )
        at = sql.timestamp_millis(sql.col(TS)).alias(AT)
        accepted = counted.where(is_accepted).select(
            at, TS, SERVER, *values_of(topic.metrics, self.meaning)
        )
        notices = (
            self._session.readStream.schema(_NOTICE_SCHEMA)
            .json(literal_path(self._folder.notices_path))
            .where(sql.col("topic") == topic.key)
            .select(at, TS)
        )
        # A notice has no server: it moves the watermark, and its group is no window.
        return accepted.unionByName(notices, allowMissingColumns=True).withWatermark(
            AT, f"{reading.lateness_ms} milliseconds"
        )

    def _form(self, topic: Topic) -> MessageForm:
        return MessageForm(topic, _MARK, self._reading.zone)

    def _kafka_options(self) -> dict[str, str]:
        return {
            **{f"kafka.{key}": value for key, value in self._reading.kafka_settings.items()},
            "groupIdPrefix": _GROUP,
            "kafka.isolation.level": "read_committed",
            # Spark asks only for what is there. The client asks for more behind it, and by default
            # the broker lets that, and all that comes after it, wait for half a second.
            "kafka.fetch.max.wait.ms": "10",
        }

    def _is_future(self, now_ms: Column) -> Column:
        return sql.coalesce(sql.col(TS) > now_ms + self._reading.max_skew_ms, sql.lit(False))  # noqa: FBT003

    def _run_batch(self, frame: DataFrame, batch_id: int) -> None:
        """Compute a batch and wait until it is settled; runs in a thread of Spark's."""
        self._started.wait()
        kept = frame.persist()
        try:
            window_groups = kept.count()
            batch = StreamBatch(
                self._folder.plan(batch_id), self._counts(), window_groups, self, kept
            )
            self._batches.put(batch)
            while not batch.is_settled(_POLL_S):
                if self._is_closed.is_set():
                    raise FleetpulseError("the stream was closed")
        finally:
            kept.unpersist()

    def _counts(self) -> dict[Topic, TopicCount]:
        """Return what the batch that runs now has counted so far."""
        # Only the listener gets these numbers by a public way, and only after the batch.
        execution: Any = self._query._jsq.streamingQuery().lastExecution()  # noqa: SLF001
        observed = execution.observedMetrics()
        counts = {}
        for topic in self._reading.topic_names:
            found = observed.get(topic.key)
            values = json.loads(found.get().json()) if found.isDefined() else {}
            counts[topic] = TopicCount(
                values.get("accepted", 0),
                values.get("invalid", 0),
                values.get("future", 0),
                values.get("lowest_ms"),
                values.get("latest_ms"),
            )
        return counts
