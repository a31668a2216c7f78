"""The broker of this machine, run from the pinned jars on the address in the settings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Final

from fleetpulse.config import Settings
from fleetpulse.domain.errors import FleetpulseError, UsageError
from fleetpulse.edges.credentials.secret_file import read_secret
from fleetpulse.edges.kafka import broker
from fleetpulse.edges.kafka.access import KafkaAccess
from fleetpulse.edges.kafka.broker import BrokerSecurity, BrokerSpec, BrokerStatus
from fleetpulse.roles.access import USERS, grants, refuse_open, tls_of
from fleetpulse.roles.setup import BROKER_JARS, ready_jars, ready_java

_POLL_S: Final = 0.5


def data_dir(settings: Settings, given: Path | None) -> Path:
    """Return the broker's folder: the given one, else `broker` below the output folder."""
    return given or settings.output_dir / "broker"


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
