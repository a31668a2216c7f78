"""Where a consumer stands in a partition, and whether the partition is still the same log.

The next offset alone cannot tell a log from its successor under the same name; so the topic's id
and a fingerprint of the last record read are kept beside it and compared on every start.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition of a topic, by the topic's name in Kafka."""

    topic_name: str
    number: int

    def __str__(self) -> str:
        """Return `name-number`, as Kafka's own tools print it."""
        return f"{self.topic_name}-{self.number}"


@dataclass(frozen=True, slots=True)
class LastRecord:
    """The last record read: its offset and the CRC-32 of its key, value and timestamp."""

    offset: int
    fingerprint: int


@dataclass(frozen=True, slots=True)
class ClockState:
    """Where the reader of a partition's clock times (HH:MM:SS) stands.

    `start_date` is the date of the first clock time, `last_ms` the latest instant that one gave.
    """

    start_date: date
    last_ms: int


@dataclass(frozen=True, slots=True)
class Position:
    """Every message below `next_offset` is done; that offset is the next one to read.

    `topic_id` is None where the broker has no topic ids, `last` where no record was read yet, and
    `clock` where none had a clock time.
    """

    partition: Partition
    topic_id: str | None
    next_offset: int
    leader_epoch: int | None = None
    last: LastRecord | None = None
    clock: ClockState | None = None


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What the broker says of a partition now: offsets [low, high) exist.

    `fingerprint` is that of the record at a position's last offset, None where there is none or
    nobody looked.
    """

    topic_id: str | None
    low: int
    high: int
    fingerprint: int | None = None


class GapKind(StrEnum):
    """Why a partition cannot go on where its consumer stopped."""

    RECREATED = "topic re-created"
    RETENTION_PASSED = "retention passed the consumer"
    SHRANK = "log lost its end"
    REGREW = "log holds other records"


class OnGap(StrEnum):
    """What a role does where a topic does not go on where it stopped."""

    STOP = "stop"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True)
class Gap:
    """A break in a log: `lost_offsets` can no longer be read, going on starts at `resume_offset`.

    For RECREATED and REGREW the count is of the log that exists now; what its predecessor held
    beyond the position is gone and nobody can count it. For SHRANK the lost offsets are those that
    the consumer read and the broker no longer has.
    """

    kind: GapKind
    position: Position
    lost_offsets: int
    resume_offset: int


def needs_fingerprint(position: Position, facts: LogFacts) -> bool:
    """Tell whether the record at the position's last offset should still be there to compare."""
    return position.last is not None and facts.low <= position.last.offset < facts.high


def find_gap(position: Position, facts: LogFacts) -> Gap | None:
    """Return how the log broke since the position was stored, or None where it just goes on.

    The offsets of transaction markers count as read, so a position may lie on the log's end though
    the last record lies further back.
    """
    ids = (position.topic_id, facts.topic_id)
    if None not in ids and ids[0] != ids[1]:
        return Gap(GapKind.RECREATED, position, facts.low, facts.low)
    if facts.high < position.next_offset:
        return Gap(GapKind.SHRANK, position, position.next_offset - facts.high, facts.high)
    if facts.low > position.next_offset:
        return Gap(GapKind.RETENTION_PASSED, position, facts.low - position.next_offset, facts.low)
    last = position.last
    if last and needs_fingerprint(position, facts) and facts.fingerprint != last.fingerprint:
        return Gap(GapKind.REGREW, position, facts.low, facts.low)
    return None


def first_position(
    partition: Partition, facts: LogFacts, *, is_known_topic: bool, start_offset: int
) -> Position:
    """Return where to begin in a partition without a stored position.

    The first start on a topic begins at `start_offset`. A partition that joins a topic already read
    counts from offset 0, so that what retention took before we saw it is a gap and not silence.
    """
    return Position(partition, facts.topic_id, 0 if is_known_topic else start_offset)
