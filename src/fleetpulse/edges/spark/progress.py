"""What a running query tells of itself after each batch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue
from typing import Any

from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """One batch in numbers.

    `lag` counts the messages that wait in Kafka behind it; `watermark_delay_s` is how far the
    watermark is behind the wall clock, None before there is one. `dropped_rows` are what late
    records brought to windows that were closed already.
    """

    batch_id: int
    messages: int
    lag: int
    watermark_delay_s: float | None
    dropped_rows: int
    state_rows: int
    seconds: float


class ProgressListener(StreamingQueryListener):
    """Keeps the progress of each batch until it is taken."""

    def __init__(self, topic_names: Sequence[str]) -> None:
        """Listen to the sources of these topics."""
        self._topic_names = frozenset(topic_names)
        self._found: SimpleQueue[StreamProgress] = SimpleQueue()

    def take(self) -> list[StreamProgress]:
        """Return what came since the last call, oldest first."""
        return [self._found.get() for _ in range(self._found.qsize())]

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802  Spark's name
        """Do nothing."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802  Spark's name
        """Keep the numbers of a batch."""
        self._found.put(progress_of(json.loads(event.progress.json), self._topic_names))

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802  Spark's name
        """Do nothing."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802  Spark's name
        """Do nothing."""


def progress_of(found: Mapping[str, Any], topic_names: frozenset[str]) -> StreamProgress:
    """Return Spark's own report (its JSON object) as numbers."""
    messages = lag = 0
    for source in found["sources"]:
        ends, latest = source.get("endOffset"), source.get("latestOffset")
        if not isinstance(ends, dict) or not topic_names & ends.keys():
            continue
        messages += source["numInputRows"]
        for topic, offsets in (latest or {}).items():
            lag += sum(
                max(0, offset - ends.get(topic, {}).get(partition, 0))
                for partition, offset in offsets.items()
            )
    operators = found.get("stateOperators", [])
    watermark = found.get("eventTime", {}).get("watermark")
    delay_s = None
    if watermark and not watermark.startswith("1970-01-01T00:00:00"):
        delay_s = _seconds(found["timestamp"]) - _seconds(watermark)
    return StreamProgress(
        found["batchId"],
        messages,
        lag,
        delay_s,
        sum(one.get("numRowsDroppedByWatermark", 0) for one in operators),
        sum(one.get("numRowsTotal", 0) for one in operators),
        found.get("durationMs", {}).get("triggerExecution", 0) / 1000,
    )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
