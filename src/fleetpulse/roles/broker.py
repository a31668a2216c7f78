"""The broker of this machine, run from the pinned jars on the address in the settings."""

import datetime as dt
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from pathlib import Path
from threading import Event
from typing import Final

from fleetpulse.config import Settings, set_value
from fleetpulse.domain.errors import FleetpulseError, UsageError
from fleetpulse.edges.credentials.certificate import CertificateFacts, certificate_facts
from fleetpulse.edges.credentials.secret_file import read_secret
from fleetpulse.edges.files import atomic_writer
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.broker import BrokerSecurity, BrokerSpec, BrokerStatus
from fleetpulse.edges.overlay import overlay_addresses
from fleetpulse.roles.access import USERS, grants, refuse_open, tls_of
from fleetpulse.roles.member import located
from fleetpulse.roles.setup import BROKER_JARS, ready_jars, ready_java

_POLL_S: Final = 0.5


def data_dir(settings: Settings, given: Path | None) -> Path:
    """Return the broker's folder: the given one, else `broker` below the output folder."""
    return given or settings.output_dir / "broker"


def listeners(settings: Settings, say: Callable[[str], None]) -> list[tuple[str, str]]:
    """Return where the broker listens for whom, as name and text.

    Raises UsageError where no broker may be started so.
    """
    settings = located(settings)
    refuse_open(settings, say)
    secured = settings.security.tls
    return [
        (
            "clients",
            f"{settings.bootstrap()}, this address alone, also the one that they are told; "
            + ("TLS with certificates, SCRAM-SHA-512" if secured else "not protected"),
        ),
        (
            "controller",
            "127.0.0.1, a free port"
            + ("; TLS with certificates, the same for the broker's own use" if secured else ""),
        ),
    ]


def advertise_overlay(settings: Settings, file: Path) -> str:
    """Write this machine's overlay address into a settings file as hosts.broker; return it.

    Raises UsageError where the machine has no such address, or several, and for a file that holds
    mistakes; DiskError where it cannot be written.
    """
    name = settings.overlay.network
    found = overlay_addresses(None if name is None else ip_network(name))
    where = f"in {name}" if name else "on a ZeroTier interface"
    if not found:
        raise UsageError(
            f"this machine has no address {where}; join the network (fleetpulse network join "
            "NETWORK_ID), or name the addresses of your VPN in overlay.network"
        )
    # Of one interface the IPv4 address comes first: it is the one that people read and type.
    if len({one.interface for one in found}) > 1:
        places = ", ".join(f"{one.address} ({one.interface})" for one in found)
        raise UsageError(
            f"this machine has several overlay addresses: {places}; choose one network in "
            "overlay.network, such as 10.147.17.0/24"
        )
    address = str(found[0].address)
    text = set_value(file, "hosts", "broker", address)
    with atomic_writer(file) as write:
        write(text)
    return address


def start_broker(
    settings: Settings, data: Path, environ: Mapping[str, str], say: Callable[[str], None]
) -> bool:
    """Return True once the broker answers, False where it ran before; errors of its edge.

    Users, permissions and certificate of a secured one are set as the files say, in both cases.
    """
    return broker.start(_spec(settings, data, environ, say), say)


def run_broker(
    settings: Settings,
    data: Path,
    environ: Mapping[str, str],
    stop: Event,
    say: Callable[[str], None],
) -> None:
    """Run the broker until `stop` is set or it is stopped from outside; errors of its edge."""
    spec = _spec(settings, data, environ, say)
    with broker.running(spec, say) as running:
        say(f"broker {spec.address} answers; stop it with Ctrl-C")
        stamp = _stamp(settings)
        while running.is_running() and not stop.wait(_POLL_S):
            if (found := _stamp(settings)) == stamp:
                continue
            stamp = found
            try:
                running.renew(_spec(settings, data, environ, say))
                say("certificate, users and permissions are set again: their files were replaced")
            except FleetpulseError as err:
                say(f"certificate and users stay as they were: {err}")


def status(settings: Settings, data: Path) -> BrokerStatus:
    """Return whether the broker of a folder runs and answers."""
    return broker.status(data, tls_of(settings))


def _stamp(settings: Settings) -> object:
    """Return a value that differs once a file of the broker's security was replaced."""
    tls, users_dir = tls_of(settings), settings.security.users_dir
    if tls is None or users_dir is None:
        return None
    names = sorted(one.name for one in users_dir.glob("*.password"))
    users = [(name, (users_dir / name).stat().st_mtime_ns) for name in names]
    return KafkaAccess("", tls).stamp(), users


def _spec(
    settings: Settings, data: Path, environ: Mapping[str, str], say: Callable[[str], None]
) -> BrokerSpec:
    settings = located(settings)
    if settings.hosts.broker is None:
        raise UsageError(
            "no broker address: set hosts.broker to the address of this machine that clients reach"
        )
    refuse_open(settings, say)
    java = ready_java(environ)
    jars = ready_jars(BROKER_JARS, environ, java, say)
    return BrokerSpec(
        settings.hosts.broker,
        settings.broker.port,
        data,
        java.executable,
        jars,
        security=_security(settings),
    )


def _security(settings: Settings) -> BrokerSecurity | None:
    """Return whom the broker lets in; None for an open one."""
    part, tls = settings.security, tls_of(settings)
    if tls is None:
        return None
    if part.users_dir is None:
        raise UsageError(
            "security.tls is on, but security.users_dir is not set: a secured broker needs the "
            "folder of its users' passwords; start it with the settings of the folder broker that "
            "fleetpulse security init made"
        )
    if part.ca_file and part.certificate_file:
        _refuse_ended(certificate_facts(part.certificate_file, part.ca_file), part.certificate_file)
    passwords = {}
    for user in USERS:
        path = part.users_dir / f"{user}.password"
        if path.exists():
            passwords[user] = read_secret(path)
    if not passwords:
        raise UsageError(
            f"{part.users_dir}: wanted NAME.password for {', '.join(USERS)}, found none; copy the "
            "folder broker that fleetpulse security init made"
        )
    return BrokerSecurity(tls, passwords, USERS, grants(settings))


def _refuse_ended(found: CertificateFacts, path: Path) -> None:
    # A broker that shows it would be of no use, and one that runs goes on with the one before.
    now = dt.datetime.now(dt.UTC)
    if found.holds_at(now):
        return
    what = f"has expired on {found.not_after:%Y-%m-%d}"
    if now < found.not_before:
        what = f"is not valid before {found.not_before:%Y-%m-%d}; check the clock here"
    raise UsageError(
        f"{path}: the broker's certificate {what}; make a new one with: fleetpulse security renew "
        "--role broker, copy it here, and run fleetpulse broker start again"
    )
