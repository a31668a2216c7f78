"""What a broker says of topics and of the offsets that their partitions hold.

A survey waits for its answers; a watch asks from time to time and never waits.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, Final

from confluent_kafka import (
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

# The client writes to stderr by itself unless it is given a logger; what it says reaches the user
# as the reason in our own messages instead.
silent_logger = logging.getLogger("fleetpulse.edges.kafka.client")
silent_logger.addHandler(logging.NullHandler())
silent_logger.propagate = False


class TopicSurvey:
    """Asks one broker about some topics.

    `outage` says why the broker does not answer, or is None; `has_changed` is True once a watch
    found other partitions or topics than the last `partitions`.
    """

    def __init__(self, bootstrap: str, client_id: str, topic_names: Sequence[str]) -> None:
        """Prepare a client; it connects in the background."""
        self.outage: str | None = None
        self.has_changed = False
        self._bootstrap = bootstrap
        self._topic_names = tuple(topic_names)
        self._known: dict[Partition, str | None] = {}
        self._last_error = "no connection"
        self._watch: list[Future[Any]] = []
        self._answered_s = time.monotonic()
        settings: dict[str, Any] = {
            "bootstrap.servers": bootstrap,
            "client.id": client_id,
            "reconnect.backoff.max.ms": 1000,
            "error_cb": self._on_error,
            "log_level": 0,
        }
        self._client = AdminClient(settings, logger=silent_logger)

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
                    raise self.unreachable(_reason(err)) from err
                missing.append(name)
            except FutureTimeout as err:
                raise self.unreachable(f"no answer within {timeout_s:.0f} s") from err
        if missing:
            raise ServiceUnreachable(
                f"broker {self._bootstrap} answers, but has no topic {' and no '.join(missing)}; "
                "create the topics (fleetpulse topics create), or check the names under topics"
            )
        self.outage, self.has_changed, self._known, self._watch = None, False, found, []
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
            return
        if not all(future.done() for future in self._watch):
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
            else:
                self.outage = self.outage or _reason(err)
            return
        self.outage = None
        self.has_changed = found != self._known

    def unreachable(self, reason: str) -> ServiceUnreachable:
        """Return the error for a broker that does not answer, with what to check."""
        self._client.poll(0)
        return ServiceUnreachable(
            f"broker {self._bootstrap}: {reason} ({self._last_error}); check that it runs "
            "(fleetpulse broker status), that hosts.broker and broker.port are right, that its "
            "advertised listener is an address that this machine reaches, and that the VPN is up"
        )

    def _ask(self, timeout_s: float) -> list[Future[Any]]:
        wanted = TopicCollection(list(self._topic_names))
        futures = self._client.describe_topics(wanted, request_timeout=timeout_s)
        return [futures[name] for name in self._topic_names]

    def _limits(
        self, partitions: Sequence[Partition], spec: OffsetSpec, timeout_s: float
    ) -> dict[Partition, int]:
        if not partitions:
            return {}
        asked = {TopicPartition(where.topic_name, where.number): spec for where in partitions}
        try:
            futures: Mapping[TopicPartition, Future[Any]] = self._client.list_offsets(
                asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=timeout_s
            )
            return {
                Partition(where.topic, where.partition): future.result(timeout_s + 1).offset
                for where, future in futures.items()
            }
        except KafkaException as err:
            raise self.unreachable(_reason(err)) from err
        except FutureTimeout as err:
            raise self.unreachable(f"no offsets within {timeout_s:.0f} s") from err

    def _on_error(self, error: KafkaError) -> None:
        self._last_error = str(error.str())


def _partitions(description: Any) -> dict[Partition, str | None]:  # noqa: ANN401  untyped client
    topic_id = str(description.topic_id) if description.topic_id else None
    return {Partition(description.name, found.id): topic_id for found in description.partitions}


def _reason(err: KafkaException) -> str:
    return str(err.args[0].str())
