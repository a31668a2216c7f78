"""What a broker says of topics and of the offsets that their partitions hold.

A survey waits for its answers; a watch asks from time to time and never waits.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final

from confluent_kafka import (
    OFFSET_INVALID,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from fleetpulse.domain.errors import ServiceUnreachable
from fleetpulse.domain.position import Partition
from fleetpulse.edges.kafka.access import ClientErrors, KafkaAccess

# The topic or partition is not there (yet, or any more).
MISSING: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNKNOWN_TOPIC_ID,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  the client names its own codes so
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    }
)
# How soon new partitions and re-created topics are noticed, and an answer after an outage.
_WATCH_EVERY_S: Final = 5.0
_WATCH_OUTAGE_EVERY_S: Final = 1.0
_WATCH_TIMEOUT_S: Final = 5.0
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class TopicSurvey:
    """Asks one broker about some topics.

    `outage` says why the broker does not answer, or is None; `has_changed` is True once a watch
    found other partitions or topics than the last `partitions`; `ends` are the offsets behind each
    partition's last, open transactions included, as the last watch found them.
    """

    def __init__(self, access: KafkaAccess, client_id: str, topic_names: Sequence[str]) -> None:
        """Prepare a client; it connects in the background. Raises UsageError for its files."""
        self.outage: str | None = None
        self.has_changed = False
        self.ends: dict[Partition, int] = {}
        self._access = access
        self._topic_names = tuple(topic_names)
        self._known: dict[Partition, str | None] = {}
        self._watch: list[Future[Any]] = []
        self._watch_ends: dict[Partition, Future[Any]] = {}
        self._answered_s = time.monotonic()
        self._errors = ClientErrors(access)
        settings = {"client.id": client_id, "reconnect.backoff.max.ms": 1000}
        self._client = access.client(AdminClient, settings, self._errors.note)

    def partitions(self, timeout_s: float) -> dict[Partition, str | None]:
        """Return the partitions of the topics, each with its topic's id where the broker has ids.

        Raises ServiceUnreachable, naming what to check, where there is no answer or a topic is
        missing.
        """
        found: dict[Partition, str | None] = {}
        missing = []
        asked = self._ask(timeout_s)
        for name, future in zip(self._topic_names, asked, strict=True):
            try:
                found |= _partitions(future.result(timeout_s))
            except KafkaException as err:
                if err.args[0].code() not in MISSING:
                    raise self._failed(err) from err
                missing.append(name)
            except FutureTimeout as err:
                raise self.unreachable(f"no answer within {timeout_s:.0f} s") from err
        if missing:
            raise ServiceUnreachable(
                f"broker {self._access.bootstrap} answers, but has no topic "
                f"{' and no '.join(missing)}; create the topics (fleetpulse topics create), or "
                "check the names under topics"
            )
        self.outage, self.has_changed, self._known, self._watch = None, False, found, []
        self._errors.forget()
        self._answered_s = time.monotonic()
        return found

    def lows(self, partitions: Sequence[Partition], timeout_s: float) -> dict[Partition, int]:
        """Return the first offset that each partition holds; raises ServiceUnreachable."""
        return self._limits(partitions, _EARLIEST, timeout_s)

    def highs(self, partitions: Sequence[Partition], timeout_s: float) -> dict[Partition, int]:
        """Return the offset behind each partition's last; raises ServiceUnreachable.

        Records of open transactions count.
        """
        return self._limits(partitions, _LATEST, timeout_s)

    def since(
        self, partitions: Sequence[Partition], since_ms: int, timeout_s: float
    ) -> dict[Partition, int]:
        """Return the first offset of each partition dated at or after an instant, or its end.

        Raises ServiceUnreachable.
        """
        spec = OffsetSpec.for_timestamp(since_ms)
        found = self._limits(partitions, spec, timeout_s)
        # The broker says -1 where no message is that young.
        highs = self.highs([one for one in partitions if found[one] < 0], timeout_s)
        return found | highs

    def watch(self) -> None:
        """Ask, or take the answer to an earlier question, and note what it says; never waits."""
        if not self._watch:
            every_s = _WATCH_OUTAGE_EVERY_S if self.outage else _WATCH_EVERY_S
            if time.monotonic() - self._answered_s >= every_s:
                self._watch = self._ask(_WATCH_TIMEOUT_S)
                self._watch_ends = self._list(list(self._known), _LATEST, _WATCH_TIMEOUT_S)
            return
        if not all(future.done() for future in (*self._watch, *self._watch_ends.values())):
            return
        answers, self._watch = self._watch, []
        self._answered_s = time.monotonic()
        found: dict[Partition, str | None] = {}
        try:
            for answer in answers:
                found |= _partitions(answer.result())
        except KafkaException as err:
            if err.args[0].code() in MISSING:
                self.has_changed = True
                return
            self._client.poll(0)
            self._errors.note(err.args[0])
            # A cause found later, such as a refused certificate, is worth more than silence.
            if self.outage is None or self._errors.is_denied:
                self.outage = self._errors.outage(str(err.args[0].str()))
            return
        self.outage = None
        self._errors.forget()
        self.has_changed = found != self._known
        ends = self._watch_ends.items()
        self.ends = {one: future.result().offset for one, future in ends if not future.exception()}

    @property
    def is_refused(self) -> bool:
        """Whether the outage is a refusal: of the certificate, the login, or a permission."""
        return self.outage is not None and self._errors.is_denied

    def unreachable(self, reason: str) -> ServiceUnreachable:
        """Return the error for a broker that does not answer, with what to check."""
        return self._errors.failure(reason, self._client)

    def _ask(self, timeout_s: float) -> list[Future[Any]]:
        wanted = TopicCollection(list(self._topic_names))
        futures = self._client.describe_topics(wanted, request_timeout=timeout_s)
        return [futures[name] for name in self._topic_names]

    def _limits(
        self, partitions: Sequence[Partition], spec: OffsetSpec, timeout_s: float
    ) -> dict[Partition, int]:
        try:
            asked = self._list(partitions, spec, timeout_s).items()
            found = {partition: future.result(timeout_s + 1).offset for partition, future in asked}
        except KafkaException as err:
            raise self._failed(err) from err
        except FutureTimeout as err:
            raise self.unreachable(f"no offsets within {timeout_s:.0f} s") from err
        # The client's word for no answer, which it does not call an error: the broker fell silent.
        for partition, offset in found.items():
            if offset == OFFSET_INVALID:
                raise self.unreachable(f"no offset of {partition} came")
        return found

    def _list(
        self, partitions: Sequence[Partition], spec: OffsetSpec, timeout_s: float
    ) -> dict[Partition, Future[Any]]:
        if not partitions:
            return {}
        asked = {TopicPartition(where.topic_name, where.number): spec for where in partitions}
        futures: Mapping[TopicPartition, Future[Any]] = self._client.list_offsets(
            asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=timeout_s
        )
        return {Partition(at.topic, at.partition): future for at, future in futures.items()}

    def _failed(self, err: KafkaException) -> ServiceUnreachable:
        self._errors.note(err.args[0])
        return self.unreachable(str(err.args[0].str()))


def _partitions(description: Any) -> dict[Partition, str | None]:  # noqa: ANN401  untyped client
    topic_id = str(description.topic_id) if description.topic_id else None
    return {Partition(description.name, found.id): topic_id for found in description.partitions}
