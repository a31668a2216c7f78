"""What the service's answers mean: JSON in, facts out.

Field names and values: ZeroTier's published description of its service API (OpenAPI, version 1).
A field that is missing or of another type raises ValueError, which names the field and not the
value. Texts that others choose (names of networks and members) are cut and stripped of what a
terminal would obey.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv6Address,
    IPv6Interface,
    ip_address,
    ip_interface,
)
from typing import Final, TypeVar

from fleetpulse.edges.zerotier.addressing import member_id_of, network_id_of

_NAME_LENGTH: Final = 80
_Kind = TypeVar("_Kind", str, bool, int)


@dataclass(frozen=True, slots=True)
class Node:
    """This machine: its member id (10 hexadecimal digits), and how it reaches the world.

    `is_tcp_relayed` says that UDP does not get through, so everything goes through a relay.
    """

    member_id: str
    version: str
    is_online: bool
    is_tcp_relayed: bool


@dataclass(frozen=True, slots=True)
class Membership:
    """A network that this machine joined; `status` is OK once its controller let it in.

    Otherwise REQUESTING_CONFIGURATION, ACCESS_DENIED, NOT_FOUND, PORT_ERROR, CLIENT_TOO_OLD or
    AUTHENTICATION_REQUIRED. The `allow_` fields say what the network may do to this machine:
    give it addresses and routes, global ones too, and take over its default route.
    """

    network_id: str
    name: str
    status: str
    is_public: bool
    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    device: str
    mtu_bytes: int
    allow_managed: bool
    allow_global: bool
    allow_default: bool


@dataclass(frozen=True, slots=True)
class Peer:
    """Another ZeroTier machine: `role` is LEAF for members, PLANET or MOON for roots.

    `path` is its physical address and port where packets go there directly, None where they are
    relayed. Latency and version are None while they are not known.
    """

    member_id: str
    role: str
    version: str | None
    latency_ms: int | None
    path: str | None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a network, as the network's controller knows it; the name may be empty."""

    member_id: str
    name: str
    is_authorized: bool
    addresses: tuple[IPv4Address | IPv6Address, ...]


def read_node(answer: object) -> Node:
    """Return the facts of /status."""
    found = _object(answer)
    return Node(
        _member_id(found),
        _shown(_field(found, "version", str)),
        _field(found, "online", bool),
        _field(found, "tcpFallbackActive", bool, default=False),
    )


def read_membership(answer: object) -> Membership:
    """Return the facts of /network/ID."""
    found = _object(answer)
    network_id = network_id_of(_field(found, "id", str))
    if network_id is None:
        raise ValueError("id is no network id")
    return Membership(
        network_id,
        _shown(_field(found, "name", str, default="")),
        _shown(_field(found, "status", str)),
        _field(found, "type", str) != "PRIVATE",
        tuple(_interface(one) for one in _list(found, "assignedAddresses")),
        _shown(_field(found, "portDeviceName", str, default="")),
        _field(found, "mtu", int, default=0),
        _field(found, "allowManaged", bool, default=True),
        _field(found, "allowGlobal", bool, default=False),
        _field(found, "allowDefault", bool, default=False),
    )


def read_memberships(answer: object) -> tuple[Membership, ...]:
    """Return the facts of /network, by id."""
    if not isinstance(answer, list):
        raise ValueError("wanted a list of networks")  # noqa: TRY004  one error for every answer
    return tuple(sorted(map(read_membership, answer), key=lambda one: one.network_id))


def read_peers(answer: object) -> tuple[Peer, ...]:
    """Return the facts of /peer: members before roots, by id."""
    if not isinstance(answer, list):
        raise ValueError("wanted a list of peers")  # noqa: TRY004  one error for every answer
    return tuple(sorted(map(_peer, answer), key=lambda one: (one.role != "LEAF", one.member_id)))


def read_member_ids(answer: object) -> tuple[str, ...]:
    """Return the ids of /controller/network/ID/member, which maps each to its revision."""
    found = [member_id_of(one) for one in _object(answer)]
    ids = [one for one in found if one is not None]
    if len(ids) < len(found):
        raise ValueError("wanted member ids as keys")
    return tuple(sorted(ids))


def read_member(answer: object) -> Member:
    """Return the facts of /controller/network/ID/member/ID."""
    found = _object(answer)
    return Member(
        _member_id(found),
        _shown(_field(found, "name", str, default="")),
        _field(found, "authorized", bool),
        tuple(_interface(one).ip for one in _list(found, "ipAssignments")),
    )


def _peer(answer: object) -> Peer:
    found = _object(answer)
    latency_ms = _field(found, "latency", int, default=-1)
    version = _shown(_field(found, "version", str, default=""))
    return Peer(
        _member_id(found),
        _shown(_field(found, "role", str)),
        # The service writes -1.-1.-1 for a version that it has not heard of yet.
        version if version and not version.startswith("-") else None,
        latency_ms if latency_ms >= 0 else None,
        _direct_path([_object(one) for one in _list(found, "paths")]),
    )


def _direct_path(paths: list[Mapping[str, object]]) -> str | None:
    active = [
        one
        for one in paths
        if _field(one, "active", bool, default=False)
        and not _field(one, "expired", bool, default=False)
    ]
    active.sort(key=lambda one: not _field(one, "preferred", bool, default=False))
    return _endpoint(_field(active[0], "address", str)) if active else None


def _endpoint(text: str) -> str:
    address, _, port = text.rpartition("/")
    try:
        return f"{ip_address(address)}/{int(port)}"
    except ValueError:
        raise ValueError("a path's address is no IP address and port") from None


def _interface(value: object) -> IPv4Interface | IPv6Interface:
    if not isinstance(value, str):
        raise ValueError("an address is no text")  # noqa: TRY004  one error for every answer
    try:
        return ip_interface(value)
    except ValueError:
        raise ValueError("an address is no IP address") from None


def _member_id(found: Mapping[str, object]) -> str:
    member_id = member_id_of(_field(found, "address", str))
    if member_id is None:
        raise ValueError("address is no member id")
    return member_id


def _object(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError("wanted an object")  # noqa: TRY004  one error for every answer
    return value


def _list(found: Mapping[str, object], name: str) -> list[object]:
    value = found.get(name, [])
    if not isinstance(value, list):
        raise ValueError(f"{name} is no list")  # noqa: TRY004  one error for every answer
    return value


def _field(
    found: Mapping[str, object], name: str, kind: type[_Kind], default: _Kind | None = None
) -> _Kind:
    value = found.get(name, default)
    if type(value) is not kind:  # not isinstance: a bool would pass for an int
        raise ValueError(f"{name} is {'missing' if value is None else f'no {kind.__name__}'}")
    return value


def _shown(text: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in text)[:_NAME_LENGTH]
