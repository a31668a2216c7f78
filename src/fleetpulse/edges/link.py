"""The way to another machine: names, connections, and packets that get lost because of their size.

Only TCP is looked at, on the very port that is used: pings are often blocked where it is open.
"""

import contextlib
import errno
import fcntl
import socket
import struct
import sys
import termios
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum, auto
from ipaddress import ip_address
from typing import Final

import psutil

from fleetpulse.domain.errors import ServiceUnreachable

# Of IP and TCP, with the time stamps that every current system adds to a segment.
_HEADERS_BYTES: Final = {socket.AF_INET: 52, socket.AF_INET6: 72}
# Fits into a packet on every network that carries IPv4 (RFC 791).
SMALL_SEGMENT_BYTES: Final = 500
# More than two packets of every network here, little enough for every send buffer.
_LARGE_BYTES: Final = 16 * 1024
_SO_NWRITE: Final = 0x1024  # macOS: what is sent and not acknowledged yet
_POLL_S: Final = 0.01
ATTEMPT_S: Final = 3.0
_REFUSALS: Final = (errno.ECONNREFUSED, errno.ECONNRESET)
_NO_ROUTES: Final = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN)


class Reach(StrEnum):
    """What came of an attempt to connect."""

    ACCEPTED = auto()
    REFUSED = auto()
    SILENT = auto()
    NO_ROUTE = auto()


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of one attempt to connect, and after how long."""

    reach: Reach
    seconds: float


@dataclass(frozen=True, slots=True)
class Link:
    """A connection's way: the interface that it leaves by, and its packets.

    `mtu_bytes` is the interface's, `packet_bytes` the largest packet that both ends agreed on; both
    are None where the system does not tell. `is_local` is True inside one machine.
    """

    interface: str | None
    mtu_bytes: int | None
    packet_bytes: int | None
    is_local: bool


def addresses_of(host: str) -> tuple[str, ...]:
    """Return the addresses of a name, or the address itself; ServiceUnreachable for none."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        reason = err.strerror if isinstance(err, OSError) else str(err)
        raise ServiceUnreachable(f"no address is known for {host!r} ({reason})") from err
    return tuple(dict.fromkeys(str(one[4][0]) for one in found))


def reach(host: str, port: int, timeout_s: float) -> Reach:
    """Return what comes of a connection to `host:port` within a time."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except TimeoutError:
        return Reach.SILENT
    except OSError as err:
        if err.errno in _REFUSALS:
            return Reach.REFUSED
        return Reach.NO_ROUTE if err.errno in _NO_ROUTES else Reach.SILENT
    return Reach.ACCEPTED


def attempts(host: str, port: int, count: int, every_s: float) -> tuple[Attempt, ...]:
    """Return what came of several connections to `host:port`.

    They are begun `every_s` apart and run beside each other, each for ATTEMPT_S at most.
    """

    def attempt(number: int) -> Attempt:
        time.sleep(number * every_s)
        started_s = time.monotonic()
        return Attempt(reach(host, port, ATTEMPT_S), time.monotonic() - started_s)

    with ThreadPoolExecutor(count) as pool:
        return tuple(pool.map(attempt, range(count)))


def is_up(interface: str) -> bool:
    """Tell whether an interface is up, as far as the system says."""
    stats = psutil.net_if_stats().get(interface)
    return stats is None or stats.isup


def link_to(host: str, port: int, timeout_s: float) -> Link:
    """Return the way of a connection to `host:port`; OSError where there is none."""
    with socket.create_connection((host, port), timeout_s) as link:
        own, there = str(link.getsockname()[0]), str(link.getpeername()[0])
        interface = _interface_of(own)
        segment_bytes = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG)
        headers_bytes = _HEADERS_BYTES[socket.AddressFamily(link.family)]
    stats = psutil.net_if_stats().get(interface or "")
    is_local = own == there or ip_address(there.partition("%")[0]).is_loopback
    return Link(
        interface,
        stats.mtu if stats else None,
        segment_bytes + headers_bytes if segment_bytes else None,
        is_local,
    )


def small_segments(link: socket.socket) -> None:
    """Let both ends of a connection that is not made yet send small packets only."""
    with contextlib.suppress(OSError):  # where the system knows no such thing
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SMALL_SEGMENT_BYTES)


def loses_large_packets(host: str, port: int, opening: bytes, timeout_s: float) -> bool:
    """Tell whether a short opening arrives at `host:port`, and a long continuation does not.

    The other machine's system acknowledges both, whatever the program there thinks of them.
    """
    deadline_s = time.monotonic() + timeout_s
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout_s) as link:
        link.sendall(opening)
        if not _arrives(link, deadline_s):
            return False
        link.sendall(bytes(_LARGE_BYTES))
        return not _arrives(link, deadline_s)
    return False


def _arrives(link: socket.socket, deadline_s: float) -> bool:
    """Wait until all that was sent is acknowledged; False where it is not in time."""
    while _unacknowledged_bytes(link):
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def _unacknowledged_bytes(link: socket.socket) -> int:
    if sys.platform == "darwin":
        return link.getsockopt(socket.SOL_SOCKET, _SO_NWRITE)
    # Linux, tcp(7): SIOCOUTQ, which has the number of TIOCOUTQ.
    (count,) = struct.unpack("i", fcntl.ioctl(link.fileno(), termios.TIOCOUTQ, bytes(4)))
    return int(count)


def _interface_of(address: str) -> str | None:
    wanted = address.partition("%")[0]
    return _first(
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(one.address.partition("%")[0] == wanted for one in addresses)
    )


def _first(names: Iterable[str]) -> str | None:
    return next(iter(names), None)
