"""Which TCP ports of this machine take connections, on which address, and whose they are.

Others' processes are visible to root alone, and macOS shows none without it: then a port has no
process here.
"""

import contextlib
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import psutil

from fleetpulse.domain.errors import FleetpulseError


@dataclass(frozen=True, slots=True)
class OpenPort:
    """A port that takes connections; `command` is the command line of its process, if known.

    An IPv4 address in IPv6 form counts as what it is; the unspecified address means every one of
    this machine's.
    """

    address: IPv4Address | IPv6Address
    port: int
    pid: int | None = None
    command: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Return `address:port` for people."""
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)  # noqa: PLR2004  the family's number
        return f"{host}:{self.port}"


def open_ports() -> tuple[OpenPort, ...]:
    """Return them by port and address; FleetpulseError where the system does not show them."""
    try:
        found = psutil.net_connections("tcp")
    except (psutil.Error, OSError) as err:
        raise FleetpulseError(
            f"this system does not show its open ports ({type(err).__name__}); run this as root"
        ) from err
    ports = {
        _open_port(one.laddr.ip, one.laddr.port, one.pid)
        for one in found
        if one.status == psutil.CONN_LISTEN and one.laddr
    }
    return tuple(sorted(ports, key=lambda one: (one.port, str(one.address), one.pid or 0)))


def _open_port(host: str, port: int, pid: int | None) -> OpenPort:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    command: tuple[str, ...] = ()
    if pid is not None:
        with contextlib.suppress(psutil.Error):
            command = tuple(psutil.Process(pid).cmdline())
    return OpenPort(address, port, pid, command)
