"""Where a role begins to read: what the sink holds, held against what the broker says."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Final

from fleetpulse.domain.errors import DataChanged, ServiceUnreachable
from fleetpulse.domain.position import (
    Gap,
    LogFacts,
    OnGap,
    Partition,
    Position,
    find_gap,
    first_position,
)
from fleetpulse.edges.kafka.consumer import LogConsumer
from fleetpulse.edges.sink import Batch, Sink
from fleetpulse.roles.gap_mark import GapMark

# The sink counts the offsets that gaps took under this class, beside the classes of rejects.
LOST_OFFSETS: Final = "lost_offsets"
_FIRST_ATTEMPT_S: Final = 2.0
_LONGEST_ATTEMPT_S: Final = 8.0
_WAIT_S: Final = 0.5
# A transaction of ours ends within a second or two.
_HIDDEN_S: Final = 10.0


@dataclass(slots=True)
class Locator:
    """Finds the positions of a role's partitions, as often as the logs may have changed.

    A topic that was never read begins with its messages dated `since_ms` or later: 0 means the
    oldest, None only what comes from now on. It also tells the user of outages, and of transactions
    that do not end.
    """

    consumer: LogConsumer
    sink: Sink
    on_gap: OnGap
    stop: Event
    say: Callable[[str], None]
    since_ms: int | None = 0
    _told_outage: bool = False
    _told_refusal: bool = False
    _told_lag_error: str | None = None
    _hidden: dict[Partition, tuple[int, float]] = field(default_factory=dict)
    _told_hidden: set[Partition] = field(default_factory=set)

    def locate(self, timeout_s: float | None) -> dict[Partition, Position] | None:
        """Commit where to read, begin there, and return it; None where `stop` was set before.

        Waits for broker and topics, `timeout_s` at most (None: without end), then raises
        ServiceUnreachable. Raises DataChanged for a gap where `on_gap` is stop.
        """
        found = self._surveyed(timeout_s)
        if found is None:
            return None
        facts, starts = found
        known = self.sink.positions
        known_topics = {position.topic_name for position in known}
        positions, lost_offsets, notes = {}, 0, {}
        for partition, fact in facts.items():
            is_known_topic = partition.topic_name in known_topics
            position = known.get(partition) or first_position(
                partition,
                fact,
                is_known_topic=is_known_topic,
                start_offset=starts.get(partition, fact.low),
            )
            gap = find_gap(position, fact)
            if gap is not None:
                self._judge(gap)
                lost_offsets += gap.lost_offsets
                notes[GapMark.name(partition)] = self._mark(gap).pack()
                position = Position(
                    partition, fact.topic_id, gap.resume_offset, clock=position.clock
                )
            elif partition not in known:
                self.say(f"{partition}: reading from offset {position.next_offset}")
            positions[partition] = position
        counts = {LOST_OFFSETS: lost_offsets} if lost_offsets else {}
        self.sink.commit(Batch({}, tuple(positions.values()), counts, notes))
        self.consumer.assign(positions.values())
        return positions

    def tell(self) -> None:
        """Say when the broker went and came back, and where a transaction does not end."""
        outage, lag_error = self.consumer.outage, self.consumer.lag_error
        # Where it is gone first and refuses us then, the second line says what there is to do.
        is_news = self.consumer.is_refused and not self._told_refusal
        if outage and (is_news or not self._told_outage):
            self.say(f"broker lost ({outage}): waiting for it, nothing is lost")
        elif self._told_outage and not outage:
            self.say("broker is back: going on")
        self._told_outage = outage is not None
        self._told_refusal = self._told_outage and (is_news or self._told_refusal)
        if lag_error and lag_error != self._told_lag_error:
            self.say(f"Kafka's lag display is behind ({lag_error}); the files are not")
        self._told_lag_error = lag_error
        self._tell_hidden()

    def _surveyed(
        self, timeout_s: float | None
    ) -> tuple[dict[Partition, LogFacts], Mapping[Partition, int]] | None:
        deadline_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        attempt_s = _FIRST_ATTEMPT_S
        told = ""
        while not self.stop.is_set():
            left_s = max(deadline_s - time.monotonic(), _WAIT_S)
            try:
                return self._survey(min(attempt_s, left_s))
            except ServiceUnreachable as err:
                if time.monotonic() >= deadline_s:
                    raise
                if str(err) != told:
                    told = str(err)
                    self.say(f"waiting: {told}")
            self.stop.wait(_WAIT_S)
            attempt_s = min(2 * attempt_s, _LONGEST_ATTEMPT_S)
        return None

    def _survey(
        self, timeout_s: float
    ) -> tuple[dict[Partition, LogFacts], Mapping[Partition, int]]:
        """Return what each log is, and where to begin in it where that is not its oldest."""
        facts = self.consumer.survey(self.sink.positions, timeout_s)
        if self.since_ms is None:
            return facts, {partition: fact.high for partition, fact in facts.items()}
        if self.since_ms:
            new = [partition for partition in facts if partition not in self.sink.positions]
            return facts, self.consumer.offsets_since(new, self.since_ms, timeout_s)
        return facts, {}

    def _tell_hidden(self) -> None:
        now_s = time.monotonic()
        hidden = self.consumer.hidden
        for partition, (offset, _) in tuple(self._hidden.items()):
            if partition not in hidden or hidden[partition].start != offset:
                del self._hidden[partition]
                if partition in self._told_hidden:
                    self._told_hidden.remove(partition)
                    self.say(f"{partition}: the transaction ended: going on")
        for partition, offsets in hidden.items():
            _, since_s = self._hidden.setdefault(partition, (offsets.start, now_s))
            if now_s - since_s >= _HIDDEN_S and partition not in self._told_hidden:
                self._told_hidden.add(partition)
                self.say(
                    f"{partition}: {len(offsets)} offsets from {offsets.start} on cannot be read: "
                    "a producer's transaction is open there and does not end; nothing is lost. "
                    "Start that producer again, or wait until Kafka ends it"
                )

    def _mark(self, gap: Gap) -> GapMark:
        sizes_bytes = {name: file.committed_bytes for name, file in self.sink.files.items()}
        note = self.sink.notes().get(GapMark.name(gap.position.partition))
        before = None if note is None else GapMark.unpack(note, "the state")
        return GapMark.of(gap, sizes_bytes, before)

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
