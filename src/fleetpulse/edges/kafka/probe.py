"""What a broker does with a client of this machine, one step after the other.

Each step is a question of its own with a short limit, so that it is known which of them fails:
the greeting (does a Kafka broker answer at all, and large packets as well as small ones), the
secured connection, the login, the permissions, and messages sent and read back.
"""

import socket
import ssl
import struct
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from enum import StrEnum, auto
from typing import Any, Final

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from fleetpulse.domain.errors import ServiceUnreachable
from fleetpulse.edges.kafka.access import ClientErrors, KafkaAccess
from fleetpulse.edges.kafka.tls import Tls

# Kafka protocol guide: ApiVersions, version 0, is understood by every broker before any login. The
# long client id fills more than one packet.
_API_VERSIONS: Final = 18
_CLIENT_ID: Final = b"fleetpulse-doctor".ljust(12_000, b".")
_REQUEST: Final = struct.pack(">hhih", _API_VERSIONS, 0, 1, len(_CLIENT_ID)) + _CLIENT_ID
_GREETING: Final = struct.pack(">i", len(_REQUEST)) + _REQUEST
_MAX_ANSWER_BYTES: Final = 64 * 1024
# Fills the first message of a TLS handshake in the same way (RFC 7301; Kafka ignores it).
_PADDING: Final = [f"fleetpulse-{n:03}".ljust(200, ".") for n in range(40)]
# How each protocol begins a message of 16 KiB: what follows it is waited for.
TLS_OPENING: Final = bytes((22, 3, 1, 64, 0)) + bytes(100)
PLAIN_OPENING: Final = struct.pack(">i", 32 * 1024) + bytes(100)
_ATTEMPT_S: Final = 1.0
# There is no such thing, or nobody to ask about groups yet; who may not know it is told so first.
_MISSING: Final = (
    KafkaError.GROUP_ID_NOT_FOUND,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001  the client names its own codes so
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
)
_FORBIDDEN: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)


class Greeting(StrEnum):
    """What answers on a broker's port: what was asked for, something else, or nothing."""

    ANSWERED = auto()
    FOREIGN = auto()
    SILENT = auto()


@dataclass(frozen=True, slots=True)
class Trip:
    """A message sent and read back: seconds until it was there, and what the broker's clock said.

    `clock_offset_s` is how far the broker's clock is ahead of ours, give or take `error_s`; None
    where the topic does not carry the broker's time.
    """

    latency_s: float
    clock_offset_s: float | None
    error_s: float


Connect = Callable[[socket.socket], None]


def greet(
    host: str, port: int, tls: Tls | None, timeout_s: float, prepare: Connect | None = None
) -> Greeting:
    """Return what answers a greeting of several full packets; certificates are not judged.

    `prepare` may change the socket before it connects. Raises OSError where nothing accepts.
    """
    family, kind, number, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, number) as plain:
        plain.settimeout(timeout_s)
        if prepare is not None:
            prepare(plain)
        plain.connect(place)
        try:
            if tls is None:
                return _greet_plainly(plain, time.monotonic() + timeout_s)
            context = _lenient(tls)
            context.set_alpn_protocols(_PADDING)
            with context.wrap_socket(plain, server_hostname=host):
                return Greeting.ANSWERED
        except TimeoutError:
            return Greeting.SILENT
        except OSError:
            return Greeting.FOREIGN


def speaks_tls(host: str, port: int, timeout_s: float) -> bool:
    """Tell whether the other side shows a certificate; OSError where nothing accepts."""
    return greet(host, port, Tls(), timeout_s) is Greeting.ANSWERED


def certificate_end(host: str, port: int, tls: Tls, timeout_s: float) -> float | None:
    """Return when the certificate of a broker that holds ends, in seconds of the epoch.

    None where the secured connection does not come about: `tls_problem` says why. Raises
    TimeoutError where the other side does not answer, OSError where nothing accepts.
    """
    with socket.create_connection((host, port), timeout_s) as plain:
        try:
            context = ssl.create_default_context(cafile=tls.ca_file)
            if tls.certificate_file:
                context.load_cert_chain(tls.certificate_file, tls.key_file)
            with context.wrap_socket(plain, server_hostname=host) as wrapped:
                shown = wrapped.getpeercert() or {}
        except TimeoutError:
            raise
        except OSError:
            return None
    return ssl.cert_time_to_seconds(str(shown["notAfter"]))


def brokers(access: KafkaAccess, timeout_s: float) -> list[tuple[str, int]]:
    """Log in and return the addresses that the broker tells its clients to use.

    Raises AccessDenied where the login is refused, ServiceUnreachable without an answer.
    """
    errors = ClientErrors(access)
    client = access.client(AdminClient, {"client.id": "fleetpulse-doctor"}, errors.note)
    asked = client.describe_cluster(request_timeout=timeout_s)
    deadline_s = time.monotonic() + timeout_s
    # A refusal is known long before the question is given up.
    while not asked.done() and not errors.is_denied and time.monotonic() < deadline_s:
        client.poll(0.05)
    if not asked.done():
        raise errors.failure(f"no answer within {timeout_s:g} s")
    try:
        return [(str(one.host), int(one.port)) for one in asked.result().nodes]
    except KafkaException as err:
        errors.note(err.args[0])
        raise errors.failure(err.args[0].str()) from None


def permitted(
    access: KafkaAccess, topics: Sequence[str], groups: Sequence[str], timeout_s: float
) -> Mapping[tuple[str, str], frozenset[str] | None]:
    """Return what this user may do with topics and groups: Kafka's operations, such as READ.

    Keys are ("TOPIC", name) and ("GROUP", name); None where there is no such thing yet. Raises
    ServiceUnreachable.
    """
    errors = ClientErrors(access)
    client = access.client(AdminClient, {"client.id": "fleetpulse-doctor"}, errors.note)
    wanted = {"include_authorized_operations": True, "request_timeout": timeout_s}
    asked = {
        ("TOPIC", name): answer
        for name, answer in client.describe_topics(TopicCollection([*topics]), **wanted).items()
    }
    if groups:
        asked |= {
            ("GROUP", name): answer
            for name, answer in client.describe_consumer_groups([*groups], **wanted).items()
        }
    return {key: _operations(errors, answer, timeout_s) for key, answer in asked.items()}


def round_trips(access: KafkaAccess, topic: str, count: int, timeout_s: float) -> tuple[Trip, ...]:
    """Send messages, one after the other, read each back by its key, and return how it went.

    Raises ServiceUnreachable, which names the step that did not end in time, and AccessDenied.
    """
    errors = ClientErrors(access)
    deadline_s = time.monotonic() + timeout_s
    mine = f"{socket.gethostname()}-{uuid.uuid4().hex}"
    name = {"client.id": "fleetpulse-doctor"}
    sending = {"acks": "all", "linger.ms": 0, "message.timeout.ms": int(timeout_s * 1000)}
    reading = {"group.id": "fleetpulse-doctor", "enable.auto.commit": False}
    producer = access.client(Producer, name | sending, errors.note)
    consumer = access.client(Consumer, name | reading | {"fetch.wait.max.ms": 50}, errors.note)
    try:
        place = TopicPartition(topic, 0, _end(consumer, errors, topic, deadline_s))
        consumer.assign([place])
        return tuple(
            _trip(producer, consumer, errors, _Letter(topic, f"{mine}-{n}".encode()), deadline_s)
            for n in range(count)
        )
    except KafkaException as err:
        errors.note(err.args[0])
        raise errors.failure(str(err.args[0].str())) from None
    finally:
        consumer.close()


@dataclass(slots=True)
class _Letter:
    topic: str
    key: bytes
    acked_s: float | None = None
    error: KafkaError | None = None
    sent_s: float = field(default_factory=time.time)

    def on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        self.acked_s, self.error = time.time(), error


def _trip(
    producer: Producer,
    consumer: Consumer,
    errors: ClientErrors,
    letter: _Letter,
    deadline_s: float,
) -> Trip:
    started_s = time.monotonic()
    producer.produce(letter.topic, key=letter.key, value=letter.key, on_delivery=letter.on_delivery)
    while letter.acked_s is None:
        producer.poll(0.05)
        if time.monotonic() >= deadline_s:
            raise errors.failure("the message that was sent is not acknowledged")
    if letter.error is not None:
        raise KafkaException(letter.error)
    while True:
        found = consumer.poll(0.05)
        if found is not None and found.error() is None and found.key() == letter.key:
            break
        if time.monotonic() >= deadline_s:
            raise errors.failure("the message that was acknowledged cannot be read back")
    latency_s = time.monotonic() - started_s
    kind, stamp_ms = found.timestamp()
    offset_s = None
    if kind == TIMESTAMP_LOG_APPEND_TIME:
        offset_s = stamp_ms / 1000 - (letter.sent_s + letter.acked_s) / 2
    return Trip(latency_s, offset_s, abs(letter.acked_s - letter.sent_s) / 2)


def _end(consumer: Consumer, errors: ClientErrors, topic: str, deadline_s: float) -> int:
    """Return the offset behind a partition's last; a topic that is just made takes a moment."""
    while True:
        try:
            limits = consumer.get_watermark_offsets(TopicPartition(topic, 0), _ATTEMPT_S)
        except KafkaException as err:
            if time.monotonic() >= deadline_s:
                errors.note(err.args[0])
                raise errors.failure(str(err.args[0].str())) from None
            continue
        if limits is not None:
            return int(limits[1])


def _operations(
    errors: ClientErrors,
    answer: Any,  # noqa: ANN401  untyped client
    timeout_s: float,
) -> frozenset[str] | None:
    try:
        found = answer.result(timeout_s)
    except KafkaException as err:
        code = err.args[0].code()
        if code in _MISSING:
            return None
        if code in _FORBIDDEN:
            return frozenset()
        errors.note(err.args[0])
        raise errors.failure(str(err.args[0].str())) from None
    except FutureTimeout as err:
        raise ServiceUnreachable(
            f"broker {errors.access.bootstrap}: no answer within {timeout_s:g} s"
        ) from err
    return frozenset(one.name for one in found.authorized_operations or ())


def _greet_plainly(plain: socket.socket, deadline_s: float) -> Greeting:
    plain.sendall(_GREETING)
    head = _received(plain, 8, deadline_s)
    size_bytes, number = struct.unpack(">ii", head) if len(head) == 8 else (0, 0)  # noqa: PLR2004  two numbers
    is_kafka = number == 1 and 0 < size_bytes <= _MAX_ANSWER_BYTES
    return Greeting.ANSWERED if is_kafka else Greeting.FOREIGN


def _received(plain: socket.socket, size_bytes: int, deadline_s: float) -> bytes:
    found = b""
    while len(found) < size_bytes:
        plain.settimeout(max(deadline_s - time.monotonic(), 0.001))
        part = plain.recv(size_bytes - len(found))
        if not part:
            break
        found += part
    return found


def _lenient(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if tls.certificate_file:
        try:
            context.load_cert_chain(tls.certificate_file, tls.key_file)
        except (OSError, ssl.SSLError):
            # The broker will refuse us after its own part, which is all that is wanted here.
            return context
    return context
