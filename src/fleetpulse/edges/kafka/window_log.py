"""Windows -> their topic, each batch in one transaction that also says which batch it was.

The number of the next batch is committed as an offset of the group `fleetpulse-windows-ID`, in the
same transaction as the messages: whoever takes over asks for it and repeats nothing. `ID` is that
of the stream; a second process with the same one puts the first out of action.
"""

import time
from collections.abc import Callable
from queue import Empty, Queue
from threading import Event, Thread
from typing import Final, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from fleetpulse.domain.errors import AlreadyRunning, FleetpulseError
from fleetpulse.edges.kafka.access import ClientErrors, KafkaAccess

_TIMEOUT_S: Final = 60.0
# A call that is to end waits this long for its last answers; no call of the client hears of it.
_LAST_S: Final = 1.5
_CALL_S: Final = 1.0
_STUCK_S: Final = 20.0
_TRANSACTION_TIMEOUT_MS: Final = 300_000
_POLL_EVERY: Final = 500
_QUEUED_MESSAGES: Final = 5_000
_WAIT_S: Final = 0.1
# A broker that has just started, or a transaction that is just being ended; both pass.
_PASSING: Final = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._TIMED_OUT,  # noqa: SLF001  the client names its own codes so
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
    }
)
_Found = TypeVar("_Found")


class WindowLog:
    """The windows topic for one stream. Not for use by several threads at once.

    `next_batch` is the first batch that is not in the topic yet.
    """

    def __init__(
        self, access: KafkaAccess, topic_name: str, stream_id: str, stop: Event | None = None
    ) -> None:
        """Take the stream's place: a transaction that a dead process left open is rolled back.

        Whatever waits for the broker waits for a minute, and hardly any more once `stop` is set.
        Raises ServiceUnreachable, and UsageError for certificates and password.
        """
        self._stop = stop or Event()
        self._access = access
        self._topic_name = topic_name
        self._is_open = False
        self._is_stuck = False
        self._until_poll = _POLL_EVERY
        self._name = f"fleetpulse-windows-{stream_id}"
        self._errors = ClientErrors(access)
        self._open()
        place = TopicPartition(topic_name, 0)
        (found,) = self._call(lambda timeout_s: self._group.committed([place], timeout_s))
        self.next_batch = max(0, found.offset)

    def send(self, key: bytes, value: bytes) -> None:
        """Queue a message of the batch; waits while the queue is full.

        Raises ServiceUnreachable.
        """
        if not self._is_open:
            self._call(lambda _: self._producer.begin_transaction())
            self._is_open = True
        patience = _Patience(self._stop)
        while True:
            try:
                self._producer.produce(self._topic_name, value, key)
            except BufferError as err:
                if patience.is_over():
                    raise self._errors.failure("it takes no messages", self._producer) from err
                self._producer.poll(_WAIT_S)
            except KafkaException as err:
                raise self._explained(err) from err
            else:
                break
        self._until_poll -= 1
        if self._until_poll <= 0:
            self._until_poll = _POLL_EVERY
            self._producer.poll(0)

    def commit(self, batch_id: int) -> None:
        """Make the messages of a batch visible and note it; nothing where it had no message.

        Certificates and password are read again where their files were replaced. Raises
        ServiceUnreachable, and AlreadyRunning where another process took this one's place.
        """
        if not self._is_open:
            return
        place = TopicPartition(self._topic_name, 0, batch_id + 1)
        group = self._group.consumer_group_metadata()
        self._call(
            lambda timeout_s: self._producer.send_offsets_to_transaction([place], group, timeout_s)
        )
        self._call(self._producer.commit_transaction)
        self._is_open = False
        self.next_batch = batch_id + 1
        if self._access.stamp() != self._stamp:
            self._group.close()
            self._open()

    def close(self) -> None:
        """Roll back what is not committed and end the clients."""
        if self._is_stuck:
            return
        if self._is_open:
            self._producer.purge()
            try:
                self._producer.abort_transaction(_CALL_S)
            except KafkaException:
                # The next process with this id rolls it back.
                self._is_open = False
        self._group.close()

    def _open(self) -> None:
        self._stamp = self._access.stamp()
        producing = {
            "client.id": "fleetpulse-windows",
            "transactional.id": self._name,
            "transaction.timeout.ms": _TRANSACTION_TIMEOUT_MS,
            "request.timeout.ms": 15_000,
            "compression.type": "lz4",
            "linger.ms": 20,
            # A batch may be large: it waits here instead of in memory.
            "queue.buffering.max.messages": _QUEUED_MESSAGES,
            # The partition that a Java producer would choose for the same key.
            "partitioner": "murmur2_random",
            "allow.auto.create.topics": False,
        }
        reading = {"group.id": self._name, "isolation.level": "read_committed"}
        self._producer = self._access.client(Producer, producing, self._errors.note)
        self._group = self._access.client(Consumer, reading, self._errors.note)
        self._call(self._producer.init_transactions)

    def _call(self, call: Callable[[float], _Found]) -> _Found:
        """Return what a call brings; one that Kafka allows to be repeated is, for a minute."""
        patience = _Patience(self._stop)
        while True:
            try:
                return self._bounded(call)
            except KafkaException as err:
                error = err.args[0]
                is_passing = error.retriable() or error.code() in _PASSING
                if not is_passing or patience.is_over():
                    raise self._explained(err) from err
                self._producer.poll(_WAIT_S)

    def _bounded(self, call: Callable[[float], _Found]) -> _Found:
        """Return what a call brings; ServiceUnreachable where the client never comes back.

        librdkafka 2.16 was seen to wait without end in send_offsets_to_transaction after a broker
        had come back slowly, whatever its time limit. Whoever opens the log anew takes its place.
        """
        done: Queue[tuple[_Found | None, BaseException | None]] = Queue()

        def run() -> None:
            try:
                done.put((call(_CALL_S), None))
            except BaseException as err:  # noqa: BLE001  handed over to who waits
                done.put((None, err))

        Thread(target=run, name="fleetpulse-windows", daemon=True).start()
        try:
            found, error = done.get(timeout=_STUCK_S)
        except Empty as err:
            self._is_stuck = True
            raise self._errors.failure("the client does not come back") from err
        if error is not None:
            raise error
        return cast("_Found", found)

    def _explained(self, err: KafkaException) -> FleetpulseError:
        error = err.args[0]
        if error.fatal():
            return AlreadyRunning(
                f"topic {self._topic_name}: another process took the place of this one "
                f"({error.str()}); only one may run from the same checkpoint"
            )
        self._errors.note(error)
        return self._errors.failure(error.str())


class _Patience:
    """Ends after a minute, or soon after a stop."""

    def __init__(self, stop: Event) -> None:
        self._stop = stop
        self._deadline_s = time.monotonic() + _TIMEOUT_S
        self._has_stopped = False

    def is_over(self) -> bool:
        now_s = time.monotonic()
        if self._stop.is_set() and not self._has_stopped:
            self._has_stopped = True
            self._deadline_s = min(self._deadline_s, now_s + _LAST_S)
        return now_s >= self._deadline_s
