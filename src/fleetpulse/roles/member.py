"""Hosts that are named as ZeroTier members: `zt:MEMBER` in the settings, an address for clients.

A member's id is enough where the network gives its members RFC 4193 or 6PLANE addresses: this
machine's own address then tells that of every other, and ZeroTier's service is not asked. Names,
and ids in other networks, are known to the service of the network's controller only.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_network
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError, ServiceUnreachable, UsageError
from fleetpulse.edges.overlay import Address, Network, is_overlay, overlay_addresses
from fleetpulse.edges.zerotier.addressing import member_id_of, neighbour, network_mark
from fleetpulse.edges.zerotier.answer import Member
from fleetpulse.edges.zerotier.service import ZeroTier
from fleetpulse.roles.network import zerotier_of

_SCHEME: Final = "zt:"


def located(settings: Settings) -> Settings:
    """Return the settings with `hosts.broker` as an address where it names a ZeroTier member.

    Other settings come back as they are, and nothing is asked. Errors of `resolve_member`.
    """
    host = settings.hosts.broker
    if host is None or not host.startswith(_SCHEME):
        return settings
    hosts = settings.hosts.model_copy(update={"broker": str(resolve_member(host, settings))})
    return settings.model_copy(update={"hosts": hosts})


def resolve_member(host: str, settings: Settings) -> Address:
    """Return the address of the member that `zt:ID` or `zt:NAME` names; `find_member` says how.

    Raises its errors, each beginning with the host.
    """
    own = [one.address for one in overlay_addresses(None)]
    network = settings.overlay.network
    wanted = None if network is None else ip_network(network)
    try:
        return find_member(host.removeprefix(_SCHEME), own, zerotier_of(settings), wanted)
    except FleetpulseError as err:
        raise type(err)(f"{host}: {err}") from err


def find_member(
    asked: str, own: Sequence[Address], service: ZeroTier, network: Network | None
) -> Address:
    """Return the address of the member with an id or a name.

    `own` are this machine's addresses on ZeroTier networks; the address found lies in `network`,
    None takes any. An id gives the same address on every machine of a network with RFC 4193, or
    else 6PLANE. Raises ServiceUnreachable where this machine is on no network yet, UsageError where
    the member or its address is not known or not the only one, and the errors of the service.
    """
    if not own:
        raise ServiceUnreachable(
            "this machine has no address on a ZeroTier network; see what is missing with: "
            "fleetpulse network status"
        )
    member_id = member_id_of(asked)
    computed = _computed(own, member_id, network) if member_id else []
    if len(computed) > 1:
        raise UsageError(
            f"it may be in {len(computed)} networks of this machine, as "
            f"{' or '.join(map(str, computed))}; set overlay.network to the network that is meant, "
            "or write the address"
        )
    return computed[0] if computed else _from_service(asked, member_id, service, network)


def _computed(own: Sequence[Address], member_id: str, network: Network | None) -> list[IPv6Address]:
    """Return the member's address in each network that computes them, RFC 4193 before 6PLANE."""
    found: dict[int, IPv6Address] = {}
    # fd... is RFC 4193, fc... 6PLANE.
    for address in sorted(own, key=lambda one: one.packed[0], reverse=True):
        mark = network_mark(address)
        if mark is not None and mark not in found:
            there = neighbour(address, member_id)
            if _is_wanted(there, network):
                found[mark] = there
    return list(found.values())


def _from_service(
    asked: str, member_id: str | None, service: ZeroTier, network: Network | None
) -> Address:
    own_id = service.node().member_id
    networks = service.networks()
    if member_id == own_id:
        return _only(asked, [ip.ip for one in networks for ip in one.addresses], network)
    asked_for = [service.members(one.network_id) for one in networks]
    known = [members for members in asked_for if members is not None]
    if not known:
        raise UsageError(_nowhere(member_id))
    members = [member for one in known for member in one]
    found = [one for one in members if asked.casefold() in (one.member_id, one.name.casefold())]
    ids = sorted({one.member_id for one in found})
    if not found:
        raise UsageError(f"no such member; there are: {_listed(members)}")
    if len(ids) > 1:
        raise UsageError(f"{len(ids)} members are named so ({', '.join(ids)}); use the ID of one")
    if not any(one.is_authorized for one in found):
        raise UsageError(f"member {ids[0]} is not authorised; do it in the network's controller")
    return _only(asked, [address for one in found for address in one.addresses], network)


def _only(asked: str, addresses: Iterable[Address], network: Network | None) -> Address:
    wanted = sorted(
        {one for one in addresses if _is_wanted(one, network)},
        key=lambda one: (one.version, int(one)),
    )
    if not wanted:
        place = f" in overlay.network {network}" if network else ""
        raise UsageError(f"member {asked} has no address{place}; give it one in the controller")
    if len({one.version for one in wanted}) < len(wanted):
        raise UsageError(
            f"member {asked} has several addresses ({', '.join(map(str, wanted))}); write the one "
            "that is meant, or set overlay.network"
        )
    return wanted[0]


def _is_wanted(address: Address, network: Network | None) -> bool:
    return network is None or is_overlay(address, (network,))


def _listed(members: Iterable[Member]) -> str:
    known = sorted(members, key=lambda one: (one.name == "", one.name, one.member_id))
    named = [f"{one.name} ({one.member_id})" if one.name else one.member_id for one in known]
    return ", ".join(named) or "none"


def _nowhere(member_id: str | None) -> str:
    if member_id is None:
        return (
            "names are known on the machine of the network's own controller only, which this one "
            "is not; use the member's ID (10 hexadecimal digits, `fleetpulse network status` shows "
            "it there), or write the address"
        )
    return (
        "this machine has no RFC 4193 or 6PLANE address that would tell the member's; turn "
        "RFC 4193 on in the network's controller, or write the address"
    )
