"""The loop of spark-stream: batches are delivered, silence is watched, progress is passed on."""

import time
from collections.abc import Callable
from threading import Event
from typing import Final

from pyspark.sql import SparkSession

from fleetpulse.config import Settings
from fleetpulse.domain.closing import ClosedBy
from fleetpulse.domain.errors import FleetpulseError
from fleetpulse.domain.metric import TOPICS
from fleetpulse.domain.quiet import Notice, QuietWatch
from fleetpulse.edges.spark.checkpoint import StreamFolder
from fleetpulse.edges.spark.progress import StreamProgress
from fleetpulse.edges.spark.session import cancelled_by, explained
from fleetpulse.edges.spark.stream import Reading, StreamBatch, WindowStream
from fleetpulse.edges.spark.windows import Meaning
from fleetpulse.roles.delivery import Delivery
from fleetpulse.roles.stream_start import LOG_NAME

_LOOK_S: Final = 0.1
_ALARM_EVERY_S: Final = 60.0


class StreamRun:
    """One run. `batches` and `messages` count what it took in."""

    def __init__(
        self,
        settings: Settings,
        until_idle_s: float | None,
        folder: StreamFolder,
        delivery: Delivery,
        stop: Event,
        report: Callable[[StreamProgress], None],
    ) -> None:
        """Prepare a run that ends with `stop`, or once nothing came for `until_idle_s`."""
        self.batches = 0
        self.messages = 0
        self._settings = settings
        self._until_idle_s = until_idle_s
        self._folder = folder
        self._delivery = delivery
        self._stop = stop
        self._report = report
        self._settled_ms = 0
        # The next notice as it was when the last batch was settled, and the one before that.
        self._notices = (0, 0)
        self._watch = QuietWatch(
            tuple(topic.key for topic in TOPICS),
            settings.window.spec(),
            settings.window.lateness_s * 1000,
            time.monotonic(),
            delivery.ledger.latest_ms(),
        )

    def until_end(self, session: SparkSession, reading: Reading, meaning: Meaning) -> bool:
        """Return whether all was read and closed; False after a stop.

        Raises what `Delivery.deliver` raises, DataChanged, and FleetpulseError where Spark fails or
        a run that was to end by itself has to pause.
        """
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
        if alarm and self._until_idle_s is not None:
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
                if alarm := self._delivery.refusals.alarm(batch):
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
        # What was written before the last but one was settled is in the last batch or before it,
        # and Spark never runs that again.
        self._folder.forget_notices(self._notices[0])
        try:
            self._watch.watermark_ms = max(self._watch.watermark_ms, batch.plan.watermark_ms)
            for topic, count in batch.counts.items():
                if count.latest_ms is not None:
                    self._watch.hear(topic.key, count.latest_ms, asked_s)
            self._delivery.deliver(batch, self._watch.latest_ms)
        except BaseException as err:
            batch.settle(err)
            raise
        self._notices = (self._notices[1], self._delivery.ledger.next_notice)
        batch.settle()
        self.batches += 1
        self.messages += sum(one.messages for one in batch.counts.values())
        self._settled_ms = batch.plan.watermark_ms
        self._notify(self._watch.wait_over(asked_s, self._settings.window.idle_close_s))

    def _is_over(self, now_s: float) -> bool:
        """Return whether the run ends here; closes what is open first."""
        after_s = self._until_idle_s
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

    def _pause(self, alarm: str) -> None:
        """Say the alarm every minute until the stop: a disk must not be filled with rejects."""
        self._delivery.refusals.say(alarm)
        while not self._stop.wait(_ALARM_EVERY_S):
            self._delivery.refusals.say(alarm)
