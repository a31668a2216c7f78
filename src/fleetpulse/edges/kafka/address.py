"""A broker's address: whether this machine can serve it, and whether something answers there."""

import contextlib
import errno
import socket

import psutil

from fleetpulse.domain.errors import FleetpulseError, UsageError


def check_address(host: str, port: int) -> None:
    """Return when a broker can listen on `host:port` now; UsageError with the reason otherwise."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104  refused, not used
        raise UsageError(
            f"hosts.broker is {host}: clients are told this address, and it leads nowhere; "
            "set it to the address of this machine that they reach (ZeroTier, LAN or 127.0.0.1)"
        )
    try:
        family, kind, *_, bind_to = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Bound as the broker will bind it, so the answer is the system's own.
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(bind_to)
            probe.listen(1)
    except socket.gaierror as err:
        raise UsageError(
            f"hosts.broker: no address is known for {host!r} ({err.strerror}); set it to an "
            "address of this machine"
        ) from err
    except OSError as err:
        raise _address_error(host, port, err) from err


def free_port() -> int:
    """Return a TCP port on which nothing listens on 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def accepts(host: str, port: int, timeout_s: float) -> bool:
    """Return whether something accepts connections on `host:port`."""
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError:
        return False
    return True


def _address_error(host: str, port: int, err: OSError) -> FleetpulseError:
    if err.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} on {host} is taken{_taken_by(port)}; stop that program, or set "
            "broker.port (FLEETPULSE__BROKER__PORT) to a free port"
        )
    if err.errno == errno.EADDRNOTAVAIL:
        return UsageError(
            f"hosts.broker: {host} is not an address of this machine; start the broker on the "
            "machine that has it, or set hosts.broker to an address of this one"
        )
    if err.errno == errno.EACCES:
        return UsageError(
            f"port {port} is reserved for the system's own services; set broker.port to one "
            "above 1023"
        )
    return UsageError(f"hosts.broker, broker.port: cannot listen on {host}:{port} ({err.strerror})")


def _taken_by(port: int) -> str:
    # Others' processes are often not visible, and macOS shows none at all without root.
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            is_holder = connection.status == psutil.CONN_LISTEN and local and local.port == port
            if is_holder and connection.pid:
                name = psutil.Process(connection.pid).name()
                return f" by {name} (process {connection.pid})"
    return ""
