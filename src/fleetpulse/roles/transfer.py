"""The consumers' loop: from topics to files, a commit a second, through outages and stops."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from threading import Event
from typing import Final

from fleetpulse.codec.intake import Intake
from fleetpulse.codec.table import record_file_name
from fleetpulse.domain.errors import DataChanged, ServiceUnreachable
from fleetpulse.domain.position import (
    Gap,
    LogFacts,
    Partition,
    Position,
    find_gap,
    first_position,
)
from fleetpulse.edges.kafka.consumer import Fetched, LogConsumer
from fleetpulse.edges.sink import Batch, Lines, Sink

COMMIT_EVERY_S: Final = 1.0
COMMIT_EVERY_ROWS: Final = 50_000
# A reject line may be as long as sixty rows.
COMMIT_EVERY_REJECTS: Final = 1_000
# The sink counts the offsets that gaps took under this class, beside the classes of rejects.
LOST_OFFSETS: Final = "lost_offsets"
_POLL_S: Final = 0.2
_FIRST_ATTEMPT_S: Final = 2.0
_LONGEST_ATTEMPT_S: Final = 8.0
_WAIT_S: Final = 0.5
_END_CHECK_EVERY_S: Final = 1.0


class OnGap(StrEnum):
    """What to do where a topic does not go on where its consumer stopped."""

    STOP = "stop"
    CONTINUE = "continue"


@dataclass(slots=True)
class Transfer:
    """Moves messages from a consumer to a sink; `tripped` says that the reject limit was reached.

    After an error nothing is left half done: what was not committed is read again next time.
    """

    consumer: LogConsumer
    sink: Sink
    intake: Intake
    rejects_file: str
    on_gap: OnGap
    stop: Event
    say: Callable[[str], None]
    tripped: str | None = None
    _positions: dict[Partition, Position] = field(default_factory=dict)
    _told_outage: bool = False
    _told_lag_error: str | None = None

    def locate(self, timeout_s: float | None) -> bool:
        """Find where to read and begin there; False where `stop` was set before.

        Waits for broker and topics, `timeout_s` at most (None: without end), then raises
        ServiceUnreachable. Raises DataChanged for a gap where `on_gap` is stop.
        """
        facts = self._surveyed(timeout_s)
        if facts is None:
            return False
        known = self.sink.positions
        known_topics = {position.topic_name for position in known}
        positions, lost_offsets = [], 0
        for partition, fact in facts.items():
            is_known_topic = partition.topic_name in known_topics
            position = known.get(partition) or first_position(
                partition, fact, is_known_topic=is_known_topic
            )
            gap = find_gap(position, fact)
            if gap is not None:
                self._judge(gap)
                lost_offsets += gap.lost_offsets
                position = Position(
                    partition, fact.topic_id, gap.resume_offset, clock=position.clock
                )
            elif partition not in known:
                self.say(f"{partition}: reading from offset {position.next_offset}")
            positions.append(position)
        counts = {LOST_OFFSETS: lost_offsets} if lost_offsets else {}
        self.sink.commit(Batch(positions=positions, counts=counts))
        self._positions = {position.partition: position for position in positions}
        self.consumer.assign(positions)
        return True

    def run(self, until_idle_s: float | None) -> bool:
        """Read until `stop`, the reject limit, or all was read and nothing came for a while.

        Everything read is committed at the end. Returns True where the end was reached.
        """
        new_s = commit_s = time.monotonic()
        end_check_s = 0.0
        is_caught_up = False
        while not (self.stop.is_set() or self.tripped or is_caught_up):
            self._tell()
            if self.consumer.must_survey:
                self._commit()
                if not self.locate(None):
                    break
            fetched = self.consumer.poll(_POLL_S)
            now_s = time.monotonic()
            for one in fetched:
                new_s = now_s
                self._take(one)
            if self._is_full() or now_s - commit_s >= COMMIT_EVERY_S:
                self._commit()
                commit_s = now_s
            if until_idle_s is not None and now_s - new_s >= until_idle_s and now_s >= end_check_s:
                is_caught_up = self.consumer.is_at_end()
                end_check_s = time.monotonic() + _END_CHECK_EVERY_S
        self._commit()
        return is_caught_up

    def _surveyed(self, timeout_s: float | None) -> dict[Partition, LogFacts] | None:
        deadline_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        attempt_s = _FIRST_ATTEMPT_S
        told = ""
        while not self.stop.is_set():
            left_s = max(deadline_s - time.monotonic(), _WAIT_S)
            try:
                return self.consumer.survey(self.sink.positions, min(attempt_s, left_s))
            except ServiceUnreachable as err:
                if time.monotonic() >= deadline_s:
                    raise
                if str(err) != told:
                    told = str(err)
                    self.say(f"waiting: {told}")
            self.stop.wait(_WAIT_S)
            attempt_s = min(2 * attempt_s, _LONGEST_ATTEMPT_S)
        return None

    def _judge(self, gap: Gap) -> None:
        text = (
            f"{gap.position.partition}: {gap.kind}: {gap.lost_offsets} offsets are lost; committed "
            f"up to offset {gap.position.next_offset}, the log goes on at {gap.resume_offset}"
        )
        if self.on_gap is OnGap.STOP:
            raise DataChanged(
                f"{text}; find out why, then start again with --on-gap continue to go on there"
            )
        self.say(f"{text}; going on there")

    def _take(self, fetched: Fetched) -> None:
        # What follows the message that tripped the limit is left for the next start.
        if self.tripped:
            return
        before = self._positions[fetched.partition]
        taken = self.intake.read(fetched.partition, fetched.offsets, fetched.payloads, before.clock)
        after = fetched.position_after(taken.count, before)
        self._positions[fetched.partition] = replace(after, clock=taken.clock)
        self.tripped = taken.tripped

    def _is_full(self) -> bool:
        return (
            self.intake.row_count >= COMMIT_EVERY_ROWS
            or self.intake.reject_count >= COMMIT_EVERY_REJECTS
        )

    def _commit(self) -> None:
        committed = self.sink.positions
        moved = [
            position
            for partition, position in self._positions.items()
            if position != committed[partition]
        ]
        if not moved:
            return
        drained = self.intake.drain()
        lines = {
            record_file_name(topic): Lines(b"".join(rows), len(rows))
            for topic, rows in drained.rows.items()
            if rows
        }
        if drained.reject_lines:
            rejects = drained.reject_lines
            lines[self.rejects_file] = Lines("".join(rejects).encode(), len(rejects))
        self.sink.commit(Batch(lines, moved, drained.rejects))
        self.consumer.show_lag(moved)

    def _tell(self) -> None:
        outage, lag_error = self.consumer.outage, self.consumer.lag_error
        if outage and not self._told_outage:
            self.say(f"broker lost ({outage}): waiting for it, nothing is lost")
        elif self._told_outage and not outage:
            self.say("broker is back: going on")
        self._told_outage = outage is not None
        if lag_error and lag_error != self._told_lag_error:
            self.say(f"Kafka's lag display is behind ({lag_error}); the files are not")
        self._told_lag_error = lag_error
