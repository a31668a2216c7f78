"""The topics of a dataset's run: messages, and how far they go, in one transaction.

Whoever is killed between two commits leaves nothing that a reader of committed messages sees; who
takes over reads the last note and goes on there. A second process with the same id puts the first
out of action (Kafka's fencing).
"""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Final, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from fleetpulse.domain.errors import AlreadyRunning, DeliveryFailed, FleetpulseError
from fleetpulse.domain.position import Partition
from fleetpulse.edges.kafka.access import ClientErrors, KafkaAccess
from fleetpulse.edges.kafka.survey import TopicSurvey

# A dead process's transaction holds up the readers for so long, unless it is started again.
TRANSACTION_TIMEOUT_S: Final = 30.0
# What is left of a run that is stopped: time to commit what is under way.
STOP_GRACE_S: Final = 3.0
_CALL_S: Final = 1.0
_WAIT_S: Final = 0.1
_POLL_EVERY: Final = 500
_END: Final = KafkaError._PARTITION_EOF  # noqa: SLF001  the client names its own codes so

# Topic name, key, value, and timestamp in UTC milliseconds.
Outgoing = tuple[str, bytes, bytes, int]
_Found = TypeVar("_Found")


class ReplayLog:
    """One run of a dataset on one broker. Not for use by several threads at once.

    `note` is the last one that was committed, by whomever; None before the first.
    """

    def __init__(
        self,
        access: KafkaAccess,
        notes_topic: str,
        run_id: str,
        stop: Event,
        say: Callable[[str], None],
        timeout_s: float,
    ) -> None:
        """Take the run's place: a transaction that a dead process left open is rolled back.

        `timeout_s` is how long a commit is tried; once `stop` is set, STOP_GRACE_S. Raises
        DeliveryFailed, AlreadyRunning, ServiceUnreachable, and UsageError for certificates.
        """
        self._access = access
        self._notes = Partition(notes_topic, 0)
        self._key = run_id.encode()
        self._transactional_id = f"fleetpulse-producer-{run_id}"
        self._stop = stop
        self._say = say
        self._timeout_s = timeout_s
        self._errors = ClientErrors(access)
        self._deadline_s: float | None = None
        self._open()
        self.note = self._read_note()

    def commit(self, messages: Sequence[Outgoing], note: bytes) -> None:
        """Make the messages visible together with the note, or, where that fails, neither.

        Waits for the broker, and begins anew where it gave the transaction up. Raises
        DeliveryFailed, which says that nothing is lost, and AlreadyRunning where another process
        took this one's place.
        """
        self._deadline_s = None
        while True:
            try:
                self._transact(messages, note)
            except KafkaException as err:
                if self._is_done_by(err.args[0], note):
                    break
            else:
                break
        self.note = note
        if self._access.stamp() != self._stamp:
            self._open()

    def close(self) -> None:
        """End the client; what is not committed is rolled back."""
        self._producer.purge()
        try:
            self._producer.abort_transaction(_CALL_S)
        except KafkaException:
            # There was none, or the next process with this id rolls it back.
            return

    def _open(self) -> None:
        self._stamp = self._access.stamp()
        settings = {
            "client.id": "fleetpulse-producer",
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": int(TRANSACTION_TIMEOUT_S * 1000),
            "request.timeout.ms": 15_000,
            "compression.type": "lz4",
            "linger.ms": 20,
            "batch.size": 512 * 1024,
            "queue.buffering.max.messages": 1_000_000,
            # The partition that a Java producer would choose for the same key.
            "partitioner": "murmur2_random",
            "reconnect.backoff.max.ms": 2000,
            "allow.auto.create.topics": False,
        }
        self._producer = self._access.client(Producer, settings, self._errors.note)
        self._repeated(self._producer.init_transactions)

    def _transact(self, messages: Sequence[Outgoing], note: bytes) -> None:
        self._producer.begin_transaction()
        until_poll = _POLL_EVERY
        for topic_name, key, value, ts_ms in messages:
            self._queue(topic_name, key, value, ts_ms)
            until_poll -= 1
            if until_poll <= 0:
                until_poll = _POLL_EVERY
                self._producer.poll(0)
        self._queue(self._notes.topic_name, self._key, note, 0)
        self._repeated(self._producer.commit_transaction)

    def _queue(self, topic_name: str, key: bytes, value: bytes, ts_ms: int) -> None:
        while True:
            try:
                # 0 leaves the time to the client.
                self._producer.produce(topic_name, value, key, timestamp=ts_ms)
            except BufferError:
                self._check_time("it takes no messages")
                self._producer.poll(_WAIT_S)
            else:
                return

    def _repeated(self, call: Callable[[float], _Found]) -> _Found:
        """Return what a call brings; one that Kafka allows to be repeated is."""
        while True:
            try:
                return call(_CALL_S)
            except KafkaException as err:
                error = err.args[0]
                if not error.retriable():
                    raise
                self._errors.note(error)
                self._check_time(error.str())
                self._producer.poll(_WAIT_S)

    def _is_done_by(self, error: KafkaError, note: bytes) -> bool:
        """Make ready for another attempt; True where the failed one was committed all the same."""
        self._errors.note(error)
        self._check_time(error.str())
        if error.txn_requires_abort():
            self._producer.purge()
            try:
                self._repeated(self._producer.abort_transaction)
            except KafkaException as err:
                if not err.args[0].fatal():
                    raise self._errors.failure(err.args[0].str()) from err
            else:
                return False
        elif not error.fatal():
            raise self._errors.failure(error.str())
        # The broker took this client's place away: it gave up an old transaction, or there is
        # another process. Who committed last tells which.
        self._open()
        found = self._read_note()
        if found == note:
            return True
        if found != self.note:
            raise AlreadyRunning(
                f"broker {self._access.bootstrap}: another process sends this run of the dataset; "
                "stop one of them, or send it again under another name (--run NAME)"
            )
        return False

    def _check_time(self, reason: str) -> None:
        """Raise once the attempts at a commit have lasted too long."""
        now_s = time.monotonic()
        if self._deadline_s is None:
            self._deadline_s = now_s + self._timeout_s
            self._say(f"broker lost ({self._errors.outage(reason)}): waiting for it")
        if self._stop.is_set():
            self._deadline_s = min(self._deadline_s, now_s + STOP_GRACE_S)
        if now_s >= self._deadline_s:
            raise self._given_up(reason)

    def _given_up(self, reason: str) -> FleetpulseError:
        if self._errors.is_denied:
            return self._errors.failure(reason)
        return DeliveryFailed(
            f"broker {self._access.bootstrap}: the last rows were not committed within "
            f"{self._timeout_s:g} s ({self._errors.last}); check that it runs and that this "
            "machine reaches it, then run the same command again: it goes on behind the last row "
            "that is in the topics"
        )

    def _read_note(self) -> bytes | None:
        """Return the last committed note of this run.

        Other runs' open transactions hide what stands behind them: they are waited for, until the
        broker ends them.
        """
        survey = TopicSurvey(self._access, "fleetpulse-producer", [self._notes.topic_name])
        survey.partitions(self._timeout_s)
        end = survey.highs([self._notes], self._timeout_s)[self._notes]
        settings = {
            "group.id": self._transactional_id,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
        }
        consumer = self._access.client(Consumer, settings, self._errors.note)
        deadline_s = time.monotonic() + TRANSACTION_TIMEOUT_S + self._timeout_s
        found, reached = None, 0
        try:
            consumer.assign(
                [TopicPartition(self._notes.topic_name, self._notes.number, OFFSET_BEGINNING)]
            )
            while reached < end:
                message = consumer.poll(_WAIT_S)
                if time.monotonic() >= deadline_s:
                    raise self._errors.failure(f"{self._notes} could not be read to its end")
                if message is None:
                    continue
                if (error := message.error()) is not None:
                    reached = message.offset() or 0 if error.code() == _END else reached
                elif message.key() == self._key:
                    found = message.value()
        finally:
            consumer.close()
        return found
