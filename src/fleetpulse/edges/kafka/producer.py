"""Records -> Kafka: idempotent, acknowledged by all in-sync replicas, compressed, keyed by server.

Memory is bounded: when the queue is full, `send` waits for the broker. A message is delivered once
(the broker drops what the client repeats) or counted as failed; none vanishes.
"""

import time
from collections import Counter
from collections.abc import Mapping
from threading import Event
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from fleetpulse.codec.message import encode_message
from fleetpulse.domain.errors import ServiceUnreachable, UsageError
from fleetpulse.domain.metric import Topic
from fleetpulse.domain.sample import Record
from fleetpulse.edges.kafka.access import (
    ClientErrors,
    KafkaAccess,
    unreachable_brokers,
    wrong_advertised,
)

# The client's own queue: about 150,000 messages, a few seconds of a fast dataset.
QUEUE_KB: Final = 16 * 1024
# How long the client keeps trying to deliver a message, broker outages included.
DELIVERY_TIMEOUT_S: Final = 120.0
# What is left of a run that is stopped: time for messages under way to be acknowledged.
STOP_GRACE_S: Final = 3.0
_POLL_EVERY: Final = 500
_WAIT_S: Final = 0.1
_METADATA_TIMEOUT_S: Final = 1.0
# A topic that was just created takes a moment until every client can see it.
_NEW_TOPIC_S: Final = 5.0
_FILES_EVERY_S: Final = 2.0


def client_settings(
    delivery_timeout_s: float = DELIVERY_TIMEOUT_S, queue_kb: int = QUEUE_KB
) -> dict[str, str | int | bool]:
    """Return how the client library is to send."""
    return {
        "client.id": "fleetpulse-producer",
        "enable.idempotence": True,
        "request.timeout.ms": 15_000,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 20,
        "batch.size": 512 * 1024,
        "queue.buffering.max.kbytes": queue_kb,
        "queue.buffering.max.messages": 1_000_000,
        "message.timeout.ms": int(delivery_timeout_s * 1000),
        # The partition that a Java producer would choose for the same key.
        "partitioner": "murmur2_random",
        "reconnect.backoff.max.ms": 2000,
        "allow.auto.create.topics": False,
        "delivery.report.only.error": True,
    }


class RecordProducer:
    """Sends records to their topics on one broker.

    `topic_names` maps each topic to its name there. Not for use by several threads at once.
    `failed` counts messages that were not delivered; `fatal` says why nothing can be sent any more.
    """

    def __init__(
        self,
        access: KafkaAccess,
        topic_names: Mapping[Topic, str],
        delivery_timeout_s: float = DELIVERY_TIMEOUT_S,
        queue_kb: int = QUEUE_KB,
    ) -> None:
        """Prepare a client; it connects in the background. Raises UsageError for its files."""
        self._access = access
        self._queue_kb = queue_kb
        self._topic_names = dict(topic_names)
        self._delivery_timeout_s = delivery_timeout_s
        self._sent: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self.failed = 0
        self._reasons: Counter[str] = Counter()
        self._errors = ClientErrors(access)
        self._brokers: list[tuple[str, int]] = []
        self._stop_deadline_s: float | None = None
        self._until_poll = _POLL_EVERY
        self.fatal: str | None = None
        self._client, self._stamp, self._stamped_s = self._opened()

    def connect(self, timeout_s: float, stop: Event) -> bool:
        """Wait until the broker answers and has every topic; False when `stop` is set meanwhile.

        Raises ServiceUnreachable after `timeout_s`, or at once where the broker sends its clients
        to an address that this machine cannot reach, and UsageError where topics are missing.
        """
        deadline_s = time.monotonic() + timeout_s
        missing: list[str] = []
        while not stop.is_set():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise self._no_topics(missing) if missing else self._no_answer(timeout_s)
            found = self._topics_found(min(left_s, _METADATA_TIMEOUT_S))
            if found is not None:
                missing = [name for name in self._topic_names.values() if name not in found]
                if not missing:
                    return self._is_reachable()
                deadline_s = min(deadline_s, time.monotonic() + _NEW_TOPIC_S)
            stop.wait(_WAIT_S)
        return False

    def send(self, record: Record, stop: Event) -> None:
        """Queue a record; waits while the queue is full.

        Once `stop` is set it waits STOP_GRACE_S at most and then counts the record as failed.
        """
        topic_name = self._topic_names[record.topic]
        key = record.server_id.encode()
        value = encode_message(record)
        self._sent[topic_name] += 1
        while True:
            try:
                self._client.produce(topic_name, value, key, timestamp=record.ts_ms)
            except BufferError:
                if self._is_grace_over(stop):
                    self._count_failure(topic_name, "the run was stopped before it was sent")
                    return
                self._client.poll(_WAIT_S)
            except KafkaException as err:
                self._count_failure(topic_name, self._reason(err.args[0]))
                return
            else:
                break
        self._until_poll -= 1
        if self._until_poll <= 0:
            self.serve()

    def serve(self) -> None:
        """Take in the acknowledgements and errors that have arrived; call it now and then.

        Certificates and password are read again where their files were replaced; what was sent
        before is waited for, so that the order of a server's messages stays.
        """
        self._until_poll = _POLL_EVERY
        self._client.poll(0)
        if time.monotonic() - self._stamped_s < _FILES_EVERY_S:
            return
        self._stamped_s = time.monotonic()
        if self._access.stamp() != self._stamp:
            self._client.flush(self._delivery_timeout_s)
            self._client, self._stamp, self._stamped_s = self._opened()

    def finish(self, stop: Event) -> None:
        """Wait until every record is acknowledged or failed; STOP_GRACE_S once `stop` is set."""
        # Every message is resolved by then; a client that fails to do so must not hang us.
        deadline_s = time.monotonic() + self._delivery_timeout_s + STOP_GRACE_S
        while self._client.flush(_WAIT_S):
            if self._is_grace_over(stop) or time.monotonic() >= deadline_s:
                self._client.purge()
                self._client.flush(STOP_GRACE_S)
                return

    def delivered(self) -> dict[str, int]:
        """Return the acknowledged messages by topic name; exact after `finish`."""
        return {name: self._sent[name] - self._failed[name] for name in self._topic_names.values()}

    def failures(self) -> dict[str, int]:
        """Return the messages that were not delivered, by reason."""
        return dict(self._reasons)

    @property
    def advertised(self) -> str:
        """Return the addresses that the broker told its clients to use."""
        found = ", ".join(f"{host}:{port}" for host, port in self._brokers)
        return found or self._access.bootstrap

    def _topics_found(self, timeout_s: float) -> set[str] | None:
        try:
            found = self._client.list_topics(timeout=timeout_s)
        except KafkaException:
            self._client.poll(0)
            return None
        self._brokers = [(one.host, one.port) for one in found.brokers.values()]
        return set(found.topics)

    def _is_reachable(self) -> bool:
        lost = unreachable_brokers(self._brokers)
        # Of several brokers one may be down for a while.
        if len(lost) == len(self._brokers):
            raise wrong_advertised(self._access.bootstrap, lost)
        return True

    def _opened(self) -> tuple[Producer, tuple[object, ...], float]:
        stamp = self._access.stamp()
        settings = {
            **client_settings(self._delivery_timeout_s, self._queue_kb),
            "on_delivery": self._on_failure,
        }
        client = self._access.client(Producer, settings, self._on_error)
        return client, stamp, time.monotonic()

    def _no_topics(self, missing: list[str]) -> UsageError:
        return UsageError(
            f"broker {self._access.bootstrap}: there is no topic {', '.join(missing)}; "
            "make them with: fleetpulse topics create"
        )

    def _no_answer(self, timeout_s: float) -> ServiceUnreachable:
        return self._errors.failure(f"no answer within {timeout_s:g} s", self._client)

    def _is_grace_over(self, stop: Event) -> bool:
        if not stop.is_set():
            return False
        if self._stop_deadline_s is None:
            self._stop_deadline_s = time.monotonic() + STOP_GRACE_S
        return time.monotonic() >= self._stop_deadline_s

    def _count_failure(self, topic_name: str, reason: str) -> None:
        self._failed[topic_name] += 1
        self.failed += 1
        self._reasons[reason] += 1

    def _reason(self, error: KafkaError) -> str:
        if error.fatal():
            self.fatal = error.str()
        if error.code() == KafkaError._MSG_TIMED_OUT:  # noqa: SLF001  its public error codes
            return f"not acknowledged within {self._delivery_timeout_s:g} s"
        if error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):  # noqa: SLF001
            return "the run was stopped before it was acknowledged"
        return str(error.str())

    def _on_failure(self, error: KafkaError, message: Message) -> None:
        self._count_failure(message.topic() or "", self._reason(error))

    def _on_error(self, error: KafkaError) -> None:
        self._errors.note(error)
        if error.fatal():
            self.fatal = error.str()
