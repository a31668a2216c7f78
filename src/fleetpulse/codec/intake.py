"""Messages of partitions -> lines for their topics' files, and reject lines, until drained."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, tzinfo

from fleetpulse.codec.message import decode_message
from fleetpulse.codec.plain import PlainForm
from fleetpulse.codec.rejects import message_reject_line
from fleetpulse.codec.table import record_line
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.metric import Topic
from fleetpulse.domain.position import ClockState, Partition
from fleetpulse.domain.reject import Reject, RejectLimit


@dataclass(frozen=True, slots=True)
class Taken:
    """How many messages were read, and where the partition's clock times stand after them.

    `tripped` says why the rest was left alone: the reject limit was reached.
    """

    count: int
    clock: ClockState | None
    tripped: str | None


@dataclass(frozen=True, slots=True)
class Drained:
    """What the messages became; each is in exactly one of these lines, in its partition's order."""

    rows: Mapping[Topic, Sequence[bytes]]
    reject_lines: Sequence[str]
    rejects: Mapping[str, int]


@dataclass(slots=True)
class Intake:
    """Reads messages of the topics and keeps their lines until they are drained.

    `zone` and `start_date` are those of clock times in a partition that has had none yet.
    """

    topics: Mapping[str, Topic]
    limit: RejectLimit
    zone: tzinfo
    start_date: date
    _readers: dict[Partition, TimeReader] = field(default_factory=dict)
    _forms: dict[Topic, PlainForm] = field(default_factory=dict)
    _rows: dict[Topic, list[bytes]] = field(default_factory=dict)
    _reject_lines: list[str] = field(default_factory=list)
    _rejects: Counter[str] = field(default_factory=Counter)

    @property
    def row_count(self) -> int:
        """How many rows wait."""
        return sum(map(len, self._rows.values()))

    @property
    def reject_count(self) -> int:
        """How many rejects wait."""
        return len(self._reject_lines)

    def read(
        self,
        partition: Partition,
        offsets: Sequence[int],
        payloads: Sequence[bytes | None],
        clock: ClockState | None,
    ) -> Taken:
        """Read messages of one partition, up to the one that trips the limit.

        `clock` is where its clock times stood when it was first read.
        """
        topic = self.topics[partition.topic_name]
        times = self._reader(partition, clock)
        rows = self._rows.setdefault(topic, [])
        form = self._forms.setdefault(topic, PlainForm.of(topic))
        plain_line = form.line
        unnoted = len(rows)
        tripped = None
        count = len(payloads)
        for number, payload in enumerate(payloads):
            if payload is not None and (line := plain_line(payload)) is not None:
                rows.append(line)
                continue
            found = decode_message(topic, payload, times)
            if not isinstance(found, Reject):
                rows.append(record_line(found).encode())
                form.learn(found)
                continue
            self.limit.note_valid(len(rows) - unnoted)
            unnoted = len(rows)
            if tripped := self._take_reject(partition, offsets[number], found, payload):
                count = number + 1
                break
        self.limit.note_valid(len(rows) - unnoted)
        if times.last_clock_ms is not None:
            clock = ClockState(times.start_date, times.last_clock_ms)
        return Taken(count, clock, tripped)

    def drain(self) -> Drained:
        """Return what waits and begin anew."""
        drained = Drained(self._rows, self._reject_lines, self._rejects)
        self._rows, self._reject_lines, self._rejects = {}, [], Counter()
        return drained

    def _reader(self, partition: Partition, clock: ClockState | None) -> TimeReader:
        reader = self._readers.get(partition)
        if reader is None:
            start = clock or ClockState(self.start_date, 0)
            reader = TimeReader(self.zone, start.start_date, clock.last_ms if clock else None)
            self._readers[partition] = reader
        return reader

    def _take_reject(
        self, partition: Partition, offset: int, reject: Reject, payload: bytes | None
    ) -> str | None:
        name, number = partition.topic_name, partition.number
        self._reject_lines.append(message_reject_line(name, number, offset, reject, payload))
        self._rejects[reject.reject_class.value] += 1
        self.limit.note(is_reject=True)
        return self.limit.tripped()
