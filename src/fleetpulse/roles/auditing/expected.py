"""What the messages of a topic amount to: read again from Kafka and decoded the long way.

The consumers' shortcut for plain messages is not taken, so that it is checked too. Of each line its
hash is kept, which is the same only within one process.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from fleetpulse.codec.message import decode_message
from fleetpulse.codec.rejects import message_reject_line
from fleetpulse.codec.table import record_line
from fleetpulse.domain.clock import TimeReader
from fleetpulse.domain.errors import ServiceUnreachable
from fleetpulse.domain.metric import Topic
from fleetpulse.domain.position import Partition, Position
from fleetpulse.domain.reject import Reject
from fleetpulse.edges.kafka.consumer import LogConsumer
from fleetpulse.edges.kafka.fetched import Fetched
from fleetpulse.roles.auditing.reconcile import Column, Numbers
from fleetpulse.roles.gap_mark import GapMark

_POLL_S: Final = 0.2
_GATHER_S: Final = 0.05
_SILENCE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Portion:
    """One of `count` parts of all lines, by their hashes; each part is looked at on its own."""

    number: int = 0
    count: int = 1

    def column(self, numbers: Iterable[int], hashes: Iterable[int], size: int) -> Column:
        """Return those of the lines that are in this part."""
        column = Column(np.fromiter(numbers, np.int64, size), np.fromiter(hashes, np.int64, size))
        if self.count == 1:
            return column
        mine = column.hashes % self.count == self.number
        return Column(column.numbers[mine], column.hashes[mine])


@dataclass(slots=True)
class Lines:
    """Lines that are collected piece by piece."""

    _pieces: list[Column] = field(default_factory=list)

    def add(self, piece: Column) -> None:
        """Add lines behind the others."""
        self._pieces.append(piece)

    def column(self) -> Column:
        """Give all of them, and keep none."""
        pieces, self._pieces = self._pieces, []
        return Column(
            _joined([one.numbers for one in pieces]), _joined([one.hashes for one in pieces])
        )


@dataclass(frozen=True, slots=True)
class Stretch:
    """The offsets [start, end) of a partition that can be checked, `start` never beyond `end`.

    `times_of` makes a reader for the clock times from there on; `mark` is the last break of the
    log, before which nothing can be checked.
    """

    position: Position
    start: int
    times_of: Callable[[], TimeReader]
    mark: GapMark | None = None

    @property
    def end(self) -> int:
        """The next offset of the consumer."""
        return self.position.next_offset

    @property
    def gone_offsets(self) -> int:
        """How many offsets were done and cannot be read again."""
        if self.mark is None:
            return self.start
        return self.mark.done_offsets + self.start - self.mark.resume_offset

    def break_bytes(self, file_name: str) -> int:
        """Return how many bytes of a file were there when the log broke."""
        return self.mark.sizes_bytes.get(file_name, 0) if self.mark else 0


@dataclass(slots=True)
class Expected:
    """What a stretch holds: how many rows, the lines of those in the portion, and the rejects."""

    row_count: int = 0
    rows: Lines = field(default_factory=Lines)
    rejects: Lines = field(default_factory=Lines)


def reject_hash(line: bytes | str) -> int:
    """Return the hash of a reject line by all that it says, its wording left out.

    The reason is worded by the version, of Python too, that wrote it. Raises ValueError or
    TypeError for what is no reject line.
    """
    found = json.loads(line)
    if set(found) != {"topic", "partition", "offset", "class", "reason", "excerpt"}:
        raise ValueError("other fields")
    if not isinstance(found.pop("reason"), str):
        raise TypeError("no reason")
    return hash(json.dumps(found))


def expect(
    consumer: LogConsumer,
    topic: Topic,
    stretches: Mapping[Partition, Stretch],
    portion: Portion,
    report: Callable[[int], None],
) -> dict[Partition, Expected]:
    """Read the stretches of one topic; `report` gets how many messages came.

    Raises ServiceUnreachable where the broker stops answering or the logs change meanwhile.
    """
    found = {partition: Expected() for partition in stretches}
    times = {partition: stretch.times_of() for partition, stretch in stretches.items()}
    for fetched in _read(consumer, stretches):
        partition = fetched.partition
        into, end = found[partition], stretches[partition].end
        rows, rejects, count = _decoded(topic, times[partition], end, fetched)
        into.row_count += len(rows)
        into.rows.add(portion.column(rows.keys(), rows.values(), len(rows)))
        into.rejects.add(Portion().column(rejects.keys(), rejects.values(), len(rejects)))
        report(count)
    return found


def _decoded(
    topic: Topic, times: TimeReader, end: int, fetched: Fetched
) -> tuple[dict[int, int], dict[int, int], int]:
    """Return the hashes of rows and of rejects by offset, and how many messages these are."""
    rows, rejects = {}, {}
    place = fetched.partition.topic_name, fetched.partition.number
    for offset, payload in zip(fetched.offsets, fetched.payloads, strict=True):
        if offset >= end:
            break
        record = decode_message(topic, payload, times)
        if isinstance(record, Reject):
            line = message_reject_line(*place, offset, record, payload)
            rejects[offset] = reject_hash(line)
        else:
            rows[offset] = hash(record_line(record)[:-1].encode())
    return rows, rejects, len(rows) + len(rejects)


def _read(consumer: LogConsumer, stretches: Mapping[Partition, Stretch]) -> Iterator[Fetched]:
    """Yield what the stretches hold; the end of the last piece may lie beyond."""
    left = {where: one for where, one in stretches.items() if one.start < one.end}
    consumer.assign(
        Position(where, one.position.topic_id, one.start) for where, one in left.items()
    )
    assigned, heard_s = set(left), time.monotonic()
    while left:
        pieces = consumer.poll(_POLL_S, _GATHER_S)
        if consumer.must_survey:
            raise ServiceUnreachable(
                "the topics changed while they were read (partitions, or retention that went on); "
                "run this again"
            )
        if pieces:
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > _SILENCE_S:
            raise ServiceUnreachable(
                f"broker: nothing came for {_SILENCE_S:.0f} s "
                f"({consumer.outage or f'{next(iter(left))} was not read to its end'}); check it "
                "and run this again"
            )
        for piece in pieces:
            if piece.partition not in left:
                continue
            yield piece
            last = piece.messages[-1].offset() + 1 if piece.messages else 0
            if max(last, piece.end or 0) >= left[piece.partition].end:
                del left[piece.partition]
        # What is done does not take the way of the rest.
        consumer.pause(assigned - set(left) if left else set())


def _joined(pieces: list[Numbers]) -> Numbers:
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)
