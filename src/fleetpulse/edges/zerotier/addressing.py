"""The IPv6 addresses that ZeroTier computes from a network's id and a member's.

A network whose controller turns RFC 4193 or 6PLANE on gives every member such an address, so each
of them tells the address of every other one, without asking anybody:

    RFC 4193   fd | network id, 8 bytes | 9993 | member id, 5 bytes
    6PLANE     fc | both halves of the network id, xored, 4 bytes | member id, 5 bytes | 0 ... 01

Source: ZeroTierOne, node/InetAddress.cpp, makeIpv6rfc4193 and makeIpv66plane.
"""

import re
from ipaddress import IPv4Address, IPv6Address
from typing import Final

_MEMBER_ID: Final = re.compile(r"[0-9a-f]{10}")
_NETWORK_ID: Final = re.compile(r"[0-9a-f]{16}")
_MEMBER_BITS: Final = 40
_MEMBER_MASK: Final = (1 << _MEMBER_BITS) - 1
_RFC4193_FIRST: Final = 0xFD
_RFC4193_MARK: Final = 0x9993
_SIX_PLANE_FIRST: Final = 0xFC
_RFC4193_SHIFT: Final = 0
_SIX_PLANE_SHIFT: Final = 48


def member_id_of(text: str) -> str | None:
    """Return a member's id as ZeroTier writes it, 10 hexadecimal digits, None for other text."""
    return text.lower() if _MEMBER_ID.fullmatch(text.lower()) else None


def network_id_of(text: str) -> str | None:
    """Return a network's id as ZeroTier writes it, 16 hexadecimal digits, None for other text."""
    return text.lower() if _NETWORK_ID.fullmatch(text.lower()) else None


def rfc4193_address(network_id: str, member_id: str) -> IPv6Address:
    """Return a member's RFC 4193 address; both ids in hexadecimal digits.

    >>> rfc4193_address("8056c2e21c000001", "efcc1b0947")
    IPv6Address('fd80:56c2:e21c:0:199:93ef:cc1b:947')
    """
    bits = _RFC4193_FIRST << 120 | int(network_id, 16) << 56 | _RFC4193_MARK << _MEMBER_BITS
    return IPv6Address(bits | int(member_id, 16))


def six_plane_address(network_id: str, member_id: str) -> IPv6Address:
    """Return a member's 6PLANE address, the first of the 2**48 that belong to it.

    >>> six_plane_address("8056c2e21c000001", "efcc1b0947")
    IPv6Address('fc9c:56c2:e3ef:cc1b:947::1')
    """
    bits = _SIX_PLANE_FIRST << 120 | _folded(int(network_id, 16)) << 88
    return IPv6Address(bits | int(member_id, 16) << _SIX_PLANE_SHIFT | 1)


def network_mark(address: IPv4Address | IPv6Address) -> int | None:
    """Return 32 bits that both addresses of a network's member share; None where it is neither.

    Two networks on one machine have different marks (but for a chance of one in 2**32).
    """
    shift = _member_shift(address)
    if shift is None:
        return None
    bits = int(address)
    if shift == _RFC4193_SHIFT:
        return _folded(bits >> 56 & (1 << 64) - 1)
    return bits >> 88 & (1 << 32) - 1


def neighbour(address: IPv4Address | IPv6Address, member_id: str) -> IPv6Address:
    """Return the address of another member that belongs to an address of the same network.

    Raises ValueError where `address` is neither an RFC 4193 nor a 6PLANE address.

    >>> neighbour(IPv6Address("fc9c:56c2:e3ef:cc1b:947::1"), "89e92ceee5")
    IPv6Address('fc9c:56c2:e389:e92c:eee5::1')
    """
    shift = _member_shift(address)
    if shift is None:
        raise ValueError(f"{address} is neither an RFC 4193 nor a 6PLANE address")
    return IPv6Address(int(address) & ~(_MEMBER_MASK << shift) | int(member_id, 16) << shift)


def _member_shift(address: IPv4Address | IPv6Address) -> int | None:
    if not isinstance(address, IPv6Address):
        return None
    bits = int(address)
    if bits >> 120 == _RFC4193_FIRST and bits >> _MEMBER_BITS & 0xFFFF == _RFC4193_MARK:
        return _RFC4193_SHIFT
    if bits >> 120 == _SIX_PLANE_FIRST and bits & (1 << _SIX_PLANE_SHIFT) - 1 == 1:
        return _SIX_PLANE_SHIFT
    return None


def _folded(network_id: int) -> int:
    return (network_id ^ network_id >> 32) & 0xFFFF_FFFF
