"""How a client reaches a broker: its address, certificates and login; and why it does not.

Every client of this package is made from a `KafkaAccess` and notes its errors in a `ClientErrors`,
so that a cause is found and worded in one place.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from fleetpulse.domain.errors import AccessDenied, ServiceUnreachable, UsageError
from fleetpulse.domain.secret import Secret
from fleetpulse.edges.kafka.address import accepts
from fleetpulse.edges.kafka.tls import Tls, tls_problem

MECHANISM: Final = "SCRAM-SHA-512"
_ADVERTISED_TIMEOUT_S: Final = 1.0
_METADATA_TIMEOUT_S: Final = 0.5
_NO_ANSWER: Final = "no answer"
# How the library begins what it says of a broker that it was sent to: it knows its number.
_ADVERTISED: Final = re.compile(r"(?:\w+://)?(\S+):(\d+)/\d+: ")
# Part of whatever OpenSSL says.
_TLS_ERROR: Final = "SSL routines"
_DENIED: Final = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001  the client names its own codes so
        KafkaError._SSL,  # noqa: SLF001
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    }
)
# They only say that another error, which came before them, holds for every broker.
_VAGUE: Final = frozenset({KafkaError._ALL_BROKERS_DOWN})  # noqa: SLF001

# The client writes to stderr by itself unless it is given a logger; what it says reaches the user
# as the reason in our own messages instead.
silent_logger = logging.getLogger("fleetpulse.edges.kafka.client")
silent_logger.addHandler(logging.NullHandler())
silent_logger.propagate = False

_Client = TypeVar("_Client")


@dataclass(frozen=True, slots=True)
class Login:
    """A SCRAM user, and how to read the password when a client is made."""

    user: str
    password_file: Path
    read_password: Callable[[Path], Secret]


@dataclass(frozen=True, slots=True)
class KafkaAccess:
    """A broker and how to reach it: `bootstrap` is `host:port`, or several with commas."""

    bootstrap: str
    tls: Tls | None = None
    login: Login | None = None

    @property
    def protocol(self) -> str:
        """Return Kafka's name of the protocol."""
        if self.login:
            return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
        return "SSL" if self.tls else "PLAINTEXT"

    @property
    def first(self) -> tuple[str, int]:
        """Return host and port of the first address of `bootstrap`."""
        host, _, port = self.bootstrap.partition(",")[0].rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files that a client reads when it is made."""
        tls = self.tls or Tls()
        login = () if self.login is None else (self.login.password_file,)
        named = (tls.ca_file, tls.certificate_file, tls.key_file, *login)
        return tuple(dict.fromkeys(one for one in named if one is not None))

    def stamp(self) -> tuple[object, ...]:
        """Return a value that differs once one of the files was replaced."""
        return tuple(map(_stamp, self.files))

    def client(
        self,
        kind: Callable[..., _Client],
        settings: Mapping[str, Any],
        on_error: Callable[[KafkaError], None],
    ) -> _Client:
        """Return a client of the library, which connects in the background.

        `on_error` takes what it reports meanwhile, in the thread that calls it.

        Raises UsageError where a file cannot be used.
        """
        for path in self.files:
            if not os.access(path, os.R_OK):
                what = "cannot be read" if path.exists() else "is not there"
                raise UsageError(f"{path}: {what}; check the files under security in the settings")
        try:
            given = {**settings, **self._client_settings(), "error_cb": on_error, "log_level": 0}
        except (OSError, UnicodeDecodeError) as err:
            raise UsageError(
                f"security: the certificates cannot be read ({err}); copy this machine's folder "
                "again"
            ) from None
        try:
            return kind(given, logger=silent_logger)
        except KafkaException as err:
            raise UsageError(
                f"security: the certificates cannot be used ({err.args[0].str()}); check ca_file, "
                "certificate_file and key_file, or copy this machine's folder again"
            ) from None  # its cause names every setting

    def java_settings(self) -> dict[str, str]:
        """Return the same for a Kafka client in Java."""
        found = {"bootstrap.servers": self.bootstrap, "security.protocol": self.protocol}
        if self.tls and self.tls.ca_file:
            found |= {
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.tls.ca_file.absolute()),
            }
        if self.tls and self.tls.certificate_file:
            found |= {
                "ssl.keystore.type": "PEM",
                # Java's form of it is one file that holds both.
                "ssl.keystore.location": str(self.tls.certificate_file.absolute()),
            }
        if self.login:
            found |= {
                "sasl.mechanism": MECHANISM,
                "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule "
                f"required username={_quoted(self.login.user)} "
                f"password={_quoted(self._password())};",
            }
        return found

    def _client_settings(self) -> dict[str, str | int]:
        found: dict[str, str | int] = {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": self.protocol,
            # What was under way when a link broke is given up, and sent anew, this soon: measured
            # after 40 s without a link, reading went on in 2 s instead of 18.
            "socket.timeout.ms": 15_000,
            "socket.connection.setup.timeout.ms": 10_000,
        }
        if self.tls and self.tls.ca_file:
            found["ssl.ca.location"] = str(self.tls.ca_file)
        if self.tls and self.tls.certificate_file and self.tls.key_file:
            # Read once: named as two paths, a file that is being replaced could give a key and a
            # certificate that do not belong together.
            texts = {path: path.read_text("ascii") for path in self.tls.identity_files}
            found |= {
                "ssl.certificate.pem": texts[self.tls.certificate_file],
                "ssl.key.pem": texts[self.tls.key_file],
            }
        if self.login:
            found |= {
                "sasl.mechanism": MECHANISM,
                "sasl.username": self.login.user,
                "sasl.password": self._password(),
            }
        return found

    def _password(self) -> str:
        login = self.login
        return "" if login is None else login.read_password(login.password_file).reveal()


class ClientErrors:
    """The errors of a client, and the failure that they amount to.

    `is_denied` is True while the last cause is a certificate, a password or a missing permission.
    """

    def __init__(self, access: KafkaAccess) -> None:
        """Begin without an error."""
        self.access = access
        self.last = _NO_ANSWER
        self.is_denied = False

    def note(self, error: KafkaError) -> None:
        """Take an error that the client reports in the background, or that a call brought."""
        if error.code() in _VAGUE and self.last != _NO_ANSWER:
            return
        # What only follows from a refusal must not hide it.
        if self.is_denied and error.code() not in _DENIED:
            return
        self.last = error.str()
        # A refused certificate comes as a connection that broke.
        self.is_denied = error.code() in _DENIED or _TLS_ERROR in self.last

    def forget(self) -> None:
        """Begin anew once the broker has answered."""
        self.last, self.is_denied = _NO_ANSWER, False

    def failure(self, reason: str, client: Any = None) -> ServiceUnreachable:  # noqa: ANN401  of the library, untyped
        """Return what to raise for a broker that does not do what it was asked.

        With a `client` of the library it is asked where the broker sends its clients: an address
        that this machine cannot reach is the commonest fault of a first day, and hard to see.
        """
        bootstrap = self.access.bootstrap
        if client is not None and not self.is_denied:
            client.poll(0)
        if self.is_denied:
            return AccessDenied(f"broker {bootstrap}: {self._tls_problem() or self.advice}")
        brokers = [] if client is None else self._advertised(client)
        if lost := unreachable_brokers(brokers):
            return wrong_advertised(bootstrap, lost)
        cause = reason if self.last in (_NO_ANSWER, reason) else f"{reason} ({self.last})"
        if client is not None and not brokers and self._is_mute():
            return ServiceUnreachable(
                f"broker {bootstrap}: {cause}; something accepts the connection and does not "
                "answer: check that security.tls is the same here and on the broker's machine, and "
                "that no other program has broker.port"
            )
        return ServiceUnreachable(
            f"broker {bootstrap}: {cause}; check that it runs (fleetpulse broker status), that "
            "hosts.broker and broker.port are right, that the VPN is up, and what fleetpulse "
            "doctor says"
        )

    def outage(self, reason: str) -> str:
        """Return why the broker cannot be used, for one line."""
        return self.advice if self.is_denied else reason

    @property
    def advice(self) -> str:
        """Return what was refused, why, and what to check."""
        user = self.access.login.user if self.access.login else "(none)"
        lower = self.last.lower()
        if "authorization failed" in lower:
            return (
                f"user {user} lacks a permission ({self.last}); check security.user, and run "
                "fleetpulse broker start on the broker's machine, which sets the permissions"
            )
        if _TLS_ERROR not in self.last:
            return (
                f"the login of user {user} is refused ({self.last}); check security.user and "
                "security.password_file: the broker has other passwords after fleetpulse security "
                "renew --passwords"
            )
        return (
            f"the secured connection fails ({self.last}); check the certificates at both ends "
            "(fleetpulse doctor, fleetpulse security show)"
        )

    def _tls_problem(self) -> str | None:
        """Return which of the checks of a secured connection fails; None where none does."""
        if self.access.tls is None or _TLS_ERROR not in self.last:
            return None
        try:
            return tls_problem(*self.access.first, self.access.tls)
        except OSError:
            return None

    def _advertised(self, client: Any) -> list[tuple[str, int]]:  # noqa: ANN401  of the library, untyped
        found = advertised(client)
        # A client that was sent elsewhere may ask there alone, in vain; its error says where.
        sent = _ADVERTISED.match(self.last)
        if found or sent is None or f"{sent[1]}:{sent[2]}" in self.access.bootstrap.split(","):
            return found
        return [(sent[1].strip("[]"), int(sent[2]))] if self._is_mute() else []

    def _is_mute(self) -> bool:
        """Tell whether something takes connections where the broker should be."""
        return accepts(*self.access.first, _ADVERTISED_TIMEOUT_S)


def advertised(client: Any) -> list[tuple[str, int]]:  # noqa: ANN401  of the library, untyped
    """Return the addresses that the broker tells its clients to use; empty without an answer."""
    try:
        found = client.list_topics(timeout=_METADATA_TIMEOUT_S)
    except KafkaException:
        return []
    return [(one.host, one.port) for one in found.brokers.values() if one.port > 0]


def unreachable_brokers(addresses: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return those of the addresses where nothing accepts a connection from here."""
    return [at for at in addresses if not accepts(*at, _ADVERTISED_TIMEOUT_S)]


def wrong_advertised(bootstrap: str, lost: Iterable[tuple[str, int]]) -> ServiceUnreachable:
    """Return the error for a broker that sends its clients where this machine cannot follow."""
    places = ", ".join(f"{host}:{port}" for host, port in lost)
    return ServiceUnreachable(
        f"broker {bootstrap} answers, but tells its clients to use {places}, which this machine "
        "cannot reach; let it advertise its overlay address: on its machine run fleetpulse broker "
        "config --advertise-overlay, then broker stop and broker start"
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _quoted(text: str) -> str:
    # Source: the tokenizer of Kafka's JaasConfig, a java.io.StreamTokenizer with C-like escapes.
    if not text.isascii() or not text.isprintable():
        raise UsageError(
            "security: a user or password for Spark is one line of ASCII; make a new one with: "
            "fleetpulse security renew --passwords"
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
