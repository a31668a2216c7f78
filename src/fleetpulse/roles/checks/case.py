"""What a run of `doctor` is about, and what its checks have found out for later ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.role import Role
from fleetpulse.edges.java import Java
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.probe import Trip
from fleetpulse.edges.overlay import LocalAddress, overlay_addresses

_EVERYTHING: Final = (ip_network("0.0.0.0/0"), ip_network("::/0"))


@dataclass(slots=True)
class Case:
    """A machine under examination.

    `role` is None where no role was named, `file` where the settings are at their usual place. The
    other fields are set by the check that finds them out; who reads one needs that check.
    """

    role: Role | None
    file: Path | None
    environ: Mapping[str, str]
    settings: Settings = field(default_factory=Settings)
    java: Java | None = None
    addresses: tuple[str, ...] = ()
    access: KafkaAccess | None = None
    brokers: list[tuple[str, int]] = field(default_factory=list)
    trips: tuple[Trip, ...] = ()
    clock_problem: str | None = None

    @property
    def bootstrap(self) -> tuple[str, int]:
        """Return host and port of the broker in the settings."""
        return KafkaAccess(self.settings.bootstrap()).first

    @property
    def is_at_home(self) -> bool:
        """Tell whether the broker is on this machine under a loopback address."""
        hosts = self.addresses or (self.settings.hosts.broker or "",)
        return all(map(is_loopback, hosts))

    @property
    def user(self) -> str | None:
        """Return the user whose permissions and topics count: the role's, else the settings'."""
        return self.role.user if self.role else self.settings.security.user

    def reached(self) -> KafkaAccess:
        """Return the way to the broker, which the check `security` has prepared."""
        return self.access or KafkaAccess(self.settings.bootstrap())

    def overlay(self) -> tuple[LocalAddress, ...]:
        """Return this machine's addresses on the overlay."""
        network = self.settings.overlay.network
        return overlay_addresses(None if network is None else ip_network(network))


def own_addresses() -> tuple[LocalAddress, ...]:
    """Return all addresses of this machine but link-local ones."""
    return tuple(one for network in _EVERYTHING for one in overlay_addresses(network))


def address_of(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a text is, without a zone; None for a name."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine under its own address."""
    address = address_of(host)
    return host == "localhost" if address is None else address.is_loopback
