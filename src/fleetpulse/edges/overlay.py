"""Which addresses of this machine lie on the overlay network, and which addresses do at all.

Read from the network interfaces alone: no ZeroTier service is asked, so any user can know it, and
it holds for every kind of overlay whose network is named in the settings.
"""

import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Final

import psutil

from fleetpulse.domain.errors import FleetpulseError

# ZeroTier's names: `zt` and letters of the network's id on Linux, a pair of fake Ethernet devices
# on macOS. A device that its `devicemap` file renames is found by overlay.network only.
_INTERFACE: Final = re.compile(r"zt[a-z0-9]+|feth[0-9]+")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of this machine, the subnet that its interface gives it, and the interface."""

    address: Address
    subnet: Network
    interface: str


def overlay_addresses(network: Network | None) -> tuple[LocalAddress, ...]:
    """Return this machine's addresses on the overlay, IPv4 first, empty when there is none.

    `network` is the overlay's, whatever the interface is called; None takes those of ZeroTier's
    interfaces. Link-local addresses are left out. Raises FleetpulseError where the system does not
    show its interfaces.
    """
    try:
        found = _local_addresses()
    except (psutil.Error, OSError) as err:
        raise FleetpulseError(
            f"this machine does not show its network interfaces ({err}); "
            "run as a user who may read them"
        ) from err
    return choose_overlay(found, network)


def choose_overlay(
    found: Iterable[LocalAddress], network: Network | None
) -> tuple[LocalAddress, ...]:
    """Return those of `found` that lie on the overlay, as `overlay_addresses` describes."""
    chosen = [
        one
        for one in found
        if not one.address.is_link_local
        and (
            is_overlay(one.address, (network,))
            if network is not None
            else _INTERFACE.fullmatch(one.interface)
        )
    ]
    return tuple(sorted(chosen, key=lambda one: (one.address.version, int(one.address))))


def overlay_networks(name: str | None, own: Callable[[], Iterable[LocalAddress]]) -> list[Network]:
    """Return the overlay's networks: the one that is named, else the subnets of `own`.

    `own` gives this machine's addresses there, and is asked only where none is named.
    """
    return [one.subnet for one in own()] if name is None else [ip_network(name)]


def is_overlay(address: Address | str, networks: Iterable[Network]) -> bool:
    """Return whether an address lies in one of the overlay's networks.

    The networks are the one of the settings, or the `subnet` of each of `overlay_addresses`. Text
    that is no IP address (a name) is on none; resolve it first. An IPv4 address in IPv6 form counts
    as what it is.

    >>> from ipaddress import ip_network
    >>> is_overlay("10.147.17.5", [ip_network("10.147.17.0/24")])
    True
    >>> is_overlay("::ffff:10.147.18.5", [ip_network("10.147.17.0/24")])
    False
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return any(found.version == one.version and found in one for one in networks)


def _local_addresses() -> Iterable[LocalAddress]:
    for interface, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                yield local_address(interface, one.address, one.netmask)


def local_address(interface: str, address: str, netmask: str | None) -> LocalAddress:
    """Return an address as the system shows it (`fe80::1%zt0`, `ffff:ffff::`), in order.

    Without a netmask (point-to-point links) the subnet is the address alone.
    """
    plain = ip_address(address.partition("%")[0])
    bits = plain.max_prefixlen if not netmask else int(ip_address(netmask)).bit_count()
    return LocalAddress(plain, ip_interface(f"{plain}/{bits}").network, interface)
