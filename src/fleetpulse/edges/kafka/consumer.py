"""Kafka -> messages by partition, from given positions on: no group, no rebalance, no guess.

The positions are the caller's; the offsets committed to Kafka only let its tools show the lag.
Memory is bounded by what the client queues: a poll takes what is there and does not wait for more.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, repeat
from operator import is_
from threading import Thread
from typing import Final, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fleetpulse.domain.errors import ServiceUnreachable
from fleetpulse.domain.position import (
    LogFacts,
    Partition,
    Position,
    needs_fingerprint,
)
from fleetpulse.domain.share import Share
from fleetpulse.edges.kafka.access import ClientErrors, KafkaAccess
from fleetpulse.edges.kafka.fetched import ConsumedMessage, Fetched, fingerprint
from fleetpulse.edges.kafka.survey import MISSING, TopicSurvey

_END_TIMEOUT_S: Final = 3.0
_CLOSE_S: Final = 1.0
_FILES_EVERY_S: Final = 2.0
_MOST_MESSAGES: Final = 10_000
_PROBE_MESSAGES: Final = 10
# The client counts bytes of messages alone, its own part of a small one is several times that. It
# overshoots by what is under way, hence the bound on one answer.
_QUEUE_KB: Final = 2 * 1024
_ANSWER_BYTES: Final = 4 << 20
# Of one partition in one answer, compressed: unpacked it is several times that, whatever the queue.
_PARTITION_BYTES: Final = 256 << 10
_PROBE_WAIT_S: Final = 0.2
_END: Final = KafkaError._PARTITION_EOF  # noqa: SLF001  the client names its own codes so
_ALL_DOWN: Final = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
# Reading cannot go on at the next offset: the log must be looked at again.
_BROKEN: Final = MISSING | {
    KafkaError.OFFSET_OUT_OF_RANGE,
    KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
}


# Called once a message: the method itself, without the search for it.
_error = cast("Callable[[ConsumedMessage], KafkaError | None]", Message.error)


def client_settings(group_id: str) -> dict[str, str | int | bool]:
    """Return how the client library is to read."""
    return {
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
        "fetch.message.max.bytes": _PARTITION_BYTES,
    }


class LogConsumer:
    """Reads partitions of some topics on one broker, from positions that it is given.

    `lag_error` is the last failed commit of offsets to Kafka. Not for use by several threads.
    """

    def __init__(
        self,
        access: KafkaAccess,
        group_id: str,
        topic_names: Sequence[str],
        share: Share | None = None,
    ) -> None:
        """Prepare a client; it connects in the background. Raises UsageError for its files.

        With `share` it reads those partitions of each topic alone.
        """
        self.lag_error: str | None = None
        self._access = access
        self._group_id = group_id
        self._topic_names = tuple(topic_names)
        self._share = share
        self._is_broken = False
        self._has_more = False
        self._next: dict[Partition, int] = {}
        self._at_end: set[Partition] = set()
        self._paused: set[Partition] = set()
        self._errors = ClientErrors(access)
        self._open()

    @property
    def outage(self) -> str | None:
        """Why the broker does not answer, None while it does."""
        found = self._survey.outage
        return None if found is None else self._errors.outage(found)

    @property
    def is_refused(self) -> bool:
        """Whether the outage is a refusal: of the certificate, the login, or a permission."""
        return self._survey.is_refused or (self.outage is not None and self._errors.is_denied)

    @property
    def must_survey(self) -> bool:
        """Whether the logs may differ from the last survey: survey and assign again."""
        return self._is_broken or self._survey.has_changed or self._must_reopen()

    def survey(
        self, known: Mapping[Partition, Position], timeout_s: float
    ) -> dict[Partition, LogFacts]:
        """Return what the broker says of every partition of the topics.

        `known` are the positions whose last record is looked at; `timeout_s` is for each of the
        questions. Reading stops until the next `assign`. Certificates and password are read again
        where their files were replaced. Raises ServiceUnreachable, naming what to check, where the
        broker does not answer or a topic is missing, and UsageError for the files.
        """
        # The client keeps a pause whatever it is assigned later.
        self.pause(set())
        if self._access.stamp() != self._stamp:
            self.close()
            self._open()
        self._client.unassign()
        self._next = {}
        topic_ids = {
            partition: topic_id
            for partition, topic_id in self._survey.partitions(timeout_s).items()
            if self._share is None or partition.number in self._share
        }
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

    def offsets_since(
        self, partitions: Sequence[Partition], since_ms: int, timeout_s: float
    ) -> dict[Partition, int]:
        """Return the first offset of each partition dated at or after an instant, or its end.

        Raises ServiceUnreachable.
        """
        return self._survey.since(partitions, since_ms, timeout_s)

    def assign(self, positions: Iterable[Position]) -> None:
        """Read these partitions, each from its next offset on, and no others."""
        self.pause(set())
        self._next = {position.partition: position.next_offset for position in positions}
        self._at_end = set()
        self._client.assign(
            [
                TopicPartition(partition.topic_name, partition.number, offset)
                for partition, offset in self._next.items()
            ]
        )

    def poll(self, timeout_s: float, gather_s: float = 0.0) -> list[Fetched]:
        """Return what arrived, by partition; waits up to `timeout_s` for the first message.

        Then it waits `gather_s` for more. An empty list means that nothing new came. Offsets below
        the position are dropped: the broker may deliver them again.
        """
        was_out = self.outage is not None
        self._survey.watch()
        if was_out and self.outage is None:
            # The next outage has a cause of its own.
            self._errors.forget()
        messages = self._consume(1, timeout_s)
        if messages:
            messages += self._consume(_MOST_MESSAGES, gather_s)
        self._has_more = len(messages) > _MOST_MESSAGES
        groups: dict[tuple[str, int], list[ConsumedMessage]] = {}
        ends: dict[tuple[str, int], int] = {}
        if not all(map(is_, map(_error, messages), repeat(None))):
            ends = self._heeded([one for one in messages if one.error() is not None])
            messages = [one for one in messages if one.error() is None]
        # The client hands over what one answer of the broker held, so runs are long.
        for place, run in groupby(messages, _place):
            groups.setdefault(place, []).extend(run)
        found = (
            self._fetched(Partition(*place), groups.get(place, []), ends.get(place))
            for place in {**groups, **ends}
        )
        return [fetched for fetched in found if fetched is not None]

    @property
    def has_more(self) -> bool:
        """Whether the last poll left messages that had arrived already."""
        return self._has_more

    @property
    def behind(self) -> set[Partition]:
        """The partitions that may hold messages which were not read yet."""
        if self.outage:
            return set(self._next)
        return set(self._next) - self._at_end | self._paused

    @property
    def hidden(self) -> dict[Partition, range]:
        """The offsets that an open transaction hides, of partitions read as far as can be.

        They are as the last watch found them; a transaction that just began hides some, too.
        """
        ends = self._survey.ends
        found = {
            one: range(self._next[one], ends.get(one, 0))
            for one in self._at_end & self._next.keys()
        }
        return {partition: offsets for partition, offsets in found.items() if offsets}

    def pause(self, partitions: set[Partition]) -> None:
        """Read nothing more of these partitions for now, and go on with those paused before."""
        for call, changed in (
            (self._client.resume, self._paused - partitions),
            (self._client.pause, partitions - self._paused),
        ):
            if changed:
                call([TopicPartition(one.topic_name, one.number) for one in changed])
        self._paused = set(partitions)

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
        """Leave the broker, without its answer where it gives none."""
        # The client waits without end for the answer to offsets that it sent for Kafka's display.
        closing = Thread(target=self._client.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S)

    def _open(self) -> None:
        self._stamp = self._access.stamp()
        self._stamped_s = time.monotonic()
        self._errors.forget()
        self._survey = TopicSurvey(self._access, self._group_id, self._topic_names)
        settings = {**client_settings(self._group_id), "on_commit": self._on_commit}
        self._client = self._access.client(Consumer, settings, self._on_error)

    def _must_reopen(self) -> bool:
        """Tell whether certificates or password were replaced; looks every few seconds."""
        if time.monotonic() - self._stamped_s < _FILES_EVERY_S:
            return False
        self._stamped_s = time.monotonic()
        return self._access.stamp() != self._stamp

    def _consume(self, most: int, timeout_s: float) -> list[ConsumedMessage]:
        return cast("list[ConsumedMessage]", self._client.consume(most, timeout_s))

    def _heeded(self, errors: Iterable[ConsumedMessage]) -> dict[tuple[str, int], int]:
        """Note what the client reports, and return the ends of logs that it reached."""
        ends = {}
        for message in errors:
            error = message.error()
            if error is not None and error.code() == _END:
                ends[_place(message)] = message.offset()
            elif error is not None and error.code() in _BROKEN:
                self._is_broken = True
        return ends

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
                        found[partition] = fingerprint(message)
                elif error.code() == _END or error.code() in _BROKEN:
                    asked.pop(partition, None)
        return found

    def _fetched(
        self, partition: Partition, messages: list[ConsumedMessage], end: int | None
    ) -> Fetched | None:
        expected = self._next.get(partition)
        if expected is None:
            return None
        if messages and messages[0].offset() < expected:
            messages = [message for message in messages if message.offset() >= expected]
        reached = messages[-1].offset() + 1 if messages else expected
        if end is not None and end >= reached:
            reached = end
            self._at_end.add(partition)
        else:
            end = None
            if messages:
                self._at_end.discard(partition)
        if reached == expected:
            return None
        self._next[partition] = reached
        return Fetched(partition, messages, end)

    def _on_error(self, error: KafkaError) -> None:
        self._errors.note(error)
        if error.code() == _ALL_DOWN:
            self._survey.outage = self._errors.outage(str(error.str()))

    def _on_commit(self, error: KafkaError | None, _: Sequence[TopicPartition]) -> None:
        self.lag_error = str(error.str()) if error is not None else None


def _place(message: ConsumedMessage) -> tuple[str, int]:
    return message.topic(), message.partition()
