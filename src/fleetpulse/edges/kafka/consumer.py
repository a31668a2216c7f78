"""Kafka -> messages by partition, from given positions on: no group, no rebalance, no guess.

The positions are the caller's; the offsets committed to Kafka only let its tools show the lag.
Memory is bounded by what the client queues: a poll takes what is there and does not wait for more.
"""

import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from fleetpulse.domain.errors import ServiceUnreachable
from fleetpulse.domain.position import (
    LastRecord,
    LogFacts,
    Partition,
    Position,
    needs_fingerprint,
)
from fleetpulse.edges.kafka.survey import MISSING, TopicSurvey, silent_logger

_END_TIMEOUT_S: Final = 3.0
_MOST_MESSAGES: Final = 10_000
_PROBE_MESSAGES: Final = 10
# The client counts bytes of messages alone, its own part of a small one is several times that. It
# overshoots by what is under way, hence the bound on one answer.
_QUEUE_KB: Final = 8 * 1024
_ANSWER_BYTES: Final = 4 << 20
_PROBE_WAIT_S: Final = 0.2
_END: Final = KafkaError._PARTITION_EOF  # noqa: SLF001  the client names its own codes so
_ALL_DOWN: Final = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
# Reading cannot go on at the next offset: the log must be looked at again.
_BROKEN: Final = MISSING | {
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
}


class _Message(Protocol):
    """A message as the client gives it: place, time and value are never None once consumed."""

    def error(self) -> KafkaError | None: ...
    def topic(self) -> str: ...
    def partition(self) -> int: ...
    def offset(self) -> int: ...
    def leader_epoch(self) -> int | None: ...
    def timestamp(self) -> tuple[int, int]: ...
    def key(self) -> bytes | None: ...
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """Messages of one partition in the order of their offsets; `end` is the log's end, if reached.

    Offsets may have holes: aborted records and transaction markers are not messages.
    """

    partition: Partition
    messages: Sequence[_Message]
    end: int | None

    @property
    def offsets(self) -> list[int]:
        """The offset of each message."""
        return [message.offset() for message in self.messages]

    @property
    def payloads(self) -> list[bytes | None]:
        """The value of each message, None for one without."""
        return [message.value() for message in self.messages]

    def position_after(self, taken: int, before: Position) -> Position:
        """Return the position once the first `taken` messages are done."""
        after = before
        if taken:
            message = self.messages[taken - 1]
            after = replace(
                before,
                # The committed offset is the next one to read, hence + 1.
                next_offset=message.offset() + 1,
                leader_epoch=message.leader_epoch(),
                last=LastRecord(message.offset(), _fingerprint(message)),
            )
        if taken == len(self.messages) and self.end is not None:
            after = replace(after, next_offset=max(after.next_offset, self.end))
        return after


def client_settings(bootstrap: str, group_id: str) -> dict[str, str | int | bool]:
    """Return how the client library is to read."""
    return {
        "bootstrap.servers": bootstrap,
        "client.id": group_id,
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "check.crcs": True,
        "allow.auto.create.topics": False,
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
        "fetch.error.backoff.ms": 200,
        # The default of a second leaves the queue empty most of the time.
        "fetch.queue.backoff.ms": 10,
        "reconnect.backoff.max.ms": 1000,
        "queued.max.messages.kbytes": _QUEUE_KB,
        "fetch.max.bytes": _ANSWER_BYTES,
        "log_level": 0,
    }


class LogConsumer:
    """Reads partitions of some topics on one broker, from positions that it is given.

    `lag_error` is the last failed commit of offsets to Kafka. Not for use by several threads.
    """

    def __init__(self, bootstrap: str, group_id: str, topic_names: Sequence[str]) -> None:
        """Prepare a client; it connects in the background."""
        self.lag_error: str | None = None
        self._survey = TopicSurvey(bootstrap, group_id, topic_names)
        self._is_broken = False
        self._next: dict[Partition, int] = {}
        self._client = Consumer(
            {
                **client_settings(bootstrap, group_id),
                "error_cb": self._on_error,
                "on_commit": self._on_commit,
            },
            logger=silent_logger,
        )

    @property
    def outage(self) -> str | None:
        """Why the broker does not answer, None while it does."""
        return self._survey.outage

    @property
    def must_survey(self) -> bool:
        """Whether the logs may differ from the last survey: survey and assign again."""
        return self._is_broken or self._survey.has_changed

    def survey(
        self, known: Mapping[Partition, Position], timeout_s: float
    ) -> dict[Partition, LogFacts]:
        """Return what the broker says of every partition of the topics.

        `known` are the positions whose last record is looked at; `timeout_s` is for each of the
        questions. Reading stops until the next
        `assign`. Raises ServiceUnreachable, naming what to check, where the broker does not answer
        or a topic is missing.
        """
        self._client.unassign()
        self._next = {}
        topic_ids = self._survey.partitions(timeout_s)
        lows = self._survey.lows(list(topic_ids), timeout_s)
        highs = self._survey.highs(list(topic_ids), timeout_s)
        self._is_broken = False
        facts = {
            partition: LogFacts(topic_id, lows[partition], highs[partition])
            for partition, topic_id in topic_ids.items()
        }
        last_offsets = {
            partition: position.last.offset
            for partition, position in known.items()
            if position.last
            and partition in facts
            and needs_fingerprint(position, facts[partition])
        }
        found = self._fingerprints_at(last_offsets, timeout_s)
        self._client.unassign()
        return {
            partition: replace(seen, fingerprint=found.get(partition))
            for partition, seen in facts.items()
        }

    def assign(self, positions: Iterable[Position]) -> None:
        """Read these partitions, each from its next offset on, and no others."""
        self._next = {position.partition: position.next_offset for position in positions}
        self._client.assign(
            [
                TopicPartition(partition.topic_name, partition.number, offset)
                for partition, offset in self._next.items()
            ]
        )

    def poll(self, timeout_s: float) -> list[Fetched]:
        """Return what arrived, by partition; waits up to `timeout_s` for the first message.

        An empty list means that nothing new came. Offsets below the position are dropped: the
        broker may deliver them again.
        """
        self._survey.watch()
        groups: dict[tuple[str, int], list[_Message]] = {}
        ends: dict[tuple[str, int], int] = {}
        messages = self._consume(1, timeout_s)
        if messages:
            messages += self._consume(_MOST_MESSAGES, 0)
        for message in messages:
            place = (message.topic(), message.partition())
            error = message.error()
            if error is None:
                if place in groups:
                    groups[place].append(message)
                else:
                    groups[place] = [message]
            elif error.code() == _END:
                ends[place] = message.offset()
            elif error.code() in _BROKEN:
                self._is_broken = True
        found = (
            self._fetched(Partition(*place), groups.get(place, []), ends.get(place))
            for place in {**groups, **ends}
        )
        return [fetched for fetched in found if fetched is not None]

    def is_at_end(self) -> bool:
        """Tell whether every partition is read to the end that the broker names now.

        False where it does not answer, or where an open transaction hides the end.
        """
        try:
            highs = self._survey.highs(list(self._next), _END_TIMEOUT_S)
        except ServiceUnreachable:
            return False
        return all(offset >= highs[partition] for partition, offset in self._next.items())

    def show_lag(self, positions: Iterable[Position]) -> None:
        """Commit offsets to Kafka in the background, for its lag display and nothing else."""
        offsets = [
            TopicPartition(where.partition.topic_name, where.partition.number, where.next_offset)
            for where in positions
        ]
        try:
            self._client.commit(offsets=offsets, asynchronous=True)
        except KafkaException as err:
            self.lag_error = str(err.args[0].str())

    def close(self) -> None:
        """Leave the broker."""
        self._client.close()

    def _consume(self, most: int, timeout_s: float) -> list[_Message]:
        return cast("list[_Message]", self._client.consume(most, timeout_s))

    def _fingerprints_at(
        self, offsets: Mapping[Partition, int], timeout_s: float
    ) -> dict[Partition, int]:
        """Return the fingerprint of the record at each of these offsets, where there is one."""
        deadline_s = time.monotonic() + timeout_s
        asked = dict(offsets)
        found = {}
        while asked:
            if time.monotonic() >= deadline_s:
                raise self._survey.unreachable(f"no record of {next(iter(asked))} came")
            # All at once: the client takes a second to learn of a topic that it meets later.
            self._client.assign(
                [TopicPartition(at.topic_name, at.number, offset) for at, offset in asked.items()]
            )
            for message in self._consume(_PROBE_MESSAGES, _PROBE_WAIT_S):
                partition = Partition(message.topic(), message.partition())
                error = message.error()
                if error is None:
                    if asked.pop(partition, None) == message.offset():
                        found[partition] = _fingerprint(message)
                elif error.code() == _END or error.code() in _BROKEN:
                    asked.pop(partition, None)
        return found

    def _fetched(
        self, partition: Partition, messages: list[_Message], end: int | None
    ) -> Fetched | None:
        expected = self._next.get(partition)
        if expected is None:
            return None
        if messages and messages[0].offset() < expected:
            messages = [message for message in messages if message.offset() >= expected]
        reached = messages[-1].offset() + 1 if messages else expected
        if end is not None and end >= reached:
            reached = end
        else:
            end = None
        if reached == expected:
            return None
        self._next[partition] = reached
        return Fetched(partition, messages, end)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == _ALL_DOWN:
            self._survey.outage = str(error.str())

    def _on_commit(self, error: KafkaError | None, _: Sequence[TopicPartition]) -> None:
        self.lag_error = str(error.str()) if error is not None else None


def _fingerprint(message: _Message) -> int:
    """Return the CRC-32 of key, value and timestamp."""
    _, timestamp_ms = message.timestamp()
    crc = zlib.crc32(message.key() or b"")
    crc = zlib.crc32(message.value() or b"", crc)
    return zlib.crc32(str(timestamp_ms).encode(), crc)
