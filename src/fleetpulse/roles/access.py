"""How this machine's roles reach the broker, and who may do what there."""

import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import UsageError
from fleetpulse.domain.machine import Machine
from fleetpulse.domain.metric import FAMILIES, TOPICS
from fleetpulse.edges.credentials.secret_file import read_private, read_secret
from fleetpulse.edges.kafka.access import KafkaAccess, Login
from fleetpulse.edges.kafka.grants import Grant
from fleetpulse.edges.kafka.tls import Tls
from fleetpulse.edges.overlay import is_overlay, overlay_addresses, overlay_networks
from fleetpulse.roles.member import located

PRODUCER: Final = Machine.PRODUCER.user
MONITOR: Final = Machine.MONITOR.user
CONSUMERS: Final = (Machine.CONSUMER1.user, Machine.CONSUMER2.user)
USERS: Final = tuple(machine.user for machine in Machine)
# Where every role proves to `doctor` that it can write and read.
PROBE_TOPIC: Final = "fleetpulse-doctor"
_KEY_BYTES: Final = 64 * 1024
_SPARK_GROUP: Final = "fleetpulse-spark-stream"


def kafka_access(settings: Settings, say: Callable[[str], None]) -> KafkaAccess:
    """Return how to reach the broker of the settings.

    Raises UsageError for a connection that anybody beyond this machine and the VPN could read,
    unless security.allow_plaintext permits it: then `say` gets a warning; and for a key or password
    that others may read.
    """
    settings = located(settings)
    part = settings.security
    bootstrap = settings.bootstrap()
    refuse_open(settings, say)
    if part.key_file:
        read_private(part.key_file, _KEY_BYTES)
    login = None
    if part.user and part.password_file:
        login = Login(part.user, part.password_file, read_secret)
    return KafkaAccess(bootstrap, tls_of(settings), login)


def tls_of(settings: Settings) -> Tls | None:
    """Return this machine's certificates, None where TLS is off."""
    part = settings.security
    return Tls(part.ca_file, part.certificate_file, part.key_file) if part.tls else None


def refuse_open(settings: Settings, say: Callable[[str], None]) -> None:
    """Raise UsageError, or warn where that is allowed, for what would cross the net unprotected."""
    part, host = settings.security, settings.hosts.broker
    if part.tls or host is None:
        return
    if part.user:
        problem = f"user {part.user} would log in over an unencrypted connection"
    elif outside := _outside(settings, host):
        problem = (
            f"hosts.broker {outside} is neither this machine nor on its VPN, and the connection "
            "would be unencrypted"
        )
    else:
        return
    if not part.allow_plaintext:
        raise UsageError(
            f"{problem}; set up certificates (fleetpulse security init), name the VPN "
            "(overlay.network), or set security.allow_plaintext: true if you accept it"
        )
    say(f"warning: {problem} (security.allow_plaintext)")


def _outside(settings: Settings, host: str) -> str | None:
    """Return the first address of a host that is neither loopback nor on the overlay."""
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None)}
    except OSError:
        # Not known now: the connection fails, and says so.
        return None
    beyond = sorted(one for one in found if not ip_address(one.partition("%")[0]).is_loopback)
    if not beyond:
        return None
    networks = overlay_networks(settings.overlay.network, lambda: overlay_addresses(None))
    return next((one for one in beyond if not is_overlay(one, networks)), None)


def grants(settings: Settings) -> tuple[Grant, ...]:
    """Return what each user may do: no more than its role needs; `admin` may do all anyway."""
    topics = settings.topics
    names = [topics.name(topic) for topic in TOPICS]
    found = [Grant(PRODUCER, "TOPIC", name, "WRITE") for name in names]
    found += [
        Grant(PRODUCER, "TOPIC", topics.positions, operation)
        for operation in ("READ", "WRITE", "CREATE")
    ]
    found.append(
        Grant(PRODUCER, "TRANSACTIONAL_ID", "fleetpulse-producer-", "WRITE", is_prefix=True)
    )
    for user, family in zip(CONSUMERS, FAMILIES, strict=True):
        found += [Grant(user, "TOPIC", topics.name(topic), "READ") for topic in family.topics]
        found.append(Grant(user, "GROUP", f"fleetpulse-{user}", "READ"))
    found += [Grant(MONITOR, "TOPIC", name, "READ") for name in names]
    found += [
        Grant(MONITOR, "TOPIC", topics.windows, operation)
        for operation in ("READ", "WRITE", "CREATE")
    ]
    found += [
        Grant(MONITOR, "GROUP", "fleetpulse-monitor", "READ"),
        Grant(MONITOR, "GROUP", _SPARK_GROUP, "READ", is_prefix=True),
        Grant(MONITOR, "GROUP", "fleetpulse-windows-", "READ", is_prefix=True),
        Grant(MONITOR, "TRANSACTIONAL_ID", "fleetpulse-windows-", "WRITE", is_prefix=True),
    ]
    for user in (PRODUCER, *CONSUMERS, MONITOR):
        found += [
            Grant(user, "TOPIC", PROBE_TOPIC, operation)
            for operation in ("READ", "WRITE", "CREATE", "DESCRIBE_CONFIGS")
        ]
    # Whoever uses a topic may see how it is set up.
    users = {(one.user, one.name) for one in found if one.resource == "TOPIC"}
    found += [Grant(user, "TOPIC", name, "DESCRIBE_CONFIGS") for user, name in users]
    return tuple(sorted(set(found)))
